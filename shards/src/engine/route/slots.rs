//! Buckets of four slots, changed by compare-and-swap only.
//!
//! ```text
//!  key word    [ fingerprint 44 | level 5 | reclaimer 9 | displaced 6 ]
//!  bucket      [ key 0 | key 1 | key 2 | key 3 | shards 0 | shards 1 | shards 2 | shards 3 ]
//!  tag word    [ tag 3 14 | tag 2 14 | tag 1 14 | tag 0 14 | 0 2 | displaced 6 ]
//! ```
//!
//! A tag word stands apart from its bucket, dense with those of other buckets: so that most probes
//! that find nothing end there, without the miss of the bucket's line. Not all buckets have one.
//!
//! A slot says that the shards in its set have a route with its key. Rules that make it correct:
//!
//! - Only shard s sets or clears bit s, anywhere, and does one thing at a time.
//! - A slot with an empty set may be given to another key: its reclaimer first writes its own id
//!   into the key, then finds the set still empty, then swaps the key. Whoever sets a bit looks at
//!   the key *afterwards*: if a reclaimer is named there, it takes the name out (which makes the
//!   reclaimer's swap fail); if the key is another, it takes its bit back and starts again.
//! - Both look with a read-modify-write, which reads the newest value: one of the two sees the other.
//! - Two slots may have the same key; readers unite all they see. A slot in use twice is only waste.
//! - `displaced`, kept in key 0, or in the tag word where there is one, counts the bits that found
//!   this bucket full and went on along their path: readers go on while it is not zero. It is raised
//!   before such a bit is set and lowered after it was cleared; at its limit it stays there for good.
//! - A slot's tag is written only by who has a bit of its own in the slot's set, after it found the
//!   key to be its own: as long as that bit is set, nobody gives the slot to another key. So all who
//!   write a slot's tag at a time write the same, and no insert returns before the tag is there.

use super::sync::{
    AtomicI64, AtomicU64, Line,
    Ordering::{AcqRel, Acquire, Relaxed},
};
use crate::engine::ids::ShardSet;

pub(super) const SLOTS: usize = 4;
/// Bits of a fingerprint.
pub(super) const FP_BITS: u32 = 44;
const LEVEL_BITS: u32 = 5;
/// Highest level that a key can name.
pub(super) const LEVEL_MAX: u32 = (1 << LEVEL_BITS) - 1;

const DISPLACED_BITS: u32 = 6;
const DISPLACED_MAX: u64 = (1 << DISPLACED_BITS) - 1;
const RECLAIMER: u64 = 0x1ff << DISPLACED_BITS;
const FP_LEVEL_SHIFT: u32 = 64 - FP_BITS - LEVEL_BITS;
const _: () = assert!(FP_LEVEL_SHIFT == DISPLACED_BITS + 9);

const TAG_BITS: u32 = 14;
const TAG_SHIFT: u32 = 8;
const TAG_MASK: u64 = (1 << TAG_BITS) - 1;
/// The lowest bit of each tag.
const TAG_ONES: u64 = (1 | 1 << 14 | 1 << 28 | 1 << 42) << TAG_SHIFT;
const _: () = assert!(TAG_BITS * SLOTS as u32 + TAG_SHIFT == 64);

/// Lines of a bucket whose sets of shards have `words` words.
pub(super) fn lines_per_bucket(words: usize) -> usize {
    (SLOTS + SLOTS * words).div_ceil(8)
}

/// Fingerprint and level as compared: never 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Key(u64);

impl Key {
    /// `fp` is not 0 and has [`FP_BITS`] bits.
    #[inline]
    pub(super) fn new(fp: u64, level: u32) -> Self {
        Self(fp << LEVEL_BITS | u64::from(level))
    }

    #[inline]
    fn of(word: u64) -> Self {
        Self(word >> FP_LEVEL_SHIFT)
    }

    /// The key in a key word, `None` if the slot was never used.
    #[inline]
    pub(super) fn used(word: u64) -> Option<Self> {
        let key = Self::of(word);
        (key.0 != 0).then_some(key)
    }

    #[inline]
    pub(super) fn fp(self) -> u64 {
        self.0 >> LEVEL_BITS
    }

    #[inline]
    pub(super) fn level(self) -> u32 {
        (self.0 & u64::from(LEVEL_MAX)) as u32
    }
}

/// A shard's bit in a set of `words` words.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bit {
    word: usize,
    bit: u64,
    reclaimer: u64,
}

impl Bit {
    pub(super) fn new(shard: usize) -> Self {
        Self {
            word: shard / 64,
            bit: 1 << (shard % 64),
            reclaimer: (shard as u64 + 1) << DISPLACED_BITS,
        }
    }
}

/// Slots of a bucket, a bit each; yields their numbers.
#[derive(Clone, Copy)]
pub(super) struct Slots(u32);

impl Slots {
    #[inline]
    fn that(is: impl Fn(usize) -> bool) -> Self {
        Self((0..SLOTS).fold(0, |all, slot| all | u32::from(is(slot)) << slot))
    }
}

impl Iterator for Slots {
    type Item = usize;

    #[inline]
    fn next(&mut self) -> Option<usize> {
        let slot = self.0.trailing_zeros() as usize;
        self.0 &= self.0.wrapping_sub(1);
        (slot < SLOTS).then_some(slot)
    }
}

/// A view of one bucket.
#[derive(Clone, Copy)]
pub(super) struct Bucket<'a> {
    pub(super) lines: &'a [Line],
    pub(super) words: usize,
    pub(super) tags: Option<&'a AtomicU64>,
}

/// The part of a fingerprint that its slot's tag has: not the part that picks the bucket.
#[inline]
fn tag(fp: u64) -> u64 {
    (fp >> (FP_BITS - TAG_BITS)).max(1)
}

/// Whether, by its tag word, a bucket sent bits on along their paths.
#[inline]
pub(super) fn tags_passed(tags: u64) -> bool {
    tags & DISPLACED_MAX != 0
}

/// Whether, by its tag word, a bucket may have `fp`.
#[inline]
pub(super) fn tags_may_have(tags: u64, fp: u64) -> bool {
    let differs = tags ^ (tag(fp) * TAG_ONES);
    let equal = differs.wrapping_sub(TAG_ONES) & !differs & (TAG_ONES << (TAG_BITS - 1));
    equal != 0
}

impl Bucket<'_> {
    /// The word with the count of displaced bits.
    #[inline]
    fn counter(&self) -> &AtomicU64 {
        self.tags.unwrap_or(self.key(0))
    }

    #[inline]
    fn key(&self, slot: usize) -> &AtomicU64 {
        &self.lines[0].0[slot]
    }

    #[inline]
    fn set(&self, slot: usize, word: usize) -> &AtomicU64 {
        if self.words == 1 {
            return &self.lines[0].0[SLOTS + slot];
        }
        let at = SLOTS + slot * self.words + word;
        &self.lines[at / 8].0[at % 8]
    }

    /// Whether bits went past this bucket along their paths.
    #[inline]
    pub(super) fn is_passed(&self) -> bool {
        self.counter().load(Acquire) & DISPLACED_MAX != 0
    }

    /// Adds the shards that have a route with fingerprint `fp` (of any level); whether to go on
    /// along the path.
    #[inline]
    pub(super) fn collect(&self, fp: u64, out: &mut ShardSet) -> bool {
        if self.words == 1 {
            // One line, without a bounds check: the case that speed is wanted for.
            // And without a branch that depends on the slot, which nothing predicts.
            let line = &self.lines[0].0;
            let displaced = self.is_passed();
            let mut found = 0;
            for slot in 0..SLOTS {
                let same = Key::of(line[slot].load(Acquire)).fp() == fp;
                found |= line[SLOTS + slot].load(Acquire) & u64::from(same).wrapping_neg();
            }
            out.insert_word(0, found);
            return displaced;
        }
        let displaced = self.is_passed();
        for slot in 0..SLOTS {
            if Key::of(self.key(slot).load(Acquire)).fp() == fp {
                for word in 0..self.words {
                    out.insert_word(word, self.set(slot, word).load(Acquire));
                }
            }
        }
        displaced
    }

    /// The key of a slot, `None` if it was never used.
    #[inline]
    pub(super) fn key_at(&self, slot: usize) -> Option<Key> {
        Key::used(self.key(slot).load(Acquire))
    }

    /// Whether any shard is in the slot's set.
    #[inline]
    pub(super) fn in_use(&self, slot: usize) -> bool {
        if self.words == 1 {
            return self.set(slot, 0).load(Acquire) != 0;
        }
        (0..self.words).any(|w| self.set(slot, w).load(Acquire) != 0)
    }

    /// Whether the shard is in the slot's set.
    #[inline]
    pub(super) fn has(&self, slot: usize, bit: Bit) -> bool {
        self.set(slot, bit.word).load(Acquire) & bit.bit != 0
    }

    /// The slots with this key, without a branch that depends on where it is.
    #[inline]
    fn slots_with(&self, key: Key) -> Slots {
        let same = |slot: usize| Key::of(self.key(slot).load(Acquire)) == key;
        Slots::that(same)
    }

    /// The slots that the shard is in.
    #[inline]
    pub(super) fn slots_of(&self, bit: Bit) -> Slots {
        Slots::that(|slot| self.has(slot, bit))
    }

    /// Whether the shard is in the bucket with this key.
    #[inline]
    pub(super) fn is_in(&self, key: Key, bit: Bit) -> bool {
        // What is no longer there when a set is read was another's: a shard's own bits are where it
        // left them.
        self.slots_with(key).0 & self.slots_of(bit).0 != 0
    }

    /// Adds the shard under `key`; false if the bucket has no room.
    #[inline]
    pub(super) fn insert(&self, key: Key, bit: Bit, live: &AtomicI64) -> bool {
        let found = self.slots_with(key).find(|slot| self.set_bit(*slot, key, bit, live));
        let claimed = || {
            // Slots that were never used are empty too, and behind all others.
            let mut empty = Slots::that(|slot| !self.in_use(slot));
            empty.find(|s| self.claim(*s, key, bit) && self.set_bit(*s, key, bit, live))
        };
        let Some(slot) = found.or_else(claimed) else { return false };
        self.set_tag(slot, key);
        true
    }

    /// Call it with a bit of one's own set in the slot.
    fn set_tag(&self, slot: usize, key: Key) {
        let Some(tags) = self.tags else { return };
        let shift = TAG_SHIFT + TAG_BITS * slot as u32;
        let with = |w: u64| w & !(TAG_MASK << shift) | tag(key.fp()) << shift;
        // Also when it is there already: whoever acquires it sees all that was done before.
        let _ = tags.fetch_update(AcqRel, Acquire, |w| Some(with(w)));
    }

    /// Takes the shard out of the slot with `key`; false if it is in none.
    pub(super) fn remove(&self, key: Key, bit: Bit, live: &AtomicI64) -> bool {
        let found = self.slots_with(key).find(|slot| self.has(*slot, bit));
        if let Some(slot) = found {
            self.clear_bit(slot, bit, live);
        }
        found.is_some()
    }

    /// Counts one more, or one fewer, bit that went on along its path.
    pub(super) fn displace(&self, more: bool) {
        let _ = self.counter().fetch_update(AcqRel, Acquire, |k| match (k & DISPLACED_MAX, more) {
            (DISPLACED_MAX, _) => None,
            (_, true) => Some(k + 1),
            (n, false) => {
                debug_assert!(n > 0, "more bits came back than went");
                (n > 0).then(|| k - 1)
            }
        });
    }

    /// `live` counts the slots in use.
    pub(super) fn clear_bit(&self, slot: usize, bit: Bit, live: &AtomicI64) {
        if self.set(slot, bit.word).fetch_and(!bit.bit, AcqRel) == bit.bit {
            live.fetch_sub(1, Relaxed);
        }
    }

    /// False if the slot was given to another key meanwhile.
    fn set_bit(&self, slot: usize, key: Key, bit: Bit, live: &AtomicI64) -> bool {
        if self.set(slot, bit.word).fetch_or(bit.bit, AcqRel) == 0 {
            live.fetch_add(1, Relaxed);
        }
        loop {
            let word = self.key(slot).fetch_or(0, AcqRel);
            if Key::of(word) != key {
                // Whoever came to see this bit saw a false positive, which is allowed.
                self.clear_bit(slot, bit, live);
                return false;
            }
            if word & RECLAIMER == 0 {
                return true;
            }
            if self.key(slot).compare_exchange(word, word & !RECLAIMER, AcqRel, Acquire).is_ok() {
                return true;
            }
        }
    }

    /// Gives a slot that was never used, or whose set is empty, to `key`.
    fn claim(&self, slot: usize, key: Key, bit: Bit) -> bool {
        let place = |w: u64| key.0 << FP_LEVEL_SHIFT | w & DISPLACED_MAX;
        let mut word = self.key(slot).load(Acquire);
        while Key::of(word).0 == 0 {
            match self.key(slot).compare_exchange(word, place(word), AcqRel, Acquire) {
                Ok(_) => return true,
                Err(now) => word = now,
            }
        }
        if word & RECLAIMER != 0 || self.in_use(slot) {
            return false;
        }
        let mine = word | bit.reclaimer;
        if self.key(slot).compare_exchange(word, mine, AcqRel, Acquire).is_err() {
            return false;
        }
        let empty = (0..self.words).all(|w| self.set(slot, w).fetch_or(0, AcqRel) == 0);
        // `displaced` may change under way; nobody else writes this reclaimer's id.
        let swap = |w: u64| {
            (w & !DISPLACED_MAX == mine & !DISPLACED_MAX)
                .then(|| if empty { place(w) } else { w & !RECLAIMER })
        };
        self.key(slot).fetch_update(AcqRel, Acquire, swap).is_ok() && empty
    }
}
