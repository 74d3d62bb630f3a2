//! Why a TLS connection ended, for the operator; the peer got an alert.

use rustls::{AlertDescription, CertificateError, Error, PeerIncompatible, PeerMisbehaved};

use crate::hints;

/// A connection that is over. The alert for the peer, if there is one, is in the output already:
/// send it, then close.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// What counts it.
    pub kind: FailureKind,
    /// One sentence for the log.
    pub sentence: String,
}

/// Kinds of failures, to count them by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum FailureKind {
    /// What came is not TLS: HTTP, MQTT, or garbage.
    NotTls,
    /// The client's certificate was refused.
    ClientCertificate,
    /// The client sent no certificate, and must.
    NoClientCertificate,
    /// No version, cipher suite, group or signature in common.
    NothingInCommon,
    /// No application protocol in common.
    Alpn,
    /// No certificate for the name that the client asked for.
    ServerName,
    /// The client refuses us: it sent an alert.
    PeerAlert,
    /// The client breaks the protocol, or sends more than its bounds.
    Protocol,
    /// The fault is here.
    Internal,
}

impl Failure {
    pub(super) fn new(kind: FailureKind, sentence: impl Into<String>) -> Failure {
        Failure { kind, sentence: sentence.into() }
    }

    /// `first` is what the connection began with, as far as it is still there.
    pub(super) fn of(
        error: &Error,
        handshaking: bool,
        first: &[u8],
        no_name: Option<&str>,
    ) -> Self {
        use FailureKind as K;
        let kind = match error {
            Error::InvalidMessage(_)
                if handshaking && hints::looks_like_tls(first) != Some(true) =>
            {
                return Failure::new(K::NotTls, hints::on_tls_port(first));
            }
            Error::InvalidCertificate(error) => {
                return Failure::new(K::ClientCertificate, certificate(error));
            }
            Error::NoCertificatesPresented => {
                let sentence = "the client sent no certificate, which this listener requires: \
                                give it one, or set client verification to \"optional\"";
                return Failure::new(K::NoClientCertificate, sentence);
            }
            Error::NoApplicationProtocol => K::Alpn,
            Error::AlertReceived(alert) => return Failure::new(K::PeerAlert, refused(*alert)),
            Error::PeerIncompatible(why) => {
                return Failure::new(K::NothingInCommon, incompatible(why));
            }
            Error::General(_) if no_name.is_some() => {
                let name = no_name.unwrap_or_default();
                let sentence = format!(
                    "no certificate is for the server name {name:?}: add one, or let unknown names \
                     have the default certificate"
                );
                return Failure::new(K::ServerName, sentence);
            }
            Error::PeerMisbehaved(_)
            | Error::InvalidMessage(_)
            | Error::InappropriateMessage { .. }
            | Error::InappropriateHandshakeMessage { .. }
            | Error::DecryptError
            | Error::PeerSentOversizedRecord => K::Protocol,
            _ => K::Internal,
        };
        let sentence = match kind {
            K::Alpn => {
                "the client offers other application protocols (ALPN) than this listener has"
                    .to_owned()
            }
            K::Protocol => format!("the client breaks the TLS protocol: {}", protocol(error)),
            _ => format!("TLS failed: {error}"),
        };
        Failure { kind, sentence }
    }
}

fn protocol(error: &Error) -> String {
    match error {
        Error::PeerMisbehaved(PeerMisbehaved::TooManyRenegotiationRequests) => {
            "it asks for renegotiation, which is refused, again and again".to_owned()
        }
        error => error.to_string(),
    }
}

fn certificate(error: &CertificateError) -> String {
    let why = match error {
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
            "it has expired (or the clock of this host is wrong)"
        }
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
            "it is not valid yet (or the clock of this host is wrong)"
        }
        CertificateError::Revoked => "it is revoked",
        CertificateError::UnknownIssuer => "no certificate of the CA file issued it",
        CertificateError::UnknownRevocationStatus => {
            "no CRL speaks of its issuer: add the CRL, or allow an unknown revocation status"
        }
        CertificateError::ExpiredRevocationList
        | CertificateError::ExpiredRevocationListContext { .. } => {
            "the CRL of its issuer is past its next update: fetch a new one"
        }
        CertificateError::InvalidPurpose | CertificateError::InvalidPurposeContext { .. } => {
            "it is not for clients (its extended key usage lacks clientAuth)"
        }
        CertificateError::BadSignature => "a signature does not fit",
        CertificateError::Other(why) => {
            return format!("the client's certificate is refused: {}", why.0);
        }
        other => return format!("the client's certificate is refused: {other}"),
    };
    format!("the client's certificate is refused: {why}")
}

fn refused(alert: AlertDescription) -> String {
    let why = match alert {
        AlertDescription::UnknownCA => {
            "it does not trust the issuer of our certificate: give it the CA, or the chain is incomplete"
        }
        AlertDescription::BadCertificate | AlertDescription::CertificateUnknown => {
            "it does not accept our certificate"
        }
        AlertDescription::CertificateExpired => "our certificate has expired",
        AlertDescription::UnrecognisedName => "our certificate is for another name",
        AlertDescription::ProtocolVersion => "it speaks no TLS version that we allow",
        other => return format!("the client ended TLS with the alert {other:?}"),
    };
    format!("the client ended TLS with the alert {alert:?}: {why}")
}

fn incompatible(why: &PeerIncompatible) -> String {
    let what = match why {
        PeerIncompatible::NoCipherSuitesInCommon => "cipher suite",
        PeerIncompatible::NoKxGroupsInCommon | PeerIncompatible::NamedGroupsExtensionRequired => {
            "key exchange group"
        }
        PeerIncompatible::NoSignatureSchemesInCommon
        | PeerIncompatible::NoCertificateRequestSignatureSchemesInCommon => "signature scheme",
        PeerIncompatible::Tls12NotOffered
        | PeerIncompatible::Tls12NotOfferedOrEnabled
        | PeerIncompatible::Tls13RequiredForQuic
        | PeerIncompatible::SupportedVersionsExtensionRequired => {
            return "client and listener have no TLS version in common (1.2 and 1.3 exist here, \
                    nothing older)"
                .to_owned();
        }
        other => return format!("client and listener do not fit: {other:?}"),
    };
    format!("client and listener have no {what} in common")
}
