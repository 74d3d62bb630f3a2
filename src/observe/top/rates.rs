//! What two looks at a node say together: rates and shares of the time between them.

use std::collections::BTreeMap;

use ringmain_control::api::{Node, Numbers, Shard, Slow, Slowness, Summary};
use serde::Serialize;

/// Counters of drops begin so; what follows is the reason.
const REASON: &str = "delivery_dropped_";

/// A node between two looks.
#[derive(Clone, Debug, Default, Serialize)]
pub(super) struct Seen {
    /// Its name.
    pub node: String,
    /// Version of the broker.
    pub version: String,
    /// Process id.
    pub pid: u32,
    /// Wall clock at the second look, ms since the Unix epoch.
    pub unix_ms: u64,
    /// Since the start of the broker, ms.
    pub uptime_ms: u64,
    /// Between the looks, seconds. 0 where the broker was started anew in between: then all rates are 0.
    pub seconds: f64,
    /// Resident memory of the process, bytes.
    pub resident_bytes: u64,
    /// Memory by component, bytes; all shards.
    pub memory: Numbers,
    /// Connections with a session.
    pub connections: u64,
    /// Messages received from clients, a second.
    pub received_per_s: f64,
    /// Messages sent to clients, a second.
    pub sent_per_s: f64,
    /// Copies waiting in sessions and in shared groups.
    pub queued: u64,
    /// Copies sent and not acknowledged.
    pub inflight: u64,
    /// By index.
    pub shards: Vec<SeenShard>,
    /// By name.
    pub stages: BTreeMap<String, SeenStage>,
    /// Copies dropped, by reason; those that ever were.
    pub drops: BTreeMap<String, Drops>,
    /// Subscribers by their slowest message of the last ten minutes.
    pub clients: Vec<Slowness>,
    /// Topics by theirs.
    pub topics: Vec<Slowness>,
}

/// A shard between two looks. Shares are of the time between them, 0 to 1.
#[derive(Clone, Debug, Default, Serialize)]
pub(super) struct SeenShard {
    /// Index.
    pub shard: u16,
    /// Whether it answered.
    pub up: bool,
    /// In turns and in system calls that did not sleep.
    pub busy: f64,
    /// In system calls that may have slept.
    pub waiting: f64,
    /// Runnable without a CPU.
    pub stolen: f64,
    /// On a CPU.
    pub cpu: f64,
    /// Core it ran on last.
    pub core: u32,
    /// Connections with a session.
    pub connections: u64,
    /// Messages received from clients, a second.
    pub received_per_s: f64,
    /// Messages sent to clients, a second.
    pub sent_per_s: f64,
    /// Bytes received, a second.
    pub bytes_received_per_s: f64,
    /// Bytes sent, a second.
    pub bytes_sent_per_s: f64,
    /// Longest turn lately, ns.
    pub longest_turn_ns: u64,
    /// Stalls since its start.
    pub stalls: u64,
    /// How long its present turn lasts already, ms, if longer than the stall limit.
    pub stalled_ms: Option<u64>,
}

/// A stage of messages' way, over all shards. Times are of what was measured between the looks; 0 if nothing was.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub(super) struct SeenStage {
    /// Times measured, a second.
    pub per_s: f64,
    /// Half of them are at most so long, ns.
    pub p50: u64,
    /// 99 of 100 are.
    pub p99: u64,
    /// 999 of 1,000 are.
    pub p999: u64,
    /// All are.
    pub max: u64,
    /// Times measured since the start of the broker.
    pub count: u64,
    /// Since the start: 999 of 1,000 of the shard with the longest times are at most so long, ns.
    pub start_p999: u64,
    /// The longest since the start, ns.
    pub start_max: u64,
}

/// Copies dropped for one reason.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub(super) struct Drops {
    /// Since the start of the broker.
    pub count: u64,
    /// A second.
    pub per_s: f64,
}

impl Seen {
    /// What happened between `a` and `b`. Of `slow` the clients and topics are kept.
    pub(super) fn between(a: &Node, b: &Node, slow: &Slow) -> Self {
        let same = a.pid == b.pid && b.uptime_ms > a.uptime_ms;
        let seconds = if same { (b.uptime_ms - a.uptime_ms) as f64 / 1000.0 } else { 0.0 };
        let nobody = Shard::default();
        let before = |s: &Shard| a.shards.iter().find(|old| old.shard == s.shard);
        let pairs: Vec<(&Shard, &Shard)> =
            b.shards.iter().map(|s| (before(s).unwrap_or(&nobody), s)).collect();
        let shards: Vec<SeenShard> = pairs.iter().map(|(a, b)| shard(a, b, seconds)).collect();
        let gauge = |name: &str| b.shards.iter().filter_map(|s| s.gauges.get(name)).sum();
        let mut memory = Numbers::new();
        for (name, bytes) in b.shards.iter().flat_map(|s| &s.memory) {
            *memory.entry(name.clone()).or_default() += bytes;
        }
        memory.insert("routes".to_owned(), b.route_table_bytes);
        Self {
            node: b.node.clone(),
            version: b.version.clone(),
            pid: b.pid,
            unix_ms: b.unix_ms,
            uptime_ms: b.uptime_ms,
            seconds,
            resident_bytes: b.resident_bytes,
            memory,
            connections: gauge("connections"),
            received_per_s: shards.iter().map(|s| s.received_per_s).sum(),
            sent_per_s: shards.iter().map(|s| s.sent_per_s).sum(),
            queued: gauge("queued") + gauge("group_queued"),
            inflight: gauge("inflight"),
            stages: stages(&pairs, seconds),
            drops: drops(&pairs, seconds),
            shards,
            clients: slow.clients.clone(),
            topics: slow.topics.clone(),
        }
    }
}

/// Growth a second. A figure that one of the looks lacks did not grow.
fn rate(a: Option<u64>, b: Option<u64>, seconds: f64) -> f64 {
    match (a, b) {
        (Some(a), Some(b)) if seconds > 0.0 => b.saturating_sub(a) as f64 / seconds,
        _ => 0.0,
    }
}

fn shard(a: &Shard, b: &Shard, seconds: f64) -> SeenShard {
    let counter =
        |name: &str| rate(a.counters.get(name).copied(), b.counters.get(name).copied(), seconds);
    // Who did not answer has told nothing of its loop; its thread is known in any case.
    let both = a.up && b.up;
    let share = |a: u64, b: u64| (rate(Some(a), Some(b), seconds) / 1e9).min(1.0);
    let of_loop = |a: u64, b: u64| if both { share(a, b) } else { 0.0 };
    let (ta, tb) = (&a.times, &b.times);
    let known = a.thread.tid != 0;
    let of_thread = |a: u64, b: u64| if known { share(a, b) } else { 0.0 };
    SeenShard {
        shard: b.shard,
        up: b.up,
        busy: of_loop(ta.turns_ns + ta.enters_ns, tb.turns_ns + tb.enters_ns),
        waiting: of_loop(ta.slept_ns, tb.slept_ns),
        stolen: of_thread(a.thread.stolen_ns, b.thread.stolen_ns),
        cpu: of_thread(a.thread.cpu_ns, b.thread.cpu_ns),
        core: b.thread.cpu,
        connections: b.gauges.get("connections").copied().unwrap_or(0),
        received_per_s: counter("messages_received"),
        sent_per_s: counter("messages_sent"),
        bytes_received_per_s: counter("bytes_received"),
        bytes_sent_per_s: counter("bytes_sent"),
        longest_turn_ns: tb.longest_turn_ns,
        stalls: b.stalls,
        stalled_ms: b.stalled_ms,
    }
}

fn stages(pairs: &[(&Shard, &Shard)], seconds: f64) -> BTreeMap<String, SeenStage> {
    let mut stages: BTreeMap<String, SeenStage> = BTreeMap::new();
    let mut fresh: BTreeMap<&str, Buckets> = BTreeMap::new();
    for (a, b) in pairs {
        for (name, now) in &b.stages {
            let before = a.stages.get(name);
            let stage = stages.entry(name.clone()).or_default();
            stage.per_s += rate(before.map(|s| s.count), Some(now.count), seconds);
            stage.count += now.count;
            stage.start_p999 = stage.start_p999.max(now.p999);
            stage.start_max = stage.start_max.max(now.max);
            if let Some(before) = before.filter(|_| seconds > 0.0) {
                grown(before, now, fresh.entry(name).or_default());
            }
        }
    }
    for (name, stage) in &mut stages {
        let Some(fresh) = fresh.get(name.as_str()) else { continue };
        let at = |share| quantile(fresh, share);
        (stage.p50, stage.p99, stage.p999, stage.max) = (at(0.5), at(0.99), at(0.999), at(1.0));
    }
    stages
}

/// How often each value was.
type Buckets = BTreeMap<u64, u64>;

/// Adds what `b` has more than `a`.
fn grown(a: &Summary, b: &Summary, to: &mut Buckets) {
    let before: Buckets = a.buckets.iter().copied().collect();
    for (value, count) in &b.buckets {
        let more = count.saturating_sub(before.get(value).copied().unwrap_or(0));
        if more > 0 {
            *to.entry(*value).or_default() += more;
        }
    }
}

/// The value that this share of all is at most.
fn quantile(buckets: &Buckets, share: f64) -> u64 {
    let total: u64 = buckets.values().sum();
    let wanted = ((total as f64 * share).ceil() as u64).max(1);
    let mut sum = 0;
    let reached = buckets.iter().find(|(_, count)| {
        sum += **count;
        sum >= wanted
    });
    reached.map_or(0, |(value, _)| *value)
}

fn drops(pairs: &[(&Shard, &Shard)], seconds: f64) -> BTreeMap<String, Drops> {
    let mut drops: BTreeMap<String, Drops> = BTreeMap::new();
    for (a, b) in pairs {
        for (name, count) in &b.counters {
            let Some(reason) = name.strip_prefix(REASON).filter(|_| *count > 0) else { continue };
            let entry = drops.entry(reason.to_owned()).or_default();
            entry.count += count;
            entry.per_s += rate(a.counters.get(name).copied(), Some(*count), seconds);
        }
    }
    drops
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use ringmain_control::api::{Thread, Times};

    fn numbers(pairs: &[(&str, u64)]) -> Numbers {
        pairs.iter().map(|(name, n)| ((*name).to_owned(), *n)).collect()
    }

    /// A hundred sends a second, a quarter of them slower; the first ten seconds had one that took very long.
    fn send(s: u64, shard: u16) -> Summary {
        let buckets = vec![(1000, s * 75), (5000 + u64::from(shard), s * 25), (9_000_000, 1)];
        Summary {
            count: s * 100 + 1,
            p999: 9_000_000,
            max: 9_000_000,
            buckets,
            ..Summary::default()
        }
    }

    /// Two shards, `s` seconds after the start, with as many messages as ms.
    fn node(s: u64) -> Node {
        let shard = |shard: u16| Shard {
            shard,
            up: true,
            thread: Thread {
                tid: 7,
                cpu: 3,
                cpu_ns: s * 400_000_000,
                stolen_ns: s * 10_000_000,
                preempted: s,
            },
            times: Times {
                turns_ns: s * 200_000_000,
                enters_ns: s * 100_000_000,
                slept_ns: s * 690_000_000,
                longest_turn_ns: 1_500_000,
            },
            counters: numbers(&[
                ("messages_received", s * 1000),
                ("messages_sent", s * 3000),
                ("delivery_dropped", s * 5),
                ("delivery_dropped_queue_full", s * 5),
                ("delivery_dropped_expired", 0),
            ]),
            gauges: numbers(&[
                ("connections", 20),
                ("queued", 3),
                ("group_queued", 1),
                ("inflight", 2),
            ]),
            memory: numbers(&[("sessions", 1 << 20)]),
            stages: [("send".to_owned(), send(s, shard))].into(),
            ..Shard::default()
        };
        Node {
            node: "n1".to_owned(),
            version: "0.1.0".to_owned(),
            pid: 42,
            uptime_ms: s * 1000,
            resident_bytes: 50 << 20,
            route_table_bytes: 4096,
            shards: vec![shard(0), shard(1)],
            ..Node::default()
        }
    }

    /// What there is to see two seconds apart.
    pub(in crate::observe::top) fn seen() -> Seen {
        let slowness = |name: &str| Slowness {
            name: name.to_owned(),
            count: 4,
            mean_ns: 2_000_000,
            max_ns: 9_000_000,
            slowest_stage: "queue".to_owned(),
        };
        let slow = Slow {
            clients: vec![slowness("till-7")],
            topics: vec![slowness("shop/7")],
            ..Slow::default()
        };
        Seen::between(&node(10), &node(12), &slow)
    }

    #[test]
    fn rates_and_shares_are_of_the_time_between_two_looks() {
        let seen = seen();
        let close = |a: f64, b: f64| (a - b).abs() < 1e-9;
        assert!(close(seen.seconds, 2.0) && close(seen.received_per_s, 2000.0), "{seen:?}");
        let shard = &seen.shards[1];
        assert!(close(shard.sent_per_s, 3000.0) && close(shard.busy, 0.3), "{shard:?}");
        assert!(close(shard.waiting, 0.69) && close(shard.stolen, 0.01) && close(shard.cpu, 0.4));
        assert_eq!((seen.connections, seen.queued, seen.inflight), (40, 8, 4));
        assert_eq!(seen.memory["sessions"], 2 << 20);
        assert_eq!(seen.memory["routes"], 4096);
    }

    #[test]
    fn times_of_a_stage_are_of_what_was_between_the_looks_on_all_shards() {
        let send = &seen().stages["send"];
        assert_eq!((send.p50, send.p99, send.p999, send.max), (1000, 5001, 5001, 5001));
        assert_eq!((send.count, send.start_p999, send.start_max), (2402, 9_000_000, 9_000_000));
        assert!((send.per_s - 200.0).abs() < 1e-9);
        // Between a look and itself nothing was.
        let nothing = Seen::between(&node(12), &node(12), &Slow::default());
        assert_eq!((nothing.stages["send"].max, nothing.stages["send"].count), (0, 2402));
    }

    #[test]
    fn drops_stand_by_reason_and_reasons_that_never_were_are_left_out() {
        let drops = seen().drops;
        assert_eq!(drops.len(), 1, "{drops:?}");
        assert_eq!(drops["queue_full"], Drops { count: 120, per_s: 10.0 });
    }

    #[test]
    fn a_broker_that_was_started_anew_has_no_rates_yet() {
        let seen = Seen::between(&node(12), &node(1), &Slow::default());
        assert!(seen.seconds == 0.0 && seen.sent_per_s == 0.0 && seen.shards[0].busy == 0.0);
        let other = Node { pid: 43, ..node(20) };
        assert!(Seen::between(&node(12), &other, &Slow::default()).received_per_s == 0.0);
    }

    #[test]
    fn a_shard_that_did_not_answer_has_no_rates_but_its_thread_has() {
        let mut silent = node(12);
        silent.shards[1].up = false;
        silent.shards[1].counters.clear();
        silent.shards[1].times = Times::default();
        silent.shards[1].stalled_ms = Some(1500);
        let seen = Seen::between(&node(10), &silent, &Slow::default());
        let shard = &seen.shards[1];
        assert!(shard.busy == 0.0 && shard.sent_per_s == 0.0 && shard.cpu > 0.0);
        assert_eq!(shard.stalled_ms, Some(1500));
        // And when it is back, what it did meanwhile is no burst.
        let back = Seen::between(&silent, &node(14), &Slow::default());
        assert!(back.shards[1].busy == 0.0 && back.shards[1].sent_per_s == 0.0);
    }
}
