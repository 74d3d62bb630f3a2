//! A network connection as the engine sees it.

use core::net::{IpAddr, Ipv6Addr, SocketAddr};

use ringmain_mqtt::Version;

use super::access::Known;
use super::authenticate::Auth;
use super::ids::{ConnId, Peer};
use super::introduction::Introduction;
use super::rates::Meter;
use super::wheel::TimerId;

/// Where a connection is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum State {
    /// Accepted; CONNECT has not come.
    Fresh,
    /// CONNACK with success was written.
    Live,
    /// We closed it: whatever arrives is ignored, nothing is written.
    Closing,
}

/// Bits of [`Conn::flags`]: why it is not read, and other facts.
pub(crate) mod flag {
    /// A mailbox that its publishes go to is full.
    pub(crate) const PAUSED_LANE: u16 = 1;
    /// It does not take what we write.
    pub(crate) const PAUSED_OUT: u16 = 2;
    /// Memory is critical, or the shard is far behind.
    pub(crate) const PAUSED_OVERLOAD: u16 = 4;
    /// It came faster than its listener may accept.
    pub(crate) const PAUSED_RATE: u16 = 8;
    /// Its bytes wait for the next turn: this one did enough.
    pub(crate) const PAUSED_TURN: u16 = 16;
    /// Too many of its publishes wait for verdicts.
    pub(crate) const PAUSED_VERDICT: u16 = 512;
    /// It has sent more than its CONNECT, about which nothing is decided.
    pub(crate) const PAUSED_AUTH: u16 = 2048;
    /// It sends faster than it may.
    pub(crate) const PAUSED_METER: u16 = 4096;
    /// Any of them.
    pub(crate) const PAUSED: u16 = 31 | PAUSED_VERDICT | PAUSED_AUTH | PAUSED_METER;
    /// Those for which the client can do nothing: its keep-alive rests.
    pub(crate) const PAUSED_BY_US: u16 =
        PAUSED_LANE | PAUSED_OVERLOAD | PAUSED_TURN | PAUSED_VERDICT | PAUSED_METER;
    /// The packet at the front of its bytes has waited for its turn.
    pub(crate) const METERED_IN: u16 = 8192;
    /// It was sent all that it may be sent for now.
    pub(crate) const METERED_OUT: u16 = 16384;
    /// The client asked for no Reason String. (C07)
    pub(crate) const NO_PROBLEM_INFO: u16 = 32;
    /// Its socket is congested since [`Conn::congested_ms`](super::Conn::congested_ms).
    pub(crate) const CONGESTED: u16 = 64;
    /// Counted in the admission tables.
    pub(crate) const ADMITTED: u16 = 128;
    /// Counted in `Core::handshakes`.
    pub(crate) const HANDSHAKE: u16 = 256;
    /// Its CONNECT waits for a verdict: what comes behind it waits too.
    pub(crate) const AUTH_WAITS: u16 = 1024;
}

/// `Lives on: the shard that reads it` — the accepting one until CONNECT, then the home shard.
#[derive(Debug)]
pub(crate) struct Conn {
    pub(crate) generation: u32,
    /// Its session, or `NONE`.
    pub(crate) session: u32,
    pub(crate) state: State,
    pub(crate) version: Version,
    /// What the rules say about it, if it shares that with others; 0: it does not, or has sent no CONNECT.
    pub(crate) view: u8,
    /// Of the settings that its CONNACK told it, see `Core::told`.
    pub(crate) epoch: u8,
    pub(crate) flags: u16,
    pub(crate) listener: u16,
    pub(crate) port: u16,
    pub(crate) ip: [u8; 16],
    /// Keep-alive in use, in seconds; 0 = none.
    pub(crate) keep_alive_s: u16,
    /// Receive Maximum of the client.
    pub(crate) receive_max: u16,
    /// QoS > 0 publishes of the client that are not finished, on this connection. [S-24]
    pub(crate) received_open: u16,
    /// Maximum Packet Size of the client.
    pub(crate) max_packet: u32,
    /// Bytes written and not yet taken by the socket.
    pub(crate) out_pending: u32,
    /// Low 32 bits of the ms of the last packet (or of the accept).
    pub(crate) last_seen_ms: u32,
    /// Low 32 bits of the ms when it connected.
    pub(crate) opened_ms: u32,
    pub(crate) timer: Option<TimerId>,
    pub(crate) rare: Option<Box<Rare>>,
}

const _: () = assert!(
    size_of::<Option<Conn>>() <= 72,
    "the budget of an idle connection is 256 bytes, session and timer included"
);

/// What a connection seldom has, or seldom for long.
#[derive(Debug, Default)]
pub(crate) struct Rare {
    /// Bytes of a packet that is not complete.
    partial: Option<Box<Vec<u8>>>,
    aliases: Option<Box<Aliases>>,
    known: Option<Box<Known>>,
    introduction: Option<Box<Introduction>>,
    meter: Option<Box<Meter>>,
    auth: Option<Box<Auth>>,
    congested_ms: u32,
}

/// Topic aliases of a connection, both ways. They end with it. [S-26]
#[derive(Debug, Default)]
pub(crate) struct Aliases {
    /// Topics by alias - 1, as the client set them.
    pub(crate) inbound: Vec<Option<Box<str>>>,
    /// Topics by alias - 1, as we set them: first come, first served.
    pub(crate) outbound: Vec<Box<str>>,
    /// How many the client lets us use.
    pub(crate) outbound_max: u16,
}

impl Conn {
    pub(crate) fn new(id: ConnId, peer: Peer, now_ms: u64) -> Self {
        let mut conn = Self {
            generation: id.generation,
            session: super::slab::NONE,
            state: State::Fresh,
            version: Version::V311,
            view: 0,
            epoch: 0,
            flags: 0,
            listener: peer.listener,
            port: 0,
            ip: [0; 16],
            keep_alive_s: 0,
            receive_max: u16::MAX,
            received_open: 0,
            max_packet: u32::MAX,
            out_pending: 0,
            last_seen_ms: now_ms as u32,
            opened_ms: now_ms as u32,
            timer: None,
            rare: None,
        };
        conn.set_addr(peer.addr);
        conn
    }

    pub(crate) fn set_addr(&mut self, addr: SocketAddr) {
        let ip = match addr.ip() {
            IpAddr::V4(v4) => v4.to_ipv6_mapped(),
            IpAddr::V6(v6) => v6,
        };
        (self.ip, self.port) = (ip.octets(), addr.port());
    }

    pub(crate) fn peer(&self) -> Peer {
        let ip = Ipv6Addr::from(self.ip);
        let ip = ip.to_ipv4_mapped().map_or(IpAddr::V6(ip), IpAddr::V4);
        Peer { addr: SocketAddr::new(ip, self.port), listener: self.listener }
    }

    pub(crate) fn has(&self, flag: u16) -> bool {
        self.flags & flag != 0
    }

    /// Bytes of a packet that is not complete; nobody else has them then.
    pub(crate) fn take_partial(&mut self) -> Option<Box<Vec<u8>>> {
        let partial = self.rare.as_mut()?.partial.take();
        self.tidy();
        partial
    }

    /// Gives up the box when there is nothing in it.
    pub(crate) fn tidy(&mut self) {
        if let Some(rare) = &self.rare
            && let Rare {
                partial: None,
                aliases: None,
                known: None,
                introduction: None,
                auth: None,
                meter: None,
                congested_ms: _,
            } = **rare
            && self.flags & flag::CONGESTED == 0
        {
            self.rare = None;
        }
    }

    pub(crate) fn set_partial(&mut self, bytes: Box<Vec<u8>>) {
        self.rare.get_or_insert_default().partial = Some(bytes);
    }

    pub(crate) fn known(&self) -> Option<&Known> {
        self.rare.as_ref()?.known.as_deref()
    }

    pub(crate) fn take_known(&mut self) -> Option<Box<Known>> {
        self.rare.as_mut()?.known.take()
    }

    pub(crate) fn set_known(&mut self, known: Option<Box<Known>>) {
        match known {
            Some(known) => self.rare.get_or_insert_default().known = Some(known),
            None => drop(self.take_known()),
        }
    }

    /// What its transport said about it.
    pub(crate) fn introduction(&self) -> Option<&Introduction> {
        self.rare.as_ref()?.introduction.as_deref()
    }

    /// Keeps it.
    pub(crate) fn introduce(&mut self, introduction: Box<Introduction>) {
        self.rare.get_or_insert_default().introduction = Some(introduction);
    }

    /// It leaves with the connection.
    pub(crate) fn take_introduction(&mut self) -> Option<Box<Introduction>> {
        self.rare.as_mut()?.introduction.take()
    }

    /// Where its rates stand.
    pub(crate) fn meter(&mut self) -> &mut Meter {
        self.rare.get_or_insert_default().meter.get_or_insert_default()
    }

    /// Its authentication, while one is under way or possible.
    pub(crate) fn auth(&self) -> Option<&Auth> {
        self.rare.as_ref()?.auth.as_deref()
    }

    pub(crate) fn auth_mut(&mut self) -> Option<&mut Auth> {
        self.rare.as_mut()?.auth.as_deref_mut()
    }

    pub(crate) fn set_auth(&mut self, auth: Auth) {
        self.rare.get_or_insert_default().auth = Some(Box::new(auth));
    }

    pub(crate) fn take_auth(&mut self) -> Option<Box<Auth>> {
        self.rare.as_mut()?.auth.take()
    }

    pub(crate) fn aliases(&self) -> Option<&Aliases> {
        self.rare.as_ref()?.aliases.as_deref()
    }

    /// Its aliases, to add some.
    pub(crate) fn aliases_mut(&mut self) -> &mut Aliases {
        self.rare.get_or_insert_default().aliases.get_or_insert_default()
    }

    /// It stopped taking what is written.
    pub(crate) fn set_congested(&mut self, now_ms: u32) {
        self.flags |= flag::CONGESTED;
        self.rare.get_or_insert_default().congested_ms = now_ms;
    }

    /// Low 32 bits of the ms since when it is [`flag::CONGESTED`].
    pub(crate) fn congested_ms(&self) -> u32 {
        self.rare.as_ref().map_or(self.last_seen_ms, |r| r.congested_ms)
    }

    /// It is closing: bytes and aliases are of no use any more.
    pub(crate) fn trim(&mut self) {
        if let Some(rare) = &mut self.rare {
            (rare.partial, rare.aliases) = (None, None);
            rare.auth = None;
        }
    }
}

/// Connections by the index that the driver gives them.
#[derive(Debug, Default)]
pub(crate) struct ConnTable {
    chunks: Vec<Box<[Option<Conn>]>>,
    len: usize,
    live: usize,
}

const CHUNK: usize = 1024;

impl ConnTable {
    pub(crate) fn insert(&mut self, id: ConnId, conn: Conn) {
        let at = id.index as usize;
        while self.chunks.len() <= at / CHUNK {
            self.chunks.push((0..CHUNK).map(|_| None).collect());
        }
        let slot = &mut self.chunks[at / CHUNK][at % CHUNK];
        debug_assert!(slot.is_none(), "the driver reused an index before Closed");
        *slot = Some(conn);
        self.len += 1;
    }

    pub(crate) fn remove(&mut self, ix: u32) -> Option<Conn> {
        let conn = self.chunks.get_mut(ix as usize / CHUNK)?[ix as usize % CHUNK].take();
        self.len -= usize::from(conn.is_some());
        conn
    }

    pub(crate) fn get(&self, ix: u32) -> Option<&Conn> {
        self.chunks.get(ix as usize / CHUNK)?[ix as usize % CHUNK].as_ref()
    }

    pub(crate) fn get_mut(&mut self, ix: u32) -> Option<&mut Conn> {
        self.chunks.get_mut(ix as usize / CHUNK)?[ix as usize % CHUNK].as_mut()
    }

    /// The connection, if the id is not stale.
    pub(crate) fn checked(&mut self, id: ConnId) -> Option<&mut Conn> {
        self.get_mut(id.index).filter(|c| c.generation == id.generation)
    }

    /// Whether it is there, and the id is not stale.
    pub(crate) fn contains(&self, id: ConnId) -> bool {
        self.get(id.index).is_some_and(|c| c.generation == id.generation)
    }

    pub(crate) fn id(&self, ix: u32) -> ConnId {
        ConnId { index: ix, generation: self.get(ix).map_or(0, |c| c.generation) }
    }

    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// All indices in use are below it.
    pub(crate) fn capacity(&self) -> u32 {
        (self.chunks.len() * CHUNK) as u32
    }

    /// Bytes of the table; what connections hold apart is not among them.
    pub(crate) fn bytes(&self) -> usize {
        self.chunks.len() * CHUNK * size_of::<Option<Conn>>()
    }

    pub(crate) fn live(&self) -> usize {
        self.live
    }

    pub(crate) fn count_live(&mut self, up: bool) {
        if up { self.live += 1 } else { self.live -= 1 }
    }

    pub(crate) fn indices(&self) -> Vec<u32> {
        let all = self.chunks.iter().flat_map(|c| c.iter()).enumerate();
        all.filter(|(_, c)| c.is_some()).map(|(i, _)| i as u32).collect()
    }
}
