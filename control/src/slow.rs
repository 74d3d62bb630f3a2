//! Which messages were slow, and in which stage.

use std::cmp::Reverse;
use std::collections::HashMap;

use ringmain_shards::observe::{NodeView, Stage, Trace};

use crate::api;

/// Most messages, clients and topics that may be asked for.
pub const N_MAX: u64 = 1000;

/// From so many on, the random choice says by itself where the slowest in a thousand begin.
const MANY: usize = 1000;

/// The `n` slowest messages that the shards still know, the `n` slowest clients and topics, and how the time of
/// the usual message and of the slowest in a thousand splits.
///
/// What is usual is told by the random choice of messages, since the slowest are known much better than others;
/// only where there is no choice, by all.
#[must_use]
pub fn of(view: &NodeView, n: usize) -> api::Slow {
    let others: Vec<&Trace> = view.shards.iter().flat_map(|s| &s.others).collect();
    let all = known(view);
    let mut usual = if others.is_empty() { all.clone() } else { others };
    usual.sort_by_key(|t| t.total_ns());
    api::Slow {
        followed: all.len() as u64,
        slowest: all.iter().take(n).map(|t| trace(t)).collect(),
        p50: split(around_the_median(&usual)),
        p999: split(tail(&all, &usual)),
        clients: slowness(&all, |t| &t.subscriber, n),
        topics: slowness(&all, |t| &t.topic, n),
    }
}

/// All messages that shards still know, each once, slowest first.
fn known(view: &NodeView) -> Vec<&Trace> {
    let mut all: Vec<&Trace> =
        view.shards.iter().flat_map(|s| s.slowest.iter().chain(&s.others)).collect();
    // A slow message may have been chosen as well. What makes two messages one stands side by side then.
    all.sort_by(|a, b| {
        let key = |t: &Trace| (Reverse(t.total_ns()), t.read_unix_ms, t.from, t.to, t.spans_ns);
        key(a).cmp(&key(b)).then_with(|| {
            (&a.subscriber, &a.topic, &a.publisher).cmp(&(&b.subscriber, &b.topic, &b.publisher))
        })
    });
    all.dedup();
    all
}

/// Those between the 45th and the 55th percentile of sorted messages; at least one if there is any.
fn around_the_median<'a>(sorted: &'a [&'a Trace]) -> &'a [&'a Trace] {
    let n = sorted.len();
    let from = (n * 45 / 100).min(n.saturating_sub(1));
    &sorted[from..(n * 55).div_ceil(100).max(from + 1).min(n)]
}

/// The slowest in a thousand, at least one if there is any.
fn tail<'a>(slowest_first: &'a [&'a Trace], usual: &[&Trace]) -> &'a [&'a Trace] {
    let count = if usual.len() < MANY {
        slowest_first.len().div_ceil(MANY)
    } else {
        let limit_ns = usual[usual.len() * 999 / 1000].total_ns();
        slowest_first.partition_point(|t| t.total_ns() >= limit_ns)
    };
    &slowest_first[..count.min(slowest_first.len())]
}

fn split(messages: &[&Trace]) -> api::Split {
    let count = messages.len() as u64;
    // Means are of sums that fit: an hour at most each, of some thousand messages.
    let mean = |of: &dyn Fn(&Trace) -> u64| {
        messages.iter().map(|t| of(t)).fold(0, u64::saturating_add) / count.max(1)
    };
    let stages =
        Stage::ALL.iter().map(|s| (s.name().to_owned(), mean(&|t| t.spans_ns[*s as usize])));
    api::Split {
        count,
        total_ns: mean(&Trace::total_ns),
        stages_ns: stages.filter(|(_, ns)| *ns > 0).collect(),
    }
}

fn slowness<'a>(
    slowest_first: &[&'a Trace],
    name: impl Fn(&'a Trace) -> &'a str,
    n: usize,
) -> Vec<api::Slowness> {
    let mut at: HashMap<&str, usize> = HashMap::new();
    let mut found: Vec<api::Slowness> = Vec::new();
    for trace in slowest_first.iter().copied() {
        let ns = trace.total_ns();
        let index = *at.entry(name(trace)).or_insert_with(|| {
            // The first is the slowest: so they stand in order.
            found.push(api::Slowness {
                name: name(trace).to_owned(),
                max_ns: ns,
                slowest_stage: trace.slowest().name().to_owned(),
                ..api::Slowness::default()
            });
            found.len() - 1
        });
        let entry = &mut found[index];
        entry.count += 1;
        entry.mean_ns = entry.mean_ns.saturating_add(ns); // the sum, until the end
    }
    found.truncate(n);
    for entry in &mut found {
        entry.mean_ns /= entry.count;
    }
    found
}

fn trace(t: &Trace) -> api::Trace {
    let stages = Stage::ALL.iter().map(|s| (s.name().to_owned(), t.spans_ns[*s as usize]));
    api::Trace {
        read_unix_ms: t.read_unix_ms,
        publisher: t.publisher.to_string(),
        subscriber: t.subscriber.to_string(),
        topic: t.topic.to_string(),
        qos: t.qos,
        payload_bytes: t.payload_bytes,
        from_shard: t.from.0,
        to_shard: t.to.0,
        total_ns: t.total_ns(),
        stages_ns: stages.filter(|(_, ns)| *ns > 0).collect(),
        slowest_stage: t.slowest().name().to_owned(),
        send_unseen: t.send_unseen,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture::{followed, view};

    #[test]
    fn the_slowest_of_all_shards_come_first_and_no_more_than_asked() {
        let mut view = view(2);
        view.shards[0].slowest = vec![followed("a", "t", &[(Stage::Queue, 500)])];
        view.shards[1].slowest = vec![
            followed("b", "t", &[(Stage::Send, 900)]),
            followed("c", "t", &[(Stage::Send, 1)]),
        ];
        let slow = of(&view, 2);
        let names: Vec<&str> = slow.slowest.iter().map(|t| t.subscriber.as_str()).collect();
        assert_eq!(names, ["b", "a"]);
        assert_eq!(slow.followed, 3);
        assert_eq!(slow.slowest[1].slowest_stage, "queue");
        assert_eq!(slow.slowest[1].stages_ns.len(), 1, "stages not passed are left out");
    }

    #[test]
    fn a_message_that_is_slow_and_chosen_counts_once() {
        let mut view = view(1);
        let trace = followed("a", "t", &[(Stage::Queue, 500)]);
        view.shards[0].slowest = vec![trace.clone()];
        view.shards[0].others = vec![trace];
        let slow = of(&view, 10);
        assert_eq!((slow.followed, slow.slowest.len(), slow.clients[0].count), (1, 1, 1));
    }

    #[test]
    fn the_usual_message_is_told_by_the_random_choice_not_by_the_slowest() {
        let mut view = view(1);
        let slow = |n: u64| followed("slow", "t", &[(Stage::Queue, 1_000_000 + n)]);
        view.shards[0].slowest = (0..500).map(slow).collect();
        view.shards[0].others = (0..100)
            .map(|n| {
                followed("usual", "t", &[(Stage::Decode, 90 + n % 3), (Stage::Send, 1000 + n)])
            })
            .collect();
        let answer = of(&view, 1);
        assert_eq!(answer.p50.count, 10, "the 45th to the 55th percentile of a hundred");
        assert!(answer.p50.stages_ns["send"] > 1000 && answer.p50.stages_ns["send"] < 1100);
        assert!(!answer.p50.stages_ns.contains_key("queue"));
        assert_eq!(answer.p999.stages_ns.keys().collect::<Vec<_>>(), ["queue"]);
    }

    #[test]
    fn the_tail_is_the_slowest_in_a_thousand_and_at_least_one() {
        let mut view = view(1);
        let trace = |ns: u64| followed("a", "t", &[(Stage::Send, ns)]);
        view.shards[0].others = (1..=10).map(trace).collect();
        assert_eq!((of(&view, 1).p999.count, of(&view, 1).p999.total_ns), (1, 10));
        view.shards[0].others = (1..=4000).map(trace).collect();
        assert_eq!(of(&view, 1).p999.count, 4);
        // Messages that are slower than the random choice knows belong to the tail too.
        view.shards[0].slowest = (5000..5010).map(trace).collect();
        assert_eq!(of(&view, 1).p999.count, 14);
    }

    #[test]
    fn clients_and_topics_stand_by_their_slowest_message() {
        let mut view = view(1);
        view.shards[0].others = vec![
            followed("a", "x", &[(Stage::Send, 10)]),
            followed("a", "y", &[(Stage::Queue, 30)]),
            followed("b", "y", &[(Stage::Route, 20)]),
        ];
        let slow = of(&view, 10);
        let short = |s: &api::Slowness| (s.name.clone(), s.count, s.mean_ns, s.max_ns);
        let clients: Vec<_> = slow.clients.iter().map(short).collect();
        assert_eq!(clients, [("a".to_owned(), 2, 20, 30), ("b".to_owned(), 1, 20, 20)]);
        assert_eq!(slow.topics.iter().map(|t| t.name.as_str()).collect::<Vec<_>>(), ["y", "x"]);
        assert_eq!(slow.clients[0].slowest_stage, "queue");
    }

    #[test]
    fn a_node_that_followed_nothing_has_an_empty_answer() {
        let slow = of(&view(3), 10);
        assert_eq!((slow.followed, slow.p50.count, slow.p999.count), (0, 0, 0));
        assert!(slow.slowest.is_empty() && slow.clients.is_empty() && slow.topics.is_empty());
    }
}
