//! The authenticators there are. A new one is a line here.

use std::fmt::Debug;
use std::sync::Arc;

use serde::de::DeserializeOwned;

use super::{certificate, client_ids, expression, jwt, scram, users};
use crate::config::{self, ConfigError, nearest};
use crate::source::{Context, Source};

const KINDS: &[(&str, Read)] = &[
    ("users", reads::<users::Config>),
    ("client_ids", reads::<client_ids::Config>),
    ("jwt", reads::<jwt::Config>),
    ("certificate", reads::<certificate::Config>),
    ("scram", reads::<scram::Config>),
    ("expression", reads::<expression::Config>),
];

/// The configuration of a source, from which it is made.
pub(crate) trait Build: Debug + Send + Sync {
    /// Makes the source, and reads what it needs for that.
    ///
    /// # Errors
    /// A sentence for the operator.
    fn build(&self, context: &Context) -> Result<Arc<dyn Source>, String>;
}

type Read = fn(toml::Table, &str, &[&str]) -> Result<Arc<dyn Build>, ConfigError>;

fn reads<T: Build + DeserializeOwned + 'static>(
    table: toml::Table,
    place: &str,
    also: &[&str],
) -> Result<Arc<dyn Build>, ConfigError> {
    Ok(Arc::new(config::read::<T>(table, place, also)?))
}

/// The values of `type`.
pub(crate) fn names() -> impl Iterator<Item = &'static str> {
    KINDS.iter().map(|(name, _)| *name)
}

/// Reads the keys of an authenticator of this type; `also` are keys that all types have.
pub(crate) fn read(
    kind: &str,
    table: toml::Table,
    place: &str,
    also: &[&str],
) -> Result<Arc<dyn Build>, ConfigError> {
    let Some((_, read)) = KINDS.iter().find(|(name, _)| *name == kind) else {
        let near = nearest(kind, names());
        let text = format!("\"{kind}\" is not an authenticator; nearest: \"{near}\"");
        return Err(ConfigError::new(format!("{place}.type"), text));
    };
    read(table, place, also)
}
