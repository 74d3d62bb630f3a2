//! The command line. Option letters are those of emqtt-bench where the meaning is the same.
//!
//! [`options`] has the blocks that sub-commands share, [`quick`] the loads that need no file,
//! [`scenario`] the ones that have one, and [`start`] leads a sub-command to its exit status.

pub mod options;
pub mod quick;
pub mod scenario;
pub mod start;

use clap::{Parser, Subcommand};

use crate::agents::cli::Agent;
use crate::compare::cli::Compare;
use crate::find_max::cli::FindMax;
use crate::job::Job;
use crate::million::options::Options;
use crate::plan::Plan;
use crate::run::RunOptions;

use self::options::{Common, Outputs};
use self::quick::{Churn, Conn, Fanin, Fanout, Pair, Publish, Retained, Shared, Storm, Subscribe};
use self::scenario::RunScenario;

/// Load generator for MQTT brokers: many connections from few descriptors, exact checks of what
/// arrived.
///
/// Exit status: 0 the run was clean and all assertions held; 1 not so; 2 it could not be made; 3 it
/// is void, since the generator itself could not keep up.
#[derive(Debug, Parser)]
#[command(name = "ringmain-load", version, about, disable_help_flag = true)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
    /// Print help.
    #[arg(long, global = true, action = clap::ArgAction::Help)]
    help: Option<bool>,
}

/// The sub-commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Open connections, keep them, close them.
    Conn(Conn),
    /// Publish.
    Pub(Publish),
    /// Subscribe and receive.
    Sub(Subscribe),
    /// Point to point: publisher i sends to subscriber i, with a window of messages outstanding.
    Pair(Pair),
    /// Each publisher's messages go to all subscribers.
    Fanout(Fanout),
    /// All publishers' messages go to few subscribers, each of which gets all.
    Fanin(Fanin),
    /// A shared subscription: its members get each message once in all.
    Shared(Shared),
    /// Set retained messages, then let subscribers come for them.
    Retained(Retained),
    /// Clients come and go beside pairs.
    Churn(Churn),
    /// All connections drop at once and come back.
    Storm(Storm),
    /// Hold a million connections with a subscription each in one broker, and show that it serves
    /// them.
    Million(Box<Options>),
    /// Run a scenario file.
    Run(RunScenario),
    /// Find the highest rate that holds an objective.
    FindMax(FindMax),
    /// Compare two brokers: interleaved blocks, ratios with intervals.
    Compare(Compare),
    /// Serve a coordinator: part of a run that several machines make (`--agents`).
    Agent(Agent),
}

impl Command {
    /// The options of a load that needs no file.
    #[must_use]
    pub fn common(&self) -> Option<&Common> {
        Some(match self {
            Self::Conn(c) => &c.common,
            Self::Pub(c) => &c.common,
            Self::Sub(c) => &c.common,
            Self::Pair(c) => &c.common,
            Self::Fanout(c) => &c.common,
            Self::Fanin(c) => &c.common,
            Self::Shared(c) => &c.common,
            Self::Retained(c) => &c.common,
            Self::Churn(c) => &c.common,
            Self::Storm(c) => &c.common,
            Self::Million(_)
            | Self::Run(_)
            | Self::FindMax(_)
            | Self::Compare(_)
            | Self::Agent(_) => return None,
        })
    }

    /// Where reports of a single run go.
    #[must_use]
    pub fn outputs(&self) -> Option<&Outputs> {
        match self {
            Self::Run(c) => Some(&c.outputs),
            _ => self.common().map(|common| &common.outputs),
        }
    }

    /// The single run that a load means.
    ///
    /// # Errors
    /// A sentence for the user; also for the sub-commands that make several runs.
    pub fn job(&self) -> Result<Job, String> {
        match self {
            Self::Conn(c) => c.job(),
            Self::Pub(c) => c.job(),
            Self::Sub(c) => c.job(),
            Self::Pair(c) => c.job(),
            Self::Fanout(c) => c.job(),
            Self::Fanin(c) => c.job(),
            Self::Shared(c) => c.job(),
            Self::Retained(c) => c.job(),
            Self::Churn(c) => c.job(),
            Self::Storm(c) => c.job(),
            Self::Run(c) => c.job(),
            Self::Million(_) | Self::FindMax(_) | Self::Compare(_) | Self::Agent(_) => {
                Err("give a load: conn, pub, sub, pair, fanout … or run SCENARIO.toml".to_owned())
            }
        }
    }

    /// What the command line means.
    ///
    /// # Errors
    /// As [`Self::job`].
    pub fn plan(&self) -> Result<(Plan, RunOptions), String> {
        self.job().map(|job| (job.plan, job.options))
    }
}

#[cfg(test)]
mod tests;
