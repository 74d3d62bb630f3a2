//! What all benchmarks share: their options, and results as data.

use std::io;
use std::path::{Path, PathBuf};

use clap::Args;
use ringmain_load::environment::Environment;
use serde::Serialize;

use crate::contender::{Contender, Programs};
use crate::peers::{self, External};

/// Options of every benchmark.
#[derive(Clone, Debug, Args)]
pub(crate) struct Bench {
    /// Rounds, 4 by default; the order of the contenders turns from one to the next.
    #[arg(long)]
    rounds: Option<usize>,
    /// One round of short runs: shows that it works, not what it costs.
    #[arg(long)]
    pub(crate) quick: bool,
    /// Port on 127.0.0.1 that the servers listen on, one after another.
    #[arg(long, default_value_t = 27_883)]
    pub(crate) port: u16,
    /// The `ringmain` binary; without it the one beside this program.
    #[arg(long)]
    pub(crate) ringmain: Option<PathBuf>,
    /// The `ringmain-load` binary; without it the one beside this program.
    #[arg(long)]
    pub(crate) load: Option<PathBuf>,
    /// Who takes part, separated by commas: ringmain, or a peer as `peers list` names it. Without
    /// it Ringmain and the peers that are installed.
    #[arg(long, value_delimiter = ',')]
    pub(crate) contenders: Vec<String>,
    /// A broker that runs already takes part too; with the pid of its process, if it is on this
    /// machine, its CPU time and memory are known. May be given several times.
    #[arg(long, value_name = "NAME=HOST:PORT[,pid=N]")]
    pub(crate) peer: Vec<External>,
    /// Cache of peers; without it `peers` in cargo's target folder.
    #[arg(long)]
    pub(crate) peers_dir: Option<PathBuf>,
    /// Write the results as JSON; bench/results/ is the place for those that are kept.
    #[arg(long)]
    pub(crate) json: Option<PathBuf>,
}

impl Bench {
    pub(crate) fn rounds(&self) -> usize {
        self.rounds.unwrap_or(if self.quick { 1 } else { 4 })
    }

    /// Seconds of measured traffic of a run.
    pub(crate) fn seconds(&self, asked: Option<f64>) -> f64 {
        asked.unwrap_or(if self.quick { 1.0 } else { 3.0 })
    }

    pub(crate) fn programs(&self) -> io::Result<Programs> {
        if self.rounds() == 0 {
            return Err(io::Error::other("--rounds starts at 1; 3 or more give a median"));
        }
        let exe = std::env::current_exe()?;
        let peers = peers::folder(self.peers_dir.as_deref())?;
        Ok(Programs::beside(&exe, self.ringmain.clone(), self.load.clone(), peers))
    }

    /// The contenders, with `ringmain` as the benchmark sets it up; without `--contenders` it and
    /// each peer that is installed.
    pub(crate) fn contenders(&self, ringmain: &Contender) -> io::Result<Vec<Contender>> {
        if !self.contenders.is_empty() {
            return self.named(&self.contenders, ringmain);
        }
        let folder = self.programs()?.peers;
        let here = peers::PEERS
            .iter()
            .filter(|p| !p.on_request() && p.version(&folder).is_some())
            .map(|p| p.name().to_owned());
        let names: Vec<String> = std::iter::once("ringmain".to_owned()).chain(here).collect();
        self.named(&names, ringmain)
    }

    fn named(&self, names: &[String], ringmain: &Contender) -> io::Result<Vec<Contender>> {
        let programs = self.programs()?;
        let named = names.iter().map(|name| {
            let (contender, is_here, how) = if name == "ringmain" {
                let here = programs.ringmain.exists();
                (ringmain.clone(), here, "cargo build --release -p ringmain".to_owned())
            } else {
                let peer = peers::by_name(name)?;
                let here = peer.version(&programs.peers).is_some();
                (Contender::Peer(peer), here, format!("ringmain-bench peers install {name}"))
            };
            if is_here {
                return Ok(contender);
            }
            Err(io::Error::other(format!(
                "{name} is missing: `{how}`, or leave it out with --contenders"
            )))
        });
        let external = self.peer.iter().cloned().map(|p| Ok(Contender::External(p)));
        named.chain(external).collect()
    }
}

/// Results with where they come from.
#[derive(Serialize)]
struct Kept<'a, T> {
    benchmark: &'a str,
    version: &'a str,
    command: Vec<String>,
    environment: Environment,
    /// What is checked out in the current folder, if it is a repository.
    commit: String,
    results: &'a T,
}

/// What is checked out in the current folder, if it is a repository.
fn commit() -> String {
    let git = std::process::Command::new("git").args(["describe", "--always", "--dirty"]).output();
    let said = git.ok().filter(|o| o.status.success()).map(|o| o.stdout).unwrap_or_default();
    String::from_utf8_lossy(&said).trim().to_owned()
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
        commit: commit(),
        results,
    };
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder)?;
    }
    let mut json = serde_json::to_string_pretty(&kept)?;
    json.push('\n');
    std::fs::write(path, json)
        .map_err(|e| io::Error::new(e.kind(), format!("{}: {e}", path.display())))
}
