//! The connections of a shard, as the reactor sees them.

use std::collections::VecDeque;

use bytes::Bytes;

use crate::engine::ids::{ConnId, ShardId};
use crate::engine::mail::Parcel;

/// Own segments are coalesced up to this; a larger one gains nothing per byte and pins memory.
pub(super) const SEGMENT_MAX: usize = 64 * 1024;
/// Total capacity of the send buffers kept for reuse by a shard.
const POOL_BYTES_MAX: usize = 4 << 20;

/// Where a connection is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// The slab entry is not in use.
    Free,
    /// Accepted; its address is being asked for. The machine doesn't know it.
    Opening,
    /// In use.
    Open,
    /// On its way to another shard. The machine has forgotten it.
    Moving,
    /// The machine closed it, or the peer sent FIN: what is pending is being sent.
    Flushing,
    /// Our FIN is sent, the peer's is awaited.
    Lingering,
    /// Operations in flight are being ended.
    Ending,
    /// The descriptor is being closed.
    Closing,
}

/// Flags of [`Conn::flags`].
pub(super) mod flag {
    /// A receive is in flight.
    pub(in crate::reactor) const RECV: u16 = 1;
    /// It is being cancelled.
    pub(in crate::reactor) const RECV_CANCEL: u16 = 1 << 1;
    /// A send is in flight.
    pub(in crate::reactor) const SEND: u16 = 1 << 2;
    /// The machine wants to read.
    pub(in crate::reactor) const WANT_READ: u16 = 1 << 3;
    /// Read by multishot.
    pub(in crate::reactor) const ESTABLISHED: u16 = 1 << 4;
    /// The peer sent FIN, or the connection failed: nothing more can be read.
    pub(in crate::reactor) const READ_ENDED: u16 = 1 << 5;
    /// The machine doesn't know of it (any more): no `Closed`.
    pub(in crate::reactor) const SILENT: u16 = 1 << 6;
    /// In the list of connections to send for.
    pub(in crate::reactor) const DIRTY: u16 = 1 << 7;
    /// In the list of connections to arm a receive for.
    pub(in crate::reactor) const TO_ARM: u16 = 1 << 8;
    /// Some of what is pending is followed: see [`follow`](crate::reactor::follow).
    pub(in crate::reactor) const FOLLOWED: u16 = 1 << 9;
    /// The send in flight does not end the shard's sleep.
    pub(in crate::reactor) const QUIET: u16 = 1 << 10;
    /// Something lies between its socket and MQTT: see [`layers`](crate::reactor::layers).
    pub(in crate::reactor) const LAYERED: u16 = 1 << 11;
    /// Its bytes wait for their turn in the layers; it is not read from.
    pub(in crate::reactor) const UNREAD: u16 = 1 << 12;
}

/// [`Conn::cause`]: the machine closed it.
pub(super) const CAUSE_LOCAL: i32 = 0;
/// [`Conn::cause`]: the peer sent FIN. Positive causes are an errno.
pub(super) const CAUSE_FIN: i32 = -1;

/// Lives on: its shard.
///
/// Invariant: the entry, and with it the id, is used again only when no operation of it is in
/// flight and its descriptor is closed.
#[derive(Debug)]
pub(super) struct Conn {
    pub generation: u32,
    /// Slot in the table of its ring.
    pub slot: u32,
    pub ring: u16,
    pub listener: u16,
    pub cause: i32,
    pub flags: u16,
    /// Other operations in flight.
    pub misc: u8,
    pub phase: Phase,
    /// Where its layers are, if it has any.
    pub layers: u32,
    /// What an idle connection doesn't have.
    held: Option<Box<Held>>,
}

const _: () = assert!(size_of::<Conn>() <= 32, "a million of them are idle");

/// Nothing is written to a connection that is being registered or is moving, so it is one or the
/// other.
#[derive(Debug)]
enum Held {
    Tx(Tx),
    Cold(Cold),
}

impl Conn {
    pub(super) fn has(&self, flag: u16) -> bool {
        self.flags & flag != 0
    }

    pub(super) fn set(&mut self, flag: u16) {
        self.flags |= flag;
    }

    pub(super) fn clear(&mut self, flag: u16) {
        self.flags &= !flag;
    }

    pub(super) fn tx(&self) -> Option<&Tx> {
        match self.held.as_deref() {
            Some(Held::Tx(tx)) => Some(tx),
            _ => None,
        }
    }

    pub(super) fn tx_mut(&mut self) -> Option<&mut Tx> {
        match self.held.as_deref_mut() {
            Some(Held::Tx(tx)) => Some(tx),
            _ => None,
        }
    }

    pub(super) fn take_tx(&mut self) -> Option<Tx> {
        match self.held.take().map(|h| *h) {
            Some(Held::Tx(tx)) => Some(tx),
            other => {
                self.held = other.map(Box::new);
                None
            }
        }
    }

    /// The first segment to send.
    pub(super) fn set_tx(&mut self, current: Segment, now_ns: u64) {
        debug_assert!(self.held.is_none());
        let queue = VecDeque::new();
        let tx = Tx { current, at: 0, plain: 0, since_ns: now_ns, sent_ns: 0, queue };
        self.held = Some(Box::new(Held::Tx(tx)));
    }

    /// The first segment that the machine wrote.
    pub(super) fn begin_tx(&mut self, segment: Segment, layered: bool, now_ns: u64) {
        if !layered {
            return self.set_tx(segment, now_ns);
        }
        self.set_tx(Segment::Own(Vec::new()), now_ns);
        if let Some(tx) = self.tx_mut() {
            tx.queue.push_back(segment);
        }
    }

    pub(super) fn cold_mut(&mut self) -> Option<&mut Cold> {
        match self.held.as_deref_mut() {
            Some(Held::Cold(cold)) => Some(cold),
            _ => None,
        }
    }

    pub(super) fn take_cold(&mut self) -> Option<Cold> {
        match self.held.take().map(|h| *h) {
            Some(Held::Cold(cold)) => Some(cold),
            other => {
                self.held = other.map(Box::new);
                None
            }
        }
    }

    /// Its address does not change until it is taken: the kernel may write to it.
    pub(super) fn set_cold(&mut self, cold: Cold) {
        debug_assert!(self.held.is_none());
        self.held = Some(Box::new(Held::Cold(cold)));
    }

    pub(super) fn is_quiet(&self) -> bool {
        self.misc == 0 && !self.has(flag::RECV | flag::SEND)
    }
}

/// What few connections have, and only for a moment.
#[derive(Debug)]
pub(super) enum Cold {
    /// The ordinary descriptor of a connection that is being registered; the kernel puts the slot
    /// into the first, the second keeps the descriptor.
    Registering([i32; 2], std::net::SocketAddr),
    /// No descriptor number was free to ask for its address with.
    Unasked {
        /// When it is closed unless one became free.
        give_up_ms: u64,
    },
    /// On its way to another shard.
    Moving {
        /// What goes along.
        parcel: Box<Parcel>,
        /// Target shard.
        to: ShardId,
        /// Ring of the target shard that has a slot reserved.
        ring: u16,
        /// Rings that refused it.
        tries: u16,
    },
}

/// A piece of what is to be sent.
#[derive(Debug)]
pub(super) enum Segment {
    /// Copied bytes of any number of writes.
    Own(Vec<u8>),
    /// A large payload, shared.
    Shared(Bytes),
}

impl Segment {
    pub(super) fn as_slice(&self) -> &[u8] {
        match self {
            Self::Own(bytes) => bytes,
            Self::Shared(bytes) => bytes,
        }
    }

    /// In two, the first of `len` bytes.
    pub(super) fn split(self, len: usize) -> (Self, Self) {
        let mut rest = match self {
            Self::Own(bytes) => Bytes::from(bytes),
            Self::Shared(bytes) => bytes,
        };
        let first = rest.split_to(len);
        (Self::Shared(first), Self::Shared(rest))
    }
}

/// What a connection has to send. Exists only while there is something.
///
/// Invariant: `current` doesn't change while a send is in flight: the kernel reads from it.
#[derive(Debug)]
pub(super) struct Tx {
    pub current: Segment,
    /// Bytes of `current` that are sent.
    pub at: usize,
    /// With layers `current` is in wire form, and what the machine wrote is in `queue`: so many of its bytes
    /// are in `current`.
    pub plain: usize,
    /// When the oldest byte that no send was started for was written, in the clock of turns, ns.
    pub since_ns: u64,
    /// When the send in flight was started, ns.
    pub sent_ns: u64,
    pub queue: VecDeque<Segment>,
}

impl Tx {
    /// Bytes of the machine that the socket has not taken.
    pub(super) fn pending(&self, layered: bool) -> usize {
        let waiting: usize = self.queue.iter().map(|s| s.as_slice().len()).sum();
        let current = self.current.as_slice().len() - self.at;
        waiting + if layered { self.plain } else { current }
    }

    /// Something is to be written behind what is there.
    pub(super) fn note_write(&mut self, sending: bool, now_ns: u64) {
        if sending && self.queue.is_empty() {
            self.since_ns = now_ns;
        }
    }

    /// Appends a copy, to the last waiting segment if it has room.
    pub(super) fn append(&mut self, bytes: &[u8], sending: bool, pool: &mut Pool) {
        let last = match self.queue.back_mut() {
            Some(last) => Some(last),
            None if !sending => Some(&mut self.current),
            None => None,
        };
        match last {
            Some(Segment::Own(own)) if own.len() + bytes.len() <= SEGMENT_MAX => {
                own.extend_from_slice(bytes);
            }
            _ => self.queue.push_back(Segment::Own(pool.filled(bytes))),
        }
    }
}

/// Send buffers kept for reuse.
#[derive(Debug, Default)]
pub(super) struct Pool {
    free: Vec<Vec<u8>>,
    bytes: usize,
}

impl Pool {
    /// A buffer that holds a copy of `bytes`.
    pub(super) fn filled(&mut self, bytes: &[u8]) -> Vec<u8> {
        let mut buffer = self.free.pop().unwrap_or_default();
        self.bytes -= buffer.capacity();
        buffer.extend_from_slice(bytes);
        buffer
    }

    /// Bytes of the buffers kept.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Takes a segment back.
    pub(super) fn give(&mut self, segment: Segment) {
        if let Segment::Own(mut buffer) = segment
            && buffer.capacity() <= SEGMENT_MAX
            && self.bytes + buffer.capacity() <= POOL_BYTES_MAX
        {
            buffer.clear();
            self.bytes += buffer.capacity();
            self.free.push(buffer);
        }
    }
}

/// The slab of connections.
#[derive(Debug, Default)]
pub(super) struct Conns {
    /// In chunks: growing copies nothing and leaves at most one chunk unused.
    chunks: Vec<Vec<Conn>>,
    free: Vec<u32>,
    live: usize,
}

/// Connections of a chunk: 32 KiB.
const CHUNK: usize = 1024;

impl Conns {
    /// A new entry.
    pub(super) fn open(&mut self, ring: u16, slot: u32, listener: u16, phase: Phase) -> ConnId {
        self.live += 1;
        let index = self.free.pop().unwrap_or_else(|| {
            if self.chunks.last().is_none_or(|c| c.len() == CHUNK) {
                self.chunks.push(Vec::with_capacity(CHUNK));
            }
            let chunk = self.chunks.len() - 1;
            self.chunks[chunk].push(Conn {
                generation: 0,
                slot: 0,
                ring: 0,
                listener: 0,
                cause: CAUSE_LOCAL,
                flags: 0,
                misc: 0,
                phase: Phase::Free,
                layers: u32::MAX,
                held: None,
            });
            (chunk * CHUNK + self.chunks[chunk].len() - 1) as u32
        });
        let conn = &mut self.chunks[index as usize / CHUNK][index as usize % CHUNK];
        debug_assert!(conn.phase == Phase::Free && conn.held.is_none());
        let generation = conn.generation;
        *conn = Conn {
            generation,
            slot,
            ring,
            listener,
            cause: CAUSE_LOCAL,
            flags: flag::WANT_READ,
            misc: 0,
            phase,
            layers: u32::MAX,
            held: None,
        };
        ConnId { index, generation }
    }

    /// The connection, unless the id is stale.
    pub(super) fn get(&mut self, id: ConnId) -> Option<&mut Conn> {
        self.chunks
            .get_mut(id.index as usize / CHUNK)?
            .get_mut(id.index as usize % CHUNK)
            .filter(|c| c.generation == id.generation && c.phase != Phase::Free)
    }

    /// The connection of a completion's `user_data`, which has room for 24 bits of generation.
    pub(super) fn id_of(&self, index: u32, generation24: u32) -> Option<ConnId> {
        let conn = self.chunks.get(index as usize / CHUNK)?.get(index as usize % CHUNK)?;
        (conn.generation & 0xff_ffff == generation24 && conn.phase != Phase::Free)
            .then_some(ConnId { index, generation: conn.generation })
    }

    /// Ends an entry; its id becomes stale.
    pub(super) fn free(&mut self, id: ConnId) {
        let conn = &mut self.chunks[id.index as usize / CHUNK][id.index as usize % CHUNK];
        debug_assert!(conn.is_quiet() && conn.phase != Phase::Free);
        conn.phase = Phase::Free;
        conn.generation = conn.generation.wrapping_add(1);
        conn.held = None;
        self.live -= 1;
        self.free.push(id.index);
    }

    /// Bytes of the slab; what its connections hold apart is not among them.
    pub(super) fn bytes(&self) -> usize {
        self.chunks.len() * CHUNK * size_of::<Conn>()
    }

    /// Entries in use.
    pub(super) fn live(&self) -> usize {
        self.live
    }

    /// Ids of all entries in use.
    pub(super) fn ids(&self) -> Vec<ConnId> {
        (0u32..)
            .zip(self.chunks.iter().flatten())
            .filter(|(_, c)| c.phase != Phase::Free)
            .map(|(index, c)| ConnId { index, generation: c.generation })
            .collect()
    }
}
