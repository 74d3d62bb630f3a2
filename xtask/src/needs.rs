//! What the tests need from the system, and how to get it.

use std::process::ExitCode;
use std::time::Duration;

use crate::checked;
use crate::process::Job;

/// A command that shows whether it is there, and the Debian package that brings it.
struct Need {
    probe: &'static str,
    package: &'static str,
}

const NEEDS: &[Need] = &[
    Need { probe: "command -v cc", package: "build-essential" },
    Need { probe: "command -v mosquitto || test -x /usr/sbin/mosquitto", package: "mosquitto" },
    Need { probe: "command -v mosquitto_pub", package: "mosquitto-clients" },
    Need { probe: "python3 -c 'import venv, ensurepip'", package: "python3-venv" },
    Need { probe: "command -v node", package: "nodejs" },
    Need { probe: "command -v npm", package: "npm" },
    Need { probe: "command -v ip", package: "iproute2" },
    Need { probe: "command -v promtool", package: "prometheus" },
    Need { probe: "command -v valgrind", package: "valgrind" },
    // Of the unit in deploy/: nothing is started.
    Need { probe: "command -v systemd-analyze", package: "systemd" },
];

/// Tools that make the checks better but are not there by default: minutes to compile.
const TOOLS: &[(&str, &str)] = &[
    ("cargo nextest --version", "cargo install --locked cargo-nextest"),
    ("cargo deny --version", "cargo install --locked cargo-deny"),
];

const LIMIT: Duration = Duration::from_secs(30 * 60);

/// Whether a command line succeeds.
pub(crate) fn probe(line: &str) -> bool {
    Job::shell(line).succeeds()
}

/// `cargo xtask needs`.
pub(crate) fn run(_: &[String]) -> ExitCode {
    if install().is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// `cargo xtask tools`.
pub(crate) fn tools(_: &[String]) -> ExitCode {
    let missing = TOOLS.iter().filter(|(there, _)| !probe(there));
    let failed = missing.filter_map(|(_, line)| {
        println!("$ {line}");
        Job::shell(line).run(LIMIT, &mut |_| {}).err().map(|error| format!("{line}: {error}"))
    });
    crate::report("tools", Ok(failed.collect()))
}

/// Installs the packages that are missing.
///
/// # Errors
/// Those that are missing still.
pub(crate) fn install() -> Result<(), String> {
    let missing: Vec<&str> =
        NEEDS.iter().filter(|need| !probe(need.probe)).map(|need| need.package).collect();
    if !missing.is_empty() {
        let sudo = if probe("test \"$(id -u)\" = 0") { "" } else { "sudo -n " };
        let env = "env DEBIAN_FRONTEND=noninteractive";
        let packages = missing.join(" ");
        let line = format!(
            "{sudo}apt-get update -q && \
             {sudo}{env} apt-get install -q -y --no-install-recommends {packages}"
        );
        println!("$ {line}");
        if let Err(error) = Job::shell(&line).run(LIMIT, &mut |_| {}) {
            println!("apt-get: {error}");
        }
    }
    let still = NEEDS.iter().filter(|need| !probe(need.probe));
    let still = still.map(|need| format!("{} is missing: install it", need.package));
    checked("needs", Ok(still.collect()))
}
