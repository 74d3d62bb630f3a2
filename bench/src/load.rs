//! Runs `ringmain-load` as a process of its own and reads its report.

use std::io;
use std::process::{Command, Stdio};

use ringmain_load::report::Report;

use crate::contender::{Programs, Running, Scratch};

/// Runs the generator against a server, whose cost it samples.
///
/// # Errors
/// When the generator cannot run. A run that is not clean is an error too: its numbers would
/// compare different work.
pub(crate) fn run(programs: &Programs, server: &Running, args: &[&str]) -> io::Result<Report> {
    let scratch = Scratch::new(&format!("load-{}", server.port))?;
    let json = scratch.0.join("report.json");
    let output = Command::new(&programs.load)
        .args(args)
        .args(["--port", &server.port.to_string()])
        .args(["--broker-pid", &server.pid().to_string()])
        .arg("--quiet")
        .arg("--json")
        .arg(&json)
        .stdin(Stdio::null())
        .output()
        .map_err(|e| io::Error::new(e.kind(), format!("{}: {e}", programs.load.display())))?;
    if !output.status.success() {
        return Err(io::Error::other(format!(
            "ringmain-load {}: {}\n{}{}",
            args.join(" "),
            output.status,
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        )));
    }
    Ok(serde_json::from_slice(&std::fs::read(&json)?)?)
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
