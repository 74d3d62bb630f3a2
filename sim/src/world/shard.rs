//! One shard's driver: feeds inputs, performs effects.

use std::collections::VecDeque;
use std::net::{Ipv4Addr, SocketAddr};

use ringmain_mqtt::ReasonCode;
use ringmain_shards::boundary::Control;
use ringmain_shards::engine::Machine;
use ringmain_shards::engine::auth::{AuthRequest, AuthVerdict, Identity};
use ringmain_shards::engine::effects::{CloseHow, Effects, Op};
use ringmain_shards::engine::ids::{ConnId, Now, Peer, ShardId};
use ringmain_shards::engine::input::{CloseCause, Input};
use ringmain_shards::engine::mail::Parcel;
use ringmain_shards::observe::Recording;

use super::net::{ClientEnd, NetId, Place};
use super::{Seen, World};
use crate::plant::{Plant, Told};
use crate::wire::ToClient;

/// [S-93] What a closing connection may take to send the rest.
const FLUSH_MAX_NS: u64 = 1_000_000_000;

/// Connection reset by peer.
const ECONNRESET: i32 = 104;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Idle,
    Turn { now: Now, left: u64 },
    Mailing { now: Now },
    Writing { now: Now },
}

pub(super) struct Shard<M> {
    pub(super) machine: M,
    fx: Effects,
    phase: Phase,
    turn: u64,
    birth: u64,
    ticked: bool,
    /// Operations of this turn that [`World::foresee`] has looked at.
    foreseen: usize,
    slots: Vec<(u32, Option<NetId>)>,
    free: Vec<u32>,
    freed: Vec<ConnId>,
    pub(super) backlog: VecDeque<NetId>,
    accept_paused: bool,
    pub(super) parcels: VecDeque<(u64, NetId, Box<Parcel>)>,
    /// Verdicts on clients, with the time of each.
    pub(super) verdicts: Vec<(u64, ConnId, AuthVerdict)>,
    pub(super) sent: VecDeque<(ConnId, u32)>,
    drained: VecDeque<usize>,
    pub(super) controls: VecDeque<Control>,
    pub(super) stalled_until_ns: u64,
}

/// Kinds of input that may be ready.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ready {
    Control,
    Open,
    Arrived(usize),
    Verdict(usize),
    Mail,
    Drained,
    Sent,
    Data(NetId),
    Closed(NetId, CloseCause),
    Tick,
}

impl<M: Machine> Shard<M> {
    pub(super) fn new(machine: M, shards: usize) -> Self {
        let mut fx = Effects::new(shards);
        // Notes change nothing: so they are taken here as well.
        fx.observe.start(Some(Recording { clock: || 0, origin_ns: 0, delay: None }));
        Self {
            machine,
            fx,
            phase: Phase::Idle,
            turn: 0,
            birth: 0,
            ticked: false,
            foreseen: 0,
            slots: Vec::new(),
            free: Vec::new(),
            freed: Vec::new(),
            backlog: VecDeque::new(),
            accept_paused: false,
            parcels: VecDeque::new(),
            verdicts: Vec::new(),
            sent: VecDeque::new(),
            drained: VecDeque::new(),
            controls: VecDeque::new(),
            stalled_until_ns: 0,
        }
    }

    fn accepts(&self) -> bool {
        !self.backlog.is_empty() && !self.accept_paused && self.machine.accept_room() > 0
    }

    fn allocate(&mut self, net: NetId) -> ConnId {
        let index = self.free.pop().unwrap_or_else(|| {
            self.slots.push((0, None));
            self.slots.len() as u32 - 1
        });
        let slot = &mut self.slots[index as usize];
        slot.0 += 1;
        slot.1 = Some(net);
        ConnId { index, generation: slot.0 }
    }

    fn find(&self, conn: ConnId) -> Option<NetId> {
        let slot = self.slots.get(conn.index as usize)?;
        if slot.0 == conn.generation { slot.1 } else { None }
    }
}

impl<M: Machine> World<M> {
    /// Whether [`advance`](Self::advance) would do something for this shard now.
    pub fn has_work(&self, s: usize) -> bool {
        let shard = &self.shards[s];
        if shard.stalled_until_ns > self.now.mono_ns {
            return false;
        }
        shard.phase != Phase::Idle || self.mesh.can_flush(s) || self.any_ready(s)
    }

    /// One micro-step of a shard. Does nothing when there is nothing to do.
    pub fn advance(&mut self, s: usize) {
        self.step += 1;
        match self.shards[s].phase {
            Phase::Idle => {
                self.flush(s);
                if self.any_ready(s) {
                    let left = self.rng.range(1, self.config.turn_max);
                    let birth = self.mesh.epochs.born();
                    let shard = &mut self.shards[s];
                    shard.turn += 1;
                    shard.birth = birth;
                    shard.ticked = false;
                    shard.phase = Phase::Turn { now: self.now, left };
                }
            }
            Phase::Turn { now, left } => {
                let ready = if left == 0 { Vec::new() } else { self.ready(s, now) };
                if ready.is_empty() {
                    let shard = &mut self.shards[s];
                    shard.machine.handle(now, Input::TurnEnd, &mut shard.fx);
                    shard.phase = Phase::Mailing { now };
                } else {
                    let what = *self.rng.pick(&ready);
                    self.shards[s].phase = Phase::Turn { now, left: left - 1 };
                    self.feed(s, now, what);
                    self.foresee(s);
                }
            }
            Phase::Mailing { now } => {
                let observe = &mut self.shards[s].fx.observe;
                for followed in observe.take_written().into_iter().flatten() {
                    observe.sent(followed);
                }
                self.send_mail(s);
                self.shards[s].phase = Phase::Writing { now };
            }
            Phase::Writing { now } => self.perform(s, now),
        }
    }

    fn any_ready(&self, s: usize) -> bool {
        let shard = &self.shards[s];
        !shard.controls.is_empty()
            || shard.accepts()
            || !shard.sent.is_empty()
            || !shard.drained.is_empty()
            || self.mesh.has_mail(s)
            || shard.machine.deadline_ms() <= self.now.mono_ms()
            || !self.ready(s, self.now).is_empty()
    }

    fn ready(&self, s: usize, now: Now) -> Vec<Ready> {
        let shard = &self.shards[s];
        let mut ready = Vec::with_capacity(8);
        let mut add = |yes: bool, what: Ready| {
            if yes {
                ready.push(what);
            }
        };
        add(!shard.controls.is_empty(), Ready::Control);
        add(shard.accepts(), Ready::Open);
        add(!shard.sent.is_empty(), Ready::Sent);
        add(!shard.drained.is_empty(), Ready::Drained);
        add(self.mesh.has_mail(s), Ready::Mail);
        add(!shard.ticked && shard.machine.deadline_ms() <= now.mono_ms(), Ready::Tick);
        for (i, parcel) in shard.parcels.iter().enumerate() {
            add(parcel.0 <= now.mono_ns, Ready::Arrived(i));
        }
        for (i, verdict) in shard.verdicts.iter().enumerate() {
            add(verdict.0 <= now.mono_ns, Ready::Verdict(i));
        }
        for net in &self.live {
            let n = &self.nets[*net];
            if n.shard != s || n.conn().is_none() {
                continue;
            }
            if let Some(how) = n.close {
                let due = n.close_at_ns <= now.mono_ns;
                let flushed = how == CloseHow::Abort || n.pending() == 0;
                add(due || flushed, Ready::Closed(*net, CloseCause::Local));
                continue;
            }
            if n.moving {
                continue;
            }
            let unfed = n.unfed();
            add(unfed > 0 && !n.paused, Ready::Data(*net));
            match n.client_end {
                ClientEnd::Rst => {
                    add(!n.paused, Ready::Closed(*net, CloseCause::Error(ECONNRESET)));
                }
                ClientEnd::Fin => {
                    add(unfed == 0 && !n.paused, Ready::Closed(*net, CloseCause::PeerFin));
                }
                ClientEnd::Open | ClientEnd::Vanished => {}
            }
        }
        ready
    }

    fn feed(&mut self, s: usize, now: Now, what: Ready) {
        let shard = &mut self.shards[s];
        match what {
            Ready::Control => {
                if let Some(control) = shard.controls.pop_front() {
                    shard.machine.handle(now, Input::Control(control), &mut shard.fx);
                }
            }
            Ready::Open => self.feed_open(s, now),
            Ready::Arrived(i) => self.feed_arrived(s, now, i),
            Ready::Verdict(i) => {
                let (_, conn, verdict) = shard.verdicts.swap_remove(i);
                shard.machine.handle(now, Input::Authenticated { conn, verdict }, &mut shard.fx);
            }
            Ready::Mail => self.feed_mail(s, now),
            Ready::Drained => {
                if let Some(peer) = shard.drained.pop_front() {
                    let peer = ShardId(peer as u16);
                    shard.machine.handle(now, Input::LaneDrained { peer }, &mut shard.fx);
                }
            }
            Ready::Sent => {
                if let Some((conn, bytes)) = shard.sent.pop_front()
                    && let Some(net) = shard.find(conn)
                    && self.nets[net].conn() == Some(conn)
                {
                    shard.machine.handle(now, Input::Sent { conn, bytes }, &mut shard.fx);
                }
            }
            Ready::Data(net) => self.feed_data(s, now, net),
            Ready::Closed(net, cause) => self.feed_closed(s, now, net, cause),
            Ready::Tick => {
                shard.ticked = true;
                shard.machine.handle(now, Input::Tick, &mut shard.fx);
            }
        }
    }

    /// Notes which connections the machine has decided to close or to hand over: what it is fed
    /// for them in the rest of the turn has no meaning any more.
    fn foresee(&mut self, s: usize) {
        let shard = &mut self.shards[s];
        let from = std::mem::replace(&mut shard.foreseen, shard.fx.ops.len());
        for op in &shard.fx.ops[from..] {
            let (Op::Close { conn, .. } | Op::Handover { conn, .. }) = op else { continue };
            if let Some(net) = shard.find(*conn) {
                self.nets[net].leaving = true;
                self.nets[net].moving = matches!(op, Op::Handover { .. });
            }
        }
    }

    fn feed_open(&mut self, s: usize, now: Now) {
        let shard = &mut self.shards[s];
        let Some(net) = shard.backlog.pop_front() else { return };
        let conn = shard.allocate(net);
        let port = 1024 + (net % 60_000) as u16;
        let addr = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let peer = Peer { addr, listener: 0 };
        self.nets[net].place = Place::On(conn);
        shard.machine.handle(now, Input::Open { conn, peer, proxied: false }, &mut shard.fx);
    }

    fn feed_arrived(&mut self, s: usize, now: Now, i: usize) {
        let shard = &mut self.shards[s];
        let Some((_, net, parcel)) = shard.parcels.remove(i) else { return };
        let conn = shard.allocate(net);
        self.nets[net].place = Place::On(conn);
        shard.machine.handle(now, Input::Arrived { conn, parcel }, &mut shard.fx);
    }

    fn feed_mail(&mut self, s: usize, now: Now) {
        let Some(mut batch) = self.mesh.receive(s) else { return };
        if let Some(plant) = self.plant {
            plant.on_mail(&mut batch.letters.mail, &mut self.rng);
        }
        let from = ShardId(batch.from as u16);
        let shard = &mut self.shards[s];
        let packed = &batch.letters.packed;
        for mail in batch.letters.mail {
            shard.machine.handle(now, Input::Mail { from, mail, packed }, &mut shard.fx);
        }
        self.mesh.epochs.died(batch.seq);
    }

    fn feed_data(&mut self, s: usize, now: Now, net: NetId) {
        let n = &self.nets[net];
        let Some(conn) = n.conn() else { return };
        let most = match self.config.packetwise {
            true => n.unfed().min(n.to_packet_end()),
            false => n.unfed(),
        };
        let len = match self.rng.weighted(&[70, 20, 10]) {
            0 => most,
            1 => self.rng.range(1, most as u64) as usize,
            _ => 1,
        };
        let shard = &mut self.shards[s];
        let bytes = n.next_bytes(len);
        shard.machine.handle(now, Input::Data { conn, bytes }, &mut shard.fx);
        for packet in self.nets[net].advance(len) {
            let n = &mut self.nets[net];
            if n.leaving && !n.moving {
                continue; // read too late
            }
            if n.connacked || matches!(packet, crate::wire::ToServer::Connect(_)) {
                self.see_at(now, Seen::Ingress { net, packet });
            } else {
                n.held.push(packet);
            }
        }
    }

    fn feed_closed(&mut self, s: usize, now: Now, net: NetId, cause: CloseCause) {
        let Some(conn) = self.nets[net].conn() else { return };
        self.nets[net].place = Place::Gone;
        let shard = &mut self.shards[s];
        shard.freed.push(conn);
        let told = match self.plant {
            Some(plant) => plant.on_closed(),
            None => Told::Truth,
        };
        if told == Told::DisconnectFirst && self.nets[net].connacked && cause != CloseCause::Local {
            shard.machine.handle(now, Input::Data { conn, bytes: &[0xE0, 0] }, &mut shard.fx);
        }
        shard.machine.handle(now, Input::Closed { conn, cause }, &mut shard.fx);
        self.see_at(now, Seen::ClosedFed { net, cause });
    }

    /// Sends what waited in the outboxes.
    fn flush(&mut self, s: usize) {
        for peer in self.mesh.flush(s) {
            let shard = &mut self.shards[s];
            shard.fx.lanes_full.remove(ShardId(peer as u16));
            shard.drained.push_back(peer);
        }
    }

    fn send_mail(&mut self, s: usize) {
        self.flush(s);
        let shard = &mut self.shards[s];
        let turn = shard.turn;
        let mut fx = std::mem::take(&mut shard.fx);
        for (to, letters) in fx.mail.iter_mut().enumerate() {
            if self.mesh.send(s, to, turn, std::mem::take(letters)) {
                fx.lanes_full.insert(ShardId(to as u16));
            }
        }
        for (to, mail) in fx.mail_after.drain(..) {
            self.mesh.send_after(s, to, turn, mail);
        }
        self.shards[s].fx = fx;
        self.flush(s);
    }

    fn perform(&mut self, s: usize, now: Now) {
        let mut fx = std::mem::take(&mut self.shards[s].fx);
        for op in fx.ops.drain(..) {
            match op {
                Op::Write { conn, at, len } => {
                    let at = at as usize;
                    self.write(s, now, conn, &fx.arena[at..at + len as usize]);
                }
                Op::WriteShared { conn, ix } => {
                    self.write(s, now, conn, &fx.shared[ix as usize]);
                }
                Op::Close { conn, how } => self.close(s, now, conn, how),
                Op::Established { conn } => {
                    if let Some(net) = self.known(s, conn, "Established") {
                        self.nets[net].established = true;
                    }
                }
                Op::ProbePeer { .. } => {} // here, who is gone is told at once or never
                Op::PauseRead { conn } => self.pause(s, conn, true),
                Op::ResumeRead { conn } => self.pause(s, conn, false),
                Op::Handover { conn, to, parcel } => self.hand_over(s, conn, to, parcel),
                Op::PauseAccept { .. } => self.shards[s].accept_paused = true,
                Op::ResumeAccept { .. } => self.shards[s].accept_paused = false,
            }
        }
        for request in fx.auth.drain(..) {
            self.decide(s, &request);
        }
        for event in fx.events.drain(..) {
            self.see_at(now, Seen::Event(event));
        }
        fx.clear();
        let shard = &mut self.shards[s];
        shard.fx = fx;
        shard.foreseen = 0;
        for conn in shard.freed.drain(..) {
            shard.slots[conn.index as usize].1 = None;
            shard.free.push(conn.index);
        }
        shard.phase = Phase::Idle;
        let deadline_ms = shard.machine.deadline_ms();
        let birth = shard.birth;
        self.mesh.epochs.died(birth);
        self.see_at(now, Seen::TurnDone { shard: s, deadline_ms });
    }

    /// Decides about a client, later.
    fn decide(&mut self, s: usize, request: &AuthRequest) {
        let Some(auth) = self.config.auth.clone() else {
            return self.see(Seen::Contract(format!("nobody is to be asked: {request:?}")));
        };
        let device = request.client_id.strip_prefix('c').and_then(|n| n.parse::<usize>().ok());
        let spared = device.is_some_and(|n| n < auth.spared);
        let verdict = if !spared && self.rng.chance(auth.refuse) {
            match self.rng.chance(500) {
                true => AuthVerdict::Busy,
                false => AuthVerdict::Deny(ReasonCode::NOT_AUTHORIZED),
            }
        } else {
            AuthVerdict::Allow(Box::new(self.identity()))
        };
        let late_ns = self.rng.range(0, auth.late_ms * 1_000_000);
        self.shards[s].verdicts.push((self.now.mono_ns + late_ns, request.conn, verdict));
    }

    /// Some kinds of clients are kept in other ways than others.
    fn identity(&mut self) -> Identity {
        let name: Option<Box<str>> = self.rng.chance(700).then(|| "somebody".into());
        let attributes = match self.rng.chance(300) {
            true => vec![("tenant".into(), "a".into())],
            false => Vec::new(),
        };
        Identity { username: name, attributes, ..Identity::default() }
    }

    fn known(&mut self, s: usize, conn: ConnId, op: &str) -> Option<NetId> {
        let net = self.shards[s].find(conn);
        if net.is_none() {
            self.see(Seen::Contract(format!("{op} for {conn:?} of shard {s}, which is gone")));
        }
        net
    }

    fn pause(&mut self, s: usize, conn: ConnId, paused: bool) {
        if let Some(net) = self.known(s, conn, "PauseRead or ResumeRead") {
            self.nets[net].paused = paused;
            self.see(Seen::Reading { net, reads: !paused });
        }
    }

    fn write(&mut self, s: usize, now: Now, conn: ConnId, bytes: &[u8]) {
        let Some(net) = self.known(s, conn, "Write") else { return };
        let n = &mut self.nets[net];
        if n.close.is_some() {
            self.see(Seen::Contract(format!("a write to connection #{net} after its close")));
            return;
        }
        if n.garbled {
            return;
        }
        let mut end = n.written - n.partial_len();
        match n.server_write(bytes) {
            Ok(packets) => {
                for (packet, size) in packets {
                    end += size as u64;
                    self.written(now, net, packet, size, end);
                }
            }
            Err(what) => {
                n.garbled = true;
                self.see_at(now, Seen::Garbage { net, what });
            }
        }
    }

    fn written(&mut self, now: Now, net: NetId, packet: ToClient, size: usize, end: u64) {
        let packet = match self.plant {
            Some(plant) => plant.on_write(packet),
            None => Some(packet),
        };
        if let Some(mut packet) = packet {
            if let ToClient::Publish(publish) = &mut packet
                && let Err(what) = self.nets[net].resolve_alias(publish)
            {
                self.see_at(now, Seen::Garbage { net, what });
                return;
            }
            self.nets[net].deliver(end, packet.clone());
            let accepted = matches!(&packet, ToClient::ConnAck(c) if c.code == 0);
            self.see_at(now, Seen::Written { net, packet, size, end });
            if accepted && !self.nets[net].connacked {
                self.nets[net].connacked = true;
                for packet in std::mem::take(&mut self.nets[net].held) {
                    self.see_at(now, Seen::Ingress { net, packet });
                }
            }
        }
    }

    fn close(&mut self, s: usize, now: Now, conn: ConnId, how: CloseHow) {
        let Some(net) = self.known(s, conn, "Close") else { return };
        if self.nets[net].conn().is_none() {
            return; // it went in the same turn
        }
        if self.plant == Some(Plant::DoubleTakeover) && self.nets[net].connacked {
            return;
        }
        if self.nets[net].close.is_some() {
            self.see(Seen::Contract(format!("connection #{net} is closed twice")));
            return;
        }
        let inside_packet = self.nets[net].inside_packet();
        self.see_at(now, Seen::CloseOp { net, how, inside_packet });
        let n = &mut self.nets[net];
        n.close = Some(how);
        n.close_at_ns = now.mono_ns + self.rng.range(0, FLUSH_MAX_NS);
    }

    fn hand_over(&mut self, s: usize, conn: ConnId, to: ShardId, parcel: Box<Parcel>) {
        let Some(net) = self.known(s, conn, "Handover") else { return };
        let n = &mut self.nets[net];
        if n.established || n.pending() > 0 || to.index() >= self.shards.len() || to.index() == s {
            self.see(Seen::Contract(format!("connection #{net} cannot move to shard {}", to.0)));
            return;
        }
        if n.place == Place::Gone {
            return; // it went in the same turn
        }
        n.place = Place::Moving;
        n.moving = false;
        n.leaving = false;
        n.shard = to.index();
        n.paused = false;
        self.shards[s].freed.push(conn);
        let late_ns = self.rng.range(0, self.config.move_late_ms * 1_000_000);
        let at_ns = self.now.mono_ns + late_ns;
        self.shards[to.index()].parcels.push_back((at_ns, net, parcel));
    }
}
