//! Mail between simulated shards, with the semantics of production: per receiver one bounded FIFO
//! mailbox of batches for all senders together; what does not fit waits at its sender.

use std::collections::VecDeque;

use ringmain_shards::engine::ids::ShardId;
use ringmain_shards::engine::mail::Mail;
use ringmain_shards::engine::packed;

/// The mail of one turn to one receiver.
#[derive(Debug)]
pub(crate) struct Batch {
    /// Birth number in [`Epochs`].
    pub(crate) seq: u64,
    /// The turn of the sender that made it.
    turn: u64,
    /// The sender.
    pub(crate) from: usize,
    /// At least one.
    pub(crate) letters: packed::Batch,
}

/// Says when everything that was under way at some moment has had its effect.
///
/// Items (open turns, batches) are born and die; an epoch ends when all items that were alive at
/// its start are dead. So an item alive in epoch `e` is dead in `e + 2`, and a chain of `n` items
/// in `e + 2n`.
#[derive(Debug, Default)]
pub(crate) struct Epochs {
    next: u64,
    mark: u64,
    old: u64,
    new: u64,
    epoch: u64,
}

/// Epochs after which a publish has reached every session, be it through a group's home shard: a
/// turn, mail, a turn, mail, a turn, with room to spare.
pub(crate) const SETTLED: u64 = 14;

impl Epochs {
    pub(crate) fn born(&mut self) -> u64 {
        self.next += 1;
        self.new += 1;
        self.next
    }

    pub(crate) fn died(&mut self, seq: u64) {
        if seq <= self.mark {
            self.old -= 1;
        } else {
            self.new -= 1;
        }
        if self.old == 0 {
            self.epoch += if self.new == 0 { SETTLED } else { 1 };
            self.mark = self.next;
            self.old = self.new;
            self.new = 0;
        }
    }

    pub(crate) fn now(&self) -> u64 {
        self.epoch
    }

    /// Nothing is under way.
    pub(crate) fn idle(&self) -> bool {
        self.old + self.new == 0
    }
}

/// All mailboxes and outboxes of a node.
#[derive(Debug)]
pub(crate) struct Mesh {
    /// Batches that a mailbox holds at most.
    cap: usize,
    mailboxes: Vec<VecDeque<Batch>>,
    outboxes: Vec<Vec<VecDeque<Batch>>>,
    after: Vec<VecDeque<(u64, ShardId, Mail, u64)>>,
    pub(crate) epochs: Epochs,
    /// Times that a batch found a mailbox full.
    pub(crate) overflows: u64,
    /// A planted bug: what does not fit is dropped.
    pub(crate) lossy: bool,
}

impl Mesh {
    pub(crate) fn new(shards: usize, cap: usize) -> Self {
        Self {
            cap,
            mailboxes: (0..shards).map(|_| VecDeque::new()).collect(),
            outboxes: (0..shards).map(|_| (0..shards).map(|_| VecDeque::new()).collect()).collect(),
            after: (0..shards).map(|_| VecDeque::new()).collect(),
            epochs: Epochs::default(),
            overflows: 0,
            lossy: false,
        }
    }

    /// Sends the batch of one turn. Returns whether the receiver's mailbox had no room.
    pub(crate) fn send(
        &mut self,
        from: usize,
        to: usize,
        turn: u64,
        letters: packed::Batch,
    ) -> bool {
        if letters.is_empty() {
            return false;
        }
        let batch = Batch { seq: self.epochs.born(), turn, from, letters };
        if self.outboxes[from][to].is_empty() && self.mailboxes[to].len() < self.cap {
            self.mailboxes[to].push_back(batch);
            return false;
        }
        self.overflows += 1;
        if self.lossy {
            self.epochs.died(batch.seq);
            return false;
        }
        self.outboxes[from][to].push_back(batch);
        true
    }

    /// Mail that waits until all mail of turns before `turn`, to any shard, was sent.
    pub(crate) fn send_after(&mut self, from: usize, to: ShardId, turn: u64, mail: Mail) {
        let seq = self.epochs.born();
        self.after[from].push_back((turn, to, mail, seq));
    }

    /// Moves what has room by now; returns the peers whose lanes ran dry.
    pub(crate) fn flush(&mut self, from: usize) -> Vec<usize> {
        let mut drained = Vec::new();
        for to in 0..self.mailboxes.len() {
            let lane = &mut self.outboxes[from][to];
            if lane.is_empty() {
                continue;
            }
            while self.mailboxes[to].len() < self.cap
                && let Some(batch) = lane.pop_front()
            {
                self.mailboxes[to].push_back(batch);
            }
            if lane.is_empty() {
                drained.push(to);
            }
        }
        while let Some((turn, to, _, _)) = self.after[from].front() {
            let older = |lane: &VecDeque<Batch>| lane.front().is_some_and(|b| b.turn < *turn);
            if self.outboxes[from].iter().any(older) || self.mailboxes[to.index()].len() >= self.cap
            {
                break;
            }
            if let Some((turn, to, mail, seq)) = self.after[from].pop_front() {
                let batch = Batch { seq, turn, from, letters: mail.into() };
                self.mailboxes[to.index()].push_back(batch);
            }
        }
        drained
    }

    /// Whether [`flush`](Self::flush) would do something.
    pub(crate) fn can_flush(&self, from: usize) -> bool {
        let room = |to: usize| self.mailboxes[to].len() < self.cap;
        self.outboxes[from].iter().enumerate().any(|(to, lane)| !lane.is_empty() && room(to))
            || self.after[from].front().is_some_and(|(_, to, _, _)| room(to.index()))
    }

    pub(crate) fn has_mail(&self, to: usize) -> bool {
        !self.mailboxes[to].is_empty()
    }

    /// Takes the next batch; the receiver feeds all of it, then reports it dead.
    pub(crate) fn receive(&mut self, to: usize) -> Option<Batch> {
        self.mailboxes[to].pop_front()
    }

    /// Batches waiting anywhere.
    pub(crate) fn waiting(&self) -> usize {
        self.mailboxes.iter().map(VecDeque::len).sum::<usize>()
            + self.outboxes.iter().flatten().map(VecDeque::len).sum::<usize>()
            + self.after.iter().map(VecDeque::len).sum::<usize>()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn turn(mesh: &mut Mesh, from: usize, to: usize, turn: u64) -> bool {
        mesh.send(from, to, turn, Mail::StatsAsk.into())
    }

    #[test]
    fn full_mailbox_keeps_order_and_reports_when_it_drained() {
        let mut mesh = Mesh::new(2, 1);
        assert!(!turn(&mut mesh, 0, 1, 1));
        assert!(turn(&mut mesh, 0, 1, 2) && turn(&mut mesh, 0, 1, 3));
        assert!(mesh.flush(0).is_empty(), "there is no room");
        let first = mesh.receive(1).map(|b| b.turn);
        assert!(mesh.flush(0).is_empty(), "one of two moved");
        let second = mesh.receive(1).map(|b| b.turn);
        assert_eq!(mesh.flush(0), [1]);
        assert_eq!((first, second, mesh.receive(1).map(|b| b.turn)), (Some(1), Some(2), Some(3)));
    }

    #[test]
    fn mail_after_waits_for_older_mail_to_any_shard() {
        let mut mesh = Mesh::new(3, 1);
        turn(&mut mesh, 0, 1, 1);
        turn(&mut mesh, 0, 1, 2); // waits at its sender
        mesh.send_after(0, ShardId(2), 3, Mail::StatsAsk);
        mesh.flush(0);
        assert!(!mesh.has_mail(2), "older mail to shard 1 is not sent");
        mesh.receive(1);
        mesh.flush(0);
        assert!(mesh.has_mail(2));
    }

    #[test]
    fn an_epoch_ends_when_all_that_was_under_way_is_done() {
        let mut epochs = Epochs::default();
        let a = epochs.born();
        epochs.died(a);
        let start = epochs.now();
        assert_eq!(start, SETTLED, "nothing is under way: all is settled");
        let (a, b) = (epochs.born(), epochs.born());
        epochs.died(a);
        assert_eq!(epochs.now(), start + 1);
        let c = epochs.born();
        epochs.died(b);
        assert_eq!(epochs.now(), start + 2);
        epochs.died(c);
        assert!(epochs.idle() && epochs.now() > start + 2);
    }
}
