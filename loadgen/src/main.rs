//! `ringmain-load`: see the library.
//!
//! Exit status: 0 when the run was clean and its assertions held, 1 when not, 2 when it could not be
//! made, 3 when it is void.

use std::process::ExitCode;

use clap::Parser;
use ringmain_load::cli::Cli;
use ringmain_load::cli::start::start;

fn main() -> ExitCode {
    match start(&Cli::parse()) {
        Ok(outcome) => outcome.into(),
        Err(message) => {
            eprintln!("ringmain-load: {message}");
            ExitCode::from(2)
        }
    }
}
