//! How clients publish: when they may, what they send, and what they send again.

use std::sync::atomic::Ordering;

use ringmain_mqtt::{PacketId, PacketType, QoS};

use crate::account::rendered;
use crate::client::{Handshake, PUMP, Stage, State, Traffic};
use crate::pace::{Publishers, Schedule};
use crate::packets::{self, Head};
use crate::plan::{Pace, Plan, Population, PublishPlan};
use crate::stamp::{Stamp, key};
use crate::stats::Metric;
use crate::template::Context;
use crate::worker::{Mode, Worker, share};

/// Bytes that may wait behind a connection's send, in an open loop. A broker that reads so slowly
/// gets another load than the one asked for, and the generator must not eat the memory.
const BACKLOG_MAX: usize = 16 << 20;
/// Messages of one client that may wait for the broker's Receive Maximum: as above.
const WAITING_MAX: usize = 65_536;

impl Worker {
    /// Notes that a client may publish.
    pub(crate) fn mark_pump(&mut self, local: u32) {
        let client = &mut self.clients[local as usize];
        if !client.has(PUMP) {
            client.set(PUMP);
            self.pump.push(local);
        }
    }

    /// Sends again what the session still owes the broker, in order. [MQTT-4.4.0-1]
    pub(crate) fn resend(&mut self, plan: &Plan, local: u32) {
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
            let Some(publish) = &plan.populations[usize::from(population)].publish else {
                continue;
            };
            self.send_waiting(&plan, local, publish);
            if !self.publishes(population) {
                continue;
            }
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
        if client.state != State::Live || reached_limit(traffic, publish) || !traffic.has_quota() {
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
        let backlog = self.buffers.backlog(self.clients[local as usize].out);
        let live = self.clients[local as usize].state == State::Live;
        // Who is sent away by the plan has nothing to send.
        let sent_away = !live && self.is_churned(local);
        let Some(traffic) = &mut self.clients[local as usize].traffic else { return };
        if reached_limit(traffic, publish) || sent_away {
            return;
        }
        self.counters.due += 1;
        self.latencies.record(Metric::Lag, sent_ns.saturating_sub(intended_ns));
        if !live || traffic.waiting.len() >= WAITING_MAX || backlog > BACKLOG_MAX {
            self.counters.unsent += 1;
            if live {
                self.fault("a message was not sent: the broker takes none from this client");
            }
        } else if traffic.has_quota() && traffic.waiting.is_empty() {
            self.publish(plan, local, publish, intended_ns, sent_ns);
        } else {
            traffic.waiting.push_back(intended_ns);
        }
    }

    /// Sends what was due and had to wait for the broker, as far as it lets us.
    fn send_waiting(&mut self, plan: &Plan, local: u32, publish: &PublishPlan) {
        loop {
            let client = &mut self.clients[local as usize];
            let Some(traffic) = client.traffic.as_mut().filter(|t| t.has_quota()) else { return };
            if client.state != State::Live {
                return;
            }
            let Some(intended_ns) = traffic.waiting.pop_front() else { return };
            self.publish(plan, local, publish, intended_ns, self.now);
        }
    }

    /// Whether the client belongs to the population that comes and goes.
    fn is_churned(&self, local: u32) -> bool {
        let mine = self.clients[local as usize].population;
        matches!(self.mode, Mode::Churn { population, .. } if population == mine)
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
    let begun = traffic.sent - traffic.sent_before + traffic.waiting.len() as u32;
    publish.limit.is_some_and(|limit| begun >= limit)
}
