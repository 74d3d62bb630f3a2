//! `crossing`: what it costs that a message changes shards.
//!
//! The same pairs, the same traffic, the same client identifiers by number: once with one shard, and
//! with two shards where 0, 50 or 100 of 100 pairs have their ends on different home shards.
//!
//! Two shards find less to do at a time than one: each batch is half as large, and there are twice as
//! many sleeps. So there are three kinds of traffic, and two ratios. *Closed loops* keep 1 or 16
//! messages of each pair outstanding: as fast as it goes. *Paced* traffic offers both the same rate,
//! far below what either can do. The ratio to one shard has all of it; the ratio to two shards with
//! no pair crossing has what the crossing itself costs.

use std::io::{self, Write as _};
use std::path::PathBuf;
use std::process::Command;

use clap::Args;
use serde::Serialize;

use crate::child::Scratch;
use crate::contender::{Contender, Programs};
use crate::load;
use crate::results::{self, Bench};
use crate::table::{Figure, order, render, verdict};

/// Of 100 pairs, how many cross, and the target against one shard.
const CASES: [(u32, f64); 3] = [(0, 1.05), (50, 1.10), (100, 1.15)];
/// Fixes the home shards, so that identifiers can be chosen before the broker runs.
const HASH_SEED: u64 = 0x5249_4E47;

/// Kinds of traffic: name, and arguments of the generator.
const TRAFFIC: [(&str, [&str; 2]); 3] =
    [("closed-1", ["-F", "1"]), ("closed-16", ["-F", "16"]), ("paced", ["-I", PACED_MS])];
/// Of each pair: with 96 pairs 4,800 messages a second.
const PACED_MS: &str = "20";
/// A multiple of eight: see [`shards_of`].
const PAIRS: u32 = 96;

/// `crossing`
#[derive(Clone, Debug, Args)]
pub(crate) struct Crossing {
    /// What all benchmarks share; only Ringmain takes part.
    #[command(flatten)]
    pub(crate) bench: Bench,
    /// Pairs.
    #[arg(short = 'c', long, default_value_t = PAIRS)]
    count: u32,
    /// Kinds of traffic, separated by commas; all by default.
    #[arg(long, value_delimiter = ',', default_values_t = TRAFFIC.map(|(name, _)| name.to_owned()))]
    traffic: Vec<String>,
    /// QoS.
    #[arg(short = 'q', long, default_value_t = 0)]
    qos: u8,
    /// Seconds of measured traffic a run, 3 by default.
    #[arg(short = 'd', long)]
    duration: Option<f64>,
    /// CPUs of the generator, separated by commas, one thread on each. With those of the shards, one
    /// shard shares its core with the generator as two do.
    #[arg(long, value_delimiter = ',')]
    cpus: Vec<usize>,
    /// Further `--set` options for Ringmain, such as `reactor.busy_wait_us=20`.
    #[arg(long = "set")]
    set: Vec<String>,
}

#[derive(Clone, Debug, Serialize)]
struct Run {
    traffic: String,
    case: String,
    round: usize,
    ns_per_message: f64,
    /// Of it, by the kernel's ticks.
    user_ns_per_message: f64,
    sleeps_per_message: f64,
    /// CPU time of the generator, which does the same for each message in every case: what it takes
    /// more is what the kernel takes more, not the broker.
    generator_ns_per_message: f64,
    messages_per_s: f64,
    /// Share of the machine's time that its host gave to others, warm-up included.
    stolen: f64,
}

/// Ticks of all CPUs since boot, and of them those that the host gave to others while they had work.
fn ticks() -> io::Result<(u64, u64)> {
    let text = std::fs::read_to_string("/proc/stat")?;
    let all = text.lines().next().unwrap_or_default().split_whitespace().skip(1);
    let all: Vec<u64> = all.take(8).filter_map(|n| n.parse().ok()).collect();
    Ok((all.iter().sum(), all.get(7).copied().unwrap_or(0)))
}

#[derive(Debug, Serialize)]
struct Summary {
    traffic: String,
    case: String,
    ns_per_message: Figure,
    user_ns_per_message: f64,
    sleeps_per_message: f64,
    /// To one shard.
    ratio: f64,
    /// The generator's, to its own with one shard.
    generator_ratio: f64,
    /// To two shards of which no pair crosses.
    ratio_to_no_crossing: f64,
    target: Option<f64>,
}

#[derive(Debug, Serialize)]
struct Outcome {
    pairs: u32,
    qos: u8,
    summary: Vec<Summary>,
    runs: Vec<Run>,
}

/// A set-up with the files that hold its client identifiers.
struct Case {
    name: String,
    contender: Contender,
    publishers: PathBuf,
    subscribers: PathBuf,
    target: Option<f64>,
}

impl Crossing {
    pub(crate) fn new(bench: Bench) -> Self {
        let traffic = TRAFFIC.map(|(name, _)| name.to_owned()).to_vec();
        Self { bench, count: PAIRS, traffic, qos: 0, duration: None, cpus: vec![], set: vec![] }
    }

    pub(crate) fn run(&self) -> io::Result<()> {
        let programs = self.bench.programs()?;
        let scratch = Scratch::new("crossing")?;
        let cases = self.cases(&programs, &scratch)?;
        let mut runs = Vec::new();
        let of = self.bench.rounds();
        for round in 0..of {
            for kind in &self.traffic {
                for i in order(cases.len(), round) {
                    eprintln!("crossing, round {} of {of}: {kind}, {}", round + 1, cases[i].name);
                    runs.push(self.measure(&programs, kind, &cases[i], round)?);
                }
            }
        }
        let summary: Vec<Summary> =
            self.traffic.iter().flat_map(|kind| summarize(kind, &cases, &runs)).collect();
        print!("{}", table(&summary, of));
        let outcome = Outcome { pairs: self.count, qos: self.qos, summary, runs };
        results::write(self.bench.json.as_deref(), "crossing", &outcome)
    }

    fn cases(&self, programs: &Programs, scratch: &Scratch) -> io::Result<Vec<Case>> {
        let homes = Homes::ask(programs, self.count)?;
        let contender = |shards| {
            let seed = format!("node.hash_seed={HASH_SEED}");
            Contender::Ringmain { shards, set: [&[seed][..], &self.set].concat() }
        };
        let mut cases = Vec::new();
        for (percent, target) in CASES {
            let file = |part: &str| scratch.0.join(format!("{part}-{percent}"));
            let (publishers, subscribers) = (file("publishers"), file("subscribers"));
            homes.write(self.count, percent, &publishers, &subscribers)?;
            if percent == 0 {
                // The one shard gets the identifiers of the first case: any will do.
                cases.push(Case {
                    name: "1 shard".to_owned(),
                    contender: contender(1),
                    publishers: publishers.clone(),
                    subscribers: subscribers.clone(),
                    target: None,
                });
            }
            cases.push(Case {
                name: format!("2 shards, {percent} % crossing"),
                contender: contender(2),
                publishers,
                subscribers,
                target: Some(target),
            });
        }
        Ok(cases)
    }

    fn measure(
        &self,
        programs: &Programs,
        kind: &str,
        case: &Case,
        round: usize,
    ) -> io::Result<Run> {
        let Some((_, pace)) = TRAFFIC.iter().find(|(name, _)| *name == kind) else {
            let names = TRAFFIC.map(|(name, _)| name).join(", ");
            return Err(io::Error::other(format!("`{kind}` is not one of {names}")));
        };
        let server = case.contender.start(programs, self.bench.port)?;
        let (count, qos) = (self.count.to_string(), self.qos.to_string());
        let duration = self.bench.seconds(self.duration).to_string();
        let path = |path: &PathBuf| path.to_string_lossy().into_owned();
        let (publishers, subscribers) = (path(&case.publishers), path(&case.subscribers));
        let fixed = ["pair", "-c", &count, "-q", &qos, "-d", &duration, "--warmup", "1"];
        let ids = ["--pub-ids", &publishers, "--sub-ids", &subscribers];
        let cpus: Vec<String> = self.cpus.iter().map(usize::to_string).collect();
        let (workers, cpus) = (cpus.len().to_string(), cpus.join(","));
        let pinned = ["--workers", &workers, "--cpus", &cpus];
        let pinned = if self.cpus.is_empty() { &[] } else { &pinned[..] };
        let args = [&fixed[..], pace, &ids, pinned].concat();
        let before = ticks()?;
        let report = load::run(programs, &server, &args)?;
        let after = ticks()?;
        let traffic = report.traffic.ok_or_else(|| io::Error::other("a run without traffic"))?;
        let ns_per_message = traffic.broker_ns_per_message().unwrap_or(f64::NAN);
        Ok(Run {
            traffic: kind.to_owned(),
            case: case.name.clone(),
            round,
            ns_per_message,
            user_ns_per_message: ns_per_message * load::user_share(&report),
            sleeps_per_message: load::sleeps_per_message(&report),
            generator_ns_per_message: traffic.generator_cpu_ns as f64
                / traffic.delivered.max(1) as f64,
            messages_per_s: traffic.delivered as f64 / traffic.seconds,
            stolen: (after.1 - before.1) as f64 / (after.0 - before.0).max(1) as f64,
        })
    }
}

/// Client identifiers by their home shard of two.
struct Homes([Vec<String>; 2]);

impl Homes {
    /// Asks the broker's binary where identifiers live: `ringmain home --shards 2 ID...` prints a
    /// line for each, which ends in the number of the shard.
    fn ask(programs: &Programs, pairs: u32) -> io::Result<Self> {
        let wanted = 2 * pairs as usize;
        let mut homes = [Vec::new(), Vec::new()];
        let mut next = 0;
        while homes.iter().any(|h: &Vec<String>| h.len() < wanted) {
            let ids: Vec<String> = (next..next + 1000).map(|i| format!("x-{i}")).collect();
            next += 1000;
            if next > 1000 * (wanted + 100) {
                return Err(io::Error::other("`ringmain home` puts all identifiers on one shard"));
            }
            let output = Command::new(&programs.ringmain)
                .args(["home", "--shards", "2", "--set", &format!("node.hash_seed={HASH_SEED}")])
                .args(&ids)
                .output()?;
            let text = String::from_utf8_lossy(&output.stdout);
            let shards: Vec<usize> = text
                .lines()
                .filter_map(|line| line.split_whitespace().last()?.parse().ok())
                .collect();
            if !output.status.success() || shards.len() != ids.len() {
                return Err(io::Error::other(format!(
                    "`ringmain home` gave {} answers to {} identifiers ({}): {}",
                    shards.len(),
                    ids.len(),
                    output.status,
                    String::from_utf8_lossy(&output.stderr)
                )));
            }
            for (id, shard) in ids.into_iter().zip(shards) {
                homes
                    .get_mut(shard)
                    .ok_or_else(|| io::Error::other(format!("{id} lives on shard {shard} of 2")))?
                    .push(id);
            }
        }
        Ok(Self(homes))
    }

    /// Writes the identifiers of pairs: subscribers on both shards in turn, publishers beside them
    /// or across, spread evenly.
    fn write(
        &self,
        pairs: u32,
        percent: u32,
        publishers: &PathBuf,
        subscribers: &PathBuf,
    ) -> io::Result<()> {
        let mut ids = self.0.clone().map(Vec::into_iter);
        let mut take = |shard: usize| {
            ids[shard].next().ok_or_else(|| io::Error::other("too few identifiers on a shard"))
        };
        let mut p = std::fs::File::create(publishers)?;
        let mut s = std::fs::File::create(subscribers)?;
        for pair in 0..pairs {
            let (home, peer) = shards_of(pair, percent);
            writeln!(s, "{}", take(home)?)?;
            writeln!(p, "{}", take(peer)?)?;
        }
        Ok(())
    }
}

/// Home shards of a pair's subscriber and publisher.
pub(crate) fn shards_of(pair: u32, percent: u32) -> (usize, usize) {
    // Four pairs in a row share a decision, so that both shards have crossing pairs, and that a
    // generator of two threads, which takes every second pair each, has as much to do with one shard
    // as with the other. Otherwise only crossing traffic would change cores on its way to the broker.
    let nth = pair / 4;
    let crosses = (nth + 1) * percent / 100 > nth * percent / 100;
    let home = (pair / 2 % 2) as usize;
    (home, if crosses { 1 - home } else { home })
}

fn summarize(kind: &str, cases: &[Case], runs: &[Run]) -> Vec<Summary> {
    let of = |case: &str, figure: fn(&Run) -> f64| {
        let mine = runs.iter().filter(|r| r.traffic == kind && r.case == case);
        Figure::of(&mine.map(figure).collect::<Vec<_>>())
    };
    let median = |at: usize| of(&cases[at].name, |r| r.ns_per_message).median;
    let (one, no_crossing) = (median(0), median(1));
    let generator = |case: &Case| of(&case.name, |r| r.generator_ns_per_message).median;
    let summary = |case: &Case| {
        let ns_per_message = of(&case.name, |r| r.ns_per_message);
        Summary {
            traffic: kind.to_owned(),
            case: case.name.clone(),
            ns_per_message,
            user_ns_per_message: of(&case.name, |r| r.user_ns_per_message).median,
            sleeps_per_message: of(&case.name, |r| r.sleeps_per_message).median,
            ratio: ns_per_message.median / one,
            generator_ratio: generator(case) / generator(&cases[0]),
            ratio_to_no_crossing: ns_per_message.median / no_crossing,
            target: case.target,
        }
    };
    cases.iter().map(summary).collect()
}

fn table(summary: &[Summary], rounds: usize) -> String {
    let first = format!("median of {rounds} rounds");
    let header = [
        &first,
        "traffic",
        "CPU ns/message",
        "in the server",
        "sleeps/message",
        "to 1 shard",
        "target",
        "generator",
        "to 0 %",
    ];
    let mut rows = vec![header.map(str::to_owned).to_vec()];
    rows.extend(summary.iter().map(|s| {
        vec![
            s.case.clone(),
            s.traffic.clone(),
            s.ns_per_message.cell(0),
            format!("{:.0}", s.user_ns_per_message),
            format!("{:.3}", s.sleeps_per_message),
            format!("{:.2}", s.ratio),
            s.target.map(|t| verdict(s.ratio, t)).unwrap_or_default(),
            format!("{:.2}", s.generator_ratio),
            s.target.map(|_| format!("{:.2}", s.ratio_to_no_crossing)).unwrap_or_default(),
        ]
    }));
    render(&rows)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_asked_share_of_pairs_crosses_and_both_shards_have_their_part() {
        for (percent, crossing) in [(0, 0), (50, 100), (100, 200)] {
            let pairs: Vec<_> = (0..200).map(|p| shards_of(p, percent)).collect();
            assert_eq!(pairs.iter().filter(|(s, p)| s != p).count(), crossing);
            assert_eq!(pairs.iter().filter(|(s, _)| *s == 0).count(), 100);
            assert_eq!(pairs.iter().filter(|(_, p)| *p == 0).count(), 100);
            let of_one_thread = pairs.iter().step_by(2);
            assert_eq!(of_one_thread.filter(|(_, p)| *p == 0).count(), 50);
        }
    }
}
