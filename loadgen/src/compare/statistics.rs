//! What paired measurements say about a ratio.
//!
//! One block gives one ratio B/A for a metric. The ratios of all blocks give a median and an
//! interval: a percentile bootstrap of the median of the logarithms, so that A against B and B
//! against A say the same.

use std::fmt;

/// Draws of the bootstrap: the ends of a 95 % interval then move by less than a tenth of its width
/// from seed to seed.
const DRAWS: usize = 4_000;
/// Fewer pairs give no interval: with five, all five on one side of 1 happen by chance once in 16.
pub const PAIRS_MIN: usize = 5;

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
    pub fn of(pairs: &[(f64, f64)], seed: u64) -> Option<Self> {
        let good = |v: f64| v.is_finite() && v > 0.0;
        let logs: Vec<f64> = pairs
            .iter()
            .filter(|&&(a, b)| good(a) && good(b))
            .map(|&(a, b)| (b / a).ln())
            .collect();
        if logs.is_empty() {
            return None;
        }
        let interval = (logs.len() >= PAIRS_MIN).then(|| bootstrap(&logs, seed));
        Some(Self {
            pairs: logs.len(),
            median: median(&mut logs.clone()).exp(),
            interval: interval.map(|(low, high)| (low.exp(), high.exp())),
            sign_p: sign_test(&logs),
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

/// 95 % percentile bootstrap of the median.
fn bootstrap(values: &[f64], seed: u64) -> (f64, f64) {
    let mut random = SplitMix(seed);
    let mut medians = Vec::with_capacity(DRAWS);
    let mut draw = vec![0.0; values.len()];
    for _ in 0..DRAWS {
        for slot in &mut draw {
            *slot = values[random.below(values.len())];
        }
        medians.push(median(&mut draw));
    }
    medians.sort_by(f64::total_cmp);
    let at = |share: f64| medians[((DRAWS - 1) as f64 * share).round() as usize];
    (at(0.025), at(0.975))
}

/// Exact two-sided sign test against a median of 0; ties are left out.
fn sign_test(values: &[f64]) -> f64 {
    let above = values.iter().filter(|&&v| v > 0.0).count();
    let below = values.iter().filter(|&&v| v < 0.0).count();
    let (n, fewer) = (above + below, above.min(below));
    if n == 0 {
        return 1.0;
    }
    // The sum of C(n, k) / 2^n up to the smaller side, by logarithms: n may be large.
    let mut log_choose = 0.0_f64;
    let mut tail = 0.0;
    for k in 0..=fewer {
        if k > 0 {
            log_choose += ((n - k + 1) as f64).ln() - (k as f64).ln();
        }
        tail += (log_choose - n as f64 * std::f64::consts::LN_2).exp();
    }
    (2.0 * tail).min(1.0)
}

/// SplitMix64: small, seeded, good enough to draw with.
#[derive(Debug)]
pub(crate) struct SplitMix(pub(crate) u64);

impl SplitMix {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// A number below `n`; the bias of the multiplication is below 2^-32 for any count of pairs.
    pub(crate) fn below(&mut self, n: usize) -> usize {
        ((u128::from(self.next()) * n as u128) >> 64) as usize
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Pairs whose ratio is `ratio` with noise of ± `noise`.
    fn pairs(n: usize, ratio: f64, noise: f64, seed: u64) -> Vec<(f64, f64)> {
        let mut random = SplitMix(seed);
        let mut shake = || 1.0 + noise * (random.below(2001) as f64 / 1000.0 - 1.0);
        (0..n).map(|_| (100.0 * shake(), 100.0 * ratio * shake())).collect()
    }

    #[test]
    fn a_true_difference_is_found_with_its_size() {
        let ratio = Ratio::of(&pairs(20, 1.25, 0.05, 1), 7).unwrap();
        assert_eq!(ratio.finding(), Finding::BIsMore);
        let (low, high) = ratio.interval.unwrap();
        assert!(low < 1.25 && 1.25 < high && high - low < 0.1, "{ratio:?}");
        assert!(ratio.sign_p < 1e-5);
    }

    #[test]
    fn equal_things_show_no_difference() {
        // A 95 % interval misses one time in twenty: of forty series, most must hold 1.
        let shown = (0..40)
            .filter(|&seed| {
                let ratio = Ratio::of(&pairs(12, 1.0, 0.1, seed), seed).unwrap();
                ratio.finding() != Finding::NoDifferenceShown
            })
            .count();
        assert!(shown <= 5, "{shown} of 40");
    }

    #[test]
    fn swapping_the_two_gives_the_inverse() {
        let there = pairs(15, 0.8, 0.03, 3);
        let back: Vec<_> = there.iter().map(|&(a, b)| (b, a)).collect();
        let (r, s) = (Ratio::of(&there, 9).unwrap(), Ratio::of(&back, 9).unwrap());
        assert!((r.median * s.median - 1.0).abs() < 1e-9);
        assert_eq!((r.finding(), s.finding()), (Finding::BIsLess, Finding::BIsMore));
        assert!((r.sign_p - s.sign_p).abs() < 1e-12);
    }

    #[test]
    fn the_same_seed_gives_the_same_interval() {
        let data = pairs(10, 1.1, 0.2, 4);
        assert_eq!(Ratio::of(&data, 5), Ratio::of(&data, 5));
    }

    #[test]
    fn few_pairs_give_a_median_without_an_interval() {
        let ratio = Ratio::of(&[(1.0, 2.0), (1.0, 3.0), (0.0, 1.0), (1.0, f64::NAN)], 1).unwrap();
        assert_eq!((ratio.pairs, ratio.interval), (2, None));
        assert_eq!(ratio.finding(), Finding::TooFewPairs);
        assert!((ratio.median - 6f64.sqrt()).abs() < 1e-9);
        assert_eq!(Ratio::of(&[], 1), None);
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
