//! PUBLISH read by the broker.

use super::matching::{lowest_qos, match_session};
use super::state::{ConnState, InUse, Msg};
use super::{MsgId, Oracle, SessionId, Verdict};
use crate::wire::Publish;
use crate::world::NetId;

/// The number of a message, from its payload (`m12…`, `w3`) or its Correlation Data.
pub(super) fn number(p: &Publish) -> Option<MsgId> {
    let from = |bytes: &[u8]| -> Option<MsgId> {
        let digits: Vec<u8> = bytes.iter().copied().take_while(u8::is_ascii_digit).collect();
        std::str::from_utf8(&digits).ok()?.parse().ok()
    };
    match p.payload.split_first() {
        Some((b'm' | b'w', rest)) => from(rest),
        _ => from(p.correlation.as_deref()?),
    }
}

impl Oracle {
    pub(super) fn publish_in(&mut self, net: NetId, p: &Publish) -> Verdict {
        let mut p = p.clone();
        let conn = self.conn_mut(net);
        if let Some(alias) = p.alias {
            if p.topic.is_empty() {
                p.topic = conn.aliases_in.get(&alias).cloned().unwrap_or_default();
            } else {
                conn.aliases_in.insert(alias, p.topic.clone());
            }
        }
        if conn.version() < 5 {
            p.expiry_s = None;
        }
        let sid = self.session_of(net)?;
        let Some(id) = number(&p) else { return Ok(()) };
        match p.qos {
            2 => {
                // One that is refused by closing a connection of version 3 is not heard of.
                let sure = !self.unreliable && !self.rules.rejects;
                let held = self.sessions[sid].in_qos2.insert(p.pid, sure);
                self.conn_mut(net).pubrecs_due.push_back((p.pid, id, held.is_some()));
                match held {
                    Some(true) => return Ok(()), // [S-33] delivered once
                    // The first may have been refused, unheard: this one counts or not.
                    Some(false) => {
                        self.publish(self.conn(net).device, id, p, false);
                        return Ok(());
                    }
                    None => {}
                }
            }
            1 => {
                let in_use = self.id_in_use(net, sid, p.pid);
                self.conn_mut(net).pubacks_due.push_back((p.pid, id, in_use));
                if in_use == InUse::Yes {
                    return Ok(()); // nothing of it is done
                }
            }
            _ => {}
        }
        self.publish(self.conn(net).device, id, p, !self.unreliable);
        Ok(())
    }

    fn publish(&mut self, device: usize, id: MsgId, p: Publish, sure: bool) {
        let now = self.now;
        let msg = self.msgs.entry(id).or_insert_with(|| Msg {
            device,
            topic: p.topic,
            qos: p.qos,
            retain: p.retain,
            payload: p.payload,
            expiry_s: p.expiry_s,
            ingress: Vec::new(),
            seq: 0,
            refusals: 0,
            varies: false,
            will: None,
        });
        if msg.ingress.is_empty() {
            self.next_seq[device] += 1;
            msg.seq = self.next_seq[device];
        }
        msg.ingress.push(now);
        // Repeated by another version of the protocol, it may differ.
        msg.varies |= msg.expiry_s != p.expiry_s;
        let msg = msg.clone();
        // An empty one cannot be told from others where there are no properties.
        let sure = sure && !self.draining;
        let must = sure && !msg.payload.is_empty();
        for sid in self.current.clone().into_iter().flatten() {
            let s = &self.sessions[sid];
            if s.ended {
                continue;
            }
            let m = match_session(s, device, &msg.topic);
            if !m.possible && m.groups.is_empty() {
                continue;
            }
            let certain = self.is_certain(sid);
            for (part, member) in &m.groups {
                let group = self.groups.entry((part.group.clone(), id)).or_default();
                group.members.insert(sid);
                if lowest_qos(msg.qos, part.qos_mask) == 0 {
                    group.lossy.insert(sid);
                }
                if *member && certain && must {
                    group.must = true;
                } else {
                    group.unsure.insert(sid);
                }
            }
            let away = !self.rules.keeps_qos0 && !self.is_here(sid);
            let copies = self.sessions[sid].copies.entry(id).or_default();
            copies.add(&m, must && certain);
            copies.away |= away;
        }
        if msg.retain {
            self.retained.publish(id, &msg, now, sure);
            self.newly_retained(&msg.topic);
        }
        self.recent.push_back(id);
    }

    /// Whether the client of a session is connected for certain.
    fn is_here(&self, sid: SessionId) -> bool {
        let conn = self.sessions[sid].conn.and_then(|net| self.conns.get(&net));
        let device = self.sessions[sid].device;
        let taken_over = !self.connecting[device].is_empty() || self.is_kicked(device);
        conn.is_some_and(|c| {
            let leaves = c.disconnect_in.is_some() || c.dead_at_ms() <= self.now.ms;
            c.state == ConnState::Live && !leaves && !taken_over
        })
    }

    /// The publish was refused. Nobody needs to get it, unless the server took it before, and its
    /// publisher never read the acknowledgement.
    pub(super) fn refuse(&mut self, id: MsgId) {
        if let Some(msg) = self.msgs.get_mut(&id) {
            msg.refusals += 1;
            self.retained.refused(&msg.topic, id);
            if !msg.is_refused() {
                return;
            }
        }
        for s in &mut self.sessions {
            if let Some(copies) = s.copies.get_mut(&id) {
                copies.must = false;
            }
        }
        for ((_, msg), group) in &mut self.groups {
            if *msg == id {
                group.must = false;
            }
        }
    }
}
