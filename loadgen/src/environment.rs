//! The machine that a run was made on: what must be equal before two reports compare.

use std::collections::BTreeMap;
use std::fs;
use std::io::Read as _;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// What a report says about its machine. What the kernel does not tell stays empty.
#[derive(Clone, Debug, Default, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(default)]
pub struct Environment {
    /// Kernel release.
    pub kernel: String,
    /// Model name of the first CPU.
    pub cpu: String,
    /// CPUs that this process may use.
    pub cpus: usize,
    /// Memory in MiB.
    pub memory_mib: u64,
    /// RLIMIT_NOFILE, soft.
    pub descriptors: u64,
    /// Range of local ports.
    pub local_ports: String,
    /// When it was looked at, in seconds since 1970.
    pub unix_s: u64,
    /// Version of this program.
    pub load_version: String,
    /// Architecture: `x86_64`.
    pub architecture: String,
    /// The kernel's build: its number, options and date.
    pub kernel_build: String,
    /// Of the kernel's command line, what moves figures: [`TELLING_OPTIONS`].
    pub kernel_options: String,
    /// Libc and distribution, from os-release.
    pub system: String,
    /// CPUs that are online, as ranges.
    pub cpus_online: String,
    /// Physical cores that the CPUs belong to.
    pub cores: usize,
    /// Sockets.
    pub sockets: usize,
    /// Whether a hypervisor is below.
    pub virtual_machine: bool,
    /// Frequency governor of the first CPU.
    pub governor: String,
    /// Boost: `1` when it is allowed.
    pub boost: String,
    /// What time is read from.
    pub clock_source: String,
    /// Transparent huge pages: the setting in force.
    pub huge_pages: String,
    /// Mitigations, by vulnerability; those that do not concern this CPU are left out.
    pub mitigations: BTreeMap<String, String>,
    /// Settings of the kernel that bound or shape a run.
    pub sysctls: BTreeMap<String, String>,
    /// Limits of this process: soft and hard.
    pub limits: BTreeMap<String, String>,
    /// Limits of the control group.
    pub control_group: BTreeMap<String, String>,
    /// Load averages over 1, 5 and 15 minutes, before the run.
    pub load_averages: String,
    /// Memory that was available before the run, in MiB.
    pub available_mib: u64,
    /// The broker, where its process is known.
    pub broker: Option<Broker>,
}

/// A broker's process.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Broker {
    /// Its pid when it was looked at.
    pub pid: u32,
    /// Path of its program.
    pub program: String,
    /// What `--version` prints first, where the program is known to end after it.
    pub version: String,
    /// Its command line.
    pub command: Vec<String>,
    /// Its limit of open descriptors, soft.
    pub descriptors: String,
    /// CPUs it may use, as ranges.
    pub cpus: String,
}

/// Sysctls that a report holds: what bounds connections and descriptors, and what shapes latency.
const SYSCTLS: &[&str] = &[
    "fs.file-max",
    "fs.nr_open",
    "kernel.io_uring_disabled",
    "kernel.numa_balancing",
    "kernel.pid_max",
    "kernel.sched_autogroup_enabled",
    "kernel.threads-max",
    "net.core.netdev_max_backlog",
    "net.core.rmem_default",
    "net.core.rmem_max",
    "net.core.somaxconn",
    "net.core.wmem_default",
    "net.core.wmem_max",
    "net.ipv4.ip_local_port_range",
    "net.ipv4.tcp_congestion_control",
    "net.ipv4.tcp_fin_timeout",
    "net.ipv4.tcp_max_orphans",
    "net.ipv4.tcp_max_syn_backlog",
    "net.ipv4.tcp_max_tw_buckets",
    "net.ipv4.tcp_mem",
    "net.ipv4.tcp_rmem",
    "net.ipv4.tcp_syncookies",
    "net.ipv4.tcp_tw_reuse",
    "net.ipv4.tcp_wmem",
    "vm.max_map_count",
    "vm.overcommit_memory",
    "vm.swappiness",
];

/// Programs that print their version for `--version` and end, or refuse the option and end.
const ANSWERS_VERSION: &[&str] = &["ringmain", "mosquitto", "rumqttd", "rmqttd", "nanomq"];
/// A program that has not answered by then is left alone.
const VERSION_WAIT: Duration = Duration::from_secs(2);

impl Environment {
    /// Asks the kernel.
    #[must_use]
    pub fn here() -> Self {
        let cpuinfo = text("/proc/cpuinfo");
        let meminfo = text("/proc/meminfo");
        let mib = |key| kib_after(&meminfo, key) / 1024;
        let cpu_files = "/sys/devices/system/cpu";
        Self {
            kernel: text("/proc/sys/kernel/osrelease"),
            cpu: after(&cpuinfo, "model name").unwrap_or_default(),
            cpus: std::thread::available_parallelism().map_or(1, usize::from),
            memory_mib: mib("MemTotal"),
            descriptors: descriptor_limit(),
            local_ports: sysctl("net.ipv4.ip_local_port_range").replace(' ', "-"),
            unix_s: SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs()),
            load_version: env!("CARGO_PKG_VERSION").to_owned(),
            architecture: std::env::consts::ARCH.to_owned(),
            kernel_build: text("/proc/sys/kernel/version"),
            kernel_options: telling_options(&text("/proc/cmdline")),
            system: system_name(&text("/etc/os-release")),
            cpus_online: text(&format!("{cpu_files}/online")),
            cores: count_distinct(&cpuinfo, &["physical id", "core id"]),
            sockets: count_distinct(&cpuinfo, &["physical id"]),
            virtual_machine: after(&cpuinfo, "flags")
                .is_some_and(|flags| flags.split(' ').any(|flag| flag == "hypervisor")),
            governor: text(&format!("{cpu_files}/cpu0/cpufreq/scaling_governor")),
            boost: text(&format!("{cpu_files}/cpufreq/boost")),
            clock_source: text("/sys/devices/system/clocksource/clocksource0/current_clocksource"),
            huge_pages: chosen(&text("/sys/kernel/mm/transparent_hugepage/enabled")),
            mitigations: mitigations(),
            sysctls: SYSCTLS
                .iter()
                .map(|&name| (name.to_owned(), sysctl(name)))
                .filter(|(_, value)| !value.is_empty())
                .collect(),
            limits: limits(&text("/proc/self/limits")),
            control_group: control_group(),
            load_averages: text("/proc/loadavg").split(' ').take(3).collect::<Vec<_>>().join(" "),
            available_mib: mib("MemAvailable"),
            broker: None,
        }
    }

    /// The same with what can be known of the broker's process.
    #[must_use]
    pub fn with_broker(mut self, pid: u32) -> Self {
        self.broker = Some(Broker::of(pid));
        self
    }

    /// Its lines for people: a name and a value each, without those that are empty.
    #[must_use]
    pub fn rows(&self) -> Vec<(String, String)> {
        let mut rows = Vec::new();
        let mut row = |name: &str, value: String| {
            if !value.is_empty() && value != "0" {
                rows.push((name.to_owned(), value));
            }
        };
        row("generator", format!("ringmain-load {}", self.load_version));
        if let Some(broker) = &self.broker {
            row("broker", broker.program.clone());
            row("broker version", broker.version.clone());
            row("broker command", broker.command.join(" "));
            row("broker descriptors", broker.descriptors.clone());
            row("broker CPUs", broker.cpus.clone());
        }
        row("system", self.system.clone());
        row("kernel", format!("{} {}", self.kernel, self.kernel_build).trim().to_owned());
        row("kernel options", self.kernel_options.clone());
        row("CPU", self.cpu.clone());
        row(
            "CPUs",
            format!(
                "{} usable ({} online, {} cores, {} sockets){}",
                self.cpus,
                self.cpus_online,
                self.cores,
                self.sockets,
                if self.virtual_machine { ", virtual machine" } else { "" }
            ),
        );
        row("governor", self.governor.clone());
        row("boost", self.boost.clone());
        row("clock", self.clock_source.clone());
        row("huge pages", self.huge_pages.clone());
        row("memory, MiB", format!("{} ({} available)", self.memory_mib, self.available_mib));
        row("load averages", self.load_averages.clone());
        for (prefix, map) in [
            ("cgroup", &self.control_group),
            ("limit", &self.limits),
            ("sysctl", &self.sysctls),
            ("mitigation", &self.mitigations),
        ] {
            for (name, value) in map {
                row(&format!("{prefix} {name}"), value.clone());
            }
        }
        rows
    }
}

impl Broker {
    /// Looks at the process; what may not be read stays empty.
    #[must_use]
    pub fn of(pid: u32) -> Self {
        let path = format!("/proc/{pid}/exe");
        let program = fs::read_link(&path).unwrap_or_default();
        let name = program.file_name().and_then(|n| n.to_str()).unwrap_or_default();
        let known = ANSWERS_VERSION.contains(&name);
        let limits = limits(&text(&format!("/proc/{pid}/limits")));
        let command = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        Self {
            pid,
            version: if known { version_of(&path) } else { String::new() },
            program: program.display().to_string(),
            command: command
                .split(|&b| b == 0)
                .filter(|word| !word.is_empty())
                .map(|word| String::from_utf8_lossy(word).into_owned())
                .collect(),
            descriptors: limits.get("open files").cloned().unwrap_or_default(),
            cpus: after(&text(&format!("/proc/{pid}/status")), "Cpus_allowed_list")
                .unwrap_or_default(),
        }
    }
}

/// First line with a digit that a program prints for `--version`.
fn version_of(program: &str) -> String {
    let child = Command::new(program)
        .arg("--version")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn();
    let Ok(mut child) = child else { return String::new() };
    let until = Instant::now() + VERSION_WAIT;
    while matches!(child.try_wait(), Ok(None)) && Instant::now() < until {
        std::thread::sleep(Duration::from_millis(5));
    }
    // Ended by now, or it does not know the option.
    let _ = child.kill();
    let _ = child.wait();
    let mut out = Vec::new();
    if let Some(pipe) = child.stdout.take() {
        let _ = pipe.take(4096).read_to_end(&mut out);
    }
    let text = String::from_utf8_lossy(&out).into_owned();
    let line = text.lines().find(|l| l.contains(|c: char| c.is_ascii_digit()));
    line.unwrap_or_default().trim().to_owned()
}

/// Beginnings of the kernel's boot options that move figures: mitigations, idling, isolated CPUs,
/// clocks, sizes of tables and pages. What else stands on the command line (consoles, disks, what
/// the first process is told) says nothing of the figures and is nobody's business.
pub const TELLING_OPTIONS: &[&str] = &[
    "amd_iommu=",
    "amd_pstate=",
    "audit=",
    "clocksource=",
    "cpufreq.",
    "cpuidle",
    "default_hugepagesz=",
    "haltpoll.",
    "hpet=",
    "hugepages",
    "idle=",
    "intel_idle.",
    "intel_iommu=",
    "intel_pstate=",
    "iommu",
    "irqaffinity=",
    "isolcpus=",
    "kpti=",
    "l1tf=",
    "maxcpus=",
    "mds=",
    "mem=",
    "mitigations=",
    "nested_",
    "no",
    "numa",
    "nvme.",
    "pcie_aspm=",
    "preempt=",
    "processor.",
    "psi=",
    "pti=",
    "rcu",
    "rcutree.",
    "sched",
    "skew_tick=",
    "spec",
    "thash_entries=",
    "threadirqs",
    "transparent_hugepage=",
    "tsc=",
];

/// Those of a kernel command line; what follows `--` is for the first process.
fn telling_options(command_line: &str) -> String {
    let of_the_kernel = command_line.split(' ').take_while(|&option| option != "--");
    let telling = of_the_kernel.filter(|o| TELLING_OPTIONS.iter().any(|t| o.starts_with(t)));
    telling.collect::<Vec<_>>().join(" ")
}

fn text(path: &str) -> String {
    fs::read_to_string(path).unwrap_or_default().trim().to_owned()
}

/// What follows `key` and a colon.
fn after(text: &str, key: &str) -> Option<String> {
    let line = text.lines().find(|l| l.split(':').next().is_some_and(|k| k.trim() == key))?;
    Some(line.split_once(':')?.1.trim().to_owned())
}

fn kib_after(text: &str, key: &str) -> u64 {
    after(text, key).and_then(|v| v.split_whitespace().next()?.parse().ok()).unwrap_or(0)
}

fn sysctl(name: &str) -> String {
    let value = text(&format!("/proc/sys/{}", name.replace('.', "/")));
    value.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// The word in brackets: `always [madvise] never`.
fn chosen(text: &str) -> String {
    let inner = text.split_once('[').and_then(|(_, rest)| rest.split_once(']'));
    inner.map_or(text, |(word, _)| word).to_owned()
}

fn system_name(os_release: &str) -> String {
    let line = os_release.lines().find_map(|l| l.strip_prefix("PRETTY_NAME="));
    line.unwrap_or_default().trim_matches('"').to_owned()
}

/// How many combinations of these fields the CPUs have; 1 when the kernel does not say.
fn count_distinct(cpuinfo: &str, keys: &[&str]) -> usize {
    let mut seen = std::collections::BTreeSet::new();
    for cpu in cpuinfo.split("\n\n").filter(|cpu| !cpu.trim().is_empty()) {
        seen.insert(keys.iter().map(|key| after(cpu, key)).collect::<Vec<_>>());
    }
    seen.len().max(1)
}

fn mitigations() -> BTreeMap<String, String> {
    let files = fs::read_dir("/sys/devices/system/cpu/vulnerabilities").into_iter().flatten();
    files
        .flatten()
        .map(|file| (file.file_name(), text(&file.path().to_string_lossy())))
        .filter(|(_, value)| !value.is_empty() && value != "Not affected")
        .map(|(name, value)| (name.to_string_lossy().into_owned(), value))
        .collect()
}

/// The limits that bound a run, from /proc/PID/limits: `soft / hard`.
fn limits(text: &str) -> BTreeMap<String, String> {
    let wanted = ["open files", "processes", "locked memory", "address space"];
    let mut found = BTreeMap::new();
    for line in text.lines() {
        let Some(rest) = line.strip_prefix("Max ") else { continue };
        let Some(name) = wanted.iter().find(|name| rest.starts_with(**name)) else { continue };
        let mut values = rest[name.len()..].split_whitespace();
        if let (Some(soft), Some(hard)) = (values.next(), values.next()) {
            found.insert((*name).to_owned(), format!("{soft} / {hard}"));
        }
    }
    found
}

/// Limits of the version 2 control group that this process is in; the tightest on the way up is
/// what counts, so each level that sets one is named.
fn control_group() -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    let membership = text("/proc/self/cgroup");
    let Some(path) = membership.lines().find_map(|l| l.strip_prefix("0::")) else { return found };
    let mut folder = std::path::PathBuf::from(format!("/sys/fs/cgroup{path}"));
    while folder.starts_with("/sys/fs/cgroup") {
        for file in ["cpu.max", "memory.max", "memory.high", "pids.max", "cpuset.cpus.effective"] {
            let value = text(&folder.join(file).to_string_lossy());
            if !value.is_empty() && !value.starts_with("max") {
                found.entry(file.to_owned()).or_insert(value);
            }
        }
        if !folder.pop() {
            break;
        }
    }
    found
}

/// RLIMIT_NOFILE, soft: caps a direct-descriptor table.
#[must_use]
pub fn descriptor_limit() -> u64 {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: `limit` is valid.
    let result = unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) };
    if result == 0 { limit.rlim_cur } else { 1024 }
}

/// CPUs that this thread may run on, in order.
#[must_use]
pub fn allowed_cpus() -> Vec<usize> {
    // SAFETY: an all-zero set is valid, the kernel writes no more than its size, and CPU_ISSET stays
    // inside of it.
    unsafe {
        let mut set: libc::cpu_set_t = std::mem::zeroed();
        if libc::sched_getaffinity(0, size_of::<libc::cpu_set_t>(), &raw mut set) != 0 {
            return Vec::new();
        }
        (0..libc::CPU_SETSIZE as usize).filter(|cpu| libc::CPU_ISSET(*cpu, &set)).collect()
    }
}

/// Binds this thread to one CPU.
///
/// # Errors
/// When the CPU does not exist or may not be used.
pub fn pin_to(cpu: usize) -> std::io::Result<()> {
    // SAFETY: an all-zero set is valid, CPU_SET stays inside of it, and 0 is this thread.
    let result = unsafe {
        let mut set: libc::cpu_set_t = std::mem::zeroed();
        libc::CPU_SET(cpu.min(libc::CPU_SETSIZE as usize - 1), &mut set);
        libc::sched_setaffinity(0, size_of::<libc::cpu_set_t>(), &raw const set)
    };
    if result == 0 { Ok(()) } else { Err(std::io::Error::last_os_error()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_machine_has_a_kernel_cpus_memory_and_limits() {
        let here = Environment::here();
        assert!(!here.kernel.is_empty() && here.cpus > 0 && here.memory_mib > 0, "{here:?}");
        assert!(here.sysctls.contains_key("net.core.somaxconn"), "{:?}", here.sysctls);
        assert!(here.limits["open files"].contains(" / "), "{:?}", here.limits);
        assert!(here.rows().iter().any(|(name, _)| name == "kernel"));
    }

    #[test]
    fn of_the_kernels_command_line_only_what_moves_figures_is_told() {
        let line = "BOOT_IMAGE=/boot/vmlinuz root=UUID=1 mitigations=off console=ttyS0 quiet isolcpus=2-7 \
                    thash_entries=2097152 -- --listen 1.2.3.4 idle=poll";
        assert_eq!(telling_options(line), "mitigations=off isolcpus=2-7 thash_entries=2097152");
    }

    #[test]
    fn a_thread_may_run_on_the_cpu_that_it_is_bound_to_and_no_other() {
        let all = allowed_cpus();
        assert!(!all.is_empty());
        std::thread::spawn(move || {
            let last = all[all.len() - 1];
            pin_to(last).unwrap();
            assert_eq!(allowed_cpus(), [last]);
        })
        .join()
        .unwrap();
    }

    #[test]
    fn a_process_is_named_by_its_program_and_command_line() {
        let broker = Broker::of(std::process::id());
        assert!(broker.program.ends_with(broker.command[0].rsplit('/').next().unwrap()));
        assert!(!broker.cpus.is_empty() && broker.version.is_empty());
    }

    #[test]
    fn a_report_without_the_later_fields_is_still_read() {
        let old = r#"{"kernel":"6.1","cpu":"x","cpus":2,"memory_mib":3,"descriptors":4,"local_ports":"1-2"}"#;
        let read: Environment = serde_json::from_str(old).unwrap();
        assert_eq!((read.kernel.as_str(), read.cpus, read.cores), ("6.1", 2, 0));
    }

    #[test]
    fn cores_and_sockets_are_counted_once() {
        let cpu = |socket, core| {
            format!("model name\t: X\nphysical id\t: {socket}\ncore id\t\t: {core}\n")
        };
        let info = [cpu(0, 0), cpu(0, 0), cpu(0, 1), cpu(1, 0)].join("\n");
        assert_eq!(count_distinct(&info, &["physical id", "core id"]), 3);
        assert_eq!(count_distinct(&info, &["physical id"]), 2);
    }

    #[test]
    fn the_setting_in_brackets_is_the_one_in_force() {
        assert_eq!(chosen("always [madvise] never"), "madvise");
    }
}
