//! The growing hash table under the route table: fingerprint → set of shards.
//!
//! Levels have `base`, 3/2 `base`, 2 `base`, 3 `base`, 4 `base` ... buckets, in chunks that are
//! allocated when first written and never move: growing is one more on `level`. Then each shard, in
//! small steps of its own, moves *its own bits* to the places that the new level gives them: first
//! set at the new place, then cleared at the old. A key names the level that its place belongs to,
//! so the two are never mixed up.
//!
//! Readers look at the places of all levels from the one that the last shard is still at, `settled`,
//! up to `level`, lower ones first, so that a bit on the move is seen at one place at least; and
//! once more if `level` changed meanwhile.

use super::RouteTableFull;
use super::own::Own;
use super::slots::{
    Bit, Bucket, FP_BITS, Key, LEVEL_MAX, SLOTS, lines_per_bucket, tags_may_have, tags_passed,
};
use super::sync::{
    AtomicI64, AtomicU32, AtomicU64, Line, Lines,
    Ordering::{AcqRel, Acquire, Relaxed},
};
use crate::engine::ids::ShardSet;
use crate::mem;
use std::sync::OnceLock;

/// Buckets that one fingerprint can be in. At the load that triggers growth, 16 full ones in a row
/// are not seen; if they are, the table grows.
const PATH_MAX: usize = 16;

/// Buckets with bits of its own that a shard goes through in each insert or remove while the table
/// grows: enough to be done long before the next growth, which a third more routes bring about.
pub(super) const SCAN_PER_CHANGE: usize = 16;

/// Buckets of a growth whose lines are asked for before the first of them is read: about as many misses
/// as a core can have under way.
const AHEAD: usize = 16;

/// log2 of the buckets allocated at once: 128 KiB with up to 64 shards in small tables; and beyond
/// `LARGE_BITS`, 2 MiB, a large page.
#[cfg(not(ringmain_loom))]
const CHUNK_BITS: u32 = 11;
#[cfg(not(ringmain_loom))]
const LARGE_BITS: u32 = 15;
#[cfg(ringmain_loom)]
const CHUNK_BITS: u32 = 0;
#[cfg(ringmain_loom)]
const LARGE_BITS: u32 = 0;

/// Where a bucket is.
#[derive(Clone, Copy)]
struct Place {
    chunk: usize,
    /// Buckets before it in its chunk.
    at: usize,
    /// Buckets of its chunk.
    of: usize,
}

impl Place {
    #[inline]
    fn of(index: usize) -> Self {
        let large = index >> LARGE_BITS != 0;
        let bits = if large { LARGE_BITS } else { CHUNK_BITS };
        let skipped = if large { (1 << (LARGE_BITS - CHUNK_BITS)) - 1 } else { 0 };
        let of = 1usize << bits;
        Self { chunk: skipped + (index >> bits), at: index & (of - 1), of }
    }
}

/// Tag words in a line.
const TAGS: usize = 8;

/// Percent of the slots in use beyond which the table grows; and while shards are still moving their
/// bits, when those on the move count twice. With tags less: most of what is looked up there is not
/// found, and each full bucket on the way costs as much again.
#[cfg(not(ringmain_loom))]
const LOAD: (i64, i64) = (75, 90);
#[cfg(not(ringmain_loom))]
const LOAD_TAGGED: (i64, i64) = (50, 75);
#[cfg(ringmain_loom)]
const LOAD: (i64, i64) = (60, 80);
#[cfg(ringmain_loom)]
const LOAD_TAGGED: (i64, i64) = LOAD;

/// The level of a shard without a writer.
const ABSENT: u32 = u32::MAX;

/// A counter on a cache line of its own.
#[repr(align(64))]
#[derive(Debug)]
struct Apart<T>(T);

#[derive(Debug)]
pub(super) struct Grid {
    words: usize,
    base_bits: u32,
    level_max: u32,
    /// Whether chunks begin with a tag word for each bucket.
    tagged: bool,
    chunks: Box<[OnceLock<Lines>]>,
    level: AtomicU32,
    settled: AtomicU32,
    /// Slots in use: written by each insert, and so not beside what each lookup reads.
    live: Apart<AtomicI64>,
    /// The level that all bits of each shard have reached.
    shards: Box<[Apart<AtomicU32>]>,
}

/// The part of one shard's writer that is about the grid.
#[derive(Debug)]
pub(super) struct GridWriter {
    shard: usize,
    bit: Bit,
    /// All bits of this shard are at this level, or during a scan between it and `target`.
    level: u32,
    scan: Option<Scan>,
    /// Bits set.
    bits: usize,
    /// The buckets that may have bits of this shard.
    own: Own,
}

#[derive(Debug)]
struct Scan {
    target: u32,
    /// Buckets still to go through. From the last one down: what is moved goes up, to where room was
    /// made before; the other way it would crowd what has not been moved yet.
    left: usize,
}

impl Grid {
    /// `base_bits`: log2 of the buckets at the start. Two levels are a doubling. `tagged`: whether
    /// most lookups are expected to find nothing.
    pub(super) fn new(shards: usize, base_bits: u32, level_max: u32, tagged: bool) -> Self {
        assert!(level_max <= LEVEL_MAX && base_bits >= CHUNK_BITS);
        let chunks = Place::of(buckets(base_bits, level_max) - 1).chunk + 1;
        let grid = Self {
            tagged,
            words: shards.div_ceil(64),
            base_bits,
            level_max,
            chunks: (0..chunks).map(|_| OnceLock::new()).collect(),
            level: AtomicU32::new(0),
            settled: AtomicU32::new(0),
            live: Apart(AtomicI64::new(0)),
            shards: (0..shards).map(|_| Apart(AtomicU32::new(ABSENT))).collect(),
        };
        // A model does not see that `OnceLock` publishes what it holds.
        let first = if cfg!(ringmain_loom) { buckets(base_bits, level_max) } else { 0 };
        (0..first).for_each(|index| _ = grid.bucket_to_write(index));
        grid
    }

    pub(super) fn writer(&self, shard: usize) -> Option<GridWriter> {
        self.shards[shard].0.compare_exchange(ABSENT, 0, AcqRel, Acquire).ok()?;
        let mut w = GridWriter {
            shard,
            bit: Bit::new(shard),
            level: 0,
            scan: None,
            bits: 0,
            own: Own::default(),
        };
        w.settle(self, self.level.fetch_or(0, AcqRel));
        Some(w)
    }

    pub(super) fn bytes(&self) -> usize {
        let lines: usize = self.chunks.iter().filter_map(OnceLock::get).map(|c| c.len()).sum();
        lines * size_of::<Line>()
            + size_of_val(&*self.chunks)
            + self.shards.len() * size_of::<Apart<AtomicU32>>()
    }

    /// Slots in use.
    pub(super) fn len(&self) -> usize {
        usize::try_from(self.live.0.load(Relaxed)).unwrap_or(0)
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

    /// Asks for the lines that [`collect`](Self::collect) will look at first, so that their misses
    /// overlap with each other and with what is done before. For a grid without tags.
    #[inline]
    pub(super) fn prefetch(&self, level: u32, fp: u64) {
        debug_assert!(!self.tagged);
        let place = Place::of(self.place(level, fp, 0));
        let Some(chunk) = self.chunks.get(place.chunk).and_then(OnceLock::get) else { return };
        self.in_chunk(chunk, place).lines.iter().for_each(mem::prefetch);
        if self.words == 1 {
            // One bucket in four sends on to its neighbour.
            mem::prefetch(&chunk[place.at ^ usize::from(place.of > 1)]);
        }
    }

    /// Asks for the lines of the bucket at `index`.
    #[inline]
    fn prefetch_bucket(&self, index: usize) {
        let Some(bucket) = self.bucket(index) else { return };
        mem::prefetch(&bucket.lines[0]);
        bucket.tags.iter().for_each(|tags| mem::prefetch(*tags));
    }

    /// Asks for the tag words that [`collect_in`](Self::collect_in) will look at first. For a grid with tags.
    #[inline]
    pub(super) fn prefetch_tags(&self, buckets: usize, fp: u64) {
        if let Some((line, _)) = self.tags(buckets, fp) {
            mem::prefetch(line);
        }
    }

    /// The line with the tag words of the first two buckets to look at for a fingerprint, and where the
    /// first's is; `None` while nothing was ever written there.
    #[inline]
    fn tags(&self, buckets: usize, fp: u64) -> Option<(&[AtomicU64; TAGS], usize)> {
        debug_assert!(self.tagged);
        let place = Place::of(first(buckets, fp));
        let line = &self.chunks.get(place.chunk)?.get()?[place.at / TAGS].0;
        Some((line, place.at % TAGS))
    }

    /// As [`collect`](Self::collect), for a grid with tags: most end at the first tag words. `buckets` are those
    /// of level `to`.
    #[inline]
    pub(super) fn collect_in(
        &self,
        buckets: usize,
        from: u32,
        to: u32,
        fp: u64,
        out: &mut ShardSet,
    ) {
        if from < to {
            return self.collect(from, to, fp, out);
        }
        let Some((line, at)) = self.tags(buckets, fp) else { return };
        let (a, b) = (line[at].load(Acquire), line[at ^ 1].load(Acquire));
        // One branch for both: that the first is passed is hard to predict, and nothing follows from it
        // unless the second has the tag, or is passed itself.
        let further = tags_passed(a) & (tags_may_have(b, fp) | tags_passed(b));
        if tags_may_have(a, fp) | further {
            self.collect_tagged(to, fp, out);
        }
    }

    /// The level to look at first.
    #[inline]
    pub(super) fn level(&self) -> u32 {
        self.level.load(Acquire)
    }

    /// Adds the shards that have `fp` at one of these levels.
    #[inline]
    pub(super) fn collect(&self, from: u32, to: u32, fp: u64, out: &mut ShardSet) {
        for level in from..=to {
            if !self.tagged {
                self.collect_path(level, fp, out);
            } else {
                self.collect_tagged(level, fp, out);
            }
        }
    }

    /// Goes along the path by the tag words, and to buckets only where one has the fingerprint's tag.
    #[inline(never)]
    fn collect_tagged(&self, level: u32, fp: u64, out: &mut ShardSet) {
        for step in 0..PATH_MAX {
            let place = Place::of(self.place(level, fp, step));
            let Some(chunk) = self.chunks.get(place.chunk).and_then(OnceLock::get) else { return };
            let tags = tag_word(chunk, place).load(Acquire);
            if tags_may_have(tags, fp) {
                self.in_chunk(chunk, place).collect(fp, out);
            }
            if !tags_passed(tags) {
                return;
            }
        }
    }

    #[inline]
    fn collect_path(&self, level: u32, fp: u64, out: &mut ShardSet) {
        for step in 0..PATH_MAX {
            let bucket = self.bucket(self.place(level, fp, step));
            if !bucket.is_some_and(|b| b.collect(fp, out)) {
                return;
            }
        }
    }

    /// `None` while nothing was ever written there.
    #[inline]
    fn bucket(&self, index: usize) -> Option<Bucket<'_>> {
        let place = Place::of(index);
        let chunk = self.chunks.get(place.chunk)?.get()?;
        Some(self.in_chunk(chunk, place))
    }

    fn bucket_to_write(&self, index: usize) -> Bucket<'_> {
        let place = Place::of(index);
        let chunk = self.chunks[place.chunk].get_or_init(|| {
            Lines::zeroed(self.tag_lines(place) + lines_per_bucket(self.words) * place.of)
        });
        self.in_chunk(chunk, place)
    }

    /// Lines of tag words at the start of a chunk.
    #[inline]
    fn tag_lines(&self, place: Place) -> usize {
        if self.tagged { place.of.div_ceil(TAGS) } else { 0 }
    }

    #[inline]
    fn in_chunk<'a>(&self, chunk: &'a [Line], place: Place) -> Bucket<'a> {
        let per = lines_per_bucket(self.words);
        let at = self.tag_lines(place) + place.at * per;
        let tags = self.tagged.then(|| tag_word(chunk, place));
        Bucket { lines: &chunk[at..at + per], words: self.words, tags }
    }

    /// Buckets of a level.
    #[inline]
    pub(super) fn buckets(&self, level: u32) -> usize {
        buckets(self.base_bits, level)
    }

    /// The bucket at a step of a fingerprint's path: two neighbours at a time, because the second line
    /// of a pair costs little after the first.
    #[inline]
    fn place(&self, level: u32, fp: u64, step: usize) -> usize {
        let buckets = self.buckets(level);
        let first = first(buckets, fp);
        if step == 0 {
            return first;
        }
        // The number of buckets is even but in a model's smallest table.
        if step == 1 && buckets & 1 == 0 {
            return first ^ 1;
        }
        let stride = ((fp >> (FP_BITS - 16)) as usize) | 1;
        (((first + stride * (step / 2)) % buckets) ^ (step & 1)) % buckets
    }

    /// Whether to grow.
    fn is_loaded(&self, level: u32) -> bool {
        let slots = (self.buckets(level) * SLOTS) as i64;
        let (still, moving) = if self.tagged { LOAD_TAGGED } else { LOAD };
        let percent = if self.settled.load(Relaxed) == level { still } else { moving };
        self.live.0.load(Relaxed) * 100 > slots * percent
    }

    /// Adds a level to `from`; false if there is none to add.
    pub(super) fn grow(&self, from: u32) -> bool {
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

/// The bucket to look at first, of so many.
#[inline]
fn first(buckets: usize, fp: u64) -> usize {
    (((fp & u64::from(u32::MAX)) * buckets as u64) >> 32) as usize
}

#[inline]
fn buckets(base_bits: u32, level: u32) -> usize {
    if cfg!(ringmain_loom) {
        return 1 << (base_bits + level);
    }
    let whole = 1 << (base_bits + level / 2);
    whole + (level as usize & 1) * (whole / 2)
}

#[inline]
fn tag_word(chunk: &[Line], place: Place) -> &AtomicU64 {
    &chunk[place.at / TAGS].0[place.at % TAGS]
}

impl GridWriter {
    /// Bytes held beside the grid.
    pub(super) fn bytes(&self) -> usize {
        self.own.bytes()
    }

    /// Asks for what an insert or remove of `fp` looks at first.
    #[inline]
    pub(super) fn prefetch(&self, grid: &Grid, fp: u64) {
        let index = grid.place(self.write_level(), fp, 0);
        grid.prefetch_bucket(index);
        self.own.prefetch(index);
        if self.scan.is_some() {
            grid.prefetch_bucket(grid.place(self.level, fp, 0));
        }
    }

    /// Sets this shard's bit for `fp`, which is not set.
    pub(super) fn insert(&mut self, grid: &Grid, fp: u64) -> Result<(), RouteTableFull> {
        self.maintain(grid, SCAN_PER_CHANGE);
        loop {
            let level = self.write_level();
            if let Some(index) = self.set(grid, level, fp) {
                self.own.insert(index);
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
            // A call ends a scan under way, or sets it a new target; another one starts the next.
            for _ in 0..3 {
                if self.write_level() == level {
                    self.maintain(grid, usize::MAX);
                }
            }
            if self.write_level() == level {
                return Err(RouteTableFull);
            }
        }
    }

    /// Clears this shard's bit for `fp`; false if it was not set.
    pub(super) fn remove(&mut self, grid: &Grid, fp: u64) -> bool {
        self.maintain(grid, SCAN_PER_CHANGE);
        let found = self.levels().any(|level| self.clear(grid, level, fp));
        self.bits -= usize::from(found);
        found
    }

    /// Whether this shard's bit for `fp` is set.
    pub(super) fn has(&self, grid: &Grid, fp: u64) -> bool {
        self.levels().any(|level| self.find(grid, level, fp).is_some())
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
        let mut scan = match self.scan.take() {
            Some(scan) => scan,
            None => self.scan_to(grid, grid.level.load(Acquire)),
        };
        let mut budget = budget;
        while budget > 0 && scan.left > 0 {
            let mut ahead = [0; AHEAD];
            let (found, steps, end) = self.own.before(scan.left, budget, &mut ahead);
            ahead[..found].iter().for_each(|index| grid.prefetch_bucket(*index));
            ahead[..found]
                .iter()
                .for_each(|index| self.prefetch_targets(grid, *index, scan.target));
            for index in &ahead[..found] {
                if self.move_bits(grid, *index, scan.target) {
                    scan.left = *index;
                    continue;
                }
                // No room there: perhaps because other shards' bits are still at the levels below.
                // What this shard has moved, it moves once more.
                let level = grid.level.load(Acquire);
                if level == scan.target {
                    grid.grow(level);
                }
                let level = grid.level.load(Acquire);
                self.scan =
                    Some(if level > scan.target { self.scan_to(grid, level) } else { scan });
                return true;
            }
            scan.left = end;
            budget -= steps;
        }
        if scan.left == 0 {
            self.settle(grid, scan.target);
            return grid.level.load(Acquire) != self.level;
        }
        self.scan = Some(scan);
        true
    }

    fn scan_to(&self, grid: &Grid, target: u32) -> Scan {
        Scan { target, left: if self.bits == 0 { 0 } else { grid.buckets(target - 1) } }
    }

    /// Asks for the buckets that this shard's bits in bucket `index` will move to.
    fn prefetch_targets(&self, grid: &Grid, index: usize, target: u32) {
        let Some(bucket) = grid.bucket(index) else { return };
        for slot in bucket.slots_of(self.bit) {
            if let Some(key) = bucket.key_at(slot) {
                grid.prefetch_bucket(grid.place(target, key.fp(), 0));
            }
        }
    }

    /// Moves this shard's bits in one bucket up to level `target`; false if there is no room.
    fn move_bits(&mut self, grid: &Grid, index: usize, target: u32) -> bool {
        let Some(bucket) = grid.bucket(index) else { return true };
        let mut stays = false;
        // Those that it has now: what comes while it moves is at `target` already.
        for slot in bucket.slots_of(self.bit) {
            let Some(key) = bucket.key_at(slot) else { continue };
            if !(self.level..target).contains(&key.level()) {
                stays = true;
                continue;
            }
            let Some(to) = self.set(grid, target, key.fp()) else { return false };
            self.own.insert(to);
            bucket.clear_bit(slot, self.bit, &grid.live.0);
            self.return_from(grid, key.level(), key.fp(), index);
            stays |= to == index;
        }
        if !stays {
            self.own.remove(index);
        }
        true
    }

    /// All bits of this shard are at `level` now.
    fn settle(&mut self, grid: &Grid, level: u32) {
        self.level = level;
        grid.shards[self.shard].0.swap(level, AcqRel);
        grid.publish_settled();
    }

    /// Where this shard's bits can be.
    fn levels(&self) -> impl Iterator<Item = u32> + use<> {
        self.level..=self.write_level()
    }

    fn write_level(&self) -> u32 {
        self.scan.as_ref().map_or(self.level, |s| s.target)
    }

    /// The bucket that the bit is in now; `None` if its path is full to the end.
    fn set(&self, grid: &Grid, level: u32, fp: u64) -> Option<usize> {
        for step in 0..PATH_MAX {
            let index = grid.place(level, fp, step);
            let bucket = grid.bucket_to_write(index);
            if bucket.insert(Key::new(fp, level), self.bit, &grid.live.0) {
                return Some(index);
            }
            bucket.displace(true);
            // There may be room now; but the count was raised, so going on is right all the same.
        }
        self.undisplace(grid, level, fp, PATH_MAX);
        None
    }

    /// The step of the path where this shard's bit is, and the bucket.
    fn find<'a>(&self, grid: &'a Grid, level: u32, fp: u64) -> Option<(usize, Bucket<'a>)> {
        let key = Key::new(fp, level);
        for step in 0..PATH_MAX {
            let bucket = grid.bucket(grid.place(level, fp, step))?;
            if bucket.is_in(key, self.bit) {
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
        bucket.remove(Key::new(fp, level), self.bit, &grid.live.0);
        self.undisplace(grid, level, fp, step);
        true
    }

    /// The bit for `fp` is no longer in bucket `index`: so it is no longer counted before it.
    fn return_from(&self, grid: &Grid, level: u32, fp: u64, index: usize) {
        let path = (0..PATH_MAX).map(|s| grid.place(level, fp, s));
        self.undisplace(grid, level, fp, path.take_while(|p| *p != index).count());
    }

    fn undisplace(&self, grid: &Grid, level: u32, fp: u64, steps: usize) {
        for step in 0..steps {
            if let Some(bucket) = grid.bucket(grid.place(level, fp, step)) {
                bucket.displace(false);
            }
        }
    }
}
