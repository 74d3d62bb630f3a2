//! Faked /proc and /sys trees: what a fresh install of some distributions shows, and hosts that are wrong in one way.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use ringmain_kernel_params::Host;

/// A distribution, as installed: 16 cores, 64 GiB, a card with 16 queues.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Distribution {
    Debian12,
    Debian13,
    Ubuntu2404,
    Rhel9,
    Rhel10,
}

impl Distribution {
    pub(crate) const ALL: [Self; 5] =
        [Self::Debian12, Self::Debian13, Self::Ubuntu2404, Self::Rhel9, Self::Rhel10];

    const fn name(self) -> &'static str {
        match self {
            Self::Debian12 => "Debian GNU/Linux 12 (bookworm)",
            Self::Debian13 => "Debian GNU/Linux 13 (trixie)",
            Self::Ubuntu2404 => "Ubuntu 24.04.3 LTS",
            Self::Rhel9 => "Red Hat Enterprise Linux 9.6 (Plow)",
            Self::Rhel10 => "Red Hat Enterprise Linux 10.0 (Coughlan)",
        }
    }

    const fn kernel(self) -> &'static str {
        match self {
            Self::Debian12 => "6.1.0-40-amd64",
            Self::Debian13 => "6.12.48+deb13-amd64",
            Self::Ubuntu2404 => "6.8.0-85-generic",
            Self::Rhel9 => "5.14.0-570.17.1.el9_6.x86_64",
            Self::Rhel10 => "6.12.0-55.9.1.el10_0.x86_64",
        }
    }

    /// Files that differ from those of [`COMMON`].
    fn own(self) -> Vec<(&'static str, &'static str)> {
        match self {
            Self::Debian12 => vec![("proc/sys/net/core/optmem_max", "20480")],
            Self::Debian13 => vec![
                ("proc/sys/vm/max_map_count", "1048576"),
                ("proc/sys/net/ipv4/tcp_ehash_entries", "524288"),
            ],
            Self::Ubuntu2404 => vec![
                ("proc/sys/vm/max_map_count", "1048576"),
                ("proc/sys/net/ipv4/tcp_ehash_entries", "524288"),
                (THP, "always [madvise] never"),
            ],
            Self::Rhel9 => vec![
                ("proc/sys/net/core/optmem_max", "81920"),
                ("proc/sys/net/core/default_qdisc", "fq_codel"),
                ("proc/sys/kernel/io_uring_disabled", "2"),
                (THP, "[always] madvise never"),
            ],
            Self::Rhel10 => vec![
                ("proc/sys/kernel/io_uring_disabled", "2"),
                ("proc/sys/net/ipv4/tcp_ehash_entries", "524288"),
                (THP, "[always] madvise never"),
            ],
        }
    }
}

const THP: &str = "sys/kernel/mm/transparent_hugepage/enabled";

/// What all of them show.
const COMMON: &[(&str, &str)] = &[
    ("proc/sys/kernel/random/boot_id", "0d5b1c2e-0000-4000-8000-000000000001"),
    ("proc/sys/kernel/numa_balancing", "0"),
    ("proc/sys/kernel/nmi_watchdog", "1"),
    ("proc/sys/kernel/timer_migration", "1"),
    ("proc/sys/kernel/sched_rt_runtime_us", "950000"),
    ("proc/sys/fs/nr_open", "1048576"),
    ("proc/sys/fs/file-max", "9223372036854775807"),
    ("proc/sys/fs/file-nr", "1312\t0\t9223372036854775807"),
    ("proc/sys/net/core/somaxconn", "4096"),
    ("proc/sys/net/core/netdev_max_backlog", "1000"),
    ("proc/sys/net/core/netdev_budget", "300"),
    ("proc/sys/net/core/busy_poll", "0"),
    ("proc/sys/net/core/busy_read", "0"),
    ("proc/sys/net/core/default_qdisc", "fq_codel"),
    ("proc/sys/net/core/rps_sock_flow_entries", "0"),
    ("proc/sys/net/core/optmem_max", "131072"),
    ("proc/sys/net/core/rmem_max", "212992"),
    ("proc/sys/net/core/wmem_max", "212992"),
    ("proc/sys/net/ipv4/tcp_max_syn_backlog", "4096"),
    ("proc/sys/net/ipv4/tcp_syncookies", "1"),
    ("proc/sys/net/ipv4/tcp_abort_on_overflow", "0"),
    ("proc/sys/net/ipv4/tcp_synack_retries", "5"),
    ("proc/sys/net/ipv4/tcp_rmem", "4096\t131072\t6291456"),
    ("proc/sys/net/ipv4/tcp_wmem", "4096\t16384\t4194304"),
    ("proc/sys/net/ipv4/tcp_mem", "767586\t1023448\t1535172"),
    ("proc/sys/net/ipv4/tcp_notsent_lowat", "4294967295"),
    ("proc/sys/net/ipv4/tcp_slow_start_after_idle", "1"),
    ("proc/sys/net/ipv4/tcp_timestamps", "1"),
    ("proc/sys/net/ipv4/tcp_sack", "1"),
    ("proc/sys/net/ipv4/tcp_window_scaling", "1"),
    ("proc/sys/net/ipv4/tcp_moderate_rcvbuf", "1"),
    ("proc/sys/net/ipv4/tcp_congestion_control", "cubic"),
    ("proc/sys/net/ipv4/tcp_max_tw_buckets", "262144"),
    ("proc/sys/net/ipv4/tcp_max_orphans", "262144"),
    ("proc/sys/net/ipv4/tcp_tw_reuse", "2"),
    ("proc/sys/net/ipv4/tcp_fin_timeout", "60"),
    ("proc/sys/net/ipv4/tcp_keepalive_time", "7200"),
    ("proc/sys/net/ipv4/tcp_retries2", "15"),
    ("proc/sys/net/ipv4/ip_local_port_range", "32768\t60999"),
    ("proc/sys/net/ipv4/ip_local_reserved_ports", ""),
    ("proc/sys/net/ipv4/neigh/default/gc_thresh2", "512"),
    ("proc/sys/net/ipv4/neigh/default/gc_thresh3", "1024"),
    ("proc/sys/vm/max_map_count", "65530"),
    ("proc/sys/vm/zone_reclaim_mode", "0"),
    ("proc/sys/vm/swappiness", "60"),
    ("proc/sys/vm/min_free_kbytes", "67584"),
    ("proc/sys/vm/overcommit_memory", "0"),
    ("proc/sys/vm/stat_interval", "1"),
    (
        "proc/meminfo",
        "MemTotal:       65800000 kB\nMemAvailable:   63000000 kB\nSwapTotal:             0 kB",
    ),
    ("proc/net/sockstat", "sockets: used 200\nTCP: inuse 10 orphan 0 tw 2 alloc 12 mem 3"),
    ("proc/net/netstat", "TcpExt: SyncookiesSent ListenOverflows ListenDrops\nTcpExt: 0 0 0"),
    ("proc/net/softnet_stat", "00001000 00000000 00000000 00000000"),
    ("proc/vmstat", "nr_free_pages 1\noom_kill 0\ncompact_stall 0"),
    ("proc/self/status", "Name:\tringmain\nCapEff:\t0000000000000000"),
    ("proc/self/cgroup", "0::/system.slice/ringmain.service"),
    ("sys/fs/cgroup/system.slice/ringmain.service/memory.max", "max"),
    ("sys/fs/cgroup/system.slice/ringmain.service/memory.current", "4000000"),
    ("sys/fs/cgroup/system.slice/ringmain.service/pids.max", "76800"),
    ("sys/fs/cgroup/system.slice/ringmain.service/cpu.max", "max 100000"),
    (THP, "always [madvise] never"),
    ("sys/kernel/mm/transparent_hugepage/defrag", "always defer defer+madvise [madvise] never"),
    ("sys/devices/system/cpu/online", "0-15"),
    ("sys/devices/system/node/online", "0"),
    ("sys/devices/system/node/node0/cpulist", "0-15"),
    ("sys/devices/system/clocksource/clocksource0/current_clocksource", "tsc"),
    ("sys/class/net/eth0/device/numa_node", "0"),
];

/// A host below a temporary folder, removed when it is dropped.
pub(crate) struct Tree {
    root: PathBuf,
}

impl Tree {
    pub(crate) fn of(distribution: Distribution) -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let nth = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("ringmain-host-{}-{nth}", std::process::id());
        let tree = Self { root: std::env::temp_dir().join(name) };
        for (path, text) in COMMON {
            tree.set(path, text);
        }
        tree.set("proc/sys/kernel/osrelease", distribution.kernel());
        tree.set("etc/os-release", &format!("PRETTY_NAME=\"{}\"", distribution.name()));
        tree.limits(524_288, 524_288, 8 << 20);
        for (path, text) in distribution.own() {
            tree.set(path, text);
        }
        for cpu in 0..16 {
            let folder = format!("sys/devices/system/cpu/cpu{cpu}");
            tree.set(&format!("{folder}/cpufreq/scaling_governor"), "performance");
            for (state, latency) in [(0, 0), (1, 2), (2, 10), (3, 133)] {
                tree.set(&format!("{folder}/cpuidle/state{state}/latency"), &latency.to_string());
                tree.set(&format!("{folder}/cpuidle/state{state}/disable"), "0");
            }
        }
        tree.card(16);
        tree
    }

    /// Gives the card so many queues, each with an interrupt of its own, on its CPU.
    pub(crate) fn card(&self, queues: u32) {
        let _ = fs::remove_dir_all(self.root.join("sys/class/net/eth0/queues"));
        let mut interrupts = "           CPU0\n".to_owned();
        for queue in 0..queues {
            let folder = "sys/class/net/eth0/queues";
            self.set(&format!("{folder}/rx-{queue}/rps_cpus"), "0000");
            self.set(&format!("{folder}/tx-{queue}/xps_cpus"), &format!("{:04x}", 1 << queue));
            let number = 40 + queue;
            interrupts += &format!(" {number}:  1  IR-PCI-MSI 0-edge  eth0-TxRx-{queue}\n");
            self.set(&format!("proc/irq/{number}/smp_affinity_list"), &queue.to_string());
        }
        self.set("proc/interrupts", &interrupts);
    }

    /// Writes a file as /proc shows it, with a line feed at its end.
    pub(crate) fn set(&self, path: &str, text: &str) {
        let path = self.root.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, format!("{text}\n")).unwrap();
    }

    pub(crate) fn sysctl(&self, name: &str, value: &str) {
        self.set(&format!("proc/sys/{}", name.replace('.', "/")), value);
    }

    pub(crate) fn limits(&self, soft: u64, hard: u64, locked: u64) {
        let head = "Limit                     Soft Limit           Hard Limit           Units     ";
        self.set(
            "proc/self/limits",
            &format!(
                "{head}\nMax open files            {soft:<20} {hard:<20} files     \n\
                 Max locked memory         {locked:<20} {locked:<20} bytes     "
            ),
        );
    }

    pub(crate) fn text(&self, path: &str) -> Option<String> {
        fs::read_to_string(self.root.join(path)).ok()
    }

    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    pub(crate) fn host(&self) -> Host {
        Host::at(&self.root)
    }
}

impl Drop for Tree {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.root);
    }
}
