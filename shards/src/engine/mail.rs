//! What shards tell each other.
//!
//! One lane per pair of shards is FIFO, and a mail that was sent after another one was sent arrives
//! after it. Nothing here is ever lost: back-pressure goes to sockets.

use std::sync::Arc;

use super::auth::Identity;
use super::config::Strategy;
use super::counters::{Counters, Gauges};
use super::ids::{Peer, ShardId};
use super::introduction::Introduction;
use super::message::Message;
use super::packed::Span;
use super::retained::RetainedCursor;
use crate::observe::Journey;

/// One message between the shards of a node. Drivers treat it as opaque.
#[derive(Clone, Debug)]
pub enum Mail {
    /// A publish that may have subscribers on the receiving shard.
    Publish(Arc<Message>),
    /// The same, in the bytes of the batch that the mail is part of.
    Packed(Span),
    /// The publish that comes next is followed: its way so far.
    Journey(Box<Journey>),
    /// As `Publish`, answered with `Verdict`.
    PublishAsk(Arc<Message>, Ticket),
    /// How many local targets a `PublishAsk` had, and whether one had no room.
    Verdict {
        /// From the question.
        ticket: Ticket,
        /// Targets that took it.
        taken: u32,
        /// Whether a target had no room for it.
        refused: bool,
    },
    /// To the owner of a topic: store or, without payload, clear. In `mail_after`, so that every
    /// live copy is in its mailbox before the retained one can be read.
    Retain(Arc<Message>),
    /// To the owner of a topic, or for a wildcard to every shard: one page of retained messages.
    RetainedAsk(Box<RetainedAsk>),
    /// The answer.
    RetainedPage(Box<RetainedPage>),
    /// To a shard with retained publishes on their way: asks for `RetainsSent` behind them, so that
    /// a replay sees what was read, or acknowledged, before its SUBSCRIBE.
    RetainsAsk(Ticket),
    /// In `mail_after`: every retained publish of this shard before the question is in the mailbox
    /// of its owner.
    RetainsSent(Ticket),
    /// To the home shard of a shared group or of an exclusive filter.
    Group(Box<GroupMail>),
    /// A message for a member of a shared group.
    GroupDeliver(Box<GroupDeliver>),
    /// Members finished messages: their window has room again.
    GroupDone(Box<[GroupDone]>),
    /// Asks for `Stats`.
    StatsAsk,
    /// The counters of a shard.
    Stats(Box<(Counters, Gauges)>),
}

/// Identifies a publish that waits for verdicts, on the publisher's shard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ticket {
    /// Slot.
    pub index: u32,
    /// Generation of the slot.
    pub generation: u32,
}

/// Asks for one page of retained messages.
#[derive(Clone, Debug)]
pub struct RetainedAsk {
    /// The filter of the subscription.
    pub filter: Arc<str>,
    /// The replay that wants it, on the asking shard.
    pub replay: Ticket,
    /// Where the last page ended; default = from the start.
    pub cursor: RetainedCursor,
}

/// One page of retained messages.
#[derive(Clone, Debug)]
pub struct RetainedPage {
    /// The replay that asked.
    pub replay: Ticket,
    /// The messages.
    pub messages: Vec<Arc<Message>>,
    /// Where to go on; `None` = that was all.
    pub next: Option<RetainedCursor>,
}

/// A membership as the group's home shard knows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct MemberRef {
    /// Home shard of the member's session.
    pub shard: ShardId,
    /// Membership slot on that shard.
    pub index: u32,
    /// Generation of the slot.
    pub generation: u32,
}

/// Between a member's shard and the home of its group.
#[derive(Clone, Debug)]
pub enum GroupMail {
    /// The member joins, or changes its options. Answered with `Joined`.
    Join {
        /// The subscription as the client wrote it: `$share/g/f`, `$queue/f`, `$oshare/g/f`,
        /// `$exclusive/f`.
        name: Arc<str>,
        /// Who.
        member: MemberRef,
        /// Whether its client is connected.
        online: bool,
        /// How many unacknowledged messages it takes.
        window: u16,
        /// Hash of its client id.
        client: u64,
        /// The SUBSCRIBE that waits for the answer.
        waits: Ticket,
    },
    /// The group knows the member, and routes lead to it; or an exclusive filter is taken.
    Joined {
        /// Who.
        member: MemberRef,
        /// The SUBSCRIBE that waits.
        waits: Ticket,
        /// False: an exclusive filter has another subscriber.
        granted: bool,
    },
    /// The member leaves. Answered with `Left` when somebody waits.
    Leave {
        /// The subscription as the client wrote it.
        name: Arc<str>,
        /// Who.
        member: MemberRef,
        /// The UNSUBSCRIBE that waits.
        waits: Option<Ticket>,
    },
    /// The member is gone from the group.
    Left {
        /// The UNSUBSCRIBE that waits.
        waits: Ticket,
    },
    /// The member's client connected or disconnected.
    Status {
        /// The subscription as the client wrote it.
        name: Arc<str>,
        /// Who.
        member: MemberRef,
        /// Whether its client is connected.
        online: bool,
        /// How many unacknowledged messages it takes.
        window: u16,
    },
    /// A message that the member did not or will not deliver: another one may. [S-63, S-67]
    Return {
        /// The subscription as the client wrote it.
        name: Arc<str>,
        /// Who gives it back.
        member: MemberRef,
        /// The message.
        msg: Arc<Message>,
    },
}

/// A message for a member of a shared group.
#[derive(Clone, Debug)]
pub struct GroupDeliver {
    /// To whom.
    pub member: MemberRef,
    /// The subscription as the client wrote it: for giving it back.
    pub name: Arc<str>,
    /// The message.
    pub msg: Arc<Message>,
}

/// `count` messages of a member are no longer unacknowledged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupDone {
    /// Group slot on its home shard: the hash of its name.
    pub group: u64,
    /// Who.
    pub member: MemberRef,
    /// How many.
    pub count: u32,
}

/// A connection that moves to its home shard.
#[derive(Clone, Debug)]
pub struct Parcel {
    /// Where it comes from.
    pub peer: Peer,
    /// What its transport said about it.
    pub introduction: Option<Box<Introduction>>,
    /// Who it is, if that was asked: its home does not ask again.
    pub identity: Option<Arc<Identity>>,
    /// All bytes read so far: the CONNECT packet and what followed it.
    pub bytes: Vec<u8>,
    /// When it was accepted, in [`Now::mono_ms`](super::ids::Now::mono_ms).
    pub opened_ms: u64,
}

const _: () = assert!(size_of::<Mail>() <= 32, "mail is copied into and out of the mailbox");
const _: () = assert!(size_of::<Strategy>() == 1);
