//! What every part of the engine needs: connections, sessions, clock, counters, and writing.

use std::sync::Arc;

use compact_str::CompactString;
use hashbrown::HashTable;
use ringmain_acl::BanTable;
use ringmain_mqtt::{Disconnect, ReasonCode, UserProps, Version, encode};

use super::access::Access;
use super::bans::Flapping;
use super::config::{EngineConfig, MqttConfig};
use super::conn::{ConnTable, State, flag};
use super::counters::Counters;
use super::effects::{CloseHow, Effects, Op};
use super::hash::{hash64, scale};
use super::ids::{ConnId, Now, ShardId};
use super::mail::{MemberRef, Ticket};
use super::message::Message;
use super::meter::Waiting;
use super::node::NodeShared;
use super::overload::{Measure, Overload};
use super::session::Session;
use super::slab::{NONE, Slab};
use super::wheel::Wheel;
use crate::boundary::Pressure;

/// Work that came up in the middle of something else and is done before the input ends.
#[derive(Debug)]
pub(crate) enum After {
    /// Publish a will.
    Will(Arc<Message>),
    /// End a session that expires with its connection.
    EndSession { session: u32, generation: u32 },
    /// A connection of the session ended or began: tell its groups.
    MemberStatus { session: u32, generation: u32 },
    /// `$SYS/…/clients/<id>/disconnected`.
    Disconnected { client_id: CompactString, reason: ReasonCode },
    /// `$SYS/…/clients/<id>/connected`.
    Connected { conn: u32, generation: u32, clean_start: bool, session_present: bool },
    /// A session has room for another page of its retained replay.
    Replay { session: u32 },
    /// A member joined a group of this shard.
    Group { name: Arc<str> },
}

/// A membership of a session in a shared group or an exclusive filter.
#[derive(Debug)]
pub(crate) struct Membership {
    pub(crate) session: u32,
    pub(crate) name: Arc<str>,
    pub(crate) name_hash: u64,
    pub(crate) home: ShardId,
    pub(crate) opts: super::subs::SubOpts,
    pub(crate) sub_id: u32,
    /// An exclusive filter: its messages come by the shard's own index.
    pub(crate) exclusive: bool,
    /// Its home knows it: from then on messages reach it.
    pub(crate) joined: bool,
}

/// What timers are for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum TimerKind {
    Conn,
    Session,
    SysInterval,
    Heartbeat,
    Retained,
    Admission,
    Lag,
    /// The rules have changed.
    Access,
}

impl TimerKind {
    /// By their numbers.
    const ALL: [Self; 8] = [
        Self::Conn,
        Self::Session,
        Self::SysInterval,
        Self::Heartbeat,
        Self::Retained,
        Self::Admission,
        Self::Lag,
        Self::Access,
    ];
}

/// A timer's key: its kind (three bits) and the index that it is about. Each connection has one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TimerKey(u32);

impl TimerKey {
    const INDEX_BITS: u32 = 29;

    /// `index` is below 2^29: so many connections or sessions of one shard would take 100 GB.
    pub(crate) fn new(kind: TimerKind, index: u32) -> Self {
        assert!(index >> Self::INDEX_BITS == 0, "2^29 connections or sessions of one shard");
        Self((kind as u32) << Self::INDEX_BITS | index)
    }

    pub(crate) fn kind(self) -> TimerKind {
        TimerKind::ALL[(self.0 >> Self::INDEX_BITS) as usize]
    }

    pub(crate) fn index(self) -> u32 {
        self.0 & ((1 << Self::INDEX_BITS) - 1)
    }
}

/// `Lives on: each shard.`
#[derive(Debug)]
pub(crate) struct Core {
    pub(crate) id: ShardId,
    pub(crate) cfg: Arc<EngineConfig>,
    /// The configurations since the start, by [`Conn::epoch`](super::conn::Conn): a connection is held
    /// to what its CONNACK said, whatever changed since. The last one is `cfg`.
    told: Vec<Arc<EngineConfig>>,
    epoch: u8,
    pub(crate) node: Arc<NodeShared>,
    pub(crate) conns: ConnTable,
    pub(crate) access: Access,
    pub(crate) sessions: Slab<Session>,
    pub(crate) registry: HashTable<u32>,
    pub(crate) memberships: Slab<Membership>,
    pub(crate) wheel: Wheel<TimerKey>,
    pub(crate) counters: Counters,
    pub(crate) after: Vec<After>,
    /// Unacknowledged messages that members finished in this turn.
    pub(crate) done: Vec<(MemberRef, u32)>,
    /// Sessions whose sending stopped because the turn had done enough.
    pub(crate) pump_later: Vec<u32>,
    pub(crate) rng: fastrand::Rng,
    pub(crate) now_ms: u64,
    pub(crate) unix_ms: u64,
    pub(crate) pressure: Pressure,
    /// Whether what clients send is held to rates.
    pub(crate) meters_input: bool,
    /// Whether what clients are sent is.
    pub(crate) meters_output: bool,
    /// The packet that is handled came faster than it may, and is to be refused.
    pub(crate) over_rate: bool,
    pub(crate) waiting: Waiting,
    pub(crate) bans: Arc<BanTable>,
    pub(crate) flapping: Flapping,
    /// Bytes written on all connections and not yet taken by sockets.
    pub(crate) out_total: u64,
    /// Grows with each publish that is matched: see [`Session::mark`].
    pub(crate) publish_mark: u32,
    pub(crate) queued: u64,
    pub(crate) inflight: u64,
    /// Bytes in the queues of this shard's sessions and groups.
    pub(crate) queued_bytes: u64,
    /// What the node knows of them.
    queued_bytes_told: u64,
    /// Connections that have not sent a whole CONNECT.
    pub(crate) handshakes: u32,
    pub(crate) overload: Overload,
    /// Ordinary descriptors are scarce.
    pub(crate) descriptors_scarce: bool,
    pub(crate) draining: bool,
    /// Requests about clients that are not answered.
    pub(crate) auth_open: usize,
}

/// Above this many bytes written and not taken on all connections of a shard, each connection may
/// only have [`OUT_TIGHT_MAX`]: one slow group must not fill the memory.
const OUT_TOTAL_MAX: u64 = 256 << 20;
const OUT_TIGHT_MAX: u32 = 16 << 10;

/// A turn that has written this much goes on in the next one: the scratch stays small and other
/// connections get their turn.
pub(crate) const TURN_ARENA_MAX: usize = 4 << 20;
/// See [`TURN_ARENA_MAX`].
pub(crate) const TURN_OPS_MAX: usize = 1 << 16;

impl Core {
    pub(crate) fn new(
        id: ShardId,
        cfg: Arc<EngineConfig>,
        node: Arc<NodeShared>,
        seed: u64,
        now: Now,
    ) -> Self {
        let now_ms = now.mono_ms();
        let mut core = Self {
            id,
            conns: ConnTable::default(),
            access: Access::new(Arc::clone(&cfg.policy), cfg.decisions_kept),
            sessions: Slab::default(),
            registry: HashTable::new(),
            memberships: Slab::default(),
            wheel: Wheel::new(now_ms),
            counters: Counters::default(),
            after: Vec::new(),
            done: Vec::new(),
            pump_later: Vec::new(),
            rng: fastrand::Rng::with_seed(seed),
            now_ms,
            unix_ms: now.unix_ms,
            pressure: Pressure::Normal,
            meters_input: false,
            meters_output: false,
            over_rate: false,
            waiting: Waiting::default(),
            bans: Arc::default(),
            flapping: Flapping::default(),
            out_total: 0,
            publish_mark: 0,
            queued: 0,
            inflight: 0,
            queued_bytes: 0,
            queued_bytes_told: 0,
            handshakes: 0,
            overload: Overload::default(),
            descriptors_scarce: false,
            draining: false,
            auth_open: 0,
            told: vec![Arc::clone(&cfg)],
            epoch: 0,
            cfg,
            node,
        };
        core.find_rates();
        core
    }

    /// Other settings hold from now on.
    pub(crate) fn set_config(&mut self, cfg: Arc<EngineConfig>) {
        // After 256 changes the oldest connections are held to newer words than they were told.
        self.epoch = self.epoch.wrapping_add(1);
        self.set_policy(&cfg.policy);
        match self.told.get_mut(usize::from(self.epoch)) {
            Some(old) => *old = Arc::clone(&cfg),
            None => self.told.push(Arc::clone(&cfg)),
        }
        self.cfg = cfg;
        self.find_rates();
    }

    /// Protocol settings as the CONNACK of a connection told them; before CONNACK the present ones.
    /// Needed for all that a client may rely on: maxima and what is available. (C12)
    pub(crate) fn told(&self, ci: u32) -> &MqttConfig {
        let conn = self.conns.get(ci);
        let listener = conn.map_or(0, |c| c.listener);
        match conn.filter(|c| c.state == State::Live) {
            Some(c) => self.told[usize::from(c.epoch)].mqtt_of(listener),
            None => self.cfg.mqtt_of(listener),
        }
    }

    /// As [`told`](Self::told), to be kept while the core changes.
    pub(crate) fn told_config(&self, ci: u32) -> Arc<EngineConfig> {
        let epoch = self.conns.get(ci).map_or(self.epoch, |c| c.epoch);
        Arc::clone(&self.told[usize::from(epoch)])
    }

    pub(crate) fn epoch(&self) -> u8 {
        self.epoch
    }

    /// Bytes that may still be queued on the node. (Q08)
    pub(crate) fn queue_room(&self) -> u64 {
        let max = self.cfg.limits.max_queued_bytes;
        if max == 0 {
            return u64::MAX;
        }
        // Other shards as of their last turns, this one as it is.
        let others = self.node.queued_bytes().wrapping_sub(self.queued_bytes_told);
        max.saturating_sub(others.wrapping_add(self.queued_bytes))
    }

    /// Tells the node, once a turn.
    pub(crate) fn tell_queued_bytes(&mut self) {
        if self.queued_bytes != self.queued_bytes_told {
            self.node.queued_bytes_changed(self.queued_bytes_told, self.queued_bytes);
            self.queued_bytes_told = self.queued_bytes;
        }
    }

    /// Whether new connections are turned away. (L05)
    pub(crate) fn refuses_connections(&self) -> bool {
        self.pressure >= Pressure::High
            || self.overload.measure() >= Measure::RefuseConnections
            || self.descriptors_scarce
    }

    /// A connection has sent its CONNECT, or will not any more.
    pub(crate) fn handshake_over(&mut self, ci: u32) {
        if let Some(conn) = self.conns.get_mut(ci)
            && conn.has(flag::HANDSHAKE)
        {
            conn.flags &= !flag::HANDSHAKE;
            self.handshakes -= 1;
        }
    }

    pub(crate) fn set_clock(&mut self, now: Now) {
        self.now_ms = now.mono_ms();
        self.unix_ms = now.unix_ms;
    }

    pub(crate) fn shards(&self) -> usize {
        self.node.shards
    }

    pub(crate) fn client_hash(&self, client_id: &str) -> u64 {
        // 0 means "the broker itself" in messages.
        hash64(self.node.hash_seed, client_id.as_bytes()).max(1)
    }

    /// The home shard of anything with a name.
    pub(crate) fn home_of(&self, hash: u64) -> ShardId {
        ShardId(scale(hash, self.shards()) as u16)
    }

    pub(crate) fn mqtt(&self, listener: u16) -> &MqttConfig {
        self.cfg.mqtt_of(listener)
    }

    pub(crate) fn find_session(&self, client_id: &str, hash: u64) -> Option<u32> {
        self.registry.find(hash, |ix| self.sessions[*ix].client_id == client_id).copied()
    }

    pub(crate) fn member_ref(&self, member: u32) -> MemberRef {
        MemberRef { shard: self.id, index: member, generation: self.memberships.generation(member) }
    }

    pub(crate) fn turn_is_full(fx: &Effects) -> bool {
        fx.arena.len() >= TURN_ARENA_MAX || fx.ops.len() >= TURN_OPS_MAX
    }

    /// Bytes that a connection may have outstanding before QoS 0 is dropped.
    pub(crate) fn out_max(&self) -> u32 {
        let max = self.cfg.limits.out_buffer_bytes;
        if self.out_total > OUT_TOTAL_MAX { max.min(OUT_TIGHT_MAX) } else { max }
    }

    // ---- writing --------------------------------------------------------------------------------

    /// Writes one packet. `encode` appends it, or nothing and says false when the client's Maximum
    /// Packet Size does not admit it.
    pub(crate) fn write(
        &mut self,
        ci: u32,
        fx: &mut Effects,
        encode: impl FnOnce(&mut Vec<u8>, Version, u32) -> bool,
    ) -> bool {
        let Some(conn) = self.conns.get(ci) else { return false };
        if conn.state == State::Closing {
            return false;
        }
        let at = fx.arena.len();
        if !encode(&mut fx.arena, conn.version, conn.max_packet) {
            fx.arena.truncate(at);
            return false;
        }
        self.counters.packets_sent += 1;
        self.push_write(ci, at, fx.arena.len() - at, fx);
        true
    }

    /// Writes a range of the arena.
    pub(crate) fn push_write(&mut self, ci: u32, at: usize, len: usize, fx: &mut Effects) {
        self.account_out(ci, len);
        let id = self.conns.id(ci);
        if let Some(Op::Write { conn, at: last_at, len: last_len }) = fx.ops.last_mut()
            && *conn == id
            && (*last_at + *last_len) as usize == at
        {
            *last_len += len as u32;
            return;
        }
        fx.ops.push(Op::Write { conn: id, at: at as u32, len: len as u32 });
    }

    /// Writes a large payload without copying it.
    pub(crate) fn push_shared(&mut self, ci: u32, bytes: bytes::Bytes, fx: &mut Effects) {
        self.account_out(ci, bytes.len());
        let ix = match fx.shared.last() {
            Some(last) if last.as_ptr() == bytes.as_ptr() && last.len() == bytes.len() => {
                fx.shared.len() - 1
            }
            _ => {
                fx.shared.push(bytes);
                fx.shared.len() - 1
            }
        };
        fx.ops.push(Op::WriteShared { conn: self.conns.id(ci), ix: ix as u32 });
    }

    fn account_out(&mut self, ci: u32, len: usize) {
        self.out_total += len as u64;
        if let Some(conn) = self.conns.get_mut(ci) {
            conn.out_pending = conn.out_pending.saturating_add(len as u32);
        }
    }

    /// Writes an acknowledgement with a reason; 3.1.1 gets none.
    pub(crate) fn ack(
        &mut self,
        ci: u32,
        kind: ringmain_mqtt::PacketType,
        packet_id: ringmain_mqtt::PacketId,
        reason: ReasonCode,
        fx: &mut Effects,
    ) {
        use ringmain_mqtt::PacketType as P;
        *match kind {
            P::PubAck => &mut self.counters.puback_sent,
            P::PubRec => &mut self.counters.pubrec_sent,
            P::PubRel => &mut self.counters.pubrel_sent,
            _ => &mut self.counters.pubcomp_sent,
        } += 1;
        self.write(ci, fx, |out, v, _| {
            encode::ack(out, v, kind, packet_id, reason, None);
            true
        });
    }

    // ---- reading --------------------------------------------------------------------------------

    /// Stops reading a connection for one more reason.
    pub(crate) fn pause(&mut self, ci: u32, why: u16, fx: &mut Effects) {
        let Some(conn) = self.conns.get_mut(ci) else { return };
        let was = conn.has(flag::PAUSED);
        conn.flags |= why;
        if !was && conn.state != State::Closing {
            fx.ops.push(Op::PauseRead { conn: self.conns.id(ci) });
        }
    }

    /// Takes one reason away; reads again when none is left.
    pub(crate) fn resume(&mut self, ci: u32, why: u16, fx: &mut Effects) {
        let Some(conn) = self.conns.get_mut(ci) else { return };
        if !conn.has(why) {
            return;
        }
        conn.flags &= !why;
        if why & flag::PAUSED_BY_US != 0 {
            conn.last_seen_ms = self.now_ms as u32;
        }
        if !conn.has(flag::PAUSED) && conn.state != State::Closing {
            fx.ops.push(Op::ResumeRead { conn: self.conns.id(ci) });
        }
    }

    // ---- closing --------------------------------------------------------------------------------

    /// Closes a connection; a version 5 client is told why, when there is a reason to tell.
    /// [MQTT-4.13.1-1] Its session, if it has one, is detached: `will` says whether its will counts.
    pub(crate) fn close(
        &mut self,
        ci: u32,
        reason: Option<ReasonCode>,
        how: CloseHow,
        fx: &mut Effects,
    ) {
        self.close_with(ci, reason, None, how, fx);
    }

    /// As [`close`](Self::close), with a Reason String. (C13)
    pub(crate) fn close_with(
        &mut self,
        ci: u32,
        reason: Option<ReasonCode>,
        text: Option<&str>,
        how: CloseHow,
        fx: &mut Effects,
    ) {
        let Some(conn) = self.conns.get(ci) else { return };
        if conn.state == State::Closing {
            return;
        }
        if let Some(reason) = reason
            && conn.state == State::Live
            && conn.version == Version::V5
        {
            let text = if conn.has(flag::NO_PROBLEM_INFO) { None } else { text };
            let cfg = Arc::clone(&self.cfg);
            let elsewhere = reason == ReasonCode::USE_ANOTHER_SERVER;
            let packet = Disconnect {
                reason,
                session_expiry_s: None, // [MQTT-3.14.2-2]
                reason_string: text,
                server_reference: elsewhere
                    .then_some(&*cfg.mqtt_of(conn.listener).server_reference),
                user: UserProps::EMPTY,
            };
            self.counters.disconnect_sent += 1;
            self.write(ci, fx, |out, v, max| packet.encode_within(out, v, max));
        }
        let session = conn_session(&self.conns, ci);
        fx.ops.push(Op::Close { conn: self.conns.id(ci), how: how.because(reason) });
        if let Some(conn) = self.conns.get_mut(ci) {
            if conn.state == State::Live {
                self.counters.client_disconnected += 1;
            }
            conn.trim();
        }
        if session != NONE {
            self.detach(ci, reason.unwrap_or(ReasonCode::SUCCESS), true);
        }
        self.handshake_over(ci);
        if let Some(conn) = self.conns.get_mut(ci) {
            conn.state = State::Closing;
            if let Some(t) = conn.timer.take() {
                self.wheel.cancel(t);
            }
        }
    }

    /// The session has no connection any more: will, expiry, groups. Keeps the session.
    pub(crate) fn detach(&mut self, ci: u32, reason: ReasonCode, will_counts: bool) {
        let si = conn_session(&self.conns, ci);
        if si == NONE {
            return;
        }
        if let Some(conn) = self.conns.get_mut(ci) {
            conn.session = NONE;
        }
        self.conns.count_live(false);
        self.count_end(self.sessions[si].client_hash);
        let generation = self.sessions.generation(si);
        let now_ms = self.now_ms;
        let s = &mut self.sessions[si];
        s.conn = NONE;
        s.offline_at_ms = now_ms;
        if let Some(out) = &mut s.out {
            out.rewind();
        }
        s.trim();
        self.after.push(After::Disconnected { client_id: s.client_id.clone(), reason });
        if !will_counts {
            s.set_will(None); // [MQTT-3.14.4-3]
        }
        // [S-16] The will goes at the end of its delay or of the session, whichever is first.
        let delay_s = s.will().map(|w| w.delay_s.min(s.expiry_s));
        if delay_s == Some(0)
            && let Some(will) = s.take_will()
        {
            self.send_will(si, will);
        }
        if self.sessions[si].expiry_s == 0 {
            self.after.push(After::EndSession { session: si, generation });
            return;
        }
        self.arm_session(si);
        self.after.push(After::MemberStatus { session: si, generation });
    }

    /// Arms the timer of an offline session: its will or its end, whichever is first.
    pub(crate) fn arm_session(&mut self, si: u32) {
        let s = &mut self.sessions[si];
        if let Some(t) = s.timer.take() {
            self.wheel.cancel(t);
        }
        let at = |seconds: u32| s.offline_at_ms + u64::from(seconds) * 1000;
        let expiry = (s.expiry_s != u32::MAX).then(|| at(s.expiry_s));
        let will = s.will().map(|w| at(w.delay_s));
        let Some(deadline) = expiry.into_iter().chain(will).min() else { return };
        let key = TimerKey::new(TimerKind::Session, si);
        s.timer = Some(self.wheel.insert(deadline, key));
    }

    /// Whether an id names a connection that is neither gone nor closing.
    pub(crate) fn is_open(&mut self, id: ConnId) -> bool {
        self.conns.checked(id).is_some_and(|c| c.state != State::Closing)
    }
}

pub(crate) fn conn_session(conns: &ConnTable, ci: u32) -> u32 {
    conns.get(ci).map_or(NONE, |c| c.session)
}

/// A slab of things that wait for answers by [`Ticket`].
pub(crate) fn ticket<T>(slab: &Slab<T>, index: u32) -> Ticket {
    Ticket { index, generation: slab.generation(index) }
}
