//! The stamp in a payload, and the exact check of what a subscriber got.
//!
//! A publisher's messages form *streams*: one for each text that its topic takes through ranges.
//! Within a stream they are numbered from 0, and MQTT promises their order. [MQTT-4.6.0-6]

use std::collections::{BTreeMap, HashMap};

/// Bytes of a short stamp: publisher, sequence, intended time.
pub const STAMP_LEN: usize = 16;
/// Bytes of a long stamp, which payloads of this size and above carry: the stream and how late the
/// message was sent come after a short one.
pub const STAMP_LONG_LEN: usize = 24;
/// Marks the publisher of a will: its stream is apart from that of its messages.
pub const WILL: u32 = 1 << 31;
/// Unit of the time by which a message was sent late, in ns: a `u32` of them reaches 68 s.
const LAG_UNIT_NS: u64 = 16;

/// A publisher's number in stamps: its population above its number in it.
#[must_use]
pub fn publisher_id(population: u16, number: u32) -> u32 {
    debug_assert!(population < 128 && number < 1 << 24);
    u32::from(population) << 24 | number
}

/// What a checked payload starts with, big-endian.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamp {
    /// Number of the publisher, see [`publisher_id`].
    pub publisher: u32,
    /// Which of its streams.
    pub stream: u32,
    /// Counts the stream's messages from 0.
    pub seq: u32,
    /// When the message was due, in ns of CLOCK_MONOTONIC (of the coordinator, with several
    /// agents).
    pub intended_ns: u64,
    /// How much later it was sent, in ns; `None` where there is no room for it.
    pub lag_ns: Option<u64>,
}

impl Stamp {
    /// Writes the stamp over the first bytes of `payload`, which has at least [`STAMP_LEN`].
    #[inline]
    pub fn write(&self, payload: &mut [u8]) {
        payload[..4].copy_from_slice(&self.publisher.to_be_bytes());
        payload[4..8].copy_from_slice(&self.seq.to_be_bytes());
        payload[8..16].copy_from_slice(&self.intended_ns.to_be_bytes());
        if let Some(long) = payload.get_mut(STAMP_LEN..STAMP_LONG_LEN) {
            let lag = (self.lag_ns.unwrap_or(0) / LAG_UNIT_NS).min(u64::from(u32::MAX)) as u32;
            long[..4].copy_from_slice(&self.stream.to_be_bytes());
            long[4..].copy_from_slice(&lag.to_be_bytes());
        }
    }

    /// Reads a stamp; `None` when the payload is too short for one.
    #[inline]
    #[must_use]
    pub fn read(payload: &[u8]) -> Option<Self> {
        let (publisher, rest) = payload.split_first_chunk::<4>()?;
        let (seq, rest) = rest.split_first_chunk::<4>()?;
        let (intended, rest) = rest.split_first_chunk::<8>()?;
        let mut stamp = Self {
            publisher: u32::from_be_bytes(*publisher),
            stream: 0,
            seq: u32::from_be_bytes(*seq),
            intended_ns: u64::from_be_bytes(*intended),
            lag_ns: None,
        };
        if let Some(long) = rest.first_chunk::<8>() {
            let long = u64::from_be_bytes(*long);
            stamp.stream = (long >> 32) as u32;
            stamp.lag_ns = Some(u64::from(long as u32) * LAG_UNIT_NS);
        }
        Some(stamp)
    }

    /// Publisher and stream in one.
    #[must_use]
    pub fn key(&self) -> u64 {
        key(self.publisher, self.stream)
    }
}

/// Publisher and stream in one.
#[must_use]
pub fn key(publisher: u32, stream: u32) -> u64 {
    u64::from(publisher) << 32 | u64::from(stream)
}

/// What one arrival means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arrival {
    /// The next message, or one after a gap.
    New,
    /// A message of an earlier gap: late, out of order.
    Late,
    /// Already received.
    Duplicate,
    /// Already received, and MQTT allows it: QoS 1, DUP = 1, after the connection was renewed.
    Redelivered,
}

/// How a message came.
#[derive(Clone, Copy, Debug, Default)]
pub struct Manner {
    /// How many times the subscriber was away without a session that keeps its messages.
    pub epoch: u16,
    /// Whether a second copy is one that MQTT allows.
    pub may_repeat: bool,
}

/// What one subscriber got of one stream.
///
/// Invariant: the numbers below `next` that are neither in `missing` nor counted in `missed`
/// arrived exactly once or are counted as duplicates.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Flow {
    next: u32,
    duplicates: u32,
    redelivered: u32,
    late: u32,
    missed: u32,
    epoch: u16,
    /// Gaps, as start → end (exclusive). Empty unless messages are lost or reordered.
    missing: BTreeMap<u32, u32>,
}

impl Flow {
    /// Notes that message `seq` arrived.
    #[inline]
    pub fn arrive(&mut self, seq: u32, manner: Manner) -> Arrival {
        if seq == self.next && self.epoch == manner.epoch {
            self.next += 1;
            return Arrival::New;
        }
        self.arrive_otherwise(seq, manner)
    }

    #[cold]
    fn arrive_otherwise(&mut self, seq: u32, manner: Manner) -> Arrival {
        if self.epoch != manner.epoch {
            self.epoch = manner.epoch;
            self.missed += seq.saturating_sub(self.next);
            self.next = self.next.max(seq);
        }
        if seq >= self.next {
            if seq > self.next {
                self.missing.insert(self.next, seq);
            }
            self.next = seq.saturating_add(1);
            return Arrival::New;
        }
        let gap = self.missing.range(..=seq).next_back().map(|(&s, &e)| (s, e));
        let Some((start, end)) = gap.filter(|&(_, end)| seq < end) else {
            if manner.may_repeat {
                self.redelivered += 1;
                return Arrival::Redelivered;
            }
            self.duplicates += 1;
            return Arrival::Duplicate;
        };
        self.missing.remove(&start);
        if start < seq {
            self.missing.insert(start, seq);
        }
        if seq + 1 < end {
            self.missing.insert(seq + 1, end);
        }
        self.late += 1;
        Arrival::Late
    }

    /// The account of a flow whose publisher sent `sent` messages on the stream; `None` when that
    /// is not known, so that only gaps count as lost. `epoch` is the subscriber's now.
    #[must_use]
    pub fn account(&self, sent: Option<u32>, epoch: u16) -> Account {
        let gaps: u64 = self.missing.iter().map(|(&s, &e)| u64::from(e - s)).sum();
        let tail = u64::from(sent.map_or(0, |sent| sent.saturating_sub(self.next)));
        let (lost_tail, missed_tail) = if self.epoch == epoch { (tail, 0) } else { (0, tail) };
        Account {
            received: u64::from(self.next) - gaps - u64::from(self.missed),
            lost: gaps + lost_tail,
            duplicates: u64::from(self.duplicates),
            out_of_order: u64::from(self.late),
            unsent: u64::from(sent.map_or(0, |sent| self.next.saturating_sub(sent))),
            redelivered: u64::from(self.redelivered),
            missed: u64::from(self.missed) + missed_tail,
            abandoned: 0,
        }
    }

    /// The sequence numbers that count as lost when the publisher sent `sent` on the stream.
    pub fn lost(&self, sent: u32, epoch: u16) -> impl Iterator<Item = (u32, u32)> + '_ {
        let tail = (self.epoch == epoch && self.next < sent).then_some((self.next, sent));
        self.missing.iter().map(|(&s, &e)| (s, e)).chain(tail)
    }
}

/// The sum over flows: what arrived, and what went wrong.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Account {
    /// Distinct messages.
    pub received: u64,
    /// Messages that never came.
    pub lost: u64,
    /// Copies beyond the first.
    pub duplicates: u64,
    /// Messages that came after a later one of the same publisher and topic.
    pub out_of_order: u64,
    /// Messages that came although nobody sent them.
    pub unsent: u64,
    /// Copies beyond the first that MQTT allows: of QoS 1, after a connection was renewed.
    #[serde(default)]
    pub redelivered: u64,
    /// Messages that were not to be expected, since the subscriber was away without a session that
    /// keeps them.
    #[serde(default)]
    pub missed: u64,
    /// Messages that never came, but whose publisher lost its connection before it knew.
    #[serde(default)]
    pub abandoned: u64,
}

impl Account {
    /// Adds another flow's account.
    pub fn add(&mut self, other: &Self) {
        self.received += other.received;
        self.lost += other.lost;
        self.duplicates += other.duplicates;
        self.out_of_order += other.out_of_order;
        self.unsent += other.unsent;
        self.redelivered += other.redelivered;
        self.missed += other.missed;
        self.abandoned += other.abandoned;
    }
}

/// The flows of one subscriber by [`key`]. Most have one, which needs no map.
#[derive(Clone, Debug, Default, serde::Serialize, serde::Deserialize)]
pub struct Flows {
    first: Option<(u64, Flow)>,
    #[allow(clippy::box_collection, reason = "rare, and 40 bytes in every subscriber otherwise")]
    more: Option<Box<HashMap<u64, Flow>>>,
}

impl Flows {
    /// Notes a message.
    #[inline]
    pub fn arrive(&mut self, key: u64, seq: u32, manner: Manner) -> Arrival {
        match &mut self.first {
            Some((k, flow)) if *k == key => flow.arrive(seq, manner),
            None => self.first.insert((key, Flow::default())).1.arrive(seq, manner),
            Some(_) => {
                self.more.get_or_insert_default().entry(key).or_default().arrive(seq, manner)
            }
        }
    }

    /// The flow of a stream, if anything of it came.
    #[must_use]
    pub fn get(&self, key: u64) -> Option<&Flow> {
        match &self.first {
            Some((k, flow)) if *k == key => Some(flow),
            _ => self.more.as_ref()?.get(&key),
        }
    }

    /// All flows with their keys.
    pub fn iter(&self) -> impl Iterator<Item = (u64, &Flow)> {
        let more = self.more.iter().flat_map(|m| m.iter().map(|(&k, f)| (k, f)));
        self.first.iter().map(|(k, f)| (*k, f)).chain(more)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn flow(seqs: &[u32]) -> Flow {
        let mut flow = Flow::default();
        for &seq in seqs {
            flow.arrive(seq, Manner::default());
        }
        flow
    }

    #[test]
    fn a_whole_stream_is_clean() {
        let a = flow(&[0, 1, 2, 3]).account(Some(4), 0);
        assert_eq!(a, Account { received: 4, ..Account::default() });
    }

    #[test]
    fn gaps_and_a_missing_tail_are_lost() {
        let flow = flow(&[0, 3, 4]);
        let a = flow.account(Some(7), 0);
        assert_eq!(a, Account { received: 3, lost: 4, ..Account::default() });
        assert_eq!(flow.lost(7, 0).collect::<Vec<_>>(), [(1, 3), (5, 7)]);
    }

    #[test]
    fn a_late_message_is_out_of_order_and_not_lost() {
        let a = flow(&[0, 4, 2, 5]).account(Some(6), 0);
        assert_eq!(a, Account { received: 4, lost: 2, out_of_order: 1, ..Account::default() });
    }

    #[test]
    fn a_second_copy_is_a_duplicate_also_of_a_late_message() {
        let a = flow(&[0, 0, 2, 1, 1, 2]).account(Some(3), 0);
        assert_eq!(
            a,
            Account { received: 3, duplicates: 3, out_of_order: 1, ..Account::default() }
        );
    }

    #[test]
    fn messages_that_nobody_sent_are_told() {
        assert_eq!(flow(&[0, 1]).account(Some(1), 0).unsent, 1);
    }

    #[test]
    fn a_repeat_that_mqtt_allows_is_counted_apart() {
        let mut flow = flow(&[0, 1]);
        let resumed = Manner { epoch: 0, may_repeat: true };
        assert_eq!(flow.arrive(1, resumed), Arrival::Redelivered);
        assert_eq!(flow.arrive(2, resumed), Arrival::New);
        let a = flow.account(Some(3), 0);
        assert_eq!(a, Account { received: 3, redelivered: 1, ..Account::default() });
    }

    #[test]
    fn what_comes_while_a_subscriber_without_session_is_away_is_missed_and_not_lost() {
        let mut flow = flow(&[0, 1, 3]);
        assert_eq!(flow.arrive(9, Manner { epoch: 1, may_repeat: false }), Arrival::New);
        let a = flow.account(Some(12), 1);
        assert_eq!(a, Account { received: 4, lost: 3, missed: 5, ..Account::default() });
        let away = flow.account(Some(12), 2);
        assert_eq!((away.lost, away.missed), (1, 7), "2 is lost, 4 to 8, 10 and 11 missed");
    }

    #[test]
    fn flows_of_several_publishers_and_streams_are_apart() {
        let mut flows = Flows::default();
        for k in [key(7, 0), key(9, 0), key(7, 1), key(8, 0), key(9, 0)] {
            let seq = flows.get(k).map_or(0, |f| f.next);
            assert_eq!(flows.arrive(k, seq, Manner::default()), Arrival::New);
        }
        assert_eq!(flows.iter().count(), 4);
        assert_eq!(flows.get(key(9, 0)).unwrap().account(Some(2), 0).received, 2);
    }

    #[test]
    fn a_stamp_survives_the_payload() {
        let stamp = Stamp {
            publisher: WILL | publisher_id(127, (1 << 24) - 1),
            stream: 77,
            seq: 1 << 31,
            intended_ns: u64::MAX - 1,
            lag_ns: Some(32_000),
        };
        let mut payload = [0u8; 40];
        stamp.write(&mut payload);
        assert_eq!(Stamp::read(&payload), Some(stamp));
        let short = Stamp { stream: 0, lag_ns: None, ..stamp };
        stamp.write(&mut payload[..20]);
        assert_eq!(Stamp::read(&payload[..20]), Some(short));
        assert_eq!(Stamp::read(&payload[..15]), None);
    }

    #[test]
    fn a_lag_beyond_its_range_is_the_largest() {
        let mut payload = [0u8; 24];
        let lag_ns = Some(u64::MAX);
        Stamp { publisher: 0, stream: 0, seq: 0, intended_ns: 0, lag_ns }.write(&mut payload);
        assert!(Stamp::read(&payload).unwrap().lag_ns.unwrap() > 68_000_000_000);
    }
}
