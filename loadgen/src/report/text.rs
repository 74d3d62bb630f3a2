//! The report as lines for people.

use std::fmt::Write as _;

use crate::cost::Sample;

use super::{Mark, Report};

/// Writes the lines.
pub(super) fn lines(report: &Report) -> String {
    let mut out = String::new();
    report.write_text(&mut out).expect("a String takes any text");
    out
}

impl Report {
    fn write_text(&self, out: &mut String) -> std::fmt::Result {
        let c = &self.counters;
        writeln!(
            out,
            "connected   {} of {} attempts in {:.2} s ({:.0}/s), {} failed, {} lost later",
            c.ready,
            c.attempts,
            self.connect_s,
            c.ready as f64 / self.connect_s.max(1e-9),
            c.failed,
            c.broken
        )?;
        if c.pings > 0 {
            writeln!(out, "keep-alive  {} pings, {} unanswered", c.pings, c.pings_unanswered)?;
        }
        if c.sent + c.delivered > 0 {
            writeln!(out, "messages    {} sent, {} delivered", c.sent, c.delivered)?;
        }
        if let Some(a) = &self.account {
            writeln!(
                out,
                "checked     {} received, {} lost, {} duplicates, {} out of order",
                a.received, a.lost, a.duplicates, a.out_of_order
            )?;
            if a.redelivered + a.missed + a.abandoned > 0 {
                writeln!(
                    out,
                    "            {} redelivered, {} missed while away, {} given up by their publisher",
                    a.redelivered, a.missed, a.abandoned
                )?;
            }
        }
        if let Some(t) = &self.traffic {
            let rate = |n: u64| n as f64 / t.seconds.max(1e-9);
            writeln!(
                out,
                "rate        {:.0} sent/s, {:.0} delivered/s over {:.2} s",
                rate(t.sent),
                rate(t.delivered),
                t.seconds
            )?;
            let messages = t.delivered.max(t.sent).max(1) as f64;
            let generator = t.generator_cpu_ns as f64 / messages;
            write!(out, "CPU         generator {generator:.0} ns/message")?;
            if let Some(broker) = t.broker_ns_per_message() {
                write!(out, ", broker {broker:.0} ns/message")?;
            }
            writeln!(out)?;
        }
        for (name, l) in self.latencies.iter().filter(|(_, l)| l.count > 0) {
            let us = |ns: u64| ns as f64 / 1000.0;
            writeln!(
                out,
                "{name:<11} p50 {:.1} µs, p99 {:.1} µs, p99.9 {:.1} µs, max {:.1} µs",
                us(l.p50),
                us(l.p99),
                us(l.p999),
                us(l.max)
            )?;
            if let Some(raw) = l.raw.filter(|r| *r != l.corrected) {
                writeln!(
                    out,
                    "{:<11} p50 {:.1} µs, p99 {:.1} µs, p99.9 {:.1} µs, max {:.1} µs",
                    "  raw",
                    us(raw.p50),
                    us(raw.p99),
                    us(raw.p999),
                    us(raw.max)
                )?;
            }
        }
        self.write_costs(out)?;
        for (what, count) in &self.faults {
            writeln!(out, "fault       {count} × {what}")?;
        }
        self.remarks.iter().try_for_each(|r| writeln!(out, "remark      {r}"))?;
        for v in &self.verdicts {
            let held = if v.held { "held" } else { "NOT HELD" };
            writeln!(out, "{held:<11} {} ({})", v.assertion, v.measured)?;
        }
        self.void.iter().try_for_each(|v| writeln!(out, "VOID        {v}"))?;
        match self.problems.as_slice() {
            [] => writeln!(out, "clean"),
            problems => problems.iter().try_for_each(|p| writeln!(out, "NOT CLEAN   {p}")),
        }
    }

    fn write_costs(&self, out: &mut String) -> std::fmt::Result {
        writeln!(
            out,
            "generator   {:.3} s CPU, {:.3} s of it to connect, {:.1} MiB resident",
            self.generator.cpu_ns as f64 / 1e9,
            self.generator.connect_cpu_ns as f64 / 1e9,
            self.generator.rss as f64 / 1_048_576.0
        )?;
        let mut before: Option<&Sample> = None;
        for Mark { moment, sample } in &self.broker {
            let cpu = before.map_or(0, |b| sample.cpu_ns.saturating_sub(b.cpu_ns));
            writeln!(
                out,
                "broker at {moment:<13} +{:.3} s CPU, anonymous {:.2} MiB, PSS {:.2} MiB, {} fds",
                cpu as f64 / 1e9,
                sample.anonymous as f64 / 1_048_576.0,
                sample.pss as f64 / 1_048_576.0,
                sample.descriptors.map_or("?".to_owned(), |n| n.to_string()),
            )?;
            before = Some(sample);
        }
        Ok(())
    }
}
