//! `acl`: what it costs to ask 1,000 rules about each message.

use crate::child::Scratch;
use crate::scenario::{
    Against, Case, Cx, Failure, FigureKind, Figures, Scale, Scenario, Target, less, target, traffic,
};

pub(crate) struct Acl;

const RULES: u32 = 1000;
/// Runs of each kind, in an order that favours neither, one behind the other: the machine changes slowly.
const TURNS: [usize; 8] = [0, 1, 1, 0, 0, 1, 1, 0];

impl Scenario for Acl {
    fn name(&self) -> &'static str {
        "acl"
    }

    fn about(&self) -> &'static str {
        "the same traffic with 1,000 rules, one of which allows it, and without rules"
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
        let pairs = "pair -c 500 -s 42 -t acl/line-%i/state";
        vec![
            Case::command("p2p w1", &format!("{pairs} -q 0 -F 1")),
            Case::command("p2p w16", &format!("{pairs} -q 0 -F 16")),
            Case::command("p2p q1 w16", &format!("{pairs} -q 1 -F 16")),
        ]
    }

    fn measure(&self, cx: &Cx<'_>, case: &Case) -> Result<Figures, Failure> {
        let scratch = Scratch::new("acl")?;
        let file = scratch.0.join("acl.conf");
        std::fs::write(&file, rules())?;
        let files = format!("authorization.files=['{}']", file.display());
        let mut sums = [[0.0; 2]; 2];
        for which in TURNS {
            let set: &[&str] = if which == 0 { &[&files] } else { &[] };
            let mut server = cx.start_sharded(1, set)?;
            let report = cx.load(&mut server, &traffic::timed(cx, &case.args))?;
            let figures = traffic::figures(&report, false)?;
            for (sum, name) in sums[which].iter_mut().zip(["ns_per_message", "user_ns_per_message"])
            {
                *sum += figures.get(name).copied().unwrap_or(f64::NAN);
            }
        }
        let [[with, user_with], [without, user_without]] = sums;
        let runs = (TURNS.len() / 2) as f64;
        Ok(Figures::from([
            ("ratio", with / without),
            ("user_ratio", user_with / user_without),
            ("ns_per_message", with / runs),
            ("without_ns_per_message", without / runs),
        ]))
    }

    fn targets(&self) -> &'static [Target] {
        const { &[target("", "ratio", Against::AtMost(1.03))] }
    }

    fn peers_take_part(&self) -> bool {
        false
    }
}

/// A rule for each line of the plant; those that are used are the last. What they do not name is denied.
fn rules() -> String {
    let rule = |n| format!("{{allow, all, all, [\"acl/line-{n}/+\"]}}.\n");
    (0..RULES).rev().map(rule).collect()
}
