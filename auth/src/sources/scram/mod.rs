//! SCRAM-SHA-256 and SCRAM-SHA-512 as enhanced authentication: RFC 5802, RFC 7677. // AU11
//!
//! ```text
//! client  CONNECT  method, client-first      r=…              AUTH 0x19 to re-authenticate
//! server  AUTH     0x18,   server-first      r=…,s=salt,i=…
//! client  AUTH     0x18,   client-final      c=…,r=…,p=proof
//! server  CONNACK  0x00,   server-final      v=signature      AUTH 0x00
//! ```
//!
//! Channel binding (`-PLUS`) is not supported: the methods are not offered, and a client that demands it
//! (`p=`) is refused. A user who is not known gets a salt that looks like any other and stays the same.

mod keys;
mod message;

use std::path::PathBuf;
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;

use super::registry::Build;
use crate::password::{random, same};
use crate::source::{Ask, Context, Decision, Pending, Source, Takes};
use crate::users::{By, Database, Record};
use crate::{Denial, Identity, Phase};

pub use keys::{ITERATIONS, Method, StoredKeys};
pub use message::{ClientFinal, ClientFirst, MESSAGE_BYTES_MAX};

/// The Authentication Methods.
pub const METHODS: &[&str] = &["SCRAM-SHA-256", "SCRAM-SHA-512"];

/// A client that takes longer begins again.
const EXCHANGE_S: u64 = 60;

/// `type = "scram"`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The user database; users need `scram` there.
    pub file: PathBuf,
    /// The method.
    #[serde(default)]
    pub method: Method,
    /// Rounds that an unknown user is told: use the number that your users have.
    #[serde(default = "iterations")]
    pub iterations: u32,
    /// Seconds between looks whether the file has changed.
    #[serde(default = "reload_interval_s")]
    pub reload_interval_s: u64,
}

fn iterations() -> u32 {
    ITERATIONS
}

fn reload_interval_s() -> u64 {
    2
}

/// Lives on: the shard that holds the connection, between two messages. What the next one is checked against.
#[derive(Clone, Debug)]
pub struct Exchange {
    pub(crate) stage: u16,
    pub(crate) scope: u64,
    pub(crate) so_far: Identity,
    pub(crate) reauthenticates: Option<Option<Box<str>>>,
    state: State,
}

/// What the server has said, and to whom.
#[derive(Clone)]
pub(crate) struct State {
    username: Box<str>,
    gs2_header: Box<str>,
    nonce: Box<str>,
    /// `client-first-bare,server-first`.
    said: Box<str>,
    keys: StoredKeys,
    user: Option<Record>,
    until_s: u64,
}

impl std::fmt::Debug for State {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("State").field("username", &self.username).finish_non_exhaustive()
    }
}

impl Build for Config {
    fn build(&self, context: &Context) -> Result<Arc<dyn Source>, String> {
        if !(keys::ITERATIONS_MIN..=keys::ITERATIONS_MAX).contains(&self.iterations) {
            let (min, max) = (keys::ITERATIONS_MIN, keys::ITERATIONS_MAX);
            return Err(format!("iterations: {} is not between {min} and {max}", self.iterations));
        }
        Ok(Arc::new(Scram {
            users: context.database(&self.file)?,
            method: self.method,
            iterations: self.iterations,
            every_s: self.reload_interval_s,
        }))
    }
}

/// Lives on: the service; what it knows of a client in between travels with the client.
#[derive(Debug)]
struct Scram {
    users: Arc<Database>,
    method: Method,
    iterations: u32,
    every_s: u64,
}

impl Source for Scram {
    fn takes(&self) -> Takes {
        Takes::Method(self.method.name())
    }

    fn decide<'a>(&'a self, ask: Ask<'a>) -> Pending<'a, Decision> {
        let decision = match &ask.request.phase {
            Phase::Connect | Phase::Reauthenticate { .. } => self.first(ask),
            Phase::Continue(exchange) => self.last(ask, exchange),
        };
        let decision = decision.unwrap_or_else(Decision::Deny);
        Box::pin(std::future::ready(decision))
    }

    fn upkeep_every_s(&self) -> Option<u64> {
        Some(self.every_s)
    }

    fn upkeep(&self, _now_s: u64) -> Pending<'_, Result<(), String>> {
        let users = Arc::clone(&self.users);
        Box::pin(async move {
            let read = tokio::task::spawn_blocking(move || users.refresh()).await;
            read.map_err(|error| error.to_string())?.map(drop)
        })
    }
}

impl Scram {
    fn first(&self, ask: Ask<'_>) -> Result<Decision, Denial> {
        let data = ask.request.data.as_deref().unwrap_or_default();
        let first = ClientFirst::parse(data).map_err(Denial::not_authorized)?;
        let nonce = random::<18>().map_err(Denial::not_authorized)?;
        let users = self.users.users();
        let user = users.get(By::Username, &first.username);
        let keys = user.as_ref().and_then(|user| user.keys(self.method)).cloned();
        let known = keys.is_some();
        let keys = keys.unwrap_or_else(|| {
            StoredKeys::of_nobody(self.method, users.secret(), &first.username, self.iterations)
        });
        let user = user.filter(|_| known);
        let until_s = ask.now_s + EXCHANGE_S;
        let (data, state) = begin(&first, &STANDARD.encode(nonce), keys, user, until_s);
        let (stage, scope, so_far, reauthenticates) = Default::default();
        let exchange = Exchange { stage, scope, so_far, reauthenticates, state };
        Ok(Decision::Challenge { data, exchange: Box::new(exchange) })
    }

    fn last(&self, ask: Ask<'_>, exchange: &Exchange) -> Result<Decision, Denial> {
        let state = &exchange.state;
        if ask.now_s >= state.until_s {
            return Err(Denial::not_authorized(format!("it took longer than {EXCHANGE_S} s")));
        }
        let data = ask.request.data.as_deref().unwrap_or_default();
        let last = ClientFinal::parse(data).map_err(Denial::not_authorized)?;
        let data = finish(state, &last)?;
        // The proof of a user who does not exist never fits.
        let Some(user) = &state.user else {
            return Err(Denial::credentials("there is no such user"));
        };
        let mut identity = Identity {
            username: Some(user.name.clone()),
            superuser: user.superuser,
            data: Some(data),
            ..Identity::default()
        };
        let attributes = user.attributes.iter();
        identity.attributes =
            attributes.map(|(name, value)| (name.clone(), value.clone())).collect();
        Ok(Decision::Allow(Box::new(identity)))
    }
}

/// The server's first message.
pub(crate) fn begin(
    first: &ClientFirst<'_>,
    nonce: &str,
    keys: StoredKeys,
    user: Option<Record>,
    until_s: u64,
) -> (Box<[u8]>, State) {
    let nonce = format!("{}{nonce}", first.nonce);
    let data = format!("r={nonce},s={},i={}", STANDARD.encode(&keys.salt), keys.iterations);
    let state = State {
        username: first.username.as_str().into(),
        gs2_header: first.gs2_header.into(),
        nonce: nonce.into(),
        said: format!("{},{data}", first.bare).into(),
        keys,
        user,
        until_s,
    };
    (data.into_bytes().into(), state)
}

/// The server's last message, if the client knows the password.
///
/// # Errors
/// 0x86 when it does not, 0x87 when it says something that does not follow.
pub(crate) fn finish(state: &State, last: &ClientFinal<'_>) -> Result<Box<[u8]>, Denial> {
    if last.binding != state.gs2_header.as_bytes() {
        return Err(Denial::not_authorized("c= is not the header of the first message"));
    }
    if last.nonce != &*state.nonce {
        return Err(Denial::not_authorized("r= is not the nonce of this exchange"));
    }
    let (mac, keys) = (state.keys.method.mac(), &state.keys);
    let parts: [&[u8]; 3] = [state.said.as_bytes(), b",", last.without_proof.as_bytes()];
    let signature = mac.code(&keys.stored_key, &parts);
    if last.proof.len() != signature.len() {
        return Err(Denial::credentials("the proof has the wrong length"));
    }
    let key: Vec<u8> = last.proof.iter().zip(&*signature).map(|(a, b)| a ^ b).collect();
    if !same(&mac.digest().digest(&[&key]), &keys.stored_key) {
        return Err(Denial::credentials(format!(
            "wrong password, or no such user: \"{}\"",
            state.username
        )));
    }
    let signature = mac.code(&keys.server_key, &parts);
    Ok(format!("v={}", STANDARD.encode(signature)).into_bytes().into())
}

#[cfg(test)]
mod tests;

#[cfg(test)]
pub(crate) use tests::answer;
