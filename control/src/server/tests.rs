use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::os::unix::net::UnixStream;
use std::sync::mpsc;

use ringmain_shards::observe::{NodeView, TurnSpan};

use super::*;
use crate::{api, fake};

/// Nothing here takes so long unless it fails.
const PATIENCE: Duration = Duration::from_secs(20);

/// A control plane before a node that never was.
struct Bench {
    running: Running,
    folder: PathBuf,
}

impl Bench {
    /// `view` is what the node says of itself; `None`: nothing.
    fn start(name: &str, view: impl Fn() -> Option<NodeView> + Send + 'static) -> Self {
        let folder = folder(name);
        let (questions, asked) = flume::bounded(4);
        std::thread::spawn(move || {
            let mut unanswered = Vec::new();
            for question in &asked {
                match question {
                    Question::View(reply) => match view() {
                        Some(view) => drop(reply.send(Box::new(view))),
                        // A node that hangs keeps its end.
                        None => unanswered.push(reply),
                    },
                    Question::Turns { ms, reply } => {
                        let span = TurnSpan { at_ns: ms.into(), ..TurnSpan::default() };
                        drop(reply.send(vec![span; 1000]));
                    }
                }
            }
        });
        let asker = Asker::new(questions).within(Duration::from_millis(100));
        let running = open(&config(&folder)).expect("opens").serve_with(asker).expect("serves");
        running.set_listening(true);
        Self { running, folder }
    }

    fn socket(&self) -> UnixStream {
        let stream = UnixStream::connect(self.running.socket().expect("a socket"));
        let stream = stream.expect("connects");
        stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
        stream
    }

    fn tcp(&self) -> TcpStream {
        let stream = TcpStream::connect(self.running.metrics().expect("an address"));
        let stream = stream.expect("connects");
        stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
        stream
    }

    /// Status and body of `GET path` by the socket.
    fn get(&self, path: &str) -> (u16, String) {
        exchange(self.socket(), &format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n"))
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

fn folder(name: &str) -> PathBuf {
    let folder = std::env::temp_dir().join(format!("ringmain-admin-{}-{name}", std::process::id()));
    let _ = std::fs::remove_dir_all(&folder);
    folder
}

fn config(folder: &Path) -> Config {
    let socket = SocketPath { path: folder.join("admin.sock"), make_folder: true };
    Config {
        socket: Some(Place { at: socket, required: true }),
        metrics: Some(Place { at: (Ipv4Addr::LOCALHOST, 0).into(), required: true }),
    }
}

fn healthy(name: &str) -> Bench {
    Bench::start(name, || Some(fake::view(2)))
}

/// Sends, and reads until the other side closes.
fn exchange(mut stream: impl Read + Write, request: &str) -> (u16, String) {
    stream.write_all(request.as_bytes()).expect("sends");
    read(stream)
}

fn read(mut stream: impl Read) -> (u16, String) {
    let mut answer = Vec::new();
    if let Err(e) = stream.read_to_end(&mut answer) {
        // After the answer: of a request that was too long not all was read.
        assert_eq!(e.kind(), io::ErrorKind::ConnectionReset, "an answer and its end");
    }
    let answer = String::from_utf8(answer).expect("text");
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
    let status = head.split(' ').nth(1).and_then(|code| code.parse().ok());
    let status = status.unwrap_or_else(|| panic!("no status in {answer:?}"));
    // Turns come in chunks of which only the text between matters here.
    (status, body.to_owned())
}

fn failure(body: &str) -> String {
    serde_json::from_str::<api::Failure>(body).expect("a failure as JSON").error
}

#[test]
fn the_socket_serves_the_node_its_turns_and_its_metrics() {
    let bench = healthy("serves");
    let (status, body) = bench.get("/v1/node");
    let node: api::Node = serde_json::from_str(&body).expect("a node");
    assert_eq!((status, node.shards.len()), (200, 2));
    assert_eq!(node.pid, std::process::id());
    assert_eq!(node.shards[1].gauges["connections"], 20);
    assert_eq!(node.shards[1].counters["bytes_received"], 200);
    assert_eq!(node.shards[0].stages["route"].count, 1);
    assert_eq!(node.shards[0].memory["queues"], 64);
    let (status, body) = bench.get("/v1/turns?ms=7");
    assert_eq!((status, body.matches("\"at_ns\":7,").count()), (200, 1000));
    let (status, body) = bench.get("/metrics");
    assert_eq!(status, 200);
    assert!(body.contains("\nringmain_shard_up{shard=\"1\"} 1\n"), "{body}");
}

#[test]
fn tcp_serves_metrics_and_probes_and_nothing_else() {
    let bench = healthy("tcp");
    let get = |path: &str| exchange(bench.tcp(), &format!("GET {path} HTTP/1.0\r\n\r\n"));
    assert!(get("/metrics").1.contains("ringmain_build_info{version=\"1.2.3\"} 1"));
    assert_eq!(get("/live"), (200, "live\n".to_owned()));
    assert_eq!(get("/ready"), (200, "ready\n".to_owned()));
    let (status, body) = get("/v1/node");
    assert_eq!(status, 404);
    assert!(failure(&body).starts_with("there is no /v1/node here"), "{body}");
    bench.running.set_listening(false);
    let (status, body) = get("/ready");
    assert_eq!(status, 503);
    assert_eq!(failure(&body), "the broker is starting or shutting down");
    assert_eq!(get("/live").0, 200);
}

#[test]
fn a_shard_that_does_not_answer_is_down_and_the_others_are_still_there() {
    let bench = Bench::start("silent", || {
        let mut view = fake::view(2);
        view.shards[1].report = None;
        Some(view)
    });
    let (status, metrics) = bench.get("/metrics");
    assert_eq!(status, 200);
    for line in ["ringmain_shard_up{shard=\"0\"} 1", "ringmain_shard_up{shard=\"1\"} 0"] {
        assert!(metrics.contains(line), "{line}");
    }
    let node: api::Node = serde_json::from_str(&bench.get("/v1/node").1).expect("a node");
    assert_eq!((node.shards[0].up, node.shards[1].up), (true, false));
    assert!(node.shards[1].counters.is_empty() && node.shards[1].ring["accepted"] == 2);
    let (status, body) = bench.get("/ready");
    assert_eq!((status, failure(&body)), (503, "shard 1 does not answer".to_owned()));
}

#[test]
fn a_node_that_does_not_answer_is_said_to_and_the_process_is_live() {
    let bench = Bench::start("hangs", || None);
    for path in ["/v1/node", "/metrics", "/ready"] {
        let (status, body) = bench.get(path);
        assert_eq!(status, 503);
        assert_eq!(failure(&body), "the node did not answer within 100 ms");
    }
    assert_eq!(bench.get("/live").0, 200);
}

#[test]
fn malformed_requests_get_4xx_and_the_next_one_is_served() {
    let bench = healthy("malformed");
    let long_header =
        format!("GET /live HTTP/1.1\r\nX: {}\r\n\r\n", "x".repeat(2 * HEAD_BYTES_MAX));
    let many = "X: y\r\n".repeat(HEADERS_MAX + 1);
    let many_headers = format!("GET /live HTTP/1.1\r\n{many}\r\n");
    for (request, status) in [
        ("\x16\x03\x01\r\n\r\n", 400),
        ("GET\r\n\r\n", 400),
        ("GET /live HTTP/1.1\r\nno colon\r\n\r\n", 400),
        ("GET /live HTTP/9.9\r\n\r\n", 400),
        (&long_header, 431),
        (&many_headers, 431),
        ("POST /live HTTP/1.1\r\nContent-Length: 5\r\n\r\nhello", 405),
        ("GET /v1/turns?ms=0 HTTP/1.1\r\n\r\n", 400),
        ("GET /v1/turns?ms=30001 HTTP/1.1\r\n\r\n", 400),
        ("GET /nothing HTTP/1.1\r\n\r\n", 404),
    ] {
        let mut stream = bench.socket();
        // It may have heard enough before all is sent.
        let _ = stream.write_all(request.as_bytes());
        assert_eq!(read(stream).0, status, "{request:.60}");
    }
    assert_eq!(bench.get("/live").0, 200);
}

#[test]
fn a_second_request_on_a_connection_is_not_read() {
    let bench = healthy("one");
    let request = "GET /live HTTP/1.1\r\n\r\n".repeat(3);
    let mut stream = bench.socket();
    stream.write_all(request.as_bytes()).expect("sends");
    let mut answer = Vec::new();
    // The kernel may say that what was not read is lost.
    let _ = stream.read_to_end(&mut answer);
    assert_eq!(String::from_utf8_lossy(&answer).matches("200 OK").count(), 1);
}

#[test]
fn connections_beyond_the_limit_are_refused_with_a_reason_until_others_end() {
    let bench = healthy("many");
    let idle: Vec<UnixStream> = (0..CONNECTIONS_MAX).map(|_| bench.socket()).collect();
    let (status, body) = bench.get("/live");
    assert_eq!(status, 503);
    assert_eq!(failure(&body), "64 connections are served already: try again");
    // The other listener has room of its own, and the refusal was counted.
    let (status, body) = exchange(bench.tcp(), "GET /metrics HTTP/1.1\r\n\r\n");
    assert_eq!(status, 200);
    let refused = body.lines().find_map(|l| l.strip_prefix("ringmain_admin_refused_total "));
    assert_eq!(refused, Some("1"));
    drop(idle);
    let until = std::time::Instant::now() + PATIENCE;
    while bench.get("/live").0 != 200 {
        assert!(std::time::Instant::now() < until, "refuses still");
    }
}

#[test]
fn who_says_nothing_is_closed() {
    let bench = healthy("idle");
    let mut stream = bench.socket();
    stream.write_all(b"GET /live HT").expect("sends");
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    assert!(!String::from_utf8_lossy(&answer).contains("200 OK"));
}

#[test]
fn ending_it_ends_requests_under_way_and_removes_the_socket() {
    let mut bench = Bench::start("ends", || None);
    let path = bench.running.socket().expect("a socket").to_owned();
    let mut stream = bench.socket();
    stream.write_all(b"GET /v1/node HTTP/1.1\r\n\r\n").expect("sends");
    let other = folder("ends-after");
    let (questions, _asked) = flume::bounded(1);
    let after = start(config(&other), questions).expect("starts");
    let (ended, is_ended) = mpsc::channel();
    let running = std::mem::replace(&mut bench.running, after);
    std::thread::spawn(move || {
        drop(running);
        let _ = ended.send(());
    });
    is_ended.recv_timeout(PATIENCE).expect("ends");
    assert!(!path.exists());
    let _ = stream.read_to_end(&mut Vec::new());
    assert!(UnixStream::connect(path).is_err());
}

#[test]
fn what_is_required_and_taken_is_an_error_and_what_is_not_is_left_out() {
    let bench = healthy("required");
    let taken = bench.running.metrics().expect("an address");
    let at = |required| Config { socket: None, metrics: Some(Place { at: taken, required }) };
    let error = open(&at(true)).expect_err("it is taken").to_string();
    let expected = format!("cannot listen on {taken} for metrics: the address is in use");
    assert!(error.starts_with(&expected), "{error}");
    assert!(open(&at(false)).expect("goes on without").metrics.is_none());
    let mut config = config(&bench.folder);
    let error = open(&config).expect_err("a broker listens").to_string();
    assert!(error.starts_with("another broker listens on "), "{error}");
    config.socket.iter_mut().for_each(|place| place.required = false);
    assert!(open(&config).expect("goes on without").socket.is_none());
    assert_eq!(bench.get("/live").0, 200, "the one that was first serves on");
}

#[test]
fn slow_messages_the_ledger_and_the_buckets_of_stages_are_served_to_the_operator() {
    let bench = Bench::start("tools", || Some(fake::view(2)));
    let (status, body) = bench.get("/v1/slow?n=3");
    let slow: api::Slow = serde_json::from_str(&body).expect("JSON");
    assert_eq!((status, slow.followed), (200, 0));
    let (status, body) = bench.get("/v1/audit");
    let audit: api::Audit = serde_json::from_str(&body).expect("JSON");
    // That node says that copies were dropped which nobody matched.
    assert_eq!((status, audit.quiet, audit.balanced, audit.wrong.len()), (200, true, false, 2));
    let buckets = |target: &str| {
        let node: api::Node = serde_json::from_str(&bench.get(target).1).expect("JSON");
        node.shards[0].stages["route"].buckets.clone()
    };
    let found = buckets("/v1/node?buckets=1");
    assert!(matches!(found[..], [(value, 1)] if value.abs_diff(5_000) < 100), "{found:?}");
    assert!(buckets("/v1/node").is_empty());
    for bad in ["/v1/slow?n=0", "/v1/slow?n=1001", "/v1/profile?seconds=61", "/v1/profile?hz=0"] {
        assert_eq!(bench.get(bad).0, 400, "{bad}");
    }
    for private in ["/v1/slow", "/v1/audit", "/v1/profile"] {
        let request = format!("GET {private} HTTP/1.1\r\nHost: x\r\n\r\n");
        assert_eq!(exchange(bench.tcp(), &request).0, 404, "{private} names clients");
    }
}
