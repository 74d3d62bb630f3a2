//! What a broker may and must do, decided from outside: from the packets that the shards were fed
//! and the packets that they wrote, each with the moment of it.
//!
//! Where concurrency leaves a choice the oracle keeps all of them open (*may*), and where it does
//! not it insists (*must*). [`Stamp::epoch`] tells when a publish is certain to have arrived
//! everywhere.

mod acks;
mod admin;
mod close;
mod connect;
mod deliver;
mod matching;
mod publish;
mod quiet;
mod retained;
mod shares;
mod state;
mod subscribe;
mod wills;

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};

use ringmain_shards::boundary::Event;
use ringmain_shards::engine::config::QueueDropPolicy;

use crate::scenario::Scenario;
use crate::wire::{ToClient, ToServer};
use crate::world::{NetId, SETTLED, Seen, Stamp};

pub use quiet::Facts;
use retained::Retained;
use state::{Conn, ConnState, GroupMsg, Msg, Session};
use wills::WillRecord;

/// A rule that was broken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// Which: a short name with the criterion's number.
    pub rule: &'static str,
    /// By what.
    pub text: String,
}

pub(crate) type Verdict = Result<(), Violation>;

/// Breaks a rule unless the condition holds.
macro_rules! insist {
    ($cond:expr, $rule:literal, $($text:tt)*) => {
        if !$cond {
            return Err($crate::oracle::Violation { rule: $rule, text: format!($($text)*) });
        }
    };
}
pub(crate) use insist;

/// Number of a message: in its payload, or in its Correlation Data.
pub(crate) type MsgId = u64;

/// Number of a session; a client id has one after the other.
pub(crate) type SessionId = usize;

/// What the oracle must know of the configuration.
#[derive(Clone, Debug)]
pub struct Rules {
    /// Devices, watchers included.
    pub devices: usize,
    /// Shards.
    pub shards: usize,
    /// Whether memory pressure may refuse things.
    pub pressure: bool,
    /// Whether clients may be turned away.
    pub turns_away: bool,
    /// Whether the queue of a session can be full.
    pub queue_bound: bool,
    /// Whether sockets take everything that a connected client is sent.
    pub roomy: bool,
    /// Whether a publish is refused when nobody has room for it.
    pub rejects: bool,
    /// Whether QoS 0 waits for clients that are away.
    pub keeps_qos0: bool,
}

impl Rules {
    /// Those of a scenario with this many devices.
    #[must_use]
    pub fn new(s: &Scenario, devices: usize) -> Self {
        Self {
            devices,
            shards: s.world.shards,
            pressure: s.pressure > 0,
            turns_away: s.world.auth.as_ref().is_some_and(|auth| auth.refuse > 0),
            queue_bound: s.mqueue_len > 0,
            roomy: s.out_buffer >= 1 << 20,
            rejects: s.mqueue_len > 0 && s.queue_policy == QueueDropPolicy::Reject,
            keeps_qos0: s.store_qos0,
        }
    }
}

/// The oracle of one run.
#[derive(Debug)]
pub struct Oracle {
    rules: Rules,
    now: Stamp,
    conns: BTreeMap<NetId, Conn>,
    sessions: Vec<Session>,
    /// The session of each device.
    current: Vec<Option<SessionId>>,
    /// CONNECTs fed and not answered, by device, and whether they end the session that is there: what
    /// they may do to it is still open.
    connecting: Vec<Vec<(NetId, bool)>>,
    /// Those of them that ended unanswered, with the moment.
    hung_up: Vec<(NetId, usize, u64)>,
    /// Rules whose violations are counted only.
    allowed: Vec<String>,
    /// Violations of those.
    pub allowed_count: u64,
    msgs: HashMap<MsgId, Msg>,
    /// Publishes that may still be on their way to some shard.
    recent: VecDeque<MsgId>,
    /// Next number in each device's order of publishing.
    next_seq: Vec<u64>,
    retained: Retained,
    groups: HashMap<(String, MsgId), GroupMsg>,
    wills: Vec<WillRecord>,
    early_wills: Vec<usize>,
    deadlines: Vec<u64>,
    /// Connections with a keep-alive.
    kept_alive: Vec<NetId>,
    /// Devices that see every will.
    watchers: Vec<usize>,
    /// What an administrator asked and was not answered.
    admin: admin::Admin,
    draining: bool,
    /// Shards that said they are done.
    drained: BTreeSet<u16>,
    /// Memory pressure may drop what is published now.
    pub unreliable: bool,
    /// Copies written for the first time.
    pub copies_sent: u64,
}

impl Oracle {
    /// An oracle that has seen nothing.
    #[must_use]
    pub fn new(rules: Rules) -> Self {
        Self {
            now: Stamp::default(),
            conns: BTreeMap::new(),
            sessions: Vec::new(),
            current: vec![None; rules.devices],
            connecting: vec![Vec::new(); rules.devices],
            hung_up: Vec::new(),
            allowed: Vec::new(),
            allowed_count: 0,
            msgs: HashMap::new(),
            recent: VecDeque::new(),
            next_seq: vec![0; rules.devices],
            retained: Retained::default(),
            groups: HashMap::new(),
            wills: Vec::new(),
            early_wills: Vec::new(),
            deadlines: vec![0; rules.shards],
            kept_alive: Vec::new(),
            watchers: Vec::new(),
            admin: admin::Admin::default(),
            draining: false,
            drained: BTreeSet::new(),
            unreliable: false,
            copies_sent: 0,
            rules,
        }
    }

    /// A client opened a connection.
    pub fn opened(&mut self, net: NetId, device: usize, at: Stamp) {
        self.conns.insert(net, Conn::new(device, at.ms));
    }

    /// Memory pressure begins: what is not yet delivered may be dropped, and counted.
    pub fn pressure_ordered(&mut self) {
        self.unreliable = true;
        let copies = self.sessions.iter_mut().flat_map(|s| s.copies.values_mut());
        copies.for_each(|c| c.must = false);
        self.groups.values_mut().for_each(|g| g.must = false);
        self.sessions.iter_mut().for_each(|s| s.replays_due.clear());
    }

    /// The node was told to drain.
    pub fn drain_ordered(&mut self) {
        self.draining = true;
    }

    /// Something happened; `shard_of` is the shard of the connection that it is about.
    ///
    /// # Errors
    /// The rule that it breaks.
    pub fn see(&mut self, at: Stamp, seen: &Seen, shard_of: usize) -> Verdict {
        self.now = at;
        match self.judge(seen, shard_of) {
            Err(v) if self.allowed.iter().any(|rule| v.rule.contains(rule.as_str())) => {
                self.allowed_count += 1;
                Ok(())
            }
            verdict => verdict,
        }
    }

    /// Violations of these rules are counted and nothing else.
    pub fn allow(&mut self, rules: Vec<String>) {
        self.allowed = rules;
    }

    fn judge(&mut self, seen: &Seen, shard_of: usize) -> Verdict {
        match seen {
            Seen::Ingress { net, packet } => self.ingress(*net, packet),
            Seen::Written { net, packet, size, .. } => {
                self.conn_mut(*net).shard = shard_of;
                self.written(*net, packet, *size)
            }
            Seen::Garbage { net, what } => {
                insist!(
                    false,
                    "decodable",
                    "connection #{net} got bytes no client can read: {what}"
                );
                Ok(())
            }
            Seen::CloseOp { net, how, inside_packet } => self.close_op(*net, *how, *inside_packet),
            Seen::ClosedFed { net, .. } => {
                self.end_of_connection(*net);
                self.conn_mut(*net).state = ConnState::Gone;
                Ok(())
            }
            Seen::Reading { net, reads } => {
                let now_ms = self.now.ms;
                let conn = self.conn_mut(*net);
                conn.unread = !reads;
                conn.read_from_ms = now_ms;
                Ok(())
            }
            Seen::TurnDone { shard, deadline_ms } => {
                self.deadlines[*shard] = *deadline_ms;
                self.forget_lapses(*shard);
                self.forget_settled();
                self.forget_hung_up();
                self.check_early_wills(*shard)?;
                self.check_keep_alive(*shard, *deadline_ms)
            }
            Seen::Event(event) => {
                match event {
                    Event::Drained { shard } => {
                        self.drained.insert(shard.0);
                    }
                    Event::Kicked { token, found } => self.kicked(*token, *found)?,
                    Event::Session { token, session } => {
                        self.dumped(*token, session.as_deref())?;
                    }
                    _ => {}
                }
                Ok(())
            }
            Seen::Contract(what) => {
                insist!(false, "driver-contract", "{what}");
                Ok(())
            }
        }
    }

    fn ingress(&mut self, net: NetId, packet: &ToServer) -> Verdict {
        let now_ms = self.now.ms;
        self.conn_mut(net).last_in_ms = now_ms;
        match packet {
            ToServer::Connect(connect) => {
                self.connect_in(net, connect);
                Ok(())
            }
            ToServer::Publish(p) => self.publish_in(net, p),
            ToServer::PubAck { pid, .. } => self.puback_in(net, *pid),
            ToServer::PubRec { pid, reason } => self.pubrec_in(net, *pid, *reason),
            ToServer::PubRel { pid } => self.pubrel_in(net, *pid),
            ToServer::PubComp { pid } => self.pubcomp_in(net, *pid),
            ToServer::Subscribe { pid, sub_id, filters } => {
                self.subscribe_in(net, *pid, *sub_id, filters)
            }
            ToServer::Unsubscribe { pid, filters } => self.unsubscribe_in(net, *pid, filters),
            ToServer::PingReq => {
                self.conn_mut(net).pings_due += 1;
                Ok(())
            }
            ToServer::Disconnect { reason, expiry_s } => {
                self.disconnect_in(net, *reason, *expiry_s);
                Ok(())
            }
        }
    }

    fn written(&mut self, net: NetId, packet: &ToClient, size: usize) -> Verdict {
        let conn = self.conn(net);
        let max = conn.connect.as_ref().and_then(|c| c.packet_max).unwrap_or(u32::MAX);
        insist!(
            size as u64 <= u64::from(max),
            "packet-size S-30",
            "connection #{net} takes {max} bytes and got {size}: {packet:?}"
        );
        let accepted = matches!(conn.state, ConnState::Live | ConnState::Gone);
        let early = !accepted && !matches!(packet, ToClient::ConnAck(_));
        // A client that is refused or wrong before CONNACK may be told so by DISCONNECT in v5.
        insist!(
            !early,
            "connack-first",
            "connection #{net} got {packet:?} before CONNACK [MQTT-3.2.0-1]"
        );
        match packet {
            ToClient::ConnAck(ack) => self.connack_out(net, ack),
            ToClient::Publish(p) => self.publish_out(net, p),
            ToClient::PubAck { pid, reason } => self.puback_out(net, *pid, *reason),
            ToClient::PubRec { pid, reason } => self.pubrec_out(net, *pid, *reason),
            ToClient::PubRel { pid, .. } => self.pubrel_out(net, *pid),
            ToClient::PubComp { pid, reason } => self.pubcomp_out(net, *pid, *reason),
            ToClient::SubAck { pid, codes } => self.suback_out(net, *pid, codes),
            ToClient::UnsubAck { pid, codes } => self.unsuback_out(net, *pid, codes),
            ToClient::PingResp => {
                let conn = self.conn_mut(net);
                insist!(
                    conn.pings_due > 0,
                    "pingresp",
                    "connection #{net} got an unasked PINGRESP"
                );
                conn.pings_due -= 1;
                Ok(())
            }
            ToClient::Disconnect { reason } => {
                let conn = self.conn_mut(net);
                insist!(conn.version() == 5, "disconnect", "DISCONNECT to a v3 client #{net}");
                conn.disconnect_out = Some(*reason);
                Ok(())
            }
            ToClient::Auth => {
                insist!(false, "auth S-95", "AUTH to connection #{net}, which has no method");
                Ok(())
            }
        }
    }

    fn conn(&self, net: NetId) -> &Conn {
        self.conns.get(&net).unwrap_or_else(|| panic!("connection #{net} was never opened"))
    }

    fn conn_mut(&mut self, net: NetId) -> &mut Conn {
        self.conns.get_mut(&net).unwrap_or_else(|| panic!("connection #{net} was never opened"))
    }

    /// The session of a connection that was accepted.
    fn session_of(&mut self, net: NetId) -> Result<SessionId, Violation> {
        match self.conn(net).session {
            Some(sid) => Ok(sid),
            None => Err(Violation {
                rule: "session",
                text: format!("connection #{net} has no session yet"),
            }),
        }
    }

    /// Publishes that are certain to have arrived need no second look.
    fn forget_settled(&mut self) {
        while let Some(id) = self.recent.front() {
            let settled = match self.msgs[id].ingress.last() {
                Some(at) => at.epoch + SETTLED <= self.now.epoch,
                None => true,
            };
            if !settled {
                break;
            }
            self.recent.pop_front();
        }
    }

    /// The turn of a shard is over: what it writes now is of after all UNSUBSCRIBEs read.
    fn forget_lapses(&mut self, shard: usize) {
        let Self { current, sessions, conns, .. } = self;
        for sid in current.iter().flatten() {
            let s = &mut sessions[*sid];
            let here = |net: NetId| conns.get(&net).is_none_or(|c| c.shard == shard);
            if !s.lapsing.is_empty() && s.conn.is_none_or(here) {
                s.lapsing.clear();
            }
        }
    }

    /// These devices subscribe to all wills, and stay.
    pub fn set_watchers(&mut self, watchers: Vec<usize>) {
        self.watchers = watchers;
    }
}
