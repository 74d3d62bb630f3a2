//! `conn-1M`: a million connections with a subscription each, by `ringmain-load million`.

use std::io;
use std::process::{Command, Stdio};

use crate::scenario::{
    Against, Case, Cx, Failure, FigureKind, Figures, Scale, Scenario, Target, less, more, target,
};

pub(crate) struct Million;

impl Scenario for Million {
    fn name(&self) -> &'static str {
        "conn-1M"
    }

    fn about(&self) -> &'static str {
        "1,000,000 connections with a subscription each, kept, served, dropped and brought back"
    }

    fn figures(&self) -> &'static [FigureKind] {
        const {
            &[
                more("connections", "connections", 0),
                less("connect_s", "all in, s", 1),
                less("user_gb", "user memory GB", 3),
                less("keepalive_share", "keep-alive, cores", 4),
                less("storm_s", "all back, s", 1),
            ]
        }
    }

    fn cases(&self, scale: &Scale) -> Vec<Case> {
        let count = scale.pick(1_000_000, 20_000);
        vec![Case::of(format!("{count} connections"), count)]
    }

    fn measure(&self, cx: &Cx<'_>, _: &Case) -> Result<Figures, Failure> {
        let known = Command::new(&cx.programs.load)
            .args(["million", "--help"])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status()?;
        if !known.success() {
            return Err(Failure::Bench(io::Error::other(
                "this ringmain-load has no command `million`",
            )));
        }
        Err(Failure::Bench(io::Error::other("its report is not read yet")))
    }

    fn targets(&self) -> &'static [Target] {
        const {
            &[
                target("", "connect_s", Against::AtMost(60.0)),
                target("", "user_gb", Against::AtMost(0.4)),
                target("", "keepalive_share", Against::AtMost(0.02)),
                target("", "storm_s", Against::AtMost(120.0)),
            ]
        }
    }

    fn on_request(&self) -> bool {
        true
    }

    fn peers_take_part(&self) -> bool {
        false
    }
}
