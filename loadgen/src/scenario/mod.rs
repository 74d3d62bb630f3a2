//! Scenario files: populations, stages and assertions as TOML.
//!
//! ```toml
//! name = "pairs"
//! assert = ["lost == 0", "delivery.p99 < 50ms"]
//!
//! [[population]]
//! name = "subscribers"
//! count = 10
//! subscribe = [{ filter = "pair/%i", qos = 1 }]
//! expect = { peer = "publishers" }
//!
//! [[population]]
//! name = "publishers"
//! count = 10
//! publish = { topic = "pair/%i", qos = 1, rate = 100 }
//!
//! [[stage]]
//! kind = "connect"
//!
//! [[stage]]
//! kind = "traffic"
//! duration_s = 1
//! ```
//!
//! Everything that is wrong with a file is reported at once, each with its line; a key that is not
//! known with the nearest that is.

mod population;
mod stage;
mod toml;

use std::net::{IpAddr, SocketAddr, ToSocketAddrs};
use std::path::Path;
use std::time::Duration;

use crate::address::automatic_sources;
use crate::assertion::Assertion;
use crate::metric::Metrics;
use crate::plan::{Backoff, End, Plan, Stage};

use self::toml::{Node, Reader, Table};
pub use self::toml::{Problem, Problems};

/// A scenario, whole and valid.
#[derive(Clone, Debug)]
pub struct Scenario {
    /// For reports.
    pub name: String,
    /// What it is about.
    pub description: String,
    /// What to run.
    pub plan: Plan,
    /// What must hold.
    pub assertions: Vec<Assertion>,
    /// The broker's process, to sample its cost.
    pub broker_pid: Option<u32>,
    /// Wait before memory is looked at.
    pub settle: Duration,
    /// Losses and broken order do not spoil the run.
    pub allow_loss: bool,
}

/// What the command line says on top of the file.
#[derive(Clone, Debug, Default)]
pub struct Overrides {
    /// `path.key=value`, see [`Scenario::load`].
    pub set: Vec<String>,
    /// `host:port` instead of the file's.
    pub target: Option<String>,
    /// The broker's process.
    pub broker_pid: Option<u32>,
    /// More assertions.
    pub assertions: Vec<String>,
}

const TARGET: &str = "127.0.0.1:1883";

/// Ends of connections by their word.
const ENDS: [(&str, End); 3] =
    [("disconnect", End::Disconnect), ("fin", End::Fin), ("rst", End::Rst)];

impl Scenario {
    /// Reads a file. `overrides.set` names an element of a list by its `name`, its `kind` or its
    /// index: `population.publishers.count=10`, `stage.traffic.duration_s=5`, `workers=2`.
    ///
    /// # Errors
    /// All that is wrong with the file and the options.
    pub fn load(path: &Path, overrides: &Overrides) -> Result<Self, Problems> {
        let file = path.display().to_string();
        match std::fs::read_to_string(path) {
            Ok(text) => Self::parse(&file, &text, overrides),
            Err(e) => {
                let message = format!("cannot read the scenario: {e}");
                let list = vec![Problem { line: None, option: None, message }];
                Err(Problems { file, list })
            }
        }
    }

    /// Reads text; `file` names it in errors.
    ///
    /// # Errors
    /// All that is wrong with the text and the options.
    pub fn parse(file: &str, text: &str, overrides: &Overrides) -> Result<Self, Problems> {
        let problems = |list| Problems { file: file.to_owned(), list };
        let mut root = toml::parse(text).map_err(problems)?;
        for option in &overrides.set {
            toml::set(&mut root, option).map_err(|message| {
                let option = Some(format!("--set {option}"));
                problems(vec![Problem { line: None, option, message }])
            })?;
        }
        let reader = Reader::default();
        let scenario = read(&reader, &root, overrides);
        match (scenario, reader.finish()) {
            (Some(scenario), list) if list.is_empty() => Ok(scenario),
            (_, list) => Err(problems(list)),
        }
    }
}

/// `None` where a problem left nothing to go on with; the reader has it.
fn read(reader: &Reader, root: &Node, overrides: &Overrides) -> Option<Scenario> {
    let top = reader.table("", root)?;
    let written = top.text("target");
    let target = overrides.target.as_deref().or(written).unwrap_or(TARGET);
    let target = resolve(target).map_err(|e| top.problem("target", format_args!("{e}"))).ok()?;
    let mut plan = Plan::new(target);
    read_machine(&top, &mut plan);
    plan.populations = population::read(&top);
    plan.stages = stage::read(&top, &plan.populations);
    let sources: Vec<(&Node, &str)> = top.texts("sources");
    for (node, text) in &sources {
        match text.parse::<IpAddr>() {
            Ok(ip) => plan.sources.push(SocketAddr::new(ip, 0)),
            Err(e) => reader.report(node, format!("sources: `{text}`: {e}")),
        }
    }
    if sources.is_empty() {
        plan.sources = automatic_sources(target, connections(&plan), crate::clock::now_ns() >> 10);
    }
    if let Err(message) = plan.check() {
        reader.report(root, message);
    }
    let assertions = read_assertions(&top, reader, &plan, overrides);
    Some(Scenario {
        name: top.text("name").unwrap_or("scenario").to_owned(),
        description: top.text("description").unwrap_or_default().trim().to_owned(),
        broker_pid: overrides.broker_pid.or(top.integer("broker_pid", 1..=i64::from(i32::MAX))),
        settle: top.seconds("settle_s").unwrap_or_default(),
        allow_loss: top.bool("allow_loss").unwrap_or(false),
        plan,
        assertions,
    })
}

fn read_machine(top: &Table<'_>, plan: &mut Plan) {
    if let Some(workers) = top.integer("workers", 1..=1024) {
        plan.workers = workers;
    }
    if let Some(seed) = top.integer("seed", 0..=i64::MAX) {
        plan.seed = seed;
    }
    if let Some(timeout) = top.seconds("connect_timeout_s") {
        plan.connect_timeout = timeout;
    }
    if let Some(end) = top.word("end", &ENDS) {
        plan.end = end;
    }
    plan.cpus = top.integers("cpus", 0..=4095);
    if let Some(table) = top.table("backoff") {
        let default = Backoff::default();
        plan.backoff = Backoff {
            first: table.seconds("first_s").unwrap_or(default.first),
            factor: table.positive("factor").unwrap_or(default.factor),
            max: table.seconds("max_s").unwrap_or(default.max),
            jitter: table.share("jitter").unwrap_or(default.jitter),
        };
    }
}

fn read_assertions(
    top: &Table<'_>,
    reader: &Reader,
    plan: &Plan,
    overrides: &Overrides,
) -> Vec<Assertion> {
    let there = Metrics::expected(plan);
    let mut assertions = Vec::new();
    let mut take = |text: &str, node: &Node| match text.parse::<Assertion>() {
        Ok(assertion) => match assertion.check(&there) {
            Ok(()) => assertions.push(assertion),
            Err(e) => reader.report(node, format!("assert: {e}")),
        },
        Err(e) => reader.report(node, format!("assert: {e}")),
    };
    for (node, text) in top.texts("assert") {
        take(text, node);
    }
    for text in &overrides.assertions {
        let value = toml::Value::Text(text.clone());
        take(text, &Node { line: None, option: Some(format!("--assert {text}")), value });
    }
    assertions
}

/// The first address of `host:port`.
///
/// # Errors
/// A sentence for the user.
pub fn resolve(target: &str) -> Result<SocketAddr, String> {
    let with_port = if target.parse::<IpAddr>().is_ok() || !target.contains(':') {
        let host = target.trim_matches(['[', ']']);
        (host, 1883).to_socket_addrs()
    } else {
        target.to_socket_addrs()
    };
    with_port
        .map_err(|e| format!("{target}: {e}"))?
        .next()
        .ok_or_else(|| format!("{target} has no address"))
}

/// Connections that a plan makes at least, for the choice of source addresses.
fn connections(plan: &Plan) -> usize {
    let clients = plan.clients();
    let again: usize = plan
        .stages
        .iter()
        .map(|stage| match &stage.stage {
            Stage::Storm { .. } => clients,
            Stage::Offline { population, .. } => {
                plan.populations.get(usize::from(*population)).map_or(0, |p| p.count as usize)
            }
            Stage::Churn { rate, duration, .. } => (rate * duration.as_secs_f64()) as usize,
            _ => 0,
        })
        .sum();
    clients * plan.cycles as usize + again
}

#[cfg(test)]
mod tests;
