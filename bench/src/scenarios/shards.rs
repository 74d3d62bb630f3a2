//! `shards`: Ringmain with more shards than cores. Times say little then; what a message makes the
//! shards do does not depend on cores.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::client::{Client, Got};
use crate::scenario::{
    Against, Case, Cx, Failure, FigureKind, Figures, Scale, Scenario, Target, fails, grown, less,
    more, target, traffic,
};

pub(crate) struct Shards;

const PAIRS: u32 = 256;
/// The counters come with each second of traffic, and once more behind it.
const SYS_INTERVAL: &str = "sys.interval_s=1";
const SYS_SETTLE: Duration = Duration::from_millis(2300);

impl Scenario for Shards {
    fn name(&self) -> &'static str {
        "shards"
    }

    fn about(&self) -> &'static str {
        "256 pairs, 4 messages outstanding, on 1 to 64 shards: cross-shard messages, sleeps, CPU"
    }

    fn figures(&self) -> &'static [FigureKind] {
        const {
            &[
                less("ns_per_message", "CPU ns/message", 0),
                less("user_ns_per_message", "in the server", 0),
                more("messages_per_s", "messages/s", 0),
                less("forwarded", "forwarded/message", 4),
                less("expected", "(n-1)/n", 4),
                less("handed_over", "handed over/connection", 3),
                less("sleeps_per_message", "sleeps/message", 3),
                less("preempted_per_message", "preempted/message", 4),
            ]
        }
    }

    fn cases(&self, scale: &Scale) -> Vec<Case> {
        let shards: &[u32] = scale.pick(&[1, 2, 4, 8, 16, 32, 64], &[1, 2, 8, 64]);
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
        let Some(&forwarded) = counters.get("messages/forward") else {
            return fails("`$SYS` tells nothing of messages/forward");
        };
        let delivered = report.counters.delivered.max(1) as f64;
        let measured = report.traffic.map_or(1, |t| t.delivered.max(1)) as f64;
        let per = |of: fn(&ringmain_load::cost::Sample) -> u64| {
            grown(&report, "traffic-begin", "traffic-end", of) / measured
        };
        let handed = counters.get("connections/handed_over").copied().unwrap_or(0);
        let mut figures = traffic::figures(&report, false)?;
        figures.remove("generator_ns_per_message");
        figures.extend([
            ("forwarded", forwarded as f64 / delivered),
            ("expected", f64::from(case.count - 1) / f64::from(case.count)),
            ("handed_over", handed as f64 / f64::from(2 * PAIRS)),
            ("sleeps_per_message", per(|s| s.voluntary_switches)),
            ("preempted_per_message", per(|s| s.involuntary_switches)),
        ]);
        Ok(figures)
    }

    fn targets(&self) -> &'static [Target] {
        // A message goes to one other shard at most.
        const { &[target("", "forwarded", Against::AtMost(1.0))] }
    }

    fn remarks(&self, _: &Scale) -> Vec<String> {
        vec![
            "forwarded counts all messages since the start, warm-up included; missing, because \
             `$SYS` does not have them: instructions (`cargo bench -p ringmain-shards --bench \
             engine -- --instructions`), wakes between rings, writes to lines that shards share"
                .to_owned(),
        ]
    }

    fn peers_take_part(&self) -> bool {
        false
    }
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
