//! The text format in which Prometheus scrapes metrics (version 0.0.4).

use std::collections::BTreeSet;
use std::fmt::{Display, Write};

/// `Content-Type` of the format.
pub(crate) const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// What a metric does over time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Only grows; its name ends in `_total`.
    Counter,
    /// Goes up and down.
    Gauge,
    /// Counts values by upper bounds.
    Histogram,
}

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Histogram => "histogram",
        }
    }
}

/// Label names and values.
pub(crate) type Labels<'a> = &'a [(&'a str, &'a str)];

/// An exposition while it is written. Each metric is begun once, with all its samples behind it, as the format
/// demands.
#[derive(Debug, Default)]
pub(crate) struct Text {
    out: String,
    begun: BTreeSet<String>,
}

impl Text {
    /// Begins a metric.
    pub(crate) fn metric(&mut self, name: &str, kind: Kind, help: &str) -> Metric<'_> {
        debug_assert!(is_name(name), "{name}");
        debug_assert_eq!(name.ends_with("_total"), kind == Kind::Counter, "{name}");
        let new = self.begun.insert(name.to_owned());
        debug_assert!(new, "{name} was begun before");
        self.out.push_str("# HELP ");
        self.out.push_str(name);
        self.out.push(' ');
        escape(&mut self.out, help, false);
        let _ = writeln!(self.out, "\n# TYPE {name} {}", kind.name());
        Metric { name: name.to_owned(), out: &mut self.out }
    }

    /// The whole.
    pub(crate) fn finish(self) -> String {
        self.out
    }
}

/// A metric whose samples are written.
#[derive(Debug)]
pub(crate) struct Metric<'a> {
    name: String,
    out: &'a mut String,
}

impl Metric<'_> {
    /// One value.
    pub(crate) fn sample(&mut self, labels: Labels<'_>, value: impl Display) -> &mut Self {
        self.line("", labels, None, value)
    }

    /// One histogram: how many values were at most each bound, their sum and number. Bounds rise.
    pub(crate) fn histogram(
        &mut self,
        labels: Labels<'_>,
        buckets: impl IntoIterator<Item = (f64, u64)>,
        sum: f64,
        count: u64,
    ) {
        for (bound, at_most) in buckets {
            self.line("_bucket", labels, Some(&bound.to_string()), at_most);
        }
        self.line("_bucket", labels, Some("+Inf"), count);
        self.line("_sum", labels, None, sum);
        self.line("_count", labels, None, count);
    }

    fn line(
        &mut self,
        suffix: &str,
        labels: Labels<'_>,
        le: Option<&str>,
        value: impl Display,
    ) -> &mut Self {
        self.out.push_str(&self.name);
        self.out.push_str(suffix);
        let labels = labels.iter().copied().chain(le.map(|le| ("le", le)));
        let mut open = '{';
        for (name, text) in labels {
            debug_assert!(is_name(name) && !name.contains(':'), "{name}");
            self.out.push(open);
            self.out.push_str(name);
            self.out.push_str("=\"");
            escape(self.out, text, true);
            self.out.push('"');
            open = ',';
        }
        if open == ',' {
            self.out.push('}');
        }
        let _ = writeln!(self.out, " {value}");
        self
    }
}

fn escape(out: &mut String, text: &str, quoted: bool) {
    for c in text.chars() {
        match c {
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '"' if quoted => out.push_str("\\\""),
            c => out.push(c),
        }
    }
}

fn is_name(name: &str) -> bool {
    let inside = |c: char| c.is_ascii_alphanumeric() || c == '_';
    name.chars().all(inside) && !name.is_empty() && !name.starts_with(|c: char| c.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_metric_is_its_help_its_type_and_its_samples() {
        let mut text = Text::default();
        text.metric("a_total", Kind::Counter, "Counts \\ and\nmore \"a\".")
            .sample(&[], 3_u64)
            .sample(&[("shard", "0"), ("name", "a\"b\\c\nd")], 0.25);
        let expected = "# HELP a_total Counts \\\\ and\\nmore \"a\".\n# TYPE a_total counter\n\
                        a_total 3\na_total{shard=\"0\",name=\"a\\\"b\\\\c\\nd\"} 0.25\n";
        assert_eq!(text.finish(), expected);
    }

    #[test]
    fn a_histogram_ends_with_all_its_values() {
        let mut text = Text::default();
        let buckets = [(0.000_001, 1), (60.0, 2)];
        text.metric("a_seconds", Kind::Histogram, "A.").histogram(&[("s", "x")], buckets, 61.5, 3);
        let lines: Vec<String> = text.finish().lines().skip(2).map(str::to_owned).collect();
        let expected = [
            "a_seconds_bucket{s=\"x\",le=\"0.000001\"} 1",
            "a_seconds_bucket{s=\"x\",le=\"60\"} 2",
            "a_seconds_bucket{s=\"x\",le=\"+Inf\"} 3",
            "a_seconds_sum{s=\"x\"} 61.5",
            "a_seconds_count{s=\"x\"} 3",
        ];
        assert_eq!(lines, expected);
    }

    #[test]
    #[should_panic(expected = "was begun before")]
    fn a_metric_is_begun_once() {
        let mut text = Text::default();
        text.metric("a", Kind::Gauge, "A.");
        text.metric("a", Kind::Gauge, "A.");
    }
}
