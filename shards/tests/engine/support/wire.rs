//! Packets as bytes: what came in, and building what no encoder would.

use ringmain_mqtt::{Packet, ReasonCode, Role, Rules, Version, decode, header};

/// One packet that the broker sent.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Got {
    pub(crate) bytes: Vec<u8>,
    pub(crate) version: Version,
}

impl Got {
    /// Decoded as a client would, strictly.
    pub(crate) fn packet(&self) -> Packet<'_> {
        let h = header(&self.bytes, false).expect("a good header").expect("whole");
        let body = &self.bytes[usize::from(h.len)..];
        decode(h, body, self.version, Role::Client, &Rules::default())
            .unwrap_or_else(|e| panic!("the broker sent {:02x?}: {e}", self.bytes))
    }

    /// The reason code of any packet that has one.
    pub(crate) fn code(&self) -> u8 {
        match self.packet() {
            Packet::ConnAck(p) => p.code.0,
            Packet::PubAck(p) | Packet::PubRec(p) | Packet::PubRel(p) | Packet::PubComp(p) => {
                p.reason.0
            }
            Packet::Disconnect(p) => p.reason.0,
            Packet::SubAck(p) | Packet::UnsubAck(p) => {
                p.codes().next().map_or(0, |c: ReasonCode| c.0)
            }
            other => panic!("no reason code: {other:?}"),
        }
    }

    /// All codes of a SUBACK or UNSUBACK.
    pub(crate) fn codes(&self) -> Vec<u8> {
        match self.packet() {
            Packet::SubAck(p) | Packet::UnsubAck(p) => p.reasons.to_vec(),
            other => panic!("no list of codes: {other:?}"),
        }
    }

    pub(crate) fn reason_string(&self) -> Option<String> {
        match self.packet() {
            Packet::ConnAck(p) => p.reason_string,
            Packet::PubAck(p) | Packet::PubRec(p) | Packet::PubRel(p) | Packet::PubComp(p) => {
                p.reason_string
            }
            Packet::Disconnect(p) => p.reason_string,
            Packet::SubAck(p) | Packet::UnsubAck(p) => p.reason_string,
            other => panic!("no reason string: {other:?}"),
        }
        .map(str::to_owned)
    }

    pub(crate) fn name(&self) -> &'static str {
        self.packet().packet_type().name()
    }
}

impl std::fmt::Debug for Got {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.packet().fmt(f)
    }
}

/// Building packets by hand.
pub(crate) mod raw {
    /// A packet of `body` behind `first`.
    pub(crate) fn packet(first: u8, body: &[u8]) -> Vec<u8> {
        let mut out = vec![first];
        varint(&mut out, body.len());
        out.extend_from_slice(body);
        out
    }

    pub(crate) fn varint(out: &mut Vec<u8>, mut value: usize) {
        while value >= 0x80 {
            out.push((value & 0x7F) as u8 | 0x80);
            value >>= 7;
        }
        out.push(value as u8);
    }

    /// `bytes` behind its two-byte length.
    pub(crate) fn field(bytes: &[u8]) -> Vec<u8> {
        let mut out = (bytes.len() as u16).to_be_bytes().to_vec();
        out.extend_from_slice(bytes);
        out
    }

    /// `properties` behind their length.
    pub(crate) fn block(properties: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        varint(&mut out, properties.len());
        out.extend_from_slice(properties);
        out
    }

    pub(crate) fn cat(parts: &[&[u8]]) -> Vec<u8> {
        parts.concat()
    }

    /// CONNECT of MQTT 5 with these property bytes and an empty will.
    pub(crate) fn connect5(client_id: &str, flags: u8, properties: &[u8]) -> Vec<u8> {
        let head = [&field(b"MQTT")[..], &[5, flags, 0, 60]].concat();
        packet(0x10, &cat(&[&head, &block(properties), &field(client_id.as_bytes())]))
    }
}
