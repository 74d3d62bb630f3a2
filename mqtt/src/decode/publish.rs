//! PUBLISH.

use super::{Result, Rules, packet_id};
use crate::property::{Forward, Place, Properties, Property, SubscriptionIds};
use crate::wire::Reader;
use crate::{
    DecodeError, Header, PacketType, Publish, PublishProps, QoS, ReasonCode, Role, Version,
};

/// [`decode`](crate::decode) for a PUBLISH, without the detour through [`Packet`](crate::Packet).
/// `h` must be the header of one.
///
/// # Errors
/// As [`decode`](crate::decode). Whether a Topic Alias is known is for the connection to say.
#[inline]
pub fn decode_publish<'a>(
    h: Header,
    body: &'a [u8],
    v: Version,
    role: Role,
    rules: &Rules,
) -> Result<Publish<'a>> {
    debug_assert_eq!(h.packet_type, PacketType::Publish, "the header of another packet");
    let mut body = Reader::new(body);
    let Some(qos) = QoS::from_bits((h.flags >> 1) & 3) else {
        return Err(DecodeError::malformed("MQTT-3.3.1-4", "PUBLISH has QoS 3"));
    };
    let topic = body.string(rules.strict_utf8)?;
    // [MQTT-3.3.2-2] The Topic Name in the PUBLISH packet MUST NOT contain wildcard characters.
    if memchr::memchr2(b'+', b'#', topic.as_bytes()).is_some() {
        let reason =
            if v.is_v5() { ReasonCode::TOPIC_NAME_INVALID } else { ReasonCode::MALFORMED_PACKET };
        return Err(DecodeError::with(reason, "MQTT-3.3.2-2", "a Topic Name contains a wildcard"));
    }
    let packet_id = if qos == QoS::AtMostOnce { None } else { Some(packet_id(&mut body)?) };
    let props =
        if v.is_v5() { properties(&mut body, role, rules)? } else { PublishProps::default() };
    if topic.is_empty() && props.topic_alias.is_none() {
        // [MQTT-4.7.3-1] Topic Names are at least one character long. §3.3.2.1: it is a Protocol
        // Error if the Topic Name is zero length and there is no Topic Alias.
        return Err(DecodeError::protocol("MQTT-4.7.3-1", "no Topic Name and no Topic Alias"));
    }
    Ok(Publish {
        dup: h.flags & 0b1000 != 0,
        qos,
        retain: h.flags & 1 != 0,
        topic,
        packet_id,
        props,
        payload: body.rest(),
    })
}

#[inline]
fn properties<'a>(body: &mut Reader<'a>, role: Role, rules: &Rules) -> Result<PublishProps<'a>> {
    let mut props = PublishProps::default();
    // Most messages have none.
    if body.rest().first() == Some(&0) {
        body.u8()?;
        return Ok(props);
    }
    let mut properties = Properties::take(body, Place::In(PacketType::Publish), rules)?;
    let mut ids = 0;
    while let Some(property) = properties.next()? {
        match property {
            Property::PayloadFormat(value) => props.payload_format = Some(value),
            Property::MessageExpiry(value) => props.message_expiry_s = Some(value),
            Property::ContentType(value) => props.content_type = Some(value),
            Property::ResponseTopic(value) => props.response_topic = Some(value),
            Property::CorrelationData(value) => props.correlation = Some(value),
            Property::TopicAlias(value) => props.topic_alias = Some(value),
            Property::SubscriptionId(_) => {
                // [MQTT-3.3.4-6] A PUBLISH from a Client MUST NOT contain a Subscription Identifier.
                if role == Role::Server {
                    return Err(DecodeError::protocol(
                        "MQTT-3.3.4-6",
                        "a client sent a Subscription Identifier in PUBLISH",
                    ));
                }
                ids += 1;
            }
            _ => {}
        }
    }
    props.forward = Forward::new(properties.kept());
    props.subscription_ids = SubscriptionIds::new(properties.all(), ids);
    Ok(props)
}
