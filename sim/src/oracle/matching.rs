//! Which sessions a message may and must reach.

use super::state::{Conn, Copies, GroupPart, Session, Sub};
use super::{MsgId, Oracle, SessionId};
use crate::topics;

/// How a message and a session fit.
#[derive(Clone, Debug, Default)]
pub(super) struct Match {
    pub(super) certain: bool,
    pub(super) possible: bool,
    pub(super) qos_mask: u8,
    pub(super) ids_must: Vec<u32>,
    pub(super) ids_may: Vec<u32>,
    pub(super) rap: [bool; 2],
    /// With whether membership is certain.
    pub(super) groups: Vec<(GroupPart, bool)>,
}

/// Bits `lo..=hi`.
fn bits(lo: u8, hi: u8) -> u8 {
    (lo..=hi).fold(0, |mask, q| mask | 1 << q)
}

/// Whether a copy at `qos` can come of a message with QoS `published` and a granted QoS in `mask`.
pub(super) fn qos_fits(qos: u8, published: u8, mask: u8) -> bool {
    (0..3).any(|granted| mask & (1 << granted) != 0 && published.min(granted) == qos)
}

/// The lowest QoS that such a copy may have.
pub(super) fn lowest_qos(published: u8, mask: u8) -> u8 {
    published.min(mask.trailing_zeros().min(2) as u8)
}

/// Matches one session, whose own life is not asked about.
pub(super) fn match_session(s: &Session, publisher: usize, topic: &str) -> Match {
    let mut m = Match::default();
    let (mut lo, mut hi, mut lowest) = (0, 0, 2);
    for sub in s.subs.iter().filter(|sub| topics::matches(&sub.filter, topic)) {
        let open: Vec<_> =
            sub.forms.iter().filter(|f| !(f.no_local && publisher == s.device)).collect();
        let (Some(min), Some(max)) =
            (open.iter().map(|f| f.qos).min(), open.iter().map(|f| f.qos).max())
        else {
            continue;
        };
        let certain = sub.certain() && open.len() == sub.forms.len();
        let mut rap = [false; 2];
        open.iter().for_each(|f| rap[usize::from(f.rap)] = true);
        if sub.shared {
            let ids = open.iter().map(|f| f.id).collect();
            let part = GroupPart { group: sub.text.clone(), qos_mask: bits(min, max), ids, rap };
            m.groups.push((part, certain));
            continue;
        }
        m.possible = true;
        m.certain |= certain;
        hi = hi.max(max);
        lowest = lowest.min(min);
        if certain {
            lo = lo.max(min);
        }
        m.rap = [m.rap[0] || rap[0], m.rap[1] || rap[1]];
        let sure = certain && open.len() == 1;
        let ids = if sure { &mut m.ids_must } else { &mut m.ids_may };
        ids.extend(open.iter().filter_map(|f| f.id));
    }
    if m.possible {
        m.qos_mask = bits(if m.certain { lo } else { lowest }, hi);
    }
    m
}

/// The memberships among `subs` that a message may come by.
pub(super) fn match_groups<'a>(
    subs: impl Iterator<Item = &'a Sub>,
    own: bool,
    topic: &str,
) -> impl Iterator<Item = (GroupPart, bool)> {
    subs.filter(move |s| s.shared && topics::matches(&s.filter, topic)).filter_map(move |sub| {
        let open: Vec<_> = sub.forms.iter().filter(|f| !(f.no_local && own)).collect();
        let (min, max) = (open.iter().map(|f| f.qos).min()?, open.iter().map(|f| f.qos).max()?);
        let mut rap = [false; 2];
        open.iter().for_each(|f| rap[usize::from(f.rap)] = true);
        let ids = open.iter().map(|f| f.id).collect();
        Some((GroupPart { group: sub.text.clone(), qos_mask: bits(min, max), ids, rap }, false))
    })
}

impl Copies {
    /// A further ingress of the message matched like this.
    pub(super) fn add(&mut self, m: &Match, must: bool) {
        self.must |= must && m.certain;
        self.plain_max += u32::from(m.possible);
        self.widen(m);
        if self.plain_max == u32::from(m.possible) {
            self.ids_must.clone_from(&m.ids_must);
        }
    }

    /// What is certain may be so no more, and more is possible.
    pub(super) fn widen(&mut self, m: &Match) {
        self.qos_mask |= m.qos_mask;
        self.rap = [self.rap[0] || m.rap[0], self.rap[1] || m.rap[1]];
        for id in &self.ids_must {
            if !m.ids_must.contains(id) {
                self.ids_may.push(*id);
            }
        }
        self.ids_must.retain(|id| m.ids_must.contains(id));
        for id in m.ids_may.iter().chain(&m.ids_must) {
            if !self.ids_may.contains(id) {
                self.ids_may.push(*id);
            }
        }
        self.widen_groups(m);
    }

    pub(super) fn widen_groups(&mut self, m: &Match) {
        for (part, _) in &m.groups {
            match self.groups.iter_mut().find(|g| g.group == part.group) {
                Some(known) => {
                    known.qos_mask |= part.qos_mask;
                    known.ids.extend(&part.ids);
                    known.rap = [known.rap[0] || part.rap[0], known.rap[1] || part.rap[1]];
                }
                None => self.groups.push(part.clone()),
            }
        }
    }

    /// Whether these Subscription Identifiers fit the ordinary subscriptions. [S-47] [S-48]
    pub(super) fn ids_fit(&self, ids: &[u32], v5: bool) -> bool {
        if !v5 {
            return ids.is_empty();
        }
        let known = |id: &u32| self.ids_must.contains(id) || self.ids_may.contains(id);
        ids.iter().all(known) && self.ids_must.iter().all(|id| ids.contains(id))
    }
}

impl Oracle {
    /// Whether a session is there for certain, now.
    pub(super) fn is_certain(&self, sid: SessionId) -> bool {
        let s = &self.sessions[sid];
        let connecting = &self.connecting[s.device];
        let conn = s.conn.and_then(|net| self.conns.get(&net));
        // Its close is seen at the end of the turn only, but is done by then.
        let leaves = |c: &Conn| {
            c.disconnect_in.is_some() || c.dead_at_ms() <= self.now.ms || self.is_kicked(s.device)
        };
        let ends = s.expiry_s == 0 && conn.is_some_and(leaves);
        let may_go = ends || connecting.iter().any(|(_, clean)| *clean || s.expiry_s == 0);
        !s.ended
            && !s.doubtful
            && !self.is_discarded(s.device)
            && !may_go
            && self.now.ms < s.expires_ms()
    }

    /// The subscriptions of a session changed in a way that is not yet certain: publishes under way
    /// may or may not see it, and copies not yet sent need not be sent.
    pub(super) fn recheck(&mut self, sid: SessionId, filter: &str) {
        let Self { sessions, msgs, recent, groups, .. } = self;
        let s = &mut sessions[sid];
        let ids: Vec<MsgId> = s.copies.keys().copied().chain(recent.iter().copied()).collect();
        for id in ids {
            let msg = &msgs[&id];
            if !topics::matches(filter, &msg.topic) {
                continue;
            }
            let m = match_session(s, msg.device, &msg.topic);
            for (part, certain) in &m.groups {
                let entry = groups.entry((part.group.clone(), id)).or_default();
                entry.members.insert(sid);
                if lowest_qos(msg.qos, part.qos_mask) == 0 {
                    entry.lossy.insert(sid);
                }
                if !certain {
                    entry.unsure.insert(sid);
                }
            }
            let unsettled = recent.contains(&id);
            match s.copies.get_mut(&id) {
                Some(copies) => {
                    copies.must &= m.certain;
                    if unsettled && m.possible {
                        copies.plain_max = copies.plain_max.max(msg.ingress.len() as u32);
                    }
                    copies.widen(&m);
                }
                None if m.possible || !m.groups.is_empty() => {
                    let mut copies = Copies::default();
                    copies.add(&m, false);
                    copies.plain_max *= msg.ingress.len() as u32;
                    let all: Vec<u32> = std::mem::take(&mut copies.ids_must);
                    copies.ids_may.extend(all);
                    // The match may also happen before the change.
                    copies.qos_mask = bits(0, 2);
                    s.copies.insert(id, copies);
                }
                None => {}
            }
        }
    }
}
