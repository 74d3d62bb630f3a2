//! Where samples are written by signal handlers of several threads at once.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

/// Samples one behind the other: a header (thread, count, length), then addresses.
///
/// Invariant: a header other than 0 is written after its addresses; what has none is not there yet.
#[derive(Debug)]
pub(super) struct Arena {
    words: Vec<AtomicU64>,
    next: AtomicUsize,
    lost: AtomicU64,
}

/// One sample.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Sample<'a> {
    /// Thread.
    pub tid: i32,
    /// As many samples, at one place.
    pub count: u16,
    /// Innermost first.
    pub addresses: &'a [u64],
}

/// Most frames of a stack that are kept.
pub(super) const FRAMES_MAX: usize = 128;

impl Arena {
    /// With room for so many words.
    pub(super) fn new(words: usize) -> Self {
        let mut zeros = std::mem::ManuallyDrop::new(vec![0_u64; words]);
        // SAFETY: an AtomicU64 has the size, alignment and values of a u64, and the vector is not used any more. It is
        // worth it: zeros from the allocator are pages that nobody has touched, and need no memory until they are.
        let words = unsafe {
            Vec::from_raw_parts(zeros.as_mut_ptr().cast(), zeros.len(), zeros.capacity())
        };
        Self { words, next: AtomicUsize::new(0), lost: AtomicU64::new(0) }
    }

    /// Adds one. Takes no lock and no memory: may be called by a signal handler.
    pub(super) fn add(&self, tid: i32, count: u16, addresses: &[u64]) {
        let addresses = &addresses[..addresses.len().min(FRAMES_MAX)];
        let size = addresses.len() + 1;
        let full = |at: usize| at + size > self.words.len();
        // It never grows far beyond the end: whoever sees that it is full does not add.
        if full(self.next.load(Ordering::Relaxed)) {
            self.lost.fetch_add(u64::from(count), Ordering::Relaxed);
            return;
        }
        let at = self.next.fetch_add(size, Ordering::Relaxed);
        if full(at) {
            self.lost.fetch_add(u64::from(count), Ordering::Relaxed);
            return;
        }
        for (word, address) in self.words[at + 1..].iter().zip(addresses) {
            word.store(*address, Ordering::Relaxed);
        }
        let header = u64::from(tid as u32) << 32 | u64::from(count) << 16 | addresses.len() as u64;
        self.words[at].store(header, Ordering::Release);
    }

    /// Samples that found no room.
    pub(super) fn lost(&self) -> u64 {
        self.lost.load(Ordering::Relaxed)
    }

    /// All of them. Nobody adds any more.
    pub(super) fn samples(&self) -> impl Iterator<Item = Sample<'_>> {
        let mut at = 0;
        std::iter::from_fn(move || {
            let header = self.words.get(at)?.load(Ordering::Acquire);
            if header == 0 {
                return None;
            }
            let length = (header & 0xffff) as usize;
            let words = &self.words[at + 1..at + 1 + length];
            at += 1 + length;
            // SAFETY: an AtomicU64 has the representation of a u64, and nobody writes any more.
            let addresses = unsafe { std::slice::from_raw_parts(words.as_ptr().cast(), length) };
            Some(Sample { tid: (header >> 32) as i32, count: (header >> 16) as u16, addresses })
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_of_several_threads_come_out_whole() {
        let arena = Arena::new(100_000);
        std::thread::scope(|scope| {
            for tid in 1..5 {
                let arena = &arena;
                scope.spawn(move || {
                    for n in 0..1000_u64 {
                        let length = n as usize % 7;
                        arena.add(tid, 1, &vec![tid as u64 * 1000 + n; length]);
                    }
                });
            }
        });
        let mut seen = [0; 5];
        for sample in arena.samples() {
            seen[sample.tid as usize] += 1;
            let first = sample.addresses.first().copied().unwrap_or(0);
            assert!(sample.addresses.iter().all(|a| *a == first));
            assert!(first == 0 || first / 1000 == sample.tid as u64);
        }
        assert_eq!(seen, [0, 1000, 1000, 1000, 1000]);
        assert_eq!(arena.lost(), 0);
    }

    #[test]
    fn what_finds_no_room_is_counted_and_what_is_too_deep_is_cut() {
        let arena = Arena::new(FRAMES_MAX + 3);
        arena.add(7, 1, &[5; FRAMES_MAX + 50]);
        arena.add(7, 3, &[6]);
        arena.add(7, 2, &[6]);
        let lengths: Vec<usize> = arena.samples().map(|s| s.addresses.len()).collect();
        assert_eq!((lengths, arena.lost()), (vec![FRAMES_MAX, 1], 2));
    }
}
