//! PUBLISH, SUBSCRIBE and what answers them, byte for byte (C07, C13, P07, P11, P13, S-25, S-31,
//! S-32, S-49).

mod common;

use common::{block, cat, field, one, packet, reason};
use ringmain_mqtt::{
    Ack, Auth, ConnAck, Disconnect, Forward, Packet, PacketId, PacketType, PublishOut, QoS,
    ReasonCode, RetainHandling, Role, SubAck, SubscribeOptions, UserProps, Version, encode,
    property::PropertyWriter,
};

const V: [Version; 3] = [Version::V31, Version::V311, Version::V5];

fn id(value: u16) -> PacketId {
    PacketId::new(value).unwrap()
}

#[test]
fn s25_an_empty_topic_needs_an_alias_and_mqtt_5() {
    let no_alias = packet(0x30, b"\0\0\0");
    assert_eq!(reason(one(&no_alias, Version::V5, Role::Server)), ReasonCode::PROTOCOL_ERROR);
    assert!(one(&packet(0x30, b"\0\0"), Version::V311, Role::Server).is_err());
    let alias = packet(0x30, b"\0\0\x03\x23\0\x05hi");
    let Ok(Packet::Publish(p)) = one(&alias, Version::V5, Role::Server) else { panic!() };
    assert_eq!((p.topic, p.props.topic_alias, p.payload), ("", Some(5), &b"hi"[..]));
}

#[test]
fn s52_a_wildcard_in_a_published_topic_is_refused() {
    // [MQTT-3.3.2-2]
    for topic in ["a/#", "+", "a+b", "#"] {
        let v5 = packet(0x30, &cat(&[&field(topic.as_bytes()), &[0]]));
        assert_eq!(reason(one(&v5, Version::V5, Role::Server)), ReasonCode::TOPIC_NAME_INVALID);
        let v3 = packet(0x30, &field(topic.as_bytes()));
        assert_eq!(reason(one(&v3, Version::V311, Role::Server)), ReasonCode::MALFORMED_PACKET);
    }
}

#[test]
fn packet_identifiers_are_not_zero() {
    // [MQTT-2.2.1-3]
    for bytes in [
        packet(0x32, b"\0\x01t\0\0\0"),
        packet(0x34, b"\0\x01t\0\0\0"),
        packet(0x40, b"\0\0"),
        packet(0x50, b"\0\0"),
        packet(0x62, b"\0\0"),
        packet(0x70, b"\0\0"),
        packet(0x82, b"\0\0\0\0\x01t\0"),
        packet(0xA2, b"\0\0\0\0\x01t"),
    ] {
        assert_eq!(reason(one(&bytes, Version::V5, Role::Server)), ReasonCode::PROTOCOL_ERROR);
    }
    assert_eq!(PacketId::new(0), None);
}

#[test]
fn mqtt_3_acknowledgements_are_exactly_an_identifier() {
    for first in [0x40, 0x50, 0x62, 0x70] {
        for v in [Version::V31, Version::V311] {
            assert!(one(&packet(first, &[0, 7]), v, Role::Server).is_ok());
            assert!(one(&packet(first, &[0, 7, 0]), v, Role::Server).is_err());
        }
        for short in [&[][..], &[0]] {
            assert!(one(&packet(first, short), Version::V5, Role::Server).is_err());
        }
    }
}

#[test]
fn mqtt_5_acknowledgements_have_three_lengths() {
    for (body, code) in
        [(&[0, 7][..], 0), (&[0, 7, 0x92], 0x92), (&[0, 7, 0x92, 0], 0x92), (&[0, 7, 0, 0], 0)]
    {
        let bytes = packet(0x62, body);
        let Ok(Packet::PubRel(p)) = one(&bytes, Version::V5, Role::Server) else { panic!() };
        assert_eq!((p.packet_id.get(), p.reason.0), (7, code));
    }
}

#[test]
fn p13_a_thousand_filters_are_read_in_order() {
    let mut body = vec![0, 7, 0];
    let names: Vec<String> = (0..1000).map(|i| format!("f/{i}")).collect();
    for (i, name) in names.iter().enumerate() {
        body.extend(cat(&[&field(name.as_bytes()), &[(i % 3) as u8]]));
    }
    let bytes = packet(0x82, &body);
    let Ok(Packet::Subscribe(p)) = one(&bytes, Version::V5, Role::Server) else { panic!() };
    assert_eq!(p.filters.len(), 1000);
    let read: Vec<_> = p.filters.iter().map(|(f, o)| (f.to_owned(), o.qos as usize)).collect();
    let expected: Vec<_> = names.into_iter().enumerate().map(|(i, n)| (n, i % 3)).collect();
    assert_eq!(read, expected);
}

#[test]
fn p13_filters_with_bad_syntax_reach_the_broker_for_their_own_code() {
    for filter in ["", "a#", "#/a", "a+/b", "$share/g", "$share//t"] {
        let subscribe = packet(0x82, &cat(&[&[0, 7, 0], &field(filter.as_bytes()), &[0]]));
        assert!(one(&subscribe, Version::V5, Role::Server).is_ok(), "{filter}");
        let unsubscribe = packet(0xA2, &cat(&[&[0, 7, 0], &field(filter.as_bytes())]));
        assert!(one(&unsubscribe, Version::V5, Role::Server).is_ok(), "{filter}");
    }
}

#[test]
fn subscribe_and_unsubscribe_need_a_filter() {
    for v in V {
        let body: &[u8] = if v.is_v5() { &[0, 7, 0] } else { &[0, 7] };
        for (first, statement) in [(0x82, "MQTT-3.8.3-2"), (0xA2, "MQTT-3.10.3-2")] {
            let bytes = packet(first, body);
            let error = one(&bytes, v, Role::Server).unwrap_err();
            assert_eq!(error.reason, ReasonCode::PROTOCOL_ERROR);
            assert_eq!(error.statement, statement);
        }
    }
}

#[test]
fn s49_every_options_byte_is_accepted_or_refused_as_the_version_says() {
    for byte in 0..=0xFFu8 {
        for v in V {
            let properties: &[u8] = if v.is_v5() { &[0] } else { &[] };
            let bytes = packet(0x82, &cat(&[&[0, 7], properties, b"\0\x01t", &[byte]]));
            let result = one(&bytes, v, Role::Server);
            let expected = match v {
                _ if byte & 3 == 3 => Err(ReasonCode::MALFORMED_PACKET),
                Version::V31 => Ok(byte & 3),
                Version::V311 if byte > 2 => Err(ReasonCode::MALFORMED_PACKET),
                Version::V311 => Ok(byte),
                // [MQTT-3.8.3-5]
                Version::V5 if byte & 0xC0 != 0 => Err(ReasonCode::MALFORMED_PACKET),
                // S-40
                Version::V5 if byte >> 4 == 3 => Err(ReasonCode::PROTOCOL_ERROR),
                Version::V5 => Ok(byte),
            };
            let got = match result {
                Ok(Packet::Subscribe(p)) => Ok(p.filters.iter().next().unwrap().1.to_byte()),
                Ok(other) => panic!("{other:?}"),
                Err(error) => Err(error.reason),
            };
            assert_eq!(got, expected, "{byte:#010b} in {v:?}");
        }
    }
    let options = SubscribeOptions::from_byte(0b10_1110).unwrap();
    assert_eq!(
        options,
        SubscribeOptions {
            qos: QoS::ExactlyOnce,
            no_local: true,
            retain_as_published: true,
            retain_handling: RetainHandling::DoNotSend,
        }
    );
}

#[test]
fn s49_no_local_on_a_shared_subscription_is_a_protocol_error() {
    // [MQTT-3.8.3-4]
    let bytes = packet(0x82, &cat(&[&[0, 7, 0], &field(b"$share/g/t"), &[0b101]]));
    assert_eq!(reason(one(&bytes, Version::V5, Role::Server)), ReasonCode::PROTOCOL_ERROR);
    for (filter, options) in [(&b"$share/g/t"[..], 1), (b"share/g/t", 0b101), (b"$shared/t", 0b101)]
    {
        let bytes = packet(0x82, &cat(&[&[0, 7, 0], &field(filter), &[options]]));
        assert!(one(&bytes, Version::V5, Role::Server).is_ok());
    }
}

fn out<'a>(topic: &'a str, qos: QoS, forward: Forward<'a>, payload: &[u8]) -> PublishOut<'a> {
    PublishOut {
        dup: false,
        qos,
        retain: false,
        topic,
        packet_id: 7,
        message_expiry_s: None,
        topic_alias: None,
        subscription_ids: &[],
        forward,
        payload_len: payload.len(),
    }
}

#[test]
fn a_head_is_laid_out_as_it_says_and_can_be_patched_for_each_subscriber() {
    let mut properties = Vec::new();
    PropertyWriter::new(&mut properties).content_type("ct").user("k", "v");
    for v in V {
        for qos in [QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce] {
            for payload in [&b""[..], &[0xAA; 100], &[0xBB; 20_000]] {
                let publish = PublishOut {
                    message_expiry_s: Some(60),
                    topic_alias: Some(9),
                    subscription_ids: &[1, 300, 268_435_455],
                    ..out("a/b", qos, Forward::from_wire(&properties), payload)
                };
                // The head does not begin the buffer: offsets count from its own start.
                let mut bytes = vec![0xEE; 3];
                let layout = publish.encode_head(&mut bytes, v);
                let mut bytes = bytes.split_off(3);
                assert_eq!((layout.len, bytes.len()), (bytes.len(), publish.head_len(v)));
                assert_eq!(&bytes[layout.topic_at..][..3], b"a/b");
                assert_eq!(layout.packet_id_at.is_some(), qos != QoS::AtMostOnce);
                assert_eq!(layout.message_expiry_at.is_some(), v.is_v5());
                layout.patch_packet_id(&mut bytes, id(0x1234));
                layout.patch_message_expiry(&mut bytes, 42);
                layout.patch_dup(&mut bytes);
                bytes.extend_from_slice(payload);
                assert_eq!(bytes.len(), publish.total_len(v));
                let packet = one(&bytes, v, Role::Client);
                let Ok(Packet::Publish(p)) = packet else { panic!("{packet:?}") };
                assert_eq!((p.topic, p.qos, p.payload), ("a/b", qos, payload));
                let patched = (qos != QoS::AtMostOnce).then(|| id(0x1234));
                assert_eq!((p.packet_id, p.dup), (patched, patched.is_some()));
                if v.is_v5() {
                    assert_eq!(p.props.message_expiry_s, Some(42));
                    assert_eq!(p.props.topic_alias, Some(9));
                    assert!(p.props.subscription_ids.iter().eq([1, 300, 268_435_455]));
                    assert_eq!(p.props.forward, Forward::from_wire(&properties));
                    assert_eq!(p.props.content_type, Some("ct"));
                } else {
                    // S-07: MQTT 3 copies carry no property.
                    assert_eq!(p.props, ringmain_mqtt::PublishProps::default());
                }
            }
        }
    }
}

#[test]
fn s32_total_len_is_exact_where_lengths_gain_a_byte() {
    for v in V {
        for payload in (90..140).chain(16_340..16_400) {
            let payload = vec![0; payload];
            for users in 0..40 {
                let mut properties = Vec::new();
                for _ in 0..users {
                    PropertyWriter::new(&mut properties).user("", "");
                }
                let publish = out("t", QoS::AtLeastOnce, Forward::from_wire(&properties), &payload);
                let mut bytes = Vec::new();
                publish.encode_head(&mut bytes, v);
                assert_eq!(bytes.len() + payload.len(), publish.total_len(v));
            }
        }
    }
}

#[test]
fn the_short_acknowledgements_are_the_shortest_bytes() {
    let encode = |v, code, why| {
        let mut out = Vec::new();
        encode::ack(&mut out, v, PacketType::PubRel, id(0x0102), ReasonCode(code), why);
        out
    };
    assert_eq!(encode(Version::V5, 0, None), [0x62, 2, 1, 2]);
    assert_eq!(encode(Version::V5, 0x92, None), [0x62, 3, 1, 2, 0x92]);
    assert_eq!(encode(Version::V311, 0x92, None), [0x62, 2, 1, 2]);
    assert_eq!(encode(Version::V311, 0x92, Some("why")), [0x62, 2, 1, 2]);
    assert_eq!(
        encode(Version::V5, 0x92, Some("why")),
        [0x62, 10, 1, 2, 0x92, 6, 0x1F, 0, 3, b'w', b'h', b'y']
    );
    let mut out = Vec::new();
    encode::pingreq(&mut out);
    encode::pingresp(&mut out);
    Disconnect::default().encode(&mut out, Version::V5);
    Disconnect { reason: ReasonCode::SERVER_BUSY, ..Disconnect::default() }
        .encode(&mut out, Version::V5);
    Disconnect { reason: ReasonCode::SERVER_BUSY, ..Disconnect::default() }
        .encode(&mut out, Version::V311);
    assert_eq!(out, [0xC0, 0, 0xD0, 0, 0xE0, 0, 0xE0, 1, 0x89, 0xE0, 0]);
}

#[test]
fn connack_in_each_version() {
    let packet = ConnAck { session_present: true, receive_maximum: Some(10), ..ConnAck::default() };
    for (v, expected) in [
        (Version::V31, &[0x20, 2, 0, 0][..]),
        (Version::V311, &[0x20, 2, 1, 0]),
        (Version::V5, &[0x20, 6, 1, 0, 3, 0x21, 0, 10]),
    ] {
        let mut out = Vec::new();
        packet.encode(&mut out, v);
        assert_eq!(out, expected, "{v:?}");
        assert_eq!(packet.wire_len(v), expected.len());
    }
    // [MQTT-3.2.2-6] [MQTT-3.2.2-1]
    assert!(one(&common::packet(0x20, &[1, 0x87, 0]), Version::V5, Role::Client).is_err());
    assert!(one(&common::packet(0x20, &[2, 0, 0]), Version::V5, Role::Client).is_err());
}

/// Encodes within every limit, and says at which sizes the packet changes its form.
fn forms(encode_within: impl Fn(&mut Vec<u8>, u32) -> bool) -> Vec<(u32, Vec<u8>)> {
    let mut forms: Vec<(u32, Vec<u8>)> = Vec::new();
    for max in 0..120 {
        let mut out = vec![0xEE];
        let fits = encode_within(&mut out, max);
        let bytes = out.split_off(1);
        assert_eq!(fits, !bytes.is_empty(), "false means that nothing was written");
        assert!(bytes.len() <= max as usize, "S-31: never above the limit");
        if fits && forms.last().is_none_or(|(_, last)| *last != bytes) {
            forms.push((max, bytes));
        }
    }
    forms
}

#[test]
fn s31_user_properties_and_then_the_reason_string_are_left_out_to_fit() {
    // [MQTT-3.2.2-19] [MQTT-3.2.2-20] [MQTT-3.4.2-2] [MQTT-3.4.2-3] [MQTT-3.9.2-1]
    // [MQTT-3.9.2-2] [MQTT-3.14.2-3] [MQTT-3.14.2-4] [MQTT-3.15.2-2] [MQTT-3.15.2-3]
    let mut pairs = Vec::new();
    PropertyWriter::new(&mut pairs).user("name", "value");
    let user = UserProps::from_wire(&pairs);
    let why = Some("because");
    let v = Version::V5;
    let ack =
        Ack { packet_id: id(7), reason: ReasonCode::QUOTA_EXCEEDED, reason_string: why, user };
    let suback = SubAck { packet_id: id(7), reasons: &[0x87, 1], reason_string: why, user };
    let connack = ConnAck {
        code: ReasonCode::BANNED,
        receive_maximum: Some(5),
        reason_string: why,
        user,
        ..ConnAck::default()
    };
    let disconnect = Disconnect {
        reason: ReasonCode::USE_ANOTHER_SERVER,
        server_reference: Some("other"),
        reason_string: why,
        user,
        ..Disconnect::default()
    };
    let auth = Auth {
        reason: ReasonCode::CONTINUE_AUTHENTICATION,
        method: Some("m"),
        reason_string: why,
        user,
        ..Auth::default()
    };
    use PacketType::{PubAck, PubComp, PubRec, PubRel, UnsubAck};
    let unsuback = SubAck { reasons: &[0x11], ..suback };
    type EncodeWithin<'a> = Box<dyn Fn(&mut Vec<u8>, u32) -> bool + 'a>;
    let all: [(&str, usize, EncodeWithin<'_>); 9] = [
        ("PUBACK", 5, Box::new(move |o, m| ack.encode_within(o, v, PubAck, m))),
        ("PUBREC", 5, Box::new(move |o, m| ack.encode_within(o, v, PubRec, m))),
        ("PUBREL", 5, Box::new(move |o, m| ack.encode_within(o, v, PubRel, m))),
        ("PUBCOMP", 5, Box::new(move |o, m| ack.encode_within(o, v, PubComp, m))),
        ("SUBACK", 7, Box::new(move |o, m| suback.encode_within(o, v, PacketType::SubAck, m))),
        ("UNSUBACK", 6, Box::new(move |o, m| unsuback.encode_within(o, v, UnsubAck, m))),
        ("CONNACK", 8, Box::new(move |o, m| connack.encode_within(o, v, m))),
        ("DISCONNECT", 12, Box::new(move |o, m| disconnect.encode_within(o, v, m))),
        ("AUTH", 8, Box::new(move |o, m| auth.encode_within(o, v, m))),
    ];
    for (name, bare, encode_within) in all {
        let forms = forms(encode_within);
        let sizes: Vec<usize> = forms.iter().map(|(_, bytes)| bytes.len()).collect();
        assert_eq!(forms.len(), 3, "{name}: {sizes:?}");
        assert_eq!(sizes[0], bare, "{name}");
        for (max, bytes) in &forms {
            assert_eq!(*max as usize, bytes.len(), "{name}: each form as soon as it fits");
        }
        let has = |bytes: &[u8], text: &[u8]| bytes.windows(text.len()).any(|w| w == text);
        assert!(!has(&forms[0].1, b"because") && !has(&forms[0].1, b"value"), "{name}");
        assert!(has(&forms[1].1, b"because") && !has(&forms[1].1, b"value"), "{name}");
        assert!(has(&forms[2].1, b"because") && has(&forms[2].1, b"value"), "{name}");
    }
}

#[test]
fn strings_longer_than_mqtt_can_say_are_cut_at_a_character() {
    let long = format!("{}é", "x".repeat(65_534));
    let mut out = Vec::new();
    encode::ack(&mut out, Version::V5, PacketType::PubAck, id(1), ReasonCode(0x80), Some(&long));
    let Ok(Packet::PubAck(p)) = one(&out, Version::V5, Role::Client) else { panic!() };
    assert_eq!(p.reason_string.map(str::len), Some(65_534));
}

#[test]
fn disconnect_before_mqtt_5_has_no_fields_and_comes_from_clients() {
    for v in [Version::V31, Version::V311] {
        assert!(one(&packet(0xE0, &[]), v, Role::Server).is_ok());
        assert!(one(&packet(0xE0, &[0]), v, Role::Server).is_err());
        assert!(one(&packet(0xE0, &[]), v, Role::Client).is_err());
    }
}

#[test]
fn auth_without_a_method_is_a_protocol_error() {
    for (bytes, role) in [
        (packet(0xF0, &cat(&[&[0x18], &block(b"")])), Role::Server),
        (packet(0xF0, &cat(&[&[0x18], &block(b"\x16\0\x01x")])), Role::Server),
        (packet(0xF0, &cat(&[&[0x00], &block(b"\x1F\0\x01x")])), Role::Client),
        (packet(0xF0, &[]), Role::Server),
    ] {
        assert_eq!(reason(one(&bytes, Version::V5, role)), ReasonCode::PROTOCOL_ERROR);
    }
    assert!(one(&packet(0xF0, &[]), Version::V5, Role::Client).is_ok());
}

#[test]
fn pings_are_empty() {
    assert!(one(&packet(0xC0, &[0]), Version::V5, Role::Server).is_err());
    assert!(one(&packet(0xD0, &[0]), Version::V5, Role::Client).is_err());
}
