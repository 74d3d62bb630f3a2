//! `storm-15k`: all come at once.

use crate::scenario::{
    Against, Case, Cx, Failure, FigureKind, Figures, Scale, Scenario, Target, fails, grown, less,
    more, target,
};

pub(crate) struct Storm15K;

impl Scenario for Storm15K {
    fn name(&self) -> &'static str {
        "storm-15k"
    }

    fn about(&self) -> &'static str {
        "15,000 clients connect and subscribe at once, vanish (RST), and come back at once"
    }

    fn figures(&self) -> &'static [FigureKind] {
        const {
            &[
                less("connect_us", "first, CPU µs each", 1),
                less("first_s", "all in, s", 2),
                less("reconnect_us", "again, CPU µs each", 1),
                less("back_s", "all back, s", 2),
                more("per_s", "back/s", 0),
                less("p50_ms", "connect p50 ms", 1),
                less("p99_ms", "connect p99 ms", 1),
                less("generator_us", "generator µs", 1),
            ]
        }
    }

    fn cases(&self, scale: &Scale) -> Vec<Case> {
        let count = scale.pick(15_000, 5_000).min(scale.connections_max);
        vec![Case::of(format!("{count} clients"), count).with_floor()]
    }

    /// Two runs of the generator against one server: the second finds what the first left behind.
    fn measure(&self, cx: &Cx<'_>, case: &Case) -> Result<Figures, Failure> {
        let count = case.count;
        let args = format!("conn -c {count} -t storm/%i/all --in-flight {count} --end rst");
        let mut server = cx.start()?;
        let first = cx.load_text(&mut server, &args)?;
        let again = cx.load_text(&mut server, &args)?;
        let each = |total: f64| total / f64::from(count) / 1000.0;
        let Some(connect) = again.latencies.get("connect") else {
            return fails("no connection was timed");
        };
        let ms = |ns: u64| ns as f64 / 1e6;
        Ok(Figures::from([
            ("connect_us", each(grown(&first, "start", "connected", |s| s.cpu_ns))),
            ("first_s", first.connect_s),
            ("reconnect_us", each(grown(&again, "start", "connected", |s| s.cpu_ns))),
            ("back_s", again.connect_s),
            ("per_s", f64::from(count) / again.connect_s),
            ("p50_ms", ms(connect.p50)),
            ("p99_ms", ms(connect.p99)),
            ("generator_us", each(again.generator.connect_cpu_ns as f64)),
        ]))
    }

    fn targets(&self) -> &'static [Target] {
        const {
            &[
                target("", "reconnect_us", Against::Mosquitto(2.0)),
                target("", "reconnect_us", Against::Floor(1.5)),
            ]
        }
    }
}
