//! Scenarios: what is measured, of whom, and what is held against a target.
//!
//! A scenario is one file below `scenarios/` and one line in its registry. It names its cases and
//! figures, and measures one case of one contender against a fresh server; rounds, order, failures,
//! open loops, tables and results are the framework's ([`run`], [`outcome`]).

pub(crate) mod outcome;
pub(crate) mod run;
pub(crate) mod traffic;

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::io;
use std::time::Duration;

use ringmain_load::cost::Sample;
use ringmain_load::environment::descriptor_limit;
use ringmain_load::report::Report;
use serde::Serialize;

use crate::contender::{Contender, Programs, Running};
use crate::load::{Found, Load};

/// What a scenario is to the framework.
pub(crate) trait Scenario: Sync {
    /// Its name on the command line.
    fn name(&self) -> &'static str;
    /// One line that says what it measures.
    fn about(&self) -> &'static str;
    /// Its figures, in the order of the table.
    fn figures(&self) -> &'static [FigureKind];
    /// What is measured, one after the other in each round.
    fn cases(&self, scale: &Scale) -> Vec<Case>;
    /// Measures one case of one contender, which it starts itself.
    ///
    /// # Errors
    /// What the contender did wrong, or why the benchmark cannot go on.
    fn measure(&self, cx: &Cx<'_>, case: &Case) -> Result<Figures, Failure>;

    /// What the figures of Ringmain are held against.
    fn targets(&self) -> &'static [Target] {
        &[]
    }

    /// What is missing of it, or how it differs from what its name promises.
    fn remarks(&self, _: &Scale) -> Vec<String> {
        Vec::new()
    }

    /// Open loops at a share of the maxima that the cases found.
    fn open_loops(&self, _: &Scale) -> Vec<OpenLoop> {
        Vec::new()
    }

    /// Whether it runs only when it is named: it takes long, or changes what others measure.
    fn on_request(&self) -> bool {
        false
    }

    /// Whether peers take part.
    fn peers_take_part(&self) -> bool {
        true
    }
}

/// How large a run is.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct Scale {
    /// One round of short runs: shows that it works, not what it costs.
    pub(crate) quick: bool,
    /// Seconds of measured traffic.
    pub(crate) seconds: f64,
    /// Protocol version of the clients: 4 (3.1.1) or 5.
    pub(crate) protocol: u8,
    /// Connections that a server with an ordinary descriptor for each can hold.
    pub(crate) connections_max: u32,
}

impl Scale {
    /// For a run with or without `--quick`.
    pub(crate) fn new(quick: bool, seconds: Option<f64>, protocol: u8) -> Self {
        let seconds = seconds.unwrap_or(if quick { 1.0 } else { 3.0 });
        // Some descriptors are listeners, pipes and files; ours count alike.
        let connections_max = u32::try_from(descriptor_limit().saturating_sub(500)).unwrap_or(64);
        Self { quick, seconds, protocol, connections_max: connections_max.min(60_000) }
    }

    /// One of two values.
    pub(crate) fn pick<T>(&self, full: T, quick: T) -> T {
        if self.quick { quick } else { full }
    }
}

/// One thing that a scenario measures.
#[derive(Clone, Debug, Default, Serialize)]
pub(crate) struct Case {
    /// In tables and targets.
    pub(crate) name: String,
    /// Arguments of the generator, where one command is all of it.
    pub(crate) args: Vec<String>,
    /// A number that the scenario wants back.
    pub(crate) count: u32,
    /// Whether the bare server takes part.
    pub(crate) floor: bool,
}

impl Case {
    /// A case that one command of the generator makes.
    pub(crate) fn command(name: impl Into<String>, args: &str) -> Self {
        let args = args.split_whitespace().map(str::to_owned).collect();
        Self { name: name.into(), args, ..Self::default() }
    }

    /// A case with a number.
    pub(crate) fn of(name: impl Into<String>, count: u32) -> Self {
        Self { name: name.into(), count, ..Self::default() }
    }

    /// The bare server takes part.
    pub(crate) fn with_floor(self) -> Self {
        Self { floor: true, ..self }
    }
}

/// A figure's place in tables.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct FigureKind {
    /// In results and targets.
    pub(crate) key: &'static str,
    /// Head of the column.
    pub(crate) label: &'static str,
    /// Digits after the point.
    pub(crate) decimals: usize,
    /// Whether less is better.
    pub(crate) less_is_better: bool,
}

/// A figure of which less is better.
pub(crate) const fn less(key: &'static str, label: &'static str, decimals: usize) -> FigureKind {
    FigureKind { key, label, decimals, less_is_better: true }
}

/// A figure of which more is better.
pub(crate) const fn more(key: &'static str, label: &'static str, decimals: usize) -> FigureKind {
    FigureKind { key, label, decimals, less_is_better: false }
}

/// What one measurement found, by key.
pub(crate) type Figures = BTreeMap<&'static str, f64>;

/// What Ringmain's median is held against.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Against {
    /// At most so much.
    AtMost(f64),
    /// At least so much.
    AtLeast(f64),
    /// At most so many times the bare server's.
    Floor(f64),
    /// So many times better than mosquitto's.
    Mosquitto(f64),
    /// So many times better than that of the best peer.
    BestPeer(f64),
}

/// A target of Ringmain.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Target {
    /// A case, or what its name starts with.
    pub(crate) case: &'static str,
    /// Key of a figure.
    pub(crate) figure: &'static str,
    /// What it is held against.
    pub(crate) against: Against,
}

/// A target in one line.
pub(crate) const fn target(case: &'static str, figure: &'static str, against: Against) -> Target {
    Target { case, figure, against }
}

/// An open loop whose rate comes from the maximum of a closed one.
#[derive(Clone, Debug)]
pub(crate) struct OpenLoop {
    /// Name of the case whose `messages_per_s` count.
    pub(crate) of: String,
    /// Arguments of the generator without the interval.
    pub(crate) args: Vec<String>,
    /// Publishers that share the rate.
    pub(crate) publishers: u32,
    /// Deliveries that a message makes.
    pub(crate) fan_out: u32,
}

/// Why there are no figures.
#[derive(Debug)]
pub(crate) enum Failure {
    /// What the contender did: a line for the table.
    Contender(String),
    /// The benchmark itself cannot go on.
    Bench(io::Error),
}

impl From<io::Error> for Failure {
    fn from(e: io::Error) -> Self {
        Self::Bench(e)
    }
}

/// Says what a contender did wrong.
pub(crate) fn fails<T>(why: impl Into<String>) -> Result<T, Failure> {
    Err(Failure::Contender(why.into()))
}

/// The surroundings of one measurement.
pub(crate) struct Cx<'a> {
    pub(crate) programs: &'a Programs,
    pub(crate) contender: &'a Contender,
    pub(crate) scale: Scale,
    pub(crate) port: u16,
    /// Why figures of this measurement are not to be trusted: the generator's own reasons.
    pub(crate) void: RefCell<Vec<String>>,
}

impl Cx<'_> {
    /// Starts the contender.
    ///
    /// # Errors
    /// A contender that does not start has failed.
    pub(crate) fn start(&self) -> Result<Running, Failure> {
        self.contender
            .start(self.programs, self.port)
            .map_err(|e| Failure::Contender(format!("did not start: {e}")))
    }

    /// Starts the contender with so many shards and further `--set` options, if it is Ringmain.
    ///
    /// # Errors
    /// As [`Self::start`].
    pub(crate) fn start_sharded(&self, shards: usize, more: &[&str]) -> Result<Running, Failure> {
        let Contender::Ringmain { set, .. } = self.contender else { return self.start() };
        let set = set.iter().cloned().chain(more.iter().map(|&s| s.to_owned())).collect();
        Contender::Ringmain { shards, set }
            .start(self.programs, self.port)
            .map_err(|e| Failure::Contender(format!("did not start: {e}")))
    }

    /// The options that every command of the generator gets.
    fn common(&self, args: &[String]) -> Vec<String> {
        let mut all = args.to_vec();
        all.extend(["-V".to_owned(), self.scale.protocol.to_string()]);
        all
    }

    /// Starts a generator beside others.
    ///
    /// # Errors
    /// When the program does not run.
    pub(crate) fn begin(&self, server: &Running, args: &[String]) -> Result<Load, Failure> {
        Ok(Load::start(self.programs, server, &self.common(args))?)
    }

    /// Runs a generator; a run that is not clean is the contender's failure.
    ///
    /// # Errors
    /// What went wrong, and how the contender ended if it did.
    pub(crate) fn load(&self, server: &mut Running, args: &[String]) -> Result<Report, Failure> {
        let load = self.begin(server, args)?;
        let found = load.wait(self.scale.pick(LOAD_MAX, LOAD_MAX_QUICK))?;
        self.clean(server, found)
    }

    /// As [`Self::load`], with the arguments in one text.
    ///
    /// # Errors
    /// As [`Self::load`].
    pub(crate) fn load_text(&self, server: &mut Running, args: &str) -> Result<Report, Failure> {
        let args: Vec<String> = args.split_whitespace().map(str::to_owned).collect();
        self.load(server, &args)
    }

    /// The report of a clean run.
    ///
    /// # Errors
    /// What went wrong, and how the contender ended if it did.
    pub(crate) fn clean(&self, server: &mut Running, found: Found) -> Result<Report, Failure> {
        if let Err(death) = server.check_alive(&self.contender.name()) {
            return fails(death.to_string());
        }
        self.void.borrow_mut().extend(found.void);
        match found.report {
            Some(report) if found.problems.is_empty() => Ok(report),
            Some(_) => fails(found.problems.join("; ")),
            // The server lives, so it is the generator that is wrong.
            None => Err(Failure::Bench(io::Error::other(found.problems.join("; ")))),
        }
    }

    /// A look at the server's process.
    ///
    /// # Errors
    /// When it has ended.
    pub(crate) fn sample(&self, server: &mut Running) -> Result<Option<Sample>, Failure> {
        if let Err(death) = server.check_alive(&self.contender.name()) {
            return fails(death.to_string());
        }
        let Some(pid) = server.pid else { return Ok(None) };
        match Sample::of(pid) {
            Ok(sample) => Ok(Some(sample)),
            Err(e) => fails(format!("its process is gone: {e}")),
        }
    }
}

/// A generator that takes longer has lost its broker.
const LOAD_MAX: Duration = Duration::from_secs(300);
const LOAD_MAX_QUICK: Duration = Duration::from_secs(40);

/// What a figure of the server's process grew by from one moment to another; NaN where its process
/// is not known.
pub(crate) fn grown(report: &Report, from: &str, to: &str, of: fn(&Sample) -> u64) -> f64 {
    match (report.broker_at(from), report.broker_at(to)) {
        (Some(from), Some(to)) => of(to) as f64 - of(from) as f64,
        _ => f64::NAN,
    }
}

/// The same between two samples.
pub(crate) fn grown_by(from: Option<&Sample>, to: Option<&Sample>, of: fn(&Sample) -> u64) -> f64 {
    match (from, to) {
        (Some(from), Some(to)) => of(to) as f64 - of(from) as f64,
        _ => f64::NAN,
    }
}
