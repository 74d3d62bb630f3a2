//! JSON Web Tokens: RFC 7519 in the compact form of RFC 7515. // AU09
//!
//! The key decides which algorithms are possible, never the token: an RSA key verifies no HMAC, and `none` is
//! no algorithm. Keys from a URL are read again and again; what was read last stays when that fails.

mod acl;
mod claims;
mod fetch;
mod keys;
mod provider;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use arc_swap::ArcSwap;
use jsonwebtoken::{Algorithm, Header, Validation, decode, decode_header};
use serde::Deserialize;
use serde_json::{Map, Value};
use tokio::sync::{Mutex, Semaphore};

use super::registry::Build;
use crate::Denial;
use crate::source::{Ask, Context, Decision, Inputs, Pending, Source, Takes};
use crate::template::Template;
use fetch::Fetcher;
use keys::KeySet;

/// Longest token: more than identity providers issue, less than a stranger may make us hash.
pub const TOKEN_BYTES_MAX: usize = 16 * 1024;
/// Keys that are tried for a token that does not name its key.
const TRIES_MAX: usize = 8;
/// Seconds between two reads that unknown keys cause: a stranger can make them up.
const UNKNOWN_KEY_S: u64 = 10;
/// Clients that wait for such a read. Made-up keys must not take the room of clients whose key is known.
const UNKNOWN_KEY_WAITING_MAX: usize = 64;

/// `type = "jwt"`. Exactly one of the first five keys is set.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Secret for HS256, HS384, HS512: at least 32 bytes.
    #[serde(default)]
    secret: Option<String>,
    /// File that holds such a secret; one line end at its end is not part of it.
    #[serde(default)]
    secret_file: Option<PathBuf>,
    /// Public key in PEM: RSA, P-256, P-384 or Ed25519.
    #[serde(default)]
    public_key_file: Option<PathBuf>,
    /// JSON Web Key Set (RFC 7517).
    #[serde(default)]
    jwks_file: Option<PathBuf>,
    /// The same at an http or https address.
    #[serde(default)]
    jwks_url: Option<String>,
    /// PEM file of who may sign the server's certificate, instead of the system's list.
    #[serde(default)]
    ca_file: Option<PathBuf>,
    /// Seconds between two reads of `jwks_file` or `jwks_url`.
    #[serde(default = "refresh_interval_s")]
    refresh_interval_s: u64,
    /// Only these algorithms, of those that the key allows.
    #[serde(default)]
    algorithms: Vec<Algorithm>,
    /// Where the token is.
    #[serde(default)]
    from: From,
    /// Claims that must have a value; lists must contain it.
    #[serde(default)]
    verify_claims: BTreeMap<String, Template>,
    /// Claim that becomes the user name.
    #[serde(default)]
    username_claim: Option<String>,
    /// Claim that becomes the client identifier.
    #[serde(default)]
    client_id_claim: Option<String>,
    /// Claim that makes a superuser if it is true. Unset: no token does.
    #[serde(default)]
    superuser_claim: Option<String>,
    /// Claim with access rules; empty: none is read.
    #[serde(default = "acl_claim")]
    acl_claim: String,
    /// Attributes from claims.
    #[serde(default)]
    attributes: BTreeMap<Box<str>, String>,
    /// Whether a token without `exp` is refused.
    #[serde(default = "require_exp")]
    require_exp: bool,
    /// Seconds by which clocks may differ, for `exp`, `nbf` and `iat`.
    #[serde(default = "leeway_s")]
    leeway_s: u64,
}

fn refresh_interval_s() -> u64 {
    300
}

fn acl_claim() -> String {
    "acl".to_owned()
}

fn require_exp() -> bool {
    true
}

fn leeway_s() -> u64 {
    5
}

/// Where the token is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
enum From {
    #[default]
    Password,
    Username,
}

impl Build for Config {
    fn build(&self, _: &Context) -> Result<Arc<dyn Source>, String> {
        Ok(Arc::new(Jwt::new(self.clone())?))
    }
}

/// Lives on: the service.
#[derive(Debug)]
struct Jwt {
    config: Config,
    keys: ArcSwap<KeySet>,
    generation: AtomicU64,
    fetcher: Option<Fetcher>,
    /// When keys were last asked for, in Unix seconds. Who holds it, asks.
    asked_s: Mutex<Option<u64>>,
    /// [`UNKNOWN_KEY_WAITING_MAX`].
    room: Semaphore,
}

impl Source for Jwt {
    fn takes(&self) -> Takes {
        Takes::Password
    }

    fn inputs(&self) -> Inputs {
        let sent = Inputs::USERNAME.and(Inputs::PASSWORD);
        self.config
            .verify_claims
            .values()
            .fold(sent, |inputs, template| inputs.and(template.inputs()))
    }

    fn generation(&self) -> u64 {
        self.generation.load(Relaxed)
    }

    fn decide<'a>(&'a self, ask: Ask<'a>) -> Pending<'a, Decision> {
        Box::pin(async move {
            let token = match self.config.from {
                From::Password => ask.request.password.as_deref(),
                From::Username => ask.request.username.as_deref().map(str::as_bytes),
            };
            // Three parts and a header: otherwise it is a password, and others know about those.
            let token = token.and_then(|token| std::str::from_utf8(token).ok());
            let Some(token) = token.filter(|token| token.matches('.').count() == 2) else {
                return Decision::Ignore;
            };
            if token.len() > TOKEN_BYTES_MAX {
                let text = format!("the token is longer than {TOKEN_BYTES_MAX} bytes");
                return Decision::Deny(Denial::credentials(text));
            }
            match self.verified(token, ask.now_s).await {
                Ok(claims) => claims::judge(&self.config, &claims, ask),
                Err(decision) => decision,
            }
        })
    }

    fn upkeep_every_s(&self) -> Option<u64> {
        let read = self.fetcher.is_some() || self.config.jwks_file.is_some();
        read.then_some(self.config.refresh_interval_s)
    }

    fn upkeep(&self, now_s: u64) -> Pending<'_, Result<(), String>> {
        Box::pin(async move {
            let mut asked_s = self.asked_s.lock().await;
            self.refresh(&mut asked_s, now_s).await
        })
    }
}

impl Jwt {
    fn new(config: Config) -> Result<Self, String> {
        provider::install();
        let set = [
            config.secret.is_some(),
            config.secret_file.is_some(),
            config.public_key_file.is_some(),
            config.jwks_file.is_some(),
            config.jwks_url.is_some(),
        ];
        if set.iter().filter(|set| **set).count() != 1 {
            let text =
                "set exactly one of secret, secret_file, public_key_file, jwks_file, jwks_url";
            return Err(text.to_owned());
        }
        if config.refresh_interval_s == 0 {
            return Err("refresh_interval_s: must be 1 or more".to_owned());
        }
        let keys = if let Some(secret) = &config.secret {
            KeySet::secret(secret.as_bytes())?
        } else if let Some(file) = &config.secret_file {
            let secret = keys::read(file)?;
            let secret = secret.strip_suffix(b"\n").unwrap_or(&secret);
            KeySet::secret(secret).map_err(|error| format!("{}: {error}", file.display()))?
        } else if let Some(file) = &config.public_key_file {
            KeySet::pem(&keys::read(file)?)
                .map_err(|error| format!("{}: {error}", file.display()))?
        } else if let Some(file) = &config.jwks_file {
            KeySet::file(file)?
        } else {
            KeySet::default()
        };
        let fetcher = config.jwks_url.as_deref();
        let fetcher =
            fetcher.map(|url| Fetcher::new(url, config.ca_file.as_deref())).transpose()?;
        let room = Semaphore::new(UNKNOWN_KEY_WAITING_MAX);
        let (keys, generation) = (ArcSwap::from_pointee(keys), AtomicU64::new(1));
        Ok(Self { config, keys, generation, fetcher, asked_s: Mutex::new(None), room })
    }

    /// The claims of a token whose signature fits.
    async fn verified(&self, token: &str, now_s: u64) -> Result<Map<String, Value>, Decision> {
        let bad = |text: String| Decision::Deny(Denial::credentials(text));
        // `none` is no algorithm here.
        let header = decode_header(token).map_err(|error| bad(format!("not a token: {error}")))?;
        let mut keys = self.keys.load_full();
        if !keys.knows(&header) && self.fetcher.is_some() {
            self.look_for_new_keys(&header, now_s).await?;
            keys = self.keys.load_full();
        }
        if !keys.knows(&header) {
            // Of another issuer: there may be another authenticator for it.
            return Err(Decision::Ignore);
        }
        let allowed = &self.config.algorithms;
        if !allowed.is_empty() && !allowed.contains(&header.alg) {
            return Err(bad(format!("the algorithm {:?} is not in algorithms", header.alg)));
        }
        let mut validation = Validation::new(header.alg);
        // Times are checked with the time that we are given, the audience with verify_claims.
        (validation.validate_exp, validation.validate_aud) = (false, false);
        validation.required_spec_claims.clear();
        let mut candidates = keys.candidates(&header).take(TRIES_MAX).peekable();
        if candidates.peek().is_none() {
            return Err(bad(format!("no key verifies the algorithm {:?}", header.alg)));
        }
        for key in candidates {
            if let Ok(token) = decode::<Map<String, Value>>(token, key, &validation) {
                return Ok(token.claims);
            }
        }
        Err(bad("the signature does not fit".to_owned()))
    }

    /// Reads the keys because one is unknown, if that has not just been done.
    async fn look_for_new_keys(&self, header: &Header, now_s: u64) -> Result<(), Decision> {
        let Ok(_room) = self.room.try_acquire() else { return Err(Decision::Busy) };
        let mut asked_s = self.asked_s.lock().await;
        // Somebody else may have done it while this one waited.
        if self.keys.load().knows(header) {
            return Ok(());
        }
        let recent = asked_s.is_some_and(|asked_s| now_s < asked_s.saturating_add(UNKNOWN_KEY_S));
        let refreshed = if recent { Ok(()) } else { self.refresh(&mut asked_s, now_s).await };
        match refreshed {
            Err(error) if self.keys.load().is_empty() => Err(Decision::Failed(error)),
            Err(error) => {
                tracing::warn!(
                    "a token names an unknown key, and the keys cannot be read: {error}"
                );
                Ok(())
            }
            Ok(()) if self.keys.load().is_empty() => {
                Err(Decision::Failed("there are no keys yet".to_owned()))
            }
            Ok(()) => Ok(()),
        }
    }

    async fn refresh(&self, asked_s: &mut Option<u64>, now_s: u64) -> Result<(), String> {
        *asked_s = Some(now_s);
        let keys = if let Some(fetcher) = &self.fetcher {
            let text = fetcher.get().await?;
            KeySet::parse(&text, keys::Origin::Network)
                .map_err(|error| format!("{}: {error}", fetcher.url()))?
        } else if let Some(file) = self.config.jwks_file.clone() {
            let read = tokio::task::spawn_blocking(move || KeySet::file(&file)).await;
            read.map_err(|error| error.to_string())??
        } else {
            return Ok(());
        };
        if *self.keys.load_full() != keys {
            self.keys.store(Arc::new(keys));
            self.generation.fetch_add(1, Relaxed);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
