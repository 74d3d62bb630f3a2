//! UTF-8 Encoded Strings (W08, W09).

mod common;

use common::{cat, field, one, one_with, packet};
use ringmain_mqtt::{DecodeError, Packet, ReasonCode, Role, Rules, Version};

/// The same string wherever a packet has one that a client sends.
fn packets_with(text: &[u8]) -> Vec<(&'static str, Vec<u8>)> {
    let text = field(text);
    let id = [0, 7];
    let connect = |flags: u8, properties: &[u8], rest: &[&[u8]]| {
        packet(0x10, &cat(&[b"\0\x04MQTT\x05", &[flags, 0, 0], properties, &rest.concat()]))
    };
    let user = cat(&[&[text.len() as u8 + 4, 0x26], &text, b"\0\x01v"]);
    let value = cat(&[&[text.len() as u8 + 4, 0x26], b"\0\x01k", &text]);
    vec![
        ("topic", packet(0x30, &cat(&[&text, &[0]]))),
        ("filter", packet(0x82, &cat(&[&id, &[0], &text, &[0]]))),
        ("unsubscribed filter", packet(0xA2, &cat(&[&id, &[0], &text]))),
        ("client id", connect(2, &[0], &[&text])),
        ("user name", connect(0x82, &[0], &[b"\0\x01c", &text])),
        ("will topic", connect(6, &[0], &[b"\0\x01c\0", &text, b"\0\0"])),
        ("user property name", connect(2, &user, &[b"\0\x01c"])),
        ("user property value", packet(0x30, &cat(&[b"\0\x01t", &value]))),
    ]
}

fn decode_all(text: &[u8], rules: &Rules) -> Vec<(&'static str, Result<(), DecodeError>)> {
    packets_with(text)
        .into_iter()
        .map(|(place, bytes)| {
            (place, one_with(&bytes, Version::V5, Role::Server, rules).map(|_| ()))
        })
        .collect()
}

#[test]
fn w08_ill_formed_strings_are_malformed_in_every_field() {
    // [MQTT-1.5.4-1] [MQTT-1.5.4-2]
    let cases: [(&[u8], &str); 12] = [
        (b"a\xED\xA0\x80", "MQTT-1.5.4-1"),            // surrogate U+D800
        (b"a\xED\xBF\xBF", "MQTT-1.5.4-1"),            // surrogate U+DFFF
        (b"\xED\xA0\xBD\xED\xB8\x80", "MQTT-1.5.4-1"), // a pair of them
        (b"\xC0\xAF", "MQTT-1.5.4-1"),                 // over-long '/'
        (b"\xC0\x80", "MQTT-1.5.4-1"),                 // over-long U+0000
        (b"\xE0\x80\xAF", "MQTT-1.5.4-1"),
        (b"\xF4\x90\x80\x80", "MQTT-1.5.4-1"), // above U+10FFFF
        (b"\x80", "MQTT-1.5.4-1"),
        (b"abc\xE2\x82", "MQTT-1.5.4-1"), // cut
        (b"\xFF", "MQTT-1.5.4-1"),
        (b"a\0b", "MQTT-1.5.4-2"),
        (b"\0", "MQTT-1.5.4-2"),
    ];
    for (text, statement) in cases {
        for (place, result) in decode_all(text, &Rules::default()) {
            let error = result.expect_err(place);
            assert_eq!(error.reason, ReasonCode::MALFORMED_PACKET, "{place} {text:?}");
            assert_eq!(error.statement, statement, "{place} {text:?}");
        }
    }
}

#[test]
fn w08_well_formed_strings_are_accepted_in_every_field() {
    for text in ["ÿ", "\u{FEFF}x", "\u{D7FF}\u{E000}", "\u{10FFFF}", "a\u{FFFF}", "\u{1}\u{7F}"] {
        for (place, result) in decode_all(text.as_bytes(), &Rules::default()) {
            assert_eq!(result, Ok(()), "{place} {text:?}");
        }
    }
}

#[test]
fn w08_a_byte_order_mark_is_a_character_like_others() {
    // [MQTT-1.5.4-3]
    let bytes = &packets_with(b"\xEF\xBB\xBFdev")[3].1;
    let Ok(Packet::Connect(connect)) = one(bytes, Version::V5, Role::Server) else { panic!() };
    assert_eq!(connect.client_id.as_bytes(), b"\xEF\xBB\xBFdev");
    let mut again = Vec::new();
    connect.encode(&mut again);
    assert_eq!(again, *bytes);
}

#[test]
fn w09_strict_rules_refuse_controls_and_non_characters() {
    let strict = Rules { strict_utf8: true };
    let controls = (0x01..=0x1F).chain(0x7F..=0x9F);
    let non_characters = (0xFDD0..=0xFDEF)
        .chain((0..=0x10).flat_map(|plane| [plane << 16 | 0xFFFE, plane << 16 | 0xFFFF]));
    for code_point in controls.chain(non_characters) {
        let text = char::from_u32(code_point).unwrap().to_string();
        for (place, result) in decode_all(text.as_bytes(), &strict) {
            assert!(result.is_err(), "U+{code_point:04X} in {place}");
        }
    }
    for text in ["plain", "\u{A0}", "\u{FEFF}", "\u{FDCF}\u{FDF0}", "\u{FFFD}", "\u{1FFFD}"] {
        for (place, result) in decode_all(text.as_bytes(), &strict) {
            assert_eq!(result, Ok(()), "{place} {text:?}");
        }
    }
}

#[test]
fn w15_topics_of_65535_bytes_are_accepted() {
    let topic = "t".repeat(65_535);
    let bytes = packet(0x30, &cat(&[&field(topic.as_bytes()), b"payload"]));
    let Ok(Packet::Publish(p)) = one(&bytes, Version::V311, Role::Server) else { panic!() };
    assert_eq!((p.topic.len(), p.payload), (65_535, &b"payload"[..]));
}
