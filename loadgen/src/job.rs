//! One run with all that belongs to it: a plan, what happens around it, and what must hold.

use std::io;

use crate::assertion::Assertion;
use crate::cli::options::AgentOptions;
use crate::metric::Metrics;
use crate::plan::{Expect, Plan, Stage};
use crate::report::{REPORT_SCHEMA, Report};
use crate::run::{self, RunOptions};
use crate::snapshot::Snapshot;

/// A run that can be made.
#[derive(Clone, Debug)]
pub struct Job {
    /// For reports.
    pub name: String,
    /// What it is about.
    pub description: String,
    /// What to run.
    pub plan: Plan,
    /// What happens around it.
    pub options: RunOptions,
    /// What must hold.
    pub assertions: Vec<Assertion>,
    /// Other machines that take part.
    pub agents: AgentOptions,
}

impl Job {
    /// Makes the run, here or by agents, and judges the assertions.
    ///
    /// # Errors
    /// As [`run::run`], or when an agent cannot be had.
    pub fn run(self, observer: &mut dyn FnMut(&Snapshot)) -> io::Result<Report> {
        let mut report = if self.agents.agents.is_empty() {
            run::run(self.plan, &self.options, observer)?
        } else {
            crate::agents::run(self.plan, &self.options, &self.agents, observer)?
        };
        if let Some(pid) = self.options.broker_pid {
            report.environment = report.environment.with_broker(pid);
        }
        let metrics = Metrics::of(&report);
        report.schema = REPORT_SCHEMA;
        report.name = self.name;
        report.description = self.description;
        report.verdicts = self.assertions.iter().map(|a| a.judge(&metrics)).collect();
        Ok(report)
    }

    /// The latency that this load is about: that of deliveries where something is expected to be
    /// delivered, of acknowledgements where something is sent, of connections otherwise.
    #[must_use]
    pub fn latency(&self) -> &'static str {
        let populations = &self.plan.populations;
        if populations.iter().any(|p| p.expect != Expect::None) {
            "delivery"
        } else if populations.iter().any(|p| p.publish.is_some()) {
            "ack"
        } else {
            "connect"
        }
    }

    /// Whether any stage measures messages.
    #[must_use]
    pub fn has_traffic(&self) -> bool {
        let measures = |stage: &Stage| matches!(stage, Stage::Traffic { .. } | Stage::Churn { .. });
        self.plan.stages.iter().any(|s| measures(&s.stage))
    }
}
