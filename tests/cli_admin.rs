//! The binary's control plane: where it is, who may enter, what is there when something is in the way.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpListener;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

/// Bounds every wait; nothing here takes this long unless it fails.
const PATIENCE: Duration = Duration::from_secs(30);

/// A folder of a test's own.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Folder {
        let name = format!("ringmain-{}-admin-{name}", std::process::id());
        let folder = std::env::temp_dir().join(name);
        let _ = std::fs::remove_dir_all(&folder);
        std::fs::create_dir(&folder).expect("a folder");
        Folder(folder)
    }

    fn socket(&self) -> PathBuf {
        self.0.join("data/admin.sock")
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// A broker with two shards and its data below a folder; dropping it ends it.
struct Broker {
    child: Child,
    lines: Receiver<String>,
}

impl Broker {
    fn spawn(folder: &Path, set: &[&str]) -> Broker {
        let mut command = Command::new(env!("CARGO_BIN_EXE_ringmain"));
        command.args(["--shards", "2", "--listen", "tcp://127.0.0.1:0", "--data-dir"]);
        command.arg(folder.join("data"));
        for setting in set {
            command.args(["--set", setting]);
        }
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("starts");
        let (sender, lines) = channel();
        let stderr = BufReader::new(child.stderr.take().expect("is piped"));
        std::thread::spawn(move || {
            for line in stderr.lines().map_while(Result::ok) {
                let _ = sender.send(line);
            }
        });
        Broker { child, lines }
    }

    /// A broker that is ready, and what it said until then.
    fn start(folder: &Path, set: &[&str]) -> (Broker, Vec<String>) {
        let broker = Broker::spawn(folder, set);
        let mut said = Vec::new();
        loop {
            match broker.lines.recv_timeout(PATIENCE) {
                Ok(line) if line == "ready" => return (broker, said),
                Ok(line) => said.push(line),
                Err(_) => panic!("is not ready: {said:#?}"),
            }
        }
    }

    /// How it ended, with all that it said.
    fn end(mut self) -> (Option<i32>, String) {
        let until = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.child.try_wait().expect("our own child") {
                let said: Vec<String> = self.lines.iter().collect();
                return (status.code(), said.join("\n"));
            }
            assert!(Instant::now() < until, "does not end");
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    fn stop(self) -> (Option<i32>, String) {
        // SAFETY: our own child, not reaped yet, so the pid is its.
        unsafe { libc::kill(self.child.id() as libc::pid_t, libc::SIGTERM) };
        self.end()
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Status line and body.
fn get(socket: &Path, path: &str) -> (String, String) {
    let mut stream = UnixStream::connect(socket).expect("somebody listens");
    stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    write!(stream, "GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n").expect("sends");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("an answer");
    let (head, body) = answer.split_once("\r\n\r\n").expect("a head");
    (head.lines().next().unwrap_or_default().to_owned(), body.to_owned())
}

const NO_METRICS: &str = "admin.metrics_listen=";

#[test]
fn the_operator_asks_by_a_socket_of_his_own_that_goes_with_the_broker() {
    let folder = Folder::new("serves");
    let (broker, _) = Broker::start(&folder.0, &[NO_METRICS, "node.name=here"]);
    let metadata = std::fs::metadata(folder.socket()).expect("is there");
    assert!(metadata.file_type().is_socket());
    assert_eq!(metadata.permissions().mode() & 0o777, 0o600);
    let (status, body) = get(&folder.socket(), "/v1/node");
    assert_eq!(status, "HTTP/1.1 200 OK");
    let node: serde_json::Value = serde_json::from_str(&body).expect("JSON");
    assert_eq!(node["node"], "here");
    assert_eq!(node["pid"], broker.child.id());
    let up: Vec<_> = (0..2).map(|shard| node["shards"][shard]["up"].as_bool()).collect();
    assert_eq!(up, [Some(true); 2], "{body}");
    assert_eq!(get(&folder.socket(), "/ready"), ("HTTP/1.1 200 OK".into(), "ready\n".into()));
    let (_, metrics) = get(&folder.socket(), "/metrics");
    assert!(metrics.contains("\nringmain_shard_up{shard=\"1\"} 1\n"), "{metrics}");
    assert_eq!(broker.stop().0, Some(0));
    assert!(!folder.0.join("data").exists(), "it leaves nothing behind");
}

#[test]
fn a_socket_that_a_killed_broker_left_is_replaced() {
    let folder = Folder::new("stale");
    drop(Broker::start(&folder.0, &[NO_METRICS]));
    assert!(folder.socket().exists(), "SIGKILL leaves it");
    let (broker, said) = Broker::start(&folder.0, &[NO_METRICS]);
    assert!(get(&folder.socket(), "/live").0.contains("200"), "{said:#?}");
    assert_eq!(broker.stop().0, Some(0));
}

#[test]
fn a_second_broker_goes_on_without_a_socket_unless_it_must_have_one() {
    let folder = Folder::new("second");
    let (first, _) = Broker::start(&folder.0, &[NO_METRICS]);
    let (second, said) = Broker::start(&folder.0, &[NO_METRICS]);
    let warned = |line: &&String| line.contains("another broker listens on ");
    assert!(said.iter().find(warned).is_some_and(|l| l.contains("WARN")), "{said:#?}");
    assert_eq!(second.stop().0, Some(0));
    let must = format!("admin.socket={}", folder.socket().display());
    let (code, said) = Broker::spawn(&folder.0, &[NO_METRICS, &must]).end();
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("cannot start: another broker listens on "), "{said}");
    assert!(!said.contains("listening"), "no client was served: {said}");
    assert!(get(&folder.socket(), "/live").0.contains("200"), "the first one has kept it");
    drop(first);
}

#[test]
fn an_address_that_was_set_for_metrics_and_is_taken_ends_the_start() {
    let folder = Folder::new("metrics");
    let taken = TcpListener::bind(("127.0.0.1", 0)).expect("binds");
    let address = taken.local_addr().expect("has one");
    let set = format!("admin.metrics_listen={address}");
    let (code, said) = Broker::spawn(&folder.0, &["admin.socket=", &set]).end();
    assert_eq!(code, Some(1), "{said}");
    let expected = format!("cannot listen on {address} for metrics: the address is in use");
    assert!(said.contains(&expected), "{said}");
    assert!(!folder.0.join("data").exists());
}
