//! An application message inside the node.

use std::sync::Arc;

use bytes::Bytes;
use ringmain_mqtt::QoS;

/// Payloads of at least this many bytes are shared with the sockets instead of copied into each
/// connection's pending buffer: above it a copy costs more than a second send.
pub const SHARED_PAYLOAD_MIN: usize = 16 * 1024;

/// An application message. Shared by `Arc` among queues and shards; never changes.
///
/// Topic, properties to forward and payload lie in one buffer in this order, perhaps with gaps: a
/// large message keeps the received packet body as it is.
#[derive(Clone, Debug)]
pub struct Message {
    /// What the ranges below point into.
    pub data: Bytes,
    /// Start of the topic in `data`.
    pub topic_at: u32,
    /// Length of the topic in bytes; 1..=65,535.
    pub topic_len: u16,
    /// Quality of service as published.
    pub qos: QoS,
    /// RETAIN flag as published.
    pub retain: bool,
    /// Whether the expiry interval came from the publisher, and so is forwarded; a server default is
    /// not (P06).
    pub expiry_forwarded: bool,
    /// Start of the forwarded properties in `data`.
    pub props_at: u32,
    /// Length of the forwarded properties in bytes.
    pub props_len: u32,
    /// Start of the payload in `data`; it goes to the end.
    pub payload_at: u32,
    /// Message expiry interval in seconds; `u32::MAX` = none.
    pub expiry_s: u32,
    /// Seeded hash of the client id that published it, 0 = the broker itself.
    pub publisher: u64,
    /// Ingress, in [`Now::mono_ms`](super::ids::Now::mono_ms).
    pub created_ms: u64,
}

impl Message {
    /// Topic name.
    #[must_use]
    pub fn topic(&self) -> &str {
        let at = self.topic_at as usize;
        // The decoder checked it; a slice that is no UTF-8 would be a bug of ours.
        std::str::from_utf8(&self.data[at..at + usize::from(self.topic_len)]).unwrap_or("")
    }

    /// Properties to forward, in wire form.
    #[must_use]
    pub fn props(&self) -> &[u8] {
        &self.data[self.props_at as usize..(self.props_at + self.props_len) as usize]
    }

    /// Payload.
    #[must_use]
    pub fn payload(&self) -> &[u8] {
        &self.data[self.payload_at as usize..]
    }

    /// Payload as a shared buffer, without copying.
    #[must_use]
    pub fn payload_shared(&self) -> Bytes {
        self.data.slice(self.payload_at as usize..)
    }

    /// Its life.
    #[must_use]
    pub fn lifetime(&self) -> Lifetime {
        let Self { created_ms, expiry_s, expiry_forwarded, .. } = *self;
        Lifetime { created_ms, expiry_s, expiry_forwarded }
    }

    /// Whether the message has expired at `now_ms`. [S-11]
    #[must_use]
    pub fn is_expired(&self, now_ms: u64) -> bool {
        self.lifetime().is_over(now_ms)
    }

    /// Bytes that a queue accounts for this message.
    #[must_use]
    pub fn queue_bytes(&self) -> usize {
        self.data.len() + size_of::<Self>()
    }
}

/// How long a message lives.
#[derive(Clone, Copy, Debug)]
pub struct Lifetime {
    created_ms: u64,
    expiry_s: u32,
    expiry_forwarded: bool,
}

impl Lifetime {
    /// From the fields of a [`Message`] of the same names.
    pub(crate) fn new(created_ms: u64, expiry_s: u32, expiry_forwarded: bool) -> Self {
        Self { created_ms, expiry_s, expiry_forwarded }
    }

    /// Whether it is over at `now_ms`. [S-11]
    #[must_use]
    pub fn is_over(self, now_ms: u64) -> bool {
        self.expiry_s != u32::MAX && now_ms >= self.ends_ms()
    }

    /// When it is over, ms; `u64::MAX` = never.
    pub(crate) fn ends_ms(self) -> u64 {
        match self.expiry_s {
            u32::MAX => u64::MAX,
            s => self.created_ms.saturating_add(u64::from(s) * 1000),
        }
    }

    /// The expiry interval to forward: what is left of it in whole seconds, at least 1. [S-11]
    /// `None` when there is none, or the publisher set none (P06).
    #[must_use]
    pub fn left_s(self, now_ms: u64) -> Option<u32> {
        (self.expiry_s != u32::MAX && self.expiry_forwarded).then(|| {
            let waited_s = now_ms.saturating_sub(self.created_ms) / 1000;
            u64::from(self.expiry_s).saturating_sub(waited_s).max(1) as u32
        })
    }
}

/// A publish on its way through a shard: borrowed from the receive buffer as long as nobody needs to
/// keep it, so that a QoS 0 message between two connections of a shard is never allocated.
#[derive(Debug)]
pub struct Outgoing<'a> {
    /// Topic name, aliases resolved.
    pub topic: &'a str,
    /// Properties to forward, in wire form.
    pub props: &'a [u8],
    /// Payload.
    pub payload: &'a [u8],
    /// See [`Message`].
    pub qos: QoS,
    /// See [`Message`].
    pub retain: bool,
    /// See [`Message`].
    pub expiry_forwarded: bool,
    /// See [`Message`].
    pub expiry_s: u32,
    /// See [`Message`].
    pub publisher: u64,
    /// See [`Message`].
    pub created_ms: u64,
    /// The owned form, once somebody needed it.
    pub owned: Option<Arc<Message>>,
    /// The buffer that the slices borrow from, when it can be kept as it is.
    pub backing: Option<Bytes>,
}

impl<'a> Outgoing<'a> {
    /// A message that is owned already.
    #[must_use]
    pub fn of(msg: &'a Arc<Message>) -> Self {
        Self {
            topic: msg.topic(),
            props: msg.props(),
            payload: msg.payload(),
            qos: msg.qos,
            retain: msg.retain,
            expiry_forwarded: msg.expiry_forwarded,
            expiry_s: msg.expiry_s,
            publisher: msg.publisher,
            created_ms: msg.created_ms,
            owned: Some(Arc::clone(msg)),
            backing: None,
        }
    }

    /// A message of the broker itself, QoS 0, without properties.
    #[must_use]
    pub fn internal(topic: &'a str, payload: &'a [u8], created_ms: u64, retain: bool) -> Self {
        Self {
            topic,
            props: &[],
            payload,
            qos: QoS::AtMostOnce,
            retain,
            expiry_forwarded: false,
            expiry_s: u32::MAX,
            publisher: 0,
            created_ms,
            owned: None,
            backing: None,
        }
    }

    /// The owned form: made at the first call, a reference after that.
    pub fn own(&mut self) -> Arc<Message> {
        if let Some(msg) = &self.owned {
            return Arc::clone(msg);
        }
        let (data, topic_at, props_at, payload_at) = match &self.backing {
            Some(b) => {
                let at = |s: &[u8]| {
                    if s.is_empty() { 0 } else { s.as_ptr().addr() - b.as_ptr().addr() }
                };
                let payload_at = if self.payload.is_empty() { b.len() } else { at(self.payload) };
                (b.clone(), at(self.topic.as_bytes()), at(self.props), payload_at)
            }
            None => {
                let (t, p) = (self.topic.len(), self.props.len());
                let mut buf = Vec::with_capacity(t + p + self.payload.len());
                buf.extend_from_slice(self.topic.as_bytes());
                buf.extend_from_slice(self.props);
                buf.extend_from_slice(self.payload);
                (Bytes::from(buf), 0, t, t + p)
            }
        };
        let msg = Arc::new(Message {
            data,
            topic_at: topic_at as u32,
            topic_len: self.topic.len() as u16,
            qos: self.qos,
            retain: self.retain,
            expiry_forwarded: self.expiry_forwarded,
            props_at: props_at as u32,
            props_len: self.props.len() as u32,
            payload_at: payload_at as u32,
            expiry_s: self.expiry_s,
            publisher: self.publisher,
            created_ms: self.created_ms,
        });
        self.owned = Some(Arc::clone(&msg));
        msg
    }

    /// Its life.
    #[must_use]
    pub fn lifetime(&self) -> Lifetime {
        let Self { created_ms, expiry_s, expiry_forwarded, .. } = *self;
        Lifetime { created_ms, expiry_s, expiry_forwarded }
    }

    /// Whether the message has expired at `now_ms`. [S-11]
    #[must_use]
    pub fn is_expired(&self, now_ms: u64) -> bool {
        self.lifetime().is_over(now_ms)
    }
}
