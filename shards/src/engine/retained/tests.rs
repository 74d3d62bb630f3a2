//! Claims about the retained store.

use super::*;
use crate::engine::message::Outgoing;
use crate::engine::route::tests::{naive_matches, random_filter, random_topic, seed};
use std::collections::{HashMap, HashSet};

fn message(topic: &str, payload: &str, created_ms: u64, expiry_s: u32) -> Arc<Message> {
    let mut out = Outgoing::internal(topic, payload.as_bytes(), created_ms, true);
    out.expiry_s = expiry_s;
    out.expiry_forwarded = expiry_s != u32::MAX;
    out.own()
}

fn plain(topic: &str) -> Arc<Message> {
    message(topic, "p", 0, u32::MAX)
}

fn store() -> RetainedStore {
    RetainedStore::new(usize::MAX, usize::MAX, 1)
}

fn all(store: &RetainedStore, filter: &str) -> Vec<String> {
    let (mut cursor, mut out) = (RetainedCursor::default(), Vec::new());
    while !store.page(filter, &mut cursor, 3, usize::MAX, 0, &mut out) {}
    let mut topics: Vec<String> = out.iter().map(|m| m.topic().to_owned()).collect();
    topics.sort();
    topics
}

// S-43, S-45
#[test]
fn clearing_a_topic_leaves_those_above_and_below() {
    let mut s = store();
    for t in ["a", "a/b", "a/b/c"] {
        assert!(matches!(s.set(plain(t)), Ok(RetainedSet::New)));
    }
    assert_eq!(s.clear("a/b").unwrap().topic(), "a/b");
    assert!(s.clear("a/b").is_none() && s.clear("x").is_none() && s.get("a/b", 0).is_none());
    assert_eq!(all(&s, "#"), ["a", "a/b/c"]);
    s.clear("a/b/c");
    s.clear("a");
    assert_eq!((s.len(), s.message_bytes(), all(&s, "#").len()), (0, 0, 0));
}

#[test]
fn a_full_store_refuses_new_topics_and_takes_replacements() {
    let mut s = RetainedStore::new(2, usize::MAX, 1);
    s.set(plain("a")).unwrap();
    s.set(plain("b")).unwrap();
    assert_eq!(s.set(plain("c")).unwrap_err(), RetainedFull);
    match s.set(message("a", "new", 0, u32::MAX)).unwrap() {
        RetainedSet::Replaced(old) => assert_eq!(old.payload(), b"p"),
        RetainedSet::New => panic!("a was there"),
    }
    let one = plain("a").queue_bytes();
    let mut s = RetainedStore::new(9, one, 1);
    s.set(plain("a")).unwrap();
    assert!(s.set(plain("b")).is_err() && s.set(message("a", "longer", 0, 1)).is_err());
    assert_eq!((s.get("a", 0).unwrap().payload(), s.message_bytes()), (&b"p"[..], one));
    assert_eq!(s.next_expiry_ms(), None);
}

// S-11
#[test]
fn an_expired_message_is_neither_returned_nor_kept() {
    let mut s = store();
    s.set(message("a", "x", 1_000, 5)).unwrap();
    s.set(message("b", "x", 1_000, 9)).unwrap();
    s.set(message("b", "x", 1_000, 7)).unwrap();
    s.set(plain("c")).unwrap();
    assert_eq!(s.next_expiry_ms(), Some(6_000));
    assert!(s.get("a", 5_999).is_some() && s.get("a", 6_000).is_none());
    let (mut cursor, mut out) = (RetainedCursor::default(), Vec::new());
    assert!(s.page("#", &mut cursor, 9, usize::MAX, 8_000, &mut out));
    assert_eq!(out.len(), 1);
    assert_eq!((s.expire(7_999, 10), s.expire(8_000, 10), s.expire(u64::MAX, 10)), (1, 1, 0));
    assert_eq!((s.len(), s.next_expiry_ms()), (1, None));
}

// S-50, S-51
#[test]
fn a_replay_returns_what_a_naive_matcher_matches() {
    let mut rng = fastrand::Rng::with_seed(seed());
    for _ in 0..200 {
        let mut s = store();
        let topics: HashSet<String> = (0..60).map(|_| random_topic(&mut rng, 5)).collect();
        for t in &topics {
            s.set(plain(t)).unwrap();
        }
        for _ in 0..20 {
            let filter = random_filter(&mut rng, 5);
            let mut want: Vec<String> =
                topics.iter().filter(|t| naive_matches(&filter, t)).cloned().collect();
            want.sort();
            assert_eq!(all(&s, &filter), want, "{filter}");
        }
    }
}

// S-44
#[test]
fn a_topic_that_stays_is_returned_exactly_once_whatever_comes_and_goes() {
    let mut rng = fastrand::Rng::with_seed(seed());
    for _ in 0..400 {
        let mut s = store();
        let mut live: HashSet<String> = HashSet::new();
        let filter = random_filter(&mut rng, 4);
        for _ in 0..rng.usize(..300) {
            let t = random_topic(&mut rng, 5);
            s.set(plain(&t)).unwrap();
            live.insert(t);
        }
        let mut stayed = live.clone();
        let (mut cursor, mut out) = (RetainedCursor::default(), Vec::new());
        let mut pages = 0;
        while !s.page(&filter, &mut cursor, rng.usize(1..4), rng.usize(..500), 0, &mut out) {
            pages += 1;
            assert!(pages < 10_000, "no end");
            for _ in 0..rng.usize(..6) {
                let t = random_topic(&mut rng, 5);
                if rng.bool() {
                    s.set(plain(&t)).unwrap();
                    live.insert(t);
                } else if s.clear(&t).is_some() {
                    live.remove(&t);
                    stayed.remove(&t);
                }
            }
        }
        let mut counts: HashMap<&str, usize> = HashMap::new();
        for m in &out {
            assert!(naive_matches(&filter, m.topic()), "{filter} {}", m.topic());
            *counts.entry(m.topic()).or_default() += 1;
        }
        for t in stayed.iter().filter(|t| naive_matches(&filter, t)) {
            assert_eq!(counts.get(t.as_str()), Some(&1), "{filter} {t}");
        }
        assert_eq!(s.len(), live.len());
    }
}

#[test]
fn a_page_is_bounded_in_messages_bytes_and_looks() {
    let mut s = store();
    for i in 0..5_000 {
        s.set(plain(&format!("a/{i}/x"))).unwrap();
        s.set(plain(&format!("$d{i}"))).unwrap();
    }
    let size = plain("a/1000/x").queue_bytes();
    let (mut cursor, mut out) = (RetainedCursor::default(), Vec::new());
    assert!(!s.page("a/#", &mut cursor, 10, usize::MAX, 0, &mut out));
    assert_eq!(out.len(), 10);
    assert!(!s.page("a/#", &mut cursor, 100, 3 * size, 0, &mut out));
    assert_eq!(out.len(), 13);
    assert!(!s.page("a/#", &mut cursor, 100, 1, 0, &mut out), "one at least");
    assert_eq!(out.len(), 14);
    // Nothing matches: the walk still stops now and then.
    let (mut cursor, mut pages) = (RetainedCursor::default(), 1);
    while !s.page("a/+/y", &mut cursor, 10, usize::MAX, 0, &mut out) {
        pages += 1;
    }
    assert!(pages >= 5_000 / 1_024 && out.len() == 14, "{pages}");
}

#[test]
fn topics_of_the_greatest_depth_are_kept_and_found() {
    let mut s = store();
    let deep = "/".repeat(65_535);
    s.set(plain(&deep)).unwrap();
    assert_eq!(all(&s, "#"), std::slice::from_ref(&deep));
    assert_eq!(all(&s, &deep.replace('/', "+/")[..65_534]).len(), 0);
    assert!(s.clear(&deep).is_some() && s.is_empty());
}
