//! `run SCENARIO.toml`.

use std::path::PathBuf;

use clap::Args;

use crate::job::Job;
use crate::run::RunOptions;
use crate::scenario::{Overrides, Scenario};

use super::options::{AgentOptions, Outputs};

/// `run`
#[derive(Clone, Debug, Args)]
pub struct RunScenario {
    /// The file.
    pub scenario: PathBuf,
    /// Another value for a key: `workers=2`, `population.publishers.count=10`,
    /// `stage.traffic.duration_s=5`. An element of a list is named by its name, its kind or its
    /// index. Again for more.
    #[arg(long, value_name = "PATH=VALUE")]
    pub set: Vec<String>,
    /// The broker, `host:port`, instead of the file's.
    #[arg(long)]
    pub target: Option<String>,
    /// The broker's process, to sample its CPU time, memory and descriptors.
    #[arg(long)]
    pub broker_pid: Option<u32>,
    /// What must hold beside what the file says; again for more.
    #[arg(long = "assert", value_name = "CLAIM")]
    pub assertions: Vec<String>,
    /// Say whether the file is valid, and run nothing.
    #[arg(long)]
    pub check: bool,
    /// Where results go.
    #[command(flatten)]
    pub outputs: Outputs,
    /// Other machines that take part.
    #[command(flatten)]
    pub agents: AgentOptions,
}

impl RunScenario {
    pub(crate) fn job(&self) -> Result<Job, String> {
        let overrides = Overrides {
            set: self.set.clone(),
            target: self.target.clone(),
            broker_pid: self.broker_pid,
            assertions: self.assertions.clone(),
        };
        let scenario = Scenario::load(&self.scenario, &overrides).map_err(|e| e.to_string())?;
        Ok(Job {
            name: scenario.name,
            description: scenario.description,
            options: RunOptions {
                broker_pid: scenario.broker_pid,
                settle: scenario.settle,
                progress: !self.outputs.quiet,
                allow_loss: scenario.allow_loss,
            },
            assertions: scenario.assertions,
            agents: self.agents.clone(),
            plan: scenario.plan,
        })
    }
}
