//! What one broker process must hold, and give back. Minutes of work: `tests/limits/run.sh`.

use ringmain_limits::Broker;

/// What anonymous memory may grow by over 200,000 connections that came and went: under 22 bytes
/// for each. A leak of a connection's state (hundreds of bytes) is above it, an allocator's
/// scatter below.
const GROWTH_MAX: u64 = 4 << 20;
/// What the first 60,200 connections may leave: the slabs that the next ones use, and the receive
/// buffers (two shards of 16 MiB and two more rings of 4 MiB each) that are touched for the first
/// time.
const KEPT_MAX: u64 = 48 * (1 << 20) + 60_200 * 640;

#[test]
#[ignore = "17,400 connections: run tests/limits/run.sh"]
fn seventeen_thousand_idle_connections_do_not_disturb_traffic() {
    let broker = Broker::start(24_001, 2);
    // Each message of 200 pairs arrives once and in order beside 17,000 that only ping.
    let traffic = "pair -c 200 --idle 17000 -k 10 --hold 12 -F 8 --quiet";
    for qos in [0, 1, 2] {
        let report = broker.load(&format!("{traffic} -q {qos} -d 5"));
        assert_eq!(report.counters.ready, 17_400);
        assert!(report.counters.pings >= 17_000, "{} pings", report.counters.pings);
        let account = report.account.expect("pairs are checked");
        assert!(account.received > 0 && account.lost == 0 && account.duplicates == 0);
    }
}

#[test]
#[ignore = "60,000 connections: run tests/limits/run.sh"]
fn sixty_thousand_idle_connections_fit_through_several_rings() {
    let broker = Broker::start(24_002, 2);
    if broker.is_peer() {
        println!("skipped: another broker has no more connections than descriptors");
        return;
    }
    let fresh = broker.sample();
    let load =
        "pair -c 100 --idle 60000 -k 20 --hold 25 -F 4 -q 1 -d 5 --settle 1 --quiet --workers 2";
    let report = broker.load(load);
    assert_eq!(report.counters.ready, 60_200);
    assert!(report.counters.pings >= 60_000, "{} pings", report.counters.pings);
    let held = report.broker_at("settled").expect("the broker ran");
    let (held, limit) = (held.descriptors.unwrap_or(0), report.environment.descriptors);
    assert!(held < limit && held < 1000, "{held} descriptors for 60,200 connections");
    assert_eq!(broker.connections(1).expect("$SYS answers"), 1, "only the question is connected");
    let before = broker.sample();
    assert_eq!(before.descriptors, fresh.descriptors, "descriptors come back");
    let kept = before.anonymous.saturating_sub(fresh.anonymous);
    assert!(kept <= KEPT_MAX, "{kept} bytes stayed after 60,200 connections closed");
    // What stayed is used by the next as many; they add nothing.
    broker.load("conn -c 60000 --quiet --workers 2");
    assert_eq!(broker.connections(1).expect("$SYS answers"), 1, "only the question is connected");
    let after = broker.sample();
    assert_eq!(after.descriptors, before.descriptors, "descriptors come back");
    let grown = after.anonymous.saturating_sub(before.anonymous);
    assert!(grown <= GROWTH_MAX, "anonymous memory grew by {grown} bytes");
    broker.stop();
}

#[test]
#[ignore = "200,000 connections, one after another: run tests/limits/run.sh"]
fn two_hundred_thousand_connections_that_came_and_went_leave_nothing() {
    let broker = Broker::start(24_003, 2);
    // What is set up once, and what the allocator keeps for 1000 at a time, does not count.
    let churn = "conn -c 1000 -t limits/%i --settle 2 --quiet";
    for end in ["disconnect", "fin", "rst"] {
        broker.load(&format!("{churn} --cycles 10 --end {end}"));
    }
    let before = broker.sample();
    for (end, cycles) in [("disconnect", 70), ("fin", 65), ("rst", 65)] {
        let report = broker.load(&format!("{churn} --cycles {cycles} --end {end}"));
        assert_eq!(report.counters.ready, 1000 * cycles);
    }
    if !broker.is_peer() {
        let open = broker.connections(1).expect("$SYS answers");
        assert_eq!(open, 1, "only the question is connected");
    }
    let after = broker.sample();
    assert_eq!(after.descriptors, before.descriptors, "descriptors come back");
    let grown = after.anonymous.saturating_sub(before.anonymous);
    assert!(grown <= GROWTH_MAX, "anonymous memory grew by {grown} bytes");
    // The slots are free again: as many connections as before still fit.
    broker.load("conn -c 17000 --quiet");
}
