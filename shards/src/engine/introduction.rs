//! Who a connection is before it says a word of MQTT.

use core::net::SocketAddr;
use std::sync::Arc;

use ringmain_acl::ClientCertificate;

/// What TLS, a PROXY header or a WebSocket handshake said about the other end. Lives on: the shard that has the
/// connection, and moves with it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Introduction {
    /// Where the client is, if a trusted proxy knows better than the socket. (T12)
    pub addr: Option<SocketAddr>,
    /// What protects the connection; `None`: nothing does.
    pub tls: Option<TlsFacts>,
    /// The client's certificate. It was verified.
    pub certificate: Option<Arc<ClientCertificate>>,
}

/// A finished TLS handshake, with us or with a trusted proxy.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TlsFacts {
    /// As OpenSSL writes it: `TLSv1.3`.
    pub version: Box<str>,
    /// By its IANA name; empty if the proxy did not say.
    pub cipher_suite: Box<str>,
    /// The name that the client asked for (SNI), in lower case.
    pub server_name: Option<Box<str>>,
}
