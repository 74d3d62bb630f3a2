//! The shard's own subscription index: filters to subscribers, exactly.
//!
//! Decision record 0011 has the measurements.

mod shapes;
mod subscribers;
pub(crate) mod table;
#[cfg(all(test, not(ringmain_loom)))]
mod tests;
pub(crate) mod text;
mod trie;

use super::route::shape::{
    HashedFilter, HashedTopic, LEVELS_FAST, LEVELS_MAX, LevelHasher, filter_matches, level_end,
};
use super::slab::Slab;
use ringmain_mqtt::QoS;
use shapes::{Entered, Shapes};
use subscribers::Subscribers;
use table::IdTable;
use text::{TextRef, TextStore};
use trie::{LevelHashes, Trie};

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
/// Each filter is in one hash table; those without wildcards and of the commoner shapes are found there
/// by the hashes that a matching filter would have, one probe per shape. Filters of other shapes are in a
/// trie too.
#[derive(Debug)]
pub struct SubIndex {
    hasher: LevelHasher,
    texts: TextStore,
    entries: Entries,
    index: IdTable,
    shapes: Shapes,
    trie: Trie,
    /// Subscribers of filters that have several.
    many: Slab<Subscribers>,
    subscriptions: usize,
    /// Filters added and removed so far.
    changes: u64,
}

const NONE: u32 = u32::MAX;

/// A filter.
///
/// ```text
///  text  32   where its text is
///  who   32   the only subscriber's session; or the number of its `many`; or the next free entry
///  hash  32   [ hash 30 | QoS 2 ]                              QoS 3: the entry is free
///  sub   32   [ Retain Handling 2 | RAP 1 | NL 1 | id 28 ]     Retain Handling 3: it has `many`
/// ```
#[derive(Clone, Copy, Debug)]
struct Entry {
    text: TextRef,
    who: u32,
    hash: u32,
    sub: u32,
}

const _: () = assert!(size_of::<Entry>() == 16);

const ID_BITS: u32 = 28;
const MANY: u32 = 3 << 30;
/// The part of a hash that an entry keeps.
const HASH: u32 = !3;
const FREE: u32 = 3;

impl Entry {
    fn new(text: TextRef, hash: u32, one: Subscriber) -> Self {
        let mut entry = Self { text, who: 0, hash: hash & HASH, sub: 0 };
        entry.set_one(one);
        entry
    }

    fn is_free(&self) -> bool {
        self.hash & !HASH == FREE
    }

    fn hash(&self) -> u32 {
        self.hash & HASH
    }

    /// The number of its subscribers' list, if it has several.
    fn many(&self) -> Option<u32> {
        (self.sub & MANY == MANY).then_some(self.who)
    }

    /// The only subscriber, unless it has `many`.
    fn one(&self) -> Subscriber {
        let bits = (self.hash & !HASH) as u8 | (self.sub >> (ID_BITS - 2)) as u8 & 0b11_1100;
        Subscriber {
            session: self.who,
            subscription_id: self.sub & ((1 << ID_BITS) - 1),
            opts: SubOpts::from_bits(bits),
        }
    }

    fn set_one(&mut self, one: Subscriber) {
        debug_assert!(one.opts.retain_handling() < 3 && one.opts.qos_level() < 3);
        debug_assert!(one.subscription_id >> ID_BITS == 0, "as the wire has it");
        let bits = u32::from(one.opts.bits());
        self.who = one.session;
        self.hash = self.hash & HASH | bits & 3;
        self.sub = (bits >> 2) << ID_BITS | one.subscription_id & ((1 << ID_BITS) - 1);
    }

    fn set_many(&mut self, many: u32) {
        (self.who, self.hash, self.sub) = (many, self.hash & HASH, MANY);
    }
}

/// The subscribers of a filter, in no order.
#[derive(Clone, Debug)]
pub struct SubscribersOf<'a> {
    one: Option<Subscriber>,
    first: std::slice::Iter<'a, Subscriber>,
    rest: std::slice::Iter<'a, Vec<Subscriber>>,
    left: usize,
}

impl Iterator for SubscribersOf<'_> {
    type Item = Subscriber;

    #[inline]
    fn next(&mut self) -> Option<Subscriber> {
        let next = self.one.take().or_else(|| {
            self.first.next().copied().or_else(|| {
                self.first = self.rest.next()?.iter();
                self.first.next().copied()
            })
        });
        self.left -= usize::from(next.is_some());
        next
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.left, Some(self.left))
    }
}

impl ExactSizeIterator for SubscribersOf<'_> {}

impl SubIndex {
    /// An empty index.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self {
            hasher: LevelHasher::new(seed),
            texts: TextStore::new(),
            entries: Entries::default(),
            index: IdTable::default(),
            shapes: Shapes::default(),
            trie: Trie::default(),
            many: Slab::default(),
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
        let Some(number) = entry.many() else {
            let one = entry.one();
            if one.session != session {
                return None;
            }
            self.remove_filter(filter);
            self.subscriptions -= 1;
            return Some(Unsubscribed { opts: one.opts, last_of_filter: true });
        };
        let many = &mut self.many[number];
        let position = many.position(session)?;
        let gone = many.swap_remove(position);
        if many.len() == 1 {
            let one = *many.at(0);
            self.many.remove(number);
            self.entries.get_mut(filter).set_one(one);
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
        let Some(many) = entry.many().map(|n| &self.many[n]) else {
            return Some(entry.one()).filter(|one| one.session == session);
        };
        many.position(session).map(|p| *many.at(p))
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
        let done = self.hasher.with_topic::<LEVELS_FAST, _>(topic, |hashed| {
            let whole = hashed.levels <= LEVELS_FAST;
            if whole {
                self.match_shapes(hashed, topic, out);
            }
            whole
        });
        if !done {
            self.hasher
                .with_topic::<LEVELS_MAX, _>(topic, |hashed| self.match_shapes(hashed, topic, out));
        }
    }

    /// The filter's subscribers, in no order; empty if it has none.
    #[must_use]
    pub fn subscribers(&self, filter: FilterId) -> SubscribersOf<'_> {
        let entry = self.entries.get(filter);
        let many = entry.and_then(Entry::many).map(|n| &self.many[n]);
        let one = entry.filter(|_| many.is_none()).map(Entry::one);
        SubscribersOf {
            left: many.map_or(usize::from(one.is_some()), Subscribers::len),
            one,
            first: [].iter(),
            rest: many.map_or(&[][..], Subscribers::chunks).iter(),
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

    /// Bytes held. Counts them one by one: not for every turn.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.texts.bytes()
            + self.entries.bytes()
            + self.index.bytes()
            + self.trie.bytes()
            + self.shapes.bytes()
            + self.many.iter().map(|(_, m)| size_of::<Subscribers>() + m.bytes()).sum::<usize>()
    }

    /// About as many as [`Self::bytes`], at the same cost for a million filters as for one: for reports
    /// while the shard works.
    #[must_use]
    pub fn estimated_bytes(&self) -> usize {
        /// Of an id in the index, with what is free in its segment.
        const PER_ID: usize = 9;
        /// Of a list of subscribers, empty: room for four chunks.
        const PER_LIST: usize = size_of::<Subscribers>() + 4 * size_of::<Vec<Subscriber>>();
        let beyond_first = self.subscriptions() - self.filters();
        self.texts.bytes()
            + self.entries.bytes()
            + self.index.len() * PER_ID
            + self.many.len() * PER_LIST
            + (beyond_first + self.many.len()) * size_of::<Subscriber>() * 5 / 4
    }

    fn text(&self, entry: &Entry) -> &str {
        std::str::from_utf8(self.texts.get(entry.text)).unwrap_or("")
    }

    /// Of 64 bits, the upper 30.
    fn entry_hash(&self, hashed: &HashedFilter, filter: &str) -> u32 {
        let whole = match hashed.shape {
            Some(_) => hashed.hash,
            None => self.hasher.bytes(filter.as_bytes()),
        };
        kept(whole)
    }

    fn find_hashed(&self, hash: u32, filter: &str) -> Option<FilterId> {
        self.probe(hash, |text| text == filter.as_bytes())
    }

    #[inline]
    fn probe(&self, hash: u32, is: impl Fn(&[u8]) -> bool) -> Option<FilterId> {
        let found = self.index.find(hash, |id| {
            let entry = self.entries.at(id);
            entry.hash() == hash && is(self.texts.get(entry.text))
        });
        found.map(FilterId)
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
            let hash = kept(hashed.hash(hashed.levels, 0, false));
            out.extend(self.probe(hash, |t| t == text));
        }
        self.shapes.each(hashed.levels, hashed.dollar, |levels, plus, multi| {
            let hash = kept(hashed.hash(levels, plus, multi));
            out.extend(self.probe(hash, |t| is_projection(t, text, levels, plus, multi)));
        });
        if !self.trie.is_empty() {
            self.match_trie(hashed, topic, out);
        }
    }

    #[inline(never)]
    fn match_trie<const N: usize>(
        &self,
        hashed: &HashedTopic<'_, N>,
        topic: &str,
        out: &mut Vec<FilterId>,
    ) {
        let mut levels: LevelHashes = (0..hashed.kept).map(|at| hashed.level_hash(at)).collect();
        if hashed.levels > hashed.kept {
            let deep = topic.as_bytes().split(|b| *b == b'/').enumerate().skip(hashed.kept);
            levels.extend(deep.map(|(at, text)| trie::level_hash(&self.hasher, at, text)));
        }
        self.trie.candidates(&levels, hashed.dollar, |id| {
            if filter_matches(self.texts.get(self.entries.at(id.0).text), topic.as_bytes()) {
                out.push(id);
            }
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
        let id = self.entries.insert(Entry::new(text, hash, one));
        let entries = &self.entries;
        self.index.insert(hash, id.0, |id| entries.at(id).hash());
        match self.shapes.enter(hashed.shape, id) {
            Entered::Hashed => {}
            Entered::Trie => self.trie.insert(&self.hasher, filter, id),
            Entered::HashedWith(few) => few.iter().for_each(|id| self.leave_trie(*id)),
        }
        id
    }

    fn leave_trie(&mut self, id: FilterId) {
        let text = self.texts.get(self.entries.at(id.0).text);
        self.trie.remove(&self.hasher, std::str::from_utf8(text).unwrap_or(""), id);
    }

    fn remove_filter(&mut self, id: FilterId) {
        self.changes += 1;
        let entry = *self.entries.at(id.0);
        let filter = std::str::from_utf8(self.texts.get(entry.text)).unwrap_or("");
        if self.shapes.leave(self.hasher.filter(filter).shape, id) {
            self.leave_trie(id);
        }
        let entries = &self.entries;
        self.index.remove(entry.hash(), id.0, |id| entries.at(id).hash());
        self.texts.remove(entry.text);
        self.entries.remove(id);
    }

    fn put(&mut self, id: FilterId, subscriber: Subscriber) -> Option<SubOpts> {
        let entry = self.entries.get_mut(id);
        let Some(number) = entry.many() else {
            let one = entry.one();
            if one.session == subscriber.session {
                entry.set_one(subscriber);
                return Some(one.opts);
            }
            let mut many = Subscribers::default();
            many.push(one);
            many.push(subscriber);
            entry.set_many(self.many.insert(many));
            return None;
        };
        let many = &mut self.many[number];
        if let Some(position) = many.position(subscriber.session) {
            return Some(std::mem::replace(many.at_mut(position), subscriber).opts);
        }
        many.push(subscriber);
        None
    }
}

fn kept(hash: u64) -> u32 {
    (hash >> 32) as u32 & HASH
}

/// Whether `filter` is the one filter of this shape that matches `topic`. Byte by byte, because levels
/// are short.
#[inline]
fn is_projection(filter: &[u8], topic: &[u8], levels: usize, plus: u64, multi: bool) -> bool {
    let (mut f, mut t) = (0, 0);
    for level in 0..levels {
        if plus >> level & 1 == 1 {
            if filter.get(f) != Some(&b'+') {
                return false;
            }
            f += 1;
            t = level_end(topic, t);
        } else {
            while t < topic.len() && topic[t] != b'/' {
                if filter.get(f) != Some(&topic[t]) {
                    return false;
                }
                (f, t) = (f + 1, t + 1);
            }
        }
        if f < filter.len() && filter[f] != b'/' {
            return false;
        }
        (f, t) = (f + 1, t + 1);
    }
    if multi { filter.get(f..) == Some(b"#") } else { f == filter.len() + 1 }
}

/// Entries in chunks: growing copies nothing and leaves at most one chunk unused.
#[derive(Debug)]
struct Entries {
    chunks: Vec<Vec<Entry>>,
    free: u32,
}

const CHUNK: usize = 256;

impl Default for Entries {
    fn default() -> Self {
        Self { chunks: Vec::new(), free: NONE }
    }
}

impl Entries {
    #[inline]
    fn at(&self, id: u32) -> &Entry {
        &self.chunks[id as usize / CHUNK][id as usize % CHUNK]
    }

    fn get(&self, id: FilterId) -> Option<&Entry> {
        let entry = self.chunks.get(id.0 as usize / CHUNK)?.get(id.0 as usize % CHUNK)?;
        (!entry.is_free()).then_some(entry)
    }

    fn get_mut(&mut self, id: FilterId) -> &mut Entry {
        &mut self.chunks[id.0 as usize / CHUNK][id.0 as usize % CHUNK]
    }

    fn insert(&mut self, entry: Entry) -> FilterId {
        if self.free != NONE {
            let id = FilterId(self.free);
            self.free = self.at(id.0).who;
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
        (entry.who, entry.hash, entry.sub) = (next, FREE, 0);
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
