//! What paired measurements say about a ratio.
//!
//! One block gives one ratio B/A for a metric. The ratios of all blocks give a median and an
//! interval, both of the logarithms, so that A against B and B against A say the same. The interval
//! is the one that belongs to the sign test: between two of the sorted ratios, chosen so that the
//! true median lies outside at most once in twenty. It is exact for any distribution; a bootstrap
//! of a handful of pairs is not, and finds differences between a broker and itself.

use std::fmt;

/// How often at most the true median may lie outside of the interval.
const RISK: f64 = 0.05;
/// Fewer pairs give no interval: all of five lie on one side of the median by chance once in 16.
pub const PAIRS_MIN: usize = 6;

/// The result for one metric.
#[derive(Clone, Copy, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Ratio {
    /// Blocks that measured both.
    pub pairs: usize,
    /// Median of B/A.
    pub median: f64,
    /// 95 % interval of it; none with fewer than [`PAIRS_MIN`] pairs.
    pub interval: Option<(f64, f64)>,
    /// Two-sided p-value of the exact sign test: how often chance alone gives a split so uneven.
    pub sign_p: f64,
}

/// What a ratio lets one say.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Finding {
    /// The interval lies above 1.
    BIsMore,
    /// The interval lies below 1.
    BIsLess,
    /// The interval holds 1.
    NoDifferenceShown,
    /// Too few pairs for an interval.
    TooFewPairs,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::BIsMore => "B is more",
            Self::BIsLess => "B is less",
            Self::NoDifferenceShown => "no difference shown",
            Self::TooFewPairs => "too few pairs",
        })
    }
}

impl Ratio {
    /// Of pairs `(a, b)`; those with a value that is not above 0 are left out. `None` when none is
    /// left.
    #[must_use]
    pub fn of(pairs: &[(f64, f64)]) -> Option<Self> {
        let good = |v: f64| v.is_finite() && v > 0.0;
        let mut logs: Vec<f64> = pairs
            .iter()
            .filter(|&&(a, b)| good(a) && good(b))
            .map(|&(a, b)| (b / a).ln())
            .collect();
        if logs.is_empty() {
            return None;
        }
        let sign_p = sign_test(&logs);
        let median = median(&mut logs);
        let interval = interval(&logs);
        Some(Self {
            pairs: logs.len(),
            median: median.exp(),
            interval: interval.map(|(low, high)| (low.exp(), high.exp())),
            sign_p,
        })
    }

    /// What it lets one say.
    #[must_use]
    pub fn finding(&self) -> Finding {
        match self.interval {
            None => Finding::TooFewPairs,
            Some((low, _)) if low > 1.0 => Finding::BIsMore,
            Some((_, high)) if high < 1.0 => Finding::BIsLess,
            Some(_) => Finding::NoDifferenceShown,
        }
    }
}

/// The median; the slice is sorted by it. 0 of nothing.
pub fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    let n = values.len();
    match n {
        0 => 0.0,
        _ if n % 2 == 1 => values[n / 2],
        _ => f64::midpoint(values[n / 2 - 1], values[n / 2]),
    }
}

/// The interval for the median of sorted values: as many of them are cut off on each side as may be.
fn interval(sorted: &[f64]) -> Option<(f64, f64)> {
    let n = sorted.len();
    if n < PAIRS_MIN {
        return None;
    }
    // Cutting `cut` values off on each side is wrong as often as `cut` or fewer of `n` fall on one
    // side, which is the tail of the sign test.
    let cut = (0..n / 2).rev().find(|&cut| 2.0 * tail(n, cut) <= RISK)?;
    Some((sorted[cut], sorted[n - 1 - cut]))
}

/// Exact two-sided sign test against a median of 0; ties are left out.
fn sign_test(values: &[f64]) -> f64 {
    let above = values.iter().filter(|&&v| v > 0.0).count();
    let below = values.iter().filter(|&&v| v < 0.0).count();
    if above + below == 0 {
        return 1.0;
    }
    (2.0 * tail(above + below, above.min(below))).min(1.0)
}

/// How often `most` or fewer of `n` fair coins show heads.
fn tail(n: usize, most: usize) -> f64 {
    // By logarithms, since n may be large.
    let mut log_choose = 0.0_f64;
    let mut sum = 0.0;
    for k in 0..=most {
        if k > 0 {
            log_choose += ((n - k + 1) as f64).ln() - (k as f64).ln();
        }
        sum += (log_choose - n as f64 * std::f64::consts::LN_2).exp();
    }
    sum
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::template::mix;

    /// Pairs whose ratio is `ratio` with noise of ± `noise`.
    fn pairs(n: usize, ratio: f64, noise: f64, seed: u64) -> Vec<(f64, f64)> {
        let mut state = seed << 32;
        let mut shake = || {
            state += 1;
            1.0 + noise * ((mix(state) % 2001) as f64 / 1000.0 - 1.0)
        };
        (0..n).map(|_| (100.0 * shake(), 100.0 * ratio * shake())).collect()
    }

    #[test]
    fn a_true_difference_is_found_and_the_interval_holds_it_as_often_as_it_says() {
        let mut outside = 0;
        for seed in 1..=400 {
            let ratio = Ratio::of(&pairs(20, 1.25, 0.05, seed)).unwrap();
            assert_eq!(ratio.finding(), Finding::BIsMore);
            assert!(ratio.sign_p < 1e-5);
            let (low, high) = ratio.interval.unwrap();
            outside += u32::from(!(low..=high).contains(&1.25));
        }
        // Of twenty pairs, 4.1 %.
        assert!((4..=30).contains(&outside), "{outside} of 400");
    }

    #[test]
    fn equal_things_show_no_difference() {
        // A 95 % interval misses at most one time in twenty, of six pairs one in 32.
        let shown = (1..=400)
            .filter(|&seed| {
                let ratio = Ratio::of(&pairs(6 + seed as usize % 9, 1.0, 0.1, seed)).unwrap();
                ratio.finding() != Finding::NoDifferenceShown
            })
            .count();
        assert!((1..=26).contains(&shown), "{shown} of 400");
    }

    #[test]
    fn swapping_the_two_gives_the_inverse() {
        let there = pairs(15, 0.8, 0.03, 3);
        let back: Vec<_> = there.iter().map(|&(a, b)| (b, a)).collect();
        let (r, s) = (Ratio::of(&there).unwrap(), Ratio::of(&back).unwrap());
        assert!((r.median * s.median - 1.0).abs() < 1e-9);
        assert_eq!((r.finding(), s.finding()), (Finding::BIsLess, Finding::BIsMore));
        assert!((r.sign_p - s.sign_p).abs() < 1e-12);
    }

    #[test]
    fn the_interval_cuts_off_what_the_sign_test_allows() {
        let sorted: Vec<f64> = (1..=20).map(f64::from).collect();
        // Tables of the sign test: 5 of 20 on each side, 0 of 6, none at all of 5.
        assert_eq!(interval(&sorted), Some((6.0, 15.0)));
        assert_eq!(interval(&sorted[..6]), Some((1.0, 6.0)));
        assert_eq!(interval(&sorted[..5]), None);
    }

    #[test]
    fn few_pairs_give_a_median_without_an_interval() {
        let ratio = Ratio::of(&[(1.0, 2.0), (1.0, 3.0), (0.0, 1.0), (1.0, f64::NAN)]).unwrap();
        assert_eq!((ratio.pairs, ratio.interval), (2, None));
        assert_eq!(ratio.finding(), Finding::TooFewPairs);
        assert!((ratio.median - 6f64.sqrt()).abs() < 1e-9);
        assert_eq!(Ratio::of(&[]), None);
    }

    #[test]
    fn the_sign_test_counts_the_ways_that_chance_has() {
        assert!((sign_test(&[1.0; 5]) - 2.0 / 32.0).abs() < 1e-12);
        assert!((sign_test(&[1.0, 1.0, 1.0, -1.0]) - 10.0 / 16.0).abs() < 1e-12);
        assert_eq!(sign_test(&[1.0, -1.0]), 1.0);
        assert_eq!(sign_test(&[0.0]), 1.0);
        assert!(sign_test(&[1.0; 2000]) < 1e-300);
    }

    #[test]
    fn the_median_of_an_even_count_lies_between() {
        assert_eq!(median(&mut [4.0, 1.0, 3.0, 2.0]), 2.5);
        assert_eq!(median(&mut [3.0, 1.0, 2.0]), 2.0);
    }
}
