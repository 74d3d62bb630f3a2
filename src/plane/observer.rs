//! The thread that knows what the shards do: it collects their notes, answers questions about them, and
//! reports shards that stall.

use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use hdrhistogram::Histogram;
use ringmain_shards::boundary::Control;
use ringmain_shards::engine::ids::ShardId;
use ringmain_shards::engine::node::NodeShared;
use ringmain_shards::observe::{
    ANSWER_WITHIN_MS, CertificateView, Histograms, NodeView, PerTurn, Question, Report, ShardView,
    Stage, TURNS_MS_MAX, ThreadTimes, Totals, Trace, TurnSpan,
};
use ringmain_shards::reactor::{Lookout, ShardHandle};

use super::memory::resident_bytes;
use super::transports::Certificates;
use crate::symbols::Symbols;

/// Notes are collected so often although nobody asks: shards keep only the slowest messages.
const COLLECT_EVERY: Duration = Duration::from_secs(10);
/// Collections whose messages are kept: ten minutes.
const WINDOWS: usize = 60;
/// Messages kept of a window beside its slowest.
const OTHERS: usize = 64;
/// The slowest messages kept of a window.
const SLOWEST: usize = 32;
/// A shard that has not answered is asked again after so long: its answer is lost when the channel for events is full.
const ASK_AGAIN: Duration = Duration::from_secs(30);
/// A stalled shard is looked at once in so long.
const STACK_EVERY: Duration = Duration::from_secs(10);
/// Questions that wait.
pub(super) const QUESTIONS: usize = 16;
/// Answers of shards that wait: two for each of the most shards.
pub(super) const ANSWERS: usize = 512;

/// What shards answer; the watcher passes it on.
#[derive(Debug)]
pub(super) enum Answer {
    /// To `Control::Report`.
    Report { report: Box<Report> },
    /// To `Control::RecordTurns`.
    Turns { token: u64, spans: Vec<TurnSpan> },
}

/// Lives on: its own thread, "ringmain-observe". Ends when nobody can ask any more.
pub(super) struct Observer {
    pub node: String,
    pub shared: Arc<NodeShared>,
    pub handles: Vec<ShardHandle>,
    pub lookout: Lookout,
    pub questions: flume::Receiver<Question>,
    pub answers: flume::Receiver<Answer>,
    pub certificates: Certificates,
    /// A turn that takes longer is a stall; `None`: nobody looks.
    pub stall: Option<Duration>,
}

/// What is known of one shard.
struct Known {
    totals: Box<Totals>,
    windows: VecDeque<Window>,
    last: Option<Box<Report>>,
    /// When it was asked, if it has not answered.
    asked: Option<Instant>,
    stalls: u64,
    /// The turn whose stall was reported last, ns.
    stalled_turn_ns: u64,
    looked: Option<Instant>,
}

/// Messages of ten seconds.
#[derive(Default)]
struct Window {
    began: Option<Instant>,
    slowest: Vec<Trace>,
    others: Vec<Trace>,
    /// Messages that `others` was chosen from.
    seen: u64,
}

struct Running {
    o: Observer,
    shards: Vec<Known>,
    token: u64,
    spare: Vec<Histograms>,
    collected: Instant,
    recording: Option<Recording>,
}

/// Shards record their turns; other questions are answered meanwhile.
struct Recording {
    token: u64,
    /// Who has not answered by then is left out.
    end: Instant,
    spans: Vec<TurnSpan>,
    answers: usize,
    reply: flume::Sender<Vec<TurnSpan>>,
}

impl Observer {
    /// Runs until all who can ask or answer are gone.
    pub(super) fn run(self) {
        let shards = self.handles.iter().map(|_| Known::new()).collect();
        let (spare, collected) = (Vec::new(), Instant::now());
        Running { o: self, shards, token: 0, spare, collected, recording: None }.run();
    }
}

impl Running {
    fn run(mut self) {
        loop {
            let next = flume::Selector::new()
                .recv(&self.o.questions, |q| q.ok().map(Next::Question))
                .recv(&self.o.answers, |a| a.ok().map(Next::Answer))
                .wait_timeout(self.patience());
            match next {
                Ok(Some(Next::Question(question))) => self.answer(question),
                Ok(Some(Next::Answer(answer))) => {
                    self.take(answer);
                }
                Ok(None) => return,
                Err(_) => {}
            }
            self.end_recording();
            self.look_for_stalls();
            if self.collected.elapsed() >= COLLECT_EVERY {
                self.collect();
            }
        }
    }

    fn certificates(&self) -> Vec<CertificateView> {
        self.o.certificates.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).clone()
    }

    fn patience(&self) -> Duration {
        let mut collect = COLLECT_EVERY.saturating_sub(self.collected.elapsed());
        if let Some(recording) = &self.recording {
            collect = collect.min(recording.end.saturating_duration_since(Instant::now()));
        }
        self.o.stall.map_or(collect, |stall| (stall / 2).max(Duration::from_millis(5)).min(collect))
    }

    fn answer(&mut self, question: Question) {
        // Whoever asked may have gone.
        match question {
            Question::View(reply) => {
                let up = self.collect();
                let _ = reply.try_send(Box::new(self.view(&up)));
            }
            // Nobody answers a second one meanwhile.
            Question::Turns { reply, .. } if self.recording.is_some() => drop(reply),
            Question::Turns { ms, reply } => self.record_turns(ms.min(TURNS_MS_MAX), reply),
        }
    }

    // ---- asking the shards ---------------------------------------------------------------------------

    /// Takes the notes of all shards; who answered in time.
    fn collect(&mut self) -> Vec<bool> {
        self.collected = Instant::now();
        for (handle, known) in self.o.handles.iter().zip(&mut self.shards) {
            // One that has not answered yet has one question to answer, however often it is asked.
            if known.asked.is_none_or(|at| at.elapsed() >= ASK_AGAIN) {
                let spare = Box::new(self.spare.pop().unwrap_or_default());
                known.asked = handle.send(Control::Report { spare }).ok().map(|()| Instant::now());
            }
        }
        let mut up = vec![false; self.shards.len()];
        self.wait(ANSWER_WITHIN_MS, |answered| {
            up[answered.index()] = true;
            up.iter().all(|up| *up)
        });
        up
    }

    fn record_turns(&mut self, ms: u32, reply: flume::Sender<Vec<TurnSpan>>) {
        self.token += 1;
        let token = self.token;
        for handle in &self.o.handles {
            let _ = handle.send(Control::RecordTurns { token, ms });
        }
        let end = Instant::now() + Duration::from_millis(u64::from(ms) + ANSWER_WITHIN_MS);
        self.recording = Some(Recording { token, end, spans: Vec::new(), answers: 0, reply });
    }

    /// Hands the recorded turns over when all shards have answered, or the time is over.
    fn end_recording(&mut self) {
        let shards = self.shards.len();
        let over = |r: &mut Recording| r.answers == shards || Instant::now() >= r.end;
        if let Some(mut recording) = self.recording.take_if(over) {
            recording.spans.sort_by_key(|t| (t.shard, t.at_ns));
            // Whoever asked may have gone.
            let _ = recording.reply.try_send(recording.spans);
        }
    }

    /// Takes answers until `done` says so or the time is over. Looks for stalls meanwhile.
    fn wait(&mut self, ms: u64, mut done: impl FnMut(ShardId) -> bool) {
        let end = Instant::now() + Duration::from_millis(ms);
        loop {
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return;
            }
            let step = self.o.stall.map_or(left, |stall| stall.min(left));
            match self.o.answers.recv_timeout(step) {
                Ok(answer) => {
                    if self.take(answer).is_some_and(&mut done) {
                        return;
                    }
                }
                Err(flume::RecvTimeoutError::Timeout) => self.look_for_stalls(),
                Err(flume::RecvTimeoutError::Disconnected) => return,
            }
        }
    }

    /// Nothing of a report is lost, also if it comes too late for the question. Whose report it was.
    fn take(&mut self, answer: Answer) -> Option<ShardId> {
        match answer {
            Answer::Turns { token, mut spans } => {
                if let Some(recording) = self.recording.as_mut().filter(|r| r.token == token) {
                    recording.spans.append(&mut spans);
                    recording.answers += 1;
                }
                None
            }
            Answer::Report { mut report } => {
                let shard = report.shard;
                let known = &mut self.shards[shard.index()];
                known.asked = None;
                known.add(&mut report);
                let mut used = std::mem::take(&mut report.histograms);
                used.reset();
                if self.spare.len() < self.o.handles.len() {
                    self.spare.push(*used);
                }
                known.last = Some(report);
                Some(shard)
            }
        }
    }

    fn view(&self, up: &[bool]) -> NodeView {
        let now_ns = self.o.lookout.now_ns();
        let shards = self.shards.iter().zip(up).enumerate().map(|(ix, (known, up))| {
            let shard = ShardId(ix as u16);
            let (slowest, others) = known.messages();
            ShardView {
                shard,
                report: known.last.clone().filter(|_| *up),
                histograms: known.totals.clone(),
                slowest,
                others,
                thread: thread_times(self.o.lookout.thread(shard)),
                ring: self.o.lookout.stats(shard).all().collect(),
                stalled_ms: self.stalled_for(shard).map(|for_| for_.as_millis() as u64),
                stalls: known.stalls,
            }
        });
        NodeView {
            node: self.o.node.clone(),
            version: env!("CARGO_PKG_VERSION"),
            unix_ms: SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis()
                as u64,
            uptime_ms: now_ns / 1_000_000,
            shards: shards.collect(),
            resident_bytes: resident_bytes().unwrap_or(0),
            route_table_bytes: self.o.shared.routes.bytes() as u64,
            certificates: self.certificates(),
        }
    }

    // ---- stalls ----------------------------------------------------------------------------------------

    /// How long the shard's turn lasts already, if that is a stall.
    fn stalled_for(&self, shard: ShardId) -> Option<Duration> {
        let since = self.o.lookout.turn_since_ns(shard)?;
        let lasts = Duration::from_nanos(self.o.lookout.now_ns().saturating_sub(since));
        (lasts > self.o.stall?).then_some(lasts)
    }

    fn look_for_stalls(&mut self) {
        for ix in 0..self.shards.len() {
            let shard = ShardId(ix as u16);
            let (Some(lasts), Some(turn)) =
                (self.stalled_for(shard), self.o.lookout.turn_since_ns(shard))
            else {
                continue;
            };
            let known = &mut self.shards[ix];
            if turn == known.stalled_turn_ns {
                continue;
            }
            known.stalled_turn_ns = turn;
            known.stalls += 1;
            if known.looked.is_some_and(|at| at.elapsed() < STACK_EVERY) {
                continue;
            }
            known.looked = Some(Instant::now());
            let tid = self.o.lookout.thread(shard);
            let times = thread_times(tid);
            let stack = match self.o.lookout.stack(shard) {
                Some(stack) => Symbols::own().stack(&stack).join(" < "),
                None => format!("it waits in the kernel, in {}", wait_channel(tid)),
            };
            tracing::warn!(
                shard = ix,
                turn_ms = lasts.as_millis() as u64,
                stalls = known.stalls,
                cpu = times.cpu,
                stolen_ms = times.stolen_ns / 1_000_000,
                "a shard stalls: {stack}"
            );
        }
    }
}

enum Next {
    Question(Question),
    Answer(Answer),
}

impl Known {
    fn new() -> Self {
        let empty = Histograms::default();
        let stages = Stage::ALL.iter().map(|s| Histogram::new_from(empty.stage(*s)));
        let turns = PerTurn::ALL.iter().map(|p| Histogram::new_from(empty.turn(*p)));
        Self {
            totals: Box::new(Totals { stages: stages.collect(), turns: turns.collect() }),
            windows: VecDeque::new(),
            last: None,
            asked: None,
            stalls: 0,
            stalled_turn_ns: 0,
            looked: None,
        }
    }

    fn add(&mut self, report: &mut Report) {
        for stage in Stage::ALL {
            add(&mut self.totals.stages[*stage as usize], report.histograms.stage(*stage));
        }
        for what in PerTurn::ALL {
            add(&mut self.totals.turns[*what as usize], report.histograms.turn(*what));
        }
        if self.windows.back().is_none_or(Window::is_over) {
            self.windows.push_back(Window::default());
        }
        while self.windows.len() > WINDOWS {
            self.windows.pop_front();
        }
        if let Some(window) = self.windows.back_mut() {
            window.add(std::mem::take(&mut report.slowest), std::mem::take(&mut report.others));
        }
    }

    /// All that are kept: the slowest, slowest first, and others.
    fn messages(&self) -> (Vec<Trace>, Vec<Trace>) {
        let mut slowest: Vec<Trace> =
            self.windows.iter().flat_map(|w| w.slowest.iter().cloned()).collect();
        slowest.sort_by_key(|t| std::cmp::Reverse(t.total_ns()));
        (slowest, self.windows.iter().flat_map(|w| w.others.iter().cloned()).collect())
    }
}

/// Adds counts of the same bounds.
fn add(total: &mut Histogram<u64>, new: &Histogram<u32>) {
    for value in new.iter_recorded() {
        total.saturating_record_n(value.value_iterated_to(), value.count_at_value().into());
    }
}

impl Window {
    fn is_over(&self) -> bool {
        self.began.is_some_and(|began| began.elapsed() >= COLLECT_EVERY)
    }

    fn add(&mut self, slowest: Vec<Trace>, others: Vec<Trace>) {
        self.began.get_or_insert_with(Instant::now);
        self.slowest.extend(slowest);
        self.slowest.sort_by_key(|t| std::cmp::Reverse(t.total_ns()));
        self.slowest.truncate(SLOWEST);
        for trace in others {
            self.seen += 1;
            if self.others.len() < OTHERS {
                self.others.push(trace);
            } else if let Some(place) = self.others.get_mut(fastrand::usize(..self.seen as usize)) {
                *place = trace;
            }
        }
    }
}

// ---- the operating system ----------------------------------------------------------------------------

fn of_task(tid: i32, file: &str) -> Option<String> {
    let path: PathBuf = ["/proc/self/task", &tid.to_string(), file].iter().collect();
    std::fs::read_to_string(path).ok()
}

/// A thread's times; zeros where the kernel does not account for them.
fn thread_times(tid: i32) -> ThreadTimes {
    let mut times = ThreadTimes { tid, ..ThreadTimes::default() };
    if let Some(text) = of_task(tid, "schedstat") {
        let mut numbers = text.split_whitespace().map(|n| n.parse().unwrap_or(0));
        times.cpu_ns = numbers.next().unwrap_or(0);
        times.stolen_ns = numbers.next().unwrap_or(0);
    }
    if let Some(text) = of_task(tid, "status") {
        let of = |line: &str| line.strip_prefix("nonvoluntary_ctxt_switches:")?.trim().parse().ok();
        times.preempted = text.lines().find_map(of).unwrap_or(0);
    }
    if let Some(text) = of_task(tid, "stat") {
        // The second field is a name in parentheses and may hold anything; the core is the 39th.
        let after = text.rsplit(')').next().unwrap_or_default();
        times.cpu = after.split_whitespace().nth(36).and_then(|n| n.parse().ok()).unwrap_or(0);
    }
    times
}

/// What a thread waits for in the kernel.
fn wait_channel(tid: i32) -> String {
    match of_task(tid, "wchan") {
        Some(place) if !place.is_empty() && place != "0" => place,
        _ => "an unknown place".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_thread_has_times() {
        // SAFETY: no memory involved.
        let tid = unsafe { libc::gettid() };
        // The kernel accounts for it at its next tick.
        while thread_times(tid).cpu_ns == 0 {
            std::hint::spin_loop();
        }
        assert_eq!(thread_times(tid).tid, tid);
    }

    #[test]
    fn totals_hold_what_reports_held() {
        let mut known = Known::new();
        let mut histograms = Histograms::default();
        for ns in [100, 1_000, 1_000, 5_000_000] {
            histograms.record(Stage::Send, ns);
        }
        for _ in 0..3 {
            for stage in Stage::ALL {
                add(&mut known.totals.stages[*stage as usize], histograms.stage(*stage));
            }
        }
        let total = &known.totals.stages[Stage::Send as usize];
        assert_eq!(total.len(), 12);
        assert!(total.value_at_quantile(0.5).abs_diff(1_000) <= 16);
        assert!(total.max().abs_diff(5_000_000) <= 50_000);
    }
}
