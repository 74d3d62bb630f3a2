//! Retained messages.

use ringmain_mqtt::{RetainHandling, SubscribeOptions, Will};

use crate::support::*;

fn handling(retain_handling: RetainHandling) -> SubscribeOptions {
    SubscribeOptions { retain_handling, ..sub_opts(2) }
}

// P09, S-41, S-42, S-43. [MQTT-3.3.1-5] [MQTT-3.3.1-8] [MQTT-3.3.1-9] [MQTT-3.8.4-8]
// [MQTT311-3.3.1-5] [MQTT311-3.3.1-6] [MQTT311-3.3.1-7] [MQTT311-3.3.1-8] [MQTT311-3.3.1-12]
#[test]
fn a_new_subscription_gets_the_last_retained_message_of_each_topic() {
    for shards in SHARDS {
        for version in VERSIONS {
            for filter in ["a/b", "a/+", "#"] {
                let mut n = Node::new(shards);
                let p = n.join(version, "p");
                for level in 0..3 {
                    n.put(p, &retained("a/b", 2, "old"));
                    n.put(p, &retained("a/b", level, "new"));
                    n.put(p, &publish("a/b", 2, "not retained"));
                    for granted in 0..3 {
                        let s = n.join(version, "s");
                        n.sub(s, filter, granted);
                        let got = n.msgs(s);
                        assert_eq!(texts(&got), ["new"], "{shards} {filter}");
                        assert_eq!((got[0].qos, got[0].retain), (level.min(granted), true));
                    }
                }
                assert_eq!(n.gauges().retained, 1);
            }
        }
    }
}

// S-43, S-45. [MQTT-3.3.1-6] [MQTT-3.3.1-7] [MQTT311-3.3.1-10] [MQTT311-3.3.1-11]
#[test]
fn an_empty_retained_message_clears_and_is_forwarded() {
    for shards in SHARDS {
        let mut n = Node::new(shards);
        let (s, p) = (n.join(V5, "s"), n.join(V5, "p"));
        n.put(p, &retained("a", 1, "parent"));
        n.put(p, &retained("a/b", 1, "child"));
        n.sub_with(s, "#", handling(RetainHandling::DoNotSend), None);
        n.put(p, &publish("a/b", 1, ""));
        assert_eq!(n.gauges().retained, 2, "without RETAIN it changes nothing");
        n.put(p, &retained("a/b", 1, ""));
        assert_eq!(n.gauges().retained, 1);
        assert_eq!(n.msgs(s).iter().map(|m| m.payload.len()).collect::<Vec<_>>(), [0, 0]);
        let late = n.join(V5, "late");
        n.sub(late, "#", 1);
        assert_eq!(texts(&n.msgs(late)), ["parent"]);
    }
}

// P09
#[test]
fn clearing_can_be_kept_from_subscribers() {
    let mut n = Node::with(2, |cfg| cfg.retained.stop_publish_clear_msg = true);
    let (s, p) = (n.join(V5, "s"), n.join(V5, "p"));
    n.put(p, &retained("t", 1, "x"));
    n.sub_with(s, "t", handling(RetainHandling::DoNotSend), None);
    assert_eq!(n.put(p, &retained("t", 1, "")), 0);
    n.quiet(s);
    assert_eq!(n.gauges().retained, 0);
}

// S-40, P10. [MQTT-3.3.1-9] [MQTT-3.3.1-10] [MQTT-3.3.1-11] [MQTT-3.8.4-4]
#[test]
fn retain_handling_decides_when_retained_messages_come() {
    use RetainHandling::{DoNotSend, Send, SendIfNew};
    for shards in SHARDS {
        let mut n = Node::new(shards);
        let (s, p) = (n.resume(V5, "s"), n.join(V5, "p"));
        n.put(p, &retained("t", 1, "x"));
        for (how, comes) in [
            (SendIfNew, true),
            (SendIfNew, false),
            (Send, true),
            (Send, true),
            (DoNotSend, false),
            (SendIfNew, false),
        ] {
            n.sub_with(s, "t", handling(how), None);
            assert_eq!(n.msgs(s).len(), usize::from(comes), "{how:?}");
        }
        // Other options do not make it new; another filter and a new session do.
        n.sub_with(s, "t", SubscribeOptions { qos: qos(0), ..handling(SendIfNew) }, Some(3));
        n.quiet(s);
        n.sub_with(s, "+", handling(SendIfNew), None);
        assert_eq!(n.msgs(s).len(), 1);
        // S-05
        n.drop_conn(s);
        let s = n.resume(V5, "s");
        n.quiet(s);
        n.unsub(s, "t");
        n.sub_with(s, "t", handling(SendIfNew), None);
        assert_eq!(n.msgs(s).len(), 1);
    }
}

// S-40, S-98, S-99. [MQTT311-3.8.4-3]
#[test]
fn version_3_gets_retained_messages_at_every_subscribe() {
    for version in [V31, V311] {
        let mut n = Node::new(2);
        let (s, p) = (n.join(version, "s"), n.join(version, "p"));
        n.put(p, &retained("t", 1, "x"));
        for _ in 0..3 {
            n.sub(s, "t", 1);
            assert_eq!(texts(&n.msgs(s)), ["x"]);
        }
        n.put(p, &publish("t", 1, "live"));
        assert_eq!(texts(&n.msgs(s)), ["live"], "one subscription all the same");
    }
}

// S-40
#[test]
fn shared_subscriptions_get_no_retained_messages() {
    for shards in SHARDS {
        let mut n = Node::new(shards);
        let (s, p) = (n.join(V5, "s"), n.join(V5, "p"));
        n.put(p, &retained("t", 1, "x"));
        n.sub(s, "$share/g/t", 1);
        n.sub(s, "$queue/t", 1);
        n.quiet(s);
    }
}

// S-51
#[test]
fn wildcards_do_not_replay_dollar_topics() {
    let mut n = Node::new(2);
    let (s, p) = (n.join(V5, "s"), n.join(V5, "p"));
    n.put(p, &retained("$priv/x", 1, "x"));
    n.sub(s, "#", 1);
    n.sub(s, "+/x", 1);
    n.quiet(s);
    n.sub(s, "$priv/#", 1);
    assert_eq!(n.msgs(s).len(), 1);
}

// S-48, S-49, S-28
#[test]
fn retained_copies_carry_identifier_and_respect_no_local() {
    let mut n = Node::new(2);
    let (s, p) = (n.join(V5, "s"), n.join(V5, "p"));
    n.put(p, &retained("t", 1, "x"));
    n.sub_with(s, "t", sub_opts(1), Some(77));
    assert_eq!(n.msgs(s)[0].sub_ids, [77]);
    let own = SubscribeOptions { no_local: true, ..sub_opts(1) };
    n.sub_with(p, "t", own, None);
    n.quiet(p);
}

// S-44. SUBACK first (the harness expects it), then every one, through any window.
#[test]
fn all_of_many_retained_messages_come_through_a_small_window() {
    for shards in SHARDS {
        let mut n = Node::mqtt(shards, |m| {
            m.max_inflight = 2;
            m.max_mqueue_len = 10;
        });
        let p = n.join(V5, "p");
        for i in 0..2_000 {
            n.put(p, &retained(&format!("r/{i}"), 1, &i.to_string()));
        }
        let s = n.join(V5, "s");
        n.sub(s, "r/+", 1);
        let mut seen: Vec<u32> = n.msgs(s).iter().map(|m| m.text().parse().expect("n")).collect();
        seen.sort_unstable();
        assert_eq!(seen, (0..2_000).collect::<Vec<_>>(), "{shards}");
        assert_eq!(n.counters().delivery_dropped, 0);
    }
}

// S-44, S-83
#[test]
fn live_messages_do_not_overtake_the_older_retained_one_of_their_topic() {
    for shards in SHARDS {
        let mut n = Node::mqtt(shards, |m| m.max_inflight = 1);
        let p = n.join(V5, "p");
        for i in 0..300 {
            n.put(p, &retained(&format!("r/{i}"), 1, "1"));
        }
        let s = n.join(V5, "s");
        n.sub(s, "r/+", 1);
        for i in 0..300 {
            n.put(p, &retained(&format!("r/{i}"), 1, "2"));
            n.put(p, &publish(&format!("r/{i}"), 1, "3"));
        }
        let mut last = std::collections::BTreeMap::<String, u32>::new();
        for m in n.msgs(s) {
            let value = m.text().parse().expect("a number");
            let before = last.insert(m.topic.clone(), value);
            assert!(before.is_none_or(|b| b <= value), "{} {before:?} {value}", m.topic);
        }
        assert_eq!(last.len(), 300);
        assert!(last.values().all(|v| *v == 3));
    }
}

// P09
#[test]
fn above_the_limits_messages_are_forwarded_but_not_stored() {
    for shards in SHARDS {
        let mut n = Node::with(shards, |cfg| {
            cfg.retained.max_messages = 2;
            cfg.retained.max_payload_bytes = 10;
        });
        let (s, p) = (n.join(V5, "s"), n.join(V5, "p"));
        n.sub(s, "#", 0);
        for topic in ["a", "b", "c"] {
            assert_eq!(n.put(p, &retained(topic, 1, topic)), 0);
        }
        assert_eq!(n.put(p, &retained("a", 1, "replaced")), 0);
        assert_eq!(n.put(p, &retained("b", 1, "eleven char")), 0);
        assert_eq!(n.msgs(s).len(), 5);
        let late = n.join(V5, "late");
        n.sub(late, "#", 0);
        let mut got: Vec<String> = n.msgs(late).iter().map(|m| m.text().to_owned()).collect();
        got.sort();
        assert_eq!(got, ["b", "replaced"]);
        n.put(p, &retained("a", 1, ""));
        n.put(p, &retained("c", 1, "now"));
        assert_eq!(n.gauges().retained, 2);
    }
    // What the broker itself retains takes no place, and comes and goes apart from it.
    let mut n = Node::with(2, |cfg| {
        cfg.retained.max_messages = 2;
        cfg.sys.interval_s = 1;
    });
    n.pass_ms(10_000);
    assert!(n.gauges().retained > 2, "$SYS topics");
    let p = n.join(V5, "p");
    for _ in 0..3 {
        let before = n.gauges().retained;
        for topic in ["a", "b", "c"] {
            n.put(p, &retained(topic, 1, topic));
        }
        assert_eq!(n.gauges().retained, before + 2);
        for topic in ["a", "b", "c"] {
            n.put(p, &retained(topic, 1, ""));
        }
        assert_eq!(n.gauges().retained, before);
    }
    let mut n = Node::with(2, |cfg| {
        cfg.retained.max_payload_bytes = 10;
        cfg.retained.reject_oversized = true;
    });
    let p = n.join(V5, "p");
    assert_eq!(n.put(p, &retained("a", 1, "eleven char")), 0x97);
    assert_eq!(n.put(p, &retained("a", 2, "eleven char")), 0x97);
    n.quiet(p);
}

// S-12, P06, P09. [MQTT-3.3.2-5]
#[test]
fn retained_messages_expire() {
    for shards in SHARDS {
        let mut n = Node::with(shards, |cfg| cfg.retained.default_expiry_s = 50);
        let p = n.join(V5, "p");
        let mut packet = retained("a", 1, "x");
        packet.props.message_expiry_s = Some(10);
        n.put(p, &packet);
        n.put(p, &retained("b", 1, "y"));
        n.pass_ms(4_500);
        let s = n.join(V5, "s");
        n.sub(s, "+", 1);
        let mut got: Vec<_> = n.msgs(s).iter().map(|m| (m.topic.clone(), m.expiry)).collect();
        got.sort();
        assert_eq!(got, [("a".into(), Some(6)), ("b".into(), None)]);
        n.pass_s(6);
        let late = n.join(V5, "late");
        n.sub(late, "a", 1);
        n.quiet(late);
        assert_eq!(n.gauges().retained, 1);
        n.pass_s(60);
        assert_eq!(n.gauges().retained, 0);
    }
}

// S-46. [MQTT-3.1.2-15] [MQTT311-3.1.2-17]
#[test]
fn a_retained_will_is_stored() {
    for shards in SHARDS {
        let mut n = Node::new(shards);
        let w = Will { retain: true, ..will("w", "gone", 1) };
        let a = n.connected(&ringmain_mqtt::Connect { will: Some(w), ..connect(V311, "a") }).0;
        n.drop_conn(a);
        // [MQTT311-3.1.2-7]
        let s = n.join(V5, "s");
        n.sub(s, "w", 1);
        let got = n.msgs(s);
        assert_eq!((got[0].text(), got[0].retain), ("gone", true));
    }
}

// [MQTT311-3.1.2-7]
#[test]
fn retained_messages_survive_the_session_of_their_publisher() {
    let mut n = Node::new(2);
    let p = n.join(V311, "p");
    n.put(p, &retained("t", 1, "x"));
    n.leave(p);
    n.join(V311, "p");
    let s = n.join(V311, "s");
    n.sub(s, "t", 1);
    assert_eq!(texts(&n.msgs(s)), ["x"]);
}
