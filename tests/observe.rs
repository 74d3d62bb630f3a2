//! The operator's tools against a running broker.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use ringmain_mqtt::{
    Connect, ConnectProps, Forward, Packet, PacketId, PublishOut, QoS, Role, Rules,
    SubscribeOptions, Version, decode, encode, header,
};
use serde_json::Value;

/// Bounds every wait; nothing here takes this long unless it fails.
const PATIENCE: Duration = Duration::from_secs(60);
const V311: Version = Version::V311;

/// A broker, and its folder.
struct Broker {
    child: Child,
    folder: PathBuf,
    address: SocketAddr,
}

impl Broker {
    fn start(name: &str, set: &[&str]) -> Self {
        Self::start_sharded(name, 2, set)
    }

    fn start_sharded(name: &str, shards: usize, set: &[&str]) -> Self {
        let folder =
            std::env::temp_dir().join(format!("ringmain-observe-{}-{name}", std::process::id()));
        let _ = std::fs::remove_dir_all(&folder);
        std::fs::create_dir_all(&folder).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_ringmain"));
        command.args(["--shards", &shards.to_string(), "--listen", "tcp://127.0.0.1:0"]);
        command.arg("--data-dir").arg(&folder);
        // Only the socket: the port of the metrics may be another test's.
        for pair in set.iter().chain(&["admin.metrics_listen=", "node.pin_cores=false"]) {
            command.args(["--set", pair]);
        }
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("starts");
        let mut lines = BufReader::new(child.stderr.take().expect("is piped")).lines();
        let mut address = None;
        loop {
            let line = lines.next().expect("says that it is ready").unwrap();
            if let Some((_, rest)) = line.split_once("address=") {
                address = rest.split_whitespace().next().and_then(|a| a.parse().ok());
            }
            if line.contains("ready") {
                break;
            }
        }
        // It must not be stopped by a full pipe.
        std::thread::spawn(move || lines.for_each(drop));
        Self { child, folder, address: address.expect("says where it listens") }
    }

    /// Runs a command of the binary at this broker.
    fn ask(&self, command: &str, arguments: &[&str]) -> Output {
        Command::new(env!("CARGO_BIN_EXE_ringmain"))
            .args([command, "--data-dir"])
            .arg(&self.folder)
            .args(arguments)
            .output()
            .unwrap()
    }

    fn json(&self, command: &str, arguments: &[&str]) -> Value {
        let output = self.ask(command, &[arguments, &["--json"]].concat());
        serde_json::from_slice(&output.stdout).unwrap_or_else(|e| panic!("{e}: {output:?}"))
    }

    fn client(&self, id: &str, clean_start: bool) -> Client {
        let stream = TcpStream::connect(self.address).expect("connects");
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_nodelay(true).unwrap();
        let mut client = Client { stream, bytes: Vec::new() };
        let connect = Connect {
            version: V311,
            bridge: false,
            clean_start,
            keep_alive_s: 0,
            client_id: id,
            username: None,
            password: None,
            will: None,
            props: ConnectProps::default(),
        };
        client.send(|out| connect.encode(out));
        client.next(|p| matches!(p, Packet::ConnAck(_)).then_some(()));
        client
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

struct Client {
    stream: TcpStream,
    bytes: Vec<u8>,
}

impl Client {
    fn send(&mut self, write: impl FnOnce(&mut Vec<u8>)) {
        let mut out = Vec::new();
        write(&mut out);
        self.stream.write_all(&out).expect("sends");
    }

    /// The first packet that `take` takes.
    fn next<T>(&mut self, take: impl Fn(&Packet<'_>) -> Option<T>) -> T {
        loop {
            let h = header(&self.bytes, false).expect("a header");
            if let Some(h) = h.filter(|h| h.total_len() <= self.bytes.len()) {
                let packet: Vec<u8> = self.bytes.drain(..h.total_len()).collect();
                let body = &packet[usize::from(h.len)..];
                let rules = Rules { strict_utf8: false };
                let packet = decode(h, body, V311, Role::Client, &rules).expect("valid");
                if let Some(taken) = take(&packet) {
                    return taken;
                }
                continue;
            }
            let mut chunk = [0; 4096];
            let n = self.stream.read(&mut chunk).expect("says something");
            assert!(n > 0, "the broker closed the connection");
            self.bytes.extend_from_slice(&chunk[..n]);
        }
    }

    fn subscribe(&mut self, filter: &str) {
        let options = SubscribeOptions { qos: QoS::AtLeastOnce, ..SubscribeOptions::default() };
        let id = PacketId::new(7).unwrap();
        self.send(|out| encode::subscribe(out, V311, id, None, &[(filter, options)]));
        self.next(|p| matches!(p, Packet::SubAck(_)).then_some(()));
    }

    /// Publishes with QoS 1 and waits for PUBACK.
    fn publish(&mut self, topic: &str, packet_id: u16) {
        self.send(|out| {
            let publish = PublishOut {
                dup: false,
                qos: QoS::AtLeastOnce,
                retain: false,
                topic,
                packet_id,
                message_expiry_s: None,
                topic_alias: None,
                subscription_ids: &[],
                forward: Forward::EMPTY,
                payload_len: 2,
            };
            publish.encode_head(out, V311);
            out.extend_from_slice(b"hi");
        });
        self.next(|p| matches!(p, Packet::PubAck(_)).then_some(()));
    }

    /// Waits for a message and acknowledges it after so long.
    fn take(&mut self, after: Duration) {
        let id = self.next(|p| match p {
            Packet::Publish(publish) => publish.packet_id,
            _ => None,
        });
        std::thread::sleep(after);
        // PUBACK of version 3.1.1.
        let [high, low] = id.get().to_be_bytes();
        self.send(|out| out.extend_from_slice(&[0x40, 2, high, low]));
    }
}

#[test]
fn a_subscriber_that_acknowledges_late_is_named_with_its_stage() {
    let broker = Broker::start("slow", &["mqtt.max_inflight=1"]);
    let (mut quick, mut slow) = (broker.client("quick", true), broker.client("slow-one", true));
    quick.subscribe("quick/t");
    slow.subscribe("slow/t");
    let mut publisher = broker.client("publisher", true);
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
    let broker = Broker::start("audit", &["mqtt.max_mqueue_len=3"]);
    let mut publisher = broker.client("publisher", true);
    for round in 0..20_u16 {
        let mut gone = broker.client(&format!("gone-{round}"), true);
        let mut away = broker.client(&format!("away-{round}"), false);
        let mut member = broker.client(&format!("member-{round}"), round % 2 == 0);
        gone.subscribe("t/#");
        away.subscribe("t/+");
        member.subscribe("$share/g/t/1");
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
    let broker = Broker::start("top", &[]);
    let mut subscriber = broker.client("subscriber", true);
    subscriber.subscribe("t");
    let mut publisher = broker.client("publisher", true);
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
    let broker = Broker::start("profile", &[]);
    let mut publisher = broker.client("publisher", true);
    let traffic = std::thread::spawn(move || {
        let until = Instant::now() + Duration::from_secs(4);
        let mut messages = 0_u32;
        while Instant::now() < until {
            publisher.publish("nobody/here", 5);
            messages += 1;
        }
        messages
    });
    let file = |name: &str| broker.folder.join(name).to_str().unwrap().to_owned();
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
    let set = [&delay, "observe.delay_us=100000", "node.hash_seed=7"];
    let broker = Broker::start_sharded(stage, if stage == "crossing" { 2 } else { 1 }, &set);
    let mut publisher = broker.client("publisher", true);
    let mut subscribers: Vec<Client> = (0..4)
        .map(|n| {
            let mut subscriber = broker.client(&format!("subscriber-{n}"), true);
            subscriber.subscribe(&format!("delayed/{n}"));
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
        assert_eq!(answer["slowest"][0]["slowest_stage"], stage, "{answer}");
        assert_eq!(answer["verdict"]["stage"], stage, "{answer}");
    }
}

#[test]
fn messages_that_came_while_the_shard_was_busy_elsewhere_are_told_to_have_arrived_late() {
    let set = ["observe.delay_stage=arrival", "observe.delay_us=100000"];
    let broker = Broker::start("arrival", &set);
    let mut subscriber = broker.client("subscriber", true);
    subscriber.subscribe("t");
    let mut publisher = broker.client("publisher", true);
    for _ in 0..20 {
        // QoS 0, without waiting for anything.
        publisher.stream.write_all(b"\x30\x05\x00\x01thi").expect("sends");
        std::thread::sleep(Duration::from_millis(30));
    }
    (0..20).for_each(|_| subscriber.next(|p| matches!(p, Packet::Publish(_)).then_some(())));
    let answer = broker.json("explain-slow", &[]);
    // The delay is before the system call that starts sends: so those take as long.
    let late = answer["slowest"][0]["stages_ns"]["arrival"].as_u64();
    assert!(late > Some(50_000_000), "{answer}");
}

#[test]
fn a_message_that_waited_for_its_client_to_come_back_spent_its_time_in_the_queue() {
    let broker = Broker::start("queue", &[]);
    let mut away = broker.client("away", false);
    away.subscribe("t");
    drop(away);
    let mut publisher = broker.client("publisher", true);
    publisher.publish("t", 1);
    std::thread::sleep(Duration::from_millis(200));
    broker.client("away", false).take(Duration::ZERO);
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
    use std::os::fd::AsRawFd;
    let folder = std::env::temp_dir().join(format!("ringmain-observe-{}-log", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_ringmain"));
    command.args(["--shards", "1", "--listen", "tcp://127.0.0.1:0", "--data-dir"]).arg(&folder);
    command.args(["--set", "admin.metrics_listen="]);
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
    let broker = Broker { child, folder, address: address.parse().unwrap() };
    // SAFETY: changes the size of a pipe that this process owns; no memory involved.
    let size = unsafe { libc::fcntl(stderr.as_raw_fd(), libc::F_SETPIPE_SZ, 4096) };
    assert_eq!(size, 4096, "{}", std::io::Error::last_os_error());
    // Each of these is worth a line in the log.
    for _ in 0..200 {
        let mut stray = TcpStream::connect(broker.address).unwrap();
        stray.write_all(b"GET / HTTP/1.0\r\n\r\n").unwrap();
        let _ = stray.read_to_end(&mut Vec::new());
    }
    let mut subscriber = broker.client("subscriber", true);
    subscriber.subscribe("t");
    let mut publisher = broker.client("publisher", true);
    publisher.publish("t", 1);
    subscriber.take(Duration::ZERO);
    let seen = broker.json("top", &["--once", "--interval", "1"]);
    assert_eq!(seen["connections"], 2, "{seen}");
    // SAFETY: no memory involved.
    assert_eq!(unsafe { libc::kill(broker.child.id() as i32, libc::SIGTERM) }, 0);
    let mut broker = broker;
    assert!(broker.child.wait().unwrap().success());
}
