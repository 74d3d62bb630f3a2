//! The servers that a benchmark compares: how each starts, and how it stops.

use std::io;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use crate::child::{self, Scratch};
use crate::peers::{External, Peer};

/// A server may take this long until it accepts connections.
const START_MAX: Duration = Duration::from_secs(20);
/// A server may take this long to end after SIGTERM; then it is killed.
const STOP_MAX: Duration = Duration::from_secs(10);

/// What Ringmain is told beside its defaults: no caps, as the peers have none. Without it a session
/// queues 1,000 messages and has 32 in flight, and a million retained topics are the most.
const NO_CAPS: &[&str] = &[
    "mqtt.max_inflight=65535",
    "mqtt.max_mqueue_len=0",
    "mqtt.max_mqueue_bytes=4294967296",
    "retained.max_messages=0",
];

/// A server, and how it is set up.
#[derive(Clone, Debug)]
pub(crate) enum Contender {
    /// Our release binary.
    Ringmain {
        /// `--shards`.
        shards: usize,
        /// Further `--set` options.
        set: Vec<String>,
    },
    /// A broker that we start.
    Peer(&'static dyn Peer),
    /// A broker that runs already.
    External(External),
    /// The bare io_uring server of [`crate::floor_server`].
    Floor,
}

/// Where the programs are.
#[derive(Clone, Debug)]
pub(crate) struct Programs {
    pub(crate) ringmain: PathBuf,
    pub(crate) load: PathBuf,
    /// This program, which is also the floor.
    pub(crate) bench: PathBuf,
    /// The cache of peers.
    pub(crate) peers: PathBuf,
}

impl Programs {
    /// The programs next to this one.
    pub(crate) fn beside(
        exe: &Path,
        ringmain: Option<PathBuf>,
        load: Option<PathBuf>,
        peers: PathBuf,
    ) -> Self {
        let folder = exe.parent().unwrap_or(Path::new("."));
        Self {
            ringmain: ringmain.unwrap_or_else(|| folder.join("ringmain")),
            load: load.unwrap_or_else(|| folder.join("ringmain-load")),
            bench: exe.to_owned(),
            peers,
        }
    }
}

impl Contender {
    /// Its name in tables.
    pub(crate) fn name(&self) -> String {
        match self {
            Self::Ringmain { shards, .. } => format!("ringmain/{shards}"),
            Self::Peer(peer) => peer.name().to_owned(),
            Self::External(external) => external.name.clone(),
            Self::Floor => "floor".to_owned(),
        }
    }

    /// Whether it is ours: one that must not fail.
    pub(crate) fn is_ringmain(&self) -> bool {
        matches!(self, Self::Ringmain { .. })
    }

    /// What it says of its version; empty when that is not known.
    pub(crate) fn version(&self, programs: &Programs) -> String {
        match self {
            Self::Ringmain { .. } => {
                let output = Command::new(&programs.ringmain).arg("--version").output();
                output.map_or_else(
                    |_| String::new(),
                    |o| String::from_utf8_lossy(&o.stdout).trim().to_owned(),
                )
            }
            Self::Peer(peer) => peer.version(&programs.peers).unwrap_or_default(),
            Self::External(_) => String::new(),
            Self::Floor => env!("CARGO_PKG_VERSION").to_owned(),
        }
    }

    /// How it is configured, for the results.
    pub(crate) fn config(&self, port: u16) -> String {
        match self {
            Self::Ringmain { shards, set } => {
                let set = NO_CAPS.iter().copied().chain(set.iter().map(String::as_str));
                let set: Vec<String> = set.map(|s| format!("--set {s}")).collect();
                format!("--shards {shards} --log warn {}", set.join(" "))
            }
            Self::Peer(peer) => peer.config(port),
            Self::External(external) => format!("as it runs at {}", external.address),
            Self::Floor => String::new(),
        }
    }

    /// Starts it on 127.0.0.1:`port` and waits until it accepts.
    ///
    /// # Errors
    /// When the program is missing, ends at once, or does not listen in time.
    pub(crate) fn start(&self, programs: &Programs, port: u16) -> io::Result<Running> {
        if let Self::External(external) = self {
            let External { address, pid, .. } = external.clone();
            let mut running = Running { child: None, pid, address, scratch: None };
            running.wait_until_it_accepts(&self.name())?;
            return Ok(running);
        }
        wait_until_free(port)?;
        let scratch = Scratch::new(&format!("{}-{port}", self.name().replace('/', "-")))?;
        let mut command = self.command(programs, &scratch.0, port)?;
        let log = std::fs::File::create(scratch.0.join("log"))?;
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        let child = child::spawn(&mut command)?;
        let address = SocketAddr::from(([127, 0, 0, 1], port));
        let pid = Some(child.id());
        let mut running = Running { child: Some(child), pid, address, scratch: Some(scratch) };
        running.wait_until_it_accepts(&self.name())?;
        Ok(running)
    }

    fn command(&self, programs: &Programs, scratch: &Path, port: u16) -> io::Result<Command> {
        Ok(match self {
            Self::Ringmain { shards, set } => {
                let mut command = Command::new(&programs.ringmain);
                command.arg("serve").args(["--listen", &format!("tcp://127.0.0.1:{port}")]);
                command.args(["--shards", &shards.to_string(), "--log", "warn"]);
                command.arg("--data-dir").arg(scratch);
                for s in NO_CAPS.iter().copied().chain(set.iter().map(String::as_str)) {
                    command.args(["--set", s]);
                }
                command
            }
            Self::Peer(peer) => {
                let config = scratch.join(peer.config_name());
                std::fs::write(&config, peer.config(port))?;
                let mut command = peer.command(&programs.peers, &config, port);
                command.current_dir(scratch);
                command
            }
            Self::External(_) => return Err(io::Error::other("runs already")),
            Self::Floor => {
                let mut command = Command::new(&programs.bench);
                command.args(["floor-server", "--listen", &format!("127.0.0.1:{port}")]);
                command
            }
        })
    }
}

/// Waits until nobody listens on 127.0.0.1:`port`. The last server's process is gone, but the kernel
/// ends the rings of an io_uring server later, and a multishot accept holds its listening socket: a
/// client that came now would talk to nobody.
fn wait_until_free(port: u16) -> io::Result<()> {
    let until = Instant::now() + START_MAX;
    let address = SocketAddr::from(([127, 0, 0, 1], port));
    loop {
        // Without SO_REUSEPORT, so that it fails while anyone listens.
        match TcpListener::bind(address) {
            Ok(_) => return Ok(()),
            Err(e) if Instant::now() > until => {
                return Err(io::Error::new(e.kind(), format!("{address}: {e}; choose --port")));
            }
            Err(_) => sleep(Duration::from_millis(20)),
        }
    }
}

/// A server that runs; dropping it ends it, if we started it.
#[derive(Debug)]
pub(crate) struct Running {
    child: Option<Child>,
    /// Its process, where it is known.
    pub(crate) pid: Option<u32>,
    /// Where it listens.
    pub(crate) address: SocketAddr,
    scratch: Option<Scratch>,
}

impl Running {
    /// An error with the server's own words if it has ended.
    pub(crate) fn check_alive(&mut self, name: &str) -> io::Result<()> {
        let Some(child) = &mut self.child else { return Ok(()) };
        let Some(status) = child.try_wait()? else { return Ok(()) };
        Err(io::Error::other(format!("{name} ended with {status}: {}", self.last_words())))
    }

    /// Where Ringmain can be asked how it is.
    pub(crate) fn admin_socket(&self) -> Option<PathBuf> {
        let socket = self.scratch.as_ref()?.0.join("admin.sock");
        socket.exists().then_some(socket)
    }

    /// The end of its log.
    fn last_words(&self) -> String {
        let path = self.scratch.as_ref().map(|s| s.0.join("log")).unwrap_or_default();
        let log = std::fs::read(path).unwrap_or_default();
        let from = log.len().saturating_sub(LAST_WORDS_MAX);
        String::from_utf8_lossy(&log[from..]).trim().replace('\n', " | ")
    }

    fn wait_until_it_accepts(&mut self, name: &str) -> io::Result<()> {
        let until = Instant::now() + START_MAX;
        loop {
            self.check_alive(name)?;
            if TcpStream::connect(self.address).is_ok() {
                // Let it notice that this connection went.
                sleep(Duration::from_millis(200));
                return self.check_alive(name);
            }
            if Instant::now() > until {
                return Err(io::Error::other(format!(
                    "{name} does not listen on {}",
                    self.address
                )));
            }
            sleep(Duration::from_millis(20));
        }
    }
}

/// Bytes of a dead server's log that are shown.
const LAST_WORDS_MAX: usize = 600;

impl Drop for Running {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            child::end(child, STOP_MAX);
        }
    }
}
