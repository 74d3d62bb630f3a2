//! What the supervisor is told (sd_notify(3)): by a broker that thinks systemd started it.

use std::ffi::OsString;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixDatagram;
use std::path::PathBuf;
use std::process::{Child, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use super::support::{PATIENCE, ringmain, send_signal, wait};

/// CONNECT of version 3.1.1 with client identifier `a`, and its CONNACK.
const CONNECT: &[u8] = b"\x10\x0d\x00\x04MQTT\x04\x02\x00\x00\x00\x01a";
const CONNACK: [u8; 4] = [0x20, 0x02, 0x00, 0x00];

/// A broker and the supervisor that started it; dropping it ends both.
struct Service {
    child: Child,
    socket: UnixDatagram,
    folder: PathBuf,
    /// `NAME=value`, a line each, that were said and not looked at yet.
    said: Vec<String>,
}

impl Service {
    fn start(name: &str, environment: &[(&str, &str)]) -> Self {
        let folder =
            std::env::temp_dir().join(format!("ringmain-notify-{}-{name}", std::process::id()));
        std::fs::create_dir_all(&folder).expect("a folder");
        let address: OsString = folder.join("notify").into();
        let socket = UnixDatagram::bind(&address).expect("binds");
        socket.set_read_timeout(Some(PATIENCE)).expect("a timeout");
        let mut command = ringmain();
        for name in ["WATCHDOG_USEC", "WATCHDOG_PID"] {
            command.env_remove(name);
        }
        write_config(&folder, "info");
        command
            .arg("--config")
            .arg(folder.join("ringmain.toml"))
            .args(["--shards", "2", "--set", "node.pin_cores=false"])
            .args(["--set", "admin.socket=", "--set", "admin.metrics_listen="])
            .env("NOTIFY_SOCKET", &address)
            .envs(environment.iter().copied())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::inherit());
        let child = command.spawn().expect("starts");
        Self { child, socket, folder, said: Vec::new() }
    }

    /// Everything up to the first assignment that begins so, which is the last.
    fn until(&mut self, wanted: &str) -> Vec<String> {
        let end = Instant::now() + PATIENCE;
        loop {
            if let Some(at) = self.said.iter().position(|said| said.starts_with(wanted)) {
                return self.said.drain(..=at).collect();
            }
            assert!(Instant::now() < end, "no {wanted}: {:?}", self.said);
            self.listen().unwrap_or_else(|e| panic!("no {wanted}: {e}: {:?}", self.said));
        }
    }

    /// Waits for one datagram.
    fn listen(&mut self) -> std::io::Result<()> {
        let mut buffer = [0; 4096];
        let len = self.socket.recv(&mut buffer)?;
        let text = String::from_utf8_lossy(&buffer[..len]).into_owned();
        self.said.extend(text.lines().map(str::to_owned));
        Ok(())
    }

    /// What is said within this time.
    fn for_a_while(&mut self, time: Duration) -> Vec<String> {
        let end = Instant::now() + time;
        loop {
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            self.socket.set_read_timeout(Some(left)).expect("a timeout");
            if self.listen().is_err() {
                break;
            }
        }
        self.socket.set_read_timeout(Some(PATIENCE)).expect("a timeout");
        std::mem::take(&mut self.said)
    }

    fn signal(&self, signal: i32) {
        send_signal(&self.child, signal);
    }

    fn wait(&mut self) -> ExitStatus {
        wait(&mut self.child)
    }

    /// The threads of a shard: its own, and that of its executor for calls that block.
    fn threads(&self, shard: u16) -> Vec<libc::pid_t> {
        let tasks = std::fs::read_dir(format!("/proc/{}/task", self.child.id())).expect("it runs");
        let of_shard = |task: &std::fs::DirEntry| {
            let name = std::fs::read_to_string(task.path().join("comm")).unwrap_or_default();
            name.starts_with(&format!("shard-{shard}-"))
        };
        let ids = tasks.map_while(Result::ok).filter(of_shard);
        let ids = ids.map(|task| task.file_name().to_string_lossy().parse().expect("a number"));
        let ids: Vec<_> = ids.collect();
        assert!(!ids.is_empty(), "no threads of shard {shard}");
        ids
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

fn write_config(folder: &std::path::Path, level: &str) {
    let text = format!("[log]\nlevel = '{level}'\n[[listeners]]\nurl = 'tcp://127.0.0.1:0'\n");
    std::fs::write(folder.join("ringmain.toml"), text).expect("writes");
}

/// One thread of a child that is held, while the others run; dropping it lets it go.
struct Held(libc::pid_t);

impl Held {
    /// `None` where nobody may do that to a child.
    fn hold(thread: libc::pid_t) -> Option<Self> {
        const NONE: *mut libc::c_void = std::ptr::null_mut();
        // SAFETY: PTRACE_SEIZE and PTRACE_INTERRUPT take no memory; the thread is our child's.
        if unsafe { libc::ptrace(libc::PTRACE_SEIZE, thread, NONE, NONE) } != 0 {
            return None;
        }
        let held = Self(thread);
        // SAFETY: as above.
        assert_eq!(unsafe { libc::ptrace(libc::PTRACE_INTERRUPT, thread, NONE, NONE) }, 0);
        let mut status = 0;
        // SAFETY: `status` outlives the call.
        assert_eq!(unsafe { libc::waitpid(thread, &raw mut status, libc::__WALL) }, thread);
        assert!(libc::WIFSTOPPED(status));
        Some(held)
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        const NONE: *mut libc::c_void = std::ptr::null_mut();
        // SAFETY: no memory is passed; it fails if the thread is gone, which is as good.
        unsafe { libc::ptrace(libc::PTRACE_DETACH, self.0, NONE, NONE) };
    }
}

#[test]
fn ready_is_told_when_a_client_can_connect() {
    let mut service = Service::start("ready", &[]);
    service.until("READY=1");
    let status = service.until("STATUS=listening on ").pop().expect("a status");
    let address = status.strip_prefix("STATUS=listening on ").expect("begins so");
    let mut client = TcpStream::connect(address).expect("it said that it was ready");
    client.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    client.write_all(CONNECT).expect("sends");
    let mut answer = [0; 4];
    client.read_exact(&mut answer).expect("an answer");
    assert_eq!(answer, CONNACK);
}

#[test]
fn a_broker_that_does_not_start_says_why_and_never_that_it_is_ready() {
    let taken = std::net::TcpListener::bind(("127.0.0.1", 0)).expect("binds");
    let address = taken.local_addr().expect("has one").to_string();
    let url = format!("tcp://{address}");
    let mut service = Service::start("taken", &[("RINGMAIN__LISTENERS__0__URL", &url)]);
    let said = service.until("STATUS=cannot start: ");
    assert!(said.last().is_some_and(|status| status.contains(&address)), "{said:?}");
    assert_eq!(service.wait().code(), Some(1));
    assert!(!said.iter().any(|said| said == "READY=1"), "{said:?}");
}

#[test]
fn a_reload_begins_with_its_time_and_ends_with_ready_and_what_came_of_it() {
    let mut service = Service::start("reload", &[]);
    service.until("STATUS=");
    for (level, outcome) in [("warn", "changed 1 keys"), ("loud", "has errors")] {
        write_config(&service.folder, level);
        service.signal(libc::SIGHUP);
        assert_eq!(service.until("RELOADING=1"), ["RELOADING=1"]);
        assert!(
            service.until("MONOTONIC_USEC=")[0]["MONOTONIC_USEC=".len()..].parse::<u64>().is_ok()
        );
        assert_eq!(service.until("READY=1"), ["READY=1"]);
        let status = service.until("STATUS=");
        assert!(status[0].starts_with("STATUS=listening on 127.0.0.1:"), "{status:?}");
        assert!(status[0].contains(outcome), "{status:?}");
    }
}

#[test]
fn stopping_is_told_with_the_time_that_it_may_take() {
    let mut service = Service::start("stop", &[]);
    service.until("READY=1");
    service.signal(libc::SIGTERM);
    service.until("STOPPING=1");
    service.until("EXTEND_TIMEOUT_USEC=15000000");
    assert!(service.wait().success());
}

#[test]
fn signs_of_life_come_for_as_long_as_all_shards_take_turns() {
    let mut service = Service::start("watchdog", &[("WATCHDOG_USEC", "2000000")]);
    service.until("READY=1");
    for _ in 0..3 {
        service.until("WATCHDOG=1");
    }
    let threads = service.threads(1);
    let held: Vec<_> = threads.iter().map_while(|thread| Held::hold(*thread)).collect();
    if held.len() < threads.len() {
        eprintln!("skipped: threads of a child cannot be held here");
        return;
    }
    // Nobody can have answered for it since the second question.
    service.until("STATUS=shard 1 takes no turns");
    let said = service.for_a_while(Duration::from_secs(2));
    assert!(!said.iter().any(|said| said == "WATCHDOG=1"), "{said:?}");
    drop(held);
    service.until("WATCHDOG=1");
    service.until("STATUS=all shards take turns again");
    service.until("WATCHDOG=1");
    service.signal(libc::SIGTERM);
    service.until("STOPPING=1");
    assert!(service.wait().success());
}

#[test]
fn signs_of_life_that_another_process_is_to_give_are_not_given() {
    let mut service = Service::start("other", &[("WATCHDOG_USEC", "40000"), ("WATCHDOG_PID", "1")]);
    service.until("READY=1");
    let said = service.for_a_while(Duration::from_millis(300));
    assert!(!said.iter().any(|said| said == "WATCHDOG=1"), "{said:?}");
}
