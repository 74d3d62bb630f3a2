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

    /// Hash of literal text at a position.
    #[inline]
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

    pub(crate) fn filter(&self, filter: &str) -> HashedFilter {
        let mut shape = Shape { plus: 0, levels: 0, multi: false };
        let mut deep = false;
        let mut sum = 0u64;
        let mut anchor: Option<(usize, Anchor)> = None;
        for (i, text) in filter.as_bytes().split(|b| *b == b'/').enumerate() {
            if text == b"#" {
                shape.multi = true;
                break;
            }
            if i == LEVELS_MAX {
                deep = true;
                break;
            }
            shape.levels = i as u8 + 1;
            if text == b"+" {
                shape.plus |= 1 << i;
                sum = sum.wrapping_add(self.plus[i]);
                continue;
            }
            let hash = self.level(i, text);
            sum = sum.wrapping_add(hash);
            let rank = if i == 0 && text.first() == Some(&b'$') { usize::MAX } else { text.len() };
            if anchor.is_none_or(|(best, _)| rank >= best && best != usize::MAX) {
                anchor = Some((rank, Anchor { level: i as u8, hash }));
            }
        }
        HashedFilter {
            shape: (!deep).then_some(shape),
            hash: self.finish(sum, usize::from(shape.levels), shape.multi),
            anchor: anchor.map(|(_, a)| Anchor {
                level: a.level,
                hash: self.anchor_hash(usize::from(a.level), a.hash),
            }),
        }
    }

    /// Hashes a topic's first `N` levels (`N` ≤ [`LEVELS_MAX`]).
    #[inline]
    pub(crate) fn topic<const N: usize>(&self, topic: &str) -> HashedTopic<'_, N> {
        let mut t = HashedTopic {
            hasher: self,
            sums: [0; N],
            swaps: [0; N],
            levels: 0,
            kept: 0,
            dollar: topic.as_bytes().first() == Some(&b'$'),
        };
        let bytes = topic.as_bytes();
        if let 8..=64 = bytes.len() {
            t.split_short(bytes);
            return t;
        }
        let mut start = 0;
        for at in memchr::memchr_iter(b'/', bytes) {
            t.push(|level| self.level(level, &bytes[start..at]));
            start = at + 1;
        }
        t.push(|level| self.level(level, &bytes[start..]));
        t
    }
}

/// A bit for each byte of the eight that is `/`.
#[inline]
fn slashes8(word: u64) -> u64 {
    const LOW: u64 = 0x7f7f_7f7f_7f7f_7f7f;
    let x = word ^ 0x2f2f_2f2f_2f2f_2f2f;
    let zeros = !(((x & LOW) + LOW) | x | LOW);
    (zeros >> 7).wrapping_mul(0x0102_0408_1020_4080) >> 56
}

/// A bit for each byte that is `/`, of 8 to 64 bytes.
#[inline]
fn slashes(b: &[u8]) -> u64 {
    let mut bits = 0;
    let mut at = 0;
    while at + 8 <= b.len() {
        bits |= slashes8(read8(b, at)) << at;
        at += 8;
    }
    // The last eight once more, in part.
    bits | slashes8(read8(b, b.len() - 8)) << (b.len() - 8)
}

/// The eight bytes at `at`, with anything behind the end; `b` has at least eight.
#[inline]
fn read8_near(b: &[u8], at: usize) -> u64 {
    let from = at.min(b.len() - 8);
    read8(b, from) >> ((8 * (at - from)) & 63)
}

/// The first `n` of eight bytes, or all.
#[inline]
fn first(word: u64, n: usize) -> u64 {
    word & !u64::MAX.checked_shl(8 * n as u32).unwrap_or(0)
}

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

    /// All levels of a topic of 8 to 64 bytes, whatever their lengths without a branch on them: topics
    /// differ in those, and a wrong guess costs more than the hash.
    #[inline]
    fn split_short(&mut self, bytes: &[u8]) {
        let hasher = self.hasher;
        let mut slashes = slashes(bytes);
        let mut from = 0;
        loop {
            let to = if slashes == 0 { bytes.len() } else { slashes.trailing_zeros() as usize };
            let n = to - from;
            self.push(|level| {
                let start = hasher.start(level);
                if n > 16 {
                    return hasher.from(start, &bytes[from..to]);
                }
                let x = first(read8_near(bytes, from), n);
                let y = first(read8_near(bytes, from + 8), n.saturating_sub(8));
                hasher.short(start, x, y, n)
            });
            if slashes == 0 {
                return;
            }
            slashes &= slashes - 1;
            from = to + 1;
        }
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
        let hash = self.hasher.plus[level].wrapping_sub(self.swaps[level]);
        self.hasher.anchor_hash(level, hash)
    }
}

/// Whether a filter matches a topic, without hashes. [S-50] [S-51]
pub(crate) fn filter_matches(filter: &str, topic: &str) -> bool {
    let (f, t) = (filter.as_bytes(), topic.as_bytes());
    if t.first() == Some(&b'$') && matches!(f.first(), Some(b'+' | b'#')) {
        return false;
    }
    // `at_t` is where the topic's current level starts; past the end when it has no such level.
    let (mut at_f, mut at_t) = (0, 0);
    loop {
        let level_f = &f[at_f..memchr::memchr(b'/', &f[at_f..]).map_or(f.len(), |n| at_f + n)];
        if level_f == b"#" {
            return true;
        }
        if at_t > t.len() {
            return false;
        }
        let end_t = memchr::memchr(b'/', &t[at_t..]).map_or(t.len(), |n| at_t + n);
        if level_f != b"+" && level_f != &t[at_t..end_t] {
            return false;
        }
        at_f += level_f.len() + 1;
        at_t = end_t + 1;
        if at_f > f.len() {
            return at_t > t.len();
        }
    }
}
