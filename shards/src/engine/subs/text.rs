//! Many short texts without an allocation each.

const NONE: u32 = u32::MAX;
const UNIT: usize = 4;
/// Bytes allocated at once; holds the longest text four times.
const CHUNK: usize = 256 * 1024;
const CHUNK_UNITS: usize = CHUNK / UNIT;
/// Units of the longest text: 65,535 bytes and 2 of length.
const UNITS_MAX: usize = (65_535 + 2usize).div_ceil(UNIT);

/// A text in a [`TextStore`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TextRef(pub(crate) u32);

/// Texts of up to 65,535 bytes, each with 2 bytes of length, in multiples of 4 bytes. Freed space is
/// used again for texts of the same size.
#[derive(Debug)]
pub(crate) struct TextStore {
    chunks: Vec<Box<[u8]>>,
    /// First free unit of the last chunk.
    next: usize,
    /// Per size in units: the first free block, which holds the number of the next.
    free: Vec<u32>,
}

impl TextStore {
    pub(crate) fn new() -> Self {
        Self { chunks: Vec::new(), next: CHUNK_UNITS, free: Vec::new() }
    }

    pub(crate) fn insert(&mut self, text: &[u8]) -> TextRef {
        debug_assert!(text.len() <= 65_535);
        let units = units_of(text.len());
        let at = self.take_free(units).unwrap_or_else(|| self.take_new(units));
        let block = self.block_mut(at);
        block[..2].copy_from_slice(&(text.len() as u16).to_le_bytes());
        block[2..2 + text.len()].copy_from_slice(text);
        TextRef(at)
    }

    pub(crate) fn remove(&mut self, text: TextRef) {
        let units = units_of(self.get(text).len());
        self.give(text.0, units);
    }

    #[inline]
    pub(crate) fn get(&self, text: TextRef) -> &[u8] {
        let chunk = &self.chunks[text.0 as usize / CHUNK_UNITS];
        let block = &chunk[text.0 as usize % CHUNK_UNITS * UNIT..];
        let len = usize::from(u16::from_le_bytes([block[0], block[1]]));
        &block[2..2 + len]
    }

    pub(crate) fn bytes(&self) -> usize {
        self.chunks.len() * CHUNK + self.free.capacity() * 4
    }

    fn block_mut(&mut self, at: u32) -> &mut [u8] {
        &mut self.chunks[at as usize / CHUNK_UNITS][at as usize % CHUNK_UNITS * UNIT..]
    }

    fn give(&mut self, at: u32, units: usize) {
        if self.free.len() <= units {
            self.free.resize(units + 1, NONE);
        }
        let next = std::mem::replace(&mut self.free[units], at);
        self.block_mut(at)[..4].copy_from_slice(&next.to_le_bytes());
    }

    fn take_free(&mut self, units: usize) -> Option<u32> {
        let at = *self.free.get(units)?;
        if at == NONE {
            return None;
        }
        let block = self.block_mut(at);
        let next = u32::from_le_bytes([block[0], block[1], block[2], block[3]]);
        self.free[units] = next;
        Some(at)
    }

    fn take_new(&mut self, units: usize) -> u32 {
        let left = CHUNK_UNITS - self.next;
        if left < units {
            if left > 0 {
                let at = (self.chunks.len() - 1) * CHUNK_UNITS + self.next;
                self.give_tail(at, left);
            }
            self.chunks.push(vec![0; CHUNK].into_boxed_slice());
            self.next = 0;
            // 16 GiB of text: beyond what one shard is ever given.
            assert!(self.chunks.len() * CHUNK_UNITS < NONE as usize, "text store overflow");
        }
        let at = (self.chunks.len() - 1) * CHUNK_UNITS + self.next;
        self.next += units;
        at as u32
    }

    fn give_tail(&mut self, at: usize, units: usize) {
        self.give(at as u32, units.min(UNITS_MAX));
    }
}

fn units_of(len: usize) -> usize {
    (len + 2).div_ceil(UNIT)
}
