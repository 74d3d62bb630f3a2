//! Debian's mosquitto: one thread, epoll, written in C.

use std::io;
use std::path::Path;
use std::process::Command;

use super::{Peer, first_line_with, run_installer};

/// Where Debian puts it.
const PROGRAM: &str = "/usr/sbin/mosquitto";

#[derive(Debug)]
pub(crate) struct Mosquitto;

impl Peer for Mosquitto {
    fn name(&self) -> &'static str {
        "mosquitto"
    }

    fn about(&self) -> &'static str {
        "Debian's package `mosquitto`"
    }

    fn version(&self, _: &Path) -> Option<String> {
        // `-h` prints "mosquitto version 2.0.11" and ends with 3.
        let text = first_line_with(Command::new(PROGRAM).arg("-h"), "version")?;
        Some(text.rsplit(' ').next()?.to_owned())
    }

    fn install(&self, _: &Path) -> io::Result<()> {
        let mut apt = Command::new("apt-get");
        apt.args(["install", "-y", "--no-install-recommends", "mosquitto"]);
        // Not as a service: it would take part in every measurement. invoke-rc.d looks at this.
        apt.envs([("DEBIAN_FRONTEND", "noninteractive"), ("RUNLEVEL", "1")]);
        run_installer(&mut apt)
    }

    /// For everyone on loopback, without persistence, logs or caps. It stays the user it is started
    /// as: a process that changes its user would outlive a benchmark that is killed.
    fn config(&self, port: u16) -> String {
        format!(
            "listener {port} 127.0.0.1\n\
             user root\n\
             allow_anonymous true\n\
             max_connections -1\n\
             max_queued_messages 0\n\
             max_inflight_messages 0\n\
             persistence false\n\
             set_tcp_nodelay true\n\
             sys_interval 0\n\
             log_type none\n"
        )
    }

    fn command(&self, _: &Path, config: &Path, _: u16) -> Command {
        let mut command = Command::new(PROGRAM);
        command.arg("-c").arg(config);
        command
    }
}
