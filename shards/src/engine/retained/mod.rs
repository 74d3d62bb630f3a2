//! Retained messages of the topics that this shard owns.
//!
//! Topics in order, in leaves of some dozens that share what they begin with; a message lies with its
//! topic and is made anew when it is replayed. Replays walk in pages, each bounded, and hold only the text
//! where to go on. Decision record 0013 has the measurements.

mod leaf;
mod leaves;
mod record;
mod replay;
#[cfg(all(test, not(ringmain_loom)))]
mod tests;

use super::message::Message;
use leaves::Leaves;
pub use replay::RetainedCursor;
use replay::{Page, Walk};
use smallvec::SmallVec;
use std::sync::Arc;

/// Lives on: each shard, for the topics whose hash it owns.
#[derive(Debug)]
pub struct RetainedStore {
    leaves: Leaves,
    count: usize,
    bytes: usize,
    max_count: usize,
    max_bytes: usize,
    /// For the record that is being written.
    record: Vec<u8>,
}

/// What [`RetainedStore::set`] did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RetainedSet {
    /// The topic had no retained message.
    New,
    /// It had one.
    Replaced,
}

/// The message was not stored; an older one of the topic stays.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the retained store is full")]
pub struct RetainedFull;

impl RetainedStore {
    /// An empty store that takes at most `max_count` messages and `max_bytes` bytes of them
    /// ([`message_bytes`](Self::message_bytes)).
    #[must_use]
    pub fn new(max_count: usize, max_bytes: usize) -> Self {
        let leaves = Leaves::new();
        Self { leaves, count: 0, bytes: 0, max_count, max_bytes, record: Vec::new() }
    }

    /// Stores `msg` as the retained message of its topic. (A zero-byte one is a
    /// [`clear`](Self::clear), the caller's part. [S-43])
    ///
    /// # Errors
    /// [`RetainedFull`]; nothing has changed then. Messages that have expired but were not yet
    /// removed by [`expire`](Self::expire) count.
    pub fn set(&mut self, msg: Arc<Message>) -> Result<RetainedSet, RetainedFull> {
        let key = key_of(msg.topic());
        let size = record::charge(&msg);
        let Self { count, bytes, max_count, max_bytes, .. } = *self;
        let put = self.leaves.put(&key, &mut self.record, |old, big, record| {
            let others = bytes - old.map_or(0, |old| old.charge);
            if others + size > max_bytes || old.is_none() && count >= max_count {
                return false;
            }
            if record::is_big(&msg) {
                record::write_big(big.insert(msg), record);
            } else {
                record::write(&msg, record);
            }
            true
        });
        let Some(old) = put else { return Err(RetainedFull) };
        self.bytes = bytes + size - old.map_or(0, |old| old.charge);
        if old.is_some() {
            return Ok(RetainedSet::Replaced);
        }
        self.count += 1;
        Ok(RetainedSet::New)
    }

    /// Removes the topic's retained message; others, also of topics below, stay. Whether it had one.
    /// [S-43] [S-45]
    pub fn clear(&mut self, topic: &str) -> bool {
        let Some(old) = self.leaves.remove(&key_of(topic)) else { return false };
        self.count -= 1;
        self.bytes -= old.charge;
        true
    }

    /// The topic's retained message, unless it has expired.
    #[must_use]
    pub fn get(&self, topic: &str, now_ms: u64) -> Option<Arc<Message>> {
        let key = key_of(topic);
        let record = self.leaves.get(&key).filter(|r| !r.lifetime().is_over(now_ms))?;
        let mut page = Page::default();
        page.push(&key, &record);
        page.messages().next()
    }

    /// What the topic's retained message has in [`message_bytes`](Self::message_bytes), unless it has
    /// expired.
    #[must_use]
    pub fn bytes_of(&self, topic: &str, now_ms: u64) -> Option<usize> {
        let record = self.leaves.get(&key_of(topic)).filter(|r| !r.lifetime().is_over(now_ms))?;
        Some(record.charge(topic.len()))
    }

    /// Appends the next messages whose topics match `filter`, at most `max_messages` and `max_bytes`,
    /// but at least one if there is one; looks at a bounded number of topics. Returns whether the
    /// replay is done: if not, call again with the same filter and cursor, even when nothing was
    /// appended.
    ///
    /// A topic that has a message from the first call to the last is returned exactly once. [S-44]
    pub fn page(
        &self,
        filter: &str,
        cursor: &mut RetainedCursor,
        max_messages: usize,
        max_bytes: usize,
        now_ms: u64,
        out: &mut Vec<Arc<Message>>,
    ) -> bool {
        let mut page = Page::new(max_messages, max_bytes, now_ms);
        let done = Walk::new(&self.leaves, filter).fill(cursor, &mut page);
        out.extend(page.messages());
        done
    }

    /// Removes up to `max` messages that have expired at `now_ms`; returns how many. [S-11]
    pub fn expire(&mut self, now_ms: u64, max: usize) -> usize {
        let mut removed = 0;
        while removed < max && self.leaves.due_ms().is_some_and(|at| at <= now_ms) {
            self.leaves.expire(now_ms, max - removed, |old| {
                removed += 1;
                self.bytes -= old.charge;
            });
        }
        self.count -= removed;
        removed
    }

    /// When [`expire`](Self::expire) next has something to do, ms.
    #[must_use]
    pub fn next_expiry_ms(&self) -> Option<u64> {
        self.leaves.due_ms()
    }

    /// Messages stored.
    #[must_use]
    pub fn len(&self) -> usize {
        self.count
    }

    /// Whether nothing is stored.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Bytes of the messages stored, as limited by `max_bytes`: [`Message::queue_bytes`] of what a
    /// replay would return.
    #[must_use]
    pub fn message_bytes(&self) -> usize {
        self.bytes
    }

    /// Bytes that the store holds, messages and all; the part in B-trees is estimated. Topics that
    /// begin alike share that, so it can be less than [`content_bytes`](Self::content_bytes).
    #[must_use]
    pub fn memory_bytes(&self) -> usize {
        self.leaves.bytes() + self.record.capacity()
    }

    /// Bytes of topics, properties and payloads.
    #[must_use]
    pub fn content_bytes(&self) -> usize {
        self.bytes - self.count * size_of::<Message>()
    }
}

/// The key of a topic. U+0000 for '/', so that what lies below a level follows it at once.
fn key_of(topic: &str) -> SmallVec<[u8; 128]> {
    let mut key = SmallVec::from_slice(topic.as_bytes());
    for b in &mut key {
        if *b == b'/' {
            *b = 0;
        }
    }
    key
}
