//! `ringmain profile`: where a running broker spends its time.

mod broker;
mod folded;
mod perf;
mod turns;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, ValueEnum};
use ringmain_control::api::Node;
use ringmain_control::client::Client;
use serde::Serialize;

use super::{fail, say, say_json};
use folded::{Drawing, Folded};

/// Longest profile, seconds: samples of all shards must fit in memory.
const SECONDS_MAX: u64 = 600;
/// Most samples a second: above, sampling is most of what is sampled.
const HZ_MAX: u64 = 10_000;

/// Options of `ringmain profile`.
#[derive(Debug, Args)]
pub(crate) struct Profile {
    /// For how long
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=SECONDS_MAX))]
    seconds: u64,
    /// Samples in a second of CPU time
    #[arg(long, value_name = "HZ", default_value_t = 499, value_parser = clap::value_parser!(u64).range(1..=HZ_MAX))]
    hz: u64,
    /// Write the flame graph here (SVG)
    #[arg(long, value_name = "FILE", default_value = "ringmain-profile.svg")]
    output: PathBuf,
    /// Write the stacks also as text here: frames separated by semicolons, a blank, a number
    #[arg(long, value_name = "FILE")]
    folded: Option<PathBuf>,
    /// Show where threads wait instead of where they work; needs perf and root
    #[arg(long)]
    off_cpu: bool,
    /// Who takes samples: perf sees the kernel too, the broker needs nothing installed
    #[arg(long, value_name = "WHO", value_enum, default_value_t = Source::Auto, conflicts_with = "off_cpu")]
    source: Source,
    /// Record the turns of shards meanwhile and write them here, for ui.perfetto.dev or chrome://tracing
    #[arg(long, value_name = "FILE")]
    turns: Option<PathBuf>,
    /// Print JSON about what was written
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Source {
    /// perf if it can, else the broker
    Auto,
    /// perf record
    Perf,
    /// The broker itself
    Broker,
}

/// What was written.
#[derive(Debug, Default, Serialize)]
struct Written {
    /// Who took the samples.
    source: &'static str,
    /// The flame graph.
    output: PathBuf,
    /// The stacks as text.
    folded: Option<PathBuf>,
    /// The turns.
    turns: Option<turns::Recorded>,
    /// Samples on a CPU, or µs off it.
    total: u64,
    /// Part of `total` by thread, most first.
    threads: Vec<(String, u64)>,
    /// What could not be done, and why.
    notes: Vec<String>,
}

/// Runs it.
pub(crate) fn run(client: &Client, options: &Profile) -> ExitCode {
    match profile(client, options) {
        Ok(written) => {
            written.notes.iter().for_each(|note| eprintln!("profile: {note}"));
            if options.json {
                say_json(&written);
            } else {
                say(&text(&written, options.off_cpu));
            }
            ExitCode::SUCCESS
        }
        Err(why) => fail("profile", why),
    }
}

fn profile(client: &Client, options: &Profile) -> Result<Written, String> {
    // Also shows, before anything is waited for, that there is a broker.
    let node: Node = client.get("/v1/node").map_err(|e| e.to_string())?;
    let length = Duration::from_secs(options.seconds);
    std::thread::scope(|scope| {
        let turns = options.turns.as_deref().map(|file| {
            let node = &node;
            scope.spawn(move || turns::record(client, node, length, file))
        });
        let sampled = sample(client, options, node.pid);
        let turns = turns.map(|thread| thread.join().expect("recording does not panic"));
        let mut written = sampled?;
        match turns.transpose() {
            Ok(recorded) => {
                written.notes.extend(recorded.iter().flat_map(|r| r.notes.clone()));
                written.turns = recorded;
                Ok(written)
            }
            // What was paid for stays.
            Err(why) => Err(format!("{why} (the flame graph is in {})", written.output.display())),
        }
    })
}

fn sample(client: &Client, o: &Profile, pid: u32) -> Result<Written, String> {
    let mut notes = Vec::new();
    let (source, folded) = stacks(client, o, pid, &mut notes)?;
    let idle = "no samples: the broker used no CPU in that time";
    if folded.is_empty() && o.off_cpu {
        return Err("no thread of the broker was switched off its CPU in that time".to_owned());
    }
    if folded.is_empty() {
        notes.push(idle.to_owned());
    }
    let what = if o.off_cpu { "off CPU" } else { "on CPU" };
    let drawing = Drawing {
        title: format!("ringmain {pid}: {what}, {} s", o.seconds),
        subtitle: if o.off_cpu {
            "waiting, and [runnable] without a CPU".to_owned()
        } else {
            format!("{} Hz of CPU time, by {source}", o.hz)
        },
        unit: if o.off_cpu { "µs" } else { "samples" },
        off_cpu: o.off_cpu,
    };
    if !folded.is_empty() {
        write(&o.output, &folded.svg(&drawing)?)?;
    }
    if let Some(file) = &o.folded {
        write(file, folded.to_text().as_bytes())?;
    }
    Ok(Written {
        source,
        output: o.output.clone(),
        folded: o.folded.clone(),
        turns: None,
        total: folded.total(),
        threads: folded.threads(),
        notes,
    })
}

/// The stacks, and who took them. What was tried in vain is noted.
fn stacks(
    client: &Client,
    o: &Profile,
    pid: u32,
    notes: &mut Vec<String>,
) -> Result<(&'static str, Folded), String> {
    if o.off_cpu {
        return Ok(("perf", perf::off_cpu(pid, o.seconds, notes)?));
    }
    if o.source != Source::Broker {
        match perf::on_cpu(pid, o.seconds, o.hz, notes) {
            Ok(folded) => return Ok(("perf", folded)),
            Err(why) if o.source == Source::Perf => return Err(why),
            Err(why) => notes.push(format!(
                "{why}; the broker took the samples itself, which does not show what the kernel does for it"
            )),
        }
    }
    Ok(("the broker", broker::on_cpu(client, o.seconds, o.hz, notes)?))
}

fn write(file: &Path, content: &[u8]) -> Result<(), String> {
    std::fs::write(file, content).map_err(|e| format!("cannot write {}: {e}", file.display()))
}

fn text(w: &Written, off_cpu: bool) -> String {
    let mut out = String::new();
    if w.total > 0 {
        let unit = if off_cpu { "µs off CPU" } else { "samples" };
        let total = super::format::grouped(w.total);
        out += &format!("{}: {total} {unit}, taken by {}\n", w.output.display(), w.source);
        for (thread, n) in w.threads.iter().take(16) {
            let share = super::format::percent(*n as f64 / w.total as f64);
            out += &format!("  {share:>6}  {}\n", super::format::name(thread, 32));
        }
    }
    if let Some(file) = &w.folded {
        out += &format!("{}: the same stacks as text\n", file.display());
    }
    if let Some(turns) = &w.turns {
        let count = super::format::grouped(turns.count);
        out += &format!(
            "{}: {count} turns of {} ms; open it in ui.perfetto.dev\n",
            turns.file.display(),
            turns.ms
        );
    }
    out
}
