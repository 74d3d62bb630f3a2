//! Accepting connections: which ring, how many at a time, and who is there.
//!
//! Of a shard's rings one accepts at a time: the first with room. While much room is left it does
//! so by multishot; close to a bound (of the ring, the node, or the machine's room) it switches to single accepts, no
//! more of them than there is room: a multishot accept takes a whole backlog before anybody can say stop, and throws
//! away what it accepted when it meets a full table.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::sync::atomic::Ordering;

use io_uring::{cqueue, opcode, types};

use super::conn::{Cold, Phase, flag};
use super::listen;
use super::net::{Net, NetTask};
use super::probe::Feature;
use super::token::{self, Kind};
use crate::engine::Machine;
use crate::engine::ids::{ConnId, Peer};
use crate::engine::input::Input;

/// Added to the backlogs of all listeners: the room below which single accepts are used, because a
/// multishot accept can empty a full backlog before it is cancelled.
const MULTISHOT_MARGIN: u32 = 1024;
/// Single accepts armed at a time.
const SINGLES_MAX: u32 = 32;
/// Pause after the kernel ran out of descriptors or memory.
const RETRY_MS: u64 = 10;
/// A new connection whose address cannot be asked for (no descriptor number is free) is given up
/// after this long: the machine does not know it yet, so nobody else would time it out.
const ASK_MAX_MS: u64 = 5000;
/// Connections asked about again at a time.
const ASK_AGAIN_MAX: usize = 256;
/// IORING_FILE_INDEX_ALLOC as `opcode::FilesUpdate` takes it.
const ALLOC_SLOT: i32 = -1;

/// Lives on: its shard.
pub(super) struct Acceptor {
    listeners: Vec<Listener>,
    stopped: bool,
    multishot_room: u32,
    retry_at_ms: u64,
    /// Accepted connections of which the machine does not know yet.
    opening: u32,
    /// New connections that wait for a descriptor number.
    unasked: VecDeque<ConnId>,
    ask_at_ms: u64,
}

struct Listener {
    socket: OwnedFd,
    /// The kernel probes those of its connections of which it is asked for.
    probed: bool,
    paused: bool,
    rings: Vec<Armed>,
}

/// What is in flight on one ring for one listener.
///
/// Invariant: never both kinds at a time.
#[derive(Clone, Copy, Default)]
struct Armed {
    many: bool,
    /// All that is in flight was cancelled, and something still is.
    cancelling: bool,
    singles: u32,
}

impl Armed {
    /// A completion came; `more` says that its accept goes on.
    fn ended(&mut self, kind: Kind, more: bool) {
        match kind {
            Kind::AcceptOne => self.singles -= 1,
            _ => self.many &= more,
        }
        self.cancelling &= self.many || self.singles > 0;
    }
}

impl Acceptor {
    /// `backlogs` is the sum over the listeners.
    pub(super) fn new(sockets: Vec<OwnedFd>, probed: &[bool], backlogs: u32, rings: usize) -> Self {
        let listeners = sockets
            .into_iter()
            .zip(probed)
            .map(|(socket, &probed)| Listener {
                socket,
                probed,
                paused: false,
                rings: vec![Armed::default(); rings],
            })
            .collect();
        let multishot_room = backlogs.saturating_add(MULTISHOT_MARGIN);
        Self {
            listeners,
            stopped: false,
            multishot_room,
            retry_at_ms: 0,
            opening: 0,
            unasked: VecDeque::new(),
            ask_at_ms: 0,
        }
    }

    /// Pauses or resumes; false when there is no such listener.
    pub(super) fn pause(&mut self, listener: u16, paused: bool) -> bool {
        self.listeners.get_mut(usize::from(listener)).map(|l| l.paused = paused).is_some()
    }

    /// Whether connections of a listener may be probed.
    pub(super) fn probed(&self, listener: u16) -> bool {
        self.listeners.get(usize::from(listener)).is_some_and(|l| l.probed)
    }

    /// Stops for good.
    pub(super) fn stop(&mut self) {
        if !std::mem::replace(&mut self.stopped, true) {
            self.listeners.iter().for_each(|l| listen::shut(l.socket.as_raw_fd()));
        }
    }

    /// When accepting or asking may be tried again, or `u64::MAX`.
    pub(super) fn retry_ms(&self) -> u64 {
        let accept = if self.retry_at_ms == 0 { u64::MAX } else { self.retry_at_ms };
        let ask = if self.unasked.is_empty() { u64::MAX } else { self.ask_at_ms };
        accept.min(ask)
    }
}

impl<M: Machine> NetTask<M> {
    pub(super) fn on_accept(&mut self, ring: usize, kind: Kind, index: u32, cqe: &cqueue::Entry) {
        let net = &mut self.net;
        net.acceptor.listeners[index as usize].rings[ring].ended(kind, cqueue::more(cqe.flags()));
        let result = cqe.result();
        if result < 0 {
            return net.on_accept_failed(-result);
        }
        net.shared.stats(net.me).accepted.inc();
        // Other shards accept at the same time: the last place may be gone.
        let others = net.shared.connections.fetch_add(1, Ordering::Relaxed);
        let refused = others >= net.shared.max_connections;
        if net.features.has(Feature::FixedFdInstall) {
            net.ring_addr(ring).used.fetch_add(1, Ordering::Relaxed);
            let id = net.open_accepted(ring, result as u32, index as u16);
            if refused {
                net.refuse(id);
            } else {
                net.install(id, Kind::InstallForPeer);
            }
        } else if refused {
            // SAFETY: accepted for us just now.
            drop(unsafe { OwnedFd::from_raw_fd(result) });
            net.shared.connections.fetch_sub(1, Ordering::Relaxed);
            net.shared.stats(net.me).accept_over_limit.inc();
        } else {
            net.register_accepted(ring, result, index as u16);
        }
    }

    /// The descriptor of a new connection has a number for a moment: asks who it is.
    pub(super) fn on_installed(&mut self, id: ConnId, result: i32) {
        let net = &mut self.net;
        net.on_misc_done(id);
        if result < 0 {
            if matches!(-result, libc::EMFILE | libc::ENFILE) && net.is_opening(id) {
                return net.ask_later(id);
            }
            return net.drop_unopened(id);
        }
        // SAFETY: the kernel made this descriptor for us just now.
        let fd = unsafe { OwnedFd::from_raw_fd(result) };
        match listen::peer_addr(fd.as_raw_fd()) {
            Ok(addr) => self.opened(id, addr),
            Err(_) => net.drop_unopened(id),
        }
    }

    /// An accepted ordinary descriptor has become a direct one (kernels before 6.8).
    pub(super) fn on_registered(&mut self, id: ConnId, result: i32) {
        let net = &mut self.net;
        let Some(conn) = net.conns.get(id) else { return };
        let Some(Cold::Registering([slot, fd], addr)) = conn.take_cold() else {
            unreachable!("only a registering connection gets here")
        };
        // SAFETY: accepted for us, kept since, closed here.
        drop(unsafe { OwnedFd::from_raw_fd(fd) });
        conn.misc -= 1;
        if result == 1 && slot >= 0 {
            conn.slot = slot as u32;
            return self.opened(id, addr);
        }
        net.shared.stats(net.me).accept_table_full.inc();
        net.opening_over();
        net.forget(id);
    }

    fn opened(&mut self, id: ConnId, addr: SocketAddr) {
        let Some(conn) = self.net.conns.get(id) else { return };
        if conn.phase != Phase::Opening {
            conn.set(flag::SILENT);
            return self.net.try_finish(id);
        }
        conn.phase = Phase::Open;
        conn.take_cold();
        let peer = Peer { addr, listener: conn.listener };
        self.net.opening_over();
        let Some(proxied) = self.wrap(id, addr) else { return self.net.drop_unopened(id) };
        self.net.want_arm(id);
        self.feed(Input::Open { conn: id, peer, proxied });
    }
}

impl Net {
    /// No descriptor number is free for a moment. The numbers of other new connections come back
    /// within a turn; those that something else holds, nobody knows when.
    fn ask_later(&mut self, id: ConnId) {
        self.shared.stats(self.me).accept_no_descriptors.inc();
        let now = self.now.mono_ms();
        let Some(conn) = self.conns.get(id) else { return };
        if conn.cold_mut().is_none() {
            conn.set_cold(Cold::Unasked { give_up_ms: now + ASK_MAX_MS });
        }
        let acceptor = &mut self.acceptor;
        if acceptor.unasked.is_empty() {
            acceptor.ask_at_ms = now + RETRY_MS;
        }
        acceptor.unasked.push_back(id);
    }

    /// Asks again for those that wait, a few at a time: the first answers show whether it helps.
    fn ask_again(&mut self) {
        let now = self.now.mono_ms();
        if self.acceptor.unasked.is_empty() || now < self.acceptor.ask_at_ms {
            return;
        }
        self.acceptor.ask_at_ms = now + RETRY_MS;
        for _ in 0..self.acceptor.unasked.len().min(ASK_AGAIN_MAX) {
            let Some(id) = self.acceptor.unasked.pop_front() else { return };
            let Some(conn) = self.conns.get(id).filter(|c| c.phase == Phase::Opening) else {
                continue; // the node stops
            };
            match conn.cold_mut() {
                Some(Cold::Unasked { give_up_ms }) if now >= *give_up_ms => self.drop_unopened(id),
                _ => self.install(id, Kind::InstallForPeer),
            }
        }
    }

    fn open_accepted(&mut self, ring: usize, slot: u32, listener: u16) -> ConnId {
        self.acceptor.opening += 1;
        self.conns.open(ring as u16, slot, listener, Phase::Opening)
    }

    /// The machine hears of an accepted connection now, or never will.
    pub(super) fn opening_over(&mut self) {
        self.acceptor.opening -= 1;
    }

    /// Arms, switches and cancels accepts, after each turn. `wanted`: the machine's
    /// [room](crate::engine::Machine::accept_room).
    pub(super) fn drive_accepts(&mut self, wanted: u32) {
        self.ask_again();
        if self.acceptor.retry_at_ms != 0 {
            if self.now.mono_ms() < self.acceptor.retry_at_ms {
                return;
            }
            self.acceptor.retry_at_ms = 0;
        }
        let node_room =
            self.shared.max_connections - self.shared.connections.load(Ordering::Relaxed);
        // A part of what the node has left, so that the shards together seldom take too many.
        let shards = self.shared.shards.len() as u32;
        let node_room = u32::try_from(node_room.max(0)).unwrap_or(u32::MAX).div_ceil(shards);
        let chosen = (0..self.rings.len()).find(|r| self.ring_addr(*r).free() > 0);
        let wanted = wanted.saturating_sub(self.acceptor.opening);
        let room = chosen.map_or(0, |r| self.ring_addr(r).free()).min(node_room).min(wanted);
        for listener in 0..self.acceptor.listeners.len() {
            let on = !self.acceptor.stopped && !self.acceptor.listeners[listener].paused;
            self.drive_listener(listener, chosen.filter(|_| on), room);
        }
        if room == 0 && !self.acceptor.stopped && node_room == 0 {
            // Another shard may free the place, and doesn't tell.
            self.acceptor.retry_at_ms = self.now.mono_ms() + RETRY_MS;
        }
    }

    /// Nothing is armed until the last accept that was cancelled has ended: a connection wakes one accept
    /// and no more, and if that one is being cancelled, the connection waits for the next that is
    /// armed, which looks before it sleeps.
    fn drive_listener(&mut self, listener: usize, chosen: Option<usize>, room: u32) {
        let multishot = self.features.has(Feature::MultishotAccept);
        let many = room > self.acceptor.multishot_room && multishot;
        // Several listeners share the room, so each gets a part of it (and one at least).
        let listeners = self.acceptor.listeners.len() as u32;
        let share = if many || room == 0 { 0 } else { (room / listeners).clamp(1, SINGLES_MAX) };
        let mut cancelling = false;
        for ring in 0..self.rings.len() {
            let wanted = chosen == Some(ring);
            let armed = &mut self.acceptor.listeners[listener].rings[ring];
            let too_many = armed.many && !(wanted && many);
            let too_many_singles = armed.singles > if wanted { share } else { 0 };
            if (too_many || too_many_singles) && !armed.cancelling {
                armed.cancelling = true;
                let kind = if too_many { Kind::AcceptMany } else { Kind::AcceptOne };
                self.cancel_accepts(listener, ring, kind);
            }
            cancelling |= self.acceptor.listeners[listener].rings[ring].cancelling;
        }
        let Some(ring) = chosen.filter(|_| !cancelling && room > 0) else { return };
        let armed = &mut self.acceptor.listeners[listener].rings[ring];
        if many {
            if !std::mem::replace(&mut armed.many, true) {
                self.arm_accept(listener, ring, true);
            }
            return;
        }
        let missing = share - armed.singles;
        armed.singles = share;
        (0..missing).for_each(|_| self.arm_accept(listener, ring, false));
    }

    fn arm_accept(&mut self, listener: usize, ring: usize, many: bool) {
        let direct = self.features.has(Feature::FixedFdInstall);
        let fd = types::Fd(self.acceptor.listeners[listener].socket.as_raw_fd());
        let cloexec = if direct { 0 } else { libc::SOCK_CLOEXEC };
        let entry = if many {
            opcode::AcceptMulti::new(fd).allocate_file_index(direct).flags(cloexec).build()
        } else {
            opcode::Accept::new(fd, std::ptr::null_mut(), std::ptr::null_mut())
                .file_index(direct.then(types::DestinationSlot::auto_target))
                .flags(cloexec)
                .build()
        };
        let kind = if many { Kind::AcceptMany } else { Kind::AcceptOne };
        // SAFETY: points to no memory (no address is asked for).
        unsafe {
            self.submit(ring as u16, entry.user_data(token::of_index(kind, listener as u32)));
        }
    }

    fn cancel_accepts(&mut self, listener: usize, ring: usize, kind: Kind) {
        let which = token::of_index(kind, listener as u32);
        let entry = opcode::AsyncCancel2::new(types::CancelBuilder::user_data(which).all()).build();
        // SAFETY: points to no memory.
        unsafe { self.submit(ring as u16, entry) }
    }

    fn on_accept_failed(&mut self, errno: i32) {
        let stats = self.shared.stats(self.me);
        match errno {
            libc::ECANCELED => {}
            libc::ENFILE if self.features.has(Feature::FixedFdInstall) => {
                stats.accept_table_full.inc();
            }
            libc::EMFILE | libc::ENFILE | libc::ENOMEM | libc::ENOBUFS => {
                stats.accept_no_descriptors.inc();
                self.acceptor.retry_at_ms = self.now.mono_ms() + RETRY_MS;
            }
            libc::EINVAL if self.acceptor.stopped => {}
            // The peer gave up while it was queued.
            libc::ECONNABORTED | libc::EPROTO | libc::EINTR | libc::EAGAIN => {}
            _ => {
                stats.accept_errors.inc();
                self.acceptor.retry_at_ms = self.now.mono_ms() + RETRY_MS;
            }
        }
    }

    /// Asks for a descriptor number for a connection's direct descriptor.
    pub(super) fn install(&mut self, id: ConnId, kind: Kind) {
        let Some(conn) = self.conns.get(id) else { return };
        conn.misc += 1;
        let (ring, slot) = (conn.ring, conn.slot);
        let entry = opcode::FixedFdInstall::new(types::Fixed(slot), 0)
            .build()
            .user_data(token::of_conn(kind, id));
        // SAFETY: points to no memory.
        unsafe { self.submit(ring, entry) }
    }

    fn register_accepted(&mut self, ring: usize, fd: RawFd, listener: u16) {
        let Ok(addr) = listen::peer_addr(fd) else {
            // SAFETY: accepted for us just now.
            drop(unsafe { OwnedFd::from_raw_fd(fd) });
            self.shared.connections.fetch_sub(1, Ordering::Relaxed);
            return self.shared.stats(self.me).gone_at_open.inc();
        };
        self.ring_addr(ring).used.fetch_add(1, Ordering::Relaxed);
        let id = self.open_accepted(ring, u32::MAX, listener);
        let Some(conn) = self.conns.get(id) else { return };
        conn.misc += 1;
        conn.set_cold(Cold::Registering([fd, fd], addr));
        let Some(Cold::Registering(fds, _)) = conn.cold_mut() else { return };
        let entry = opcode::FilesUpdate::new(fds.as_mut_ptr(), 1)
            .offset(ALLOC_SLOT)
            .build()
            .user_data(token::of_conn(Kind::Register, id));
        // SAFETY: the box stays with the connection until `on_registered` takes it.
        unsafe { self.submit(ring as u16, entry) }
    }

    fn is_opening(&mut self, id: ConnId) -> bool {
        self.conns.get(id).is_some_and(|c| c.phase == Phase::Opening)
    }

    fn refuse(&mut self, id: ConnId) {
        self.shared.stats(self.me).accept_over_limit.inc();
        if let Some(conn) = self.conns.get(id) {
            conn.set(flag::SILENT);
        }
        self.end(id);
    }

    fn drop_unopened(&mut self, id: ConnId) {
        self.shared.stats(self.me).gone_at_open.inc();
        if let Some(conn) = self.conns.get(id) {
            conn.set(flag::SILENT);
        }
        self.end(id);
    }
}
