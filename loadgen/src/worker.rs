//! A worker: one thread, its rings, its clients.
//!
//! ```text
//! turn:  main ring (blocks) ─▶ child rings that signalled ─▶ ramp, sweep, pace ─▶ flush
//! ```
//!
//! A direct-descriptor table is capped by RLIMIT_NOFILE, so a worker has as many rings as its
//! clients need; each child ring signals an eventfd that the main ring polls. What clients say is
//! in [`crate::session`]; how connections open and close is in [`crate::connection`].

use std::io;
use std::sync::Arc;
use std::time::Duration;

use io_uring::{opcode, types};

use crate::address::RawAddress;
use crate::client::{Client, DIRTY, NONE, SENDING, SendBuffers, State, Traffic};
use crate::clock::{now_ns, thread_cpu_ns};
use crate::connection::OpenPath;
use crate::plan::{Pace, Plan, Population};
use crate::ring::{Completion, Ring, RingConfig, send};
use crate::stats::{Counters, Latencies, Phase, Shared, WorkerResult};

/// Longest sleep of a worker: bounds how late it sees a new phase.
const SLEEP_MAX: Duration = Duration::from_millis(5);
/// How old the counters that the coordinator sees may get.
const PUBLISH_EVERY_NS: u64 = 10_000_000;
/// Slots of one ring. A power of two, so that a client's ring is a shift away.
const RING_SLOTS_MAX: u32 = 16_384;

/// What a completion belongs to; in the top byte of `user_data`, the client below.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Op {
    Open = 1,
    Send = 2,
    Recv = 3,
    Close = 4,
    Wake = 5,
    Quiet = 6,
}

pub(crate) fn user_data(op: Op, local: u32) -> u64 {
    (op as u64) << 56 | u64::from(local)
}

/// Lives on: its own thread.
pub(crate) struct Worker {
    pub(crate) plan: Arc<Plan>,
    pub(crate) shared: Arc<Shared>,
    pub(crate) index: usize,
    pub(crate) clients: Vec<Client>,
    /// First local index of each population.
    pub(crate) first: Vec<u32>,
    /// `rings[0]` is the one that the worker sleeps in.
    pub(crate) rings: Vec<Ring>,
    pub(crate) slot_bits: u32,
    pub(crate) buffers: SendBuffers,
    pub(crate) counters: Counters,
    pub(crate) latencies: Latencies,
    pub(crate) faults: std::collections::BTreeMap<String, u64>,
    pub(crate) target: RawAddress,
    pub(crate) sources: Vec<RawAddress>,
    pub(crate) open_path: OpenPath,
    pub(crate) phase: Phase,
    /// Time of this turn, in ns of CLOCK_MONOTONIC.
    pub(crate) now: u64,
    pub(crate) started: u64,
    /// Clients with bytes to send.
    dirty: Vec<u32>,
    /// Clients that may publish.
    pub(crate) pump: Vec<u32>,
    /// Clients that are to open, or to open again; a stack.
    pub(crate) to_open: Vec<u32>,
    pub(crate) opening: usize,
    pub(crate) payload: Vec<u8>,
    pub(crate) text: String,
    /// Deliveries and messages of this turn that the group window does not know yet.
    pub(crate) group: (u64, u64),
    /// Messages that open-loop populations have been told to send, by population.
    pub(crate) paced: Vec<u64>,
    traffic_since: u64,
    sweep: Sweep,
    epoch: u32,
    published_at: u64,
    completions: Vec<Completion>,
}

/// The walk over the clients that finds what is due: keep-alives and timeouts.
struct Sweep {
    at: usize,
    period_ns: u64,
    owed: u64,
    last: u64,
}

impl Worker {
    pub(crate) fn new(plan: Arc<Plan>, shared: Arc<Shared>, index: usize) -> io::Result<Self> {
        let mut clients = Vec::new();
        let mut first = Vec::new();
        for (i, population) in plan.populations.iter().enumerate() {
            first.push(clients.len() as u32);
            let count = share(population.count, plan.workers, index);
            clients.extend((0..count).map(|_| Client::new(i as u16)));
        }
        let slot_bits = slot_bits(clients.len());
        let rings = rings(clients.len(), slot_bits)?;
        let open_path = OpenPath::probe(&rings[0])?;
        let size = plan.populations.iter().filter_map(|p| p.publish.as_ref().map(|p| p.size)).max();
        let to_open = (0..clients.len() as u32).rev().collect();
        let now = now_ns();
        let mut worker = Self {
            target: RawAddress::new(plan.target),
            sources: plan.sources.iter().map(|&s| RawAddress::new(s)).collect(),
            paced: vec![0; plan.populations.len()],
            sweep: Sweep { at: 0, period_ns: sweep_period_ns(&plan), owed: 0, last: now },
            plan,
            shared,
            index,
            clients,
            first,
            rings,
            slot_bits,
            buffers: SendBuffers::default(),
            counters: Counters::default(),
            latencies: Latencies::default(),
            faults: std::collections::BTreeMap::new(),
            open_path,
            phase: Phase::Connect,
            now,
            started: now,
            dirty: Vec::new(),
            pump: Vec::new(),
            to_open,
            opening: 0,
            payload: vec![0; size.unwrap_or(0)],
            text: String::new(),
            group: (0, 0),
            traffic_since: 0,
            epoch: 0,
            published_at: 0,
            completions: Vec::new(),
        };
        worker.add_traffic_state();
        worker.watch_children()?;
        Ok(worker)
    }

    /// Runs until the coordinator says [`Phase::Stop`].
    pub(crate) fn run(mut self) -> io::Result<WorkerResult> {
        while self.phase != Phase::Stop {
            self.turn()?;
        }
        Ok(self.result())
    }

    fn turn(&mut self) -> io::Result<()> {
        let busy = self.rings[1..].iter_mut().any(Ring::has_work);
        let sleep = if busy { Duration::ZERO } else { self.sleep() };
        self.rings[0].turn(sleep)?;
        self.now = now_ns();
        self.reap(0)?;
        self.reap_what_is_left()?;
        self.enter_phase()?;
        self.open_some()?;
        self.sweep_some()?;
        if self.phase == Phase::Traffic {
            self.pace();
        }
        self.settle_group();
        self.pump_all();
        self.flush()?;
        for ring in &mut self.rings[1..] {
            ring.submit()?;
        }
        if self.now - self.published_at >= PUBLISH_EVERY_NS {
            self.published_at = self.now;
            self.shared.publish(self.index, &self.counters);
        }
        Ok(())
    }

    /// How long nothing is due.
    fn sleep(&self) -> Duration {
        let ramping = !self.to_open.is_empty() && self.phase < Phase::Close;
        if ramping && self.opening < self.opening_max() {
            return if self.plan.connect_rate.is_some() {
                Duration::from_micros(500)
            } else {
                Duration::ZERO
            };
        }
        if self.phase == Phase::Traffic {
            return self.pace_sleep().min(SLEEP_MAX);
        }
        SLEEP_MAX
    }

    fn reap(&mut self, ring: usize) -> io::Result<()> {
        let mut completions = std::mem::take(&mut self.completions);
        self.rings[ring].reap(&mut completions);
        let mut children = Vec::new();
        for c in &completions {
            let local = c.user_data as u32;
            match (c.user_data >> 56) as u8 {
                op if op == Op::Recv as u8 => self.on_recv(local, *c)?,
                op if op == Op::Send as u8 => self.on_send(local, c.result)?,
                op if op == Op::Open as u8 => self.on_open_fault(local, c.result)?,
                op if op == Op::Close as u8 => self.on_closed(local),
                op if op == Op::Wake as u8 => {
                    children.push(local as usize);
                    if !c.more() {
                        self.watch(local as usize)?;
                    }
                }
                _ => {}
            }
        }
        self.completions = completions;
        for child in children {
            self.rings[child].turn(Duration::ZERO)?;
            self.reap(child)?;
        }
        Ok(())
    }

    /// Goes on with child rings whose last turn left work: their eventfds stay silent for it.
    fn reap_what_is_left(&mut self) -> io::Result<()> {
        for child in 1..self.rings.len() {
            if self.rings[child].has_work() {
                self.rings[child].turn(Duration::ZERO)?;
                self.reap(child)?;
            }
        }
        Ok(())
    }

    fn watch_children(&mut self) -> io::Result<()> {
        (1..self.rings.len()).try_for_each(|child| self.watch(child))
    }

    /// Polls the eventfd of a child ring from the main ring.
    fn watch(&mut self, child: usize) -> io::Result<()> {
        let fd = self.rings[child].eventfd()?;
        let entry = opcode::PollAdd::new(types::Fd(fd), libc::POLLIN as u32)
            .multi(true)
            .build()
            .user_data(user_data(Op::Wake, child as u32));
        // SAFETY: the entry points at nothing.
        unsafe { self.rings[0].push(&[entry]) }
    }

    fn enter_phase(&mut self) -> io::Result<()> {
        let epoch = self.shared.measure_epoch.load(std::sync::atomic::Ordering::Acquire);
        if epoch != self.epoch {
            self.epoch = epoch;
            self.latencies.forget_messages();
        }
        let phase = self.shared.phase();
        if phase == self.phase {
            return Ok(());
        }
        self.phase = phase;
        match phase {
            Phase::Traffic => {
                self.traffic_since = self.now;
                self.start_publishers();
            }
            Phase::Close => self.close_all()?,
            _ => {}
        }
        self.shared.publish(self.index, &self.counters);
        Ok(())
    }

    /// Looks at as many clients as are due, so that each is looked at once a sweep period.
    fn sweep_some(&mut self) -> io::Result<()> {
        if self.clients.is_empty() {
            return Ok(());
        }
        let elapsed = self.now.saturating_sub(self.sweep.last);
        self.sweep.last = self.now;
        self.sweep.owed += elapsed.min(self.sweep.period_ns) * self.clients.len() as u64;
        let due = self.sweep.owed / self.sweep.period_ns;
        self.sweep.owed -= due * self.sweep.period_ns;
        for _ in 0..due {
            let local = self.sweep.at as u32;
            self.sweep.at = (self.sweep.at + 1) % self.clients.len();
            self.look_at(local)?;
        }
        Ok(())
    }

    /// Open loop: tells publishers to send what is due by now.
    fn pace(&mut self) {
        let plan = self.plan.clone();
        for (p, population) in plan.populations.iter().enumerate() {
            let Some(publish) = &population.publish else { continue };
            let Pace::Every { interval } = publish.pace else { continue };
            let count = u64::from(self.share_of(population));
            if count == 0 {
                continue;
            }
            // Message k of this worker is due at k × interval / count after the start.
            let interval_ns = interval.as_nanos().max(1) as u64;
            let elapsed = self.now - self.traffic_since;
            let due = (u128::from(elapsed) * u128::from(count) / u128::from(interval_ns)) as u64;
            while self.paced[p] <= due {
                let k = self.paced[p];
                self.paced[p] += 1;
                let offset = u128::from(k) * u128::from(interval_ns) / u128::from(count);
                let local = self.first[p] + (k % count) as u32;
                self.send_paced(local, publish, self.traffic_since + offset as u64);
            }
        }
    }

    /// Time until an open-loop message is due; the rest of the loop is driven by completions.
    fn pace_sleep(&self) -> Duration {
        let mut sleep = SLEEP_MAX;
        for (p, population) in self.plan.populations.iter().enumerate() {
            let Some(publish) = &population.publish else { continue };
            match publish.pace {
                Pace::Every { interval } => {
                    let count = self.share_of(population);
                    if count > 0 {
                        let offset =
                            interval.as_nanos() * u128::from(self.paced[p]) / u128::from(count);
                        let due = self.traffic_since + offset as u64;
                        sleep = sleep.min(Duration::from_nanos(due.saturating_sub(now_ns())));
                    }
                }
                // The credit may come from another worker, which wakes nobody.
                Pace::Group { .. } if self.plan.workers > 1 && self.share_of(population) > 0 => {
                    sleep = sleep.min(Duration::from_micros(200));
                }
                _ => {}
            }
        }
        sleep
    }

    /// Notes that a client has bytes to send.
    pub(crate) fn mark_dirty(&mut self, local: u32) {
        let client = &mut self.clients[local as usize];
        if !client.has(DIRTY) {
            client.set(DIRTY);
            self.dirty.push(local);
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        let mut dirty = std::mem::take(&mut self.dirty);
        for local in dirty.drain(..) {
            self.clients[local as usize].unset(DIRTY);
            self.start_send(local)?;
        }
        self.dirty = dirty;
        Ok(())
    }

    /// Sends what is pending, unless a send is in flight: then its completion goes on.
    pub(crate) fn start_send(&mut self, local: u32) -> io::Result<()> {
        let (ring, slot) = self.place(local);
        let client = &mut self.clients[local as usize];
        let closed = matches!(client.state, State::Waiting | State::Freeing | State::Done);
        if client.has(SENDING) || closed {
            return Ok(());
        }
        let Some(buffer) = self.buffers.get(client.out) else { return Ok(()) };
        if buffer.pending.is_empty() {
            return Ok(());
        }
        std::mem::swap(&mut buffer.inflight, &mut buffer.pending);
        buffer.pending.clear();
        client.set(SENDING);
        client.last_sent_ms = ((self.now - self.started) / 1_000_000) as u32;
        let (bytes, len) = (buffer.inflight.as_ptr(), buffer.inflight.len());
        let entry = send(slot, bytes, len, user_data(Op::Send, local));
        // SAFETY: `inflight` is not touched until `on_send` (the flag SENDING guards it).
        unsafe { self.rings[ring].push(&[entry]) }
    }

    /// How many clients of a population this worker has.
    pub(crate) fn share_of(&self, population: &Population) -> u32 {
        share(population.count, self.plan.workers, self.index)
    }

    /// The ring and the slot of a client.
    pub(crate) fn place(&self, local: u32) -> (usize, u32) {
        ((local >> self.slot_bits) as usize, local & ((1 << self.slot_bits) - 1))
    }

    /// The client's number in its population.
    pub(crate) fn number(&self, local: u32) -> u32 {
        let client = &self.clients[local as usize];
        let nth = local - self.first[usize::from(client.population)];
        nth * self.plan.workers as u32 + self.index as u32
    }

    /// The population of a client.
    pub(crate) fn population<'a>(&self, plan: &'a Plan, local: u32) -> &'a Population {
        &plan.populations[usize::from(self.clients[local as usize].population)]
    }

    /// Counts something that went wrong.
    #[cold]
    pub(crate) fn fault(&mut self, what: &str) {
        match self.faults.get_mut(what) {
            Some(count) => *count += 1,
            None => drop(self.faults.insert(what.to_owned(), 1)),
        }
    }

    /// Connections that may be opening at once.
    pub(crate) fn opening_max(&self) -> usize {
        self.plan.connects_in_flight.div_ceil(self.plan.workers)
    }

    fn result(mut self) -> WorkerResult {
        self.shared.publish(self.index, &self.counters);
        let mut result = WorkerResult {
            counters: self.counters.clone(),
            latencies: self.latencies.clone(),
            faults: std::mem::take(&mut self.faults),
            cpu_ns: thread_cpu_ns(),
            ..WorkerResult::default()
        };
        for local in 0..self.clients.len() as u32 {
            let number = self.number(local);
            let client = &mut self.clients[local as usize];
            let population = client.population;
            let Some(traffic) = client.traffic.take() else { continue };
            let Traffic { sent, flows, .. } = *traffic;
            if sent > 0 {
                result.sent.push((global(&self.plan, population, number), sent));
            }
            result.flows.push((population, number, flows));
        }
        result
    }
}

/// A client's number over all populations.
pub(crate) fn global(plan: &Plan, population: u16, number: u32) -> u32 {
    let before: u32 = plan.populations[..usize::from(population)].iter().map(|p| p.count).sum();
    before + number
}

/// How many of `count` clients worker `index` of `workers` has.
pub(crate) fn share(count: u32, workers: usize, index: usize) -> u32 {
    (count as usize + workers - 1 - index).div_euclid(workers) as u32
}

/// Bits of a slot number: the table holds all clients, or as many as the limit allows.
fn slot_bits(clients: usize) -> u32 {
    let limit = crate::environment::descriptor_limit().clamp(64, u64::from(RING_SLOTS_MAX)) as u32;
    let largest = if limit.is_power_of_two() { limit } else { limit.next_power_of_two() / 2 };
    (clients.max(1).next_power_of_two() as u32).min(largest).trailing_zeros()
}

fn rings(clients: usize, slot_bits: u32) -> io::Result<Vec<Ring>> {
    let slots = 1u32 << slot_bits;
    let count = clients.div_ceil(slots as usize).max(1);
    (0..count)
        .map(|i| {
            // The main ring has most of the traffic.
            let buffers = if i == 0 { 2048 } else { 512 };
            Ring::new(RingConfig { slots, buffers, buffer_size: 4096 })
        })
        .collect()
}

/// A quarter of the shortest period that a client must be looked at.
fn sweep_period_ns(plan: &Plan) -> u64 {
    let keep_alive = plan.populations.iter().map(|p| p.connect.keep_alive_s).filter(|&k| k > 0);
    let shortest = keep_alive.map(|k| Duration::from_secs(u64::from(k))).min();
    let period = shortest.unwrap_or(Duration::MAX).min(plan.connect_timeout) / 4;
    (period.as_nanos() as u64).max(1_000_000)
}

const _: () = assert!(NONE as usize > crate::plan::CLIENTS_MAX);
