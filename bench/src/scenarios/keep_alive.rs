//! `keep-alive-15k`: what a PINGREQ costs of a client that says nothing else.
//!
//! 15,000 clients with a Keep Alive of four seconds ping as often in a second as a million with one of five
//! minutes (4,600 against 4,200), so that servers with a descriptor for each connection can take part, and
//! the bare server. A million has them less often in the processor's caches: `conn-1M` shows by how much.

use crate::scenario::{
    Against, Case, Cx, Failure, FigureKind, Figures, Scale, Scenario, Target, fails, less, more,
    target,
};

pub(crate) struct KeepAlive15K;

/// The stage in which nothing but pings goes on.
const HOLD: &str = "hold";
/// A client pings after 3/4 to 7/8 of it.
const KEEP_ALIVE_S: u32 = 4;
/// Until each client pings at its own time.
const SETTLE_S: u32 = 2 * KEEP_ALIVE_S;

impl Scenario for KeepAlive15K {
    fn name(&self) -> &'static str {
        "keep-alive-15k"
    }

    fn about(&self) -> &'static str {
        "15,000 connections that do nothing but ping, 4,600 times a second: CPU of each ping"
    }

    fn figures(&self) -> &'static [FigureKind] {
        const {
            &[
                less("us_per_ping", "CPU µs/ping", 1),
                less("user_us_per_ping", "in the server", 1),
                more("pings_per_s", "pings/s", 0),
                less("cores", "cores", 4),
                more("pings_per_sleep", "pings/sleep", 1),
                less("generator_us", "generator µs", 1),
            ]
        }
    }

    fn cases(&self, scale: &Scale) -> Vec<Case> {
        let count = scale.pick(15_000, 5_000).min(scale.connections_max);
        vec![Case::of(format!("{count} clients"), count).with_floor()]
    }

    fn measure(&self, cx: &Cx<'_>, case: &Case) -> Result<Figures, Failure> {
        let (count, hold) = (case.count, cx.scale.pick(10, 5));
        let args = format!("conn -c {count} -k {KEEP_ALIVE_S} --settle {SETTLE_S} --hold {hold}");
        let mut server = cx.start()?;
        let report = cx.load_text(&mut server, &args)?;
        let Some(stage) = report.stages.iter().find(|s| s.name == HOLD) else {
            return fails("no stage in which connections were held");
        };
        if stage.counters.pings == 0 {
            return fails("nobody had to ping");
        }
        let pings = stage.counters.pings as f64;
        let mut figures = Figures::from([
            ("pings_per_s", pings / stage.seconds),
            ("generator_us", stage.generator_cpu_ns as f64 / pings / 1000.0),
        ]);
        if let (Some(from), Some(to)) = (&stage.broker_before, &stage.broker_after) {
            let cpu_ns = to.cpu_ns.saturating_sub(from.cpu_ns) as f64;
            // The ticks give the shares; the sum is exact.
            let user = to.user_ms.saturating_sub(from.user_ms) as f64;
            let system = to.system_ms.saturating_sub(from.system_ms) as f64;
            let sleeps = to.voluntary_switches.saturating_sub(from.voluntary_switches) as f64;
            figures.extend([
                ("us_per_ping", cpu_ns / pings / 1000.0),
                ("user_us_per_ping", cpu_ns / pings / 1000.0 * user / (user + system).max(1.0)),
                ("cores", cpu_ns / 1e9 / stage.seconds),
                ("pings_per_sleep", pings / sleeps.max(1.0)),
            ]);
        }
        Ok(figures)
    }

    fn targets(&self) -> &'static [Target] {
        const { &[target("", "us_per_ping", Against::Floor(1.25))] }
    }
}
