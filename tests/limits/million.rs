//! `ringmain-load million`, scaled down: all its stages against the release binary.

use clap::Parser;
use ringmain_limits::binary;
use ringmain_load::cli::{Cli, Command};
use ringmain_load::million;
use ringmain_load::million::options::Options;
use ringmain_load::million::report::Million;

fn options(args: &str) -> Options {
    let all = ["ringmain-load", "million"].into_iter().chain(args.split_whitespace());
    match Cli::try_parse_from(all).unwrap_or_else(|e| panic!("{e}")).command {
        Command::Million(options) => *options,
        other => panic!("{other:?}"),
    }
}

fn run(args: &str) -> Million {
    let mut options = options(args);
    options.broker = Some(binary());
    let verdict = million::preflight_of(&options).unwrap_or_else(|e| panic!("{args}: {e}"));
    let result = million::run(&options, verdict).unwrap_or_else(|e| panic!("{args}: {e}"));
    println!("$ ringmain-load million {args}\n{}", result.to_text());
    result
}

#[test]
#[ignore = "20,000 connections: run tests/limits/run.sh"]
fn each_of_twenty_thousand_gets_its_message_before_and_after_all_were_dropped_at_once() {
    for (port, end) in [(24_050, "fin"), (24_051, "rst")] {
        let pairs = "--pairs 10 --rate 200 --duration 3";
        let result = run(&format!(
            "-c 20000 -p {port} -k 8 --hold 9 --each-rate 5000 {pairs} --storm {end} --quiet"
        ));
        assert!(result.is_clean(), "{:?} {:?}", result.run.problems, result.run.faults);
        assert_eq!((result.count, result.clients), (20_000, 20_021));
        let stage = |name: &str| result.run.stages.iter().find(|s| s.name == name).unwrap();
        assert!(stage("keep alive").counters.pings >= 20_000, "each pings within 7/8 of 8 s");
        let storm = &stage("storm").counters;
        assert_eq!(storm.ready, 20_021, "all came back");
        assert_eq!(storm.attempts_needed.iter().sum::<u64>(), 20_021);
        let account = result.run.account.as_ref().expect("each message is checked");
        assert!(account.received >= 40_000, "{} received", account.received);
        assert_eq!((account.lost, account.duplicates), (0, 0));
        assert!(result.host["connect"].sockets >= 40_042, "both ends are here");
    }
}

#[test]
#[ignore = "starts the broker: run tests/limits/run.sh"]
fn with_too_few_source_ports_as_many_connect_as_fit_and_the_limit_is_named() {
    let args = "-c 100000 --ifaddr 127.0.0.9 -p 24052 --pairs 0 --no-storm --hold 0 --quiet";
    let options = options(args);
    let verdict = million::preflight_of(&options).unwrap();
    assert!(!verdict.is_enough());
    assert_eq!(verdict.stops[0].limit, "source ports", "{verdict:?}");
    let result = run(args);
    assert!(result.count < 100_000 && result.count + 1 == result.clients);
    assert!(result.is_clean(), "{:?} {:?}", result.run.problems, result.run.faults);
    assert!(result.to_text().contains("SMALLER"));
}
