//! Who a connection is before it says a word of MQTT.

use core::net::SocketAddr;
use std::sync::Arc;

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

/// What is in a client's certificate. The texts are those of the certificate: a common name may hold anything,
/// so who makes a user name or a topic of it checks it first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClientCertificate {
    /// Common name of the subject.
    pub common_name: Option<Box<str>>,
    /// Distinguished name of the subject, as RFC 4514 writes it.
    pub subject: Box<str>,
    /// Subject alternative names: DNS.
    pub dns_names: Vec<Box<str>>,
    /// Subject alternative names: URI.
    pub uris: Vec<Box<str>>,
    /// Subject alternative names: e-mail address.
    pub emails: Vec<Box<str>>,
    /// Serial number in lower-case hexadecimal, without separators.
    pub serial: Box<str>,
    /// SHA-256 of the DER form, in lower-case hexadecimal.
    pub fingerprint: Box<str>,
    /// The DER form; empty if a proxy verified it and told only the names.
    pub der: Box<[u8]>,
}
