//! Claims about a run, as text: `delivery.p99 < 5ms`, `lost == 0`, `stage.storm.seconds < 120`.
//!
//! The names on the left are those of [`crate::metric`]; the numbers on the right are those of
//! [`crate::quantity`].

use std::fmt;
use std::str::FromStr;

use crate::metric::{Metrics, Value};
use crate::quantity::{Quantity, show};

/// One claim.
#[derive(Clone, Debug, PartialEq)]
pub struct Assertion {
    /// The metric.
    pub metric: String,
    /// The relation.
    pub op: Op,
    /// What it is compared with.
    bound: Quantity,
    /// As it was written.
    text: String,
}

/// A relation between numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Op {
    /// `<`
    Less,
    /// `<=`
    LessOrEqual,
    /// `>`
    Greater,
    /// `>=`
    GreaterOrEqual,
    /// `==`
    Equal,
    /// `!=`
    NotEqual,
}

/// What became of a claim.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Verdict {
    /// The claim as it was written.
    pub assertion: String,
    /// Whether it held. One without data did not.
    pub held: bool,
    /// What was measured, for people; why there is nothing, where there is nothing.
    pub measured: String,
}

impl Op {
    /// In the order in which they are looked for: `<=` before `<`.
    const ALL: [(&'static str, Self); 6] = [
        ("<=", Self::LessOrEqual),
        (">=", Self::GreaterOrEqual),
        ("==", Self::Equal),
        ("!=", Self::NotEqual),
        ("<", Self::Less),
        (">", Self::Greater),
    ];

    fn holds(self, left: f64, right: f64) -> bool {
        match self {
            Self::Less => left < right,
            Self::LessOrEqual => left <= right,
            Self::Greater => left > right,
            Self::GreaterOrEqual => left >= right,
            Self::Equal => left == right,
            Self::NotEqual => left != right,
        }
    }
}

impl FromStr for Assertion {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let found = text.find(['<', '>', '=', '!']).and_then(|at| {
            let op = Op::ALL.iter().find(|(sign, _)| text[at..].starts_with(sign))?;
            Some((at, op))
        });
        let Some((at, &(sign, op))) = found else {
            return Err(format!("`{text}` is not a claim like `delivery.p99 < 5ms`"));
        };
        let metric = text[..at].trim();
        if metric.is_empty() {
            return Err(format!("`{text}` names nothing before `{sign}`"));
        }
        let bound =
            Quantity::parse(&text[at + sign.len()..]).map_err(|e| format!("`{text}`: {e}"))?;
        Ok(Self { metric: metric.to_owned(), op, bound, text: text.trim().to_owned() })
    }
}

impl fmt::Display for Assertion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl Assertion {
    /// Looks whether the claim can be judged where these metrics exist, before the run that makes
    /// them: their values do not matter.
    ///
    /// # Errors
    /// A sentence for the user: no such metric, with the nearest there is, or a unit that does not
    /// suit it.
    pub fn check(&self, metrics: &Metrics) -> Result<(), String> {
        let Some(value) = metrics.get(&self.metric) else {
            let nearest = metrics.nearest(&self.metric);
            return Err(format!(
                "`{}`: there is no metric {}; nearest: {nearest}",
                self.text, self.metric
            ));
        };
        self.bound.of(value.dimension).map_err(|e| format!("`{}`: {e}", self.text))?;
        Ok(())
    }

    /// Judges the claim.
    #[must_use]
    pub fn judge(&self, metrics: &Metrics) -> Verdict {
        let verdict = |held, measured| Verdict { assertion: self.text.clone(), held, measured };
        let Some(Value { value, dimension }) = metrics.get(&self.metric) else {
            let nearest = metrics.nearest(&self.metric);
            return verdict(false, format!("not measured in this run; nearest: {nearest}"));
        };
        match self.bound.of(dimension) {
            Ok(bound) => verdict(self.op.holds(value, bound), show(value, dimension)),
            Err(e) => verdict(false, e),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::quantity::Dimension;

    fn metrics() -> Metrics {
        let mut metrics = Metrics::default();
        metrics.put("delivery.p99", 4_000_000.0, Dimension::Time);
        metrics.put("lost", 0.0, Dimension::Count);
        metrics.put("stage.storm.seconds", 130.0, Dimension::Seconds);
        metrics
    }

    fn held(text: &str) -> bool {
        text.parse::<Assertion>().unwrap().judge(&metrics()).held
    }

    #[test]
    fn claims_hold_as_their_relation_says() {
        assert!(held("delivery.p99 < 5ms") && !held("delivery.p99<4ms"));
        assert!(held("delivery.p99 <= 4ms") && held("delivery.p99 >= 4ms"));
        assert!(held("lost == 0") && !held("lost != 0") && !held("lost>0"));
        assert!(!held("stage.storm.seconds < 120"));
    }

    #[test]
    fn a_claim_about_something_that_was_not_measured_does_not_hold() {
        let verdict = "delivery.p98 < 5s".parse::<Assertion>().unwrap().judge(&metrics());
        assert!(!verdict.held && verdict.measured.contains("nearest: delivery.p99"));
    }

    #[test]
    fn what_cannot_be_judged_is_found_before_the_run() {
        let check = |text: &str| text.parse::<Assertion>().unwrap().check(&metrics());
        assert_eq!(check("lost == 0"), Ok(()));
        assert!(check("delivery.p99 < 5").unwrap_err().contains("give ns"));
        assert!(check("lots == 0").unwrap_err().contains("nearest: lost"));
    }

    #[test]
    fn text_that_is_no_claim_is_refused() {
        for text in ["", "lost", "< 5", "lost = 0", "lost == many"] {
            assert!(text.parse::<Assertion>().is_err(), "{text}");
        }
    }
}
