//! CONNECT and CONNACK.

use ringmain_mqtt::{Connect, ConnectProps, Packet, QoS, Version};
use ringmain_shards::boundary::{Control, Pressure};
use ringmain_shards::engine::config::KeepAliveV3Policy;
use ringmain_shards::engine::effects::CloseHow;

use crate::support::*;

fn connack_code(n: &mut Node, version: Version, bytes: &[u8]) -> u8 {
    let c = n.dial_raw(version, bytes);
    let got = n.recv(c);
    assert_eq!(got.name(), "CONNACK");
    let Packet::ConnAck(ack) = got.packet() else { unreachable!() };
    let code = ack.code.0;
    if code >= 0x80 {
        assert!(!ack.session_present); // [MQTT-3.2.2-6]
        assert!(!n.is_open(c), "{code:02x}");
        assert!(n.recv_all(c).is_empty());
    }
    code
}

fn refused(n: &mut Node, c: &Connect<'_>) -> u8 {
    let mut bytes = Vec::new();
    c.encode(&mut bytes);
    connack_code(n, c.version, &bytes)
}

// C01. [MQTT-3.1.2-4] [MQTT-3.1.2-5] [MQTT-3.1.2-6] [MQTT-3.2.2-2] [MQTT-3.2.2-3] [MQTT-3.1.4-4]
// [MQTT-3.1.4-5] [MQTT-3.2.0-1]
// [MQTT311-3.1.2-4] [MQTT311-3.1.2-6] [MQTT311-3.2.2-1] [MQTT311-3.2.2-2] [MQTT311-3.2.2-3]
// [MQTT311-3.1.4-3] [MQTT311-3.1.4-4] [MQTT311-3.2.0-1]
#[test]
fn session_present_only_where_a_session_is_kept_and_wanted() {
    for shards in SHARDS {
        for version in [V311, V5] {
            for (clean, stored) in [(false, false), (false, true), (true, false), (true, true)] {
                let mut n = Node::new(shards);
                if stored {
                    let a = n.resume(version, "a");
                    assert_eq!(n.sub(a, "t", 1), 1);
                    n.drop_conn(a);
                }
                let c = Connect { clean_start: clean, ..persistent(version, "a") };
                let (a, present) = n.connected(&c);
                assert_eq!(present, stored && !clean, "{version:?} {clean} {stored}");
                let p = n.join(version, "p");
                n.put(p, &publish("t", 1, "x"));
                assert_eq!(n.msgs(a).len(), usize::from(present), "the subscription is state");
            }
        }
    }
}

// W04. [MQTT-3.1.2-2]
#[test]
fn unknown_levels_get_0x84_or_return_code_1() {
    let mut n = Node::new(2);
    let v6 =
        raw::packet(0x10, &raw::cat(&[&raw::field(b"MQTT"), &[6, 2, 0, 0, 0], &raw::field(b"a")]));
    assert_eq!(connack_code(&mut n, V5, &v6), 0x84);
    // [MQTT311-3.1.2-2]
    let v9 =
        raw::packet(0x10, &raw::cat(&[&raw::field(b"MQTT"), &[9, 2, 0, 0], &raw::field(b"a")]));
    let c = n.dial_raw(V311, &v9);
    assert_eq!(n.recv(c).bytes, [0x20, 2, 0, 1]);
    assert!(!n.is_open(c));
    // [MQTT-3.1.2-1]
    let name =
        raw::packet(0x10, &raw::cat(&[&raw::field(b"MQTX"), &[4, 2, 0, 0], &raw::field(b"a")]));
    let c = n.dial_raw(V311, &name);
    assert!(n.recv_all(c).is_empty() && !n.is_open(c));
}

// W05
#[test]
fn a_listener_for_mqtt_5_refuses_3_1_1_with_1() {
    let mut n = Node::with(2, |cfg| cfg.listeners[0].accept_protocol_versions = vec![5]);
    let c = n.dial(&connect(V311, "a"));
    assert_eq!(n.recv(c).bytes, [0x20, 2, 0, 1]);
    assert!(!n.is_open(c));
    assert_eq!(n.gauges().sessions, 0);
    n.join(V5, "a");
}

// W10. [MQTT-3.1.2-3] [MQTT-3.1.2-11] [MQTT-3.1.2-12] [MQTT-3.1.2-13] [MQTT-3.1.4-1]
// [MQTT311-3.1.2-3] [MQTT311-3.1.2-11] [MQTT311-3.1.2-13] [MQTT311-3.1.2-14] [MQTT311-3.1.2-15]
// [MQTT311-3.1.2-22] [MQTT311-3.1.4-1] [MQTT311-3.2.2-6]
#[test]
fn inconsistent_connect_flags_end_the_connection() {
    let mut n = Node::new(2);
    let will = raw::cat(&[&raw::field(b"w"), &raw::field(b"x")]);
    let cases: [(u8, &[u8]); 5] = [
        (0b0000_0011, &[]),     // reserved bit
        (0b0000_1010, &[]),     // Will QoS without Will Flag
        (0b0010_0010, &[]),     // Will Retain without Will Flag
        (0b0001_1110, &will),   // Will QoS 3
        (0b0100_0010, &[0, 0]), // 3.1.1: Password without User Name
    ];
    for (flags, rest) in cases {
        let body = raw::cat(&[&raw::field(b"MQTT"), &[4, flags, 0, 60], &raw::field(b"a"), rest]);
        let c = n.dial_raw(V311, &raw::packet(0x10, &body));
        assert!(n.recv_all(c).is_empty(), "3.1.1 is closed without a word, {flags:b}");
        assert!(!n.is_open(c));
        if flags == 0b0100_0010 {
            continue;
        }
        let rest = if rest.is_empty() { rest.to_vec() } else { raw::cat(&[&[0], rest]) };
        let body =
            raw::cat(&[&raw::field(b"MQTT"), &[5, flags, 0, 60, 0], &raw::field(b"a"), &rest]);
        let code = connack_code(&mut n, V5, &raw::packet(0x10, &body));
        assert!(matches!(code, 0x81 | 0x82), "{flags:b}: {code:02x}");
    }
    assert_eq!(n.gauges().sessions, 0);
    assert_eq!(n.admitted(), 0);
}

// [MQTT-3.1.2-16] [MQTT-3.1.2-17] [MQTT-3.1.2-18] [MQTT-3.1.2-19] [MQTT-3.1.2-9] [MQTT-3.1.3-1]
// [MQTT-3.1.3-3]
// [MQTT311-3.1.2-18] [MQTT311-3.1.2-19] [MQTT311-3.1.2-20] [MQTT311-3.1.2-21] [MQTT311-3.1.2-9]
// [MQTT311-3.1.3-1] [MQTT311-3.1.3-3]
#[test]
fn the_connect_payload_has_exactly_the_fields_of_its_flags() {
    let mut n = Node::new(1);
    let field = |s: &str| raw::field(s.as_bytes());
    let (id, wt, wp, user, pass) = (field("a"), field("w"), field("x"), field("u"), field("p"));
    let no_properties = [0];
    let fields: [(u8, &[u8]); 4] = [(0b100, &wt), (0, &wp), (0x80, &user), (0x40, &pass)];
    for chosen in [0b0000, 0b0011, 0b0100, 0b1100, 0b1111_u8] {
        for version in [V311, V5] {
            let mut flags = 2;
            let mut payload = id.clone();
            if chosen & 1 != 0 && version == V5 {
                payload.extend_from_slice(&no_properties);
            }
            for (i, (flag, bytes)) in fields.iter().enumerate() {
                if chosen >> i & 1 != 0 {
                    flags |= flag;
                    payload.extend_from_slice(bytes);
                }
            }
            let level = version as u8;
            let mut head = raw::cat(&[&raw::field(b"MQTT"), &[level, flags, 0, 60]]);
            if version == V5 {
                head.push(0);
            }
            let c = n.dial_raw(version, &raw::packet(0x10, &raw::cat(&[&head, &payload])));
            assert_eq!(n.recv(c).code(), 0, "{chosen:b}");
            n.leave(c);
            // One field more, and one less.
            let more = raw::cat(&[&head, &payload, &field("z")]);
            let c = n.dial_raw(version, &raw::packet(0x10, &more));
            assert!(!n.is_open(c), "{chosen:b}");
            let cut = raw::cat(&[&head, &payload[..payload.len() - 3]]);
            let c = n.dial_raw(version, &raw::packet(0x10, &cut));
            assert!(!n.is_open(c), "{chosen:b}");
        }
    }
}

// W10: MQTT 5 allows a password alone.
#[test]
fn version_5_takes_a_password_without_user_name() {
    let mut n = Node::new(1);
    n.connected(&Connect { password: Some(b"p"), ..connect(V5, "a") });
}

// W11. [MQTT-3.1.0-1] [MQTT311-3.1.0-1]
#[test]
fn another_packet_before_connect_closes_without_connack() {
    let mut n = Node::new(2);
    for first in [&[0x30, 4, 0, 1, b'a', b'x'][..], &[0xC0, 0], &[0xE0, 0], &[0xF0, 0]] {
        let c = n.dial_raw(V5, first);
        assert!(n.recv_all(c).is_empty(), "{first:02x?}");
        assert!(!n.is_open(c));
    }
    assert_eq!(n.admitted(), 0);
}

// W11. [MQTT-3.1.0-2] [MQTT-3.2.0-2] [MQTT-4.13.1-1] [MQTT311-3.1.0-2]
#[test]
fn a_second_connect_ends_the_connection_and_publishes_the_will() {
    for version in VERSIONS {
        let mut n = Node::new(2);
        let s = n.join(V5, "s");
        n.sub(s, "w", 0);
        let will = will("w", "gone", 0);
        let a = n.connected(&Connect { will: Some(will), ..connect(version, "a") }).0;
        let mut again = Vec::new();
        connect(version, "a").encode(&mut again);
        n.send_raw(a, &again);
        assert_eq!(n.closed(a), (version == V5).then_some(0x82));
        assert_eq!(texts(&n.msgs(s)), ["gone"]);
    }
}

// W12
#[test]
fn a_socket_without_connect_is_closed_after_the_timeout_and_counted() {
    let mut n = Node::new(2);
    let silent = n.open();
    let half = n.open();
    n.write(half, &[0x10, 30, 0, 4, b'M']);
    n.pass_ms(14_999);
    assert!(n.wires[silent].closed.is_none());
    n.pass_ms(1_000);
    assert_eq!(n.wires[silent].closed, Some(CloseHow::Abort));
    assert_eq!(n.wires[half].closed, Some(CloseHow::Abort));
    assert_eq!(n.counters().connect_timeout, 2);
    assert_eq!(n.admitted(), 0);
}

// W13. [MQTT-3.1.4-6] [MQTT311-3.1.4-5]
#[test]
fn what_follows_connect_in_one_segment_is_served_unless_it_is_refused() {
    for shards in SHARDS {
        for version in VERSIONS {
            for refuse in [false, true] {
                let mut n = Node::mqtt(shards, |m| m.max_client_id_len = 3);
                let watcher = n.join(V5, "w");
                n.sub(watcher, "#", 0);
                let id = if refuse { "long-name" } else { "abc" };
                let mut bytes = Vec::new();
                connect(version, id).encode(&mut bytes);
                ringmain_mqtt::encode::subscribe(
                    &mut bytes,
                    version,
                    pid(1),
                    None,
                    &[("t", sub_opts(1))],
                );
                Packet::Publish(publish("t", 0, "x")).encode(&mut bytes, version);
                let a = n.dial_raw(version, &bytes);
                let names: Vec<_> = n.recv_all(a).iter().map(Got::name).collect();
                if refuse {
                    assert_eq!(names, ["CONNACK"]);
                    assert!(!n.is_open(a));
                    n.quiet(watcher);
                } else {
                    assert_eq!(names, ["CONNACK", "SUBACK", "PUBLISH"]);
                    assert_eq!(n.msgs(watcher).len(), 1);
                }
            }
        }
    }
}

// W17, S-98, S-99. [MQTT-3.1.3-8] [MQTT-3.1.4-2] [MQTT-3.2.2-7] [MQTT311-3.1.3-8]
// [MQTT311-3.1.3-9] [MQTT311-3.2.2-5] [MQTT311-3.1.3-7]
#[test]
fn client_ids_that_are_too_long_or_empty_are_refused() {
    let mut n = Node::mqtt(2, |m| m.max_client_id_len = 30);
    let (fits, long) = ("x".repeat(30), "x".repeat(31));
    assert_eq!(refused(&mut n, &connect(V5, &long)), 0x85);
    n.join(V5, &fits);
    let c = n.dial(&connect(V311, &long));
    assert_eq!(n.recv(c).bytes, [0x20, 2, 0, 2]);
    assert!(!n.is_open(c));
    let c = n.dial(&Connect { clean_start: false, ..connect(V311, "") });
    assert_eq!(n.recv(c).bytes, [0x20, 2, 0, 2]);
    assert!(!n.is_open(c));
    for id in ["", &"y".repeat(24)] {
        let c = n.dial(&connect(V31, id));
        assert_eq!(n.recv(c).bytes, [0x20, 2, 0, 2], "3.1 has 1 to 23 characters");
    }
    // [MQTT-3.1.3-5] [MQTT311-3.1.3-5]
    let usual = "0123456789abcdefghijABC";
    for version in VERSIONS {
        n.join(version, usual);
    }
}

// S-99
#[test]
fn lenient_3_1_takes_long_ids() {
    let mut n = Node::mqtt(1, |m| m.lenient_v31_client_id = true);
    n.join(V31, &"y".repeat(24));
}

// C10, D10. [MQTT-3.1.3-6] [MQTT-3.1.3-7] [MQTT-3.2.2-16] [MQTT311-3.1.3-6]
#[test]
fn assigned_client_ids_are_unique_and_work_on_reconnect() {
    for shards in SHARDS {
        let mut n = Node::new(shards);
        let mut ids = Vec::new();
        for i in 0..20 {
            let c = n.dial(&Connect { clean_start: i % 2 == 0, ..persistent(V5, "") });
            let got = n.recv(c);
            let Packet::ConnAck(ack) = got.packet() else { panic!("{got:?}") };
            ids.push(ack.assigned_client_id.expect("an id").to_owned());
            n.sub(c, "t", 1);
            n.drop_conn(c);
        }
        ids.sort_unstable();
        ids.dedup();
        assert_eq!(ids.len(), 20);
        let (c, present) = n.connected(&persistent(V5, &ids[7]));
        assert!(present);
        assert!(n.is_open(c));
        n.join(V311, ""); // 3.1.1: clean only, the id stays the broker's secret
        assert_eq!(n.gauges().sessions, 21);
    }
}

// C09. [MQTT-4.12.0-1] [MQTT-4.13.2-1]
#[test]
fn an_unknown_authentication_method_gets_0x8c() {
    let mut n = Node::new(2);
    let props = ConnectProps {
        auth_method: Some("SCRAM-SHA-1"),
        auth_data: Some(b"x"),
        ..ConnectProps::default()
    };
    assert_eq!(refused(&mut n, &Connect { props, ..connect(V5, "a") }), 0x8C);
}

// S-95. [MQTT-4.12.0-6] [MQTT-4.12.0-7] [MQTT-3.15.1-1]
#[test]
fn auth_without_a_method_in_connect_is_a_protocol_error() {
    let mut n = Node::new(1);
    for (auth, code) in [
        (&[0xF0, 0][..], 0x82),
        (&[0xF0, 7, 0x19, 5, 0x15, 0, 2, b'x', b'y'], 0x82),
        (&[0xF1, 0], 0x81),
    ] {
        let a = n.join(V5, "a");
        n.send_raw(a, auth);
        let got = n.closed(a).expect("DISCONNECT");
        assert!(got == code || code == 0x82 && got == 0x81, "{auth:02x?}: {got:02x}");
    }
}

// C02, Q10.
#[test]
fn a_shorter_granted_session_expiry_is_returned_and_applies() {
    let mut n = Node::mqtt(2, |m| m.max_session_expiry_s = 100);
    for asked in [u32::MAX, 101] {
        let props = ConnectProps { session_expiry_s: Some(asked), ..ConnectProps::default() };
        let c = n.dial(&Connect { props, ..connect(V5, "a") });
        let got = n.recv(c);
        let Packet::ConnAck(ack) = got.packet() else { panic!("{got:?}") };
        assert_eq!(ack.session_expiry_s, Some(100));
    }
    let props = ConnectProps { session_expiry_s: Some(100), ..ConnectProps::default() };
    let c = n.dial(&Connect { props, ..connect(V5, "a") });
    let got = n.recv(c);
    assert!(matches!(got.packet(), Packet::ConnAck(a) if a.session_expiry_s.is_none()));
    n.drop_conn(c);
    n.pass_ms(99_000);
    assert_eq!(n.gauges().sessions, 1);
    n.pass_ms(2_000);
    assert_eq!(n.gauges().sessions, 0);
}

// C03, C05, C12. [MQTT-3.2.2-9]
#[test]
fn connack_announces_the_limits() {
    let mut n = Node::mqtt(2, |m| {
        m.receive_maximum = 7;
        m.topic_alias_max = 9;
        m.max_packet_size = 1000;
        m.max_qos = QoS::AtLeastOnce;
        m.retain_available = false;
        m.wildcard_available = false;
        m.subscription_id_available = false;
        m.shared_available = false;
        m.server_keep_alive_s = 11;
    });
    let c = n.dial(&connect(V5, "a"));
    let got = n.recv(c);
    let Packet::ConnAck(ack) = got.packet() else { panic!("{got:?}") };
    assert_eq!(ack.receive_maximum, Some(7));
    assert_eq!(ack.topic_alias_maximum, Some(9));
    assert_eq!(ack.maximum_packet_size, Some(1000));
    assert_eq!(ack.maximum_qos, Some(QoS::AtLeastOnce));
    assert_eq!(ack.retain_available, Some(false));
    assert_eq!(ack.wildcard_available, Some(false));
    assert_eq!(ack.subscription_ids_available, Some(false));
    assert_eq!(ack.shared_available, Some(false));
    assert_eq!(ack.server_keep_alive_s, Some(11));
    let mut n = Node::new(1);
    let c = n.dial(&connect(V5, "a"));
    let got = n.recv(c);
    let Packet::ConnAck(ack) = got.packet() else { panic!("{got:?}") };
    assert_eq!((ack.maximum_qos, ack.retain_available, ack.wildcard_available), (None, None, None));
    assert_eq!((ack.subscription_ids_available, ack.shared_available), (None, None));
}

// C12. [MQTT-3.2.2-12] [MQTT-3.2.2-13]
#[test]
fn a_will_beyond_what_the_server_offers_refuses_the_connection() {
    let mut n = Node::mqtt(1, |m| {
        m.max_qos = QoS::AtLeastOnce;
        m.retain_available = false;
    });
    let w = will("w", "x", 2);
    assert_eq!(refused(&mut n, &Connect { will: Some(w), ..connect(V5, "a") }), 0x9B);
    let w = ringmain_mqtt::Will { retain: true, ..will("w", "x", 1) };
    assert_eq!(refused(&mut n, &Connect { will: Some(w), ..connect(V5, "a") }), 0x9A);
    n.connected(&Connect { will: Some(will("w", "x", 1)), ..connect(V5, "a") });
}

// S-19
#[test]
fn a_will_that_could_not_be_published_refuses_the_connection() {
    let mut n = Node::with(2, |cfg| {
        cfg.mqtt.check_payload_format = true;
        cfg.mqtt.max_topic_levels = 3;
        cfg.retained.max_payload_bytes = 10;
        cfg.retained.reject_oversized = true;
    });
    let with = |w| Connect { will: Some(w), ..connect(V5, "a") };
    assert_eq!(refused(&mut n, &with(will("$share/g/w", "x", 0))), 0x90);
    assert_eq!(refused(&mut n, &with(will("a/b/c/d", "x", 0))), 0x90);
    assert_eq!(refused(&mut n, &with(will("$SYS/x", "x", 0))), 0x87);
    let forward = props(|p| {
        p.payload_format(true);
    });
    let w = ringmain_mqtt::Will {
        payload: &[0xFF],
        payload_format: Some(true),
        forward: ringmain_mqtt::Forward::from_wire(&forward),
        ..will("w", "", 0)
    };
    assert_eq!(refused(&mut n, &with(w)), 0x99);
    let w = ringmain_mqtt::Will { retain: true, ..will("w", "eleven char", 0) };
    assert_eq!(refused(&mut n, &with(w)), 0x97); // S-46
}

// L05
#[test]
fn short_of_memory_the_broker_answers_connect_with_0x89() {
    let mut n = Node::new(2);
    let early = n.open();
    n.control(&Control::Pressure(Pressure::High));
    let late = n.open();
    assert_eq!(n.wires[late].closed, Some(CloseHow::Abort));
    n.clients.push(Client::on(early, V5));
    let c = n.clients.len() - 1;
    let mut bytes = Vec::new();
    connect(V5, "a").encode(&mut bytes);
    n.send_raw(c, &bytes);
    assert_eq!(n.recv(c).code(), 0x89);
    assert!(!n.is_open(c));
    n.control(&Control::Pressure(Pressure::Normal));
    n.join(V5, "a");
}

// C14, S-96.
#[test]
fn a_draining_node_sends_clients_to_another_server() {
    let mut n = Node::mqtt(2, |m| m.server_reference = "other.example:1883".into());
    let a = n.join(V5, "a");
    n.control(&Control::Drain);
    assert_eq!(n.closed(a), Some(0x9C));
    let c = n.dial(&connect(V5, "b"));
    let got = n.recv(c);
    let Packet::ConnAck(ack) = got.packet() else { panic!("{got:?}") };
    assert_eq!((ack.code.0, ack.server_reference), (0x9C, Some("other.example:1883")));
    assert!(!n.is_open(c));
    let c = n.dial(&connect(V311, "b"));
    assert_eq!(n.recv(c).bytes, [0x20, 2, 0, 3]);
    assert!(!n.is_open(c));
}

// C06. [MQTT-3.1.2-28]
#[test]
fn response_information_comes_only_when_asked_for() {
    let mut n = Node::mqtt(2, |m| m.response_information = "reply/".into());
    for (ask, expect) in [(true, Some("reply/")), (false, None)] {
        let props = ConnectProps { request_response_info: ask, ..ConnectProps::default() };
        let c = n.dial(&Connect { props, ..connect(V5, "a") });
        let got = n.recv(c);
        assert!(matches!(got.packet(), Packet::ConnAck(a) if a.response_information == expect));
    }
    assert_eq!(connack_code(&mut n, V5, &raw::connect5("a", 2, &[0x19, 2])), 0x82);
}

// C03, C04, C06, C07, C16, C17. Each is a value or place that MQTT 5 forbids.
#[test]
fn forbidden_connect_properties_are_refused() {
    let mut n = Node::new(1);
    let cases: [&[u8]; 12] = [
        &[0x21, 0, 0],                         // Receive Maximum 0
        &[0x27, 0, 0, 0, 0],                   // Maximum Packet Size 0
        &[0x19, 2],                            // Request Response Information 2
        &[0x17, 2],                            // Request Problem Information 2
        &[0x11, 0, 0, 0, 1, 0x11, 0, 0, 0, 1], // twice
        &[0x21, 0, 1, 0x21, 0, 1],
        &[0x16, 0, 1, 1],    // Authentication Data without a method
        &[0x23, 0, 1],       // Topic Alias
        &[0x0B, 1],          // Subscription Identifier
        &[0x24, 1],          // Maximum QoS
        &[0x12, 0, 1, b'a'], // Assigned Client Identifier
        &[0x7F, 0],          // unknown
    ];
    for properties in cases {
        let code = connack_code(&mut n, V5, &raw::connect5("a", 2, properties));
        assert!(matches!(code, 0x81 | 0x82), "{properties:02x?}: {code:02x}");
    }
    // User Property is exempt.
    let user = [0x26, 0, 1, b'k', 0, 1, b'v'].repeat(2);
    assert_eq!(connack_code(&mut n, V5, &raw::connect5("a", 2, &user)), 0);
}

// C07, C13, S-31. [MQTT-3.2.2-19]
#[test]
fn refusals_carry_text_that_fits_and_was_not_declined() {
    let mut n = Node::mqtt(1, |m| m.max_client_id_len = 1);
    let c = n.dial(&connect(V5, "aa"));
    let got = n.recv(c);
    let text = got.reason_string().expect("human text");
    assert!(!text.is_empty());
    let full = got.bytes.len() as u32;
    for (max, with_text) in [(full, true), (full - 1, false)] {
        let props = ConnectProps { maximum_packet_size: Some(max), ..ConnectProps::default() };
        let c = n.dial(&Connect { props, ..connect(V5, "aa") });
        let got = n.recv(c);
        assert_eq!((got.code(), got.reason_string().is_some()), (0x85, with_text));
    }
    let props = ConnectProps { request_problem_info: false, ..ConnectProps::default() };
    let c = n.dial(&Connect { props, ..connect(V5, "aa") });
    assert_eq!(n.recv(c).reason_string(), None);
}

// W16
#[test]
fn a_connect_above_the_packet_size_gets_0x95() {
    let mut n = Node::mqtt(1, |m| m.max_packet_size = 40);
    let fits = raw::connect5(&"x".repeat(25), 2, &[]);
    assert_eq!(fits.len(), 40);
    assert_eq!(connack_code(&mut n, V5, &fits), 0);
    assert_eq!(connack_code(&mut n, V5, &raw::connect5(&"x".repeat(26), 2, &[])), 0x95);
}

// C11, S-92, S-90. [MQTT-3.1.2-21] [MQTT-3.1.2-22] [MQTT-3.2.2-21] [MQTT311-3.1.2-24]
#[test]
fn silence_of_one_and_a_half_keep_alives_ends_the_connection() {
    for shards in [1, 2] {
        for (version, asked, server, after) in
            [(V5, 60, 10, 15_000), (V5, 0, 10, 15_000), (V5, 10, 0, 15_000), (V311, 10, 0, 15_000)]
        {
            let mut n = Node::mqtt(shards, |m| m.server_keep_alive_s = server);
            let a = n.connected(&Connect { keep_alive_s: asked, ..connect(version, "a") }).0;
            n.pass_ms(after - 1);
            assert!(n.is_open(a));
            n.pass_ms(1_001);
            assert_eq!(n.closed(a), (version == V5).then_some(0x8D));
            assert_eq!(n.counters().keepalive_timeout, 1);
        }
    }
}

// S-90, S-91. [MQTT-3.2.2-22] [MQTT-3.12.4-1]
#[test]
fn only_whole_packets_from_the_client_keep_it_alive() {
    let mut n = Node::new(2);
    let (a, b, c) = (
        n.connected(&Connect { keep_alive_s: 10, ..connect(V5, "a") }).0,
        n.connected(&Connect { keep_alive_s: 10, ..connect(V5, "b") }).0,
        n.connected(&Connect { keep_alive_s: 10, ..connect(V5, "c") }).0,
    );
    n.sub(b, "t", 0);
    let p = n.join(V5, "p");
    for i in 0..16 {
        n.ping(a);
        n.send_raw(c, if i == 0 { &[0x30, 100] } else { b"x" }); // a byte a second
        n.put(p, &publish("t", 0, "outbound does not count"));
        n.pass_s(1);
    }
    assert!(n.is_open(a));
    assert_eq!(n.closed(b), Some(0x8D));
    assert_eq!(n.closed(c), Some(0x8D));
}

// S-90
#[test]
fn keep_alive_0_never_ends_a_connection() {
    let mut n = Node::new(1);
    let a = n.join(V311, "a");
    n.pass_s(1_000_000);
    n.ping(a);
}

// C11
#[test]
fn only_a_client_without_keep_alive_is_probed_by_the_kernel() {
    let mut n = Node::mqtt(1, |m| m.keep_alive_max_s = 0);
    for (asked, probed) in [(0, true), (10, false)] {
        let a = n.connected(&Connect { keep_alive_s: asked, ..connect(V5, "a") }).0;
        assert_eq!(n.wires[a].probed, probed, "keep alive {asked}");
    }
    let mut n = Node::mqtt(1, |m| m.server_keep_alive_s = 11);
    let a = n.connected(&Connect { keep_alive_s: 0, ..connect(V5, "a") }).0;
    assert!(!n.wires[a].probed, "the server's own keep-alive holds for it");
}

#[test]
fn keep_alive_bounds_clamp_or_refuse_version_3() {
    let mut n = Node::mqtt(1, |m| m.keep_alive_max_s = 20);
    let a = n.connected(&Connect { keep_alive_s: 100, ..connect(V311, "a") }).0;
    n.pass_ms(31_000);
    assert!(!n.is_open(a));
    let mut n = Node::mqtt(1, |m| {
        m.keep_alive_max_s = 20;
        m.keep_alive_v3_policy = KeepAliveV3Policy::Refuse;
    });
    let c = n.dial(&Connect { keep_alive_s: 100, ..connect(V311, "a") });
    assert_eq!(n.recv(c).bytes, [0x20, 2, 0, 2]);
    n.connected(&Connect { keep_alive_s: 20, ..connect(V311, "a") });
}

// Q15
#[test]
fn the_longest_connection_lifetime_ends_with_0xa0() {
    let mut n = Node::mqtt(2, |m| m.max_connection_lifetime_s = 100);
    let a = n.connected(&Connect { keep_alive_s: 30, ..connect(V5, "a") }).0;
    for _ in 0..99 {
        n.pass_s(1);
        n.ping(a);
    }
    n.pass_ms(2_000);
    assert_eq!(n.closed(a), Some(0xA0));
}

// C18
#[test]
fn the_user_name_can_be_the_client_id() {
    let mut n = Node::mqtt(5, |m| m.use_username_as_client_id = true);
    let a = n.connected(&Connect { username: Some("user"), ..persistent(V5, "x") }).0;
    n.drop_conn(a);
    let b = n.connected(&Connect { username: Some("user"), ..persistent(V5, "y") });
    assert!(b.1);
}

// T15
#[test]
fn connections_above_the_limit_are_refused_and_counted_back() {
    let mut n = Node::with(2, |cfg| cfg.limits.max_connections = 2);
    let (a, _b) = (n.join(V5, "a"), n.join(V5, "b"));
    let c = n.open();
    assert_eq!(n.wires[c].closed, Some(CloseHow::Abort));
    n.drop_conn(a);
    n.join(V5, "c");
    assert_eq!(n.admitted(), 2);
}

// T15
#[test]
fn a_connection_above_the_rate_waits_for_its_turn() {
    let mut n = Node::with(1, |cfg| cfg.listeners[0].max_connection_rate_per_s = 1);
    n.join(V5, "a");
    let wire = n.open();
    assert!(!n.is_read(wire) && !n.accepts(0, 0));
    n.pass_ms(1_100);
    assert!(n.is_read(wire) && n.accepts(0, 0));
}
