//! The configuration: `[auth]`, and `[[authentication]]` for the chain.

mod read;

use std::collections::BTreeMap;
use std::fmt;

use ipnet::IpNet;
use serde::Deserialize;

use crate::bind::Bind;
use crate::sources::expression::Rule;
use crate::sources::registry::{self, Build};

pub(crate) use read::{nearest, read};

/// Longest chain: a client may have to pass all of it.
pub const CHAIN_MAX: usize = 32;

/// Everything about authentication.
#[derive(Clone, Debug, Default)]
pub struct Config {
    /// `[auth]`.
    pub settings: Settings,
    /// `[[authentication]]`: for listeners without a chain of their own.
    pub chain: Chain,
    /// `[[listeners.authentication]]`, by number of the listener.
    pub listeners: BTreeMap<u16, Chain>,
}

/// The authenticators of a listener, in the order in which they are asked.
#[derive(Clone, Debug, Default)]
pub struct Chain {
    /// Whether a client that no authenticator knows is admitted. // AU02
    pub allow_anonymous: bool,
    /// The authenticators.
    pub entries: Vec<Entry>,
}

/// One authenticator.
#[derive(Clone, Debug)]
pub struct Entry {
    pub(crate) name: Box<str>,
    pub(crate) common: Common,
    pub(crate) source: std::sync::Arc<dyn Build>,
    /// As it was written: an entry that a reload does not change keeps what it has learned.
    pub(crate) table: toml::Table,
}

/// `[auth]`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Settings {
    /// Whether a client that no authenticator knows is admitted.
    pub allow_anonymous: bool,
    /// Requests that wait for the service; 1 to 1,000,000. A request holds a few hundred bytes.
    pub queue_max: usize,
    /// `[auth.cache]`.
    pub cache: Cache,
    /// `[auth.lockout]`.
    pub lockout: Lockout,
    /// `[auth.hashing]`.
    pub hashing: Hashing,
    /// `[[auth.after]]`: rules that look at clients that an authenticator has admitted. // AU17
    pub(crate) after: Vec<Rule>,
}

/// What is remembered of decisions.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Cache {
    /// Whether anything is.
    pub enabled: bool,
    /// How long an admission holds, in seconds; never longer than the token.
    pub ttl_s: u64,
    /// How long a refusal holds, in seconds; 0: not at all.
    pub negative_ttl_s: u64,
    /// Entries, of some 200 bytes; beyond it the least recently used is forgotten.
    pub max_entries: usize,
}

/// When somebody who guesses has to wait.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Lockout {
    /// Failures of one user name from one address; 0: no limit.
    pub failures_per_user: u32,
    /// Failures from one address (IPv6: one /64), whoever it claims to be; 0: no limit.
    pub failures_per_address: u32,
    /// Seconds within which they count.
    pub window_s: u64,
    /// Seconds until the next attempt is looked at.
    pub lock_s: u64,
    /// Addresses for which there is no limit, such as load balancers that do not say who is behind them.
    pub exempt: Vec<IpNet>,
    /// Entries, of some 100 bytes; beyond it the least recently used is forgotten.
    pub max_entries: usize,
}

/// Threads for password hashes.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Hashing {
    /// Threads; 1 to 64. An Argon2id hash of the default takes one some 30 ms (`examples/hashes.rs`), and 19 MiB.
    pub workers: usize,
    /// Hashes that wait for a worker; 1 to 65,536. Beyond it a client is told that the server is busy.
    pub queue_max: usize,
}

/// Keys that every `[[authentication]]` has.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Common {
    pub(crate) name: Option<Box<str>>,
    pub(crate) enabled: bool,
    /// How long it may take.
    pub(crate) timeout_ms: u64,
    /// Requests inside it, the ones that wait for the same question included.
    pub(crate) max_in_flight: usize,
    /// What becomes of a client when it cannot find out.
    pub(crate) on_failure: OnFailure,
    /// Which client identifiers an admitted client may have. // AU10
    pub(crate) bind_client_id: Option<Bind>,
    /// Whether its decisions are remembered.
    pub(crate) cache: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum OnFailure {
    Deny,
    Ignore,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            allow_anonymous: false,
            queue_max: 65_536,
            cache: Cache::default(),
            lockout: Lockout::default(),
            hashing: Hashing::default(),
            after: Vec::new(),
        }
    }
}

impl Default for Cache {
    fn default() -> Self {
        Self { enabled: true, ttl_s: 60, negative_ttl_s: 5, max_entries: 100_000 }
    }
}

impl Default for Lockout {
    fn default() -> Self {
        Self {
            failures_per_user: 10,
            failures_per_address: 100,
            window_s: 60,
            lock_s: 60,
            exempt: Vec::new(),
            max_entries: 100_000,
        }
    }
}

impl Default for Hashing {
    fn default() -> Self {
        // 128 hashes of 30 ms are most of the time that a client is given.
        Self { workers: 1, queue_max: 128 }
    }
}

impl Default for Common {
    fn default() -> Self {
        Self {
            name: None,
            enabled: true,
            timeout_ms: 5_000,
            max_in_flight: 1_024,
            on_failure: OnFailure::Deny,
            bind_client_id: None,
            cache: true,
        }
    }
}

/// What is wrong with a configuration, and where.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct ConfigError {
    /// The key, such as `authentication[0].file`; entries count from 0.
    pub place: String,
    /// What to do about it.
    pub text: String,
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.place, self.text)
    }
}

impl ConfigError {
    pub(crate) fn new(place: impl Into<String>, text: impl Into<String>) -> Self {
        Self { place: place.into(), text: text.into() }
    }
}

impl Config {
    /// Reads a file that has nothing but authentication in it: `[auth]` and `[[authentication]]`.
    ///
    /// # Errors
    /// All that is wrong.
    pub fn parse(text: &str) -> Result<Self, Vec<ConfigError>> {
        let table: toml::Table = text.parse().map_err(|error: toml::de::Error| {
            vec![ConfigError::new("the file", error.to_string())]
        })?;
        for key in table.keys() {
            if !["auth", "authentication"].contains(&key.as_str()) {
                let near = nearest(key, ["auth", "authentication"].into_iter());
                let text = format!("unknown key; nearest valid key: {near}");
                return Err(vec![ConfigError::new(key, text)]);
            }
        }
        Self::read(&table)
    }

    /// Reads `auth` and `authentication` of the whole configuration. Chains of listeners are added with
    /// [`Chain::read`].
    ///
    /// # Errors
    /// All that is wrong.
    pub fn read(table: &toml::Table) -> Result<Self, Vec<ConfigError>> {
        let settings = match table.get("auth") {
            Some(value) => Settings::read(value),
            None => Ok(Settings::default()),
        };
        let none = toml::Value::Array(Vec::new());
        let entries = table.get("authentication").unwrap_or(&none);
        let anonymous = settings.as_ref().is_ok_and(|settings| settings.allow_anonymous);
        match (settings, Chain::read(entries, "authentication", anonymous)) {
            (Ok(settings), Ok(chain)) => Ok(Self { settings, chain, listeners: BTreeMap::new() }),
            (settings, chain) => {
                let mut errors: Vec<ConfigError> = settings.err().into_iter().collect();
                errors.extend(chain.err().into_iter().flatten());
                Err(errors)
            }
        }
    }
}

impl Config {
    /// Whether a listener has nobody to ask: all its clients are admitted, as anonymous ones.
    #[must_use]
    pub fn admits_everybody(&self, listener: u16) -> bool {
        let chain = self.listeners.get(&listener).unwrap_or(&self.chain);
        let asks = chain.entries.iter().any(|entry| entry.common.enabled);
        chain.allow_anonymous && !asks && self.settings.after.is_empty()
    }
}

impl Settings {
    fn read(value: &toml::Value) -> Result<Self, ConfigError> {
        let table = value.as_table().ok_or_else(|| ConfigError::new("auth", "must be a table"))?;
        let settings: Self = read(table.clone(), "auth", &[])?;
        let within =
            |place: &str, value: u64, min: u64, max: u64| match (min..=max).contains(&value) {
                true => Ok(()),
                false => {
                    Err(ConfigError::new(place, format!("{value} is not between {min} and {max}")))
                }
            };
        within("auth.queue_max", settings.queue_max as u64, 1, 1_000_000)?;
        within("auth.hashing.workers", settings.hashing.workers as u64, 1, 64)?;
        within("auth.hashing.queue_max", settings.hashing.queue_max as u64, 1, 65_536)?;
        within("auth.cache.max_entries", settings.cache.max_entries as u64, 1, 100_000_000)?;
        within("auth.cache.ttl_s", settings.cache.ttl_s, 1, 86_400)?;
        within("auth.cache.negative_ttl_s", settings.cache.negative_ttl_s, 0, 86_400)?;
        within("auth.lockout.max_entries", settings.lockout.max_entries as u64, 1, 100_000_000)?;
        within("auth.lockout.window_s", settings.lockout.window_s, 1, 86_400)?;
        within("auth.lockout.lock_s", settings.lockout.lock_s, 1, 31_536_000)?;
        Ok(settings)
    }
}

impl Chain {
    /// Reads a list of authenticators, which stands at `place` of the configuration.
    ///
    /// # Errors
    /// All that is wrong.
    pub fn read(
        entries: &toml::Value,
        place: &str,
        allow_anonymous: bool,
    ) -> Result<Self, Vec<ConfigError>> {
        let Some(list) = entries.as_array() else {
            let text = format!("must be a list of tables: write [[{place}]]");
            return Err(vec![ConfigError::new(place, text)]);
        };
        if list.len() > CHAIN_MAX {
            let text = format!("has {} authenticators, more than {CHAIN_MAX}", list.len());
            return Err(vec![ConfigError::new(place, text)]);
        }
        let (mut entries, mut errors) = (Vec::<Entry>::new(), Vec::new());
        for (number, value) in list.iter().enumerate() {
            match Entry::read(value, &format!("{place}[{number}]")) {
                Ok(entry) if entries.iter().any(|other| other.name == entry.name) => {
                    let text = format!(
                        "another authenticator is called \"{}\" too: give it a name",
                        entry.name
                    );
                    errors.push(ConfigError::new(format!("{place}[{number}].name"), text));
                }
                Ok(entry) => entries.push(entry),
                Err(error) => errors.push(error),
            }
        }
        if errors.is_empty() { Ok(Self { allow_anonymous, entries }) } else { Err(errors) }
    }
}

impl Entry {
    fn read(value: &toml::Value, place: &str) -> Result<Self, ConfigError> {
        let table = value.as_table().ok_or_else(|| ConfigError::new(place, "must be a table"))?;
        let kind = table.get("type").and_then(toml::Value::as_str).ok_or_else(|| {
            let known: Vec<&str> = registry::names().collect();
            let text = format!("is missing: one of {}", known.join(", "));
            ConfigError::new(format!("{place}.type"), text)
        })?;
        let known = read::keys::<Common>();
        let (mut common, mut own) = (toml::Table::new(), toml::Table::new());
        for (key, value) in table.iter().filter(|(key, _)| *key != "type") {
            let target = if known.contains(key) { &mut common } else { &mut own };
            target.insert(key.clone(), value.clone());
        }
        let common: Common = read(common, place, &[])?;
        if common.timeout_ms == 0 || common.timeout_ms > 60_000 {
            let text = "is not between 1 and 60000";
            return Err(ConfigError::new(format!("{place}.timeout_ms"), text));
        }
        if common.max_in_flight == 0 || common.max_in_flight > 1_000_000 {
            let text = "is not between 1 and 1000000";
            return Err(ConfigError::new(format!("{place}.max_in_flight"), text));
        }
        let also: Vec<&str> = known.iter().map(String::as_str).collect();
        let source = registry::read(kind, own, place, &also)?;
        let name = common.name.clone().unwrap_or_else(|| kind.into());
        Ok(Self { name, common, source, table: table.clone() })
    }
}

#[cfg(test)]
mod tests;
