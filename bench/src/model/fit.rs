//! Service times from measured runs.
//!
//! Each stage's time cannot be read off a run: a message's CPU time is a mix of all of them, by how
//! large the batches were. So the runs are simulated, and the times are those with which the simulation
//! comes nearest to what was measured, starting from those of the micro-benchmarks. The runs with half of
//! the pairs crossing are kept out: they show whether the rest says anything about what it has not seen.

use std::collections::BTreeMap;
use std::io;

use serde::{Deserialize, Serialize};

use super::sim::{Clients, Costs, Outcome, Scenario, Traffic, simulate, split_mix};

/// A run's measured CPU time and rate may differ so much from the simulated.
pub(crate) const TOLERANCE: f64 = 0.10;
const SEED: u64 = 42;

/// One set-up, measured.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Measured {
    pub(crate) traffic: String,
    pub(crate) shards: usize,
    pub(crate) crossing: u32,
    pub(crate) ns_per_message: f64,
    /// CPU of the generator, NaN where the results do not have it.
    pub(crate) generator_ns_per_message: f64,
    /// In the time that the host gave the machine.
    pub(crate) messages_per_s: f64,
}

/// The results of `ringmain-bench crossing`, as far as they are needed.
#[derive(Debug, Deserialize)]
struct File {
    results: Results,
}

#[derive(Debug, Deserialize)]
struct Results {
    pairs: usize,
    runs: Vec<Run>,
}

#[derive(Debug, Deserialize)]
struct Run {
    traffic: String,
    case: String,
    ns_per_message: f64,
    generator_ns_per_message: Option<f64>,
    messages_per_s: f64,
    #[serde(default)]
    stolen: f64,
}

/// Pairs, and the medians of the rounds of each set-up.
///
/// # Errors
/// When it is not a result of `crossing`.
pub(crate) fn read(json: &[u8]) -> io::Result<(usize, Vec<Measured>)> {
    let file: File = serde_json::from_slice(json)?;
    let mut groups: BTreeMap<(String, usize, u32), Vec<Run>> = BTreeMap::new();
    for run in file.results.runs {
        let (shards, crossing) = set_up(&run.case)
            .ok_or_else(|| io::Error::other(format!("`{}` is no set-up of crossing", run.case)))?;
        groups.entry((run.traffic.clone(), shards, crossing)).or_default().push(run);
    }
    let median = |mut list: Vec<f64>| {
        list.sort_by(f64::total_cmp);
        (list[(list.len() - 1) / 2] + list[list.len() / 2]) / 2.0
    };
    let measured = groups.into_iter().map(|((traffic, shards, crossing), runs)| Measured {
        traffic,
        shards,
        crossing,
        ns_per_message: median(runs.iter().map(|r| r.ns_per_message).collect()),
        generator_ns_per_message: median(
            runs.iter().map(|r| r.generator_ns_per_message.unwrap_or(f64::NAN)).collect(),
        ),
        messages_per_s: median(
            runs.iter().map(|r| r.messages_per_s / (1.0 - r.stolen.min(0.9))).collect(),
        ),
    });
    Ok((file.results.pairs, measured.collect()))
}

/// Shards and percent of a case's name.
fn set_up(case: &str) -> Option<(usize, u32)> {
    if case == "1 shard" {
        return Some((1, 0));
    }
    let (shards, rest) = case.split_once(" shards, ")?;
    Some((shards.parse().ok()?, rest.strip_suffix(" % crossing")?.parse().ok()?))
}

impl Measured {
    /// What simulates it.
    pub(crate) fn scenario(&self, pairs: usize, cores: usize) -> Option<Scenario> {
        let traffic = match self.traffic.as_str() {
            "closed-1" => Traffic::Closed { window: 1 },
            "closed-16" => Traffic::Closed { window: 16 },
            "paced" => Traffic::Paced { interval: 20_000_000 },
            _ => return None,
        };
        // Some thousands of messages, and some tens of the scheduler's slices.
        let span = match traffic {
            Traffic::Closed { .. } => 100_000_000,
            Traffic::Paced { .. } => 200_000_000,
        };
        let (shards, crossing) = (self.shards, self.crossing);
        let clients = Clients::Beside;
        Some(Scenario { shards, cores, pairs, crossing, traffic, clients, span, seed: SEED })
    }

    /// The same of the generator's CPU time, which only helps to tell costs apart.
    pub(crate) fn generator_error(&self, outcome: &Outcome) -> f64 {
        let error = outcome.generator_ns_per_message / self.generator_ns_per_message - 1.0;
        if error.is_finite() { error } else { 0.0 }
    }

    /// Whether the fit may look at it.
    fn is_shown(&self) -> bool {
        self.crossing != 50
    }

    /// By how much the simulation is off: CPU time a message, and rate. Those must be reproduced.
    pub(crate) fn error(&self, outcome: &Outcome) -> [f64; 2] {
        let rate = outcome.messages_per_s / self.messages_per_s - 1.0;
        // A paced run's rate is given to both.
        let rate = if self.traffic == "paced" { 0.0 } else { rate };
        [outcome.ns_per_message / self.ns_per_message - 1.0, rate]
    }
}

/// Where the search begins, ns: guesses of the right size.
pub(crate) const START: Costs = Costs {
    turn: 2_500.0,
    receive: 6_000.0,
    send: 6_000.0,
    message: 200.0,
    mail: 40.0,
    batch: 1_200.0,
    sleep: 30_000.0,
    client: 9_000.0,
    client_message: 250.0,
    client_turn: 5_000.0,
    client_sleep: 30_000.0,
    cold: 3_000.0,
    client_cold: 600.0,
    remote: 500.0,
    client_remote: 2_000.0,
};

/// A time, to be changed.
type Knob = fn(&mut Costs) -> &mut f64;

/// `receive` and `send` cannot be told apart by pairs, which have one for one: one knob for both.
const KNOBS: [Knob; 14] = [
    |c| &mut c.turn,
    |c| &mut c.receive,
    |c| &mut c.message,
    |c| &mut c.mail,
    |c| &mut c.batch,
    |c| &mut c.sleep,
    |c| &mut c.client,
    |c| &mut c.client_message,
    |c| &mut c.client_turn,
    |c| &mut c.client_sleep,
    |c| &mut c.cold,
    |c| &mut c.client_cold,
    |c| &mut c.remote,
    |c| &mut c.client_remote,
];

/// The costs that come nearest, in at most so many passes over the knobs.
pub(crate) fn fit(pairs: usize, cores: usize, measured: &[Measured], passes: usize) -> Costs {
    let shown: Vec<(&Measured, Scenario)> = measured
        .iter()
        .filter(|m| m.is_shown())
        .filter_map(|m| Some((m, m.scenario(pairs, cores)?)))
        .collect();
    let off = |costs: &Costs| -> f64 {
        let each = shown.iter().map(|(m, scenario)| {
            let outcome = simulate(costs, scenario);
            let off = |error: f64| (1.0 + error).max(1e-3).ln();
            // The fourth power: one run that is off by a tenth is worse than ten by a hundredth.
            let must: f64 = m.error(&outcome).map(|e| off(e).powi(4)).iter().sum();
            must + (off(m.generator_error(&outcome)) / 2.0).powi(4)
        });
        each.sum()
    };
    let mut best = (off(&START), START);
    let mut attempt = |costs: Costs| {
        let costs = Costs { send: costs.receive, ..costs };
        let now = off(&costs);
        let better = now < best.0;
        if better {
            best = (now, costs);
        }
        (better, best)
    };
    let mut step = 0.5f64;
    let (_, mut at) = attempt(START);
    for _ in 0..passes {
        let before = at.0;
        for knob in KNOBS {
            for factor in [step.exp(), (-step).exp()] {
                let mut costs = at.1;
                *knob(&mut costs) *= factor;
                let (better, best) = attempt(costs);
                at = best;
                if better {
                    break;
                }
            }
        }
        if at.0 > before * 0.95 {
            step = (step / 2.0).max(0.01);
        }
    }
    // Batches make the way down bumpy: from there, a few knobs at once, by less and less.
    let mut seed = SEED;
    let tries = passes * KNOBS.len();
    for i in 0..tries {
        let reach = 0.5 * (1.0 - i as f64 / tries as f64) + 0.02;
        let mut costs = at.1;
        for knob in KNOBS {
            let random = split_mix(&mut seed) as f64 / u64::MAX as f64 * 2.0 - 1.0;
            if split_mix(&mut seed).is_multiple_of(4) {
                *knob(&mut costs) *= (random * reach).exp();
            }
        }
        (_, at) = attempt(costs);
    }
    at.1
}
