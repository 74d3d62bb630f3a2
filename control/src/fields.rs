//! Plain structs of the data plane as names and numbers. Taken apart without `..`, so that a new field does not
//! compile until it has a name here.

use ringmain_shards::engine::counters::Gauges;
use ringmain_shards::observe::MemoryUse;

/// What a shard holds.
pub(crate) fn gauges(g: &Gauges) -> [(&'static str, u64); 10] {
    let Gauges {
        connections,
        sockets,
        sessions,
        filters,
        subscriptions,
        shared_subscriptions,
        retained,
        queued,
        inflight,
        group_queued,
    } = *g;
    [
        ("connections", connections),
        ("sockets", sockets),
        ("sessions", sessions),
        ("filters", filters),
        ("subscriptions", subscriptions),
        ("shared_subscriptions", shared_subscriptions),
        ("retained", retained),
        ("queued", queued),
        ("inflight", inflight),
        ("group_queued", group_queued),
    ]
}

/// Memory by component, bytes.
pub(crate) fn memory(m: &MemoryUse) -> [(&'static str, u64); 6] {
    let MemoryUse { connections, sessions, subscriptions, queues, retained, buffers } = *m;
    [
        ("connections", connections),
        ("sessions", sessions),
        ("subscriptions", subscriptions),
        ("queues", queues),
        ("retained", retained),
        ("buffers", buffers),
    ]
}
