//! The turns of shards as a trace that Perfetto and Chrome show.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use ringmain_control::api::{Node, Turn, Turns};
use ringmain_control::client::Client;
use ringmain_shards::observe::{TURNS_MAX, TURNS_MS_MAX};
use serde::Serialize;
use serde_json::{Value, json};

/// What was recorded.
#[derive(Debug, Serialize)]
pub(super) struct Recorded {
    /// Where it is.
    pub file: PathBuf,
    /// For how long, ms.
    pub ms: u32,
    /// Turns.
    pub count: u64,
    /// What is missing, and why.
    #[serde(skip)]
    pub notes: Vec<String>,
}

/// Records the turns of the next `length` and writes them.
pub(super) fn record(
    client: &Client,
    node: &Node,
    length: Duration,
    file: &Path,
) -> Result<Recorded, String> {
    let mut notes = Vec::new();
    let ms = u32::try_from(length.as_millis()).unwrap_or(u32::MAX).min(TURNS_MS_MAX);
    if u128::from(ms) < length.as_millis() {
        notes.push(format!("turns are of the first {} s: more are not recorded", ms / 1000));
    }
    let answer: Turns = client
        .waiting(Duration::from_millis(u64::from(ms)))
        .get(&format!("/v1/turns?ms={ms}"))
        .map_err(|e| format!("turns were not recorded: {e}"))?;
    for shard in &node.shards {
        let of_it = answer.turns.iter().filter(|t| t.shard == shard.shard).count();
        if of_it >= TURNS_MAX {
            notes.push(format!(
                "shard {} made more than {TURNS_MAX} turns: only the first are in the trace",
                shard.shard
            ));
        }
    }
    let wrong = |e: io::Error| format!("cannot write {}: {e}", file.display());
    let mut out = BufWriter::new(File::create(file).map_err(wrong)?);
    write(&mut out, node, &answer.turns).and_then(|()| out.flush()).map_err(wrong)?;
    Ok(Recorded { file: file.to_owned(), ms, count: answer.turns.len() as u64, notes })
}

/// The trace: a process, a thread for each shard, and for each turn its parts and the system call that followed.
fn write(out: &mut impl Write, node: &Node, turns: &[Turn]) -> io::Result<()> {
    let pid = node.pid;
    let name = format!("ringmain {}", node.node);
    let named = |what: &str, shard: u16, name: &str| json!({ "ph": "M", "pid": pid, "tid": shard, "name": what, "args": { "name": name } });
    write!(
        out,
        "{{\"displayTimeUnit\":\"ns\",\"traceEvents\":[\n{}",
        named("process_name", 0, &name)
    )?;
    let mut shards: Vec<u16> = turns.iter().map(|t| t.shard).collect();
    shards.sort_unstable();
    shards.dedup();
    for shard in shards {
        write!(out, ",\n{}", named("thread_name", shard, &format!("shard {shard}")))?;
    }
    for turn in turns {
        for event in events(pid, turn) {
            write!(out, ",\n{event}")?;
        }
    }
    out.write_all(b"\n]}\n")
}

/// Parts of a turn are shown one after the other, though a heavy one takes some of them in pieces: what is known of
/// each is its sum.
fn events(pid: u32, turn: &Turn) -> Vec<Value> {
    let span = |name: &str, at_ns: u64, ns: u64, args: Value| {
        let (ts, dur) = (at_ns as f64 / 1000.0, ns as f64 / 1000.0);
        json!({ "ph": "X", "pid": pid, "tid": turn.shard, "name": name, "ts": ts, "dur": dur, "args": args })
    };
    let Turn { at_ns, inputs_ns, mail_ns, perform_ns, enter_ns, .. } = *turn;
    let length = inputs_ns + mail_ns + perform_ns;
    let counts =
        json!({ "completions": turn.completions, "mails": turn.mails, "sends": turn.sends });
    let mut events = vec![span("turn", at_ns, length, counts)];
    let mut at = at_ns;
    for (name, ns) in [("inputs", inputs_ns), ("mail", mail_ns), ("perform", perform_ns)] {
        if ns > 0 {
            events.push(span(name, at, ns, json!({})));
        }
        at += ns;
    }
    if enter_ns > 0 {
        let name = if turn.slept { "enter (may sleep)" } else { "enter" };
        events.push(span(name, at, enter_ns, json!({})));
    }
    events
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_trace_has_a_thread_for_each_shard_and_the_parts_within_their_turn() {
        let turn = Turn {
            shard: 1,
            at_ns: 10_500,
            inputs_ns: 2000,
            mail_ns: 0,
            perform_ns: 1000,
            enter_ns: 700,
            slept: true,
            completions: 3,
            mails: 0,
            sends: 2,
        };
        let node = Node { pid: 42, node: "n\"1".to_owned(), ..Node::default() };
        let mut out = Vec::new();
        write(&mut out, &node, &[turn, Turn { shard: 0, ..turn }]).unwrap();
        let trace: Value = serde_json::from_slice(&out).unwrap();
        let events = trace["traceEvents"].as_array().unwrap();
        let names: Vec<&str> = events.iter().map(|e| e["name"].as_str().unwrap()).collect();
        let of_turn = ["turn", "inputs", "perform", "enter (may sleep)"];
        assert_eq!(names[..3], ["process_name", "thread_name", "thread_name"]);
        assert_eq!(names[3..], [of_turn, of_turn].concat());
        assert_eq!(events[0]["args"]["name"], "ringmain n\"1");
        assert_eq!(events[3]["args"], json!({ "completions": 3, "mails": 0, "sends": 2 }));
        let span = |e: &Value| (e["ts"].as_f64().unwrap(), e["dur"].as_f64().unwrap());
        assert_eq!(
            [3, 4, 5, 6].map(|e: usize| span(&events[e])),
            [(10.5, 3.0), (10.5, 2.0), (12.5, 1.0), (13.5, 0.7)]
        );
    }

    #[test]
    fn a_trace_without_turns_is_still_one() {
        let mut out = Vec::new();
        write(&mut out, &Node::default(), &[]).unwrap();
        let trace: Value = serde_json::from_slice(&out).unwrap();
        assert_eq!(trace["traceEvents"].as_array().unwrap().len(), 1);
    }
}
