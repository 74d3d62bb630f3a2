//! Authorization: whether a client may publish to a topic, or subscribe to a filter.
//!
//! Pure: no I/O, clock, thread, randomness or environment. Texts come in ([`Source::toml`],
//! [`Source::emqx`]), become one [`Policy`] for the node, and each shard asks its [`Gate`].
//!
//! ```text
//! sources ─ Policy::compile ─► Arc<Policy> ─ Gate::new, one a shard
//! CONNECT ─ Gate::client ────► ClientPolicy     conditions on the client are settled here
//! PUBLISH, SUBSCRIBE ─ Gate::decide ─► Decision     a cached answer, or a look into the rules
//! ```
//!
//! Rules are asked in order, the first that matches decides. A rule that allows matches only if it
//! covers all that is asked for.
//!
//! ```
//! use ringmain_acl::{Action, Decision, Effect, Gate, Policy, Settings, Source, Subject};
//! use ringmain_mqtt::QoS;
//!
//! let rules = Source::emqx("acl.conf", r#"{allow, all, publish, ["home/${clientid}/#"]}."#)?;
//! let policy = Policy::compile(1, vec![rules], Settings::new(Effect::Deny));
//! let mut gate = Gate::new(policy);
//! let client = gate.client(&Subject { client_id: "lamp", ..Subject::default() }, None);
//! let publish = Action::Publish { qos: QoS::AtMostOnce, retain: false };
//! assert_eq!(gate.decide(&client, publish, "home/lamp/state"), Decision::Allow);
//! assert_eq!(gate.decide(&client, publish, "home/door/state"), Decision::Deny);
//! # Ok::<(), ringmain_acl::SourceErrors>(())
//! ```
#![forbid(unsafe_code)]

mod bans;
mod cache;
mod certificate;
mod explain;
mod gate;
mod hash;
mod index;
mod pattern;
mod policy;
mod rule;
mod source;
mod subject;
mod template;
pub mod topic;
mod who;

pub use bans::{
    BAN_COLUMNS, BAN_PATTERNS_MAX, BAN_TEXT_BYTES_MAX, BANS_MAX, Ban, BanKind, BanTable, until,
};
pub use cache::CACHE_PLACES;
pub use certificate::ClientCertificate;
pub use explain::{By, Explanation, Keeping, Passed};
pub use gate::{CacheStats, ClientPolicy, Decision, Gate};
pub use policy::{ClientRulesOrder, Policy, Settings};
pub use rule::{
    CLIENT_RULES_MAX, ClientRule, ClientRules, ClientRulesError, NoMatch, RULES_MAX, Source,
    TOPICS_MAX,
};
pub use source::{DEFAULT_POLICY, ERRORS_MAX, SOURCE_BYTES_MAX, SourceError, SourceErrors};
pub use subject::{Action, Effect, QosSet, Subject, Verb};
pub use template::Prefix;
