use clap::Parser;

use super::*;
use crate::config::Sources;

#[derive(Debug, Parser)]
enum Line {
    Connect(Connect),
    Publish(Publish),
    Subscribe(Subscribe),
}

/// Explains a line, such as `subscribe --as x --topic a`.
fn explain(set: &[&str], line: &str) -> Verdict {
    let set = set.iter().map(|text| (*text).to_owned()).collect();
    let config = Sources { set, ..Sources::default() }.load().expect("valid");
    let words = std::iter::once("explain").chain(line.split(' '));
    let on = |ask: &dyn Ask| ask.run(&mut DryRun::new(&config, ask.who()).expect("makes sense"));
    match Line::try_parse_from(words).expect("parses") {
        Line::Connect(ask) => on(&ask),
        Line::Publish(ask) => on(&ask),
        Line::Subscribe(ask) => on(&ask),
    }
}

fn code(verdict: &Verdict) -> Option<u8> {
    verdict.reason.as_ref().map(|reason| reason.code)
}

#[test]
fn the_default_policy_is_explained_as_it_decides() {
    // AZ09 AZ10
    for (line, expected) in [
        ("subscribe --as a --topic # --from 192.0.2.1", Some(0x87)),
        ("subscribe --as a --topic #", Some(0x87)),
        ("subscribe --as a --topic # --from 127.0.0.1", None),
        ("subscribe --as a --topic # --from ::1", None),
        ("subscribe --as a --topic # --from 192.0.2.1 --superuser", None),
        ("subscribe --as a --topic $share/g/# --from 192.0.2.1", Some(0x87)),
        ("subscribe --as a --topic $SYS/brokers/# --from 192.0.2.1", Some(0x87)),
        ("subscribe --as a --topic a/# --from 192.0.2.1", None),
        ("publish --as a --topic a --from 192.0.2.1", None),
        ("publish --as a --topic $SYS/a --from 127.0.0.1", Some(0x87)),
    ] {
        let verdict = explain(&[], line);
        assert_eq!(code(&verdict), expected, "{line}: {verdict:?}");
        assert_eq!(verdict.accepted, expected.is_none());
    }
    let verdict = explain(&[], "subscribe --as a --topic # --from 192.0.2.1");
    let text = text::text(&verdict);
    assert!(text.contains("denied by default policy:11: rule 2, topic \"#\""), "{text}");
    assert!(text.contains("| effect = \"deny\""), "{text}");
}

#[test]
fn what_the_protocol_refuses_is_refused_before_any_rule_is_asked() {
    for (set, line, expected) in [
        ("mqtt.max_qos=1", "publish --as a --topic a --qos 2", 0x9B),
        ("mqtt.retain_available=false", "publish --as a --topic a --retain", 0x9A),
        ("mqtt.max_topic_levels=1", "publish --as a --topic a/b", 0x90),
        ("mqtt.max_topic_levels=1", "subscribe --as a --topic a/b", 0x8F),
        ("mqtt.max_qos=2", "publish --as a --topic a/#", 0x90),
        ("mqtt.max_client_id_len=1", "connect --as ab", 0x85),
        ("mqtt.max_qos=0", "connect --as a --will-topic w --will-qos 1", 0x9B),
        (
            "listeners=[{url='tcp://127.0.0.1',accept_protocol_versions=[5]}]",
            "connect --as a --protocol 4",
            0x84,
        ),
    ] {
        let verdict = explain(&[set], line);
        assert_eq!(code(&verdict), Some(expected), "{line}: {verdict:?}");
        assert!(verdict.decisions.is_empty(), "{line}");
        assert_eq!(verdict.checks.last().map(|check| check.outcome), Some(Outcome::Refused));
    }
    // What a listener sets for itself counts there.
    let two = "listeners=[{url='tcp://127.0.0.1:1',name='a'},{url='tcp://127.0.0.1:2',name='b',mqtt={max_qos=0}}]";
    assert!(explain(&[two], "publish --as a --topic a --qos 1").accepted);
    assert!(!explain(&[two], "publish --as a --topic a --qos 1 --listener b").accepted);
}

#[test]
fn rules_are_asked_before_a_subscription_is_refused_for_its_kind() {
    // As in Shard::on_subscribe.
    let set = ["mqtt.shared_subscription_available=false"];
    let denied = explain(&set, "subscribe --as a --topic $share/g/#");
    assert_eq!(code(&denied), Some(0x87));
    let allowed = explain(&set, "subscribe --as a --topic $share/g/a");
    assert_eq!(code(&allowed), Some(0x9E));
    let deep = ["mqtt.min_wildcard_depth=2"];
    for (line, expected) in [
        ("--topic a/#", Some(0x8F)),
        ("--topic $share/g/a/+/b", Some(0x8F)),
        ("--topic a/# --superuser", None),
        ("--topic a/b/#", None),
        ("--topic a", None),
    ] {
        assert_eq!(code(&explain(&deep, &format!("subscribe --as a {line}"))), expected, "{line}");
    }
}

#[test]
fn a_connect_says_what_it_did_not_ask_and_what_the_client_may_see() {
    let verdict = explain(&[], "connect --as a --from 192.0.2.1");
    let check = verdict.checks.iter().find(|check| check.what == "authentication");
    assert_eq!(check.map(|check| check.outcome), Some(Outcome::NotAsked));
    let outcomes: Vec<Effect> = verdict.decisions.iter().map(|d| d.why.outcome).collect();
    assert_eq!(outcomes, [Effect::Deny; 3]);
    assert!(verdict.accepted);
}

#[test]
fn a_denied_will_refuses_the_connect() {
    // AZ07
    let folder = std::env::temp_dir().join(format!("ringmain-explain-{}", std::process::id()));
    std::fs::create_dir_all(&folder).expect("a folder");
    let file = folder.join("acl.toml");
    let rules = "[[rule]]\neffect = 'deny'\ntopics = ['w/#']\n[[rule]]\neffect = 'allow'\n";
    std::fs::write(&file, rules).expect("writes");
    let set = format!("authorization.files=['{}']", file.display());
    let explain = |line: &str| explain(&[&set], line);
    let verdict = explain("connect --as a --will-topic w/a");
    assert_eq!(code(&verdict), Some(0x87));
    assert_eq!(verdict.leads_to, "CONNACK with the code, then closed");
    let three = explain("connect --as a --protocol 4 --will-topic w/a");
    assert_eq!(three.leads_to, "CONNACK with return code 5, then closed");
    assert!(explain("connect --as a --will-topic v/a").accepted);
    std::fs::remove_dir_all(&folder).expect("removes");
}

#[test]
fn what_a_refusal_leads_to_follows_the_settings() {
    let topic = "publish --as a --topic $SYS/x --qos";
    let leads_to = |set: &[&str], qos: u8| explain(set, &format!("{topic} {qos}")).leads_to;
    assert!(leads_to(&[], 0).starts_with("the message is dropped"));
    assert!(leads_to(&[], 1).contains("PUBACK"));
    assert!(leads_to(&[], 2).contains("PUBREC"));
    assert!(leads_to(&["mqtt.deny_action=disconnect"], 1).contains("closed"));
}

#[test]
fn names_of_clients_cannot_disturb_the_terminal() {
    let listener = "listeners=[{url='tcp://127.0.0.1',name=\"c\\u001b[2J\"}]";
    let text = text::text(&explain(&[listener], "publish --as a\u{1b}[2J --topic b\u{1b}[2J"));
    assert!(!text.contains('\u{1b}'), "{text}");
    assert!(text.contains("on c\u{FFFD}[2J"), "{text}");
}

#[test]
fn the_json_has_file_line_and_outcome() {
    let verdict = explain(&[], "subscribe --as a --topic # --from 192.0.2.1");
    let json: serde_json::Value = serde_json::from_str(&text::json(&verdict)).expect("JSON");
    assert_eq!(json["accepted"], false);
    assert_eq!(json["reason"]["code"], 0x87);
    let decision = &json["decisions"][0];
    assert_eq!(decision["outcome"], "deny");
    assert_eq!(decision["by"]["source"], "default policy");
    assert_eq!(decision["by"]["line"], 11);
    assert_eq!(decision["view"]["shared"], true);
    assert_eq!(decision["view"]["decision"], "looked_up");
}

#[test]
fn a_listener_that_is_not_there_is_named_with_those_that_are() {
    let config = Config::default();
    let words = ["explain", "publish", "--as", "a", "--topic", "a", "--listener", "tls"];
    let Line::Publish(ask) = Line::try_parse_from(words).expect("parses") else { panic!() };
    let wrong = DryRun::new(&config, ask.who()).map(|_| ()).expect_err("there is none");
    assert!(wrong.contains("\"tls\"") && wrong.contains("tcp:127.0.0.1:1883"), "{wrong}");
}
