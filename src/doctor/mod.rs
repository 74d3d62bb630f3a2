//! `ringmain doctor`: what this host needs for a goal, changed and changed back on request.

mod verify;

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use ringmain_kernel_params::apply::{self, Outcome, Step};
use ringmain_kernel_params::doctor::{Report, examine};
use ringmain_kernel_params::goal::{CONNECTIONS_MAX, RATE_MAX, count};
use ringmain_kernel_params::{Goal, Host, Profile, counters};
use serde::Serialize;
use verify::Verified;

/// Where the state before `--apply` is kept.
const UNDO_FILE: &str = "/var/lib/ringmain/doctor-undo.json";
/// Longest `--sample`, seconds.
const SAMPLE_MAX_S: u64 = 3_600;

/// Options of `ringmain doctor`.
#[derive(Debug, Args)]
pub(crate) struct Doctor {
    /// Connections to be held, such as 15000, 250k, 1M
    #[arg(long, value_name = "CONNECTIONS", default_value = "100k", value_parser = connections)]
    goal: u64,
    /// Messages a second, in and out together
    #[arg(long, value_name = "MESSAGES", default_value = "100k", value_parser = rate)]
    rate: u64,
    /// What matters most: many-connections, latency, throughput, or load-generator for a host that runs clients
    #[arg(long, default_value = "many-connections")]
    profile: Profile,
    /// Only parameters whose names begin so; repeatable
    #[arg(long, value_name = "NAME")]
    only: Vec<String>,
    /// Print JSON
    #[arg(long)]
    json: bool,
    /// Show also what is good, and what does not matter here
    #[arg(long)]
    all: bool,
    /// Look at the limits and the control group of this process
    #[arg(long, value_name = "PID")]
    pid: Option<u32>,
    /// Wait so long and show what of the counters that should stay 0 has grown meanwhile
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..=SAMPLE_MAX_S))]
    sample: Option<u64>,
    /// Start a broker on loopback and open connections until something stops them: whether the prediction is
    /// true. At most 2,000,000
    #[arg(long, conflicts_with_all = ["apply", "undo", "host_root", "pid"])]
    verify: bool,
    /// Write what is proposed to the running kernel
    #[arg(long, conflicts_with_all = ["undo", "host_root"])]
    apply: bool,
    /// Write also the files that keep it over a reboot: sysctl.d, tmpfiles.d, limits.d, a drop-in for ringmain.service
    #[arg(long, requires = "apply")]
    persist: bool,
    /// Show what --apply would write, and write nothing
    #[arg(long, requires = "apply")]
    dry_run: bool,
    /// Take back what --apply did, byte for byte
    #[arg(long, conflicts_with_all = ["json", "sample", "host_root"])]
    undo: bool,
    /// With --undo: also what somebody else changed since
    #[arg(long, requires = "undo")]
    force: bool,
    /// Where the state before --apply is kept
    #[arg(long, value_name = "FILE", default_value = UNDO_FILE)]
    undo_file: PathBuf,
    /// Examine a copy of another host's /proc and /sys below this folder
    #[arg(long, value_name = "DIR")]
    host_root: Option<PathBuf>,
}

fn connections(text: &str) -> Result<u64, String> {
    count(text, CONNECTIONS_MAX)
}

fn rate(text: &str) -> Result<u64, String> {
    count(text, RATE_MAX)
}

/// What the operator of a broker with so many connections should know at its start: the limit of the host that
/// stops them, and what on it does harm. One line each.
pub(crate) fn preflight(connections: u64) -> Vec<String> {
    let goal = Goal { profile: Profile::ManyConnections, connections, rate: connections };
    // A fault of the data is no reason not to start, and a test finds it.
    examine(&Host::here(), goal).map_or_else(|why| vec![why], |report| report.warnings())
}

/// Runs it. Ends with 0 if the host is as it should be (or was changed), with 1 if not.
pub(crate) fn run(options: &Doctor) -> ExitCode {
    match outcome(options) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(why) => {
            eprintln!("doctor: {why}");
            ExitCode::FAILURE
        }
    }
}

fn outcome(o: &Doctor) -> Result<bool, String> {
    let host = match &o.host_root {
        Some(root) if !root.join("proc").is_dir() => {
            return Err(format!("{}: there is no proc in it", root.display()));
        }
        Some(root) => Host::at(root),
        None => Host::here(),
    };
    let host = o.pid.map_or(host.clone(), |pid| host.of_process(pid));
    if o.undo {
        return undo(&host, o);
    }
    let goal = Goal { profile: o.profile, connections: o.goal, rate: o.rate };
    let mut report = examine(&host, goal)?;
    if !o.only.is_empty() {
        report.findings.retain(|f| o.only.iter().any(|name| f.name.starts_with(name)));
        if report.findings.is_empty() {
            return Err(format!("no parameter begins with {}", o.only.join(" or ")));
        }
    }
    if let Some(seconds) = o.sample {
        std::thread::sleep(Duration::from_secs(seconds));
        report.troubles = counters::growth(&report.troubles, counters::troubles(&host));
    }
    if o.apply {
        return change(&host, &report, o);
    }
    let verified = o.verify.then(|| verify::verify(o.goal)).transpose()?;
    show(&report, verified.as_ref(), o)?;
    Ok(report.is_healthy() && verified.is_none_or(|v| v.is_as_predicted()))
}

fn print(text: &str) {
    // A reader that has seen enough is no failure.
    let _ = std::io::stdout().write_all(text.as_bytes());
}

/// The JSON: the report, and what was verified.
#[derive(Serialize)]
struct Shown<'a> {
    #[serde(flatten)]
    report: &'a Report,
    verified: Option<&'a Verified>,
}

fn show(report: &Report, verified: Option<&Verified>, o: &Doctor) -> Result<(), String> {
    if o.json {
        let shown = Shown { report, verified };
        let json = serde_json::to_string_pretty(&shown).map_err(|e| e.to_string())?;
        print(&(json + "\n"));
    } else {
        print(&report.to_text(o.all));
        print(&verified.map(Verified::to_text).unwrap_or_default());
    }
    Ok(())
}

fn change(host: &Host, report: &Report, o: &Doctor) -> Result<bool, String> {
    let steps = apply::plan(host, &report.findings, o.persist).map_err(|e| e.to_string())?;
    if steps.is_empty() {
        print("nothing to change\n");
        return Ok(true);
    }
    if o.dry_run {
        print(&steps.iter().map(described).collect::<String>());
        return Ok(true);
    }
    let commands = || steps.iter().map(|s| apply::command(s) + "\n").collect::<String>();
    if !may_write(host, &steps) {
        eprintln!("doctor: this needs root; as root:\n\n{}", commands());
        return Ok(false);
    }
    let outcomes = apply::apply(host, &steps, &o.undo_file).map_err(|e| e.to_string())?;
    told(&outcomes, &o.undo_file, o.json)
}

/// What a step changes, from what to what.
fn described(step: &Step) -> String {
    let before = step.before.as_deref().map_or("(no such file)", str::trim);
    if step.kernel {
        format!("/{}: {before} → {}\n", step.path, step.after)
    } else {
        let indented: String = step.after.lines().map(|l| format!("    {l}\n")).collect();
        format!("/{}:\n{indented}", step.path)
    }
}

fn may_write(host: &Host, steps: &[Step]) -> bool {
    // Opening a file of the kernel for writing changes nothing.
    let writable =
        |s: &Step| std::fs::OpenOptions::new().write(true).open(host.path(&s.path)).is_ok();
    let mut kernel = steps.iter().filter(|s| s.kernel).peekable();
    // SAFETY: has no arguments.
    let is_root = unsafe { libc::geteuid() } == 0;
    if kernel.peek().is_none() { is_root } else { kernel.any(writable) }
}

fn told(outcomes: &[Outcome], undo_file: &Path, json: bool) -> Result<bool, String> {
    let failed: Vec<&Outcome> = outcomes.iter().filter(|o| o.error.is_some()).collect();
    if json {
        let json = serde_json::to_string_pretty(outcomes).map_err(|e| e.to_string())?;
        print(&(json + "\n"));
        return Ok(failed.is_empty());
    }
    for outcome in outcomes {
        match &outcome.error {
            None => print(&format!("changed  /{}\n", outcome.path)),
            Some(error) => print(&format!("FAILED   /{}: {error}\n", outcome.path)),
        }
    }
    print(&format!("undo with: ringmain doctor --undo --undo-file {}\n", undo_file.display()));
    if !failed.is_empty() {
        let commands: String = failed.iter().map(|o| o.command.clone() + "\n").collect();
        eprintln!("doctor: {} failed; by hand:\n\n{commands}", failed.len());
    }
    Ok(failed.is_empty())
}

fn undo(host: &Host, o: &Doctor) -> Result<bool, String> {
    let undone = apply::undo(host, &o.undo_file, o.force).map_err(|e| e.to_string())?;
    for path in &undone.restored {
        print(&format!("as before  /{path}\n"));
    }
    for path in &undone.left {
        print(&format!("LEFT       /{path}: somebody changed it since (--force overwrites it)\n"));
    }
    for failed in &undone.failed {
        print(&format!("FAILED     /{failed}\n"));
    }
    Ok(undone.left.is_empty() && undone.failed.is_empty())
}
