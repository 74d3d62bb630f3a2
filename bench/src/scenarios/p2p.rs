//! `p2p-500`: 500 publishers, each with a subscriber of its own.

use crate::scenario::{
    Against, Case, Cx, Failure, FigureKind, Figures, OpenLoop, Scale, Scenario, Target, target,
    traffic,
};

pub(crate) struct P2p500;

const PAIRS: u32 = 500;
const NS: &str = "ns_per_message";

impl Scenario for P2p500 {
    fn name(&self) -> &'static str {
        "p2p-500"
    }

    fn about(&self) -> &'static str {
        "500 pairs with 1 and 16 messages outstanding each, 42 B, QoS 0, 1 and 2"
    }

    fn figures(&self) -> &'static [FigureKind] {
        traffic::TRAFFIC
    }

    fn cases(&self, _: &Scale) -> Vec<Case> {
        let case = |qos: u32, window: u32| {
            let args = format!("pair -c {PAIRS} -s 42 -q {qos} -F {window}");
            let case = Case::command(format!("q{qos} w{window}"), &args);
            // The bare server acknowledges nothing.
            if qos == 0 { case.with_floor() } else { case }
        };
        (0..=2).flat_map(|qos| [case(qos, 1), case(qos, 16)]).collect()
    }

    fn measure(&self, cx: &Cx<'_>, case: &Case) -> Result<Figures, Failure> {
        traffic::measure(cx, case)
    }

    fn targets(&self) -> &'static [Target] {
        const {
            &[
                target("q0 w16", NS, Against::Mosquitto(12.0)),
                target("q0 w16", NS, Against::Floor(2.0)),
                target("q0 w1", NS, Against::Mosquitto(1.8)),
                target("q0 w1", NS, Against::Floor(1.25)),
                target("open", "p99_us", Against::BestPeer(2.0)),
                target("open", "p999_us", Against::BestPeer(3.0)),
            ]
        }
    }

    fn open_loops(&self, _: &Scale) -> Vec<OpenLoop> {
        let open = |qos: u32| {
            let of = format!("q{qos} w16");
            let args = Case::command("", &format!("pair -c {PAIRS} -s 42 -q {qos}")).args;
            OpenLoop { of, args, publishers: PAIRS, fan_out: 1 }
        };
        vec![open(0), open(1)]
    }
}
