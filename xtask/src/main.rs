//! House commands: `cargo xtask COMMAND`.

use std::process::ExitCode;

mod statements;

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    match args.split_first() {
        Some((command, rest)) if command == "statements" => statements::run(rest),
        _ => {
            eprintln!("usage: cargo xtask statements [--missing] [--json]");
            ExitCode::from(2)
        }
    }
}
