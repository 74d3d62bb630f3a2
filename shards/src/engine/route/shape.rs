//! Hashes of filters, and the hashes that the filters matching a topic would have.
//!
//! A filter's *shape* is what is left when the text of its literal levels is forgotten: how many
//! levels precede `#` or the end, which of them are `+`, and whether `#` ends it. All filters of one
//! shape that match a topic have one and the same hash, computable from the topic: so matching is
//! one probe per shape in use (tuple-space search).
//!
//! The hash is a sum over levels of a hash of (position, text), with a constant per position for
//! `+`. So a topic's prefix sums are computed once, and each shape costs an addition per `+` and a
//! multiplication.

use crate::mem::bytes_equal;

/// Levels before `#` or the end that a shape can express. Deeper filters are looked up by an anchor
/// level. Bounded by the fingerprint's 44 bits, which hold a set of levels and one flag.
pub(crate) const LEVELS_MAX: usize = 43;

/// Levels hashed on the fast path; topics are rarely deeper.
pub(crate) const LEVELS_FAST: usize = 16;

const K0: u64 = 0x9e37_79b9_7f4a_7c15;
const K1: u64 = 0xa076_1d64_78bd_642f;
const K2: u64 = 0xe703_7ed1_a0b4_28db;
const K3: u64 = 0x8ebc_6af0_9c88_c6e3;
const K4: u64 = 0x5899_65cc_7537_4cc3;

/// What a filter looks like without the text of its literals.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Shape {
    /// Bit i is set when level i is `+`.
    pub(crate) plus: u64,
    /// Levels before `#` or the end, 0..=[`LEVELS_MAX`].
    pub(crate) levels: u8,
    /// Whether it ends in `#`.
    pub(crate) multi: bool,
}

impl Shape {
    /// A filter without wildcards has such a shape.
    pub(crate) fn is_exact(self) -> bool {
        self.plus == 0 && !self.multi
    }
}

/// The level that a filter without a shape of its own is looked up by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Anchor {
    pub(crate) level: u8,
    pub(crate) hash: u64,
}

/// A filter, hashed.
#[derive(Clone, Copy, Debug)]
pub(crate) struct HashedFilter {
    /// `None` when it has more than [`LEVELS_MAX`] levels.
    pub(crate) shape: Option<Shape>,
    /// Of the whole filter, when it has a shape.
    pub(crate) hash: u64,
    /// The longest literal among the first [`LEVELS_MAX`] levels; the first level if that begins
    /// with `$`, because no other level tells `$` topics.
    pub(crate) anchor: Option<Anchor>,
}

fn fold(a: u64, b: u64) -> u64 {
    let p = u128::from(a) * u128::from(b);
    p as u64 ^ (p >> 64) as u64
}

fn read8(b: &[u8], at: usize) -> u64 {
    b.get(at..at + 8).and_then(|s| s.try_into().ok()).map_or(0, u64::from_le_bytes)
}

fn read4(b: &[u8], at: usize) -> u64 {
    b.get(at..at + 4)
        .and_then(|s| s.try_into().ok())
        .map_or(0, |s| u64::from(u32::from_le_bytes(s)))
}

/// Seeded hashing of levels, filters and topics.
#[derive(Clone, Debug)]
pub(crate) struct LevelHasher {
    s0: u64,
    s1: u64,
    plus: [u64; LEVELS_MAX],
}

impl LevelHasher {
    pub(crate) fn new(seed: u64) -> Self {
        let s0 = fold(seed ^ K1, K2) ^ seed;
        let s1 = fold(s0 ^ K3, K0) | 1;
        let mut plus = [0; LEVELS_MAX];
        for (i, p) in (0u64..).zip(&mut plus) {
            *p = fold(s0 ^ K4.wrapping_mul(2 * i + 1), s1 ^ K2);
        }
        Self { s0, s1, plus }
    }

    /// Hash of any bytes.
    #[inline]
    pub(crate) fn bytes(&self, b: &[u8]) -> u64 {
        self.from(self.s0, b)
    }

    /// Hash of literal text at a position below [`LEVELS_MAX`].
    pub(crate) fn level(&self, at: usize, text: &[u8]) -> u64 {
        self.from(self.start(at), text)
    }

    /// What the hash of a level at this position begins with; as secret as the seed.
    #[inline]
    fn start(&self, at: usize) -> u64 {
        self.plus[at].rotate_left(32) ^ self.s0
    }

    #[inline]
    fn from(&self, mut start: u64, b: &[u8]) -> u64 {
        let n = b.len();
        let (x, y) = match n {
            0 => (0, 0),
            1..=3 => {
                let at = |i: usize| u64::from(b[i]) << (8 * i);
                (at(0) | at(n / 2) | at(n - 1), 0)
            }
            4..=7 => (read4(b, 0) | read4(b, n - 4) << (8 * (n - 4)), 0),
            8 => (read8(b, 0), 0),
            9..=16 => (read8(b, 0), read8(b, n - 8) >> (8 * (16 - n))),
            _ => {
                let mut at = 0;
                while at + 16 < n {
                    start = fold(read8(b, at) ^ K1 ^ start, read8(b, at + 8) ^ self.s1);
                    at += 16;
                }
                (read8(b, n - 16), read8(b, n - 8))
            }
        };
        self.short(start, x, y, n)
    }

    /// Of up to 16 bytes, `x` the first eight and `y` the others, with zeros behind.
    #[inline]
    fn short(&self, start: u64, x: u64, y: u64, n: usize) -> u64 {
        fold(x ^ start, y ^ self.s1 ^ (n as u64).wrapping_mul(K0))
    }

    /// Turns a sum over levels into the hash of a filter.
    #[inline]
    fn finish(&self, sum: u64, levels: usize, multi: bool) -> u64 {
        let end = (levels as u64) << 1 | u64::from(multi);
        fold(sum ^ end.wrapping_mul(K0), self.s1 ^ K1)
    }

    /// The hash that an anchored filter has.
    #[inline]
    pub(crate) fn anchor_hash(&self, level: usize, level_hash: u64) -> u64 {
        fold(level_hash ^ (level as u64 + 1).wrapping_mul(K2), self.s0 ^ K3)
    }

    /// Hash of the literal text from `from` up to `to`, for its position. With 8 bytes in all no branch
    /// depends on the length of a short text: levels differ in those, and a wrong guess costs more than
    /// the hash.
    #[inline(always)]
    fn level_in(&self, at: usize, bytes: &[u8], from: usize, to: usize) -> u64 {
        let (start, n) = (self.start(at), to - from);
        if n > 16 || bytes.len() < 8 {
            return self.from(start, &bytes[from..to]);
        }
        let x = read8_near(bytes, from) & KEPT[n][0];
        let y = read8_near(bytes, from + 8) & KEPT[n][1];
        self.short(start, x, y, n)
    }

    pub(crate) fn filter(&self, filter: &str) -> HashedFilter {
        let bytes = filter.as_bytes();
        let (mut plus, mut multi, mut deep) = (0, false, false);
        let (mut sum, mut at) = (0u64, 0);
        // The longest literal so far: one more than its length, its level, and the level's hash.
        let (mut longest, mut anchor) = (0, (0, 0));
        each_level(bytes, |from, to| {
            let only = if to - from == 1 { bytes[from] } else { 0 };
            multi = only == b'#';
            deep = at == LEVELS_MAX && !multi;
            if multi || deep {
                return false;
            }
            let hash = if only == b'+' {
                plus |= 1 << at;
                self.plus[at]
            } else {
                let hash = self.level_in(at, bytes, from, to);
                let dollar = at == 0 && bytes.first() == Some(&b'$');
                let rank = if dollar { usize::MAX } else { to - from + 1 };
                if rank >= longest {
                    (longest, anchor) = (rank, (at, hash));
                }
                hash
            };
            sum = sum.wrapping_add(hash);
            at += 1;
            true
        });
        let shape = Shape { plus, levels: at as u8, multi };
        let anchor = (longest > 0)
            .then(|| Anchor { level: anchor.0 as u8, hash: self.anchor_hash(anchor.0, anchor.1) });
        HashedFilter { shape: (!deep).then_some(shape), hash: self.finish(sum, at, multi), anchor }
    }

    /// Hashes a topic's first `N` levels (`N` ≤ [`LEVELS_MAX`]) and does something with them: they are too
    /// large to be moved about.
    #[inline]
    pub(crate) fn with_topic<const N: usize, R>(
        &self,
        topic: &str,
        then: impl FnOnce(&HashedTopic<'_, N>) -> R,
    ) -> R {
        let bytes = topic.as_bytes();
        let dollar = bytes.first() == Some(&b'$');
        let mut t =
            HashedTopic { hasher: self, sums: [0; N], swaps: [0; N], levels: 0, kept: 0, dollar };
        each_level(bytes, |from, to| {
            t.push(|level| self.level_in(level, bytes, from, to));
            true
        });
        then(&t)
    }
}

/// Calls `level` with where each level begins and ends, until it returns false.
#[inline]
fn each_level(bytes: &[u8], mut level: impl FnMut(usize, usize) -> bool) {
    // `at`: where the 64 bytes begin whose `/` are known.
    let (mut from, mut at) = (0, 0);
    let mut known = slashes(&bytes[..bytes.len().min(64)]);
    loop {
        let to = if known != 0 {
            at + known.trailing_zeros() as usize
        } else if at + 64 < bytes.len() {
            at += 64;
            known = slashes(&bytes[at..bytes.len().min(at + 64)]);
            continue;
        } else {
            bytes.len()
        };
        if !level(from, to) || to == bytes.len() {
            return;
        }
        known &= known - 1;
        from = to + 1;
    }
}

/// A bit for each byte that is `/`, of up to 64 bytes.
#[inline]
fn slashes(b: &[u8]) -> u64 {
    if b.len() < 8 {
        return b.iter().rev().fold(0, |bits, b| bits << 1 | u64::from(*b == b'/'));
    }
    let mut bits = 0;
    let mut at = 0;
    while at + 16 <= b.len() {
        bits |= bytes_equal(read8(b, at), read8(b, at + 8), b'/') << at;
        at += 16;
    }
    // The last ones, once more in part.
    let last = b.len() - 8;
    let before = at.min(last);
    let (x, y) = (read8(b, before), read8(b, last));
    bits | bytes_equal(x, 0, b'/') << before | bytes_equal(y, 0, b'/') << last
}

/// The eight bytes at `at`, with anything behind the end; `b` has at least eight.
#[inline]
fn read8_near(b: &[u8], at: usize) -> u64 {
    let from = at.min(b.len() - 8);
    read8(b, from) >> ((8 * (at - from)) & 63)
}

/// What is left of the first eight bytes, and of the next eight, of a text of up to 16.
const KEPT: [[u64; 2]; 17] = {
    let mut kept = [[0; 2]; 17];
    let mut n = 1;
    while n <= 16 {
        kept[n] = kept[n - 1];
        kept[n][(n - 1) / 8] |= 0xff << (8 * ((n - 1) % 8));
        n += 1;
    }
    kept
};

/// A topic, hashed.
pub(crate) struct HashedTopic<'a, const N: usize> {
    hasher: &'a LevelHasher,
    /// Sums of the hashes of levels 0..=i.
    sums: [u64; N],
    /// What to add to a sum when level i is `+` instead.
    swaps: [u64; N],
    /// Levels in all.
    pub(crate) levels: usize,
    /// Levels hashed.
    pub(crate) kept: usize,
    /// Whether it begins with `$`.
    pub(crate) dollar: bool,
}

impl<const N: usize> HashedTopic<'_, N> {
    /// The next level, with its hash for its position.
    #[inline]
    fn push(&mut self, hash: impl FnOnce(usize) -> u64) {
        let at = self.kept;
        if at < N {
            let hash = hash(at);
            let before = if at == 0 { 0 } else { self.sums[at - 1] };
            self.sums[at] = before.wrapping_add(hash);
            self.swaps[at] = self.hasher.plus[at].wrapping_sub(hash);
            self.kept += 1;
        }
        self.levels += 1;
    }

    /// The hash of a filter of this shape that matches the topic. The shape must have at most
    /// [`kept`](Self::kept) levels.
    #[inline]
    pub(crate) fn hash(&self, levels: usize, plus: u64, multi: bool) -> u64 {
        let mut sum = if levels == 0 { 0 } else { self.sums[levels - 1] };
        let mut rest = plus;
        while rest != 0 {
            sum = sum.wrapping_add(self.swaps[rest.trailing_zeros() as usize]);
            rest &= rest - 1;
        }
        self.hasher.finish(sum, levels, multi)
    }

    /// The hash of a filter anchored at this level.
    #[inline]
    pub(crate) fn anchor_hash(&self, level: usize) -> u64 {
        self.hasher.anchor_hash(level, self.level_hash(level))
    }

    /// As [`LevelHasher::level`] of a level that was [`kept`](Self::kept).
    #[inline]
    pub(crate) fn level_hash(&self, level: usize) -> u64 {
        self.hasher.plus[level].wrapping_sub(self.swaps[level])
    }
}

/// Whether a filter, a valid one, matches a topic, without hashes. [S-50] [S-51]
pub(crate) fn filter_matches(f: &[u8], t: &[u8]) -> bool {
    if t.first() == Some(&b'$') && matches!(f.first(), Some(b'+' | b'#')) {
        return false;
    }
    // Where both are: at the beginning of a level, each time round. Byte by byte, because levels are
    // short: to look for their ends first costs more.
    let (mut i, mut j) = (0, 0);
    loop {
        if f.get(i) == Some(&b'#') {
            return true;
        }
        if f.get(i) == Some(&b'+') {
            i += 1;
            j = level_end(t, j);
        } else {
            while i < f.len() && f[i] != b'/' {
                if t.get(j) != Some(&f[i]) {
                    return false;
                }
                (i, j) = (i + 1, j + 1);
            }
        }
        if i == f.len() || j == t.len() {
            return j == t.len() && (i == f.len() || f.get(i + 1) == Some(&b'#'));
        }
        if t[j] != b'/' {
            return false;
        }
        (i, j) = (i + 1, j + 1);
    }
}

/// Where the level that begins at `from`, or before, ends.
#[inline]
pub(crate) fn level_end(text: &[u8], from: usize) -> usize {
    let mut at = from;
    while at < text.len() && text[at] != b'/' {
        at += 1;
    }
    at
}
