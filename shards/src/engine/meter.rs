//! Holds clients to rates: their own, those of their listener, and those of the node. (L01, L02)

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use ringmain_mqtt::{Header, PacketType, ReasonCode};

use super::config::RateAction;
use super::conn::{State, flag};
use super::core::Core;
use super::effects::{CloseHow, Effects};
use super::ids::ConnId;
use super::rates::{Over, Spent};
use super::shard::Shard;

/// Connections that wait until a rate lets them go on. Lives on: each shard. At most two entries for a connection;
/// those of one that is gone stay until they are due.
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

    fn push(&mut self, due_ms: u64, conn: ConnId, direction: Direction) {
        self.0.push(Reverse((due_ms, conn, direction)));
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
        let mut wait_ns = 0;
        if own != super::rates::Rates::default() {
            wait_ns = conn.meter().spend(&own, spent, now_ns, over);
            if wait_ns > 0 && over == Over::Refuse {
                return wait_ns;
            }
        }
        let Some(theirs) = self.cfg.listeners.get(usize::from(listener)).map(|l| l.rates) else {
            return wait_ns;
        };
        let meters = &self.node.meters;
        let wait = meters.listener(listener).map_or(0, |m| m.spend(&theirs, spent, now_ns, over));
        wait_ns = wait_ns.max(wait);
        if wait > 0 && over == Over::Refuse {
            conn.meter().give_back(&own, spent);
            return wait_ns;
        }
        let wait = meters.node.spend(&self.cfg.limits.rates, spent, now_ns, over);
        if wait > 0 && over == Over::Refuse {
            conn.meter().give_back(&own, spent);
            if let Some(meter) = meters.listener(listener) {
                meter.give_back(&theirs, spent);
            }
        }
        wait_ns.max(wait)
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
            self.waiting.push(due_ms, id, Direction::Out);
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
                core.waiting.push(due_ms, id, Direction::In);
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
