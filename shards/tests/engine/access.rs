//! What the rules of the node allow, asked where clients publish, subscribe, leave a will, or come back.

use std::sync::Arc;

use ringmain_acl::{ClientCertificate, Effect, Policy, Settings, Source};
use ringmain_mqtt::{Connect, ConnectProps, Packet, ReasonCode, Will};
use ringmain_shards::boundary::Control;
use ringmain_shards::engine::config::{DenyAction, EngineConfig};
use ringmain_shards::engine::introduction::Introduction;

use crate::support::*;

/// Rules in Ringmain's own form; what they do not name is denied.
fn policy(epoch: u64, rules: &str) -> Arc<Policy> {
    let source = Source::toml("test.toml", rules).expect("valid rules");
    Policy::compile(epoch, vec![source], Settings::new(Effect::Deny))
}

fn allow(topics: &str) -> String {
    format!("[[rule]]\neffect = \"allow\"\ntopics = [{topics}]\n")
}

fn node(shards: usize, rules: &str) -> Node {
    Node::with(shards, |cfg| cfg.policy = policy(1, rules))
}

/// Other rules from now on.
fn change(n: &mut Node, epoch: u64, rules: &str) {
    let cfg = EngineConfig { policy: policy(epoch, rules), ..quiet_config() };
    n.control(&Control::Reload(Arc::new(cfg)));
}

const DENIED: u8 = ReasonCode::NOT_AUTHORIZED.0;

fn named<'a>(version: ringmain_mqtt::Version, id: &'a str, name: &'a str) -> Connect<'a> {
    Connect { username: Some(name), ..connect(version, id) }
}

/// A client that connects from this address.
fn join_from(n: &mut Node, address: &str, id: &str) -> usize {
    let wire = n.open_from(address, 0);
    n.clients.push(Client::on(wire, V5));
    let c = n.clients.len() - 1;
    n.send(c, &Packet::Connect(connect(V5, id)));
    assert_eq!(n.recv(c).code(), 0);
    c
}

// AZ01, P04, S-29
#[test]
fn what_may_not_be_published_is_refused_and_goes_nowhere() {
    for shards in SHARDS {
        let mut n = node(shards, &allow(r#""ok/#", "${clientid}/#""#));
        let s = n.join(V5, "ok");
        assert_eq!(n.sub(s, "ok/#", 2), 2);
        let p = n.join(V5, "p");
        for level in [1, 2] {
            assert_eq!(n.put(p, &publish("no/1", level, "x")), DENIED, "{level}");
            assert_eq!(n.put(p, &publish("ok/1", level, "y")), 0);
            assert_eq!(n.msg(s).text(), "y");
        }
        n.publish(p, &publish("no/1", 0, "x"));
        n.publish(p, &publish("p/mine", 0, "nobody reads it"));
        n.publish(p, &publish("s/1", 0, "x"));
        n.ping(p);
        n.quiet(s);
        assert_eq!(n.counters().publish_auth_error, 4, "two answered, two silent");
        // MQTT 3.1.1 has no word for it: it is acknowledged and dropped.
        let old = n.join(V311, "old");
        assert_eq!(n.put(old, &publish("no/1", 1, "x")), 0);
        assert_eq!(n.counters().publish_auth_error, 5);
    }
}

// S-29
#[test]
fn the_topic_behind_an_alias_is_asked_for() {
    let mut n = node(1, &allow(r#""ok/#""#));
    let p = n.join(V5, "p");
    let aliased = |topic: &'static str| {
        let mut p = publish(topic, 1, "x");
        p.props.topic_alias = Some(1);
        p
    };
    assert_eq!(n.put(p, &aliased("no/1")), DENIED);
    assert_eq!(n.put(p, &aliased("")), DENIED, "the alias holds, its topic is not allowed");
    assert_eq!(n.put(p, &aliased("ok/1")), ReasonCode::NO_MATCHING_SUBSCRIBERS.0);
    assert_eq!(n.put(p, &aliased("")), ReasonCode::NO_MATCHING_SUBSCRIBERS.0);
}

// AZ01, AZ07, S-60, W01
#[test]
fn a_filter_must_be_covered_also_within_a_group() {
    for shards in SHARDS {
        let mut n = node(shards, &allow(r#""ok/#""#));
        let s = n.join(V5, "s");
        for (filter, code) in [
            ("ok/#", 1),
            ("ok/+/x", 1),
            ("#", DENIED),
            ("ok/#/../no", ReasonCode::TOPIC_FILTER_INVALID.0),
            ("no", DENIED),
            ("$share/g/ok/1", 1),
            ("$share/g/#", DENIED),
            ("$queue/no", DENIED),
            ("$exclusive/no", DENIED),
        ] {
            assert_eq!(n.sub(s, filter, 1), code, "{filter}");
        }
        assert_eq!(n.counters().subscribe_auth_error, 5);
        let old = n.join(V311, "old");
        assert_eq!(n.sub(old, "no", 1), 0x80);
    }
}

// AZ09
#[test]
fn by_the_default_policy_only_this_machine_sees_everything() {
    for shards in SHARDS {
        let policy =
            Policy::compile(1, vec![Source::default_policy()], Settings::new(Effect::Deny));
        let mut n = Node::with(shards, |cfg| cfg.policy = Arc::clone(&policy));
        let all = ["#", "+/#", "$share/g/#", "$queue/#", "$SYS/#", "$SYS/brokers/+/version"];
        let remote = n.join(V5, "remote");
        assert_eq!(n.subscribe_all(remote, &all), [DENIED; 6]);
        assert_eq!(n.subscribe_all(remote, &["a/#", "+/x", "$share/g/a/#"]), [1; 3]);
        assert_eq!(n.put(remote, &publish("b", 1, "x")), ReasonCode::NO_MATCHING_SUBSCRIBERS.0);
        for (id, address) in [("four", "127.0.0.1:4711"), ("six", "[::1]:4711")] {
            let local = join_from(&mut n, address, id);
            assert_eq!(n.subscribe_all(local, &all), [1; 6], "{address}");
        }
    }
}

// AZ04
#[test]
fn who_tries_what_is_denied_can_be_disconnected() {
    for subscribes in [false, true] {
        let mut n = Node::with(1, |cfg| {
            cfg.policy = policy(1, &allow(r#""ok/#""#));
            cfg.mqtt.deny_action = DenyAction::Disconnect;
        });
        let c = n.join(V5, "c");
        if subscribes {
            assert_eq!(n.sub(c, "no", 0), DENIED);
        } else {
            n.publish(c, &publish("no", 0, "x"));
        }
        assert_eq!(n.closed(c), Some(DENIED));
    }
}

// AZ07, S-19
#[test]
fn a_will_is_asked_for_at_connect_and_again_when_it_goes_out() {
    let mut n = node(1, &allow(r#""w/#", "ok/#""#));
    let denied = Connect { will: Some(will("no/1", "gone", 1)), ..connect(V5, "denied") };
    let c = n.dial(&denied);
    assert_eq!(n.recv(c).code(), DENIED);
    let old = n.dial(&Connect { version: V311, ..denied });
    assert_eq!(n.recv(old).code(), DENIED, "5 in version 3");
    let s = n.join(V5, "watcher");
    n.sub(s, "w/#", 2);
    let delayed = |id| {
        let props = ConnectProps { session_expiry_s: Some(100), ..ConnectProps::default() };
        let will = Will { delay_s: Some(10), ..will("w/1", "gone", 1) };
        Connect { will: Some(will), props, clean_start: false, ..connect(V5, id) }
    };
    let watcher =
        "[[rule]]\neffect = \"allow\"\nwho = { client_id = \"watcher\" }\ntopics = [\"w/#\"]\n";
    for (id, topics, goes) in [("a", r#""w/1""#, true), ("b", r#""w/2""#, false)] {
        let c = n.connected(&delayed(id)).0;
        n.drop_conn(c);
        change(&mut n, if goes { 2 } else { 3 }, &(watcher.to_owned() + &allow(topics)));
        n.pass_s(11);
        assert_eq!(texts(&n.msgs(s)), if goes { vec!["gone"] } else { vec![] }, "{id}");
    }
    assert_eq!(n.counters().publish_auth_error, 1);
}

// AZ06
#[test]
fn other_rules_hold_at_once_for_publishers_and_within_a_second_for_subscribers() {
    for shards in SHARDS {
        let mut n = node(shards, &allow(r#""a/#", "b/#""#));
        let s = n.join(V5, "s");
        assert_eq!(n.subscribe_all(s, &["a/1", "b/1", "$share/g/a/2", "$share/g/b/2"]), [1; 4]);
        let p = n.join(V5, "p");
        change(&mut n, 2, &allow(r#""b/#", "${clientid}/#""#));
        assert_eq!(n.put(p, &publish("a/1", 1, "x")), DENIED, "before anything was swept");
        n.pass_ms(500);
        // Somebody who may still publish there: the rules name clients.
        let a = n.join(V5, "a");
        assert_eq!(n.put(a, &publish("a/1", 1, "x")), ReasonCode::NO_MATCHING_SUBSCRIBERS.0);
        assert_eq!(n.put(a, &publish("a/2", 1, "x")), ReasonCode::NO_MATCHING_SUBSCRIBERS.0);
        assert_eq!(n.put(p, &publish("b/1", 1, "1")), 0);
        assert_eq!(n.put(p, &publish("b/2", 1, "2")), 0);
        assert_eq!(texts(&n.msgs(s)), ["1", "2"], "the session stays, with what it may have");
        assert_eq!(n.counters().subscriptions_revoked, 2);
        assert!(n.is_open(s));
    }
}

// AZ06, AZ04
#[test]
fn who_loses_a_subscription_can_be_disconnected() {
    let mut n = Node::with(2, |cfg| {
        cfg.policy = policy(1, &allow(r#""a/#""#));
        cfg.mqtt.deny_action = DenyAction::Disconnect;
    });
    let s = n.join(V5, "s");
    assert_eq!(n.sub(s, "a/1", 1), 1);
    let mut cfg = EngineConfig { policy: policy(2, &allow(r#""b""#)), ..quiet_config() };
    cfg.mqtt.deny_action = DenyAction::Disconnect;
    n.control(&Control::Reload(Arc::new(cfg)));
    n.pass_ms(500);
    assert_eq!(n.closed(s), Some(DENIED));
}

// S-06
#[test]
fn subscriptions_that_a_session_brings_along_are_asked_for_anew() {
    for shards in SHARDS {
        let rules = "[[rule]]\neffect = \"allow\"\nwho = { username = \"ann\" }\ntopics = [\"#\"]\n\
                     [[rule]]\neffect = \"allow\"\ntopics = [\"open/#\"]\n";
        let mut n = node(shards, rules);
        let lasting = |name| Connect {
            props: ConnectProps { session_expiry_s: Some(1000), ..ConnectProps::default() },
            clean_start: false,
            ..named(V5, "c", name)
        };
        let ann = n.connected(&lasting("ann")).0;
        assert_eq!(n.subscribe_all(ann, &["open/1", "secret/1"]), [1, 1]);
        // Somebody else takes the session over.
        let (bob, present) = n.connected(&lasting("bob"));
        assert!(present);
        let p = n.connected(&named(V5, "p", "ann")).0;
        assert_eq!(n.put(p, &publish("secret/1", 1, "x")), ReasonCode::NO_MATCHING_SUBSCRIBERS.0);
        assert_eq!(n.put(p, &publish("open/1", 1, "y")), 0);
        assert_eq!(texts(&n.msgs(bob)), ["y"]);
    }
}

// AZ03
#[test]
fn a_name_with_wildcards_widens_nothing() {
    let mut n = node(1, &allow(r#""user/${username}/#""#));
    for name in ["#", "+", "a/b", ""] {
        let c = n.connected(&named(V5, "c", name)).0;
        assert_eq!(n.sub(c, "user/other/x", 1), DENIED, "{name:?}");
        assert_eq!(n.sub(c, "user/#", 1), DENIED, "{name:?}");
    }
    let c = n.connected(&named(V5, "c", "me")).0;
    assert_eq!(n.sub(c, "user/me/x", 1), 1);
}

#[test]
fn more_kinds_of_clients_than_there_are_numbers_are_told_apart() {
    // Each address is a condition of its own, and so a view of its own.
    let rules: String = (0..300)
        .map(|i| {
            format!(
                "[[rule]]\neffect = \"allow\"\nwho = {{ ip = \"10.0.{}.{}\" }}\ntopics = [\"t/{i}\"]\n",
                i / 250,
                i % 250 + 1
            )
        })
        .collect();
    let mut n = node(1, &rules);
    let mut clients = Vec::new();
    for i in 0..300 {
        let address = format!("10.0.{}.{}:1000", i / 250, i % 250 + 1);
        clients.push(join_from(&mut n, &address, &format!("c{i}")));
    }
    for round in 1..3 {
        for (i, c) in clients.iter().enumerate() {
            let own = format!("t/{i}");
            assert_eq!(n.sub(*c, &own, 1), 1, "{i}");
            assert_eq!(n.sub(*c, &format!("t/{}", (i + 1) % 300), 1), DENIED, "{i}");
        }
        change(&mut n, 1 + round, &rules);
        n.pass_ms(500);
    }
    assert_eq!(n.counters().subscriptions_revoked, 0, "the same rules, written anew");
}

// T12, AZ01, S-05
#[test]
fn who_comes_by_way_of_a_proxy_is_known_by_its_own_address_on_every_shard() {
    for shards in SHARDS {
        let from_ten = "[[rule]]\neffect = \"allow\"\nwho = { ip = \"10.0.0.0/8\" }\n";
        let mut n = node(shards, from_ten);
        for shard in 0..shards {
            let id = n.id_on(shard, "c");
            let inside = n.dial_from("10.0.0.7:1234", &connect(V5, &id));
            assert_eq!(n.recv(inside).code(), 0);
            assert_eq!(n.put(inside, &publish("a", 1, "x")), 0x10, "allowed; nobody reads it");
            let outside = n.join(V5, &n.id_on(shard, "d"));
            assert_eq!(n.put(outside, &publish("a", 1, "x")), DENIED);
        }
    }
}

// T05, AZ03
#[test]
fn rules_know_the_common_name_of_a_certificate_on_every_shard() {
    for shards in SHARDS {
        let mut n = node(shards, &allow(r#""${cert_common_name}/#""#));
        let certificate =
            ClientCertificate { common_name: Some("m1".into()), ..Default::default() };
        let said =
            Introduction { certificate: Some(certificate.into()), ..Introduction::default() };
        for shard in 0..shards {
            let c = n.dial_as(&said, &connect(V5, &n.id_on(shard, "c")));
            assert_eq!(n.recv(c).code(), 0);
            assert_eq!(n.put(c, &publish("m1/a", 1, "x")), 0x10, "allowed; nobody reads it");
            assert_eq!(n.put(c, &publish("m2/a", 1, "x")), DENIED);
        }
    }
}

// T15
#[test]
fn who_cannot_move_to_its_home_does_not_stay_in_the_counts() {
    let mut n = Node::new(2);
    n.nobody_moves = true;
    for round in 1..=3 {
        // Shards accept in turn, so one of both is at home where it was accepted.
        let clients = ["a", "b"].map(|name| {
            let id = n.id_on(0, name);
            n.dial(&connect(V5, &id))
        });
        assert_eq!((n.admitted(), n.counters().connections_refused), (1, round));
        clients.into_iter().for_each(|c| n.drop_conn(c));
        assert_eq!(n.admitted(), 0);
    }
}

// T15
#[test]
fn who_comes_by_way_of_a_proxy_counts_for_its_own_address() {
    let mut n = Node::with(2, |cfg| cfg.listeners[0].max_connections_per_ip = 1);
    let a = n.dial_from("10.0.0.7:1", &connect(V5, "a"));
    assert_eq!(n.recv(a).code(), 0);
    let b = n.dial_from("10.0.0.8:1", &connect(V5, "b"));
    assert_eq!(n.recv(b).code(), 0);
    let c = n.dial_from("10.0.0.7:2", &connect(V5, "c"));
    assert_eq!(n.closed(c), None, "one from there is all");
    n.drop_conn(a);
    let d = n.dial_from("10.0.0.7:3", &connect(V5, "d"));
    assert_eq!(n.recv(d).code(), 0);
    assert_eq!(n.admitted(), 2);
}
