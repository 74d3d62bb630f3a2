//! From a matched message to the wire of one client: windows, queues, encoding once for many.

use ringmain_mqtt::{
    Forward, HeadLayout, PacketId, PacketType, PublishOut, QoS, ReasonCode, Version,
};
use smallvec::SmallVec;

use super::config::{QueueDropPolicy, SlowConsumerPolicy};
use super::conn::{Conn, State, flag};
use super::core::{After, Core};
use super::counters::DropReason;
use super::effects::Effects;
use super::message::{Outgoing, SHARED_PAYLOAD_MIN};
use super::session::{Copy, Inflight, Offered, Outbound, SubIds, Waits, flag as session_flag};
use super::slab::NONE;

/// A session that a message goes to, and how.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Target {
    pub(crate) session: u32,
    /// Granted QoS.
    pub(crate) qos: QoS,
    /// RETAIN flag to send.
    pub(crate) retain: bool,
    /// Membership that it comes by, or `NONE`.
    pub(crate) member: u32,
}

/// Encoded forms of one message, shared among its subscribers on this shard.
#[derive(Debug, Default)]
pub(crate) struct Fanout {
    layouts: SmallVec<[Layout; 4]>,
}

/// Forms kept for one message. Beyond it (many different subscription identifiers) each copy is
/// encoded for itself.
const LAYOUTS_MAX: usize = 8;

#[derive(Clone, Copy, Debug)]
struct Form {
    v5: bool,
    qos: QoS,
    retain: bool,
    sub_id: u32,
}

#[derive(Clone, Copy, Debug)]
struct Layout {
    form: Form,
    at: usize,
    len: usize,
    /// Bytes of the whole packet.
    total: usize,
    head: HeadLayout,
}

impl Form {
    fn same(&self, o: &Self) -> bool {
        self.v5 == o.v5 && self.qos == o.qos && self.retain == o.retain && self.sub_id == o.sub_id
    }
}

/// One PUBLISH to write.
struct Sending<'a> {
    qos: QoS,
    retain: bool,
    dup: bool,
    packet_id: u16,
    sub_ids: &'a [u32],
}

/// Whether a PUBLISH was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Written {
    Yes,
    /// Above the client's Maximum Packet Size: nothing was written. [S-30]
    TooLarge,
}

impl Core {
    /// Delivers to one session: sends, queues or drops. False when the queue had no room and the
    /// publisher is to hear of it.
    pub(crate) fn deliver(
        &mut self,
        t: Target,
        sub_ids: &[u32],
        out: &mut Outgoing<'_>,
        fan: &mut Fanout,
        fx: &mut Effects,
    ) -> bool {
        self.counters.delivery_matched += 1;
        let s = &self.sessions[t.session];
        let cfg = self.cfg.mqtt_of(s.listener);
        let qos = if cfg.upgrade_qos { t.qos } else { t.qos.min(out.qos) };
        let (ci, store_qos0) = (s.conn, cfg.mqueue_store_qos0);
        if qos != QoS::AtMostOnce {
            if ci != NONE && self.window_open(t.session) && !self.is_congested(ci) {
                self.send_acknowledged(t, qos, sub_ids, out, fan, fx);
                return true;
            }
            return self.enqueue(t, qos, sub_ids, out, fx);
        }
        let takes = ci != NONE && !self.is_congested(ci);
        let waiting = self.sessions[t.session].out.as_ref().is_some_and(|o| o.queue.has_qos0());
        if takes && !waiting {
            let sending = Sending { qos, retain: t.retain, dup: false, packet_id: 0, sub_ids };
            match self.write_publish(ci, &sending, out, Some(fan), fx) {
                Written::Yes => {
                    self.counters.messages_delivered += 1;
                    self.counters.delivery_completed += 1;
                    self.note_copy(t.session, ci, None, fx);
                }
                Written::TooLarge => self.counters.drop_copy(DropReason::TooLarge, 1),
            }
            self.finish_member(t.member, out.qos);
        } else if store_qos0 || takes {
            // Behind those that wait already. [S-80]
            return self.enqueue(t, qos, sub_ids, out, fx);
        } else {
            self.counters.drop_copy(DropReason::Qos0, 1);
            self.finish_member(t.member, out.qos);
        }
        true
    }

    /// Whether a new QoS > 0 message may go out at once: nothing waits before it and the window has
    /// room. [MQTT-3.3.4-9]
    fn window_open(&self, si: u32) -> bool {
        let s = &self.sessions[si];
        let Some(out) = &s.out else { return true };
        // QoS 0 counts too: what waited for its socket does so until half of what is pending has left. [S-81, S-83]
        out.queue.is_empty() && self.window_has_room(si, out)
    }

    fn window_has_room(&self, si: u32, out: &Outbound) -> bool {
        let s = &self.sessions[si];
        let Some(conn) = self.conns.get(s.conn) else { return false };
        let max = self.cfg.mqtt_of(s.listener).max_inflight;
        out.resend_at >= out.inflight.len()
            && out.used < conn.receive_max
            && out.inflight.len() < usize::from(max)
    }

    /// Whether a socket has more outstanding than it may; notes since when.
    fn is_congested(&mut self, ci: u32) -> bool {
        let max = self.out_max();
        let Some(conn) = self.conns.get_mut(ci) else { return true };
        if conn.out_pending <= max {
            return conn.has(flag::METERED_OUT);
        }
        if !conn.has(flag::CONGESTED) {
            conn.set_congested(self.now_ms as u32);
            if self.cfg.limits.slow_consumer_policy == SlowConsumerPolicy::Disconnect {
                self.arm_conn(ci);
            }
        }
        true
    }

    fn send_acknowledged(
        &mut self,
        t: Target,
        qos: QoS,
        sub_ids: &[u32],
        out: &mut Outgoing<'_>,
        fan: &mut Fanout,
        fx: &mut Effects,
    ) {
        let msg = out.own();
        let now_ms = self.now_ms as u32;
        let s = &mut self.sessions[t.session];
        let ci = s.conn;
        let mut last = s.last_packet_id;
        let packet_id = s.outbound().allocate_packet_id(&mut last);
        s.last_packet_id = last;
        let sending = Sending { qos, retain: t.retain, dup: false, packet_id, sub_ids };
        if self.write_publish(ci, &sending, out, Some(fan), fx) == Written::TooLarge {
            self.counters.drop_copy(DropReason::TooLarge, 1);
            self.finish_member(t.member, out.qos);
            self.sessions[t.session].trim();
            return;
        }
        self.counters.messages_delivered += 1;
        self.note_copy(t.session, ci, Some((qos, packet_id)), fx);
        let copy = Copy {
            msg,
            sub_ids: SubIds::from_slice(sub_ids),
            member: t.member,
            qos,
            retain: t.retain,
            replay: false,
        };
        self.push_inflight(t.session, packet_id, copy, now_ms);
    }

    /// For those who follow the message.
    #[inline]
    fn note_copy(&self, si: u32, ci: u32, acknowledged: Option<(QoS, u16)>, fx: &mut Effects) {
        if fx.observe.is_following() {
            let (qos, ack) = match acknowledged {
                None => (QoS::AtMostOnce, None),
                Some((qos, id)) => (qos, Some((si, id))),
            };
            fx.observe.copy(self.conns.id(ci), &self.sessions[si].client_id, qos as u8, ack);
        }
    }

    fn push_inflight(&mut self, si: u32, packet_id: u16, copy: Copy, sent_ms: u32) {
        let out = self.sessions[si].outbound();
        let waits = if copy.qos == QoS::AtLeastOnce { Waits::Puback } else { Waits::Pubrec };
        out.inflight.push_back(Inflight {
            member: copy.member,
            published: copy.msg.qos,
            copy: Some(copy),
            seq: out.allocations,
            sent_ms,
            packet_id,
            waits,
            counted: true,
        });
        out.resend_at = out.inflight.len();
        out.used += 1;
        self.inflight += 1;
    }

    /// Puts a copy into the session's queue.
    fn enqueue(
        &mut self,
        t: Target,
        qos: QoS,
        sub_ids: &[u32],
        out: &mut Outgoing<'_>,
        _fx: &mut Effects,
    ) -> bool {
        let copy = Copy {
            msg: out.own(),
            sub_ids: SubIds::from_slice(sub_ids),
            member: t.member,
            qos,
            retain: t.retain,
            replay: false,
        };
        self.offer(t.session, copy)
    }

    /// Offers a copy to the session's queue and counts what becomes of it.
    pub(crate) fn offer(&mut self, si: u32, copy: Copy) -> bool {
        let room = self.queue_room();
        let s = &mut self.sessions[si];
        let cfg = self.cfg.mqtt_of(s.listener);
        let queue = &mut s.out.get_or_insert_default().queue;
        self.queued_bytes -= queue.bytes();
        let offered = queue.offer(copy, cfg, room);
        self.queued_bytes += queue.bytes();
        match offered {
            Offered::Taken => {
                self.queued += 1;
                true
            }
            Offered::TakenFor(victims) => {
                self.queued += 1;
                self.queued -= victims.len() as u64;
                for v in victims {
                    self.counters.drop_copy(DropReason::QueueFull, 1);
                    self.finish_member(v.member, v.msg.qos);
                }
                true
            }
            Offered::Full(copy) => {
                let reject = cfg.mqueue_drop_policy == QueueDropPolicy::Reject;
                s.trim();
                self.counters.drop_copy(DropReason::QueueFull, 1);
                self.finish_member(copy.member, copy.msg.qos);
                !reject
            }
        }
    }

    /// A message of a shared group, published at `qos`, needs no more acknowledgement by the member
    /// that has it. QoS 0 was never counted as given.
    pub(crate) fn finish_member(&mut self, member: u32, qos: QoS) {
        if member == NONE || qos == QoS::AtMostOnce {
            return;
        }
        // With its generation: the slot may be another member's before the turn ends.
        let member = self.member_ref(member);
        match self.done.last_mut() {
            Some((last, n)) if *last == member => *n += 1,
            _ => self.done.push((member, 1)),
        }
    }

    // ---- sending what waits ---------------------------------------------------------------------

    /// Sends what the client may get now: first what a previous connection left unacknowledged, in
    /// its order, then what is queued. [S-36, S-37]
    pub(crate) fn pump(&mut self, si: u32, fx: &mut Effects) {
        loop {
            let Some(s) = self.sessions.get(si) else { return };
            let ci = s.conn;
            if ci == NONE || self.is_congested(ci) {
                break;
            }
            if Core::turn_is_full(fx) {
                self.pump_later.push(si);
                break;
            }
            let s = &self.sessions[si];
            let Some(out) = &s.out else { break };
            if out.resend_at < out.inflight.len() {
                if !self.resend_next(si, ci, fx) {
                    // Only QoS 0 may pass. [S-23]
                    if !self.send_next(si, ci, false, fx) {
                        break;
                    }
                }
                continue;
            }
            let open = self.window_has_room(si, out);
            if !self.send_next(si, ci, open, fx) {
                break;
            }
        }
        let Some(s) = self.sessions.get_mut(si) else { return };
        s.trim();
        if s.has(session_flag::REPLAYING) {
            self.after.push(After::Replay { session: si });
        }
    }

    /// Resends the next inflight entry; false when the window has no room for it.
    fn resend_next(&mut self, si: u32, ci: u32, fx: &mut Effects) -> bool {
        let receive_max = self.conns.get(ci).map_or(0, |c| c.receive_max);
        let out = self.sessions[si].outbound();
        let at = out.resend_at;
        let entry = &mut out.inflight[at];
        if entry.waits == Waits::Pubcomp {
            // Always allowed. [S-22] [MQTT-4.4.0-1]
            out.resend_at += 1;
            if let Some(id) = PacketId::new(entry.packet_id) {
                self.ack(ci, PacketType::PubRel, id, ReasonCode::SUCCESS, fx);
            }
            return true;
        }
        if out.used >= receive_max {
            return false;
        }
        let packet_id = entry.packet_id;
        let Some(copy) = entry.copy.clone() else {
            out.resend_at += 1;
            return true;
        };
        let sending = Sending {
            qos: copy.qos,
            retain: copy.retain,
            dup: true, // [MQTT-3.3.1-1]
            packet_id,
            sub_ids: copy.sub_ids.as_slice(),
        };
        let mut publish = Outgoing::of(&copy.msg);
        if self.write_publish(ci, &sending, &mut publish, None, fx) == Written::TooLarge {
            self.counters.drop_copy(DropReason::TooLarge, 1);
            self.finish_member(copy.member, copy.msg.qos);
            self.inflight -= 1;
            self.sessions[si].outbound().complete(at);
            return true;
        }
        let sent_ms = self.now_ms as u32;
        let out = self.sessions[si].outbound();
        out.resend_at += 1;
        out.used += 1;
        let entry = &mut out.inflight[at];
        entry.counted = true;
        entry.sent_ms = sent_ms;
        true
    }

    /// Sends the next queued message; false when there is none that may go.
    fn send_next(&mut self, si: u32, ci: u32, open: bool, fx: &mut Effects) -> bool {
        let s = &mut self.sessions[si];
        let listener = s.listener;
        let queue = &mut s.outbound().queue;
        self.queued_bytes -= queue.bytes();
        let popped = queue.pop(open);
        self.queued_bytes += queue.bytes();
        let Some(copy) = popped else { return false };
        self.queued -= 1;
        let max_age_ms = u64::from(self.mqtt(listener).max_mqueue_age_s) * 1000;
        let too_old = max_age_ms != 0
            && !copy.replay
            && self.now_ms.saturating_sub(copy.msg.created_ms) >= max_age_ms; // Q08
        if too_old || copy.msg.is_expired(self.now_ms) {
            self.counters.drop_copy(DropReason::Expired, 1); // [S-12]
            self.finish_member(copy.member, copy.msg.qos);
            return true;
        }
        let mut follows = false;
        if !copy.replay {
            let waited_ns = self.now_ms.saturating_sub(copy.msg.created_ms) * 1_000_000;
            let (topic, payload) = (copy.msg.topic(), copy.msg.payload().len());
            follows = fx.observe.queued(self.id, waited_ns, topic, payload);
        }
        let packet_id = if copy.qos == QoS::AtMostOnce {
            0
        } else {
            let s = &mut self.sessions[si];
            let mut last = s.last_packet_id;
            let id = s.outbound().allocate_packet_id(&mut last);
            s.last_packet_id = last;
            id
        };
        let sending = Sending {
            qos: copy.qos,
            retain: copy.retain,
            dup: false,
            packet_id,
            sub_ids: copy.sub_ids.as_slice(),
        };
        let mut publish = Outgoing::of(&copy.msg);
        if self.write_publish(ci, &sending, &mut publish, None, fx) == Written::TooLarge {
            self.counters.drop_copy(DropReason::TooLarge, 1);
            self.finish_member(copy.member, copy.msg.qos);
            if follows {
                fx.observe.handled(self.id);
            }
            return true;
        }
        self.counters.messages_delivered += 1;
        drop(publish);
        if follows {
            let acknowledged = (copy.qos != QoS::AtMostOnce).then_some((copy.qos, packet_id));
            self.note_copy(si, ci, acknowledged, fx);
            fx.observe.handled(self.id);
        }
        if copy.qos == QoS::AtMostOnce {
            self.counters.delivery_completed += 1;
            self.finish_member(copy.member, copy.msg.qos);
        } else {
            let now_ms = self.now_ms as u32;
            self.push_inflight(si, packet_id, copy, now_ms);
        }
        true
    }

    // ---- the PUBLISH packet ---------------------------------------------------------------------

    fn write_publish(
        &mut self,
        ci: u32,
        sending: &Sending<'_>,
        out: &mut Outgoing<'_>,
        fan: Option<&mut Fanout>,
        fx: &mut Effects,
    ) -> Written {
        let Some(conn) = self.conns.get(ci) else { return Written::TooLarge };
        debug_assert!(conn.state == State::Live);
        let (version, max) = (conn.version, conn.max_packet as usize);
        let uses_aliases = conn.aliases().is_some_and(|a| a.outbound_max > 0);
        let large = out.payload.len() >= SHARED_PAYLOAD_MIN;
        let cacheable = !uses_aliases && !sending.dup && sending.sub_ids.len() <= 1;
        let wrote = match fan {
            Some(fan) if cacheable => {
                let form = Form {
                    v5: version == Version::V5,
                    qos: sending.qos,
                    retain: sending.retain,
                    sub_id: sending.sub_ids.first().copied().unwrap_or(0),
                };
                self.write_cached(ci, form, sending, out, fan, max, large, fx)
            }
            _ => self.write_single(ci, version, sending, out, max, large, fx),
        };
        if wrote == Written::Yes {
            if large {
                let payload = out.own().payload_shared();
                self.push_shared(ci, payload, fx);
            }
            let c = &mut self.counters;
            c.packets_sent += 1;
            c.publish_sent += 1;
            c.messages_sent += 1;
            match sending.qos {
                QoS::AtMostOnce => c.messages_qos0_sent += 1,
                QoS::AtLeastOnce => c.messages_qos1_sent += 1,
                QoS::ExactlyOnce => c.messages_qos2_sent += 1,
            }
            if self.meters_output {
                self.count_delivery(ci, out.topic.len() + out.payload.len());
            }
        }
        wrote
    }

    /// Writes a form that other subscribers share: encoded at its first use, then copied or, for
    /// QoS 0, only referred to.
    fn write_cached(
        &mut self,
        ci: u32,
        form: Form,
        sending: &Sending<'_>,
        out: &Outgoing<'_>,
        fan: &mut Fanout,
        max: usize,
        large: bool,
        fx: &mut Effects,
    ) -> Written {
        let layout = match fan.layouts.iter().find(|l| l.form.same(&form)) {
            Some(layout) => *layout,
            None => {
                let layout = self.encode_layout(form, sending, out, large, fx);
                if fan.layouts.len() < LAYOUTS_MAX {
                    fan.layouts.push(layout);
                }
                layout
            }
        };
        if layout.total > max {
            return Written::TooLarge;
        }
        let mut at = layout.at;
        if let Some(id) = PacketId::new(sending.packet_id)
            && sending.qos != QoS::AtMostOnce
        {
            at = fx.arena.len();
            fx.arena.extend_from_within(layout.at..layout.at + layout.len);
            layout.head.patch_packet_id(&mut fx.arena[at..], id);
        }
        self.push_write(ci, at, layout.len, fx);
        Written::Yes
    }

    fn encode_layout(
        &self,
        form: Form,
        sending: &Sending<'_>,
        out: &Outgoing<'_>,
        large: bool,
        fx: &mut Effects,
    ) -> Layout {
        let version = if form.v5 { Version::V5 } else { Version::V311 };
        let packet = self.packet(sending, out, out.topic, None);
        let at = fx.arena.len();
        let head = packet.encode_head(&mut fx.arena, version);
        if !large {
            fx.arena.extend_from_slice(out.payload);
        }
        let len = fx.arena.len() - at;
        let total = head.len + out.payload.len();
        Layout { form, at, len, total, head }
    }

    /// Writes a form that only this client gets.
    fn write_single(
        &mut self,
        ci: u32,
        version: Version,
        sending: &Sending<'_>,
        out: &Outgoing<'_>,
        max: usize,
        large: bool,
        fx: &mut Effects,
    ) -> Written {
        let (alias, known) = self.alias_for(ci, out.topic);
        let topic = if known { "" } else { out.topic };
        let packet = self.packet(sending, out, topic, alias);
        if packet.total_len(version) > max {
            return Written::TooLarge; // and the alias is not bound. [S-27]
        }
        let at = fx.arena.len();
        packet.encode_head(&mut fx.arena, version);
        if !large {
            fx.arena.extend_from_slice(out.payload);
        }
        let len = fx.arena.len() - at;
        if alias.is_some()
            && !known
            && let Some(a) = self.conns.get_mut(ci)
        {
            a.aliases_mut().outbound.push(out.topic.into());
        }
        self.push_write(ci, at, len, fx);
        Written::Yes
    }

    /// The alias of a topic towards a client, and whether the client knows it already. Short topics
    /// are not worth one.
    fn alias_for(&self, ci: u32, topic: &str) -> (Option<u16>, bool) {
        const TOPIC_MIN: usize = 4; // an alias property costs three bytes
        let aliases = self.conns.get(ci).and_then(Conn::aliases);
        let Some(a) = aliases.filter(|a| a.outbound_max > 0 && topic.len() >= TOPIC_MIN) else {
            return (None, false);
        };
        if let Some(at) = a.outbound.iter().position(|t| **t == *topic) {
            return (Some(at as u16 + 1), true);
        }
        let next = a.outbound.len() as u16 + 1;
        ((next <= a.outbound_max).then_some(next), false)
    }

    fn packet<'a>(
        &self,
        sending: &Sending<'a>,
        out: &'a Outgoing<'a>,
        topic: &'a str,
        topic_alias: Option<u16>,
    ) -> PublishOut<'a> {
        PublishOut {
            dup: sending.dup,
            qos: sending.qos,
            retain: sending.retain,
            topic,
            packet_id: sending.packet_id,
            message_expiry_s: out.lifetime().left_s(self.now_ms),
            topic_alias,
            subscription_ids: sending.sub_ids,
            forward: Forward::from_wire(out.props),
            payload_len: out.payload.len(),
        }
    }

    // ---- acknowledgements of the client -----------------------------------------------------------

    pub(crate) fn on_puback(&mut self, ci: u32, id: u16, reason: ReasonCode, fx: &mut Effects) {
        self.counters.puback_received += 1;
        let Some((si, at)) = self.inflight_at(ci, id) else {
            self.counters.puback_missed += 1;
            return;
        };
        if self.sessions[si].outbound().inflight[at].waits != Waits::Puback {
            self.counters.puback_inuse += 1;
            return;
        }
        fx.observe.acked(si, id);
        self.acked(si, at, reason);
        self.pump(si, fx);
    }

    pub(crate) fn on_pubrec(
        &mut self,
        ci: u32,
        id: PacketId,
        reason: ReasonCode,
        fx: &mut Effects,
    ) {
        self.counters.pubrec_received += 1;
        let Some((si, at)) = self.inflight_at(ci, id.get()) else {
            self.counters.pubrec_missed += 1;
            if !reason.is_error() {
                let code = ReasonCode::PACKET_IDENTIFIER_NOT_FOUND;
                self.ack(ci, PacketType::PubRel, id, code, fx);
            }
            return;
        };
        if self.sessions[si].outbound().inflight[at].waits == Waits::Puback {
            self.counters.pubrec_inuse += 1;
            return;
        }
        if reason.is_error() {
            fx.observe.acked(si, id.get());
            self.acked(si, at, reason); // [S-34]
            self.pump(si, fx);
            return;
        }
        let entry = &mut self.sessions[si].outbound().inflight[at];
        entry.waits = Waits::Pubcomp;
        entry.copy = None; // never again a PUBLISH. [MQTT-4.3.3-6]
        self.ack(ci, PacketType::PubRel, id, ReasonCode::SUCCESS, fx);
    }

    pub(crate) fn on_pubcomp(&mut self, ci: u32, id: u16, fx: &mut Effects) {
        self.counters.pubcomp_received += 1;
        let Some((si, at)) = self.inflight_at(ci, id) else {
            self.counters.pubcomp_missed += 1;
            return;
        };
        if self.sessions[si].outbound().inflight[at].waits != Waits::Pubcomp {
            self.counters.pubcomp_inuse += 1;
            return;
        }
        fx.observe.acked(si, id);
        self.acked(si, at, ReasonCode::SUCCESS);
        self.pump(si, fx);
    }

    fn inflight_at(&mut self, ci: u32, id: u16) -> Option<(u32, usize)> {
        let si = super::core::conn_session(&self.conns, ci);
        let out = self.sessions.get(si)?.out.as_ref()?;
        // What was not yet resent on this connection can't be acknowledged by it... but a client that
        // answers to the earlier connection's copy is right all the same.
        out.position(id).map(|at| (si, at))
    }

    fn acked(&mut self, si: u32, at: usize, reason: ReasonCode) {
        let out = self.sessions[si].outbound();
        let Some(entry) = out.complete(at) else { return };
        self.inflight -= 1;
        if reason.is_error() {
            self.counters.drop_copy(DropReason::Refused, 1);
        } else {
            self.counters.messages_acked += 1;
            self.counters.delivery_completed += 1;
        }
        self.finish_member(entry.member, entry.published);
    }

    /// Version 3 only: sends again what was not acknowledged in time. (D7)
    pub(crate) fn retry(&mut self, ci: u32, interval_ms: u32, fx: &mut Effects) {
        let si = super::core::conn_session(&self.conns, ci);
        let now = self.now_ms as u32;
        let Some(out) = self.sessions.get(si).and_then(|s| s.out.as_ref()) else { return };
        let due: Vec<usize> = out
            .inflight
            .iter()
            .take(out.resend_at)
            .enumerate()
            .filter(|(_, e)| now.wrapping_sub(e.sent_ms) >= interval_ms)
            .map(|(at, _)| at)
            .collect();
        for at in due {
            if self.is_congested(ci) {
                return;
            }
            let entry = &mut self.sessions[si].outbound().inflight[at];
            entry.sent_ms = now;
            let packet_id = entry.packet_id;
            match entry.copy.clone() {
                Some(copy) => {
                    let sending = Sending {
                        qos: copy.qos,
                        retain: copy.retain,
                        dup: true,
                        packet_id,
                        sub_ids: copy.sub_ids.as_slice(),
                    };
                    let mut publish = Outgoing::of(&copy.msg);
                    self.write_publish(ci, &sending, &mut publish, None, fx);
                }
                None => {
                    if let Some(id) = PacketId::new(packet_id) {
                        self.ack(ci, PacketType::PubRel, id, ReasonCode::SUCCESS, fx);
                    }
                }
            }
        }
    }
}
