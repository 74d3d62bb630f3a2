//! Scripted clients.

use ringmain_mqtt::property::PropertyWriter;
use ringmain_mqtt::{
    Ack, Connect, ConnectProps, Disconnect, Forward, Packet, PacketId, PacketType, Publish,
    PublishProps, QoS, ReasonCode, RetainHandling, SubscribeOptions, UserProps, Version, Will,
    encode, header,
};
use ringmain_shards::engine::input::CloseCause;
use ringmain_shards::engine::introduction::Introduction;

use super::wire::Got;
use super::{Node, V5};

/// A client: an index into the node's.
#[derive(Clone, Debug)]
pub(crate) struct Client {
    pub(crate) wire: usize,
    pub(crate) version: Version,
    next_id: u16,
}

impl Client {
    /// A client on a connection that is open already.
    pub(crate) fn on(wire: usize, version: Version) -> Self {
        Self { wire, version, next_id: 0 }
    }
}

/// A client of the node.
pub(crate) type C = usize;

/// A message that a client got.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Msg {
    pub(crate) topic: String,
    pub(crate) payload: Vec<u8>,
    pub(crate) qos: u8,
    pub(crate) retain: bool,
    pub(crate) dup: bool,
    pub(crate) id: u16,
    pub(crate) expiry: Option<u32>,
    pub(crate) alias: Option<u16>,
    pub(crate) sub_ids: Vec<u32>,
    /// Forwarded properties as they are on the wire.
    pub(crate) forward: Vec<u8>,
}

impl Msg {
    pub(crate) fn of(got: &Got) -> Option<Self> {
        let Packet::Publish(p) = got.packet() else { return None };
        let mut forward = Vec::new();
        p.props.forward.append_to(&mut forward);
        Some(Self {
            topic: p.topic.to_owned(),
            payload: p.payload.to_vec(),
            qos: p.qos as u8,
            retain: p.retain,
            dup: p.dup,
            id: p.packet_id.map_or(0, PacketId::get),
            expiry: p.props.message_expiry_s,
            alias: p.props.topic_alias,
            sub_ids: p.props.subscription_ids.iter().collect(),
            forward,
        })
    }

    pub(crate) fn text(&self) -> &str {
        std::str::from_utf8(&self.payload).expect("text")
    }
}

/// Payloads in order.
pub(crate) fn texts(msgs: &[Msg]) -> Vec<&str> {
    msgs.iter().map(Msg::text).collect()
}

pub(crate) fn qos(level: u8) -> QoS {
    QoS::from_bits(level).expect("0, 1 or 2")
}

pub(crate) fn pid(id: u16) -> PacketId {
    PacketId::new(id).expect("not 0")
}

/// A CONNECT with everything at its default: clean, keep-alive off.
pub(crate) fn connect(version: Version, client_id: &str) -> Connect<'_> {
    Connect::new(version, client_id)
}

/// A CONNECT whose session outlives its connection.
pub(crate) fn persistent(version: Version, client_id: &str) -> Connect<'_> {
    let session_expiry_s = (version == V5).then_some(3600);
    let props = ConnectProps { session_expiry_s, ..ConnectProps::default() };
    Connect { clean_start: false, props, ..connect(version, client_id) }
}

pub(crate) fn will<'a>(topic: &'a str, payload: &'a str, level: u8) -> Will<'a> {
    Will {
        qos: qos(level),
        retain: false,
        topic,
        payload: payload.as_bytes(),
        delay_s: None,
        message_expiry_s: None,
        payload_format: None,
        forward: Forward::EMPTY,
    }
}

/// Properties as they are on the wire.
pub(crate) fn props(write: impl FnOnce(&mut PropertyWriter<'_>)) -> Vec<u8> {
    let mut out = Vec::new();
    write(&mut PropertyWriter::new(&mut out));
    out
}

pub(crate) fn sub_opts(level: u8) -> SubscribeOptions {
    SubscribeOptions {
        qos: qos(level),
        no_local: false,
        retain_as_published: false,
        retain_handling: RetainHandling::Send,
    }
}

pub(crate) fn publish<'a>(topic: &'a str, level: u8, payload: &'a str) -> Publish<'a> {
    Publish {
        dup: false,
        qos: qos(level),
        retain: false,
        topic,
        packet_id: None,
        props: PublishProps::default(),
        payload: payload.as_bytes(),
    }
}

pub(crate) fn retained<'a>(topic: &'a str, level: u8, payload: &'a str) -> Publish<'a> {
    Publish { retain: true, ..publish(topic, level, payload) }
}

impl Node {
    // ---- connecting -------------------------------------------------------------------------------

    /// Opens a connection and sends CONNECT; the answer is left to be read.
    pub(crate) fn dial(&mut self, c: &Connect<'_>) -> C {
        let mut bytes = Vec::new();
        c.encode(&mut bytes);
        self.dial_raw(c.version, &bytes)
    }

    /// Opens a connection that comes by way of a proxy, from elsewhere than it seems, and sends CONNECT.
    pub(crate) fn dial_from(&mut self, addr: &str, c: &Connect<'_>) -> C {
        let addr = Some(addr.parse().expect("an address"));
        self.dial_as(&Introduction { addr, ..Introduction::default() }, c)
    }

    /// Opens a connection of which its transport says something, and sends CONNECT.
    pub(crate) fn dial_as(&mut self, introduction: &Introduction, c: &Connect<'_>) -> C {
        let wire = self.open();
        self.introduce(wire, introduction);
        self.adopt(wire, c)
    }

    /// Sends CONNECT on a connection that is open.
    pub(crate) fn adopt(&mut self, wire: usize, c: &Connect<'_>) -> C {
        self.clients.push(Client::on(wire, c.version));
        let mut bytes = Vec::new();
        c.encode(&mut bytes);
        self.write(wire, &bytes);
        self.clients.len() - 1
    }

    /// Opens a connection and sends bytes.
    pub(crate) fn dial_raw(&mut self, version: Version, bytes: &[u8]) -> C {
        let wire = self.open();
        self.clients.push(Client::on(wire, version));
        self.write(wire, bytes);
        self.clients.len() - 1
    }

    /// Connects and expects success; returns the client and Session Present.
    pub(crate) fn connected(&mut self, c: &Connect<'_>) -> (C, bool) {
        let client = self.dial(c);
        let got = self.recv(client);
        let Packet::ConnAck(ack) = got.packet() else { panic!("no CONNACK: {got:?}") };
        assert_eq!(ack.code, ReasonCode::SUCCESS);
        (client, ack.session_present)
    }

    /// A clean session.
    pub(crate) fn join(&mut self, version: Version, client_id: &str) -> C {
        self.connected(&connect(version, client_id)).0
    }

    /// A clean session on each shard.
    pub(crate) fn join_each(&mut self, version: Version, prefix: &str) -> Vec<C> {
        let mut out = Vec::new();
        for shard in 0..self.shards() {
            let id = self.id_on(shard, prefix);
            out.push(self.join(version, &id));
        }
        out
    }

    /// A session that outlives its connection.
    pub(crate) fn resume(&mut self, version: Version, client_id: &str) -> C {
        self.connected(&persistent(version, client_id)).0
    }

    pub(crate) fn drop_conn(&mut self, c: C) {
        self.hang_up(self.clients[c].wire, CloseCause::PeerFin);
    }

    /// DISCONNECT 0x00.
    pub(crate) fn leave(&mut self, c: C) {
        self.disconnect(c, &Disconnect::default());
    }

    pub(crate) fn disconnect(&mut self, c: C, d: &Disconnect<'_>) {
        self.send(c, &Packet::Disconnect(*d));
    }

    // ---- writing ----------------------------------------------------------------------------------

    pub(crate) fn send(&mut self, c: C, packet: &Packet<'_>) {
        let mut bytes = Vec::new();
        packet.encode(&mut bytes, self.clients[c].version);
        self.send_raw(c, &bytes);
    }

    pub(crate) fn send_raw(&mut self, c: C, bytes: &[u8]) {
        self.write(self.clients[c].wire, bytes);
    }

    pub(crate) fn next_id(&mut self, c: C) -> PacketId {
        let next = &mut self.clients[c].next_id;
        *next = next.wrapping_add(1).max(1);
        pid(*next)
    }

    /// PUBLISH, with a new packet id unless it has one; returns the id. The answer is left.
    pub(crate) fn publish(&mut self, c: C, p: &Publish<'_>) -> u16 {
        let mut p = *p;
        if p.qos != QoS::AtMostOnce && p.packet_id.is_none() {
            p.packet_id = Some(self.next_id(c));
        }
        self.send(c, &Packet::Publish(p));
        p.packet_id.map_or(0, PacketId::get)
    }

    /// PUBLISH and the whole handshake; returns the reason code.
    pub(crate) fn put(&mut self, c: C, p: &Publish<'_>) -> u8 {
        let id = self.publish(c, p);
        match p.qos {
            QoS::AtMostOnce => 0,
            QoS::AtLeastOnce => {
                let got = self.recv(c);
                assert!(matches!(got.packet(), Packet::PubAck(a) if a.packet_id.get() == id));
                got.code()
            }
            QoS::ExactlyOnce => {
                let got = self.recv(c);
                assert!(matches!(got.packet(), Packet::PubRec(a) if a.packet_id.get() == id));
                if got.code() >= 0x80 {
                    return got.code();
                }
                self.ack(c, PacketType::PubRel, id);
                let comp = self.recv(c);
                assert!(
                    matches!(comp.packet(), Packet::PubComp(a) if a.packet_id.get() == id && a.reason.0 == 0)
                );
                got.code()
            }
        }
    }

    pub(crate) fn ack(&mut self, c: C, kind: PacketType, id: u16) {
        self.ack_with(c, kind, id, 0);
    }

    pub(crate) fn ack_with(&mut self, c: C, kind: PacketType, id: u16, code: u8) {
        let packet = Ack {
            packet_id: pid(id),
            reason: ReasonCode(code),
            reason_string: None,
            user: UserProps::EMPTY,
        };
        let mut bytes = Vec::new();
        packet.encode(&mut bytes, self.clients[c].version, kind);
        self.send_raw(c, &bytes);
    }

    /// SUBSCRIBE; the answer is left.
    pub(crate) fn subscribe(
        &mut self,
        c: C,
        filters: &[(&str, SubscribeOptions)],
        id: Option<u32>,
    ) {
        let packet_id = self.next_id(c);
        let mut bytes = Vec::new();
        encode::subscribe(&mut bytes, self.clients[c].version, packet_id, id, filters);
        self.send_raw(c, &bytes);
    }

    /// SUBSCRIBE to one filter; returns the code of the SUBACK, which must come first.
    pub(crate) fn sub(&mut self, c: C, filter: &str, level: u8) -> u8 {
        self.sub_with(c, filter, sub_opts(level), None)
    }

    pub(crate) fn sub_with(
        &mut self,
        c: C,
        filter: &str,
        opts: SubscribeOptions,
        id: Option<u32>,
    ) -> u8 {
        self.subscribe(c, &[(filter, opts)], id);
        let got = self.recv(c);
        let codes = got.codes();
        assert_eq!(codes.len(), 1, "{got:?}");
        codes[0]
    }

    /// SUBSCRIBE to several filters with QoS 1; returns the codes of the SUBACK, which must come first.
    pub(crate) fn subscribe_all(&mut self, c: C, filters: &[&str]) -> Vec<u8> {
        let filters: Vec<_> = filters.iter().map(|filter| (*filter, sub_opts(1))).collect();
        self.subscribe(c, &filters, None);
        self.recv(c).codes()
    }

    /// UNSUBSCRIBE of one filter; returns the code of the UNSUBACK (0 in MQTT 3).
    pub(crate) fn unsub(&mut self, c: C, filter: &str) -> u8 {
        let packet_id = self.next_id(c);
        let mut bytes = Vec::new();
        encode::unsubscribe(&mut bytes, self.clients[c].version, packet_id, &[filter]);
        self.send_raw(c, &bytes);
        let got = self.recv(c);
        assert_eq!(got.name(), "UNSUBACK", "{got:?}");
        got.codes().first().copied().unwrap_or(0)
    }

    /// Sends PINGREQ and expects nothing but PINGRESP.
    pub(crate) fn ping(&mut self, c: C) {
        self.send_raw(c, &[0xC0, 0]);
        let got = self.recv(c);
        assert_eq!(got.name(), "PINGRESP", "{got:?}");
    }

    /// Sends PINGREQ; its answer is the last of all that came.
    pub(crate) fn ping_last(&mut self, c: C) {
        self.send_raw(c, &[0xC0, 0]);
        let got = self.recv_all(c);
        assert_eq!(got.last().map(Got::name), Some("PINGRESP"));
    }

    // ---- reading ----------------------------------------------------------------------------------

    /// The next packet, if there is one.
    pub(crate) fn poll(&mut self, c: C) -> Option<Got> {
        let Client { wire, version, .. } = self.clients[c];
        let buf = &mut self.wires[wire].to_client;
        let h = header(buf, false).expect("a good header")?;
        if buf.len() < h.total_len() {
            return None;
        }
        let bytes = buf.drain(..h.total_len()).collect();
        Some(Got { bytes, version })
    }

    /// The next packet.
    pub(crate) fn recv(&mut self, c: C) -> Got {
        self.poll(c).unwrap_or_else(|| {
            let w = &self.wires[self.clients[c].wire];
            panic!("client {c} got nothing; closed: {:?}", w.closed)
        })
    }

    /// All that came.
    pub(crate) fn recv_all(&mut self, c: C) -> Vec<Got> {
        std::iter::from_fn(|| self.poll(c)).collect()
    }

    /// The next packet, a PUBLISH. It is not acknowledged.
    pub(crate) fn msg(&mut self, c: C) -> Msg {
        let got = self.recv(c);
        Msg::of(&got).unwrap_or_else(|| panic!("no PUBLISH: {got:?}"))
    }

    /// All messages, each acknowledged with its whole handshake. Nothing else may come.
    pub(crate) fn msgs(&mut self, c: C) -> Vec<Msg> {
        let mut out = Vec::new();
        while let Some(got) = self.poll(c) {
            match got.packet() {
                Packet::Publish(_) => {
                    let msg = Msg::of(&got).expect("a PUBLISH");
                    match msg.qos {
                        0 => {}
                        1 => self.ack(c, PacketType::PubAck, msg.id),
                        _ => self.ack(c, PacketType::PubRec, msg.id),
                    }
                    out.push(msg);
                }
                Packet::PubRel(a) => {
                    assert_eq!(a.reason.0, 0);
                    self.ack(c, PacketType::PubComp, a.packet_id.get());
                }
                other => panic!("client {c} got {other:?}"),
            }
        }
        out
    }

    /// Nothing came, and the connection is open.
    pub(crate) fn quiet(&mut self, c: C) {
        let got = self.recv_all(c);
        assert!(got.is_empty(), "client {c} got {got:?}");
        assert!(self.is_open(c), "client {c} was closed");
    }

    pub(crate) fn is_open(&self, c: C) -> bool {
        let w = &self.wires[self.clients[c].wire];
        w.closed.is_none() && w.at.is_some()
    }

    /// The broker closed the connection; returns the code of its DISCONNECT, which must be the last
    /// packet. Packets before it are skipped.
    pub(crate) fn closed(&mut self, c: C) -> Option<u8> {
        let w = &self.wires[self.clients[c].wire];
        assert!(w.closed.is_some(), "client {c} is still open");
        let got = self.recv_all(c);
        assert!(self.wires[self.clients[c].wire].to_client.is_empty(), "half a packet");
        let disconnects = got.iter().filter(|g| g.name() == "DISCONNECT").count();
        assert!(disconnects <= 1, "{got:?}");
        got.last().filter(|g| g.name() == "DISCONNECT").map(Got::code)
    }
}
