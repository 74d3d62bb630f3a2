//! What a shard asks, as plain data.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use ringmain_acl::ClientCertificate;
use ringmain_mqtt::Version;

use crate::sources::scram::Exchange;

/// Lives on: the shard that read CONNECT, then the service. All that may decide about a client.
///
/// `Debug` shows neither password nor authentication data, so a request can be logged.
#[derive(Clone)]
pub struct Request {
    /// Comes back in the [`Answer`](crate::Answer): which shard and connection asked.
    pub token: u128,
    /// Number of the listener, which selects the chain.
    pub listener: u16,
    /// Address of the client.
    pub peer: IpAddr,
    /// Version of the protocol.
    pub version: Version,
    /// Client identifier as the client sent it; may be empty.
    pub client_id: Box<str>,
    /// User Name of CONNECT.
    pub username: Option<Box<str>>,
    /// Password of CONNECT.
    pub password: Option<Box<[u8]>>,
    /// Certificate of the peer, when its listener asked for one and has verified it.
    pub certificate: Option<Arc<ClientCertificate>>,
    /// Authentication Method (0x15) of CONNECT; AUTH must name the same.
    pub method: Option<Box<str>>,
    /// Authentication Data (0x16) of this packet.
    pub data: Option<Box<[u8]>>,
    /// Which packet it comes from.
    pub phase: Phase,
}

/// Where an authentication stands.
#[derive(Clone, Debug)]
pub enum Phase {
    /// CONNECT.
    Connect,
    /// AUTH with reason 0x18. The exchange came with [`Verdict::Challenge`](crate::Verdict::Challenge).
    Continue(Box<Exchange>),
    /// AUTH with reason 0x19, on a live connection [4.12.1].
    Reauthenticate {
        /// The user name that the connection has: it stays the same, or the answer is 0x87.
        username: Option<Box<str>>,
    },
}

impl Request {
    /// A CONNECT with nothing in it, as a start for others.
    #[must_use]
    pub fn connect(token: u128, listener: u16, peer: IpAddr, version: Version) -> Self {
        Self {
            token,
            listener,
            peer,
            version,
            client_id: Box::default(),
            username: None,
            password: None,
            certificate: None,
            method: None,
            data: None,
            phase: Phase::Connect,
        }
    }

    /// Whether the client named itself or showed anything.
    #[must_use]
    pub fn has_credentials(&self) -> bool {
        self.username.is_some() || self.password.is_some() || self.method.is_some()
    }

    /// Whether it is about a live connection.
    #[must_use]
    pub fn is_reauthentication(&self) -> bool {
        match &self.phase {
            Phase::Reauthenticate { .. } => true,
            Phase::Continue(exchange) => exchange.reauthenticates.is_some(),
            Phase::Connect => false,
        }
    }
}

impl fmt::Debug for Request {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Request")
            .field("token", &self.token)
            .field("listener", &self.listener)
            .field("peer", &self.peer)
            .field("version", &self.version)
            .field("client_id", &self.client_id)
            .field("username", &self.username)
            .field("password", &self.password.as_ref().map(|_| "…"))
            .field(
                "certificate",
                &self.certificate.as_ref().map(|certificate| &certificate.subject),
            )
            .field("method", &self.method)
            .field("data", &self.data.as_ref().map(|_| "…"))
            .finish_non_exhaustive()
    }
}
