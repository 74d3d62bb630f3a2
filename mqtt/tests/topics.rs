//! Topic names, filters and subscriptions (S-50..S-53, S-60, W15, D1).

use ringmain_mqtt::ReasonCode;
use ringmain_mqtt::subscription::{Kind, parse_subscription};
use ringmain_mqtt::topic::{TopicError, TopicFilter, TopicName};

fn matches(filter: &str, topic: &str) -> bool {
    let filter = TopicFilter::parse(filter, 0).expect(filter);
    filter.matches(&TopicName::parse(topic, 0).expect(topic))
}

#[test]
fn s50_filters_match_as_the_specification_says() {
    for (filter, topic, expected) in [
        ("sport/#", "sport", true),
        ("sport/#", "sport/", true),
        ("sport/#", "sport/tennis/player1/ranking", true),
        ("sport/#", "sports", false),
        ("sport/tennis/player1/#", "sport/tennis/player1", true),
        ("sport/tennis/player1/#", "sport/tennis/player1/score/wimbledon", true),
        ("sport/tennis/+", "sport/tennis/player1", true),
        ("sport/tennis/+", "sport/tennis/player1/ranking", false),
        ("sport/+", "sport", false),
        ("sport/+", "sport/", true),
        ("+", "finance", true),
        ("+", "/finance", false),
        ("/+", "/finance", true),
        ("+/+", "/finance", true),
        ("+/+", "/", true),
        ("+/tennis/#", "sport/tennis", true),
        ("+/tennis/#", "/tennis/x", true),
        ("#", "a", true),
        ("#", "/", true),
        ("#", "a/b/c", true),
        ("/a", "a", false),
        ("a", "/a", false),
        ("a/", "a", false),
        ("a//b", "a//b", true),
        ("a/+/b", "a//b", true),
        ("a/b", "a//b", false),
        ("+/+/+", "a//b", true),
        // [MQTT-4.7.3-4] No normalization: bytes and case decide.
        ("ACCOUNTS", "Accounts", false),
        ("a b", "a b", true),
        ("\u{E9}", "e\u{301}", false),
        ("a/b/c", "a/b", false),
        ("a/b", "a/b/c", false),
        ("a/+/#", "a", false),
        ("a/+/#", "a/b", true),
    ] {
        assert_eq!(matches(filter, topic), expected, "{filter} against {topic}");
    }
}

#[test]
fn s51_a_leading_wildcard_never_matches_a_dollar_topic() {
    // [MQTT-4.7.2-1]
    for (filter, topic, expected) in [
        ("#", "$SYS/x", false),
        ("+/x", "$SYS/x", false),
        ("+", "$SYS", false),
        ("+/#", "$a/b", false),
        ("$SYS/#", "$SYS/x", true),
        ("$SYS/#", "$SYS", true),
        ("$SYS/+", "$SYS/x", true),
        ("a/+", "a/$b", true),
        ("a/#", "a/$b", true),
    ] {
        assert_eq!(matches(filter, topic), expected, "{filter} against {topic}");
    }
    let shared = parse_subscription("$share/g/#", 0).unwrap();
    assert!(!shared.filter.matches(&TopicName::parse("$SYS/x", 0).unwrap()));
    assert!(shared.filter.matches(&TopicName::parse("x", 0).unwrap()));
}

#[test]
fn s52_bad_filters_and_names_are_refused() {
    // [MQTT-4.7.1-1] [MQTT-4.7.1-2] [MQTT-4.7.3-1] [MQTT-4.7.3-2]
    for (filter, error) in [
        ("a#", TopicError::MisplacedWildcard),
        ("#/a", TopicError::MisplacedWildcard),
        ("a/#/b", TopicError::MisplacedWildcard),
        ("a/b#", TopicError::MisplacedWildcard),
        ("#a", TopicError::MisplacedWildcard),
        ("##", TopicError::MisplacedWildcard),
        ("a+/b", TopicError::MisplacedWildcard),
        ("+a", TopicError::MisplacedWildcard),
        ("a/+b/c", TopicError::MisplacedWildcard),
        ("++", TopicError::MisplacedWildcard),
        ("+#", TopicError::MisplacedWildcard),
        ("#+", TopicError::MisplacedWildcard),
        ("#/", TopicError::MisplacedWildcard),
        ("", TopicError::Empty),
        ("a\0", TopicError::Null),
        ("#\0", TopicError::Null),
    ] {
        assert_eq!(TopicFilter::parse(filter, 0), Err(error), "{filter:?}");
        assert_eq!(parse_subscription(filter, 0), Err(error), "{filter:?}");
    }
    for (name, error) in [
        ("", TopicError::Empty),
        ("a/#", TopicError::WildcardInName),
        ("+", TopicError::WildcardInName),
        ("a+b", TopicError::WildcardInName),
        ("a\0b", TopicError::Null),
    ] {
        assert_eq!(TopicName::parse(name, 0), Err(error), "{name:?}");
    }
}

#[test]
fn s50_levels_are_the_texts_between_slashes() {
    for (topic, levels, wildcard, hash) in [
        ("a", &["a"][..], false, false),
        ("/", &["", ""], false, false),
        ("a//b", &["a", "", "b"], false, false),
        ("/a/", &["", "a", ""], false, false),
        ("a/+/#", &["a", "+", "#"], true, true),
        ("+", &["+"], true, false),
    ] {
        let filter = TopicFilter::parse(topic, 0).unwrap();
        assert!(filter.levels().eq(levels.iter().copied()), "{topic}");
        assert_eq!(filter.level_count() as usize, levels.len());
        assert_eq!((filter.is_wildcard(), filter.ends_in_hash()), (wildcard, hash));
    }
}

#[test]
fn w15_length_and_number_of_levels_are_limited() {
    // [MQTT-4.7.3-3]
    let longest = "x".repeat(65_535);
    let too_long = "x".repeat(65_536);
    assert!(TopicName::parse(&longest, 1).is_ok());
    assert_eq!(TopicName::parse(&too_long, 0), Err(TopicError::TooLong));
    assert_eq!(TopicFilter::parse(&too_long, 0), Err(TopicError::TooLong));
    assert_eq!(parse_subscription(&too_long, 0), Err(TopicError::TooLong));
    let slashes = "/".repeat(65_535);
    assert_eq!(TopicName::parse(&slashes, 0).unwrap().level_count(), 65_536);
    assert_eq!(TopicName::parse(&slashes, u16::MAX), Err(TopicError::TooManyLevels));
    let at = ["a"; 128].join("/");
    let over = ["a"; 129].join("/");
    assert!(TopicName::parse(&at, 128).is_ok() && TopicFilter::parse(&at, 128).is_ok());
    assert_eq!(TopicName::parse(&over, 128), Err(TopicError::TooManyLevels));
    assert_eq!(TopicFilter::parse(&over, 128), Err(TopicError::TooManyLevels));
    // The prefix of a shared subscription does not count.
    assert!(parse_subscription(&format!("$share/g/{at}"), 128).is_ok());
    assert_eq!(
        parse_subscription(&format!("$share/g/{over}"), 128),
        Err(TopicError::TooManyLevels)
    );
}

#[test]
fn d1_s60_subscription_prefixes_are_split_off() {
    for (text, kind, filter) in [
        ("a/b", Kind::Plain, "a/b"),
        ("$share/g/a/#", Kind::Share { group: "g" }, "a/#"),
        ("$share/g//", Kind::Share { group: "g" }, "/"),
        ("$share/g//a", Kind::Share { group: "g" }, "/a"),
        ("$share/g/$SYS/#", Kind::Share { group: "g" }, "$SYS/#"),
        ("$queue/a/+", Kind::Queue, "a/+"),
        ("$queue//", Kind::Queue, "/"),
        ("$oshare/g/t", Kind::OShare { group: "g" }, "t"),
        ("$exclusive/t/1", Kind::Exclusive, "t/1"),
        // Not these prefixes.
        ("$shared/g/t", Kind::Plain, "$shared/g/t"),
        ("$queues/t", Kind::Plain, "$queues/t"),
        ("$q/t", Kind::Plain, "$q/t"),
        ("$SYS/#", Kind::Plain, "$SYS/#"),
        ("share/g/t", Kind::Plain, "share/g/t"),
        ("/$share/g/t", Kind::Plain, "/$share/g/t"),
        ("$", Kind::Plain, "$"),
    ] {
        let parsed = parse_subscription(text, 0).unwrap_or_else(|e| panic!("{text}: {e}"));
        assert_eq!((parsed.kind, parsed.filter.as_str()), (kind, filter), "{text}");
        let shared = !matches!(kind, Kind::Plain | Kind::Exclusive);
        assert_eq!(parsed.is_shared(), shared);
    }
}

#[test]
fn s60_shared_subscriptions_without_group_or_filter_are_refused() {
    // [MQTT-4.8.2-1] [MQTT-4.8.2-2]
    for (text, error) in [
        ("$share", TopicError::MalformedShare),
        ("$share/", TopicError::MalformedShare),
        ("$share/g", TopicError::MalformedShare),
        ("$share/g/", TopicError::MalformedShare),
        ("$share//t", TopicError::MalformedShare),
        ("$share/+/t", TopicError::MalformedShare),
        ("$share/g#/t", TopicError::MalformedShare),
        ("$share/#", TopicError::MalformedShare),
        ("$oshare/g", TopicError::MalformedShare),
        ("$oshare/g+/t", TopicError::MalformedShare),
        ("$queue", TopicError::MalformedShare),
        ("$queue/", TopicError::MalformedShare),
        ("$exclusive", TopicError::MalformedShare),
        ("$exclusive/", TopicError::MalformedShare),
        ("$share/g/a#", TopicError::MisplacedWildcard),
        ("$queue/#/a", TopicError::MisplacedWildcard),
        ("$share/g/$share/h/t", TopicError::NestedPrefix),
        ("$queue/$exclusive/t", TopicError::NestedPrefix),
        ("$exclusive/$share", TopicError::NestedPrefix),
    ] {
        assert_eq!(parse_subscription(text, 0), Err(error), "{text}");
    }
}

#[test]
fn s53_clients_may_not_publish_to_reserved_topics() {
    for (topic, refusal) in [
        ("$share/g/t", Some(ReasonCode::TOPIC_NAME_INVALID)),
        ("$share", Some(ReasonCode::TOPIC_NAME_INVALID)),
        ("$oshare/g/t", Some(ReasonCode::TOPIC_NAME_INVALID)),
        ("$queue/t", Some(ReasonCode::TOPIC_NAME_INVALID)),
        ("$exclusive/t", Some(ReasonCode::TOPIC_NAME_INVALID)),
        ("$SYS/brokers", Some(ReasonCode::NOT_AUTHORIZED)),
        ("$SYS", Some(ReasonCode::NOT_AUTHORIZED)),
        ("$SYSTEM", None),
        ("$shared", None),
        ("a/$share", None),
        ("$delayed/5/t", None),
    ] {
        assert_eq!(TopicName::parse(topic, 0).unwrap().publish_refusal(), refusal, "{topic}");
    }
}

#[test]
fn s53_s71_delayed_topics_need_an_integer_in_range_and_a_topic() {
    let bad = Some(Err(ReasonCode::TOPIC_NAME_INVALID));
    for (topic, expected) in [
        ("$delayed/5/a/b", Some(Ok((5, "a/b")))),
        ("$delayed/0/a", Some(Ok((0, "a")))),
        ("$delayed/5//", Some(Ok((5, "/")))),
        ("$delayed/4294967/t", Some(Ok((4_294_967, "t")))),
        ("$delayed/4294968/t", bad),
        ("$delayed/99999999999/t", bad),
        ("$delayed/x/t", bad),
        ("$delayed/-1/t", bad),
        ("$delayed/1.5/t", bad),
        ("$delayed//t", bad),
        ("$delayed/5/", bad),
        ("$delayed/5", bad),
        ("$delayed", bad),
        ("$delayedx/5/t", None),
        ("delayed/5/t", None),
    ] {
        let name = TopicName::parse(topic, 0).unwrap();
        let got = name.delayed().map(|r| r.map(|(seconds, topic)| (seconds, topic.as_str())));
        assert_eq!(got, expected, "{topic}");
        if let Some(Ok((_, inner))) = name.delayed() {
            assert_eq!(inner, TopicName::parse(inner.as_str(), 0).unwrap());
        }
    }
}
