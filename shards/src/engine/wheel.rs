//! Hierarchical timer wheel.

use std::marker::PhantomData;

/// A timer that was inserted. Recognised as stale once it fired or was cancelled.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct TimerId(u64);

/// Lives on: each shard.
#[derive(Debug)]
pub struct Wheel<K> {
    k: PhantomData<K>,
}

impl<K: Copy> Wheel<K> {
    /// An empty wheel whose clock stands at `now_ms`.
    #[must_use]
    pub fn new(now_ms: u64) -> Self {
        let _ = now_ms;
        Self { k: PhantomData }
    }

    /// Fires `key` in the first [`advance`](Self::advance) whose `now_ms` is at least `deadline_ms`.
    /// Deadlines farther than 2^47 ms (4,400 years) are brought down to that.
    pub fn insert(&mut self, deadline_ms: u64, key: K) -> TimerId {
        let _ = (deadline_ms, key);
        unimplemented!()
    }

    /// Returns the key if the timer had not fired.
    pub fn cancel(&mut self, timer: TimerId) -> Option<K> {
        let _ = timer;
        unimplemented!()
    }

    /// Appends the keys of due timers, earlier deadlines first, at most `max`; does a bounded amount
    /// of work. Returns whether more is to be done at `now_ms`.
    pub fn advance(&mut self, now_ms: u64, max: usize, out: &mut Vec<K>) -> bool {
        let _ = (now_ms, max, out);
        unimplemented!()
    }

    /// When to call [`advance`](Self::advance) next: never later than the earliest deadline, maybe
    /// earlier. `None` when there is no timer.
    #[must_use]
    pub fn next_deadline(&self) -> Option<u64> {
        unimplemented!()
    }

    /// Timers pending.
    #[must_use]
    pub fn len(&self) -> usize {
        0
    }

    /// Whether no timer is pending.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Bytes held.
    #[must_use]
    pub fn bytes(&self) -> usize {
        0
    }
}
