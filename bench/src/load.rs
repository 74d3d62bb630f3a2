//! Runs `ringmain-load` as a process of its own and reads its report.

use std::fs::File;
use std::io;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use ringmain_load::report::Report;

use crate::child::{self, Scratch};
use crate::contender::{Programs, Running};

/// How long a generator may take to end once it was asked to.
const END_MAX: Duration = Duration::from_secs(40);

/// A generator that runs; dropping it ends it.
pub(crate) struct Load {
    child: Child,
    scratch: Scratch,
    what: String,
}

/// What a generator found.
pub(crate) struct Found {
    /// Its report; `None` when it could not make the run.
    pub(crate) report: Option<Report>,
    /// Why the run is not clean; empty if it is.
    pub(crate) problems: Vec<String>,
    /// Why the generator could not measure as it should: the host's fault, not the server's.
    pub(crate) void: Vec<String>,
}

impl Load {
    /// Starts a generator against a server, whose cost it samples where its process is known.
    ///
    /// # Errors
    /// When the generator cannot run.
    pub(crate) fn start(
        programs: &Programs,
        server: &Running,
        args: &[String],
    ) -> io::Result<Self> {
        static COUNT: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);
        let n = COUNT.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let scratch = Scratch::new(&format!("load-{n}"))?;
        let mut command = Command::new(&programs.load);
        command
            .args(args)
            .args(["--host", &server.address.ip().to_string()])
            .args(["--port", &server.address.port().to_string()])
            .args(["--quiet", "--json"])
            .arg(scratch.0.join("report.json"))
            .stdin(Stdio::null())
            .stdout(File::create(scratch.0.join("out"))?)
            .stderr(File::create(scratch.0.join("err"))?);
        if let Some(pid) = server.pid {
            command.args(["--broker-pid", &pid.to_string()]);
        }
        let what = format!("ringmain-load {}", args.join(" "));
        Ok(Self { child: child::spawn(&mut command)?, scratch, what })
    }

    /// Waits until it ended by itself, for at most `limit`; then it is asked to end.
    ///
    /// # Errors
    /// When its report cannot be read.
    pub(crate) fn wait(mut self, limit: Duration) -> io::Result<Found> {
        let in_time = child::ended_within(&mut self.child, limit);
        let mut found = self.finish()?;
        if !in_time {
            found.problems.insert(0, format!("not done after {} s", limit.as_secs()));
        }
        Ok(found)
    }

    /// Asks it to end, which is not a problem: it ran until then as it should.
    ///
    /// # Errors
    /// When its report cannot be read.
    pub(crate) fn stop(mut self) -> io::Result<Found> {
        child::signal(&self.child, libc::SIGTERM);
        let mut found = self.finish()?;
        // One that was told to end does not wait for its connections to close.
        found.problems.retain(|p| p != "interrupted" && !p.ends_with("did not close"));
        Ok(found)
    }

    /// What it is, and what it said.
    fn finish(&mut self) -> io::Result<Found> {
        if !matches!(self.child.try_wait(), Ok(Some(_))) {
            child::signal(&self.child, libc::SIGTERM);
            if !child::ended_within(&mut self.child, END_MAX) {
                child::end(&mut self.child, Duration::ZERO);
            }
        }
        let json = std::fs::read(self.scratch.0.join("report.json"));
        let Ok(json) = json else {
            let said = std::fs::read_to_string(self.scratch.0.join("err")).unwrap_or_default();
            let said = said.trim().replace('\n', " | ");
            let problems = vec![format!("{}: {said}", self.what)];
            return Ok(Found { report: None, problems, void: Vec::new() });
        };
        let report: Report = serde_json::from_slice(&json)
            .map_err(|e| io::Error::other(format!("{}: its report: {e}", self.what)))?;
        let (problems, void) = (report.problems.clone(), report.void.clone());
        Ok(Found { problems, void, report: Some(report) })
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(None)) {
            child::end(&mut self.child, Duration::ZERO);
        }
    }
}

/// Runs the generator to its end.
///
/// # Errors
/// When the generator cannot run. A run that is not clean is an error too: its numbers would
/// compare different work.
pub(crate) fn run(programs: &Programs, server: &Running, args: &[&str]) -> io::Result<Report> {
    let args: Vec<String> = args.iter().map(|&a| a.to_owned()).collect();
    let found = Load::start(programs, server, &args)?.wait(Duration::from_secs(3600))?;
    match found.report {
        Some(report) if found.problems.is_empty() => Ok(report),
        _ => Err(io::Error::other(format!(
            "ringmain-load {}: {}",
            args.join(" "),
            found.problems.join("; ")
        ))),
    }
}

/// The share of the server's CPU time that it spent outside of the kernel while traffic was measured.
pub(crate) fn user_share(report: &Report) -> f64 {
    let (Some(from), Some(to)) =
        (report.broker_at("traffic-begin"), report.broker_at("traffic-end"))
    else {
        return f64::NAN;
    };
    let user = (to.user_ms - from.user_ms) as f64;
    let system = (to.system_ms - from.system_ms) as f64;
    user / (user + system).max(1.0)
}

/// How often the server's threads went to sleep while traffic was measured, for each message.
pub(crate) fn sleeps_per_message(report: &Report) -> f64 {
    let at = |moment: &str| Some(report.broker_at(moment)?.voluntary_switches as f64);
    let (Some(from), Some(to)) = (at("traffic-begin"), at("traffic-end")) else { return f64::NAN };
    (to - from) / report.traffic.map_or(f64::NAN, |t| t.delivered.max(1) as f64)
}
