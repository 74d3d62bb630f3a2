//! Topic matching for the oracle: naive on purpose, and shares nothing with the broker's.

/// Whether `filter` (without `$share`) matches `topic`. [S-50, S-51]
#[must_use]
pub fn matches(filter: &str, topic: &str) -> bool {
    if topic.starts_with('$') && (filter.starts_with('+') || filter.starts_with('#')) {
        return false;
    }
    let mut levels = topic.split('/');
    for part in filter.split('/') {
        if part == "#" {
            return true;
        }
        match levels.next() {
            Some(level) if part == "+" || part == level => {}
            _ => return false,
        }
    }
    levels.next().is_none()
}

/// Splits `$share/{group}/{filter}`; the group is `None` for an ordinary filter.
#[must_use]
pub fn split_share(text: &str) -> (Option<&str>, &str) {
    match text.strip_prefix("$share/").and_then(|rest| rest.split_once('/')) {
        Some((group, filter)) => (Some(group), filter),
        None => (None, text),
    }
}

#[cfg(test)]
mod tests {
    use super::{matches, split_share};

    #[test]
    fn naive_matcher_follows_the_examples_of_the_specification() {
        // [S-50] [S-51]
        for (filter, topic, yes) in [
            ("sport/#", "sport", true),
            ("sport/#", "sport/a/b", true),
            ("+", "", true),
            ("/+", "/a", true),
            ("+", "/a", false),
            ("a//b", "a//b", true),
            ("a/+/b", "a//b", true),
            ("#", "$SYS/a", false),
            ("+/a", "$SYS/a", false),
            ("$SYS/#", "$SYS/a", true),
            ("a/+", "a", false),
            ("a", "a/b", false),
        ] {
            assert_eq!(matches(filter, topic), yes, "{filter} {topic}");
        }
        assert_eq!(split_share("$share/g/a/#"), (Some("g"), "a/#"));
        assert_eq!(split_share("a/#"), (None, "a/#"));
    }
}
