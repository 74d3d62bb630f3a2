//! Whether a run means anything: its problems, and the ways in which the generator itself fails.

use crate::clock::ClockOffsets;
use crate::plan::Plan;
use crate::report::Report;
use crate::run::interrupted;
use crate::stats::{Counters, Latencies, Metric, RunQueue, Shared};

/// One message in a hundred may be sent this much later than it was due, in ns. Latencies count
/// from when a message was due, so that above this the generator's own delay would be told as the
/// broker's: targets are milliseconds.
pub const DRIFT_P99_MAX_NS: u64 = 1_000_000;
/// The share of the time in which a worker wants to run that it may wait for a CPU. Above this
/// arrivals are seen late.
pub const STARVED_MAX: f64 = 0.10;
/// Below this share of one core a worker idles so much that what it waits for is noise: a few
/// wake-ups behind somebody's time slice.
const BUSY_MIN: f64 = 0.02;
/// The share of the messages that were due and could not be sent, because a client was away or its
/// queue was full. Above this another load was applied than the one asked for.
pub const UNSENT_MAX: f64 = 0.001;
/// The clocks of the machine may move against each other by this much in a quarter of a second, in
/// ns: NTP slews at most 0.5 ms a second, reading three clocks takes no microsecond, but the thread
/// that reads them may be interrupted.
pub const CLOCK_STEP_MAX_NS: u64 = 5_000_000;

/// Lives on: the coordinator.
pub(crate) struct Judge {
    open_loop: bool,
    run_queue: RunQueue,
    clocks: ClockOffsets,
    /// Reasons of stages that ended, and of the clocks.
    reasons: Vec<String>,
    remarks: Vec<String>,
    /// Where measuring began; `None` outside of traffic.
    since: Option<std::time::Instant>,
}

impl Judge {
    pub(crate) fn new(plan: &Plan) -> Self {
        Self {
            open_loop: plan.is_open_loop(),
            run_queue: RunQueue::default(),
            clocks: ClockOffsets::read(),
            reasons: Vec::new(),
            remarks: Vec::new(),
            since: None,
        }
    }

    /// Traffic begins to be measured.
    pub(crate) fn begin(&mut self, shared: &Shared) {
        self.run_queue = shared.run_queue();
        self.since = Some(std::time::Instant::now());
    }

    /// Looks at the clocks.
    pub(crate) fn look(&mut self) {
        let now = ClockOffsets::read();
        if let Some(step) = now.step_since(&self.clocks, CLOCK_STEP_MAX_NS) {
            self.reasons.push(step);
        }
        self.clocks = now;
    }

    /// The reasons so far.
    pub(crate) fn void(
        &self,
        shared: &Shared,
        stage: &Latencies,
        counters: &Counters,
        before: &Counters,
    ) -> Vec<String> {
        let mut reasons = self.reasons.clone();
        if self.since.is_some() {
            reasons.extend(self.traffic_reasons(shared, stage, &counters.since(before)).0);
        }
        reasons
    }

    /// A traffic stage ends.
    pub(crate) fn end(
        &mut self,
        name: &str,
        shared: &Shared,
        stage: &Latencies,
        before: &Counters,
    ) {
        let delta = shared.total().since(before);
        let (void, remarks) = self.traffic_reasons(shared, stage, &delta);
        self.reasons.extend(void.into_iter().map(|r| format!("{name}: {r}")));
        self.remarks.extend(remarks.into_iter().map(|r| format!("{name}: {r}")));
        self.since = None;
    }

    /// Why the traffic so far is void, and what is worth a remark.
    fn traffic_reasons(
        &self,
        shared: &Shared,
        stage: &Latencies,
        delta: &Counters,
    ) -> (Vec<String>, Vec<String>) {
        let (mut void, mut remarks) = (Vec::new(), Vec::new());
        void.extend(drifted(stage.get(Metric::Lag).value_at_quantile(0.99)));
        void.extend(lost_its_place(delta.due, delta.unsent));
        let wall_ns = self.since.map_or(0, |s| s.elapsed().as_nanos() as u64);
        let now = shared.run_queue();
        let starved = starved(
            now.ran_ns.saturating_sub(self.run_queue.ran_ns),
            now.waited_ns.saturating_sub(self.run_queue.waited_ns),
            wall_ns,
        );
        // In a closed loop a slow generator makes a slow run, but not a wrong one: costs a message
        // are right, and latencies are those of a client that is slow.
        if self.open_loop {
            void.extend(starved);
        } else {
            remarks.extend(starved);
        }
        (void, remarks)
    }

    /// Writes reasons and problems into the report.
    pub(crate) fn conclude(&mut self, report: &mut Report, plan: &Plan, allow_loss: bool) {
        report.void.append(&mut self.reasons);
        report.remarks.append(&mut self.remarks);
        report.problems.extend(problems(report, plan, allow_loss));
    }
}

fn drifted(p99_ns: u64) -> Option<String> {
    (p99_ns > DRIFT_P99_MAX_NS).then(|| {
        format!(
            "the generator drifted: 1 message in 100 was sent {:.1} ms or more after it was due, \
             at most {:.1} ms is allowed",
            p99_ns as f64 / 1e6,
            DRIFT_P99_MAX_NS as f64 / 1e6
        )
    })
}

fn lost_its_place(due: u64, unsent: u64) -> Option<String> {
    (unsent as f64 > due as f64 * UNSENT_MAX).then(|| {
        format!(
            "the generator lost its place: {unsent} of {due} messages that were due were not sent"
        )
    })
}

fn starved(ran_ns: u64, waited_ns: u64, wall_ns: u64) -> Option<String> {
    let wanted = (ran_ns + waited_ns).max(1) as f64;
    let busy = wanted > wall_ns as f64 * BUSY_MIN;
    let share = waited_ns as f64 / wanted;
    (busy && share > STARVED_MAX).then(|| {
        format!(
            "the generator was starved: it waited for a CPU for {:.0} % of the time in which it \
             wanted to run, at most {:.0} % is allowed",
            share * 100.0,
            STARVED_MAX * 100.0
        )
    })
}

/// What is wrong with the counts and the account of a report.
pub(crate) fn problems(report: &Report, plan: &Plan, allow_loss: bool) -> Vec<String> {
    let c = &report.counters;
    let mut problems = Vec::new();
    let mut problem = |bad: bool, what: String| {
        if bad {
            problems.push(what);
        }
    };
    let wanted = report.clients * u64::from(plan.cycles);
    problem(interrupted(), "interrupted".to_owned());
    problem(c.ready < wanted, format!("{} of {wanted} connections became ready", c.ready));
    problem(c.failed > 0, format!("{} clients could not connect", c.failed));
    problem(c.broken > 0, format!("{} connections broke", c.broken));
    problem(c.sessions_lost > 0, format!("{} sessions were lost", c.sessions_lost));
    problem(c.protocol_errors > 0, format!("{} protocol errors", c.protocol_errors));
    problem(c.pings_unanswered > 0, format!("{} pings unanswered", c.pings_unanswered));
    problem(c.refused_messages > 0, format!("{} messages refused", c.refused_messages));
    let Some(a) = report.account.filter(|_| !allow_loss) else { return problems };
    problem(a.lost > 0, format!("{} messages lost", a.lost));
    problem(a.duplicates > 0, format!("{} duplicates", a.duplicates));
    problem(a.out_of_order > 0, format!("{} messages out of order", a.out_of_order));
    problem(a.unsent > 0, format!("{} messages that nobody sent", a.unsent));
    problems
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_generator_that_sends_late_voids_its_run() {
        assert!(drifted(DRIFT_P99_MAX_NS).is_none());
        assert!(drifted(DRIFT_P99_MAX_NS + 1).is_some());
    }

    #[test]
    fn a_generator_that_waits_for_a_cpu_voids_its_run_unless_it_idles() {
        assert!(starved(900, 100, 1000).is_none());
        assert!(starved(900, 110, 1000).is_some());
        assert!(starved(9, 10, 1000).is_none(), "2 % of a core is idle");
    }

    #[test]
    fn a_generator_that_could_not_send_voids_its_run() {
        assert!(lost_its_place(0, 0).is_none());
        assert!(lost_its_place(10_000, 10).is_none());
        assert!(lost_its_place(10_000, 11).is_some());
    }
}
