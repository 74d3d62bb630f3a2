//! Wills: when they go out, and as what.

use ringmain_mqtt::{Connect, ConnectProps, Disconnect, Forward, ReasonCode, Will};
use ringmain_shards::boundary::{Control, Event};
use ringmain_shards::engine::input::CloseCause;

use crate::support::*;

fn watcher(n: &mut Node) -> C {
    let s = n.join(V5, "watcher");
    n.sub(s, "w/#", 2);
    s
}

fn delayed(n: &mut Node, id: &str, delay_s: u32, expiry_s: u32) -> C {
    let props = ConnectProps { session_expiry_s: Some(expiry_s), ..ConnectProps::default() };
    let w = Will { delay_s: Some(delay_s), ..will("w/1", "gone", 1) };
    n.connected(&Connect { will: Some(w), props, clean_start: false, ..connect(V5, id) }).0
}

// S-15. [MQTT-3.1.2-7] [MQTT-3.1.2-8] [MQTT-3.14.4-3] [MQTT-3.1.2-10]
// [MQTT311-3.1.2-8] [MQTT311-3.1.2-10] [MQTT311-3.1.2-12]
#[test]
fn a_will_goes_out_at_every_end_but_a_normal_disconnect() {
    for shards in SHARDS {
        for version in VERSIONS {
            for end in 0..6 {
                let mut n = Node::new(shards);
                let s = watcher(&mut n);
                let w = will("w/1", "gone", 2);
                let c = Connect { will: Some(w), keep_alive_s: 10, ..connect(version, "a") };
                let a = n.connected(&c).0;
                match end {
                    0 => n.hang_up(n.clients[a].wire, CloseCause::PeerFin),
                    1 => n.hang_up(n.clients[a].wire, CloseCause::Error(104)),
                    2 => n.pass_s(16),
                    3 => n.send_raw(a, &[0x00, 0]),
                    4 => {
                        let kick = Control::Kick {
                            client_id: "a".into(),
                            reason: 0x98,
                            discard_session: false,
                            token: 1,
                        };
                        n.control(&kick);
                    }
                    _ => n.leave(a),
                }
                let expect: &[&str] = if end == 5 { &[] } else { &["gone"] };
                assert_eq!(texts(&n.msgs(s)), expect, "{version:?} {end}");
                assert!(!n.is_open(a));
                // Once only.
                n.pass_s(100);
                n.join(version, "a");
                n.quiet(s);
            }
        }
    }
}

// S-15. [MQTT-3.1.2-8]
#[test]
fn disconnect_with_any_code_but_0_publishes_the_will() {
    for code in [0x04, 0x80, 0x81, 0x82, 0x83, 0x90, 0x93, 0x94, 0x95, 0x96, 0x97, 0x98, 0x99, 0xFF]
    {
        let mut n = Node::new(2);
        let s = watcher(&mut n);
        let a = n.connected(&Connect { will: Some(will("w/1", "gone", 0)), ..connect(V5, "a") }).0;
        n.disconnect(a, &Disconnect { reason: ReasonCode(code), ..Disconnect::default() });
        assert_eq!(texts(&n.msgs(s)), ["gone"], "{code:02x}");
        assert!(!n.is_open(a));
    }
}

// S-16. [MQTT-3.1.2-8]
#[test]
fn a_will_waits_for_its_delay_or_the_end_of_the_session() {
    for (delay_s, expiry_s, at_s) in [(0, 100, 0), (5, 100, 5), (100, 5, 5), (5, 0, 0), (5, 5, 5)] {
        let mut n = Node::new(2);
        let s = watcher(&mut n);
        let a = delayed(&mut n, "a", delay_s, expiry_s);
        n.drop_conn(a);
        if at_s > 0 {
            n.pass_ms(at_s * 1000 - 1);
            n.quiet(s);
            n.pass_ms(1_001);
        }
        assert_eq!(texts(&n.msgs(s)), ["gone"], "{delay_s} {expiry_s}");
        n.pass_s(1_000);
        n.quiet(s);
    }
}

// S-17. [MQTT-3.1.3-9] [MQTT311-3.1.2-8]
#[test]
fn takeover_publishes_the_will_unless_it_may_wait_and_the_session_goes_on() {
    for shards in [1, 5] {
        for (delay_s, expiry_s, clean, published) in [
            (0, 100, false, true),
            (10, 0, false, true),
            (10, 100, true, true),
            (10, 100, false, false),
        ] {
            let mut n = Node::new(shards);
            let s = watcher(&mut n);
            let a = delayed(&mut n, "a", delay_s, expiry_s);
            let (_b, _) = n.connected(&Connect { clean_start: clean, ..persistent(V5, "a") });
            assert_eq!(n.closed(a), Some(0x8E));
            assert_eq!(n.msgs(s).len(), usize::from(published), "{delay_s} {expiry_s} {clean}");
            n.pass_s(200);
            n.quiet(s);
        }
        let mut n = Node::new(shards);
        let s = watcher(&mut n);
        let w = Connect { will: Some(will("w/1", "gone", 0)), ..persistent(V311, "a") };
        n.connected(&w);
        n.connected(&persistent(V311, "a"));
        assert_eq!(texts(&n.msgs(s)), ["gone"], "3.1.1: always");
    }
}

// S-18. [MQTT-3.1.3-9] [MQTT-3.1.2-10]
#[test]
fn coming_back_within_the_delay_cancels_the_will_and_the_new_one_counts() {
    for late in [false, true] {
        let mut n = Node::new(2);
        let s = watcher(&mut n);
        let a = delayed(&mut n, "a", 10, 100);
        n.drop_conn(a);
        // The timer is due, but CONNECT comes before the tick.
        if late {
            n.pass_without_tick(10_000);
        } else {
            n.pass_ms(9_999);
        }
        let w = Will { delay_s: Some(5), ..will("w/2", "second", 0) };
        let b = n.connected(&Connect { will: Some(w), ..persistent(V5, "a") }).0;
        n.pass_s(50);
        let early = n.msgs(s).len();
        assert!(early == 0 || late && early == 1);
        n.drop_conn(b);
        n.pass_s(50);
        assert_eq!(texts(&n.msgs(s)), ["second"]);
    }
}

// S-04. [MQTT-3.1.2-4]
#[test]
fn a_clean_start_publishes_the_waiting_will_of_the_session_that_it_ends() {
    let mut n = Node::new(2);
    let s = watcher(&mut n);
    let a = delayed(&mut n, "a", 50, 100);
    n.drop_conn(a);
    n.join(V5, "a");
    assert_eq!(texts(&n.msgs(s)), ["gone"]);
}

// C15, S-19, S-14. [MQTT-3.1.3-10] [MQTT-3.1.2-14] [MQTT311-3.1.2-16]
#[test]
fn a_will_carries_its_properties_but_not_its_delay() {
    for shards in SHARDS {
        let mut n = Node::new(shards);
        let s = watcher(&mut n);
        let forward = props(|p| {
            p.user("b", "1").payload_format(true).content_type("text");
            p.user("a", "2").response_topic("r/t").correlation(&[1, 2, 3]).user("b", "3");
        });
        let w = Will {
            delay_s: Some(3),
            message_expiry_s: Some(10),
            payload_format: Some(true),
            forward: Forward::from_wire(&forward),
            ..will("w/1", "gone", 1)
        };
        let a = n.connected(&Connect { will: Some(w), ..persistent(V5, "a") }).0;
        n.pass_s(60);
        n.drop_conn(a);
        n.pass_s(3);
        let got = n.msgs(s);
        assert_eq!(got.len(), 1);
        assert_eq!(got[0].forward, forward);
        assert_eq!(got[0].expiry, Some(10), "it expires from its publication on");
        assert_eq!((got[0].qos, got[0].retain), (1, false));
    }
}

// S-20
#[test]
fn a_graceful_stop_says_0x8b_and_publishes_wills_once() {
    let mut n = Node::new(2);
    let s = n.resume(V311, "s");
    n.sub(s, "w/#", 1);
    n.drop_conn(s);
    let a = delayed(&mut n, "a", 50, 100);
    let b = delayed(&mut n, "b", 50, 100);
    n.drop_conn(b);
    let c = n.join(V311, "c");
    n.control(&Control::Drain);
    assert_eq!(n.closed(a), Some(0x8B));
    assert_eq!(n.closed(c), None);
    assert_eq!(n.gauges().queued, 2, "both wills wait for the session that stays");
    let drained = n.events.iter().filter(|e| matches!(e, Event::Drained { .. })).count();
    assert_eq!(drained, 2);
    assert_eq!(n.admitted(), 0);
}

// W08. [MQTT-3.3.2-14]
#[test]
fn a_will_with_a_wildcard_in_its_topics_is_refused() {
    for (topic, response) in [("w/+", "r"), ("w", "r/#")] {
        let mut n = Node::new(1);
        let forward = props(|p| {
            p.response_topic(response);
        });
        let w = Will { forward: Forward::from_wire(&forward), ..will(topic, "x", 0) };
        let c = n.dial(&Connect { will: Some(w), ..connect(V5, "a") });
        let code = n.recv(c).code();
        assert!(matches!(code, 0x81 | 0x82 | 0x90), "{code:02x}");
        assert!(!n.is_open(c));
    }
}

// P06
#[test]
fn the_cap_of_message_expiry_holds_for_wills() {
    let mut n = Node::mqtt(1, |m| m.message_expiry_max_s = 60);
    let s = watcher(&mut n);
    let w = Will { message_expiry_s: Some(100), ..will("w/1", "gone", 0) };
    let a = n.connected(&Connect { will: Some(w), ..connect(V5, "a") }).0;
    n.drop_conn(a);
    assert_eq!(n.msg(s).expiry, Some(60));
}
