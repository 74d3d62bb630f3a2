//! Retained messages. [S-40] to [S-44]

use std::collections::{HashMap, HashSet};

use super::state::{Form, Msg, Replay, ReplayDue};
use super::{MsgId, Oracle, SessionId};
use crate::topics;
use crate::world::{SETTLED, Stamp};

#[derive(Clone, Debug)]
struct Entry {
    id: MsgId,
    at: Stamp,
    device: usize,
    /// Whether it was stored for certain.
    sure: bool,
    empty: bool,
    expires: bool,
}

impl Entry {
    /// Whether the owner of the topic stored this one before `other`, for certain.
    fn before(&self, other: &Self) -> bool {
        (self.device == other.device && self.at.step < other.at.step)
            || self.at.epoch + SETTLED <= other.at.epoch
    }

    /// Whether `newer` took its place before `when`, for certain.
    fn replaced(&self, newer: &Self, when: Stamp) -> bool {
        newer.sure && self.before(newer) && newer.at.epoch + SETTLED <= when.epoch
    }
}

/// What each topic may hold: every retained publish in the order of ingress.
#[derive(Debug, Default)]
pub(super) struct Retained {
    topics: HashMap<String, Vec<Entry>>,
}

impl Retained {
    pub(super) fn publish(&mut self, id: MsgId, msg: &Msg, at: Stamp, sure: bool) {
        self.topics.entry(msg.topic.clone()).or_default().push(Entry {
            id,
            at,
            device: msg.device,
            sure,
            empty: msg.payload.is_empty(),
            expires: msg.expiry_s.is_some(),
        });
    }

    /// Whether a replay that began at `since` may bring this message.
    pub(super) fn may_hold(&self, topic: &str, id: MsgId, since: Stamp) -> bool {
        let Some(entries) = self.topics.get(topic) else { return false };
        entries
            .iter()
            .any(|e| e.id == id && !e.empty && !entries.iter().any(|n| e.replaced(n, since)))
    }

    /// Whether `a` is older than `b` for certain.
    pub(super) fn before(&self, topic: &str, a: MsgId, b: MsgId) -> bool {
        let Some(entries) = self.topics.get(topic) else { return false };
        let last = |id| entries.iter().rev().find(|e| e.id == id);
        let first = |id| entries.iter().find(|e| e.id == id);
        match (last(a), first(b)) {
            (Some(a), Some(b)) => a.id != b.id && a.before(b),
            _ => false,
        }
    }

    /// A publish was refused after all: the last one of this message. Earlier ones may have been
    /// taken.
    pub(super) fn refused(&mut self, topic: &str, id: MsgId) {
        if let Some(entries) = self.topics.get_mut(topic)
            && let Some(at) = entries.iter().rposition(|e| e.id == id)
        {
            entries.remove(at);
        }
    }

    /// Nothing is under way: keeps what topics may hold, and says which messages those are.
    pub(super) fn settle(&mut self) -> HashSet<MsgId> {
        let end = Stamp { epoch: u64::MAX, ..Stamp::default() };
        for entries in self.topics.values_mut() {
            let held = |e: &&Entry| !entries.iter().any(|n| e.replaced(n, end));
            let ids: HashSet<MsgId> = entries.iter().filter(held).map(|e| e.id).collect();
            // All publishes of those: one that was repeated is as old as its first. See `before`.
            entries.retain(|e| ids.contains(&e.id));
        }
        self.topics.values().flatten().map(|e| e.id).collect()
    }

    /// Topics that hold one of some messages for certain, at this moment.
    fn certain(&self, now: Stamp) -> impl Iterator<Item = (&String, Vec<&Entry>)> {
        self.topics.iter().filter_map(move |(topic, entries)| {
            let held: Vec<&Entry> =
                entries.iter().filter(|e| !entries.iter().any(|n| e.replaced(n, now))).collect();
            let sure = !held.is_empty()
                && held.iter().all(|e| !e.empty && !e.expires)
                && held.iter().any(|e| e.sure && e.at.epoch + SETTLED <= now.epoch);
            sure.then_some((topic, held))
        })
    }
}

impl Oracle {
    /// A SUBSCRIBE was read that may bring retained messages.
    pub(super) fn start_replay(&mut self, sid: SessionId, filter: &str, form: &Form) {
        if form.replays {
            self.sessions[sid].replays.push(Replay {
                filter: filter.to_owned(),
                qos: form.qos,
                id: form.id,
                read: form.read,
            });
        }
    }

    /// SUBACK was written: these retained messages must follow.
    pub(super) fn require_replay(&mut self, sid: SessionId, filter: &str, text: &str, form: &Form) {
        let s = &self.sessions[sid];
        if !form.must_replay || self.unreliable {
            return;
        }
        let mut due = Vec::new();
        for (topic, held) in self.retained.certain(form.read) {
            // Those that came since are in the choice too, so that nothing is due twice.
            let newer = self.retained.topics[topic].iter().any(|e| e.at.step >= form.read.step);
            let own = |e: &&Entry| form.no_local && e.device == s.device;
            let small = |e: &&Entry| s.small && self.msgs[&e.id].payload.len() > 150;
            let lost = |e: &&Entry| self.msgs[&e.id].is_refused();
            let out = held.iter().any(|e| own(e) || small(e) || lost(e));
            if newer || out || !topics::matches(filter, topic) {
                continue;
            }
            due.push(ReplayDue {
                topic: topic.clone(),
                text: text.to_owned(),
                qos: held.iter().map(|e| self.msgs[&e.id].qos.min(form.qos)).min().unwrap_or(0),
                any_of: held.iter().map(|e| e.id).collect(),
            });
        }
        due.sort_by(|a, b| a.topic.cmp(&b.topic));
        let s = &mut self.sessions[sid];
        s.replays_due.extend(due);
    }

    /// A newer message for a topic: what is due of older ones need not come.
    pub(super) fn newly_retained(&mut self, topic: &str) {
        for s in &mut self.sessions {
            s.replays_due.retain(|due| due.topic != topic);
        }
    }
}
