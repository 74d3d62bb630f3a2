//! What a run found, as data and as lines.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::ops::Deref;

use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};

use crate::cost::Sample;
use crate::environment::Environment;
use crate::stamp::Account;
use crate::stats::Counters;

/// The result of a run.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Report {
    /// Version of this program.
    pub version: String,
    /// The command line.
    pub command: Vec<String>,
    /// The machine.
    pub environment: Environment,
    /// Clients of all populations.
    pub clients: u64,
    /// Threads of the generator.
    pub workers: usize,
    /// Rings of the generator, over all threads.
    pub rings: usize,
    /// Seconds until all were connected.
    pub connect_s: f64,
    /// Counts.
    pub counters: Counters,
    /// What subscribers got, where it was checked.
    pub account: Option<Account>,
    /// The part of the traffic that was measured.
    pub traffic: Option<Traffic>,
    /// Latencies in ns: `connect`, `subscribe`, `ack`, `delivery`, and in an open loop `lag` (from
    /// when a message was due until it was sent).
    pub latencies: BTreeMap<String, Latency>,
    /// The generator's own cost.
    pub generator: Generator,
    /// The broker's cost at named moments.
    pub broker: Vec<Mark>,
    /// What went wrong, by kind.
    pub faults: BTreeMap<String, u64>,
    /// Why the run is not clean; empty if it is.
    pub problems: Vec<String>,
    /// Why the latencies and rates of the run mean nothing: the generator itself failed. Empty if
    /// it did not.
    #[serde(default)]
    pub void: Vec<String>,
    /// What may explain a surprise, but spoils nothing.
    #[serde(default)]
    pub remarks: Vec<String>,
    /// What all random choices depended on.
    #[serde(default)]
    pub seed: u64,
    /// One entry for each stage, in order.
    #[serde(default)]
    pub stages: Vec<StageReport>,
    /// What happened over time: a row every 250 ms.
    #[serde(default)]
    pub series: Vec<Row>,
}

/// The latencies of one kind, in ns. For Rust and in JSON it has the fields of the corrected
/// summary itself.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Latency {
    /// From when the operation was due.
    #[serde(flatten)]
    pub corrected: Summary,
    /// From when it was really begun. In a closed loop the same.
    #[serde(default)]
    pub raw: Option<Summary>,
    /// The histogram behind `corrected`: value and count, values ascending, zeroes left out.
    #[serde(default)]
    pub histogram: Vec<(u64, u64)>,
    /// The histogram behind `raw`; empty where it is the same.
    #[serde(default)]
    pub raw_histogram: Vec<(u64, u64)>,
}

impl Deref for Latency {
    type Target = Summary;

    fn deref(&self) -> &Summary {
        &self.corrected
    }
}

/// What one stage did.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct StageReport {
    /// Its name.
    pub name: String,
    /// `connect`, `hold`, `traffic`, `drain`, `offline`, `storm`, `churn` or `close`.
    pub kind: String,
    /// Seconds from the run's start to its own.
    pub start_s: f64,
    /// How long it took. Of traffic, the measured part.
    pub seconds: f64,
    /// What it counted; `live`, `waiting`, `opening` and `closing` are as they were at its end.
    pub counters: Counters,
    /// Latencies of this stage alone, without histograms.
    pub latencies: BTreeMap<String, Latency>,
    /// The broker before it; of traffic, when measuring began.
    pub broker_before: Option<Sample>,
    /// The broker after it.
    pub broker_after: Option<Sample>,
    /// CPU time of the generator in ns.
    pub generator_cpu_ns: u64,
    /// After a storm: seconds from the first close until the last client was back.
    pub recovery_s: Option<f64>,
}

/// What happened in one interval of [`Report::series`].
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub struct Row {
    /// Seconds from the run's start to the end of the interval.
    pub at_s: f64,
    /// Index of the stage.
    pub stage: u32,
    /// Connections that are ready.
    pub live: u64,
    /// Connections that became ready, a second.
    pub ready_per_s: f64,
    /// Messages sent a second.
    pub sent_per_s: f64,
    /// Messages delivered a second.
    pub delivered_per_s: f64,
    /// Attempts that failed and connections that broke, so far.
    pub errors: u64,
    /// Corrected delivery latency (where nothing is delivered: of acknowledgements, else of
    /// connections) in the interval, in ns; 0 without any.
    pub p50: u64,
    /// See `p50`.
    pub p99: u64,
    /// See `p50`.
    pub p999: u64,
    /// See `p50`.
    pub max: u64,
    /// The generator's CPU time as a share of one core.
    pub generator_cpu: f64,
    /// The broker's CPU time as a share of one core.
    pub broker_cpu: Option<f64>,
    /// Resident bytes of the broker.
    pub broker_rss: Option<u64>,
}

/// What happened between the end of the warm-up and the end of the traffic.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub struct Traffic {
    /// Seconds.
    pub seconds: f64,
    /// Messages sent.
    pub sent: u64,
    /// Messages delivered.
    pub delivered: u64,
    /// CPU time of the broker in ns, where its pid is known.
    pub broker_cpu_ns: Option<u64>,
    /// CPU time of the generator in ns.
    pub generator_cpu_ns: u64,
}

impl Traffic {
    /// CPU time of the broker for one delivered message, in ns.
    #[must_use]
    pub fn broker_ns_per_message(&self) -> Option<f64> {
        let messages = if self.delivered > 0 { self.delivered } else { self.sent };
        (messages > 0).then_some(self.broker_cpu_ns? as f64 / messages as f64)
    }
}

/// The generator's own cost.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub struct Generator {
    /// CPU time of the whole run, in ns.
    pub cpu_ns: u64,
    /// CPU time until all were connected, in ns.
    pub connect_cpu_ns: u64,
    /// Resident bytes when all were connected.
    pub rss: u64,
}

/// A sample with a name. The moments of the first stage of a kind are `start`, `connected`,
/// `settled`, `held`, `traffic-begin`, `traffic-end`, `closed`; those of further ones are in
/// [`Report::stages`].
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Mark {
    /// The moment.
    pub moment: String,
    /// The broker at that moment.
    pub sample: Sample,
}

/// A histogram in nine numbers; times in ns.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Summary {
    /// Values.
    pub count: u64,
    /// Least.
    pub min: u64,
    /// Mean.
    pub mean: f64,
    /// Median.
    pub p50: u64,
    /// 90 of 100.
    pub p90: u64,
    /// 99 of 100.
    pub p99: u64,
    /// 999 of 1000.
    pub p999: u64,
    /// 9999 of 10,000.
    pub p9999: u64,
    /// Largest.
    pub max: u64,
}

impl From<&Histogram<u64>> for Summary {
    fn from(h: &Histogram<u64>) -> Self {
        let at = |quantile| h.value_at_quantile(quantile);
        Self {
            count: h.len(),
            min: h.min(),
            mean: h.mean(),
            p50: at(0.5),
            p90: at(0.9),
            p99: at(0.99),
            p999: at(0.999),
            p9999: at(0.9999),
            max: h.max(),
        }
    }
}

impl Report {
    /// Whether all connected, nothing was lost and nothing broke.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        self.problems.is_empty()
    }

    /// Whether the generator itself spoilt the run, so that latencies and rates mean nothing.
    #[must_use]
    pub fn is_void(&self) -> bool {
        !self.void.is_empty()
    }

    /// The broker's sample at a moment.
    #[must_use]
    pub fn broker_at(&self, moment: &str) -> Option<&Sample> {
        self.broker.iter().find(|m| m.moment == moment).map(|m| &m.sample)
    }

    /// The report as lines for people.
    #[must_use]
    pub fn to_text(&self) -> String {
        let mut out = String::new();
        self.write_text(&mut out).expect("a String takes any text");
        out
    }

    fn write_text(&self, out: &mut String) -> std::fmt::Result {
        let c = &self.counters;
        writeln!(
            out,
            "connected   {} of {} attempts in {:.2} s ({:.0}/s), {} failed, {} lost later",
            c.ready,
            c.attempts,
            self.connect_s,
            c.ready as f64 / self.connect_s.max(1e-9),
            c.failed,
            c.broken
        )?;
        if c.pings > 0 {
            writeln!(out, "keep-alive  {} pings, {} unanswered", c.pings, c.pings_unanswered)?;
        }
        if c.sent + c.delivered > 0 {
            writeln!(out, "messages    {} sent, {} delivered", c.sent, c.delivered)?;
        }
        if let Some(a) = &self.account {
            writeln!(
                out,
                "checked     {} received, {} lost, {} duplicates, {} out of order",
                a.received, a.lost, a.duplicates, a.out_of_order
            )?;
            if a.redelivered + a.missed + a.abandoned > 0 {
                writeln!(
                    out,
                    "            {} redelivered, {} missed while away, {} given up by their publisher",
                    a.redelivered, a.missed, a.abandoned
                )?;
            }
        }
        if let Some(t) = &self.traffic {
            let rate = |n: u64| n as f64 / t.seconds.max(1e-9);
            writeln!(
                out,
                "rate        {:.0} sent/s, {:.0} delivered/s over {:.2} s",
                rate(t.sent),
                rate(t.delivered),
                t.seconds
            )?;
            let messages = t.delivered.max(t.sent).max(1) as f64;
            let generator = t.generator_cpu_ns as f64 / messages;
            write!(out, "CPU         generator {generator:.0} ns/message")?;
            if let Some(broker) = t.broker_ns_per_message() {
                write!(out, ", broker {broker:.0} ns/message")?;
            }
            writeln!(out)?;
        }
        for (name, l) in self.latencies.iter().filter(|(_, l)| l.count > 0) {
            let us = |ns: u64| ns as f64 / 1000.0;
            writeln!(
                out,
                "{name:<11} p50 {:.1} µs, p99 {:.1} µs, p99.9 {:.1} µs, max {:.1} µs",
                us(l.p50),
                us(l.p99),
                us(l.p999),
                us(l.max)
            )?;
            if let Some(raw) = l.raw.filter(|r| *r != l.corrected) {
                writeln!(
                    out,
                    "{:<11} p50 {:.1} µs, p99 {:.1} µs, p99.9 {:.1} µs, max {:.1} µs",
                    "  raw",
                    us(raw.p50),
                    us(raw.p99),
                    us(raw.p999),
                    us(raw.max)
                )?;
            }
        }
        self.write_costs(out)?;
        for (what, count) in &self.faults {
            writeln!(out, "fault       {count} × {what}")?;
        }
        self.remarks.iter().try_for_each(|r| writeln!(out, "remark      {r}"))?;
        self.void.iter().try_for_each(|v| writeln!(out, "VOID        {v}"))?;
        match self.problems.as_slice() {
            [] => writeln!(out, "clean"),
            problems => problems.iter().try_for_each(|p| writeln!(out, "NOT CLEAN   {p}")),
        }
    }

    fn write_costs(&self, out: &mut String) -> std::fmt::Result {
        writeln!(
            out,
            "generator   {:.3} s CPU, {:.3} s of it to connect, {:.1} MiB resident",
            self.generator.cpu_ns as f64 / 1e9,
            self.generator.connect_cpu_ns as f64 / 1e9,
            self.generator.rss as f64 / 1_048_576.0
        )?;
        let mut before: Option<&Sample> = None;
        for Mark { moment, sample } in &self.broker {
            let cpu = before.map_or(0, |b| sample.cpu_ns.saturating_sub(b.cpu_ns));
            writeln!(
                out,
                "broker at {moment:<13} +{:.3} s CPU, anonymous {:.2} MiB, PSS {:.2} MiB, {} fds",
                cpu as f64 / 1e9,
                sample.anonymous as f64 / 1_048_576.0,
                sample.pss as f64 / 1_048_576.0,
                sample.descriptors.map_or("?".to_owned(), |n| n.to_string()),
            )?;
            before = Some(sample);
        }
        Ok(())
    }
}
