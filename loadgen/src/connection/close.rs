//! How a client's connection ends, and what comes of the client then.

use std::io;

use io_uring::opcode;
use io_uring::squeue::Flags;
use io_uring::types::Fixed;

use super::{LINGER_0, cancel};
use crate::client::{
    COME_BACK, FIN_AFTER_SEND, LASTING, RECEIVING, SENDING, STAY_AWAY, State, WAS_READY, WATCHED,
};
use crate::packets;
use crate::plan::{Behaviour, End};
use crate::worker::{Mode, Op, Worker, user_data};

/// Connections that begin to close in one turn: their DISCONNECTs need buffers.
const CLOSES_PER_TURN: usize = 1024;
/// Of QoS 0 messages before an RST nobody knows whether they arrived: what the socket may hold.
const UNSURE_BEFORE_RST: u32 = 1000;

impl Worker {
    /// Takes the clients that wait for a connection out of the queue.
    fn forget_waiting(&mut self, which: impl Fn(u16) -> bool, then: State) {
        for local in 0..self.clients.len() as u32 {
            let client = &mut self.clients[local as usize];
            if !which(client.population) {
                continue;
            }
            match client.state {
                State::Waiting => {}
                State::BackingOff => self.backing_off -= 1,
                State::Offline if then == State::Done => {}
                _ => continue,
            }
            client.state = then;
            self.counters.finished += u64::from(then == State::Done);
        }
        let clients = &self.clients;
        self.to_open.retain(|&local| clients[local as usize].state == State::Waiting);
    }

    /// Ends the connections of a population; its clients stay offline.
    pub(crate) fn take_offline(&mut self, population: u16, end: End) -> io::Result<()> {
        self.forget_waiting(|p| p == population, State::Offline);
        self.close_later(end, STAY_AWAY, |p| p == population)
    }

    /// Ends all connections; all clients come back.
    pub(crate) fn drop_all(&mut self, end: End) -> io::Result<()> {
        self.close_later(end, COME_BACK, |_| true)
    }

    /// Ends all connections for good.
    pub(crate) fn close_all(&mut self) -> io::Result<()> {
        self.forget_waiting(|_| true, State::Done);
        self.close_later(self.plan.end, 0, |_| true)
    }

    fn close_later(&mut self, end: End, then: u16, which: impl Fn(u16) -> bool) -> io::Result<()> {
        self.to_close_end = end;
        self.last_end = self.now;
        for local in (0..self.clients.len() as u32).rev() {
            let client = &mut self.clients[local as usize];
            let open = matches!(client.state, State::Opening | State::Subscribing | State::Live);
            if open && which(client.population) {
                client.set(then);
                self.to_close.push(local);
            }
        }
        self.close_some()
    }

    pub(super) fn close_some(&mut self) -> io::Result<()> {
        for _ in 0..CLOSES_PER_TURN {
            let Some(local) = self.to_close.pop() else { break };
            let state = self.clients[local as usize].state;
            if matches!(state, State::Opening | State::Subscribing | State::Live) {
                self.begin_close(local, self.to_close_end)?;
            }
        }
        Ok(())
    }

    pub(super) fn connection_ended(&mut self, local: u32, result: i32) -> io::Result<()> {
        let state = self.clients[local as usize].state;
        let how = |result: i32| match result {
            0 => "closed".to_owned(),
            e => io::Error::from_raw_os_error(-e).to_string(),
        };
        match state {
            State::Opening => self.blame(local, &format!("no CONNACK: {}", how(result))),
            State::Subscribing => self.blame(local, &format!("no SUBACK: {}", how(result))),
            State::Live if self.behaviour(local) != Behaviour::Normal => {
                self.counters.hung_up += 1;
                self.lost_without_goodbye(local);
            }
            State::Live => {
                self.blame(local, &format!("connection lost: {}", how(result)));
                self.lost_without_goodbye(local);
            }
            _ => {}
        }
        self.leave_state(local);
        let client = &mut self.clients[local as usize];
        self.closing += usize::from(client.state != State::Closing);
        client.state = State::Freeing;
        client.since_ns = self.now;
        client.partial = None;
        if client.has(SENDING) { Ok(()) } else { self.free_slot(local) }
    }

    /// A ready connection ends without DISCONNECT.
    fn lost_without_goodbye(&mut self, local: u32) {
        let plan = self.plan.clone();
        let population = self.population(&plan, local);
        let client = &mut self.clients[local as usize];
        if population.connect.will.is_some() {
            client.unclean = client.unclean.saturating_add(1);
        }
        let unacknowledged = population.publish.as_ref().is_some_and(|p| p.qos as u8 == 0);
        if let Some(traffic) = client.traffic.as_mut().filter(|_| unacknowledged) {
            let from = traffic.sent.saturating_sub(UNSURE_BEFORE_RST);
            if from < traffic.sent {
                traffic.unsure.push((from, traffic.sent));
            }
        }
    }

    /// What its subscriptions would bring from now on is missed, unless its session keeps it.
    fn note_absence(&mut self, local: u32) {
        let client = &mut self.clients[local as usize];
        if self.mode == Mode::Close || self.durable[usize::from(client.population)] {
            return;
        }
        if let Some(traffic) = &mut client.traffic {
            traffic.epoch = traffic.epoch.wrapping_add(1);
        }
        if let Some(&group) = self.member_of.get(&local) {
            self.groups[group].was_away = true;
        }
    }

    /// Takes the client out of the counts of the state that it is in.
    fn leave_state(&mut self, local: u32) {
        match self.clients[local as usize].state {
            State::Opening | State::Subscribing => self.opening -= 1,
            State::Live => {
                self.counters.live -= 1;
                self.note_absence(local);
            }
            _ => {}
        }
    }

    pub(super) fn free_slot(&mut self, local: u32) -> io::Result<()> {
        let (ring, slot) = self.place(local);
        let client = &mut self.clients[local as usize];
        self.buffers.release(&mut client.out);
        let entry = opcode::Close::new(Fixed(slot)).build().user_data(user_data(Op::Close, local));
        if client.has(WATCHED) {
            // The poll would keep the socket open.
            client.unset(WATCHED);
            // SAFETY: the entry points at nothing.
            unsafe { self.rings[ring].push(&[cancel(local, Op::HangUp)])? };
        }
        // SAFETY: the entry points at nothing.
        unsafe { self.rings[ring].push(&[entry]) }
    }

    /// The slot is free: the client's next connection, or its end.
    pub(crate) fn on_closed(&mut self, local: u32) -> io::Result<()> {
        self.closing -= 1;
        self.last_end = self.now;
        let (cycles, attempts_max) = (self.plan.cycles, self.ramp.attempts_max);
        let may_open = self.may_open();
        let client = &mut self.clients[local as usize];
        let was_ready = client.has(WAS_READY);
        let (stay_away, come_back) = (client.has(STAY_AWAY), client.has(COME_BACK));
        client.flags &= LASTING;
        if !was_ready && !stay_away && may_open && !come_back {
            client.failures = client.failures.saturating_add(1);
            let failures = u32::from(client.failures);
            if failures < attempts_max {
                client.state = State::BackingOff;
                self.backing_off += 1;
                self.counters.retries += 1;
                self.back_off(local, failures);
                return Ok(());
            }
            self.counters.failed += 1;
        } else if stay_away {
            client.state = State::Offline;
            return Ok(());
        } else if may_open && (come_back || (was_ready && client.cycle < cycles)) {
            client.state = State::Waiting;
            client.failures = 0;
            self.to_open.push(local);
            return Ok(());
        }
        client.state = State::Done;
        self.counters.finished += 1;
        Ok(())
    }

    /// Ends a connection.
    pub(crate) fn begin_close(&mut self, local: u32, end: End) -> io::Result<()> {
        self.leave_state(local);
        let half_open = self.behaviour(local) == Behaviour::HalfOpen;
        let version = self.population(&self.plan, local).connect.version;
        let client = &mut self.clients[local as usize];
        let was_live = client.state == State::Live;
        client.state = State::Closing;
        client.since_ns = self.now;
        self.closing += 1;
        if was_live && end != End::Disconnect {
            self.lost_without_goodbye(local);
        }
        let client = &mut self.clients[local as usize];
        match end {
            End::Disconnect if was_live && !half_open => {
                client.set(FIN_AFTER_SEND);
                packets::disconnect(&mut self.buffers.of(&mut client.out).pending, version);
                self.mark_dirty(local);
                Ok(())
            }
            End::Fin if was_live && !half_open && client.has(SENDING) => {
                // All that was sent before FIN arrives.
                client.set(FIN_AFTER_SEND);
                Ok(())
            }
            End::Rst => {
                let (ring, slot) = self.place(local);
                let value = (&raw const LINGER_0).cast();
                let (level, name) = (libc::SOL_SOCKET as u32, libc::SO_LINGER as u32);
                let size = size_of::<libc::linger>() as u32;
                let linger = opcode::SetSockOpt::new(Fixed(slot), level, name, value, size)
                    .build()
                    .flags(Flags::SKIP_SUCCESS)
                    .user_data(user_data(Op::Quiet, local));
                // SAFETY: the option is a static.
                unsafe { self.rings[ring].push(&[linger, cancel(local, Op::Send)])? };
                self.end_receive(local)
            }
            _ => self.end_receive(local),
        }
    }

    /// Cancels the receive; its end closes the slot, which sends FIN.
    ///
    /// Not SHUTDOWN: the kernel hands that to a worker thread, which looks the slot up when it gets
    /// to it. If the broker closes first, the slot may hold the next connection by then.
    pub(super) fn end_receive(&mut self, local: u32) -> io::Result<()> {
        if !self.clients[local as usize].has(RECEIVING) {
            return self.connection_ended(local, 0);
        }
        let (ring, _) = self.place(local);
        // SAFETY: the entry points at nothing.
        unsafe { self.rings[ring].push(&[cancel(local, Op::Recv)]) }
    }
}
