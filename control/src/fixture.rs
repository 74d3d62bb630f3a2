//! Nodes built by hand, for tests.

use ringmain_shards::engine::counters::{Counters, Gauges};
use ringmain_shards::engine::ids::ShardId;
use ringmain_shards::observe::{NodeView, Stage, Trace};

/// A node whose shards all answered, and have done nothing.
pub(crate) fn view(shards: u16) -> NodeView {
    let mut view = crate::fake::view(shards);
    for report in view.shards.iter_mut().filter_map(|s| s.report.as_mut()) {
        report.counters = Counters::default();
        report.gauges = Gauges::default();
    }
    view
}

/// A message that spent so many ns in these stages.
pub(crate) fn followed(subscriber: &str, topic: &str, spans: &[(Stage, u64)]) -> Trace {
    let mut spans_ns = [0; Stage::COUNT];
    spans.iter().for_each(|(stage, ns)| spans_ns[*stage as usize] = *ns);
    Trace {
        read_unix_ms: 0,
        publisher: "p".into(),
        subscriber: subscriber.into(),
        topic: topic.into(),
        qos: 1,
        payload_bytes: 10,
        from: ShardId(0),
        to: ShardId(0),
        spans_ns,
        send_unseen: false,
    }
}
