//! The servers that a benchmark compares: how each starts, and how it stops.

use std::io::{self, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

/// A server may take this long until it accepts connections.
const START_MAX: Duration = Duration::from_secs(20);
/// A server may take this long to end after SIGTERM; then it is killed.
const STOP_MAX: Duration = Duration::from_secs(10);

/// Where Debian puts mosquitto.
pub(crate) const MOSQUITTO: &str = "/usr/sbin/mosquitto";

/// A server, and how it is set up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Contender {
    /// Our release binary.
    Ringmain {
        /// `--shards`.
        shards: usize,
        /// Further `--set` options.
        set: Vec<String>,
    },
    /// Debian's mosquitto.
    Mosquitto,
    /// The bare io_uring server of [`crate::floor_server`].
    Floor,
}

/// Where the programs are.
#[derive(Clone, Debug)]
pub(crate) struct Programs {
    pub(crate) ringmain: PathBuf,
    pub(crate) mosquitto: PathBuf,
    pub(crate) load: PathBuf,
    /// This program, which is also the floor.
    pub(crate) bench: PathBuf,
}

impl Programs {
    /// The programs next to this one, and mosquitto where Debian puts it.
    pub(crate) fn beside(exe: &Path, ringmain: Option<PathBuf>, load: Option<PathBuf>) -> Self {
        let folder = exe.parent().unwrap_or(Path::new("."));
        Self {
            ringmain: ringmain.unwrap_or_else(|| folder.join("ringmain")),
            mosquitto: PathBuf::from(MOSQUITTO),
            load: load.unwrap_or_else(|| folder.join("ringmain-load")),
            bench: exe.to_owned(),
        }
    }
}

impl Contender {
    /// Its name in tables.
    pub(crate) fn name(&self) -> String {
        match self {
            Self::Ringmain { shards, .. } => format!("ringmain/{shards}"),
            Self::Mosquitto => "mosquitto".to_owned(),
            Self::Floor => "floor".to_owned(),
        }
    }

    /// Starts it on 127.0.0.1:`port` and waits until it accepts.
    ///
    /// # Errors
    /// When the program is missing, ends at once, or does not listen in time.
    pub(crate) fn start(&self, programs: &Programs, port: u16) -> io::Result<Running> {
        wait_until_free(port)?;
        let scratch = Scratch::new(&format!("{}-{port}", self.name().replace('/', "-")))?;
        let (program, mut command) = match self {
            Self::Ringmain { shards, set } => {
                let mut command = Command::new(&programs.ringmain);
                command.arg("serve").args(["--listen", &format!("tcp://127.0.0.1:{port}")]);
                command.args(["--shards", &shards.to_string(), "--log", "warn"]);
                command.arg("--data-dir").arg(&scratch.0);
                set.iter().for_each(|s| {
                    command.args(["--set", s]);
                });
                (&programs.ringmain, command)
            }
            Self::Mosquitto => {
                let config = scratch.0.join("mosquitto.conf");
                std::fs::File::create(&config)?.write_all(mosquitto_config(port).as_bytes())?;
                let mut command = Command::new(&programs.mosquitto);
                command.arg("-c").arg(config);
                (&programs.mosquitto, command)
            }
            Self::Floor => {
                let mut command = Command::new(&programs.bench);
                command.args(["floor-server", "--listen", &format!("127.0.0.1:{port}")]);
                (&programs.bench, command)
            }
        };
        let log = std::fs::File::create(scratch.0.join("log"))?;
        let child = command
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .map_err(|e| io::Error::new(e.kind(), format!("{}: {e}", program.display())))?;
        let mut running = Running { child, port, scratch };
        running.wait_until_it_accepts(&self.name())?;
        Ok(running)
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

/// A broker for everyone on loopback, without persistence, logs or caps.
fn mosquitto_config(port: u16) -> String {
    format!(
        "listener {port} 127.0.0.1\n\
         allow_anonymous true\n\
         max_connections -1\n\
         max_queued_messages 0\n\
         max_inflight_messages 0\n\
         persistence false\n\
         set_tcp_nodelay true\n\
         log_type none\n"
    )
}

/// A server that runs; dropping it ends it.
#[derive(Debug)]
pub(crate) struct Running {
    child: Child,
    pub(crate) port: u16,
    scratch: Scratch,
}

impl Running {
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// An error with the server's own words if it has ended.
    pub(crate) fn check_alive(&mut self, name: &str) -> io::Result<()> {
        let Some(status) = self.child.try_wait()? else { return Ok(()) };
        let log = std::fs::read_to_string(self.scratch.0.join("log")).unwrap_or_default();
        Err(io::Error::other(format!("{name} ended with {status}: {log}")))
    }

    fn wait_until_it_accepts(&mut self, name: &str) -> io::Result<()> {
        let until = Instant::now() + START_MAX;
        let address = SocketAddr::from(([127, 0, 0, 1], self.port));
        loop {
            self.check_alive(name)?;
            if TcpStream::connect(address).is_ok() {
                // Let it notice that this connection went.
                sleep(Duration::from_millis(200));
                return self.check_alive(name);
            }
            if Instant::now() > until {
                return Err(io::Error::other(format!("{name} does not listen on {address}")));
            }
            sleep(Duration::from_millis(20));
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // SAFETY: our own child, which is not reaped yet, so the pid is its.
        unsafe { libc::kill(self.child.id() as libc::pid_t, libc::SIGTERM) };
        let until = Instant::now() + STOP_MAX;
        while Instant::now() < until {
            if !matches!(self.child.try_wait(), Ok(None)) {
                return;
            }
            sleep(Duration::from_millis(10));
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A folder that goes with its owner.
#[derive(Debug)]
pub(crate) struct Scratch(pub(crate) PathBuf);

impl Scratch {
    pub(crate) fn new(name: &str) -> io::Result<Self> {
        let path =
            std::env::temp_dir().join(format!("ringmain-bench-{}-{name}", std::process::id()));
        std::fs::create_dir_all(&path)?;
        // mosquitto started by root becomes the user `mosquitto` before it opens its files.
        Ok(Self(path))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}
