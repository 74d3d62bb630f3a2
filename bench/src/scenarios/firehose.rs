//! `firehose`: many publishers, one subscriber that gets all of it.

use crate::scenario::{Case, Cx, Failure, FigureKind, Figures, Scale, Scenario, grown, less, more};
use crate::scenarios::mqttbs::{FanIn, fan_in};

pub(crate) struct Firehose;

impl Scenario for Firehose {
    fn name(&self) -> &'static str {
        "firehose"
    }

    fn about(&self) -> &'static str {
        "15,000 publishers to 1 subscriber of a wildcard: paced with QoS 0, flat out with QoS 1"
    }

    fn figures(&self) -> &'static [FigureKind] {
        const {
            &[
                less("ns_per_message", "CPU ns/message", 0),
                more("messages_per_s", "messages/s", 0),
                less("p50_us", "p50 µs", 0),
                less("p99_us", "p99 µs", 0),
                less("p999_us", "p99.9 µs", 0),
                less("sleeps_per_message", "sleeps/message", 3),
            ]
        }
    }

    fn cases(&self, scale: &Scale) -> Vec<Case> {
        let count = scale.pick(15_000, 3_000).min(scale.connections_max);
        // 20,000 messages a second, whatever the number of publishers.
        let ms = f64::from(count) / 20.0;
        vec![
            Case {
                count,
                ..Case::command(
                    format!("{count} to 1, q0, 20000/s"),
                    &format!("pub -c {count} -t fire/%i/data -s 42 -q 0 -I {ms}"),
                )
            },
            Case {
                count,
                ..Case::command(
                    format!("{count} to 1, q1, w1"),
                    &format!("pub -c {count} -t fire/%i/data -s 42 -q 1 -F 1"),
                )
            },
        ]
    }

    fn measure(&self, cx: &Cx<'_>, case: &Case) -> Result<Figures, Failure> {
        let (mut figures, report) = fan_in(
            cx,
            &FanIn { subscribers: 1, filter: "fire/#", qos: 1, publish: case.args.clone() },
        )?;
        let sent = report.traffic.map_or(0, |t| t.sent).max(1) as f64;
        let sleeps = grown(&report, "traffic-begin", "traffic-end", |s| s.voluntary_switches);
        figures.insert("sleeps_per_message", sleeps / sent);
        Ok(figures)
    }
}
