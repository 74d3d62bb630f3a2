//! A slab in chunks: dense 32-bit handles, generations, no copying and no doubling when it grows.

/// Entries of a chunk. A new chunk of the largest users is about 128 KiB: less often than once in a
/// thousand connects, and too small to stall a turn.
const CHUNK: usize = 1024;

/// No handle.
pub(crate) const NONE: u32 = u32::MAX;

#[derive(Debug)]
enum Slot<T> {
    Free { next: u32 },
    Used(T),
}

/// `Lives on: any shard.` A handle stays valid until `remove`; then it is used again. Who keeps a
/// handle longer than that keeps the generation that [`Slab::generation`] gives along with it.
#[derive(Debug)]
pub(crate) struct Slab<T> {
    chunks: Vec<Vec<Slot<T>>>,
    generations: Vec<Vec<u32>>,
    free: u32,
    len: usize,
}

impl<T> Default for Slab<T> {
    fn default() -> Self {
        Self { chunks: Vec::new(), generations: Vec::new(), free: NONE, len: 0 }
    }
}

impl<T> Slab<T> {
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// Bytes of the slab; what its values own is not among them.
    pub(crate) fn bytes(&self) -> usize {
        self.chunks.len() * CHUNK * (size_of::<Slot<T>>() + size_of::<u32>())
    }

    pub(crate) fn insert(&mut self, value: T) -> u32 {
        self.len += 1;
        if self.free != NONE {
            let ix = self.free;
            let slot = &mut self.chunks[ix as usize / CHUNK][ix as usize % CHUNK];
            let Slot::Free { next } = *slot else { unreachable!("free list names a used slot") };
            self.free = next;
            *slot = Slot::Used(value);
            return ix;
        }
        if self.chunks.last().is_none_or(|c| c.len() == CHUNK) {
            self.chunks.push(Vec::with_capacity(CHUNK));
            self.generations.push(vec![0; CHUNK]);
        }
        let at = self.chunks.len() - 1;
        let chunk = &mut self.chunks[at];
        chunk.push(Slot::Used(value));
        (at * CHUNK + chunk.len() - 1) as u32
    }

    pub(crate) fn remove(&mut self, ix: u32) -> Option<T> {
        let slot = self.chunks.get_mut(ix as usize / CHUNK)?.get_mut(ix as usize % CHUNK)?;
        if matches!(slot, Slot::Free { .. }) {
            return None;
        }
        let Slot::Used(value) = std::mem::replace(slot, Slot::Free { next: self.free }) else {
            return None;
        };
        self.free = ix;
        self.len -= 1;
        let g = &mut self.generations[ix as usize / CHUNK][ix as usize % CHUNK];
        *g = g.wrapping_add(1);
        Some(value)
    }

    pub(crate) fn generation(&self, ix: u32) -> u32 {
        self.generations[ix as usize / CHUNK][ix as usize % CHUNK]
    }

    pub(crate) fn get(&self, ix: u32) -> Option<&T> {
        match self.chunks.get(ix as usize / CHUNK)?.get(ix as usize % CHUNK)? {
            Slot::Used(value) => Some(value),
            Slot::Free { .. } => None,
        }
    }

    pub(crate) fn get_mut(&mut self, ix: u32) -> Option<&mut T> {
        match self.chunks.get_mut(ix as usize / CHUNK)?.get_mut(ix as usize % CHUNK)? {
            Slot::Used(value) => Some(value),
            Slot::Free { .. } => None,
        }
    }

    /// The entry, if the generation is still the same.
    pub(crate) fn get_checked(&mut self, ix: u32, generation: u32) -> Option<&mut T> {
        let current = *self.generations.get(ix as usize / CHUNK)?.get(ix as usize % CHUNK)?;
        if current == generation { self.get_mut(ix) } else { None }
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (u32, &T)> {
        self.chunks.iter().flatten().enumerate().filter_map(|(i, slot)| match slot {
            Slot::Used(value) => Some((i as u32, value)),
            Slot::Free { .. } => None,
        })
    }
}

impl<T> std::ops::Index<u32> for Slab<T> {
    type Output = T;
    fn index(&self, ix: u32) -> &T {
        self.get(ix).expect("a handle outlived its entry")
    }
}

impl<T> std::ops::IndexMut<u32> for Slab<T> {
    fn index_mut(&mut self, ix: u32) -> &mut T {
        self.get_mut(ix).expect("a handle outlived its entry")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reused_slot_has_another_generation() {
        let mut slab = Slab::default();
        let a = slab.insert("a");
        let generation = slab.generation(a);
        assert_eq!(slab.remove(a), Some("a"));
        let b = slab.insert("b");
        assert_eq!(a, b);
        assert!(slab.get_checked(b, generation).is_none());
        assert_eq!(slab.get_checked(b, slab.generation(b)), Some(&mut "b"));
    }

    #[test]
    fn grows_past_a_chunk_and_iterates_what_is_left() {
        let mut slab = Slab::default();
        let ids: Vec<_> = (0..3000).map(|i| slab.insert(i)).collect();
        for ix in ids.iter().filter(|ix| **ix % 2 == 0) {
            slab.remove(*ix);
        }
        assert_eq!(slab.len(), 1500);
        assert!(slab.iter().all(|(ix, v)| ix % 2 == 1 && ix == *v));
    }
}
