//! Each load that `ringmain-load` knows, against the broker: its checks find nothing.
//! `RINGMAIN_LIMITS_BROKER=mosquitto` tries the same on another broker.

use std::time::Duration;

use ringmain_limits::Broker;
use ringmain_load::plan::{
    Behaviour, ClientIds, ConnectPlan, End, Expect, Pace, Plan, Population, PublishPlan, Stage,
    SubscribePlan, WillPlan,
};
use ringmain_load::report::Report;
use ringmain_load::run::{RunOptions, run};
use ringmain_load::size::Size;
use ringmain_mqtt::{QoS, Version};

fn clients(name: &str, count: u32) -> Population {
    let ids = format!("{name}-%i").parse().expect("a template");
    Population::idle(name, count, ConnectPlan::new(Version::V5, ids))
}

fn subscribers(count: u32, filter: &str, qos: QoS, expect: Expect) -> Population {
    let filter = SubscribePlan::new(filter.parse().expect("a template"), qos);
    Population { subscriptions: vec![filter], expect, ..clients("subscribers", count) }
}

fn publishers(count: u32, topic: &str, qos: QoS, pace: Pace) -> Population {
    let publish = PublishPlan {
        topic: topic.parse().expect("a template"),
        qos,
        retain: false,
        size: Size::Fixed(48),
        pace,
        limit: None,
    };
    Population { publish: Some(publish), ..clients("publishers", count) }
}

fn limited(mut population: Population, limit: u32) -> Population {
    population.publish.as_mut().expect("it publishes").limit = Some(limit);
    population
}

/// Keeps the sessions of a population for a minute. They are not those of another `run`.
fn with_session(mut population: Population, run: &str) -> Population {
    let ids = format!("{}-{run}-%i", population.name);
    population.connect.ids = ClientIds::Template(ids.parse().expect("a template"));
    population.connect.clean_start = false;
    population.connect.session_expiry_s = Some(60);
    population
}

fn every(ms: u64) -> Pace {
    Pace::Every { interval: Duration::from_millis(ms) }
}

fn connect(populations: &[u16]) -> Stage {
    let populations = populations.to_vec();
    Stage::Connect { rate: None, in_flight: 64, attempts_max: 3, populations }
}

fn traffic(seconds: Option<u64>, populations: &[u16]) -> Stage {
    Stage::Traffic {
        warmup: Duration::ZERO,
        duration: seconds.map(Duration::from_secs),
        drain: Duration::from_secs(2),
        deliveries: None,
        populations: populations.to_vec(),
    }
}

fn drain() -> Stage {
    Stage::Drain { patience: Duration::from_millis(700) }
}

fn hold(seconds: u64) -> Stage {
    Stage::Hold { duration: Duration::from_secs(seconds) }
}

/// Runs the stages with all populations, and wants a clean result.
fn clean(broker: &Broker, populations: Vec<Population>, stages: Vec<Stage>) -> Report {
    let plan = Plan {
        populations,
        workers: 2,
        stages: stages.into_iter().chain([Stage::Close]).map(Stage::named).collect(),
        ..Plan::new(([127, 0, 0, 1], broker.port()).into())
    };
    let report = run(plan, &RunOptions::default(), &mut |_| ()).expect("the run can be made");
    println!("{}", report.to_text());
    assert!(report.is_clean(), "{:?} {:?}", report.problems, report.faults);
    report
}

fn received(report: &Report) -> u64 {
    report.account.expect("it is checked").received
}

#[test]
#[ignore = "needs the broker's binary: run tests/limits/run.sh"]
fn pairs_get_all_messages_in_all_versions_at_all_qos() {
    let broker = Broker::start(21_001, 2);
    for version in [Version::V31, Version::V311, Version::V5] {
        for qos in [QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce] {
            let pace = Pace::Peer { window: 8, peer: 0 };
            let mut populations = vec![
                subscribers(20, "pair/%i", qos, Expect::Peer(1)),
                limited(publishers(20, "pair/%i", qos, pace), 200),
            ];
            populations.iter_mut().for_each(|p| p.connect.version = version);
            let report = clean(&broker, populations, vec![connect(&[]), traffic(None, &[])]);
            assert_eq!(received(&report), 4000, "{version:?} {qos:?}");
        }
    }
}

#[test]
#[ignore = "needs the broker's binary: run tests/limits/run.sh"]
fn fan_in_fan_out_and_wildcards_lose_nothing() {
    let broker = Broker::start(21_002, 2);
    let at_least_once = QoS::AtLeastOnce;
    let fan_in = vec![
        subscribers(1, "in/#", at_least_once, Expect::All(1)),
        limited(publishers(100, "in/%i/{0..4}", at_least_once, every(40)), 10),
    ];
    // As many as the broker queues for one subscriber, however slow this machine is.
    assert_eq!(received(&clean(&broker, fan_in, vec![connect(&[]), traffic(None, &[])])), 1000);
    let fan_out = vec![
        subscribers(100, "out", at_least_once, Expect::All(1)),
        limited(publishers(3, "out", at_least_once, Pace::Group { window: 4, fan_out: 100 }), 50),
    ];
    assert_eq!(received(&clean(&broker, fan_out, vec![connect(&[]), traffic(None, &[])])), 15_000);
    let wildcards = vec![
        subscribers(8, "w/{0..7}/+/%[0..1]/#", QoS::AtMostOnce, Expect::Matching(1)),
        limited(publishers(16, "w/{0..7}/x/%[0..1]/y", QoS::AtMostOnce, every(2)), 100),
    ];
    let report = clean(&broker, wildcards, vec![connect(&[]), traffic(None, &[])]);
    assert!(received(&report) > 200, "each filter matches a sixteenth of 1600 messages");
    assert_eq!(report.counters.due, 1600);
}

#[test]
#[ignore = "needs the broker's binary: run tests/limits/run.sh"]
fn a_shared_group_gets_each_message_once() {
    let broker = Broker::start(21_003, 2);
    let qos = QoS::AtLeastOnce;
    let populations = vec![
        subscribers(5, "$share/g/s/#", qos, Expect::SharedGroup(1)),
        limited(publishers(20, "s/%i/{0..2}", qos, Pace::Acked { window: 8 }), 300),
    ];
    let report = clean(&broker, populations, vec![connect(&[]), traffic(None, &[])]);
    assert_eq!(received(&report), 6000);
}

#[test]
#[ignore = "needs the broker's binary: run tests/limits/run.sh"]
fn retained_messages_come_once_to_who_subscribes_later() {
    let broker = Broker::start(21_004, 2);
    let qos = QoS::AtLeastOnce;
    let mut by_number = limited(publishers(2, "r/%i/%n", qos, Pace::Acked { window: 16 }), 1000);
    let mut by_range = limited(publishers(1, "q/{0..99}", qos, Pace::Acked { window: 16 }), 250);
    for setters in [&mut by_number, &mut by_range] {
        setters.publish.as_mut().expect("they publish").retain = true;
    }
    let mut values = subscribers(1, "#", qos, Expect::Retained(1));
    // `$` topics aside, # brings the other population's too: those do not count.
    values.name = "values".into();
    values.connect.ids = ClientIds::Template("values-%i".parse().expect("a template"));
    by_range.connect.ids = ClientIds::Template("range-%i".parse().expect("a template"));
    let readers = subscribers(3, "r/+/+", qos, Expect::Retained(0));
    let populations = vec![by_number, by_range, readers, values];
    let stages = vec![connect(&[0, 1]), traffic(None, &[]), connect(&[2, 3]), drain()];
    let report = clean(&broker, populations, stages);
    assert_eq!(received(&report), 3 * 2000 + 100);
    assert_eq!(report.latencies["replay"].count, 4);
}

#[test]
#[ignore = "needs the broker's binary: run tests/limits/run.sh"]
fn sessions_keep_what_comes_while_their_clients_are_away() {
    let broker = Broker::start(21_005, 2);
    for qos in [QoS::AtLeastOnce, QoS::ExactlyOnce] {
        let populations = vec![
            with_session(subscribers(50, "away/%i", qos, Expect::Peer(1)), &format!("{qos:?}")),
            limited(publishers(50, "away/%i", qos, Pace::Acked { window: 4 }), 100),
        ];
        let away = Stage::Offline { population: 0, end: End::Fin };
        let stages = vec![connect(&[]), away, traffic(None, &[]), connect(&[]), drain()];
        let report = clean(&broker, populations, stages);
        assert_eq!(received(&report), 5000);
        assert_eq!(report.counters.resumed, 50);
    }
}

#[test]
#[ignore = "needs the broker's binary: run tests/limits/run.sh"]
fn who_comes_and_goes_loses_nothing_that_its_session_keeps() {
    let broker = Broker::start(21_006, 2);
    for qos in [QoS::AtLeastOnce, QoS::ExactlyOnce] {
        for (churned, end) in [(0, End::Rst), (1, End::Rst), (0, End::Disconnect), (1, End::Fin)] {
            let run = format!("{qos:?}-{churned}-{end:?}");
            let populations = vec![
                with_session(subscribers(20, "churn/%i", qos, Expect::Peer(1)), &run),
                with_session(publishers(20, "churn/%i", qos, every(5)), &run),
            ];
            let churn = Stage::Churn {
                population: churned,
                rate: 50.0,
                duration: Duration::from_secs(2),
                end,
                drain: Duration::from_secs(2),
            };
            let report = clean(&broker, populations, vec![connect(&[]), churn]);
            let account = report.account.expect("it is checked");
            assert!(report.counters.resumed > 50, "{} came back", report.counters.resumed);
            assert_eq!(account.missed + account.abandoned, 0, "{account:?}");
        }
    }
}

#[test]
#[ignore = "needs the broker's binary: run tests/limits/run.sh"]
fn cycles_with_fresh_identifiers_find_no_session_of_before() {
    let broker = Broker::start(21_013, 1);
    let report = broker.load("conn -c 20 -t fresh/%i --cycles 3 --fresh-ids --no-clean");
    assert_eq!((report.counters.ready, report.counters.resumed), (60, 0));
}

#[test]
#[ignore = "needs the broker's binary: run tests/limits/run.sh"]
fn a_churn_of_strangers_does_not_disturb_traffic() {
    let broker = Broker::start(21_007, 2);
    let populations = vec![
        subscribers(10, "calm/%i", QoS::AtMostOnce, Expect::Peer(1)),
        publishers(10, "calm/%i", QoS::AtMostOnce, every(5)),
        {
            let mut p = subscribers(100, "stranger/%i/#", QoS::AtLeastOnce, Expect::None);
            p.name = "strangers".into();
            p.connect.ids = ClientIds::Template("str-%i".parse().expect("a template"));
            p
        },
    ];
    let churn = Stage::Churn {
        population: 2,
        rate: 200.0,
        duration: Duration::from_secs(2),
        end: End::Rst,
        drain: Duration::from_secs(1),
    };
    let report = clean(&broker, populations, vec![connect(&[]), churn]);
    assert!(received(&report) >= 3500 && report.counters.ready > 320, "{:?}", report.counters);
}

#[test]
#[ignore = "needs the broker's binary: run tests/limits/run.sh"]
fn each_client_that_is_killed_leaves_its_will_once() {
    let broker = Broker::start(21_008, 2);
    let mut mortals = clients("mortals", 200);
    mortals.connect.will = Some(WillPlan {
        topic: "wills/%c".parse().expect("a template"),
        size: 24,
        qos: QoS::AtLeastOnce,
        retain: false,
        delay_s: None,
    });
    let populations = vec![subscribers(2, "wills/#", QoS::AtLeastOnce, Expect::Wills(1)), mortals];
    let end = |end| Stage::Offline { population: 1, end };
    let stages = vec![
        connect(&[]),
        end(End::Rst),
        connect(&[]),
        end(End::Disconnect),
        connect(&[]),
        end(End::Fin),
        drain(),
    ];
    let report = clean(&broker, populations, stages);
    assert_eq!((received(&report), report.counters.wills), (800, 800));
}

#[test]
#[ignore = "needs the broker's binary: run tests/limits/run.sh"]
fn slow_readers_and_half_open_peers_hold_nobody_up() {
    let broker = Broker::start(21_009, 2);
    let mut slow = subscribers(5, "slow", QoS::AtMostOnce, Expect::None);
    slow.behaviour = Behaviour::Slow { bytes_per_s: 2_000 };
    slow.connect.ids = ClientIds::Template("slow-%i".parse().expect("a template"));
    let mut half_open = clients("half-open", 5);
    half_open.behaviour = Behaviour::HalfOpen;
    half_open.connect.keep_alive_s = 1;
    let mut publishers = publishers(1, "slow", QoS::AtMostOnce, every(1));
    publishers.publish.as_mut().expect("it publishes").size = Size::Uniform { min: 24, max: 2000 };
    let populations =
        vec![subscribers(20, "slow", QoS::AtMostOnce, Expect::All(1)), publishers, slow, half_open];
    // mosquitto looks for keep-alives that ran out every few seconds only.
    let stages = vec![connect(&[]), traffic(Some(3), &[]), hold(8)];
    let report = clean(&broker, populations, stages);
    assert!(received(&report) > 20 * 2000);
    assert!(report.counters.hung_up >= 5, "{} were hung up on", report.counters.hung_up);
}

#[test]
#[ignore = "needs the broker's binary: run tests/limits/run.sh"]
fn idle_clients_ping_and_a_storm_brings_all_back() {
    let broker = Broker::start(21_010, 2);
    let mut idle = subscribers(2000, "storm/%i", QoS::AtLeastOnce, Expect::None);
    idle.connect.keep_alive_s = 2;
    let storm = Stage::Storm { end: End::Rst, rate: None, in_flight: 256, attempts_max: 20 };
    let report = clean(&broker, vec![idle], vec![connect(&[]), hold(4), storm, hold(1)]);
    let c = &report.counters;
    assert!(c.pings >= 2000 && c.ready == 4000, "{c:?}");
    assert!(report.stages[2].recovery_s.is_some());
}

#[test]
#[ignore = "needs the broker's binary: run tests/limits/run.sh"]
fn one_publisher_reaches_each_client_once() {
    let broker = Broker::start(21_011, 2);
    let populations = vec![
        subscribers(3000, "to/%i", QoS::AtLeastOnce, Expect::One(1)),
        limited(publishers(1, "to/%n", QoS::AtLeastOnce, Pace::Acked { window: 32 }), 3000),
    ];
    let report = clean(&broker, populations, vec![connect(&[]), traffic(None, &[])]);
    assert_eq!(received(&report), 3000);
}

#[test]
#[ignore = "needs the broker's binary: run tests/limits/run.sh"]
fn a_poisson_process_sends_what_is_due() {
    let broker = Broker::start(21_012, 2);
    let interval = Duration::from_millis(10);
    let mut publishers = publishers(10, "p/%i", QoS::ExactlyOnce, Pace::Poisson { interval });
    publishers.publish.as_mut().expect("they publish").size =
        Size::Weighted(vec![(24, 3.0), (500, 1.0), (9000, 0.1)]);
    let populations = vec![subscribers(10, "p/%i", QoS::ExactlyOnce, Expect::Peer(1)), publishers];
    let report = clean(&broker, populations, vec![connect(&[]), traffic(Some(3), &[])]);
    let due = report.counters.due;
    // The deviation of a Poisson count of 3000 is 55.
    assert!((2700..3300).contains(&due), "{due} were due");
    assert_eq!((received(&report), report.counters.unsent), (due, 0));
}
