//! MQTT 3.1, 3.1.1 and 5.0 as plain functions over byte slices.
//!
//! Pure: no I/O, clock, thread, randomness or environment. Decoding borrows from the input and
//! allocates nothing; encoding appends to a `Vec<u8>` that the caller owns. No input makes it panic.
//!
//! The path of a packet in: [`header`] tells how many bytes it has, [`decode`] (or, for the hot
//! path, [`decode_publish`]) turns the body into a [`Packet`], [`topic`] and [`subscription`] turn
//! its strings into names and filters. The path out: fill in the same packet structs and call their
//! `encode`, or use [`PublishOut`] where one message goes to many subscribers.
#![forbid(unsafe_code)]

mod decode;
pub mod encode;
mod error;
mod header;
mod packet;
pub mod property;
mod reason;
pub mod subscription;
pub mod topic;
mod types;
mod utf8;
mod wire;

pub use decode::{ConnectVersion, Rules, connect_version, decode, decode_publish, refusal_version};
pub use encode::{HeadLayout, PublishOut};
pub use error::DecodeError;
pub use header::{Header, REMAINING_LENGTH_MAX, header, header_v31};
pub use packet::{
    Ack, Auth, ClientIdRules, ConnAck, Connect, ConnectProps, Disconnect, Packet, Publish,
    PublishProps, RetainHandling, SubAck, Subscribe, SubscribeFilters, SubscribeOptions,
    Unsubscribe, UnsubscribeFilters, Will,
};
pub use property::{Forward, SubscriptionIds, UserProps};
pub use reason::ReasonCode;
pub use types::{PacketId, PacketType, QoS, Role, Version};
