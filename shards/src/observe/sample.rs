//! Which messages are followed, and which of those are kept.

use super::report::Trace;

/// The rate of followed messages is looked at once in so long, ns.
const WINDOW_NS: u64 = 100_000_000;
/// Messages followed in a window, at most about: 60 to 120 a second and shard. Each costs some 5 µs where a shard is
/// mostly idle and its notes have left the caches, and such a shard, too, is to spend no more than 2 % of its time on
/// notes (decision record 0021).
const PER_WINDOW: u32 = 12;

/// Chooses messages at random: one of `stride` on average.
#[derive(Debug)]
pub(super) struct Sampler {
    /// Messages until the next one is followed; 0 = none is.
    left: u32,
    stride: u32,
    taken: u32,
    window_ends_ns: u64,
    rng: u64,
}

impl Default for Sampler {
    fn default() -> Self {
        Self { left: 0, stride: 1, taken: 0, window_ends_ns: 0, rng: 0x2545_f491_4f6c_dd1d }
    }
}

impl Sampler {
    pub(super) fn switch(&mut self, on: bool) {
        self.left = u32::from(on);
    }

    /// Whether this message is followed.
    #[inline]
    pub(super) fn next(&mut self) -> bool {
        match self.left {
            0 => false,
            1 => true,
            _ => {
                self.left -= 1;
                false
            }
        }
    }

    /// A message is followed: when is the next one?
    pub(super) fn taken(&mut self, now_ns: u64) {
        self.taken += 1;
        if now_ns >= self.window_ends_ns {
            if self.taken < PER_WINDOW / 2 {
                self.stride = (self.stride / 2).max(1);
            }
            (self.taken, self.window_ends_ns) = (0, now_ns + WINDOW_NS);
        } else if self.taken >= PER_WINDOW {
            self.stride = self.stride.saturating_mul(2).min(1 << 20);
            self.taken = 0;
        }
        // On average `stride`, so that no rhythm of the traffic is missed or met always.
        self.left = 1 + self.random(self.stride * 2 - 1);
    }

    /// Below `below`, evenly enough.
    pub(super) fn random(&mut self, below: u32) -> u32 {
        self.rng ^= self.rng << 13;
        self.rng ^= self.rng >> 7;
        self.rng ^= self.rng << 17;
        (((self.rng >> 32) * u64::from(below)) >> 32) as u32
    }
}

/// The slowest that are kept between two reports.
const SLOWEST: usize = 32;
/// Others that are kept.
const OTHERS: usize = 256;

/// Messages whose way ended.
#[derive(Debug, Default)]
pub(super) struct Finished {
    slowest: Vec<Trace>,
    /// Below it a message is not among the slowest, ns.
    bar_ns: u64,
    others: Vec<Trace>,
    seen: u32,
    random: Sampler,
}

impl Finished {
    pub(super) fn add(&mut self, trace: &Trace) {
        let total = trace.total_ns();
        if self.slowest.len() < SLOWEST || total > self.bar_ns {
            let at = self.slowest.partition_point(|t| t.total_ns() >= total);
            self.slowest.insert(at, trace.clone());
            self.slowest.truncate(SLOWEST);
            self.bar_ns = self.slowest.last().map_or(0, Trace::total_ns);
        }
        self.seen = self.seen.saturating_add(1);
        if self.others.len() < OTHERS {
            self.others.push(trace.clone());
        } else if let Some(place) = self.others.get_mut(self.random.random(self.seen) as usize) {
            place.clone_from(trace);
        }
    }

    /// All, slowest first, and the others.
    pub(super) fn take(&mut self) -> (Vec<Trace>, Vec<Trace>) {
        (self.bar_ns, self.seen) = (0, 0);
        (std::mem::take(&mut self.slowest), std::mem::take(&mut self.others))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::observe::Stage;

    fn trace(total_ns: u64) -> Trace {
        let mut trace = Trace::default();
        trace.spans_ns[Stage::Send as usize] = total_ns;
        trace
    }

    /// Messages followed in the second second, of `rate` in each.
    fn followed(rate: u64) -> u64 {
        let mut sampler = Sampler::default();
        sampler.switch(true);
        let mut n = 0;
        for i in 0..rate * 2 {
            if sampler.next() {
                sampler.taken(i * 1_000_000_000 / rate);
                n += u64::from(i >= rate);
            }
        }
        n
    }

    #[test]
    fn few_messages_are_all_followed_and_many_are_some_hundreds_a_second() {
        assert_eq!(followed(50), 50);
        assert_eq!(followed(100), 100);
        for rate in [1_000, 5_000, 100_000, 3_000_000] {
            let n = followed(rate);
            assert!((75..750).contains(&n), "{n} of {rate}");
        }
    }

    #[test]
    fn nothing_is_followed_while_it_is_off() {
        let mut sampler = Sampler::default();
        assert!((0..1000).all(|_| !sampler.next()));
    }

    #[test]
    fn the_slowest_are_kept_however_many_others_there_are() {
        let mut finished = Finished::default();
        for i in 0..10_000 {
            finished.add(&trace(i * 7919 % 10_007));
        }
        let (slowest, others) = finished.take();
        let mut all: Vec<u64> = (0..10_000).map(|i| i * 7919 % 10_007).collect();
        all.sort_unstable_by(|a, b| b.cmp(a));
        let kept: Vec<u64> = slowest.iter().map(Trace::total_ns).collect();
        assert_eq!(kept, all[..SLOWEST]);
        assert_eq!(others.len(), OTHERS);
        let mean = others.iter().map(Trace::total_ns).sum::<u64>() / OTHERS as u64;
        assert!((4000..6000).contains(&mean), "a random choice has the mean of all, not {mean}");
        assert!(finished.take().0.is_empty());
    }
}
