//! From a configuration to chains.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use crate::Clock;
use crate::cache::Cache;
use crate::chain::{Chain, Deps, Stage};
use crate::config::{self, Config, ConfigError};
use crate::hashers::Hashers;
use crate::lockout::Lockout;
use crate::source::{Context, Source};
use crate::sources::expression::Rules;

/// Everything that a configuration asks for.
pub(super) struct Built {
    pub(super) deps: Deps,
    pub(super) lockout: Arc<Lockout>,
    settings: config::Settings,
    global: Chain,
    listeners: BTreeMap<u16, Chain>,
    /// Each stage with the entry it was made from.
    stages: Vec<(toml::Table, Arc<Stage>)>,
}

impl Built {
    /// Makes what is new, and keeps the stages of `before` whose entries are the same.
    pub(super) fn new(
        config: &Config,
        before: Option<&Self>,
        clock: &Clock,
    ) -> Result<Self, Vec<ConfigError>> {
        let settings = &config.settings;
        let wrong = |error| vec![ConfigError::new("auth", error)];
        let hashers = Arc::new(Hashers::start(&settings.hashing).map_err(wrong)?);
        let cache = Arc::new(Cache::new(settings.cache.clone()).map_err(wrong)?);
        // Whoever has to wait still has to after a reload.
        let lockout = match before.filter(|before| before.settings.lockout == settings.lockout) {
            Some(before) => Arc::clone(&before.lockout),
            None => Arc::new(Lockout::new(settings.lockout.clone()).map_err(wrong)?),
        };
        // Sources keep the workers that they were made with.
        let before = before.filter(|before| before.settings.hashing == settings.hashing);
        let context = Context::new(hashers);
        let after = Arc::new(Rules::new(settings.after.clone()));
        let mut maker = Maker { before, context, stages: Vec::new(), errors: Vec::new() };
        let global = maker.chain(&config.chain, "authentication", &after);
        let mut listeners = BTreeMap::new();
        for (number, chain) in &config.listeners {
            let place = format!("listeners[{number}].authentication");
            listeners.insert(*number, maker.chain(chain, &place, &after));
        }
        if !maker.errors.is_empty() {
            return Err(maker.errors);
        }
        let deps = Deps { clock: Arc::clone(clock), cache, cache_enabled: settings.cache.enabled };
        let settings = settings.clone();
        Ok(Self { deps, lockout, settings, global, listeners, stages: maker.stages })
    }

    pub(super) fn chain(&self, listener: u16) -> &Chain {
        self.listeners.get(&listener).unwrap_or(&self.global)
    }

    /// Does the upkeep of all sources now.
    pub(super) async fn refresh(&self, clock: &Clock) {
        for (_, stage) in &self.stages {
            if stage.source.upkeep_every_s().is_some() {
                upkeep(&*stage.source, &stage.name, clock).await;
            }
        }
    }

    /// Starts the upkeep of all sources that are not among those of `before`. Each ends with its source.
    pub(super) fn spawn_upkeep(&self, clock: &Clock, before: Option<&Self>) {
        for (_, stage) in &self.stages {
            let known = before.is_some_and(|before| {
                before.stages.iter().any(|(_, other)| Arc::ptr_eq(other, stage))
            });
            let Some(every_s) = stage.source.upkeep_every_s().filter(|_| !known) else { continue };
            let (source, name) = (Arc::downgrade(&stage.source), stage.name.clone());
            let clock = Arc::clone(clock);
            tokio::spawn(async move {
                while let Some(source) = source.upgrade() {
                    upkeep(&*source, &name, &clock).await;
                    drop(source);
                    tokio::time::sleep(Duration::from_secs(every_s.max(1))).await;
                }
            });
        }
    }
}

async fn upkeep(source: &dyn Source, name: &str, clock: &Clock) {
    if let Err(error) = source.upkeep(clock() / 1000).await {
        tracing::warn!(authenticator = name, "goes on with what it has: {error}");
    }
}

struct Maker<'a> {
    before: Option<&'a Built>,
    context: Context,
    stages: Vec<(toml::Table, Arc<Stage>)>,
    errors: Vec<ConfigError>,
}

impl Maker<'_> {
    fn chain(&mut self, chain: &config::Chain, place: &str, after: &Arc<Rules>) -> Chain {
        let mut stages = Vec::new();
        for (number, entry) in
            chain.entries.iter().enumerate().filter(|(_, entry)| entry.common.enabled)
        {
            match self.stage(entry) {
                Ok(stage) => stages.push(stage),
                Err(error) => {
                    let place = format!("{place}[{number}] ({})", entry.name);
                    self.errors.push(ConfigError::new(place, error));
                }
            }
        }
        Chain { allow_anonymous: chain.allow_anonymous, stages, after: Arc::clone(after) }
    }

    /// The same entry makes one stage, on however many listeners.
    fn stage(&mut self, entry: &config::Entry) -> Result<Arc<Stage>, String> {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        let before = self.before.map_or(&[][..], |before| &before.stages);
        let mut known = self.stages.iter().chain(before);
        if let Some((_, stage)) = known.find(|(table, _)| *table == entry.table) {
            let stage = Arc::clone(stage);
            self.stages.push((entry.table.clone(), Arc::clone(&stage)));
            return Ok(stage);
        }
        let source = entry.source.build(&self.context)?;
        let (id, name) = (NEXT.fetch_add(1, Relaxed), entry.name.clone());
        let stage = Arc::new(Stage::new(id, name, source, entry.common.clone()));
        self.stages.push((entry.table.clone(), Arc::clone(&stage)));
        Ok(stage)
    }
}
