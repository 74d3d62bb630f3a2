//! A host: its /proc and /sys, real or copied from another one.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde::Serialize;

/// Most files that a pattern may match: CPUs × idle states of the largest hosts.
const MATCHES_MAX: usize = 65_536;

/// A host's files. With another root than `/` it is looked at, never changed by accident: paths are
/// always taken below the root.
#[derive(Clone, Debug)]
pub struct Host {
    root: PathBuf,
    /// Whose limits and control group are looked at.
    process: String,
}

/// What the formulas need to know of a host.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Hardware {
    /// CPUs that are online.
    pub cores: u32,
    /// Bytes of memory.
    pub memory: u64,
    /// Bytes of swap space.
    pub swap: u64,
    /// Nodes of memory.
    pub nodes: u32,
    /// Network cards that are real, or look so: everything with a device.
    pub nics: u32,
    /// Receive queues of the widest one.
    pub queues: u32,
    /// 1 where the kernel tracks connections.
    pub tracked: u32,
    /// Kernel release as (major, minor).
    pub kernel: (u32, u32),
    /// From os-release.
    pub system: String,
}

impl Host {
    /// The host that this program runs on, seen by this process.
    #[must_use]
    pub fn here() -> Self {
        Self { root: PathBuf::from("/"), process: "self".to_owned() }
    }

    /// A copy of a host's files below `root`.
    #[must_use]
    pub fn at(root: &Path) -> Self {
        Self { root: root.to_owned(), process: "self".to_owned() }
    }

    /// The same host, with the limits and control group of process `pid`.
    #[must_use]
    pub fn of_process(mut self, pid: u32) -> Self {
        self.process = pid.to_string();
        self
    }

    /// Whether it is the host that this program runs on.
    #[must_use]
    pub fn is_here(&self) -> bool {
        self.root == Path::new("/")
    }

    /// Where `path`, relative to the host's root, is for us.
    #[must_use]
    pub fn path(&self, path: &str) -> PathBuf {
        self.root.join(path.trim_start_matches('/'))
    }

    /// A file's text without blanks at its ends.
    ///
    /// # Errors
    /// As [`fs::read_to_string`].
    pub fn text(&self, path: &str) -> io::Result<String> {
        fs::read_to_string(self.path(path)).map(|text| text.trim().to_owned())
    }

    /// The same, empty where it cannot be read.
    #[must_use]
    pub fn text_or_empty(&self, path: &str) -> String {
        self.text(path).unwrap_or_default()
    }

    /// A file of /proc of the process that is looked at.
    #[must_use]
    pub fn of_the_process(&self, file: &str) -> String {
        self.text_or_empty(&format!("proc/{}/{file}", self.process))
    }

    /// The number that a sysctl has.
    #[must_use]
    pub fn sysctl(&self, name: &str) -> Option<u64> {
        self.text(&format!("proc/sys/{}", name.replace('.', "/"))).ok()?.parse().ok()
    }

    /// Files that match a pattern with `*` in its components, relative to the root, sorted with
    /// numbers by their value.
    #[must_use]
    pub fn matching(&self, pattern: &str) -> Vec<String> {
        let mut found = vec![String::new()];
        for component in pattern.split('/') {
            let mut next = Vec::new();
            for folder in &found {
                let join = |name: &str| match folder.as_str() {
                    "" => name.to_owned(),
                    folder => format!("{folder}/{name}"),
                };
                if !component.contains('*') {
                    next.push(join(component));
                    continue;
                }
                let entries = fs::read_dir(self.path(folder)).into_iter().flatten().flatten();
                let names = entries.map(|e| e.file_name().to_string_lossy().into_owned());
                next.extend(names.filter(|n| fits(component, n)).map(|n| join(&n)));
            }
            next.truncate(MATCHES_MAX);
            found = next;
        }
        found.retain(|path| self.path(path).is_file());
        found.sort_by_cached_key(|path| parts(path));
        found
    }

    /// The folder of the process's control group (version 2) and a file in it; the nearest one
    /// upwards that has it, since a group without a controller is bounded by its parents.
    #[must_use]
    pub fn cgroup_file(&self, file: &str) -> Option<String> {
        let groups = self.of_the_process("cgroup");
        let group = groups.lines().find_map(|line| line.strip_prefix("0::/"))?;
        let mut folder = PathBuf::from("sys/fs/cgroup").join(group);
        while folder.starts_with("sys/fs/cgroup") {
            let path = folder.join(file).to_string_lossy().into_owned();
            if self.path(&path).is_file() {
                return Some(path);
            }
            folder.pop();
        }
        None
    }

    /// The memory control groups (version 2) that bound the process, its own first.
    #[must_use]
    pub fn memory_groups(&self) -> Vec<MemoryGroup> {
        let groups = self.of_the_process("cgroup");
        let Some(group) = groups.lines().find_map(|line| line.strip_prefix("0::/")) else {
            return Vec::new();
        };
        let own = PathBuf::from("sys/fs/cgroup").join(group);
        let folders = own.ancestors().take_while(|folder| folder.starts_with("sys/fs/cgroup"));
        let bounds = folders.filter_map(|folder| {
            let folder = self.root.join(folder);
            let max_bytes = number(&folder.join("memory.max"))?;
            Some(MemoryGroup { folder, max_bytes })
        });
        bounds.collect()
    }

    /// A limit of the process: (soft, hard), `u64::MAX` for unlimited.
    #[must_use]
    pub fn limit(&self, line: &str) -> Option<(u64, u64)> {
        let limits = self.of_the_process("limits");
        let rest = limits.lines().find_map(|l| l.strip_prefix(line))?;
        let mut words = rest.split_whitespace();
        let mut next = || match words.next()? {
            "unlimited" => Some(u64::MAX),
            number => number.parse().ok(),
        };
        Some((next()?, next()?))
    }

    /// CPUs that the process may run on: the shards of a broker that is not told otherwise.
    #[must_use]
    pub fn usable_cpus(&self) -> u64 {
        let status = self.of_the_process("status");
        let allowed = status.lines().find_map(|l| l.strip_prefix("Cpus_allowed_list:"));
        let online = self.text_or_empty("sys/devices/system/cpu/online");
        cpu_list(allowed.unwrap_or(&online)).len() as u64
    }

    /// What the formulas need.
    #[must_use]
    pub fn hardware(&self) -> Hardware {
        let meminfo = self.text_or_empty("proc/meminfo");
        let kib = |key| field(&meminfo, key).unwrap_or(0) * 1024;
        let online = self.text_or_empty("sys/devices/system/cpu/online");
        let nics = self.cards();
        let queues = |nic: &String| {
            self.matching(&format!("sys/class/net/{nic}/queues/rx-*/rps_cpus")).len() as u32
        };
        Hardware {
            cores: cpu_list(&online).len() as u32,
            memory: kib("MemTotal:"),
            swap: kib("SwapTotal:"),
            nodes: cpu_list(&self.text_or_empty("sys/devices/system/node/online")).len() as u32,
            queues: nics.iter().map(queues).max().unwrap_or(0),
            nics: nics.len() as u32,
            tracked: self.tracks_connections().into(),
            kernel: release(&self.text_or_empty("proc/sys/kernel/osrelease")),
            system: self
                .text_or_empty("etc/os-release")
                .lines()
                .find_map(|l| l.strip_prefix("PRETTY_NAME="))
                .map(|name| name.trim_matches('"').to_owned())
                .unwrap_or_default(),
        }
    }

    /// Network interfaces that have a device.
    #[must_use]
    pub fn cards(&self) -> Vec<String> {
        let entries = fs::read_dir(self.path("sys/class/net")).into_iter().flatten().flatten();
        let mut cards: Vec<String> = entries
            .filter(|e| e.path().join("device").exists())
            .map(|e| e.file_name().to_string_lossy().into_owned())
            .collect();
        cards.sort_by_cached_key(|name| parts(name));
        cards
    }

    /// The table of connections may be there while no rule makes the kernel fill it.
    fn tracks_connections(&self) -> bool {
        self.sysctl("net.netfilter.nf_conntrack_max").is_some()
            && self.sysctl("net.netfilter.nf_conntrack_count").is_none_or(|n| n > 0)
    }
}

/// Kernel release as (major, minor).
pub(crate) fn release(text: &str) -> (u32, u32) {
    let mut numbers = text.split(|c: char| !c.is_ascii_digit()).filter_map(|n| n.parse().ok());
    (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0))
}

/// A control group with a bound on memory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MemoryGroup {
    folder: PathBuf,
    /// Its `memory.max`.
    pub max_bytes: u64,
}

impl MemoryGroup {
    /// What it is charged for and cannot have back at once, bytes: file pages not used of late it can.
    /// The kernel's memory for sockets is among it. `None` when the group is gone.
    #[must_use]
    pub fn charged_bytes(&self) -> Option<u64> {
        let current = number(&self.folder.join("memory.current"))?;
        let stat = fs::read_to_string(self.folder.join("memory.stat")).unwrap_or_default();
        Some(current.saturating_sub(field(&stat, "inactive_file").unwrap_or(0)))
    }
}

/// The number that a file holds.
fn number(path: &Path) -> Option<u64> {
    fs::read_to_string(path).ok()?.trim().parse().ok()
}

/// The number after a key at the begin of a line.
#[must_use]
pub fn field(text: &str, key: &str) -> Option<u64> {
    let rest = text.lines().find_map(|line| line.strip_prefix(key))?;
    rest.split_whitespace().next()?.parse().ok()
}

/// CPUs (or nodes) of a list such as `0-3,8`.
pub(crate) fn cpu_list(text: &str) -> Vec<u32> {
    let number = |text: &str| text.trim().parse::<u32>().ok().filter(|&n| n < 65_536);
    let range = |part: &str| match part.split_once('-') {
        Some((first, last)) => Some(number(first)?..=number(last)?),
        None => number(part).map(|n| n..=n),
    };
    text.split(',').filter_map(range).flatten().collect()
}

/// CPUs of a mask such as `00000000,0000000f`.
pub(crate) fn cpu_mask(text: &str) -> Vec<u32> {
    let digits = text.trim().replace(',', "");
    let bits = digits.chars().rev().enumerate().flat_map(|(place, digit)| {
        let value = digit.to_digit(16).unwrap_or(0);
        (0..4).filter(move |bit| value >> bit & 1 == 1).map(move |bit| place as u32 * 4 + bit)
    });
    bits.collect()
}

/// The mask of CPUs, in words of 32 bits as the kernel writes them.
pub(crate) fn to_mask(cpus: &[u32]) -> String {
    let words = cpus.iter().max().map_or(1, |m| m / 32 + 1);
    let word =
        |w: u32| cpus.iter().filter(|&&c| c / 32 == w).fold(0_u32, |bits, c| bits | 1 << (c % 32));
    let mut text: Vec<String> = vec![format!("{:x}", word(words - 1))];
    text.extend((0..words - 1).rev().map(|w| format!("{:08x}", word(w))));
    text.join(",")
}

/// Whether `name` fits a pattern with `*`.
fn fits(pattern: &str, name: &str) -> bool {
    let mut pieces = pattern.split('*');
    let Some(rest) = name.strip_prefix(pieces.next().unwrap_or("")) else { return false };
    let mut rest = rest;
    let pieces: Vec<&str> = pieces.collect();
    for (i, piece) in pieces.iter().enumerate() {
        if i + 1 == pieces.len() {
            return rest.len() >= piece.len() && rest.ends_with(piece);
        }
        let Some(at) = rest.find(piece) else { return false };
        rest = &rest[at + piece.len()..];
    }
    rest.is_empty()
}

/// Digits and other characters apart, so that cpu10 comes after cpu9.
fn parts(name: &str) -> Vec<(String, u64)> {
    let mut parts = vec![(String::new(), 0_u64)];
    let mut in_digits = false;
    for c in name.chars() {
        let last = parts.len() - 1;
        match c.to_digit(10) {
            Some(digit) => parts[last].1 = parts[last].1.saturating_mul(10) + u64::from(digit),
            None if in_digits => parts.push((c.to_string(), 0)),
            None => parts[last].0.push(c),
        }
        in_digits = c.is_ascii_digit();
    }
    parts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_and_masks_of_cpus_are_read_and_written() {
        assert_eq!(cpu_list("0-3,8\n"), [0, 1, 2, 3, 8]);
        assert!(cpu_list("").is_empty());
        assert!(cpu_list("3-1,x,99999999").is_empty());
        assert_eq!(cpu_mask("00000001,0000000f\n"), [0, 1, 2, 3, 32]);
        assert!(cpu_mask("0").is_empty());
        assert_eq!(to_mask(&[0, 1, 2, 3, 32]), "1,0000000f");
        assert_eq!(to_mask(&[]), "0");
        assert_eq!(cpu_mask(&to_mask(&[5, 63, 64, 127])), [5, 63, 64, 127]);
    }

    #[test]
    fn patterns_match_components_and_numbers_sort_by_their_value() {
        assert!(fits("cpu*", "cpu10") && fits("rx-*", "rx-0") && fits("*", "eth0"));
        assert!(fits("a*b*c", "a1b2c") && !fits("a*b*c", "a1c") && !fits("cpu*x", "cpu"));
        let mut names = ["cpu10", "cpu9", "cpu1", "cpufreq"];
        names.sort_by_cached_key(|n| parts(n));
        assert_eq!(names, ["cpu1", "cpu9", "cpu10", "cpufreq"]);
    }

    #[test]
    fn releases_have_a_major_and_a_minor_number() {
        assert_eq!(release("6.12.48+deb13-amd64"), (6, 12));
        assert_eq!(release("5.14.0-570.el9.x86_64"), (5, 14));
        assert_eq!(release(""), (0, 0));
    }

    #[test]
    fn the_host_here_has_cpus_memory_and_limits() {
        let host = Host::here();
        let hardware = host.hardware();
        assert!(hardware.cores > 0 && hardware.memory > 0, "{hardware:?}");
        assert!(hardware.kernel >= (3, 0), "{hardware:?}");
        assert!(host.limit("Max open files").is_some_and(|(soft, hard)| soft <= hard));
    }
}
