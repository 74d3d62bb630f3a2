//! What a shard asks about a client that wants in, and what it is told: plain data.
//!
//! The engine does not know who answers. It asks with [`Effects::auth`](super::effects::Effects::auth) and hears with
//! [`Input::Authenticated`](super::input::Input::Authenticated).

use core::any::Any;
use core::fmt;
use core::net::IpAddr;
use std::sync::Arc;

use ringmain_acl::{ClientCertificate, ClientRules};
use ringmain_mqtt::{ReasonCode, Version};

use super::ids::{ConnId, ShardId};

/// Requests of one shard that are not answered yet. Beyond it clients are told that the server is busy. Whoever
/// answers keeps room for as many answers, so that none is lost.
pub const AUTH_OPEN_MAX: usize = 65_536;

/// Takes requests from shards, on their threads.
pub trait Authenticator: fmt::Debug + Send + Sync {
    /// Takes a request, which is answered once. Never waits. False when there is no room: then there is no answer, and
    /// the client is told that the server is busy. (AU18)
    fn ask(&self, request: Box<AuthRequest>) -> bool;
}

/// All that may decide about a client. `Debug` shows neither password nor authentication data.
#[derive(Clone)]
pub struct AuthRequest {
    /// The shard that asks.
    pub shard: ShardId,
    /// The connection; comes back in the answer.
    pub conn: ConnId,
    /// Index of its listener.
    pub listener: u16,
    /// Address of the client.
    pub peer: IpAddr,
    /// Version of the protocol.
    pub version: Version,
    /// Client identifier that the client is about to have; empty if it leaves that to the broker.
    pub client_id: Box<str>,
    /// User Name of CONNECT; of a live connection, the one it has.
    pub username: Option<Box<str>>,
    /// Password of CONNECT.
    pub password: Option<Box<[u8]>>,
    /// Its certificate, which was verified.
    pub certificate: Option<Arc<ClientCertificate>>,
    /// Authentication Method.
    pub method: Option<Box<str>>,
    /// Authentication Data of this packet.
    pub data: Option<Box<[u8]>>,
    /// Which packet it comes from.
    pub phase: AuthPhase,
}

impl fmt::Debug for AuthRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AuthRequest")
            .field("conn", &self.conn)
            .field("peer", &self.peer)
            .field("client_id", &self.client_id)
            .field("username", &self.username)
            .field("method", &self.method)
            .field("phase", &self.phase)
            .finish_non_exhaustive()
    }
}

/// Where an authentication stands.
#[derive(Clone, Debug)]
pub enum AuthPhase {
    /// CONNECT.
    Connect,
    /// AUTH with reason 0x18: the client's answer to [`AuthVerdict::Challenge`].
    Continue(Exchange),
    /// AUTH with reason 0x19, on a live connection.
    Reauthenticate,
}

/// What becomes of a client.
#[derive(Clone, Debug)]
pub enum AuthVerdict {
    /// It is welcome, as this.
    Allow(Box<Identity>),
    /// It is not; with this reason in CONNACK, or in DISCONNECT after a re-authentication.
    Deny(ReasonCode),
    /// AUTH with reason 0x18 and this data goes to the client; its answer comes back with the exchange.
    Challenge {
        /// Authentication Data.
        data: Box<[u8]>,
        /// To go on with.
        exchange: Exchange,
    },
    /// Too much to do: nothing was decided.
    Busy,
}

/// What the authenticator has to remember between two packets. The shard keeps it and does not look into it.
#[derive(Clone)]
pub struct Exchange(pub Arc<dyn Any + Send + Sync>);

impl fmt::Debug for Exchange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Exchange")
    }
}

/// Who a client is, as its authentication left it.
#[derive(Clone, Debug, Default)]
pub struct Identity {
    /// User name; `None`: anonymous.
    pub username: Option<Box<str>>,
    /// Client identifier to use instead of the one that the client sent. Counts at CONNECT only.
    pub client_id: Option<Box<str>>,
    /// Whether the rules do not bind it.
    pub superuser: bool,
    /// Attributes, names and values.
    pub attributes: Vec<(Box<str>, Box<str>)>,
    /// Unix seconds at which its connection ends with 0x87.
    pub expires_at_s: Option<u64>,
    /// Rules for this client alone.
    pub rules: Option<ClientRules>,
    /// Authentication Data for CONNACK, or for AUTH with reason 0x00.
    pub data: Option<Box<[u8]>>,
}
