//! Walking through the topics that match a filter, a page at a time.

use super::super::message::Message;
use super::tree::{ROOT, Tree};
use smallvec::SmallVec;
use std::sync::Arc;

/// Nodes looked at in one page, beyond its messages' own: some 300 µs when memory is cold.
const LOOKS_MAX: usize = 1024;

/// Where a replay stands. Survives any change to the store.
///
/// The nodes from the first level down to the one visited last. A walk visits a node before its
/// children, and children in the order of their numbers; a node keeps its number while it lives, and
/// with a topic all nodes above it live. So no topic that stays is passed over or met twice.
#[derive(Clone, Debug, Default)]
pub struct RetainedCursor {
    path: SmallVec<[u32; 8]>,
    /// The node visited last is still to be returned.
    pending: bool,
    done: bool,
}

#[derive(Clone, Copy, PartialEq)]
enum Level<'a> {
    Literal(&'a [u8]),
    /// `+`, or any level under `#`.
    Any,
    /// Below the end of the filter.
    End,
}

pub(super) struct Walk<'a> {
    tree: &'a Tree,
    levels: SmallVec<[Level<'a>; 16]>,
    multi: bool,
    looks: usize,
}

impl<'a> Walk<'a> {
    pub(super) fn new(tree: &'a Tree, filter: &'a str) -> Self {
        let mut levels = SmallVec::new();
        let mut multi = false;
        for text in filter.as_bytes().split(|b| *b == b'/') {
            match text {
                b"#" => multi = true,
                b"+" => levels.push(Level::Any),
                text => levels.push(Level::Literal(text)),
            }
        }
        Self { tree, levels, multi, looks: 0 }
    }

    pub(super) fn page(
        &mut self,
        cursor: &mut RetainedCursor,
        max_messages: usize,
        max_bytes: usize,
        now_ms: u64,
        out: &mut Vec<Arc<Message>>,
    ) -> bool {
        let (mut messages, mut bytes) = (0, 0usize);
        let mut descend = self.resume(cursor);
        while !cursor.done {
            if std::mem::take(&mut cursor.pending)
                && let Some(message) = self.message_at(cursor, now_ms)
            {
                let size = message.queue_bytes();
                if messages > 0 && (messages >= max_messages || bytes + size > max_bytes) {
                    cursor.pending = true;
                    return false;
                }
                out.push(Arc::clone(message));
                messages += 1;
                bytes += size;
            }
            if self.looks > LOOKS_MAX {
                return false;
            }
            self.step(cursor, descend);
            descend = true;
        }
        true
    }

    fn message_at(&self, cursor: &RetainedCursor, now_ms: u64) -> Option<&'a Arc<Message>> {
        let depth = cursor.path.len();
        if depth < self.levels.len() || depth > self.levels.len() && !self.multi {
            return None;
        }
        let tree: &'a Tree = self.tree;
        let message = tree.node(*cursor.path.last()?).message.as_ref()?;
        (!message.is_expired(now_ms)).then_some(message)
    }

    /// Cuts the path after the first node that is gone; whether the walk may go on below its end.
    fn resume(&self, cursor: &mut RetainedCursor) -> bool {
        let mut parent = ROOT;
        for depth in 0..cursor.path.len() {
            let id = cursor.path[depth];
            let lives = match self.level(depth) {
                Level::Literal(name) => self.tree.child(parent, name) == Some(id),
                // A new node may have the number: what is below it is new too.
                Level::Any => {
                    self.tree.node(id).parent == parent && !(depth == 0 && self.tree.is_dollar(id))
                }
                Level::End => false,
            };
            if !lives {
                cursor.path.truncate(depth + 1);
                cursor.pending = false;
                return false;
            }
            parent = id;
        }
        true
    }

    fn level(&self, depth: usize) -> Level<'a> {
        match self.levels.get(depth) {
            Some(level) => *level,
            None if self.multi => Level::Any,
            None => Level::End,
        }
    }

    /// Goes to the next node: down if `descend`, else aside, else up and aside.
    fn step(&mut self, cursor: &mut RetainedCursor, descend: bool) {
        let depth = cursor.path.len();
        let top = cursor.path.last().copied().unwrap_or(ROOT);
        self.looks += 1;
        if descend && (depth == 0 || self.tree.node(top).children > 0) {
            let below = match self.level(depth) {
                Level::Literal(name) => self.tree.child(top, name),
                Level::Any => self.tree.next_child(top, 0),
                Level::End => None,
            };
            if let Some(id) = below {
                cursor.path.push(id);
                cursor.pending = true;
                return;
            }
        }
        while let Some(id) = cursor.path.pop() {
            let depth = cursor.path.len();
            let parent = cursor.path.last().copied().unwrap_or(ROOT);
            self.looks += 1;
            if self.level(depth) == Level::Any
                && let Some(next) = self.tree.next_child(parent, id)
            {
                cursor.path.push(next);
                cursor.pending = true;
                return;
            }
        }
        cursor.done = true;
    }
}
