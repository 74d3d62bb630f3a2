//! The PROXY protocol, versions 1 and 2: what a load balancer says about its client in front of
//! the first byte. Row T12. Source: haproxy's doc/proxy-protocol.txt, 2020/03/05.
//!
//! Strict: a header that the specification does not allow is refused, never skipped, since what
//! follows it would be read as the client's. Whether a header must come is a matter of the sender's
//! address alone ([`Trusted`]): a guess by content would let anybody choose an address.
//!
//! By hand, because the libraries are lenient where it matters: `ppp` 2.3 and `proxy-header` 0.1 both
//! take a port `+1`, a wrong or short checksum, an authority that is no text or comes twice, a cut SSL
//! part and 64 KiB of body; `proxy-header` also takes `UNKNOWNX` and TLVs that end behind the header.

mod cidr;
mod crc32c;
#[cfg(test)]
mod tests;
mod v1;
mod v2;

use std::fmt;
use std::net::{IpAddr, SocketAddr};

pub use cidr::{Cidr, CidrError};

/// Section 2.1: the longest line, CR LF included.
pub const V1_BYTES_MAX: usize = 107;
/// Signature, version and command, family, length. Section 2.2.
pub const V2_HEAD_BYTES: usize = 16;
/// The rest of a version 2 header: 216 bytes of unix addresses, and TLVs. The specification gives
/// 64 KiB; a header of haproxy with all it has (SSL, names, an id) stays below 1 KiB, and a
/// certificate may be in it.
pub const V2_BODY_BYTES_MAX: usize = 4096;
/// What [`parse`] may ask its caller to keep.
pub const HEADER_BYTES_MAX: usize = V2_HEAD_BYTES + V2_BODY_BYTES_MAX;

const V2_SIGNATURE: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";
const V1_BEGIN: &[u8; 6] = b"PROXY ";

/// What a header says.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Header {
    /// Where the client is; none for a health check of the balancer itself (LOCAL), for UNKNOWN and
    /// for unix sockets: then the connection is from who it seems to be from.
    pub source: Option<SocketAddr>,
    /// Where the client connected to.
    pub destination: Option<SocketAddr>,
    /// The balancer speaks for itself: a health check. Section 2.2.
    pub local: bool,
    /// The server name that the client asked the balancer for (PP2_TYPE_AUTHORITY).
    pub authority: Option<String>,
    /// The application protocol of the client's TLS (PP2_TYPE_ALPN).
    pub alpn: Option<Vec<u8>>,
    /// The client's TLS with the balancer (PP2_TYPE_SSL).
    pub ssl: Option<Ssl>,
}

/// PP2_TYPE_SSL, section 2.2.6.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Ssl {
    /// The client sent a certificate, in this connection or in the session it resumed, and it was
    /// verified. Only then [`Ssl::common_name`] may name anybody.
    pub verified: bool,
    /// As OpenSSL writes it, such as `TLSv1.3`.
    pub version: Option<String>,
    /// The common name of the client's certificate.
    pub common_name: Option<String>,
    /// The cipher, as OpenSSL writes it.
    pub cipher: Option<String>,
}

impl Header {
    /// The common name of the client's certificate, if the balancer verified it.
    pub fn verified_common_name(&self) -> Option<&str> {
        self.ssl.as_ref().filter(|ssl| ssl.verified)?.common_name.as_deref()
    }
}

/// The bytes of a header, so far.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Parsed {
    /// More are needed: hand all of them in again with what comes.
    Partial,
    /// The header is whole.
    Whole {
        /// Bytes it took; what follows is the client's.
        len: usize,
        /// What it says.
        header: Box<Header>,
    },
}

/// Why a header is refused. To be closed without a word: the peer is no client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    /// One sentence for the log.
    pub sentence: String,
}

impl Refused {
    fn new(sentence: impl Into<String>) -> Refused {
        Refused { sentence: sentence.into() }
    }
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.sentence)
    }
}

impl std::error::Error for Refused {}

/// Reads the header at the front of `bytes`, which may be in any number of pieces.
///
/// # Errors
/// As soon as the bytes cannot become a header.
pub fn parse(bytes: &[u8]) -> Result<Parsed, Refused> {
    if let Some(rest) = after(bytes, V2_SIGNATURE) {
        return rest.map_or(Ok(Parsed::Partial), v2::parse);
    }
    if let Some(rest) = after(bytes, V1_BEGIN) {
        return rest.map_or(Ok(Parsed::Partial), v1::parse);
    }
    Err(Refused::new(
        "a balancer that is trusted sent no PROXY header: switch it on there (send-proxy, \
         send-proxy-v2), or take its address from the trusted ones",
    ))
}

/// Whether bytes begin a header: for an untrusted sender that tries one, and for hints.
pub fn looks_like_proxy(bytes: &[u8]) -> bool {
    bytes.starts_with(V2_SIGNATURE) || bytes.starts_with(V1_BEGIN)
}

/// Whether bytes are too few to tell whether a header begins.
pub(crate) fn may_become_proxy(bytes: &[u8]) -> bool {
    V2_SIGNATURE.starts_with(bytes) || V1_BEGIN.starts_with(bytes)
}

/// `None`: it is not this one. `Some(None)`: it may become it. Else all bytes, of which the
/// beginning is right.
fn after<'a>(bytes: &'a [u8], begin: &[u8]) -> Option<Option<&'a [u8]>> {
    if bytes.starts_with(begin) {
        return Some(Some(bytes));
    }
    begin.starts_with(bytes).then_some(None)
}

/// Who may speak for others.
#[derive(Clone, Debug, Default)]
pub struct Trusted {
    networks: Vec<Cidr>,
}

/// Networks in a list of trusted ones: it is gone through for every connection.
pub const TRUSTED_MAX: usize = 256;

impl Trusted {
    /// Senders from these networks must send a header, all others must not.
    ///
    /// # Errors
    /// With more than [`TRUSTED_MAX`].
    pub fn new(networks: Vec<Cidr>) -> Result<Trusted, Refused> {
        if networks.len() > TRUSTED_MAX {
            let sentence =
                format!("{} trusted networks are more than {TRUSTED_MAX}", networks.len());
            return Err(Refused::new(sentence));
        }
        Ok(Trusted { networks })
    }

    /// Whether a connection from this address has to begin with a header. An IPv4 address in IPv6
    /// (`::ffff:10.0.0.1`, of a dual-stack socket) is that IPv4 address.
    pub fn must_send(&self, peer: IpAddr) -> bool {
        self.networks.iter().any(|network| network.contains(peer))
    }
}

/// For a sender that is not trusted: refuses one that sends a header all the same.
///
/// # Errors
/// When `first`, the first bytes, are a header.
pub fn refuse_untrusted(first: &[u8], peer: IpAddr) -> Result<(), Refused> {
    if !looks_like_proxy(first) {
        return Ok(());
    }
    Err(Refused::new(format!(
        "{peer} sent a PROXY header and is not trusted: add it to the trusted addresses if it is \
         your balancer"
    )))
}
