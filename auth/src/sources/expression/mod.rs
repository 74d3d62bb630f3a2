//! Rules about facts: `when` they hold, allow, deny, or set attributes. // AU14 AU17

mod condition;

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::Deserialize;

use super::registry::Build;
use crate::source::{Ask, Context, Decision, Pending, Source, Takes};
use crate::template::Template;
use crate::{Denial, Identity, Request};
use condition::When;

/// Each client may be held against all of them.
pub const RULES_MAX: usize = 1000;

/// `type = "expression"`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The rules, in the order in which they are tried.
    rules: Vec<Rule>,
}

/// One rule.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rule {
    /// What must hold, all of it; nothing holds always.
    #[serde(default)]
    when: When,
    /// What follows; without it the next rule is tried.
    #[serde(default)]
    then: Option<Then>,
    /// Attributes, from templates; one that lacks something is not set.
    #[serde(default)]
    set: BTreeMap<Box<str>, Template>,
    /// Whether access rules do not bind the client any more.
    #[serde(default)]
    superuser: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Then {
    Allow,
    Deny,
    Ignore,
}

/// Rules in order. Their conditions take time linear in what the client sent.
#[derive(Debug)]
pub(crate) struct Rules(Vec<Rule>);

impl Build for Config {
    fn build(&self, _: &Context) -> Result<Arc<dyn Source>, String> {
        if self.rules.is_empty() || self.rules.len() > RULES_MAX {
            return Err(format!("rules: there are {}, not 1 to {RULES_MAX}", self.rules.len()));
        }
        Ok(Arc::new(Rules::new(self.rules.clone())))
    }
}

impl Source for Rules {
    fn takes(&self) -> Takes {
        Takes::Facts
    }

    fn decide<'a>(&'a self, ask: Ask<'a>) -> Pending<'a, Decision> {
        // Templates see what rules before them have set; only what is new goes back.
        let mut identity = ask.so_far.clone();
        let outcome = self.walk(ask.request, &mut identity, ask.now_s);
        let more = Identity {
            superuser: identity.superuser,
            attributes: identity.attributes,
            ..Identity::default()
        };
        let decision = match outcome {
            Ok(Some(Then::Allow)) => Decision::Allow(Box::new(more)),
            Ok(_) => Decision::Add(Box::new(more)),
            Err(denial) => Decision::Deny(denial),
        };
        Box::pin(std::future::ready(decision))
    }
}

impl Rules {
    pub(crate) fn new(rules: Vec<Rule>) -> Self {
        Self(rules)
    }

    /// Applies them to a client that was admitted.
    ///
    /// # Errors
    /// When a rule denies it.
    pub(crate) fn apply(
        &self,
        request: &Request,
        identity: &mut Identity,
        now_s: u64,
    ) -> Result<(), Denial> {
        self.walk(request, identity, now_s).map(drop)
    }

    fn walk(
        &self,
        request: &Request,
        identity: &mut Identity,
        now_s: u64,
    ) -> Result<Option<Then>, Denial> {
        for (number, rule) in self.0.iter().enumerate() {
            if !rule.when.holds(Ask { request, so_far: identity, now_s }) {
                continue;
            }
            identity.superuser |= rule.superuser;
            for (name, template) in &rule.set {
                let value = template.fill(Ask { request, so_far: identity, now_s });
                if let Some(value) = value {
                    let set = identity.set_attribute(name, &value);
                    set.map_err(|error| Denial::not_authorized(format!("rule {number}: {error}")))?;
                }
            }
            match rule.then {
                None => {}
                Some(Then::Deny) => {
                    return Err(Denial::not_authorized(format!("rule {number} says so")));
                }
                then => return Ok(then),
            }
        }
        Ok(None)
    }
}

#[cfg(test)]
mod tests;
