//! Writing packets: all append to a `Vec<u8>` that the caller owns.
//!
//! Every packet struct has `wire_len`, exact, and `encode`. Those that a receiver's Maximum Packet
//! Size may cut short also have `encode_within`. In MQTT 3 all that only MQTT 5 has is left out.

mod connect;
mod publish;
mod response;

pub use publish::{HeadLayout, PublishOut};

use crate::packet::{
    Ack, Auth, ConnAck, Connect, Disconnect, Packet, SubAck, Subscribe, SubscribeOptions,
    Unsubscribe,
};
use crate::property::{UserProps, id};
use crate::wire::{Count, Sink, varint_len};
use crate::{PacketId, PacketType, ReasonCode, Version};

/// A packet that knows its first byte and its fields; length and limits follow from those.
pub(crate) trait Body: Copy {
    fn first_byte(&self) -> u8;

    /// All after the fixed header.
    fn fields<S: Sink>(&self, out: &mut S, v: Version);

    fn body_len(&self, v: Version) -> usize {
        let mut count = Count::default();
        self.fields(&mut count, v);
        count.0
    }

    fn packet_len(&self, v: Version) -> usize {
        let body = self.body_len(v);
        1 + varint_len(body as u32) + body
    }

    fn write(&self, out: &mut Vec<u8>, v: Version) {
        let body = self.body_len(v);
        out.reserve(5 + body);
        out.push(self.first_byte());
        out.varint(body as u32);
        self.fields(out, v);
    }
}

/// A packet that may lose its Reason String and User Properties to fit.
trait Trim: Body {
    fn without_user(self) -> Self;
    fn without_reason_string(self) -> Self;

    fn write_within(self, out: &mut Vec<u8>, v: Version, max: u32) -> bool {
        let no_user = self.without_user();
        for packet in [self, no_user, no_user.without_reason_string()] {
            if packet.packet_len(v) <= max as usize {
                packet.write(out, v);
                return true;
            }
        }
        false
    }
}

pub(crate) const fn first_byte(packet_type: PacketType) -> u8 {
    (packet_type as u8) << 4 | packet_type.required_flags()
}

/// Writes a property length and then the properties that `write` makes.
macro_rules! put_properties {
    ($out:expr, $packet:expr, $method:ident) => {{
        let mut count = $crate::wire::Count::default();
        $packet.$method(&mut count);
        $out.varint(count.0 as u32);
        $packet.$method($out);
    }};
}
pub(crate) use put_properties;

/// The public methods of a packet whose type is known.
macro_rules! encodable {
    ($($packet:ident)*) => {$(
        impl $packet<'_> {
            /// Bytes of the whole packet in version `v`.
            #[must_use]
            pub fn wire_len(&self, v: Version) -> usize {
                self.packet_len(v)
            }

            /// Appends the packet in version `v`.
            pub fn encode(&self, out: &mut Vec<u8>, v: Version) {
                self.write(out, v);
            }
        }
    )*};
}

encodable! { ConnAck Subscribe Unsubscribe Disconnect Auth }

macro_rules! trimmable {
    ($($packet:ident)*) => {$(
        impl $packet<'_> {
            /// Appends the packet if it fits `max` bytes, without User Properties and then without
            /// Reason String when needed. Returns `false`, writing nothing, when it does not fit.
            #[must_use = "nothing was written when it returns false"]
            pub fn encode_within(&self, out: &mut Vec<u8>, v: Version, max: u32) -> bool {
                self.write_within(out, v, max)
            }
        }

        impl Trim for $packet<'_> {
            fn without_user(self) -> Self {
                Self { user: UserProps::EMPTY, ..self }
            }

            fn without_reason_string(self) -> Self {
                Self { reason_string: None, ..self }
            }
        }
    )*};
}

trimmable! { ConnAck Disconnect Auth }

impl Connect<'_> {
    /// Bytes of the whole packet.
    #[must_use]
    pub fn wire_len(&self) -> usize {
        self.packet_len(self.version)
    }

    /// Appends the packet in its own version.
    pub fn encode(&self, out: &mut Vec<u8>) {
        self.write(out, self.version);
    }
}

/// The methods of packets that share a struct among several types.
macro_rules! encodable_as {
    ($($packet:ident $typed:ident $types:literal)*) => {$(
        impl $packet<'_> {
            #[doc = concat!("Bytes of the whole packet in version `v`. `packet_type` is one of ", $types, ".")]
            #[must_use]
            pub fn wire_len(&self, v: Version, packet_type: PacketType) -> usize {
                response::$typed(packet_type, *self).packet_len(v)
            }

            #[doc = concat!("Appends the packet in version `v`. `packet_type` is one of ", $types, ".")]
            pub fn encode(&self, out: &mut Vec<u8>, v: Version, packet_type: PacketType) {
                response::$typed(packet_type, *self).write(out, v);
            }

            /// Appends the packet if it fits `max` bytes, without User Properties and then without
            /// Reason String when needed. Returns `false`, writing nothing, when it does not fit.
            #[must_use = "nothing was written when it returns false"]
            pub fn encode_within(
                &self,
                out: &mut Vec<u8>,
                v: Version,
                packet_type: PacketType,
                max: u32,
            ) -> bool {
                response::$typed(packet_type, *self).write_within(out, v, max)
            }
        }

        impl Trim for response::$typed<'_> {
            fn without_user(self) -> Self {
                Self(self.0, $packet { user: UserProps::EMPTY, ..self.1 })
            }

            fn without_reason_string(self) -> Self {
                Self(self.0, $packet { reason_string: None, ..self.1 })
            }
        }
    )*};
}

encodable_as! {
    Ack TypedAck "PUBACK, PUBREC, PUBREL, PUBCOMP"
    SubAck TypedSubAck "SUBACK, UNSUBACK"
}

impl Packet<'_> {
    /// Its type.
    #[must_use]
    pub const fn packet_type(&self) -> PacketType {
        match self {
            Self::Connect(_) => PacketType::Connect,
            Self::ConnAck(_) => PacketType::ConnAck,
            Self::Publish(_) => PacketType::Publish,
            Self::PubAck(_) => PacketType::PubAck,
            Self::PubRec(_) => PacketType::PubRec,
            Self::PubRel(_) => PacketType::PubRel,
            Self::PubComp(_) => PacketType::PubComp,
            Self::Subscribe(_) => PacketType::Subscribe,
            Self::SubAck(_) => PacketType::SubAck,
            Self::Unsubscribe(_) => PacketType::Unsubscribe,
            Self::UnsubAck(_) => PacketType::UnsubAck,
            Self::PingReq => PacketType::PingReq,
            Self::PingResp => PacketType::PingResp,
            Self::Disconnect(_) => PacketType::Disconnect,
            Self::Auth(_) => PacketType::Auth,
        }
    }

    /// Appends the packet in version `v` (CONNECT in its own). The order of properties may differ
    /// from that in which they were received, but for those that are forwarded.
    pub fn encode(&self, out: &mut Vec<u8>, v: Version) {
        let packet_type = self.packet_type();
        match self {
            Self::Connect(p) => p.encode(out),
            Self::ConnAck(p) => p.encode(out, v),
            Self::Publish(p) => p.encode(out, v),
            Self::PubAck(p) | Self::PubRec(p) | Self::PubRel(p) | Self::PubComp(p) => {
                p.encode(out, v, packet_type);
            }
            Self::Subscribe(p) => p.encode(out, v),
            Self::SubAck(p) | Self::UnsubAck(p) => p.encode(out, v, packet_type),
            Self::Unsubscribe(p) => p.encode(out, v),
            Self::PingReq => pingreq(out),
            Self::PingResp => pingresp(out),
            Self::Disconnect(p) => p.encode(out, v),
            Self::Auth(p) => p.encode(out, v),
        }
    }
}

/// Appends PUBACK, PUBREC, PUBREL or PUBCOMP without User Properties.
#[inline]
pub fn ack(
    out: &mut Vec<u8>,
    v: Version,
    packet_type: PacketType,
    packet_id: PacketId,
    reason: ReasonCode,
    reason_string: Option<&str>,
) {
    if reason_string.is_some() {
        let packet = Ack { packet_id, reason, reason_string, user: UserProps::EMPTY };
        return packet.encode(out, v, packet_type);
    }
    let [hi, lo] = packet_id.get().to_be_bytes();
    let first = first_byte(packet_type);
    // The usual case, without a property: the short forms of §3.4.2.1.
    if v.is_v5() && reason != ReasonCode::SUCCESS {
        out.extend_from_slice(&[first, 3, hi, lo, reason.0]);
    } else {
        out.extend_from_slice(&[first, 2, hi, lo]);
    }
}

/// Appends SUBACK without properties; see [`SubAck`] for what MQTT 3 makes of the codes.
pub fn suback(out: &mut Vec<u8>, v: Version, packet_id: PacketId, reasons: &[u8]) {
    let packet = SubAck { packet_id, reasons, reason_string: None, user: UserProps::EMPTY };
    packet.encode(out, v, PacketType::SubAck);
}

/// Appends UNSUBACK without properties; in MQTT 3 it carries no codes.
pub fn unsuback(out: &mut Vec<u8>, v: Version, packet_id: PacketId, reasons: &[u8]) {
    let packet = SubAck { packet_id, reasons, reason_string: None, user: UserProps::EMPTY };
    packet.encode(out, v, PacketType::UnsubAck);
}

/// Appends PINGREQ.
#[inline]
pub fn pingreq(out: &mut Vec<u8>) {
    out.extend_from_slice(&[first_byte(PacketType::PingReq), 0]);
}

/// Appends PINGRESP.
#[inline]
pub fn pingresp(out: &mut Vec<u8>) {
    out.extend_from_slice(&[first_byte(PacketType::PingResp), 0]);
}

/// Appends SUBSCRIBE for `filters`, which must not be empty. [MQTT-3.8.3-2]
pub fn subscribe(
    out: &mut Vec<u8>,
    v: Version,
    packet_id: PacketId,
    subscription_id: Option<u32>,
    filters: &[(&str, SubscribeOptions)],
) {
    connect::Filters {
        packet_type: PacketType::Subscribe,
        packet_id,
        subscription_id,
        user: UserProps::EMPTY,
        filters: filters.iter().map(|&(filter, options)| (filter, Some(options))),
    }
    .write(out, v);
}

/// Appends UNSUBSCRIBE for `filters`, which must not be empty. [MQTT-3.10.3-2]
pub fn unsubscribe(out: &mut Vec<u8>, v: Version, packet_id: PacketId, filters: &[&str]) {
    connect::Filters {
        packet_type: PacketType::Unsubscribe,
        packet_id,
        subscription_id: None,
        user: UserProps::EMPTY,
        filters: filters.iter().map(|&filter| (filter, None)),
    }
    .write(out, v);
}

/// The two properties that most packets of MQTT 5 may carry.
fn put_reason_and_user<S: Sink>(out: &mut S, reason_string: Option<&str>, user: &UserProps) {
    out.str_property(id::REASON_STRING, reason_string);
    user.put(out);
}
