//! What all shards of a node share: read and written without locks.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::admission::Admission;
use super::config::EngineConfig;
use super::ids::ShardId;
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
    /// Upper bound of the retained messages of each owner: raised by the publisher before it
    /// acknowledges, lowered by the owner. At 0 there is nothing to ask for.
    retained: Box<[AtomicU64]>,
    /// Retained publishes of each shard that are on their way to their owners.
    retains_under_way: Box<[AtomicU64]>,
    /// Wall clock at monotonic 0, for what is printed.
    pub started_unix_ms: u64,
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
            retained: (0..shards).map(|_| AtomicU64::new(0)).collect(),
            retains_under_way: (0..shards).map(|_| AtomicU64::new(0)).collect(),
            started_unix_ms,
        }
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

    /// Sum of [`retained_may_come`](Self::retained_may_come), for limits.
    pub(crate) fn retained_total(&self) -> u64 {
        self.retained.iter().map(|n| n.load(Ordering::Relaxed)).sum()
    }
}
