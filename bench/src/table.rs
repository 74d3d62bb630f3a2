//! Medians with their spread, and tables for people.

use std::fmt::Write as _;

use serde::Serialize;

/// A figure of several rounds.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub(crate) struct Figure {
    pub(crate) median: f64,
    pub(crate) min: f64,
    pub(crate) max: f64,
}

impl Figure {
    pub(crate) fn of(values: &[f64]) -> Self {
        let fold = |f: fn(f64, f64) -> f64| values.iter().copied().reduce(f).unwrap_or(f64::NAN);
        Self { median: median(values), min: fold(f64::min), max: fold(f64::max) }
    }

    /// `"45.1 (43.9–47.0)"`: median, least and most.
    pub(crate) fn cell(&self, decimals: usize) -> String {
        let Self { median, min, max } = self;
        format!("{median:.decimals$} ({min:.decimals$}–{max:.decimals$})")
    }
}

/// The median; NaN of nothing.
pub(crate) fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    match sorted.len() {
        0 => f64::NAN,
        n if n % 2 == 1 => sorted[n / 2],
        n => f64::midpoint(sorted[n / 2 - 1], sorted[n / 2]),
    }
}

/// The order of the contenders in a round: A B, then B A, so that drift hits both alike.
pub(crate) fn order(contenders: usize, round: usize) -> Vec<usize> {
    if round.is_multiple_of(2) {
        (0..contenders).collect()
    } else {
        (0..contenders).rev().collect()
    }
}

/// Columns as wide as their widest cell; the first to the left, the others to the right.
pub(crate) fn render(rows: &[Vec<String>]) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |c: usize| {
        rows.iter().filter_map(|r| r.get(c)).map(|s| s.chars().count()).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let mut out = String::new();
    for row in rows {
        for (c, cell) in row.iter().enumerate() {
            let width = widths[c];
            if c == 0 {
                write!(out, "{cell:<width$}").expect("a String takes any text");
            } else {
                write!(out, "  {cell:>width$}").expect("a String takes any text");
            }
        }
        out.truncate(out.trim_end().len());
        out.push('\n');
    }
    out
}

/// A target beside a value: `"≤ 256 held"`, `"≤ 256 MISSED"`.
pub(crate) fn verdict(value: f64, at_most: f64) -> String {
    let word = if value <= at_most { "held" } else { "MISSED" };
    format!("≤ {at_most} {word}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_of_an_even_count_lies_between() {
        assert_eq!(median(&[4.0, 1.0, 3.0, 2.0]), 2.5);
        assert_eq!(median(&[3.0, 1.0, 2.0]), 2.0);
        assert!(median(&[]).is_nan());
    }

    #[test]
    fn a_figure_shows_what_its_rounds_lie_between() {
        let figure = Figure::of(&[40.0, 10.0, 20.0]);
        assert_eq!(figure, Figure { median: 20.0, min: 10.0, max: 40.0 });
        assert_eq!(figure.cell(1), "20.0 (10.0–40.0)");
    }

    #[test]
    fn rounds_interleave_a_b_b_a() {
        assert_eq!([order(2, 0), order(2, 1)].concat(), [0, 1, 1, 0]);
    }

    #[test]
    fn a_missed_target_says_so() {
        assert_eq!(verdict(257.0, 256.0), "≤ 256 MISSED");
        assert_eq!(verdict(256.0, 256.0), "≤ 256 held");
    }
}
