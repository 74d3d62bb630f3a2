//! What the server keeps of a password (RFC 5802 3), written as RFC 5803 does.

use std::fmt;
use std::str::FromStr;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;

use super::METHODS;
use crate::password::{BASE64, Mac, random};

/// Rounds of new keys: what RFC 7677 4 recommends where devices can afford it.
pub const ITERATIONS: u32 = 15_000;
/// RFC 7677 4.
pub(super) const ITERATIONS_MIN: u32 = 4_096;
/// Minutes on a small device.
pub(super) const ITERATIONS_MAX: u32 = 10_000_000;
const SALT_BYTES: usize = 16;

/// A method.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
pub enum Method {
    /// SCRAM-SHA-256.
    #[default]
    #[serde(rename = "SCRAM-SHA-256")]
    Sha256,
    /// SCRAM-SHA-512.
    #[serde(rename = "SCRAM-SHA-512")]
    Sha512,
}

impl Method {
    /// As the Authentication Method says it.
    #[must_use]
    pub fn name(self) -> &'static str {
        let at = match self {
            Self::Sha256 => 0,
            Self::Sha512 => 1,
        };
        METHODS.get(at).copied().unwrap_or_default()
    }

    pub(crate) fn mac(self) -> Mac {
        match self {
            Self::Sha256 => Mac::Sha256,
            Self::Sha512 => Mac::Sha512,
        }
    }
}

impl FromStr for Method {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        let known = [Self::Sha256, Self::Sha512].into_iter().find(|method| method.name() == name);
        known.ok_or_else(|| {
            let near = crate::config::nearest(name, METHODS.iter().copied());
            format!("\"{name}\" is not a SCRAM method; nearest: \"{near}\"")
        })
    }
}

/// `SCRAM-SHA-256$ITERATIONS:SALT$STOREDKEY:SERVERKEY`. Nobody can log in with it, unlike with a password.
#[derive(Clone, PartialEq, Eq)]
pub struct StoredKeys {
    /// For which method.
    pub method: Method,
    pub(crate) iterations: u32,
    pub(crate) salt: Box<[u8]>,
    pub(crate) stored_key: Box<[u8]>,
    pub(crate) server_key: Box<[u8]>,
}

impl StoredKeys {
    /// Keys for a password, with a new random salt. Takes some milliseconds.
    ///
    /// # Errors
    /// When the password has characters that SASLprep forbids, or the system gives no random bytes.
    pub fn make(method: Method, password: &str, iterations: u32) -> Result<Self, String> {
        Self::with_salt(method, password, &random::<SALT_BYTES>()?, iterations)
    }

    pub(crate) fn with_salt(
        method: Method,
        password: &str,
        salt: &[u8],
        iterations: u32,
    ) -> Result<Self, String> {
        let prepared = stringprep::saslprep(password)
            .map_err(|_| "the password has characters that SCRAM does not allow (RFC 4013)")?;
        let mac = method.mac();
        let salted = mac.pbkdf2(prepared.as_bytes(), salt, iterations, mac.bytes());
        let stored_key = mac.digest().digest(&[&mac.code(&salted, &[b"Client Key"])]);
        let server_key = mac.code(&salted, &[b"Server Key"]);
        Ok(Self { method, iterations, salt: salt.into(), stored_key, server_key })
    }

    /// Keys that fit no password, the same for a name each time: nobody can tell who exists.
    pub(super) fn of_nobody(
        method: Method,
        secret: &[u8; 32],
        name: &str,
        iterations: u32,
    ) -> Self {
        let mac = method.mac();
        let derive = |what: &str| {
            mac.code(
                secret,
                &[method.name().as_bytes(), b"\0", what.as_bytes(), b"\0", name.as_bytes()],
            )
        };
        let salt = derive("salt").get(..SALT_BYTES).unwrap_or_default().into();
        let (stored_key, server_key) = (derive("stored key"), derive("server key"));
        Self { method, iterations, salt, stored_key, server_key }
    }
}

impl FromStr for StoredKeys {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let parts: Vec<&str> = text.split(['$', ':']).collect();
        let [method, iterations, salt, stored_key, server_key] = *parts.as_slice() else {
            return Err("scram: expected METHOD$ITERATIONS:SALT$STOREDKEY:SERVERKEY".to_owned());
        };
        let method: Method = method.parse()?;
        let iterations = iterations.parse().ok().filter(|i| (1..=ITERATIONS_MAX).contains(i));
        let iterations =
            iterations.ok_or_else(|| format!("scram: iterations are 1 to {ITERATIONS_MAX}"))?;
        let bytes = |what: &str, text: &str| {
            let bytes =
                BASE64.decode(text).map_err(|error| format!("scram: the {what}: {error}"))?;
            Ok::<Box<[u8]>, String>(bytes.into())
        };
        let salt = bytes("salt", salt)?;
        let (stored_key, server_key) =
            (bytes("stored key", stored_key)?, bytes("server key", server_key)?);
        let length = method.mac().bytes();
        if salt.is_empty()
            || salt.len() > 256
            || [&stored_key, &server_key].iter().any(|k| k.len() != length)
        {
            return Err(format!("scram: the keys have {length} bytes, the salt has 1 to 256"));
        }
        Ok(Self { method, iterations, salt, stored_key, server_key })
    }
}

impl fmt::Display for StoredKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let b64 = |bytes: &[u8]| STANDARD.encode(bytes);
        let (name, iterations, salt) = (self.method.name(), self.iterations, b64(&self.salt));
        write!(f, "{name}${iterations}:{salt}${}:{}", b64(&self.stored_key), b64(&self.server_key))
    }
}

impl fmt::Debug for StoredKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "StoredKeys({})", self.method.name())
    }
}
