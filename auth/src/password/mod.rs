//! Password hashes: read, verify, make.
//!
//! A hash is text that begins with `$` and the name of its scheme:
//!
//! | text | scheme |
//! |---|---|
//! | `$argon2id$v=19$m=19456,t=2,p=1$SALT$HASH` | Argon2id, RFC 9106; the default. `argon2i` and `argon2d` too |
//! | `$2b$10$…` | bcrypt (`2a`, `2b`, `2x`, `2y`) |
//! | `$pbkdf2-sha512$i=210000$SALT$HASH` | PBKDF2, RFC 8018, with HMAC of SHA-1, SHA-256 or SHA-512 |
//! | `$sha256$prefix$SALT$HASH` | one round of `sha256`, `sha512`, `sha1` or `md5`; the salt in front (`prefix`) or behind (`suffix`) |
//! | `$plain$TEXT` | the password itself |
//!
//! SALT, HASH and TEXT are base64, with or without padding. The last two schemes are for credentials that
//! come from elsewhere; for keys of 128 random bits one round is enough, and fast.

mod digest;

use std::fmt;
use std::str::FromStr;

use argon2::Argon2;
use base64::Engine;
use base64::alphabet::STANDARD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use serde::Deserialize;
use subtle::ConstantTimeEq;

pub(crate) use digest::{DigestKind, Mac};

/// More memory than this for one hash would stop the node when a few clients come at once.
const ARGON2_KIB_MAX: u32 = 256 * 1024;
/// Longer than minutes on any machine.
const ARGON2_ROUNDS_MAX: u32 = 100;
const ARGON2_LANES_MAX: u32 = 16;
/// 2^16 rounds are seconds.
const BCRYPT_COST_MAX: u32 = 16;
/// Seconds, too.
const PBKDF2_ITERATIONS_MAX: u32 = 10_000_000;
/// Of a new hash.
const SALT_BYTES: usize = 16;
/// Salt, and hash or password.
const FIELD_BYTES_MAX: usize = 1024;

/// base64 with or without padding, written without.
pub(crate) const BASE64: GeneralPurpose = GeneralPurpose::new(
    &STANDARD,
    GeneralPurposeConfig::new()
        .with_encode_padding(false)
        .with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// A stored password. Its invariant: its cost is within the bounds above.
#[derive(Clone, PartialEq, Eq)]
pub enum Hash {
    /// Argon2.
    Argon2(Argon2Hash),
    /// bcrypt, as text.
    Bcrypt(Box<str>),
    /// PBKDF2.
    Pbkdf2(Pbkdf2Hash),
    /// One round of a digest.
    Digest(DigestHash),
    /// None.
    Plain(Box<[u8]>),
}

/// See [`Hash::Argon2`].
#[derive(Clone, PartialEq, Eq)]
pub struct Argon2Hash {
    algorithm: argon2::Algorithm,
    version: argon2::Version,
    memory_kib: u32,
    rounds: u32,
    lanes: u32,
    salt: Box<[u8]>,
    output: Box<[u8]>,
}

/// See [`Hash::Pbkdf2`].
#[derive(Clone, PartialEq, Eq)]
pub struct Pbkdf2Hash {
    pub(crate) mac: Mac,
    pub(crate) iterations: u32,
    pub(crate) salt: Box<[u8]>,
    pub(crate) output: Box<[u8]>,
}

/// See [`Hash::Digest`].
#[derive(Clone, PartialEq, Eq)]
pub struct DigestHash {
    pub(crate) kind: DigestKind,
    pub(crate) salt_first: bool,
    pub(crate) salt: Box<[u8]>,
    pub(crate) output: Box<[u8]>,
}

/// How new passwords are hashed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
pub enum Scheme {
    /// 19 MiB, two rounds, one lane: the first choice of OWASP's password storage cheat sheet.
    #[default]
    #[serde(rename = "argon2id")]
    Argon2id,
    /// Cost 10. Passwords longer than 72 bytes are refused.
    #[serde(rename = "bcrypt")]
    Bcrypt,
    /// 600,000 rounds.
    #[serde(rename = "pbkdf2-sha256")]
    Pbkdf2Sha256,
    /// 210,000 rounds.
    #[serde(rename = "pbkdf2-sha512")]
    Pbkdf2Sha512,
    /// One round with a salt in front: only for random keys that a machine made.
    #[serde(rename = "sha256")]
    Sha256,
}

impl Scheme {
    /// The names, as configuration and command line write them.
    pub const NAMES: &[(&str, Self)] = &[
        ("argon2id", Self::Argon2id),
        ("bcrypt", Self::Bcrypt),
        ("pbkdf2-sha256", Self::Pbkdf2Sha256),
        ("pbkdf2-sha512", Self::Pbkdf2Sha512),
        ("sha256", Self::Sha256),
    ];
}

impl FromStr for Scheme {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        let known = Self::NAMES.iter().find(|(known, _)| *known == name);
        known.map(|(_, scheme)| *scheme).ok_or_else(|| {
            let nearest = crate::config::nearest(name, Self::NAMES.iter().map(|(name, _)| *name));
            format!("\"{name}\" is not a way to hash; nearest: \"{nearest}\"")
        })
    }
}

impl Hash {
    /// Hashes a password with a new random salt. Takes as long as the scheme wants: milliseconds to half a second.
    ///
    /// # Errors
    /// When the scheme cannot hash this password, or the system gives no random bytes.
    pub fn make(scheme: Scheme, password: &[u8]) -> Result<Self, String> {
        let salt: Box<[u8]> = Box::new(random::<SALT_BYTES>()?);
        match scheme {
            Scheme::Argon2id => {
                let mut hash = Argon2Hash {
                    algorithm: argon2::Algorithm::Argon2id,
                    version: argon2::Version::V0x13,
                    memory_kib: 19_456,
                    rounds: 2,
                    lanes: 1,
                    salt,
                    output: Box::new([0; 32]),
                };
                hash.output = hash.compute(password)?;
                Ok(Self::Argon2(hash))
            }
            Scheme::Bcrypt if password.len() > 72 => {
                Err("bcrypt takes at most 72 bytes: use argon2id for longer passwords".to_owned())
            }
            Scheme::Bcrypt => bcrypt::hash_with_salt(password, 10, random::<16>()?)
                .map(|parts| Self::Bcrypt(parts.to_string().into()))
                .map_err(|error| format!("bcrypt: {error}")),
            Scheme::Pbkdf2Sha256 => Ok(Self::pbkdf2(Mac::Sha256, 600_000, salt, password)),
            Scheme::Pbkdf2Sha512 => Ok(Self::pbkdf2(Mac::Sha512, 210_000, salt, password)),
            Scheme::Sha256 => {
                let kind = DigestKind::Sha256;
                let output = kind.digest(&[&salt, password]);
                Ok(Self::Digest(DigestHash { kind, salt_first: true, salt, output }))
            }
        }
    }

    fn pbkdf2(mac: Mac, iterations: u32, salt: Box<[u8]>, password: &[u8]) -> Self {
        let output = mac.pbkdf2(password, &salt, iterations, mac.bytes());
        Self::Pbkdf2(Pbkdf2Hash { mac, iterations, salt, output })
    }

    /// Whether this is the password. Compares in constant time; takes as long as the scheme wants. // AU16
    #[must_use]
    pub fn verify(&self, password: &[u8]) -> bool {
        match self {
            Self::Argon2(hash) => {
                hash.compute(password).is_ok_and(|output| same(&output, &hash.output))
            }
            Self::Bcrypt(text) => bcrypt::verify(password, text).unwrap_or(false),
            Self::Pbkdf2(hash) => {
                let bytes = hash.output.len();
                let output = hash.mac.pbkdf2(password, &hash.salt, hash.iterations, bytes);
                same(&output, &hash.output)
            }
            Self::Digest(hash) => {
                let output = match hash.salt_first {
                    true => hash.kind.digest(&[&hash.salt, password]),
                    false => hash.kind.digest(&[password, &hash.salt]),
                };
                same(&output, &hash.output)
            }
            // Digests first, so that the time does not tell the length.
            Self::Plain(known) => {
                let kind = DigestKind::Sha256;
                same(&kind.digest(&[password]), &kind.digest(&[known]))
            }
        }
    }

    /// Whether a verification is short enough for the thread that asks: below some 20 µs.
    #[must_use]
    pub fn is_quick(&self) -> bool {
        match self {
            Self::Digest(_) | Self::Plain(_) => true,
            Self::Pbkdf2(hash) => hash.iterations <= 10,
            Self::Argon2(_) | Self::Bcrypt(_) => false,
        }
    }
}

impl Argon2Hash {
    fn compute(&self, password: &[u8]) -> Result<Box<[u8]>, String> {
        let bytes = self.output.len();
        let params = argon2::Params::new(self.memory_kib, self.rounds, self.lanes, Some(bytes));
        let params = params.map_err(|error| format!("argon2: {error}"))?;
        let mut output = vec![0; bytes];
        Argon2::new(self.algorithm, self.version, params)
            .hash_password_into(password, &self.salt, &mut output)
            .map_err(|error| format!("argon2: {error}"))?;
        Ok(output.into())
    }

    fn parse(scheme: &str, rest: &str) -> Result<Self, String> {
        let algorithm = match scheme {
            "argon2i" => argon2::Algorithm::Argon2i,
            "argon2d" => argon2::Algorithm::Argon2d,
            _ => argon2::Algorithm::Argon2id,
        };
        let (version, rest) = match rest.split_once('$') {
            Some(("v=19", rest)) => (argon2::Version::V0x13, rest),
            Some(("v=16", rest)) => (argon2::Version::V0x10, rest),
            _ => return Err("expected v=19 or v=16 after the scheme".to_owned()),
        };
        let [params, salt, output] = fields(rest, "m=…,t=…,p=…$SALT$HASH")?;
        let memory_kib = number(params, "m", 8, ARGON2_KIB_MAX)?;
        let rounds = number(params, "t", 1, ARGON2_ROUNDS_MAX)?;
        let lanes = number(params, "p", 1, ARGON2_LANES_MAX)?;
        let (salt, output) = (bytes("salt", salt)?, bytes("hash", output)?);
        let hash = Self { algorithm, version, memory_kib, rounds, lanes, salt, output };
        if hash.salt.len() < 8 || hash.output.len() < 16 || memory_kib < 8 * lanes {
            return Err("needs 8 bytes of salt, 16 of hash, and 8 KiB for each lane".to_owned());
        }
        Ok(hash)
    }
}

impl FromStr for Hash {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let split = text.strip_prefix('$').and_then(|text| text.split_once('$'));
        let Some((scheme, rest)) = split else {
            return Err("a password hash begins with $ and the name of its scheme".to_owned());
        };
        let hash = match scheme {
            "argon2id" | "argon2i" | "argon2d" => Argon2Hash::parse(scheme, rest).map(Self::Argon2),
            "2a" | "2b" | "2x" | "2y" => parse_bcrypt(text),
            "plain" => bytes("password", rest).map(Self::Plain),
            _ => parse_other(scheme, rest),
        };
        hash.map_err(|error| format!("${scheme}$: {error}"))
    }
}

fn parse_bcrypt(text: &str) -> Result<Hash, String> {
    let parts = bcrypt::HashParts::from_str(text).map_err(|error| error.to_string())?;
    if parts.get_cost() > BCRYPT_COST_MAX {
        return Err(format!("the cost is above {BCRYPT_COST_MAX}"));
    }
    Ok(Hash::Bcrypt(text.into()))
}

fn parse_other(scheme: &str, rest: &str) -> Result<Hash, String> {
    if let Some(mac) = scheme.strip_prefix("pbkdf2-").and_then(Mac::named) {
        let [iterations, salt, output] = fields(rest, "i=…$SALT$HASH")?;
        let iterations = number(iterations, "i", 1, PBKDF2_ITERATIONS_MAX)?;
        let (salt, output) = (bytes("salt", salt)?, bytes("hash", output)?);
        if output.len() < 16 {
            return Err("the hash is shorter than 16 bytes".to_owned());
        }
        return Ok(Hash::Pbkdf2(Pbkdf2Hash { mac, iterations, salt, output }));
    }
    let Some(kind) = DigestKind::named(scheme) else {
        let known = SCHEMES.iter().copied();
        let nearest = crate::config::nearest(scheme, known);
        return Err(format!("unknown scheme; nearest: ${nearest}$"));
    };
    let [position, salt, output] = fields(rest, "prefix or suffix$SALT$HASH")?;
    let salt_first = match position {
        "prefix" => true,
        "suffix" => false,
        _ => return Err("the salt is prefix or suffix".to_owned()),
    };
    let (salt, output) = (bytes("salt", salt)?, bytes("hash", output)?);
    if output.len() != kind.bytes() {
        return Err(format!("the hash has {} bytes, not {}", output.len(), kind.bytes()));
    }
    Ok(Hash::Digest(DigestHash { kind, salt_first, salt, output }))
}

const SCHEMES: &[&str] = &[
    "argon2id",
    "2b",
    "pbkdf2-sha1",
    "pbkdf2-sha256",
    "pbkdf2-sha512",
    "sha256",
    "sha512",
    "sha1",
    "md5",
    "plain",
];

fn fields<'a>(rest: &'a str, expected: &str) -> Result<[&'a str; 3], String> {
    let fields: Vec<&str> = rest.split('$').collect();
    <[&str; 3]>::try_from(fields).map_err(|_| format!("expected {expected}"))
}

fn number(params: &str, name: &str, min: u32, max: u32) -> Result<u32, String> {
    let value = params.split(',').find_map(|param| param.strip_prefix(name)?.strip_prefix('='));
    let value = value.ok_or_else(|| format!("{name}= is missing"))?;
    let parsed = value.parse().ok().filter(|number| (min..=max).contains(number));
    parsed.ok_or_else(|| format!("{name}={value} is not between {min} and {max}"))
}

fn bytes(what: &str, text: &str) -> Result<Box<[u8]>, String> {
    if text.len() > FIELD_BYTES_MAX {
        return Err(format!("the {what} is longer than {FIELD_BYTES_MAX} characters"));
    }
    let decoded =
        BASE64.decode(text).map_err(|error| format!("the {what} is not base64: {error}"))?;
    Ok(decoded.into())
}

impl fmt::Display for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let b64 = |bytes: &[u8]| BASE64.encode(bytes);
        match self {
            Self::Argon2(h) => {
                let (name, version) = (h.algorithm.as_str(), u32::from(h.version));
                let (m, t, p) = (h.memory_kib, h.rounds, h.lanes);
                let (salt, output) = (b64(&h.salt), b64(&h.output));
                write!(f, "${name}$v={version}$m={m},t={t},p={p}${salt}${output}")
            }
            Self::Bcrypt(text) => f.write_str(text),
            Self::Pbkdf2(h) => {
                let (name, i) = (h.mac.name(), h.iterations);
                write!(f, "$pbkdf2-{name}$i={i}${}${}", b64(&h.salt), b64(&h.output))
            }
            Self::Digest(h) => {
                let position = if h.salt_first { "prefix" } else { "suffix" };
                let name = h.kind.name();
                write!(f, "${name}${position}${}${}", b64(&h.salt), b64(&h.output))
            }
            Self::Plain(text) => write!(f, "$plain${}", b64(text)),
        }
    }
}

/// Never shows what it holds.
impl fmt::Debug for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Hash(…)")
    }
}

/// Equality in a time that depends on lengths only.
#[must_use]
pub(crate) fn same(a: &[u8], b: &[u8]) -> bool {
    a.ct_eq(b).into()
}

/// Random bytes of the system.
pub(crate) fn random<const N: usize>() -> Result<[u8; N], String> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).map_err(|error| format!("no random bytes: {error}"))?;
    Ok(bytes)
}

#[cfg(test)]
mod tests;
