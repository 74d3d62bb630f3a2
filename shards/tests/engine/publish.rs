//! PUBLISH from a client: checks, aliases, acknowledgements, exactly once.

use ringmain_mqtt::{Forward, Packet, PacketType, Publish, PublishProps, QoS};
use ringmain_shards::boundary::{Control, Pressure};
use ringmain_shards::engine::config::DenyAction;

use crate::support::*;

fn aliased<'a>(topic: &'a str, alias: u16, payload: &'a str) -> Publish<'a> {
    let props = PublishProps { topic_alias: Some(alias), ..PublishProps::default() };
    Publish { props, ..publish(topic, 0, payload) }
}

// P03. [MQTT-3.3.4-1] [MQTT-2.2.1-5] [MQTT-4.3.2-4] [MQTT-4.3.3-8] [MQTT-4.3.3-11]
// [MQTT311-3.3.4-1] [MQTT311-2.3.1-6]
#[test]
fn a_publish_without_subscribers_gets_0x10_in_version_5_only() {
    for shards in SHARDS {
        for version in VERSIONS {
            let mut n = Node::new(shards);
            let p = n.join(version, "p");
            let expect = if version == V5 { 0x10 } else { 0 };
            assert_eq!(n.put(p, &publish("nobody", 1, "x")), expect);
            assert_eq!(n.put(p, &publish("nobody", 2, "x")), expect);
            assert_eq!(n.put(p, &publish("nobody", 0, "x")), 0);
            n.quiet(p);
            assert_eq!(n.counters().messages_dropped_no_subscribers, 3);
        }
    }
}

// P04, S-53. [MQTT311-3.3.5-2]
#[test]
fn publishing_to_sys_is_not_authorised() {
    for version in [V311, V5] {
        let mut n = Node::new(2);
        let s = n.join(V5, "s");
        n.sub(s, "$SYS/brokers", 2);
        let p = n.join(version, "p");
        let expect = if version == V5 { 0x87 } else { 0 };
        for level in 0..3 {
            let expect = if level == 0 { 0 } else { expect };
            assert_eq!(n.put(p, &publish("$SYS/brokers", level, "forged")), expect);
        }
        n.quiet(s);
        n.quiet(p);
        assert_eq!(n.counters().publish_auth_error, 3);
        let mut n = Node::mqtt(2, |m| m.deny_action = DenyAction::Disconnect);
        let p = n.join(version, "p");
        n.publish(p, &publish("$SYS/brokers", 0, "forged"));
        assert_eq!(n.closed(p), (version == V5).then_some(0x87));
    }
}

// S-53, W15.
#[test]
fn invalid_topics_get_0x90_and_in_version_3_the_end() {
    for topic in ["$share/g/t", "$queue/t", "$exclusive/t", "a/b/c/d"] {
        for level in 0..3 {
            let mut n = Node::mqtt(1, |m| m.max_topic_levels = 3);
            let p = n.join(V5, "p");
            if level == 0 {
                n.publish(p, &publish(topic, 0, "x"));
                assert_eq!(n.closed(p), Some(0x90), "{topic}");
            } else {
                assert_eq!(n.put(p, &publish(topic, level, "x")), 0x90, "{topic}");
                n.ping(p);
            }
            let p = n.join(V311, "p");
            n.publish(p, &publish(topic, level, "x"));
            assert_eq!(n.closed(p), None);
        }
    }
}

// S-52, [MQTT-3.3.2-2] [MQTT-4.7.0-1] [MQTT311-3.3.2-1]
#[test]
fn wildcards_in_a_topic_name_end_the_connection() {
    for version in VERSIONS {
        for topic in ["a/+", "#", "a/#/b"] {
            let mut n = Node::new(1);
            let p = n.join(version, "p");
            n.publish(p, &publish(topic, 1, "x"));
            let code = n.closed(p);
            assert_eq!(code.is_some(), version == V5);
            assert!(code.is_none_or(|c| matches!(c, 0x81 | 0x82 | 0x90)), "{code:?}");
        }
    }
}

// P05, P07. [MQTT-3.3.2-4]
#[test]
fn a_payload_that_claims_to_be_utf_8_is_checked_where_configured() {
    let forward = props(|p| {
        p.payload_format(true);
    });
    let bad = |level| Publish {
        payload: &[0xC0, 0x80],
        props: PublishProps { forward: Forward::from_wire(&forward), ..PublishProps::default() },
        ..publish("t", level, "")
    };
    let mut n = Node::new(2);
    let (s, p) = (n.join(V5, "s"), n.join(V5, "p"));
    n.sub(s, "t", 0);
    assert_eq!(n.put(p, &bad(1)), 0);
    let got = n.msg(s);
    assert_eq!((&got.payload[..], &got.forward[..]), (&[0xC0, 0x80][..], &forward[..]));
    let mut n = Node::mqtt(2, |m| m.check_payload_format = true);
    let p = n.join(V5, "p");
    assert_eq!(n.put(p, &bad(1)), 0x99);
    assert_eq!(n.put(p, &bad(2)), 0x99);
    n.ping(p);
    n.publish(p, &bad(0));
    assert_eq!(n.closed(p), Some(0x99));
}

// P07. [MQTT-3.3.2-15] [MQTT-3.3.2-16] [MQTT-3.3.2-17] [MQTT-3.3.2-18] [MQTT-3.3.2-20]
// [MQTT-2.2.2-1] [MQTT-1.5.7-1]
#[test]
fn properties_reach_every_subscriber_byte_for_byte() {
    for shards in SHARDS {
        let mut n = Node::new(shards);
        let subscribers = n.join_each(V5, "s");
        let old = n.join(V311, "old");
        for s in subscribers.iter().chain([&old]) {
            n.sub(*s, "t", 2);
        }
        let p = n.join(V5, "p");
        let forward = props(|p| {
            p.user("z", "1").content_type("a/b").user("a", "2").correlation(&[0, 255]);
            p.response_topic("reply/to").payload_format(false).user("z", "1").user("", "");
        });
        for level in 0..3 {
            let mut packet = publish("t", level, "x");
            packet.props.forward = Forward::from_wire(&forward);
            // A property that is not forwarded between them, so that they do not lie together.
            packet.props.message_expiry_s = Some(77);
            n.put(p, &packet);
            n.put(p, &publish("t", level, "plain"));
            for s in &subscribers {
                let got = n.msgs(*s);
                assert_eq!(got[0].forward, forward);
                assert_eq!(got[0].expiry, Some(77));
                assert_eq!((got[1].forward.len(), got[1].expiry), (0, None));
            }
            assert_eq!(texts(&n.msgs(old)), ["x", "plain"], "MQTT 3 has no properties");
        }
    }
}

// P11, P07, C17
#[test]
fn what_a_client_may_not_put_into_publish_ends_the_connection() {
    for (properties, codes) in [
        (&[0x0B, 1][..], &[0x82][..]), // Subscription Identifier
        (&[0x23, 0, 0], &[0x94]),      // alias 0 [MQTT-3.3.2-8]
        (&[0x08, 0, 3, b'a', b'/', b'#'], &[0x82, 0x90]), // [MQTT-3.3.2-14]
        (&[0x01, 2], &[0x82]),
        (&[0x02, 0, 0, 0, 1, 0x02, 0, 0, 0, 1], &[0x82]),
        (&[0x11, 0, 0, 0, 1], &[0x81, 0x82]),
    ] {
        let mut n = Node::new(1);
        let p = n.join(V5, "p");
        n.send_raw(p, &raw::packet(0x30, &raw::cat(&[&raw::field(b"t"), &raw::block(properties)])));
        let code = n.closed(p).expect("DISCONNECT");
        assert!(codes.contains(&code), "{properties:02x?}: {code:02x}");
    }
}

// S-25, C05. [MQTT-3.3.2-9] [MQTT-3.3.2-12] [MQTT-3.2.2-17] [MQTT-3.2.2-18]
#[test]
fn aliases_from_1_to_the_maximum_work_and_no_others() {
    let mut n = Node::mqtt(2, |m| m.topic_alias_max = 5);
    let (s, p) = (n.join(V5, "s"), n.join(V5, "p"));
    n.sub(s, "#", 0);
    let topics: Vec<String> = (1..=5).map(|i| format!("topic/{i}")).collect();
    for (i, topic) in topics.iter().enumerate() {
        n.publish(p, &aliased(topic, i as u16 + 1, "set"));
    }
    for alias in 1..=5 {
        n.publish(p, &aliased("", alias, "use"));
    }
    n.publish(p, &aliased("bound/again", 3, "set"));
    n.publish(p, &aliased("", 3, "use"));
    let got = n.msgs(s);
    let seen: Vec<&str> = got.iter().map(|m| m.topic.as_str()).collect();
    let expect: Vec<&str> = topics.iter().chain(&topics).map(String::as_str).collect();
    assert_eq!(seen[..10], expect[..]);
    assert_eq!(seen[10..], ["bound/again", "bound/again"]);
    n.publish(p, &aliased("t", 6, "x"));
    assert_eq!(n.closed(p), Some(0x94));
    let mut n = Node::mqtt(1, |m| m.topic_alias_max = 0);
    let p = n.join(V5, "p");
    n.publish(p, &aliased("t", 1, "x"));
    assert_eq!(n.closed(p), Some(0x94));
}

// S-25
#[test]
fn no_topic_and_no_known_alias_is_a_protocol_error() {
    for packet in [aliased("", 3, "x"), publish("", 0, "x")] {
        let mut n = Node::new(1);
        let p = n.join(V5, "p");
        n.publish(p, &packet);
        assert_eq!(n.closed(p), Some(0x82));
    }
}

// S-26. [MQTT-3.3.2-7]
#[test]
fn aliases_do_not_survive_the_connection() {
    let mut n = Node::new(2);
    let p = n.resume(V5, "p");
    n.publish(p, &aliased("t", 1, "x"));
    n.drop_conn(p);
    let p = n.resume(V5, "p");
    n.publish(p, &aliased("", 1, "x"));
    assert_eq!(n.closed(p), Some(0x82));
}

// S-25, S-33: the alias of a packet counts whatever becomes of its message.
#[test]
fn a_publish_that_is_repeated_or_refused_still_binds_its_alias() {
    let mut n = Node::new(2);
    let s = n.join(V5, "s");
    n.sub(s, "t", 0);
    let p = n.resume(V5, "p");
    n.publish(p, &Publish { packet_id: Some(pid(9)), ..publish("t", 2, "once") });
    n.drop_conn(p);
    let p = n.resume(V5, "p");
    let again = Publish {
        dup: true,
        qos: QoS::ExactlyOnce,
        packet_id: Some(pid(9)),
        ..aliased("t", 1, "once")
    };
    n.publish(p, &again);
    assert_eq!(n.recv(p).name(), "PUBREC");
    n.publish(p, &aliased("", 1, "by alias"));
    assert_eq!(texts(&n.msgs(s)), ["once", "by alias"]);
    n.control(&Control::Pressure(Pressure::High));
    n.publish(p, &Publish { qos: QoS::AtLeastOnce, ..aliased("t", 2, "refused") });
    assert_eq!(n.recv(p).code(), 0x97);
    n.control(&Control::Pressure(Pressure::Normal));
    n.publish(p, &aliased("", 2, "by alias"));
    assert_eq!(texts(&n.msgs(s)), ["by alias"]);
}

// S-29, P04
#[test]
fn an_aliased_topic_passes_the_same_checks() {
    let mut n = Node::new(1);
    let p = n.join(V5, "p");
    n.publish(p, &Publish { qos: QoS::AtLeastOnce, ..aliased("$SYS/x", 1, "x") });
    assert_eq!(n.recv(p).code(), 0x87);
    n.publish(p, &Publish { qos: QoS::AtLeastOnce, ..aliased("", 1, "x") });
    assert_eq!(n.recv(p).code(), 0x87);
}

// C12. [MQTT-3.2.2-11] [MQTT-3.2.2-14] [MQTT-3.2.2-10]
#[test]
fn qos_and_retain_beyond_the_announced_end_the_connection() {
    for max in [QoS::AtMostOnce, QoS::AtLeastOnce] {
        let mut n = Node::mqtt(2, |m| m.max_qos = max);
        let p = n.join(V5, "p");
        assert_eq!(n.sub(p, "t", 2), max as u8, "every subscription is accepted");
        n.publish(p, &publish("t", max as u8 + 1, "x"));
        assert_eq!(n.closed(p), Some(0x9B));
    }
    let mut n = Node::mqtt(1, |m| m.retain_available = false);
    let p = n.join(V5, "p");
    n.publish(p, &retained("t", 0, "x"));
    assert_eq!(n.closed(p), Some(0x9A));
}

// W16. [MQTT-3.2.2-15]
#[test]
fn a_packet_of_the_limit_is_taken_and_one_byte_more_is_not() {
    for shards in [1, 2] {
        let mut n = Node::mqtt(shards, |m| m.max_packet_size = 1_000);
        let (s, p) = (n.join(V5, "s"), n.join(V5, "p"));
        n.sub(s, "t", 0);
        let body = "x".repeat(1_000 - 3 - 3 - 1);
        n.publish(p, &publish("t", 0, &body));
        assert_eq!(n.msg(s).payload.len(), body.len());
        // Only the header is sent: that is enough, and nothing is allocated.
        n.send_raw(p, &[0x30, 0xE6, 0x07]);
        assert_eq!(n.closed(p), Some(0x95));
    }
}

// S-24, C03. [MQTT-3.3.4-7]
#[test]
fn exceeding_receive_maximum_ends_with_0x93() {
    let mut n = Node::mqtt(2, |m| m.receive_maximum = 2);
    let p = n.join(V5, "p");
    n.publish(p, &publish("t", 2, "1"));
    n.publish(p, &publish("t", 2, "2"));
    n.ack(p, PacketType::PubRel, 1);
    n.publish(p, &publish("t", 2, "3"));
    let names: Vec<_> = n.recv_all(p).iter().map(Got::name).collect();
    assert_eq!(names, ["PUBREC", "PUBREC", "PUBCOMP", "PUBREC"]);
    n.publish(p, &publish("t", 2, "4"));
    assert_eq!(n.closed(p), Some(0x93));
}

// D8
#[test]
fn lenient_receive_maximum_counts_instead() {
    let mut n = Node::mqtt(2, |m| {
        m.receive_maximum = 1;
        m.lenient_receive_maximum = true;
    });
    let p = n.join(V5, "p");
    n.publish(p, &publish("t", 2, "1"));
    n.publish(p, &publish("t", 2, "2"));
    assert!(n.is_open(p));
    assert_eq!(n.counters().receive_maximum_lenient, 1);
}

// P22
#[test]
fn too_many_unreleased_ids_are_refused_and_time_out() {
    let mut n = Node::mqtt(2, |m| {
        m.max_awaiting_rel = 2;
        m.await_rel_timeout_s = 300;
    });
    let s = n.join(V5, "s");
    n.sub(s, "t", 0);
    let p = n.join(V5, "p");
    n.publish(p, &publish("t", 2, "1"));
    n.publish(p, &publish("t", 2, "2"));
    n.publish(p, &publish("t", 2, "3"));
    let codes: Vec<u8> = n.recv_all(p).iter().map(Got::code).collect();
    assert_eq!(codes, [0, 0, 0x97]);
    n.pass_s(301);
    n.publish(p, &publish("t", 2, "4"));
    assert_eq!(n.recv(p).code(), 0);
    assert_eq!(texts(&n.msgs(s)), ["1", "2", "4"]);
    // An id that timed out and comes again with DUP was delivered already.
    n.publish(p, &Publish { dup: true, packet_id: Some(pid(1)), ..publish("t", 2, "1") });
    assert_eq!(n.recv(p).code(), 0);
    n.quiet(s);
    let old = n.join(V311, "old");
    for i in 0..3 {
        n.publish(old, &publish("t", 2, &i.to_string()));
    }
    assert_eq!(n.closed(old), None, "3.1.1 has no code for it");
}

// Q08, L05
#[test]
fn short_of_memory_qos_0_is_dropped_and_the_rest_refused() {
    let mut n = Node::new(2);
    let (s, p) = (n.join(V5, "s"), n.join(V5, "p"));
    n.sub(s, "t", 2);
    n.control(&Control::Pressure(Pressure::High));
    assert_eq!(n.put(p, &publish("t", 0, "x")), 0);
    assert_eq!(n.put(p, &publish("t", 1, "x")), 0x97);
    assert_eq!(n.put(p, &publish("t", 2, "x")), 0x97);
    n.quiet(s);
    n.control(&Control::Pressure(Pressure::Normal));
    assert_eq!(n.put(p, &publish("t", 2, "y")), 0);
    assert_eq!(texts(&n.msgs(s)), ["y"]);
}

// S-33. [MQTT-4.3.3-10] [MQTT-4.3.3-12] [MQTT-4.3.2-5]
#[test]
fn repeats_before_pubrel_are_acknowledged_and_delivered_once() {
    for shards in SHARDS {
        for version in VERSIONS {
            let mut n = Node::new(shards);
            let s = n.join(V5, "s");
            n.sub(s, "t", 2);
            let mut p = n.resume(version, "p");
            for i in 0..7 {
                let dup = i % 2 == 1;
                n.publish(p, &Publish { dup, packet_id: Some(pid(5)), ..publish("t", 2, "x") });
                let got = n.recv(p);
                assert!(matches!(got.packet(), Packet::PubRec(a) if a.packet_id == pid(5)));
                assert_eq!(got.code(), 0);
                if i == 4 {
                    n.drop_conn(p);
                    p = n.resume(version, "p");
                }
            }
            assert_eq!(texts(&n.msgs(s)), ["x"]);
            n.ack(p, PacketType::PubRel, 5);
            assert_eq!(n.recv(p).code(), 0); // S-35
            n.publish(p, &Publish { packet_id: Some(pid(5)), ..publish("t", 2, "new") });
            n.publish(p, &Publish { packet_id: Some(pid(6)), ..publish("t", 1, "a") });
            n.publish(p, &Publish { packet_id: Some(pid(6)), ..publish("t", 1, "a") });
            assert_eq!(texts(&n.msgs(s)), ["new", "a", "a"]);
        }
    }
}

// S-34. [MQTT-4.3.3-9]
#[test]
fn an_id_is_free_after_a_refusing_pubrec() {
    let mut n = Node::new(2);
    let (s, p) = (n.join(V5, "s"), n.join(V5, "p"));
    n.sub(s, "t", 2);
    n.publish(p, &Publish { packet_id: Some(pid(5)), ..publish("$SYS/t", 2, "x") });
    assert_eq!(n.recv(p).code(), 0x87);
    n.publish(p, &Publish { packet_id: Some(pid(5)), ..publish("t", 2, "new") });
    assert_eq!(n.recv(p).code(), 0);
    assert_eq!(texts(&n.msgs(s)), ["new"]);
}

// S-35
#[test]
fn pubrel_of_an_unknown_id_gets_0x92() {
    for version in VERSIONS {
        let mut n = Node::new(1);
        let p = n.join(version, "p");
        n.ack(p, PacketType::PubRel, 77);
        let got = n.recv(p);
        assert!(matches!(got.packet(), Packet::PubComp(a) if a.packet_id == pid(77)));
        assert_eq!(got.code(), if version == V5 { 0x92 } else { 0 });
    }
}

// Packet Identifier in use: an id that a QoS 2 handshake holds is not free for others.
#[test]
fn an_id_that_is_in_use_gets_0x91_in_version_5() {
    let mut n = Node::new(2);
    let p = n.join(V5, "p");
    n.publish(p, &Publish { packet_id: Some(pid(1)), ..publish("t", 2, "x") });
    assert_eq!(n.recv(p).name(), "PUBREC");
    n.publish(p, &Publish { packet_id: Some(pid(1)), ..publish("t", 1, "x") });
    let got = n.recv(p);
    assert_eq!((got.name(), got.code()), ("PUBACK", 0x91));
    let mut bytes = Vec::new();
    ringmain_mqtt::encode::subscribe(
        &mut bytes,
        V5,
        pid(1),
        None,
        &[("a", sub_opts(0)), ("b", sub_opts(0))],
    );
    n.send_raw(p, &bytes);
    assert_eq!(n.recv(p).codes(), [0x91, 0x91]);
    bytes.clear();
    ringmain_mqtt::encode::unsubscribe(&mut bytes, V5, pid(1), &["a"]);
    n.send_raw(p, &bytes);
    let got = n.recv(p);
    assert_eq!((got.name(), got.codes()), ("UNSUBACK", vec![0x91]));
    assert_eq!(n.gauges().subscriptions, 0);
    // The handshake that holds it goes on.
    n.ack(p, PacketType::PubRel, 1);
    assert_eq!(n.recv(p).code(), 0);
    n.publish(p, &Publish { packet_id: Some(pid(1)), ..publish("t", 1, "x") });
    assert_eq!(n.recv(p).code(), 0x10);
}

// S-82. [MQTT-4.6.0-2] [MQTT-4.6.0-3] [MQTT-4.6.0-4]
#[test]
fn acknowledgements_come_in_the_order_of_what_they_acknowledge() {
    for shards in SHARDS {
        let mut n = Node::new(shards);
        let subscribers = n.join_each(V5, "s");
        for s in subscribers {
            n.sub(s, "t", 2);
        }
        let p = n.join(V5, "p");
        let mut bytes = Vec::new();
        for id in 1..=20 {
            let packet =
                Publish { packet_id: Some(pid(id)), ..publish("t", 1 + (id % 2) as u8, "x") };
            packet.encode(&mut bytes, V5);
        }
        n.send_raw(p, &bytes);
        let ids = |got: &[Got], kind: &str| -> Vec<u16> {
            let of = got.iter().filter(|g| g.name() == kind);
            of.map(|g| u16::from_be_bytes([g.bytes[2], g.bytes[3]])).collect()
        };
        let got = n.recv_all(p);
        assert_eq!(ids(&got, "PUBACK"), (1..=20).filter(|i| i % 2 == 0).collect::<Vec<_>>());
        assert_eq!(ids(&got, "PUBREC"), (1..=20).filter(|i| i % 2 == 1).collect::<Vec<_>>());
        for id in [3, 1, 19, 5] {
            n.ack(p, PacketType::PubRel, id);
        }
        assert_eq!(ids(&n.recv_all(p), "PUBCOMP"), [3, 1, 19, 5]);
    }
}

// S-11, P06. [MQTT-3.3.2-6]
#[test]
fn the_expiry_that_is_forwarded_is_what_is_left() {
    for shards in SHARDS {
        let mut n = Node::new(shards);
        let s = n.resume(V5, "s");
        n.sub(s, "t", 1);
        n.drop_conn(s);
        let p = n.join(V5, "p");
        for (payload, expiry) in [("a", Some(100)), ("b", Some(3)), ("c", None), ("d", Some(4))] {
            let mut packet = publish("t", 1, payload);
            packet.props.message_expiry_s = expiry;
            n.put(p, &packet);
        }
        n.pass_ms(3_500);
        let s = n.resume(V5, "s");
        let got: Vec<_> = n.msgs(s).iter().map(|m| (m.text().to_owned(), m.expiry)).collect();
        // S-12. [MQTT-3.3.2-5]
        assert_eq!(got, [("a".into(), Some(97)), ("c".into(), None), ("d".into(), Some(1))]);
        assert_eq!(n.counters().delivery_dropped_expired, 1);
        // 0: it expires at once.
        let mut packet = publish("t", 1, "zero");
        packet.props.message_expiry_s = Some(0);
        n.put(p, &packet);
        n.quiet(s);
    }
}

// P06
#[test]
fn a_default_expiry_applies_and_is_not_shown() {
    let mut n = Node::mqtt(2, |m| {
        m.message_expiry_default_s = 60;
        m.message_expiry_max_s = 80;
    });
    let s = n.resume(V5, "s");
    n.sub(s, "t", 1);
    let p = n.join(V5, "p");
    n.put(p, &publish("t", 1, "live"));
    assert_eq!(n.msgs(s)[0].expiry, None);
    let mut capped = publish("t", 1, "capped");
    capped.props.message_expiry_s = Some(100);
    n.put(p, &capped);
    assert_eq!(n.msgs(s)[0].expiry, Some(80));
    n.drop_conn(s);
    n.put(p, &publish("t", 1, "old"));
    n.pass_s(61);
    let s = n.resume(V5, "s");
    n.quiet(s);
}

// P02
#[test]
fn upgrade_qos_delivers_at_the_qos_of_the_subscription() {
    let mut n = Node::mqtt(2, |m| m.upgrade_qos = true);
    let (s, p) = (n.join(V5, "s"), n.join(V5, "p"));
    n.sub(s, "t", 2);
    n.put(p, &publish("t", 0, "x"));
    assert_eq!(n.msgs(s)[0].qos, 2);
}

// Back-pressure: a publisher to a shard whose mailbox is full is not read.
#[test]
fn a_full_lane_pauses_its_publishers_until_it_drains() {
    let mut n = Node::new(2);
    let (far, here) = (n.id_on(1, "s"), n.id_on(0, "p"));
    let (s, p) = (n.join(V5, &far), n.join(V5, &here));
    n.sub(s, "t", 1);
    n.lanes_full(0, 1, true);
    n.publish(p, &publish("t", 0, "1"));
    assert!(!n.is_read(n.clients[p].wire));
    n.publish(p, &publish("t", 0, "2"));
    assert_eq!(texts(&n.msgs(s)), ["1"]);
    n.lanes_full(0, 1, false);
    assert_eq!(texts(&n.msgs(s)), ["2"]);
}

// Q08, L05
#[test]
fn critical_memory_pauses_publishers() {
    let mut n = Node::new(1);
    let p = n.join(V5, "p");
    n.control(&Control::Pressure(Pressure::Critical));
    n.publish(p, &publish("t", 1, "1"));
    assert!(n.is_open(p));
    n.control(&Control::Pressure(Pressure::Normal));
    assert!(n.is_read(n.clients[p].wire));
}

// Q08. What is not accepted must not be acknowledged, and version 3 has no other word for it.
// [MQTT311-4.8.0-2]
#[test]
fn short_of_memory_a_version_3_publisher_is_closed() {
    for level in [1, 2] {
        let mut n = Node::new(2);
        let p = n.join(V311, "p");
        n.control(&Control::Pressure(Pressure::High));
        n.publish(p, &publish("t", 0, "dropped"));
        n.quiet(p);
        n.publish(p, &publish("t", level, "refused"));
        assert_eq!(n.closed(p), None);
    }
}
