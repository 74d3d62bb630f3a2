//! Nodes built by hand, for tests.

use ringmain_shards::engine::counters::{Counters, Gauges};
use ringmain_shards::engine::ids::ShardId;
use ringmain_shards::observe::{
    Histograms, LoopTimes, MemoryUse, NodeView, PerTurn, Report, ShardView, Stage, ThreadTimes,
    Totals, Trace,
};

/// A node whose shards all answered, and have done nothing.
pub(crate) fn view(shards: u16) -> NodeView {
    NodeView {
        node: "n".to_owned(),
        version: "0",
        unix_ms: 0,
        uptime_ms: 0,
        shards: (0..shards).map(shard).collect(),
        resident_bytes: 0,
        route_table_bytes: 0,
    }
}

fn shard(index: u16) -> ShardView {
    let shard = ShardId(index);
    let empty = || hdrhistogram::Histogram::new(2).expect("two digits");
    ShardView {
        shard,
        report: Some(Box::new(Report {
            shard,
            at_ns: 0,
            counters: Counters::default(),
            gauges: Gauges::default(),
            memory: MemoryUse::default(),
            times: LoopTimes::default(),
            histograms: Box::new(Histograms::default()),
            slowest: Vec::new(),
            others: Vec::new(),
        })),
        histograms: Box::new(Totals {
            stages: Stage::ALL.iter().map(|_| empty()).collect(),
            turns: PerTurn::ALL.iter().map(|_| empty()).collect(),
        }),
        slowest: Vec::new(),
        others: Vec::new(),
        thread: ThreadTimes::default(),
        ring: Vec::new(),
        stalled_ms: None,
        stalls: 0,
    }
}

/// A message that spent so many ns in these stages.
pub(crate) fn followed(subscriber: &str, topic: &str, spans: &[(Stage, u64)]) -> Trace {
    let mut spans_ns = [0; Stage::COUNT];
    spans.iter().for_each(|(stage, ns)| spans_ns[*stage as usize] = *ns);
    Trace {
        read_unix_ms: 0,
        publisher: "p".into(),
        subscriber: subscriber.into(),
        topic: topic.into(),
        qos: 1,
        payload_bytes: 10,
        from: ShardId(0),
        to: ShardId(0),
        spans_ns,
        send_unseen: false,
    }
}
