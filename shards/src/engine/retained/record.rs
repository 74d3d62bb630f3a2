//! What is kept of a message beside its topic.
//!
//! ```text
//! flags │ created │ expiry │ publisher │ properties length │ properties │ payload
//! flags │ number of the message that is kept as it came
//! ```
//!
//! Only the flags and the payload are always there. The payload goes to the record's end.

use super::super::message::{Lifetime, Message};
use super::super::slab::Slab;
use super::leaf::{number, push_number};
use bytes::Bytes;
use ringmain_mqtt::QoS;
use std::sync::Arc;

/// Messages of more bytes (properties and payload) are kept as they came: what an allocation of their own
/// costs is little beside them, and a replay copies nothing.
pub(super) const INLINE_MAX: usize = 1024;

/// Messages kept as they came, by number.
#[derive(Debug, Default)]
pub(super) struct Big {
    slab: Slab<Arc<Message>>,
    charged: usize,
}

impl Big {
    pub(super) fn insert(&mut self, msg: Arc<Message>) -> u32 {
        self.charged += msg.queue_bytes();
        self.slab.insert(msg)
    }

    pub(super) fn remove(&mut self, id: u32) {
        let Some(msg) = self.slab.remove(id) else { return };
        self.charged -= msg.queue_bytes();
        if self.slab.len() == 0 {
            self.slab = Slab::default();
        }
    }

    /// Bytes allocated, about.
    pub(super) fn bytes(&self) -> usize {
        // Beside the message: counts of its two allocations, and a slot with a generation.
        const BESIDE: usize = 16 + 24 + 20;
        self.charged + self.slab.len() * BESIDE
    }
}

mod flag {
    pub(super) const QOS: u8 = 0b11;
    pub(super) const RETAIN: u8 = 1 << 2;
    pub(super) const EXPIRY_FORWARDED: u8 = 1 << 3;
    pub(super) const EXPIRES: u8 = 1 << 4;
    pub(super) const PUBLISHER: u8 = 1 << 5;
    pub(super) const PROPS: u8 = 1 << 6;
    pub(super) const BIG: u8 = 1 << 7;
}

/// A record, read.
pub(super) enum Record<'a> {
    Inline(Inline<'a>),
    Big(&'a Arc<Message>),
}

pub(super) struct Inline<'a> {
    flags: u8,
    created_ms: u64,
    expiry_s: u32,
    publisher: u64,
    pub(super) props: &'a [u8],
    pub(super) payload: &'a [u8],
}

/// Whether the message is kept as it came.
pub(super) fn is_big(msg: &Message) -> bool {
    msg.props().len() + msg.payload().len() > INLINE_MAX
}

/// What the store's limit counts for a message: [`Message::queue_bytes`] of what a replay would return.
pub(super) fn charge(msg: &Message) -> usize {
    if is_big(msg) {
        return msg.queue_bytes();
    }
    charge_inline(usize::from(msg.topic_len), msg.props(), msg.payload())
}

fn charge_inline(topic_len: usize, props: &[u8], payload: &[u8]) -> usize {
    topic_len + props.len() + payload.len() + size_of::<Message>()
}

/// Writes the record of a message that is not [big](is_big).
pub(super) fn write(msg: &Message, out: &mut Vec<u8>) {
    let mut flags = msg.qos as u8;
    for (bit, set) in [
        (flag::RETAIN, msg.retain),
        (flag::EXPIRY_FORWARDED, msg.expiry_forwarded),
        (flag::EXPIRES, msg.expiry_s != u32::MAX),
        (flag::PUBLISHER, msg.publisher != 0),
        (flag::PROPS, msg.props_len != 0),
    ] {
        flags |= if set { bit } else { 0 };
    }
    out.push(flags);
    push_number(out, msg.created_ms as usize);
    if flags & flag::EXPIRES != 0 {
        push_number(out, msg.expiry_s as usize);
    }
    if flags & flag::PUBLISHER != 0 {
        out.extend_from_slice(&msg.publisher.to_le_bytes());
    }
    if flags & flag::PROPS != 0 {
        push_number(out, msg.props_len as usize);
        out.extend_from_slice(msg.props());
    }
    out.extend_from_slice(msg.payload());
}

/// Writes the record of a message that is kept as it came.
pub(super) fn write_big(id: u32, out: &mut Vec<u8>) {
    out.push(flag::BIG);
    out.extend_from_slice(&id.to_le_bytes());
}

/// The number of a message that is kept as it came.
pub(super) fn big_id(record: &[u8]) -> Option<u32> {
    (record[0] & flag::BIG != 0)
        .then(|| u32::from_le_bytes([record[1], record[2], record[3], record[4]]))
}

pub(super) fn read<'a>(record: &'a [u8], big: &'a Big) -> Record<'a> {
    if let Some(id) = big_id(record) {
        return Record::Big(&big.slab[id]);
    }
    let (flags, mut at) = (record[0], 1);
    let created_ms = number(record, &mut at) as u64;
    let mut expiry_s = u32::MAX;
    if flags & flag::EXPIRES != 0 {
        expiry_s = number(record, &mut at) as u32;
    }
    let mut publisher = 0;
    if flags & flag::PUBLISHER != 0
        && let Some(bytes) = record[at..].first_chunk()
    {
        publisher = u64::from_le_bytes(*bytes);
        at += 8;
    }
    let mut props = &[][..];
    if flags & flag::PROPS != 0 {
        let len = number(record, &mut at);
        props = &record[at..at + len];
        at += len;
    }
    Record::Inline(Inline { flags, created_ms, expiry_s, publisher, props, payload: &record[at..] })
}

/// When a message expires, ms; `u64::MAX` = never.
pub(super) fn expires_ms(record: &[u8], big: &Big) -> u64 {
    if record[0] & (flag::BIG | flag::EXPIRES) == 0 {
        return u64::MAX;
    }
    read(record, big).lifetime().ends_ms()
}

impl Record<'_> {
    pub(super) fn lifetime(&self) -> Lifetime {
        match self {
            Self::Big(msg) => msg.lifetime(),
            Self::Inline(i) => {
                let forwarded = i.flags & flag::EXPIRY_FORWARDED != 0;
                Lifetime::new(i.created_ms, i.expiry_s, forwarded)
            }
        }
    }

    /// See [`charge`].
    pub(super) fn charge(&self, topic_len: usize) -> usize {
        match self {
            Self::Big(msg) => msg.queue_bytes(),
            Self::Inline(i) => charge_inline(topic_len, i.props, i.payload),
        }
    }
}

impl Inline<'_> {
    /// The message, which is `data`: topic, properties and payload.
    pub(super) fn head(&self, topic_len: usize) -> Message {
        let qos = match self.flags & flag::QOS {
            0 => QoS::AtMostOnce,
            1 => QoS::AtLeastOnce,
            _ => QoS::ExactlyOnce,
        };
        let (topic_len, props_len) = (topic_len as u16, self.props.len() as u32);
        Message {
            data: Bytes::new(),
            topic_at: 0,
            topic_len,
            qos,
            retain: self.flags & flag::RETAIN != 0,
            expiry_forwarded: self.flags & flag::EXPIRY_FORWARDED != 0,
            props_at: u32::from(topic_len),
            props_len,
            payload_at: u32::from(topic_len) + props_len,
            expiry_s: self.expiry_s,
            publisher: self.publisher,
            created_ms: self.created_ms,
        }
    }
}
