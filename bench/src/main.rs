//! `ringmain-bench`: what Ringmain costs, beside its peers and the physical floor, in one run.
//!
//! First metric: CPU time of the server's process. Losing results are shown as they are.

mod admin;
mod all;
mod child;
mod client;
mod contender;
mod crossing;
mod floor_server;
mod load;
mod model;
mod page;
mod peers;
mod results;
mod scenario;
mod scenarios;
mod table;

use std::io;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::scenario::run::{Options, RunScenarios};
use crate::scenarios::List;

/// Benchmarks of Ringmain beside its peers and the physical floor.
#[derive(Debug, Parser)]
#[command(name = "ringmain-bench", version, about)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Every scenario that is not on request, and `crossing`, with files of results.
    All(all::All),
    /// Scenarios by name.
    Run(RunScenarios),
    /// The scenarios.
    List(List),
    /// Bytes a connection, a subscription and an offline session; CPU of connect + subscribe:
    /// `run idle-15k`.
    Cost(Options),
    /// CPU a message beside a bare io_uring server that moves the same bytes: `run floor`.
    Floor(Options),
    /// CPU a message with one shard, and with two at 0, 50 and 100 % crossing.
    Crossing(crossing::Crossing),
    /// What 1 to 64 cores would do, from runs with one and two shards.
    Model(model::Model),
    /// One page with plots from the results.
    Page(page::Page),
    /// The brokers to compare with: install, list, show their configuration.
    Peers(peers::Peers),
    /// The bare server itself.
    FloorServer(floor_server::FloorServer),
}

fn main() -> ExitCode {
    child::sweep();
    let result = match Cli::parse().command {
        Command::All(c) => c.run(),
        Command::Run(c) => c.run(),
        Command::List(c) => c.run(),
        Command::Cost(options) => run_named("idle-15k", &options),
        Command::Floor(options) => run_named("floor", &options),
        Command::Crossing(c) => c.run(),
        Command::Model(c) => c.run(),
        Command::Page(c) => c.run(),
        Command::Peers(c) => c.run(),
        Command::FloorServer(c) => c.run(),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("ringmain-bench: {e}");
            ExitCode::FAILURE
        }
    }
}

fn run_named(name: &str, options: &Options) -> io::Result<()> {
    scenario::run::run(scenarios::by_name(name)?, options)
}
