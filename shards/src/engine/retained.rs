//! Retained messages of the topics that this shard owns.

use super::message::Message;
use std::sync::Arc;

/// Lives on: each shard, for the topics whose hash it owns.
#[derive(Debug)]
pub struct RetainedStore {}

/// What [`RetainedStore::set`] did.
#[derive(Debug)]
pub enum RetainedSet {
    /// The topic had no retained message.
    New,
    /// It had this one.
    Replaced(Arc<Message>),
}

/// The message was not stored; an older one of the topic stays.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the retained store is full")]
pub struct RetainedFull;

/// Where a replay stands. Survives any change to the store.
#[derive(Clone, Debug, Default)]
pub struct RetainedCursor {}

impl RetainedStore {
    /// An empty store that takes at most `max_count` messages and `max_bytes` bytes of them
    /// ([`Message::queue_bytes`]).
    #[must_use]
    pub fn new(max_count: usize, max_bytes: usize, seed: u64) -> Self {
        let _ = (max_count, max_bytes, seed);
        Self {}
    }

    /// Stores `msg` as the retained message of its topic. (A zero-byte one is a
    /// [`clear`](Self::clear), the caller's part. [S-43])
    ///
    /// # Errors
    /// [`RetainedFull`]; nothing has changed then.
    pub fn set(&mut self, msg: Arc<Message>) -> Result<RetainedSet, RetainedFull> {
        let _ = msg;
        unimplemented!()
    }

    /// Removes the topic's retained message. [S-43] [S-45]
    pub fn clear(&mut self, topic: &str) -> Option<Arc<Message>> {
        let _ = topic;
        unimplemented!()
    }

    /// The topic's retained message, unless it has expired.
    #[must_use]
    pub fn get(&self, topic: &str, now_ms: u64) -> Option<&Arc<Message>> {
        let _ = (topic, now_ms);
        unimplemented!()
    }

    /// Appends the next messages whose topics match `filter`, at most `max_messages` and, after the
    /// first, `max_bytes`; visits a bounded number of topics. Returns whether the replay is done: if
    /// not, call again with the same filter and cursor, even when nothing was appended.
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
        let _ = (filter, cursor, max_messages, max_bytes, now_ms, out);
        unimplemented!()
    }

    /// Removes up to `max` messages that have expired at `now_ms`; returns how many.
    pub fn expire(&mut self, now_ms: u64, max: usize) -> usize {
        let _ = (now_ms, max);
        unimplemented!()
    }

    /// When [`expire`](Self::expire) next has something to do, ms.
    #[must_use]
    pub fn next_expiry_ms(&self) -> Option<u64> {
        unimplemented!()
    }

    /// Messages stored.
    #[must_use]
    pub fn len(&self) -> usize {
        0
    }

    /// Whether nothing is stored.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Bytes of the messages stored, as limited by `max_bytes`.
    #[must_use]
    pub fn message_bytes(&self) -> usize {
        0
    }

    /// Bytes that the index itself holds, without the messages.
    #[must_use]
    pub fn index_bytes(&self) -> usize {
        0
    }
}
