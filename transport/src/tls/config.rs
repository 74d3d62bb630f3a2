//! What an operator sets for a TLS listener. Plain data; [`load`](super::load) reads the files.

use std::path::PathBuf;

/// TLS of one listener.
#[derive(Clone, Debug)]
pub struct TlsConfig {
    /// At least one. Who asks for no name gets the first; several may have the same names (say an
    /// RSA and an ECDSA one): the first that the client can check is taken.
    pub certificates: Vec<CertificateFiles>,
    /// What a client gets that asks for a name that no certificate is for.
    pub unknown_name: UnknownName,
    /// Certificates of clients.
    pub client: ClientAuth,
    /// Versions that are allowed; at least one.
    pub versions: Vec<Version>,
    /// IANA names in order of preference; empty is all that are safe, in the order of rustls.
    pub cipher_suites: Vec<String>,
    /// The application protocol.
    pub alpn: Alpn,
    /// Tickets that a TLS 1.3 client gets at the end of a full handshake: 0 to 2. Each is used
    /// once. 0 switches resumption off, for TLS 1.2 too.
    pub tickets: u8,
}

impl Default for TlsConfig {
    fn default() -> TlsConfig {
        TlsConfig {
            certificates: Vec::new(),
            unknown_name: UnknownName::Default,
            client: ClientAuth::default(),
            versions: vec![Version::V12, Version::V13],
            cipher_suites: Vec::new(),
            alpn: Alpn::Mqtt,
            tickets: 1,
        }
    }
}

/// A certificate and its key.
#[derive(Clone, Debug)]
pub struct CertificateFiles {
    /// PEM: the certificate, then those that lead to its CA.
    pub certificate_file: PathBuf,
    /// PEM: PKCS#8, PKCS#1 (RSA) or SEC1 (EC), not encrypted.
    pub key_file: PathBuf,
    /// Names that it is for, `host.example` or `*.example` (one label); empty takes those of the
    /// certificate.
    pub names: Vec<String>,
}

/// What a client gets that asks for an unknown name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UnknownName {
    /// The first certificate.
    Default,
    /// An alert.
    Refuse,
}

/// How certificates of clients are judged.
#[derive(Clone, Debug)]
pub struct ClientAuth {
    /// Whether they are asked for.
    pub verification: ClientVerification,
    /// PEM: the CAs (or intermediates) that may issue them; needed unless verification is none.
    pub ca_file: Option<PathBuf>,
    /// Intermediates that may lie between a client's certificate and the CA: 0 to 6 (rustls' own
    /// bound).
    pub depth: u8,
    /// PEM: revocation lists. Without any, nothing is revoked.
    pub crl_files: Vec<PathBuf>,
    /// Whether a list past its next update counts.
    pub crl_expiry: CrlExpiry,
    /// Whether a certificate is refused whose issuer has no list here.
    pub crl_unknown: CrlUnknown,
}

impl Default for ClientAuth {
    fn default() -> ClientAuth {
        ClientAuth {
            verification: ClientVerification::None,
            ca_file: None,
            depth: 3,
            crl_files: Vec::new(),
            crl_expiry: CrlExpiry::Refuse,
            crl_unknown: CrlUnknown::Refuse,
        }
    }
}

/// Whether clients are asked for certificates.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClientVerification {
    /// Not asked for.
    None,
    /// Asked for; who has none may come in, who has a bad one may not.
    Optional,
    /// Who has none may not come in.
    Required,
}

/// What a revocation list past its next update is worth.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CrlExpiry {
    /// Certificates that it would judge are refused.
    Refuse,
    /// It is used as if it were fresh.
    Use,
}

/// What becomes of certificates that no list judges.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CrlUnknown {
    /// They are refused.
    Refuse,
    /// They are taken.
    Accept,
}

/// Versions of TLS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    /// TLS 1.2, RFC 5246.
    V12,
    /// TLS 1.3, RFC 8446.
    V13,
}

/// The application protocol, RFC 7301. A client that names protocols must name this one; one that
/// names none is taken, as most MQTT clients do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Alpn {
    /// `mqtt`
    Mqtt,
    /// `http/1.1`, for WebSocket.
    Http11,
    /// Whatever the client names is ignored.
    Ignore,
}
