//! Traffic of one command of the generator: what it costs, and how late it is.

use ringmain_load::report::Report;

use super::{Case, Cx, Failure, FigureKind, Figures, fails, less, more};
use crate::load;

/// Figures of traffic; the latencies count where the load is open.
pub(crate) const TRAFFIC: &[FigureKind] = &[
    less("ns_per_message", "CPU ns/message", 0),
    less("user_ns_per_message", "in the server", 0),
    more("messages_per_s", "messages/s", 0),
    less("p50_us", "p50 µs", 0),
    less("p99_us", "p99 µs", 0),
    less("p999_us", "p99.9 µs", 0),
    less("generator_ns_per_message", "generator ns", 0),
];

/// Runs the case's command against a fresh server.
pub(crate) fn measure(cx: &Cx<'_>, case: &Case) -> Result<Figures, Failure> {
    let mut server = cx.start()?;
    let report = cx.load(&mut server, &timed(cx, &case.args))?;
    figures(&report, is_open(&case.args))
}

/// The arguments with the time that the scale gives, where they do not say one.
pub(crate) fn timed(cx: &Cx<'_>, args: &[String]) -> Vec<String> {
    let mut args = args.to_vec();
    if !args.iter().any(|a| a == "-d") {
        args.extend(["-d".to_owned(), cx.scale.seconds.to_string()]);
    }
    if !args.iter().any(|a| a == "--warmup") {
        args.extend(["--warmup".to_owned(), cx.scale.pick("1", "0.5").to_owned()]);
    }
    args
}

/// Whether messages go out at times that the broker does not move.
pub(crate) fn is_open(args: &[String]) -> bool {
    args.iter().any(|a| a == "-I")
}

/// What a report of traffic says.
pub(crate) fn figures(report: &Report, open: bool) -> Result<Figures, Failure> {
    let Some(traffic) = report.traffic else { return fails("a run without traffic") };
    let messages = if traffic.delivered > 0 { traffic.delivered } else { traffic.sent };
    if messages == 0 {
        return fails("no message arrived");
    }
    let ns_per_message = traffic.broker_ns_per_message().unwrap_or(f64::NAN);
    let mut figures = Figures::from([
        ("ns_per_message", ns_per_message),
        ("user_ns_per_message", ns_per_message * load::user_share(report)),
        ("messages_per_s", messages as f64 / traffic.seconds),
        ("generator_ns_per_message", traffic.generator_cpu_ns as f64 / messages as f64),
    ]);
    if open {
        figures.extend(latencies(report));
    }
    Ok(figures)
}

/// Delivery latencies from the intended time, in µs.
pub(crate) fn latencies(report: &Report) -> Figures {
    let us = |ns: u64| ns as f64 / 1000.0;
    match report.latencies.get("delivery") {
        Some(l) if l.count > 0 => {
            Figures::from([("p50_us", us(l.p50)), ("p99_us", us(l.p99)), ("p999_us", us(l.p999))])
        }
        _ => Figures::new(),
    }
}
