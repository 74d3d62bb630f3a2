//! What the shards of a node and its handles share.

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::sync::atomic::{AtomicI32, AtomicI64, AtomicU8, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};

use arc_swap::ArcSwap;
use ringmain_transport::Layers;

use super::clock::monotonic_ns;
use super::config::{ListenerConfig, NodeConfig};
use super::ring::RingAddr;
use super::stats::ShardStats;
use crate::engine::ids::ShardId;
use crate::frames;
use crate::mesh::Mailbox;
use crate::observe::Recording;

/// How far the node is on its way to the end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Stage {
    /// Serving.
    Running,
    /// No new connections.
    Draining,
    /// Closing all connections, then ending.
    Stopping,
}

/// Lives on: the node.
pub(super) struct Shared {
    pub origin_ns: u64,
    /// How shards take notes, if they do.
    pub recording: Option<Recording>,
    pub mailboxes: Arc<[Mailbox]>,
    pub shards: Vec<PerShard>,
    pub listeners: Vec<SharedListener>,
    /// Connections of the node, and the most there may be.
    pub connections: AtomicI64,
    pub max_connections: i64,
    stage: AtomicU8,
    alive: AtomicUsize,
}

/// Counts a shard as alive for as long as it exists. With it ends the node: a shard ends when it was
/// told to or when it failed, and the others cannot go on without the sessions that live on it.
pub(super) struct Alive(Arc<Shared>);

impl Drop for Alive {
    fn drop(&mut self) {
        self.0.alive.fetch_sub(1, Ordering::Relaxed);
        self.0.advance(Stage::Stopping);
    }
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared").field("shards", &self.shards.len()).finish_non_exhaustive()
    }
}

/// What all shards know of a listener.
pub(super) struct SharedListener {
    pub name: String,
    /// What lies between its sockets and MQTT; `None` if nothing ever does. New connections take what is there.
    pub layers: Option<ArcSwap<Layers>>,
}

impl SharedListener {
    fn new(config: &ListenerConfig) -> Self {
        let layers = config.layers.as_ref().map(|layers| ArcSwap::new(Arc::clone(layers)));
        Self { name: config.name.clone(), layers }
    }
}

/// What others see of a shard.
pub(super) struct PerShard {
    /// Set by the shard before any shard runs its first turn.
    pub rings: OnceLock<Vec<Arc<RingAddr>>>,
    pub stats: ShardStats,
    /// When its present turn began, ns; 0 = it sleeps, or may.
    turn_since_ns: AtomicU64,
    /// Its kernel thread; 0 before it runs.
    tid: AtomicI32,
    wake: OwnedFd,
}

impl Shared {
    pub(super) fn new(config: &NodeConfig) -> io::Result<Self> {
        let shards = config.shards.len();
        let origin_ns = monotonic_ns();
        let per_shard = (0..shards)
            .map(|_| {
                Ok(PerShard {
                    rings: OnceLock::new(),
                    stats: ShardStats::default(),
                    turn_since_ns: AtomicU64::new(0),
                    tid: AtomicI32::new(0),
                    wake: eventfd()?,
                })
            })
            .collect::<io::Result<_>>()?;
        Ok(Self {
            origin_ns,
            recording: config.recording.map(|delay| Recording {
                clock: monotonic_ns,
                origin_ns,
                delay,
            }),
            mailboxes: (0..shards).map(|_| Mailbox::new(config.mailbox_batches)).collect(),
            shards: per_shard,
            listeners: config.listeners.iter().map(SharedListener::new).collect(),
            connections: AtomicI64::new(0),
            max_connections: i64::from(config.max_connections),
            stage: AtomicU8::new(Stage::Running as u8),
            alive: AtomicUsize::new(0),
        })
    }

    /// Monotonic time since the node began, ns.
    pub(super) fn now_ns(&self) -> u64 {
        monotonic_ns() - self.origin_ns
    }

    /// A shard begins a turn, or (0) goes to sleep.
    pub(super) fn heartbeat(&self, shard: ShardId, turn_ns: u64) {
        self.shards[shard.index()].turn_since_ns.store(turn_ns, Ordering::Relaxed);
    }

    /// When a shard's turn began, ns, or the one before the system call it is in; `None` = it sleeps.
    pub(super) fn turn_since_ns(&self, shard: ShardId) -> Option<u64> {
        match self.shards[shard.index()].turn_since_ns.load(Ordering::Relaxed) {
            0 => None,
            since => Some(since),
        }
    }

    /// The calling thread is that of a shard.
    pub(super) fn set_thread(&self, shard: ShardId) {
        self.shards[shard.index()].tid.store(frames::this_thread(), Ordering::Relaxed);
    }

    /// A shard's kernel thread; 0 before it runs.
    pub(super) fn thread(&self, shard: ShardId) -> i32 {
        self.shards[shard.index()].tid.load(Ordering::Relaxed)
    }

    pub(super) fn stats(&self, shard: ShardId) -> &ShardStats {
        &self.shards[shard.index()].stats
    }

    /// The rings of a shard; its main ring is the first.
    pub(super) fn rings(&self, shard: ShardId) -> &[Arc<RingAddr>] {
        self.shards[shard.index()].rings.get().map_or(&[], Vec::as_slice)
    }

    /// One ring of a shard.
    pub(super) fn ring(&self, shard: ShardId, ring: u16) -> &RingAddr {
        &self.rings(shard)[usize::from(ring)]
    }

    pub(super) fn wake_fd(&self, shard: ShardId) -> RawFd {
        self.shards[shard.index()].wake.as_raw_fd()
    }

    /// Wakes a shard from any thread, whether or not it sleeps.
    pub(super) fn wake(&self, shard: ShardId) {
        let one = 1u64;
        // SAFETY: writes 8 bytes of a u64. It cannot fail usefully: a full counter is a wake too.
        unsafe { libc::write(self.wake_fd(shard), (&raw const one).cast(), 8) };
    }

    /// Wakes a shard if it sleeps. Call after having put something where it looks.
    pub(super) fn wake_if_asleep(&self, shard: ShardId) {
        if self.mailboxes[shard.index()].sleep.must_wake() {
            self.wake(shard);
        }
    }

    /// Shards whose net task runs.
    pub(super) fn alive(&self) -> usize {
        self.alive.load(Ordering::Relaxed)
    }

    /// Counts the calling shard as alive.
    pub(super) fn live(self: &Arc<Self>) -> Alive {
        self.alive.fetch_add(1, Ordering::Relaxed);
        Alive(Arc::clone(self))
    }

    pub(super) fn stage(&self) -> Stage {
        match self.stage.load(Ordering::Relaxed) {
            0 => Stage::Running,
            1 => Stage::Draining,
            _ => Stage::Stopping,
        }
    }

    /// Goes forward to a stage, never back.
    pub(super) fn advance(&self, stage: Stage) {
        self.stage.fetch_max(stage as u8, Ordering::Relaxed);
        for shard in 0..self.shards.len() {
            self.wake_if_asleep(ShardId(shard as u16));
        }
    }
}

/// A non-blocking eventfd.
pub(super) fn eventfd() -> io::Result<OwnedFd> {
    // SAFETY: no memory involved.
    let fd = unsafe { libc::eventfd(0, libc::EFD_CLOEXEC | libc::EFD_NONBLOCK) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: a fresh descriptor that nobody else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}
