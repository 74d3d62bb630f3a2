//! `observe`: what it costs that shards take notes of their work.

use crate::scenario::{
    Against, Case, Cx, Failure, FigureKind, Figures, Scale, Scenario, Target, less, target, traffic,
};

pub(crate) struct Observe;

const SWITCHES: [&str; 2] = ["observe.enabled=true", "observe.enabled=false"];

impl Scenario for Observe {
    fn name(&self) -> &'static str {
        "observe"
    }

    fn about(&self) -> &'static str {
        "the same traffic with notes (histograms, followed messages, turns) and without"
    }

    fn figures(&self) -> &'static [FigureKind] {
        const {
            &[
                less("ratio", "with/without", 3),
                less("user_ratio", "in the server", 3),
                less("ns_per_message", "CPU ns/message with", 0),
                less("without_ns_per_message", "without", 0),
            ]
        }
    }

    fn cases(&self, _: &Scale) -> Vec<Case> {
        vec![
            Case::command("p2p w1", "pair -c 500 -s 42 -q 0 -F 1"),
            Case::command("p2p w16", "pair -c 500 -s 42 -q 0 -F 16"),
            Case::command("p2p q1 w16", "pair -c 500 -s 42 -q 1 -F 16"),
            Case::command("p2p paced", "pair -c 96 -s 42 -q 0 -I 20"),
            Case::command("fan-out w4", "fanout -c 1000 -s 42 -q 0 -F 4"),
        ]
    }

    /// Two runs of each, in an order that favours neither, one behind the other: the machine changes slowly.
    fn measure(&self, cx: &Cx<'_>, case: &Case) -> Result<Figures, Failure> {
        let mut sums = [[0.0; 2]; 2];
        for which in [0, 1, 1, 0] {
            let mut server = cx.start_sharded(1, &[SWITCHES[which]])?;
            let report = cx.load(&mut server, &traffic::timed(cx, &case.args))?;
            let figures = traffic::figures(&report, false)?;
            for (sum, name) in sums[which].iter_mut().zip(["ns_per_message", "user_ns_per_message"])
            {
                *sum += figures.get(name).copied().unwrap_or(f64::NAN) / 2.0;
            }
        }
        let [[with, user_with], [without, user_without]] = sums;
        Ok(Figures::from([
            ("ratio", with / without),
            ("user_ratio", user_with / user_without),
            ("ns_per_message", with),
            ("without_ns_per_message", without),
        ]))
    }

    fn targets(&self) -> &'static [Target] {
        const { &[target("", "ratio", Against::AtMost(1.02))] }
    }

    fn peers_take_part(&self) -> bool {
        false
    }
}
