//! `cargo xtask ci`: every check of the house, in order, all failures at the end.

use std::process::ExitCode;
use std::time::{Duration, Instant};

use crate::counts::{Counts, Format};
use crate::process::Job;
use crate::{checked, deps, instructions, needs, pages, root, sources, statements};

/// What a step runs.
enum Run {
    /// A command line, with variables to set.
    Shell(&'static str, &'static [(&'static str, &'static str)]),
    /// The first if the probe succeeds, else the second, which prints in another format.
    Either { probe: &'static str, with: &'static str, without: (&'static str, Format) },
    /// A check of this program.
    Own(fn() -> Result<(), String>),
}

/// When a step runs.
enum When {
    Always,
    /// If this file of the repository exists.
    File(&'static str),
    /// If this command succeeds; else what to say.
    Probe(&'static str, &'static str),
}

/// One step. Within `minutes` or it has failed.
struct Step {
    name: &'static str,
    run: Run,
    format: Format,
    when: When,
    minutes: u64,
}

const fn step(name: &'static str, run: Run, format: Format, when: When, minutes: u64) -> Step {
    Step { name, run, format, when, minutes }
}

const fn shell(line: &'static str) -> Run {
    Run::Shell(line, &[])
}

/// Seeds of the simulator in CI; longer runs are a command of their own.
const SIM: &str = "cargo run --locked --quiet -p ringmain-sim --release -- --seeds 1..3001";
/// Bugs planted one at a time, each with a bounded number of seeds: are the oracles awake?
const PLANTS: &str = "cargo run --locked --quiet -p ringmain-sim --release -- --plant all";
/// A minute for each target.
const FUZZ: &str = "for target in decode topic engine acl auth \
                    proxy tls websocket; do \
                    bash fuzz/run.sh $target 30 || exit 1; done";
/// The release binary, for the tests of it from outside.
const INTEROP: &str = "RINGMAIN_BIN=\"${CARGO_TARGET_DIR:-$PWD/target}/release/ringmain\" \
                       bash tests/interop/run.sh";
/// The same, scraped by Prometheus.
const METRICS: &str = "RINGMAIN_BIN=\"${CARGO_TARGET_DIR:-$PWD/target}/release/ringmain\" \
                       bash tests/metrics/run.sh";

/// The minutes are for two cores and a fresh clone, several times what a step takes there: they end
/// what hangs. All steps together take about 25 minutes.
const STEPS: &[Step] = &[
    step("needs", Run::Own(needs::install), Format::None, When::Always, 10),
    step("lockfile", shell("cargo fetch --locked"), Format::None, When::Always, 10),
    step("format", shell("cargo fmt --all --check"), Format::None, When::Always, 2),
    step("deps", Run::Own(deps_step), Format::None, When::Always, 5),
    step("sources", Run::Own(sources_step), Format::None, When::Always, 5),
    step("pages", Run::Own(pages_step), Format::None, When::Always, 2),
    step("statements", Run::Own(statements_step), Format::None, When::Always, 2),
    step(
        "clippy",
        shell("cargo clippy --locked --workspace --all-targets -- -D warnings"),
        Format::None,
        When::Always,
        20,
    ),
    step(
        "docs",
        Run::Shell("cargo doc --locked --workspace --no-deps", &[("RUSTDOCFLAGS", "-D warnings")]),
        Format::None,
        When::Always,
        15,
    ),
    step(
        "deny",
        shell("cargo deny --offline check bans licenses sources"),
        Format::None,
        When::Probe("cargo deny --version", "cargo-deny is missing: cargo xtask tools"),
        5,
    ),
    step(
        "advisories",
        shell("cargo deny --offline check advisories"),
        Format::None,
        When::Probe(
            "cargo deny --version && ls -d \"${CARGO_HOME:-$HOME/.cargo}\"/advisory-db*",
            "cargo-deny or the advisory database is missing: cargo deny fetch gets it from github.com",
        ),
        5,
    ),
    step(
        "tests",
        Run::Either {
            probe: "cargo nextest --version",
            with: "cargo nextest run --locked --workspace --profile ci",
            without: (
                "cargo test --locked --workspace --no-fail-fast --lib --bins --tests",
                Format::Libtest,
            ),
        },
        Format::Nextest,
        When::Always,
        30,
    ),
    step(
        "doc tests",
        shell("cargo test --locked --workspace --no-fail-fast --doc"),
        Format::Libtest,
        When::Always,
        10,
    ),
    step("release", shell("cargo build --locked --release"), Format::None, When::Always, 20),
    step("interop", shell(INTEROP), Format::Pytest, When::File("tests/interop/run.sh"), 25),
    step("metrics", shell(METRICS), Format::Libtest, When::File("tests/metrics/run.sh"), 10),
    step(
        "limits",
        shell("bash tests/limits/run.sh"),
        Format::Libtest,
        When::File("tests/limits/run.sh"),
        20,
    ),
    step(
        "instructions",
        Run::Own(instructions::check),
        Format::None,
        When::Probe("valgrind --version", "valgrind could not be installed: cargo xtask needs"),
        30,
    ),
    step("simulator", shell(SIM), Format::None, When::File("sim/Cargo.toml"), 15),
    step("planted bugs", shell(PLANTS), Format::None, When::File("sim/Cargo.toml"), 15),
    step("fuzz", shell(FUZZ), Format::None, When::File("fuzz/run.sh"), 20),
];

fn deps_step() -> Result<(), String> {
    checked("deps", deps::check())
}

fn pages_step() -> Result<(), String> {
    checked("pages", pages::check())
}

fn statements_step() -> Result<(), String> {
    checked("statements", statements::check())
}

fn sources_step() -> Result<(), String> {
    checked("sources", sources::check())
}

/// How a step ended.
enum Outcome {
    Passed,
    Skipped(String),
    Failed(String),
}

struct Done {
    name: &'static str,
    outcome: Outcome,
    counts: Counts,
    took: Duration,
}

/// Runs the steps that are named, or all.
pub(crate) fn run(args: &[String]) -> ExitCode {
    if args.iter().any(|arg| arg == "--list") {
        for step in STEPS {
            println!("{}", step.name);
        }
        return ExitCode::SUCCESS;
    }
    if let Some(unknown) = args.iter().find(|arg| !STEPS.iter().any(|step| step.name == **arg)) {
        eprintln!("no step `{unknown}`: cargo xtask ci --list names them");
        return ExitCode::from(2);
    }
    let wanted = |step: &&Step| args.is_empty() || args.iter().any(|arg| arg == step.name);
    let done: Vec<Done> = STEPS.iter().filter(wanted).map(perform).collect();
    summary(&done)
}

fn perform(step: &Step) -> Done {
    println!("\n==> {}", step.name);
    let started = Instant::now();
    let mut counts = Counts::default();
    let outcome = match skipped(&step.when) {
        Some(why) => {
            println!("skipped: {why}");
            Outcome::Skipped(why)
        }
        None => match execute(step, &mut counts) {
            Ok(()) => Outcome::Passed,
            Err(why) => {
                println!("FAILED: {why}");
                Outcome::Failed(why)
            }
        },
    };
    let took = started.elapsed();
    println!("<== {} took {:.1} s", step.name, took.as_secs_f64());
    Done { name: step.name, outcome, counts, took }
}

fn skipped(when: &When) -> Option<String> {
    match when {
        When::Always => None,
        When::File(path) => (!root().join(path).exists()).then(|| format!("there is no {path}")),
        When::Probe(probe, why) => (!needs::probe(probe)).then(|| (*why).to_owned()),
    }
}

fn execute(step: &Step, counts: &mut Counts) -> Result<(), String> {
    let (line, format, vars): (&str, Format, &[(&str, &str)]) = match &step.run {
        Run::Own(check) => return check(),
        Run::Shell(line, vars) => (line, step.format, vars),
        Run::Either { probe, with, .. } if needs::probe(probe) => (with, step.format, &[]),
        Run::Either { without: (line, format), .. } => (line, *format, &[]),
    };
    println!("$ {line}");
    let limit = Duration::from_secs(step.minutes * 60);
    let mut job = Job::shell(line);
    job.vars(vars);
    job.run(limit, &mut |text| counts.read(format, text))?;
    match (format, counts.passed + counts.failed) {
        (Format::None, _) => Ok(()),
        // Documentation may have no tests; everything else that runs none has lost them.
        (_, 0) if step.name != "doc tests" => Err("it ran no tests".to_owned()),
        _ if counts.failed > 0 => Err(format!("{} tests failed", counts.failed)),
        _ => Ok(()),
    }
}

/// Prints all steps, then the failures again, then the line that scripts read.
fn summary(done: &[Done]) -> ExitCode {
    println!("\n==> summary");
    for Done { name, outcome, counts, took } in done {
        let result = match outcome {
            Outcome::Passed => "ok",
            Outcome::Skipped(_) => "skipped",
            Outcome::Failed(_) => "FAILED",
        };
        let tests = match (counts.passed, counts.failed) {
            (0, 0) => String::new(),
            (passed, failed) => format!("{passed} passed, {failed} failed"),
        };
        println!("  {name:12}{result:9}{:8.1} s  {tests}", took.as_secs_f64());
    }
    for Done { name, outcome, counts, .. } in done {
        match outcome {
            Outcome::Passed => {}
            Outcome::Skipped(why) => println!("skipped: {name}: {why}"),
            Outcome::Failed(why) => println!("FAILED: {name}: {why}"),
        }
        counts.names.iter().for_each(|test| println!("FAILED: {name}: {test}"));
    }
    let failed_steps = done.iter().filter(|done| matches!(done.outcome, Outcome::Failed(_)));
    let passed: u64 = done.iter().map(|done| done.counts.passed).sum();
    // A step that failed without a failing test counts as one, so that 0 means all is well.
    let failed: u64 = failed_steps.map(|done| done.counts.failed.max(1)).sum();
    println!("{passed} passed, {failed} failed");
    if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn done(outcome: Outcome, passed: u64, failed: u64) -> Done {
        let counts = Counts { passed, failed, names: Vec::new() };
        Done { name: "step", outcome, counts, took: Duration::ZERO }
    }

    #[test]
    fn any_failed_step_fails_the_run_and_a_skipped_one_does_not() {
        let skipped = || done(Outcome::Skipped("absent".into()), 0, 0);
        let passed = || done(Outcome::Passed, 3, 0);
        assert_eq!(summary(&[passed(), skipped()]), ExitCode::SUCCESS);
        let failed = done(Outcome::Failed("status 1".into()), 0, 0);
        assert_eq!(summary(&[passed(), failed]), ExitCode::FAILURE);
    }

    #[test]
    fn a_test_step_that_ran_no_tests_has_failed() {
        let silent = step("t", shell("true"), Format::Libtest, When::Always, 1);
        assert!(matches!(perform(&silent).outcome, Outcome::Failed(_)));
        let counted = "echo 'test result: ok. 2 passed; 0 failed; 0 ignored'";
        let counted = perform(&step("t", shell(counted), Format::Libtest, When::Always, 1));
        assert!(matches!(counted.outcome, Outcome::Passed));
        assert_eq!(counted.counts.passed, 2);
    }

    #[test]
    fn step_names_are_unique() {
        let mut names: Vec<&str> = STEPS.iter().map(|step| step.name).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), STEPS.len());
    }
}
