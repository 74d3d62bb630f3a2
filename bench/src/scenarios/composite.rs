//! `composite-churn`: everything at once, for long: pairs, a fan-out, idle connections, and clients
//! that come and go. Does memory stay where it is?

use std::thread::sleep;
use std::time::{Duration, Instant};

use crate::scenario::{
    Against, Case, Cx, Failure, FigureKind, Figures, Scale, Scenario, Target, fails, less, target,
    traffic,
};

pub(crate) static CHURN: Composite = Composite {
    name: "composite-churn",
    about: "30 minutes of pairs, fan-out, idle clients and churn: memory slope, CPU, latency",
    seconds: 1800,
    target: &[target("", "slope_kib_per_min", Against::AtMost(16.0))],
};
pub(crate) static SHORT: Composite = Composite {
    name: "composite-short",
    about: "a minute of pairs, fan-out, idle clients and churn: memory slope, CPU, latency",
    seconds: 60,
    target: &[],
};

pub(crate) struct Composite {
    name: &'static str,
    about: &'static str,
    seconds: u32,
    target: &'static [Target],
}

const PAIRS: u32 = 200;
const IDLE: u32 = 2000;
const FAN: u32 = 200;
const CHURNERS: u32 = 200;
/// Connections that come and go a second.
const CHURN_PER_S: u32 = 200;
/// The part of the time in which tables find their size.
const SETTLE_SHARE: f64 = 0.25;

impl Scenario for Composite {
    fn name(&self) -> &'static str {
        self.name
    }

    fn about(&self) -> &'static str {
        self.about
    }

    fn figures(&self) -> &'static [FigureKind] {
        const {
            &[
                less("cpu_share", "cores", 3),
                less("memory_mib", "memory MiB", 1),
                less("slope_kib_per_min", "slope KiB/min", 1),
                less("p50_us", "pairs p50 µs", 0),
                less("p99_us", "p99 µs", 0),
                less("p999_us", "p99.9 µs", 0),
                less("fan_p99_us", "fan-out p99 µs", 0),
                less("connect_p99_us", "connect p99 µs", 0),
            ]
        }
    }

    fn cases(&self, scale: &Scale) -> Vec<Case> {
        let seconds = scale.pick(self.seconds, 12);
        vec![Case::of(format!("{seconds} s"), seconds)]
    }

    fn measure(&self, cx: &Cx<'_>, case: &Case) -> Result<Figures, Failure> {
        let mut server = cx.start()?;
        let seconds = case.count;
        let args = |text: String| Case::command("", &text).args;
        let pairs = cx.begin(
            &server,
            &args(format!(
                "pair -c {PAIRS} --idle {IDLE} -q 1 -s 64 -I 100 -d {seconds} --client-id pair-%i"
            )),
        )?;
        let fan = cx.begin(
            &server,
            &args(format!("fanout -c {FAN} -s 64 -I 100 -d {seconds} --client-id fan-%i")),
        )?;
        // It ends before the others, so that what it left is in the last samples.
        let cycles = (seconds * CHURN_PER_S / CHURNERS).saturating_sub(2).max(1);
        let churn = cx.begin(
            &server,
            &args(format!(
                "conn -c {CHURNERS} --cycles {cycles} -R {CHURN_PER_S} -t churn/%i/+ \
                 --fresh-ids --client-id churn-%i"
            )),
        )?;
        let began = Instant::now();
        let whole = f64::from(seconds);
        let mut memory: Vec<(f64, f64)> = Vec::new();
        let first = cx.sample(&mut server)?;
        let mut last = first.clone();
        while began.elapsed().as_secs_f64() < whole {
            sleep(Duration::from_millis(500));
            last = cx.sample(&mut server)?;
            let at = began.elapsed().as_secs_f64();
            if let Some(sample) = last.as_ref().filter(|_| at > whole * SETTLE_SHARE) {
                memory.push((at, sample.anonymous as f64));
            }
        }
        let patience = Duration::from_secs(60);
        let pairs = cx.clean(&mut server, pairs.wait(patience)?)?;
        let fan = cx.clean(&mut server, fan.wait(patience)?)?;
        let churn = cx.clean(&mut server, churn.wait(patience)?)?;
        if churn.counters.ready < u64::from(cycles) * u64::from(CHURNERS) {
            return fails(format!("{} of the churning clients came in", churn.counters.ready));
        }
        let p99 = |r: &ringmain_load::report::Report, name: &str| {
            r.latencies.get(name).map_or(f64::NAN, |l| l.p99 as f64 / 1000.0)
        };
        let mut figures = traffic::latencies(&pairs);
        figures.extend([("fan_p99_us", p99(&fan, "delivery"))]);
        figures.extend([("connect_p99_us", p99(&churn, "connect"))]);
        if let (Some(first), Some(last)) = (first, last) {
            let share = (last.cpu_ns - first.cpu_ns) as f64 / (last.at_ns - first.at_ns) as f64;
            figures.extend([
                ("cpu_share", share),
                ("memory_mib", last.anonymous as f64 / 1_048_576.0),
                ("slope_kib_per_min", slope(&memory) * 60.0 / 1024.0),
            ]);
        }
        Ok(figures)
    }

    fn targets(&self) -> &'static [Target] {
        self.target
    }

    fn remarks(&self, scale: &Scale) -> Vec<String> {
        if scale.pick(self.seconds, 12) >= 600 {
            return Vec::new();
        }
        vec![
            "a slope over less than ten minutes shows how tables grow, not whether they leak"
                .into(),
        ]
    }

    fn on_request(&self) -> bool {
        self.seconds > 600
    }
}

/// Least squares: how much y grows for each x; NaN of fewer than two points.
fn slope(points: &[(f64, f64)]) -> f64 {
    let n = points.len() as f64;
    let mean = |f: fn(&(f64, f64)) -> f64| points.iter().map(f).sum::<f64>() / n;
    let (x, y) = (mean(|p| p.0), mean(|p| p.1));
    let (covariance, variance) = points
        .iter()
        .fold((0.0, 0.0), |(c, v), p| (c + (p.0 - x) * (p.1 - y), v + (p.0 - x) * (p.0 - x)));
    covariance / variance
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_slope_is_that_of_the_line_through_the_noise() {
        let points: Vec<(f64, f64)> =
            (0..100).map(|i| (f64::from(i), 5.0 + 3.0 * f64::from(i) + f64::from(i % 2))).collect();
        assert!((slope(&points) - 3.0).abs() < 0.01, "{}", slope(&points));
        assert!(slope(&[(1.0, 1.0)]).is_nan());
    }
}
