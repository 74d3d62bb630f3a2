//! Writing packets. Every packet struct has `wire_len` (exact) and `encode` (appends).
use crate::wire::{self, Count, Sink, varint_len};
use crate::*;

/// PUBLISH to subscribers.
#[derive(Clone, Copy, Debug)]
pub struct PublishOut<'a> {
    /// DUP.
    pub dup: bool,
    /// QoS.
    pub qos: QoS,
    /// RETAIN.
    pub retain: bool,
    /// Topic Name; `""` when the alias alone is sent.
    pub topic: &'a str,
    /// Packet Identifier; not written for QoS 0.
    pub packet_id: u16,
    /// Message Expiry Interval, in seconds.
    pub message_expiry_s: Option<u32>,
    /// Topic Alias.
    pub topic_alias: Option<u16>,
    /// Subscription Identifiers.
    pub subscription_ids: &'a [u32],
    /// Properties forwarded unaltered.
    pub forward: Forward<'a>,
    /// Bytes of payload that follow the head.
    pub payload_len: usize,
}

/// Where the parts that differ between copies lie in an encoded head. Offsets in bytes from the
/// start of the head; the first byte of the head holds DUP, QoS and RETAIN.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HeadLayout {
    /// Bytes of the head.
    pub len: usize,
    /// The first byte of the topic, after its length.
    pub topic_at: usize,
    /// The two bytes of the Packet Identifier; `None` for QoS 0.
    pub packet_id_at: Option<usize>,
    /// The four bytes of the Message Expiry Interval.
    pub message_expiry_at: Option<usize>,
}

impl PublishOut<'_> {
    /// Bytes of everything before the payload.
    #[must_use]
    pub fn head_len(&self, _v: Version) -> usize {
        todo!()
    }
    /// Bytes of the whole packet.
    #[must_use]
    pub fn total_len(&self, _v: Version) -> usize {
        todo!()
    }
    /// Appends everything before the payload.
    pub fn encode_head(&self, _out: &mut Vec<u8>, _v: Version) -> HeadLayout {
        todo!()
    }
}
