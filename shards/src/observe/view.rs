//! What the control plane asks about the whole node, and the answer. Plain data.

use crate::engine::ids::ShardId;
use crate::observe::{MemoryUse, Report};

/// Asked of the observer of a node, which answers within [`ANSWER_WITHIN_MS`].
#[derive(Debug)]
pub enum Question {
    /// All that the shards know of themselves.
    View(flume::Sender<Box<NodeView>>),
    /// What shards do in the next `ms` milliseconds (at most [`TURNS_MS_MAX`]), turn by turn.
    Turns {
        /// For how long.
        ms: u32,
        /// For the answer, which comes after that time.
        reply: flume::Sender<Vec<TurnSpan>>,
    },
}

/// A shard that has not answered by then counts as stalled.
pub const ANSWER_WITHIN_MS: u64 = 1000;
/// Longest recording of turns.
pub const TURNS_MS_MAX: u32 = 30_000;
/// Most turns recorded of one shard; later ones are left out.
pub const TURNS_MAX: usize = 200_000;

/// The node at one moment.
#[derive(Clone, Debug)]
pub struct NodeView {
    /// Name of the node.
    pub node: String,
    /// Version of the broker.
    pub version: &'static str,
    /// Wall clock, ms since the Unix epoch.
    pub unix_ms: u64,
    /// Since the start, ms.
    pub uptime_ms: u64,
    /// By index of the shard.
    pub shards: Vec<ShardView>,
    /// Resident memory of the process, bytes.
    pub resident_bytes: u64,
    /// The route table that all shards share, bytes.
    pub route_table_bytes: u64,
    /// Certificates that listeners show to clients.
    pub certificates: Vec<CertificateView>,
}

/// A certificate that a listener shows to clients. (T07)
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CertificateView {
    /// Name of the listener.
    pub listener: String,
    /// Its file, as the configuration names it.
    pub file: String,
    /// Its subject, as RFC 4514 writes it.
    pub subject: String,
    /// Until when it is valid, s since the Unix epoch.
    pub not_after_s: u64,
}

/// One shard.
#[derive(Clone, Debug)]
pub struct ShardView {
    /// Which.
    pub shard: ShardId,
    /// Its answer; `None` if it gave none in time. Its histograms and traces go back to the observation
    /// before, whoever made it; use [`Self::histograms`] for all since the start.
    pub report: Option<Box<Report>>,
    /// All histograms since the start, merged.
    pub histograms: Box<Totals>,
    /// The slowest messages of the last ten minutes, slowest first.
    pub slowest: Vec<super::Trace>,
    /// A random choice of the messages of the last ten minutes.
    pub others: Vec<super::Trace>,
    /// What the operating system says of its thread.
    pub thread: ThreadTimes,
    /// Counters of its rings, by name.
    pub ring: Vec<(&'static str, u64)>,
    /// How long its present turn lasts already, ms, when that is longer than the stall limit.
    pub stalled_ms: Option<u64>,
    /// Stalls noticed since the start.
    pub stalls: u64,
}

impl ShardView {
    /// Memory by component; zeros when it did not answer.
    #[must_use]
    pub fn memory(&self) -> MemoryUse {
        self.report.as_ref().map(|r| r.memory).unwrap_or_default()
    }
}

/// A thread's times as the kernel accounts for them (`/proc/self/task/TID/schedstat`, `status`, `stat`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ThreadTimes {
    /// Kernel thread id; 0 before it is known.
    pub tid: i32,
    /// The core it ran on last.
    pub cpu: u32,
    /// On a CPU, ns.
    pub cpu_ns: u64,
    /// Runnable without a CPU, ns: stolen by other threads of this host.
    pub stolen_ns: u64,
    /// Times that it was taken off its CPU with work left.
    pub preempted: u64,
}

/// Histograms since the start of a shard.
#[derive(Clone, Debug)]
pub struct Totals {
    /// By `Stage as usize`, ns.
    pub stages: Vec<hdrhistogram::Histogram<u64>>,
    /// By `PerTurn as usize`.
    pub turns: Vec<hdrhistogram::Histogram<u64>>,
}

/// One turn of a shard.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TurnSpan {
    /// Whose.
    pub shard: ShardId,
    /// When it began, ns in [`Now::mono_ns`](crate::engine::ids::Now).
    pub at_ns: u64,
    /// Reaping completions and feeding them to the machine, ns.
    pub inputs_ns: u32,
    /// Mail of other shards and orders, ns.
    pub mail_ns: u32,
    /// Sending mail and performing operations, ns.
    pub perform_ns: u32,
    /// The system call that followed, ns.
    pub enter_ns: u64,
    /// Whether that call could sleep.
    pub slept: bool,
    /// Completions reaped.
    pub completions: u32,
    /// Mails taken.
    pub mails: u32,
    /// Sends started.
    pub sends: u32,
}
