//! How far another machine's clock is ahead of ours.
//!
//! The agent answers a ping with its time. Its clock then showed that time at some moment between
//! our sending and our receiving: half-way, give or take half the round trip. The exchange with the
//! shortest round trip says most.

use serde::{Deserialize, Serialize};

/// Exchanges of a measurement.
pub(super) const EXCHANGES: u32 = 32;
/// Clocks that are not known to be closer than this, in ns, make a run void: latencies between
/// agents would be wrong by as much, and targets are milliseconds.
pub const UNCERTAINTY_MAX_NS: u64 = 500_000;

/// One ping.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Exchange {
    /// Our clock when the ping left.
    pub(super) sent_ns: u64,
    /// The agent's clock.
    pub(super) theirs_ns: u64,
    /// Our clock when the answer came.
    pub(super) received_ns: u64,
}

/// What a measurement says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Offset {
    /// The agent's clock less ours, in ns.
    pub ahead_ns: i64,
    /// It is at most this far from the truth, in ns: half of the shortest round trip.
    pub uncertainty_ns: u64,
}

impl Offset {
    /// Of all exchanges; `None` of none.
    pub(super) fn of(exchanges: &[Exchange]) -> Option<Self> {
        let round = |e: &&Exchange| e.received_ns.saturating_sub(e.sent_ns);
        let best = exchanges.iter().min_by_key(round)?;
        let middle = best.sent_ns + round(&best) / 2;
        Some(Self {
            ahead_ns: best.theirs_ns as i64 - middle as i64,
            uncertainty_ns: round(&best).div_ceil(2),
        })
    }

    /// Why two measurements, before and after a run, make it void.
    pub(super) fn void(&self, after: &Self) -> Option<String> {
        let moved = self.ahead_ns.abs_diff(after.ahead_ns);
        // What the clocks moved against each other is not known for the time between.
        let uncertain = self.uncertainty_ns.max(after.uncertainty_ns) + moved;
        (uncertain > UNCERTAINTY_MAX_NS).then(|| {
            format!(
                "its clock is known to {:.3} ms only, {:.3} ms of which it moved; at most {:.1} ms \
                 is allowed",
                uncertain as f64 / 1e6,
                moved as f64 / 1e6,
                UNCERTAINTY_MAX_NS as f64 / 1e6
            )
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An exchange with an agent that is `ahead`, after `there` and `back` on the way.
    fn exchange(at: u64, ahead: i64, there: u64, back: u64) -> Exchange {
        let theirs = (at + there) as i64 + ahead;
        Exchange { sent_ns: at, theirs_ns: theirs as u64, received_ns: at + there + back }
    }

    #[test]
    fn the_shortest_round_trip_says_how_far_the_clock_is_ahead() {
        let ahead = -5_000_000_000;
        let all = [
            exchange(10_000_000_000, ahead, 900_000, 20_000),
            exchange(11_000_000_000, ahead, 21_000, 20_000),
            exchange(12_000_000_000, ahead, 20_000, 700_000),
        ];
        let offset = Offset::of(&all).unwrap();
        assert_eq!(offset, Offset { ahead_ns: ahead + 500, uncertainty_ns: 20_500 });
        assert_eq!(Offset::of(&[]), None);
    }

    #[test]
    fn the_truth_lies_within_the_uncertainty_whatever_the_way_there_takes() {
        for there in [0, 1, 400, 100_000] {
            for back in [1, 300, 90_000] {
                let offset = Offset::of(&[exchange(1 << 40, 12_345, there, back)]).unwrap();
                assert!(offset.ahead_ns.abs_diff(12_345) <= offset.uncertainty_ns);
            }
        }
    }

    #[test]
    fn clocks_that_are_not_known_well_or_that_move_make_a_run_void() {
        let near = Offset { ahead_ns: 100, uncertainty_ns: 50_000 };
        assert_eq!(near.void(&Offset { ahead_ns: 200, ..near }), None);
        assert!(near.void(&Offset { uncertainty_ns: 600_000, ..near }).is_some());
        assert!(near.void(&Offset { ahead_ns: 1_000_000, ..near }).unwrap().contains("moved"));
    }
}
