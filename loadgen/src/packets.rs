//! The packets that a client sends and gets: the seam to the codec.

use ringmain_mqtt::{
    Connect, ConnectProps, DecodeError, Disconnect, Packet, PacketId, PacketType, Publish,
    PublishProps, QoS, ReasonCode, Role, Rules, SubscribeOptions, Version, decode, decode_publish,
    encode, header,
};

use crate::plan::{ConnectPlan, SubscribePlan};

/// PINGREQ.
pub(crate) const PINGREQ: [u8; 2] = [0xC0, 0];

/// A packet from the broker, as far as a load generator looks at it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Incoming<'a> {
    /// CONNACK.
    ConnAck {
        /// Connect Reason Code in its MQTT 5 form.
        code: u8,
    },
    /// SUBACK.
    SubAck {
        /// The first reason code.
        code: u8,
    },
    /// PUBLISH.
    Publish(Publish<'a>),
    /// PUBACK, PUBREC, PUBREL or PUBCOMP.
    Ack {
        /// Which.
        kind: PacketType,
        /// Packet Identifier.
        packet_id: PacketId,
        /// Reason code.
        code: u8,
    },
    /// PINGRESP.
    PingResp,
    /// DISCONNECT.
    Disconnect {
        /// Reason code.
        code: u8,
    },
    /// Anything else: nothing here answers it.
    Other,
}

/// Takes the next packet off the front of `buf` and says how many bytes it had; `None` when it is
/// not complete.
///
/// # Errors
/// The broker's fault.
#[inline]
pub(crate) fn next(buf: &[u8], v: Version) -> Result<Option<(Incoming<'_>, usize)>, DecodeError> {
    const RULES: Rules = Rules { strict_utf8: false };
    let Some(h) = header(buf, false)? else { return Ok(None) };
    let total = h.total_len();
    let Some(body) = buf.get(usize::from(h.len)..total) else { return Ok(None) };
    if h.packet_type == PacketType::Publish {
        let publish = decode_publish(h, body, v, Role::Client, &RULES)?;
        return Ok(Some((Incoming::Publish(publish), total)));
    }
    let ack = |a: ringmain_mqtt::Ack<'_>| Incoming::Ack {
        kind: h.packet_type,
        packet_id: a.packet_id,
        code: a.reason.0,
    };
    let incoming = match decode(h, body, v, Role::Client, &RULES)? {
        Packet::ConnAck(c) => Incoming::ConnAck { code: c.code.0 },
        Packet::SubAck(s) => Incoming::SubAck { code: s.reasons.first().copied().unwrap_or(0x80) },
        Packet::PubAck(a) | Packet::PubRec(a) | Packet::PubRel(a) | Packet::PubComp(a) => ack(a),
        Packet::PingResp => Incoming::PingResp,
        Packet::Disconnect(d) => Incoming::Disconnect { code: d.reason.0 },
        _ => Incoming::Other,
    };
    Ok(Some((incoming, total)))
}

/// Appends CONNECT.
pub(crate) fn connect(out: &mut Vec<u8>, plan: &ConnectPlan, number: u64, client_id: &str) {
    let username = plan.username.as_ref().map(|t| t.render(number, client_id));
    let password = plan.password.as_ref().map(|t| t.render(number, client_id));
    let packet = Connect {
        version: plan.version,
        bridge: false,
        clean_start: plan.clean_start,
        keep_alive_s: plan.keep_alive_s,
        client_id,
        username: username.as_deref(),
        password: password.as_deref().map(str::as_bytes),
        will: None,
        props: ConnectProps {
            session_expiry_s: plan.session_expiry_s,
            receive_maximum: plan.receive_maximum,
            ..ConnectProps::default()
        },
    };
    packet.encode(out);
}

/// Appends SUBSCRIBE with one filter and packet identifier 1.
pub(crate) fn subscribe(out: &mut Vec<u8>, v: Version, plan: &SubscribePlan, filter: &str) {
    let id = PacketId::new(1).expect("1 is a packet identifier");
    let options = SubscribeOptions { qos: plan.qos, ..SubscribeOptions::default() };
    encode::subscribe(out, v, id, None, &[(filter, options)]);
}

/// Appends PUBLISH.
pub(crate) fn publish(
    out: &mut Vec<u8>,
    v: Version,
    topic: &str,
    qos: QoS,
    retain: bool,
    packet_id: Option<PacketId>,
    payload: &[u8],
) {
    let props = PublishProps::default();
    Publish { dup: false, qos, retain, topic, packet_id, props, payload }.encode(out, v);
}

/// Appends an acknowledgement with reason code 0.
pub(crate) fn ack(out: &mut Vec<u8>, v: Version, kind: PacketType, packet_id: PacketId) {
    encode::ack(out, v, kind, packet_id, ReasonCode::SUCCESS, None);
}

/// Appends DISCONNECT with reason code 0.
pub(crate) fn disconnect(out: &mut Vec<u8>, v: Version) {
    Disconnect::default().encode(out, v);
}
