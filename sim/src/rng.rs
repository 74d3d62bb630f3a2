//! The one source of chance: everything random in a run comes from here, so a seed replays it.

/// A seeded generator with the few draws that the simulator needs.
#[derive(Debug, Clone)]
pub struct Rng(fastrand::Rng);

impl Rng {
    /// Starts from `seed`.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self(fastrand::Rng::with_seed(seed))
    }

    /// True in `per_mille` of 1000 draws.
    pub fn chance(&mut self, per_mille: u32) -> bool {
        per_mille != 0 && self.0.u32(0..1000) < per_mille
    }

    /// A number in `0..n`; `n` must not be 0.
    pub fn below(&mut self, n: usize) -> usize {
        self.0.usize(0..n)
    }

    /// A number in `lo..=hi`.
    pub fn range(&mut self, lo: u64, hi: u64) -> u64 {
        self.0.u64(lo..=hi)
    }

    /// One of `items`, which must not be empty.
    pub fn pick<'a, T>(&mut self, items: &'a [T]) -> &'a T {
        &items[self.below(items.len())]
    }

    /// An index, drawn in proportion to its weight; some weight must not be 0.
    pub fn weighted(&mut self, weights: &[u32]) -> usize {
        let mut at = self.0.u32(0..weights.iter().sum());
        for (i, w) in weights.iter().enumerate() {
            if at < *w {
                return i;
            }
            at -= w;
        }
        unreachable!("the draw is below the sum of the weights")
    }

    /// A new seed for something else.
    pub fn seed(&mut self) -> u64 {
        self.0.u64(..)
    }
}
