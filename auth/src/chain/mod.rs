//! Asks the authenticators of a listener, in order. // AU01

mod stage;

use std::sync::Arc;

use ringmain_mqtt::ReasonCode;

use crate::source::{Ask, Decision, Takes};
use crate::sources::expression::Rules;
use crate::sources::scram::Exchange;
use crate::{Denial, Identity, Phase, Request, Verdict};

pub(crate) use stage::{Deps, Stage};

/// Lives on: the service. The first authenticator that allows or denies decides.
#[derive(Debug)]
pub(crate) struct Chain {
    pub(crate) allow_anonymous: bool,
    pub(crate) stages: Vec<Arc<Stage>>,
    pub(crate) after: Arc<Rules>,
}

impl Chain {
    /// What becomes of a client.
    pub(crate) async fn decide(&self, request: &Request, deps: &Deps) -> Verdict {
        let verdict = match &request.phase {
            Phase::Connect => self.begin(request, None, deps).await,
            Phase::Reauthenticate { username } => self.begin(request, Some(username), deps).await,
            Phase::Continue(exchange) => self.go_on(request, exchange, deps).await,
        };
        match verdict {
            // Re-authentication fails with 0x87, whatever the reason. // S-95
            Verdict::Deny(denial) if request.is_reauthentication() => {
                Verdict::Deny(Denial { reason: ReasonCode::NOT_AUTHORIZED, ..denial })
            }
            verdict => verdict,
        }
    }

    async fn begin(
        &self,
        request: &Request,
        again: Option<&Option<Box<str>>>,
        deps: &Deps,
    ) -> Verdict {
        // [MQTT-4.12.0-1]: a server that does not support the method may answer with 0x8C.
        if let Some(method) = request.method.as_deref()
            && !self.stages.iter().any(|stage| stage.takes() == Takes::Method(known(method)))
        {
            let text = format!("no authenticator of this listener knows the method {method:?}");
            return Verdict::Deny(Denial::new(ReasonCode::BAD_AUTHENTICATION_METHOD, text));
        }
        if again.is_some() && request.method.is_none() {
            let text = "AUTH from a client that connected without an Authentication Method";
            return Verdict::Deny(Denial::new(ReasonCode::PROTOCOL_ERROR, text));
        }
        self.walk(request, 0, Identity::default(), again.cloned(), deps).await
    }

    async fn go_on(&self, request: &Request, exchange: &Exchange, deps: &Deps) -> Verdict {
        let at = usize::from(exchange.stage);
        let Some(stage) = self.stages.get(at).filter(|stage| stage.id == exchange.scope) else {
            let text = "the authenticators were configured anew meanwhile";
            return Verdict::Deny(Denial::new(ReasonCode::SERVER_UNAVAILABLE, text));
        };
        // [MQTT-4.12.0-5]: the method is that of CONNECT.
        if request.method.as_deref().map(known).map(Takes::Method) != Some(stage.takes()) {
            let text = "AUTH names another Authentication Method than CONNECT did";
            return Verdict::Deny(Denial::new(ReasonCode::PROTOCOL_ERROR, text));
        }
        let again = exchange.reauthenticates.clone();
        self.walk(request, at, exchange.so_far.clone(), again, deps).await
    }

    async fn walk(
        &self,
        request: &Request,
        from: usize,
        mut so_far: Identity,
        again: Option<Option<Box<str>>>,
        deps: &Deps,
    ) -> Verdict {
        for (at, stage) in self.stages.iter().enumerate().skip(from) {
            let concerns = match stage.takes() {
                Takes::Password => request.method.is_none(),
                Takes::Facts => true,
                Takes::Method(method) => request.method.as_deref() == Some(method),
            };
            if !concerns {
                continue;
            }
            let ask = Ask { request, so_far: &so_far, now_s: (deps.clock)() / 1000 };
            let decision = stage.ask(ask, deps).await;
            match decision {
                Decision::Ignore => {}
                Decision::Add(more) => {
                    if let Err(text) = add(&mut so_far, *more) {
                        return unfit(&stage.name, &text);
                    }
                }
                // Facts do not prove what the method is there to prove.
                Decision::Allow(more)
                    if request.method.is_some() && stage.takes() == Takes::Facts =>
                {
                    if let Err(text) = add(&mut so_far, *more) {
                        return unfit(&stage.name, &text);
                    }
                }
                Decision::Allow(more) => {
                    if let Err(text) = add(&mut so_far, *more) {
                        return unfit(&stage.name, &text);
                    }
                    so_far.authenticator = stage.name.clone();
                    return self.admit(request, so_far, Some(stage), again.as_ref(), deps);
                }
                Decision::Deny(mut denial) => {
                    denial.text = format!("{}: {}", stage.name, denial.text);
                    return Verdict::Deny(denial);
                }
                Decision::Challenge { data, mut exchange } => {
                    exchange.stage = at as u16;
                    exchange.scope = stage.id;
                    exchange.so_far = so_far;
                    exchange.reauthenticates = again;
                    return Verdict::Challenge { data, exchange };
                }
                Decision::Failed(text) => {
                    let text = format!("{}: {text}", stage.name);
                    return Verdict::Deny(Denial::new(ReasonCode::SERVER_UNAVAILABLE, text));
                }
                Decision::Busy => return Verdict::Busy,
            }
        }
        self.nobody_knows(request, so_far, deps)
    }

    /// All have ignored it. // AU01 AU02
    fn nobody_knows(&self, request: &Request, so_far: Identity, deps: &Deps) -> Verdict {
        if self.allow_anonymous && request.method.is_none() {
            return self.admit(request, so_far, None, None, deps);
        }
        Verdict::Deny(match request.has_credentials() {
            true => Denial::credentials("no authenticator of this listener knows it"),
            false => Denial::not_authorized("it has no credentials, and allow_anonymous is off"),
        })
    }

    fn admit(
        &self,
        request: &Request,
        mut identity: Identity,
        stage: Option<&Stage>,
        again: Option<&Option<Box<str>>>,
        deps: &Deps,
    ) -> Verdict {
        let now_s = (deps.clock)() / 1000;
        if stage.is_some() && identity.username.is_none() {
            identity.username.clone_from(&request.username);
        }
        if identity.expires_at.is_some_and(|at| at <= now_s) {
            return Verdict::Deny(Denial::not_authorized("what admits it has expired"));
        }
        if let Err(text) = self.after.apply(request, &mut identity, now_s) {
            return Verdict::Deny(text);
        }
        let ask = Ask { request, so_far: &identity, now_s };
        if let Some(bind) = stage.and_then(|stage| stage.bind())
            && let Err(denial) = bind.check(ask)
        {
            return Verdict::Deny(denial);
        }
        if let Some(username) = again
            && *username != identity.username
        {
            let text = "re-authentication as somebody else";
            return Verdict::Deny(Denial::not_authorized(text));
        }
        Verdict::Allow(Box::new(identity))
    }
}

/// Adds what an authenticator said to what is known. What was said later wins.
fn add(so_far: &mut Identity, more: Identity) -> Result<(), String> {
    so_far.username = more.username.or(so_far.username.take());
    so_far.client_id = more.client_id.or(so_far.client_id.take());
    so_far.superuser |= more.superuser;
    so_far.expires_at = match (so_far.expires_at, more.expires_at) {
        (Some(a), Some(b)) => Some(a.min(b)),
        (a, b) => a.or(b),
    };
    match (&mut so_far.rules, more.rules) {
        (Some(rules), Some(more)) => rules.append(more).map_err(|error| error.to_string())?,
        (none, more) => *none = none.take().or(more),
    }
    so_far.data = more.data.or(so_far.data.take());
    more.attributes.iter().try_for_each(|(name, value)| so_far.set_attribute(name, value))
}

fn unfit(stage: &str, text: &str) -> Verdict {
    let text = format!("{stage}: {text}");
    Verdict::Deny(Denial::new(ReasonCode::IMPLEMENTATION_SPECIFIC_ERROR, text))
}

/// A method as a source names it; unknown ones are all the same.
fn known(method: &str) -> &'static str {
    crate::sources::scram::METHODS
        .iter()
        .find(|known| **known == method)
        .copied()
        .unwrap_or_default()
}

#[cfg(test)]
mod tests;
