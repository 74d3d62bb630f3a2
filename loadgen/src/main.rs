//! `ringmain-load`: see the library.
//!
//! Exit status: 0 when the run was clean, 1 when it was not, 2 when it could not be made.

use std::process::ExitCode;

use clap::Parser;
use ringmain_load::cli::{Cli, Command};
use ringmain_load::{million, run};

fn main() -> ExitCode {
    let cli = Cli::parse();
    match start(&cli) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(1),
        Err(message) => {
            eprintln!("ringmain-load: {message}");
            ExitCode::from(2)
        }
    }
}

fn start(cli: &Cli) -> Result<bool, String> {
    if let Command::Million(options) = &cli.command {
        return million::main(options);
    }
    let (plan, options) = cli.command.plan()?;
    run::catch_signals();
    let mut observer = run::plain_lines(options.progress);
    let report = run::run(plan, &options, &mut observer).map_err(|e| e.to_string())?;
    print!("{}", report.to_text());
    if let Some(path) = &cli.command.common().json {
        let json = serde_json::to_string_pretty(&report).map_err(|e| e.to_string())?;
        std::fs::write(path, json).map_err(|e| format!("{}: {e}", path.display()))?;
    }
    Ok(report.is_clean())
}
