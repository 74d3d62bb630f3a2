//! The operator's tools against a running broker.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::fd::AsRawFd;
use std::process::Stdio;
use std::time::{Duration, Instant};

use ringmain_mqtt::Packet;
use serde_json::Value;

use super::support::{Broker, Client, Folder, NO_METRICS, PATIENCE, V311, connect, ringmain, set};

fn start(name: &str, settings: &[&str]) -> (Broker, Folder) {
    let folder = Folder::new(&format!("observe-{name}"));
    (Broker::start(&folder, 2, settings), folder)
}

#[test]
fn a_subscriber_that_acknowledges_late_is_named_with_its_stage() {
    let (broker, _folder) = start("slow", &["mqtt.max_inflight=1"]);
    let (mut quick, mut slow) = (broker.client(V311, "quick"), broker.client(V311, "slow-one"));
    quick.subscribe(&["quick/t"]);
    slow.subscribe(&["slow/t"]);
    let mut publisher = broker.client(V311, "publisher");
    let late = Duration::from_millis(30);
    let readers = [
        std::thread::spawn(move || (0..200).for_each(|_| quick.take(Duration::ZERO))),
        std::thread::spawn(move || (0..20).for_each(|_| slow.take(late))),
    ];
    for n in 0..200 {
        publisher.publish("quick/t", n + 1);
        if n < 20 {
            publisher.publish("slow/t", 1000 + n);
        }
    }
    readers.into_iter().for_each(|r| r.join().unwrap());
    let answer = broker.json("explain-slow", &[]);
    let worst = &answer["slowest"][0];
    assert_eq!(
        (&worst["subscriber"], &worst["topic"]),
        (&"slow-one".into(), &"slow/t".into()),
        "{answer}"
    );
    assert_eq!(answer["clients"][0]["name"], "slow-one", "{answer}");
    let stage = answer["verdict"]["stage"].as_str().unwrap();
    assert!(["queue", "acknowledge"].contains(&stage), "{answer}");
    let shown = broker.ask("explain-slow", &["-n", "1"]);
    assert!(String::from_utf8_lossy(&shown.stdout).starts_with("p99.9 is "), "{shown:?}");
}

#[test]
fn the_ledger_balances_after_traffic_in_which_clients_are_cut_off() {
    let (broker, _folder) = start("audit", &["mqtt.max_mqueue_len=3"]);
    let mut publisher = broker.client(V311, "publisher");
    for round in 0..20_u16 {
        let mut gone = broker.client(V311, &format!("gone-{round}"));
        let mut away = broker.lasting(&format!("away-{round}"));
        let id = format!("member-{round}");
        let mut member =
            if round % 2 == 0 { broker.client(V311, &id) } else { broker.lasting(&id) };
        gone.subscribe(&["t/#"]);
        away.subscribe(&["t/+"]);
        member.subscribe(&["$share/g/t/1"]);
        publisher.publish("t/1", 2 * round + 1);
        gone.take(Duration::ZERO);
        // Cut off with a message in flight; its session ends, those of the others stay or end.
        drop((gone, away, member));
        publisher.publish("t/1", 2 * round + 2);
    }
    let output = broker.ask("audit", &["--wait", "60", "--json"]);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let ledger: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((&ledger["quiet"], &ledger["balanced"]), (&true.into(), &true.into()), "{ledger}");
    let total = |name: &str| ledger["total"][name].as_u64().unwrap();
    assert!(total("matched") > 100 && total("completed") >= 20 && total("queued") > 0, "{ledger}");
    assert!(!ledger["total"]["dropped"].as_object().unwrap().is_empty(), "{ledger}");
    assert_eq!(ledger["shards"].as_array().unwrap().len(), 2);
}

#[test]
fn top_counts_what_clients_do() {
    let (broker, _folder) = start("top", &[]);
    let mut subscriber = broker.client(V311, "subscriber");
    subscriber.subscribe(&["t"]);
    let mut publisher = broker.client(V311, "publisher");
    let traffic = std::thread::spawn(move || {
        let until = Instant::now() + Duration::from_secs(3);
        while Instant::now() < until {
            publisher.publish("t", 5);
            subscriber.take(Duration::ZERO);
        }
    });
    let seen = broker.json("top", &["--once", "--interval", "1"]);
    traffic.join().unwrap();
    assert_eq!(seen["connections"], 2, "{seen}");
    assert!(seen["received_per_s"].as_f64().unwrap() > 0.0, "{seen}");
    assert!(seen["stages"]["send"]["count"].as_u64().unwrap() > 0, "{seen}");
    let loop_of = |name: &str| seen["shards"][0][name].as_f64().unwrap();
    assert!(loop_of("busy") + loop_of("waiting") > 0.5, "{seen}");
}

#[test]
fn a_broker_samples_itself_and_records_its_turns_while_it_serves() {
    let (broker, folder) = start("profile", &[]);
    let mut publisher = broker.client(V311, "publisher");
    let traffic = std::thread::spawn(move || {
        let until = Instant::now() + Duration::from_secs(4);
        let mut messages = 0_u32;
        while Instant::now() < until {
            publisher.publish("nobody/here", 5);
            messages += 1;
        }
        messages
    });
    let file = |name: &str| folder.0.join(name).to_str().unwrap().to_owned();
    let (svg, folded, turns) = (file("a.svg"), file("a.txt"), file("turns.json"));
    let files = ["--output", &svg, "--folded", &folded, "--turns", &turns];
    let written =
        broker.json("profile", &[&["--source", "broker", "--seconds", "2"], &files[..]].concat());
    assert!(traffic.join().unwrap() > 0, "it serves while it is sampled");
    assert!(written["total"].as_u64().unwrap() > 0, "{written}");
    assert!(written["turns"]["count"].as_u64().unwrap() > 0, "{written}");
    let folded = std::fs::read_to_string(&folded).unwrap();
    // Debug information of this build may lack inlined functions; the reactor's are there in any case.
    assert!(folded.contains("ringmain_shards::reactor"), "{folded}");
    let trace: Value = serde_json::from_str(&std::fs::read_to_string(&turns).unwrap()).unwrap();
    let is_turn = |e: &&Value| e["name"] == "turn";
    assert!(trace["traceEvents"].as_array().unwrap().iter().filter(is_turn).count() > 10);
}

/// What `explain-slow` says when four subscribers of a topic each have got a few messages from a broker that is
/// slow in one stage. Some of them are on another shard than the publisher where that is the stage.
fn slowest_of_delayed(stage: &str) -> Value {
    let delay = format!("observe.delay_stage={stage}");
    let settings = [&delay, "observe.delay_us=100000", "node.hash_seed=7"];
    let folder = Folder::new(&format!("observe-{stage}"));
    let broker = Broker::start(&folder, if stage == "crossing" { 2 } else { 1 }, &settings);
    let mut publisher = broker.client(V311, "publisher");
    let mut subscribers: Vec<Client> = (0..4)
        .map(|n| {
            let mut subscriber = broker.client(V311, &format!("subscriber-{n}"));
            subscriber.subscribe(&[&format!("delayed/{n}")]);
            subscriber
        })
        .collect();
    for round in 0..3 {
        for (n, subscriber) in (0..).zip(&mut subscribers) {
            publisher.publish(&format!("delayed/{n}"), 10 * round + n + 1);
            subscriber.take(Duration::ZERO);
            // Its acknowledgement is read when its ping is answered, and so does not wait for the next message.
            subscriber.send(|out| out.extend_from_slice(&[0xc0, 0]));
            subscriber.next(|p| matches!(p, Packet::PingResp).then_some(()));
        }
    }
    // The last acknowledgements are on their way.
    let until = Instant::now() + PATIENCE;
    loop {
        let answer = broker.json("explain-slow", &[]);
        if answer["followed"].as_u64() == Some(12) || Instant::now() > until {
            return answer;
        }
    }
}

#[test]
fn a_delay_in_any_one_stage_is_named() {
    for stage in ["turn", "decode", "authorise", "route", "crossing", "coalesce", "send"] {
        let answer = slowest_of_delayed(stage);
        assert_eq!(answer["followed"], 12, "{stage}: {answer}");
        let slowest = answer["slowest"].as_array().expect("a list");
        let named = slowest.iter().filter(|trace| trace["slowest_stage"] == stage).count();
        // `arrival` is an upper bound: where the operator asks something between two turns, it holds the delay of the
        // turn before.
        // Three subscribers of four are on another shard.
        assert!(named >= 8, "{stage}, {named} of 12: {answer}");
        assert_eq!(answer["verdict"]["stage"], slowest[0]["slowest_stage"], "{answer}");
    }
}

#[test]
fn messages_that_came_while_the_shard_was_busy_elsewhere_are_told_to_have_arrived_late() {
    let settings = ["observe.delay_stage=arrival", "observe.delay_us=100000"];
    let (broker, _folder) = start("arrival", &settings);
    let mut subscriber = broker.client(V311, "subscriber");
    subscriber.subscribe(&["t"]);
    let mut publisher = broker.client(V311, "publisher");
    for _ in 0..20 {
        // QoS 0, without waiting for anything.
        publisher.stream.write_all(b"\x30\x05\x00\x01thi").expect("sends");
        std::thread::sleep(Duration::from_millis(30));
    }
    (0..20).for_each(|_| subscriber.next(|p| matches!(p, Packet::Publish(_)).then_some(())));
    let answer = broker.json("explain-slow", &[]);
    // The delay is before the system call that starts sends: so those take as long.
    let slowest = answer["slowest"].as_array().expect("a list");
    let is_late = |m: &Value| m["stages_ns"]["arrival"].as_u64() > Some(50_000_000);
    assert!(slowest.iter().any(is_late), "{answer}");
}

#[test]
fn a_message_that_waited_for_its_client_to_come_back_spent_its_time_in_the_queue() {
    let (broker, _folder) = start("queue", &[]);
    let mut away = broker.lasting("away");
    away.subscribe(&["t"]);
    // The broker closes when it has read that.
    away.send(|out| out.extend_from_slice(b"\xe0\x00"));
    away.stream.read_to_end(&mut Vec::new()).expect("an end");
    let mut publisher = broker.client(V311, "publisher");
    publisher.publish("t", 1);
    std::thread::sleep(Duration::from_millis(200));
    broker.lasting("away").take(Duration::ZERO);
    let until = Instant::now() + PATIENCE;
    loop {
        let answer = broker.json("explain-slow", &[]);
        let worst = &answer["slowest"][0];
        if worst["slowest_stage"] == "queue" && worst["subscriber"] == "away" {
            return;
        }
        assert!(Instant::now() < until, "{answer}");
    }
}

#[test]
fn a_log_that_nobody_reads_stops_nothing() {
    let folder = Folder::new("observe-log");
    let mut command = ringmain();
    command.args(["--shards", "1", "--listen", "tcp://127.0.0.1:0", "--data-dir"]);
    command.arg(folder.data()).args(set(&[NO_METRICS]));
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("starts");
    let mut stderr = child.stderr.take().expect("is piped");
    let mut said = String::new();
    while !said.contains("ready\n") {
        let mut chunk = [0; 256];
        let n = stderr.read(&mut chunk).unwrap();
        said.push_str(std::str::from_utf8(&chunk[..n]).unwrap());
    }
    let address = said.split("address=").nth(1).unwrap().split_whitespace().next().unwrap();
    let broker = Broker::adopt(child, address.parse().unwrap(), &folder);
    // SAFETY: changes the size of a pipe that this process owns; no memory involved.
    let size = unsafe { libc::fcntl(stderr.as_raw_fd(), libc::F_SETPIPE_SZ, 4096) };
    assert_eq!(size, 4096, "{}", std::io::Error::last_os_error());
    // Each of these is worth a line in the log.
    for _ in 0..200 {
        let mut stray = TcpStream::connect(broker.address()).unwrap();
        stray.write_all(b"GET / HTTP/1.0\r\n\r\n").unwrap();
        let _ = stray.read_to_end(&mut Vec::new());
    }
    let mut subscriber = broker.client(V311, "subscriber");
    subscriber.subscribe(&["t"]);
    let mut publisher = broker.client(V311, "publisher");
    publisher.publish("t", 1);
    subscriber.take(Duration::ZERO);
    let seen = broker.json("top", &["--once", "--interval", "1"]);
    assert_eq!(seen["connections"], 2, "{seen}");
    assert_eq!(broker.stop().0, Some(0));
}

#[test]
fn a_stalled_shard_is_reported_with_the_function_that_it_is_in() {
    // Each turn with work takes a second, in a function whose name is known.
    let delay = ["observe.delay_stage=arrival", "observe.delay_us=1000000", "observe.stall_ms=100"];
    let (broker, _folder) = start("stall", &delay);
    let mut client = Client::open(broker.address(), V311);
    client.send(|out| connect(V311, "a").encode(out));
    let said = broker.lines_until("a shard stalls");
    let line = said.last().unwrap();
    assert!(line.contains("WARN") && line.contains("Recorder::end_turn < "), "{line}");
    assert!(line.contains("NetTask::turn < "), "{line}");
    let node = broker.json("top", &["--once", "--interval", "1"]);
    let stalls = |shard: usize| node["shards"][shard]["stalls"].as_u64().unwrap_or(0);
    assert!(stalls(0) + stalls(1) > 0, "{node}");
}

#[test]
fn who_leaves_with_a_message_pending_takes_no_place_among_those_that_are_followed() {
    let folder = Folder::new("observe-leave");
    let broker = Broker::start(&folder, 1, &["listeners.0.send_buffer_bytes=4608"]);
    let mut publisher = broker.client(V311, "publisher");
    // QoS 0, 1,000,000 bytes behind the topic: more than the buffers of a socket that nobody reads.
    let large = [b"\x30\xc3\x84\x3d\x00\x01l".as_slice(), &[0; 1_000_000]].concat();
    for n in 0..100 {
        let mut leaves = broker.client(V311, &format!("leaves-{n}"));
        leaves.subscribe(&["l"]);
        publisher.stream.write_all(&large).expect("sends");
        let begun = leaves.stream.read(&mut [0; 16]).expect("it comes");
        assert!(begun > 0);
    }
    let mut stays = broker.client(V311, "stays");
    stays.subscribe(&["s"]);
    let until = Instant::now() + PATIENCE;
    loop {
        // After so many at once not each one is followed.
        publisher.publish("s", 1);
        stays.take(Duration::ZERO);
        let answer = broker.json("explain-slow", &["-n", "1000"]);
        let slowest = answer["slowest"].as_array().unwrap();
        if let Some(last) = slowest.iter().find(|m| m["subscriber"] == "stays") {
            // The shard may have slept through the end of its send, and says so.
            let send = last["stages_ns"]["send"].as_u64();
            assert!(send > Some(0) || last["send_unseen"] == true, "{last}");
            return;
        }
        assert!(Instant::now() < until, "{answer}");
    }
}
