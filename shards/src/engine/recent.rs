//! What the topics of lately led to.
//!
//! Most publishers say the same topics over and over, and finding out where one leads is half of the
//! engine's work for a small message. So a shard keeps the answers of its last few hundred topics:
//! which shards may have subscribers, and which of its own filters match. An answer holds as long as
//! nobody adds or removes a filter: table and index count their changes.

use super::ids::ShardSet;
use super::subs::FilterId;

/// Answers kept. A place is picked by publisher and topic; the last one there stays. 64 KiB a shard:
/// twice that no longer stays in the core's own cache beside the rest.
const ENTRIES: usize = 512;
/// Longer topics are not kept.
const TOPIC_MAX: usize = 62;
/// Nor are answers with more filters.
const FILTERS_MAX: usize = 4;
/// Number of changes that no table ever counts to.
const NEVER: u64 = u64::MAX;

/// Lives on: each shard.
///
/// Invariant: an answer is given only for the number of changes that it was found at.
#[derive(Debug)]
pub(crate) struct Recent {
    entries: Box<[Entry]>,
}

#[derive(Clone, Copy, Debug)]
#[repr(align(64))]
struct Entry {
    /// Changes of the route table when `shards` was found.
    shards_at: u64,
    /// Changes of the subscription index when `filters` were found.
    filters_at: u64,
    topic_len: u8,
    filters_len: u8,
    topic: [u8; TOPIC_MAX],
    filters: [FilterId; FILTERS_MAX],
    shards: ShardSet,
}

const _: () = assert!(size_of::<Entry>() == 128, "two cache lines");

const EMPTY: Entry = Entry {
    shards_at: NEVER,
    filters_at: NEVER,
    topic_len: 0,
    filters_len: 0,
    topic: [0; TOPIC_MAX],
    filters: [FilterId(0); FILTERS_MAX],
    shards: ShardSet::EMPTY,
};

impl Default for Recent {
    fn default() -> Self {
        Self { entries: vec![EMPTY; ENTRIES].into() }
    }
}

impl Recent {
    /// The place of a publisher's topic. `publisher` is a seeded hash, so nobody can aim at a place.
    fn place(publisher: u64, topic: &str) -> usize {
        const SPREAD: u64 = 0x9e37_79b9_7f4a_7c15;
        // Topics of one publisher differ at their end.
        let tail = topic.as_bytes().last_chunk::<8>().map_or(0, |tail| u64::from_le_bytes(*tail));
        let mixed = (publisher ^ tail.wrapping_mul(SPREAD)).wrapping_mul(SPREAD);
        (mixed >> (u64::BITS - ENTRIES.ilog2())) as usize
    }

    fn find(&self, publisher: u64, topic: &str) -> Option<&Entry> {
        let entry = &self.entries[Self::place(publisher, topic)];
        let known = entry.topic.get(..usize::from(entry.topic_len))?;
        (known == topic.as_bytes()).then_some(entry)
    }

    /// The entry of a topic; another topic's makes way.
    fn claim(&mut self, publisher: u64, topic: &str) -> Option<&mut Entry> {
        let entry = &mut self.entries[Self::place(publisher, topic)];
        let len = usize::from(entry.topic_len);
        if entry.topic[..len] != *topic.as_bytes() {
            let place = entry.topic.get_mut(..topic.len())?;
            place.copy_from_slice(topic.as_bytes());
            entry.topic_len = topic.len() as u8;
            (entry.shards_at, entry.filters_at) = (NEVER, NEVER);
        }
        Some(entry)
    }

    /// The shards that a topic led to when the route table had changed `changes` times.
    pub(crate) fn shards(&self, publisher: u64, topic: &str, changes: u64) -> Option<ShardSet> {
        let entry = self.find(publisher, topic)?;
        (entry.shards_at == changes).then_some(entry.shards)
    }

    /// Keeps what the route table said after it had changed `changes` times. The number is taken
    /// *before* asking: a change in between makes the answer void, not wrong.
    pub(crate) fn keep_shards(
        &mut self,
        publisher: u64,
        topic: &str,
        changes: u64,
        shards: ShardSet,
    ) {
        if let Some(entry) = self.claim(publisher, topic) {
            (entry.shards_at, entry.shards) = (changes, shards);
        }
    }

    /// The filters that a topic matched when the index had changed `changes` times.
    pub(crate) fn filters(&self, publisher: u64, topic: &str, changes: u64) -> Option<&[FilterId]> {
        let entry = self.find(publisher, topic)?;
        (entry.filters_at == changes).then(|| &entry.filters[..usize::from(entry.filters_len)])
    }

    /// Keeps what the index said.
    pub(crate) fn keep_filters(
        &mut self,
        publisher: u64,
        topic: &str,
        changes: u64,
        filters: &[FilterId],
    ) {
        if filters.len() > FILTERS_MAX {
            return;
        }
        if let Some(entry) = self.claim(publisher, topic) {
            entry.filters[..filters.len()].copy_from_slice(filters);
            entry.filters_len = filters.len() as u8;
            entry.filters_at = changes;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::ids::ShardId;

    fn set(shard: u16) -> ShardSet {
        let mut set = ShardSet::EMPTY;
        set.insert(ShardId(shard));
        set
    }

    #[test]
    fn an_answer_holds_until_something_changes() {
        let mut recent = Recent::default();
        assert_eq!(recent.shards(1, "a/b", 0), None);
        recent.keep_shards(1, "a/b", 7, set(3));
        recent.keep_filters(1, "a/b", 2, &[FilterId(5), FilterId(6)]);
        assert_eq!(recent.shards(1, "a/b", 7), Some(set(3)));
        assert_eq!(recent.filters(1, "a/b", 2), Some(&[FilterId(5), FilterId(6)][..]));
        assert_eq!(recent.shards(1, "a/b", 8), None);
        assert_eq!(recent.filters(1, "a/b", 3), None);
    }

    #[test]
    fn an_answer_is_for_its_whole_topic_only() {
        // All these share a place: the last 8 bytes are the same, or there are fewer.
        let mut recent = Recent::default();
        recent.keep_shards(1, "x/temperature", 0, set(1));
        for other in ["y/temperature", "temperature", "x/y/temperature"] {
            assert_eq!(recent.shards(1, other, 0), None, "{other}");
        }
        recent.keep_filters(1, "y/temperature", 0, &[]);
        assert_eq!(recent.shards(1, "y/temperature", 0), None, "the answer of another topic");
        recent.keep_filters(1, "s", 0, &[FilterId(1)]);
        assert_eq!(recent.filters(1, "t", 0), None);
    }

    #[test]
    fn what_is_too_large_is_not_kept() {
        let mut recent = Recent::default();
        let longest = "t".repeat(TOPIC_MAX);
        let longer = "t".repeat(TOPIC_MAX + 1);
        recent.keep_shards(1, &longest, 0, set(1));
        recent.keep_shards(1, &longer, 0, set(2));
        assert_eq!(recent.shards(1, &longest, 0), Some(set(1)));
        assert_eq!(recent.shards(1, &longer, 0), None);
        recent.keep_filters(1, "many", 0, &[FilterId(1); FILTERS_MAX + 1]);
        assert_eq!(recent.filters(1, "many", 0), None);
    }
}
