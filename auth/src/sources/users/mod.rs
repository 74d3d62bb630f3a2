//! User name or client identifier, and password, from the user database. // AU03

use std::path::PathBuf;
use std::sync::Arc;

use serde::Deserialize;

use super::registry::Build;
use crate::hashers::{Full, Hashers};
use crate::password::Hash;
use crate::source::{Ask, Context, Decision, Inputs, Pending, Source, Takes};
use crate::users::{By, Database, Record};
use crate::{Denial, Identity};

/// `type = "users"`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The file.
    pub file: PathBuf,
    /// What users are looked up by.
    #[serde(default)]
    pub by: By,
    /// Seconds between looks whether the file has changed.
    #[serde(default = "reload_interval_s")]
    pub reload_interval_s: u64,
}

fn reload_interval_s() -> u64 {
    2
}

impl Build for Config {
    fn build(&self, context: &Context) -> Result<Arc<dyn Source>, String> {
        Ok(Arc::new(Users {
            users: context.database(&self.file)?,
            by: self.by,
            every_s: self.reload_interval_s,
            hashers: Arc::clone(&context.hashers),
        }))
    }
}

/// Lives on: the service. An unknown user costs as much as a wrong password. // AU16
#[derive(Debug)]
struct Users {
    users: Arc<Database>,
    by: By,
    every_s: u64,
    hashers: Arc<Hashers>,
}

impl Source for Users {
    fn takes(&self) -> Takes {
        Takes::Password
    }

    fn inputs(&self) -> Inputs {
        let name = match self.by {
            By::Username => Inputs::USERNAME,
            By::ClientId => Inputs::CLIENT_ID,
        };
        name.and(Inputs::PASSWORD)
    }

    fn generation(&self) -> u64 {
        self.users.generation()
    }

    fn decide<'a>(&'a self, ask: Ask<'a>) -> Pending<'a, Decision> {
        Box::pin(async move {
            let name = match self.by {
                By::Username => ask.username(),
                By::ClientId => Some(ask.client_id()).filter(|id| !id.is_empty()),
            };
            let Some(name) = name else { return Decision::Ignore };
            let users = self.users.users();
            let user = users.get(self.by, name);
            let hash = user.as_ref().and_then(|user| user.hash.as_ref()).or(users.dummy());
            let password = ask.request.password.clone().unwrap_or_default();
            let Ok(fits) = self.verify(hash.cloned(), password).await else {
                return Decision::Busy;
            };
            match user {
                None => Decision::Ignore,
                Some(user) if user.hash.is_some() && fits => admit(&user),
                Some(_) => Decision::Deny(Denial::credentials("the password is wrong")),
            }
        })
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

impl Users {
    async fn verify(&self, hash: Option<Hash>, password: Box<[u8]>) -> Result<bool, Full> {
        match hash {
            None => Ok(false),
            Some(hash) if hash.is_quick() => Ok(hash.verify(&password)),
            Some(hash) => self.hashers.run(move || hash.verify(&password)).await,
        }
    }
}

fn admit(user: &Record) -> Decision {
    let mut identity = Identity { superuser: user.superuser, ..Identity::default() };
    let attributes = user.attributes.iter();
    identity.attributes = attributes.map(|(name, value)| (name.clone(), value.clone())).collect();
    Decision::Allow(Box::new(identity))
}

#[cfg(test)]
mod tests;
