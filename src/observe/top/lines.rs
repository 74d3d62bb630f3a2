//! What was seen as text: a line, or a page.

use std::fmt::Write as _;

use ringmain_shards::observe::Stage;

use super::rates::{Seen, SeenShard};
use crate::observe::format::{bytes, clock, count, grouped, name, ns, percent, table, uptime};

/// Characters of client ids and topics that are shown.
const NAME_MAX: usize = 48;

/// Names of the columns of a shard.
pub(super) const SHARD_COLUMNS: [&str; 13] = [
    "shard",
    "core",
    "busy",
    "waiting",
    "stolen",
    "cpu",
    "conns",
    "in/s",
    "out/s",
    "B in/s",
    "B out/s",
    "longest turn",
    "stalls",
];

/// The cells of a shard, as [`SHARD_COLUMNS`] names them.
pub(super) fn shard_cells(s: &SeenShard) -> [String; 13] {
    let stalls = match s.stalled_ms {
        Some(ms) => format!("{} (now {ms} ms)", grouped(s.stalls)),
        None if !s.up => format!("{} (silent)", grouped(s.stalls)),
        None => grouped(s.stalls),
    };
    [
        s.shard.to_string(),
        s.core.to_string(),
        percent(s.busy),
        percent(s.waiting),
        percent(s.stolen),
        percent(s.cpu),
        grouped(s.connections),
        count(s.received_per_s),
        count(s.sent_per_s),
        bytes(s.bytes_received_per_s as u64),
        bytes(s.bytes_sent_per_s as u64),
        ns(s.longest_turn_ns),
        stalls,
    ]
}

/// Names of the columns of a stage.
pub(super) const STAGE_COLUMNS: [&str; 8] =
    ["stage", "per s", "p50", "p99", "p99.9", "max", "start p99.9", "start max"];

/// The cells of all stages that occurred, in the order of a message's way.
pub(super) fn stage_cells(seen: &Seen) -> Vec<[String; 8]> {
    let known = |name: &str| Stage::ALL.iter().position(|s| s.name() == name);
    let mut stages: Vec<_> = seen.stages.iter().filter(|(_, s)| s.count > 0).collect();
    stages.sort_by_key(|(name, _)| known(name).unwrap_or(usize::MAX));
    let cells = |(name, s): (&String, &super::rates::SeenStage)| {
        let fresh = [s.p50, s.p99, s.p999, s.max];
        let fresh = fresh.map(|t| if s.max == 0 { "-".to_owned() } else { ns(t) });
        let [p50, p99, p999, max] = fresh;
        [name.clone(), count(s.per_s), p50, p99, p999, max, ns(s.start_p999), ns(s.start_max)]
    };
    stages.into_iter().map(cells).collect()
}

/// One line for everything.
pub(super) fn line(seen: &Seen) -> String {
    let mut out = format!(
        "{}  {} connections, {} in/s, {} out/s",
        clock(seen.unix_ms),
        grouped(seen.connections),
        count(seen.received_per_s),
        count(seen.sent_per_s)
    );
    let busiest = seen.shards.iter().max_by(|a, b| a.busy.total_cmp(&b.busy));
    if let Some(s) = busiest {
        let _ = write!(out, ", shard {} busy {}", s.shard, percent(s.busy));
    }
    if let Some(s) = seen.shards.iter().max_by_key(|s| s.longest_turn_ns) {
        let _ = write!(out, ", longest turn {}", ns(s.longest_turn_ns));
    }
    let stolen = seen.shards.iter().map(|s| s.stolen).fold(0.0, f64::max);
    if stolen >= 0.01 {
        let _ = write!(out, ", stolen {}", percent(stolen));
    }
    let _ = write!(out, ", {} queued, {}", grouped(seen.queued), bytes(seen.resident_bytes));
    for (reason, drops) in seen.drops.iter().filter(|(_, d)| d.per_s > 0.0) {
        let _ = write!(out, ", {} dropped/s ({reason})", count(drops.per_s));
    }
    for s in seen.shards.iter().filter(|s| !s.up || s.stalled_ms.is_some()) {
        let since = s.stalled_ms.map_or(String::new(), |ms| format!(" for {ms} ms"));
        let _ = write!(out, ", shard {} STALLED{since}", s.shard);
    }
    out + "\n"
}

/// All of it.
pub(super) fn page(seen: &Seen) -> String {
    let mut out = format!("{}\n\n", title(seen));
    let rows = |head: &[&str], cells: Vec<Vec<String>>| {
        let head = head.iter().map(|h| (*h).to_owned()).collect();
        table(&[vec![head], cells].concat())
    };
    let shards = seen.shards.iter().map(|s| shard_cells(s).to_vec()).collect();
    out += &rows(&SHARD_COLUMNS, shards);
    out += "\n";
    let stages = stage_cells(seen).iter().map(|c| c.to_vec()).collect();
    out += &rows(&STAGE_COLUMNS, stages);
    let drops = seen.drops.iter().map(|(r, d)| vec![r.clone(), grouped(d.count), count(d.per_s)]);
    if !seen.drops.is_empty() {
        out += &format!("\n{}", rows(&["dropped", "copies", "per s"], drops.collect()));
    }
    for (what, list) in [("client", &seen.clients), ("topic", &seen.topics)] {
        let row = |s: &ringmain_control::api::Slowness| {
            vec![
                name(&s.name, NAME_MAX),
                ns(s.max_ns),
                ns(s.mean_ns),
                grouped(s.count),
                s.slowest_stage.clone(),
            ]
        };
        if !list.is_empty() {
            let head = [what, "slowest", "mean", "followed", "mostly in"];
            out += &format!("\n{}", rows(&head, list.iter().map(row).collect()));
        }
    }
    let memory = seen.memory.iter().map(|(n, b)| vec![n.clone(), bytes(*b)]).collect();
    out += &format!("\n{}", rows(&["memory", ""], memory));
    out
}

/// The node in a line.
pub(super) fn title(seen: &Seen) -> String {
    format!(
        "{} {}  up {}  {} connections  {} in/s  {} out/s  {} queued  {} in flight  {}",
        name(&seen.node, NAME_MAX),
        seen.version,
        uptime(seen.uptime_ms),
        grouped(seen.connections),
        count(seen.received_per_s),
        count(seen.sent_per_s),
        grouped(seen.queued),
        grouped(seen.inflight),
        bytes(seen.resident_bytes)
    )
}

#[cfg(test)]
mod tests {
    use super::super::rates::tests::seen;
    use super::*;

    #[test]
    fn a_line_has_the_busiest_shard_the_longest_turn_and_what_is_dropped() {
        let line = line(&seen());
        for text in ["40 connections, 2,000 in/s, 6,000 out/s", "busy 30 %", "longest turn 1.50 ms"]
        {
            assert!(line.contains(text), "{text} is missing in {line}");
        }
        assert!(
            line.contains("10 dropped/s (queue_full)") && line.contains("stolen 1.0 %"),
            "{line}"
        );
        assert!(!line.contains("STALLED"));
    }

    #[test]
    fn a_shard_that_does_not_answer_is_in_the_line() {
        let mut seen = seen();
        seen.shards[1].stalled_ms = Some(1500);
        assert!(line(&seen).contains("shard 1 STALLED for 1500 ms"));
        assert!(page(&seen).contains("(now 1500 ms)"));
    }

    #[test]
    fn a_page_has_shards_stages_drops_clients_topics_and_memory() {
        let page = page(&seen());
        for text in [
            "n1 0.1.0  up 12 s",
            "stolen",
            "send",
            "queue_full",
            "till-7",
            "shop/7",
            "sessions  2.00 MiB",
        ] {
            assert!(page.contains(text), "{text} is missing in\n{page}");
        }
    }
}
