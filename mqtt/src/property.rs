//! Properties (§2.2.2): the cheap views that packets carry, and a writer for making them.

mod parse;

pub(crate) use parse::{Place, Properties, Property};

use crate::wire::{self, Sink};
use std::fmt;

/// Property identifiers. All fit in one byte.
#[allow(missing_docs, reason = "each is the property that the specification calls by this name")]
pub mod id {
    pub const PAYLOAD_FORMAT_INDICATOR: u8 = 0x01;
    pub const MESSAGE_EXPIRY_INTERVAL: u8 = 0x02;
    pub const CONTENT_TYPE: u8 = 0x03;
    pub const RESPONSE_TOPIC: u8 = 0x08;
    pub const CORRELATION_DATA: u8 = 0x09;
    pub const SUBSCRIPTION_IDENTIFIER: u8 = 0x0B;
    pub const SESSION_EXPIRY_INTERVAL: u8 = 0x11;
    pub const ASSIGNED_CLIENT_IDENTIFIER: u8 = 0x12;
    pub const SERVER_KEEP_ALIVE: u8 = 0x13;
    pub const AUTHENTICATION_METHOD: u8 = 0x15;
    pub const AUTHENTICATION_DATA: u8 = 0x16;
    pub const REQUEST_PROBLEM_INFORMATION: u8 = 0x17;
    pub const WILL_DELAY_INTERVAL: u8 = 0x18;
    pub const REQUEST_RESPONSE_INFORMATION: u8 = 0x19;
    pub const RESPONSE_INFORMATION: u8 = 0x1A;
    pub const SERVER_REFERENCE: u8 = 0x1C;
    pub const REASON_STRING: u8 = 0x1F;
    pub const RECEIVE_MAXIMUM: u8 = 0x21;
    pub const TOPIC_ALIAS_MAXIMUM: u8 = 0x22;
    pub const TOPIC_ALIAS: u8 = 0x23;
    pub const MAXIMUM_QOS: u8 = 0x24;
    pub const RETAIN_AVAILABLE: u8 = 0x25;
    pub const USER_PROPERTY: u8 = 0x26;
    pub const MAXIMUM_PACKET_SIZE: u8 = 0x27;
    pub const WILDCARD_SUBSCRIPTION_AVAILABLE: u8 = 0x28;
    pub const SUBSCRIPTION_IDENTIFIER_AVAILABLE: u8 = 0x29;
    pub const SHARED_SUBSCRIPTION_AVAILABLE: u8 = 0x2A;
}

/// The properties of a message that go to every subscriber unaltered and in order: Payload Format
/// Indicator, Content Type, Response Topic, Correlation Data and User Properties.
/// [MQTT-3.3.2-4] [MQTT-3.3.2-15] [MQTT-3.3.2-16] [MQTT-3.3.2-17] [MQTT-3.3.2-18] [MQTT-3.3.2-20]
///
/// A view of wire bytes. Where the publisher mixed in properties that are not forwarded, the view
/// spans them and leaves them out when written.
#[derive(Clone, Copy, Default)]
pub struct Forward<'a> {
    span: Span<'a>,
}

impl<'a> Forward<'a> {
    /// The bytes that [`append_to`](Self::append_to) would write, when they lie together.
    #[inline]
    #[must_use]
    pub const fn as_slice_if_contiguous(&self) -> Option<&'a [u8]> {
        self.span.contiguous()
    }

    /// The User Properties among them.
    #[must_use]
    pub fn user(&self) -> UserProps<'a> {
        let kept = self.span.items(USER).map(|item| item.len() as u32).sum();
        UserProps { span: Span { raw: self.span.raw, kept } }
    }
}

impl fmt::Debug for Forward<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.span.items(FORWARDED)).finish()
    }
}

/// User Properties: name and value pairs, in order, duplicates kept.
#[derive(Clone, Copy, Default)]
pub struct UserProps<'a> {
    span: Span<'a>,
}

impl<'a> UserProps<'a> {
    /// The pairs, in order.
    #[inline]
    pub fn iter(&self) -> impl Iterator<Item = (&'a str, &'a str)> + 'a {
        self.span.items(USER).filter_map(pair)
    }
}

impl fmt::Debug for UserProps<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

/// What views of properties have in common.
macro_rules! view {
    ($name:ident, $mask:expr) => {
        impl<'a> $name<'a> {
            /// No properties.
            pub const EMPTY: Self = Self { span: Span::EMPTY };

            pub(crate) const fn new(span: Span<'a>) -> Self {
                Self { span }
            }

            /// Takes bytes that [`append_to`](Self::append_to) or a [`PropertyWriter`] wrote, of
            /// properties of this kind alone. Other bytes would go to the peer as they are.
            #[inline]
            #[must_use]
            pub const fn from_wire(bytes: &'a [u8]) -> Self {
                Self { span: Span { raw: bytes, kept: bytes.len() as u32 } }
            }

            /// Bytes that [`append_to`](Self::append_to) writes.
            #[inline]
            #[must_use]
            pub const fn wire_len(&self) -> usize {
                self.span.kept as usize
            }

            /// Whether there are none.
            #[inline]
            #[must_use]
            pub const fn is_empty(&self) -> bool {
                self.span.kept == 0
            }

            /// Appends the properties as they are on the wire, identifiers included, without a
            /// length in front.
            #[inline]
            pub fn append_to(&self, out: &mut Vec<u8>) {
                self.put(out);
            }

            #[inline]
            pub(crate) fn put<S: Sink>(&self, out: &mut S) {
                self.span.put(out, $mask);
            }
        }

        impl PartialEq for $name<'_> {
            /// Whether both would be written as the same bytes.
            fn eq(&self, other: &Self) -> bool {
                self.span.same(&other.span, $mask)
            }
        }

        impl Eq for $name<'_> {}
    };
}

view!(Forward, FORWARDED);
view!(UserProps, USER);

/// The Subscription Identifiers of a PUBLISH that a server sent, each 1..=268,435,455.
#[derive(Clone, Copy, Default)]
pub struct SubscriptionIds<'a> {
    raw: &'a [u8],
    count: u32,
}

impl<'a> SubscriptionIds<'a> {
    pub(crate) const fn new(raw: &'a [u8], count: u32) -> Self {
        Self { raw, count }
    }

    /// How many there are.
    #[inline]
    #[must_use]
    pub const fn len(&self) -> usize {
        self.count as usize
    }

    /// Whether there are none.
    #[inline]
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// The identifiers, in order.
    #[inline]
    pub fn iter(&self) -> impl Iterator<Item = u32> + 'a {
        let raw = if self.count == 0 { &[] } else { self.raw };
        let mask = bit(id::SUBSCRIPTION_IDENTIFIER);
        Span { raw, kept: 0 }
            .items(mask)
            .filter_map(|item| Some(wire::varint(&item[1..], true).ok()??.0))
    }
}

impl PartialEq for SubscriptionIds<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.count == other.count && self.iter().eq(other.iter())
    }
}

impl Eq for SubscriptionIds<'_> {}

impl fmt::Debug for SubscriptionIds<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

/// Writes properties as they are on the wire, for [`Forward::from_wire`] and
/// [`UserProps::from_wire`]. Strings above 65,535 bytes are cut.
#[derive(Debug)]
pub struct PropertyWriter<'v> {
    out: &'v mut Vec<u8>,
}

impl<'v> PropertyWriter<'v> {
    /// Appends to `out`.
    #[must_use]
    pub const fn new(out: &'v mut Vec<u8>) -> Self {
        Self { out }
    }

    /// Payload Format Indicator.
    pub fn payload_format(&mut self, utf8: bool) -> &mut Self {
        self.out.byte_property(id::PAYLOAD_FORMAT_INDICATOR, Some(u8::from(utf8)));
        self
    }

    /// Content Type.
    pub fn content_type(&mut self, value: &str) -> &mut Self {
        self.out.str_property(id::CONTENT_TYPE, Some(value));
        self
    }

    /// Response Topic.
    pub fn response_topic(&mut self, value: &str) -> &mut Self {
        self.out.str_property(id::RESPONSE_TOPIC, Some(value));
        self
    }

    /// Correlation Data.
    pub fn correlation(&mut self, value: &[u8]) -> &mut Self {
        self.out.binary_property(id::CORRELATION_DATA, Some(value));
        self
    }

    /// One User Property.
    pub fn user(&mut self, name: &str, value: &str) -> &mut Self {
        self.out.u8(id::USER_PROPERTY);
        self.out.string(name);
        self.out.string(value);
        self
    }
}

/// A set of property identifiers, one bit each.
pub(crate) type Mask = u64;

pub(crate) const fn bit(id: u8) -> Mask {
    1 << id
}

pub(crate) const USER: Mask = bit(id::USER_PROPERTY);

pub(crate) const FORWARDED: Mask = bit(id::PAYLOAD_FORMAT_INDICATOR)
    | bit(id::CONTENT_TYPE)
    | bit(id::RESPONSE_TOPIC)
    | bit(id::CORRELATION_DATA)
    | USER;

/// Wire bytes from the first to the last property of a set, and how many of them belong to it.
#[derive(Clone, Copy, Default)]
pub(crate) struct Span<'a> {
    pub(crate) raw: &'a [u8],
    pub(crate) kept: u32,
}

impl<'a> Span<'a> {
    const EMPTY: Self = Self { raw: &[], kept: 0 };

    const fn contiguous(&self) -> Option<&'a [u8]> {
        if self.kept == 0 {
            Some(&[])
        } else if self.kept as usize == self.raw.len() {
            Some(self.raw)
        } else {
            None
        }
    }

    fn items(&self, mask: Mask) -> Items<'a> {
        Items { rest: self.raw, mask }
    }

    fn put<S: Sink>(&self, out: &mut S, mask: Mask) {
        match self.contiguous() {
            Some(bytes) => out.bytes(bytes),
            None => self.items(mask).for_each(|item| out.bytes(item)),
        }
    }

    fn same(&self, other: &Self, mask: Mask) -> bool {
        match (self.contiguous(), other.contiguous()) {
            (Some(a), Some(b)) => a == b,
            _ => self.kept == other.kept && self.items(mask).eq(other.items(mask)),
        }
    }
}

/// Walks over properties that were checked when decoded, and yields those of a set whole.
struct Items<'a> {
    rest: &'a [u8],
    mask: Mask,
}

impl<'a> Iterator for Items<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        loop {
            let (item, rest) = self.rest.split_at_checked(whole_len(self.rest)?)?;
            self.rest = rest;
            if self.mask & bit(item[0]) != 0 {
                return Some(item);
            }
        }
    }
}

/// Bytes of the property that `bytes` begins with, its identifier included.
fn whole_len(bytes: &[u8]) -> Option<usize> {
    let field = |at: usize| {
        let len = bytes.get(at..at + 2)?;
        Some(2 + usize::from(u16::from_be_bytes([len[0], len[1]])))
    };
    Some(match *bytes.first()? {
        id::PAYLOAD_FORMAT_INDICATOR
        | id::REQUEST_PROBLEM_INFORMATION
        | id::REQUEST_RESPONSE_INFORMATION
        | id::MAXIMUM_QOS
        | id::RETAIN_AVAILABLE
        | id::WILDCARD_SUBSCRIPTION_AVAILABLE
        | id::SUBSCRIPTION_IDENTIFIER_AVAILABLE
        | id::SHARED_SUBSCRIPTION_AVAILABLE => 2,
        id::SERVER_KEEP_ALIVE | id::RECEIVE_MAXIMUM | id::TOPIC_ALIAS_MAXIMUM | id::TOPIC_ALIAS => {
            3
        }
        id::MESSAGE_EXPIRY_INTERVAL
        | id::SESSION_EXPIRY_INTERVAL
        | id::WILL_DELAY_INTERVAL
        | id::MAXIMUM_PACKET_SIZE => 5,
        id::SUBSCRIPTION_IDENTIFIER => 1 + usize::from(wire::varint(&bytes[1..], true).ok()??.1),
        id::USER_PROPERTY => {
            let name = field(1)?;
            1 + name + field(1 + name)?
        }
        id::CONTENT_TYPE
        | id::RESPONSE_TOPIC
        | id::CORRELATION_DATA
        | id::ASSIGNED_CLIENT_IDENTIFIER
        | id::AUTHENTICATION_METHOD
        | id::AUTHENTICATION_DATA
        | id::RESPONSE_INFORMATION
        | id::SERVER_REFERENCE
        | id::REASON_STRING => 1 + field(1)?,
        _ => return None,
    })
}

/// The name and the value of a User Property.
fn pair(item: &[u8]) -> Option<(&str, &str)> {
    let (name_len, rest) = item.get(1..)?.split_first_chunk::<2>()?;
    let (name, rest) = rest.split_at_checked(usize::from(u16::from_be_bytes(*name_len)))?;
    let value = rest.get(2..)?;
    Some((str::from_utf8(name).ok()?, str::from_utf8(value).ok()?))
}
