//! Parsing and matching of topics against an implementation that only tries to be obvious.
//! Input: a filter, a line feed, a topic name.
#![no_main]

use libfuzzer_sys::fuzz_target;
use ringmain_mqtt::subscription::{Kind, parse_subscription};
use ringmain_mqtt::topic::{Levels, TopicFilter, TopicName};

const LEVELS_MAX: u16 = 16;

fuzz_target!(|input: &[u8]| {
    let Ok(text) = str::from_utf8(input) else { return };
    let (filter, name) = text.split_once('\n').unwrap_or((text, "a/b"));
    assert!(Levels::of(filter).eq(filter.split('/')));

    let parsed_filter = TopicFilter::parse(filter, LEVELS_MAX);
    assert_eq!(parsed_filter.is_ok(), is_filter(filter), "{filter:?}");
    let parsed_name = TopicName::parse(name, LEVELS_MAX);
    assert_eq!(parsed_name.is_ok(), is_name(name), "{name:?}");

    if let (Ok(f), Ok(n)) = (parsed_filter, parsed_name) {
        assert_eq!(f.matches(&n), matches(filter, name), "{filter:?} against {name:?}");
        assert_eq!(f.level_count() as usize, filter.split('/').count());
        assert_eq!(f.is_wildcard(), filter.contains(['+', '#']));
    }
    if let Ok(n) = parsed_name {
        let _ = n.publish_refusal();
        if let Some(Ok((seconds, inner))) = n.delayed() {
            assert_eq!(TopicName::parse(inner.as_str(), 0), Ok(inner));
            assert!(seconds <= 4_294_967);
        }
    }
    if let Ok(parsed) = parse_subscription(filter, LEVELS_MAX) {
        let f = parsed.filter.as_str();
        assert!(is_filter(f));
        let prefix = match parsed.kind {
            Kind::Plain => String::new(),
            Kind::Share { group } => format!("$share/{group}/"),
            Kind::Queue => "$queue/".into(),
            Kind::OShare { group } => format!("$oshare/{group}/"),
            Kind::Exclusive => "$exclusive/".into(),
        };
        assert_eq!(format!("{prefix}{f}"), filter);
    }
});

fn is_sane(text: &str) -> bool {
    !text.is_empty()
        && text.len() <= 65_535
        && !text.contains('\0')
        && text.split('/').count() <= usize::from(LEVELS_MAX)
}

fn is_name(text: &str) -> bool {
    is_sane(text) && !text.contains(['+', '#'])
}

fn is_filter(text: &str) -> bool {
    let levels: Vec<&str> = text.split('/').collect();
    is_sane(text)
        && levels.iter().enumerate().all(|(i, level)| {
            !level.contains(['+', '#']) || *level == "+" || (*level == "#" && i + 1 == levels.len())
        })
}

fn matches(filter: &str, name: &str) -> bool {
    fn levels(filter: &[&str], name: &[&str]) -> bool {
        match (filter, name) {
            (["#"], _) => true,
            ([], []) => true,
            ([f, filter @ ..], [n, name @ ..]) => (*f == "+" || f == n) && levels(filter, name),
            _ => false,
        }
    }
    if name.starts_with('$') && (filter.starts_with('+') || filter.starts_with('#')) {
        return false;
    }
    let filter: Vec<&str> = filter.split('/').collect();
    let name: Vec<&str> = name.split('/').collect();
    levels(&filter, &name)
}
