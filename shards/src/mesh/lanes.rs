//! The sender's side of the mesh: one lane to each peer.

use std::collections::VecDeque;
use std::sync::Arc;

use super::mailbox::{Carried, Delivery, Mailbox};
use crate::engine::effects::Effects;
use crate::engine::ids::{ShardId, ShardSet};
use crate::engine::mail::{Mail, Parcel};
use crate::engine::packed::Batch;

/// Waiting batches of one lane are merged up to this many mails, so that a long wait costs few
/// mailbox entries. Above it the receiver's turn would grow without bound.
const MERGED_BATCH_MAX: usize = 256;
/// Empty batches kept for reuse: those that came in as mail go out again as mail.
const SPARE_MAX: usize = 64;
/// A batch that held a burst is not kept: neither so many mails,
const SPARE_CAPACITY_MAX: usize = 1024;
/// nor so many packed bytes.
const SPARE_PACKED_MAX: usize = 128 * 1024;

/// What the lanes of one shard did. Written by the shard alone.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LaneCounts {
    /// Mails sent.
    pub mails: u64,
    /// Mailbox entries pushed (batches and connections).
    pub batches: u64,
    /// Wakes owed to sleeping peers.
    pub wakes: u64,
    /// Times that a lane went from open to full.
    pub full: u64,
    /// Most deliveries that ever waited in outboxes at one time.
    pub waiting_peak: u64,
    /// Writes by which the mesh coordinates, to cache lines that other shards read or write as well.
    /// One for each line and step: a push writes the tail of the queue and its slot
    /// (of as many lines as it fills), a pop the head and the slot's stamp, and one each is a sleep announced, a
    /// sleep ended, and a sleeper's flag taken down by who wakes it. Looking writes nothing: neither a
    /// pop from an empty queue, nor a push to a full one, nor a look at a flag that is down. What the
    /// control plane does is not counted, nor what the kernel writes for a wake: see `wakes`.
    pub line_writes: u64,
    /// Cache lines of mail given away: those that a batch's mails and packed bytes fill. They are
    /// written here and read there, however mail is sent. Payloads too large to be packed are not
    /// among them; of those only a reference goes along.
    pub mail_lines: u64,
}

/// What other cores see changes by lines of so many bytes.
const LINE: usize = 64;
/// Lines that a slot of the mailbox's queue takes: the delivery and a stamp.
const SLOT_LINES: u64 = (size_of::<Delivery>() + size_of::<usize>()).div_ceil(LINE) as u64;
/// A push writes the tail and the slot.
const PUSH_WRITES: u64 = 1 + SLOT_LINES;
/// A pop writes the head and the slot's stamp.
const POP_WRITES: u64 = 2;

/// Lives on: the sending shard.
///
/// Invariant: a lane is a FIFO. While its outbox holds anything, new mail goes behind it. The outbox
/// is bounded by the machine: it is told of a full lane ([`Effects::lanes_full`]) and stops reading
/// the publishers that feed it; mail that must not be lost is accepted always.
#[derive(Debug)]
pub struct Lanes {
    me: ShardId,
    mailboxes: Arc<[Mailbox]>,
    outboxes: Vec<VecDeque<Waiting>>,
    waiting: usize,
    after: VecDeque<(u64, ShardId, Mail)>,
    turn: u64,
    /// When the mail of this turn is sent.
    sent: u32,
    full: ShardSet,
    drained: Vec<ShardId>,
    pushed: Vec<ShardId>,
    is_pushed: ShardSet,
    spare: Vec<Batch>,
    counts: LaneCounts,
}

#[derive(Debug)]
struct Waiting {
    turn: u64,
    delivery: Delivery,
}

impl Lanes {
    /// The lanes of shard `me` to all `mailboxes` (its own among them).
    #[must_use]
    pub fn new(me: ShardId, mailboxes: Arc<[Mailbox]>) -> Self {
        let outboxes = mailboxes.iter().map(|_| VecDeque::new()).collect();
        Self {
            me,
            mailboxes,
            outboxes,
            waiting: 0,
            after: VecDeque::new(),
            turn: 0,
            sent: 0,
            full: ShardSet::EMPTY,
            drained: Vec::new(),
            pushed: Vec::new(),
            is_pushed: ShardSet::EMPTY,
            spare: Vec::new(),
            counts: LaneCounts::default(),
        }
    }

    /// This shard's own mailbox.
    #[must_use]
    pub fn mailbox(&self) -> &Mailbox {
        &self.mailboxes[self.me.index()]
    }

    /// Takes the oldest delivery of this shard's own mailbox.
    pub fn pop(&mut self) -> Option<Delivery> {
        let delivery = self.mailbox().pop();
        self.counts.line_writes += if delivery.is_some() { POP_WRITES } else { 0 };
        delivery
    }

    /// See [`SleepFlag::announce`](super::SleepFlag::announce).
    pub fn announce_sleep(&mut self) {
        self.mailbox().sleep.announce();
        self.counts.line_writes += 1;
    }

    /// See [`SleepFlag::wake_up`](super::SleepFlag::wake_up).
    pub fn wake_up(&mut self) {
        self.mailbox().sleep.wake_up();
        self.counts.line_writes += 1;
    }

    /// What the lanes did so far.
    #[must_use]
    pub fn counts(&self) -> LaneCounts {
        self.counts
    }

    /// Peers that have no room. To be copied to [`Effects::lanes_full`].
    #[must_use]
    pub fn full(&self) -> ShardSet {
        self.full
    }

    /// Whether anything waits at the sender. If so, do not sleep for longer than a moment: nobody
    /// wakes the sender when room appears.
    #[must_use]
    pub fn is_waiting(&self) -> bool {
        self.waiting != 0 || !self.after.is_empty() || !self.full.is_empty()
    }

    /// Whether [`pop_drained`](Self::pop_drained) has something.
    #[must_use]
    pub fn has_drained(&self) -> bool {
        !self.drained.is_empty()
    }

    /// Takes one lane that was full and is open again.
    pub fn pop_drained(&mut self) -> Option<ShardId> {
        self.drained.pop()
    }

    /// Sends the mail of a turn: first what waits, then `fx.mail`, then `fx.mail_after` if nothing
    /// older than it waits on any lane. Call [`pop_wake`](Self::pop_wake) afterwards.
    pub fn send_turn(&mut self, fx: &mut Effects) {
        self.turn += 1;
        self.retry();
        let mails = fx.mail.iter().any(|batch| !batch.is_empty());
        if mails || !fx.mail_after.is_empty() {
            self.sent = fx.observe.tick();
        }
        for ix in 0..fx.mail.len() {
            if !fx.mail[ix].is_empty() {
                let empty = self.spare.pop().unwrap_or_default();
                let batch = std::mem::replace(&mut fx.mail[ix], empty);
                self.counts.mails += batch.len() as u64;
                self.send(
                    ShardId(ix as u16),
                    Delivery::Batch { from: self.me, sent: self.sent, batch },
                );
            }
        }
        let turn = self.turn;
        self.after.extend(fx.mail_after.drain(..).map(|(to, mail)| (turn, to, mail)));
        self.send_after();
    }

    /// Sends a moved connection: in order with the mail of this and earlier turns.
    pub fn send_connection(
        &mut self,
        to: ShardId,
        (ring, slot): (u16, u32),
        parcel: Box<Parcel>,
        layers: Option<Box<Carried>>,
    ) {
        self.send(to, Delivery::Arrived { ring, slot, parcel, layers });
    }

    /// Takes one peer that sleeps and was sent something: it is owed one wake. Call until `None`
    /// when all of a turn is sent.
    pub fn pop_wake(&mut self) -> Option<ShardId> {
        while let Some(to) = self.pushed.pop() {
            self.is_pushed.remove(to);
            if to != self.me && self.mailboxes[to.index()].sleep.must_wake() {
                self.counts.wakes += 1;
                self.counts.line_writes += 1;
                return Some(to);
            }
        }
        None
    }

    /// Gives the memory of a received batch back for reuse.
    pub fn recycle(&mut self, mut batch: Batch) {
        batch.clear();
        let small = batch.mail.capacity() <= SPARE_CAPACITY_MAX
            && batch.packed.capacity() <= SPARE_PACKED_MAX;
        if self.spare.len() < SPARE_MAX && small {
            self.spare.push(batch);
        }
    }

    fn send(&mut self, to: ShardId, delivery: Delivery) {
        if self.outboxes[to.index()].is_empty() {
            match self.push(to, delivery) {
                Ok(()) => {}
                Err(back) => {
                    self.mark_full(to);
                    self.wait(to, back);
                }
            }
        } else {
            self.wait(to, delivery);
        }
    }

    #[allow(clippy::result_large_err, reason = "the value goes back to the outbox")]
    fn push(&mut self, to: ShardId, delivery: Delivery) -> Result<(), Delivery> {
        let lines = match &delivery {
            Delivery::Batch { batch, .. } => lines_of(batch),
            Delivery::Arrived { .. } => 0,
        };
        self.mailboxes[to.index()].push(delivery)?;
        self.counts.batches += 1;
        self.counts.line_writes += PUSH_WRITES;
        self.counts.mail_lines += lines;
        if !self.is_pushed.contains(to) {
            self.is_pushed.insert(to);
            self.pushed.push(to);
        }
        Ok(())
    }

    fn mark_full(&mut self, to: ShardId) {
        if !self.full.contains(to) {
            self.full.insert(to);
            self.counts.full += 1;
        }
    }

    fn wait(&mut self, to: ShardId, delivery: Delivery) {
        let turn = self.turn;
        let outbox = &mut self.outboxes[to.index()];
        if let (
            Some(Waiting { delivery: Delivery::Batch { batch: last, .. }, .. }),
            Delivery::Batch { batch, .. },
        ) = (outbox.back_mut(), &delivery)
            && last.len() + batch.len() <= MERGED_BATCH_MAX
        {
            let Delivery::Batch { mut batch, .. } = delivery else { unreachable!() };
            last.append(&mut batch);
            return self.recycle(batch);
        }
        outbox.push_back(Waiting { turn, delivery });
        self.waiting += 1;
        self.counts.waiting_peak = self.counts.waiting_peak.max(self.waiting as u64);
    }

    fn retry(&mut self) {
        if self.waiting == 0 && self.full.is_empty() {
            return;
        }
        for to in self.full.iter().collect::<Vec<_>>() {
            while let Some(Waiting { turn, delivery }) = self.outboxes[to.index()].pop_front() {
                self.waiting -= 1;
                if let Err(delivery) = self.push(to, delivery) {
                    self.outboxes[to.index()].push_front(Waiting { turn, delivery });
                    self.waiting += 1;
                    break;
                }
            }
            let parked = self.after.front().is_some_and(|(_, peer, _)| *peer == to);
            if self.outboxes[to.index()].is_empty() && !parked {
                self.full.remove(to);
                self.drained.push(to);
            }
        }
    }

    fn send_after(&mut self) {
        while let Some((turn, to, _)) = self.after.front() {
            let (turn, to) = (*turn, *to);
            // Merging only ever puts younger mail behind an older front, so the front's turn is
            // that of the oldest mail of its lane.
            let older_waits = self.waiting != 0
                && self.outboxes.iter().any(|o| o.front().is_some_and(|w| w.turn <= turn));
            if older_waits {
                return;
            }
            let Some((_, _, mail)) = self.after.pop_front() else { return };
            let mut batch = self.spare.pop().unwrap_or_default();
            batch.mail.push(mail);
            while let Some((next_turn, next, _)) = self.after.front()
                && (*next_turn, *next) == (turn, to)
            {
                batch.mail.extend(self.after.pop_front().map(|(_, _, mail)| mail));
            }
            let mails = batch.len() as u64;
            match self.push(to, Delivery::Batch { from: self.me, sent: self.sent, batch }) {
                Ok(()) => self.counts.mails += mails,
                Err(Delivery::Batch { batch, .. }) => {
                    self.mark_full(to);
                    batch.mail.into_iter().rev().for_each(|m| self.after.push_front((turn, to, m)));
                    return;
                }
                Err(Delivery::Arrived { .. }) => unreachable!("a batch was pushed"),
            }
        }
    }
}

/// Cache lines that a batch's mails and packed bytes fill.
fn lines_of(batch: &Batch) -> u64 {
    let mails = size_of_val(batch.mail.as_slice()).div_ceil(LINE);
    (mails + batch.packed.len().div_ceil(LINE)) as u64
}

#[cfg(test)]
#[path = "lanes_tests.rs"]
mod tests;
