//! From the claims of a token to an identity.

use serde_json::{Map, Value};

use super::{Config, From, acl};
use crate::source::{Ask, Decision};
use crate::template::Template;
use crate::{Denial, Identity};

/// Decides by claims whose signature was verified.
pub(super) fn judge(config: &Config, claims: &Map<String, Value>, ask: Ask<'_>) -> Decision {
    match identity(config, claims, ask) {
        Ok(identity) => Decision::Allow(Box::new(identity)),
        Err(denial) => Decision::Deny(denial),
    }
}

fn identity(
    config: &Config,
    claims: &Map<String, Value>,
    ask: Ask<'_>,
) -> Result<Identity, Denial> {
    let deny = |text: String| Denial::not_authorized(text);
    let expires_at = times(config, claims, ask.now_s).map_err(deny)?;
    for (claim, expected) in &config.verify_claims {
        verify(claims.get(claim), expected, ask)
            .map_err(|error| deny(format!("the claim \"{claim}\" {error}")))?;
    }
    let text = |claim: &Option<String>| match claim {
        None => Ok(None),
        Some(claim) => match claims.get(claim).and_then(as_text).filter(|text| !text.is_empty()) {
            Some(text) => Ok(Some(text.into())),
            None => Err(deny(format!("the claim \"{claim}\" is missing"))),
        },
    };
    let mut identity = Identity {
        username: text(&config.username_claim)?,
        client_id: text(&config.client_id_claim)?,
        superuser: config
            .superuser_claim
            .as_ref()
            .is_some_and(|claim| claims.get(claim).and_then(Value::as_bool).unwrap_or_default()),
        expires_at,
        ..Identity::default()
    };
    // A token is a secret: it must not go on as the name of somebody.
    if config.from == From::Username && identity.username.is_none() {
        let text = "the token is in the user name: set username_claim, which becomes the user name instead";
        return Err(deny(text.to_owned()));
    }
    for (name, claim) in &config.attributes {
        if let Some(value) = claims.get(claim).and_then(as_text) {
            identity.set_attribute(name, &value).map_err(deny)?;
        }
    }
    if let Some(rules) = claims.get(&config.acl_claim).filter(|_| !config.acl_claim.is_empty()) {
        let claim = &config.acl_claim;
        let rules =
            acl::read(rules).map_err(|error| deny(format!("the claim \"{claim}\": {error}")))?;
        identity.rules = Some(rules);
    }
    Ok(identity)
}

/// Checks `exp`, `nbf` and `iat` (RFC 7519 4.1); returns when the connection has to end.
fn times(config: &Config, claims: &Map<String, Value>, now_s: u64) -> Result<Option<u64>, String> {
    let time = |claim: &str| match claims.get(claim) {
        None | Some(Value::Null) => Ok(None),
        // NumericDate may have a fraction.
        Some(value) => match value.as_f64().filter(|time| (0.0..1e15).contains(time)) {
            Some(time) => Ok(Some(time as u64)),
            None => Err(format!("the claim \"{claim}\" is not a time")),
        },
    };
    let leeway_s = config.leeway_s;
    let expires_at = time("exp")?.map(|at| at.saturating_add(leeway_s));
    match expires_at {
        Some(at) if at <= now_s => return Err("the token has expired".to_owned()),
        None if config.require_exp => {
            return Err("the token has no \"exp\" (see require_exp)".to_owned());
        }
        _ => {}
    }
    for claim in ["nbf", "iat"] {
        if time(claim)?.is_some_and(|at| at > now_s.saturating_add(leeway_s)) {
            return Err(format!("the token is not valid yet (\"{claim}\")"));
        }
    }
    Ok(expires_at)
}

fn verify(value: Option<&Value>, expected: &Template, ask: Ask<'_>) -> Result<(), String> {
    let value = value.ok_or("is missing")?;
    let expected = expected.fill(ask).ok_or("is compared with something that the client lacks")?;
    let is = |value: &Value| as_text(value).is_some_and(|text| text == expected);
    let fits = match value {
        Value::Array(list) => list.iter().any(is),
        value => is(value),
    };
    if fits { Ok(()) } else { Err("is not what verify_claims asks for".to_owned()) }
}

fn as_text(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        Value::Bool(flag) => Some(flag.to_string()),
        Value::Null | Value::Array(_) | Value::Object(_) => None,
    }
}
