//! rmqttd: tokio with all its threads, written in Rust. It takes an hour to compile, so it comes
//! only on request.

use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::{Peer, Pinned, cargo_install, first_line_with};

/// What `peers install rmqttd` takes.
const VERSION: &str = "0.23.1";

#[derive(Debug)]
pub(crate) struct Rmqttd;

fn program(folder: &Path) -> PathBuf {
    folder.join("rmqttd/bin/rmqttd")
}

impl Peer for Rmqttd {
    fn name(&self) -> &'static str {
        "rmqttd"
    }

    fn about(&self) -> &'static str {
        "`rmqttd` of crates.io; an hour to compile"
    }

    fn on_request(&self) -> bool {
        true
    }

    fn version(&self, folder: &Path) -> Option<String> {
        let text = first_line_with(Command::new(program(folder)).arg("--version"), "rmqtt")?;
        Some(text.rsplit(' ').next()?.to_owned())
    }

    fn install(&self, folder: &Path) -> io::Result<()> {
        cargo_install("rmqttd", VERSION, Pinned::ByItsLockFile, &folder.join("rmqttd"))
    }

    /// For everyone on loopback, without logs or caps.
    fn config(&self, port: u16) -> String {
        format!(
            "[node]\n\
             id = 1\n\
             [log]\n\
             to = \"off\"\n\
             level = \"error\"\n\
             [listener.tcp.external]\n\
             addr = \"127.0.0.1:{port}\"\n\
             max_connections = 1024000\n\
             max_handshaking_limit = 20000\n\
             backlog = 4096\n\
             nodelay = true\n\
             allow_anonymous = true\n\
             max_mqueue_len = 100000\n\
             max_inflight = 65535\n\
             mqueue_rate_limit = \"1000000/1s\"\n\
             [plugins]\n\
             default_startups = []\n"
        )
    }

    fn command(&self, folder: &Path, config: &Path, _: u16) -> Command {
        let mut command = Command::new(program(folder));
        command.arg("--config").arg(config);
        command
    }

    fn config_name(&self) -> &'static str {
        "rmqtt.toml"
    }
}
