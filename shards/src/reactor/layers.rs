//! Connections that are not plain MQTT: what lies between their socket and the machine.
//!
//! ```text
//!  receive ─► unread ─► Stack::received ─► Input::Introduced, Input::Data
//!                         │ answers
//!                         ▼
//!  send ◄── current ◄─── raw                          (wire form)
//!              ▲
//!              └───── Stack::seal ◄── queue ◄─ Op::Write, Op::WriteShared
//! ```
//!
//! What the machine writes waits as it is, and is sealed when the socket can take it: all that came together
//! by then, up to [`SEAL_MAX`], in as few records as possible (decision record 0025). Handshakes are asymmetric
//! cryptography, a hundred times the work of a packet: they wait in a queue of their own, of which each turn
//! takes a little ([`HANDSHAKE_TURN_NS`]).

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::Arc;

use ringmain_acl::ClientCertificate;
use ringmain_transport::tls::{Identity, Version};
use ringmain_transport::{Cause, Closing, End, Received, Secured, Stack};
use smallvec::SmallVec;

use super::conn::{Phase, Segment, flag};
use super::net::{Net, NetTask};
use super::stats::ShardStats;
use crate::boundary::{Event, LogLevel};
use crate::engine::Machine;
use crate::engine::effects::Farewell;
use crate::engine::ids::{ConnId, ShardId};
use crate::engine::input::Input;
use crate::engine::introduction::{Introduction, TlsFacts};
use crate::engine::mail::Parcel;
use crate::mesh::Carried;

/// Bytes of the machine that are sealed at once: three full records of TLS. More would hold other connections
/// up (12 µs) and would not fit a pooled buffer; less costs sends.
const SEAL_MAX: usize = 48 * 1024;
/// Time that a turn gives to handshakes, ns, and one handshake at least: a full one with P-256 takes 160 µs, one
/// with RSA 2048 700. What others wait for is one turn; above it, what the turn itself costs no longer shows.
const HANDSHAKE_TURN_NS: u64 = 200_000;
/// Failed handshakes that a shard logs in a second. A port scan must not fill the log.
const LOGS_PER_S_MAX: u32 = 10;

/// The layers of one connection. Lives on: the shard that has the connection, and moves with it.
pub(super) struct Layered {
    stack: Stack,
    /// Bytes of the socket that the stack wants again, and those that it has not seen.
    unread: Vec<u8>,
    /// Answers of the stack: they go behind what is being sent, and before what is sealed next.
    raw: Vec<u8>,
    /// What is known so far; taken when the handshakes are over.
    known: Option<Box<Introduction>>,
    /// How to part, once all else is sent.
    goodbye: Option<Closing>,
    /// Where it goes when the last answers are sent.
    moving: Option<(ShardId, Box<Parcel>)>,
}

/// The connections of a shard that have layers.
#[derive(Default)]
pub(super) struct LayeredConns {
    all: Vec<Option<Box<Layered>>>,
    free: Vec<u32>,
    /// Those with bytes that the stack has not seen, first come, first served. Each is in it once, and is not
    /// read from meanwhile: so it is bounded by the connections in handshake
    /// (`limits.max_handshakes_per_shard`), with a receive buffer's bytes each.
    waiting: VecDeque<ConnId>,
    /// Lines logged in the second that began then, ms.
    logged: (u64, u32),
}

impl LayeredConns {
    fn insert(&mut self, layered: Box<Layered>) -> u32 {
        match self.free.pop() {
            Some(index) => {
                self.all[index as usize] = Some(layered);
                index
            }
            None => {
                self.all.push(Some(layered));
                self.all.len() as u32 - 1
            }
        }
    }

    fn get(&mut self, index: u32) -> Option<&mut Layered> {
        self.all.get_mut(index as usize)?.as_deref_mut()
    }

    fn remove(&mut self, index: u32) -> Option<Box<Layered>> {
        let layered = self.all.get_mut(index as usize)?.take();
        self.free.extend(layered.is_some().then_some(index));
        layered
    }

    /// Whether some wait for their turn.
    pub(super) fn has_waiting(&self) -> bool {
        !self.waiting.is_empty()
    }
}

impl<M: Machine> NetTask<M> {
    /// Bytes of a connection with layers.
    pub(super) fn on_wire(&mut self, id: ConnId, bytes: &mut [u8]) {
        let Some(conn) = self.net.conns.get(id) else { return };
        let (phase, waits) = (conn.phase, conn.has(flag::UNREAD));
        let Some(layered) = self.net.layered.get(conn.layers) else { return };
        match phase {
            Phase::Open if !waits && layered.stack.is_open() => {
                if layered.unread.is_empty() {
                    return self.unwrap(id, bytes);
                }
                let mut all = std::mem::take(&mut layered.unread);
                all.extend_from_slice(bytes);
                self.unwrap(id, &mut all);
            }
            Phase::Open => {
                layered.unread.extend_from_slice(bytes);
                self.net.wait_for_turn(id);
            }
            Phase::Moving => layered.unread.extend_from_slice(bytes),
            _ => {} // closing: what still comes is of no use to anyone
        }
    }

    /// Handshakes, as many as a turn has time for, and connections that arrived with bytes. Not in the turn in
    /// which they arrived: the machine may want to send them on.
    pub(super) fn take_waiting(&mut self) {
        if !self.net.layered.has_waiting() {
            return;
        }
        let until = self.net.shared.now_ns() + HANDSHAKE_TURN_NS;
        while let Some(id) = self.net.layered.waiting.pop_front() {
            let Some(conn) = self.net.conns.get(id) else { continue };
            conn.clear(flag::UNREAD);
            if conn.phase != Phase::Open {
                continue; // its time for CONNECT was over: no work for it
            }
            let Some(layered) = self.net.layered.get(conn.layers) else { continue };
            let mut bytes = std::mem::take(&mut layered.unread);
            self.unwrap(id, &mut bytes);
            self.net.want_arm(id);
            if self.net.shared.now_ns() >= until {
                return;
            }
        }
    }

    /// Has the stack make MQTT of `bytes`, which are all that it has not done with.
    fn unwrap(&mut self, id: ConnId, bytes: &mut [u8]) {
        let now_s = self.net.now.unix_ms / 1000;
        let Some(conn) = self.net.conns.get(id) else { return };
        let Some(layered) = self.net.layered.get(conn.layers) else { return };
        let result = layered.stack.received(now_s, bytes, &mut layered.raw);
        if !layered.raw.is_empty() {
            self.net.want_wire(id);
        }
        let mut received = match result {
            Ok(received) => received,
            Err(end) => return self.on_layers_failed(id, &end),
        };
        let kept = bytes.len() - received.keep;
        if let Some((_, layered)) = self.net.layered_of(id) {
            layered.unread = bytes[kept..].to_vec();
        }
        if let Some(introduction) = self.net.learn(id, &mut received) {
            self.feed(Input::Introduced { conn: id, introduction });
        }
        if received.mqtt > 0 && self.net.open_conn(id).is_some() {
            self.feed(Input::Data { conn: id, bytes: &bytes[..received.mqtt] });
        }
        if received.peer_closed && self.net.open_conn(id).is_some() {
            self.net.fins.push(id);
        }
        self.net.shed(id);
    }

    /// A layer ends the connection: what it has to say about that is sent.
    fn on_layers_failed(&mut self, id: ConnId, end: &End) {
        count(self.net.shared.stats(self.net.me), end.cause);
        self.log_end(id, end);
        if self.net.open_conn(id).is_some() {
            self.net.begin_flush(id, libc::EPROTO, None);
        }
    }

    fn log_end(&mut self, id: ConnId, end: &End) {
        let second_ms = self.net.now.mono_ms() / 1000 * 1000;
        let (since_ms, lines) = &mut self.net.layered.logged;
        if *since_ms != second_ms {
            (*since_ms, *lines) = (second_ms, 0);
        }
        *lines += 1;
        if *lines > LOGS_PER_S_MAX {
            return;
        }
        let Some((conn, layered)) = self.net.layered_of(id) else { return };
        let (peer, listener) = (layered.stack.peer(), conn.listener);
        let name = &self.net.shared.listeners[usize::from(listener)].name;
        let text = format!("{name}: {peer}: {}", end.sentence).into_boxed_str();
        self.fx.events.push(Event::Log { shard: self.net.me, level: LogLevel::Info, text });
    }

    /// A new connection gets the layers of its listener. Whether it comes by a proxy that is yet to say whose it is;
    /// `None`: the layers cannot begin, and it is dropped.
    pub(super) fn wrap(&mut self, id: ConnId, addr: SocketAddr) -> Option<bool> {
        let conn = self.net.conns.get(id)?;
        let layers = self.net.shared.listeners[usize::from(conn.listener)].layers.as_ref();
        let Some(layers) = layers else { return Some(false) };
        match Stack::new(&layers.load(), addr.ip()) {
            Ok(None) => Some(false),
            Ok(Some(stack)) => {
                let proxied = stack.awaits_proxy();
                self.net.attach(id, Layered::new(stack, Vec::new()));
                Some(proxied)
            }
            Err(end) => {
                count(self.net.shared.stats(self.net.me), end.cause);
                None
            }
        }
    }
}

impl Layered {
    fn new(stack: Stack, unread: Vec<u8>) -> Box<Self> {
        let raw = Vec::new();
        Box::new(Self { stack, unread, raw, known: None, goodbye: None, moving: None })
    }
}

impl Net {
    fn layered_of(&mut self, id: ConnId) -> Option<(&mut super::conn::Conn, &mut Layered)> {
        let conn = self.conns.get(id)?;
        let layered = self.layered.get(conn.layers)?;
        Some((conn, layered))
    }

    fn attach(&mut self, id: ConnId, layered: Box<Layered>) {
        if let Some(conn) = self.conns.get(id) {
            conn.set(flag::LAYERED);
            conn.layers = self.layered.insert(layered);
        }
    }

    /// Ends the layers of a connection.
    pub(super) fn take_layers(&mut self, id: ConnId) -> Option<Box<Layered>> {
        let conn = self.conns.get(id).filter(|c| c.has(flag::LAYERED))?;
        conn.clear(flag::LAYERED);
        self.layered.remove(std::mem::replace(&mut conn.layers, u32::MAX))
    }

    /// The layers of a connection that leaves.
    pub(super) fn pack_layers(&mut self, id: ConnId) -> Option<Box<Carried>> {
        let layered = self.take_layers(id)?;
        debug_assert!(layered.raw.is_empty(), "answers are sent where they were made");
        Some(Box::new(Carried { stack: layered.stack, unread: layered.unread }))
    }

    /// The layers of a connection that came.
    pub(super) fn unpack_layers(&mut self, id: ConnId, carried: Carried) {
        let waits = !carried.unread.is_empty();
        self.attach(id, Layered::new(carried.stack, carried.unread));
        if waits && let Some(conn) = self.conns.get(id) {
            conn.set(flag::UNREAD);
            self.layered.waiting.push_front(id); // its handshakes are over: it costs little
        }
    }

    fn wait_for_turn(&mut self, id: ConnId) {
        if let Some(conn) = self.conns.get(id)
            && !conn.has(flag::UNREAD)
        {
            conn.set(flag::UNREAD);
            self.layered.waiting.push_back(id);
        }
    }

    /// Layers that have done their part go: the connection is plain from here on.
    fn shed(&mut self, id: ConnId) {
        let Some((conn, layered)) = self.layered_of(id) else { return };
        if layered.stack.is_spent() && layered.unread.is_empty() && conn.tx().is_none() {
            self.take_layers(id);
        }
    }

    /// Keeps what the layers learned; all of it, when they are done.
    fn learn(&mut self, id: ConnId, received: &mut Received) -> Option<Box<Introduction>> {
        let stats = self.shared.stats(self.me);
        let conn = self.conns.get(id)?;
        let layered = self.layered.get(conn.layers)?;
        if let Some(header) = received.proxied.take() {
            let known = layered.known.get_or_insert_default();
            known.addr = header.source;
            let name = header.verified_common_name().map(Into::into);
            known.certificate = name.map(|name| {
                Arc::new(ClientCertificate { common_name: Some(name), ..Default::default() })
            });
            let (ssl, name) = (header.ssl, header.authority);
            known.tls = ssl.and_then(|ssl| {
                Some(TlsFacts {
                    version: ssl.version?.into(),
                    cipher_suite: ssl.cipher.unwrap_or_default().into(),
                    server_name: name.map(Into::into),
                })
            });
        }
        if let Some(secured) = received.secured.take() {
            let resumed = secured.handshake.resumed;
            if resumed { &stats.tls_resumed } else { &stats.tls_full }.inc();
            introduce(layered.known.get_or_insert_default(), *secured);
        }
        if let Some(upgrade) = received.upgraded.take() {
            stats.websockets_opened.inc();
            if let Some(ip) = upgrade.forwarded_for {
                layered.known.get_or_insert_default().addr = Some(SocketAddr::new(ip, 0));
            }
        }
        if layered.stack.is_open() { layered.known.take() } else { None }
    }

    /// The stack has something to send.
    fn want_wire(&mut self, id: ConnId) {
        let now_ns = self.now.mono_ns;
        let Some(conn) = self.conns.get(id) else { return };
        if conn.tx().is_none() {
            conn.set_tx(Segment::Own(Vec::new()), now_ns);
        }
        self.want_send(id);
    }

    /// A connection with layers is flushed: it says goodbye at the end.
    pub(super) fn will_part(&mut self, id: ConnId, closing: Option<Closing>) {
        let Some((_, layered)) = self.layered_of(id) else { return };
        layered.goodbye = closing;
        if closing.is_some() {
            self.want_wire(id);
        }
    }

    /// Puts what is to be sent next into wire form. Whether there is something.
    pub(super) fn seal_next(&mut self, id: ConnId) -> bool {
        let Some(conn) = self.conns.get(id) else { return false };
        let phase = conn.phase;
        let Some(layered) = self.layered.get(conn.layers) else { return false };
        let Some(tx) = conn.tx_mut() else { return false };
        if tx.at < tx.current.as_slice().len() {
            return true; // the rest of a send that was cut short
        }
        let mut wire = std::mem::take(&mut layered.raw);
        if wire.capacity() == 0 {
            wire = self.pool.filled(&[]);
        }
        let pieces = take_pieces(&mut tx.queue);
        let mut failed = false;
        if !pieces.is_empty() {
            let slices: SmallVec<[&[u8]; 8]> = pieces.iter().map(Segment::as_slice).collect();
            failed = layered.stack.seal(&slices, &mut wire).is_err();
            tx.plain = if failed { 0 } else { slices.iter().map(|s| s.len()).sum() };
        }
        pieces.into_iter().for_each(|p| self.pool.give(p));
        if failed {
            tx.queue.drain(..).for_each(|s| self.pool.give(s));
        }
        if tx.queue.is_empty()
            && phase == Phase::Flushing
            && let Some(closing) = layered.goodbye.take()
        {
            layered.stack.close(closing, &mut wire);
        }
        let is_something = !wire.is_empty();
        tx.at = 0;
        self.pool.give(std::mem::replace(&mut tx.current, Segment::Own(wire)));
        if !is_something && let Some(tx) = conn.take_tx() {
            self.pool.give(tx.current);
        }
        match phase {
            // Only a stack that has ended seals nothing: the machine is yet to hear of it.
            Phase::Open if failed => self.begin_flush(id, libc::EPROTO, None),
            Phase::Flushing if !is_something => self.flushed(id),
            Phase::Moving if !is_something => self.move_on(id),
            _ => {}
        }
        is_something
    }

    /// The socket took some of what was sealed: bytes of the machine whose last one is taken.
    pub(super) fn sealed_sent(&mut self, id: ConnId) -> usize {
        let Some(conn) = self.conns.get(id) else { return 0 };
        let layered = self.layered.get(conn.layers);
        let Some(tx) = conn.tx_mut() else { return 0 };
        if tx.at < tx.current.as_slice().len() {
            return 0;
        }
        tx.at = 0;
        let plain = std::mem::take(&mut tx.plain);
        self.pool.give(std::mem::replace(&mut tx.current, Segment::Own(Vec::new())));
        let more = layered.is_some_and(|l| !l.raw.is_empty() || l.goodbye.is_some());
        if tx.queue.is_empty() && !more {
            drop(conn.take_tx());
        }
        plain
    }

    /// A connection is to move, but answers of its stack are not sent yet.
    pub(super) fn move_later(&mut self, id: ConnId, to: ShardId, parcel: Box<Parcel>) {
        let deadline = self.now.mono_ms() + super::close::FLUSH_MS;
        if let Some((_, layered)) = self.layered_of(id) {
            layered.moving = Some((to, parcel));
            self.closing.push_back((deadline, id));
            self.want_send(id);
        }
    }

    /// They are sent, or can't be.
    pub(super) fn move_on(&mut self, id: ConnId) {
        let Some((conn, layered)) = self.layered_of(id) else { return };
        if conn.has(flag::SEND) {
            return;
        }
        let Some((to, parcel)) = layered.moving.take() else { return };
        layered.raw = Vec::new();
        if let Some(tx) = conn.take_tx() {
            self.pool.give(tx.current);
        }
        self.begin_move(id, to, parcel);
    }
}

/// Up to [`SEAL_MAX`] bytes from the front.
fn take_pieces(queue: &mut VecDeque<Segment>) -> SmallVec<[Segment; 8]> {
    let mut pieces = SmallVec::new();
    let mut room = SEAL_MAX;
    while let Some(segment) = queue.pop_front() {
        if segment.as_slice().len() <= room {
            room -= segment.as_slice().len();
            pieces.push(segment);
            continue;
        }
        if room > 0 {
            let (first, rest) = segment.split(room);
            pieces.push(first);
            queue.push_front(rest);
        } else {
            queue.push_front(segment);
        }
        break;
    }
    pieces
}

/// What a handshake of ours says. A proxy's word about the client's certificate and TLS goes before that of its
/// own TLS with us.
fn introduce(known: &mut Introduction, secured: Secured) {
    let Secured { handshake, identity } = secured;
    let version = match handshake.version {
        Version::V12 => "TLSv1.2",
        Version::V13 => "TLSv1.3",
    };
    known.tls.get_or_insert_with(|| TlsFacts {
        version: version.into(),
        cipher_suite: handshake.cipher_suite.into(),
        server_name: handshake.server_name.map(Into::into),
    });
    if known.certificate.is_none()
        && let Some(identity) = identity
    {
        let own = handshake.peer_certificates.first();
        let der = own.map(|der| der.to_vec()).unwrap_or_default();
        known.certificate = Some(Arc::new(certificate(identity, der)));
    }
}

fn certificate(identity: Identity, der: Vec<u8>) -> ClientCertificate {
    let boxed = |texts: Vec<String>| texts.into_iter().map(Into::into).collect();
    ClientCertificate {
        common_name: identity.common_name.map(Into::into),
        subject: identity.subject.into(),
        dns_names: boxed(identity.dns_names),
        uris: boxed(identity.uris),
        emails: boxed(identity.emails),
        serial: identity.serial.into(),
        fingerprint: identity.sha256.into(),
        der: der.into(),
    }
}

/// How a machine's reason is said in the words of WebSocket.
pub(super) fn closing(farewell: Farewell) -> Closing {
    match farewell {
        Farewell::GoingAway => Closing::GoingAway,
        Farewell::ProtocolError => Closing::ProtocolError,
        Farewell::Policy => Closing::Policy,
    }
}

fn count(stats: &ShardStats, cause: Cause) {
    use ringmain_transport::tls::FailureKind as Tls;
    use ringmain_transport::ws::FailureKind as Ws;
    let stat = match cause {
        Cause::Proxy => &stats.proxy_headers_refused,
        Cause::Tls(kind) => match kind {
            Tls::NotTls => &stats.tls_failed_not_tls,
            Tls::ClientCertificate => &stats.tls_failed_client_certificate,
            Tls::NoClientCertificate => &stats.tls_failed_no_client_certificate,
            Tls::NothingInCommon => &stats.tls_failed_nothing_in_common,
            Tls::Alpn => &stats.tls_failed_alpn,
            Tls::ServerName => &stats.tls_failed_server_name,
            Tls::PeerAlert => &stats.tls_failed_peer_alert,
            Tls::Protocol => &stats.tls_failed_protocol,
            Tls::Internal => &stats.tls_failed_internal,
        },
        Cause::Ws(Ws::Status(_)) => &stats.websockets_refused,
        Cause::Ws(Ws::Close(_) | Ws::Over) => &stats.websockets_failed,
    };
    stat.inc();
}
