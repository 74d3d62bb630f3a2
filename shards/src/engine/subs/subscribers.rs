//! The subscribers of a filter that has several.

use super::Subscriber;
use super::table::IdTable;

/// Up to this many are found by looking at each.
const SCAN_MAX: usize = 16;

/// Subscribers of a chunk: as many are moved at most when one is added or removed.
const CHUNK: usize = 512;

/// Subscribers in no order, found by session in O(1).
#[derive(Debug, Default)]
pub(super) struct Subscribers {
    /// All but the last are full.
    chunks: Vec<Vec<Subscriber>>,
    /// Positions by session, once there are more than [`SCAN_MAX`].
    index: Option<Box<IdTable>>,
}

fn hash(session: u32) -> u32 {
    ((u64::from(session) + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32) as u32
}

fn at(chunks: &[Vec<Subscriber>], position: u32) -> &Subscriber {
    &chunks[position as usize / CHUNK][position as usize % CHUNK]
}

impl Subscribers {
    pub(super) fn len(&self) -> usize {
        self.chunks.last().map_or(0, |last| (self.chunks.len() - 1) * CHUNK + last.len())
    }

    pub(super) fn chunks(&self) -> &[Vec<Subscriber>] {
        &self.chunks
    }

    pub(super) fn bytes(&self) -> usize {
        let chunks = self.chunks.iter().map(|c| c.capacity() * size_of::<Subscriber>());
        self.chunks.capacity() * size_of::<Vec<Subscriber>>()
            + chunks.sum::<usize>()
            + self.index.as_ref().map_or(0, |i| i.bytes() + size_of::<IdTable>())
    }

    pub(super) fn position(&self, session: u32) -> Option<usize> {
        let is = |i: u32| at(&self.chunks, i).session == session;
        match &self.index {
            None => (0..self.len() as u32).find(|i| is(*i)).map(|i| i as usize),
            Some(index) => index.find(hash(session), is).map(|i| i as usize),
        }
    }

    pub(super) fn at(&self, position: usize) -> &Subscriber {
        at(&self.chunks, position as u32)
    }

    pub(super) fn at_mut(&mut self, position: usize) -> &mut Subscriber {
        &mut self.chunks[position / CHUNK][position % CHUNK]
    }

    /// Adds one that is not there.
    pub(super) fn push(&mut self, subscriber: Subscriber) {
        if self.chunks.last().is_none_or(|c| c.len() == CHUNK) {
            self.chunks.push(Vec::new());
        }
        if let Some(last) = self.chunks.last_mut() {
            if last.len() == last.capacity() {
                // By a quarter instead of doubling: memory counts more here than copying.
                last.reserve_exact((last.len() / 4 + 2).min(CHUNK - last.len()));
            }
            last.push(subscriber);
        }
        match self.len() {
            n if n <= SCAN_MAX => {}
            n if n == SCAN_MAX + 1 => {
                self.index = Some(Box::default());
                (0..n).for_each(|i| self.index_add(i));
            }
            n => self.index_add(n - 1),
        }
    }

    pub(super) fn swap_remove(&mut self, position: usize) -> Subscriber {
        let last = self.len() - 1;
        let gone = *self.at(position);
        self.index_remove(position);
        if last != position {
            self.index_remove(last);
        }
        if let Some(end) = self.chunks.last_mut().and_then(Vec::pop)
            && last != position
        {
            *self.at_mut(position) = end;
            self.index_add(position);
        }
        if self.chunks.last().is_some_and(Vec::is_empty) {
            self.chunks.pop();
            if self.chunks.len() * 4 < self.chunks.capacity() {
                self.chunks.shrink_to(self.chunks.len() * 2);
            }
        } else if let Some(end) = self.chunks.last_mut()
            && end.capacity() > 32
            && end.capacity() / 4 > end.len()
        {
            end.shrink_to(end.len() * 2);
        }
        if last == SCAN_MAX {
            self.index = None;
        }
        gone
    }

    fn index_add(&mut self, position: usize) {
        let chunks = &self.chunks;
        let of = |i: u32| hash(at(chunks, i).session);
        if let Some(index) = &mut self.index {
            index.insert(of(position as u32), position as u32, of);
        }
    }

    fn index_remove(&mut self, position: usize) {
        let chunks = &self.chunks;
        let of = |i: u32| hash(at(chunks, i).session);
        if let Some(index) = &mut self.index {
            index.remove(of(position as u32), position as u32, of);
        }
    }
}
