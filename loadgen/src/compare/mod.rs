//! Two brokers in turn, and what their difference is worth.
//!
//! A block runs the same load four times: A, B, B, A. What drifts slowly (a warm cache, a busy
//! neighbour, a clock that throttles) then weighs on both alike. Each block gives one pair per
//! metric: the means of its two runs of A and of B; the pairs give a ratio with an
//! interval ([`statistics`]).

pub mod cli;
pub mod statistics;

use std::collections::BTreeMap;

use crate::metric::Metrics;
use crate::quantity::Dimension;
use crate::report::Report;

use self::statistics::Ratio;

/// Whether more is better, where that can be said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Better {
    /// Rates.
    More,
    /// Costs and latencies.
    Less,
}

/// What is compared, where both have it.
pub const COMPARED: &[(&str, Better)] = &[
    ("broker.cpu_per_message", Better::Less),
    ("broker.cpu_per_connection", Better::Less),
    ("throughput", Better::More),
    ("connect.per_s", Better::More),
    ("delivery.p50", Better::Less),
    ("delivery.p99", Better::Less),
    ("delivery.p99.9", Better::Less),
    ("ack.p50", Better::Less),
    ("ack.p99", Better::Less),
    ("ack.p99.9", Better::Less),
    ("connect.p50", Better::Less),
    ("connect.p99", Better::Less),
    ("broker.anonymous_per_connection", Better::Less),
];

/// The order of a block.
pub const BLOCK: [Side; 4] = [Side::A, Side::B, Side::B, Side::A];

/// Which broker.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub enum Side {
    /// The first.
    A,
    /// The second.
    B,
}

/// The numbers of one run that are compared.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Run {
    /// Which block, from 0.
    pub block: usize,
    /// Which broker.
    pub side: Side,
    /// By metric.
    pub values: BTreeMap<String, f64>,
}

impl Run {
    /// Takes them from a report.
    #[must_use]
    pub fn of(block: usize, side: Side, report: &Report) -> Self {
        let metrics = Metrics::of(report);
        let value =
            |(name, _): &(&str, Better)| Some(((*name).to_owned(), metrics.get(name)?.value));
        Self { block, side, values: COMPARED.iter().filter_map(value).collect() }
    }
}

/// One line of the result.
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
pub struct Line {
    /// The metric.
    pub metric: String,
    /// What its values count.
    pub dimension: Dimension,
    /// Median over A's runs.
    pub a: f64,
    /// Median over B's runs.
    pub b: f64,
    /// B/A.
    pub ratio: Ratio,
    /// What it lets one say.
    pub finding: statistics::Finding,
}

/// Compares the runs metric by metric.
#[must_use]
pub fn lines(runs: &[Run], seed: u64) -> Vec<Line> {
    let line = |&(metric, _): &(&str, Better)| {
        let pairs = pairs(runs, metric);
        let ratio = Ratio::of(&pairs, seed)?;
        let median_of = |side: Side| {
            let of = runs.iter().filter(|r| r.side == side);
            statistics::median(
                &mut of.filter_map(|r| r.values.get(metric).copied()).collect::<Vec<_>>(),
            )
        };
        Some(Line {
            metric: metric.to_owned(),
            dimension: dimension(metric),
            a: median_of(Side::A),
            b: median_of(Side::B),
            finding: ratio.finding(),
            ratio,
        })
    };
    COMPARED.iter().filter_map(line).collect()
}

fn dimension(metric: &str) -> Dimension {
    match metric {
        "throughput" | "connect.per_s" => Dimension::Rate,
        "broker.anonymous_per_connection" => Dimension::Bytes,
        _ => Dimension::Time,
    }
}

/// One pair for each block that measured the metric on both sides.
fn pairs(runs: &[Run], metric: &str) -> Vec<(f64, f64)> {
    let mut blocks: BTreeMap<usize, [Vec<f64>; 2]> = BTreeMap::new();
    for run in runs {
        if let Some(&value) = run.values.get(metric) {
            blocks.entry(run.block).or_default()[run.side as usize].push(value);
        }
    }
    // Arithmetic, so that a drift that is a straight line cancels in A, B, B, A.
    let mean = |values: &[f64]| values.iter().sum::<f64>() / values.len() as f64;
    blocks
        .values()
        .filter(|[a, b]| !a.is_empty() && !b.is_empty())
        .map(|[a, b]| (mean(a), mean(b)))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::statistics::Finding;
    use super::*;

    /// Runs of `blocks` blocks in which the machine gets slower all the time, and B takes `factor`
    /// times what A takes.
    fn drifting(blocks: usize, factor: f64) -> Vec<Run> {
        let mut runs = Vec::new();
        for n in 0..blocks * 4 {
            let side = BLOCK[n % 4];
            let base = 1000.0 * (1.0 + n as f64 * 0.05);
            let value = if side == Side::A { base } else { base * factor };
            let values = BTreeMap::from([("broker.cpu_per_message".to_owned(), value)]);
            runs.push(Run { block: n / 4, side, values });
        }
        runs
    }

    #[test]
    fn a_slow_drift_does_not_favour_a_side() {
        let line = &lines(&drifting(8, 1.0), 3)[0];
        assert_eq!(line.finding, Finding::NoDifferenceShown, "{line:?}");
        assert!((line.ratio.median - 1.0).abs() < 0.01, "{line:?}");
    }

    #[test]
    fn a_difference_is_told_from_the_drift() {
        let line = &lines(&drifting(8, 0.9), 3)[0];
        assert_eq!(line.finding, Finding::BIsLess);
        assert!((line.ratio.median - 0.9).abs() < 0.01, "{line:?}");
    }

    #[test]
    fn what_one_side_did_not_measure_is_not_compared() {
        let mut runs = drifting(6, 1.0);
        runs.iter_mut().filter(|r| r.side == Side::B).for_each(|r| r.values.clear());
        assert!(lines(&runs, 1).is_empty());
    }
}
