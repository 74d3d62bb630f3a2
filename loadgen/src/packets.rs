//! The packets that a client sends and gets: the seam to the codec.

use ringmain_mqtt::{
    Connect, ConnectProps, DecodeError, Disconnect, Forward, Packet, PacketId, PacketType, Publish,
    PublishProps, QoS, ReasonCode, Role, Rules, SubscribeOptions, UserProps, Version, Will, decode,
    decode_publish, encode, header,
};

use ringmain_mqtt::property::PropertyWriter;

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
        /// Session Present.
        session_present: bool,
    },
    /// SUBACK.
    SubAck {
        /// The largest reason code: a failure, if there is one.
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
        Packet::ConnAck(c) => {
            Incoming::ConnAck { code: c.code.0, session_present: c.session_present }
        }
        Packet::SubAck(s) => {
            Incoming::SubAck { code: s.reasons.iter().copied().max().unwrap_or(0x80) }
        }
        Packet::PubAck(a) | Packet::PubRec(a) | Packet::PubRel(a) | Packet::PubComp(a) => ack(a),
        Packet::PingResp => Incoming::PingResp,
        Packet::Disconnect(d) => Incoming::Disconnect { code: d.reason.0 },
        _ => Incoming::Other,
    };
    Ok(Some((incoming, total)))
}

/// Who a client is, and the will that it leaves.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Names<'a> {
    pub(crate) client_id: &'a str,
    pub(crate) username: Option<&'a str>,
    pub(crate) password: Option<&'a str>,
    /// Will Topic and payload, where the plan has a will.
    pub(crate) will: Option<(&'a str, &'a [u8])>,
}

/// Appends CONNECT.
pub(crate) fn connect(out: &mut Vec<u8>, plan: &ConnectPlan, names: &Names<'_>) {
    let mut user = Vec::new();
    let mut properties = PropertyWriter::new(&mut user);
    for (name, value) in &plan.user_properties {
        properties.user(name, value);
    }
    let will = plan.will.as_ref().zip(names.will).map(|(w, (topic, payload))| Will {
        qos: w.qos,
        retain: w.retain,
        topic,
        payload,
        delay_s: w.delay_s,
        message_expiry_s: None,
        payload_format: None,
        forward: Forward::EMPTY,
    });
    let packet = Connect {
        version: plan.version,
        bridge: false,
        clean_start: plan.clean_start,
        keep_alive_s: plan.keep_alive_s,
        client_id: names.client_id,
        username: names.username,
        password: names.password.map(str::as_bytes),
        will,
        props: ConnectProps {
            session_expiry_s: plan.session_expiry_s,
            receive_maximum: plan.receive_maximum,
            maximum_packet_size: plan.maximum_packet_size,
            user: UserProps::from_wire(&user),
            ..ConnectProps::default()
        },
    };
    packet.encode(out);
}

/// Appends SUBSCRIBE.
pub(crate) fn subscribe(
    out: &mut Vec<u8>,
    v: Version,
    packet_id: PacketId,
    plan: &SubscribePlan,
    filters: &[String],
) {
    let options = SubscribeOptions {
        qos: plan.qos,
        no_local: plan.no_local,
        retain_as_published: plan.retain_as_published,
        retain_handling: plan.retain_handling,
    };
    let options = if v.is_v5() {
        options
    } else {
        SubscribeOptions { qos: plan.qos, ..SubscribeOptions::default() }
    };
    let filters: Vec<_> = filters.iter().map(|f| (f.as_str(), options)).collect();
    let id = plan.subscription_id.filter(|_| v.is_v5());
    encode::subscribe(out, v, packet_id, id, &filters);
}

/// A PUBLISH without its payload.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Head<'a> {
    pub(crate) topic: &'a str,
    pub(crate) qos: QoS,
    pub(crate) retain: bool,
    pub(crate) dup: bool,
    pub(crate) packet_id: Option<PacketId>,
}

/// Appends PUBLISH.
pub(crate) fn publish(out: &mut Vec<u8>, v: Version, head: &Head<'_>, payload: &[u8]) {
    let Head { topic, qos, retain, dup, packet_id } = *head;
    let props = PublishProps::default();
    Publish { dup, qos, retain, topic, packet_id, props, payload }.encode(out, v);
}

/// Appends an acknowledgement with reason code 0.
pub(crate) fn ack(out: &mut Vec<u8>, v: Version, kind: PacketType, packet_id: PacketId) {
    encode::ack(out, v, kind, packet_id, ReasonCode::SUCCESS, None);
}

/// Appends DISCONNECT with reason code 0.
pub(crate) fn disconnect(out: &mut Vec<u8>, v: Version) {
    Disconnect::default().encode(out, v);
}
