//! Acknowledgements of publishes: in the order of receipt, and with the policy `reject` not before
//! other shards have said what became of them. [S-39, S-82]

use std::collections::VecDeque;

use hashbrown::HashMap;
use ringmain_mqtt::{PacketId, PacketType, QoS, ReasonCode, Version};

use super::conn::flag;
use super::effects::{CloseHow, Effects};
use super::ids::ConnId;
use super::mail::Ticket;
use super::publish::Routed;
use super::shard::Shard;
use super::slab::{NONE, Slab};

/// Publishes that wait for verdicts, and the acknowledgements behind them. `Lives on: home shard of
/// the publisher.`
#[derive(Debug, Default)]
pub(crate) struct Answers {
    pending: Slab<PendingPublish>,
    /// By connection. One that waits for nothing has no entry, so that with other policies than
    /// `reject` all of this costs a look at an empty table.
    by_conn: HashMap<u32, VecDeque<Answer>>,
}

/// A publish whose verdicts are not all in.
#[derive(Debug)]
struct PendingPublish {
    conn: ConnId,
    /// Verdicts to come.
    open: u32,
    taken: u32,
    /// Whether a target had no room for it.
    refused: bool,
    /// Whether it is stored as a retained message: then somebody took it.
    stored: bool,
    /// Of QoS 2: the session that has the packet id, which outlives the connection.
    exactly_once: Option<(Ticket, PacketId)>,
}

/// An acknowledgement that waits: for its verdicts, or for those ahead of it. [MQTT-4.6.0-2]
#[derive(Debug)]
struct Answer {
    packet_id: PacketId,
    qos: QoS,
    /// Slot of its verdicts, or `NONE`.
    pending: u32,
    /// `None` while verdicts are to come.
    reason: Option<ReasonCode>,
}

impl Answers {
    /// For a publish that asks other shards.
    pub(crate) fn ticket(&mut self) -> Ticket {
        let conn = ConnId { index: NONE, generation: 0 };
        let ix = self.pending.insert(PendingPublish {
            conn,
            open: 0,
            taken: 0,
            refused: false,
            stored: false,
            exactly_once: None,
        });
        super::core::ticket(&self.pending, ix)
    }

    /// Acknowledgements that a connection waits for.
    fn len(&self, ci: u32) -> usize {
        self.by_conn.get(&ci).map_or(0, VecDeque::len)
    }

    /// The connection is gone.
    pub(crate) fn forget(&mut self, ci: u32) {
        self.by_conn.remove(&ci);
    }
}

impl Shard {
    /// Acknowledges a publish that was routed, at once or when all verdicts are in. [S-39]
    pub(crate) fn acknowledge(
        &mut self,
        id: ConnId,
        packet_id: PacketId,
        qos: QoS,
        routed: Routed,
        fx: &mut Effects,
    ) {
        let mut exactly_once = None;
        if qos == QoS::ExactlyOnce {
            let si = self.session_of(id.index);
            let now_ms = self.core.now_ms;
            let s = &mut self.core.sessions[si];
            s.await_rel().insert(packet_id.get(), now_ms);
            exactly_once = Some((super::core::ticket(&self.core.sessions, si), packet_id));
        }
        if let Some(conn) = self.core.conns.get_mut(id.index) {
            conn.received_open += 1;
        }
        let Some(Ticket { index: pending, .. }) = routed.ticket else {
            let reason = if routed.refused && routed.taken == 0 && !routed.stored {
                ReasonCode::QUOTA_EXCEEDED
            } else if routed.matched == 0 {
                ReasonCode::NO_MATCHING_SUBSCRIBERS // P03
            } else {
                ReasonCode::SUCCESS
            };
            return self.answer_publish(id.index, packet_id, qos, reason, fx);
        };
        let Routed { asked: open, taken, refused, stored, .. } = routed;
        self.answers.pending[pending] =
            PendingPublish { conn: id, open, taken, refused, stored, exactly_once };
        let queue = self.answers.by_conn.entry(id.index).or_default();
        queue.push_back(Answer { packet_id, qos, pending, reason: None });
        self.bound_answers(id.index, fx);
    }

    /// Acknowledges a publish, behind those that came before it.
    pub(crate) fn answer_publish(
        &mut self,
        ci: u32,
        packet_id: PacketId,
        qos: QoS,
        reason: ReasonCode,
        fx: &mut Effects,
    ) {
        let Some(queue) = self.answers.by_conn.get_mut(&ci) else {
            return self.write_publish_ack(ci, packet_id, qos, reason, fx);
        };
        queue.push_back(Answer { packet_id, qos, pending: NONE, reason: Some(reason) });
        self.bound_answers(ci, fx);
    }

    /// Acknowledges a repeated QoS 2 publish: as the first one will be, if that waits for verdicts
    /// still, from whatever connection of the session it came. [S-33, S-39]
    pub(crate) fn answer_repeat(&mut self, id: ConnId, packet_id: PacketId, fx: &mut Effects) {
        let qos = QoS::ExactlyOnce;
        let of =
            Some((super::core::ticket(&self.core.sessions, self.session_of(id.index)), packet_id));
        let pending = self.answers.pending.iter().find(|(_, p)| p.exactly_once == of);
        let Some(pending) = pending.map(|(ix, _)| ix) else {
            return self.answer_publish(id.index, packet_id, qos, ReasonCode::SUCCESS, fx);
        };
        let p = &mut self.answers.pending[pending];
        if std::mem::replace(&mut p.conn, id) != id
            && let Some(conn) = self.core.conns.get_mut(id.index)
        {
            conn.received_open += 1;
        }
        let queue = self.answers.by_conn.entry(id.index).or_default();
        queue.push_back(Answer { packet_id, qos, pending, reason: None });
        self.bound_answers(id.index, fx);
    }

    /// Acknowledges a publish that was not routed with an error.
    pub(crate) fn refuse_publish(
        &mut self,
        ci: u32,
        packet_id: PacketId,
        qos: QoS,
        reason: ReasonCode,
        fx: &mut Effects,
    ) {
        if let Some(conn) = self.core.conns.get_mut(ci) {
            conn.received_open += 1;
        }
        self.answer_publish(ci, packet_id, qos, reason, fx);
    }

    /// Stops reading a client that waits for as many acknowledgements as our Receive Maximum: one of
    /// version 3, which knows none, or a lenient one.
    fn bound_answers(&mut self, ci: u32, fx: &mut Effects) {
        let full = self.answers.len(ci) >= usize::from(self.core.told(ci).receive_maximum);
        let paused = self.core.conns.get(ci).is_some_and(|c| c.has(flag::PAUSED_VERDICT));
        if full && !paused {
            self.core.counters.overload_delay_verdict += 1;
            self.core.pause(ci, flag::PAUSED_VERDICT, fx);
        } else if !full && paused {
            self.core.resume(ci, flag::PAUSED_VERDICT, fx);
        }
    }

    pub(crate) fn on_verdict(
        &mut self,
        ticket: Ticket,
        taken: u32,
        refused: bool,
        fx: &mut Effects,
    ) {
        let pending = &mut self.answers.pending;
        let Some(p) = pending.get_checked(ticket.index, ticket.generation) else { return };
        p.open -= 1;
        p.taken += taken;
        p.refused |= refused;
        if p.open > 0 {
            return;
        }
        let Some(p) = pending.remove(ticket.index) else { return };
        let reason = match (p.taken, p.refused) {
            (0, true) if p.stored => ReasonCode::SUCCESS,
            (0, true) => ReasonCode::QUOTA_EXCEEDED,
            (0, false) => ReasonCode::NO_MATCHING_SUBSCRIBERS,
            _ => ReasonCode::SUCCESS,
        };
        if !self.core.is_open(p.conn) {
            // Nobody took it and nobody is told, so a repeat must count as new. [S-34]
            if reason.is_error()
                && let Some((at, packet_id)) = p.exactly_once
                && let Some(s) = self.core.sessions.get_checked(at.index, at.generation)
                && let Some(awaiting) = s.awaiting_rel_mut()
            {
                awaiting.remove(packet_id.get());
            }
            return;
        }
        let ci = p.conn.index;
        let Some(queue) = self.answers.by_conn.get_mut(&ci) else { return };
        // More than one if the client repeated it without waiting.
        for answer in queue.iter_mut().filter(|a| a.pending == ticket.index) {
            answer.reason = Some(reason);
            answer.pending = NONE;
        }
        self.write_answers(p.conn, fx);
    }

    /// Writes the acknowledgements that nothing is ahead of.
    fn write_answers(&mut self, conn: ConnId, fx: &mut Effects) {
        let ci = conn.index;
        while let Some(queue) = self.answers.by_conn.get_mut(&ci) {
            let Some(Answer { reason: Some(reason), packet_id, qos, .. }) = queue.front() else {
                break;
            };
            let (packet_id, qos, reason) = (*packet_id, *qos, *reason);
            queue.pop_front();
            if queue.is_empty() {
                self.answers.forget(ci);
            }
            self.write_publish_ack(ci, packet_id, qos, reason, fx);
            if !self.core.is_open(conn) {
                self.answers.forget(ci);
                return;
            }
        }
        self.bound_answers(ci, fx);
    }

    /// Writes PUBACK or PUBREC.
    fn write_publish_ack(
        &mut self,
        ci: u32,
        packet_id: PacketId,
        qos: QoS,
        reason: ReasonCode,
        fx: &mut Effects,
    ) {
        if qos == QoS::ExactlyOnce && reason.is_error() {
            // The id is free again. [S-34] [MQTT-4.3.3-9]
            let si = self.session_of(ci);
            if let Some(a) = self.core.sessions.get_mut(si).and_then(|s| s.awaiting_rel_mut()) {
                a.remove(packet_id.get());
            }
        }
        let Some(conn) = self.core.conns.get_mut(ci) else { return };
        if reason.is_error() && conn.version != Version::V5 {
            // Its PUBACK has no reason: sent, it would acknowledge what nobody took. [S-39]
            return self.core.close(ci, None, CloseHow::Flush, fx);
        }
        if qos == QoS::AtLeastOnce || reason.is_error() {
            conn.received_open = conn.received_open.saturating_sub(1);
        }
        let kind = if qos == QoS::AtLeastOnce { PacketType::PubAck } else { PacketType::PubRec };
        self.core.ack(ci, kind, packet_id, reason, fx);
    }
}
