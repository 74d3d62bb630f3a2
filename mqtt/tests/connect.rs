//! CONNECT: versions, flags, client identifiers, will (W01, W04, W10, W17, C03-C09, C15).

mod common;

use common::{block, cat, field, one, packet, reason};
use ringmain_mqtt::{
    ClientIdRules, Connect, ConnectVersion, DecodeError, Packet, QoS, ReasonCode, Role, Version,
    connect_version, refusal_version,
};

fn body(name: &[u8], level: u8, flags: u8, rest: &[&[u8]]) -> Vec<u8> {
    cat(&[&field(name), &[level, flags, 0, 30], &rest.concat()])
}

fn connect(bytes: &[u8]) -> Result<Connect<'_>, DecodeError> {
    match one(bytes, Version::V311, Role::Server)? {
        Packet::Connect(connect) => Ok(connect),
        other => panic!("{other:?}"),
    }
}

#[test]
fn w01_each_version_has_its_name_and_level_and_mqtt_3_a_bridge_bit() {
    for (name, level, version, bridge) in [
        (&b"MQIsdp"[..], 3, Version::V31, false),
        (b"MQIsdp", 0x83, Version::V31, true),
        (b"MQTT", 4, Version::V311, false),
        (b"MQTT", 0x84, Version::V311, true),
        (b"MQTT", 5, Version::V5, false),
    ] {
        let properties: &[u8] = if version == Version::V5 { &[0] } else { &[] };
        let body = body(name, level, 2, &[properties, &field(b"id")]);
        assert_eq!(connect_version(&body), ConnectVersion::Supported(version));
        let bytes = packet(0x10, &body);
        let connect = connect(&bytes).unwrap();
        assert_eq!((connect.version, connect.bridge), (version, bridge));
        assert_eq!((connect.client_id, connect.keep_alive_s), ("id", 30));
        assert!(connect.clean_start);
        assert_eq!(connect.props, ringmain_mqtt::ConnectProps::default());
    }
}

#[test]
fn w04_unknown_levels_are_told_from_wrong_names_and_answered_in_their_shape() {
    let v3 = [&field(b"id")[..]];
    let id = field(b"id");
    let v5 = [&[0][..], &id];
    type Case<'a> = (&'a [u8], u8, &'a [&'a [u8]], ConnectVersion, Version);
    let cases: [Case<'_>; 9] = [
        (b"MQTT", 6, &v5, ConnectVersion::UnsupportedLevel(6), Version::V5),
        (b"MQTT", 6, &v3, ConnectVersion::UnsupportedLevel(6), Version::V5),
        (b"MQTT", 9, &v3, ConnectVersion::UnsupportedLevel(9), Version::V311),
        (b"MQTT", 9, &v5, ConnectVersion::UnsupportedLevel(9), Version::V5),
        (b"MQTT", 3, &v3, ConnectVersion::UnsupportedLevel(3), Version::V311),
        (b"MQTT", 0, &v5, ConnectVersion::UnsupportedLevel(0), Version::V311),
        (b"MQTT", 0x85, &v3, ConnectVersion::UnsupportedLevel(0x85), Version::V311),
        (b"MQIsdp", 4, &v3, ConnectVersion::UnsupportedLevel(4), Version::V311),
        (b"MQTX", 4, &v3, ConnectVersion::WrongName, Version::V311),
    ];
    for (name, level, rest, expected, refusal) in cases {
        let body = body(name, level, 2, rest);
        assert_eq!(connect_version(&body), expected);
        assert_eq!(refusal_version(&body), refusal, "{expected:?}");
        // [MQTT-3.1.2-1] [MQTT-3.1.2-2]
        let error = connect(&packet(0x10, &body)).unwrap_err();
        assert_eq!(error.reason, ReasonCode::UNSUPPORTED_PROTOCOL_VERSION);
    }
    for cut in 0..7 {
        let body = body(b"MQTT", 5, 2, &[]);
        assert_eq!(connect_version(&body[..cut]), ConnectVersion::WrongName);
    }
}

#[test]
fn w10_each_bad_combination_of_connect_flags_is_malformed() {
    let will = cat(&[&field(b"w"), &field(b"p")]);
    let cases: [(&str, u8, &[u8], &str); 6] = [
        ("reserved flag", 0x03, b"", "MQTT-3.1.2-3"),
        ("Will QoS without will", 0x0A, b"", "MQTT-3.1.2-11"),
        ("Will QoS 2 without will", 0x12, b"", "MQTT-3.1.2-11"),
        ("Will QoS 3", 0x1E, &will, "MQTT-3.1.2-12"),
        ("Will QoS 3 without will", 0x1A, b"", "MQTT-3.1.2-12"),
        ("Will Retain without will", 0x22, b"", "MQTT-3.1.2-13"),
    ];
    for (case, flags, rest, statement) in cases {
        for v in [Version::V311, Version::V5] {
            let properties: &[u8] = if v == Version::V5 { &[0] } else { &[] };
            let body = body(b"MQTT", v as u8, flags, &[properties, &field(b"id"), rest]);
            let error = connect(&packet(0x10, &body)).expect_err(case);
            assert_eq!(error.reason, ReasonCode::MALFORMED_PACKET, "{case}");
            assert_eq!(error.statement, statement, "{case}");
        }
    }
}

#[test]
fn w10_a_password_needs_a_user_name_in_mqtt_3_only() {
    let rest: [&[u8]; 2] = [&field(b"id"), &field(b"secret")];
    for (name, level) in [(&b"MQIsdp"[..], 3), (b"MQTT", 4)] {
        let error = connect(&packet(0x10, &body(name, level, 0x42, &rest))).unwrap_err();
        assert_eq!(error.statement, "MQTT-3.1.2-22");
    }
    let bytes = packet(0x10, &body(b"MQTT", 5, 0x42, &[&[0], rest[0], rest[1]]));
    let connect = connect(&bytes).unwrap();
    assert_eq!((connect.username, connect.password), (None, Some(&b"secret"[..])));
}

#[test]
fn c15_all_six_will_properties_arrive_and_only_the_four_that_travel_are_forwarded() {
    let travel: [&[u8]; 5] =
        [b"\x01\x01", b"\x26\0\x01k\0\x01v", b"\x03\0\x02ct", b"\x08\0\x01r", b"\x09\0\x01\xFF"];
    let properties = cat(&[
        b"\x18\0\0\0\x05",
        travel[0],
        travel[1],
        b"\x02\0\0\0\x3C",
        travel[2],
        travel[3],
        travel[4],
    ]);
    let fields = [&[0][..], &field(b"id"), &block(&properties), &field(b"w/t"), &field(b"\0\xFF")];
    let bytes = packet(0x10, &body(b"MQTT", 5, 0b0011_0110, &fields));
    let will = connect(&bytes).unwrap().will.unwrap();
    assert_eq!((will.qos, will.retain), (QoS::ExactlyOnce, true));
    assert_eq!((will.topic, will.payload), ("w/t", &b"\0\xFF"[..]));
    assert_eq!((will.delay_s, will.message_expiry_s), (Some(5), Some(60)));
    assert_eq!(will.payload_format, Some(true));
    let mut out = Vec::new();
    will.forward.append_to(&mut out);
    assert_eq!(out, travel.concat());
}

#[test]
fn a_will_topic_is_a_topic_name() {
    for topic in ["", "a/#", "+"] {
        let fields = [&field(b"id")[..], &field(topic.as_bytes()), &field(b"")];
        let bytes = packet(0x10, &body(b"MQTT", 4, 0b110, &fields));
        assert_eq!(connect(&bytes).unwrap_err().reason, ReasonCode::TOPIC_NAME_INVALID);
    }
}

#[test]
fn w17_s98_s99_client_identifiers_are_valid_by_version() {
    let long = "x".repeat(24);
    let characters = "ä".repeat(23);
    let strict = ClientIdRules::default();
    let lenient = ClientIdRules { lenient_31: true, ..strict };
    let short = ClientIdRules { max_len: 10, ..strict };
    use Version::{V5, V31, V311};
    for (version, clean_start, id, rules, ok) in [
        (V31, true, "", strict, false),
        (V31, true, "x", strict, true),
        (V31, true, characters.as_str(), strict, true),
        (V31, true, long.as_str(), strict, false),
        (V31, true, long.as_str(), lenient, true),
        (V31, true, "", lenient, true),
        (V31, false, "", lenient, false),
        (V311, true, "", strict, true),
        (V311, false, "", strict, false),
        (V311, false, long.as_str(), strict, true),
        (V5, false, "", strict, true),
        (V5, true, "0123456789", short, true),
        (V5, true, "0123456789a", short, false),
        (V311, true, "0123456789a", short, false),
    ] {
        let properties: &[u8] = if version == V5 { &[0] } else { &[] };
        let name: &[u8] = if version == V31 { b"MQIsdp" } else { b"MQTT" };
        let flags = u8::from(clean_start) << 1;
        let fields = [properties, &field(id.as_bytes())];
        let bytes = packet(0x10, &body(name, version as u8, flags, &fields));
        let expected = if ok { Ok(()) } else { Err(ReasonCode::CLIENT_IDENTIFIER_NOT_VALID) };
        let got = connect(&bytes).unwrap().check_client_id(&rules);
        assert_eq!(got, expected, "{version:?} clean {clean_start} {id:?}");
    }
}

#[test]
fn bytes_after_the_last_field_of_connect_are_malformed() {
    for level in [4, 5] {
        let properties: &[u8] = if level == 5 { &[0] } else { &[] };
        let body = body(b"MQTT", level, 2, &[properties, &field(b"id"), &field(b"user")]);
        assert_eq!(
            reason(one(&packet(0x10, &body), Version::V311, Role::Server)),
            ReasonCode::MALFORMED_PACKET
        );
    }
}
