//! What clients may do, from the outside: placeholders, epochs, revocation, explanations.

use ringmain_acl::topic::{publish_target, subscribe_target};
use ringmain_acl::{
    Action, By, ClientRule, ClientRules, ClientRulesError, ClientRulesOrder, Decision, Effect,
    Gate, NoMatch, Policy, QosSet, Settings, Source, Subject, Verb,
};
use ringmain_mqtt::QoS;
use ringmain_mqtt::topic::TopicName;

const PUBLISH: Action = Action::Publish { qos: QoS::AtMostOnce, retain: false };
const SUBSCRIBE: Action = Action::Subscribe { qos: QoS::AtMostOnce };

fn gate(epoch: u64, text: &str, no_match: Effect) -> Gate {
    let source = Source::toml("acl.toml", text).unwrap_or_else(|errors| panic!("{errors}"));
    Gate::new(Policy::compile(epoch, vec![source], Settings::new(no_match)))
}

fn named(id: &str) -> Subject<'_> {
    Subject { client_id: id, ..Subject::default() }
}

fn local<'a>() -> Subject<'a> {
    Subject { peer: Some("::1".parse().unwrap()), ..named("local") }
}

#[test]
fn a_user_name_cannot_widen_a_rule() {
    // AZ03
    let mut gate = gate(
        1,
        "[[rule]]\neffect = \"allow\"\ntopics = [\"home/${username}/#\", \"${username}/#\"]",
        Effect::Deny,
    );
    for (username, allowed) in [
        (Some("joe"), true),
        (Some("#"), false),
        (Some("+"), false),
        (Some("joe/x"), false),
        (Some(""), false),
        (None, false),
    ] {
        let client = gate.client(&Subject { username, ..named("c") }, None);
        let expected = if allowed { Decision::Allow } else { Decision::Deny };
        assert_eq!(gate.decide(&client, PUBLISH, "home/joe/x"), expected, "{username:?}");
        assert_eq!(gate.decide(&client, SUBSCRIBE, "home/joe/#"), expected, "{username:?}");
        assert_eq!(gate.decide(&client, PUBLISH, "home/ann/x"), Decision::Deny, "{username:?}");
        assert_eq!(gate.decide(&client, SUBSCRIBE, "home/#"), Decision::Deny, "{username:?}");
    }
    let client = gate.client(&Subject { username: Some("$SYS"), ..named("c") }, None);
    assert_eq!(gate.decide(&client, SUBSCRIBE, "$SYS/#"), Decision::Deny);
    assert_eq!(gate.decide(&client, SUBSCRIBE, "home/$SYS/#"), Decision::Allow);
}

#[test]
fn a_rule_that_denies_does_not_vanish_when_it_cannot_be_filled_in() {
    // AZ03
    let mut gate = gate(
        1,
        "[[rule]]\neffect = \"deny\"\ntopics = [\"private/${username}/#\", { eq = \"${username}/all\" }]",
        Effect::Allow,
    );
    let ann = gate.client(&Subject { username: Some("ann"), ..named("c") }, None);
    assert_eq!(gate.decide(&ann, PUBLISH, "private/ann/x"), Decision::Deny);
    assert_eq!(gate.decide(&ann, PUBLISH, "private/joe/x"), Decision::Allow);
    for username in [None, Some(""), Some("#"), Some("+"), Some("ann/#")] {
        let client = gate.client(&Subject { username, ..named("c") }, None);
        for topic in ["private/ann/x", "private/ann/x/y", "private/joe", "joe/all", "$joe/all"] {
            assert_eq!(
                gate.decide(&client, PUBLISH, topic),
                Decision::Deny,
                "{username:?} {topic}"
            );
        }
        assert_eq!(gate.decide(&client, SUBSCRIBE, "private/+/#"), Decision::Deny, "{username:?}");
    }
    let nobody = gate.client(&named("c"), None);
    assert_eq!(gate.decide(&nobody, PUBLISH, "other"), Decision::Allow);
    let slash = gate.client(&Subject { username: Some("ann/x"), ..named("c") }, None);
    assert_eq!(gate.decide(&slash, PUBLISH, "private/ann/x/y"), Decision::Deny);
    assert_eq!(gate.decide(&slash, PUBLISH, "private/ann"), Decision::Allow);
}

#[test]
fn a_fresh_installation_keeps_strangers_from_everything_at_once() {
    // AZ09 S-51 S-60
    let policy = Policy::compile(1, vec![Source::default_policy()], Settings::new(Effect::Allow));
    let mut gate = Gate::new(policy);
    let remote = Subject { peer: Some("192.0.2.1".parse().unwrap()), ..named("remote") };
    let remote = gate.client(&remote, None);
    let local = gate.client(&local(), None);
    let admin = gate.client(&Subject { superuser: true, ..named("admin") }, None);
    for text in [
        "#",
        "+/#",
        "$SYS/#",
        "$SYS/brokers/+/uptime",
        "$share/g/#",
        "$queue/#",
        "$exclusive/$SYS/#",
        "$oshare/g/+/#",
    ] {
        let filter = subscribe_target(text).unwrap();
        assert_eq!(gate.decide(&remote, SUBSCRIBE, filter), Decision::Deny, "{text}");
        assert_eq!(gate.decide(&local, SUBSCRIBE, filter), Decision::Allow, "{text}");
        assert_eq!(gate.decide(&admin, SUBSCRIBE, filter), Decision::Allow, "{text}");
    }
    for text in ["a/#", "+", "+/+", "a/b", "$share/g/a/#"] {
        let filter = subscribe_target(text).unwrap();
        assert_eq!(gate.decide(&remote, SUBSCRIBE, filter), Decision::Allow, "{text}");
    }
    let topic = publish_target(&TopicName::parse("$delayed/5/a/b", 0).unwrap()).unwrap();
    assert_eq!(gate.decide(&remote, PUBLISH, topic), Decision::Allow);
}

#[test]
fn a_subscribe_is_refused_unless_all_of_it_is_allowed() {
    let text = "[[rule]]\neffect = \"allow\"\ntopics = [\"a/+\", \"b/#\"]";
    let mut gate = gate(1, text, Effect::Deny);
    let client = gate.client(&named("c"), None);
    for (filter, expected) in [
        ("a/x", Decision::Allow),
        ("a/+", Decision::Allow),
        ("a/#", Decision::Deny),
        ("a", Decision::Deny),
        ("b", Decision::Allow),
        ("b/#", Decision::Allow),
        ("+/x", Decision::Deny),
        ("#", Decision::Deny),
    ] {
        assert_eq!(gate.decide(&client, SUBSCRIBE, filter), expected, "{filter}");
    }
}

#[test]
fn overlapping_denies_what_would_reach_into_a_topic() {
    let rule = "[[rule]]\neffect = \"deny\"\naction = \"subscribe\"\ntopics = [\"secret/#\"]\n";
    let mut plain = gate(1, rule, Effect::Allow);
    let mut wide = gate(2, &format!("{rule}overlapping = true"), Effect::Allow);
    let (a, b) = (plain.client(&named("c"), None), wide.client(&named("c"), None));
    for filter in ["#", "+/x", "+/#"] {
        assert_eq!(plain.decide(&a, SUBSCRIBE, filter), Decision::Allow, "{filter}");
        assert_eq!(wide.decide(&b, SUBSCRIBE, filter), Decision::Deny, "{filter}");
    }
    for filter in ["secret/x", "secret/#"] {
        assert_eq!(plain.decide(&a, SUBSCRIBE, filter), Decision::Deny, "{filter}");
    }
    assert_eq!(wide.decide(&b, SUBSCRIBE, "public/#"), Decision::Allow);
}

#[test]
fn acl_conf_denies_what_emqx_denies() {
    // EMQX takes `a/#` for a match of `a/+`, and `$x` for one of `#`. To deny is the safe side of both.
    let source = |text: &str| Source::emqx("acl.conf", text).unwrap();
    let decide = |text: &str, action, topic: &str| {
        let mut gate =
            Gate::new(Policy::compile(1, vec![source(text)], Settings::new(Effect::Allow)));
        let client = gate.client(&named("c"), None);
        gate.decide(&client, action, topic)
    };
    assert_eq!(decide("{deny, all, all, [\"a/+\"]}.", SUBSCRIBE, "a/#"), Decision::Deny);
    assert_eq!(decide("{deny, all, all, [\"#\"]}.", PUBLISH, "$x/y"), Decision::Deny);
    assert_eq!(decide("{deny, all}.", SUBSCRIBE, "$x/y"), Decision::Deny);
    // To allow is not.
    let rest = "{deny, all}.";
    assert_eq!(
        decide(&format!("{{allow, all, all, [\"a/+\"]}}. {rest}"), SUBSCRIBE, "a/#"),
        Decision::Deny
    );
    assert_eq!(
        decide(&format!("{{allow, all, all, [\"#\"]}}. {rest}"), PUBLISH, "$x/y"),
        Decision::Deny
    );
}

#[test]
fn clients_that_differ_in_nothing_share_what_is_known_of_them() {
    assert_eq!(size_of::<ringmain_acl::ClientPolicy>(), 8);
    // As many topics as make the cache worth it.
    let text = "[[rule]]\neffect = \"allow\"\nwho = { username = \"joe\" }\ntopics = [\"a\"]
[[rule]]\neffect = \"deny\"\ntopics = [\"1\", \"2\", \"3\", \"4\", \"5\", \"6\", \"7\"]";
    let mut gate = gate(1, text, Effect::Deny);
    let joe = |id| Subject { username: Some("joe"), ..named(id) };
    let (one, two, other) = (
        gate.client(&joe("1"), None),
        gate.client(&joe("2"), None),
        gate.client(&named("3"), None),
    );
    assert!(one.shares_with(&two) && !one.shares_with(&other));
    assert_eq!(gate.decide(&one, PUBLISH, "a"), Decision::Allow);
    assert_eq!(gate.decide(&two, PUBLISH, "a"), Decision::Allow);
    assert_eq!(gate.decide(&other, PUBLISH, "a"), Decision::Deny);
    let stats = gate.cache_stats();
    // Of the third nothing can be allowed: no topic is looked at.
    assert_eq!((stats.hits, stats.misses), (1, 1), "the second found what the first asked");
    gate.clear_cache();
    assert_eq!(gate.decide(&one, PUBLISH, "a"), Decision::Allow);
    assert_eq!(gate.cache_stats().misses, 2);
    let rules = ClientRules::new(&[], NoMatch::Next).unwrap();
    assert!(!gate.client(&joe("4"), Some(&rules)).shares_with(&one));
}

#[test]
fn clients_that_are_gone_leave_nothing_behind() {
    // Each user name meets a rule of its own, so no two views are the same.
    let mut text = String::new();
    for user in 0..2000 {
        text.push_str(&format!(
            "[[rule]]\neffect = \"allow\"\nwho = {{ username = \"u{user}\" }}\ntopics = [\"t{user}\"]\n"
        ));
    }
    let mut gate = gate(1, &text, Effect::Deny);
    for user in 0..2000 {
        let name = format!("u{user}");
        let client = gate.client(&Subject { username: Some(&name), ..named("c") }, None);
        assert_eq!(gate.decide(&client, PUBLISH, &format!("t{user}")), Decision::Allow);
        assert!(gate.view_count() <= 128, "{}", gate.view_count());
    }
}

#[test]
fn a_view_is_valid_for_one_epoch() {
    let allow = "[[rule]]\neffect = \"allow\"\n";
    let mut gate = gate(1, allow, Effect::Deny);
    let mut client = gate.client(&named("c"), None);
    assert_eq!(gate.decide(&client, PUBLISH, "a"), Decision::Allow);
    let settings = Settings::new(Effect::Deny);
    gate.set_policy(Policy::compile(2, vec![], settings));
    assert_eq!(gate.decide(&client, PUBLISH, "a"), Decision::Stale);
    assert!(client.refresh(&mut gate, &named("c"), None));
    assert_eq!(client.epoch(), 2);
    assert!(!client.refresh(&mut gate, &named("c"), None));
    assert_eq!(gate.decide(&client, PUBLISH, "a"), Decision::Deny);
}

#[test]
fn subscriptions_that_a_new_policy_denies_are_found() {
    // AZ06 S-06
    let mut gate = gate(1, "[[rule]]\neffect = \"allow\"\n", Effect::Deny);
    let mut client = gate.client(&named("c"), None);
    let (q0, q2) = (QoS::AtMostOnce, QoS::ExactlyOnce);
    let held =
        [("a/#", q0), ("b", q0), ("$share/g/a/x", q0), ("$share/g/b", q0), ("a/y", q2), ("c", q0)];
    assert_eq!(gate.revoked(&client, held), Vec::<usize>::new());
    let text = "[[rule]]\neffect = \"allow\"\nqos = [0, 1]\ntopics = [\"a/#\", \"c\"]";
    let source = Source::toml("acl.toml", text).unwrap();
    gate.set_policy(Policy::compile(2, vec![source], Settings::new(Effect::Deny)));
    assert_eq!(gate.revoked(&client, held).len(), held.len(), "nothing is known of a stale client");
    client.refresh(&mut gate, &named("c"), None);
    assert_eq!(gate.revoked(&client, held), [1, 3, 4]);
    let admin = gate.client(&Subject { superuser: true, ..named("a") }, None);
    assert_eq!(gate.revoked(&admin, held), Vec::<usize>::new());
}

fn own(allow: bool, action: Verb, topic: &str) -> ClientRule {
    ClientRule { allow, action, topic: topic.into(), eq: false, qos: None, retain: None }
}

#[test]
fn rules_of_a_client_come_before_or_after_those_of_the_files() {
    let file = "[[rule]]\neffect = \"deny\"\ntopics = [\"a\"]\n[[rule]]\neffect = \"allow\"\ntopics = [\"b\"]";
    let rules =
        [own(true, Verb::All, "a"), own(false, Verb::Publish, "b"), own(true, Verb::All, "m/%c")];
    let rules = ClientRules::new(&rules, NoMatch::Next).unwrap();
    for (client_rules, a, b) in [
        (ClientRulesOrder::First, Decision::Allow, Decision::Deny),
        (ClientRulesOrder::Last, Decision::Deny, Decision::Allow),
    ] {
        let source = Source::toml("acl.toml", file).unwrap();
        let settings = Settings { no_match: Effect::Deny, client_rules };
        let mut gate = Gate::new(Policy::compile(1, vec![source], settings));
        let client = gate.client(&named("c"), Some(&rules));
        assert_eq!(gate.decide(&client, PUBLISH, "a"), a);
        assert_eq!(gate.decide(&client, PUBLISH, "b"), b);
        assert_eq!(gate.decide(&client, PUBLISH, "m/c"), Decision::Allow);
        assert_eq!(gate.decide(&client, PUBLISH, "m/d"), Decision::Deny);
    }
}

#[test]
fn rules_of_a_client_may_end_the_search() {
    for (no_match, expected) in [
        (NoMatch::Next, Decision::Allow),
        (NoMatch::Allow, Decision::Allow),
        (NoMatch::Deny, Decision::Deny),
    ] {
        let mut gate = gate(1, "[[rule]]\neffect = \"allow\"\n", Effect::Deny);
        let rules = ClientRules::new(&[], no_match).unwrap();
        let client = gate.client(&named("c"), Some(&rules));
        assert_eq!(gate.decide(&client, PUBLISH, "a"), expected, "{no_match:?}");
    }
}

#[test]
fn rules_of_a_client_that_cannot_be_used_are_refused() {
    let bad = [own(true, Verb::All, "a"), own(false, Verb::All, "a/#/b")];
    let error = ClientRules::new(&bad, NoMatch::Next).unwrap_err();
    assert_eq!(
        error.to_string(),
        "rule 2: topic \"a/#/b\": a wildcard does not stand alone in its level"
    );
    let many = vec![own(true, Verb::All, "a"); 257];
    assert_eq!(ClientRules::new(&many, NoMatch::Next).unwrap_err(), ClientRulesError::TooMany(257));
    let most = ClientRules::new(&many[1..], NoMatch::Next).unwrap();
    let mut first = ClientRules::new(&many[..1], NoMatch::Next).unwrap();
    assert_eq!(first.append(most.clone()), Err(ClientRulesError::TooMany(257)), "together");
    assert_eq!(first, ClientRules::new(&many[..1], NoMatch::Next).unwrap());
    first.append(ClientRules::new(&many[..2], NoMatch::Deny).unwrap()).unwrap();
    assert_eq!(first, ClientRules::new(&many[..3], NoMatch::Deny).unwrap());
}

#[test]
fn qos_and_retain_are_part_of_a_rule() {
    let q1 = QosSet::NONE.with(QoS::AtLeastOnce);
    let rule = ClientRule { qos: Some(q1), retain: Some(true), ..own(true, Verb::Publish, "a") };
    let rules = ClientRules::new(&[rule], NoMatch::Deny).unwrap();
    let mut gate = gate(1, "", Effect::Allow);
    let client = gate.client(&named("c"), Some(&rules));
    for qos in [QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce] {
        for retain in [false, true] {
            let fits = qos == QoS::AtLeastOnce && retain;
            let expected = if fits { Decision::Allow } else { Decision::Deny };
            assert_eq!(gate.decide(&client, Action::Publish { qos, retain }, "a"), expected);
        }
    }
    assert_eq!(gate.decide(&client, SUBSCRIBE, "a"), Decision::Deny);
}

#[test]
fn an_explanation_names_the_rule_and_why_the_others_did_not_decide() {
    // AZ10
    let text = "\
[[rule]]
effect = \"allow\"
who = { username = \"ann\" }

# For all.
[[rule]]
effect = \"allow\"
action = \"subscribe\"
topics = [\"a/#\"]

[[rule]]
effect = \"allow\"
topics = [\"u/${username}\", \"b\"]

[[rule]] # last
effect = \"deny\"
action = \"publish\"
qos = 0
topics = [\"x\", \"a/+\", \"1\", \"2\", \"3\"]
# end
";
    let mut gate = gate(1, text, Effect::Allow);
    let subject = named("c");
    let client = gate.client(&subject, None);
    let why = gate.explain(&client, &subject, None, PUBLISH, "a/b", true);
    assert_eq!(why.outcome, Effect::Deny);
    assert_eq!(why.cached, Some(false));
    let By::Rule { source, rule, line, text, topic } = &why.by else { panic!("{why:?}") };
    assert_eq!((source.as_str(), *rule, *line, topic.as_str()), ("acl.toml", 4, Some(15), "a/+"));
    assert!(text.starts_with("[[rule]] # last\n") && text.ends_with("\"3\"]"), "{text}");
    let because: Vec<&str> = why.earlier.iter().map(|passed| passed.because.as_str()).collect();
    assert_eq!(
        because,
        [
            "the client has no user name",
            "it is about subscribing",
            "no topic of it matches; the client has no user name",
        ]
    );
    assert_eq!(why.earlier[1].line, Some(6));
    let _ = gate.decide(&client, PUBLISH, "a/b");
    let why = gate.explain(&client, &subject, None, PUBLISH, "a/b", false);
    assert_eq!((why.cached, why.earlier.len()), (Some(true), 0));
    let json = serde_json::to_value(&why).unwrap();
    assert_eq!(json["outcome"], "deny");
    assert_eq!(json["by"]["kind"], "rule");
    assert_eq!(json["by"]["line"], 15);
    let qos = QoS::AtLeastOnce;
    let why =
        gate.explain(&client, &subject, None, Action::Publish { qos, retain: true }, "a/b", true);
    assert_eq!((why.by, &*why.earlier[3].because), (By::NoMatch, "it is not about QoS 1"));
    let admin = Subject { superuser: true, ..subject };
    let why = gate.policy().explain(&admin, None, PUBLISH, "a/b", true);
    assert_eq!((why.outcome, why.by), (Effect::Allow, By::Superuser));
}

#[test]
fn an_explanation_knows_rules_of_the_client_and_what_sources_say_at_their_end() {
    // AZ10
    let source = Source::toml("acl.toml", "no_match = \"deny\"").unwrap();
    let policy = Policy::compile(1, vec![source], Settings::new(Effect::Allow));
    let rules = ClientRules::new(&[own(true, Verb::Publish, "a")], NoMatch::Next).unwrap();
    let why = policy.explain(&named("c"), Some(&rules), PUBLISH, "a", false);
    assert!(matches!(&why.by, By::Rule { line: None, rule: 1, .. }), "{why:?}");
    let why = policy.explain(&named("c"), Some(&rules), SUBSCRIBE, "a", true);
    assert_eq!(why.by, By::SourceNoMatch { source: "acl.toml".into() });
    assert_eq!(why.earlier[0].because, "it is not about subscribing with QoS 0");
    assert_eq!(why.cached, None);
}
