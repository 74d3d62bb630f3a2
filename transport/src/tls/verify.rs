//! Certificates of clients: rustls' verification, and a bound for the length of the chain. Row T03.

use std::fmt;
use std::sync::Arc;

use rustls::client::danger::HandshakeSignatureValid;
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error, OtherError, RootCertStore,
    SignatureScheme,
};
use webpki::{EndEntityCert, KeyUsage};

use super::Identity;

/// rustls' verifier, and then the depth.
#[derive(Debug)]
pub(super) struct Verifier {
    pub(super) inner: Arc<dyn ClientCertVerifier>,
    pub(super) roots: Arc<RootCertStore>,
    pub(super) depth: usize,
}

/// A chain that is valid, but longer than the operator allows.
#[derive(Debug)]
struct TooDeep {
    depth: usize,
}

/// A certificate that verifies, but whose names cannot be read.
#[derive(Debug)]
struct Unreadable(String);

impl fmt::Display for TooDeep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let depth = self.depth;
        write!(f, "more than {depth} intermediate certificates lead to its CA: raise the depth")
    }
}

impl fmt::Display for Unreadable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for TooDeep {}
impl std::error::Error for Unreadable {}

impl ClientCertVerifier for Verifier {
    fn offer_client_auth(&self) -> bool {
        self.inner.offer_client_auth()
    }

    fn client_auth_mandatory(&self) -> bool {
        self.inner.client_auth_mandatory()
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.inner.root_hint_subjects()
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        let verified = self.inner.verify_client_cert(end_entity, intermediates, now)?;
        let other = |error: OtherError| Error::from(CertificateError::Other(error));
        // A client may send more than the chain needs: only then it is worth a second look.
        if intermediates.len() > self.depth && !self.is_short(end_entity, intermediates, now) {
            return Err(other(OtherError(Arc::new(TooDeep { depth: self.depth }))));
        }
        // Here it still gets an alert; later nothing would know who it is.
        Identity::of(end_entity).map_err(|why| other(OtherError(Arc::new(Unreadable(why)))))?;
        Ok(verified)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.inner.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.inner.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.inner.supported_verify_schemes()
    }
}

impl Verifier {
    /// Whether some path is short enough. Revocation was looked at already.
    fn is_short(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> bool {
        let Ok(certificate) = EndEntityCert::try_from(end_entity) else { return false };
        let short = |path: &webpki::VerifiedPath<'_>| {
            if path.intermediate_certificates().count() <= self.depth {
                Ok(())
            } else {
                Err(webpki::Error::UnknownIssuer)
            }
        };
        let algorithms = super::context::provider().signature_verification_algorithms.all;
        certificate
            .verify_for_usage(
                algorithms,
                &self.roots.roots,
                intermediates,
                now,
                KeyUsage::client_auth(),
                None,
                Some(&short),
            )
            .is_ok()
    }
}
