//! The notes that a shard takes while it works.

use super::report::{LoopTimes, Trace};
use super::stage::Histograms;

/// What only the driver of a shard knows of its memory, bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DriverMemory {
    /// Connections as the driver sees them.
    pub connections: u64,
    /// Receive and send buffers.
    pub buffers: u64,
}

/// What was noted since it was last taken.
#[derive(Debug)]
pub struct Observed {
    /// The loop, since the start.
    pub times: LoopTimes,
    /// Histograms.
    pub histograms: Box<Histograms>,
    /// The slowest messages, slowest first.
    pub slowest: Vec<Trace>,
    /// A random choice of messages.
    pub others: Vec<Trace>,
}

/// Lives on: its shard, in its scratch, where both machine and driver write to it.
#[derive(Debug, Default)]
pub struct Recorder {
    histograms: Box<Histograms>,
    times: LoopTimes,
    /// Set by the driver before a report.
    pub driver_memory: DriverMemory,
}

impl Recorder {
    /// Takes what was noted, and leaves `spare` to go on with.
    pub fn take(&mut self, spare: Box<Histograms>) -> Observed {
        let histograms = std::mem::replace(&mut self.histograms, spare);
        let times = self.times;
        self.times.longest_turn_ns = 0;
        Observed { times, histograms, slowest: Vec::new(), others: Vec::new() }
    }
}
