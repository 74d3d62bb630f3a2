//! Claims about the retained store.

use super::*;
use crate::engine::message::Outgoing;
use crate::engine::route::tests::{naive_matches, random_filter, random_topic, seed};
use ringmain_mqtt::QoS;
use std::collections::{BTreeMap, HashMap, HashSet};

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
    RetainedStore::new(usize::MAX, usize::MAX)
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
    assert!(s.clear("a/b"));
    assert!(!s.clear("a/b") && !s.clear("x") && s.get("a/b", 0).is_none());
    assert_eq!(all(&s, "#"), ["a", "a/b/c"]);
    s.clear("a/b/c");
    s.clear("a");
    assert_eq!((s.len(), s.message_bytes(), all(&s, "#").len()), (0, 0, 0));
}

#[test]
fn a_full_store_refuses_new_topics_and_takes_replacements() {
    let mut s = RetainedStore::new(2, usize::MAX);
    s.set(plain("a")).unwrap();
    s.set(plain("b")).unwrap();
    assert_eq!(s.set(plain("c")).unwrap_err(), RetainedFull);
    assert_eq!(s.set(message("a", "new", 0, u32::MAX)), Ok(RetainedSet::Replaced));
    assert_eq!(s.get("a", 0).unwrap().payload(), b"new");
    let one = plain("a").queue_bytes();
    let mut s = RetainedStore::new(9, one);
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
                } else if s.clear(&t) {
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
    assert!(s.clear(&deep) && s.is_empty());
}

/// A message with all its fields drawn, of a payload that is kept in a leaf or as it came.
fn random_message(rng: &mut fastrand::Rng, topic: &str, now_ms: u64) -> Arc<Message> {
    let bytes = |rng: &mut fastrand::Rng, n: usize| (0..n).map(|_| rng.u8(..)).collect::<Vec<_>>();
    let n = match rng.u8(..8) {
        0 => rng.usize(..3000),
        1 => rng.usize(900..1100),
        _ => rng.usize(1..40),
    };
    let payload = bytes(rng, n);
    let n = if rng.bool() { 0 } else { rng.usize(..200) };
    let props = bytes(rng, n);
    let mut out = Outgoing::internal(topic, &payload, now_ms, rng.bool());
    out.props = &props;
    out.qos = [QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce][rng.usize(..3)];
    out.publisher = if rng.bool() { 0 } else { rng.u64(..) };
    if rng.u8(..4) == 0 {
        out.expiry_s = rng.u32(..60);
        out.expiry_forwarded = rng.bool();
    }
    out.own()
}

/// All that a message says.
fn fields(m: &Message) -> impl PartialEq + std::fmt::Debug + use<> {
    let (topic, props, payload) = (m.topic().to_owned(), m.props().to_vec(), m.payload().to_vec());
    let life = (m.expiry_forwarded, m.expiry_s, m.created_ms);
    (topic, props, payload, m.qos, m.retain, life, m.publisher)
}

/// Enough topics for many leaves, many of which begin alike.
fn topic_of_many(rng: &mut fastrand::Rng) -> String {
    match rng.u8(..10) {
        0 => random_topic(rng, 5),
        1 => format!("long/{}/{}", "x".repeat(rng.usize(..400)), rng.u8(..9)),
        2 => format!("é/{}ü/{}", rng.u8(..30), ["ö", "ä", "/", "\u{1}"][rng.usize(..4)]),
        3 => format!("$dollar/{}", rng.u8(..30)),
        _ => format!("site/{}/dev/{}", rng.u8(..20), rng.u8(..60)),
    }
}

// S-11, S-43, S-44, S-45
#[test]
fn a_store_that_changes_all_the_time_holds_what_a_plain_map_holds() {
    let mut rng = fastrand::Rng::with_seed(seed());
    for _ in 0..30 {
        let (mut s, mut model) = (store(), BTreeMap::<String, Arc<Message>>::new());
        let mut now_ms = 0;
        // It grows, is emptied, and so on.
        for round in 0..6 {
            for _ in 0..400 {
                let topic = topic_of_many(&mut rng);
                if rng.u8(..5) < if round % 2 == 0 { 4 } else { 1 } {
                    let m = random_message(&mut rng, &topic, now_ms);
                    let set = s.set(Arc::clone(&m)).unwrap();
                    let old = model.insert(topic, m);
                    assert_eq!(set == RetainedSet::Replaced, old.is_some());
                } else {
                    // One that is there, mostly.
                    let there = model.range(topic.clone()..).next().map(|(t, _)| t.clone());
                    let topic = there.unwrap_or(topic);
                    assert_eq!(s.clear(&topic), model.remove(&topic).is_some());
                }
                if rng.u8(..50) == 0 {
                    now_ms += rng.u64(..20_000);
                    let max = rng.usize(1..9);
                    let is_over = |m: &Arc<Message>| m.is_expired(now_ms);
                    let over = model.values().filter(|m| is_over(m)).count();
                    assert_eq!(s.expire(now_ms, max), over.min(max));
                    // Which of them went is the store's choice.
                    assert_eq!(s.expire(now_ms, usize::MAX), over.saturating_sub(max));
                    model.retain(|_, m| !is_over(m));
                }
            }
            agree(&s, &model, now_ms, &mut rng);
        }
    }
}

fn agree(
    s: &RetainedStore,
    model: &BTreeMap<String, Arc<Message>>,
    now_ms: u64,
    rng: &mut fastrand::Rng,
) {
    let keys: Vec<Vec<u8>> = s.leaves.checked_keys().concat();
    let mut topics: Vec<SmallVec<[u8; 128]>> = model.keys().map(|t| key_of(t)).collect();
    topics.sort();
    assert_eq!(keys, topics.iter().map(|k| k.to_vec()).collect::<Vec<_>>());
    let expire = model.values().filter(|m| m.expiry_s != u32::MAX);
    let dues = expire.map(|m| m.created_ms + u64::from(m.expiry_s) * 1000);
    assert_eq!(s.next_expiry_ms(), dues.min());
    let bytes: usize = model.values().map(|m| m.queue_bytes()).sum();
    assert_eq!((s.len(), s.message_bytes()), (model.len(), bytes));
    let got = |t: &String| s.get(t, now_ms).map(|m| fields(&m));
    for (t, m) in model {
        let want = (!m.is_expired(now_ms)).then(|| fields(m));
        assert_eq!(got(t), want);
        assert_eq!(s.bytes_of(t, now_ms), want.map(|_| m.queue_bytes()));
    }
    for _ in 0..20 {
        let filter = match rng.u8(..6) {
            0 => "#".into(),
            1 => format!("site/+/dev/{}", rng.u8(..60)),
            2 => format!("site/{}/+/+", rng.u8(..20)),
            3 => "é/+/+/#".into(),
            4 => format!("$dollar/{}/#", rng.u8(..30)),
            _ => random_filter(rng, 5),
        };
        let (mut cursor, mut out, max) = (RetainedCursor::default(), Vec::new(), rng.usize(1..99));
        while !s.page(&filter, &mut cursor, max, rng.usize(..9_000), now_ms, &mut out) {}
        out.sort_by(|a, b| a.topic().cmp(b.topic()));
        let matches =
            |m: &&Arc<Message>| naive_matches(&filter, m.topic()) && !m.is_expired(now_ms);
        let want: Vec<_> = model.values().filter(matches).map(|m| fields(m)).collect();
        assert_eq!(out.iter().map(|m| fields(m)).collect::<Vec<_>>(), want, "{filter}");
    }
}

#[test]
fn leaves_split_when_they_are_full_and_join_when_they_are_small() {
    let mut rng = fastrand::Rng::with_seed(seed());
    let mut s = store();
    let mut topics: Vec<String> = (0..20_000).map(|i| format!("a/{}/b/{i}", i % 100)).collect();
    rng.shuffle(&mut topics);
    let empty = s.memory_bytes();
    for t in &topics {
        s.set(plain(t)).unwrap();
    }
    let full = s.leaves.checked_keys();
    let (least, most) = full.iter().map(Vec::len).fold((999, 0), |(a, b), n| (a.min(n), b.max(n)));
    assert!(least >= 16 && most < 250, "{least} {most}");
    let beside = s.memory_bytes() as f64 - s.content_bytes() as f64;
    assert!(beside / 20_000.0 < 8.0, "topics share what they begin with: {beside}");
    rng.shuffle(&mut topics);
    for t in topics.drain(100..) {
        assert!(s.clear(&t));
    }
    let few = s.leaves.checked_keys();
    assert_eq!(few.concat().len(), 100);
    assert!(few.len() < 10, "{} leaves", few.len());
    for t in &topics {
        assert!(s.get(t, 0).is_some() && s.clear(t));
    }
    // Memory returns.
    assert_eq!(s.leaves.checked_keys(), [[[0u8; 0]; 0]]);
    assert!(s.memory_bytes() <= empty + 64, "{} {empty}", s.memory_bytes());
}

#[test]
fn large_messages_are_kept_as_they_came() {
    let mut s = store();
    let large = message("a", &"x".repeat(5_000), 0, 7);
    s.set(Arc::clone(&large)).unwrap();
    s.set(plain("b")).unwrap();
    assert!(Arc::ptr_eq(&s.get("a", 0).unwrap(), &large));
    let (mut cursor, mut out) = (RetainedCursor::default(), Vec::new());
    assert!(s.page("+", &mut cursor, 9, usize::MAX, 0, &mut out));
    assert!(out.len() == 2 && Arc::ptr_eq(&out[0], &large));
    assert!(s.memory_bytes() > 5_000 && s.next_expiry_ms() == Some(7_000));
    drop(out);
    s.set(plain("a")).unwrap();
    assert_eq!((Arc::strong_count(&large), s.next_expiry_ms()), (1, None));
}

#[test]
fn the_longest_topics_share_what_they_begin_with_and_are_found() {
    let mut s = store();
    let topic = |i: usize| format!("{}/{i:05}", "x/".repeat(32_764));
    assert_eq!(topic(0).len(), 65_534);
    for i in 0..300 {
        s.set(plain(&topic(i))).unwrap();
    }
    assert!(s.memory_bytes() < 300 * 65_535 / 4, "{}", s.memory_bytes());
    s.leaves.checked_keys();
    assert_eq!(all(&s, &format!("{}+/00123", "+/".repeat(32_764))), [topic(123)]);
    assert_eq!(all(&s, &format!("{}/#", topic(7))), [topic(7)]);
    for i in 0..300 {
        assert!(s.clear(&topic(i)));
    }
    assert_eq!(s.leaves.checked_keys().len(), 1);
}

/// A `+` is passed over by its names, not by what is stored below them.
#[test]
fn a_replay_looks_at_what_can_match_and_not_at_what_is_stored() {
    let mut s = store();
    for name in 0..20 {
        for i in 0..2_000 {
            s.set(plain(&format!("site/{name}/dev/{i}"))).unwrap();
        }
    }
    for (filter, found) in [("site/+/dev/1500", 20), ("+/+/dev/7", 20), ("site/7/dev/1/#", 1)] {
        let (mut cursor, mut out) = (RetainedCursor::default(), Vec::new());
        assert!(s.page(filter, &mut cursor, 99, usize::MAX, 0, &mut out), "more than one page");
        assert_eq!(out.len(), found, "{filter}");
    }
}
