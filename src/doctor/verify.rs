//! Whether the prediction is true: a broker of its own on loopback, and connections until it stops or the goal is
//! reached.

use std::fmt::Write as _;
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use ringmain_kernel_params::{Capacity, Facts, Host, Needs, Side, check};
use ringmain_shards::reactor::Keeper;
use serde::Serialize;

/// Most connections that are tried.
pub(super) const CONNECTIONS_MAX: u64 = 2_000_000;
/// Connections to one address of the broker: fewer than a source address has ports.
const PER_ADDRESS: u64 = 20_000;
/// A connect that takes longer has failed; the kernel sends a lost SYN again after one second and three.
const CONNECT_WAIT: Duration = Duration::from_secs(5);
/// A failed connect is tried so often before it counts.
const TRIES: u32 = 3;
/// Until the broker listens.
const START_WAIT: Duration = Duration::from_secs(20);
/// What was predicted and what was reached may differ by so many parts in a hundred: other programs on
/// the host open files and take memory meanwhile.
const TOLERANCE_PERCENT: u64 = 2;
/// Where memory is the limit nothing is tried beyond it: the host would kill somebody.
const MEMORY_LIMITS: [&str; 2] = ["memory", "memory.max"];

/// What came out.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Verified {
    /// What was predicted for both ends on this host.
    predicted: Capacity,
    /// Connections that were tried.
    tried: u64,
    /// Connections that the broker answered and that were open at the end.
    reached: u64,
    /// What ended it, if not the number that was to be tried.
    stopped_by: Option<String>,
    /// Reached and predicted are the same, but for 2 %.
    as_predicted: bool,
}

impl Verified {
    pub(super) fn is_as_predicted(&self) -> bool {
        self.as_predicted
    }

    pub(super) fn to_text(&self) -> String {
        let mut out = String::new();
        let first = self.predicted.stops.first();
        let limit = first.map_or("nothing stops it".to_owned(), |s| s.limit.clone());
        let _ = writeln!(
            out,
            "verified    predicted {} with both ends on this host ({limit}), reached {} of {} tried{}: {}",
            self.predicted.fits,
            self.reached,
            self.tried,
            self.stopped_by.as_deref().map(|why| format!(", then {why}")).unwrap_or_default(),
            if self.as_predicted { "as predicted" } else { "NOT as predicted" }
        );
        out
    }
}

/// Opens connections to a broker that is started for it.
///
/// # Errors
/// The broker cannot be started.
pub(super) fn verify(goal: u64) -> Result<Verified, String> {
    let facts = Facts { sources: u64::MAX, ..Facts::of(&Host::here(), Side::Both) };
    let predicted = check(&facts, Needs { connections: goal, storm: false });
    let by_memory =
        predicted.stops.first().is_some_and(|s| MEMORY_LIMITS.contains(&s.limit.as_str()));
    // A little beyond the prediction, to meet the limit that it names.
    let beyond =
        if by_memory { predicted.fits } else { predicted.fits + predicted.fits / 10 + 1_000 };
    let tried = goal.min(beyond).min(CONNECTIONS_MAX);
    let (mut broker, refused) = match Broker::start(tried) {
        Ok(broker) => (broker, None),
        // Of some limits a broker knows at its start that they do not suffice: then for as many as they do.
        Err(why) if (1..tried).contains(&predicted.fits) => {
            (Broker::start(predicted.fits)?, Some(format!("for {tried}: {why}")))
        }
        Err(why) => return Err(why),
    };
    let tried = if refused.is_some() { predicted.fits } else { tried };
    let (reached, stopped_by) = fill(&mut broker, tried);
    let near = reached.abs_diff(predicted.fits) * 100 <= predicted.fits * TOLERANCE_PERCENT;
    let as_predicted = near || (reached == tried && tried <= predicted.fits);
    let stopped_by = stopped_by.or(refused);
    Ok(Verified { predicted, tried, reached, stopped_by, as_predicted })
}

fn fill(broker: &mut Broker, tried: u64) -> (u64, Option<String>) {
    let mut keeper = Keeper::new();
    let mut said = Instant::now();
    for nth in 0..tried {
        let mut connected = connect(broker.address(nth), nth);
        for _ in 1..TRIES {
            if connected.is_ok() {
                break;
            }
            connected = connect(broker.address(nth), nth);
        }
        let kept = connected.and_then(|stream| keeper.keep(stream.into()));
        if let Err(error) = kept {
            let ended = broker.ended();
            return (nth, Some(ended.unwrap_or_else(|| error.to_string())));
        }
        if said.elapsed() > Duration::from_secs(5) {
            said = Instant::now();
            eprintln!("doctor: {} of {tried} connections", nth + 1);
        }
    }
    (tried, None)
}

/// One client that is welcome and never has to ping.
fn connect(address: SocketAddr, nth: u64) -> io::Result<TcpStream> {
    let mut stream = TcpStream::connect_timeout(&address, CONNECT_WAIT)?;
    stream.set_read_timeout(Some(CONNECT_WAIT))?;
    let id = format!("doctor-{nth}");
    let mut packet = vec![0x10, 12 + id.len() as u8, 0, 4, b'M', b'Q', b'T', b'T', 4, 2, 0, 0, 0];
    packet.push(id.len() as u8);
    packet.extend_from_slice(id.as_bytes());
    stream.write_all(&packet)?;
    let mut answer = [0; 4];
    stream.read_exact(&mut answer)?;
    match answer {
        [0x20, 2, 0, 0] => Ok(stream),
        _ => Err(io::Error::other(format!("the broker refused: CONNACK {:#04x}", answer[3]))),
    }
}

/// A broker of this very program, ended with this value.
struct Broker {
    child: Child,
    port: u16,
    log: std::path::PathBuf,
}

impl Broker {
    fn start(connections: u64) -> Result<Self, String> {
        let free = TcpListener::bind("127.0.0.1:0").and_then(|l| l.local_addr());
        let port = free.map_err(|e| format!("no port for a broker: {e}"))?.port();
        let log = std::env::temp_dir().join(format!("ringmain-doctor-{}.log", std::process::id()));
        let file = std::fs::File::create(&log).map_err(|e| format!("{}: {e}", log.display()))?;
        let program = std::env::current_exe().map_err(|e| format!("which program is this? {e}"))?;
        let mut command = Command::new(program);
        for nth in 0..connections.div_ceil(PER_ADDRESS) {
            command.args(["--listen", &format!("tcp://{}", address(nth, port))]);
        }
        // A few more, since a connection that failed may not be gone yet when it is tried again.
        let most = connections + 1_000;
        let child = command
            .args(["--log", "warn", "--set", &format!("limits.max_connections={most}")])
            .args(["--set", "admin.socket=", "--set", "admin.metrics_listen="])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(file)
            .spawn()
            .map_err(|e| format!("cannot start a broker: {e}"))?;
        let mut broker = Self { child, port, log };
        let started = Instant::now();
        loop {
            if let Some(why) = broker.ended() {
                return Err(why);
            }
            if TcpStream::connect_timeout(&broker.address(0), CONNECT_WAIT).is_ok() {
                break;
            }
            if started.elapsed() > START_WAIT {
                return Err("the broker did not start within 20 seconds".to_owned());
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(broker)
    }

    fn address(&self, nth: u64) -> SocketAddr {
        address(nth / PER_ADDRESS, self.port)
    }

    /// Why it ended, if it did.
    fn ended(&mut self) -> Option<String> {
        let status = self.child.try_wait().ok()??;
        let log = std::fs::read_to_string(&self.log).unwrap_or_default();
        let last = log.lines().last().unwrap_or("and said nothing");
        Some(format!("the broker ended ({status}): {last}"))
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        // It holds nothing that anybody wants.
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = std::fs::remove_file(&self.log);
    }
}

/// The nth address that the broker listens on: 127.77.0.1 and up.
fn address(nth: u64, port: u16) -> SocketAddr {
    let first = u32::from(Ipv4Addr::new(127, 77, 0, 1));
    SocketAddr::V4(SocketAddrV4::new(Ipv4Addr::from(first + nth as u32), port))
}
