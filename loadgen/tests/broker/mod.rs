//! A broker of our own for a test: `target/PROFILE/ringmain`, or what `RINGMAIN_BIN` names.

use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread::sleep;
use std::time::{Duration, Instant};

/// A running broker; ends when it goes.
pub(crate) struct Broker {
    child: Child,
    port: u16,
    folder: PathBuf,
}

static STARTED: AtomicU32 = AtomicU32::new(0);

impl Broker {
    /// Starts one with a port and a folder of its own.
    pub(crate) fn start() -> Self {
        let program = program();
        let shown = program.display();
        assert!(program.exists(), "{shown} is not built: cargo build -p ringmain, in this profile");
        let number = STARTED.fetch_add(1, Ordering::Relaxed);
        let name = format!("ringmain-load-broker-{}-{number}", std::process::id());
        let folder = std::env::temp_dir().join(name);
        let port = free_port();
        let child = Command::new(&program)
            .args(["serve", "--listen", &format!("tcp://127.0.0.1:{port}")])
            // A machine that is busy with other tests is not what these are about.
            .args(["--set", "overload.lag_refuse_ms=60000", "--set", "overload.lag_pause_ms=60000"])
            .args(["--set", "overload.lag_drop_qos0_ms=60000"])
            .args(["--shards", "1", "--log", "warn", "--data-dir"])
            .arg(&folder)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("the broker starts");
        let broker = Self { child, port, folder };
        let until = Instant::now() + Duration::from_secs(20);
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            assert!(Instant::now() < until, "the broker listens");
            sleep(Duration::from_millis(20));
        }
        broker
    }

    /// `host:port`.
    pub(crate) fn target(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// Its process.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

fn program() -> PathBuf {
    std::env::var_os("RINGMAIN_BIN").map_or_else(
        || {
            let load = PathBuf::from(env!("CARGO_BIN_EXE_ringmain-load"));
            load.with_file_name("ringmain")
        },
        PathBuf::from,
    )
}

/// A port that was free a moment ago.
fn free_port() -> u16 {
    let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a free port");
    listener.local_addr().expect("a bound socket").port()
}
