//! What shards tell each other.

use std::sync::Arc;

use super::ids::Peer;
use super::message::Message;

/// One message between the shards of a node. Drivers treat it as opaque.
#[derive(Clone, Debug)]
pub enum Mail {
    /// A publish that may have subscribers on the receiving shard.
    Publish(Arc<Message>),
}

/// A connection that moves to its home shard.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Parcel {
    /// Where it comes from.
    pub peer: Peer,
    /// All bytes read so far: the CONNECT packet and what followed it.
    pub bytes: Vec<u8>,
    /// When it was accepted, in [`Now::mono_ms`](super::ids::Now::mono_ms).
    pub opened_ms: u64,
}

const _: () = assert!(size_of::<Mail>() <= 32, "mail is copied into and out of the mailbox");
