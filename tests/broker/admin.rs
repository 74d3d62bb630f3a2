//! The binary's control plane: where it is, who may enter, what is there when something is in the way.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::support::{Broker, Folder, NO_METRICS, PATIENCE, ringmain, set};

fn socket(folder: &Folder) -> PathBuf {
    folder.data().join("admin.sock")
}

fn with(settings: &[&str]) -> Command {
    let mut command = ringmain();
    command.args(["--shards", "2", "--listen", "tcp://127.0.0.1:0"]).args(set(settings));
    command
}

fn start(folder: &Folder, settings: &[&str]) -> Broker {
    Broker::start_by(with(settings), folder)
}

/// Status line and body.
pub(super) fn get(socket: &Path, path: &str) -> (String, String) {
    let mut stream = UnixStream::connect(socket).expect("somebody listens");
    stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    write!(stream, "GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n").expect("sends");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("an answer");
    let (head, body) = answer.split_once("\r\n\r\n").expect("a head");
    (head.lines().next().unwrap_or_default().to_owned(), body.to_owned())
}

#[test]
fn the_operator_asks_by_a_socket_of_his_own_that_goes_with_the_broker() {
    let folder = Folder::new("admin-serves");
    let broker = start(&folder, &[NO_METRICS, "node.name=here"]);
    let metadata = std::fs::metadata(socket(&folder)).expect("is there");
    assert!(metadata.file_type().is_socket());
    assert_eq!(metadata.permissions().mode() & 0o777, 0o600);
    let (status, body) = get(&socket(&folder), "/v1/node");
    assert_eq!(status, "HTTP/1.1 200 OK");
    let node: serde_json::Value = serde_json::from_str(&body).expect("JSON");
    assert_eq!(node["node"], "here");
    assert_eq!(node["pid"], broker.child.id());
    let up: Vec<_> = (0..2).map(|shard| node["shards"][shard]["up"].as_bool()).collect();
    assert_eq!(up, [Some(true); 2], "{body}");
    assert_eq!(get(&socket(&folder), "/ready"), ("HTTP/1.1 200 OK".into(), "ready\n".into()));
    let (_, metrics) = get(&socket(&folder), "/metrics");
    assert!(metrics.contains("\nringmain_shard_up{shard=\"1\"} 1\n"), "{metrics}");
    assert_eq!(broker.stop().0, Some(0));
    assert!(!folder.data().exists(), "it leaves nothing behind");
}

#[test]
fn a_socket_that_a_killed_broker_left_is_replaced() {
    let folder = Folder::new("admin-stale");
    drop(start(&folder, &[NO_METRICS]));
    assert!(socket(&folder).exists(), "SIGKILL leaves it");
    let broker = start(&folder, &[NO_METRICS]);
    let said = broker.started.clone();
    assert!(get(&socket(&folder), "/live").0.contains("200"), "{said:#?}");
    assert_eq!(broker.stop().0, Some(0));
}

#[test]
fn a_second_broker_goes_on_without_a_socket_unless_it_must_have_one() {
    let folder = Folder::new("admin-second");
    let first = start(&folder, &[NO_METRICS]);
    let second = start(&folder, &[NO_METRICS]);
    let said = second.started.clone();
    let warned = |line: &&String| line.contains("another broker listens on ");
    assert!(said.iter().find(warned).is_some_and(|l| l.contains("WARN")), "{said:#?}");
    assert_eq!(second.stop().0, Some(0));
    let must = format!("admin.socket={}", socket(&folder).display());
    let (code, said) = Broker::spawn(with(&[NO_METRICS, &must]), &folder).end();
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("cannot start: another broker listens on "), "{said}");
    assert!(!said.contains("listening"), "no client was served: {said}");
    assert!(get(&socket(&folder), "/live").0.contains("200"), "the first one has kept it");
    drop(first);
}

#[test]
fn an_address_that_was_set_for_metrics_and_is_taken_ends_the_start() {
    let folder = Folder::new("admin-metrics");
    let taken = TcpListener::bind(("127.0.0.1", 0)).expect("binds");
    let address = taken.local_addr().expect("has one");
    let set = format!("admin.metrics_listen={address}");
    let (code, said) = Broker::spawn(with(&["admin.socket=", &set]), &folder).end();
    assert_eq!(code, Some(1), "{said}");
    let expected = format!("cannot listen on {address} for metrics: the address is in use");
    assert!(said.contains(&expected), "{said}");
    assert!(!folder.data().exists());
}
