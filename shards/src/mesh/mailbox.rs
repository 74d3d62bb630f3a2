//! The mailbox of one shard.

use std::fmt;

use crossbeam::queue::ArrayQueue;

use ringmain_transport::Stack;

use super::sleep::SleepFlag;
use crate::engine::ids::ShardId;
use crate::engine::mail::Parcel;
use crate::engine::packed::Batch;

/// What lies in a mailbox.
#[derive(Debug)]
pub enum Delivery {
    /// All mail of one sender's turn for this shard.
    Batch {
        /// The sender.
        from: ShardId,
        /// When it was sent, in [`Recorder::tick`](crate::observe::Recorder::tick).
        sent: u32,
        /// At least one mail, in the order sent.
        batch: Batch,
    },
    /// A connection that moved here. Its descriptor is in the table of one of this shard's rings
    /// already.
    Arrived {
        /// Index of the ring in this shard.
        ring: u16,
        /// Slot in the ring's table of direct descriptors.
        slot: u32,
        /// What the accepting shard learned.
        parcel: Box<Parcel>,
        /// What lies between its socket and MQTT, if anything does.
        layers: Option<Box<Carried>>,
    },
}

/// The layers of a connection that moves.
pub struct Carried {
    /// TLS, WebSocket.
    pub stack: Stack,
    /// Bytes of the socket that are not MQTT yet.
    pub unread: Vec<u8>,
}

impl fmt::Debug for Carried {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Carried").field("unread", &self.unread.len()).finish_non_exhaustive()
    }
}

const _: () = assert!(
    size_of::<Delivery>() + size_of::<usize>() <= 64,
    "a slot of the queue is one cache line"
);

/// Lives on: the node; any shard pushes, its owner pops.
///
/// Invariant: one queue, so deliveries come out in the one order in which they went in.
#[derive(Debug)]
pub struct Mailbox {
    queue: ArrayQueue<Delivery>,
    /// Whether the owner sleeps in the kernel.
    pub sleep: SleepFlag,
}

impl Mailbox {
    /// A mailbox for at most `batches` deliveries (at least 1). Above the bound senders keep their
    /// mail in an outbox and their machine is told that the lane is full.
    #[must_use]
    pub fn new(batches: usize) -> Self {
        Self { queue: ArrayQueue::new(batches.max(1)), sleep: SleepFlag::default() }
    }

    /// Puts a delivery in; gives it back when the mailbox is full.
    ///
    /// # Errors
    ///
    /// The delivery itself, when there is no room.
    #[allow(clippy::result_large_err, reason = "the value goes back to the caller's queue")]
    pub fn push(&self, delivery: Delivery) -> Result<(), Delivery> {
        self.queue.push(delivery)
    }

    /// Takes the oldest delivery. Only the owner calls this.
    pub fn pop(&self) -> Option<Delivery> {
        self.queue.pop()
    }

    /// Whether nothing lies in it.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }
}
