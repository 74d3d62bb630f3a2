//! Ending a connection: flush, FIN, wait for the peer's, close the descriptor, and only then tell
//! the machine.
//!
//! ```text
//!            ┌─ Flushing ─(all sent)─ Lingering ─(peer's FIN)─┐
//!  Open ─────┤                                                ├─ Ending ─(quiet)─ Closing ─ Free
//!            └─ Abort, or the transport failed ───────────────┘
//! ```
//!
//! Flushing and lingering together take at most [`FLUSH_MS`]. A direct descriptor is closed only
//! when nothing is in flight on it: closing does not end an armed receive.

use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::sync::atomic::Ordering;

use io_uring::{cqueue, opcode, types};
use ringmain_transport::Closing;

use super::conn::{CAUSE_FIN, CAUSE_LOCAL, Phase, flag};
use super::layers;
use super::net::{Net, NetTask};
use super::probe::Feature;
use super::ring::RingAddr;
use super::token::{self, Kind};
use crate::engine::Machine;
use crate::engine::effects::CloseHow;
use crate::engine::ids::ConnId;
use crate::engine::input::{CloseCause, Input};

/// From the order to close until the descriptor is being closed, at most. [S-93]
pub(super) const FLUSH_MS: u64 = 1000;
/// A stopping shard waits this long for its connections: a flush, and something for the kernel.
pub(super) const STOP_MS: u64 = 2 * FLUSH_MS;

/// An address of family AF_UNSPEC: connecting to it disconnects, with RST.
static UNSPECIFIED: [u8; 16] = [0; 16];

impl<M: Machine> NetTask<M> {
    pub(super) fn on_closed(&mut self, id: ConnId) {
        let Some(conn) = self.net.conns.get(id) else { return };
        conn.misc -= 1;
        let cause = match conn.cause {
            CAUSE_LOCAL => CloseCause::Local,
            CAUSE_FIN => CloseCause::PeerFin,
            errno => CloseCause::Error(errno),
        };
        let silent = conn.has(flag::SILENT);
        self.net.forget(id);
        if !silent {
            self.feed(Input::Closed { conn: id, cause });
        }
    }
}

impl Net {
    /// The machine's order.
    pub(super) fn close(&mut self, id: ConnId, how: CloseHow) -> bool {
        let Some(conn) = self.conns.get(id) else { return false };
        match (how, conn.phase) {
            (CloseHow::Flush, Phase::Open) => {
                self.begin_flush(id, CAUSE_LOCAL, Some(Closing::Normal));
            }
            (CloseHow::FlushFor(farewell), Phase::Open) => {
                self.begin_flush(id, CAUSE_LOCAL, Some(layers::closing(farewell)));
            }
            (CloseHow::Abort, Phase::Open | Phase::Flushing | Phase::Lingering) => self.abort(id),
            _ => {}
        }
        true
    }

    /// Sends what is pending, then what its layers have to say at the end, then FIN.
    pub(super) fn begin_flush(&mut self, id: ConnId, cause: i32, closing: Option<Closing>) {
        let deadline = self.now.mono_ms() + FLUSH_MS;
        let Some(conn) = self.conns.get(id) else { return };
        conn.cause = cause;
        conn.phase = Phase::Flushing;
        let layered = conn.has(flag::LAYERED);
        self.closing.push_back((deadline, id));
        if layered {
            self.will_part(id, closing);
        }
        let Some(conn) = self.conns.get(id) else { return };
        if conn.tx().is_some() {
            self.want_send(id);
        } else {
            self.flushed(id);
        }
    }

    /// All is sent.
    pub(super) fn flushed(&mut self, id: ConnId) {
        let install = self.features.has(Feature::FixedFdInstall);
        let Some(conn) = self.conns.get(id) else { return };
        if conn.has(flag::READ_ENDED) {
            return self.end(id); // both sides are done: closing sends our FIN
        }
        conn.phase = Phase::Lingering;
        // io_uring's own shutdown always goes to a worker thread; a number for the descriptor, two
        // system calls and no thread are cheaper.
        if install {
            self.install(id, Kind::InstallForShutdown);
        } else {
            self.shutdown(id);
        }
        self.want_arm(id);
    }

    fn shutdown(&mut self, id: ConnId) {
        let Some(conn) = self.conns.get(id) else { return };
        conn.misc += 1;
        let (ring, slot) = (conn.ring, conn.slot);
        let entry = opcode::Shutdown::new(types::Fixed(slot), libc::SHUT_WR)
            .build()
            .user_data(token::of_conn(Kind::Shutdown, id));
        // SAFETY: points to no memory.
        unsafe { self.submit(ring, entry) }
    }

    pub(super) fn on_installed_for_shutdown(&mut self, id: ConnId, result: i32) {
        if result >= 0 {
            // SAFETY: the kernel made this descriptor for us just now.
            let fd = unsafe { OwnedFd::from_raw_fd(result) };
            // SAFETY: no memory involved.
            unsafe { libc::shutdown(fd.as_raw_fd(), libc::SHUT_WR) };
        } else {
            self.shutdown(id);
        }
        self.on_misc_done(id);
    }

    /// One of the operations without a result of interest is done.
    pub(super) fn on_misc_done(&mut self, id: ConnId) {
        if let Some(conn) = self.conns.get(id) {
            conn.misc -= 1;
            if conn.phase == Phase::Moving {
                return self.move_when_quiet(id);
            }
            self.try_finish(id);
        }
    }

    /// RST, and what is pending is dropped.
    pub(super) fn abort(&mut self, id: ConnId) {
        self.reset(id);
        self.end(id);
    }

    fn reset(&mut self, id: ConnId) {
        let Some(conn) = self.conns.get(id) else { return };
        conn.misc += 1;
        let (ring, slot) = (conn.ring, conn.slot);
        let entry = opcode::Connect::new(
            types::Fixed(slot),
            UNSPECIFIED.as_ptr().cast(),
            UNSPECIFIED.len() as u32,
        )
        .build()
        .user_data(token::of_conn(Kind::Disconnect, id));
        // SAFETY: the address is static.
        unsafe { self.submit(ring, entry) }
    }

    /// The transport failed.
    pub(super) fn fail(&mut self, id: ConnId, errno: i32) {
        let Some(conn) = self.conns.get(id) else { return };
        match conn.phase {
            Phase::Open => {
                conn.cause = errno;
                self.end(id);
            }
            Phase::Opening | Phase::Flushing | Phase::Lingering => self.end(id),
            Phase::Moving if conn.tx().is_some() => self.move_on(id),
            Phase::Moving => self.move_when_quiet(id),
            Phase::Ending | Phase::Closing | Phase::Free => self.try_finish(id),
        }
    }

    /// Ends all operations in flight; closes when they are gone.
    pub(super) fn end(&mut self, id: ConnId) {
        let Some(conn) = self.conns.get(id) else { return };
        if matches!(conn.phase, Phase::Ending | Phase::Closing) {
            return;
        }
        let opening = std::mem::replace(&mut conn.phase, Phase::Ending) == Phase::Opening;
        let recv = conn.has(flag::RECV);
        let send = conn.has(flag::SEND);
        if opening {
            self.opening_over();
        }
        if recv {
            self.cancel(id, Kind::Recv);
        }
        if send {
            self.cancel(id, Kind::Send);
        }
        self.try_finish(id);
    }

    /// Cancels one operation, by its token: by descriptor, the kernel would look at every operation
    /// that waits on the ring, one for each of its connections (330 µs at 30,000).
    fn cancel(&mut self, id: ConnId, kind: Kind) {
        let Some(conn) = self.conns.get(id) else { return };
        conn.misc += 1;
        let ring = conn.ring;
        let entry = opcode::AsyncCancel::new(token::of_conn(kind, id))
            .build()
            .user_data(token::of_conn(Kind::Cancel, id));
        // SAFETY: points to no memory.
        unsafe { self.submit(ring, entry) }
    }

    /// Closes the descriptor of an ending connection that is quiet.
    pub(super) fn try_finish(&mut self, id: ConnId) {
        let Some(conn) = self.conns.get(id) else { return };
        if conn.phase != Phase::Ending || !conn.is_quiet() {
            return;
        }
        conn.phase = Phase::Closing;
        conn.misc += 1;
        let (ring, slot) = (conn.ring, conn.slot);
        let entry = opcode::Close::new(types::Fixed(slot))
            .build()
            .user_data(token::of_conn(Kind::Close, id));
        // SAFETY: points to no memory.
        unsafe { self.submit(ring, entry) }
    }

    /// Ends the slab entry of a connection whose descriptor is closed.
    pub(super) fn forget(&mut self, id: ConnId) {
        let Some(conn) = self.conns.get(id) else { return };
        let ring = usize::from(conn.ring);
        let moved = conn.phase == Phase::Closing && conn.has(flag::SILENT) && conn.cause == MOVED;
        let followed = conn.has(flag::FOLLOWED);
        if let Some(tx) = conn.take_tx() {
            self.pool.give(tx.current);
            tx.queue.into_iter().for_each(|s| self.pool.give(s));
        }
        if followed {
            self.forget_followed(id);
        }
        drop(self.take_layers(id));
        self.conns.free(id);
        self.ring_addr(ring).release();
        if !moved {
            self.shared.connections.fetch_sub(1, Ordering::Relaxed);
            self.shared.stats(self.me).closed.inc();
        }
    }

    /// Closing connections whose time is over.
    pub(super) fn expire_closing(&mut self) {
        while let Some((deadline, id)) = self.closing.front().copied() {
            let found = self.conns.get(id).map(|c| (c.phase, c.tx().is_some()));
            let Some((phase, pending)) = found else {
                self.closing.pop_front(); // closed in time
                continue;
            };
            if deadline > self.now.mono_ms() {
                return;
            }
            self.closing.pop_front();
            match phase {
                Phase::Flushing => {
                    self.shared.stats(self.me).flush_timeouts.inc();
                    self.abort(id);
                }
                Phase::Lingering => self.end(id),
                // Its new home hears of it.
                Phase::Moving if pending => self.reset(id),
                _ => {}
            }
        }
    }

    /// The node stops: closes a connection in whatever state it is.
    pub(super) fn stop_conn(&mut self, id: ConnId) {
        match self.conns.get(id).map(|c| c.phase) {
            Some(Phase::Open) => self.begin_flush(id, CAUSE_LOCAL, Some(Closing::GoingAway)),
            Some(Phase::Opening) => {
                if let Some(conn) = self.conns.get(id) {
                    conn.set(flag::SILENT);
                }
                self.end(id);
            }
            _ => {} // on its way already
        }
    }

    pub(super) fn ring_addr(&self, ring: usize) -> &RingAddr {
        &self.rings[ring].addr
    }

    /// Frees what a completion without a connection brought. Not reached by design.
    pub(super) fn drop_stray(&mut self, ring: usize, kind: Kind, cqe: &cqueue::Entry) {
        if let Some(buffer) = cqueue::buffer_select(cqe.flags()) {
            self.rings[ring].recycle(buffer);
        }
        if matches!(kind, Kind::InstallForPeer | Kind::InstallForShutdown) && cqe.result() >= 0 {
            // SAFETY: the kernel made this descriptor for us just now.
            drop(unsafe { OwnedFd::from_raw_fd(cqe.result()) });
        }
    }
}

/// [`Conn::cause`](super::conn::Conn::cause) of a connection that lives on at another shard.
pub(super) const MOVED: i32 = -2;
