//! Clients that send or are sent more than they may be. (L01, L02)

use std::sync::Arc;

use ringmain_mqtt::ReasonCode;
use ringmain_shards::boundary::Control;
use ringmain_shards::engine::config::{EngineConfig, RateAction};
use ringmain_shards::engine::rates::{Rate, Rates};

use crate::support::*;

const SECOND: u64 = 1_000_000_000;
const QUOTA: u8 = ReasonCode::QUOTA_EXCEEDED.0;

fn messages(count: u64, per_s: u64) -> Rates {
    Rates { messages: Rate::new(count, per_s * SECOND), ..Rates::default() }
}

/// A rate for each client.
fn each(shards: usize, rates: Rates, action: RateAction) -> Node {
    Node::mqtt(shards, |mqtt| (mqtt.rates, mqtt.rate_action) = (rates, action))
}

fn pour(n: &mut Node, c: C, topic: &str, level: u8, count: usize) {
    for i in 0..count {
        n.publish(c, &publish(topic, level, &i.to_string()));
    }
}

// L01, L02
#[test]
fn who_sends_too_fast_is_not_read_and_loses_nothing() {
    for shards in SHARDS {
        let mut n = each(shards, messages(10, 10), RateAction::Pause);
        let s = n.join(V5, "s");
        n.sub(s, "t", 0);
        let p = n.join(V5, "p");
        pour(&mut n, p, "t", 0, 25);
        assert_eq!(n.msgs(s).len(), 10, "ten at once, exactly");
        n.pass_ms(999);
        n.quiet(s);
        n.pass_ms(1);
        assert_eq!(n.msg(s).text(), "10");
        n.pass_s(14);
        let rest: Vec<String> = (11..25).map(|i| i.to_string()).collect();
        assert_eq!(texts(&n.msgs(s)), rest, "one each second, in order");
        n.ping(p);
        assert_eq!(n.counters().rate_pauses, 15);
    }
}

// L01
#[test]
fn of_acknowledged_messages_those_that_wait_are_acknowledged_later() {
    let mut n = each(1, messages(2, 1), RateAction::Pause);
    let p = n.join(V5, "p");
    pour(&mut n, p, "t", 1, 5);
    assert_eq!(n.recv_all(p).len(), 2);
    n.pass_s(2);
    assert_eq!(n.recv_all(p).len(), 3);
}

// L01, S-90
#[test]
fn who_is_not_read_does_not_miss_its_keep_alive() {
    let mut n = each(1, messages(1, 100), RateAction::Pause);
    let mut c = connect(V5, "p");
    c.keep_alive_s = 10;
    let (p, _) = n.connected(&c);
    pour(&mut n, p, "t", 0, 2);
    n.pass_s(90);
    assert!(n.is_open(p));
    n.pass_s(30); // it is read again, and silent
    assert!(!n.is_open(p));
}

// L01
#[test]
fn what_is_refused_is_told_to_those_who_can_be_told() {
    for shards in SHARDS {
        let mut n = each(shards, messages(2, 1), RateAction::Refuse);
        let s = n.join(V5, "s");
        n.sub(s, "t", 2);
        let p = n.join(V5, "p");
        let codes: Vec<u8> = (1..=2).map(|qos| n.put(p, &publish("t", qos, "x"))).collect();
        assert_eq!(codes, [0, 0]);
        assert_eq!(n.msgs(s).len(), 2);
        for qos in [1, 2] {
            assert_eq!(n.put(p, &publish("t", qos, "x")), QUOTA);
        }
        n.publish(p, &publish("t", 0, "x"));
        n.ping(p);
        n.quiet(s);
        assert_eq!(n.counters().rate_refusals, 3);
        n.pass_s(1);
        assert_eq!(n.put(p, &publish("t", 1, "x")), 0, "what was refused does not count");
        // Version 3 can't be told; what is not acknowledged is sent again.
        let old = n.join(V311, "old");
        pour(&mut n, old, "t", 1, 3);
        assert_eq!(n.recv_all(old).len(), 2);
        assert!(!n.is_open(old));
    }
}

// L01
#[test]
fn who_is_to_be_disconnected_is_told_why() {
    let mut n = each(2, messages(3, 1), RateAction::Disconnect);
    let p = n.join(V5, "p");
    pour(&mut n, p, "t", 0, 4);
    assert_eq!(n.closed(p), Some(ReasonCode::MESSAGE_RATE_TOO_HIGH.0));
    assert_eq!(n.counters().rate_disconnects, 1);
}

// L01
#[test]
fn bytes_have_a_rate_of_their_own() {
    let bytes = Rate::new(1000, SECOND);
    let mut n = each(1, Rates { bytes, ..Rates::default() }, RateAction::Refuse);
    let p = n.join(V5, "p");
    let large = "x".repeat(600);
    let codes = [&*large, &large, "small"].map(|text| n.put(p, &publish("t", 1, text)));
    assert_eq!(codes, [0x10, QUOTA, 0x10]);
}

// L01
#[test]
fn filters_count_not_the_packets_that_they_come_in() {
    for version in [V5, V311] {
        let subscribes = Rate::new(4, 4 * SECOND);
        let mut n = each(2, Rates { subscribes, ..Rates::default() }, RateAction::Refuse);
        let s = n.join(version, "s");
        assert_eq!(n.subscribe_all(s, &["a", "b", "c", "d", "e"]), [1; 5]);
        let refused = if version == V5 { QUOTA } else { 0x80 };
        assert_eq!(n.subscribe_all(s, &["f", "g"]), [refused; 2]);
        n.pass_s(2);
        assert_eq!(n.sub(s, "f", 0), 0, "five were taken, two are given back");
    }
}

// L01
#[test]
fn clients_of_a_listener_share_its_rate_over_all_shards_and_those_of_others_do_not() {
    for shards in SHARDS {
        let mut n = Node::with(shards, |cfg| {
            cfg.listeners[0].rates = messages(10, 1000);
            cfg.mqtt.rate_action = RateAction::Refuse;
            cfg.listeners.push(Default::default());
        });
        let clients = n.join_each(V5, "p");
        let mut passed = 0;
        for i in 0..30 {
            passed += usize::from(n.put(clients[i % shards], &publish("t", 1, "x")) == 0x10);
        }
        assert_eq!(passed, 10);
        let wire = n.open_from("192.0.2.9:1", 1);
        let other = n.adopt(wire, &connect(V5, "other"));
        assert_eq!(n.recv(other).code(), 0);
        assert_eq!(n.put(other, &publish("t", 1, "x")), 0x10);
    }
}

// L01
#[test]
fn the_rate_of_the_node_binds_all_and_those_who_wait_go_on_one_after_the_other() {
    for shards in SHARDS {
        let mut n = Node::with(shards, |cfg| cfg.limits.rates = messages(1, 1));
        let s = n.join(V5, "s");
        n.sub(s, "t", 0);
        let clients: Vec<C> = (0..6).map(|i| n.join(V5, &format!("p{i}"))).collect();
        for c in &clients {
            pour(&mut n, *c, "t", 0, 1);
        }
        assert_eq!(n.msgs(s).len(), 1);
        for second in 1..=5 {
            n.pass_s(1);
            assert_eq!(n.msgs(s).len(), 1, "second {second}");
        }
        n.pass_s(3);
        n.quiet(s);
    }
}

// L01
#[test]
fn who_may_be_sent_only_so_much_gets_the_rest_later() {
    for shards in SHARDS {
        let deliveries = Rate::new(3, SECOND);
        let mut n = each(shards, Rates { deliveries, ..Rates::default() }, RateAction::Pause);
        let s = n.join(V5, "s");
        n.sub(s, "t", 1);
        let p = n.join(V5, "p");
        pour(&mut n, p, "t", 1, 10);
        let mut got = 0;
        for at_most in [4, 3, 3, 3] {
            let msgs = n.msgs(s);
            assert!(msgs.len() <= at_most, "{} > {at_most}", msgs.len());
            for msg in &msgs {
                assert_eq!(msg.text(), got.to_string(), "in order");
                got += 1;
                n.ack(s, ringmain_mqtt::PacketType::PubAck, msg.id);
            }
            n.pass_s(1);
        }
        assert_eq!(got, 10);
        assert!(n.counters().deliveries_delayed > 0);
    }
}

// L01
#[test]
fn rates_can_be_changed_while_clients_are_connected() {
    let mut n = Node::new(2);
    let p = n.join(V5, "p");
    assert!((0..20).all(|_| n.put(p, &publish("t", 1, "x")) == 0x10));
    let mut cfg: EngineConfig = quiet_config();
    (cfg.mqtt.rates, cfg.mqtt.rate_action) = (messages(1, 100), RateAction::Refuse);
    n.control(&Control::Reload(Arc::new(cfg)));
    let codes: Vec<u8> = (0..2).map(|_| n.put(p, &publish("t", 1, "x"))).collect();
    assert_eq!(codes, [0x10, QUOTA]);
    n.control(&Control::Reload(Arc::new(quiet_config())));
    assert!((0..20).all(|_| n.put(p, &publish("t", 1, "x")) == 0x10));
}

// L01
#[test]
fn who_leaves_while_it_waits_is_not_waited_for() {
    let mut n = Node::with(2, |cfg| cfg.limits.rates = messages(1, 1));
    let first = n.join(V5, "a");
    pour(&mut n, first, "t", 0, 3);
    n.drop_conn(first);
    let second = n.join(V5, "a");
    n.pass_s(5);
    pour(&mut n, second, "t", 0, 1);
    n.ping(second);
}
