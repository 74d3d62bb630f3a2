//! What was decided a moment ago, and what is being decided. // AU15

use std::collections::HashMap;
use std::num::NonZeroUsize;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use lru::LruCache;
use tokio::sync::watch;

use crate::config;
use crate::password::{Mac, random};
use crate::source::{Ask, Decision, Inputs};

/// A keyed hash of all that a decision depends on: nobody can tell a password from it.
type Key = [u8; 32];

/// Lives on: the service. At most one question with the same inputs is under way per authenticator.
#[derive(Debug)]
pub(crate) struct Cache {
    secret: [u8; 32],
    config: config::Cache,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    known: LruCache<Key, Known>,
    /// Bounded by what is in flight in all authenticators.
    flights: HashMap<Key, watch::Receiver<Option<Decision>>>,
    /// Counts drains: what was asked before one is not remembered after it.
    epoch: u64,
}

#[derive(Clone, Debug)]
struct Known {
    decision: Decision,
    until_ms: u64,
}

/// What the cache has to say.
#[derive(Debug)]
pub(crate) enum Found {
    /// The decision.
    Known(Decision),
    /// Nobody knows: find out, and tell the guard.
    Nobody(Flight),
    /// Somebody is finding out.
    Somebody(watch::Receiver<Option<Decision>>),
}

/// A question under way. Whoever waits for it hears the answer, or that it was given up.
#[derive(Debug)]
pub(crate) struct Flight {
    cache: Arc<Cache>,
    key: Key,
    epoch: u64,
    told: watch::Sender<Option<Decision>>,
}

impl Cache {
    /// An empty cache.
    ///
    /// # Errors
    /// When the system gives no random bytes.
    pub(crate) fn new(config: config::Cache) -> Result<Self, String> {
        let state = State { known: LruCache::unbounded(), flights: HashMap::new(), epoch: 0 };
        Ok(Self { secret: random()?, config, state: Mutex::new(state) })
    }

    /// What is known of a question, which `scope` and `generation` tell from those for other authenticators.
    pub(crate) fn look(
        self: &Arc<Self>,
        scope: u64,
        generation: u64,
        inputs: Inputs,
        ask: Ask<'_>,
        now_ms: u64,
    ) -> Found {
        let key = self.key(scope, generation, inputs, ask);
        let mut state = self.lock();
        if let Some(known) = state.known.get(&key) {
            if known.until_ms > now_ms {
                return Found::Known(known.decision.clone());
            }
            state.known.pop(&key);
        }
        if let Some(flight) = state.flights.get(&key) {
            return Found::Somebody(flight.clone());
        }
        let (told, hears) = watch::channel(None);
        state.flights.insert(key, hears);
        let epoch = state.epoch;
        drop(state);
        Found::Nobody(Flight { cache: Arc::clone(self), key, epoch, told })
    }

    /// Forgets everything; questions under way are not remembered either.
    pub(crate) fn drain(&self) -> usize {
        let mut state = self.lock();
        let forgotten = state.known.len();
        // Not clear(): that keeps the memory.
        state.known = LruCache::unbounded();
        state.flights.clear();
        state.epoch += 1;
        forgotten
    }

    /// How many decisions are remembered.
    pub(crate) fn len(&self) -> usize {
        self.lock().known.len()
    }

    fn key(&self, scope: u64, generation: u64, inputs: Inputs, ask: Ask<'_>) -> Key {
        let mut text = Vec::with_capacity(256);
        text.extend_from_slice(&scope.to_le_bytes());
        text.extend_from_slice(&generation.to_le_bytes());
        // Length first, and absent is not empty: no two questions have the same text.
        let mut add = |input, part: Option<&[u8]>| {
            let part = part.filter(|_| inputs.has(input));
            let length = part.map_or(u64::MAX, |part| part.len() as u64);
            text.extend_from_slice(&length.to_le_bytes());
            text.extend_from_slice(part.unwrap_or_default());
        };
        // As sent and as it stands: sources look at either.
        add(Inputs::CLIENT_ID, Some(ask.request.client_id.as_bytes()));
        add(Inputs::CLIENT_ID, Some(ask.client_id().as_bytes()));
        add(Inputs::USERNAME, ask.request.username.as_deref().map(str::as_bytes));
        add(Inputs::USERNAME, ask.username().map(str::as_bytes));
        add(Inputs::PASSWORD, ask.request.password.as_deref());
        add(Inputs::PEER, Some(ask.request.peer.to_string().as_bytes()));
        add(Inputs::CERTIFICATE, ask.request.certificate.as_ref().map(|known| &*known.der));
        for (name, value) in &ask.so_far.attributes {
            add(Inputs::ATTRIBUTES, Some(name.as_bytes()));
            add(Inputs::ATTRIBUTES, Some(value.as_bytes()));
        }
        let code = Mac::Sha256.code(&self.secret, &[&text]);
        text.fill(0);
        let mut key = Key::default();
        key.copy_from_slice(&code);
        key
    }

    fn remember(&self, key: Key, decision: &Decision, now_ms: u64) {
        let ttl_s = match decision {
            Decision::Allow(_) | Decision::Add(_) => self.config.ttl_s,
            Decision::Deny(_) | Decision::Ignore => self.config.negative_ttl_s,
            Decision::Challenge { .. } | Decision::Failed(_) | Decision::Busy => return,
        };
        let mut until_ms = now_ms + ttl_s * 1000;
        if let Decision::Allow(identity) = decision
            && let Some(expires_at) = identity.expires_at
        {
            until_ms = until_ms.min(expires_at.saturating_mul(1000));
        }
        if until_ms <= now_ms {
            return;
        }
        let mut state = self.lock();
        let max = NonZeroUsize::new(self.config.max_entries).map_or(1, NonZeroUsize::get);
        while state.known.len() >= max {
            state.known.pop_lru();
        }
        state.known.put(key, Known { decision: decision.clone(), until_ms });
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Flight {
    /// Tells all who wait, and remembers it if it will hold.
    pub(crate) fn land(self, decision: &Decision, now_ms: u64) {
        if self.cache.lock().epoch == self.epoch {
            self.cache.remember(self.key, decision, now_ms);
        }
        self.told.send_replace(Some(decision.clone()));
    }
}

impl Drop for Flight {
    fn drop(&mut self) {
        let mut state = self.cache.lock();
        if state.epoch == self.epoch {
            state.flights.remove(&self.key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture::{self, ask};
    use crate::{Denial, Identity};

    fn cache(max_entries: usize) -> Arc<Cache> {
        let config = config::Cache { max_entries, ..config::Cache::default() };
        Arc::new(Cache::new(config).expect("a cache"))
    }

    fn put(cache: &Arc<Cache>, user: &str, decision: &Decision, now_ms: u64) {
        let request = fixture::client("c", user, "secret");
        match cache.look(1, 0, Inputs::ALL, ask(&request), now_ms) {
            Found::Nobody(flight) => flight.land(decision, now_ms),
            found => panic!("{found:?}"),
        }
    }

    fn knows(cache: &Arc<Cache>, user: &str, now_ms: u64) -> bool {
        let request = fixture::client("c", user, "secret");
        matches!(cache.look(1, 0, Inputs::ALL, ask(&request), now_ms), Found::Known(_))
    }

    fn allow(expires_at: Option<u64>) -> Decision {
        Decision::Allow(Box::new(Identity { expires_at, ..Identity::default() }))
    }

    // AU15
    #[test]
    fn a_decision_holds_for_its_time_and_no_longer_than_its_token() {
        let cache = cache(10);
        put(&cache, "a", &allow(None), 1_000);
        put(&cache, "b", &allow(Some(3)), 1_000);
        put(&cache, "c", &Decision::Deny(Denial::credentials("no")), 1_000);
        put(&cache, "d", &Decision::Failed("gone".to_owned()), 1_000);
        for (user, holds_until) in [("a", 61_000), ("b", 3_000), ("c", 6_000)] {
            assert!(knows(&cache, user, holds_until - 1), "{user}");
            assert!(!knows(&cache, user, holds_until), "{user}");
        }
        assert!(!knows(&cache, "d", 1_001));
    }

    #[test]
    fn any_input_that_counts_makes_another_question() {
        let cache = cache(10);
        let known = fixture::client("c", "u", "p");
        let all = Inputs::ALL;
        let Found::Nobody(flight) = cache.look(1, 0, all, ask(&known), 0) else { panic!("known") };
        flight.land(&allow(None), 0);
        let (mut id, mut user, mut word, mut peer) =
            (known.clone(), known.clone(), known.clone(), known.clone());
        id.client_id = "x".into();
        user.username = None;
        word.password = Some([].into());
        peer.peer = [127, 0, 0, 1].into();
        for other in [&id, &user, &word, &peer] {
            assert!(matches!(cache.look(1, 0, all, ask(other), 0), Found::Nobody(_)), "{other:?}");
        }
        assert!(matches!(cache.look(2, 0, all, ask(&known), 0), Found::Nobody(_)));
        assert!(matches!(cache.look(1, 1, all, ask(&known), 0), Found::Nobody(_)));
        assert!(matches!(cache.look(1, 0, all, ask(&known), 0), Found::Known(_)));
        // What the client sent, and what an authenticator made of it: both count.
        let so_far = Identity { username: Some("cn".into()), ..Identity::default() };
        let as_cn = crate::source::Ask { so_far: &so_far, ..ask(&known) };
        let Found::Nobody(flight) = cache.look(1, 0, all, as_cn, 0) else { panic!("known") };
        flight.land(&allow(None), 0);
        let also_cn = crate::source::Ask { request: &user, ..as_cn };
        assert!(matches!(cache.look(1, 0, all, also_cn, 0), Found::Nobody(_)));
        // What does not count does not: one entry for all addresses.
        let some = Inputs::USERNAME.and(Inputs::PASSWORD);
        let Found::Nobody(flight) = cache.look(1, 0, some, ask(&known), 0) else { panic!("known") };
        flight.land(&allow(None), 0);
        assert!(matches!(cache.look(1, 0, some, ask(&peer), 0), Found::Known(_)));
        assert!(matches!(cache.look(1, 0, some, ask(&word), 0), Found::Nobody(_)));
    }

    #[test]
    fn it_has_a_bound_and_forgets_who_was_away_longest() {
        let cache = cache(2);
        put(&cache, "a", &allow(None), 0);
        put(&cache, "b", &allow(None), 0);
        assert!(knows(&cache, "a", 1));
        put(&cache, "c", &allow(None), 0);
        assert_eq!(cache.len(), 2);
        assert!(knows(&cache, "a", 1) && !knows(&cache, "b", 1) && knows(&cache, "c", 1));
    }

    // AU15
    #[test]
    fn what_was_asked_before_a_drain_is_not_remembered_after_it() {
        let cache = cache(10);
        put(&cache, "a", &allow(None), 0);
        let request = fixture::client("c", "b", "secret");
        let Found::Nobody(flight) = cache.look(1, 0, Inputs::ALL, ask(&request), 0) else {
            panic!("known")
        };
        assert_eq!(cache.drain(), 1);
        flight.land(&allow(None), 0);
        assert!(!knows(&cache, "a", 1) && !knows(&cache, "b", 1));
    }

    #[test]
    fn who_waits_hears_that_it_was_given_up() {
        let cache = cache(10);
        let request = fixture::client("c", "u", "p");
        let look = || cache.look(1, 0, Inputs::ALL, ask(&request), 0);
        let Found::Nobody(flight) = look() else { panic!("known") };
        let Found::Somebody(mut hears) = look() else { panic!("nobody asks") };
        drop(flight);
        assert!(fixture::run(hears.changed()).is_err());
        assert!(matches!(look(), Found::Nobody(_)));
    }
}
