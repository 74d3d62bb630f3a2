//! What came out, and what was to come out.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use serde::{Deserialize, Serialize};

use super::host::HostMemory;
use super::plan::stage;
use crate::report::{Latency, Report, StageReport};
use ringmain_kernel_params::Capacity;

/// The moment before the broker was started.
pub const BEFORE: &str = "before";
/// Connections from which on the targets are judged: they are for a million.
const JUDGED_FROM: u64 = 1_000_000;
/// Seconds until all are connected and subscribed.
const CONNECT_MAX_S: f64 = 60.0;
/// Bytes of user memory of the broker.
const USER_BYTES_MAX: f64 = 0.4e9;
/// Share of one core that keep-alives may take.
const KEEP_ALIVE_MAX: f64 = 0.02;
/// Seconds until all are back after a storm.
const STORM_MAX_S: f64 = 120.0;
/// Attempts of any client in a storm.
const ATTEMPTS_MAX: usize = 3;
/// Caches of the kernel that are told.
const CACHES_TOLD: usize = 6;

/// The result of `million`.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Million {
    /// What the preflight said.
    pub verdict: Capacity,
    /// Idle connections with a subscription each.
    pub count: u64,
    /// All connections.
    pub clients: u64,
    /// The host before the broker was started, and at the end of each stage.
    pub host: BTreeMap<String, HostMemory>,
    /// What the load generator says.
    pub run: Report,
}

/// A figure with its target.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Check {
    /// What.
    pub what: &'static str,
    /// What was measured.
    pub value: f64,
    /// The most that it may be.
    pub target: f64,
    /// Of both.
    pub unit: &'static str,
}

impl Check {
    /// Whether the target is met.
    #[must_use]
    pub fn is_met(&self) -> bool {
        self.value <= self.target
    }
}

impl Million {
    /// Whether everything that was to happen happened, without an error.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        self.run.is_clean()
    }

    /// Whether any target that applies was missed.
    #[must_use]
    pub fn misses_targets(&self) -> bool {
        self.checks().iter().any(|c| !c.is_met())
    }

    /// The targets for a million with what was measured; empty for smaller runs.
    #[must_use]
    pub fn checks(&self) -> Vec<Check> {
        if self.count < JUDGED_FROM {
            return Vec::new();
        }
        let check = |what, unit, target, value: Option<f64>| {
            Some(Check { what, value: value?, target, unit })
        };
        let storm = self.stage(stage::STORM);
        [
            check("connect and subscribe all", "s", CONNECT_MAX_S, self.connect_s()),
            check("user memory of the broker", "B", USER_BYTES_MAX, self.user_bytes()),
            check("keep-alive, share of a core", "", KEEP_ALIVE_MAX, self.keep_alive_share()),
            check("storm: all back", "s", STORM_MAX_S, storm.and_then(|s| s.recovery_s)),
            check(
                "storm: attempts of a client",
                "",
                ATTEMPTS_MAX as f64,
                storm.map(|s| most_attempts(s) as f64),
            ),
        ]
        .into_iter()
        .flatten()
        .collect()
    }

    fn stage(&self, name: &str) -> Option<&StageReport> {
        self.run.stages.iter().find(|s| s.name == name)
    }

    /// Seconds until the last client was ready. The stage's own time holds a wait for memory to
    /// settle as well.
    fn connect_s(&self) -> Option<f64> {
        (self.run.connect_s > 0.0).then_some(self.run.connect_s)
    }

    /// Anonymous bytes of the broker with all connected, its code and rings apart: what grew with
    /// the connections and what was there before.
    fn user_bytes(&self) -> Option<f64> {
        let sample = self.stage(stage::CONNECT)?.broker_after.as_ref()?;
        Some(sample.anonymous as f64)
    }

    /// `None` where the hold was too short for each client to have to ping.
    fn keep_alive_share(&self) -> Option<f64> {
        let hold = self.stage(stage::HOLD).filter(|s| s.counters.pings >= self.clients)?;
        Some(broker_cpu_ns(hold)? / 1e9 / hold.seconds)
    }

    /// The result as lines for people.
    #[must_use]
    pub fn to_text(&self) -> String {
        let mut out = String::new();
        self.write_text(&mut out).expect("a String takes any text");
        out
    }

    fn write_text(&self, out: &mut String) -> std::fmt::Result {
        let env = &self.run.environment;
        writeln!(
            out,
            "machine     {} CPUs ({}), {} MiB, Linux {}, RLIMIT_NOFILE {}",
            env.cpus, env.cpu, env.memory_mib, env.kernel, env.descriptors
        )?;
        self.write_connect(out)?;
        self.write_memory(out)?;
        for s in &self.run.stages {
            match s.name.as_str() {
                stage::HOLD => write_hold(out, s)?,
                stage::EACH | stage::AGAIN | stage::PAIRS => write_traffic(out, s)?,
                stage::STORM => write_storm(out, s)?,
                _ => {}
            }
        }
        if let Some(a) = &self.run.account {
            writeln!(
                out,
                "checked     {} received, {} lost, {} duplicates, {} out of order",
                a.received, a.lost, a.duplicates, a.out_of_order
            )?;
        }
        self.run.faults.iter().try_for_each(|(f, n)| writeln!(out, "fault       {n} × {f}"))?;
        self.run.remarks.iter().try_for_each(|r| writeln!(out, "remark      {r}"))?;
        self.run.void.iter().try_for_each(|v| writeln!(out, "VOID        {v}"))?;
        self.write_conclusion(out)
    }

    fn write_connect(&self, out: &mut String) -> std::fmt::Result {
        let (Some(s), Some(seconds)) = (self.stage(stage::CONNECT), self.connect_s()) else {
            return Ok(());
        };
        let ready = s.counters.ready.max(1) as f64;
        write!(
            out,
            "connect     {} connected and subscribed in {seconds:.1} s ({:.0}/s); CPU each: ",
            s.counters.ready,
            ready / seconds
        )?;
        if let Some(broker) = broker_cpu_ns(s) {
            write!(out, "broker {:.1} µs, ", broker / ready / 1e3)?;
        }
        writeln!(out, "generator {:.1} µs", s.generator_cpu_ns as f64 / ready / 1e3)?;
        write_latencies(out, &s.latencies, &["connect", "subscribe"])
    }

    fn write_memory(&self, out: &mut String) -> std::fmt::Result {
        let clients = self.clients.max(1) as f64;
        if let Some(s) = self.stage(stage::CONNECT)
            && let (Some(start), Some(now)) = (&s.broker_before, &s.broker_after)
        {
            let each = now.anonymous.saturating_sub(start.anonymous) as f64 / clients;
            writeln!(
                out,
                "broker      {:.1} MB anonymous, {:.1} MB PSS; {each:.0} bytes a connection",
                now.anonymous as f64 / 1e6,
                now.pss as f64 / 1e6
            )?;
        }
        let rss = self.run.generator.rss as f64;
        writeln!(
            out,
            "generator   {:.1} MB resident, {} rings; {:.0} bytes a connection",
            rss / 1e6,
            self.run.rings,
            rss / clients
        )?;
        let (Some(before), Some(now)) = (self.host.get(BEFORE), self.host.get(stage::CONNECT))
        else {
            return Ok(());
        };
        writeln!(
            out,
            "kernel      {:.0} bytes a connection, all ends on this host and the rings: growth of \
             Slab, KernelStack, PageTables, Percpu (/proc/meminfo) and TCP buffers (sockstat)",
            now.kernel_since(before) as f64 / clients
        )?;
        let grown = now.grown_since(before, CACHES_TOLD);
        if !grown.is_empty() {
            let told: Vec<String> = grown
                .iter()
                .map(|(name, bytes)| format!("{name} {:.0}", *bytes as f64 / clients))
                .collect();
            writeln!(out, "            bytes of it: {}", told.join(", "))?;
        }
        Ok(())
    }

    fn write_conclusion(&self, out: &mut String) -> std::fmt::Result {
        for c in self.checks() {
            let word = if c.is_met() { "met" } else { "MISSED" };
            let (value, target) = (readable(c.value, c.unit), readable(c.target, c.unit));
            writeln!(out, "target      {}: {value}, at most {target}: {word}", c.what)?;
        }
        if !self.verdict.is_enough() {
            let (fits, wanted) = (self.verdict.fits, self.verdict.wanted);
            writeln!(out, "SMALLER     {fits} of {wanted} connections, see the preflight")?;
        }
        match self.run.problems.as_slice() {
            [] => writeln!(out, "no errors"),
            problems => problems.iter().try_for_each(|p| writeln!(out, "ERROR       {p}")),
        }
    }
}

fn broker_cpu_ns(s: &StageReport) -> Option<f64> {
    let (before, after) = (s.broker_before.as_ref()?, s.broker_after.as_ref()?);
    Some(after.cpu_ns.saturating_sub(before.cpu_ns) as f64)
}

/// The most attempts that a client needed to become ready.
fn most_attempts(s: &StageReport) -> usize {
    s.counters.attempts_needed.iter().rposition(|&n| n > 0).map_or(0, |i| i + 1)
}

fn write_hold(out: &mut String, s: &StageReport) -> std::fmt::Result {
    write!(
        out,
        "keep alive  {:.0} s, {} pings ({:.0}/s), {} unanswered",
        s.seconds,
        s.counters.pings,
        s.counters.pings as f64 / s.seconds.max(1e-9),
        s.counters.pings_unanswered
    )?;
    if let Some(cpu) = broker_cpu_ns(s) {
        write!(out, "; broker {:.2} % of a core", cpu / 1e7 / s.seconds.max(1e-9))?;
        match s.counters.pings {
            0 => write!(out, " with no ping due")?,
            pings => write!(out, ", {:.1} µs a ping", cpu / 1e3 / pings as f64)?,
        }
    }
    let generator = s.generator_cpu_ns as f64 / 1e7 / s.seconds.max(1e-9);
    writeln!(out, "; generator {generator:.2} %")
}

fn write_traffic(out: &mut String, s: &StageReport) -> std::fmt::Result {
    let seconds = s.seconds.max(1e-9);
    write!(
        out,
        "{:<11} {} sent, {} delivered in {seconds:.1} s ({:.0}/s)",
        s.name,
        s.counters.sent,
        s.counters.delivered,
        s.counters.delivered as f64 / seconds
    )?;
    if let Some(cpu) = broker_cpu_ns(s) {
        let each = cpu / 1e3 / s.counters.delivered.max(1) as f64;
        write!(out, "; broker {:.1} % of a core, {each:.1} µs a message", cpu / 1e7 / seconds)?;
    }
    writeln!(out)?;
    write_latencies(out, &s.latencies, &["delivery", "ack"])
}

fn write_storm(out: &mut String, s: &StageReport) -> std::fmt::Result {
    let c = &s.counters;
    writeln!(
        out,
        "storm       {} back {:.1} s after all were dropped; {} attempts, {} failed; CPU: broker \
         {:.1} s, generator {:.1} s",
        c.ready,
        s.recovery_s.unwrap_or(s.seconds),
        c.attempts,
        c.failed,
        broker_cpu_ns(s).unwrap_or(0.0) / 1e9,
        s.generator_cpu_ns as f64 / 1e9
    )?;
    let needed = c.attempts_needed.iter().enumerate().filter(|&(_, &n)| n > 0);
    let needed: Vec<String> = needed.map(|(i, n)| format!("{n} with {}", i + 1)).collect();
    writeln!(out, "            attempts: {}", needed.join(", "))?;
    write_latencies(out, &s.latencies, &["connect", "subscribe"])
}

fn write_latencies(
    out: &mut String,
    latencies: &BTreeMap<String, Latency>,
    names: &[&str],
) -> std::fmt::Result {
    let ms = |ns: u64| ns as f64 / 1e6;
    for name in names {
        let Some(l) = latencies.get(*name).filter(|l| l.count > 0) else { continue };
        writeln!(
            out,
            "            {name}: p50 {:.3} ms, p99 {:.3}, p99.9 {:.3}, max {:.3}",
            ms(l.p50),
            ms(l.p99),
            ms(l.p999),
            ms(l.max)
        )?;
    }
    Ok(())
}

fn readable(value: f64, unit: &str) -> String {
    match unit {
        "B" => format!("{:.0} MB", value / 1e6),
        "s" => format!("{value:.1} s"),
        _ if value < 1.0 => format!("{:.2} %", value * 100.0),
        _ => format!("{value:.0}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cost::Sample;
    use crate::stats::Counters;

    fn sample(cpu_ns: u64, anonymous: u64) -> Option<Sample> {
        Some(Sample { cpu_ns, anonymous, ..Sample::default() })
    }

    fn stage_of(name: &str, seconds: f64, cpu_ns: u64, attempts_needed: [u64; 8]) -> StageReport {
        StageReport {
            name: name.to_owned(),
            seconds,
            broker_before: sample(0, 14_000_000),
            broker_after: sample(cpu_ns, 356_000_000),
            recovery_s: Some(seconds),
            counters: Counters { attempts_needed, ready: 1_000_201, ..Counters::default() },
            ..StageReport::default()
        }
    }

    fn million() -> Million {
        let mut held = stage_of(stage::HOLD, 600.0, 11_000_000_000, [0; 8]);
        held.counters.pings = 2_000_402;
        let stages = vec![
            stage_of(stage::CONNECT, 52.0, 45_000_000_000, [0; 8]),
            held,
            stage_of(stage::STORM, 90.0, 1, [1_000_000, 200, 1, 0, 0, 0, 0, 0]),
        ];
        let run = Report { connect_s: 50.0, stages, ..Report::default() };
        Million { count: 1_000_000, clients: 1_000_201, run, ..Million::default() }
    }

    #[test]
    fn a_million_within_its_targets_meets_all_five() {
        let m = million();
        let values: Vec<f64> = m.checks().iter().map(|c| c.value).collect();
        assert_eq!(values, [50.0, 356e6, 11.0 / 600.0, 90.0, 3.0]);
        assert!(!m.misses_targets());
        assert!(m.to_text().contains("342 bytes a connection"), "{}", m.to_text());
    }

    #[test]
    fn a_hold_in_which_not_all_had_to_ping_says_nothing_of_keep_alives() {
        let mut m = million();
        m.run.stages[1].counters.pings = 1_000_200;
        assert_eq!(m.checks().len(), 4);
        m.run.stages[1].counters.pings = 0;
        assert!(m.to_text().contains("with no ping due"), "{}", m.to_text());
    }

    #[test]
    fn a_client_that_needed_a_fourth_attempt_misses_the_target() {
        let mut m = million();
        m.run.stages[2].counters.attempts_needed[3] = 1;
        let missed: Vec<&str> = m.checks().iter().filter(|c| !c.is_met()).map(|c| c.what).collect();
        assert_eq!(missed, ["storm: attempts of a client"]);
        assert!(m.to_text().contains("MISSED"));
    }

    #[test]
    fn targets_for_a_million_are_not_judged_by_less() {
        let m = Million { count: 999_999, ..million() };
        assert!(m.checks().is_empty() && !m.misses_targets());
    }

    #[test]
    fn an_error_is_named_and_a_run_without_says_so() {
        let mut m = million();
        assert!(m.is_clean() && m.to_text().contains("no errors"));
        m.run.problems.push("57656 messages lost".to_owned());
        assert!(!m.is_clean() && m.to_text().contains("ERROR       57656 messages lost"));
    }
}
