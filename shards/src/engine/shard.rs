//! The shard: takes inputs, holds the parts together.

use std::sync::Arc;

use super::Machine;
use super::config::EngineConfig;
use super::conn::{Conn, State, flag};
use super::core::{After, Core, TimerKey, TimerKind, conn_session};
use super::counters::{Counters, Gauges};
use super::effects::{CloseHow, Effects, Op};
use super::ids::{ConnId, Now, Peer, ShardId};
use super::input::{CloseCause, Input};
use super::introduction::Introduction;
use super::mail::{Mail, Ticket};
use super::message::Outgoing;
use super::node::NodeShared;
use super::publish::Matches;
use super::recent::Recent;
use super::replay::Replays;
use super::retained::RetainedStore;
use super::route::RouteWriter;
use super::shared::Groups;
use super::slab::NONE;
use super::subs::SubIndex;
use super::subscribe::PendingSubs;
use super::sys::Sys;
use super::verdict::Answers;
use crate::boundary::{Control, Event, Pressure, SessionInfo};
use ringmain_mqtt::ReasonCode;

/// `Lives on: one core.` Owns its connections, sessions, subscriptions, the retained messages of its
/// topics and the shared groups of its names. Nothing else writes to any of them.
#[derive(Debug)]
pub struct Shard {
    pub(crate) core: Core,
    pub(crate) subs: SubIndex,
    pub(crate) routes: RouteWriter,
    pub(crate) retained: RetainedStore,
    pub(crate) groups: Groups,
    pub(crate) replays: Replays,
    pub(crate) pending_subs: PendingSubs,
    pub(crate) answers: Answers,
    pub(crate) matches: Matches,
    pub(crate) recent: Recent,
    pub(crate) sys: Sys,
    /// Connections whose bytes wait because the last turn had done enough.
    deferred: Vec<ConnId>,
    /// Connections that publish to a shard whose mailbox is full.
    pub(crate) stalled: Vec<ConnId>,
    due: Vec<TimerKey>,
    drain_reported: bool,
}

/// Timers handled in one input: a million keep-alives must not make one turn.
const TIMERS_MAX: usize = 1024;

impl Shard {
    /// A shard of a node. `seed` makes its choices (minted ids, random strategies) reproducible.
    ///
    /// # Panics
    /// When the routes of this shard are already being written by another engine.
    #[must_use]
    pub fn new(
        id: ShardId,
        cfg: Arc<EngineConfig>,
        node: Arc<NodeShared>,
        seed: u64,
        now: Now,
    ) -> Self {
        let hash_seed = node.hash_seed;
        let routes = node.routes.writer(id);
        let core = Core::new(id, cfg, node, seed, now);
        let mut shard = Self {
            // The limit is the node's: `store_retained` keeps it.
            retained: RetainedStore::new(usize::MAX, usize::MAX),
            core,
            subs: SubIndex::new(hash_seed),
            routes,
            groups: Groups::default(),
            replays: Replays::default(),
            pending_subs: PendingSubs::default(),
            answers: Answers::default(),
            matches: Matches::default(),
            recent: Recent::default(),
            sys: Sys::default(),
            deferred: Vec::new(),
            stalled: Vec::new(),
            due: Vec::new(),
            drain_reported: false,
        };
        shard.start_sys();
        shard
    }

    /// Its counters.
    #[must_use]
    pub fn counters(&self) -> &Counters {
        &self.core.counters
    }

    /// What it holds now.
    #[must_use]
    pub fn gauges(&self) -> Gauges {
        Gauges {
            connections: self.core.conns.live() as u64,
            sockets: self.core.conns.len() as u64,
            sessions: self.core.sessions.len() as u64,
            filters: self.subs.filters() as u64,
            subscriptions: self.subs.subscriptions() as u64 - self.groups.len() as u64,
            shared_subscriptions: self.core.memberships.len() as u64,
            retained: self.retained.len() as u64,
            queued: self.core.queued,
            inflight: self.core.inflight,
            group_queued: self.groups.queued(),
        }
    }

    /// The home shard of a client id on a node of `shards` shards.
    #[must_use]
    pub fn home(client_id: &str, hash_seed: u64, shards: usize) -> ShardId {
        let hash = super::hash::hash64(hash_seed, client_id.as_bytes()).max(1);
        ShardId(super::hash::scale(hash, shards) as u16)
    }

    fn on_open(&mut self, id: ConnId, peer: Peer, proxied: bool, fx: &mut Effects) {
        use super::admission::Verdict;
        let core = &mut self.core;
        core.counters.connections_opened += 1;
        let mut conn = Conn::new(id, peer, core.now_ms);
        let ip = peer.addr.ip();
        // A node that knows another one lets its clients in as far as CONNECT, to tell them. (C14)
        let elsewhere = !core.mqtt(peer.listener).server_reference.is_empty();
        let overloaded = core.refuses_connections();
        let refuse = core.draining && !elsewhere || overloaded;
        let verdict = if refuse {
            Verdict::Refuse
        } else {
            core.node.admission.enter(&core.cfg, peer.listener, ip, proxied, core.now_ms * 1000)
        };
        match verdict {
            Verdict::Refuse => {
                core.counters.connections_refused += 1;
                core.counters.overload_new_conn += u64::from(overloaded);
                conn.state = State::Closing;
                core.conns.insert(id, conn);
                fx.ops.push(Op::Close { conn: id, how: CloseHow::Abort });
            }
            Verdict::Admit => {
                conn.flags |= flag::ADMITTED | flag::HANDSHAKE;
                core.handshakes += 1;
                core.conns.insert(id, conn);
                core.arm_conn(id.index);
            }
            Verdict::Wait(until_ms) => {
                conn.flags |= flag::ADMITTED | flag::HANDSHAKE | flag::PAUSED_RATE;
                core.handshakes += 1;
                core.conns.insert(id, conn);
                fx.ops.push(Op::PauseRead { conn: id });
                let key = TimerKey::new(TimerKind::Conn, id.index);
                let timer = core.wheel.insert(until_ms, key);
                if let Some(c) = core.conns.get_mut(id.index) {
                    c.timer = Some(timer);
                }
                self.pause_accept(peer.listener, until_ms, fx);
            }
        }
    }

    /// Its transport says who it is. (T12)
    fn on_introduced(&mut self, id: ConnId, introduction: Box<Introduction>, fx: &mut Effects) {
        let core = &mut self.core;
        let now_us = core.now_ms * 1000;
        let Some(conn) = core.conns.checked(id).filter(|c| c.state == State::Fresh) else { return };
        if let Some(addr) = introduction.addr {
            let Peer { addr: seemed, listener } = conn.peer();
            let (from, to) = (seemed.ip(), addr.ip());
            if conn.has(flag::ADMITTED)
                && !core.node.admission.moves(&core.cfg, listener, from, to, now_us)
            {
                core.counters.connections_refused += 1;
                return core.close(id.index, None, CloseHow::Abort, fx);
            }
            conn.set_addr(addr);
        }
        conn.introduce(introduction);
    }

    /// Leaves further connections in the kernel's backlog until the booked ones were admitted. (T15)
    fn pause_accept(&mut self, listener: u16, until_ms: u64, fx: &mut Effects) {
        if self.sys.accept_paused.iter().any(|(l, _)| *l == listener) {
            return;
        }
        self.sys.accept_paused.push((listener, until_ms));
        fx.ops.push(Op::PauseAccept { listener });
        let key = TimerKey::new(TimerKind::Admission, u32::from(listener));
        self.core.wheel.insert(until_ms, key);
    }

    fn on_closed(&mut self, id: ConnId, cause: CloseCause) {
        let ci = id.index;
        if self.core.conns.checked(id).is_none() {
            return;
        }
        let live = self.core.conns.get(ci).is_some_and(|c| c.state == State::Live);
        if live {
            self.core.counters.client_disconnected += 1;
            let reason = match cause {
                CloseCause::PeerFin | CloseCause::Local => ReasonCode::SUCCESS,
                CloseCause::Error(_) => ReasonCode::UNSPECIFIED_ERROR,
            };
            self.core.detach(ci, reason, true); // [S-15] [MQTT-3.1.2-8]
        }
        self.forget_conn(ci);
    }

    /// The connection's slot may be used again.
    pub(crate) fn forget_conn(&mut self, ci: u32) {
        self.core.handshake_over(ci);
        self.answers.forget(ci);
        let Some(conn) = self.core.conns.remove(ci) else { return };
        self.core.out_total -= u64::from(conn.out_pending);
        if let Some(t) = conn.timer {
            self.core.wheel.cancel(t);
        }
        if conn.has(flag::ADMITTED) {
            let peer = conn.peer();
            self.core.node.admission.leave(peer.listener, peer.addr.ip());
        }
    }

    fn on_sent(&mut self, id: ConnId, bytes: u32, fx: &mut Effects) {
        let core = &mut self.core;
        core.counters.bytes_sent += u64::from(bytes);
        let Some(conn) = core.conns.checked(id) else { return };
        let bytes = bytes.min(conn.out_pending);
        conn.out_pending -= bytes;
        core.out_total -= u64::from(bytes);
        let (pending, session, flags) = (conn.out_pending, conn.session, conn.flags);
        let low = core.cfg.limits.out_buffer_bytes / 2;
        if pending > low {
            return;
        }
        if flags & (flag::CONGESTED | flag::AUTH_WAITS) != 0 && self.let_in_or_not_congested(id, fx)
        {
            return;
        }
        let core = &mut self.core;
        core.resume(id.index, flag::PAUSED_OUT, fx);
        let waits = core.sessions.get(session).is_some_and(|s| {
            s.has(super::session::flag::REPLAYING) || s.out.as_ref().is_some_and(|o| o.has_work())
        });
        if waits {
            core.pump(session, fx);
        }
    }

    /// A connection that was congested is not any more; one that waits with something unsent is let in: true then.
    #[cold]
    #[inline(never)]
    fn let_in_or_not_congested(&mut self, id: ConnId, fx: &mut Effects) -> bool {
        let Some(conn) = self.core.conns.checked(id) else { return true };
        conn.flags &= !flag::CONGESTED;
        let waits = conn.has(flag::AUTH_WAITS);
        if waits {
            self.let_in(id, fx);
        }
        waits
    }

    fn on_mail(&mut self, from: ShardId, mail: Mail, packed: &[u8], fx: &mut Effects) {
        match mail {
            Mail::Packed(span) => {
                self.deliver_local(&mut span.unpack(packed), from, fx);
                fx.observe.handled(self.core.id);
            }
            Mail::Publish(msg) => {
                let mut out = Outgoing::of(&msg);
                self.deliver_local(&mut out, from, fx);
                fx.observe.handled(self.core.id);
            }
            Mail::Journey(journey) => fx.observe.arrive(journey),
            Mail::PublishAsk(msg, ticket) => {
                let mut out = Outgoing::of(&msg);
                let done = self.deliver_local(&mut out, from, fx);
                fx.observe.handled(self.core.id);
                let (taken, refused) = (done.taken, done.refused);
                fx.send(from, Mail::Verdict { ticket, taken, refused });
            }
            Mail::Verdict { ticket, taken, refused } => {
                self.on_verdict(ticket, taken, refused, fx);
            }
            Mail::Retain(msg) => {
                self.store_retained(msg);
                self.core.node.retain_arrived(from);
            }
            Mail::RetainsAsk(replay) => fx.mail_after.push((from, Mail::RetainsSent(replay))),
            Mail::RetainsSent(replay) => self.on_retains_sent(replay, fx),
            Mail::RetainedAsk(ask) => self.on_retained_ask(from, *ask, fx),
            Mail::RetainedPage(page) => self.on_retained_page(from, *page, fx),
            Mail::Group(mail) => self.on_group_mail(from, *mail, fx),
            Mail::GroupDeliver(d) => self.on_group_deliver(*d, fx),
            Mail::GroupDone(done) => self.on_group_done(&done, fx),
            Mail::StatsAsk => {
                let stats = Box::new((self.core.count_all(&fx.driver).clone(), self.gauges()));
                fx.send(from, Mail::Stats(stats));
            }
            Mail::Stats(stats) => self.on_stats(&stats.0, &stats.1, fx),
        }
    }

    fn on_control(&mut self, control: Control, fx: &mut Effects) {
        match control {
            Control::Reload(cfg) => {
                let old = std::mem::replace(&mut self.core.cfg, Arc::clone(&cfg));
                self.core.set_config(cfg);
                self.core.overload_reloaded(fx);
                self.sys_reloaded(&old.sys);
            }
            Control::Bans(bans) => self.core.set_bans(bans),
            Control::DescriptorsScarce(scarce) => self.core.descriptors_scarce = scarce,
            Control::Pressure(pressure) => self.set_pressure(pressure, fx),
            Control::Drain => self.drain(fx),
            Control::Kick { client_id, reason, discard_session, token } => {
                let hash = self.core.client_hash(&client_id);
                if self.core.home_of(hash) != self.core.id {
                    return;
                }
                let found = self.core.find_session(&client_id, hash);
                if let Some(si) = found {
                    let ci = self.core.sessions[si].conn;
                    if ci != NONE {
                        self.core.close(ci, Some(ReasonCode(reason)), CloseHow::Flush, fx);
                    }
                    if discard_session {
                        self.end_session(si, true, fx);
                    }
                }
                fx.events.push(Event::Kicked { token, found: found.is_some() });
            }
            Control::DumpSession { client_id, token } => {
                let hash = self.core.client_hash(&client_id);
                if self.core.home_of(hash) == self.core.id {
                    let session = self.core.find_session(&client_id, hash);
                    let session = session.map(|si| Box::new(self.session_info(si)));
                    fx.events.push(Event::Session { token, session });
                }
            }
            Control::Report { spare } => self.report(spare, fx),
            Control::RecordTurns { token, ms } => fx.observe.record_turns(token, ms),
            Control::Stats { token } => {
                let counters = Box::new(self.core.count_all(&fx.driver).clone());
                fx.events.push(Event::Stats { shard: self.core.id, token, counters });
            }
        }
    }

    fn set_pressure(&mut self, pressure: Pressure, fx: &mut Effects) {
        let before = std::mem::replace(&mut self.core.pressure, pressure);
        if before == pressure {
            return;
        }
        self.publish_alarm(before, pressure, fx);
        if before == Pressure::Critical {
            self.core.resume_publishers(fx);
        }
    }

    /// Closes everything; wills follow, since a graceful stop is no reason to lose them. [S-20]
    fn drain(&mut self, fx: &mut Effects) {
        self.core.draining = true;
        for ci in self.core.conns.indices() {
            let listener = self.core.conns.get(ci).map_or(0, |c| c.listener);
            let code = if self.core.mqtt(listener).server_reference.is_empty() {
                ReasonCode::SERVER_SHUTTING_DOWN
            } else {
                ReasonCode::USE_ANOTHER_SERVER // C14
            };
            if self
                .core
                .conns
                .get(ci)
                .is_some_and(|c| c.state == State::Fresh && c.auth().is_some())
            {
                let known = code == ReasonCode::USE_ANOTHER_SERVER; // the other is none of CONNACK
                let code = if known { code } else { ReasonCode::SERVER_UNAVAILABLE };
                self.core.turn_away(ci, code, fx);
                continue;
            }
            self.core.close(ci, Some(code), CloseHow::Flush, fx);
        }
        let delayed: Vec<u32> = self
            .core
            .sessions
            .iter()
            .filter(|(_, s)| s.will().is_some())
            .map(|(si, _)| si)
            .collect();
        for si in delayed {
            if let Some(will) = self.core.sessions[si].take_will() {
                self.core.send_will(si, will);
            }
        }
    }

    fn session_info(&self, si: u32) -> SessionInfo {
        let s = &self.core.sessions[si];
        let subscriptions = s
            .subs
            .iter()
            .map(|sub| {
                let (text, qos) = self.subscription(si, *sub);
                (text, qos as u8)
            })
            .collect();
        SessionInfo {
            client_id: s.client_id.to_string(),
            connected: s.is_online(),
            version: s.version,
            expiry_s: s.expiry_s,
            subscriptions,
            inflight: s.out.as_ref().map_or(0, |o| o.inflight.len() as u32),
            queued: s.out.as_ref().map_or(0, |o| o.queue.len() as u32),
            awaiting_rel: s.awaiting_rel().map_or(0, |a| a.len() as u32),
        }
    }

    // ---- time ------------------------------------------------------------------------------------

    fn on_tick(&mut self, fx: &mut Effects) {
        let mut due = std::mem::take(&mut self.due);
        self.core.wheel.advance(self.core.now_ms, TIMERS_MAX, &mut due);
        for key in due.drain(..) {
            match key.kind() {
                TimerKind::Conn => self.core.on_conn_timer(key.index(), fx),
                TimerKind::Session => self.on_session_timer(key.index(), fx),
                TimerKind::SysInterval => self.on_sys_interval(fx),
                TimerKind::Heartbeat => self.on_heartbeat(fx),
                TimerKind::Retained => self.on_retained_timer(),
                TimerKind::Admission => {
                    let listener = key.index() as u16;
                    self.sys.accept_paused.retain(|(l, _)| *l != listener);
                    fx.ops.push(Op::ResumeAccept { listener });
                }
                TimerKind::Lag => self.core.on_lag_timer(fx),
                TimerKind::Access => self.on_access_timer(fx),
            }
        }
        self.due = due;
        self.routes.maintain(4096);
    }

    fn on_session_timer(&mut self, si: u32, fx: &mut Effects) {
        let now_ms = self.core.now_ms;
        let Some(s) = self.core.sessions.get_mut(si) else { return };
        s.timer = None;
        if s.is_online() {
            return;
        }
        let offline_ms = now_ms.saturating_sub(s.offline_at_ms);
        let expired = s.is_expired(now_ms);
        let will_due = s.will().is_some_and(|w| offline_ms >= u64::from(w.delay_s) * 1000);
        if (expired || will_due)
            && let Some(will) = s.take_will()
        {
            self.core.send_will(si, will); // [S-16]
        }
        if expired {
            self.end_session(si, false, fx);
        } else {
            self.core.arm_session(si);
        }
    }

    // ---- what came up in between -------------------------------------------------------------------

    fn finish(&mut self, fx: &mut Effects) {
        // Each entry may add some: wills do, when a subscriber is closed for being slow. Every chain
        // ends, since each step ends a connection or a session or empties a queue.
        while !self.core.after.is_empty() {
            for after in std::mem::take(&mut self.core.after) {
                match after {
                    After::Will(msg) => self.publish_will(&msg, fx),
                    After::EndSession { session, generation } => {
                        if self.core.sessions.get_checked(session, generation).is_some() {
                            self.end_session(session, false, fx);
                        }
                    }
                    After::MemberStatus { session, generation } => {
                        if self.core.sessions.get_checked(session, generation).is_some() {
                            self.tell_groups(session, fx);
                        }
                    }
                    After::Disconnected { client_id, reason } => {
                        self.publish_disconnected(&client_id, reason, fx);
                    }
                    After::Connected { conn, generation, clean_start, session_present } => {
                        let id = ConnId { index: conn, generation };
                        self.publish_connected(id, clean_start, session_present, fx);
                    }
                    After::Group { name } => self.after_join(&name, fx),
                    After::Replay { session } => self.continue_replays(session, fx),
                }
            }
        }
    }

    fn on_turn_end(&mut self, fx: &mut Effects) {
        // What waits for members that are done may be done with at once, and so on: each round takes
        // messages out of the queues of groups.
        while !self.core.done.is_empty() {
            self.flush_done(fx);
            self.finish(fx);
        }
        self.core.tell_queued_bytes();
        self.core.watch_lag();
        if self.core.draining && !self.drain_reported && self.core.conns.len() == 0 {
            self.drain_reported = true;
            fx.events.push(Event::Drained { shard: self.core.id });
        }
    }

    /// Goes on with what the last turn left.
    fn continue_deferred(&mut self, fx: &mut Effects) {
        for si in std::mem::take(&mut self.core.pump_later) {
            self.core.pump(si, fx);
        }
        for id in std::mem::take(&mut self.deferred) {
            if !self.core.is_open(id) {
                continue;
            }
            if Core::turn_is_full(fx) {
                self.deferred.push(id);
                continue;
            }
            if let Some(conn) = self.core.conns.get_mut(id.index) {
                conn.flags &= !flag::PAUSED_TURN;
            }
            self.on_data(id, &[], fx);
            if self.core.is_open(id)
                && let Some(conn) = self.core.conns.get_mut(id.index)
                && !conn.has(flag::PAUSED)
            {
                fx.ops.push(Op::ResumeRead { conn: id });
            }
        }
    }

    /// The rest of a connection's bytes waits for the next turn.
    pub(crate) fn defer(&mut self, id: ConnId, fx: &mut Effects) {
        self.core.pause(id.index, flag::PAUSED_TURN, fx);
        if !self.deferred.contains(&id) {
            self.deferred.push(id);
        }
    }

    fn on_lane_drained(&mut self, fx: &mut Effects) {
        if !fx.lanes_full.is_empty() {
            return;
        }
        for id in std::mem::take(&mut self.stalled) {
            if self.core.is_open(id) {
                self.core.resume(id.index, flag::PAUSED_LANE, fx);
            }
        }
    }

    pub(crate) fn session_of(&self, ci: u32) -> u32 {
        conn_session(&self.core.conns, ci)
    }

    /// A ticket for an entry of a slab.
    pub(crate) fn pending_sub_ticket(&self, index: u32) -> Ticket {
        super::core::ticket(&self.pending_subs.slab, index)
    }
}

impl Machine for Shard {
    fn handle(&mut self, now: Now, input: Input<'_>, fx: &mut Effects) {
        self.core.set_clock(now);
        let turn_ends = matches!(input, Input::TurnEnd);
        if !matches!(input, Input::Tick | Input::TurnEnd) {
            self.core.overload.worked();
        }
        match input {
            Input::Open { conn, peer, proxied } => self.on_open(conn, peer, proxied, fx),
            Input::Introduced { conn, introduction } => self.on_introduced(conn, introduction, fx),
            Input::Arrived { conn, parcel } => self.on_arrived(conn, *parcel, fx),
            Input::Data { conn, bytes } => {
                self.core.counters.bytes_received += bytes.len() as u64;
                self.on_data(conn, bytes, fx);
            }
            Input::Authenticated { conn, verdict } => self.on_authenticated(conn, verdict, fx),
            Input::Sent { conn, bytes } => self.on_sent(conn, bytes, fx),
            Input::Closed { conn, cause } => self.on_closed(conn, cause),
            Input::NotMoved { peer } => self.core.on_not_moved(peer),
            Input::Mail { from, mail, packed } => self.on_mail(from, mail, packed, fx),
            Input::LaneDrained { .. } => self.on_lane_drained(fx),
            Input::Control(control) => self.on_control(control, fx),
            Input::Tick => {
                self.continue_metered(fx);
                self.continue_deferred(fx);
                self.on_tick(fx);
            }
            Input::TurnEnd => {}
        }
        self.finish(fx);
        if turn_ends {
            self.on_turn_end(fx);
        }
    }

    fn deadline_ms(&self) -> u64 {
        if !self.deferred.is_empty() || !self.core.pump_later.is_empty() {
            return 0;
        }
        self.core.wheel.next_deadline().unwrap_or(u64::MAX).min(self.core.waiting.next_ms())
    }

    fn accept_room(&self) -> u32 {
        self.core.cfg.limits.max_handshakes_per_shard.saturating_sub(self.core.handshakes)
    }
}
