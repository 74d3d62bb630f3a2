//! Runs a scenario: contenders in turn, round after round, then the open loops.

use std::cell::RefCell;
use std::io;

use clap::Args;

use super::outcome::{Outcome, Run};
use super::{Case, Cx, Failure, OpenLoop, Scale, Scenario};
use crate::contender::{Contender, Programs};
use crate::results::{self, Bench};
use crate::scenarios;
use crate::table::order;

/// Shares of the slower contender's maximum that open loops offer.
const OPEN_SHARES: [f64; 2] = [0.5, 0.8];

/// Options of scenarios, beside those of every benchmark.
#[derive(Clone, Debug, Args)]
pub(crate) struct Options {
    /// What all benchmarks share.
    #[command(flatten)]
    pub(crate) bench: Bench,
    /// Seconds of measured traffic a run, 3 by default.
    #[arg(short = 'd', long)]
    pub(crate) duration: Option<f64>,
    /// Protocol version of the clients: 4 (3.1.1), which all peers speak, or 5.
    #[arg(short = 'V', long, default_value_t = 4, value_parser = clap::value_parser!(u8).range(4..=5))]
    pub(crate) protocol: u8,
    /// Shards of Ringmain.
    #[arg(long, default_value_t = 1)]
    pub(crate) shards: usize,
    /// Further `--set` options of Ringmain, such as `reactor.busy_wait_us=20`.
    #[arg(long = "set")]
    pub(crate) set: Vec<String>,
    /// Only the cases whose name has this in it.
    #[arg(long)]
    pub(crate) case: Option<String>,
    /// No open loops after the closed ones.
    #[arg(long)]
    pub(crate) no_open_loop: bool,
}

impl Options {
    /// What the scale of a run with these options is.
    pub(crate) fn scale(&self) -> Scale {
        Scale::new(self.bench.quick, self.duration, self.protocol)
    }
}

/// `run`
#[derive(Debug, Args)]
pub(crate) struct RunScenarios {
    /// Names, as `list` shows them.
    #[arg(required = true)]
    names: Vec<String>,
    /// How they run.
    #[command(flatten)]
    options: Options,
}

impl RunScenarios {
    pub(crate) fn run(&self) -> io::Result<()> {
        let chosen: Vec<&dyn Scenario> =
            self.names.iter().map(|n| scenarios::by_name(n)).collect::<io::Result<_>>()?;
        if chosen.len() > 1 && self.options.bench.json.is_some() {
            return Err(io::Error::other("--json takes one scenario; `all` takes --out"));
        }
        for scenario in chosen {
            run(scenario, &self.options)?;
        }
        Ok(())
    }
}

/// Runs one scenario, prints its table and writes its results.
///
/// # Errors
/// When the benchmark itself cannot go on, or Ringmain failed: that is never a result.
pub(crate) fn run(scenario: &dyn Scenario, options: &Options) -> io::Result<()> {
    let programs = options.bench.programs()?;
    let ringmain = Contender::Ringmain { shards: options.shards, set: options.set.clone() };
    let contenders = if scenario.peers_take_part() {
        options.bench.contenders(&ringmain)?
    } else {
        vec![ringmain]
    };
    let scale = options.scale();
    let mut cases = scenario.cases(&scale);
    if let Some(part) = &options.case {
        cases.retain(|c| c.name.contains(part));
    }
    if cases.is_empty() {
        return Err(io::Error::other(format!("{} has no such case", scenario.name())));
    }
    let mut race = Race { scenario, programs: &programs, options, scale, runs: Vec::new() };
    race.rounds(&cases, &contenders)?;
    if !options.no_open_loop {
        let open = race.open_cases(&contenders);
        race.rounds(&open, &contenders)?;
        cases.extend(open);
    }
    let runs = race.runs;
    let outcome =
        Outcome::new(scenario, scale, &cases, &contenders, &programs, options.bench.port, runs);
    print!("{}", outcome.table(options.bench.rounds()));
    results::write(options.bench.json.as_deref(), scenario.name(), &outcome)?;
    match outcome.failure_of_ringmain() {
        None => Ok(()),
        Some(why) => Err(io::Error::other(format!("{}: {why}", scenario.name()))),
    }
}

struct Race<'a> {
    scenario: &'a dyn Scenario,
    programs: &'a Programs,
    options: &'a Options,
    scale: Scale,
    runs: Vec<Run>,
}

impl Race<'_> {
    /// A B C, C B A, …: drift hits all alike.
    fn rounds(&mut self, cases: &[Case], contenders: &[Contender]) -> io::Result<()> {
        let of = self.options.bench.rounds();
        for round in 0..of {
            for case in cases {
                let mut all: Vec<&Contender> = contenders.iter().collect();
                if case.floor {
                    all.insert(0, &Contender::Floor);
                }
                for i in order(all.len(), round) {
                    self.measure(case, all[i], round, of)?;
                }
            }
        }
        Ok(())
    }

    fn measure(&mut self, case: &Case, c: &Contender, round: usize, of: usize) -> io::Result<()> {
        let name = c.name();
        eprintln!("{}, round {} of {of}: {}, {name}", self.scenario.name(), round + 1, case.name);
        let cx = Cx {
            programs: self.programs,
            contender: c,
            scale: self.scale,
            port: self.options.bench.port,
            void: RefCell::default(),
        };
        let mut run = Run::new(&case.name, &name, round);
        match self.scenario.measure(&cx, case) {
            Ok(figures) => run.figures = figures,
            Err(Failure::Contender(why)) => {
                eprintln!("  {name} failed: {why}");
                run.failure = Some(why);
            }
            Err(Failure::Bench(e)) => return Err(e),
        }
        run.void = cx.void.take();
        run.void.iter().for_each(|why| eprintln!("  {name}, void: {why}"));
        self.runs.push(run);
        Ok(())
    }

    /// The open loops, at shares of the maximum of the slower contender that did not fail.
    fn open_cases(&self, contenders: &[Contender]) -> Vec<Case> {
        let mut cases = Vec::new();
        for open in self.scenario.open_loops(&self.scale) {
            let Some(maximum) = self.slowest(&open, contenders) else { continue };
            for share in OPEN_SHARES {
                cases.push(open_case(&open, maximum, share));
            }
        }
        cases
    }

    fn slowest(&self, open: &OpenLoop, contenders: &[Contender]) -> Option<f64> {
        contenders
            .iter()
            .filter_map(|c| {
                let name = c.name();
                let mine = self.runs.iter().filter(|r| r.case == open.of && r.contender == name);
                let rates: Vec<f64> =
                    mine.filter_map(|r| r.figures.get("messages_per_s").copied()).collect();
                (!rates.is_empty()).then(|| crate::table::median(&rates))
            })
            .reduce(f64::min)
    }
}

fn open_case(open: &OpenLoop, maximum: f64, share: f64) -> Case {
    let deliveries_per_s = maximum * share;
    let published_per_s = deliveries_per_s / f64::from(open.fan_out);
    let interval_ms = f64::from(open.publishers) * 1000.0 / published_per_s;
    let mut args = open.args.clone();
    args.extend(["-I".to_owned(), format!("{interval_ms:.4}")]);
    let percent = share * 100.0;
    let name = format!("open {percent:.0} % of {} ({deliveries_per_s:.0}/s)", open.of);
    Case { name, args, ..Case::default() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_open_loop_offers_its_share_over_all_publishers_and_deliveries() {
        let open = OpenLoop { of: "w4".into(), args: vec![], publishers: 5, fan_out: 1000 };
        let case = open_case(&open, 200_000.0, 0.5);
        assert_eq!(case.name, "open 50 % of w4 (100000/s)");
        // 100 messages a second from 5 publishers: each has one every 50 ms.
        assert_eq!(case.args, ["-I", "50.0000"]);
    }
}
