use std::cell::Cell;

use super::*;

thread_local! {
    static NOW: Cell<u64> = const { Cell::new(0) };
}

fn now() -> u64 {
    NOW.get()
}

fn pass(ns: u64) {
    NOW.set(NOW.get() + ns);
}

const CONN: ConnId = ConnId { index: 7, generation: 1 };
const HERE: ShardId = ShardId(0);
const THERE: ShardId = ShardId(1);

fn recorder() -> Recorder {
    NOW.set(1_000_000);
    let mut r = Recorder::default();
    r.start(Some(Recording { clock: now, origin_ns: 0, delay: None }));
    r.start_turn(now(), 5_000, Between::Submit);
    r
}

/// Publishes one message that is followed, with these times in each stage.
fn publish(r: &mut Recorder, decode: u64, authorise: u64, route: u64, ack: Option<(u32, u16)>) {
    assert!(r.begin());
    pass(decode);
    r.mark(Stage::Decode);
    pass(authorise);
    r.describe(HERE, "publisher", "a/topic", 10);
    r.mark(Stage::Authorise);
    pass(route);
    r.copy(CONN, "subscriber", u8::from(ack.is_some()), ack);
    r.handled(HERE);
}

/// What a driver does: the socket takes everything after `send`.
fn send_all(r: &mut Recorder, send: u64) {
    pass(send);
    for mut followed in r.take_written().expect("something was written") {
        let journey = &mut followed.journey;
        journey.trace.spans_ns[Stage::Send as usize] = now() - journey.mark_ns;
        journey.mark_ns = now();
        r.sent(followed);
    }
}

fn traces(r: &mut Recorder) -> Vec<Trace> {
    r.take(Box::default()).slowest
}

#[test]
fn a_followed_message_has_its_time_in_each_stage() {
    let mut r = recorder();
    pass(50); // others of the same turn
    publish(&mut r, 100, 200, 300, None);
    send_all(&mut r, 4000);
    let [trace] = &traces(&mut r)[..] else { panic!("one message") };
    let ns = |stage: Stage| trace.spans_ns[stage as usize];
    let expected = [
        (Stage::Turn, 50),
        (Stage::Decode, 100),
        (Stage::Authorise, 200),
        (Stage::Route, 300),
        (Stage::Send, 4000),
    ];
    for (stage, expected) in expected {
        assert_eq!(ns(stage), expected, "{stage:?}");
    }
    assert_eq!(trace.total_ns(), 4650);
    assert_eq!(trace.slowest(), Stage::Send);
    assert_eq!((&*trace.publisher, &*trace.subscriber), ("publisher", "subscriber"));
    assert_eq!((&*trace.topic, trace.payload_bytes, trace.read_unix_ms), ("a/topic", 10, 5000));
}

#[test]
fn a_message_that_crosses_takes_its_times_along() {
    let mut a = recorder();
    assert!(a.begin());
    a.mark(Stage::Decode);
    a.describe(HERE, "publisher", "a/topic", 10);
    a.mark(Stage::Authorise);
    pass(70);
    let journey = a.cross().expect("it is followed");
    a.handled(HERE);
    assert!(a.take_written().is_none(), "it has no copy here");
    let mut b = recorder();
    NOW.set(journey.mark_ns);
    pass(9_000);
    b.arrive(journey);
    pass(30);
    b.copy(CONN, "subscriber", 0, None);
    b.handled(THERE);
    send_all(&mut b, 1);
    let [trace] = &traces(&mut b)[..] else { panic!("one message") };
    assert_eq!(trace.spans_ns[Stage::Crossing as usize], 9_000);
    assert_eq!(trace.spans_ns[Stage::Route as usize], 100, "of both shards");
    assert_eq!((trace.from, trace.to), (HERE, THERE));
}

#[test]
fn an_acknowledgement_counts_whether_it_comes_before_or_after_the_end_of_the_send() {
    for late in [true, false] {
        let mut r = recorder();
        publish(&mut r, 1, 1, 1, Some((3, 77)));
        if late {
            send_all(&mut r, 10);
            pass(5_000);
            r.start_turn(now(), 0, Between::Sleep);
            r.acked(3, 77);
        } else {
            pass(20);
            r.start_turn(now(), 0, Between::Sleep);
            r.acked(3, 77);
            send_all(&mut r, 10);
        }
        let [trace] = &traces(&mut r)[..] else { panic!("one message, late {late}") };
        let expected = if late { 5_000 } else { 0 };
        assert_eq!(trace.spans_ns[Stage::Acknowledge as usize], expected);
        r.acked(3, 77);
        assert!(traces(&mut r).is_empty(), "it ended already");
    }
}

#[test]
fn a_message_that_is_never_acknowledged_gives_its_place_away() {
    let mut r = recorder();
    publish(&mut r, 1, 1, 1, Some((3, 77)));
    send_all(&mut r, 10);
    assert!(traces(&mut r).is_empty(), "it is not over");
    r.await_ack(AckKey { session: 3, packet_id: 77 });
    assert_eq!(traces(&mut r).len(), 1);
    assert_eq!(r.awaited, 1);
}

#[test]
fn a_refused_message_leaves_nothing_behind() {
    let mut r = recorder();
    assert!(r.begin());
    r.handled(HERE);
    assert!(!r.is_following() && r.take_written().is_none());
    assert_eq!(r.take(Box::default()).histograms.stage(Stage::Route).len(), 0);
}

#[test]
fn of_a_large_fan_out_some_copies_are_followed() {
    let mut r = recorder();
    assert!(r.begin());
    r.describe(HERE, "publisher", "a/topic", 10);
    r.mark(Stage::Authorise);
    for index in 0..5_000 {
        r.copy(ConnId { index, generation: 0 }, "subscriber", 0, None);
    }
    r.handled(HERE);
    let conns: Vec<u32> = r.take_written().expect("some").iter().map(|f| f.conn.index).collect();
    assert_eq!(conns.len(), COPIES_MAX);
    assert!(conns.iter().any(|c| *c >= COPIES_MAX as u32), "not just the first: {conns:?}");
}

#[test]
fn what_waited_in_a_queue_is_noted_and_followed_from_there() {
    let mut r = recorder();
    assert!(r.queued(HERE, 40_000_000, "q", 1));
    r.copy(CONN, "subscriber", 1, Some((1, 1)));
    r.handled(HERE);
    send_all(&mut r, 10);
    r.acked(1, 1);
    let Observed { histograms, slowest, .. } = r.take(Box::default());
    assert_eq!(histograms.stage(Stage::Queue).len(), 1);
    assert_eq!(histograms.stage(Stage::Route).len(), 0, "it was routed long ago");
    assert_eq!(slowest[0].slowest(), Stage::Queue);
}

#[test]
fn turns_and_the_time_between_them_add_up() {
    let mut r = recorder();
    r.record_turns(9, 1);
    r.part(0);
    pass(300);
    let counts = TurnCounts { completions: 3, mails: 2, sends: 1 };
    r.end_turn(HERE, true, counts);
    pass(1_000);
    r.start_turn(now(), 0, Between::Sleep);
    r.end_turn(HERE, false, TurnCounts::default());
    pass(1_000_000);
    let (token, spans) = r.turns_recorded(now()).expect("a millisecond is over");
    assert_eq!((token, spans.len()), (9, 1), "a turn without work is none");
    assert_eq!((spans[0].enter_ns, spans[0].slept, spans[0].completions), (1_000, true, 3));
    assert_eq!(spans[0].inputs_ns + spans[0].mail_ns + spans[0].perform_ns, 300);
    let times = r.take(Box::default()).times;
    assert_eq!((times.turns_ns, times.slept_ns, times.longest_turn_ns), (300, 1_000, 300));
}

#[test]
fn a_message_that_came_during_a_long_turn_may_have_waited_for_it() {
    use Between::{Sleep, SleepWithWork, Submit};
    for (away, between, unread) in [
        (10, Submit, 5_010),
        (6_000, Submit, 11_000),
        (10, Sleep, 0),
        (10, SleepWithWork, 5_010),
        (2 * SLEPT_NS, SleepWithWork, 0),
    ] {
        let mut r = recorder();
        pass(5_000);
        r.end_turn(HERE, true, TurnCounts::default());
        pass(away);
        r.start_turn(now(), 0, between);
        publish(&mut r, 1, 1, 1, None);
        send_all(&mut r, 1);
        let arrival = traces(&mut r)[0].spans_ns[Stage::Arrival as usize];
        assert_eq!(arrival, unread, "away {away}, {between:?}");
    }
}

#[test]
fn nothing_is_noted_when_it_is_off() {
    let mut r = Recorder::default();
    assert!(!r.begin());
    r.record(Stage::Send, 1);
    assert_eq!(r.clock(), 0);
    assert_eq!(r.take(Box::default()).histograms.stage(Stage::Send).len(), 0);
}

#[test]
fn each_send_counts_once_however_many_took_the_same_time() {
    let mut r = recorder();
    for _ in 0..1_000 {
        r.coalesced(640);
        r.send_completed(64_000);
    }
    r.send_completed(9_000_000);
    for _ in 0..5 {
        r.send_completed(64_000);
    }
    let seen = r.take(Box::default()).histograms;
    assert_eq!(seen.stage(Stage::Coalesce).len(), 1_000);
    let sends = seen.stage(Stage::Send);
    assert_eq!((sends.len(), sends.count_between(60_000, 70_000)), (1_006, 1_005));
    r.send_completed(64_000);
    let seen = r.take(Box::default()).histograms;
    assert_eq!(seen.stage(Stage::Send).len(), 1, "what was taken does not come again");
    assert_eq!(seen.stage(Stage::Coalesce).len(), 0);
}

#[test]
fn each_turn_counts_once_however_many_were_alike() {
    let mut r = recorder();
    let turn = |r: &mut Recorder, completions, sends| {
        r.end_turn(HERE, true, TurnCounts { completions, mails: 0, sends });
    };
    (0..10).for_each(|_| turn(&mut r, 2, 1));
    turn(&mut r, 700, 300);
    let seen = r.take(Box::default()).histograms;
    let completions = seen.turn(PerTurn::Completions);
    assert_eq!((completions.len(), completions.min(), completions.max()), (11, 2, 703));
    assert_eq!(seen.turn(PerTurn::Sends).count_at(1), 10);
    assert_eq!((seen.turn(PerTurn::Mails).len(), seen.turn(PerTurn::Mails).max()), (11, 0));
    assert_eq!(r.take(Box::default()).histograms.turn(PerTurn::Mails).len(), 0);
}

#[test]
fn a_batch_of_another_shard_is_timed_even_if_its_clock_is_a_step_ahead() {
    let mut r = recorder();
    let sent = r.tick();
    pass(64 * 100);
    r.crossed(sent, r.tick());
    r.crossed(r.tick() + 1, r.tick());
    r.crossed(u32::MAX - 1, 8); // it counts away after four minutes
    let seen = r.take(Box::default()).histograms;
    let crossing = seen.stage(Stage::Crossing);
    assert_eq!((crossing.len(), crossing.count_between(6_300, 6_500)), (3, 1));
    assert_eq!(crossing.count_between(600, 680), 1, "ten steps of 64 ns");
}
