//! What all shards of a node share: read and written without locks.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::admission::Admission;
use super::config::EngineConfig;
use super::ids::ShardId;
use super::rates::SharedMeter;
use super::route::RouteTable;

/// Lives on: all shards, behind an `Arc`.
#[derive(Debug)]
pub struct NodeShared {
    /// How many shards the node has.
    pub shards: usize,
    /// Seed of [`hash64`](super::hash::hash64) for home shards.
    pub hash_seed: u64,
    /// Which shards may have subscribers.
    pub routes: Arc<RouteTable>,
    /// Connection limits and rates.
    pub admission: Admission,
    /// Rates of listeners and the node.
    pub(crate) meters: Meters,
    /// Upper bound of the retained messages of each owner: raised by the publisher before it
    /// acknowledges, lowered by the owner. At 0 there is nothing to ask for.
    retained: Box<[AtomicU64]>,
    /// Retained publishes of each shard that are on their way to their owners.
    retains_under_way: Box<[AtomicU64]>,
    /// Stored messages that [`RetainedConfig::max_messages`](super::config::RetainedConfig) counts:
    /// those of clients.
    retained_places: AtomicU64,
    /// Bytes of retained messages, of all owners.
    retained_bytes: AtomicU64,
    sessions: AtomicU64,
    /// Bytes in the queues of all sessions and groups, as of the last turn of each shard.
    queued_bytes: AtomicU64,
    /// Wall clock at monotonic 0, for what is printed.
    pub started_unix_ms: u64,
}

/// Where the rates that clients share stand.
#[derive(Debug)]
pub(crate) struct Meters {
    pub(crate) node: SharedMeter,
    listeners: Box<[SharedMeter]>,
}

impl Meters {
    fn new(listeners: usize) -> Self {
        let listeners = (0..listeners).map(|_| SharedMeter::default()).collect();
        Self { node: SharedMeter::default(), listeners }
    }

    pub(crate) fn listener(&self, listener: u16) -> Option<&SharedMeter> {
        self.listeners.get(usize::from(listener))
    }
}

impl NodeShared {
    /// For a node of `shards` shards, 1..=[`SHARDS_MAX`](super::ids::SHARDS_MAX).
    #[must_use]
    pub fn new(shards: usize, hash_seed: u64, started_unix_ms: u64, cfg: &EngineConfig) -> Self {
        Self {
            shards,
            hash_seed,
            routes: Arc::new(RouteTable::new(shards, hash_seed)),
            admission: Admission::new(cfg),
            meters: Meters::new(cfg.listeners.len()),
            retained: (0..shards).map(|_| AtomicU64::new(0)).collect(),
            retains_under_way: (0..shards).map(|_| AtomicU64::new(0)).collect(),
            retained_places: AtomicU64::new(0),
            retained_bytes: AtomicU64::new(0),
            sessions: AtomicU64::new(0),
            queued_bytes: AtomicU64::new(0),
            started_unix_ms,
        }
    }

    /// Counts one more session, up to `max`; 0 = no limit.
    pub(crate) fn take_session(&self, max: u32) -> bool {
        let before = self.sessions.fetch_add(1, Ordering::Relaxed);
        let taken = max == 0 || before < u64::from(max);
        if !taken {
            self.session_gone();
        }
        taken
    }

    pub(crate) fn session_gone(&self) {
        self.sessions.fetch_sub(1, Ordering::Relaxed);
    }

    /// See [`LimitConfig::max_queued_bytes`](super::config::LimitConfig).
    pub(crate) fn queued_bytes(&self) -> u64 {
        self.queued_bytes.load(Ordering::Relaxed)
    }

    /// A shard's share went from `before` to `now`.
    pub(crate) fn queued_bytes_changed(&self, before: u64, now: u64) {
        self.queued_bytes.fetch_add(now.wrapping_sub(before), Ordering::Relaxed);
    }

    /// See [`RetainedConfig::max_bytes`](super::config::RetainedConfig).
    pub(crate) fn retained_bytes(&self) -> u64 {
        self.retained_bytes.load(Ordering::Relaxed)
    }

    /// An owner's share went from `before` to `now`.
    pub(crate) fn retained_bytes_changed(&self, before: usize, now: usize) {
        let by = (now as u64).wrapping_sub(before as u64);
        self.retained_bytes.fetch_add(by, Ordering::Relaxed);
    }

    pub(crate) fn retained_may_come(&self, owner: ShardId) {
        self.retained[owner.index()].fetch_add(1, Ordering::SeqCst);
    }

    pub(crate) fn retained_gone(&self, owner: ShardId, n: u64) {
        self.retained[owner.index()].fetch_sub(n, Ordering::SeqCst);
    }

    pub(crate) fn retained_possible(&self, owner: ShardId) -> bool {
        self.retained[owner.index()].load(Ordering::SeqCst) != 0
    }

    /// `publisher` sends a retained publish to its owner. Before any copy of it can be read.
    pub(crate) fn retain_sent(&self, publisher: ShardId) {
        self.retains_under_way[publisher.index()].fetch_add(1, Ordering::SeqCst);
    }

    /// The owner has it.
    pub(crate) fn retain_arrived(&self, publisher: ShardId) {
        self.retains_under_way[publisher.index()].fetch_sub(1, Ordering::SeqCst);
    }

    pub(crate) fn has_retains_under_way(&self, publisher: ShardId) -> bool {
        self.retains_under_way[publisher.index()].load(Ordering::SeqCst) != 0
    }

    /// A place for one more retained message of clients, up to `max`; 0 = no limit.
    pub(crate) fn take_retained_place(&self, max: u64) -> bool {
        let taken = self.retained_places.fetch_add(1, Ordering::Relaxed) < max || max == 0;
        if !taken {
            self.give_retained_places(1);
        }
        taken
    }

    pub(crate) fn give_retained_places(&self, n: u64) {
        self.retained_places.fetch_sub(n, Ordering::Relaxed);
    }
}
