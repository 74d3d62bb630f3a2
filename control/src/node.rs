//! The node as JSON.

use std::collections::BTreeMap;

use hdrhistogram::Histogram;
use ringmain_shards::observe::{NodeView, PerTurn, ShardView, Stage, TurnSpan};

use crate::{api, fields};

/// The answer to `GET /v1/node`; with the buckets of the stages' histograms if they are asked for.
pub(crate) fn node(view: &NodeView, buckets: bool) -> api::Node {
    api::Node {
        node: view.node.clone(),
        version: view.version.to_owned(),
        pid: std::process::id(),
        unix_ms: view.unix_ms,
        uptime_ms: view.uptime_ms,
        resident_bytes: view.resident_bytes,
        route_table_bytes: view.route_table_bytes,
        shards: view.shards.iter().map(|s| shard(s, buckets)).collect(),
    }
}

fn shard(view: &ShardView, buckets: bool) -> api::Shard {
    let (mut counters, mut gauges, mut times) = Default::default();
    if let Some(report) = &view.report {
        counters = numbers(report.counters.all());
        gauges = numbers(fields::gauges(&report.gauges));
        times = api::Times {
            turns_ns: report.times.turns_ns,
            enters_ns: report.times.enters_ns,
            slept_ns: report.times.slept_ns,
            longest_turn_ns: report.times.longest_turn_ns,
        };
    }
    let memory = view.report.as_ref().map(|r| numbers(fields::memory(&r.memory)));
    let stages = Stage::ALL.iter().zip(&view.histograms.stages);
    let turns = PerTurn::ALL.iter().zip(&view.histograms.turns);
    api::Shard {
        shard: view.shard.0,
        up: view.report.is_some(),
        stalled_ms: view.stalled_ms,
        stalls: view.stalls,
        thread: api::Thread {
            tid: view.thread.tid,
            cpu: view.thread.cpu,
            cpu_ns: view.thread.cpu_ns,
            stolen_ns: view.thread.stolen_ns,
            preempted: view.thread.preempted,
        },
        times,
        counters,
        gauges,
        memory: memory.unwrap_or_default(),
        ring: numbers(view.ring.iter().copied()),
        stages: stages.map(|(stage, h)| (stage.name().to_owned(), summary(h, buckets))).collect(),
        turns: turns.map(|(what, h)| (what.name().to_owned(), summary(h, false))).collect(),
    }
}

fn numbers(of: impl IntoIterator<Item = (&'static str, u64)>) -> api::Numbers {
    of.into_iter().map(|(name, n)| (name.to_owned(), n)).collect::<BTreeMap<_, _>>()
}

fn summary(h: &Histogram<u64>, buckets: bool) -> api::Summary {
    let recorded =
        h.iter_recorded().map(|v| (v.value_iterated_to(), v.count_since_last_iteration()));
    api::Summary {
        count: h.len(),
        mean: h.mean() as u64,
        p50: h.value_at_quantile(0.5),
        p90: h.value_at_quantile(0.9),
        p99: h.value_at_quantile(0.99),
        p999: h.value_at_quantile(0.999),
        max: h.max(),
        buckets: if buckets { recorded.collect() } else { Vec::new() },
    }
}

/// One turn, as `GET /v1/turns` lists it.
pub(crate) fn turn(span: &TurnSpan) -> api::Turn {
    api::Turn {
        shard: span.shard.0,
        at_ns: span.at_ns,
        inputs_ns: span.inputs_ns.into(),
        mail_ns: span.mail_ns.into(),
        perform_ns: span.perform_ns.into(),
        enter_ns: span.enter_ns,
        slept: span.slept,
        completions: span.completions,
        mails: span.mails,
        sends: span.sends,
    }
}
