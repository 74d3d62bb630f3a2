//! Topic names and topic filters (§4.7) that cannot hold a bad value.

use crate::ReasonCode;
use std::fmt;

/// Longest topic name or filter in bytes: the two-byte length of a UTF-8 Encoded String.
pub const TOPIC_LEN_MAX: usize = u16::MAX as usize;

/// Largest `$delayed` interval in seconds, as in EMQX: 2^32 ms.
pub const DELAY_MAX_S: u32 = 4_294_967;

/// Why a string is not a topic name, topic filter or subscription.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum TopicError {
    /// It has no characters. [MQTT-4.7.3-1]
    Empty,
    /// It is longer than [`TOPIC_LEN_MAX`]. [MQTT-4.7.3-3]
    TooLong,
    /// It contains U+0000. [MQTT-4.7.3-2]
    Null,
    /// It has more levels than the limit.
    TooManyLevels,
    /// A topic name contains `+` or `#`. [MQTT-4.7.0-1]
    WildcardInName,
    /// `#` is not alone in the last level, or `+` not alone in its level.
    /// [MQTT-4.7.1-1] [MQTT-4.7.1-2]
    MisplacedWildcard,
    /// A `$share`, `$queue`, `$oshare` or `$exclusive` subscription lacks its group or filter, or
    /// its group contains a wildcard. [MQTT-4.8.2-1] [MQTT-4.8.2-2]
    MalformedShare,
    /// One such prefix within another.
    NestedPrefix,
}

impl TopicError {
    /// The error in words.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Empty => "the topic is empty",
            Self::TooLong => "the topic is longer than 65,535 bytes",
            Self::Null => "the topic contains U+0000",
            Self::TooManyLevels => "the topic has too many levels",
            Self::WildcardInName => "a topic name contains a wildcard",
            Self::MisplacedWildcard => "a wildcard does not stand alone in its level",
            Self::MalformedShare => "the group or the filter of a shared subscription is missing",
            Self::NestedPrefix => "a subscription prefix stands within another",
        }
    }
}

impl fmt::Display for TopicError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl std::error::Error for TopicError {}

/// A topic name: not empty, no wildcard, no U+0000, not too many levels.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TopicName<'a> {
    text: &'a str,
    level_count: u32,
}

impl<'a> TopicName<'a> {
    /// Parses a topic name of at most `max_levels` levels (0: any number).
    ///
    /// # Errors
    /// Answer with 0x90 Topic Name invalid.
    #[inline]
    pub fn parse(text: &'a str, max_levels: u16) -> Result<Self, TopicError> {
        let scan = Scan::of(text, max_levels)?;
        if scan.wildcards {
            return Err(TopicError::WildcardInName);
        }
        Ok(Self { text, level_count: scan.level_count })
    }

    /// Whether it begins with `$`, so that filters beginning with a wildcard pass it by.
    #[inline]
    #[must_use]
    pub fn is_dollar(&self) -> bool {
        self.text.as_bytes()[0] == b'$'
    }

    /// Why a client may not publish to it: 0x90 for the subscription prefixes `$share`, `$queue`,
    /// `$oshare` and `$exclusive`, 0x87 for `$SYS`. `None` when it may.
    #[must_use]
    pub fn publish_refusal(&self) -> Option<ReasonCode> {
        if !self.is_dollar() {
            return None;
        }
        match self.levels().next() {
            Some("$share" | "$queue" | "$oshare" | "$exclusive") => {
                Some(ReasonCode::TOPIC_NAME_INVALID)
            }
            Some("$SYS") => Some(ReasonCode::NOT_AUTHORIZED),
            _ => None,
        }
    }

    /// Reads the form `$delayed/{seconds}/{topic}`; `None` when the first level is not `$delayed`.
    ///
    /// # Errors
    /// 0x90 Topic Name invalid when the seconds are not an integer of at most [`DELAY_MAX_S`], or
    /// no topic follows.
    pub fn delayed(&self) -> Option<Result<(u32, TopicName<'a>), ReasonCode>> {
        let rest = match self.text.strip_prefix("$delayed") {
            Some("") => "",
            Some(rest) => rest.strip_prefix('/')?,
            None => return None,
        };
        let parsed = rest.split_once('/').and_then(|(seconds, topic)| {
            if !seconds.bytes().all(|b| b.is_ascii_digit()) || topic.is_empty() {
                return None;
            }
            let seconds = seconds.parse().ok().filter(|&s| s <= DELAY_MAX_S)?;
            Some((seconds, TopicName { text: topic, level_count: self.level_count - 2 }))
        });
        Some(parsed.ok_or(ReasonCode::TOPIC_NAME_INVALID))
    }
}

/// A topic filter: not empty, wildcards in their places, no U+0000, not too many levels.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TopicFilter<'a> {
    text: &'a str,
    level_count: u32,
    wildcard: bool,
}

impl<'a> TopicFilter<'a> {
    /// Parses a topic filter of at most `max_levels` levels (0: any number), `#` counting as one.
    /// Prefixes such as `$share` have no meaning here: see [`crate::subscription`].
    ///
    /// # Errors
    /// Answer with 0x8F Topic Filter invalid.
    #[inline]
    pub fn parse(text: &'a str, max_levels: u16) -> Result<Self, TopicError> {
        let scan = Scan::of(text, max_levels)?;
        if scan.wildcards && !wildcards_in_place(text) {
            return Err(TopicError::MisplacedWildcard);
        }
        Ok(Self { text, level_count: scan.level_count, wildcard: scan.wildcards })
    }

    /// Whether it contains `+` or `#`.
    #[inline]
    #[must_use]
    pub const fn is_wildcard(&self) -> bool {
        self.wildcard
    }

    /// Levels before the first one with a wildcard; all of them if none has.
    #[must_use]
    pub fn plain_levels(&self) -> usize {
        let has_wildcard = |level: &str| matches!(level, "+" | "#");
        self.text.split('/').take_while(|level| !has_wildcard(level)).count()
    }

    /// Whether its last level is `#`.
    #[inline]
    #[must_use]
    pub fn ends_in_hash(&self) -> bool {
        self.wildcard && self.text.as_bytes().last() == Some(&b'#')
    }

    /// Whether it matches `name`: the reference that faster matchers are tested against.
    #[must_use]
    pub fn matches(&self, name: &TopicName<'_>) -> bool {
        // [MQTT-4.7.2-1] A filter that begins with a wildcard matches no topic that begins with $.
        if name.is_dollar() && matches!(self.text.as_bytes()[0], b'+' | b'#') {
            return false;
        }
        let mut levels = name.levels();
        for filter in self.levels() {
            // `#` also stands for no level at all: `sport/#` matches `sport`.
            if filter == "#" {
                return true;
            }
            match levels.next() {
                Some(level) if filter == "+" || filter == level => {}
                _ => return false,
            }
        }
        levels.next().is_none()
    }
}

/// What a topic name and a topic filter have in common.
macro_rules! topic_text {
    ($name:ident) => {
        impl<'a> $name<'a> {
            /// The whole text.
            #[inline]
            #[must_use]
            pub const fn as_str(&self) -> &'a str {
                self.text
            }

            /// Its levels, wildcards as they stand; there is always one at least, and a level may be
            /// empty.
            #[inline]
            #[must_use]
            pub const fn levels(&self) -> Levels<'a> {
                Levels { rest: Some(self.text) }
            }

            /// How many levels it has, `#` counting as one.
            #[inline]
            #[must_use]
            pub const fn level_count(&self) -> u32 {
                self.level_count
            }
        }

        impl fmt::Debug for $name<'_> {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Debug::fmt(self.text, f)
            }
        }

        impl fmt::Display for $name<'_> {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.text)
            }
        }
    };
}

topic_text!(TopicName);
topic_text!(TopicFilter);

/// The levels of a topic: the texts between its `/`.
#[derive(Clone, Copy, Debug)]
pub struct Levels<'a> {
    rest: Option<&'a str>,
}

impl<'a> Levels<'a> {
    /// The levels of any string.
    #[inline]
    #[must_use]
    pub const fn of(text: &'a str) -> Self {
        Self { rest: Some(text) }
    }
}

impl<'a> Iterator for Levels<'a> {
    type Item = &'a str;

    #[inline]
    fn next(&mut self) -> Option<&'a str> {
        let rest = self.rest?;
        let Some(at) = memchr::memchr(b'/', rest.as_bytes()) else {
            return self.rest.take();
        };
        self.rest = Some(&rest[at + 1..]);
        Some(&rest[..at])
    }
}

/// What one pass over the bytes of a topic finds.
struct Scan {
    level_count: u32,
    wildcards: bool,
}

impl Scan {
    /// One loop without branches, which the compiler turns into vector instructions.
    #[inline]
    fn of(text: &str, max_levels: u16) -> Result<Self, TopicError> {
        if text.is_empty() {
            return Err(TopicError::Empty);
        }
        if text.len() > TOPIC_LEN_MAX {
            return Err(TopicError::TooLong);
        }
        let (mut slashes, mut wildcards, mut null) = (0u32, false, false);
        for &byte in text.as_bytes() {
            slashes += u32::from(byte == b'/');
            wildcards |= (byte == b'+') | (byte == b'#');
            null |= byte == 0;
        }
        if null {
            return Err(TopicError::Null);
        }
        if max_levels != 0 && slashes >= u32::from(max_levels) {
            return Err(TopicError::TooManyLevels);
        }
        Ok(Self { level_count: slashes + 1, wildcards })
    }
}

/// Whether every `+` is alone in its level and `#`, if there, alone in the last.
fn wildcards_in_place(text: &str) -> bool {
    let bytes = text.as_bytes();
    memchr::memchr2_iter(b'+', b'#', bytes).all(|at| {
        let starts_level = at == 0 || bytes[at - 1] == b'/';
        let ends_level = match bytes.get(at + 1) {
            None => true,
            Some(&next) => next == b'/' && bytes[at] == b'+',
        };
        starts_level && ends_level
    })
}
