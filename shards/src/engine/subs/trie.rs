//! Filters of shapes that are too many, too small, or too deep, to be probed for one by one.
//!
//! ```text
//!  root ─+─▶ node ─"a"─▶ node ─+─▶ …      `+`, and the first literal, by their nodes' numbers;
//!    └──"b", "c", …─▶ nodes               further literals by (parent, hash of the level)
//! ```
//!
//! A topic goes by both ways at each node, one after the other. Texts are not kept: what is
//! found is a candidate that the caller verifies.

use super::FilterId;
use super::table::IdTable;
use crate::engine::route::shape::{LEVELS_MAX, LevelHasher};
use crate::engine::slab::Slab;
use smallvec::SmallVec;

const ROOT: u32 = 0;
const NONE: u32 = u32::MAX;

#[derive(Debug)]
struct Node {
    /// Of the literal that leads here.
    hash: u64,
    parent: u32,
    /// Children, and filters that end here.
    uses: u32,
    plus: u32,
    /// One of the literal children, and a part of its hash. With few filters most nodes have no other.
    one: u32,
    one_hash: u32,
    /// Literal children beside that.
    others: u32,
    /// The filter that ends at this level, and the one that goes on with `#`.
    ends: [u32; 2],
}

const _: () = assert!(size_of::<Node>() == 40);

#[derive(Debug, Default)]
pub(super) struct Trie {
    nodes: Slab<Node>,
    index: IdTable,
    /// Filters for whose end there is another already, at the same node: texts of the same hash.
    twins: Vec<(u32, bool, FilterId)>,
}

/// The hashes of a topic's levels.
pub(super) type LevelHashes = SmallVec<[u64; 16]>;

/// The hash of literal text at any depth.
pub(super) fn level_hash(hasher: &LevelHasher, at: usize, text: &[u8]) -> u64 {
    if at < LEVELS_MAX { hasher.level(at, text) } else { hasher.bytes(text) }
}

fn key_hash(parent: u32, hash: u64) -> u32 {
    let h = (hash ^ u64::from(parent)).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(29)
        ^ u64::from(parent).wrapping_mul(0xa076_1d64_78bd_642f);
    (h.wrapping_mul(0xe703_7ed1_a0b4_28db) >> 32) as u32
}

/// The part of a hash that a parent keeps.
fn kept(hash: u64) -> u32 {
    (hash >> 32) as u32
}

impl Trie {
    pub(super) fn is_empty(&self) -> bool {
        self.nodes.len() <= 1 && self.nodes.get(ROOT).is_none_or(|root| root.uses == 0)
    }

    pub(super) fn bytes(&self) -> usize {
        self.nodes.len() * size_of::<Node>() + self.index.bytes() + self.twins.capacity() * 12
    }

    pub(super) fn insert(&mut self, hasher: &LevelHasher, filter: &str, id: FilterId) {
        if self.nodes.get(ROOT).is_none() {
            self.nodes.insert(Node::new(ROOT, 0));
        }
        let (mut node, mut multi) = (ROOT, false);
        for (at, text) in filter.as_bytes().split(|b| *b == b'/').enumerate() {
            node = match text {
                b"#" => {
                    multi = true;
                    break;
                }
                b"+" => self.plus_or_new(node),
                text => self.child_or_new(node, level_hash(hasher, at, text)),
            };
        }
        let n = &mut self.nodes[node];
        n.uses += 1;
        let end = &mut n.ends[usize::from(multi)];
        if *end == NONE {
            *end = id.0;
        } else {
            self.twins.push((node, multi, id));
        }
    }

    pub(super) fn remove(&mut self, hasher: &LevelHasher, filter: &str, id: FilterId) {
        let (mut node, mut multi) = (ROOT, false);
        for (at, text) in filter.as_bytes().split(|b| *b == b'/').enumerate() {
            let child = match text {
                b"#" => {
                    multi = true;
                    break;
                }
                b"+" => Some(self.nodes[node].plus).filter(|plus| *plus != NONE),
                text => self.child(&self.nodes[node], node, level_hash(hasher, at, text)),
            };
            let Some(child) = child else { return };
            node = child;
        }
        let end = &mut self.nodes[node].ends[usize::from(multi)];
        if *end == id.0 {
            let twin = self.twins.iter().position(|t| (t.0, t.1) == (node, multi));
            *end = twin.map_or(NONE, |at| self.twins.swap_remove(at).2.0);
        } else if let Some(at) = self.twins.iter().position(|t| *t == (node, multi, id)) {
            self.twins.swap_remove(at);
        } else {
            return;
        }
        self.release(node);
    }

    /// Calls `found` with every filter that may match a topic with these levels, once each; `dollar`:
    /// whether it begins with `$`. [S-51]
    pub(super) fn candidates(&self, levels: &[u64], dollar: bool, mut found: impl FnMut(FilterId)) {
        // Those that have been reached wait here, each with the level it is to be left by.
        let mut waiting: SmallVec<[(u32, u32); 64]> = SmallVec::new();
        let (mut number, mut at) = (ROOT, 0);
        loop {
            let node = &self.nodes[number];
            if at > 0 || !dollar {
                self.end(number, node, true, &mut found);
            }
            let mut next = NONE;
            if let Some(hash) = levels.get(at) {
                next = self.child(node, number, *hash).unwrap_or(NONE);
                if node.plus != NONE && (at > 0 || !dollar) {
                    if next != NONE {
                        waiting.push((next, at as u32 + 1));
                    }
                    next = node.plus;
                }
            } else {
                self.end(number, node, false, &mut found);
            }
            if next != NONE {
                (number, at) = (next, at + 1);
            } else if let Some((waited, level)) = waiting.pop() {
                (number, at) = (waited, level as usize);
            } else {
                return;
            }
        }
    }

    #[inline]
    fn end(&self, number: u32, node: &Node, multi: bool, found: &mut impl FnMut(FilterId)) {
        let id = node.ends[usize::from(multi)];
        if id != NONE {
            found(FilterId(id));
            let twins = self.twins.iter().filter(|t| (t.0, t.1) == (number, multi));
            twins.for_each(|t| found(t.2));
        }
    }

    #[inline]
    fn child(&self, node: &Node, number: u32, hash: u64) -> Option<u32> {
        if node.one_hash == kept(hash) && node.one != NONE && self.nodes[node.one].hash == hash {
            return Some(node.one);
        }
        if node.others == 0 {
            return None;
        }
        self.index.find(key_hash(number, hash), |child| {
            let child = &self.nodes[child];
            child.parent == number && child.hash == hash
        })
    }

    fn plus_or_new(&mut self, parent: u32) -> u32 {
        let plus = self.nodes[parent].plus;
        if plus != NONE {
            return plus;
        }
        let id = self.nodes.insert(Node::new(parent, 0));
        let node = &mut self.nodes[parent];
        (node.plus, node.uses) = (id, node.uses + 1);
        id
    }

    fn child_or_new(&mut self, parent: u32, hash: u64) -> u32 {
        if let Some(child) = self.child(&self.nodes[parent], parent, hash) {
            return child;
        }
        let id = self.nodes.insert(Node::new(parent, hash));
        let node = &mut self.nodes[parent];
        node.uses += 1;
        if node.one == NONE {
            (node.one, node.one_hash) = (id, kept(hash));
            return id;
        }
        node.others += 1;
        let nodes = &self.nodes;
        self.index.insert(key_hash(parent, hash), id, |n| key_hash(nodes[n].parent, nodes[n].hash));
        id
    }

    /// Takes back one use of a node, and the nodes that are then of no use.
    fn release(&mut self, mut node: u32) {
        loop {
            let n = &mut self.nodes[node];
            n.uses -= 1;
            if n.uses > 0 || node == ROOT {
                return;
            }
            let (parent, hash) = (n.parent, n.hash);
            let above = &mut self.nodes[parent];
            if above.plus == node {
                above.plus = NONE;
            } else if above.one == node {
                above.one = NONE;
            } else {
                above.others -= 1;
                let nodes = &self.nodes;
                let of = |n: u32| key_hash(nodes[n].parent, nodes[n].hash);
                self.index.remove(key_hash(parent, hash), node, of);
            }
            self.nodes.remove(node);
            node = parent;
        }
    }
}

impl Node {
    fn new(parent: u32, hash: u64) -> Self {
        Self {
            hash,
            parent,
            uses: 0,
            plus: NONE,
            one: NONE,
            one_hash: 0,
            others: 0,
            ends: [NONE; 2],
        }
    }
}
