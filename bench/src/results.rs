//! What all benchmarks share: their options, and results as data.

use std::io;
use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};
use ringmain_load::environment::Environment;
use serde::Serialize;

use crate::contender::{Contender, Programs};

/// Options of every benchmark.
#[derive(Debug, Args)]
pub(crate) struct Bench {
    /// Rounds; the order of the contenders turns from one to the next.
    #[arg(long, default_value_t = 4)]
    pub(crate) rounds: usize,
    /// Port on 127.0.0.1 that the servers listen on, one after another.
    #[arg(long, default_value_t = 27_883)]
    pub(crate) port: u16,
    /// The `ringmain` binary; without it the one beside this program.
    #[arg(long)]
    pub(crate) ringmain: Option<PathBuf>,
    /// The `ringmain-load` binary; without it the one beside this program.
    #[arg(long)]
    pub(crate) load: Option<PathBuf>,
    /// Who takes part, separated by commas.
    #[arg(long, value_enum, value_delimiter = ',', default_values_t = [Who::Ringmain, Who::Mosquitto])]
    pub(crate) contenders: Vec<Who>,
    /// Write the results as JSON; bench/results/ is the place for those that are kept.
    #[arg(long)]
    pub(crate) json: Option<PathBuf>,
}

/// A contender by name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Who {
    Ringmain,
    Mosquitto,
}

impl Bench {
    pub(crate) fn programs(&self) -> io::Result<Programs> {
        if self.rounds == 0 {
            return Err(io::Error::other("--rounds starts at 1; 3 or more give a median"));
        }
        let exe = std::env::current_exe()?;
        Ok(Programs::beside(&exe, self.ringmain.clone(), self.load.clone()))
    }

    /// The contenders, with `ringmain` as the benchmark sets it up.
    pub(crate) fn contenders(&self, ringmain: &Contender) -> io::Result<Vec<Contender>> {
        let programs = self.programs()?;
        self.contenders
            .iter()
            .map(|who| {
                let (contender, program) = match who {
                    Who::Ringmain => (ringmain.clone(), &programs.ringmain),
                    Who::Mosquitto => (Contender::Mosquitto, &programs.mosquitto),
                };
                if program.exists() {
                    Ok(contender)
                } else {
                    Err(io::Error::other(format!(
                        "{} is missing: build or install it, or leave it out with --contenders",
                        program.display()
                    )))
                }
            })
            .collect()
    }
}

/// Results with where they come from.
#[derive(Serialize)]
struct Kept<'a, T> {
    benchmark: &'a str,
    version: &'a str,
    command: Vec<String>,
    environment: Environment,
    results: &'a T,
}

/// Writes results to `path`, if there is one.
pub(crate) fn write<T: Serialize>(
    path: Option<&Path>,
    benchmark: &str,
    results: &T,
) -> io::Result<()> {
    let Some(path) = path else { return Ok(()) };
    let mut command: Vec<String> = std::env::args().skip(1).collect();
    command.insert(0, "ringmain-bench".to_owned());
    let kept = Kept {
        benchmark,
        version: env!("CARGO_PKG_VERSION"),
        command,
        environment: Environment::here(),
        results,
    };
    let mut json = serde_json::to_string_pretty(&kept)?;
    json.push('\n');
    std::fs::write(path, json)
        .map_err(|e| io::Error::new(e.kind(), format!("{}: {e}", path.display())))
}
