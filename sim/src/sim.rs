//! One run: a world, its devices and the oracle, from one seed.

use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Once};

use ringmain_shards::boundary::{Control, Pressure};
use ringmain_shards::engine::Shard;
use ringmain_shards::engine::config::{EngineConfig, Redispatch, Strategy};
use ringmain_shards::engine::ids::{Now, ShardId};
use ringmain_shards::engine::node::NodeShared;

use crate::device::{Act, Device, Numbers};
use crate::oracle::{Facts, Oracle, Rules, Violation};
use crate::plant::Plant;
use crate::rng::Rng;
use crate::scenario::{Scenario, WATCHERS};
use crate::wire::ToServer;
use crate::world::{Seen, World};

/// What to run.
#[derive(Clone, Debug)]
pub struct Options {
    /// The seed.
    pub seed: u64,
    /// Steps of chaos in a round.
    pub steps: u64,
    /// A theme instead of the seed's.
    pub theme: Option<String>,
    /// Shards instead of the seed's number.
    pub shards: Option<usize>,
    /// A planted bug.
    pub plant: Option<Plant>,
    /// Rules whose violations are only counted.
    pub allow: Vec<String>,
    /// Keep a trace.
    pub trace: bool,
}

/// How a run went.
#[derive(Debug)]
pub struct Outcome {
    /// What was broken, if anything.
    pub violation: Option<Violation>,
    /// The last lines of the trace, if one was kept.
    pub trace: Vec<String>,
    /// Theme of the run.
    pub theme: &'static str,
    /// Shards of the run.
    pub shards: usize,
    /// Micro-steps.
    pub steps: u64,
    /// Copies of messages written.
    pub copies: u64,
    /// Times a mailbox was full.
    pub overflows: u64,
    /// Violations of rules that were allowed.
    pub allowed: u64,
}

/// Lines of trace that are kept.
const TRACE_MAX: usize = 100_000;

/// Virtual time that a calm may take, in ms.
const CALM_MAX_MS: u64 = 120_000;

/// Virtual time without anything happening, in ms, after which nothing is going to.
const QUIET_MS: u64 = 8_000;

/// Virtual time that a drain may take, in ms, and that is looked at after it.
const DRAIN_MAX_MS: u64 = 20_000;
/// See [`DRAIN_MAX_MS`].
const AFTER_DRAIN_MS: u64 = 500;

thread_local! {
    /// Where and why the engine panicked.
    static PANIC: Cell<Option<String>> = const { Cell::new(None) };
}

struct Run {
    world: World<Shard>,
    devices: Vec<Device>,
    oracle: Oracle,
    scenario: Scenario,
    numbers: Numbers,
    rng: Rng,
    /// Of the administrator.
    admin: Rng,
    reloads: u16,
    trace: Option<Vec<String>>,
    /// Devices that act: at first the watchers alone.
    awake: usize,
}

/// Runs a seed. A panic of the engine is a violation like others.
#[must_use]
pub fn run(options: &Options) -> Outcome {
    let scenario =
        Scenario::of_seed(options.seed, options.theme.as_deref(), options.shards, options.steps);
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        std::panic::set_hook(Box::new(|info| PANIC.set(Some(info.to_string()))));
    });
    let mut run = Run::new(options, scenario);
    let result = catch_unwind(AssertUnwindSafe(|| run.whole()));
    let violation = match result {
        Ok(Ok(())) => None,
        Ok(Err(violation)) => Some(violation),
        Err(_) => Some(Violation { rule: "panic", text: PANIC.take().unwrap_or_default() }),
    };
    Outcome {
        violation,
        theme: run.scenario.name,
        shards: run.scenario.world.shards,
        steps: run.world.stamp().step,
        copies: run.oracle.copies_sent,
        overflows: run.world.overflows(),
        allowed: run.oracle.allowed_count,
        trace: run.trace.unwrap_or_default(),
    }
}

fn engine_config(s: &Scenario) -> EngineConfig {
    let mut c = EngineConfig::default();
    c.mqtt.max_inflight = s.max_inflight;
    c.mqtt.receive_maximum = s.server_receive_max;
    c.mqtt.max_mqueue_len = s.mqueue_len;
    c.mqtt.mqueue_drop_policy = s.queue_policy;
    c.mqtt.max_mqueue_bytes = 0;
    c.mqtt.topic_alias_max = 4;
    c.mqtt.topic_alias_out_max = 4;
    c.mqtt.mqueue_store_qos0 = s.store_qos0;
    c.limits.out_buffer_bytes = s.out_buffer;
    c.sys.interval_s = 0;
    c.sys.heartbeat_s = 0;
    c.sys.client_events = false;
    c.listeners[0].authenticate = s.world.auth.is_some();
    c.shared.strategy = strategy(s.strategy);
    if s.redispatch_late {
        c.shared.redispatch = Redispatch::OnSessionEnd;
    }
    c
}

fn strategy(i: usize) -> Strategy {
    [
        Strategy::Random,
        Strategy::RoundRobin,
        Strategy::RoundRobinPerGroup,
        Strategy::Sticky,
        Strategy::Local,
        Strategy::HashClientId,
        Strategy::HashTopic,
        Strategy::LeastInflight,
    ][i % 8]
}

impl Run {
    fn new(options: &Options, scenario: Scenario) -> Self {
        let mut rng = Rng::new(options.seed);
        let config = Arc::new(engine_config(&scenario));
        let now = Now { mono_ns: 1_000_000_000, unix_ms: 1_700_000_000_000 };
        let n = scenario.world.shards;
        let node = Arc::new(NodeShared::new(n, rng.seed(), now.unix_ms, &config));
        let shards = (0..n)
            .map(|i| {
                let id = ShardId(i as u16);
                Shard::new(id, Arc::clone(&config), Arc::clone(&node), rng.seed(), now)
            })
            .collect();
        let mut world = World::new(scenario.world.clone(), shards, rng.seed());
        world.now = now;
        world.set_plant(options.plant);
        let total = WATCHERS + scenario.devices;
        let devices =
            (0..total).map(|i| Device::new(i, i < WATCHERS, &scenario, &mut rng)).collect();
        let mut oracle = Oracle::new(Rules::new(&scenario, total));
        oracle.allow(options.allow.clone());
        oracle.set_watchers((0..WATCHERS).collect());
        Self {
            world,
            devices,
            oracle,
            scenario,
            numbers: Numbers::default(),
            rng,
            admin: Rng::new(options.seed ^ 0x00AD_3141),
            reloads: 0,
            trace: options.trace.then(Vec::new),
            awake: WATCHERS,
        }
    }

    fn whole(&mut self) -> Result<(), Violation> {
        self.log(|r| format!("{:?}", r.scenario));
        self.start_watchers()?;
        for round in 0..self.scenario.rounds {
            self.log(|_| format!("round {round}"));
            self.chaos()?;
            if self.scenario.drain && round + 1 == self.scenario.rounds {
                return self.drain();
            }
            self.calm()?;
            let facts = self.facts();
            self.oracle.at_quiet(Some(&facts))?;
        }
        Ok(())
    }

    fn start_watchers(&mut self) -> Result<(), Violation> {
        for d in 0..WATCHERS {
            let acts = self.devices[d].act(&self.scenario, &mut self.numbers, &mut self.rng, 0);
            self.perform(d, acts);
            let mut asked = false;
            for _ in 0..100_000 {
                self.step(false)?;
                if self.devices[d].up() && !asked {
                    asked = true;
                    let acts = self.devices[d].watch(1 + d as u8 % 2);
                    self.perform(d, acts);
                }
                if asked && self.devices[d].satisfied() {
                    break;
                }
            }
        }
        self.awake = self.devices.len();
        Ok(())
    }

    fn chaos(&mut self) -> Result<(), Violation> {
        for d in &mut self.devices {
            d.calm = d.watcher;
        }
        for _ in 0..self.scenario.steps {
            self.faults();
            self.step(true)?;
        }
        Ok(())
    }

    fn faults(&mut self) {
        let s = self.scenario.clone();
        let shards = s.world.shards;
        if self.rng.chance(s.stall) {
            let (shard, ms) = (self.rng.below(shards), self.rng.range(1, 50));
            self.world.stall(shard, ms);
        }
        if self.rng.chance(s.leap) {
            let ms = self.rng.range(1, s.leap_max_ms);
            self.leap(self.world.now.mono_ns + ms * 1_000_000);
        }
        if self.rng.chance(s.wall_jump) {
            let unix_ms = self.rng.range(0, 2_000_000_000_000);
            self.world.set_wall_clock(unix_ms);
        }
        if self.rng.chance(s.pressure) {
            let pressure = *self.rng.pick(&[Pressure::Normal, Pressure::High, Pressure::Critical]);
            self.oracle.pressure_ordered();
            for shard in 0..shards {
                self.world.control(shard, Control::Pressure(pressure));
            }
        }
        self.administer(&s);
    }

    /// What an administrator does meanwhile.
    fn administer(&mut self, s: &Scenario) {
        if self.admin.chance(s.kick) {
            let device = self.admin.range(WATCHERS as u64, self.devices.len() as u64 - 1) as usize;
            let discard_session = self.admin.chance(500);
            let token = self.oracle.kick_ordered(device, discard_session);
            self.log(|r| format!("{:>9} kick {device} {discard_session}", r.world.now.mono_ms()));
            self.control(&Control::Kick {
                client_id: Device::client_id(device).into(),
                reason: 0x98,
                discard_session,
                token,
            });
        }
        if self.admin.chance(s.dump) {
            let device = self.admin.below(self.devices.len());
            let token = self.oracle.dump_ordered(device);
            let client_id = Device::client_id(device).into();
            self.control(&Control::DumpSession { client_id, token });
        }
        if self.admin.chance(s.reload) {
            // What the oracle need not know: clients are held to what their CONNACK told them.
            let mut c = engine_config(s);
            c.mqtt.max_inflight = *self.admin.pick(&[1, 2, 5, 32]);
            // More each time: a client that resumes may have as many under way as it was told last.
            self.reloads += 1;
            c.mqtt.receive_maximum = s.server_receive_max + self.reloads;
            c.mqtt.topic_alias_max = *self.admin.pick(&[1, 4]);
            c.mqtt.topic_alias_out_max = *self.admin.pick(&[0, 1, 4]);
            c.shared.strategy = strategy(self.admin.below(8));
            self.control(&Control::Reload(Arc::new(c)));
        }
    }

    fn control(&mut self, control: &Control) {
        for shard in 0..self.scenario.world.shards {
            self.world.control(shard, control.clone());
        }
    }

    /// Time goes on to `to_ns`, but not over a device's ping.
    fn leap(&mut self, to_ns: u64) {
        let pings = self.devices.iter().map(|d| d.next_ping_ms().saturating_mul(1_000_000));
        let to_ns = pings.min().unwrap_or(u64::MAX).min(to_ns);
        let by = to_ns.saturating_sub(self.world.now.mono_ns);
        self.world.pass_ns(by);
    }

    fn calm(&mut self) -> Result<(), Violation> {
        self.world.unstall();
        if self.scenario.pressure > 0 {
            for shard in 0..self.scenario.world.shards {
                self.world.control(shard, Control::Pressure(Pressure::Normal));
            }
        }
        let small = std::mem::replace(&mut self.world.config.socket_cap, 1 << 20);
        for d in &mut self.devices {
            d.calm = true;
        }
        let start_ms = self.world.now.mono_ms();
        let mut idle_since_ms = None;
        loop {
            self.step(false)?;
            let now_ms = self.world.now.mono_ms();
            if !self.devices.iter().all(Device::satisfied) {
                idle_since_ms = None;
            } else if self.idle() {
                // Timers (wills, expiry) may still make something happen.
                let since = *idle_since_ms.get_or_insert(now_ms);
                if now_ms > since + QUIET_MS {
                    break;
                }
            }
            if now_ms > start_ms + CALM_MAX_MS {
                return Err(self.stuck());
            }
        }
        self.world.config.socket_cap = small;
        self.oracle.unreliable = false;
        Ok(())
    }

    fn idle(&self) -> bool {
        self.world.quiet() && !self.world.busy() && self.devices.iter().all(Device::satisfied)
    }

    fn stuck(&self) -> Violation {
        let waiting: Vec<String> = self
            .devices
            .iter()
            .filter(|d| !d.satisfied())
            .map(|d| format!("device {}: {}", d.index, d.wants()))
            .collect();
        let text = format!(
            "mail quiet {}, work {}; {}",
            self.world.quiet(),
            self.world.busy(),
            waiting.join("; ")
        );
        Violation { rule: "stuck", text }
    }

    /// [S-20]
    fn drain(&mut self) -> Result<(), Violation> {
        self.world.unstall();
        self.oracle.drain_ordered();
        for shard in 0..self.scenario.world.shards {
            self.world.control(shard, Control::Drain);
        }
        for d in &mut self.devices {
            d.calm = true;
        }
        let end_ms = self.world.now.mono_ms() + DRAIN_MAX_MS;
        let mut drained_ms = None;
        loop {
            self.step(false)?;
            let now_ms = self.world.now.mono_ms();
            if drained_ms.is_none() && self.oracle.is_drained() {
                drained_ms = Some(now_ms);
            }
            // Clients still come for a while, and are turned away.
            if now_ms >= end_ms || drained_ms.is_some_and(|at| now_ms >= at + AFTER_DRAIN_MS) {
                break;
            }
        }
        self.oracle.at_drained(self.scenario.world.shards)
    }

    /// One step of something. Returns whether anything moved but time.
    fn step(&mut self, chaos: bool) -> Result<bool, Violation> {
        let ns = self.rng.range(1_000, 60_000);
        self.world.pass_ns(ns);
        let n = self.scenario.world.shards;
        let mut moved = false;
        match self.rng.weighted(&[60, 30, 10]) {
            0 => {
                let shard = self.rng.below(n);
                let burst = self.rng.range(1, 12);
                for _ in 0..burst {
                    if !self.world.has_work(shard) {
                        break;
                    }
                    moved = true;
                    self.world.advance(shard);
                    self.look()?;
                }
            }
            1 => {
                let d = self.rng.below(self.awake);
                moved = self.device(d);
            }
            _ => {
                self.world.drain_sockets();
                self.world.bury();
            }
        }
        self.look()?;
        if !chaos && !moved && !self.world.busy() {
            self.wait();
        }
        Ok(moved)
    }

    /// Nothing to do but to wait for the next timer.
    fn wait(&mut self) {
        let readable = self.devices.iter().any(|d| d.nets().any(|net| self.world.readable(net)));
        if readable {
            return;
        }
        let ms = if self.devices.iter().all(Device::up) { 1000 } else { 50 };
        let soon_ns = self.world.now.mono_ns + ms * 1_000_000;
        let next_ns = self.world.next_event_ns().max(self.world.now.mono_ns + 1_000_000);
        self.leap(next_ns.min(soon_ns));
    }

    fn device(&mut self, d: usize) -> bool {
        let now_ms = self.world.now.mono_ms();
        let mut moved = false;
        let nets: Vec<_> = self.devices[d].nets().collect();
        for net in nets {
            if !self.world.readable(net) {
                continue;
            }
            let appetite = self.devices[d].appetite(&mut self.rng);
            let (packets, eof) = self.world.client_read(net, appetite);
            moved |= appetite > 0;
            for packet in packets {
                let acts = self.devices[d].on_packet(net, &packet, &mut self.rng);
                self.perform(d, acts);
            }
            if eof {
                let acts = self.devices[d].on_eof(net, now_ms);
                self.perform(d, acts);
            }
        }
        let acts = self.devices[d].act(&self.scenario, &mut self.numbers, &mut self.rng, now_ms);
        moved |= !acts.is_empty();
        self.perform(d, acts);
        moved
    }

    fn perform(&mut self, d: usize, acts: Vec<Act>) {
        let now_ms = self.world.now.mono_ms();
        for act in acts {
            self.log(|r| format!("{:>9} device {d}: {act:?}", r.world.now.mono_ms()));
            match act {
                Act::Open { shard, connect } => {
                    let net = self.world.open(d, connect.version, shard);
                    self.oracle.opened(net, d, self.world.stamp());
                    self.world.client_send(net, ToServer::Connect(connect.clone()));
                    self.devices[d].opened(net, connect, now_ms);
                    self.log(|_| format!("          device {d}: is connection #{net}"));
                }
                Act::Send(net, packet) => self.world.client_send(net, packet),
                Act::End(net, end) => self.world.client_end(net, end),
            }
        }
    }

    /// Shows the oracle what happened.
    fn look(&mut self) -> Result<(), Violation> {
        for (at, seen) in self.world.take_seen() {
            let shard = match &seen {
                Seen::Written { net, .. } => self.world.shard_of(*net),
                _ => 0,
            };
            if !matches!(seen, Seen::TurnDone { .. }) {
                self.log(|_| format!("{:>9} [{}/{}] {seen:?}", at.ms, at.step, at.epoch));
            }
            self.oracle.see(at, &seen, shard)?;
        }
        Ok(())
    }

    fn facts(&self) -> Facts {
        let mut f = Facts::default();
        for shard in 0..self.scenario.world.shards {
            let (c, g) = (self.world.machine(shard).counters(), self.world.machine(shard).gauges());
            f.matched += c.delivery_matched;
            f.completed += c.delivery_completed;
            f.returned += c.delivery_returned;
            f.dropped += c.delivery_dropped;
            f.queued += g.queued;
            f.connections += g.connections;
            f.inflight += g.inflight;
        }
        f
    }

    fn log(&mut self, line: impl FnOnce(&Self) -> String) {
        if self.trace.is_none() {
            return;
        }
        let line = line(self);
        if let Some(trace) = &mut self.trace {
            if trace.len() >= TRACE_MAX {
                trace.drain(..TRACE_MAX / 2);
            }
            trace.push(line);
        }
    }
}
