//! Claims about the timer wheel.

use super::*;
use crate::engine::route::tests::seed;
use std::collections::BTreeMap;

#[test]
fn a_timer_fires_in_the_first_advance_at_its_deadline_and_not_before() {
    for deadline in [0, 1, 63, 64, 65, 4095, 4096, 300_000, 1 << 31, 4_294_967_295_000] {
        for start in [0u64, 1, 63, 1000, 123_456_789] {
            let mut wheel = Wheel::new(start);
            let mut out = Vec::new();
            let at = start + deadline;
            wheel.insert(at, 7u64);
            assert!(wheel.next_deadline().unwrap() <= at);
            if deadline > 0 {
                while wheel.advance(at - 1, 10, &mut out) {}
                assert!(out.is_empty(), "{start} + {deadline}");
                assert!(wheel.next_deadline().unwrap() <= at);
            }
            while wheel.advance(at, 10, &mut out) {}
            assert_eq!((out, wheel.len(), wheel.next_deadline()), (vec![7], 0, None));
        }
    }
}

#[test]
fn a_stale_id_cancels_nothing() {
    let mut wheel = Wheel::new(0);
    let a = wheel.insert(5, 'a');
    assert_eq!(wheel.cancel(a), Some('a'));
    let b = wheel.insert(6, 'b');
    assert_eq!(wheel.cancel(a), None);
    let mut out = Vec::new();
    wheel.advance(6, 1, &mut out);
    assert_eq!((out, wheel.cancel(b)), (vec!['b'], None));
}

#[test]
fn next_deadline_gets_there_in_few_steps() {
    let mut wheel = Wheel::new(12_345);
    wheel.insert(12_345 + 4_294_967_295_000, ());
    let (mut steps, mut out) = (0, Vec::new());
    while let Some(at) = wheel.next_deadline() {
        wheel.advance(at, 1, &mut out);
        steps += 1;
    }
    assert!(steps <= WHEELS, "{steps}");
}

#[test]
fn advance_is_bounded_and_says_that_more_is_due() {
    let mut wheel = Wheel::new(0);
    for i in 0..10_000u64 {
        wheel.insert(5_000 + i % 2, i);
    }
    let mut out = Vec::new();
    let mut calls = 0;
    while wheel.advance(6_000, 100, &mut out) {
        calls += 1;
        assert!(out.len() <= calls * 100);
    }
    assert_eq!(out.len(), 10_000);
    assert!(out[..5_000].iter().all(|i| i % 2 == 0), "not by deadline");
}

#[test]
fn random_timers_fire_as_from_a_sorted_map() {
    let mut rng = fastrand::Rng::with_seed(seed());
    for _ in 0..60 {
        let mut now = if rng.bool() { 0 } else { rng.u64(..1 << 42) };
        let mut wheel = Wheel::new(now);
        let mut model: BTreeMap<(u64, u64), TimerId> = BTreeMap::new();
        let mut gone: Vec<TimerId> = Vec::new();
        let mut next_key = 0u64;
        for _ in 0..2_000 {
            match rng.u8(..10) {
                0..5 => {
                    let bits = rng.u32(0..44);
                    let ahead = rng.u64(..1 << bits);
                    let deadline =
                        if rng.u8(..20) == 0 { now.saturating_sub(ahead) } else { now + ahead };
                    let id = wheel.insert(deadline, next_key);
                    model.insert((deadline, next_key), id);
                    next_key += 1;
                }
                5..7 if !model.is_empty() => {
                    let at = rng.usize(..model.len());
                    let (key, id) = model.iter().nth(at).map(|(k, v)| (*k, *v)).unwrap();
                    model.remove(&key);
                    assert_eq!(wheel.cancel(id), Some(key.1));
                    gone.push(id);
                }
                7 if !gone.is_empty() => {
                    assert_eq!(wheel.cancel(*rng.choice(&gone).unwrap()), None);
                }
                _ => {
                    let earliest = model.keys().next().map(|k| k.0);
                    match (wheel.next_deadline(), earliest) {
                        (Some(next), Some(e)) => assert!(next <= e.max(now)),
                        (next, e) => assert_eq!((next, e), (None, None)),
                    }
                    now += match rng.u8(..3) {
                        0 => rng.u64(..100),
                        1 => {
                            let bits = rng.u32(0..40);
                            rng.u64(..1 << bits)
                        }
                        _ => earliest.unwrap_or(now).saturating_sub(now),
                    };
                    let mut out = Vec::new();
                    while wheel.advance(now, rng.usize(1..20), &mut out) {}
                    let mut due = Vec::new();
                    while let Some(e) = model.first_entry().filter(|e| e.key().0 <= now) {
                        due.push(e.key().1);
                        gone.push(e.remove());
                    }
                    out.sort_unstable();
                    due.sort_unstable();
                    assert_eq!(out, due);
                }
            }
            assert_eq!(wheel.len(), model.len());
        }
    }
}
