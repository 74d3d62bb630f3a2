//! The shard's own subscription index: filters to subscribers, exactly.
//!
//! Decision record 0011 has the measurements.

mod shapes;
mod subscribers;
#[cfg(all(test, not(ringmain_loom)))]
mod tests;
pub(crate) mod text;
mod trie;

use super::route::shape::{
    HashedFilter, HashedTopic, LEVELS_FAST, LEVELS_MAX, LevelHasher, filter_matches,
};
use hashbrown::HashTable;
use ringmain_mqtt::QoS;
use shapes::Shapes;
use subscribers::Subscribers;
use text::{TextRef, TextStore};
use trie::Trie;

/// A filter that has at least one subscriber. Reused after its last subscriber is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FilterId(pub u32);

/// Subscription options, packed as the wire has them: `.. rr p n qq` (MQTT 5 §3.8.3.1).
#[derive(Clone, Copy, PartialEq, Eq, Default, Hash)]
pub struct SubOpts(u8);

impl SubOpts {
    /// Packs options. `retain_handling` is 0..=2.
    #[must_use]
    pub fn new(qos: u8, no_local: bool, retain_as_published: bool, retain_handling: u8) -> Self {
        debug_assert!(qos <= 2 && retain_handling <= 2);
        Self(
            (qos & 3)
                | u8::from(no_local) << 2
                | u8::from(retain_as_published) << 3
                | (retain_handling & 3) << 4,
        )
    }

    /// Granted maximum QoS as a number, 0..=2.
    #[must_use]
    pub fn qos_level(self) -> u8 {
        self.0 & 3
    }

    /// No Local. [S-49]
    #[must_use]
    pub fn no_local(self) -> bool {
        self.0 & 4 != 0
    }

    /// Retain As Published. [S-41]
    #[must_use]
    pub fn retain_as_published(self) -> bool {
        self.0 & 8 != 0
    }

    /// Retain Handling, 0..=2. [S-40]
    #[must_use]
    pub fn retain_handling(self) -> u8 {
        self.0 >> 4 & 3
    }

    /// The packed byte.
    #[must_use]
    pub fn bits(self) -> u8 {
        self.0
    }

    /// From [`bits`](Self::bits) or from the options byte of SUBSCRIBE, already validated.
    #[must_use]
    pub fn from_bits(bits: u8) -> Self {
        Self(bits)
    }
}

impl std::fmt::Debug for SubOpts {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SubOpts")
            .field("qos", &self.qos_level())
            .field("no_local", &self.no_local())
            .field("retain_as_published", &self.retain_as_published())
            .field("retain_handling", &self.retain_handling())
            .finish()
    }
}

/// One subscription of one session (or of a shared group) to one filter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Subscriber {
    /// Opaque handle of whoever subscribed.
    pub session: u32,
    /// Subscription Identifier, 0 = none.
    pub subscription_id: u32,
    /// Options.
    pub opts: SubOpts,
}

const _: () = assert!(size_of::<Subscriber>() == 12);

/// What [`SubIndex::subscribe`] did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Subscribed {
    /// The filter's id, valid while it has a subscriber.
    pub filter: FilterId,
    /// The options that the session's subscription to this filter had before, if it existed. [S-40]
    pub replaced: Option<SubOpts>,
    /// This is the filter's first subscriber: insert a route.
    pub first_of_filter: bool,
}

/// What [`SubIndex::unsubscribe`] did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unsubscribed {
    /// The options that the subscription had.
    pub opts: SubOpts,
    /// The filter has no subscriber any more, its id is no longer valid: remove the route.
    pub last_of_filter: bool,
}

/// Exact index of one shard's subscriptions. Lives on: each shard.
///
/// Each filter is in one hash table; those of the commoner shapes are found there by the hashes that
/// a matching filter would have, one probe per shape. Filters of further shapes are in a trie too.
#[derive(Debug)]
pub struct SubIndex {
    hasher: LevelHasher,
    texts: TextStore,
    entries: Slab,
    index: HashTable<u32>,
    shapes: Shapes,
    trie: Trie,
    /// Subscribers of filters that have several.
    many: Vec<Subscribers>,
    many_free: Vec<u32>,
    many_bytes: usize,
    subscriptions: usize,
    /// Filters added and removed so far.
    changes: u64,
}

const NONE: u32 = u32::MAX;

/// A filter. While it is free, `many` is the next free one.
#[derive(Clone, Copy, Debug)]
struct Entry {
    text: TextRef,
    hash: u32,
    /// The only subscriber, unless there are `many`.
    one: Subscriber,
    many: u32,
}

const _: () = assert!(size_of::<Entry>() == 24);

impl SubIndex {
    /// An empty index.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self {
            hasher: LevelHasher::new(seed),
            texts: TextStore::new(),
            entries: Slab::default(),
            index: HashTable::new(),
            shapes: Shapes::default(),
            trie: Trie::new(),
            many: Vec::new(),
            many_free: Vec::new(),
            many_bytes: 0,
            subscriptions: 0,
            changes: 0,
        }
    }

    /// Adds or replaces the subscription of `session` to `filter` (valid, and without `$share/…/`).
    /// `subscription_id` is 0 for none: replacing without one removes it. [S-48]
    pub fn subscribe(
        &mut self,
        filter: &str,
        session: u32,
        opts: SubOpts,
        subscription_id: u32,
    ) -> Subscribed {
        let subscriber = Subscriber { session, subscription_id, opts };
        let hashed = self.hasher.filter(filter);
        let hash = self.entry_hash(&hashed, filter);
        let Some(id) = self.find_hashed(hash, filter) else {
            let id = self.add_filter(filter, &hashed, hash, subscriber);
            self.subscriptions += 1;
            return Subscribed { filter: id, replaced: None, first_of_filter: true };
        };
        let replaced = self.put(id, subscriber);
        self.subscriptions += usize::from(replaced.is_none());
        Subscribed { filter: id, replaced, first_of_filter: false }
    }

    /// Removes the subscription of `session` to the filter. O(1). Call [`filter_str`](Self::filter_str)
    /// first if the text is still wanted.
    pub fn unsubscribe(&mut self, filter: FilterId, session: u32) -> Option<Unsubscribed> {
        let entry = *self.entries.get(filter)?;
        if entry.many == NONE {
            if entry.one.session != session {
                return None;
            }
            self.remove_filter(filter);
            self.subscriptions -= 1;
            return Some(Unsubscribed { opts: entry.one.opts, last_of_filter: true });
        }
        let many = &mut self.many[entry.many as usize];
        let position = many.position(session)?;
        self.many_bytes -= many.bytes();
        let gone = many.swap_remove(position);
        if let [one] = many.list() {
            let one = *one;
            *many = Subscribers::default();
            self.many_free.push(entry.many);
            let entry = self.entries.get_mut(filter);
            (entry.one, entry.many) = (one, NONE);
        } else {
            self.many_bytes += many.bytes();
        }
        self.subscriptions -= 1;
        Some(Unsubscribed { opts: gone.opts, last_of_filter: false })
    }

    /// The id of a filter that has a subscriber.
    #[must_use]
    pub fn find(&self, filter: &str) -> Option<FilterId> {
        let hashed = self.hasher.filter(filter);
        self.find_hashed(self.entry_hash(&hashed, filter), filter)
    }

    /// The subscription of `session` to the filter.
    #[must_use]
    pub fn get(&self, filter: FilterId, session: u32) -> Option<Subscriber> {
        let entry = self.entries.get(filter)?;
        if entry.many == NONE {
            return (entry.one.session == session).then_some(entry.one);
        }
        let many = &self.many[entry.many as usize];
        many.position(session).map(|p| many.list()[p])
    }

    /// The filter's text; empty if the filter has no subscriber.
    #[must_use]
    pub fn filter_str(&self, filter: FilterId) -> &str {
        self.entries.get(filter).map_or("", |e| self.text(e))
    }

    /// How many filters were added or removed so far: an answer of [`matches`](Self::matches) holds for
    /// as long as this stays.
    #[must_use]
    pub fn changes(&self) -> u64 {
        self.changes
    }

    /// Appends every filter that matches `topic`, once each, in no order. [S-50] [S-51]
    pub fn matches(&self, topic: &str, out: &mut Vec<FilterId>) {
        let hashed = self.hasher.topic::<LEVELS_FAST>(topic);
        if hashed.levels <= LEVELS_FAST {
            self.match_shapes(&hashed, topic, out);
        } else {
            self.match_shapes(&self.hasher.topic::<LEVELS_MAX>(topic), topic, out);
        }
        if !self.trie.is_empty() {
            self.trie.candidates(&self.hasher, topic, |id| {
                if filter_matches(self.filter_str(id), topic) {
                    out.push(id);
                }
            });
        }
    }

    /// The filter's subscribers, in no order; empty if it has none.
    #[must_use]
    pub fn subscribers(&self, filter: FilterId) -> &[Subscriber] {
        match self.entries.get(filter) {
            None => &[],
            Some(e) if e.many == NONE => std::slice::from_ref(&e.one),
            Some(e) => self.many[e.many as usize].list(),
        }
    }

    /// Distinct filters.
    #[must_use]
    pub fn filters(&self) -> usize {
        self.index.len()
    }

    /// Subscriptions.
    #[must_use]
    pub fn subscriptions(&self) -> usize {
        self.subscriptions
    }

    /// Bytes held.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.texts.bytes()
            + self.entries.bytes()
            + self.index.allocation_size()
            + self.trie.bytes()
            + self.shapes.bytes()
            + self.many.capacity() * size_of::<Subscribers>()
            + self.many_free.capacity() * 4
            + self.many_bytes
    }

    fn text(&self, entry: &Entry) -> &str {
        std::str::from_utf8(self.texts.get(entry.text)).unwrap_or("")
    }

    /// 64 bits, of which the upper 32 are kept: the table is always asked with a spread of those.
    fn entry_hash(&self, hashed: &HashedFilter, filter: &str) -> u32 {
        let whole = match hashed.shape {
            Some(_) => hashed.hash,
            None => self.hasher.bytes(filter.as_bytes()),
        };
        (whole >> 32) as u32
    }

    fn find_hashed(&self, hash: u32, filter: &str) -> Option<FilterId> {
        self.probe(hash, |text| text == filter.as_bytes())
    }

    #[inline]
    fn probe(&self, hash: u32, is: impl Fn(&[u8]) -> bool) -> Option<FilterId> {
        self.index
            .find(spread(hash), |id| {
                let entry = self.entries.at(*id);
                entry.hash == hash && is(self.texts.get(entry.text))
            })
            .map(|id| FilterId(*id))
    }

    #[inline]
    fn match_shapes<const N: usize>(
        &self,
        hashed: &HashedTopic<'_, N>,
        topic: &str,
        out: &mut Vec<FilterId>,
    ) {
        let text = topic.as_bytes();
        if hashed.levels <= LEVELS_MAX {
            let hash = (hashed.hash(hashed.levels, 0, false) >> 32) as u32;
            out.extend(self.probe(hash, |t| t == text));
        }
        self.shapes.each(hashed.levels, hashed.dollar, |levels, plus, multi| {
            let hash = (hashed.hash(levels, plus, multi) >> 32) as u32;
            out.extend(self.probe(hash, |t| is_projection(t, text, levels, plus, multi)));
        });
    }

    fn add_filter(
        &mut self,
        filter: &str,
        hashed: &HashedFilter,
        hash: u32,
        one: Subscriber,
    ) -> FilterId {
        self.changes += 1;
        let text = self.texts.insert(filter.as_bytes());
        let id = self.entries.insert(Entry { text, hash, one, many: NONE });
        let entries = &self.entries;
        self.index.insert_unique(spread(hash), id.0, |id| spread(entries.at(*id).hash));
        if self.shapes.enter(hashed.shape) {
            self.trie.insert(&self.hasher, filter, id);
        }
        id
    }

    fn remove_filter(&mut self, id: FilterId) {
        self.changes += 1;
        let entry = *self.entries.at(id.0);
        let filter = std::str::from_utf8(self.texts.get(entry.text)).unwrap_or("");
        if self.shapes.leave(self.hasher.filter(filter).shape) {
            self.trie.remove(&self.hasher, filter, id);
        }
        if let Ok(e) = self.index.find_entry(spread(entry.hash), |i| *i == id.0) {
            e.remove();
        }
        if self.index.capacity() > 64 && self.index.capacity() / 8 > self.index.len() {
            let entries = &self.entries;
            self.index.shrink_to(self.index.len() * 2, |i| spread(entries.at(*i).hash));
        }
        self.texts.remove(entry.text);
        self.entries.remove(id);
    }

    fn put(&mut self, id: FilterId, subscriber: Subscriber) -> Option<SubOpts> {
        let entry = self.entries.get_mut(id);
        if entry.many == NONE {
            if entry.one.session == subscriber.session {
                return Some(std::mem::replace(&mut entry.one, subscriber).opts);
            }
            let mut many = Subscribers::default();
            many.push(entry.one);
            many.push(subscriber);
            self.many_bytes += many.bytes();
            if let Some(free) = self.many_free.pop() {
                self.many[free as usize] = many;
                entry.many = free;
            } else {
                entry.many = self.many.len() as u32;
                self.many.push(many);
            }
            return None;
        }
        let many = &mut self.many[entry.many as usize];
        if let Some(position) = many.position(subscriber.session) {
            return Some(std::mem::replace(many.at_mut(position), subscriber).opts);
        }
        self.many_bytes -= many.bytes();
        many.push(subscriber);
        self.many_bytes += many.bytes();
        None
    }
}

fn spread(hash: u32) -> u64 {
    u64::from(hash).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(32)
}

/// Whether `filter` is the one filter of this shape that matches `topic`.
fn is_projection(filter: &[u8], topic: &[u8], levels: usize, plus: u64, multi: bool) -> bool {
    let (mut f, mut t) = (0, 0);
    for level in 0..levels {
        let end = memchr::memchr(b'/', &topic[t..]).map_or(topic.len(), |n| t + n);
        let want: &[u8] = if plus >> level & 1 == 1 { b"+" } else { &topic[t..end] };
        if !filter.get(f..).is_some_and(|rest| rest.starts_with(want)) {
            return false;
        }
        f += want.len();
        t = end + 1;
        if f < filter.len() && filter[f] != b'/' {
            return false;
        }
        f += 1;
    }
    if multi { filter.get(f..) == Some(b"#") } else { f == filter.len() + 1 }
}

/// Entries in chunks: growing copies nothing and leaves at most one chunk unused.
#[derive(Debug)]
struct Slab {
    chunks: Vec<Vec<Entry>>,
    free: u32,
}

const CHUNK: usize = 256;

impl Default for Slab {
    fn default() -> Self {
        Self { chunks: Vec::new(), free: NONE }
    }
}

impl Slab {
    #[inline]
    fn at(&self, id: u32) -> &Entry {
        &self.chunks[id as usize / CHUNK][id as usize % CHUNK]
    }

    fn get(&self, id: FilterId) -> Option<&Entry> {
        let entry = self.chunks.get(id.0 as usize / CHUNK)?.get(id.0 as usize % CHUNK)?;
        (entry.text.0 != NONE).then_some(entry)
    }

    fn get_mut(&mut self, id: FilterId) -> &mut Entry {
        &mut self.chunks[id.0 as usize / CHUNK][id.0 as usize % CHUNK]
    }

    fn insert(&mut self, entry: Entry) -> FilterId {
        if self.free != NONE {
            let id = FilterId(self.free);
            self.free = self.at(id.0).many;
            *self.get_mut(id) = entry;
            return id;
        }
        if self.chunks.last().is_none_or(|c| c.len() == CHUNK) {
            self.chunks.push(Vec::with_capacity(CHUNK));
        }
        let chunk = self.chunks.len() - 1;
        self.chunks[chunk].push(entry);
        FilterId((chunk * CHUNK + self.chunks[chunk].len() - 1) as u32)
    }

    fn remove(&mut self, id: FilterId) {
        let next = std::mem::replace(&mut self.free, id.0);
        let entry = self.get_mut(id);
        entry.text = TextRef(NONE);
        entry.many = next;
    }

    fn bytes(&self) -> usize {
        self.chunks.len() * CHUNK * size_of::<Entry>() + self.chunks.capacity() * 24
    }
}

impl From<SubOpts> for QoS {
    fn from(o: SubOpts) -> Self {
        match o.qos_level() {
            0 => Self::AtMostOnce,
            1 => Self::AtLeastOnce,
            _ => Self::ExactlyOnce,
        }
    }
}
