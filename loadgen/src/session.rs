//! What a client says and hears once its socket is open.

use std::io;
use std::sync::atomic::Ordering;

use ringmain_mqtt::{PacketId, PacketType, Publish, QoS};

use crate::account::{GroupHeard, rendered};
use crate::client::{
    HAS_SESSION, Handshake, Heard, INFLIGHT_MAX, PINGED, PUMP, Stage, State, Traffic, WAS_READY,
};
use crate::pace::{Publishers, Schedule};
use crate::packets::{self, Head, Incoming};
use crate::plan::{Behaviour, End, Expect, Pace, Plan, Population, PublishPlan};
use crate::stamp::{Arrival, Manner, Stamp, WILL, key};
use crate::stats::{ATTEMPTS_TOLD, Metric};
use crate::template::Context;
use crate::worker::{Worker, share};

/// Bytes that may wait behind a connection's send, in an open loop. A broker that reads so slowly
/// gets another load than the one asked for, and the generator must not eat the memory.
const BACKLOG_MAX: usize = 16 << 20;
/// Largest packet that a client takes, in bytes: what MQTT can say.
const PARTIAL_MAX: usize = 268_435_460;

impl Worker {
    /// Takes the bytes of a receive buffer.
    pub(crate) fn receive(
        &mut self,
        local: u32,
        ring: usize,
        buffer: u16,
        len: usize,
    ) -> io::Result<()> {
        let bytes: *const [u8] = self.rings[ring].received(buffer, len);
        // SAFETY: the buffer is the kernel's again only at `recycle`, which the caller does after
        // this; nothing on the way to it touches the arena or drops the ring. The copy that the
        // borrow checker would want costs more than decoding.
        let bytes = unsafe { &*bytes };
        let Some(mut partial) = self.clients[local as usize].partial.take() else {
            let used = self.consume(local, bytes)?;
            if used < bytes.len() {
                self.clients[local as usize].partial = Some(Box::new(bytes[used..].to_vec()));
            }
            return Ok(());
        };
        partial.extend_from_slice(bytes);
        let used = self.consume(local, &partial)?;
        partial.drain(..used);
        if partial.len() > PARTIAL_MAX {
            self.broken_protocol(local, "a packet is larger than MQTT can say")?;
        } else if !partial.is_empty() {
            self.clients[local as usize].partial = Some(partial);
        }
        Ok(())
    }

    /// Handles the whole packets at the front and says how many bytes they had.
    fn consume(&mut self, local: u32, bytes: &[u8]) -> io::Result<usize> {
        let plan = self.plan.clone();
        let version = self.population(&plan, local).connect.version;
        let mut used = 0;
        while used < bytes.len() {
            match packets::next(&bytes[used..], version) {
                Ok(Some((packet, len))) => {
                    used += len;
                    self.handle(&plan, local, packet)?;
                    if self.clients[local as usize].state == State::Closing {
                        return Ok(bytes.len());
                    }
                }
                Ok(None) => break,
                Err(e) => {
                    self.broken_protocol(local, &e.to_string())?;
                    return Ok(bytes.len());
                }
            }
        }
        Ok(used)
    }

    fn handle(&mut self, plan: &Plan, local: u32, packet: Incoming<'_>) -> io::Result<()> {
        match packet {
            Incoming::Publish(publish) => self.on_publish(plan, local, &publish),
            Incoming::Ack { kind, packet_id, code } => {
                let at = Answer { kind, packet_id, code };
                self.on_answer(plan, local, at);
            }
            Incoming::ConnAck { code, session_present } => {
                return self.on_connack(plan, local, code, session_present);
            }
            Incoming::SubAck { code } => return self.on_suback(local, code),
            Incoming::PingResp => self.clients[local as usize].unset(PINGED),
            Incoming::Disconnect { code } => {
                self.blame(local, &format!("DISCONNECT 0x{code:02X} from the broker"));
            }
            Incoming::Other => {}
        }
        Ok(())
    }

    fn on_connack(
        &mut self,
        plan: &Plan,
        local: u32,
        code: u8,
        session_present: bool,
    ) -> io::Result<()> {
        if code != 0 {
            self.blame(local, &format!("CONNACK 0x{code:02X}"));
            return Ok(());
        }
        let client = &mut self.clients[local as usize];
        if client.state != State::Opening {
            self.counters.protocol_errors += 1;
            return Ok(());
        }
        self.latencies.record(Metric::Connect, self.now.saturating_sub(client.since_ns));
        let population = &plan.populations[usize::from(client.population)];
        let (had, present) = (client.has(HAS_SESSION), session_present);
        self.counters.resumed += u64::from(present);
        if had && present {
            self.resend(plan, local);
            return self.ready(local);
        }
        if had && population.connect.keeps_session() {
            self.counters.sessions_lost += 1;
        }
        let client = &mut self.clients[local as usize];
        client.unset(HAS_SESSION);
        if let Some(traffic) = &mut client.traffic {
            traffic.give_up_handshakes();
        }
        if population.subscriptions.is_empty() {
            self.ready(local)
        } else {
            self.subscribe(plan, local)
        }
    }

    /// Sends SUBSCRIBE for each subscription of the plan.
    fn subscribe(&mut self, plan: &Plan, local: u32) -> io::Result<()> {
        let number = self.client_number(plan, local) as u32;
        let population = self.population(plan, local);
        let version = population.connect.version;
        let client = &mut self.clients[local as usize];
        client.state = State::Subscribing;
        client.since_ns = self.now;
        client.awaited = population.subscriptions.len() as u8;
        if let Some(Heard::Retained(heard)) = client.traffic.as_mut().map(|t| &mut t.heard) {
            **heard =
                crate::client::RetainedHeard { subscribed_ns: self.now, ..Default::default() };
        }
        let mut group = None;
        for (id, subscription) in (1..).zip(&population.subscriptions) {
            let copies = 0..u64::from(subscription.copies);
            let filters: Vec<String> =
                copies.map(|c| rendered(&subscription.filter, population, number, c)).collect();
            let packet_id = PacketId::new(id).expect("counts from 1");
            let out = &mut self.buffers.of(&mut client.out).pending;
            packets::subscribe(out, version, packet_id, subscription, &filters);
            group = group.or(filters.into_iter().next());
        }
        if let (Expect::SharedGroup(_), Some(filter)) = (population.expect, group) {
            self.join_group(local, filter);
        }
        self.mark_dirty(local);
        Ok(())
    }

    fn join_group(&mut self, local: u32, filter: String) {
        let population = self.clients[local as usize].population;
        let groups = &mut self.groups;
        let group = *self.group_names.entry((population, filter)).or_insert_with_key(|(_, f)| {
            groups.push(GroupHeard { population, filter: f.clone(), ..GroupHeard::default() });
            groups.len() - 1
        });
        self.member_of.insert(local, group);
    }

    /// Sends again what the session still owes the broker, in order. [MQTT-4.4.0-1]
    fn resend(&mut self, plan: &Plan, local: u32) {
        let population = self.population(plan, local);
        let version = population.connect.version;
        let Some(publish) = &population.publish else { return };
        let Some(traffic) = &self.clients[local as usize].traffic else { return };
        let open: Vec<Handshake> = traffic.inflight.iter().copied().collect();
        for handshake in open {
            match handshake.stage {
                Stage::PubAck | Stage::PubRec => {
                    self.counters.resent += 1;
                    self.write_publish(plan, local, publish, &handshake, true);
                    if let Some(traffic) = &mut self.clients[local as usize].traffic {
                        traffic.resent += u32::from(publish.qos == QoS::AtLeastOnce);
                    }
                }
                Stage::PubComp => {
                    let client = &mut self.clients[local as usize];
                    let out = &mut self.buffers.of(&mut client.out).pending;
                    packets::ack(out, version, PacketType::PubRel, handshake.packet_id);
                    self.mark_dirty(local);
                }
                Stage::Done => {}
            }
        }
    }

    fn on_suback(&mut self, local: u32, code: u8) -> io::Result<()> {
        if code >= 0x80 {
            self.blame(local, &format!("SUBACK 0x{code:02X}"));
            return self.begin_close(local, End::Fin);
        }
        let client = &mut self.clients[local as usize];
        if client.state != State::Subscribing {
            self.counters.protocol_errors += 1;
            return Ok(());
        }
        client.awaited = client.awaited.saturating_sub(1);
        if client.awaited > 0 {
            return Ok(());
        }
        self.latencies.record(Metric::Subscribe, self.now.saturating_sub(client.since_ns));
        self.ready(local)
    }

    fn ready(&mut self, local: u32) -> io::Result<()> {
        let plan = self.plan.clone();
        let population = self.population(&plan, local);
        let client = &mut self.clients[local as usize];
        client.state = State::Live;
        client.set(WAS_READY);
        if population.connect.keeps_session() {
            client.set(HAS_SESSION);
        }
        let failures = usize::from(std::mem::take(&mut client.failures));
        self.counters.attempts_needed[failures.min(ATTEMPTS_TOLD - 1)] += 1;
        self.opening -= 1;
        self.counters.ready += 1;
        self.counters.live += 1;
        let late = self.had_traffic && client.cycle == 1;
        if let Some(traffic) = client.traffic.as_mut().filter(|_| late) {
            traffic.epoch = traffic.epoch.wrapping_add(1);
        }
        if plan.cycles_on() {
            return self.begin_close(local, plan.end);
        }
        if population.behaviour != Behaviour::Normal {
            return self.turn_deaf(local);
        }
        self.write_off_peer(&plan, local);
        let p = self.clients[local as usize].population;
        if self.publishes(p) {
            self.mark_pump(local);
        }
        Ok(())
    }

    /// A subscriber came back without what its peer sent meanwhile: the peer must not wait for it.
    fn write_off_peer(&mut self, plan: &Plan, local: u32) {
        let client = &self.clients[local as usize];
        let p = usize::from(client.population);
        let Expect::Peer(peer) = plan.populations[p].expect else { return };
        if client.cycle == 1 || self.durable[p] {
            return;
        }
        let publisher = self.first[usize::from(peer)] + local - self.first[p];
        if let Some(traffic) = &mut self.clients[publisher as usize].traffic {
            traffic.write_off();
        }
        if self.publishes(peer) {
            self.mark_pump(publisher);
        }
    }

    fn broken_protocol(&mut self, local: u32, what: &str) -> io::Result<()> {
        self.counters.protocol_errors += 1;
        self.blame(local, &format!("the broker broke the protocol: {what}"));
        self.begin_close(local, End::Fin)
    }

    fn on_publish(&mut self, plan: &Plan, local: u32, publish: &Publish<'_>) {
        let version = self.population(plan, local).connect.version;
        let client = &mut self.clients[local as usize];
        let mut repeated = false;
        if let Some(id) = publish.packet_id {
            let kind = if publish.qos == QoS::ExactlyOnce {
                if let Some(traffic) = &mut client.traffic {
                    repeated = traffic.unreleased.contains(&id);
                    if !repeated {
                        traffic.unreleased.push(id);
                    }
                }
                PacketType::PubRec
            } else {
                PacketType::PubAck
            };
            packets::ack(&mut self.buffers.of(&mut client.out).pending, version, kind, id);
            self.mark_dirty(local);
        }
        if repeated {
            // The same QoS 2 handshake again: not a new message. [MQTT-4.3.3-10]
            return;
        }
        self.counters.delivered_bytes += publish.payload.len() as u64;
        self.counters.retained += u64::from(publish.retain);
        self.note_arrival(plan, local, publish);
    }

    fn note_arrival(&mut self, plan: &Plan, local: u32, publish: &Publish<'_>) {
        let client = &mut self.clients[local as usize];
        let population = usize::from(client.population);
        let expect = plan.populations[population].expect;
        let stamp = if expect == Expect::None { None } else { Stamp::read(publish.payload) };
        let Some(stamp) = stamp else {
            self.counters.delivered += 1;
            return;
        };
        let manner = Manner {
            epoch: client.traffic.as_ref().map_or(0, |t| t.epoch),
            may_repeat: publish.dup && publish.qos == QoS::AtLeastOnce && client.cycle > 1,
        };
        match self.arrive(plan, local, expect, &stamp, publish.retain, manner) {
            Arrival::Duplicate => {
                self.counters.duplicates += 1;
                return;
            }
            Arrival::Redelivered => {
                self.counters.redelivered += 1;
                return;
            }
            Arrival::New | Arrival::Late => {}
        }
        self.counters.delivered += 1;
        self.group += 1;
        if stamp.publisher & WILL != 0 {
            self.counters.wills += 1;
            return;
        }
        self.measure_arrival(plan, &stamp, publish.retain);
        if let Expect::Peer(peer) = expect {
            // Pairs share a worker: the publisher is at the same place of its population.
            let publisher = self.first[usize::from(peer)] + local - self.first[population];
            if let Some(traffic) = &mut self.clients[publisher as usize].traffic {
                traffic.delivered += 1;
            }
            self.mark_pump(publisher);
        }
    }

    /// What a stamped message is to the one that gets it.
    #[inline]
    fn arrive(
        &mut self,
        plan: &Plan,
        local: u32,
        expect: Expect,
        stamp: &Stamp,
        retain: bool,
        manner: Manner,
    ) -> Arrival {
        if let Expect::One(_) = expect {
            self.ones[local as usize] += 1;
            return Arrival::New;
        }
        let Some(traffic) = &mut self.clients[local as usize].traffic else { return Arrival::New };
        match &mut traffic.heard {
            Heard::Flows(flows) => flows.arrive(stamp.key(), stamp.seq, manner),
            Heard::Last(last) => {
                let Some(&group) = self.member_of.get(&local) else { return Arrival::New };
                let group = &mut self.groups[group];
                if !group.streams.entry(stamp.key()).or_default().insert(stamp.seq) {
                    let counter = if manner.may_repeat {
                        &mut group.redelivered
                    } else {
                        &mut group.duplicates
                    };
                    *counter += 1;
                    return if manner.may_repeat {
                        Arrival::Redelivered
                    } else {
                        Arrival::Duplicate
                    };
                }
                let last = last.entry(stamp.key()).or_insert(stamp.seq);
                group.out_of_order += u64::from(stamp.seq < *last);
                *last = stamp.seq.max(*last);
                Arrival::New
            }
            Heard::Retained(heard) => {
                let Expect::Retained(p) = expect else { return Arrival::New };
                let publish = plan.populations[usize::from(p)].publish.as_ref();
                if !retain || stamp.publisher >> 24 != u32::from(p) {
                    return Arrival::New;
                }
                let numbered = publish.is_some_and(|p| p.topic.is_numbered());
                let index = if numbered { stamp.seq } else { stamp.stream };
                heard.last_ns = self.now;
                if heard.arrive(stamp.publisher, index, stamp.seq) {
                    Arrival::New
                } else {
                    Arrival::Duplicate
                }
            }
        }
    }

    #[inline]
    fn measure_arrival(&mut self, plan: &Plan, stamp: &Stamp, retain: bool) {
        if retain {
            // It was sent long ago.
            return;
        }
        let intended = stamp.intended_ns.wrapping_sub(plan.clock_offset_ns as u64);
        let took = self.now.saturating_sub(intended);
        self.latencies.record(Metric::Delivery, took);
        if let Some(lag) = stamp.lag_ns.filter(|_| self.open_loop) {
            self.latencies.record(Metric::DeliveryRaw, took.saturating_sub(lag));
        }
    }

    fn on_answer(&mut self, plan: &Plan, local: u32, answer: Answer) {
        let version = self.population(plan, local).connect.version;
        let client = &mut self.clients[local as usize];
        let Some(traffic) = &mut client.traffic else {
            self.counters.protocol_errors += 1;
            return;
        };
        let id = answer.packet_id;
        let refused = answer.code >= 0x80;
        let (moved, reply) = match answer.kind {
            PacketType::PubAck => (traffic.advance(id, Stage::PubAck, Stage::Done), None),
            PacketType::PubRec if refused => {
                (traffic.advance(id, Stage::PubRec, Stage::Done), None)
            }
            PacketType::PubRec => {
                let moved = traffic.advance(id, Stage::PubRec, Stage::PubComp);
                (moved, Some(PacketType::PubRel))
            }
            PacketType::PubComp => (traffic.advance(id, Stage::PubComp, Stage::Done), None),
            _ => {
                traffic.unreleased.retain(|&open| open != id);
                packets::ack(
                    &mut self.buffers.of(&mut client.out).pending,
                    version,
                    PacketType::PubComp,
                    id,
                );
                self.mark_dirty(local);
                return;
            }
        };
        if let Some(kind) = reply {
            packets::ack(&mut self.buffers.of(&mut client.out).pending, version, kind, id);
            self.mark_dirty(local);
        }
        let Some(handshake) = moved else {
            self.counters.protocol_errors += 1;
            return;
        };
        self.counters.refused_messages += u64::from(refused);
        if reply.is_none() {
            self.counters.acked += 1;
            let since = |ns: u64| self.now.saturating_sub(ns);
            let (took, raw) = (since(handshake.intended_ns), since(handshake.sent_ns));
            self.latencies.record(Metric::Ack, took);
            if self.open_loop {
                self.latencies.record(Metric::AckRaw, raw);
            }
            self.mark_pump(local);
        }
    }

    /// Notes that a client may publish.
    pub(crate) fn mark_pump(&mut self, local: u32) {
        let client = &mut self.clients[local as usize];
        if !client.has(PUMP) {
            client.set(PUMP);
            self.pump.push(local);
        }
    }

    /// A stage with traffic begins: the populations that `which` chooses publish.
    pub(crate) fn start_publishers(&mut self, which: impl Fn(u16, &Population) -> bool) {
        let plan = self.plan.clone();
        self.had_traffic = true;
        self.counters.publishers_done = 0;
        for (p, population) in plan.populations.iter().enumerate() {
            let chosen = population.publish.as_ref().filter(|_| which(p as u16, population));
            self.publishing[p] = chosen.is_some();
            self.schedules[p] = chosen.and_then(|publish| self.schedule(p, population, publish));
        }
        for local in 0..self.clients.len() as u32 {
            let client = &mut self.clients[local as usize];
            if !self.publishing[usize::from(client.population)] {
                continue;
            }
            if let Some(traffic) = &mut client.traffic {
                traffic.sent_before = traffic.sent;
            }
            self.mark_pump(local);
        }
    }

    /// The open-loop schedule of a population, if it has one and this worker has a part in it.
    fn schedule(
        &self,
        p: usize,
        population: &Population,
        publish: &PublishPlan,
    ) -> Option<Schedule> {
        let workers = self.plan.workers;
        let of = Publishers {
            count: share(population.count, workers, self.index),
            total: population.count,
            index: self.index as u32,
            workers: workers as u32,
        };
        let interval = publish.pace.interval()?.as_nanos() as u64;
        if of.count == 0 {
            return None;
        }
        let seed = crate::template::mix(self.plan.seed ^ key(of.index, p as u32));
        Some(match publish.pace {
            Pace::Poisson { .. } => Schedule::poisson(self.now, interval, of, seed),
            _ => Schedule::fixed(self.now, interval, of),
        })
    }

    /// Tells the other workers what this turn did to the group's window, and lets the publishers
    /// of a group go on.
    pub(crate) fn settle_group(&mut self) {
        let plan = self.plan.clone();
        let is_group = |p: &PublishPlan| matches!(p.pace, Pace::Group { .. });
        for (p, population) in plan.populations.iter().enumerate() {
            if !population.publish.as_ref().is_some_and(is_group) {
                continue;
            }
            let delivered = std::mem::take(&mut self.group);
            if delivered > 0 {
                self.shared.group_delivered.fetch_add(delivered, Ordering::Relaxed);
            }
            if self.publishes(p as u16) {
                let count = self.share_of(population);
                (0..count).for_each(|nth| self.mark_pump(self.first[p] + nth));
            }
        }
    }

    /// Lets publishers fill their windows.
    pub(crate) fn pump_all(&mut self) {
        if self.pump.is_empty() {
            return;
        }
        let plan = self.plan.clone();
        let mut pump = std::mem::take(&mut self.pump);
        for local in pump.drain(..) {
            let client = &mut self.clients[local as usize];
            client.unset(PUMP);
            let population = client.population;
            if !self.publishes(population) {
                continue;
            }
            let Some(publish) = &plan.populations[usize::from(population)].publish else {
                continue;
            };
            while self.may_publish(local, publish) {
                self.publish(&plan, local, publish, self.now, self.now);
            }
        }
        // What `publish` marked meanwhile waits for the next turn.
        pump.append(&mut self.pump);
        self.pump = pump;
    }

    fn may_publish(&self, local: u32, publish: &PublishPlan) -> bool {
        let client = &self.clients[local as usize];
        let Some(traffic) = &client.traffic else { return false };
        if client.state != State::Live
            || reached_limit(traffic, publish)
            || traffic.inflight.len() >= INFLIGHT_MAX
        {
            return false;
        }
        match publish.pace {
            Pace::Acked { window } => traffic.sent - traffic.acked < window,
            Pace::Peer { window, .. } => {
                traffic.sent.saturating_sub(traffic.acked.min(traffic.delivered)) < window
            }
            Pace::Group { window, fan_out } => {
                let sent = self.shared.group_sent.load(Ordering::Relaxed) * u64::from(fan_out);
                let delivered = self.shared.group_delivered.load(Ordering::Relaxed);
                sent < delivered + u64::from(window) * u64::from(fan_out)
                    && traffic.sent - traffic.acked < window
            }
            Pace::Every { .. } | Pace::Poisson { .. } => false,
        }
    }

    /// Open loop: this message is due.
    pub(crate) fn send_paced(
        &mut self,
        plan: &Plan,
        local: u32,
        publish: &PublishPlan,
        intended_ns: u64,
        sent_ns: u64,
    ) {
        let client = &self.clients[local as usize];
        let Some(traffic) = &client.traffic else { return };
        if reached_limit(traffic, publish) {
            return;
        }
        self.counters.due += 1;
        let backlog = self.buffers.backlog(client.out);
        let full = traffic.inflight.len() >= INFLIGHT_MAX || backlog > BACKLOG_MAX;
        if client.state != State::Live || full {
            self.counters.unsent += 1;
            if full {
                self.fault("a message was not sent: the broker takes none from this client");
            }
            return;
        }
        self.latencies.record(Metric::Lag, sent_ns.saturating_sub(intended_ns));
        self.publish(plan, local, publish, intended_ns, sent_ns);
    }

    fn publish(
        &mut self,
        plan: &Plan,
        local: u32,
        publish: &PublishPlan,
        intended_ns: u64,
        sent_ns: u64,
    ) {
        let number = if publish.topic.varies() { u64::from(self.number(local)) } else { 0 };
        let Some(traffic) = &mut self.clients[local as usize].traffic else { return };
        let message = traffic.sent;
        let seq = if publish.topic.streams() == 1 {
            message
        } else {
            let stream = publish.topic.stream(number, u64::from(message));
            match traffic.by_stream.get_mut(stream as usize) {
                Some(count) => {
                    *count += 1;
                    *count - 1
                }
                None => publish.topic.sent_on(stream, number, message),
            }
        };
        let stage = if publish.qos == QoS::ExactlyOnce { Stage::PubRec } else { Stage::PubAck };
        let packet_id = PacketId::new(1).expect("1 is a packet identifier");
        let mut handshake = Handshake { intended_ns, sent_ns, message, seq, packet_id, stage };
        traffic.sent += 1;
        if publish.qos == QoS::AtMostOnce {
            traffic.acked += 1;
        } else {
            handshake.packet_id = traffic.begin(handshake);
        }
        self.counters.publishers_done += u64::from(reached_limit(traffic, publish));
        self.counters.sent_bytes += self.write_publish(plan, local, publish, &handshake, false);
        self.counters.sent += 1;
        if matches!(publish.pace, Pace::Group { .. }) {
            self.shared.group_sent.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Appends PUBLISH to the client's pending bytes and says how many it has.
    fn write_publish(
        &mut self,
        plan: &Plan,
        local: u32,
        publish: &PublishPlan,
        handshake: &Handshake,
        dup: bool,
    ) -> u64 {
        let publisher = self.publisher(local);
        let number = u64::from(self.number(local));
        let population = self.population(plan, local);
        let message = u64::from(handshake.message);
        if publish.topic.varies() {
            self.text.clear();
            if publish.topic.has_names() {
                self.text = rendered(&publish.topic, population, number as u32, message);
            } else {
                let of = Context { number, message, ..Context::default() };
                publish.topic.render_to(&mut self.text, &of);
            }
        }
        let size = publish.size.draw(plan.seed ^ key(publisher, handshake.message));
        let payload = &mut self.payload[..size];
        if publish.stamped() {
            let stamp = Stamp {
                publisher,
                stream: publish.topic.stream(number, message),
                seq: handshake.seq,
                intended_ns: handshake.intended_ns.wrapping_add(plan.clock_offset_ns as u64),
                lag_ns: Some(handshake.sent_ns.saturating_sub(handshake.intended_ns)),
            };
            stamp.write(payload);
        }
        let client = &mut self.clients[local as usize];
        let Some(traffic) = &client.traffic else { return 0 };
        let head = Head {
            topic: if publish.topic.varies() { &self.text } else { &traffic.topic },
            qos: publish.qos,
            retain: publish.retain,
            dup,
            packet_id: (publish.qos != QoS::AtMostOnce).then_some(handshake.packet_id),
        };
        let out = &mut self.buffers.of(&mut client.out).pending;
        let before = out.len();
        packets::publish(out, population.connect.version, &head, payload);
        let len = (out.len() - before) as u64;
        self.mark_dirty(local);
        len
    }
}

/// Whether a publisher has sent all it was to send in this stage.
fn reached_limit(traffic: &Traffic, publish: &PublishPlan) -> bool {
    publish.limit.is_some_and(|limit| traffic.sent - traffic.sent_before >= limit)
}

/// PUBACK, PUBREC, PUBREL or PUBCOMP as it came.
#[derive(Clone, Copy)]
struct Answer {
    kind: PacketType,
    packet_id: ringmain_mqtt::PacketId,
    code: u8,
}
