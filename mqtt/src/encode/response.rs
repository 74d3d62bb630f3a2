//! What a receiver answers: CONNACK, acknowledgements, SUBACK, UNSUBACK, DISCONNECT, AUTH.

use super::{Body, first_byte, put_properties, put_reason_and_user};
use crate::packet::{Ack, Auth, ConnAck, Disconnect, SubAck};
use crate::property::id;
use crate::wire::Sink;
use crate::{PacketType, ReasonCode, Version};

impl ConnAck<'_> {
    fn properties<S: Sink>(&self, out: &mut S) {
        out.u32_property(id::SESSION_EXPIRY_INTERVAL, self.session_expiry_s);
        out.u16_property(id::RECEIVE_MAXIMUM, self.receive_maximum);
        out.byte_property(id::MAXIMUM_QOS, self.maximum_qos.map(|qos| qos as u8));
        out.bool_property(id::RETAIN_AVAILABLE, self.retain_available);
        out.u32_property(id::MAXIMUM_PACKET_SIZE, self.maximum_packet_size);
        out.str_property(id::ASSIGNED_CLIENT_IDENTIFIER, self.assigned_client_id);
        out.u16_property(id::TOPIC_ALIAS_MAXIMUM, self.topic_alias_maximum);
        put_reason_and_user(out, self.reason_string, &self.user);
        out.bool_property(id::WILDCARD_SUBSCRIPTION_AVAILABLE, self.wildcard_available);
        out.bool_property(id::SUBSCRIPTION_IDENTIFIER_AVAILABLE, self.subscription_ids_available);
        out.bool_property(id::SHARED_SUBSCRIPTION_AVAILABLE, self.shared_available);
        out.u16_property(id::SERVER_KEEP_ALIVE, self.server_keep_alive_s);
        out.str_property(id::RESPONSE_INFORMATION, self.response_information);
        out.str_property(id::SERVER_REFERENCE, self.server_reference);
        out.str_property(id::AUTHENTICATION_METHOD, self.auth_method);
        out.binary_property(id::AUTHENTICATION_DATA, self.auth_data);
    }
}

impl Body for ConnAck<'_> {
    fn first_byte(&self) -> u8 {
        first_byte(PacketType::ConnAck)
    }

    fn fields<S: Sink>(&self, out: &mut S, v: Version) {
        // MQTT 3.1 has no Session Present flag: that byte is reserved there.
        out.u8(u8::from(self.session_present && v != Version::V31));
        if v.is_v5() {
            out.u8(self.code.0);
            put_properties!(out, self, properties);
        } else {
            out.u8(self.code.to_v3_connack());
        }
    }
}

/// An acknowledgement with its packet type.
#[derive(Clone, Copy)]
pub(crate) struct TypedAck<'a>(pub(crate) PacketType, pub(crate) Ack<'a>);

impl TypedAck<'_> {
    fn properties<S: Sink>(&self, out: &mut S) {
        put_reason_and_user(out, self.1.reason_string, &self.1.user);
    }
}

impl Body for TypedAck<'_> {
    fn first_byte(&self) -> u8 {
        first_byte(self.0)
    }

    fn fields<S: Sink>(&self, out: &mut S, v: Version) {
        let ack = &self.1;
        out.u16(ack.packet_id.get());
        if !v.is_v5() {
            return;
        }
        let properties = ack.reason_string.is_some() || !ack.user.is_empty();
        if properties || ack.reason != ReasonCode::SUCCESS {
            out.u8(ack.reason.0);
        }
        if properties {
            put_properties!(out, self, properties);
        }
    }
}

/// A SUBACK or UNSUBACK with its packet type.
#[derive(Clone, Copy)]
pub(crate) struct TypedSubAck<'a>(pub(crate) PacketType, pub(crate) SubAck<'a>);

impl TypedSubAck<'_> {
    fn properties<S: Sink>(&self, out: &mut S) {
        put_reason_and_user(out, self.1.reason_string, &self.1.user);
    }
}

impl Body for TypedSubAck<'_> {
    fn first_byte(&self) -> u8 {
        first_byte(self.0)
    }

    fn fields<S: Sink>(&self, out: &mut S, v: Version) {
        let ack = &self.1;
        out.u16(ack.packet_id.get());
        if v.is_v5() {
            put_properties!(out, self, properties);
            out.bytes(ack.reasons);
            return;
        }
        if self.0 == PacketType::UnsubAck {
            return;
        }
        // MQTT 3.1.1 knows one failure, 0x80. MQTT 3.1 knows none: there a refused subscription is
        // granted QoS 0, and nothing is delivered for it.
        let failure = if v == Version::V311 { 0x80 } else { 0x00 };
        for &reason in ack.reasons {
            out.u8(if ReasonCode(reason).is_error() { failure } else { reason & 3 });
        }
    }
}

impl Disconnect<'_> {
    fn properties<S: Sink>(&self, out: &mut S) {
        out.u32_property(id::SESSION_EXPIRY_INTERVAL, self.session_expiry_s);
        put_reason_and_user(out, self.reason_string, &self.user);
        out.str_property(id::SERVER_REFERENCE, self.server_reference);
    }
}

impl Body for Disconnect<'_> {
    fn first_byte(&self) -> u8 {
        first_byte(PacketType::Disconnect)
    }

    fn fields<S: Sink>(&self, out: &mut S, v: Version) {
        if !v.is_v5() {
            return;
        }
        let properties = self.session_expiry_s.is_some()
            || self.reason_string.is_some()
            || self.server_reference.is_some()
            || !self.user.is_empty();
        if properties || self.reason != ReasonCode::NORMAL_DISCONNECTION {
            out.u8(self.reason.0);
        }
        if properties {
            put_properties!(out, self, properties);
        }
    }
}

impl Auth<'_> {
    fn properties<S: Sink>(&self, out: &mut S) {
        out.str_property(id::AUTHENTICATION_METHOD, self.method);
        out.binary_property(id::AUTHENTICATION_DATA, self.data);
        put_reason_and_user(out, self.reason_string, &self.user);
    }
}

impl Body for Auth<'_> {
    fn first_byte(&self) -> u8 {
        first_byte(PacketType::Auth)
    }

    fn fields<S: Sink>(&self, out: &mut S, v: Version) {
        debug_assert!(v.is_v5(), "only MQTT 5 has AUTH");
        let empty = self.method.is_none()
            && self.data.is_none()
            && self.reason_string.is_none()
            && self.user.is_empty();
        if !empty || self.reason != ReasonCode::SUCCESS {
            out.u8(self.reason.0);
            put_properties!(out, self, properties);
        }
    }
}
