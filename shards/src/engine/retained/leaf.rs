//! A block of topics in order, each with its record.
//!
//! ```text
//! shared │ suffix length │ record length │ suffix │ record    three numbers of 1 to 3 bytes, then bytes
//! ```
//!
//! A key is the first `shared` bytes of the key before it and the suffix; `shared` is always as large as
//! it can be, and 0 in the first entry. A search compares each byte of what it looks for once.

use super::record::{self, Big};
use smallvec::SmallVec;
use std::cmp::Ordering;

/// A leaf of many entries is split above this. Larger: fewer leaves to find, more to look through in one.
pub(super) const LEAF_MAX: usize = 1536;
/// A leaf of fewer entries is let grow to [`LEAF_BYTES_MAX`]: looking through it costs little, and what
/// each leaf costs is shared by more of them.
const LEAF_ENTRIES_MIN: usize = 16;
const LEAF_BYTES_MAX: usize = 4 * LEAF_MAX;
/// A leaf below this is joined with a neighbour, if both fit in [`LEAF_JOINED_MAX`].
const LEAF_MIN: usize = LEAF_MAX / 4;
const LEAF_JOINED_MAX: usize = LEAF_MAX * 3 / 4;

const _: () = assert!(LEAF_MIN * 2 < LEAF_JOINED_MAX && LEAF_JOINED_MAX < LEAF_MAX);
const _: () = assert!(record::INLINE_MAX + 64 < LEAF_MAX);

/// Head of an entry with the longest numbers, and room for the next one's.
type Head = SmallVec<[u8; 64]>;

/// Invariant: what the module's picture says.
#[derive(Debug)]
pub(super) struct Leaf {
    data: Vec<u8>,
    /// When the first of its messages expires, ms; `u64::MAX` = none does.
    pub(super) due_ms: u64,
}

/// An entry's places in its leaf.
#[derive(Clone, Copy, Debug)]
pub(super) struct Entry {
    shared: usize,
    suffix: usize,
    record: usize,
    /// Where the next one begins.
    pub(super) end: usize,
}

/// Where a key is, or belongs.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place {
    /// The first entry that is not less, or the end.
    pub(super) at: usize,
    pub(super) exact: bool,
    /// Bytes in common with the entry before it, and with the one at it.
    pub(super) before: usize,
    after: usize,
}

impl Leaf {
    pub(super) fn new() -> Self {
        Self { data: Vec::new(), due_ms: u64::MAX }
    }

    /// Bytes allocated.
    pub(super) fn capacity(&self) -> usize {
        self.data.capacity()
    }

    /// End of the last entry.
    pub(super) fn end(&self) -> usize {
        self.data.len()
    }

    #[inline]
    pub(super) fn entry(&self, mut at: usize) -> Entry {
        let [shared, suffix_len, record_len] = match self.data[at..].first_chunk::<3>() {
            Some(n) if (n[0] | n[1] | n[2]) < 0x80 => {
                at += 3;
                n.map(usize::from)
            }
            _ => std::array::from_fn(|_| number(&self.data, &mut at)),
        };
        let record = at + suffix_len;
        Entry { shared, suffix: at, record, end: record + record_len }
    }

    pub(super) fn record(&self, e: &Entry) -> &[u8] {
        &self.data[e.record..e.end]
    }

    /// Makes the key of the entry before this one that of this one.
    #[inline]
    pub(super) fn advance_key(&self, e: &Entry, key: &mut Vec<u8>) {
        key.truncate(e.shared);
        key.extend_from_slice(&self.data[e.suffix..e.record]);
    }

    /// Looks for `key` from `at` on; `common` = its bytes in common with the entry before that.
    pub(super) fn find_from(&self, mut at: usize, mut common: usize, key: &[u8]) -> Place {
        while at < self.data.len() {
            let e = self.entry(at);
            // More in common with the one before than `key` has: less than `key` for the same reason.
            if e.shared <= common {
                if e.shared < common {
                    return Place { at, exact: false, before: common, after: e.shared };
                }
                let suffix = &self.data[e.suffix..e.record];
                let rest = &key[common..];
                let n = common_len(suffix, rest);
                let order = suffix.get(n).cmp(&rest.get(n));
                if order != Ordering::Less {
                    let exact = order == Ordering::Equal;
                    return Place { at, exact, before: common, after: common + n };
                }
                common += n;
            }
            at = e.end;
        }
        Place { at, exact: false, before: common, after: 0 }
    }

    pub(super) fn find(&self, key: &[u8]) -> Place {
        self.find_from(0, 0, key)
    }

    /// Sets the record of `key`, whose place this is.
    pub(super) fn put(&mut self, place: Place, key: &[u8], record: &[u8]) {
        let Place { at, exact, before, after } = place;
        let mut head = Head::new();
        let suffix = &key[before..];
        push_numbers(&mut head, [before, suffix.len(), record.len()]);
        let mut next = Head::new();
        let mut to = at;
        if exact {
            to = self.entry(at).end;
        } else if at < self.data.len() {
            // The next one has more in common with this one than with the one before.
            let e = self.entry(at);
            to = e.suffix + (after - e.shared);
            push_numbers(&mut next, [after, e.record - to, e.end - e.record]);
        }
        self.splice(at, to, [&head, suffix, record, &next]);
    }

    /// Removes the entry of `key`, whose place this is.
    pub(super) fn remove(&mut self, at: usize, key: &[u8]) {
        let e = self.entry(at);
        let mut head = Head::new();
        let (mut to, mut more) = (e.end, &[][..]);
        if e.end < self.data.len() {
            let next = self.entry(e.end);
            let shared = e.shared.min(next.shared);
            more = &key[shared..next.shared];
            let suffix_len = more.len() + (next.record - next.suffix);
            push_numbers(&mut head, [shared, suffix_len, next.end - next.record]);
            to = next.suffix;
        }
        self.splice(at, to, [&head, more, &[], &[]]);
    }

    /// Whether it is to be split: it is large and has several entries.
    pub(super) fn is_full(&self) -> bool {
        if self.data.len() <= LEAF_MAX {
            return false;
        }
        // A long first topic is not held against those that share it.
        let len = self.data.len() - self.entry(0).record;
        let mut count = 0;
        let mut at = 0;
        while at < self.data.len() && count <= LEAF_ENTRIES_MIN {
            at = self.entry(at).end;
            count += 1;
        }
        count > 1 && (len > LEAF_BYTES_MAX || len > LEAF_MAX && count > LEAF_ENTRIES_MIN)
    }

    /// Moves the upper half to a new leaf. Returns that, and a text above all that stay and not above any
    /// that moved.
    pub(super) fn split(&mut self, big: &Big) -> (Vec<u8>, Self) {
        let first = self.entry(0);
        let half = first.record.midpoint(self.data.len());
        let (mut at, mut e) = (0, first);
        let mut key = Vec::new();
        self.advance_key(&e, &mut key);
        while e.end < self.data.len() {
            at = e.end;
            e = self.entry(at);
            self.advance_key(&e, &mut key);
            if e.end > half {
                break;
            }
        }
        debug_assert!(at > 0, "a leaf of one entry was split");
        let mut head = Head::new();
        push_numbers(&mut head, [0, key.len(), e.end - e.record]);
        let mut right = Self::new();
        right.splice(0, 0, [&head, &key, &self.data[e.record..], &[]]);
        right.find_due(big);
        self.data.truncate(at);
        self.fit();
        self.find_due(big);
        let mut least = e.shared + 1;
        while key.get(least).is_some_and(|b| b & 0xc0 == 0x80) {
            least += 1; // texts are cut between characters
        }
        key.truncate(least);
        (key, right)
    }

    /// Whether it should be joined with a neighbour.
    pub(super) fn is_small(&self) -> bool {
        self.data.len() < LEAF_MIN
    }

    pub(super) fn fits(&self, other: &Self) -> bool {
        self.data.len() + other.data.len() <= LEAF_JOINED_MAX
    }

    /// Takes the entries of the leaf above it.
    pub(super) fn join(&mut self, right: &Self) {
        self.due_ms = self.due_ms.min(right.due_ms);
        if right.data.is_empty() {
            return;
        }
        let (mut at, mut last) = (0, Vec::new());
        while at < self.data.len() {
            let e = self.entry(at);
            self.advance_key(&e, &mut last);
            at = e.end;
        }
        let e = right.entry(0);
        let first = &right.data[e.suffix..e.record];
        let shared = common_len(&last, first);
        let mut head = Head::new();
        push_numbers(&mut head, [shared, first.len() - shared, e.end - e.record]);
        self.splice(at, at, [&head, &first[shared..], &right.data[e.record..], &[]]);
    }

    /// Computes [`due_ms`](Self::due_ms) anew.
    pub(super) fn find_due(&mut self, big: &Big) {
        let (mut at, mut due) = (0, u64::MAX);
        while at < self.data.len() {
            let e = self.entry(at);
            due = due.min(record::expires_ms(self.record(&e), big));
            at = e.end;
        }
        self.due_ms = due;
    }

    /// The keys, after a look whether the module's picture is true of them.
    #[cfg(test)]
    pub(super) fn checked_keys(&self, big: &Big) -> Vec<Vec<u8>> {
        let (mut at, mut key, mut keys) = (0, Vec::new(), Vec::<Vec<u8>>::new());
        let mut due_ms = u64::MAX;
        while at < self.data.len() {
            let e = self.entry(at);
            self.advance_key(&e, &mut key);
            let last = keys.last().map_or(&[][..], |k| k);
            assert!(keys.is_empty() || *last < *key, "order");
            assert_eq!(e.shared, common_len(last, &key), "shared");
            due_ms = due_ms.min(record::expires_ms(self.record(&e), big));
            keys.push(key.clone());
            at = e.end;
        }
        assert_eq!((at, due_ms), (self.data.len(), self.due_ms));
        keys
    }

    /// Bytes `from..to` become `parts`.
    fn splice(&mut self, from: usize, to: usize, parts: [&[u8]; 4]) {
        let added: usize = parts.iter().map(|p| p.len()).sum();
        let (old, new) = (self.data.len(), self.data.len() - (to - from) + added);
        if new > self.data.capacity() {
            self.data.reserve_exact(size_class(new) - old);
        }
        if new > old {
            self.data.resize(new, 0);
        }
        if new != old {
            self.data.copy_within(to..old, from + added);
        }
        self.data.truncate(new);
        let mut at = from;
        for part in parts {
            self.data[at..at + part.len()].copy_from_slice(part);
            at += part.len();
        }
        if new < old {
            self.fit();
        }
    }

    /// Gives memory back when it is of use. Not at once: what was removed often comes again.
    fn fit(&mut self) {
        let least = size_class(self.data.len());
        if least + least / 4 < self.data.capacity() {
            // Not `shrink_to`: allocators leave a block where it is that is half used.
            let mut data = Vec::with_capacity(least);
            data.extend_from_slice(&self.data);
            self.data = data;
        }
    }
}

/// What the allocator has for so many bytes: four sizes between each power of two and the next.
fn size_class(len: usize) -> usize {
    if len <= 64 {
        return len.next_multiple_of(16);
    }
    len.next_multiple_of(1 << ((len - 1).ilog2() - 2))
}

/// Numbers of 7 bits a byte, the least first.
#[inline]
pub(super) fn number(data: &[u8], at: &mut usize) -> usize {
    let first = data[*at];
    *at += 1;
    if first < 0x80 {
        return usize::from(first);
    }
    let mut value = usize::from(first & 0x7f);
    let mut shift = 7;
    loop {
        let byte = data[*at];
        *at += 1;
        value |= usize::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return value;
        }
        shift += 7;
    }
}

pub(super) fn push_number(out: &mut impl Extend<u8>, mut value: usize) {
    while value >= 0x80 {
        out.extend([value as u8 | 0x80]);
        value >>= 7;
    }
    out.extend([value as u8]);
}

fn push_numbers(out: &mut Head, values: [usize; 3]) {
    if values.iter().all(|v| *v < 0x80) {
        out.extend_from_slice(&values.map(|v| v as u8));
    } else {
        values.into_iter().for_each(|v| push_number(out, v));
    }
}

/// How many bytes two texts begin with in common.
pub(super) fn common_len(a: &[u8], b: &[u8]) -> usize {
    let mut n = 0;
    for (x, y) in a.as_chunks::<8>().0.iter().zip(b.as_chunks::<8>().0) {
        let differs = u64::from_le_bytes(*x) ^ u64::from_le_bytes(*y);
        if differs != 0 {
            return n + differs.trailing_zeros() as usize / 8;
        }
        n += 8;
    }
    n + a[n..].iter().zip(&b[n..]).take_while(|(x, y)| x == y).count()
}
