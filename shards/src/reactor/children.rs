//! The rings of a shard beside its main one: which of them are looked at, and how the others call.
//!
//! A shard sleeps in its main ring. Each further ring has an eventfd that the main ring polls, and the
//! kernel signals it whenever the ring has completions or work to run. While the shard is awake that is a
//! nuisance: what it does itself completes, signals, and wakes it once more, for a read of the eventfd and
//! another turn. So from the first look at a ring to the next sleep the ring is *hot*: it does not signal,
//! and is looked at in each turn. All others are cold, and cost nothing.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::sync::atomic::{Ordering, fence};

use super::ring::Ring;

/// What a shard keeps about one of these rings.
struct Child {
    /// What it signals.
    signal: OwnedFd,
    /// Its number is in `hot`, and its signal is off.
    hot: bool,
    /// It signalled since it was last entered.
    due: bool,
}

/// Lives on: its shard. Rings are named by their number; the main one, 0, is none of these.
pub(super) struct Children {
    all: Vec<Child>,
    hot: Vec<u16>,
}

impl Children {
    /// With the eventfds of the rings from number 1 on.
    pub(super) fn new(signals: Vec<OwnedFd>) -> Self {
        let child = |signal| Child { signal, hot: false, due: false };
        Self { all: signals.into_iter().map(child).collect(), hot: Vec::new() }
    }

    /// The eventfd of a ring.
    pub(super) fn signal(&self, ring: usize) -> RawFd {
        self.all[ring - 1].signal.as_raw_fd()
    }

    /// A ring signalled.
    pub(super) fn signalled(&mut self, ring: usize, rings: &[Ring]) {
        self.all[ring - 1].due = true;
        self.heat(ring, rings);
    }

    /// The ring gets something to do.
    #[inline]
    pub(super) fn heat(&mut self, ring: usize, rings: &[Ring]) {
        if ring == 0 || self.all[ring - 1].hot {
            return;
        }
        self.all[ring - 1].hot = true;
        rings[ring].set_signals(false);
        self.hot.push(ring as u16);
    }

    /// How many rings are hot.
    pub(super) fn hot(&self) -> usize {
        self.hot.len()
    }

    /// A hot ring, by its place among them: they change places from turn to turn, so that none starves
    /// behind the others.
    pub(super) fn nth_hot(&self, nth: usize) -> usize {
        usize::from(self.hot[nth])
    }

    /// The rings change places.
    pub(super) fn rotate(&mut self) {
        if self.hot.len() > 1 {
            self.hot.rotate_left(1);
        }
    }

    /// The next ring to enter from place `nth` on among the hot ones, and its place.
    pub(super) fn next_to_enter(
        &mut self,
        nth: usize,
        rings: &mut [Ring],
    ) -> Option<(usize, usize)> {
        for nth in nth..self.hot.len() {
            let ring = self.nth_hot(nth);
            if std::mem::take(&mut self.all[ring - 1].due) || rings[ring].wants_enter() {
                return Some((nth, ring));
            }
        }
        None
    }

    /// Before a sleep: lets all rings signal again. Whether one has something to do already; such a
    /// ring stays hot.
    ///
    /// # Errors
    ///
    /// When the kernel refuses to enter a ring.
    pub(super) fn cool(&mut self, rings: &mut [Ring]) -> io::Result<bool> {
        if self.hot.is_empty() {
            return Ok(false);
        }
        self.hot.iter().for_each(|ring| rings[usize::from(*ring)].set_signals(true));
        // What the kernel adds after this it signals; what it added before is seen below.
        fence(Ordering::SeqCst);
        let mut still = 0;
        for nth in 0..self.hot.len() {
            let ring = self.nth_hot(nth);
            let busy = rings[ring].has_work_now()?;
            self.all[ring - 1].hot = busy;
            if busy {
                rings[ring].set_signals(false);
                self.hot[still] = ring as u16;
                still += 1;
            }
        }
        self.hot.truncate(still);
        Ok(still > 0)
    }
}
