//! Every reason code that the feature table lists (§1.2) and that needs no authentication, no bans and
//! no rate limits: produced by a scenario of its own.

use ringmain_mqtt::{Connect, ConnectProps, Forward, Packet, Publish, PublishProps, QoS, Will};
use ringmain_shards::boundary::{Control, Pressure};
use ringmain_shards::engine::config::{DenyAction, MqttConfig};

use crate::support::*;

/// The packet, the code, and how it comes about.
type Row = (&'static str, u8, fn() -> Got);

fn connack(change: fn(&mut MqttConfig), c: &Connect<'_>) -> Got {
    let mut n = Node::mqtt(2, change);
    let c = n.dial(c);
    n.recv(c)
}

fn connack_raw(properties: &[u8]) -> Got {
    let mut n = Node::new(2);
    let c = n.dial_raw(V5, &raw::connect5("a", 2, properties));
    n.recv(c)
}

fn with_will(w: Will<'static>) -> Connect<'static> {
    Connect { will: Some(w), ..connect(V5, "a") }
}

const UTF8: [u8; 2] = [1, 1];

fn bad_utf8(level: u8) -> Publish<'static> {
    let props = PublishProps { forward: Forward::from_wire(&UTF8), ..PublishProps::default() };
    Publish { payload: &[0xFF], props, ..publish("t", level, "") }
}

/// The first answer to a PUBLISH.
fn answer(change: fn(&mut MqttConfig), p: &Publish<'_>) -> Got {
    let mut n = Node::mqtt(2, change);
    let a = n.join(V5, "a");
    n.publish(a, p);
    n.recv(a)
}

/// The first answer to bytes.
fn to_bytes(change: fn(&mut MqttConfig), bytes: &[u8]) -> Got {
    let mut n = Node::mqtt(2, change);
    let a = n.join(V5, "a");
    n.send_raw(a, bytes);
    n.recv(a)
}

fn suback(change: fn(&mut MqttConfig), filter: &str, level: u8, id: Option<u32>) -> Got {
    let mut n = Node::mqtt(2, change);
    let a = n.join(V5, "a");
    n.subscribe(a, &[(filter, sub_opts(level))], id);
    n.recv(a)
}

fn unsuback(filter: &str) -> Got {
    let mut n = Node::new(2);
    let a = n.join(V5, "a");
    n.sub(a, "t", 0);
    n.send_raw(a, &raw::packet(0xA2, &raw::cat(&[&[0, 9, 0], &raw::field(filter.as_bytes())])));
    n.recv(a)
}

fn kicked(reason: u8) -> Got {
    let mut n = Node::new(2);
    let a = n.join(V5, "a");
    let client_id = "a".into();
    n.control(&Control::Kick { client_id, reason, discard_session: false, token: 1 });
    n.recv(a)
}

/// With the id 1 held by a QoS 2 handshake.
fn id_in_use(bytes: &[u8]) -> Got {
    let mut n = Node::new(2);
    let a = n.join(V5, "a");
    n.publish(a, &Publish { packet_id: Some(pid(1)), ..publish("t", 2, "x") });
    n.recv(a);
    n.send_raw(a, bytes);
    n.recv(a)
}

fn unchanged(_: &mut MqttConfig) {}

const CONNACK: &[Row] = &[
    ("CONNACK", 0x00, || connack(unchanged, &connect(V5, "a"))),
    ("CONNACK", 0x81, || {
        let mut n = Node::new(2);
        let c = n.dial_raw(V5, &raw::connect5("a", 0b11, &[]));
        n.recv(c)
    }),
    ("CONNACK", 0x82, || connack_raw(&[0x21, 0, 0])),
    ("CONNACK", 0x84, || {
        let mut n = Node::with(2, |cfg| cfg.listeners[0].accept_protocol_versions = vec![4]);
        let c = n.dial(&connect(V5, "a"));
        n.recv(c)
    }),
    ("CONNACK", 0x85, || connack(|m| m.max_client_id_len = 1, &connect(V5, "aa"))),
    ("CONNACK", 0x87, || connack(unchanged, &with_will(will("$SYS/x", "", 0)))),
    ("CONNACK", 0x89, || {
        let mut n = Node::new(2);
        let wire = n.open();
        n.control(&Control::Pressure(Pressure::High));
        n.clients.push(Client::on(wire, V5));
        n.send_raw(0, &raw::connect5("a", 2, &[]));
        n.recv(0)
    }),
    ("CONNACK", 0x8C, || connack_raw(&[0x15, 0, 1, b'x'])),
    ("CONNACK", 0x90, || connack(unchanged, &with_will(will("$share/g/t", "", 0)))),
    ("CONNACK", 0x95, || connack(|m| m.max_packet_size = 20, &connect(V5, "a long client id"))),
    ("CONNACK", 0x97, || {
        let mut n = Node::with(2, |cfg| {
            cfg.retained.max_payload_bytes = 1;
            cfg.retained.reject_oversized = true;
        });
        let c = n.dial(&with_will(Will { retain: true, ..will("t", "xx", 0) }));
        n.recv(c)
    }),
    ("CONNACK", 0x99, || {
        let w = Will {
            payload: &[0xFF],
            payload_format: Some(true),
            forward: Forward::from_wire(&UTF8),
            ..will("t", "", 0)
        };
        connack(|m| m.check_payload_format = true, &with_will(w))
    }),
    ("CONNACK", 0x9A, || {
        connack(
            |m| m.retain_available = false,
            &with_will(Will { retain: true, ..will("t", "", 0) }),
        )
    }),
    ("CONNACK", 0x9B, || connack(|m| m.max_qos = QoS::AtMostOnce, &with_will(will("t", "", 1)))),
    ("CONNACK", 0x9C, || {
        let mut n = Node::mqtt(2, |m| m.server_reference = "b".into());
        n.control(&Control::Drain);
        let c = n.dial(&connect(V5, "a"));
        n.recv(c)
    }),
];

const ACKS: &[Row] = &[
    ("PUBACK", 0x00, || {
        let mut n = Node::new(2);
        let (s, p) = (n.join(V5, "s"), n.join(V5, "p"));
        n.sub(s, "t", 0);
        n.publish(p, &publish("t", 1, ""));
        n.recv(p)
    }),
    ("PUBACK", 0x10, || answer(unchanged, &publish("t", 1, ""))),
    ("PUBACK", 0x87, || answer(unchanged, &publish("$SYS/t", 1, ""))),
    ("PUBACK", 0x90, || answer(unchanged, &publish("$queue/t", 1, ""))),
    ("PUBACK", 0x91, || id_in_use(&[0x32, 6, 0, 1, b't', 0, 1, 0])),
    ("PUBACK", 0x97, || {
        let mut n = Node::new(2);
        let a = n.join(V5, "a");
        n.control(&Control::Pressure(Pressure::High));
        n.publish(a, &publish("t", 1, ""));
        n.recv(a)
    }),
    ("PUBACK", 0x99, || answer(|m| m.check_payload_format = true, &bad_utf8(1))),
    ("PUBREC", 0x00, || {
        let mut n = Node::new(2);
        let (s, p) = (n.join(V5, "s"), n.join(V5, "p"));
        n.sub(s, "t", 0);
        n.publish(p, &publish("t", 2, ""));
        n.recv(p)
    }),
    ("PUBREC", 0x10, || answer(unchanged, &publish("t", 2, ""))),
    ("PUBREC", 0x87, || answer(unchanged, &publish("$SYS/t", 2, ""))),
    ("PUBREC", 0x90, || answer(unchanged, &publish("$queue/t", 2, ""))),
    ("PUBREC", 0x97, || {
        let mut n = Node::mqtt(2, |m| m.max_awaiting_rel = 1);
        let a = n.join(V5, "a");
        n.publish(a, &publish("t", 2, ""));
        n.recv(a);
        n.publish(a, &publish("t", 2, ""));
        n.recv(a)
    }),
    ("PUBREC", 0x99, || answer(|m| m.check_payload_format = true, &bad_utf8(2))),
    ("PUBREL", 0x00, || {
        let mut n = Node::new(2);
        let (s, p) = (n.join(V5, "s"), n.join(V5, "p"));
        n.sub(s, "t", 2);
        n.put(p, &publish("t", 2, ""));
        let id = n.msg(s).id;
        n.ack(s, ringmain_mqtt::PacketType::PubRec, id);
        n.recv(s)
    }),
    ("PUBREL", 0x92, || to_bytes(unchanged, &[0x50, 2, 0, 7])),
    ("PUBCOMP", 0x00, || id_in_use(&[0x62, 2, 0, 1])),
    ("PUBCOMP", 0x92, || to_bytes(unchanged, &[0x62, 2, 0, 7])),
    ("SUBACK", 0x00, || suback(unchanged, "t", 0, None)),
    ("SUBACK", 0x01, || suback(unchanged, "t", 1, None)),
    ("SUBACK", 0x02, || suback(unchanged, "t", 2, None)),
    ("SUBACK", 0x8F, || suback(unchanged, "a+", 0, None)),
    ("SUBACK", 0x91, || id_in_use(&[0x82, 7, 0, 1, 0, 0, 1, b't', 0])),
    ("SUBACK", 0x97, || {
        let mut n = Node::mqtt(2, |m| m.max_subscriptions = 1);
        let a = n.join(V5, "a");
        n.sub(a, "t", 0);
        n.subscribe(a, &[("u", sub_opts(0))], None);
        n.recv(a)
    }),
    ("SUBACK", 0x9E, || suback(|m| m.shared_available = false, "$share/g/t", 0, None)),
    ("SUBACK", 0xA2, || suback(|m| m.wildcard_available = false, "#", 0, None)),
    ("UNSUBACK", 0x00, || unsuback("t")),
    ("UNSUBACK", 0x11, || unsuback("u")),
    ("UNSUBACK", 0x8F, || unsuback("a+")),
    ("UNSUBACK", 0x91, || id_in_use(&[0xA2, 6, 0, 1, 0, 0, 1, b't'])),
];

const DISCONNECT: &[Row] = &[
    ("DISCONNECT", 0x80, || kicked(0x80)),
    ("DISCONNECT", 0x81, || to_bytes(unchanged, &[0xC1, 0])),
    ("DISCONNECT", 0x82, || to_bytes(unchanged, &raw::connect5("a", 2, &[]))),
    ("DISCONNECT", 0x83, || kicked(0x83)),
    ("DISCONNECT", 0x87, || {
        answer(|m| m.deny_action = DenyAction::Disconnect, &publish("$SYS/t", 1, ""))
    }),
    ("DISCONNECT", 0x89, || kicked(0x89)),
    ("DISCONNECT", 0x8B, || {
        let mut n = Node::new(2);
        let a = n.join(V5, "a");
        n.control(&Control::Drain);
        n.recv(a)
    }),
    ("DISCONNECT", 0x8D, || {
        let mut n = Node::new(2);
        let a = n.connected(&Connect { keep_alive_s: 10, ..connect(V5, "a") }).0;
        n.pass_s(17);
        n.recv(a)
    }),
    ("DISCONNECT", 0x8E, || {
        let mut n = Node::new(2);
        let a = n.join(V5, "a");
        n.join(V5, "a");
        n.recv(a)
    }),
    ("DISCONNECT", 0x90, || answer(unchanged, &publish("$queue/t", 0, ""))),
    ("DISCONNECT", 0x93, || {
        let mut n = Node::mqtt(2, |m| m.receive_maximum = 1);
        let a = n.join(V5, "a");
        n.publish(a, &publish("t", 2, ""));
        n.recv(a);
        n.publish(a, &publish("t", 1, ""));
        n.recv(a)
    }),
    ("DISCONNECT", 0x94, || to_bytes(unchanged, &[0x30, 7, 0, 1, b't', 3, 0x23, 0, 99])),
    ("DISCONNECT", 0x95, || to_bytes(|m| m.max_packet_size = 50, &[0x30, 49])),
    ("DISCONNECT", 0x97, || kicked(0x97)),
    ("DISCONNECT", 0x98, || kicked(0x98)),
    ("DISCONNECT", 0x99, || answer(|m| m.check_payload_format = true, &bad_utf8(0))),
    ("DISCONNECT", 0x9A, || answer(|m| m.retain_available = false, &retained("t", 0, ""))),
    ("DISCONNECT", 0x9B, || answer(|m| m.max_qos = QoS::AtMostOnce, &publish("t", 1, ""))),
    ("DISCONNECT", 0x9C, || {
        let mut n = Node::mqtt(2, |m| m.server_reference = "b".into());
        let a = n.join(V5, "a");
        n.control(&Control::Drain);
        n.recv(a)
    }),
    ("DISCONNECT", 0x9D, || kicked(0x9D)),
    ("DISCONNECT", 0xA0, || {
        let mut n = Node::mqtt(2, |m| m.max_connection_lifetime_s = 5);
        let a = n.join(V5, "a");
        n.pass_s(7);
        n.recv(a)
    }),
    ("DISCONNECT", 0xA1, || suback(|m| m.subscription_id_available = false, "t", 0, Some(1))),
];

/// What the feature table lists, and what of it comes with later work.
const LISTED: &[(&str, &[u8], &[u8])] = &[
    (
        "CONNACK",
        &[
            0x00, 0x80, 0x81, 0x82, 0x83, 0x84, 0x85, 0x86, 0x87, 0x88, 0x89, 0x8A, 0x8C, 0x90,
            0x95, 0x97, 0x99, 0x9A, 0x9B, 0x9C, 0x9D, 0x9F,
        ],
        // Authentication and its back ends, bans, redirects for good, rates.
        &[0x80, 0x83, 0x86, 0x88, 0x8A, 0x9D, 0x9F],
    ),
    ("PUBACK", &[0x00, 0x10, 0x80, 0x83, 0x87, 0x90, 0x91, 0x97, 0x99], &[0x80, 0x83]), // hooks, rules
    // A QoS 2 id in use is a repeat of its publish. [S-33]
    ("PUBREC", &[0x00, 0x10, 0x80, 0x83, 0x87, 0x90, 0x91, 0x97, 0x99], &[0x80, 0x83, 0x91]),
    ("PUBREL", &[0x00, 0x92], &[]),
    ("PUBCOMP", &[0x00, 0x92], &[]),
    // Authorisation. 0xA1: the standard wants the end of the connection.
    (
        "SUBACK",
        &[0x00, 0x01, 0x02, 0x80, 0x83, 0x87, 0x8F, 0x91, 0x97, 0x9E, 0xA1, 0xA2],
        &[0x80, 0x83, 0x87, 0xA1],
    ),
    ("UNSUBACK", &[0x00, 0x11, 0x80, 0x83, 0x87, 0x8F, 0x91], &[0x80, 0x83, 0x87]),
    (
        "DISCONNECT",
        &[
            0x00, 0x80, 0x81, 0x82, 0x83, 0x87, 0x89, 0x8B, 0x8D, 0x8E, 0x8F, 0x90, 0x93, 0x94,
            0x95, 0x96, 0x97, 0x98, 0x99, 0x9A, 0x9B, 0x9C, 0x9D, 0x9E, 0x9F, 0xA0, 0xA1, 0xA2,
        ],
        // 0x00: the broker has no normal end. 0x8F, 0x9E, 0xA2 are said in SUBACK. Rates: 0x96, 0x9F.
        &[0x00, 0x8F, 0x96, 0x9E, 0x9F, 0xA2],
    ),
];

// features.md §1.2, "v5 reason-code coverage"
#[test]
fn every_listed_reason_code_can_be_produced() {
    let rows: Vec<&Row> = CONNACK.iter().chain(ACKS).chain(DISCONNECT).collect();
    for (packet, code, produce) in &rows {
        let got = produce();
        assert_eq!((got.name(), got.code()), (*packet, *code), "{got:?}");
    }
    for (packet, listed, later) in LISTED {
        for code in *listed {
            let here = rows.iter().any(|(p, c, _)| p == packet && c == code);
            assert_ne!(here, later.contains(code), "{packet} {code:02x}");
        }
    }
}

// features.md §1.2: v3.1.1 CONNACK 0 to 3 and 5; 4 comes with authentication. SUBACK 0, 1, 2, 0x80.
#[test]
fn version_3_return_codes_can_be_produced() {
    let code = |n: &mut Node, c: &Connect<'_>| {
        let c = n.dial(c);
        let got = n.recv(c);
        assert_eq!(got.bytes[..3], [0x20, 2, 0]);
        got.bytes[3]
    };
    let ok = connect(V311, "a");
    assert_eq!(code(&mut Node::new(2), &ok), 0);
    let mut n = Node::with(2, |cfg| cfg.listeners[0].accept_protocol_versions = vec![5]);
    assert_eq!(code(&mut n, &ok), 1);
    assert_eq!(code(&mut Node::new(2), &Connect { clean_start: false, ..connect(V311, "") }), 2);
    let mut n = Node::mqtt(2, |m| m.server_reference = "b".into());
    n.control(&Control::Drain);
    assert_eq!(code(&mut n, &ok), 3);
    let w = Connect { will: Some(will("$SYS/x", "", 0)), ..connect(V311, "a") };
    assert_eq!(code(&mut Node::new(2), &w), 5);
    let mut n = Node::new(2);
    let a = n.join(V311, "a");
    n.subscribe(
        a,
        &[("a", sub_opts(0)), ("b", sub_opts(1)), ("c", sub_opts(2)), ("a#", sub_opts(0))],
        None,
    );
    let got = n.recv(a);
    assert!(matches!(got.packet(), Packet::SubAck(_)));
    assert_eq!(got.bytes[4..], [0, 1, 2, 0x80]);
}

// C01 with a code: a refusal never has Session Present, whatever is stored. [MQTT-3.2.2-6]
// [MQTT311-3.2.2-4]
#[test]
fn a_refusal_has_no_session_present() {
    for version in [V311, V5] {
        let mut n = Node::new(2);
        let a = n.resume(version, "a");
        n.drop_conn(a);
        let w = Some(will("$SYS/x", "", 0));
        let props = ConnectProps { session_expiry_s: Some(9), ..ConnectProps::default() };
        let c = n.dial(&Connect { will: w, clean_start: false, props, ..connect(version, "a") });
        assert_eq!(n.recv(c).bytes[2], 0);
        assert!(n.connected(&persistent(version, "a")).1, "and the session is still there");
    }
}
