//! `model`: what 1 to 64 cores would do, from service times measured with one and two shards.
//!
//! The prediction is printed only if the model first reproduces the measured runs within 10 %, those
//! included that its service times were not fitted to. It knows nothing of what grows with cores and is
//! not seen with two: memory bandwidth, several sockets, interrupts, the network card.

mod fit;
mod sim;
#[cfg(test)]
mod tests;

use std::io;
use std::path::PathBuf;
use std::process::Command;

use clap::Args;
use serde::Serialize;

use crate::results;
use fit::{Measured, TOLERANCE};
use sim::{Clients, Costs, Outcome, Scenario, Traffic, simulate};

const CORES: [usize; 7] = [1, 2, 4, 8, 16, 32, 64];
const CROSSING: [u32; 3] = [0, 50, 100];
/// Of a prediction, for each shard: as many as were measured.
const PAIRS: usize = 100;
/// Clients of a prediction are elsewhere and answer after so many ns.
const AWAY_NS: u64 = 100_000;

/// `model`
#[derive(Clone, Debug, Args)]
pub(crate) struct Model {
    /// Results of `crossing`; without them it is run first.
    #[arg(long)]
    measured: Option<PathBuf>,
    /// Cores of the machine they were measured on; without it, of this one.
    #[arg(long)]
    cores: Option<usize>,
    /// A short calibration run, and a coarser fit.
    #[arg(long)]
    quick: bool,
    /// Port on 127.0.0.1 for the calibration run.
    #[arg(long, default_value_t = 27_883)]
    port: u16,
    /// Write the results as JSON; bench/results/ is the place for those that are kept.
    #[arg(long)]
    json: Option<PathBuf>,
}

/// A measured run beside its simulation.
#[derive(Debug, Serialize)]
struct Checked {
    measured: Measured,
    simulated: Outcome,
    /// CPU time a message, and rate: simulated by measured, less 1.
    error: [f64; 2],
    /// The same of the generator's CPU time, which need not be reproduced.
    generator_error: f64,
}

#[derive(Debug, Serialize)]
struct Prediction {
    cores: usize,
    crossing: u32,
    window: u32,
    outcome: Outcome,
}

#[derive(Debug, Serialize)]
struct Results {
    tolerance: f64,
    costs: Costs,
    checked: Vec<Checked>,
    reproduced: bool,
    predictions: Vec<Prediction>,
}

impl Model {
    pub(crate) fn run(&self) -> io::Result<()> {
        let json = match &self.measured {
            Some(path) => std::fs::read(path)
                .map_err(|e| io::Error::new(e.kind(), format!("{}: {e}", path.display())))?,
            None => self.calibrate()?,
        };
        let (pairs, measured) = fit::read(&json)?;
        let here = std::thread::available_parallelism().map_or(2, usize::from);
        let cores = self.cores.unwrap_or(here);
        let costs = fit::fit(pairs, cores, &measured, if self.quick { 8 } else { 40 });
        let checked = check(&costs, pairs, cores, &measured);
        print!("{}", table_of_costs(&costs));
        print!("{}", table_of_checked(&checked));
        let worst = checked.iter().flat_map(|c| c.error).fold(0.0, |a: f64, e| a.max(e.abs()));
        let reproduced = !checked.is_empty() && worst <= TOLERANCE;
        let predictions = if reproduced { predict(&costs) } else { Vec::new() };
        print!("{}", table_of_predictions(&predictions));
        let missed = missed(&checked).join(", ");
        let kept = Results { tolerance: TOLERANCE, costs, checked, reproduced, predictions };
        results::write(self.json.as_deref(), "model", &kept)?;
        if reproduced {
            return Ok(());
        }
        Err(io::Error::other(format!(
            "the model is off by up to {:.0} %, and more than {:.0} % in {missed}: no prediction. \
             Measure on a quiet machine, or see which stage it lacks",
            worst * 100.0,
            TOLERANCE * 100.0
        )))
    }

    /// Runs `crossing`.
    fn calibrate(&self) -> io::Result<Vec<u8>> {
        let path = std::env::temp_dir().join(format!("ringmain-model-{}.json", std::process::id()));
        let mut command = Command::new(std::env::current_exe()?);
        command.args(["crossing", "--port", &self.port.to_string(), "--json"]).arg(&path);
        if self.quick {
            command.arg("--quick");
        }
        let status = command.status()?;
        let json = std::fs::read(&path);
        let _ = std::fs::remove_file(&path);
        if !status.success() {
            return Err(io::Error::other(format!("the calibration run: {status}")));
        }
        json
    }
}

fn check(costs: &Costs, pairs: usize, cores: usize, measured: &[Measured]) -> Vec<Checked> {
    let simulated = measured.iter().filter_map(|m| Some((m, m.scenario(pairs, cores)?)));
    simulated
        .map(|(m, scenario)| {
            let simulated = simulate(costs, &scenario);
            let generator_error = m.generator_error(&simulated);
            Checked { error: m.error(&simulated), generator_error, measured: m.clone(), simulated }
        })
        .collect()
}

/// Runs that are not reproduced, and in what.
fn missed(checked: &[Checked]) -> Vec<String> {
    let each = checked.iter().flat_map(|c| {
        let figures = [("CPU", c.error[0]), ("rate", c.error[1])];
        let off = figures.into_iter().filter(|(_, error)| error.abs() > TOLERANCE);
        off.map(|(what, error)| {
            let m = &c.measured;
            let (traffic, shards, crossing) = (&m.traffic, m.shards, m.crossing);
            format!("{traffic}/{shards} shards/{crossing} % ({what} {:+.0} %)", error * 100.0)
        })
    });
    each.collect()
}

/// Saturated shards, one on each core, and clients elsewhere.
fn predict(costs: &Costs) -> Vec<Prediction> {
    let mut predictions = Vec::new();
    for window in [1, 16] {
        for crossing in CROSSING {
            for cores in CORES.into_iter().filter(|c| *c > 1 || crossing == 0) {
                let scenario = Scenario {
                    shards: cores,
                    cores,
                    pairs: PAIRS * cores,
                    crossing,
                    traffic: Traffic::Closed { window },
                    clients: Clients::Away { delay: AWAY_NS },
                    span: 20_000_000,
                    seed: 42,
                };
                let outcome = simulate(costs, &scenario);
                predictions.push(Prediction { cores, crossing, window, outcome });
            }
        }
    }
    predictions
}

fn table_of_costs(c: &Costs) -> String {
    let line = |name: &str, ns: f64| format!("  {name:<42}{ns:>10.0} ns\n");
    [
        "service times that come nearest to what was measured\n".to_owned(),
        line("a turn of a shard", c.turn),
        line("a receive or a send of a connection", c.receive),
        line("a message: decode, route, deliver", c.message),
        line("a message by mail", c.mail),
        line("a batch of mail and its wake", c.batch),
        line("a sleep", c.sleep),
        line("the generator, a connection", c.client),
        line("the generator, a message", c.client_message),
        line("the generator, a turn", c.client_turn),
        line("the generator, a sleep", c.client_sleep),
        line("a connection, with another's caches, besides", c.cold),
        line("the same of the generator", c.client_cold),
        line("a receive from another core, besides", c.remote),
        line("the same of the generator", c.client_remote),
    ]
    .concat()
}

fn table_of_checked(checked: &[Checked]) -> String {
    let mut text = format!(
        "\n{:<10}{:>7}{:>10}{:>14}{:>11}{:>8}{:>14}{:>11}{:>8}{:>11}{:>10}\n",
        "traffic",
        "shards",
        "crossing",
        "ns a message",
        "simulated",
        "off",
        "messages/s",
        "simulated",
        "off",
        "generator",
        "sleeps"
    );
    for Checked { measured: m, simulated: s, error, generator_error } in checked {
        text += &format!(
            "{:<10}{:>7}{:>8} %{:>14.0}{:>11.0}{:>+7.1}%{:>14.0}{:>11.0}{:>+7.1}%{:>+10.1}%{:>10.4}\n",
            m.traffic,
            m.shards,
            m.crossing,
            m.ns_per_message,
            s.ns_per_message,
            error[0] * 100.0,
            m.messages_per_s,
            s.messages_per_s,
            error[1] * 100.0,
            generator_error * 100.0,
            s.sleeps_per_message
        );
    }
    text
}

fn table_of_predictions(predictions: &[Prediction]) -> String {
    if predictions.is_empty() {
        return String::new();
    }
    let mut text = format!(
        "\npredicted: {PAIRS} pairs a core, clients elsewhere\n{:>6}{:>8}{:>10}{:>14}{:>14}{:>16}\n",
        "cores", "window", "crossing", "ns a message", "messages/s", "messages a turn"
    );
    for Prediction { cores, crossing, window, outcome: o } in predictions {
        text += &format!(
            "{cores:>6}{window:>8}{crossing:>8} %{:>14.0}{:>14.0}{:>16.1}\n",
            o.ns_per_message, o.messages_per_s, o.messages_per_turn
        );
    }
    text
}
