//! Shared subscriptions: each group has a home shard, which gives every message to one member.
//! [S-60 to S-68]

use std::collections::VecDeque;
use std::sync::Arc;

use hashbrown::HashMap;
use ringmain_mqtt::QoS;
use ringmain_mqtt::subscription::{Kind, parse_subscription};

use super::config::{Redispatch, StickyPick, Strategy};
use super::core::{After, Core};
use super::counters::DropReason;
use super::delivery::{Fanout, Target};
use super::effects::Effects;
use super::hash::hash64;
use super::ids::ShardId;
use super::mail::{GroupDeliver, GroupDone, GroupMail, Mail, MemberRef};
use super::message::{Message, Outgoing};
use super::publish::{GROUP_BIT, qos_of};
use super::session::Waits;
use super::shard::Shard;
use super::slab::{NONE, Slab};
use super::subs::{FilterId, SubOpts};

/// Publishers whose turn a round-robin group remembers. Beyond it the turns start anew.
const TURNS_MAX: usize = 1024;

/// The groups and exclusive filters whose home is this shard.
#[derive(Debug, Default)]
pub(crate) struct Groups {
    slab: Slab<Group>,
    by_name: HashMap<Arc<str>, u32>,
    by_hash: HashMap<u64, u32>,
    exclusive: HashMap<Arc<str>, MemberRef>,
    queued: u64,
}

impl Groups {
    pub(crate) fn len(&self) -> usize {
        self.slab.len()
    }
    pub(crate) fn queued(&self) -> u64 {
        self.queued
    }
}

/// A group of members that share the messages of one filter. `Lives on: home shard of its name.`
/// A message is with one member, or in the queue, never both.
#[derive(Debug)]
pub(crate) struct Group {
    name: Arc<str>,
    filter: FilterId,
    strategy: Strategy,
    sticky_pick: StickyPick,
    members: Vec<Member>,
    turn: usize,
    turns: HashMap<u64, usize>,
    sticky: Option<MemberRef>,
    queue: VecDeque<Arc<Message>>,
    /// At the front of the queue: how many came back from members, in the order they were published.
    returned: usize,
    /// Of what is queued.
    bytes: u64,
}

#[derive(Debug)]
struct Member {
    at: MemberRef,
    client: u64,
    online: bool,
    window: u16,
    /// QoS > 0 messages given to it and not finished.
    outstanding: u32,
}

impl Member {
    fn takes(&self, qos: QoS, except: Option<MemberRef>) -> bool {
        self.online
            && except != Some(self.at)
            && (qos == QoS::AtMostOnce || self.outstanding < u32::from(self.window))
    }
}

/// What strategies look at.
struct Choice {
    publisher: u64,
    topic_hash: u64,
    from: ShardId,
    qos: QoS,
    except: Option<MemberRef>,
}

impl Group {
    /// The member that gets a message, of those who can take one now.
    fn pick(&mut self, c: &Choice, rng: &mut fastrand::Rng) -> Option<usize> {
        let takes = |m: &Member| m.takes(c.qos, c.except);
        match self.strategy {
            Strategy::Random => self.pick_random(&takes, rng),
            Strategy::RoundRobinPerGroup => {
                let at = self.next_from(self.turn, &takes)?;
                self.turn = at + 1;
                Some(at)
            }
            Strategy::RoundRobin => {
                if self.turns.len() >= TURNS_MAX && !self.turns.contains_key(&c.publisher) {
                    self.turns.clear();
                }
                let turn = self.turns.get(&c.publisher).copied().unwrap_or(0);
                let at = self.next_from(turn, &takes)?;
                self.turns.insert(c.publisher, at + 1);
                Some(at)
            }
            Strategy::Sticky => {
                let current = self.sticky.and_then(|s| self.members.iter().position(|m| m.at == s));
                if let Some(at) = current.filter(|at| takes(&self.members[*at])) {
                    return Some(at);
                }
                let at = match self.sticky_pick {
                    StickyPick::Random => self.pick_random(&takes, rng),
                    StickyPick::Local => self.pick_local(c.from, &takes, rng),
                    StickyPick::HashClientId => self.pick_hash(c.publisher, &takes),
                    StickyPick::HashTopic => self.pick_hash(c.topic_hash, &takes),
                }?;
                self.sticky = Some(self.members[at].at);
                Some(at)
            }
            Strategy::Local => self.pick_local(c.from, &takes, rng),
            Strategy::HashClientId => self.pick_hash(c.publisher, &takes),
            Strategy::HashTopic => self.pick_hash(c.topic_hash, &takes),
            Strategy::LeastInflight => {
                let n = self.members.len();
                let start = self.turn;
                self.turn = self.turn.wrapping_add(1);
                (0..n)
                    .map(|i| (start.wrapping_add(i)) % n)
                    .filter(|at| takes(&self.members[*at]))
                    .min_by_key(|at| self.members[*at].outstanding)
            }
        }
    }

    fn pick_random(
        &self,
        takes: &dyn Fn(&Member) -> bool,
        rng: &mut fastrand::Rng,
    ) -> Option<usize> {
        let n = self.members.iter().filter(|m| takes(m)).count();
        let nth = rng.usize(0..n.max(1));
        self.members.iter().enumerate().filter(|(_, m)| takes(m)).nth(nth).map(|(at, _)| at)
    }

    fn pick_local(
        &self,
        from: ShardId,
        takes: &dyn Fn(&Member) -> bool,
        rng: &mut fastrand::Rng,
    ) -> Option<usize> {
        self.pick_random(&|m| takes(m) && m.at.shard == from, rng)
            .or_else(|| self.pick_random(takes, rng))
    }

    /// Queues what a member gave back: before all that never left, behind what came back before it
    /// and is not younger. [S-84]
    fn requeue(&mut self, msg: Arc<Message>) {
        let older = |m: &Arc<Message>| m.created_ms <= msg.created_ms;
        let behind = self.queue.iter().take(self.returned).rposition(older);
        self.queue.insert(behind.map_or(0, |at| at + 1), msg);
        self.returned += 1;
    }

    fn next_from(&self, turn: usize, takes: &dyn Fn(&Member) -> bool) -> Option<usize> {
        let n = self.members.len();
        (0..n).map(|i| (turn + i) % n).find(|at| takes(&self.members[*at]))
    }

    /// Highest random weight: stable while unrelated members come and go. (H03)
    fn pick_hash(&self, key: u64, takes: &dyn Fn(&Member) -> bool) -> Option<usize> {
        let weight = |m: &Member| hash64(key, &m.client.to_le_bytes());
        let candidates = self.members.iter().enumerate().filter(|(_, m)| takes(m));
        candidates.max_by_key(|(_, m)| weight(m)).map(|(at, _)| at)
    }
}

impl Shard {
    // ---- at the group's home -------------------------------------------------------------------------

    /// Sends mail to a group's home, or handles it here.
    pub(crate) fn send_group(&mut self, home: ShardId, mail: GroupMail, fx: &mut Effects) {
        if home == self.core.id {
            self.on_group_mail(home, mail, fx);
        } else {
            fx.send(home, Mail::Group(Box::new(mail)));
        }
    }

    pub(crate) fn on_group_mail(&mut self, from: ShardId, mail: GroupMail, fx: &mut Effects) {
        match mail {
            GroupMail::Join { name, member, online, window, client, waits } => {
                let granted = self.on_join(name, member, online, window, client);
                let joined = GroupMail::Joined { member, waits, granted };
                self.send_group(from, joined, fx);
            }
            GroupMail::Joined { member, waits, granted } => {
                self.on_joined(member, waits, granted, fx);
            }
            GroupMail::Leave { name, member, waits } => {
                self.on_leave(&name, member, fx);
                if let Some(waits) = waits {
                    self.send_group(from, GroupMail::Left { waits }, fx);
                }
            }
            GroupMail::Left { waits } => self.on_left(waits, fx),
            GroupMail::Status { name, member, online, window } => {
                let Some(gix) = self.groups.by_name.get(&name).copied() else { return };
                let group = &mut self.groups.slab[gix];
                if let Some(m) = group.members.iter_mut().find(|m| m.at == member) {
                    m.online = online;
                    m.window = window;
                }
                self.drain_group(gix, fx);
            }
            GroupMail::Return { name, member, msg } => self.on_return(&name, member, msg, fx),
        }
    }

    fn on_join(
        &mut self,
        name: Arc<str>,
        at: MemberRef,
        online: bool,
        window: u16,
        client: u64,
    ) -> bool {
        let Ok(parsed) = parse_subscription(&name, 0) else { return false };
        if parsed.kind == Kind::Exclusive {
            return *self.groups.exclusive.entry(Arc::clone(&name)).or_insert(at) == at;
        }
        let gix = match self.groups.by_name.get(&name) {
            Some(gix) => *gix,
            None => match self.create_group(&name, &parsed.kind, parsed.filter.as_str()) {
                Some(gix) => gix,
                None => return false,
            },
        };
        let members = &mut self.groups.slab[gix].members;
        if members.iter().any(|m| m.at == at) {
            return true; // a second SUBSCRIBE before the answer to the first
        }
        members.push(Member { at, client, online, window, outstanding: 0 });
        // What waits goes out behind the answer, so that SUBACK comes first.
        self.core.after.push(After::Group { name });
        true
    }

    /// A member joined: it may take what waits.
    pub(crate) fn after_join(&mut self, name: &Arc<str>, fx: &mut Effects) {
        if let Some(gix) = self.groups.by_name.get(name).copied() {
            self.drain_group(gix, fx);
        }
    }

    fn create_group(&mut self, name: &Arc<str>, kind: &Kind<'_>, filter: &str) -> Option<u32> {
        let cfg = &self.core.cfg.shared;
        let strategy = match kind {
            Kind::OShare { .. } => Strategy::HashClientId, // H05
            Kind::Share { group } => {
                cfg.group_strategies.get(*group).copied().unwrap_or(cfg.strategy)
            }
            _ => cfg.strategy,
        };
        let gix = self.groups.slab.insert(Group {
            name: Arc::clone(name),
            filter: FilterId(0),
            strategy,
            sticky_pick: cfg.sticky_pick,
            members: Vec::new(),
            turn: 0,
            turns: HashMap::new(),
            sticky: None,
            queue: VecDeque::new(),
            returned: 0,
            bytes: 0,
        });
        let opts = SubOpts::new(2, false, true, 2);
        let Ok(subscribed) = self.enter_filter(gix | GROUP_BIT, filter, opts, 0) else {
            self.groups.slab.remove(gix);
            return None;
        };
        self.groups.slab[gix].filter = subscribed.filter;
        self.groups.by_name.insert(Arc::clone(name), gix);
        let hash = hash64(self.core.node.hash_seed, name.as_bytes());
        self.groups.by_hash.insert(hash, gix);
        Some(gix)
    }

    fn on_leave(&mut self, name: &Arc<str>, at: MemberRef, fx: &mut Effects) {
        if self.groups.exclusive.get(name) == Some(&at) {
            self.groups.exclusive.remove(name);
            return;
        }
        let Some(gix) = self.groups.by_name.get(name).copied() else { return };
        let group = &mut self.groups.slab[gix];
        // Order matters to round robin: the others keep their places.
        group.members.retain(|m| m.at != at);
        if !group.members.is_empty() {
            self.drain_group(gix, fx);
            return;
        }
        let Some(group) = self.groups.slab.remove(gix) else { return };
        self.groups.by_name.remove(name);
        let hash = hash64(self.core.node.hash_seed, name.as_bytes());
        self.groups.by_hash.remove(&hash);
        let filter: Box<str> = self.subs.filter_str(group.filter).into();
        let gone = self.subs.unsubscribe(group.filter, gix | GROUP_BIT);
        if gone.is_some_and(|g| g.last_of_filter) {
            self.routes.remove(&filter);
        }
        let lost = group.queue.len() as u64;
        self.groups.queued -= lost;
        self.core.queued_bytes -= group.bytes;
        self.core.counters.delivery_matched += lost;
        self.core.counters.drop_copy(DropReason::GroupEnded, lost); // [S-66]
    }

    /// Gives a message to one member of a group, or keeps it for the group.
    pub(crate) fn dispatch_group(
        &mut self,
        gix: u32,
        out: &mut Outgoing<'_>,
        from: ShardId,
        fx: &mut Effects,
    ) -> bool {
        let Some(group) = self.groups.slab.get_mut(gix) else { return false };
        // Behind those that wait already, QoS 0 apart. [S-80]
        let waits = !group.queue.is_empty() && out.qos != QoS::AtMostOnce;
        let choice = Choice {
            publisher: out.publisher,
            topic_hash: hash64(0, out.topic.as_bytes()),
            from,
            qos: out.qos,
            except: None,
        };
        let pick = if waits { None } else { group.pick(&choice, &mut self.core.rng) };
        match pick {
            Some(at) => self.give(gix, at, out, fx),
            None => self.queue_in_group(gix, out, false),
        }
        true
    }

    fn give(&mut self, gix: u32, at: usize, out: &mut Outgoing<'_>, fx: &mut Effects) {
        let group = &mut self.groups.slab[gix];
        let name = Arc::clone(&group.name);
        let member = &mut group.members[at];
        member.outstanding += u32::from(out.qos != QoS::AtMostOnce);
        let member = member.at;
        if member.shard == self.core.id {
            self.deliver_to_member(member, out, fx);
            return;
        }
        let mail = GroupDeliver { member, name, msg: out.own() };
        fx.send(member.shard, Mail::GroupDeliver(Box::new(mail)));
    }

    /// No member can take it: QoS 0 is dropped, the rest waits for the first that can. [S-66]
    fn queue_in_group(&mut self, gix: u32, out: &mut Outgoing<'_>, returned: bool) {
        let store = self.core.cfg.mqtt.mqueue_store_qos0;
        if out.qos == QoS::AtMostOnce && !store {
            self.core.counters.delivery_matched += 1;
            self.core.counters.drop_copy(DropReason::Qos0, 1);
            return;
        }
        let msg = out.own();
        let bytes = msg.queue_bytes() as u64;
        let group = &mut self.groups.slab[gix];
        if returned {
            group.requeue(msg);
        } else {
            group.queue.push_back(msg);
        }
        let room = self.core.queue_room();
        group.bytes += bytes;
        self.core.queued_bytes += bytes;
        self.groups.queued += 1;
        self.shorten_group_queue(gix, room, bytes);
    }

    /// The oldest go until the queue is within its limits. `room` is what the node had left before
    /// `added` bytes came.
    fn shorten_group_queue(&mut self, gix: u32, room: u64, added: u64) {
        let cfg = &self.core.cfg.shared;
        let (max_len, max_bytes) = (cfg.max_group_queue_len as usize, cfg.max_group_queue_bytes);
        let mut freed = 0;
        loop {
            let group = &self.groups.slab[gix];
            let full = max_len != 0 && group.queue.len() > max_len
                || max_bytes != 0 && group.bytes > max_bytes && group.queue.len() > 1
                || added > room.saturating_add(freed); // Q08
            if !full {
                return;
            }
            let Some(msg) = self.pop_group_queue(gix) else { return };
            freed += msg.queue_bytes() as u64;
            self.core.counters.delivery_matched += 1;
            self.core.counters.drop_copy(DropReason::GroupEnded, 1);
        }
    }

    fn pop_group_queue(&mut self, gix: u32) -> Option<Arc<Message>> {
        let group = &mut self.groups.slab[gix];
        let msg = group.queue.pop_front()?;
        group.returned = group.returned.saturating_sub(1);
        let bytes = msg.queue_bytes() as u64;
        group.bytes -= bytes;
        self.core.queued_bytes -= bytes;
        self.groups.queued -= 1;
        Some(msg)
    }

    /// Gives out what waits, as far as members can take it.
    fn drain_group(&mut self, gix: u32, fx: &mut Effects) {
        while let Some(group) = self.groups.slab.get_mut(gix) {
            let Some(msg) = group.queue.front().cloned() else { return };
            if msg.is_expired(self.core.now_ms) {
                self.pop_group_queue(gix);
                self.core.counters.delivery_matched += 1;
                self.core.counters.drop_copy(DropReason::Expired, 1);
                continue;
            }
            let choice = Choice {
                publisher: msg.publisher,
                topic_hash: hash64(0, msg.topic().as_bytes()),
                from: self.core.id,
                qos: msg.qos,
                except: None,
            };
            let Some(at) = group.pick(&choice, &mut self.core.rng) else { return };
            self.pop_group_queue(gix);
            let mut out = Outgoing::of(&msg);
            self.give(gix, at, &mut out, fx);
        }
    }

    /// A member gave a message back: another one gets it. [S-63, S-67]
    fn on_return(&mut self, name: &Arc<str>, at: MemberRef, msg: Arc<Message>, fx: &mut Effects) {
        let Some(gix) = self.groups.by_name.get(name).copied() else {
            self.core.counters.delivery_matched += 1;
            self.core.counters.drop_copy(DropReason::GroupEnded, 1);
            return;
        };
        let group = &mut self.groups.slab[gix];
        if let Some(m) = group.members.iter_mut().find(|m| m.at == at) {
            // Whatever it last said of itself, it takes nothing now. It says when that changes.
            m.online = false;
            if msg.qos != QoS::AtMostOnce {
                m.outstanding = m.outstanding.saturating_sub(1);
            }
        }
        let choice = Choice {
            publisher: msg.publisher,
            topic_hash: hash64(0, msg.topic().as_bytes()),
            from: self.core.id,
            qos: msg.qos,
            except: Some(at),
        };
        // Not before what came back earlier and waits. [S-84]
        let waits = group.returned > 0 && msg.qos != QoS::AtMostOnce;
        let pick = if waits { None } else { group.pick(&choice, &mut self.core.rng) };
        let mut out = Outgoing::of(&msg);
        match pick {
            Some(to) => self.give(gix, to, &mut out, fx),
            None => self.queue_in_group(gix, &mut out, true),
        }
    }

    pub(crate) fn on_group_done(&mut self, done: &[GroupDone], fx: &mut Effects) {
        for d in done {
            let Some(gix) = self.groups.by_hash.get(&d.group).copied() else { continue };
            let group = &mut self.groups.slab[gix];
            if let Some(m) = group.members.iter_mut().find(|m| m.at == d.member) {
                m.outstanding = m.outstanding.saturating_sub(d.count);
            }
            if !group.queue.is_empty() {
                self.drain_group(gix, fx);
            }
        }
    }

    // ---- at the member's shard -----------------------------------------------------------------------

    pub(crate) fn on_group_deliver(&mut self, d: GroupDeliver, fx: &mut Effects) {
        let MemberRef { index, generation, .. } = d.member;
        if self.core.memberships.get_checked(index, generation).is_none() {
            // It left while the message was on its way.
            let home = self.core.home_of(hash64(self.core.node.hash_seed, d.name.as_bytes()));
            let mail = GroupMail::Return { name: d.name, member: d.member, msg: d.msg };
            return self.send_group(home, mail, fx);
        }
        let mut out = Outgoing::of(&d.msg);
        self.deliver_to_member(d.member, &mut out, fx);
    }

    fn deliver_to_member(&mut self, at: MemberRef, out: &mut Outgoing<'_>, fx: &mut Effects) {
        let m = &self.core.memberships[at.index];
        let (session, opts, sub_id) = (m.session, m.opts, m.sub_id);
        let immediate = self.core.cfg.shared.redispatch == Redispatch::Immediate;
        // What nobody would keep goes to another member, whoever keeps the rest. [S-67]
        let lost = qos_of(opts.qos_level()) == QoS::AtMostOnce
            && !self.core.mqtt(self.core.sessions[session].listener).mqueue_store_qos0;
        if (immediate || lost) && !self.core.session_online(session) {
            // Its disconnect is on its way to the group; the message goes back.
            let msg = out.own();
            return self.give_back(at.index, msg, fx);
        }
        if out.is_expired(self.core.now_ms) {
            // On its way to the member, or back from another one. [S-12]
            self.core.counters.delivery_matched += 1;
            self.core.counters.drop_copy(DropReason::Expired, 1);
            self.core.finish_member(at.index, out.qos);
            return;
        }
        let target = Target {
            session,
            qos: qos_of(opts.qos_level()),
            retain: out.retain && opts.retain_as_published(),
            member: at.index,
        };
        let ids = [sub_id];
        let ids = if sub_id == 0 { &[][..] } else { &ids[..] };
        self.core.deliver(target, ids, out, &mut Fanout::default(), fx);
    }

    /// Sends a message back to the home of its group.
    pub(crate) fn give_back(&mut self, member: u32, msg: Arc<Message>, fx: &mut Effects) {
        let Some(m) = self.core.memberships.get(member) else { return };
        let (home, name) = (m.home, Arc::clone(&m.name));
        let member = self.core.member_ref(member);
        self.send_group(home, GroupMail::Return { name, member, msg }, fx);
    }

    /// Takes what a session has not sent for a member out of its queue and, when the session ends,
    /// what it has sent at QoS 1 and nobody acknowledged. QoS 2 that was started stays with it.
    /// [S-63, S-64] [MQTT-4.8.2-4] [MQTT-4.8.2-5]
    pub(crate) fn take_back(
        &mut self,
        si: u32,
        member: u32,
        session_ends: bool,
    ) -> Vec<Arc<Message>> {
        let Core { sessions, counters, queued, queued_bytes, inflight, .. } = &mut self.core;
        let Some(out) = &mut sessions[si].out else { return Vec::new() };
        *queued_bytes -= out.queue.bytes();
        let unsent = out.queue.extract(|c| c.member == member);
        *queued_bytes += out.queue.bytes();
        *queued -= unsent.len() as u64;
        counters.delivery_returned += unsent.len() as u64;
        let mut back = Vec::new();
        if session_ends {
            let mut at = 0;
            while at < out.inflight.len() {
                let e = &out.inflight[at];
                if e.member != member || e.waits != Waits::Puback {
                    at += 1;
                    continue;
                }
                let Some(entry) = out.complete(at) else { break };
                *inflight -= 1;
                counters.delivery_returned += 1;
                back.extend(entry.copy.map(|c| c.msg));
            }
        }
        for e in &mut out.inflight {
            if e.member == member {
                e.member = NONE;
            }
        }
        back.extend(unsent.into_iter().map(|c| c.msg));
        back
    }

    /// The connection of a session came or went: its groups must know. [S-66]
    pub(crate) fn tell_groups(&mut self, si: u32, fx: &mut Effects) {
        let online = self.core.session_online(si);
        let window = self.member_window(si);
        let immediate = self.core.cfg.shared.redispatch == Redispatch::Immediate;
        let members: Vec<u32> =
            self.core.sessions[si].subs.iter().filter_map(|s| s.as_member()).collect();
        for member in members {
            let m = &self.core.memberships[member];
            if m.exclusive {
                continue;
            }
            let (home, name) = (m.home, Arc::clone(&m.name));
            let at = self.core.member_ref(member);
            let status = GroupMail::Status { name, member: at, online, window };
            self.send_group(home, status, fx);
            if !online && immediate {
                for msg in self.unsent(si, member) {
                    self.give_back(member, msg, fx);
                }
            }
        }
    }

    fn unsent(&mut self, si: u32, member: u32) -> Vec<Arc<Message>> {
        let Some(out) = &mut self.core.sessions[si].out else { return Vec::new() };
        self.core.queued_bytes -= out.queue.bytes();
        let unsent = out.queue.extract(|c| c.member == member);
        self.core.queued_bytes += out.queue.bytes();
        self.core.queued -= unsent.len() as u64;
        self.core.counters.delivery_returned += unsent.len() as u64;
        unsent.into_iter().map(|c| c.msg).collect()
    }

    /// Tells the groups, once a turn, which messages their members finished.
    pub(crate) fn flush_done(&mut self, fx: &mut Effects) {
        let mut here = Vec::new();
        let mut away: HashMap<ShardId, Vec<GroupDone>> = HashMap::new();
        for (member, count) in std::mem::take(&mut self.core.done) {
            let known = self.core.memberships.get_checked(member.index, member.generation);
            let Some(m) = known else { continue };
            let done = GroupDone { group: m.name_hash, member, count };
            if m.home == self.core.id {
                here.push(done);
            } else {
                away.entry(m.home).or_default().push(done);
            }
        }
        for (home, done) in away {
            fx.send(home, Mail::GroupDone(done.into()));
        }
        self.on_group_done(&here, fx);
    }
}
