//! Reason codes: which packet may carry which (features: "v5 reason-code coverage").

mod common;

use common::{block, cat, one, packet, reason, receivers};
use ringmain_mqtt::{Packet, PacketType as P, ReasonCode, Role, Version, encode};

/// MQTT 5 §2.4 and the tables of each packet, typed in again and not taken from the crate.
/// The second list of DISCONNECT and AUTH is what a client may send.
const LEGAL: [(P, &[u8]); 9] = [
    (
        P::ConnAck,
        &[
            0x00, 0x80, 0x81, 0x82, 0x83, 0x84, 0x85, 0x86, 0x87, 0x88, 0x89, 0x8A, 0x8C, 0x90,
            0x95, 0x97, 0x99, 0x9A, 0x9B, 0x9C, 0x9D, 0x9F,
        ],
    ),
    (P::PubAck, &[0x00, 0x10, 0x80, 0x83, 0x87, 0x90, 0x91, 0x97, 0x99]),
    (P::PubRec, &[0x00, 0x10, 0x80, 0x83, 0x87, 0x90, 0x91, 0x97, 0x99]),
    (P::PubRel, &[0x00, 0x92]),
    (P::PubComp, &[0x00, 0x92]),
    (P::SubAck, &[0, 1, 2, 0x80, 0x83, 0x87, 0x8F, 0x91, 0x97, 0x9E, 0xA1, 0xA2]),
    (P::UnsubAck, &[0x00, 0x11, 0x80, 0x83, 0x87, 0x8F, 0x91]),
    (
        P::Disconnect,
        &[
            0x00, 0x04, 0x80, 0x81, 0x82, 0x83, 0x87, 0x89, 0x8B, 0x8D, 0x8E, 0x8F, 0x90, 0x93,
            0x94, 0x95, 0x96, 0x97, 0x98, 0x99, 0x9A, 0x9B, 0x9C, 0x9D, 0x9E, 0x9F, 0xA0, 0xA1,
            0xA2,
        ],
    ),
    (P::Auth, &[0x00, 0x18, 0x19]),
];

const DISCONNECT_FROM_CLIENT: &[u8] =
    &[0x00, 0x04, 0x80, 0x81, 0x82, 0x83, 0x90, 0x93, 0x94, 0x95, 0x96, 0x97, 0x98, 0x99];

fn with_code(packet_type: P, code: u8) -> Vec<u8> {
    let id = [0, 7];
    match packet_type {
        P::ConnAck => packet(0x20, &[0, code, 0]),
        P::PubAck => packet(0x40, &cat(&[&id, &[code]])),
        P::PubRec => packet(0x50, &cat(&[&id, &[code]])),
        P::PubRel => packet(0x62, &cat(&[&id, &[code]])),
        P::PubComp => packet(0x70, &cat(&[&id, &[code]])),
        P::SubAck => packet(0x90, &cat(&[&id, &[0, 1, code]])),
        P::UnsubAck => packet(0xB0, &cat(&[&id, &[0, 0, code]])),
        P::Disconnect => packet(0xE0, &[code]),
        P::Auth => packet(0xF0, &cat(&[&[code], &block(b"\x15\0\x01m")])),
        other => panic!("{other:?} has no reason code"),
    }
}

fn code_of(packet: &Packet<'_>) -> u8 {
    match packet {
        Packet::ConnAck(p) => p.code.0,
        Packet::PubAck(p) | Packet::PubRec(p) | Packet::PubRel(p) | Packet::PubComp(p) => {
            p.reason.0
        }
        Packet::SubAck(p) | Packet::UnsubAck(p) => p.codes().last().unwrap().0,
        Packet::Disconnect(p) => p.reason.0,
        Packet::Auth(p) => p.reason.0,
        other => panic!("{other:?} has no reason code"),
    }
}

#[test]
fn every_reason_code_is_accepted_exactly_in_the_packets_that_may_carry_it() {
    // [MQTT-3.2.2-8] [MQTT-3.4.2-1] [MQTT-3.5.2-1] [MQTT-3.6.2-1] [MQTT-3.7.2-1] [MQTT-3.9.3-2]
    // [MQTT-3.11.3-2] [MQTT-3.14.2-1] [MQTT-3.15.2-1]
    for (packet_type, legal) in LEGAL {
        for &role in receivers(packet_type) {
            for code in 0..=0xFF {
                let expected = match (packet_type, role) {
                    (P::Disconnect, Role::Server) => DISCONNECT_FROM_CLIENT.contains(&code),
                    (P::Disconnect, Role::Client) => legal.contains(&code) && code != 0x04,
                    (P::Auth, Role::Server) => code == 0x18 || code == 0x19,
                    (P::Auth, Role::Client) => code == 0x00 || code == 0x18,
                    _ => legal.contains(&code),
                };
                let bytes = with_code(packet_type, code);
                let result = one(&bytes, Version::V5, role);
                if expected {
                    let packet = result.unwrap_or_else(|e| panic!("{packet_type:?} {code}: {e}"));
                    assert_eq!(code_of(&packet), code);
                } else {
                    let got = reason(result);
                    assert_eq!(got, ReasonCode::PROTOCOL_ERROR, "{packet_type:?} {code:#04X}");
                }
                assert_eq!(ReasonCode(code).legal_in(packet_type), legal.contains(&code));
            }
        }
    }
}

#[test]
fn packets_without_reason_codes_carry_none() {
    for packet_type in P::ALL {
        if !LEGAL.iter().any(|&(with, _)| with == packet_type) {
            assert!((0..=0xFF).all(|code| !ReasonCode(code).legal_in(packet_type)));
        }
    }
}

#[test]
fn reason_codes_have_the_names_of_the_specification() {
    for (code, name, text) in [
        (ReasonCode::SUCCESS, 0x00, "Success"),
        (ReasonCode::NO_SUBSCRIPTION_EXISTED, 0x11, "No subscription existed"),
        (ReasonCode::UNSPECIFIED_ERROR, 0x80, "Unspecified error"),
        (ReasonCode::BAD_AUTHENTICATION_METHOD, 0x8C, "Bad authentication method"),
        (ReasonCode::TOPIC_FILTER_INVALID, 0x8F, "Topic Filter invalid"),
        (ReasonCode::RECEIVE_MAXIMUM_EXCEEDED, 0x93, "Receive Maximum exceeded"),
        (ReasonCode::QOS_NOT_SUPPORTED, 0x9B, "QoS not supported"),
        (ReasonCode::MAXIMUM_CONNECT_TIME, 0xA0, "Maximum connect time"),
        (
            ReasonCode::WILDCARD_SUBSCRIPTIONS_NOT_SUPPORTED,
            0xA2,
            "Wildcard Subscriptions not supported",
        ),
    ] {
        assert_eq!((code.0, code.name()), (name, text));
    }
    // A constant's name and its text are the same words.
    for &(code, constant) in ReasonCode::ALL {
        if code.0 != 0 {
            let words = code.name().to_uppercase().replace([' ', '-'], "_");
            assert_eq!(words, constant, "{code:?}");
        }
        assert_eq!(code.is_error(), code.0 >= 0x80);
    }
    let values: std::collections::BTreeSet<u8> =
        ReasonCode::ALL.iter().map(|&(code, _)| code.0).collect();
    assert_eq!(values.len(), 43);
    for code in (0..=0xFF).filter(|code| !values.contains(code)) {
        assert_eq!(ReasonCode(code).name(), "Reserved");
        assert!(P::ALL.into_iter().all(|p| !ReasonCode(code).legal_in(p)), "{code:#04X}");
    }
}

#[test]
fn c14_mqtt_3_is_told_the_nearest_return_code() {
    for (code, v3) in [
        (ReasonCode::SUCCESS, 0),
        (ReasonCode::UNSUPPORTED_PROTOCOL_VERSION, 1),
        (ReasonCode::CLIENT_IDENTIFIER_NOT_VALID, 2),
        (ReasonCode::SERVER_UNAVAILABLE, 3),
        (ReasonCode::USE_ANOTHER_SERVER, 3),
        (ReasonCode::SERVER_MOVED, 3),
        (ReasonCode::CONNECTION_RATE_EXCEEDED, 3),
        (ReasonCode::BAD_USER_NAME_OR_PASSWORD, 4),
        (ReasonCode::NOT_AUTHORIZED, 5),
        (ReasonCode::BANNED, 5),
    ] {
        assert_eq!(code.to_v3_connack(), v3, "{code}");
    }
    for v3 in 0..=5 {
        let code = ReasonCode::from_v3_connack(v3).unwrap();
        assert_eq!(code.to_v3_connack(), v3);
        let bytes = packet(0x20, &[0, v3]);
        let Ok(Packet::ConnAck(p)) = one(&bytes, Version::V311, Role::Client) else { panic!() };
        assert_eq!(p.code, code);
    }
    assert_eq!(ReasonCode::from_v3_connack(6), None);
    assert!(one(&packet(0x20, &[0, 6]), Version::V311, Role::Client).is_err());
    for code in 0x80..=0xFF {
        assert!((1..=5).contains(&ReasonCode(code).to_v3_connack()), "an error stays an error");
    }
}

#[test]
fn w01_s99_suback_says_in_each_version_what_that_version_knows() {
    let id = ringmain_mqtt::PacketId::new(7).unwrap();
    let codes = [0x00, 0x01, 0x02, 0x87, 0xA2];
    for (v, expected) in [
        (Version::V5, &[0x90, 8, 0, 7, 0, 0, 1, 2, 0x87, 0xA2][..]),
        (Version::V311, &[0x90, 7, 0, 7, 0, 1, 2, 0x80, 0x80]),
        // MQTT 3.1 never sees 0x80.
        (Version::V31, &[0x90, 7, 0, 7, 0, 1, 2, 0, 0]),
    ] {
        let mut out = Vec::new();
        encode::suback(&mut out, v, id, &codes);
        assert_eq!(out, expected, "{v:?}");
    }
    for (v, body, legal) in [
        (Version::V311, &[0, 7, 0x80][..], true),
        (Version::V311, &[0, 7, 0x87], false),
        (Version::V311, &[0, 7, 3], false),
        (Version::V31, &[0, 7, 0x80], false),
        (Version::V31, &[0, 7, 2], true),
    ] {
        assert_eq!(one(&packet(0x90, body), v, Role::Client).is_ok(), legal, "{v:?} {body:?}");
    }
}

#[test]
fn unsuback_has_codes_in_mqtt_5_only() {
    let id = ringmain_mqtt::PacketId::new(7).unwrap();
    for (v, expected) in [
        (Version::V5, &[0xB0, 5, 0, 7, 0, 0, 0x11][..]),
        (Version::V311, &[0xB0, 2, 0, 7]),
        (Version::V31, &[0xB0, 2, 0, 7]),
    ] {
        let mut out = Vec::new();
        encode::unsuback(&mut out, v, id, &[0, 0x11]);
        assert_eq!(out, expected, "{v:?}");
    }
    assert!(one(&packet(0xB0, &[0, 7, 0]), Version::V311, Role::Client).is_err());
}
