//! What a client asks for in SUBSCRIBE: a topic filter, alone or behind a prefix that says how
//! messages are shared out.

use crate::topic::{TopicError, TopicFilter};

/// How the messages of a subscription are dealt out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind<'a> {
    /// Every subscriber gets every message.
    Plain,
    /// `$share/{group}/{filter}`: one member of the group gets each message (§4.8.2).
    Share {
        /// The ShareName.
        group: &'a str,
    },
    /// `$queue/{filter}`: a shared subscription without a group name, as in EMQ X 4.
    Queue,
    /// `$oshare/{group}/{filter}`: shared, and ordered by publisher.
    OShare {
        /// The group's name.
        group: &'a str,
    },
    /// `$exclusive/{filter}`: one subscriber at a time.
    Exclusive,
}

/// A subscription, parsed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Parsed<'a> {
    /// How its messages are dealt out.
    pub kind: Kind<'a>,
    /// What it matches, without the prefix.
    pub filter: TopicFilter<'a>,
}

impl Parsed<'_> {
    /// Whether one of several subscribers gets each message.
    #[inline]
    #[must_use]
    pub const fn is_shared(&self) -> bool {
        matches!(self.kind, Kind::Share { .. } | Kind::Queue | Kind::OShare { .. })
    }
}

/// Parses the string of a SUBSCRIBE or UNSUBSCRIBE. The filter may have `max_levels` levels (0: any
/// number), not counting the prefix.
///
/// # Errors
/// Answer with 0x8F Topic Filter invalid.
#[inline]
pub fn parse_subscription(text: &str, max_levels: u16) -> Result<Parsed<'_>, TopicError> {
    if text.len() > crate::topic::TOPIC_LEN_MAX {
        return Err(TopicError::TooLong);
    }
    let Some((kind, filter)) = prefix(text)? else {
        return Ok(Parsed { kind: Kind::Plain, filter: TopicFilter::parse(text, max_levels)? });
    };
    if filter.is_empty() {
        // [MQTT-4.8.2-2] The ShareName MUST be followed by "/" and a Topic Filter.
        return Err(TopicError::MalformedShare);
    }
    if !matches!(prefix(filter), Ok(None)) {
        return Err(TopicError::NestedPrefix);
    }
    Ok(Parsed { kind, filter: TopicFilter::parse(filter, max_levels)? })
}

/// Splits off a prefix; `None` when there is none.
fn prefix(text: &str) -> Result<Option<(Kind<'_>, &str)>, TopicError> {
    if !text.starts_with('$') {
        return Ok(None);
    }
    let (first, rest) = match text.split_once('/') {
        Some((first, rest)) => (first, Some(rest)),
        None => (text, None),
    };
    let rest = match first {
        "$share" | "$queue" | "$oshare" | "$exclusive" => rest.ok_or(TopicError::MalformedShare)?,
        _ => return Ok(None),
    };
    match first {
        "$queue" => return Ok(Some((Kind::Queue, rest))),
        "$exclusive" => return Ok(Some((Kind::Exclusive, rest))),
        _ => {}
    }
    let (group, filter) = rest.split_once('/').ok_or(TopicError::MalformedShare)?;
    // [MQTT-4.8.2-1] A ShareName is at least one character long. [MQTT-4.8.2-2] It MUST NOT
    // contain "/", "+" or "#".
    if group.is_empty() || group.contains(['+', '#', '\0']) {
        return Err(TopicError::MalformedShare);
    }
    let kind = if first == "$share" { Kind::Share { group } } else { Kind::OShare { group } };
    Ok(Some((kind, filter)))
}
