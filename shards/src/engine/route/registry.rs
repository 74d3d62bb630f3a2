//! The shapes in use, by the number of their levels, and for which shards.

use super::shape::{LEVELS_MAX, Shape};
use super::slots::{Bit, Bucket, Key, SLOTS, lines_per_bucket};
use super::sync::{
    AtomicI64, AtomicU64, Line, Lines,
    Ordering::{AcqRel, Acquire},
};
use crate::engine::ids::ShardSet;

/// Buckets per number of levels, for shapes that end in `#` and those that do not. A topic of L
/// levels can meet 16 + 8 (L + 1) shapes at most; filters of shapes for which there is no room are
/// looked up by an anchor, of which there is one a level.
const MULTI_BUCKETS: usize = 2;
const SINGLE_BUCKETS: usize = 4;

/// The most shapes that a topic of any length has to be probed for.
pub(super) const SHAPES_MAX: usize = SLOTS * (SINGLE_BUCKETS + MULTI_BUCKETS * (LEVELS_MAX + 1));

#[derive(Debug)]
pub(super) struct Registry {
    words: usize,
    single: Lines,
    multi: Lines,
    /// Bit n: a shape with n levels and `#` was used once.
    multi_seen: AtomicU64,
    /// Bit p: an anchor at level p was used once.
    anchors_seen: AtomicU64,
    /// Per level: the shards that have filters anchored there.
    anchors: Box<[AtomicU64]>,
    /// The shards that have filters without shape and anchor.
    any: Box<[AtomicU64]>,
    live: AtomicI64,
    /// How often a shape or an anchor level came to a shard's filters.
    version: AtomicU64,
}

impl Registry {
    pub(super) fn new(words: usize) -> Self {
        let per = lines_per_bucket(words);
        let lines = |buckets: usize| Lines::zeroed((LEVELS_MAX + 1) * buckets * per);
        let zeros = |n: usize| (0..n).map(|_| AtomicU64::new(0)).collect::<Box<[_]>>();
        Self {
            words,
            single: lines(SINGLE_BUCKETS),
            multi: lines(MULTI_BUCKETS),
            multi_seen: AtomicU64::new(0),
            anchors_seen: AtomicU64::new(0),
            anchors: zeros(LEVELS_MAX * words),
            any: zeros(words),
            live: AtomicI64::new(0),
            version: AtomicU64::new(0),
        }
    }

    pub(super) fn bytes(&self) -> usize {
        size_of_val(&*self.single) + size_of_val(&*self.multi) + size_of_val(&*self.anchors)
    }

    /// Changes when a shape or an anchor level is entered, before any filter of it is: what
    /// [`shapes`](Self::shapes) and [`anchor_levels`](Self::anchor_levels) said after this was read, is all
    /// there is to look at for as long as it stays.
    #[inline]
    pub(super) fn version(&self) -> u64 {
        self.version.load(Acquire)
    }

    /// Shapes in use.
    pub(super) fn len(&self) -> usize {
        usize::try_from(self.live.load(Acquire)).unwrap_or(0)
    }

    #[inline]
    fn buckets(&self, levels: usize, multi: bool) -> impl Iterator<Item = Bucket<'_>> {
        let (lines, buckets) =
            if multi { (&self.multi, MULTI_BUCKETS) } else { (&self.single, SINGLE_BUCKETS) };
        let per = lines_per_bucket(self.words);
        let from = levels * buckets * per;
        lines[from..from + buckets * per].chunks_exact(per).map(|lines| Bucket {
            lines,
            words: self.words,
            tags: None,
        })
    }

    fn key(plus: u64) -> Key {
        Key::new(plus | 1 << LEVELS_MAX, 0)
    }

    /// Registers a shape for a shard; false if there is no room.
    pub(super) fn insert(&self, shape: Shape, bit: Bit) -> bool {
        let levels = usize::from(shape.levels);
        if shape.multi {
            self.multi_seen.fetch_or(1 << levels, AcqRel);
        }
        let key = Self::key(shape.plus);
        let entered = self.buckets(levels, shape.multi).any(|b| b.insert(key, bit, &self.live));
        self.version.fetch_add(1, AcqRel);
        entered
    }

    pub(super) fn remove(&self, shape: Shape, bit: Bit) {
        let key = Self::key(shape.plus);
        let _ = self
            .buckets(usize::from(shape.levels), shape.multi)
            .any(|b| b.remove(key, bit, &self.live));
    }

    /// Sets or clears the shard's bit for filters anchored at a level, or at none.
    pub(super) fn set_anchor(&self, level: Option<usize>, shard: usize, on: bool) {
        let (word, bit) = (shard / 64, 1 << (shard % 64));
        let set = match level {
            Some(level) => {
                self.anchors_seen.fetch_or(1 << level, AcqRel);
                &self.anchors[level * self.words + word]
            }
            None => &self.any[word],
        };
        if on {
            set.fetch_or(bit, AcqRel);
            self.version.fetch_add(1, AcqRel);
        } else {
            set.fetch_and(!bit, AcqRel);
        }
    }

    /// Calls `probe` with the levels, `+` levels, and whether `#` follows, of each wildcard shape in
    /// use that can match a topic of `levels` levels.
    #[inline]
    pub(super) fn shapes(
        &self,
        levels: usize,
        dollar: bool,
        mut probe: impl FnMut(usize, u64, bool),
    ) {
        let first_wild = u64::from(dollar);
        let mut group = |n: usize, multi: bool| {
            if self.words == 1 {
                // Without what depends on the number of words: the case that speed is wanted for.
                let of = if multi { MULTI_BUCKETS } else { SINGLE_BUCKETS };
                let lines = if multi { &self.multi } else { &self.single };
                for Line(line) in &lines[n * of..(n + 1) * of] {
                    for slot in 0..SLOTS {
                        let Some(key) = Key::used(line[slot].load(Acquire)) else { return };
                        let plus = key.fp() & !(1 << LEVELS_MAX);
                        if plus & first_wild == 0 && line[SLOTS + slot].load(Acquire) != 0 {
                            probe(n, plus, multi);
                        }
                    }
                }
                return;
            }
            for bucket in self.buckets(n, multi) {
                for slot in 0..SLOTS {
                    // Slots are taken in order and never become unused again.
                    let Some(key) = bucket.key_at(slot) else { return };
                    let plus = key.fp() & !(1 << LEVELS_MAX);
                    if plus & first_wild == 0 && bucket.in_use(slot) {
                        probe(n, plus, multi);
                    }
                }
            }
        };
        if levels <= LEVELS_MAX {
            group(levels, false);
        }
        let mut seen = self.multi_seen.load(Acquire) & !first_wild;
        if levels < LEVELS_MAX {
            seen &= (2 << levels) - 1;
        }
        while seen != 0 {
            group(seen.trailing_zeros() as usize, true);
            seen &= seen - 1;
        }
    }

    /// Calls `probe` with each level at which filters are anchored.
    #[inline]
    pub(super) fn anchor_levels(&self, levels: usize, dollar: bool, mut probe: impl FnMut(usize)) {
        let mut seen = self.anchors_seen.load(Acquire);
        if levels < LEVELS_MAX {
            seen &= (1 << levels) - 1;
        }
        if dollar {
            seen &= 1;
        }
        while seen != 0 {
            let level = seen.trailing_zeros() as usize;
            let sets = &self.anchors[level * self.words..(level + 1) * self.words];
            if sets.iter().any(|s| s.load(Acquire) != 0) {
                probe(level);
            }
            seen &= seen - 1;
        }
    }

    /// Adds the shards that have filters without shape and anchor.
    #[inline]
    pub(super) fn collect_any(&self, dollar: bool, out: &mut ShardSet) {
        if !dollar {
            for (word, bits) in self.any.iter().enumerate() {
                out.insert_word(word, bits.load(Acquire));
            }
        }
    }
}
