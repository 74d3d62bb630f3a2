//! A worker: one thread, its rings, its clients.
//!
//! ```text
//! turn:  main ring (blocks) ─▶ child rings that signalled ─▶ ramp, sweep, pace ─▶ flush
//! ```
//!
//! A direct-descriptor table is capped by RLIMIT_NOFILE, so a worker has as many rings as its
//! clients need; each child ring signals an eventfd that the main ring polls. What clients say is
//! in [`crate::session`]; how connections open and close is in [`crate::connection`].

mod due;
mod stages;

use std::collections::{BTreeMap, BinaryHeap, HashMap};
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::time::Duration;

use io_uring::{opcode, types};

use crate::account::{GroupHeard, HeardBy, SentBy, WorkerResult, is_durable};
use crate::address::RawAddress;
use crate::client::{Client, DIRTY, Heard, NONE, SENDING, SendBuffers};
use crate::clock::now_ns;
use crate::connection::OpenPath;
use crate::pace::Schedule;
use crate::plan::{End, Expect, Plan, Population};
use crate::ring::{Completion, Ring, RingConfig, send};
use crate::stamp::publisher_id;
use crate::stats::{Counters, Faults, Latencies, Metric, RunQueue, Shared};

/// Longest sleep of a worker: bounds how late it sees a new order.
const SLEEP_MAX: Duration = Duration::from_millis(5);
/// How old the counters that the coordinator sees may get.
const PUBLISH_EVERY_NS: u64 = 10_000_000;
/// How often latencies are handed over; a bit more often than they are looked at.
const HAND_OVER_EVERY_NS: u64 = 200_000_000;
/// How often all child rings are looked at, signalled or not: a pass may leave work behind that
/// nothing signals again. A system call each.
const LOOK_AT_ALL_EVERY_NS: u64 = 20_000_000;
/// Slots of one ring. A power of two, so that a client's ring is a shift away.
const RING_SLOTS_MAX: u32 = 16_384;
/// Attempts of a client that comes back in a churn.
const CHURN_ATTEMPTS: u32 = 8;

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
    /// A poll for the hang-up of a broker that nobody reads from.
    HangUp = 7,
}

pub(crate) fn user_data(op: Op, local: u32) -> u64 {
    (op as u64) << 56 | u64::from(local)
}

/// What a worker does now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    /// Keeps its connections, and brings back those that are on their way.
    Keep,
    /// Publishes.
    Traffic,
    /// Publishes, while a population comes and goes: so many closes in 1000 s on this worker.
    Churn { population: u16, end: End, rate_mhz: u64 },
    /// Ends all connections for good.
    Close,
    /// Leaves.
    Stop,
}

/// How connections are opened in this stage.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ramp {
    /// Of this worker, a second.
    pub(crate) rate: Option<f64>,
    pub(crate) in_flight: usize,
    pub(crate) attempts_max: u32,
    /// When the ramp began, in ns of CLOCK_MONOTONIC, and the attempts before it.
    pub(crate) since: u64,
    pub(crate) attempts_before: u64,
}

/// Something that a client does later.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Timer {
    /// In ns of CLOCK_MONOTONIC.
    pub(crate) at: std::cmp::Reverse<u64>,
    pub(crate) local: u32,
    pub(crate) what: TimerKind,
}

/// What a [`Timer`] is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum TimerKind {
    /// Try to connect again.
    Retry,
    /// Read some bytes more.
    SlowRead,
}

/// Lives on: its own thread.
pub(crate) struct Worker {
    pub(crate) plan: Arc<Plan>,
    pub(crate) shared: Arc<Shared>,
    pub(crate) index: usize,
    pub(crate) clients: Vec<Client>,
    /// First local index of each population.
    pub(crate) first: Vec<u32>,
    /// Whether sessions of each population keep what it expects while it is away.
    pub(crate) durable: Vec<bool>,
    /// Populations that publish now.
    pub(crate) publishing: Vec<bool>,
    /// `rings[0]` is the one that the worker sleeps in.
    pub(crate) rings: Vec<Ring>,
    /// What the eventfd of each child ring said; the kernel writes here.
    wakes: Box<[u64]>,
    pub(crate) slot_bits: u32,
    pub(crate) buffers: SendBuffers,
    pub(crate) counters: Counters,
    pub(crate) latencies: Box<Latencies>,
    pub(crate) faults: Faults,
    pub(crate) target: RawAddress,
    pub(crate) sources: Vec<RawAddress>,
    pub(crate) open_path: OpenPath,
    pub(crate) mode: Mode,
    pub(crate) ramp: Ramp,
    /// Whether a stage with traffic began: who connects now joins late.
    pub(crate) had_traffic: bool,
    /// Whether latencies have a raw side.
    pub(crate) open_loop: bool,
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
    /// Clients that are to close, a stack, and how.
    pub(crate) to_close: Vec<u32>,
    pub(crate) to_close_end: End,
    pub(crate) closing: usize,
    pub(crate) backing_off: usize,
    pub(crate) timers: BinaryHeap<Timer>,
    pub(crate) payload: Vec<u8>,
    pub(crate) text: String,
    /// Deliveries of this turn that the group window does not know yet.
    pub(crate) group: u64,
    /// `$share` groups by population and filter.
    pub(crate) groups: Vec<GroupHeard>,
    pub(crate) group_names: HashMap<(u16, String), usize>,
    /// The group of each member.
    pub(crate) member_of: HashMap<u32, usize>,
    /// Messages of each client, where a population expects its share; else empty.
    pub(crate) ones: Vec<u32>,
    /// Open-loop schedules, by population.
    pub(crate) schedules: Vec<Option<Schedule>>,
    /// Closes that a churn did, and when it began.
    churned: (u64, u64),
    churn_at: u32,
    pub(crate) random: u64,
    /// When the last connection ended, in ns of CLOCK_MONOTONIC.
    pub(crate) last_end: u64,
    sweep: Sweep,
    order: u32,
    published_at: u64,
    handed_over_at: u64,
    schedstat: Option<File>,
    completions: Vec<Completion>,
    /// Child rings to look at in this turn.
    signalled: Vec<usize>,
    looked_at_all: u64,
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
        let now = now_ns();
        let populations = &plan.populations;
        let ones = populations.iter().any(|p| matches!(p.expect, Expect::One(_)));
        let ramp =
            Ramp { rate: None, in_flight: 64, attempts_max: 1, since: now, attempts_before: 0 };
        let mut worker = Self {
            target: RawAddress::new(plan.target),
            sources: plan.sources.iter().map(|&s| RawAddress::new(s)).collect(),
            schedules: populations.iter().map(|_| None).collect(),
            sweep: Sweep { at: 0, period_ns: sweep_period_ns(&plan), owed: 0, last: now },
            durable: populations.iter().map(|p| is_durable(&plan, p)).collect(),
            publishing: vec![false; populations.len()],
            payload: vec![0; largest_payload(&plan)],
            ones: if ones { vec![0; clients.len()] } else { Vec::new() },
            open_loop: plan.is_open_loop(),
            random: plan.seed ^ (index as u64) << 48,
            plan,
            shared,
            index,
            clients,
            first,
            wakes: vec![0; rings.len()].into_boxed_slice(),
            rings,
            slot_bits,
            buffers: SendBuffers::default(),
            counters: Counters::default(),
            latencies: Box::default(),
            faults: BTreeMap::new(),
            open_path,
            mode: Mode::Keep,
            ramp,
            had_traffic: false,
            now,
            started: now,
            dirty: Vec::new(),
            pump: Vec::new(),
            to_open: Vec::new(),
            opening: 0,
            to_close: Vec::new(),
            to_close_end: End::Fin,
            closing: 0,
            backing_off: 0,
            timers: BinaryHeap::new(),
            text: String::new(),
            group: 0,
            groups: Vec::new(),
            group_names: HashMap::new(),
            member_of: HashMap::new(),
            churned: (0, 0),
            churn_at: 0,
            last_end: now,
            order: 0,
            published_at: 0,
            handed_over_at: now,
            schedstat: File::open("/proc/thread-self/schedstat").ok(),
            completions: Vec::new(),
            signalled: Vec::new(),
            looked_at_all: now,
        };
        worker.add_traffic_state();
        worker.watch_children()?;
        Ok(worker)
    }

    /// Runs until the coordinator says [`Order::Stop`](crate::stats::Order::Stop).
    pub(crate) fn run(mut self) -> io::Result<WorkerResult> {
        while self.mode != Mode::Stop {
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
        self.reap_children()?;
        self.take_order()?;
        self.fire_timers()?;
        self.open_some()?;
        self.sweep_some()?;
        match self.mode {
            Mode::Traffic => self.pace(),
            Mode::Churn { population, end, rate_mhz } => {
                self.pace();
                self.churn(population, end, rate_mhz)?;
            }
            _ => {}
        }
        self.settle_group();
        self.pump_all();
        self.flush()?;
        for ring in &mut self.rings[1..] {
            ring.submit()?;
        }
        if self.now - self.published_at >= PUBLISH_EVERY_NS {
            self.publish_counters();
            if self.now - self.handed_over_at >= HAND_OVER_EVERY_NS {
                self.hand_over(false);
            }
        }
        Ok(())
    }

    fn publish_counters(&mut self) {
        self.published_at = self.now;
        self.counters.waiting = (self.to_open.len() + self.backing_off) as u64;
        self.counters.opening = self.opening as u64;
        self.counters.closing = (self.closing + self.to_close.len()) as u64;
        self.shared.publish(self.index, &self.counters, self.order);
    }

    fn hand_over(&mut self, now: bool) {
        self.handed_over_at = self.now;
        self.shared.hand_over(self.index, &mut self.latencies, now);
        if let Some(run_queue) = self.run_queue() {
            self.shared.publish_run_queue(self.index, run_queue);
        }
    }

    /// What the scheduler says about this thread.
    fn run_queue(&self) -> Option<RunQueue> {
        let mut text = [0; 96];
        let len = self.schedstat.as_ref()?.read_at(&mut text, 0).ok()?;
        let text = std::str::from_utf8(&text[..len]).ok()?;
        let mut numbers = text.split_whitespace().map(|n| n.parse().unwrap_or(0));
        Some(RunQueue { ran_ns: numbers.next()?, waited_ns: numbers.next()? })
    }

    /// How long nothing is due.
    fn sleep(&self) -> Duration {
        if !self.to_close.is_empty() {
            return Duration::ZERO;
        }
        if !self.to_open.is_empty() && self.may_open() && self.opening < self.opening_max() {
            return if self.ramp.rate.is_some() {
                Duration::from_micros(500)
            } else {
                Duration::ZERO
            };
        }
        match self.mode {
            Mode::Traffic => self.pace_sleep(),
            Mode::Churn { .. } => self.pace_sleep().min(Duration::from_millis(1)),
            _ => SLEEP_MAX,
        }
    }

    fn reap(&mut self, ring: usize) -> io::Result<()> {
        let mut completions = std::mem::take(&mut self.completions);
        self.rings[ring].reap(&mut completions);
        for c in &completions {
            let local = c.user_data as u32;
            match (c.user_data >> 56) as u8 {
                op if op == Op::Recv as u8 => self.on_recv(local, *c)?,
                op if op == Op::Send as u8 => self.on_send(local, c.result)?,
                op if op == Op::Open as u8 => self.on_open_fault(local, c.result)?,
                op if op == Op::Close as u8 => self.on_closed(local)?,
                op if op == Op::HangUp as u8 => self.on_hang_up(local, c.result)?,
                op if op == Op::Wake as u8 => {
                    self.watch(local as usize)?;
                    self.signalled.push(local as usize);
                }
                _ => {}
            }
        }
        self.completions = completions;
        Ok(())
    }

    /// Looks at the child rings that signalled, at those that a turn left work in, for which nobody
    /// signals again, and now and then at all.
    fn reap_children(&mut self) -> io::Result<()> {
        let mut signalled = std::mem::take(&mut self.signalled);
        let all = self.now - self.looked_at_all >= LOOK_AT_ALL_EVERY_NS;
        if all {
            self.looked_at_all = self.now;
        }
        for child in 1..self.rings.len() {
            if all || signalled.contains(&child) || self.rings[child].has_work() {
                self.rings[child].turn(Duration::ZERO)?;
                self.reap(child)?;
            }
        }
        signalled.clear();
        self.signalled = signalled;
        Ok(())
    }

    fn watch_children(&mut self) -> io::Result<()> {
        (1..self.rings.len()).try_for_each(|child| self.watch(child))
    }

    /// Reads the eventfd of a child ring from the main ring: that completes when it signals.
    ///
    /// Not a multishot poll: a wake-up that comes from another ring ends one (`EPOLL_URING_WAKE`),
    /// and it may do so behind a completion that says there is more.
    fn watch(&mut self, child: usize) -> io::Result<()> {
        let fd = self.rings[child].eventfd()?;
        let count = (&raw mut self.wakes[child]).cast();
        let entry = opcode::Read::new(types::Fd(fd), count, size_of::<u64>() as u32)
            .build()
            .user_data(user_data(Op::Wake, child as u32));
        // SAFETY: `wakes` never moves nor ends before the ring, and nothing else looks at it.
        unsafe { self.rings[0].push(&[entry]) }
    }

    /// Whether connections may open.
    pub(crate) fn may_open(&self) -> bool {
        !matches!(self.mode, Mode::Close | Mode::Stop)
    }

    /// Whether a population publishes now.
    pub(crate) fn publishes(&self, population: u16) -> bool {
        self.publishing[usize::from(population)]
            && matches!(self.mode, Mode::Traffic | Mode::Churn { .. })
    }

    fn fire_timers(&mut self) -> io::Result<()> {
        while let Some(timer) = self.timers.peek().filter(|t| t.at.0 <= self.now).copied() {
            self.timers.pop();
            match timer.what {
                TimerKind::Retry => self.retry(timer.local),
                TimerKind::SlowRead => self.read_slowly(timer.local)?,
            }
        }
        Ok(())
    }

    /// Has a slow reader read again after `wait_ns`.
    pub(crate) fn read_later(&mut self, local: u32, wait_ns: u64) {
        let at = std::cmp::Reverse(self.now + wait_ns);
        self.timers.push(Timer { at, local, what: TimerKind::SlowRead });
    }

    /// When a client tries again that failed this often.
    pub(crate) fn back_off(&mut self, local: u32, failures: u32) {
        let unit = self.next_random();
        let wait = self.plan.backoff.wait_ns(failures, unit);
        self.timers.push(Timer {
            at: std::cmp::Reverse(self.now + wait),
            local,
            what: TimerKind::Retry,
        });
    }

    /// Above 0 and at most 1.
    pub(crate) fn next_random(&mut self) -> f64 {
        self.random = self.random.wrapping_add(0x9E37_79B9_7F4A_7C15);
        crate::size::unit(self.random)
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
        if client.has(SENDING) || !client.has_socket() {
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
        let first = self.plan.populations[usize::from(client.population)].first;
        first + nth * self.plan.workers as u32 + self.index as u32
    }

    /// The client's number in stamps.
    pub(crate) fn publisher(&self, local: u32) -> u32 {
        publisher_id(self.clients[local as usize].population, self.number(local))
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
        self.ramp.in_flight
    }

    fn result(mut self) -> WorkerResult {
        for traffic in self.clients.iter().filter_map(|c| c.traffic.as_ref()) {
            if let Heard::Retained(heard) = &traffic.heard
                && heard.last_ns > 0
            {
                let took = heard.last_ns.saturating_sub(heard.subscribed_ns);
                self.latencies.record(Metric::Replay, took);
            }
        }
        self.hand_over(true);
        self.publish_counters();
        let mut result = WorkerResult {
            rings: self.rings.len(),
            faults: std::mem::take(&mut self.faults),
            groups: std::mem::take(&mut self.groups),
            ..WorkerResult::default()
        };
        for local in 0..self.clients.len() as u32 {
            let (number, publisher) = (self.number(local), self.publisher(local));
            let client = &mut self.clients[local as usize];
            let population = client.population;
            if client.unclean > 0 {
                result.unclean.push((publisher, u32::from(client.unclean)));
            }
            if matches!(self.plan.populations[usize::from(population)].expect, Expect::One(_)) {
                result.ones.push((population, self.ones[local as usize]));
            }
            let Some(traffic) = client.traffic.take() else { continue };
            if traffic.sent > 0 {
                result.sent.push(SentBy {
                    publisher,
                    sent: traffic.sent,
                    by_stream: traffic.by_stream,
                    unsure: traffic.unsure,
                    resent: traffic.resent,
                });
            }
            result.heard.push(HeardBy {
                population,
                number,
                epoch: traffic.epoch,
                heard: traffic.heard,
            });
        }
        result
    }
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

/// Bytes of the largest payload that any client sends.
fn largest_payload(plan: &Plan) -> usize {
    let publish = plan.populations.iter().filter_map(|p| p.publish.as_ref());
    let wills = plan.populations.iter().filter_map(|p| p.connect.will.as_ref());
    publish.map(|p| p.size.max()).chain(wills.map(|w| w.size)).max().unwrap_or(0)
}

/// How often each client is looked at: eight times in a keep-alive, four times in a timeout.
fn sweep_period_ns(plan: &Plan) -> u64 {
    let keep_alive = plan.populations.iter().map(|p| p.connect.keep_alive_s).filter(|&k| k > 0);
    let shortest = keep_alive.map(|k| Duration::from_secs(u64::from(k))).min();
    let period = (shortest.unwrap_or(Duration::MAX) / 8).min(plan.connect_timeout / 4);
    (period.as_nanos() as u64).max(1_000_000)
}

const _: () = assert!(NONE as usize > crate::plan::CLIENTS_MAX);
