//! From the rules of the configuration to the policy that the shards hold.

use std::sync::Arc;

use ringmain_acl::{ClientRulesOrder, Effect, Policy, Settings, Source};

use crate::config::{Authorization, ClientRules, NoMatch};

/// The policy that holds, and what it was made from. Its epochs only grow.
#[derive(Debug)]
pub(crate) struct Rules {
    of: Authorization,
    policy: Arc<Policy>,
}

impl Rules {
    /// The rules of a broker that starts.
    pub(crate) fn new(of: &Authorization) -> Self {
        Self { of: of.clone(), policy: compile(1, of) }
    }

    /// The policy.
    pub(crate) fn policy(&self) -> &Arc<Policy> {
        &self.policy
    }

    /// Holds to `of` from now on; a new policy only if it differs, since each one costs every
    /// connection a look at its subscriptions. Says whether it did.
    pub(crate) fn follow(&mut self, of: &Authorization) -> bool {
        if *of == self.of {
            return false;
        }
        *self = Self { of: of.clone(), policy: compile(self.policy.epoch() + 1, of) };
        true
    }
}

/// Without files the policy of a fresh installation. (AZ09)
fn compile(epoch: u64, of: &Authorization) -> Arc<Policy> {
    // Taken apart without `..`, as in plane/convert.rs: no key does nothing.
    let Authorization { files, no_match, client_rules, cache_places: _, rules } = of; // the engine's
    let sources = match files.is_empty() {
        true => vec![Source::default_policy()],
        false => rules.sources().cloned().collect(),
    };
    let no_match = match no_match {
        NoMatch::Allow => Effect::Allow,
        NoMatch::Deny => Effect::Deny,
    };
    let client_rules = match client_rules {
        ClientRules::First => ClientRulesOrder::First,
        ClientRules::Last => ClientRulesOrder::Last,
    };
    Policy::compile(epoch, sources, Settings { no_match, client_rules })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_policy_gets_a_new_epoch_if_and_only_if_something_differs() {
        // AZ06
        let mut rules = Rules::new(&Authorization::default());
        let first = Arc::clone(rules.policy());
        assert!(!rules.follow(&Authorization::default()));
        assert!(Arc::ptr_eq(rules.policy(), &first));
        let allow = Authorization { no_match: NoMatch::Allow, ..Authorization::default() };
        assert!(rules.follow(&allow));
        assert!(rules.policy().epoch() > first.epoch());
        let second = rules.policy().epoch();
        assert!(rules.follow(&Authorization::default()), "back again");
        assert!(rules.policy().epoch() > second, "an epoch is used once");
    }
}
