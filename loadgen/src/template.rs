//! Topic and identifier templates.
//!
//! | written | means |
//! |---|---|
//! | `%i` | the client's number |
//! | `%c` | the client identifier (empty in its own template) |
//! | `%u` | the user name (empty in its own template) |
//! | `%n` | the number of the message among those of its publisher; in a subscription the number of the copy |
//! | `{a..b}` | a number from `a` to `b`, both included, in turn: (client + message) modulo the count |
//! | `%[a..b]` | a number from `a` to `b`, both included, by a hash of client and message |
//! | `%%` | a percent sign |
//!
//! Several ranges of one kind count like digits, so that all combinations come. Braces that are no
//! range are text.

use std::fmt::{self, Write as _};
use std::str::FromStr;

/// Combinations of the ranges of one template at most: each publisher may count its messages by
/// combination, at 4 bytes each.
pub const CHOICES_MAX: u64 = 1 << 24;

/// A parsed template. In JSON it is its text.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Template {
    parts: Vec<Part>,
    /// Combinations of the ranges chosen in turn.
    turns: u32,
    /// Combinations of the ranges chosen by hash.
    hashes: u32,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Part {
    Text(String),
    Number,
    ClientId,
    Username,
    Message,
    Turn { from: u64, count: u32 },
    Hash { from: u64, count: u32 },
}

/// What a template is rendered for.
#[derive(Clone, Copy, Debug, Default)]
pub struct Context<'a> {
    /// The client's number.
    pub number: u64,
    /// Its Client Identifier.
    pub client_id: &'a str,
    /// Its User Name.
    pub username: &'a str,
    /// The message's number.
    pub message: u64,
}

impl Template {
    /// Appends the text.
    pub fn render_to(&self, out: &mut String, of: &Context<'_>) {
        let mut turn = self.turn(of.number, of.message);
        let mut hash = self.hash(of.number, of.message);
        let pick = |index: &mut u32, from: u64, count: u32| {
            let number = from + u64::from(*index % count);
            *index /= count;
            number
        };
        for part in &self.parts {
            let number = match *part {
                Part::Text(ref text) => {
                    out.push_str(text);
                    continue;
                }
                Part::ClientId => {
                    out.push_str(of.client_id);
                    continue;
                }
                Part::Username => {
                    out.push_str(of.username);
                    continue;
                }
                Part::Number => of.number,
                Part::Message => of.message,
                Part::Turn { from, count } => pick(&mut turn, from, count),
                Part::Hash { from, count } => pick(&mut hash, from, count),
            };
            write!(out, "{number}").expect("a String takes any text");
        }
    }

    /// The text for a client. Its own identifier's template sees an empty `client_id`.
    #[must_use]
    pub fn render(&self, number: u64, client_id: &str) -> String {
        let mut out = String::new();
        self.render_to(&mut out, &Context { number, client_id, ..Context::default() });
        out
    }

    /// This template with `suffix` after it.
    #[must_use]
    pub fn with_suffix(&self, suffix: &str) -> Self {
        let mut copy = self.clone();
        if !suffix.is_empty() {
            copy.parts.push(Part::Text(suffix.to_owned()));
        }
        copy
    }

    /// Whether the text depends on the message.
    #[must_use]
    pub fn varies(&self) -> bool {
        self.is_numbered() || self.streams() > 1
    }

    /// Whether each message has a text of its own (`%n`).
    #[must_use]
    pub fn is_numbered(&self) -> bool {
        self.parts.contains(&Part::Message)
    }

    /// Whether the text has a client identifier or a user name in it.
    #[must_use]
    pub fn has_names(&self) -> bool {
        self.parts.iter().any(|p| matches!(p, Part::ClientId | Part::Username))
    }

    /// Combinations of all ranges: how many texts one client's messages have, `%n` aside.
    #[must_use]
    pub fn streams(&self) -> u32 {
        self.turns * self.hashes
    }

    /// Whether a range is chosen by hash.
    #[must_use]
    pub fn is_hashed(&self) -> bool {
        self.hashes > 1
    }

    /// Which of [`Self::streams`] a message belongs to.
    #[must_use]
    pub fn stream(&self, number: u64, message: u64) -> u32 {
        self.turn(number, message) * self.hashes + self.hash(number, message)
    }

    /// How many of a client's first `sent` messages belong to stream `stream`, in a template
    /// without hashes.
    #[must_use]
    pub fn sent_on(&self, stream: u32, number: u64, sent: u32) -> u32 {
        debug_assert!(!self.is_hashed(), "hashed streams are counted as they are sent");
        let turns = u64::from(self.turns);
        // The first message on it, and then each `turns`-th.
        let first = (u64::from(stream) + turns - number % turns) % turns;
        u64::from(sent).saturating_sub(first).div_ceil(turns) as u32
    }

    /// A message of stream `stream`, to render its text. Hashed streams are searched for.
    #[must_use]
    pub fn message_on(&self, stream: u32, number: u64) -> Option<u64> {
        if !self.is_hashed() {
            let turns = u64::from(self.turns);
            return Some((u64::from(stream) + turns - number % turns) % turns);
        }
        (0..u64::from(self.streams()) * 64).find(|&m| self.stream(number, m) == stream)
    }

    fn turn(&self, number: u64, message: u64) -> u32 {
        if self.turns == 1 { 0 } else { ((number + message) % u64::from(self.turns)) as u32 }
    }

    fn hash(&self, number: u64, message: u64) -> u32 {
        if self.hashes == 1 {
            return 0;
        }
        let h = mix(mix(number.wrapping_add(0x9E37_79B9_7F4A_7C15)).wrapping_add(message));
        ((u128::from(h) * u128::from(self.hashes)) >> 64) as u32
    }
}

/// The finalizer of splitmix64: any two inputs differ in about half of the output's bits.
#[must_use]
pub fn mix(mut x: u64) -> u64 {
    x = (x ^ (x >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    x ^ (x >> 31)
}

/// Reads `a..b` and `close` at the front of `text`; what is left comes third.
fn range(text: &str, close: char) -> Option<(u64, u64, &str)> {
    let (inside, rest) = text.split_once(close)?;
    let (from, to) = inside.split_once("..")?;
    Some((from.parse().ok()?, to.parse().ok()?, rest))
}

fn count(from: u64, to: u64) -> Result<u32, String> {
    let count = to.checked_sub(from).ok_or_else(|| format!("{from}..{to} is empty"))? + 1;
    u32::try_from(count).map_err(|_| format!("{from}..{to} is too long"))
}

impl FromStr for Template {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut parts = Vec::new();
        let mut literal = String::new();
        let mut rest = text;
        while let Some(c) = rest.chars().next() {
            let after = &rest[c.len_utf8()..];
            let (part, after) = match c {
                '{' => match range(after, '}') {
                    Some((from, to, left)) => (Part::Turn { from, count: count(from, to)? }, left),
                    None => {
                        literal.push('{');
                        rest = after;
                        continue;
                    }
                },
                '%' => match percent(after)? {
                    (Some(part), left) => (part, left),
                    (None, left) => {
                        literal.push('%');
                        rest = left;
                        continue;
                    }
                },
                other => {
                    literal.push(other);
                    rest = after;
                    continue;
                }
            };
            if !literal.is_empty() {
                parts.push(Part::Text(std::mem::take(&mut literal)));
            }
            parts.push(part);
            rest = after;
        }
        if !literal.is_empty() {
            parts.push(Part::Text(literal));
        }
        Self::of(parts)
    }
}

/// What follows a percent sign: a part, or `None` for the sign itself.
fn percent(after: &str) -> Result<(Option<Part>, &str), String> {
    let Some(c) = after.chars().next() else {
        return Err("a template ends in `%`; write `%%`".into());
    };
    let rest = &after[c.len_utf8()..];
    let part = match c {
        '%' => return Ok((None, rest)),
        'i' => Part::Number,
        'c' => Part::ClientId,
        'u' => Part::Username,
        'n' => Part::Message,
        '[' => {
            let (from, to, left) =
                range(rest, ']').ok_or("a range is written `%[0..99]`".to_owned())?;
            return Ok((Some(Part::Hash { from, count: count(from, to)? }), left));
        }
        other => return Err(format!("`%{other}` is not one of %i, %c, %u, %n, %[a..b], %%")),
    };
    Ok((Some(part), rest))
}

impl Template {
    fn of(parts: Vec<Part>) -> Result<Self, String> {
        let (mut turns, mut hashes) = (1u64, 1u64);
        for part in &parts {
            match part {
                Part::Turn { count, .. } => turns = turns.saturating_mul(u64::from(*count)),
                Part::Hash { count, .. } => hashes = hashes.saturating_mul(u64::from(*count)),
                _ => {}
            }
            if turns.saturating_mul(hashes) > CHOICES_MAX {
                return Err(format!("the ranges have more than {CHOICES_MAX} combinations"));
            }
        }
        Ok(Self { parts, turns: turns as u32, hashes: hashes as u32 })
    }
}

impl fmt::Display for Template {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for part in &self.parts {
            match part {
                Part::Text(text) => f.write_str(&text.replace('%', "%%"))?,
                Part::Number => f.write_str("%i")?,
                Part::ClientId => f.write_str("%c")?,
                Part::Username => f.write_str("%u")?,
                Part::Message => f.write_str("%n")?,
                Part::Turn { from, count } => {
                    write!(f, "{{{from}..{}}}", from + u64::from(*count) - 1)?;
                }
                Part::Hash { from, count } => {
                    write!(f, "%[{from}..{}]", from + u64::from(*count) - 1)?;
                }
            }
        }
        Ok(())
    }
}

impl TryFrom<String> for Template {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<Template> for String {
    fn from(template: Template) -> Self {
        template.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str, number: u64, message: u64) -> String {
        let t: Template = text.parse().unwrap();
        let mut out = String::new();
        t.render_to(&mut out, &Context { number, client_id: "me", username: "you", message });
        out
    }

    #[test]
    fn a_template_renders_numbers_names_and_percent() {
        assert_eq!(at("bench/%c/%u/%i/%n/100%%", 17, 4), "bench/me/you/17/4/100%");
    }

    #[test]
    fn an_unknown_placeholder_is_refused() {
        for bad in ["%x", "a%", "%[1..", "%[5..2]", "{5..2}", "{0..99999999}"] {
            assert!(bad.parse::<Template>().is_err(), "{bad}");
        }
    }

    #[test]
    fn braces_that_are_no_range_are_text() {
        assert_eq!(at("a/{b}/{1..}/{", 0, 0), "a/{b}/{1..}/{");
    }

    #[test]
    fn a_range_is_walked_in_turn_from_the_clients_number() {
        let texts: Vec<String> = (0..4).map(|m| at("t/{10..12}", 1, m)).collect();
        assert_eq!(texts, ["t/11", "t/12", "t/10", "t/11"]);
    }

    #[test]
    fn several_ranges_make_all_combinations() {
        let all: std::collections::BTreeSet<String> =
            (0..6).map(|m| at("{0..1}/{0..2}", 5, m)).collect();
        assert_eq!(all.len(), 6);
    }

    #[test]
    fn a_hashed_range_is_spread_evenly_and_repeats() {
        let mut counts = [0u32; 10];
        let t: Template = "%[0..9]".parse().unwrap();
        for m in 0..10_000 {
            counts[t.stream(3, m) as usize] += 1;
            assert_eq!(t.stream(3, m), t.stream(3, m));
        }
        assert!(counts.iter().all(|&c| (850..1150).contains(&c)), "{counts:?}");
    }

    #[test]
    fn the_messages_of_each_stream_are_counted_without_sending_them() {
        let t: Template = "{0..3}/{0..1}".parse().unwrap();
        for (number, sent) in [(0, 0), (3, 1), (5, 17), (8, 64), (7, 65)] {
            let mut counted = vec![0; t.streams() as usize];
            (0..u64::from(sent)).for_each(|m| counted[t.stream(number, m) as usize] += 1);
            let told: Vec<u32> = (0..t.streams()).map(|s| t.sent_on(s, number, sent)).collect();
            assert_eq!(told, counted, "client {number}, {sent} sent");
        }
    }

    #[test]
    fn a_message_of_each_stream_is_found() {
        for text in ["{0..6}", "%[0..6]", "{0..2}/%[0..4]"] {
            let t: Template = text.parse().unwrap();
            for stream in 0..t.streams() {
                let message = t.message_on(stream, 9).expect("64 tries a stream are enough");
                assert_eq!(t.stream(9, message), stream, "{text}");
            }
        }
    }

    #[test]
    fn the_text_of_a_template_parses_to_itself() {
        let text = "a%%/%i/%c/%u/%n/{3..9}/%[0..1]";
        let t: Template = text.parse().unwrap();
        assert_eq!(t.to_string(), text);
        assert_eq!(
            serde_json::from_str::<Template>(&serde_json::to_string(&t).unwrap()).unwrap(),
            t
        );
    }
}
