//! The wildcard shapes that are probed for one by one.

use crate::engine::route::shape::{LEVELS_MAX, Shape};
use hashbrown::HashMap;

/// Shapes probed for per number of levels, without `#` and with it. More go to the trie, which is
/// then cheaper (decision record 0011).
const SINGLE_MAX: usize = 8;
const MULTI_MAX: usize = 4;

#[derive(Debug, Default)]
pub(super) struct Shapes {
    /// Filters per shape, and whether they are in the trie: all or none.
    uses: HashMap<Shape, (u32, bool)>,
    /// Per number of levels: the sets of `+` levels to probe for.
    single: Vec<Vec<u64>>,
    multi: Vec<Vec<u64>>,
    /// Bit n: `multi[n]` is not empty.
    multi_used: u64,
}

impl Shapes {
    pub(super) fn bytes(&self) -> usize {
        self.uses.allocation_size()
            + self.single.iter().chain(&self.multi).map(|g| g.capacity() * 8 + 24).sum::<usize>()
    }

    /// Counts a filter in; whether it belongs into the trie. `None` is a filter too deep for a shape.
    pub(super) fn enter(&mut self, shape: Option<Shape>) -> bool {
        let Some(shape) = shape else { return true };
        if shape.is_exact() {
            return false;
        }
        if let Some((count, in_trie)) = self.uses.get_mut(&shape) {
            *count += 1;
            return *in_trie;
        }
        let max = if shape.multi { MULTI_MAX } else { SINGLE_MAX };
        let group = self.group_mut(shape);
        let in_trie = group.len() >= max;
        if !in_trie {
            group.push(shape.plus);
            self.multi_used |= u64::from(shape.multi) << shape.levels;
        }
        self.uses.insert(shape, (1, in_trie));
        in_trie
    }

    /// Counts a filter out; whether it is in the trie.
    pub(super) fn leave(&mut self, shape: Option<Shape>) -> bool {
        let Some(shape) = shape else { return true };
        let Some((count, in_trie)) = self.uses.get_mut(&shape) else { return false };
        *count -= 1;
        let in_trie = *in_trie;
        if *count == 0 {
            self.uses.remove(&shape);
            if !in_trie {
                let group = self.group_mut(shape);
                group.retain(|p| *p != shape.plus);
                if shape.multi && group.is_empty() {
                    self.multi_used &= !(1 << shape.levels);
                }
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
