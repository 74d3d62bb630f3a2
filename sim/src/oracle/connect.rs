//! CONNECT and CONNACK: one live connection per client id, and the truth of Session Present.

use std::collections::HashSet;

use super::quiet::SMALL;
use super::state::{Bound, ConnState, GroupSend, InFlight, Sent, Session};
use super::{MsgId, Oracle, SessionId, Verdict, insist};
use crate::wire::{ConnAck, Connect};
use crate::world::NetId;

/// What may be true of Session Present.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Present {
    Must,
    MustNot,
    Either,
}

/// Versions 3 without Clean Session: longer than any run.
const LONG_S: u32 = u32::MAX;

impl Oracle {
    pub(super) fn connect_in(&mut self, net: NetId, connect: &Connect) {
        let conn = self.conn_mut(net);
        conn.connect = Some(Box::new(connect.clone()));
        let device = conn.device;
        self.connecting[device].push((net, connect.clean));
        self.arm_will(net, connect);
    }

    pub(super) fn connack_out(&mut self, net: NetId, ack: &ConnAck) -> Verdict {
        let now_ms = self.now.ms;
        let conn = self.conn(net);
        let device = conn.device;
        let Some(connect) = conn.connect.clone() else {
            insist!(false, "connack", "connection #{net} got CONNACK without CONNECT");
            return Ok(());
        };
        insist!(conn.state != ConnState::Live, "connack", "connection #{net} got two CONNACKs");
        self.connecting[device].retain(|(n, _)| *n != net);
        if ack.code != 0 {
            // Busy or not authorised. Version 3 says "unavailable" for the former.
            let busy = if connect.version == 5 { 0x89 } else { 0x88 };
            let turned_away = self.rules.turns_away && [busy, 0x87].contains(&ack.code);
            insist!(
                self.rules.pressure || self.draining || turned_away,
                "refused-connect",
                "connection #{net} was refused with {:#04x}",
                ack.code
            );
            insist!(!ack.session_present, "session-present C01", "refused with Session Present");
            return Ok(());
        }
        let double =
            self.conns.iter().find(|(_, c)| c.device == device && c.state == ConnState::Live);
        insist!(
            double.is_none(),
            "one-connection S-01",
            "connection #{net} of device {device} was accepted while #{:?} is live",
            double.map(|(n, _)| n)
        );
        let present = self.present(device, &connect);
        insist!(
            present == Present::Either || (present == Present::Must) == ack.session_present,
            "session-present C01",
            "connection #{net} of device {device}: Session Present {} where it {present:?}",
            ack.session_present
        );
        self.wills_at_connack(device, ack.session_present, connect.clean);
        let sid = self.attach(device, ack.session_present);
        let s = &mut self.sessions[sid];
        s.conn = Some(net);
        s.doubtful = false; // unless an order is still under way
        s.offline_ms = None;
        s.small = connect.packet_max.is_some();
        if s.small {
            // [S-30] What the client does not take any more counts as delivered.
            let msgs = &self.msgs;
            let big = |f: &InFlight| msgs.get(&f.msg).is_some_and(|m| m.payload.len() > SMALL);
            let published = s.inflight.values_mut().filter(|f| f.state == Sent::Published);
            published.filter(|f| big(f)).for_each(|f| f.given_up = true);
        }
        s.expiry_s = match connect.version {
            5 => ack.expiry_s.or(connect.expiry_s).unwrap_or(0),
            _ if connect.clean => 0,
            _ => LONG_S,
        };
        let conn = self.conn_mut(net);
        if conn.state != ConnState::Gone {
            conn.state = ConnState::Live;
        }
        conn.session = Some(sid);
        conn.last_in_ms = now_ms;
        conn.keep_alive_s = ack.keep_alive_s.unwrap_or(connect.keep_alive_s);
        if conn.keep_alive_s > 0 {
            self.kept_alive.push(net);
        }
        if self.conn(net).state == ConnState::Gone {
            // It went in the turn that accepted it.
            self.conn_mut(net).ended = false;
            self.end_of_connection(net);
        }
        Ok(())
    }

    fn present(&self, device: usize, connect: &Connect) -> Present {
        if connect.clean {
            return Present::MustNot;
        }
        let Some(sid) = self.current[device] else { return Present::MustNot };
        let s = &self.sessions[sid];
        let shard = s.conn.map_or(0, |net| self.conn(net).shard);
        // A tick that is due and was not fed leaves it open whether the session is still there.
        let ticked = self.deadlines[shard] > self.now.ms;
        if s.ended {
            Present::MustNot
        } else if s.expiry_s == 0 || s.doubtful || self.is_discarded(device) {
            Present::Either
        } else if self.now.ms < s.expires_ms() {
            Present::Must
        } else if self.now.ms >= s.expires_ms().saturating_add(1000) && ticked {
            Present::MustNot
        } else {
            Present::Either
        }
    }

    fn attach(&mut self, device: usize, present: bool) -> SessionId {
        if let (true, Some(sid)) = (present, self.current[device]) {
            return sid;
        }
        if let Some(old) = self.current[device] {
            self.end_session(old);
        }
        self.sessions.push(Session::new(device));
        let sid = self.sessions.len() - 1;
        self.current[device] = Some(sid);
        sid
    }

    /// A session is over: nothing of it need be delivered, and its groups go on without it.
    pub(super) fn end_session(&mut self, sid: SessionId) {
        if std::mem::replace(&mut self.sessions[sid].ended, true) {
            return;
        }
        let s = &mut self.sessions[sid];
        // Its copies stay: what was written in this turn is seen after its end.
        s.replays_due.clear();
        let open: HashSet<(MsgId, u64)> =
            s.inflight.values().filter(|f| f.qos == 1).map(|f| (f.msg, f.order)).collect();
        let names: Vec<_> = s.subs.iter().filter(|s| s.shared).map(|s| s.text.clone()).collect();
        // [S-63] What it did not acknowledge goes to another member: that copy, and no other one.
        for ((_, msg), group) in &mut self.groups {
            let open = |g: &GroupSend| g.to == sid && open.contains(&(*msg, g.order));
            group.sent.retain(|g| g.bound != Bound::Yes || !open(g));
            let sent = group.sent.iter_mut();
            sent.filter(|g| g.bound == Bound::Maybe && open(g)).for_each(|g| g.doubtful = true);
        }
        for name in names {
            self.group_left(sid, &name);
        }
    }
}
