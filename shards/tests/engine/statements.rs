//! Statements of the standard that no other scenario decides.

use ringmain_mqtt::{Ack, Connect, ConnectProps, Packet, PacketType, ReasonCode, UserProps};

use crate::support::*;

// C07, S-31. The broker's acknowledgements carry no Reason String and no User Property at all, so
// none is ever too large for them, and none goes to a client that declined them.
// [MQTT-3.1.2-29] [MQTT-3.4.2-2] [MQTT-3.4.2-3] [MQTT-3.5.2-2] [MQTT-3.5.2-3] [MQTT-3.6.2-2]
// [MQTT-3.6.2-3] [MQTT-3.7.2-2] [MQTT-3.7.2-3] [MQTT-3.9.2-1] [MQTT-3.9.2-2] [MQTT-3.11.2-1]
// [MQTT-3.11.2-2]
#[test]
fn acknowledgements_are_bare_whatever_they_say() {
    for wants in [true, false] {
        let mut n = Node::new(2);
        let props = ConnectProps {
            request_problem_info: wants,
            maximum_packet_size: Some(20),
            ..ConnectProps::default()
        };
        let a = n.connected(&Connect { props, ..connect(V5, "a") }).0;
        for level in [1, 2] {
            n.publish(a, &publish("nobody", level, "x"));
            n.publish(a, &publish("$SYS/x", level, "x"));
        }
        n.ack(a, PacketType::PubRel, 999);
        n.ack(a, PacketType::PubRec, 998);
        n.subscribe(a, &[("a/#/b", sub_opts(1))], None);
        n.send_raw(a, &raw::packet(0xA2, &raw::cat(&[&[0, 9, 0], &raw::field(b"nope")])));
        let got = n.recv_all(a);
        let mut names: Vec<_> = got.iter().map(Got::name).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names, ["PUBACK", "PUBCOMP", "PUBREC", "PUBREL", "SUBACK", "UNSUBACK"]);
        for g in got {
            assert!(g.bytes.len() <= 20);
            assert_eq!(g.reason_string(), None, "{g:?}");
            assert!(g.code() != 0, "each says what is wrong: {g:?}");
            let user = match g.packet() {
                Packet::PubAck(p) | Packet::PubRec(p) | Packet::PubRel(p) | Packet::PubComp(p) => {
                    p.user
                }
                Packet::SubAck(p) | Packet::UnsubAck(p) => p.user,
                other => panic!("{other:?}"),
            };
            assert!(user.is_empty());
        }
    }
}

// C13, S-31. [MQTT-3.14.2-3]
#[test]
fn the_reason_string_of_disconnect_is_omitted_where_it_does_not_fit_or_is_declined() {
    let full = {
        let mut n = Node::new(1);
        let a = n.join(V5, "a");
        n.send_raw(a, &[0xF0, 0]);
        n.recv(a)
    };
    assert!(full.reason_string().is_some());
    let len = full.bytes.len() as u32;
    for (max, problem_info, text) in
        [(len, true, true), (len - 1, true, false), (len, false, false)]
    {
        let mut n = Node::new(1);
        let props = ConnectProps {
            maximum_packet_size: Some(max),
            request_problem_info: problem_info,
            ..ConnectProps::default()
        };
        let a = n.connected(&Connect { props, ..connect(V5, "a") }).0;
        n.send_raw(a, &[0xF0, 0]);
        let got = n.recv(a);
        assert_eq!((got.code(), got.reason_string().is_some()), (0x82, text));
    }
}

// [MQTT-3.14.0-1] [MQTT-4.13.2-1]
#[test]
fn before_connack_there_is_no_disconnect() {
    let mut n = Node::new(2);
    let early = n.dial_raw(V5, &[0x10, 200]);
    let bad = n.dial_raw(V5, &raw::connect5("a", 0b11, &[]));
    n.control(&ringmain_shards::boundary::Control::Drain);
    assert!(n.recv_all(early).is_empty());
    let names: Vec<_> = n.recv_all(bad).iter().map(Got::name).collect();
    assert_eq!(names, ["CONNACK"]);
    assert!(!n.is_open(early) && !n.is_open(bad));
}

// [MQTT-2.2.1-2] [MQTT311-2.3.1-5]
#[test]
fn a_qos_0_publish_has_no_packet_id_either_way() {
    for version in VERSIONS {
        let mut n = Node::new(1);
        let a = n.join(version, "a");
        n.sub(a, "t", 2);
        n.publish(a, &publish("t", 0, "\u{0}\u{1}payload"));
        let got = n.recv(a);
        let empty: &[u8] = if version == V5 { &[0] } else { &[] };
        let body = raw::cat(&[&raw::field(b"t"), empty, b"\0\x01payload"]);
        assert_eq!(got.bytes, raw::packet(0x30, &body));
    }
}

// An acknowledgement in the wrong place changes nothing.
#[test]
fn acknowledgements_of_the_wrong_kind_or_id_are_ignored_and_counted() {
    for version in VERSIONS {
        let mut n = Node::new(2);
        let (s, p) = (n.resume(version, "s"), n.join(V5, "p"));
        n.sub(s, "t", 2);
        n.put(p, &publish("t", 1, "1"));
        n.put(p, &publish("t", 2, "2"));
        let (one, two) = (n.msg(s).id, n.msg(s).id);
        n.ack(s, PacketType::PubAck, two);
        n.ack(s, PacketType::PubRec, one);
        n.ack(s, PacketType::PubComp, one);
        n.ack(s, PacketType::PubComp, two);
        n.ack(s, PacketType::PubAck, 4_000);
        n.ack(s, PacketType::PubComp, 4_000);
        n.quiet(s);
        assert_eq!(n.gauges().inflight, 2);
        let c = n.counters();
        assert_eq!((c.puback_inuse, c.pubrec_inuse, c.pubcomp_inuse), (1, 1, 2));
        assert_eq!((c.puback_missed, c.pubcomp_missed), (1, 1));
        n.ack(s, PacketType::PubAck, one);
        n.ack(s, PacketType::PubRec, two);
        assert_eq!(n.recv(s).name(), "PUBREL");
        n.ack(s, PacketType::PubComp, two);
        assert_eq!(n.gauges().inflight, 0);
    }
}

// An unknown id in PUBREC gets PUBREL 0x92.
#[test]
fn pubrec_of_an_unknown_id_gets_pubrel_0x92() {
    let mut n = Node::new(1);
    let a = n.join(V5, "a");
    n.ack(a, PacketType::PubRec, 5);
    let got = n.recv(a);
    assert_eq!((got.name(), got.code()), ("PUBREL", 0x92));
}

// Reason Strings and User Properties of the client's acknowledgements are taken and change nothing.
#[test]
fn properties_of_a_clients_acknowledgement_are_taken() {
    let mut n = Node::new(1);
    let (s, p) = (n.join(V5, "s"), n.join(V5, "p"));
    n.sub(s, "t", 1);
    n.put(p, &publish("t", 1, "x"));
    let id = n.msg(s).id;
    let user = props(|p| {
        p.user("k", "v").user("k", "v");
    });
    let ack = Ack {
        packet_id: pid(id),
        reason: ReasonCode(0x10),
        reason_string: Some("why not"),
        user: UserProps::from_wire(&user),
    };
    n.send(s, &Packet::PubAck(ack));
    n.quiet(s);
    assert_eq!(n.gauges().inflight, 0);
}

// W01: 3.1 may set DUP when it sends SUBSCRIBE again.
#[test]
fn version_3_1_may_repeat_subscribe_with_dup() {
    let mut n = Node::new(1);
    let a = n.join(V31, "a");
    let body = raw::cat(&[&[0, 1], &raw::field(b"t"), &[1]]);
    n.send_raw(a, &raw::packet(0x8A, &body));
    assert_eq!(n.recv(a).codes(), [1]);
}

// PINGREQ in every version. [MQTT-3.12.4-1] [MQTT311-3.12.4-1]
#[test]
fn a_ping_is_answered_in_every_version() {
    for version in VERSIONS {
        let mut n = Node::new(2);
        let a = n.join(version, "a");
        n.ping(a);
    }
}

// What comes behind DISCONNECT is not processed; what came before is. S-93
// [MQTT311-3.14.4-3]
#[test]
fn packets_before_disconnect_count_and_those_behind_do_not() {
    for version in VERSIONS {
        let mut n = Node::new(2);
        let s = n.join(V5, "s");
        n.sub(s, "t", 1);
        let a =
            n.connected(&Connect { will: Some(will("t", "gone", 0)), ..connect(version, "a") }).0;
        let mut bytes = Vec::new();
        publish("t", 0, "before").encode(&mut bytes, version);
        Packet::Disconnect(ringmain_mqtt::Disconnect::default()).encode(&mut bytes, version);
        publish("t", 0, "behind").encode(&mut bytes, version);
        n.send_raw(a, &bytes);
        assert!(!n.is_open(a));
        assert_eq!(texts(&n.msgs(s)), ["before"]);
        assert!(n.recv_all(a).is_empty());
    }
}
