//! A list of client identifiers. // AU04

use std::collections::HashMap;
use std::sync::Arc;

use serde::Deserialize;

use super::registry::Build;
use crate::Denial;
use crate::password::Hash;
use crate::source::{Ask, Context, Decision, Inputs, Pending, Source, Takes};

/// Longer lists belong into the user database, with `by = "client_id"`.
pub const CLIENT_IDS_MAX: usize = 10_000;

/// `type = "client_ids"`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Client identifiers that are welcome without a password.
    #[serde(default)]
    pub allow: Vec<Box<str>>,
    /// Client identifiers that are welcome with their password, whose hash is given.
    #[serde(default)]
    pub passwords: HashMap<Box<str>, String>,
    /// What becomes of all others.
    #[serde(default)]
    pub others: Others,
}

/// What becomes of clients that are not on the list.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Others {
    /// They are refused.
    #[default]
    Deny,
    /// The next authenticator is asked.
    Ignore,
}

impl Build for Config {
    fn build(&self, context: &Context) -> Result<Arc<dyn Source>, String> {
        if self.allow.len() + self.passwords.len() > CLIENT_IDS_MAX {
            return Err(format!(
                "has more than {CLIENT_IDS_MAX} client identifiers: use type = \"users\" with \
                                by = \"client_id\""
            ));
        }
        let mut known: HashMap<Box<str>, Option<Hash>> =
            self.allow.iter().map(|id| (id.clone(), None)).collect();
        for (id, hash) in &self.passwords {
            let hash = hash.parse().map_err(|error| format!("passwords.{id}: {error}"))?;
            if known.insert(id.clone(), Some(hash)).is_some() {
                return Err(format!("\"{id}\" is in both allow and passwords: delete one"));
            }
        }
        if known.is_empty() {
            return Err("lists nobody: set allow or passwords".to_owned());
        }
        Ok(Arc::new(ClientIds { known, others: self.others, context: context.clone() }))
    }
}

/// Lives on: the service.
#[derive(Debug)]
struct ClientIds {
    known: HashMap<Box<str>, Option<Hash>>,
    others: Others,
    context: Context,
}

impl Source for ClientIds {
    fn takes(&self) -> Takes {
        Takes::Password
    }

    fn inputs(&self) -> Inputs {
        let slow = self.known.values().flatten().any(|hash| !hash.is_quick());
        if slow { Inputs::CLIENT_ID.and(Inputs::PASSWORD) } else { Inputs::NONE }
    }

    fn decide<'a>(&'a self, ask: Ask<'a>) -> Pending<'a, Decision> {
        Box::pin(async move {
            let allow = || Decision::Allow(Box::default());
            match self.known.get(ask.client_id()) {
                Some(None) => allow(),
                Some(Some(hash)) => {
                    let (hash, quick) = (hash.clone(), hash.is_quick());
                    let password = ask.request.password.clone().unwrap_or_default();
                    let check = move || hash.verify(&password);
                    let fits =
                        if quick { Ok(check()) } else { self.context.hashers.run(check).await };
                    match fits {
                        Ok(true) => allow(),
                        Ok(false) => Decision::Deny(Denial::credentials("the password is wrong")),
                        Err(_) => Decision::Busy,
                    }
                }
                None if self.others == Others::Ignore => Decision::Ignore,
                None => Decision::Deny(Denial::not_authorized(
                    "the client identifier is not on the list",
                )),
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture::{self, ask};

    fn decide(text: &str, id: &str, password: &str) -> Decision {
        let config: Config = toml::from_str(text).expect(text);
        let source = config.build(&fixture::context()).expect(text);
        fixture::run_real(source.decide(ask(&fixture::client(id, "", password))))
    }

    // AU04
    #[test]
    fn a_listed_client_is_admitted_and_an_unlisted_one_is_not() {
        let list = "allow = [\"a\"]\n[passwords]\nb = \"$plain$c2VjcmV0\"\n";
        assert!(matches!(decide(list, "a", ""), Decision::Allow(_)));
        assert!(matches!(decide(list, "b", "secret"), Decision::Allow(_)));
        assert!(matches!(decide(list, "b", ""), Decision::Deny(_)));
        assert!(matches!(decide(list, "b", "other"), Decision::Deny(_)));
        assert!(matches!(decide(list, "c", "secret"), Decision::Deny(_)));
        assert!(matches!(decide(list, "", ""), Decision::Deny(_)));
        let more = format!("others = \"ignore\"\n{list}");
        assert!(matches!(decide(&more, "c", ""), Decision::Ignore));
    }

    #[test]
    fn a_list_that_cannot_be_meant_is_refused() {
        for (text, says) in [
            ("", "lists nobody"),
            ("allow = [\"a\"]\npasswords = { a = \"$plain$YQ\" }", "in both"),
            ("passwords = { a = \"secret\" }", "passwords.a: a password hash begins with $"),
        ] {
            let config: Config = toml::from_str(text).expect(text);
            let error = config.build(&fixture::context()).expect_err(text);
            assert!(error.contains(says), "{text}: {error}");
        }
    }
}
