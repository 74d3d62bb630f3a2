//! `shards`: Ringmain with more shards than cores. Times say little then; what a message makes the
//! shards do does not depend on cores.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use crate::client::{Client, Got};
use crate::scenario::{
    Against, Case, Cx, Failure, FigureKind, Figures, Scale, Scenario, Target, fails, grown, less,
    more, target, traffic,
};

pub(crate) struct Shards;

const PAIRS: u32 = 256;
const SHARDS: [u32; 7] = [1, 2, 4, 8, 16, 32, 64];
/// The counters come with each second of traffic, and once more behind it.
const SYS_INTERVAL: &str = "sys.interval_s=1";
const SYS_SETTLE: Duration = Duration::from_millis(2300);

impl Scenario for Shards {
    fn name(&self) -> &'static str {
        "shards"
    }

    fn about(&self) -> &'static str {
        "256 pairs, 4 messages outstanding, on 1 to 64 shards: what a message makes the shards do"
    }

    fn figures(&self) -> &'static [FigureKind] {
        const {
            &[
                less("ns_per_message", "CPU ns/message", 0),
                less("user_ns_per_message", "in the server", 0),
                more("messages_per_s", "messages/s", 0),
                less("instructions", "instructions", 0),
                less("forwarded", "forwarded/message", 4),
                less("expected", "(n-1)/n", 4),
                less("batches", "mail batches/message", 4),
                less("wakes", "wakes/message", 4),
                less("line_writes", "shared-line writes/message", 3),
                less("mail_lines", "mail lines/message", 3),
                more("per_turn", "messages/turn", 1),
                less("enters", "enters/message", 4),
                less("handed_over", "handed over/connection", 3),
                less("sleeps_per_message", "sleeps/message", 3),
                less("preempted_per_message", "preempted/message", 4),
            ]
        }
    }

    fn cases(&self, scale: &Scale) -> Vec<Case> {
        let shards: &[u32] = scale.pick(&SHARDS, &[1, 2, 8, 64]);
        shards.iter().map(|&n| Case::of(format!("{n} shards"), n)).collect()
    }

    fn measure(&self, cx: &Cx<'_>, case: &Case) -> Result<Figures, Failure> {
        // More shards than cores: pinned ones would stand in each other's way.
        let pinned = if case.count > 2 { "node.pin_cores=false" } else { "node.pin_cores=true" };
        let mut server = cx.start_sharded(case.count as usize, &[SYS_INTERVAL, pinned])?;
        let watch = Watch::start(server.address)?;
        let args = Case::command("", &format!("pair -c {PAIRS} -s 42 -F 4")).args;
        let report = cx.load(&mut server, &traffic::timed(cx, &args))?;
        std::thread::sleep(SYS_SETTLE);
        let counters = watch.stop()?;
        let counted = |name: &str| match counters.get(name) {
            Some(&value) => Ok(value as f64),
            None => fails(format!("`$SYS` tells nothing of {name}")),
        };
        let delivered = report.counters.delivered.max(1) as f64;
        let measured = report.traffic.map_or(1, |t| t.delivered.max(1)) as f64;
        let per = |of: fn(&ringmain_load::cost::Sample) -> u64| {
            grown(&report, "traffic-begin", "traffic-end", of) / measured
        };
        let mut figures = traffic::figures(&report, false)?;
        figures.remove("generator_ns_per_message");
        figures.extend([
            ("forwarded", counted("messages/forward")? / delivered),
            ("expected", f64::from(case.count - 1) / f64::from(case.count)),
            ("batches", counted("mesh/batches")? / delivered),
            ("wakes", counted("mesh/wakes")? / delivered),
            ("line_writes", counted("mesh/line_writes")? / delivered),
            ("mail_lines", counted("mesh/mail_lines")? / delivered),
            ("per_turn", delivered / counted("reactor/turns")?.max(1.0)),
            ("enters", counted("reactor/enters")? / delivered),
            ("handed_over", counted("connections/handed_over")? / f64::from(2 * PAIRS)),
            ("sleeps_per_message", per(|s| s.voluntary_switches)),
            ("preempted_per_message", per(|s| s.involuntary_switches)),
        ]);
        if !cx.scale.quick
            && let Ok(counts) = instructions()
            && let Some(&count) = counts.get(&case.count)
        {
            figures.insert("instructions", count);
        }
        Ok(figures)
    }

    fn targets(&self) -> &'static [Target] {
        // A message goes to one other shard at most.
        const { &[target("", "forwarded", Against::AtMost(1.0))] }
    }

    fn remarks(&self, scale: &Scale) -> Vec<String> {
        let instructions = if scale.quick {
            "instructions are not counted with --quick".to_owned()
        } else if let Err(why) = instructions() {
            format!("no instructions: {why}")
        } else {
            "instructions of engine and mesh for a publish with its delivery, by callgrind: 16 \
             publishes in each turn of each shard, all of them crossing where there are two shards \
             or more (`cargo bench -p ringmain-shards --bench engine -- --counts`)"
                .to_owned()
        };
        vec![
            instructions,
            "forwarded, batches, wakes, shared-line writes, mail lines, turns and enters are from \
             `$SYS`, of all messages since the start: warm-up, connects, and `$SYS` itself included"
                .to_owned(),
        ]
    }

    fn peers_take_part(&self) -> bool {
        false
    }
}

/// Instructions by shards, counted once a process; or why they are not.
fn instructions() -> Result<&'static BTreeMap<u32, f64>, &'static str> {
    static COUNTS: OnceLock<Result<BTreeMap<u32, f64>, String>> = OnceLock::new();
    COUNTS.get_or_init(count).as_ref().map_err(String::as_str)
}

/// Has the engine's benchmark run itself under callgrind: its build, and some seconds for each number
/// of shards.
fn count() -> Result<BTreeMap<u32, f64>, String> {
    let valgrind = Command::new("valgrind").arg("--version").stdout(Stdio::null()).status();
    if !valgrind.is_ok_and(|status| status.success()) {
        return Err("valgrind is not installed (`apt-get install valgrind`)".to_owned());
    }
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    if !root.join("shards/benches/engine.rs").exists() {
        return Err("the source tree that this was built from is gone".to_owned());
    }
    eprintln!("shards: counting instructions");
    let names = SHARDS.map(|n| format!("shards-{n}"));
    let output = Command::new("cargo")
        .args(["bench", "--locked", "-p", "ringmain-shards", "--bench", "engine", "--", "--counts"])
        .args(names)
        .current_dir(root)
        .stderr(Stdio::inherit())
        .output()
        .map_err(|e| format!("cargo: {e}"))?;
    let counts = parse(&String::from_utf8_lossy(&output.stdout));
    if counts.len() == SHARDS.len() { Ok(counts) } else { Err("the benchmark failed".to_owned()) }
}

/// Lines `shards-N = instructions`.
fn parse(text: &str) -> BTreeMap<u32, f64> {
    let line = |line: &str| {
        let (name, count) = line.split_once(" = ")?;
        Some((name.strip_prefix("shards-")?.parse().ok()?, count.parse().ok()?))
    };
    text.lines().filter_map(line).collect()
}

/// Reads the broker's counters as they come.
struct Watch {
    thread: std::thread::JoinHandle<BTreeMap<String, u64>>,
    stop: Arc<AtomicBool>,
}

impl Watch {
    fn start(address: SocketAddr) -> Result<Self, Failure> {
        let wrong = |e: std::io::Error| Failure::Contender(format!("$SYS: {e}"));
        let mut client = Client::connect(address, "bench-watch").map_err(wrong)?;
        client.subscribe(&["$SYS/brokers/+/metrics/#".to_owned()], 1, 1).map_err(wrong)?;
        client.set_patience(Duration::from_millis(100)).map_err(wrong)?;
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = stop.clone();
        let thread = std::thread::spawn(move || {
            let mut values = BTreeMap::new();
            while !stopped.load(Ordering::Relaxed) {
                let Ok(Got::Publish(topic, payload)) = client.next() else { continue };
                let value = std::str::from_utf8(&payload).ok().and_then(|v| v.parse().ok());
                if let (Some((_, name)), Some(value)) = (topic.split_once("/metrics/"), value) {
                    values.insert(name.to_owned(), value);
                }
            }
            values
        });
        Ok(Self { thread, stop })
    }

    fn stop(self) -> Result<BTreeMap<String, u64>, Failure> {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().map_err(|_| Failure::Contender("$SYS: the reader panicked".to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_are_read_by_shards_and_what_was_not_counted_is_missing() {
        let counts = parse("shards-1 = 3100\nshards-64 = 4200\nmail-hop-16 = 434\nshards-2 = ?\n");
        assert_eq!(counts, BTreeMap::from([(1, 3100.0), (64, 4200.0)]));
    }
}
