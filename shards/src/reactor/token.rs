//! What a completion is about: packed into `user_data`.
//!
//! ```text
//!  63    56 55            32 31             0
//!  | kind  | generation (24)|     index      |
//! ```

use crate::engine::ids::ConnId;

/// The operation that a completion ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Kind {
    /// Nothing hangs on it (cancels, wakes of others).
    Ignore,
    /// Multishot accept; index = listener.
    AcceptMany,
    /// Single accept; index = listener.
    AcceptOne,
    /// A number for a new connection's descriptor, to ask for its address.
    InstallForPeer,
    /// Registration of an accepted ordinary descriptor.
    Register,
    /// Receive.
    Recv,
    /// Send.
    Send,
    /// A number for a descriptor, to shut its sending half down.
    InstallForShutdown,
    /// Shutdown of the sending half, by io_uring.
    Shutdown,
    /// Disconnect: RST.
    Disconnect,
    /// Cancel of a receive or send of a connection that ends.
    Cancel,
    /// Send of a descriptor to another ring.
    SendFd,
    /// Close of a direct descriptor.
    Close,
    /// Poll of the eventfd that wakes this shard.
    PollWake,
    /// Poll of a child ring's eventfd; index = ring.
    PollChild,
    /// A wake from another shard.
    Woken,
    /// A wake sent to another shard that failed; index = shard.
    Wake,
}

const KINDS: [Kind; 17] = [
    Kind::Ignore,
    Kind::AcceptMany,
    Kind::AcceptOne,
    Kind::InstallForPeer,
    Kind::Register,
    Kind::Recv,
    Kind::Send,
    Kind::InstallForShutdown,
    Kind::Shutdown,
    Kind::Disconnect,
    Kind::Cancel,
    Kind::SendFd,
    Kind::Close,
    Kind::PollWake,
    Kind::PollChild,
    Kind::Woken,
    Kind::Wake,
];

/// `user_data` of an operation on a connection.
pub(super) fn of_conn(kind: Kind, id: ConnId) -> u64 {
    (kind as u64) << 56 | u64::from(id.generation & 0xff_ffff) << 32 | u64::from(id.index)
}

/// `user_data` of an operation on something that has an index.
pub(super) fn of_index(kind: Kind, index: u32) -> u64 {
    (kind as u64) << 56 | u64::from(index)
}

/// Kind, 24 bits of generation, index.
pub(super) fn parse(user_data: u64) -> (Kind, u32, u32) {
    let kind = KINDS.get((user_data >> 56) as usize).copied().unwrap_or(Kind::Ignore);
    (kind, (user_data >> 32) as u32 & 0xff_ffff, user_data as u32)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_says_what_it_was_made_from() {
        for (ix, kind) in KINDS.into_iter().enumerate() {
            assert_eq!(kind as usize, ix);
            let id = ConnId { index: u32::MAX - 1, generation: 0x1234_5678 };
            assert_eq!(parse(of_conn(kind, id)), (kind, 0x34_5678, u32::MAX - 1));
            assert_eq!(parse(of_index(kind, 7)), (kind, 0, 7));
        }
    }
}
