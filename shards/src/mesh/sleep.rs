//! "Is the receiver asleep?", answered without losing a wake and without waking twice.

use std::sync::atomic::{AtomicBool, Ordering, fence};

/// The atomics that [`SleepFlag`] needs. A trait so that the model checker can put its own in.
pub trait FlagAtomic {
    /// A flag that says "awake".
    fn new_awake() -> Self;
    /// Relaxed store.
    fn store(&self, asleep: bool);
    /// Relaxed load.
    fn load(&self) -> bool;
    /// Relaxed swap.
    fn swap(&self, asleep: bool) -> bool;
    /// Sequentially consistent fence.
    fn fence_seq_cst();
}

impl FlagAtomic for AtomicBool {
    fn new_awake() -> Self {
        Self::new(false)
    }
    fn store(&self, asleep: bool) {
        AtomicBool::store(self, asleep, Ordering::Relaxed);
    }
    fn load(&self) -> bool {
        AtomicBool::load(self, Ordering::Relaxed)
    }
    fn swap(&self, asleep: bool) -> bool {
        AtomicBool::swap(self, asleep, Ordering::Relaxed)
    }
    fn fence_seq_cst() {
        fence(Ordering::SeqCst);
    }
}

/// Lives on: the mailbox of a shard; the owner writes it, senders look at it.
///
/// Invariant: if an item was pushed and the owner went to sleep without seeing it, then the pusher
/// sees `true` and owes a wake. It is Dekker's pattern: each side writes its own word, passes a
/// sequentially consistent fence, and reads the other's; both cannot miss. The fences suffice
/// whatever the queue's own memory order is (`sleep::tests` checks this with relaxed words).
#[derive(Debug)]
pub struct SleepFlag<A = AtomicBool> {
    asleep: A,
}

impl<A: FlagAtomic> Default for SleepFlag<A> {
    fn default() -> Self {
        Self { asleep: A::new_awake() }
    }
}

impl<A: FlagAtomic> SleepFlag<A> {
    /// Owner: announces sleep. After this, look at every queue once more; sleep only if all are
    /// empty, and call [`wake_up`](Self::wake_up) afterwards either way.
    pub fn announce(&self) {
        self.asleep.store(true);
        A::fence_seq_cst();
    }

    /// Owner: awake again.
    pub fn wake_up(&self) {
        self.asleep.store(false);
    }

    /// Sender, after pushing: whether this sender must wake the owner. At most one sender is told
    /// so for each sleep.
    #[must_use]
    pub fn must_wake(&self) -> bool {
        A::fence_seq_cst();
        self.asleep.load() && self.asleep.swap(false)
    }
}

#[cfg(test)]
mod tests {
    use loom::sync::Arc;
    use loom::sync::atomic::{AtomicBool, AtomicUsize, Ordering, fence};

    use super::*;

    impl FlagAtomic for AtomicBool {
        fn new_awake() -> Self {
            Self::new(false)
        }
        fn store(&self, asleep: bool) {
            AtomicBool::store(self, asleep, Ordering::Relaxed);
        }
        fn load(&self) -> bool {
            AtomicBool::load(self, Ordering::Relaxed)
        }
        fn swap(&self, asleep: bool) -> bool {
            AtomicBool::swap(self, asleep, Ordering::Relaxed)
        }
        fn fence_seq_cst() {
            fence(Ordering::SeqCst);
        }
    }

    struct World {
        flag: SleepFlag<AtomicBool>,
        queue: AtomicUsize, // items pushed; relaxed, weaker than any real queue
        wakes: AtomicUsize,
    }

    fn world() -> Arc<World> {
        Arc::new(World {
            flag: SleepFlag::default(),
            queue: AtomicUsize::new(0),
            wakes: AtomicUsize::new(0),
        })
    }

    fn send(w: &World) {
        w.queue.fetch_add(1, Ordering::Relaxed);
        if w.flag.must_wake() {
            w.wakes.fetch_add(1, Ordering::Relaxed);
        }
    }

    #[test]
    fn an_owner_that_sleeps_on_a_filled_queue_is_always_owed_a_wake() {
        loom::model(|| {
            let w = world();
            let sender = {
                let w = Arc::clone(&w);
                loom::thread::spawn(move || send(&w))
            };
            w.flag.announce();
            let sleeps = w.queue.load(Ordering::Relaxed) == 0;
            sender.join().unwrap();
            if sleeps {
                assert_eq!(w.wakes.load(Ordering::Relaxed), 1, "lost wake");
            }
        });
    }

    #[test]
    fn two_senders_wake_one_sleep_once() {
        loom::model(|| {
            let w = world();
            let senders: Vec<_> = (0..2)
                .map(|_| {
                    let w = Arc::clone(&w);
                    loom::thread::spawn(move || send(&w))
                })
                .collect();
            w.flag.announce();
            let sleeps = w.queue.load(Ordering::Relaxed) == 0;
            for s in senders {
                s.join().unwrap();
            }
            let wakes = w.wakes.load(Ordering::Relaxed);
            assert!(wakes <= 1, "{wakes} wakes for one sleep");
            assert!(!sleeps || wakes == 1, "lost wake");
        });
    }
}
