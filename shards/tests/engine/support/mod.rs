//! A node of several shards in one thread: mail is delivered at once and in order, the clock is set
//! by hand, and clients are scripts that write and read MQTT packets.
//!
//! It performs effects as `effects.rs` says a driver must, and nothing else: sockets that take all
//! they get unless [`Node::stop_reading`] says otherwise.

mod client;
mod wire;

pub(crate) use client::*;
pub(crate) use wire::{Got, raw};

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::Arc;

use ringmain_mqtt::Version;
use ringmain_shards::boundary::{Control, Event};
use ringmain_shards::engine::auth::{AuthRequest, AuthVerdict};
use ringmain_shards::engine::config::{EngineConfig, MqttConfig};
use ringmain_shards::engine::counters::{Counters, DriverCounts, Gauges};
use ringmain_shards::engine::effects::{CloseHow, Effects, Op};
use ringmain_shards::engine::ids::{ConnId, Now, Peer, ShardId};
use ringmain_shards::engine::input::{CloseCause, Input};
use ringmain_shards::engine::introduction::Introduction;
use ringmain_shards::engine::mail::Parcel;
use ringmain_shards::engine::node::NodeShared;
use ringmain_shards::engine::packed::Batch;
use ringmain_shards::engine::{Machine, Shard};

const HASH_SEED: u64 = 7;
const UNIX_MS: u64 = 1_700_000_000_000;

pub(crate) const V31: Version = Version::V31;
pub(crate) const V311: Version = Version::V311;
pub(crate) const V5: Version = Version::V5;
pub(crate) const VERSIONS: [Version; 3] = [V31, V311, V5];
/// Numbers of shards that tests run with.
pub(crate) const SHARDS: [usize; 3] = [1, 2, 5];

/// What lies between a client and the shard that has its connection.
#[derive(Debug)]
pub(crate) struct Wire {
    at: Option<(usize, ConnId)>,
    /// Written by the broker, not yet read by the client.
    pub(crate) to_client: Vec<u8>,
    /// Written by the client while the broker did not read.
    to_broker: VecDeque<u8>,
    paused: bool,
    /// Whether the client's socket takes what is written.
    reading: bool,
    unsent: u32,
    /// How the broker closed it.
    pub(crate) closed: Option<CloseHow>,
    /// Whether the broker was told that it is over.
    gone: bool,
    pub(crate) established: bool,
    pub(crate) probed: bool,
}

enum Inbox {
    Mail(ShardId, Batch),
    Arrived(usize, Box<Parcel>),
    NotMoved(Peer),
}

struct Host {
    shard: Shard,
    fx: Effects,
    inbox: VecDeque<Inbox>,
    /// The wire of each connection slot.
    slots: Vec<Option<usize>>,
    generations: Vec<u32>,
    pub(crate) accepting: Vec<(u16, bool)>,
}

/// Several shards, their mail, their clients and the time.
pub(crate) struct Node {
    hosts: Vec<Host>,
    shared: Arc<NodeShared>,
    pub(crate) wires: Vec<Wire>,
    pub(crate) clients: Vec<Client>,
    pub(crate) events: Vec<Event>,
    /// Clients that shards ask about, and that nobody has answered.
    pub(crate) requests: Vec<AuthRequest>,
    /// Whether no connection can move, for want of room.
    pub(crate) nobody_moves: bool,
    now_ms: u64,
    ticks: u64,
    next_accept: usize,
}

pub(crate) fn quiet_config() -> EngineConfig {
    let mut cfg = EngineConfig::default();
    cfg.sys.interval_s = 0;
    cfg.sys.heartbeat_s = 0;
    cfg
}

impl Node {
    pub(crate) fn new(shards: usize) -> Self {
        Self::with(shards, |_| {})
    }

    /// With other settings than the defaults; `$SYS` is off.
    pub(crate) fn with(shards: usize, change: impl FnOnce(&mut EngineConfig)) -> Self {
        let mut cfg = quiet_config();
        change(&mut cfg);
        let now_ms = 1_000;
        let shared = Arc::new(NodeShared::new(shards, HASH_SEED, UNIX_MS, &cfg));
        let cfg = Arc::new(cfg);
        let now = Now { mono_ns: now_ms * 1_000_000, unix_ms: UNIX_MS + now_ms };
        let hosts = (0..shards)
            .map(|i| Host {
                shard: Shard::new(
                    ShardId(i as u16),
                    Arc::clone(&cfg),
                    Arc::clone(&shared),
                    42 + i as u64,
                    now,
                ),
                fx: Effects::new(shards),
                inbox: VecDeque::new(),
                slots: Vec::new(),
                generations: Vec::new(),
                accepting: Vec::new(),
            })
            .collect();
        Self {
            hosts,
            shared,
            wires: Vec::new(),
            clients: Vec::new(),
            events: Vec::new(),
            requests: Vec::new(),
            now_ms,
            nobody_moves: false,
            ticks: 0,
            next_accept: 0,
        }
    }

    /// With other protocol settings than the defaults.
    pub(crate) fn mqtt(shards: usize, change: impl FnOnce(&mut MqttConfig)) -> Self {
        Self::with(shards, |cfg| change(&mut cfg.mqtt))
    }

    pub(crate) fn shards(&self) -> usize {
        self.hosts.len()
    }

    /// The home shard of a client id.
    pub(crate) fn home(&self, client_id: &str) -> usize {
        Shard::home(client_id, HASH_SEED, self.shards()).index()
    }

    /// A client id that begins with `prefix` and lives on `shard`.
    pub(crate) fn id_on(&self, shard: usize, prefix: &str) -> String {
        (0..).map(|i| format!("{prefix}{i}")).find(|id| self.home(id) == shard).expect("endless")
    }

    pub(crate) fn admitted(&self) -> u32 {
        self.shared.admission.connections()
    }

    /// Sum over all shards.
    pub(crate) fn counters(&self) -> Counters {
        let mut sum = Counters::default();
        self.hosts.iter().for_each(|h| sum.add(h.shard.counters()));
        sum
    }

    /// Sum over all shards.
    pub(crate) fn gauges(&self) -> Gauges {
        let mut sum = Gauges::default();
        self.hosts.iter().for_each(|h| sum.add(&h.shard.gauges()));
        sum
    }

    /// Whether the shard accepts on a listener.
    pub(crate) fn accepts(&self, shard: usize, listener: u16) -> bool {
        let mut told = self.hosts[shard].accepting.iter().rev();
        self.hosts[shard].shard.accept_room() > 0
            && told.find(|(l, _)| *l == listener).is_none_or(|told| told.1)
    }

    // ---- connections ------------------------------------------------------------------------------

    /// Accepts a connection, on each shard in turn.
    pub(crate) fn open(&mut self) -> usize {
        self.open_from("192.0.2.1:4711", 0)
    }

    pub(crate) fn open_from(&mut self, addr: &str, listener: u16) -> usize {
        let shard = self.next_accept % self.hosts.len();
        self.next_accept += 1;
        self.open_on(shard, addr, listener)
    }

    pub(crate) fn open_on(&mut self, shard: usize, addr: &str, listener: u16) -> usize {
        let wire = self.wires.len();
        self.wires.push(Wire {
            at: None,
            to_client: Vec::new(),
            to_broker: VecDeque::new(),
            paused: false,
            reading: true,
            unsent: 0,
            closed: None,
            gone: false,
            established: false,
            probed: false,
        });
        let conn = self.place(shard, wire);
        let addr: SocketAddr = addr.parse().expect("an address");
        self.turn(shard, &mut |shard, now, fx| {
            let peer = Peer { addr, listener };
            shard.handle(now, Input::Open { conn, peer, proxied: false }, fx);
        });
        self.run();
        wire
    }

    /// The transport of a connection says who it is.
    pub(crate) fn introduce(&mut self, wire: usize, introduction: &Introduction) {
        let Some((shard, conn)) = self.wires[wire].at else { return };
        self.turn(shard, &mut |shard, now, fx| {
            let introduction = Box::new(introduction.clone());
            shard.handle(now, Input::Introduced { conn, introduction }, fx);
        });
        self.run();
    }

    fn place(&mut self, shard: usize, wire: usize) -> ConnId {
        let host = &mut self.hosts[shard];
        let index = match host.slots.iter().position(Option::is_none) {
            Some(free) => free,
            None => {
                host.slots.push(None);
                host.generations.push(0);
                host.slots.len() - 1
            }
        };
        host.slots[index] = Some(wire);
        host.generations[index] += 1;
        let conn = ConnId { index: index as u32, generation: host.generations[index] };
        self.wires[wire].at = Some((shard, conn));
        conn
    }

    /// The client writes.
    pub(crate) fn write(&mut self, wire: usize, bytes: &[u8]) {
        self.write_ahead(wire, bytes);
        self.run();
    }

    /// The client writes, and what the broker does for it in other shards waits for what is done next.
    pub(crate) fn write_ahead(&mut self, wire: usize, bytes: &[u8]) {
        if self.wires[wire].closed.is_some() {
            return;
        }
        self.wires[wire].to_broker.extend(bytes);
        self.feed(wire);
    }

    fn feed(&mut self, wire: usize) {
        let w = &mut self.wires[wire];
        let Some((shard, conn)) = w.at else { return };
        if w.paused || w.to_broker.is_empty() || w.gone {
            return;
        }
        let bytes: Vec<u8> = w.to_broker.drain(..).collect();
        self.turn(shard, &mut |shard, now, fx| {
            shard.handle(now, Input::Data { conn, bytes: &bytes }, fx);
        });
    }

    /// The client ends the connection, with FIN or with RST.
    pub(crate) fn hang_up(&mut self, wire: usize, cause: CloseCause) {
        let Some((shard, conn)) = self.wires[wire].at else { return };
        self.release(wire);
        self.turn(shard, &mut |shard, now, fx| {
            shard.handle(now, Input::Closed { conn, cause }, fx);
        });
        self.run();
    }

    fn release(&mut self, wire: usize) {
        if let Some((shard, conn)) = self.wires[wire].at.take() {
            self.hosts[shard].slots[conn.index as usize] = None;
            self.wires[wire].gone = true;
        }
    }

    /// The client's socket takes nothing any more.
    pub(crate) fn stop_reading(&mut self, wire: usize) {
        self.wires[wire].reading = false;
    }

    pub(crate) fn start_reading(&mut self, wire: usize) {
        self.wires[wire].reading = true;
        self.run();
    }

    /// Whether the broker reads from the client.
    pub(crate) fn is_read(&self, wire: usize) -> bool {
        !self.wires[wire].paused
    }

    /// What the driver of a shard says that it did so far.
    pub(crate) fn driver_counts(&mut self, on: usize, counts: DriverCounts) {
        self.hosts[on].fx.driver = counts;
    }

    pub(crate) fn lanes_full(&mut self, on: usize, peer: usize, full: bool) {
        if full {
            self.hosts[on].fx.lanes_full.insert(ShardId(peer as u16));
        } else {
            self.hosts[on].fx.lanes_full.remove(ShardId(peer as u16));
            self.turn(on, &mut |shard, now, fx| {
                shard.handle(now, Input::LaneDrained { peer: ShardId(peer as u16) }, fx);
            });
            self.run();
        }
    }

    /// The oldest request of a shard about a client.
    pub(crate) fn request(&mut self) -> AuthRequest {
        assert!(!self.requests.is_empty(), "nobody is asked about");
        self.requests.remove(0)
    }

    /// Answers a request.
    pub(crate) fn verdict(&mut self, request: &AuthRequest, verdict: &AuthVerdict) {
        let conn = request.conn;
        self.turn(request.shard.index(), &mut |shard, now, fx| {
            let verdict = verdict.clone();
            shard.handle(now, Input::Authenticated { conn, verdict }, fx);
        });
        self.run();
    }

    pub(crate) fn control(&mut self, control: &Control) {
        for shard in 0..self.hosts.len() {
            let mut control = Some(control.clone());
            self.turn(shard, &mut |shard, now, fx| {
                if let Some(control) = control.take() {
                    shard.handle(now, Input::Control(control), fx);
                }
            });
        }
        self.run();
    }

    // ---- time -------------------------------------------------------------------------------------

    /// Lets time pass, stopping wherever a shard has something to do.
    pub(crate) fn pass_ms(&mut self, ms: u64) {
        let until = self.now_ms + ms;
        loop {
            let next = self.hosts.iter().map(|h| h.shard.deadline_ms()).min().unwrap_or(u64::MAX);
            if next > until {
                break;
            }
            self.now_ms = self.now_ms.max(next);
            self.ticks();
            self.run();
        }
        self.now_ms = until;
    }

    pub(crate) fn pass_s(&mut self, seconds: u64) {
        self.pass_ms(seconds * 1000);
    }

    /// Lets time pass while no shard gets a tick: the next input comes before it.
    pub(crate) fn pass_without_tick(&mut self, ms: u64) {
        self.now_ms += ms;
    }

    /// Ticks that shards got so far.
    pub(crate) fn ticks_done(&self) -> u64 {
        self.ticks
    }

    fn ticks(&mut self) {
        let now_ms = self.now_ms;
        for shard in 0..self.hosts.len() {
            if self.hosts[shard].shard.deadline_ms() <= now_ms {
                self.ticks += 1;
                self.turn(shard, &mut |shard, now, fx| shard.handle(now, Input::Tick, fx));
                let after = self.hosts[shard].shard.deadline_ms();
                assert!(after == 0 || after > now_ms, "a tick leaves nothing due: {after}");
            }
        }
    }

    // ---- turns ------------------------------------------------------------------------------------

    /// Until nobody has anything to do.
    fn run(&mut self) {
        for _ in 0..1_000_000 {
            let mut idle = true;
            for shard in 0..self.hosts.len() {
                if self.hosts[shard].shard.deadline_ms() == 0 {
                    idle = false;
                    self.turn(shard, &mut |shard, now, fx| shard.handle(now, Input::Tick, fx));
                }
                while let Some(item) = self.hosts[shard].inbox.pop_front() {
                    idle = false;
                    self.deliver(shard, item);
                }
            }
            for wire in 0..self.wires.len() {
                idle &= !self.socket(wire);
            }
            if idle {
                return;
            }
        }
        panic!("the node does not come to rest");
    }

    fn deliver(&mut self, shard: usize, item: Inbox) {
        let mut letter;
        let packed;
        let input = match item {
            Inbox::Mail(from, batch) => {
                letter = batch;
                let mail = letter.mail.pop().expect("a letter has one mail");
                packed = std::mem::take(&mut letter.packed);
                Input::Mail { from, mail, packed: &packed }
            }
            Inbox::Arrived(wire, parcel) => {
                Input::Arrived { conn: self.place(shard, wire), parcel }
            }
            Inbox::NotMoved(peer) => Input::NotMoved { peer },
        };
        let mut input = Some(input);
        self.turn(shard, &mut |shard, now, fx| {
            input.take().into_iter().for_each(|input| shard.handle(now, input, fx));
        });
    }

    /// What the kernel does for one socket; whether there was anything.
    fn socket(&mut self, wire: usize) -> bool {
        let w = &mut self.wires[wire];
        let Some((shard, conn)) = w.at else { return false };
        if w.closed.is_some() {
            self.release(wire);
            let cause = CloseCause::Local;
            self.turn(shard, &mut |shard, now, fx| {
                shard.handle(now, Input::Closed { conn, cause }, fx);
            });
            return true;
        }
        if w.reading && w.unsent > 0 {
            let bytes = std::mem::take(&mut w.unsent);
            self.turn(shard, &mut |shard, now, fx| {
                shard.handle(now, Input::Sent { conn, bytes }, fx);
            });
            return true;
        }
        if !w.paused && !w.to_broker.is_empty() {
            self.feed(wire);
            return true;
        }
        false
    }

    fn turn(&mut self, shard: usize, inputs: &mut dyn FnMut(&mut Shard, Now, &mut Effects)) {
        let now = Now { mono_ns: self.now_ms * 1_000_000, unix_ms: UNIX_MS + self.now_ms };
        let host = &mut self.hosts[shard];
        inputs(&mut host.shard, now, &mut host.fx);
        host.shard.handle(now, Input::TurnEnd, &mut host.fx);
        self.perform(shard);
    }

    fn perform(&mut self, shard: usize) {
        let (lanes_full, driver) = (self.hosts[shard].fx.lanes_full, self.hosts[shard].fx.driver);
        let shards = self.hosts.len();
        let mut fx = std::mem::replace(&mut self.hosts[shard].fx, Effects::new(shards));
        for op in std::mem::take(&mut fx.ops) {
            self.perform_op(shard, &fx, op);
        }
        let from = ShardId(shard as u16);
        for (to, list) in fx.mail.iter_mut().enumerate() {
            assert!(list.is_empty() || to != shard, "a shard does not write to itself");
            self.hosts[to]
                .inbox
                .extend(list.take_letters().map(|letter| Inbox::Mail(from, letter)));
        }
        for (to, mail) in fx.mail_after.drain(..) {
            assert_ne!(to, from, "a shard does not write to itself");
            self.hosts[to.index()].inbox.push_back(Inbox::Mail(from, mail.into()));
        }
        self.events.append(&mut fx.events);
        self.requests.extend(fx.auth.drain(..).map(|request| *request));
        self.hosts[shard].fx.lanes_full = lanes_full;
        self.hosts[shard].fx.driver = driver;
    }

    fn perform_op(&mut self, shard: usize, fx: &Effects, op: Op) {
        match op {
            Op::Write { conn, at, len } => {
                let bytes = &fx.arena[at as usize..(at + len) as usize];
                self.written(shard, conn, bytes);
            }
            Op::WriteShared { conn, ix } => self.written(shard, conn, &fx.shared[ix as usize]),
            Op::Close { conn, how } => {
                let wire = &mut self.wires[wire_of(&self.hosts[shard], conn)];
                assert!(wire.closed.is_none(), "closed twice");
                wire.closed = Some(how);
                if how == CloseHow::Abort {
                    let kept = wire.to_client.len() - wire.unsent as usize;
                    wire.to_client.truncate(kept);
                }
            }
            Op::Established { conn } => {
                self.wires[wire_of(&self.hosts[shard], conn)].established = true;
            }
            Op::ProbePeer { conn } => {
                let wire = &mut self.wires[wire_of(&self.hosts[shard], conn)];
                assert!(wire.established, "probed before the handshake is done");
                wire.probed = true;
            }
            Op::PauseRead { conn } => self.wires[wire_of(&self.hosts[shard], conn)].paused = true,
            Op::ResumeRead { conn } => self.wires[wire_of(&self.hosts[shard], conn)].paused = false,
            Op::Handover { conn, to, parcel } => {
                let wire = wire_of(&self.hosts[shard], conn);
                assert!(!self.wires[wire].established, "handed over after the handshake");
                assert!(self.wires[wire].to_client.is_empty(), "written to before the handover");
                self.hosts[shard].slots[conn.index as usize] = None;
                self.wires[wire].at = None;
                if self.nobody_moves {
                    self.wires[wire].gone = true;
                    return self.hosts[shard].inbox.push_back(Inbox::NotMoved(parcel.peer));
                }
                self.hosts[to.index()].inbox.push_back(Inbox::Arrived(wire, parcel));
            }
            Op::PauseAccept { listener } => self.hosts[shard].accepting.push((listener, false)),
            Op::ResumeAccept { listener } => self.hosts[shard].accepting.push((listener, true)),
        }
    }

    fn written(&mut self, shard: usize, conn: ConnId, bytes: &[u8]) {
        let wire = &mut self.wires[wire_of(&self.hosts[shard], conn)];
        assert!(wire.closed.is_none(), "written to after close"); // [MQTT-3.14.4-1]
        wire.to_client.extend_from_slice(bytes);
        wire.unsent += bytes.len() as u32;
    }
}

fn wire_of(host: &Host, conn: ConnId) -> usize {
    assert_eq!(host.generations[conn.index as usize], conn.generation, "a stale connection");
    host.slots[conn.index as usize].expect("a connection that is there")
}
