//! How a client's connection opens and ends.
//!
//! ```text
//! open:  SOCKET ─▶ IP_BIND_ADDRESS_NO_PORT ─▶ BIND ─▶ TCP_NODELAY ─▶ CONNECT ─▶ SEND ─▶ RECV
//!        one linked chain, one submission, no system call of its own
//! end:   (DISCONNECT, or linger 0) ─▶ cancel the receive ─▶ it ends ─▶ CLOSE ─▶ slot is free
//! ```

mod close;
mod deaf;

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

use io_uring::squeue::{Entry, Flags};
use io_uring::types::{DestinationSlot, Fixed};
use io_uring::{opcode, types};

use crate::account::{client_id, credentials, rendered};
use crate::client::{
    BLAMED, FIN_AFTER_SEND, HAS_SESSION, Heard, LASTING, PINGED, RECEIVING, SENDING, State,
    Traffic, WAS_READY,
};
use crate::packets::{self, Names};
use crate::plan::{Behaviour, Expect, Plan};
use crate::ring::{Completion, Ring, recv_multi, send};
use crate::stamp::{Flows, STAMP_LEN, Stamp, WILL};
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
/// How long a connection that we end may take, after the last one that ended on this worker, before
/// all its operations are cancelled, in ns. Where a hundred thousand end at once, the last ones wait
/// for the others: that is not their fault.
const CLOSE_TIMEOUT_NS: u64 = 5_000_000_000;
/// What a client that opens in one turn costs: bounds how long a turn takes.
const OPENS_PER_TURN: usize = 256;

impl Worker {
    /// Opens as many connections as the rate and the limit of those in flight allow.
    pub(crate) fn open_some(&mut self) -> io::Result<()> {
        self.close_some()?;
        if !self.may_open() || self.to_open.is_empty() {
            return Ok(());
        }
        let mut room = self.opening_max().saturating_sub(self.opening).min(OPENS_PER_TURN);
        if let Some(rate) = self.ramp.rate {
            let elapsed = (self.now - self.ramp.since) as f64 / 1e9;
            let due = self.ramp.attempts_before + (elapsed * rate) as u64;
            room = room.min(due.saturating_sub(self.counters.attempts) as usize);
        }
        for _ in 0..room {
            let Some(local) = self.to_open.pop() else { break };
            self.open(local)?;
        }
        Ok(())
    }

    /// Makes clients of these populations (empty: all) connect that are not connected.
    pub(crate) fn want_connections(&mut self, populations: &[u16]) {
        for local in (0..self.clients.len() as u32).rev() {
            let client = &mut self.clients[local as usize];
            if !populations.is_empty() && !populations.contains(&client.population) {
                continue;
            }
            if client.state == State::Done {
                self.counters.finished -= 1;
            }
            if matches!(client.state, State::Offline | State::Done) {
                client.state = State::Waiting;
                client.failures = 0;
                self.to_open.push(local);
            }
        }
    }

    /// Its back-off is over.
    pub(crate) fn retry(&mut self, local: u32) {
        let client = &mut self.clients[local as usize];
        if client.state == State::BackingOff {
            self.backing_off -= 1;
            client.state = State::Waiting;
            self.to_open.push(local);
        }
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
        client.flags = client.flags & LASTING | SENDING | RECEIVING;
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
        let client = &mut self.clients[local as usize];
        client.cycle += 1;
        if plan.fresh_ids {
            // The session that it had belongs to another identifier.
            client.unset(HAS_SESSION);
        }
        let number = self.client_number(plan, local);
        let publisher = self.publisher(local);
        let population = self.population(plan, local);
        let id = client_id(&population.connect, number);
        let (username, password) = credentials(&population.connect, number, &id);
        let client = &mut self.clients[local as usize];
        let mut topic = String::new();
        let mut payload: &[u8] = &[];
        if let Some(will) = &population.connect.will {
            topic = rendered(&will.topic, population, number as u32, 0);
            if will.size >= STAMP_LEN {
                let seq = u32::from(client.unclean);
                let publisher = WILL | publisher;
                let stamp = Stamp { publisher, stream: 0, seq, intended_ns: 0, lag_ns: None };
                stamp.write(&mut self.payload[..will.size]);
            }
            payload = &self.payload[..will.size];
        }
        let out = &mut self.buffers.of(&mut client.out).inflight;
        out.clear();
        let names = Names {
            client_id: &id,
            username: username.as_deref(),
            password: password.as_deref(),
            will: Some((&topic, payload)),
        };
        packets::connect(out, &population.connect, &names);
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
        if result < 0 {
            buffer.pending.clear();
        }
        if !buffer.pending.is_empty() && client.has_socket() {
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
        let client = &mut self.clients[local as usize];
        let going_on = c.result > 0 || c.result == -libc::ENOBUFS;
        if going_on && client.state != State::Closing {
            if client.state == State::Live && self.behaviour(local) != Behaviour::Normal {
                return self.turned_deaf(local, c.result.max(0) as usize);
            }
            // The kernel stopped it for want of room: buffers are free again now.
            let entry = recv_multi(slot, user_data(Op::Recv, local));
            // SAFETY: the entry points at nothing.
            return unsafe { self.rings[ring].push(&[entry]) };
        }
        client.unset(RECEIVING);
        let cancelled = c.result == -libc::ECANCELED && client.state == State::Live;
        if cancelled && self.behaviour(local) != Behaviour::Normal {
            return self.turned_deaf(local, 0);
        }
        self.connection_ended(local, c.result)
    }

    /// Counts why a connection failed, once.
    pub(crate) fn blame(&mut self, local: u32, why: &str) {
        let client = &mut self.clients[local as usize];
        if client.has(BLAMED) {
            return;
        }
        client.set(BLAMED);
        self.counters.broken += u64::from(client.has(WAS_READY));
        self.fault(why);
    }

    /// What the sweep does with a client: keep-alive and timeouts.
    pub(crate) fn look_at(&mut self, local: u32) -> io::Result<()> {
        let client = &self.clients[local as usize];
        let age = self.now.saturating_sub(client.since_ns);
        let standstill = age.min(self.now.saturating_sub(self.last_end));
        match client.state {
            State::Live => self.keep_alive(local),
            State::Opening | State::Subscribing
                if age > self.plan.connect_timeout.as_nanos() as u64 =>
            {
                self.blame(local, "no answer in time");
                self.cancel_all(local)
            }
            State::Closing | State::Freeing
                if standstill > CLOSE_TIMEOUT_NS && client.flags & (RECEIVING | SENDING) != 0 =>
            {
                self.fault("a connection did not end in 5 s");
                self.cancel_all(local)
            }
            _ => Ok(()),
        }
    }

    fn cancel_all(&mut self, local: u32) -> io::Result<()> {
        let (ring, _) = self.place(local);
        // SAFETY: the entries point at nothing.
        unsafe {
            self.rings[ring].push(&[
                cancel(local, Op::Open),
                cancel(local, Op::Send),
                cancel(local, Op::Recv),
            ])
        }
    }

    /// Sends PINGREQ when three quarters of the keep-alive went by without a packet: with the sweep
    /// at an eighth of it, before seven eighths. Client libraries wait for all of it.
    fn keep_alive(&mut self, local: u32) -> io::Result<()> {
        let population = self.population(&self.plan, local);
        let keep_alive_s = population.connect.keep_alive_s;
        if keep_alive_s == 0 || population.behaviour == Behaviour::HalfOpen {
            return Ok(());
        }
        let answered = population.behaviour == Behaviour::Normal;
        let client = &mut self.clients[local as usize];
        let now_ms = ((self.now - self.started) / 1_000_000) as u32;
        if now_ms.wrapping_sub(client.last_sent_ms) < u32::from(keep_alive_s) * 750 {
            return Ok(());
        }
        // Who does not read does not see the answer.
        if client.has(PINGED) && answered {
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
            let number = self.number(local);
            let mut topic = String::new();
            let mut streams = 0;
            if let Some(publish) = &population.publish {
                if !publish.topic.varies() {
                    topic = rendered(&publish.topic, population, number, 0);
                }
                if publish.topic.is_hashed() {
                    streams = publish.topic.streams() as usize;
                }
            }
            let heard = match population.expect {
                Expect::SharedGroup(_) => Heard::Last(std::collections::HashMap::new()),
                Expect::Retained(_) => Heard::Retained(Box::default()),
                _ => Heard::Flows(Flows::default()),
            };
            let traffic = Traffic::new(topic, heard, streams);
            self.clients[local as usize].traffic = Some(Box::new(traffic));
        }
    }

    pub(crate) fn behaviour(&self, local: u32) -> Behaviour {
        self.population(&self.plan, local).behaviour
    }
}

fn cancel(local: u32, op: Op) -> Entry {
    let builder = types::CancelBuilder::user_data(user_data(op, local)).all();
    opcode::AsyncCancel2::new(builder)
        .build()
        .flags(Flags::SKIP_SUCCESS)
        .user_data(user_data(Op::Quiet, local))
}
