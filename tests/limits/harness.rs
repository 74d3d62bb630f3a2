//! Starts the broker's release binary and drives it with `ringmain-load`, which runs in the process
//! of the test: one process of clients, one of the broker.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use clap::Parser;
use ringmain_load::cli::Cli;
use ringmain_load::cost::Sample;
use ringmain_load::report::Report;
use ringmain_load::run;
use ringmain_mqtt::{
    Connect, Forward, Packet, PacketId, PublishOut, QoS, Role, Rules, SubscribeOptions, Version,
    decode, encode, header,
};

/// The broker may take this long until it accepts connections.
const START_MAX: Duration = Duration::from_secs(20);
/// The node's name, as `$SYS` shows it.
const NODE: &str = "limits";

/// A broker that runs; dropping it ends it.
#[derive(Debug)]
pub struct Broker {
    child: Child,
    port: u16,
    peer: bool,
    folder: PathBuf,
}

impl Broker {
    /// Starts the broker on 127.0.0.1:`port` with `shards` shards.
    ///
    /// `RINGMAIN_LIMITS_BROKER=mosquitto` starts Debian's mosquitto instead, to try the tests
    /// themselves; `RINGMAIN_BIN` names a binary that is not in the target directory.
    ///
    /// # Panics
    /// When it does not start: there is nothing to test then.
    #[must_use]
    pub fn start(port: u16, shards: usize) -> Self {
        Self::start_with(port, shards, &[])
    }

    /// The same with settings of the configuration, each `section.key=value`.
    ///
    /// # Panics
    /// As above.
    #[must_use]
    pub fn start_with(port: u16, shards: usize, settings: &[&str]) -> Self {
        let folder =
            std::env::temp_dir().join(format!("ringmain-limits-{}-{port}", std::process::id()));
        std::fs::create_dir_all(&folder).expect("a folder for the broker");
        let peer = std::env::var("RINGMAIN_LIMITS_BROKER").is_ok_and(|b| b == "mosquitto");
        let mut command =
            if peer { mosquitto(port, &folder) } else { ringmain(port, shards, &folder) };
        if !peer {
            for setting in settings {
                command.args(["--set", setting]);
            }
        }
        let child = command
            .stdin(Stdio::null())
            .spawn()
            .unwrap_or_else(|e| panic!("{}: {e}", command.get_program().display()));
        let mut broker = Self { child, port, peer, folder };
        broker.wait_until_it_accepts();
        broker
    }

    /// Whether this is another broker, with limits of its own.
    #[must_use]
    pub fn is_peer(&self) -> bool {
        self.peer
    }

    /// Where it listens.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Has the broker end, which it must do as one that is well: with status 0.
    ///
    /// # Panics
    /// When it has ended before, or ends otherwise.
    pub fn stop(mut self) {
        assert!(matches!(self.child.try_wait(), Ok(None)), "the broker still runs");
        self.terminate();
        let status = self.child.wait().expect("our own child");
        assert!(status.success(), "the broker ended with {status}");
    }

    /// Runs `ringmain-load` with these arguments against the broker.
    ///
    /// # Panics
    /// When the run cannot be made, or is not clean.
    pub fn load(&self, args: &str) -> Report {
        let (port, pid) = (self.port.to_string(), self.child.id().to_string());
        let program = ["ringmain-load"].into_iter().chain(args.split_whitespace());
        let all = program.chain(["--port", &port, "--broker-pid", &pid]);
        let cli = Cli::try_parse_from(all).unwrap_or_else(|e| panic!("{e}"));
        let (plan, options) = cli.command.plan().unwrap_or_else(|e| panic!("{e}"));
        let report =
            run::run(plan, &options, &mut |_| ()).unwrap_or_else(|e| panic!("{args}: {e}"));
        println!("$ ringmain-load {args}\n{}", report.to_text());
        assert!(report.is_clean(), "{args}: {:?} {:?}", report.problems, report.faults);
        report
    }

    /// Publishes at QoS 0 and waits until the broker has read it.
    ///
    /// # Errors
    /// When the connection breaks.
    pub fn publish(&self, topic: &str, payload: &[u8]) -> io::Result<()> {
        let mut client = Client::connect(self.port)?;
        let mut out = Vec::new();
        let publish = PublishOut {
            dup: false,
            qos: QoS::AtMostOnce,
            retain: false,
            topic,
            packet_id: 0,
            message_expiry_s: None,
            topic_alias: None,
            subscription_ids: &[],
            forward: Forward::EMPTY,
            payload_len: payload.len(),
        };
        publish.encode_head(&mut out, Version::V311);
        out.extend_from_slice(payload);
        encode::pingreq(&mut out);
        client.stream.write_all(&out)?;
        client.next(|packet| matches!(packet, Packet::PingResp).then_some(()))
    }

    /// What the broker's process costs now.
    ///
    /// # Panics
    /// When it is gone.
    #[must_use]
    pub fn sample(&self) -> Sample {
        Sample::of(self.child.id()).expect("the broker runs")
    }

    /// Open connections as `$SYS` counts them, once that is `expected` or after 15 s. This
    /// question's own connection counts.
    ///
    /// # Errors
    /// When the connection breaks.
    pub fn connections(&self, expected: u64) -> io::Result<u64> {
        self.sys("stats/connections/count", |n| n == expected)
    }

    /// A number below `$SYS/brokers/NODE/`, once it is as expected or after 15 s.
    ///
    /// # Errors
    /// When the connection breaks.
    pub fn sys(&self, name: &str, expected: impl Fn(u64) -> bool) -> io::Result<u64> {
        let topic = format!("$SYS/brokers/{NODE}/{name}");
        let mut client = Client::connect(self.port)?;
        client.subscribe(&topic)?;
        let until = Instant::now() + Duration::from_secs(15);
        loop {
            let text = client.next_payload()?;
            let last = text.trim().parse().map_err(|_| io::Error::other(text))?;
            if expected(last) || Instant::now() >= until {
                return Ok(last);
            }
        }
    }

    fn wait_until_it_accepts(&mut self) {
        let until = Instant::now() + START_MAX;
        let address = SocketAddr::from(([127, 0, 0, 1], self.port));
        while TcpStream::connect(address).is_err() {
            let ended = self.child.try_wait().expect("our own child");
            assert!(ended.is_none(), "the broker ended: {ended:?}");
            assert!(Instant::now() < until, "the broker does not listen on {address}");
            sleep(Duration::from_millis(20));
        }
        sleep(Duration::from_millis(300));
    }
}

impl Broker {
    fn terminate(&self) {
        // SAFETY: our own child, not reaped yet, so the pid is its.
        unsafe { libc::kill(self.child.id() as libc::pid_t, libc::SIGTERM) };
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(None)) {
            self.terminate();
        }
        let until = Instant::now() + Duration::from_secs(15);
        while matches!(self.child.try_wait(), Ok(None)) && Instant::now() < until {
            sleep(Duration::from_millis(20));
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

/// Runs `ringmain-load` with these arguments against any broker.
///
/// # Errors
/// What is wrong with the arguments, or why the run could not be made.
pub fn try_load(args: &str) -> Result<Report, String> {
    let all = ["ringmain-load"].into_iter().chain(args.split_whitespace());
    let (plan, options) = Cli::try_parse_from(all).map_err(|e| e.to_string())?.command.plan()?;
    run::run(plan, &options, &mut |_| ()).map_err(|e| e.to_string())
}

/// The broker's binary: what `RINGMAIN_BIN` names, or the one in the target directory.
///
/// # Panics
/// When this program has no path.
#[must_use]
pub fn binary() -> PathBuf {
    std::env::var_os("RINGMAIN_BIN").map_or_else(
        || {
            let exe = std::env::current_exe().expect("a program has a path");
            let target = exe.parent().and_then(|deps| deps.parent()).expect("target/PROFILE/deps");
            target.join("ringmain")
        },
        PathBuf::from,
    )
}

/// A machine that gives the shards no CPU for a while, since others use it, is not what these tests are about:
/// the broker then refuses clients, as it should (L08).
const PATIENT: [&str; 3] = [
    "overload.lag_refuse_ms=60000",
    "overload.lag_drop_qos0_ms=60000",
    "overload.lag_pause_ms=60000",
];

/// The binary beside the folder of the test's own.
fn ringmain(port: u16, shards: usize, folder: &std::path::Path) -> Command {
    let mut command = Command::new(binary());
    command
        .args(["serve", "--set", &format!("listeners.0.url=\"tcp://127.0.0.1:{port}\"")])
        .args(["--shards", &shards.to_string(), "--log", "warn"])
        .args(["--set", &format!("node.name={NODE}"), "--set", "sys.interval_s=1"])
        .args(PATIENT.iter().flat_map(|setting| ["--set", setting]))
        .arg("--data-dir")
        .arg(folder);
    command
}

fn mosquitto(port: u16, folder: &std::path::Path) -> Command {
    let config = folder.join("mosquitto.conf");
    let text = format!(
        "listener {port} 127.0.0.1\nallow_anonymous true\nmax_connections -1\n\
         max_queued_messages 0\nmax_inflight_messages 0\npersistence false\nlog_type none\n"
    );
    std::fs::write(&config, text).expect("a configuration");
    let mut command = Command::new("/usr/sbin/mosquitto");
    command.arg("-c").arg(config);
    command
}

/// A client for one question.
struct Client {
    stream: TcpStream,
    bytes: Vec<u8>,
}

impl Client {
    fn connect(port: u16) -> io::Result<Self> {
        let stream = TcpStream::connect(("127.0.0.1", port))?;
        stream.set_read_timeout(Some(Duration::from_secs(15)))?;
        let mut client = Self { stream, bytes: Vec::new() };
        let mut out = Vec::new();
        Connect { keep_alive_s: 60, ..Connect::new(Version::V311, "limits-question") }
            .encode(&mut out);
        client.stream.write_all(&out)?;
        client.next(|packet| matches!(packet, Packet::ConnAck(_)).then_some(()))?;
        Ok(client)
    }

    fn subscribe(&mut self, filter: &str) -> io::Result<()> {
        let id = PacketId::new(1).expect("1 is a packet identifier");
        let mut out = Vec::new();
        let filters = [(filter, SubscribeOptions::default())];
        encode::subscribe(&mut out, Version::V311, id, None, &filters);
        self.stream.write_all(&out)
    }

    fn next_payload(&mut self) -> io::Result<String> {
        self.next(|packet| match packet {
            Packet::Publish(p) => Some(String::from_utf8_lossy(p.payload).into_owned()),
            _ => None,
        })
    }

    /// Reads packets until `take` takes one.
    fn next<T>(&mut self, take: impl Fn(&Packet<'_>) -> Option<T>) -> io::Result<T> {
        let rules = Rules { strict_utf8: false };
        loop {
            let h = header(&self.bytes, false).map_err(|e| io::Error::other(e.to_string()))?;
            if let Some(h) = h.filter(|h| h.total_len() <= self.bytes.len()) {
                let packet: Vec<u8> = self.bytes.drain(..h.total_len()).collect();
                let body = &packet[usize::from(h.len)..];
                let packet = decode(h, body, Version::V311, Role::Client, &rules)
                    .map_err(|e| io::Error::other(e.to_string()))?;
                if let Some(taken) = take(&packet) {
                    return Ok(taken);
                }
                continue;
            }
            let mut chunk = [0; 4096];
            match self.stream.read(&mut chunk)? {
                0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                n => self.bytes.extend_from_slice(&chunk[..n]),
            }
        }
    }
}
