//! Parts of a message's way through the node, and how long they take.

use hdrhistogram::Histogram;

/// Longest time that a histogram tells from longer ones, ns: an hour.
const LONGEST_NS: u64 = 3_600_000_000_000;
/// Shortest time that it tells from shorter ones, ns: less than a clock reading costs.
const SHORTEST_NS: u64 = 16;
/// Significant decimal digits: an error of one percent.
const DIGITS: u8 = 2;

macro_rules! stages {
    ($($(#[$doc:meta])* $stage:ident = $name:literal, $says:literal;)*) => {
        /// One part of the way of a message, or of a connection. In the order in which a message passes
        /// them.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[repr(u8)]
        pub enum Stage { $($(#[$doc])* $stage,)* }

        impl Stage {
            /// All, in order.
            pub const ALL: &[Self] = &[$(Self::$stage,)*];

            /// Its name in metrics and on the command line: lower case, with underscores.
            #[must_use]
            pub fn name(self) -> &'static str {
                match self { $(Self::$stage => $name,)* }
            }

            /// What it is, in a few words, for people.
            #[must_use]
            pub fn says(self) -> &'static str {
                match self { $(Self::$stage => $says,)* }
            }
        }
    };
}

stages! {
    /// From accept to a complete CONNECT. Each connection is measured.
    Connect = "connect", "from accept to a complete CONNECT";
    /// From the reap before to the one that found it: it may have waited so long, and no longer, for the
    /// shard to look. Sampled messages.
    Arrival = "arrival", "unread, at most: the shard was in its turn before";
    /// Behind what came with it in the same turn. Sampled messages.
    Turn = "turn", "behind others of the same turn";
    /// From bytes to a packet. Sampled messages.
    Decode = "decode", "from bytes to a packet";
    /// Limits, quotas, topic, authorisation. Sampled messages.
    Authorise = "authorise", "limits, topic, authorisation";
    /// Route lookup, matching on this shard, encoding for its subscribers. Sampled messages.
    Route = "route", "route lookup, matching, encoding";
    /// From leaving one shard to being taken out of the mailbox of another. Each batch is measured.
    Crossing = "crossing", "in the mailbox of another shard";
    /// In the queue of a session, in steps of a millisecond. Each message that waited is measured.
    Queue = "queue", "in the queue of its session";
    /// From being written to the start of the send that takes it along. Each send is measured.
    Coalesce = "coalesce", "written, its send not yet started";
    /// From the start of a send to its completion. Each send is measured that the shard did not sleep
    /// through (decision record 0017).
    Send = "send", "until the socket took it";
    /// From the send of a QoS 1 or 2 message to the client's last acknowledgement. Sampled messages.
    Acknowledge = "acknowledge", "until the client acknowledged it";
}

impl Stage {
    /// How many there are.
    pub const COUNT: usize = Self::ALL.len();
}

macro_rules! loops {
    ($($(#[$doc:meta])* $what:ident = $name:literal;)*) => {
        /// What is counted of each turn of a shard.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[repr(u8)]
        pub enum PerTurn { $($(#[$doc])* $what,)* }

        impl PerTurn {
            /// All.
            pub const ALL: &[Self] = &[$(Self::$what,)*];

            /// Its name in metrics.
            #[must_use]
            pub fn name(self) -> &'static str {
                match self { $(Self::$what => $name,)* }
            }
        }
    };
}

loops! {
    /// Its length, ns, without the system call that follows.
    Length = "turn_ns";
    /// Completions reaped.
    Completions = "turn_completions";
    /// Mails taken.
    Mails = "turn_mails";
    /// Sends started.
    Sends = "turn_sends";
}

/// Lives on: its shard, which writes; whoever asks gets it whole, in exchange for an empty one. So nothing is
/// copied or locked while the shard works.
#[derive(Clone, Debug)]
pub struct Histograms {
    stages: Vec<Histogram<u32>>,
    turns: Vec<Histogram<u32>>,
}

impl Default for Histograms {
    fn default() -> Self {
        let empty = || {
            Histogram::new_with_bounds(SHORTEST_NS, LONGEST_NS, DIGITS).expect("bounds are valid")
        };
        let counts = || Histogram::new_with_bounds(1, 1 << 32, DIGITS).expect("bounds are valid");
        Self {
            stages: (0..Stage::COUNT).map(|_| empty()).collect(),
            turns: PerTurn::ALL
                .iter()
                .map(|p| if *p == PerTurn::Length { empty() } else { counts() })
                .collect(),
        }
    }
}

impl Histograms {
    /// Notes that something took `ns` in a stage. Above an hour it counts as an hour.
    #[inline]
    pub fn record(&mut self, stage: Stage, ns: u64) {
        self.stages[stage as usize].saturating_record(ns);
    }

    /// Notes the same time so many times.
    #[inline]
    pub fn record_many(&mut self, stage: Stage, ns: u64, times: u32) {
        // None would still be the least and the most.
        if times > 0 {
            self.stages[stage as usize].saturating_record_n(ns, times);
        }
    }

    /// Notes a quantity of so many turns.
    #[inline]
    pub fn record_turns(&mut self, what: PerTurn, n: u64, turns: u32) {
        // None would still be the least and the most.
        if turns > 0 {
            self.turns[what as usize].saturating_record_n(n, turns);
        }
    }

    /// Times in one stage, ns.
    #[must_use]
    pub fn stage(&self, stage: Stage) -> &Histogram<u32> {
        &self.stages[stage as usize]
    }

    /// One quantity of turns.
    #[must_use]
    pub fn turn(&self, what: PerTurn) -> &Histogram<u32> {
        &self.turns[what as usize]
    }

    /// Forgets everything.
    pub fn reset(&mut self) {
        self.stages.iter_mut().chain(&mut self.turns).for_each(Histogram::reset);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_of_all_lengths_are_kept_within_a_percent() {
        let mut h = Histograms::default();
        for ns in [16, 100, 5_000, 1_000_000, 60_000_000_000, LONGEST_NS] {
            h.reset();
            h.record(Stage::Send, ns);
            let kept = h.stage(Stage::Send).max();
            assert!(kept.abs_diff(ns) * 100 <= ns + 1600, "{ns} became {kept}");
        }
        h.record(Stage::Send, u64::MAX);
        assert!(h.stage(Stage::Send).max() >= LONGEST_NS);
    }
}
