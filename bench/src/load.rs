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
