//! Which client identifiers a client may have: a valid login must not take over somebody else's session.

use std::str::FromStr;

use serde::{Deserialize, Deserializer};

use crate::Denial;
use crate::source::Ask;
use crate::template::Template;

/// A template that the client identifier must be, or begin with if it ends in `*`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Bind {
    template: Template,
    prefix: bool,
}

impl Bind {
    /// Whether the client may have its identifier.
    ///
    /// # Errors
    /// 0x87 when it may not.
    pub(crate) fn check(&self, ask: Ask<'_>) -> Result<(), Denial> {
        let id = ask.client_id();
        let fits = self.template.fill(ask).is_some_and(|expected| match self.prefix {
            true => id.starts_with(&expected),
            false => id == expected,
        });
        match fits {
            true => Ok(()),
            false => {
                let template = &self.template;
                let star = if self.prefix { "*" } else { "" };
                Err(Denial::not_authorized(format!(
                    "the client identifier is not what bind_client_id = {template:?}{star} asks for"
                )))
            }
        }
    }
}

impl FromStr for Bind {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (text, prefix) = match text.strip_suffix('*') {
            Some(text) => (text, true),
            None => (text, false),
        };
        if text.is_empty() {
            return Err("bind_client_id binds nothing: write \"${username}\" or \"${username}-*\""
                .to_owned());
        }
        Ok(Self { template: text.parse()?, prefix })
    }
}

impl<'de> Deserialize<'de> for Bind {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture::{self, ask};

    // AU10
    #[test]
    fn a_star_is_only_a_star_where_the_operator_wrote_it() {
        let bind: Bind = "${username}-*".parse().expect("a binding");
        for (id, user, fits) in [
            ("a-1", "a", true),
            ("a-", "a", true),
            ("b-1", "a", false),
            ("b-1", "*", false),
            ("a", "a", false),
        ] {
            assert_eq!(
                bind.check(ask(&fixture::client(id, user, ""))).is_ok(),
                fits,
                "{id} {user}"
            );
        }
        let exact: Bind = "${username}".parse().expect("a binding");
        assert!(exact.check(ask(&fixture::client("a", "a", ""))).is_ok());
        assert!(exact.check(ask(&fixture::client("ab", "a", ""))).is_err());
        assert!(exact.check(ask(&fixture::client("ab", "*", ""))).is_err());
        assert!("*".parse::<Bind>().is_err());
    }
}
