//! What a client sends: CONNECT, SUBSCRIBE, UNSUBSCRIBE.

use super::{Body, first_byte, put_properties};
use crate::packet::{Connect, ConnectProps, Subscribe, SubscribeOptions, Unsubscribe, Will};
use crate::property::{UserProps, id};
use crate::wire::Sink;
use crate::{PacketId, PacketType, Version};

impl ConnectProps<'_> {
    fn properties<S: Sink>(&self, out: &mut S) {
        out.u32_property(id::SESSION_EXPIRY_INTERVAL, self.session_expiry_s);
        out.u16_property(id::RECEIVE_MAXIMUM, self.receive_maximum);
        out.u32_property(id::MAXIMUM_PACKET_SIZE, self.maximum_packet_size);
        out.u16_property(id::TOPIC_ALIAS_MAXIMUM, self.topic_alias_maximum);
        let response = self.request_response_info.then_some(true);
        out.bool_property(id::REQUEST_RESPONSE_INFORMATION, response);
        let problem = (!self.request_problem_info).then_some(false);
        out.bool_property(id::REQUEST_PROBLEM_INFORMATION, problem);
        self.user.put(out);
        out.str_property(id::AUTHENTICATION_METHOD, self.auth_method);
        out.binary_property(id::AUTHENTICATION_DATA, self.auth_data);
    }
}

impl Will<'_> {
    fn properties<S: Sink>(&self, out: &mut S) {
        out.u32_property(id::WILL_DELAY_INTERVAL, self.delay_s);
        out.u32_property(id::MESSAGE_EXPIRY_INTERVAL, self.message_expiry_s);
        self.forward.put(out);
    }
}

impl Connect<'_> {
    fn flags(&self) -> u8 {
        let will = self
            .will
            .as_ref()
            .map_or(0, |will| 0b100 | (will.qos as u8) << 3 | u8::from(will.retain) << 5);
        u8::from(self.clean_start) << 1
            | will
            | u8::from(self.password.is_some()) << 6
            | u8::from(self.username.is_some()) << 7
    }
}

impl Body for Connect<'_> {
    fn first_byte(&self) -> u8 {
        first_byte(PacketType::Connect)
    }

    fn fields<S: Sink>(&self, out: &mut S, v: Version) {
        out.string(if v == Version::V31 { "MQIsdp" } else { "MQTT" });
        out.u8(v as u8 | u8::from(self.bridge) << 7);
        out.u8(self.flags());
        out.u16(self.keep_alive_s);
        if v.is_v5() {
            put_properties!(out, self.props, properties);
        }
        out.string(self.client_id);
        if let Some(will) = &self.will {
            if v.is_v5() {
                put_properties!(out, will, properties);
            }
            out.string(will.topic);
            out.binary(will.payload);
        }
        if let Some(username) = self.username {
            out.string(username);
        }
        if let Some(password) = self.password {
            out.binary(password);
        }
    }
}

/// A SUBSCRIBE, whose filters have options, or an UNSUBSCRIBE, whose have none.
#[derive(Clone, Copy)]
pub(crate) struct Filters<'a, I> {
    pub(crate) packet_type: PacketType,
    pub(crate) packet_id: PacketId,
    pub(crate) subscription_id: Option<u32>,
    pub(crate) user: UserProps<'a>,
    pub(crate) filters: I,
}

impl<I> Filters<'_, I> {
    fn properties<S: Sink>(&self, out: &mut S) {
        if let Some(id) = self.subscription_id {
            out.u8(id::SUBSCRIPTION_IDENTIFIER);
            out.varint(id);
        }
        self.user.put(out);
    }
}

impl<'f, I: Iterator<Item = (&'f str, Option<SubscribeOptions>)> + Clone> Filters<'_, I> {
    fn put<S: Sink>(&self, out: &mut S, v: Version) {
        out.u16(self.packet_id.get());
        if v.is_v5() {
            put_properties!(out, self, properties);
        }
        for (filter, options) in self.filters.clone() {
            out.string(filter);
            if let Some(options) = options {
                out.u8(if v.is_v5() { options.to_byte() } else { options.qos as u8 });
            }
        }
    }

    pub(crate) fn write(&self, out: &mut Vec<u8>, v: Version) {
        let mut count = crate::wire::Count::default();
        self.put(&mut count, v);
        out.reserve(5 + count.0);
        out.push(first_byte(self.packet_type));
        out.varint(count.0 as u32);
        self.put(out, v);
    }
}

impl Body for Subscribe<'_> {
    fn first_byte(&self) -> u8 {
        first_byte(PacketType::Subscribe)
    }

    fn fields<S: Sink>(&self, out: &mut S, v: Version) {
        Filters {
            packet_type: PacketType::Subscribe,
            packet_id: self.packet_id,
            subscription_id: self.subscription_id,
            user: self.user,
            filters: self.filters.iter().map(|(filter, options)| (filter, Some(options))),
        }
        .put(out, v);
    }
}

impl Body for Unsubscribe<'_> {
    fn first_byte(&self) -> u8 {
        first_byte(PacketType::Unsubscribe)
    }

    fn fields<S: Sink>(&self, out: &mut S, v: Version) {
        Filters {
            packet_type: PacketType::Unsubscribe,
            packet_id: self.packet_id,
            subscription_id: None,
            user: self.user,
            filters: self.filters.iter().map(|filter| (filter, None)),
        }
        .put(out, v);
    }
}
