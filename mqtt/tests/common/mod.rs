//! Building packets by hand, so that tests do not lean on the encoder.
#![allow(dead_code, unreachable_pub, reason = "each test file is a crate and uses a part")]

use ringmain_mqtt::{
    DecodeError, Packet, PacketType, ReasonCode, Role, Rules, Version, decode, header,
};

/// A packet of `body` behind `first`.
pub fn packet(first: u8, body: &[u8]) -> Vec<u8> {
    let mut out = vec![first];
    varint(&mut out, body.len());
    out.extend_from_slice(body);
    out
}

pub fn varint(out: &mut Vec<u8>, mut value: usize) {
    while value >= 0x80 {
        out.push((value & 0x7F) as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// `bytes` behind its two-byte length.
pub fn field(bytes: &[u8]) -> Vec<u8> {
    let mut out = (bytes.len() as u16).to_be_bytes().to_vec();
    out.extend_from_slice(bytes);
    out
}

/// `properties` behind their length.
pub fn block(properties: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    varint(&mut out, properties.len());
    out.extend_from_slice(properties);
    out
}

pub fn cat(parts: &[&[u8]]) -> Vec<u8> {
    parts.concat()
}

/// Decodes exactly one packet.
pub fn one(bytes: &[u8], v: Version, role: Role) -> Result<Packet<'_>, DecodeError> {
    one_with(bytes, v, role, &Rules::default())
}

pub fn one_with<'a>(
    bytes: &'a [u8],
    v: Version,
    role: Role,
    rules: &Rules,
) -> Result<Packet<'a>, DecodeError> {
    let h = header(bytes, false)?.expect("a whole header");
    assert_eq!(h.total_len(), bytes.len(), "a whole packet and no more");
    decode(h, &bytes[usize::from(h.len)..], v, role, rules)
}

pub fn reason(result: Result<Packet<'_>, DecodeError>) -> ReasonCode {
    match result {
        Ok(packet) => panic!("must be refused: {packet:?}"),
        Err(error) => error.reason,
    }
}

/// Who receives packets of this type; PUBLISH and the like go both ways.
pub fn receivers(packet_type: PacketType) -> &'static [Role] {
    use PacketType as P;
    match packet_type {
        P::Connect | P::Subscribe | P::Unsubscribe | P::PingReq => &[Role::Server],
        P::ConnAck | P::SubAck | P::UnsubAck | P::PingResp => &[Role::Client],
        _ => &[Role::Server, Role::Client],
    }
}

/// A valid MQTT 5 packet of this type with these properties; for `Connect`, with a will whose
/// properties are `will`.
pub fn v5(packet_type: PacketType, role: Role, properties: &[u8], will: &[u8]) -> Vec<u8> {
    use PacketType as P;
    let properties = block(properties);
    let id = [0, 7];
    match packet_type {
        P::Connect => packet(
            0x10,
            &cat(&[
                &field(b"MQTT"),
                &[5, 0b0000_0110, 0, 30],
                &properties,
                &field(b"c"),
                &block(will),
                &field(b"w/t"),
                &field(b"gone"),
            ]),
        ),
        P::ConnAck => packet(0x20, &cat(&[&[0, 0], &properties])),
        P::Publish => packet(0x32, &cat(&[&field(b"a/b"), &id, &properties, b"hello"])),
        P::PubAck => packet(0x40, &cat(&[&id, &[0], &properties])),
        P::PubRec => packet(0x50, &cat(&[&id, &[0], &properties])),
        P::PubRel => packet(0x62, &cat(&[&id, &[0], &properties])),
        P::PubComp => packet(0x70, &cat(&[&id, &[0], &properties])),
        P::Subscribe => packet(0x82, &cat(&[&id, &properties, &field(b"a/+"), &[1]])),
        P::SubAck => packet(0x90, &cat(&[&id, &properties, &[1]])),
        P::Unsubscribe => packet(0xA2, &cat(&[&id, &properties, &field(b"a/+")])),
        P::UnsubAck => packet(0xB0, &cat(&[&id, &properties, &[0x11]])),
        P::PingReq => packet(0xC0, &[]),
        P::PingResp => packet(0xD0, &[]),
        P::Disconnect => packet(0xE0, &cat(&[&[0x81], &properties])),
        P::Auth => {
            let code = if role == Role::Server { 0x19 } else { 0x18 };
            packet(0xF0, &cat(&[&[code], &properties]))
        }
    }
}
