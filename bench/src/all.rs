//! `all`: every benchmark, one after the other, each with its file of results.

use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use clap::Args;

use crate::contender::MOSQUITTO;
use crate::cost::Cost;
use crate::crossing::Crossing;
use crate::floor::Floor;
use crate::results::{Bench, Who};

/// `all`
#[derive(Debug, Args)]
pub(crate) struct All {
    /// What all benchmarks share; `--json` does not count here.
    #[command(flatten)]
    bench: Bench,
    /// Folder of the results: cost.json, crossing.json, floor.json; with --quick, cost-quick.json
    /// and so on.
    #[arg(long, default_value = "bench/results")]
    out: PathBuf,
    /// Fail when mosquitto is missing, instead of installing it.
    #[arg(long)]
    no_install: bool,
}

impl All {
    pub(crate) fn run(&self) -> io::Result<()> {
        if self.bench.contenders.contains(&Who::Mosquitto) {
            self.provide_mosquitto()?;
        }
        let started = Instant::now();
        Cost::new(self.bench_for("cost")).run()?;
        println!();
        Floor::new(self.bench_for("floor")).run()?;
        println!();
        Crossing::new(self.bench_for("crossing")).run()?;
        eprintln!("results are in {}, after {:.0?}", self.out.display(), started.elapsed());
        Ok(())
    }

    fn bench_for(&self, name: &str) -> Bench {
        let quick = if self.bench.quick { "-quick" } else { "" };
        let mut bench = self.bench.clone();
        bench.json = Some(self.out.join(format!("{name}{quick}.json")));
        bench
    }

    fn provide_mosquitto(&self) -> io::Result<()> {
        if Path::new(MOSQUITTO).exists() {
            return Ok(());
        }
        let hint = "install it, or leave it out with --contenders ringmain";
        if self.no_install {
            return Err(io::Error::other(format!("{MOSQUITTO} is missing: {hint}")));
        }
        eprintln!("{MOSQUITTO} is missing: apt-get install mosquitto");
        let mut apt = Command::new("apt-get");
        apt.args(["install", "-y", "--no-install-recommends", "mosquitto"]);
        // Not as a service: it would take part in every measurement. invoke-rc.d looks at this.
        apt.envs([("DEBIAN_FRONTEND", "noninteractive"), ("RUNLEVEL", "1")]);
        let why = match apt.status() {
            Ok(status) if status.success() && Path::new(MOSQUITTO).exists() => return Ok(()),
            Ok(status) => format!("apt-get ended with {status}"),
            Err(e) => format!("apt-get: {e}"),
        };
        Err(io::Error::other(format!(
            "{MOSQUITTO} is missing and could not be installed ({why}): {hint}"
        )))
    }
}
