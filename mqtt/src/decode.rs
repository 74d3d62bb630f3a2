//! Reading packets. Every function is total: any bytes give a packet or a [`DecodeError`].

mod connect;
mod publish;
mod response;
mod subscribe;

pub use connect::{ConnectVersion, connect_version, refusal_version};
pub use publish::decode_publish;

use crate::wire::Reader;
use crate::{DecodeError, Header, Packet, PacketId, PacketType, Role, Version};

type Result<T> = std::result::Result<T, DecodeError>;

/// How strict decoding is, from a listener's configuration.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rules {
    /// Refuse control characters and non-characters in strings. (§1.5.4: a receiver MAY.)
    pub strict_utf8: bool,
}

/// Decodes `body`, which is exactly the `h.remaining` bytes after the fixed header `h`.
///
/// `v` is the version that the connection's CONNECT agreed on; CONNECT itself ignores it. `role` is
/// the receiver's.
///
/// # Errors
/// A malformed packet or a protocol error, with the reason code to close with. A CONNECT of a
/// version unknown here is an error of 0x84: [`connect_version`] tells how to answer it.
pub fn decode<'a>(
    h: Header,
    body: &'a [u8],
    v: Version,
    role: Role,
    rules: &Rules,
) -> Result<Packet<'a>> {
    check_direction(h.packet_type, v, role)?;
    Ok(match h.packet_type {
        PacketType::Connect => Packet::Connect(connect::connect(body, rules)?),
        PacketType::ConnAck => Packet::ConnAck(response::connack(body, v, rules)?),
        PacketType::Publish => Packet::Publish(decode_publish(h, body, v, role, rules)?),
        PacketType::PubAck => Packet::PubAck(response::ack(h.packet_type, body, v, rules)?),
        PacketType::PubRec => Packet::PubRec(response::ack(h.packet_type, body, v, rules)?),
        PacketType::PubRel => Packet::PubRel(response::ack(h.packet_type, body, v, rules)?),
        PacketType::PubComp => Packet::PubComp(response::ack(h.packet_type, body, v, rules)?),
        PacketType::Subscribe => Packet::Subscribe(subscribe::subscribe(body, v, rules)?),
        PacketType::SubAck => Packet::SubAck(subscribe::suback(h.packet_type, body, v, rules)?),
        PacketType::Unsubscribe => Packet::Unsubscribe(subscribe::unsubscribe(body, v, rules)?),
        PacketType::UnsubAck => Packet::UnsubAck(subscribe::suback(h.packet_type, body, v, rules)?),
        PacketType::PingReq => {
            Reader::new(body).finish()?;
            Packet::PingReq
        }
        PacketType::PingResp => {
            Reader::new(body).finish()?;
            Packet::PingResp
        }
        PacketType::Disconnect => Packet::Disconnect(response::disconnect(body, v, role, rules)?),
        PacketType::Auth => Packet::Auth(response::auth(body, role, rules)?),
    })
}

/// Whether the peer may send such a packet at all.
fn check_direction(packet_type: PacketType, v: Version, role: Role) -> Result<()> {
    use PacketType::{
        Auth, ConnAck, Connect, Disconnect, PingReq, PingResp, SubAck, Subscribe, UnsubAck,
        Unsubscribe,
    };
    match (packet_type, role) {
        (Auth, _) if !v.is_v5() => {
            Err(DecodeError::malformed("", "packet type 15 is reserved before MQTT 5"))
        }
        (ConnAck | SubAck | UnsubAck | PingResp, Role::Server) => {
            Err(DecodeError::protocol("", "only a server sends packets of this type"))
        }
        (Connect | Subscribe | Unsubscribe | PingReq, Role::Client) => {
            Err(DecodeError::protocol("", "only a client sends packets of this type"))
        }
        (Disconnect, Role::Client) if !v.is_v5() => {
            Err(DecodeError::protocol("", "before MQTT 5 only a client sends DISCONNECT"))
        }
        _ => Ok(()),
    }
}

/// A Packet Identifier. [MQTT-2.2.1-3]
#[inline]
fn packet_id(body: &mut Reader<'_>) -> Result<PacketId> {
    PacketId::new(body.u16()?)
        .ok_or_else(|| DecodeError::protocol("MQTT-2.2.1-3", "Packet Identifier is 0"))
}
