//! What clients may do: the rules of the node (`ringmain-acl`), and who each connection is to them.

use std::sync::Arc;

use ringmain_acl::topic::subscribe_target;
use ringmain_acl::{Action, ClientPolicy, Decision, Gate, Policy, Subject};
use ringmain_mqtt::{QoS, ReasonCode};

use super::auth::Identity;
use super::config::{DenyAction, EngineConfig};
use super::conn::{Conn, State};
use super::core::{After, Core, TimerKey, TimerKind};
use super::counters::{Counters, DriverCounts};
use super::effects::{CloseHow, Effects};
use super::ids::Peer;
use super::session::{SubRef, WillMessage};
use super::shard::Shard;
use super::slab::NONE;
use super::subs::FilterId;

/// Views of the rules that connections share by their number, which is a byte of [`Conn`]. Clients beyond, and
/// those of whom more is known than client id and address, have a box ([`Known`]).
const SHARED_MAX: usize = 255;
/// Connections that are looked at in a turn when the rules have changed: about a millisecond. A million take half a
/// second.
const SWEEP_STEP: u32 = 2048;
/// Time between two such turns, ms.
const SWEEP_EVERY_MS: u64 = 1;

/// Lives on: each shard. Every live connection has a view: of this policy, or of one before until it is asked for.
#[derive(Debug)]
pub(crate) struct Access {
    gate: Gate,
    /// By [`Conn::view`] - 1.
    shared: Vec<Option<ClientPolicy>>,
    /// The rules or bans have changed: the connection that is looked at next.
    sweep: Option<u32>,
}

/// A client of whom more is known than client id and address, or whose rules nobody else has.
#[derive(Clone, Debug)]
pub(crate) struct Known {
    policy: ClientPolicy,
    who: Who,
}

/// Who a client is to the rules, besides client id, address and certificate.
#[derive(Clone, Debug)]
pub(crate) enum Who {
    /// A user name or none, and nothing else.
    Named(Option<Box<str>>),
    /// Somebody of whom its authentication says more.
    Proven(Arc<Identity>),
}

impl Known {
    pub(crate) fn new(policy: &ClientPolicy, who: &Who) -> Self {
        Self { policy: policy.clone(), who: who.clone() }
    }

    /// When its connection ends, in Unix seconds.
    pub(crate) fn expires_at_s(&self) -> Option<u64> {
        match &self.who {
            Who::Named(_) => None,
            Who::Proven(identity) => identity.expires_at_s,
        }
    }

    pub(crate) fn username(&self) -> Option<&str> {
        self.who.username()
    }
}

impl Who {
    /// Whom authentication found; without it, whom CONNECT names.
    pub(crate) fn new(identity: Option<&Arc<Identity>>, username: Option<&str>) -> Self {
        let Some(identity) = identity else { return Self::Named(username.map(Into::into)) };
        // Only a name, or not even that: so are most, and nothing else has to be kept of them.
        let Identity { username, superuser, attributes, expires_at_s, rules, .. } = &**identity;
        if !superuser && attributes.is_empty() && expires_at_s.is_none() && rules.is_none() {
            return Self::Named(username.clone());
        }
        Self::Proven(Arc::clone(identity))
    }

    fn username(&self) -> Option<&str> {
        match self {
            Self::Named(name) => name.as_deref(),
            Self::Proven(identity) => identity.username.as_deref(),
        }
    }

    /// Asks the rules about it.
    fn policy(&self, gate: &mut Gate, subject: &Subject<'_>) -> ClientPolicy {
        let subject = Subject { username: self.username(), ..*subject };
        let Self::Proven(identity) = self else { return gate.client(&subject, None) };
        let attributes: Vec<(&str, &str)> =
            identity.attributes.iter().map(|(name, value)| (&**name, &**value)).collect();
        let superuser = identity.superuser;
        let subject = Subject { attributes: &attributes, superuser, ..subject };
        gate.client(&subject, identity.rules.as_ref())
    }
}

impl Access {
    pub(crate) fn new(policy: Arc<Policy>, decisions_kept: usize) -> Self {
        Self { gate: Gate::with_cache(policy, decisions_kept), shared: Vec::new(), sweep: None }
    }

    /// What the rules say about a connection; `None` before CONNECT.
    fn policy_of<'a>(
        shared: &'a [Option<ClientPolicy>],
        conn: &'a Conn,
    ) -> Option<&'a ClientPolicy> {
        match conn.known() {
            Some(known) => Some(&known.policy),
            None => shared.get(usize::from(conn.view).checked_sub(1)?)?.as_ref(),
        }
    }

    /// The number of a view that others may share; `None`: it needs a box.
    fn number(&mut self, policy: &ClientPolicy) -> Option<u8> {
        if !policy.is_shared() {
            return None;
        }
        let same =
            |known: &Option<ClientPolicy>| known.as_ref().is_some_and(|k| k.shares_with(policy));
        let at = self.shared.iter().position(same).or_else(|| {
            let free = self.shared.iter().position(Option::is_none).unwrap_or(self.shared.len());
            if free == self.shared.len() {
                self.shared.push(None);
            }
            self.shared[free] = Some(policy.clone());
            Some(free)
        })?;
        if at >= SHARED_MAX {
            self.shared.truncate(SHARED_MAX);
            return None;
        }
        Some(at as u8 + 1)
    }

    /// Views of rules that hold no more are given up: nobody has them.
    fn forget_old(&mut self) {
        let epoch = self.gate.policy().epoch();
        for view in &mut self.shared {
            if view.as_ref().is_some_and(|policy| policy.epoch() != epoch) {
                *view = None;
            }
        }
    }
}

/// What the rules are asked with.
pub(crate) fn subject<'a>(
    cfg: &'a EngineConfig,
    conn: &'a Conn,
    client_id: &'a str,
) -> Subject<'a> {
    let Peer { addr, listener } = conn.peer();
    let certificate = conn.introduction().and_then(|i| i.certificate.as_deref());
    Subject {
        client_id,
        peer: Some(addr.ip()),
        listener: cfg.listeners.get(usize::from(listener)).map_or("", |l| &*l.name),
        cert_common_name: certificate.and_then(|c| c.common_name.as_deref()),
        ..Subject::default()
    }
}

impl Core {
    /// What the rules say about a client that is about to be let in.
    pub(crate) fn policy_for(
        &mut self,
        ci: u32,
        client_id: &str,
        who: &Who,
    ) -> Option<ClientPolicy> {
        let conn = self.conns.get(ci)?;
        let subject = subject(&self.cfg, conn, client_id);
        Some(who.policy(&mut self.access.gate, &subject))
    }

    /// From now on the connection is held to these rules.
    pub(crate) fn hold_to(&mut self, ci: u32, policy: ClientPolicy, who: &Who) {
        let nobody = matches!(who, Who::Named(None));
        let number = if nobody { self.access.number(&policy) } else { None };
        let Some(conn) = self.conns.get_mut(ci) else { return };
        match number {
            Some(number) => {
                conn.set_known(None);
                conn.view = number;
            }
            None => {
                conn.set_known(Some(Box::new(Known::new(&policy, who))));
            }
        }
    }

    /// Whether a policy allows something before its client is let in.
    pub(crate) fn allows(&mut self, policy: &ClientPolicy, action: Action, topic: &str) -> bool {
        self.access.gate.decide(policy, action, topic) == Decision::Allow
    }

    /// Whether a client may. `topic` is what `ringmain_acl::topic` says is to be asked for.
    #[inline]
    pub(crate) fn may(&mut self, ci: u32, action: Action, topic: &str) -> bool {
        match self.decide(ci, action, topic) {
            Decision::Allow => true,
            Decision::Deny => false,
            Decision::Stale => {
                self.renew_access(ci);
                self.decide(ci, action, topic) == Decision::Allow
            }
        }
    }

    #[inline]
    fn decide(&mut self, ci: u32, action: Action, topic: &str) -> Decision {
        let Self { access: Access { gate, shared, .. }, conns, .. } = self;
        let policy = conns.get(ci).and_then(|conn| Access::policy_of(shared, conn));
        policy.map_or(Decision::Deny, |policy| gate.decide(policy, action, topic))
    }

    /// Whether its authentication says that nothing binds it.
    pub(crate) fn is_superuser(&self, ci: u32) -> bool {
        let known = self.conns.get(ci).and_then(Conn::known);
        known.is_some_and(|known| matches!(&known.who, Who::Proven(who) if who.superuser))
    }

    /// Whether the rules have changed since the connection was held to them.
    fn is_stale(&self, ci: u32) -> bool {
        let epoch = self.access.gate.policy().epoch();
        let policy =
            self.conns.get(ci).and_then(|conn| Access::policy_of(&self.access.shared, conn));
        policy.is_none_or(|policy| policy.epoch() != epoch)
    }

    /// The rules have changed since the connection was held to them.
    #[cold]
    fn renew_access(&mut self, ci: u32) {
        let Some(conn) = self.conns.get_mut(ci) else { return };
        let Some(session) = self.sessions.get(conn.session) else { return };
        let who = conn.take_known().map_or(Who::Named(None), |known| known.who);
        let subject = subject(&self.cfg, conn, &session.client_id);
        let policy = who.policy(&mut self.access.gate, &subject);
        self.hold_to(ci, policy, &who);
    }

    /// A will goes out, unless the rules do not allow it any more: they may have changed since CONNECT. Of a client
    /// that is gone the address is not known to new rules. [S-19]
    pub(crate) fn send_will(&mut self, si: u32, will: WillMessage) {
        let WillMessage { msg, owner, .. } = will;
        let action = Action::Publish { qos: msg.qos, retain: msg.retain };
        let mut decision = self.access.gate.decide(&owner.policy, action, msg.topic());
        if decision == Decision::Stale {
            let session = &self.sessions[si];
            let listener = self.cfg.listeners.get(usize::from(session.listener));
            let subject = Subject {
                client_id: &session.client_id,
                listener: listener.map_or("", |l| &*l.name),
                ..Subject::default()
            };
            let policy = owner.who.policy(&mut self.access.gate, &subject);
            decision = self.access.gate.decide(&policy, action, msg.topic());
        }
        if decision == Decision::Allow {
            self.after.push(After::Will(msg));
        } else {
            self.counters.publish_auth_error += 1;
            self.counters.messages_dropped += 1;
        }
    }

    /// The counters, with what the driver and the gate counted for themselves.
    pub(crate) fn count_all(&mut self, driver: &DriverCounts) -> &Counters {
        self.counters.set_driver(driver);
        self.counters.set_cache(self.access.gate.cache_stats());
        &self.counters
    }

    /// Other rules hold. What they no longer allow ends within a second. (AZ06)
    pub(crate) fn set_policy(&mut self, policy: &Arc<Policy>) {
        if policy.epoch() == self.access.gate.policy().epoch() {
            return;
        }
        self.access.gate.set_policy(Arc::clone(policy));
        self.start_sweep();
    }

    /// All live connections are looked at, from the first one on.
    pub(crate) fn start_sweep(&mut self) {
        if self.access.sweep.replace(0).is_none() {
            self.wheel.insert(self.now_ms + SWEEP_EVERY_MS, TimerKey::new(TimerKind::Access, 0));
        }
    }
}

impl Shard {
    /// Looks at some connections after the rules or bans have changed.
    pub(crate) fn on_access_timer(&mut self, fx: &mut Effects) {
        let Some(from) = self.core.access.sweep else { return };
        let to = (from + SWEEP_STEP).min(self.core.conns.capacity());
        for ci in from..to {
            let is_live = self.core.conns.get(ci).is_some_and(|conn| conn.state == State::Live);
            if is_live && !self.end_if_banned(ci, fx) && self.core.is_stale(ci) {
                self.core.renew_access(ci);
                let si = self.session_of(ci);
                self.revoke(si, fx);
            }
        }
        if to == self.core.conns.capacity() {
            self.core.access.sweep = None;
            self.core.access.forget_old();
            return;
        }
        self.core.access.sweep = Some(to);
        let key = TimerKey::new(TimerKind::Access, 0);
        self.core.wheel.insert(self.core.now_ms + SWEEP_EVERY_MS, key);
    }

    /// Ends the subscriptions that the rules no longer allow: those of a policy that has changed (AZ06), and those
    /// that a session brings along [S-06]. The session must be online. Returns how many went.
    pub(crate) fn revoke(&mut self, si: u32, fx: &mut Effects) -> usize {
        let ci = self.core.sessions[si].conn;
        let subs: Vec<SubRef> = self.core.sessions[si].subs.to_vec();
        let mut revoked = 0;
        for sub in subs {
            let (text, qos) = self.subscription(si, sub);
            let Ok(filter) = subscribe_target(&text) else { continue };
            if self.core.may(ci, Action::Subscribe { qos }, filter) {
                continue;
            }
            revoked += 1;
            self.core.counters.subscriptions_revoked += 1;
            self.core.sessions[si].subs.remove(sub);
            match sub.as_member() {
                Some(member) => self.leave(member, None, false, fx),
                None => self.end_plain(si, FilterId(sub.as_filter().unwrap_or(NONE)), fx),
            }
        }
        let listener = self.core.sessions[si].listener;
        if revoked > 0 && self.core.mqtt(listener).deny_action == DenyAction::Disconnect {
            let text = Some("a subscription is not authorised any more");
            self.core.close_with(ci, Some(ReasonCode::NOT_AUTHORIZED), text, CloseHow::Flush, fx);
        }
        revoked
    }

    /// A subscription as its client sent it, and its QoS.
    pub(crate) fn subscription(&self, si: u32, sub: SubRef) -> (String, QoS) {
        let (text, level) = match sub.as_member() {
            Some(member) => {
                let m = &self.core.memberships[member];
                (m.name.to_string(), m.opts.qos_level())
            }
            None => {
                let id = FilterId(sub.as_filter().unwrap_or(NONE));
                let level = self.subs.get(id, si).map_or(0, |s| s.opts.qos_level());
                (self.subs.filter_str(id).to_owned(), level)
            }
        };
        (text, QoS::from_bits(level).unwrap_or(QoS::ExactlyOnce))
    }
}
