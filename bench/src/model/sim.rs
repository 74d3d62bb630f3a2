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
//! broker. Sends happen one after another at the end of a turn. Tasks of a core take turns.

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
    /// Going to sleep and being woken.
    pub(crate) sleep: f64,
    /// The generator's receive and send of a connection, and its part for each message.
    pub(crate) client: f64,
    pub(crate) client_message: f64,
    /// How many times as much all takes while more threads want to run than there are cores.
    pub(crate) shared: f64,
}

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
}

impl Inbox {
    fn is_empty(&self) -> bool {
        self.data.is_empty() && self.mail.is_empty()
    }
}

struct Task {
    /// The shard, on the core of its number; or none for the generator, on any.
    shard: Option<usize>,
    inbox: Inbox,
    running: bool,
    /// Whether it has nothing to do and was put to sleep.
    asleep: bool,
}

#[derive(Clone, Copy, Default)]
struct Core {
    /// The task that runs.
    running: Option<usize>,
    /// Whether the generator had the last turn: then it is the shard's.
    generator_last: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Event {
    /// Messages of a pair come to a task; by mail or from a connection.
    Arrive { task: u32, pair: u32, messages: u32, mail: bool },
    /// A batch of mail is there.
    Batch { task: u32 },
    /// The task's turn is over.
    Free { core: u32 },
    /// A pair publishes.
    Tick { pair: u32 },
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
            .map(|shard| Task { shard, inbox: Inbox::default(), running: false, asleep: true })
            .collect();
        let cores = vec![Core::default(); of.cores.max(of.shards)];
        // Crossing pairs are spread among the others, and all evenly over the shards.
        let cross = |p: usize| {
            let before = p * of.crossing as usize / 100;
            (p + 1) * of.crossing as usize / 100 > before
        };
        let homes = (0..of.pairs)
            .map(|p| {
                let a = p % of.shards;
                let step = 1 + (p / of.shards) % (of.shards.max(2) - 1);
                (a, if cross(p) { (a + step) % of.shards } else { a })
            })
            .collect();
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
                    let arrive = Event::Arrive { task: home, pair, messages: window, mail: false };
                    self.at(at, arrive);
                }
                Traffic::Paced { interval } => self.at(offset % interval, Event::Tick { pair }),
            }
        }
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
            Event::Arrive { task, pair, messages, mail } => {
                let inbox = &mut self.tasks[task as usize].inbox;
                *(if mail { &mut inbox.mail } else { &mut inbox.data }).entry(pair).or_insert(0) +=
                    messages;
                self.wake(task as usize);
            }
            Event::Batch { task } => self.tasks[task as usize].inbox.batches += 1,
            Event::Free { core } => {
                if let Some(task) = self.cores[core as usize].running.take() {
                    self.tasks[task].running = false;
                    // What came meanwhile may find another core free.
                    self.dispatch(core as usize);
                    self.wake(task);
                }
            }
            Event::Tick { pair } => {
                if let Traffic::Paced { interval } = self.of.traffic {
                    let home = self.homes[pair as usize].0 as u32;
                    self.at(self.now + interval, Event::Tick { pair });
                    self.take(Event::Arrive { task: home, pair, messages: 1, mail: false });
                }
            }
        }
    }

    /// Finds a core for a task that has something to do.
    fn wake(&mut self, task: usize) {
        match self.tasks[task].shard {
            Some(core) => self.dispatch(core),
            // The last core first: with fewer shards than cores it is free.
            None => (0..self.cores.len()).rev().for_each(|core| self.dispatch(core)),
        }
    }

    /// Gives a free core to its shard or to the generator, in turn if both have something to do.
    fn dispatch(&mut self, core: usize) {
        if self.cores[core].running.is_some() {
            return;
        }
        let ready =
            |task: usize| self.tasks.get(task).is_some_and(|t| !t.running && !t.inbox.is_empty());
        let shard = (core < self.of.shards && ready(core)).then_some(core);
        let generator = ready(self.of.shards).then_some(self.of.shards);
        let first = if self.cores[core].generator_last { shard } else { generator };
        let Some(task) = first.or(shard).or(generator) else {
            if core < self.of.shards {
                self.tasks[core].asleep = true;
            }
            return;
        };
        self.tasks[task].running = true;
        self.cores[core] =
            Core { running: Some(task), generator_last: self.tasks[task].shard.is_none() };
        let busy = |t: &&Task| t.running || !t.inbox.is_empty();
        let crowded = self.tasks.iter().filter(busy).count() > self.cores.len();
        let factor = if crowded { self.costs.shared } else { 1.0 };
        let end = match self.tasks[task].shard {
            Some(shard) => self.shard_turn(task, shard, factor),
            None => self.worker_turn(task, factor),
        };
        self.at(end, Event::Free { core: core as u32 });
    }

    fn shard_turn(&mut self, task: usize, shard: usize, factor: f64) -> u64 {
        let c = *self.costs;
        let inbox = std::mem::take(&mut self.tasks[task].inbox);
        let slept = std::mem::replace(&mut self.tasks[task].asleep, false);
        let mut sends: BTreeMap<u32, u32> = inbox.mail;
        let crossed_in: u32 = sends.values().sum();
        let mut away: BTreeMap<usize, Vec<(u32, u32)>> = BTreeMap::new();
        let (mut received, mut crossed_out) = (0, 0);
        let receives = inbox.data.len();
        for (pair, messages) in inbox.data {
            received += messages;
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
        cost += if slept { c.sleep } else { 0.0 };
        let mut time = self.now as f64 + cost * factor;
        for (to, list) in away {
            self.at(time as u64, Event::Batch { task: to as u32 });
            for (pair, messages) in list {
                let arrive = Event::Arrive { task: to as u32, pair, messages, mail: true };
                self.at(time as u64, arrive);
            }
        }
        let sent = sends.len();
        for (pair, messages) in sends {
            time += c.send * factor;
            self.counted.delivered += u64::from(messages);
            self.deliver(time as u64, pair, messages);
        }
        self.counted.busy += (cost + c.send * sent as f64) * factor;
        self.counted.sleeps += u64::from(slept);
        self.counted.turns += 1;
        self.counted.handled += u64::from(received + crossed_in);
        (time as u64).max(self.now + 1)
    }

    /// Messages of a pair reach its subscriber.
    fn deliver(&mut self, time: u64, pair: u32, messages: u32) {
        match self.of.clients {
            Clients::Beside => {
                let task = self.of.shards as u32;
                self.at(time, Event::Arrive { task, pair, messages, mail: false });
            }
            Clients::Away { delay } => self.publish(time + delay, pair, messages),
        }
    }

    /// In a closed loop, what was delivered makes room for as much.
    fn publish(&mut self, time: u64, pair: u32, messages: u32) {
        if let Traffic::Closed { .. } = self.of.traffic {
            let task = self.homes[pair as usize].0 as u32;
            self.at(time, Event::Arrive { task, pair, messages, mail: false });
        }
    }

    fn worker_turn(&mut self, task: usize, factor: f64) -> u64 {
        let inbox = std::mem::take(&mut self.tasks[task].inbox);
        let mut time = self.now as f64;
        for (pair, messages) in inbox.data {
            time += (self.costs.client + self.costs.client_message * f64::from(messages)) * factor;
            self.publish(time as u64, pair, messages);
        }
        (time as u64).max(self.now + 1)
    }
}

/// The next number of a seed.
pub(super) fn split_mix(seed: &mut u64) -> u64 {
    *seed = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let x = (*seed ^ (*seed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}
