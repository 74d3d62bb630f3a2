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
use crate::table::{median, order, render, verdict};

/// Targets, in bytes and µs.
const IDLE_MAX: f64 = 256.0;
const SUBSCRIPTION_MAX: f64 = 96.0;
const OFFLINE_MAX: f64 = 192.0;
const CONNECT_SUBSCRIBE_MAX: f64 = 9.0;
/// Connections that come and go before a measurement, and a wave of offline sessions.
const WAVE: u32 = 500;

/// `cost`
#[derive(Debug, Args)]
pub(crate) struct Cost {
    /// What all benchmarks share.
    #[command(flatten)]
    bench: Bench,
    /// Connections: below RLIMIT_NOFILE, which counts for mosquitto; a multiple of 500.
    #[arg(short = 'c', long, default_value_t = 15_000)]
    count: u32,
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
    generator_connect_subscribe_us: f64,
}

#[derive(Debug, Serialize)]
struct Outcome {
    connections: u32,
    targets: [(&'static str, f64); 4],
    medians: Vec<Round>,
    rounds: Vec<Round>,
}

impl Cost {
    pub(crate) fn run(&self) -> io::Result<()> {
        if self.count < WAVE || !self.count.is_multiple_of(WAVE) {
            return Err(io::Error::other(format!("--count is a multiple of {WAVE}")));
        }
        let programs = self.bench.programs()?;
        // The bare server takes part for what the kernel alone takes of a connect and a subscribe.
        let ringmain = Contender::Ringmain { shards: self.shards, set: vec![] };
        let mut contenders = self.bench.contenders(&ringmain)?;
        contenders.push(Contender::Floor);
        let mut rounds = Vec::new();
        for round in 0..self.bench.rounds {
            for i in order(contenders.len(), round) {
                eprintln!("round {} of {}: {}", round + 1, self.bench.rounds, contenders[i].name());
                rounds.push(self.round(&programs, &contenders[i], round)?);
            }
        }
        let medians: Vec<Round> =
            contenders.iter().map(|c| summarize(&c.name(), &rounds)).collect();
        print!("{}", self.table(&medians));
        let targets = [
            ("idle_bytes", IDLE_MAX),
            ("subscription_bytes", SUBSCRIPTION_MAX),
            ("offline_bytes", OFFLINE_MAX),
            ("connect_subscribe_us", CONNECT_SUBSCRIBE_MAX),
        ];
        let outcome = Outcome { connections: self.count, targets, medians, rounds };
        results::write(self.bench.json.as_deref(), "cost", &outcome)
    }

    fn round(&self, programs: &Programs, c: &Contender, round: usize) -> io::Result<Round> {
        let count = self.count.to_string();
        let idle = self.measure(programs, c, &["conn", "-c", &count])?;
        // 20 bytes: "bench/idle/12345/all".
        let filter = "bench/idle/%i/all";
        let subscribed = self.measure(programs, c, &["conn", "-c", &count, "-t", filter])?;
        let (wave, waves) = (WAVE.to_string(), (self.count / WAVE).to_string());
        let sessions = ["conn", "-c", &wave, "--cycles", &waves, "--fresh-ids", "--no-clean"];
        let offline = self.measure(programs, c, &sessions)?;
        let per = |bytes: f64| bytes / f64::from(self.count);
        let idle_bytes = per(grown(&idle, "settled", |s| s.anonymous)?);
        let us = |report: &Report| -> io::Result<f64> {
            Ok(per(grown(report, "connected", |s| s.cpu_ns)?) / 1000.0)
        };
        Ok(Round {
            contender: c.name(),
            round,
            idle_bytes,
            idle_pss_bytes: per(grown(&idle, "settled", |s| s.pss)?),
            subscription_bytes: per(grown(&subscribed, "settled", |s| s.anonymous)?) - idle_bytes,
            offline_bytes: per(grown(&offline, "closed", |s| s.anonymous)?),
            connect_us: us(&idle)?,
            connect_subscribe_us: us(&subscribed)?,
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

    fn table(&self, medians: &[Round]) -> String {
        let mut header = vec![format!("median of {} rounds", self.bench.rounds)];
        header.extend(medians.iter().map(|m| m.contender.clone()));
        header.push("target for ringmain".to_owned());
        let mut rows = vec![header];
        let mut row = |name: &str, of: fn(&Round) -> f64, target: Option<f64>| {
            let mut cells = vec![name.to_owned()];
            cells.extend(medians.iter().map(|m| format!("{:.1}", of(m))));
            let ours = medians.iter().find(|m| m.contender.starts_with("ringmain"));
            cells.push(match (ours, target) {
                (Some(ours), Some(target)) => verdict(of(ours), target),
                (None, Some(target)) => format!("≤ {target}"),
                _ => String::new(),
            });
            rows.push(cells);
        };
        row("idle connection, bytes", |m| m.idle_bytes, Some(IDLE_MAX));
        row("  the same by PSS, bytes", |m| m.idle_pss_bytes, None);
        row("+ 1 subscription, bytes", |m| m.subscription_bytes, Some(SUBSCRIPTION_MAX));
        row("offline session, bytes", |m| m.offline_bytes, Some(OFFLINE_MAX));
        row("connect, CPU µs", |m| m.connect_us, None);
        row("connect + subscribe, CPU µs", |m| m.connect_subscribe_us, Some(CONNECT_SUBSCRIBE_MAX));
        row("  the generator's, CPU µs", |m| m.generator_connect_subscribe_us, None);
        render(&rows)
    }
}

/// What a figure grew by from the start to a moment.
fn grown(report: &Report, moment: &str, of: fn(&Sample) -> u64) -> io::Result<f64> {
    let at = |moment: &str| {
        report
            .broker_at(moment)
            .ok_or_else(|| io::Error::other(format!("the server was gone at `{moment}`")))
    };
    Ok(of(at(moment)?) as f64 - of(at("start")?) as f64)
}

fn summarize(name: &str, rounds: &[Round]) -> Round {
    let of = |figure: fn(&Round) -> f64| {
        let mine = rounds.iter().filter(|r| r.contender == name);
        median(&mine.map(figure).collect::<Vec<_>>())
    };
    Round {
        contender: name.to_owned(),
        round: rounds.len(),
        idle_bytes: of(|r| r.idle_bytes),
        idle_pss_bytes: of(|r| r.idle_pss_bytes),
        subscription_bytes: of(|r| r.subscription_bytes),
        offline_bytes: of(|r| r.offline_bytes),
        connect_us: of(|r| r.connect_us),
        connect_subscribe_us: of(|r| r.connect_subscribe_us),
        generator_connect_subscribe_us: of(|r| r.generator_connect_subscribe_us),
    }
}
