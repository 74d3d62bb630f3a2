//! The fixed header: types, flags and Remaining Length (W06, W07).

mod common;

use common::{one, packet, reason, v5};
use ringmain_mqtt::{
    Header, PacketType as P, QoS, REMAINING_LENGTH_MAX, ReasonCode, Role, Rules, Version, decode,
    header, header_v31,
};

#[test]
fn w07_every_flag_of_every_type_is_accepted_or_refused_as_the_table_says() {
    for packet_type in 0..=15u8 {
        for flags in 0..=15u8 {
            let legal = match packet_type {
                0 => false,
                // [MQTT-3.3.1-2] [MQTT-3.3.1-4]
                3 => flags & 0b0110 != 0b0110 && flags & 0b1110 != 0b1000,
                // [MQTT-3.6.1-1] [MQTT-3.8.1-1] [MQTT-3.10.1-1]
                6 | 8 | 10 => flags == 0b0010,
                // [MQTT-2.1.3-1]
                _ => flags == 0,
            };
            let first = packet_type << 4 | flags;
            // Certain from the first byte on.
            for buf in [&[first][..], &[first, 0], &[first, 0x80]] {
                let result = header(buf, false);
                if legal {
                    assert!(result.is_ok(), "{first:#04X}");
                } else {
                    let error = result.expect_err("illegal flags");
                    assert_eq!(error.reason, ReasonCode::MALFORMED_PACKET, "{first:#04X}");
                }
            }
        }
    }
}

#[test]
fn w01_mqtt_31_clients_may_set_dup_where_the_type_has_it() {
    for first in [0x6A, 0x8A, 0xAA] {
        assert!(header_v31(&[first, 2], false).unwrap().is_some(), "{first:#04X}");
        assert!(header(&[first, 2], false).is_err(), "{first:#04X}");
    }
    for first in [0x48, 0x6B, 0x80, 0xC8, 0x36, 0x38] {
        assert!(header_v31(&[first, 2], false).is_err(), "{first:#04X}");
    }
}

#[test]
fn w06_remaining_length_has_one_to_four_bytes_at_its_boundaries() {
    let cases: [(u32, &[u8]); 8] = [
        (0, &[0x00]),
        (127, &[0x7F]),
        (128, &[0x80, 0x01]),
        (16_383, &[0xFF, 0x7F]),
        (16_384, &[0x80, 0x80, 0x01]),
        (2_097_151, &[0xFF, 0xFF, 0x7F]),
        (2_097_152, &[0x80, 0x80, 0x80, 0x01]),
        (REMAINING_LENGTH_MAX, &[0xFF, 0xFF, 0xFF, 0x7F]),
    ];
    for (remaining, length) in cases {
        let bytes = [&[0x30], length, &[0xAA]].concat();
        // One byte at a time: undecided until the length is whole. W14
        for cut in 0..=length.len() {
            assert_eq!(header(&bytes[..cut], false), Ok(None), "{remaining} cut at {cut}");
        }
        let expected =
            Header { packet_type: P::Publish, flags: 0, remaining, len: length.len() as u8 + 1 };
        assert_eq!(header(&bytes[..=length.len()], false), Ok(Some(expected)));
        assert_eq!(header(&bytes, false), Ok(Some(expected)), "what follows is not looked at");
        assert_eq!(expected.total_len(), length.len() + 1 + remaining as usize);
    }
}

#[test]
fn w06_a_fifth_length_byte_is_malformed_lenient_or_not() {
    for lenient in [false, true] {
        for bytes in [&[0x30, 0xFF, 0xFF, 0xFF, 0xFF][..], &[0x30, 0x80, 0x80, 0x80, 0x80, 0x00]] {
            let error = header(bytes, lenient).unwrap_err();
            assert_eq!(error.reason, ReasonCode::MALFORMED_PACKET);
        }
    }
}

#[test]
fn w06_an_over_long_length_is_accepted_only_if_lenient() {
    // [MQTT-1.5.5-1]
    for (length, remaining) in
        [(&[0x80, 0x00][..], 0), (&[0xFF, 0x00], 127), (&[0x81, 0x80, 0x80, 0x00], 1)]
    {
        let bytes = [&[0x30], length].concat();
        let error = header(&bytes, false).unwrap_err();
        assert_eq!((error.reason, error.statement), (ReasonCode::MALFORMED_PACKET, "MQTT-1.5.5-1"));
        let h = header(&bytes, true).unwrap().unwrap();
        assert_eq!((h.remaining, usize::from(h.len)), (remaining, bytes.len()));
    }
}

#[test]
fn publish_flags_reach_the_packet() {
    for (flags, dup, qos, retain) in [
        (0b0000, false, QoS::AtMostOnce, false),
        (0b0001, false, QoS::AtMostOnce, true),
        (0b1010, true, QoS::AtLeastOnce, false),
        (0b1101, true, QoS::ExactlyOnce, true),
    ] {
        let bytes = packet(0x30 | flags, b"\0\x01t\0\x07");
        let packet = one(&bytes, Version::V311, Role::Server).unwrap();
        let ringmain_mqtt::Packet::Publish(p) = packet else { panic!() };
        assert_eq!((p.dup, p.qos, p.retain), (dup, qos, retain));
        assert_eq!(p.packet_id.is_some(), qos != QoS::AtMostOnce);
    }
}

#[test]
fn packets_are_refused_in_the_wrong_direction() {
    for packet_type in P::ALL {
        for role in [Role::Server, Role::Client] {
            let properties: &[u8] = if packet_type == P::Auth { b"\x15\0\x01m" } else { b"" };
            let bytes = v5(packet_type, role, properties, &[]);
            let result = one(&bytes, Version::V5, role);
            if common::receivers(packet_type).contains(&role) {
                assert!(result.is_ok(), "{packet_type:?} to {role:?}: {result:?}");
            } else {
                assert_eq!(reason(result), ReasonCode::PROTOCOL_ERROR, "{packet_type:?} {role:?}");
            }
        }
    }
}

#[test]
fn auth_does_not_exist_before_mqtt_5() {
    for v in [Version::V31, Version::V311] {
        let bytes = v5(P::Auth, Role::Server, b"\x15\0\x01m", &[]);
        assert_eq!(reason(one(&bytes, v, Role::Server)), ReasonCode::MALFORMED_PACKET);
    }
}

#[test]
fn a_packet_cut_at_any_byte_is_an_error_and_bytes_after_its_end_too() {
    for packet_type in P::ALL {
        for &role in common::receivers(packet_type) {
            let properties: &[u8] = match packet_type {
                P::Auth => b"\x15\0\x01m\x26\0\x01k\0\x01v",
                P::PingReq | P::PingResp => b"",
                _ => b"\x26\0\x01k\0\x01v",
            };
            let bytes = v5(packet_type, role, properties, b"\x18\0\0\0\x05");
            let h = header(&bytes, false).unwrap().unwrap();
            let body = &bytes[usize::from(h.len)..];
            let rules = Rules::default();
            for cut in 0..body.len() {
                let result = decode(h, &body[..cut], Version::V5, role, &rules);
                // Packets whose tail may be left out are whole again at these lengths.
                let whole = match packet_type {
                    P::PubAck | P::PubRec | P::PubRel | P::PubComp => cut == 2 || cut == 3,
                    P::Disconnect => cut <= 1,
                    P::Auth => cut == 0 && role == Role::Client,
                    // The payload, and the list of reason codes, end with the packet.
                    P::Publish => cut >= body.len() - 5,
                    _ => false,
                };
                assert_eq!(result.is_ok(), whole, "{packet_type:?} cut at {cut}: {result:?}");
                if let Err(error) = result {
                    let code = error.reason;
                    let expected = [ReasonCode::MALFORMED_PACKET, ReasonCode::PROTOCOL_ERROR];
                    assert!(expected.contains(&code), "{packet_type:?} cut at {cut}: {error}");
                }
            }
            let longer = [body, &[0xFE]].concat();
            let result = decode(h, &longer, Version::V5, role, &rules);
            assert_eq!(result.is_ok(), packet_type == P::Publish, "{packet_type:?}");
        }
    }
}
