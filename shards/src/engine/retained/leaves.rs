//! Leaves in order, found by a text at or below their first topic.

use super::leaf::Leaf;
use super::record::{self, Big, Record};
use compact_str::CompactString;
use std::borrow::Borrow;
use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound::{Excluded, Included, Unbounded};

/// A topic in which U+0000, which topics do not have, stands for '/': in the order of the bytes all
/// topics below a level follow it at once.
pub(super) type Key = [u8];

/// Above all that the leaf before holds, and not above what its own leaf holds. Short: a tree of them
/// is read more often than any leaf.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Separator(CompactString);

impl Borrow<Key> for Separator {
    fn borrow(&self) -> &Key {
        self.0.as_bytes()
    }
}

impl Ord for Separator {
    fn cmp(&self, other: &Self) -> Ordering {
        self.0.as_bytes().cmp(other.0.as_bytes())
    }
}

impl PartialOrd for Separator {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// Leaves in order.
pub(super) type Above<'a> = std::collections::btree_map::Range<'a, Separator, Leaf>;

/// Invariant: there is a leaf of the empty separator, so that each key has its leaf.
#[derive(Debug)]
pub(super) struct Leaves {
    map: BTreeMap<Separator, Leaf>,
    /// The leaves with messages that expire, by when the first of them does.
    due: BTreeSet<(u64, Separator)>,
    pub(super) big: Big,
    /// Allocated by leaves, and by separators that are too long to lie in their node.
    bytes: usize,
}

/// What was known of a message before it was replaced or removed.
#[derive(Clone, Copy, Debug)]
pub(super) struct Old {
    pub(super) charge: usize,
    due_ms: u64,
    big: Option<u32>,
}

impl Leaves {
    pub(super) fn new() -> Self {
        let first = (Separator(CompactString::const_new("")), Leaf::new());
        Self { map: [first].into(), due: BTreeSet::new(), big: Big::default(), bytes: 0 }
    }

    /// Bytes allocated; what B-trees hold is estimated.
    pub(super) fn bytes(&self) -> usize {
        // A B-tree's nodes of 11 are about two thirds full, beside 24 bytes of their own.
        let in_tree = |n: usize, size: usize| n * (size * 3 / 2 + 4);
        let map = in_tree(self.map.len(), size_of::<(Separator, Leaf)>());
        let due = in_tree(self.due.len(), size_of::<(u64, Separator)>());
        self.bytes + map + due + self.big.bytes()
    }

    /// The leaf where a key is, or belongs.
    pub(super) fn leaf(&self, key: &Key) -> (&Separator, &Leaf) {
        self.map.range::<Key, _>((Unbounded, Included(key))).next_back().expect("the first leaf")
    }

    /// The leaves above the one of this separator.
    pub(super) fn after(&self, s: &Separator) -> Above<'_> {
        self.map.range::<Separator, _>((Excluded(s), Unbounded))
    }

    pub(super) fn get(&self, key: &Key) -> Option<Record<'_>> {
        let leaf = self.leaf(key).1;
        let place = leaf.find(key);
        place.exact.then(|| record::read(leaf.record(&leaf.entry(place.at)), &self.big))
    }

    /// Finds the place of `key` and what is there, and sets or keeps it: `set` writes a record, or
    /// returns false.
    pub(super) fn put(
        &mut self,
        key: &Key,
        record: &mut Vec<u8>,
        set: impl FnOnce(Option<Old>, &mut Big, &mut Vec<u8>) -> bool,
    ) -> Option<Option<Old>> {
        let (separator, leaf) =
            self.map.range_mut::<Key, _>((Unbounded, Included(key))).next_back()?;
        let place = leaf.find(key);
        let old =
            place.exact.then(|| old_of(leaf.record(&leaf.entry(place.at)), key.len(), &self.big));
        record.clear();
        if !set(old, &mut self.big, record) {
            return None;
        }
        let (before, was_due) = (leaf.capacity(), leaf.due_ms);
        leaf.put(place, key, record);
        let due_ms = record::expires_ms(record, &self.big);
        if let Some(old) = old {
            self.big.forget(old);
            if old.due_ms == was_due && due_ms > was_due {
                leaf.find_due(&self.big);
            }
        }
        leaf.due_ms = leaf.due_ms.min(due_ms);
        let (full, due_ms) = (leaf.is_full(), leaf.due_ms);
        self.bytes = self.bytes + leaf.capacity() - before;
        if due_ms != was_due || full {
            let separator = separator.clone();
            self.set_due(&separator, was_due, due_ms);
            if full {
                self.split(&separator);
            }
        }
        Some(old)
    }

    pub(super) fn remove(&mut self, key: &Key) -> Option<Old> {
        let (separator, leaf) =
            self.map.range_mut::<Key, _>((Unbounded, Included(key))).next_back()?;
        let place = leaf.find(key);
        if !place.exact {
            return None;
        }
        let old = old_of(leaf.record(&leaf.entry(place.at)), key.len(), &self.big);
        let (before, was_due) = (leaf.capacity(), leaf.due_ms);
        leaf.remove(place.at, key);
        self.big.forget(old);
        if old.due_ms == was_due && was_due != u64::MAX {
            leaf.find_due(&self.big);
        }
        let (small, due_ms) = (leaf.is_small(), leaf.due_ms);
        self.bytes = self.bytes + leaf.capacity() - before;
        if due_ms != was_due || small {
            let separator = separator.clone();
            self.set_due(&separator, was_due, due_ms);
            if small {
                self.join(&separator);
            }
        }
        Some(old)
    }

    /// When the first message expires, ms.
    pub(super) fn due_ms(&self) -> Option<u64> {
        self.due.first().map(|(at, _)| *at)
    }

    /// Removes up to `max` messages of the leaf with the first one that has expired.
    pub(super) fn expire(&mut self, now_ms: u64, max: usize, mut gone: impl FnMut(Old)) {
        let Some((was_due, separator)) = self.due.first().filter(|(at, _)| *at <= now_ms).cloned()
        else {
            return;
        };
        let leaf = self.map.get_mut(&separator).expect("what is due has a leaf");
        let before = leaf.capacity();
        let (mut at, mut removed, mut key) = (0, 0, Vec::new());
        while at < leaf.end() && removed < max {
            let e = leaf.entry(at);
            leaf.advance_key(&e, &mut key);
            if record::expires_ms(leaf.record(&e), &self.big) > now_ms {
                at = e.end;
                continue;
            }
            let old = old_of(leaf.record(&e), key.len(), &self.big);
            // What the next one has in common with the one before, it has in common with this one.
            leaf.remove(at, &key);
            self.big.forget(old);
            gone(old);
            removed += 1;
        }
        leaf.find_due(&self.big);
        let (small, due_ms) = (leaf.is_small(), leaf.due_ms);
        self.bytes = self.bytes + leaf.capacity() - before;
        self.set_due(&separator, was_due, due_ms);
        if small {
            self.join(&separator);
        }
    }

    /// The keys of each leaf, after a look whether all that is kept beside them is true.
    #[cfg(test)]
    pub(super) fn checked_keys(&self) -> Vec<Vec<Vec<u8>>> {
        let (mut bytes, mut due) = (0, BTreeSet::new());
        let mut all: Vec<Vec<Vec<u8>>> = Vec::new();
        for (separator, leaf) in &self.map {
            let keys = leaf.checked_keys(&self.big);
            let text: &Key = separator.borrow();
            assert!(keys.first().is_none_or(|k| **k >= *text), "below its separator");
            assert!(all.last().is_none_or(|l| l.last().is_none_or(|k| **k < *text)), "above");
            assert!(!keys.is_empty() || self.map.len() == 1, "an empty leaf");
            bytes += leaf.capacity() + separator.heap_bytes();
            if leaf.due_ms != u64::MAX {
                due.insert((leaf.due_ms, separator.clone()));
                bytes += separator.heap_bytes();
            }
            all.push(keys);
        }
        assert_eq!(self.map.keys().next().map(|s| s.0.len()), Some(0), "a first leaf");
        assert_eq!((bytes, due), (self.bytes, self.due.clone()));
        all
    }

    fn set_due(&mut self, separator: &Separator, was_ms: u64, is_ms: u64) {
        if was_ms == is_ms {
            return;
        }
        if was_ms != u64::MAX && self.due.remove(&(was_ms, separator.clone())) {
            self.bytes -= separator.heap_bytes();
        }
        if is_ms != u64::MAX && self.due.insert((is_ms, separator.clone())) {
            self.bytes += separator.heap_bytes();
        }
    }

    fn split(&mut self, separator: &Separator) {
        let Some(leaf) = self.map.get_mut(separator) else { return };
        let (before, was_due) = (leaf.capacity(), leaf.due_ms);
        let (least, right) = leaf.split(&self.big);
        let due_ms = leaf.due_ms;
        let least = Separator(CompactString::from_utf8(least).expect("cut between characters"));
        self.bytes = self.bytes + leaf.capacity() - before;
        self.set_due(separator, was_due, due_ms);
        self.insert(least, right);
    }

    /// Joins a small leaf with a neighbour if they fit, and removes it if it is empty.
    fn join(&mut self, separator: &Separator) {
        let Some(leaf) = self.map.get(separator) else { return };
        let right = self.after(separator).next();
        let left = self.map.range::<Separator, _>((Unbounded, Excluded(separator))).next_back();
        let right_fits = right.is_some_and(|(_, r)| leaf.fits(r));
        let left_fits = left.is_some_and(|(_, l)| l.fits(leaf));
        let empty = leaf.end() == 0;
        let (low, high) = match (left, right) {
            (_, Some((r, _))) if right_fits => (separator.clone(), r.clone()),
            // An empty one takes nothing to the left, and leaves the first its right neighbour's.
            (Some((l, _)), _) if left_fits || empty => (l.clone(), separator.clone()),
            (None, Some((r, _))) if empty => (separator.clone(), r.clone()),
            _ => return,
        };
        let (Some(mut a), Some(b)) = (self.take(&low), self.take(&high)) else { return };
        if a.end() == 0 {
            a = b;
        } else {
            a.join(&b);
        }
        self.insert(low, a);
    }

    fn insert(&mut self, separator: Separator, leaf: Leaf) {
        self.set_due(&separator, u64::MAX, leaf.due_ms);
        self.bytes += leaf.capacity() + separator.heap_bytes();
        self.map.insert(separator, leaf);
    }

    fn take(&mut self, separator: &Separator) -> Option<Leaf> {
        let leaf = self.map.remove(separator)?;
        self.set_due(separator, leaf.due_ms, u64::MAX);
        self.bytes -= leaf.capacity() + separator.heap_bytes();
        Some(leaf)
    }
}

impl Separator {
    /// Of a text that is too long to lie in the separator itself.
    fn heap_bytes(&self) -> usize {
        if self.0.is_heap_allocated() { self.0.len() } else { 0 }
    }
}

impl Big {
    fn forget(&mut self, old: Old) {
        if let Some(id) = old.big {
            self.remove(id);
        }
    }
}

fn old_of(record: &[u8], topic_len: usize, big: &Big) -> Old {
    Old {
        charge: record::read(record, big).charge(topic_len),
        due_ms: record::expires_ms(record, big),
        big: record::big_id(record),
    }
}
