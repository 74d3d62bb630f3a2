//! One run by several machines: a coordinator and its agents.
//!
//! ```text
//! coordinator                        agent
//!   Hello (secret)          ──▶
//!                           ◀──      Welcome
//!   32 × Ping               ◀─▶      Pong: how far its clock is ahead
//!   Plan (its part)         ──▶
//!                           ◀──      Ready
//!   Go (stage, at its time) ──▶      runs the stage
//!                           ◀──      Look (four times a second), Ended (stage)
//!   … when all have ended: Go (the next)
//!                           ◀──      Done (report, what each client sent and got)
//!   32 × Ping               ◀─▶      Pong: whether its clock moved
//! ```
//!
//! The coordinator checks what all subscribers got against what all publishers sent, so that a
//! message from one agent to another is checked as exactly as one within an agent.

pub mod cli;
mod deal;
mod lead;
mod merge;
mod offset;
mod serve;
mod wire;

use std::io;

use crate::cli::options::AgentOptions;
use crate::plan::Plan;
use crate::report::Report;
use crate::run::RunOptions;
use crate::snapshot::Snapshot;

pub use self::offset::{Offset, UNCERTAINTY_MAX_NS};

/// Makes a run by agents.
///
/// # Errors
/// When the plan cannot be dealt out, or an agent cannot be had. One that is lost later makes the
/// run void.
pub fn run(
    plan: Plan,
    options: &RunOptions,
    agents: &AgentOptions,
    observer: &mut dyn FnMut(&Snapshot),
) -> io::Result<Report> {
    lead::run(&plan, options, &agents.agents, &agents.agent_token, observer)
}
