//! The coordinator: starts the workers, leads them through the stages, and draws the conclusions.
//!
//! ```text
//! stage:  order ─▶ all workers have begun it ─▶ wait for what ends it ─▶ order Drain ─▶ next
//!         every 250 ms: collect counters and histograms ─▶ snapshot ─▶ observer
//! ```

mod figures;

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crate::account::{self, WorkerResult};
use crate::clock::process_cpu_ns;
use crate::cost::{Sample, Sampler};
use crate::environment::{Environment, pin_to};
use crate::judge::Judge;
use crate::plan::{Plan, Stage};
use crate::report::{Generator, Mark, Report, StageReport, Traffic};
use crate::snapshot::{Rates, Snapshot};
use crate::stats::{Counters, Latencies, Order, Shared};
use crate::worker::Worker;
use figures::{latencies, row};

/// What happens around a plan.
#[derive(Clone, Debug, Default)]
pub struct RunOptions {
    /// The broker's process, to sample its cost.
    pub broker_pid: Option<u32>,
    /// Wait after the last connection, and after the last close, before memory is looked at.
    pub settle: Duration,
    /// Whether the caller is to show progress; the run itself prints nothing.
    pub progress: bool,
    /// Losses and broken order do not spoil the run.
    pub allow_loss: bool,
}

/// How often the observer gets a [`Snapshot`].
pub const SNAPSHOT_EVERY: Duration = Duration::from_millis(250);
/// Set by SIGINT and SIGTERM: the run goes on to its close.
static INTERRUPTED: AtomicBool = AtomicBool::new(false);
/// How often the coordinator looks.
const LOOK_EVERY: Duration = Duration::from_millis(5);
/// A close that takes longer, beyond a minute per million connections, is a problem.
const CLOSE_MAX: Duration = Duration::from_secs(30);
/// Clients of a churn that are away at its end may take this long to come back.
const RETURN_MAX: Duration = Duration::from_secs(60);

/// Makes SIGINT and SIGTERM end a run in good order.
pub fn catch_signals() {
    extern "C" fn note(_: libc::c_int) {
        INTERRUPTED.store(true, Ordering::Relaxed);
    }
    for signal in [libc::SIGINT, libc::SIGTERM] {
        // SAFETY: the handler stores to an atomic and does nothing else.
        unsafe { libc::signal(signal, note as extern "C" fn(libc::c_int) as libc::sighandler_t) };
    }
}

/// Ends the runs of this process in good order, as SIGINT does.
pub fn interrupt() {
    INTERRUPTED.store(true, Ordering::Relaxed);
}

/// Lets the next run of this process run to its end.
pub(crate) fn forget_interrupt() {
    INTERRUPTED.store(false, Ordering::Relaxed);
}

/// Whether a run of this process was interrupted.
#[must_use]
pub fn interrupted() -> bool {
    INTERRUPTED.load(Ordering::Relaxed)
}

/// Runs a plan. The observer is called on this thread, and holds the run's clockwork up for as
/// long as it takes.
///
/// # Errors
/// When the plan contradicts itself, the kernel lacks what a worker needs, or the broker's process
/// cannot be sampled. What goes wrong in the run itself is in the report.
pub fn run(
    plan: Plan,
    options: &RunOptions,
    observer: &mut dyn FnMut(&Snapshot),
) -> io::Result<Report> {
    plan.check().map_err(|e| io::Error::new(io::ErrorKind::InvalidInput, e))?;
    let plan = Arc::new(plan);
    run_checked(&plan, options, observer).map(|(report, _)| report)
}

/// Runs a part of a plan and says what the check of the whole needs.
///
/// # Errors
/// As [`run`].
pub(crate) fn run_part(
    plan: Plan,
    options: &RunOptions,
    observer: &mut dyn FnMut(&Snapshot),
) -> io::Result<(Report, Vec<WorkerResult>)> {
    plan.check().map_err(|e| io::Error::new(io::ErrorKind::InvalidInput, e))?;
    run_checked(&Arc::new(plan), options, observer)
}

fn run_checked(
    plan: &Arc<Plan>,
    options: &RunOptions,
    observer: &mut dyn FnMut(&Snapshot),
) -> io::Result<(Report, Vec<WorkerResult>)> {
    let mut lead = Lead::start(plan.clone(), options, observer)?;
    for (index, stage) in plan.stages.iter().enumerate() {
        if !interrupted() || stage.stage == Stage::Close {
            lead.stage(index, &stage.stage)?;
        }
    }
    lead.report()
}

struct Lead<'a> {
    plan: Arc<Plan>,
    options: &'a RunOptions,
    /// Looks at the broker for snapshots.
    sampler: Option<Sampler>,
    observer: &'a mut dyn FnMut(&Snapshot),
    shared: Arc<Shared>,
    workers: Vec<JoinHandle<io::Result<WorkerResult>>>,
    began: Instant,
    cpu_before: u64,
    report: Report,
    judge: Judge,
    measured: Measured,
    stage: StageNow,
    last: Look,
}

/// Latencies at three depths.
#[derive(Default)]
struct Measured {
    interval: Box<Latencies>,
    stage: Box<Latencies>,
    total: Box<Latencies>,
}

/// The stage that runs.
struct StageNow {
    index: usize,
    began: Instant,
    planned: Option<Duration>,
    /// Where measuring began.
    since: Instant,
    counters: Counters,
    cpu: u64,
    broker: Option<Sample>,
}

/// What the last snapshot saw.
struct Look {
    at: Instant,
    counters: Counters,
    cpu: u64,
    broker: Option<Sample>,
}

impl<'a> Lead<'a> {
    fn start(
        plan: Arc<Plan>,
        options: &'a RunOptions,
        observer: &'a mut dyn FnMut(&Snapshot),
    ) -> io::Result<Self> {
        let shared = Arc::new(Shared::new(plan.workers));
        let mut report = Report {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            command: std::env::args().collect(),
            environment: Environment::here(),
            clients: plan.clients() as u64,
            workers: plan.workers,
            seed: plan.seed,
            ..Report::default()
        };
        let mut broker = None;
        if let Some(pid) = options.broker_pid {
            let sample = Sample::of(pid)?;
            broker = Some(sample.clone());
            report.broker.push(Mark { moment: "start".to_owned(), sample });
        }
        let workers = (0..plan.workers)
            .map(|index| {
                let (plan, shared) = (plan.clone(), shared.clone());
                thread::Builder::new()
                    .name(format!("load-{index}"))
                    .spawn(move || work(plan, shared, index))
            })
            .collect::<io::Result<_>>()?;
        let now = Instant::now();
        let (cpu, counters) = (process_cpu_ns(), Counters::default());
        let stage = StageNow {
            index: 0,
            began: now,
            planned: None,
            since: now,
            counters: counters.clone(),
            cpu,
            broker: broker.clone(),
        };
        Ok(Self {
            options,
            sampler: options.broker_pid.map(Sampler::new),
            observer,
            shared,
            workers,
            began: now,
            cpu_before: cpu,
            report,
            judge: Judge::new(&plan),
            measured: Measured::default(),
            stage,
            last: Look { at: now, counters, cpu, broker },
            plan,
        })
    }

    fn stage(&mut self, index: usize, stage: &Stage) -> io::Result<()> {
        let now = Instant::now();
        self.stage = StageNow {
            index,
            began: now,
            planned: planned(stage),
            since: now,
            counters: self.shared.total(),
            cpu: process_cpu_ns(),
            broker: self.sample(),
        };
        self.measured.stage.reset();
        let at_once = match stage {
            Stage::Traffic { warmup, .. } => warmup.is_zero(),
            stage => matches!(stage, Stage::Churn { .. }),
        };
        if at_once {
            // A short run may be over before a later look.
            self.begin_to_measure();
        }
        let order = self.shared.give(Order::Stage(index as u32));
        self.wait_for(order);
        match *stage {
            Stage::Connect { .. } => self.connect()?,
            Stage::Hold { duration } => {
                self.pause(duration);
                self.mark("held");
            }
            Stage::Traffic { warmup, duration, drain, deliveries, ref populations } => {
                self.traffic(warmup, duration, drain, deliveries, populations);
                return Ok(());
            }
            Stage::Drain { patience } => self.wait_while_moving(None, patience, |_| false),
            Stage::Offline { .. } => {
                self.wait(Some(self.close_max()), |c| c.closing == 0);
            }
            Stage::Storm { .. } => {
                self.wait(None, |c| c.closing + c.waiting + c.opening == 0);
            }
            Stage::Churn { duration, drain, .. } => {
                self.churn(duration, drain);
                return Ok(());
            }
            Stage::Close => self.close(),
        }
        self.end_stage(matches!(stage, Stage::Storm { .. }));
        Ok(())
    }

    fn connect(&mut self) -> io::Result<()> {
        self.wait(None, |c| c.waiting + c.opening + c.closing == 0);
        if self.report.connect_s == 0.0 {
            self.report.connect_s = self.began.elapsed().as_secs_f64();
            self.report.generator.connect_cpu_ns = process_cpu_ns() - self.cpu_before;
        }
        self.mark("connected");
        self.pause(self.options.settle);
        self.report.generator.rss = Sample::of(std::process::id())?.rss;
        self.mark("settled");
        Ok(())
    }

    /// Begins to measure: what was measured before is forgotten.
    fn begin_to_measure(&mut self) {
        let order = self.shared.give(Order::Measure);
        self.wait_for(order);
        let interval = &mut self.measured.interval;
        self.shared.collect(|l| interval.add(l));
        self.measured.interval.reset_messages();
        self.measured.stage.reset_messages();
        self.measured.total.reset_messages();
        self.mark_again("traffic-begin");
        self.stage.since = Instant::now();
        self.stage.counters = self.shared.total();
        self.stage.cpu = process_cpu_ns();
        self.stage.broker = self.sample();
        self.judge.begin(&self.shared);
    }

    fn traffic(
        &mut self,
        warmup: Duration,
        duration: Option<Duration>,
        drain: Duration,
        deliveries: Option<u64>,
        populations: &[u16],
    ) {
        if !warmup.is_zero() {
            self.pause(warmup);
            self.begin_to_measure();
        }
        let publishers: u64 = publishing(&self.plan, populations).sum();
        let delivered = self.stage.counters.delivered;
        let enough = |c: &Counters| match (duration, deliveries) {
            (Some(_), None) => false,
            (_, Some(deliveries)) => c.delivered - delivered >= deliveries,
            (None, None) => c.publishers_done >= publishers,
        };
        self.wait_while_moving(duration, drain, enough);
        if duration.is_none() && deliveries.is_none() {
            // Measure until the last message arrived.
            self.drain(drain);
        }
        self.end_traffic();
        self.drain(drain);
        self.end_stage(false);
    }

    /// The measured part is over.
    fn end_traffic(&mut self) {
        let seconds = self.stage.since.elapsed().as_secs_f64();
        let delta = self.shared.total().since(&self.stage.counters);
        let generator_cpu_ns = process_cpu_ns() - self.stage.cpu;
        self.mark_again("traffic-end");
        let cpu_between = |r: &Report| {
            let end = r.broker_at("traffic-end")?.cpu_ns;
            Some(end.saturating_sub(r.broker_at("traffic-begin")?.cpu_ns))
        };
        self.report.traffic = Some(Traffic {
            seconds,
            sent: delta.sent,
            delivered: delta.delivered,
            broker_cpu_ns: cpu_between(&self.report),
            generator_cpu_ns,
        });
    }

    fn churn(&mut self, duration: Duration, drain: Duration) {
        self.pause(duration);
        self.end_traffic();
        let order = self.shared.give(Order::Drain);
        self.wait_for(order);
        self.wait(Some(RETURN_MAX), |c| c.waiting + c.opening + c.closing == 0);
        self.drain(drain);
        self.end_stage(false);
    }

    /// Waits for what is on its way; gives up when nothing moves for `patience`.
    fn drain(&mut self, patience: Duration) {
        let order = self.shared.give(Order::Drain);
        self.wait_for(order);
        let fan_out = account::fan_out(&self.plan);
        let handshakes = self.plan.populations.iter().filter_map(|p| p.publish.as_ref());
        let acked = handshakes.clone().any(|p| p.qos as u8 > 0);
        self.wait_while_moving(None, patience, |c| {
            let all_delivered = fan_out.is_none_or(|n| c.delivered >= c.sent * n);
            all_delivered && (!acked || c.acked >= c.sent)
        });
    }

    fn close(&mut self) {
        let live = self.stage.counters.live;
        // On a busy machine a million take their time: as long as they become fewer, it goes on.
        let open = |c: &Counters| c.closing + c.opening + c.live;
        let mut left = u64::MAX;
        while (1..left).contains(&open(&self.shared.total())) {
            left = open(&self.shared.total());
            self.wait(Some(CLOSE_MAX), |c| open(c) == 0);
        }
        let c = self.shared.total();
        let open = c.closing + c.opening + c.live;
        if open > 0 {
            self.report.problems.push(format!("{open} connections did not close"));
        }
        if live > 0 || self.plan.cycles_on() {
            self.pause(self.options.settle);
        }
        self.mark("closed");
    }

    fn close_max(&self) -> Duration {
        CLOSE_MAX + Duration::from_micros(60) * self.plan.clients() as u32
    }

    /// Writes the stage into the report and tells the observer.
    fn end_stage(&mut self, storm: bool) {
        self.snapshot(true);
        let stage = &self.plan.stages[self.stage.index];
        let elapsed = self.stage.began.elapsed().as_secs_f64();
        let measured = self
            .report
            .traffic
            .filter(|_| matches!(stage.stage, Stage::Traffic { .. } | Stage::Churn { .. }));
        let (name, kind) = (stage.name.clone(), stage.stage.kind().to_owned());
        if matches!(stage.stage, Stage::Traffic { .. } | Stage::Churn { .. }) {
            self.judge.end(&name, &self.shared, &self.measured.stage, &self.stage.counters);
        }
        let report = StageReport {
            name,
            kind,
            start_s: (self.stage.began - self.began).as_secs_f64(),
            seconds: measured.map_or(elapsed, |t| t.seconds),
            counters: self.last.counters.since(&self.stage.counters),
            latencies: latencies(&self.measured.stage, false),
            broker_before: self.stage.broker.take(),
            broker_after: self.sample(),
            generator_cpu_ns: measured
                .map_or_else(|| process_cpu_ns() - self.stage.cpu, |t| t.generator_cpu_ns),
            recovery_s: storm.then_some(elapsed),
        };
        self.report.stages.push(report);
    }

    fn sample(&mut self) -> Option<Sample> {
        let pid = self.options.broker_pid?;
        match Sample::of(pid) {
            Ok(sample) => Some(sample),
            Err(e) => {
                let gone = format!("the broker's process is gone: {e}");
                if !self.report.problems.contains(&gone) {
                    self.report.problems.push(gone);
                }
                None
            }
        }
    }

    /// Keeps the broker's sample of the first such moment.
    fn mark(&mut self, moment: &str) {
        if self.report.broker_at(moment).is_none() {
            self.mark_again(moment);
        }
    }

    /// Keeps the broker's sample of the last such moment.
    fn mark_again(&mut self, moment: &str) {
        let Some(sample) = self.sample() else { return };
        self.report.broker.retain(|m| m.moment != moment);
        self.report.broker.push(Mark { moment: moment.to_owned(), sample });
    }

    /// Waits until all workers have begun an order.
    fn wait_for(&mut self, order: u32) {
        let shared = self.shared.clone();
        while !shared.begun(order) && !self.workers.iter().any(JoinHandle::is_finished) {
            self.look();
            thread::sleep(Duration::from_millis(1));
        }
    }

    fn pause(&mut self, time: Duration) {
        if !time.is_zero() {
            self.wait(Some(time), |_| false);
        }
    }

    /// Waits until `done`, for at most `limit`.
    fn wait(&mut self, limit: Option<Duration>, done: impl Fn(&Counters) -> bool) {
        self.wait_while_moving(limit, Duration::MAX, done);
    }

    /// Waits until `done`, for at most `limit`, and while the messages move at least once in
    /// `patience`.
    fn wait_while_moving(
        &mut self,
        limit: Option<Duration>,
        patience: Duration,
        done: impl Fn(&Counters) -> bool,
    ) {
        let since = Instant::now();
        let mut moved = (since, 0);
        let closing = self.plan.stages[self.stage.index].stage == Stage::Close;
        loop {
            let counters = self.shared.total();
            let stopped = interrupted() && !closing;
            if done(&counters) || stopped || self.workers.iter().any(JoinHandle::is_finished) {
                return;
            }
            let now = Instant::now();
            if limit.is_some_and(|limit| now - since >= limit) {
                return;
            }
            let sum = counters.sent + counters.delivered + counters.acked;
            if sum != moved.1 {
                moved = (now, sum);
            } else if now - moved.0 >= patience {
                return;
            }
            self.look();
            thread::sleep(LOOK_EVERY.min(limit.unwrap_or(LOOK_EVERY)));
        }
    }

    fn look(&mut self) {
        if self.last.at.elapsed() >= SNAPSHOT_EVERY {
            self.snapshot(false);
        }
    }

    /// Collects what the workers did since the last look, and tells the observer.
    fn snapshot(&mut self, stage_ended: bool) {
        let now = Instant::now();
        let seconds = (now - self.last.at).as_secs_f64().max(1e-9);
        let (counters, cpu) = (self.shared.total(), process_cpu_ns());
        let broker = self.sampler.as_mut().and_then(|s| s.sample().ok().cloned());
        let Measured { interval, stage, total } = &mut self.measured;
        self.shared.collect(|l| interval.add(l));
        stage.add(interval);
        total.add(interval);
        self.judge.look();
        let delta = counters.since(&self.last.counters);
        let rate = |n: u64| n as f64 / seconds;
        let share = |ns: u64| ns as f64 / 1e9 / seconds;
        let broker_cpu = broker
            .as_ref()
            .and_then(|b| Some(share(b.cpu_ns.saturating_sub(self.last.broker.as_ref()?.cpu_ns))));
        let plan = &self.plan.stages[self.stage.index];
        let snapshot = Snapshot {
            elapsed: now - self.began,
            stage: self.stage.index,
            stage_name: plan.name.clone(),
            stage_kind: plan.stage.kind().to_owned(),
            stage_elapsed: now - self.stage.began,
            stage_planned: self.stage.planned,
            stage_ended,
            clients: self.report.clients,
            rates: Rates {
                attempts: rate(delta.attempts),
                ready: rate(delta.ready),
                sent: rate(delta.sent),
                delivered: rate(delta.delivered),
                acked: rate(delta.acked),
            },
            interval: latencies(interval, false),
            cumulative: latencies(total, false),
            generator_cpu: share(cpu - self.last.cpu),
            broker,
            broker_cpu,
            void: self.judge.void(&self.shared, stage, &counters, &self.stage.counters),
            counters,
        };
        interval.reset();
        self.report.series.push(row(&snapshot));
        (self.observer)(&snapshot);
        let Snapshot { counters, broker, .. } = snapshot;
        self.last = Look { at: now, counters, cpu, broker };
    }

    fn report(mut self) -> io::Result<(Report, Vec<WorkerResult>)> {
        self.shared.give(Order::Stop);
        let mut results = Vec::new();
        for worker in std::mem::take(&mut self.workers) {
            let result = worker.join().map_err(|_| io::Error::other("a worker panicked"))??;
            self.report.rings += result.rings;
            for (what, count) in &result.faults {
                *self.report.faults.entry(what.clone()).or_default() += count;
            }
            results.push(result);
        }
        self.report.counters = self.shared.total();
        self.report.account = account::account(&self.plan, &results);
        let total = &mut self.measured.total;
        self.shared.collect(|l| total.add(l));
        self.report.latencies = latencies(total, true);
        self.report.generator.cpu_ns = process_cpu_ns() - self.cpu_before;
        self.report.generator = Generator { ..self.report.generator };
        self.judge.conclude(&mut self.report, &self.plan, self.options.allow_loss);
        Ok((self.report, results))
    }
}

/// The life of a worker's thread.
fn work(plan: Arc<Plan>, shared: Arc<Shared>, index: usize) -> io::Result<WorkerResult> {
    if !plan.cpus.is_empty() {
        pin_to(plan.cpus[index % plan.cpus.len()])?;
    }
    Worker::new(plan, shared, index)?.run()
}

/// How long a stage will take, where that is known.
fn planned(stage: &Stage) -> Option<Duration> {
    match *stage {
        Stage::Hold { duration } | Stage::Churn { duration, .. } => Some(duration),
        Stage::Traffic { warmup, duration, .. } => Some(warmup + duration?),
        _ => None,
    }
}

/// The clients of each population that publishes in a stage.
fn publishing<'a>(plan: &'a Plan, only: &'a [u16]) -> impl Iterator<Item = u64> + 'a {
    plan.populations.iter().enumerate().filter_map(move |(i, p)| {
        let chosen = only.is_empty() || only.contains(&(i as u16));
        (p.publish.is_some() && chosen).then_some(u64::from(p.count))
    })
}

/// An observer that prints a line a second, as long as `shown`.
pub fn plain_lines(shown: bool) -> impl FnMut(&Snapshot) {
    let mut printed = Duration::ZERO;
    move |s: &Snapshot| {
        if !shown || s.elapsed - printed < Duration::from_secs(1) {
            return;
        }
        printed = s.elapsed;
        eprintln!(
            "{:6.1} s  {}: {} live (+{:.0}/s), {} failed, {:.0} sent/s, {:.0} delivered/s",
            s.elapsed.as_secs_f64(),
            s.stage_name,
            s.counters.live,
            s.rates.ready,
            s.counters.failed,
            s.rates.sent,
            s.rates.delivered,
        );
    }
}
