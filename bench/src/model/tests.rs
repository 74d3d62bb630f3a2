//! Claims about the model.

use super::fit::{Measured, START, fit, read};
use super::sim::{Clients, Costs, Outcome, Scenario, Traffic, homes_of, simulate};
use super::{TOLERANCE, check};

fn scenario(shards: usize, crossing: u32, window: u32) -> Scenario {
    Scenario {
        shards,
        cores: shards,
        pairs: 100 * shards,
        crossing,
        traffic: Traffic::Closed { window },
        clients: Clients::Away { delay: 1_000 },
        span: 50_000_000,
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
fn pairs_of_two_shards_live_where_the_measured_ones_do() {
    for percent in [0, 50, 100] {
        for pair in 0..96 {
            let (subscriber, publisher) = crate::crossing::shards_of(pair, percent);
            assert_eq!(homes_of(pair as usize, 2, percent), (publisher, subscriber), "{pair}");
        }
    }
}

#[test]
fn with_many_shards_every_shard_sends_to_others_and_receives() {
    let shards = 64;
    let homes: Vec<_> = (0..100 * shards).map(|pair| homes_of(pair, shards, 100)).collect();
    for shard in 0..shards {
        let to: std::collections::BTreeSet<_> =
            homes.iter().filter(|(from, _)| *from == shard).map(|(_, to)| to).collect();
        assert!(to.len() > 40 && !to.contains(&shard), "{shard} sends to {} others", to.len());
        assert_eq!(homes.iter().filter(|(_, to)| *to == shard).count(), 100);
    }
}

/// A generator beside so many shards on two cores.
fn beside(costs: &Costs, shards: usize, pairs: usize) -> Outcome {
    let mut of = scenario(shards, 0, 1);
    (of.cores, of.pairs, of.clients, of.span) = (2, pairs, Clients::Beside, 50_000_000);
    simulate(costs, &of)
}

#[test]
fn caches_are_cold_only_where_another_task_had_the_core() {
    let costs = Costs { cold: 3_000.0, ..START };
    let warm = Costs { cold: 0.0, ..START };
    let [alone, shared] = [1, 2].map(|shards| {
        let [with, without] = [costs, warm].map(|c| beside(&c, shards, 96).ns_per_message);
        with - without
    });
    assert!(alone < 300.0, "{alone} ns a message with a core of its own");
    assert!(shared > 1_000.0, "{shared} ns a message beside the generator");
}

#[test]
fn a_generator_on_a_busy_core_waits_though_another_idles() {
    let outcome = beside(&START, 2, 96);
    let busy = outcome.ns_per_message + outcome.generator_ns_per_message;
    let cores = busy * outcome.messages_per_s / 1e9;
    assert!((1.2..1.95).contains(&cores), "{cores} of 2 cores busy: {outcome:?}");
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
                generator_ns_per_message: 0.0,
                messages_per_s: 0.0,
            };
            let Some(of) = m.scenario(20, 2) else { panic!("known traffic") };
            let outcome = simulate(costs, &of);
            m.ns_per_message = outcome.ns_per_message;
            m.generator_ns_per_message = outcome.generator_ns_per_message;
            m.messages_per_s = outcome.messages_per_s;
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
    let stolen = run("1 shard", 10.0).replace("}", r#","stolen":0.5}"#);
    let (_, measured) = read(json(&[stolen]).as_bytes()).unwrap();
    assert_eq!(measured[0].messages_per_s, 10.0, "half of the time was not the machine's");
    assert!(read(json(&[run("3 moons", 1.0)]).as_bytes()).is_err());
}
