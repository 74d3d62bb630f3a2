//! Reading properties: one pass, no allocation, whatever their number.

use super::{FORWARDED, Mask, Span, USER, bit, id};
use crate::wire::Reader;
use crate::{DecodeError, PacketType, QoS, ReasonCode, Rules};

/// Where properties stand: in a packet, or in the will of a CONNECT.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    Will,
    In(PacketType),
}

impl Place {
    const fn bit(self) -> u16 {
        match self {
            Self::Will => 1,
            Self::In(packet_type) => 1 << packet_type as u8,
        }
    }
}

/// A property with its value, checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Property<'a> {
    PayloadFormat(bool),
    MessageExpiry(u32),
    ContentType(&'a str),
    ResponseTopic(&'a str),
    CorrelationData(&'a [u8]),
    SubscriptionId(u32),
    SessionExpiry(u32),
    AssignedClientId(&'a str),
    ServerKeepAlive(u16),
    AuthMethod(&'a str),
    AuthData(&'a [u8]),
    RequestProblemInfo(bool),
    WillDelay(u32),
    RequestResponseInfo(bool),
    ResponseInfo(&'a str),
    ServerReference(&'a str),
    ReasonString(&'a str),
    ReceiveMaximum(u16),
    TopicAliasMaximum(u16),
    TopicAlias(u16),
    MaximumQos(QoS),
    RetainAvailable(bool),
    User,
    MaximumPacketSize(u32),
    WildcardAvailable(bool),
    SubscriptionIdsAvailable(bool),
    SharedAvailable(bool),
}

/// The places where each property may stand, by identifier (§2.2.2.2, table 2-4). 0: no such
/// property.
const LEGAL: [u16; 0x2B] = legal();

const fn legal() -> [u16; 0x2B] {
    use PacketType::{Auth, ConnAck, Connect, Disconnect, Publish, SubAck, Subscribe, UnsubAck};
    const fn packet(packet_type: PacketType) -> u16 {
        Place::In(packet_type).bit()
    }
    const MESSAGE: u16 = packet(Publish) | Place::Will.bit();
    const BOTH_CONNECTS: u16 = packet(Connect) | packet(ConnAck);
    const ACKS: u16 = packet(PacketType::PubAck)
        | packet(PacketType::PubRec)
        | packet(PacketType::PubRel)
        | packet(PacketType::PubComp)
        | packet(SubAck)
        | packet(UnsubAck);
    const ENDS: u16 = packet(Disconnect) | packet(Auth);
    let mut table = [0; 0x2B];
    table[id::PAYLOAD_FORMAT_INDICATOR as usize] = MESSAGE;
    table[id::MESSAGE_EXPIRY_INTERVAL as usize] = MESSAGE;
    table[id::CONTENT_TYPE as usize] = MESSAGE;
    table[id::RESPONSE_TOPIC as usize] = MESSAGE;
    table[id::CORRELATION_DATA as usize] = MESSAGE;
    table[id::SUBSCRIPTION_IDENTIFIER as usize] = packet(Publish) | packet(Subscribe);
    table[id::SESSION_EXPIRY_INTERVAL as usize] = BOTH_CONNECTS | packet(Disconnect);
    table[id::ASSIGNED_CLIENT_IDENTIFIER as usize] = packet(ConnAck);
    table[id::SERVER_KEEP_ALIVE as usize] = packet(ConnAck);
    table[id::AUTHENTICATION_METHOD as usize] = BOTH_CONNECTS | packet(Auth);
    table[id::AUTHENTICATION_DATA as usize] = BOTH_CONNECTS | packet(Auth);
    table[id::REQUEST_PROBLEM_INFORMATION as usize] = packet(Connect);
    table[id::WILL_DELAY_INTERVAL as usize] = Place::Will.bit();
    table[id::REQUEST_RESPONSE_INFORMATION as usize] = packet(Connect);
    table[id::RESPONSE_INFORMATION as usize] = packet(ConnAck);
    table[id::SERVER_REFERENCE as usize] = packet(ConnAck) | packet(Disconnect);
    table[id::REASON_STRING as usize] = packet(ConnAck) | ACKS | ENDS;
    table[id::RECEIVE_MAXIMUM as usize] = BOTH_CONNECTS;
    table[id::TOPIC_ALIAS_MAXIMUM as usize] = BOTH_CONNECTS;
    table[id::TOPIC_ALIAS as usize] = packet(Publish);
    table[id::MAXIMUM_QOS as usize] = packet(ConnAck);
    table[id::RETAIN_AVAILABLE as usize] = packet(ConnAck);
    table[id::USER_PROPERTY as usize] =
        BOTH_CONNECTS | MESSAGE | ACKS | ENDS | packet(Subscribe) | packet(PacketType::Unsubscribe);
    table[id::MAXIMUM_PACKET_SIZE as usize] = BOTH_CONNECTS;
    table[id::WILDCARD_SUBSCRIPTION_AVAILABLE as usize] = packet(ConnAck);
    table[id::SUBSCRIPTION_IDENTIFIER_AVAILABLE as usize] = packet(ConnAck);
    table[id::SHARED_SUBSCRIPTION_AVAILABLE as usize] = packet(ConnAck);
    table
}

/// Reads the properties of one place, and remembers where those lie that are kept on the wire:
/// what is forwarded of a message, User Properties elsewhere.
pub(crate) struct Properties<'a> {
    all: &'a [u8],
    reader: Reader<'a>,
    place: Place,
    strict_utf8: bool,
    seen: Mask,
    keep: Mask,
    kept_from: usize,
    kept_to: usize,
    kept_len: usize,
}

type Result<T> = std::result::Result<T, DecodeError>;

impl<'a> Properties<'a> {
    /// Takes a property length and as many bytes from `body`.
    #[inline]
    pub(crate) fn take(body: &mut Reader<'a>, place: Place, rules: &Rules) -> Result<Self> {
        let len = body.varint()?;
        let all = body.take(len as usize)?;
        let message = matches!(place, Place::Will | Place::In(PacketType::Publish));
        Ok(Self {
            all,
            reader: Reader::new(all),
            place,
            strict_utf8: rules.strict_utf8,
            seen: 0,
            keep: if message { FORWARDED } else { USER },
            kept_from: 0,
            kept_to: 0,
            kept_len: 0,
        })
    }

    /// All bytes of these properties.
    #[inline]
    pub(crate) const fn all(&self) -> &'a [u8] {
        self.all
    }

    /// What was kept on the wire of the properties read so far.
    #[inline]
    pub(crate) fn kept(&self) -> Span<'a> {
        Span { raw: &self.all[self.kept_from..self.kept_to], kept: self.kept_len as u32 }
    }

    /// The next property; `None` at the end.
    #[inline]
    pub(crate) fn next(&mut self) -> Result<Option<Property<'a>>> {
        if self.reader.is_empty() {
            return Ok(None);
        }
        let from = self.all.len() - self.reader.len();
        // Identifiers are Variable Byte Integers, and all that exist have one byte.
        let identifier = self.reader.u8()?;
        self.check(identifier)?;
        let property = self.value(identifier)?;
        if self.keep & bit(identifier) != 0 {
            let to = self.all.len() - self.reader.len();
            if self.kept_len == 0 {
                self.kept_from = from;
            }
            self.kept_to = to;
            self.kept_len += to - from;
        }
        Ok(Some(property))
    }

    /// Whether the property exists, belongs here, and is not here a second time.
    #[inline]
    fn check(&mut self, identifier: u8) -> Result<()> {
        let legal = LEGAL.get(usize::from(identifier)).copied().unwrap_or(0);
        if legal == 0 {
            return Err(DecodeError::malformed("", "unknown property identifier"));
        }
        if legal & self.place.bit() == 0 {
            return Err(DecodeError::protocol("", "a property does not belong in this packet"));
        }
        let repeatable = identifier == id::USER_PROPERTY
            || (identifier == id::SUBSCRIPTION_IDENTIFIER
                && self.place == Place::In(PacketType::Publish));
        if self.seen & bit(identifier) != 0 && !repeatable {
            return Err(DecodeError::protocol("", "a property is present more than once"));
        }
        self.seen |= bit(identifier);
        Ok(())
    }

    #[inline]
    fn value(&mut self, identifier: u8) -> Result<Property<'a>> {
        Ok(match identifier {
            id::PAYLOAD_FORMAT_INDICATOR => Property::PayloadFormat(self.flag()?),
            id::MESSAGE_EXPIRY_INTERVAL => Property::MessageExpiry(self.reader.u32()?),
            id::CONTENT_TYPE => Property::ContentType(self.string()?),
            id::RESPONSE_TOPIC => Property::ResponseTopic(self.response_topic()?),
            id::CORRELATION_DATA => Property::CorrelationData(self.reader.binary()?),
            id::SUBSCRIPTION_IDENTIFIER => {
                let value = self.reader.varint()?;
                not_zero(value != 0, "Subscription Identifier is 0")?;
                Property::SubscriptionId(value)
            }
            id::SESSION_EXPIRY_INTERVAL => Property::SessionExpiry(self.reader.u32()?),
            id::ASSIGNED_CLIENT_IDENTIFIER => Property::AssignedClientId(self.string()?),
            id::SERVER_KEEP_ALIVE => Property::ServerKeepAlive(self.reader.u16()?),
            id::AUTHENTICATION_METHOD => Property::AuthMethod(self.string()?),
            id::AUTHENTICATION_DATA => Property::AuthData(self.reader.binary()?),
            id::REQUEST_PROBLEM_INFORMATION => Property::RequestProblemInfo(self.flag()?),
            id::WILL_DELAY_INTERVAL => Property::WillDelay(self.reader.u32()?),
            id::REQUEST_RESPONSE_INFORMATION => Property::RequestResponseInfo(self.flag()?),
            id::RESPONSE_INFORMATION => Property::ResponseInfo(self.string()?),
            id::SERVER_REFERENCE => Property::ServerReference(self.string()?),
            id::REASON_STRING => Property::ReasonString(self.string()?),
            id::RECEIVE_MAXIMUM => {
                let value = self.reader.u16()?;
                not_zero(value != 0, "Receive Maximum is 0")?;
                Property::ReceiveMaximum(value)
            }
            id::TOPIC_ALIAS_MAXIMUM => Property::TopicAliasMaximum(self.reader.u16()?),
            id::TOPIC_ALIAS => Property::TopicAlias(self.topic_alias()?),
            id::MAXIMUM_QOS => {
                Property::MaximumQos(if self.flag()? { QoS::AtLeastOnce } else { QoS::AtMostOnce })
            }
            id::RETAIN_AVAILABLE => Property::RetainAvailable(self.flag()?),
            id::USER_PROPERTY => {
                self.string()?;
                self.string()?;
                Property::User
            }
            id::MAXIMUM_PACKET_SIZE => {
                let value = self.reader.u32()?;
                not_zero(value != 0, "Maximum Packet Size is 0")?;
                Property::MaximumPacketSize(value)
            }
            id::WILDCARD_SUBSCRIPTION_AVAILABLE => Property::WildcardAvailable(self.flag()?),
            id::SUBSCRIPTION_IDENTIFIER_AVAILABLE => {
                Property::SubscriptionIdsAvailable(self.flag()?)
            }
            id::SHARED_SUBSCRIPTION_AVAILABLE => Property::SharedAvailable(self.flag()?),
            _ => return Err(DecodeError::malformed("", "unknown property identifier")),
        })
    }

    #[inline]
    fn string(&mut self) -> Result<&'a str> {
        self.reader.string(self.strict_utf8)
    }

    /// A byte that must be 0 or 1.
    #[inline]
    fn flag(&mut self) -> Result<bool> {
        match self.reader.u8()? {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(DecodeError::protocol("", "a property is neither 0 nor 1")),
        }
    }

    fn response_topic(&mut self) -> Result<&'a str> {
        let topic = self.string()?;
        // [MQTT-3.3.2-14] The Response Topic MUST NOT contain wildcard characters.
        if memchr::memchr2(b'+', b'#', topic.as_bytes()).is_some() {
            return Err(DecodeError::protocol(
                "MQTT-3.3.2-14",
                "Response Topic contains a wildcard",
            ));
        }
        Ok(topic)
    }

    fn topic_alias(&mut self) -> Result<u16> {
        let alias = self.reader.u16()?;
        // [MQTT-3.3.2-8] A sender MUST NOT send a Topic Alias of 0.
        if alias == 0 {
            return Err(DecodeError::with(
                ReasonCode::TOPIC_ALIAS_INVALID,
                "MQTT-3.3.2-8",
                "Topic Alias is 0",
            ));
        }
        Ok(alias)
    }
}

#[inline]
fn not_zero(ok: bool, detail: &'static str) -> Result<()> {
    if ok { Ok(()) } else { Err(DecodeError::protocol("", detail)) }
}
