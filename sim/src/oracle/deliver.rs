//! PUBLISH written to a subscriber.

use super::matching::qos_fits;
use super::publish::number;
use super::state::{Copies, InFlight, Msg, Sent, Session};
use super::{MsgId, Oracle, SessionId, Verdict, Violation, insist};
use crate::topics;
use crate::wire::Publish;
use crate::world::NetId;

/// By which way a copy came.
enum Way {
    Plain,
    Group(String),
    Replay(usize),
}

impl Oracle {
    pub(super) fn publish_out(&mut self, net: NetId, p: &Publish) -> Verdict {
        let sid = self.session_of(net)?;
        let conn = self.conn(net);
        let connect = conn.connect.as_deref();
        let alias_max = connect.and_then(|c| c.alias_max).unwrap_or(0);
        insist!(
            p.alias.is_none_or(|a| a > 0 && a <= alias_max),
            "topic-alias S-27",
            "connection #{net} allows {alias_max} aliases and got alias {:?}",
            p.alias
        );
        let Some(id) = self.identify(sid, p) else {
            insist!(false, "unpublished", "connection #{net} got {p:?}, which nobody published");
            return Ok(());
        };
        let msg = &self.msgs[&id];
        insist!(
            msg.topic == p.topic && msg.payload == p.payload,
            "content",
            "connection #{net} got {p:?} for {msg:?}"
        );
        if p.dup {
            return self.resent(net, sid, id, p);
        }
        self.in_flight(net, sid, id, p)?;
        self.copies_sent += 1;
        if let Some(will) = self.msgs[&id].will {
            return self.will_out(sid, will, p);
        }
        self.check_expiry(net, id, p)?;
        let way = self.classify(net, sid, id, p)?;
        self.account(sid, id, p, way)
    }

    /// The message of a packet. Empty ones to MQTT 3 clients have no number: any that fits.
    fn identify(&self, sid: SessionId, p: &Publish) -> Option<MsgId> {
        if let Some(id) = number(p) {
            return self.msgs.contains_key(&id).then_some(id);
        }
        let s = &self.sessions[sid];
        if p.dup {
            return s.inflight.get(&p.pid).map(|f| f.msg);
        }
        let is_it = |id: &MsgId| {
            let m = &self.msgs[id];
            m.payload.is_empty() && m.topic == p.topic
        };
        let fits = |id: &MsgId, c: &Copies| {
            let m = &self.msgs[id];
            c.plain_sent + c.group_sent < c.plain_max + c.groups.len() as u32
                && (qos_fits(p.qos, m.qos, c.qos_mask)
                    || c.groups.iter().any(|g| qos_fits(p.qos, m.qos, g.qos_mask)))
        };
        s.copies
            .iter()
            .find(|(id, c)| is_it(id) && fits(id, c))
            .or_else(|| s.copies.iter().find(|(id, _)| is_it(id)))
            .map(|(id, _)| *id)
            .or_else(|| self.msgs.keys().filter(|id| is_it(id)).max().copied())
    }

    /// Packet ids, the client's window, order of resends. [S-21] [S-36] [S-37]
    fn in_flight(&mut self, net: NetId, sid: SessionId, id: MsgId, p: &Publish) -> Verdict {
        if p.qos == 0 {
            return Ok(());
        }
        let conn = self.conn_mut(net);
        conn.fresh_sent = true;
        let window = conn.connect.as_ref().and_then(|c| c.receive_max).unwrap_or(u16::MAX);
        let s = &mut self.sessions[sid];
        insist!(
            !s.inflight.contains_key(&p.pid),
            "packet-id-in-use S-37",
            "connection #{net} got a new message {id} with packet id {}, which is that of {:?}",
            p.pid,
            s.inflight[&p.pid]
        );
        let waiting = s.inflight.values().find(|f| f.state == Sent::Published && f.on != net);
        insist!(
            waiting.is_none(),
            "resend-first S-37",
            "connection #{net} got the new message {id} before the resend of {waiting:?}"
        );
        s.next_order += 1;
        let flight = InFlight {
            msg: id,
            qos: p.qos,
            retain: p.retain,
            state: Sent::Published,
            on: net,
            released_on: None,
            order: s.next_order,
        };
        s.inflight.insert(p.pid, flight);
        Self::check_window(s, net, window)
    }

    fn check_window(s: &Session, net: NetId, window: u16) -> Verdict {
        let open = s.inflight.values().filter(|f| f.on == net).count();
        insist!(
            open <= usize::from(window),
            "receive-maximum S-21",
            "connection #{net} allows {window} unacknowledged messages and has {open}"
        );
        Ok(())
    }

    fn resent(&mut self, net: NetId, sid: SessionId, id: MsgId, p: &Publish) -> Verdict {
        let conn = self.conn(net);
        let window = conn.connect.as_ref().and_then(|c| c.receive_max).unwrap_or(u16::MAX);
        let (fresh, last) = (conn.fresh_sent, conn.last_resent);
        insist!(p.qos > 0, "dup-qos0", "connection #{net} got DUP with QoS 0 [MQTT-3.3.1-2]");
        let s = &mut self.sessions[sid];
        let Some(f) = s.inflight.get_mut(&p.pid).filter(|f| f.msg == id) else {
            insist!(
                false,
                "dup-of-nothing S-38",
                "connection #{net} got message {id} with DUP and packet id {}, never sent before",
                p.pid
            );
            return Ok(());
        };
        insist!(
            f.state == Sent::Published,
            "publish-after-pubrec S-36",
            "connection #{net} got message {id} again after its PUBREC"
        );
        insist!(
            f.on != net,
            "resend-on-live S-38",
            "connection #{net} got message {id} again without reconnecting [MQTT-4.4.0-1]"
        );
        insist!(
            f.qos == p.qos && f.retain == p.retain,
            "resend-differs",
            "connection #{net} got message {id} again as {p:?}"
        );
        insist!(
            !fresh && last.is_none_or(|l| l < f.order),
            "resend-order S-37",
            "connection #{net} got message {id} again out of order"
        );
        f.on = net;
        let order = f.order;
        Self::check_window(s, net, window)?;
        self.conn_mut(net).last_resent = Some(order);
        Ok(())
    }

    /// [S-11] [S-12]
    fn check_expiry(&self, net: NetId, id: MsgId, p: &Publish) -> Verdict {
        let msg = &self.msgs[&id];
        let v5 = self.conn(net).version() == 5;
        let Some(expiry_s) = msg.expiry_s else {
            insist!(
                p.expiry_s.is_none(),
                "expiry-absent S-11",
                "connection #{net}: message {id} has no expiry and came with {:?}",
                p.expiry_s
            );
            return Ok(());
        };
        let waited = |at: &crate::world::Stamp| self.now.ms.saturating_sub(at.ms);
        let alive = msg.ingress.iter().any(|at| waited(at) < 1000 * u64::from(expiry_s));
        insist!(
            alive,
            "expired S-12",
            "connection #{net} got message {id}, which expired {expiry_s} s after {:?}",
            msg.ingress
        );
        let left = |at| u64::from(expiry_s).saturating_sub(waited(at) / 1000).max(1);
        let right = |got| msg.ingress.iter().any(|at| left(at) == u64::from(got));
        insist!(
            !v5 || p.expiry_s.is_some_and(right),
            "expiry-value S-11",
            "connection #{net}: message {id} of {expiry_s} s came with {:?}",
            p.expiry_s
        );
        Ok(())
    }

    fn classify(&self, net: NetId, sid: SessionId, id: MsgId, p: &Publish) -> Result<Way, Violation> {
        let s = &self.sessions[sid];
        let msg = &self.msgs[&id];
        let v5 = self.conn(net).version() == 5;
        let none = Copies::default();
        let c = s.copies.get(&id).unwrap_or(&none);
        let flag_fits = |rap: [bool; 2]| match (msg.retain, p.retain) {
            (false, retained) => !retained,
            (true, retained) => rap[usize::from(retained)],
        };
        let mut wrong: Option<(&'static str, &str)> = None;
        if c.plain_sent < c.plain_max {
            wrong = if !qos_fits(p.qos, msg.qos, c.qos_mask) {
                Some(("effective-qos P01", "its QoS is not that of the subscription"))
            } else if !flag_fits(c.rap) {
                Some(("retain-flag S-41", "its RETAIN flag is wrong"))
            } else if !c.ids_fit(&p.sub_ids, v5) {
                Some(("subscription-ids S-47", "its Subscription Identifiers are wrong"))
            } else {
                return Ok(Way::Plain);
            };
        }
        for g in &c.groups {
            let sends = &self.groups[&(g.group.clone(), id)].sent;
            let mine = sends.iter().filter(|(to, ..)| *to == sid).count();
            let id_fits = match p.sub_ids.as_slice() {
                [] => !v5 || g.ids.contains(&None),
                [one] => g.ids.contains(&Some(*one)),
                _ => false,
            };
            if mine >= msg.ingress.len() {
                continue;
            }
            if qos_fits(p.qos, msg.qos, g.qos_mask) && flag_fits(g.rap) && id_fits {
                return Ok(Way::Group(g.group.clone()));
            }
            wrong = wrong.or(Some(("shared-copy S-62", "it does not fit the membership")));
        }
        if msg.retain && p.retain {
            let brings = |r: &super::state::Replay| {
                topics::matches(&r.filter, &msg.topic)
                    && p.qos == msg.qos.min(r.qos)
                    && (if v5 { p.sub_ids == Vec::from_iter(r.id) } else { p.sub_ids.is_empty() })
                    && !r.brought.contains(&id)
                    && self.retained.may_hold(&msg.topic, id, r.read)
            };
            if let Some(i) = s.replays.iter().position(brings) {
                return Ok(Way::Replay(i));
            }
        }
        let (rule, why) = wrong.unwrap_or(match (c.plain_max, c.plain_sent + c.group_sent) {
            (0, 0) if msg.retain && p.retain => ("replay S-40", "no SUBSCRIBE brings it"),
            (0, 0) => ("unmatched S-55", "no subscription matches it"),
            _ => ("duplicate", "it came before without DUP"),
        });
        let text = format!("connection #{net} got message {id}, but {why}: {p:?}; {c:?}; {msg:?}");
        Err(Violation { rule, text })
    }

    fn account(&mut self, sid: SessionId, id: MsgId, p: &Publish, way: Way) -> Verdict {
        let msg = self.msgs[&id].clone();
        insist!(
            !msg.refused || msg.ingress.len() > 1,
            "refused-delivered",
            "message {id} was refused and delivered"
        );
        let s = &mut self.sessions[sid];
        s.replays_due.retain(|due| !(due.topic == msg.topic && due.any_of.contains(&id)));
        match way {
            Way::Replay(i) => {
                s.replays[i].brought.insert(id);
                let copies = s.copies.entry(id).or_default();
                copies.replays += 1;
                self.monotonic(sid, id, &msg, p, true)
            }
            Way::Group(group) => {
                let copies = s.copies.entry(id).or_default();
                copies.group_sent += 1;
                let sure = copies.plain_max == 0;
                self.group_out(sid, id, group, p.qos, sure)
            }
            Way::Plain => {
                let copies = s.copies.entry(id).or_default();
                copies.plain_sent += 1;
                let unsure = !copies.groups.is_empty() || p.retain;
                let key = (msg.device, msg.qos, p.qos);
                let last = s.last_seq.entry(key).or_insert(0);
                if msg.ingress.len() == 1 && !unsure {
                    insist!(
                        *last < msg.seq,
                        "order S-80",
                        "session of device {}: message {id} ({}. of device {}) came after its {last}.",
                        s.device,
                        msg.seq,
                        msg.device
                    );
                    *last = msg.seq;
                }
                if msg.retain { self.monotonic(sid, id, &msg, p, false) } else { Ok(()) }
            }
        }
    }

    /// A retained message never comes after a newer one of its topic. [S-44] [S-83]
    fn monotonic(
        &mut self,
        sid: SessionId,
        id: MsgId,
        msg: &Msg,
        p: &Publish,
        replay: bool,
    ) -> Verdict {
        let key = (msg.topic.clone(), p.qos);
        let last = self.sessions[sid].last_retained.get(&key).copied();
        let older = last.is_some_and(|last| self.retained.before(&msg.topic, id, last));
        insist!(
            !(replay && older),
            "retained-monotonic S-83",
            "retained message {id} came after the newer {last:?} of {}",
            msg.topic
        );
        if !older {
            self.sessions[sid].last_retained.insert(key, id);
        }
        Ok(())
    }

    /// One member of the group gets the message. [S-61] [S-64]
    fn group_out(
        &mut self,
        sid: SessionId,
        id: MsgId,
        name: String,
        qos: u8,
        sure: bool,
    ) -> Verdict {
        let allowed = self.msgs[&id].ingress.len();
        let now = self.now;
        let Some(group) = self.groups.get_mut(&(name.clone(), id)) else { return Ok(()) };
        if sure {
            let sessions = &self.sessions;
            let stands = |(to, qos, step): &&(SessionId, u8, u64)| {
                let s = &sessions[*to];
                let left = s.ended || now.ms >= s.expires_ms() || s.lapse_step > *step;
                *qos != 1 || !left
            };
            let standing = group.sent.iter().filter(stands).count();
            insist!(
                standing < allowed,
                "shared-once S-61",
                "message {id} of group {name} goes to session {sid} too: {:?}",
                group.sent
            );
        }
        group.sent.push((sid, qos, now.step));
        Ok(())
    }

    /// Members that are left decide whether what waits must still come. [S-66]
    pub(super) fn group_left(&mut self, sid: SessionId, name: &str) {
        let member = |other: &SessionId| {
            *other != sid
                && self.is_certain(*other)
                && self.sessions[*other].subs.iter().any(|s| s.text == name && s.certain())
        };
        let anyone = self.current.iter().flatten().any(member);
        if !anyone {
            for ((group, _), msg) in &mut self.groups {
                if group == name && msg.sent.is_empty() {
                    msg.must = false;
                }
            }
        }
    }
}
