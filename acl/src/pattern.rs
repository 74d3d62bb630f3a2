//! A topic of a rule, ready to be compared.

use ringmain_mqtt::topic::{Levels, TOPIC_LEN_MAX};

use crate::topic::{begins_with_wildcard, covers, has_wildcard, matches_words, overlaps};

/// How a pattern is compared, beyond what MQTT says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Mode {
    /// In doubt it matches, as rules of `acl.conf` that deny do: see [`matches_words`].
    pub(crate) loose: bool,
    /// A subscribe matches when some of the topics that it asks for do.
    pub(crate) overlap: bool,
}

/// A topic of a rule for one client, or for all.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Pattern {
    text: Box<str>,
    /// How many bytes stand before the first wildcard: what is cheap to compare.
    plain: u16,
    kind: Kind,
    mode: Mode,
}

// A length of a topic fits into 16 bits.
const _: () = assert!(TOPIC_LEN_MAX <= u16::MAX as usize);

/// What a publish has to be compared with, found once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// Every topic, those that begin with `$` too.
    Any,
    /// The text itself, also of a subscribe, whatever wildcards are in it: `eq`.
    Exact,
    /// The text, which has no wildcard.
    Literal,
    /// `#`.
    All,
    /// A text without wildcards, and `/#`.
    Below,
    /// Anything else.
    Wild,
}

impl Pattern {
    pub(crate) fn any() -> Self {
        Self { text: Box::default(), plain: 0, kind: Kind::Any, mode: Mode::default() }
    }

    /// `text` is a topic filter.
    pub(crate) fn new(text: &str, eq: bool, mode: Mode) -> Self {
        let kind = match text.strip_suffix("/#") {
            _ if eq => Kind::Exact,
            _ if !has_wildcard(text) => Kind::Literal,
            _ if text == "#" => Kind::All,
            Some(above) if !has_wildcard(above) => Kind::Below,
            _ => Kind::Wild,
        };
        let plain = memchr::memchr2(b'+', b'#', text.as_bytes()).unwrap_or(text.len());
        Self { text: text.into(), plain: plain as u16, kind, mode }
    }

    /// Whether it matches every topic and every filter.
    pub(crate) fn is_any(&self) -> bool {
        self.kind == Kind::Any
    }

    /// Whether a publish to `name` matches.
    #[inline]
    pub(crate) fn matches_name(&self, name: &str) -> bool {
        match self.kind {
            Kind::Any => true,
            Kind::Exact | Kind::Literal => *self.text == *name,
            Kind::All => self.mode.loose || !name.starts_with('$'),
            Kind::Below => {
                let above = &self.text.as_bytes()[..self.text.len() - 2];
                let name = name.as_bytes();
                name.starts_with(above) && matches!(name.get(above.len()), None | Some(b'/'))
            }
            Kind::Wild => self.walks(name),
        }
    }

    /// Whether a subscribe to the filter `asked` matches.
    pub(crate) fn matches_filter(&self, asked: &str) -> bool {
        match (self.kind, self.mode) {
            (Kind::Any, _) => true,
            (Kind::Exact, _) => *self.text == *asked,
            (_, Mode { overlap: true, loose }) => overlaps(&self.text, asked, loose),
            // What is left of `a/b/#` must be there, but for `a/b` itself.
            _ if !begins_like(asked, self.plain()) => false,
            (_, Mode { loose: true, .. }) => matches_words(&self.text, asked),
            _ => covers(&self.text, asked),
        }
    }

    /// Its levels, if [`crate::index::Index`] can look it up by them; `Some` of nothing if no publish
    /// matches it.
    pub(crate) fn levels(&self) -> Option<Levels<'_>> {
        let odd = self.kind == Kind::Any || (self.mode.loose && begins_with_wildcard(&self.text));
        (!odd).then_some(Levels::of(&self.text))
    }

    /// Whether no publish matches it: it is a filter that is meant literally.
    pub(crate) fn is_filter_only(&self) -> bool {
        self.kind == Kind::Exact && has_wildcard(&self.text)
    }

    /// Bytes that it takes beyond its own size.
    pub(crate) fn heap_bytes(&self) -> usize {
        self.text.len()
    }

    #[inline]
    fn plain(&self) -> &[u8] {
        &self.text.as_bytes()[..usize::from(self.plain)]
    }

    #[inline]
    fn walks(&self, name: &str) -> bool {
        if !begins_like(name, self.plain()) {
            return false;
        }
        if !self.mode.loose && self.plain == 0 && name.starts_with('$') {
            return false;
        }
        let (rule, name) = (self.text.as_bytes(), name.as_bytes());
        let plain = self.plain().len();
        // What remains is `#`, and the name ends where its level would begin.
        if name.len() < plain {
            return &rule[plain..] == b"#";
        }
        walk(&rule[plain..], &name[plain..])
    }
}

/// Whether a text begins with what stands before the first wildcard of a filter, or is what stands
/// before a last `/`: `a/#` also matches `a`.
#[inline]
fn begins_like(text: &str, plain: &[u8]) -> bool {
    let text = text.as_bytes();
    text.starts_with(plain) || (plain.len() == text.len() + 1 && plain.starts_with(text))
}

/// Whether the levels of a filter that begin with a wildcard match the levels of a name.
#[inline]
fn walk(rule: &[u8], name: &[u8]) -> bool {
    let (mut r, mut n) = (0, 0);
    while let Some(&byte) = rule.get(r) {
        match byte {
            b'#' => return true,
            b'+' => {
                while name.get(n).is_some_and(|b| *b != b'/') {
                    n += 1;
                }
                r += 1;
            }
            // `…/#` also matches without the last level.
            _ if n == name.len() => return &rule[r..] == b"/#",
            _ if byte == name[n] => (r, n) = (r + 1, n + 1),
            _ => return false,
        }
    }
    n == name.len()
}

#[cfg(test)]
mod tests {
    use super::*;
    use ringmain_mqtt::topic::{TopicFilter, TopicName};

    #[test]
    fn a_name_matches_as_the_reference_of_the_protocol_says() {
        // S-51
        let filters = [
            "#", "+", "+/#", "a/#", "a/+", "a", "a/b", "+/b", "a/+/#", "$SYS/#", "/", "/#", "+/+",
            "+/b/#", "a/+/", "a/+/+/#", "+/", "a//+", "//#",
        ];
        let names = [
            "a", "a/b", "a/b/c", "ab", "$SYS", "$SYS/x", "/", "/b", "a/", "b", "$SYSx", "a//",
            "a/b/", "//", "//x", "ax/b",
        ];
        for filter in filters {
            let parsed = TopicFilter::parse(filter, 0).unwrap();
            let pattern = Pattern::new(filter, false, Mode::default());
            for name in names {
                let expected = parsed.matches(&TopicName::parse(name, 0).unwrap());
                assert_eq!(pattern.matches_name(name), expected, "{filter} {name}");
            }
        }
    }

    #[test]
    fn eq_is_the_text_and_nothing_else() {
        let pattern = Pattern::new("a/#", true, Mode::default());
        assert!(pattern.matches_filter("a/#") && pattern.is_filter_only());
        for other in ["a/b", "a", "a/+", "#"] {
            assert!(!pattern.matches_filter(other) && !pattern.matches_name(other), "{other}");
        }
    }

    #[test]
    fn a_pattern_is_small() {
        assert_eq!(size_of::<Pattern>(), 24);
    }
}
