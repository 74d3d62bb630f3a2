//! What the admin socket says, as JSON: the types of its requests and answers.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// Numbers by name.
pub type Numbers = BTreeMap<String, u64>;

/// `GET /v1/node`, and `GET /v1/node?buckets=1`.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Node {
    /// Its name (`node.name`).
    pub node: String,
    /// Version of the broker.
    pub version: String,
    /// Process id.
    pub pid: u32,
    /// Wall clock, ms since the Unix epoch.
    pub unix_ms: u64,
    /// Since the start, ms.
    pub uptime_ms: u64,
    /// Resident memory of the process, bytes.
    pub resident_bytes: u64,
    /// The route table that all shards share, bytes.
    pub route_table_bytes: u64,
    /// Each shard.
    pub shards: Vec<Shard>,
}

/// One shard.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Shard {
    /// Index.
    pub shard: u16,
    /// Whether it answered in time; if not, the figures that only it knows are missing.
    pub up: bool,
    /// How long its present turn lasts already, ms, if longer than the stall limit.
    pub stalled_ms: Option<u64>,
    /// Stalls noticed since the start.
    pub stalls: u64,
    /// Its thread.
    pub thread: Thread,
    /// Its loop.
    pub times: Times,
    /// Counters since the start, by the names of the fields of `Counters`.
    pub counters: Numbers,
    /// What it holds now, by the names of the fields of `Gauges`.
    pub gauges: Numbers,
    /// Memory by component, bytes.
    pub memory: Numbers,
    /// Counters of its rings.
    pub ring: Numbers,
    /// Times by stage since the start, ns.
    pub stages: BTreeMap<String, Summary>,
    /// Quantities of turns since the start.
    pub turns: BTreeMap<String, Summary>,
}

/// A shard's thread, as the kernel accounts for it.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Thread {
    /// Kernel thread id.
    pub tid: i32,
    /// Core it ran on last.
    pub cpu: u32,
    /// On a CPU, ns.
    pub cpu_ns: u64,
    /// Runnable without a CPU, ns.
    pub stolen_ns: u64,
    /// Times that it was taken off its CPU with work left.
    pub preempted: u64,
}

/// A shard's loop since its start.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Times {
    /// In turns, ns.
    pub turns_ns: u64,
    /// In system calls that did not sleep, ns.
    pub enters_ns: u64,
    /// In system calls that may have slept, ns.
    pub slept_ns: u64,
    /// Longest turn since somebody last asked, ns.
    pub longest_turn_ns: u64,
}

/// A histogram in short.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Summary {
    /// Values.
    pub count: u64,
    /// Mean, rounded down.
    pub mean: u64,
    /// Half are at most so much.
    pub p50: u64,
    /// 90 of 100 are.
    pub p90: u64,
    /// 99 of 100 are.
    pub p99: u64,
    /// 999 of 1,000 are.
    pub p999: u64,
    /// All are.
    pub max: u64,
    /// With `buckets=1`, for stages: values, in ascending order, and how often each was; so that two looks tell what was
    /// in between. What is within a percent counts as the same value.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub buckets: Vec<(u64, u64)>,
}

/// `GET /v1/slow?n=N`.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Slow {
    /// Messages that were followed and are still known: of the last ten minutes, at most so many.
    pub followed: u64,
    /// The slowest, slowest first.
    pub slowest: Vec<Trace>,
    /// How the time of messages around the median splits.
    pub p50: Split,
    /// How that of the slowest in a thousand splits (at least one message).
    pub p999: Split,
    /// Subscribers by their slowest message, slowest first.
    pub clients: Vec<Slowness>,
    /// Topics by their slowest message, slowest first.
    pub topics: Vec<Slowness>,
}

/// One message on its way to one subscriber.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Trace {
    /// When it was read, ms since the Unix epoch.
    pub read_unix_ms: u64,
    /// Client id of the publisher; empty if not known any more.
    pub publisher: String,
    /// Client id of the subscriber.
    pub subscriber: String,
    /// Topic, cut after 128 bytes.
    pub topic: String,
    /// QoS of the delivery.
    pub qos: u8,
    /// Bytes of payload.
    pub payload_bytes: u32,
    /// Shard that read it.
    pub from_shard: u16,
    /// Shard that delivered it.
    pub to_shard: u16,
    /// All stages, ns.
    pub total_ns: u64,
    /// Time by stage, ns; stages it did not pass are left out.
    pub stages_ns: BTreeMap<String, u64>,
    /// The stage that took longest.
    pub slowest_stage: String,
    /// Whether the end of its send was not seen, so that `send` is 0.
    pub send_unseen: bool,
}

/// Mean times by stage of some messages.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Split {
    /// Messages.
    pub count: u64,
    /// Mean of their totals, ns.
    pub total_ns: u64,
    /// Mean by stage, ns.
    pub stages_ns: Numbers,
}

/// How slow messages of one client or topic were.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Slowness {
    /// Client id or topic.
    pub name: String,
    /// Messages of it that were followed.
    pub count: u64,
    /// Mean total, ns.
    pub mean_ns: u64,
    /// Slowest total, ns.
    pub max_ns: u64,
    /// The stage that took longest of the slowest.
    pub slowest_stage: String,
}

/// `GET /v1/audit`: the conservation ledger.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Audit {
    /// Whether nothing moved between two looks at all shards: only then must the sums be exact.
    pub quiet: bool,
    /// Whether all shards answered and all accounts balance.
    pub balanced: bool,
    /// By shard.
    pub shards: Vec<Account>,
    /// All shards together.
    pub total: Account,
    /// Each thing that is wrong, in words.
    pub wrong: Vec<String>,
}

/// Where the copies of messages are. `matched = completed + dropped + returned + queued + inflight`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Account {
    /// Shard; `None` for the total.
    pub shard: Option<u16>,
    /// Messages that entered routing here.
    pub published: u64,
    /// Copies that matching produced.
    pub matched: u64,
    /// Copies sent (QoS 0) or acknowledged.
    pub completed: u64,
    /// Copies dropped, by reason.
    pub dropped: Numbers,
    /// Copies given back to their shared group.
    pub returned: u64,
    /// Copies waiting in sessions.
    pub queued: u64,
    /// Copies sent and not yet acknowledged.
    pub inflight: u64,
    /// Messages waiting in shared groups whose home this is. They are no copies yet: they count as matched when
    /// a member gets them, or when the group drops them.
    #[serde(default)]
    pub group_queued: u64,
    /// `matched` less all the others.
    pub difference: i64,
}

/// `GET /v1/turns?ms=N`: what shards did in that time.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Turns {
    /// In order of time, by shard.
    pub turns: Vec<Turn>,
}

/// One turn of a shard.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub struct Turn {
    /// Whose.
    pub shard: u16,
    /// When it began, ns since the start of the broker.
    pub at_ns: u64,
    /// Reaping completions and handling them, ns.
    pub inputs_ns: u64,
    /// Mail and orders, ns.
    pub mail_ns: u64,
    /// Sending mail, performing operations, ns.
    pub perform_ns: u64,
    /// The system call that followed, ns.
    pub enter_ns: u64,
    /// Whether that call could sleep.
    pub slept: bool,
    /// Completions.
    pub completions: u32,
    /// Mails.
    pub mails: u32,
    /// Sends.
    pub sends: u32,
}

/// `GET /v1/profile?seconds=N&hz=N`: where the threads of the broker spent their CPU time.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Profile {
    /// Process id of the broker.
    pub pid: u32,
    /// For how long it was sampled, ms.
    pub ms: u64,
    /// Samples asked for in a second of CPU time of each thread.
    pub hz: u32,
    /// Samples taken.
    pub samples: u64,
    /// Samples that found no room, and are not among `stacks`.
    pub lost: u64,
    /// Threads that could not be sampled, and why.
    pub failed: Vec<String>,
    /// What is mapped as code, to find the names of addresses with.
    pub modules: Vec<Module>,
    /// Different stacks.
    pub stacks: Vec<Stack>,
}

/// A mapped piece of a file with code in it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Module {
    /// Where it begins.
    pub start: u64,
    /// Where it ends.
    pub end: u64,
    /// Where the beginning of the file is mapped.
    pub base: u64,
    /// The file, or a name in brackets.
    pub path: String,
}

/// How often a thread was found in the same place.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stack {
    /// Name of the thread.
    pub thread: String,
    /// Samples.
    pub count: u64,
    /// Addresses in the memory of the broker, innermost first: where it was, then where calls return to.
    pub addresses: Vec<u64>,
}

/// Any answer with a status of 400 or above.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Failure {
    /// What is wrong and what to do.
    pub error: String,
}
