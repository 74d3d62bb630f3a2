//! What a client says and hears once its socket is open.

use std::io;

use ringmain_mqtt::{PacketId, PacketType, Publish, QoS};

use crate::account::{GroupHeard, rendered};
use crate::client::{HAS_SESSION, Heard, PINGED, Stage, State, WAS_READY};
use crate::packets::{self, Incoming};
use crate::plan::{Behaviour, End, Expect, Plan};
use crate::stamp::{Arrival, Manner, Stamp, WILL};
use crate::stats::{ATTEMPTS_TOLD, Metric};
use crate::worker::Worker;

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
            Incoming::ConnAck { code, session_present, receive_maximum } => {
                if let Some(traffic) = &mut self.clients[local as usize].traffic {
                    traffic.receive_maximum = receive_maximum;
                }
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
        // PUBCOMP may say "packet identifier not found" to a PUBREL that was sent again after the
        // first one had been answered into the void. [MQTT-4.3.3-11]
        let refused = answer.code >= 0x80
            && !(answer.kind == PacketType::PubComp && client.cycle > 1 && answer.code == 0x92);
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
}

/// PUBACK, PUBREC, PUBREL or PUBCOMP as it came.
#[derive(Clone, Copy)]
struct Answer {
    kind: PacketType,
    packet_id: ringmain_mqtt::PacketId,
    code: u8,
}
