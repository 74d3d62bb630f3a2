//! Progress as lines: one a second and one at the end of each stage.

use std::fmt::Write as _;
use std::time::Duration;

use crate::quantity::{grouped, show_ns};
use crate::snapshot::Snapshot;

use super::view::errors;

const EVERY: Duration = Duration::from_secs(1);

/// Knows when the next line is due.
#[derive(Debug, Default)]
pub(super) struct Lines {
    next: Duration,
    voids: usize,
}

impl Lines {
    /// The line of a snapshot, when one is due.
    pub(super) fn line(&mut self, s: &Snapshot) -> Option<String> {
        let news = s.void.len() > self.voids;
        if s.elapsed < self.next && !s.stage_ended && !news {
            return None;
        }
        self.next = s.elapsed + EVERY;
        let mut out = format!(
            "{:7.1} s  {:<10} {} live",
            s.elapsed.as_secs_f64(),
            s.stage_name,
            grouped(s.counters.live as f64)
        );
        let mut rate = |what: &str, rate: f64| {
            if rate >= 0.5 {
                let _ = write!(out, ", {} {what}/s", grouped(rate));
            }
        };
        rate("ready", s.rates.ready);
        rate("sent", s.rates.sent);
        rate("delivered", s.rates.delivered);
        for name in ["delivery", "ack", "connect"] {
            if let Some(l) = s.interval.get(name).filter(|l| l.corrected.count > 0) {
                let (p50, p99) = (l.corrected.p50 as f64, l.corrected.p99 as f64);
                let _ = write!(out, ", {name} p50 {} p99 {}", show_ns(p50), show_ns(p99));
                break;
            }
        }
        for (what, count) in errors(&s.counters) {
            let _ = write!(out, ", {} {what}", grouped(count as f64));
        }
        if let Some(cpu) = s.broker_cpu {
            let _ = write!(out, ", broker {:.0} %", cpu * 100.0);
        }
        let _ = write!(out, ", generator {:.0} %", s.generator_cpu * 100.0);
        for why in s.void.iter().skip(self.voids) {
            let _ = write!(out, "\n           VOID: {why}");
        }
        self.voids = s.void.len();
        Some(out)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: u64) -> Snapshot {
        let elapsed = Duration::from_millis(ms);
        Snapshot { elapsed, stage_name: "traffic".to_owned(), ..Snapshot::default() }
    }

    #[test]
    fn a_line_comes_each_second_at_the_end_of_a_stage_and_when_the_run_becomes_void() {
        let mut lines = Lines::default();
        assert!(lines.line(&at(250)).is_some());
        assert!(lines.line(&at(500)).is_none());
        assert!(lines.line(&Snapshot { stage_ended: true, ..at(750) }).is_some());
        assert!(lines.line(&at(1000)).is_none());
        assert!(lines.line(&at(1750)).is_some());
        let void = Snapshot { void: vec!["starved".to_owned()], ..at(1800) };
        assert!(lines.line(&void).unwrap().contains("VOID: starved"));
        assert!(lines.line(&Snapshot { void: void.void.clone(), ..at(1900) }).is_none());
    }

    #[test]
    fn what_goes_wrong_is_in_the_line() {
        let mut snapshot = at(0);
        snapshot.counters.broken = 1234;
        let line = Lines::default().line(&snapshot).unwrap();
        assert!(line.contains("1,234 broken") && !line.contains("failed"), "{line}");
    }
}
