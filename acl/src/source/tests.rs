//! What both forms take, and what they say to what they do not take.

use super::*;
use crate::{Action, Effect, Policy, Settings, Subject};
use ringmain_mqtt::QoS;

fn toml_errors(text: &str) -> Vec<String> {
    let errors = Source::toml("acl.toml", text).expect_err(text);
    errors.0.iter().map(SourceError::to_string).collect()
}

fn emqx_errors(text: &str) -> Vec<String> {
    let errors = Source::emqx("acl.conf", text).expect_err(text);
    errors.0.iter().map(SourceError::to_string).collect()
}

#[test]
fn the_built_in_policy_is_valid() {
    assert_eq!(Source::default_policy().rule_count(), 3);
}

#[test]
fn an_error_names_file_line_key_and_what_is_near() {
    for (text, expected) in [
        (
            "[[rule]]\neffekt = \"allow\"",
            "acl.toml:2: rule 1: unknown key \"effekt\"; nearest valid: effect",
        ),
        (
            "[[rule]]\neffect = \"alow\"",
            "acl.toml:2: rule 1: effect: unknown effect \"alow\"; nearest valid: allow",
        ),
        ("[[rules]]\neffect = \"deny\"", "acl.toml:1: unknown key \"rules\"; nearest valid: rule"),
        (
            "no_match = \"skip\"",
            "acl.toml:1: no_match: unknown value \"skip\"; nearest valid: deny",
        ),
        (
            "[[rule]]\neffect = \"deny\"\n\n[[rule]]\neffect = \"deny\"\nwho = { user_name = \"x\" }",
            "acl.toml:6: rule 2: who: unknown condition \"user_name\"; nearest valid: username",
        ),
        (
            "[[rule]]\neffect = \"deny\"\naction = \"pub\"",
            "acl.toml:3: rule 1: action: unknown action \"pub\"; nearest valid: publish",
        ),
        (
            "[[rule]]\neffect = \"deny\"\ntopics = [\n\"a\",\n\"${clientId}/x\"]",
            "acl.toml:5: rule 1: topics: \"${clientId}/x\" is not a topic filter: unknown placeholder \
             ${clientId}; nearest valid: ${clientid}",
        ),
        (
            "[[rule]]\neffect = \"deny\"\ntopics = [\"a/#/b\"]",
            "acl.toml:3: rule 1: topics: \"a/#/b\" is not a topic filter: a wildcard does not stand \
             alone in its level",
        ),
        (
            "[[rule]]\neffect = \"deny\"\nwho = { ip = \"10.0.0.0/40\" }",
            "acl.toml:3: rule 1: who: ip: \"10.0.0.0/40\" is neither an address nor a network like \
             10.0.0.0/8",
        ),
        (
            "[[rule]]\naction = \"all\"",
            "acl.toml:1: rule 1: effect is missing: effect = \"allow\" or \"deny\"",
        ),
        (
            "[[rule]]\neffect = \"deny\"\nqos = [0, 3]",
            "acl.toml:3: rule 1: qos: the integer 3 is not 0, 1 or 2",
        ),
        (
            "[[rule]]\neffect = \"allow\"\noverlapping = true",
            "acl.toml:1: rule 1: overlapping = true would allow more than the topics say: it is for \
             \"deny\"",
        ),
        (
            "[[rule]]\neffect = \"allow\"\naction = \"subscribe\"\nretain = true",
            "acl.toml:1: rule 1: retain is about messages, and the action is \"subscribe\"",
        ),
    ] {
        assert_eq!(toml_errors(text), [expected], "{text}");
    }
}

#[test]
fn all_errors_of_a_file_are_told_at_once_but_not_without_end() {
    let errors = toml_errors("[[rule]]\neffect = 1\n[[rule]]\neffect = \"deny\"\nx = 1\ny = 2\n");
    assert_eq!(errors.len(), 3, "{errors:#?}");
    assert_eq!(toml_errors(&"[[rule]]\n".repeat(100)).len(), ERRORS_MAX);
    assert_eq!(emqx_errors(&"{allow}.\n".repeat(100)).len(), ERRORS_MAX);
    assert!(toml_errors("[[rule]\neffect")[0].starts_with("acl.toml:1: "));
}

#[test]
fn an_error_in_acl_conf_names_line_and_place() {
    for (text, expected) in [
        (
            "{alow, all}.",
            "acl.conf:1: rule 1: permission: unknown permission \"alow\"; nearest valid: allow",
        ),
        (
            "% c\n{allow, all}\n{deny, all}.",
            "acl.conf:3: rule 1: expected \".\" after the rule of line 2",
        ),
        (
            "{allow, {usrname, \"x\"}, all, [\"a\"]}.",
            "acl.conf:1: rule 1: who: unknown condition \"usrname\"; nearest valid: username",
        ),
        (
            "{allow, {zone, \"x\"}, all, [\"a\"]}.",
            "acl.conf:1: rule 1: who: Ringmain has no zones: name the listeners of the zone, {listener, \
             \"tcp:default\"}",
        ),
        (
            "{allow, all, pub, [\"a\"]}.",
            "acl.conf:1: rule 1: action: unknown action \"pub\"; nearest valid: pubsub",
        ),
        ("{allow, all, all, \"a\"}.", "acl.conf:1: rule 1: topics: \"a\" is not a list: [\"a\"]"),
        (
            "{allow, all,\n all,\n [\"a\", {neq, \"b\"}]}.",
            "acl.conf:3: rule 1: topics: {neq, …} with 2 elements is neither a topic nor {eq, \"…\"}",
        ),
        (
            "{allow, all, publish, [\"${user}\"]}.",
            "acl.conf:1: rule 1: topics: \"${user}\" is not a topic filter: unknown placeholder ${user}; \
             nearest valid: ${username}",
        ),
        (
            "{allow, {username, {re, \"(\"}}, all, [\"a\"]}.",
            "acl.conf:1: rule 1: who: \"(\" is not a regular expression: unclosed group",
        ),
        (
            "{allow, {ipaddr, \"localhost\"}, all, [\"a\"]}.",
            "acl.conf:1: rule 1: who: \"localhost\" is neither an address nor a network like 10.0.0.0/8",
        ),
        (
            "{allow, all, {publish, [{qos, 4}]}, [\"a\"]}.",
            "acl.conf:1: rule 1: action: QoS 4; it is 0, 1 or 2",
        ),
        (
            "{allow, all, {publish, [{qoss, 1}]}, [\"a\"]}.",
            "acl.conf:1: rule 1: action: unknown option \"qoss\"; nearest valid: qos",
        ),
        ("\n{allow, \"x", "acl.conf:2: rule 1: no closing \""),
        (
            "{allow, Who, all, []}.",
            "acl.conf:1: rule 1: expected a term, found 'W': names of variables mean nothing here",
        ),
        (
            "{allow, all",
            "acl.conf:1: rule 1: expected \",\" or \"}\" of the bracket of line 1, but the file ends",
        ),
        ("allow.", "acl.conf:1: rule 1: form: the atom allow is not a rule like {allow, all}"),
    ] {
        assert_eq!(emqx_errors(text), [expected], "{text}");
    }
}

#[test]
fn depth_and_size_are_bounded() {
    let deep = format!("{}{}.", "{".repeat(100_000), "}".repeat(100_000));
    assert!(emqx_errors(&deep)[0].contains("more than 16 brackets"));
    let deep = format!("x = {}{}", "[".repeat(100_000), "]".repeat(100_000));
    assert!(Source::toml("acl.toml", &deep).is_err());
    let long = "%".repeat(SOURCE_BYTES_MAX + 1);
    assert!(emqx_errors(&long)[0].contains("split it"));
    assert!(toml_errors(&long)[0].contains("split it"));
    let many = "{allow, all}.\n".repeat(crate::RULES_MAX + 1);
    assert_eq!(emqx_errors(&many), ["acl.conf:10001: more than 10000 rules"]);
    let topics = format!("{{allow, all, all, [{}\"a\"]}}.", "\"a\",".repeat(1000));
    assert!(emqx_errors(&topics)[0].contains("1001 topics; at most 1000"));
}

/// Whether a policy of this one source lets the subject do it.
fn allows(source: &Source, subject: &Subject<'_>, action: Action, topic: &str) -> bool {
    let policy = Policy::compile(1, vec![source.clone()], Settings::new(Effect::Deny));
    policy.explain(subject, None, action, topic, false).outcome == Effect::Allow
}

const SUBSCRIBE: Action = Action::Subscribe { qos: QoS::AtMostOnce };

fn publish(qos: QoS, retain: bool) -> Action {
    Action::Publish { qos, retain }
}

#[test]
fn conditions_of_acl_conf_mean_what_emqx_means() {
    // AZ01
    let subject = Subject {
        client_id: "dash-1",
        username: Some("dashboard"),
        peer: Some("10.2.3.4".parse().unwrap()),
        listener: "tcp:default",
        cert_common_name: Some("cn"),
        attributes: &[("team", "blue")],
        superuser: false,
    };
    for (who, holds) in [
        ("all", true),
        ("{user, all}", true),
        ("{user, \"dashboard\"}", true),
        ("{username, <<\"dashboard\">>}", true),
        ("{username, \"dash\"}", false),
        ("{username, {re, \"^dash\"}}", true),
        ("{username, {re, \"^board\"}}", false),
        ("{username, {re, \"board\"}}", true),
        ("{client, \"dash-1\"}", true),
        ("{clientid, {re, \"^dash-\\\\d+$\"}}", true),
        ("{ipaddr, \"10.0.0.0/8\"}", true),
        ("{ipaddr, \"10.2.3.4\"}", true),
        ("{ipaddrs, [\"127.0.0.1\", \"10.2.0.0/16\"]}", true),
        ("{ipaddrs, []}", false),
        ("{client_attr, \"team\", \"blue\"}", true),
        ("{client_attr, \"team\", {re, \"^b\"}}", true),
        ("{client_attr, \"none\", {re, \".*\"}}", false),
        ("{listener, \"tcp:default\"}", true),
        ("{'and', [{user, \"dashboard\"}, {ipaddr, \"10.0.0.0/8\"}]}", true),
        ("{'and', [{user, \"dashboard\"}, {ipaddr, \"11.0.0.0/8\"}]}", false),
        ("{'and', []}", true),
        ("{'or', [{user, \"x\"}, {'and', [{client, \"dash-1\"}, all]}]}", true),
        ("{'or', []}", false),
    ] {
        let text = format!("{{allow, {who}, all, [\"t\"]}}.");
        let source = Source::emqx("acl.conf", &text).unwrap_or_else(|e| panic!("{e}"));
        assert_eq!(allows(&source, &subject, SUBSCRIBE, "t"), holds, "{who}");
    }
}

#[test]
fn actions_of_acl_conf_mean_what_emqx_means() {
    // AZ01
    let (q0, q1, q2) = (QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce);
    let all = [publish(q0, false), publish(q1, false), publish(q2, true), SUBSCRIBE];
    for (action, expected) in [
        ("publish", [true, true, true, false]),
        ("subscribe", [false, false, false, true]),
        ("all", [true; 4]),
        ("pubsub", [true; 4]),
        ("{publish, []}", [true, true, true, false]),
        ("{publish, [{qos, 1}, {retain, false}]}", [false, true, false, false]),
        ("{publish, [{qos, 1}, {qos, 2}]}", [false, true, true, false]),
        ("{publish, [{qos, [0, 2]}, {retain, all}]}", [true, false, true, false]),
        ("{all, [{retain, true}]}", [false, false, true, true]),
        ("{subscribe, [{qos, 0}, {retain, true}]}", [false, false, false, true]),
        ("{subscribe, [{qos, 1}]}", [false; 4]),
    ] {
        let text = format!("{{allow, all, {action}, [\"t\"]}}.");
        let source = Source::emqx("acl.conf", &text).unwrap_or_else(|e| panic!("{e}"));
        let found = all.map(|action| allows(&source, &Subject::default(), action, "t"));
        assert_eq!(found, expected, "{action}");
    }
}

#[test]
fn conditions_of_toml_mean_what_they_say() {
    let subject = Subject {
        client_id: "c",
        username: Some("u"),
        peer: Some("127.0.0.9".parse().unwrap()),
        listener: "tls",
        cert_common_name: Some("cn"),
        attributes: &[("team", "blue"), ("site", "x")],
        superuser: false,
    };
    for (who, holds) in [
        ("\"all\"", true),
        ("\"local\"", true),
        ("{ local = true }", true),
        ("{ local = false }", false),
        ("{ username = \"u\" }", true),
        ("{ username = [\"a\", { re = \"^u$\" }] }", true),
        ("{ username = \"u\", client_id = \"d\" }", false),
        ("{ client_id = { re = \"C\" } }", false),
        ("{ ip = [\"10.0.0.0/8\", \"127.0.0.0/8\"] }", true),
        ("{ ip = \"127.0.0.1\" }", false),
        ("{ listener = \"tls\", cert_common_name = \"cn\" }", true),
        ("{ attributes = { team = \"blue\", site = { re = \"[xy]\" } } }", true),
        ("{ attributes = { team = \"blue\", site = \"z\" } }", false),
        ("{ any = [{ username = \"x\" }, \"local\"] }", true),
        ("{ all = [{ username = \"x\" }, \"local\"] }", false),
        ("{ not = { username = \"x\" } }", true),
        ("{ not = \"all\" }", false),
    ] {
        let text = format!("[[rule]]\neffect = \"allow\"\nwho = {who}\n");
        let source = Source::toml("acl.toml", &text).unwrap_or_else(|e| panic!("{e}"));
        assert_eq!(allows(&source, &subject, SUBSCRIBE, "t"), holds, "{who}");
    }
}

#[test]
fn strings_of_acl_conf_are_those_of_erlang() {
    for (written, read) in [
        ("a\\\"b", "a\"b"),
        ("\\x41\\x{e9}\\101\\s", "AéA "),
        ("%not a comment", "%not a comment"),
        ("é", "é"),
        ("a\\/b", "a/b"),
    ] {
        let text = format!("{{allow, {{username, \"{written}\"}}, all, [\"t\"]}}. % end");
        let source = Source::emqx("acl.conf", &text).unwrap_or_else(|e| panic!("{e}"));
        let subject = Subject { username: Some(read), ..Subject::default() };
        assert!(allows(&source, &subject, SUBSCRIBE, "t"), "{written}");
    }
    assert!(emqx_errors("{allow, {username, \"\\x{110000}\"}, all, []}.")[0].contains("\\x"));
}

#[test]
fn what_toml_leaves_out_is_everything() {
    let source = Source::toml("acl.toml", "[[rule]]\neffect = \"allow\"\n").unwrap();
    for topic in ["a", "$SYS/x", "#"] {
        assert!(allows(&source, &Subject::default(), SUBSCRIBE, topic));
    }
    assert!(allows(&source, &Subject::default(), publish(QoS::ExactlyOnce, true), "$x"));
}
