//! rumqttd: tokio, one router thread, written in Rust.

use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::{Peer, Pinned, cargo_install, first_line_with};

/// What `peers install` takes.
const VERSION: &str = "0.20.0";

#[derive(Debug)]
pub(crate) struct Rumqttd;

fn program(folder: &Path) -> PathBuf {
    folder.join("rumqttd/bin/rumqttd")
}

impl Peer for Rumqttd {
    fn name(&self) -> &'static str {
        "rumqttd"
    }

    fn about(&self) -> &'static str {
        "`rumqttd` of crates.io; minutes to compile"
    }

    fn version(&self, folder: &Path) -> Option<String> {
        let text = first_line_with(Command::new(program(folder)).arg("--version"), "rumqttd")?;
        Some(text.rsplit(' ').next()?.to_owned())
    }

    fn install(&self, folder: &Path) -> io::Result<()> {
        // Its lock file has a version of `metrics` that current Rust does not compile.
        cargo_install("rumqttd", VERSION, Pinned::No, &folder.join("rumqttd"))
    }

    /// Its default configuration with room for all connections, no pause between two of them, and
    /// only the listeners that are used. It knows no key for TCP_NODELAY, and serves MQTT 5 on a
    /// port of its own: the next one.
    fn config(&self, port: u16) -> String {
        let connections = "connection_timeout_ms = 60000\n\
             max_payload_size = 1048576\n\
             max_inflight_count = 65535\n\
             dynamic_filters = true\n";
        let server = |version: &str, port: u16| {
            format!(
                "[{version}.1]\n\
                 name = \"{version}-1\"\n\
                 listen = \"127.0.0.1:{port}\"\n\
                 next_connection_delay_ms = 0\n\
                 [{version}.1.connections]\n\
                 {connections}"
            )
        };
        format!(
            "id = 0\n\
             [router]\n\
             id = 0\n\
             max_connections = 100000\n\
             max_outgoing_packet_count = 200\n\
             max_segment_size = 104857600\n\
             max_segment_count = 10\n\
             {}{}",
            server("v4", port),
            server("v5", port + 1)
        )
    }

    fn command(&self, folder: &Path, config: &Path, _: u16) -> Command {
        let mut command = Command::new(program(folder));
        command.arg("--quiet").arg("--config").arg(config);
        command
    }

    fn config_name(&self) -> &'static str {
        "rumqttd.toml"
    }
}
