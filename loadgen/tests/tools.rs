//! `find-max`, `compare` and agents against the broker.

mod broker;

use std::io::{BufRead as _, BufReader};
use std::process::{Child, Command, Output, Stdio};

use broker::Broker;

fn program() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ringmain-load"));
    command.stdin(Stdio::null());
    command
}

fn load(args: &str) -> Output {
    program().args(args.split_whitespace()).output().expect("it starts")
}

fn said(output: &Output) -> String {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    format!("{}{}", text(&output.stdout), text(&output.stderr))
}

struct Agent {
    child: Child,
    address: String,
}

impl Agent {
    fn start(token: &str) -> Self {
        let mut child = program()
            .args(["agent", "--listen", "127.0.0.1:0", "--agent-token", token])
            .stderr(Stdio::piped())
            .spawn()
            .expect("an agent starts");
        let mut stderr = BufReader::new(child.stderr.take().expect("piped"));
        let mut line = String::new();
        stderr.read_line(&mut line).expect("it says where it listens");
        let address = line.trim().rsplit(' ').next().expect("an address").to_owned();
        // What it says later must not fill the pipe.
        std::thread::spawn(move || std::io::copy(&mut stderr, &mut std::io::sink()));
        Self { child, address }
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn report(name: &str, args: &str) -> (Output, serde_json::Value) {
    let file = std::env::temp_dir().join(format!("ringmain-load-{name}-{}", std::process::id()));
    let output = load(&format!("{args} --quiet --json {}", file.display()));
    let json = std::fs::read(&file).unwrap_or_else(|e| panic!("{e}: {}", said(&output)));
    let _ = std::fs::remove_file(&file);
    (output, serde_json::from_slice(&json).expect("it is JSON"))
}

#[test]
fn two_agents_make_one_run_and_what_crosses_them_is_checked_exactly() {
    let broker = Broker::start();
    let (one, two) = (Agent::start("secret"), Agent::start("secret"));
    let target = broker.target();
    let port = target.rsplit(':').next().expect("host:port");
    // All three publishers are heard by all twenty subscribers, ten of them with the other agent.
    let (output, report) = report(
        "agents",
        &format!(
            "fanout -p {port} -c 20 --publishers 3 -q 1 --rate 60 -d 1 --drain 1 \
             --agents {},{} --agent-token secret --assert lost==0",
            one.address, two.address
        ),
    );
    assert_ne!(output.status.code(), Some(2), "{}", said(&output));
    let sent = report["counters"]["sent"].as_u64().expect("a count");
    assert!(sent > 30, "{}", said(&output));
    assert_eq!(report["account"]["received"].as_u64(), Some(sent * 20), "{}", said(&output));
    assert_eq!(report["account"]["lost"], 0);
    assert_eq!(report["clients"], 23);
    assert_eq!(report["agents"].as_array().map(Vec::len), Some(2));
    let clock = &report["agents"][0]["clock"];
    assert!(clock["uncertainty_ns"].as_u64().is_some_and(|ns| ns < 1_000_000_000), "{clock}");
    assert_eq!(report["latencies"]["delivery"]["count"].as_u64(), Some(sent * 20));
}

#[test]
fn an_agent_refuses_another_secret_and_the_run_is_not_made() {
    let agent = Agent::start("secret");
    let output =
        load(&format!("conn -p 1 -c 1 --quiet --agents {} --agent-token guess", agent.address));
    assert_eq!(output.status.code(), Some(2));
    assert!(said(&output).contains("the secret is another one"), "{}", said(&output));
}

#[test]
fn an_agent_without_a_secret_does_not_listen_to_a_network() {
    let output = load("agent --listen 0.0.0.0:0");
    assert_eq!(output.status.code(), Some(2));
    assert!(said(&output).contains("give --agent-token"), "{}", said(&output));
}

#[test]
fn an_agent_that_dies_makes_the_run_void() {
    let broker = Broker::start();
    let (one, mut two) = (Agent::start(""), Agent::start(""));
    let target = broker.target();
    let port = target.rsplit(':').next().expect("host:port");
    let run = program()
        .args(["conn", "-p", port, "-c", "10", "--hold", "60", "--plain", "--agents"])
        .arg(format!("{},{}", one.address, two.address))
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("it starts");
    let mut run = run;
    let mut lines = BufReader::new(run.stderr.take().expect("piped")).lines();
    // Both hold: now one of them goes.
    let holds = lines.find(|l| l.as_ref().is_ok_and(|l| l.contains(" hold ")));
    assert!(holds.is_some());
    two.child.kill().expect("it lives");
    lines.for_each(drop);
    let output = run.wait_with_output().expect("it ends");
    assert_eq!(output.status.code(), Some(3), "{}", said(&output));
    assert!(said(&output).contains("was lost"), "{}", said(&output));
}

#[test]
fn find_max_searches_and_says_what_it_found() {
    let broker = Broker::start();
    let target = broker.target();
    let port = target.rsplit(':').next().expect("host:port");
    let file = std::env::temp_dir().join(format!("ringmain-load-max-{}", std::process::id()));
    // Any machine holds a minute: the search ends at its highest rate, or where the generator
    // cannot keep up.
    let output = load(&format!(
        "find-max --slo p99<60s,loss==0 --from 50 --up-to 200 --step-duration 0.3 \
         --step-warmup 0.1 --confirm 1 --json {} -- pair -p {port} -c 2 -q 1",
        file.display()
    ));
    let json: serde_json::Value =
        serde_json::from_slice(&std::fs::read(&file).expect("the JSON")).expect("it is JSON");
    let _ = std::fs::remove_file(&file);
    let ended = json["found"]["ended"].as_str().expect("how it ended");
    assert!(matches!(ended, "at_max" | "generator_is_the_limit"), "{}", said(&output));
    let first = &json["trials"][0];
    assert_eq!(first["rate"], 50.0);
    assert!(first["sent_per_s"].as_f64().is_some_and(|rate| rate > 0.0), "{first}");
    if ended == "at_max" {
        assert_eq!(output.status.code(), Some(0));
        assert_eq!(json["found"]["best"], 200.0);
    }
}

#[test]
fn compare_interleaves_both_and_reports_ratios() {
    let (a, b) = (Broker::start(), Broker::start());
    let file = std::env::temp_dir().join(format!("ringmain-load-compare-{}", std::process::id()));
    let output = load(&format!(
        "compare {} {} --broker-pid-a {} --broker-pid-b {} --blocks 2 --json {} -- \
         pair -c 2 -F 2 -d 0.2",
        a.target(),
        b.target(),
        a.pid(),
        b.pid(),
        file.display()
    ));
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    let json: serde_json::Value =
        serde_json::from_slice(&std::fs::read(&file).expect("the JSON")).expect("it is JSON");
    let _ = std::fs::remove_file(&file);
    let sides: Vec<&str> =
        json["runs"].as_array().expect("runs").iter().filter_map(|r| r["side"].as_str()).collect();
    assert_eq!(sides, ["A", "B", "B", "A", "A", "B", "B", "A"]);
    let metrics: Vec<&str> = json["lines"]
        .as_array()
        .expect("lines")
        .iter()
        .filter_map(|l| l["metric"].as_str())
        .collect();
    for metric in ["broker.cpu_per_message", "throughput", "delivery.p99"] {
        assert!(metrics.contains(&metric), "{metrics:?}");
    }
    assert!(said(&output).contains("too few pairs"), "two blocks show nothing: {}", said(&output));
}
