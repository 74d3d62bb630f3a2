//! `floor`: CPU a message, beside a bare io_uring server that moves the same bytes for the same
//! clients and knows nothing of MQTT once they are connected.

use std::io;

use clap::Args;
use serde::Serialize;

use crate::contender::{Contender, Programs};
use crate::load;
use crate::results::{self, Bench};
use crate::table::{Figure, order, render, verdict};

/// A scenario: its name, its arguments, and the target against the floor.
type Scenario = (&'static str, Vec<String>, f64);

/// Point to point with 1 and 16 messages outstanding a pair, one to many with 4 and 32.
const SCENARIOS: [&str; 4] = ["p2p-1", "p2p-16", "fanout-4", "fanout-32"];

/// `floor`
#[derive(Clone, Debug, Args)]
pub(crate) struct Floor {
    /// What all benchmarks share.
    #[command(flatten)]
    pub(crate) bench: Bench,
    /// Pairs of the point-to-point scenarios.
    #[arg(long, default_value_t = 100)]
    pairs: u32,
    /// Subscribers of the fan-out scenarios.
    #[arg(long, default_value_t = 1000)]
    subscribers: u32,
    /// Seconds of measured traffic a run, 3 by default.
    #[arg(short = 'd', long)]
    duration: Option<f64>,
    /// Bytes of payload.
    #[arg(short = 's', long, default_value_t = 42)]
    size: usize,
    /// Scenarios, separated by commas; all by default.
    #[arg(long, value_delimiter = ',', default_values_t = SCENARIOS.map(str::to_owned))]
    scenarios: Vec<String>,
    /// Shards of Ringmain.
    #[arg(long, default_value_t = 1)]
    shards: usize,
}

#[derive(Clone, Debug, Serialize)]
struct Run {
    scenario: &'static str,
    contender: String,
    round: usize,
    ns_per_message: f64,
    /// Of it, by the kernel's ticks.
    user_ns_per_message: f64,
    generator_ns_per_message: f64,
    messages_per_s: f64,
}

#[derive(Debug, Serialize)]
struct Summary {
    scenario: &'static str,
    contender: String,
    ns_per_message: Figure,
    user_ns_per_message: f64,
    generator_ns_per_message: f64,
    to_floor: f64,
    target: f64,
}

#[derive(Debug, Serialize)]
struct Outcome {
    payload_bytes: usize,
    summary: Vec<Summary>,
    runs: Vec<Run>,
}

impl Floor {
    pub(crate) fn new(bench: Bench) -> Self {
        let scenarios = SCENARIOS.map(str::to_owned).to_vec();
        Self {
            bench,
            pairs: 100,
            subscribers: 1000,
            duration: None,
            size: 42,
            scenarios,
            shards: 1,
        }
    }

    pub(crate) fn run(&self) -> io::Result<()> {
        let programs = self.bench.programs()?;
        let ringmain = Contender::Ringmain { shards: self.shards, set: vec![] };
        let mut contenders = vec![Contender::Floor];
        contenders.extend(self.bench.contenders(&ringmain)?);
        let scenarios = self.scenarios()?;
        let mut runs = Vec::new();
        let of = self.bench.rounds();
        for round in 0..of {
            for (name, args, _) in &scenarios {
                for i in order(contenders.len(), round) {
                    let c = &contenders[i];
                    eprintln!("floor, round {} of {of}: {name} {}", round + 1, c.name());
                    runs.push(self.measure(&programs, c, name, args, round)?);
                }
            }
        }
        let summary = summarize(&scenarios, &contenders, &runs);
        print!("{}", table(&summary, of));
        let outcome = Outcome { payload_bytes: self.size, summary, runs };
        results::write(self.bench.json.as_deref(), "floor", &outcome)
    }

    fn scenarios(&self) -> io::Result<Vec<Scenario>> {
        let (pairs, subscribers) = (self.pairs.to_string(), self.subscribers.to_string());
        let args = |kind: &str, count: &str, window: &str| {
            ["-c", count, "-F", window].iter().fold(vec![kind.to_owned()], |mut all, a| {
                all.push((*a).to_owned());
                all
            })
        };
        let all = [
            (SCENARIOS[0], args("pair", &pairs, "1"), 1.25),
            (SCENARIOS[1], args("pair", &pairs, "16"), 2.0),
            (SCENARIOS[2], args("fanout", &subscribers, "4"), 1.3),
            (SCENARIOS[3], args("fanout", &subscribers, "32"), 1.3),
        ];
        self.scenarios
            .iter()
            .map(|asked| {
                all.iter().find(|(name, ..)| name == asked).cloned().ok_or_else(|| {
                    let names = all.each_ref().map(|(name, ..)| *name).join(", ");
                    io::Error::other(format!("`{asked}` is not one of {names}"))
                })
            })
            .collect()
    }

    fn measure(
        &self,
        programs: &Programs,
        contender: &Contender,
        scenario: &'static str,
        args: &[String],
        round: usize,
    ) -> io::Result<Run> {
        let server = contender.start(programs, self.bench.port)?;
        let (size, duration) =
            (self.size.to_string(), self.bench.seconds(self.duration).to_string());
        let more = ["-V", "4", "-s", &size, "-d", &duration, "--warmup", "1"];
        let args: Vec<&str> = args.iter().map(String::as_str).chain(more).collect();
        let report = load::run(programs, &server, &args)?;
        let traffic = report.traffic.ok_or_else(|| io::Error::other("a run without traffic"))?;
        let ns_per_message = traffic.broker_ns_per_message().unwrap_or(f64::NAN);
        Ok(Run {
            scenario,
            contender: contender.name(),
            round,
            ns_per_message,
            user_ns_per_message: ns_per_message * load::user_share(&report),
            generator_ns_per_message: traffic.generator_cpu_ns as f64
                / traffic.delivered.max(1) as f64,
            messages_per_s: traffic.delivered as f64 / traffic.seconds,
        })
    }
}

fn summarize(scenarios: &[Scenario], contenders: &[Contender], runs: &[Run]) -> Vec<Summary> {
    let of = |scenario: &str, contender: &str, figure: fn(&Run) -> f64| {
        let mine = runs.iter().filter(|r| r.scenario == scenario && r.contender == contender);
        Figure::of(&mine.map(figure).collect::<Vec<_>>())
    };
    let mut summary = Vec::new();
    for &(scenario, _, target) in scenarios {
        let floor = of(scenario, "floor", |r| r.ns_per_message).median;
        for contender in contenders.iter().map(Contender::name) {
            let ns_per_message = of(scenario, &contender, |r| r.ns_per_message);
            summary.push(Summary {
                scenario,
                ns_per_message,
                user_ns_per_message: of(scenario, &contender, |r| r.user_ns_per_message).median,
                generator_ns_per_message: of(scenario, &contender, |r| r.generator_ns_per_message)
                    .median,
                to_floor: ns_per_message.median / floor,
                target,
                contender,
            });
        }
    }
    summary
}

fn table(summary: &[Summary], rounds: usize) -> String {
    let first = format!("median of {rounds} rounds");
    let header = [
        &first,
        "server",
        "CPU ns/message",
        "in the server",
        "× floor",
        "target",
        "generator ns/message",
    ];
    let mut rows = vec![header.map(str::to_owned).to_vec()];
    rows.extend(summary.iter().map(|s| {
        let ours = s.contender.starts_with("ringmain");
        vec![
            s.scenario.to_owned(),
            s.contender.clone(),
            s.ns_per_message.cell(0),
            format!("{:.0}", s.user_ns_per_message),
            format!("{:.2}", s.to_floor),
            if ours { verdict(s.to_floor, s.target) } else { String::new() },
            format!("{:.0}", s.generator_ns_per_message),
        ]
    }));
    render(&rows)
}
