//! When the messages of an open loop are due.

use crate::size::unit;

/// The messages of one population's clients on one worker, in the order in which they are due.
///
/// A fixed interval deals the publishers' messages out evenly: message `k` of all publishers of all
/// workers is due `k × interval / publishers` after the start. A Poisson process needs no dealing:
/// each worker's share is one of its own, and each message comes from a publisher chosen at random.
#[derive(Clone, Debug)]
pub(crate) struct Schedule {
    start_ns: u64,
    interval_ns: u64,
    /// Publishers of this worker, and of all.
    count: u32,
    total: u32,
    /// Which of the publishers of all are this worker's: `index`, `index + workers`…
    index: u32,
    workers: u32,
    kind: Kind,
}

#[derive(Clone, Debug)]
enum Kind {
    /// The number of the next message.
    Fixed(u64),
    /// When the next message is due, in ns after the start, and the state of the randomness.
    Poisson { offset_ns: f64, random: u64 },
}

/// Who publishes a population's messages.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Publishers {
    /// On this worker; at least 1.
    pub(crate) count: u32,
    /// On all workers.
    pub(crate) total: u32,
    /// This worker.
    pub(crate) index: u32,
    pub(crate) workers: u32,
}

impl Schedule {
    /// Messages evenly apart.
    pub(crate) fn fixed(start_ns: u64, interval_ns: u64, of: Publishers) -> Self {
        Self::new(start_ns, interval_ns, of, Kind::Fixed(0))
    }

    /// Messages that are independent of each other.
    pub(crate) fn poisson(start_ns: u64, interval_ns: u64, of: Publishers, seed: u64) -> Self {
        let mut s =
            Self::new(start_ns, interval_ns, of, Kind::Poisson { offset_ns: 0.0, random: seed });
        s.step();
        s
    }

    fn new(start_ns: u64, interval_ns: u64, of: Publishers, kind: Kind) -> Self {
        let Publishers { count, total, index, workers } = of;
        Self { start_ns, interval_ns: interval_ns.max(1), count, total, index, workers, kind }
    }

    /// When the next message is due, in ns of CLOCK_MONOTONIC.
    pub(crate) fn due_ns(&self) -> u64 {
        let offset = match self.kind {
            Kind::Fixed(k) => {
                let (round, nth) = (k / u64::from(self.count), k % u64::from(self.count));
                let of_all = u128::from(round) * u128::from(self.total)
                    + u128::from(nth) * u128::from(self.workers)
                    + u128::from(self.index);
                (of_all * u128::from(self.interval_ns) / u128::from(self.total)) as u64
            }
            Kind::Poisson { offset_ns, .. } => offset_ns as u64,
        };
        self.start_ns + offset
    }

    /// The next message if it is due by `now_ns`: its publisher among this worker's, and when it
    /// was due.
    pub(crate) fn next_due(&mut self, now_ns: u64) -> Option<(u32, u64)> {
        let due = self.due_ns();
        if due > now_ns {
            return None;
        }
        let nth = match &mut self.kind {
            Kind::Fixed(k) => (*k % u64::from(self.count)) as u32,
            Kind::Poisson { random, .. } => {
                let unit = draw(random);
                ((unit * f64::from(self.count)) as u32).min(self.count - 1)
            }
        };
        self.step();
        Some((nth, due))
    }

    fn step(&mut self) {
        match &mut self.kind {
            Kind::Fixed(k) => *k += 1,
            Kind::Poisson { offset_ns, random } => {
                let mean = self.interval_ns as f64 / f64::from(self.count);
                *offset_ns -= draw(random).ln() * mean;
            }
        }
    }
}

fn draw(random: &mut u64) -> f64 {
    *random = random.wrapping_add(0x9E37_79B9_7F4A_7C15);
    unit(*random)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(index: u32, workers: u32, total: u32) -> Publishers {
        let count = crate::worker::share(total, workers as usize, index as usize);
        Publishers { count, total, index, workers }
    }

    #[test]
    fn the_messages_of_all_workers_together_are_evenly_apart() {
        let mut due = Vec::new();
        for index in 0..2 {
            let mut s = Schedule::fixed(1000, 500, of(index, 2, 5));
            while let Some((nth, at)) = s.next_due(1999) {
                due.push((at, nth * 2 + index));
            }
        }
        due.sort_unstable();
        let expected: Vec<_> = (0..10).map(|k| (1000 + 100 * k, (k % 5) as u32)).collect();
        assert_eq!(due, expected);
    }

    #[test]
    fn what_was_due_while_nobody_looked_is_due_at_its_own_time() {
        let mut s = Schedule::fixed(0, 10, of(0, 1, 1));
        assert_eq!(s.next_due(25), Some((0, 0)));
        assert_eq!(s.next_due(25), Some((0, 10)));
        assert_eq!(s.next_due(25), Some((0, 20)));
        assert_eq!(s.next_due(25), None);
        assert_eq!(s.due_ns(), 30);
    }

    #[test]
    fn a_long_schedule_does_not_drift() {
        let mut s = Schedule::fixed(0, 1_000_000_007, of(0, 1, 3));
        let mut last = 0;
        for _ in 0..3_000_000u64 {
            last = s.next_due(u64::MAX).unwrap().1;
        }
        assert_eq!(last, 2_999_999 * 1_000_000_007 / 3);
    }

    #[test]
    fn a_poisson_process_has_its_mean_and_its_variance_and_its_seed() {
        let times = |seed| {
            let mut s = Schedule::poisson(0, 100_000, of(0, 1, 10), seed);
            (0..20_000).map(|_| s.next_due(u64::MAX).unwrap().1).collect::<Vec<_>>()
        };
        let a = times(7);
        let gaps: Vec<f64> = a.windows(2).map(|w| (w[1] - w[0]) as f64).collect();
        let mean = gaps.iter().sum::<f64>() / gaps.len() as f64;
        let variance = gaps.iter().map(|g| (g - mean).powi(2)).sum::<f64>() / gaps.len() as f64;
        assert!((mean - 10_000.0).abs() < 300.0, "{mean}");
        // Of an exponential distribution mean and deviation are the same.
        assert!((variance.sqrt() / mean - 1.0).abs() < 0.05, "{}", variance.sqrt() / mean);
        assert_eq!(a, times(7));
        assert_ne!(a, times(8));
    }
}
