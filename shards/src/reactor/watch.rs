//! What other threads may see of the shards while they work, without asking them.

use std::sync::Arc;

use super::shared::Shared;
use super::stack;
use super::stats::StatsSnapshot;
use crate::engine::ids::ShardId;

/// Looks at the shards of a node from any thread; none of them notices.
#[derive(Clone, Debug)]
pub struct Lookout {
    shared: Arc<Shared>,
}

impl Lookout {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        Self { shared }
    }

    /// Monotonic time since the node began, ns: that of [`Now::mono_ns`](crate::engine::ids::Now).
    #[must_use]
    pub fn now_ns(&self) -> u64 {
        self.shared.now_ns()
    }

    /// Counters of a shard's rings. They may be a moment old.
    #[must_use]
    pub fn stats(&self, shard: ShardId) -> StatsSnapshot {
        self.shared.stats(shard).snapshot()
    }

    /// When the present turn of a shard began, ns; `None`: it sleeps, or is about to.
    #[must_use]
    pub fn turn_since_ns(&self, shard: ShardId) -> Option<u64> {
        self.shared.turn_since_ns(shard)
    }

    /// The kernel thread of a shard; 0 before it runs.
    #[must_use]
    pub fn thread(&self, shard: ShardId) -> i32 {
        self.shared.thread(shard)
    }

    /// Interrupts a shard for some microseconds to see where it is: the addresses of its calls, innermost
    /// first. `None` if it did not answer within 100 ms (it waits in the kernel where nothing can interrupt
    /// it), or somebody else is asking.
    #[must_use]
    pub fn stack(&self, shard: ShardId) -> Option<Vec<u64>> {
        stack::of_thread(self.shared.thread(shard))
    }
}
