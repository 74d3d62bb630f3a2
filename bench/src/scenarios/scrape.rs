//! `scrape`: what it costs the others that somebody asks the broker how it is.

use std::io;
use std::path::Path;
use std::thread::sleep;
use std::time::{Duration, Instant};

use crate::admin;
use crate::scenario::{
    Against, Case, Cx, Failure, FigureKind, Figures, Scale, Scenario, Target, fails, less, target,
    traffic,
};

pub(crate) struct Scrape;

/// Prometheus asks every fifteen seconds by default; here it is ten times a second.
const EVERY: Duration = Duration::from_millis(100);
/// All clients are connected by then.
const CONNECT_MAX: Duration = Duration::from_secs(60);

impl Scenario for Scrape {
    fn name(&self) -> &'static str {
        "scrape"
    }

    fn about(&self) -> &'static str {
        "15,000 clients with paced traffic, scraped and asked for its state ten times a second, or left alone"
    }

    fn figures(&self) -> &'static [FigureKind] {
        const {
            &[
                less("us_per_scrape", "CPU µs/scrape", 0),
                less("scrape_ms", "answer ms", 1),
                less("scrape_max_ms", "longest ms", 1),
                less("scrape_kib", "KiB", 0),
                less("turn_us", "longest turn µs", 0),
                less("alone_turn_us", "alone", 0),
                less("p99_us", "p99 µs", 0),
                less("alone_p99_us", "alone", 0),
                less("p999_us", "p99.9 µs", 0),
                less("alone_p999_us", "alone", 0),
            ]
        }
    }

    fn cases(&self, scale: &Scale) -> Vec<Case> {
        let pairs = (scale.pick(15_000, 3_000)).min(scale.connections_max) / 2;
        vec![Case::of(format!("{} clients", pairs * 2), pairs)]
    }

    fn measure(&self, cx: &Cx<'_>, case: &Case) -> Result<Figures, Failure> {
        let (mut with, mut without) = (Round::default(), Round::default());
        // The second half of the rounds the other way round favours neither.
        for scraped in [true, false, false, true] {
            let sum = if scraped { &mut with } else { &mut without };
            sum.add(round(cx, case, scraped)?);
        }
        Ok(Figures::from([
            (
                "us_per_scrape",
                (with.cpu_us_per_s - without.cpu_us_per_s) / 2.0 * EVERY.as_secs_f64(),
            ),
            ("scrape_ms", with.scrapes.mean_ms()),
            ("scrape_max_ms", with.scrapes.longest_ms),
            ("scrape_kib", with.scrapes.mean_kib()),
            ("turn_us", with.turn_us),
            ("alone_turn_us", without.turn_us),
            ("p99_us", with.p99_us / 2.0),
            ("alone_p99_us", without.p99_us / 2.0),
            ("p999_us", with.p999_us / 2.0),
            ("alone_p999_us", without.p999_us / 2.0),
        ]))
    }

    fn targets(&self) -> &'static [Target] {
        // O01
        const { &[target("", "scrape_max_ms", Against::AtMost(50.0))] }
    }

    fn peers_take_part(&self) -> bool {
        false
    }
}

/// Sums of rounds, and the longest turn of all.
#[derive(Clone, Copy, Debug, Default)]
struct Round {
    scrapes: admin::Scrapes,
    turn_us: f64,
    cpu_us_per_s: f64,
    p99_us: f64,
    p999_us: f64,
}

impl Round {
    fn add(&mut self, other: Self) {
        self.scrapes.add(other.scrapes);
        self.turn_us = self.turn_us.max(other.turn_us);
        self.cpu_us_per_s += other.cpu_us_per_s;
        self.p99_us += other.p99_us;
        self.p999_us += other.p999_us;
    }
}

fn round(cx: &Cx<'_>, case: &Case, scraped: bool) -> Result<Round, Failure> {
    let mut server = cx.start()?;
    let Some(socket) = server.admin_socket() else { return fails("it has no socket to ask by") };
    let seconds: u64 = cx.scale.pick(10, 3);
    // Each publisher once in two seconds. The load outlasts the look at it.
    let args = format!("pair -c {} -s 42 -q 0 -I 2000 --warmup 2 -d {seconds}", case.count);
    let (report, watched) = std::thread::scope(|scope| {
        let watcher = scope.spawn(|| watch(&socket, 2 * case.count, scraped, seconds - 1));
        let report = cx.load_text(&mut server, &args);
        (report, watcher.join().expect("it does not panic"))
    });
    let report = report?;
    let mut round = watched.map_err(|e| Failure::Contender(format!("its admin socket: {e}")))?;
    let Some(measured) = report.traffic else { return fails("a run without traffic") };
    let cpu_ns = measured.broker_ns_per_message().unwrap_or(f64::NAN) * measured.delivered as f64;
    round.cpu_us_per_s = cpu_ns / 1000.0 / measured.seconds;
    let latencies = traffic::latencies(&report);
    let of = |name| latencies.get(name).copied().unwrap_or(f64::NAN);
    (round.p99_us, round.p999_us) = (of("p99_us"), of("p999_us"));
    Ok(round)
}

/// Waits until all are connected, then asks for so many seconds; once at their end, if it is not to be `scraped`.
fn watch(socket: &Path, connections: u32, scraped: bool, seconds: u64) -> io::Result<Round> {
    admin::wait_for(socket, connections, CONNECT_MAX)?;
    // What follows is about traffic, not about connecting.
    sleep(Duration::from_secs(1));
    admin::longest_turn_us(socket)?;
    let mut round = Round::default();
    let end = Instant::now() + Duration::from_secs(seconds);
    while Instant::now() < end {
        sleep(EVERY);
        if scraped {
            round.scrapes.scrape(socket)?;
            round.turn_us = round.turn_us.max(admin::longest_turn_us(socket)?);
        }
    }
    round.turn_us = round.turn_us.max(admin::longest_turn_us(socket)?);
    Ok(round)
}
