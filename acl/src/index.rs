//! Finds the first of many rules that a topic matches.
//!
//! ```text
//! ids      7   9   12   40 …           positions in Policy::lines, ascending
//! tree     (root) ─ "plant" ─ "+" ─ "temp"   → ids that end here
//!                           └ "#"            → ids that take all the rest
//! ```
//! A few are compared one after the other. More go into a tree of levels, where each node knows the
//! first rule below it: what cannot be sooner than what was found is not entered.

use hashbrown::HashTable;
use ringmain_mqtt::topic::Levels;

use crate::hash::hash;
use crate::pattern::Pattern;
use crate::policy::Line;
use crate::subject::ActionSet;

/// Up to so many topics are compared one by one: measured in docs/adr/0022-acl-compiled.md.
const LINEAR_MAX: usize = 12;

/// No rule.
pub(crate) const NONE: u32 = u32::MAX;

/// Topics of rules without placeholders, in order.
#[derive(Debug, Default)]
pub(crate) struct Index {
    ids: Box<[u32]>,
    tree: Option<Box<Tree>>,
    /// Actions about which some line says something else than the policy in the end.
    pub(crate) open: ActionSet,
}

impl Index {
    /// `ids` ascend and name lines with a pattern.
    pub(crate) fn new(lines: &[Line], ids: Vec<u32>) -> Self {
        debug_assert!(ids.is_sorted());
        let tree = (ids.len() > LINEAR_MAX).then(|| Box::new(Tree::new(lines, &ids)));
        Self { ids: ids.into(), tree, open: ActionSet::NONE }
    }

    /// The first line below `before` that is about action `what` and matches `name`, else `before`.
    #[inline]
    pub(crate) fn first_name(&self, lines: &[Line], what: u8, name: &str, before: u32) -> u32 {
        match &self.tree {
            None => first(&self.ids, lines, what, before, |pattern| pattern.matches_name(name)),
            Some(tree) => tree.first(lines, what, name, before),
        }
    }

    /// The same for the filter of a subscribe.
    pub(crate) fn first_filter(&self, lines: &[Line], what: u8, asked: &str, before: u32) -> u32 {
        first(&self.ids, lines, what, before, |pattern| pattern.matches_filter(asked))
    }

    /// Its lines, ascending.
    pub(crate) fn ids(&self) -> impl Iterator<Item = u32> + Clone {
        self.ids.iter().copied()
    }

    /// How many topics it has.
    pub(crate) fn len(&self) -> usize {
        self.ids.len()
    }

    /// Bytes that it takes.
    pub(crate) fn bytes(&self) -> usize {
        let tree = self.tree.as_ref().map_or(0, |tree| tree.bytes());
        size_of::<Self>() + self.ids.len() * 4 + tree
    }
}

#[inline]
fn first(
    ids: &[u32],
    lines: &[Line],
    what: u8,
    before: u32,
    matches: impl Fn(&Pattern) -> bool,
) -> u32 {
    for &id in ids {
        if id >= before {
            break;
        }
        let line = &lines[id as usize];
        if line.actions.has(what) && line.pattern.as_ref().is_some_and(&matches) {
            return id;
        }
    }
    before
}

/// The levels of many topics.
#[derive(Debug)]
struct Tree {
    nodes: Vec<Node>,
    edges: HashTable<Edge>,
    /// The texts of all levels, one after the other.
    levels: String,
    /// What cannot be found by its levels.
    rest: Vec<u32>,
}

#[derive(Debug)]
struct Node {
    /// The first line at or below this node.
    first: u32,
    /// The child for `+`; 0: none.
    plus: u32,
    /// Lines whose last level this is.
    here: Vec<u32>,
    /// Lines that go on with `#`.
    all: Vec<u32>,
}

#[derive(Debug)]
struct Edge {
    parent: u32,
    child: u32,
    start: u32,
    len: u32,
}

const ROOT: u32 = 0;

/// What does not change on the way through a tree.
struct Search<'a> {
    lines: &'a [Line],
    what: u8,
    is_dollar: bool,
}

impl Tree {
    fn new(lines: &[Line], ids: &[u32]) -> Self {
        let mut tree = Self {
            nodes: vec![Node::new()],
            edges: HashTable::new(),
            levels: String::new(),
            rest: vec![],
        };
        for &id in ids {
            let pattern = lines[id as usize].pattern.as_ref().expect("templates are not indexed");
            match pattern.levels() {
                _ if pattern.is_filter_only() => {}
                None => tree.rest.push(id),
                Some(levels) => tree.insert(id, levels),
            }
        }
        tree
    }

    fn insert(&mut self, id: u32, levels: Levels<'_>) {
        let mut at = ROOT;
        self.nodes[0].first = self.nodes[0].first.min(id);
        for level in levels {
            if level == "#" {
                self.nodes[at as usize].all.push(id);
                return;
            }
            at = self.child_or_new(at, level);
            let node = &mut self.nodes[at as usize];
            node.first = node.first.min(id);
        }
        self.nodes[at as usize].here.push(id);
    }

    fn child_or_new(&mut self, parent: u32, level: &str) -> u32 {
        let new = u32::try_from(self.nodes.len()).expect("fewer nodes than bytes of text");
        if level == "+" {
            let plus = self.nodes[parent as usize].plus;
            if plus != 0 {
                return plus;
            }
            self.nodes[parent as usize].plus = new;
        } else {
            if let Some(child) = self.child(parent, level) {
                return child;
            }
            let start = self.levels.len() as u32;
            self.levels.push_str(level);
            let edge = Edge { parent, child: new, start, len: level.len() as u32 };
            let levels = &self.levels;
            self.edges.insert_unique(key(parent, level), edge, |edge| {
                key(edge.parent, &levels[edge.start as usize..(edge.start + edge.len) as usize])
            });
        }
        self.nodes.push(Node::new());
        new
    }

    #[inline]
    fn child(&self, parent: u32, level: &str) -> Option<u32> {
        let same = |edge: &Edge| {
            let start = edge.start as usize;
            edge.parent == parent
                && self.levels.as_bytes()[start..start + edge.len as usize] == *level.as_bytes()
        };
        self.edges.find(key(parent, level), same).map(|edge| edge.child)
    }

    fn first(&self, lines: &[Line], what: u8, name: &str, before: u32) -> u32 {
        let best = first(&self.rest, lines, what, before, |pattern| pattern.matches_name(name));
        let search = Search { lines, what, is_dollar: name.starts_with('$') };
        self.walk(&search, ROOT, Some(name), best)
    }

    /// As deep as a topic of a rule: at most [`crate::template::LEVELS_MAX`].
    fn walk(&self, search: &Search<'_>, at: u32, rest: Option<&str>, mut best: u32) -> u32 {
        let node = &self.nodes[at as usize];
        if node.first >= best {
            return best;
        }
        // [MQTT-4.7.2-1] A filter that begins with a wildcard matches no topic that begins with $.
        let wildcards = !(at == ROOT && search.is_dollar);
        let about = |id: &&u32| search.lines[**id as usize].actions.has(search.what);
        if wildcards && let Some(&id) = node.all.iter().find(about) {
            best = best.min(id);
        }
        let Some(rest) = rest else {
            return node.here.iter().find(about).map_or(best, |&id| best.min(id));
        };
        let (level, rest) = match rest.bytes().position(|byte| byte == b'/') {
            Some(slash) => (&rest[..slash], Some(&rest[slash + 1..])),
            None => (rest, None),
        };
        if let Some(child) = self.child(at, level) {
            best = self.walk(search, child, rest, best);
        }
        if wildcards && node.plus != 0 {
            best = self.walk(search, node.plus, rest, best);
        }
        best
    }

    fn bytes(&self) -> usize {
        let ids: usize =
            self.nodes.iter().map(|node| node.here.capacity() + node.all.capacity()).sum();
        size_of::<Self>()
            + self.nodes.capacity() * size_of::<Node>()
            + self.edges.allocation_size()
            + self.levels.capacity()
            + (ids + self.rest.capacity()) * 4
    }
}

impl Node {
    fn new() -> Self {
        Self { first: NONE, plus: 0, here: vec![], all: vec![] }
    }
}

fn key(parent: u32, level: &str) -> u64 {
    hash(u64::from(parent), level.as_bytes())
}
