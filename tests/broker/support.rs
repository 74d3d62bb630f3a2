//! A broker as a child process, and a client that waits for what it is told.

use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use ringmain_mqtt::{
    Connect, Forward, Packet, PacketId, PublishOut, QoS, ReasonCode, Role, Rules, SubscribeOptions,
    Version, decode, encode, header,
};
use serde_json::Value;

/// Bounds every wait; nothing here takes this long unless it fails.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);
pub(crate) const V311: Version = Version::V311;
pub(crate) const V5: Version = Version::V5;
/// No port of the host is taken: it may be another test's.
pub(crate) const NO_METRICS: &str = "admin.metrics_listen=";

/// The binary of this build.
pub(crate) fn ringmain() -> Command {
    Command::new(env!("CARGO_BIN_EXE_ringmain"))
}

/// A folder of a test's own; goes with it.
pub(crate) struct Folder(pub(crate) PathBuf);

impl Folder {
    pub(crate) fn new(name: &str) -> Self {
        let name = format!("ringmain-{}-{name}", std::process::id());
        let folder = std::env::temp_dir().join(name);
        let _ = std::fs::remove_dir_all(&folder);
        std::fs::create_dir(&folder).expect("a folder");
        Self(folder)
    }

    /// Where a broker of this folder keeps its data.
    pub(crate) fn data(&self) -> PathBuf {
        self.0.join("data")
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// Settings as arguments.
pub(crate) fn set<'a>(settings: &[&'a str]) -> Vec<&'a str> {
    settings.iter().flat_map(|setting| ["--set", setting]).collect()
}

/// A running broker; dropping it kills it.
pub(crate) struct Broker {
    pub(crate) child: Child,
    lines: Receiver<String>,
    /// What it said until it was ready.
    pub(crate) started: Vec<String>,
    data: PathBuf,
    address: Option<SocketAddr>,
}

impl Broker {
    /// Starts `command`, which lacks only its data folder, and reads what it says.
    pub(crate) fn spawn(mut command: Command, folder: &Folder) -> Self {
        let data = folder.data();
        command.arg("--data-dir").arg(&data);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("starts");
        let (sender, lines) = channel();
        let stderr = BufReader::new(child.stderr.take().expect("is piped"));
        // It reads on when nobody wants to know: the broker must not be stopped by a full pipe.
        std::thread::spawn(move || {
            for line in stderr.lines().map_while(Result::ok) {
                let _ = sender.send(line);
            }
        });
        Self { child, lines, started: Vec::new(), data, address: None }
    }

    /// The same, and waits until it is ready.
    pub(crate) fn start_by(command: Command, folder: &Folder) -> Self {
        let mut broker = Self::spawn(command, folder);
        broker.started = broker.lines_until("ready");
        let said = broker.started.iter().find_map(|line| line.split_once("address="));
        let address = said.and_then(|(_, rest)| rest.split_whitespace().next());
        broker.address = address.map(|a| a.parse().expect("an address"));
        broker
    }

    /// A broker that is ready, on any free port, with so many shards and these settings.
    pub(crate) fn start(folder: &Folder, shards: usize, settings: &[&str]) -> Self {
        let mut command = ringmain();
        command.args(["--shards", &shards.to_string(), "--listen", "tcp://127.0.0.1:0"]);
        command.args(set(&[NO_METRICS, "node.pin_cores=false"])).args(set(settings));
        Self::start_by(command, folder)
    }

    /// A broker that somebody else started, and whose words he reads.
    pub(crate) fn adopt(child: Child, address: SocketAddr, folder: &Folder) -> Self {
        let (_, lines) = channel();
        let (started, data) = (Vec::new(), folder.data());
        Self { child, lines, started, data, address: Some(address) }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address.expect("it says where it listens")
    }

    /// All lines up to one that contains `text`.
    pub(crate) fn lines_until(&self, text: &str) -> Vec<String> {
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

    pub(crate) fn signal(&self, signal: i32) {
        send_signal(&self.child, signal);
    }

    pub(crate) fn wait(&mut self) -> ExitStatus {
        wait(&mut self.child)
    }

    /// How it ended, with all that it said since it was started or ready.
    pub(crate) fn end(mut self) -> (Option<i32>, String) {
        let code = self.wait().code();
        let said: Vec<String> = self.lines.iter().collect();
        (code, said.join("\n"))
    }

    pub(crate) fn stop(self) -> (Option<i32>, String) {
        self.signal(libc::SIGTERM);
        self.end()
    }

    /// Runs a command of the binary at this broker.
    pub(crate) fn ask(&self, command: &str, arguments: &[&str]) -> Output {
        let mut process = ringmain();
        process.args([command, "--data-dir"]).arg(&self.data).args(arguments);
        process.output().expect("runs")
    }

    pub(crate) fn json(&self, command: &str, arguments: &[&str]) -> Value {
        let output = self.ask(command, &[arguments, &["--json"]].concat());
        serde_json::from_slice(&output.stdout).unwrap_or_else(|e| panic!("{e}: {output:?}"))
    }

    /// Connects; the client and what CONNACK said.
    pub(crate) fn connect(&self, connect: &Connect<'_>) -> (Client, ReasonCode) {
        let mut client = Client::open(self.address(), connect.version);
        client.send(|out| connect.encode(out));
        let code = client.next_or_end(|p| match p {
            Packet::ConnAck(ack) => Some(ack.code),
            _ => None,
        });
        (client, code.expect("CONNACK"))
    }

    /// Connects with a clean start.
    pub(crate) fn client(&self, version: Version, id: &str) -> Client {
        self.accepted(&connect(version, id))
    }

    /// Connects with a session that outlives the connection. Version 3.1.1.
    pub(crate) fn lasting(&self, id: &str) -> Client {
        self.accepted(&Connect { clean_start: false, ..connect(V311, id) })
    }

    fn accepted(&self, connect: &Connect<'_>) -> Client {
        let (client, code) = self.connect(connect);
        assert_eq!(code, ReasonCode::SUCCESS, "{}", connect.client_id);
        client
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub(crate) fn send_signal(child: &Child, signal: i32) {
    // SAFETY: our own child, not reaped yet, so the pid is its.
    unsafe { libc::kill(child.id() as libc::pid_t, signal) };
}

pub(crate) fn wait(child: &mut Child) -> ExitStatus {
    let until = Instant::now() + PATIENCE;
    loop {
        if let Some(status) = child.try_wait().expect("our own child") {
            return status;
        }
        assert!(Instant::now() < until, "does not end");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// A CONNECT with a clean start and nothing else.
pub(crate) fn connect(version: Version, client_id: &str) -> Connect<'_> {
    Connect::new(version, client_id)
}

/// A connection that waits for what it is told.
pub(crate) struct Client {
    pub(crate) stream: TcpStream,
    version: Version,
    bytes: Vec<u8>,
}

impl Client {
    pub(crate) fn open(address: SocketAddr, version: Version) -> Self {
        let stream = TcpStream::connect(address).expect("connects");
        stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
        stream.set_nodelay(true).expect("a TCP socket");
        Self { stream, version, bytes: Vec::new() }
    }

    pub(crate) fn send(&mut self, write: impl FnOnce(&mut Vec<u8>)) {
        let mut out = Vec::new();
        write(&mut out);
        self.stream.write_all(&out).expect("sends");
    }

    /// The first packet that `take` takes.
    pub(crate) fn next<T>(&mut self, take: impl Fn(&Packet<'_>) -> Option<T>) -> T {
        self.next_or_end(take).expect("the broker keeps the connection")
    }

    /// The first packet that `take` takes, or `None` when the broker closes the connection.
    pub(crate) fn next_or_end<T>(&mut self, take: impl Fn(&Packet<'_>) -> Option<T>) -> Option<T> {
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
                Err(e) if e.kind() == ErrorKind::WouldBlock => panic!("says nothing"),
                _ => return None,
            }
        }
    }

    /// Subscribes with QoS 1; the codes of SUBACK.
    pub(crate) fn subscribe(&mut self, filters: &[&str]) -> Vec<u8> {
        let options = SubscribeOptions { qos: QoS::AtLeastOnce, ..SubscribeOptions::default() };
        let filters: Vec<_> = filters.iter().map(|filter| (*filter, options)).collect();
        let (version, id) = (self.version, PacketId::new(7).expect("it is not 0"));
        self.send(|out| encode::subscribe(out, version, id, None, &filters));
        self.next(|p| match p {
            Packet::SubAck(ack) => Some(ack.reasons.to_vec()),
            _ => None,
        })
    }

    /// Publishes "hi" and waits; the code of PUBACK or PUBREC, `None` when the connection is closed.
    pub(crate) fn try_publish(
        &mut self,
        topic: &str,
        qos: QoS,
        packet_id: u16,
    ) -> Option<ReasonCode> {
        let version = self.version;
        self.send(|out| {
            let publish = PublishOut {
                dup: false,
                qos,
                retain: false,
                topic,
                packet_id,
                message_expiry_s: None,
                topic_alias: None,
                subscription_ids: &[],
                forward: Forward::EMPTY,
                payload_len: 2,
            };
            publish.encode_head(out, version);
            out.extend_from_slice(b"hi");
        });
        self.next_or_end(|p| match p {
            Packet::PubAck(ack) | Packet::PubRec(ack) => Some(ack.reason),
            _ => None,
        })
    }

    /// Publishes with QoS 1 and waits for PUBACK.
    pub(crate) fn publish(&mut self, topic: &str, packet_id: u16) {
        self.try_publish(topic, QoS::AtLeastOnce, packet_id).expect("PUBACK");
    }

    /// Waits for a message and acknowledges it after so long.
    pub(crate) fn take(&mut self, after: Duration) {
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

/// Whether a line contains `text`.
pub(crate) fn has(lines: &[String], text: &str) -> bool {
    lines.iter().any(|line| line.contains(text))
}
