//! Claims about the model.

use super::fit::{Measured, START, fit, read};
use super::sim::{Clients, Costs, Outcome, Scenario, Traffic, simulate};
use super::{TOLERANCE, check};

fn scenario(shards: usize, crossing: u32, window: u32) -> Scenario {
    Scenario {
        shards,
        cores: shards,
        pairs: 100 * shards,
        crossing,
        traffic: Traffic::Closed { window },
        clients: Clients::Away { delay: 1_000 },
        span: 5_000_000,
        seed: 7,
    }
}

#[test]
fn the_same_seed_gives_the_same_outcome() {
    let of = scenario(4, 50, 16);
    assert_eq!(simulate(&START, &of), simulate(&START, &of));
}

#[test]
fn a_saturated_shard_costs_what_its_stages_say() {
    // All pairs publish again before the turn is over: each turn has each of the 100 pairs once.
    let outcome = simulate(&START, &scenario(1, 0, 1));
    let each = START.receive + START.send + START.message;
    let most = each + START.turn;
    assert!(outcome.ns_per_message > each && outcome.ns_per_message < most, "{outcome:?}");
    let busy = outcome.ns_per_message * outcome.messages_per_s / 1e9;
    assert!((0.97..1.03).contains(&busy), "{busy} cores busy");
}

#[test]
fn messages_in_one_receive_share_its_cost() {
    let [one, many] = [1, 16].map(|window| simulate(&START, &scenario(1, 0, window)));
    let saved = (START.receive + START.send) * 15.0 / 16.0;
    assert!((one.ns_per_message - many.ns_per_message - saved).abs() < START.turn, "{many:?}");
}

#[test]
fn crossing_costs_mail_and_more_cores_smaller_batches() {
    let at = |shards, crossing| simulate(&START, &scenario(shards, crossing, 1)).ns_per_message;
    assert!(at(2, 100) > at(2, 0) + START.mail);
    assert!(at(32, 100) > at(2, 100));
    assert!((at(32, 0) / at(2, 0) - 1.0).abs() < 0.01, "without crossing cores do not meet");
}

#[test]
fn an_idle_shard_pays_for_its_sleep() {
    let mut of = scenario(1, 0, 1);
    of.pairs = 1;
    of.traffic = Traffic::Paced { interval: 1_000_000 };
    of.span = 50_000_000;
    let outcome = simulate(&START, &of);
    assert!(outcome.ns_per_message > START.sleep, "{outcome:?}");
    assert!((outcome.sleeps_per_message - 1.0).abs() < 0.05, "{outcome:?}");
}

/// Runs as the simulation itself would measure them, with other costs than the search begins with.
fn made_up(costs: &Costs) -> Vec<Measured> {
    let mut list = Vec::new();
    for traffic in ["closed-1", "closed-16", "paced"] {
        for (shards, crossing) in [(1, 0), (2, 0), (2, 50), (2, 100)] {
            let mut m = Measured {
                traffic: traffic.to_owned(),
                shards,
                crossing,
                ns_per_message: 0.0,
                messages_per_s: 0.0,
            };
            let Some(of) = m.scenario(20, 2) else { panic!("known traffic") };
            let Outcome { ns_per_message, messages_per_s, .. } = simulate(costs, &of);
            (m.ns_per_message, m.messages_per_s) = (ns_per_message, messages_per_s);
            list.push(m);
        }
    }
    list
}

#[test]
fn the_fit_finds_costs_that_reproduce_runs_it_was_not_shown() {
    let costs = Costs { turn: 3_000.0, message: 550.0, batch: 1_500.0, sleep: 20_000.0, ..START };
    let runs = made_up(&costs);
    let found = fit(20, 2, &runs, 12);
    for c in check(&found, 20, 2, &runs) {
        assert!(c.error.iter().all(|e| e.abs() < TOLERANCE), "{c:?}");
    }
}

#[test]
fn runs_that_no_costs_explain_are_not_reproduced() {
    let mut runs = made_up(&START);
    // Half crossing cheaper than none: nothing of the kind can come out.
    runs.iter_mut().filter(|m| m.crossing == 50).for_each(|m| m.ns_per_message /= 2.0);
    let found = fit(20, 2, &runs, 2);
    let worst = check(&found, 20, 2, &runs).iter().flat_map(|c| c.error).fold(0.0, f64::max);
    assert!(worst > TOLERANCE);
}

#[test]
fn results_of_crossing_are_read_and_rounds_become_medians() {
    let run = |case: &str, ns: f64| {
        format!(
            r#"{{"traffic":"closed-1","case":"{case}","round":0,"ns_per_message":{ns},"messages_per_s":5.0}}"#
        )
    };
    let json = |runs: &[String]| {
        format!(
            r#"{{"benchmark":"crossing","results":{{"pairs":100,"runs":[{}]}}}}"#,
            runs.join(",")
        )
    };
    let good =
        json(&[run("1 shard", 10.0), run("1 shard", 20.0), run("2 shards, 50 % crossing", 7.0)]);
    let (pairs, measured) = read(good.as_bytes()).unwrap();
    assert_eq!((pairs, measured.len()), (100, 2));
    assert_eq!((measured[0].shards, measured[0].ns_per_message), (1, 15.0));
    assert_eq!((measured[1].shards, measured[1].crossing), (2, 50));
    assert!(read(json(&[run("3 moons", 1.0)]).as_bytes()).is_err());
}
