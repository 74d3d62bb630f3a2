//! The highest rate that holds an objective.

pub mod cli;
pub mod search;
pub mod slo;

use std::time::Duration;

use crate::job::Job;
use crate::metric::Metrics;
use crate::plan::{Pace, Plan, Stage};
use crate::report::Report;

use self::search::Trial;
use self::slo::Slo;

/// Makes a plan send `rate` messages a second in all, as an open loop. Populations that had rates
/// keep their proportions; windows become rates, in proportion to the publishers.
///
/// # Errors
/// When nobody publishes.
pub fn at_rate(plan: &mut Plan, rate: f64) -> Result<(), String> {
    let now = |pace: &Pace, count: u32| {
        let interval = pace.interval().map_or(1.0, |i| i.as_secs_f64());
        f64::from(count) / interval.max(1e-9)
    };
    let publishing = || plan.populations.iter().filter(|p| p.publish.is_some());
    let all: f64 = publishing().filter_map(|p| Some(now(&p.publish.as_ref()?.pace, p.count))).sum();
    if all <= 0.0 {
        return Err("nobody publishes in this load: find-max needs messages".to_owned());
    }
    for population in &mut plan.populations {
        let Some(publish) = &mut population.publish else { continue };
        let share = now(&publish.pace, population.count) / all * rate;
        let interval = Duration::try_from_secs_f64(f64::from(population.count) / share)
            .map_err(|e| format!("{rate} messages a second: {e}"))?
            .max(Duration::from_nanos(1));
        publish.pace = match publish.pace {
            Pace::Poisson { .. } => Pace::Poisson { interval },
            _ => Pace::Every { interval },
        };
        publish.limit = None;
    }
    Ok(())
}

/// Makes all traffic stages last this long.
pub fn lasting(plan: &mut Plan, time: Duration, warm: Duration) {
    for stage in &mut plan.stages {
        match &mut stage.stage {
            Stage::Traffic { warmup, duration, deliveries, .. } => {
                *warmup = warm;
                *duration = Some(time);
                *deliveries = None;
            }
            Stage::Churn { duration, .. } => *duration = time,
            _ => {}
        }
    }
}

/// What a run says about the objective. A void run says nothing; connections that failed and
/// protocol errors miss it whatever the latency.
#[must_use]
pub fn judge(slo: &Slo, latency: &str, report: &Report) -> Trial {
    if let Some(why) = report.void.first() {
        return Trial::Void { why: why.clone() };
    }
    if let Some(why) = report.problems.first() {
        return Trial::Missed { why: why.clone() };
    }
    let missed: Vec<String> = slo
        .judge(latency, &Metrics::of(report))
        .into_iter()
        .filter(|v| !v.held)
        .map(|v| format!("{}: {}", v.assertion, v.measured))
        .collect();
    if missed.is_empty() { Trial::Held } else { Trial::Missed { why: missed.join(", ") } }
}

/// Checks that the objective can be judged in runs of this job.
///
/// # Errors
/// A sentence for the user.
pub fn check(slo: &Slo, job: &Job) -> Result<(), String> {
    let there = Metrics::expected(&job.plan);
    slo.claims(job.latency()).iter().try_for_each(|claim| claim.check(&there))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::Cli;
    use crate::report::{Latency, Summary};
    use clap::Parser as _;

    fn job(args: &str) -> Job {
        let all = ["ringmain-load"].into_iter().chain(args.split_whitespace());
        Cli::try_parse_from(all).unwrap().command.job().unwrap()
    }

    #[test]
    fn a_window_becomes_a_rate_over_all_publishers() {
        let mut plan = job("pair -c 10 -F 16 -d 1").plan;
        at_rate(&mut plan, 1000.0).unwrap();
        let pace = plan.populations[1].publish.as_ref().unwrap().pace;
        assert_eq!(pace, Pace::Every { interval: Duration::from_millis(10) });
    }

    #[test]
    fn a_load_without_publishers_has_no_rate() {
        assert!(at_rate(&mut job("conn -c 5").plan, 10.0).is_err());
    }

    #[test]
    fn a_void_run_says_nothing_and_a_broken_one_misses() {
        let slo: Slo = "p99<5ms".parse().unwrap();
        let corrected = Summary { count: 1, p99: 4_000_000, ..Summary::default() };
        let latency = Latency { corrected, ..Latency::default() };
        let mut report = Report::default();
        report.latencies.insert("delivery".to_owned(), latency);
        assert_eq!(judge(&slo, "delivery", &report), Trial::Held);
        assert!(matches!(judge(&slo, "ack", &report), Trial::Missed { .. }), "not measured");
        report.problems.push("3 connections broke".to_owned());
        assert!(matches!(judge(&slo, "delivery", &report), Trial::Missed { .. }));
        report.void.push("starved".to_owned());
        assert!(matches!(judge(&slo, "delivery", &report), Trial::Void { .. }));
    }

    #[test]
    fn an_objective_that_cannot_be_judged_is_refused_before_the_search() {
        let job = job("pair -d 1");
        assert_eq!(check(&"p99<5ms,loss==0".parse().unwrap(), &job), Ok(()));
        assert!(check(&"p99<5".parse().unwrap(), &job).unwrap_err().contains("give ns"));
        assert!(check(&"p98<5ms".parse().unwrap(), &job).unwrap_err().contains("nearest"));
    }
}
