//! The node-wide route table: which shards *may* have subscribers for a topic.
//!
//! A route is a hint: a false positive costs a wasted hop, a false negative is a bug. The table
//! keeps no filters, only 44-bit fingerprints of them, each with a set of shards:
//!
//! ```text
//!  topic ─hash levels─▶ Registry: shapes in use ─one hash each─▶ Grid: fingerprint → shards ─▶ union
//! ```
//!
//! Filters of shapes beyond the registry's room, or deeper than a shape can say, are found by one
//! literal level of theirs, the *anchor*: a coarser hint. Without any literal, by all topics.
//!
//! Everything is changed by compare-and-swap; [`RouteTable::lookup`] neither waits nor allocates.
//! Decision record 0010 has the measurements.

mod grid;
mod registry;
pub(crate) mod shape;
mod slots;
mod sync;
#[cfg(test)]
pub(crate) mod tests;

use super::ids::{SHARDS_MAX, ShardId, ShardSet};
use grid::{Grid, GridWriter};
use hashbrown::HashMap;
use registry::{Registry, SHAPES_MAX};
use shape::{HashedFilter, HashedTopic, LEVELS_FAST, LEVELS_MAX, LevelHasher, Shape};
use std::sync::Arc;

/// log2 of the buckets at the start, and the most doublings: 2^25 buckets, 80 million routes.
const BASE_BITS: u32 = 11;
const LEVEL_MAX: u32 = 14;

/// Probes in flight at once: what a core's line fill buffers hold.
const BATCH: usize = 16;

/// Shared by all shards of a node, in an `Arc`. Lives on: all shards.
#[derive(Debug)]
pub struct RouteTable {
    hasher: LevelHasher,
    grid: Grid,
    registry: Registry,
    shards: usize,
    changes: Changes,
}

/// Apart from what lookups read: it is written by whoever subscribes.
#[derive(Debug)]
#[repr(align(64))]
struct Changes(sync::AtomicU64);

/// Seeded fingerprint of a whole filter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct FilterHash(pub u64);

/// The table has reached its greatest size (some 80 million routes); nothing was inserted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the route table is full")]
pub struct RouteTableFull;

impl RouteTable {
    /// An empty table for `shards` shards.
    ///
    /// # Panics
    /// If `shards` is not in 1..=[`SHARDS_MAX`].
    #[must_use]
    pub fn new(shards: usize, seed: u64) -> Self {
        Self::with_size(shards, seed, BASE_BITS, LEVEL_MAX)
    }

    fn with_size(shards: usize, seed: u64, base_bits: u32, level_max: u32) -> Self {
        assert!((1..=SHARDS_MAX).contains(&shards), "1 to {SHARDS_MAX} shards, not {shards}");
        let grid = Grid::new(shards, base_bits, level_max);
        let registry = Registry::new(grid.words());
        let changes = Changes(sync::AtomicU64::new(0));
        Self { hasher: LevelHasher::new(seed), grid, registry, shards, changes }
    }

    /// How many routes were inserted or removed so far. An answer of [`lookup`](Self::lookup) that was
    /// asked for after this number was read holds for as long as the number stays.
    #[must_use]
    pub fn changes(&self) -> u64 {
        self.changes.0.load(sync::Ordering::Acquire)
    }

    /// The writing end of one shard. Each shard takes its own, once.
    ///
    /// # Panics
    /// If the shard's writer was taken before, or the shard is out of range.
    #[must_use]
    pub fn writer(self: &Arc<Self>, shard: ShardId) -> RouteWriter {
        assert!(shard.index() < self.shards, "{shard:?} of {}", self.shards);
        let grid = self.grid.writer(shard.index());
        RouteWriter {
            table: Arc::clone(self),
            shard,
            grid: grid.expect("a shard takes its route writer once"),
            shapes: HashMap::new(),
            repeats: HashMap::new(),
            anchors: [0; LEVELS_MAX + 1],
        }
    }

    /// Fingerprint of a filter under this table's seed.
    #[must_use]
    pub fn hash_filter(&self, filter: &str) -> FilterHash {
        FilterHash(self.hasher.filter(filter).hash)
    }

    /// Adds to `out` every shard that may have a subscriber for `topic`. Wait-free, no allocation.
    /// Sees every route whose insert had returned before. [S-55]
    pub fn lookup(&self, topic: &str, out: &mut ShardSet) {
        // Counting all levels is cheaper than hashing them into the larger array.
        let hashed = self.hasher.topic::<LEVELS_FAST>(topic);
        if hashed.levels <= LEVELS_FAST {
            self.lookup_hashed(&hashed, out);
        } else {
            self.lookup_hashed(&self.hasher.topic::<LEVELS_MAX>(topic), out);
        }
    }

    #[inline]
    fn lookup_hashed<const N: usize>(&self, topic: &HashedTopic<'_, N>, out: &mut ShardSet) {
        self.registry.collect_any(topic.dollar, out);
        self.grid.read(|from, to| {
            let mut batch = Batch { grid: &self.grid, from, to, fps: [0; BATCH], len: 0, out };
            if topic.levels <= LEVELS_MAX {
                batch.push(fingerprint(topic.hash(topic.levels, 0, false)));
            }
            self.registry.shapes(topic.levels, topic.dollar, |levels, plus, multi| {
                batch.push(fingerprint(topic.hash(levels, plus, multi)));
            });
            self.registry.anchor_levels(topic.levels, topic.dollar, |level| {
                batch.push(fingerprint(topic.anchor_hash(level)));
            });
            batch.flush();
        });
    }

    /// Wildcard shapes in use, without those that are looked up by anchors.
    #[must_use]
    pub fn shapes_in_use(&self) -> usize {
        self.registry.len()
    }

    /// Distinct routes held, that is fingerprints with at least one shard; while the table grows
    /// some count twice.
    #[must_use]
    pub fn len(&self) -> usize {
        self.grid.len()
    }

    /// Whether no shard has a route.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Bytes held.
    #[must_use]
    pub fn bytes(&self) -> usize {
        size_of::<Self>() + self.grid.bytes() + self.registry.bytes()
    }
}

const _: () = assert!(SHAPES_MAX < 400);
const _: () = assert!(LEVELS_MAX as u32 + 1 == slots::FP_BITS);

#[inline]
fn fingerprint(hash: u64) -> u64 {
    (hash >> (64 - slots::FP_BITS)).max(1)
}

/// Probes whose cache misses overlap.
struct Batch<'a> {
    grid: &'a Grid,
    from: u32,
    to: u32,
    fps: [u64; BATCH],
    len: usize,
    out: &'a mut ShardSet,
}

impl Batch<'_> {
    #[inline]
    fn push(&mut self, fp: u64) {
        self.fps[self.len] = fp;
        self.len += 1;
        if self.len == BATCH {
            self.flush();
        }
    }

    #[inline]
    fn flush(&mut self) {
        let fps = &self.fps[..self.len];
        if self.from == self.to {
            let mut firsts = [None; BATCH];
            let mut words = 0;
            for (first, fp) in firsts.iter_mut().zip(fps) {
                let (bucket, word) = self.grid.first(self.to, *fp);
                *first = bucket;
                words ^= word;
            }
            std::hint::black_box(words);
            for (first, fp) in firsts.iter().zip(fps) {
                self.grid.collect_from(*first, self.to, *fp, self.out);
            }
        } else {
            for fp in fps {
                self.grid.collect(self.from, self.to, *fp, self.out);
            }
        }
        self.len = 0;
    }
}

/// The only one who inserts and removes the routes of one shard. Lives on: that shard.
#[derive(Debug)]
pub struct RouteWriter {
    table: Arc<RouteTable>,
    shard: ShardId,
    grid: GridWriter,
    /// Per wildcard shape: this shard's filters, and whether they are anchored. All filters of a
    /// shape are kept the same way as long as there is one, so that removing needs no memory of
    /// each. Bounded by the shard's filters.
    shapes: HashMap<Shape, ShapeUse>,
    /// Fingerprints that this shard inserted more than once, and how many times more: filters with
    /// the same anchor, and (rarely) filters whose fingerprints collide.
    repeats: HashMap<u64, u32>,
    /// Filters anchored per level; the last is those without anchor.
    anchors: [u32; LEVELS_MAX + 1],
}

#[derive(Debug)]
struct ShapeUse {
    filters: u32,
    anchored: bool,
}

impl RouteWriter {
    /// Routes topics matching `filter` to this shard. Call it when the shard gets its first
    /// subscription to `filter` ([`Subscribed::first_of_filter`](super::subs::Subscribed)), before
    /// SUBACK is written. Any lookup that starts after this has returned sees it. [S-55]
    ///
    /// # Errors
    /// [`RouteTableFull`]; nothing has changed then.
    pub fn insert(&mut self, filter: &str) -> Result<(), RouteTableFull> {
        let hashed = self.table.hasher.filter(filter);
        let anchored = self.enter_shape(&hashed);
        let done = if anchored {
            self.insert_anchored(&hashed)
        } else {
            self.insert_fp(fingerprint(hashed.hash))
        };
        if done.is_err() {
            self.leave_shape(&hashed);
        }
        self.changed();
        done
    }

    /// After the change itself: who still sees the old number may keep either answer, and drops it
    /// when it sees the new one.
    fn changed(&self) {
        self.table.changes.0.fetch_add(1, sync::Ordering::AcqRel);
    }

    /// Undoes one [`insert`](Self::insert) of the same filter, when its last subscription is gone.
    pub fn remove(&mut self, filter: &str) {
        let hashed = self.table.hasher.filter(filter);
        if self.is_anchored(&hashed) {
            self.remove_anchored(&hashed);
        } else {
            self.remove_fp(fingerprint(hashed.hash));
        }
        self.leave_shape(&hashed);
        self.changed();
    }

    /// Does this shard's part of a growth of the table in progress, in steps of `budget` buckets (a
    /// cache line each). Call it on every tick; costs two loads when there is nothing to do. Returns
    /// whether more is left.
    pub fn maintain(&mut self, budget: usize) -> bool {
        self.grid.maintain(&self.table.grid, budget)
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

    fn is_anchored(&self, hashed: &HashedFilter) -> bool {
        match hashed.shape {
            None => true,
            Some(s) if s.is_exact() => false,
            Some(s) => self.shapes.get(&s).is_some_and(|u| u.anchored),
        }
    }

    /// Counts a filter in, registering its shape if it is the first; whether it is to be anchored.
    fn enter_shape(&mut self, hashed: &HashedFilter) -> bool {
        let Some(shape) = hashed.shape else { return true };
        if shape.is_exact() {
            return false;
        }
        let (registry, shard) = (&self.table.registry, self.shard.index());
        let used = self.shapes.entry(shape).or_insert_with(|| ShapeUse {
            filters: 0,
            anchored: !registry.insert(shape, slots::Bit::new(shard)),
        });
        used.filters += 1;
        used.anchored
    }

    fn leave_shape(&mut self, hashed: &HashedFilter) {
        let Some(shape) = hashed.shape.filter(|s| !s.is_exact()) else { return };
        let Some(used) = self.shapes.get_mut(&shape) else {
            debug_assert!(false, "removed a filter that was not inserted");
            return;
        };
        used.filters -= 1;
        if used.filters == 0 {
            if !used.anchored {
                let bit = slots::Bit::new(self.shard.index());
                self.table.registry.remove(shape, bit);
            }
            self.shapes.remove(&shape);
        }
    }

    fn insert_anchored(&mut self, hashed: &HashedFilter) -> Result<(), RouteTableFull> {
        let level = hashed.anchor.map(|a| usize::from(a.level));
        let count = level.unwrap_or(LEVELS_MAX);
        if self.anchors[count] == 0 {
            self.table.registry.set_anchor(level, self.shard.index(), true);
        }
        self.anchors[count] += 1;
        match hashed.anchor {
            Some(a) => {
                self.insert_fp(fingerprint(a.hash)).inspect_err(|_| self.leave_anchor(level))
            }
            None => Ok(()),
        }
    }

    fn remove_anchored(&mut self, hashed: &HashedFilter) {
        if let Some(a) = hashed.anchor {
            self.remove_fp(fingerprint(a.hash));
        }
        self.leave_anchor(hashed.anchor.map(|a| usize::from(a.level)));
    }

    fn leave_anchor(&mut self, level: Option<usize>) {
        let count = &mut self.anchors[level.unwrap_or(LEVELS_MAX)];
        *count -= 1;
        if *count == 0 {
            self.table.registry.set_anchor(level, self.shard.index(), false);
        }
    }

    fn insert_fp(&mut self, fp: u64) -> Result<(), RouteTableFull> {
        if self.grid.has(&self.table.grid, fp) {
            *self.repeats.entry(fp).or_insert(0) += 1;
            return Ok(());
        }
        self.grid.insert(&self.table.grid, fp)
    }

    fn remove_fp(&mut self, fp: u64) {
        if let Some(more) = self.repeats.get_mut(&fp) {
            *more -= 1;
            if *more == 0 {
                self.repeats.remove(&fp);
            }
            return;
        }
        let found = self.grid.remove(&self.table.grid, fp);
        debug_assert!(found, "removed a filter that was not inserted");
    }
}
