//! Parameters that are spread over CPUs: interrupts and queues of network cards, idle states.
//!
//! The rule is simple enough to be checked by eye: the n-th queue of a card belongs to the n-th CPU of the card's
//! node, in turn.

use crate::goal::Profile;
use crate::host::{Host, cpu_list, cpu_mask, to_mask};
use crate::judge::{Finding, Verdict};
use crate::parameter::{Kind, Parameter};

/// Longest time, in µs, that leaving an idle state may take under the profile `latency`.
const EXIT_LATENCY_MAX_US: u64 = 20;

/// What each file of `p` has and should have.
pub(crate) fn of(host: &Host, p: &Parameter, profile: Profile) -> Vec<Finding> {
    let wanted = p.wish(profile).is_some();
    let files = match p.kind {
        Kind::Idle => idle(host, p),
        Kind::Irq => cards(host, interrupts),
        Kind::Rps => cards(host, |host, card| queues(host, card, "rx", "rps_cpus")),
        Kind::Xps => cards(host, |host, card| queues(host, card, "tx", "xps_cpus")),
        Kind::Sysctl | Kind::File | Kind::Choice | Kind::Rlimit | Kind::Cgroup => Vec::new(),
    };
    files
        .into_iter()
        .filter_map(|(path, proposed)| {
            let actual = host.text(&path).ok()?;
            let same = match p.kind {
                Kind::Rps | Kind::Xps => cpu_mask(&actual) == cpu_mask(&proposed),
                Kind::Irq => cpu_list(&actual) == cpu_list(&proposed),
                _ => actual == proposed,
            };
            let differs = wanted && !same;
            Some(Finding {
                name: path.trim_start_matches("sys/class/net/").to_owned(),
                kind: p.kind.to_string(),
                path,
                actual: Some(actual),
                proposed: differs.then_some(proposed),
                unit: p.unit.clone(),
                verdict: if differs { Verdict::Change } else { Verdict::Good },
                why: p.why.clone(),
                hazards: Vec::new(),
                risk: p.risk.clone(),
                undo: p.undo.clone(),
                documented: p.documented.clone(),
                change: p.change,
                boot: String::new(),
                systemd: String::new(),
                instead: String::new(),
            })
        })
        .collect()
}

/// Files with what should be in them.
type Files = Vec<(String, String)>;

fn cards(host: &Host, files: fn(&Host, &str) -> Files) -> Files {
    host.cards().iter().flat_map(|card| files(host, card)).collect()
}

/// CPUs of the card's node; all where it has none.
fn cpus_of(host: &Host, card: &str) -> Vec<u32> {
    let online = cpu_list(&host.text_or_empty("sys/devices/system/cpu/online"));
    let node = host.text_or_empty(&format!("sys/class/net/{card}/device/numa_node"));
    let near = match node.parse::<u32>() {
        Ok(node) => {
            cpu_list(&host.text_or_empty(&format!("sys/devices/system/node/node{node}/cpulist")))
        }
        Err(_) => Vec::new(),
    };
    if near.is_empty() { online } else { near }
}

fn queues(host: &Host, card: &str, direction: &str, file: &str) -> Files {
    let cpus = cpus_of(host, card);
    let paths = host.matching(&format!("sys/class/net/{card}/queues/{direction}-*/{file}"));
    let count = paths.len();
    let mask = |nth: usize| match direction {
        // Every CPU takes packets that the few queues of the card bring.
        "rx" => to_mask(&cpus),
        // The CPUs are dealt to the queues in turn.
        _ => to_mask(&cpus.iter().copied().skip(nth).step_by(count.max(1)).collect::<Vec<_>>()),
    };
    paths.into_iter().enumerate().map(|(nth, path)| (path, mask(nth))).collect()
}

/// Interrupts whose name in /proc/interrupts has the card's in it, as `eth0-TxRx-3` does, or the
/// card's device's (`virtio0-input.1`).
fn interrupts(host: &Host, card: &str) -> Files {
    let cpus = cpus_of(host, card);
    if cpus.is_empty() {
        return Files::new();
    }
    let device = std::fs::canonicalize(host.path(&format!("sys/class/net/{card}/device")))
        .ok()
        .and_then(|path| path.file_name().map(|name| name.to_string_lossy().into_owned()))
        .unwrap_or_else(|| card.to_owned());
    let belongs = |word: &str| {
        [card, device.as_str()].into_iter().any(|name| {
            word.strip_prefix(name)
                .is_some_and(|rest| !rest.starts_with(|c: char| c.is_ascii_digit()))
        })
    };
    let interrupts = host.text_or_empty("proc/interrupts");
    let numbers = interrupts.lines().filter_map(|line| {
        let (number, rest) = line.trim().split_once(':')?;
        let named = rest.split_whitespace().any(|word| belongs(word) && word.contains(['-', '.']));
        let moves = !rest.ends_with("config") && !rest.ends_with("control");
        (named && moves).then(|| number.parse::<u32>().ok()).flatten()
    });
    let path = |number| format!("proc/irq/{number}/smp_affinity_list");
    let there = numbers.filter(|n| host.path(&path(*n)).is_file());
    there
        .enumerate()
        .map(|(nth, number)| (path(number), cpus[nth % cpus.len()].to_string()))
        .collect()
}

fn idle(host: &Host, p: &Parameter) -> Files {
    let slow = |path: &String| {
        let latency = host.text_or_empty(&path.replace("/disable", "/latency"));
        latency.parse::<u64>().is_ok_and(|us| us > EXIT_LATENCY_MAX_US)
    };
    let paths = host.matching(&p.path).into_iter().filter(slow);
    paths.map(|path| (path, "1".to_owned())).collect()
}
