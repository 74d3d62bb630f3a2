//! Counters that betray trouble: since boot, or over some seconds.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::capacity::tcp_pages;
use crate::host::{Host, field};

/// A counter that should not grow.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Trouble {
    /// Its name, as the kernel's: `TcpExt ListenOverflows`.
    pub name: String,
    /// Events (or microseconds, where the name says so).
    pub count: u64,
    /// What each of them was.
    pub meaning: String,
    /// What helps.
    pub remedy: String,
}

/// Counters of /proc/net/netstat that mean lost packets or connections.
const TCP: &[(&str, &str, &str)] = &[
    (
        "ListenOverflows",
        "a connect found the accept queue full and was dropped",
        "net.core.somaxconn and the listener's backlog",
    ),
    (
        "ListenDrops",
        "a SYN or the end of a handshake was dropped by a listener",
        "net.core.somaxconn, net.ipv4.tcp_max_syn_backlog",
    ),
    (
        "TCPReqQFullDrop",
        "a SYN was dropped: the queue of handshakes was full",
        "net.ipv4.tcp_max_syn_backlog; syncookies on",
    ),
    (
        "TCPReqQFullDoCookies",
        "a SYN was answered by a cookie: the queue of handshakes was full",
        "net.ipv4.tcp_max_syn_backlog, unless it was an attack",
    ),
    (
        "TCPBacklogDrop",
        "a packet was dropped: the socket's backlog was full while it was in use",
        "tcp_rmem; a shard that is too busy",
    ),
    ("TCPRcvQDrop", "a packet was dropped: the receive queue was full", "tcp_rmem; a slow reader"),
    ("TCPMemoryPressures", "the buffers of all sockets came near net.ipv4.tcp_mem", "tcp_mem"),
    ("TCPAbortOnMemory", "a connection was ended for want of memory", "tcp_mem, tcp_max_orphans"),
    ("TCPAbortFailed", "a connection ended without its reset: no memory for it", "memory"),
    ("PruneCalled", "queued data was squeezed: a socket was short of memory", "tcp_rmem, tcp_mem"),
    ("RcvPruned", "received data was thrown away for want of memory", "tcp_mem"),
    ("TCPTimeWaitOverflow", "a connection ended without TIME_WAIT", "tcp_max_tw_buckets"),
    ("PFMemallocDrop", "a packet was dropped: memory was nearly out", "vm.min_free_kbytes"),
];

/// All of them that are not 0.
#[must_use]
pub fn troubles(host: &Host) -> Vec<Trouble> {
    let mut found = all(host);
    found.retain(|t| t.count > 0);
    let pages = tcp_pages(&host.text_or_empty("proc/net/sockstat"));
    let bounds = host.text_or_empty("proc/sys/net/ipv4/tcp_mem");
    let pressure = bounds.split_whitespace().nth(1).and_then(|w| w.parse::<u64>().ok());
    if pressure.is_some_and(|bound| pages > bound) {
        found.push(Trouble {
            name: "TCP memory above pressure".into(),
            count: pages,
            meaning: "pages of buffers in use now".into(),
            remedy: "tcp_mem".into(),
        });
    }
    found
}

/// All that only grow, those at 0 too: one that this kernel or host does not have is at 0.
#[must_use]
pub fn all(host: &Host) -> Vec<Trouble> {
    let mut found = Vec::new();
    let mut add = |name: String, count: u64, meaning: &str, remedy: &str| {
        found.push(Trouble { name, count, meaning: meaning.into(), remedy: remedy.into() });
    };
    let netstat = host.text_or_empty("proc/net/netstat");
    let tcp = extended(&netstat, "TcpExt:");
    for (name, meaning, remedy) in TCP {
        add(format!("TcpExt {name}"), tcp.get(*name).copied().unwrap_or(0), meaning, remedy);
    }
    let [dropped, squeezed] = softnet(&host.text_or_empty("proc/net/softnet_stat"));
    add(
        "softnet dropped".into(),
        dropped,
        "a packet was dropped: a CPU's queue was full",
        "net.core.netdev_max_backlog; spread the card's interrupts",
    );
    add(
        "softnet time_squeeze".into(),
        squeezed,
        "a round of receiving stopped with packets left",
        "net.core.netdev_budget, if it grows all the time",
    );
    let tracking = host.text_or_empty("proc/net/stat/nf_conntrack");
    for name in ["insert_failed", "drop", "early_drop"] {
        add(
            format!("conntrack {name}"),
            hexadecimal(&tracking, name),
            "a connection did not fit into the table of tracked ones",
            "net.netfilter.nf_conntrack_max, or do not track the broker's port",
        );
    }
    let vm = host.text_or_empty("proc/vmstat");
    add(
        "vmstat oom_kill".into(),
        field(&vm, "oom_kill ").unwrap_or(0),
        "a process was killed for want of memory",
        "memory; memory.max of the group",
    );
    add(
        "vmstat compact_stall".into(),
        field(&vm, "compact_stall ").unwrap_or(0),
        "a process waited while memory was compacted",
        "transparent_hugepage/defrag, vm.min_free_kbytes",
    );
    if let Some(path) = host.cgroup_file("cpu.stat") {
        let stat = host.text_or_empty(&path);
        add(
            "cgroup throttled_usec".into(),
            field(&stat, "throttled_usec ").unwrap_or(0),
            "microseconds in which the quota of CPU was used up",
            "cpu.max",
        );
    }
    if let Some(path) = host.cgroup_file("memory.events") {
        let events = host.text_or_empty(&path);
        for name in ["max ", "oom_kill "] {
            add(
                format!("cgroup memory {}", name.trim()),
                field(&events, name).unwrap_or(0),
                "the group met its bound of memory",
                "memory.max",
            );
        }
    }
    found
}

/// What grew from one look to the next.
#[must_use]
pub fn growth(before: &[Trouble], after: Vec<Trouble>) -> Vec<Trouble> {
    let old: BTreeMap<&str, u64> = before.iter().map(|t| (t.name.as_str(), t.count)).collect();
    after
        .into_iter()
        .filter_map(|t| {
            let count = t.count.checked_sub(old.get(t.name.as_str()).copied().unwrap_or(0))?;
            (count > 0).then_some(Trouble { count, ..t })
        })
        .collect()
}

/// Names and numbers of a pair of lines that begin with `prefix`.
fn extended<'a>(text: &'a str, prefix: &str) -> BTreeMap<&'a str, u64> {
    let mut lines = text.lines().filter_map(|l| l.strip_prefix(prefix));
    let (names, numbers) = (lines.next().unwrap_or(""), lines.next().unwrap_or(""));
    let numbers = numbers.split_whitespace().map(|n| n.parse().unwrap_or(0));
    names.split_whitespace().zip(numbers).collect()
}

/// Packets dropped and rounds squeezed, over all CPUs.
fn softnet(text: &str) -> [u64; 2] {
    let column = |nth: usize| {
        let of = |line: &str| u64::from_str_radix(line.split_whitespace().nth(nth)?, 16).ok();
        text.lines().filter_map(of).sum()
    };
    [column(1), column(2)]
}

/// The sum of a column of /proc/net/stat files over all CPUs.
fn hexadecimal(text: &str, name: &str) -> u64 {
    let mut lines = text.lines();
    let column = lines.next().and_then(|l| l.split_whitespace().position(|w| w == name));
    let Some(column) = column else { return 0 };
    let of = |line: &str| u64::from_str_radix(line.split_whitespace().nth(column)?, 16).ok();
    lines.filter_map(of).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_tables_are_read() {
        let netstat = "TcpExt: SyncookiesSent ListenOverflows ListenDrops\nTcpExt: 0 17 20\nIpExt: A\nIpExt: 1\n";
        let tcp = extended(netstat, "TcpExt:");
        assert_eq!((tcp["ListenOverflows"], tcp["ListenDrops"]), (17, 20));
        assert_eq!(
            softnet("0000000a 00000002 00000003 0\n0000000b 00000001 00000010 0\n"),
            [3, 19]
        );
        let tracking =
            "entries searched drop\n00000001 00000000 0000000a\n00000001 00000000 00000001\n";
        assert_eq!(hexadecimal(tracking, "drop"), 11);
        assert_eq!(hexadecimal("", "drop"), 0);
    }

    #[test]
    fn growth_is_what_came_between_two_looks() {
        let trouble = |name: &str, count| Trouble {
            name: name.into(),
            count,
            meaning: String::new(),
            remedy: String::new(),
        };
        let grown = growth(
            &[trouble("a", 3), trouble("b", 3)],
            vec![trouble("a", 5), trouble("b", 3), trouble("c", 1)],
        );
        assert_eq!(grown, [trouble("a", 2), trouble("c", 1)]);
    }
}
