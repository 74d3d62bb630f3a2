//! What a decision costs: `cargo bench -p ringmain-acl --bench decide`.
//!
//! `cold_*` asks a gate without a cache, `warm_*` one with; the number is that of rules. `client_*`
//! is what a CONNECT pays. Decision record 0022 has the figures.

use std::sync::Arc;

use divan::{Bencher, black_box};
use ringmain_acl::{
    Action, CACHE_PLACES, ClientPolicy, Effect, Gate, Policy, Settings, Source, Subject,
};
use ringmain_mqtt::QoS;

const PUBLISH: Action = Action::Publish { qos: QoS::AtMostOnce, retain: false };
const SUBSCRIBE: Action = Action::Subscribe { qos: QoS::AtMostOnce };
const COUNTS: [usize; 4] = [3, 10, 100, 1000];

fn main() {
    memory();
    divan::main();
}

/// Rules for everybody, all below one first level, the last of which matches.
fn below_one_level(count: usize) -> String {
    let rule = |n: usize| format!("{{allow, all, all, [\"plant/line-{n}/+/state\"]}}.\n");
    (0..count).map(rule).collect()
}

/// Half of the rules for one user each, the rest for everybody.
fn mixed(count: usize) -> String {
    let rule = |n: usize| match n % 2 {
        0 => format!("{{allow, {{username, \"user-{n}\"}}, all, [\"users/{n}/#\"]}}.\n"),
        _ => format!("{{allow, all, publish, [\"plant/line-{n}/#\"]}}.\n"),
    };
    (0..count).map(rule).collect()
}

fn policy(text: &str) -> Arc<Policy> {
    let source = Source::emqx("acl.conf", text).expect("valid");
    Policy::compile(1, vec![source], Settings::new(Effect::Deny))
}

fn default_policy() -> Arc<Policy> {
    Policy::compile(1, vec![Source::default_policy()], Settings::new(Effect::Deny))
}

fn subject<'a>() -> Subject<'a> {
    let peer = Some([192, 0, 2, 1].into());
    Subject { client_id: "sensor-000001", username: Some("user-0"), peer, ..Subject::default() }
}

fn setup(policy: Arc<Policy>, places: usize) -> (Gate, ClientPolicy) {
    let mut gate = Gate::with_cache(policy, places);
    let client = gate.client(&subject(), None);
    (gate, client)
}

#[divan::bench(args = COUNTS)]
fn cold_last_of(bencher: Bencher, count: usize) {
    let (mut gate, client) = setup(policy(&below_one_level(count)), 0);
    let topic = format!("plant/line-{}/press-7/state", count - 1);
    bencher.bench_local(|| gate.decide(black_box(&client), PUBLISH, black_box(&topic)));
}

#[divan::bench(args = COUNTS)]
fn cold_none_of(bencher: Bencher, count: usize) {
    let (mut gate, client) = setup(policy(&below_one_level(count)), 0);
    bencher.bench_local(|| {
        gate.decide(black_box(&client), PUBLISH, black_box("plant/x/press-7/state"))
    });
}

#[divan::bench(args = COUNTS)]
fn cold_subscribe_last_of(bencher: Bencher, count: usize) {
    let (mut gate, client) = setup(policy(&below_one_level(count)), 0);
    let topic = format!("plant/line-{}/+/state", count - 1);
    bencher.bench_local(|| gate.decide(black_box(&client), SUBSCRIBE, black_box(&topic)));
}

#[divan::bench]
fn cold_default_policy(bencher: Bencher) {
    let (mut gate, client) = setup(default_policy(), 0);
    bencher.bench_local(|| {
        gate.decide(black_box(&client), PUBLISH, black_box("plant/line-1/press-7/state"))
    });
}

#[divan::bench]
fn cold_placeholder(bencher: Bencher) {
    let text = "{allow, all, all, [\"home/${clientid}/#\"]}.";
    let (mut gate, client) = setup(policy(text), 0);
    bencher.bench_local(|| {
        gate.decide(black_box(&client), PUBLISH, black_box("home/sensor-000001/temp"))
    });
}

#[divan::bench(args = COUNTS)]
fn warm(bencher: Bencher, count: usize) {
    let (mut gate, client) = setup(policy(&below_one_level(count)), CACHE_PLACES);
    let topic = format!("plant/line-{}/press-7/state", count - 1);
    bencher.bench_local(|| gate.decide(black_box(&client), PUBLISH, black_box(&topic)));
}

#[divan::bench]
fn warm_default_policy(bencher: Bencher) {
    let (mut gate, client) = setup(default_policy(), CACHE_PLACES);
    bencher.bench_local(|| {
        gate.decide(black_box(&client), PUBLISH, black_box("plant/line-1/press-7/state"))
    });
}

/// So many clients in turn, each with its own topic, on one shard: how the table of a shard fares
/// against a table in each client. One operation is one decision.
const CLIENTS: [usize; 4] = [100, 1_000, 10_000, 100_000];

fn topics(clients: usize) -> Vec<String> {
    (0..clients).map(|n| format!("plant/line-{}/press-{n}/state", n % 1000)).collect()
}

#[divan::bench(args = CLIENTS, consts = [1024, 4096])]
fn turns_table_of_the_shard<const PLACES: usize>(bencher: Bencher, clients: usize) {
    let (mut gate, client) = setup(policy(&below_one_level(1000)), PLACES);
    let (topics, mut at) = (topics(clients), 0);
    bencher.bench_local(|| {
        at = if at + 1 == clients { 0 } else { at + 1 };
        gate.decide(black_box(&client), PUBLISH, black_box(&topics[at]))
    });
}

#[divan::bench(args = CLIENTS)]
fn turns_no_table(bencher: Bencher, clients: usize) {
    let (mut gate, client) = setup(policy(&below_one_level(1000)), 0);
    let (topics, mut at) = (topics(clients), 0);
    bencher.bench_local(|| {
        at = if at + 1 == clients { 0 } else { at + 1 };
        gate.decide(black_box(&client), PUBLISH, black_box(&topics[at]))
    });
}

/// The alternative: each client has a gate's cache of its own, of 32 places.
#[divan::bench(args = [100, 1_000, 10_000])]
fn turns_table_of_the_client(bencher: Bencher, clients: usize) {
    let policy = policy(&below_one_level(1000));
    let mut gates: Vec<_> = (0..clients).map(|_| setup(Arc::clone(&policy), 32)).collect();
    let (topics, mut at) = (topics(clients), 0);
    bencher.bench_local(|| {
        at = if at + 1 == clients { 0 } else { at + 1 };
        let (gate, client) = &mut gates[at];
        gate.decide(black_box(client), PUBLISH, black_box(&topics[at]))
    });
}

#[divan::bench(args = COUNTS)]
fn client_of(bencher: Bencher, count: usize) {
    let mut gate = Gate::new(policy(&mixed(count)));
    let _alive = gate.client(&subject(), None);
    bencher.bench_local(|| gate.client(black_box(&subject()), None));
}

#[divan::bench]
fn client_with_placeholder(bencher: Bencher) {
    let mut gate = Gate::new(policy("{allow, all, all, [\"home/${clientid}/#\"]}."));
    bencher.bench_local(|| gate.client(black_box(&subject()), None));
}

fn memory() {
    let bytes = |policy: Arc<Policy>| setup(policy, 0).1.bytes();
    println!("a client: {} bytes, and what it points to:", size_of::<ClientPolicy>());
    println!("  default policy: {}, shared by all alike", bytes(default_policy()));
    println!(
        "  home/${{clientid}}/#: {}, its own",
        bytes(policy("{allow, all, all, [\"home/${clientid}/#\"]}."))
    );
    println!("a gate: {} bytes of cache", Gate::new(default_policy()).cache_bytes());
}
