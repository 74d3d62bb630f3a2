//! Whether the process may tell its supervisor that it lives: it does while every shard takes turns.

use std::time::{Duration, Instant};

use ringmain_shards::boundary::Control;
use ringmain_shards::engine::ids::ShardId;
use ringmain_shards::reactor::Node;

use crate::notify::Supervisor;

/// Questions in the time that the supervisor waits for a sign of life. A shard may stall for three
/// quarters of that time and be forgiven.
const QUESTIONS: u32 = 4;
/// Shortest time between questions, whatever the supervisor asks for: they must not be the load.
const PERIOD_MIN: Duration = Duration::from_millis(10);
/// Periods without an answer after which a shard is named in the log, while the supervisor waits still.
const SUSPECT: u64 = 2;
/// Tokens of our questions begin here, so that nobody else's answers are taken for ours.
const TOKENS: u64 = 1 << 63;

/// Lives on: the watcher. Asks each shard and, when all have answered, tells the supervisor.
#[derive(Debug)]
pub(super) struct Watchdog {
    supervisor: Supervisor,
    lifesigns: Lifesigns,
    due: Instant,
}

impl Watchdog {
    /// As the environment asks for it (`WATCHDOG_USEC`, `WATCHDOG_PID`); `None` if it does not.
    pub(super) fn from_env(shards: usize, now: Instant) -> Option<Self> {
        let interval = sd_notify::watchdog_enabled().filter(|i| !i.is_zero())?;
        let supervisor = Some(Supervisor::from_env()).filter(Supervisor::is_there)?;
        tracing::info!(interval_ms = interval.as_millis(), "the supervisor wants signs of life");
        let lifesigns = Lifesigns::new(shards, interval);
        Some(Self { supervisor, lifesigns, due: now })
    }

    /// When [`look`](Self::look) has something to do.
    pub(super) fn due(&self) -> Instant {
        self.due
    }

    /// Asks, and tells, if it is time to.
    pub(super) fn look(&mut self, node: &Node, now: Instant) {
        if now < self.due {
            return;
        }
        self.due = now + self.lifesigns.period;
        let round = self.lifesigns.next_round();
        if round.alive {
            self.supervisor.alive();
        }
        if round.recovered {
            tracing::info!("all shards take turns again");
            self.supervisor.status("all shards take turns again");
        }
        for shard in round.suspects {
            tracing::error!(shard, "a shard takes no turns; the supervisor gets no sign of life");
            self.supervisor.status(&format!("shard {shard} takes no turns"));
        }
        for handle in node.handles() {
            // A queue that is full is no sign of life either.
            let _ = handle.send(Control::Stats { token: round.token });
        }
    }

    /// The broker ends, and within a time that has its own bound: no shard has to prove anything.
    pub(super) fn look_while_ending(&mut self, now: Instant) {
        if now >= self.due {
            self.due = now + self.lifesigns.period;
            self.supervisor.alive();
        }
    }

    /// A shard answered.
    pub(super) fn answered(&mut self, shard: ShardId, token: u64) {
        self.lifesigns.answered(shard.index(), token);
    }
}

/// Which shards answered. Every sign of life needs answers of all to questions that were asked after the
/// last one.
#[derive(Debug)]
struct Lifesigns {
    period: Duration,
    /// The last question.
    token: u64,
    /// The first question after the last sign of life.
    first: u64,
    /// By shard.
    answered: Vec<bool>,
}

/// What a period begins with.
#[derive(Debug, PartialEq, Eq)]
struct Round {
    /// Whether the supervisor may be told that the broker lives.
    alive: bool,
    /// Whether shards were suspected before it.
    recovered: bool,
    /// Goes with the questions.
    token: u64,
    /// Shards that have not answered for some time. Each is named once in a stall.
    suspects: Vec<usize>,
}

impl Lifesigns {
    fn new(shards: usize, interval: Duration) -> Self {
        let period = (interval / QUESTIONS).max(PERIOD_MIN);
        Self { period, token: TOKENS, first: TOKENS + 1, answered: vec![false; shards] }
    }

    fn next_round(&mut self) -> Round {
        // Asked since the last sign.
        let questions = self.token + 1 - self.first;
        let alive = questions > 0 && self.answered.iter().all(|answered| *answered);
        let silent = || self.answered.iter().enumerate().filter(|(_, answered)| !**answered);
        let suspects = match questions {
            SUSPECT => silent().map(|(shard, _)| shard).collect(),
            _ => Vec::new(),
        };
        self.token += 1;
        if alive {
            self.first = self.token;
            self.answered.fill(false);
        }
        Round { alive, recovered: alive && questions > SUSPECT, token: self.token, suspects }
    }

    fn answered(&mut self, shard: usize, token: u64) {
        if (self.first..=self.token).contains(&token) {
            self.answered[shard] = true;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lifesigns() -> Lifesigns {
        Lifesigns::new(2, Duration::from_secs(30))
    }

    #[test]
    fn nothing_is_told_before_every_shard_has_answered() {
        let mut signs = lifesigns();
        assert_eq!(signs.period, Duration::from_millis(7_500));
        let first = signs.next_round();
        assert!(!first.alive, "nobody was asked");
        signs.answered(0, first.token);
        let second = signs.next_round();
        assert!(!second.alive, "shard 1 is silent");
        signs.answered(1, second.token);
        assert!(signs.next_round().alive, "an answer to either question will do");
    }

    #[test]
    fn a_shard_that_stops_ends_the_signs_of_life() {
        let mut signs = lifesigns();
        let mut said = Vec::new();
        for round in 0..8 {
            let Round { alive, token, suspects, .. } = signs.next_round();
            said.push((alive, suspects));
            signs.answered(0, token);
            if round < 2 {
                signs.answered(1, token);
            }
        }
        let alive: Vec<bool> = said.iter().map(|(alive, _)| *alive).collect();
        assert_eq!(alive, [false, true, true, false, false, false, false, false]);
        let named: Vec<_> = said.iter().flat_map(|(_, suspects)| suspects).collect();
        assert_eq!(named, [&1], "once");
    }

    #[test]
    fn a_late_answer_counts_and_one_from_before_the_last_sign_does_not() {
        let mut signs = lifesigns();
        let old = signs.next_round().token;
        signs.answered(0, old);
        signs.answered(1, old);
        assert!(signs.next_round().alive);
        signs.answered(0, old);
        signs.answered(1, old);
        assert!(!signs.next_round().alive, "that answer was older than the sign");
        let late = signs.token;
        for _ in 0..3 {
            signs.next_round();
        }
        signs.answered(0, late);
        signs.answered(1, late);
        let round = signs.next_round();
        assert!(round.alive && round.recovered);
        signs.answered(0, round.token);
        signs.answered(1, round.token);
        assert!(!signs.next_round().recovered);
    }

    #[test]
    fn other_peoples_answers_are_not_ours() {
        let mut signs = lifesigns();
        signs.next_round();
        for token in [0, 1, 7, u64::MAX] {
            signs.answered(0, token);
            signs.answered(1, token);
        }
        assert!(!signs.next_round().alive);
    }
}
