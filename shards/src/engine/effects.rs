//! What a shard wants done. One scratch per shard, performed and cleared after each turn.

use bytes::Bytes;
use ringmain_mqtt::ReasonCode;

use super::auth::AuthRequest;
use super::counters::DriverCounts;
use super::ids::{ConnId, ShardId, ShardSet};
use super::mail::{Mail, Parcel};
use super::message::Outgoing;
use super::packed::Batch;
use crate::boundary::Event;
use crate::observe::Recorder;

/// One operation on a connection or listener. Operations are performed in order.
#[derive(Debug)]
pub enum Op {
    /// Send `fx.arena[at..at + len]`. The driver copies it into the connection's pending buffer, so
    /// that all writes of a turn leave in one send.
    Write {
        /// To whom.
        conn: ConnId,
        /// Offset in [`Effects::arena`].
        at: u32,
        /// Length in bytes.
        len: u32,
    },
    /// Send a large payload without copying it: `fx.shared[ix]`.
    WriteShared {
        /// To whom.
        conn: ConnId,
        /// Index in [`Effects::shared`].
        ix: u32,
    },
    /// Close. [`Input::Closed`](super::input::Input::Closed) follows.
    Close {
        /// Which connection.
        conn: ConnId,
        /// In which manner.
        how: CloseHow,
    },
    /// The MQTT handshake is done: read by multishot receive from now on.
    Established {
        /// Which connection.
        conn: ConnId,
    },
    /// The peer may be silent for as long as it likes: have the kernel probe whether it is there, where
    /// the listener says so. Follows `Established`.
    ProbePeer {
        /// Which connection.
        conn: ConnId,
    },
    /// Stop reading. What was already received still arrives as `Data`.
    PauseRead {
        /// Which connection.
        conn: ConnId,
    },
    /// Read again.
    ResumeRead {
        /// Which connection.
        conn: ConnId,
    },
    /// Move the connection to another shard: there it becomes
    /// [`Input::Arrived`](super::input::Input::Arrived); here its id ends without `Closed`. Only
    /// before `Established`, and when all that was written to it was sent.
    Handover {
        /// Which connection.
        conn: ConnId,
        /// Its home shard.
        to: ShardId,
        /// What goes along.
        parcel: Box<Parcel>,
    },
    /// Leave new connections of a listener in the kernel's backlog. This shard's share only.
    PauseAccept {
        /// Index of the listener.
        listener: u16,
    },
    /// Accept again.
    ResumeAccept {
        /// Index of the listener.
        listener: u16,
    },
}

/// How to close a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CloseHow {
    /// Send what is pending (at most one second long, [S-93]), then FIN, then close.
    Flush,
    /// The same, for a reason that a transport may have words for.
    FlushFor(Farewell),
    /// Drop what is pending and close with RST.
    Abort,
}

/// Why a connection is closed, for transports that say so. (RFC 6455, section 7.4.1)
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Farewell {
    /// The node goes down, or the client is to go to another one.
    GoingAway,
    /// The client broke the protocol of MQTT.
    ProtocolError,
    /// The client may not do what it did, or asks too much of the node.
    Policy,
}

impl Farewell {
    /// What a reason code comes to; `None`: nothing is wrong.
    fn of(reason: ReasonCode) -> Option<Self> {
        Some(match reason {
            ReasonCode::SERVER_SHUTTING_DOWN
            | ReasonCode::USE_ANOTHER_SERVER
            | ReasonCode::SERVER_MOVED => Self::GoingAway,
            ReasonCode::MALFORMED_PACKET
            | ReasonCode::PROTOCOL_ERROR
            | ReasonCode::PACKET_TOO_LARGE
            | ReasonCode::RECEIVE_MAXIMUM_EXCEEDED
            | ReasonCode::TOPIC_ALIAS_INVALID => Self::ProtocolError,
            reason if reason.0 >= 0x80 => Self::Policy,
            _ => return None,
        })
    }
}

impl CloseHow {
    /// The same, where the reason is known.
    pub(crate) fn because(self, reason: Option<ReasonCode>) -> Self {
        match (self, reason.and_then(Farewell::of)) {
            (Self::Flush, Some(farewell)) => Self::FlushFor(farewell),
            (how, _) => how,
        }
    }
}

/// The scratch that a machine writes to.
#[derive(Debug, Default)]
pub struct Effects {
    /// Bytes that [`Op::Write`] refers to.
    pub arena: Vec<u8>,
    /// Payloads that [`Op::WriteShared`] refers to.
    pub shared: Vec<Bytes>,
    /// Operations, in order.
    pub ops: Vec<Op>,
    /// Mail to other shards, by receiver; the driver sends each batch as it is. Never lost: what does
    /// not fit into the receiver's mailbox waits at the sender.
    pub mail: Vec<Batch>,
    /// Mail that must not be *sent* before all mail of earlier turns, to any shard, was: see
    /// `RetainStore` in [`Mail`]. The driver keeps the order of this list.
    pub mail_after: Vec<(ShardId, Mail)>,
    /// For the control plane.
    pub events: Vec<Event>,
    /// Clients that want in. The driver answers with [`Input::Authenticated`](super::input::Input::Authenticated), and with
    /// [`AuthVerdict::Busy`](super::auth::AuthVerdict::Busy) at once what nobody takes.
    pub auth: Vec<Box<AuthRequest>>,
    /// Set by the driver: peers whose mailbox has no room. A machine pauses the connections whose
    /// publishes go there until [`Input::LaneDrained`](super::input::Input::LaneDrained).
    pub lanes_full: ShardSet,
    /// Notes about the work of this shard; the driver writes to them as well.
    pub observe: Recorder,
    /// Set by the driver after each turn: what it did so far.
    pub driver: DriverCounts,
}

impl Effects {
    /// A scratch for a node of `shards` shards.
    #[must_use]
    pub fn new(shards: usize) -> Self {
        Self { mail: (0..shards).map(|_| Batch::default()).collect(), ..Self::default() }
    }

    /// Queues mail for another shard.
    pub fn send(&mut self, to: ShardId, mail: Mail) {
        self.mail[to.index()].mail.push(mail);
    }

    /// Queues a publish for another shard.
    pub fn send_publish(&mut self, to: ShardId, out: &mut Outgoing<'_>) {
        self.mail[to.index()].push_publish(out);
    }

    /// Whether so much is written that the driver should perform it before the turn ends: a burst of
    /// mail, each with thousands of subscribers, must not pile up in the scratch.
    #[must_use]
    pub fn is_heavy(&self) -> bool {
        const ARENA_MAX: usize = 8 << 20;
        const OPS_MAX: usize = 1 << 17;
        self.arena.len() >= ARENA_MAX || self.ops.len() >= OPS_MAX
    }

    /// Forgets bytes whose operations were performed.
    pub fn clear_written(&mut self) {
        self.arena.clear();
        self.shared.clear();
    }

    /// Empties everything but what the driver sets, keeping capacity up to a limit.
    pub fn clear(&mut self) {
        const KEEP: usize = 1 << 20; // a burst must not pin its peak for ever
        self.arena.clear();
        if self.arena.capacity() > KEEP {
            self.arena.shrink_to(KEEP);
        }
        self.shared.clear();
        self.ops.clear();
        self.mail.iter_mut().for_each(Batch::clear);
        self.mail_after.clear();
        self.events.clear();
        if !self.auth.is_empty() {
            self.auth.clear();
        }
    }
}

const _: () = assert!(size_of::<Op>() <= 24, "a fan-out writes one Op per subscriber");
