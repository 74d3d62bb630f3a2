//! The buckets that may have bits of one shard: what it has to go through when the table grows. With
//! many shards these are few of all buckets.

use crate::mem;

/// Words of a page: 2,048 buckets.
const PAGE: usize = 32;
const BITS: usize = PAGE * 64;

/// A set of bucket numbers, in pages that are allocated when first needed. Lives on: its shard.
#[derive(Debug, Default)]
pub(super) struct Own(Vec<Option<Box<[u64; PAGE]>>>);

impl Own {
    #[inline]
    pub(super) fn insert(&mut self, index: usize) {
        let page = index / BITS;
        if page >= self.0.len() {
            self.0.resize_with(page + 1, || None);
        }
        let words = self.0[page].get_or_insert_with(|| Box::new([0; PAGE]));
        words[index % BITS / 64] |= 1 << (index % 64);
    }

    pub(super) fn remove(&mut self, index: usize) {
        if let Some(Some(words)) = self.0.get_mut(index / BITS) {
            words[index % BITS / 64] &= !(1 << (index % 64));
        }
    }

    /// Asks for the line that `insert` will write.
    #[inline]
    pub(super) fn prefetch(&self, index: usize) {
        if let Some(Some(words)) = self.0.get(index / BITS) {
            mem::prefetch(&words[index % BITS / 64]);
        }
    }

    /// The last numbers below `end`, in as many steps as there is room in `out`, at most `budget`: how
    /// many there are, the steps taken (a page without a number is one too), and up to where, down, they
    /// are all.
    pub(super) fn before(
        &self,
        mut end: usize,
        budget: usize,
        out: &mut [usize],
    ) -> (usize, usize, usize) {
        let (mut found, mut steps) = (0, 0);
        while end > 0 && steps < budget.min(out.len()) {
            end = match self.last_before(end) {
                Ok(index) => {
                    out[found] = index;
                    found += 1;
                    index
                }
                Err(none_from) => none_from,
            };
            steps += 1;
        }
        (found, steps, end)
    }

    /// The last number below `end` (at least 1); or, if there is none in its page, where that begins.
    fn last_before(&self, end: usize) -> Result<usize, usize> {
        let Some(last) = end.checked_sub(1) else { return Err(0) };
        let start = last / BITS * BITS;
        let Some(Some(words)) = self.0.get(last / BITS) else { return Err(start) };
        let from = last % BITS / 64;
        let mut bits = words[from] & (u64::MAX >> (63 - last % 64));
        for word in (0..=from).rev() {
            if bits != 0 {
                return Ok(start + word * 64 + 63 - bits.leading_zeros() as usize);
            }
            bits = if word > 0 { words[word - 1] } else { 0 };
        }
        Err(start)
    }

    pub(super) fn bytes(&self) -> usize {
        self.0.len() * 8 + self.0.iter().flatten().count() * size_of::<[u64; PAGE]>()
    }
}

#[cfg(all(test, not(ringmain_loom)))]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn going_down_meets_every_number_once() {
        let seed = fastrand::u64(..);
        println!("seed {seed}");
        let mut rng = fastrand::Rng::with_seed(seed);
        for density in [1, 10, 2000] {
            let (mut own, mut naive) = (Own::default(), BTreeSet::new());
            for _ in 0..density {
                let index = rng.usize(..3 * BITS);
                own.insert(index);
                naive.insert(index);
                if rng.u8(..4) == 0 {
                    own.remove(index);
                    naive.remove(&index);
                }
            }
            let mut end = 5 * BITS;
            let mut met = BTreeSet::new();
            while end > 0 {
                let mut some = [0; 16];
                let budget = rng.usize(1..20);
                let (found, steps, now) = own.before(end, budget, &mut some);
                assert!(found <= steps && steps <= budget && now < end);
                assert!(some[..found].iter().all(|i| (now..end).contains(i) && met.insert(*i)));
                end = now;
            }
            assert_eq!(met, naive);
        }
    }
}
