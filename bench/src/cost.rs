//! `cost`: bytes a connection, a subscription and an offline session take, and the CPU time of a
//! connect with a subscribe.
//!
//! Each figure comes from a fresh server process: anonymous memory (heap and stacks) after less
//! before, through the number of connections. A first wave of connections comes and goes before
//! anything is measured, so that what a server sets up once does not count. Offline sessions are
//! made in waves, which use the same connections' memory again.

use std::io;

use clap::Args;
use ringmain_load::cost::Sample;
use ringmain_load::report::Report;
use serde::Serialize;

use crate::contender::{Contender, Programs, Running};
use crate::load;
use crate::results::{self, Bench};
use crate::table::{Figure, order, render, verdict};

/// Targets, in bytes and µs.
const IDLE_MAX: f64 = 256.0;
const SUBSCRIPTION_MAX: f64 = 96.0;
const OFFLINE_MAX: f64 = 192.0;
const CONNECT_SUBSCRIBE_MAX: f64 = 9.0;
/// Connections that come and go before a measurement, and a wave of offline sessions.
const WAVE: u32 = 500;

/// `cost`
#[derive(Clone, Debug, Args)]
pub(crate) struct Cost {
    /// What all benchmarks share.
    #[command(flatten)]
    pub(crate) bench: Bench,
    /// Connections, 15,000 by default: below RLIMIT_NOFILE, which counts for mosquitto; a multiple
    /// of 500.
    #[arg(short = 'c', long)]
    count: Option<u32>,
    /// Shards of Ringmain.
    #[arg(long, default_value_t = 1)]
    shards: usize,
}

/// One round of one contender.
#[derive(Clone, Debug, Default, Serialize)]
struct Round {
    contender: String,
    round: usize,
    idle_bytes: f64,
    idle_pss_bytes: f64,
    subscription_bytes: f64,
    offline_bytes: f64,
    connect_us: f64,
    connect_subscribe_us: f64,
    /// Of `connect_subscribe_us`, by the kernel's ticks.
    connect_subscribe_user_us: f64,
    connect_subscribe_system_us: f64,
    disconnect_us: f64,
    generator_connect_subscribe_us: f64,
}

/// A contender's figures over all rounds.
#[derive(Debug, Serialize)]
struct Summary {
    contender: String,
    figures: Vec<(&'static str, Figure)>,
}

#[derive(Debug, Serialize)]
struct Outcome {
    connections: u32,
    targets: [(&'static str, f64); 4],
    summary: Vec<Summary>,
    rounds: Vec<Round>,
}

/// A figure of a round: its key, its name in the table, where it is, and the target.
type Row = (&'static str, &'static str, fn(&Round) -> f64, Option<f64>);

const ROWS: [Row; 10] = [
    ("idle_bytes", "idle connection, bytes", |r| r.idle_bytes, Some(IDLE_MAX)),
    ("idle_pss_bytes", "  the same by PSS", |r| r.idle_pss_bytes, None),
    (
        "subscription_bytes",
        "+ 1 subscription, bytes",
        |r| r.subscription_bytes,
        Some(SUBSCRIPTION_MAX),
    ),
    ("offline_bytes", "offline session, bytes", |r| r.offline_bytes, Some(OFFLINE_MAX)),
    ("connect_us", "connect, CPU µs", |r| r.connect_us, None),
    (
        CONNECT_SUBSCRIBE,
        "connect + subscribe, CPU µs",
        |r| r.connect_subscribe_us,
        Some(CONNECT_SUBSCRIBE_MAX),
    ),
    ("connect_subscribe_user_us", "  in the server", |r| r.connect_subscribe_user_us, None),
    ("connect_subscribe_system_us", "  in the kernel", |r| r.connect_subscribe_system_us, None),
    ("disconnect_us", "disconnect, CPU µs", |r| r.disconnect_us, None),
    (
        "generator_us",
        "the generator's connect + subscribe",
        |r| r.generator_connect_subscribe_us,
        None,
    ),
];
const CONNECT_SUBSCRIBE: &str = "connect_subscribe_us";

impl Cost {
    pub(crate) fn new(bench: Bench) -> Self {
        Self { bench, count: None, shards: 1 }
    }

    fn count(&self) -> u32 {
        self.count.unwrap_or(if self.bench.quick { 5_000 } else { 15_000 })
    }

    pub(crate) fn run(&self) -> io::Result<()> {
        if self.count() < WAVE || !self.count().is_multiple_of(WAVE) {
            return Err(io::Error::other(format!("--count is a multiple of {WAVE}")));
        }
        let programs = self.bench.programs()?;
        // The bare server takes part for what the kernel alone takes of a connect and a subscribe.
        let ringmain = Contender::Ringmain { shards: self.shards, set: vec![] };
        let mut contenders = self.bench.contenders(&ringmain)?;
        contenders.push(Contender::Floor);
        let mut rounds = Vec::new();
        let of = self.bench.rounds();
        for round in 0..of {
            for i in order(contenders.len(), round) {
                eprintln!("cost, round {} of {of}: {}", round + 1, contenders[i].name());
                rounds.push(self.round(&programs, &contenders[i], round)?);
            }
        }
        let summary: Vec<Summary> =
            contenders.iter().map(|c| summarize(&c.name(), &rounds)).collect();
        print!("{}", self.table(&summary));
        let targets = [
            ("idle_bytes", IDLE_MAX),
            ("subscription_bytes", SUBSCRIPTION_MAX),
            ("offline_bytes", OFFLINE_MAX),
            (CONNECT_SUBSCRIBE, CONNECT_SUBSCRIBE_MAX),
        ];
        let outcome = Outcome { connections: self.count(), targets, summary, rounds };
        results::write(self.bench.json.as_deref(), "cost", &outcome)
    }

    fn round(&self, programs: &Programs, c: &Contender, round: usize) -> io::Result<Round> {
        let count = self.count().to_string();
        let idle = self.measure(programs, c, &["conn", "-c", &count])?;
        // 20 bytes: "bench/idle/12345/all".
        let filter = "bench/idle/%i/all";
        let subscribed = self.measure(programs, c, &["conn", "-c", &count, "-t", filter])?;
        let (wave, waves) = (WAVE.to_string(), (self.count() / WAVE).to_string());
        let sessions = ["conn", "-c", &wave, "--cycles", &waves, "--fresh-ids", "--no-clean"];
        let offline = self.measure(programs, c, &sessions)?;
        let per = |total: f64| total / f64::from(self.count());
        let idle_bytes = per(grown(&idle, "start", "settled", |s| s.anonymous)?);
        let us = |report: &Report, from: &str, to: &str| -> io::Result<f64> {
            Ok(per(grown(report, from, to, |s| s.cpu_ns)?) / 1000.0)
        };
        let connect_subscribe_us = us(&subscribed, "start", "connected")?;
        // The ticks give the shares; the sum is exact.
        let user = grown(&subscribed, "start", "connected", |s| s.user_ms)?;
        let system = grown(&subscribed, "start", "connected", |s| s.system_ms)?;
        let in_server = connect_subscribe_us * user / (user + system).max(1.0);
        Ok(Round {
            contender: c.name(),
            round,
            idle_bytes,
            idle_pss_bytes: per(grown(&idle, "start", "settled", |s| s.pss)?),
            subscription_bytes: per(grown(&subscribed, "start", "settled", |s| s.anonymous)?)
                - idle_bytes,
            offline_bytes: per(grown(&offline, "start", "closed", |s| s.anonymous)?),
            connect_us: us(&idle, "start", "connected")?,
            connect_subscribe_us,
            connect_subscribe_user_us: in_server,
            connect_subscribe_system_us: connect_subscribe_us - in_server,
            disconnect_us: us(&subscribed, "settled", "closed")?,
            generator_connect_subscribe_us: per(subscribed.generator.connect_cpu_ns as f64)
                / 1000.0,
        })
    }

    /// One run against a fresh server that had its first wave.
    fn measure(&self, programs: &Programs, c: &Contender, args: &[&str]) -> io::Result<Report> {
        let server: Running = c.start(programs, self.bench.port)?;
        let wave = WAVE.to_string();
        load::run(
            programs,
            &server,
            &["conn", "-c", &wave, "--client-id", "w-%i", "--settle", "1"],
        )?;
        let args: Vec<&str> = args.iter().copied().chain(["--settle", "1.5"]).collect();
        load::run(programs, &server, &args)
    }

    fn table(&self, summary: &[Summary]) -> String {
        let mut header = vec![format!("median (least–most) of {} rounds", self.bench.rounds())];
        header.extend(summary.iter().map(|s| s.contender.clone()));
        header.push("target for ringmain".to_owned());
        let mut rows = vec![header];
        let ours = summary.iter().find(|s| s.contender.starts_with("ringmain"));
        for (key, name, _, target) in ROWS {
            let figure = |s: &Summary| s.figures.iter().find(|(k, _)| *k == key).map(|(_, f)| *f);
            let mut cells = vec![name.to_owned()];
            cells.extend(summary.iter().map(|s| figure(s).map_or(String::new(), |f| f.cell(1))));
            cells.push(match (ours.and_then(figure), target) {
                (Some(ours), Some(target)) => verdict(ours.median, target),
                (None, Some(target)) => format!("≤ {target}"),
                _ => String::new(),
            });
            rows.push(cells);
            if key == CONNECT_SUBSCRIBE {
                let floor = summary.iter().find(|s| s.contender == Contender::Floor.name());
                let floor = floor.and_then(figure).map_or(f64::NAN, |f| f.median);
                let above = |s: &Summary| {
                    figure(s).map_or(String::new(), |f| format!("{:.1}", f.median - floor))
                };
                let mut cells = vec!["  above the bare server".to_owned()];
                cells.extend(summary.iter().map(above));
                rows.push(cells);
            }
        }
        render(&rows)
    }
}

/// What a figure grew by from one moment to another.
fn grown(report: &Report, from: &str, to: &str, of: fn(&Sample) -> u64) -> io::Result<f64> {
    let at = |moment: &str| {
        report
            .broker_at(moment)
            .ok_or_else(|| io::Error::other(format!("the server was gone at `{moment}`")))
    };
    Ok(of(at(to)?) as f64 - of(at(from)?) as f64)
}

fn summarize(name: &str, rounds: &[Round]) -> Summary {
    let of = |figure: fn(&Round) -> f64| {
        let mine = rounds.iter().filter(|r| r.contender == name);
        Figure::of(&mine.map(figure).collect::<Vec<_>>())
    };
    let figures = ROWS.iter().map(|(key, _, figure, _)| (*key, of(*figure))).collect();
    Summary { contender: name.to_owned(), figures }
}
