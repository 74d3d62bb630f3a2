//! Between the shards, which ask about clients, and the service that knows them.

use std::sync::{Arc, OnceLock};

use ringmain_acl::{ClientRule, ClientRules, NoMatch, QosSet, Verb};
use ringmain_auth as auth;
use ringmain_shards::engine::auth::{
    AuthPhase, AuthRequest, AuthVerdict, Authenticator, Exchange, Identity,
};
use ringmain_shards::engine::ids::ConnId;
use ringmain_shards::engine::introduction::ClientCertificate;
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
        certificate: certificate.map(|certificate| Arc::new(certificate_of(&certificate))),
        method,
        data,
        phase,
    })
}

fn certificate_of(certificate: &ClientCertificate) -> auth::PeerCertificate {
    let ClientCertificate {
        common_name,
        subject,
        dns_names,
        uris,
        emails,
        serial,
        fingerprint,
        der,
    } = certificate.clone();
    auth::PeerCertificate {
        common_name,
        subject,
        dns_names,
        uris,
        emails,
        serial,
        fingerprint,
        der,
    }
}

fn verdict_of(verdict: auth::Verdict) -> AuthVerdict {
    match verdict {
        auth::Verdict::Allow(identity) => match identity_of(*identity) {
            Ok(identity) => AuthVerdict::Allow(Box::new(identity)),
            Err(why) => {
                // Not let in with the others of its rules: one that denies would be missing.
                tracing::warn!("a client was refused for the rules that its token brings: {why}");
                AuthVerdict::Deny(ringmain_mqtt::ReasonCode::NOT_AUTHORIZED)
            }
        },
        auth::Verdict::Deny(denial) => AuthVerdict::Deny(denial.reason),
        auth::Verdict::Challenge { data, exchange } => {
            AuthVerdict::Challenge { data, exchange: Exchange(Arc::new(*exchange)) }
        }
        auth::Verdict::Busy => AuthVerdict::Busy,
    }
}

fn identity_of(identity: auth::Identity) -> Result<Identity, String> {
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
    let rules = if rules.is_empty() {
        None
    } else {
        let rules: Vec<ClientRule> = rules.into_iter().map(rule_of).collect();
        // What they do not name is for the rules of the node to decide.
        Some(ClientRules::new(&rules, NoMatch::Next).map_err(|error| error.to_string())?)
    };
    Ok(Identity {
        username,
        client_id,
        superuser,
        attributes,
        expires_at_s: expires_at,
        rules,
        data,
    })
}

fn rule_of(rule: auth::ClientRule) -> ClientRule {
    let auth::ClientRule { allow, action, filter, eq, qos, retain } = rule;
    ClientRule {
        allow,
        action: match action {
            auth::Action::Publish => Verb::Publish,
            auth::Action::Subscribe => Verb::Subscribe,
            auth::Action::All => Verb::All,
        },
        topic: filter.into(),
        eq,
        qos: (!qos.is_empty()).then(|| qos.into_iter().fold(QosSet::NONE, QosSet::with)),
        retain,
    }
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

    // AU09
    #[test]
    fn rules_of_a_token_that_cannot_be_kept_whole_refuse_its_client() {
        let rule = |filter: &str| auth::ClientRule {
            allow: false,
            action: auth::Action::All,
            filter: filter.into(),
            eq: false,
            qos: vec![ringmain_mqtt::QoS::AtMostOnce],
            retain: None,
        };
        let identity = |filter| {
            let rules = vec![rule("a/#"), rule(filter)];
            auth::Verdict::Allow(Box::new(auth::Identity { rules, ..auth::Identity::default() }))
        };
        assert!(matches!(verdict_of(identity("b")), AuthVerdict::Allow(i) if i.rules.is_some()));
        assert!(matches!(verdict_of(identity("b/#/c")), AuthVerdict::Deny(_)));
    }
}
