//! Control packets as borrowed structs: what [`decode`](crate::decode) returns and what `encode`
//! takes. All are cheap to copy and own nothing.

use crate::property::{Forward, SubscriptionIds, UserProps};
use crate::{PacketId, QoS, ReasonCode, Version};

/// Any control packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(
    clippy::large_enum_variant,
    missing_docs,
    reason = "decoding must not allocate; each variant is the packet of that name"
)]
pub enum Packet<'a> {
    Connect(Connect<'a>),
    ConnAck(ConnAck<'a>),
    Publish(Publish<'a>),
    PubAck(Ack<'a>),
    PubRec(Ack<'a>),
    PubRel(Ack<'a>),
    PubComp(Ack<'a>),
    Subscribe(Subscribe<'a>),
    SubAck(SubAck<'a>),
    Unsubscribe(Unsubscribe<'a>),
    UnsubAck(SubAck<'a>),
    PingReq,
    PingResp,
    Disconnect(Disconnect<'a>),
    Auth(Auth<'a>),
}

/// CONNECT (§3.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Connect<'a> {
    /// Protocol name and level.
    pub version: Version,
    /// MQTT 3 level with the bridge bit (0x80) set: the peer is a bridge and asks that its own
    /// messages are not sent back. Never in MQTT 5.
    pub bridge: bool,
    /// Clean Start (MQTT 5) or Clean Session (MQTT 3).
    pub clean_start: bool,
    /// Keep Alive in seconds; 0 turns it off.
    pub keep_alive_s: u16,
    /// Client Identifier; may be empty.
    pub client_id: &'a str,
    /// User Name.
    pub username: Option<&'a str>,
    /// Password.
    pub password: Option<&'a [u8]>,
    /// The Will Message.
    pub will: Option<Will<'a>>,
    /// CONNECT properties; the defaults in MQTT 3.
    pub props: ConnectProps<'a>,
}

impl<'a> Connect<'a> {
    /// One that says nothing but who: a clean start, and no keep-alive, credentials, will or properties.
    #[must_use]
    pub fn new(version: Version, client_id: &'a str) -> Self {
        Self {
            version,
            bridge: false,
            clean_start: true,
            keep_alive_s: 0,
            client_id,
            username: None,
            password: None,
            will: None,
            props: ConnectProps::default(),
        }
    }
}

/// Limits on client identifiers, from a listener's configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClientIdRules {
    /// Longest identifier accepted, in bytes.
    pub max_len: u16,
    /// Accept MQTT 3.1 identifiers that are empty or above 23 characters as MQTT 3.1.1 would.
    pub lenient_31: bool,
}

impl Default for ClientIdRules {
    fn default() -> Self {
        Self { max_len: u16::MAX, lenient_31: false }
    }
}

/// Longest client identifier of MQTT 3.1, in characters.
const CLIENT_ID_31_MAX: usize = 23;

impl Connect<'_> {
    /// Whether the client identifier is acceptable.
    ///
    /// # Errors
    /// 0x85 Client Identifier not valid (MQTT 3: return code 2) when it is too long, or empty where
    /// the version does not let the server assign one.
    pub fn check_client_id(&self, rules: &ClientIdRules) -> Result<(), ReasonCode> {
        let id = self.client_id;
        let bad = match self.version {
            _ if id.len() > usize::from(rules.max_len) => true,
            Version::V31 if !rules.lenient_31 => {
                id.is_empty() || id.chars().count() > CLIENT_ID_31_MAX
            }
            // [MQTT-3.1.3-8] of 3.1.1: a zero-byte ClientId with CleanSession 0 gets 0x02.
            Version::V31 | Version::V311 => id.is_empty() && !self.clean_start,
            Version::V5 => false,
        };
        if bad { Err(ReasonCode::CLIENT_IDENTIFIER_NOT_VALID) } else { Ok(()) }
    }
}

/// Properties of CONNECT (§3.1.2.11), `None` where absent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConnectProps<'a> {
    /// Session Expiry Interval in seconds; `u32::MAX` means never.
    pub session_expiry_s: Option<u32>,
    /// Receive Maximum, never 0.
    pub receive_maximum: Option<u16>,
    /// Maximum Packet Size in bytes, never 0.
    pub maximum_packet_size: Option<u32>,
    /// Topic Alias Maximum.
    pub topic_alias_maximum: Option<u16>,
    /// Request Response Information; `false` when absent.
    pub request_response_info: bool,
    /// Request Problem Information; `true` when absent.
    pub request_problem_info: bool,
    /// Authentication Method.
    pub auth_method: Option<&'a str>,
    /// Authentication Data; only with a method.
    pub auth_data: Option<&'a [u8]>,
    /// User Properties.
    pub user: UserProps<'a>,
}

impl Default for ConnectProps<'_> {
    fn default() -> Self {
        Self {
            session_expiry_s: None,
            receive_maximum: None,
            maximum_packet_size: None,
            topic_alias_maximum: None,
            request_response_info: false,
            request_problem_info: true,
            auth_method: None,
            auth_data: None,
            user: UserProps::default(),
        }
    }
}

/// The Will Message of a CONNECT.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Will<'a> {
    /// Will QoS.
    pub qos: QoS,
    /// Will Retain.
    pub retain: bool,
    /// Will Topic: not empty, without wildcards.
    pub topic: &'a str,
    /// Will Payload.
    pub payload: &'a [u8],
    /// Will Delay Interval in seconds; never forwarded.
    pub delay_s: Option<u32>,
    /// Message Expiry Interval in seconds, which starts at publication.
    pub message_expiry_s: Option<u32>,
    /// Payload Format Indicator: `true` for UTF-8. Also in `forward`.
    pub payload_format: Option<bool>,
    /// What is published with the message, and what encoding writes.
    pub forward: Forward<'a>,
}

/// CONNACK (§3.2).
///
/// In MQTT 3 only `session_present` (3.1.1) and `code` are on the wire, the latter translated.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ConnAck<'a> {
    /// Session Present; must be `false` with an error code. [MQTT-3.2.2-6]
    pub session_present: bool,
    /// Connect Reason Code, always in its MQTT 5 form.
    pub code: ReasonCode,
    /// Session Expiry Interval in seconds, where the server's differs.
    pub session_expiry_s: Option<u32>,
    /// Receive Maximum.
    pub receive_maximum: Option<u16>,
    /// Maximum QoS: 0 or 1 where present.
    pub maximum_qos: Option<QoS>,
    /// Retain Available.
    pub retain_available: Option<bool>,
    /// Maximum Packet Size in bytes.
    pub maximum_packet_size: Option<u32>,
    /// Assigned Client Identifier.
    pub assigned_client_id: Option<&'a str>,
    /// Topic Alias Maximum.
    pub topic_alias_maximum: Option<u16>,
    /// Reason String.
    pub reason_string: Option<&'a str>,
    /// User Properties.
    pub user: UserProps<'a>,
    /// Wildcard Subscription Available.
    pub wildcard_available: Option<bool>,
    /// Subscription Identifiers Available.
    pub subscription_ids_available: Option<bool>,
    /// Shared Subscription Available.
    pub shared_available: Option<bool>,
    /// Server Keep Alive in seconds.
    pub server_keep_alive_s: Option<u16>,
    /// Response Information.
    pub response_information: Option<&'a str>,
    /// Server Reference.
    pub server_reference: Option<&'a str>,
    /// Authentication Method.
    pub auth_method: Option<&'a str>,
    /// Authentication Data.
    pub auth_data: Option<&'a [u8]>,
}

/// PUBLISH (§3.3) as received.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Publish<'a> {
    /// The sender's own retransmission; never copied to other copies. [MQTT-3.3.1-3]
    pub dup: bool,
    /// QoS.
    pub qos: QoS,
    /// RETAIN.
    pub retain: bool,
    /// Topic Name without wildcards; `""` only in MQTT 5 with a Topic Alias.
    pub topic: &'a str,
    /// Present exactly when QoS > 0.
    pub packet_id: Option<PacketId>,
    /// Properties; empty in MQTT 3.
    pub props: PublishProps<'a>,
    /// Application Message; may be empty.
    pub payload: &'a [u8],
}

/// Properties of PUBLISH (§3.3.2.3).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PublishProps<'a> {
    /// Payload Format Indicator: `true` for UTF-8.
    pub payload_format: Option<bool>,
    /// Message Expiry Interval in seconds.
    pub message_expiry_s: Option<u32>,
    /// Topic Alias, never 0.
    pub topic_alias: Option<u16>,
    /// Response Topic, without wildcards.
    pub response_topic: Option<&'a str>,
    /// Content Type.
    pub content_type: Option<&'a str>,
    /// Correlation Data.
    pub correlation: Option<&'a [u8]>,
    /// What goes on to subscribers unaltered and in order, User Properties included. Encoding
    /// writes these, not the fields above that are copies from it.
    pub forward: Forward<'a>,
    /// Subscription Identifiers, from a server only.
    pub subscription_ids: SubscriptionIds<'a>,
}

/// PUBACK, PUBREC, PUBREL or PUBCOMP (§3.4 to §3.7).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ack<'a> {
    /// Packet Identifier.
    pub packet_id: PacketId,
    /// Reason code; success in MQTT 3.
    pub reason: ReasonCode,
    /// Reason String.
    pub reason_string: Option<&'a str>,
    /// User Properties.
    pub user: UserProps<'a>,
}

/// Retain Handling of a subscription (§3.8.3.1).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum RetainHandling {
    /// 0: send retained messages at every SUBSCRIBE.
    #[default]
    Send = 0,
    /// 1: send them only if the subscription did not exist.
    SendIfNew = 1,
    /// 2: never send them.
    DoNotSend = 2,
}

/// Subscription Options of one filter. MQTT 3 has the QoS only.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct SubscribeOptions {
    /// Maximum QoS asked for.
    pub qos: QoS,
    /// No Local.
    pub no_local: bool,
    /// Retain As Published.
    pub retain_as_published: bool,
    /// Retain Handling.
    pub retain_handling: RetainHandling,
}

/// SUBSCRIBE (§3.8).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Subscribe<'a> {
    /// Packet Identifier.
    pub packet_id: PacketId,
    /// Subscription Identifier, 1..=268,435,455.
    pub subscription_id: Option<u32>,
    /// User Properties.
    pub user: UserProps<'a>,
    /// At least one filter with its options. The syntax of the filters is not yet checked: a bad
    /// one gets its own code in the SUBACK.
    pub filters: SubscribeFilters<'a>,
}

/// The filters of a SUBSCRIBE, in order, still on the wire: `len filter options` each.
#[derive(Clone, Copy)]
pub struct SubscribeFilters<'a> {
    pub(crate) raw: &'a [u8],
    pub(crate) count: u32,
    pub(crate) options_mask: u8,
}

/// UNSUBSCRIBE (§3.10).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unsubscribe<'a> {
    /// Packet Identifier.
    pub packet_id: PacketId,
    /// User Properties.
    pub user: UserProps<'a>,
    /// At least one filter; syntax not yet checked.
    pub filters: UnsubscribeFilters<'a>,
}

/// The filters of an UNSUBSCRIBE, in order, still on the wire: `len filter` each.
#[derive(Clone, Copy)]
pub struct UnsubscribeFilters<'a> {
    pub(crate) raw: &'a [u8],
    pub(crate) count: u32,
}

/// SUBACK or UNSUBACK (§3.9, §3.11).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SubAck<'a> {
    /// Packet Identifier.
    pub packet_id: PacketId,
    /// One reason code a filter, in the order of the request, in MQTT 5 form. Empty for the
    /// UNSUBACK of MQTT 3, which has none.
    pub reasons: &'a [u8],
    /// Reason String.
    pub reason_string: Option<&'a str>,
    /// User Properties.
    pub user: UserProps<'a>,
}

impl<'a> SubAck<'a> {
    /// The reason codes, one a filter.
    pub fn codes(&self) -> impl ExactSizeIterator<Item = ReasonCode> + 'a {
        self.reasons.iter().map(|&code| ReasonCode(code))
    }
}

/// DISCONNECT (§3.14). In MQTT 3 it has no fields, and only a client sends it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Disconnect<'a> {
    /// Reason code.
    pub reason: ReasonCode,
    /// Session Expiry Interval in seconds, from a client only.
    pub session_expiry_s: Option<u32>,
    /// Reason String.
    pub reason_string: Option<&'a str>,
    /// Server Reference, from a server only.
    pub server_reference: Option<&'a str>,
    /// User Properties.
    pub user: UserProps<'a>,
}

/// AUTH (§3.15), MQTT 5 only.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Auth<'a> {
    /// Reason code: 0x00, 0x18 or 0x19.
    pub reason: ReasonCode,
    /// Authentication Method; absent only in the zero-length form of AUTH.
    pub method: Option<&'a str>,
    /// Authentication Data.
    pub data: Option<&'a [u8]>,
    /// Reason String.
    pub reason_string: Option<&'a str>,
    /// User Properties.
    pub user: UserProps<'a>,
}

macro_rules! list_like {
    ($($filters:ident)*) => {$(
        impl PartialEq for $filters<'_> {
            fn eq(&self, other: &Self) -> bool {
                self.iter().eq(other.iter())
            }
        }

        impl Eq for $filters<'_> {}

        impl std::fmt::Debug for $filters<'_> {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.debug_list().entries(self.iter()).finish()
            }
        }
    )*};
}

list_like! { SubscribeFilters UnsubscribeFilters }
