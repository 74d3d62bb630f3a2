//! The subscribers of a filter that has several.

use super::Subscriber;
use hashbrown::HashTable;

/// Up to this many are found by looking at each.
const SCAN_MAX: usize = 16;

/// Subscribers in no order, found by session in O(1).
#[derive(Debug, Default)]
pub(super) struct Subscribers {
    list: Vec<Subscriber>,
    /// Positions in `list` by session, once there are more than [`SCAN_MAX`].
    index: HashTable<u32>,
}

fn hash(session: u32) -> u64 {
    let h = (u64::from(session) + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    h ^ h >> 32
}

impl Subscribers {
    pub(super) fn list(&self) -> &[Subscriber] {
        &self.list
    }

    pub(super) fn bytes(&self) -> usize {
        self.list.capacity() * size_of::<Subscriber>() + self.index.allocation_size()
    }

    pub(super) fn position(&self, session: u32) -> Option<usize> {
        if self.list.len() <= SCAN_MAX {
            return self.list.iter().position(|s| s.session == session);
        }
        self.index
            .find(hash(session), |i| self.list[*i as usize].session == session)
            .map(|i| *i as usize)
    }

    pub(super) fn at_mut(&mut self, position: usize) -> &mut Subscriber {
        &mut self.list[position]
    }

    /// Adds one that is not there.
    pub(super) fn push(&mut self, subscriber: Subscriber) {
        if self.list.len() == self.list.capacity() {
            // By a quarter instead of doubling: memory counts more here than copying.
            self.list.reserve_exact(self.list.len() / 4 + 2);
        }
        self.list.push(subscriber);
        match self.list.len() {
            n if n <= SCAN_MAX => {}
            n if n == SCAN_MAX + 1 => (0..n).for_each(|i| self.index_add(i)),
            n => self.index_add(n - 1),
        }
    }

    pub(super) fn swap_remove(&mut self, position: usize) -> Subscriber {
        let indexed = self.list.len() > SCAN_MAX;
        let last = self.list.len() - 1;
        if indexed {
            self.index_remove(position);
            if last != position {
                self.index_remove(last);
            }
        }
        let gone = self.list.swap_remove(position);
        if indexed && last != position {
            self.index_add(position);
        }
        if self.list.len() == SCAN_MAX {
            self.index = HashTable::new();
        }
        if self.list.capacity() > 32 && self.list.capacity() / 4 > self.list.len() {
            self.list.shrink_to(self.list.len() * 2);
            let list = &self.list;
            self.index.shrink_to(list.len() * 2, |i| hash(list[*i as usize].session));
        }
        gone
    }

    fn index_add(&mut self, position: usize) {
        let list = &self.list;
        let of = |i: &u32| hash(list[*i as usize].session);
        self.index.insert_unique(of(&(position as u32)), position as u32, of);
    }

    fn index_remove(&mut self, position: usize) {
        let h = hash(self.list[position].session);
        if let Ok(e) = self.index.find_entry(h, |i| *i as usize == position) {
            e.remove();
        }
    }
}
