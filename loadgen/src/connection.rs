//! How a client's connection opens and ends.
//!
//! ```text
//! open:  SOCKET ─▶ IP_BIND_ADDRESS_NO_PORT ─▶ BIND ─▶ TCP_NODELAY ─▶ CONNECT ─▶ SEND ─▶ RECV
//!        one linked chain, one submission, no system call of its own
//! end:   (DISCONNECT, or linger 0) ─▶ cancel the receive ─▶ it ends ─▶ CLOSE ─▶ slot is free
//! ```

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

use io_uring::squeue::{Entry, Flags};
use io_uring::types::{DestinationSlot, Fixed};
use io_uring::{opcode, types};

use crate::client::{
    BLAMED, FIN_AFTER_SEND, PINGED, RECEIVING, SENDING, State, Traffic, WAS_READY,
};
use crate::packets;
use crate::plan::{ClientIds, End, Plan};
use crate::ring::{Completion, Ring, recv_multi, send};
use crate::stats::Phase;
use crate::worker::{Op, Worker, user_data};

/// How a socket comes to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum OpenPath {
    /// All in the ring (Linux 6.11 and on).
    Ring,
    /// socket, setsockopt and bind as system calls, then registered: about 2 µs more.
    Calls,
}

impl OpenPath {
    pub(crate) fn probe(ring: &Ring) -> io::Result<Self> {
        // BIND came after SETSOCKOPT, which cannot be probed.
        Ok(if ring.supports(opcode::Bind::CODE)? { Self::Ring } else { Self::Calls })
    }
}

/// A switched-on socket option, as the kernel reads it.
static ON: libc::c_int = 1;
/// Linger for no time: close sends RST.
static LINGER_0: libc::linger = libc::linger { l_onoff: 1, l_linger: 0 };
/// How long a connection that we end may take before its receive is cancelled, in ns.
const CLOSE_TIMEOUT_NS: u64 = 5_000_000_000;
/// What a client that opens in one turn costs: bounds how long a turn takes.
const OPENS_PER_TURN: usize = 256;

impl Worker {
    /// Opens as many connections as the rate and the limit of those in flight allow.
    pub(crate) fn open_some(&mut self) -> io::Result<()> {
        if self.phase >= Phase::Close {
            return Ok(());
        }
        let mut room = self.opening_max().saturating_sub(self.opening).min(OPENS_PER_TURN);
        if let Some(rate) = self.plan.connect_rate {
            let elapsed = (self.now - self.started) as f64 / 1e9;
            let due = (elapsed * rate / self.plan.workers as f64) as u64;
            room = room.min(due.saturating_sub(self.counters.attempts) as usize);
        }
        for _ in 0..room {
            let Some(local) = self.to_open.pop() else { break };
            self.open(local)?;
        }
        Ok(())
    }

    fn open(&mut self, local: u32) -> io::Result<()> {
        let plan = self.plan.clone();
        self.write_connect(&plan, local);
        let attempt = self.counters.attempts as usize * plan.workers + self.index;
        self.counters.attempts += 1;
        self.opening += 1;
        let source = (!self.sources.is_empty()).then(|| attempt % self.sources.len());
        let (ring, slot) = self.place(local);
        let mut chain: [Option<Entry>; 7] = [const { None }; 7];
        let mut len = 0;
        let mut add = |entry: Entry| {
            chain[len] = Some(entry);
            len += 1;
        };
        let nodelay = self.population(&plan, local).has_traffic();
        match self.open_path {
            OpenPath::Ring => self.socket_entries(slot, local, source, nodelay, &mut add),
            OpenPath::Calls => {
                let fd = self.socket_by_calls(source, nodelay)?;
                self.rings[ring].install(slot, fd.as_raw_fd())?;
            }
        }
        let quiet = Flags::IO_LINK | Flags::SKIP_SUCCESS;
        let ud = user_data(Op::Open, local);
        add(opcode::Connect::new(Fixed(slot), self.target.as_ptr(), self.target.len())
            .build()
            .flags(quiet)
            .user_data(ud));
        let client = &mut self.clients[local as usize];
        client.state = State::Opening;
        client.since_ns = self.now;
        client.last_sent_ms = ((self.now - self.started) / 1_000_000) as u32;
        client.flags = SENDING | RECEIVING;
        let bytes = &self.buffers.of(&mut client.out).inflight;
        add(send(slot, bytes.as_ptr(), bytes.len(), user_data(Op::Send, local))
            .flags(Flags::IO_LINK));
        add(recv_multi(slot, user_data(Op::Recv, local)));
        let chain: Vec<Entry> = chain.into_iter().flatten().collect();
        if self.rings[ring].room() < chain.len() {
            // A chain must go in one submission.
            self.rings[ring].submit()?;
        }
        // SAFETY: addresses are fields of `self` that never change, options are statics, and the
        // send buffer rests until `on_send`.
        unsafe { self.rings[ring].push(&chain) }
    }

    fn socket_entries(
        &self,
        slot: u32,
        local: u32,
        source: Option<usize>,
        nodelay: bool,
        add: &mut impl FnMut(Entry),
    ) {
        let quiet = Flags::IO_LINK | Flags::SKIP_SUCCESS;
        let ud = user_data(Op::Open, local);
        let dest = DestinationSlot::try_from_slot_target(slot).expect("a slot is small");
        add(opcode::Socket::new(self.target.family(), libc::SOCK_STREAM, 0)
            .file_index(Some(dest))
            .build()
            .flags(quiet)
            .user_data(ud));
        let option = |level: i32, name: i32| {
            let value = (&raw const ON).cast();
            opcode::SetSockOpt::new(Fixed(slot), level as u32, name as u32, value, 4)
                .build()
                .flags(quiet)
                .user_data(ud)
        };
        if let Some(source) = source {
            let source = &self.sources[source];
            add(option(libc::IPPROTO_IP, libc::IP_BIND_ADDRESS_NO_PORT));
            add(opcode::Bind::new(Fixed(slot), source.as_ptr(), source.len())
                .build()
                .flags(quiet)
                .user_data(ud));
        }
        if nodelay {
            add(option(libc::IPPROTO_TCP, libc::TCP_NODELAY));
        }
    }

    fn socket_by_calls(&self, source: Option<usize>, nodelay: bool) -> io::Result<OwnedFd> {
        let check = |result: i32| {
            if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
        };
        // SAFETY: plain system calls over memory of `self`; the descriptor is owned at once.
        unsafe {
            let kind = libc::SOCK_STREAM | libc::SOCK_CLOEXEC;
            let fd = OwnedFd::from_raw_fd(check(libc::socket(self.target.family(), kind, 0))?);
            let set = |level: i32, name: i32| {
                check(libc::setsockopt(fd.as_raw_fd(), level, name, (&raw const ON).cast(), 4))
            };
            if let Some(source) = source {
                let source = &self.sources[source];
                set(libc::IPPROTO_IP, libc::IP_BIND_ADDRESS_NO_PORT)?;
                check(libc::bind(fd.as_raw_fd(), source.as_ptr(), source.len()))?;
            }
            if nodelay {
                set(libc::IPPROTO_TCP, libc::TCP_NODELAY)?;
            }
            Ok(fd)
        }
    }

    /// Puts CONNECT into the client's in-flight buffer.
    fn write_connect(&mut self, plan: &Plan, local: u32) {
        self.clients[local as usize].cycle += 1;
        let number = self.client_number(plan, local);
        let population = self.population(plan, local);
        self.text.clear();
        match &population.connect.ids {
            ClientIds::Template(t) => t.render_into(&mut self.text, number, ""),
            ClientIds::List(ids) => self.text.push_str(&ids[number as usize % ids.len()]),
        }
        let client = &mut self.clients[local as usize];
        let out = &mut self.buffers.of(&mut client.out).inflight;
        out.clear();
        packets::connect(out, &population.connect, number, &self.text);
    }

    /// What `%i` means: the number in the population, and on from there in later cycles of a run
    /// with fresh identifiers.
    pub(crate) fn client_number(&self, plan: &Plan, local: u32) -> u64 {
        let number = u64::from(self.number(local));
        if !plan.fresh_ids {
            return number;
        }
        let client = &self.clients[local as usize];
        let nth = u64::from(client.cycle.saturating_sub(1));
        number + nth * u64::from(self.population(plan, local).count)
    }

    /// An operation before the send failed. Since it was to skip its completion on success, the
    /// kernel skips those of the rest of the chain: this is the only one that comes.
    pub(crate) fn on_open_fault(&mut self, local: u32, result: i32) -> io::Result<()> {
        if result >= 0 {
            return Ok(());
        }
        if result != -libc::ECANCELED {
            let error = io::Error::from_raw_os_error(-result);
            self.blame(local, &format!("cannot connect: {error}"));
        }
        self.clients[local as usize].unset(SENDING | RECEIVING);
        self.connection_ended(local, result)
    }

    pub(crate) fn on_send(&mut self, local: u32, result: i32) -> io::Result<()> {
        // Later sends need no answer to a failure: the receive ends with the connection. A failure
        // of the first one ends the chain before the receive.
        let opening = self.clients[local as usize].state == State::Opening;
        if opening && result < 0 && result != -libc::ECANCELED {
            let error = io::Error::from_raw_os_error(-result);
            self.blame(local, &format!("cannot send CONNECT: {error}"));
        }
        let client = &mut self.clients[local as usize];
        client.unset(SENDING);
        let Some(buffer) = self.buffers.get(client.out) else { return Ok(()) };
        if !buffer.pending.is_empty() && client.state != State::Freeing {
            return self.start_send(local);
        }
        self.buffers.release(&mut client.out);
        if client.state == State::Freeing {
            return self.free_slot(local);
        }
        if client.has(FIN_AFTER_SEND) {
            client.unset(FIN_AFTER_SEND);
            return self.end_receive(local);
        }
        Ok(())
    }

    pub(crate) fn on_recv(&mut self, local: u32, c: Completion) -> io::Result<()> {
        let (ring, slot) = self.place(local);
        if let Some(buffer) = c.buffer() {
            if c.result > 0 && self.clients[local as usize].state != State::Closing {
                self.receive(local, ring, buffer, c.result as usize)?;
            }
            self.rings[ring].recycle(buffer);
        }
        if c.more() {
            return Ok(());
        }
        if c.result > 0 || c.result == -libc::ENOBUFS {
            // The kernel stopped it for want of room: buffers are free again now.
            let entry = recv_multi(slot, user_data(Op::Recv, local));
            // SAFETY: the entry points at nothing.
            return unsafe { self.rings[ring].push(&[entry]) };
        }
        self.clients[local as usize].unset(RECEIVING);
        self.connection_ended(local, c.result)
    }

    fn connection_ended(&mut self, local: u32, result: i32) -> io::Result<()> {
        let state = self.clients[local as usize].state;
        let how = |result: i32| match result {
            0 => "closed".to_owned(),
            e => io::Error::from_raw_os_error(-e).to_string(),
        };
        match state {
            State::Opening => self.blame(local, &format!("no CONNACK: {}", how(result))),
            State::Subscribing => self.blame(local, &format!("no SUBACK: {}", how(result))),
            State::Live => {
                self.blame(local, &format!("connection lost: {}", how(result)));
            }
            _ => {}
        }
        self.leave_state(local);
        let client = &mut self.clients[local as usize];
        client.state = State::Freeing;
        client.partial = None;
        if client.has(SENDING) { Ok(()) } else { self.free_slot(local) }
    }

    /// Takes the client out of the counts of the state that it is in.
    fn leave_state(&mut self, local: u32) {
        let client = &mut self.clients[local as usize];
        match client.state {
            State::Opening | State::Subscribing => self.opening -= 1,
            State::Live => self.counters.live -= 1,
            _ => {}
        }
    }

    fn free_slot(&mut self, local: u32) -> io::Result<()> {
        let (ring, slot) = self.place(local);
        self.buffers.release(&mut self.clients[local as usize].out);
        let entry = opcode::Close::new(Fixed(slot)).build().user_data(user_data(Op::Close, local));
        // SAFETY: the entry points at nothing.
        unsafe { self.rings[ring].push(&[entry]) }
    }

    /// The slot is free: the next cycle, or the end.
    pub(crate) fn on_closed(&mut self, local: u32) {
        let client = &mut self.clients[local as usize];
        let was_ready = client.has(WAS_READY);
        client.flags &= crate::client::DIRTY | crate::client::PUMP;
        if client.cycle < self.plan.cycles && was_ready && self.phase < Phase::Close {
            client.state = State::Waiting;
            self.to_open.push(local);
        } else {
            client.state = State::Done;
            self.counters.finished += 1;
        }
    }

    /// Counts why a connection failed, once.
    pub(crate) fn blame(&mut self, local: u32, why: &str) {
        let client = &mut self.clients[local as usize];
        if client.has(BLAMED) {
            return;
        }
        client.set(BLAMED);
        if client.has(WAS_READY) {
            self.counters.broken += 1;
        } else {
            self.counters.failed += 1;
        }
        self.fault(why);
    }

    /// Ends a connection as the plan says.
    pub(crate) fn begin_close(&mut self, local: u32) -> io::Result<()> {
        self.leave_state(local);
        let version = self.population(&self.plan, local).connect.version;
        let client = &mut self.clients[local as usize];
        let was_live = client.state == State::Live;
        client.state = State::Closing;
        client.since_ns = self.now;
        match self.plan.end {
            End::Disconnect if was_live => {
                client.set(FIN_AFTER_SEND);
                packets::disconnect(&mut self.buffers.of(&mut client.out).pending, version);
                self.mark_dirty(local);
                Ok(())
            }
            End::Rst => {
                let (ring, slot) = self.place(local);
                let value = (&raw const LINGER_0).cast();
                let (level, name) = (libc::SOL_SOCKET as u32, libc::SO_LINGER as u32);
                let size = size_of::<libc::linger>() as u32;
                let linger = opcode::SetSockOpt::new(Fixed(slot), level, name, value, size)
                    .build()
                    .flags(Flags::IO_LINK | Flags::SKIP_SUCCESS)
                    .user_data(user_data(Op::Quiet, local));
                // SAFETY: the option is a static.
                unsafe { self.rings[ring].push(&[linger, cancel(local, Op::Recv)]) }
            }
            _ => self.end_receive(local),
        }
    }

    /// Cancels the receive; its end closes the slot, which sends FIN.
    ///
    /// Not SHUTDOWN: the kernel hands that to a worker thread, which looks the slot up when it gets
    /// to it. If the broker closes first, the slot may hold the next connection by then.
    fn end_receive(&mut self, local: u32) -> io::Result<()> {
        let (ring, _) = self.place(local);
        // SAFETY: the entry points at nothing.
        unsafe { self.rings[ring].push(&[cancel(local, Op::Recv)]) }
    }

    /// Ends all connections.
    pub(crate) fn close_all(&mut self) -> io::Result<()> {
        self.counters.finished += self.to_open.len() as u64;
        for local in std::mem::take(&mut self.to_open) {
            self.clients[local as usize].state = State::Done;
        }
        for local in 0..self.clients.len() as u32 {
            let state = self.clients[local as usize].state;
            if matches!(state, State::Opening | State::Subscribing | State::Live) {
                self.begin_close(local)?;
            }
        }
        Ok(())
    }

    /// What the sweep does with a client: keep-alive and timeouts.
    pub(crate) fn look_at(&mut self, local: u32) -> io::Result<()> {
        let client = &self.clients[local as usize];
        let age = self.now.saturating_sub(client.since_ns);
        match client.state {
            State::Live => self.keep_alive(local),
            State::Opening | State::Subscribing
                if age > self.plan.connect_timeout.as_nanos() as u64 =>
            {
                self.blame(local, "no answer in time");
                self.cancel_all(local)
            }
            State::Closing if age > CLOSE_TIMEOUT_NS && client.has(RECEIVING) => {
                self.fault("a connection did not end in 5 s");
                self.cancel_all(local)
            }
            _ => Ok(()),
        }
    }

    fn cancel_all(&mut self, local: u32) -> io::Result<()> {
        let (ring, _) = self.place(local);
        // SAFETY: the entries point at nothing.
        unsafe { self.rings[ring].push(&[cancel(local, Op::Open), cancel(local, Op::Recv)]) }
    }

    /// Sends PINGREQ when half of the keep-alive went by without a packet: with the sweep at a
    /// quarter of it, before three quarters.
    fn keep_alive(&mut self, local: u32) -> io::Result<()> {
        let keep_alive_s = self.population(&self.plan, local).connect.keep_alive_s;
        if keep_alive_s == 0 {
            return Ok(());
        }
        let client = &mut self.clients[local as usize];
        let now_ms = ((self.now - self.started) / 1_000_000) as u32;
        if now_ms.wrapping_sub(client.last_sent_ms) < u32::from(keep_alive_s) * 500 {
            return Ok(());
        }
        if client.has(PINGED) {
            self.counters.pings_unanswered += 1;
        }
        client.set(PINGED);
        self.counters.pings += 1;
        self.buffers.of(&mut client.out).pending.extend_from_slice(&packets::PINGREQ);
        self.mark_dirty(local);
        Ok(())
    }

    /// Gives clients of populations with traffic what they need for it.
    pub(crate) fn add_traffic_state(&mut self) {
        let plan = self.plan.clone();
        for local in 0..self.clients.len() as u32 {
            let population = self.population(&plan, local);
            if !population.has_traffic() {
                continue;
            }
            let number = u64::from(self.number(local));
            let id = match &population.connect.ids {
                ClientIds::Template(t) => t.render(number, ""),
                ClientIds::List(ids) => ids[number as usize % ids.len()].clone(),
            };
            let topic = population.publish.as_ref().map(|p| p.topic.render(number, &id));
            let traffic = Traffic::new(topic.unwrap_or_default());
            self.clients[local as usize].traffic = Some(Box::new(traffic));
        }
    }
}

fn cancel(local: u32, op: Op) -> Entry {
    let builder = types::CancelBuilder::user_data(user_data(op, local)).all();
    opcode::AsyncCancel2::new(builder)
        .build()
        .flags(Flags::SKIP_SUCCESS)
        .user_data(user_data(Op::Quiet, local))
}
