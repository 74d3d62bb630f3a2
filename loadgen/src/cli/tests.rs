use clap::{CommandFactory, Parser};

use super::Cli;
use crate::plan::{Expect, Pace, Stage};

fn job(args: &str) -> crate::job::Job {
    let all = ["ringmain-load"].into_iter().chain(args.split_whitespace());
    Cli::try_parse_from(all).unwrap_or_else(|e| panic!("{e}")).command.job().unwrap()
}

fn refused(args: &str) -> String {
    let all = ["ringmain-load"].into_iter().chain(args.split_whitespace());
    match Cli::try_parse_from(all) {
        Err(e) => e.to_string(),
        Ok(cli) => cli.command.job().map(|job| job.plan.check()).unwrap_err(),
    }
}

#[test]
fn the_command_line_contradicts_itself_nowhere() {
    Cli::command().debug_assert();
}

#[test]
fn the_letters_of_emqtt_bench_mean_what_they_mean_there() {
    let job =
        job("conn -h 127.0.0.1 -p 1884 -c 50 -i 10 -n 100 -k 60 -C false -x 30 -V 4 -u me -P pw");
    assert_eq!(job.plan.target.port(), 1884);
    let population = &job.plan.populations[0];
    assert_eq!((population.count, population.first), (50, 100));
    assert_eq!(population.connect.keep_alive_s, 60);
    assert!(!population.connect.clean_start);
    assert!(matches!(job.plan.stages[0].stage, Stage::Connect { rate: Some(r), .. } if r == 100.0));

    let job = self::job("pub -t a/%i -c 10 -I 1000 -q 1 -s 256 -L 5 -r");
    let publish = job.plan.populations[0].publish.as_ref().unwrap();
    assert_eq!(publish.pace, Pace::Every { interval: std::time::Duration::from_secs(1) });
    assert!(publish.retain && publish.limit == Some(5));
}

#[test]
fn every_load_makes_a_plan_that_is_valid() {
    for args in [
        "conn -c 3 --hold 1",
        "pub -t a -q 1 -d 1",
        "sub -t a -d 1",
        "pair -d 1 --rate 10 --poisson -s 20..90",
        "fanout -c 10 -d 1",
        "fanin -c 10 -d 1",
        "shared -c 2 --publishers 3 -d 1 -q 1",
        "retained -c 2 --topics 5",
        "churn -c 5 -d 1 --rate 10",
        "storm -c 5",
    ] {
        let job = job(args);
        assert_eq!(job.plan.check(), Ok(()), "{args}");
        let last = job.plan.stages.last().map(|s| s.stage.kind());
        assert_eq!(last, Some("close"), "{args}");
    }
}

#[test]
fn a_shared_group_is_expected_to_share() {
    let job = job("shared -c 2 --publishers 3 -d 1 -q 1");
    assert_eq!(job.plan.populations[0].expect, Expect::SharedGroup(1));
    assert_eq!(
        job.plan.populations[0].subscriptions[0].filter.render(0, ""),
        "$share/group/shared/+"
    );
}

#[test]
fn what_has_no_end_or_no_meaning_is_refused() {
    assert!(refused("pair").contains("what ends the run?"));
    assert!(refused("pair -d 1 --poisson").contains("--poisson needs"));
    assert!(refused("pair -d 1 --assert lost=0").contains("not a claim"));
    assert!(refused("pair -d 1 --assert lots==0").contains("nearest: lost"));
    assert!(refused("pair -d 1 -s 90..20").contains("the least comes first"));
    assert!(refused("compare a b -- conn").contains("give a load"));
}
