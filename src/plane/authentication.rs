//! Between the shards, which ask about clients, and the service that knows them.

use std::sync::{Arc, OnceLock};

use ringmain_auth as auth;
use ringmain_shards::engine::auth::{
    AuthPhase, AuthRequest, AuthVerdict, Authenticator, Exchange, Identity,
};
use ringmain_shards::engine::ids::ConnId;
use ringmain_shards::reactor::ShardHandle;

use crate::config::Config;

/// Lives on: the root. Its service runs from the first configuration on that asks anybody.
#[derive(Debug, Default)]
pub(super) struct Authentication {
    asker: Arc<Asker>,
    service: Option<auth::Service>,
}

/// Lives on: the shards. The way to the service.
#[derive(Debug, Default)]
struct Asker {
    service: OnceLock<auth::Handle>,
    /// To the shards; a verdict may come before all of them run.
    shards: Arc<OnceLock<Vec<ShardHandle>>>,
}

impl Authentication {
    /// Starts what the configuration asks for. `open` are the names of the listeners, by their number.
    ///
    /// # Errors
    /// What is wrong with files that it names, each with its place.
    pub(super) fn start(config: &Config, open: &[String]) -> Result<Self, String> {
        let mut new = Self::default();
        new.apply(config, open)?;
        Ok(new)
    }

    pub(super) fn authenticator(&self) -> Arc<dyn Authenticator> {
        Arc::clone(&self.asker) as Arc<dyn Authenticator>
    }

    /// Where answers go. Called once.
    pub(super) fn answer_to(&self, shards: &[ShardHandle]) {
        let first = self.asker.shards.set(shards.to_vec()).is_ok();
        debug_assert!(first, "a node starts once");
    }

    /// Takes over another configuration. Waits until its files were read.
    ///
    /// # Errors
    /// What is wrong with it; everything stays as it was.
    pub(super) fn apply(&mut self, config: &Config, open: &[String]) -> Result<(), String> {
        let written = &config.authentication;
        let number = |at: usize| {
            let name = &config.listeners.get(at)?.name;
            u16::try_from(open.iter().position(|other| other == name)?).ok()
        };
        let explain = |errors| written.explain(errors).to_string();
        if let Some(service) = &self.service {
            return service.reload(written.of(number)).map_err(explain);
        }
        if !(0..config.listeners.len()).any(|at| written.asks(at)) {
            return Ok(());
        }
        let shards = Arc::clone(&self.asker.shards);
        let answers: auth::Answers = Arc::new(move |answer| give_back(shards.wait(), answer));
        let service = auth::Service::start(&written.of(number), auth::system_clock(), answers);
        let service = service.map_err(explain)?;
        let first = self.asker.service.set(service.handle()).is_ok();
        debug_assert!(first, "one service is started");
        self.service = Some(service);
        Ok(())
    }

    /// Has files read again that have changed.
    pub(super) fn refresh(&self) {
        if let Some(service) = &self.service {
            service.refresh();
        }
    }
}

impl Authenticator for Asker {
    fn ask(&self, request: Box<AuthRequest>) -> bool {
        let Some(service) = self.service.get() else { return false };
        request_of(*request).is_some_and(|request| service.try_send(request).is_ok())
    }
}

/// Which connection of which shard asked, in one number.
fn token(shard: u16, conn: ConnId) -> u128 {
    u128::from(shard) << 64 | u128::from(conn.index) << 32 | u128::from(conn.generation)
}

fn give_back(shards: &[ShardHandle], answer: auth::Answer) {
    let auth::Answer { token, verdict } = answer;
    let conn = ConnId { index: (token >> 32) as u32, generation: token as u32 };
    let Some(shard) = shards.get((token >> 64) as usize) else { return };
    // A shard that has ended needs no answer, and there is room for as many as there were requests.
    if let Err(error) = shard.answer(conn, verdict_of(verdict)) {
        tracing::debug!(%error, "a verdict was lost");
    }
}

/// `None`: the exchange is none of the service.
fn request_of(request: AuthRequest) -> Option<auth::Request> {
    let AuthRequest {
        shard,
        conn,
        listener,
        peer,
        version,
        client_id,
        username,
        password,
        certificate,
        method,
        data,
        phase,
    } = request;
    let phase = match phase {
        AuthPhase::Connect => auth::Phase::Connect,
        AuthPhase::Reauthenticate => auth::Phase::Reauthenticate { username: username.clone() },
        AuthPhase::Continue(Exchange(state)) => {
            let state = state.downcast::<auth::Exchange>().ok()?;
            auth::Phase::Continue(Box::new(Arc::unwrap_or_clone(state)))
        }
    };
    Some(auth::Request {
        token: token(shard.0, conn),
        listener,
        peer,
        version,
        client_id,
        username,
        password,
        certificate,
        method,
        data,
        phase,
    })
}

fn verdict_of(verdict: auth::Verdict) -> AuthVerdict {
    match verdict {
        auth::Verdict::Allow(identity) => AuthVerdict::Allow(Box::new(identity_of(*identity))),
        auth::Verdict::Deny(denial) => AuthVerdict::Deny(denial.reason),
        auth::Verdict::Challenge { data, exchange } => {
            AuthVerdict::Challenge { data, exchange: Exchange(Arc::new(*exchange)) }
        }
        auth::Verdict::Busy => AuthVerdict::Busy,
    }
}

fn identity_of(identity: auth::Identity) -> Identity {
    let auth::Identity {
        username,
        client_id,
        superuser,
        attributes,
        expires_at,
        rules,
        data,
        authenticator: _,
    } = identity;
    Identity { username, client_id, superuser, attributes, expires_at_s: expires_at, rules, data }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_holds_every_shard_and_connection() {
        let conn = ConnId { index: u32::MAX - 1, generation: u32::MAX };
        let token = token(255, conn);
        assert_eq!((token >> 64) as u16, 255);
        assert_eq!(((token >> 32) as u32, token as u32), (conn.index, conn.generation));
    }
}
