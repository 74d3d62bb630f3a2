//! Who a client is by its certificate.

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
