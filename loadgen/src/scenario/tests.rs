use super::*;
use crate::plan::{Expect, Pace};

const PAIRS: &str = r#"
name = "pairs"
assert = ["lost == 0", "stage.storm.seconds < 120", "delivery.p99 < 50ms"]

[[population]]
name = "subscribers"
count = 10
subscribe = [{ filter = "pair/%i", qos = 1 }]
expect = { peer = "publishers" }

[[population]]
name = "publishers"
count = 10
publish = { topic = "pair/%i", qos = 1, rate = 100 }

[[stage]]
kind = "connect"

[[stage]]
kind = "storm"

[[stage]]
kind = "traffic"
duration_s = 1
"#;

fn with(set: &[&str]) -> Result<Scenario, Problems> {
    let set = set.iter().map(|s| (*s).to_owned()).collect();
    Scenario::parse("pairs.toml", PAIRS, &Overrides { set, ..Overrides::default() })
}

fn errors(text: &str) -> String {
    Scenario::parse("s.toml", text, &Overrides::default()).unwrap_err().to_string()
}

#[test]
fn a_scenario_becomes_a_plan() {
    let scenario = with(&[]).unwrap_or_else(|e| panic!("{e}"));
    let plan = &scenario.plan;
    assert_eq!((scenario.name.as_str(), scenario.assertions.len()), ("pairs", 3));
    assert_eq!(plan.populations[0].expect, Expect::Peer(1));
    let pace = plan.populations[1].publish.as_ref().unwrap().pace;
    assert_eq!(pace, Pace::Every { interval: Duration::from_millis(100) }, "100/s over ten");
    let names: Vec<&str> = plan.stages.iter().map(|s| s.name.as_str()).collect();
    assert_eq!(names, ["connect", "storm", "traffic", "close"], "it closes at the end");
    assert!(!plan.sources.is_empty(), "a loopback target has sources of its own");
}

#[test]
fn options_change_elements_by_name_and_add_keys() {
    let set = ["population.subscribers.count=3", "population.publishers.count=3", "workers=2"];
    let scenario = with(&set).unwrap();
    assert_eq!((scenario.plan.clients(), scenario.plan.workers), (6, 2));
}

#[test]
fn a_window_waits_for_whoever_hears_it() {
    let text = PAIRS.replace("rate = 100", "window = 4");
    let read = |text: &str| {
        let scenario = Scenario::parse("s", text, &Overrides::default()).unwrap();
        scenario.plan.populations[1].publish.clone().unwrap().pace
    };
    assert_eq!(read(&text), Pace::Peer { window: 4, peer: 0 });
    let group = text.replace("peer =", "all =");
    assert_eq!(read(&group), Pace::Group { window: 4, fan_out: 10 });
    let alone = text.replace("expect = { peer = \"publishers\" }", "");
    assert_eq!(read(&alone), Pace::Acked { window: 4 });
}

#[test]
fn everything_wrong_is_reported_at_once_with_its_line() {
    let text = PAIRS
        .replace("rate = 100", "rte = 100")
        .replace("kind = \"storm\"", "kind = \"strom\"")
        .replace("lost == 0", "lots == 0");
    let errors = errors(&text);
    let lines: Vec<&str> = errors.lines().collect();
    assert_eq!(lines.len(), 4, "{errors}");
    assert!(lines[0].starts_with("s.toml:3: assert: ") && lines[0].contains("nearest: lost"));
    assert!(lines[1].contains("stage.storm.seconds"), "the stage it names is gone: {errors}");
    assert!(lines[2].contains("s.toml:14: population.1.publish.rte: unknown key; nearest: rate"));
    assert!(lines[3].contains("s.toml:20: stage.1.kind: ") && lines[3].contains("nearest: storm"));
}

#[test]
fn a_name_that_no_population_has_is_reported_with_the_nearest() {
    let errors = errors(&PAIRS.replace("peer = \"publishers\"", "peer = \"publisher\""));
    assert!(errors.contains("there is no population publisher; nearest: publishers"), "{errors}");
}

#[test]
fn traffic_that_nothing_would_end_is_refused() {
    let errors = errors(&PAIRS.replace("duration_s = 1", ""));
    assert!(errors.contains("what ends it?"), "{errors}");
}

#[test]
fn a_stage_without_its_duration_and_a_scenario_without_populations_are_refused() {
    let errors = errors("[[stage]]\nkind = \"connect\"\n[[stage]]\nkind = \"hold\"\n");
    assert!(errors.contains("stage.1.duration_s: it is needed"), "{errors}");
    assert!(errors.contains("[[population]]"), "{errors}");
}

#[test]
fn a_target_has_a_default_port_and_may_be_ipv6() {
    assert_eq!(resolve("127.0.0.1").unwrap(), "127.0.0.1:1883".parse().unwrap());
    assert_eq!(resolve("::1").unwrap(), "[::1]:1883".parse().unwrap());
    assert_eq!(resolve("[::1]:99").unwrap(), "[::1]:99".parse().unwrap());
    assert!(resolve("127.0.0.1:what").is_err());
}

#[test]
fn sizes_have_four_ways_to_be_said() {
    use crate::size::Size;
    let size = |text: &str| {
        let text = PAIRS.replace("rate = 100", &format!("rate = 100, size = {text}"));
        let scenario = Scenario::parse("s", &text, &Overrides::default());
        scenario.map(|s| s.plan.populations[1].publish.clone().unwrap().size)
    };
    assert_eq!(size("64").unwrap(), Size::Fixed(64));
    assert_eq!(size("{ min = 20, max = 30 }").unwrap(), Size::Uniform { min: 20, max: 30 });
    assert_eq!(size("{ mean = 50, max = 90 }").unwrap(), Size::Exponential { mean: 50, max: 90 });
    let weighted = size("{ bytes = [20, 30], weights = [3, 1] }").unwrap();
    assert_eq!(weighted, Size::Weighted(vec![(20, 3.0), (30, 1.0)]));
    assert!(size("{ min = 20 }").is_err());
}
