//! What happens to a shard.

use super::auth::AuthVerdict;
use super::ids::{ConnId, Peer, ShardId};
use super::introduction::Introduction;
use super::mail::{Mail, Parcel};
use crate::boundary::Control;

/// One thing that happened. See [`Machine`](super::Machine) for the turn that it is part of.
#[derive(Debug)]
pub enum Input<'a> {
    /// A connection was accepted here. The driver reads from it (one receive at a time) unless
    /// [`Op::PauseRead`](super::effects::Op::PauseRead) is issued in the same turn.
    Open {
        /// The new connection.
        conn: ConnId,
        /// Its remote end.
        peer: Peer,
        /// It is a trusted proxy, which says first whose connection it is: limits of an address do not bind it before.
        proxied: bool,
    },
    /// Who the other end is, by its transport: at most once in the life of a connection, after `Open` and before
    /// its first `Data`.
    Introduced {
        /// The connection.
        conn: ConnId,
        /// What was said.
        introduction: Box<Introduction>,
    },
    /// A connection that another shard accepted has moved here, with all that was read from it.
    /// The driver reads on unless told otherwise.
    Arrived {
        /// The id of the connection on this shard.
        conn: ConnId,
        /// What the accepting shard learned.
        parcel: Box<Parcel>,
    },
    /// Bytes from the peer, in order. Borrowed from the driver's buffer: valid for this call only.
    Data {
        /// The connection.
        conn: ConnId,
        /// At least one byte.
        bytes: &'a [u8],
    },
    /// The answer to a request in [`Effects::auth`](super::effects::Effects::auth). Each is answered once, whatever
    /// became of its connection.
    Authenticated {
        /// The connection that the request was about.
        conn: ConnId,
        /// What becomes of it.
        verdict: AuthVerdict,
    },
    /// `bytes` that the machine had written have been handed to the kernel.
    Sent {
        /// The connection.
        conn: ConnId,
        /// How many bytes.
        bytes: u32,
    },
    /// The connection is gone and its id will be used again: the last input for that id. Also comes
    /// as the answer to [`Op::Close`](super::effects::Op::Close).
    Closed {
        /// The connection.
        conn: ConnId,
        /// Who ended it.
        cause: CloseCause,
    },
    /// A connection that was to move ([`Op::Handover`](super::effects::Op::Handover)) is closed instead: no ring of its
    /// new home has room.
    NotMoved {
        /// Its remote end.
        peer: Peer,
    },
    /// One mail of another shard. Mails of one sender arrive in the order sent; and a mail whose
    /// sending happened after the sending of another arrives after it (the mailbox is one queue).
    Mail {
        /// The sender.
        from: ShardId,
        /// The mail.
        mail: Mail,
        /// The bytes of its batch ([`Batch::packed`](super::packed::Batch::packed)).
        packed: &'a [u8],
    },
    /// The lane to a peer whose mailbox was full has room again.
    LaneDrained {
        /// The peer shard.
        peer: ShardId,
    },
    /// A question or an order of the control plane.
    Control(Control),
    /// [`Machine::deadline_ms`](super::Machine::deadline_ms) has passed.
    Tick,
    /// No more inputs in this turn: finish what was batched.
    TurnEnd,
}

/// Who ended a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CloseCause {
    /// The peer sent FIN.
    PeerFin,
    /// The peer sent RST, or the transport failed; the value is the errno (positive).
    Error(i32),
    /// The machine asked for it.
    Local,
}
