//! `retained-1M`: store a million, ask for a few of them, ask for all.

use std::time::{Duration, Instant};

use crate::client::{Client, Got};
use crate::contender::Running;
use crate::scenario::{
    Against, Case, Cx, Failure, FigureKind, Figures, Scale, Scenario, Target, fails, grown_by,
    less, more, target,
};

pub(crate) struct Retained1M;

const PAYLOAD: &[u8] = b"0123456789abcdef";
/// Topics that one `+` matches.
const GROUP: u32 = 10;
/// Subscribes with `+` that are averaged.
const ASKS: u32 = 400;
/// The first ones find cold caches, and a broker that slept; they do not count.
const WARM_UP: u32 = 50;
/// Stored before the first asks.
const FEW: u32 = 1000;

impl Scenario for Retained1M {
    fn name(&self) -> &'static str {
        "retained-1M"
    }

    fn about(&self) -> &'static str {
        "1,000,000 retained messages of 16 B: storing, bytes, `+` among few and many, `#` replay"
    }

    fn figures(&self) -> &'static [FigureKind] {
        const {
            &[
                less("store_ns", "store CPU ns", 0),
                less("bytes", "bytes beyond content", 0),
                less("plus_few_us", "`+` of 1K, CPU µs", 1),
                less("plus_us", "`+` of all, CPU µs", 1),
                less("plus_ratio", "ratio", 2),
                more("replay_per_s", "`#` messages/s", 0),
                less("replay_ns", "`#` CPU ns each", 0),
            ]
        }
    }

    fn cases(&self, scale: &Scale) -> Vec<Case> {
        let count = scale.pick(1_000_000, 50_000);
        vec![Case::of(format!("{count} stored"), count)]
    }

    fn measure(&self, cx: &Cx<'_>, case: &Case) -> Result<Figures, Failure> {
        let mut server = cx.start()?;
        let wrong = |e: std::io::Error| Failure::Contender(e.to_string());
        let mut publisher = Client::connect(server.address, "retained-p").map_err(wrong)?;
        let messages = |from: u32, to: u32| (from..to).map(|n| (topic(n), PAYLOAD));
        publisher.publish(messages(0, FEW), true, 64).map_err(wrong)?;
        let plus_few_us = ask_plus(cx, &mut server, FEW)?;
        std::thread::sleep(Duration::from_millis(500));
        let before = cx.sample(&mut server)?;
        // Few at a time: a window that a peer does not grant would stop it.
        publisher.publish(messages(FEW, case.count), true, 64).map_err(wrong)?;
        std::thread::sleep(Duration::from_secs(1));
        let full = cx.sample(&mut server)?;
        let plus_us = ask_plus(cx, &mut server, case.count)?;
        let mut all = Client::connect(server.address, "retained-all").map_err(wrong)?;
        let asked = cx.sample(&mut server)?;
        let began = Instant::now();
        // The answer may come after the first messages, or among them.
        all.ask("s/#").map_err(wrong)?;
        let (count, last) =
            all.count_publishes(Duration::from_secs(5), u64::from(case.count)).map_err(wrong)?;
        let replayed = cx.sample(&mut server)?;
        if count < u64::from(case.count) {
            return fails(format!("{count} of {} retained messages came back", case.count));
        }
        let stored = f64::from(case.count - FEW);
        let content: usize = (FEW..case.count).map(|n| topic(n).len() + PAYLOAD.len()).sum();
        let (before, full) = (before.as_ref(), full.as_ref());
        let bytes = grown_by(before, full, |s| s.anonymous);
        let replay_cpu = grown_by(asked.as_ref(), replayed.as_ref(), |s| s.cpu_ns);
        Ok(Figures::from([
            ("store_ns", grown_by(before, full, |s| s.cpu_ns) / stored),
            ("bytes", (bytes - content as f64) / stored),
            ("plus_few_us", plus_few_us),
            ("plus_us", plus_us),
            ("plus_ratio", plus_us / plus_few_us),
            ("replay_per_s", count as f64 / (last - began).as_secs_f64()),
            ("replay_ns", replay_cpu / count as f64),
        ]))
    }

    fn targets(&self) -> &'static [Target] {
        const {
            &[
                target("", "bytes", Against::AtMost(48.0)),
                target("", "plus_ratio", Against::AtMost(1.5)),
                target("", "replay_per_s", Against::AtLeast(1_000_000.0)),
            ]
        }
    }
}

/// Ten topics a group: `s/GROUP/MEMBER/v`.
fn topic(n: u32) -> String {
    format!("s/{}/{}/v", n / GROUP, n % GROUP)
}

/// CPU µs of a SUBSCRIBE with `+` that finds [`GROUP`] messages among `stored`.
fn ask_plus(cx: &Cx<'_>, server: &mut Running, stored: u32) -> Result<f64, Failure> {
    let wrong = |e: std::io::Error| Failure::Contender(e.to_string());
    let mut client = Client::connect(server.address, "retained-plus").map_err(wrong)?;
    let mut before = None;
    for n in 0..WARM_UP + ASKS {
        if n == WARM_UP {
            before = cx.sample(server)?;
        }
        // Spread over all groups; where there are fewer than asks, some are asked again, and a
        // broker replays for each SUBSCRIBE. [MQTT-3.8.4-3]
        let groups = stored / GROUP;
        let group = n * (groups / (WARM_UP + ASKS)).max(1) % groups;
        let filter = format!("s/{group}/+/v");
        client.ask(&filter).map_err(wrong)?;
        let (mut answered, mut came) = (false, 0);
        while !answered || came < GROUP {
            match client.next().map_err(wrong)? {
                Got::SubAck(codes) if codes.first().is_some_and(|&c| c < 0x80) => answered = true,
                Got::SubAck(codes) => return fails(format!("SUBACK {codes:?} to {filter}")),
                Got::Publish(..) => came += 1,
                _ => {}
            }
        }
    }
    let after = cx.sample(server)?;
    Ok(grown_by(before.as_ref(), after.as_ref(), |s| s.cpu_ns) / f64::from(ASKS) / 1000.0)
}
