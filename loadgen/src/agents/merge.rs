//! Puts the reports of agents together.
//!
//! Counts are added. Latencies of the whole run are merged by their histograms, so that their
//! percentiles are exact; those of single stages and intervals have no histograms, and are those of
//! the worst agent.

use std::collections::BTreeMap;

use crate::report::{Latency, Report, Row, StageReport, Summary, Traffic};
use crate::snapshot::Snapshot;

/// Adds an agent's report to the sum; the first one is added to an empty report.
pub(super) fn add(sum: &mut Report, part: &Report) {
    sum.clients += part.clients;
    sum.workers += part.workers;
    sum.rings += part.rings;
    sum.connect_s = sum.connect_s.max(part.connect_s);
    sum.counters.add(&part.counters);
    sum.generator.cpu_ns += part.generator.cpu_ns;
    sum.generator.connect_cpu_ns += part.generator.connect_cpu_ns;
    sum.generator.rss += part.generator.rss;
    if let Some(traffic) = &part.traffic {
        let all = sum.traffic.get_or_insert(Traffic::default());
        all.seconds = all.seconds.max(traffic.seconds);
        all.sent += traffic.sent;
        all.delivered += traffic.delivered;
        all.generator_cpu_ns += traffic.generator_cpu_ns;
    }
    for (name, latency) in &part.latencies {
        merge(sum.latencies.entry(name.clone()).or_default(), latency);
    }
    for (what, count) in &part.faults {
        *sum.faults.entry(what.clone()).or_default() += count;
    }
    stages(&mut sum.stages, &part.stages);
    for (n, row) in part.series.iter().enumerate() {
        match sum.series.get_mut(n) {
            Some(into) => add_row(into, row),
            None => sum.series.push(*row),
        }
    }
}

fn stages(sum: &mut Vec<StageReport>, part: &[StageReport]) {
    for (n, stage) in part.iter().enumerate() {
        let Some(into) = sum.get_mut(n) else {
            sum.push(stage.clone());
            continue;
        };
        into.seconds = into.seconds.max(stage.seconds);
        into.counters.add(&stage.counters);
        into.generator_cpu_ns += stage.generator_cpu_ns;
        into.recovery_s = match (into.recovery_s, stage.recovery_s) {
            (Some(a), Some(b)) => Some(a.max(b)),
            (a, b) => a.or(b),
        };
        worst_of(&mut into.latencies, &stage.latencies);
    }
}

fn add_row(into: &mut Row, row: &Row) {
    into.live += row.live;
    into.ready_per_s += row.ready_per_s;
    into.sent_per_s += row.sent_per_s;
    into.delivered_per_s += row.delivered_per_s;
    into.errors += row.errors;
    into.p50 = into.p50.max(row.p50);
    into.p99 = into.p99.max(row.p99);
    into.p999 = into.p999.max(row.p999);
    into.max = into.max.max(row.max);
    into.generator_cpu += row.generator_cpu;
}

/// A look at the whole from the last looks at its parts.
pub(super) fn look(parts: &[Option<Snapshot>]) -> Snapshot {
    let mut parts = parts.iter().flatten();
    let Some(mut sum) = parts.next().cloned() else { return Snapshot::default() };
    for part in parts {
        sum.elapsed = sum.elapsed.max(part.elapsed);
        // The stage is that of whoever is furthest behind.
        if part.stage < sum.stage {
            sum.stage = part.stage;
            sum.stage_name.clone_from(&part.stage_name);
            sum.stage_kind.clone_from(&part.stage_kind);
            sum.stage_elapsed = part.stage_elapsed;
            sum.stage_planned = part.stage_planned;
        }
        sum.stage_ended &= part.stage_ended;
        sum.clients += part.clients;
        sum.counters.add(&part.counters);
        sum.rates.attempts += part.rates.attempts;
        sum.rates.ready += part.rates.ready;
        sum.rates.sent += part.rates.sent;
        sum.rates.delivered += part.rates.delivered;
        sum.rates.acked += part.rates.acked;
        sum.generator_cpu += part.generator_cpu;
        worst_of(&mut sum.interval, &part.interval);
        worst_of(&mut sum.cumulative, &part.cumulative);
        sum.void.extend(part.void.iter().cloned());
    }
    sum
}

fn worst_of(into: &mut BTreeMap<String, Latency>, from: &BTreeMap<String, Latency>) {
    for (name, latency) in from {
        let into = into.entry(name.clone()).or_default();
        into.corrected = worst(&into.corrected, &latency.corrected);
        into.raw = match (into.raw, latency.raw) {
            (Some(a), Some(b)) => Some(worst(&a, &b)),
            (a, b) => a.or(b),
        };
    }
}

fn worst(a: &Summary, b: &Summary) -> Summary {
    if a.count == 0 || b.count == 0 {
        return if a.count == 0 { *b } else { *a };
    }
    let count = a.count + b.count;
    Summary {
        count,
        min: a.min.min(b.min),
        mean: (a.mean * a.count as f64 + b.mean * b.count as f64) / count as f64,
        p50: a.p50.max(b.p50),
        p90: a.p90.max(b.p90),
        p99: a.p99.max(b.p99),
        p999: a.p999.max(b.p999),
        p9999: a.p9999.max(b.p9999),
        max: a.max.max(b.max),
    }
}

/// Merges by histograms.
fn merge(into: &mut Latency, from: &Latency) {
    // Where the raw side is the same, its histogram is left out.
    let raw_of = |l: &Latency| {
        if l.raw_histogram.is_empty() { l.histogram.clone() } else { l.raw_histogram.clone() }
    };
    let apart = !(into.raw_histogram.is_empty() && from.raw_histogram.is_empty());
    let raw = united(&raw_of(into), &raw_of(from));
    into.histogram = united(&into.histogram, &from.histogram);
    into.corrected = summary(&into.histogram, into.corrected.min, from.corrected.min);
    if into.raw.is_some() || from.raw.is_some() {
        into.raw = Some(summary(&raw, 0, 0));
    }
    into.raw_histogram = if apart { raw } else { Vec::new() };
}

/// Both histograms in one, values ascending.
fn united(a: &[(u64, u64)], b: &[(u64, u64)]) -> Vec<(u64, u64)> {
    let mut all: BTreeMap<u64, u64> = a.iter().copied().collect();
    for (value, count) in b {
        *all.entry(*value).or_default() += count;
    }
    all.into_iter().collect()
}

/// The nine numbers of a histogram. The least value of a side without values is 0, and says
/// nothing.
fn summary(histogram: &[(u64, u64)], min_a: u64, min_b: u64) -> Summary {
    let count: u64 = histogram.iter().map(|h| h.1).sum();
    if count == 0 {
        return Summary::default();
    }
    let at = |quantile: f64| {
        let wanted = ((quantile * count as f64).ceil() as u64).max(1);
        let mut seen = 0;
        let found = histogram.iter().find(|h| {
            seen += h.1;
            seen >= wanted
        });
        found.map_or(0, |h| h.0)
    };
    let sum: f64 = histogram.iter().map(|h| h.0 as f64 * h.1 as f64).sum();
    let least = [min_a, min_b].into_iter().filter(|m| *m > 0).min();
    Summary {
        count,
        min: least.unwrap_or(histogram[0].0),
        mean: sum / count as f64,
        p50: at(0.5),
        p90: at(0.9),
        p99: at(0.99),
        p999: at(0.999),
        p9999: at(0.9999),
        max: histogram[histogram.len() - 1].0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn latency(values: impl Iterator<Item = u64>) -> Latency {
        let histogram: Vec<(u64, u64)> = values.map(|v| (v, 1)).collect();
        Latency { corrected: summary(&histogram, 0, 0), histogram, ..Latency::default() }
    }

    #[test]
    fn merged_percentiles_are_those_of_all_values() {
        let mut merged = Latency::default();
        merge(&mut merged, &latency(1..=900));
        merge(&mut merged, &latency(901..=1000));
        let whole = latency(1..=1000);
        assert_eq!(merged.corrected, whole.corrected);
        assert_eq!((merged.corrected.p50, merged.corrected.p999), (500, 999));
    }

    #[test]
    fn a_raw_side_that_one_agent_has_alone_is_merged_with_the_others_only_side() {
        let mut merged = latency([100, 200].into_iter());
        merged.raw = Some(merged.corrected);
        let mut other = latency([1000].into_iter());
        other.raw_histogram = vec![(10, 1)];
        other.raw = Some(summary(&other.raw_histogram, 0, 0));
        merge(&mut merged, &other);
        assert_eq!(merged.histogram, [(100, 1), (200, 1), (1000, 1)]);
        assert_eq!(merged.raw_histogram, [(10, 1), (100, 1), (200, 1)]);
        assert_eq!(merged.raw.unwrap().max, 200);
    }

    #[test]
    fn counts_add_up_and_the_slowest_says_how_long_it_took() {
        let mut part = Report { clients: 5, connect_s: 1.0, ..Report::default() };
        part.counters.ready = 5;
        part.traffic = Some(Traffic { seconds: 2.0, sent: 10, ..Traffic::default() });
        part.series = vec![Row { live: 5, p99: 7, ..Row::default() }];
        let mut slower = part.clone();
        slower.connect_s = 3.0;
        slower.series.push(Row { live: 5, ..Row::default() });
        let mut sum = Report::default();
        add(&mut sum, &part);
        add(&mut sum, &slower);
        assert_eq!((sum.clients, sum.counters.ready, sum.connect_s), (10, 10, 3.0));
        assert_eq!(sum.traffic.unwrap().sent, 20);
        assert_eq!((sum.series.len(), sum.series[0].live, sum.series[0].p99), (2, 10, 7));
    }

    #[test]
    fn a_look_shows_the_stage_of_whoever_is_behind() {
        let at = |stage: usize, live: u64| {
            let mut look = Snapshot { stage, clients: 10, ..Snapshot::default() };
            look.counters.live = live;
            Some(look)
        };
        let sum = look(&[at(2, 4), None, at(1, 3)]);
        assert_eq!((sum.stage, sum.counters.live, sum.clients), (1, 7, 20));
    }
}
