//! The node-wide route table: which shards *may* have subscribers for a topic.
//!
//! A route is a hint: a false positive costs a wasted hop, a false negative is a bug. The table
//! keeps no filters, only 44-bit fingerprints of them, each with a set of shards:
//!
//! ```text
//!  topic ─hash levels─┬───────────────── the topic itself ────▶ Grid `exact`: fingerprint ─┐
//!                     └▶ Registry: shapes in use ─one hash each─▶ Grid `wild`: → shards ─┴▶ union
//! ```
//!
//! Most topics have at most an exact filter: so the exact grid is read where the line is, and the wild
//! one, smaller, has tags that most of its probes end at.
//!
//! Filters of shapes beyond the registry's room, or deeper than a shape can say, are found by one
//! literal level of theirs, the *anchor*: a coarser hint. Without any literal, by all topics.
//!
//! Everything is changed by compare-and-swap; [`RouteTable::lookup`] neither waits nor allocates.
//! Decision record 0010 has the measurements.

mod grid;
mod own;
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

/// log2 of the buckets at the start, and the most levels, two a doubling: 2^25 buckets, 100 million
/// routes without wildcards; 2^23 buckets, 25 million routes with them.
const BASE_BITS: u32 = 11;
const LEVEL_MAX: u32 = 28;
const WILD_LEVELS_LESS: u32 = 4;

/// Tells fingerprints of the one grid from those of the other.
const WILD: u64 = 1 << 63;

/// Shared by all shards of a node, in an `Arc`. Lives on: all shards.
#[derive(Debug)]
pub struct RouteTable {
    hasher: LevelHasher,
    /// Filters without wildcards.
    exact: Grid,
    /// Filters with wildcards, and anchors.
    wild: Grid,
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

/// The table has reached its greatest size (100 million routes without wildcards, or 25 million with
/// them); nothing was inserted.
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
        let exact = Grid::new(shards, base_bits, level_max, false);
        let wild = Grid::new(shards, base_bits, level_max.saturating_sub(WILD_LEVELS_LESS), true);
        let registry = Registry::new(exact.words());
        let changes = Changes(sync::AtomicU64::new(0));
        Self { hasher: LevelHasher::new(seed), exact, wild, registry, shards, changes }
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
        let [exact, wild] = [&self.exact, &self.wild]
            .map(|g| g.writer(shard.index()).expect("a shard takes its route writer once"));
        RouteWriter {
            table: Arc::clone(self),
            shard,
            exact,
            wild,
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
    #[inline]
    pub fn lookup(&self, topic: &str, out: &mut ShardSet) {
        self.lookup_prepared(&self.prepare(topic), topic, out);
    }

    /// Hashes a topic and asks memory for what [`lookup_prepared`](Self::lookup_prepared) will look at:
    /// called some work earlier, the misses overlap with that work and with those of other topics.
    #[inline]
    #[must_use]
    pub fn prepare(&self, topic: &str) -> PreparedTopic {
        let mut prepared = PreparedTopic {
            version: self.registry.version(),
            exact: 0,
            count: 0,
            probes: [0; PROBES],
        };
        // Counting all levels is cheaper than hashing them into the larger array.
        let done = self.hasher.with_topic::<LEVELS_FAST, _>(topic, |hashed| {
            let whole = hashed.levels <= LEVELS_FAST;
            if whole {
                self.prepare_hashed(hashed, &mut prepared);
            }
            whole
        });
        if !done {
            self.prepare_deep(topic, &mut prepared);
        }
        prepared
    }

    #[cold]
    fn prepare_deep(&self, topic: &str, to: &mut PreparedTopic) {
        self.hasher.with_topic::<LEVELS_MAX, _>(topic, |hashed| self.prepare_hashed(hashed, to));
    }

    #[inline]
    fn prepare_hashed<const N: usize>(&self, topic: &HashedTopic<'_, N>, to: &mut PreparedTopic) {
        if topic.levels <= LEVELS_MAX {
            to.exact = fingerprint(topic.hash(topic.levels, 0, false));
            self.exact.prefetch(self.exact.level(), to.exact);
        }
        let buckets = self.wild.buckets(self.wild.level());
        self.each_probe(topic, |fp| {
            self.wild.prefetch_tags(buckets, fp);
            // Those beyond are found out anew: they are few, or a lookup is slow anyway.
            to.probes[to.count % PROBES] = fp;
            to.count += 1;
        });
    }

    /// Calls `probe` with the fingerprints of all wildcard filters that match a topic, and of its anchors.
    #[inline]
    fn each_probe<const N: usize>(&self, topic: &HashedTopic<'_, N>, mut probe: impl FnMut(u64)) {
        self.registry.shapes(topic.levels, topic.dollar, |levels, plus, multi| {
            probe(fingerprint(topic.hash(levels, plus, multi)));
        });
        self.registry.anchor_levels(topic.levels, topic.dollar, |level| {
            probe(fingerprint(topic.anchor_hash(level)));
        });
    }

    /// As [`lookup`](Self::lookup) of the topic that was prepared, whatever was inserted since.
    #[inline]
    pub fn lookup_prepared(&self, prepared: &PreparedTopic, topic: &str, out: &mut ShardSet) {
        self.registry.collect_any(topic.as_bytes().first() == Some(&b'$'), out);
        if prepared.count > PROBES || prepared.version != self.registry.version() {
            self.lookup_many(topic, out);
        } else {
            let probes = &prepared.probes[..prepared.count];
            self.wild.read(|from, to| {
                let buckets = self.wild.buckets(to);
                for fp in probes {
                    self.wild.collect_in(buckets, from, to, *fp, out);
                }
            });
        }
        if prepared.exact != 0 {
            self.exact.read(|from, to| self.exact.collect(from, to, prepared.exact, out));
        }
    }

    /// Looks at the wildcard filters for a topic one after another, however many.
    #[cold]
    fn lookup_many(&self, topic: &str, out: &mut ShardSet) {
        self.hasher.with_topic::<LEVELS_MAX, _>(topic, |topic| {
            self.wild.read(|from, to| {
                let buckets = self.wild.buckets(to);
                self.each_probe(topic, |fp| self.wild.collect_in(buckets, from, to, fp, out));
            });
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
        self.exact.len() + self.wild.len()
    }

    /// Whether no shard has a route.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Bytes held.
    #[must_use]
    pub fn bytes(&self) -> usize {
        size_of::<Self>() + self.exact.bytes() + self.wild.bytes() + self.registry.bytes()
    }
}

/// Probes that a prepared topic keeps: more than most topics have, and about as many misses as a core can have
/// under way.
const PROBES: usize = 32;

/// A topic that is about to be looked up.
#[derive(Clone, Copy, Debug)]
pub struct PreparedTopic {
    /// Of the registry: which shapes were in use.
    version: u64,
    /// Fingerprint of the filter that is the topic itself; 0 if there can be none.
    exact: u64,
    /// Probes of the other grid, and their fingerprints, if there is room for them.
    count: usize,
    probes: [u64; PROBES],
}

const _: () = assert!(SHAPES_MAX < 400);
const _: () = assert!(LEVELS_MAX as u32 + 1 == slots::FP_BITS);

#[inline]
fn fingerprint(hash: u64) -> u64 {
    (hash >> (64 - slots::FP_BITS)).max(1)
}

/// The only one who inserts and removes the routes of one shard. Lives on: that shard.
#[derive(Debug)]
pub struct RouteWriter {
    table: Arc<RouteTable>,
    shard: ShardId,
    exact: GridWriter,
    wild: GridWriter,
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

/// A filter whose route is about to be inserted.
#[derive(Clone, Copy, Debug)]
pub struct PreparedRoute(HashedFilter);

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
        let prepared = self.prepare(filter);
        self.insert_prepared(prepared)
    }

    /// Hashes a filter and asks memory for what [`insert_prepared`](Self::insert_prepared) will look at:
    /// call it some work earlier, best for several filters in a row, and the misses overlap.
    #[must_use]
    pub fn prepare(&self, filter: &str) -> PreparedRoute {
        let hashed = self.table.hasher.filter(filter);
        let fp = grid_fp(&hashed);
        if fp & WILD == 0 {
            self.exact.prefetch(&self.table.exact, fp);
        } else {
            self.wild.prefetch(&self.table.wild, fp & !WILD);
        }
        PreparedRoute(hashed)
    }

    /// As [`insert`](Self::insert) of the filter that was prepared, by this writer.
    ///
    /// # Errors
    /// [`RouteTableFull`]; nothing has changed then.
    pub fn insert_prepared(&mut self, prepared: PreparedRoute) -> Result<(), RouteTableFull> {
        let PreparedRoute(hashed) = prepared;
        let anchored = self.enter_shape(&hashed);
        let done =
            if anchored { self.insert_anchored(&hashed) } else { self.insert_fp(grid_fp(&hashed)) };
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
            self.remove_fp(grid_fp(&hashed));
        }
        self.leave_shape(&hashed);
        self.changed();
    }

    /// Does this shard's part of a growth of the table in progress, in steps of `budget` buckets (a
    /// cache line each). Call it on every tick; costs two loads when there is nothing to do. Returns
    /// whether more is left.
    pub fn maintain(&mut self, budget: usize) -> bool {
        self.exact.maintain(&self.table.exact, budget)
            | self.wild.maintain(&self.table.wild, budget)
    }

    /// Bytes that this writer holds beside the table, without its repeats.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.exact.bytes() + self.wild.bytes()
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
                let done = self.insert_fp(fingerprint(a.hash) | WILD);
                done.inspect_err(|_| self.leave_anchor(level))
            }
            None => Ok(()),
        }
    }

    fn remove_anchored(&mut self, hashed: &HashedFilter) {
        if let Some(a) = hashed.anchor {
            self.remove_fp(fingerprint(a.hash) | WILD);
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
        let (writer, grid, own) = self.grid_of(fp);
        if !writer.has(grid, own) {
            return writer.insert(grid, own);
        }
        *self.repeats.entry(fp).or_insert(0) += 1;
        Ok(())
    }

    fn remove_fp(&mut self, fp: u64) {
        if let Some(more) = self.repeats.get_mut(&fp) {
            *more -= 1;
            if *more == 0 {
                self.repeats.remove(&fp);
            }
            return;
        }
        let (writer, grid, own) = self.grid_of(fp);
        let found = writer.remove(grid, own);
        debug_assert!(found, "removed a filter that was not inserted");
    }

    /// The grid for a fingerprint, marked [`WILD`] or not, and its fingerprint there.
    fn grid_of(&mut self, fp: u64) -> (&mut GridWriter, &Grid, u64) {
        if fp & WILD == 0 {
            (&mut self.exact, &self.table.exact, fp)
        } else {
            (&mut self.wild, &self.table.wild, fp & !WILD)
        }
    }
}

/// The fingerprint of a filter with a shape, marked with its grid.
fn grid_fp(hashed: &HashedFilter) -> u64 {
    let exact = hashed.shape.is_some_and(Shape::is_exact);
    fingerprint(hashed.hash) | if exact { 0 } else { WILD }
}
