//! The engine's tables against the candidates that they were chosen from (decision records 0010 to
//! 0013), and against their targets.
//!
//! ```sh
//! cargo bench -p ringmain-shards --bench tables -- [lookup|route|subs|wheel|retained] [MILLIONS]
//! cargo bench -p ringmain-shards --bench tables -- route 10   # the targets of the route table
//! cargo bench -p ringmain-shards --bench tables -- lookup 10  # its lookups alone
//! ```

use hashbrown::{DefaultHashBuilder, HashMap};
use ringmain_shards::engine::config::EngineConfig;
use ringmain_shards::engine::effects::{Effects, Op};
use ringmain_shards::engine::ids::{ConnId, Now, Peer, ShardId, ShardSet};
use ringmain_shards::engine::input::Input;
use ringmain_shards::engine::message::{Message, Outgoing};
use ringmain_shards::engine::node::NodeShared;
use ringmain_shards::engine::retained::{RetainedCursor, RetainedStore};
use ringmain_shards::engine::route::{RouteTable, RouteWriter};
use ringmain_shards::engine::subs::{SubIndex, SubOpts};
use ringmain_shards::engine::wheel::Wheel;
use ringmain_shards::engine::{Machine, Shard};
use std::borrow::Borrow;
use std::cmp::Ordering;
use std::collections::{BTreeMap, BinaryHeap};
use std::hash::BuildHasher;
use std::hint::black_box;
use std::ops::Bound;
use std::sync::Arc;

const LOOKUPS: usize = 1_000_000;
const SEED: u64 = 42;

fn main() {
    let args: Vec<String> = std::env::args().skip(1).filter(|a| !a.starts_with("--")).collect();
    let millions = args.iter().find_map(|a| a.parse::<f64>().ok()).unwrap_or(1.0);
    let n = (millions * 1e6) as usize;
    let wanted = |name: &str| {
        let named = args.iter().any(|a| a.parse::<f64>().is_err());
        !named || args.iter().any(|a| a == name)
    };
    for (name, bench) in [
        ("lookup", lookup as fn(usize)),
        ("route", route),
        ("subs", subs),
        ("wheel", wheel),
        ("retained", retained),
    ] {
        if wanted(name) {
            println!("\n{name}, {n}");
            bench(n);
        }
    }
}

/// Time that this thread ran on a core, so that a busy machine disturbs less.
struct Cpu(u64);

impl Cpu {
    fn now() -> Self {
        let stat = std::fs::read_to_string("/proc/thread-self/schedstat").expect("Linux");
        Self(stat.split(' ').next().and_then(|ns| ns.parse().ok()).expect("nanoseconds"))
    }

    fn elapsed_ns(&self) -> u64 {
        Self::now().0 - self.0
    }
}

fn report(what: &str, count: usize, start: Cpu) {
    report_ns(what, start.elapsed_ns() as f64 / count as f64);
}

/// The best of several times the same: these are short, and others use the machine too.
fn best<T>(what: &str, count: usize, mut once: impl FnMut() -> T) {
    let times = (0..9).map(|_| {
        let start = Cpu::now();
        black_box(once());
        start.elapsed_ns()
    });
    report_ns(what, times.min().unwrap_or(0) as f64 / count as f64);
}

/// The median of several times the same.
fn median<T>(what: &str, count: usize, mut once: impl FnMut() -> T) {
    let mut times: Vec<u64> = (0..9)
        .map(|_| {
            let start = Cpu::now();
            black_box(once());
            start.elapsed_ns()
        })
        .collect();
    times.sort_unstable();
    report_ns(what, times[times.len() / 2] as f64 / count as f64);
}

fn report_ns(what: &str, ns: f64) {
    println!("  {what:<52} {ns:>9.1} ns {:>8.2} M/s", 1e3 / ns);
}

fn bytes_each(what: &str, bytes: usize, n: usize) {
    println!("  {what:<52} {:>9.1} B", bytes as f64 / n as f64);
}

/// 85 % exact filters, the others in five wildcard shapes.
fn filter(i: usize) -> String {
    let site = i % 1000;
    match i % 100 {
        0..85 => format!("site/{site}/dev/{i}/temp"),
        85..89 => format!("site/+/dev/{i}/temp"),
        89..93 => format!("site/{site}/dev/{i}/#"),
        93..96 => format!("+/{site}/dev/{i}/+"),
        96..98 => format!("site/{site}/+/{i}/temp"),
        _ => format!("site/{site}/x{i}/#"),
    }
}

fn topics(n: usize) -> Vec<String> {
    let mut rng = fastrand::Rng::with_seed(SEED);
    (0..LOOKUPS)
        .map(|_| {
            let i = rng.usize(..n);
            format!("site/{}/dev/{i}/temp", i % 1000)
        })
        .collect()
}

/// A table with `n` routes of so many shards in turn, inserted so many at a time, and the nanoseconds of
/// each: growth included, but not the texts.
fn filled(shards: usize, n: usize, batch: usize) -> (Arc<RouteTable>, Vec<RouteWriter>, f64) {
    let table = Arc::new(RouteTable::new(shards, SEED));
    let mut writers: Vec<_> = (0..shards).map(|s| table.writer(ShardId(s as u16))).collect();
    let mut prepared = Vec::with_capacity(batch);
    let mut spent = 0;
    for from in (0..n).step_by(1024) {
        let filters: Vec<String> = (from..n.min(from + 1024)).map(filter).collect();
        let start = Cpu::now();
        for (i, some) in (from..).step_by(batch).zip(filters.chunks(batch)) {
            prepared.extend((i..).zip(some).map(|(i, f)| (i, writers[i % shards].prepare(f))));
            for (i, route) in prepared.drain(..) {
                writers[i % shards].insert_prepared(route).expect("room");
            }
        }
        spent += start.elapsed_ns();
    }
    let start = Cpu::now();
    while writers.iter_mut().fold(false, |more, w| w.maintain(1 << 16) | more) {}
    spent += start.elapsed_ns();
    (table, writers, spent as f64 / n as f64)
}

/// What a shard asks of the route table for each message whose topic it has not met lately.
fn lookup(n: usize) {
    let (table, writers, _) = filled(64, n, 16);
    let topics = topics(n);
    let one = |topic: &String| {
        let mut out = ShardSet::EMPTY;
        table.lookup(topic, &mut out);
        out
    };
    median("lookup, one after another", LOOKUPS, || topics.iter().map(one).fold(0, count));
    let few = || topics.iter().take(1000).cycle().take(LOOKUPS);
    median("lookup, 1,000 topics repeated", LOOKUPS, || few().map(one).fold(0, count));
    let mut prepared = Vec::with_capacity(64);
    for batch in [4, 16, 64] {
        median(&format!("lookup, {batch} asked for at a time"), LOOKUPS, || {
            topics.chunks(batch).fold(0, |found, some| {
                prepared.clear();
                prepared.extend(some.iter().map(|t| table.prepare(t)));
                some.iter().zip(&prepared).fold(found, |found, (t, prepared)| {
                    let mut out = ShardSet::EMPTY;
                    table.lookup_prepared(prepared, t, &mut out);
                    count(found, out)
                })
            })
        });
    }
    drop(writers);
}

/// Counts the sets that are not empty: what is done with an answer waits for it.
fn count(found: usize, set: ShardSet) -> usize {
    if set.is_empty() { found } else { found + 1 }
}

fn route(n: usize) {
    [1, 8].iter().for_each(|batch| subscribed(n, *batch));
    for (shards, batch) in [(1, 1), (1, 16), (64, 16)] {
        let (.., ns) = filled(shards, n, batch);
        report_ns(&format!("insert with growth, {shards} shards, {batch} at a time"), ns);
    }
    let (table, mut writers, ns) = filled(64, n, 1);
    report_ns("shared shape-hash: insert, growth included", ns);
    let beside: usize = writers.iter().map(|w| w.bytes()).sum();
    bytes_each("shared shape-hash: memory a route", table.bytes() + beside, table.len());
    let topics = topics(n);
    let look = || {
        let mut found = 0;
        for t in &topics {
            let mut out = ShardSet::EMPTY;
            table.lookup(t, &mut out);
            found += usize::from(!out.is_empty());
        }
        black_box(found)
    };
    look();
    let start = Cpu::now();
    let found = look();
    report(&format!("shared shape-hash: lookup, {} shapes", table.shapes_in_use()), LOOKUPS, start);
    println!("  {:<52} {:>9.1} %", "lookups with a shard", found as f64 * 100.0 / LOOKUPS as f64);
    let few: Vec<&String> = topics.iter().take(1000).collect();
    let start = Cpu::now();
    for t in few.iter().cycle().take(LOOKUPS) {
        let mut out = ShardSet::EMPTY;
        table.lookup(t, &mut out);
        black_box(out);
    }
    report("shared shape-hash: lookup, 1,000 topics repeated", LOOKUPS, start);
    floor(&topics, n);
    std::thread::scope(|s| {
        for _ in 0..2 {
            s.spawn(|| {
                let start = Cpu::now();
                look();
                report("shared shape-hash: lookup, one of 2 threads", LOOKUPS, start);
            });
        }
    });
    // Several times as many shapes.
    for k in 0..60usize {
        let f: Vec<&str> = (0..5).map(|b| if (k + 1) >> b & 1 == 1 { "+" } else { "q" }).collect();
        let f = f.join("/") + if k >= 31 { "/#" } else { "" };
        writers[0].insert(&f).expect("room");
    }
    look();
    let start = Cpu::now();
    look();
    report(&format!("shared shape-hash: lookup, {} shapes", table.shapes_in_use()), LOOKUPS, start);
    drop((writers, table));

    let mut replica = ShapeMap::default();
    let start = Cpu::now();
    (0..n).for_each(|i| replica.insert(&filter(i), 1 << (i % 64)));
    report("one replica of 64: insert (each of 64 does it)", n, start);
    bytes_each("64 replicas: memory a route", replica.map.allocation_size() * 64, n);
    let start = Cpu::now();
    black_box(topics.iter().map(|t| replica.lookup(t)).fold(0, |a, b| a ^ b));
    report("one replica: lookup", LOOKUPS, start);
    drop(replica);

    let trie = Trie::of(n);
    bytes_each("trie (one thread, no reclaim): memory a route", trie.bytes(), n);
    let start = Cpu::now();
    black_box(topics.iter().map(|t| trie.matches(t)).sum::<usize>());
    report("trie: lookup", LOOKUPS, start);
}

/// What a new filter costs a shard in all: SUBSCRIBE with so many filters decoded, index, session, route,
/// SUBACK; of 1,000 clients in turn, 16 packets a turn.
fn subscribed(n: usize, batch: usize) {
    let (mut shard, mut fx, _) = with_clients(1);
    let (mut spent, mut sent, mut sent_bytes) = (0, 0, Vec::new());
    for from in (0..n).step_by(1024) {
        let filters: Vec<String> = (from..n.min(from + 1024)).map(filter).collect();
        let packets: Vec<_> = filters.chunks(batch).zip(sent..).collect();
        sent += packets.len();
        let bytes = |some: &[String]| {
            let filters = some.iter().flat_map(|f| [field(f), vec![0]].concat());
            packet(0x82, [0, 1].into_iter().chain(filters).collect())
        };
        let packets: Vec<_> = packets.iter().map(|(some, at)| (conn(*at), bytes(some))).collect();
        let (start, now) = (Cpu::now(), NOW);
        for turn in packets.chunks(16) {
            for (conn, bytes) in turn {
                shard.handle(now, Input::Data { conn: *conn, bytes }, &mut fx);
            }
            shard.handle(now, Input::TurnEnd, &mut fx);
            let written = fx.ops.iter().filter_map(|op| match *op {
                Op::Write { conn, len, .. } => Some((conn, len)),
                _ => None,
            });
            sent_bytes.extend(written);
            assert_eq!(sent_bytes.len(), turn.len(), "a SUBACK each");
            fx.clear();
            for (conn, bytes) in sent_bytes.drain(..) {
                shard.handle(now, Input::Sent { conn, bytes }, &mut fx);
            }
            fx.clear();
        }
        spent += start.elapsed_ns();
    }
    report_ns(&format!("engine: SUBSCRIBE of {batch}, each new filter"), spent as f64 / n as f64);
}

const NOW: Now = Now { mono_ns: 1_000_000_000, unix_ms: 1_700_000_000_000 };

const CLIENTS: usize = 1000;

fn conn(client: usize) -> ConnId {
    ConnId { index: (client % CLIENTS) as u32, generation: 0 }
}

fn field(text: &str) -> Vec<u8> {
    [&(text.len() as u16).to_be_bytes()[..], text.as_bytes()].concat()
}

fn packet(first: u8, body: Vec<u8>) -> Vec<u8> {
    let long = [body.len() as u8 | 0x80, (body.len() >> 7) as u8];
    let short = [body.len() as u8];
    [&[first][..], if body.len() < 128 { &short[..] } else { &long[..] }, &body].concat()
}

/// The first shard of a node, with [`CLIENTS`] of its own.
fn with_clients(shards: usize) -> (Shard, Effects, Arc<NodeShared>) {
    let mut cfg = EngineConfig::default();
    (cfg.sys.interval_s, cfg.sys.heartbeat_s) = (0, 0);
    let node = Arc::new(NodeShared::new(shards, SEED, 0, &cfg));
    let mut shard = Shard::new(ShardId(0), Arc::new(cfg), Arc::clone(&node), SEED, NOW);
    let mut fx = Effects::new(shards);
    let at_home = |id: &String| Shard::home(id, SEED, shards) == ShardId(0);
    let ids = (0..).map(|c| format!("client-{c}")).filter(at_home);
    for (c, id) in ids.take(CLIENTS).enumerate() {
        let peer = Peer { addr: ([127, 0, 0, 1], 40_000).into(), listener: 0 };
        shard.handle(NOW, Input::Open { conn: conn(c), peer, proxied: false }, &mut fx);
        let bytes = &packet(0x10, [b"\0\x04MQTT\x04\x02\0\0", &field(&id)[..]].concat());
        shard.handle(NOW, Input::Data { conn: conn(c), bytes }, &mut fx);
        shard.handle(NOW, Input::TurnEnd, &mut fx);
        fx.clear();
    }
    (shard, fx, node)
}

/// What memory alone costs a lookup: a hash of the topic, and one line of 64 bytes among as many as the
/// routes take.
fn floor(topics: &[String], n: usize) {
    let lines: Vec<[u64; 8]> = (0..n.max(2) * 30 / 64).map(|i| [i as u64; 8]).collect();
    let hasher = DefaultHashBuilder::default();
    let start = Cpu::now();
    let mut sum = 0u64;
    for t in topics {
        // The next topic's place depends on this line, as a publish on what is done with the last.
        let hash = hasher.hash_one(t) ^ (sum & 1);
        let line = &lines[((u128::from(hash) * lines.len() as u128) >> 64) as usize];
        sum = sum.wrapping_add(line[(hash & 7) as usize]);
    }
    black_box(sum);
    report("floor: a hash and one line among as many", LOOKUPS, start);
}

fn subs(n: usize) {
    let mut index = SubIndex::new(SEED);
    let start = Cpu::now();
    for i in 0..n {
        index.subscribe(&filter(i), i as u32, SubOpts::new(1, false, false, 0), 0);
    }
    report("index: subscribe", n, start);
    bytes_each("index: memory a subscription, own filter", index.bytes(), n);
    let topics = topics(n);
    let mut out = Vec::new();
    let mut look = |index: &SubIndex, topics: &[String]| {
        let mut found = 0;
        for t in topics {
            out.clear();
            index.matches(t, &mut out);
            found += out.len();
        }
        black_box(found)
    };
    look(&index, &topics);
    let start = Cpu::now();
    let found = look(&index, &topics);
    report("index: matches, 5 shapes", LOOKUPS, start);
    let trie = Trie::of(n);
    bytes_each("trie: memory a filter, texts not kept", trie.bytes(), n);
    let start = Cpu::now();
    let same: usize = black_box(topics.iter().map(|t| trie.matches(t)).sum());
    report("trie: matches", LOOKUPS, start);
    assert_eq!(found, same, "index and trie disagree");
    drop((index, trie));

    for levels in [6, 9, 12] {
        let mut index = SubIndex::new(SEED);
        let (mut map, mut trie) = (ShapeMap::default(), Trie::default());
        for mask in 1..1usize << levels {
            let f: Vec<String> = (0..levels)
                .map(|b| if mask >> b & 1 == 1 { "+".into() } else { format!("{}", b % 2) })
                .collect();
            let f = f.join("/");
            index.subscribe(&f, 1, SubOpts::default(), 0);
            map.insert(&f, 1);
            trie.insert(&f);
        }
        let mut rng = fastrand::Rng::with_seed(SEED);
        let count = 20_000;
        // Each level meets the literal one time in four.
        let topics: Vec<String> = (0..count)
            .map(|_| {
                let l = |b| if rng.u8(..4) == 0 { format!("{}", b % 2) } else { "z".into() };
                (0..levels).map(l).collect::<Vec<_>>().join("/")
            })
            .collect();
        let shapes = (1 << levels) - 1;
        best(&format!("{shapes} shapes: index"), count, || look(&index, &topics));
        best(&format!("{shapes} shapes: trie alone"), count, || {
            topics.iter().map(|t| trie.matches(t)).sum::<usize>()
        });
        best(&format!("{shapes} shapes: hash alone"), count, || {
            topics.iter().map(|t| map.lookup(t)).sum::<u64>()
        });
    }

    let mut index = SubIndex::new(SEED);
    let start = Cpu::now();
    for i in 0..n {
        index.subscribe("popular", i as u32, SubOpts::default(), 0);
    }
    report("popular filter: subscribe", n, start);
    bytes_each("popular filter: memory a subscriber", index.bytes(), n);
    let id = index.find("popular").expect("there");
    let mut order: Vec<u32> = (0..n as u32).collect();
    fastrand::Rng::with_seed(SEED).shuffle(&mut order);
    let start = Cpu::now();
    for s in order {
        black_box(index.unsubscribe(id, s));
    }
    report("popular filter: unsubscribe in random order", n, start);
}

/// Re-arms (a keep-alive or retry timer set anew) among n timers over 5 minutes, then all fire.
fn wheel(n: usize) {
    const SPAN: u64 = 300_000;
    let mut rng = fastrand::Rng::with_seed(SEED);
    let deadlines: Vec<u64> = (0..n).map(|_| rng.u64(1..SPAN)).collect();
    let again: Vec<(usize, u64)> =
        (0..LOOKUPS).map(|_| (rng.usize(..n), rng.u64(1..SPAN))).collect();

    let mut wheel = Wheel::new(0);
    let start = Cpu::now();
    let mut ids: Vec<_> = deadlines.iter().zip(0u64..).map(|(d, i)| wheel.insert(*d, i)).collect();
    report("wheel: insert", n, start);
    let start = Cpu::now();
    for (i, d) in &again {
        wheel.cancel(ids[*i]);
        ids[*i] = wheel.insert(*d, *i as u64);
    }
    report("wheel: cancel + insert", LOOKUPS, start);
    bytes_each("wheel: memory a timer", wheel.bytes(), n);
    let (mut fired, mut turns) = (0, 0);
    let mut out = Vec::new();
    let start = Cpu::now();
    for now in 0..=SPAN {
        while wheel.advance(now, 1024, &mut out) {
            turns += 1;
        }
        fired += out.len();
        out.clear();
    }
    report(&format!("wheel: fire by ms ({turns} calls bounded)"), fired, start);

    let mut map: BTreeMap<(u64, u32), u64> = BTreeMap::new();
    let mut at = deadlines.clone();
    let start = Cpu::now();
    for (d, i) in deadlines.iter().zip(0u32..) {
        map.insert((*d, i), u64::from(i));
    }
    report("BTreeMap: insert", n, start);
    let start = Cpu::now();
    for (i, d) in &again {
        map.remove(&(at[*i], *i as u32));
        map.insert((*d, *i as u32), *i as u64);
        at[*i] = *d;
    }
    report("BTreeMap: cancel + insert", LOOKUPS, start);
    let start = Cpu::now();
    for now in 0..=SPAN {
        while map
            .first_entry()
            .filter(|e| e.key().0 <= now)
            .is_some_and(|e| black_box(e.remove()) < u64::MAX)
        {}
    }
    report("BTreeMap: fire by ms", n, start);

    let mut heap = BinaryHeap::new();
    let mut generation = vec![0u32; n];
    let start = Cpu::now();
    for (d, i) in deadlines.iter().zip(0u32..) {
        heap.push((u64::MAX - d, i, 0u32));
    }
    report("BinaryHeap: insert", n, start);
    let start = Cpu::now();
    for (i, d) in &again {
        generation[*i] += 1;
        heap.push((u64::MAX - d, *i as u32, generation[*i]));
    }
    report("BinaryHeap: cancel (lazily) + insert", LOOKUPS, start);
    let start = Cpu::now();
    for now in 0..=SPAN {
        while let Some(top) = heap.peek().filter(|t| t.0 >= u64::MAX - now) {
            black_box(generation[top.1 as usize] == top.2);
            heap.pop();
        }
    }
    report("BinaryHeap: fire by ms", n, start);
}

fn retained(n: usize) {
    let message = |topic: &str| {
        let mut out = Outgoing::internal(topic, b"{\"value\":12345}", 3_600_000, true);
        out.publisher = 0x9e37_79b9_7f4a_7c15; // a client's: the broker's own need no name
        out.own()
    };
    let topic = |i: usize| format!("site/{}/dev/{i}/temp", i % 1000);
    let messages: Vec<_> = (0..n).map(|i| message(&topic(i))).collect();
    let resident = resident_bytes();
    let mut store = RetainedStore::new(usize::MAX, usize::MAX);
    let start = Cpu::now();
    for m in &messages {
        store.set(Arc::clone(m)).expect("room");
    }
    report("set, new topic of 2 own levels", n, start);
    bytes_each("topic and payload", store.content_bytes(), n);
    beside_each("memory beside, as the store counts", store.memory_bytes(), &store);
    let grown = resident_bytes() - resident;
    beside_each("memory beside, as the kernel counts", grown, &store);
    let start = Cpu::now();
    for m in &messages {
        black_box(store.set(Arc::clone(m)).is_ok());
    }
    report("set, replacing", n, start);
    let start = Cpu::now();
    for t in topics(n) {
        black_box(store.get(&t, 0).is_some());
    }
    report("get (and making the text)", LOOKUPS, start);
    for f in ["#", "site/+/dev/+/temp", "site/7/dev/#", "site/+/dev/7/temp"] {
        replay(&store, f);
    }
    let start = Cpu::now();
    for m in &messages {
        black_box(store.clear(m.topic()));
    }
    report("clear", n, start);
    bytes_each("memory left", store.memory_bytes(), n);
    drop(store);
    one_by_plus(n);
    retained_sorted(&messages);
}

/// What a message takes beside its topic and payload. Less than nothing, when topics begin alike.
fn beside_each(what: &str, bytes: usize, store: &RetainedStore) {
    let beside = bytes as f64 - store.content_bytes() as f64;
    println!("  {what:<52} {:>9.1} B", beside / store.len() as f64);
}

/// In pages of 64; again and again if it is short, as the clock is coarse.
fn replay(store: &RetainedStore, filter: &str) {
    let (mut found, mut pages, mut rounds) = (0, 0u32, 0);
    let mut out = Vec::new();
    let start = Cpu::now();
    while pages < 10_000 {
        let mut cursor = RetainedCursor::default();
        loop {
            let done = store.page(filter, &mut cursor, 64, 1 << 20, 0, &mut out);
            found += out.len();
            pages += 1;
            out.clear();
            if done {
                break;
            }
        }
        rounds += 1;
    }
    let (one, pages) = (found / rounds, pages as usize / rounds);
    report(&format!("{filter}: {one} found in {pages} pages, each"), found.max(1), start);
}

/// Memory of the process that is in use.
fn resident_bytes() -> usize {
    let statm = std::fs::read_to_string("/proc/self/statm").expect("Linux");
    statm.split(' ').nth(1).and_then(|pages| pages.parse::<usize>().ok()).expect("pages") * 4096
}

/// A subscription with `+` that finds ten messages, among more and more that it does not.
fn one_by_plus(n: usize) {
    for stored in [1_000, 10_000, 100_000, 1_000_000].into_iter().filter(|stored| *stored <= n) {
        let mut store = RetainedStore::new(usize::MAX, usize::MAX);
        for i in 0..stored {
            let topic = format!("site/{}/dev/{}/temp", i / 10, i % 10);
            store.set(Outgoing::internal(&topic, b"21.5", 0, true).own()).expect("room");
        }
        let mut rng = fastrand::Rng::with_seed(SEED);
        let filters: Vec<String> =
            (0..10_000).map(|_| format!("site/{}/dev/+/temp", rng.usize(..stored / 10))).collect();
        let (mut out, mut found, rounds) = (Vec::new(), 0, 10);
        let start = Cpu::now();
        for filter in (0..rounds).flat_map(|_| &filters) {
            let mut cursor = RetainedCursor::default();
            while !store.page(filter, &mut cursor, 64, 1 << 20, 0, &mut out) {}
            found += out.len();
            out.clear();
        }
        report(&format!("`+` that finds 10 of {stored}"), rounds * filters.len(), start);
        assert_eq!(found, 10 * rounds * filters.len());
    }
}

/// The alternative to the tree of levels: topics in order, a cursor being a topic.
fn retained_sorted(messages: &[Arc<Message>]) {
    let mut map: BTreeMap<OwnTopic, Arc<Message>> = BTreeMap::new();
    let start = Cpu::now();
    for m in messages {
        map.insert(OwnTopic(Arc::clone(m)), Arc::clone(m));
    }
    report("sorted topics: set, new topic", messages.len(), start);
    let start = Cpu::now();
    for m in messages {
        black_box(map.insert(OwnTopic(Arc::clone(m)), Arc::clone(m)));
    }
    report("sorted topics: set, replacing", messages.len(), start);
    let start = Cpu::now();
    for t in topics(messages.len()) {
        black_box(map.contains_key(t.as_str()));
    }
    report("sorted topics: get (and making the text)", LOOKUPS, start);
    let (mut found, mut last) = (0, String::new());
    let start = Cpu::now();
    loop {
        let from = (Bound::Excluded(last.as_str()), Bound::Unbounded);
        let page: Vec<_> = map.range::<str, _>(from).take(64).map(|(_, m)| m).collect();
        let Some(end) = page.last() else { break };
        last = end.topic().to_owned();
        found += page.len();
    }
    report("sorted topics: #, in pages of 64", found, start);
    let (mut found, start) = (0, Cpu::now());
    for m in map.values() {
        let levels: Vec<&str> = m.topic().split('/').collect();
        found += usize::from(matches!(levels[..], ["site", _, "dev", "7", "temp"]));
    }
    report("sorted topics: site/+/dev/7/temp, by looking at all", found.max(1), start);
}

/// A topic where its message has it.
struct OwnTopic(Arc<Message>);

impl Borrow<str> for OwnTopic {
    fn borrow(&self) -> &str {
        self.0.topic()
    }
}

impl Ord for OwnTopic {
    fn cmp(&self, other: &Self) -> Ordering {
        self.0.topic().cmp(other.0.topic())
    }
}

impl PartialOrd for OwnTopic {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for OwnTopic {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for OwnTopic {}

/// Fingerprints with a 64-shard set in a plain map: what a replica in each shard would be.
#[derive(Default)]
struct ShapeMap {
    map: HashMap<u64, u64>,
    shapes: HashMap<(usize, u64, bool), u32>,
    hasher: DefaultHashBuilder,
}

impl ShapeMap {
    fn level(&self, at: usize, text: &str) -> u64 {
        self.hasher.hash_one((at, text))
    }

    fn key(sum: u64, levels: usize, multi: bool) -> u64 {
        (sum ^ (levels * 2 + usize::from(multi)) as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15)
    }

    fn insert(&mut self, filter: &str, bits: u64) {
        let (mut sum, mut plus, mut levels, mut multi) = (0u64, 0u64, 0, false);
        for (i, text) in filter.split('/').enumerate() {
            if text == "#" {
                multi = true;
                break;
            }
            plus |= u64::from(text == "+") << i;
            sum = sum.wrapping_add(self.level(i, text));
            levels += 1;
        }
        *self.shapes.entry((levels, plus, multi)).or_insert(0) += 1;
        *self.map.entry(Self::key(sum, levels, multi)).or_insert(0) |= bits;
    }

    fn lookup(&self, topic: &str) -> u64 {
        let (mut sums, mut swaps, mut n) = ([0u64; 17], [0u64; 17], 0);
        for text in topic.split('/').take(16) {
            let hash = self.level(n, text);
            sums[n + 1] = sums[n].wrapping_add(hash);
            swaps[n] = self.level(n, "+").wrapping_sub(hash);
            n += 1;
        }
        let mut out = 0;
        for (levels, plus, multi) in self.shapes.keys() {
            if *levels > n || !multi && *levels != n {
                continue;
            }
            let (mut sum, mut rest) = (sums[*levels], *plus);
            while rest != 0 {
                sum = sum.wrapping_add(swaps[rest.trailing_zeros() as usize]);
                rest &= rest - 1;
            }
            out |= self.map.get(&Self::key(sum, *levels, *multi)).copied().unwrap_or(0);
        }
        out
    }
}

/// A flat trie: children by (node, hash of the level) in one map.
#[derive(Default)]
struct Trie {
    children: HashMap<(u32, u64), u32>,
    /// Filters that end at a node, and those that go on with `#` there.
    ends: Vec<(u32, u32)>,
    hasher: DefaultHashBuilder,
}

impl Trie {
    fn of(n: usize) -> Self {
        let mut trie = Self::default();
        let start = Cpu::now();
        (0..n).for_each(|i| trie.insert(&filter(i)));
        report("trie: insert", n, start);
        trie
    }

    fn bytes(&self) -> usize {
        self.children.allocation_size() + self.ends.capacity() * 8
    }

    fn insert(&mut self, filter: &str) {
        let mut node = 0;
        self.ends.resize(self.ends.len().max(1), (0, 0));
        for text in filter.split('/') {
            if text == "#" {
                self.ends[node as usize].1 += 1;
                return;
            }
            let next = self.ends.len() as u32;
            node = *self.children.entry((node, self.hasher.hash_one(text))).or_insert(next);
            if node == next {
                self.ends.push((0, 0));
            }
        }
        self.ends[node as usize].0 += 1;
    }

    fn matches(&self, topic: &str) -> usize {
        let plus = self.hasher.hash_one("+");
        let (mut reached, mut next, mut found) = (vec![0u32], Vec::new(), 0);
        for text in topic.split('/') {
            let hash = self.hasher.hash_one(text);
            for node in &reached {
                found += self.ends[*node as usize].1 as usize;
                next.extend(self.children.get(&(*node, hash)));
                next.extend(self.children.get(&(*node, plus)));
            }
            std::mem::swap(&mut reached, &mut next);
            next.clear();
        }
        for node in &reached {
            let (end, multi) = self.ends[*node as usize];
            found += (end + multi) as usize;
        }
        found
    }
}
