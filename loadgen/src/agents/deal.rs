//! Cuts a plan into the parts of its agents.
//!
//! Each population is dealt out by ranges of client numbers, so that client i of one population is
//! with the same agent as client i of another: pairs stay together. Rates and what may be in flight
//! are cut as well. The sum of the parts is the plan.

use crate::address::automatic_sources;
use crate::plan::{Expect, Pace, Plan, Stage};

/// Parts of a plan for `agents` agents.
///
/// # Errors
/// When the plan has something that cannot be cut: a window over a group, or peers of which one has
/// more clients.
pub(super) fn deal(plan: &Plan, agents: usize) -> Result<Vec<Plan>, String> {
    for p in &plan.populations {
        if p.publish.as_ref().is_some_and(|publish| matches!(publish.pace, Pace::Group { .. })) {
            return Err(format!(
                "{}: a window over all subscribers cannot span agents: give a rate",
                p.name
            ));
        }
        if let Expect::Peer(heard) = p.expect
            && plan.populations[usize::from(heard)].count != p.count
        {
            return Err(format!("{}: with agents, peers are as many as they are", p.name));
        }
    }
    let plan = with_drains(plan);
    Ok((0..agents).map(|nth| part(&plan, nth, agents)).collect())
}

/// The plan with a drain after each traffic: an agent whose publishers are done does not know that
/// others still send.
pub(super) fn with_drains(plan: &Plan) -> Plan {
    let mut whole = plan.clone();
    whole.stages.clear();
    for stage in &plan.stages {
        let patience = match stage.stage {
            Stage::Traffic { drain, .. } | Stage::Churn { drain, .. } => Some(drain),
            _ => None,
        };
        whole.stages.push(stage.clone());
        if let Some(patience) = patience {
            let name = format!("{}-drain", stage.name);
            whole.stages.push(Stage::Drain { patience }.called(&name));
        }
    }
    whole
}

fn part(plan: &Plan, nth: usize, of: usize) -> Plan {
    let mut part = plan.clone();
    for p in &mut part.populations {
        let at = |n: usize| (u64::from(p.count) * n as u64 / of as u64) as u32;
        let (from, to) = (at(nth), at(nth + 1));
        p.first += from;
        p.count = to - from;
    }
    let share = |in_flight: usize| in_flight.div_ceil(of).max(1);
    for stage in &mut part.stages {
        match &mut stage.stage {
            Stage::Connect { rate, in_flight, .. } | Stage::Storm { rate, in_flight, .. } => {
                *rate = rate.map(|r| r / of as f64);
                *in_flight = share(*in_flight);
            }
            Stage::Churn { rate, .. } => *rate /= of as f64,
            Stage::Traffic { deliveries: Some(n), .. } => *n = n.div_ceil(of as u64),
            _ => {}
        }
    }
    if plan.target.ip().is_loopback() && !plan.sources.is_empty() {
        // Agents of one machine keep out of each other's ports.
        let seed = (crate::clock::now_ns() >> 10).wrapping_add(nth as u64 * 100_003);
        part.sources = automatic_sources(plan.target, plan.sources.len() * 4000, seed);
    }
    part
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::Cli;
    use clap::Parser as _;

    fn plan(args: &str) -> Plan {
        let all = ["ringmain-load"].into_iter().chain(args.split_whitespace());
        Cli::try_parse_from(all).unwrap().command.job().unwrap().plan
    }

    #[test]
    fn the_parts_have_all_clients_once_and_pairs_together() {
        let plan = plan("pair -c 10 --rate 100 -d 1 -R 90 -n 5");
        let parts = deal(&plan, 3).unwrap();
        for population in 0..2 {
            let mut next = 5;
            for part in &parts {
                let p = &part.populations[population];
                assert_eq!(p.first, next, "ranges join");
                next += p.count;
                assert_eq!(p.count, part.populations[1 - population].count, "pairs stay together");
            }
            assert_eq!(next, 15);
        }
        let rate = |part: &Plan| match part.stages[0].stage {
            Stage::Connect { rate, .. } => rate.unwrap(),
            _ => 0.0,
        };
        assert_eq!(parts.iter().map(rate).sum::<f64>(), 90.0);
    }

    #[test]
    fn more_agents_than_clients_leaves_some_without_work() {
        let parts = deal(&plan("conn -c 2"), 3).unwrap();
        assert_eq!(parts.iter().map(Plan::clients).sum::<usize>(), 2);
    }

    #[test]
    fn each_traffic_is_followed_by_a_drain_for_all() {
        let parts = deal(&plan("pair --rate 5 -d 1"), 2).unwrap();
        let names: Vec<&str> = parts[1].stages.iter().map(|s| s.name.as_str()).collect();
        assert_eq!(names, ["connect", "traffic", "traffic-drain", "close"]);
    }

    #[test]
    fn what_cannot_be_cut_is_refused() {
        assert!(deal(&plan("fanout -c 4 -d 1"), 2).unwrap_err().contains("give a rate"));
        assert!(deal(&plan("fanout -c 4 -d 1 --rate 5"), 2).is_ok());
    }
}
