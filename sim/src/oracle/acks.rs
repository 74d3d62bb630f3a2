//! Acknowledgements in both directions.

use super::state::{InUse, Sent, Session};
use super::{Oracle, SessionId, Verdict, insist};
use crate::world::NetId;

impl Oracle {
    pub(super) fn puback_out(&mut self, net: NetId, pid: u16, reason: u8) -> Verdict {
        let due = self.conn_mut(net).pubacks_due.pop_front();
        insist!(
            due.is_some_and(|(p, ..)| p == pid),
            "puback-order S-82",
            "connection #{net} got PUBACK {pid} where {due:?} was due [MQTT-4.6.0-2]"
        );
        let Some((_, msg, in_use)) = due else { return Ok(()) };
        // Under memory pressure a publish is refused before anything else is asked about it. [Q08]
        let refused = self.rules.pressure && reason == 0x97;
        insist!(
            in_use != InUse::Yes || reason == 0x91 || refused,
            "id-in-use",
            "connection #{net} got PUBACK {pid} with {reason:#04x}, and a QoS 2 publish has the id"
        );
        if reason == 0x91 && in_use != InUse::No {
            if in_use == InUse::Maybe {
                self.refuse(msg); // it was counted as published
            }
            return Ok(());
        }
        self.accepted(net, msg, reason)
    }

    pub(super) fn pubrec_out(&mut self, net: NetId, pid: u16, reason: u8) -> Verdict {
        let due = self.conn_mut(net).pubrecs_due.pop_front();
        insist!(
            due.is_some_and(|(p, _, _)| p == pid),
            "pubrec-order S-82",
            "connection #{net} got PUBREC {pid} where {due:?} was due [MQTT-4.6.0-3]"
        );
        let Some((_, msg, repeated)) = due else { return Ok(()) };
        if reason >= 0x80 {
            let sid = self.session_of(net)?;
            self.sessions[sid].in_qos2.remove(&pid); // [S-34]
        } else {
            let sid = self.session_of(net)?;
            self.sessions[sid].in_qos2.entry(pid).and_modify(|sure| *sure = true);
        }
        if repeated { Ok(()) } else { self.accepted(net, msg, reason) }
    }

    fn accepted(&mut self, net: NetId, msg: u64, reason: u8) -> Verdict {
        if reason >= 0x80 {
            insist!(
                self.rules.pressure || self.draining || self.rules.rejects && reason == 0x97,
                "refused-publish",
                "connection #{net}: message {msg} was refused with {reason:#04x}"
            );
            self.refuse(msg);
            return Ok(());
        }
        insist!(
            reason == 0 || self.conn(net).version() == 5 && reason == 0x10,
            "ack-code",
            "connection #{net}: message {msg} was acknowledged with {reason:#04x}"
        );
        if reason == 0x10 {
            // A session that matched an earlier publish of the message may be over by now: one that
            // ends with its connection does while a CONNECT of its client is under way. [S-08]
            let wants = |(sid, s): &(SessionId, &Session)| {
                self.is_certain(*sid) && s.copies.get(&msg).is_some_and(|c| c.must)
            };
            let wanted = self.sessions.iter().enumerate().find(wants).map(|(_, s)| s);
            insist!(
                wanted.is_none(),
                "no-matching-subscribers P03",
                "message {msg} of #{net} got 0x10, but device {} subscribes to it",
                wanted.map_or(0, |s| s.device)
            );
        }
        Ok(())
    }

    pub(super) fn pubrel_in(&mut self, net: NetId, pid: u16) -> Verdict {
        let sid = self.session_of(net)?;
        let known = match self.sessions[sid].in_qos2.remove(&pid) {
            None => Some(false),
            Some(true) => Some(true),
            Some(false) => None,
        };
        self.conn_mut(net).pubcomps_due.push((pid, known));
        Ok(())
    }

    pub(super) fn pubcomp_out(&mut self, net: NetId, pid: u16, reason: u8) -> Verdict {
        let conn = self.conn_mut(net);
        let v5 = conn.version() == 5;
        let at = conn.pubcomps_due.iter().position(|(p, _)| *p == pid);
        insist!(at.is_some(), "pubcomp", "connection #{net} got PUBCOMP {pid} without PUBREL");
        let (_, known) = conn.pubcomps_due.remove(at.unwrap_or(0));
        // [S-35] 0x00 for an id that is known, 0x92 otherwise.
        let expected = match known {
            Some(false) if v5 => Some(0x92),
            Some(_) => Some(0),
            None => None,
        };
        insist!(
            expected.is_none_or(|e| e == reason),
            "pubcomp-code S-35",
            "PUBCOMP {pid} to #{net} says {reason:#04x} instead of {expected:02x?}"
        );
        Ok(())
    }

    pub(super) fn puback_in(&mut self, net: NetId, pid: u16) -> Verdict {
        let sid = self.session_of(net)?;
        let inflight = &mut self.sessions[sid].inflight;
        if inflight.get(&pid).is_some_and(|f| f.qos == 1) {
            inflight.remove(&pid);
        }
        Ok(())
    }

    pub(super) fn pubrec_in(&mut self, net: NetId, pid: u16, reason: u8) -> Verdict {
        let sid = self.session_of(net)?;
        let inflight = &mut self.sessions[sid].inflight;
        let Some(f) = inflight.get_mut(&pid).filter(|f| f.qos == 2) else { return Ok(()) };
        if reason >= 0x80 {
            inflight.remove(&pid);
        } else if f.state == Sent::Published {
            f.state = Sent::Received;
            self.conn_mut(net).pubrels_due.push_back(pid);
        }
        Ok(())
    }

    pub(super) fn pubrel_out(&mut self, net: NetId, pid: u16) -> Verdict {
        let sid = self.session_of(net)?;
        let due = self.conn(net).pubrels_due.front().copied();
        if due == Some(pid) {
            self.conn_mut(net).pubrels_due.pop_front();
        } else {
            let answers = self.conn(net).pubrels_due.contains(&pid);
            insist!(
                !answers,
                "pubrel-order S-82",
                "connection #{net} got PUBREL {pid} before PUBREL {due:?} [MQTT-4.6.0-4]"
            );
        }
        let f = self.sessions[sid].inflight.get_mut(&pid);
        let Some(f) = f.filter(|f| f.state != Sent::Published) else {
            insist!(
                false,
                "pubrel-unknown S-36",
                "connection #{net} got PUBREL {pid} without PUBREC"
            );
            return Ok(());
        };
        insist!(
            f.released_on != Some(net),
            "pubrel-twice S-38",
            "connection #{net} got PUBREL {pid} twice"
        );
        f.state = Sent::Released;
        f.released_on = Some(net);
        Ok(())
    }

    pub(super) fn pubcomp_in(&mut self, net: NetId, pid: u16) -> Verdict {
        let sid = self.session_of(net)?;
        let inflight = &mut self.sessions[sid].inflight;
        if inflight.get(&pid).is_some_and(|f| f.state == Sent::Released) {
            inflight.remove(&pid);
        }
        Ok(())
    }
}
