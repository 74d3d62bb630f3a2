//! What an observer sees of a run while it goes on.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::cost::Sample;
use crate::report::Latency;
use crate::stats::Counters;

/// A look at a run: every [`crate::run::SNAPSHOT_EVERY`] and at the end of each stage.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Snapshot {
    /// Since the run began.
    pub elapsed: Duration,
    /// Index of the stage.
    pub stage: usize,
    /// Its name.
    pub stage_name: String,
    /// Its kind, see [`crate::plan::Stage::kind`].
    pub stage_kind: String,
    /// Since the stage began.
    pub stage_elapsed: Duration,
    /// How long the stage will last, where that is known.
    pub stage_planned: Option<Duration>,
    /// Whether this is the last look at the stage.
    pub stage_ended: bool,
    /// Clients of the plan.
    pub clients: u64,
    /// Counts since the run began.
    pub counters: Counters,
    /// What happened since the last snapshot, a second.
    pub rates: Rates,
    /// Latencies since the last snapshot, by name.
    pub interval: BTreeMap<String, Latency>,
    /// Latencies since the run began, or, of messages, since the last traffic stage began to
    /// measure. Without histograms.
    pub cumulative: BTreeMap<String, Latency>,
    /// The generator's CPU time since the last snapshot, as a share of one core.
    pub generator_cpu: f64,
    /// The broker now, without its memory's details.
    pub broker: Option<Sample>,
    /// The broker's CPU time since the last snapshot, as a share of one core.
    pub broker_cpu: Option<f64>,
    /// Why the run is void so far.
    pub void: Vec<String>,
}

/// Events a second.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub struct Rates {
    /// Connections begun.
    pub attempts: f64,
    /// Connections that became ready.
    pub ready: f64,
    /// Messages sent.
    pub sent: f64,
    /// Messages delivered.
    pub delivered: f64,
    /// Handshakes done.
    pub acked: f64,
}
