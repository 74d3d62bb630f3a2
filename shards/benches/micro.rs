//! One step at a time: decode, encode, match, timer wheel, mail hop.
//!
//! ```sh
//! cargo bench -p ringmain-shards --bench micro [-- FILTER]
//! ```
//!
//! With divan, not criterion: it compiles in seconds where criterion brings plotting and a statistics
//! library, shows the spread beside the median, and runs a step on several threads. Times compare one
//! machine with itself; what decides in CI is instructions (`cargo xtask ci instructions`).

mod steps;

use divan::Bencher;
use divan::counter::ItemsCount;
use ringmain_mqtt::Version;

const VERSIONS: [Version; 2] = [Version::V311, Version::V5];

fn main() {
    divan::main();
}

#[divan::bench(args = VERSIONS)]
fn decode_publish(bencher: Bencher, version: Version) {
    bencher.bench_local(steps::decode_publish(version));
}

#[divan::bench(args = VERSIONS)]
fn encode_publish(bencher: Bencher, version: Version) {
    bencher.bench_local(steps::encode_publish(version));
}

/// On one thread, and on as many as there are cores.
#[divan::bench(threads = [1, 0])]
fn route_lookup(bencher: Bencher) {
    bencher.counter(ItemsCount::new(steps::TOPICS)).bench(steps::route_lookup());
}

#[divan::bench]
fn route_insert_and_remove(bencher: Bencher) {
    bencher.bench_local(steps::route_churn());
}

#[divan::bench]
fn index_matches(bencher: Bencher) {
    bencher.counter(ItemsCount::new(steps::TOPICS)).bench_local(steps::index_matches());
}

#[divan::bench]
fn wheel_rearm(bencher: Bencher) {
    bencher.bench_local(steps::wheel_rearm());
}

#[divan::bench(args = [1, 16, 256])]
fn mail_hop(bencher: Bencher, messages: usize) {
    bencher.counter(ItemsCount::new(messages)).bench_local(steps::mail_hop(messages));
}
