//! Claims about the route table.

use super::*;
use crate::engine::ids::ShardSet;

/// Level by level, as the specification words it.
pub(crate) fn naive_matches(filter: &str, topic: &str) -> bool {
    let f: Vec<&str> = filter.split('/').collect();
    let t: Vec<&str> = topic.split('/').collect();
    if topic.starts_with('$') && (f[0] == "+" || f[0] == "#") {
        return false; // [MQTT-4.7.2-1]
    }
    for (i, level) in f.iter().enumerate() {
        match *level {
            "#" => return true, // also the parent level
            "+" if i < t.len() => {}
            text if t.get(i) == Some(&text) => {}
            _ => return false,
        }
    }
    f.len() == t.len()
}

/// Random filters and topics over a small alphabet, so that they often match.
pub(crate) fn random_filter(rng: &mut fastrand::Rng, levels_max: usize) -> String {
    let n = rng.usize(1..=levels_max);
    let mut levels: Vec<&str> = (0..n).map(|_| random_level(rng, true)).collect();
    if rng.u8(..4) == 0 {
        levels.push("#");
    }
    if n == 1 && rng.u8(..8) == 0 {
        return "#".into();
    }
    levels.join("/")
}

pub(crate) fn random_topic(rng: &mut fastrand::Rng, levels_max: usize) -> String {
    let n = rng.usize(1..=levels_max);
    (0..n).map(|_| random_level(rng, false)).collect::<Vec<_>>().join("/")
}

fn random_level(rng: &mut fastrand::Rng, wild: bool) -> &'static str {
    const LEVELS: [&str; 8] =
        ["a", "b", "", "$x", "long-level-name-1", "long-level-name-2", "é", "a sentence of text"];
    if wild && rng.u8(..3) == 0 { "+" } else { LEVELS[rng.usize(..LEVELS.len())] }
}

/// Seed from `RINGMAIN_SEED`, or a fresh one; printed either way.
pub(crate) fn seed() -> u64 {
    let seed = std::env::var("RINGMAIN_SEED")
        .ok()
        .and_then(|s| s.parse().ok())
        .unwrap_or_else(|| fastrand::u64(..));
    println!("RINGMAIN_SEED={seed}");
    seed
}

/// Pairs to compare with the naive matcher, from `RINGMAIN_MATCH_PAIRS`.
pub(crate) fn match_pairs() -> u64 {
    std::env::var("RINGMAIN_MATCH_PAIRS").ok().and_then(|s| s.parse().ok()).unwrap_or(200_000)
}

#[cfg(not(ringmain_loom))]
mod single {
    use super::*;

    fn table(shards: usize, seed: u64) -> (Arc<RouteTable>, Vec<RouteWriter>) {
        let table = Arc::new(RouteTable::new(shards, seed));
        let writers = (0..shards).map(|s| table.writer(ShardId(s as u16))).collect();
        (table, writers)
    }

    fn lookup(table: &RouteTable, topic: &str) -> Vec<u16> {
        let mut out = ShardSet::EMPTY;
        table.lookup(topic, &mut out);
        out.iter().map(|s| s.0).collect()
    }

    // S-50, S-51. [MQTT-4.7.1-2] [MQTT311-4.7.1-3] [MQTT-4.7.2-1] [MQTT-4.7.3-1]
    #[test]
    fn a_route_is_found_by_the_topics_its_filter_matches_and_not_by_others() {
        let cases = [
            ("sport/#", &["sport", "sport/", "sport/a/b"][..], &["sports", "", "x/sport"][..]),
            ("sport/+", &["sport/", "sport/a"], &["sport", "sport/a/b"]),
            ("+", &["a", "x y"], &["a/b", "/a", "$SYS"]),
            ("+/+", &["/", "a/b", "/a"], &["a", "$SYS/b"]),
            ("#", &["a", "/", "a/b/c"], &["$SYS", "$SYS/x"]),
            ("+/b/#", &["a/b", "a/b/c"], &["$SYS/b/c", "b"]),
            ("$SYS/#", &["$SYS", "$SYS/a"], &["SYS/a"]),
            ("$SYS/+", &["$SYS/a"], &["$SYS", "$SYS/a/b"]),
            ("/a", &["/a"], &["a", "/a/", "//a"]),
            ("a//b", &["a//b"], &["a/b", "a/x/b"]),
        ];
        for (filter, yes, no) in cases {
            let (table, mut writers) = table(3, 7);
            writers[1].insert(filter).unwrap();
            for topic in yes {
                assert_eq!(lookup(&table, topic), [1], "{filter} {topic}");
            }
            for topic in no {
                assert!(lookup(&table, topic).is_empty(), "{filter} {topic}");
            }
            writers[1].remove(filter);
            for topic in yes {
                assert!(lookup(&table, topic).is_empty(), "{filter} {topic}");
            }
        }
    }

    #[test]
    fn every_shard_of_a_full_node_can_be_routed_to() {
        for shards in [1, 64, 65, 128, 129, 200, 256] {
            let (table, mut writers) = table(shards, 11);
            for w in &mut writers {
                w.insert("a/+").unwrap();
            }
            assert_eq!(lookup(&table, "a/x"), (0..shards as u16).collect::<Vec<_>>());
            for w in writers.iter_mut().step_by(2) {
                w.remove("a/+");
            }
            let odd: Vec<u16> = (0..shards as u16).filter(|s| s % 2 == 1).collect();
            assert_eq!(lookup(&table, "a/x"), odd);
        }
    }

    // S-54: no false negative ever, false positives only where anchors are in use.
    #[test]
    fn random_churn_never_hides_a_route_from_the_naive_matcher() {
        let seed = seed();
        let mut rng = fastrand::Rng::with_seed(seed);
        let (mut pairs, mut wrong, mut looked) = (0, 0u64, 0u64);
        while pairs < match_pairs() {
            let shards = *rng.choice(&[1usize, 3, 64, 100]).unwrap();
            let (table, mut writers) = table(shards, rng.u64(..));
            let levels = *rng.choice(&[3usize, 5, 12, 50]).unwrap();
            let mut live: Vec<(usize, String)> = Vec::new();
            for _ in 0..60 {
                let topic = random_topic(&mut rng, levels);
                let prepared = table.prepare(&topic);
                for _ in 0..8 {
                    if !live.is_empty() && rng.u8(..5) < 2 {
                        let (s, f) = live.swap_remove(rng.usize(..live.len()));
                        writers[s].remove(&f);
                    } else {
                        let s = rng.usize(..shards);
                        let f = random_filter(&mut rng, levels);
                        writers[s].insert(&f).unwrap();
                        live.push((s, f));
                    }
                }
                let (mut out, mut later) = (ShardSet::EMPTY, ShardSet::EMPTY);
                table.lookup(&topic, &mut out);
                table.lookup_prepared(&prepared, &topic, &mut later);
                assert_eq!(later, out, "{topic}, prepared before a change");
                for s in 0..shards {
                    let want = live.iter().any(|(o, f)| *o == s && naive_matches(f, &topic));
                    let got = out.contains(ShardId(s as u16));
                    assert!(got || !want, "{topic} hidden from {s}: {live:?}");
                    looked += 1;
                    wrong += u64::from(got && !want);
                }
                pairs += live.len() as u64;
            }
            for (s, f) in live.drain(..) {
                writers[s].remove(&f);
            }
            assert_eq!((table.len(), table.shapes_in_use()), (0, 0), "left over");
            for _ in 0..20 {
                let topic = random_topic(&mut rng, levels);
                assert!(lookup(&table, &topic).is_empty());
            }
        }
        println!("{pairs} pairs, {wrong} false positives in {looked} shard looks");
    }

    #[test]
    fn growth_moves_every_route_and_removal_empties_the_table() {
        let table = Arc::new(RouteTable::new(2, 3));
        let mut a = table.writer(ShardId(0));
        let mut b = table.writer(ShardId(1));
        let n = 100_000;
        for i in 0..n {
            a.insert(&format!("a/{i}")).unwrap();
            b.insert(&format!("b/{i}")).unwrap();
            if i % 1000 == 0 {
                assert_eq!(lookup(&table, &format!("a/{}", i / 2)), [0]);
                assert_eq!(lookup(&table, &format!("b/{}", i / 3)), [1]);
            }
        }
        while a.maintain(1000) | b.maintain(1000) {}
        assert_eq!(table.len(), 2 * n);
        for i in 0..n {
            assert_eq!(lookup(&table, &format!("a/{i}")), [0]);
            a.remove(&format!("a/{i}"));
            assert_eq!(lookup(&table, &format!("b/{i}")), [1]);
            b.remove(&format!("b/{i}"));
        }
        assert_eq!(table.len(), 0);
    }

    #[test]
    fn slots_of_removed_routes_are_used_again() {
        let (table, mut writers) = table(1, 5);
        for i in 0..2_000_000u32 {
            writers[0].insert(&format!("client/{i}")).unwrap();
            if i >= 1000 {
                writers[0].remove(&format!("client/{}", i - 1000));
            }
        }
        assert_eq!(table.len(), 1000);
        assert!(table.bytes() < 2 << 20, "{} bytes", table.bytes());
    }

    #[test]
    fn a_table_at_its_limit_refuses_and_keeps_what_it_has() {
        let table = Arc::new(RouteTable::with_size(1, 9, BASE_BITS, 2));
        let mut w = table.writer(ShardId(0));
        let mut kept = 0;
        while w.insert(&format!("t/{kept}")).is_ok() {
            kept += 1;
            assert!(kept <= 4 * 4096, "more routes than slots");
        }
        assert!(kept > 12_000, "{kept} of 16,384 slots");
        for i in 0..kept {
            assert_eq!(lookup(&table, &format!("t/{i}")), [0]);
        }
        assert!(lookup(&table, &format!("t/{kept}")).is_empty());
    }

    #[test]
    fn thousands_of_shapes_are_all_found_with_bounded_probes() {
        let (table, mut writers) = table(4, 1);
        let mut filters = Vec::new();
        for mask in 1..2048u32 {
            let f: Vec<&str> =
                (0..11).map(|i| if mask >> i & 1 == 1 { "+" } else { "x" }).collect();
            filters.push(f.join("/"));
        }
        for (i, f) in filters.iter().enumerate() {
            writers[i % 4].insert(f).unwrap();
        }
        assert!(table.shapes_in_use() <= 16, "{}", table.shapes_in_use());
        assert_eq!(lookup(&table, &["x"; 11].join("/")), [0, 1, 2, 3]);
        for (i, f) in filters.iter().enumerate() {
            assert!(lookup(&table, &f.replace('+', "y")).contains(&((i % 4) as u16)), "{f}");
        }
        for (i, f) in filters.iter().enumerate() {
            writers[i % 4].remove(f);
        }
        assert_eq!((table.len(), table.shapes_in_use()), (0, 0));
        assert!(lookup(&table, &["x"; 11].join("/")).is_empty());
    }

    #[test]
    fn filters_and_topics_of_any_depth_are_found() {
        for depth in [43, 44, 45, 127, 128, 129, 1000, 32_767] {
            let topic = vec!["d"; depth].join("/");
            let mut plus = vec!["d"; depth];
            plus[depth - 1] = "+";
            let mut all_plus = vec!["+"; depth].join("/");
            for filter in [topic.clone(), plus.join("/"), all_plus.clone(), format!("{topic}/#")] {
                let (table, mut writers) = table(2, 1);
                writers[1].insert(&filter).unwrap();
                assert_eq!(lookup(&table, &topic), [1]);
                writers[1].remove(&filter);
                assert!(lookup(&table, &topic).is_empty());
            }
            all_plus.push_str("/#");
            let (table, mut writers) = table(2, 1);
            writers[1].insert(&all_plus).unwrap();
            assert_eq!(lookup(&table, &topic), [1]);
            assert!(lookup(&table, &format!("${topic}")).is_empty(), "S-51");
        }
    }

    // S-55
    #[test]
    fn a_returned_insert_is_seen_by_every_later_lookup_under_churn_and_growth() {
        use std::sync::atomic::{AtomicU64, Ordering};
        const STEPS: u64 = 60_000;
        const KEEP: u64 = 500;
        let seed = seed();
        let shards = 4;
        let table = Arc::new(RouteTable::new(shards, seed));
        // Per shard: filters [low, high) are routed for certain.
        let sure: Vec<_> = (0..shards).map(|_| (AtomicU64::new(0), AtomicU64::new(0))).collect();
        let name = |s: usize, i: u64| match i % 4 {
            0 => format!("s{s}/+/{i}"),
            1 => format!("same/{i}"),
            2 => format!("s{s}/{i}/#"),
            _ => format!("s{s}/x/{i}"),
        };
        let topic = |s: usize, i: u64| name(s, i).replace('+', "q").replace('#', "r/t");
        std::thread::scope(|scope| {
            for s in 0..shards {
                let (table, sure) = (&table, &sure);
                scope.spawn(move || {
                    let mut w = table.writer(ShardId(s as u16));
                    for i in 0..STEPS {
                        w.insert(&name(s, i)).unwrap();
                        sure[s].1.store(i + 1, Ordering::Release);
                        // The tail grows slowly, so that the table grows while it churns.
                        let low = sure[s].0.load(Ordering::Relaxed);
                        if i - low > KEEP + i / 2 {
                            sure[s].0.store(low + 2, Ordering::SeqCst);
                            w.remove(&name(s, low));
                            w.remove(&name(s, low + 1));
                        }
                    }
                });
            }
            for r in 0..2u64 {
                let (table, sure) = (&table, &sure);
                scope.spawn(move || {
                    let mut rng = fastrand::Rng::with_seed(seed ^ r);
                    let mut seen = 0u64;
                    while sure.iter().any(|s| s.1.load(Ordering::Acquire) < STEPS) {
                        let s = rng.usize(..shards);
                        let high = sure[s].1.load(Ordering::Acquire);
                        let low = sure[s].0.load(Ordering::SeqCst);
                        if high <= low {
                            continue;
                        }
                        let i = if rng.bool() { high - 1 } else { rng.u64(low..high) };
                        let mut out = ShardSet::EMPTY;
                        table.lookup(&topic(s, i), &mut out);
                        let gone = sure[s].0.load(Ordering::SeqCst) > i;
                        assert!(gone || out.contains(ShardId(s as u16)), "shard {s} filter {i}");
                        seen += 1;
                    }
                    println!("{seen} lookups checked");
                });
            }
        });
        assert!(table.len() > 20_000, "the table did not grow");
    }
}

/// All interleavings with so many preemptions, each without tags and with them. Run with
/// `RUSTFLAGS="--cfg ringmain_loom" cargo test -p ringmain-shards --release --lib route::tests::model`.
#[cfg(ringmain_loom)]
mod model {
    use super::super::grid::{Grid, GridWriter};
    use super::ShardSet;
    use crate::engine::ids::ShardId;
    use loom::sync::Arc;
    use loom::thread;

    fn check(preemptions: usize, f: fn(tagged: bool)) {
        for tagged in [false, true] {
            let mut model = loom::model::Builder::new();
            model.preemption_bound = Some(preemptions);
            model.check(move || f(tagged));
        }
    }

    /// A fingerprint with a tag of its own, and the first bucket as its place at all levels.
    fn fp(n: u64) -> u64 {
        n << 32
    }

    /// As [`fp`], but at the last bucket of each level.
    fn fp_last(n: u64) -> u64 {
        fp(n) | u64::from(u32::MAX)
    }

    fn has(grid: &Grid, fp: u64, shard: u16) -> bool {
        let mut out = ShardSet::EMPTY;
        grid.read(|from, to| grid.collect(from, to, fp, &mut out));
        out.contains(ShardId(shard))
    }

    /// A table of one bucket for three shards that can double once, and a shard's writer.
    fn one_bucket(tagged: bool) -> (Arc<Grid>, GridWriter) {
        let grid = Arc::new(Grid::new(3, 0, 1, tagged));
        let writer = grid.writer(0).unwrap();
        (grid, writer)
    }

    /// One bucket, full but for a slot with an empty set: two shards want it for two keys, one of
    /// them the key that it had. S-55
    #[test]
    fn a_slot_under_reclaim_loses_no_insert() {
        check(3, |tagged| {
            let (grid, mut a) = one_bucket(tagged);
            let mut b = grid.writer(1).unwrap();
            a.insert(&grid, fp(10)).unwrap();
            a.remove(&grid, fp(10));
            let g = Arc::clone(&grid);
            let t = thread::spawn(move || {
                b.insert(&g, fp(10)).unwrap();
                assert!(has(&g, fp(10), 1));
            });
            a.insert(&grid, fp(20)).unwrap();
            assert!(has(&grid, fp(20), 0));
            t.join().unwrap();
            assert!(has(&grid, fp(10), 1) && has(&grid, fp(20), 0));
        });
    }

    /// Two shards reclaim the same slot for different keys.
    #[test]
    fn two_reclaimers_of_a_slot_both_end_with_a_route() {
        check(3, |tagged| {
            let (grid, mut a) = one_bucket(tagged);
            let mut b = grid.writer(1).unwrap();
            a.insert(&grid, fp(10)).unwrap();
            a.remove(&grid, fp(10));
            let g = Arc::clone(&grid);
            let t = thread::spawn(move || b.insert(&g, fp(30)).unwrap());
            a.insert(&grid, fp(20)).unwrap();
            t.join().unwrap();
            assert!(has(&grid, fp(30), 1) && has(&grid, fp(20), 0));
        });
    }

    /// The table has grown, and a shard moves its bit to another bucket while it is looked up. It is
    /// the last to move: the old level is settled.
    #[test]
    fn a_bit_on_the_move_is_seen_at_one_place() {
        check(5, |tagged| {
            let (grid, mut a) = one_bucket(tagged);
            a.insert(&grid, fp_last(1)).unwrap();
            let g = Arc::clone(&grid);
            let t = thread::spawn(move || {
                g.grow(0);
                while a.maintain(&g, 1) {}
            });
            assert!(has(&grid, fp_last(1), 0));
            t.join().unwrap();
            assert!(has(&grid, fp_last(1), 0));
        });
    }

    /// The same while another shard has not moved yet.
    #[test]
    fn a_bit_that_stays_behind_is_seen() {
        check(5, |tagged| {
            let (grid, mut a) = one_bucket(tagged);
            let mut b = grid.writer(1).unwrap();
            a.insert(&grid, fp_last(1)).unwrap();
            b.insert(&grid, fp_last(2)).unwrap();
            let g = Arc::clone(&grid);
            let t = thread::spawn(move || {
                g.grow(0);
                while a.maintain(&g, 1) {}
            });
            assert!(has(&grid, fp_last(2), 1));
            t.join().unwrap();
            assert!(has(&grid, fp_last(1), 0) && has(&grid, fp_last(2), 1));
            while b.maintain(&grid, 1) {}
            assert!(has(&grid, fp_last(1), 0) && has(&grid, fp_last(2), 1));
        });
    }

    /// The third of four slots makes the table grow; the next insert moves what there is, which is
    /// looked up meanwhile, and comes to the new level itself. S-55
    #[test]
    fn an_insert_while_the_table_grows_hides_nothing() {
        check(5, |tagged| {
            let (grid, mut a) = one_bucket(tagged);
            let mut b = grid.writer(1).unwrap();
            b.insert(&grid, fp(8)).unwrap();
            b.insert(&grid, fp(9)).unwrap();
            a.insert(&grid, fp_last(1)).unwrap();
            let g = Arc::clone(&grid);
            let t = thread::spawn(move || {
                a.insert(&g, fp_last(2)).unwrap();
                a.insert(&g, fp_last(3)).unwrap();
                assert!(has(&g, fp_last(3), 0));
            });
            assert!(has(&grid, fp_last(1), 0));
            t.join().unwrap();
            assert!((1..=3).all(|n| has(&grid, fp_last(n), 0)));
            assert!(has(&grid, fp(8), 1) && has(&grid, fp(9), 1));
        });
    }
}
