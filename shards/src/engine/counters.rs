//! Counters of one shard. Plain integers: only the shard itself writes them.

/// Why a copy of a message was not delivered. Each has a counter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum DropReason {
    /// The queue of the session was full (Q04).
    QueueFull,
    /// QoS 0 for an offline session, or for one whose socket does not take it (Q06).
    Qos0,
    /// The message expired in a queue. [S-12]
    Expired,
    /// Larger than the client's Maximum Packet Size. [S-30]
    TooLarge,
    /// The session ended with the message still queued.
    SessionEnded,
    /// Shared group without members, or its queue was full. [S-66]
    GroupEnded,
    /// The memory watermark was reached (Q08).
    MemoryPressure,
    /// The client refused it with PUBACK or PUBREC >= 0x80. [S-65]
    Refused,
}

/// Counters of one shard.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Bytes received from sockets.
    pub bytes_received: u64,
}
