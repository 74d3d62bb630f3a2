//! The 27 properties against the 15 packets and the will (features: "27 properties x packet
//! legality", C16, C17, W20).

mod common;

use common::{block, cat, field, one, packet, reason, receivers, v5};
use ringmain_mqtt::{Packet, PacketType as P, QoS, ReasonCode, Role, Version};

/// A packet, or the will of a CONNECT.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Place {
    In(P),
    Will,
}

use Place::{In, Will};

type Seen = fn(&Packet<'_>) -> bool;

struct Row {
    id: u8,
    /// A valid value, as on the wire.
    value: &'static [u8],
    legal: &'static [Place],
    /// Whether a packet that carries it shows the value.
    seen: Seen,
}

const MESSAGE: &[Place] = &[In(P::Publish), Will];
const CONNECTS: &[Place] = &[In(P::Connect), In(P::ConnAck)];
const CONNACK: &[Place] = &[In(P::ConnAck)];
const CONNECT: &[Place] = &[In(P::Connect)];
const AUTHS: &[Place] = &[In(P::Connect), In(P::ConnAck), In(P::Auth)];

fn will_or_publish<'a, T>(
    packet: &Packet<'a>,
    will: impl Fn(&ringmain_mqtt::Will<'a>) -> T,
    publish: impl Fn(&ringmain_mqtt::PublishProps<'a>) -> T,
) -> Option<T> {
    match packet {
        Packet::Connect(c) => c.will.as_ref().map(will),
        Packet::Publish(p) => Some(publish(&p.props)),
        _ => None,
    }
}

fn forwarded(packet: &Packet<'_>) -> Vec<u8> {
    let forward = will_or_publish(packet, |w| w.forward, |p| p.forward).expect("a message");
    let mut out = Vec::new();
    forward.append_to(&mut out);
    assert_eq!(out.len(), forward.wire_len());
    out
}

fn users<'a>(packet: &Packet<'a>) -> Vec<(&'a str, &'a str)> {
    match packet {
        Packet::Connect(p) if p.props.user.is_empty() => {
            p.will.expect("a will").forward.user().iter().collect()
        }
        Packet::Connect(p) => p.props.user.iter().collect(),
        Packet::ConnAck(p) => p.user.iter().collect(),
        Packet::Publish(p) => p.props.forward.user().iter().collect(),
        Packet::PubAck(p) | Packet::PubRec(p) | Packet::PubRel(p) | Packet::PubComp(p) => {
            p.user.iter().collect()
        }
        Packet::Subscribe(p) => p.user.iter().collect(),
        Packet::SubAck(p) | Packet::UnsubAck(p) => p.user.iter().collect(),
        Packet::Unsubscribe(p) => p.user.iter().collect(),
        Packet::Disconnect(p) => p.user.iter().collect(),
        Packet::Auth(p) => p.user.iter().collect(),
        Packet::PingReq | Packet::PingResp => vec![],
    }
}

fn reason_string<'a>(packet: &Packet<'a>) -> Option<&'a str> {
    match packet {
        Packet::ConnAck(p) => p.reason_string,
        Packet::PubAck(p) | Packet::PubRec(p) | Packet::PubRel(p) | Packet::PubComp(p) => {
            p.reason_string
        }
        Packet::SubAck(p) | Packet::UnsubAck(p) => p.reason_string,
        Packet::Disconnect(p) => p.reason_string,
        Packet::Auth(p) => p.reason_string,
        _ => None,
    }
}

macro_rules! connack {
    ($field:ident, $value:expr) => {
        |packet| matches!(packet, Packet::ConnAck(p) if p.$field == $value)
    };
}

/// MQTT 5 table 2-4, typed in again and not taken from the crate.
const TABLE: [Row; 27] = [
    Row {
        id: 0x01,
        value: &[1],
        legal: MESSAGE,
        seen: |p| {
            forwarded(p) == [1, 1]
                && will_or_publish(p, |w| w.payload_format, |p| p.payload_format)
                    == Some(Some(true))
        },
    },
    Row {
        id: 0x02,
        value: &[0, 0, 1, 0],
        legal: MESSAGE,
        seen: |p| {
            forwarded(p).is_empty()
                && will_or_publish(p, |w| w.message_expiry_s, |p| p.message_expiry_s)
                    == Some(Some(256))
        },
    },
    Row {
        id: 0x03,
        value: b"\0\x02ct",
        legal: MESSAGE,
        seen: |p| {
            forwarded(p) == b"\x03\0\x02ct"
                && !matches!(p, Packet::Publish(p) if p.props.content_type != Some("ct"))
        },
    },
    Row {
        id: 0x08,
        value: b"\0\x03r/t",
        legal: MESSAGE,
        seen: |p| {
            forwarded(p) == b"\x08\0\x03r/t"
                && !matches!(p, Packet::Publish(p) if p.props.response_topic != Some("r/t"))
        },
    },
    Row {
        id: 0x09,
        value: b"\0\x02\0\xFF",
        legal: MESSAGE,
        seen: |p| {
            forwarded(p) == b"\x09\0\x02\0\xFF"
                && !matches!(p, Packet::Publish(p) if p.props.correlation != Some(&[0, 0xFF]))
        },
    },
    Row {
        id: 0x0B,
        value: &[0x80, 0x01],
        legal: &[In(P::Publish), In(P::Subscribe)],
        seen: |p| match p {
            Packet::Publish(p) => {
                p.props.subscription_ids.iter().eq([128]) && p.props.forward.is_empty()
            }
            Packet::Subscribe(p) => p.subscription_id == Some(128),
            _ => false,
        },
    },
    Row {
        id: 0x11,
        value: &[0, 0, 1, 0],
        legal: &[In(P::Connect), In(P::ConnAck), In(P::Disconnect)],
        seen: |p| match p {
            Packet::Connect(p) => p.props.session_expiry_s == Some(256),
            Packet::ConnAck(p) => p.session_expiry_s == Some(256),
            Packet::Disconnect(p) => p.session_expiry_s == Some(256),
            _ => false,
        },
    },
    Row {
        id: 0x12,
        value: b"\0\x01i",
        legal: CONNACK,
        seen: connack!(assigned_client_id, Some("i")),
    },
    Row {
        id: 0x13,
        value: &[1, 0],
        legal: CONNACK,
        seen: connack!(server_keep_alive_s, Some(256)),
    },
    Row {
        id: 0x15,
        value: b"\0\x01m",
        legal: AUTHS,
        seen: |p| match p {
            Packet::Connect(p) => p.props.auth_method == Some("m"),
            Packet::ConnAck(p) => p.auth_method == Some("m"),
            Packet::Auth(p) => p.method == Some("m"),
            _ => false,
        },
    },
    Row {
        id: 0x16,
        value: b"\0\x01\xFF",
        legal: AUTHS,
        seen: |p| match p {
            Packet::Connect(p) => p.props.auth_data == Some(&[0xFF]),
            Packet::ConnAck(p) => p.auth_data == Some(&[0xFF]),
            Packet::Auth(p) => p.data == Some(&[0xFF]),
            _ => false,
        },
    },
    Row {
        id: 0x17,
        value: &[0],
        legal: CONNECT,
        seen: |p| matches!(p, Packet::Connect(p) if !p.props.request_problem_info),
    },
    Row {
        id: 0x18,
        value: &[0, 0, 1, 0],
        legal: &[Will],
        seen: |p| {
            forwarded(p).is_empty()
                && matches!(p, Packet::Connect(p) if p.will.unwrap().delay_s == Some(256))
        },
    },
    Row {
        id: 0x19,
        value: &[1],
        legal: CONNECT,
        seen: |p| matches!(p, Packet::Connect(p) if p.props.request_response_info),
    },
    Row {
        id: 0x1A,
        value: b"\0\x01i",
        legal: CONNACK,
        seen: connack!(response_information, Some("i")),
    },
    Row {
        id: 0x1C,
        value: b"\0\x01s",
        legal: &[In(P::ConnAck), In(P::Disconnect)],
        seen: |p| match p {
            Packet::ConnAck(p) => p.server_reference == Some("s"),
            Packet::Disconnect(p) => p.server_reference == Some("s"),
            _ => false,
        },
    },
    Row {
        id: 0x1F,
        value: b"\0\x03why",
        legal: &[
            In(P::ConnAck),
            In(P::PubAck),
            In(P::PubRec),
            In(P::PubRel),
            In(P::PubComp),
            In(P::SubAck),
            In(P::UnsubAck),
            In(P::Disconnect),
            In(P::Auth),
        ],
        seen: |p| reason_string(p) == Some("why"),
    },
    Row {
        id: 0x21,
        value: &[1, 0],
        legal: CONNECTS,
        seen: |p| match p {
            Packet::Connect(p) => p.props.receive_maximum == Some(256),
            Packet::ConnAck(p) => p.receive_maximum == Some(256),
            _ => false,
        },
    },
    Row {
        id: 0x22,
        value: &[1, 0],
        legal: CONNECTS,
        seen: |p| match p {
            Packet::Connect(p) => p.props.topic_alias_maximum == Some(256),
            Packet::ConnAck(p) => p.topic_alias_maximum == Some(256),
            _ => false,
        },
    },
    Row {
        id: 0x23,
        value: &[1, 0],
        legal: &[In(P::Publish)],
        seen: |p| {
            matches!(p, Packet::Publish(p) if p.props.topic_alias == Some(256)
            && p.props.forward.is_empty())
        },
    },
    Row {
        id: 0x24,
        value: &[1],
        legal: CONNACK,
        seen: connack!(maximum_qos, Some(QoS::AtLeastOnce)),
    },
    Row { id: 0x25, value: &[0], legal: CONNACK, seen: connack!(retain_available, Some(false)) },
    Row {
        id: 0x26,
        value: b"\0\x01k\0\x01v",
        legal: &[
            In(P::Connect),
            In(P::ConnAck),
            In(P::Publish),
            In(P::PubAck),
            In(P::PubRec),
            In(P::PubRel),
            In(P::PubComp),
            In(P::Subscribe),
            In(P::SubAck),
            In(P::Unsubscribe),
            In(P::UnsubAck),
            In(P::Disconnect),
            In(P::Auth),
            Will,
        ],
        seen: |p| users(p).first() == Some(&("k", "v")),
    },
    Row {
        id: 0x27,
        value: &[0, 0, 1, 0],
        legal: CONNECTS,
        seen: |p| match p {
            Packet::Connect(p) => p.props.maximum_packet_size == Some(256),
            Packet::ConnAck(p) => p.maximum_packet_size == Some(256),
            _ => false,
        },
    },
    Row { id: 0x28, value: &[0], legal: CONNACK, seen: connack!(wildcard_available, Some(false)) },
    Row {
        id: 0x29,
        value: &[0],
        legal: CONNACK,
        seen: connack!(subscription_ids_available, Some(false)),
    },
    Row { id: 0x2A, value: &[0], legal: CONNACK, seen: connack!(shared_available, Some(false)) },
];

/// Every place with a property section, and who may receive it.
fn places() -> impl Iterator<Item = (Place, Role)> {
    let packets = P::ALL
        .into_iter()
        .filter(|p| !matches!(p, P::PingReq | P::PingResp))
        .flat_map(|p| receivers(p).iter().map(move |&role| (In(p), role)));
    packets.chain([(Will, Role::Server)])
}

/// What else must stand beside the property for the packet to be whole.
fn company(place: Place, id: u8) -> &'static [u8] {
    match (place, id) {
        (In(P::Auth), id) if id != 0x15 => b"\x15\0\x01m",
        (In(P::Connect), 0x16) => b"\x15\0\x01m",
        _ => b"",
    }
}

fn with(place: Place, role: Role, properties: &[u8]) -> Vec<u8> {
    match place {
        In(packet_type) => v5(packet_type, role, properties, &[]),
        Will => v5(P::Connect, role, &[], properties),
    }
}

/// The rule of direction that some properties have besides the table.
fn wrong_way(id: u8, place: Place, role: Role) -> bool {
    match (id, place) {
        (0x0B, In(P::Publish)) => role == Role::Server, // [MQTT-3.3.4-6]
        (0x11, In(P::Disconnect)) => role == Role::Client, // [MQTT-3.14.2-2]
        (0x1C, In(P::Disconnect)) => role == Role::Server,
        _ => false,
    }
}

#[test]
fn c17_a_property_is_seen_where_it_is_legal_and_refused_everywhere_else() {
    let (mut legal, mut illegal) = (0, 0);
    for row in &TABLE {
        for (place, role) in places() {
            let property = cat(&[company(place, row.id), &[row.id], row.value]);
            let bytes = with(place, role, &property);
            let result = one(&bytes, Version::V5, role);
            let case = format!("property {:#04X} in {place:?} to {role:?}", row.id);
            if row.legal.contains(&place) && !wrong_way(row.id, place, role) {
                let packet = result.unwrap_or_else(|e| panic!("{case}: {e}"));
                assert!((row.seen)(&packet), "{case}: value not seen in {packet:?}");
                legal += 1;
            } else {
                let error = result.expect_err(&case);
                assert_eq!(error.reason, ReasonCode::PROTOCOL_ERROR, "{case}");
                illegal += 1;
            }
        }
    }
    assert_eq!((legal, illegal), (85, 27 * 21 - 85), "all pairs were tried");
}

#[test]
fn c16_a_single_use_property_may_not_come_twice() {
    for row in &TABLE {
        for (place, role) in places() {
            if !row.legal.contains(&place) || wrong_way(row.id, place, role) {
                continue;
            }
            let property = cat(&[&[row.id], row.value]);
            let twice = cat(&[company(place, row.id), &property, &property]);
            let bytes = with(place, role, &twice);
            let result = one(&bytes, Version::V5, role);
            let repeatable = row.id == 0x26 || (row.id == 0x0B && place == In(P::Publish));
            if repeatable {
                assert!(result.is_ok(), "{:#04X} twice in {place:?}", row.id);
            } else {
                let code = reason(result);
                assert_eq!(code, ReasonCode::PROTOCOL_ERROR, "{:#04X} in {place:?}", row.id);
            }
        }
    }
}

#[test]
fn unknown_property_identifiers_are_malformed() {
    let known: Vec<u8> = TABLE.iter().map(|row| row.id).collect();
    for id in (0..=0xFF).filter(|id| !known.contains(id)) {
        for (place, role) in places() {
            let bytes = with(place, role, &[id, 0, 0, 0, 0, 0, 0]);
            let code = reason(one(&bytes, Version::V5, role));
            assert_eq!(code, ReasonCode::MALFORMED_PACKET, "{id:#04X} in {place:?}");
        }
    }
}

#[test]
fn values_that_a_property_may_not_have_are_refused() {
    let cases: [(&str, Place, &[u8], ReasonCode); 18] = [
        ("C03 Receive Maximum 0", In(P::Connect), b"\x21\0\0", ReasonCode::PROTOCOL_ERROR),
        ("C03 Receive Maximum 0", In(P::ConnAck), b"\x21\0\0", ReasonCode::PROTOCOL_ERROR),
        ("C04 Maximum Packet Size 0", In(P::Connect), b"\x27\0\0\0\0", ReasonCode::PROTOCOL_ERROR),
        ("C04 Maximum Packet Size 0", In(P::ConnAck), b"\x27\0\0\0\0", ReasonCode::PROTOCOL_ERROR),
        ("C06 Request Response 2", In(P::Connect), b"\x19\x02", ReasonCode::PROTOCOL_ERROR),
        ("C07 Request Problem 2", In(P::Connect), b"\x17\x02", ReasonCode::PROTOCOL_ERROR),
        ("C09 data without method", In(P::Connect), b"\x16\0\0", ReasonCode::PROTOCOL_ERROR),
        ("C12 Maximum QoS 2", In(P::ConnAck), b"\x24\x02", ReasonCode::PROTOCOL_ERROR),
        ("C12 Retain Available 2", In(P::ConnAck), b"\x25\x02", ReasonCode::PROTOCOL_ERROR),
        ("C12 Wildcard Available 2", In(P::ConnAck), b"\x28\x02", ReasonCode::PROTOCOL_ERROR),
        ("P05 Payload Format 2", In(P::Publish), b"\x01\x02", ReasonCode::PROTOCOL_ERROR),
        ("P05 Payload Format 2", Will, b"\x01\x02", ReasonCode::PROTOCOL_ERROR),
        // [MQTT-3.3.2-14]
        ("P07 Response Topic a/#", In(P::Publish), b"\x08\0\x03a/#", ReasonCode::PROTOCOL_ERROR),
        ("P07 Response Topic +", Will, b"\x08\0\x01+", ReasonCode::PROTOCOL_ERROR),
        // [MQTT-3.3.2-8]
        ("S-25 Topic Alias 0", In(P::Publish), b"\x23\0\0", ReasonCode::TOPIC_ALIAS_INVALID),
        ("P11 Subscription Id 0", In(P::Subscribe), b"\x0B\0", ReasonCode::PROTOCOL_ERROR),
        (
            "P11 id of five bytes",
            In(P::Subscribe),
            b"\x0B\x80\x80\x80\x80\x01",
            ReasonCode::MALFORMED_PACKET,
        ),
        // [MQTT-1.5.5-1]
        ("P11 over-long id", In(P::Subscribe), b"\x0B\x81\0", ReasonCode::MALFORMED_PACKET),
    ];
    for (case, place, properties, expected) in cases {
        let bytes = with(place, Role::Server, properties);
        let role = if place == In(P::ConnAck) { Role::Client } else { Role::Server };
        assert_eq!(reason(one(&bytes, Version::V5, role)), expected, "{case}");
    }
    let zero = with(In(P::Publish), Role::Client, b"\x0B\0");
    assert_eq!(reason(one(&zero, Version::V5, Role::Client)), ReasonCode::PROTOCOL_ERROR);
}

#[test]
fn p11_the_largest_subscription_identifier_is_accepted() {
    let bytes = with(In(P::Subscribe), Role::Server, b"\x0B\xFF\xFF\xFF\x7F");
    let Ok(Packet::Subscribe(p)) = one(&bytes, Version::V5, Role::Server) else { panic!() };
    assert_eq!(p.subscription_id, Some(268_435_455));
}

#[test]
fn a_property_cut_by_the_property_length_is_malformed() {
    for row in &TABLE {
        for &place in row.legal {
            let role = *match place {
                In(P::Publish | P::Disconnect) if matches!(row.id, 0x0B | 0x1C) => &Role::Client,
                In(p) => &receivers(p)[0],
                Will => &Role::Server,
            };
            let whole = cat(&[&[row.id], row.value]);
            for cut in 1..whole.len() {
                let bytes = with(place, role, &whole[..cut]);
                let code = reason(one(&bytes, Version::V5, role));
                assert_eq!(code, ReasonCode::MALFORMED_PACKET, "{:#04X} {place:?}", row.id);
            }
        }
    }
}

#[test]
fn a_property_length_beyond_the_packet_is_malformed() {
    let bytes = packet(0x30, &cat(&[&field(b"t"), &[5, 1, 0]]));
    assert_eq!(reason(one(&bytes, Version::V5, Role::Server)), ReasonCode::MALFORMED_PACKET);
}

#[test]
fn c08_user_properties_keep_order_and_duplicates_in_every_packet() {
    let three = b"\x26\0\x01b\0\x011\x26\0\x01a\0\x012\x26\0\x01b\0\x011";
    for (place, role) in places() {
        let bytes = with(place, role, &cat(&[company(place, 0x26), three]));
        let packet = one(&bytes, Version::V5, role).unwrap();
        assert_eq!(users(&packet), [("b", "1"), ("a", "2"), ("b", "1")], "{place:?}");
    }
}

#[test]
fn p07_what_is_forwarded_keeps_its_order_and_loses_what_lies_between() {
    // Expiry, user, alias, content type, expiry excluded, payload format, correlation.
    let properties: &[&[u8]] = &[
        b"\x02\0\0\0\x09",
        b"\x26\0\x01z\0\x011",
        b"\x23\0\x05",
        b"\x03\0\x02ct",
        b"\x0B\x07",
        b"\x01\x01",
        b"\x26\0\x01a\0\x012",
        b"\x0B\x09",
    ];
    let bytes = with(In(P::Publish), Role::Client, &properties.concat());
    let packet = one(&bytes, Version::V5, Role::Client).unwrap();
    let expected = [properties[1], properties[3], properties[5], properties[6]].concat();
    assert_eq!(forwarded(&packet), expected);
    let Packet::Publish(p) = packet else { panic!() };
    assert_eq!(p.props.forward.as_slice_if_contiguous(), None);
    assert_eq!(p.props.forward, ringmain_mqtt::Forward::from_wire(&expected));
    // S-47, S-48: all identifiers, in order.
    assert!(p.props.subscription_ids.iter().eq([7, 9]));
    assert_eq!(p.props.subscription_ids.len(), 2);

    // Where nothing lies between, the bytes are lent as they are.
    let together = [properties[0], properties[1], properties[3]].concat();
    let bytes = with(In(P::Publish), Role::Server, &together);
    let Ok(Packet::Publish(p)) = one(&bytes, Version::V5, Role::Server) else { panic!() };
    assert_eq!(p.props.forward.as_slice_if_contiguous(), Some(&together[5..]));
}

#[test]
fn w20_sixty_thousand_user_properties_are_read_once_each() {
    let mut properties = Vec::new();
    for i in 0..60_000u32 {
        let name = format!("{i}");
        properties.extend(cat(&[&[0x26], &field(name.as_bytes()), &field(b"v")]));
    }
    let bytes = packet(0x30, &cat(&[&field(b"t"), &block(&properties), b"p"]));
    let Ok(Packet::Publish(p)) = one(&bytes, Version::V5, Role::Server) else { panic!() };
    assert_eq!(p.props.forward.wire_len(), properties.len());
    assert_eq!(p.props.forward.as_slice_if_contiguous(), Some(&properties[..]));
    assert_eq!(p.props.forward.user().iter().count(), 60_000);
}
