//! Who a certificate says its holder is. Row C18.

use std::fmt::Write as _;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use base64ct::{Base64, Encoding};
use rustls::pki_types::CertificateDer;
use x509_cert::Certificate;
use x509_cert::der::Decode;
use x509_cert::ext::pkix::SubjectAltName;
use x509_cert::ext::pkix::name::GeneralName;

/// What an operator can make a user name or client id of. The chain that leads to it was verified;
/// the texts are those of the certificate, so what takes them checks them (a CN may hold anything).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The first common name of the subject.
    pub common_name: Option<String>,
    /// The subject as RFC 4514 writes it, the most specific part first; empty if there is none.
    pub subject: String,
    /// The issuer, likewise.
    pub issuer: String,
    /// Subject alternative names, RFC 5280 section 4.2.1.6, in the order of the certificate.
    pub dns_names: Vec<String>,
    /// Subject alternative names that are mail addresses.
    pub emails: Vec<String>,
    /// Subject alternative names that are URIs.
    pub uris: Vec<String>,
    /// Subject alternative names that are addresses.
    pub addresses: Vec<IpAddr>,
    /// The serial number in lower-case hexadecimal, without a sign byte.
    pub serial: String,
    /// SHA-256 of the certificate, in lower-case hexadecimal.
    pub sha256: String,
    /// From when on it is valid, in seconds since 1970.
    pub not_before_s: u64,
    /// Until when it is valid, in seconds since 1970.
    pub not_after_s: u64,
}

impl Identity {
    /// Reads a certificate in DER.
    ///
    /// # Errors
    /// A sentence that says why it cannot be read.
    pub fn of(der: &[u8]) -> Result<Identity, String> {
        let unreadable = |error| format!("the certificate cannot be read: {error}");
        let certificate = Certificate::from_der(der).map_err(unreadable)?;
        let tbs = certificate.tbs_certificate();
        let subject = tbs.subject();
        let common_name = subject.common_name().map_err(unreadable)?;
        let mut identity = Identity {
            common_name: common_name.map(|name| name.value().into_owned()),
            subject: subject.to_string(),
            issuer: tbs.issuer().to_string(),
            dns_names: Vec::new(),
            emails: Vec::new(),
            uris: Vec::new(),
            addresses: Vec::new(),
            serial: hex(strip_sign(tbs.serial_number().as_bytes())),
            sha256: hex(ring::digest::digest(&ring::digest::SHA256, der).as_ref()),
            not_before_s: tbs.validity().not_before.to_unix_duration().as_secs(),
            not_after_s: tbs.validity().not_after.to_unix_duration().as_secs(),
        };
        let names = tbs.get_extension::<SubjectAltName>().map_err(unreadable)?;
        for name in names.iter().flat_map(|(_, names)| &names.0) {
            identity.add(name)?;
        }
        Ok(identity)
    }

    fn add(&mut self, name: &GeneralName) -> Result<(), String> {
        match name {
            GeneralName::DnsName(name) => self.dns_names.push(name.as_str().to_owned()),
            GeneralName::Rfc822Name(name) => self.emails.push(name.as_str().to_owned()),
            GeneralName::UniformResourceIdentifier(uri) => self.uris.push(uri.as_str().to_owned()),
            GeneralName::IpAddress(bytes) => self.addresses.push(address(bytes.as_bytes())?),
            // Nobody identifies an MQTT client by these.
            GeneralName::OtherName(_)
            | GeneralName::DirectoryName(_)
            | GeneralName::EdiPartyName(_)
            | GeneralName::RegisteredId(_) => {}
        }
        Ok(())
    }
}

/// A certificate as PEM, RFC 7468: lines of 64 characters, ending with a line feed.
pub fn pem(certificate: &CertificateDer<'_>) -> String {
    let text = Base64::encode_string(certificate);
    let mut pem = String::from("-----BEGIN CERTIFICATE-----\n");
    let mut rest = text.as_str();
    while !rest.is_empty() {
        let (line, after) = rest.split_at(rest.len().min(64));
        pem.push_str(line);
        pem.push('\n');
        rest = after;
    }
    pem.push_str("-----END CERTIFICATE-----\n");
    pem
}

fn address(bytes: &[u8]) -> Result<IpAddr, String> {
    match bytes.len() {
        4 => Ok(Ipv4Addr::from(<[u8; 4]>::try_from(bytes).expect("4 bytes")).into()),
        16 => Ok(Ipv6Addr::from(<[u8; 16]>::try_from(bytes).expect("16 bytes")).into()),
        n => Err(format!("the certificate has an address of {n} bytes")),
    }
}

/// DER puts a zero before a number whose first bit is set.
fn strip_sign(bytes: &[u8]) -> &[u8] {
    match bytes {
        [0, rest @ ..] if !rest.is_empty() => rest,
        all => all,
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}
