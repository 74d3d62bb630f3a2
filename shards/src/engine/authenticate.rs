//! Lets a client in only when whoever knows clients says so.
//!
//! ```text
//!  CONNECT ─► asked ─┬─ allow ──► CONNECT is read again, now with an identity: it goes home, or is at home
//!              ▲     ├─ deny, busy, too late ──► CONNACK with the reason, closed
//!              │     └─ challenge ──► AUTH 0x18 ─► the client's turn ─┐
//!              └────────────── AUTH 0x18 of the client ◄──────────────┘
//! ```
//!
//! It is asked where the socket is: the answer may change the client id, and with it the home. A live connection that
//! authenticates again goes the same way from AUTH 0x19, and its traffic goes on meanwhile [4.12.1].

use std::sync::Arc;

use ringmain_mqtt::{Auth as AuthPacket, Connect, Header, Packet, ReasonCode, Role, Rules, decode};

use super::access::{Known, Who};
use super::auth::{AUTH_OPEN_MAX, AuthPhase, AuthRequest, AuthVerdict, Exchange, Identity};
use super::conn::{Conn, State, flag};
use super::connect::Refused;
use super::core::Core;
use super::effects::{CloseHow, Effects};
use super::ids::ConnId;
use super::packets::Flow;
use super::shard::Shard;

/// Lives on: the shard that has the connection. Of a live one only if its CONNECT named a method.
#[derive(Debug)]
pub(crate) struct Auth {
    stage: Stage,
    /// Authentication Method of CONNECT: every AUTH repeats it.
    method: Option<Box<str>>,
    /// The CONNECT packet, which is read again when its client is let in.
    connect: Vec<u8>,
    /// Of a challenge that the client has not answered.
    exchange: Option<Exchange>,
    /// Who it is, once that is known and until it is let in.
    pub(crate) identity: Option<Arc<Identity>>,
}

/// Whose turn it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// Nobody's: the connection is live.
    Idle,
    /// A request is not answered.
    Asked,
    /// The client's: it was challenged.
    Challenged,
    /// Its CONNECT is about to be read again.
    Admitted,
}

impl Auth {
    /// Of a connection that was asked about where it was accepted.
    pub(crate) fn admitted(identity: Arc<Identity>) -> Self {
        Self { identity: Some(identity), ..Self::new(Stage::Admitted, None) }
    }

    /// Of a live connection that may authenticate again.
    pub(crate) fn idle(method: &str) -> Self {
        Self::new(Stage::Idle, Some(method.into()))
    }

    fn new(stage: Stage, method: Option<Box<str>>) -> Self {
        Self { stage, method, connect: Vec::new(), exchange: None, identity: None }
    }

    /// Whether the client is to send AUTH.
    pub(crate) fn is_challenged(&self) -> bool {
        self.stage == Stage::Challenged
    }

    /// Whether a verdict is awaited.
    pub(crate) fn is_asked(&self) -> bool {
        self.stage == Stage::Asked
    }
}

impl Shard {
    /// Asks whether a client may come in. What it sends behind its CONNECT waits. (AU01) [MQTT-3.1.4-2]
    #[cold]
    #[inline(never)]
    pub(crate) fn ask_about(
        &mut self,
        id: ConnId,
        packet: &[u8],
        rest: &[u8],
        c: &Connect<'_>,
        client_id: &str,
        fx: &mut Effects,
    ) -> Flow {
        let ci = id.index;
        let listener = self.core.conns.get(ci).map_or(0, |conn| conn.listener);
        self.core.learn(ci, c);
        let cfg = Arc::clone(&self.core.cfg);
        // Who is banned is not worth a look at its password.
        let checked = self
            .core
            .check_bans(ci, client_id, c.username)
            .and_then(|()| self.check_connect(listener, c, client_id, true, cfg.mqtt_of(listener)));
        if let Err(refused) = checked {
            self.core.count_connect();
            self.core.refuse_connect(ci, refused, fx);
            return Flow::Stop;
        }
        if self.core.auth_open >= AUTH_OPEN_MAX {
            self.core.turn_away(ci, ReasonCode::SERVER_BUSY, fx);
            return Flow::Stop;
        }
        let Some(conn) = self.core.conns.get_mut(ci) else { return Flow::Stop };
        let auth = Auth::new(Stage::Asked, c.props.auth_method.map(Into::into));
        conn.set_auth(Auth { connect: packet.to_vec(), ..auth });
        conn.flags |= flag::AUTH_WAITS;
        let request = AuthRequest {
            client_id: client_id.into(),
            username: c.username.map(Into::into),
            password: c.password.map(Into::into),
            data: c.props.auth_data.map(Into::into),
            ..self.core.request(id, AuthPhase::Connect)
        };
        self.core.ask(request, fx);
        if !rest.is_empty() {
            self.keep_for_later(id, rest, fx);
        }
        Flow::Stop
    }

    /// Keeps bytes that came while the CONNECT before them waits; more are not read. At most what two receives bring.
    #[cold]
    #[inline(never)]
    pub(crate) fn keep_for_later(&mut self, id: ConnId, bytes: &[u8], fx: &mut Effects) {
        if let Some(conn) = self.core.conns.get_mut(id.index) {
            let mut held = conn.take_partial().unwrap_or_default();
            held.extend_from_slice(bytes);
            conn.set_partial(held);
        }
        self.core.pause(id.index, flag::PAUSED_AUTH, fx);
    }

    /// The verdict on a client.
    #[cold]
    #[inline(never)]
    pub(crate) fn on_authenticated(&mut self, id: ConnId, verdict: AuthVerdict, fx: &mut Effects) {
        self.core.auth_open = self.core.auth_open.saturating_sub(1);
        self.core.counters.count_verdict(&verdict);
        // It may have left, or was told something else meanwhile.
        let Some(conn) = self.core.conns.checked(id).filter(|c| c.state != State::Closing) else {
            return;
        };
        let is_live = conn.state == State::Live;
        let Some(auth) = conn.auth_mut().filter(|auth| auth.is_asked()) else { return };
        match verdict {
            AuthVerdict::Allow(identity) if is_live => self.reauthenticated(id, *identity, fx),
            AuthVerdict::Allow(identity) => {
                auth.stage = Stage::Admitted;
                auth.identity = Some(Arc::new(*identity));
                self.let_in(id, fx);
            }
            AuthVerdict::Challenge { data, exchange } => {
                auth.stage = Stage::Challenged;
                auth.exchange = Some(exchange);
                let reason = ReasonCode::CONTINUE_AUTHENTICATION; // [MQTT-4.12.0-2]
                if self.core.write_auth(id.index, reason, Some(&data), fx) && !is_live {
                    self.listen_again(id, fx);
                }
            }
            AuthVerdict::Deny(reason) => self.core.turn_away(id.index, reason, fx),
            AuthVerdict::Busy => self.core.turn_away(id.index, ReasonCode::SERVER_BUSY, fx),
        }
    }

    /// Reads the CONNECT of a client again that may come in, and what it sent behind it.
    #[cold]
    #[inline(never)]
    pub(crate) fn let_in(&mut self, id: ConnId, fx: &mut Effects) {
        let Some(conn) = self.core.conns.get_mut(id.index) else { return };
        // A connection that moves has nothing unsent; a challenge was answered, so this takes no time.
        if conn.out_pending > 0 {
            return;
        }
        let Some(auth) = conn.auth_mut().filter(|auth| auth.stage == Stage::Admitted) else {
            return;
        };
        let mut bytes = std::mem::take(&mut auth.connect);
        conn.flags &= !flag::AUTH_WAITS;
        if let Some(behind) = conn.take_partial() {
            bytes.extend_from_slice(&behind);
        }
        self.core.counters.packets_received -= 1; // it is counted again
        self.core.resume(id.index, flag::PAUSED_AUTH, fx);
        self.on_data(id, &bytes, fx);
    }

    /// It is the client's turn.
    fn listen_again(&mut self, id: ConnId, fx: &mut Effects) {
        let Some(conn) = self.core.conns.get_mut(id.index) else { return };
        conn.flags &= !flag::AUTH_WAITS;
        self.core.resume(id.index, flag::PAUSED_AUTH, fx);
        self.on_data(id, &[], fx);
    }

    /// A packet between CONNECT and CONNACK. [MQTT-3.1.2-30] [MQTT-3.1.4-6]
    #[cold]
    #[inline(never)]
    pub(crate) fn on_exchange_packet(
        &mut self,
        id: ConnId,
        h: Header,
        packet: &[u8],
        rest: &[u8],
        fx: &mut Effects,
    ) -> Flow {
        let Some(conn) = self.core.conns.get(id.index) else { return Flow::Stop };
        let strict_utf8 = self.core.mqtt(conn.listener).strict_utf8;
        let body = &packet[usize::from(h.len)..];
        match decode(h, body, conn.version, Role::Server, &Rules { strict_utf8 }) {
            Ok(Packet::Auth(auth)) => {
                self.on_auth(id, &auth, fx);
                let waits = |c: &Conn| c.has(flag::AUTH_WAITS) && c.state != State::Closing;
                if !rest.is_empty() && self.core.conns.checked(id).is_some_and(|c| waits(c)) {
                    self.keep_for_later(id, rest, fx);
                }
            }
            Ok(Packet::Disconnect(_)) => {
                self.core.counters.disconnect_received += 1;
                self.core.close(id.index, None, CloseHow::Flush, fx);
            }
            Ok(_) => {
                let text = "only AUTH and DISCONNECT may come before CONNACK"; // [S-95]
                self.core.break_off(id.index, text, fx);
            }
            Err(e) => self.on_malformed(id, e, packet, fx),
        }
        Flow::Stop
    }

    /// AUTH. [S-95] [MQTT-4.12.0-5] [MQTT-4.12.0-7] [MQTT-4.12.1-1]
    #[cold]
    #[inline(never)]
    pub(crate) fn on_auth(&mut self, id: ConnId, packet: &AuthPacket<'_>, fx: &mut Effects) {
        let ci = id.index;
        self.core.counters.auth_received += 1;
        let Some(conn) = self.core.conns.get_mut(ci) else { return };
        let is_live = conn.state == State::Live;
        let Some(auth) = conn.auth_mut() else {
            return self.core.break_off(ci, "AUTH without an authentication method", fx);
        };
        if packet.method != auth.method.as_deref() {
            let text = "AUTH with another authentication method than CONNECT";
            return self.core.break_off(ci, text, fx);
        }
        let phase = match (packet.reason, auth.stage) {
            // [MQTT-4.12.0-3]
            (ReasonCode::CONTINUE_AUTHENTICATION, Stage::Challenged) => {
                auth.exchange.take().map(AuthPhase::Continue)
            }
            (ReasonCode::RE_AUTHENTICATE, Stage::Idle) => Some(AuthPhase::Reauthenticate),
            _ => None,
        };
        let Some(phase) = phase else {
            return self.core.break_off(ci, "AUTH that nobody waits for", fx);
        };
        auth.stage = Stage::Asked;
        if !is_live {
            conn.flags |= flag::AUTH_WAITS;
        }
        if self.core.auth_open >= AUTH_OPEN_MAX {
            return self.core.turn_away(ci, ReasonCode::SERVER_BUSY, fx);
        }
        let mut request = self.core.request(id, phase);
        request.data = packet.data.map(Into::into);
        self.core.name(id, &mut request);
        self.core.ask(request, fx);
    }

    /// A live connection has authenticated again: the rules see it as it is now.
    fn reauthenticated(&mut self, id: ConnId, identity: Identity, fx: &mut Effects) {
        let ci = id.index;
        let si = self.session_of(ci);
        let identity = Arc::new(identity);
        let who = Who::new(Some(&identity), None);
        let Some(session) = self.core.sessions.get(si) else { return };
        let client_id = session.client_id.clone();
        let Some(policy) = self.core.policy_for(ci, &client_id, &who) else { return };
        if let Some(mut will) = self.core.sessions[si].take_will() {
            will.owner = Known::new(&policy, &who);
            self.core.sessions[si].set_will(Some(will));
        }
        self.core.hold_to(ci, policy, &who);
        if let Some(auth) = self.core.conns.get_mut(ci).and_then(Conn::auth_mut) {
            auth.stage = Stage::Idle;
        }
        self.core.arm_conn(ci);
        if self.core.write_auth(ci, ReasonCode::SUCCESS, identity.data.as_deref(), fx) {
            self.revoke(si, fx);
        }
    }
}

impl Core {
    /// Whether clients of a listener are let in only after a verdict.
    pub(crate) fn asks(&self, listener: u16) -> bool {
        self.cfg.listeners.get(usize::from(listener)).is_some_and(|l| l.authenticate)
    }

    fn ask(&mut self, request: AuthRequest, fx: &mut Effects) {
        self.auth_open += 1;
        fx.auth.push(Box::new(request));
    }

    /// A request about a connection, with what is known of it before a word of MQTT.
    fn request(&self, id: ConnId, phase: AuthPhase) -> AuthRequest {
        let conn = self.conns.get(id.index);
        let peer = conn.map(Conn::peer);
        AuthRequest {
            shard: self.id,
            conn: id,
            listener: peer.map_or(0, |p| p.listener),
            peer: peer.map_or(core::net::Ipv4Addr::UNSPECIFIED.into(), |p| p.addr.ip()),
            version: conn.map_or(ringmain_mqtt::Version::V5, |c| c.version),
            client_id: Box::default(),
            username: None,
            password: None,
            certificate: conn.and_then(Conn::introduction).and_then(|i| i.certificate.clone()),
            method: conn.and_then(Conn::auth).and_then(|auth| auth.method.clone()),
            data: None,
            phase,
        }
    }

    /// Says whose AUTH it is: as the session of a live connection knows, else as CONNECT did.
    fn name(&self, id: ConnId, request: &mut AuthRequest) {
        let Some(conn) = self.conns.get(id.index) else { return };
        if let Some(session) = self.sessions.get(conn.session) {
            request.client_id = session.client_id.as_str().into();
            request.username = conn.known().and_then(Known::username).map(Into::into);
            return;
        }
        let Some(auth) = conn.auth() else { return };
        let strict_utf8 = self.mqtt(conn.listener).strict_utf8;
        let Ok(Some(h)) = ringmain_mqtt::header(&auth.connect, true) else { return };
        let body = auth.connect.get(usize::from(h.len)..).unwrap_or_default();
        if let Ok(Packet::Connect(c)) =
            decode(h, body, conn.version, Role::Server, &Rules { strict_utf8 })
        {
            request.client_id = self.client_id_of(&c, conn.listener, None).into();
            request.username = c.username.map(Into::into);
        }
    }

    /// AUTH of the broker, with the method of CONNECT. [MQTT-4.12.0-5] [MQTT-4.12.0-6]
    fn write_auth(
        &mut self,
        ci: u32,
        reason: ReasonCode,
        data: Option<&[u8]>,
        fx: &mut Effects,
    ) -> bool {
        let method = self.conns.get(ci).and_then(Conn::auth).and_then(|auth| auth.method.clone());
        let packet =
            AuthPacket { reason, method: method.as_deref(), data, ..AuthPacket::default() };
        let written = packet.method.is_some()
            && self.write(ci, fx, |out, v, max| packet.encode_within(out, v, max));
        if written {
            self.counters.auth_sent += 1;
        } else {
            // The client takes no packet of this size.
            self.turn_away(ci, ReasonCode::UNSPECIFIED_ERROR, fx);
        }
        written
    }

    /// Ends a connection whose authentication failed, in CONNACK or in DISCONNECT. [MQTT-4.12.0-4] [MQTT-4.12.1-2]
    pub(crate) fn turn_away(&mut self, ci: u32, reason: ReasonCode, fx: &mut Effects) {
        let is_live = self.conns.get(ci).is_some_and(|conn| conn.state == State::Live);
        if is_live {
            return self.close(ci, Some(reason), CloseHow::Flush, fx);
        }
        self.count_connect();
        // What exactly was wrong is for the operator only.
        let text = match reason {
            ReasonCode::BAD_USER_NAME_OR_PASSWORD => "bad user name or password",
            ReasonCode::BAD_AUTHENTICATION_METHOD => "no such authentication method",
            ReasonCode::SERVER_BUSY => "the broker has too many clients to authenticate",
            ReasonCode::SERVER_UNAVAILABLE => "the broker cannot authenticate clients now",
            ReasonCode::USE_ANOTHER_SERVER => "this node is being drained",
            ReasonCode::BANNED => "too many failures: wait",
            _ => "not authorised",
        };
        self.refuse_connect(ci, Refused { reason, text }, fx);
    }

    /// Ends a connection that breaks the rules of AUTH.
    fn break_off(&mut self, ci: u32, text: &'static str, fx: &mut Effects) {
        let reason = ReasonCode::PROTOCOL_ERROR;
        if self.conns.get(ci).is_some_and(|conn| conn.state == State::Live) {
            return self.close_with(ci, Some(reason), Some(text), CloseHow::Flush, fx);
        }
        self.count_connect();
        self.refuse_connect(ci, Refused { reason, text }, fx);
    }
}

impl super::counters::Counters {
    fn count_verdict(&mut self, verdict: &AuthVerdict) {
        match verdict {
            AuthVerdict::Allow(identity) => {
                self.auth_success += 1;
                self.auth_anonymous += u64::from(identity.username.is_none());
            }
            AuthVerdict::Deny(_) => self.auth_failure += 1,
            AuthVerdict::Busy => self.auth_busy += 1,
            AuthVerdict::Challenge { .. } => {}
        }
    }
}
