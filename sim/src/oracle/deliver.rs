//! PUBLISH written to a subscriber.

use super::matching::{match_groups, match_session, qos_fits};
use super::publish::number;
use super::state::{Bound, Copies, GroupSend, InFlight, Msg, REPLAY, Sent, Session, Sub};
use super::{MsgId, Oracle, SessionId, Verdict, Violation, insist};
use crate::topics;
use crate::wire::Publish;
use crate::world::NetId;

/// Stands for a message that cannot be told from others.
const ANONYMOUS: MsgId = 0;

/// By which way a copy came.
/// 0 = ordinary subscriptions, 1.. = groups, [`REPLAY`].. = replays.
type Ways = Vec<usize>;

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
        let Some(id) = self.identify(p) else {
            insist!(false, "unpublished", "connection #{net} got {p:?}, which nobody published");
            return Ok(());
        };
        if id == ANONYMOUS {
            return if p.dup {
                self.resent(net, sid, id, p)
            } else {
                self.in_flight(net, sid, id, p)
            };
        }
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
        self.join_groups(sid, id);
        let way = self.classify(net, sid, id, p)?;
        self.account(sid, id, p, way)
    }

    /// The message of a packet. Empty ones without properties have no number.
    fn identify(&self, p: &Publish) -> Option<MsgId> {
        if let Some(id) = number(p) {
            return self.msgs.contains_key(&id).then_some(id);
        }
        let fits = |m: &Msg| m.payload.is_empty() && m.topic == p.topic;
        (p.payload.is_empty() && self.msgs.values().any(fits)).then_some(ANONYMOUS)
    }

    /// Groups that the session joined since may have got the message back from others. [S-63]
    fn join_groups(&mut self, sid: SessionId, id: MsgId) {
        let msg = &self.msgs[&id];
        let s = &mut self.sessions[sid];
        let mut m = match_session(s, msg.device, &msg.topic);
        // By way of a form that is over comes only what was read before that.
        let before =
            |sub: &&Sub| msg.ingress.iter().any(|at| sub.until.is_some_and(|u| at.step < u));
        let left = s.left.iter().filter(before);
        m.groups.extend(match_groups(left, msg.device == s.device, &msg.topic));
        m.groups.retain(|(part, _)| self.groups.contains_key(&(part.group.clone(), id)));
        if !m.groups.is_empty() {
            let copies = s.copies.entry(id).or_default();
            copies.widen_groups(&m);
        }
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
            s.inflight.get(&p.pid).is_none_or(|f| f.given_up),
            "packet-id-in-use S-37",
            "connection #{net} got a new message {id} with packet id {}, which is that of {:?}",
            p.pid,
            s.inflight[&p.pid]
        );
        let waiting =
            s.inflight.values().find(|f| f.state == Sent::Published && f.on != net && !f.given_up);
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
            given_up: false,
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
        let Some(f) = s.inflight.get_mut(&p.pid).filter(|f| f.msg == id || p.payload.is_empty())
        else {
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
        if msg.varies {
            return Ok(());
        }
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

    fn classify(
        &self,
        net: NetId,
        sid: SessionId,
        id: MsgId,
        p: &Publish,
    ) -> Result<Ways, Violation> {
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
        let mut ways = Vec::new();
        if c.plain_max > 0 {
            if !qos_fits(p.qos, msg.qos, c.qos_mask) {
                wrong = Some(("effective-qos P01", "its QoS is not that of the subscription"));
            } else if !flag_fits(c.rap) {
                wrong = Some(("retain-flag S-41", "its RETAIN flag is wrong"));
            } else if !c.ids_fit(&p.sub_ids, v5) {
                wrong = Some(("subscription-ids S-47", "its Subscription Identifiers are wrong"));
            } else {
                ways.push(0);
            }
        }
        for (i, g) in c.groups.iter().enumerate() {
            let id_fits = match p.sub_ids.as_slice() {
                [] => !v5 || g.ids.contains(&None),
                [one] => g.ids.contains(&Some(*one)),
                _ => false,
            };
            if qos_fits(p.qos, msg.qos, g.qos_mask) && flag_fits(g.rap) && id_fits {
                ways.push(1 + i);
            } else {
                wrong = wrong.or(Some(("shared-copy S-62", "it does not fit the membership")));
            }
        }
        if msg.retain && p.retain {
            for (i, r) in s.replays.iter().enumerate() {
                if topics::matches(&r.filter, &msg.topic)
                    && p.qos == msg.qos.min(r.qos)
                    && (if v5 { p.sub_ids == Vec::from_iter(r.id) } else { p.sub_ids.is_empty() })
                    && self.retained.may_hold(&msg.topic, id, r.read)
                {
                    ways.push(REPLAY + i);
                }
            }
        }
        let matches = !ways.is_empty();
        if matches && c.has_room(&ways, msg.ingress.len() as u32) {
            return Ok(ways);
        }
        let (rule, why) = match wrong {
            _ if matches => ("duplicate", "it came before without DUP"),
            Some(wrong) => wrong,
            None if msg.retain && p.retain => ("replay S-40", "no SUBSCRIBE brings it"),
            None => ("unmatched S-55", "no subscription matches it"),
        };
        let text = format!("connection #{net} got message {id}, but {why}: {p:?}; {c:?}; {msg:?}");
        Err(Violation { rule, text })
    }

    fn account(&mut self, sid: SessionId, id: MsgId, p: &Publish, ways: Ways) -> Verdict {
        let msg = self.msgs[&id].clone();
        insist!(!msg.is_refused(), "refused-delivered", "message {id} was refused and delivered");
        let s = &mut self.sessions[sid];
        s.replays_due.retain(|due| !(due.topic == msg.topic && due.any_of.contains(&id)));
        let copies = s.copies.entry(id).or_default();
        copies.received.push((self.copies_sent, ways.clone()));
        let groups: Vec<_> = ways
            .iter()
            .filter(|w| (1..REPLAY).contains(*w))
            .map(|w| copies.groups[w - 1].group.clone())
            .collect();
        for name in groups {
            self.group_out(sid, id, name, p.qos, ways.len() == 1)?;
        }
        if ways == [0] && msg.ingress.len() == 1 {
            self.check_order(sid, id, &msg, p)?;
        }
        if msg.retain {
            self.monotonic(sid, id, &msg, p, &ways)?;
        }
        Ok(())
    }

    /// The order of a publisher's messages, per QoS. [S-80] [S-81]
    fn check_order(&mut self, sid: SessionId, id: MsgId, msg: &Msg, p: &Publish) -> Verdict {
        let s = &mut self.sessions[sid];
        let by_topic = (msg.device, msg.qos, p.qos, msg.topic.clone());
        let by_any = (msg.device, msg.qos, p.qos, String::new());
        let same = s.last_seq.insert(by_topic, msg.seq).unwrap_or(0);
        let any = s.last_seq.get(&by_any).copied().unwrap_or(0);
        s.last_seq.insert(by_any, any.max(msg.seq));
        let (me, you) = (s.device, msg.device);
        if p.qos > 0 {
            let acked = s.last_acked_seq.entry(msg.device).or_default();
            *acked = msg.seq.max(*acked);
        } else {
            // Only QoS 0 may overtake: it does not wait for the window. [S-23]
            let acked = s.last_acked_seq.get(&msg.device).copied().unwrap_or(0);
            insist!(
                acked < msg.seq,
                "order S-81",
                "device {me} got message {id}, {you}'s {}., after {you}'s {acked}. with a higher QoS",
                msg.seq
            );
        }
        insist!(
            same < msg.seq,
            "order S-80",
            "device {me} got message {id}, {you}'s {}., after {you}'s {same}. on the same topic",
            msg.seq
        );
        insist!(
            any < msg.seq,
            "order S-81",
            "device {me} got message {id}, {you}'s {}., after {you}'s {any}. on another topic",
            msg.seq
        );
        Ok(())
    }

    /// A retained message never comes after a newer one of its topic. [S-44] [S-83] What comes by way
    /// of a group does not count as the newer one: groups and ordinary subscriptions are independent
    /// [S-61], and the order in a group is that of its member only [S-84].
    fn monotonic(
        &mut self,
        sid: SessionId,
        id: MsgId,
        msg: &Msg,
        p: &Publish,
        ways: &Ways,
    ) -> Verdict {
        let replay = ways.iter().all(|w| *w >= REPLAY);
        let group = ways.iter().any(|w| (1..REPLAY).contains(w));
        let key = (msg.topic.clone(), p.qos);
        let last = self.sessions[sid].last_retained.get(&key).copied();
        let older = last.is_some_and(|last| self.retained.before(&msg.topic, id, last));
        insist!(
            !(replay && older),
            "retained-monotonic S-83",
            "retained message {id} came after the newer {last:?} of {}",
            msg.topic
        );
        if !older && !group {
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
        let key = (name.clone(), id);
        let Some(group) = self.groups.get(&key) else { return Ok(()) };
        let sessions = &self.sessions;
        let lapsing = sessions[sid].lapsing.contains(&name);
        let bound = if lapsing { Bound::Maybe } else { Bound::Yes };
        // [S-63] What went back, or may have, does not count: its member did not acknowledge it, and
        // its session may be over.
        let may_be_back = |g: &GroupSend| {
            let open = || sessions[g.to].inflight.values().any(|f| f.order == g.order);
            g.qos == 1 && g.bound != Bound::No && !self.is_certain(g.to) && open()
        };
        let order = if qos == 0 { 0 } else { sessions[sid].next_order };
        let over = qos == 1 && sessions[sid].ended;
        let copy = self.copies_sent;
        let new = GroupSend { copy, to: sid, qos, order, bound, doubtful: over, sure };
        // What is written behind the end of its session, in the same turn, has gone back already.
        if sure && !may_be_back(&new) {
            let standing = group.sent.iter().filter(|g| g.sure && !may_be_back(g)).count();
            insist!(
                standing < allowed,
                "shared-once S-61",
                "message {id} of group {name} goes to session {sid} too: {:?}",
                group.sent
            );
        }
        let went_back = over && bound == Bound::Yes;
        if !went_back && let Some(group) = self.groups.get_mut(&key) {
            group.sent.push(new);
        }
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
                if group == name {
                    msg.must = false;
                }
            }
        }
    }
}
