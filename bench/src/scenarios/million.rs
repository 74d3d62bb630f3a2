//! `conn-1M`: a million connections with a subscription each, by `ringmain-load million`.

use std::io;
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::admin;
use crate::child::{self, Scratch};
use crate::scenario::{
    Against, Case, Cx, Failure, FigureKind, Figures, Scale, Scenario, Target, fails, less, more,
    target,
};

pub(crate) struct Million;

/// It ends by itself: connect, hold, a message to each, pairs, storm.
const PATIENCE: Duration = Duration::from_secs(3600);
/// All are connected by then.
const CONNECT_MAX: Duration = Duration::from_secs(600);
/// Prometheus asks every fifteen seconds by default; here it is once in so long.
const SCRAPE_EVERY: Duration = Duration::from_secs(1);

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
                less("scrape_max_ms", "longest scrape, ms", 1),
                less("turn_us", "longest turn, µs", 0),
                less("alone_turn_us", "not scraped", 0),
            ]
        }
    }

    fn cases(&self, scale: &Scale) -> Vec<Case> {
        let count = scale.pick(1_000_000, 20_000);
        vec![Case::of(format!("{count} connections"), count)]
    }

    /// The command starts the broker itself, and its targets are its own; here they are told again
    /// beside those of the other scenarios.
    fn measure(&self, cx: &Cx<'_>, case: &Case) -> Result<Figures, Failure> {
        let scratch = Scratch::new("million")?;
        let json = scratch.0.join("report.json");
        let hold = cx.scale.pick(600, 8);
        let mut command = Command::new(&cx.programs.load);
        command
            .args(["million", "--count", &case.count.to_string(), "--port", &cx.port.to_string()])
            .args(netns())
            .args(["--hold", &hold.to_string(), "--duration", cx.scale.pick("30", "3")])
            .args(["--set", &format!("node.data_dir={}", scratch.0.display())])
            .arg("--broker")
            .arg(&cx.programs.ringmain)
            .args(["--quiet", "--json"])
            .arg(&json)
            .stdin(Stdio::null())
            .stdout(std::fs::File::create(scratch.0.join("out"))?)
            .stderr(std::fs::File::create(scratch.0.join("err"))?);
        let mut child = child::spawn(&mut command)?;
        let socket = scratch.0.join("admin.sock");
        let (count, watched) = (case.count, Duration::from_secs(hold - 3));
        let watcher = std::thread::spawn(move || watch(&socket, count, watched));
        if !child::ended_within(&mut child, PATIENCE) {
            child::end(&mut child, Duration::from_secs(60));
            return fails(format!("not done after {} s", PATIENCE.as_secs()));
        }
        let Ok(report) = std::fs::read(&json) else {
            let said = std::fs::read_to_string(scratch.0.join("err")).unwrap_or_default();
            return Err(Failure::Bench(io::Error::other(said.trim().to_owned())));
        };
        let report: Value = serde_json::from_slice(&report).map_err(io::Error::from)?;
        let mut figures = read(&report)?;
        match watcher.join().expect("it does not panic") {
            Ok(seen) => figures.extend(seen),
            Err(e) => return fails(format!("its admin socket: {e}")),
        }
        Ok(figures)
    }

    fn targets(&self) -> &'static [Target] {
        const {
            &[
                target("1000000", "connect_s", Against::AtMost(60.0)),
                target("1000000", "user_gb", Against::AtMost(0.4)),
                target("1000000", "keepalive_share", Against::AtMost(0.02)),
                target("1000000", "storm_s", Against::AtMost(120.0)),
                target("1000000", "scrape_max_ms", Against::AtMost(50.0)), // O01
            ]
        }
    }

    fn remarks(&self, _: &Scale) -> Vec<String> {
        let how = match netns() {
            Some(_) => {
                "in a network namespace whose table of connections has room for them (--netns)"
            }
            None => "not as root: in the host's table of connections, whose chains may be long",
        };
        vec![how.to_owned()]
    }

    fn on_request(&self) -> bool {
        true
    }

    fn peers_take_part(&self) -> bool {
        false
    }
}

/// The longest turns while nothing but keep-alives goes on: in the first half of the time nobody asks, in the second
/// it is scraped.
fn watch(socket: &Path, connections: u32, time: Duration) -> io::Result<Figures> {
    admin::wait_for(socket, connections, CONNECT_MAX)?;
    let end = Instant::now() + time;
    sleep(SCRAPE_EVERY);
    admin::longest_turn_us(socket)?;
    sleep(time / 2 - SCRAPE_EVERY);
    let alone = admin::longest_turn_us(socket)?;
    let mut scrapes = admin::Scrapes::default();
    while Instant::now() < end {
        scrapes.scrape(socket)?;
        sleep(SCRAPE_EVERY);
    }
    let turn_us = admin::longest_turn_us(socket)?;
    Ok(Figures::from([
        ("scrape_max_ms", scrapes.longest_ms),
        ("turn_us", turn_us),
        ("alone_turn_us", alone),
    ]))
}

/// What the kernel gives to root alone: a table of connections as a host has that was booted for a million.
fn netns() -> Option<&'static str> {
    // SAFETY: has no arguments.
    (unsafe { libc::geteuid() } == 0).then_some("--netns")
}

/// The figures in the report of the command.
fn read(report: &Value) -> Result<Figures, Failure> {
    let run = &report["run"];
    let problems = run["problems"].as_array().map_or(&[][..], Vec::as_slice);
    if !problems.is_empty() {
        let words: Vec<&str> = problems.iter().filter_map(Value::as_str).collect();
        return fails(words.join("; "));
    }
    let stages = run["stages"].as_array().map_or(&[][..], Vec::as_slice);
    let stage = |name: &str| stages.iter().find(|s| s["name"] == name).unwrap_or(&Value::Null);
    let number = |v: &Value| v.as_f64().unwrap_or(f64::NAN);
    let hold = stage("keep alive");
    let cpu = |moment: &str| number(&hold[moment]["cpu_ns"]);
    let keep_alive_s = (cpu("broker_after") - cpu("broker_before")) / 1e9;
    Ok(Figures::from([
        ("connections", number(&report["count"])),
        ("connect_s", number(&run["connect_s"])),
        ("user_gb", number(&stage("connect")["broker_after"]["anonymous"]) / 1e9),
        ("keepalive_share", keep_alive_s / number(&hold["seconds"])),
        ("storm_s", number(&stage("storm")["recovery_s"])),
    ]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_of_a_million_is_read() {
        let report = serde_json::json!({"count": 1000, "run": {
            "connect_s": 2.0, "problems": [],
            "stages": [
                {"name": "connect", "broker_after": {"anonymous": 300_000_000}},
                {"name": "keep alive", "seconds": 10.0,
                 "broker_before": {"cpu_ns": 5}, "broker_after": {"cpu_ns": 100_000_005}},
                {"name": "storm", "recovery_s": 7.0},
            ]
        }});
        let Ok(figures) = read(&report) else { panic!("a clean report") };
        assert_eq!(figures["user_gb"], 0.3);
        assert_eq!(figures["keepalive_share"], 0.01);
        assert_eq!(figures["storm_s"], 7.0);
        let lossy = serde_json::json!({"run": {"problems": ["3 messages lost"]}});
        assert!(matches!(read(&lossy), Err(Failure::Contender(why)) if why == "3 messages lost"));
    }
}
