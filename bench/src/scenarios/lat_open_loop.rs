//! `lat-open-loop`: how late messages are when their publishers do not wait.

use crate::scenario::{
    Against, Case, Cx, Failure, FigureKind, Figures, OpenLoop, Scale, Scenario, Target, target,
    traffic,
};

pub(crate) struct LatOpenLoop;

const PAIRS: u32 = 100;
/// Messages a second that every contender gets, whatever it can do.
const RATES: [u32; 2] = [1_000, 10_000];

impl Scenario for LatOpenLoop {
    fn name(&self) -> &'static str {
        "lat-open-loop"
    }

    fn about(&self) -> &'static str {
        "latency from the intended time, 100 pairs, 42 B, QoS 0 and 1, at fixed rates and at \
         shares of the slower contender's maximum"
    }

    fn figures(&self) -> &'static [FigureKind] {
        traffic::TRAFFIC
    }

    fn cases(&self, scale: &Scale) -> Vec<Case> {
        let seconds = scale.pick("10", "2");
        let mut cases = Vec::new();
        for qos in 0..=1 {
            for rate in RATES {
                let ms = f64::from(PAIRS) * 1000.0 / f64::from(rate);
                let args = format!("pair -c {PAIRS} -s 42 -q {qos} -I {ms} -d {seconds}");
                let case = Case::command(format!("q{qos} {rate}/s"), &args);
                cases.push(if qos == 0 { case.with_floor() } else { case });
            }
            let args = format!("pair -c {PAIRS} -s 42 -q {qos} -F 16");
            cases.push(Case::command(format!("q{qos} maximum"), &args));
        }
        cases
    }

    fn measure(&self, cx: &Cx<'_>, case: &Case) -> Result<Figures, Failure> {
        traffic::measure(cx, case)
    }

    fn targets(&self) -> &'static [Target] {
        const {
            &[
                target("q0 1000/s", "p99_us", Against::BestPeer(2.0)),
                target("q0 1000/s", "p999_us", Against::BestPeer(3.0)),
                target("q0 10000/s", "p99_us", Against::BestPeer(2.0)),
                target("q0 10000/s", "p999_us", Against::BestPeer(3.0)),
                target("open", "p99_us", Against::BestPeer(2.0)),
                target("open", "p999_us", Against::BestPeer(3.0)),
            ]
        }
    }

    fn open_loops(&self, scale: &Scale) -> Vec<OpenLoop> {
        let seconds = scale.pick("10", "2");
        let open = |qos: u32| {
            let args = format!("pair -c {PAIRS} -s 42 -q {qos} -d {seconds}");
            let args = Case::command("", &args).args;
            OpenLoop { of: format!("q{qos} maximum"), args, publishers: PAIRS, fan_out: 1 }
        };
        vec![open(0), open(1)]
    }
}
