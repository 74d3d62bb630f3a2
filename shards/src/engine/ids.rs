//! Small identifiers and the clock reading of a turn.

use core::net::SocketAddr;

/// The most shards in one node: the width of a [`ShardSet`]. More cores than this can serve as
/// control-plane cores.
pub const SHARDS_MAX: usize = 256;

/// Index of a shard in its node, `0..SHARDS_MAX`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ShardId(pub u16);

impl ShardId {
    /// As an index into per-shard arrays.
    #[must_use]
    pub fn index(self) -> usize {
        usize::from(self.0)
    }
}

/// A live network connection of one shard. Allocated by the driver: `index` is dense (a slab), and
/// `generation` grows each time the index is used again, so that a stale id is recognised.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConnId {
    /// Slab index, dense from 0.
    pub index: u32,
    /// Distinguishes successive users of `index`.
    pub generation: u32,
}

/// The clock reading of a turn.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Now {
    /// Monotonic, nanoseconds since the process (or the simulated world) started.
    pub mono_ns: u64,
    /// Wall clock, milliseconds since the Unix epoch. May jump; used for what humans read only.
    pub unix_ms: u64,
}

impl Now {
    /// Monotonic milliseconds.
    #[must_use]
    pub fn mono_ms(self) -> u64 {
        self.mono_ns / 1_000_000
    }
}

/// Where a connection comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Peer {
    /// Remote address and port.
    pub addr: SocketAddr,
    /// Index of the listener in [`EngineConfig::listeners`](super::config::EngineConfig).
    pub listener: u16,
}

/// A set of shards.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ShardSet {
    words: [u64; SHARDS_MAX / 64],
}

impl ShardSet {
    /// The empty set.
    pub const EMPTY: Self = Self { words: [0; SHARDS_MAX / 64] };

    /// Adds one shard.
    pub fn insert(&mut self, shard: ShardId) {
        self.words[shard.index() / 64] |= 1 << (shard.index() % 64);
    }

    /// Removes one shard.
    pub fn remove(&mut self, shard: ShardId) {
        self.words[shard.index() / 64] &= !(1 << (shard.index() % 64));
    }

    /// Adds 64 shards at once: those of `word` whose bits are set in `bits`.
    pub fn insert_word(&mut self, word: usize, bits: u64) {
        self.words[word] |= bits;
    }

    /// Whether the shard is in the set.
    #[must_use]
    pub fn contains(&self, shard: ShardId) -> bool {
        self.words[shard.index() / 64] & (1 << (shard.index() % 64)) != 0
    }

    /// Whether the set is empty.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.words.iter().all(|w| *w == 0)
    }

    /// The members, ascending.
    pub fn iter(&self) -> impl Iterator<Item = ShardId> + '_ {
        self.words.iter().enumerate().flat_map(|(i, w)| {
            let mut w = *w;
            std::iter::from_fn(move || {
                (w != 0).then(|| {
                    let bit = w.trailing_zeros() as usize;
                    w &= w - 1;
                    ShardId((i * 64 + bit) as u16)
                })
            })
        })
    }
}
