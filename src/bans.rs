//! `ringmain ban …`: who may not come. The commands change the file of bans; a running broker sees it within a second
//! or two. (L03)

use std::fs::DirBuilder;
use std::io::Write;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use clap::{Args, Subcommand};
use ringmain_acl::{BAN_COLUMNS, Ban, BanKind, BanTable, until};
use ringmain_auth::users::{lock_beside, replace_file};

use crate::config::{Config, duration_ms};

/// Largest file of bans.
const FILE_BYTES_MAX: u64 = 256 << 20;

/// `ringmain ban …`.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Ban a client, or change its ban; live clients are disconnected
    Add {
        #[command(flatten)]
        whom: Whom,
        /// For how long, such as 90s, 30m, 12h or 7d [default: for ever]
        #[arg(long = "for", value_name = "TIME", value_parser = duration_ms, conflicts_with = "until_s")]
        span_ms: Option<u64>,
        /// Until when: RFC 3339, such as 2030-01-31T12:00:00Z, or Unix seconds
        #[arg(long = "until", value_name = "TIME", value_parser = until_time)]
        until_s: Option<u64>,
        /// Why, for people
        #[arg(long, value_name = "TEXT", default_value = "")]
        reason: String,
    },
    /// End a ban
    Del {
        #[command(flatten)]
        whom: Whom,
    },
    /// List the bans that hold, one a line: kind, value, until, reason
    List,
    /// Add the bans of another file, CSV with the columns kind, value, until, reason: all of them, or none if anything
    /// is wrong
    Import {
        /// File to import
        #[arg(value_name = "FROM")]
        from: PathBuf,
    },
}

#[derive(Debug, Args)]
pub(crate) struct Whom {
    /// client_id, username, address (or a network such as 10.0.0.0/8), client_id_regex or username_regex
    #[arg(value_name = "KIND", value_parser = BanKind::parse)]
    kind: BanKind,
    /// Whom it is for
    #[arg(value_name = "VALUE")]
    value: String,
}

fn until_time(text: &str) -> Result<u64, String> {
    until(text)?.ok_or_else(|| "leave it out for a ban that does not end".to_owned())
}

/// Where the file of bans is.
pub(crate) fn place(config: &Config) -> PathBuf {
    config.node.data_dir.join(&config.bans.path)
}

/// Reads a file of bans; there are none if there is no such file.
///
/// # Errors
/// All that is wrong with it.
pub(crate) fn read(path: &Path) -> Result<BanTable, Vec<String>> {
    let name = path.display().to_string();
    let failed = |error: std::io::Error| vec![format!("{name}: {error}")];
    match std::fs::metadata(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            return Ok(BanTable::default());
        }
        Err(error) => return Err(failed(error)),
        Ok(file) if !file.is_file() => return Err(vec![format!("{name}: this is no file")]),
        Ok(file) if file.len() > FILE_BYTES_MAX => {
            return Err(vec![format!("{name}: this is more than {FILE_BYTES_MAX} bytes")]);
        }
        Ok(_) => {}
    }
    BanTable::csv(&name, &std::fs::read_to_string(path).map_err(failed)?)
}

/// Does what the command line says.
///
/// # Errors
/// All that is wrong; the file is as it was.
pub(crate) fn run(config: &Config, command: &Command) -> Result<(), Vec<String>> {
    perform(&place(config), command, &mut std::io::stdout().lock())
}

fn perform(path: &Path, command: &Command, out: &mut dyn Write) -> Result<(), Vec<String>> {
    let one = |error: String| vec![error];
    let now_s = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    let said = |error: std::io::Error| vec![error.to_string()];
    if let Command::List = command {
        let bans = read(path)?;
        let mut writer = csv::Writer::from_writer(out);
        for ban in bans.iter().filter(|ban| ban.holds_at(now_s)) {
            writer.write_record(ban.fields()).map_err(|error| one(error.to_string()))?;
        }
        return writer.flush().map_err(said);
    }
    make_folder(path).map_err(one)?;
    let _lock = lock_beside(path).map_err(one)?;
    let before = read(path)?;
    let (after, what) = match command {
        Command::Add { whom, span_ms, until_s, reason } => {
            let for_s = span_ms.map(|ms| now_s.saturating_add(ms.div_ceil(1000)));
            let ban = Ban {
                kind: whom.kind,
                value: whom.value.as_str().into(),
                until_s: for_s.or(*until_s),
                reason: reason.as_str().into(),
            };
            let what = format!("banned: {ban}");
            let mut after = before;
            after.add(ban).map_err(one)?;
            (after, what)
        }
        Command::Del { whom } => {
            let is_it = |ban: &&Ban| ban.kind == whom.kind && *ban.value == *whom.value;
            if !before.iter().any(|ban| is_it(&ban)) {
                let (kind, value) = (whom.kind.name(), &whom.value);
                return Err(vec![format!("there is no ban of the {kind} {value:?}")]);
            }
            let mut after = BanTable::default();
            for ban in before.iter().filter(|ban| !is_it(ban)) {
                after.add(ban.clone()).map_err(one)?;
            }
            (after, format!("not banned any more: {} {:?}", whom.kind.name(), whom.value))
        }
        Command::Import { from } => {
            if !from.exists() {
                return Err(vec![format!("{}: there is no such file", from.display())]);
            }
            let imported = read(from)?;
            let mut after = before;
            for ban in imported.iter() {
                after.add(ban.clone()).map_err(one)?;
            }
            (after, format!("{} bans imported", imported.len()))
        }
        Command::List => unreachable!("done above"),
    };
    // Those that have ended go: otherwise the file would only grow.
    let lasting = after.iter().filter(|ban| ban.holds_at(now_s));
    replace_file(path, |file| {
        let mut writer = csv::Writer::from_writer(file);
        writer.write_record(BAN_COLUMNS)?;
        for ban in lasting {
            writer.write_record(ban.fields())?;
        }
        writer.flush()
    })
    .map_err(one)?;
    writeln!(out, "{what}").map_err(said)
}

/// The data directory may not be there before the broker's first start.
fn make_folder(path: &Path) -> Result<(), String> {
    let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty()) else {
        return Ok(());
    };
    let made = DirBuilder::new().recursive(true).mode(0o700).create(folder);
    made.map_err(|error| format!("{}: {error}", folder.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder(name: &str) -> PathBuf {
        let folder =
            std::env::temp_dir().join(format!("ringmain-bans-{name}-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&folder);
        std::fs::create_dir_all(&folder).expect("a folder");
        folder
    }

    fn whom(value: &str) -> Whom {
        Whom { kind: BanKind::ClientId, value: value.to_owned() }
    }

    fn add(value: &str, span_ms: Option<u64>) -> Command {
        Command::Add { whom: whom(value), span_ms, until_s: None, reason: "x, y".to_owned() }
    }

    #[test]
    fn what_is_added_is_listed_until_it_is_deleted_or_has_ended() {
        // L03
        let path = folder("add").join("data/not/there/bans.csv");
        let told = |command: &Command| {
            let mut out = Vec::new();
            perform(&path, command, &mut out).map(|()| String::from_utf8(out).expect("UTF-8"))
        };
        assert_eq!(told(&Command::List).as_deref(), Ok(""));
        assert_eq!(told(&add("a", None)).as_deref(), Ok("banned: client_id \"a\": x, y\n"));
        told(&add("gone", Some(0))).expect("added");
        told(&add("b", Some(86_400_000))).expect("added");
        let listed = told(&Command::List).expect("listed");
        let lines: Vec<&str> = listed.lines().collect();
        assert_eq!(lines.len(), 2, "{listed}");
        assert_eq!(lines[0], "client_id,a,,\"x, y\"");
        assert!(lines[1].starts_with("client_id,b,2"), "{listed}");
        told(&Command::Del { whom: whom("a") }).expect("deleted");
        let again = told(&Command::Del { whom: whom("a") });
        assert_eq!(again, Err(vec!["there is no ban of the client_id \"a\"".to_owned()]));
        assert_eq!(read(&path).expect("valid").len(), 1);
    }

    #[derive(Debug, clap::Parser)]
    struct Line {
        #[command(subcommand)]
        command: Command,
    }

    #[test]
    fn the_end_of_a_ban_is_a_time_or_a_span_and_not_both() {
        // L03
        let path = folder("until").join("bans.csv");
        let parse = |words: &str| {
            let words = ["ban", "add", "client_id", "a"].into_iter().chain(words.split(' '));
            <Line as clap::Parser>::try_parse_from(words).map(|line| line.command)
        };
        let until_s = |words: &str| {
            let command = parse(words).unwrap_or_else(|wrong| panic!("{words}: {wrong}"));
            perform(&path, &command, &mut Vec::new()).expect("added");
            let bans = read(&path).expect("valid");
            bans.iter().next().expect("a ban").until_s
        };
        assert_eq!(until_s("--until 2030-01-31T12:00:00Z"), Some(1_896_091_200));
        assert_eq!(until_s("--until 1896091201"), Some(1_896_091_201));
        assert_eq!(until_s("--reason x"), None);
        let hour = until_s("--for 1h").expect("an end");
        let now_s = SystemTime::now().duration_since(UNIX_EPOCH).expect("a clock").as_secs();
        assert!((now_s..now_s + 3601).contains(&hour), "{hour}");
        for (words, wanted) in [
            ("--until soon", "is no time such as 2030-01-31T12:00:00Z"),
            ("--until ", "leave it out"),
            ("--for 3", "is no time: write a number"),
            ("--for 1h --until 1896091200", "cannot be used with"),
        ] {
            let wrong = parse(words).expect_err(words).to_string();
            assert!(wrong.contains(wanted), "{words}: {wrong}");
        }
    }

    #[test]
    fn of_a_wrong_file_nothing_is_imported() {
        // L03
        let folder = folder("import");
        let (path, from) = (folder.join("bans.csv"), folder.join("from.csv"));
        let import = Command::Import { from: from.clone() };
        let wrong = perform(&path, &import, &mut Vec::new()).expect_err("no file");
        assert!(wrong[0].contains("there is no such file"), "{wrong:?}");
        std::fs::write(&from, "kind,value,until,reason\nclient_id,a,,\nnobody,b,,\n")
            .expect("written");
        let wrong = perform(&path, &import, &mut Vec::new()).expect_err("a wrong file");
        assert!(wrong[0].contains("from.csv:3: \"nobody\" is no kind of ban"), "{wrong:?}");
        assert!(!path.exists());
        std::fs::write(&from, "kind,value,until,reason\nclient_id,a,,\naddress,10.0.0.0/8,,\n")
            .expect("written");
        perform(&path, &import, &mut Vec::new()).expect("imported");
        assert_eq!(read(&path).expect("valid").len(), 2);
    }
}
