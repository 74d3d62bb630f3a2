//! SUBSCRIBE, UNSUBSCRIBE and their acknowledgements.

use super::response::reason_and_user;
use super::{Result, Rules, packet_id};
use crate::property::{Place, Properties, Property, UserProps};
use crate::wire::Reader;
use crate::{
    DecodeError, PacketType, QoS, ReasonCode, RetainHandling, SubAck, Subscribe, SubscribeFilters,
    SubscribeOptions, Unsubscribe, UnsubscribeFilters, Version,
};

pub(super) fn subscribe<'a>(body: &'a [u8], v: Version, rules: &Rules) -> Result<Subscribe<'a>> {
    let mut body = Reader::new(body);
    let packet_id = packet_id(&mut body)?;
    let (mut subscription_id, mut user) = (None, UserProps::EMPTY);
    if v.is_v5() {
        let place = Place::In(PacketType::Subscribe);
        let mut properties = Properties::take(&mut body, place, rules)?;
        while let Some(property) = properties.next()? {
            if let Property::SubscriptionId(value) = property {
                subscription_id = Some(value);
            }
        }
        user = UserProps::new(properties.kept());
    }
    // [MQTT-3.8.3-2] The Payload MUST contain at least one Topic Filter and options pair.
    if body.is_empty() {
        return Err(DecodeError::protocol("MQTT-3.8.3-2", "SUBSCRIBE has no Topic Filter"));
    }
    let raw = body.rest();
    let mut count = 0;
    while !body.is_empty() {
        let filter = body.string(rules.strict_utf8)?;
        check_options(filter, body.u8()?, v)?;
        count += 1;
    }
    let filters = SubscribeFilters { raw, count, options_mask: options_mask(v) };
    Ok(Subscribe { packet_id, subscription_id, user, filters })
}

/// The bits of an options byte that mean something. MQTT 3.1 does not require the others to be 0.
const fn options_mask(v: Version) -> u8 {
    if v.is_v5() { 0xFF } else { 0b11 }
}

fn check_options(filter: &str, options: u8, v: Version) -> Result<()> {
    if options & 0b11 == 0b11 {
        // [MQTT-3.8.3-4] of 3.1.1; a Protocol Error by §3.8.3.1 of MQTT 5, which also lets one
        // call it malformed.
        return Err(DecodeError::malformed("", "SUBSCRIBE asks for QoS 3"));
    }
    let reserved = match v {
        Version::V31 => 0,
        Version::V311 => 0b1111_1100,
        Version::V5 => 0b1100_0000,
    };
    // [MQTT-3.8.3-5] Reserved bits of the Subscription Options MUST be 0.
    if options & reserved != 0 {
        return Err(DecodeError::malformed(
            "MQTT-3.8.3-5",
            "reserved bits of Subscription Options are set",
        ));
    }
    if !v.is_v5() {
        return Ok(());
    }
    if options & 0b11_0000 == 0b11_0000 {
        return Err(DecodeError::protocol("", "Retain Handling is 3"));
    }
    // [MQTT-3.8.3-4] No Local on a Shared Subscription is a Protocol Error.
    if options & 0b100 != 0 && filter.starts_with("$share/") {
        return Err(DecodeError::protocol("MQTT-3.8.3-4", "No Local on a Shared Subscription"));
    }
    Ok(())
}

pub(super) fn unsubscribe<'a>(
    body: &'a [u8],
    v: Version,
    rules: &Rules,
) -> Result<Unsubscribe<'a>> {
    let mut body = Reader::new(body);
    let packet_id = packet_id(&mut body)?;
    let mut user = UserProps::EMPTY;
    if v.is_v5() {
        (_, user) = reason_and_user(&mut body, PacketType::Unsubscribe, rules)?;
    }
    // [MQTT-3.10.3-2] The Payload MUST contain at least one Topic Filter.
    if body.is_empty() {
        return Err(DecodeError::protocol("MQTT-3.10.3-2", "UNSUBSCRIBE has no Topic Filter"));
    }
    let raw = body.rest();
    let mut count = 0;
    while !body.is_empty() {
        body.string(rules.strict_utf8)?;
        count += 1;
    }
    Ok(Unsubscribe { packet_id, user, filters: UnsubscribeFilters { raw, count } })
}

/// SUBACK or UNSUBACK.
pub(super) fn suback<'a>(
    packet_type: PacketType,
    body: &'a [u8],
    v: Version,
    rules: &Rules,
) -> Result<SubAck<'a>> {
    let mut body = Reader::new(body);
    let packet_id = packet_id(&mut body)?;
    let (mut reason_string, mut user) = (None, UserProps::EMPTY);
    if v.is_v5() {
        (reason_string, user) = reason_and_user(&mut body, packet_type, rules)?;
    }
    let reasons = body.rest();
    if packet_type == PacketType::UnsubAck && !v.is_v5() {
        body.finish()?;
    } else if reasons.is_empty() {
        return Err(DecodeError::protocol("", "an acknowledgement has no reason codes"));
    }
    let legal = |&code: &u8| match v {
        Version::V5 => ReasonCode(code).legal_in(packet_type),
        Version::V311 => matches!(code, 0..=2 | 0x80),
        Version::V31 => code <= 2,
    };
    // [MQTT-3.9.3-2] The Server MUST use one of the Subscribe Reason Code values.
    // [MQTT-3.11.3-2] ... one of the Unsubscribe Reason Code values.
    if !reasons.iter().all(legal) {
        let statement =
            if packet_type == PacketType::SubAck { "MQTT-3.9.3-2" } else { "MQTT-3.11.3-2" };
        return Err(DecodeError::protocol(
            statement,
            "the reason code does not belong in this packet",
        ));
    }
    Ok(SubAck { packet_id, reasons, reason_string, user })
}

impl<'a> SubscribeFilters<'a> {
    /// How many filters there are, at least 1.
    #[inline]
    #[must_use]
    #[allow(clippy::len_without_is_empty, reason = "never empty")]
    pub const fn len(&self) -> usize {
        self.count as usize
    }

    /// The filters with their options, in order.
    #[inline]
    pub fn iter(&self) -> impl Iterator<Item = (&'a str, SubscribeOptions)> + Clone + 'a {
        let mut rest = Reader::new(self.raw);
        let mask = self.options_mask;
        // All was checked when decoded, so the errors that end the iterator do not occur.
        std::iter::from_fn(move || {
            let filter = str::from_utf8(rest.binary().ok()?).ok()?;
            Some((filter, SubscribeOptions::from_byte(rest.u8().ok()? & mask)?))
        })
    }
}

impl<'a> UnsubscribeFilters<'a> {
    /// How many filters there are, at least 1.
    #[inline]
    #[must_use]
    #[allow(clippy::len_without_is_empty, reason = "never empty")]
    pub const fn len(&self) -> usize {
        self.count as usize
    }

    /// The filters, in order.
    #[inline]
    pub fn iter(&self) -> impl Iterator<Item = &'a str> + Clone + 'a {
        let mut rest = Reader::new(self.raw);
        std::iter::from_fn(move || str::from_utf8(rest.binary().ok()?).ok())
    }
}

impl SubscribeOptions {
    /// The options byte of MQTT 5; its low two bits are that of MQTT 3.
    #[inline]
    #[must_use]
    pub const fn to_byte(self) -> u8 {
        self.qos as u8
            | (self.no_local as u8) << 2
            | (self.retain_as_published as u8) << 3
            | (self.retain_handling as u8) << 4
    }

    /// Reads an options byte of MQTT 5; `None` for reserved bits, QoS 3 or Retain Handling 3.
    #[inline]
    #[must_use]
    pub const fn from_byte(byte: u8) -> Option<Self> {
        if byte & 0b1100_0000 != 0 {
            return None;
        }
        let Some(qos) = QoS::from_bits(byte & 0b11) else { return None };
        let retain_handling = match byte >> 4 {
            0 => RetainHandling::Send,
            1 => RetainHandling::SendIfNew,
            2 => RetainHandling::DoNotSend,
            _ => return None,
        };
        Some(Self {
            qos,
            no_local: byte & 0b100 != 0,
            retain_as_published: byte & 0b1000 != 0,
            retain_handling,
        })
    }
}
