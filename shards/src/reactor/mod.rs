//! Drives one [`Machine`] per core on io_uring, inside a pinned glommio executor.
//!
//! Reading path: [`run`] starts the node; `shard.rs` is a shard's thread; `net.rs` its loop (reap,
//! turn, perform, submit, sleep); `accept.rs`, `io.rs`, `close.rs`, `handover.rs` are the life of a
//! connection; `ring.rs` is one io_uring; `probe.rs` what the kernel can do.
//!
//! Sockets do not go through glommio's `TcpStream`: see decision record 0001.

mod accept;
mod background;
mod children;
mod clock;
mod close;
mod config;
mod conn;
mod follow;
mod handover;
mod io;
mod keeper;
mod layers;
mod listen;
mod memory;
mod net;
mod probe;
mod ring;
mod shard;
mod shared;
mod stack;
mod stats;
mod token;
mod unix;
mod verdicts;
mod watch;

use std::sync::Arc;

pub use ringmain_transport::Layers;

pub use background::BackgroundTask;
pub use config::{Address, KernelReport, ListenerConfig, NodeConfig, ShardPlacement, StartError};
pub use keeper::Keeper;
pub use probe::{Degradation, Feature};
pub use stats::StatsSnapshot;
pub use watch::Lookout;

use crate::boundary::{Control, Event};
use crate::engine::Machine;
use crate::engine::auth::{AUTH_OPEN_MAX, AuthVerdict};
use crate::engine::ids::{ConnId, ShardId};
use shard::ShardThread;
use shared::{Shared, Stage};

/// Starts a node: one pinned thread, executor, net task and machine per shard. Returns when all
/// shards serve, or with the first error (and nothing left behind).
///
/// `factory` makes the machine of a shard, on the shard's own thread.
///
/// # Errors
///
/// See [`StartError`]; each is written for the operator.
pub fn run<M, F>(config: &NodeConfig, factory: F) -> Result<Node, StartError>
where
    M: Machine + 'static,
    F: Fn(ShardId) -> M + Send + Clone + 'static,
{
    config.check()?;
    memory::small_pages();
    let features = probe::probe(&config.disable)?;
    let plan = config.ring_plan(shard::nofile_limit())?;
    let shards = config.shards.len();
    // Where options can be set by the ring, each connection says whether it needs probes.
    let probe_all = !features.has(Feature::FixedFdInstall);
    let probed: Arc<[bool]> =
        config.listeners.iter().map(|l| !probe_all && l.keepalive_idle_s.is_some()).collect();
    let opened = listen::open_all(&config.listeners, shards, probe_all)?;
    let shared = Shared::new(config).map_err(|source| StartError::Shard {
        shard: 0,
        what: "eventfd",
        source,
    })?;
    let shared = Arc::new(shared);
    let (event_sender, events) = flume::bounded(config.event_queue.max(1));
    let (report, reports) = flume::bounded(shards);
    let mut node = Node {
        handles: Vec::new(),
        events,
        local_addrs: opened.addrs,
        _socket_files: opened.files,
        kernel: KernelReport { degradations: features.degradations() },
        shared: Arc::clone(&shared),
        threads: Vec::new(),
    };
    let mut gates = Vec::new();
    for (ix, (placement, sockets)) in config.shards.iter().zip(opened.by_shard).enumerate() {
        let shard = ShardId(ix as u16);
        let (control, controls) = flume::bounded(config.control_queue.max(1));
        let (gate, opened) = flume::bounded(1);
        // As many as there can be requests: an answer always finds room.
        let (verdict, verdicts) = flume::bounded(AUTH_OPEN_MAX);
        node.handles.push(ShardHandle { shard, control, verdict, shared: Arc::clone(&shared) });
        gates.push(gate);
        let thread = ShardThread {
            me: shard,
            cpu: placement.cpu,
            sizes: shard::Sizes::new(config, plan),
            features,
            sockets,
            probed: Arc::clone(&probed),
            shared: Arc::clone(&shared),
            controls,
            events: event_sender.clone(),
            verdicts,
            authenticator: config.authenticator.clone(),
            report: report.clone(),
            opened,
        };
        match thread.spawn(factory.clone()) {
            Ok(handle) => node.threads.push(handle),
            Err(error) => return Err(node.abandon(gates, error)),
        }
    }
    drop(report);
    for _ in 0..shards {
        match reports.recv() {
            Ok(Ok(())) => {}
            Ok(Err(error)) => return Err(node.abandon(gates, error)),
            Err(_) => {
                let reason = "its thread ended".to_owned();
                return Err(node.abandon(gates, StartError::Executor { shard: 0, reason }));
            }
        }
    }
    // No shard runs its first turn before the rings of all are known to all.
    for gate in gates {
        // A thread that is gone already shows up in `join`.
        let _ = gate.send(());
    }
    Ok(node)
}

/// A running node. Dropping it asks it to stop, without waiting.
#[derive(Debug)]
pub struct Node {
    handles: Vec<ShardHandle>,
    events: flume::Receiver<Event>,
    local_addrs: Vec<Address>,
    /// Removed at the end.
    _socket_files: Vec<listen::SocketFile>,
    kernel: KernelReport,
    shared: Arc<Shared>,
    threads: Vec<shard::Handle>,
}

impl Node {
    /// Whether all shards serve: false once the node was asked to stop or a shard has failed, which
    /// ends the others too.
    #[must_use]
    pub fn ready(&self) -> bool {
        self.shared.stage() == Stage::Running && self.shared.alive() == self.handles.len()
    }

    /// One handle per shard, by index.
    #[must_use]
    pub fn handles(&self) -> &[ShardHandle] {
        &self.handles
    }

    /// What the shards tell the control plane. Bounded: what isn't taken is dropped and counted.
    #[must_use]
    pub fn events(&self) -> &flume::Receiver<Event> {
        &self.events
    }

    /// Addresses listened on, with the ports really taken, by listener.
    #[must_use]
    pub fn local_addrs(&self) -> &[Address] {
        &self.local_addrs
    }

    /// What the kernel lacks. To be logged at start.
    #[must_use]
    pub fn kernel(&self) -> &KernelReport {
        &self.kernel
    }

    /// Counters, by shard. They may be a moment old.
    #[must_use]
    pub fn stats(&self) -> Vec<StatsSnapshot> {
        self.shared.shards.iter().map(|s| s.stats.snapshot()).collect()
    }

    /// For changing what lies between sockets and MQTT from other threads.
    #[must_use]
    pub fn layers_switch(&self) -> LayersSwitch {
        LayersSwitch(Arc::clone(&self.shared))
    }

    /// For looking at the shards from other threads.
    #[must_use]
    pub fn lookout(&self) -> Lookout {
        Lookout::new(Arc::clone(&self.shared))
    }

    /// Takes no new connections from now on: the listening sockets refuse them. For good.
    pub fn stop_accepting(&self) {
        self.shared.advance(Stage::Draining);
    }

    /// Closes every connection (what is pending is flushed for a second at most [S-93]) and ends the
    /// shards. Returns at once; [`join`](Self::join) waits.
    pub fn stop(&self) {
        self.shared.advance(Stage::Stopping);
    }

    /// Whether all shards have ended; the counters don't change any more then.
    #[must_use]
    pub fn stopped(&self) -> bool {
        self.shared.alive() == 0
    }

    /// Waits until all shards have ended.
    ///
    /// # Errors
    ///
    /// What the first failed shard says: its panic, or the kernel's refusal to go on.
    pub fn join(mut self) -> Result<(), String> {
        let mut result = Ok(());
        for (ix, thread) in self.threads.drain(..).enumerate() {
            let ended = match thread.join() {
                Ok(Ok(())) => Ok(()),
                Ok(Err(e)) => Err(format!("shard {ix}: {e}")),
                Err(e) => Err(format!("shard {ix}: {}", why_ended(&e))),
            };
            result = result.and(ended);
        }
        result
    }

    fn abandon(self, gates: Vec<flume::Sender<()>>, error: StartError) -> StartError {
        drop(gates); // a shard that waits for its gate ends
        self.stop();
        drop(self.join());
        error
    }
}

/// Changes what lies between the sockets of listeners and MQTT.
#[derive(Clone, Debug)]
pub struct LayersSwitch(Arc<Shared>);

impl LayersSwitch {
    /// For connections from now on; those that are there keep what they have. False for a listener that is not
    /// there, or was started with nothing in between.
    pub fn set(&self, listener: usize, layers: Arc<Layers>) -> bool {
        let place = self.0.listeners.get(listener).and_then(|l| l.layers.as_ref());
        place.map(|place| place.store(layers)).is_some()
    }
}

/// What a thread that did not end by itself said last.
fn why_ended(error: &glommio::GlommioError<()>) -> String {
    use glommio::{BuilderErrorKind, GlommioError};
    let GlommioError::BuilderError(BuilderErrorKind::ThreadPanic(panic)) = error else {
        return error.to_string();
    };
    let said = panic.downcast_ref::<String>().map(String::as_str);
    let said = said.or_else(|| panic.downcast_ref::<&str>().copied());
    format!("a fault in the broker: {}", said.unwrap_or("it panicked"))
}

impl Drop for Node {
    fn drop(&mut self) {
        self.stop();
    }
}

/// Speaks to one shard from any thread.
#[derive(Clone, Debug)]
pub struct ShardHandle {
    shard: ShardId,
    control: flume::Sender<Control>,
    verdict: flume::Sender<(ConnId, AuthVerdict)>,
    shared: Arc<Shared>,
}

/// A shard didn't take an order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ControlRefused {
    /// Too many wait already; try again later.
    #[error("the shard has too many orders waiting")]
    Full,
    /// The shard has ended.
    #[error("the shard has ended")]
    Ended,
}

impl ShardHandle {
    /// Which shard.
    #[must_use]
    pub fn shard(&self) -> ShardId {
        self.shard
    }

    /// Gives the shard an order, and wakes it if it sleeps. Never blocks.
    ///
    /// # Errors
    ///
    /// When its queue is full, or the shard has ended.
    pub fn send(&self, control: Control) -> Result<(), ControlRefused> {
        self.control.try_send(control).map_err(|e| match e {
            flume::TrySendError::Full(_) => ControlRefused::Full,
            flume::TrySendError::Disconnected(_) => ControlRefused::Ended,
        })?;
        self.shared.wake_if_asleep(self.shard);
        Ok(())
    }

    /// Answers a request of the shard about a client; each is answered once. Never blocks.
    ///
    /// # Errors
    ///
    /// When the shard has ended, or has been answered more often than it asked.
    pub fn answer(&self, conn: ConnId, verdict: AuthVerdict) -> Result<(), ControlRefused> {
        self.verdict.try_send((conn, verdict)).map_err(|e| match e {
            flume::TrySendError::Full(_) => ControlRefused::Full,
            flume::TrySendError::Disconnected(_) => ControlRefused::Ended,
        })?;
        self.shared.wake_if_asleep(self.shard);
        Ok(())
    }

    /// Wakes the shard if it sleeps.
    pub fn wake(&self) {
        self.shared.wake_if_asleep(self.shard);
    }
}
