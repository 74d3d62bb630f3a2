//! The numbers of a report by name, for assertions, objectives and comparisons.

use std::collections::BTreeMap;

use crate::cost::Sample;
use crate::plan::Plan;
use crate::quantity::Dimension;
use crate::report::{Latency, Mark, Report, StageReport, Summary, Traffic};
use crate::stamp::Account;
use crate::stats::Counters;

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

impl Metrics {
    /// The numbers of a report. A latency without a value, a broker without a pid and a share of
    /// nothing are left out.
    #[must_use]
    pub fn of(report: &Report) -> Self {
        let mut metrics = Self::default();
        metrics.put_counters("", &report.counters);
        metrics.put_account(report);
        metrics.put("connect.seconds", report.connect_s, Dimension::Seconds);
        let ready = report.counters.ready as f64;
        metrics.put("connect.per_s", ready / report.connect_s, Dimension::Rate);
        metrics.put_latencies("", &report.latencies);
        metrics.put_traffic(report);
        metrics.put_broker(report);
        for stage in &report.stages {
            metrics.put_stage(stage);
        }
        metrics
    }

    /// The numbers that a run of this plan can have: what an assertion may name. Their values mean
    /// nothing.
    #[must_use]
    pub fn expected(plan: &Plan) -> Self {
        let summary = Summary { count: 1, ..Summary::default() };
        let latency = Latency { corrected: summary, raw: Some(summary), ..Latency::default() };
        let kinds = ["connect", "subscribe", "ack", "delivery", "lag", "replay"];
        let latencies: BTreeMap<String, Latency> =
            kinds.iter().map(|kind| ((*kind).to_owned(), latency.clone())).collect();
        let (before, after) = (Sample::default(), Sample { at_ns: 1, ..Sample::default() });
        let stage = |stage: &crate::plan::StagePlan| StageReport {
            name: stage.name.clone(),
            seconds: 1.0,
            latencies: latencies.clone(),
            broker_before: Some(before.clone()),
            broker_after: Some(after.clone()),
            recovery_s: Some(1.0),
            ..StageReport::default()
        };
        let moments = [("start", &before), ("connected", &after), ("settled", &after)];
        Self::of(&Report {
            counters: Counters { ready: 1, ..Counters::default() },
            connect_s: 1.0,
            account: Some(Account::default()),
            traffic: Some(Traffic {
                seconds: 1.0,
                sent: 1,
                broker_cpu_ns: Some(1),
                ..Traffic::default()
            }),
            latencies: latencies.clone(),
            broker: moments.map(|(m, s)| Mark { moment: m.to_owned(), sample: s.clone() }).to_vec(),
            stages: plan.stages.iter().map(stage).collect(),
            ..Report::default()
        })
    }

    fn put_counters(&mut self, prefix: &str, counters: &Counters) {
        self.put_numbers(prefix, counters);
        let c = counters;
        let errors =
            c.failed + c.broken + c.protocol_errors + c.refused_messages + c.pings_unanswered;
        self.put(format!("{prefix}errors"), errors as f64, Dimension::Count);
        let most = c.attempts_needed.iter().rposition(|n| *n > 0).map_or(0, |n| n + 1);
        self.put(format!("{prefix}attempts_needed_max"), most as f64, Dimension::Count);
    }

    fn put_account(&mut self, report: &Report) {
        let Some(account) = &report.account else { return };
        self.put_numbers("", account);
        let all = (account.received + account.lost) as f64;
        let share = if all > 0.0 { account.lost as f64 / all } else { 0.0 };
        self.put("loss", share, Dimension::Share);
    }

    /// The fields that are numbers, under their own names.
    fn put_numbers(&mut self, prefix: &str, of: &impl serde::Serialize) {
        let Ok(serde_json::Value::Object(fields)) = serde_json::to_value(of) else { return };
        for (name, value) in fields {
            if let Some(value) = value.as_u64() {
                let dimension =
                    if name.ends_with("_bytes") { Dimension::Bytes } else { Dimension::Count };
                self.put(format!("{prefix}{name}"), value as f64, dimension);
            }
        }
    }

    fn put_latencies(&mut self, prefix: &str, latencies: &BTreeMap<String, Latency>) {
        for (name, latency) in latencies.iter().filter(|(_, l)| l.corrected.count > 0) {
            self.put_summary(&format!("{prefix}{name}"), &latency.corrected);
            if let Some(raw) = &latency.raw {
                self.put_summary(&format!("{prefix}{name}.raw"), raw);
            }
        }
    }

    fn put_summary(&mut self, name: &str, s: &Summary) {
        for (which, value) in [
            ("min", s.min as f64),
            ("mean", s.mean),
            ("p50", s.p50 as f64),
            ("p90", s.p90 as f64),
            ("p99", s.p99 as f64),
            ("p99.9", s.p999 as f64),
            ("p99.99", s.p9999 as f64),
            ("max", s.max as f64),
        ] {
            self.put(format!("{name}.{which}"), value, Dimension::Time);
        }
        self.put(format!("{name}.count"), s.count as f64, Dimension::Count);
    }

    fn put_traffic(&mut self, report: &Report) {
        let Some(t) = &report.traffic else { return };
        let rate = |n: u64| n as f64 / t.seconds;
        self.put("sent_per_s", rate(t.sent), Dimension::Rate);
        self.put("delivered_per_s", rate(t.delivered), Dimension::Rate);
        let served = if t.delivered > 0 { t.delivered } else { t.sent };
        self.put("throughput", rate(served), Dimension::Rate);
        let share = |ns: u64| ns as f64 / 1e9 / t.seconds;
        self.put("generator.cpu", share(t.generator_cpu_ns), Dimension::Share);
        let each = t.generator_cpu_ns as f64 / served as f64;
        self.put("generator.cpu_per_message", each, Dimension::Time);
        if let Some(ns) = t.broker_cpu_ns {
            self.put("broker.cpu", share(ns), Dimension::Share);
        }
        if let Some(ns) = t.broker_ns_per_message() {
            self.put("broker.cpu_per_message", ns, Dimension::Time);
        }
    }

    fn put_broker(&mut self, report: &Report) {
        let Some(start) = report.broker_at("start") else { return };
        let Some(full) = report.broker_at("settled").or(report.broker_at("connected")) else {
            return;
        };
        let clients = report.counters.ready.min(report.clients.max(1)) as f64;
        for (name, of) in [
            ("rss", (|s| s.rss) as fn(&Sample) -> u64),
            ("pss", |s| s.pss),
            ("uss", |s| s.uss),
            ("anonymous", |s| s.anonymous),
        ] {
            let each = (of(full) as f64 - of(start) as f64) / clients;
            self.put(format!("broker.{name}"), of(full) as f64, Dimension::Bytes);
            self.put(format!("broker.{name}_per_connection"), each, Dimension::Bytes);
            let most = report.broker.iter().map(|mark| of(&mark.sample)).max().unwrap_or(0);
            self.put(format!("broker.{name}_max"), most as f64, Dimension::Bytes);
        }
        if let Some(connected) = report.broker_at("connected") {
            let ns = connected.cpu_ns.saturating_sub(start.cpu_ns) as f64;
            self.put("broker.cpu_per_connection", ns / clients, Dimension::Time);
        }
        self.put("broker.threads", full.threads as f64, Dimension::Count);
        if let Some(n) = full.descriptors {
            self.put("broker.descriptors", n as f64, Dimension::Count);
        }
    }

    fn put_stage(&mut self, stage: &StageReport) {
        let prefix = format!("stage.{}.", stage.name);
        self.put_counters(&prefix, &stage.counters);
        self.put(format!("{prefix}seconds"), stage.seconds, Dimension::Seconds);
        for (name, count) in [
            ("ready_per_s", stage.counters.ready),
            ("sent_per_s", stage.counters.sent),
            ("delivered_per_s", stage.counters.delivered),
        ] {
            self.put(format!("{prefix}{name}"), count as f64 / stage.seconds, Dimension::Rate);
        }
        if let Some(seconds) = stage.recovery_s {
            self.put(format!("{prefix}recovery.seconds"), seconds, Dimension::Seconds);
        }
        self.put_latencies(&prefix, &stage.latencies);
        let (Some(before), Some(after)) = (&stage.broker_before, &stage.broker_after) else {
            return;
        };
        let wall = after.at_ns.saturating_sub(before.at_ns) as f64;
        let cpu = after.cpu_ns.saturating_sub(before.cpu_ns) as f64;
        self.put(format!("{prefix}broker.cpu"), cpu / wall, Dimension::Share);
        for (name, bytes) in
            [("rss", after.rss), ("pss", after.pss), ("anonymous", after.anonymous)]
        {
            self.put(format!("{prefix}broker.{name}"), bytes as f64, Dimension::Bytes);
        }
    }
}

/// The candidate that is closest to `word`: edit distance finds the slip of a finger, the common
/// start finds the half-remembered name.
pub(crate) fn nearest<'a>(
    word: &str,
    candidates: impl Iterator<Item = &'a str>,
) -> Option<&'a str> {
    let closeness = |candidate: &str| {
        strsim::normalized_damerau_levenshtein(word, candidate)
            + 0.5 * strsim::jaro_winkler(word, candidate)
    };
    candidates.max_by(|a, b| closeness(a).total_cmp(&closeness(b)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report() -> Report {
        let summary = Summary { count: 9, p99: 4_000_000, ..Summary::default() };
        let delivery = Latency { corrected: summary, ..Latency::default() };
        let at = |anonymous| Sample { anonymous, ..Sample::default() };
        let mark =
            |moment: &str, anonymous| Mark { moment: moment.to_owned(), sample: at(anonymous) };
        Report {
            clients: 10,
            counters: Counters { ready: 10, broken: 2, failed: 1, ..Counters::default() },
            account: Some(Account { received: 99, lost: 1, ..Account::default() }),
            latencies: BTreeMap::from([("delivery".to_owned(), delivery)]),
            traffic: Some(Traffic {
                seconds: 2.0,
                sent: 50,
                delivered: 100,
                broker_cpu_ns: Some(1_000),
                ..Traffic::default()
            }),
            broker: vec![mark("start", 1000), mark("settled", 5000)],
            ..Report::default()
        }
    }

    #[test]
    fn the_numbers_of_a_report_have_names() {
        let metrics = Metrics::of(&report());
        let value = |name: &str| metrics.get(name).map(|v| v.value);
        assert_eq!(value("delivery.p99"), Some(4e6));
        assert_eq!(value("lost"), Some(1.0));
        assert_eq!(value("loss"), Some(0.01));
        assert_eq!(value("errors"), Some(3.0));
        assert_eq!(value("delivered_per_s"), Some(50.0));
        assert_eq!(value("broker.cpu_per_message"), Some(10.0));
        assert_eq!(value("broker.anonymous_per_connection"), Some(400.0));
        assert_eq!(value("ack.p99"), None, "nothing was acknowledged");
    }

    #[test]
    fn what_a_run_reports_could_be_named_before_it() {
        let mut plan = Plan::new(([127, 0, 0, 1], 1883).into());
        plan.stages.push(crate::plan::Stage::Close.called("end"));
        let mut report = report();
        report.stages.push(StageReport { name: "end".to_owned(), ..StageReport::default() });
        let expected = Metrics::expected(&plan);
        for (name, value) in Metrics::of(&report).iter() {
            let there = expected.get(name).map(|v| v.dimension);
            assert_eq!(there, Some(value.dimension), "{name}");
        }
        assert!(expected.get("stage.end.seconds").is_some());
    }

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
