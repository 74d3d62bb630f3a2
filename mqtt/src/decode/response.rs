//! CONNACK, the acknowledgements of PUBLISH, DISCONNECT and AUTH.

use super::{Result, Rules, packet_id};
use crate::property::{Place, Properties, Property, UserProps};
use crate::wire::Reader;
use crate::{Ack, Auth, ConnAck, DecodeError, Disconnect, PacketType, ReasonCode, Role, Version};

pub(super) fn connack<'a>(body: &'a [u8], v: Version, rules: &Rules) -> Result<ConnAck<'a>> {
    let mut body = Reader::new(body);
    let flags = body.u8()?;
    // [MQTT-3.2.2-1] Bits 7-1 of the Connect Acknowledge Flags are reserved and MUST be 0. In
    // MQTT 3.1 the whole byte is reserved.
    if flags & 0xFE != 0 && v != Version::V31 {
        return Err(DecodeError::malformed("MQTT-3.2.2-1", "reserved flags of CONNACK are set"));
    }
    let session_present = flags & 1 != 0 && v != Version::V31;
    let code = body.u8()?;
    let code = if v.is_v5() {
        // [MQTT-3.2.2-8] The Server MUST use one of the Connect Reason Code values.
        legal(ReasonCode(code), PacketType::ConnAck, Role::Client, "MQTT-3.2.2-8")?
    } else {
        ReasonCode::from_v3_connack(code)
            .ok_or(DecodeError::malformed("", "unknown CONNACK return code"))?
    };
    // [MQTT-3.2.2-6] With a non-zero Reason Code Session Present MUST be 0.
    if session_present && code != ReasonCode::SUCCESS {
        return Err(DecodeError::protocol("MQTT-3.2.2-6", "Session Present with an error"));
    }
    let mut packet = ConnAck { session_present, code, ..ConnAck::default() };
    if v.is_v5() {
        connack_properties(&mut body, &mut packet, rules)?;
    }
    body.finish()?;
    Ok(packet)
}

fn connack_properties<'a>(
    body: &mut Reader<'a>,
    packet: &mut ConnAck<'a>,
    rules: &Rules,
) -> Result<()> {
    let mut properties = Properties::take(body, Place::In(PacketType::ConnAck), rules)?;
    while let Some(property) = properties.next()? {
        match property {
            Property::SessionExpiry(value) => packet.session_expiry_s = Some(value),
            Property::ReceiveMaximum(value) => packet.receive_maximum = Some(value),
            Property::MaximumQos(value) => packet.maximum_qos = Some(value),
            Property::RetainAvailable(value) => packet.retain_available = Some(value),
            Property::MaximumPacketSize(value) => packet.maximum_packet_size = Some(value),
            Property::AssignedClientId(value) => packet.assigned_client_id = Some(value),
            Property::TopicAliasMaximum(value) => packet.topic_alias_maximum = Some(value),
            Property::ReasonString(value) => packet.reason_string = Some(value),
            Property::WildcardAvailable(value) => packet.wildcard_available = Some(value),
            Property::SubscriptionIdsAvailable(value) => {
                packet.subscription_ids_available = Some(value);
            }
            Property::SharedAvailable(value) => packet.shared_available = Some(value),
            Property::ServerKeepAlive(value) => packet.server_keep_alive_s = Some(value),
            Property::ResponseInfo(value) => packet.response_information = Some(value),
            Property::ServerReference(value) => packet.server_reference = Some(value),
            Property::AuthMethod(value) => packet.auth_method = Some(value),
            Property::AuthData(value) => packet.auth_data = Some(value),
            _ => {}
        }
    }
    packet.user = UserProps::new(properties.kept());
    Ok(())
}

#[inline]
pub(super) fn ack<'a>(
    packet_type: PacketType,
    body: &'a [u8],
    v: Version,
    rules: &Rules,
) -> Result<Ack<'a>> {
    let mut body = Reader::new(body);
    let mut packet = Ack {
        packet_id: packet_id(&mut body)?,
        reason: ReasonCode::SUCCESS,
        reason_string: None,
        user: UserProps::EMPTY,
    };
    // §3.4.2.1: a Remaining Length of 2 means success.
    if body.is_empty() {
        return Ok(packet);
    }
    if !v.is_v5() {
        body.finish()?;
    }
    // [MQTT-3.4.2-1] [MQTT-3.5.2-1] [MQTT-3.6.2-1] [MQTT-3.7.2-1]
    let statement = match packet_type {
        PacketType::PubAck => "MQTT-3.4.2-1",
        PacketType::PubRec => "MQTT-3.5.2-1",
        PacketType::PubRel => "MQTT-3.6.2-1",
        _ => "MQTT-3.7.2-1",
    };
    packet.reason = legal(ReasonCode(body.u8()?), packet_type, Role::Server, statement)?;
    // Below a Remaining Length of 4 there are no properties.
    if !body.is_empty() {
        (packet.reason_string, packet.user) = reason_and_user(&mut body, packet_type, rules)?;
    }
    body.finish()?;
    Ok(packet)
}

/// The properties of a packet that has a Reason String and User Properties and no others.
pub(super) fn reason_and_user<'a>(
    body: &mut Reader<'a>,
    packet_type: PacketType,
    rules: &Rules,
) -> Result<(Option<&'a str>, UserProps<'a>)> {
    let mut properties = Properties::take(body, Place::In(packet_type), rules)?;
    let mut reason_string = None;
    while let Some(property) = properties.next()? {
        if let Property::ReasonString(value) = property {
            reason_string = Some(value);
        }
    }
    Ok((reason_string, UserProps::new(properties.kept())))
}

pub(super) fn disconnect<'a>(
    body: &'a [u8],
    v: Version,
    role: Role,
    rules: &Rules,
) -> Result<Disconnect<'a>> {
    let mut body = Reader::new(body);
    let mut packet = Disconnect::default();
    // §3.14.2.1: a Remaining Length below 1 means normal disconnection.
    if body.is_empty() {
        return Ok(packet);
    }
    if !v.is_v5() {
        body.finish()?;
    }
    // [MQTT-3.14.2-1] The sender MUST use one of the DISCONNECT Reason Code values.
    packet.reason = legal(ReasonCode(body.u8()?), PacketType::Disconnect, role, "MQTT-3.14.2-1")?;
    if body.is_empty() {
        return Ok(packet);
    }
    let place = Place::In(PacketType::Disconnect);
    let mut properties = Properties::take(&mut body, place, rules)?;
    while let Some(property) = properties.next()? {
        match property {
            Property::SessionExpiry(_) if role == Role::Client => {
                // [MQTT-3.14.2-2] Session Expiry Interval MUST NOT be sent by the Server.
                return Err(DecodeError::protocol(
                    "MQTT-3.14.2-2",
                    "a server sent Session Expiry Interval in DISCONNECT",
                ));
            }
            Property::ServerReference(_) if role == Role::Server => {
                // §3.14.2.2.5: the Server sends a Server Reference.
                return Err(DecodeError::protocol(
                    "",
                    "a client sent Server Reference in DISCONNECT",
                ));
            }
            Property::SessionExpiry(value) => packet.session_expiry_s = Some(value),
            Property::ReasonString(value) => packet.reason_string = Some(value),
            Property::ServerReference(value) => packet.server_reference = Some(value),
            _ => {}
        }
    }
    packet.user = UserProps::new(properties.kept());
    body.finish()?;
    Ok(packet)
}

pub(super) fn auth<'a>(body: &'a [u8], role: Role, rules: &Rules) -> Result<Auth<'a>> {
    let mut body = Reader::new(body);
    // §3.15.2.1: Reason Code and properties may be omitted for success without properties.
    let reason = if body.is_empty() { ReasonCode::SUCCESS } else { ReasonCode(body.u8()?) };
    // [MQTT-3.15.2-1] The sender MUST use one of the Authenticate Reason Codes.
    let reason = legal(reason, PacketType::Auth, role, "MQTT-3.15.2-1")?;
    let mut packet = Auth { reason, ..Auth::default() };
    if body.is_empty() && reason == ReasonCode::SUCCESS {
        return Ok(packet);
    }
    let mut properties = Properties::take(&mut body, Place::In(PacketType::Auth), rules)?;
    while let Some(property) = properties.next()? {
        match property {
            Property::AuthMethod(value) => packet.method = Some(value),
            Property::AuthData(value) => packet.data = Some(value),
            Property::ReasonString(value) => packet.reason_string = Some(value),
            _ => {}
        }
    }
    packet.user = UserProps::new(properties.kept());
    body.finish()?;
    // §3.15.2.2.2: it is a Protocol Error to omit the Authentication Method.
    if packet.method.is_none() {
        return Err(DecodeError::protocol("", "AUTH lacks an Authentication Method"));
    }
    Ok(packet)
}

#[inline]
fn legal(
    reason: ReasonCode,
    packet_type: PacketType,
    role: Role,
    statement: &'static str,
) -> Result<ReasonCode> {
    if reason.legal_to(packet_type, role) {
        Ok(reason)
    } else {
        Err(DecodeError::protocol(statement, "the reason code does not belong in this packet"))
    }
}
