//! A PUBLISH from a client: checks, routing, matching, acknowledgement.

use std::sync::Arc;

use bytes::Bytes;
use ringmain_acl::Action;
use ringmain_mqtt::topic::TopicName;
use ringmain_mqtt::{PacketId, PacketType, Publish, QoS, ReasonCode, Version};

use super::config::{DenyAction, Overlap};
use super::conn::flag;
use super::core::Core;
use super::counters::DropReason;
use super::delivery::{Fanout, Target};
use super::effects::{CloseHow, Effects};
use super::hash::hash64;
use super::ids::{ConnId, ShardId, ShardSet};
use super::mail::{Mail, Ticket};
use super::message::{Message, Outgoing};
use super::overload::Measure;
use super::session::Awaiting;
use super::shard::Shard;
use super::slab::NONE;
use super::subs::FilterId;
use crate::boundary::Pressure;
use crate::observe::Stage;

/// Subscribers with this bit are shared groups: the rest is the group's index.
pub(crate) const GROUP_BIT: u32 = 1 << 31;

/// Scratch of matching. Kept between messages.
#[derive(Debug, Default)]
pub(crate) struct Matches {
    filters: Vec<FilterId>,
    merged: Vec<Merged>,
    groups: Vec<u32>,
}

/// A session with several matching filters: one copy at the highest QoS. [S-47]
#[derive(Debug)]
struct Merged {
    target: Target,
    sub_ids: smallvec::SmallVec<[u32; 2]>,
}

/// What became of a message on one shard.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Delivered {
    /// Targets that took it.
    pub(crate) taken: u32,
    /// Whether a target with the policy `reject` had no room.
    pub(crate) refused: bool,
}

/// Why a publish is not routed.
struct Refusal {
    reason: ReasonCode,
    text: &'static str,
    /// Not to be answered in an acknowledgement: the connection ends.
    fatal: bool,
}

fn refuse(reason: ReasonCode, text: &'static str) -> Refusal {
    Refusal { reason, text, fatal: false }
}

fn fatal(reason: ReasonCode, text: &'static str) -> Refusal {
    Refusal { reason, text, fatal: true }
}

impl Shard {
    /// Handles a PUBLISH. `body` is the packet body when it can be kept without copying.
    pub(crate) fn on_publish(
        &mut self,
        id: ConnId,
        p: &Publish<'_>,
        body: Option<Bytes>,
        fx: &mut Effects,
    ) {
        let ci = id.index;
        let c = &mut self.core.counters;
        c.publish_received += 1;
        c.messages_received += 1;
        match p.qos {
            QoS::AtMostOnce => c.messages_qos0_received += 1,
            QoS::AtLeastOnce => c.messages_qos1_received += 1,
            QoS::ExactlyOnce => c.messages_qos2_received += 1,
        }
        // The alias counts whatever becomes of the message: a later packet may rely on it. [S-25]
        let alias_topic;
        let topic = match self.resolve_alias(ci, p) {
            Ok(None) => p.topic,
            Ok(Some(topic)) => {
                alias_topic = topic;
                &*alias_topic
            }
            Err(refusal) => return self.on_refused(ci, p, refusal, fx),
        };
        // A repeat of a QoS 2 publish is acknowledged and nothing else. [S-33]
        if p.qos == QoS::ExactlyOnce
            && let Some(packet_id) = p.packet_id
        {
            match self.classify_qos2(ci, packet_id, p.dup, fx) {
                Awaiting::New => {}
                Awaiting::Repeat => {
                    return self.answer_repeat(id, packet_id, fx);
                }
                Awaiting::Full => return,
            }
        }
        if let Err(refusal) = self.check_quota(ci, p) {
            self.on_refused(ci, p, refusal, fx);
            return;
        }
        if p.qos == QoS::AtLeastOnce
            && let Some(packet_id) = p.packet_id
            && self.id_in_use(ci, packet_id)
        {
            self.core.counters.publish_inuse += 1;
            let refusal =
                refuse(ReasonCode::PACKET_IDENTIFIER_IN_USE, "a QoS 2 publish has the id");
            return self.on_refused(ci, p, refusal, fx);
        }
        if let Err(refusal) =
            self.check_publish(ci, topic, p).and_then(|()| self.authorise(ci, topic, p))
        {
            return self.on_refused(ci, p, refusal, fx);
        }
        if fx.observe.is_following() {
            let publisher = &self.core.sessions[self.session_of(ci)].client_id;
            fx.observe.describe(self.core.id, publisher, topic, p.payload.len());
            fx.observe.mark(Stage::Authorise);
        }
        self.route_publish(id, topic, p, body, fx);
    }

    fn route_publish(
        &mut self,
        id: ConnId,
        topic: &str,
        p: &Publish<'_>,
        body: Option<Bytes>,
        fx: &mut Effects,
    ) {
        let ci = id.index;
        let session = &self.core.sessions[self.session_of(ci)];
        let cfg = self.core.cfg.mqtt_of(session.listener);
        let mut expiry_s = p.props.message_expiry_s.unwrap_or(u32::MAX);
        if expiry_s == u32::MAX && cfg.message_expiry_default_s != 0 {
            expiry_s = cfg.message_expiry_default_s;
        }
        if cfg.message_expiry_max_s != 0 {
            expiry_s = expiry_s.min(cfg.message_expiry_max_s);
        }
        let props_copy;
        let (props, contiguous) = match p.props.forward.as_slice_if_contiguous() {
            Some(slice) => (slice, true),
            None => {
                let mut v = Vec::with_capacity(p.props.forward.wire_len());
                p.props.forward.append_to(&mut v);
                props_copy = v;
                (&*props_copy, false)
            }
        };
        let mut out = Outgoing {
            topic,
            props,
            payload: p.payload,
            qos: p.qos,
            retain: p.retain,
            expiry_forwarded: p.props.message_expiry_s.is_some(),
            expiry_s,
            publisher: session.client_hash,
            created_ms: self.core.now_ms,
            owned: None,
            backing: body.filter(|_| contiguous && std::ptr::eq(topic, p.topic)),
        };
        let cfg_retained = &self.core.cfg.retained;
        let oversized = p.retain
            && cfg_retained.max_payload_bytes != 0
            && p.payload.len() > cfg_retained.max_payload_bytes as usize;
        if oversized && cfg_retained.reject_oversized {
            let refusal = refuse(ReasonCode::QUOTA_EXCEEDED, "too large to retain");
            return self.on_refused(ci, p, refusal, fx);
        }
        let clears = p.retain && p.payload.is_empty();
        let mut routed = if clears && cfg_retained.stop_publish_clear_msg {
            Routed { matched: 1, ..Routed::default() }
        } else {
            self.route(&mut out, true, fx)
        };
        if p.retain && !oversized {
            routed.stored = true;
            self.retain(&mut out, fx);
        }
        if let Some(packet_id) = p.packet_id {
            self.acknowledge(id, packet_id, p.qos, routed, fx);
        }
        self.hold_back(id, &routed.targets, fx);
    }

    /// Stops reading a publisher whose messages go to a shard that can't take more just now.
    fn hold_back(&mut self, id: ConnId, targets: &ShardSet, fx: &mut Effects) {
        if !fx.lanes_full.is_empty() && targets.iter().any(|s| fx.lanes_full.contains(s)) {
            self.core.counters.overload_delay_lane += 1;
            self.core.pause(id.index, flag::PAUSED_LANE, fx);
            if !self.stalled.contains(&id) {
                self.stalled.push(id);
            }
        }
        if self.core.pauses_publishers() {
            let c = &mut self.core.counters;
            *match self.core.pressure {
                Pressure::Critical => &mut c.overload_delay_memory,
                _ => &mut c.overload_delay_lag,
            } += 1;
            self.core.pause(id.index, flag::PAUSED_OVERLOAD, fx);
        }
    }

    // ---- checks -------------------------------------------------------------------------------------

    /// Whether a QoS 2 handshake of a version 5 client holds the id. Version 3 can't be told.
    pub(crate) fn id_in_use(&self, ci: u32, packet_id: PacketId) -> bool {
        self.core.conns.get(ci).is_some_and(|c| c.version == Version::V5)
            && self
                .core
                .sessions
                .get(self.session_of(ci))
                .and_then(|s| s.awaiting_rel())
                .is_some_and(|a| a.holds(packet_id.get()))
    }

    fn classify_qos2(
        &mut self,
        ci: u32,
        packet_id: PacketId,
        dup: bool,
        fx: &mut Effects,
    ) -> Awaiting {
        let si = self.session_of(ci);
        let now_ms = self.core.now_ms;
        let Core { sessions, cfg, counters, .. } = &mut self.core;
        let s = &mut sessions[si];
        let cfg = cfg.mqtt_of(s.listener);
        let Some(awaiting) = s.awaiting_rel_mut() else { return Awaiting::New };
        let timeouts = &mut counters.messages_dropped_await_pubrel_timeout;
        let class = awaiting.classify(packet_id.get(), dup, now_ms, cfg, timeouts);
        match class {
            Awaiting::Repeat => counters.publish_inuse += u64::from(!dup),
            Awaiting::Full => {
                // P22. Version 5 has a code for it; the others only have the end of the connection.
                counters.messages_dropped_receive_maximum += 1;
                counters.publish_quota_exceeded += 1;
                counters.messages_dropped += 1;
                let v5 = self.core.conns.get(ci).is_some_and(|c| c.version == Version::V5);
                let code = ReasonCode::QUOTA_EXCEEDED;
                if v5 && !self.over_receive_maximum(ci) {
                    self.refuse_publish(ci, packet_id, QoS::ExactlyOnce, code, fx);
                } else {
                    let code = ReasonCode::RECEIVE_MAXIMUM_EXCEEDED;
                    self.core.close(ci, Some(code), CloseHow::Flush, fx);
                }
            }
            Awaiting::New => {}
        }
        class
    }

    /// Whether one more QoS > 0 publish is above our Receive Maximum. [S-24]
    fn over_receive_maximum(&self, ci: u32) -> bool {
        self.core.conns.get(ci).is_some_and(|c| {
            let max = self.core.told(ci).receive_maximum;
            c.version == Version::V5 && c.received_open >= max
        })
    }

    fn check_quota(&mut self, ci: u32, p: &Publish<'_>) -> Result<(), Refusal> {
        if p.qos != QoS::AtMostOnce && self.over_receive_maximum(ci) {
            let lenient =
                self.core.conns.get(ci).map(|c| self.core.mqtt(c.listener).lenient_receive_maximum);
            if lenient == Some(true) {
                self.core.counters.receive_maximum_lenient += 1; // D8
            } else {
                self.core.counters.messages_dropped_receive_maximum += 1;
                let code = ReasonCode::RECEIVE_MAXIMUM_EXCEEDED; // [MQTT-3.3.4-7]
                return Err(fatal(code, "more unacknowledged publishes than Receive Maximum"));
            }
        }
        if std::mem::take(&mut self.core.over_rate) {
            self.core.counters.messages_dropped_quota_exceeded += 1; // L01
            return Err(refuse(ReasonCode::QUOTA_EXCEEDED, "faster than allowed"));
        }
        if self.core.pressure >= Pressure::High {
            // Q08, L05: QoS 0 is shed first, QoS > 0 is refused; nothing acknowledged is dropped.
            self.core.counters.messages_dropped_quota_exceeded += 1;
            return Err(refuse(ReasonCode::QUOTA_EXCEEDED, "the broker is short of memory"));
        }
        if p.qos == QoS::AtMostOnce && self.core.overload.measure() >= Measure::DropQos0 {
            self.core.counters.messages_dropped_quota_exceeded += 1; // L05
            return Err(refuse(ReasonCode::QUOTA_EXCEEDED, "the broker is behind"));
        }
        Ok(())
    }

    /// The topic behind an alias; `None` when the packet's own topic counts. [S-25]
    fn resolve_alias(&mut self, ci: u32, p: &Publish<'_>) -> Result<Option<Box<str>>, Refusal> {
        let Some(alias) = p.props.topic_alias else { return Ok(None) };
        let max = self.core.told(ci).topic_alias_max;
        let Some(conn) = self.core.conns.get_mut(ci) else { return Ok(None) };
        if alias == 0 || alias > max {
            // [MQTT-3.3.2-8] [MQTT-3.3.2-9]
            return Err(fatal(ReasonCode::TOPIC_ALIAS_INVALID, "topic alias out of range"));
        }
        let aliases = &mut conn.aliases_mut().inbound;
        let at = usize::from(alias) - 1;
        if !p.topic.is_empty() {
            if aliases.len() <= at {
                aliases.resize(at + 1, None);
            }
            aliases[at] = Some(p.topic.into());
            return Ok(None);
        }
        match aliases.get(at) {
            Some(Some(topic)) => Ok(Some(topic.clone())),
            _ => Err(fatal(ReasonCode::PROTOCOL_ERROR, "topic alias without a topic")),
        }
    }

    fn check_publish(&self, ci: u32, topic: &str, p: &Publish<'_>) -> Result<(), Refusal> {
        let cfg = self.core.told(ci);
        if p.qos > cfg.max_qos {
            let code = ReasonCode::QOS_NOT_SUPPORTED; // [MQTT-3.2.2-11]
            return Err(fatal(code, "QoS above Maximum QoS"));
        }
        if p.retain && !cfg.retain_available {
            let code = ReasonCode::RETAIN_NOT_SUPPORTED; // [MQTT-3.2.2-14]
            return Err(fatal(code, "retained messages are switched off"));
        }
        match TopicName::parse(topic, cfg.max_topic_levels) {
            Err(e) => return Err(refuse(ReasonCode::TOPIC_NAME_INVALID, e.as_str())),
            Ok(name) => {
                if let Some(reason) = name.publish_refusal() {
                    return Err(refuse(reason, "clients can't publish to this topic")); // [S-53]
                }
            }
        }
        if cfg.check_payload_format
            && p.props.payload_format == Some(true)
            && std::str::from_utf8(p.payload).is_err()
        {
            let code = ReasonCode::PAYLOAD_FORMAT_INVALID; // P05
            return Err(refuse(code, "the payload is not UTF-8"));
        }
        Ok(())
    }

    /// Asks the rules; the topic counts that an alias stands for. (AZ01) [S-29]
    fn authorise(&mut self, ci: u32, topic: &str, p: &Publish<'_>) -> Result<(), Refusal> {
        let action = Action::Publish { qos: p.qos, retain: p.retain };
        if self.core.may(ci, action, topic) {
            return Ok(());
        }
        Err(refuse(ReasonCode::NOT_AUTHORIZED, "not authorised to publish to this topic"))
    }

    fn on_refused(&mut self, ci: u32, p: &Publish<'_>, r: Refusal, fx: &mut Effects) {
        let c = &mut self.core.counters;
        c.publish_error += 1;
        c.publish_dropped += 1;
        c.messages_dropped += 1;
        match r.reason {
            ReasonCode::NOT_AUTHORIZED => c.publish_auth_error += 1,
            ReasonCode::QUOTA_EXCEEDED => c.publish_quota_exceeded += 1,
            _ => {}
        }
        let Some(conn) = self.core.conns.get(ci) else { return };
        let v5 = conn.version == Version::V5;
        let deny = self.core.mqtt(conn.listener).deny_action == DenyAction::Disconnect
            && r.reason == ReasonCode::NOT_AUTHORIZED;
        if r.fatal || deny {
            self.core.close_with(ci, Some(r.reason), Some(r.text), CloseHow::Flush, fx);
            return;
        }
        match (p.packet_id, v5) {
            // QoS 0 has no answer.
            (None, _) => {
                use ReasonCode as R;
                if matches!(r.reason, R::TOPIC_NAME_INVALID | R::PAYLOAD_FORMAT_INVALID) {
                    self.core.close_with(ci, Some(r.reason), Some(r.text), CloseHow::Flush, fx);
                }
            }
            (Some(id), true) => {
                self.refuse_publish(ci, id, p.qos, r.reason, fx);
            }
            // Version 3 can't be told: what is only not permitted is acknowledged and dropped, what
            // was accepted on other days must not be acknowledged. [MQTT311-3.3.5-2]
            (Some(id), false) => {
                if r.reason != ReasonCode::NOT_AUTHORIZED {
                    self.core.close(ci, None, CloseHow::Flush, fx);
                    return;
                }
                if p.qos == QoS::ExactlyOnce {
                    let si = self.session_of(ci);
                    let now_ms = self.core.now_ms;
                    let s = &mut self.core.sessions[si];
                    s.await_rel().insert(id.get(), now_ms);
                }
                self.answer_publish(ci, id, p.qos, ReasonCode::SUCCESS, fx);
            }
        }
    }

    pub(crate) fn on_pubrel(&mut self, ci: u32, id: PacketId, fx: &mut Effects) {
        self.core.counters.pubrel_received += 1;
        let si = self.session_of(ci);
        let Some(s) = self.core.sessions.get_mut(si) else { return };
        let known = s.awaiting_rel_mut().is_some_and(|a| a.remove(id.get()));
        s.trim();
        let reason = if known {
            if let Some(conn) = self.core.conns.get_mut(ci) {
                conn.received_open = conn.received_open.saturating_sub(1);
            }
            ReasonCode::SUCCESS
        } else {
            self.core.counters.pubrel_missed += 1;
            ReasonCode::PACKET_IDENTIFIER_NOT_FOUND // [S-35]
        };
        self.core.ack(ci, PacketType::PubComp, id, reason, fx);
    }

    // ---- routing ------------------------------------------------------------------------------------

    /// Sends a message to every shard that may have subscribers, this one included.
    pub(crate) fn route(
        &mut self,
        out: &mut Outgoing<'_>,
        from_client: bool,
        fx: &mut Effects,
    ) -> Routed {
        self.core.counters.messages_publish += 1;
        let targets = self.find_shards(out);
        let mut routed = Routed { targets, ..Routed::default() };
        if targets.is_empty() {
            self.core.counters.messages_dropped_no_subscribers += 1;
            self.core.counters.messages_dropped += 1;
            return routed;
        }
        let me = self.core.id;
        let asks = from_client && out.qos != QoS::AtMostOnce && self.asks_for_verdicts();
        for shard in targets.iter() {
            if shard == me {
                continue;
            }
            self.core.counters.messages_forward += 1;
            routed.matched += 1;
            if let Some(journey) = fx.observe.cross() {
                fx.send(shard, Mail::Journey(journey));
            }
            if asks {
                let ticket = *routed.ticket.get_or_insert_with(|| self.answers.ticket());
                routed.asked += 1;
                fx.send(shard, Mail::PublishAsk(out.own(), ticket));
            } else {
                fx.send_publish(shard, out);
            }
        }
        if targets.contains(me) {
            let local = self.deliver_local(out, me, fx);
            routed.matched += local.taken + u32::from(local.refused);
            routed.taken = local.taken;
            routed.refused = local.refused;
        }
        if routed.matched == 0 {
            self.core.counters.messages_dropped_no_subscribers += 1;
            self.core.counters.messages_dropped += 1;
        }
        routed
    }

    /// The shards that may have subscribers.
    fn find_shards(&mut self, out: &Outgoing<'_>) -> ShardSet {
        let table = self.routes.table();
        let changes = table.changes();
        if let Some(shards) = self.recent.shards(out.publisher, out.topic, changes) {
            return shards;
        }
        let mut shards = ShardSet::EMPTY;
        table.lookup(out.topic, &mut shards);
        self.recent.keep_shards(out.publisher, out.topic, changes, shards);
        shards
    }

    /// The filters of this shard that match.
    fn find_filters(&mut self, out: &Outgoing<'_>, filters: &mut Vec<FilterId>) {
        let changes = self.subs.changes();
        if let Some(found) = self.recent.filters(out.publisher, out.topic, changes) {
            return filters.extend_from_slice(found);
        }
        self.subs.matches(out.topic, filters);
        self.recent.keep_filters(out.publisher, out.topic, changes, filters);
    }

    /// Only the policy `reject` needs to know what became of a message on other shards.
    fn asks_for_verdicts(&self) -> bool {
        use super::config::QueueDropPolicy::Reject;
        let cfg = &self.core.cfg;
        cfg.mqtt.mqueue_drop_policy == Reject
            || cfg
                .listeners
                .iter()
                .any(|l| l.mqtt.as_ref().is_some_and(|m| m.mqueue_drop_policy == Reject))
    }

    /// Matches a message against the subscriptions of this shard and delivers it.
    pub(crate) fn deliver_local(
        &mut self,
        out: &mut Outgoing<'_>,
        from: ShardId,
        fx: &mut Effects,
    ) -> Delivered {
        if out.is_expired(self.core.now_ms) {
            self.core.counters.messages_dropped_expired += 1;
            self.core.counters.messages_dropped += 1;
            return Delivered { taken: 1, refused: false };
        }
        let mut m = std::mem::take(&mut self.matches);
        m.filters.clear();
        self.find_filters(out, &mut m.filters);
        let delivered = match m.filters.len() {
            0 => Delivered::default(),
            1 => self.deliver_filters(&m.filters, &mut m.groups, out, fx),
            _ if self.core.cfg.mqtt.overlap == Overlap::Each => {
                self.deliver_filters(&m.filters, &mut m.groups, out, fx)
            }
            _ => self.deliver_merged(&mut m, out, fx),
        };
        let groups = std::mem::take(&mut m.groups);
        let mut taken = delivered.taken;
        for gix in &groups {
            taken += u32::from(self.dispatch_group(*gix, out, from, fx));
        }
        m.groups = groups;
        m.groups.clear();
        self.matches = m;
        Delivered { taken, refused: delivered.refused }
    }

    /// One copy for each subscriber of each filter.
    fn deliver_filters(
        &mut self,
        filters: &[FilterId],
        groups: &mut Vec<u32>,
        out: &mut Outgoing<'_>,
        fx: &mut Effects,
    ) -> Delivered {
        let mut fan = Fanout::default();
        let mut delivered = Delivered::default();
        for filter in filters {
            for sub in self.subs.subscribers(*filter) {
                if sub.session & GROUP_BIT != 0 {
                    groups.push(sub.session & !GROUP_BIT);
                    continue;
                }
                let target = Target {
                    session: sub.session,
                    qos: qos_of(sub.opts.qos_level()),
                    retain: out.retain && sub.opts.retain_as_published(),
                    member: NONE,
                };
                if drop_own(&mut self.core, target.session, sub.opts.no_local(), out) {
                    delivered.taken += 1;
                    continue;
                }
                let ids = [sub.subscription_id];
                let ids = if sub.subscription_id == 0 { &[][..] } else { &ids[..] };
                if self.core.sessions[target.session].has(super::session::flag::REPLAYING)
                    && Self::hold(&mut self.replays, &mut self.core, target, ids, out)
                {
                    delivered.taken += 1;
                    continue;
                }
                if self.core.deliver(target, ids, out, &mut fan, fx) {
                    delivered.taken += 1;
                } else {
                    delivered.refused = true;
                }
            }
        }
        delivered
    }

    /// One copy for each session, however many of its filters match. [S-47]
    fn deliver_merged(
        &mut self,
        m: &mut Matches,
        out: &mut Outgoing<'_>,
        fx: &mut Effects,
    ) -> Delivered {
        self.core.publish_mark = self.core.publish_mark.wrapping_add(1).max(1);
        let mark = self.core.publish_mark;
        m.merged.clear();
        let mut delivered = Delivered::default();
        for filter in &m.filters {
            for sub in self.subs.subscribers(*filter) {
                if sub.session & GROUP_BIT != 0 {
                    m.groups.push(sub.session & !GROUP_BIT);
                    continue;
                }
                let qos = qos_of(sub.opts.qos_level());
                let retain = out.retain && sub.opts.retain_as_published();
                if is_own(&self.core, sub.session, sub.opts.no_local(), out) {
                    delivered.taken += 1;
                    self.core.counters.delivery_matched += 1;
                    self.core.counters.drop_copy(DropReason::NoLocal, 1);
                    continue;
                }
                let s = &mut self.core.sessions[sub.session];
                let place = s.place as usize;
                let known = if s.mark == mark { m.merged.get_mut(place) } else { None };
                match known {
                    Some(e) => {
                        e.target.qos = e.target.qos.max(qos);
                        e.target.retain |= retain;
                        if sub.subscription_id != 0 {
                            e.sub_ids.push(sub.subscription_id);
                        }
                    }
                    None => {
                        s.mark = mark;
                        s.place = m.merged.len() as u32;
                        let target = Target { session: sub.session, qos, retain, member: NONE };
                        let mut sub_ids = smallvec::SmallVec::new();
                        if sub.subscription_id != 0 {
                            sub_ids.push(sub.subscription_id);
                        }
                        m.merged.push(Merged { target, sub_ids });
                    }
                }
            }
        }
        let mut fan = Fanout::default();
        for e in m.merged.drain(..) {
            if self.core.sessions[e.target.session].has(super::session::flag::REPLAYING)
                && Self::hold(&mut self.replays, &mut self.core, e.target, &e.sub_ids, out)
            {
                delivered.taken += 1;
                continue;
            }
            if self.core.deliver(e.target, &e.sub_ids, out, &mut fan, fx) {
                delivered.taken += 1;
            } else {
                delivered.refused = true;
            }
        }
        delivered
    }

    // ---- publishes of the broker ----------------------------------------------------------------------

    /// Publishes a will. Its expiry counts from now. [S-14]
    pub(crate) fn publish_will(&mut self, msg: &Arc<Message>, fx: &mut Effects) {
        let mut will = Message::clone(msg);
        will.created_ms = self.core.now_ms;
        let will = Arc::new(will);
        let mut out = Outgoing::of(&will);
        self.route(&mut out, false, fx);
        let max = self.core.cfg.retained.max_payload_bytes as usize;
        if will.retain && (max == 0 || will.payload().len() <= max) {
            self.retain(&mut out, fx);
        }
    }

    /// The shard that owns the retained message of a topic.
    pub(crate) fn owner_of(&self, topic: &str) -> ShardId {
        self.core.home_of(hash64(self.core.node.hash_seed, topic.as_bytes()))
    }
}

/// What routing found.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Routed {
    pub(crate) targets: ShardSet,
    /// Local targets plus other shards that may have some.
    pub(crate) matched: u32,
    pub(crate) taken: u32,
    pub(crate) refused: bool,
    /// Whether it was sent to the owner of its topic, to be retained.
    pub(crate) stored: bool,
    pub(crate) asked: u32,
    pub(crate) ticket: Option<Ticket>,
}

pub(crate) fn qos_of(level: u8) -> QoS {
    QoS::from_bits(level).unwrap_or(QoS::AtMostOnce)
}

/// Whether a session is not to get its own message. [S-49] [MQTT-3.8.3-3]
fn is_own(core: &Core, si: u32, no_local: bool, out: &Outgoing<'_>) -> bool {
    let s = &core.sessions[si];
    s.client_hash == out.publisher
        && (no_local || (s.version < 5 && core.mqtt(s.listener).ignore_loop_deliver))
}

fn drop_own(core: &mut Core, si: u32, no_local: bool, out: &Outgoing<'_>) -> bool {
    let own = is_own(core, si, no_local, out);
    if own {
        core.counters.delivery_matched += 1;
        core.counters.drop_copy(DropReason::NoLocal, 1);
    }
    own
}
