//! One rule, and what a source of rules is.

use crate::pattern::Mode;
use crate::subject::{ActionSet, Effect, QosSet, Subject, Verb};
use crate::template::{BadTopic, Topic};
use crate::who::Who;

/// Rules of one source. A client that connects is held against each of them once.
pub const RULES_MAX: usize = 10_000;

/// Topics of one rule.
pub const TOPICS_MAX: usize = 1_000;

/// Rules that authentication may give a client. They are kept for each client.
pub const CLIENT_RULES_MAX: usize = 256;

/// A rule as it was written.
#[derive(Clone, Debug)]
pub(crate) struct Rule {
    /// The line where it begins, from 1.
    pub(crate) line: u32,
    /// Its text.
    pub(crate) text: String,
    pub(crate) effect: Effect,
    pub(crate) who: Who,
    pub(crate) verb: Verb,
    pub(crate) qos: QosSet,
    pub(crate) retain: Option<bool>,
    pub(crate) topics: Vec<Topic>,
    pub(crate) mode: Mode,
}

impl Rule {
    /// The actions that it is about.
    pub(crate) fn actions(&self) -> ActionSet {
        ActionSet::of(self.verb, self.qos, self.retain)
    }
}

/// What a source says when none of its rules matches.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum NoMatch {
    /// The next source is asked, after the last one the policy.
    #[default]
    Next,
    /// The client may.
    Allow,
    /// It may not.
    Deny,
}

impl NoMatch {
    /// What it decides.
    pub(crate) const fn effect(self) -> Option<Effect> {
        match self {
            Self::Next => None,
            Self::Allow => Some(Effect::Allow),
            Self::Deny => Some(Effect::Deny),
        }
    }
}

/// Rules in their order, as a file has them. Made by [`Source::toml`], [`Source::emqx`] or
/// [`Source::default_policy`].
#[derive(Clone, Debug)]
pub struct Source {
    pub(crate) name: String,
    pub(crate) rules: Vec<Rule>,
    pub(crate) no_match: NoMatch,
}

impl Source {
    /// Its name: the file's.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// How many rules it has.
    #[must_use]
    pub fn rule_count(&self) -> usize {
        self.rules.len()
    }

    /// Says what happens when none of its rules matches; in TOML the key `no_match`.
    #[must_use]
    pub fn with_no_match(self, no_match: NoMatch) -> Self {
        Self { no_match, ..self }
    }
}

/// A rule that authentication gave one client, as in the `acl` claim of a JWT.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientRule {
    /// Whether it allows or denies.
    pub allow: bool,
    /// What it is about.
    pub action: Verb,
    /// A topic filter, with placeholders.
    pub topic: String,
    /// Whether the topic is compared literally.
    pub eq: bool,
    /// The QoS it is about; `None`: any.
    pub qos: Option<QosSet>,
    /// Whether it is about retained messages only (`true`) or others only; `None`: both.
    pub retain: Option<bool>,
}

/// Rules of one client, filled in for it, in their order.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ClientRules {
    pub(crate) rules: Vec<(Effect, ActionSet, Topic)>,
    pub(crate) no_match: NoMatch,
}

/// Why rules that came from authentication are not used. The client must not be let in with the
/// others of its rules: one that denies would be missing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ClientRulesError {
    /// There are more than [`CLIENT_RULES_MAX`].
    #[error("{0} rules for one client; at most {CLIENT_RULES_MAX}")]
    TooMany(usize),
    /// The topic of one is not a filter, or has an unknown placeholder.
    #[error("rule {number}: topic {topic:?}: {why}")]
    Topic {
        /// Which one, from 1.
        number: usize,
        /// As it was given.
        topic: String,
        /// What is wrong with it.
        why: String,
    },
}

impl ClientRules {
    /// Rules of one client, checked.
    ///
    /// # Errors
    /// They are too many, or a topic is none.
    pub fn new(rules: &[ClientRule], no_match: NoMatch) -> Result<Self, ClientRulesError> {
        if rules.len() > CLIENT_RULES_MAX {
            return Err(ClientRulesError::TooMany(rules.len()));
        }
        let compile = |(at, rule): (usize, &ClientRule)| {
            let wrong = |why: BadTopic| ClientRulesError::Topic {
                number: at + 1,
                topic: rule.topic.clone(),
                why: why.to_string(),
            };
            let topic = Topic::parse(&rule.topic, rule.eq).map_err(wrong)?;
            let effect = if rule.allow { Effect::Allow } else { Effect::Deny };
            let qos = rule.qos.unwrap_or(QosSet::ALL);
            Ok((effect, ActionSet::of(rule.action, qos, rule.retain), topic))
        };
        let rules = rules.iter().enumerate().map(compile).collect::<Result<_, _>>()?;
        Ok(Self { rules, no_match })
    }

    /// Adds rules that are asked behind these, and what they say when none matches.
    ///
    /// # Errors
    /// They are too many together; these are as they were.
    pub fn append(&mut self, behind: Self) -> Result<(), ClientRulesError> {
        let count = self.rules.len() + behind.rules.len();
        if count > CLIENT_RULES_MAX {
            return Err(ClientRulesError::TooMany(count));
        }
        self.rules.extend(behind.rules);
        self.no_match = behind.no_match;
        Ok(())
    }
}

/// Which condition of a rule a client does not meet.
pub(crate) fn not_meant(rule: &Rule, subject: &Subject<'_>) -> Option<String> {
    rule.who.failing(subject)
}
