//! How the topics of a rule are held against the topic of a publish or the filter of a subscribe.
//!
//! Everything here works on texts that are known to be topic names or filters.

use ringmain_mqtt::ReasonCode;
use ringmain_mqtt::subscription::parse_subscription;
use ringmain_mqtt::topic::{Levels, TopicError, TopicName};

/// The topic that a publish is checked against: the text itself, or what follows `$delayed/{s}/`.
///
/// # Errors
/// The reason code to answer with, before any rule is asked: 0x90 for the subscription prefixes
/// (`$share`, `$queue`, `$oshare`, `$exclusive`), for a malformed `$delayed`, and for one within
/// another; 0x87 for `$SYS`. Both hold behind `$delayed` too.
pub fn publish_target<'a>(name: &TopicName<'a>) -> Result<&'a str, ReasonCode> {
    let target = name.delayed().transpose()?.map(|(_, inner)| inner);
    if target.is_some_and(|inner| inner.delayed().is_some()) {
        return Err(ReasonCode::TOPIC_NAME_INVALID);
    }
    let target = target.unwrap_or(*name);
    match target.publish_refusal() {
        Some(reason) => Err(reason),
        None => Ok(target.as_str()),
    }
}

/// The filter that a subscribe is checked against: the inner one of `$share/{group}/`, `$queue/`,
/// `$oshare/{group}/` and `$exclusive/`, else the text itself.
///
/// # Errors
/// The text is not a subscription: answer with 0x8F.
pub fn subscribe_target(text: &str) -> Result<&str, TopicError> {
    parse_subscription(text, 0).map(|parsed| parsed.filter.as_str())
}

/// Whether every topic that `asked` matches is matched by `filter` as well.
///
/// ```
/// use ringmain_acl::topic::covers;
/// assert!(covers("a/#", "a/+"));
/// assert!(!covers("a/+", "a/#"));
/// assert!(covers("+/#", "#"), "both mean every topic but those that begin with $");
/// assert!(!covers("#", "$SYS/x"));
/// ```
#[must_use]
pub fn covers(filter: &str, asked: &str) -> bool {
    // [MQTT-4.7.2-1] A filter that begins with a wildcard matches no topic that begins with $.
    if asked.starts_with('$') && begins_with_wildcard(filter) {
        return false;
    }
    // A topic has one level at least, so `#` asks for what `+/#` does.
    let asked = if asked == "#" { "+/#" } else { asked };
    let mut asked = Levels::of(asked);
    for level in Levels::of(filter) {
        if level == "#" {
            return true;
        }
        match asked.next() {
            Some("#") | None => return false,
            Some(other) if level == "+" || level == other => {}
            Some(_) => return false,
        }
    }
    asked.next().is_none()
}

/// Whether some topic is matched by both. `loose`: a leading wildcard of `filter` also stands for a
/// level that begins with `$`.
#[must_use]
pub(crate) fn overlaps(filter: &str, asked: &str, loose: bool) -> bool {
    if filter.starts_with('$') && begins_with_wildcard(asked) {
        return false;
    }
    if asked.starts_with('$') && begins_with_wildcard(filter) && !loose {
        return false;
    }
    let (mut left, mut right) = (Levels::of(filter), Levels::of(asked));
    loop {
        match (left.next(), right.next()) {
            (Some("#"), _) | (_, Some("#")) | (None, None) => return true,
            (Some(a), Some(b)) if a == b || a == "+" || b == "+" => {}
            _ => return false,
        }
    }
}

/// The comparison of EMQX's ACL files, which takes a wildcard that is asked for as a word like any
/// other, and does not know of `$`: `+` also stands for `#`, and `#` for `$SYS/x`. It holds at least
/// where [`covers`] does.
#[must_use]
pub(crate) fn matches_words(filter: &str, asked: &str) -> bool {
    let mut asked = Levels::of(asked);
    for level in Levels::of(filter) {
        if level == "#" {
            return true;
        }
        match asked.next() {
            Some(other) if level == "+" || level == other => {}
            _ => return false,
        }
    }
    asked.next().is_none()
}

/// Whether it begins with `+` or `#`.
pub(crate) fn begins_with_wildcard(filter: &str) -> bool {
    matches!(filter.as_bytes().first(), Some(b'+' | b'#'))
}

/// Whether there is a wildcard in it, given that wildcards stand alone in their levels.
pub(crate) fn has_wildcard(filter: &str) -> bool {
    memchr::memchr2(b'+', b'#', filter.as_bytes()).is_some()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// All filters of at most three levels over a, b, $x, + and #.
    fn filters() -> Vec<String> {
        let mut all = vec![];
        let levels = ["a", "b", "$x", "+"];
        let mut open: Vec<String> = vec![String::new()];
        for _ in 0..3 {
            let mut next = vec![];
            for start in &open {
                let join = |level: &str| {
                    if start.is_empty() { level.to_owned() } else { format!("{start}/{level}") }
                };
                next.extend(levels.iter().map(|level| join(level)));
                all.push(join("#"));
            }
            all.extend(next.iter().cloned());
            open = next;
        }
        all
    }

    fn names(depth: usize) -> Vec<String> {
        let mut all = vec![];
        let mut open: Vec<String> = vec![String::new()];
        for _ in 0..depth {
            open = open
                .iter()
                .flat_map(|start| {
                    ["a", "b", "$x"].map(|level| {
                        if start.is_empty() { level.into() } else { format!("{start}/{level}") }
                    })
                })
                .collect();
            all.extend(open.iter().cloned());
        }
        all
    }

    fn sets() -> Vec<(String, Vec<bool>)> {
        let names = names(4);
        let set = |filter: String| {
            let parsed = ringmain_mqtt::topic::TopicFilter::parse(&filter, 0).unwrap();
            let matched =
                names.iter().map(|name| parsed.matches(&TopicName::parse(name, 0).unwrap()));
            (filter.clone(), matched.collect())
        };
        filters().into_iter().map(set).collect()
    }

    #[test]
    fn covering_is_inclusion_of_the_topics_that_match() {
        // S-51
        let sets = sets();
        assert!(sets.len() > 100);
        for (filter, outer) in &sets {
            for (asked, inner) in &sets {
                let included = inner.iter().zip(outer).all(|(inner, outer)| !inner || *outer);
                assert_eq!(covers(filter, asked), included, "{filter:?} over {asked:?}");
            }
        }
    }

    #[test]
    fn overlapping_is_a_topic_that_both_match() {
        let sets = sets();
        for (filter, left) in &sets {
            for (asked, right) in &sets {
                let common = left.iter().zip(right).any(|(left, right)| *left && *right);
                assert_eq!(overlaps(filter, asked, false), common, "{filter:?} and {asked:?}");
            }
        }
    }

    #[test]
    fn the_comparison_of_emqx_is_never_narrower() {
        for filter in filters() {
            for asked in filters() {
                if covers(&filter, &asked) {
                    assert!(matches_words(&filter, &asked), "{filter:?} over {asked:?}");
                }
                // What is loosely compared denies: it may not let through what words would catch.
                if overlaps(&filter, &asked, false) {
                    assert!(overlaps(&filter, &asked, true));
                }
            }
        }
        assert!(matches_words("a/+", "a/#") && matches_words("#", "$SYS/x"));
    }

    #[test]
    fn prefixes_are_taken_off_before_rules_are_asked() {
        // AZ07 S-53 S-60
        let publish = |text| publish_target(&TopicName::parse(text, 0).unwrap());
        assert_eq!(publish("a/b"), Ok("a/b"));
        assert_eq!(publish("$delayed/15/a/b"), Ok("a/b"));
        assert_eq!(publish("$delayed/x/a"), Err(ReasonCode::TOPIC_NAME_INVALID));
        assert_eq!(publish("$delayed/1/$SYS/a"), Err(ReasonCode::NOT_AUTHORIZED));
        assert_eq!(publish("$delayed/1/$share/g/a"), Err(ReasonCode::TOPIC_NAME_INVALID));
        assert_eq!(publish("$delayed/1/$delayed/1/a"), Err(ReasonCode::TOPIC_NAME_INVALID));
        assert_eq!(publish("$SYS/a"), Err(ReasonCode::NOT_AUTHORIZED));
        assert_eq!(publish("$share/g/a"), Err(ReasonCode::TOPIC_NAME_INVALID));
        for (text, target) in [
            ("a/#", "a/#"),
            ("$share/g/a/#", "a/#"),
            ("$oshare/g/#", "#"),
            ("$queue/$SYS/#", "$SYS/#"),
            ("$exclusive/a", "a"),
        ] {
            assert_eq!(subscribe_target(text), Ok(target));
        }
        assert_eq!(subscribe_target("$share/g"), Err(TopicError::MalformedShare));
    }
}
