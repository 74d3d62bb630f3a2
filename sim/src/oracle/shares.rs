//! Shared groups at rest: every copy that came has its reason, and every group its copy.
//!
//! One message may come to a session by way of several groups and of ordinary subscriptions, and a
//! copy does not say by which. So the question is not whether each may be explained, but whether all
//! can be at once.

use std::collections::{BTreeMap, HashMap};

use super::matching::lowest_qos;
use super::quiet::SMALL;
use super::state::{Copies, GroupMsg, GroupSend};
use super::{MsgId, Oracle, Verdict, insist};

/// The groups that a message was for.
type Groups<'a> = Vec<(&'a str, &'a GroupMsg)>;

/// Gives each item one of the slots that it wants, within their room; the first item for which there
/// is none, whatever the others get.
fn place_all(wants: &[Vec<usize>], room: &[u32]) -> Option<usize> {
    let mut held = vec![Vec::new(); room.len()];
    (0..wants.len())
        .find(|item| !place(*item, wants, room, &mut held, &mut vec![false; room.len()]))
}

fn place(
    item: usize,
    wants: &[Vec<usize>],
    room: &[u32],
    held: &mut [Vec<usize>],
    seen: &mut [bool],
) -> bool {
    for slot in wants[item].iter().copied() {
        if std::mem::replace(&mut seen[slot], true) {
            continue;
        }
        if held[slot].len() < room[slot] as usize {
            held[slot].push(item);
            return true;
        }
        for at in 0..held[slot].len() {
            if place(held[slot][at], wants, room, held, seen) {
                held[slot][at] = item;
                return true;
            }
        }
    }
    false
}

impl Oracle {
    /// [S-61] [S-67]
    pub(super) fn check_groups(&self) -> Verdict {
        let mut by_msg: BTreeMap<MsgId, Groups<'_>> = BTreeMap::new();
        for ((name, id), group) in &self.groups {
            by_msg.entry(*id).or_default().push((name, group));
        }
        for (id, mut groups) in by_msg {
            groups.sort_unstable_by_key(|(name, _)| *name);
            self.check_each_has_its_copy(id, &groups)?;
            self.check_no_copy_too_many(id, &groups)?;
        }
        Ok(())
    }

    /// Whether some member must have got the message.
    fn must_have(&self, id: MsgId, group: &GroupMsg) -> bool {
        let msg = &self.msgs[&id];
        // A copy of QoS 0 is lost with the connection that it was written to, or where sockets do
        // not take everything.
        let first = msg.ingress.first().map_or(0, |at| at.step);
        let cut = |sid: &usize| !self.rules.roomy || self.sessions[*sid].cut_step >= first;
        let lossy = msg.qos == 0 || group.lossy.iter().any(cut);
        // Expired, too large for its member [S-30] or for the member's queue: counted, and gone.
        let dropped = msg.expiry_s.is_some() || msg.payload.len() > SMALL || self.rules.queue_bound;
        group.must && !lossy && !dropped
    }

    fn check_each_has_its_copy(&self, id: MsgId, groups: &Groups<'_>) -> Verdict {
        let mut copies: HashMap<u64, usize> = HashMap::new();
        let mut number = |copy: u64| {
            let next = copies.len();
            *copies.entry(copy).or_insert(next)
        };
        let mut wants = Vec::new();
        let mut names = Vec::new();
        for (name, group) in groups.iter().filter(|(_, group)| self.must_have(id, group)) {
            names.push(*name);
            wants.push(group.sent.iter().map(|g| number(g.copy)).collect::<Vec<_>>());
        }
        if names.is_empty() {
            return Ok(());
        }
        let qos = self.msgs[&id].qos;
        for s in self.current.iter().flatten().map(|sid| &self.sessions[*sid]) {
            // Where none came at all, `check_copies` says so.
            let due = |c: &&Copies| c.must && !c.none_plain() && lowest_qos(qos, c.qos_mask) > 0;
            let Some(c) = s.copies.get(&id).filter(due) else { continue };
            names.push("ordinary subscriptions");
            let plain = c.received.iter().filter(|(_, ways)| ways.contains(&0));
            wants.push(plain.map(|(copy, _)| number(*copy)).collect());
        }
        let lacking = place_all(&wants, &vec![1; copies.len()]);
        insist!(
            lacking.is_none(),
            "shared-lost S-67",
            "nobody in {} got message {id}: {groups:?} {:?}",
            names[lacking.unwrap_or(0)],
            self.msgs[&id]
        );
        Ok(())
    }

    fn check_no_copy_too_many(&self, id: MsgId, groups: &Groups<'_>) -> Verdict {
        let allowed = self.msgs[&id].ingress.len() as u32;
        let mut room: Vec<u32> = groups.iter().map(|_| allowed).collect();
        let mut wants = Vec::new();
        for c in self.sessions.iter().filter_map(|s| s.copies.get(&id)) {
            room.push(c.plain_max);
            let plain = room.len() - 1;
            for (copy, ways) in &c.received {
                let by = |g: &&GroupSend| g.copy == *copy && !g.doubtful;
                let mut slots: Vec<usize> = (0..groups.len())
                    .filter(|at| groups[*at].1.sent.iter().any(|g| by(&g)))
                    .collect();
                // Retained messages are counted elsewhere. What went back to one of its groups, or
                // may have, has no place: it was of that group, or ended with its session.
                let of_groups = ways.iter().filter(|w| **w != 0).count();
                if slots.len() < of_groups {
                    continue;
                }
                slots.extend(ways.contains(&0).then_some(plain));
                if !slots.is_empty() {
                    wants.push(slots);
                }
            }
        }
        insist!(
            place_all(&wants, &room).is_none(),
            "shared-once S-61",
            "message {id} came more often than its groups and subscriptions allow: {groups:?} {:?}",
            self.msgs[&id]
        );
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::place_all;

    #[test]
    fn all_find_a_place_or_one_is_named() {
        // The first must give way to the second, and that to the third.
        assert_eq!(place_all(&[vec![0, 1], vec![0, 2], vec![0]], &[1, 1, 1]), None);
        assert_eq!(place_all(&[vec![0], vec![0], vec![0]], &[2]), Some(2));
        assert_eq!(place_all(&[vec![0, 1], vec![0, 1], vec![0, 1]], &[1, 1]), Some(2));
        assert_eq!(place_all(&[vec![]], &[1]), Some(0));
    }
}
