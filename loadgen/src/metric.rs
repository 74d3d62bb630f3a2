//! The numbers of a report by name, for assertions, objectives and comparisons.

use std::collections::BTreeMap;

use crate::quantity::Dimension;

/// A number and what it counts.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Value {
    /// In the base unit of its dimension.
    pub value: f64,
    /// What it counts.
    pub dimension: Dimension,
}

/// Numbers by name. Invariant: none is NaN.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Metrics {
    values: BTreeMap<String, Value>,
}

impl Metrics {
    /// Adds a number, unless it is NaN: then there is nothing to say.
    pub fn put(&mut self, name: impl Into<String>, value: f64, dimension: Dimension) {
        if !value.is_nan() {
            self.values.insert(name.into(), Value { value, dimension });
        }
    }

    /// The number of this name.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<Value> {
        self.values.get(name).copied()
    }

    /// The name that is closest to this one; empty when there are none.
    #[must_use]
    pub fn nearest(&self, name: &str) -> &str {
        nearest(name, self.values.keys().map(String::as_str)).unwrap_or("")
    }

    /// All, by name.
    pub fn iter(&self) -> impl Iterator<Item = (&str, Value)> {
        self.values.iter().map(|(name, value)| (name.as_str(), *value))
    }
}

/// The candidate that is closest to `word`: edit distance finds the slip of a finger, the common
/// start finds the half-remembered name.
pub(crate) fn nearest<'a>(word: &str, candidates: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let closeness = |candidate: &str| {
        strsim::normalized_damerau_levenshtein(word, candidate)
            + 0.5 * strsim::jaro_winkler(word, candidate)
    };
    candidates.max_by(|a, b| closeness(a).total_cmp(&closeness(b)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_that_is_none_is_not_kept() {
        let mut metrics = Metrics::default();
        metrics.put("rate", f64::NAN, Dimension::Rate);
        assert_eq!(metrics.get("rate"), None);
    }

    #[test]
    fn the_nearest_name_is_the_one_with_a_slip_of_a_finger() {
        let names = ["keep_alive_s", "client_id", "count"];
        assert_eq!(nearest("keepalive_s", names.into_iter()), Some("keep_alive_s"));
        assert_eq!(nearest("cuont", names.into_iter()), Some("count"));
    }
}
