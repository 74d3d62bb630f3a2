//! Histograms and snapshots as the figures of a report.

use std::collections::BTreeMap;

use crate::report::{Latency, Row, Summary};
use crate::snapshot::Snapshot;
use crate::stats::{Latencies, METRICS, Metric};

/// All latencies by name; those of messages with their raw side.
pub(super) fn latencies(of: &Latencies, histograms: bool) -> BTreeMap<String, Latency> {
    let recorded = |h: &hdrhistogram::Histogram<u64>| {
        let values = h.iter_recorded();
        values.map(|v| (v.value_iterated_to(), v.count_at_value())).collect()
    };
    let mut all = BTreeMap::new();
    for (metric, name) in METRICS {
        let Some(name) = name else { continue };
        let corrected = of.get(metric);
        if corrected.is_empty() {
            all.insert(name.to_owned(), Latency::default());
            continue;
        }
        let raw = match metric {
            Metric::Ack => of.get(Metric::AckRaw),
            Metric::Delivery => of.get(Metric::DeliveryRaw),
            _ => corrected,
        };
        let apart = !raw.is_empty() && !std::ptr::eq(raw, corrected);
        let summary = Summary::from(corrected);
        // Summing up walks over the whole histogram: not twice over the same.
        let raw_summary = if apart { Summary::from(raw) } else { summary };
        let mut latency = Latency {
            corrected: summary,
            raw: (metric != Metric::Lag).then_some(raw_summary),
            ..Latency::default()
        };
        if histograms {
            latency.histogram = recorded(corrected);
            if apart {
                latency.raw_histogram = recorded(raw);
            }
        }
        all.insert(name.to_owned(), latency);
    }
    all
}

pub(super) fn row(s: &Snapshot) -> Row {
    let names = ["delivery", "ack", "connect"];
    let latency = names.iter().filter_map(|n| s.interval.get(*n)).find(|l| l.count > 0);
    let latency = latency.map(|l| l.corrected).unwrap_or_default();
    Row {
        at_s: s.elapsed.as_secs_f64(),
        stage: s.stage as u32,
        live: s.counters.live,
        ready_per_s: s.rates.ready,
        sent_per_s: s.rates.sent,
        delivered_per_s: s.rates.delivered,
        errors: s.counters.failed + s.counters.retries + s.counters.broken,
        p50: latency.p50,
        p99: latency.p99,
        p999: latency.p999,
        max: latency.max,
        generator_cpu: s.generator_cpu,
        broker_cpu: s.broker_cpu,
        broker_rss: s.broker.as_ref().map(|b| b.rss),
        broker_pss: s.broker.as_ref().map(|b| b.pss),
    }
}
