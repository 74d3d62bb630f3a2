//! What a run found: as data, as lines ([`Report::to_text`]) and as a page ([`Report::to_html`]).

mod html;
mod text;

use std::collections::BTreeMap;
use std::ops::Deref;

use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};

use crate::agents::Offset;
use crate::assertion::Verdict;
use crate::cost::Sample;
use crate::environment::Environment;
use crate::stamp::Account;
use crate::stats::Counters;

/// Version of the JSON: a number more where a field changes its meaning or goes. Fields that come
/// new do not change it.
pub const REPORT_SCHEMA: u32 = 1;

/// The result of a run.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Report {
    /// [`REPORT_SCHEMA`]; 0 in reports that are older than it.
    #[serde(default)]
    pub schema: u32,
    /// Name of the load or scenario.
    #[serde(default)]
    pub name: String,
    /// What the scenario is about.
    #[serde(default)]
    pub description: String,
    /// What became of the assertions, in their order.
    #[serde(default)]
    pub verdicts: Vec<Verdict>,
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
    /// The agents that made the run, where it was not this process.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub agents: Vec<AgentReport>,
    /// What happened over time: a row every 250 ms.
    #[serde(default)]
    pub series: Vec<Row>,
}

/// An agent of a run.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct AgentReport {
    /// Its address.
    pub address: String,
    /// Version of its program.
    pub version: String,
    /// Its kernel.
    pub kernel: String,
    /// Its CPU.
    pub cpu: String,
    /// How far its clock was ahead of the coordinator's before the run, and how well that is known.
    pub clock: Offset,
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
        text::lines(self)
    }

    /// The report as a page with plots, that needs nothing from elsewhere.
    #[must_use]
    pub fn to_html(&self) -> String {
        html::page(self)
    }
}
