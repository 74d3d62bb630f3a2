//! `floor`: what MQTT costs above a bare io_uring server that moves the same bytes for the same
//! clients and knows nothing of MQTT once they are connected.

use crate::scenario::{
    Against, Case, Cx, Failure, FigureKind, Figures, Scale, Scenario, Target, target, traffic,
};

pub(crate) struct Floor;

const NS: &str = "ns_per_message";

impl Scenario for Floor {
    fn name(&self) -> &'static str {
        "floor"
    }

    fn about(&self) -> &'static str {
        "100 pairs and 1 to 1,000 beside a bare io_uring server that moves the same bytes, QoS 0"
    }

    fn figures(&self) -> &'static [FigureKind] {
        traffic::TRAFFIC
    }

    fn cases(&self, _: &Scale) -> Vec<Case> {
        let case = |name, args| Case::command(name, args).with_floor();
        vec![
            case("p2p-1", "pair -c 100 -s 42 -F 1"),
            case("p2p-16", "pair -c 100 -s 42 -F 16"),
            case("fanout-4", "fanout -c 1000 -s 42 -F 4"),
            case("fanout-32", "fanout -c 1000 -s 42 -F 32"),
        ]
    }

    fn measure(&self, cx: &Cx<'_>, case: &Case) -> Result<Figures, Failure> {
        traffic::measure(cx, case)
    }

    fn targets(&self) -> &'static [Target] {
        const { &[target("p2p-16", NS, Against::Floor(2.0)), target("fanout", NS, Against::Floor(1.3))] }
    }
}
