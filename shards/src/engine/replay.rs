//! Retained messages: storing them with the owner of their topic, and replaying them to a new
//! subscription in bounded pages. [S-40 to S-46, S-83]

use std::collections::VecDeque;
use std::sync::Arc;

use hashbrown::HashMap;
use smallvec::SmallVec;

use super::core::{TimerKey, TimerKind};
use super::counters::DropReason;
use super::effects::Effects;
use super::held::Held;
use super::ids::ShardId;
use super::mail::{Mail, RetainedAsk, RetainedPage, Ticket};
use super::message::{Message, Outgoing};
use super::publish::qos_of;
use super::retained::{RetainedCursor, RetainedSet};
use super::session::{Copy, SubIds, flag};
use super::shard::Shard;
use super::slab::{NONE, Slab};
use super::subs::{FilterId, SubOpts};
use super::subscribe::ReplayWish;

/// Payload bytes of a page, beyond its first message.
const PAGE_BYTES: usize = 256 << 10;
/// The replay of retained messages to one subscription. `Lives on: home shard of the session.`
#[derive(Debug)]
pub(crate) struct Replay {
    session: u32,
    filter: Arc<str>,
    filter_id: FilterId,
    opts: SubOpts,
    sub_id: u32,
    /// Live messages of the session up to this one do not count: its subscription had no part in
    /// them.
    mark: u64,
    /// Owners still to be asked; the first is being asked.
    sources: VecDeque<ShardId>,
    cursor: RetainedCursor,
    /// Shards whose retained publishes are still on their way. A page read before they are stored
    /// would bring what is older than a live message that went out already. [S-83]
    behind: u16,
    /// A page is on its way.
    asked: bool,
}

/// The replays of one session that are not yet read to their end, and what waits for them and for
/// what they brought.
#[derive(Debug, Default)]
struct SessionReplays {
    list: SmallVec<[u32; 1]>,
    held: Held,
}

/// All replays of a shard.
#[derive(Debug, Default)]
pub(crate) struct Replays {
    slab: Slab<Replay>,
    by_session: HashMap<u32, SessionReplays>,
}

impl Replays {
    fn ticket(&self, ix: u32) -> Ticket {
        super::core::ticket(&self.slab, ix)
    }

    /// What waits for the replays of a session, and the filters of those still being read.
    pub(crate) fn of_session(
        &mut self,
        si: u32,
    ) -> Option<(&mut Held, impl ExactSizeIterator<Item = &str> + Clone)> {
        let Self { slab, by_session } = self;
        let all = by_session.get_mut(&si)?;
        let slab = &*slab;
        Some((&mut all.held, all.list.iter().map(|ix| &*slab[*ix].filter)))
    }

    pub(crate) fn forget_session(&mut self, si: u32) {
        self.by_session.remove(&si);
    }
}

impl Shard {
    // ---- storing -------------------------------------------------------------------------------------

    /// Sends a retained publish to the owner of its topic. Called after the live copies were sent.
    pub(crate) fn retain(&mut self, out: &mut Outgoing<'_>, fx: &mut Effects) {
        let owner = self.owner_of(out.topic);
        if !out.payload.is_empty() {
            self.core.node.retained_may_come(owner);
        }
        let msg = out.own();
        if owner == self.core.id {
            self.store_retained(msg);
        } else {
            self.core.node.retain_sent(self.core.id);
            fx.mail_after.push((owner, Mail::Retain(msg)));
        }
    }

    /// This shard owns the topic: stores, or clears when there is no payload. [S-43]
    pub(crate) fn store_retained(&mut self, msg: Arc<Message>) {
        let me = self.core.id;
        // The broker's own are neither limited nor do they expire: there are as many as there are.
        let own = msg.topic().starts_with("$SYS/");
        if msg.payload().is_empty() {
            let before = self.retained.message_bytes();
            if self.retained.clear(msg.topic()) {
                self.core.node.retained_gone(me, 1);
                self.core.node.give_retained_places(u64::from(!own));
            }
            self.tell_retained_bytes(before);
            return;
        }
        let cfg = &self.core.cfg.retained;
        let old = self.retained.bytes_of(msg.topic(), self.core.now_ms);
        let is_new = old.is_none();
        let old_bytes = old.unwrap_or(0) as u64;
        let others = self.core.node.retained_bytes().saturating_sub(old_bytes);
        let too_large = cfg.max_bytes != 0 && others + msg.queue_bytes() as u64 > cfg.max_bytes;
        let counted = is_new && !own;
        if too_large || counted && !self.core.node.take_retained_place(cfg.max_messages) {
            self.core.node.retained_gone(me, 1); // P09: forwarded, not stored
            return;
        }
        let msg = if cfg.default_expiry_s != 0 && msg.expiry_s == u32::MAX && !own {
            Arc::new(Message { expiry_s: cfg.default_expiry_s, ..Message::clone(&msg) })
        } else {
            msg
        };
        let expires = msg.expiry_s != u32::MAX;
        let before = self.retained.message_bytes();
        let stored = self.retained.set(msg);
        if stored.is_ok() {
            self.core.counters.messages_retained += 1;
        }
        if !matches!(stored, Ok(RetainedSet::New)) {
            self.core.node.retained_gone(me, 1);
            // It replaced one that had expired, or there is no room for its topic.
            self.core.node.give_retained_places(u64::from(counted));
        }
        self.tell_retained_bytes(before);
        if expires {
            self.arm_retained();
        }
    }

    fn tell_retained_bytes(&self, before: usize) {
        self.core.node.retained_bytes_changed(before, self.retained.message_bytes());
    }

    fn arm_retained(&mut self) {
        if self.sys.retained_timer {
            return;
        }
        if let Some(at) = self.retained.next_expiry_ms() {
            self.sys.retained_timer = true;
            let key = TimerKey::new(TimerKind::Retained, 0);
            self.core.wheel.insert(at.max(self.core.now_ms + 1), key);
        }
    }

    pub(crate) fn on_retained_timer(&mut self) {
        const EXPIRE_MAX: usize = 1000;
        self.sys.retained_timer = false;
        let before = self.retained.message_bytes();
        let n = self.retained.expire(self.core.now_ms, EXPIRE_MAX) as u64;
        self.tell_retained_bytes(before);
        self.core.node.retained_gone(self.core.id, n);
        self.core.node.give_retained_places(n);
        self.core.counters.messages_dropped_expired += n;
        self.core.counters.messages_dropped += n;
        self.arm_retained();
    }

    /// One page for another shard.
    pub(crate) fn on_retained_ask(&mut self, from: ShardId, ask: RetainedAsk, fx: &mut Effects) {
        let mut cursor = ask.cursor;
        let mut messages = Vec::new();
        let done = self.page(&ask.filter, &mut cursor, &mut messages);
        let next = (!done).then_some(cursor);
        let page = RetainedPage { replay: ask.replay, messages, next };
        fx.send(from, Mail::RetainedPage(Box::new(page)));
    }

    fn page(&self, filter: &str, cursor: &mut RetainedCursor, out: &mut Vec<Arc<Message>>) -> bool {
        let now_ms = self.core.now_ms;
        let max = self.core.cfg.retained.page_messages;
        if is_wildcard(filter) {
            return self.retained.page(filter, cursor, max, PAGE_BYTES, now_ms, out);
        }
        out.extend(self.retained.get(filter, now_ms));
        true
    }

    // ---- replaying -----------------------------------------------------------------------------------

    /// Starts sending what is retained for a new subscription.
    pub(crate) fn start_replay(&mut self, si: u32, wish: ReplayWish, fx: &mut Effects) {
        let possible = |s: &ShardId| self.core.node.retained_possible(*s);
        let sources: VecDeque<ShardId> = if is_wildcard(&wish.filter) {
            (0..self.core.shards()).map(|i| ShardId(i as u16)).filter(possible).collect()
        } else {
            let owner = self.owner_of(&wish.filter);
            Some(owner).filter(possible).into_iter().collect()
        };
        if sources.is_empty() {
            return;
        }
        self.forget_replays_of(si, wish.id); // a newer SUBSCRIBE of the same filter starts over
        let all = self.replays.by_session.entry(si).or_default();
        let mark = all.held.mark();
        let ix = self.replays.slab.insert(Replay {
            session: si,
            filter: wish.filter,
            filter_id: wish.id,
            opts: wish.opts,
            sub_id: wish.sub_id,
            mark,
            sources,
            cursor: RetainedCursor::default(),
            behind: 0,
            asked: false,
        });
        all.list.push(ix);
        self.wait_for_retains(ix, fx);
        self.core.sessions[si].flags |= flag::REPLAYING;
        self.advance_replay(ix, fx);
    }

    /// Lets a replay wait for the retained publishes that are on their way. Those of this shard are
    /// ahead of its questions anyway.
    fn wait_for_retains(&mut self, ix: u32, fx: &mut Effects) {
        let ticket = self.replays.ticket(ix);
        for peer in (0..self.core.shards()).map(|i| ShardId(i as u16)) {
            if peer != self.core.id && self.core.node.has_retains_under_way(peer) {
                self.replays.slab[ix].behind += 1;
                fx.send(peer, Mail::RetainsAsk(ticket));
            }
        }
    }

    /// The retained publishes of a shard are where they are stored, or before us in the mailbox.
    pub(crate) fn on_retains_sent(&mut self, replay: Ticket, fx: &mut Effects) {
        let Ticket { index, generation } = replay;
        let Some(r) = self.replays.slab.get_checked(index, generation) else { return };
        r.behind -= 1;
        self.advance_replay(index, fx);
    }

    /// The session has room: goes on with its replays.
    pub(crate) fn continue_replays(&mut self, si: u32, fx: &mut Effects) {
        let Some(all) = self.replays.by_session.get(&si) else { return };
        for ix in all.list.clone() {
            if self.replays.slab.get(ix).is_some_and(|r| r.session == si) {
                self.advance_replay(ix, fx);
            }
        }
        // While pages are still to come, once for each of them is enough.
        let read = self.replays.by_session.get(&si).is_some_and(|all| all.list.is_empty());
        if read || self.core.unsent_replays(si) == 0 {
            self.release_held(si, fx);
        }
    }

    /// Asks for pages, reading those of this shard directly, until the session has enough to do.
    fn advance_replay(&mut self, ix: u32, fx: &mut Effects) {
        loop {
            let Some(r) = self.replays.slab.get(ix) else { return };
            if r.asked || r.behind > 0 {
                return;
            }
            let Some(source) = r.sources.front().copied() else {
                let si = r.session;
                self.forget_replay(ix);
                self.release_held(si, fx);
                return;
            };
            if self.core.unsent_replays(r.session) >= self.core.cfg.retained.page_messages {
                return; // `pump` comes back when it has drained
            }
            let (filter, cursor) = (Arc::clone(&r.filter), r.cursor.clone());
            if source != self.core.id {
                let replay = self.replays.ticket(ix);
                self.replays.slab[ix].asked = true;
                let ask = Box::new(RetainedAsk { filter, replay, cursor });
                fx.mail_after.push((source, Mail::RetainedAsk(ask)));
                return;
            }
            let mut cursor = cursor;
            let mut messages = Vec::new();
            let done = self.page(&filter, &mut cursor, &mut messages);
            self.take_page(ix, messages, (!done).then_some(cursor), fx);
        }
    }

    pub(crate) fn on_retained_page(
        &mut self,
        _from: ShardId,
        page: RetainedPage,
        fx: &mut Effects,
    ) {
        let Ticket { index, generation } = page.replay;
        let Some(r) = self.replays.slab.get_checked(index, generation) else { return };
        r.asked = false;
        self.take_page(index, page.messages, page.next, fx);
        self.advance_replay(index, fx);
    }

    fn take_page(
        &mut self,
        ix: u32,
        messages: Vec<Arc<Message>>,
        next: Option<RetainedCursor>,
        fx: &mut Effects,
    ) {
        let r = &mut self.replays.slab[ix];
        match next {
            Some(cursor) => r.cursor = cursor,
            None => {
                r.cursor = RetainedCursor::default();
                r.sources.pop_front();
            }
        }
        let si = r.session;
        for msg in messages {
            let r = &self.replays.slab[ix];
            let s = &self.core.sessions[si];
            let own = r.opts.no_local() && s.client_hash == msg.publisher; // [S-49]
            let mut held = self.replays.by_session.get_mut(&si).map(|all| &mut all.held);
            if own || held.as_mut().is_some_and(|held| held.replaces(msg.topic(), r.mark)) {
                continue;
            }
            // What waits of its topic came before this subscription, and so is older.
            let waits = held.is_some_and(|held| held.has_topic(msg.topic()));
            let cfg = self.core.cfg.mqtt_of(s.listener);
            let granted = qos_of(r.opts.qos_level());
            let qos = if cfg.upgrade_qos { granted } else { granted.min(msg.qos) }; // [S-42]
            let sub_ids = if r.sub_id == 0 { SubIds::None } else { SubIds::One(r.sub_id) };
            let copy = Copy {
                msg,
                sub_ids, // [S-48]
                member: NONE,
                qos,
                retain: true, // [S-41] [MQTT-3.3.1-8]
                replay: true,
            };
            self.core.counters.delivery_matched += 1;
            if waits {
                Self::hold_copy(&mut self.replays, &mut self.core, si, copy);
            } else {
                self.core.offer(si, copy);
            }
        }
        self.core.pump(si, fx);
    }

    fn forget_replay(&mut self, ix: u32) {
        let Some(r) = self.replays.slab.remove(ix) else { return };
        if let Some(all) = self.replays.by_session.get_mut(&r.session) {
            all.list.retain(|i| *i != ix);
        }
    }

    /// Ends the replays of one subscription.
    fn forget_replays_of(&mut self, si: u32, id: FilterId) {
        let Some(all) = self.replays.by_session.get(&si) else { return };
        let gone: SmallVec<[u32; 1]> =
            all.list.iter().copied().filter(|ix| self.replays.slab[*ix].filter_id == id).collect();
        for ix in gone {
            self.forget_replay(ix);
        }
    }

    /// Ends the replays of one subscription, which ends too.
    pub(crate) fn release_replays_of(&mut self, si: u32, id: FilterId, fx: &mut Effects) {
        self.forget_replays_of(si, id);
        self.release_held(si, fx);
    }

    /// The session ends: its replays and what they hold go.
    pub(crate) fn drop_replays(&mut self, si: u32) {
        let Some(all) = self.replays.by_session.remove(&si) else { return };
        for ix in all.list {
            self.replays.slab.remove(ix);
        }
        let (held, bytes) = all.held.figures();
        self.core.queued -= held;
        self.core.queued_bytes -= bytes;
        self.core.counters.drop_copy(DropReason::SessionEnded, held);
    }
}

pub(crate) fn is_wildcard(filter: &str) -> bool {
    memchr::memchr2(b'+', b'#', filter.as_bytes()).is_some()
}
