//! Live messages that wait for a retained replay of their session. (docs/adr/0014) [S-23, S-44, S-83]
//!
//! A live message waits as long as an older retained message of its topic may still come, or one of
//! its publisher waits before it that it must not overtake; all others pass.

use std::collections::VecDeque;

use hashbrown::{HashMap, HashSet};
use ringmain_mqtt::QoS;
use ringmain_mqtt::topic::{TopicFilter, TopicName};
use smallvec::SmallVec;

use super::core::Core;
use super::counters::DropReason;
use super::delivery::Target;
use super::effects::Effects;
use super::hash::hash64;
use super::message::Outgoing;
use super::replay::{Replays, is_wildcard};
use super::session::{Copy, SubIds, flag};
use super::shard::Shard;
use super::slab::NONE;

/// Messages of a session that wait. When more come, all go out at once: a stored message that is
/// older than a retained one among them is then left out.
const HELD_MAX: usize = 1000;
/// Their bytes: as many as a thousand messages of a KiB.
const HELD_BYTES_MAX: u64 = 1 << 20;
/// Topics remembered of those that went out. Of further ones an older stored message may follow.
const PASSED_MAX: usize = 100_000;

const QOS: [QoS; 3] = [QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce];

/// A copy that waits.
#[derive(Debug)]
struct Waiting {
    /// Number of the last live message then, this one included.
    no: u64,
    /// A live message, not a stored one. That may stand for a stored one, see [`Held::replaces`].
    live: bool,
    copy: Copy,
}

/// What waits for the replays of one session. `Lives on: home shard.` In the order of arrival.
#[derive(Debug, Default)]
pub(crate) struct Held {
    waiting: VecDeque<Waiting>,
    bytes: u64,
    /// Number of the live message that came last. A replay only minds those after its beginning:
    /// those before were matched without its subscription.
    last: u64,
    /// More came than may wait: nothing waits any more.
    overflowed: bool,
    /// Topics of retained messages that went out for that, and the numbers of the last ones.
    passed: HashMap<u64, u64>,
}

impl Held {
    /// Where a replay begins that starts now.
    pub(crate) fn mark(&self) -> u64 {
        self.last
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Whether a newer message than the stored one of a topic waits or went out, for a subscription
    /// whose replay began at `mark`. [S-83] One that waits stands for the stored one from then on: it
    /// is not lost when the client goes away. [S-44]
    pub(crate) fn replaces(&mut self, topic: &str, mark: u64) -> bool {
        let newer = |w: &&mut Waiting| {
            w.no > mark && w.live && w.copy.msg.retain && w.copy.msg.topic() == topic
        };
        if let Some(w) = self.waiting.iter_mut().rev().find(newer) {
            w.copy.replay = true;
            return true;
        }
        let passed = !self.passed.is_empty();
        passed && self.passed.get(&topic_hash(topic)).is_some_and(|no| *no > mark)
    }

    /// Whether a message of a topic waits.
    pub(crate) fn has_topic(&self, topic: &str) -> bool {
        self.waiting.iter().any(|w| w.copy.msg.topic() == topic)
    }

    /// Whether a message would overtake one that waits. [S-80, S-81] With QoS 0 it does overtake those
    /// of its publisher that go by the window. [S-23]
    fn is_before(&self, topic: &str, publisher: u64, qos: QoS) -> bool {
        let same = |c: &Copy| c.msg.publisher == publisher && waits_behind(qos, c.qos);
        self.waiting.iter().any(|w| w.live && same(&w.copy) || w.copy.msg.topic() == topic)
    }

    /// Whether one of so many bytes is too many.
    fn is_full(&self, bytes: u64) -> bool {
        self.waiting.len() >= HELD_MAX || self.bytes + bytes > HELD_BYTES_MAX
    }

    fn push(&mut self, copy: Copy) {
        let live = !copy.replay;
        self.last += u64::from(live);
        self.bytes += copy.msg.queue_bytes() as u64;
        self.waiting.push_back(Waiting { no: self.last, live, copy });
    }

    /// Remembers a retained message that did not wait.
    fn pass(&mut self, topic: &str) {
        self.last += 1;
        if self.passed.len() < PASSED_MAX {
            self.passed.insert(topic_hash(topic), self.last);
        }
    }

    /// Takes out everything: nothing waits from now on.
    fn overflow(&mut self) -> Vec<Copy> {
        self.overflowed = true;
        self.bytes = 0;
        let waiting = std::mem::take(&mut self.waiting);
        for Waiting { no, live, copy } in &waiting {
            if copy.msg.retain && *live && self.passed.len() < PASSED_MAX {
                self.passed.insert(topic_hash(copy.msg.topic()), *no);
            }
        }
        waiting.into_iter().map(|w| w.copy).collect()
    }

    /// Takes out what need not wait any more, in order. `unsent` are the topics of stored messages
    /// in the session's queue that QoS 0 would overtake.
    fn release(
        &mut self,
        mut unsent: HashSet<u64>,
        still: impl Fn(&str) -> bool,
    ) -> SmallVec<[Copy; 4]> {
        let mut out = SmallVec::new();
        let mut topics = HashSet::new();
        let mut publishers: HashSet<(u64, QoS)> = HashSet::new();
        for w in std::mem::take(&mut self.waiting) {
            let Waiting { live, ref copy, .. } = w;
            let topic = topic_hash(copy.msg.topic());
            let publisher = copy.msg.publisher;
            let earlier =
                |qos| waits_behind(copy.qos, qos) && publishers.contains(&(publisher, qos));
            let stays = topics.contains(&topic)
                || live && QOS.into_iter().any(earlier)
                || live && copy.qos == QoS::AtMostOnce && unsent.contains(&topic)
                || live && still(copy.msg.topic());
            if stays {
                topics.insert(topic);
                if live {
                    publishers.insert((publisher, copy.qos));
                }
                self.waiting.push_back(w);
                continue;
            }
            if !live && copy.qos != QoS::AtMostOnce {
                unsent.insert(topic);
            }
            self.bytes -= copy.msg.queue_bytes() as u64;
            out.push(w.copy);
        }
        out
    }

    /// How many wait, and their bytes.
    pub(crate) fn figures(&self) -> (u64, u64) {
        (self.waiting.len() as u64, self.bytes)
    }
}

impl Shard {
    /// Takes a live message that has to wait for the replays of its session; false when it goes out.
    pub(crate) fn hold(
        replays: &mut Replays,
        core: &mut Core,
        t: Target,
        sub_ids: &[u32],
        out: &mut Outgoing<'_>,
    ) -> bool {
        let Some((held, filters)) = replays.of_session(t.session) else { return false };
        let s = &core.sessions[t.session];
        let cfg = core.cfg.mqtt_of(s.listener);
        let qos = if cfg.upgrade_qos { t.qos } else { t.qos.min(out.qos) };
        let lost = !s.is_online() && !cfg.mqueue_store_qos0;
        if qos == QoS::AtMostOnce && lost {
            return false; // nobody is there to wait
        }
        let expected = matches_any(filters, out.topic);
        if held.overflowed {
            if expected && out.retain {
                held.pass(out.topic);
            }
            return false;
        }
        let queue = s.out.as_ref().map(|o| &o.queue);
        let waits = expected
            || held.is_before(out.topic, out.publisher, qos)
            || qos == QoS::AtMostOnce && queue.is_some_and(|q| q.has_replay_of(out.topic));
        if !waits {
            return false;
        }
        let copy = Copy {
            msg: out.own(),
            sub_ids: SubIds::from_slice(sub_ids),
            member: NONE,
            qos,
            retain: t.retain,
            replay: false,
        };
        core.counters.delivery_matched += 1;
        Self::hold_copy(replays, core, t.session, copy);
        true
    }

    /// Puts a copy behind those that wait for the replays of its session.
    pub(crate) fn hold_copy(replays: &mut Replays, core: &mut Core, si: u32, copy: Copy) {
        let Some((held, _)) = replays.of_session(si) else { return };
        let bytes = copy.msg.queue_bytes() as u64;
        core.queued += 1;
        core.queued_bytes += bytes;
        let full = held.is_full(bytes) || core.queue_room() == 0;
        held.push(copy);
        if full {
            core.counters.replays_overtaken += 1;
            for copy in held.overflow() {
                core.offer_held(si, copy);
            }
            core.pump_later.push(si);
        }
    }

    /// Lets go what need not wait any more for the replays of a session; ends its replaying when
    /// all is sent.
    pub(crate) fn release_held(&mut self, si: u32, fx: &mut Effects) {
        let Some((held, filters)) = self.replays.of_session(si) else { return };
        let mut free = SmallVec::new();
        if !held.is_empty() {
            let queue = self.core.sessions[si].out.as_ref().map(|o| &o.queue);
            let unsent = queue.map(|q| q.replay_topics(topic_hash)).unwrap_or_default();
            free = held.release(unsent, |topic| matches_any(filters.clone(), topic));
        }
        let none_waits = filters.len() == 0 && held.is_empty();
        drop(filters);
        let none_freed = free.is_empty();
        for copy in free {
            self.core.offer_held(si, copy);
        }
        if none_waits && self.core.unsent_replays(si) == 0 {
            self.replays.forget_session(si);
            self.core.sessions[si].flags &= !flag::REPLAYING;
        }
        if !none_freed {
            self.core.pump(si, fx);
        }
    }
}

impl Core {
    /// Stored messages that wait in the queue of a session.
    pub(crate) fn unsent_replays(&self, si: u32) -> usize {
        self.sessions[si].out.as_ref().map_or(0, |o| o.queue.replay_len())
    }

    /// A copy that waited joins the queue of its session.
    fn offer_held(&mut self, si: u32, copy: Copy) {
        self.queued -= 1;
        self.queued_bytes -= copy.msg.queue_bytes() as u64;
        let store = self.mqtt(self.sessions[si].listener).mqueue_store_qos0;
        if copy.qos == QoS::AtMostOnce && !copy.replay && !store && !self.session_online(si) {
            self.counters.drop_copy(DropReason::Qos0, 1);
        } else {
            self.offer(si, copy);
        }
    }
}

/// Whether a message keeps its place behind an earlier one of its publisher, by their QoS: only QoS 0
/// overtakes, and only what goes by the window.
fn waits_behind(later: QoS, earlier: QoS) -> bool {
    later != QoS::AtMostOnce || earlier == QoS::AtMostOnce
}

fn matches_any<'a>(mut filters: impl Iterator<Item = &'a str>, topic: &str) -> bool {
    filters.any(|filter| {
        if !is_wildcard(filter) {
            return filter == topic;
        }
        // Both were parsed before.
        let (filter, topic) = (TopicFilter::parse(filter, 0), TopicName::parse(topic, 0));
        matches!((filter, topic), (Ok(filter), Ok(topic)) if filter.matches(&topic))
    })
}

fn topic_hash(topic: &str) -> u64 {
    hash64(0, topic.as_bytes())
}
