//! CONNECT.

use super::{Result, Rules};
use crate::property::{Forward, Place, Properties, Property, UserProps};
use crate::wire::Reader;
use crate::{Connect, ConnectProps, DecodeError, PacketType, QoS, ReasonCode, Version, Will};

/// What the protocol name and level of a CONNECT say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConnectVersion {
    /// A version known here.
    Supported(Version),
    /// The name is right, the level is not: answer in the form that [`refusal_version`] tells, then
    /// close.
    UnsupportedLevel(u8),
    /// Not MQTT, or cut off: close without an answer.
    WrongName,
}

/// The bridge bit of the protocol level: an extension of MQTT 3 that several brokers share.
const BRIDGE: u8 = 0x80;

/// Reads the protocol name and level from the body of a CONNECT. [MQTT-3.1.2-1] [MQTT-3.1.2-2]
#[must_use]
pub fn connect_version(body: &[u8]) -> ConnectVersion {
    let mut body = Reader::new(body);
    let (Ok(name), Ok(level)) = (body.binary(), body.u8()) else {
        return ConnectVersion::WrongName;
    };
    match (name, level) {
        (b"MQTT", 5) => ConnectVersion::Supported(Version::V5),
        (b"MQTT", level) if level & !BRIDGE == 4 => ConnectVersion::Supported(Version::V311),
        (b"MQIsdp", level) if level & !BRIDGE == 3 => ConnectVersion::Supported(Version::V31),
        (b"MQTT" | b"MQIsdp", level) => ConnectVersion::UnsupportedLevel(level),
        _ => ConnectVersion::WrongName,
    }
}

/// The version in which to answer a CONNECT of [`ConnectVersion::UnsupportedLevel`]: `V5` for a
/// CONNACK with 0x84, `V311` for a CONNACK with return code 1.
///
/// Level 6, a successor of MQTT 5, gets the former; another level gets it when its packet has the
/// shape of MQTT 5, which has properties where MQTT 3 has the client identifier.
#[must_use]
pub fn refusal_version(body: &[u8]) -> Version {
    match connect_version(body) {
        ConnectVersion::Supported(v) => v,
        ConnectVersion::UnsupportedLevel(6) => Version::V5,
        ConnectVersion::UnsupportedLevel(level)
            if level > 6 && !has_shape(body, false) && has_shape(body, true) =>
        {
            Version::V5
        }
        _ => Version::V311,
    }
}

/// Whether the fields of `body` end where it ends, read as MQTT 5 or as MQTT 3.
fn has_shape(body: &[u8], v5: bool) -> bool {
    let walk = || -> Result<()> {
        let mut body = Reader::new(body);
        body.binary()?;
        body.u8()?;
        let flags = body.u8()?;
        body.u16()?;
        let skip_properties = |body: &mut Reader<'_>| -> Result<()> {
            if v5 {
                let len = body.varint()?;
                body.take(len as usize)?;
            }
            Ok(())
        };
        skip_properties(&mut body)?;
        body.binary()?;
        if flags & WILL != 0 {
            skip_properties(&mut body)?;
            body.binary()?;
            body.binary()?;
        }
        for _ in 0..(flags & (USERNAME | PASSWORD)).count_ones() {
            body.binary()?;
        }
        body.finish()
    };
    walk().is_ok()
}

const RESERVED: u8 = 0x01;
const CLEAN_START: u8 = 0x02;
const WILL: u8 = 0x04;
const WILL_QOS: u8 = 0x18;
const WILL_RETAIN: u8 = 0x20;
const PASSWORD: u8 = 0x40;
const USERNAME: u8 = 0x80;

pub(super) fn connect<'a>(bytes: &'a [u8], rules: &Rules) -> Result<Connect<'a>> {
    let mut body = Reader::new(bytes);
    let name = body.binary()?;
    let level = body.u8()?;
    let version = match connect_version(bytes) {
        ConnectVersion::Supported(version) => version,
        ConnectVersion::UnsupportedLevel(_) => {
            return Err(unsupported("MQTT-3.1.2-2", "the protocol level is not known"));
        }
        ConnectVersion::WrongName => {
            return Err(unsupported("MQTT-3.1.2-1", "the protocol name is not MQTT"));
        }
    };
    debug_assert!(name == b"MQTT" || name == b"MQIsdp", "connect_version lets no other pass");
    let flags = body.u8()?;
    let will_qos = check_flags(flags, version)?;
    let keep_alive_s = body.u16()?;
    let props =
        if version.is_v5() { properties(&mut body, rules)? } else { ConnectProps::default() };
    // [MQTT-3.1.3-1] Client Identifier, Will Properties, Will Topic, Will Payload, User Name,
    // Password, in this order.
    let client_id = body.string(rules.strict_utf8)?;
    let will = if flags & WILL != 0 {
        let retain = flags & WILL_RETAIN != 0;
        Some(will(&mut body, version, will_qos, retain, rules)?)
    } else {
        None
    };
    let username = if flags & USERNAME != 0 { Some(body.string(rules.strict_utf8)?) } else { None };
    let password = if flags & PASSWORD != 0 { Some(body.binary()?) } else { None };
    body.finish()?;
    Ok(Connect {
        version,
        bridge: level & BRIDGE != 0,
        clean_start: flags & CLEAN_START != 0,
        keep_alive_s,
        client_id,
        username,
        password,
        will,
        props,
    })
}

const fn unsupported(statement: &'static str, detail: &'static str) -> DecodeError {
    DecodeError::with(ReasonCode::UNSUPPORTED_PROTOCOL_VERSION, statement, detail)
}

/// Checks the Connect Flags and returns the Will QoS.
fn check_flags(flags: u8, version: Version) -> Result<QoS> {
    let malformed = |statement, detail| Err(DecodeError::malformed(statement, detail));
    // [MQTT-3.1.2-3] The reserved flag MUST be 0. MQTT 3.1 does not say so.
    if flags & RESERVED != 0 && version != Version::V31 {
        return malformed("MQTT-3.1.2-3", "the reserved flag of CONNECT is set");
    }
    let Some(will_qos) = QoS::from_bits((flags & WILL_QOS) >> 3) else {
        return malformed("MQTT-3.1.2-12", "Will QoS is 3");
    };
    if flags & WILL == 0 {
        // [MQTT-3.1.2-11] [MQTT-3.1.2-13] Without Will Flag, Will QoS and Will Retain MUST be 0.
        if will_qos != QoS::AtMostOnce {
            return malformed("MQTT-3.1.2-11", "Will QoS without Will Flag");
        }
        if flags & WILL_RETAIN != 0 {
            return malformed("MQTT-3.1.2-13", "Will Retain without Will Flag");
        }
    }
    // [MQTT-3.1.2-22] of 3.1.1; MQTT 5 allows a Password alone.
    if flags & PASSWORD != 0 && flags & USERNAME == 0 && !version.is_v5() {
        return malformed("MQTT-3.1.2-22", "Password without User Name");
    }
    Ok(will_qos)
}

fn properties<'a>(body: &mut Reader<'a>, rules: &Rules) -> Result<ConnectProps<'a>> {
    let mut props = ConnectProps::default();
    let mut properties = Properties::take(body, Place::In(PacketType::Connect), rules)?;
    while let Some(property) = properties.next()? {
        match property {
            Property::SessionExpiry(value) => props.session_expiry_s = Some(value),
            Property::ReceiveMaximum(value) => props.receive_maximum = Some(value),
            Property::MaximumPacketSize(value) => props.maximum_packet_size = Some(value),
            Property::TopicAliasMaximum(value) => props.topic_alias_maximum = Some(value),
            Property::RequestResponseInfo(value) => props.request_response_info = value,
            Property::RequestProblemInfo(value) => props.request_problem_info = value,
            Property::AuthMethod(value) => props.auth_method = Some(value),
            Property::AuthData(value) => props.auth_data = Some(value),
            _ => {}
        }
    }
    // §3.1.2.11.10: Authentication Data without a method is a Protocol Error.
    if props.auth_data.is_some() && props.auth_method.is_none() {
        return Err(DecodeError::protocol("", "Authentication Data without a method"));
    }
    props.user = UserProps::new(properties.kept());
    Ok(props)
}

fn will<'a>(
    body: &mut Reader<'a>,
    version: Version,
    qos: QoS,
    retain: bool,
    rules: &Rules,
) -> Result<Will<'a>> {
    let mut will = Will {
        qos,
        retain,
        topic: "",
        payload: &[],
        delay_s: None,
        message_expiry_s: None,
        payload_format: None,
        forward: Forward::EMPTY,
    };
    if version.is_v5() {
        let mut properties = Properties::take(body, Place::Will, rules)?;
        while let Some(property) = properties.next()? {
            match property {
                Property::WillDelay(value) => will.delay_s = Some(value),
                Property::MessageExpiry(value) => will.message_expiry_s = Some(value),
                Property::PayloadFormat(value) => will.payload_format = Some(value),
                _ => {}
            }
        }
        will.forward = Forward::new(properties.kept());
    }
    will.topic = body.string(rules.strict_utf8)?;
    will.payload = body.binary()?;
    // [MQTT-4.7.0-1] Wildcards MUST NOT be in a Topic Name. [MQTT-4.7.3-1] Nor is it empty.
    if will.topic.is_empty() || memchr::memchr2(b'+', b'#', will.topic.as_bytes()).is_some() {
        return Err(DecodeError::with(
            ReasonCode::TOPIC_NAME_INVALID,
            "MQTT-4.7.0-1",
            "Will Topic is empty or contains a wildcard",
        ));
    }
    Ok(will)
}
