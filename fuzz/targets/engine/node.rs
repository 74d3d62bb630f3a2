//! Drives the engines as `Machine` and `Effects` say that a driver does, and checks what they ask for.

use std::collections::VecDeque;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;

use ringmain_mqtt::ReasonCode;
use ringmain_shards::boundary::Control;
use ringmain_shards::engine::auth::{AuthRequest, AuthVerdict, Exchange, Identity};
use ringmain_shards::engine::config::EngineConfig;
use ringmain_shards::engine::counters::{Counters, Gauges};
use ringmain_shards::engine::effects::{Effects, Op};
use ringmain_shards::engine::ids::{ConnId, Now, Peer, ShardId};
use ringmain_shards::engine::input::{CloseCause, Input};
use ringmain_shards::engine::mail::Parcel;
use ringmain_shards::engine::packed::Batch;
use ringmain_shards::engine::node::NodeShared;
use ringmain_shards::engine::{Machine, Shard};

use crate::packets::CLIENT_IDS;

const CONNECTIONS_MAX: usize = 16;
/// Turns without an end to the mail: something goes round in circles.
const DELIVERIES_MAX: usize = 100_000;

#[derive(Clone, Copy, Default)]
struct Slot {
    generation: u32,
    /// The machine knows it.
    open: bool,
    /// The machine closed it; `Closed` is owed.
    closing: bool,
    established: bool,
    unsent: u32,
}

enum Letter {
    Mail(ShardId, Batch),
    Arrived(Box<Parcel>),
}

struct Host {
    shard: Shard,
    fx: Effects,
    mailbox: VecDeque<Letter>,
    slots: Vec<Slot>,
}

pub(crate) struct Node {
    hosts: Vec<Host>,
    shared: Arc<NodeShared>,
    now_ms: u64,
    newest: Option<(usize, usize)>,
    drained: bool,
    /// Clients that shards ask about.
    requests: Vec<AuthRequest>,
}

impl Node {
    pub(crate) fn new(shards: usize, cfg: EngineConfig) -> Self {
        let shared = Arc::new(NodeShared::new(shards, 7, 1_700_000_000_000, &cfg));
        let cfg = Arc::new(cfg);
        let hosts = (0..shards)
            .map(|i| {
                let (cfg, shared, id) = (Arc::clone(&cfg), Arc::clone(&shared), ShardId(i as u16));
                Host {
                    shard: Shard::new(id, cfg, shared, i as u64, now(1000)),
                    fx: Effects::new(shards),
                    mailbox: VecDeque::new(),
                    slots: Vec::new(),
                }
            })
            .collect();
        Self { hosts, shared, now_ms: 1000, newest: None, drained: false, requests: Vec::new() }
    }

    // ---- what happens ------------------------------------------------------------------------------

    pub(crate) fn open(&mut self, which: usize) {
        let open = self.hosts.iter().flat_map(|h| &h.slots).filter(|s| s.open).count();
        if open >= CONNECTIONS_MAX {
            return;
        }
        let on = which % self.hosts.len();
        let conn = self.place(on);
        self.newest = Some((on, conn.index as usize));
        let ip = IpAddr::V4(Ipv4Addr::new(192, 0, 2, which as u8));
        let peer = Peer { addr: SocketAddr::new(ip, 4711), listener: 0 };
        self.turn(on, Input::Open { conn, peer, proxied: false });
    }

    pub(crate) fn data_newest(&mut self, bytes: &[u8]) {
        if let Some((on, ix)) = self.newest {
            self.data_at(on, ix, bytes);
        }
    }

    pub(crate) fn data(&mut self, which: usize, bytes: &[u8]) {
        if let Some((on, ix)) = self.pick(which) {
            self.data_at(on, ix, bytes);
        }
    }

    /// Also while reading is paused: what was already received still arrives.
    fn data_at(&mut self, on: usize, ix: usize, bytes: &[u8]) {
        let slot = self.hosts[on].slots[ix];
        if slot.open && !slot.closing && !bytes.is_empty() {
            self.turn(on, Input::Data { conn: id(ix, slot), bytes });
        }
    }

    pub(crate) fn sent(&mut self, which: usize, part: u8) {
        let Some((on, ix)) = self.pick(which) else { return };
        let slot = &mut self.hosts[on].slots[ix];
        let bytes = if part == 0 { 1 } else { slot.unsent / 255 * u32::from(part) + 1 };
        let bytes = bytes.min(slot.unsent);
        if bytes > 0 && !slot.closing {
            slot.unsent -= bytes;
            let conn = id(ix, *slot);
            self.turn(on, Input::Sent { conn, bytes });
        }
    }

    pub(crate) fn hang_up(&mut self, which: usize, cause: CloseCause) {
        if let Some((on, ix)) = self.pick(which) {
            self.closed(on, ix, cause);
        }
    }

    fn closed(&mut self, on: usize, ix: usize, cause: CloseCause) {
        let slot = &mut self.hosts[on].slots[ix];
        let conn = id(ix, *slot);
        let cause = if slot.closing { CloseCause::Local } else { cause };
        slot.open = false;
        self.turn(on, Input::Closed { conn, cause });
    }

    pub(crate) fn lane(&mut self, which: usize, bits: u8) {
        let on = which % self.hosts.len();
        let peer = ShardId(u16::from(bits) % self.hosts.len() as u16);
        if bits & 0x80 == 0 {
            self.hosts[on].fx.lanes_full.insert(peer);
        } else if self.hosts[on].fx.lanes_full.contains(peer) {
            self.hosts[on].fx.lanes_full.remove(peer);
            self.turn(on, Input::LaneDrained { peer });
        }
    }

    pub(crate) fn control(&mut self, which: usize, control: Option<Control>) {
        let Some(control) = control else { return };
        self.drained |= matches!(control, Control::Drain);
        // The control plane tells all shards, one after the other.
        for i in 0..self.hosts.len() {
            let on = (which + i) % self.hosts.len();
            self.turn(on, Input::Control(control.clone()));
        }
    }

    /// Answers one of the requests about clients, if there is one, also of a connection that is gone.
    pub(crate) fn decide(&mut self, which: usize, how: u8) {
        if self.requests.is_empty() {
            return;
        }
        let request = self.requests.swap_remove(which % self.requests.len());
        let given = (how & 8 != 0).then(|| CLIENT_IDS[usize::from(how >> 4) % CLIENT_IDS.len()]);
        let identity = Identity {
            username: request.username.clone(),
            client_id: given.map(Into::into),
            superuser: how & 16 != 0,
            expires_at_s: (how & 32 != 0).then_some(1_700_000_000 + u64::from(how)),
            data: (how & 64 != 0).then(|| (*b"last").into()),
            ..Identity::default()
        };
        let verdict = match how % 8 {
            0 => AuthVerdict::Busy,
            1 => AuthVerdict::Deny(ReasonCode::NOT_AUTHORIZED),
            // Only a client with a method can be challenged.
            2 | 3 if request.method.is_some() => AuthVerdict::Challenge {
                data: (*b"say").into(),
                exchange: Exchange(Arc::new(how)),
            },
            _ => AuthVerdict::Allow(Box::new(identity)),
        };
        let conn = request.conn;
        self.turn(request.shard.index(), Input::Authenticated { conn, verdict });
    }

    pub(crate) fn pass_ms(&mut self, ms: u64) {
        self.now_ms += ms;
        self.ticks();
    }

    fn ticks(&mut self) {
        for on in 0..self.hosts.len() {
            if self.hosts[on].shard.deadline_ms() <= self.now_ms {
                self.turn(on, Input::Tick);
            }
        }
    }

    pub(crate) fn deliver_one(&mut self, which: usize) {
        let on = which % self.hosts.len();
        match self.hosts[on].mailbox.pop_front() {
            Some(Letter::Mail(from, mut letter)) => {
                let mail = letter.mail.pop().expect("a letter has one mail");
                self.turn(on, Input::Mail { from, mail, packed: &letter.packed });
            }
            Some(Letter::Arrived(parcel)) => {
                let conn = self.place(on);
                self.newest = Some((on, conn.index as usize));
                self.turn(on, Input::Arrived { conn, parcel });
            }
            None => {}
        }
    }

    pub(crate) fn deliver_all(&mut self) {
        for _ in 0..DELIVERIES_MAX {
            let Some(on) = self.hosts.iter().position(|h| !h.mailbox.is_empty()) else { return };
            self.deliver_one(on);
        }
        panic!("the mail never ends");
    }

    // ---- the end -----------------------------------------------------------------------------------

    /// All connections end, all mail arrives: then the books must balance.
    pub(crate) fn end(&mut self) {
        self.deliver_all();
        for on in 0..self.hosts.len() {
            for ix in 0..self.hosts[on].slots.len() {
                if self.hosts[on].slots[ix].open {
                    self.closed(on, ix, CloseCause::PeerFin);
                }
            }
        }
        self.settle();
        while !self.requests.is_empty() {
            self.decide(0, 7);
        }
        let (mut counters, mut gauges) = (Counters::default(), Gauges::default());
        for host in &self.hosts {
            counters.add(host.shard.counters());
            gauges.add(&host.shard.gauges());
        }
        assert_eq!((gauges.sockets, gauges.connections), (0, 0));
        assert_eq!(self.shared.admission.connections(), 0);
        let (matched, ends) = accounts(&counters, &gauges);
        assert_eq!(matched, ends, "{counters:?} {gauges:?}");
    }

    fn settle(&mut self) {
        for _ in 0..1000 {
            self.deliver_all();
            self.ticks();
            let idle = self
                .hosts
                .iter()
                .all(|h| h.mailbox.is_empty() && h.shard.deadline_ms() > self.now_ms);
            if idle {
                return;
            }
        }
        panic!("the node does not come to rest");
    }

    // ---- the driver --------------------------------------------------------------------------------

    fn pick(&self, which: usize) -> Option<(usize, usize)> {
        let open = || {
            let all = self.hosts.iter().enumerate();
            all.flat_map(|(on, h)| h.slots.iter().enumerate().map(move |(ix, s)| (on, ix, s)))
                .filter(|(_, _, s)| s.open)
        };
        let n = open().count();
        open().nth(which % n.max(1)).map(|(on, ix, _)| (on, ix))
    }

    fn place(&mut self, on: usize) -> ConnId {
        let slots = &mut self.hosts[on].slots;
        let ix = slots.iter().position(|s| !s.open).unwrap_or_else(|| {
            slots.push(Slot::default());
            slots.len() - 1
        });
        slots[ix] = Slot { generation: slots[ix].generation + 1, open: true, ..Slot::default() };
        id(ix, slots[ix])
    }

    fn turn(&mut self, on: usize, input: Input<'_>) {
        let now = now(self.now_ms);
        let host = &mut self.hosts[on];
        host.shard.handle(now, input, &mut host.fx);
        host.shard.handle(now, Input::TurnEnd, &mut host.fx);
        let shards = self.hosts.len();
        let mut fx = std::mem::replace(&mut self.hosts[on].fx, Effects::new(shards));
        let mut moved = Vec::new();
        for op in std::mem::take(&mut fx.ops) {
            self.perform(on, op, &fx, &mut moved);
        }
        let from = ShardId(on as u16);
        for (to, mail) in fx.mail.iter_mut().enumerate() {
            assert!(mail.is_empty() || to != on, "a shard does not write to itself");
            self.hosts[to].mailbox.extend(mail.take_letters().map(|letter| Letter::Mail(from, letter)));
        }
        for (to, mail) in fx.mail_after.drain(..) {
            self.hosts[to.index()].mailbox.push_back(Letter::Mail(from, mail.into()));
        }
        for (to, parcel) in moved {
            self.hosts[to].mailbox.push_back(Letter::Arrived(parcel));
        }
        self.requests.extend(fx.auth.drain(..).map(|request| *request));
        fx.clear();
        self.hosts[on].fx = fx;
    }

    fn perform(&mut self, on: usize, op: Op, fx: &Effects, moved: &mut Vec<(usize, Box<Parcel>)>) {
        let shards = self.hosts.len();
        let slots = &mut self.hosts[on].slots;
        match op {
            Op::Write { conn, at, len } => {
                assert!(len > 0 && (at + len) as usize <= fx.arena.len());
                let slot = known(slots, conn);
                slot.unsent += len;
            }
            Op::WriteShared { conn, ix } => {
                let slot = known(slots, conn);
                slot.unsent += fx.shared[ix as usize].len() as u32;
            }
            Op::Close { conn, .. } => known(slots, conn).closing = true,
            Op::Established { conn } => {
                let slot = known(slots, conn);
                assert!(!std::mem::replace(&mut slot.established, true));
            }
            Op::PauseRead { conn } | Op::ResumeRead { conn } | Op::ProbePeer { conn } => {
                known(slots, conn);
            }
            Op::Handover { conn, to, parcel } => {
                let slot = known(slots, conn);
                assert!(!slot.established && slot.unsent == 0 && to.index() != on);
                slot.open = false;
                assert!(to.index() < shards && !parcel.bytes.is_empty());
                moved.push((to.index(), parcel));
            }
            Op::PauseAccept { listener } | Op::ResumeAccept { listener } => assert_eq!(listener, 0),
        }
    }
}

/// The slot of a connection that the machine may still speak of.
fn known(slots: &mut [Slot], conn: ConnId) -> &mut Slot {
    let slot = &mut slots[conn.index as usize];
    assert!(slot.open && slot.generation == conn.generation, "{conn:?} is no connection");
    assert!(!slot.closing, "{conn:?} is closed already");
    slot
}

/// Copies that matching produced, and copies that ended or wait.
fn accounts(c: &Counters, g: &Gauges) -> (u64, u64) {
    let ends =
        c.delivery_completed + c.delivery_dropped + c.delivery_returned + g.queued + g.inflight;
    (c.delivery_matched, ends)
}

fn id(ix: usize, slot: Slot) -> ConnId {
    ConnId { index: ix as u32, generation: slot.generation }
}

fn now(ms: u64) -> Now {
    Now { mono_ns: ms * 1_000_000, unix_ms: 1_700_000_000_000 + ms }
}
