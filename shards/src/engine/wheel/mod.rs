//! Hierarchical timer wheel.
//!
//! Eight wheels of 64 slots; a slot of wheel n spans 64^n ms. A timer lies in the wheel of the
//! highest 6-bit digit in which its deadline differs from the wheel's clock, so in wheel 0 all timers
//! of a slot are due in the same millisecond. When the clock reaches a slot of a higher wheel, its
//! timers are dealt to lower ones. A bitmap per wheel finds the next slot in use.
//!
//! Decision record 0012 has the measurements.

#[cfg(test)]
mod tests;

use std::num::NonZeroU64;

/// A timer that was inserted. Recognised as stale once it fired or was cancelled, until its slot was
/// used another 65,536 times. Never zero, so that an `Option` of it takes no more room: a
/// bit that is always set, then the slot, then the generation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct TimerId(NonZeroU64);

const _: () = assert!(size_of::<Option<TimerId>>() == 8);

impl TimerId {
    fn new(index: u32, generation: u64) -> Self {
        Self(NonZeroU64::MIN | (generation << 33 | u64::from(index) << 1))
    }

    fn index(self) -> u32 {
        (self.0.get() >> 1) as u32
    }

    fn generation(self) -> u64 {
        self.0.get() >> 33
    }
}

const BITS: u32 = 6;
const SLOTS: usize = 1 << BITS;
const WHEELS: usize = 8;
const NONE: u32 = u32::MAX;
/// Clock and deadlines have 48 bits.
const TIME_MAX: u64 = (1 << (BITS * WHEELS as u32)) - 1;
/// Timers dealt to lower wheels in one `advance`, beyond those that fire: 20 ns each.
const DEAL_MAX: usize = 4096;
const CHUNK: usize = 256;
/// Head of the list of timers that were due when inserted.
const DUE: usize = WHEELS * SLOTS;

/// Deadline 48 | generation 16 (in two halves, so that a key of four bytes needs no padding), key, and
/// neighbours in the slot's list. `prev` of the first is `HEAD | list`; of a free one, [`NONE`].
#[derive(Clone, Copy, Debug)]
struct Timer<K> {
    deadline_gen: [u32; 2],
    key: K,
    next: u32,
    prev: u32,
}

const HEAD: u32 = 1 << 31;
/// Timers at most: half of the numbers are list heads.
const TIMERS_MAX: usize = HEAD as usize - 1;

const _: () = assert!(size_of::<Timer<u32>>() == 20, "each connection has one");

impl<K> Timer<K> {
    fn deadline(&self) -> u64 {
        (u64::from(self.deadline_gen[1]) << 32 | u64::from(self.deadline_gen[0])) >> 16
    }

    fn generation(&self) -> u16 {
        self.deadline_gen[0] as u16
    }

    fn set(&mut self, deadline: u64, generation: u16) {
        let word = deadline << 16 | u64::from(generation);
        self.deadline_gen = [word as u32, (word >> 32) as u32];
    }
}

/// Fires keys at deadlines of 1 ms resolution. Lives on: each shard.
#[derive(Debug)]
pub struct Wheel<K> {
    /// All timers with deadlines before this have fired or are in the list [`DUE`].
    clock: u64,
    heads: Box<[u32; DUE + 1]>,
    used: [u64; WHEELS],
    /// The slot of a higher wheel, begun by the clock, that is not dealt out yet.
    dealing: Option<usize>,
    chunks: Vec<Vec<Timer<K>>>,
    free: u32,
    len: usize,
}

impl<K: Copy> Wheel<K> {
    /// An empty wheel whose clock stands at `now_ms`.
    #[must_use]
    pub fn new(now_ms: u64) -> Self {
        Self {
            clock: now_ms.min(TIME_MAX),
            heads: Box::new([NONE; DUE + 1]),
            used: [0; WHEELS],
            dealing: None,
            chunks: Vec::new(),
            free: NONE,
            len: 0,
        }
    }

    /// Fires `key` in the first [`advance`](Self::advance) whose `now_ms` is at least `deadline_ms`.
    /// Deadlines beyond 2^48 ms (8,900 years) are brought down to that.
    pub fn insert(&mut self, deadline_ms: u64, key: K) -> TimerId {
        let deadline = deadline_ms.min(TIME_MAX);
        let index = self.allocate(key);
        let timer = self.at_mut(index);
        let generation = timer.generation();
        timer.set(deadline, generation);
        self.link(index, deadline);
        self.len += 1;
        TimerId::new(index, u64::from(generation))
    }

    /// Returns the key if the timer had not fired. O(1).
    pub fn cancel(&mut self, timer: TimerId) -> Option<K> {
        let index = timer.index();
        let t = self.chunks.get(index as usize / CHUNK)?.get(index as usize % CHUNK)?;
        if t.prev == NONE || u64::from(t.generation()) != timer.generation() {
            return None;
        }
        Some(self.take(index))
    }

    /// Appends the keys of due timers, earlier deadlines first, at most `max` (≥ 1); does a bounded
    /// amount of work. Returns whether more is to be done at `now_ms`. A `now_ms` that goes back does
    /// nothing.
    pub fn advance(&mut self, now_ms: u64, max: usize, out: &mut Vec<K>) -> bool {
        let now = now_ms.min(TIME_MAX);
        let (mut fire, mut deal) = (max.max(1), DEAL_MAX);
        loop {
            if self.dealing.is_some_and(|list| !self.deal(list, &mut deal))
                || !self.fire(DUE, &mut fire, out)
            {
                return true;
            }
            let Some((wheel, slot, start)) = self.next_slot().filter(|(_, _, s)| *s <= now) else {
                self.clock = self.clock.max(now);
                return false;
            };
            // Everything before `start` is gone, so the clock can stand there.
            self.clock = start;
            let list = wheel * SLOTS + slot;
            if wheel > 0 {
                self.dealing = Some(list);
            } else if !self.fire(list, &mut fire, out) {
                return true;
            }
        }
    }

    /// Fires a list; false if `left` did not suffice.
    fn fire(&mut self, list: usize, left: &mut usize, out: &mut Vec<K>) -> bool {
        while self.heads[list] != NONE {
            if *left == 0 {
                return false;
            }
            *left -= 1;
            let key = self.take(self.heads[list]);
            out.push(key);
        }
        true
    }

    /// Deals a slot of a higher wheel to lower ones; false if `left` did not suffice.
    fn deal(&mut self, list: usize, left: &mut usize) -> bool {
        while self.heads[list] != NONE {
            if *left == 0 {
                return false;
            }
            *left -= 1;
            let index = self.heads[list];
            self.unlink(index);
            self.link(index, self.at(index).deadline());
        }
        self.dealing = None;
        true
    }

    /// When to call [`advance`](Self::advance) next: never later than the earliest deadline, maybe
    /// earlier. `None` when there is no timer.
    #[must_use]
    pub fn next_deadline(&self) -> Option<u64> {
        if self.heads[DUE] != NONE || self.dealing.is_some() {
            return Some(self.clock);
        }
        self.next_slot().map(|(_, _, start)| start)
    }

    /// Timers pending.
    #[must_use]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether no timer is pending.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Bytes held.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.chunks.len() * CHUNK * size_of::<Timer<K>>()
            + self.chunks.capacity() * size_of::<Vec<Timer<K>>>()
            + size_of_val(&*self.heads)
    }

    /// The earliest slot in use: wheel, slot, and when it starts. In a lower wheel it is always
    /// earlier than in a higher one, whose slot at the clock was dealt out.
    fn next_slot(&self) -> Option<(usize, usize, u64)> {
        (0..WHEELS).find_map(|wheel| {
            let shift = BITS * wheel as u32;
            let digit = (self.clock >> shift) as usize & (SLOTS - 1);
            let ahead = self.used[wheel] & (u64::MAX << digit);
            if ahead == 0 {
                return None;
            }
            let slot = ahead.trailing_zeros() as usize;
            let above = self.clock >> shift >> BITS << BITS;
            let start = (above | slot as u64) << shift;
            Some((wheel, slot, start.max(self.clock)))
        })
    }

    fn link(&mut self, index: u32, deadline: u64) {
        let list = if deadline < self.clock {
            DUE
        } else {
            let differs = (deadline ^ self.clock) | 1;
            let wheel = (differs.ilog2() / BITS) as usize;
            let slot = (deadline >> (BITS * wheel as u32)) as usize & (SLOTS - 1);
            self.used[wheel] |= 1 << slot;
            wheel * SLOTS + slot
        };
        let next = std::mem::replace(&mut self.heads[list], index);
        if next != NONE {
            self.at_mut(next).prev = index;
        }
        let timer = self.at_mut(index);
        timer.next = next;
        timer.prev = HEAD | list as u32;
    }

    fn unlink(&mut self, index: u32) {
        let Timer { next, prev, .. } = *self.at(index);
        if next != NONE {
            self.at_mut(next).prev = prev;
        }
        if prev & HEAD == 0 {
            self.at_mut(prev).next = next;
            return;
        }
        let list = (prev & !HEAD) as usize;
        self.heads[list] = next;
        if next == NONE && list != DUE {
            self.used[list / SLOTS] &= !(1 << (list % SLOTS));
        }
    }

    /// Unlinks and frees.
    fn take(&mut self, index: u32) -> K {
        self.unlink(index);
        let free = std::mem::replace(&mut self.free, index);
        self.len -= 1;
        let timer = self.at_mut(index);
        let generation = timer.generation().wrapping_add(1);
        timer.set(0, generation);
        timer.prev = NONE;
        timer.next = free;
        timer.key
    }

    fn allocate(&mut self, key: K) -> u32 {
        if self.free != NONE {
            let index = self.free;
            let timer = self.at_mut(index);
            timer.key = key;
            self.free = timer.next;
            return index;
        }
        if self.chunks.last().is_none_or(|c| c.len() == CHUNK) {
            assert!(self.chunks.len() * CHUNK < TIMERS_MAX - CHUNK, "2^31 timers");
            self.chunks.push(Vec::with_capacity(CHUNK));
        }
        let chunk = self.chunks.len() - 1;
        self.chunks[chunk].push(Timer { deadline_gen: [0; 2], key, next: NONE, prev: NONE });
        (chunk * CHUNK + self.chunks[chunk].len() - 1) as u32
    }

    fn at(&self, index: u32) -> &Timer<K> {
        &self.chunks[index as usize / CHUNK][index as usize % CHUNK]
    }

    fn at_mut(&mut self, index: u32) -> &mut Timer<K> {
        &mut self.chunks[index as usize / CHUNK][index as usize % CHUNK]
    }
}
