//! Limits of the node, overload, and settings that change while connections are open.

use std::sync::Arc;

use ringmain_mqtt::QoS;
use ringmain_shards::boundary::Control;
use ringmain_shards::engine::config::{QueueDropPolicy, StickyPick, Strategy};

use crate::support::*;

fn bytes_of(payload: usize) -> String {
    "x".repeat(payload)
}

#[test]
fn a_session_above_max_sessions_is_refused_and_one_that_is_there_is_not() {
    for shards in SHARDS {
        let mut n = Node::with(shards, |c| c.limits.max_sessions = 2);
        let a = n.resume(V5, "a");
        n.drop_conn(a);
        let b = n.join(V5, "b");
        let c = n.dial(&connect(V5, "c"));
        assert_eq!(n.recv(c).code(), 0x97);
        n.resume(V5, "a"); // its session is there
        n.join(V5, "a"); // and makes place for a new one
        n.leave(b);
        n.join(V5, "c"); // b's has ended
        let d = n.dial(&connect(V311, "d"));
        assert_eq!(n.recv(d).code(), 0x88, "version 3 knows no quota: 0x03 on the wire");
        assert_eq!(n.gauges().sessions, 2);
    }
}

#[test]
fn a_filter_above_max_routes_is_refused_until_another_goes() {
    for shards in SHARDS {
        let mut n = Node::with(shards, |c| c.limits.max_routes = 2);
        let s = n.join(V5, "s");
        assert_eq!(n.sub(s, "a/+", 1), 1);
        assert_eq!(n.sub(s, "b", 1), 1);
        assert_eq!(n.sub(s, "c", 1), 0x97);
        assert_eq!(n.sub(s, "$share/g/d", 1), 0x97);
        assert_eq!(n.sub(s, "b", 0), 0, "one that is there");
        n.unsub(s, "b");
        assert_eq!(n.sub(s, "c", 1), 1);
        assert_eq!(n.gauges().filters, 2);
    }
}

// Q08
#[test]
fn queues_of_all_sessions_together_keep_within_max_queued_bytes() {
    for policy in [QueueDropPolicy::Oldest, QueueDropPolicy::Reject] {
        for shards in SHARDS {
            let mut n = Node::with(shards, |c| {
                c.mqtt.mqueue_drop_policy = policy;
                c.limits.max_queued_bytes = 10_000;
            });
            let p = n.join(V5, "p");
            let topics: Vec<String> = (0..5).map(|i| format!("s{i}")).collect();
            for t in &topics {
                let s = n.resume(V5, t);
                n.sub(s, t, 1);
                n.drop_conn(s);
            }
            let payload = bytes_of(1_000);
            let mut refused = 0;
            for t in topics.iter().cycle().take(50) {
                refused += u64::from(n.put(p, &publish(t, 1, &payload)) == 0x97);
            }
            let queued = n.gauges().queued;
            assert!((8..=9).contains(&queued), "{queued}");
            assert_eq!(n.counters().delivery_dropped_queue_full, 50 - queued);
            assert_eq!(refused, if policy == QueueDropPolicy::Reject { 50 - queued } else { 0 });
            // What is taken makes room again.
            for t in &topics {
                let s = n.resume(V5, t);
                for m in n.msgs(s) {
                    n.ack(s, ringmain_mqtt::PacketType::PubAck, m.id);
                }
                n.drop_conn(s);
            }
            assert_eq!(n.gauges().queued, 0);
            assert_eq!(n.put(p, &publish("s0", 1, &payload)), 0);
            assert_eq!(n.gauges().queued, 1);
        }
    }
}

// Q08
#[test]
fn a_message_older_than_max_mqueue_age_is_dropped_instead_of_sent() {
    let mut n = Node::mqtt(2, |m| m.max_mqueue_age_s = 10);
    let (s, p) = (n.resume(V5, "s"), n.join(V5, "p"));
    n.sub(s, "t", 1);
    n.drop_conn(s);
    n.put(p, &publish("t", 1, "old"));
    n.pass_s(6);
    n.put(p, &publish("t", 1, "new"));
    n.pass_s(4);
    let s = n.resume(V5, "s");
    assert_eq!(texts(&n.msgs(s)), ["new"]);
    assert_eq!(n.counters().delivery_dropped_expired, 1);
    // Retained messages are older than any queue.
    n.put(p, &retained("r", 1, "kept"));
    n.pass_s(60);
    n.sub(s, "r", 0);
    assert_eq!(texts(&n.msgs(s)), ["kept"]);
}

#[test]
fn a_group_queue_keeps_within_its_bytes_and_0_is_no_limit() {
    for (len, bytes, kept) in [(0, 0, 20), (3, 0, 3), (0, 5_000, 4), (0, 10, 1)] {
        let mut n = Node::with(2, |c| {
            c.shared.max_group_queue_len = len;
            c.shared.max_group_queue_bytes = bytes;
        });
        let (s, p) = (n.resume(V5, "s"), n.join(V5, "p"));
        n.sub(s, "$share/g/t", 1);
        n.drop_conn(s);
        let payload = bytes_of(1_000);
        for _ in 0..20 {
            n.put(p, &publish("t", 1, &payload));
        }
        assert_eq!(n.gauges().group_queued, kept, "{len} {bytes}");
        assert_eq!(n.counters().delivery_dropped_group_ended, 20 - kept);
    }
}

// H03
#[test]
fn sticky_picks_by_what_the_settings_say_and_stays() {
    for (pick, same) in [(StickyPick::HashTopic, true), (StickyPick::HashClientId, false)] {
        // Groups of one filter, new for each publisher: by topic all pick the same member.
        let mut first = Vec::new();
        for publisher in 0..20 {
            let mut n = Node::with(2, |c| {
                c.shared.strategy = Strategy::Sticky;
                c.shared.sticky_pick = pick;
            });
            let members: Vec<C> = (0..4).map(|i| n.join(V5, &format!("m{i}"))).collect();
            for m in &members {
                n.sub(*m, "$share/g/t", 0);
            }
            let p = n.join(V5, &format!("p{publisher}"));
            for _ in 0..5 {
                n.put(p, &publish("t", 0, "x"));
            }
            let got: Vec<usize> = members.iter().map(|m| n.msgs(*m).len()).collect();
            assert_eq!(got.iter().sum::<usize>(), 5);
            first.push(got.iter().position(|g| *g == 5).expect("one gets all"));
        }
        first.sort_unstable();
        first.dedup();
        assert_eq!(first.len() == 1, same, "{pick:?}: {first:?}");
    }
}

// P09
#[test]
fn retained_messages_keep_within_max_bytes_on_the_whole_node() {
    for shards in SHARDS {
        let mut n = Node::with(shards, |c| c.retained.max_bytes = 5_000);
        let p = n.join(V5, "p");
        let payload = bytes_of(1_000);
        let topics: Vec<String> = (0..10).map(|i| format!("t{i}")).collect();
        for t in &topics {
            n.put(p, &retained(t, 1, &payload));
        }
        assert_eq!(n.gauges().retained, 4);
        n.put(p, &retained("t0", 1, "short"));
        assert_eq!(n.gauges().retained, 4, "in the place of another");
        n.put(p, &retained("t1", 1, ""));
        n.put(p, &retained("t9", 1, &payload));
        assert_eq!(n.gauges().retained, 4, "a cleared one makes room");
    }
}

// S-44
#[test]
fn pages_of_any_size_replay_every_retained_message() {
    for page in [1, 3, 64] {
        let mut n = Node::with(5, |c| c.retained.page_messages = page);
        let p = n.join(V5, "p");
        for i in 0..100 {
            n.put(p, &retained(&format!("t/{i}"), 1, "x"));
        }
        let s = n.join(V5, "s");
        n.sub(s, "t/#", 0);
        assert_eq!(n.msgs(s).len(), 100, "{page}");
    }
}

#[test]
fn a_shard_with_too_many_handshakes_accepts_again_when_they_are_over() {
    let mut n = Node::with(2, |c| c.limits.max_handshakes_per_shard = 8);
    let wires: Vec<usize> = (0..8).map(|_| n.open_on(0, "192.0.2.1:4711", 0)).collect();
    assert!(!n.accepts(0, 0), "more wait in the backlog");
    assert!(n.accepts(1, 0), "the other shard has none");
    n.hang_up(wires[0], ringmain_shards::engine::input::CloseCause::PeerFin);
    assert!(n.accepts(0, 0));
    for (i, wire) in wires.iter().enumerate().skip(1) {
        let mut bytes = Vec::new();
        connect(V5, &n.id_on(i % 2, "c")).encode(&mut bytes);
        n.write(*wire, &bytes); // at home and handed over
    }
    let again: Vec<usize> = (0..7).map(|_| n.open_on(0, "192.0.2.1:4711", 0)).collect();
    assert!(n.accepts(0, 0), "none of the old ones counts");
    n.open_on(0, "192.0.2.1:4711", 0);
    assert!(!n.accepts(0, 0), "{again:?}");
    n.pass_s(16); // the time for CONNECT
    assert!(n.accepts(0, 0));
}

// L05
#[test]
fn a_shard_that_is_behind_refuses_then_drops_qos_0_then_pauses_and_recovers() {
    let mut n = Node::with(1, |c| {
        c.overload.enabled = true;
        c.overload.recovery_ms = 300;
    });
    let (s, p) = (n.join(V5, "s"), n.join(V5, "p"));
    n.sub(s, "t", 1);
    let late = |n: &mut Node, ms: u64| {
        n.ping(p); // has work: it measures
        n.pass_without_tick(100 + ms);
        n.pass_ms(0);
    };
    late(&mut n, 499);
    n.join(V5, "welcome");
    late(&mut n, 500);
    let wire = n.open();
    assert!(n.wires[wire].closed.is_some(), "no new connections");
    n.put(p, &publish("t", 0, "0"));
    assert_eq!(texts(&n.msgs(s)), ["0"]);
    late(&mut n, 1000);
    n.put(p, &publish("t", 0, "1"));
    assert_eq!(n.put(p, &publish("t", 1, "2")), 0);
    assert_eq!(texts(&n.msgs(s)), ["2"], "QoS 0 goes, QoS 1 does not");
    late(&mut n, 2000);
    assert_eq!(n.put(p, &publish("t", 1, "3")), 0);
    n.publish(p, &publish("t", 1, "waits"));
    assert_eq!(texts(&n.msgs(s)), ["3"], "its publisher is not read");
    assert_eq!(n.counters().overload_delay_lag, 1);
    n.pass_s(2);
    assert_eq!(texts(&n.msgs(s)), ["waits"]);
    n.put(p, &publish("t", 0, "4"));
    assert_eq!(texts(&n.msgs(s)), ["4"]);
    n.join(V5, "welcome again");
}

#[test]
fn an_idle_shard_does_not_measure_lag() {
    let mut n = Node::with(1, |c| c.overload.enabled = true);
    let p = n.join(V5, "p");
    n.ping(p);
    let before = n.ticks_done();
    n.pass_s(60);
    // The wheel turns a few times by itself; measuring would take 600.
    assert!(n.ticks_done() - before < 20, "{}", n.ticks_done() - before);
}

// C12. [MQTT-3.2.2-11] [MQTT-3.2.2-14]
#[test]
fn a_connection_is_held_to_what_its_connack_told_it() {
    let mut n = Node::new(2);
    let (old, s) = (n.join(V5, "old"), n.join(V5, "s"));
    let mut cfg = quiet_config();
    cfg.mqtt.max_qos = QoS::AtMostOnce;
    cfg.mqtt.retain_available = false;
    cfg.mqtt.wildcard_available = false;
    cfg.mqtt.max_packet_size = 100;
    n.control(&Control::Reload(Arc::new(cfg)));
    assert_eq!(n.sub(s, "t/#", 2), 2);
    n.put(old, &retained("t/a", 2, &bytes_of(1_000)));
    assert_eq!(n.msgs(s).len(), 1);
    assert!(n.is_open(old));
    let new = n.join(V5, "new");
    assert_eq!(n.sub(new, "t/#", 2), 0xa2);
    n.publish(new, &publish("t/a", 1, "x"));
    assert_eq!(n.closed(new), Some(0x9b));
}
