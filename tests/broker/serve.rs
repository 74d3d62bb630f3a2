//! The binary as a service: start, readiness, reloads, signals, and limits that only a whole broker
//! has.

use std::io::Write;
use std::net::TcpListener;
use std::process::Command;
use std::time::Instant;

use ringmain_mqtt::{Packet, QoS, ReasonCode};

use super::support::{Broker, Client, Folder, PATIENCE, V5, V311, connect, has, ringmain};

/// A broker with one shard and a configuration file.
struct Configured {
    broker: Broker,
    folder: Folder,
}

impl Configured {
    /// Starts with this configuration, below a listener on a free port.
    fn start(name: &str, text: &str) -> Self {
        Self::start_by(ringmain(), name, text)
    }

    fn start_by(mut command: Command, name: &str, text: &str) -> Self {
        let folder = Folder::new(name);
        write(&folder, text);
        command.arg("--config").arg(folder.0.join("ringmain.toml")).args(["--shards", "1"]);
        Self { broker: Broker::start_by(command, &folder), folder }
    }

    /// Writes a new file and has it read.
    fn reload(&self, text: &str) {
        write(&self.folder, text);
        self.broker.signal(libc::SIGHUP);
    }
}

fn write(folder: &Folder, text: &str) {
    let listener = "[[listeners]]\nurl = 'tcp://127.0.0.1:0'\n";
    let text = format!("{text}\n{listener}");
    std::fs::write(folder.0.join("ringmain.toml"), text).expect("writes");
}

/// Publishes to a topic that nobody has; the code of PUBACK or PUBREC, `None` when closed. A QoS 2
/// exchange keeps its identifier.
fn publish(client: &mut Client, qos: QoS) -> Option<ReasonCode> {
    client.try_publish("nobody/here", qos, 10 + qos as u16)
}

#[test]
fn a_broker_on_loopback_says_how_to_open_it_and_then_that_it_is_ready() {
    let broker = Configured::start("hint", "");
    assert!(
        has(&broker.broker.started, "only this host can connect"),
        "{:#?}",
        broker.broker.started
    );
    assert_eq!(broker.broker.started.last().map(String::as_str), Some("ready"));
    broker.broker.client(V311, "a");
}

#[test]
fn without_configuration_the_listeners_are_loopback_alone() {
    let mut command = ringmain();
    let output = command.arg("check-config").output().expect("runs");
    let table: toml::Table =
        String::from_utf8(output.stdout).expect("UTF-8").parse().expect("TOML");
    let listeners = table["listeners"].as_array().expect("a list");
    let urls: Vec<_> = listeners.iter().filter_map(|l| l["url"].as_str()).collect();
    assert_eq!(urls, ["tcp://127.0.0.1:1883", "tcp://[::1]:1883"]);
}

#[test]
fn an_address_in_use_is_named_and_exits_with_1() {
    let taken = TcpListener::bind(("127.0.0.1", 0)).expect("binds");
    let address = taken.local_addr().expect("has one");
    let mut command = ringmain();
    let output = command
        .args(["--shards", "1", "--listen", &format!("tcp://{address}")])
        .args(["--set", "admin.socket=", "--set", "admin.metrics_listen="])
        .output()
        .expect("runs");
    let text = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert!(text.contains(&format!("cannot listen on {address}: the address is in use")), "{text}");
    assert!(!text.contains("\nready"), "{text}");
}

#[test]
fn a_bad_file_or_a_restart_key_changes_nothing_and_says_so() {
    let broker = Configured::start("bad", "[mqtt]\nmax_qos = 2");
    broker.reload("[mqtt]\nmax_qos = 1\nmax_qoss = 1");
    let said = broker.broker.lines_until("nothing was changed");
    assert!(has(&said, "mqtt.max_qoss: unknown key; nearest valid key: mqtt.max_qos"), "{said:#?}");
    broker.reload("[mqtt]\nmax_qos = 1\n[reactor]\ncq_entries = 1024");
    let said = broker.broker.lines_until("nothing was changed");
    assert!(has(&said, "reactor.cq_entries needs a restart: 65536 -> 1024"), "{said:#?}");
    let mut client = broker.broker.client(V5, "a");
    assert_eq!(publish(&mut client, QoS::ExactlyOnce), Some(ReasonCode::NO_MATCHING_SUBSCRIBERS));
}

#[test]
fn live_keys_hold_for_new_connections_and_old_ones_keep_what_connack_told_them() {
    let broker = Configured::start("live", "[mqtt]\nmax_qos = 2\n[log]\nlevel = 'info'");
    let mut before = broker.broker.client(V5, "before");
    broker.reload("[mqtt]\nmax_qos = 1\n[log]\nlevel = 'info'");
    broker.broker.lines_until("max_qos");
    // [MQTT-3.2.2-9] [MQTT-3.2.2-11] A client is told; publishing above it ends the connection.
    let until = Instant::now() + PATIENCE;
    loop {
        // The shard takes the order in one of its next turns.
        let mut after = Client::open(broker.broker.address(), V5);
        after.send(|out| connect(V5, "after").encode(out));
        let max = after.next_or_end(|p| match p {
            Packet::ConnAck(ack) => Some(ack.maximum_qos),
            _ => None,
        });
        if max == Some(Some(QoS::AtLeastOnce)) {
            assert_eq!(publish(&mut after, QoS::ExactlyOnce), None, "closed");
            break;
        }
        assert!(Instant::now() < until, "{max:?}");
    }
    assert_eq!(publish(&mut before, QoS::ExactlyOnce), Some(ReasonCode::NO_MATCHING_SUBSCRIBERS));
    // The log's level is live too: at `error` a reload that is a mere change says nothing.
    broker.reload("[mqtt]\nmax_qos = 1\n[log]\nlevel = 'error'");
    broker.broker.lines_until("log.level");
    broker.reload("[mqtt]\nmax_qos = 2\n[log]\nlevel = 'error'");
    broker.reload("[mqtt\n");
    let said = broker.broker.lines_until("nothing was changed");
    assert!(!has(&said, "changed key"), "{said:#?}");
    assert_eq!(publish(&mut before, QoS::AtLeastOnce), Some(ReasonCode::NO_MATCHING_SUBSCRIBERS));
}

#[test]
fn sigterm_tells_v5_clients_closes_all_and_exits_with_0() {
    // S-20 [MQTT-3.14.4-1]
    let mut broker = Configured::start("sigterm", "");
    let (mut five, mut three) =
        (broker.broker.client(V5, "five"), broker.broker.client(V311, "three"));
    broker.broker.signal(libc::SIGTERM);
    let code = five.next_or_end(|p| match p {
        Packet::Disconnect(d) => Some(d.reason),
        _ => None,
    });
    assert_eq!(code, Some(ReasonCode::SERVER_SHUTTING_DOWN));
    assert_eq!(five.next_or_end(|_| Some(())), None, "closed");
    assert_eq!(three.next_or_end(|_| Some(())), None, "closed without a packet");
    assert_eq!(broker.broker.wait().code(), Some(0));
}

#[test]
fn limits_of_the_node_come_live() {
    let broker = Configured::start("limits", "");
    let mut first = broker.broker.client(V5, "first");
    assert_eq!(first.subscribe(&["a"]), [1]);
    broker.reload("[limits]\nmax_sessions = 1\nmax_routes = 1");
    broker.broker.lines_until("limits.max_routes");
    let until = Instant::now() + PATIENCE;
    while broker.broker.connect(&connect(V5, "second")).1 != ReasonCode::QUOTA_EXCEEDED {
        assert!(Instant::now() < until, "takes more sessions than it may");
    }
    // v3.1.1 knows no quota: 0x03, server unavailable.
    let code = broker.broker.connect(&connect(V311, "third")).1;
    assert!(code.is_error(), "{code:?}");
    assert_eq!(first.subscribe(&["a", "b"]), [1, ReasonCode::QUOTA_EXCEEDED.0]);
    // The session that is there may come again.
    drop(broker.broker.client(V5, "first"));
}

#[test]
fn few_descriptors_left_refuse_new_connections_until_there_are_more() {
    // L05
    let mut command = Command::new("sh");
    command.args(["-c", "ulimit -n 512; exec \"$0\" \"$@\"", env!("CARGO_BIN_EXE_ringmain")]);
    let broker = Configured::start_by(command, "descriptors", "[limits]\nmax_connections = 100");
    let mut before = broker.broker.client(V5, "before");
    broker.reload("[limits]\nmax_connections = 100\n[overload]\ndescriptors_high_percent = 1");
    broker.broker.lines_until("scarce=true");
    let until = Instant::now() + PATIENCE;
    loop {
        let mut refused = Client::open(broker.broker.address(), V5);
        let mut out = Vec::new();
        connect(V5, "refused").encode(&mut out);
        let sent = refused.stream.write_all(&out);
        if sent.is_err() || refused.next_or_end(|_| Some(())).is_none() {
            break;
        }
        assert!(Instant::now() < until, "accepts still");
    }
    assert!(publish(&mut before, QoS::AtLeastOnce).is_some(), "those that are there stay");
    broker.reload("[limits]\nmax_connections = 100");
    broker.broker.lines_until("scarce=false");
    let until = Instant::now() + PATIENCE;
    loop {
        let mut client = Client::open(broker.broker.address(), V5);
        let mut out = Vec::new();
        connect(V5, "again").encode(&mut out);
        if client.stream.write_all(&out).is_ok() && client.next_or_end(|_| Some(())).is_some() {
            break;
        }
        assert!(Instant::now() < until, "refuses still");
    }
}

#[test]
fn a_rate_holds_for_each_message_and_a_reload_changes_it() {
    // L01, L02
    let mqtt = |rate: &str| format!("[mqtt]\nrate_action = 'refuse'\nmessage_rate = '{rate}'");
    let broker = Configured::start("rate", &mqtt("10/1h"));
    let mut client = broker.broker.client(V5, "a");
    let mut codes = || -> Vec<Option<ReasonCode>> {
        (0..12).map(|_| publish(&mut client, QoS::AtLeastOnce)).collect()
    };
    let passed = Some(ReasonCode::NO_MATCHING_SUBSCRIBERS);
    let refused = Some(ReasonCode::QUOTA_EXCEEDED);
    assert_eq!(codes(), [[passed; 10].as_slice(), &[refused; 2]].concat());
    broker.reload(&mqtt("0"));
    // It is said before the shards know it.
    let start = Instant::now();
    while codes() != [passed; 12] {
        assert!(start.elapsed() < PATIENCE, "the new rate never held");
    }
    broker.reload(&mqtt("10 a minute"));
    let said = broker.broker.lines_until("nothing was changed");
    assert!(has(&said, "does not say in what time"), "{said:#?}");
}
