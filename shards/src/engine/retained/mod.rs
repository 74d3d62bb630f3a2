//! Retained messages of the topics that this shard owns.
//!
//! A tree of topic levels; replays walk it in pages, each bounded, and hold only a cursor. Decision
//! record 0013 has the measurements.

mod replay;
#[cfg(all(test, not(ringmain_loom)))]
mod tests;
mod tree;

use super::message::Message;
pub use replay::RetainedCursor;
use replay::Walk;
use std::collections::BTreeSet;
use std::sync::Arc;
use tree::Tree;

/// Lives on: each shard, for the topics whose hash it owns.
#[derive(Debug)]
pub struct RetainedStore {
    tree: Tree,
    /// (expiry in ms, node) of the messages that expire.
    expiries: BTreeSet<(u64, u32)>,
    count: usize,
    bytes: usize,
    max_count: usize,
    max_bytes: usize,
}

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

impl RetainedStore {
    /// An empty store that takes at most `max_count` messages and `max_bytes` bytes of them
    /// ([`Message::queue_bytes`]).
    #[must_use]
    pub fn new(max_count: usize, max_bytes: usize, seed: u64) -> Self {
        Self {
            tree: Tree::new(seed),
            expiries: BTreeSet::new(),
            count: 0,
            bytes: 0,
            max_count,
            max_bytes,
        }
    }

    /// Stores `msg` as the retained message of its topic. (A zero-byte one is a
    /// [`clear`](Self::clear), the caller's part. [S-43])
    ///
    /// # Errors
    /// [`RetainedFull`]; nothing has changed then. Messages that have expired but were not yet
    /// removed by [`expire`](Self::expire) count.
    pub fn set(&mut self, msg: Arc<Message>) -> Result<RetainedSet, RetainedFull> {
        let size = msg.queue_bytes();
        let found = self.tree.find(msg.topic());
        let old = found.and_then(|id| self.tree.node(id).message.as_ref());
        let old_size = old.map_or(0, |m| m.queue_bytes());
        if self.bytes - old_size + size > self.max_bytes
            || old.is_none() && self.count >= self.max_count
        {
            return Err(RetainedFull);
        }
        let id = found.unwrap_or_else(|| self.tree.find_or_insert(msg.topic()));
        if let Some(at) = expiry_ms(&msg) {
            self.expiries.insert((at, id));
        }
        let old = self.tree.node_mut(id).message.replace(Arc::clone(&msg));
        self.bytes = self.bytes - old_size + size;
        let Some(old) = old else {
            self.count += 1;
            return Ok(RetainedSet::New);
        };
        if let Some(at) = expiry_ms(&old).filter(|at| Some(*at) != expiry_ms(&msg)) {
            self.expiries.remove(&(at, id));
        }
        Ok(RetainedSet::Replaced(old))
    }

    /// Removes the topic's retained message; others, also of topics below, stay. [S-43] [S-45]
    pub fn clear(&mut self, topic: &str) -> Option<Arc<Message>> {
        let id = self.tree.find(topic)?;
        self.take(id)
    }

    /// The topic's retained message, unless it has expired.
    #[must_use]
    pub fn get(&self, topic: &str, now_ms: u64) -> Option<&Arc<Message>> {
        let id = self.tree.find(topic)?;
        self.tree.node(id).message.as_ref().filter(|m| !m.is_expired(now_ms))
    }

    /// Appends the next messages whose topics match `filter`, at most `max_messages` and `max_bytes`,
    /// but at least one if there is one; looks at a bounded number of levels. Returns whether the
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
        Walk::new(&self.tree, filter).page(cursor, max_messages, max_bytes, now_ms, out)
    }

    /// Removes up to `max` messages that have expired at `now_ms`; returns how many. [S-11]
    pub fn expire(&mut self, now_ms: u64, max: usize) -> usize {
        let mut removed = 0;
        while removed < max
            && let Some((at, id)) = self.expiries.first().copied()
            && at <= now_ms
        {
            self.take(id);
            removed += 1;
        }
        removed
    }

    /// When [`expire`](Self::expire) next has something to do, ms.
    #[must_use]
    pub fn next_expiry_ms(&self) -> Option<u64> {
        self.expiries.first().map(|(at, _)| *at)
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

    /// Bytes of the messages stored, as limited by `max_bytes`.
    #[must_use]
    pub fn message_bytes(&self) -> usize {
        self.bytes
    }

    /// Bytes that the index itself holds, without the messages; the part in B-trees is estimated.
    #[must_use]
    pub fn index_bytes(&self) -> usize {
        self.tree.bytes() + self.expiries.len() * 24
    }

    fn take(&mut self, id: u32) -> Option<Arc<Message>> {
        let old = self.tree.node_mut(id).message.take()?;
        if let Some(at) = expiry_ms(&old) {
            self.expiries.remove(&(at, id));
        }
        self.count -= 1;
        self.bytes -= old.queue_bytes();
        self.tree.prune(id);
        Some(old)
    }
}

fn expiry_ms(message: &Message) -> Option<u64> {
    (message.expiry_s != u32::MAX)
        .then(|| message.created_ms.saturating_add(u64::from(message.expiry_s) * 1000))
}
