//! Packets as the simulated clients see them: owned, and written and read by the `mqtt` crate in
//! the client's role.

use ringmain_mqtt as mqtt;
use ringmain_mqtt::{PacketId, PacketType, QoS, ReasonCode, Role, SubscribeOptions, Version};

/// Reason Code of a DISCONNECT that suppresses the will.
pub const NORMAL: u8 = 0x00;

/// A PUBLISH in either direction.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Publish {
    /// DUP flag.
    pub dup: bool,
    /// QoS 0..=2.
    pub qos: u8,
    /// RETAIN flag.
    pub retain: bool,
    /// Topic; empty with an alias alone. The observer of a server's packets fills it in.
    pub topic: String,
    /// Packet identifier, 0 with QoS 0.
    pub pid: u16,
    /// Payload.
    pub payload: Vec<u8>,
    /// Message Expiry Interval in seconds.
    pub expiry_s: Option<u32>,
    /// Topic Alias.
    pub alias: Option<u16>,
    /// Subscription Identifiers.
    pub sub_ids: Vec<u32>,
    /// Correlation Data: carries the number of a message whose payload is empty.
    pub correlation: Option<Vec<u8>>,
}

/// The will of a CONNECT.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Will {
    /// Will Topic.
    pub topic: String,
    /// Will Payload.
    pub payload: Vec<u8>,
    /// Will QoS.
    pub qos: u8,
    /// Will Retain.
    pub retain: bool,
    /// Will Delay Interval in seconds.
    pub delay_s: u32,
}

/// A CONNECT.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Connect {
    /// 3, 4 or 5.
    pub version: u8,
    /// Client Identifier.
    pub client_id: String,
    /// Clean Start.
    pub clean: bool,
    /// Keep Alive in seconds.
    pub keep_alive_s: u16,
    /// Session Expiry Interval (version 5), in seconds.
    pub expiry_s: Option<u32>,
    /// Receive Maximum.
    pub receive_max: Option<u16>,
    /// Maximum Packet Size in bytes.
    pub packet_max: Option<u32>,
    /// Topic Alias Maximum.
    pub alias_max: Option<u16>,
    /// The will.
    pub will: Option<Will>,
}

/// One filter of a SUBSCRIBE.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Filter {
    /// As on the wire, `$share/…` included.
    pub text: String,
    /// Maximum QoS.
    pub qos: u8,
    /// No Local.
    pub no_local: bool,
    /// Retain As Published.
    pub rap: bool,
    /// Retain Handling 0..=2.
    pub rh: u8,
}

/// What a client sends.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "each variant is the packet of that name")]
pub enum ToServer {
    Connect(Box<Connect>),
    Publish(Publish),
    PubAck { pid: u16, reason: u8 },
    PubRec { pid: u16, reason: u8 },
    PubRel { pid: u16 },
    PubComp { pid: u16 },
    Subscribe { pid: u16, sub_id: Option<u32>, filters: Vec<Filter> },
    Unsubscribe { pid: u16, filters: Vec<String> },
    PingReq,
    Disconnect { reason: u8, expiry_s: Option<u32> },
}

/// What a CONNACK says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ConnAck {
    /// Session Present.
    pub session_present: bool,
    /// Connect Reason Code in its MQTT 5 form.
    pub code: u8,
    /// Session Expiry Interval in seconds, where the server's differs.
    pub expiry_s: Option<u32>,
    /// Receive Maximum of the server.
    pub receive_max: Option<u16>,
    /// Maximum Packet Size of the server.
    pub packet_max: Option<u32>,
    /// Topic Alias Maximum of the server.
    pub alias_max: Option<u16>,
    /// Server Keep Alive.
    pub keep_alive_s: Option<u16>,
}

/// What the server sends.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "each variant is the packet of that name")]
pub enum ToClient {
    ConnAck(ConnAck),
    Publish(Publish),
    PubAck { pid: u16, reason: u8 },
    PubRec { pid: u16, reason: u8 },
    PubRel { pid: u16, reason: u8 },
    PubComp { pid: u16, reason: u8 },
    SubAck { pid: u16, codes: Vec<u8> },
    UnsubAck { pid: u16, codes: Vec<u8> },
    PingResp,
    Disconnect { reason: u8 },
    Auth,
}

fn version(v: u8) -> Version {
    match v {
        3 => Version::V31,
        4 => Version::V311,
        _ => Version::V5,
    }
}

fn qos(bits: u8) -> QoS {
    QoS::from_bits(bits).unwrap_or_default()
}

fn packet_id(pid: u16) -> PacketId {
    PacketId::new(pid).unwrap_or_else(|| panic!("a client wanted to send packet identifier 0"))
}

impl Filter {
    fn options(&self) -> SubscribeOptions {
        let retain_handling = match self.rh {
            0 => mqtt::RetainHandling::Send,
            1 => mqtt::RetainHandling::SendIfNew,
            _ => mqtt::RetainHandling::DoNotSend,
        };
        SubscribeOptions {
            qos: qos(self.qos),
            no_local: self.no_local,
            retain_as_published: self.rap,
            retain_handling,
        }
    }
}

impl ToServer {
    /// Appends the packet as bytes for protocol version `v` (3, 4 or 5).
    pub fn encode(&self, out: &mut Vec<u8>, v: u8) {
        let ver = version(v);
        let ack = |out: &mut Vec<u8>, kind, pid, reason| {
            mqtt::encode::ack(out, ver, kind, packet_id(pid), ReasonCode(reason), None);
        };
        match self {
            Self::Connect(c) => encode_connect(c, out),
            Self::Publish(p) => encode_publish(p, out, ver),
            Self::PubAck { pid, reason } => ack(out, PacketType::PubAck, *pid, *reason),
            Self::PubRec { pid, reason } => ack(out, PacketType::PubRec, *pid, *reason),
            Self::PubRel { pid } => ack(out, PacketType::PubRel, *pid, 0),
            Self::PubComp { pid } => ack(out, PacketType::PubComp, *pid, 0),
            Self::Subscribe { pid, sub_id, filters } => {
                let filters: Vec<_> =
                    filters.iter().map(|f| (f.text.as_str(), f.options())).collect();
                mqtt::encode::subscribe(out, ver, packet_id(*pid), *sub_id, &filters);
            }
            Self::Unsubscribe { pid, filters } => {
                let filters: Vec<_> = filters.iter().map(String::as_str).collect();
                mqtt::encode::unsubscribe(out, ver, packet_id(*pid), &filters);
            }
            Self::PingReq => mqtt::encode::pingreq(out),
            Self::Disconnect { reason, expiry_s } => {
                let d = mqtt::Disconnect {
                    reason: ReasonCode(*reason),
                    session_expiry_s: *expiry_s,
                    ..Default::default()
                };
                d.encode(out, ver);
            }
        }
    }
}

fn encode_connect(c: &Connect, out: &mut Vec<u8>) {
    let will = c.will.as_ref().map(|w| mqtt::Will {
        qos: qos(w.qos),
        retain: w.retain,
        topic: &w.topic,
        payload: &w.payload,
        delay_s: (c.version == 5 && w.delay_s != 0).then_some(w.delay_s),
        message_expiry_s: None,
        payload_format: None,
        forward: mqtt::Forward::EMPTY,
    });
    let connect = mqtt::Connect {
        version: version(c.version),
        bridge: false,
        clean_start: c.clean,
        keep_alive_s: c.keep_alive_s,
        client_id: &c.client_id,
        username: None,
        password: None,
        will,
        props: mqtt::ConnectProps {
            session_expiry_s: c.expiry_s,
            receive_maximum: c.receive_max,
            maximum_packet_size: c.packet_max,
            topic_alias_maximum: c.alias_max,
            ..Default::default()
        },
    };
    connect.encode(out);
}

fn encode_publish(p: &Publish, out: &mut Vec<u8>, ver: Version) {
    let mut props = Vec::new();
    if let Some(correlation) = &p.correlation {
        mqtt::property::PropertyWriter::new(&mut props).correlation(correlation);
    }
    let head = mqtt::PublishOut {
        dup: p.dup,
        qos: qos(p.qos),
        retain: p.retain,
        topic: &p.topic,
        packet_id: p.pid,
        message_expiry_s: p.expiry_s,
        topic_alias: p.alias,
        subscription_ids: &p.sub_ids,
        forward: mqtt::Forward::from_wire(&props),
        payload_len: p.payload.len(),
    };
    head.encode_head(out, ver);
    out.extend_from_slice(&p.payload);
}

/// Takes one packet off the front of `bytes`, which a server wrote to a client of version `v`.
/// `Ok(None)` when it is not complete.
///
/// # Errors
/// What is wrong with the bytes.
pub fn decode(bytes: &[u8], v: u8) -> Result<Option<(ToClient, usize)>, String> {
    let Some(header) = mqtt::header(bytes, false).map_err(|e| e.to_string())? else {
        return Ok(None);
    };
    let total = header.total_len();
    if bytes.len() < total {
        return Ok(None);
    }
    let body = &bytes[usize::from(header.len)..total];
    let packet = mqtt::decode(header, body, version(v), Role::Client, &mqtt::Rules::default())
        .map_err(|e| format!("{}: {e}", header.packet_type.name()))?;
    Ok(Some((owned(&packet)?, total)))
}

fn owned(packet: &mqtt::Packet<'_>) -> Result<ToClient, String> {
    let ack = |a: &mqtt::Ack<'_>| (a.packet_id.get(), a.reason.0);
    Ok(match packet {
        mqtt::Packet::ConnAck(c) => ToClient::ConnAck(ConnAck {
            session_present: c.session_present,
            code: c.code.0,
            expiry_s: c.session_expiry_s,
            receive_max: c.receive_maximum,
            packet_max: c.maximum_packet_size,
            alias_max: c.topic_alias_maximum,
            keep_alive_s: c.server_keep_alive_s,
        }),
        mqtt::Packet::Publish(p) => ToClient::Publish(owned_publish(p)),
        mqtt::Packet::PubAck(a) => {
            let (pid, reason) = ack(a);
            ToClient::PubAck { pid, reason }
        }
        mqtt::Packet::PubRec(a) => {
            let (pid, reason) = ack(a);
            ToClient::PubRec { pid, reason }
        }
        mqtt::Packet::PubRel(a) => {
            let (pid, reason) = ack(a);
            ToClient::PubRel { pid, reason }
        }
        mqtt::Packet::PubComp(a) => {
            let (pid, reason) = ack(a);
            ToClient::PubComp { pid, reason }
        }
        mqtt::Packet::SubAck(a) => {
            ToClient::SubAck { pid: a.packet_id.get(), codes: a.reasons.to_vec() }
        }
        mqtt::Packet::UnsubAck(a) => {
            ToClient::UnsubAck { pid: a.packet_id.get(), codes: a.reasons.to_vec() }
        }
        mqtt::Packet::PingResp => ToClient::PingResp,
        mqtt::Packet::Disconnect(d) => ToClient::Disconnect { reason: d.reason.0 },
        mqtt::Packet::Auth(_) => ToClient::Auth,
        other => return Err(format!("a server never sends {}", other.packet_type().name())),
    })
}

fn owned_publish(p: &mqtt::Publish<'_>) -> Publish {
    Publish {
        dup: p.dup,
        qos: p.qos as u8,
        retain: p.retain,
        topic: p.topic.to_owned(),
        pid: p.packet_id.map_or(0, PacketId::get),
        payload: p.payload.to_vec(),
        expiry_s: p.props.message_expiry_s,
        alias: p.props.topic_alias,
        sub_ids: p.props.subscription_ids.iter().collect(),
        correlation: p.props.correlation.map(<[u8]>::to_vec),
    }
}
