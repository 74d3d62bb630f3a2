//! `observe`: what it costs that shards take notes of their work.
//!
//! Two ways to know: the same traffic with and without, which feels all that a noisy machine does to it; and
//! the broker's own profile, which says in how many samples a note was being taken.

use std::io;
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread::sleep;
use std::time::Duration;

use crate::child::Scratch;
use crate::contender::Running;
use crate::scenario::{
    Against, Case, Cx, Failure, FigureKind, Figures, Scale, Scenario, Target, fails, less, target,
    traffic,
};

pub(crate) struct Observe;

/// All clients are connected by then, and warm.
const BEFORE_PROFILE: Duration = Duration::from_secs(3);
/// The load has ended by itself by then.
const LOAD_MAX: Duration = Duration::from_secs(120);
/// Functions below these take notes, and so does what they call.
const NOTES: [&str; 6] = [
    "ringmain_shards::observe::",
    "ringmain_shards::reactor::follow::",
    // Where the compiler has put them into their callers.
    "(recorder.rs)",
    "(sample.rs)",
    "(stage.rs)",
    "(follow.rs)",
];

/// A shard that is busy for a small part of the time.
const PACED: &str = "p2p paced";

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
                less("share", "CPU for notes", 4),
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
            Case::command(PACED, "pair -c 96 -s 42 -q 0 -I 20"),
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
            ("share", share(cx, case)?),
            ("ratio", with / without),
            ("user_ratio", user_with / user_without),
            ("ns_per_message", with),
            ("without_ns_per_message", without),
        ]))
    }

    fn targets(&self) -> &'static [Target] {
        const {
            &[
                target("", "share", Against::AtMost(0.02)),
                target("", "ratio", Against::AtMost(1.02)),
            ]
        }
    }

    fn peers_take_part(&self) -> bool {
        false
    }
}

/// The share of the broker's CPU time in which notes were taken, by its own profile under this load.
fn share(cx: &Cx<'_>, case: &Case) -> Result<f64, Failure> {
    let server = cx.start_sharded(1, &[SWITCHES[0]])?;
    // Where the shard sleeps most of the time there are few samples in a second.
    let busy = cx.scale.pick(10, 2);
    let seconds: u64 = if case.name == PACED { 4 * busy } else { busy };
    let mut args = case.args.clone();
    args.extend(["-d".to_owned(), (2 * BEFORE_PROFILE.as_secs() + seconds).to_string()]);
    let load = cx.begin(&server, &args)?;
    sleep(BEFORE_PROFILE);
    let scratch = Scratch::new("profile")?;
    let folded = scratch.0.join("folded");
    let profiled = profile(cx, &server, seconds, &folded);
    let found = load.wait(LOAD_MAX)?;
    if !found.problems.is_empty() {
        return fails(found.problems.join("; "));
    }
    profiled?;
    share_of_notes(&std::fs::read_to_string(&folded)?).map_or_else(|| fails("it did nothing"), Ok)
}

fn profile(cx: &Cx<'_>, server: &Running, seconds: u64, folded: &Path) -> Result<(), Failure> {
    let Some(socket) = server.admin_socket() else { return fails("it has no socket to ask by") };
    let output = Command::new(&cx.programs.ringmain)
        .args(["profile", "--source", "broker", "--hz", "999", "--seconds", &seconds.to_string()])
        .arg("--socket")
        .arg(socket)
        .arg("--folded")
        .arg(folded)
        .arg("--output")
        .arg(folded.with_extension("svg"))
        .stdin(Stdio::null())
        .output()?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    Err(Failure::Bench(io::Error::other(format!("ringmain profile: {said}"))))
}

/// The share of samples with a function that takes notes; `None` without samples.
fn share_of_notes(folded: &str) -> Option<f64> {
    let (mut all, mut notes) = (0_u64, 0_u64);
    for (stack, count) in folded.lines().filter_map(|line| line.rsplit_once(' ')) {
        let count: u64 = count.parse().ok()?;
        all += count;
        let is_note = |frame: &str| NOTES.iter().any(|path| frame.contains(path));
        if stack.split(';').any(is_note) {
            notes += count;
        }
    }
    (all > 0).then(|| notes as f64 / all as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_below_a_function_that_takes_notes_count_for_it() {
        let folded = "shard-0;a;b 90\n\
                      shard-0;a;ringmain_shards::observe::recorder::Recorder::sent;hdr 9\n\
                      shard-0;<ringmain_shards::reactor::follow::X as Y>::z 1\n";
        assert_eq!(share_of_notes(folded), Some(0.1));
        assert_eq!(share_of_notes(""), None);
    }
}
