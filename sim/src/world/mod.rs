//! The simulated node: shards that take turns in one thread, mail between them, a network, a clock.
//!
//! Each [`World::advance`] is one micro-step of one shard: one input, the end of a turn, its mail,
//! or its other effects. Turns of several shards interleave at that grain, as they do on cores.

mod mesh;
mod net;
mod shard;

use ringmain_shards::boundary::{Control, Event};
use ringmain_shards::engine::Machine;
use ringmain_shards::engine::effects::CloseHow;
use ringmain_shards::engine::ids::Now;
use ringmain_shards::engine::input::CloseCause;

pub use net::{ClientEnd, NetId};

pub(crate) use mesh::SETTLED;

use crate::plant::Plant;
use crate::rng::Rng;
use crate::wire::{ToClient, ToServer};
use mesh::Mesh;
use net::{Net, Place};
use shard::Shard;

/// What can be seen from outside the shards, in the order in which it happened.
#[derive(Debug)]
pub enum Seen {
    /// The machine was fed the last byte of a packet. Packets behind a CONNECT follow the CONNACK.
    Ingress {
        /// The connection.
        net: NetId,
        /// The packet.
        packet: ToServer,
    },
    /// The machine wrote the last byte of a packet.
    Written {
        /// The connection.
        net: NetId,
        /// The packet.
        packet: ToClient,
        /// Its size in bytes.
        size: usize,
        /// Where it ends in the stream.
        end: u64,
    },
    /// The machine wrote what no client can read.
    Garbage {
        /// The connection.
        net: NetId,
        /// What the decoder says.
        what: String,
    },
    /// The machine closes.
    CloseOp {
        /// The connection.
        net: NetId,
        /// In which manner.
        how: CloseHow,
        /// Whether it stopped inside a packet.
        inside_packet: bool,
    },
    /// The machine was told that a connection is over.
    ClosedFed {
        /// The connection.
        net: NetId,
        /// Who ended it.
        cause: CloseCause,
    },
    /// The machine reads a connection no more, or again.
    Reading {
        /// The connection.
        net: NetId,
        /// Whether it does.
        reads: bool,
    },
    /// A turn is over and performed; `deadline_ms` is what the machine says then.
    TurnDone {
        /// The shard.
        shard: usize,
        /// Next tick that it wants.
        deadline_ms: u64,
    },
    /// Something for the control plane.
    Event(Event),
    /// The machine broke the contract with its driver.
    Contract(String),
}

/// When something was seen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stamp {
    /// Micro-step, grows by one.
    pub step: u64,
    /// Clock of the turn that it was part of, in ms.
    pub ms: u64,
    /// The world's clock, in ms: turns of several shards that overlap have read theirs at several
    /// times.
    pub real_ms: u64,
    /// See `mesh::Epochs`.
    pub epoch: u64,
}

/// How the world behaves.
#[derive(Clone, Debug)]
pub struct WorldConfig {
    /// Shards.
    pub shards: usize,
    /// Batches in a mailbox.
    pub mailbox_cap: usize,
    /// Most inputs in a turn.
    pub turn_max: u64,
    /// Bytes that the kernel takes for a client that does not read.
    pub socket_cap: u64,
    /// Latest tick, in ms after its deadline.
    pub tick_late_ms: u64,
    /// Slowest move of a connection between shards, in ms.
    pub move_late_ms: u64,
    /// A machine gets at most one packet at once: it may close at any of them, and what follows in
    /// the same bytes would be read or not.
    pub packetwise: bool,
    /// How clients are let in; `None`: nobody is asked.
    pub auth: Option<AuthConfig>,
}

/// Who decides about clients, in the driver's place.
#[derive(Clone, Debug)]
pub struct AuthConfig {
    /// Slowest verdict, in ms: so verdicts overtake each other.
    pub late_ms: u64,
    /// Clients that are turned away, per mille.
    pub refuse: u32,
    /// Clients that everybody knows: the first device that may be turned away.
    pub spared: usize,
}

/// The node and its network.
pub struct World<M> {
    /// How it behaves; may change on the way.
    pub config: WorldConfig,
    /// Virtual time.
    pub now: Now,
    /// The bug planted in the driver, if any.
    pub plant: Option<Plant>,
    pub(crate) mesh: Mesh,
    pub(crate) nets: Vec<Net>,
    /// Connections that are not finished.
    pub(crate) live: Vec<NetId>,
    shards: Vec<Shard<M>>,
    rng: Rng,
    step: u64,
    seen: Vec<(Stamp, Seen)>,
}

impl<M: Machine> World<M> {
    /// A node of these machines.
    pub fn new(config: WorldConfig, machines: Vec<M>, seed: u64) -> Self {
        let n = machines.len();
        let mut world = Self {
            mesh: Mesh::new(n, config.mailbox_cap),
            now: Now { mono_ns: 1_000_000_000, unix_ms: 1_700_000_000_000 },
            plant: None,
            nets: Vec::new(),
            live: Vec::new(),
            shards: machines.into_iter().map(|m| Shard::new(m, n)).collect(),
            rng: Rng::new(seed),
            step: 0,
            seen: Vec::new(),
            config,
        };
        world.mesh.lossy = false;
        world
    }

    /// Sets a planted bug.
    pub fn set_plant(&mut self, plant: Option<Plant>) {
        self.mesh.lossy = plant == Some(Plant::LostMailOnFullLane);
        self.plant = plant;
    }

    /// Machines, by shard.
    pub fn machine(&self, shard: usize) -> &M {
        &self.shards[shard].machine
    }

    /// What was seen since the last call.
    pub fn take_seen(&mut self) -> Vec<(Stamp, Seen)> {
        std::mem::take(&mut self.seen)
    }

    /// The stamp of things that happen now.
    pub fn stamp(&self) -> Stamp {
        Stamp {
            step: self.step,
            ms: self.now.mono_ms(),
            real_ms: self.now.mono_ms(),
            epoch: self.mesh.epochs.now(),
        }
    }

    /// A client opens a connection to a listener whose backlog `shard` serves.
    pub fn open(&mut self, owner: usize, version: u8, shard: usize) -> NetId {
        let net = self.nets.len();
        self.nets.push(Net::new(owner, version, shard));
        self.live.push(net);
        self.shards[shard].backlog.push_back(net);
        net
    }

    /// A client writes a packet. `wire` is what goes over the wire; planted bugs differ from
    /// `packet`, which is what the oracle believes.
    pub fn client_send(&mut self, net: NetId, packet: ToServer) {
        let n = &mut self.nets[net];
        if n.client_end != ClientEnd::Open {
            return;
        }
        let mut bytes = Vec::new();
        match self.plant {
            None => packet.encode(&mut bytes, n.version),
            Some(plant) => {
                if let Some(wire) = plant.on_ingress(&packet, n.owner, n.version) {
                    wire.encode(&mut bytes, n.version);
                }
            }
        }
        if bytes.is_empty() {
            // A planted bug: the broker behaves as if the packet had not come.
            n.client_send(Some(packet), &[]);
            let done = n.advance(0);
            for packet in done {
                self.see(Seen::Ingress { net, packet });
            }
            return;
        }
        n.client_send(Some(packet), &bytes);
    }

    /// A client ends its connection.
    pub fn client_end(&mut self, net: NetId, end: ClientEnd) {
        let n = &mut self.nets[net];
        if n.client_end == ClientEnd::Open {
            n.client_end = end;
            if end == ClientEnd::Rst && self.rng.chance(500) {
                n.forget_unfed();
            }
        }
    }

    /// A client reads up to `max` bytes: the packets that it now has, and whether the stream ended.
    pub fn client_read(&mut self, net: NetId, max: u64) -> (Vec<ToClient>, bool) {
        let n = &mut self.nets[net];
        let aborted = n.place == Place::Gone && n.close == Some(CloseHow::Abort);
        let len = if aborted { 0 } else { n.unread().min(max) };
        (n.client_read(len), n.eof())
    }

    /// Whether a client has something to read.
    pub fn readable(&self, net: NetId) -> bool {
        let n = &self.nets[net];
        n.client_end == ClientEnd::Open && (n.unread() > 0 || n.eof())
    }

    /// Gives a shard an order of the control plane.
    pub fn control(&mut self, shard: usize, control: Control) {
        self.shards[shard].controls.push_back(control);
    }

    /// A shard does nothing for some time.
    pub fn stall(&mut self, shard: usize, ms: u64) {
        self.shards[shard].stalled_until_ns = self.now.mono_ns + ms * 1_000_000;
    }

    /// Ends all stalls.
    pub fn unstall(&mut self) {
        self.shards.iter_mut().for_each(|s| s.stalled_until_ns = 0);
    }

    /// Lets time pass.
    pub fn pass_ns(&mut self, ns: u64) {
        self.now.mono_ns += ns;
        self.now.unix_ms = self.now.unix_ms.saturating_add(ns / 1_000_000);
    }

    /// The wall clock is set.
    pub fn set_wall_clock(&mut self, unix_ms: u64) {
        self.now.unix_ms = unix_ms;
    }

    /// Sockets take some of what the driver holds for them.
    pub fn drain_sockets(&mut self) {
        for i in 0..self.live.len() {
            let net = self.live[i];
            let n = &self.nets[net];
            let Some(conn) = n.conn() else { continue };
            if n.pending() == 0 || n.client_end == ClientEnd::Rst || self.rng.chance(200) {
                continue;
            }
            let room = self.config.socket_cap.saturating_sub(n.unread());
            let most = n.pending().min(room);
            if most == 0 {
                continue;
            }
            let len = if self.rng.chance(700) { most } else { self.rng.range(1, most) };
            let n = &mut self.nets[net];
            n.kernel += len;
            self.shards[n.shard].sent.push_back((conn, len as u32));
        }
    }

    /// Forgets finished connections.
    pub fn bury(&mut self) {
        let nets = &mut self.nets;
        self.live.retain(|net| {
            let finished = nets[*net].finished();
            if finished {
                let n = &mut nets[*net];
                n.forget_unfed();
                n.held = Vec::new();
            }
            !finished
        });
    }

    /// Whether anything moves without time passing.
    pub fn busy(&self) -> bool {
        (0..self.shards.len()).any(|s| self.has_work(s))
            || self.live.iter().any(|net| {
                let n = &self.nets[*net];
                n.conn().is_some()
                    && n.client_end == ClientEnd::Open
                    && n.pending() > 0
                    && n.unread() < self.config.socket_cap
            })
    }

    /// Nothing is under way between shards.
    pub fn quiet(&self) -> bool {
        self.mesh.epochs.idle() && self.mesh.waiting() == 0
    }

    /// The next moment at which time alone makes something happen, in ns.
    pub fn next_event_ns(&self) -> u64 {
        let ticks = self.shards.iter().map(|s| s.machine.deadline_ms().saturating_mul(1_000_000));
        let moves = self.shards.iter().flat_map(|s| s.parcels.iter().map(|p| p.0));
        let verdicts = self.shards.iter().flat_map(|s| s.verdicts.iter().map(|v| v.0));
        let closes = self.live.iter().filter_map(|net| {
            let n = &self.nets[*net];
            (n.close.is_some() && n.conn().is_some()).then_some(n.close_at_ns)
        });
        ticks.chain(moves).chain(verdicts).chain(closes).min().unwrap_or(u64::MAX)
    }

    /// The shard that has a connection.
    pub fn shard_of(&self, net: NetId) -> usize {
        self.nets[net].shard
    }

    /// The device that has a connection.
    pub fn owner_of(&self, net: NetId) -> usize {
        self.nets[net].owner
    }

    /// Times that a mailbox was full.
    pub fn overflows(&self) -> u64 {
        self.mesh.overflows
    }

    fn see(&mut self, seen: Seen) {
        let stamp = self.stamp();
        self.seen.push((stamp, seen));
    }

    fn see_at(&mut self, now: Now, seen: Seen) {
        let stamp = Stamp { ms: now.mono_ms(), ..self.stamp() };
        self.seen.push((stamp, seen));
    }
}
