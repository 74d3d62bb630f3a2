//! `find-max`.

use std::fmt::Write as _;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser as _};
use serde::Serialize;

use crate::cli::Cli;
use crate::cli::options::seconds;
use crate::cli::start::{Outcome, write_json};
use crate::environment::Environment;
use crate::job::Job;
use crate::quantity::{grouped, show_ns};
use crate::report::{REPORT_SCHEMA, Summary};
use crate::run;

use super::search::{Ended, Found, Limits, StepVerdict, Trial, search};
use super::slo::Slo;
use super::{at_rate, check, judge, lasting};

/// `find-max`
#[derive(Clone, Debug, Args)]
pub struct FindMax {
    /// What must hold: `p99<5ms`, or several claims joined by commas: `p99.9<20ms,loss==0`.
    #[arg(long)]
    pub slo: Slo,
    /// First rate to try, in messages a second over all publishers.
    #[arg(long, default_value_t = 1000.0)]
    pub from: f64,
    /// Highest rate to try.
    #[arg(long, default_value_t = 10e6)]
    pub up_to: f64,
    /// Lowest rate to try.
    #[arg(long, default_value_t = 1.0)]
    pub down_to: f64,
    /// The search ends when the rates that held and that missed are so close, as a share.
    #[arg(long, default_value_t = 0.05)]
    pub precision: f64,
    /// Trials that must agree on a rate.
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u8).range(1..=20))]
    pub confirm: u8,
    /// Seconds of each trial that are measured.
    #[arg(long, default_value_t = 5.0)]
    pub step_duration: f64,
    /// Seconds of each trial before them.
    #[arg(long, default_value_t = 1.0)]
    pub step_warmup: f64,
    /// Write rates, trials and verdicts as JSON.
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
    /// No progress.
    #[arg(long)]
    pub quiet: bool,
    /// The load, after `--`: `pair -c 100 -q 1` or `run SCENARIO.toml`.
    #[arg(last = true, required = true, value_name = "LOAD")]
    pub load: Vec<String>,
}

/// What is written as JSON.
#[derive(Debug, Serialize)]
struct Outcomes<'a> {
    schema: u32,
    slo: String,
    load: &'a [String],
    limits: Limits,
    found: &'a Found,
    trials: &'a [Measured],
    environment: Environment,
}

/// One trial's numbers.
#[derive(Clone, Debug, Serialize)]
struct Measured {
    rate: f64,
    sent_per_s: f64,
    delivered_per_s: f64,
    latency: Summary,
    broker_ns_per_message: Option<f64>,
    #[serde(flatten)]
    trial: Trial,
}

/// The job that the words after `--` mean. Each call gives it source addresses of its own.
///
/// # Errors
/// A sentence for the user.
pub(crate) fn load_of(words: &[String]) -> Result<Job, String> {
    let program = std::iter::once("ringmain-load");
    let mut all: Vec<&str> = program.chain(words.iter().map(String::as_str)).collect();
    let ends = |word: &str| word.starts_with("-d") || word.starts_with("--dur") || word == "-L";
    if words.first().is_some_and(|w| !matches!(w.as_str(), "conn" | "storm" | "run" | "retained"))
        && !all.iter().any(|word| ends(word))
    {
        // Its duration is ours to say.
        all.extend(["--duration", "10"]);
    }
    let cli = Cli::try_parse_from(all).map_err(|e| e.to_string())?;
    let job = cli.command.job()?;
    job.plan.check()?;
    Ok(job)
}

impl FindMax {
    /// Searches, prints a table.
    ///
    /// # Errors
    /// A sentence for the user, when no search can be made.
    pub fn start(&self) -> Result<Outcome, String> {
        let limits = self.limits()?;
        check(&self.slo, &load_of(&self.load)?)?;
        let (time, warm) = (seconds(self.step_duration)?, seconds(self.step_warmup)?);
        run::catch_signals();
        let mut trials = Vec::new();
        let found = search(&limits, |rate| self.trial(rate, time, warm, &mut trials))?;
        print!("{}", table(&self.slo, &found, &trials));
        if let Some(path) = &self.json {
            let outcomes = Outcomes {
                schema: REPORT_SCHEMA,
                slo: self.slo.to_string(),
                load: &self.load,
                limits,
                found: &found,
                trials: &trials,
                environment: Environment::here(),
            };
            write_json(path, &outcomes)?;
        }
        Ok(match (found.best, found.ended) {
            (_, Ended::Interrupted) | (None, Ended::BelowMin) => Outcome::NotHeld,
            (None, _) => Outcome::Void,
            (Some(_), _) => Outcome::Held,
        })
    }

    fn limits(&self) -> Result<Limits, String> {
        let positive = [self.from, self.up_to, self.down_to, self.precision];
        if positive.iter().any(|n| !(*n > 0.0 && n.is_finite())) || self.down_to > self.up_to {
            return Err(
                "rates and precision are above 0, and --down-to is below --up-to".to_owned()
            );
        }
        Ok(Limits {
            start: self.from,
            max: self.up_to,
            min: self.down_to,
            precision: self.precision,
            confirm: usize::from(self.confirm),
            ..Limits::default()
        })
    }

    fn trial(
        &self,
        rate: f64,
        time: Duration,
        warm: Duration,
        trials: &mut Vec<Measured>,
    ) -> Result<Option<Trial>, String> {
        let mut job = load_of(&self.load)?;
        at_rate(&mut job.plan, rate)?;
        lasting(&mut job.plan, time, warm);
        // Losses are the objective's to judge.
        job.options.allow_loss = true;
        let latency = job.latency();
        let report = job.run(&mut |_| {}).map_err(|e| e.to_string())?;
        if run::interrupted() {
            return Ok(None);
        }
        let trial = judge(&self.slo, latency, &report);
        let traffic = report.traffic.unwrap_or_default();
        let measured = Measured {
            rate,
            sent_per_s: traffic.sent as f64 / traffic.seconds.max(1e-9),
            delivered_per_s: traffic.delivered as f64 / traffic.seconds.max(1e-9),
            latency: report.latencies.get(latency).map(|l| l.corrected).unwrap_or_default(),
            broker_ns_per_message: traffic.broker_ns_per_message(),
            trial: trial.clone(),
        };
        if !self.quiet {
            eprintln!("{}", row(&measured));
        }
        trials.push(measured);
        Ok(Some(trial))
    }
}

fn row(m: &Measured) -> String {
    let verdict = match &m.trial {
        Trial::Held => "held".to_owned(),
        Trial::Missed { why } => format!("missed: {why}"),
        Trial::Void { why } => format!("void: {why}"),
    };
    format!(
        "{:>12}/s {:>12} {:>12} {:>10} {:>10} {:>10}  {verdict}",
        grouped(m.rate),
        grouped(m.sent_per_s),
        grouped(m.delivered_per_s),
        show_ns(m.latency.p50 as f64),
        show_ns(m.latency.p99 as f64),
        show_ns(m.latency.p999 as f64),
    )
}

fn table(slo: &Slo, found: &Found, trials: &[Measured]) -> String {
    let mut out = format!(
        "{:>14} {:>12} {:>12} {:>10} {:>10} {:>10}\n",
        "rate", "sent/s", "delivered/s", "p50", "p99", "p99.9"
    );
    let mut sorted: Vec<&Measured> = trials.iter().collect();
    sorted.sort_by(|a, b| a.rate.total_cmp(&b.rate));
    for trial in sorted {
        let _ = writeln!(out, "{}", row(trial));
    }
    let rate = |rate: Option<f64>| rate.map_or("no rate".to_owned(), |r| grouped(r) + "/s");
    let voids = found.steps.iter().filter(|s| s.verdict == StepVerdict::Void).count();
    let said = match found.ended {
        Ended::Found => format!("{} misses it", rate(found.missed)),
        Ended::AtMax => "the highest rate to try; give --up-to for more".to_owned(),
        Ended::BelowMin => "even the lowest rate misses it".to_owned(),
        Ended::GeneratorIsTheLimit => format!(
            "at {} the generator is the limit, not the broker ({voids} void steps)",
            rate(found.missed)
        ),
        Ended::Interrupted => "interrupted".to_owned(),
    };
    let _ = writeln!(out, "{} holds {slo}; {said}", rate(found.best));
    out
}
