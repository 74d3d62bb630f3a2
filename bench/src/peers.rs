//! The brokers that Ringmain is compared with, and how they come here.
//!
//! A peer is one file and one line in [`PEERS`]. Each is set up to do its best: no caps, no logs,
//! no persistence, TCP_NODELAY where it can be asked for.

mod aedes;
mod mosquitto;
mod rmqttd;
mod rumqttd;

use std::fmt;
use std::io;
use std::net::{SocketAddr, ToSocketAddrs as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::str::FromStr;

use clap::{Args, Subcommand};

use crate::table::render;

/// All that can be installed.
pub(crate) const PEERS: &[&dyn Peer] =
    &[&mosquitto::Mosquitto, &rumqttd::Rumqttd, &aedes::Aedes, &rmqttd::Rmqttd];

/// A broker from an ordinary registry.
pub(crate) trait Peer: Sync + fmt::Debug {
    /// Its name in options, tables and results.
    fn name(&self) -> &'static str;
    /// Where it comes from.
    fn about(&self) -> &'static str;
    /// The version that is installed; `None` when it is not. `folder` is the cache of peers.
    fn version(&self, folder: &Path) -> Option<String>;
    /// Installs it, below `folder` unless its registry has a place of its own.
    ///
    /// # Errors
    /// When its registry's client fails.
    fn install(&self, folder: &Path) -> io::Result<()>;
    /// Text of the configuration file for 127.0.0.1:`port`.
    fn config(&self, port: u16) -> String;
    /// What runs it with the configuration file at `config`.
    fn command(&self, folder: &Path, config: &Path, port: u16) -> Command;

    /// Name of the configuration file.
    fn config_name(&self) -> &'static str {
        "peer.conf"
    }

    /// Whether it takes part and is installed only when it is named.
    fn on_request(&self) -> bool {
        false
    }
}

/// The peer of that name.
///
/// # Errors
/// A sentence that lists the names.
pub(crate) fn by_name(name: &str) -> io::Result<&'static dyn Peer> {
    PEERS.iter().copied().find(|p| p.name() == name).ok_or_else(|| {
        let names: Vec<&str> = PEERS.iter().map(|p| p.name()).collect();
        io::Error::other(format!("`{name}` is not one of {}", names.join(", ")))
    })
}

/// A broker that runs already.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct External {
    /// Its name in tables.
    pub(crate) name: String,
    /// Where it listens.
    pub(crate) address: SocketAddr,
    /// Its process, if it is on this machine: without it neither CPU nor memory are known.
    pub(crate) pid: Option<u32>,
}

impl FromStr for External {
    type Err = String;

    /// `name=host:port[,pid=N]`
    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("`{text}` is not name=host:port[,pid=N]");
        let (name, rest) = text.split_once('=').ok_or_else(wrong)?;
        let (address, pid) = match rest.split_once(",pid=") {
            Some((address, pid)) => (address, Some(pid.parse().map_err(|_| wrong())?)),
            None => (rest, None),
        };
        let mut addresses = address.to_socket_addrs().map_err(|e| format!("{address}: {e}"))?;
        let address = addresses.next().ok_or_else(wrong)?;
        if name.is_empty() {
            return Err(wrong());
        }
        Ok(Self { name: name.to_owned(), address, pid })
    }
}

/// `peers`
#[derive(Debug, Args)]
pub(crate) struct Peers {
    #[command(subcommand)]
    command: PeersCommand,
    /// Cache of peers; without it `peers` in cargo's target folder.
    #[arg(long, global = true)]
    peers_dir: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
enum PeersCommand {
    /// Install peers from Debian, crates.io and npm; without names all but those on request.
    Install {
        /// Names, as `peers list` shows them.
        names: Vec<String>,
    },
    /// The peers, and which version of them is installed.
    List,
    /// The configuration that a peer runs with.
    Config {
        /// Its name.
        name: String,
    },
}

impl Peers {
    pub(crate) fn run(&self) -> io::Result<()> {
        let folder = folder(self.peers_dir.as_deref())?;
        match &self.command {
            PeersCommand::Install { names } => install(names, &folder),
            PeersCommand::List => {
                print!("{}", list(&folder));
                Ok(())
            }
            PeersCommand::Config { name } => {
                print!("{}", by_name(name)?.config(1883));
                Ok(())
            }
        }
    }
}

/// The cache of peers: `asked`, or beside this program's own folder.
pub(crate) fn folder(asked: Option<&Path>) -> io::Result<PathBuf> {
    if let Some(folder) = asked {
        return std::path::absolute(folder);
    }
    let exe = std::env::current_exe()?;
    let target = exe.parent().and_then(Path::parent).unwrap_or(Path::new("."));
    Ok(target.join("peers"))
}

fn install(names: &[String], folder: &Path) -> io::Result<()> {
    let peers: Vec<&dyn Peer> = if names.is_empty() {
        PEERS.iter().copied().filter(|p| !p.on_request()).collect()
    } else {
        names.iter().map(|name| by_name(name)).collect::<io::Result<_>>()?
    };
    std::fs::create_dir_all(folder)?;
    let mut failed = Vec::new();
    for peer in peers {
        if let Some(version) = peer.version(folder) {
            eprintln!("{} {version} is here", peer.name());
            continue;
        }
        eprintln!("installing {}: {}", peer.name(), peer.about());
        // One that cannot be had does not keep the others away.
        if let Err(e) = peer.install(folder) {
            eprintln!("{}: {e}", peer.name());
            failed.push(peer.name());
        }
    }
    print!("{}", list(folder));
    if failed.is_empty() {
        Ok(())
    } else {
        Err(io::Error::other(format!("not installed: {}", failed.join(", "))))
    }
}

fn list(folder: &Path) -> String {
    let mut rows = vec![["peer", "installed", "from"].map(str::to_owned).to_vec()];
    rows.extend(PEERS.iter().map(|p| {
        let version = p.version(folder).unwrap_or_else(|| "no".to_owned());
        vec![p.name().to_owned(), version, p.about().to_owned()]
    }));
    render(&rows)
}

/// The first line with `part` of what a command prints, to stdout or stderr; `None` when it does
/// not run.
fn first_line_with(command: &mut Command, part: &str) -> Option<String> {
    let output = command.stdin(Stdio::null()).output().ok()?;
    let text = [output.stdout, output.stderr].concat();
    let text = String::from_utf8_lossy(&text).into_owned();
    text.lines().find(|line| line.contains(part)).map(|line| line.trim().to_owned())
}

/// Runs a registry's client; what it prints goes to stderr, where progress goes.
fn run_installer(command: &mut Command) -> io::Result<()> {
    let program = command.get_program().to_string_lossy().into_owned();
    let status = command
        .stdin(Stdio::null())
        .stdout(io::stderr())
        .status()
        .map_err(|e| io::Error::new(e.kind(), format!("{program}: {e}")))?;
    if status.success() {
        Ok(())
    } else {
        Err(io::Error::other(format!("{program} ended with {status}")))
    }
}

/// Which versions of its libraries a program is built from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Pinned {
    /// Those that its authors had.
    ByItsLockFile,
    /// The newest that fit: for a program whose lock file a current compiler refuses.
    No,
}

/// `cargo install` into a folder of its own.
fn cargo_install(name: &str, version: &str, pinned: Pinned, root: &Path) -> io::Result<()> {
    let mut cargo = Command::new("cargo");
    cargo.args(["install", name, "--version", version, "--root"]).arg(root);
    if pinned == Pinned::ByItsLockFile {
        cargo.arg("--locked");
    }
    cargo.env("CARGO_TARGET_DIR", root.join("build"));
    run_installer(&mut cargo)?;
    // What it was built from takes a gigabyte, and is not needed again.
    let _ = std::fs::remove_dir_all(root.join("build"));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_external_broker_has_a_name_an_address_and_perhaps_a_pid() {
        let external: External = "emqx=127.0.0.1:1883,pid=77".parse().unwrap();
        assert_eq!(external.name, "emqx");
        assert_eq!(external.address, SocketAddr::from(([127, 0, 0, 1], 1883)));
        assert_eq!(external.pid, Some(77));
        assert_eq!("x=127.0.0.1:1883".parse::<External>().unwrap().pid, None);
        for wrong in ["127.0.0.1:1883", "=127.0.0.1:1883", "x=127.0.0.1", "x=127.0.0.1:1,pid=a"] {
            assert!(wrong.parse::<External>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn every_peer_listens_on_loopback_where_it_is_told_to() {
        for peer in PEERS {
            let config = peer.config(23_456);
            let folder = Path::new("/nowhere");
            let command = format!("{:?}", peer.command(folder, folder, 23_456));
            let told = format!("{config} {command}");
            assert!(told.contains("23456") && config.contains("127.0.0.1"), "{}", peer.name());
        }
    }

    #[test]
    fn a_peer_that_is_not_installed_has_no_version() {
        let folder = Path::new("/nowhere");
        for name in ["rumqttd", "aedes", "rmqttd"] {
            assert_eq!(by_name(name).unwrap().version(folder), None);
        }
        assert!(by_name("nobody").is_err());
    }
}
