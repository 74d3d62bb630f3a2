//! The end of connections: every close by the server has a reason, and keep-alive has its time.

use ringmain_shards::engine::effects::CloseHow;

use super::state::ConnState;
use super::{Oracle, Verdict, insist};
use crate::wire::Connect;
use crate::world::{NetId, SETTLED};

/// [S-90] A dead connection is closed within this after 1.5 times its keep-alive, in ms.
const KEEP_ALIVE_SLACK_MS: u64 = 1000;

impl Oracle {
    pub(super) fn disconnect_in(&mut self, net: NetId, reason: u8, expiry_s: Option<u32>) {
        let conn = self.conn_mut(net);
        conn.disconnect_in = Some(reason);
        if let (Some(expiry_s), Some(sid)) = (expiry_s, conn.session) {
            self.sessions[sid].expiry_s = expiry_s; // [S-09]
        }
    }

    pub(super) fn close_op(&mut self, net: NetId, how: CloseHow, inside_packet: bool) -> Verdict {
        insist!(
            !inside_packet || how == CloseHow::Abort,
            "half-a-packet",
            "connection #{net} is flushed and closed inside a packet"
        );
        let live = self.conn(net).state == ConnState::Live;
        let verdict = if live { self.check_reason(net) } else { Ok(()) };
        self.end_of_connection(net);
        self.conn_mut(net).state = ConnState::Closing;
        verdict
    }

    fn check_reason(&self, net: NetId) -> Verdict {
        let conn = self.conn(net);
        if conn.disconnect_in.is_some() {
            return Ok(());
        }
        let now_ms = self.now.ms;
        let taken_over = self.connecting[conn.device].iter().any(|(n, _)| *n != net);
        let dead = now_ms >= conn.dead_at_ms();
        let early = conn.keep_alive_s > 0 && !dead;
        let (right, rule) = match conn.disconnect_out {
            Some(0x8E) => (taken_over, "taken-over S-01"),
            Some(0x8D) => (dead, "keep-alive-early S-90"),
            Some(0x8B) => (self.draining, "drain S-20"),
            Some(0x98) => (self.is_kicked(conn.device), "kick Q14"),
            Some(0x89 | 0x97) => (self.rules.pressure, "pressure"),
            Some(_) => (false, "server-close"),
            None if conn.version() == 5 => (false, "silent-close S-01"),
            None if self.rules.rejects || self.is_kicked(conn.device) => (true, "server-close"),
            None if early && !taken_over && !self.draining && !self.rules.pressure => {
                (false, "keep-alive-early S-90")
            }
            // Version 3 cannot be told that a publish is refused.
            None => (taken_over || dead || self.draining || self.rules.pressure, "server-close"),
        };
        if right {
            return Ok(());
        }
        let text = format!(
            "the server closes connection #{net} at {now_ms} with {:02x?}; keep-alive {} s, last \
             packet at {}, taken over {taken_over}",
            conn.disconnect_out, conn.keep_alive_s, conn.last_in_ms
        );
        Err(super::Violation { rule, text })
    }

    /// The server knows that a connection is over: session expiry and will delay begin.
    pub(super) fn end_of_connection(&mut self, net: NetId) {
        let now_ms = self.now.ms;
        let conn = self.conn_mut(net);
        let device = conn.device;
        if std::mem::replace(&mut conn.ended, true) {
            return;
        }
        let Some(sid) = conn.session else {
            // Its CONNECT may still have its effect: in this turn, or where it moves to.
            // With expiry 0 that ends the session, whoever had it before.
            let ends = |c: &Connect| c.version == 5 && c.expiry_s.unwrap_or(0) == 0;
            let ends = conn.connect.as_deref().is_some_and(ends);
            for (_, clean) in self.connecting[device].iter_mut().filter(|(n, _)| *n == net) {
                *clean |= ends;
            }
            let epoch = self.now.epoch;
            self.hung_up.push((net, device, epoch));
            return;
        };
        let taken_over = self.connecting[device].iter().any(|(n, _)| *n != net);
        let step = self.now.step;
        let s = &mut self.sessions[sid];
        s.cut_step = step;
        if s.conn != Some(net) {
            return;
        }
        let expiry_s = s.expiry_s;
        s.offline_ms = Some(now_ms);
        s.replays_due.clear();
        if !self.rules.keeps_qos0 {
            s.copies.values_mut().for_each(|c| c.away = true);
        }
        self.will_at_end(net, expiry_s);
        if expiry_s == 0 && !taken_over {
            self.end_session(sid);
        }
    }

    pub(super) fn forget_hung_up(&mut self) {
        let Self { hung_up, connecting, now, .. } = self;
        hung_up.retain(|(net, device, epoch)| {
            let keep = now.epoch < epoch + SETTLED;
            if !keep {
                connecting[*device].retain(|(n, _)| n != net);
            }
            keep
        });
    }

    /// [S-90] Called when a shard has handled its timers up to now.
    pub(super) fn check_keep_alive(&mut self, shard: usize, deadline_ms: u64) -> Verdict {
        let now_ms = self.now.ms;
        if deadline_ms <= now_ms {
            return Ok(()); // a tick is due
        }
        for net in &self.kept_alive {
            let conn = &self.conns[net];
            let late = conn.state == ConnState::Live
                && conn.shard == shard
                && now_ms > conn.closed_by_ms().saturating_add(KEEP_ALIVE_SLACK_MS);
            insist!(
                !late,
                "keep-alive-late S-90",
                "connection #{net} is silent since {} with {} s and was not closed by {now_ms}",
                conn.last_in_ms,
                conn.keep_alive_s
            );
        }
        Ok(())
    }
}

impl Oracle {
    /// Whether all shards said that they are done.
    #[must_use]
    pub fn is_drained(&self) -> bool {
        self.drained.len() == self.rules.shards
    }

    /// The node has drained: nobody is connected. [S-20]
    ///
    /// # Errors
    /// When somebody is, or a shard never said that it is done.
    pub fn at_drained(&self, shards: usize) -> Verdict {
        let live: Vec<_> = self
            .conns
            .iter()
            .filter(|(_, c)| c.state == ConnState::Live)
            .map(|(net, _)| *net)
            .collect();
        insist!(live.is_empty(), "drain S-20", "connections {live:?} outlive the drain");
        insist!(
            self.drained.len() == shards,
            "drain S-20",
            "only shards {:?} said that they are drained",
            self.drained
        );
        Ok(())
    }
}
