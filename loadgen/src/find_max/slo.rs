//! An objective: claims joined by commas, with short names for what one usually asks of a run.

use std::fmt;
use std::str::FromStr;

use crate::assertion::{Assertion, Verdict};
use crate::metric::Metrics;

/// Short names and what they mean; the empty prefix is the latency that the load is about.
const SHORT: &[&str] = &["min", "mean", "p50", "p90", "p99", "p99.9", "p99.99", "max"];

/// `p99<5ms,loss==0`: all of it must hold.
///
/// `p50`, `p90`, `p99`, `p99.9`, `p99.99`, `mean`, `min` and `max` are the latency of deliveries, or
/// of acknowledgements where nobody subscribes; any other name is that of a metric: `loss`,
/// `errors`, `broker.cpu_ns_per_message`.
#[derive(Clone, Debug, PartialEq)]
pub struct Slo {
    terms: Vec<Assertion>,
}

impl FromStr for Slo {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let terms: Vec<Assertion> = text
            .split(',')
            .map(str::trim)
            .filter(|t| !t.is_empty())
            .map(str::parse)
            .collect::<Result<_, _>>()?;
        if terms.is_empty() {
            return Err(
                "an objective is a claim like `p99<5ms`, or several joined by commas".to_owned()
            );
        }
        Ok(Self { terms })
    }
}

impl fmt::Display for Slo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, term) in self.terms.iter().enumerate() {
            write!(f, "{}{term}", if at > 0 { ", " } else { "" })?;
        }
        Ok(())
    }
}

impl Slo {
    /// The claims with full names, where the load's latency is called `latency`.
    #[must_use]
    pub fn claims(&self, latency: &str) -> Vec<Assertion> {
        let full = |term: &Assertion| {
            let mut term = term.clone();
            if SHORT.contains(&term.metric.as_str()) {
                term.metric = format!("{latency}.{}", term.metric);
            }
            term
        };
        self.terms.iter().map(full).collect()
    }

    /// Judges all claims.
    #[must_use]
    pub fn judge(&self, latency: &str, metrics: &Metrics) -> Vec<Verdict> {
        self.claims(latency).iter().map(|claim| claim.judge(metrics)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::quantity::Dimension;

    #[test]
    fn all_claims_of_an_objective_are_judged_by_their_short_names() {
        let slo: Slo = "p99<5ms, p99.9 < 20ms,loss==0".parse().unwrap();
        let mut metrics = Metrics::default();
        metrics.put("delivery.p99", 4e6, Dimension::Time);
        metrics.put("delivery.p99.9", 30e6, Dimension::Time);
        metrics.put("loss", 0.0, Dimension::Share);
        let held: Vec<bool> = slo.judge("delivery", &metrics).iter().map(|v| v.held).collect();
        assert_eq!(held, [true, false, true]);
        assert_eq!(slo.to_string(), "p99<5ms, p99.9 < 20ms, loss==0");
    }

    #[test]
    fn what_is_no_objective_is_refused() {
        for text in ["", ",", "p99", "p99<fast", "p99=5ms"] {
            assert!(text.parse::<Slo>().is_err(), "{text}");
        }
    }
}
