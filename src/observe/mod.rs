//! The operator's tools: they ask a running broker over its admin socket.

mod advice;
mod audit;
mod explain_slow;
mod format;
mod profile;
mod top;

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use ringmain_control::client::Client;
use serde::Serialize;

pub(crate) use audit::{Audit, run as audit};
pub(crate) use explain_slow::{ExplainSlow, run as explain_slow};
pub(crate) use profile::{Profile, run as profile};
pub(crate) use top::{Top, run as top};

use crate::config::Config;

/// The admin socket of a broker with this configuration; `None` if it has none.
pub(crate) fn socket(config: &Config) -> Option<PathBuf> {
    let socket = &config.admin.socket;
    (!socket.is_empty()).then(|| config.node.data_dir.join(socket))
}

/// Writes to standard output; false if nobody reads it any more.
pub(crate) fn say(text: &str) -> bool {
    let mut out = std::io::stdout().lock();
    out.write_all(text.as_bytes()).and_then(|()| out.flush()).is_ok()
}

/// Writes one JSON document in one line; false if nobody reads any more.
fn say_json(document: &impl Serialize) -> bool {
    // Plain data with text for keys: serde_json has no reason to fail.
    serde_json::to_string(document).is_ok_and(|json| say(&(json + "\n")))
}

/// Ends a command that could not do its work.
fn fail(command: &str, why: impl std::fmt::Display) -> ExitCode {
    eprintln!("{command}: {why}");
    ExitCode::FAILURE
}

/// What every command gets: the broker, and its own options.
pub(crate) type Run<T> = fn(&Client, &T) -> ExitCode;
