//! `all`: every scenario, one after the other, each with its file of results.

use std::io;
use std::path::PathBuf;
use std::time::Instant;

use clap::Args;

use crate::crossing::Crossing;
use crate::peers;
use crate::results::Bench;
use crate::scenario::run::{self, Options};
use crate::scenarios::REGISTRY;

/// The peer that targets are held against.
const MOSQUITTO: &str = "mosquitto";

/// `all`
#[derive(Debug, Args)]
pub(crate) struct All {
    /// What all scenarios share; `--json` does not count here.
    #[command(flatten)]
    options: Options,
    /// Folder of the results: NAME.json for each, with --quick NAME-quick.json.
    #[arg(long, default_value = "bench/results")]
    out: PathBuf,
    /// Fail when mosquitto is missing, instead of installing it.
    #[arg(long)]
    no_install: bool,
}

impl All {
    /// Runs them all; one that fails does not keep the next from running.
    pub(crate) fn run(&self) -> io::Result<()> {
        let contenders = &self.options.bench.contenders;
        if contenders.is_empty() || contenders.iter().any(|c| c == MOSQUITTO) {
            self.provide_mosquitto()?;
        }
        let started = Instant::now();
        let mut failed = Vec::new();
        let mut note = |name: &str, result: io::Result<()>| {
            println!();
            if let Err(e) = result {
                eprintln!("ringmain-bench: {e}");
                failed.push(name.to_owned());
            }
        };
        for scenario in REGISTRY.iter().filter(|s| !s.on_request()) {
            let bench = self.bench_for(scenario.name());
            note(scenario.name(), run::run(*scenario, &Options { bench, ..self.options.clone() }));
        }
        note("crossing", Crossing::new(self.bench_for("crossing")).run());
        eprintln!("results are in {}, after {:.0?}", self.out.display(), started.elapsed());
        if failed.is_empty() {
            Ok(())
        } else {
            Err(io::Error::other(format!("not as it should be: {}", failed.join(", "))))
        }
    }

    fn bench_for(&self, name: &str) -> Bench {
        let quick = if self.options.bench.quick { "-quick" } else { "" };
        let mut bench = self.options.bench.clone();
        bench.json = Some(self.out.join(format!("{name}{quick}.json")));
        bench
    }

    fn provide_mosquitto(&self) -> io::Result<()> {
        let mosquitto = peers::by_name(MOSQUITTO)?;
        let folder = peers::folder(self.options.bench.peers_dir.as_deref())?;
        if mosquitto.version(&folder).is_some() {
            return Ok(());
        }
        let hint = "install it, or leave it out with --contenders ringmain";
        if self.no_install {
            return Err(io::Error::other(format!("{MOSQUITTO} is missing: {hint}")));
        }
        eprintln!("{MOSQUITTO} is missing: apt-get install mosquitto");
        mosquitto.install(&folder).map_err(|e| {
            io::Error::other(format!(
                "{MOSQUITTO} is missing and could not be installed ({e}): {hint}"
            ))
        })
    }
}
