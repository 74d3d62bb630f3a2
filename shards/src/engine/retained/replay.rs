//! Walking through the topics that match a filter, a page at a time.

use super::super::message::Message;
use super::leaf::{Entry, Leaf, common_len};
use super::leaves::{Above, Key, Leaves, Separator};
use super::record::{self, Record};
use bytes::Bytes;
use smallvec::SmallVec;
use std::cmp::Ordering;
use std::sync::Arc;

/// Topics looked at in one page: some 100 µs when memory is cold.
const LOOKS_MAX: usize = 1024;
/// What passing over topics by a search counts as: a way down the tree of leaves, and half a leaf.
const LOOKS_SEEK: usize = 8;
/// So many bytes of a key count as another topic.
const LOOK_BYTES: usize = 256;

/// Bytes and messages that a page has room for at first: about what a small `+` finds.
const DATA_MIN: usize = 1024;
const HEADS_MIN: usize = 16;

/// Where a replay stands: the least key that is still to be looked at. Survives any change to the store,
/// for what it says is about topics, not about the places where they lie.
#[derive(Clone, Debug, Default)]
pub struct RetainedCursor {
    from: Vec<u8>,
    done: bool,
}

/// The next messages of a replay.
#[derive(Debug, Default)]
pub(super) struct Page {
    max_messages: usize,
    max_bytes: usize,
    now_ms: u64,
    bytes: usize,
    /// Topics, properties and payloads of all that are made anew, one after the other: one allocation
    /// that they share. They go to one session, and so are done with at about the same time.
    data: Vec<u8>,
    heads: Vec<Head>,
}

#[derive(Debug)]
enum Head {
    /// So many bytes of the page's data are its own.
    New(Message, usize),
    Kept(Arc<Message>),
}

impl Page {
    pub(super) fn new(max_messages: usize, max_bytes: usize, now_ms: u64) -> Self {
        let (data, heads) = (Vec::with_capacity(DATA_MIN), Vec::with_capacity(HEADS_MIN));
        Self { max_messages, max_bytes, now_ms, bytes: 0, data, heads }
    }

    /// Whether a message of this many bytes has to wait for the next page.
    fn is_full_for(&self, bytes: usize) -> bool {
        !self.heads.is_empty()
            && (self.heads.len() >= self.max_messages || self.bytes + bytes > self.max_bytes)
    }

    pub(super) fn push(&mut self, key: &Key, record: &Record<'_>) {
        self.bytes += record.charge(key.len());
        self.heads.push(match record {
            Record::Big(msg) => Head::Kept(Arc::clone(msg)),
            Record::Inline(r) => {
                let (at, len) = (self.data.len(), key.len() + r.props.len() + r.payload.len());
                self.data.reserve(len);
                self.data.extend_from_slice(key);
                for b in &mut self.data[at..] {
                    if *b == 0 {
                        *b = b'/';
                    }
                }
                self.data.extend_from_slice(r.props);
                self.data.extend_from_slice(r.payload);
                Head::New(r.head(key.len()), len)
            }
        });
    }

    pub(super) fn messages(self) -> impl Iterator<Item = Arc<Message>> {
        let mut data = Bytes::from(self.data);
        self.heads.into_iter().map(move |head| match head {
            Head::Kept(msg) => msg,
            Head::New(mut msg, len) => {
                msg.data = data.split_to(len);
                Arc::new(msg)
            }
        })
    }
}

#[derive(Clone, Copy)]
enum Level<'a> {
    Name(&'a [u8]),
    Any,
}

/// What a filter says to a key.
#[derive(Clone, Copy, PartialEq)]
enum Says {
    Match,
    /// Nothing matches from here to what was written to the seek.
    Seek,
    /// Nothing matches from here on.
    End,
}

pub(super) struct Walk<'a> {
    leaves: &'a Leaves,
    levels: SmallVec<[Level<'a>; 16]>,
    multi: bool,
}

impl<'a> Walk<'a> {
    pub(super) fn new(leaves: &'a Leaves, filter: &'a str) -> Self {
        let mut levels = SmallVec::new();
        let mut multi = false;
        for text in filter.as_bytes().split(|b| *b == b'/') {
            match text {
                b"#" => multi = true,
                b"+" => levels.push(Level::Any),
                text => levels.push(Level::Name(text)),
            }
        }
        Self { leaves, levels, multi }
    }

    /// Fills a page; whether the replay is done.
    pub(super) fn fill(&self, cursor: &mut RetainedCursor, page: &mut Page) -> bool {
        if cursor.done {
            return true;
        }
        let mut looks = 0;
        let mut seek = std::mem::take(&mut cursor.from);
        if seek.is_empty() {
            self.least(&mut seek);
        }
        let mut at = Position::of(self.leaves, &seek);
        while at.next() {
            looks += 1 + at.key.len() / LOOK_BYTES;
            let says = self.says(&at.key, &mut seek);
            match says {
                Says::Match => {
                    let record = at.record();
                    if !record.lifetime().is_over(page.now_ms) {
                        if page.is_full_for(record.charge(at.key.len())) {
                            cursor.from = at.key;
                            return false;
                        }
                        page.push(&at.key, &record);
                    }
                }
                Says::Seek => {
                    looks += LOOKS_SEEK + seek.len() / LOOK_BYTES;
                    at.seek(&seek);
                }
                Says::End => break,
            }
            if looks > LOOKS_MAX {
                if says == Says::Match {
                    at.key.push(0); // the least key above
                    seek = at.key;
                }
                cursor.from = seek;
                return false;
            }
        }
        cursor.done = true;
        true
    }

    /// Writes a key below which nothing matches: the names that the filter begins with.
    fn least(&self, seek: &mut Vec<u8>) {
        for (i, level) in self.levels.iter().enumerate() {
            if i > 0 {
                seek.push(0);
            }
            let Level::Name(name) = level else { return };
            seek.extend_from_slice(name);
        }
    }

    fn says(&self, key: &Key, seek: &mut Vec<u8>) -> Says {
        let mut start = 0;
        // Where the name ends that the last `+` stands for.
        let mut any = None;
        for (i, level) in self.levels.iter().enumerate() {
            let end = memchr::memchr(0, &key[start..]).map_or(key.len(), |n| start + n);
            match level {
                Level::Any if i == 0 && key.first() == Some(&b'$') => return past_dollar(seek),
                Level::Any => any = Some(end),
                Level::Name(name) => match key[start..end].cmp(name) {
                    Ordering::Equal => {}
                    Ordering::Less => return go_to(seek, &key[..start], name),
                    Ordering::Greater => return past(seek, key, any),
                },
            }
            if end == key.len() {
                // The parent level of `#` matches too. [S-50]
                let Some(below) = self.levels.get(i + 1) else { return Says::Match };
                go_to(seek, key, &[0]);
                if let Level::Name(name) = below {
                    seek.extend_from_slice(name);
                }
                return Says::Seek;
            }
            start = end + 1;
        }
        if !self.multi {
            return past(seek, key, any);
        }
        if self.levels.is_empty() && key.first() == Some(&b'$') {
            return past_dollar(seek);
        }
        Says::Match
    }
}

fn go_to(seek: &mut Vec<u8>, above: &[u8], name: &[u8]) -> Says {
    seek.clear();
    seek.extend_from_slice(above);
    seek.extend_from_slice(name);
    Says::Seek
}

/// To the next name of the last `+`, past all topics that have its name there now.
fn past(seek: &mut Vec<u8>, key: &Key, any: Option<usize>) -> Says {
    any.map_or(Says::End, |end| go_to(seek, &key[..end], &[1]))
}

/// Wildcards do not match first levels that begin with `$`. [S-51] [MQTT-4.7.2-1]
fn past_dollar(seek: &mut Vec<u8>) -> Says {
    go_to(seek, &[], &[b'$' + 1])
}

/// A place among all topics in order.
struct Position<'a> {
    leaves: &'a Leaves,
    separator: &'a Separator,
    leaf: &'a Leaf,
    /// The leaves above, once the first of them was needed.
    above: Option<Above<'a>>,
    entry: Option<Entry>,
    /// The next entry.
    at: usize,
    /// Of the entry; after a seek what the next one may share of it.
    key: Vec<u8>,
}

impl<'a> Position<'a> {
    /// Before the first key that is not less.
    fn of(leaves: &'a Leaves, key: &Key) -> Self {
        let (separator, leaf) = leaves.leaf(key);
        let (above, entry) = (None, None);
        let mut new = Self { leaves, separator, leaf, above, entry, at: 0, key: Vec::new() };
        new.find_from(0, 0, key);
        new
    }

    /// Goes to the next key; whether there is one.
    fn next(&mut self) -> bool {
        while self.at == self.leaf.end() {
            let above = self.above.get_or_insert_with(|| self.leaves.after(self.separator));
            let Some((separator, leaf)) = above.next() else { return false };
            (self.separator, self.leaf, self.at) = (separator, leaf, 0);
        }
        let entry = self.leaf.entry(self.at);
        self.leaf.advance_key(&entry, &mut self.key);
        self.at = entry.end;
        self.entry = Some(entry);
        true
    }

    fn record(&self) -> Record<'a> {
        let record = self.entry.map_or(&[][..], |e| self.leaf.record(&e));
        record::read(record, &self.leaves.big)
    }

    /// Goes before the first key that is not less than this, which is above the one here.
    fn seek(&mut self, key: &Key) {
        self.find_from(self.at, common_len(&self.key, key), key);
        if self.at < self.leaf.end() {
            return;
        }
        let (separator, leaf) = self.leaves.leaf(key);
        if separator == self.separator {
            return; // the next leaf begins above the key
        }
        (self.separator, self.leaf, self.above) = (separator, leaf, None);
        self.find_from(0, 0, key);
    }

    fn find_from(&mut self, at: usize, common: usize, key: &Key) {
        let place = self.leaf.find_from(at, common, key);
        self.at = place.at;
        self.key.clear();
        self.key.extend_from_slice(&key[..place.before]);
    }
}
