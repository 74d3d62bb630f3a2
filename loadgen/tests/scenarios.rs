//! The shipped scenarios, and the program around them, against the broker.

mod broker;

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use broker::Broker;
use ringmain_load::scenario::{Overrides, Scenario};

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("scenarios")
}

fn shipped() -> Vec<PathBuf> {
    let files = std::fs::read_dir(folder()).expect("scenarios are shipped");
    let mut files: Vec<PathBuf> = files.map(|f| f.expect("a readable folder").path()).collect();
    files.sort();
    files
}

fn load(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_ringmain-load")).args(args).output().expect("it starts")
}

fn status(output: &Output) -> i32 {
    output.status.code().expect("it was not killed")
}

fn said(output: &Output) -> String {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    format!("{}{}", text(&output.stdout), text(&output.stderr))
}

#[test]
fn every_shipped_scenario_is_valid() {
    let files = shipped();
    assert!(files.len() >= 12, "{files:?}");
    for file in files {
        let scenario = Scenario::load(&file, &Overrides::default());
        let scenario = scenario.unwrap_or_else(|e| panic!("{e}"));
        assert!(!scenario.description.is_empty(), "{} says what it is about", file.display());
        assert!(!scenario.assertions.is_empty(), "{} asserts something", file.display());
    }
}

fn page() -> String {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/user/loadgen.md");
    std::fs::read_to_string(page).expect("the page for users")
}

#[test]
fn the_scenario_on_the_page_is_valid() {
    let page = page();
    let text = page.split("```toml").nth(1).and_then(|t| t.split("```").next()).expect("a block");
    let scenario = Scenario::parse("loadgen.md", text, &Overrides::default());
    scenario.unwrap_or_else(|e| panic!("{e}"));
}

#[test]
fn the_loads_on_the_page_are_valid() {
    use clap::Parser as _;
    use ringmain_load::cli::Cli;

    let page = page();
    let table = page.split("## Loads").nth(1).and_then(|t| t.split("**Open loop**").next());
    let rows = table.expect("a table").lines().filter_map(|l| l.strip_prefix("| `"));
    let mut count = 0;
    for row in rows {
        let command = row.split('`').next().expect("a command");
        if !command.contains(" -") {
            continue;
        }
        let words = command.split_whitespace().map(|w| w.trim_matches('\''));
        let cli = Cli::try_parse_from(std::iter::once("ringmain-load").chain(words));
        let job = cli.unwrap_or_else(|e| panic!("{command}: {e}")).command.job();
        let job = job.unwrap_or_else(|e| panic!("{command}: {e}"));
        assert_eq!(job.plan.check(), Ok(()), "{command}");
        count += 1;
    }
    assert_eq!(count, 10, "one for each load");
}

/// Options that make a shipped scenario small: counts, rates and times of seconds.
const SMALL: &[(&str, &[&str])] = &[
    ("conn-tcp-10k-100", &["population.clients.count=50", "stage.hold.duration_s=0.2"]),
    (
        "fanout-1-1k-1-1k",
        &[
            "population.subscribers.count=50",
            "population.publishers.publish.rate=20",
            "stage.traffic.duration_s=1",
        ],
    ),
    (
        "p2p-1k-1k-1k-1k",
        &[
            "population.subscribers.count=20",
            "population.publishers.count=20",
            "population.publishers.publish.rate=200",
            "stage.traffic.warmup_s=0.2",
            "stage.traffic.duration_s=1",
        ],
    ),
    (
        "sharedsub-1k-5-1k-1k",
        &[
            "population.publishers.count=20",
            "population.publishers.publish.rate=200",
            "stage.traffic.warmup_s=0.2",
            "stage.traffic.duration_s=1",
        ],
    ),
    (
        "fan-in",
        &[
            "population.devices.count=20",
            "population.devices.publish.rate=200",
            "stage.traffic.duration_s=1",
        ],
    ),
    (
        "storm",
        &[
            "population.clients.count=200",
            "stage.before.duration_s=0.2",
            "stage.after.duration_s=0.2",
        ],
    ),
    (
        "retained",
        &[
            "population.setter.publish.limit=200",
            "population.readers.count=3",
            "stage.drain.patience_s=1",
        ],
    ),
    (
        "churn",
        &[
            "population.subscribers.count=5",
            "population.publishers.count=5",
            "population.publishers.publish.rate=100",
            "population.visitors.count=40",
            "stage.churn.duration_s=1",
        ],
    ),
    (
        "persistent",
        &[
            "population.subscribers.count=10",
            "population.publishers.count=10",
            "population.publishers.publish.rate=200",
            "stage.drain.patience_s=1",
        ],
    ),
    ("wills", &["population.devices.count=20", "stage.drain.patience_s=1"]),
    (
        "slow-readers",
        &[
            "population.subscribers.count=10",
            "population.slow.count=2",
            "stage.traffic.duration_s=1",
        ],
    ),
    ("wildcards", &["population.sensors.publish.rate=200", "stage.traffic.duration_s=1"]),
    (
        "qos2",
        &[
            "population.subscribers.count=5",
            "population.publishers.count=5",
            "stage.traffic.warmup_s=0.1",
            "stage.traffic.duration_s=1",
        ],
    ),
];

/// A run that a busy machine made void is made again this often.
const VOID_REPEATS: usize = 3;

#[test]
fn shipped_scenarios_hold_against_the_broker_when_they_are_small() {
    for (name, small) in SMALL {
        let file = folder().join(format!("{name}.toml")).display().to_string();
        for attempt in 0..=VOID_REPEATS {
            // Each time a new broker: nothing is left of a run that was void.
            let broker = Broker::start();
            let target = broker.target();
            let mut args = vec!["run", &file, "--target", &target, "--quiet"];
            small.iter().for_each(|set| args.extend(["--set", set]));
            let output = load(&args);
            let said = said(&output);
            assert_ne!(status(&output), 2, "{name}: {said}");
            if status(&output) == 3 && attempt < VOID_REPEATS {
                continue;
            }
            // A busy machine delays deliveries; what is delivered counts here, not when.
            let late = |line: &str| line.starts_with("NOT HELD") && line.contains("p99");
            let wrong: Vec<&str> =
                said.lines().filter(|l| l.starts_with("NOT ") && !late(l)).collect();
            assert!(wrong.is_empty(), "{name}: {said}");
            break;
        }
    }
}

#[test]
fn the_exit_status_says_whether_assertions_held() {
    let broker = Broker::start();
    let target = broker.target();
    let port = target.rsplit(':').next().expect("host:port");
    let run =
        |claim: &str| status(&load(&["conn", "-p", port, "-c", "5", "--quiet", "--assert", claim]));
    assert_eq!(run("ready == 5"), 0);
    assert_eq!(run("ready == 6"), 1);
    assert_eq!(run("raedy == 5"), 2, "there is no such metric");
    let nobody = load(&["conn", "-p", "1", "-c", "1", "--quiet"]);
    assert_eq!(status(&nobody), 1, "{}", said(&nobody));
}

#[test]
fn a_mistake_in_a_file_is_named_with_its_line_and_the_status_is_2() {
    let file = std::env::temp_dir().join(format!("ringmain-load-{}.toml", std::process::id()));
    std::fs::write(
        &file,
        "[[population]]\nname = \"a\"\ncuont = 1\n[[stage]]\nkind = \"connect\"\n",
    )
    .expect("a temporary file");
    let output = load(&["run", &file.display().to_string()]);
    let _ = std::fs::remove_file(&file);
    assert_eq!(status(&output), 2);
    assert!(said(&output).contains(".toml:3: population.0.cuont: unknown key; nearest: count"));
}

#[test]
fn reports_are_written_as_json_and_as_a_page() {
    let broker = Broker::start();
    let name = |ending: &str| {
        std::env::temp_dir().join(format!("ringmain-load-{}{ending}", std::process::id()))
    };
    let (json, html) = (name(".json"), name(".html"));
    let target = broker.target();
    let port = target.rsplit(':').next().expect("host:port");
    let pid = broker.pid().to_string();
    let output = load(&[
        "pair",
        "-p",
        port,
        "-c",
        "3",
        "-q",
        "1",
        "--rate",
        "100",
        "-d",
        "1",
        "--broker-pid",
        &pid,
        "--plain",
        "--assert",
        "lost == 0",
        "--json",
        &json.display().to_string(),
        "--html",
        &html.display().to_string(),
    ]);
    assert!(matches!(status(&output), 0 | 3), "{}", said(&output));
    assert!(said(&output).contains(" live"), "lines where there is no terminal: {}", said(&output));
    let page = std::fs::read_to_string(&html).expect("the page");
    let data: serde_json::Value =
        serde_json::from_slice(&std::fs::read(&json).expect("the JSON")).expect("it is JSON");
    let _ = (std::fs::remove_file(&json), std::fs::remove_file(&html));
    assert_eq!(data["schema"], 1);
    assert_eq!(data["verdicts"][0]["held"], true);
    assert!(
        data["environment"]["broker"]["program"].as_str().is_some_and(|p| p.contains("ringmain"))
    );
    assert!(data["latencies"]["delivery"]["p99"].as_u64().is_some_and(|ns| ns > 0));
    for text in ["Latency by percentile", "Memory of the broker", "Events a second"] {
        assert!(page.contains(text), "{text}");
    }
}
