//! Who may not come at all. (L03)
//!
//! A table of bans is a CSV file: who, until when, and why. It is asked once for each CONNECT, and for all live
//! clients when it has changed.
//!
//! ```
//! use ringmain_acl::{BanTable, Subject};
//!
//! let bans = BanTable::csv("bans.csv", "kind,value,until,reason\nclient_id,lamp-7,,floods\n")?;
//! let lamp = Subject { client_id: "lamp-7", ..Subject::default() };
//! assert_eq!(bans.find(&lamp, 0).map(|ban| &*ban.reason), Some("floods"));
//! # Ok::<(), Vec<String>>(())
//! ```

use core::net::IpAddr;
use std::fmt;

use hashbrown::HashMap;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::subject::Subject;
use crate::who::{Network, Text};

/// Most bans in a table; a million take about 150 MB.
pub const BANS_MAX: usize = 1_000_000;
/// Most regular expressions among them: each is tried for each CONNECT.
pub const BAN_PATTERNS_MAX: usize = 256;
/// Longest value or reason, in bytes.
pub const BAN_TEXT_BYTES_MAX: usize = 1024;
/// Most errors that are told of a file.
const ERRORS_MAX: usize = 20;

/// Columns of the file, in this order.
pub const BAN_COLUMNS: [&str; 4] = ["kind", "value", "until", "reason"];

/// What a ban goes by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum BanKind {
    /// This client id.
    ClientId,
    /// This user name.
    Username,
    /// This address, or all addresses of this network in CIDR notation.
    Address,
    /// Client ids that match a regular expression.
    ClientIdRegex,
    /// User names that match a regular expression.
    UsernameRegex,
}

impl BanKind {
    /// All.
    pub const ALL: [Self; 5] =
        [Self::ClientId, Self::Username, Self::Address, Self::ClientIdRegex, Self::UsernameRegex];

    /// As the file has it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::ClientId => "client_id",
            Self::Username => "username",
            Self::Address => "address",
            Self::ClientIdRegex => "client_id_regex",
            Self::UsernameRegex => "username_regex",
        }
    }

    /// # Errors
    /// A sentence for the operator.
    pub fn parse(text: &str) -> Result<Self, String> {
        Self::ALL.into_iter().find(|kind| kind.name() == text).ok_or_else(|| {
            let names = Self::ALL.map(Self::name).join(", ");
            format!("{text:?} is no kind of ban: {names} are")
        })
    }
}

/// One entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ban {
    /// What it goes by.
    pub kind: BanKind,
    /// Whom it is for.
    pub value: Box<str>,
    /// Unix seconds at which it ends; `None`: never.
    pub until_s: Option<u64>,
    /// For people.
    pub reason: Box<str>,
}

impl Ban {
    /// Whether it holds at this time, in Unix seconds.
    #[must_use]
    pub fn holds_at(&self, unix_s: u64) -> bool {
        self.until_s.is_none_or(|until| unix_s < until)
    }

    /// The fields of its line.
    #[must_use]
    pub fn fields(&self) -> [String; 4] {
        let until = self.until_s.map(until_text).unwrap_or_default();
        [self.kind.name().to_owned(), self.value.to_string(), until, self.reason.to_string()]
    }
}

impl fmt::Display for Ban {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {:?}", self.kind.name(), self.value)?;
        if let Some(until) = self.until_s {
            write!(f, " until {}", until_text(until))?;
        }
        if self.reason.is_empty() { Ok(()) } else { write!(f, ": {}", self.reason) }
    }
}

/// Unix seconds as RFC 3339 writes them. The year 9999 is the last that it knows; such a ban is as good as one for
/// ever.
fn until_text(unix_s: u64) -> String {
    const LAST: i64 = 253_402_300_799;
    let unix_s = i64::try_from(unix_s).unwrap_or(LAST).min(LAST);
    let at = OffsetDateTime::from_unix_timestamp(unix_s).unwrap_or(OffsetDateTime::UNIX_EPOCH);
    at.format(&Rfc3339).unwrap_or_else(|_| unix_s.to_string())
}

/// Who may not come.
#[derive(Clone, Debug, Default)]
pub struct BanTable {
    bans: Vec<Ban>,
    client_ids: HashMap<Box<str>, u32>,
    usernames: HashMap<Box<str>, u32>,
    /// By length of the prefix, then by network.
    networks: Vec<(u8, HashMap<IpAddr, u32>)>,
    client_id_patterns: Vec<(Text, u32)>,
    username_patterns: Vec<(Text, u32)>,
}

impl BanTable {
    /// Reads a file's text: CSV (RFC 4180) with [`BAN_COLUMNS`] in its first line; `until` is RFC 3339, Unix
    /// seconds, or empty. Of several bans of the same kind and value the last one counts.
    ///
    /// # Errors
    /// All that is wrong, a sentence each that names the line; at most 20.
    pub fn csv(name: &str, text: &str) -> Result<Self, Vec<String>> {
        let mut table = Self::default();
        let mut errors = Vec::new();
        let mut reader = csv::ReaderBuilder::new()
            .flexible(true)
            .trim(csv::Trim::All)
            .from_reader(text.as_bytes());
        match reader.headers() {
            Ok(found) if found.is_empty() => return Ok(table),
            Ok(found) if found.iter().eq(BAN_COLUMNS) => {}
            Ok(found) => {
                let found = found.iter().collect::<Vec<_>>().join(",");
                let wanted = BAN_COLUMNS.join(",");
                return Err(vec![format!("{name}:1: the columns are {wanted}, not {found:?}")]);
            }
            Err(error) => return Err(vec![format!("{name}: {error}")]),
        }
        for record in reader.records() {
            let (line, added) = match record {
                Ok(record) => {
                    let line = record.position().map_or(0, csv::Position::line);
                    (line, ban(&record).and_then(|ban| table.add(ban)))
                }
                Err(error) => {
                    (error.position().map_or(0, csv::Position::line), Err(error.to_string()))
                }
            };
            if let Err(wrong) = added {
                errors.push(format!("{name}:{line}: {wrong}"));
                if errors.len() == ERRORS_MAX {
                    break;
                }
            }
        }
        if errors.is_empty() { Ok(table) } else { Err(errors) }
    }

    /// Adds a ban, instead of one of the same kind and value if there is one.
    ///
    /// # Errors
    /// A sentence for the operator.
    pub fn add(&mut self, ban: Ban) -> Result<(), String> {
        for (what, text) in [("value", &ban.value), ("reason", &ban.reason)] {
            if text.len() > BAN_TEXT_BYTES_MAX {
                return Err(format!("the {what} is longer than {BAN_TEXT_BYTES_MAX} bytes"));
            }
        }
        if ban.value.is_empty() {
            return Err(format!("a ban of a {} needs a value", ban.kind.name()));
        }
        let same = self.bans.len() as u32;
        let place = match ban.kind {
            BanKind::ClientId => *self.client_ids.entry(ban.value.clone()).or_insert(same),
            BanKind::Username => *self.usernames.entry(ban.value.clone()).or_insert(same),
            BanKind::Address => {
                let network = Network::parse(&ban.value)?;
                *self.networks_of(network.prefix()).entry(network.address()).or_insert(same)
            }
            BanKind::ClientIdRegex => pattern(&mut self.client_id_patterns, &ban.value, same)?,
            BanKind::UsernameRegex => pattern(&mut self.username_patterns, &ban.value, same)?,
        };
        if let Some(known) = self.bans.get_mut(place as usize) {
            *known = ban;
        } else if self.bans.len() == BANS_MAX {
            return Err(format!("there are more than {BANS_MAX} bans"));
        } else {
            self.bans.push(ban);
        }
        Ok(())
    }

    fn networks_of(&mut self, prefix: u8) -> &mut HashMap<IpAddr, u32> {
        let at = self.networks.iter().position(|(p, _)| *p == prefix).unwrap_or_else(|| {
            self.networks.push((prefix, HashMap::new()));
            self.networks.len() - 1
        });
        &mut self.networks[at].1
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.bans.is_empty()
    }

    /// How many there are, those that have ended included.
    #[must_use]
    pub fn len(&self) -> usize {
        self.bans.len()
    }

    /// All, in the order in which they were added.
    pub fn iter(&self) -> impl Iterator<Item = &Ban> {
        self.bans.iter()
    }

    /// A ban that holds for this client at this time, in Unix seconds.
    #[must_use]
    pub fn find(&self, subject: &Subject<'_>, unix_s: u64) -> Option<&Ban> {
        let ban = |place: &u32| self.bans.get(*place as usize).filter(|b| b.holds_at(unix_s));
        let by_name = |names: &HashMap<Box<str>, u32>, name: &str| names.get(name).and_then(ban);
        let by_pattern = |patterns: &[(Text, u32)], name: &str| {
            patterns.iter().filter(|(p, _)| p.matches(name)).find_map(|(_, place)| ban(place))
        };
        let by_address = |address: IpAddr| {
            self.networks.iter().find_map(|(prefix, networks)| {
                networks.get(&crate::who::masked(address, *prefix)).and_then(ban)
            })
        };
        by_name(&self.client_ids, subject.client_id)
            .or_else(|| by_name(&self.usernames, subject.username?))
            .or_else(|| by_address(subject.address()?))
            .or_else(|| by_pattern(&self.client_id_patterns, subject.client_id))
            .or_else(|| by_pattern(&self.username_patterns, subject.username?))
    }
}

/// The place of a regular expression.
fn pattern(patterns: &mut Vec<(Text, u32)>, text: &str, place: u32) -> Result<u32, String> {
    if let Some((_, known)) = patterns.iter().find(|(p, _)| p.is_pattern(text)) {
        return Ok(*known);
    }
    if patterns.len() == BAN_PATTERNS_MAX {
        return Err(format!("there are more than {BAN_PATTERNS_MAX} regular expressions"));
    }
    patterns.push((Text::like(text)?, place));
    Ok(place)
}

/// # Errors
/// What is wrong with a line.
fn ban(record: &csv::StringRecord) -> Result<Ban, String> {
    if record.len() != BAN_COLUMNS.len() {
        let wanted = BAN_COLUMNS.len();
        return Err(format!("a ban has {wanted} fields, this line {}", record.len()));
    }
    let field = |at: usize| record.get(at).unwrap_or_default();
    Ok(Ban {
        kind: BanKind::parse(field(0))?,
        value: field(1).into(),
        until_s: until(field(2))?,
        reason: field(3).into(),
    })
}

/// Reads the end of a ban: RFC 3339, Unix seconds, or empty.
///
/// # Errors
/// A sentence for the operator.
pub fn until(text: &str) -> Result<Option<u64>, String> {
    if text.is_empty() {
        return Ok(None);
    }
    if let Ok(unix_s) = text.parse() {
        return Ok(Some(unix_s));
    }
    let at = OffsetDateTime::parse(text, &Rfc3339).ok();
    let unix_s = at.and_then(|at| u64::try_from(at.unix_timestamp()).ok());
    unix_s.map(Some).ok_or_else(|| {
        format!("{text:?} is no time such as 2030-01-31T12:00:00Z, and no Unix seconds")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEAD: &str = "kind,value,until,reason\n";

    fn table(lines: &str) -> BanTable {
        BanTable::csv("bans.csv", &format!("{HEAD}{lines}")).expect("valid")
    }

    fn from<'a>(client_id: &'a str, username: Option<&'a str>, peer: &str) -> Subject<'a> {
        let peer = Some(peer.parse().expect("an address"));
        Subject { client_id, username, peer, ..Subject::default() }
    }

    #[test]
    fn each_kind_finds_its_own_and_nobody_else() {
        // L03
        let bans = table(
            "client_id,lamp,,a\nusername,eve,,b\naddress,10.0.0.1,,c\naddress,10.1.0.0/16,,d\n\
             address,2001:db8::/32,,e\nclient_id_regex,^bot-\\d+$,,f\nusername_regex,(?i)^tmp,,g\n",
        );
        assert_eq!(bans.len(), 7);
        let found = |c, u, a| bans.find(&from(c, u, a), 0).map(|ban| ban.reason.to_string());
        for (client_id, username, address, wanted) in [
            ("lamp", None, "192.0.2.1", Some("a")),
            ("lamp2", Some("lamp"), "192.0.2.1", None),
            ("x", Some("eve"), "192.0.2.1", Some("b")),
            ("eve", None, "192.0.2.1", None),
            ("x", None, "10.0.0.1", Some("c")),
            ("x", None, "::ffff:10.0.0.1", Some("c")),
            ("x", None, "10.0.0.2", None),
            ("x", None, "10.1.255.2", Some("d")),
            ("x", None, "2001:db8:5::1", Some("e")),
            ("bot-12", None, "192.0.2.1", Some("f")),
            ("bot-x", None, "192.0.2.1", None),
            ("x", Some("TMPuser"), "192.0.2.1", Some("g")),
        ] {
            let found = found(client_id, username, address);
            assert_eq!(found.as_deref(), wanted, "{client_id} {username:?} {address}");
        }
    }

    #[test]
    fn a_ban_ends_when_it_says_and_another_may_go_on() {
        // L03
        let bans = table("client_id,a,1970-01-01T00:01:40Z,x\naddress,10.0.0.0/8,200,y\n");
        let reason = |now| bans.find(&from("a", None, "10.0.0.1"), now).map(|b| &*b.reason);
        assert_eq!([99, 100, 199, 200].map(reason), [Some("x"), Some("y"), Some("y"), None]);
    }

    #[test]
    fn the_last_of_the_same_counts_and_takes_the_place() {
        let bans = table("client_id,a,100,old\nclient_id,b,,\nclient_id,a,,new\n");
        assert_eq!(bans.len(), 2);
        assert_eq!(bans.find(&from("a", None, "::1"), 500).map(|b| &*b.reason), Some("new"));
        let twice = table("address,10.0.0.1/8,,x\naddress,10.0.0.0/8,,y\n");
        assert_eq!(twice.len(), 1, "the same network");
    }

    #[test]
    fn what_is_written_is_read_again() {
        let bans = table("client_id,\"a,\"\"b\"\"\",4102444800,\"two\nlines\"\nusername,eve,,\n");
        let mut writer = csv::Writer::from_writer(Vec::new());
        writer.write_record(BAN_COLUMNS).unwrap();
        bans.iter().for_each(|ban| writer.write_record(ban.fields()).unwrap());
        let text = String::from_utf8(writer.into_inner().unwrap()).unwrap();
        assert!(text.contains("2100-01-01T00:00:00Z"), "{text}");
        let again = BanTable::csv("x", &text).unwrap();
        assert!(again.iter().eq(bans.iter()));
    }

    #[test]
    fn what_is_wrong_is_told_with_its_line_and_nothing_else_is_taken() {
        let told = |text: &str| BanTable::csv("bans.csv", text).expect_err(text).join("\n");
        assert!(told("kind,value\n").contains("bans.csv:1: the columns are"));
        let wrong = told(&format!(
            "{HEAD}client_id,a,,\nclient,b,,\nclient_id,,,\naddress,10.0.0.0/33,,\n\
             client_id_regex,(,,\nclient_id,c,tomorrow,\nclient_id,d\n"
        ));
        for (line, part) in [
            (3, "\"client\" is no kind of ban: client_id, username, address"),
            (4, "needs a value"),
            (5, "neither an address nor a network"),
            (6, "is not a regular expression"),
            (7, "\"tomorrow\" is no time such as"),
            (8, "a ban has 4 fields, this line 2"),
        ] {
            let told = wrong
                .lines()
                .any(|l| l.starts_with(&format!("bans.csv:{line}: ")) && l.contains(part));
            assert!(told, "{line} {part}: {wrong}");
        }
        let many = "client_id_regex,".to_owned();
        let many: String = (0..=BAN_PATTERNS_MAX).map(|i| format!("{many}x{i},,\n")).collect();
        assert!(told(&format!("{HEAD}{many}")).contains("more than 256 regular expressions"));
        let long = "x".repeat(BAN_TEXT_BYTES_MAX + 1);
        assert!(told(&format!("{HEAD}client_id,{long},,\n")).contains("longer than 1024 bytes"));
    }

    #[test]
    fn an_empty_file_bans_nobody() {
        for text in ["", "\n", HEAD] {
            assert!(BanTable::csv("x", text).unwrap().is_empty(), "{text:?}");
        }
    }
}
