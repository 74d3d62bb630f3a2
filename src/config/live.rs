//! What a reload may change.

use super::schema::{Listener, Mqtt};
use super::section::{Reload, Section, SectionInfo};
use super::{Config, authorization};

/// A key with another value, both as TOML.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyChange {
    /// The key; of a listener `listeners.<name>.<key>`.
    pub key: String,
    /// Before; empty for an override that was not there.
    pub old: String,
    /// After; empty for an override that is gone.
    pub new: String,
}

/// What differs between two configurations, all of which can change while the broker runs.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LiveChanges {
    /// The keys that differ.
    pub keys: Vec<KeyChange>,
}

impl LiveChanges {
    /// Whether nothing differs.
    pub fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    /// Whether a key of this section differs.
    pub fn touches(&self, section: &str) -> bool {
        self.keys.iter().any(|change| {
            change.key.strip_prefix(section).is_some_and(|rest| rest.starts_with('.'))
        })
    }
}

/// A key that differs and takes effect only when the broker starts.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{} needs a restart: {} -> {}", .0.key, .0.old, .0.new)]
pub struct KeyNeedsRestart(pub KeyChange);

pub(super) fn diff(old: &Config, new: &Config) -> Result<LiveChanges, Vec<KeyNeedsRestart>> {
    let mut diff = Diff::default();
    for (name, info) in Config::SECTIONS {
        if let (Some(old), Some(new)) = (old.section(name), new.section(name)) {
            diff.section(name, info, old, new, &|_| true);
        }
    }
    diff.live.keys.extend(authorization::changes(&old.authorization, &new.authorization));
    if old.authentication != new.authentication {
        let (old, new) = (old.authentication.summary(), new.authentication.summary());
        diff.live.keys.push(KeyChange { key: "authentication".to_owned(), old, new });
    }
    for listener in &old.listeners {
        match new.listeners.iter().find(|other| other.name == listener.name) {
            Some(other) => diff.listener(listener, other),
            None => diff.listener_set(listener, listener.url.to_string(), String::new()),
        }
    }
    for listener in &new.listeners {
        if !old.listeners.iter().any(|other| other.name == listener.name) {
            diff.listener_set(listener, String::new(), listener.url.to_string());
        }
    }
    if diff.restart.is_empty() { Ok(diff.live) } else { Err(diff.restart) }
}

#[derive(Default)]
struct Diff {
    live: LiveChanges,
    restart: Vec<KeyNeedsRestart>,
}

impl Diff {
    fn section(
        &mut self,
        name: &str,
        info: &SectionInfo,
        old: &dyn Section,
        new: &dyn Section,
        relevant: &dyn Fn(&str) -> bool,
    ) {
        for key in info.keys.iter().filter(|key| relevant(key.name)) {
            let (old, new) = (old.toml(key.name), new.toml(key.name));
            if old != new {
                let change = KeyChange { key: format!("{name}.{}", key.name), old, new };
                match key.reload {
                    Reload::Live => self.live.keys.push(change),
                    Reload::Restart => self.restart.push(KeyNeedsRestart(change)),
                }
            }
        }
    }

    fn listener(&mut self, old: &Listener, new: &Listener) {
        let prefix = format!("listeners.{}", old.name);
        self.section(&prefix, &Listener::INFO, old, new, &|_| true);
        // What [mqtt] changes for all listeners is reported once, there.
        let overrides =
            |key: &str| old.mqtt_overrides.contains(key) || new.mqtt_overrides.contains(key);
        self.section(&format!("{prefix}.mqtt"), &Mqtt::INFO, &old.mqtt, &new.mqtt, &overrides);
    }

    fn listener_set(&mut self, listener: &Listener, old: String, new: String) {
        let key = format!("listeners.{}", listener.name);
        self.restart.push(KeyNeedsRestart(KeyChange { key, old, new }));
    }
}
