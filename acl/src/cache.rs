//! Decisions that were made lately.
//!
//! One table a shard, not one a client: an idle client costs nothing, and clients with the same
//! rules share what was decided. Each place is one cache line and holds one decision; two that fall
//! on the same place take turns. See docs/adr/0022-acl-compiled.md.

use crate::hash::{hash, same};
use crate::subject::Effect;

/// Places of the table of a shard when nobody says otherwise: 256 KiB, a part of the second-level cache
/// of a core.
pub const CACHE_PLACES: usize = 4096;

/// The longest topic that is kept: what fits into a cache line. Longer ones are decided anew.
const TOPIC_MAX: usize = 54;

/// Of so many misses in taken places one replaces what is there.
const REPLACE_EVERY: u64 = 4;

/// Lives on: shard. A decision is given only for the very view, action and topic it was made for.
#[derive(Debug)]
pub(crate) struct Cache {
    /// A power of two of them, or none.
    places: Box<[Place]>,
    /// The place that was asked for last: who publishes much says one topic many times in a row, and then
    /// no hash is needed.
    latest: usize,
    pub(crate) hits: u64,
    pub(crate) misses: u64,
}

#[derive(Clone, Debug)]
#[repr(C, align(64))]
struct Place {
    /// The view whose decision this is; 0: none.
    view: u64,
    len: u8,
    /// The index of the action, doubled, and whether it is allowed.
    answer: u8,
    topic: [u8; TOPIC_MAX],
}

const _: () = assert!(size_of::<Place>() == 64);

impl Place {
    #[inline]
    fn decision(&self, view: u64, what: u8, topic: &str) -> Option<Effect> {
        let known = &self.topic[..usize::from(self.len).min(TOPIC_MAX)];
        let same = self.view == view && self.answer >> 1 == what && same(known, topic.as_bytes());
        same.then_some(if self.answer & 1 == 1 { Effect::Allow } else { Effect::Deny })
    }
}

const EMPTY: Place = Place { view: 0, len: 0, answer: 0, topic: [0; TOPIC_MAX] };

impl Cache {
    /// With `places` rounded up to a power of two; 0: nothing is kept.
    pub(crate) fn new(places: usize) -> Self {
        let places = if places == 0 { 0 } else { places.next_power_of_two() };
        Self { places: vec![EMPTY; places].into(), latest: 0, hits: 0, misses: 0 }
    }

    /// Forgets everything.
    pub(crate) fn clear(&mut self) {
        self.places.fill(EMPTY);
    }

    /// Bytes that it takes.
    pub(crate) fn bytes(&self) -> usize {
        size_of_val(&*self.places)
    }

    /// Where a decision would stand; `None` if it would not be kept.
    #[inline]
    pub(crate) fn place(&self, view: u64, what: u8, topic: &str) -> Option<usize> {
        if topic.len() > TOPIC_MAX || self.places.is_empty() {
            return None;
        }
        let seed = view.wrapping_mul(16) + u64::from(what);
        Some(hash(seed, topic.as_bytes()) as usize & (self.places.len() - 1))
    }

    /// What was decided, if the same was asked for last.
    #[inline]
    pub(crate) fn again(&self, view: u64, what: u8, topic: &str) -> Option<Effect> {
        self.places.get(self.latest)?.decision(view, what, topic)
    }

    /// What was decided at this place.
    #[inline]
    pub(crate) fn find(&mut self, at: usize, view: u64, what: u8, topic: &str) -> Option<Effect> {
        self.latest = at;
        self.get(at, view, what, topic)
    }

    /// The same, for who only looks.
    #[inline]
    pub(crate) fn get(&self, at: usize, view: u64, what: u8, topic: &str) -> Option<Effect> {
        self.places[at].decision(view, what, topic)
    }

    /// Notes a decision that was not at hand. One of four takes the place of another, so that more
    /// topics than places do not cost a write each time.
    #[inline]
    pub(crate) fn missed(&mut self, at: usize, view: u64, what: u8, topic: &str, effect: Effect) {
        self.misses += 1;
        if self.places[at].view == 0 || self.misses.is_multiple_of(REPLACE_EVERY) {
            self.put(at, view, what, topic, effect);
        }
    }

    fn put(&mut self, at: usize, view: u64, what: u8, topic: &str, effect: Effect) {
        let place = &mut self.places[at];
        place.view = view;
        place.len = topic.len() as u8;
        place.answer = what << 1 | u8::from(effect == Effect::Allow);
        place.topic[..topic.len()].copy_from_slice(topic.as_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_decision_is_for_its_view_action_and_topic_only() {
        // All in the same place, as if their hashes were the same.
        let mut cache = Cache::new(1);
        cache.put(0, 7, 3, "a/b", Effect::Allow);
        assert_eq!(cache.get(0, 7, 3, "a/b"), Some(Effect::Allow));
        for (view, what, topic) in
            [(8, 3, "a/b"), (7, 2, "a/b"), (7, 3, "a/c"), (7, 3, "a/b/"), (7, 3, "a"), (7, 3, "")]
        {
            assert_eq!(cache.get(0, view, what, topic), None, "{view} {what} {topic}");
        }
        cache.put(0, 7, 3, "a", Effect::Deny);
        assert_eq!(cache.get(0, 7, 3, "a"), Some(Effect::Deny));
        assert_eq!(cache.get(0, 7, 3, "a/b"), None);
        cache.clear();
        assert_eq!(cache.get(0, 7, 3, "a"), None);
        assert_eq!(cache.again(7, 3, "a"), None);
    }

    #[test]
    fn what_was_asked_for_last_is_at_hand_without_its_place_and_nothing_else_is() {
        let mut cache = Cache::new(64);
        assert_eq!(cache.again(1, 0, ""), None, "an empty place decides nothing");
        for (at, topic) in [(9, "a/b"), (12, "a/c")] {
            cache.put(at, 7, 3, topic, Effect::Allow);
            assert_eq!(cache.find(at, 7, 3, topic), Some(Effect::Allow));
            assert_eq!(cache.again(7, 3, topic), Some(Effect::Allow));
        }
        for (view, what, topic) in [(7, 3, "a/b"), (8, 3, "a/c"), (7, 2, "a/c"), (7, 3, "a/cc")] {
            assert_eq!(cache.again(view, what, topic), None, "{view} {what} {topic}");
        }
        assert_eq!(Cache::new(0).again(7, 3, "a/c"), None);
    }

    #[test]
    fn what_does_not_fit_is_not_kept() {
        let cache = Cache::new(1000);
        assert_eq!(cache.bytes(), 64 * 1024);
        assert!(cache.place(1, 0, &"x".repeat(TOPIC_MAX)).is_some());
        assert!(cache.place(1, 0, &"x".repeat(TOPIC_MAX + 1)).is_none());
        assert!(Cache::new(0).place(1, 0, "x").is_none());
    }
}
