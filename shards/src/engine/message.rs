//! An application message inside the node.

use bytes::Bytes;
use ringmain_mqtt::QoS;

/// Payloads of at least this many bytes are shared with the sockets instead of copied into each
/// connection's pending buffer: above it a copy costs more than a second send.
pub const SHARED_PAYLOAD_MIN: usize = 16 * 1024;

/// An application message. Shared by `Arc` among queues and shards; never changes.
///
/// Topic, properties to forward and payload lie in one buffer in this order.
#[derive(Clone, Debug)]
pub struct Message {
    /// Topic, then forwarded properties, then payload.
    pub data: Bytes,
    /// End of the topic in `data`; 1..=65,535.
    pub topic_end: u32,
    /// End of the forwarded properties in `data`.
    pub props_end: u32,
    /// Hash of the client id that published it (seeded), 0 = the broker itself.
    pub publisher: u64,
    /// Ingress, in [`Now::mono_ms`](super::ids::Now::mono_ms).
    pub created_ms: u64,
    /// Message expiry interval in seconds; `u32::MAX` = none.
    pub expiry_s: u32,
    /// Quality of service as published.
    pub qos: QoS,
    /// RETAIN flag as published.
    pub retain: bool,
    /// Whether the expiry interval came from the publisher, and so is forwarded; a server default is
    /// not (P06).
    pub expiry_forwarded: bool,
}

impl Message {
    /// Topic name.
    #[must_use]
    pub fn topic(&self) -> &str {
        std::str::from_utf8(&self.data[..self.topic_end as usize]).unwrap_or("")
    }

    /// Properties to forward, in wire form.
    #[must_use]
    pub fn props(&self) -> &[u8] {
        &self.data[self.topic_end as usize..self.props_end as usize]
    }

    /// Payload.
    #[must_use]
    pub fn payload(&self) -> &[u8] {
        &self.data[self.props_end as usize..]
    }

    /// Payload as a shared buffer, without copying.
    #[must_use]
    pub fn payload_shared(&self) -> Bytes {
        self.data.slice(self.props_end as usize..)
    }

    /// Whether the message has expired at `now_ms`. [S-11]
    #[must_use]
    pub fn is_expired(&self, now_ms: u64) -> bool {
        self.expiry_s != u32::MAX
            && now_ms >= self.created_ms.saturating_add(u64::from(self.expiry_s) * 1000)
    }

    /// The expiry interval to forward: what is left of it in whole seconds, at least 1. [S-11]
    #[must_use]
    pub fn remaining_expiry_s(&self, now_ms: u64) -> Option<u32> {
        (self.expiry_s != u32::MAX && self.expiry_forwarded).then(|| {
            let waited_s = now_ms.saturating_sub(self.created_ms) / 1000;
            u64::from(self.expiry_s).saturating_sub(waited_s).max(1) as u32
        })
    }

    /// Bytes that a queue accounts for this message.
    #[must_use]
    pub fn queue_bytes(&self) -> usize {
        self.data.len() + size_of::<Self>()
    }
}
