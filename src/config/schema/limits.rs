//! `[limits]`, `[overload]` and `[reactor]`: what the broker may use, and what it does when that is
//! not enough.

use ringmain_shards::engine::rates::Rate;

use crate::config::field::choice;
use crate::config::section::section;

section! {
    /// What the whole broker may hold. `[[listeners]]` and `[mqtt]` limit single ones.
    pub struct Limits {
        /// Open connections. Each shard gets as many rings as this and the limit on descriptors
        /// make necessary. Further connections wait in the backlog.
        max_connections: u32 = 100_000, [1..=16_777_216], Restart;
        /// New connections a second over all listeners. 0: no limit. Further ones get what their
        /// listener's connection_rate_mode says.
        max_connection_rate_per_s: u32 = 0, [0..=1_000_000], Live;
        /// PUBLISH packets of all clients together, such as "50k/s". "0": no limit. Those of one client: message_rate
        /// in `[mqtt]`, which also says what happens above it (rate_action).
        message_rate: Rate = Rate::default(), Live;
        /// Bytes of these packets. "0": no limit.
        byte_rate: Rate = Rate::default(), Live;
        /// Filters in SUBSCRIBE packets of all clients. "0": no limit.
        subscribe_rate: Rate = Rate::default(), Live;
        /// Messages to all clients; further ones wait in their queues, as for a slow consumer. "0": no limit.
        delivery_rate: Rate = Rate::default(), Live;
        /// Topic and payload bytes of these messages. "0": no limit.
        delivery_byte_rate: Rate = Rate::default(), Live;
        /// Sessions, with those of absent clients. 0: no limit. Above it a new client gets
        /// CONNACK 0x97.
        max_sessions: u32 = 0, [0..=16_777_216], Live;
        /// Distinct filters with a subscriber. 0: no limit. Above it a SUBSCRIBE gets 0x97 for each
        /// filter that nobody on the client's shard has.
        max_routes: u32 = 0, [0..=4_294_967_295], Live;
        /// Connections of one shard that have not sent a whole CONNECT yet. Further ones wait in
        /// the backlog.
        max_handshakes_per_shard: u32 = 4_096, [1..=1_048_576], Live;
        /// Memory of the process above which new connections are refused, QoS 0 messages dropped and
        /// publishers of QoS 1 and 2 told 0x97. 0: 80 % of what the control group or machine has; in a
        /// control group with a limit, what that is charged for counts, sockets included.
        memory_high_bytes: u64 = 0, [0..=17_592_186_044_416], Live;
        /// Memory above which publishers are paused too. 0: 90 %.
        memory_critical_bytes: u64 = 0, [0..=17_592_186_044_416], Live;
        /// Topic, property and payload bytes in the queues of all sessions and shared groups; in each
        /// queue a message counts anew. Shards tell each other once a turn, so it may be exceeded
        /// for a moment. Above it the queue that a message is for counts as full. 0: no limit but
        /// memory.
        max_queued_bytes: u64 = 0, [0..=17_592_186_044_416], Live;
        /// Bytes that wait for one connection's socket. Above it the client is a slow consumer; a
        /// single larger packet is sent when nothing else waits.
        out_buffer_bytes_max: u32 = 1_048_576, [4_096..=1_073_741_824], Live;
        /// What a slow consumer gets. "drop_qos0": its QoS 0 messages are dropped, others wait in
        /// its queue; "disconnect": the same, and it is closed after slow_consumer_grace_s.
        slow_consumer_policy: SlowConsumerPolicy = SlowConsumerPolicy::DropQos0, Live;
        /// Time that a client may be a slow consumer before it is closed with 0x97.
        slow_consumer_grace_s: u32 = 30, [1..=86_400], Live;
        /// Batches of mail that wait for one shard: a batch is what another shard has for it in one
        /// turn. When full, the senders stop reading publishers of messages for it.
        mailbox_batches: u32 = 4_096, [16..=1_048_576], Restart;
    }
}

section! {
    /// What the broker does when a shard falls behind: first refuse new connections, then drop
    /// QoS 0, then pause publishers; never drop what it acknowledged.
    pub struct Overload {
        /// Whether it does anything. Off: only `[limits]` hold, with the memory marks.
        enabled: bool = true, Live;
        /// Time between looks at lag, memory and descriptors. An idle shard is not woken for it.
        check_interval_ms: u32 = 100, [10..=60_000], Live;
        /// Time that a turn of a shard may be late before it refuses new connections.
        lag_refuse_ms: u32 = 500, [1..=600_000], Live;
        /// The same before it drops QoS 0 messages.
        lag_drop_qos0_ms: u32 = 1_000, [1..=600_000], Live;
        /// The same before it pauses publishers.
        lag_pause_ms: u32 = 2_000, [1..=600_000], Live;
        /// Share of RLIMIT_NOFILE, in percent, above which new connections are refused. Counted are
        /// ordinary descriptors; those of clients are not, as they live in the rings.
        descriptors_high_percent: u8 = 95, [1..=100], Live;
        /// Time that the lag must stay below a measure's mark before the measure is lifted.
        recovery_ms: u32 = 2_000, [0..=600_000], Live;
    }
}

section! {
    /// The rings between a shard and the kernel. The defaults suit almost everybody.
    pub struct Reactor {
        /// Size of a receive buffer.
        recv_buffer_bytes: u32 = 4_096, [256..=65_536], Restart;
        /// Receive buffers of a shard's first ring, shared by its connections; its further rings have
        /// a quarter each. A power of two.
        recv_buffers_per_ring: u32 = 512, [16..=32_768], Restart;
        /// Rings of a shard. 0: as many as the limit on descriptors makes necessary.
        rings_per_shard: u32 = 0, [0..=256], Restart;
        /// Connections of a ring. 0: what the limit on descriptors allows.
        max_connections_per_ring: u32 = 0, [0..=4_194_304], Restart;
        /// Completions that a ring holds. A power of two.
        cq_entries: u32 = 65_536, [1_024..=65_536], Restart;
        /// Time that a shard looks for work before it sleeps. Costs a core, saves a wake.
        busy_wait_us: u32 = 0, [0..=1_000_000], Restart;
    }
}

choice! {
    /// What a slow consumer gets.
    pub enum SlowConsumerPolicy {
        /// Its QoS 0 messages are dropped.
        DropQos0 = "drop_qos0",
        /// The same, and it is closed after a time.
        Disconnect = "disconnect",
    }
}
