//! SUBSCRIBE and UNSUBSCRIBE.

use std::sync::Arc;

use hashbrown::HashMap;
use ringmain_acl::Action;
use ringmain_mqtt::subscription::{Kind, Parsed, parse_subscription};
use ringmain_mqtt::topic::TopicFilter;
use ringmain_mqtt::{
    PacketId, ReasonCode, RetainHandling, Subscribe, SubscribeOptions, Unsubscribe, Version, encode,
};

use super::config::DenyAction;
use super::core::{Core, Membership};
use super::effects::{CloseHow, Effects};
use super::hash::hash64;
use super::ids::{ConnId, ShardId};
use super::mail::{GroupMail, MemberRef, Ticket};
use super::session::SubRef;
use super::shard::Shard;
use super::slab::{NONE, Slab};
use super::subs::{FilterId, SubOpts, Subscribed};

/// A SUBSCRIBE or UNSUBSCRIBE whose answer waits for the homes of its groups. [S-55]
#[derive(Debug)]
pub(crate) struct PendingSub {
    conn: ConnId,
    packet_id: PacketId,
    session: u32,
    session_generation: u32,
    codes: Vec<u8>,
    /// Answers that have not come.
    open: u32,
    /// Memberships that wait, with their place in `codes`.
    members: Vec<(u32, usize)>,
    /// Codes that replace those granted first, with their place in `codes`.
    refused: Vec<(usize, u8)>,
    /// Replays to start after the SUBACK. [S-44]
    replays: Vec<ReplayWish>,
    unsubscribe: bool,
}

/// Questions of one connection to the homes of its groups that may be unanswered. One takes some 200
/// bytes here and in mail, and a client needs no answer to ask the next.
const ASKED_PER_CONN_MAX: u32 = 1024;

/// The same for all connections of a shard: about 13 MiB when a home stalls while everybody
/// subscribes.
const ASKED_MAX: u32 = 65_536;

const _: () = assert!(ASKED_PER_CONN_MAX <= ASKED_MAX / 16, "a few clients cannot use up all");

/// SUBSCRIBEs and UNSUBSCRIBEs under way. `Lives on: home shard of their sessions.` Each question is
/// counted from the mail that asks it to the mail that answers it, whatever becomes of who asked.
#[derive(Debug, Default)]
pub(crate) struct PendingSubs {
    pub(crate) slab: Slab<PendingSub>,
    asked: u32,
    by_conn: HashMap<ConnId, u32>,
}

impl PendingSubs {
    /// Whether a connection may ask one question more.
    fn may_ask(&self, conn: ConnId) -> bool {
        let mine = self.by_conn.get(&conn).copied().unwrap_or(0);
        mine < ASKED_PER_CONN_MAX && self.asked < ASKED_MAX
    }

    fn ask(&mut self, ticket: u32) {
        let pending = &mut self.slab[ticket];
        pending.open += 1;
        *self.by_conn.entry(pending.conn).or_insert(0) += 1;
        self.asked += 1;
    }

    /// An answer came.
    fn answered(&mut self, waits: Ticket) -> Option<&mut PendingSub> {
        let pending = self.slab.get_checked(waits.index, waits.generation)?;
        pending.open -= 1;
        self.asked -= 1;
        if let Some(mine) = self.by_conn.get_mut(&pending.conn) {
            *mine -= 1;
            if *mine == 0 {
                self.by_conn.remove(&pending.conn);
            }
        }
        Some(pending)
    }
}

/// A subscription that wants the retained messages.
#[derive(Debug)]
pub(crate) struct ReplayWish {
    pub(crate) filter: Arc<str>,
    pub(crate) id: FilterId,
    pub(crate) opts: SubOpts,
    pub(crate) sub_id: u32,
}

impl Shard {
    pub(crate) fn on_subscribe(&mut self, id: ConnId, s: &Subscribe<'_>, fx: &mut Effects) {
        let ci = id.index;
        self.core.counters.subscribe_received += 1;
        self.core.counters.client_subscribe += 1;
        let si = self.session_of(ci);
        let cfg = self.core.told_config(ci);
        let mqtt = cfg.mqtt_of(self.core.sessions[si].listener);
        let v5 = self.core.conns.get(ci).is_some_and(|c| c.version == Version::V5);
        if s.subscription_id.is_some() && !mqtt.subscription_id_available {
            let code = ReasonCode::SUBSCRIPTION_IDENTIFIERS_NOT_SUPPORTED; // C12
            return self.core.close(ci, Some(code), CloseHow::Flush, fx);
        }
        let filters = s.filters.iter().count();
        let refused = if self.id_in_use(ci, s.packet_id) {
            Some(ReasonCode::PACKET_IDENTIFIER_IN_USE)
        } else {
            std::mem::take(&mut self.core.over_rate).then_some(ReasonCode::QUOTA_EXCEEDED) // L01
        };
        if let Some(reason) = refused {
            let codes = vec![reason.0; filters];
            self.core.counters.subscribe_error += codes.len() as u64;
            self.core.counters.suback_sent += 1;
            self.core.write(ci, fx, |out, v, max| {
                let at = out.len();
                encode::suback(out, v, s.packet_id, &codes);
                out.len() - at <= max as usize
            });
            return;
        }
        self.core.count_filters(ci, filters.saturating_sub(1) as u64);
        let ticket = self.open_pending(id, s.packet_id, si, false);
        let waits = self.pending_sub_ticket(ticket);
        let mut denied = false;
        for (text, opts) in s.filters.iter() {
            let code = match parse_subscription(text, mqtt.max_topic_levels) {
                Err(_) => Err(ReasonCode::TOPIC_FILTER_INVALID), // [S-52]
                // The filter within `$share/…` and its kin counts. (AZ07)
                Ok(parsed)
                    if !self.core.may(
                        ci,
                        Action::Subscribe { qos: opts.qos },
                        parsed.filter.as_str(),
                    ) =>
                {
                    denied = true;
                    self.core.counters.subscribe_auth_error += 1;
                    Err(ReasonCode::NOT_AUTHORIZED)
                }
                Ok(parsed) => {
                    let sub_id = s.subscription_id.unwrap_or(0);
                    self.subscribe_one(si, text, &parsed, opts, sub_id, waits, v5, fx)
                }
            };
            let code = match code {
                Ok(qos) => qos,
                Err(reason) => {
                    self.core.counters.subscribe_error += 1;
                    let v31 = self.core.conns.get(ci).is_some_and(|c| c.version == Version::V31);
                    // W01: 3.1 has no way to refuse; QoS 0 is granted and nothing is delivered.
                    if v31 { 0 } else { reason.0 }
                }
            };
            self.pending_subs.slab[ticket].codes.push(code);
        }
        self.pending_subs.slab[ticket].open -= 1;
        self.finish_sub(ticket, fx);
        if denied && mqtt.deny_action == DenyAction::Disconnect {
            let text = Some("a subscription is not authorised"); // AZ04
            let code = Some(ReasonCode::NOT_AUTHORIZED);
            self.core.close_with(ci, code, text, CloseHow::Flush, fx);
        }
    }

    /// One filter: the granted QoS, or why not.
    fn subscribe_one(
        &mut self,
        si: u32,
        text: &str,
        parsed: &Parsed<'_>,
        opts: SubscribeOptions,
        sub_id: u32,
        waits: Ticket,
        v5: bool,
        fx: &mut Effects,
    ) -> Result<u8, ReasonCode> {
        let cfg = self.core.told_config(self.core.sessions[si].conn);
        let mqtt = cfg.mqtt_of(self.core.sessions[si].listener);
        if parsed.filter.is_wildcard() && !mqtt.wildcard_available {
            return Err(ReasonCode::WILDCARD_SUBSCRIPTIONS_NOT_SUPPORTED); // C12
        }
        if self.is_too_wide(si, &parsed.filter, mqtt.min_wildcard_depth) {
            return Err(ReasonCode::TOPIC_FILTER_INVALID); // L10: well-formed, but not for this client
        }
        if parsed.is_shared() && !mqtt.shared_available {
            return Err(ReasonCode::SHARED_SUBSCRIPTIONS_NOT_SUPPORTED); // C12
        }
        // The broker grants every QoS even where it accepts less. [MQTT-3.2.2-9]
        let qos = opts.qos.min(mqtt.max_qos);
        let packed = SubOpts::new(
            qos as u8,
            opts.no_local,
            opts.retain_as_published,
            match opts.retain_handling {
                RetainHandling::Send => 0,
                RetainHandling::SendIfNew => 1,
                RetainHandling::DoNotSend => 2,
            },
        );
        let max = mqtt.max_subscriptions as usize;
        let full = max != 0 && self.core.sessions[si].subs.len() >= max;
        if parsed.is_shared() {
            return self.subscribe_group(si, text, packed, sub_id, waits, full, fx);
        }
        if matches!(parsed.kind, Kind::Exclusive) {
            return self.subscribe_exclusive(si, text, packed, sub_id, waits, full, fx);
        }
        let filter = parsed.filter.as_str();
        if full && self.subs.find(filter).is_none_or(|f| self.subs.get(f, si).is_none()) {
            return Err(ReasonCode::QUOTA_EXCEEDED); // P15
        }
        let (id, new) = self.subscribe_plain(si, filter, packed, sub_id)?;
        let wanted = match opts.retain_handling {
            RetainHandling::Send => true,
            RetainHandling::SendIfNew => new, // [S-40] [MQTT-3.3.1-10]
            RetainHandling::DoNotSend => false,
        };
        if wanted || !v5 {
            let wish = ReplayWish { filter: filter.into(), id, opts: packed, sub_id };
            self.pending_subs.slab[waits.index].replays.push(wish);
        }
        Ok(qos as u8)
    }

    /// Whether a filter has a wildcard before the level from which on it may.
    fn is_too_wide(&self, si: u32, filter: &TopicFilter<'_>, depth: u16) -> bool {
        depth != 0
            && filter.is_wildcard()
            && filter.plain_levels() < usize::from(depth)
            && !self.core.is_superuser(self.core.sessions[si].conn)
    }

    /// Enters a filter into the index, and its route into the node's table before the SUBACK.
    pub(crate) fn subscribe_plain(
        &mut self,
        si: u32,
        filter: &str,
        opts: SubOpts,
        sub_id: u32,
    ) -> Result<(FilterId, bool), ReasonCode> {
        let subscribed = self.enter_filter(si, filter, opts, sub_id)?;
        let entry = SubRef::filter(subscribed.filter.0);
        // The entry may be there for an exclusive subscription to the same filter only.
        let new = subscribed.replaced.is_none()
            || self.exclusive_of(si, subscribed.filter).is_some()
                && !self.core.sessions[si].subs.contains(&entry);
        if new {
            self.core.sessions[si].subs.push(entry);
        }
        Ok((subscribed.filter, new))
    }

    /// Enters a filter into the index for a session or a group, and its route into the node's table if it
    /// is new to this shard. Changes nothing when there is no room for that.
    pub(crate) fn enter_filter(
        &mut self,
        who: u32,
        filter: &str,
        opts: SubOpts,
        sub_id: u32,
    ) -> Result<Subscribed, ReasonCode> {
        // Its memory arrives while the index is at work.
        let route = self.routes.prepare(filter);
        let subscribed = self.subs.subscribe(filter, who, opts, sub_id);
        if subscribed.first_of_filter {
            let max = self.core.cfg.limits.max_routes as usize;
            let full = max != 0 && self.routes.table().len() >= max;
            if full || self.routes.insert_prepared(route).is_err() {
                self.subs.unsubscribe(subscribed.filter, who);
                return Err(ReasonCode::QUOTA_EXCEEDED);
            }
        }
        Ok(subscribed)
    }

    /// The exclusive subscription of a session to a filter of the index.
    fn exclusive_of(&self, si: u32, id: FilterId) -> Option<u32> {
        let mut members = self.core.sessions[si].subs.iter().filter_map(|s| s.as_member());
        members.find(|m| {
            let m = &self.core.memberships[*m];
            m.exclusive && exclusive_filter(&m.name) == self.subs.filter_str(id)
        })
    }

    /// Takes a filter out of the index.
    fn unsubscribe_plain(&mut self, si: u32, id: FilterId) -> bool {
        let filter: Option<Box<str>> =
            (self.subs.subscribers(id).len() == 1).then(|| self.subs.filter_str(id).into());
        let Some(gone) = self.subs.unsubscribe(id, si) else { return false };
        if gone.last_of_filter
            && let Some(filter) = filter
        {
            self.routes.remove(&filter);
        }
        true
    }

    fn subscribe_group(
        &mut self,
        si: u32,
        name: &str,
        opts: SubOpts,
        sub_id: u32,
        waits: Ticket,
        full: bool,
        fx: &mut Effects,
    ) -> Result<u8, ReasonCode> {
        let granted = opts.qos_level();
        if let Some(m) = self.membership(si, name) {
            let (joined, home) = (self.core.memberships[m].joined, self.core.memberships[m].home);
            if !joined && !self.may_ask(waits, home) {
                return Err(self.too_many_wait());
            }
            // Replaced: options and identifier live here, the group need not know.
            let known = &mut self.core.memberships[m];
            known.opts = opts;
            known.sub_id = sub_id;
            if !known.joined {
                // The earlier SUBSCRIBE is not answered yet, and this one must not be before it.
                self.ask_to_join(si, m, waits, fx);
            }
            return Ok(granted);
        }
        if full {
            return Err(ReasonCode::QUOTA_EXCEEDED);
        }
        self.join(si, name, opts, sub_id, false, waits, fx)?;
        Ok(granted)
    }

    /// `$exclusive/f`: the home of the name grants it to one session at a time. (H08)
    fn subscribe_exclusive(
        &mut self,
        si: u32,
        name: &str,
        opts: SubOpts,
        sub_id: u32,
        waits: Ticket,
        full: bool,
        fx: &mut Effects,
    ) -> Result<u8, ReasonCode> {
        if let Some(m) = self.membership(si, name) {
            let (joined, home) = (self.core.memberships[m].joined, self.core.memberships[m].home);
            if !joined && !self.may_ask(waits, home) {
                return Err(self.too_many_wait());
            }
            let known = &mut self.core.memberships[m];
            known.opts = opts;
            known.sub_id = sub_id;
            if !known.joined {
                self.ask_to_join(si, m, waits, fx);
                return Ok(opts.qos_level());
            }
            let filter = exclusive_filter(name).to_owned();
            self.subscribe_exclusive_filter(si, &filter, opts, sub_id)?;
            return Ok(opts.qos_level());
        }
        if full {
            return Err(ReasonCode::QUOTA_EXCEEDED);
        }
        self.join(si, name, opts, sub_id, true, waits, fx)?;
        Ok(opts.qos_level())
    }

    /// The filter of an exclusive subscription, in this shard's index. It is not in the session's
    /// list: the membership stands for it.
    fn subscribe_exclusive_filter(
        &mut self,
        si: u32,
        filter: &str,
        opts: SubOpts,
        sub_id: u32,
    ) -> Result<FilterId, ReasonCode> {
        Ok(self.enter_filter(si, filter, opts, sub_id)?.filter)
    }

    fn join(
        &mut self,
        si: u32,
        name: &str,
        opts: SubOpts,
        sub_id: u32,
        exclusive: bool,
        waits: Ticket,
        fx: &mut Effects,
    ) -> Result<(), ReasonCode> {
        let name_hash = hash64(self.core.node.hash_seed, name.as_bytes());
        let home = self.core.home_of(name_hash);
        if !self.may_ask(waits, home) {
            return Err(self.too_many_wait());
        }
        let name: Arc<str> = name.into();
        let member = self.core.memberships.insert(Membership {
            session: si,
            name: Arc::clone(&name),
            name_hash,
            home,
            opts,
            sub_id,
            exclusive,
            joined: false,
        });
        self.core.sessions[si].subs.push(SubRef::member(member));
        self.ask_to_join(si, member, waits, fx);
        Ok(())
    }

    /// Whether a SUBSCRIBE may ask the home of one more group. A home on this shard answers at once.
    fn may_ask(&self, waits: Ticket, home: ShardId) -> bool {
        let asking = &self.pending_subs;
        home == self.core.id || asking.may_ask(asking.slab[waits.index].conn)
    }

    /// Too many questions are unanswered. The client may ask again when it got the answers.
    fn too_many_wait(&mut self) -> ReasonCode {
        self.core.counters.subscribe_waiting_exceeded += 1;
        ReasonCode::QUOTA_EXCEEDED
    }

    /// Sends the join to the home of the group; SUBACK waits for the answer. [S-55]
    fn ask_to_join(&mut self, si: u32, member: u32, waits: Ticket, fx: &mut Effects) {
        let m = &self.core.memberships[member];
        let (home, name) = (m.home, Arc::clone(&m.name));
        self.pending_subs.ask(waits.index);
        let pending = &mut self.pending_subs.slab[waits.index];
        let place = pending.codes.len();
        pending.members.push((member, place));
        let mail = GroupMail::Join {
            name,
            member: self.core.member_ref(member),
            online: true,
            window: self.member_window(si),
            client: self.core.sessions[si].client_hash,
            waits,
        };
        self.send_group(home, mail, fx);
    }

    /// The membership of a session in a group by its name.
    fn membership(&self, si: u32, name: &str) -> Option<u32> {
        let mut members = self.core.sessions[si].subs.iter().filter_map(|s| s.as_member());
        members.find(|m| *self.core.memberships[*m].name == *name)
    }

    /// The home of a group answered a join.
    pub(crate) fn on_joined(
        &mut self,
        at: MemberRef,
        waits: Ticket,
        granted: bool,
        fx: &mut Effects,
    ) {
        let member = at.index;
        let known = self.core.memberships.get_checked(member, at.generation);
        let exclusive = known.map(|m| (m.exclusive, m.session, m.opts, m.sub_id, m.name.clone()));
        let mut refused = None;
        let mut wish = None;
        match exclusive {
            Some((true, si, opts, sub_id, name)) if granted => {
                let filter = exclusive_filter(&name);
                match self.subscribe_exclusive_filter(si, filter, opts, sub_id) {
                    Ok(id) => {
                        wish = Some(ReplayWish { filter: filter.into(), id, opts, sub_id });
                    }
                    Err(reason) => refused = Some(reason),
                }
            }
            Some((_, si, ..)) if !granted => {
                let gone = SubRef::member(member);
                self.core.sessions[si].subs.remove(gone);
                self.core.memberships.remove(member);
                refused = Some(ReasonCode::QUOTA_EXCEEDED);
            }
            None if !granted => refused = Some(ReasonCode::QUOTA_EXCEEDED), // asked twice
            _ => {}
        }
        if let Some(m) = self.core.memberships.get_checked(member, at.generation) {
            m.joined = true;
        }
        let Some(p) = self.pending_subs.answered(waits) else { return };
        if let Some((_, place)) = p.members.iter().find(|(m, _)| *m == member)
            && let Some(reason) = refused
        {
            p.refused.push((*place, reason.0));
        }
        p.replays.extend(wish);
        self.finish_sub(waits.index, fx);
    }

    /// The home of a group answered a leave.
    pub(crate) fn on_left(&mut self, waits: Ticket, fx: &mut Effects) {
        if self.pending_subs.answered(waits).is_some() {
            self.finish_sub(waits.index, fx);
        }
    }

    /// Writes SUBACK or UNSUBACK when all answers are in, then starts the replays.
    fn finish_sub(&mut self, ticket: u32, fx: &mut Effects) {
        if self.pending_subs.slab[ticket].open > 0 {
            return;
        }
        let Some(mut p) = self.pending_subs.slab.remove(ticket) else { return };
        for (place, code) in std::mem::take(&mut p.refused) {
            let v31 = self.core.conns.get(p.conn.index).is_some_and(|c| c.version == Version::V31);
            p.codes[place] = if v31 { 0 } else { code }; // W01
            self.core.counters.subscribe_error += 1;
        }
        let same_session =
            self.core.sessions.get_checked(p.session, p.session_generation).is_some();
        let same_conn = self.core.is_open(p.conn) && self.session_of(p.conn.index) == p.session;
        if same_session && same_conn {
            let (id, codes, unsubscribe) = (p.packet_id, &p.codes, p.unsubscribe);
            if unsubscribe {
                self.core.counters.unsuback_sent += 1;
            } else {
                self.core.counters.suback_sent += 1;
            }
            let fits = self.core.write(p.conn.index, fx, |out, v, max| {
                let at = out.len();
                if unsubscribe {
                    encode::unsuback(out, v, id, codes);
                } else {
                    encode::suback(out, v, id, codes);
                }
                out.len() - at <= max as usize
            });
            if !fits {
                // It can't be shortened, and the client would wait for it for ever.
                let code = ReasonCode::PACKET_TOO_LARGE;
                self.core.close(p.conn.index, Some(code), CloseHow::Flush, fx);
                return;
            }
        }
        if same_session {
            for wish in p.replays {
                self.start_replay(p.session, wish, fx);
            }
        }
    }

    /// A SUBSCRIBE or UNSUBSCRIBE that is being looked at.
    fn open_pending(
        &mut self,
        conn: ConnId,
        packet_id: PacketId,
        session: u32,
        unsubscribe: bool,
    ) -> u32 {
        self.pending_subs.slab.insert(PendingSub {
            conn,
            packet_id,
            session,
            session_generation: self.core.sessions.generation(session),
            codes: Vec::new(),
            open: 1, // until all filters were looked at: a home on this shard answers at once
            members: Vec::new(),
            refused: Vec::new(),
            replays: Vec::new(),
            unsubscribe,
        })
    }

    pub(crate) fn on_unsubscribe(&mut self, id: ConnId, u: &Unsubscribe<'_>, fx: &mut Effects) {
        self.core.counters.unsubscribe_received += 1;
        self.core.counters.client_unsubscribe += 1;
        if self.id_in_use(id.index, u.packet_id) {
            let codes = vec![ReasonCode::PACKET_IDENTIFIER_IN_USE.0; u.filters.iter().count()];
            self.core.counters.unsubscribe_error += codes.len() as u64;
            self.core.counters.unsuback_sent += 1;
            self.core.write(id.index, fx, |out, v, max| {
                let at = out.len();
                encode::unsuback(out, v, u.packet_id, &codes);
                out.len() - at <= max as usize
            });
            return;
        }
        let si = self.session_of(id.index);
        let levels = self.core.mqtt(self.core.sessions[si].listener).max_topic_levels;
        let ticket = self.open_pending(id, u.packet_id, si, true);
        let waits = self.pending_sub_ticket(ticket);
        for text in u.filters.iter() {
            let code = match parse_subscription(text, levels) {
                Err(_) => {
                    self.core.counters.unsubscribe_error += 1;
                    ReasonCode::TOPIC_FILTER_INVALID
                }
                Ok(parsed) => self.unsubscribe_one(si, text, &parsed, waits, fx),
            };
            self.pending_subs.slab[ticket].codes.push(code.0);
        }
        self.pending_subs.slab[ticket].open -= 1;
        self.finish_sub(ticket, fx);
    }

    fn unsubscribe_one(
        &mut self,
        si: u32,
        text: &str,
        parsed: &Parsed<'_>,
        waits: Ticket,
        fx: &mut Effects,
    ) -> ReasonCode {
        if matches!(parsed.kind, Kind::Plain) {
            // [MQTT-3.10.4-1] compared as strings.
            let found = self.subs.find(text).filter(|id| self.subs.get(*id, si).is_some());
            let Some(id) = found else { return ReasonCode::NO_SUBSCRIPTION_EXISTED };
            let gone = SubRef::filter(id.0);
            let subs = &mut self.core.sessions[si].subs;
            let Some(at) = subs.iter().position(|s| *s == gone) else {
                return ReasonCode::NO_SUBSCRIPTION_EXISTED; // an exclusive one, with its prefix
            };
            subs.swap_remove(at);
            self.end_plain(si, id, fx);
            return ReasonCode::SUCCESS;
        }
        let Some(member) = self.membership(si, text) else {
            return ReasonCode::NO_SUBSCRIPTION_EXISTED;
        };
        let gone = SubRef::member(member);
        self.core.sessions[si].subs.remove(gone);
        // UNSUBACK has no code for a full queue, and need not wait: from here on nothing is delivered
        // by way of this membership, the home only learns of it later. [MQTT-3.10.4-2]
        let home = self.core.memberships[member].home;
        let waits = self.may_ask(waits, home).then_some(waits);
        if let Some(waits) = waits {
            self.pending_subs.ask(waits.index);
        }
        self.leave(member, waits, false, fx);
        ReasonCode::SUCCESS
    }

    /// A plain subscription that its session does not have any more.
    pub(crate) fn end_plain(&mut self, si: u32, id: FilterId, fx: &mut Effects) {
        self.release_replays_of(si, id, fx);
        if let Some(member) = self.exclusive_of(si, id) {
            // The entry stays, as the exclusive subscription wants it.
            let m = &self.core.memberships[member];
            let (opts, sub_id) = (m.opts, m.sub_id);
            let text = self.subs.filter_str(id).to_owned();
            self.subs.subscribe(&text, si, opts, sub_id);
        } else {
            self.unsubscribe_plain(si, id);
        }
    }

    /// A session leaves a group or an exclusive filter. What it has not sent goes back to the group;
    /// when the session ends, so does what is sent at QoS 1 and not acknowledged. [S-63, S-64]
    pub(crate) fn leave(
        &mut self,
        member: u32,
        waits: Option<Ticket>,
        session_ends: bool,
        fx: &mut Effects,
    ) {
        let m = &self.core.memberships[member];
        let (si, home, name) = (m.session, m.home, Arc::clone(&m.name));
        if m.exclusive {
            if let Some(id) = self.subs.find(exclusive_filter(&name)) {
                // A plain subscription to the same filter shares the entry: it stays.
                let plain = self.core.sessions[si].subs.contains(&SubRef::filter(id.0));
                if !plain {
                    self.release_replays_of(si, id, fx);
                    self.unsubscribe_plain(si, id);
                }
            }
        } else {
            for msg in self.take_back(si, member, session_ends) {
                self.give_back(member, msg, fx);
            }
        }
        let member_ref = self.core.member_ref(member);
        self.core.memberships.remove(member);
        self.send_group(home, GroupMail::Leave { name, member: member_ref, waits }, fx);
    }

    /// The session ends: all its subscriptions go.
    pub(crate) fn unsubscribe_all(&mut self, si: u32, fx: &mut Effects) {
        for sub in std::mem::take(&mut self.core.sessions[si].subs).iter() {
            if let Some(member) = sub.as_member() {
                self.leave(member, None, true, fx);
            } else if let Some(id) = sub.as_filter() {
                self.unsubscribe_plain(si, FilterId(id));
            }
        }
    }

    /// How many unacknowledged messages a session takes.
    pub(crate) fn member_window(&self, si: u32) -> u16 {
        let s = &self.core.sessions[si];
        let max = self.core.mqtt(s.listener).max_inflight;
        let conn = if s.conn == NONE { None } else { self.core.conns.get(s.conn) };
        conn.map_or(0, |c| c.receive_max.min(max))
    }
}

fn exclusive_filter(name: &str) -> &str {
    name.strip_prefix("$exclusive/").unwrap_or(name)
}

impl Core {
    /// Whether a session's connection is there.
    pub(crate) fn session_online(&self, si: u32) -> bool {
        self.sessions.get(si).is_some_and(|s| s.conn != NONE)
    }
}
