//! The check can fail: a server that drops, doubles or reorders messages is told so, and what a
//! server does not have at all is missed.

mod stub;

use std::net::SocketAddr;
use std::time::Duration;

use ringmain_load::plan::{
    Backoff, Behaviour, ConnectPlan, End, Expect, Pace, Plan, Population, PublishPlan, Stage,
    SubscribePlan, WillPlan,
};
use ringmain_load::report::Report;
use ringmain_load::run::{RunOptions, run};
use ringmain_load::size::Size;
use ringmain_load::snapshot::Snapshot;
use ringmain_mqtt::{QoS, Version};
use stub::{Faults, serve};

const EACH: Pace = Pace::Every { interval: Duration::from_millis(1) };

fn clients(name: &str, count: u32) -> Population {
    let ids = format!("{name}-%i").parse().expect("a template");
    Population::idle(name, count, ConnectPlan::new(Version::V5, ids))
}

fn subscribers(count: u32, filter: &str, expect: Expect) -> Population {
    let filter = SubscribePlan::new(filter.parse().expect("a template"), QoS::AtMostOnce);
    Population { subscriptions: vec![filter], expect, ..clients("subscribers", count) }
}

fn publishers(count: u32, topic: &str, limit: u32) -> Population {
    let publish = PublishPlan {
        topic: topic.parse().expect("a template"),
        qos: QoS::AtMostOnce,
        retain: false,
        size: Size::Uniform { min: 24, max: 60 },
        pace: EACH,
        limit: Some(limit),
    };
    Population { publish: Some(publish), ..clients("publishers", count) }
}

fn connect(populations: &[u16]) -> Stage {
    Stage::Connect { rate: None, in_flight: 16, attempts_max: 3, populations: populations.to_vec() }
}

fn traffic() -> Stage {
    Stage::Traffic {
        warmup: Duration::ZERO,
        duration: None,
        drain: Duration::from_millis(500),
        deliveries: None,
        populations: Vec::new(),
    }
}

fn plan(target: SocketAddr, populations: Vec<Population>, stages: Vec<Stage>) -> Plan {
    Plan {
        populations,
        stages: stages.into_iter().map(Stage::named).collect(),
        backoff: Backoff { first: Duration::from_millis(20), ..Backoff::default() },
        ..Plan::new(target)
    }
}

fn report(plan: Plan) -> Report {
    let report = run(plan, &RunOptions::default(), &mut |_| ()).expect("the run can be made");
    println!("{}", report.to_text());
    report
}

/// Two pairs with 300 messages each.
fn pairs(faults: Faults) -> Report {
    let populations = vec![subscribers(2, "t/%i", Expect::Peer(1)), publishers(2, "t/%i", 300)];
    report(plan(serve(faults), populations, vec![connect(&[]), traffic(), Stage::Close]))
}

fn problems_have(report: &Report, what: &str) -> bool {
    report.problems.iter().any(|p| p.contains(what))
}

#[test]
fn a_server_without_faults_is_clean() {
    let report = pairs(Faults::default());
    assert!(report.is_clean(), "{:?}", report.problems);
    let account = report.account.expect("pairs are checked");
    assert_eq!((account.received, report.counters.sent), (600, 600));
    assert_eq!(report.counters.due, 600);
}

#[test]
fn dropped_messages_are_lost() {
    let report = pairs(Faults { drop_each: Some(50), ..Faults::default() });
    assert_eq!(report.account.expect("pairs are checked").lost, 12);
    assert!(problems_have(&report, "12 messages lost"));
}

#[test]
fn doubled_messages_are_duplicates() {
    let report = pairs(Faults { double_each: Some(60), ..Faults::default() });
    let account = report.account.expect("pairs are checked");
    assert_eq!((account.duplicates, account.received, account.lost), (10, 600, 0));
    assert!(problems_have(&report, "10 duplicates"));
}

#[test]
fn messages_that_changed_places_are_out_of_order() {
    let populations = vec![subscribers(1, "t", Expect::All(1)), publishers(1, "t", 301)];
    let target = serve(Faults { swap_each: Some(30), ..Faults::default() });
    let report = report(plan(target, populations, vec![connect(&[]), traffic(), Stage::Close]));
    let account = report.account.expect("it is checked");
    assert_eq!((account.out_of_order, account.lost, account.duplicates), (10, 0, 0));
    assert!(problems_have(&report, "10 messages out of order"));
}

#[test]
fn order_is_checked_for_each_topic_of_a_publisher() {
    // Messages 29 and 30, 59 and 60… change places, on two topics: each topic is in order.
    let topics = |faults| {
        let populations = vec![
            subscribers(1, "t/{0..1}", Expect::Matching(2)),
            Population { subscriptions: two_filters(), ..subscribers(1, "", Expect::Matching(2)) },
            publishers(1, "t/{0..1}", 301),
        ];
        report(plan(serve(faults), populations, vec![connect(&[]), traffic(), Stage::Close]))
    };
    let swapped = topics(Faults { swap_each: Some(30), ..Faults::default() });
    let account = swapped.account.expect("it is checked");
    assert!(swapped.counters.delivered >= 400, "{}", swapped.counters.delivered);
    assert_eq!(account.out_of_order, 0, "a topic's messages stayed in order: {account:?}");
    // Each 30th message is on t/1, which only the second subscriber hears.
    let dropped = topics(Faults { drop_each: Some(30), ..Faults::default() });
    assert_eq!(dropped.account.expect("it is checked").lost, 10);
}

fn two_filters() -> Vec<SubscribePlan> {
    let mut plan = SubscribePlan::new("t/%n".parse().expect("a template"), QoS::AtMostOnce);
    plan.copies = 2;
    vec![plan]
}

#[test]
fn a_group_whose_members_all_get_a_message_has_duplicates() {
    let populations =
        vec![subscribers(2, "$share/g/t", Expect::SharedGroup(1)), publishers(1, "t", 100)];
    let target = serve(Faults::default());
    let report = report(plan(target, populations, vec![connect(&[]), traffic(), Stage::Close]));
    let account = report.account.expect("groups are checked");
    assert_eq!((account.received, account.duplicates), (100, 100));
    assert!(!report.is_clean());
}

#[test]
fn each_client_must_get_its_own_message() {
    let one = |faults| {
        let populations =
            vec![subscribers(20, "to/%i", Expect::One(1)), publishers(1, "to/%n", 20)];
        report(plan(serve(faults), populations, vec![connect(&[]), traffic(), Stage::Close]))
    };
    assert!(one(Faults::default()).is_clean());
    let account = one(Faults { drop_each: Some(10), ..Faults::default() }).account;
    assert_eq!(account.expect("it is checked").lost, 2);
}

#[test]
fn retained_messages_that_do_not_come_are_lost() {
    let mut setters = publishers(1, "r/{0..9}", 10);
    setters.publish.as_mut().expect("they publish").retain = true;
    let populations = vec![setters, subscribers(1, "r/+", Expect::Retained(0))];
    let patience = Duration::from_millis(200);
    let stages =
        vec![connect(&[0]), traffic(), connect(&[1]), Stage::Drain { patience }, Stage::Close];
    let report = report(plan(serve(Faults::default()), populations, stages));
    assert_eq!(report.account.expect("it is checked").lost, 10);
}

#[test]
fn wills_that_do_not_come_are_lost() {
    let mut mortals = clients("mortals", 5);
    mortals.connect.will = Some(WillPlan {
        topic: "wills".parse().expect("a template"),
        size: 24,
        qos: QoS::AtMostOnce,
        retain: false,
        delay_s: None,
    });
    let populations = vec![subscribers(1, "wills", Expect::Wills(1)), mortals];
    let kill = Stage::Offline { population: 1, end: End::Rst };
    let patience = Duration::from_millis(200);
    let stages = vec![connect(&[]), kill, Stage::Drain { patience }, Stage::Close];
    let report = report(plan(serve(Faults::default()), populations, stages));
    assert_eq!(report.account.expect("it is checked").lost, 5);
}

#[test]
fn a_session_that_is_not_there_again_is_lost() {
    let mut sleepers = subscribers(3, "t", Expect::None);
    sleepers.connect.clean_start = false;
    sleepers.connect.session_expiry_s = Some(60);
    let away = Stage::Offline { population: 0, end: End::Disconnect };
    let stages = vec![connect(&[]), away, connect(&[]), Stage::Close];
    let report = report(plan(serve(Faults::default()), vec![sleepers], stages));
    assert_eq!(report.counters.sessions_lost, 3);
    assert!(problems_have(&report, "3 sessions were lost"));
}

#[test]
fn who_is_refused_tries_again_and_its_attempts_are_counted() {
    let faults = Faults { refuse_first: 4, ..Faults::default() };
    let stages = vec![connect(&[]), Stage::Close];
    let report = report(plan(serve(faults), vec![clients("clients", 10)], stages));
    let c = &report.counters;
    assert_eq!((c.ready, c.attempts, c.retries, c.failed), (10, 14, 4, 0));
    let needed: u64 = c.attempts_needed.iter().sum();
    assert!(c.attempts_needed[0] <= 6 + 4 && needed == 10, "{:?}", c.attempts_needed);
    assert!(report.is_clean(), "{:?}", report.problems);
}

#[test]
fn who_used_up_its_attempts_has_failed() {
    let faults = Faults { refuse_first: u64::MAX, ..Faults::default() };
    let stages = vec![connect(&[]), Stage::Close];
    let report = report(plan(serve(faults), vec![clients("clients", 4)], stages));
    let c = &report.counters;
    assert_eq!((c.ready, c.attempts, c.retries, c.failed), (0, 12, 8, 4));
    assert!(problems_have(&report, "4 clients could not connect"));
}

#[test]
fn a_server_that_hangs_up_on_a_half_open_peer_is_seen() {
    let patience = Some(Duration::from_millis(300));
    let behaviour = Behaviour::HalfOpen;
    let silent = Population { behaviour, ..clients("silent", 4) };
    let hold = Stage::Hold { duration: Duration::from_millis(1500) };
    let target = serve(Faults { patience, ..Faults::default() });
    let report = report(plan(target, vec![silent], vec![connect(&[]), hold, Stage::Close]));
    assert_eq!((report.counters.hung_up, report.counters.broken), (4, 0));
    assert!(report.is_clean(), "{:?}", report.problems);
}

#[test]
fn an_open_loop_charges_a_stall_to_all_messages_that_were_due_in_it() {
    // 1000 messages in a second, of which 300 are due while the server sleeps: a closed loop would
    // have seen one slow message.
    let stall = Some((500, Duration::from_millis(300)));
    let populations = vec![subscribers(1, "t", Expect::All(1)), publishers(1, "t", 1000)];
    let target = serve(Faults { stall, ..Faults::default() });
    let report = report(plan(target, populations, vec![connect(&[]), traffic(), Stage::Close]));
    let delivery = &report.latencies["delivery"];
    assert_eq!(delivery.count, 1000);
    let slow: u64 =
        delivery.histogram.iter().filter(|(ns, _)| *ns > 100_000_000).map(|(_, n)| n).sum();
    assert!(slow >= 150, "{slow} messages waited for more than 100 ms");
    let raw = delivery.raw.expect("an open loop has both");
    assert!(raw.p50 <= delivery.p50 && delivery.max >= 290_000_000);
}

#[test]
fn a_storm_brings_all_back_and_says_how_long_it_took() {
    let storm = Stage::Storm { end: End::Rst, rate: None, in_flight: 8, attempts_max: 3 };
    let stages = vec![connect(&[]), storm, Stage::Close];
    let report = report(plan(serve(Faults::default()), vec![clients("clients", 50)], stages));
    assert!(report.is_clean(), "{:?}", report.problems);
    let storm = &report.stages[1];
    assert_eq!((storm.kind.as_str(), storm.counters.ready, storm.counters.live), ("storm", 50, 50));
    assert!(storm.recovery_s.is_some());
}

#[test]
fn an_observer_sees_each_stage_end() {
    let mut seen = Vec::new();
    let stages = vec![connect(&[]), Stage::Close];
    let plan = plan(serve(Faults::default()), vec![clients("clients", 3)], stages);
    let mut observer = |s: &Snapshot| {
        if s.stage_ended {
            seen.push((s.stage_kind.clone(), s.counters.live));
        }
    };
    run(plan, &RunOptions::default(), &mut observer).expect("the run can be made");
    assert_eq!(seen, [("connect".to_owned(), 3), ("close".to_owned(), 0)]);
}

#[test]
fn a_plan_survives_json() {
    let target = "127.0.0.1:1".parse().expect("an address");
    let populations =
        vec![subscribers(2, "t/{0..3}/%i", Expect::Matching(1)), publishers(1, "t", 5)];
    let plan = plan(target, populations, vec![connect(&[]), traffic(), Stage::Close]);
    let json = serde_json::to_string(&plan).expect("a plan is data");
    let back: Plan = serde_json::from_str(&json).expect("and comes back");
    assert_eq!(serde_json::to_string(&back).expect("as it was"), json);
}
