//! The files of each profile for a reference host and goal: what kernel-params/profiles/ holds.

use crate::goal::{Goal, Profile};
use crate::host::Hardware;
use crate::judge::{Finding, proposed_for_a_fresh_host};
use crate::parameter::{self, Change};
use crate::persist;

/// The goal of the examples.
pub const GOAL: Goal =
    Goal { profile: Profile::ManyConnections, connections: 1_000_000, rate: 200_000 };

/// The host of the examples: 16 cores, 64 GiB, a card with 16 queues, Linux 6.18.
#[must_use]
pub fn hardware() -> Hardware {
    Hardware {
        cores: 16,
        memory: 64 << 30,
        swap: 0,
        nodes: 1,
        nics: 1,
        queues: 16,
        tracked: 0,
        kernel: (6, 18),
        system: "reference host".to_owned(),
    }
}

/// The files of `profile`: name and text.
///
/// # Errors
/// A fault of the data.
pub fn files(profile: Profile) -> Result<Vec<(&'static str, String)>, String> {
    let goal = Goal { profile, ..GOAL };
    let hardware = hardware();
    let variables = goal.variables(&hardware);
    let mut findings = Vec::new();
    let mut boot = Vec::new();
    for p in parameter::all()? {
        let matters = p.requires.as_ref().map_or(Ok(1), |r| r.value(&variables))?;
        let Some(proposed) = proposed_for_a_fresh_host(&p, &goal, &variables)? else {
            continue;
        };
        if matters == 0 {
            continue;
        }
        if p.change == Change::Boot {
            boot.push(format!("{}={proposed}", p.boot));
        }
        // tmpfiles.d knows patterns.
        findings.push(Finding::example(&p, proposed));
    }
    let mut files: Vec<(&'static str, String)> = persist::files(&findings)
        .into_iter()
        .filter_map(|(path, text)| {
            let (name, what) = match path.as_str() {
                persist::SYSCTL => ("sysctl.conf", "for /etc/sysctl.d"),
                persist::TMPFILES => ("tmpfiles.conf", "for /etc/tmpfiles.d"),
                persist::LIMITS => ("limits.conf", "for /etc/security/limits.d"),
                persist::DROP_IN => ("service.conf", "for /etc/systemd/system/ringmain.service.d"),
                _ => return None,
            };
            let body = text.split_once('\n').map_or("", |(_, body)| body);
            Some((name, format!("{}{body}", persist::example_head(profile, what))))
        })
        .collect();
    if !boot.is_empty() {
        let head = persist::example_head(profile, "for the kernel's command line");
        files.push(("cmdline", format!("{head}{}\n", boot.join(" "))));
    }
    Ok(files)
}
