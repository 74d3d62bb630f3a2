//! `ringmain top`, `explain-slow`, `audit` and `profile` as processes, against a server that answers as a broker does.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use serde_json::{Value, json};

type Handler = dyn FnMut(&str) -> (u16, Value) + Send;

/// A broker that says what it is told to. Ends with its folder.
struct Fake {
    folder: PathBuf,
    asked: Arc<Mutex<Vec<String>>>,
}

impl Fake {
    /// Answers each request target with a status and a document.
    fn start(handler: impl FnMut(&str) -> (u16, Value) + Send + 'static) -> Self {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        let n = COUNT.fetch_add(1, Ordering::Relaxed);
        let folder =
            std::env::temp_dir().join(format!("ringmain-tools-{}-{n}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let listener = UnixListener::bind(folder.join("admin.sock")).unwrap();
        let asked = Arc::new(Mutex::new(Vec::new()));
        let log = Arc::clone(&asked);
        let handler: Arc<Mutex<Box<Handler>>> = Arc::new(Mutex::new(Box::new(handler)));
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (log, handler) = (Arc::clone(&log), Arc::clone(&handler));
                std::thread::spawn(move || serve(&stream, &log, &handler));
            }
        });
        Self { folder, asked }
    }

    fn socket(&self) -> PathBuf {
        self.folder.join("admin.sock")
    }

    fn run(&self, command: &str, arguments: &[&str]) -> Output {
        ringmain(command, &self.socket(), arguments).output().unwrap()
    }

    fn asked(&self) -> Vec<String> {
        self.asked.lock().unwrap().clone()
    }
}

impl Drop for Fake {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

fn serve(mut stream: &UnixStream, log: &Mutex<Vec<String>>, handler: &Mutex<Box<Handler>>) {
    let mut lines = BufReader::new(stream).lines().map_while(Result::ok);
    let Some(request) = lines.next() else { return };
    let target = request.split(' ').nth(1).unwrap_or_default().to_owned();
    while lines.next().is_some_and(|line| !line.is_empty()) {}
    log.lock().unwrap().push(target.clone());
    let (status, body) = (handler.lock().unwrap())(&target);
    let body = body.to_string();
    let head = format!(
        "HTTP/1.1 {status} X\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
        body.len()
    );
    let _ = stream.write_all((head + &body).as_bytes());
}

fn ringmain(command: &str, socket: &Path, arguments: &[&str]) -> Command {
    let mut process = Command::new(env!("CARGO_BIN_EXE_ringmain"));
    process.arg(command).arg("--socket").arg(socket).args(arguments).stdin(Stdio::null());
    process
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn json_of(output: &Output) -> Value {
    serde_json::from_slice(&output.stdout).unwrap_or_else(|e| panic!("{e}: {output:?}"))
}

/// One shard that has worked for as many seconds as it was asked.
fn node(pid: u32, second: u64) -> Value {
    json!({
        "node": "n1", "version": "0.1.0", "pid": pid, "unix_ms": 1_000, "uptime_ms": second * 1000,
        "resident_bytes": 1 << 20, "route_table_bytes": 4096,
        "shards": [{
            "shard": 0, "up": true, "stalled_ms": null, "stalls": 2,
            "thread": { "tid": 9, "cpu": 1, "cpu_ns": second * 500_000_000, "stolen_ns": 0, "preempted": 0 },
            "times": { "turns_ns": second * 250_000_000, "enters_ns": 0, "slept_ns": 0, "longest_turn_ns": 2_000_000 },
            "counters": { "messages_sent": second * 100, "delivery_dropped_expired": 3 },
            "gauges": { "connections": 7 }, "memory": { "sessions": 1000 }, "ring": {},
            "stages": { "send": { "count": second, "mean": 1, "p50": 1, "p90": 1, "p99": 1, "p999": 1, "max": 1 } },
            "turns": {},
        }],
    })
}

fn slow() -> Value {
    let stages = json!({ "queue": 9_400_000, "send": 600_000 });
    json!({
        "followed": 2, "p50": { "count": 1, "total_ns": 1000, "stages_ns": { "send": 1000 } },
        "p999": { "count": 1, "total_ns": 10_000_000, "stages_ns": stages },
        "slowest": [{
            "read_unix_ms": 3_723_004, "publisher": "p", "subscriber": "till-7", "topic": "shop/7", "qos": 1,
            "payload_bytes": 5, "from_shard": 0, "to_shard": 0, "total_ns": 10_000_000, "stages_ns": stages,
            "slowest_stage": "queue", "send_unseen": false,
        }],
        "clients": [{ "name": "till-7", "count": 1, "mean_ns": 1, "max_ns": 10_000_000, "slowest_stage": "queue" }],
        "topics": [],
    })
}

/// A broker with a second more of work at each look.
fn working() -> Fake {
    let mut second = 10;
    Fake::start(move |target| match target {
        "/v1/node?buckets=1" => {
            second += 1;
            (200, node(1, second))
        }
        _ => (200, slow()),
    })
}

#[test]
fn explain_slow_names_stage_client_and_topic() {
    let fake = working();
    let output = fake.run("explain-slow", &["-n", "3"]);
    let shown = text(&output.stdout);
    assert!(output.status.success(), "{output:?}");
    assert!(
        shown.starts_with("p99.9 is 10.0 ms, 94 % of it in `queue`: in the queue of its session\n"),
        "{shown}"
    );
    assert!(
        shown.contains("till-7") && shown.contains("shop/7") && shown.contains("01:02:03.004"),
        "{shown}"
    );
    assert_eq!(fake.asked(), ["/v1/slow?n=3"]);
    let json = json_of(&fake.run("explain-slow", &["--json"]));
    assert_eq!(
        (&json["verdict"]["stage"], &json["slowest"][0]["topic"]),
        (&json!("queue"), &json!("shop/7"))
    );
}

#[test]
fn top_once_shows_rates_between_two_looks() {
    let page = working().run("top", &["--once", "--interval", "0.1"]);
    let shown = text(&page.stdout);
    for part in ["7 connections", "100 out/s", "25 %", "expired", "till-7", "2.00 ms"] {
        assert!(shown.contains(part), "{part} is missing in\n{shown}");
    }
    let json = json_of(&working().run("top", &["--once", "--json", "--interval", "0.1"]));
    assert_eq!((&json["sent_per_s"], &json["shards"][0]["busy"]), (&json!(100.0), &json!(0.25)));
    assert_eq!(json["clients"][0]["name"], "till-7");
}

#[test]
fn top_without_a_terminal_writes_lines_until_nobody_reads_them() {
    for arguments in [&["--interval", "0.1"][..], &["--interval", "0.1", "--json"]] {
        let fake = working();
        let mut child =
            ringmain("top", &fake.socket(), arguments).stdout(Stdio::piped()).spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        for _ in 0..3 {
            let line = lines.next().unwrap().unwrap();
            assert!(line.contains("100"), "{line}");
        }
        drop(lines);
        assert!(child.wait().unwrap().success(), "a reader that has seen enough is no failure");
    }
}

#[test]
fn audit_tells_a_fault_from_traffic_by_its_exit_code() {
    let ledger = |quiet: bool, difference: i64| {
        let account = |shard: Value| {
            json!({
                "shard": shard, "published": 1, "matched": 5, "completed": 3, "dropped": { "expired": 2 },
                "returned": 0, "queued": 0, "inflight": 0, "difference": difference,
            })
        };
        let wrong: &[&str] = if difference == 0 {
            &[]
        } else {
            &["shard 0: 1 copies were matched, and ended nowhere"]
        };
        json!({
            "quiet": quiet, "balanced": difference == 0, "shards": [account(json!(0))],
            "total": account(Value::Null), "wrong": wrong,
        })
    };
    for (quiet, difference, code, says) in [
        (true, 0, 0, "each of 5 copies"),
        (false, 0, 0, "messages moved meanwhile"),
        (true, 1, 1, "does NOT balance"),
        (false, 1, 3, "cannot be told"),
    ] {
        let output = Fake::start(move |_| (200, ledger(quiet, difference))).run("audit", &[]);
        assert_eq!(output.status.code(), Some(code), "{output:?}");
        assert!(text(&output.stdout).contains(says), "{output:?}");
    }
    // Traffic that ends within the time that it waits.
    let mut looks = 0;
    let fake = Fake::start(move |_| {
        looks += 1;
        (200, ledger(looks > 2, i64::from(looks <= 2)))
    });
    let output = fake.run("audit", &["--wait", "30", "--json"]);
    assert_eq!((output.status.code(), &json_of(&output)["verdict"]), (Some(0), &json!("balanced")));
    assert_eq!(fake.asked().len(), 3);
}

#[test]
fn a_profile_of_the_brokers_own_samples_and_its_turns_become_files() {
    let stack = json!({ "thread": "shard 0", "count": 42, "addresses": [100, 200] });
    let turn = json!({
        "shard": 0, "at_ns": 5000, "inputs_ns": 10, "mail_ns": 20, "perform_ns": 30, "enter_ns": 40, "slept": false,
        "completions": 1, "mails": 2, "sends": 3,
    });
    let fake = Fake::start(move |target| match target.split('?').next() {
        Some("/v1/node") => (200, node(1, 1)),
        Some("/v1/turns") => (200, json!({ "turns": [turn] })),
        _ => (
            200,
            json!({
                "pid": 1, "ms": 1000, "hz": 99, "samples": 42, "lost": 3, "failed": ["x (7): no"], "modules": [],
                "stacks": [stack],
            }),
        ),
    });
    let file = |name: &str| fake.folder.join(name).to_str().unwrap().to_owned();
    let (svg, folded, turns) = (file("a.svg"), file("a.txt"), file("turns.json"));
    let output = fake.run(
        "profile",
        &[
            "--source",
            "broker",
            "--seconds",
            "1",
            "--hz",
            "99",
            "--output",
            &svg,
            "--folded",
            &folded,
            "--turns",
            &turns,
            "--json",
        ],
    );
    assert!(output.status.success(), "{output:?}");
    let mut asked = fake.asked();
    asked.sort();
    assert_eq!(asked, ["/v1/node", "/v1/profile?seconds=1&hz=99", "/v1/turns?ms=1000"]);
    let json = json_of(&output);
    assert_eq!((&json["total"], &json["threads"][0][0]), (&json!(42), &json!("shard 0")));
    assert_eq!(json["turns"]["count"], 1);
    let notes = text(&output.stderr);
    assert!(notes.contains("3 samples found no room") && notes.contains("x (7): no"), "{notes}");
    assert!(std::fs::read_to_string(&svg).unwrap().contains("shard 0 (42 samples"));
    assert_eq!(std::fs::read_to_string(&folded).unwrap(), "shard 0;[unknown];[unknown] 42\n");
    let trace: Value = serde_json::from_str(&std::fs::read_to_string(&turns).unwrap()).unwrap();
    assert_eq!(trace["traceEvents"].as_array().unwrap().len(), 7);
}

#[test]
fn without_perf_the_broker_samples_itself_and_off_cpu_says_what_it_needs() {
    let fake = Fake::start(move |target| match target.split('?').next() {
        Some("/v1/node") => (200, node(1, 1)),
        _ => (
            200,
            json!({
                "pid": 1, "ms": 1000, "hz": 99, "samples": 1, "lost": 0, "failed": [], "modules": [],
                "stacks": [{ "thread": "t", "count": 1, "addresses": [100] }],
            }),
        ),
    });
    let svg = fake.folder.join("a.svg").to_str().unwrap().to_owned();
    let without_perf = |arguments: &[&str]| {
        let mut process = ringmain("profile", &fake.socket(), arguments);
        process
            .args(["--seconds", "1", "--output", &svg])
            .env("PATH", &fake.folder)
            .output()
            .unwrap()
    };
    let output = without_perf(&[]);
    assert!(output.status.success(), "{output:?}");
    assert!(text(&output.stderr).contains("perf is not installed"), "{output:?}");
    assert!(text(&output.stdout).contains("taken by the broker"), "{output:?}");
    for arguments in [&["--source", "perf"][..], &["--off-cpu"]] {
        let output = without_perf(arguments);
        assert_eq!(output.status.code(), Some(1), "{output:?}");
        assert!(text(&output.stderr).contains("perf is not installed"), "{output:?}");
    }
}

#[test]
fn perf_profiles_this_process_where_it_may() {
    let perf =
        Command::new("perf").args(["record", "-q", "-o", "/dev/null", "--", "true"]).output();
    if !perf.is_ok_and(|output| output.status.success()) {
        eprintln!("skipped: there is no perf here, or it may not record");
        return;
    }
    let fake = Fake::start(|_| (200, node(std::process::id(), 1)));
    let end = Arc::new(AtomicU64::new(0));
    let stop = Arc::clone(&end);
    let spin = std::thread::Builder::new().name("spinner".to_owned()).spawn(move || {
        while stop.load(Ordering::Relaxed) == 0 {
            std::hint::spin_loop();
        }
    });
    let svg = fake.folder.join("a.svg").to_str().unwrap().to_owned();
    let output =
        fake.run("profile", &["--source", "perf", "--seconds", "1", "--output", &svg, "--json"]);
    end.store(1, Ordering::Relaxed);
    spin.unwrap().join().unwrap();
    assert!(output.status.success(), "{output:?}");
    assert_eq!(json_of(&output)["threads"][0][0], "spinner", "{output:?}");
    assert!(std::fs::read_to_string(&svg).unwrap().contains("spinner"));
}

#[test]
fn a_broker_that_is_not_there_or_says_no_is_told_with_what_to_do() {
    let nowhere = std::env::temp_dir().join(format!("ringmain-tools-{}-none", std::process::id()));
    for (command, code) in [("top", 1), ("explain-slow", 1), ("audit", 3), ("profile", 1)] {
        let output = ringmain(command, &nowhere, &[]).output().unwrap();
        assert_eq!(output.status.code(), Some(code), "{output:?}");
        let said = text(&output.stderr);
        assert!(said.starts_with(&format!("{command}: there is no admin socket")), "{said}");
        let refusing =
            Fake::start(|_| (503, json!({ "error": "the observer is gone: restart the broker" })));
        let output = refusing.run(command, &[]);
        assert_eq!(
            text(&output.stderr),
            format!("{command}: the observer is gone: restart the broker\n")
        );
    }
}

#[test]
fn the_socket_is_that_of_the_configuration_unless_one_is_named() {
    let fake = working();
    let output = Command::new(env!("CARGO_BIN_EXE_ringmain"))
        .args(["explain-slow", "--json", "--data-dir"])
        .arg(&fake.folder)
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
    assert_eq!(fake.asked(), ["/v1/slow?n=10"]);
}
