//! Plain message types between the shards and the control plane.
//!
//! They travel on bounded flume channels; a shard only ever `try_send`s.

use std::sync::Arc;

use ringmain_acl::BanTable;

use crate::engine::config::EngineConfig;
use crate::engine::counters::Counters;
use crate::engine::ids::ShardId;
use crate::observe::{Histograms, Report, TurnSpan};

/// How close the process is to its memory limit. Set by the sampler of the control plane.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Pressure {
    /// Below the high watermark.
    #[default]
    Normal,
    /// Above the high watermark: new connections are refused, QoS 0 is dropped, QoS > 0 gets 0x97.
    High,
    /// Above the critical watermark: publishers are paused too.
    Critical,
}

/// What the control plane asks of one shard.
#[derive(Clone, Debug)]
pub enum Control {
    /// Live settings changed. Applies from the next turn on.
    Reload(Arc<EngineConfig>),
    /// Other clients are banned. (L03)
    Bans(Arc<BanTable>),
    /// The memory sampler moved over or under a watermark.
    Pressure(Pressure),
    /// The process has few ordinary descriptors left (or enough again): new connections are refused.
    /// (L05)
    DescriptorsScarce(bool),
    /// Close every connection with DISCONNECT 0x8B (version 5), then publish wills, then answer
    /// [`Event::Drained`]. [S-20]
    Drain,
    /// End the session of one client id, closing its connection with the reason code given.
    /// Ignored by all shards but the home shard. (features.md Q14)
    Kick {
        /// The client id, as in CONNECT.
        client_id: Box<str>,
        /// MQTT 5 reason code for the DISCONNECT, e.g. 0x98.
        reason: u8,
        /// Whether the session goes too, or only its connection.
        discard_session: bool,
        /// Comes back in [`Event::Kicked`].
        token: u64,
    },
    /// Asks for [`Event::Session`].
    DumpSession {
        /// The client id, as in CONNECT.
        client_id: Box<str>,
        /// Comes back in the answer.
        token: u64,
    },
    /// Asks for [`Event::Stats`].
    Stats {
        /// Comes back in the answer.
        token: u64,
    },
    /// Asks for [`Event::Report`].
    Report {
        /// Empty ones, for those that go away with the answer.
        spare: Box<Histograms>,
    },
    /// Asks for [`Event::Turns`] after some time.
    RecordTurns {
        /// Comes back in the answer.
        token: u64,
        /// For how long, ms.
        ms: u32,
    },
}

/// What a shard tells the control plane.
#[derive(Clone, Debug)]
pub enum Event {
    /// All connections are closed and all wills of this shard are published.
    Drained {
        /// The shard that is done.
        shard: ShardId,
    },
    /// Answer to [`Control::Kick`] of the home shard.
    Kicked {
        /// From the question.
        token: u64,
        /// Whether there was such a session.
        found: bool,
    },
    /// Answer to [`Control::DumpSession`] of the home shard; `None` when there is no such session.
    Session {
        /// From the question.
        token: u64,
        /// The session, if there is one.
        session: Option<Box<SessionInfo>>,
    },
    /// Answer to [`Control::Stats`].
    Stats {
        /// The shard that answers.
        shard: ShardId,
        /// From the question.
        token: u64,
        /// A copy of its counters.
        counters: Box<Counters>,
    },
    /// Answer to [`Control::Report`].
    Report {
        /// All that the shard knows of itself.
        report: Box<Report>,
    },
    /// Answer to [`Control::RecordTurns`].
    Turns {
        /// From the question.
        token: u64,
        /// Its turns, in order.
        spans: Vec<TurnSpan>,
    },
    /// Something an operator should read, rate-limited by the shard.
    Log {
        /// The shard that says it.
        shard: ShardId,
        /// Severity.
        level: LogLevel,
        /// What happened, with what to do about it.
        text: Box<str>,
    },
}

/// Severity of an [`Event::Log`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogLevel {
    /// For the curious.
    Debug,
    /// Normal operation.
    Info,
    /// Should be looked at.
    Warn,
}

/// A session as its home shard sees it. (features.md Q14)
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SessionInfo {
    /// Client id.
    pub client_id: String,
    /// Whether a network connection is attached.
    pub connected: bool,
    /// MQTT version of the last connection: 3, 4 or 5.
    pub version: u8,
    /// Session expiry interval in seconds; `u32::MAX` = never.
    pub expiry_s: u32,
    /// Filters with granted QoS.
    pub subscriptions: Vec<(String, u8)>,
    /// Unacknowledged messages towards the client.
    pub inflight: u32,
    /// Messages waiting for the client.
    pub queued: u32,
    /// QoS 2 packet ids received and not yet released.
    pub awaiting_rel: u32,
}
