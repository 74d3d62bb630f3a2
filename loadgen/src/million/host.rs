//! What the host spends on connections outside of the processes: memory of the kernel.
//!
//! Taken from /proc/meminfo, /proc/net/sockstat and, where it may be read, /proc/slabinfo; a
//! difference of two moments holds what everything else on the host did in between as well.

use std::collections::BTreeMap;
use std::fs;

use serde::{Deserialize, Serialize};

use ringmain_kernel_params::{field, tcp_pages};

/// Bytes of a page of TCP buffers.
const PAGE: u64 = 4096;

/// The host at one moment, bytes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostMemory {
    /// MemAvailable.
    pub available: u64,
    /// MemFree.
    pub free: u64,
    /// AnonPages: what all processes have in heaps and stacks.
    pub anonymous: u64,
    /// Page cache and buffers.
    pub cached: u64,
    /// Slab: sockets, files, requests of rings.
    pub slab: u64,
    /// KernelStack, PageTables and Percpu.
    pub other: u64,
    /// Pages that hold data of TCP sockets.
    pub tcp_buffers: u64,
    /// TCP sockets in use.
    pub sockets: u64,
    /// Connections in TIME_WAIT.
    pub time_wait: u64,
    /// Each cache of the slab allocator, if this user may read them.
    pub caches: BTreeMap<String, u64>,
}

impl HostMemory {
    /// Asks the kernel; what it does not tell is 0.
    #[must_use]
    pub fn now() -> Self {
        let text = |path: &str| fs::read_to_string(path).unwrap_or_default();
        Self::parse(&text("/proc/meminfo"), &text("/proc/net/sockstat"), &text("/proc/slabinfo"))
    }

    fn parse(meminfo: &str, sockstat: &str, slabinfo: &str) -> Self {
        let kib = |key: &str| field(meminfo, key).unwrap_or(0) * 1024;
        Self {
            available: kib("MemAvailable:"),
            free: kib("MemFree:"),
            anonymous: kib("AnonPages:"),
            cached: kib("Cached:") + kib("Buffers:"),
            slab: kib("Slab:"),
            other: kib("KernelStack:") + kib("PageTables:") + kib("Percpu:"),
            tcp_buffers: tcp_pages(sockstat) * PAGE,
            sockets: of_tcp(sockstat, "inuse"),
            time_wait: of_tcp(sockstat, "tw"),
            caches: slabinfo.lines().filter_map(cache).collect(),
        }
    }

    /// Bytes of the kernel since `before`: slab, buffers of sockets, stacks and tables.
    #[must_use]
    pub fn kernel_since(&self, before: &Self) -> u64 {
        let sum = |h: &Self| h.slab + h.other + h.tcp_buffers;
        sum(self).saturating_sub(sum(before))
    }

    /// The caches that grew most since `before`, largest first: name and bytes.
    #[must_use]
    pub fn grown_since(&self, before: &Self, most: usize) -> Vec<(String, u64)> {
        let mut grown: Vec<(String, u64)> = self
            .caches
            .iter()
            .map(|(name, &bytes)| {
                let then = before.caches.get(name).copied().unwrap_or(0);
                (name.clone(), bytes.saturating_sub(then))
            })
            .filter(|&(_, bytes)| bytes > 0)
            .collect();
        grown.sort_by(|a, b| b.1.cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
        grown.truncate(most);
        grown
    }
}

/// MemAvailable alone, for watching; `None` when the kernel does not tell.
#[must_use]
pub fn available() -> Option<u64> {
    field(&fs::read_to_string("/proc/meminfo").ok()?, "MemAvailable:").map(|kib| kib * 1024)
}

fn of_tcp(sockstat: &str, key: &str) -> u64 {
    let line = sockstat.lines().find(|l| l.starts_with("TCP:")).unwrap_or("");
    let mut words = line.split_whitespace();
    words.find(|w| *w == key).and_then(|_| words.next()?.parse().ok()).unwrap_or(0)
}

/// `name active_objs num_objs objsize objperslab pagesperslab : tunables … : slabdata active num …`
fn cache(line: &str) -> Option<(String, u64)> {
    let mut parts = line.split(':');
    let mut head = parts.next()?.split_whitespace();
    let name = head.next()?.to_owned();
    let pages: u64 = head.nth(4)?.parse().ok()?;
    let slabs: u64 = parts.nth(1)?.split_whitespace().nth(2)?.parse().ok()?;
    Some((name, slabs * pages * PAGE))
}

#[cfg(test)]
mod tests {
    use super::*;

    const MEMINFO: &str = "MemTotal: 100 kB\nMemFree: 7 kB\nMemAvailable:   50 kB\nBuffers: 1 kB\n\
        Cached: 2 kB\nAnonPages: 9 kB\nSlab: 40 kB\nKernelStack: 1 kB\nPageTables: 2 kB\nPercpu: 3 kB\n";
    const SOCKSTAT: &str =
        "sockets: used 9\nTCP: inuse 7 orphan 0 tw 3 alloc 8 mem 2\nUDP: mem 5\n";
    const SLABINFO: &str = "slabinfo - version: 2.1\n\
        # name <active_objs> <num_objs> <objsize> <objperslab> <pagesperslab>\n\
        TCP 20 26 2432 13 8 : tunables 0 0 0 : slabdata 2 2 0\n\
        filp 5 16 256 16 1 : tunables 0 0 0 : slabdata 1 1 0\n";

    #[test]
    fn what_the_kernel_prints_is_understood() {
        let h = HostMemory::parse(MEMINFO, SOCKSTAT, SLABINFO);
        assert_eq!((h.available, h.free, h.cached), (50 << 10, 7 << 10, 3 << 10));
        assert_eq!((h.slab, h.other, h.tcp_buffers), (40 << 10, 6 << 10, 8192));
        assert_eq!((h.sockets, h.time_wait), (7, 3));
        assert_eq!(h.caches["TCP"], 2 * 8 * 4096);
        assert_eq!(h.caches.len(), 2, "headings are no caches: {:?}", h.caches);
    }

    #[test]
    fn a_difference_is_what_the_kernel_took_and_names_what_grew_most() {
        let before = HostMemory::parse(MEMINFO, SOCKSTAT, SLABINFO);
        let mut after = before.clone();
        after.slab += 1000;
        after.tcp_buffers += 24;
        after.caches.insert("TCP".into(), before.caches["TCP"] + 5);
        after.caches.insert("new".into(), 7);
        assert_eq!(after.kernel_since(&before), 1024);
        assert_eq!(after.grown_since(&before, 9), [("new".into(), 7), ("TCP".into(), 5)]);
        assert_eq!(before.kernel_since(&after), 0);
    }

    #[test]
    fn this_host_tells_its_memory() {
        let now = HostMemory::now();
        assert!(now.available > 0 && now.slab > 0 && now.anonymous > 0);
        assert!(available().is_some());
    }
}
