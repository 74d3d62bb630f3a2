//! Simulated clients: real MQTT client state machines with whims.

mod session;

use std::collections::{HashMap, VecDeque};

use crate::rng::Rng;
use crate::scenario::Scenario;
use crate::wire::{ConnAck, Connect, Filter, Publish, ToClient, ToServer, Will};
use crate::world::{ClientEnd, NetId};
pub use session::{OutState, Session};

/// What a device wants done.
#[derive(Debug)]
pub enum Act {
    /// Open a connection to the backlog of a shard and send this.
    Open {
        /// The shard that accepts.
        shard: usize,
        /// The first packet.
        connect: Box<Connect>,
    },
    /// Send a packet.
    Send(NetId, ToServer),
    /// End a connection.
    End(NetId, ClientEnd),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Connecting,
    Up,
    Over,
}

#[derive(Debug)]
struct Line {
    net: NetId,
    state: State,
    connect: Box<Connect>,
    server: ConnAck,
    pubacks: VecDeque<(u16, u8)>,
    pubrecs: VecDeque<(u16, u8)>,
    pubcomps: Vec<u16>,
    aliases: HashMap<String, u16>,
    last_sent_ms: u64,
}

/// How a device behaves towards the server, for the whole run.
#[derive(Clone, Debug)]
struct Temper {
    slow_reader: bool,
    ack_chance: u32,
}

/// A client.
#[derive(Debug)]
pub struct Device {
    /// Its index.
    pub index: usize,
    /// Client Identifier.
    pub client_id: String,
    /// Sees all wills, and never goes.
    pub watcher: bool,
    /// Acknowledges everything and starts nothing.
    pub calm: bool,
    lines: Vec<Line>,
    /// The line that carries the session, by position in `lines`.
    current: Option<NetId>,
    temper: Temper,
    /// The client's half of the session.
    pub session: Session,
    filters: Vec<String>,
    goodbye_ms: u64,
    /// Half-open: not heard of before this time.
    silent_until_ms: u64,
}

/// Shared by all devices: message numbers.
#[derive(Debug, Default)]
pub struct Numbers {
    next: u64,
}

impl Numbers {
    fn take(&mut self) -> u64 {
        self.next += 1;
        self.next
    }
}

impl Device {
    /// The client id of a device.
    #[must_use]
    pub fn client_id(index: usize) -> String {
        format!("c{index}")
    }

    /// Device `index`; its temper is drawn from `rng`.
    #[must_use]
    pub fn new(index: usize, watcher: bool, scenario: &Scenario, rng: &mut Rng) -> Self {
        let ack_chance = match rng.weighted(&[
            1000 - scenario.slow_acks - scenario.never_acks,
            scenario.slow_acks,
            scenario.never_acks,
        ]) {
            0 => 1000,
            1 => 150,
            _ => 0,
        };
        let slow_reader = rng.chance(scenario.slow_readers);
        Self {
            index,
            client_id: Self::client_id(index),
            watcher,
            calm: watcher,
            lines: Vec::new(),
            current: None,
            temper: if watcher {
                Temper { slow_reader: false, ack_chance: 1000 }
            } else {
                Temper { slow_reader, ack_chance }
            },
            session: Session::default(),
            filters: Vec::new(),
            goodbye_ms: 0,
            silent_until_ms: 0,
        }
    }

    /// The connection that was asked for exists.
    pub fn opened(&mut self, net: NetId, connect: Box<Connect>, now_ms: u64) {
        self.lines.push(Line {
            net,
            state: State::Connecting,
            connect,
            server: ConnAck::default(),
            pubacks: VecDeque::new(),
            pubrecs: VecDeque::new(),
            pubcomps: Vec::new(),
            aliases: HashMap::new(),
            last_sent_ms: now_ms,
        });
    }

    /// Connections to read from.
    pub fn nets(&self) -> impl Iterator<Item = NetId> + '_ {
        self.lines.iter().map(|l| l.net)
    }

    /// Bytes that the device reads at once.
    pub fn appetite(&self, rng: &mut Rng) -> u64 {
        match (self.temper.slow_reader && !self.calm, rng.below(3)) {
            (true, 0) => rng.range(1, 40),
            (true, _) => 0,
            (false, 0) => rng.range(1, 200),
            (false, _) => u64::MAX,
        }
    }

    /// Whether it has a session on a live connection.
    #[must_use]
    pub fn up(&self) -> bool {
        self.current.is_some()
    }

    /// Connected, with nothing left to say.
    #[must_use]
    pub fn satisfied(&self) -> bool {
        self.session.idle()
            && self.line().is_some_and(|l| {
                l.pubacks.is_empty() && l.pubrecs.is_empty() && l.pubcomps.is_empty()
            })
    }

    /// What it still waits for; for messages.
    #[must_use]
    pub fn wants(&self) -> String {
        format!("up {} {}", self.up(), self.session.describe())
    }

    fn line(&self) -> Option<&Line> {
        let net = self.current?;
        self.lines.iter().find(|l| l.net == net)
    }

    fn line_mut(&mut self) -> Option<&mut Line> {
        let net = self.current?;
        self.lines.iter_mut().find(|l| l.net == net)
    }

    fn connecting(&self) -> bool {
        self.lines.iter().any(|l| l.state == State::Connecting)
    }

    /// The stream of a connection ended.
    pub fn on_eof(&mut self, net: NetId, now_ms: u64) -> Vec<Act> {
        self.lines.retain(|l| l.net != net);
        if self.current != Some(net) {
            return Vec::new();
        }
        // Others that are still up were not listened to: start afresh.
        self.current = None;
        self.goodbye_ms = now_ms;
        self.drop_lines(ClientEnd::Rst)
    }

    fn drop_lines(&mut self, end: ClientEnd) -> Vec<Act> {
        self.lines.drain(..).map(|l| Act::End(l.net, end)).collect()
    }

    /// A packet arrived.
    pub fn on_packet(&mut self, net: NetId, packet: &ToClient, rng: &mut Rng) -> Vec<Act> {
        let Some(line) = self.lines.iter_mut().find(|l| l.net == net) else { return Vec::new() };
        if let ToClient::ConnAck(ack) = packet {
            if ack.code != 0 {
                line.state = State::Over;
                return Vec::new();
            }
            line.state = State::Up;
            line.server = ack.clone();
            self.current = Some(net);
            return self.resume(net, ack.session_present);
        }
        if self.current != Some(net) {
            return Vec::new();
        }
        match packet {
            ToClient::Publish(p) => {
                self.on_publish(p, rng);
                Vec::new()
            }
            ToClient::PubAck { pid, .. } => {
                self.session.acked(*pid);
                Vec::new()
            }
            ToClient::PubRec { pid, reason } => match self.session.received(*pid, *reason) {
                true => vec![Act::Send(net, ToServer::PubRel { pid: *pid })],
                false => Vec::new(),
            },
            ToClient::PubComp { pid, .. } => {
                self.session.acked(*pid);
                Vec::new()
            }
            ToClient::PubRel { pid, .. } => {
                self.session.in_qos2.remove(pid);
                if let Some(line) = self.line_mut() {
                    line.pubcomps.push(*pid);
                }
                Vec::new()
            }
            ToClient::SubAck { pid, .. } | ToClient::UnsubAck { pid, .. } => {
                self.session.requests.retain(|p| p != pid);
                Vec::new()
            }
            _ => Vec::new(),
        }
    }

    fn resume(&mut self, net: NetId, present: bool) -> Vec<Act> {
        self.session.requests.clear();
        if !present {
            self.session = Session::new(self.session.refuse);
            return Vec::new();
        }
        let mut acts = Vec::new();
        for out in &mut self.session.out {
            let packet = match out.state {
                OutState::Published => {
                    out.publish.dup = true;
                    out.publish.alias = None;
                    ToServer::Publish(out.publish.clone())
                }
                OutState::Released => ToServer::PubRel { pid: out.publish.pid },
            };
            acts.push(Act::Send(net, packet));
        }
        acts
    }

    fn on_publish(&mut self, p: &Publish, rng: &mut Rng) {
        let refuse = self.session.refuse;
        let Some(net) = self.current else { return };
        let Some(line) = self.lines.iter_mut().find(|l| l.net == net) else { return };
        let v5 = line.connect.version == 5;
        let reason = if v5 && rng.chance(refuse) { 0x80 } else { 0 };
        match p.qos {
            1 => line.pubacks.push_back((p.pid, reason)),
            2 => {
                let known = self.session.in_qos2.contains(&p.pid);
                let reason = if known { 0 } else { reason };
                if reason == 0 {
                    self.session.in_qos2.insert(p.pid);
                }
                line.pubrecs.push_back((p.pid, reason));
            }
            _ => {}
        }
    }

    /// Sends acknowledgements that are due, each kind in order. [MQTT-4.6.0-2] [MQTT-4.6.0-3]
    pub fn acknowledge(&mut self, rng: &mut Rng) -> Vec<Act> {
        let calm = self.calm;
        let chance = self.temper.ack_chance;
        let mut acts = Vec::new();
        let Some(line) = self.line_mut() else { return acts };
        let net = line.net;
        while !(line.pubacks.is_empty() && line.pubrecs.is_empty() && line.pubcomps.is_empty()) {
            if !calm && !rng.chance(chance) {
                break;
            }
            match rng.below(3) {
                0 => acts.extend(
                    line.pubacks
                        .pop_front()
                        .map(|(pid, reason)| Act::Send(net, ToServer::PubAck { pid, reason })),
                ),
                1 => acts.extend(
                    line.pubrecs
                        .pop_front()
                        .map(|(pid, reason)| Act::Send(net, ToServer::PubRec { pid, reason })),
                ),
                _ if !line.pubcomps.is_empty() => {
                    let pid = line.pubcomps.remove(rng.below(line.pubcomps.len()));
                    acts.push(Act::Send(net, ToServer::PubComp { pid }));
                }
                _ => {}
            }
        }
        acts
    }

    /// Keeps its connection alive, and does something if it likes.
    pub fn act(
        &mut self,
        scenario: &Scenario,
        numbers: &mut Numbers,
        rng: &mut Rng,
        now_ms: u64,
    ) -> Vec<Act> {
        if self.up() {
            let mut acts = self.acknowledge(rng);
            self.ping_if_due(&mut acts, now_ms);
            if !self.calm {
                acts.extend(self.whim(scenario, numbers, rng, now_ms));
            }
            if !acts.is_empty()
                && let Some(line) = self.line_mut()
            {
                line.last_sent_ms = now_ms;
            }
            return acts;
        }
        if self.connecting() || now_ms < self.silent_until_ms {
            return Vec::new();
        }
        if !self.calm && now_ms < self.goodbye_ms + rng.range(0, 40) && rng.chance(900) {
            return Vec::new();
        }
        if !self.calm && rng.chance(600) {
            return Vec::new();
        }
        let n = if !self.calm && rng.chance(scenario.acts.race) { 3 } else { 1 };
        (0..n).map(|_| self.connect(scenario, numbers, rng)).collect()
    }

    fn ping_if_due(&mut self, acts: &mut Vec<Act>, now_ms: u64) {
        let Some(line) = self.line() else { return };
        let keep_alive_ms = 1000 * u64::from(line.connect.keep_alive_s);
        if acts.is_empty() && keep_alive_ms > 0 && now_ms > line.last_sent_ms + keep_alive_ms / 2 {
            acts.push(Act::Send(line.net, ToServer::PingReq));
        }
    }

    /// When a ping is due, in ms: time must not leap over it.
    #[must_use]
    pub fn next_ping_ms(&self) -> u64 {
        match self.line() {
            Some(l) if l.connect.keep_alive_s > 0 => {
                l.last_sent_ms + 500 * u64::from(l.connect.keep_alive_s) + 1
            }
            _ => u64::MAX,
        }
    }

    fn connect(&mut self, s: &Scenario, numbers: &mut Numbers, rng: &mut Rng) -> Act {
        // In the calm sessions are to go on, and CONNACK of 3.1 does not say whether they do.
        let oldest = if self.calm { 4 } else { 3 };
        let drawn = 3 + rng.weighted(&s.versions) as u8;
        let version = if self.watcher { 5 } else { drawn.max(oldest) };
        let v5 = version == 5;
        let mut c = Connect {
            version,
            client_id: self.client_id.clone(),
            clean: version == 3 || !self.calm && rng.chance(s.clean),
            keep_alive_s: 0,
            expiry_s: v5.then_some(3600),
            receive_max: None,
            packet_max: None,
            alias_max: None,
            will: None,
        };
        self.session.refuse = if self.calm { 0 } else { s.refuse };
        if !self.watcher {
            if v5 {
                self.connect_limits(&mut c, s, rng);
            }
            if !self.calm && rng.chance(s.keep_alive) {
                c.keep_alive_s = rng.range(1, 3) as u16;
            }
            if !self.calm && rng.chance(s.will) {
                c.will = Some(self.will(v5, s, numbers, rng));
            }
        }
        Act::Open { shard: rng.below(s.world.shards), connect: Box::new(c) }
    }

    fn connect_limits(&self, c: &mut Connect, s: &Scenario, rng: &mut Rng) {
        c.alias_max = rng.chance(s.alias).then(|| rng.range(1, 4) as u16);
        if rng.chance(s.receive_max) {
            c.receive_max = Some(rng.range(1, 4) as u16);
        }
        if self.calm {
            return;
        }
        c.packet_max = rng.chance(s.packet_max).then_some(PACKET_MAX);
        if rng.chance(s.mayfly) {
            c.expiry_s = rng.chance(500).then_some(0);
        } else if rng.chance(s.short_expiry) {
            c.expiry_s = Some(rng.range(1, 4) as u32);
        }
    }

    fn will(&self, v5: bool, s: &Scenario, numbers: &mut Numbers, rng: &mut Rng) -> Will {
        Will {
            topic: format!("w/{}", self.index),
            payload: format!("w{}", numbers.take()).into_bytes(),
            qos: rng.below(3) as u8,
            retain: rng.chance(100),
            delay_s: if v5 && rng.chance(s.will_delay) { rng.range(1, 3) as u32 } else { 0 },
        }
    }

    fn whim(
        &mut self,
        s: &Scenario,
        numbers: &mut Numbers,
        rng: &mut Rng,
        now_ms: u64,
    ) -> Vec<Act> {
        let Some(line) = self.line() else { return Vec::new() };
        let net = line.net;
        let v5 = line.connect.version == 5;
        let a = &s.acts;
        let weights = [
            a.publish,
            a.subscribe,
            a.unsubscribe,
            a.ping,
            a.goodbye,
            a.goodbye_with_will,
            a.fin,
            a.reset,
            a.vanish,
            a.takeover,
            a.race,
            a.idle,
        ];
        match rng.weighted(&weights) {
            0 => self.publish(s, numbers, rng),
            1 => self.subscribe(s, rng),
            2 => self.unsubscribe(rng),
            3 => vec![Act::Send(net, ToServer::PingReq)],
            4 => self.goodbye(0, v5, rng, now_ms),
            5 if v5 => self.goodbye(4, v5, rng, now_ms),
            6 => self.leave(ClientEnd::Fin, now_ms),
            7 => self.leave(ClientEnd::Rst, now_ms),
            8 => {
                self.silent_until_ms = now_ms + rng.range(0, 6000);
                self.leave(ClientEnd::Vanished, now_ms)
            }
            9 => vec![self.connect(s, numbers, rng)],
            10 => (0..3).map(|_| self.connect(s, numbers, rng)).collect(),
            _ => Vec::new(),
        }
    }

    fn leave(&mut self, end: ClientEnd, now_ms: u64) -> Vec<Act> {
        self.current = None;
        self.goodbye_ms = now_ms;
        self.drop_lines(end)
    }

    fn goodbye(&mut self, reason: u8, v5: bool, rng: &mut Rng, now_ms: u64) -> Vec<Act> {
        let Some(line) = self.line() else { return Vec::new() };
        let (net, had) = (line.net, line.connect.expiry_s.unwrap_or(0));
        // [S-09] It may change the expiry, but not from 0.
        let expiry_s = (v5 && had != 0 && rng.chance(200)).then(|| rng.range(0, 4) as u32);
        let mut acts = vec![Act::Send(net, ToServer::Disconnect { reason, expiry_s })];
        acts.extend(self.leave(ClientEnd::Fin, now_ms));
        acts
    }

    fn publish(&mut self, s: &Scenario, numbers: &mut Numbers, rng: &mut Rng) -> Vec<Act> {
        let Some(net) = self.current else { return Vec::new() };
        let Some(line) = self.lines.iter_mut().find(|l| l.net == net) else { return Vec::new() };
        let v5 = line.connect.version == 5;
        let mut qos = rng.weighted(&s.qos) as u8;
        let quota = usize::from(line.server.receive_max.unwrap_or(s.server_receive_max));
        if self.session.out.len() >= quota {
            if !v5 && qos == 2 || rng.chance(100) {
                return self.repeat(net, v5, rng);
            }
            qos = 0;
        }
        let number = numbers.take();
        let retain = rng.chance(s.retain);
        let clear = retain && rng.chance(s.clear);
        let mut payload = if clear { Vec::new() } else { format!("m{number}").into_bytes() };
        if !clear {
            let pad = if rng.chance(s.big) { BIG_PAYLOAD } else { rng.below(8) };
            payload.resize(payload.len() + pad, b'.');
        }
        let mut p = Publish {
            qos,
            retain,
            topic: Scenario::topic(rng.below(s.topics)),
            payload,
            expiry_s: (v5 && rng.chance(s.expiry)).then(|| rng.range(1, 4) as u32),
            correlation: Some(number.to_string().into_bytes()),
            ..Publish::default()
        };
        if qos > 0 {
            p.pid = self.session.packet_id();
            self.session.push(p.clone());
        }
        let alias_max = line.server.alias_max.unwrap_or(0);
        if v5 && alias_max > 0 && rng.chance(s.alias) {
            let n = line.aliases.len() as u16;
            if let Some(alias) = line.aliases.get(&p.topic) {
                p.alias = Some(*alias);
                if rng.chance(800) {
                    p.topic = String::new();
                }
            } else if n < alias_max {
                line.aliases.insert(p.topic.clone(), n + 1);
                p.alias = Some(n + 1);
            }
        }
        vec![Act::Send(net, ToServer::Publish(p))]
    }

    /// Sends a QoS 2 message again, which versions 3 allow on a live connection. [S-33]
    fn repeat(&mut self, net: NetId, v5: bool, rng: &mut Rng) -> Vec<Act> {
        let published = |o: &&session::Out| o.state == OutState::Published && o.publish.qos == 2;
        let candidates: Vec<_> = self.session.out.iter().filter(published).collect();
        if v5 || candidates.is_empty() {
            return Vec::new();
        }
        let mut publish = rng.pick(&candidates).publish.clone();
        publish.dup = true;
        vec![Act::Send(net, ToServer::Publish(publish))]
    }

    fn subscribe(&mut self, s: &Scenario, rng: &mut Rng) -> Vec<Act> {
        let Some(line) = self.line() else { return Vec::new() };
        let (net, v5) = (line.net, line.connect.version == 5);
        if self.session.requests.len() >= 2 {
            return Vec::new();
        }
        let mut filters: Vec<Filter> = Vec::new();
        for _ in 0..rng.range(1, 3) {
            let text = draw_filter(s, self.index, rng);
            if filters.iter().any(|f| f.text == text) {
                continue;
            }
            let shared = text.starts_with("$share/");
            filters.push(Filter {
                qos: rng.weighted(&s.qos) as u8,
                no_local: v5 && !shared && rng.chance(150),
                rap: v5 && rng.chance(300),
                rh: if v5 { rng.weighted(&[4, 2, 1]) as u8 } else { 0 },
                text,
            });
        }
        for f in &filters {
            if !self.filters.contains(&f.text) {
                self.filters.push(f.text.clone());
            }
        }
        let pid = self.session.packet_id();
        self.session.requests.push(pid);
        let sub_id = (v5 && rng.chance(400)).then(|| rng.range(1, 300) as u32);
        vec![Act::Send(net, ToServer::Subscribe { pid, sub_id, filters })]
    }

    fn unsubscribe(&mut self, rng: &mut Rng) -> Vec<Act> {
        let Some(net) = self.current else { return Vec::new() };
        if self.filters.is_empty() || self.session.requests.len() >= 2 {
            return Vec::new();
        }
        let filters = vec![rng.pick(&self.filters).clone()];
        let pid = self.session.packet_id();
        self.session.requests.push(pid);
        vec![Act::Send(net, ToServer::Unsubscribe { pid, filters })]
    }

    /// The first SUBSCRIBE of a watcher.
    pub fn watch(&mut self, qos: u8) -> Vec<Act> {
        let Some(net) = self.current else { return Vec::new() };
        let pid = self.session.packet_id();
        self.session.requests.push(pid);
        let filter = Filter { text: "w/#".into(), qos, no_local: false, rap: false, rh: 2 };
        vec![Act::Send(net, ToServer::Subscribe { pid, sub_id: None, filters: vec![filter] })]
    }
}

/// Maximum Packet Size of small clients, in bytes: above all ordinary messages.
pub const PACKET_MAX: u32 = 200;

/// Padding of big messages: above [`PACKET_MAX`] whatever the rest.
pub const BIG_PAYLOAD: usize = 250;

fn draw_filter(s: &Scenario, device: usize, rng: &mut Rng) -> String {
    let i = rng.below(s.topics);
    let plain = match rng.weighted(&[50, 15, 15, 10, 10, 5]) {
        0 => Scenario::topic(i),
        1 => "t/+".into(),
        2 => "t/#".into(),
        3 => "#".into(),
        4 => format!("+/{i}/#"),
        _ => "+/+/x".into(),
    };
    if s.name == "shared" && !device.is_multiple_of(3) {
        // Few groups, each of many: so that it is certain by which way a message came.
        return if device % 3 == 1 { "$share/g0/t/#".into() } else { "$share/g1/t/+".into() };
    }
    if rng.chance(s.share) { format!("$share/g{}/{plain}", rng.below(2)) } else { plain }
}
