//! `fanout-1-1000`: one publisher, a thousand subscribers of its topic.

use crate::scenario::{
    Against, Case, Cx, Failure, FigureKind, Figures, OpenLoop, Scale, Scenario, Target, target,
    traffic,
};

pub(crate) struct Fanout1To1000;

const SUBSCRIBERS: u32 = 1000;
const NS: &str = "ns_per_message";

impl Scenario for Fanout1To1000 {
    fn name(&self) -> &'static str {
        "fanout-1-1000"
    }

    fn about(&self) -> &'static str {
        "1 publisher to 1,000 subscribers with 4 and 32 messages outstanding, 42 B, QoS 0"
    }

    fn figures(&self) -> &'static [FigureKind] {
        traffic::TRAFFIC
    }

    fn cases(&self, _: &Scale) -> Vec<Case> {
        let case = |window: u32| {
            let args = format!("fanout -c {SUBSCRIBERS} -s 42 -F {window}");
            Case::command(format!("w{window}"), &args).with_floor()
        };
        vec![case(4), case(32)]
    }

    fn measure(&self, cx: &Cx<'_>, case: &Case) -> Result<Figures, Failure> {
        traffic::measure(cx, case)
    }

    fn targets(&self) -> &'static [Target] {
        const {
            &[
                target("w4", NS, Against::Mosquitto(6.0)),
                target("w4", NS, Against::Floor(1.3)),
                target("w32", NS, Against::Mosquitto(30.0)),
                target("w32", NS, Against::Floor(1.3)),
                target("open", "p99_us", Against::BestPeer(2.0)),
                target("open", "p999_us", Against::BestPeer(3.0)),
            ]
        }
    }

    fn open_loops(&self, _: &Scale) -> Vec<OpenLoop> {
        let args = Case::command("", &format!("fanout -c {SUBSCRIBERS} -s 42")).args;
        vec![OpenLoop { of: "w32".to_owned(), args, publishers: 1, fan_out: SUBSCRIBERS }]
    }
}
