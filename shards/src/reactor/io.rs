//! Receiving and sending on open connections.

use bytes::Bytes;
use io_uring::{cqueue, opcode, types};
use ringmain_transport::Closing;

use super::conn::{CAUSE_FIN, Phase, Segment, flag};
use super::net::{Net, NetTask, QUIET_SEND_BYTES_MAX};
use super::probe::Feature;
use super::ring::BUFFER_GROUP;
use super::token::{self, Kind};
use crate::engine::Machine;
use crate::engine::ids::ConnId;
use crate::engine::input::Input;

/// Most bytes of one send. Above it a slow peer's `Sent` would come too rarely to account with.
const SEND_MAX: usize = 1 << 20;

/// A socket option, switched on.
static ON: libc::c_int = 1;

impl<M: Machine> NetTask<M> {
    pub(super) fn on_recv(&mut self, ring: usize, id: ConnId, cqe: &cqueue::Entry) {
        let result = cqe.result();
        let more = cqueue::more(cqe.flags());
        let buffer = cqueue::buffer_select(cqe.flags());
        let Some(conn) = self.net.conns.get(id) else { return };
        if !more {
            conn.clear(flag::RECV | flag::RECV_CANCEL);
        }
        if result > 0 {
            let Some(buffer) = buffer else { unreachable!("receives select a buffer") };
            let bytes = self.net.rings[ring].received(buffer, result as u32);
            // SAFETY: the kernel filled this buffer and gave it to us; it is lent again by
            // `recycle` below, after the last use of the slice.
            self.on_data(id, unsafe { &mut *bytes });
            self.net.rings[ring].recycle(buffer);
        } else if let Some(buffer) = buffer {
            self.net.rings[ring].recycle(buffer);
        }
        if !more {
            self.net.after_recv(id, result);
        }
    }

    fn on_data(&mut self, id: ConnId, bytes: &mut [u8]) {
        let stats = self.net.shared.stats(self.net.me);
        stats.bytes_received.add(bytes.len() as u64);
        stats.receives.inc();
        let Some(conn) = self.net.conns.get(id) else { return };
        if conn.has(flag::LAYERED) {
            return self.on_wire(id, bytes);
        }
        match conn.phase {
            Phase::Open => self.feed(Input::Data { conn: id, bytes }),
            Phase::Moving => self.net.append_to_parcel(id, bytes),
            _ => {} // closing: what still comes is of no use to anyone
        }
    }

    pub(super) fn on_send(&mut self, id: ConnId, result: i32) {
        let net = &mut self.net;
        let Some(conn) = net.conns.get(id) else { return };
        let (quiet, followed) = (conn.has(flag::QUIET), conn.has(flag::FOLLOWED));
        let layered = conn.has(flag::LAYERED);
        conn.clear(flag::SEND | flag::QUIET);
        if result < 0 {
            return match -result {
                libc::EINTR | libc::EAGAIN | libc::ENOBUFS | libc::ENOMEM => net.want_send(id),
                errno => net.fail(id, errno),
            };
        }
        let Some(tx) = conn.tx_mut() else { unreachable!("a send has something to send") };
        // A completion that the shard slept through may have been there for long.
        let seen_ns = (!quiet || tx.sent_ns > net.slept_quiet_ns).then_some(net.now.mono_ns);
        if let Some(now_ns) = seen_ns {
            self.fx.observe.send_completed(now_ns.saturating_sub(tx.sent_ns));
        }
        tx.at += result as usize;
        // What the machine wrote of it.
        let mut taken = result as usize;
        if layered {
            taken = net.sealed_sent(id);
        } else if tx.at == tx.current.as_slice().len() {
            tx.at = 0;
            match tx.queue.pop_front() {
                Some(next) => net.pool.give(std::mem::replace(&mut tx.current, next)),
                None => {
                    if let Some(tx) = conn.take_tx() {
                        net.pool.give(tx.current);
                    }
                }
            }
        }
        net.shared.stats(net.me).bytes_sent.add(result as u64);
        if followed {
            net.followed_bytes_sent(id, taken, seen_ns, &mut self.fx.observe);
        }
        let Some(conn) = net.conns.get(id) else { return };
        let phase = conn.phase;
        if conn.tx().is_some() {
            net.want_send(id);
        } else if phase == Phase::Flushing {
            net.flushed(id);
        } else if phase == Phase::Moving {
            net.move_on(id);
        }
        if phase == Phase::Open && taken > 0 {
            self.feed(Input::Sent { conn: id, bytes: taken as u32 });
        }
        self.net.try_finish(id);
    }
}

impl Net {
    /// A receive ended: with data, with FIN, or with an error.
    fn after_recv(&mut self, id: ConnId, result: i32) {
        let stats = self.shared.stats(self.me);
        let Some(conn) = self.conns.get(id) else { return };
        match -result {
            0 => {
                conn.set(flag::READ_ENDED);
                if conn.phase == Phase::Open {
                    self.fins.push(id);
                } else if conn.phase == Phase::Lingering {
                    return self.end(id);
                }
            }
            libc::ENOBUFS => stats.no_buffers.inc(),
            libc::ECANCELED | libc::EINTR | libc::EAGAIN | libc::ENOMEM => {}
            errno if errno > 0 => {
                conn.set(flag::READ_ENDED);
                return self.fail(id, errno);
            }
            _ if conn.has(flag::ESTABLISHED) => stats.rearmed.inc(),
            _ => {}
        }
        match self.conns.get(id).map(|c| c.phase) {
            Some(Phase::Moving) => self.move_when_quiet(id),
            Some(Phase::Ending) => self.try_finish(id),
            _ => self.want_arm(id),
        }
    }

    /// Has a receive armed at the end of the turn, if one is wanted then.
    pub(super) fn want_arm(&mut self, id: ConnId) {
        if let Some(conn) = self.conns.get(id)
            && !conn.has(flag::TO_ARM)
        {
            conn.set(flag::TO_ARM);
            self.to_arm.push(id);
        }
    }

    /// Arms the receives that are wanted. Those for which their ring may have no buffers have to wait for
    /// the next turn: a receive that finds none ends, and would have to be armed again.
    pub(super) fn arm_recvs(&mut self) {
        if self.to_arm.is_empty() {
            return;
        }
        let mut ids = std::mem::take(&mut self.to_arm);
        ids.retain(|id| !self.arm_recv(*id));
        ids.append(&mut self.to_arm);
        self.to_arm = ids;
    }

    /// False if it has to wait.
    fn arm_recv(&mut self, id: ConnId) -> bool {
        let multishot = self.features.has(Feature::MultishotRecv);
        let Some(conn) = self.conns.get(id) else { return true };
        let wanted = match conn.phase {
            Phase::Open => conn.has(flag::WANT_READ) && !conn.has(flag::UNREAD),
            Phase::Lingering => true,
            _ => false,
        };
        if !wanted || conn.has(flag::RECV | flag::READ_ENDED) {
            conn.clear(flag::TO_ARM);
            return true;
        }
        if !self.rings[usize::from(conn.ring)].may_receive() {
            return false;
        }
        conn.clear(flag::TO_ARM);
        conn.set(flag::RECV);
        let (ring, slot) = (conn.ring, types::Fixed(conn.slot));
        let many = multishot && conn.has(flag::ESTABLISHED) && conn.phase == Phase::Open;
        let entry = if many {
            opcode::RecvMulti::new(slot, BUFFER_GROUP).build()
        } else {
            opcode::Recv::new(slot, std::ptr::null_mut(), 0)
                .buf_group(BUFFER_GROUP)
                .build()
                .flags(io_uring::squeue::Flags::BUFFER_SELECT)
        };
        // SAFETY: points to no memory; the buffer comes from the ring's registered buffers.
        unsafe { self.submit(ring, entry.user_data(token::of_conn(Kind::Recv, id))) };
        true
    }

    pub(super) fn established(&mut self, id: ConnId) -> bool {
        let known = self.open_conn(id).map(|c| c.set(flag::ESTABLISHED)).is_some();
        if known {
            self.want_arm(id);
        }
        known
    }

    /// Switches the kernel's probes on, where the listener is set up for them. Not for all: their
    /// timers are coarse, so those of many thousand connections fire at once, which a loopback
    /// interface or a switch answers by dropping probes until connections count as dead.
    pub(super) fn probe_peer(&mut self, id: ConnId) -> bool {
        let Some(conn) = self.open_conn(id) else { return false };
        let (ring, slot, listener) = (conn.ring, conn.slot, conn.listener);
        if !self.acceptor.probed(listener) {
            return true;
        }
        let (level, name) = (libc::SOL_SOCKET as u32, libc::SO_KEEPALIVE as u32);
        let entry =
            opcode::SetSockOpt::new(types::Fixed(slot), level, name, (&raw const ON).cast(), 4)
                .build()
                .flags(io_uring::squeue::Flags::SKIP_SUCCESS)
                .user_data(token::of_index(Kind::Ignore, 0));
        // SAFETY: the option is a static.
        unsafe { self.submit(ring, entry) }
        true
    }

    pub(super) fn pause_read(&mut self, id: ConnId) -> bool {
        let Some(conn) = self.open_conn(id) else { return false };
        conn.clear(flag::WANT_READ);
        self.cancel_recv(id);
        true
    }

    pub(super) fn resume_read(&mut self, id: ConnId) -> bool {
        let Some(conn) = self.open_conn(id) else { return false };
        conn.set(flag::WANT_READ);
        self.want_arm(id);
        true
    }

    /// Ends the receive in flight, if there is one. Its last completion still comes.
    pub(super) fn cancel_recv(&mut self, id: ConnId) {
        let Some(conn) = self.conns.get(id) else { return };
        if !conn.has(flag::RECV) || conn.has(flag::RECV_CANCEL) {
            return;
        }
        conn.set(flag::RECV_CANCEL);
        let ring = conn.ring;
        let entry = opcode::AsyncCancel::new(token::of_conn(Kind::Recv, id)).build();
        // SAFETY: points to no memory.
        unsafe { self.submit(ring, entry) }
    }

    pub(super) fn write(&mut self, id: ConnId, bytes: &[u8]) -> bool {
        let Some(conn) = self.conns.get(id).filter(|c| c.phase == Phase::Open) else {
            return false;
        };
        if bytes.is_empty() {
            return true;
        }
        // With layers it waits in the queue to be sealed.
        let layered = conn.has(flag::LAYERED);
        let (sending, now_ns) = (layered || conn.has(flag::SEND), self.now.mono_ns);
        match conn.tx_mut() {
            Some(tx) => {
                tx.note_write(sending, now_ns);
                tx.append(bytes, sending, &mut self.pool);
            }
            None => conn.begin_tx(Segment::Own(self.pool.filled(bytes)), layered, now_ns),
        }
        self.want_send(id);
        true
    }

    pub(super) fn write_shared(&mut self, id: ConnId, bytes: &Bytes) -> bool {
        let now_ns = self.now.mono_ns;
        let Some(conn) = self.open_conn(id) else { return false };
        if bytes.is_empty() {
            return true;
        }
        let segment = Segment::Shared(bytes.clone());
        let layered = conn.has(flag::LAYERED);
        let sending = layered || conn.has(flag::SEND);
        match conn.tx_mut() {
            Some(tx) => {
                tx.note_write(sending, now_ns);
                tx.queue.push_back(segment);
            }
            None => conn.begin_tx(segment, layered, now_ns),
        }
        self.want_send(id);
        true
    }

    /// Has a send started at the end of the turn.
    pub(super) fn want_send(&mut self, id: ConnId) {
        if let Some(conn) = self.conns.get(id)
            && !conn.has(flag::DIRTY)
        {
            conn.set(flag::DIRTY);
            self.dirty.push(id);
        }
    }

    /// Starts the send of what is pending; `now_ns` is the time. How long the oldest of it waited for that,
    /// if a send was started.
    pub(super) fn start_send(&mut self, id: ConnId, now_ns: u64) -> Option<u64> {
        let conn = self.conns.get(id)?;
        conn.clear(flag::DIRTY);
        let layered = conn.has(flag::LAYERED);
        let sends = matches!(conn.phase, Phase::Open | Phase::Flushing)
            || layered && conn.phase == Phase::Moving;
        if conn.has(flag::SEND) || !sends || layered && !self.seal_next(id) {
            return None;
        }
        let conn = self.conns.get(id)?;
        let (followed, slot) = (conn.has(flag::FOLLOWED), conn.slot);
        let tx = conn.tx_mut()?;
        let waited_ns = now_ns.saturating_sub(tx.since_ns);
        // What waits behind it has waited since then, too, as far as anybody knows.
        (tx.sent_ns, tx.since_ns) = (now_ns, now_ns);
        let left = &tx.current.as_slice()[tx.at..];
        let bytes = left.len().min(SEND_MAX);
        let quiet = tx.queue.is_empty() && left.len() <= QUIET_SEND_BYTES_MAX;
        let entry = opcode::Send::new(types::Fixed(slot), left.as_ptr(), bytes as u32)
            .flags(libc::MSG_WAITALL | libc::MSG_NOSIGNAL)
            .build()
            .user_data(token::of_conn(Kind::Send, id));
        let written = if layered { tx.plain } else { bytes };
        conn.set(flag::SEND);
        let ring = conn.ring;
        let mut quiet = ring == 0 && conn.phase == Phase::Open && quiet;
        if followed {
            quiet &= !self.followed_send_starts(id, written, now_ns);
        }
        if quiet && let Some(conn) = self.conns.get(id) {
            conn.set(flag::QUIET);
        }
        self.quiet_sends += u32::from(quiet);
        self.sends += 1;
        // SAFETY: `tx.current` neither changes nor goes away while SEND is set: it is replaced in
        // `on_send` only, and the entry of a connection is freed only when it is quiet.
        unsafe { self.submit(ring, entry) }
        Some(waited_ns)
    }

    /// The peers that sent FIN in this turn: what the machine answered to their last words is sent.
    pub(super) fn take_fins(&mut self) {
        while let Some(id) = self.fins.pop() {
            if self.open_conn(id).is_some() {
                self.begin_flush(id, CAUSE_FIN, Some(Closing::Normal));
            }
        }
    }
}
