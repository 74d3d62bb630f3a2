//! Holds clients to rates: their own, those of their listener, and those of the node. (L01, L02)

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use ringmain_mqtt::{Header, PacketType, ReasonCode};

use super::config::RateAction;
use super::conn::{ConnTable, State, flag};
use super::core::Core;
use super::effects::{CloseHow, Effects};
use super::ids::ConnId;
use super::rates::{Over, Spent};
use super::shard::Shard;

/// Entries of connections that are gone stay until they are due, or until there are so many more than connections.
const GONE_MAX: usize = 1024;

/// Connections that wait until a rate lets them go on. Lives on: each shard. At most two entries for a connection, and
/// twice that and [`GONE_MAX`] in all, 24 bytes each.
#[derive(Debug, Default)]
pub(crate) struct Waiting(BinaryHeap<Reverse<(u64, ConnId, Direction)>>);

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Direction {
    /// What it sends is not read.
    In,
    /// What is for it stays in its queue.
    Out,
}

impl Waiting {
    /// Monotonic ms of the next that may go on, or `u64::MAX`.
    pub(crate) fn next_ms(&self) -> u64 {
        self.0.peek().map_or(u64::MAX, |Reverse((due_ms, ..))| *due_ms)
    }

    fn push(&mut self, due_ms: u64, conn: ConnId, direction: Direction, conns: &ConnTable) {
        self.0.push(Reverse((due_ms, conn, direction)));
        // Those that are there have half as many at most: so this is not often, however many they are.
        if self.0.len() > 4 * conns.len() + GONE_MAX {
            self.0.retain(|Reverse((_, conn, _))| conns.contains(*conn));
        }
    }

    fn pop_due(&mut self, now_ms: u64) -> Option<(ConnId, Direction)> {
        let Reverse((due_ms, conn, direction)) = *self.0.peek()?;
        (due_ms <= now_ms).then(|| {
            self.0.pop();
            (conn, direction)
        })
    }
}

impl Core {
    /// Notes which directions have rates at all: where none have, a message costs one look at this.
    pub(crate) fn find_rates(&mut self) {
        let cfg = &self.cfg;
        let scopes = || {
            let listeners = cfg.listeners.iter();
            let own = listeners.clone().filter_map(|l| l.mqtt.as_ref()).map(|m| &m.rates);
            listeners.map(|l| &l.rates).chain(own).chain([&cfg.mqtt.rates, &cfg.limits.rates])
        };
        self.meters_input = scopes().any(|r| r.limit_input());
        self.meters_output = scopes().any(|r| r.limit_output());
    }

    /// Counts in all scopes; how long to wait, ns. With [`Over::Refuse`] nothing is counted unless that is 0.
    fn spend(&mut self, ci: u32, spent: Spent, over: Over) -> u64 {
        let now_ns = self.now_ms * 1_000_000;
        let Some(conn) = self.conns.get_mut(ci) else { return 0 };
        let listener = conn.listener;
        let own = self.cfg.mqtt_of(listener).rates;
        let theirs = self.cfg.listeners.get(usize::from(listener)).map(|l| l.rates);
        let meters = &self.node.meters;
        let shared = theirs.zip(meters.listener(listener));
        // A connection without rates of its own has no meter.
        let mut meter = own.limit_any().then(|| conn.meter());
        let mut wait_ns = meter.as_mut().map_or(0, |m| m.spend(&own, spent, now_ns, over));
        let refused = |wait_ns: u64| wait_ns > 0 && over == Over::Refuse;
        if refused(wait_ns) {
            return wait_ns;
        }
        wait_ns = wait_ns.max(shared.map_or(0, |(r, m)| m.spend(&r, spent, now_ns, over)));
        if !refused(wait_ns) {
            wait_ns = wait_ns.max(meters.node.spend(&self.cfg.limits.rates, spent, now_ns, over));
            if refused(wait_ns)
                && let Some((rates, m)) = shared
            {
                m.give_back(&rates, spent);
            }
        }
        if refused(wait_ns)
            && let Some(m) = meter
        {
            m.give_back(&own, spent);
        }
        wait_ns
    }

    /// A PUBLISH went to a client: if that was all for now, further ones stay in its queue.
    #[cold]
    pub(crate) fn count_delivery(&mut self, ci: u32, bytes: usize) {
        let wait_ns = self.spend(ci, Spent::delivery(bytes as u64), Over::Wait);
        if wait_ns == 0 {
            return;
        }
        let due_ms = self.now_ms + wait_ns.div_ceil(1_000_000);
        let id = self.conns.id(ci);
        if let Some(conn) = self.conns.get_mut(ci)
            && !conn.has(flag::METERED_OUT)
        {
            conn.flags |= flag::METERED_OUT;
            self.counters.deliveries_delayed += 1;
            self.waiting.push(due_ms, id, Direction::Out, &self.conns);
        }
    }

    /// Filters of a SUBSCRIBE beyond its first, which was counted before it was decoded. Nobody waits for them: the
    /// next one does.
    pub(crate) fn count_filters(&mut self, ci: u32, more: u64) {
        if self.meters_input && more > 0 {
            self.spend(ci, Spent::subscribes(more), Over::Wait);
        }
    }
}

impl Shard {
    /// Whether a whole packet has to wait for its turn, or came too fast for its connection to stay. Notes in
    /// `Core::over_rate` if it is to be refused instead.
    #[cold]
    pub(crate) fn is_held_back(&mut self, id: ConnId, h: Header, fx: &mut Effects) -> bool {
        let core = &mut self.core;
        core.over_rate = false;
        let Some(conn) = core.conns.get_mut(id.index) else { return false };
        let spent = match h.packet_type {
            PacketType::Publish => Spent::message(h.total_len() as u64),
            PacketType::Subscribe => Spent::subscribes(1),
            _ => return false,
        };
        if conn.state != State::Live {
            return false;
        }
        if conn.has(flag::METERED_IN) {
            conn.flags &= !flag::METERED_IN; // its time has come
            return false;
        }
        let action = core.cfg.mqtt_of(conn.listener).rate_action;
        let over = if action == RateAction::Pause { Over::Wait } else { Over::Refuse };
        let wait_ns = core.spend(id.index, spent, over);
        if wait_ns == 0 {
            return false;
        }
        match action {
            RateAction::Pause => {
                core.counters.rate_pauses += 1;
                core.pause(id.index, flag::PAUSED_METER, fx);
                let due_ms = core.now_ms + wait_ns.div_ceil(1_000_000);
                core.waiting.push(due_ms, id, Direction::In, &core.conns);
                true
            }
            RateAction::Refuse => {
                core.counters.rate_refusals += 1;
                core.over_rate = true;
                false
            }
            RateAction::Disconnect => {
                core.counters.rate_disconnects += 1;
                let (code, text) = (ReasonCode::MESSAGE_RATE_TOO_HIGH, Some("faster than allowed"));
                core.close_with(id.index, Some(code), text, CloseHow::Flush, fx);
                true
            }
        }
    }

    /// Those whose time has come go on.
    pub(crate) fn continue_metered(&mut self, fx: &mut Effects) {
        while let Some((id, direction)) = self.core.waiting.pop_due(self.core.now_ms) {
            if !self.core.is_open(id) {
                continue;
            }
            let Some(conn) = self.core.conns.get_mut(id.index) else { continue };
            match direction {
                Direction::In => {
                    conn.flags &= !flag::PAUSED_METER;
                    conn.flags |= flag::METERED_IN;
                    self.defer(id, fx); // as what waits for the next turn
                }
                Direction::Out => {
                    conn.flags &= !flag::METERED_OUT;
                    let session = conn.session;
                    self.core.pump(session, fx);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::conn::Conn;
    use crate::engine::ids::Peer;

    #[test]
    fn who_comes_and_goes_leaves_no_heap_behind() {
        // L01: an hour's wait is not over when the connection is gone.
        let peer = Peer { addr: ([127, 0, 0, 1], 1).into(), listener: 0 };
        let mut conns = ConnTable::default();
        let mut waiting = Waiting::default();
        let stays = ConnId { index: 0, generation: 1 };
        conns.insert(stays, Conn::new(stays, peer, 0));
        waiting.push(7_200_000, stays, Direction::Out, &conns);
        for generation in 1..100_000 {
            let id = ConnId { index: 1, generation };
            conns.insert(id, Conn::new(id, peer, 0));
            waiting.push(3_600_000, id, Direction::In, &conns);
            conns.remove(1);
            assert!(waiting.0.len() <= 4 * 2 + GONE_MAX);
        }
        let found = std::iter::from_fn(|| waiting.pop_due(u64::MAX)).last();
        assert_eq!(found, Some((stays, Direction::Out)), "who is there still waits");
    }
}
