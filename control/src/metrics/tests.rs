use std::collections::BTreeSet;

use ringmain_shards::reactor::StatsSnapshot;

use super::*;
use crate::fake;

fn surroundings() -> Surroundings {
    let trouble = |name: &str, count| Trouble {
        name: name.to_owned(),
        count,
        meaning: String::new(),
        remedy: String::new(),
    };
    Surroundings {
        process: Process { cpu_s: 1.5, open_fds: 9, max_fds: Some(1024), threads: 4 },
        started_unix_s: 1_699_999_987.5,
        kernel: vec![trouble("TcpExt ListenDrops", 6), trouble(THROTTLED, 1_250_000)],
        refused: 2,
    }
}

fn lines(view: &NodeView) -> Vec<String> {
    text(view, &surroundings()).lines().map(str::to_owned).collect()
}

fn assert_has(lines: &[String], wanted: &[&str]) {
    for line in wanted {
        assert!(lines.iter().any(|l| l == line), "no {line} in\n{}", lines.join("\n"));
    }
}

#[test]
fn figures_of_each_shard_are_there_in_base_units() {
    let lines = lines(&fake::view(2));
    assert_has(
        &lines,
        &[
            "ringmain_build_info{version=\"1.2.3\"} 1",
            "ringmain_node_info{node=\"fake@\\\"here\\\"\"} 1",
            "ringmain_uptime_seconds 12.5",
            "ringmain_shard_up{shard=\"0\"} 1",
            "ringmain_stalls_total{shard=\"1\"} 1",
            "ringmain_received_bytes_total{shard=\"1\"} 200",
            "ringmain_packets_connect_received_total{shard=\"0\"} 1",
            "ringmain_drops_total{shard=\"1\",what=\"copy\",reason=\"queue_full\"} 14",
            "ringmain_drops_total{shard=\"0\",what=\"message\",reason=\"no_subscribers\"} 2",
            "ringmain_delivery_dropped_total{shard=\"1\"} 14",
            "ringmain_connections{shard=\"1\"} 20",
            "ringmain_memory_bytes{shard=\"1\",component=\"queues\"} 128",
            "ringmain_loop_seconds_total{shard=\"0\",state=\"busy\"} 1.5",
            "ringmain_thread_cpu_seconds_total{shard=\"0\"} 2",
            "ringmain_ring_accepted_total{shard=\"1\"} 2",
            "ringmain_ring_slots_used{shard=\"0\"} 1",
            "ringmain_stage_duration_seconds_bucket{shard=\"0\",stage=\"route\",le=\"0.000001\"} 0",
            "ringmain_stage_duration_seconds_bucket{shard=\"0\",stage=\"route\",le=\"0.000005\"} 1",
            "ringmain_stage_duration_seconds_count{shard=\"1\",stage=\"route\"} 1",
            "ringmain_turn_mails_bucket{shard=\"0\",le=\"2\"} 0",
            "ringmain_turn_mails_bucket{shard=\"0\",le=\"4\"} 1",
            "process_resident_memory_bytes 4096",
            "process_start_time_seconds 1699999987.5",
            "process_max_fds 1024",
            "ringmain_kernel_events_total{event=\"TcpExt ListenDrops\"} 6",
            "ringmain_throttled_seconds_total 1.25",
            "ringmain_admin_refused_total 2",
        ],
    );
}

#[test]
fn of_a_shard_that_does_not_answer_is_there_what_others_know() {
    let mut view = fake::view(2);
    view.shards[1].report = None;
    view.shards[1].stalled_ms = Some(2_500);
    let lines = lines(&view);
    assert_has(
        &lines,
        &[
            "ringmain_shard_up{shard=\"0\"} 1",
            "ringmain_shard_up{shard=\"1\"} 0",
            "ringmain_stalled_seconds{shard=\"0\"} 0",
            "ringmain_stalled_seconds{shard=\"1\"} 2.5",
            "ringmain_connections{shard=\"0\"} 10",
            "ringmain_ring_accepted_total{shard=\"1\"} 2",
            "ringmain_thread_preempted_total{shard=\"1\"} 5",
            "ringmain_stage_duration_seconds_count{shard=\"1\",stage=\"route\"} 1",
        ],
    );
    // Not 0, which would be a wrong figure, and a reset to Prometheus.
    let wrong = |line: &&String| {
        let only_it_knows = ["ringmain_connections{", "ringmain_drops_total{", "ringmain_loop_"];
        only_it_knows.iter().any(|name| line.starts_with(name)) && line.contains("shard=\"1\"")
    };
    assert_eq!(lines.iter().find(wrong), None);
}

#[test]
fn every_counter_of_sys_is_a_metric_and_every_metric_says_what_it_is() {
    // Y04 to Y07
    let counters = Counters::default();
    assert_eq!(counters.all().count(), counters.metrics().count(), "one without a path");
    let lines = lines(&fake::view(1));
    for (path, _) in counters.metrics() {
        let sample = match reason(path) {
            Some((what, why)) => {
                format!("ringmain_drops_total{{shard=\"0\",what=\"{what}\",reason=\"{why}\"}}")
            }
            None => format!("{}{{shard=\"0\"}}", counter_name(path)),
        };
        assert!(lines.iter().any(|line| line.starts_with(&sample)), "{path}: no {sample}");
    }
    for line in lines.iter().filter_map(|line| line.strip_prefix("# HELP ")) {
        let (name, help) = line.split_once(' ').unwrap_or((line, ""));
        assert!(help.ends_with('.') && help.len() > 5, "{name} needs a sentence in help.rs");
        assert_ne!(name, "ringmain_unnamed", "a gauge without a name in help.rs");
    }
    let ring: BTreeSet<&str> = StatsSnapshot::default().all().map(|(name, _)| name).collect();
    assert_eq!(ring, ring_names().collect(), "help.rs and the reactor's counters");
    let paths: BTreeSet<&str> = counters.metrics().map(|(path, _)| path).collect();
    for (path, _) in help::COUNTERS {
        assert!(paths.contains(path), "{path} is no counter any more: take it out of help.rs");
    }
}

#[test]
fn every_sample_follows_its_type_and_no_series_comes_twice() {
    let mut view = fake::view(3);
    view.shards[2].report = None;
    let mut seen = BTreeSet::new();
    let mut metric = String::new();
    for line in lines(&view) {
        if let Some(rest) = line.strip_prefix("# TYPE ") {
            metric = rest.split(' ').next().unwrap_or_default().to_owned();
        } else if !line.starts_with('#') {
            let (series, value) = line.rsplit_once(' ').expect("a value");
            assert!(series.starts_with(&metric), "{series} is not of {metric}");
            assert!(value.parse::<f64>().is_ok_and(f64::is_finite), "{line}");
            assert!(seen.insert(series.to_owned()), "{series} comes twice");
        }
    }
}

/// `| name | type | labels | meaning |` of each metric.
fn table() -> String {
    let lines = lines(&fake::view(1));
    let mut rows = "| metric | type | labels | meaning |\n|---|---|---|---|\n".to_owned();
    let mut metrics = lines.iter().filter_map(|line| line.strip_prefix("# HELP "));
    let types = lines.iter().filter_map(|line| line.strip_prefix("# TYPE "));
    for kind in types {
        let (name, kind) = kind.split_once(' ').expect("a name and a type");
        let help = metrics.next().and_then(|help| help.strip_prefix(name)).expect("its help");
        let sample = lines.iter().find(|line| !line.starts_with('#') && line.starts_with(name));
        let labels = sample.and_then(|s| s.split_once('{')?.1.rsplit_once('}')).map_or("", |l| l.0);
        let labels = labels.split(',').filter_map(|label| label.split_once('='));
        let labels: Vec<String> =
            labels.filter(|(name, _)| *name != "le").map(|(name, _)| format!("`{name}`")).collect();
        rows.push_str(&format!("| `{name}` | {kind} | {} |{help} |\n", labels.join(", ")));
    }
    rows
}

/// `RINGMAIN_BLESS=1` writes it.
#[test]
fn the_page_for_users_lists_every_metric() {
    const BEGIN: &str = "<!-- metrics: from the code, RINGMAIN_BLESS=1 writes them -->\n\n";
    const END: &str = "\n<!-- /metrics -->";
    let file = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/user/metrics.md");
    let page = std::fs::read_to_string(&file).expect("the page");
    let (before, rest) = page.split_once(BEGIN).expect("where they begin");
    let (listed, after) = rest.split_once(END).expect("where they end");
    if std::env::var_os("RINGMAIN_BLESS").is_some() {
        let new = format!("{before}{BEGIN}{}{END}{after}", table());
        return std::fs::write(&file, new).expect("writes");
    }
    assert!(
        listed == table(),
        "docs/user/metrics.md is not up to date: run \
         RINGMAIN_BLESS=1 cargo test -p ringmain-control metrics"
    );
}
