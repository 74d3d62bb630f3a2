//! The node-wide route table: which shards *may* have subscribers for a topic.

use super::ids::{ShardId, ShardSet};
use std::sync::Arc;

/// Shared by all shards of a node, in an `Arc`.
#[derive(Debug)]
pub struct RouteTable {
    seed: u64,
}

/// Seeded fingerprint of a whole filter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct FilterHash(pub u64);

/// The table has reached its configured size; nothing was inserted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the route table is full")]
pub struct RouteTableFull;

impl RouteTable {
    /// An empty table for `shards` shards (1..=SHARDS_MAX).
    #[must_use]
    pub fn new(shards: usize, seed: u64) -> Self {
        let _ = shards;
        Self { seed }
    }

    /// The writing end of one shard. Each shard takes its own, once.
    ///
    /// # Panics
    /// If the shard's writer was taken before, or the shard is out of range.
    #[must_use]
    pub fn writer(self: &Arc<Self>, shard: ShardId) -> RouteWriter {
        RouteWriter { table: Arc::clone(self), shard }
    }

    /// Fingerprint of a filter under this table's seed.
    #[must_use]
    pub fn hash_filter(&self, filter: &str) -> FilterHash {
        let _ = filter;
        FilterHash(self.seed)
    }

    /// Adds to `out` every shard that may have a subscriber for `topic`. Wait-free, no allocation.
    pub fn lookup(&self, topic: &str, out: &mut ShardSet) {
        let _ = (topic, out);
    }

    /// Routes, that is (filter, shard) pairs.
    #[must_use]
    pub fn len(&self) -> usize {
        0
    }

    /// Whether no shard has a route.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Wildcard shapes that lookups probe.
    #[must_use]
    pub fn shapes_in_use(&self) -> usize {
        0
    }

    /// Bytes held.
    #[must_use]
    pub fn bytes(&self) -> usize {
        0
    }
}

/// The only one who inserts and removes the routes of one shard. Lives on: that shard.
#[derive(Debug)]
pub struct RouteWriter {
    table: Arc<RouteTable>,
    shard: ShardId,
}

impl RouteWriter {
    /// Routes topics matching `filter` to this shard. Call it when the shard gets its first
    /// subscription to `filter` ([`Subscribed::first_of_filter`](super::subs::Subscribed)), before
    /// SUBACK is written. Any lookup that starts after this has returned sees it. [S-55]
    ///
    /// # Errors
    /// [`RouteTableFull`]; nothing has changed then.
    pub fn insert(&mut self, filter: &str) -> Result<(), RouteTableFull> {
        let _ = filter;
        Ok(())
    }

    /// Undoes one [`insert`](Self::insert) of the same filter, when its last subscription is gone.
    pub fn remove(&mut self, filter: &str) {
        let _ = filter;
    }

    /// Does this shard's part of a growth of the table in progress, in steps of about `budget` cache
    /// lines. Call it on every tick; costs one load when there is nothing to do. Returns whether
    /// more is left.
    pub fn maintain(&mut self, budget: usize) -> bool {
        let _ = budget;
        false
    }

    /// The table.
    #[must_use]
    pub fn table(&self) -> &Arc<RouteTable> {
        &self.table
    }

    /// Whose routes these are.
    #[must_use]
    pub fn shard(&self) -> ShardId {
        self.shard
    }
}
