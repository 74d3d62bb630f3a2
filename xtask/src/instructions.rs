//! Instructions of the engine's operations against a baseline that is kept in the repository.
//!
//! A count is that of callgrind, for one operation of `shards/benches/engine.rs`. It does not depend on the
//! machine's speed or load. It depends on the compiler and the locked dependencies, and in small part
//! (that is what the tolerance is for) on the C library, on the vector instructions that the processor
//! has, and on the seeds of hash maps, which differ from process to process.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::{Command, ExitCode};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::process::Job;
use crate::{checked, root};

/// Where the baseline is.
const BASELINE: &str = "shards/benches/instructions.toml";
const COUNT: &str = "cargo bench --locked -p ringmain-shards --bench engine -- --counts";
/// Compiling with optimisation, and a few seconds under valgrind for each operation.
const LIMIT: Duration = Duration::from_secs(30 * 60);

/// The file.
#[derive(Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct Baseline {
    /// More than this many percent above its count is a regression.
    tolerance_percent: f64,
    /// `rustc --version` when it was counted, and the architecture.
    rustc: String,
    arch: String,
    /// Instructions of one operation.
    counts: BTreeMap<String, u64>,
}

/// `cargo xtask instructions [--update]`
pub(crate) fn run(args: &[String]) -> ExitCode {
    let done = match args {
        [] => check(),
        [flag] if flag == "--update" => update(),
        _ => Err("usage: cargo xtask instructions [--update]".to_owned()),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("{why}");
            ExitCode::FAILURE
        }
    }
}

/// Counts, and compares.
///
/// # Errors
/// A count above its tolerance, one without a baseline or the other way round, or another compiler
/// than the baseline's.
pub(crate) fn check() -> Result<(), String> {
    let path = path();
    let text = std::fs::read_to_string(&path).map_err(|e| format!("{}: {e}", path.display()))?;
    let kept: Baseline = toml::from_str(&text).map_err(|e| format!("{BASELINE}: {e}"))?;
    if kept.arch != std::env::consts::ARCH {
        println!("the baseline is for {}: nothing to compare here", kept.arch);
        return Ok(());
    }
    let (rustc, counts) = (rustc()?, count()?);
    let mut found = compare(&kept, &counts);
    if rustc != kept.rustc && !found.is_empty() {
        found.push(format!(
            "the baseline was counted with {}, this is {rustc}: if the compiler made the difference, \
             `cargo xtask instructions --update` in a commit of its own",
            kept.rustc
        ));
    }
    checked("instructions", Ok(found))
}

/// Counts, and keeps what was counted. The tolerance stays.
fn update() -> Result<(), String> {
    let path = path();
    let before: Option<Baseline> =
        std::fs::read_to_string(&path).ok().and_then(|text| toml::from_str(&text).ok());
    let tolerance_percent = before.map_or(2.0, |b| b.tolerance_percent);
    let (rustc, counts) = (rustc()?, count()?);
    let arch = std::env::consts::ARCH.to_owned();
    let text = toml::to_string(&Baseline { tolerance_percent, rustc, arch, counts })
        .map_err(|e| e.to_string())?;
    let head = "# Instructions of one operation of benches/engine.rs under callgrind.\n\
                # `cargo xtask ci instructions` fails when one takes more than the tolerance above these;\n\
                # `cargo xtask instructions --update` counts anew. Say in the commit why they changed.\n";
    std::fs::write(&path, format!("{head}{text}")).map_err(|e| format!("{}: {e}", path.display()))
}

/// What is wrong, a line each; what got better is only printed.
fn compare(kept: &Baseline, counts: &BTreeMap<String, u64>) -> Vec<String> {
    let mut found = Vec::new();
    for (name, now) in counts {
        let Some(before) = kept.counts.get(name) else {
            found.push(format!("{name}: {now}, and no baseline: --update"));
            continue;
        };
        let percent = (*now as f64 / (*before).max(1) as f64 - 1.0) * 100.0;
        println!("{name:14} {before:>8} {now:>8} {percent:+7.2} %");
        // In this order a whole number of percent has no rounding in it.
        if *now as f64 > *before as f64 * (100.0 + kept.tolerance_percent) / 100.0 {
            found.push(format!("{name}: {now} instructions instead of {before} ({percent:+.2} %)"));
        }
        if percent < -kept.tolerance_percent {
            println!("{name} got better: keep that with cargo xtask instructions --update");
        }
    }
    let gone = kept.counts.keys().filter(|name| !counts.contains_key(*name));
    found.extend(gone.map(|name| format!("{name}: has a baseline, and was not counted")));
    found
}

/// Runs the benchmark under valgrind.
fn count() -> Result<BTreeMap<String, u64>, String> {
    println!("$ {COUNT}");
    let mut counts = BTreeMap::new();
    Job::shell(COUNT).run(LIMIT, &mut |line| {
        if let Some((name, count)) = parse(line) {
            counts.insert(name.to_owned(), count);
        }
    })?;
    if counts.is_empty() {
        return Err("instructions: nothing was counted: is valgrind there?".to_owned());
    }
    Ok(counts)
}

/// `name = count`
fn parse(line: &str) -> Option<(&str, u64)> {
    let (name, count) = line.split_once(" = ")?;
    Some((name, count.parse().ok()?))
}

fn rustc() -> Result<String, String> {
    let output =
        Command::new("rustc").arg("--version").output().map_err(|e| format!("rustc: {e}"))?;
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

fn path() -> PathBuf {
    root().join(BASELINE)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts(of: &[(&str, u64)]) -> BTreeMap<String, u64> {
        of.iter().map(|(name, count)| ((*name).to_owned(), *count)).collect()
    }

    fn kept() -> Baseline {
        let counts = counts(&[("a", 1000), ("b", 50)]);
        Baseline { tolerance_percent: 2.0, rustc: "rustc".into(), arch: "any".into(), counts }
    }

    #[test]
    fn more_than_the_tolerance_is_a_regression_and_less_is_not() {
        assert!(compare(&kept(), &counts(&[("a", 1020), ("b", 40)])).is_empty());
        let found = compare(&kept(), &counts(&[("a", 1021), ("b", 50)]));
        assert_eq!(found, ["a: 1021 instructions instead of 1000 (+2.10 %)"]);
    }

    #[test]
    fn an_operation_that_came_or_went_is_found() {
        let found = compare(&kept(), &counts(&[("a", 1000), ("c", 1)]));
        assert_eq!(found.len(), 2, "{found:?}");
    }

    #[test]
    fn lines_of_the_benchmark_are_read_and_others_are_not() {
        assert_eq!(parse("p2p-qos0 = 3393"), Some(("p2p-qos0", 3393)));
        assert_eq!(parse("p2p-qos0 = no valgrind"), None);
        assert_eq!(parse("   Compiling ringmain"), None);
    }
}
