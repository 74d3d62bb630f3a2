//! CONNECT: which shard, which session, and the life of both.

use std::sync::Arc;

use compact_str::CompactString;
use ringmain_acl::Action;
use ringmain_mqtt::topic::TopicName;
use ringmain_mqtt::{
    ClientIdRules, ConnAck, Connect, ConnectVersion, DecodeError, Disconnect, Header, Packet,
    PacketType, QoS, ReasonCode, Role, Rules, UserProps, Version, Will, connect_version, decode,
    header, refusal_version,
};

use super::access::{Known, Who};
use super::auth::Identity;
use super::authenticate::Auth;
use super::config::{KeepAliveV3Policy, MqttConfig};
use super::conn::{Conn, State, flag};
use super::core::{After, Core};
use super::counters::DropReason;
use super::effects::{CloseHow, Effects, Op};
use super::ids::{ConnId, Peer, ShardId};
use super::mail::Parcel;
use super::message::Outgoing;
use super::packets::Flow;
use super::session::{Session, Waits, WillMessage, flag as session_flag};
use super::shard::Shard;
use super::slab::NONE;
use crate::boundary::Pressure;
use crate::observe::Stage;

/// Why a CONNECT is refused.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Refused {
    pub(crate) reason: ReasonCode,
    pub(crate) text: &'static str,
}

impl Shard {
    /// The first packet of a connection: it goes to the home shard of its client id.
    pub(crate) fn on_first_packet(
        &mut self,
        id: ConnId,
        packet: &[u8],
        h: Header,
        rest: &[u8],
        fx: &mut Effects,
    ) -> Flow {
        let body = &packet[usize::from(h.len)..];
        let Some(conn) = self.core.conns.get(id.index) else { return Flow::Stop };
        let (peer, opened_ms) = (conn.peer(), conn.opened_ms);
        let strict_utf8 = self.core.mqtt(peer.listener).strict_utf8;
        let decoded = decode(h, body, Version::V5, Role::Server, &Rules { strict_utf8 });
        let connect = match decoded {
            Ok(Packet::Connect(connect)) => connect,
            Ok(_) => return Flow::Stop,
            Err(e) => {
                self.on_malformed(id, e, packet, fx);
                return Flow::Stop;
            }
        };
        let conn = self.core.conns.get(id.index);
        let identity = conn.and_then(Conn::auth).and_then(|auth| auth.identity.clone());
        let client_id = self.core.client_id_of(&connect, peer.listener, identity.as_deref());
        if identity.is_none() && self.core.asks(peer.listener) {
            return self.ask_about(id, packet, rest, &connect, client_id, fx);
        }
        if !client_id.is_empty() {
            let home = self.core.home_of(self.core.client_hash(client_id));
            if home != self.core.id {
                self.hand_over(id, home, [packet, rest].concat(), opened_ms, fx);
                return Flow::Stop;
            }
        }
        let waited_ms = (self.core.now_ms as u32).wrapping_sub(opened_ms);
        fx.observe.record(Stage::Connect, u64::from(waited_ms) * 1_000_000);
        self.on_connect(id, &connect, client_id, identity.as_ref(), fx);
        if self.core.is_open(id) { Flow::Go } else { Flow::Stop }
    }

    fn hand_over(
        &mut self,
        id: ConnId,
        to: ShardId,
        bytes: Vec<u8>,
        opened_ms: u32,
        fx: &mut Effects,
    ) {
        self.core.handshake_over(id.index);
        let Some(mut conn) = self.core.conns.remove(id.index) else { return };
        if let Some(t) = conn.timer.take() {
            self.core.wheel.cancel(t);
        }
        self.core.counters.connections_handed_over += 1;
        self.core.counters.packets_received -= 1; // its home counts the CONNECT (Y05)
        let ago_ms = (self.core.now_ms as u32).wrapping_sub(opened_ms);
        let opened_ms = self.core.now_ms.saturating_sub(u64::from(ago_ms));
        let introduction = conn.take_introduction();
        let identity = conn.take_auth().and_then(|auth| auth.identity);
        let peer = conn.peer();
        let parcel = Box::new(Parcel { peer, introduction, identity, bytes, opened_ms });
        fx.ops.push(Op::Handover { conn: id, to, parcel });
    }

    /// A connection that another shard accepted. Counted there already.
    pub(crate) fn on_arrived(&mut self, id: ConnId, parcel: Parcel, fx: &mut Effects) {
        let mut conn = Conn::new(id, parcel.peer, self.core.now_ms);
        conn.flags |= flag::ADMITTED;
        conn.opened_ms = parcel.opened_ms as u32;
        if let Some(introduction) = parcel.introduction {
            conn.introduce(introduction);
        }
        if let Some(identity) = parcel.identity {
            conn.set_auth(Auth::admitted(identity));
        }
        self.core.conns.insert(id, conn);
        if self.core.draining && self.core.mqtt(parcel.peer.listener).server_reference.is_empty() {
            self.core.close(id.index, None, CloseHow::Flush, fx);
            return;
        }
        self.core.arm_conn(id.index);
        self.on_data(id, &parcel.bytes, fx);
    }

    /// Answers a first packet that can't be read, where there is an answer. (W04)
    pub(crate) fn refuse_malformed_connect(
        &mut self,
        id: ConnId,
        e: DecodeError,
        packet: &[u8],
        fx: &mut Effects,
    ) {
        let ci = id.index;
        if self.core.conns.get(ci).is_some_and(|conn| conn.auth().is_some()) {
            // Not its CONNECT, but an AUTH.
            self.core.count_connect();
            let refused = Refused { reason: e.reason, text: e.detail };
            return self.core.refuse_connect(ci, refused, fx);
        }
        let h = header(packet, true).ok().flatten();
        let h = h.filter(|h| h.packet_type == PacketType::Connect);
        let Some(h) = h else {
            return self.core.close(ci, None, CloseHow::Flush, fx);
        };
        let body = packet.get(usize::from(h.len)..).unwrap_or(&[]);
        let (version, reason) = match connect_version(body) {
            ConnectVersion::WrongName => {
                return self.core.close(ci, None, CloseHow::Flush, fx); // [MQTT-3.1.2-1]
            }
            // [MQTT-3.1.2-2]
            ConnectVersion::UnsupportedLevel(_) => {
                (refusal_version(body), ReasonCode::UNSUPPORTED_PROTOCOL_VERSION)
            }
            ConnectVersion::Supported(Version::V5) => (Version::V5, e.reason),
            // [MQTT311-3.1.4-1] Malformed: no CONNACK. A bad client id has a return code.
            ConnectVersion::Supported(v) => {
                if e.reason != ReasonCode::CLIENT_IDENTIFIER_NOT_VALID {
                    return self.core.close(ci, None, CloseHow::Flush, fx);
                }
                (v, e.reason)
            }
        };
        if let Some(conn) = self.core.conns.get_mut(ci) {
            conn.version = version;
        }
        self.core.refuse_connect(ci, Refused { reason, text: e.detail }, fx);
    }

    // ---- at home -----------------------------------------------------------------------------------

    fn on_connect(
        &mut self,
        id: ConnId,
        c: &Connect<'_>,
        client_id: &str,
        identity: Option<&Arc<Identity>>,
        fx: &mut Effects,
    ) {
        let ci = id.index;
        let cfg = Arc::clone(&self.core.cfg);
        let Some(listener) = self.core.conns.get(ci).map(|conn| conn.listener) else { return };
        let mqtt = cfg.mqtt_of(listener);
        self.core.learn(ci, c);
        self.core.count_connect();
        let is_known = identity.is_some();
        let username = identity.map_or(c.username, |identity| identity.username.as_deref());
        let checked = self
            .core
            .check_bans(ci, client_id, username)
            .and_then(|()| self.core.check_flapping(self.core.client_hash(client_id)))
            .and_then(|()| self.check_connect(listener, c, client_id, is_known, mqtt));
        if let Err(refused) = checked {
            return self.core.refuse_connect(ci, refused, fx);
        }
        let keep_alive_s = match keep_alive(c, mqtt) {
            Ok(seconds) => seconds,
            Err(refused) => return self.core.refuse_connect(ci, refused, fx),
        };
        let minted = client_id.is_empty().then(|| self.mint_client_id());
        let name = minted.as_deref().unwrap_or(client_id);
        let who = Who::new(identity, c.username);
        let Some(policy) = self.core.policy_for(ci, name, &who) else { return };
        if let Some(will) = &c.will {
            let action = Action::Publish { qos: will.qos, retain: will.retain };
            if !self.core.allows(&policy, action, will.topic) {
                let text = "not authorised to publish the will"; // AZ07
                let refused = Refused { reason: ReasonCode::NOT_AUTHORIZED, text };
                return self.core.refuse_connect(ci, refused, fx);
            }
        }
        let hash = self.core.client_hash(name);
        let known = self.core.find_session(name, hash).is_some();
        if !known && !self.core.node.take_session(cfg.limits.max_sessions) {
            let text = "the broker has as many sessions as it may";
            return self.core.refuse_connect(
                ci,
                Refused { reason: ReasonCode::QUOTA_EXCEEDED, text },
                fx,
            );
        }
        let owner = Known::new(&policy, &who);
        let (si, session_present) = self.open_session(name, hash, c, owner, mqtt, fx);
        self.attach(ci, si, c, keep_alive_s, mqtt);
        self.core.hold_to(ci, policy, &who);
        self.keep_method(ci, c);
        // Also when an authenticator gave the id. [MQTT-3.1.3-6] [MQTT-3.2.2-16]
        let assigned = c.client_id.is_empty().then_some(name);
        let data = identity.and_then(|identity| identity.data.as_deref());
        self.write_connack(ci, si, c, session_present, (assigned, data), keep_alive_s, mqtt, fx);
        if !self.core.is_open(id) {
            return; // it takes no packet of this size: what authentication says can't be left out
        }
        fx.ops.push(Op::Established { conn: id });
        if keep_alive_s == 0 {
            // Of any other client the broker itself notices when it is gone.
            fx.ops.push(Op::ProbePeer { conn: id });
        }
        self.core.arm_conn(ci);
        self.core.after.push(After::Connected {
            conn: ci,
            generation: id.generation,
            clean_start: c.clean_start,
            session_present,
        });
        let generation = self.core.sessions.generation(si);
        self.core.after.push(After::MemberStatus { session: si, generation });
        if session_present {
            self.revoke(si, fx); // [S-06]
        }
        self.core.pump(si, fx);
    }

    /// Whether an authentication of its own goes on after CONNECT: the method is kept.
    fn keep_method(&mut self, ci: u32, c: &Connect<'_>) {
        let Some(conn) = self.core.conns.get_mut(ci) else { return };
        match c.props.auth_method {
            Some(method) => conn.set_auth(Auth::idle(method)),
            None if conn.take_auth().is_some() => conn.tidy(),
            None => {}
        }
    }

    /// What has to hold of a CONNECT, whoever sent it. `asks`: somebody decides about its method.
    pub(crate) fn check_connect(
        &self,
        listener: u16,
        c: &Connect<'_>,
        client_id: &str,
        asks: bool,
        cfg: &MqttConfig,
    ) -> Result<(), Refused> {
        let refused = |reason, text| Err(Refused { reason, text });
        let level = c.version as u8;
        let accepts = self.core.cfg.listeners.get(usize::from(listener)).is_none_or(|l| {
            l.accept_protocol_versions.is_empty() || l.accept_protocol_versions.contains(&level)
        });
        if !accepts {
            let code = ReasonCode::UNSUPPORTED_PROTOCOL_VERSION;
            return refused(code, "this listener does not accept that protocol version"); // W05
        }
        if self.core.draining {
            return refused(ReasonCode::USE_ANOTHER_SERVER, "this node is being drained"); // C14
        }
        if self.core.pressure >= Pressure::High {
            return refused(ReasonCode::SERVER_BUSY, "the broker is short of memory"); // L05
        }
        if self.core.refuses_connections() {
            return refused(ReasonCode::SERVER_BUSY, "the broker is overloaded"); // L05
        }
        let rules =
            ClientIdRules { max_len: cfg.max_client_id_len, lenient_31: cfg.lenient_v31_client_id };
        let named = Connect { client_id, ..*c };
        if let Err(reason) = named.check_client_id(&rules) {
            return refused(reason, "client identifier not acceptable"); // W17, S-98, S-99
        }
        if c.props.auth_method.is_some() && !asks {
            // C09 [MQTT-4.12.0-1]
            let code = ReasonCode::BAD_AUTHENTICATION_METHOD;
            return refused(code, "no such authentication method");
        }
        let Some(will) = &c.will else { return Ok(()) };
        self.check_will(will, cfg)
    }

    fn check_will(&self, will: &Will<'_>, cfg: &MqttConfig) -> Result<(), Refused> {
        let refused = |reason, text| Err(Refused { reason, text });
        if will.qos > cfg.max_qos {
            let code = ReasonCode::QOS_NOT_SUPPORTED; // [MQTT-3.2.2-12]
            return refused(code, "Will QoS above Maximum QoS");
        }
        if will.retain && !cfg.retain_available {
            let code = ReasonCode::RETAIN_NOT_SUPPORTED; // [MQTT-3.2.2-13]
            return refused(code, "retained messages are switched off");
        }
        let topic = match TopicName::parse(will.topic, cfg.max_topic_levels) {
            Ok(topic) => topic,
            Err(e) => return refused(ReasonCode::TOPIC_NAME_INVALID, e.as_str()),
        };
        if let Some(reason) = topic.publish_refusal() {
            return refused(reason, "clients can't publish to the will topic"); // S-19
        }
        if cfg.check_payload_format
            && will.payload_format == Some(true)
            && std::str::from_utf8(will.payload).is_err()
        {
            return refused(ReasonCode::PAYLOAD_FORMAT_INVALID, "the will payload is not UTF-8");
        }
        let retained = &self.core.cfg.retained;
        let max = retained.max_payload_bytes as usize;
        if will.retain && retained.reject_oversized && max != 0 && will.payload.len() > max {
            return refused(ReasonCode::QUOTA_EXCEEDED, "the will is too large to retain"); // S-46
        }
        Ok(())
    }

    /// A client id whose home is this shard, and that no session has. [MQTT-3.1.3-6]
    fn mint_client_id(&mut self) -> CompactString {
        loop {
            let id = CompactString::from(format!("rm-{:016x}", self.core.rng.u64(..)));
            let hash = self.core.client_hash(&id);
            if self.core.home_of(hash) == self.core.id
                && self.core.find_session(&id, hash).is_none()
            {
                return id;
            }
        }
    }

    /// Finds, takes over, discards or creates the session. [MQTT-3.1.2-4] [MQTT-3.1.2-5]
    /// One that is not found was counted by the caller.
    fn open_session(
        &mut self,
        client_id: &str,
        hash: u64,
        c: &Connect<'_>,
        owner: Known,
        cfg: &MqttConfig,
        fx: &mut Effects,
    ) -> (u32, bool) {
        if let Some(si) = self.core.find_session(client_id, hash) {
            let expired = self.core.sessions[si].is_expired(self.core.now_ms);
            self.take_over(si, c.clean_start || expired, fx);
            // The old connection's session may have been one that ends with it, or its time has run
            // out and the timer is late. [S-08]
            if c.clean_start || expired || self.core.sessions[si].expiry_s == 0 {
                if c.clean_start {
                    self.core.counters.session_discarded += 1;
                }
                self.end_session(si, c.clean_start, fx);
                self.core.node.take_session(0); // in its place
            } else {
                self.core.counters.session_resumed += 1;
                self.renew(si, c, owner, cfg);
                return (si, true);
            }
        }
        self.core.counters.session_created += 1;
        let session = Session::new(client_id, hash);
        let si = self.core.sessions.insert(session);
        let Core { registry, sessions, .. } = &mut self.core;
        registry.insert_unique(hash, si, |ix| sessions[*ix].client_hash);
        self.renew(si, c, owner, cfg);
        (si, false)
    }

    /// Ends the connection that has the session. Its will counts unless it was to wait and somebody
    /// comes back in time. [S-01, S-17] [MQTT-3.1.4-3] [MQTT-3.1.3-9]
    fn take_over(&mut self, si: u32, clean_start: bool, fx: &mut Effects) {
        let s = &mut self.core.sessions[si];
        let old = s.conn;
        if old == NONE {
            // The session goes on within the delay: no will. With a clean start it ends: the will goes.
            if !clean_start {
                s.set_will(None); // [S-18]
            }
            return;
        }
        self.core.counters.session_takenover += 1;
        self.core.close(old, Some(ReasonCode::SESSION_TAKEN_OVER), CloseHow::Flush, fx);
        // `close` has published a will without delay; one with a delay is cancelled or, when the
        // session ends here, published by `end_session`.
        let s = &mut self.core.sessions[si];
        if !clean_start && s.expiry_s != 0 {
            s.set_will(None);
        }
    }

    /// Settings of the new connection.
    fn renew(&mut self, si: u32, c: &Connect<'_>, owner: Known, cfg: &MqttConfig) {
        let requested = match c.version {
            Version::V5 => c.props.session_expiry_s.unwrap_or(0),
            _ if c.clean_start => 0,
            _ => cfg.default_session_expiry_v3_s,
        };
        let s = &mut self.core.sessions[si];
        s.expiry_s = requested.min(cfg.max_session_expiry_s); // Q10
        s.version = c.version as u8;
        if let Some(t) = s.timer.take() {
            self.core.wheel.cancel(t);
        }
        s.flags &= !session_flag::ENDS_WITH_CONNECTION;
        if s.expiry_s == 0 {
            s.flags |= session_flag::ENDS_WITH_CONNECTION;
        }
        let publisher = s.client_hash;
        s.set_will(c.will.as_ref().map(|w| {
            let mut expiry_s = w.message_expiry_s.unwrap_or(u32::MAX);
            if expiry_s == u32::MAX && cfg.message_expiry_default_s != 0 {
                expiry_s = cfg.message_expiry_default_s;
            }
            if cfg.message_expiry_max_s != 0 {
                expiry_s = expiry_s.min(cfg.message_expiry_max_s); // P06
            }
            let mut props = Vec::new();
            w.forward.append_to(&mut props);
            let mut out = Outgoing {
                topic: w.topic,
                props: &props,
                payload: w.payload,
                qos: w.qos,
                retain: w.retain,
                expiry_forwarded: w.message_expiry_s.is_some(),
                expiry_s,
                publisher,
                created_ms: 0,
                owned: None,
                backing: None,
            };
            WillMessage { msg: out.own(), delay_s: w.delay_s.unwrap_or(0), owner }
        }));
    }

    fn attach(&mut self, ci: u32, si: u32, c: &Connect<'_>, keep_alive_s: u16, cfg: &MqttConfig) {
        let opened_ms = self.core.now_ms as u32;
        self.core.handshake_over(ci);
        let epoch = self.core.epoch();
        let Some(conn) = self.core.conns.get_mut(ci) else { return };
        conn.session = si;
        conn.state = State::Live;
        conn.epoch = epoch;
        conn.keep_alive_s = keep_alive_s;
        conn.opened_ms = opened_ms;
        // Receive Maximum is the new CONNECT's, also for a resumed session. [S-22]
        conn.receive_max = c.props.receive_maximum.unwrap_or(u16::MAX);
        conn.received_open = 0;
        let outbound_max = c.props.topic_alias_maximum.unwrap_or(0).min(cfg.topic_alias_out_max);
        if outbound_max > 0 {
            conn.aliases_mut().outbound_max = outbound_max;
        }
        let listener = conn.listener;
        let s = &mut self.core.sessions[si];
        s.conn = ci;
        s.listener = listener;
        if let Some(out) = &mut s.out {
            out.rewind();
        }
        self.core.conns.count_live(true);
        self.core.counters.client_connected += 1;
    }

    fn write_connack(
        &mut self,
        ci: u32,
        si: u32,
        c: &Connect<'_>,
        session_present: bool,
        (assigned_client_id, auth_data): (Option<&str>, Option<&[u8]>),
        keep_alive_s: u16,
        cfg: &MqttConfig,
        fx: &mut Effects,
    ) {
        let expiry_s = self.core.sessions[si].expiry_s;
        let requested_s = c.props.session_expiry_s.unwrap_or(0);
        let response_information = (c.props.request_response_info
            && !cfg.response_information.is_empty())
        .then_some(cfg.response_information.as_str()); // C06 [MQTT-3.1.2-28]
        let ack = ConnAck {
            session_present, // C01 [MQTT-3.2.2-2] [MQTT-3.2.2-3]
            code: ReasonCode::SUCCESS,
            session_expiry_s: (expiry_s != requested_s).then_some(expiry_s), // C02
            receive_maximum: Some(cfg.receive_maximum),
            maximum_qos: (cfg.max_qos != QoS::ExactlyOnce).then_some(cfg.max_qos),
            retain_available: (!cfg.retain_available).then_some(false),
            maximum_packet_size: Some(cfg.max_packet_size),
            assigned_client_id,
            topic_alias_maximum: (cfg.topic_alias_max > 0).then_some(cfg.topic_alias_max),
            wildcard_available: (!cfg.wildcard_available).then_some(false),
            subscription_ids_available: (!cfg.subscription_id_available).then_some(false),
            shared_available: (!cfg.shared_available).then_some(false),
            server_keep_alive_s: (keep_alive_s != c.keep_alive_s).then_some(keep_alive_s),
            response_information,
            auth_method: c.props.auth_method, // [MQTT-4.12.0-5]
            auth_data,
            ..empty_connack()
        };
        self.core.counters.connack_sent += 1;
        self.core.counters.client_connack += 1;
        // A client that can't take even this has asked for a packet size that nothing fits in.
        if !self.core.write(ci, fx, |out, v, max| ack.encode_within(out, v, max)) {
            self.core.close(ci, None, CloseHow::Flush, fx);
        }
    }

    // ---- the end ------------------------------------------------------------------------------------

    /// DISCONNECT from the client.
    pub(crate) fn on_disconnect(&mut self, ci: u32, d: &Disconnect<'_>, fx: &mut Effects) {
        self.core.counters.disconnect_received += 1;
        let si = self.session_of(ci);
        let Some(s) = self.core.sessions.get_mut(si) else { return };
        if let Some(expiry_s) = d.session_expiry_s {
            if s.expiry_s == 0 && expiry_s != 0 {
                // [S-09], MQTT 5 §3.14.2.2.2
                let code = ReasonCode::PROTOCOL_ERROR;
                let text = Some("session expiry interval on a session that has none");
                self.core.close_with(ci, Some(code), text, CloseHow::Flush, fx);
                return;
            }
            let listener = s.listener;
            let max = self.core.mqtt(listener).max_session_expiry_s;
            self.core.sessions[si].expiry_s = expiry_s.min(max);
        }
        // Only 0x00 keeps the will from going out. [S-15] [MQTT-3.14.4-3]
        let will_counts = d.reason != ReasonCode::NORMAL_DISCONNECTION;
        self.core.counters.client_disconnected += 1;
        self.core.detach(ci, d.reason, will_counts);
        let id = self.core.conns.id(ci);
        fx.ops.push(Op::Close { conn: id, how: CloseHow::Flush });
        if let Some(conn) = self.core.conns.get_mut(ci) {
            conn.state = State::Closing;
            conn.trim();
            if let Some(t) = conn.timer.take() {
                self.core.wheel.cancel(t);
            }
        }
    }

    /// Ends a session: its will goes out if it still waits, subscriptions and queues go.
    /// [S-16] [MQTT-3.1.2-23]
    pub(crate) fn end_session(&mut self, si: u32, discarded: bool, fx: &mut Effects) {
        if let Some(will) = self.core.sessions[si].take_will() {
            self.core.send_will(si, will); // [S-04]
        }
        let ci = self.core.sessions[si].conn;
        if ci != NONE {
            self.core.close(ci, Some(ReasonCode::ADMINISTRATIVE_ACTION), CloseHow::Flush, fx);
        }
        self.unsubscribe_all(si, fx);
        self.drop_replays(si);
        let Some(mut s) = self.core.sessions.remove(si) else { return };
        if let Some(t) = s.timer.take() {
            self.core.wheel.cancel(t);
        }
        if let Ok(entry) = self.core.registry.find_entry(s.client_hash, |ix| *ix == si) {
            entry.remove();
        }
        if !discarded {
            self.core.counters.session_terminated += 1;
        }
        self.core.node.session_gone();
        let Some(mut out) = s.out.take() else { return };
        self.core.queued_bytes -= out.queue.bytes();
        self.core.inflight -= out.inflight.len() as u64;
        let queued = out.queue.drain();
        self.core.queued -= queued.len() as u64;
        // What the client has confirmed with PUBREC is delivered, though not released.
        let confirmed = out.inflight.iter().filter(|e| e.waits == Waits::Pubcomp).count();
        let lost = out.inflight.len() - confirmed + queued.len();
        self.core.counters.delivery_completed += confirmed as u64;
        self.core.counters.drop_copy(DropReason::SessionEnded, lost as u64);
    }
}

/// The keep-alive in use. (C11) [MQTT-3.1.2-21]
fn keep_alive(c: &Connect<'_>, cfg: &MqttConfig) -> Result<u16, Refused> {
    let asked = c.keep_alive_s;
    let mut granted = asked;
    if cfg.server_keep_alive_s != 0 && c.version == Version::V5 {
        granted = cfg.server_keep_alive_s;
    }
    if cfg.keep_alive_max_s != 0 && (granted == 0 || granted > cfg.keep_alive_max_s) {
        granted = cfg.keep_alive_max_s;
    }
    if granted != 0 {
        granted = granted.max(cfg.keep_alive_min_s);
    }
    let refuses = cfg.keep_alive_v3_policy == KeepAliveV3Policy::Refuse;
    if c.version != Version::V5 && granted != asked && refuses {
        return Err(Refused {
            reason: ReasonCode::CLIENT_IDENTIFIER_NOT_VALID,
            text: "keep-alive out of bounds",
        });
    }
    Ok(granted)
}

fn empty_connack() -> ConnAck<'static> {
    ConnAck {
        session_present: false,
        code: ReasonCode::SUCCESS,
        session_expiry_s: None,
        receive_maximum: None,
        maximum_qos: None,
        retain_available: None,
        maximum_packet_size: None,
        assigned_client_id: None,
        topic_alias_maximum: None,
        reason_string: None,
        user: UserProps::EMPTY,
        wildcard_available: None,
        subscription_ids_available: None,
        shared_available: None,
        server_keep_alive_s: None,
        response_information: None,
        server_reference: None,
        auth_method: None,
        auth_data: None,
    }
}

impl Core {
    /// CONNACK with a reason, and the end.
    pub(crate) fn refuse_connect(&mut self, ci: u32, r: Refused, fx: &mut Effects) {
        let c = &mut self.counters;
        c.connack_sent += 1;
        c.connack_error += 1;
        c.client_connack += 1;
        match r.reason {
            ReasonCode::NOT_AUTHORIZED | ReasonCode::BAD_USER_NAME_OR_PASSWORD => {
                c.connack_auth_error += 1;
            }
            ReasonCode::BANNED => c.connects_banned += 1,
            _ => {}
        }
        let no_problem_info = self.conns.get(ci).is_none_or(|c| c.has(flag::NO_PROBLEM_INFO));
        let cfg = Arc::clone(&self.cfg);
        let listener = self.conns.get(ci).map_or(0, |c| c.listener);
        let elsewhere = r.reason == ReasonCode::USE_ANOTHER_SERVER;
        let ack = ConnAck {
            code: r.reason,
            reason_string: (!no_problem_info).then_some(r.text),
            server_reference: elsewhere.then_some(&*cfg.mqtt_of(listener).server_reference), // C14
            ..empty_connack()
        };
        // [MQTT-3.2.2-7] [MQTT-3.2.2-19]
        self.write(ci, fx, |out, v, max| ack.encode_within(out, v, max));
        self.close(ci, None, CloseHow::Flush, fx);
    }

    /// What a CONNECT says about the packets that its client takes.
    pub(crate) fn learn(&mut self, ci: u32, c: &Connect<'_>) {
        let Some(conn) = self.conns.get_mut(ci) else { return };
        conn.version = c.version;
        conn.max_packet = c.props.maximum_packet_size.unwrap_or(u32::MAX);
        if !c.props.request_problem_info {
            conn.flags |= flag::NO_PROBLEM_INFO;
        }
    }

    pub(crate) fn count_connect(&mut self) {
        self.counters.connect_received += 1;
        self.counters.client_connect += 1;
    }

    /// A connection that was to move is closed instead: it was admitted, and nobody else takes it off the counts.
    pub(crate) fn on_not_moved(&mut self, peer: Peer) {
        self.counters.connections_refused += 1;
        self.node.admission.leave(peer.listener, peer.addr.ip());
    }

    /// The client id that a CONNECT asks for; an authenticator may give another one.
    pub(crate) fn client_id_of<'a>(
        &self,
        c: &Connect<'a>,
        listener: u16,
        identity: Option<&'a Identity>,
    ) -> &'a str {
        if let Some(given) = identity.and_then(|identity| identity.client_id.as_deref()) {
            return given;
        }
        match c.username {
            Some(name) if self.mqtt(listener).use_username_as_client_id => name, // C18
            _ => c.client_id,
        }
    }
}
