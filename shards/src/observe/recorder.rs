//! The notes that a shard takes while it works.
//!
//! What happens once per send, batch or turn is noted each time; what happens once per message is noted for
//! some of them, chosen at random, at most some 100 a second. Such a message is *followed*: its
//! journey goes with it through the shards, and ends as a [`Trace`].

use super::report::{LoopTimes, Trace};
use super::sample::{Finished, Sampler};
use super::stage::{Histograms, PerTurn, Stage};
use super::view::{TURNS_MAX, TurnSpan};
use crate::engine::ids::{ConnId, ShardId};

/// Copies of one message that are followed on one shard, chosen at random: a fan-out has thousands.
const COPIES_MAX: usize = 8;
/// Copies whose acknowledgement is awaited. Each has its place by a hash; a newer one takes it over.
const UNACKED: usize = 256;

/// [`Recorder::tick`] counts these away. Its 32 bits last for four minutes.
const TICK_BITS: u32 = 6;

/// What only the driver of a shard knows of its memory, bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DriverMemory {
    /// Connections as the driver sees them.
    pub connections: u64,
    /// Receive and send buffers.
    pub buffers: u64,
}

/// What was noted since it was last taken.
#[derive(Debug)]
pub struct Observed {
    /// The loop, since the start.
    pub times: LoopTimes,
    /// Histograms.
    pub histograms: Box<Histograms>,
    /// The slowest messages, slowest first.
    pub slowest: Vec<Trace>,
    /// A random choice of messages.
    pub others: Vec<Trace>,
}

/// Makes everything in one stage take longer, for tests of those who look for slow stages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Delay {
    /// Where.
    pub stage: Stage,
    /// How long, ns. Spent spinning.
    pub ns: u64,
}

/// How a recorder is set up.
#[derive(Clone, Copy, Debug)]
pub struct Recording {
    /// Gives monotonic time in ns, as in [`Now::mono_ns`](crate::engine::ids::Now) plus `origin_ns`.
    pub clock: fn() -> u64,
    /// What the clock said when the node began.
    pub origin_ns: u64,
    /// For tests.
    pub delay: Option<Delay>,
}

/// A followed message on its way.
#[derive(Clone, Debug)]
pub struct Journey {
    /// What is known so far.
    pub trace: Trace,
    /// When its last stage ended, ns.
    pub mark_ns: u64,
}

/// A followed copy whose bytes were written to a connection.
#[derive(Debug)]
pub struct Followed {
    /// The connection.
    pub conn: ConnId,
    /// Of QoS 1 and 2: which acknowledgement ends its way.
    key: Option<AckKey>,
    /// Its way so far.
    pub journey: Box<Journey>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct AckKey {
    session: u32,
    packet_id: u16,
}

impl AckKey {
    fn place(self) -> usize {
        let mixed = (u64::from(self.session) << 16 | u64::from(self.packet_id))
            .wrapping_mul(0x9e37_79b9_7f4a_7c15);
        (mixed >> 56) as usize % UNACKED
    }
}

#[derive(Debug)]
struct Unacked {
    key: AckKey,
    /// Comes when the socket has taken it.
    journey: Option<Box<Journey>>,
    /// When it was acknowledged, ns; 0 = not yet.
    acked_ns: u64,
}

#[derive(Debug)]
struct CopyTo {
    conn: ConnId,
    subscriber: compact_str::CompactString,
    qos: u8,
    key: Option<AckKey>,
}

/// The message that is being handled, if it is followed.
#[derive(Debug)]
struct Current {
    journey: Box<Journey>,
    copies: Vec<CopyTo>,
    /// Copies seen, those that are not among `copies` included.
    seen: u32,
}

/// Turns being recorded.
#[derive(Debug)]
struct Turns {
    token: u64,
    until_ns: u64,
    spans: Vec<TurnSpan>,
}

/// The system call between two turns.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Between {
    /// It could not sleep.
    #[default]
    Submit,
    /// It could, and nothing had come when it began.
    Sleep,
    /// It could, and the kernel said that something had come.
    SleepWithWork,
}

/// A call that could sleep and took longer than this did sleep, ns: so long submissions do not take.
const SLEPT_NS: u64 = 1_000_000;

/// Quantities of a turn.
#[derive(Clone, Copy, Debug, Default)]
pub struct TurnCounts {
    /// Completions reaped.
    pub completions: u64,
    /// Mails taken.
    pub mails: u64,
    /// Sends started.
    pub sends: u64,
}

/// Values that wait to be entered together: their histogram has left the caches of a shard that sleeps between turns,
/// and is fetched once for all of them (decision record 0021).
const PENDING_MAX: usize = 16;

/// Equal values one after the other. The sends of a fan-out begin together and their completions are seen
/// together, and most turns are alike: an entry for each would cost more than all else that is noted
/// (decision record 0021).
#[derive(Clone, Copy, Debug, Default)]
struct Run {
    value: u64,
    times: u32,
}

/// Runs of one histogram that are not entered yet, the latest last.
#[derive(Debug, Default)]
struct Pending {
    runs: [Run; PENDING_MAX],
    len: usize,
}

impl Pending {
    /// One more value.
    #[inline]
    fn note(&mut self, value: u64, enter: impl FnMut(Run)) {
        if let Some(last) = self.runs[..self.len].last_mut()
            && last.value == value
            && last.times < u32::MAX
        {
            last.times += 1;
            return;
        }
        if self.len == PENDING_MAX {
            self.enter_all(enter);
        }
        self.runs[self.len] = Run { value, times: 1 };
        self.len += 1;
    }

    #[cold]
    #[inline(never)]
    fn enter_all(&mut self, enter: impl FnMut(Run)) {
        let len = std::mem::take(&mut self.len);
        self.runs[..len].iter().copied().for_each(enter);
    }
}

/// What is noted for each send and each turn.
#[derive(Debug, Default)]
struct Often {
    stages: [Pending; 2],
    turns: [Pending; 4],
}

impl Often {
    const STAGES: [Stage; 2] = [Stage::Coalesce, Stage::Send];
    const TURNS: [PerTurn; 4] =
        [PerTurn::Completions, PerTurn::Mails, PerTurn::Sends, PerTurn::Length];

    #[inline]
    fn stage(&mut self, nth: usize, ns: u64, to: &mut Histograms) {
        let what = Self::STAGES[nth];
        self.stages[nth].note(ns, |run| to.record_many(what, run.value, run.times));
    }

    #[inline]
    fn turn(&mut self, ns: u64, counts: TurnCounts, to: &mut Histograms) {
        let values = [counts.completions, counts.mails, counts.sends, ns];
        for ((pending, what), value) in self.turns.iter_mut().zip(Self::TURNS).zip(values) {
            pending.note(value, |run| to.record_turns(what, run.value, run.times));
        }
    }

    fn flush(&mut self, to: &mut Histograms) {
        for (pending, what) in self.stages.iter_mut().zip(Self::STAGES) {
            pending.enter_all(|run| to.record_many(what, run.value, run.times));
        }
        for (pending, what) in self.turns.iter_mut().zip(Self::TURNS) {
            pending.enter_all(|run| to.record_turns(what, run.value, run.times));
        }
    }
}

/// Lives on: its shard, in its scratch, where both machine and driver write to it. Without
/// [`Recorder::start`] it notes nothing.
#[derive(Debug, Default)]
pub struct Recorder {
    how: Option<Recording>,
    histograms: Box<Histograms>,
    often: Often,
    times: LoopTimes,
    /// Set by the driver before a report.
    pub driver_memory: DriverMemory,
    sampler: Sampler,
    current: Option<Current>,
    written: Vec<Followed>,
    unacked: Vec<Option<Unacked>>,
    awaited: usize,
    finished: Finished,
    turns: Option<Turns>,
    /// When the present turn began.
    turn_ns: u64,
    unix_ms: u64,
    /// For how long the driver had not looked before it.
    unread_ns: u64,
    /// When the turn before ended; 0 = there was none.
    ended_ns: u64,
    /// Ends of the parts of the present turn, if turns are being recorded.
    parts: [u64; 2],
}

impl Recorder {
    /// Notes from now on; `None`: does not.
    pub fn start(&mut self, how: Option<Recording>) {
        self.how = how;
        self.sampler.switch(how.is_some());
        if self.unacked.is_empty() {
            self.unacked.resize_with(UNACKED, || None);
        }
    }

    /// Whether anything is noted.
    #[must_use]
    pub fn is_on(&self) -> bool {
        self.how.is_some()
    }

    /// The time now, ns; 0 when nothing is noted.
    #[must_use]
    pub fn clock(&self) -> u64 {
        self.how.map_or(0, |how| (how.clock)().saturating_sub(how.origin_ns))
    }

    /// The time now in steps of 64 ns, for the short way from one shard to another.
    #[inline]
    #[must_use]
    pub fn tick(&self) -> u32 {
        (self.clock() >> TICK_BITS) as u32
    }

    /// A batch of another shard, sent at `sent`, was taken out of the mailbox at `taken`.
    #[inline]
    pub fn crossed(&mut self, sent: u32, taken: u32) {
        let ticks = taken.wrapping_sub(sent);
        // Clocks of cores agree, but not to the last step.
        let ticks = if ticks > u32::MAX / 2 { 0 } else { ticks };
        self.record(Stage::Crossing, u64::from(ticks) << TICK_BITS);
    }

    /// What was written now goes out, after `ns`.
    #[inline]
    pub fn coalesced(&mut self, ns: u64) {
        if self.is_on() {
            self.often.stage(0, ns, &mut self.histograms);
        }
    }

    /// A send was completed, `ns` after it started.
    #[inline]
    pub fn send_completed(&mut self, ns: u64) {
        if self.is_on() {
            self.often.stage(1, ns, &mut self.histograms);
        }
    }

    /// Takes what was noted, and leaves `spare` to go on with.
    pub fn take(&mut self, spare: Box<Histograms>) -> Observed {
        self.often.flush(&mut self.histograms);
        let histograms = std::mem::replace(&mut self.histograms, spare);
        let times = self.times;
        self.times.longest_turn_ns = 0;
        let (slowest, others) = self.finished.take();
        Observed { times, histograms, slowest, others }
    }

    /// Notes a time of one stage.
    #[inline]
    pub fn record(&mut self, stage: Stage, ns: u64) {
        if self.is_on() {
            self.histograms.record(stage, ns);
        }
    }

    // ---- a message in the engine --------------------------------------------------------------------

    /// A PUBLISH is about to be decoded. Whether it is followed.
    #[inline]
    pub fn begin(&mut self) -> bool {
        self.sampler.next() && self.follow_new()
    }

    #[cold]
    fn follow_new(&mut self) -> bool {
        self.spin(Stage::Turn);
        let now = self.clock();
        self.sampler.taken(now);
        let mut trace = Trace { read_unix_ms: self.unix_ms, ..Trace::default() };
        trace.spans_ns[Stage::Arrival as usize] = self.unread_ns;
        trace.spans_ns[Stage::Turn as usize] = now.saturating_sub(self.turn_ns);
        self.record(Stage::Arrival, self.unread_ns);
        self.record(Stage::Turn, now.saturating_sub(self.turn_ns));
        self.follow(Box::new(Journey { trace, mark_ns: now }));
        true
    }

    fn follow(&mut self, journey: Box<Journey>) {
        self.current = Some(Current { journey, copies: Vec::new(), seen: 0 });
    }

    /// Whether the message that is being handled is followed.
    #[inline]
    #[must_use]
    pub fn is_following(&self) -> bool {
        self.current.is_some()
    }

    /// A stage of the followed message ends here.
    #[inline]
    pub fn mark(&mut self, stage: Stage) {
        if self.current.is_some() {
            self.mark_now(stage);
        }
    }

    #[cold]
    fn mark_now(&mut self, stage: Stage) {
        self.spin(stage);
        let now = self.clock();
        let Some(current) = &mut self.current else { return };
        let ns = now.saturating_sub(current.journey.mark_ns);
        current.journey.trace.spans_ns[stage as usize] += ns;
        current.journey.mark_ns = now;
        self.record(stage, ns);
    }

    /// Who published the followed message, on which shard, and what it is.
    pub fn describe(&mut self, from: ShardId, publisher: &str, topic: &str, payload: usize) {
        if let Some(Current { journey, .. }) = &mut self.current {
            let mut end = topic.len().min(Trace::TOPIC_MAX);
            while !topic.is_char_boundary(end) {
                end -= 1;
            }
            let trace = &mut journey.trace;
            (trace.from, trace.publisher, trace.topic) =
                (from, publisher.into(), topic[..end].into());
            trace.payload_bytes = u32::try_from(payload).unwrap_or(u32::MAX);
        }
    }

    /// The followed message also goes to another shard: its way so far, to be sent before it.
    #[inline]
    pub fn cross(&mut self) -> Option<Box<Journey>> {
        let now = if self.current.is_some() { self.clock() } else { return None };
        let mut journey = self.current.as_ref()?.journey.clone();
        let ns = now.saturating_sub(journey.mark_ns);
        journey.trace.spans_ns[Stage::Route as usize] += ns;
        journey.mark_ns = now;
        Some(journey)
    }

    /// A followed message came from another shard: it is the next one to be handled.
    pub fn arrive(&mut self, mut journey: Box<Journey>) {
        if !self.is_on() {
            return;
        }
        self.spin(Stage::Crossing);
        let now = self.clock();
        let ns = now.saturating_sub(journey.mark_ns);
        journey.trace.spans_ns[Stage::Crossing as usize] = ns;
        journey.mark_ns = now;
        self.follow(journey);
    }

    /// A message comes out of a session's queue after `waited_ns`. Each is noted, some are followed: whether
    /// this one is.
    pub fn queued(&mut self, shard: ShardId, waited_ns: u64, topic: &str, payload: usize) -> bool {
        self.record(Stage::Queue, waited_ns);
        let follows = self.current.is_none() && self.sampler.next();
        if follows {
            let now = self.clock();
            self.sampler.taken(now);
            let read_unix_ms = self.unix_ms.saturating_sub(waited_ns / 1_000_000);
            let mut trace = Trace { read_unix_ms, ..Trace::default() };
            trace.spans_ns[Stage::Queue as usize] = waited_ns;
            self.follow(Box::new(Journey { trace, mark_ns: now }));
            self.describe(shard, "", topic, payload);
        }
        follows
    }

    /// The followed message was written to a connection.
    pub fn copy(&mut self, conn: ConnId, subscriber: &str, qos: u8, ack: Option<(u32, u16)>) {
        let Some(current) = &mut self.current else { return };
        current.seen += 1;
        let key = ack.map(|(session, packet_id)| AckKey { session, packet_id });
        let copy = CopyTo { conn, subscriber: subscriber.into(), qos, key };
        if current.copies.len() < COPIES_MAX {
            current.copies.push(copy);
        } else {
            let at = self.sampler.random(current.seen) as usize;
            if let Some(place) = current.copies.get_mut(at) {
                *place = copy;
            }
        }
    }

    /// The message that was handled is done with here: its copies are on their way, if it has any.
    #[inline]
    pub fn handled(&mut self, shard: ShardId) {
        if self.current.is_some() {
            self.end_route(shard);
        }
    }

    #[cold]
    fn end_route(&mut self, shard: ShardId) {
        let from_queue = self.current.as_ref().is_some_and(|c| {
            c.journey.trace.spans_ns[Stage::Queue as usize] != 0
                || c.journey.trace.publisher.is_empty()
        });
        if !from_queue {
            self.mark_now(Stage::Route);
        }
        let Some(Current { mut journey, copies, .. }) = self.current.take() else { return };
        journey.trace.to = shard;
        let mut journey = Some(journey);
        let mut copies = copies.into_iter().peekable();
        while let Some(CopyTo { conn, subscriber, qos, key }) = copies.next() {
            let own = if copies.peek().is_some() { journey.clone() } else { journey.take() };
            let Some(mut own) = own else { return };
            (own.trace.subscriber, own.trace.qos) = (subscriber, qos);
            if let Some(key) = key {
                self.await_ack(key);
            }
            self.written.push(Followed { conn, key, journey: own });
        }
    }

    fn await_ack(&mut self, key: AckKey) {
        let Some(place) = self.unacked.get_mut(key.place()) else { return };
        let old = place.replace(Unacked { key, journey: None, acked_ns: 0 });
        match old {
            None => self.awaited += 1,
            Some(Unacked { journey: Some(journey), .. }) => self.finish(&journey),
            Some(_) => {}
        }
    }

    /// The client completed a delivery.
    #[inline]
    pub fn acked(&mut self, session: u32, packet_id: u16) {
        if self.awaited != 0 {
            self.find_acked(AckKey { session, packet_id });
        }
    }

    fn find_acked(&mut self, key: AckKey) {
        let now = self.turn_ns;
        let Some(place) = self.unacked.get_mut(key.place()) else { return };
        let Some(entry) = place.as_mut().filter(|e| e.key == key) else { return };
        let Some(journey) = entry.journey.take() else {
            entry.acked_ns = now; // before the end of its send was noticed
            return;
        };
        *place = None;
        self.awaited -= 1;
        self.finish_acked(journey, now);
    }

    fn finish_acked(&mut self, mut journey: Box<Journey>, acked_ns: u64) {
        let ns = acked_ns.saturating_sub(journey.mark_ns);
        journey.trace.spans_ns[Stage::Acknowledge as usize] = ns;
        self.record(Stage::Acknowledge, ns);
        self.finish(&journey);
    }

    fn finish(&mut self, journey: &Journey) {
        self.finished.add(&journey.trace);
    }

    // ---- a message in the driver --------------------------------------------------------------------

    /// Followed copies written since this was last asked.
    pub fn take_written(&mut self) -> Option<Vec<Followed>> {
        (!self.written.is_empty()).then(|| std::mem::take(&mut self.written))
    }

    /// The socket took a followed copy.
    pub fn sent(&mut self, followed: Followed) {
        let Followed { key, journey, .. } = followed;
        let Some(key) = key else { return self.finish(&journey) };
        let Some(place) = self.unacked.get_mut(key.place()) else { return };
        match place.as_mut().filter(|e| e.key == key) {
            // Another one has its place.
            None => self.finish(&journey),
            Some(entry) if entry.acked_ns != 0 => {
                let acked_ns = entry.acked_ns;
                *place = None;
                self.awaited -= 1;
                self.finish_acked(journey, acked_ns);
            }
            Some(entry) => entry.journey = Some(journey),
        }
    }

    /// For tests: has a stage take as long as it was told to.
    #[inline]
    pub fn spin(&self, stage: Stage) {
        if let Some(Recording { delay: Some(delay), .. }) = self.how
            && delay.stage == stage
        {
            let until = self.clock() + delay.ns;
            while self.clock() < until {
                std::hint::spin_loop();
            }
        }
    }

    // ---- the loop -------------------------------------------------------------------------------------

    /// A turn begins. `between`: what the system call before it was for.
    pub fn start_turn(&mut self, now_ns: u64, unix_ms: u64, between: Between) {
        let before_ns = std::mem::replace(&mut self.turn_ns, now_ns);
        self.unix_ms = unix_ms;
        if self.ended_ns == 0 {
            return;
        }
        let away = now_ns.saturating_sub(self.ended_ns);
        let slept = between != Between::Submit;
        // What is found now came since the shard looked before, unless the shard slept: what wakes it came just
        // now. That something had come may be old news; a call that takes long did sleep.
        let looked_late = match between {
            Between::Submit => true,
            Between::SleepWithWork => away < SLEPT_NS,
            Between::Sleep => false,
        };
        self.unread_ns = if looked_late { now_ns.saturating_sub(before_ns) } else { 0 };
        *(if slept { &mut self.times.slept_ns } else { &mut self.times.enters_ns }) += away;
        if let Some(last) = self.turns.as_mut().and_then(|t| t.spans.last_mut())
            && last.enter_ns == u64::MAX
        {
            (last.enter_ns, last.slept) = (away, slept);
        }
    }

    /// A part of the turn ends: 0 = inputs, 1 = mail and orders.
    #[inline]
    pub fn part(&mut self, part: usize) {
        if self.turns.is_some() {
            self.parts[part] = self.clock();
        }
    }

    /// The turn ends; `fed`: whether there was something to do. Returns the time.
    pub fn end_turn(&mut self, shard: ShardId, fed: bool, counts: TurnCounts) -> u64 {
        if !self.is_on() {
            return self.turn_ns;
        }
        self.spin(Stage::Arrival);
        let now = self.clock();
        let ns = now.saturating_sub(self.turn_ns);
        self.ended_ns = now;
        if !fed {
            self.times.slept_ns += ns; // it only looked
            return now;
        }
        self.times.turns_ns += ns;
        self.times.longest_turn_ns = self.times.longest_turn_ns.max(ns);
        self.often.turn(ns, counts, &mut self.histograms);
        if self.turns.is_some() {
            self.note_turn(shard, now, counts);
        }
        now
    }

    /// Records turns for `ms` milliseconds.
    pub fn record_turns(&mut self, token: u64, ms: u32) {
        let until_ns = self.clock() + u64::from(ms) * 1_000_000;
        self.turns = Some(Turns { token, until_ns, spans: Vec::new() });
    }

    /// The turns recorded, when the time is over.
    pub fn turns_recorded(&mut self, now_ns: u64) -> Option<(u64, Vec<TurnSpan>)> {
        if self.turns.as_ref().is_none_or(|t| now_ns < t.until_ns) {
            return None;
        }
        let mut turns = self.turns.take()?;
        if let Some(last) = turns.spans.last_mut()
            && last.enter_ns == u64::MAX
        {
            last.enter_ns = 0;
        }
        Some((turns.token, turns.spans))
    }

    /// When a recording of turns is over, ns; `u64::MAX` = none is under way.
    #[must_use]
    pub fn turns_until_ns(&self) -> u64 {
        self.turns.as_ref().map_or(u64::MAX, |t| t.until_ns)
    }

    fn note_turn(&mut self, shard: ShardId, now: u64, counts: TurnCounts) {
        let Some(turns) = self.turns.as_mut().filter(|t| t.spans.len() < TURNS_MAX) else { return };
        let short = |ns: u64| u32::try_from(ns).unwrap_or(u32::MAX);
        let [inputs, mail] = self.parts.map(|at| at.clamp(self.turn_ns, now));
        let mail = mail.max(inputs);
        turns.spans.push(TurnSpan {
            shard,
            at_ns: self.turn_ns,
            inputs_ns: short(inputs - self.turn_ns),
            mail_ns: short(mail - inputs),
            perform_ns: short(now - mail),
            enter_ns: u64::MAX, // until the next turn begins
            slept: false,
            completions: short(counts.completions),
            mails: short(counts.mails),
            sends: short(counts.sends),
        });
    }
}

#[cfg(test)]
#[path = "recorder_tests.rs"]
mod tests;
