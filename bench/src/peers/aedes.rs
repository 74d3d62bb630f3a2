//! aedes: one event loop, written in JavaScript, run by node.

use std::io;
use std::path::Path;
use std::process::Command;

use super::{Peer, first_line_with, run_installer};

/// What `peers install` takes; from 1.0 on it wants node 20.
const VERSION: &str = "1.2.0";
const VERSION_FOR_NODE_18: &str = "0.51.3";

#[derive(Debug)]
pub(crate) struct Aedes;

impl Peer for Aedes {
    fn name(&self) -> &'static str {
        "aedes"
    }

    fn about(&self) -> &'static str {
        "`aedes` of npm, with Debian's node"
    }

    fn version(&self, folder: &Path) -> Option<String> {
        let file = folder.join("aedes/node_modules/aedes/package.json");
        let package: serde_json::Value = serde_json::from_slice(&std::fs::read(file).ok()?).ok()?;
        let node = first_line_with(Command::new("node").arg("--version"), "v")?;
        Some(format!("{} (node {node})", package.get("version")?.as_str()?))
    }

    fn install(&self, folder: &Path) -> io::Result<()> {
        let folder = folder.join("aedes");
        std::fs::create_dir_all(&folder)?;
        if first_line_with(Command::new("npm").arg("--version"), ".").is_none() {
            let mut apt = Command::new("apt-get");
            apt.args(["install", "-y", "--no-install-recommends", "nodejs", "npm"]);
            apt.env("DEBIAN_FRONTEND", "noninteractive");
            run_installer(&mut apt)?;
        }
        let node = first_line_with(Command::new("node").arg("--version"), "v").unwrap_or_default();
        let major = node.trim_start_matches('v').split('.').next().and_then(|n| n.parse().ok());
        let version = if major.unwrap_or(0) >= 20 { VERSION } else { VERSION_FOR_NODE_18 };
        let mut npm = Command::new("npm");
        npm.args(["install", "--no-audit", "--no-fund", "--prefix"]).arg(&folder);
        npm.arg(format!("aedes@{version}"));
        run_installer(&mut npm)
    }

    /// The server itself: aedes is a library.
    fn config(&self, _: u16) -> String {
        include_str!("aedes-server.mjs").to_owned()
    }

    fn command(&self, folder: &Path, config: &Path, port: u16) -> Command {
        let mut command = Command::new("node");
        command.arg("--max-old-space-size=8192").arg(config).arg(port.to_string());
        command.arg(folder.join("aedes/node_modules/aedes/aedes.js"));
        command
    }

    fn config_name(&self) -> &'static str {
        "aedes-server.mjs"
    }
}
