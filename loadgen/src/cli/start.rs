//! Leads a sub-command from its options to its exit status.

use std::path::Path;
use std::process::ExitCode;

use serde::Serialize;

use crate::live::{self, Show};
use crate::million;
use crate::report::Report;
use crate::run;

use super::options::Outputs;
use super::{Cli, Command};

/// How it went; the exit status says the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The run was clean and all assertions held.
    Held,
    /// It was not, or one did not.
    NotHeld,
    /// The generator itself failed: the run says nothing.
    Void,
}

impl Outcome {
    /// Of a single run. A void run is void whatever it measured.
    #[must_use]
    pub fn of(report: &Report) -> Self {
        if report.is_void() {
            Self::Void
        } else if report.is_clean() && report.verdicts.iter().all(|v| v.held) {
            Self::Held
        } else {
            Self::NotHeld
        }
    }
}

impl From<Outcome> for ExitCode {
    fn from(outcome: Outcome) -> Self {
        match outcome {
            Outcome::Held => ExitCode::SUCCESS,
            Outcome::NotHeld => ExitCode::from(1),
            Outcome::Void => ExitCode::from(3),
        }
    }
}

/// Does what the command line says.
///
/// # Errors
/// A sentence for the user, when it cannot be done: exit status 2.
pub fn start(cli: &Cli) -> Result<Outcome, String> {
    match &cli.command {
        Command::Run(c) if c.check => {
            let job = c.job()?;
            job.plan.check()?;
            println!(
                "{}: {} stages, {} clients",
                job.name,
                job.plan.stages.len(),
                job.plan.clients()
            );
            Ok(Outcome::Held)
        }
        Command::Million(options) => {
            million::main(options).map(|ok| if ok { Outcome::Held } else { Outcome::NotHeld })
        }
        Command::FindMax(c) => c.start(),
        Command::Compare(c) => c.start(),
        Command::Agent(c) => c.start().map(|()| Outcome::Held),
        load => {
            let job = load.job()?;
            job.plan.check()?;
            let outputs = load.outputs().cloned().unwrap_or_default();
            run::catch_signals();
            let mut show = live::open(Show::of(&outputs), &job);
            let result = job.run(&mut |snapshot| show.see(snapshot));
            drop(show);
            let report = result.map_err(|e| e.to_string())?;
            print!("{}", report.to_text());
            write_report(&report, &outputs)?;
            Ok(Outcome::of(&report))
        }
    }
}

fn write_report(report: &Report, outputs: &Outputs) -> Result<(), String> {
    if let Some(path) = &outputs.json {
        write_json(path, report)?;
    }
    if let Some(path) = &outputs.html {
        write(path, &report.to_html())?;
    }
    Ok(())
}

/// Writes a value as JSON.
pub(crate) fn write_json(path: &Path, value: &impl Serialize) -> Result<(), String> {
    write(path, &serde_json::to_string_pretty(value).map_err(|e| e.to_string())?)
}

fn write(path: &Path, text: &str) -> Result<(), String> {
    std::fs::write(path, text).map_err(|e| format!("{}: {e}", path.display()))
}
