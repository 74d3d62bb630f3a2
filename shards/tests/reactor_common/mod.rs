//! Machines much simpler than a broker, and clients of them.
#![allow(dead_code, unreachable_pub, reason = "each test binary uses its part")]

pub mod router;
pub mod tls;

use std::collections::{HashMap, HashSet};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use ringmain_shards::boundary::{Control, Event, Pressure};
use ringmain_shards::engine::Machine;
use ringmain_shards::engine::effects::{CloseHow, Effects, Op};
use ringmain_shards::engine::ids::{ConnId, Now, ShardId};
use ringmain_shards::engine::input::{CloseCause, Input};
use ringmain_shards::engine::introduction::Introduction;
use ringmain_shards::engine::mail::Parcel;
use ringmain_shards::reactor::{self, Node, NodeConfig, StatsSnapshot};

/// What machines counted, visible to the test.
#[derive(Debug, Default)]
pub struct Seen {
    pub opened: AtomicU64,
    pub introduced: AtomicU64,
    /// What was said in the last introduction.
    pub introduction: Mutex<Option<Introduction>>,
    pub arrived: AtomicU64,
    pub not_moved: AtomicU64,
    pub closed_fin: AtomicU64,
    pub closed_local: AtomicU64,
    pub closed_error: AtomicU64,
    pub bytes: AtomicU64,
    pub sent: AtomicU64,
    pub drained: AtomicU64,
    pub mails: AtomicU64,
    pub ticks: AtomicU64,
}

impl Seen {
    pub fn get(&self, of: impl Fn(&Self) -> &AtomicU64) -> u64 {
        of(self).load(Ordering::Relaxed)
    }

    pub fn closed(&self) -> u64 {
        self.get(|s| &s.closed_fin) + self.get(|s| &s.closed_local) + self.get(|s| &s.closed_error)
    }
}

fn inc(n: &AtomicU64) {
    n.fetch_add(1, Ordering::Relaxed);
}

/// Checks what every machine may rely on, and counts.
#[derive(Debug)]
pub struct Checked {
    pub seen: Arc<Seen>,
    live: HashSet<ConnId>,
    /// Those that nothing came from yet.
    unheard: HashSet<ConnId>,
    indices: HashMap<u32, u32>,
}

impl Checked {
    pub fn new(seen: Arc<Seen>) -> Self {
        Self { seen, live: HashSet::new(), unheard: HashSet::new(), indices: HashMap::new() }
    }

    fn begin(&mut self, conn: ConnId) {
        assert!(self.live.insert(conn), "{conn:?} is alive already");
        let last = self.indices.insert(conn.index, conn.generation);
        assert!(last.is_none_or(|g| g < conn.generation), "generation did not grow");
    }

    pub fn end(&mut self, conn: ConnId) {
        assert!(self.live.remove(&conn), "{conn:?} ended twice");
    }

    /// To be called with each input.
    pub fn check(&mut self, input: &Input<'_>) {
        match input {
            Input::Open { conn, peer, .. } => {
                assert!(peer.addr.ip().is_loopback());
                inc(&self.seen.opened);
                self.unheard.insert(*conn);
                self.begin(*conn);
            }
            Input::Introduced { conn, introduction } => {
                assert!(self.live.contains(conn) && self.unheard.contains(conn), "once, and first");
                self.unheard.remove(conn);
                inc(&self.seen.introduced);
                *self.seen.introduction.lock().unwrap() = Some((**introduction).clone());
            }
            Input::Arrived { conn, .. } => {
                inc(&self.seen.arrived);
                self.begin(*conn);
            }
            Input::Data { conn, bytes } => {
                assert!(!bytes.is_empty() && self.live.contains(conn));
                self.unheard.remove(conn);
                self.seen.bytes.fetch_add(bytes.len() as u64, Ordering::Relaxed);
            }
            Input::Sent { conn, bytes } => {
                assert!(*bytes > 0 && self.live.contains(conn));
                self.seen.sent.fetch_add(u64::from(*bytes), Ordering::Relaxed);
            }
            Input::Closed { conn, cause } => {
                inc(match cause {
                    CloseCause::PeerFin => &self.seen.closed_fin,
                    CloseCause::Local => &self.seen.closed_local,
                    CloseCause::Error(errno) => {
                        assert!(*errno > 0);
                        &self.seen.closed_error
                    }
                });
                self.end(*conn);
            }
            Input::NotMoved { .. } => inc(&self.seen.not_moved),
            Input::LaneDrained { .. } => inc(&self.seen.drained),
            Input::Mail { .. } => inc(&self.seen.mails),
            Input::Tick => inc(&self.seen.ticks),
            _ => {}
        }
    }
}

/// Writes bytes to the arena and an operation for them.
pub fn write(fx: &mut Effects, conn: ConnId, bytes: &[u8]) {
    let at = fx.arena.len() as u32;
    fx.arena.extend_from_slice(bytes);
    fx.ops.push(Op::Write { conn, at, len: bytes.len() as u32 });
}

/// Sends back what it gets. `Q` as the first byte of a receive: answer "bye" and close. `A`: abort.
/// `P`: stop reading that connection until the next order of the control plane. `H`+digit as the
/// first bytes: hand over to that shard. `F`: write 16 MiB and close. Accepts while the pressure is
/// normal.
#[derive(Debug)]
pub struct Echo {
    me: ShardId,
    checked: Checked,
    established: HashSet<ConnId>,
    paused: Vec<ConnId>,
}

impl Echo {
    pub fn new(me: ShardId, seen: Arc<Seen>) -> Self {
        Self { me, checked: Checked::new(seen), established: HashSet::new(), paused: Vec::new() }
    }

    fn on_data(&mut self, conn: ConnId, bytes: &[u8], fx: &mut Effects) {
        match bytes {
            [b'Q', ..] => {
                write(fx, conn, b"bye");
                fx.ops.push(Op::Close { conn, how: CloseHow::Flush });
            }
            [b'F', ..] => {
                fx.shared.push(bytes::Bytes::from(vec![b'f'; 16 << 20]));
                let ix = fx.shared.len() as u32 - 1;
                fx.ops.push(Op::WriteShared { conn, ix });
                fx.ops.push(Op::Close { conn, how: CloseHow::Flush });
            }
            [b'A', ..] => fx.ops.push(Op::Close { conn, how: CloseHow::Abort }),
            [b'P', ..] => {
                fx.ops.push(Op::PauseRead { conn });
                self.paused.push(conn);
                write(fx, conn, b"p");
            }
            [b'H', to, rest @ ..] if !self.established.contains(&conn) => {
                let parcel = Parcel {
                    identity: None,
                    peer: ringmain_shards::engine::ids::Peer {
                        addr: SocketAddr::from(([127, 0, 0, 1], 1)),
                        listener: 0,
                    },
                    introduction: None,
                    bytes: rest.to_vec(),
                    opened_ms: 0,
                };
                let to = ShardId(u16::from(to - b'0'));
                self.checked.end(conn);
                fx.ops.push(Op::Handover { conn, to, parcel: Box::new(parcel) });
            }
            _ => {
                if self.established.insert(conn) {
                    fx.ops.push(Op::Established { conn });
                }
                if bytes.len() >= 16 * 1024 {
                    fx.shared.push(bytes::Bytes::copy_from_slice(bytes));
                    let ix = fx.shared.len() as u32 - 1;
                    fx.ops.push(Op::WriteShared { conn, ix });
                } else {
                    write(fx, conn, bytes);
                }
            }
        }
    }
}

impl Machine for Echo {
    fn handle(&mut self, _: Now, input: Input<'_>, fx: &mut Effects) {
        self.checked.check(&input);
        match input {
            Input::Data { conn, bytes } => self.on_data(conn, bytes, fx),
            Input::Arrived { conn, parcel } => {
                write(fx, conn, format!("@{}:", self.me.0).as_bytes());
                if !parcel.bytes.is_empty() {
                    self.on_data(conn, &parcel.bytes, fx);
                }
            }
            Input::Closed { conn, .. } => {
                self.established.remove(&conn);
            }
            Input::Control(Control::Drain) => {
                for conn in self.paused.drain(..) {
                    fx.ops.push(Op::ResumeRead { conn });
                }
                fx.events.push(Event::Drained { shard: self.me });
            }
            Input::Control(Control::Pressure(Pressure::Normal)) => {
                fx.ops.push(Op::ResumeAccept { listener: 0 });
                fx.events.push(Event::Drained { shard: self.me });
            }
            Input::Control(Control::Pressure(_)) => {
                fx.ops.push(Op::PauseAccept { listener: 0 });
                fx.events.push(Event::Drained { shard: self.me });
            }
            _ => {}
        }
    }

    fn deadline_ms(&self) -> u64 {
        u64::MAX
    }
}

/// A node of echo machines.
pub fn echo_node(config: &NodeConfig) -> (Node, Arc<Seen>) {
    let seen = Arc::new(Seen::default());
    let for_factory = Arc::clone(&seen);
    let node = reactor::run(config, move |me| Echo::new(me, Arc::clone(&for_factory)))
        .unwrap_or_else(|e| panic!("start: {e}"));
    (node, seen)
}

/// Settings for a node on a free port.
pub fn config(shards: usize) -> NodeConfig {
    let mut config = NodeConfig::new(shards, &[SocketAddr::from(([127, 0, 0, 1], 0))]);
    config.cq_entries = 4096;
    config.recv_buffers_per_ring = 256;
    config
}

pub fn addr(node: &Node) -> SocketAddr {
    node.local_addrs()[0].inet().expect("TCP")
}

pub fn connect(node: &Node) -> TcpStream {
    let stream = TcpStream::connect(addr(node)).expect("connect");
    stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    stream.set_write_timeout(Some(Duration::from_secs(30))).unwrap();
    stream.set_nodelay(true).unwrap();
    stream
}

/// Sends and expects the same back.
pub fn exchange(stream: &mut TcpStream, bytes: &[u8]) {
    stream.write_all(bytes).expect("write");
    expect(stream, bytes);
}

/// Expects exactly these bytes.
pub fn expect(stream: &mut TcpStream, bytes: &[u8]) {
    let mut got = vec![0; bytes.len()];
    stream.read_exact(&mut got).expect("read");
    assert!(got == bytes, "other bytes came back");
}

/// Waits until something is so. Panics when it doesn't come to be: a bug, not a slow machine.
pub fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let start = Instant::now();
    while !holds() {
        assert!(start.elapsed() < Duration::from_secs(60), "never: {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// Sum over the shards.
pub fn total(node: &Node) -> StatsSnapshot {
    let mut sum = StatsSnapshot::default();
    node.stats().into_iter().for_each(|s| sum += s);
    sum
}

/// Waits until no connection is left, then stops the node.
pub fn finish(node: Node) -> StatsSnapshot {
    eventually("all connections closed", || {
        total(&node).connections == 0 && total(&node).slots_used == 0
    });
    node.stop();
    eventually("ended", || node.stopped());
    let stats = total(&node);
    node.join().expect("join");
    stats
}

/// Has the kernel send RST instead of FIN when the stream is dropped.
pub fn reset_on_drop(stream: &TcpStream) {
    use std::os::fd::AsRawFd;
    let linger = libc::linger { l_onoff: 1, l_linger: 0 };
    // SAFETY: passes one linger with its size.
    let result = unsafe {
        libc::setsockopt(
            stream.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_LINGER,
            (&raw const linger).cast(),
            size_of::<libc::linger>() as u32,
        )
    };
    assert_eq!(result, 0);
}
