//! The whole examination of a host, as text and as JSON.

use std::fmt::Write;

use serde::Serialize;

use crate::capacity::{self, Facts, Needs, Side};
use crate::counters::{self, Trouble};
use crate::goal::{Goal, Profile};
use crate::host::{Hardware, Host};
use crate::judge::{Finding, Verdict, judge};
use crate::parameter::{self, Change};

/// Version of the JSON.
pub const SCHEMA: u32 = 1;

/// Width of the text.
const WIDTH: usize = 100;
/// Before each line of an explanation.
const INDENT: &str = "          ";

/// What an examination found.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// Version of this structure.
    pub schema: u32,
    /// What is asked of the host.
    pub goal: Goal,
    /// What the host is.
    pub hardware: Hardware,
    /// Which limit stops the growth first, and at how many connections.
    pub capacity: capacity::Verdict,
    /// Every parameter, in the order of the data.
    pub findings: Vec<Finding>,
    /// Counters that are not 0 and should be.
    pub troubles: Vec<Trouble>,
}

/// Examines `host`.
///
/// # Errors
/// A fault of the data.
pub fn examine(host: &Host, goal: Goal) -> Result<Report, String> {
    let hardware = host.hardware();
    let side = match goal.profile {
        Profile::LoadGenerator => Side::Generator,
        Profile::ManyConnections | Profile::Latency | Profile::Throughput => Side::Broker,
    };
    let facts = Facts {
        // How many addresses a generator uses is its own choice: ports are judged by their range.
        sources: u64::MAX,
        ..Facts::of(host, side)
    };
    let needs = Needs { connections: goal.connections, storm: true };
    Ok(Report {
        schema: SCHEMA,
        goal,
        capacity: capacity::check(&facts, needs),
        findings: judge(host, &hardware, &goal, &parameter::all()?)?,
        troubles: counters::troubles(host),
        hardware,
    })
}

impl Report {
    /// Whether nothing is dangerous, nothing is to be changed and the goal fits.
    #[must_use]
    pub fn is_healthy(&self) -> bool {
        let bad = |f: &Finding| matches!(f.verdict, Verdict::Hazard | Verdict::Change);
        self.capacity.is_enough() && !self.findings.iter().any(bad)
    }

    /// One line for each danger, and for the limit that stops the growth: what a broker says at its start.
    #[must_use]
    pub fn warnings(&self) -> Vec<String> {
        let mut lines = Vec::new();
        if let Some(stop) = self.capacity.stops.first() {
            lines.push(format!(
                "this host stops at {} of {} connections: {}: {}",
                stop.allows, self.capacity.wanted, stop.limit, stop.remedy
            ));
        }
        for finding in self.findings.iter().filter(|f| f.verdict == Verdict::Hazard) {
            let value = finding.actual.as_deref().unwrap_or("");
            lines.push(format!("{} is {value}: {}", finding.name, finding.hazards.join(" ")));
        }
        lines
    }

    /// For people. With `all` also what is good, and what does not matter here.
    #[must_use]
    pub fn to_text(&self, all: bool) -> String {
        let mut out = String::new();
        self.write_host(&mut out);
        self.write_capacity(&mut out);
        let shown = |f: &&Finding| match f.verdict {
            Verdict::Hazard | Verdict::Change | Verdict::Unknown => true,
            Verdict::Good | Verdict::NotHere => all,
        };
        for finding in self.findings.iter().filter(shown) {
            write_finding(&mut out, finding, all);
        }
        self.write_counts(&mut out, all);
        self.write_troubles(&mut out);
        out
    }

    fn write_host(&self, out: &mut String) {
        let h = &self.hardware;
        let _ = writeln!(
            out,
            "goal        {} connections, {} messages/s, profile {}\nhost        {}, Linux {}.{}, {} CPUs, \
             {} GiB, {} memory node{}, {} network card{} ({} receive queue{}){}",
            self.goal.connections,
            self.goal.rate,
            self.goal.profile,
            if h.system.is_empty() { "unknown system" } else { &h.system },
            h.kernel.0,
            h.kernel.1,
            h.cores,
            (h.memory + (1 << 29)) >> 30,
            h.nodes,
            plural(h.nodes),
            h.nics,
            plural(h.nics),
            h.queues,
            plural(h.queues),
            if h.tracked > 0 { ", connections are tracked" } else { "" }
        );
    }

    fn write_capacity(&self, out: &mut String) {
        let c = &self.capacity;
        let gib = c.memory_needed as f64 / f64::from(1 << 30);
        if c.is_enough() {
            let _ = writeln!(
                out,
                "prediction  all {} connections fit: {gib:.1} GiB of memory\n",
                c.wanted
            );
        } else {
            let _ = writeln!(out, "prediction  growth stops at {} of {}:", c.fits, c.wanted);
            for stop in &c.stops {
                let _ = writeln!(out, "  at {:>9}  {}: {}", stop.allows, stop.limit, stop.remedy);
            }
            out.push('\n');
        }
    }

    fn write_counts(&self, out: &mut String, all: bool) {
        let count = |verdict| self.findings.iter().filter(|f| f.verdict == verdict).count();
        let _ = writeln!(
            out,
            "{} dangerous, {} to change, {} good, {} not here, {} unknown{}",
            count(Verdict::Hazard),
            count(Verdict::Change),
            count(Verdict::Good),
            count(Verdict::NotHere),
            count(Verdict::Unknown),
            if all { "" } else { " (--all shows them)" }
        );
    }

    fn write_troubles(&self, out: &mut String) {
        if self.troubles.is_empty() {
            return;
        }
        out.push_str(
            "\ncounters since boot that should be 0 (--sample SECONDS shows what grows now):\n",
        );
        for t in &self.troubles {
            let _ = writeln!(out, "  {:>12}  {}: {}; {}", t.count, t.name, t.meaning, t.remedy);
        }
    }
}

const fn plural(count: u32) -> &'static str {
    if count == 1 { "" } else { "s" }
}

fn write_finding(out: &mut String, f: &Finding, all: bool) {
    let _ = write!(out, "{:<8}  {}", f.verdict.word(), f.name);
    if let Some(actual) = &f.actual {
        let actual = if actual.is_empty() { "(empty)" } else { actual };
        let _ = write!(out, " = {actual}");
    }
    if let Some(proposed) = &f.proposed {
        let _ = write!(out, " → {proposed}");
    }
    if !f.unit.is_empty() && f.actual.is_some() {
        let _ = write!(out, " {}", f.unit);
    }
    out.push('\n');
    for hazard in &f.hazards {
        wrap(out, hazard);
    }
    if f.verdict != Verdict::Good || all {
        wrap(out, &f.why);
    }
    if f.wants_change() {
        wrap(out, &format!("Risk: {} Undo: {}", f.risk, f.undo));
        match f.change {
            Change::Boot => {
                let value = f.proposed.as_deref().unwrap_or("");
                wrap(out, &format!("Not changed by --apply: boot with {}={value}.", f.boot));
            }
            Change::Limit => wrap(
                out,
                "Not changed by --apply: --persist writes it for the service; it counts from the next start.",
            ),
            Change::None => wrap(out, "Not changed by --apply."),
            Change::Sysctl | Change::File => {}
        }
        if !f.instead.is_empty() {
            wrap(out, &format!("Or: {}", f.instead));
        }
    }
}

fn wrap(out: &mut String, text: &str) {
    let mut column = 0;
    for word in text.split_whitespace() {
        let width = word.chars().count();
        if column == 0 || column + 1 + width > WIDTH {
            out.push_str(if column == 0 { INDENT } else { "\n" });
            out.push_str(if column == 0 { "" } else { INDENT });
            column = INDENT.len();
        } else {
            out.push(' ');
            column += 1;
        }
        out.push_str(word);
        column += width;
    }
    out.push('\n');
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_wrapped_at_words_and_indented() {
        for width in 1..40 {
            let mut out = String::new();
            wrap(&mut out, &format!("{} ", "x".repeat(width)).repeat(60));
            for line in out.lines() {
                assert!(line.starts_with(INDENT) && line.len() <= WIDTH, "{width}: {line}");
                assert!(!line[INDENT.len()..].contains("  "), "{width}: {line}");
            }
        }
    }
}
