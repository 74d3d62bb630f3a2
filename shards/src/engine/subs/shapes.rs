//! The wildcard shapes, and which of them are probed for one by one.

use super::FilterId;
use crate::engine::route::shape::{LEVELS_MAX, Shape};
use hashbrown::HashMap;
use smallvec::SmallVec;

/// Filters of a shape that stay in the trie: a probe pays when it stands for more.
const FEW_MAX: usize = 16;

/// Shapes probed for per number of levels, without `#` and with it. More stay in the trie, which is
/// then cheaper (decision record 0011).
const SINGLE_MAX: usize = 8;
const MULTI_MAX: usize = 4;

/// The filters of a shape that are in the trie.
pub(super) type Few = SmallVec<[FilterId; 4]>;

#[derive(Debug, Default)]
pub(super) struct Shapes {
    uses: HashMap<Shape, Use>,
    /// Per number of levels: the sets of `+` levels to probe for.
    single: Vec<Vec<u64>>,
    multi: Vec<Vec<u64>>,
    /// Bit n: `multi[n]` is not empty.
    multi_used: u64,
}

/// All filters of a shape are found in the same way.
#[derive(Debug)]
enum Use {
    /// In the trie, at most [`FEW_MAX`].
    Few(Few),
    /// In the trie, so many: there was no room to probe for one more shape.
    Trie(u32),
    /// Probed for, so many.
    Hashed(u32),
}

/// How a filter is to be found.
#[derive(Debug)]
pub(super) enum Entered {
    /// By its hash alone.
    Hashed,
    /// By its hash alone, and so are these from now on, which were in the trie.
    HashedWith(Few),
    Trie,
}

impl Shapes {
    pub(super) fn bytes(&self) -> usize {
        let few = |u: &Use| match u {
            Use::Few(few) if few.spilled() => few.capacity() * size_of::<FilterId>(),
            _ => 0,
        };
        self.uses.allocation_size()
            + self.uses.values().map(few).sum::<usize>()
            + self.single.iter().chain(&self.multi).map(|g| g.capacity() * 8 + 24).sum::<usize>()
    }

    /// Counts a filter in. `None` is the shape of one that is too deep for a shape.
    pub(super) fn enter(&mut self, shape: Option<Shape>, id: FilterId) -> Entered {
        let Some(shape) = shape else { return Entered::Trie };
        if shape.is_exact() {
            return Entered::Hashed;
        }
        let few = match self.uses.entry(shape).or_insert_with(|| Use::Few(Few::new())) {
            Use::Hashed(count) => {
                *count += 1;
                return Entered::Hashed;
            }
            Use::Trie(count) => {
                *count += 1;
                return Entered::Trie;
            }
            Use::Few(few) if few.len() < FEW_MAX => {
                few.push(id);
                return Entered::Trie;
            }
            Use::Few(few) => std::mem::take(few),
        };
        let max = if shape.multi { MULTI_MAX } else { SINGLE_MAX };
        let count = few.len() as u32 + 1;
        let group = self.group_mut(shape);
        if group.len() >= max {
            self.uses.insert(shape, Use::Trie(count));
            return Entered::Trie;
        }
        group.push(shape.plus);
        self.multi_used |= u64::from(shape.multi) << shape.levels;
        self.uses.insert(shape, Use::Hashed(count));
        Entered::HashedWith(few)
    }

    /// Counts a filter out; whether it is in the trie.
    pub(super) fn leave(&mut self, shape: Option<Shape>, id: FilterId) -> bool {
        let Some(shape) = shape else { return true };
        let Some(used) = self.uses.get_mut(&shape) else { return false };
        let (left, in_trie) = match used {
            Use::Few(few) => {
                few.retain(|f| *f != id);
                (few.len() as u32, true)
            }
            Use::Trie(count) => {
                *count -= 1;
                (*count, true)
            }
            Use::Hashed(count) => {
                *count -= 1;
                (*count, false)
            }
        };
        if left > 0 {
            return in_trie;
        }
        self.uses.remove(&shape);
        if !in_trie {
            let group = self.group_mut(shape);
            group.retain(|p| *p != shape.plus);
            if shape.multi && group.is_empty() {
                self.multi_used &= !(1 << shape.levels);
            }
        }
        in_trie
    }

    /// Calls `probe` with levels, `+` levels and `#` of each shape that can match a topic of `levels`
    /// levels. [S-51]
    #[inline]
    pub(super) fn each(
        &self,
        levels: usize,
        dollar: bool,
        mut probe: impl FnMut(usize, u64, bool),
    ) {
        let first_wild = u64::from(dollar);
        let mut group = |n: usize, masks: &[u64], multi: bool| {
            for plus in masks.iter().filter(|p| **p & first_wild == 0) {
                probe(n, *plus, multi);
            }
        };
        if let Some(masks) = self.single.get(levels) {
            group(levels, masks, false);
        }
        let mut used = self.multi_used & !first_wild;
        if levels < LEVELS_MAX {
            used &= (2 << levels) - 1;
        }
        while used != 0 {
            let n = used.trailing_zeros() as usize;
            group(n, &self.multi[n], true);
            used &= used - 1;
        }
    }

    fn group_mut(&mut self, shape: Shape) -> &mut Vec<u64> {
        let groups = if shape.multi { &mut self.multi } else { &mut self.single };
        let levels = usize::from(shape.levels);
        if groups.len() <= levels {
            groups.resize_with(levels + 1, Vec::new);
        }
        &mut groups[levels]
    }
}
