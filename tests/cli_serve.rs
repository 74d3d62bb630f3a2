//! The binary as a service: start, readiness, reloads, signals, and limits that only a whole broker
//! has. Ports are chosen by the kernel.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use ringmain_mqtt::{
    Connect, ConnectProps, Forward, Packet, PacketId, PublishOut, QoS, ReasonCode, Role, Rules,
    SubscribeOptions, Version, decode, encode, header,
};

/// Bounds every wait; nothing here takes this long unless it fails.
const PATIENCE: Duration = Duration::from_secs(30);
const V311: Version = Version::V311;
const V5: Version = Version::V5;

/// A running broker with one shard; dropping it ends it.
struct Broker {
    child: Child,
    lines: Receiver<String>,
    file: PathBuf,
    folder: PathBuf,
    address: SocketAddr,
    /// What it said until it was ready.
    started: Vec<String>,
}

impl Broker {
    /// Starts with this configuration file, below a listener on a free port.
    fn start(name: &str, text: &str) -> Broker {
        Broker::start_by(Command::new(env!("CARGO_BIN_EXE_ringmain")), name, text)
    }

    fn start_by(mut command: Command, name: &str, text: &str) -> Broker {
        let file =
            std::env::temp_dir().join(format!("ringmain-{}-{name}.toml", std::process::id()));
        write(&file, text);
        let folder = file.with_extension("data");
        command.arg("--config").arg(&file).args(["--shards", "1"]);
        command.arg("--data-dir").arg(&folder);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("starts");
        let (sender, lines) = channel();
        let stderr = BufReader::new(child.stderr.take().expect("is piped"));
        std::thread::spawn(move || {
            for line in stderr.lines().map_while(Result::ok) {
                let _ = sender.send(line);
            }
        });
        let address = SocketAddr::from(([127, 0, 0, 1], 0));
        let mut broker = Broker { child, lines, file, folder, address, started: Vec::new() };
        broker.started = broker.lines_until("ready");
        let address = broker.started.iter().find_map(|line| line.split_once("address="));
        broker.address = address.expect("says where it listens").1.trim().parse().expect("address");
        broker
    }

    /// All lines up to one that contains `text`.
    fn lines_until(&self, text: &str) -> Vec<String> {
        let mut lines = Vec::new();
        let until = Instant::now() + PATIENCE;
        loop {
            let left = until.saturating_duration_since(Instant::now());
            match self.lines.recv_timeout(left) {
                Ok(line) => lines.push(line),
                Err(_) => panic!("no line with {text:?}: {lines:#?}"),
            }
            if lines.last().is_some_and(|line| line.contains(text)) {
                return lines;
            }
        }
    }

    /// Writes a new file and has it read.
    fn reload(&self, text: &str) {
        write(&self.file, text);
        self.signal(libc::SIGHUP);
    }

    fn signal(&self, signal: i32) {
        // SAFETY: our own child, not reaped yet, so the pid is its.
        unsafe { libc::kill(self.child.id() as libc::pid_t, signal) };
    }

    fn wait(&mut self) -> ExitStatus {
        wait(&mut self.child)
    }

    /// Connects with a clean start; the client and what CONNACK said.
    fn connect(&self, version: Version, id: &str) -> (Client, ReasonCode) {
        let mut client = Client::open(self.address, version);
        client.send(|out| connect(version, id).encode(out));
        let code = client.next(|p| match p {
            Packet::ConnAck(ack) => Some(ack.code),
            _ => None,
        });
        (client, code.expect("CONNACK"))
    }

    fn client(&self, version: Version, id: &str) -> Client {
        let (client, code) = self.connect(version, id);
        assert_eq!(code, ReasonCode::SUCCESS, "{id}");
        client
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = std::fs::remove_file(&self.file);
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

fn write(file: &PathBuf, text: &str) {
    let listener = "[[listeners]]\nurl = 'tcp://127.0.0.1:0'\n";
    std::fs::write(file, format!("{text}\n{listener}")).expect("writes");
}

fn wait(child: &mut Child) -> ExitStatus {
    let until = Instant::now() + PATIENCE;
    loop {
        if let Some(status) = child.try_wait().expect("our own child") {
            return status;
        }
        assert!(Instant::now() < until, "does not end");
        std::thread::sleep(Duration::from_millis(10));
    }
}

fn connect<'a>(version: Version, client_id: &'a str) -> Connect<'a> {
    Connect {
        version,
        bridge: false,
        clean_start: true,
        keep_alive_s: 0,
        client_id,
        username: None,
        password: None,
        will: None,
        props: ConnectProps::default(),
    }
}

fn packet_id() -> PacketId {
    PacketId::new(7).expect("7 is a packet identifier")
}

/// A connection that waits for what it is told.
struct Client {
    stream: TcpStream,
    version: Version,
    bytes: Vec<u8>,
}

impl Client {
    fn open(address: SocketAddr, version: Version) -> Client {
        let stream = TcpStream::connect(address).expect("connects");
        stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
        Client { stream, version, bytes: Vec::new() }
    }

    fn send(&mut self, write: impl FnOnce(&mut Vec<u8>)) {
        let mut out = Vec::new();
        write(&mut out);
        self.stream.write_all(&out).expect("sends");
    }

    /// The first packet that `take` takes, or `None` when the broker closes the connection.
    fn next<T>(&mut self, take: impl Fn(&Packet<'_>) -> Option<T>) -> Option<T> {
        loop {
            let h = header(&self.bytes, false).expect("a header");
            if let Some(h) = h.filter(|h| h.total_len() <= self.bytes.len()) {
                let packet: Vec<u8> = self.bytes.drain(..h.total_len()).collect();
                let rules = Rules { strict_utf8: false };
                let body = &packet[usize::from(h.len)..];
                let packet = decode(h, body, self.version, Role::Client, &rules).expect("valid");
                match take(&packet) {
                    Some(taken) => return Some(taken),
                    None => continue,
                }
            }
            let mut chunk = [0; 4096];
            match self.stream.read(&mut chunk) {
                Ok(n) if n > 0 => self.bytes.extend_from_slice(&chunk[..n]),
                Err(e) if e.kind() == std::io::ErrorKind::WouldBlock => panic!("says nothing"),
                _ => return None,
            }
        }
    }

    /// Publishes to a topic that nobody has; the code of PUBACK or PUBREC, `None` when closed.
    fn publish(&mut self, qos: QoS) -> Option<ReasonCode> {
        let version = self.version;
        self.send(|out| {
            let publish = PublishOut {
                dup: false,
                qos,
                retain: false,
                topic: "nobody/here",
                packet_id: 10 + qos as u16, // a QoS 2 exchange keeps its identifier
                message_expiry_s: None,
                topic_alias: None,
                subscription_ids: &[],
                forward: Forward::EMPTY,
                payload_len: 0,
            };
            publish.encode_head(out, version);
        });
        self.next(|p| match p {
            Packet::PubAck(ack) | Packet::PubRec(ack) => Some(ack.reason),
            _ => None,
        })
    }

    /// The codes of SUBACK.
    fn subscribe(&mut self, filters: &[&str]) -> Vec<u8> {
        let filters: Vec<_> = filters.iter().map(|f| (*f, SubscribeOptions::default())).collect();
        let version = self.version;
        self.send(|out| encode::subscribe(out, version, packet_id(), None, &filters));
        let codes = self.next(|p| match p {
            Packet::SubAck(ack) => Some(ack.reasons.to_vec()),
            _ => None,
        });
        codes.expect("SUBACK")
    }
}

fn has(lines: &[String], text: &str) -> bool {
    lines.iter().any(|line| line.contains(text))
}

#[test]
fn a_broker_on_loopback_says_how_to_open_it_and_then_that_it_is_ready() {
    let broker = Broker::start("hint", "");
    assert!(has(&broker.started, "only this host can connect"), "{:#?}", broker.started);
    assert_eq!(broker.started.last().map(String::as_str), Some("ready"));
    broker.client(V311, "a");
}

#[test]
fn without_configuration_the_listeners_are_loopback_alone() {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ringmain"));
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
    let mut command = Command::new(env!("CARGO_BIN_EXE_ringmain"));
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
    let broker = Broker::start("bad", "[mqtt]\nmax_qos = 2");
    broker.reload("[mqtt]\nmax_qos = 1\nmax_qoss = 1");
    let said = broker.lines_until("nothing was changed");
    assert!(has(&said, "mqtt.max_qoss: unknown key; nearest valid key: mqtt.max_qos"), "{said:#?}");
    broker.reload("[mqtt]\nmax_qos = 1\n[reactor]\ncq_entries = 1024");
    let said = broker.lines_until("nothing was changed");
    assert!(has(&said, "reactor.cq_entries needs a restart: 65536 -> 1024"), "{said:#?}");
    let mut client = broker.client(V5, "a");
    assert_eq!(client.publish(QoS::ExactlyOnce), Some(ReasonCode::NO_MATCHING_SUBSCRIBERS));
}

#[test]
fn live_keys_hold_for_new_connections_and_old_ones_keep_what_connack_told_them() {
    let broker = Broker::start("live", "[mqtt]\nmax_qos = 2\n[log]\nlevel = 'info'");
    let mut before = broker.client(V5, "before");
    broker.reload("[mqtt]\nmax_qos = 1\n[log]\nlevel = 'info'");
    broker.lines_until("max_qos");
    // [MQTT-3.2.2-9] [MQTT-3.2.2-11] A client is told; publishing above it ends the connection.
    let until = Instant::now() + PATIENCE;
    loop {
        // The shard takes the order in one of its next turns.
        let mut after = Client::open(broker.address, V5);
        after.send(|out| connect(V5, "after").encode(out));
        let max = after.next(|p| match p {
            Packet::ConnAck(ack) => Some(ack.maximum_qos),
            _ => None,
        });
        if max == Some(Some(QoS::AtLeastOnce)) {
            assert_eq!(after.publish(QoS::ExactlyOnce), None, "closed");
            break;
        }
        assert!(Instant::now() < until, "{max:?}");
    }
    assert_eq!(before.publish(QoS::ExactlyOnce), Some(ReasonCode::NO_MATCHING_SUBSCRIBERS));
    // The log's level is live too: at `error` a reload that is a mere change says nothing.
    broker.reload("[mqtt]\nmax_qos = 1\n[log]\nlevel = 'error'");
    broker.lines_until("log.level");
    broker.reload("[mqtt]\nmax_qos = 2\n[log]\nlevel = 'error'");
    broker.reload("[mqtt\n");
    let said = broker.lines_until("nothing was changed");
    assert!(!has(&said, "changed key"), "{said:#?}");
    assert_eq!(before.publish(QoS::AtLeastOnce), Some(ReasonCode::NO_MATCHING_SUBSCRIBERS));
}

#[test]
fn sigterm_tells_v5_clients_closes_all_and_exits_with_0() {
    // S-20 [MQTT-3.14.4-1]
    let mut broker = Broker::start("sigterm", "");
    let (mut five, mut three) = (broker.client(V5, "five"), broker.client(V311, "three"));
    broker.signal(libc::SIGTERM);
    let code = five.next(|p| match p {
        Packet::Disconnect(d) => Some(d.reason),
        _ => None,
    });
    assert_eq!(code, Some(ReasonCode::SERVER_SHUTTING_DOWN));
    assert_eq!(five.next(|_| Some(())), None, "closed");
    assert_eq!(three.next(|_| Some(())), None, "closed without a packet");
    assert_eq!(broker.wait().code(), Some(0));
}

#[test]
fn limits_of_the_node_come_live() {
    let broker = Broker::start("limits", "");
    let mut first = broker.client(V5, "first");
    assert_eq!(first.subscribe(&["a"]), [0]);
    broker.reload("[limits]\nmax_sessions = 1\nmax_routes = 1");
    broker.lines_until("limits.max_routes");
    let until = Instant::now() + PATIENCE;
    while broker.connect(V5, "second").1 != ReasonCode::QUOTA_EXCEEDED {
        assert!(Instant::now() < until, "takes more sessions than it may");
    }
    // v3.1.1 knows no quota: 0x03, server unavailable.
    let code = broker.connect(V311, "third").1;
    assert!(code.is_error(), "{code:?}");
    assert_eq!(first.subscribe(&["a", "b"]), [0, ReasonCode::QUOTA_EXCEEDED.0]);
    // The session that is there may come again.
    drop(broker.client(V5, "first"));
}

#[test]
fn few_descriptors_left_refuse_new_connections_until_there_are_more() {
    // L05
    let mut command = Command::new("sh");
    command.args(["-c", "ulimit -n 512; exec \"$0\" \"$@\"", env!("CARGO_BIN_EXE_ringmain")]);
    let broker = Broker::start_by(command, "descriptors", "[limits]\nmax_connections = 100");
    let mut before = broker.client(V5, "before");
    broker.reload("[limits]\nmax_connections = 100\n[overload]\ndescriptors_high_percent = 1");
    broker.lines_until("scarce=true");
    let until = Instant::now() + PATIENCE;
    loop {
        let mut refused = Client::open(broker.address, V5);
        let mut out = Vec::new();
        connect(V5, "refused").encode(&mut out);
        let sent = refused.stream.write_all(&out);
        if sent.is_err() || refused.next(|_| Some(())).is_none() {
            break;
        }
        assert!(Instant::now() < until, "accepts still");
    }
    assert!(before.publish(QoS::AtLeastOnce).is_some(), "those that are there stay");
    broker.reload("[limits]\nmax_connections = 100");
    broker.lines_until("scarce=false");
    let until = Instant::now() + PATIENCE;
    loop {
        let mut client = Client::open(broker.address, V5);
        let mut out = Vec::new();
        connect(V5, "again").encode(&mut out);
        if client.stream.write_all(&out).is_ok() && client.next(|_| Some(())).is_some() {
            break;
        }
        assert!(Instant::now() < until, "refuses still");
    }
}
