//! A node that never was, for tests.

use hdrhistogram::Histogram;
use ringmain_shards::engine::counters::{Counters, Gauges};
use ringmain_shards::engine::ids::ShardId;
use ringmain_shards::observe::{
    CertificateView, LoopTimes, MemoryUse, NodeView, PerTurn, Report, ShardView, Stage,
    ThreadTimes, Totals,
};

/// A node of so many shards, all of which answered. Figures are small and tell the shards apart.
pub(crate) fn view(shards: u16) -> NodeView {
    NodeView {
        node: "fake@\"here\"".to_owned(),
        version: "1.2.3",
        unix_ms: 1_700_000_000_000,
        uptime_ms: 12_500,
        shards: (0..shards).map(shard).collect(),
        resident_bytes: 4096,
        route_table_bytes: 512,
        certificates: vec![CertificateView {
            listener: "tls:127.0.0.1:8883".to_owned(),
            file: "/etc/ringmain/own.pem".to_owned(),
            subject: "CN=broker".to_owned(),
            not_after_s: 1_900_000_000,
        }],
    }
}

fn shard(index: u16) -> ShardView {
    let n = u64::from(index) + 1;
    let mut totals = totals();
    totals.stages[Stage::Route as usize].record(5_000 * n).expect("in range");
    totals.turns[PerTurn::Mails as usize].record(3 * n).expect("in range");
    let counters = Counters {
        bytes_received: 100 * n,
        connect_received: n,
        delivery_dropped: 7 * n,
        delivery_dropped_queue_full: 7 * n,
        messages_dropped_no_subscribers: 2 * n,
        ..Counters::default()
    };
    let report = Report {
        shard: ShardId(index),
        at_ns: 0,
        counters,
        gauges: Gauges { connections: 10 * n, ..Gauges::default() },
        memory: MemoryUse { queues: 64 * n, ..MemoryUse::default() },
        times: LoopTimes {
            turns_ns: 1_500_000_000 * n,
            enters_ns: 500_000_000,
            slept_ns: 1,
            longest_turn_ns: 9,
        },
        histograms: Box::default(),
        slowest: Vec::new(),
        others: Vec::new(),
    };
    ShardView {
        shard: ShardId(index),
        report: Some(Box::new(report)),
        histograms: Box::new(totals),
        slowest: Vec::new(),
        others: Vec::new(),
        thread: ThreadTimes { tid: 77, cpu: 3, cpu_ns: 2_000_000_000, stolen_ns: 4, preempted: 5 },
        ring: crate::metrics::ring_names().map(|name| (name, n)).collect(),
        stalled_ms: None,
        stalls: n - 1,
    }
}

fn totals() -> Totals {
    let times = || Histogram::new_with_bounds(16, 3_600_000_000_000, 2).expect("bounds");
    let counts = || Histogram::new_with_bounds(1, 1 << 32, 2).expect("bounds");
    Totals {
        stages: Stage::ALL.iter().map(|_| times()).collect(),
        turns: PerTurn::ALL
            .iter()
            .map(|what| if *what == PerTurn::Length { times() } else { counts() })
            .collect(),
    }
}
