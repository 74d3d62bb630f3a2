//! The cryptography of tokens: *ring*, as everywhere (docs/adr/0023-tls-provider.md). RFC 7518 3.1

use jsonwebtoken::crypto::{CryptoProvider, JwtSigner, JwtVerifier, KeyUtils};
use jsonwebtoken::errors::{ErrorKind, Result};
use jsonwebtoken::signature::{Error, Verifier};
use jsonwebtoken::{Algorithm, AlgorithmFamily, DecodingKey, DecodingKeyKind, EncodingKey};
use ring::signature::{self as public, RsaParameters, RsaPublicKeyComponents, UnparsedPublicKey};
use ring::{error::Unspecified, hmac};

static PROVIDER: CryptoProvider = CryptoProvider {
    signer_factory: signer,
    verifier_factory: verifier,
    // For making keys and their thumbprints, which nobody does here.
    key_utils: KeyUtils::new_unimplemented(),
};

/// To be called before the first token is looked at; once or more often.
pub(super) fn install() {
    // Refused when it is there already.
    let _ = PROVIDER.install_default();
}

/// Nobody signs here.
fn signer(_: &Algorithm, _: &EncodingKey) -> Result<Box<dyn JwtSigner>> {
    Err(ErrorKind::InvalidAlgorithm.into())
}

fn verifier(algorithm: &Algorithm, key: &DecodingKey) -> Result<Box<dyn JwtVerifier>> {
    match family(*algorithm) {
        Some(family) if family == key.family() => {}
        Some(_) => return Err(ErrorKind::InvalidKeyFormat.into()),
        None => return Err(ErrorKind::InvalidAlgorithm.into()),
    }
    Ok(Box::new(With { algorithm: *algorithm, key: key.clone() }))
}

/// Of the algorithms that are known here.
fn family(algorithm: Algorithm) -> Option<AlgorithmFamily> {
    match algorithm {
        Algorithm::HS256 | Algorithm::HS384 | Algorithm::HS512 => Some(AlgorithmFamily::Hmac),
        Algorithm::RS256 | Algorithm::RS384 | Algorithm::RS512 => Some(AlgorithmFamily::Rsa),
        Algorithm::PS256 | Algorithm::PS384 | Algorithm::PS512 => Some(AlgorithmFamily::Rsa),
        Algorithm::ES256 | Algorithm::ES384 => Some(AlgorithmFamily::Ec),
        Algorithm::EdDSA => Some(AlgorithmFamily::Ed),
        _ => None,
    }
}

/// A key, of the family of the algorithm.
struct With {
    algorithm: Algorithm,
    key: DecodingKey,
}

impl JwtVerifier for With {
    fn algorithm(&self) -> Algorithm {
        self.algorithm
    }
}

impl Verifier<Vec<u8>> for With {
    fn verify(&self, message: &[u8], signature: &Vec<u8>) -> std::result::Result<(), Error> {
        let secret = |by| self.is_mac(by, message, signature);
        let rsa = |by| self.is_rsa(by, message, signature);
        let point = |by| self.is_point(by, message, signature);
        match self.algorithm {
            Algorithm::HS256 => secret(hmac::HMAC_SHA256),
            Algorithm::HS384 => secret(hmac::HMAC_SHA384),
            Algorithm::HS512 => secret(hmac::HMAC_SHA512),
            Algorithm::RS256 => rsa(&public::RSA_PKCS1_2048_8192_SHA256),
            Algorithm::RS384 => rsa(&public::RSA_PKCS1_2048_8192_SHA384),
            Algorithm::RS512 => rsa(&public::RSA_PKCS1_2048_8192_SHA512),
            Algorithm::PS256 => rsa(&public::RSA_PSS_2048_8192_SHA256),
            Algorithm::PS384 => rsa(&public::RSA_PSS_2048_8192_SHA384),
            Algorithm::PS512 => rsa(&public::RSA_PSS_2048_8192_SHA512),
            Algorithm::ES256 => point(&public::ECDSA_P256_SHA256_FIXED),
            Algorithm::ES384 => point(&public::ECDSA_P384_SHA384_FIXED),
            Algorithm::EdDSA => point(&public::ED25519),
            _ => Err(Unspecified), // see `family`
        }
        .map_err(|Unspecified| Error::new())
    }
}

type Verified = std::result::Result<(), Unspecified>;

impl With {
    fn bytes(&self) -> std::result::Result<&[u8], Unspecified> {
        self.key.try_get_as_bytes().map_err(|_| Unspecified)
    }

    fn is_mac(&self, by: hmac::Algorithm, message: &[u8], tag: &[u8]) -> Verified {
        // In constant time.
        hmac::verify(&hmac::Key::new(by, self.bytes()?), message, tag)
    }

    fn is_rsa(&self, by: &'static RsaParameters, message: &[u8], signature: &[u8]) -> Verified {
        match self.key.kind() {
            DecodingKeyKind::SecretOrDer(der) => {
                UnparsedPublicKey::new(by, der).verify(message, signature)
            }
            DecodingKeyKind::RsaModulusExponent { n, e } => {
                RsaPublicKeyComponents { n, e }.verify(by, message, signature)
            }
        }
    }

    fn is_point(
        &self,
        by: &'static dyn public::VerificationAlgorithm,
        message: &[u8],
        signature: &[u8],
    ) -> Verified {
        UnparsedPublicKey::new(by, self.bytes()?).verify(message, signature)
    }
}
