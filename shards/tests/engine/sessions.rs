//! Sessions: takeover, resuming, expiry.

use ringmain_mqtt::{Connect, ConnectProps, Disconnect, Publish, Version};
use ringmain_shards::boundary::{Control, Event};

use crate::support::*;

fn expiring(id: &str, expiry_s: u32) -> Connect<'_> {
    let props = ConnectProps { session_expiry_s: Some(expiry_s), ..ConnectProps::default() };
    Connect { clean_start: false, props, ..connect(V5, id) }
}

// S-01. [MQTT-3.1.4-3] [MQTT-3.1.3-2] [MQTT311-3.1.4-2] [MQTT311-3.1.3-2]
#[test]
fn takeover_ends_the_old_connection_before_the_new_one_is_answered() {
    for shards in SHARDS {
        for old in VERSIONS {
            for new in VERSIONS {
                let mut n = Node::new(shards);
                let a = n.resume(old, "a");
                let b = n.dial(&persistent(new, "a"));
                assert_eq!(n.closed(a), (old == V5).then_some(0x8E), "{old:?} {new:?}");
                assert_eq!(n.recv(b).code(), 0);
                n.quiet(b);
                assert_eq!(n.gauges().connections, 1);
                assert_eq!(n.counters().session_takenover, 1);
            }
        }
    }
}

// S-02, for one node
#[test]
fn of_a_thousand_connects_of_one_id_one_lives() {
    for shards in SHARDS {
        let mut n = Node::new(shards);
        let clients: Vec<C> = (0..1_000).map(|_| n.dial(&persistent(V5, "a"))).collect();
        let live: Vec<C> = clients.iter().copied().filter(|c| n.is_open(*c)).collect();
        assert_eq!(live, clients[999..]);
        for c in &clients[..999] {
            assert_eq!(n.closed(*c), Some(0x8E));
        }
        assert_eq!((n.gauges().sessions, n.admitted()), (1, 1));
    }
}

// S-03, S-80
#[test]
fn takeover_loses_and_doubles_nothing() {
    for shards in SHARDS {
        for version in VERSIONS {
            let mut n = Node::new(shards);
            let mut s = n.resume(version, "s");
            n.sub(s, "t", 2);
            let p = n.join(V5, "p");
            let mut got = Vec::new();
            for i in 0..50 {
                n.put(p, &publish("t", 2, &i.to_string()));
                if i % 7 == 0 {
                    s = n.resume(version, "s");
                }
                if i % 5 == 0 {
                    got.extend(n.msgs(s));
                }
            }
            got.extend(n.msgs(s));
            let order: Vec<String> = got.iter().map(|m| m.text().to_owned()).collect();
            assert_eq!(order, (0..50).map(|i| i.to_string()).collect::<Vec<_>>());
        }
    }
}

// S-04. [MQTT-3.1.2-4]
#[test]
fn a_clean_takeover_discards_what_was_queued_and_subscribed() {
    for version in VERSIONS {
        let mut n = Node::new(2);
        let a = n.resume(version, "a");
        n.sub(a, "t", 1);
        n.drop_conn(a);
        let p = n.join(V5, "p");
        n.put(p, &publish("t", 1, "queued"));
        let (a, present) = n.connected(&Connect { clean_start: true, ..persistent(version, "a") });
        assert!(!present);
        assert_eq!(n.put(p, &publish("t", 1, "x")), 0x10);
        n.quiet(a);
        let g = n.gauges();
        assert_eq!((g.queued, g.subscriptions, g.sessions), (0, 0, 2));
        assert_eq!(n.counters().delivery_dropped_session_ended, 1);
    }
}

// S-07
#[test]
fn a_session_survives_a_change_of_version() {
    let mut n = Node::new(2);
    let s = n.resume(V5, "s");
    n.sub_with(s, "t", sub_opts(1), Some(9));
    n.drop_conn(s);
    let p = n.join(V5, "p");
    let forward = props(|p| {
        p.user("k", "v");
    });
    let mut packet = publish("t", 1, "x");
    packet.props.forward = ringmain_mqtt::Forward::from_wire(&forward);
    n.put(p, &packet);
    let s = n.resume(V311, "s");
    assert_eq!(texts(&n.msgs(s)), ["x"]);
    n.drop_conn(s);
    n.put(p, &packet);
    let s = n.resume(V5, "s");
    let got = n.msgs(s);
    assert_eq!((&got[0].sub_ids[..], &got[0].forward), (&[9][..], &forward));
}

// S-08. [MQTT-3.1.2-23] [MQTT-4.1.0-2] [MQTT-4.1.0-1]
#[test]
fn a_session_lasts_for_its_expiry_after_the_close_and_no_longer() {
    for shards in SHARDS {
        let mut n = Node::new(shards);
        let a = n.connected(&expiring("a", 100)).0;
        n.sub(a, "t", 1);
        n.pass_s(1_000); // not while connected
        n.ping(a);
        n.drop_conn(a);
        n.pass_ms(99_999);
        let (a, present) = n.connected(&expiring("a", 100));
        assert!(present);
        n.drop_conn(a);
        n.pass_ms(101_000);
        let (_, present) = n.connected(&expiring("a", 100));
        assert!(!present);
        assert_eq!(n.gauges().subscriptions, 0);
    }
}

// S-08
#[test]
fn an_expired_session_is_not_resumed_although_its_timer_is_late() {
    let mut n = Node::new(2);
    let a = n.connected(&expiring("a", 100)).0;
    n.sub(a, "t", 1);
    n.drop_conn(a);
    n.pass_without_tick(100_000);
    let (a, present) = n.connected(&expiring("a", 100));
    assert!(!present);
    n.pass_s(10);
    let p = n.join(V5, "p");
    assert_eq!(n.put(p, &publish("t", 1, "x")), 0x10);
    n.quiet(a);
}

// S-08
#[test]
fn expiry_0_ends_with_the_connection_and_the_maximum_never() {
    let mut n = Node::new(2);
    for expiry in [Some(0), None] {
        let props = ConnectProps { session_expiry_s: expiry, ..ConnectProps::default() };
        let a = n.connected(&Connect { clean_start: false, props, ..connect(V5, "a") }).0;
        n.drop_conn(a);
        assert_eq!(n.gauges().sessions, 0);
    }
    let a = n.connected(&expiring("a", u32::MAX)).0;
    n.drop_conn(a);
    n.pass_s(10_000_000);
    assert!(n.connected(&expiring("a", 0)).1);
}

// S-09. [MQTT-3.1.2-23]
#[test]
fn disconnect_may_change_the_expiry_but_not_from_0() {
    let with = |expiry| Disconnect { session_expiry_s: Some(expiry), ..Disconnect::default() };
    let mut n = Node::new(2);
    let a = n.connected(&expiring("a", 100)).0;
    n.disconnect(a, &with(10));
    n.pass_ms(9_000);
    let (a, present) = n.connected(&expiring("a", 100));
    assert!(present);
    n.disconnect(a, &with(10));
    n.pass_ms(11_000);
    assert_eq!(n.gauges().sessions, 0);
    let a = n.connected(&expiring("a", 100)).0;
    n.disconnect(a, &with(0));
    assert_eq!(n.gauges().sessions, 0);
    let a = n.connected(&expiring("a", 0)).0;
    n.disconnect(a, &with(10));
    assert_eq!(n.closed(a), Some(0x82));
    assert_eq!(n.gauges().sessions, 0);
}

// S-10, Q10. [MQTT311-3.1.2-4] [MQTT311-3.1.2-5] [MQTT311-3.1.2-6]
#[test]
fn version_3_sessions_last_as_configured_and_queue_what_is_acknowledged() {
    for version in [V31, V311] {
        let mut n = Node::mqtt(2, |m| m.default_session_expiry_v3_s = 100);
        let a = n.resume(version, "a");
        n.sub(a, "t", 2);
        n.leave(a);
        let p = n.join(version, "p");
        for level in 0..3 {
            n.put(p, &publish("t", level, &level.to_string()));
        }
        n.pass_s(99);
        let a = n.resume(version, "a");
        assert_eq!(texts(&n.msgs(a)), ["1", "2"]);
        n.leave(a);
        n.pass_s(102);
        assert_eq!(n.gauges().sessions, 1);
        let a = n.join(version, "a");
        n.sub(a, "t", 2);
        n.drop_conn(a);
        assert_eq!(n.gauges().sessions, 1, "a clean session ends with its connection");
    }
}

// S-06 needs authorisation. S-05: see retained.rs.

// W08. [MQTT-3.1.3-4] [MQTT311-3.1.3-4]
#[test]
fn a_client_id_is_kept_byte_for_byte() {
    let bom = "\u{FEFF}client";
    let nfd = "e\u{301}";
    for shards in SHARDS {
        let mut n = Node::new(shards);
        for id in [bom, "client", nfd, "\u{e9}"] {
            let a = n.resume(V5, id);
            n.drop_conn(a);
        }
        assert_eq!(n.gauges().sessions, 4);
        n.control(&Control::DumpSession { client_id: bom.into(), token: 1 });
        let found = n.events.iter().find_map(|e| match e {
            Event::Session { session: Some(s), .. } => Some(s.client_id.clone()),
            _ => None,
        });
        assert_eq!(found.as_deref(), Some(bom));
    }
}

// W08. [MQTT-1.5.4-1] [MQTT-1.5.4-2] [MQTT-3.1.3-4] [MQTT-3.1.3-11] [MQTT-3.1.3-12]
// [MQTT311-3.1.3-10] [MQTT311-3.1.3-11]
#[test]
fn strings_of_connect_must_be_utf_8_without_null() {
    let bad: [&[u8]; 3] = [b"a\0", b"a\xED\xA0\x80", b"\xC0\x80"];
    for bad in bad {
        for place in 0..3 {
            for version in [V311, V5] {
                let pick = |at: usize| raw::field(if place == at { bad } else { b"ok" });
                let level = [version as u8];
                let nothing: &[u8] = if version == V5 { &[0] } else { &[] };
                let body = raw::cat(&[
                    &raw::field(b"MQTT"),
                    &level,
                    &[0b1000_0110, 0, 60],
                    nothing,
                    &pick(0),
                    nothing,
                    &pick(1),
                    &raw::field(b"payload"),
                    &pick(2),
                ]);
                let mut n = Node::new(1);
                let c = n.dial_raw(version, &raw::packet(0x10, &body));
                let got = n.recv_all(c);
                assert!(!n.is_open(c) && n.gauges().sessions == 0);
                if version == V5 {
                    assert!(matches!(got[0].code(), 0x81 | 0x82 | 0x85), "{got:?}");
                } else {
                    assert!(got.is_empty());
                }
            }
        }
    }
}

// Q14. DISCONNECT with any code that a server may send, by order of an administrator.
#[test]
fn an_administrator_ends_connections_and_sessions_with_any_reason() {
    for shards in SHARDS {
        for reason in [0x80, 0x83, 0x87, 0x89, 0x97, 0x98, 0x9D, 0xA0] {
            for discard in [false, true] {
                let mut n = Node::new(shards);
                let a = n.resume(V5, "a");
                let kick = Control::Kick {
                    client_id: "a".into(),
                    reason,
                    discard_session: discard,
                    token: 5,
                };
                n.control(&kick);
                assert_eq!(n.closed(a), Some(reason));
                assert_eq!(n.gauges().sessions, u64::from(!discard));
                let kicked: Vec<bool> = n
                    .events
                    .iter()
                    .filter_map(|e| match e {
                        Event::Kicked { token: 5, found } => Some(*found),
                        _ => None,
                    })
                    .collect();
                assert_eq!(kicked, [true]);
                n.control(&Control::Kick {
                    client_id: "nobody".into(),
                    reason,
                    discard_session: false,
                    token: 6,
                });
                assert!(
                    n.events.iter().any(|e| matches!(e, Event::Kicked { token: 6, found: false }))
                );
            }
        }
    }
}

// Q14
#[test]
fn a_dump_shows_what_a_session_holds() {
    let mut n = Node::new(2);
    let s = n.resume(V5, "s");
    n.sub(s, "a/+", 1);
    n.sub(s, "$share/g/b", 2);
    let p = n.join(V5, "p");
    n.put(p, &publish("a/x", 1, "in flight"));
    n.publish(s, &Publish { packet_id: Some(pid(99)), ..publish("q", 2, "unreleased") });
    n.drop_conn(s);
    n.put(p, &publish("a/x", 1, "queued"));
    n.control(&Control::DumpSession { client_id: "s".into(), token: 1 });
    let info = n.events.iter().find_map(|e| match e {
        Event::Session { session: Some(s), .. } => Some(s.as_ref().clone()),
        _ => None,
    });
    let info = info.expect("the session");
    assert!(!info.connected);
    assert_eq!((info.version, info.expiry_s), (5, 3600));
    assert_eq!((info.inflight, info.queued, info.awaiting_rel), (1, 1, 1));
    assert_eq!(info.subscriptions, [("a/+".into(), 1), ("$share/g/b".into(), 2)]);
}

// Everything that came with connections and sessions goes with them.
#[test]
fn nothing_is_left_behind() {
    for shards in SHARDS {
        let mut n = Node::new(shards);
        for round in 0..50 {
            let version = [V31, V311, V5][round % 3] as Version;
            let a = n.join(version, &format!("a{round}"));
            n.sub(a, "t/#", 2);
            n.sub(a, "$share/g/t/#", 1);
            n.sub(a, "$exclusive/x", 1);
            n.publish(a, &publish("t/1", 1, "x"));
            n.publish(a, &publish("t/1", 2, "open"));
            n.drop_conn(a);
        }
        let g = n.gauges();
        assert_eq!((g.connections, g.sockets, g.sessions, g.filters), (0, 0, 0, 0));
        assert_eq!((g.subscriptions, g.shared_subscriptions), (0, 0));
        assert_eq!((g.queued, g.inflight, g.group_queued), (0, 0, 0));
        assert_eq!(n.admitted(), 0);
    }
}
