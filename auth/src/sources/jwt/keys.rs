//! Keys, each with the algorithms that it can be for.

use std::fmt;
use std::fs;
use std::path::Path;

use jsonwebtoken::jwk::{AlgorithmParameters, EllipticCurve, Jwk, KeyAlgorithm, PublicKeyUse};
use jsonwebtoken::{Algorithm, DecodingKey, Header};
use serde_json::Value;

/// A set is for one issuer, who has a handful.
const KEYS_MAX: usize = 256;
/// RFC 7518 3.2: as long as the hash of HS256.
const SECRET_BYTES_MIN: usize = 32;

const HMAC: &[Algorithm] = &[Algorithm::HS256, Algorithm::HS384, Algorithm::HS512];
const RSA: &[Algorithm] = &[
    Algorithm::RS256,
    Algorithm::RS384,
    Algorithm::RS512,
    Algorithm::PS256,
    Algorithm::PS384,
    Algorithm::PS512,
];

/// Some keys of one issuer.
#[derive(Debug, Default, PartialEq)]
pub(super) struct KeySet {
    keys: Vec<Key>,
}

struct Key {
    id: Option<String>,
    algorithms: Vec<Algorithm>,
    key: DecodingKey,
    /// What it was read from, to see changes.
    source: Vec<u8>,
}

/// Where a set comes from. // RFC 7517 9.2
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Origin {
    /// A file on this machine.
    File,
    /// Everybody can read it: there are no secrets in it.
    Network,
}

impl KeySet {
    pub(super) fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    /// Whether the key that the token names is there; a token that names none may be by any.
    pub(super) fn knows(&self, header: &Header) -> bool {
        self.keys.iter().any(|key| key.is_meant(header))
    }

    /// The keys that the token may be signed with: by name, and by algorithm.
    pub(super) fn candidates(&self, header: &Header) -> impl Iterator<Item = &DecodingKey> {
        let meant = self.keys.iter().filter(|key| key.is_meant(header));
        meant.filter(|key| key.algorithms.contains(&header.alg)).map(|key| &key.key)
    }

    /// A secret for HMAC.
    pub(super) fn secret(secret: &[u8]) -> Result<Self, String> {
        if secret.len() < SECRET_BYTES_MIN {
            return Err(format!(
                "the secret has {} bytes: {SECRET_BYTES_MIN} or more are needed (RFC 7518 3.2)",
                secret.len()
            ));
        }
        let text = String::from_utf8_lossy(secret);
        if text.contains("-----BEGIN") {
            return Err("the secret is a key in PEM: use public_key_file".to_owned());
        }
        let (algorithms, key) = (HMAC.to_vec(), DecodingKey::from_secret(secret));
        Ok(Self { keys: vec![Key { id: None, algorithms, key, source: secret.to_vec() }] })
    }

    /// A public key in PEM. Its type is found by trying.
    pub(super) fn pem(pem: &[u8]) -> Result<Self, String> {
        if String::from_utf8_lossy(pem).contains("PRIVATE KEY") {
            return Err("is a private key: only the public one is needed here".to_owned());
        }
        let (algorithms, key) = if let Ok(key) = DecodingKey::from_rsa_pem(pem) {
            (RSA.to_vec(), key)
        } else if let Ok(key) = DecodingKey::from_ec_pem(pem) {
            // The curve is in the length of the point, which is the key: 04, x, y.
            let algorithm = match key.try_get_as_bytes().map_or(0, <[u8]>::len) {
                65 => Algorithm::ES256,
                97 => Algorithm::ES384,
                _ => return Err("is on a curve other than P-256 and P-384".to_owned()),
            };
            (vec![algorithm], key)
        } else if let Ok(key) = DecodingKey::from_ed_pem(pem) {
            (vec![Algorithm::EdDSA], key)
        } else {
            return Err("is not a public key of RSA, P-256, P-384 or Ed25519 in PEM".to_owned());
        };
        Ok(Self { keys: vec![Key { id: None, algorithms, key, source: pem.to_vec() }] })
    }

    /// A JSON Web Key Set in a file.
    pub(super) fn file(file: &Path) -> Result<Self, String> {
        let parsed = Self::parse(&read(file)?, Origin::File);
        parsed.map_err(|error| format!("{}: {error}", file.display()))
    }

    /// A JSON Web Key Set. Keys that are of no use here are passed over, as RFC 7517 5 wants.
    pub(super) fn parse(text: &[u8], origin: Origin) -> Result<Self, String> {
        let set: Value =
            serde_json::from_slice(text).map_err(|error| format!("not a key set: {error}"))?;
        let list = set
            .get("keys")
            .and_then(Value::as_array)
            .ok_or("not a key set: there are no \"keys\"")?;
        if list.len() > KEYS_MAX {
            return Err(format!("has more than {KEYS_MAX} keys"));
        }
        let keys: Vec<Key> = list.iter().filter_map(|value| Key::read(value, origin)).collect();
        match keys.is_empty() {
            true => Err("has no key that can verify signatures".to_owned()),
            false => Ok(Self { keys }),
        }
    }
}

impl Key {
    fn is_meant(&self, header: &Header) -> bool {
        match (&header.kid, &self.id) {
            (Some(wanted), Some(id)) => wanted == id,
            _ => true,
        }
    }

    fn read(value: &Value, origin: Origin) -> Option<Self> {
        let jwk: Jwk = serde_json::from_value(value.clone()).ok()?;
        if jwk.common.public_key_use.as_ref().is_some_and(|to| *to != PublicKeyUse::Signature) {
            return None;
        }
        let mut algorithms = match &jwk.algorithm {
            AlgorithmParameters::RSA(_) => RSA.to_vec(),
            AlgorithmParameters::EllipticCurve(key) => match key.curve {
                EllipticCurve::P256 => vec![Algorithm::ES256],
                EllipticCurve::P384 => vec![Algorithm::ES384],
                _ => return None,
            },
            AlgorithmParameters::OctetKeyPair(key) if key.curve == EllipticCurve::Ed25519 => {
                vec![Algorithm::EdDSA]
            }
            AlgorithmParameters::OctetKey(_) if origin == Origin::File => HMAC.to_vec(),
            _ => return None,
        };
        if let Some(only) = jwk.common.key_algorithm {
            algorithms.retain(|algorithm| KeyAlgorithm::from(*algorithm) == only);
        }
        let key = DecodingKey::from_jwk(&jwk).ok()?;
        let source = value.to_string().into_bytes();
        Some(Self { id: jwk.common.key_id, algorithms, key, source })
    }
}

impl PartialEq for Key {
    fn eq(&self, other: &Self) -> bool {
        self.source == other.source
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { id, algorithms, .. } = self;
        f.debug_struct("Key")
            .field("id", id)
            .field("algorithms", algorithms)
            .finish_non_exhaustive()
    }
}

/// A file of keys.
pub(super) fn read(file: &Path) -> Result<Vec<u8>, String> {
    let text = fs::read(file).map_err(|error| format!("{}: {error}", file.display()))?;
    match text.len() > super::fetch::BODY_BYTES_MAX {
        true => Err(format!(
            "{}: is larger than {} bytes",
            file.display(),
            super::fetch::BODY_BYTES_MAX
        )),
        false => Ok(text),
    }
}
