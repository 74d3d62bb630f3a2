//! The tree of topic levels.

use super::super::message::Message;
use crate::engine::route::shape::LevelHasher;
use crate::engine::subs::table::IdTable;
use crate::engine::subs::text::{TextRef, TextStore};
use std::collections::BTreeSet;
use std::sync::Arc;

/// The node above all first levels.
pub(super) const ROOT: u32 = 0;
const NONE: u32 = u32::MAX;
const CHUNK: usize = 256;

/// A level of one or more topics. While it is free, `children` is the next free one.
#[derive(Debug)]
pub(super) struct Node {
    /// [`NONE`] while it is free.
    pub(super) parent: u32,
    hash: u32,
    name: TextRef,
    pub(super) children: u32,
    pub(super) message: Option<Arc<Message>>,
}

const _: () = assert!(size_of::<Node>() == 24);

/// Nodes found by (parent, name), and the children of each in the order of their numbers. A number
/// does not change as long as its node lives: that is what a cursor holds on to.
#[derive(Debug)]
pub(super) struct Tree {
    hasher: LevelHasher,
    names: TextStore,
    chunks: Vec<Vec<Node>>,
    free: u32,
    index: IdTable,
    /// `parent << 32 | child`, without first levels that begin with `$`.
    order: BTreeSet<u64>,
}

impl Tree {
    pub(super) fn new(seed: u64) -> Self {
        let mut tree = Self {
            hasher: LevelHasher::new(seed),
            names: TextStore::new(),
            chunks: Vec::new(),
            free: NONE,
            index: IdTable::default(),
            order: BTreeSet::new(),
        };
        let name = tree.names.insert(b"");
        tree.allocate(Node { parent: ROOT, hash: 0, name, children: 0, message: None });
        tree
    }

    pub(super) fn node(&self, id: u32) -> &Node {
        &self.chunks[id as usize / CHUNK][id as usize % CHUNK]
    }

    pub(super) fn node_mut(&mut self, id: u32) -> &mut Node {
        &mut self.chunks[id as usize / CHUNK][id as usize % CHUNK]
    }

    pub(super) fn bytes(&self) -> usize {
        self.names.bytes()
            + self.chunks.len() * CHUNK * size_of::<Node>()
            + self.index.bytes()
            // A B-tree's nodes of 11 are two thirds full, beside 24 bytes of their own.
            + self.order.len() * 14
    }

    pub(super) fn find(&self, topic: &str) -> Option<u32> {
        topic.as_bytes().split(|b| *b == b'/').try_fold(ROOT, |node, name| self.child(node, name))
    }

    pub(super) fn find_or_insert(&mut self, topic: &str) -> u32 {
        topic.as_bytes().split(|b| *b == b'/').fold(ROOT, |node, name| {
            self.child(node, name).unwrap_or_else(|| self.insert(node, name))
        })
    }

    pub(super) fn child(&self, parent: u32, name: &[u8]) -> Option<u32> {
        let hash = self.hash(parent, name);
        self.index.find(hash, |id| {
            let n = self.node(id);
            n.hash == hash && n.parent == parent && self.names.get(n.name) == name
        })
    }

    /// The parent's child with the least number above `after`, other than first levels that begin
    /// with `$`: wildcards do not match those. [S-51]
    pub(super) fn next_child(&self, parent: u32, after: u32) -> Option<u32> {
        let from = (u64::from(parent) << 32) | (u64::from(after) + 1);
        let to = (u64::from(parent) + 1) << 32;
        self.order.range(from..to).next().map(|entry| *entry as u32)
    }

    pub(super) fn is_dollar(&self, id: u32) -> bool {
        self.names.get(self.node(id).name).first() == Some(&b'$')
    }

    /// Removes a node without message and children, and those above that are then of no use.
    pub(super) fn prune(&mut self, mut id: u32) {
        while id != ROOT {
            let n = self.node(id);
            if n.message.is_some() || n.children > 0 {
                return;
            }
            let (parent, hash, name) = (n.parent, n.hash, n.name);
            let chunks = &self.chunks;
            self.index.remove(hash, id, |id| hash_of(chunks, id));
            self.order.remove(&(u64::from(parent) << 32 | u64::from(id)));
            self.names.remove(name);
            let free = std::mem::replace(&mut self.free, id);
            let n = self.node_mut(id);
            (n.parent, n.children) = (NONE, free);
            self.node_mut(parent).children -= 1;
            id = parent;
        }
    }

    fn insert(&mut self, parent: u32, name: &[u8]) -> u32 {
        let hash = self.hash(parent, name);
        let name = self.names.insert(name);
        let id = self.allocate(Node { parent, hash, name, children: 0, message: None });
        self.node_mut(parent).children += 1;
        let chunks = &self.chunks;
        self.index.insert(hash, id, |id| hash_of(chunks, id));
        if parent != ROOT || !self.is_dollar(id) {
            self.order.insert(u64::from(parent) << 32 | u64::from(id));
        }
        id
    }

    fn allocate(&mut self, node: Node) -> u32 {
        if self.free != NONE {
            let id = self.free;
            self.free = self.node(id).children;
            *self.node_mut(id) = node;
            return id;
        }
        if self.chunks.last().is_none_or(|c| c.len() == CHUNK) {
            self.chunks.push(Vec::with_capacity(CHUNK));
        }
        let chunk = self.chunks.len() - 1;
        self.chunks[chunk].push(node);
        (chunk * CHUNK + self.chunks[chunk].len() - 1) as u32
    }

    fn hash(&self, parent: u32, name: &[u8]) -> u32 {
        let h = self.hasher.bytes(name) ^ u64::from(parent).wrapping_mul(0xa076_1d64_78bd_642f);
        (h.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32) as u32
    }
}

fn hash_of(chunks: &[Vec<Node>], id: u32) -> u32 {
    chunks[id as usize / CHUNK][id as usize % CHUNK].hash
}
