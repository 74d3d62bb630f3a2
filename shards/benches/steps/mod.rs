//! The steps of a message, one at a time, as `micro` times and `engine` counts them.

use std::hint::black_box;
use std::sync::Arc;

use ringmain_mqtt::{Forward, PublishOut, QoS, Role, Rules, Version, decode, header};
use ringmain_shards::engine::ids::{ShardId, ShardSet};
use ringmain_shards::engine::message::Outgoing;
use ringmain_shards::engine::packed::Batch;
use ringmain_shards::engine::route::{RouteTable, RouteWriter};
use ringmain_shards::engine::subs::{SubIndex, SubOpts};
use ringmain_shards::engine::wheel::Wheel;
use ringmain_shards::mesh::{Delivery, Mailbox};

const TOPIC: &str = "site/17/dev/4711/temp";
const SEED: u64 = 42;
/// Filters in the tables: those that fit a core's cache.
const FILTERS: usize = 20_000;
/// Topics looked up in turn.
pub(crate) const TOPICS: usize = 1024;

fn head(payload_len: usize) -> PublishOut<'static> {
    PublishOut {
        dup: false,
        qos: QoS::AtLeastOnce,
        retain: false,
        topic: TOPIC,
        packet_id: 7,
        message_expiry_s: None,
        topic_alias: None,
        subscription_ids: &[],
        forward: Forward::default(),
        payload_len,
    }
}

/// A PUBLISH with QoS 1 and 42 bytes, from bytes to fields.
pub(crate) fn decode_publish(version: Version) -> impl FnMut() {
    let mut bytes = Vec::new();
    head(42).encode_head(&mut bytes, version);
    bytes.extend_from_slice(&[b'x'; 42]);
    let rules = Rules::default();
    move || {
        let h = header(black_box(&bytes), false).expect("valid").expect("whole");
        let body = &bytes[bytes.len() - h.remaining as usize..];
        assert!(black_box(decode(h, body, version, Role::Server, &rules)).is_ok());
    }
}

/// The head of the same, into a buffer that is there.
pub(crate) fn encode_publish(version: Version) -> impl FnMut() {
    let mut out = Vec::with_capacity(256);
    move || {
        out.clear();
        black_box(&head(42)).encode_head(&mut out, version);
        black_box(&out);
    }
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

fn topics() -> Vec<String> {
    let mut rng = fastrand::Rng::with_seed(SEED);
    let topic = |i: usize| format!("site/{}/dev/{i}/temp", i % 1000);
    (0..TOPICS).map(|_| topic(rng.usize(..FILTERS))).collect()
}

/// Which shards may have subscribers for each of [`TOPICS`] topics, among 20,000 routes.
pub(crate) fn route_lookup() -> impl Fn() + Sync {
    let table = Arc::new(RouteTable::new(16, SEED));
    let mut writers: Vec<RouteWriter> = (0..16).map(|s| table.writer(ShardId(s))).collect();
    (0..FILTERS).for_each(|i| writers[i % 16].insert(&filter(i)).expect("room"));
    while writers.iter_mut().fold(false, |more, w| w.maintain(1 << 16) | more) {}
    let topics = topics();
    move || {
        let mut out = ShardSet::EMPTY;
        topics.iter().for_each(|topic| table.lookup(topic, &mut out));
        black_box(out);
    }
}

/// Another 20,000 routes in and out, one at a time, each.
pub(crate) fn route_churn() -> impl FnMut() {
    let table = Arc::new(RouteTable::new(16, SEED));
    let mut writers: Vec<RouteWriter> = (0..16).map(|s| table.writer(ShardId(s))).collect();
    (0..FILTERS).for_each(|i| writers[i % 16].insert(&filter(i)).expect("room"));
    let filters: Vec<String> = (FILTERS..2 * FILTERS).map(filter).collect();
    let mut next = 0;
    move || {
        let (writer, filter) = (&mut writers[next % 16], &filters[next % FILTERS]);
        writer.insert(filter).expect("room");
        writer.remove(filter);
        next += 1;
    }
}

/// Which subscriptions match each of [`TOPICS`] topics, among 20,000 filters.
pub(crate) fn index_matches() -> impl FnMut() {
    let mut index = SubIndex::new(SEED);
    for i in 0..FILTERS {
        index.subscribe(&filter(i), i as u32, SubOpts::new(1, false, false, 0), 0);
    }
    let (topics, mut out) = (topics(), Vec::new());
    move || {
        out.clear();
        topics.iter().for_each(|topic| index.matches(topic, &mut out));
        black_box(&out);
    }
}

/// A timer set anew among 100,000 over five minutes.
pub(crate) fn wheel_rearm() -> impl FnMut() {
    let mut rng = fastrand::Rng::with_seed(SEED);
    let mut wheel = Wheel::new(0);
    let mut ids: Vec<_> = (0..100_000u32).map(|i| wheel.insert(rng.u64(1..300_000), i)).collect();
    move || {
        let i = rng.usize(..ids.len());
        wheel.cancel(ids[i]);
        ids[i] = wheel.insert(rng.u64(1..300_000), i as u32);
    }
}

/// So many small messages from shard to shard in one batch: packed, into the mailbox, and out again.
pub(crate) fn mail_hop(messages: usize) -> impl FnMut() {
    let mailbox = Mailbox::new(1024);
    let mut spare = Batch::default();
    move || {
        let mut batch = std::mem::take(&mut spare);
        for _ in 0..messages {
            batch.push_publish(&mut Outgoing::internal(TOPIC, &[b'x'; 42], 0, false));
        }
        assert!(mailbox.push(Delivery::Batch { from: ShardId(1), sent: 0, batch }).is_ok(), "room");
        let Some(Delivery::Batch { mut batch, .. }) = mailbox.pop() else { return };
        for mail in batch.mail.drain(..) {
            black_box(mail.publish(&batch.packed).map(|out| out.payload.len()));
        }
        batch.clear();
        spare = batch;
    }
}
