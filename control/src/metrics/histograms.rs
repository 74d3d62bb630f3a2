//! Histograms with fixed bounds, from those with many.

use hdrhistogram::Histogram;

use super::seconds;
use crate::text::{Labels, Metric};

/// Upper bounds of times, ns.
const TIMES_NS: [u64; 22] = [
    1_000,
    5_000,
    10_000,
    20_000,
    50_000,
    100_000,
    200_000,
    500_000,
    1_000_000,
    2_000_000,
    5_000_000,
    10_000_000,
    20_000_000,
    50_000_000,
    100_000_000,
    200_000_000,
    500_000_000,
    1_000_000_000,
    2_000_000_000,
    5_000_000_000,
    10_000_000_000,
    60_000_000_000,
];
/// Upper bounds of quantities of a turn, which has at most 1,024 completions.
const COUNTS: [u64; 12] = [0, 1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1_024];

/// Writes times in ns as seconds.
pub(super) fn write_ns(metric: &mut Metric<'_>, labels: Labels<'_>, values: &Histogram<u64>) {
    let (at_most, sum) = cumulated(values, &TIMES_NS);
    let buckets = TIMES_NS.iter().map(|ns| seconds(*ns)).zip(at_most);
    metric.histogram(labels, buckets, sum / 1e9, values.len());
}

/// Writes quantities.
pub(super) fn write_counts(metric: &mut Metric<'_>, labels: Labels<'_>, values: &Histogram<u64>) {
    let (at_most, sum) = cumulated(values, &COUNTS);
    let buckets = COUNTS.iter().map(|n| *n as f64).zip(at_most);
    metric.histogram(labels, buckets, sum, values.len());
}

/// How many values are at most each bound, and the sum of all. What the histogram does not tell from a bound counts
/// as at most it; the sum is within a percent, and never falls from one look to the next.
fn cumulated(values: &Histogram<u64>, bounds: &[u64]) -> (Vec<u64>, f64) {
    let mut at_most = vec![0; bounds.len()];
    let mut sum = 0.0;
    for recorded in values.iter_recorded() {
        let (value, count) = (recorded.value_iterated_to(), recorded.count_at_value());
        sum += values.median_equivalent(value) as f64 * count as f64;
        let first = bounds.partition_point(|bound| *bound < values.lowest_equivalent(value));
        if let Some(bucket) = at_most.get_mut(first) {
            *bucket += count;
        }
    }
    let mut so_far = 0;
    for bucket in &mut at_most {
        so_far += *bucket;
        *bucket = so_far;
    }
    (at_most, sum)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_at_a_bound_counts_as_at_most_it() {
        let mut values = Histogram::new_with_bounds(16, 3_600_000_000_000, 2).expect("bounds");
        for bound in TIMES_NS {
            values.record(bound).expect("in range");
        }
        let (at_most, sum) = cumulated(&values, &TIMES_NS);
        assert_eq!(at_most, (1..=TIMES_NS.len() as u64).collect::<Vec<_>>());
        let exact = TIMES_NS.iter().sum::<u64>() as f64;
        assert!((sum - exact).abs() < exact / 100.0, "{sum} {exact}");
    }

    #[test]
    fn what_is_above_all_bounds_is_in_the_sum_alone() {
        let mut values = Histogram::new_with_bounds(1, 1 << 32, 2).expect("bounds");
        values.record_n(2_000, 3).expect("in range");
        values.record_n(0, 2).expect("in range");
        let (at_most, sum) = cumulated(&values, &COUNTS);
        assert_eq!(at_most, [2; 12]);
        assert!((sum - 6_000.0).abs() < 60.0, "{sum}");
    }
}
