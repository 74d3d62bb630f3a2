//! Which certificate for which server name. Row T04.

use std::collections::HashMap;
use std::sync::Arc;

use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;

use super::call;
use super::config::UnknownName;

/// Names of certificates; asked once per handshake. Never changes.
#[derive(Debug)]
pub(super) struct Names {
    default: Vec<Arc<CertifiedKey>>,
    exact: HashMap<String, Vec<Arc<CertifiedKey>>>,
    /// By what follows `*.`
    wildcard: HashMap<String, Vec<Arc<CertifiedKey>>>,
    unknown: UnknownName,
}

impl Names {
    /// `default` is for who names nothing, all of its kinds of keys.
    pub(super) fn new(unknown: UnknownName) -> Names {
        Names { default: Vec::new(), exact: HashMap::new(), wildcard: HashMap::new(), unknown }
    }

    /// `names` are in lower case, without a dot at the end.
    pub(super) fn add(&mut self, key: &Arc<CertifiedKey>, names: &[String]) {
        // Certificates that share a name with the first one are the default too, for clients that
        // can check only those.
        let shares = |default: &Arc<CertifiedKey>| {
            names.iter().any(|name| {
                self.of(name).is_some_and(|keys| keys.iter().any(|key| Arc::ptr_eq(key, default)))
            })
        };
        if self.default.first().is_none_or(shares) {
            self.default.push(Arc::clone(key));
        }
        for name in names {
            let map = if name.starts_with("*.") { &mut self.wildcard } else { &mut self.exact };
            let name = name.strip_prefix("*.").unwrap_or(name);
            map.entry(name.to_owned()).or_default().push(Arc::clone(key));
        }
    }

    /// Whether a certificate is for this name, or an unknown one does not matter.
    pub(super) fn serves(&self, name: &str) -> bool {
        self.unknown == UnknownName::Default || self.find(name).is_some()
    }

    fn of(&self, name: &str) -> Option<&Vec<Arc<CertifiedKey>>> {
        match name.strip_prefix("*.") {
            Some(rest) => self.wildcard.get(rest),
            None => self.exact.get(name),
        }
    }

    /// RFC 9525, section 6.3: the asterisk is the whole leftmost label, and one label.
    fn find(&self, name: &str) -> Option<&Vec<Arc<CertifiedKey>>> {
        self.exact
            .get(name)
            .or_else(|| name.split_once('.').and_then(|(_, rest)| self.wildcard.get(rest)))
    }
}

impl ResolvesServerCert for Names {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let keys = match hello.server_name() {
            None => &self.default,
            Some(name) => {
                let name = name.trim_end_matches('.').to_ascii_lowercase();
                call::note_server_name(&name);
                match (self.find(&name), self.unknown) {
                    (Some(keys), _) => keys,
                    (None, UnknownName::Default) => &self.default,
                    (None, UnknownName::Refuse) => return None,
                }
            }
        };
        let can_check =
            |key: &&Arc<CertifiedKey>| key.key.choose_scheme(hello.signature_schemes()).is_some();
        // None that it can check: rustls says so with the alert that belongs to it.
        keys.iter().find(can_check).or(keys.first()).cloned()
    }
}
