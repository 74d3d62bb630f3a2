//! House rules as code: `cargo xtask COMMAND`.

mod ci;
mod counts;
mod deps;
mod instructions;
mod needs;
mod pages;
mod process;
mod sources;
mod statements;
mod tokens;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// Name, arguments, what it does, what runs. A new command is one line.
type Command = (&'static str, &'static str, &'static str, fn(&[String]) -> ExitCode);

const COMMANDS: &[Command] = &[
    ("ci", "[--list] [STEP...]", "everything that CI runs, or only these steps", ci::run),
    ("needs", "", "install the system packages that the tests need", needs::run),
    ("tools", "", "install cargo-nextest and cargo-deny with cargo install --locked", needs::tools),
    (
        "instructions",
        "[--update]",
        "instructions of the engine's operations against the baseline, or a new one",
        instructions::run,
    ),
    ("deps", "", "which crate may depend on which, licences, origins", deps::run),
    ("pages", "", "whether what docs/ARCHITECTURE.md and the guides name exists", pages::run),
    ("sources", "", "what the sources of a crate may name", sources::run),
    (
        "statements",
        "[--missing] [--json]",
        "which test covers which MQTT statement",
        statements::run,
    ),
];

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let command = args.split_first().and_then(|(name, rest)| {
        COMMANDS.iter().find(|command| command.0 == name).map(|command| (command.3, rest))
    });
    let Some((run, rest)) = command else {
        eprintln!("usage: cargo xtask COMMAND\n");
        for (name, args, what, _) in COMMANDS {
            eprintln!("  {:28}{what}", format!("{name} {args}"));
        }
        return ExitCode::from(2);
    };
    run(rest)
}

/// The root of the repository.
fn root() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.parent().unwrap_or(here).to_path_buf()
}

/// Prints what is wrong, one line each, and says so in the exit code.
fn report(what: &str, found: Result<Vec<String>, String>) -> ExitCode {
    match checked(what, found) {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            eprintln!("{message}");
            ExitCode::FAILURE
        }
    }
}

/// The findings of a check as one result.
fn checked(what: &str, found: Result<Vec<String>, String>) -> Result<(), String> {
    match found {
        Ok(findings) if findings.is_empty() => {
            println!("{what}: ok");
            Ok(())
        }
        Ok(findings) => Err(format!("{what}:\n  {}", findings.join("\n  "))),
        Err(error) => Err(format!("{what}: {error}")),
    }
}
