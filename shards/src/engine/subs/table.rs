//! A hash table of 32-bit ids that grows by bounded steps.
//!
//! ```text
//!  hash ─skew─▶ top bits ─▶ directory ─▶ segment: a hash table of at most 224 ids
//! ```
//!
//! A full segment is split in two (extendible hashing): no insertion moves more than a segment's ids,
//! and the old and the new table are never both held. The directory doubles when a segment's number
//! of top bits outgrows it: 4 bytes for some 80 ids, copied in one go.
//!
//! Segments would all fill at the same time, and half of the memory would be unused after that. So
//! the hash is skewed: segments at the one end fill twice as fast as at the other, and at any size
//! as many are full as are new.

use hashbrown::HashTable;

/// Ids in a segment: what fits into 256 places. Splitting one takes some 10 µs when memory is cold.
pub(crate) const SEGMENT_MAX: usize = 224;

/// Segments allocated at once.
const CHUNK: usize = 64;

/// Top bits that tell segments apart. Only hashes that are all but equal get there; such segments
/// grow.
const DEPTH_MAX: u32 = 26;

#[derive(Debug)]
struct Segment {
    ids: HashTable<u32>,
    /// Top bits that its hashes have in common.
    depth: u32,
}

/// Lives on: each shard, in its tables. Each id is in one segment, the one that the directory names
/// for the top bits of its skewed hash.
#[derive(Debug)]
pub(crate) struct IdTable {
    directory: Vec<u32>,
    depth: u32,
    segments: Vec<Vec<Segment>>,
    len: usize,
}

impl Default for IdTable {
    fn default() -> Self {
        let first = Segment { ids: HashTable::new(), depth: 0 };
        Self { directory: vec![0], depth: 0, segments: vec![vec![first]], len: 0 }
    }
}

impl IdTable {
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    pub(crate) fn bytes(&self) -> usize {
        let ids = self.segments.iter().flatten().map(|s| s.ids.allocation_size());
        self.directory.capacity() * 4
            + self.segments.iter().map(|c| c.capacity() * size_of::<Segment>() + 24).sum::<usize>()
            + ids.sum::<usize>()
    }

    #[inline]
    pub(crate) fn find(&self, hash: u32, is: impl Fn(u32) -> bool) -> Option<u32> {
        self.segment(self.at(hash)).ids.find(spread(hash), |id| is(*id)).copied()
    }

    /// Adds an id that is not there. `hash_of` gives the hash that an id was added with.
    pub(crate) fn insert(&mut self, hash: u32, id: u32, hash_of: impl Fn(u32) -> u32) {
        let at = loop {
            let at = self.at(hash);
            let segment = self.segment(at);
            if segment.ids.len() < SEGMENT_MAX || segment.depth == DEPTH_MAX {
                break at;
            }
            self.split(at, &hash_of);
        };
        self.segment_mut(at).ids.insert_unique(spread(hash), id, |id| spread(hash_of(*id)));
        self.len += 1;
    }

    /// Removes an id that was added with this hash.
    pub(crate) fn remove(&mut self, hash: u32, id: u32, hash_of: impl Fn(u32) -> u32) {
        let at = self.at(hash);
        let ids = &mut self.segment_mut(at).ids;
        if let Ok(found) = ids.find_entry(spread(hash), |i| *i == id) {
            found.remove();
            if ids.capacity() > 28 && ids.capacity() / 8 > ids.len() {
                ids.shrink_to(ids.len() * 2, |id| spread(hash_of(*id)));
            }
            self.len -= 1;
        }
    }

    #[inline]
    fn at(&self, hash: u32) -> u32 {
        self.directory[(u64::from(skew(hash)) >> (32 - self.depth)) as usize]
    }

    #[inline]
    fn segment(&self, at: u32) -> &Segment {
        &self.segments[at as usize / CHUNK][at as usize % CHUNK]
    }

    fn segment_mut(&mut self, at: u32) -> &mut Segment {
        &mut self.segments[at as usize / CHUNK][at as usize % CHUNK]
    }

    fn split(&mut self, at: u32, hash_of: impl Fn(u32) -> u32) {
        let segment = self.segment_mut(at);
        let depth = segment.depth + 1;
        // All hashes first: each waits for memory, and so they wait together.
        let old = std::mem::take(&mut segment.ids);
        let old: Vec<(u32, u32)> = old.into_iter().map(|id| (id, hash_of(id))).collect();
        let mut halves = [(); 2].map(|()| HashTable::with_capacity(SEGMENT_MAX / 2));
        let mut top = 0;
        for (id, hash) in old {
            top = skew(hash);
            let half = &mut halves[(top >> (32 - depth) & 1) as usize];
            half.insert_unique(spread(hash), id, |id| spread(hash_of(*id)));
        }
        let [low, high] = halves;
        (segment.ids, segment.depth) = (low, depth);
        let new = self.push(Segment { ids: high, depth });
        if depth > self.depth {
            self.directory = self.directory.iter().flat_map(|s| [*s, *s]).collect();
            self.depth += 1;
        }
        // The upper half of the places that named the segment.
        let shift = self.depth - depth;
        let from = ((u64::from(top) >> (32 - depth)) as usize | 1) << shift;
        self.directory[from..from + (1 << shift)].fill(new);
    }

    fn push(&mut self, segment: Segment) -> u32 {
        if self.segments.last().is_none_or(|c| c.len() == CHUNK) {
            self.segments.push(Vec::with_capacity(CHUNK));
        } else if let [first] = &mut self.segments[..] {
            first.reserve_exact(1.max(first.len() / 2).min(CHUNK - first.len()));
        }
        let chunk = self.segments.len() - 1;
        self.segments[chunk].push(segment);
        (chunk * CHUNK + self.segments[chunk].len() - 1) as u32
    }
}

fn spread(hash: u32) -> u64 {
    u64::from(hash).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(32)
}

/// Nearly log₂(1 + x) of a fraction x: twice as dense at 0 as at 1.
#[inline]
fn skew(x: u32) -> u32 {
    let bend = (u64::from(x) * u64::from(!x)) >> 32;
    (u64::from(x) + ((bend * 1_473_173_782) >> 32)).min(u64::from(u32::MAX)) as u32
}

#[cfg(all(test, not(ringmain_loom)))]
mod tests {
    use super::*;
    use std::cell::Cell;

    fn hash(id: u32) -> u32 {
        (u64::from(id + 1).wrapping_mul(0xa076_1d64_78bd_642f) >> 29) as u32
    }

    #[test]
    fn no_insertion_or_removal_moves_more_than_a_few_segments_of_ids() {
        let mut table = IdTable::default();
        let (moved, mut most) = (Cell::new(0), 0);
        let counted = |id| {
            moved.set(moved.get() + 1);
            hash(id)
        };
        let n = 1_000_000;
        for id in 0..n {
            moved.set(0);
            table.insert(hash(id), id, counted);
            most = most.max(moved.get());
        }
        println!("{most} at most, {:.2} bytes an id", table.bytes() as f64 / f64::from(n));
        assert!(most > 0 && most <= 2 * SEGMENT_MAX, "{most} ids moved by an insertion");
        assert!(table.directory.len() <= n as usize / 16, "{} places", table.directory.len());
        assert!((0..n).all(|id| table.find(hash(id), |i| i == id) == Some(id)));
        assert_eq!(table.find(hash(n), |i| i == n), None);
        for id in 0..n {
            moved.set(0);
            table.remove(hash(id), id, counted);
            assert!(moved.get() <= SEGMENT_MAX, "{} ids moved by a removal", moved.get());
        }
        assert_eq!((table.len(), table.find(hash(1), |_| true)), (0, None));
    }

    #[test]
    fn memory_an_id_is_much_the_same_at_any_size() {
        let mut table = IdTable::default();
        for id in 0..400_000 {
            table.insert(hash(id), id, hash);
            if id >= 2_000 && id % 1_000 == 0 {
                let each = table.bytes() as f64 / f64::from(id);
                assert!(each <= 11.0, "{each:.2} bytes each of {id}");
            }
        }
    }

    #[test]
    fn ids_of_one_hash_are_all_found() {
        let mut table = IdTable::default();
        (0..2_000).for_each(|id| table.insert(7, id, |_| 7));
        assert!((0..2_000).all(|id| table.find(7, |i| i == id) == Some(id)));
        assert!((0..2_000).all(|id| {
            table.remove(7, id, |_| 7);
            table.find(7, |i| i == id).is_none()
        }));
    }
}
