//! Where a shard asks whether a client may.

use std::sync::{Arc, Weak};

use hashbrown::HashMap;
use ringmain_mqtt::QoS;

use crate::cache::{CACHE_PLACES, Cache};
use crate::explain::{Explanation, Keeping};
use crate::index::{Index, NONE};
use crate::pattern::{Mode, Pattern};
use crate::policy::{ClientRulesOrder, Policy};
use crate::rule::{ClientRules, NoMatch};
use crate::subject::{Action, ActionSet, Effect, Subject};
use crate::topic::subscribe_target;

/// Views are looked through for dead ones when there are so many, and again at twice what is left.
const SWEEP_MIN: usize = 64;

/// A client with so few topics in its rules is decided anew each time: that is no dearer than to
/// look into the cache, and leaves it to others. Measured in docs/adr/0022-acl-compiled.md.
const CHEAP_MAX: usize = 6;

/// The answer to a client.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[must_use]
pub enum Decision {
    /// It may.
    Allow,
    /// It may not: reason code 0x87.
    Deny,
    /// The client's view is of another epoch: [`ClientPolicy::refresh`] it and ask again.
    Stale,
}

impl From<Effect> for Decision {
    fn from(effect: Effect) -> Self {
        match effect {
            Effect::Allow => Self::Allow,
            Effect::Deny => Self::Deny,
        }
    }
}

/// How often a decision was at hand.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CacheStats {
    /// It was.
    pub hits: u64,
    /// It was not.
    pub misses: u64,
}

/// The rules as they are for the clients of one shard.
///
/// Lives on: shard. Views that it makes are valid for the epoch of its policy; clients that meet the
/// same conditions and have no placeholders filled in share one.
#[derive(Debug)]
pub struct Gate {
    policy: Arc<Policy>,
    /// By the conditional rules that hold, a bit each. As many as living clients differ in them.
    shared: HashMap<Box<[u64]>, Shared>,
    sweep_at: usize,
    superuser: Weak<View>,
    /// Never used twice, so that no decision of an older view is mistaken for that of a newer one.
    next_view: u64,
    cache: Cache,
}

#[derive(Debug, Default)]
struct Shared {
    index: Weak<Index>,
    view: Weak<View>,
}

/// What the rules say about one client. Eight bytes; of clients that differ in nothing that the
/// rules ask for, all of them point to the same.
#[derive(Clone, Debug)]
pub struct ClientPolicy(Arc<View>);

#[derive(Debug)]
struct View {
    id: u64,
    epoch: u64,
    superuser: bool,
    /// Whether it has more than [`CHEAP_MAX`] topics.
    is_cached: bool,
    /// Actions for which the topic matters; of others the policy says what is decided.
    open: ActionSet,
    /// Lines of conditional rules that hold for it.
    index: Arc<Index>,
    /// Lines with placeholders, filled in for it, ascending.
    filled: Box<[(u32, Pattern)]>,
    own: Option<Box<Own>>,
}

/// The rules that authentication gave it.
#[derive(Debug)]
struct Own {
    rules: Box<[(Effect, ActionSet, Pattern)]>,
    no_match: NoMatch,
}

impl Gate {
    /// A gate with a cache of [`CACHE_PLACES`].
    #[must_use]
    pub fn new(policy: Arc<Policy>) -> Self {
        Self::with_cache(policy, CACHE_PLACES)
    }

    /// A gate that remembers up to `places` decisions, 64 bytes each, rounded up to a power of two;
    /// 0: none.
    #[must_use]
    pub fn with_cache(policy: Arc<Policy>, places: usize) -> Self {
        Self {
            policy,
            shared: HashMap::new(),
            sweep_at: SWEEP_MIN,
            superuser: Weak::new(),
            next_view: 1,
            cache: Cache::new(places),
        }
    }

    /// The policy that holds.
    #[must_use]
    pub fn policy(&self) -> &Arc<Policy> {
        &self.policy
    }

    /// Puts another policy in its place. Clients are [`Decision::Stale`] until refreshed.
    pub fn set_policy(&mut self, policy: Arc<Policy>) {
        debug_assert_ne!(policy.epoch(), self.policy.epoch(), "an epoch is used once");
        self.policy = policy;
        self.shared.clear();
        self.superuser = Weak::new();
        self.cache.clear();
    }

    /// Forgets all decisions.
    pub fn clear_cache(&mut self) {
        self.cache.clear();
    }

    /// How often a decision was at hand, since the start.
    #[must_use]
    pub fn cache_stats(&self) -> CacheStats {
        CacheStats { hits: self.cache.hits, misses: self.cache.misses }
    }

    /// Bytes of the cache, which are the same however many clients there are.
    #[must_use]
    pub fn cache_bytes(&self) -> usize {
        self.cache.bytes()
    }

    /// How many sets of conditions are remembered: at most twice those that living clients meet, and
    /// a few.
    #[must_use]
    pub fn view_count(&self) -> usize {
        self.shared.len()
    }

    /// What the rules say about a client that has been let in.
    #[must_use]
    pub fn client(&mut self, subject: &Subject<'_>, own: Option<&ClientRules>) -> ClientPolicy {
        if subject.superuser {
            return self.superuser();
        }
        let policy = Arc::clone(&self.policy);
        let held = held(&policy, subject);
        let filled = fill(&policy, &held, subject);
        let own = own.map(|own| Box::new(Own::new(own, subject)));
        let alone = !filled.is_empty() || own.is_some();
        if !alone && let Some(view) = self.shared.get(&*held).and_then(|s| s.view.upgrade()) {
            return ClientPolicy(view);
        }
        let index = self.index(&policy, &held);
        let view = self.view(index, filled, own, false);
        if !alone && let Some(shared) = self.shared.get_mut(&*held) {
            shared.view = Arc::downgrade(&view);
        }
        ClientPolicy(view)
    }

    /// Whether a client may. `topic` is what [`crate::topic::publish_target`] or
    /// [`crate::topic::subscribe_target`] give.
    #[inline]
    pub fn decide(&mut self, client: &ClientPolicy, action: Action, topic: &str) -> Decision {
        let view = &*client.0;
        if view.epoch != self.policy.epoch() {
            return Decision::Stale;
        }
        if view.superuser {
            return Decision::Allow;
        }
        let what = action.index();
        if !view.open.has(what) {
            return self.policy.end(what).into();
        }
        if !view.is_cached {
            return view.decide(&self.policy, action, topic).into();
        }
        if let Some(effect) = self.cache.again(view.id, what, topic) {
            self.cache.hits += 1;
            return effect.into();
        }
        let Some(at) = self.cache.place(view.id, what, topic) else {
            return view.decide(&self.policy, action, topic).into();
        };
        if let Some(effect) = self.cache.find(at, view.id, what, topic) {
            self.cache.hits += 1;
            return effect.into();
        }
        let effect = view.decide(&self.policy, action, topic);
        self.cache.missed(at, view.id, what, topic, effect);
        effect.into()
    }

    /// Which of a client's subscriptions it may not have any more: their positions in
    /// `subscriptions`, the texts as it sent them (with `$share/…`) and the QoS. For a policy that
    /// changed (AZ06), and for those that a session inherits (S-06).
    ///
    /// A superuser keeps all. The client must be of this epoch, else nothing is known and all are
    /// returned.
    #[must_use]
    pub fn revoked<'a>(
        &self,
        client: &ClientPolicy,
        subscriptions: impl IntoIterator<Item = (&'a str, QoS)>,
    ) -> Vec<usize> {
        let view = &*client.0;
        let stale = view.epoch != self.policy.epoch();
        let may = |text: &str, qos| {
            let Ok(filter) = subscribe_target(text) else { return false };
            !stale
                && (view.superuser
                    || view.decide(&self.policy, Action::Subscribe { qos }, filter)
                        == Effect::Allow)
        };
        let all = subscriptions.into_iter().enumerate();
        all.filter(|(_, (text, qos))| !may(text, *qos)).map(|(at, _)| at).collect()
    }

    /// Why a client may or may not, without doing anything: see [`Policy::explain`]. Also says whether
    /// [`Gate::decide`] would have found the decision in its cache.
    #[must_use]
    pub fn explain(
        &self,
        client: &ClientPolicy,
        subject: &Subject<'_>,
        own: Option<&ClientRules>,
        action: Action,
        topic: &str,
        verbose: bool,
    ) -> Explanation {
        let (id, what) = (client.0.id, action.index());
        let at = self.cache.place(id, what, topic);
        let cached = at.is_some_and(|at| self.cache.get(at, id, what, topic).is_some());
        let explanation = self.policy.explain(subject, own, action, topic, verbose);
        Explanation { cached: Some(cached), ..explanation }
    }

    /// What a decision costs.
    #[must_use]
    pub fn keeping(&self, client: &ClientPolicy, action: Action, topic: &str) -> Keeping {
        let view = &*client.0;
        let what = action.index();
        if view.superuser || !view.open.has(what) {
            return Keeping::Settled;
        }
        let place = || self.cache.place(view.id, what, topic);
        if view.is_cached && place().is_some() { Keeping::Kept } else { Keeping::LookedUp }
    }

    fn superuser(&mut self) -> ClientPolicy {
        if let Some(view) = self.superuser.upgrade() {
            return ClientPolicy(view);
        }
        let view = self.view(Arc::default(), Box::default(), None, true);
        self.superuser = Arc::downgrade(&view);
        ClientPolicy(view)
    }

    fn view(
        &mut self,
        index: Arc<Index>,
        filled: Box<[(u32, Pattern)]>,
        own: Option<Box<Own>>,
        superuser: bool,
    ) -> Arc<View> {
        let id = self.next_view;
        self.next_view += 1;
        let own_count = own.as_ref().map_or(0, |own| own.rules.len());
        let topics = self.policy.common.len() + index.len() + filled.len() + own_count;
        let epoch = self.policy.epoch();
        let is_cached = topics > CHEAP_MAX;
        let policy = &self.policy;
        let own_open = own.as_ref().map_or(ActionSet::NONE, |own| own.open(policy));
        let filled_open = policy.open(filled.iter().map(|(id, _)| *id));
        let open = policy.common.open.union(index.open).union(filled_open).union(own_open);
        Arc::new(View { id, epoch, superuser, is_cached, open, index, filled, own })
    }

    /// The index of the conditional rules in `held`, shared by all who meet the same.
    fn index(&mut self, policy: &Policy, held: &[u64]) -> Arc<Index> {
        if let Some(index) = self.shared.get(held).and_then(|shared| shared.index.upgrade()) {
            return index;
        }
        if self.shared.len() >= self.sweep_at {
            self.shared.retain(|_, shared| shared.index.strong_count() > 0);
            self.sweep_at = SWEEP_MIN.max(self.shared.len() * 2);
        }
        let constant = |id: &u32| policy.lines[*id as usize].pattern.is_some();
        let ids = held_lines(policy, held).filter(constant).collect();
        let mut index = Index::new(&policy.lines, ids);
        index.open = policy.open(index.ids());
        let index = Arc::new(index);
        let shared = Shared { index: Arc::downgrade(&index), view: Weak::new() };
        self.shared.insert(held.into(), shared);
        index
    }
}

impl ClientPolicy {
    /// Which policy it is of.
    #[must_use]
    pub fn epoch(&self) -> u64 {
        self.0.epoch
    }

    /// Makes it anew if the policy of `gate` is another one than it was made for; says whether it was.
    pub fn refresh(
        &mut self,
        gate: &mut Gate,
        subject: &Subject<'_>,
        own: Option<&ClientRules>,
    ) -> bool {
        let stale = self.epoch() != gate.policy.epoch();
        if stale {
            *self = gate.client(subject, own);
        }
        stale
    }

    /// Tells what is decided for it from what is decided for others, of all epochs of its gate: part
    /// of the key for who keeps decisions elsewhere. Not 0.
    #[inline]
    #[must_use]
    pub fn id(&self) -> u64 {
        self.0.id
    }

    /// Whether clients that meet the same conditions have it too: nothing in it is of this client alone.
    #[must_use]
    pub fn is_shared(&self) -> bool {
        self.0.filled.is_empty() && self.0.own.is_none()
    }

    /// Whether both point to the same.
    #[must_use]
    pub fn shares_with(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }

    /// Bytes that it points to, by the sizes that were asked for: of this client alone where
    /// placeholders were filled in or authentication gave rules, else of all who share it. The index
    /// is shared either way, and not in it.
    #[must_use]
    pub fn bytes(&self) -> usize {
        let view = &*self.0;
        let text = |pattern: &Pattern| pattern.heap_bytes();
        let own = view.own.as_ref().map_or(0, |own| {
            let texts: usize = own.rules.iter().map(|(_, _, pattern)| text(pattern)).sum();
            size_of::<Own>() + size_of_val(&*own.rules) + texts
        });
        // The Arc has two counters.
        16 + size_of::<View>()
            + size_of_val(&*view.filled)
            + view.filled.iter().map(|(_, pattern)| text(pattern)).sum::<usize>()
            + own
    }

    /// Bytes of the index of conditional rules, which is shared by all who meet the same.
    #[must_use]
    pub fn index_bytes(&self) -> usize {
        self.0.index.bytes()
    }
}

impl View {
    #[inline]
    fn decide(&self, policy: &Policy, action: Action, topic: &str) -> Effect {
        let settings = policy.settings();
        let own = |order| {
            let own = self.own.as_ref().filter(|_| settings.client_rules == order)?;
            own.decide(action, topic)
        };
        if let Some(effect) = own(ClientRulesOrder::First) {
            return effect;
        }
        let line = if action.is_subscribe() {
            self.first_filter(policy, action.index(), topic)
        } else {
            self.first_name(policy, action.index(), topic)
        };
        if line != NONE {
            return policy.lines[line as usize].effect;
        }
        own(ClientRulesOrder::Last).unwrap_or(settings.no_match)
    }

    #[inline]
    fn first_name(&self, policy: &Policy, what: u8, name: &str) -> u32 {
        let lines = &policy.lines;
        let best = policy.common.first_name(lines, what, name, NONE);
        let best = self.index.first_name(lines, what, name, best);
        self.first_filled(policy, what, best, |pattern| pattern.matches_name(name))
    }

    fn first_filter(&self, policy: &Policy, what: u8, asked: &str) -> u32 {
        let lines = &policy.lines;
        let best = policy.common.first_filter(lines, what, asked, NONE);
        let best = self.index.first_filter(lines, what, asked, best);
        self.first_filled(policy, what, best, |pattern| pattern.matches_filter(asked))
    }

    #[inline]
    fn first_filled(
        &self,
        policy: &Policy,
        what: u8,
        before: u32,
        matches: impl Fn(&Pattern) -> bool,
    ) -> u32 {
        let candidates = self.filled.iter().take_while(|(id, _)| *id < before);
        let about = |id: u32| policy.lines[id as usize].actions.has(what);
        let found = candidates.filter(|(id, _)| about(*id)).find(|(_, pattern)| matches(pattern));
        found.map_or(before, |(id, _)| *id)
    }
}

impl Own {
    fn new(own: &ClientRules, subject: &Subject<'_>) -> Self {
        let fill = |(effect, actions, topic): &(Effect, ActionSet, crate::template::Topic)| {
            Some((*effect, *actions, topic.fill(subject, *effect, Mode::default())?))
        };
        Self { rules: own.rules.iter().filter_map(fill).collect(), no_match: own.no_match }
    }

    /// The actions about which they say something else than the policy in the end.
    fn open(&self, policy: &Policy) -> ActionSet {
        let says_otherwise = |action: &u8| {
            let end = policy.end(*action);
            let otherwise =
                |rule: &(Effect, ActionSet, Pattern)| rule.1.has(*action) && rule.0 != end;
            self.rules.iter().any(otherwise) || self.no_match.effect().is_some_and(|e| e != end)
        };
        ActionSet::of_indices((0..ActionSet::COUNT).filter(says_otherwise))
    }

    fn decide(&self, action: Action, topic: &str) -> Option<Effect> {
        let matches = |pattern: &Pattern| match action {
            Action::Publish { .. } => pattern.matches_name(topic),
            Action::Subscribe { .. } => pattern.matches_filter(topic),
        };
        let mut about = self.rules.iter().filter(|(_, actions, _)| actions.has(action.index()));
        let found = about.find(|(_, _, pattern)| matches(pattern));
        found.map(|(effect, _, _)| *effect).or(self.no_match.effect())
    }
}

/// Which conditional rules hold, a bit each.
fn held(policy: &Policy, subject: &Subject<'_>) -> Box<[u64]> {
    let mut bits = vec![0; policy.conditional.len().div_ceil(64)];
    for (at, conditional) in policy.conditional.iter().enumerate() {
        let rule = &policy.sources[conditional.source as usize].rules[conditional.rule as usize];
        if rule.who.holds(subject) {
            bits[at / 64] |= 1 << (at % 64);
        }
    }
    bits.into()
}

/// The lines of the conditional rules in `held`, ascending.
fn held_lines(policy: &Policy, held: &[u64]) -> impl Iterator<Item = u32> {
    let holds = |at: &usize| held[at / 64] >> (at % 64) & 1 == 1;
    let rules = (0..policy.conditional.len()).filter(holds).map(|at| &policy.conditional[at]);
    rules.flat_map(|rule| rule.start..rule.end)
}

/// The lines with placeholders, filled in, ascending.
fn fill(policy: &Policy, held: &[u64], subject: &Subject<'_>) -> Box<[(u32, Pattern)]> {
    let template = |id: &u32| policy.lines[*id as usize].pattern.is_none();
    let mut ids: Vec<u32> = held_lines(policy, held).filter(template).collect();
    ids.extend(&policy.common_templates);
    ids.sort_unstable();
    let fill = |id: u32| {
        let line = &policy.lines[id as usize];
        let rule = policy.rule(line).expect("only rules have placeholders");
        let topic = &rule.topics[usize::from(line.topic)];
        Some((id, topic.fill(subject, rule.effect, rule.mode)?))
    };
    ids.into_iter().filter_map(fill).collect()
}
