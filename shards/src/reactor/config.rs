//! Settings of the reactor, and what can go wrong at start.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use ringmain_transport::Layers;

use super::probe::{Degradation, Feature};
use crate::engine::auth::Authenticator;
use crate::observe::Delay;

/// Connections that may wait in the backlog and still be accepted after a ring is found full: the
/// table of a ring is larger than its capacity by this. See `accept.rs`.
pub(super) const TABLE_SLACK: u32 = 16;
/// The kernel's limit for one table of direct descriptors.
const TABLE_MAX: u32 = 1 << 20;

/// Where one shard runs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ShardPlacement {
    /// The CPU that its thread is pinned to; `None` = wherever the scheduler likes. Two shards may
    /// share a CPU.
    pub cpu: Option<usize>,
}

impl ShardPlacement {
    /// One shard after the other on the CPUs that this process may use; around again when there are
    /// more shards than CPUs. Unpinned where the CPUs cannot be told.
    #[must_use]
    pub fn spread(shards: usize) -> Vec<Self> {
        let cpus = core_affinity::get_core_ids().unwrap_or_default();
        (0..shards)
            .map(|ix| Self { cpu: (!cpus.is_empty()).then(|| cpus[ix % cpus.len()].id) })
            .collect()
    }
}

/// Where a listener listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Address {
    /// TCP.
    Inet(SocketAddr),
    /// A unix-domain socket. A file there that is a socket nobody listens on is replaced; it is removed when the
    /// node ends. Its clients count as 127.0.0.1, port 0.
    Unix(PathBuf),
}

impl Address {
    /// Address and port of TCP.
    #[must_use]
    pub fn inet(&self) -> Option<SocketAddr> {
        match self {
            Self::Inet(addr) => Some(*addr),
            Self::Unix(_) => None,
        }
    }
}

impl From<SocketAddr> for Address {
    fn from(addr: SocketAddr) -> Self {
        Self::Inet(addr)
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Inet(addr) => addr.fmt(f),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

/// One address to listen on. Each shard has its own socket on it (SO_REUSEPORT), but for unix-domain sockets, of
/// which there is one for all. (features.md T14)
#[derive(Clone, Debug)]
pub struct ListenerConfig {
    /// How the log calls it.
    pub name: String,
    /// Address and port; port 0 takes a free one, the same for all shards.
    pub addr: Address,
    /// Permissions of a unix-domain socket; `None`: as the umask has it.
    pub unix_mode: Option<u32>,
    /// User and group of a unix-domain socket; `None`: those of the process.
    pub unix_owner: (Option<u32>, Option<u32>),
    /// Connections the kernel queues per shard before it refuses more. Capped by
    /// `net.core.somaxconn`.
    pub backlog: u32,
    /// TCP_NODELAY: send small packets at once. The reactor coalesces by itself.
    pub nodelay: bool,
    /// TCP_DEFER_ACCEPT, s: the kernel accepts a connection when its first bytes are there.
    pub defer_accept_s: Option<u32>,
    /// SO_SNDBUF in bytes; `None` = the kernel tunes it.
    pub send_buffer_bytes: Option<u32>,
    /// SO_RCVBUF in bytes; `None` = the kernel tunes it.
    pub recv_buffer_bytes: Option<u32>,
    /// TCP keep-alive: idle seconds before the first probe; `None` = off.
    pub keepalive_idle_s: Option<u32>,
    /// Seconds between probes.
    pub keepalive_interval_s: u32,
    /// Probes without an answer before the connection is dropped.
    pub keepalive_probes: u32,
    /// TCP_USER_TIMEOUT: ms that sent data may stay unacknowledged before the connection is
    /// dropped; `None` = the kernel's 15 minutes or so.
    pub user_timeout_ms: Option<u32>,
    /// IPV6_V6ONLY for IPv6 addresses.
    pub v6_only: bool,
    /// What lies between its sockets and MQTT; `None`: nothing, for good.
    pub layers: Option<Arc<Layers>>,
}

impl ListenerConfig {
    /// Defaults for one address.
    #[must_use]
    pub fn new(addr: impl Into<Address>) -> Self {
        let addr = addr.into();
        Self {
            name: addr.to_string(),
            addr,
            unix_mode: None,
            unix_owner: (None, None),
            backlog: 4096,
            nodelay: true,
            defer_accept_s: None,
            send_buffer_bytes: None,
            recv_buffer_bytes: None,
            keepalive_idle_s: None,
            keepalive_interval_s: 15,
            keepalive_probes: 4,
            user_timeout_ms: None,
            v6_only: true,
            layers: None,
        }
    }
}

/// Settings of a node's data plane.
#[derive(Clone, Debug)]
pub struct NodeConfig {
    /// One entry per shard, 1..=256.
    pub shards: Vec<ShardPlacement>,
    /// Addresses; the index in this list is the `listener` of a connection.
    pub listeners: Vec<ListenerConfig>,
    /// Most connections of the node. More wait in the kernel's backlog; when several shards take
    /// the last places at the same time, those that came too late are closed (at most one or a few
    /// per shard).
    pub max_connections: u32,
    /// Bytes of one receive buffer: the most that one `Input::Data` carries.
    pub recv_buffer_bytes: u32,
    /// Receive buffers of a shard's main ring; a power of two up to 32,768. Child rings have a
    /// quarter of it.
    pub recv_buffers_per_ring: u16,
    /// Rings of each shard; 0 = as many as `max_connections` and RLIMIT_NOFILE ask for.
    pub rings_per_shard: u16,
    /// Most connections of one ring; `None` = RLIMIT_NOFILE (the kernel's bound), up to 2^20.
    pub max_connections_per_ring: Option<u32>,
    /// Completion queue entries of a shard's main ring. Too small a queue ends multishot requests,
    /// which then must be armed again.
    pub cq_entries: u32,
    /// How long a shard looks for work before it sleeps, in microseconds. Costs a core, saves a wake.
    pub busy_wait_us: u32,
    /// Deliveries that a shard's mailbox holds.
    pub mailbox_batches: usize,
    /// Orders of the control plane that wait for one shard.
    pub control_queue: usize,
    /// Events for the control plane that wait, of all shards together; more are dropped and counted.
    pub event_queue: usize,
    /// Who decides about clients of listeners that ask. Without it, nobody is let in there.
    pub authenticator: Option<Arc<dyn Authenticator>>,
    /// Whether shards take notes of their work ([`observe`](crate::observe)), and for tests what is to take
    /// longer. `None`: they do not.
    pub recording: Option<Option<Delay>>,
    /// Do not use these, as on an older kernel. For tests and for finding faults.
    pub disable: Vec<Feature>,
}

/// Ordinary descriptors of a ring: itself, its duplicate for other shards, an eventfd.
const DESCRIPTORS_PER_RING: u64 = 3;
/// Of a shard besides: its executor's rings, listeners, eventfds.
const DESCRIPTORS_PER_SHARD: u64 = 8;
/// Of the process besides: standard streams, signals, files, connections that are asked who they are.
const DESCRIPTORS_SPARE: u64 = 32;

impl NodeConfig {
    /// Defaults for `shards` shards without pinning and for these addresses.
    #[must_use]
    pub fn new(shards: usize, addrs: &[SocketAddr]) -> Self {
        Self {
            shards: vec![ShardPlacement::default(); shards],
            listeners: addrs.iter().copied().map(ListenerConfig::new).collect(),
            max_connections: 16_384,
            recv_buffer_bytes: 4096,
            recv_buffers_per_ring: 1024,
            rings_per_shard: 0,
            max_connections_per_ring: None,
            cq_entries: 65_536,
            busy_wait_us: 0,
            mailbox_batches: 1024,
            control_queue: 256,
            event_queue: 4096,
            authenticator: None,
            recording: Some(None),
            disable: Vec::new(),
        }
    }

    pub(super) fn check(&self) -> Result<(), StartError> {
        let bad = |what: &'static str| Err(StartError::Config(what));
        if !(1..=crate::engine::ids::SHARDS_MAX).contains(&self.shards.len()) {
            return bad("the number of shards must be 1 to 256");
        }
        if self.listeners.len() > 1024 {
            return bad("there can be at most 1,024 listeners");
        }
        if !self.recv_buffers_per_ring.is_power_of_two() || self.recv_buffers_per_ring > 32_768 {
            return bad("recv_buffers_per_ring must be a power of two, at most 32,768");
        }
        if !(64..=1 << 20).contains(&self.recv_buffer_bytes) {
            return bad("recv_buffer_bytes must be 64 to 1,048,576");
        }
        if !(64..=1 << 20).contains(&self.cq_entries) {
            return bad("cq_entries must be 64 to 1,048,576");
        }
        if self.max_connections == 0 || self.mailbox_batches == 0 {
            return bad("max_connections and mailbox_batches must be positive");
        }
        if self.max_connections_per_ring.is_some_and(|n| n < 8) {
            return bad("max_connections_per_ring must be at least 8");
        }
        Ok(())
    }

    /// How many rings a shard needs, and how many connections each holds.
    ///
    /// A shard must be able to hold more than its even share: clients are spread by hash.
    pub(super) fn ring_plan(&self, nofile: u64) -> Result<RingPlan, StartError> {
        let shards = self.shards.len() as u32;
        let even = self.max_connections.div_ceil(shards);
        let wanted = if shards == 1 { even } else { even + even / 8 + 64 };
        let limit = (nofile.min(u64::from(TABLE_MAX)) as u32).saturating_sub(TABLE_SLACK);
        let most = self.max_connections_per_ring.unwrap_or(limit).min(limit);
        if most < 8 {
            return Err(StartError::TooFewDescriptors { limit: nofile });
        }
        let rings = match self.rings_per_shard {
            0 => wanted.div_ceil(most),
            n => u32::from(n),
        };
        let Ok(rings) = u16::try_from(rings) else {
            return Err(StartError::TooFewDescriptors { limit: nofile });
        };
        // Tables in plenty are of no use without descriptors for the rings themselves.
        let per_shard = u64::from(rings) * DESCRIPTORS_PER_RING + DESCRIPTORS_PER_SHARD;
        if u64::from(shards) * per_shard + DESCRIPTORS_SPARE > nofile {
            return Err(StartError::TooFewDescriptors { limit: nofile });
        }
        let capacity = wanted.div_ceil(u32::from(rings)).clamp(8, most);
        Ok(RingPlan { rings, capacity, table: capacity + TABLE_SLACK })
    }
}

/// See [`NodeConfig::ring_plan`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct RingPlan {
    /// Rings of each shard.
    pub rings: u16,
    /// Connections that each ring may hold.
    pub capacity: u32,
    /// Direct descriptors of each ring.
    pub table: u32,
}

/// Why a node could not start. Each says what to do.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// A setting is out of its bounds.
    #[error("{0}")]
    Config(&'static str),
    /// The address is taken.
    #[error(
        "cannot listen on {addr}: the address is in use; stop the process that holds it \
         (`ss -ltnp`, `ss -lxp`) or choose another one"
    )]
    AddressInUse {
        /// The address.
        addr: Address,
    },
    /// A port below 1024 without the privilege, or a folder that may not be written to.
    #[error(
        "cannot listen on {addr}: permission denied; for a port, grant CAP_NET_BIND_SERVICE, lower \
         net.ipv4.ip_unprivileged_port_start, or choose one above 1023; for a path, let the broker's \
         user write to its folder"
    )]
    Privilege {
        /// The address.
        addr: Address,
    },
    /// Any other failure of a listening socket.
    #[error("cannot listen on {addr}: {step}: {source}")]
    Listen {
        /// The address.
        addr: Address,
        /// Which call failed.
        step: &'static str,
        /// Why.
        source: io::Error,
    },
    /// Kernel older than 6.1, or one that lacks what has no substitute.
    #[error("the kernel is too old: {missing} is missing; Linux 6.1 or newer is needed")]
    KernelTooOld {
        /// What it lacks.
        missing: &'static str,
    },
    /// io_uring is forbidden.
    #[error(
        "io_uring is not allowed here ({source}); check that `sysctl kernel.io_uring_disabled` is \
         0 and that no seccomp filter (container runtime, systemd SystemCallFilter) blocks it"
    )]
    IoUringForbidden {
        /// Why.
        source: io::Error,
    },
    /// RLIMIT_NOFILE bounds each table of direct descriptors.
    #[error(
        "RLIMIT_NOFILE is {limit}, too low for the connections asked for; raise it (`ulimit -n`, \
         systemd LimitNOFILE)"
    )]
    TooFewDescriptors {
        /// The soft limit.
        limit: u64,
    },
    /// A shard's thread, executor or rings could not be made.
    #[error("shard {shard} could not start: {what}: {source}")]
    Shard {
        /// Index of the shard.
        shard: usize,
        /// Which step failed.
        what: &'static str,
        /// Why.
        source: io::Error,
    },
    /// The glommio executor could not be made.
    #[error("shard {shard} could not start its executor: {reason}")]
    Executor {
        /// Index of the shard.
        shard: usize,
        /// What glommio says.
        reason: String,
    },
}

/// What the kernel offers, settled at start.
#[derive(Clone, Debug)]
pub struct KernelReport {
    /// What is missing (or disabled), and what that costs. To be logged.
    pub degradations: Vec<Degradation>,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(shards: usize, max: u32, per_ring: Option<u32>, nofile: u64) -> RingPlan {
        let mut config = NodeConfig::new(shards, &[]);
        config.max_connections = max;
        config.max_connections_per_ring = per_ring;
        config.ring_plan(nofile).unwrap()
    }

    #[test]
    fn the_rings_of_all_shards_hold_the_connections_and_no_table_exceeds_the_limit() {
        for shards in [1, 2, 7, 64, 256] {
            for max in [1, 1000, 16_384, 1_000_000, 4_000_000] {
                for nofile in [20_000, 1 << 20, u64::MAX] {
                    let plan = plan(shards, max, None, nofile);
                    assert!(u64::from(plan.table) <= nofile);
                    let all = u64::from(plan.rings) * u64::from(plan.capacity) * shards as u64;
                    assert!(all >= u64::from(max), "{shards} {max} {nofile}: {plan:?}");
                }
            }
        }
    }

    #[test]
    fn one_ring_is_enough_where_the_limit_is_high() {
        assert_eq!(plan(8, 1_000_000, None, 1 << 20).rings, 1);
        assert_eq!(plan(2, 512_000, None, 20_000).rings, 15);
    }

    #[test]
    fn a_limit_too_low_for_anything_is_an_error() {
        let config = NodeConfig::new(1, &[]);
        assert!(matches!(config.ring_plan(16), Err(StartError::TooFewDescriptors { limit: 16 })));
        assert!(config.ring_plan(1024).is_ok());
        let million = NodeConfig { max_connections: 1_000_000, ..NodeConfig::new(2, &[]) };
        let few = million.ring_plan(1024);
        assert!(matches!(few, Err(StartError::TooFewDescriptors { limit: 1024 })), "992 rings");
    }

    #[test]
    fn shards_are_spread_over_the_cpus() {
        let placements = ShardPlacement::spread(3);
        assert_eq!(placements.len(), 3);
        assert!(placements.iter().all(|p| p.cpu.is_some()));
    }
}
