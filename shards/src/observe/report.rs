//! What a shard tells of itself when it is asked.

use compact_str::CompactString;

use super::stage::{Histograms, Stage};
use crate::engine::counters::{Counters, Gauges};
use crate::engine::ids::ShardId;

/// One message on its way to one subscriber, followed from the socket it came from to the socket it went to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Trace {
    /// When it was read, ms since the Unix epoch.
    pub read_unix_ms: u64,
    /// Client id of the publisher; empty if it is not known any more (the message came out of a queue).
    pub publisher: CompactString,
    /// Client id of the subscriber.
    pub subscriber: CompactString,
    /// Topic, cut after [`Trace::TOPIC_MAX`] bytes.
    pub topic: CompactString,
    /// QoS of the delivery.
    pub qos: u8,
    /// Bytes of payload.
    pub payload_bytes: u32,
    /// Shard that read it.
    pub from: ShardId,
    /// Shard that delivered it.
    pub to: ShardId,
    /// Time in each stage, ns, by `Stage as usize`.
    pub spans_ns: [u64; Stage::COUNT],
    /// Whether the completion of its send was slept through, so that `Stage::Send` says 0.
    pub send_unseen: bool,
}

impl Trace {
    /// Bytes of a topic that are kept.
    pub const TOPIC_MAX: usize = 128;

    /// From when it was read, or may have come, until the socket took it or the client acknowledged it, ns.
    #[must_use]
    pub fn total_ns(&self) -> u64 {
        self.spans_ns.iter().sum()
    }

    /// The stage that took longest.
    #[must_use]
    pub fn slowest(&self) -> Stage {
        let longest = |s: &&Stage| self.spans_ns[**s as usize];
        *Stage::ALL.iter().max_by_key(longest).unwrap_or(&Stage::Arrival)
    }
}

/// Memory by what it is for, bytes. Sums of capacities: what the allocator adds is not among them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MemoryUse {
    /// Connections, in engine and reactor.
    pub connections: u64,
    /// Sessions, offline ones included, without what waits in them.
    pub sessions: u64,
    /// Filters and who subscribed to them.
    pub subscriptions: u64,
    /// Messages that wait in sessions and groups.
    pub queues: u64,
    /// Retained messages with their index.
    pub retained: u64,
    /// Receive buffers of the rings, and send buffers in use or kept for reuse.
    pub buffers: u64,
}

/// What the loop of a shard did since its start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LoopTimes {
    /// In turns, ns.
    pub turns_ns: u64,
    /// In system calls that did not sleep: mostly the kernel's part of sends, ns.
    pub enters_ns: u64,
    /// In system calls that may have slept, ns. What the kernel did in them before it slept is included.
    pub slept_ns: u64,
    /// Longest turn since the report before, ns.
    pub longest_turn_ns: u64,
}

/// Answer to [`Control::Report`](crate::boundary::Control::Report).
#[derive(Clone, Debug)]
pub struct Report {
    /// Who answers.
    pub shard: ShardId,
    /// When, in [`Now::mono_ns`](crate::engine::ids::Now).
    pub at_ns: u64,
    /// Counters since the start.
    pub counters: Counters,
    /// What it holds.
    pub gauges: Gauges,
    /// Memory by component.
    pub memory: MemoryUse,
    /// The loop.
    pub times: LoopTimes,
    /// Since the report before.
    pub histograms: Box<Histograms>,
    /// The slowest messages since the report before, slowest first: all that were followed compete.
    pub slowest: Vec<Trace>,
    /// A random choice of the messages followed since the report before, for comparison.
    pub others: Vec<Trace>,
}
