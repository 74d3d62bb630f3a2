//! Filters of shapes that are too many, or too deep, to be probed for one by one.
//!
//! Nodes are found by (parent, hash of the level's text), all in one hash table. A topic is matched
//! level by level with the set of nodes reached so far. Texts are not kept: what is found is a
//! candidate that the caller verifies.

use super::FilterId;
use super::table::IdTable;
use crate::engine::route::shape::LevelHasher;
use crate::engine::slab::Slab;
use smallvec::SmallVec;

const ROOT: u32 = 0;
const PLUS: u64 = 1;

#[derive(Debug)]
struct Node {
    parent: u32,
    /// Children, and filters that end here.
    uses: u32,
    hash: u64,
    /// Filters that end at this level; more than one only if texts have the same hash.
    ends: SmallVec<[u32; 1]>,
    /// Filters that go on with `#`.
    multi: SmallVec<[u32; 1]>,
}

#[derive(Debug)]
pub(super) struct Trie {
    nodes: Slab<Node>,
    index: IdTable,
}

fn key_hash(parent: u32, hash: u64) -> u32 {
    let h = (hash ^ u64::from(parent)).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(29)
        ^ u64::from(parent).wrapping_mul(0xa076_1d64_78bd_642f);
    (h.wrapping_mul(0xe703_7ed1_a0b4_28db) >> 32) as u32
}

impl Trie {
    pub(super) fn new() -> Self {
        Self { nodes: Slab::default(), index: IdTable::default() }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.nodes.len() <= 1 && self.nodes.get(ROOT).is_none_or(|root| root.uses == 0)
    }

    pub(super) fn bytes(&self) -> usize {
        self.nodes.len() * size_of::<Node>() + self.index.bytes()
    }

    pub(super) fn insert(&mut self, hasher: &LevelHasher, filter: &str, id: FilterId) {
        if self.nodes.get(ROOT).is_none() {
            self.nodes.insert(Node::new(ROOT, 0));
        }
        let mut node = ROOT;
        for text in filter.as_bytes().split(|b| *b == b'/') {
            if text == b"#" {
                self.nodes[node].multi.push(id.0);
                self.nodes[node].uses += 1;
                return;
            }
            node = self.child_or_new(node, level_hash(hasher, text));
        }
        self.nodes[node].ends.push(id.0);
        self.nodes[node].uses += 1;
    }

    pub(super) fn remove(&mut self, hasher: &LevelHasher, filter: &str, id: FilterId) {
        let mut node = ROOT;
        let mut multi = false;
        for text in filter.as_bytes().split(|b| *b == b'/') {
            if text == b"#" {
                multi = true;
                break;
            }
            let Some(child) = self.child(node, level_hash(hasher, text)) else { return };
            node = child;
        }
        let n = &mut self.nodes[node];
        let list = if multi { &mut n.multi } else { &mut n.ends };
        if let Some(at) = list.iter().position(|f| *f == id.0) {
            list.swap_remove(at);
            self.release(node);
        }
    }

    /// Calls `found` with every filter that may match the topic, once each.
    pub(super) fn candidates(
        &self,
        hasher: &LevelHasher,
        topic: &str,
        mut found: impl FnMut(FilterId),
    ) {
        let mut reached: SmallVec<[u32; 32]> = SmallVec::from_slice(&[ROOT]);
        let mut next: SmallVec<[u32; 32]> = SmallVec::new();
        for text in topic.as_bytes().split(|b| *b == b'/') {
            let hash = level_hash(hasher, text);
            for node in &reached {
                self.nodes[*node].multi.iter().for_each(|f| found(FilterId(*f)));
                next.extend(self.child(*node, hash));
                next.extend(self.child(*node, PLUS));
            }
            std::mem::swap(&mut reached, &mut next);
            next.clear();
            if reached.is_empty() {
                return;
            }
        }
        for node in &reached {
            let n = &self.nodes[*node];
            n.multi.iter().chain(&n.ends).for_each(|f| found(FilterId(*f)));
        }
    }

    fn child(&self, parent: u32, hash: u64) -> Option<u32> {
        self.index.find(key_hash(parent, hash), |n| {
            let n = &self.nodes[n];
            n.parent == parent && n.hash == hash
        })
    }

    fn child_or_new(&mut self, parent: u32, hash: u64) -> u32 {
        if let Some(child) = self.child(parent, hash) {
            return child;
        }
        let id = self.nodes.insert(Node::new(parent, hash));
        self.nodes[parent].uses += 1;
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
            let nodes = &self.nodes;
            let of = |n: u32| key_hash(nodes[n].parent, nodes[n].hash);
            self.index.remove(key_hash(parent, hash), node, of);
            self.nodes.remove(node);
            node = parent;
        }
    }
}

impl Node {
    fn new(parent: u32, hash: u64) -> Self {
        Self { parent, uses: 0, hash, ends: SmallVec::new(), multi: SmallVec::new() }
    }
}

fn level_hash(hasher: &LevelHasher, text: &[u8]) -> u64 {
    if text == b"+" { PLUS } else { hasher.bytes(text) }
}
