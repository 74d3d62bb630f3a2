//! What a client says and hears once its socket is open.

use std::io;
use std::sync::atomic::Ordering;

use ringmain_mqtt::{PacketType, Publish, QoS};

use crate::client::{INFLIGHT_MAX, PINGED, PUMP, Stage, State, Traffic, WAS_READY};
use crate::packets::{self, Incoming};
use crate::plan::{ClientIds, Expect, Pace, Plan, PublishPlan};
use crate::stamp::{Arrival, Stamp};
use crate::stats::Phase;
use crate::worker::{Worker, global};

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
            Incoming::ConnAck { code } => return self.on_connack(plan, local, code),
            Incoming::SubAck { code } => return self.on_suback(local, code),
            Incoming::PingResp => self.clients[local as usize].unset(PINGED),
            Incoming::Disconnect { code } => {
                self.blame(local, &format!("DISCONNECT 0x{code:02X} from the broker"));
            }
            Incoming::Other => {}
        }
        Ok(())
    }

    fn on_connack(&mut self, plan: &Plan, local: u32, code: u8) -> io::Result<()> {
        if code != 0 {
            self.blame(local, &format!("CONNACK 0x{code:02X}"));
            return Ok(());
        }
        let client = &mut self.clients[local as usize];
        let took = self.now.saturating_sub(client.since_ns);
        let _ = self.latencies.connect.record(took);
        let population = &plan.populations[usize::from(client.population)];
        let Some(subscribe) = &population.subscribe else { return self.ready(local) };
        client.state = State::Subscribing;
        client.since_ns = self.now;
        let number = self.client_number(plan, local);
        let id = match &population.connect.ids {
            ClientIds::Template(t) => t.render(number, ""),
            ClientIds::List(ids) => ids[number as usize % ids.len()].clone(),
        };
        self.text.clear();
        subscribe.filter.render_into(&mut self.text, number, &id);
        let out = &mut self.buffers.of(&mut self.clients[local as usize].out).pending;
        packets::subscribe(out, population.connect.version, subscribe, &self.text);
        self.mark_dirty(local);
        Ok(())
    }

    fn on_suback(&mut self, local: u32, code: u8) -> io::Result<()> {
        if code >= 0x80 {
            self.blame(local, &format!("SUBACK 0x{code:02X}"));
            return self.begin_close(local);
        }
        let client = &self.clients[local as usize];
        if client.state != State::Subscribing {
            self.counters.protocol_errors += 1;
            return Ok(());
        }
        let _ = self.latencies.subscribe.record(self.now.saturating_sub(client.since_ns));
        self.ready(local)
    }

    fn ready(&mut self, local: u32) -> io::Result<()> {
        let client = &mut self.clients[local as usize];
        client.state = State::Live;
        client.set(WAS_READY);
        self.opening -= 1;
        self.counters.ready += 1;
        self.counters.live += 1;
        if self.plan.is_churn() {
            return self.begin_close(local);
        }
        if self.phase == Phase::Traffic {
            self.mark_pump(local);
        }
        Ok(())
    }

    fn broken_protocol(&mut self, local: u32, what: &str) -> io::Result<()> {
        self.counters.protocol_errors += 1;
        self.blame(local, &format!("the broker broke the protocol: {what}"));
        self.begin_close(local)
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
        self.note_arrival(plan, local, publish.payload);
    }

    fn note_arrival(&mut self, plan: &Plan, local: u32, payload: &[u8]) {
        let client = &mut self.clients[local as usize];
        let expect = plan.populations[usize::from(client.population)].expect;
        let stamp = if expect == Expect::None { None } else { Stamp::read(payload) };
        let (Some(stamp), Some(traffic)) = (stamp, &mut client.traffic) else {
            self.counters.delivered += 1;
            return;
        };
        if traffic.flows.arrive(stamp.publisher, stamp.seq) == Arrival::Duplicate {
            self.counters.duplicates += 1;
            return;
        }
        self.counters.delivered += 1;
        self.group.0 += 1;
        let _ = self.latencies.delivery.record(self.now.saturating_sub(stamp.intended_ns));
        if let Expect::Peer(peer) = expect {
            // Pairs share a worker: the publisher is at the same place of its population.
            let nth = local - self.first[usize::from(self.clients[local as usize].population)];
            let publisher = self.first[usize::from(peer)] + nth;
            if let Some(traffic) = &mut self.clients[publisher as usize].traffic {
                traffic.delivered += 1;
            }
            self.mark_pump(publisher);
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
                (Some(0), Some(PacketType::PubComp))
            }
        };
        if let Some(kind) = reply {
            packets::ack(&mut self.buffers.of(&mut client.out).pending, version, kind, id);
            self.mark_dirty(local);
        }
        let Some(intended_ns) = moved else {
            self.counters.protocol_errors += 1;
            return;
        };
        self.counters.refused_messages += u64::from(refused);
        if reply.is_none() {
            self.counters.acked += 1;
            let _ = self.latencies.ack.record(self.now.saturating_sub(intended_ns));
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

    /// Lets all publishers look whether they may publish.
    pub(crate) fn start_publishers(&mut self) {
        let plan = self.plan.clone();
        for local in 0..self.clients.len() as u32 {
            if self.population(&plan, local).publish.is_some() {
                self.mark_pump(local);
            }
        }
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
            let (delivered, _) = std::mem::take(&mut self.group);
            self.shared.group_delivered.fetch_add(delivered, Ordering::Relaxed);
            if self.phase == Phase::Traffic {
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
            self.clients[local as usize].unset(PUMP);
            if self.phase != Phase::Traffic {
                continue;
            }
            let Some(publish) = &self.population(&plan, local).publish else { continue };
            while self.may_publish(local, publish) {
                self.publish(local, publish, self.now);
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
            || publish.limit.is_some_and(|limit| traffic.sent >= limit)
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
            Pace::Every { .. } => false,
        }
    }

    /// Open loop: this message is due.
    pub(crate) fn send_paced(&mut self, local: u32, publish: &PublishPlan, intended_ns: u64) {
        let client = &self.clients[local as usize];
        let Some(traffic) = &client.traffic else { return };
        if client.state != State::Live || publish.limit.is_some_and(|l| traffic.sent >= l) {
            return;
        }
        if traffic.inflight.len() >= INFLIGHT_MAX {
            self.fault("a message was not sent: 32,768 handshakes are open");
            return;
        }
        self.publish(local, publish, intended_ns);
    }

    fn publish(&mut self, local: u32, publish: &PublishPlan, intended_ns: u64) {
        let population = self.clients[local as usize].population;
        let publisher = global(&self.plan, population, self.number(local));
        let version = self.plan.populations[usize::from(population)].connect.version;
        let client = &mut self.clients[local as usize];
        let Some(traffic) = &mut client.traffic else { return };
        let payload = &mut self.payload[..publish.size];
        if publish.stamped() {
            Stamp { publisher, seq: traffic.sent, intended_ns }.write(payload);
        }
        let packet_id = match publish.qos {
            QoS::AtMostOnce => None,
            QoS::AtLeastOnce => Some(traffic.begin(Stage::PubAck, intended_ns)),
            QoS::ExactlyOnce => Some(traffic.begin(Stage::PubRec, intended_ns)),
        };
        traffic.sent += 1;
        if packet_id.is_none() {
            traffic.acked += 1;
        }
        self.counters.publishers_done += u64::from(publish.limit == Some(traffic.sent));
        let out = &mut self.buffers.of(&mut client.out).pending;
        let before = out.len();
        let Traffic { topic, .. } = &**traffic;
        packets::publish(out, version, topic, publish.qos, publish.retain, packet_id, payload);
        self.counters.sent_bytes += (out.len() - before) as u64;
        self.counters.sent += 1;
        if matches!(publish.pace, Pace::Group { .. }) {
            self.shared.group_sent.fetch_add(1, Ordering::Relaxed);
        }
        self.mark_dirty(local);
    }
}

/// PUBACK, PUBREC, PUBREL or PUBCOMP as it came.
#[derive(Clone, Copy)]
struct Answer {
    kind: PacketType,
    packet_id: ringmain_mqtt::PacketId,
    code: u8,
}
