//! The thread of one shard: executor, rings, net task.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use glommio::{LocalExecutorBuilder, Placement};

use super::accept::Acceptor;
use super::children::Children;
use super::config::{NodeConfig, RingPlan, StartError};
use super::net::{Net, NetTask};
use super::probe::{Feature, Features};
use super::ring::{Ring, RingSize};
use super::shared::{Shared, eventfd};
use super::verdicts::Verdicts;
use crate::boundary::{Control, Event};
use crate::engine::Machine;
use crate::engine::auth::{AuthVerdict, Authenticator};
use crate::engine::ids::{ConnId, ShardId};

/// Memory for glommio's own I/O. Its default of 10 MiB per executor is for storage-bound programs.
const GLOMMIO_IO_MEMORY: usize = 1 << 20;
/// The executor's preempt timer: practically never. glommio 0.9 (and glommio-ng 0.12) go to sleep with
/// runnable tasks when the timer fires between arming it and running the first task, which a loaded
/// machine makes happen; without another timer that sleep has no end. See decision record 0002.
const PREEMPT: Duration = Duration::from_secs(3600);

/// Joins to what the net task ended with.
pub(super) type Handle = glommio::ExecutorJoinHandle<io::Result<()>>;

/// All that a shard's thread needs.
pub(super) struct ShardThread {
    pub me: ShardId,
    pub cpu: Option<usize>,
    pub sizes: Sizes,
    pub features: Features,
    pub sockets: Vec<OwnedFd>,
    /// By listener: whether the kernel is to probe connections of which it is asked for.
    pub probed: Arc<[bool]>,
    pub shared: Arc<Shared>,
    pub controls: flume::Receiver<Control>,
    pub events: flume::Sender<Event>,
    pub verdicts: flume::Receiver<(ConnId, AuthVerdict)>,
    pub authenticator: Option<Arc<dyn Authenticator>>,
    pub report: flume::Sender<Result<(), StartError>>,
    pub opened: flume::Receiver<()>,
}

/// How many rings, and how large.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sizes {
    rings: u16,
    capacity: u32,
    backlogs: u32,
    main: RingSize,
    child: RingSize,
    busy_wait: Duration,
}

impl Sizes {
    pub(super) fn new(config: &NodeConfig, plan: RingPlan) -> Self {
        let main = RingSize {
            cq_entries: config.cq_entries,
            table: plan.table,
            buffers: config.recv_buffers_per_ring,
            buffer_bytes: config.recv_buffer_bytes,
        };
        let child = RingSize {
            cq_entries: config.cq_entries.min((2 * plan.table).next_power_of_two().max(1024)),
            buffers: (config.recv_buffers_per_ring / 4).max(1),
            ..main
        };
        let backlogs = config.listeners.iter().fold(0u32, |sum, l| sum.saturating_add(l.backlog));
        let busy_wait = Duration::from_micros(config.busy_wait_us.into());
        Self { rings: plan.rings, capacity: plan.capacity, backlogs, main, child, busy_wait }
    }
}

impl ShardThread {
    /// Starts the thread.
    pub(super) fn spawn<M, F>(self, factory: F) -> Result<Handle, StartError>
    where
        M: Machine + 'static,
        F: FnOnce(ShardId) -> M + Send + 'static,
    {
        let shard = self.me.index();
        LocalExecutorBuilder::new(self.cpu.map_or(Placement::Unbound, Placement::Fixed))
            .name(&format!("shard-{shard}"))
            .io_memory(GLOMMIO_IO_MEMORY)
            .preempt_timer(PREEMPT)
            .spawn(move || self.main(factory))
            .map_err(|e| StartError::Executor { shard, reason: e.to_string() })
    }

    async fn main<M: Machine + 'static>(
        self,
        factory: impl FnOnce(ShardId) -> M,
    ) -> io::Result<()> {
        let Self { me, sizes, features, sockets, probed, shared, controls, events, report, .. } =
            self;
        let auth = Verdicts::new(self.verdicts, self.authenticator);
        let opened = self.opened;
        let net = match open_rings(sizes, features) {
            Ok((rings, children)) => {
                let addrs = rings.iter().map(|r| Arc::clone(&r.addr)).collect();
                let first = shared.shards[me.index()].rings.set(addrs).is_ok();
                debug_assert!(first, "a shard starts once");
                let acceptor = Acceptor::new(sockets, &probed, sizes.backlogs, rings.len());
                Net::new(me, Arc::clone(&shared), features, rings, children, acceptor)
            }
            Err((what, source)) => {
                drop(report.send(Err(StartError::Shard { shard: me.index(), what, source })));
                return Ok(());
            }
        };
        shared.set_thread(me);
        let _alive = shared.live();
        let task = NetTask::new(net, factory(me), controls, events, auth, sizes.busy_wait);
        drop(report.send(Ok(())));
        drop(report);
        if opened.recv().is_err() {
            return Ok(()); // another shard failed to start
        }
        // Not in a task queue of its own: the executor's loop is entered only when other tasks exist.
        task.run().await
    }
}

/// A shard's rings, and what it keeps about all but the first.
type Rings = (Vec<Ring>, Children);

fn open_rings(sizes: Sizes, features: Features) -> Result<Rings, (&'static str, io::Error)> {
    let register = features.has(Feature::RegisteredRing);
    let mut signals = Vec::new();
    let mut rings = Vec::new();
    for ix in 0..sizes.rings {
        let size = if ix == 0 { sizes.main } else { sizes.child };
        // The kernel has room for 16 registered rings per thread; the busiest matters most.
        let ring =
            Ring::new(size, sizes.capacity, register && ix == 0).map_err(|e| ("io_uring", e))?;
        if ix > 0 {
            let signal = eventfd().map_err(|e| ("eventfd", e))?;
            ring.register_eventfd(signal.as_raw_fd()).map_err(|e| ("eventfd of a ring", e))?;
            signals.push(signal);
        }
        rings.push(ring);
    }
    Ok((rings, Children::new(signals)))
}

/// The soft limit of descriptors; it bounds each table of direct descriptors as well.
pub(super) fn nofile_limit() -> u64 {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: the kernel writes one rlimit.
    unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) };
    limit.rlim_cur
}
