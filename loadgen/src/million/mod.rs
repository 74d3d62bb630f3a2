//! `ringmain-load million`: a million connections with a subscription each, from one process to one
//! broker process, shown to be served.
//!
//! ```text
//! preflight ─ start the broker ─ connect all ─ keep alive ─ a message to each ─ traffic beside
//!     ─ storm: drop all, all come back ─ a message to each again ─ close ─ stop the broker
//! ```
//!
//! [`options`] is the command line, `plan.rs` what it means to the load generator, [`host`] what the
//! kernel spends, [`report`] what comes out.

pub mod broker;
pub mod host;
mod netns;
pub mod options;
mod plan;
pub mod report;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use ringmain_kernel_params::{Capacity, Needs, check};

use crate::preflight;
use crate::run::{self, RunOptions};
use crate::snapshot::Snapshot;
use broker::Broker;
use host::HostMemory;
use options::Options;
use report::Million;

/// How often a progress line is printed.
const PROGRESS_EVERY: Duration = Duration::from_secs(1);
/// Memory is looked at this long after the last connection is ready: the allocators and the kernel
/// have put away by then what only connecting needs.
const SETTLE: Duration = Duration::from_secs(2);

/// Does what the options say. Prints the preflight, progress to stderr, and the result.
///
/// Returns whether there were no errors (and, with `--strict`, no target was missed).
///
/// # Errors
/// When the run cannot be made at all.
pub fn main(o: &Options) -> Result<bool, String> {
    let verdict = preflight_of(o)?;
    print!("{}", verdict.to_text());
    if o.preflight {
        return Ok(verdict.is_enough());
    }
    let million = run(o, verdict)?;
    print!("{}", million.to_text());
    if let Some(path) = &o.json {
        // Most of it are the pairs of histograms: a line for each number would be of use to nobody.
        let json = serde_json::to_string(&million).map_err(|e| e.to_string())? + "\n";
        std::fs::write(path, json).map_err(|e| format!("{}: {e}", path.display()))?;
    }
    Ok(million.is_clean() && !(o.strict && million.misses_targets()))
}

/// What of the run fits on this host. With `--netns` the calling thread is in the namespace afterwards.
///
/// # Errors
/// When the options contradict each other, or the namespace cannot be had.
pub fn preflight_of(o: &Options) -> Result<Capacity, String> {
    o.check()?;
    let connections = u64::from(o.count) + o.busy();
    let mut facts = preflight::facts(o.target(), o.ifaddr.len());
    if o.netns {
        netns::enter(connections)?;
        facts = preflight::facts(o.target(), o.ifaddr.len()).with_hidden(&facts);
    }
    if o.host.is_some() {
        facts.broker_descriptors = running_broker(o).and_then(broker::descriptors_of);
    }
    Ok(check(&facts, Needs { connections, storm: !o.no_storm }))
}

/// Runs it, with as many connections as fit.
///
/// # Errors
/// When nothing fits, or the broker or the load cannot be started.
pub fn run(o: &Options, verdict: Capacity) -> Result<Million, String> {
    let count = verdict.fits.saturating_sub(o.busy()).min(u64::from(o.count)) as u32;
    if count == 0 {
        return Err("not a single connection fits".into());
    }
    let before = HostMemory::now();
    let plan = plan::plan(o, count)?;
    let clients = plan.clients() as u64;
    let started = match o.host {
        Some(_) => None,
        None => {
            let binary = broker::find_binary(o.broker.as_deref())?;
            let started = Broker::start(&binary, o.target(), clients, &o.set);
            Some(started.map_err(|e| e.to_string())?)
        }
    };
    let pid = started.as_ref().map(Broker::pid).or_else(|| running_broker(o));
    let options = RunOptions { broker_pid: pid, settle: SETTLE, ..RunOptions::default() };
    run::catch_signals();
    let mut watch = Watch::new(o, before);
    let outcome = run::run(plan, &options, &mut |s| watch.look(s));
    let stopped = started.map(Broker::stop);
    let mut run = outcome.map_err(|e| e.to_string())?;
    run.problems.append(&mut watch.problems);
    if let Some(Err(e)) = stopped {
        run.problems.push(e.to_string());
    }
    Ok(Million { verdict, count: u64::from(count), clients, host: watch.host, run })
}

fn running_broker(o: &Options) -> Option<u32> {
    o.broker_pid
        .or_else(|| o.target().ip().is_loopback().then(|| broker::listener_of(o.port)).flatten())
}

/// Looks at the host while the run goes on.
struct Watch {
    floor: u64,
    quiet: bool,
    printed: Instant,
    host: BTreeMap<String, HostMemory>,
    problems: Vec<String>,
}

impl Watch {
    fn new(o: &Options, before: HostMemory) -> Self {
        Self {
            floor: o.memory_floor << 20,
            quiet: o.quiet,
            printed: Instant::now(),
            host: BTreeMap::from([(report::BEFORE.to_owned(), before)]),
            problems: Vec::new(),
        }
    }

    fn look(&mut self, s: &Snapshot) {
        if let Some(available) = host::available()
            && available < self.floor
            && !run::interrupted()
        {
            self.problems.push(format!(
                "ended early: {} MiB of memory were left on this host, with {} connections",
                available >> 20,
                s.counters.live
            ));
            run::interrupt();
        }
        if s.stage_ended {
            self.host.insert(s.stage_name.clone(), HostMemory::now());
        }
        if !self.quiet && (s.stage_ended || self.printed.elapsed() >= PROGRESS_EVERY) {
            self.printed = Instant::now();
            eprintln!("{}", line(s));
        }
    }
}

fn line(s: &Snapshot) -> String {
    let mut line = format!(
        "{:7.1} s  {}: {} of {} live, +{:.0}/s",
        s.elapsed.as_secs_f64(),
        s.stage_name,
        s.counters.live,
        s.clients,
        s.rates.ready
    );
    if s.rates.sent + s.rates.delivered > 0.0 {
        line += &format!(", {:.0} sent/s, {:.0} delivered/s", s.rates.sent, s.rates.delivered);
    }
    if let Some(cpu) = s.broker_cpu {
        line += &format!(", broker {:.0} % CPU", cpu * 100.0);
    }
    line + &format!(", generator {:.0} %", s.generator_cpu * 100.0)
}
