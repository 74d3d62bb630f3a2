//! `compare`.

use std::fmt::Write as _;
use std::io;
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use clap::Args;
use serde::Serialize;

use crate::cli::start::{Outcome, write_json};
use crate::environment::Environment;
use crate::find_max::cli::load_of;
use crate::quantity::show;
use crate::report::{REPORT_SCHEMA, Report};
use crate::run;
use crate::scenario::resolve;

use super::statistics::Finding;
use super::{BLOCK, Better, COMPARED, Line, Run, Side, lines};

/// `compare`
#[derive(Clone, Debug, Args)]
pub struct Compare {
    /// Address of the first broker, `host:port`.
    pub a: String,
    /// Address of the second.
    pub b: String,
    /// The first one's process, to sample its CPU time and memory.
    #[arg(long)]
    pub broker_pid_a: Option<u32>,
    /// The second one's process.
    #[arg(long)]
    pub broker_pid_b: Option<u32>,
    /// Command that starts the first one, anew for each run; it must listen at its address.
    #[arg(long, conflicts_with = "broker_pid_a")]
    pub start_a: Option<String>,
    /// Command that starts the second one.
    #[arg(long, conflicts_with = "broker_pid_b")]
    pub start_b: Option<String>,
    /// Blocks of four runs: A, B, B, A. An interval needs five.
    #[arg(long, default_value_t = 6, value_parser = clap::value_parser!(u16).range(1..=1000))]
    pub blocks: u16,
    /// What the draws of the intervals depend on.
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    /// Write all runs and ratios as JSON.
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
    /// No progress.
    #[arg(long)]
    pub quiet: bool,
    /// The load, after `--`: `pair -c 100 -q 1 -d 5` or `run SCENARIO.toml`.
    #[arg(last = true, required = true, value_name = "LOAD")]
    pub load: Vec<String>,
}

/// A void run is made again this often, before the comparison is void.
const VOID_REPEATS: usize = 2;
/// A broker that was started listens by then.
const LISTEN_WAIT: Duration = Duration::from_secs(20);
/// A broker that was told to end has ended by then, or is killed.
const END_WAIT: Duration = Duration::from_secs(10);

#[derive(Debug, Serialize)]
struct Outcomes<'a> {
    schema: u32,
    a: &'a str,
    b: &'a str,
    load: &'a [String],
    blocks: u16,
    seed: u64,
    lines: &'a [Line],
    runs: &'a [Run],
    void_runs: &'a [String],
    environment: Environment,
}

impl Compare {
    /// Runs all blocks, prints a table.
    ///
    /// # Errors
    /// A sentence for the user, when a run cannot be made or is not clean: its numbers would
    /// compare different work.
    pub fn start(&self) -> Result<Outcome, String> {
        let sides = [resolve(&self.a)?, resolve(&self.b)?];
        load_of(&self.load)?;
        run::catch_signals();
        let (mut runs, mut voids) = (Vec::new(), Vec::new());
        for block in 0..usize::from(self.blocks) {
            for side in BLOCK {
                let Some(report) = self.run(side, sides[side as usize], &mut voids)? else {
                    eprintln!("ringmain-load: the comparison is void: {}", voids.join("; "));
                    return Ok(Outcome::Void);
                };
                let run = Run::of(block, side, &report);
                self.progress(&run);
                runs.push(run);
            }
        }
        let lines = lines(&runs, self.seed);
        print!("{}", table(&lines));
        if let Some(path) = &self.json {
            let outcomes = Outcomes {
                schema: REPORT_SCHEMA,
                a: self.start_a.as_deref().unwrap_or(&self.a),
                b: self.start_b.as_deref().unwrap_or(&self.b),
                load: &self.load,
                blocks: self.blocks,
                seed: self.seed,
                lines: &lines,
                runs: &runs,
                void_runs: &voids,
                environment: Environment::here(),
            };
            write_json(path, &outcomes)?;
        }
        Ok(Outcome::Held)
    }

    /// One run that is not void; `None` when too many were.
    fn run(
        &self,
        side: Side,
        target: SocketAddr,
        voids: &mut Vec<String>,
    ) -> Result<Option<Report>, String> {
        for _ in 0..=VOID_REPEATS {
            let report = self.once(side, target)?;
            if run::interrupted() {
                return Err("interrupted".to_owned());
            }
            if !report.is_clean() {
                return Err(format!(
                    "{side:?}: the run is not clean: {}",
                    report.problems.join(", ")
                ));
            }
            match report.void.first() {
                None => return Ok(Some(report)),
                Some(why) => voids.push(format!("{side:?}: {why}")),
            }
        }
        Ok(None)
    }

    fn once(&self, side: Side, target: SocketAddr) -> Result<Report, String> {
        let (start, mut pid) = match side {
            Side::A => (&self.start_a, self.broker_pid_a),
            Side::B => (&self.start_b, self.broker_pid_b),
        };
        let started = start.as_ref().map(|command| Broker::start(command, target)).transpose()?;
        if let Some(broker) = &started {
            pid = Some(broker.child.id());
        }
        let mut job = load_of(&self.load)?;
        job.plan.target = target;
        job.options.broker_pid = pid;
        job.run(&mut |_| {}).map_err(|e| format!("{side:?}: {e}"))
    }

    fn progress(&self, run: &Run) {
        if self.quiet {
            return;
        }
        let shown: Vec<String> = COMPARED
            .iter()
            .filter_map(|(name, _)| {
                let value = run.values.get(*name)?;
                Some(format!("{name} {}", show(*value, super::dimension(name))))
            })
            .collect();
        eprintln!("block {:>3} {:?}: {}", run.block + 1, run.side, shown.join(", "));
    }
}

/// A broker that was started for one run; ends when it goes.
struct Broker {
    child: Child,
}

impl Broker {
    fn start(command: &str, target: SocketAddr) -> Result<Self, String> {
        if TcpStream::connect(target).is_ok() {
            return Err(format!("{target}: somebody listens there before `{command}` is started"));
        }
        let mut words = command.split_whitespace();
        let program = words.next().ok_or("a command to start a broker is empty")?;
        let child = Command::new(program)
            .args(words)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .map_err(|e| format!("{program}: {e}"))?;
        let mut broker = Self { child };
        let until = Instant::now() + LISTEN_WAIT;
        while TcpStream::connect(target).is_err() {
            let ended = broker.child.try_wait().map_err(|e: io::Error| e.to_string())?;
            if let Some(status) = ended {
                return Err(format!("`{command}` ended with {status}"));
            }
            if Instant::now() > until {
                return Err(format!("`{command}` does not listen at {target}"));
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(broker)
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        // SAFETY: a plain signal to a child that was not waited for, so its pid is still its own.
        unsafe { libc::kill(self.child.id() as libc::pid_t, libc::SIGTERM) };
        let until = Instant::now() + END_WAIT;
        while matches!(self.child.try_wait(), Ok(None)) && Instant::now() < until {
            std::thread::sleep(Duration::from_millis(10));
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn table(lines: &[Line]) -> String {
    let mut out = format!(
        "{:<32} {:>12} {:>12} {:>8}  {:<16} {}\n",
        "metric (medians)", "A", "B", "B/A", "95 % interval", "finding"
    );
    for line in lines {
        let interval = line.ratio.interval.map_or_else(
            || format!("{} pairs", line.ratio.pairs),
            |(low, high)| format!("{low:.3} … {high:.3}"),
        );
        let _ = writeln!(
            out,
            "{:<32} {:>12} {:>12} {:>8.3}  {interval:<16} {}",
            line.metric,
            show(line.a, line.dimension),
            show(line.b, line.dimension),
            line.ratio.median,
            said(line),
        );
    }
    if lines.is_empty() {
        out.push_str("nothing that both measured\n");
    }
    out
}

/// The finding, with who is better where the metric has a good end.
fn said(line: &Line) -> String {
    let better = COMPARED.iter().find(|(name, _)| *name == line.metric).map(|c| c.1);
    let winner = match (line.finding, better) {
        (Finding::BIsMore, Some(Better::More)) | (Finding::BIsLess, Some(Better::Less)) => "B",
        (Finding::BIsMore, Some(Better::Less)) | (Finding::BIsLess, Some(Better::More)) => "A",
        _ => return line.finding.to_string(),
    };
    format!("{}: {winner} is better", line.finding)
}

#[cfg(test)]
mod tests {
    use super::super::statistics::Ratio;
    use super::*;

    #[test]
    fn the_table_says_who_is_better_or_that_nothing_was_shown() {
        let line = |metric: &str, median: f64, interval| Line {
            metric: metric.to_owned(),
            dimension: crate::quantity::Dimension::Time,
            a: 100.0,
            b: 100.0 * median,
            ratio: Ratio { pairs: 6, median, interval: Some(interval), sign_p: 0.03 },
            finding: Ratio { pairs: 6, median, interval: Some(interval), sign_p: 0.03 }.finding(),
        };
        assert_eq!(said(&line("delivery.p99", 0.5, (0.4, 0.6))), "B is less: B is better");
        assert_eq!(said(&line("throughput", 0.5, (0.4, 0.6))), "B is less: A is better");
        assert_eq!(said(&line("throughput", 1.0, (0.9, 1.1))), "no difference shown");
        assert!(table(&[line("throughput", 1.0, (0.9, 1.1))]).contains("0.900 … 1.100"));
    }
}
