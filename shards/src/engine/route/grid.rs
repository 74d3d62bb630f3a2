//! The growing hash table under the route table: fingerprint → set of shards.
//!
//! Level n has `base << n` buckets, in chunks that are allocated when first written and never move:
//! growing is one more on `level`. Then each shard, in small steps of its own, moves *its own
//! bits* to the places that the new level gives them: first set at the new place, then cleared at
//! the old. A key names the level that its place belongs to, so the two are never mixed up.
//!
//! Readers look at the places of all levels from the one that the last shard is still at, `settled`,
//! up to `level`, lower ones first, so that a bit on the move is seen at one place at least; and
//! once more if `level` changed meanwhile.

use super::RouteTableFull;
use super::slots::{Bit, Bucket, FP_BITS, Key, LEVEL_MAX, Line, SLOTS, lines_per_bucket};
use super::sync::{
    AtomicI64, AtomicU32,
    Ordering::{AcqRel, Acquire, Relaxed},
};
use crate::engine::ids::ShardSet;
use std::sync::OnceLock;

/// Buckets that one fingerprint can be in. At the load that triggers growth, 16 full ones in a row
/// are not seen; if they are, the table grows.
const PATH_MAX: usize = 16;

/// Buckets of its part that a shard goes through in each insert or remove while the table grows:
/// enough to be done long before the next growth.
pub(super) const SCAN_PER_CHANGE: usize = 64;

/// log2 of the buckets allocated at once: 128 KiB with up to 64 shards, some 10 µs of zeroing.
#[cfg(not(ringmain_loom))]
const CHUNK_BITS: u32 = 11;
#[cfg(ringmain_loom)]
const CHUNK_BITS: u32 = 0;

/// The level of a shard without a writer.
const ABSENT: u32 = u32::MAX;

/// A counter on a cache line of its own.
#[repr(align(64))]
#[derive(Debug)]
struct Apart(AtomicU32);

#[derive(Debug)]
pub(super) struct Grid {
    words: usize,
    base_bits: u32,
    level_max: u32,
    chunks: Box<[OnceLock<Box<[Line]>>]>,
    level: AtomicU32,
    settled: AtomicU32,
    live: AtomicI64,
    /// The level that all bits of each shard have reached.
    shards: Box<[Apart]>,
}

/// The part of one shard's writer that is about the grid.
#[derive(Debug)]
pub(super) struct GridWriter {
    shard: usize,
    bit: Bit,
    /// All bits of this shard are at this level, or during a scan at `target`.
    level: u32,
    scan: Option<Scan>,
    /// Bits set.
    bits: usize,
}

#[derive(Debug)]
struct Scan {
    target: u32,
    next: usize,
    end: usize,
}

impl Grid {
    /// `base_bits`: log2 of the buckets at the start. `level_max` doublings at most.
    pub(super) fn new(shards: usize, base_bits: u32, level_max: u32) -> Self {
        assert!(level_max <= LEVEL_MAX && base_bits >= CHUNK_BITS && base_bits + level_max <= 30);
        let chunks = 1usize << (base_bits + level_max - CHUNK_BITS);
        Self {
            words: shards.div_ceil(64),
            base_bits,
            level_max,
            chunks: (0..chunks).map(|_| OnceLock::new()).collect(),
            level: AtomicU32::new(0),
            settled: AtomicU32::new(0),
            live: AtomicI64::new(0),
            shards: (0..shards).map(|_| Apart(AtomicU32::new(ABSENT))).collect(),
        }
    }

    pub(super) fn writer(&self, shard: usize) -> Option<GridWriter> {
        self.shards[shard].0.compare_exchange(ABSENT, 0, AcqRel, Acquire).ok()?;
        let mut w = GridWriter { shard, bit: Bit::new(shard), level: 0, scan: None, bits: 0 };
        w.settle(self, self.level.fetch_or(0, AcqRel));
        Some(w)
    }

    pub(super) fn bytes(&self) -> usize {
        let lines: usize = self.chunks.iter().filter_map(OnceLock::get).map(|c| c.len()).sum();
        lines * size_of::<Line>()
            + size_of_val(&*self.chunks)
            + self.shards.len() * size_of::<Apart>()
    }

    /// Slots in use.
    pub(super) fn len(&self) -> usize {
        usize::try_from(self.live.load(Relaxed)).unwrap_or(0)
    }

    pub(super) fn words(&self) -> usize {
        self.words
    }

    /// Runs `probe` with the levels to look at, again if the table grew meanwhile (which happens at
    /// most `level_max` times in a table's life).
    #[inline]
    pub(super) fn read(&self, mut probe: impl FnMut(u32, u32)) {
        let mut level = self.level.load(Acquire);
        loop {
            probe(self.settled.load(Acquire).min(level), level);
            let now = self.level.load(Acquire);
            if now == level {
                return;
            }
            level = now;
        }
    }

    /// The first place of a fingerprint, and its first word, loaded so that misses overlap.
    #[inline]
    pub(super) fn first(&self, level: u32, fp: u64) -> (Option<Bucket<'_>>, u64) {
        let bucket = self.bucket(place(self.base_bits + level, fp, 0));
        (bucket, bucket.map_or(0, |b| b.touch()))
    }

    /// As [`collect`](Self::collect) at one level, where `first` was looked up before.
    #[inline]
    pub(super) fn collect_from(
        &self,
        first: Option<Bucket<'_>>,
        level: u32,
        fp: u64,
        out: &mut ShardSet,
    ) {
        if first.is_some_and(|b| b.collect(fp, out)) {
            self.collect_path(1, level, fp, out);
        }
    }

    /// Adds the shards that have `fp` at one of these levels.
    #[inline]
    pub(super) fn collect(&self, from: u32, to: u32, fp: u64, out: &mut ShardSet) {
        for level in from..=to {
            self.collect_path(0, level, fp, out);
        }
    }

    fn collect_path(&self, from_step: usize, level: u32, fp: u64, out: &mut ShardSet) {
        for step in from_step..PATH_MAX {
            let bucket = self.bucket(place(self.base_bits + level, fp, step));
            if !bucket.is_some_and(|b| b.collect(fp, out)) {
                return;
            }
        }
    }

    /// `None` while nothing was ever written there.
    #[inline]
    fn bucket(&self, index: usize) -> Option<Bucket<'_>> {
        let chunk = self.chunks.get(index >> CHUNK_BITS)?.get()?;
        Some(self.in_chunk(chunk, index))
    }

    fn bucket_to_write(&self, index: usize) -> Bucket<'_> {
        let chunk = self.chunks[index >> CHUNK_BITS].get_or_init(|| {
            (0..lines_per_bucket(self.words) << CHUNK_BITS).map(|_| Line::new()).collect()
        });
        self.in_chunk(chunk, index)
    }

    #[inline]
    fn in_chunk<'a>(&self, chunk: &'a [Line], index: usize) -> Bucket<'a> {
        let per = lines_per_bucket(self.words);
        let at = (index & ((1 << CHUNK_BITS) - 1)) * per;
        Bucket { lines: &chunk[at..at + per], words: self.words }
    }

    fn buckets(&self, level: u32) -> usize {
        1 << (self.base_bits + level)
    }

    /// Whether to grow: beyond a load of 0.6, or 0.8 while shards are still moving their bits, when
    /// those on the move count twice.
    fn is_loaded(&self, level: u32) -> bool {
        let slots = (self.buckets(level) * SLOTS) as i64;
        let percent = if self.settled.load(Relaxed) == level { 60 } else { 80 };
        self.live.load(Relaxed) * 100 > slots * percent
    }

    /// Adds a level to `from`; false if there is none to add.
    fn grow(&self, from: u32) -> bool {
        if from >= self.level_max {
            return false;
        }
        let _ = self.level.compare_exchange(from, from + 1, AcqRel, Acquire);
        true
    }

    fn publish_settled(&self) {
        // A writer that comes meanwhile starts at `level`, which is at least what is found here.
        let level = self.level.load(Acquire);
        let least = self
            .shards
            .iter()
            .map(|s| s.0.fetch_or(0, AcqRel))
            .filter(|l| *l != ABSENT)
            .fold(level, u32::min);
        self.settled.fetch_max(least, AcqRel);
    }
}

/// The bucket at a step of a fingerprint's path in a table of `1 << bits` buckets.
#[inline]
fn place(bits: u32, fp: u64, step: usize) -> usize {
    let stride = fp >> (FP_BITS - 16) | 1;
    (fp.wrapping_add(stride.wrapping_mul(step as u64)) & ((1 << bits) - 1)) as usize
}

impl GridWriter {
    /// Sets this shard's bit for `fp`, which is not set.
    pub(super) fn insert(&mut self, grid: &Grid, fp: u64) -> Result<(), RouteTableFull> {
        self.maintain(grid, SCAN_PER_CHANGE);
        loop {
            let level = self.write_level();
            if self.set(grid, level, fp) {
                self.bits += 1;
                if grid.is_loaded(grid.level.load(Acquire)) {
                    grid.grow(grid.level.load(Acquire));
                }
                return Ok(());
            }
            // A path full to its end.
            if grid.level.load(Acquire) == level && !grid.grow(level) {
                return Err(RouteTableFull);
            }
            self.maintain(grid, usize::MAX);
            if self.write_level() == level {
                return Err(RouteTableFull);
            }
        }
    }

    /// Clears this shard's bit for `fp`; false if it was not set.
    pub(super) fn remove(&mut self, grid: &Grid, fp: u64) -> bool {
        self.maintain(grid, SCAN_PER_CHANGE);
        let levels = [Some(self.level), self.scan.as_ref().map(|s| s.target)];
        let found = levels.into_iter().flatten().any(|level| self.clear(grid, level, fp));
        self.bits -= usize::from(found);
        found
    }

    /// Whether this shard's bit for `fp` is set.
    pub(super) fn has(&self, grid: &Grid, fp: u64) -> bool {
        let levels = [Some(self.level), self.scan.as_ref().map(|s| s.target)];
        levels.into_iter().flatten().any(|level| self.find(grid, level, fp).is_some())
    }

    /// Goes through up to `budget` buckets of a growth; whether more is left.
    #[inline]
    pub(super) fn maintain(&mut self, grid: &Grid, budget: usize) -> bool {
        if self.scan.is_none() && grid.level.load(Acquire) == self.level {
            return false;
        }
        self.scan_some(grid, budget)
    }

    #[cold]
    fn scan_some(&mut self, grid: &Grid, budget: usize) -> bool {
        let (level, bits) = (self.level, self.bits);
        let scan = self.scan.get_or_insert_with(|| {
            let target = grid.level.load(Acquire);
            Scan { target, next: 0, end: if bits == 0 { 0 } else { grid.buckets(level) } }
        });
        let (target, from) = (scan.target, scan.next);
        let to = scan.end.min(from.saturating_add(budget));
        for index in from..to {
            let Some(bucket) = grid.bucket(index) else { continue };
            for slot in 0..SLOTS {
                if let Some(key) = bucket.key_at(slot)
                    && key.level() == level
                    && bucket.has(slot, self.bit)
                {
                    if !self.set(grid, target, key.fp()) {
                        // No room at the target: leave it, and try again in the next call.
                        return self.scan_at(grid, index);
                    }
                    bucket.clear_bit(slot, self.bit, &grid.live);
                    self.return_from(grid, level, key.fp(), index);
                }
            }
        }
        if to == self.scan.as_ref().map_or(0, |s| s.end) {
            self.scan = None;
            self.settle(grid, target);
            return grid.level.load(Acquire) != self.level;
        }
        self.scan_at(grid, to)
    }

    fn scan_at(&mut self, _grid: &Grid, index: usize) -> bool {
        if let Some(scan) = &mut self.scan {
            scan.next = index;
        }
        true
    }

    /// All bits of this shard are at `level` now.
    fn settle(&mut self, grid: &Grid, level: u32) {
        self.level = level;
        grid.shards[self.shard].0.swap(level, AcqRel);
        grid.publish_settled();
    }

    fn write_level(&self) -> u32 {
        self.scan.as_ref().map_or(self.level, |s| s.target)
    }

    fn set(&self, grid: &Grid, level: u32, fp: u64) -> bool {
        for step in 0..PATH_MAX {
            let bucket = grid.bucket_to_write(place(grid.base_bits + level, fp, step));
            if bucket.insert(Key::new(fp, level), self.bit, &grid.live) {
                return true;
            }
            bucket.displace(true);
            // There may be room now; but the count was raised, so going on is right all the same.
        }
        self.undisplace(grid, level, fp, PATH_MAX);
        false
    }

    /// The step of the path where this shard's bit is, and the bucket.
    fn find<'a>(&self, grid: &'a Grid, level: u32, fp: u64) -> Option<(usize, Bucket<'a>)> {
        let key = Key::new(fp, level);
        for step in 0..PATH_MAX {
            let bucket = grid.bucket(place(grid.base_bits + level, fp, step))?;
            if (0..SLOTS).any(|s| bucket.key_at(s) == Some(key) && bucket.has(s, self.bit)) {
                return Some((step, bucket));
            }
            if !bucket.is_passed() {
                return None;
            }
        }
        None
    }

    fn clear(&self, grid: &Grid, level: u32, fp: u64) -> bool {
        let Some((step, bucket)) = self.find(grid, level, fp) else { return false };
        bucket.remove(Key::new(fp, level), self.bit, &grid.live);
        self.undisplace(grid, level, fp, step);
        true
    }

    /// The bit for `fp` is no longer in bucket `index`: so it is no longer counted before it.
    fn return_from(&self, grid: &Grid, level: u32, fp: u64, index: usize) {
        let path = (0..PATH_MAX).map(|s| place(grid.base_bits + level, fp, s));
        self.undisplace(grid, level, fp, path.take_while(|p| *p != index).count());
    }

    fn undisplace(&self, grid: &Grid, level: u32, fp: u64, steps: usize) {
        for step in 0..steps {
            if let Some(bucket) = grid.bucket(place(grid.base_bits + level, fp, step)) {
                bucket.displace(false);
            }
        }
    }
}
