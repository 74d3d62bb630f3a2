//! A session and what waits in it.

use std::collections::VecDeque;
use std::sync::Arc;

use compact_str::CompactString;
use hashbrown::HashSet;
use ringmain_mqtt::QoS;
use smallvec::SmallVec;

use super::access::Known;
use super::config::{MqttConfig, QueueDropPolicy};
use super::message::Message;
use super::slab::NONE;
use super::sublist::SubList;
use super::wheel::TimerId;

/// A subscription of a session: a filter of the shard's index, or (top bit) a membership.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SubRef(pub(crate) u32);

const MEMBER_BIT: u32 = 1 << 31;

impl SubRef {
    pub(crate) fn filter(id: u32) -> Self {
        debug_assert!(id & MEMBER_BIT == 0);
        Self(id)
    }
    pub(crate) fn member(ix: u32) -> Self {
        debug_assert!(ix & MEMBER_BIT == 0);
        Self(ix | MEMBER_BIT)
    }
    pub(crate) fn as_member(self) -> Option<u32> {
        (self.0 & MEMBER_BIT != 0).then_some(self.0 & !MEMBER_BIT)
    }
    pub(crate) fn as_filter(self) -> Option<u32> {
        (self.0 & MEMBER_BIT == 0).then_some(self.0)
    }
}

/// Bits of [`Session::flags`].
pub(crate) mod flag {
    /// A retained replay is under way or not yet sent: live messages may have to wait. [S-44]
    pub(crate) const REPLAYING: u8 = 1;
    /// The user sees it as clean: ends with its connection.
    pub(crate) const ENDS_WITH_CONNECTION: u8 = 2;
}

/// `Lives on: home shard of its client id`, for as long as it exists.
#[derive(Debug)]
pub(crate) struct Session {
    pub(crate) client_id: CompactString,
    pub(crate) client_hash: u64,
    pub(crate) subs: SubList,
    pub(crate) out: Option<Box<Outbound>>,
    rare: Option<Box<Rare>>,
    pub(crate) timer: Option<TimerId>,
    /// Index of its connection, or `NONE`.
    pub(crate) conn: u32,
    /// Session expiry interval in seconds; `u32::MAX` = never.
    pub(crate) expiry_s: u32,
    /// Of the shard's publish counter: the last publish that already found this session.
    pub(crate) mark: u32,
    /// Its place among the targets of that publish.
    pub(crate) place: u32,
    /// The packet id used last.
    pub(crate) last_packet_id: u16,
    pub(crate) listener: u16,
    pub(crate) version: u8,
    pub(crate) flags: u8,
    /// When its connection ended, in ms.
    pub(crate) offline_at_ms: u64,
}

const _: () = assert!(
    size_of::<Session>() <= 104,
    "the budget of an idle connection is 256 bytes, connection and timer included"
);

/// What few sessions have, or have for long.
#[derive(Debug, Default)]
struct Rare {
    will: Option<WillMessage>,
    awaiting_rel: AwaitingRel,
}

impl Session {
    /// A session without settings, subscriptions or connection. `client_hash` is that of `client_id`.
    pub(crate) fn new(client_id: &str, client_hash: u64) -> Self {
        Self {
            client_id: client_id.into(),
            client_hash,
            subs: SubList::default(),
            out: None,
            rare: None,
            timer: None,
            conn: NONE,
            expiry_s: 0,
            mark: 0,
            place: 0,
            last_packet_id: 0,
            listener: 0,
            version: 0,
            flags: 0,
            offline_at_ms: 0,
        }
    }

    pub(crate) fn will(&self) -> Option<&WillMessage> {
        self.rare.as_ref()?.will.as_ref()
    }

    pub(crate) fn take_will(&mut self) -> Option<WillMessage> {
        let will = self.rare.as_mut()?.will.take();
        self.trim_rare();
        will
    }

    pub(crate) fn set_will(&mut self, will: Option<WillMessage>) {
        match will {
            Some(will) => self.rare.get_or_insert_default().will = Some(will),
            None => drop(self.take_will()),
        }
    }

    /// QoS 2 packet ids received and not yet released, if there may be some.
    pub(crate) fn awaiting_rel(&self) -> Option<&AwaitingRel> {
        Some(&self.rare.as_ref()?.awaiting_rel)
    }

    /// As [`awaiting_rel`](Self::awaiting_rel), to take some away.
    pub(crate) fn awaiting_rel_mut(&mut self) -> Option<&mut AwaitingRel> {
        Some(&mut self.rare.as_mut()?.awaiting_rel)
    }

    /// As [`awaiting_rel`](Self::awaiting_rel), to add one.
    pub(crate) fn await_rel(&mut self) -> &mut AwaitingRel {
        &mut self.rare.get_or_insert_default().awaiting_rel
    }

    fn trim_rare(&mut self) {
        if self.rare.as_ref().is_some_and(|r| r.will.is_none() && r.awaiting_rel.ids.is_empty()) {
            self.rare = None;
        }
    }

    pub(crate) fn has(&self, flag: u8) -> bool {
        self.flags & flag != 0
    }

    pub(crate) fn is_online(&self) -> bool {
        self.conn != NONE
    }

    /// Whether it is offline for at least its expiry interval. [S-08]
    pub(crate) fn is_expired(&self, now_ms: u64) -> bool {
        let offline_ms = now_ms.saturating_sub(self.offline_at_ms);
        !self.is_online()
            && self.expiry_s != u32::MAX
            && offline_ms >= u64::from(self.expiry_s) * 1000
    }

    pub(crate) fn outbound(&mut self) -> &mut Outbound {
        self.out.get_or_insert_default()
    }

    /// Frees what holds nothing.
    pub(crate) fn trim(&mut self) {
        if self.out.as_ref().is_some_and(|o| o.is_idle()) {
            self.out = None;
        }
        self.trim_rare();
    }
}

/// A will and when to send it.
#[derive(Debug)]
pub(crate) struct WillMessage {
    pub(crate) msg: Arc<Message>,
    pub(crate) delay_s: u32,
    /// Whose it is, to the rules: they are asked again when it goes out. [S-19]
    pub(crate) owner: Known,
}

/// Subscription identifiers of a copy.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) enum SubIds {
    #[default]
    None,
    One(u32),
    Many(Box<[u32]>),
}

impl SubIds {
    pub(crate) fn as_slice(&self) -> &[u32] {
        match self {
            Self::None => &[],
            Self::One(id) => std::slice::from_ref(id),
            Self::Many(ids) => ids,
        }
    }

    pub(crate) fn from_slice(ids: &[u32]) -> Self {
        match ids {
            [] => Self::None,
            [id] => Self::One(*id),
            ids => Self::Many(ids.into()),
        }
    }
}

/// A copy of a message for one session.
#[derive(Clone, Debug)]
pub(crate) struct Copy {
    pub(crate) msg: Arc<Message>,
    pub(crate) sub_ids: SubIds,
    /// Membership that it came by, or `NONE`.
    pub(crate) member: u32,
    pub(crate) qos: QoS,
    /// RETAIN flag to send.
    pub(crate) retain: bool,
    /// Part of a retained replay: not subject to the limits of the queue. [S-44]
    pub(crate) replay: bool,
}

/// What an unacknowledged publish waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Waits {
    Puback,
    Pubrec,
    Pubcomp,
}

/// An unacknowledged publish.
#[derive(Debug)]
pub(crate) struct Inflight {
    /// `None` after PUBREC: only the id is left. [MQTT-4.3.3-6]
    pub(crate) copy: Option<Copy>,
    pub(crate) member: u32,
    /// Sequence of its packet id's allocation.
    pub(crate) seq: u32,
    pub(crate) sent_ms: u32,
    pub(crate) packet_id: u16,
    pub(crate) waits: Waits,
    /// QoS at which it was published, which may be another than that of the copy.
    pub(crate) published: QoS,
    /// Whether it uses the Receive Maximum of the present connection. [S-22]
    pub(crate) counted: bool,
}

/// What is on its way to a client. Only exists while there is something.
#[derive(Debug, Default)]
pub(crate) struct Outbound {
    /// In the order in which they were first sent. [S-37]
    pub(crate) inflight: VecDeque<Inflight>,
    /// Entries of `inflight` before this one were sent on the present connection.
    pub(crate) resend_at: usize,
    /// Entries with `counted`.
    pub(crate) used: u16,
    pub(crate) allocations: u32,
    pub(crate) queue: Queue,
}

impl Outbound {
    pub(crate) fn is_idle(&self) -> bool {
        self.inflight.is_empty() && self.queue.is_empty()
    }

    /// Whether there is something that a socket with room could take.
    pub(crate) fn has_work(&self) -> bool {
        self.resend_at < self.inflight.len() || !self.queue.is_empty()
    }

    /// Position of a packet id in `inflight`. Acknowledgements come in order almost always, so the
    /// search starts in front.
    pub(crate) fn position(&self, packet_id: u16) -> Option<usize> {
        self.inflight.iter().position(|e| e.packet_id == packet_id)
    }

    /// The next packet id that is not in use. Ids are handed out in sequence, so one can only be in
    /// use again when the oldest is at least 65,535 allocations old.
    pub(crate) fn allocate_packet_id(&mut self, last: &mut u16) -> u16 {
        let oldest = self.inflight.front().map_or(self.allocations, |e| e.seq);
        let may_collide = self.allocations.wrapping_sub(oldest) >= 65_000;
        loop {
            *last = if *last == u16::MAX { 1 } else { *last + 1 };
            self.allocations = self.allocations.wrapping_add(1);
            if !may_collide || self.position(*last).is_none() {
                return *last;
            }
        }
    }

    /// Removes an acknowledged entry.
    pub(crate) fn complete(&mut self, at: usize) -> Option<Inflight> {
        let entry = self.inflight.remove(at)?;
        if at < self.resend_at {
            self.resend_at -= 1;
        }
        if entry.counted {
            self.used = self.used.saturating_sub(1);
        }
        Some(entry)
    }

    /// The connection ended: everything counts anew on the next one. [S-22]
    pub(crate) fn rewind(&mut self) {
        self.resend_at = 0;
        self.used = 0;
        for e in &mut self.inflight {
            e.counted = false;
        }
    }
}

/// What became of a message that was offered to a queue.
#[derive(Debug)]
pub(crate) enum Offered {
    /// It waits.
    Taken,
    /// It waits; these went for it.
    TakenFor(SmallVec<[Copy; 1]>),
    /// It did not fit.
    Full(Copy),
}

/// Messages that wait for a session. `Lives on: home shard.` QoS 0 apart from the others, since a
/// window without room must not delay it. [S-23]
#[derive(Debug, Default)]
pub(crate) struct Queue {
    levels: SmallVec<[Level; 1]>,
    qos0: VecDeque<(u32, Copy)>,
    bytes: u64,
    seq: u32,
    /// Copies of retained replays in it: they do not count against the limits.
    replay: u32,
}

/// One priority. (Q05)
#[derive(Debug)]
struct Level {
    priority: u8,
    /// How many more it may give before a lower one has a turn.
    credit: u32,
    waiting: VecDeque<(u32, Copy)>,
}

/// A level gives this many times its priority before lower ones have a turn, so that none starves.
const SHIFT: u32 = 10;

impl Queue {
    pub(crate) fn len(&self) -> usize {
        self.qos0.len() + self.levels.iter().map(|l| l.waiting.len()).sum::<usize>()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.qos0.is_empty() && self.levels.iter().all(|l| l.waiting.is_empty())
    }

    /// How many copies of retained replays wait.
    pub(crate) fn replay_len(&self) -> usize {
        self.replay as usize
    }

    /// Copies of retained replays that wait for the window.
    fn acknowledged_replays(&self) -> impl Iterator<Item = &Copy> {
        let levels = if self.replay > 0 { &self.levels[..] } else { &[] };
        levels.iter().flat_map(|l| &l.waiting).map(|(_, c)| c).filter(|c| c.replay)
    }

    /// Whether one of a topic waits for the window.
    pub(crate) fn has_replay_of(&self, topic: &str) -> bool {
        self.acknowledged_replays().any(|c| c.msg.topic() == topic)
    }

    /// Hashes of the topics of those that wait for the window.
    pub(crate) fn replay_topics(&self, hash: impl Fn(&str) -> u64) -> HashSet<u64> {
        self.acknowledged_replays().map(|c| hash(c.msg.topic())).collect()
    }

    /// Bytes of what waits, replays apart.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    pub(crate) fn has_qos0(&self) -> bool {
        !self.qos0.is_empty()
    }

    /// Offers a copy; the configured victim goes when there is no room. (Q04)
    /// `room` is how many bytes the node has left for all queues. (Q08)
    pub(crate) fn offer(&mut self, copy: Copy, cfg: &MqttConfig, room: u64) -> Offered {
        let bytes = copy.msg.queue_bytes() as u64;
        let mut victims = SmallVec::new();
        let before = self.bytes;
        while !copy.replay
            && (self.is_full(bytes, cfg) || bytes > room.saturating_add(before - self.bytes))
        {
            // QoS 0 goes first, whatever the policy; a QoS 0 newcomer only displaces QoS 0.
            let qos0 = self.qos0.iter().position(|(_, c)| !c.replay);
            let victim = if let Some(at) = qos0 {
                self.qos0.remove(at).map(|(_, c)| c)
            } else if cfg.mqueue_drop_policy == QueueDropPolicy::Oldest
                && copy.qos != QoS::AtMostOnce
            {
                self.pop_oldest()
            } else {
                None
            };
            let Some(victim) = victim else { return Offered::Full(copy) };
            self.forget(&victim);
            victims.push(victim);
        }
        self.push_back(copy, cfg);
        if victims.is_empty() { Offered::Taken } else { Offered::TakenFor(victims) }
    }

    fn is_full(&self, bytes: u64, cfg: &MqttConfig) -> bool {
        let len = self.len() - self.replay as usize;
        (cfg.max_mqueue_len != 0 && len >= cfg.max_mqueue_len as usize)
            || (cfg.max_mqueue_bytes != 0 && len > 0 && self.bytes + bytes > cfg.max_mqueue_bytes)
    }

    fn push_back(&mut self, copy: Copy, cfg: &MqttConfig) {
        self.seq = self.seq.wrapping_add(1);
        let seq = self.seq;
        if copy.replay {
            self.replay += 1;
        } else {
            self.bytes += copy.msg.queue_bytes() as u64;
        }
        if copy.qos == QoS::AtMostOnce {
            self.qos0.push_back((seq, copy));
            return;
        }
        let priority = if cfg.mqueue_priorities.is_empty() {
            0
        } else {
            let own = cfg.mqueue_priorities.get(copy.msg.topic()).copied();
            own.unwrap_or(cfg.mqueue_default_priority)
        };
        let at = self.levels.iter().position(|l| l.priority <= priority);
        let at = match at {
            Some(at) if self.levels[at].priority == priority => at,
            at => {
                let at = at.unwrap_or(self.levels.len());
                let level = Level { priority, credit: 0, waiting: VecDeque::new() };
                self.levels.insert(at, level);
                at
            }
        };
        self.levels[at].waiting.push_back((seq, copy));
    }

    fn forget(&mut self, copy: &Copy) {
        if copy.replay {
            self.replay -= 1;
        } else {
            self.bytes -= copy.msg.queue_bytes() as u64;
        }
    }

    /// The oldest of the lowest priority.
    fn pop_oldest(&mut self) -> Option<Copy> {
        let level = self.levels.iter_mut().rev().find(|l| !l.waiting.is_empty())?;
        let at = level.waiting.iter().position(|(_, c)| !c.replay)?;
        level.waiting.remove(at).map(|(_, c)| c)
    }

    /// The next to send: of QoS 0 and QoS > 0 the one that came first; of the latter by priority,
    /// and only when the window has room.
    pub(crate) fn pop(&mut self, window_open: bool) -> Option<Copy> {
        let level = if window_open { self.next_level() } else { None };
        let copy = match (level, self.qos0.front()) {
            (None, None) => return None,
            (None, Some(_)) => self.qos0.pop_front()?.1,
            (Some(at), None) => self.pop_level(at)?,
            (Some(at), Some((seq0, _))) => {
                let (seq, _) = self.levels[at].waiting.front()?;
                if (seq0.wrapping_sub(*seq) as i32) < 0 {
                    self.qos0.pop_front()?.1
                } else {
                    self.pop_level(at)?
                }
            }
        };
        self.forget(&copy);
        Some(copy)
    }

    fn next_level(&mut self) -> Option<usize> {
        let first = self.levels.iter().position(|l| !l.waiting.is_empty())?;
        let with_credit = self.levels.iter().position(|l| !l.waiting.is_empty() && l.credit > 0);
        if let Some(at) = with_credit {
            return Some(at);
        }
        for l in &mut self.levels {
            l.credit = (u32::from(l.priority) * SHIFT).max(1);
        }
        Some(first)
    }

    fn pop_level(&mut self, at: usize) -> Option<Copy> {
        let level = &mut self.levels[at];
        level.credit = level.credit.saturating_sub(1);
        level.waiting.pop_front().map(|(_, c)| c)
    }

    /// Takes out what `take` wants, in order.
    pub(crate) fn extract(&mut self, mut take: impl FnMut(&Copy) -> bool) -> Vec<Copy> {
        let mut out = Vec::new();
        let queues =
            std::iter::once(&mut self.qos0).chain(self.levels.iter_mut().map(|l| &mut l.waiting));
        for queue in queues {
            if !queue.iter().any(|(_, c)| take(c)) {
                continue;
            }
            for (seq, copy) in std::mem::take(queue) {
                if take(&copy) {
                    out.push(copy);
                } else {
                    queue.push_back((seq, copy));
                }
            }
        }
        for copy in &out {
            self.forget(copy);
        }
        out
    }

    /// Takes out everything, in no particular order of levels.
    pub(crate) fn drain(&mut self) -> Vec<Copy> {
        let mut out: Vec<_> = std::mem::take(&mut self.qos0).into_iter().map(|(_, c)| c).collect();
        for level in std::mem::take(&mut self.levels) {
            out.extend(level.waiting.into_iter().map(|(_, c)| c));
        }
        self.bytes = 0;
        self.replay = 0;
        out
    }
}

/// A QoS 2 packet id that was received and not yet released.
#[derive(Clone, Copy, Debug)]
struct Awaited {
    at_ms: u64,
    packet_id: u16,
    timed_out: bool,
}

/// QoS 2 packet ids received and not yet released. [S-33]
#[derive(Debug, Default)]
pub(crate) struct AwaitingRel {
    ids: Vec<Awaited>,
}

/// What a QoS 2 PUBLISH is to the receiver.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Awaiting {
    /// A new message.
    New,
    /// A repeat: acknowledge, do not deliver.
    Repeat,
    /// Too many are open.
    Full,
}

impl AwaitingRel {
    pub(crate) fn len(&self) -> usize {
        self.ids.iter().filter(|a| !a.timed_out).count()
    }

    /// Classifies an id without taking it in. `timed_out` is raised by the ids that stopped
    /// counting. A timed-out id that comes again with DUP is still a repeat (P22).
    pub(crate) fn classify(
        &mut self,
        packet_id: u16,
        dup: bool,
        now_ms: u64,
        cfg: &MqttConfig,
        timed_out: &mut u64,
    ) -> Awaiting {
        if let Some(at) = self.ids.iter().position(|a| a.packet_id == packet_id) {
            if dup || !self.ids[at].timed_out {
                return Awaiting::Repeat;
            }
            self.ids.swap_remove(at);
            return Awaiting::New;
        }
        if cfg.max_awaiting_rel == 0 || self.len() < usize::from(cfg.max_awaiting_rel) {
            return Awaiting::New;
        }
        let limit_ms = u64::from(cfg.await_rel_timeout_s) * 1000;
        for a in &mut self.ids {
            if limit_ms != 0 && !a.timed_out && now_ms.saturating_sub(a.at_ms) >= limit_ms {
                a.timed_out = true;
                *timed_out += 1;
            }
        }
        if self.len() < usize::from(cfg.max_awaiting_rel) { Awaiting::New } else { Awaiting::Full }
    }

    pub(crate) fn insert(&mut self, packet_id: u16, now_ms: u64) {
        self.ids.push(Awaited { at_ms: now_ms, packet_id, timed_out: false });
    }

    /// Whether the id is not yet released, and its time has not run out.
    pub(crate) fn holds(&self, packet_id: u16) -> bool {
        self.ids.iter().any(|a| a.packet_id == packet_id && !a.timed_out)
    }

    /// Releases an id; false when it is unknown.
    pub(crate) fn remove(&mut self, packet_id: u16) -> bool {
        let at = self.ids.iter().position(|a| a.packet_id == packet_id);
        at.is_some_and(|at| {
            self.ids.swap_remove(at);
            true
        })
    }
}
