//! A short run of the simulator itself; long ones are for `cargo run -p ringmain-sim --release`.

use ringmain_sim::plant::Plant;
use ringmain_sim::sim::{Options, run};

fn options(seed: u64, plant: Option<Plant>) -> Options {
    Options { seed, steps: 1000, theme: None, shards: None, plant, allow: Vec::new(), trace: false }
}

#[test]
fn engine_passes_a_few_seeds_of_every_scenario() {
    for seed in 1..=36 {
        let outcome = run(&options(seed, None));
        assert!(outcome.violation.is_none(), "seed {seed}: {:?}", outcome.violation);
        assert!(outcome.copies > 0, "seed {seed} did nothing");
    }
}

/// Seeds that found something once: their theme and number of shards, where not their own.
#[test]
fn engine_passes_the_seeds_that_were_settled() {
    let own = [915, 1035, 1260, 1839, 2151].map(|seed| (seed, None, None)); // S-67
    let shared = [19, 104, 110, 139, 177].map(|seed| (seed, Some("shared".to_owned()), Some(4)));
    let shared = shared.into_iter().chain([
        (256, Some("shared".to_owned()), Some(2)), // S-61
        (939, None, None),
        (7131, None, None),
        (13949, None, None), // P03
        (123, Some("shared".to_owned()), Some(5)),
        (790, Some("pressure".to_owned()), None), // id in use
        (7, Some("slow".to_owned()), None),       // S-81, as those that follow
        (215, Some("slow".to_owned()), None),
        (665, Some("slow".to_owned()), None),
        (966, None, None),
    ]);
    for (seed, theme, shards) in own.into_iter().chain(shared) {
        let outcome = run(&Options { steps: 3000, theme, shards, ..options(seed, None) });
        assert!(outcome.violation.is_none(), "seed {seed}: {:?}", outcome.violation);
    }
}

#[test]
fn same_seed_gives_the_same_run() {
    for seed in [3, 8, 13] {
        let figures = |seed| {
            let o = run(&options(seed, None));
            (o.steps, o.copies, o.overflows, o.violation)
        };
        assert_eq!(figures(seed), figures(seed), "seed {seed}");
    }
}

#[test]
fn a_planted_bug_is_found() {
    for plant in [Plant::InflightOffByOne, Plant::DoubleTakeover, Plant::DroppedPuback] {
        let found = (1..=plant.within_seeds()).any(|seed| {
            let violation = run(&options(seed, Some(plant))).violation;
            violation.is_some_and(|v| plant.breaks().iter().any(|rule| v.rule.contains(rule)))
        });
        assert!(found, "{} was not found", plant.name());
    }
}
