//! The coordinator: starts the workers, leads them through the phases, and draws the conclusions.
//!
//! ```text
//! start ─ Connect ─ connected ─ (settle) ─ settled ─ Hold ─ held ─ Traffic ─ Drain ─ Close ─ closed
//! ```

use std::collections::HashMap;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crate::clock::process_cpu_ns;
use crate::cost::Sample;
use crate::environment::{Environment, pin_to};
use crate::plan::{Expect, Plan};
use crate::report::{Generator, Mark, Report, Summary, Traffic};
use crate::stamp::Account;
use crate::stats::{Counters, Latencies, Phase, Shared, WorkerResult};
use crate::worker::{Worker, global};

/// What happens around a plan.
#[derive(Clone, Debug)]
pub struct RunOptions {
    /// The broker's process, to sample its cost.
    pub broker_pid: Option<u32>,
    /// Wait after the last connection, and after the last close, before memory is looked at.
    pub settle: Duration,
    /// Keep the connections this long before traffic, or before they close.
    pub hold: Duration,
    /// Publish.
    pub traffic: Option<TrafficOptions>,
    /// Print progress every second.
    pub progress: bool,
    /// Losses and broken order do not spoil the run.
    pub allow_loss: bool,
}

/// How long traffic lasts.
#[derive(Clone, Copy, Debug)]
pub struct TrafficOptions {
    /// Not measured.
    pub warmup: Duration,
    /// Measured; `None` goes on until each publisher sent its limit.
    pub duration: Option<Duration>,
    /// How long deliveries may stand still at the end, before what is missing counts as lost.
    pub drain: Duration,
    /// Deliveries after which the run ends, where the publishers are in another process.
    pub deliveries: Option<u64>,
}

/// Set by SIGINT and SIGTERM: the run goes on to its close.
static INTERRUPTED: AtomicBool = AtomicBool::new(false);
/// How often the coordinator looks.
const LOOK_EVERY: Duration = Duration::from_millis(5);
/// A close that takes longer is a problem.
const CLOSE_MAX: Duration = Duration::from_secs(30);

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

/// Runs a plan.
///
/// # Errors
/// When the plan contradicts itself, the kernel lacks what a worker needs, or the broker's process
/// cannot be sampled. What goes wrong in the run itself is in the report.
pub fn run(plan: Plan, options: &RunOptions) -> io::Result<Report> {
    plan.check().map_err(|e| io::Error::new(io::ErrorKind::InvalidInput, e))?;
    let plan = Arc::new(plan);
    let mut lead = Lead::start(plan, options)?;
    lead.connect()?;
    lead.hold()?;
    if let Some(traffic) = options.traffic {
        lead.traffic(traffic)?;
    }
    lead.close()?;
    lead.report()
}

struct Lead<'a> {
    plan: Arc<Plan>,
    options: &'a RunOptions,
    shared: Arc<Shared>,
    workers: Vec<JoinHandle<io::Result<(usize, WorkerResult)>>>,
    began: Instant,
    cpu_before: u64,
    report: Report,
    printed: (Instant, Counters),
}

impl<'a> Lead<'a> {
    fn start(plan: Arc<Plan>, options: &'a RunOptions) -> io::Result<Self> {
        let shared = Arc::new(Shared::new(plan.workers));
        let mut report = Report {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            command: std::env::args().collect(),
            environment: Environment::here(),
            clients: plan.clients() as u64,
            workers: plan.workers,
            ..Report::default()
        };
        if let Some(pid) = options.broker_pid {
            let sample = Sample::of(pid)?;
            report.broker.push(Mark { moment: "start".to_owned(), sample });
        }
        let workers = (0..plan.workers)
            .map(|index| {
                let (plan, shared) = (plan.clone(), shared.clone());
                thread::Builder::new().name(format!("load-{index}")).spawn(move || {
                    if !plan.cpus.is_empty() {
                        pin_to(plan.cpus[index % plan.cpus.len()])?;
                    }
                    let worker = Worker::new(plan, shared, index)?;
                    let rings = worker.rings.len();
                    worker.run().map(|result| (rings, result))
                })
            })
            .collect::<io::Result<_>>()?;
        let now = Instant::now();
        let printed = (now, Counters::default());
        let cpu_before = process_cpu_ns();
        Ok(Self { plan, options, shared, workers, began: now, cpu_before, report, printed })
    }

    fn connect(&mut self) -> io::Result<()> {
        let cpu = process_cpu_ns();
        let clients = self.plan.clients() as u64;
        let churn = self.plan.is_churn();
        self.wait(
            None,
            |c| {
                if churn { c.finished >= clients } else { c.ready + c.failed >= clients }
            },
        );
        self.report.connect_s = self.began.elapsed().as_secs_f64();
        self.report.generator.connect_cpu_ns = process_cpu_ns() - cpu;
        self.mark("connected")?;
        self.pause(self.options.settle);
        self.report.generator.rss = Sample::of(std::process::id())?.rss;
        self.mark("settled")
    }

    fn hold(&mut self) -> io::Result<()> {
        if self.options.hold.is_zero() {
            return Ok(());
        }
        self.shared.set_phase(Phase::Hold);
        self.pause(self.options.hold);
        self.mark("held")
    }

    fn traffic(&mut self, options: TrafficOptions) -> io::Result<()> {
        self.shared.set_phase(Phase::Traffic);
        if !options.warmup.is_zero() {
            self.pause(options.warmup);
            self.shared.measure_epoch.fetch_add(1, Ordering::Release);
        }
        self.mark("traffic-begin")?;
        let (since, cpu, before) = (Instant::now(), process_cpu_ns(), self.shared.total());
        let publishers: u64 = self
            .plan
            .populations
            .iter()
            .filter(|p| p.publish.is_some())
            .map(|p| u64::from(p.count))
            .sum();
        let enough = |c: &Counters| match (options.duration, options.deliveries) {
            (Some(_), None) => false,
            (_, Some(deliveries)) => c.delivered >= deliveries,
            (None, None) => c.publishers_done >= publishers,
        };
        self.wait_while_moving(options.duration, options.drain, enough);
        if options.duration.is_none() && options.deliveries.is_none() {
            // Measure until the last message arrived.
            self.drain(options.drain);
        }
        let after = self.shared.total();
        self.mark("traffic-end")?;
        let seconds = since.elapsed().as_secs_f64();
        let cpu_between = |r: &Report| {
            let end = r.broker_at("traffic-end")?.cpu_ns;
            Some(end.saturating_sub(r.broker_at("traffic-begin")?.cpu_ns))
        };
        self.report.traffic = Some(Traffic {
            seconds,
            sent: after.sent - before.sent,
            delivered: after.delivered - before.delivered,
            broker_cpu_ns: cpu_between(&self.report),
            generator_cpu_ns: process_cpu_ns() - cpu,
        });
        self.drain(options.drain);
        Ok(())
    }

    /// Waits for what is on its way; gives up when nothing moves for `patience`.
    fn drain(&mut self, patience: Duration) {
        self.shared.set_phase(Phase::Drain);
        let fan_out = self.fan_out();
        let handshakes = self.plan.populations.iter().filter_map(|p| p.publish.as_ref());
        let acked = handshakes.clone().any(|p| p.qos as u8 > 0);
        // Counters are up to 10 ms old: let them settle once.
        thread::sleep(Duration::from_millis(30));
        self.wait_while_moving(None, patience, |c| {
            let all_delivered = fan_out.is_none_or(|n| c.delivered >= c.sent * n);
            all_delivered && (!acked || c.acked >= c.sent)
        });
    }

    /// How many deliveries a message makes, where a population expects them.
    fn fan_out(&self) -> Option<u64> {
        self.plan.populations.iter().find_map(|p| match p.expect {
            Expect::Peer(_) => Some(1),
            Expect::All(_) => Some(u64::from(p.count)),
            Expect::None | Expect::Stream => None,
        })
    }

    fn close(&mut self) -> io::Result<()> {
        let live = self.shared.total().live;
        self.shared.set_phase(Phase::Close);
        let clients = self.plan.clients() as u64;
        self.wait(Some(CLOSE_MAX), |c| c.finished >= clients);
        let open = clients.saturating_sub(self.shared.total().finished);
        if open > 0 {
            self.report.problems.push(format!("{open} connections did not close"));
        }
        if live > 0 || self.plan.is_churn() {
            self.pause(self.options.settle);
        }
        self.mark("closed")
    }

    fn mark(&mut self, moment: &str) -> io::Result<()> {
        let Some(pid) = self.options.broker_pid else { return Ok(()) };
        match Sample::of(pid) {
            Ok(sample) => {
                self.report.broker.push(Mark { moment: moment.to_owned(), sample });
            }
            Err(e) => self.report.problems.push(format!("the broker's process is gone: {e}")),
        }
        Ok(())
    }

    fn pause(&mut self, time: Duration) {
        self.wait(Some(time), |_| false);
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
        loop {
            let counters = self.shared.total();
            if done(&counters) || self.stopped() {
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
            self.progress(now, counters);
            thread::sleep(LOOK_EVERY.min(limit.unwrap_or(LOOK_EVERY)));
        }
    }

    fn stopped(&self) -> bool {
        INTERRUPTED.load(Ordering::Relaxed) || self.workers.iter().any(JoinHandle::is_finished)
    }

    fn progress(&mut self, now: Instant, counters: Counters) {
        let (then, before) = &self.printed;
        if !self.options.progress || now - *then < Duration::from_secs(1) {
            return;
        }
        let seconds = (now - *then).as_secs_f64();
        let rate = |now: u64, then: u64| (now - then) as f64 / seconds;
        eprintln!(
            "{:6.1} s  {:?}: {} live (+{:.0}/s), {} failed, {:.0} sent/s, {:.0} delivered/s",
            self.began.elapsed().as_secs_f64(),
            self.shared.phase(),
            counters.live,
            rate(counters.ready, before.ready),
            counters.failed,
            rate(counters.sent, before.sent),
            rate(counters.delivered, before.delivered),
        );
        self.printed = (now, counters);
    }

    fn report(mut self) -> io::Result<Report> {
        self.shared.set_phase(Phase::Stop);
        let mut results = Vec::new();
        for worker in std::mem::take(&mut self.workers) {
            let joined = worker.join().map_err(|_| io::Error::other("a worker panicked"))?;
            let (rings, result) = joined?;
            self.report.rings += rings;
            results.push(result);
        }
        let mut latencies = Latencies::default();
        for result in &results {
            self.report.counters.add(&result.counters);
            latencies.add(&result.latencies);
            for (what, count) in &result.faults {
                *self.report.faults.entry(what.clone()).or_default() += count;
            }
        }
        self.report.account = account(&self.plan, &results);
        for (name, histogram) in [
            ("connect", &latencies.connect),
            ("subscribe", &latencies.subscribe),
            ("ack", &latencies.ack),
            ("delivery", &latencies.delivery),
        ] {
            self.report.latencies.insert(name.to_owned(), Summary::from(histogram));
        }
        let cpu_ns = process_cpu_ns() - self.cpu_before;
        self.report.generator = Generator { cpu_ns, ..self.report.generator };
        self.judge();
        Ok(self.report)
    }

    fn judge(&mut self) {
        let c = &self.report.counters;
        let wanted = self.report.clients * u64::from(self.plan.cycles);
        let mut problem = |bad: bool, what: String| {
            if bad {
                self.report.problems.push(what);
            }
        };
        problem(INTERRUPTED.load(Ordering::Relaxed), "interrupted".to_owned());
        problem(c.ready < wanted, format!("{} of {wanted} connections became ready", c.ready));
        problem(c.broken > 0, format!("{} connections broke", c.broken));
        problem(c.protocol_errors > 0, format!("{} protocol errors", c.protocol_errors));
        problem(c.pings_unanswered > 0, format!("{} pings unanswered", c.pings_unanswered));
        problem(c.refused_messages > 0, format!("{} messages refused", c.refused_messages));
        let Some(a) = self.report.account.filter(|_| !self.options.allow_loss) else { return };
        problem(a.lost > 0, format!("{} messages lost", a.lost));
        problem(a.duplicates > 0, format!("{} duplicates", a.duplicates));
        problem(a.out_of_order > 0, format!("{} messages out of order", a.out_of_order));
        problem(a.unsent > 0, format!("{} messages that nobody sent", a.unsent));
    }
}

/// Compares what publishers sent with what each subscriber got.
fn account(plan: &Plan, results: &[WorkerResult]) -> Option<Account> {
    if plan.populations.iter().all(|p| p.expect == Expect::None) {
        return None;
    }
    let sent: HashMap<u32, u32> = results.iter().flat_map(|r| r.sent.iter().copied()).collect();
    let sent_by = |publisher| Some(sent.get(&publisher).copied().unwrap_or(0));
    let mut total = Account::default();
    for (population, number, flows) in results.iter().flat_map(|r| &r.flows) {
        let mut check = |publisher: u32| {
            let flow = flows.get(publisher).cloned().unwrap_or_default();
            total.add(&flow.account(sent_by(publisher)));
        };
        match plan.populations[usize::from(*population)].expect {
            Expect::None => {}
            Expect::Stream => {
                flows.iter().for_each(|(_, flow)| total.add(&flow.account(None)));
            }
            Expect::Peer(peer) => check(global(plan, peer, *number)),
            Expect::All(publishers) => {
                let count = plan.populations[usize::from(publishers)].count;
                (0..count).for_each(|n| check(global(plan, publishers, n)));
            }
        }
    }
    Some(total)
}
