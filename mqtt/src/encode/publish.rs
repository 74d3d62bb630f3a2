//! PUBLISH: once for a fan-out, or whole.

use crate::packet::Publish;
use crate::property::{Forward, SubscriptionIds, id};
use crate::wire::{Count, FIELD_MAX, Sink, VARINT_MAX, varint_len};
use crate::{PacketId, PacketType, QoS, Version};

/// A PUBLISH to be sent, without its payload.
///
/// One head serves many subscribers: encode it once, copy it, and patch through [`HeadLayout`] what
/// differs. The payload follows as it is.
#[derive(Clone, Copy, Debug)]
pub struct PublishOut<'a> {
    /// DUP: only for a retransmission by this sender. [MQTT-3.3.1-3]
    pub dup: bool,
    /// QoS.
    pub qos: QoS,
    /// RETAIN.
    pub retain: bool,
    /// Topic Name, at most 65,535 bytes; `""` when the alias alone is sent.
    pub topic: &'a str,
    /// Packet Identifier; not written for QoS 0.
    pub packet_id: u16,
    /// Message Expiry Interval that is left, in seconds.
    pub message_expiry_s: Option<u32>,
    /// Topic Alias, not 0.
    pub topic_alias: Option<u16>,
    /// Subscription Identifiers, each 1..=268,435,455.
    pub subscription_ids: &'a [u32],
    /// The publisher's properties.
    pub forward: Forward<'a>,
    /// Bytes of payload that will follow the head.
    pub payload_len: usize,
}

/// Where the parts that differ between copies lie in an encoded head: offsets in bytes from the
/// start of the head. Its first byte holds DUP, QoS and RETAIN.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HeadLayout {
    /// Bytes of the head.
    pub len: usize,
    /// The first byte of the topic, after its length.
    pub topic_at: usize,
    /// The two bytes of the Packet Identifier; `None` for QoS 0.
    pub packet_id_at: Option<usize>,
    /// The four bytes of the Message Expiry Interval; `None` without one.
    pub message_expiry_at: Option<usize>,
}

impl HeadLayout {
    /// Writes `packet_id` into a copy of the head; does nothing for QoS 0.
    #[inline]
    pub fn patch_packet_id(&self, head: &mut [u8], packet_id: PacketId) {
        if let Some(at) = self.packet_id_at {
            head[at..at + 2].copy_from_slice(&packet_id.get().to_be_bytes());
        }
    }

    /// Writes the Message Expiry Interval that is left into a copy of the head; does nothing when
    /// the head has none.
    #[inline]
    pub fn patch_message_expiry(&self, head: &mut [u8], seconds: u32) {
        if let Some(at) = self.message_expiry_at {
            head[at..at + 4].copy_from_slice(&seconds.to_be_bytes());
        }
    }

    /// Sets DUP in a copy of the head, for a retransmission; does nothing for QoS 0, where DUP
    /// must not be set. [MQTT-3.3.1-1] [MQTT-3.3.1-2]
    #[inline]
    pub fn patch_dup(&self, head: &mut [u8]) {
        if self.packet_id_at.is_some() {
            head[0] |= 0b1000;
        }
    }
}

impl PublishOut<'_> {
    /// Bytes of everything before the payload.
    #[inline]
    #[must_use]
    pub fn head_len(&self, v: Version) -> usize {
        let properties = self.properties_len(v);
        let fields = self.fields_len(v, properties);
        1 + varint_len((fields + self.payload_len) as u32) + fields
    }

    /// Bytes of the whole packet. Send it only where this is at most the receiver's Maximum Packet
    /// Size and 268,435,460.
    #[inline]
    #[must_use]
    pub fn total_len(&self, v: Version) -> usize {
        self.head_len(v) + self.payload_len
    }

    /// Appends everything before the payload. In MQTT 3 no property is written.
    pub fn encode_head(&self, out: &mut Vec<u8>, v: Version) -> HeadLayout {
        let properties = self.properties_len(v);
        let fields = self.fields_len(v, properties);
        let remaining = fields + self.payload_len;
        debug_assert!(remaining <= VARINT_MAX as usize, "larger than MQTT can say");
        let start = out.len();
        out.reserve(5 + fields);
        out.push(publish_byte(self.dup, self.qos, self.retain));
        out.varint(remaining as u32);
        let topic_at = out.len() - start + 2;
        out.string(self.topic);
        let packet_id_at = (self.qos != QoS::AtMostOnce).then(|| {
            let at = out.len() - start;
            out.u16(self.packet_id);
            at
        });
        let mut message_expiry_at = None;
        if v.is_v5() {
            out.varint(properties as u32);
            if let Some(seconds) = self.message_expiry_s {
                message_expiry_at = Some(out.len() - start + 1);
                out.u32_property(id::MESSAGE_EXPIRY_INTERVAL, Some(seconds));
            }
            out.u16_property(id::TOPIC_ALIAS, self.topic_alias);
            for &subscription_id in self.subscription_ids {
                out.u8(id::SUBSCRIPTION_IDENTIFIER);
                out.varint(subscription_id);
            }
            self.forward.put(out);
        }
        HeadLayout { len: out.len() - start, topic_at, packet_id_at, message_expiry_at }
    }

    fn properties_len(&self, v: Version) -> usize {
        if !v.is_v5() {
            return 0;
        }
        let ids: usize = self.subscription_ids.iter().map(|&id| 1 + varint_len(id)).sum();
        self.message_expiry_s.map_or(0, |_| 5)
            + self.topic_alias.map_or(0, |_| 3)
            + ids
            + self.forward.wire_len()
    }

    fn fields_len(&self, v: Version, properties: usize) -> usize {
        debug_assert!(self.topic.len() <= FIELD_MAX, "a topic is longer than MQTT can say");
        let packet_id = if self.qos == QoS::AtMostOnce { 0 } else { 2 };
        let properties = if v.is_v5() { varint_len(properties as u32) + properties } else { 0 };
        2 + self.topic.len().min(FIELD_MAX) + packet_id + properties
    }
}

const fn publish_byte(dup: bool, qos: QoS, retain: bool) -> u8 {
    (PacketType::Publish as u8) << 4 | (dup as u8) << 3 | (qos as u8) << 1 | retain as u8
}

impl Publish<'_> {
    /// Appends the packet, payload included, in version `v`.
    pub fn encode(&self, out: &mut Vec<u8>, v: Version) {
        let mut count = Count::default();
        self.fields(&mut count, v);
        let remaining = count.0 + self.payload.len();
        out.reserve(5 + remaining);
        out.push(publish_byte(self.dup, self.qos, self.retain));
        out.varint(remaining as u32);
        self.fields(out, v);
        out.extend_from_slice(self.payload);
    }

    fn fields<S: Sink>(&self, out: &mut S, v: Version) {
        out.string(self.topic);
        if self.qos != QoS::AtMostOnce {
            out.u16(self.packet_id.map_or(0, PacketId::get));
        }
        if v.is_v5() {
            super::put_properties!(out, self, properties);
        }
    }

    fn properties<S: Sink>(&self, out: &mut S) {
        let props = &self.props;
        out.u32_property(id::MESSAGE_EXPIRY_INTERVAL, props.message_expiry_s);
        out.u16_property(id::TOPIC_ALIAS, props.topic_alias);
        put_subscription_ids(out, &props.subscription_ids);
        props.forward.put(out);
    }
}

fn put_subscription_ids<S: Sink>(out: &mut S, ids: &SubscriptionIds) {
    for subscription_id in ids.iter() {
        out.u8(id::SUBSCRIPTION_IDENTIFIER);
        out.varint(subscription_id);
    }
}
