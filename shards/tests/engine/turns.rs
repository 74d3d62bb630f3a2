//! Turns that have done enough go on in the next: nothing is lost, doubled or reordered.

use ringmain_mqtt::{ConnectProps, Packet, Publish};
use ringmain_shards::engine::input::CloseCause;

use crate::support::*;

fn numbered(msgs: &[Msg]) -> Vec<u32> {
    msgs.iter().map(|m| m.text()[..5].parse().expect("a number")).collect()
}

fn body(i: u32) -> String {
    format!("{i:05}{}", "x".repeat(9_995))
}

fn burst(level: u8, range: std::ops::Range<u32>) -> Vec<u8> {
    let mut bytes = Vec::new();
    for i in range {
        let packet_id = (level > 0).then(|| pid(i as u16 + 1));
        Publish { packet_id, ..publish("some/topic", level, &body(i)) }.encode(&mut bytes, V5);
    }
    bytes
}

// S-80, W14
#[test]
fn a_burst_larger_than_a_turn_is_served_whole_and_in_order() {
    for shards in SHARDS {
        for level in 0..2 {
            for aliases in [None, Some(10)] {
                let mut n = Node::with(shards, |cfg| {
                    cfg.mqtt.receive_maximum = u16::MAX;
                    cfg.mqtt.max_inflight = u16::MAX;
                    cfg.mqtt.max_mqueue_len = 0;
                    cfg.limits.out_buffer_bytes = 100 << 20; // else QoS 0 is dropped
                });
                let mut c = persistent(V5, "s");
                c.props = ConnectProps { topic_alias_maximum: aliases, ..c.props };
                let s = n.connected(&c).0;
                n.sub(s, "some/+", level);
                let p = n.join(V5, "p");
                n.send_raw(p, &burst(level, 0..1_000));
                n.ping_last(p);
                assert_eq!(numbered(&n.msgs(s)), (0..1_000).collect::<Vec<_>>());
            }
        }
    }
}

// S-37, S-80
#[test]
fn a_queue_larger_than_a_turn_is_resumed_whole_and_in_order() {
    for shards in SHARDS {
        let mut n = Node::mqtt(shards, |m| {
            m.max_inflight = u16::MAX;
            m.max_mqueue_len = 0;
        });
        let s = n.resume(V5, "s");
        n.sub(s, "some/+", 1);
        n.drop_conn(s);
        let p = n.join(V5, "p");
        for i in 0..1_000 {
            n.put(p, &publish("some/topic", 1, &body(i)));
        }
        let s = n.resume(V5, "s");
        n.put(p, &publish("some/topic", 1, &body(1_000)));
        let first: Vec<Msg> = n.recv_all(s).iter().filter_map(Msg::of).collect();
        assert_eq!(numbered(&first), (0..=1_000).collect::<Vec<_>>());
        // And again, all of it as resends.
        n.drop_conn(s);
        let s = n.resume(V5, "s");
        let again = n.msgs(s);
        assert!(again.iter().all(|m| m.dup));
        assert_eq!(numbered(&again), (0..=1_000).collect::<Vec<_>>());
        assert_eq!(n.gauges().inflight, 0);
    }
}

// A client that goes in the middle of its own burst: what it sent before may count, and nothing stays.
#[test]
fn the_end_of_a_connection_in_a_burst_leaves_nothing() {
    for shards in SHARDS {
        let mut n = Node::with(shards, |cfg| cfg.limits.out_buffer_bytes = 100 << 20);
        let s = n.join(V5, "s");
        n.sub(s, "some/+", 0);
        for round in 0..3 {
            let p = n.join(V5, "p");
            let mut bytes = burst(0, 0..900);
            match round {
                0 => {
                    Packet::Disconnect(ringmain_mqtt::Disconnect::default()).encode(&mut bytes, V5);
                }
                1 => bytes.extend_from_slice(&[0, 0]),
                _ => connect(V5, "p").encode(&mut bytes),
            }
            bytes.extend_from_slice(&burst(0, 900..1_000));
            n.send_raw(p, &bytes);
            assert!(!n.is_open(p));
            assert_eq!(numbered(&n.msgs(s)), (0..900).collect::<Vec<_>>());
        }
        let p = n.join(V5, "p");
        n.hang_up(n.clients[p].wire, CloseCause::Error(104));
        assert_eq!((n.gauges().sockets, n.admitted()), (1, 1));
    }
}

// A fan-out of more operations than a turn has.
#[test]
fn one_message_reaches_many_thousand_subscribers() {
    let mut n = Node::new(1);
    let mut all = Vec::new();
    for i in 0..2_000 {
        let c = n.join(V311, &format!("c{i}"));
        n.sub(c, "t", 0);
        all.push(c);
    }
    let p = n.join(V5, "p");
    let mut bytes = Vec::new();
    for i in 0..50 {
        publish("t", 0, &i.to_string()).encode(&mut bytes, V5);
    }
    n.send_raw(p, &bytes);
    let expect: Vec<String> = (0..50).map(|i| i.to_string()).collect();
    for c in all {
        assert_eq!(texts(&n.msgs(c)), expect);
    }
}
