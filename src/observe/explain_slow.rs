//! `ringmain explain-slow`: where the time of the slowest messages went.

use std::process::ExitCode;

use clap::Args;
use ringmain_control::api::{Slow, Slowness, Split, Trace};
use ringmain_control::client::Client;
use ringmain_control::slow::N_MAX;
use ringmain_shards::observe::Stage;
use serde::Serialize;

use super::{advice, fail, format, say, say_json};

/// Characters of client ids and topics that are shown.
const NAME_MAX: usize = 48;
/// Stages of a message with less than this part of its time are not shown.
const SHARE_MIN: f64 = 0.01;

/// Options of `ringmain explain-slow`.
#[derive(Debug, Args)]
pub(crate) struct ExplainSlow {
    /// How many of the slowest messages, clients and topics to show
    #[arg(short, value_name = "N", default_value_t = 10,
          value_parser = clap::value_parser!(u64).range(1..=N_MAX))]
    n: u64,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// What the tail is made of, in words.
#[derive(Debug, Serialize)]
struct Verdict {
    /// The stage that most of it is in.
    stage: String,
    /// How much, 0 to 1.
    share: f64,
    /// In a sentence.
    says: String,
    /// What to look at next.
    next: &'static str,
}

/// The JSON: what the broker answered, and what it means. No verdict where nothing was followed.
#[derive(Debug, Serialize)]
struct Explained<'a> {
    verdict: Option<&'a Verdict>,
    #[serde(flatten)]
    slow: &'a Slow,
}

/// Runs it.
pub(crate) fn run(client: &Client, options: &ExplainSlow) -> ExitCode {
    let slow: Slow = match client.get(&format!("/v1/slow?n={}", options.n)) {
        Ok(slow) => slow,
        Err(why) => return fail("explain-slow", why),
    };
    let verdict = verdict(&slow);
    if options.json {
        say_json(&Explained { verdict: verdict.as_ref(), slow: &slow });
    } else {
        say(&text(&slow, verdict.as_ref()));
    }
    ExitCode::SUCCESS
}

fn verdict(slow: &Slow) -> Option<Verdict> {
    let tail = &slow.p999;
    let (stage, ns) = tail.stages_ns.iter().max_by_key(|(_, ns)| **ns)?;
    let share = share(*ns, tail.total_ns);
    let says = format!(
        "p99.9 is {}, {} of it in `{stage}`: {}",
        format::ns(tail.total_ns),
        format::percent(share),
        advice::says(stage)
    );
    Some(Verdict { stage: stage.clone(), share, says, next: advice::next(stage) })
}

fn share(part: u64, whole: u64) -> f64 {
    if whole == 0 { 0.0 } else { part as f64 / whole as f64 }
}

fn text(slow: &Slow, verdict: Option<&Verdict>) -> String {
    let Some(verdict) = verdict else {
        return "no message was followed in the last ten minutes: none was delivered, or observe.enabled is false\n"
            .to_owned();
    };
    let mut out = format!("{}\n{}\n\n", verdict.says, verdict.next);
    out += &splits(&slow.p50, &slow.p999);
    out += &format!(
        "\nThe slowest of {} messages that were followed in the last ten minutes:\n\n",
        format::grouped(slow.followed)
    );
    slow.slowest.iter().enumerate().for_each(|(ix, trace)| out += &message(ix + 1, trace));
    out += &slownesses("client", &slow.clients);
    out += &slownesses("topic", &slow.topics);
    out
}

/// The usual message beside the slow one, stage by stage.
fn splits(p50: &Split, p999: &Split) -> String {
    let row = |name: &str, usual: u64, slow: u64| {
        let cell = |ns, of: &Split| match ns {
            0 => ["-".to_owned(), String::new()],
            ns => [format::ns(ns), format::percent(share(ns, of.total_ns))],
        };
        let cells = [cell(usual, p50), cell(slow, p999)].concat();
        [vec![name.to_owned()], cells].concat()
    };
    let mut rows = vec![["stage", "p50", "", "p99.9", ""].map(str::to_owned).to_vec()];
    for name in stages(&[p50, p999]) {
        let of = |split: &Split| split.stages_ns.get(&name).copied().unwrap_or(0);
        rows.push(row(&name, of(p50), of(p999)));
    }
    rows.push(row("total", p50.total_ns, p999.total_ns));
    let count = |split: &Split| format::grouped(split.count);
    rows.push(vec!["messages".to_owned(), count(p50), String::new(), count(p999)]);
    format::table(&rows)
}

/// Names of stages that occur, in the order of a message's way; those that are not known here at the end.
fn stages(splits: &[&Split]) -> Vec<String> {
    let occurs = |name: &str| splits.iter().any(|s| s.stages_ns.contains_key(name));
    let known = Stage::ALL.iter().map(|s| s.name()).filter(|name| occurs(name)).map(str::to_owned);
    let mut names: Vec<String> = known.collect();
    for name in splits.iter().flat_map(|s| s.stages_ns.keys()) {
        if !names.contains(name) {
            names.push(name.clone());
        }
    }
    names
}

fn message(nth: usize, t: &Trace) -> String {
    let from = if t.publisher.is_empty() {
        "a publisher that a queued message does not name".to_owned()
    } else {
        format::name(&t.publisher, NAME_MAX)
    };
    let shards = if t.from_shard == t.to_shard {
        format!("shard {}", t.to_shard)
    } else {
        format!("shard {} → {}", t.from_shard, t.to_shard)
    };
    let mut parts: Vec<(&String, &u64)> = t.stages_ns.iter().collect();
    parts.sort_by_key(|(_, ns)| std::cmp::Reverse(**ns));
    let parts: Vec<String> = parts
        .into_iter()
        .filter(|(_, ns)| share(**ns, t.total_ns) >= SHARE_MIN)
        .map(|(name, ns)| format!("{name} {}", format::ns(*ns)))
        .collect();
    let unseen = if t.send_unseen { "; the end of its send was not seen" } else { "" };
    format!(
        "{nth:3}. {}  to {}  topic {}  QoS {}, {}, {shards}, read {} UTC, from {from}\n     {}{unseen}\n",
        format::ns(t.total_ns),
        format::name(&t.subscriber, NAME_MAX),
        format::name(&t.topic, NAME_MAX),
        t.qos,
        format::bytes(u64::from(t.payload_bytes)),
        format::clock(t.read_unix_ms),
        parts.join(", "),
    )
}

fn slownesses(what: &str, list: &[Slowness]) -> String {
    let head = [what, "slowest", "mean", "followed", "mostly in"].map(str::to_owned).to_vec();
    let row = |s: &Slowness| {
        vec![
            format::name(&s.name, NAME_MAX),
            format::ns(s.max_ns),
            format::ns(s.mean_ns),
            format::grouped(s.count),
            s.slowest_stage.clone(),
        ]
    };
    let rows: Vec<Vec<String>> = std::iter::once(head).chain(list.iter().map(row)).collect();
    format!("\n{}", format::table(&rows))
}

#[cfg(test)]
mod tests {
    use super::*;
    use ringmain_control::api::Numbers;

    fn numbers(pairs: &[(&str, u64)]) -> Numbers {
        pairs.iter().map(|(name, n)| ((*name).to_owned(), *n)).collect()
    }

    fn slow() -> Slow {
        let stages = numbers(&[("queue", 11_562_000), ("send", 700_000), ("decode", 38_000)]);
        let slowness = Slowness {
            name: "till\x1b7".to_owned(),
            count: 12,
            mean_ns: 9_000_000,
            max_ns: 12_300_000,
            slowest_stage: "queue".to_owned(),
        };
        Slow {
            followed: 1234,
            slowest: vec![Trace {
                subscriber: "till-7".to_owned(),
                topic: "shop/7".to_owned(),
                qos: 1,
                payload_bytes: 100,
                from_shard: 0,
                to_shard: 1,
                total_ns: 12_300_000,
                stages_ns: stages.clone(),
                slowest_stage: "queue".to_owned(),
                ..Trace::default()
            }],
            p50: Split {
                count: 120,
                total_ns: 50_000,
                stages_ns: numbers(&[("send", 40_000), ("route", 10_000)]),
            },
            p999: Split { count: 1, total_ns: 12_300_000, stages_ns: stages },
            clients: vec![slowness],
            topics: Vec::new(),
        }
    }

    #[test]
    fn the_first_line_says_how_slow_the_tail_is_and_in_which_stage() {
        let slow = slow();
        let text = text(&slow, verdict(&slow).as_ref());
        let mut lines = text.lines();
        let first = "p99.9 is 12.3 ms, 94 % of it in `queue`: in the queue of its session";
        assert_eq!(lines.next(), Some(first), "{text}");
        assert_eq!(lines.next(), Some(advice::next("queue")));
    }

    #[test]
    fn the_usual_message_stands_beside_the_slow_one_in_the_order_of_its_way() {
        let slow = slow();
        let table = splits(&slow.p50, &slow.p999);
        let names: Vec<&str> = table.lines().filter_map(|l| l.split_whitespace().next()).collect();
        assert_eq!(names, ["stage", "decode", "route", "queue", "send", "total", "messages"]);
        let send: Vec<&str> = table.lines().nth(4).unwrap().split_whitespace().collect();
        assert_eq!(send, ["send", "40.0", "µs", "80", "%", "700", "µs", "5.7", "%"], "{table}");
    }

    #[test]
    fn a_message_is_told_with_client_topic_shards_and_what_took_long_first() {
        let text = message(1, &slow().slowest[0]);
        assert!(
            text.starts_with("  1. 12.3 ms  to till-7  topic shop/7  QoS 1, 100 B, shard 0 → 1"),
            "{text}"
        );
        assert!(text.contains("does not name"), "{text}");
        assert!(
            text.contains("queue 11.6 ms, send 700 µs\n"),
            "less than a hundredth is left out: {text}"
        );
    }

    #[test]
    fn names_of_clients_cannot_disturb_the_terminal() {
        let slow = slow();
        assert!(!text(&slow, verdict(&slow).as_ref()).contains('\x1b'));
    }

    #[test]
    fn nothing_followed_is_said_so_and_has_no_verdict() {
        let slow = Slow::default();
        assert!(verdict(&slow).is_none());
        assert!(text(&slow, None).starts_with("no message was followed"));
    }

    #[test]
    fn the_json_is_the_answer_with_the_verdict() {
        let slow = slow();
        let verdict = verdict(&slow);
        let json =
            serde_json::to_value(Explained { verdict: verdict.as_ref(), slow: &slow }).unwrap();
        assert_eq!(json["verdict"]["stage"], "queue");
        assert_eq!(json["slowest"][0]["subscriber"], "till-7");
        assert!((json["verdict"]["share"].as_f64().unwrap() - 0.94).abs() < 0.001);
    }
}
