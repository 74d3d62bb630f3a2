//! The topics of rules: placeholders, and what becomes of them for a client.

use ringmain_mqtt::topic::{Levels, TOPIC_LEN_MAX, TopicError, TopicFilter};

use crate::pattern::{Mode, Pattern};
use crate::subject::{Effect, Subject};

/// Levels of a topic in a rule: the index follows one by a call of its own. Topics of MQTT clients
/// have a dozen.
pub(crate) const LEVELS_MAX: u16 = 128;

/// A topic as a rule has it.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Topic {
    /// As written, without `eq`.
    pub(crate) text: String,
    /// Whether it is compared literally.
    pub(crate) eq: bool,
    parts: Vec<Part>,
}

#[derive(Clone, Debug, PartialEq)]
enum Part {
    Text(String),
    Value(Placeholder),
}

/// What a placeholder stands for.
#[derive(Clone, Debug, PartialEq)]
enum Placeholder {
    ClientId,
    Username,
    CommonName,
    Attribute(String),
}

/// Why a text is not a topic of a rule.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum BadTopic {
    #[error("{0}")]
    Filter(TopicError),
    #[error("unknown placeholder ${{{0}}}")]
    Placeholder(String),
    #[error("\"${{\" without \"}}\"")]
    Open,
}

impl BadTopic {
    /// What may stand in its place.
    pub(crate) const PLACEHOLDERS: [&str; 5] =
        ["clientid", "username", "cert_common_name", "cn", "client_attrs.NAME"];

    /// The placeholder that is meant, if it is one.
    pub(crate) fn placeholder(&self) -> Option<&str> {
        if let Self::Placeholder(name) = self { Some(name) } else { None }
    }
}

impl Topic {
    /// Every topic there is, those that begin with `$` too: `{allow, all}`.
    pub(crate) fn any() -> Self {
        Self { text: String::new(), eq: false, parts: vec![] }
    }

    /// Parses a topic: a filter with `${…}` anywhere, and `%c` and `%u` as whole levels.
    ///
    /// # Errors
    /// It is no filter, whatever the placeholders stand for, or a placeholder is not known.
    pub(crate) fn parse(text: &str, eq: bool) -> Result<Self, BadTopic> {
        if text.len() > TOPIC_LEN_MAX {
            return Err(BadTopic::Filter(TopicError::TooLong));
        }
        let mut parts = vec![];
        for (at, level) in Levels::of(text).enumerate() {
            if at > 0 {
                push(&mut parts, "/");
            }
            match level {
                "%c" => parts.push(Part::Value(Placeholder::ClientId)),
                "%u" => parts.push(Part::Value(Placeholder::Username)),
                _ => placeholders(level, &mut parts)?,
            }
        }
        let stand_in = |part: &Part| match part {
            Part::Text(text) => text.clone(),
            Part::Value(_) => "x".to_owned(),
        };
        let filled: String = parts.iter().map(stand_in).collect();
        TopicFilter::parse(&filled, LEVELS_MAX).map_err(BadTopic::Filter)?;
        Ok(Self { text: text.to_owned(), eq, parts })
    }

    /// Whether it is that of [`Topic::any`].
    pub(crate) fn is_any(&self) -> bool {
        self.parts.is_empty()
    }

    /// Whether it has a placeholder.
    pub(crate) fn is_template(&self) -> bool {
        self.parts.iter().any(|part| matches!(part, Part::Value(_)))
    }

    /// The pattern of a topic without placeholders.
    pub(crate) fn constant(&self, mode: Mode) -> Pattern {
        debug_assert!(!self.is_template());
        if self.is_any() { Pattern::any() } else { Pattern::new(&self.text, self.eq, mode) }
    }

    /// The pattern for one client; `None` if a rule that allows cannot be filled in for it.
    ///
    /// A value that could mean more than one level of its own (AZ03) is not put into a rule that
    /// allows, which then matches nothing. A rule that denies must not vanish: see [`Topic::widened`].
    pub(crate) fn fill(
        &self,
        subject: &Subject<'_>,
        effect: Effect,
        mode: Mode,
    ) -> Option<Pattern> {
        match effect {
            Effect::Allow => Some(Pattern::new(&self.filled(subject)?, self.eq, mode)),
            Effect::Deny => Some(match self.widened(subject) {
                (text, false) => Pattern::new(&text, self.eq, mode),
                (text, true) => Pattern::new(&text, false, Mode { loose: true, ..mode }),
            }),
        }
    }

    /// Which placeholder could not be put in, in words.
    pub(crate) fn unfilled(&self, subject: &Subject<'_>) -> Option<String> {
        if self.is_any() || self.filled(subject).is_some() {
            return None;
        }
        let culprit = self.parts.iter().enumerate().find_map(|(at, part)| match part {
            Part::Value(name) if safe(name.value(subject), at == 0).is_none() => Some(name),
            _ => None,
        });
        Some(match culprit {
            None => "the topic would be longer than 65,535 bytes".to_owned(),
            Some(name) => match name.value(subject) {
                None => format!("the client has no {}", name.words()),
                Some(value) => format!("{} {value:?} cannot be put into a topic", name.words()),
            },
        })
    }

    fn filled(&self, subject: &Subject<'_>) -> Option<String> {
        let mut text = String::with_capacity(self.text.len() + 16);
        for (at, part) in self.parts.iter().enumerate() {
            match part {
                Part::Text(part) => text.push_str(part),
                Part::Value(name) => text.push_str(safe(name.value(subject), at == 0)?),
            }
        }
        (text.len() <= TOPIC_LEN_MAX).then_some(text)
    }

    /// The text for a rule that denies, and whether it had to be widened. It denies at least what
    /// the values, put in as they are, would make of it: one with `/` or a `$` at the start is put in,
    /// one that is missing or empty stands for any level (`+`), one with wildcards or U+0000 for
    /// all that follows (`#`). A text that is too long stands for every topic.
    fn widened(&self, subject: &Subject<'_>) -> (String, bool) {
        let mut levels = vec![String::new()];
        let mut any = vec![];
        let mut is_wide = false;
        for part in &self.parts {
            let text = match part {
                Part::Text(text) => text.as_str(),
                Part::Value(name) => match name.value(subject).unwrap_or_default() {
                    value if value.contains(['+', '#', '\0']) => {
                        levels.pop();
                        levels.push("#".to_owned());
                        is_wide = true;
                        break;
                    }
                    "" => {
                        any.push(levels.len() - 1);
                        ""
                    }
                    value => value,
                },
            };
            let mut pieces = Levels::of(text);
            levels.last_mut().expect("never empty").push_str(pieces.next().unwrap_or_default());
            levels.extend(pieces.map(str::to_owned));
        }
        is_wide |= !any.is_empty();
        for level in any {
            // What ends in `#` is as wide as can be.
            if levels[level] != "#" {
                levels[level] = "+".to_owned();
            }
        }
        let text = levels.join("/");
        if text.len() > TOPIC_LEN_MAX { ("#".to_owned(), true) } else { (text, is_wide) }
    }
}

/// A text with placeholders that becomes the beginning of topics, such as a listener's mountpoint:
/// `tenants/${client_attrs.tenant}/`. Values are put in by the rules of topics in rules, so no client
/// can reach beyond its own.
#[derive(Clone, Debug)]
pub struct Prefix(Topic);

impl Prefix {
    /// Parses it.
    ///
    /// # Errors
    /// A sentence for the operator: it has a wildcard, U+0000, or an unknown placeholder.
    pub fn parse(text: &str) -> Result<Self, String> {
        let topic = Topic::parse(text, false).map_err(|bad| format!("{text:?}: {bad}"))?;
        if text.contains(['+', '#']) {
            return Err(format!("{text:?}: {}", TopicError::WildcardInName));
        }
        Ok(Self(topic))
    }

    /// The text for one client.
    ///
    /// # Errors
    /// What cannot be put in, in words. The client must not be let in without it.
    pub fn fill(&self, subject: &Subject<'_>) -> Result<String, String> {
        self.0.filled(subject).ok_or_else(|| self.0.unfilled(subject).unwrap_or_default())
    }
}

impl Placeholder {
    fn parse(name: &str) -> Option<Self> {
        match name {
            "clientid" => Some(Self::ClientId),
            "username" => Some(Self::Username),
            "cert_common_name" | "cn" => Some(Self::CommonName),
            _ => match name.strip_prefix("client_attrs.") {
                Some(attribute) if !attribute.is_empty() => {
                    Some(Self::Attribute(attribute.to_owned()))
                }
                _ => None,
            },
        }
    }

    fn value<'a>(&self, subject: &Subject<'a>) -> Option<&'a str> {
        match self {
            Self::ClientId => Some(subject.client_id),
            Self::Username => subject.username,
            Self::CommonName => subject.cert_common_name,
            Self::Attribute(name) => subject.attribute(name),
        }
    }

    fn words(&self) -> String {
        match self {
            Self::ClientId => "client id".to_owned(),
            Self::Username => "user name".to_owned(),
            Self::CommonName => "common name of a certificate".to_owned(),
            Self::Attribute(name) => format!("attribute {name:?}"),
        }
    }
}

/// A value that stands for itself within one level. At the start of a topic `$` would reach what is
/// the broker's: a client that calls itself `$SYS` does not own `$SYS/#`.
fn safe(value: Option<&str>, first: bool) -> Option<&str> {
    value.filter(|value| {
        let reaches = value.contains(['+', '#', '/', '\0']) || (first && value.starts_with('$'));
        !value.is_empty() && !reaches
    })
}

fn push(parts: &mut Vec<Part>, text: &str) {
    match parts.last_mut() {
        _ if text.is_empty() => {}
        Some(Part::Text(last)) => last.push_str(text),
        _ => parts.push(Part::Text(text.to_owned())),
    }
}

fn placeholders(level: &str, parts: &mut Vec<Part>) -> Result<(), BadTopic> {
    let mut rest = level;
    while let Some(at) = rest.find("${") {
        push(parts, &rest[..at]);
        let inside = &rest[at + 2..];
        let end = inside.find('}').ok_or(BadTopic::Open)?;
        let name = &inside[..end];
        let name =
            Placeholder::parse(name).ok_or_else(|| BadTopic::Placeholder(name.to_owned()))?;
        parts.push(Part::Value(name));
        rest = &inside[end + 1..];
    }
    push(parts, rest);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn subject<'a>() -> Subject<'a> {
        Subject {
            client_id: "c1",
            username: Some("u1"),
            cert_common_name: Some("cn1"),
            attributes: &[("tenant", "t1"), ("bad", "a/b"), ("sys", "$SYS")],
            ..Subject::default()
        }
    }

    fn filled(text: &str) -> Option<String> {
        Topic::parse(text, false).unwrap().filled(&subject())
    }

    #[test]
    fn placeholders_are_filled_in() {
        for (text, expected) in [
            ("a/b", "a/b"),
            ("a/%c/%u/#", "a/c1/u1/#"),
            ("a/x%c", "a/x%c"),
            ("${clientid}/+/${username}", "c1/+/u1"),
            ("d-${clientid}-${username}/${cert_common_name}", "d-c1-u1/cn1"),
            ("${cn}/${client_attrs.tenant}", "cn1/t1"),
            ("x/${client_attrs.sys}", "x/$SYS"),
        ] {
            assert_eq!(filled(text).as_deref(), Some(expected), "{text}");
        }
    }

    #[test]
    fn a_value_with_wildcards_or_levels_is_not_put_in() {
        // AZ03
        let topic = Topic::parse("${username}/x", false).unwrap();
        for bad in ["#", "+", "a/b", "", "a\0", "a#", "+a", "$SYS", "$share"] {
            let subject = Subject { username: Some(bad), ..Subject::default() };
            assert_eq!(topic.filled(&subject), None, "{bad:?}");
            let said = topic.unfilled(&subject).unwrap();
            assert!(said.contains("user name"), "{said}");
        }
        assert_eq!(topic.filled(&Subject::default()), None);
        assert_eq!(filled("x/${client_attrs.bad}"), None);
        assert_eq!(filled("x/${client_attrs.none}"), None);
        assert_eq!(filled("${client_attrs.sys}/#"), None);
    }

    #[test]
    fn a_topic_that_would_be_too_long_is_not_filled_in() {
        let long = "x".repeat(40_000);
        let subject = Subject { client_id: &long, username: Some(&long), ..Subject::default() };
        let topic = Topic::parse("${clientid}/${username}", false).unwrap();
        assert_eq!(topic.filled(&subject), None);
        assert_eq!(topic.widened(&subject), ("#".to_owned(), true));
        assert!(topic.unfilled(&subject).unwrap().contains("longer"));
    }

    #[test]
    fn a_rule_that_denies_is_widened_where_it_cannot_be_filled_in() {
        // AZ03
        let nameless = Subject { username: None, ..subject() };
        let hash = Subject { username: Some("a/#"), ..subject() };
        let slash = Subject { username: Some("a/b"), ..subject() };
        for (client, text, expected) in [
            (subject(), "a/${username}/#", ("a/u1/#", false)),
            (nameless, "a/${username}/#", ("a/+/#", true)),
            (nameless, "${username}", ("+", true)),
            (nameless, "a/x-${username}-${clientid}/b/%u", ("a/+/b/+", true)),
            (nameless, "${clientid}/x-${username}/${cn}", ("c1/+/cn1", true)),
            (nameless, "/${username}/", ("/+/", true)),
            (hash, "a/${username}/b", ("a/#", true)),
            (hash, "a/x-${username}/b", ("a/#", true)),
            (hash, "${client_attrs.none}-${username}", ("#", true)),
            (slash, "a/x-${username}-y/b", ("a/x-a/b-y/b", false)),
            (subject(), "${client_attrs.sys}/#", ("$SYS/#", false)),
        ] {
            let (found, is_wide) = Topic::parse(text, false).unwrap().widened(&client);
            assert_eq!((found.as_str(), is_wide), expected, "{text}");
        }
    }

    #[test]
    fn what_is_no_topic_is_refused() {
        let bad = |text: &str| Topic::parse(text, false).unwrap_err();
        assert_eq!(bad(""), BadTopic::Filter(TopicError::Empty));
        assert_eq!(bad("a/#/b"), BadTopic::Filter(TopicError::MisplacedWildcard));
        assert_eq!(bad("a/${clientid}#"), BadTopic::Filter(TopicError::MisplacedWildcard));
        assert_eq!(bad("a/${clientid}+/b"), BadTopic::Filter(TopicError::MisplacedWildcard));
        assert_eq!(bad("a/${client}"), BadTopic::Placeholder("client".into()));
        assert_eq!(bad("a/${client_attrs.}"), BadTopic::Placeholder("client_attrs.".into()));
        assert_eq!(bad("a/${clientid"), BadTopic::Open);
        assert_eq!(bad(&"a/".repeat(200)), BadTopic::Filter(TopicError::TooManyLevels));
        assert_eq!(bad(&"a".repeat(70_000)), BadTopic::Filter(TopicError::TooLong));
    }

    #[test]
    fn a_mountpoint_is_filled_in_or_refused() {
        // H13
        let prefix = Prefix::parse("tenants/${client_attrs.tenant}/${clientid}/").unwrap();
        assert_eq!(prefix.fill(&subject()).as_deref(), Ok("tenants/t1/c1/"));
        let error = prefix.fill(&Subject { client_id: "a/#", ..subject() }).unwrap_err();
        assert_eq!(error, "client id \"a/#\" cannot be put into a topic");
        assert!(Prefix::parse("a/#").unwrap_err().contains("wildcard"));
        assert!(Prefix::parse("${tenant}").unwrap_err().contains("placeholder"));
    }
}
