//! Claims about the subscription index.

use super::*;
use crate::engine::route::tests::{match_pairs, naive_matches, random_filter, random_topic, seed};
use std::collections::HashMap as Map;

fn opts(qos: u8) -> SubOpts {
    SubOpts::new(qos, false, false, 0)
}

fn matched(index: &SubIndex, topic: &str) -> Vec<String> {
    let mut out = Vec::new();
    index.matches(topic, &mut out);
    let mut texts: Vec<String> = out.iter().map(|f| index.filter_str(*f).to_owned()).collect();
    texts.sort();
    texts
}

#[test]
fn options_survive_packing() {
    for (qos, nl, rap, rh) in [(0, false, true, 2), (1, true, false, 1), (2, true, true, 0)] {
        let o = SubOpts::from_bits(SubOpts::new(qos, nl, rap, rh).bits());
        let got = (o.qos_level(), o.no_local(), o.retain_as_published(), o.retain_handling());
        assert_eq!(got, (qos, nl, rap, rh));
    }
}

// S-40, S-48: resubscribing replaces, and tells what it replaced.
#[test]
fn a_second_subscription_of_a_session_to_a_filter_replaces_the_first() {
    let mut index = SubIndex::new(1);
    let first = index.subscribe("a/+", 7, opts(1), 5);
    assert_eq!((first.replaced, first.first_of_filter), (None, true));
    let again = index.subscribe("a/+", 7, opts(2), 0);
    assert_eq!(
        again,
        Subscribed { filter: first.filter, replaced: Some(opts(1)), first_of_filter: false }
    );
    let other = index.subscribe("a/+", 8, opts(0), 9);
    assert_eq!((other.replaced, other.first_of_filter), (None, false));
    assert_eq!((index.filters(), index.subscriptions()), (1, 2));
    assert_eq!(index.get(first.filter, 7).unwrap().subscription_id, 0);
    assert_eq!(
        index.unsubscribe(first.filter, 7),
        Some(Unsubscribed { opts: opts(2), last_of_filter: false })
    );
    assert_eq!(index.unsubscribe(first.filter, 7), None);
    assert_eq!(
        index.unsubscribe(first.filter, 8),
        Some(Unsubscribed { opts: opts(0), last_of_filter: true })
    );
    assert_eq!((index.filters(), index.subscriptions(), index.find("a/+")), (0, 0, None));
    assert_eq!(
        (index.unsubscribe(first.filter, 8), index.subscribers(first.filter).len()),
        (None, 0)
    );
}

#[test]
fn the_estimate_of_memory_is_near_what_counting_says() {
    for (filters, each) in [(50_000, 1), (10_000, 2), (2_000, 20), (10, 10_000)] {
        let mut index = SubIndex::new(1);
        for f in 0..filters {
            for session in 0..each {
                index.subscribe(&format!("site/{f}/temperature"), session, opts(0), 0);
            }
        }
        let (counted, estimated) = (index.bytes(), index.estimated_bytes());
        let off = counted.abs_diff(estimated) * 100 / counted;
        assert!(off <= 35, "{filters} filters of {each}: {counted} counted, {estimated} estimated");
    }
}

#[test]
fn a_filter_of_many_subscribers_gives_back_any_of_them() {
    let mut index = SubIndex::new(2);
    let mut rng = fastrand::Rng::with_seed(seed());
    let n = 100_000u32;
    let id = index.subscribe("a", 0, opts(0), 1).filter;
    for s in 1..n {
        index.subscribe("a", s, opts((s % 3) as u8), s + 1);
    }
    assert_eq!(index.subscribers(id).len(), n as usize);
    println!("{} bytes per subscriber", index.bytes() / n as usize);
    let mut order: Vec<u32> = (0..n).collect();
    rng.shuffle(&mut order);
    for (i, s) in order.iter().enumerate() {
        assert_eq!(index.get(id, *s).unwrap().subscription_id, s + 1);
        let gone = index.unsubscribe(id, *s).unwrap();
        assert_eq!(
            gone,
            Unsubscribed { opts: opts((s % 3) as u8), last_of_filter: i + 1 == order.len() }
        );
        assert_eq!(index.get(id, *s), None);
        assert_eq!(index.subscribers(id).len(), order.len() - i - 1);
    }
    assert!(index.bytes() < 1 << 20, "{} bytes kept", index.bytes());
}

// P12: an own filter of 20 bytes costs at most 80 bytes all in.
#[test]
fn an_own_filter_of_twenty_bytes_costs_at_most_eighty() {
    for n in [100_000u32, 115_000, 200_000, 1_000_000] {
        let mut index = SubIndex::new(3);
        for s in 0..n {
            index.subscribe(&format!("devices/{s:07}/down"), s, opts(1), 0);
        }
        let each = index.bytes() as f64 / f64::from(n);
        println!("{n} filters: {each:.1} bytes each");
        assert!(each <= 80.0, "{each} bytes each of {n}");
    }
}

// S-50, S-51, S-54. Also `RINGMAIN_MATCH_PAIRS=10000000 cargo test --release matches_what`.
#[test]
fn under_churn_it_matches_what_a_naive_matcher_matches() {
    let mut rng = fastrand::Rng::with_seed(seed());
    let mut pairs = 0;
    while pairs < match_pairs() {
        let mut index = SubIndex::new(rng.u64(..));
        let levels = *rng.choice(&[2usize, 5, 9, 60]).unwrap();
        let mut model: Map<String, Map<u32, u8>> = Map::new();
        for _ in 0..100 {
            for _ in 0..10 {
                let filter = random_filter(&mut rng, levels);
                let (session, qos) = (rng.u32(..4), rng.u8(..3));
                let old = model.get(&filter).and_then(|m| m.get(&session)).copied();
                if rng.bool() {
                    let got = index.subscribe(&filter, session, opts(qos), 0);
                    assert_eq!(got.replaced.map(SubOpts::qos_level), old);
                    assert_eq!(got.first_of_filter, !model.contains_key(&filter));
                    model.entry(filter).or_default().insert(session, qos);
                } else {
                    let got = index.find(&filter).and_then(|f| index.unsubscribe(f, session));
                    assert_eq!(got.map(|u| u.opts.qos_level()), old);
                    if let Some(m) = model.get_mut(&filter) {
                        m.remove(&session);
                        assert_eq!(got.is_some_and(|u| u.last_of_filter), m.is_empty());
                        if m.is_empty() {
                            model.remove(&filter);
                        }
                    }
                }
            }
            let topic = random_topic(&mut rng, levels);
            let mut want: Vec<String> =
                model.keys().filter(|f| naive_matches(f, &topic)).cloned().collect();
            want.sort();
            assert_eq!(matched(&index, &topic), want, "{topic}");
            pairs += model.len() as u64;
            assert_eq!(index.filters(), model.len());
            assert_eq!(index.subscriptions(), model.values().map(Map::len).sum::<usize>());
        }
        for (filter, sessions) in &model {
            let id = index.find(filter).unwrap();
            assert_eq!(index.filter_str(id), filter);
            let mut got: Vec<u32> = index.subscribers(id).map(|s| s.session).collect();
            let mut want: Vec<u32> = sessions.keys().copied().collect();
            got.sort_unstable();
            want.sort_unstable();
            assert_eq!(got, want);
            for s in want {
                index.unsubscribe(id, s).unwrap();
            }
        }
        assert!(index.trie.is_empty() && index.filters() == 0, "left over");
    }
}

#[test]
fn thousands_of_shapes_are_matched_exactly() {
    let mut index = SubIndex::new(4);
    let filters: Vec<String> = (0..4096u32)
        .map(|m| {
            (0..12).map(|i| if m >> i & 1 == 1 { "+" } else { "x" }).collect::<Vec<_>>().join("/")
        })
        .collect();
    for (i, f) in filters.iter().enumerate() {
        index.subscribe(f, i as u32, opts(0), 0);
    }
    assert_eq!(matched(&index, &["x"; 12].join("/")).len(), 4096);
    for f in filters.iter().step_by(61) {
        let topic = f.replace('+', "y");
        let want = filters.iter().filter(|g| naive_matches(g, &topic)).count();
        assert_eq!(matched(&index, &topic).len(), want);
    }
}

// Whatever the order in which shapes grow beyond what stays in the trie, and shrink.
#[test]
fn filters_are_found_while_their_shapes_move_between_trie_and_hash() {
    let mut rng = fastrand::Rng::with_seed(seed());
    let mut index = SubIndex::new(rng.u64(..));
    let shapes = ["+/{}/c", "a/+/{}", "+/+/{}", "a/{}/#", "{}/#", "+/{}/#", "a/+/+/{}"];
    let filter = |shape: usize, n: usize| shapes[shape].replace("{}", &format!("n{n}"));
    let mut live = std::collections::BTreeSet::new();
    let mut in_trie = [false; 2];
    for step in 0..4_000 {
        let (shape, n) = (rng.usize(..shapes.len()), rng.usize(..40));
        let text = filter(shape, n);
        // Many come for a while, then many go.
        if rng.u8(..4) > 0 && step % 1_000 < 500 {
            assert_eq!(index.subscribe(&text, 1, opts(0), 0).first_of_filter, live.insert(text));
        } else if let Some(id) = index.find(&text) {
            assert!(index.unsubscribe(id, 1).unwrap().last_of_filter && live.remove(&text));
        }
        in_trie[usize::from(index.trie.is_empty())] = true;
        let n = rng.usize(..40);
        let topic = *rng.choice(&["a/n{}/c", "a/x/n{}", "n{}/b", "q/n{}/r", "a/x/y/n{}"]).unwrap();
        let topic = topic.replace("{}", &n.to_string());
        let want: Vec<String> = live.iter().filter(|f| naive_matches(f, &topic)).cloned().collect();
        assert_eq!(matched(&index, &topic), want, "{topic}");
    }
    assert_eq!(in_trie, [true; 2], "filters were in the trie, and all of them out of it");
    for f in &live {
        index.unsubscribe(index.find(f).unwrap(), 1).unwrap();
    }
    assert!(index.trie.is_empty() && index.filters() == 0, "left over");
}

#[test]
fn the_direct_matcher_agrees_with_the_naive_one() {
    let mut rng = fastrand::Rng::with_seed(seed());
    for _ in 0..match_pairs() {
        let (f, t) = (random_filter(&mut rng, 5), random_topic(&mut rng, 5));
        assert_eq!(filter_matches(f.as_bytes(), t.as_bytes()), naive_matches(&f, &t), "{f} {t}");
    }
}
