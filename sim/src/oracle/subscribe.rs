//! SUBSCRIBE and UNSUBSCRIBE. [S-55]

use super::state::{Bound, Form, InUse, Sub, SubRequest, UnsubRequest};
use super::{Oracle, SessionId, Verdict, insist};
use crate::topics;
use crate::wire::Filter;
use crate::world::NetId;

impl Oracle {
    pub(super) fn subscribe_in(
        &mut self,
        net: NetId,
        pid: u16,
        sub_id: Option<u32>,
        filters: &[Filter],
    ) -> Verdict {
        let sid = self.session_of(net)?;
        let asked = filters.iter().map(|f| (f.text.clone(), f.qos)).collect();
        let in_use = self.id_in_use(net, sid, pid);
        self.conn_mut(net).subs_due.push(SubRequest { pid, in_use, filters: asked });
        if in_use == InUse::Yes {
            return Ok(()); // nothing of it is done
        }
        let now = self.now;
        for f in filters {
            let (group, filter) = topics::split_share(&f.text);
            let subs = &mut self.sessions[sid].subs;
            // One that is leaving is still there until UNSUBACK, beside the new one.
            let at = subs.iter().position(|s| s.text == f.text && !s.leaving);
            let old = subs.iter().any(|s| s.text == f.text);
            let certain = at.is_some_and(|i| subs[i].certain());
            let plain = group.is_none();
            let form = Form {
                qos: f.qos,
                no_local: f.no_local,
                rap: f.rap,
                id: sub_id,
                pid,
                read: now,
                acked: false,
                replays: plain && (f.rh == 0 || f.rh == 1 && !certain), // [S-40]
                must_replay: plain && (f.rh == 0 || f.rh == 1 && !old),
            };
            self.start_replay(sid, filter, &form);
            if !plain && f.qos == 0 {
                // What comes back from others may come to this one, and be lost.
                let of_group = self.groups.iter_mut().filter(|((name, _), _)| *name == f.text);
                of_group.for_each(|(_, msg)| {
                    msg.lossy.insert(sid);
                });
            }
            let subs = &mut self.sessions[sid].subs;
            match at {
                Some(i) => subs[i].forms.push(form),
                None => subs.push(Sub {
                    text: f.text.clone(),
                    shared: group.is_some(),
                    filter: filter.to_owned(),
                    forms: vec![form],
                    leaving: false,
                    until: None,
                }),
            }
            self.recheck(sid, filter);
        }
        Ok(())
    }

    pub(super) fn id_in_use(&self, net: NetId, sid: SessionId, pid: u16) -> InUse {
        match self.sessions[sid].in_qos2.get(&pid) {
            Some(sure) if self.conn(net).version() == 5 => {
                if *sure {
                    InUse::Yes
                } else {
                    InUse::Maybe
                }
            }
            _ => InUse::No,
        }
    }

    pub(super) fn suback_out(&mut self, net: NetId, pid: u16, codes: &[u8]) -> Verdict {
        let sid = self.session_of(net)?;
        let now = self.now;
        let conn = self.conn_mut(net);
        let at = conn.subs_due.iter().position(|r| r.pid == pid);
        insist!(at.is_some(), "suback", "connection #{net} got SUBACK {pid} without SUBSCRIBE");
        let request = conn.subs_due.remove(at.unwrap_or(0));
        insist!(
            codes.len() == request.filters.len(),
            "suback P13",
            "SUBACK {pid} to #{net} has {} codes for {} filters",
            codes.len(),
            request.filters.len()
        );
        for ((text, qos), code) in request.filters.iter().zip(codes) {
            let in_use = *code == 0x91 && request.in_use != InUse::No;
            let refusable = self.rules.pressure && *code >= 0x80 || in_use;
            let done = request.in_use != InUse::Yes;
            insist!(
                code == qos && done || refusable,
                "granted-qos",
                "connection #{net} asked QoS {qos} for {text} and was told {code:#04x}"
            );
            let subs = &mut self.sessions[sid].subs;
            let Some(i) = subs
                .iter()
                .position(|s| s.text == *text && s.forms.iter().any(|f| f.pid == pid && !f.acked))
            else {
                continue;
            };
            if *code >= 0x80 {
                subs[i].forms.retain(|f| f.pid != pid || f.acked);
                if subs[i].forms.is_empty() {
                    subs.remove(i);
                }
                continue;
            }
            if subs[i].shared && !subs[i].certain() {
                // When all others ended meanwhile, unheard, the group ended with them. [S-66]
                self.group_left(sid, text);
            }
            let subs = &mut self.sessions[sid].subs;
            if let Some(f) = subs[i].forms.iter().position(|f| f.pid == pid && !f.acked) {
                // Earlier forms are replaced; later ones are still open.
                let forms = subs[i].forms.drain(..f).collect();
                let earlier = Sub { forms, ..subs[i].clone() };
                subs[i].forms[0].acked = true;
                let form = subs[i].forms[0].clone();
                let filter = subs[i].filter.clone();
                let leaving = subs[i].leaving;
                self.sessions[sid].leave(earlier, now.step);
                if !leaving {
                    self.require_replay(sid, &filter, text, &form);
                }
            }
        }
        Ok(())
    }

    pub(super) fn unsubscribe_in(&mut self, net: NetId, pid: u16, filters: &[String]) -> Verdict {
        let sid = self.session_of(net)?;
        let in_use = self.id_in_use(net, sid, pid);
        if in_use == InUse::Yes {
            let expected = filters.iter().map(|text| (text.clone(), Some(0x91))).collect();
            self.conn_mut(net).unsubs_due.push(UnsubRequest { pid, in_use, filters: expected });
            return Ok(());
        }
        // The answer may be 0x91, and nothing of it done.
        let doubtful = in_use == InUse::Maybe;
        let mut expected = Vec::new();
        for text in filters {
            let subs = &mut self.sessions[sid].subs;
            let same: Vec<usize> = (0..subs.len()).filter(|i| subs[*i].text == *text).collect();
            let code = match same.as_slice() {
                [] => Some(0x11),
                [i] if subs[*i].certain() => Some(0),
                _ => None,
            };
            expected.push((text.clone(), code));
            for i in same {
                subs[i].leaving = true;
            }
            // What it got so far stays with it whatever becomes of its session.
            for (_, group) in self.groups.iter_mut().filter(|((name, _), _)| name == text) {
                let mine = group.sent.iter_mut().filter(|g| g.to == sid);
                mine.for_each(|g| g.bound = if doubtful { Bound::Maybe } else { Bound::No });
            }
            let s = &mut self.sessions[sid];
            s.lapsing.push(text.clone());
            s.replays_due.retain(|due| due.text != *text);
            let (_, filter) = topics::split_share(text);
            self.recheck(sid, filter);
            self.group_left(sid, text);
        }
        self.conn_mut(net).unsubs_due.push(UnsubRequest { pid, in_use, filters: expected });
        Ok(())
    }

    pub(super) fn unsuback_out(&mut self, net: NetId, pid: u16, codes: &[u8]) -> Verdict {
        let sid = self.session_of(net)?;
        let conn = self.conn_mut(net);
        let v5 = conn.version() == 5;
        let at = conn.unsubs_due.iter().position(|r| r.pid == pid);
        insist!(at.is_some(), "unsuback", "connection #{net} got UNSUBACK {pid} unasked");
        let request = conn.unsubs_due.remove(at.unwrap_or(0));
        insist!(
            !v5 || codes.len() == request.filters.len(),
            "unsuback",
            "UNSUBACK {pid} to #{net} has {} codes",
            codes.len()
        );
        if request.in_use == InUse::Maybe && !codes.is_empty() && codes.iter().all(|c| *c == 0x91) {
            // Nothing of it was done.
            let Self { sessions, conns, .. } = self;
            let others = &conns[&net].unsubs_due;
            for (text, _) in &request.filters {
                let again = others.iter().any(|o| o.filters.iter().any(|(other, _)| other == text));
                let same = sessions[sid].subs.iter_mut().filter(|s| s.text == *text);
                same.for_each(|s| s.leaving &= again);
            }
            return Ok(());
        }
        for (i, (text, expected)) in request.filters.iter().enumerate() {
            let code = codes.get(i).copied();
            insist!(
                !v5 || expected.is_none() || code == *expected,
                "unsuback-code P14",
                "UNSUBSCRIBE {text} of #{net} was answered {code:?} instead of {expected:?}"
            );
            // The barrier: what is read from now on does not match it. [MQTT-3.10.4-2]
            if *expected == Some(0x91) {
                continue;
            }
            let step = self.now.step;
            let s = &mut self.sessions[sid];
            if let Some(i) = s.subs.iter().position(|s| s.text == *text && s.leaving) {
                let gone = s.subs.remove(i);
                s.leave(gone, step);
            }
        }
        Ok(())
    }
}
