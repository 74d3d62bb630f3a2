//! The simulated node: cores, tasks on them, and what each turn of a task costs.
//!
//! ```text
//!  pair ─publish─▶ shard (receive, message) ─┬─ same shard ────────────▶ send ─▶ generator ─┐
//!    ▲                                       └─ mail, wake ─▶ other shard ─▶ send ──┘        │
//!    └───────────────────────────── the window has room again ◀─────────────────────────────┘
//! ```
//!
//! A task takes all that lies before it when its turn begins, and pays once for the turn, once for each
//! connection and mail batch, and once for each message: so batches grow by themselves as they do in the
//! broker. Sends happen one after another at the end of a turn.
//!
//! A generator beside the shards is one more task, which no core owns. Who runs follows the kernel's
//! scheduler as `/proc/*/schedstat` showed it at work: no turn is interrupted; a shard that wakes up gets
//! its core at the end of the generator's turn; a shard keeps its core until it has nothing to do or
//! [`SLICE_NS`] are over; and the generator changes cores only when it wakes up and finds another idle,
//! or when a tick finds that it waits while another is. So it waits on a busy core beside an idle one.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};

/// Service times, ns.
#[derive(Clone, Copy, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
pub(crate) struct Costs {
    /// One turn of a shard: reap, end, submit.
    pub(crate) turn: f64,
    /// One receive of a connection, however many messages are in it.
    pub(crate) receive: f64,
    /// One send to a connection, likewise.
    pub(crate) send: f64,
    /// Decode, route and deliver of one message.
    pub(crate) message: f64,
    /// One message into a mailbox and out of it.
    pub(crate) mail: f64,
    /// One batch of mail, and the wake of who sleeps.
    pub(crate) batch: f64,
    /// Being woken on a core that idled, before the turn that follows begins. Where another task ran
    /// until then, nothing has to get up but the thread.
    pub(crate) sleep: f64,
    /// The generator's receive and send of a connection, its part for each message, its turn, and
    /// its sleep.
    pub(crate) client: f64,
    pub(crate) client_message: f64,
    pub(crate) client_turn: f64,
    pub(crate) client_sleep: f64,
    /// A connection that a shard handles for the first time since another task had the core, besides:
    /// what it needs is no longer in the caches.
    pub(crate) cold: f64,
    /// The same of the generator.
    pub(crate) client_cold: f64,
    /// What a receive takes more when the sender ran on another core.
    pub(crate) remote: f64,
    /// The same of the generator.
    pub(crate) client_remote: f64,
}

/// After so long a task gives its core to one that waits: the scheduler looks at each tick, 250 Hz.
const SLICE_NS: u64 = 4_000_000;

/// Who drives the node.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Traffic {
    /// Each pair keeps so many messages outstanding.
    Closed { window: u32 },
    /// Each pair publishes once in so many ns.
    Paced { interval: u64 },
}

/// Where clients run.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Clients {
    /// One thread on the node itself, on whichever core has time for it, as the generator is by default.
    Beside,
    /// On machines of their own, that answer after so many ns.
    Away { delay: u64 },
}

/// What is simulated.
#[derive(Clone, Debug)]
pub(crate) struct Scenario {
    /// Shards; shard i runs on core i.
    pub(crate) shards: usize,
    /// At least as many.
    pub(crate) cores: usize,
    pub(crate) pairs: usize,
    /// Percent of the pairs whose ends have different homes.
    pub(crate) crossing: u32,
    pub(crate) traffic: Traffic,
    pub(crate) clients: Clients,
    /// Simulated time that counts, ns; a quarter as much goes before it.
    pub(crate) span: u64,
    pub(crate) seed: u64,
}

/// What came out.
#[derive(Clone, Copy, Debug, PartialEq, serde::Serialize)]
pub(crate) struct Outcome {
    pub(crate) delivered: u64,
    /// CPU of all shards.
    pub(crate) ns_per_message: f64,
    /// CPU of a generator beside them.
    pub(crate) generator_ns_per_message: f64,
    pub(crate) messages_per_s: f64,
    pub(crate) sleeps_per_message: f64,
    /// Messages that a turn of a shard handled.
    pub(crate) messages_per_turn: f64,
}

/// Messages of a pair, at a task.
#[derive(Default)]
struct Inbox {
    /// Received from connections: pair → messages.
    data: BTreeMap<u32, u32>,
    /// Mail of other shards.
    mail: BTreeMap<u32, u32>,
    batches: u32,
    /// Of the connections in `data`, those whose bytes came from another core.
    remote: u32,
    /// Pairs whose time to publish has come.
    due: Vec<u32>,
}

impl Inbox {
    fn is_empty(&self) -> bool {
        self.data.is_empty() && self.mail.is_empty() && self.due.is_empty()
    }
}

struct Task {
    /// The shard, on the core of its number; or none for the generator, on any.
    shard: Option<usize>,
    inbox: Inbox,
    running: bool,
    /// Whether it has nothing to do and was put to sleep.
    asleep: bool,
    /// Whether its slice was over while another waited: now it waits for its turn.
    behind: bool,
    /// The core that it runs on, ran on, or waits for.
    core: usize,
    /// How often it took a core over, and the count at which it last handled the two connections of
    /// each pair.
    stint: u32,
    handled: [Vec<u32>; 2],
}

/// Connections of a pair.
const PUBLISHER: usize = 0;
const SUBSCRIBER: usize = 1;

impl Task {
    /// Whether it handles a connection for the first time since it took over; 1 or 0.
    fn is_cold(&mut self, end: usize, pair: u32) -> f64 {
        let before = std::mem::replace(&mut self.handled[end][pair as usize], self.stint);
        f64::from(u8::from(before != self.stint))
    }
}

#[derive(Clone, Copy, Default)]
struct Core {
    /// The task that runs.
    running: Option<usize>,
    /// The one that ran last, and since when without another between.
    last: Option<usize>,
    since: u64,
    /// When it last became free.
    free_at: u64,
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Event {
    /// Messages of a pair come to a task; by mail or from a connection. `from` is the core they were
    /// sent on.
    Arrive { task: u32, pair: u32, messages: u32, mail: bool, from: Option<u32> },
    /// The task is awake, and takes what has come until now.
    Awake { task: u32 },
    /// A batch of mail is there.
    Batch { task: u32 },
    /// The task's turn is over.
    Free { core: u32 },
    /// A pair publishes.
    Tick { pair: u32 },
    /// The scheduler looks for tasks that wait beside an idle core.
    Balance,
}

pub(crate) struct Sim<'a> {
    costs: &'a Costs,
    of: &'a Scenario,
    now: u64,
    serial: u64,
    events: BinaryHeap<Reverse<(u64, u64, Event)>>,
    tasks: Vec<Task>,
    cores: Vec<Core>,
    /// Publisher's and subscriber's home of each pair.
    homes: Vec<(usize, usize)>,
    counted: Counted,
}

#[derive(Clone, Copy, Default)]
struct Counted {
    delivered: u64,
    busy: f64,
    generator_busy: f64,
    sleeps: u64,
    turns: u64,
    handled: u64,
}

/// Runs a scenario. The same seed gives the same outcome.
pub(crate) fn simulate(costs: &Costs, of: &Scenario) -> Outcome {
    let mut sim = Sim::new(costs, of);
    sim.start();
    let (from, to) = (of.span / 4, of.span / 4 + of.span);
    sim.run_until(from);
    let before = sim.counted;
    sim.run_until(to);
    let after = sim.counted;
    let delivered = after.delivered - before.delivered;
    let each = |x: f64| x / delivered.max(1) as f64;
    let turns = (after.turns - before.turns).max(1);
    Outcome {
        delivered,
        ns_per_message: each(after.busy - before.busy),
        generator_ns_per_message: each(after.generator_busy - before.generator_busy),
        messages_per_s: delivered as f64 * 1e9 / of.span as f64,
        sleeps_per_message: each((after.sleeps - before.sleeps) as f64),
        messages_per_turn: (after.handled - before.handled) as f64 / turns as f64,
    }
}

impl<'a> Sim<'a> {
    fn new(costs: &'a Costs, of: &'a Scenario) -> Self {
        let generator = matches!(of.clients, Clients::Beside).then_some(None);
        let tasks: Vec<Task> = (0..of.shards)
            .map(Some)
            .chain(generator)
            .map(|shard| {
                // The last core: with fewer shards than cores it is free.
                let core = shard.unwrap_or(of.cores.max(of.shards) - 1);
                let inbox = Inbox::default();
                let handled = [vec![0; of.pairs], vec![0; of.pairs]];
                let (running, asleep, behind, stint) = (false, true, false, 0);
                Task { shard, inbox, running, asleep, behind, core, stint, handled }
            })
            .collect();
        let cores = vec![Core::default(); of.cores.max(of.shards)];
        let homes = (0..of.pairs).map(|pair| homes_of(pair, of.shards, of.crossing)).collect();
        let (now, serial, events) = (0, 0, BinaryHeap::new());
        Self { costs, of, now, serial, events, tasks, cores, homes, counted: Counted::default() }
    }

    fn start(&mut self) {
        let mut seed = self.of.seed;
        for pair in 0..self.of.pairs as u32 {
            let offset = split_mix(&mut seed);
            match self.of.traffic {
                Traffic::Closed { window } => {
                    let home = self.homes[pair as usize].0 as u32;
                    let at = offset % 20_000;
                    self.arrive(at, home, pair, window, false, None);
                }
                // The generator deals publishers out evenly over the interval.
                Traffic::Paced { interval } => {
                    let at = interval * u64::from(pair) / self.of.pairs as u64;
                    self.at(at, Event::Tick { pair });
                }
            }
        }
        if self.generator().is_some() {
            self.at(SLICE_NS, Event::Balance);
        }
    }

    /// The generator's task, if it is beside the shards.
    fn generator(&self) -> Option<usize> {
        (self.tasks.len() > self.of.shards).then_some(self.of.shards)
    }

    fn arrive(
        &mut self,
        time: u64,
        task: u32,
        pair: u32,
        messages: u32,
        mail: bool,
        from: Option<u32>,
    ) {
        self.at(time, Event::Arrive { task, pair, messages, mail, from });
    }

    fn at(&mut self, time: u64, event: Event) {
        self.serial += 1;
        self.events.push(Reverse((time, self.serial, event)));
    }

    fn run_until(&mut self, end: u64) {
        while let Some(Reverse((time, ..))) = self.events.peek().copied()
            && time < end
        {
            let Some(Reverse((time, _, event))) = self.events.pop() else { return };
            self.now = time;
            self.take(event);
        }
        self.now = end;
    }

    fn take(&mut self, event: Event) {
        match event {
            Event::Arrive { task, pair, messages, mail, from } => {
                let at = self.tasks[task as usize].core;
                let inbox = &mut self.tasks[task as usize].inbox;
                let list = if mail { &mut inbox.mail } else { &mut inbox.data };
                let there = list.entry(pair).or_insert(0);
                let remote = *there == 0 && from.is_some_and(|core| core as usize != at);
                *there += messages;
                inbox.remote += u32::from(remote);
                self.wake(task as usize);
            }
            Event::Batch { task } => self.tasks[task as usize].inbox.batches += 1,
            Event::Awake { task } => self.turn(task as usize),
            Event::Free { core } => {
                if let Some(task) = self.cores[core as usize].running.take() {
                    self.tasks[task].running = false;
                    self.cores[core as usize].free_at = self.now;
                    self.dispatch(core as usize);
                }
            }
            Event::Tick { pair } => {
                if let Traffic::Paced { interval } = self.of.traffic {
                    self.at(self.now + interval, Event::Tick { pair });
                    if let Some(generator) = self.generator() {
                        self.tasks[generator].inbox.due.push(pair);
                        self.wake(generator);
                    } else {
                        let home = self.homes[pair as usize].0 as u32;
                        self.arrive(self.now, home, pair, 1, false, None);
                    }
                }
            }
            Event::Balance => {
                self.at(self.now + SLICE_NS, Event::Balance);
                if let Some(generator) = self.generator()
                    && !self.tasks[generator].running
                    && !self.tasks[generator].inbox.is_empty()
                {
                    self.move_to_idle(generator);
                }
            }
        }
    }

    /// A task has something to do. One that slept may begin at once if its core is idle.
    fn wake(&mut self, task: usize) {
        if self.tasks[task].running {
            return;
        }
        if self.tasks[task].shard.is_none() && self.tasks[task].asleep {
            self.move_to_idle(task);
        }
        self.dispatch(self.tasks[task].core);
    }

    /// The generator goes to an idle core if its own is busy and there is one.
    fn move_to_idle(&mut self, task: usize) {
        let idle = |core: usize| self.cores[core].running.is_none();
        let at = self.tasks[task].core;
        if let Some(core) = (!idle(at)).then(|| (0..self.cores.len()).find(|c| idle(*c))).flatten()
        {
            self.tasks[task].core = core;
            self.dispatch(core);
        }
    }

    /// Gives a free core to its shard or to the generator, if it waits here.
    fn dispatch(&mut self, core: usize) {
        if self.cores[core].running.is_some() {
            return;
        }
        let ready = |task: usize| {
            let t = &self.tasks[task];
            t.core == core && !t.running && !t.inbox.is_empty()
        };
        let shard = (core < self.of.shards && ready(core)).then_some(core);
        let generator = self.generator().filter(|g| ready(*g));
        if let Some(last) = self.cores[core].last {
            let last = &mut self.tasks[last];
            last.asleep |= !last.running && last.inbox.is_empty();
        }
        let task = match (shard, generator) {
            (Some(shard), Some(generator)) => {
                let Core { last, since, .. } = self.cores[core];
                let over = self.now - since >= SLICE_NS;
                if last == Some(shard) && over {
                    self.tasks[shard].behind = true;
                } else if last == Some(generator) && over {
                    self.tasks[shard].behind = false;
                }
                if self.tasks[shard].behind { generator } else { shard }
            }
            (Some(shard), None) => shard,
            (None, Some(generator)) => generator,
            (None, None) => return,
        };
        self.tasks[task].running = true;
        if task < self.of.shards {
            self.tasks[task].behind = false;
        }
        let other = self.cores[core].last.is_some_and(|last| last != task);
        if other || self.cores[core].last.is_none() {
            self.cores[core].since = self.now;
            self.tasks[task].stint += u32::from(other);
        }
        self.cores[core].running = Some(task);
        self.cores[core].last = Some(task);
        let slept = std::mem::replace(&mut self.tasks[task].asleep, false);
        let (c, is_shard) = (*self.costs, self.tasks[task].shard.is_some());
        let mut cost = 0.0;
        if slept {
            self.cores[core].since = self.now;
            if self.cores[core].free_at < self.now {
                cost += if is_shard { c.sleep } else { c.client_sleep };
            }
            self.counted.sleeps += u64::from(is_shard);
        }
        *(if is_shard { &mut self.counted.busy } else { &mut self.counted.generator_busy }) += cost;
        self.at(self.now + cost as u64, Event::Awake { task: task as u32 });
    }

    /// A turn of a task that has its core.
    fn turn(&mut self, task: usize) {
        let core = self.tasks[task].core;
        let end = match self.tasks[task].shard {
            Some(shard) => self.shard_turn(task, shard),
            None => self.worker_turn(task),
        };
        self.at(end, Event::Free { core: core as u32 });
    }

    fn shard_turn(&mut self, task: usize, shard: usize) -> u64 {
        let c = *self.costs;
        let inbox = std::mem::take(&mut self.tasks[task].inbox);
        let mut sends: BTreeMap<u32, u32> = inbox.mail;
        let crossed_in: u32 = sends.values().sum();
        let mut away: BTreeMap<usize, Vec<(u32, u32)>> = BTreeMap::new();
        let (mut received, mut crossed_out) = (0, 0);
        let (receives, mut cold) = (inbox.data.len(), 0.0);
        for (pair, messages) in inbox.data {
            received += messages;
            cold += self.tasks[task].is_cold(PUBLISHER, pair);
            let (_, to) = self.homes[pair as usize];
            if to == shard {
                *sends.entry(pair).or_insert(0) += messages;
            } else {
                crossed_out += messages;
                away.entry(to).or_default().push((pair, messages));
            }
        }
        // A message that crosses pays half of its own work, and of the mail's, at each end.
        let whole = f64::from(received - crossed_out);
        let half = f64::from(crossed_out + crossed_in) / 2.0;
        let mut cost =
            c.turn + c.receive * receives as f64 + c.message * (whole + half) + c.mail * half;
        cost += c.batch / 2.0 * (away.len() as f64 + f64::from(inbox.batches));
        cost += c.remote * f64::from(inbox.remote) + c.cold * cold;
        let mut time = self.now as f64 + cost;
        for (to, list) in away {
            self.at(time as u64, Event::Batch { task: to as u32 });
            for (pair, messages) in list {
                self.arrive(time as u64, to as u32, pair, messages, true, None);
            }
        }
        for (pair, messages) in sends {
            let send = c.send + c.cold * self.tasks[task].is_cold(SUBSCRIBER, pair);
            time += send;
            cost += send;
            self.counted.delivered += u64::from(messages);
            self.deliver(time as u64, pair, messages, shard);
        }
        self.counted.busy += cost;
        self.counted.turns += 1;
        self.counted.handled += u64::from(received + crossed_in);
        (time as u64).max(self.now + 1)
    }

    /// Messages of a pair reach its subscriber.
    fn deliver(&mut self, time: u64, pair: u32, messages: u32, core: usize) {
        match self.of.clients {
            Clients::Beside => {
                let task = self.of.shards as u32;
                self.arrive(time, task, pair, messages, false, Some(core as u32));
            }
            Clients::Away { delay } => self.publish(time + delay, pair, messages, None),
        }
    }

    /// In a closed loop, what was delivered makes room for as much.
    fn publish(&mut self, time: u64, pair: u32, messages: u32, from: Option<u32>) {
        if let Traffic::Closed { .. } = self.of.traffic {
            self.send_publishes(time, pair, messages, from);
        }
    }

    fn send_publishes(&mut self, time: u64, pair: u32, messages: u32, from: Option<u32>) {
        let task = self.homes[pair as usize].0 as u32;
        self.arrive(time, task, pair, messages, false, from);
    }

    /// The generator receives, and sends what there is room for or what is due.
    fn worker_turn(&mut self, task: usize) -> u64 {
        let inbox = std::mem::take(&mut self.tasks[task].inbox);
        let (c, core) = (*self.costs, Some(self.tasks[task].core as u32));
        let messages: u32 = inbox.data.values().sum();
        let mut time = self.now as f64 + c.client_turn + c.client_remote * f64::from(inbox.remote);
        for &pair in inbox.data.keys() {
            time += c.client / 2.0 + c.client_cold * self.tasks[task].is_cold(SUBSCRIBER, pair);
        }
        time += c.client_message / 2.0 * f64::from(messages);
        let room = match self.of.traffic {
            Traffic::Closed { .. } => inbox.data,
            Traffic::Paced { .. } => inbox.due.into_iter().map(|pair| (pair, 1)).collect(),
        };
        for (pair, messages) in room {
            time += c.client / 2.0 + c.client_message / 2.0 * f64::from(messages);
            time += c.client_cold * self.tasks[task].is_cold(PUBLISHER, pair);
            self.send_publishes(time as u64, pair, messages, core);
        }
        self.counted.generator_busy += time - self.now as f64;
        (time as u64).max(self.now + 1)
    }
}

/// Home shards of a pair's publisher and subscriber: as `crossing` deals them out, so that every shard
/// has its part of the pairs that cross, in both directions; with more shards the peers differ too.
pub(super) fn homes_of(pair: usize, shards: usize, percent: u32) -> (usize, usize) {
    let nth = pair / (2 * shards);
    let crosses = (nth + 1) * percent as usize / 100 > nth * percent as usize / 100;
    let home = pair / 2 % shards;
    let step = 1 + nth % (shards.max(2) - 1);
    (if crosses { (home + step) % shards } else { home }, home)
}

/// The next number of a seed.
pub(super) fn split_mix(seed: &mut u64) -> u64 {
    *seed = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let x = (*seed ^ (*seed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}
