//! The client that a dry run is about.

use std::net::IpAddr;

use clap::Args;
use ringmain_acl::Subject;
use serde::Serialize;

use crate::config::{Config, Listener};

/// Who it is, as the operator says.
#[derive(Debug, Args)]
pub(crate) struct Who {
    /// Client identifier
    #[arg(long = "as", value_name = "CLIENT")]
    client_id: String,
    /// User name
    #[arg(long, value_name = "NAME")]
    user: Option<String>,
    /// Address that it connects from; without it, rules about addresses do not hold, and it is not local
    #[arg(long, value_name = "IP")]
    from: Option<IpAddr>,
    /// Name of the listener that it connects to, instead of the first one
    #[arg(long, value_name = "NAME")]
    listener: Option<String>,
    /// Common name in its certificate
    #[arg(long, value_name = "NAME")]
    cert_common_name: Option<String>,
    /// An attribute that authentication gave it; repeatable
    #[arg(long = "attribute", value_name = "NAME=VALUE")]
    attributes: Vec<String>,
    /// Authentication says that it is a superuser
    #[arg(long)]
    superuser: bool,
    /// List also the rules that were passed over, and why
    #[arg(short, long)]
    pub(super) verbose: bool,
    /// Print JSON
    #[arg(long)]
    pub(super) json: bool,
}

/// Who it is to the broker.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Client {
    pub(super) client_id: String,
    pub(super) username: Option<String>,
    pub(super) from: Option<IpAddr>,
    pub(super) listener: String,
    cert_common_name: Option<String>,
    attributes: Vec<(String, String)>,
    pub(super) superuser: bool,
}

impl Who {
    /// The listener, and whether it was named.
    pub(super) fn listener<'a>(&self, config: &'a Config) -> Result<(&'a Listener, bool), String> {
        let all = &config.listeners;
        let found = match &self.listener {
            Some(name) => all.iter().find(|l| l.name == *name),
            None => all.first(),
        };
        found.map(|listener| (listener, self.listener.is_some())).ok_or_else(|| {
            let names: Vec<&str> = all.iter().map(|l| &*l.name).collect();
            let wanted = self.listener.as_deref().unwrap_or_default();
            format!("there is no listener {wanted:?}; there is {}", names.join(", "))
        })
    }

    /// The client as that listener takes it.
    pub(super) fn client(&self, listener: &Listener) -> Result<Client, String> {
        let pair = |text: &String| {
            let pair =
                text.split_once('=').map(|(name, value)| (name.to_owned(), value.to_owned()));
            pair.ok_or_else(|| format!("--attribute {text}: expected NAME=VALUE"))
        };
        let client_id = match &self.user {
            Some(name) if listener.mqtt.use_username_as_client_id => name,
            _ => &self.client_id,
        };
        Ok(Client {
            client_id: client_id.clone(),
            username: self.user.clone(),
            from: self.from,
            listener: listener.name.clone(),
            cert_common_name: self.cert_common_name.clone(),
            attributes: self.attributes.iter().map(pair).collect::<Result<_, _>>()?,
            superuser: self.superuser,
        })
    }
}

impl Client {
    /// Its attributes, for [`Client::subject`].
    pub(super) fn attributes(&self) -> Vec<(&str, &str)> {
        self.attributes.iter().map(|(name, value)| (&**name, &**value)).collect()
    }

    /// Whom the rules are asked about.
    pub(super) fn subject<'a>(&'a self, attributes: &'a [(&'a str, &'a str)]) -> Subject<'a> {
        Subject {
            client_id: &self.client_id,
            username: self.username.as_deref(),
            peer: self.from,
            listener: &self.listener,
            cert_common_name: self.cert_common_name.as_deref(),
            attributes,
            superuser: self.superuser,
        }
    }
}
