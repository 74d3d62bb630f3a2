//! The stamp in a payload, and the exact check of what a subscriber got.

use std::collections::{BTreeMap, HashMap};

/// Bytes of a stamp: publisher, sequence, intended time.
pub const STAMP_LEN: usize = 16;

/// What a checked payload starts with, big-endian.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamp {
    /// Number of the publisher.
    pub publisher: u32,
    /// Counts the publisher's messages from 0.
    pub seq: u32,
    /// When the message was due, in ns of CLOCK_MONOTONIC.
    pub intended_ns: u64,
}

impl Stamp {
    /// Writes the stamp over the first bytes of `payload`, which has at least [`STAMP_LEN`].
    pub fn write(&self, payload: &mut [u8]) {
        payload[..4].copy_from_slice(&self.publisher.to_be_bytes());
        payload[4..8].copy_from_slice(&self.seq.to_be_bytes());
        payload[8..16].copy_from_slice(&self.intended_ns.to_be_bytes());
    }

    /// Reads a stamp; `None` when the payload is too short for one.
    #[must_use]
    pub fn read(payload: &[u8]) -> Option<Self> {
        let (publisher, rest) = payload.split_first_chunk::<4>()?;
        let (seq, rest) = rest.split_first_chunk::<4>()?;
        let (intended, _) = rest.split_first_chunk::<8>()?;
        Some(Self {
            publisher: u32::from_be_bytes(*publisher),
            seq: u32::from_be_bytes(*seq),
            intended_ns: u64::from_be_bytes(*intended),
        })
    }
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
}

/// What one subscriber got of one publisher.
///
/// Invariant: the numbers below `next` that are not in `missing` arrived exactly once or are
/// counted as duplicates.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Flow {
    next: u32,
    duplicates: u32,
    late: u32,
    /// Gaps, as start → end (exclusive). Empty unless messages are lost or reordered.
    missing: BTreeMap<u32, u32>,
}

impl Flow {
    /// Notes that message `seq` arrived.
    pub fn arrive(&mut self, seq: u32) -> Arrival {
        if seq == self.next {
            self.next += 1;
            return Arrival::New;
        }
        if seq > self.next {
            self.missing.insert(self.next, seq);
            self.next = seq + 1;
            return Arrival::New;
        }
        self.arrive_early_number(seq)
    }

    #[cold]
    fn arrive_early_number(&mut self, seq: u32) -> Arrival {
        let gap = self.missing.range(..=seq).next_back().map(|(&s, &e)| (s, e));
        let Some((start, end)) = gap.filter(|&(_, end)| seq < end) else {
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

    /// The account of a flow whose publisher sent `sent` messages; `None` when that is not known,
    /// so that only gaps count as lost.
    #[must_use]
    pub fn account(&self, sent: Option<u32>) -> Account {
        let gaps: u64 = self.missing.iter().map(|(&s, &e)| u64::from(e - s)).sum();
        let tail = u64::from(sent.map_or(0, |sent| sent.saturating_sub(self.next)));
        Account {
            received: u64::from(self.next) - gaps,
            lost: gaps + tail,
            duplicates: u64::from(self.duplicates),
            out_of_order: u64::from(self.late),
            unsent: u64::from(sent.map_or(0, |sent| self.next.saturating_sub(sent))),
        }
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
    /// Messages that came after a later one of the same publisher.
    pub out_of_order: u64,
    /// Messages that came although nobody sent them.
    pub unsent: u64,
}

impl Account {
    /// Adds another flow's account.
    pub fn add(&mut self, other: &Self) {
        self.received += other.received;
        self.lost += other.lost;
        self.duplicates += other.duplicates;
        self.out_of_order += other.out_of_order;
        self.unsent += other.unsent;
    }
}

/// The flows of one subscriber. Most have one publisher, which needs no map.
#[derive(Clone, Debug, Default)]
pub struct Flows {
    first: Option<(u32, Flow)>,
    #[allow(clippy::box_collection, reason = "rare, and 40 bytes in every subscriber otherwise")]
    more: Option<Box<HashMap<u32, Flow>>>,
}

impl Flows {
    /// Notes a message.
    #[inline]
    pub fn arrive(&mut self, publisher: u32, seq: u32) -> Arrival {
        match &mut self.first {
            Some((p, flow)) if *p == publisher => flow.arrive(seq),
            None => self.first.insert((publisher, Flow::default())).1.arrive(seq),
            Some(_) => self.more.get_or_insert_default().entry(publisher).or_default().arrive(seq),
        }
    }

    /// The flow of a publisher, if anything of it came.
    #[must_use]
    pub fn get(&self, publisher: u32) -> Option<&Flow> {
        match &self.first {
            Some((p, flow)) if *p == publisher => Some(flow),
            _ => self.more.as_ref()?.get(&publisher),
        }
    }

    /// All flows with their publishers.
    pub fn iter(&self) -> impl Iterator<Item = (u32, &Flow)> {
        let more = self.more.iter().flat_map(|m| m.iter().map(|(&p, f)| (p, f)));
        self.first.iter().map(|(p, f)| (*p, f)).chain(more)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn flow(seqs: &[u32]) -> Flow {
        let mut flow = Flow::default();
        for &seq in seqs {
            flow.arrive(seq);
        }
        flow
    }

    #[test]
    fn a_whole_stream_is_clean() {
        let a = flow(&[0, 1, 2, 3]).account(Some(4));
        assert_eq!(a, Account { received: 4, ..Account::default() });
    }

    #[test]
    fn gaps_and_a_missing_tail_are_lost() {
        let a = flow(&[0, 3, 4]).account(Some(7));
        assert_eq!(a, Account { received: 3, lost: 4, ..Account::default() });
    }

    #[test]
    fn a_late_message_is_out_of_order_and_not_lost() {
        let a = flow(&[0, 4, 2, 5]).account(Some(6));
        assert_eq!(a, Account { received: 4, lost: 2, out_of_order: 1, ..Account::default() });
    }

    #[test]
    fn a_second_copy_is_a_duplicate_also_of_a_late_message() {
        let a = flow(&[0, 0, 2, 1, 1, 2]).account(Some(3));
        assert_eq!(
            a,
            Account { received: 3, duplicates: 3, out_of_order: 1, ..Account::default() }
        );
    }

    #[test]
    fn messages_that_nobody_sent_are_told() {
        assert_eq!(flow(&[0, 1]).account(Some(1)).unsent, 1);
    }

    #[test]
    fn flows_of_several_publishers_are_apart() {
        let mut flows = Flows::default();
        for publisher in [7, 9, 7, 8, 9] {
            let seq = flows.get(publisher).map_or(0, |f| f.next);
            assert_eq!(flows.arrive(publisher, seq), Arrival::New);
        }
        assert_eq!(flows.iter().count(), 3);
        assert_eq!(flows.get(9).unwrap().account(Some(2)).received, 2);
    }

    #[test]
    fn a_stamp_survives_the_payload() {
        let stamp = Stamp { publisher: 7, seq: 1 << 31, intended_ns: u64::MAX - 1 };
        let mut payload = [0u8; 20];
        stamp.write(&mut payload);
        assert_eq!(Stamp::read(&payload), Some(stamp));
        assert_eq!(Stamp::read(&payload[..15]), None);
    }
}
