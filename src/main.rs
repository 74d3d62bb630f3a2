//! `ringmain`: an MQTT broker for bare metal.

use std::process::ExitCode;

use clap::Parser;
use ringmain::cli::Cli;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    ringmain::cli::run(Cli::parse())
}
