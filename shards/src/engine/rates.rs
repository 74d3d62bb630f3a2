//! Rates: so many in so long, with a burst. (L01, L02)
//!
//! In the form of GCRA: all that is kept of a rate is the time at which everything counted so far would have come
//! at an even pace. So a rate is looked at for each message, costs eight bytes, and needs no timer.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};

/// A turn of the loop sees all that came since the last one at the same time, and timers have a grain of a
/// millisecond: a burst below this would cut rates above some thousand a second.
const GRAIN_NS: u64 = 2_000_000;
/// Longest that somebody is made to wait, ns: what is further ahead is not booked.
const WAIT_MAX_NS: u64 = 3600 * 1_000_000_000;

/// So many in so long. The default is no limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rate {
    /// How many; 0 = no limit.
    pub count: u64,
    /// In how many ns; 1 or more where there is a limit.
    pub per_ns: u64,
    /// How many at once after a time without any; 1 or more where there is a limit.
    pub burst: u64,
}

impl Rate {
    /// `count` in `per_ns`, and as many at once.
    #[must_use]
    pub const fn new(count: u64, per_ns: u64) -> Self {
        Self { count, per_ns, burst: count }
    }

    /// Whether there is a limit.
    #[must_use]
    pub const fn is_limit(self) -> bool {
        self.count != 0
    }

    /// The time of so many at an even pace, ns.
    fn span_ns(self, n: u64) -> u64 {
        let ns = u128::from(n) * u128::from(self.per_ns) / u128::from(self.count.max(1));
        u64::try_from(ns).unwrap_or(u64::MAX)
    }

    /// What the state becomes when `n` more are counted, and how long they have to wait, ns.
    ///
    /// More than a burst at once has to wait until nothing is owed, since it could never pass otherwise.
    fn add(self, state_ns: u64, n: u64, now_ns: u64) -> (u64, u64) {
        let owed_until = state_ns.max(now_ns);
        let span = self.span_ns(n);
        let next = owed_until.saturating_add(span);
        let burst = self.span_ns(self.burst).max(GRAIN_NS.saturating_add(span));
        let may_at = next.saturating_sub(burst).min(owed_until);
        (next, may_at.saturating_sub(now_ns))
    }
}

impl fmt::Display for Rate {
    /// As the configuration has it: `10/1m`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.is_limit() {
            return f.write_str("0");
        }
        let ms = self.per_ns / 1_000_000;
        match ms {
            1000 => write!(f, "{}/s", self.count)?,
            _ if ms.is_multiple_of(3_600_000) => write!(f, "{}/{}h", self.count, ms / 3_600_000)?,
            _ if ms.is_multiple_of(60_000) => write!(f, "{}/{}m", self.count, ms / 60_000)?,
            _ if ms.is_multiple_of(1000) => write!(f, "{}/{}s", self.count, ms / 1000)?,
            _ => write!(f, "{}/{ms}ms", self.count)?,
        }
        if self.burst != self.count { write!(f, " burst {}", self.burst) } else { Ok(()) }
    }
}

/// The rates of a client, of all clients of a listener, or of the node.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rates {
    /// PUBLISH packets of clients.
    pub messages: Rate,
    /// Bytes of these packets.
    pub bytes: Rate,
    /// Filters in SUBSCRIBE packets.
    pub subscribes: Rate,
    /// PUBLISH packets to clients.
    pub deliveries: Rate,
    /// Topic and payload bytes in these packets.
    pub delivery_bytes: Rate,
}

impl Rates {
    fn all(&self) -> [Rate; KINDS] {
        [self.messages, self.bytes, self.subscribes, self.deliveries, self.delivery_bytes]
    }

    /// Whether anything has a limit.
    #[must_use]
    pub fn limit_any(&self) -> bool {
        self.limit_input() || self.limit_output()
    }

    /// Whether one of what clients send has a limit.
    #[must_use]
    pub fn limit_input(&self) -> bool {
        self.messages.is_limit() || self.bytes.is_limit() || self.subscribes.is_limit()
    }

    /// Whether one of what clients are sent has a limit.
    #[must_use]
    pub fn limit_output(&self) -> bool {
        self.deliveries.is_limit() || self.delivery_bytes.is_limit()
    }
}

/// Kinds of rates in [`Rates`].
const KINDS: usize = 5;

/// What is counted at once, by kind as in [`Rates`].
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Spent([u64; KINDS]);

impl Spent {
    /// A PUBLISH of a client.
    pub(crate) fn message(bytes: u64) -> Self {
        Self([1, bytes, 0, 0, 0])
    }

    /// Filters in a SUBSCRIBE.
    pub(crate) fn subscribes(filters: u64) -> Self {
        Self([0, 0, filters, 0, 0])
    }

    /// A PUBLISH to a client.
    pub(crate) fn delivery(bytes: u64) -> Self {
        Self([0, 0, 0, 1, bytes])
    }
}

/// What to do about something that comes faster than it may.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Over {
    /// It has its place in the order, and waits until then.
    Wait,
    /// It is not counted.
    Refuse,
}

/// Where the rates of one client stand. Lives on: the shard that has the connection.
#[derive(Debug, Default)]
pub(crate) struct Meter([u64; KINDS]);

impl Meter {
    /// Counts; how long to wait, ns. With [`Over::Refuse`] nothing is counted unless that is 0.
    pub(crate) fn spend(&mut self, rates: &Rates, spent: Spent, now_ns: u64, over: Over) -> u64 {
        let mut next = self.0;
        let mut wait_ns = 0;
        for (kind, rate) in rates.all().into_iter().enumerate() {
            if rate.is_limit() && spent.0[kind] > 0 {
                let (state, wait) = rate.add(next[kind], spent.0[kind], now_ns);
                next[kind] = state;
                wait_ns = wait_ns.max(wait);
            }
        }
        if wait_ns == 0 || (over == Over::Wait && wait_ns <= WAIT_MAX_NS) {
            self.0 = next;
        }
        wait_ns.min(WAIT_MAX_NS)
    }

    /// Takes back what was counted.
    pub(crate) fn give_back(&mut self, rates: &Rates, spent: Spent) {
        for (kind, rate) in rates.all().into_iter().enumerate() {
            if rate.is_limit() {
                self.0[kind] = self.0[kind].saturating_sub(rate.span_ns(spent.0[kind]));
            }
        }
    }
}

/// Where the rates of a listener or the node stand. Lives on: all shards.
#[derive(Debug, Default)]
pub(crate) struct SharedMeter([AtomicU64; KINDS]);

impl SharedMeter {
    /// As [`Meter::spend`]. Of several kinds each is counted by itself; what was counted before one had no room
    /// is taken back.
    pub(crate) fn spend(&self, rates: &Rates, spent: Spent, now_ns: u64, over: Over) -> u64 {
        let mut wait_ns = 0;
        for (kind, rate) in rates.all().into_iter().enumerate() {
            if !rate.is_limit() || spent.0[kind] == 0 {
                continue;
            }
            let mut wait = 0;
            let counted =
                self.0[kind].fetch_update(Ordering::Relaxed, Ordering::Relaxed, |state| {
                    let next;
                    (next, wait) = rate.add(state, spent.0[kind], now_ns);
                    (wait == 0 || (over == Over::Wait && wait <= WAIT_MAX_NS)).then_some(next)
                });
            wait_ns = wait_ns.max(wait);
            if counted.is_err() && over == Over::Refuse {
                let mut before = spent;
                before.0[kind..].fill(0);
                self.give_back(rates, before);
                break;
            }
        }
        wait_ns.min(WAIT_MAX_NS)
    }

    /// Takes back what was counted.
    pub(crate) fn give_back(&self, rates: &Rates, spent: Spent) {
        for (kind, rate) in rates.all().into_iter().enumerate() {
            if rate.is_limit() && spent.0[kind] > 0 {
                self.0[kind].fetch_sub(rate.span_ns(spent.0[kind]), Ordering::Relaxed);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;

    fn messages(rate: Rate) -> Rates {
        Rates { messages: rate, ..Rates::default() }
    }

    /// How many of those offered every `every_ns` from `start` on pass until `end`.
    fn passed(meter: &mut Meter, rate: Rate, every_ns: u64, start: u64, end: u64) -> u64 {
        let offers = (start..end).step_by(every_ns as usize);
        let passes =
            |now: &u64| meter.spend(&messages(rate), Spent::message(1), *now, Over::Refuse) == 0;
        offers.filter(passes).count() as u64
    }

    #[test]
    fn ten_a_minute_are_ten_whether_they_come_at_once_or_not() {
        // L02
        let rate = Rate::new(10, 60 * SECOND);
        let mut meter = Meter::default();
        let start = 1000 * SECOND;
        assert_eq!(passed(&mut meter, rate, 1_000, start, start + 1_000_000), 10);
        assert_eq!(passed(&mut meter, rate, SECOND, start + SECOND, start + 60 * SECOND), 9);
    }

    #[test]
    fn of_ten_times_the_rate_the_rate_passes() {
        // L01
        for (count, every_ns) in [(100, 1_000_000), (10_000, 10_000)] {
            let rate = Rate { count, per_ns: SECOND, burst: 1 };
            let mut meter = Meter::default();
            let n = passed(&mut meter, rate, every_ns, 5 * SECOND, 65 * SECOND);
            let wanted = count * 60;
            assert!(n.abs_diff(wanted) <= wanted / 50, "{n} of {wanted}");
        }
    }

    #[test]
    fn who_waits_has_a_place_in_the_order() {
        // L01
        let rate = Rate::new(10, SECOND);
        let mut meter = Meter::default();
        let waits: Vec<u64> = (0..30)
            .map(|_| meter.spend(&messages(rate), Spent::message(1), SECOND, Over::Wait))
            .collect();
        assert!(waits[..10].iter().all(|wait| *wait == 0));
        assert_eq!(waits[10], SECOND / 10);
        assert_eq!(waits[29], 2 * SECOND);
    }

    #[test]
    fn more_than_a_burst_at_once_passes_when_nothing_is_owed() {
        let rates = Rates { bytes: Rate::new(1000, SECOND), ..Rates::default() };
        let mut meter = Meter::default();
        let mut send = |now| meter.spend(&rates, Spent::message(5000), now, Over::Refuse);
        assert_eq!(send(SECOND), 0);
        assert_eq!(send(2 * SECOND), 4 * SECOND - GRAIN_NS, "what was taken is owed");
        assert_eq!(send(6 * SECOND), 0);
    }

    #[test]
    fn what_one_rate_refuses_counts_for_no_other() {
        let rates = Rates {
            messages: Rate::new(100, SECOND),
            bytes: Rate::new(10, SECOND),
            ..Rates::default()
        };
        let shared = SharedMeter::default();
        let mut own = Meter::default();
        for (n, wanted) in [(10, true), (10, false), (10, false)] {
            let spent = Spent::message(n);
            assert_eq!(own.spend(&rates, spent, SECOND, Over::Refuse) == 0, wanted);
            assert_eq!(shared.spend(&rates, spent, SECOND, Over::Refuse) == 0, wanted);
        }
        let one = SECOND + SECOND / 100;
        assert_eq!((own.0[0], shared.0[0].load(Ordering::Relaxed)), (one, one));
    }

    #[test]
    fn shards_that_share_a_rate_pass_no_more_than_it_together() {
        let rates = messages(Rate::new(1000, 3600 * SECOND));
        let shared = SharedMeter::default();
        let passed = std::thread::scope(|s| {
            let offer = || {
                let spend = || shared.spend(&rates, Spent::message(1), SECOND, Over::Refuse);
                (0..1000).filter(|_| spend() == 0).count()
            };
            let threads: Vec<_> = (0..4).map(|_| s.spawn(offer)).collect();
            threads.into_iter().map(|t| t.join().expect("no panic")).sum::<usize>()
        });
        assert_eq!(passed, 1000);
    }
}
