//! Whether a host can hold so many connections, found out before the first one is opened.
//!
//! [`Facts::of`] asks the host; [`check`] is pure: facts in, a [`Verdict`] out, which names each
//! limit that would stop the growth and at what count. What a connection costs is written beside each.

use serde::{Deserialize, Serialize};

use crate::host::{Host, MemoryGroup, field, release};

/// Kernel memory of one idle socket end: the socket with its inode and file, an armed multishot
/// receive and its poll. Measured with Linux 6.18 over 100,000 to 1,000,000 connections: 4.5 to 4.9 KB.
const KERNEL_BYTES_PER_END: u64 = 4_900;
/// User memory of the broker for a connection with one subscription; measured 360 to 450.
const BROKER_BYTES: u64 = 480;
/// User memory of the generator for a client that checks what it receives; measured 250 to 400.
const GENERATOR_BYTES: u64 = 420;
/// What broker and generator take before the first connection, with their rings for a million.
const FIXED_BYTES: u64 = 512 << 20;
/// What is left to everything else on the host.
const RESERVE_BYTES: u64 = 1 << 30;
/// Ordinary descriptors that a process needs besides its rings: files, pipes, eventfds, listeners.
const DESCRIPTORS_SPARE: u64 = 64;
/// Ordinary descriptors of one ring: the ring, its duplicate for other threads, an eventfd.
const DESCRIPTORS_PER_RING: u64 = 3;
/// Ordinary descriptors of a shard besides those of its rings: its executor's rings, listeners, eventfds.
const DESCRIPTORS_PER_SHARD: u64 = 8;
/// Slots that a table keeps free for connections accepted while it fills.
const TABLE_SLACK: u64 = 16;
/// Connections that each of several shards has room for besides an eighth more than its share.
const SHARE_SPARE: u64 = 64;
/// The kernel's bound of one table of direct descriptors.
const TABLE_MAX: u64 = 1 << 20;
/// Locked memory of one ring of the generator with its queues (65,536 completions).
const RING_LOCKED_BYTES: u64 = 1_500 << 10;
/// Locked memory of one ring of the broker, and of the first shard besides: the least RLIMIT_MEMLOCK (KiB) with which it starts was
/// 4,272 with one ring, 6,464 with three; with a ring for each of two, three, four shards 5,424, 6,560, 8,128.
const BROKER_RING_LOCKED_BYTES: u64 = 1_150 << 10;
const BROKER_LOCKED_BYTES: u64 = 3_200 << 10;
/// Files that are open on a quiet host besides ours.
const FILES_SPARE: u64 = 4_096;
/// Pages of TCP buffers that an idle connection counts for, in a thousandth: both ends measured
/// 386 pages at 110,000 connections.
const TCP_PAGES_PER_1000: u64 = 8;

/// From so many connections on, what one of the kernel's timers sends at once fills a backlog of less
/// than [`BURST_PACKETS`] packets.
const BURST_CONNECTIONS: u64 = 100_000;
/// Connections that one chain of the kernel's table may have on average before it is worth a note.
const CHAIN_MAX: u64 = 4;
/// See [`BURST_CONNECTIONS`].
const BURST_PACKETS: u64 = 16_384;

/// What the host says. Every limit that is not known (or not set) is `None`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Facts {
    /// Kernel release as (major, minor).
    pub kernel: (u32, u32),
    /// `kernel.io_uring_disabled`: 0 for everybody, 1 for members of a group, 2 for nobody.
    pub io_uring_disabled: u32,
    /// Runs as root, or with CAP_SYS_ADMIN: `fs.file-max` and RLIMIT_MEMLOCK do not bind then.
    pub privileged: bool,
    /// MemAvailable, bytes.
    pub memory_available: u64,
    /// What the memory control groups still allow, bytes.
    pub memory_group_left: Option<u64>,
    /// RLIMIT_NOFILE of this process, soft.
    pub descriptors: u64,
    /// RLIMIT_NOFILE of this process, hard.
    pub descriptors_hard: u64,
    /// RLIMIT_MEMLOCK, bytes.
    pub memlock: Option<u64>,
    /// `fs.file-max`.
    pub file_max: u64,
    /// Files open on the host now.
    pub files_open: u64,
    /// `fs.nr_open`: what RLIMIT_NOFILE can be raised to.
    pub nr_open: u64,
    /// `net.ipv4.ip_local_port_range`: how many ports a source address has.
    pub ports_per_source: u64,
    /// Source addresses that connections may come from.
    pub sources: u64,
    /// `net.ipv4.tcp_mem`: low, pressure, high; pages. `None` where it cannot be seen: in a network
    /// namespace, which most containers are.
    pub tcp_mem: Option<[u64; 3]>,
    /// Pages of TCP buffers in use.
    pub tcp_pages: u64,
    /// `net.ipv4.tcp_ehash_entries`: chains of the table that finds an established connection, from
    /// Linux 6.2 on.
    pub tcp_ehash: Option<u64>,
    /// `net.ipv4.tcp_max_orphans`.
    pub tcp_max_orphans: u64,
    /// `net.ipv4.tcp_max_tw_buckets`.
    pub tcp_max_tw_buckets: u64,
    /// `net.core.somaxconn`.
    pub somaxconn: u64,
    /// `net.core.netdev_max_backlog`: packets that wait for a CPU on the loopback interface.
    pub netdev_max_backlog: u64,
    /// `net.netfilter.nf_conntrack_max`, where connections are tracked.
    pub conntrack_max: Option<u64>,
    /// Which ends of the connections are on this host.
    pub side: Side,
    /// Shards of the broker: CPUs that it may run on, unless it is told otherwise.
    pub shards: u64,
    /// Ordinary descriptors that a broker which holds a connection in each may open; `None` where
    /// it keeps connections elsewhere, as Ringmain does, or is not known.
    pub broker_descriptors: Option<u64>,
}

/// Which ends of the connections a host holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Side {
    /// The broker's; clients are elsewhere.
    Broker,
    /// The load generator's; the broker is elsewhere.
    Generator,
    /// Both.
    Both,
}

impl Side {
    /// Socket ends of each connection on this host.
    const fn ends(self) -> u64 {
        match self {
            Self::Broker | Self::Generator => 1,
            Self::Both => 2,
        }
    }

    /// User and kernel memory of each connection on this host, bytes.
    const fn bytes(self) -> u64 {
        match self {
            Self::Broker => KERNEL_BYTES_PER_END + BROKER_BYTES,
            Self::Generator => KERNEL_BYTES_PER_END + GENERATOR_BYTES,
            Self::Both => 2 * KERNEL_BYTES_PER_END + BROKER_BYTES + GENERATOR_BYTES,
        }
    }
}

/// What a run asks of the host.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Needs {
    /// Connections held at the same time.
    pub connections: u64,
    /// All are closed at once and opened again.
    pub storm: bool,
}

/// A limit that the run meets.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finding {
    /// Its name, as the operator knows it: `fs.file-max`.
    pub limit: String,
    /// How many connections it allows.
    pub allows: u64,
    /// What it is and what to do.
    pub remedy: String,
}

/// What [`check`] found.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Verdict {
    /// Connections asked for.
    pub wanted: u64,
    /// Connections that all limits allow, at most `wanted`.
    pub fits: u64,
    /// Limits below `wanted`, the tightest first.
    pub stops: Vec<Finding>,
    /// What will not stop the run but shows in its result.
    pub notes: Vec<String>,
    /// Memory that `fits` connections take on this host, bytes.
    pub memory_needed: u64,
    /// Rings that one process needs for `fits` connections.
    pub rings: u64,
}

impl Verdict {
    /// Whether all connections asked for fit.
    #[must_use]
    pub fn is_enough(&self) -> bool {
        self.fits >= self.wanted
    }

    /// The verdict as lines for people.
    #[must_use]
    pub fn to_text(&self) -> String {
        let mut out = format!(
            "preflight   {} of {} connections fit: {:.1} GiB of memory, {} rings a process\n",
            self.fits,
            self.wanted,
            self.memory_needed as f64 / f64::from(1 << 30),
            self.rings
        );
        for f in &self.stops {
            out += &format!("  stops at {:>9}: {}: {}\n", f.allows, f.limit, f.remedy);
        }
        for note in &self.notes {
            out += &format!("  note: {note}\n");
        }
        out
    }
}

/// What stops a run of `needs` on a host with `facts`, and at what count.
#[must_use]
pub fn check(facts: &Facts, needs: Needs) -> Verdict {
    let wanted = needs.connections;
    let mut stops: Vec<Finding> = [
        io_uring(facts),
        memory(facts),
        memory_group(facts),
        rings(facts),
        files(facts),
        ports(facts),
        tcp_mem(facts),
        memlock(facts),
        conntrack(facts),
        broker(facts),
    ]
    .into_iter()
    .flatten()
    .filter(|f| f.allows < wanted)
    .collect();
    stops.sort_by(|a, b| (a.allows, &a.limit).cmp(&(b.allows, &b.limit)));
    let fits = stops.first().map_or(wanted, |f| f.allows);
    Verdict {
        wanted,
        fits,
        memory_needed: FIXED_BYTES + fits * facts.side.bytes(),
        rings: fits.div_ceil(table(facts).max(1)),
        notes: notes(facts, needs, fits),
        stops,
    }
}

fn finding(limit: &str, allows: u64, remedy: String) -> Option<Finding> {
    Some(Finding { limit: limit.to_owned(), allows, remedy })
}

fn io_uring(f: &Facts) -> Option<Finding> {
    let (major, minor) = f.kernel;
    if f.kernel < (6, 1) {
        let remedy = format!("Linux {major}.{minor} lacks what the rings need; 6.1 or newer");
        return finding("kernel", 0, remedy);
    }
    if f.io_uring_disabled == 2 || f.io_uring_disabled == 1 && !f.privileged {
        let remedy = format!("it is {}; set it to 0", f.io_uring_disabled);
        return finding("kernel.io_uring_disabled", 0, remedy);
    }
    None
}

fn connections_in(f: &Facts, bytes: u64) -> u64 {
    bytes.saturating_sub(FIXED_BYTES) / f.side.bytes()
}

fn memory(f: &Facts) -> Option<Finding> {
    let allows = connections_in(f, f.memory_available.saturating_sub(RESERVE_BYTES));
    let remedy = format!(
        "{} MiB are available, {} bytes go for each connection; free or add some",
        f.memory_available >> 20,
        f.side.bytes()
    );
    finding("memory", allows, remedy)
}

fn memory_group(f: &Facts) -> Option<Finding> {
    let left = f.memory_group_left?;
    let remedy = format!("{} MiB are left in the control group; raise memory.max", left >> 20);
    finding("memory.max", connections_in(f, left), remedy)
}

/// Connections that one table of direct descriptors holds.
fn table(f: &Facts) -> u64 {
    f.descriptors.min(TABLE_MAX).saturating_sub(TABLE_SLACK)
}

/// Each table is capped by RLIMIT_NOFILE, and so are the ordinary descriptors of the rings. A broker with
/// several shards has room for an eighth more in each than its share, since clients are spread by a hash.
fn rings(f: &Facts) -> Option<Finding> {
    let spare = f.descriptors.saturating_sub(DESCRIPTORS_SPARE);
    let of_generator = spare / DESCRIPTORS_PER_RING * table(f);
    let shards = f.shards.max(1);
    let each = spare.saturating_sub(shards * DESCRIPTORS_PER_SHARD) / DESCRIPTORS_PER_RING / shards;
    let of_broker = match shards {
        1 => each.saturating_mul(table(f)),
        _ => (each.saturating_mul(table(f)).saturating_sub(SHARE_SPARE) * 8 / 9)
            .saturating_mul(shards),
    };
    let (rings, allows) = match f.side {
        Side::Generator => (spare / DESCRIPTORS_PER_RING, of_generator),
        Side::Broker => (each * shards, of_broker),
        Side::Both => (each * shards, of_broker.min(of_generator)),
    };
    let most = f.descriptors_hard.max(f.nr_open.min(if f.privileged { u64::MAX } else { 0 }));
    let remedy = format!(
        "{rings} rings with {} connections each; `ulimit -n` can go up to {most}",
        table(f)
    );
    finding("RLIMIT_NOFILE", allows, remedy)
}

/// A socket in a ring has no descriptor, but it is a file.
fn files(f: &Facts) -> Option<Finding> {
    if f.privileged {
        return None;
    }
    let ends = f.side.ends();
    let allows = f.file_max.saturating_sub(f.files_open + FILES_SPARE) / ends;
    finding("fs.file-max", allows, format!("it is {}; {ends} files a connection", f.file_max))
}

fn ports(f: &Facts) -> Option<Finding> {
    if f.side == Side::Broker {
        return None; // the clients' own
    }
    let allows = f.sources.saturating_mul(f.ports_per_source);
    let remedy = format!(
        "{} source addresses with {} ports each; widen net.ipv4.ip_local_port_range or give more \
         addresses (--ifaddr)",
        f.sources, f.ports_per_source
    );
    finding("source ports", allows, remedy)
}

fn tcp_mem(f: &Facts) -> Option<Finding> {
    let [_, _, high] = f.tcp_mem?;
    let allows = high.saturating_sub(f.tcp_pages).saturating_mul(1000) / TCP_PAGES_PER_1000;
    let remedy = format!("at most {high} pages of buffers over all sockets; raise it");
    finding("net.ipv4.tcp_mem", allows, remedy)
}

/// Since Linux 6.14 the queues of a ring count as locked memory, unless one may lock any amount.
fn memlock(f: &Facts) -> Option<Finding> {
    if f.privileged || f.kernel < (6, 14) {
        return None;
    }
    let limit = f.memlock?;
    let rings = match f.side {
        Side::Generator => limit / RING_LOCKED_BYTES,
        Side::Broker | Side::Both => {
            limit.saturating_sub(BROKER_LOCKED_BYTES) / BROKER_RING_LOCKED_BYTES
        }
    };
    let remedy = format!("room for {rings} rings; raise it (`ulimit -l`)");
    finding("RLIMIT_MEMLOCK", rings.saturating_mul(table(f)), remedy)
}

fn conntrack(f: &Facts) -> Option<Finding> {
    let max = f.conntrack_max?;
    let remedy = format!("it is {max}, one entry a connection; raise it or do not track these");
    finding("net.netfilter.nf_conntrack_max", max.saturating_sub(FILES_SPARE), remedy)
}

fn broker(f: &Facts) -> Option<Finding> {
    let limit = f.broker_descriptors?;
    let allows = limit.saturating_sub(DESCRIPTORS_SPARE);
    finding("RLIMIT_NOFILE of the broker", allows, format!("it is {limit}; raise it there"))
}

fn notes(f: &Facts, needs: Needs, fits: u64) -> Vec<String> {
    let mut notes = Vec::new();
    if needs.storm && fits > f.tcp_max_orphans {
        notes.push(format!(
            "net.ipv4.tcp_max_orphans is {}: when all connections end at once, some may end with RST",
            f.tcp_max_orphans
        ));
    }
    if needs.storm && fits > f.tcp_max_tw_buckets {
        notes.push(format!(
            "net.ipv4.tcp_max_tw_buckets is {}: not all ended connections wait out TIME_WAIT",
            f.tcp_max_tw_buckets
        ));
    }
    if f.somaxconn < 1024 {
        notes.push(format!(
            "net.core.somaxconn is {}: connects that find the backlog full wait a second",
            f.somaxconn
        ));
    }
    if f.side == Side::Both && fits >= BURST_CONNECTIONS && f.netdev_max_backlog < BURST_PACKETS {
        notes.push(format!(
            "net.core.netdev_max_backlog is {}: in bursts the loopback interface drops packets, which \
             then come a second later",
            f.netdev_max_backlog
        ));
    }
    let chain = fits * f.side.ends() / f.tcp_ehash.unwrap_or(u64::MAX).max(1);
    if chain >= CHAIN_MAX {
        notes.push(format!(
            "net.ipv4.tcp_ehash_entries is {}: the kernel looks at {chain} connections for each packet; \
             boot with thash_entries={}, or run in a network namespace with \
             net.ipv4.tcp_child_ehash_entries, as `million --netns` does",
            f.tcp_ehash.unwrap_or(0),
            (2 * fits).next_power_of_two()
        ));
    }
    if fits > 0 && f.kernel < (6, 11) {
        notes.push("before Linux 6.11 a socket is made by system calls: connects cost more".into());
    }
    notes
}

impl Facts {
    /// Asks `host` for connections of which `side` is on it. Source addresses are taken to be one: who
    /// knows better says so.
    #[must_use]
    pub fn of(host: &Host, side: Side) -> Self {
        let numbers_of = |path: &str| host.text(path).ok();
        let meminfo = host.text_or_empty("proc/meminfo");
        let [low, high] = numbers(&host.text_or_empty("proc/sys/net/ipv4/ip_local_port_range"));
        let [files_open] = numbers(&host.text_or_empty("proc/sys/fs/file-nr"));
        let (descriptors, descriptors_hard) = host.limit("Max open files").unwrap_or((1024, 1024));
        let memlock = host.limit("Max locked memory").map(|(soft, _)| soft);
        Self {
            kernel: release(&host.text_or_empty("proc/sys/kernel/osrelease")),
            io_uring_disabled: host.sysctl("kernel.io_uring_disabled").unwrap_or(0) as u32,
            privileged: effective_capability(&host.of_the_process("status"), CAP_SYS_ADMIN),
            memory_available: field(&meminfo, "MemAvailable:").unwrap_or(0) * 1024,
            memory_group_left: memory_group_left(host),
            descriptors,
            descriptors_hard,
            memlock: memlock.filter(|&bytes| bytes != u64::MAX),
            file_max: host.sysctl("fs.file-max").unwrap_or(u64::MAX),
            files_open,
            nr_open: host.sysctl("fs.nr_open").unwrap_or(1 << 20),
            ports_per_source: (high + 1).saturating_sub(low),
            sources: 1,
            tcp_mem: numbers_of("proc/sys/net/ipv4/tcp_mem").map(|t| numbers(&t)),
            tcp_pages: tcp_pages(&host.text_or_empty("proc/net/sockstat")),
            // Negative where a namespace shares the host's.
            tcp_ehash: host
                .text_or_empty("proc/sys/net/ipv4/tcp_ehash_entries")
                .trim_start_matches('-')
                .parse()
                .ok(),
            tcp_max_orphans: host.sysctl("net.ipv4.tcp_max_orphans").unwrap_or(u64::MAX),
            tcp_max_tw_buckets: host.sysctl("net.ipv4.tcp_max_tw_buckets").unwrap_or(u64::MAX),
            somaxconn: host.sysctl("net.core.somaxconn").unwrap_or(4096),
            netdev_max_backlog: host.sysctl("net.core.netdev_max_backlog").unwrap_or(u64::MAX),
            // The table may be there while no rule makes the kernel track anything.
            conntrack_max: host
                .sysctl("net.netfilter.nf_conntrack_max")
                .filter(|_| host.sysctl("net.netfilter.nf_conntrack_count").is_none_or(|n| n > 0)),
            side,
            shards: host.usable_cpus(),
            broker_descriptors: None,
        }
    }

    /// With what a network namespace hides of its `host`: settings that are the host's all the same.
    #[must_use]
    pub fn with_hidden(self, host: &Self) -> Self {
        let (tcp_mem, netdev_max_backlog) = (host.tcp_mem, host.netdev_max_backlog);
        Self { tcp_mem, netdev_max_backlog, ..self }
    }
}

/// The bit of CAP_SYS_ADMIN.
const CAP_SYS_ADMIN: u32 = 21;

fn effective_capability(status: &str, bit: u32) -> bool {
    let set = status.lines().find_map(|l| l.strip_prefix("CapEff:"));
    set.and_then(|s| u64::from_str_radix(s.trim(), 16).ok()).is_some_and(|s| s >> bit & 1 == 1)
}

/// The first numbers of a line; 0 where there are none.
fn numbers<const N: usize>(text: &str) -> [u64; N] {
    let mut parts = text.split_whitespace().filter_map(|n| n.parse().ok());
    std::array::from_fn(|_| parts.next().unwrap_or(0))
}

/// Pages of TCP buffers in use, from /proc/net/sockstat.
#[must_use]
pub fn tcp_pages(sockstat: &str) -> u64 {
    let line = sockstat.lines().find(|l| l.starts_with("TCP:")).unwrap_or("");
    let mut words = line.split_whitespace();
    words.find(|w| *w == "mem").and_then(|_| words.next()?.parse().ok()).unwrap_or(0)
}

/// What the control group allows that is nearest to its bound; `None` without one.
fn memory_group_left(host: &Host) -> Option<u64> {
    let left =
        |group: &MemoryGroup| group.max_bytes.saturating_sub(group.charged_bytes().unwrap_or(0));
    host.memory_groups().iter().map(left).min()
}

#[cfg(test)]
mod tests;
