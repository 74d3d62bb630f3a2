//! `ringmain-bench`: what Ringmain costs, beside its peers and the physical floor, in one run.
//!
//! First metric: CPU time of the server's process. Losing results are shown as they are.

mod all;
mod contender;
mod cost;
mod crossing;
mod floor;
mod floor_server;
mod load;
mod model;
mod results;
mod table;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Benchmarks of Ringmain beside its peers and the physical floor.
#[derive(Debug, Parser)]
#[command(name = "ringmain-bench", version, about)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// All of the following, with files of results; below a quarter of an hour.
    All(all::All),
    /// Bytes a connection, a subscription and an offline session; CPU of connect + subscribe.
    Cost(cost::Cost),
    /// CPU a message with one shard, and with two at 0, 50 and 100 % crossing.
    Crossing(crossing::Crossing),
    /// CPU a message beside a bare io_uring server that moves the same bytes.
    Floor(floor::Floor),
    /// What 1 to 64 cores would do, from runs with one and two shards.
    Model(model::Model),
    /// The bare server itself.
    FloorServer(floor_server::FloorServer),
}

fn main() -> ExitCode {
    let result = match Cli::parse().command {
        Command::All(c) => c.run(),
        Command::Cost(c) => c.run(),
        Command::Crossing(c) => c.run(),
        Command::Floor(c) => c.run(),
        Command::Model(c) => c.run(),
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
