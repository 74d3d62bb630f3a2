//! Why a client may or may not: the rules asked one after the other, each with its reason.

use serde::Serialize;

use crate::pattern::{Mode, Pattern};
use crate::policy::{ClientRulesOrder, Policy};
use crate::rule::{ClientRules, Rule, not_meant};
use crate::subject::{Action, Effect, QosSet, Subject, Verb};
use crate::template::Topic;

/// Why something is decided as it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Explanation {
    /// What is decided.
    pub outcome: Effect,
    /// By what.
    pub by: By,
    /// The rules that were asked before and why they did not decide; empty unless wanted.
    pub earlier: Vec<Passed>,
    /// Whether the decision was in the cache; `None` where there is none.
    pub cached: Option<bool>,
}

/// What decides.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum By {
    /// The client is a superuser.
    Superuser,
    /// A rule.
    Rule {
        /// The source that it is from; the rules that authentication gave are "the client's rules".
        source: String,
        /// Which one of the source, from 1.
        rule: usize,
        /// Its line in the source; `None` for a rule of the client.
        line: Option<u32>,
        /// As it was written.
        text: String,
        /// The topic of the rule that matches, as it was written.
        topic: String,
    },
    /// No rule of a source matches, and the source says what then.
    SourceNoMatch {
        /// Which source.
        source: String,
    },
    /// No rule matches.
    NoMatch,
}

/// A rule that did not decide.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Passed {
    /// The source that it is from.
    pub source: String,
    /// Which one of the source, from 1.
    pub rule: usize,
    /// Its line in the source.
    pub line: Option<u32>,
    /// As it was written.
    pub text: String,
    /// Why not.
    pub because: String,
}

/// What a decision costs a shard each time that it is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Keeping {
    /// No topic is looked at: of this action the rules say the same to this client for all of them.
    Settled,
    /// It is kept, and looked up in the rules where it is not at hand.
    Kept,
    /// It is looked up in the rules: there are few topics in them, the asked one is long, or nothing is
    /// kept.
    LookedUp,
}

/// The name of what authentication gave.
const CLIENT_RULES: &str = "the client's rules";

impl Policy {
    /// Says what this policy decides, and why. Asks all rules anew, without what was compiled for the
    /// client and without a cache. With `verbose` the rules that were passed are listed, each with
    /// the first of its conditions that does not hold.
    #[must_use]
    pub fn explain(
        &self,
        subject: &Subject<'_>,
        own: Option<&ClientRules>,
        action: Action,
        topic: &str,
        verbose: bool,
    ) -> Explanation {
        let mut search = Search { subject, action, asked: topic, verbose, earlier: vec![] };
        let (outcome, by) = search.run(self, own);
        Explanation { outcome, by, earlier: search.earlier, cached: None }
    }
}

struct Search<'a> {
    subject: &'a Subject<'a>,
    action: Action,
    asked: &'a str,
    verbose: bool,
    earlier: Vec<Passed>,
}

impl Search<'_> {
    fn run(&mut self, policy: &Policy, own: Option<&ClientRules>) -> (Effect, By) {
        if self.subject.superuser {
            return (Effect::Allow, By::Superuser);
        }
        let settings = policy.settings();
        let first = own.filter(|_| settings.client_rules == ClientRulesOrder::First);
        if let Some(found) = first.and_then(|own| self.own(own)) {
            return found;
        }
        if let Some(found) = self.sources(policy) {
            return found;
        }
        let last = own.filter(|_| settings.client_rules == ClientRulesOrder::Last);
        last.and_then(|own| self.own(own)).unwrap_or((settings.no_match, By::NoMatch))
    }

    fn sources(&mut self, policy: &Policy) -> Option<(Effect, By)> {
        for source in &policy.sources {
            for (at, rule) in source.rules.iter().enumerate() {
                let (line, text) = (Some(rule.line), rule.text.clone());
                match self.rule(rule) {
                    Ok(topic) => {
                        let topic = topic.text.clone();
                        let source = source.name.clone();
                        let by = By::Rule { source, rule: at + 1, line, text, topic };
                        return Some((rule.effect, by));
                    }
                    Err(because) => self.pass(&source.name, at, line, text, because),
                }
            }
            if let Some(effect) = source.no_match.effect() {
                return Some((effect, By::SourceNoMatch { source: source.name.clone() }));
            }
        }
        None
    }

    fn own(&mut self, own: &ClientRules) -> Option<(Effect, By)> {
        for (at, (effect, actions, topic)) in own.rules.iter().enumerate() {
            let text = format!("{effect:?} {}", topic.text).to_lowercase();
            let outcome = if actions.has(self.action.index()) {
                self.topics(std::slice::from_ref(topic), *effect, Mode::default())
            } else {
                Err(format!("it is not about {}", self.words()))
            };
            match outcome {
                Ok(topic) => {
                    let topic = topic.text.clone();
                    let source = CLIENT_RULES.to_owned();
                    let by = By::Rule { source, rule: at + 1, line: None, text, topic };
                    return Some((*effect, by));
                }
                Err(because) => self.pass(CLIENT_RULES, at, None, text, because),
            }
        }
        let effect = own.no_match.effect()?;
        Some((effect, By::SourceNoMatch { source: CLIENT_RULES.to_owned() }))
    }

    fn pass(&mut self, source: &str, at: usize, line: Option<u32>, text: String, because: String) {
        if self.verbose {
            let source = source.to_owned();
            self.earlier.push(Passed { source, rule: at + 1, line, text, because });
        }
    }

    /// The topic of `rule` that matches, or why it does not decide.
    fn rule<'r>(&self, rule: &'r Rule) -> Result<&'r Topic, String> {
        if !rule.actions().has(self.action.index()) {
            return Err(self.not_about(rule));
        }
        if let Some(why) = not_meant(rule, self.subject) {
            return Err(why);
        }
        self.topics(&rule.topics, rule.effect, rule.mode)
    }

    fn topics<'r>(
        &self,
        topics: &'r [Topic],
        effect: Effect,
        mode: Mode,
    ) -> Result<&'r Topic, String> {
        let mut unfilled = None;
        for topic in topics {
            let matches = |pattern: &Pattern| match self.action {
                Action::Publish { .. } => pattern.matches_name(self.asked),
                Action::Subscribe { .. } => pattern.matches_filter(self.asked),
            };
            if topic.is_any() {
                return Ok(topic);
            }
            match topic.fill(self.subject, effect, mode) {
                Some(pattern) if matches(&pattern) => return Ok(topic),
                Some(_) => {}
                None => unfilled = unfilled.or_else(|| topic.unfilled(self.subject)),
            }
        }
        Err(match unfilled {
            Some(why) => format!("no topic of it matches; {why}"),
            None if self.action.is_subscribe() => {
                format!("no topic of it covers {:?}", self.asked)
            }
            None => format!("no topic of it matches {:?}", self.asked),
        })
    }

    fn not_about(&self, rule: &Rule) -> String {
        let subscribes = self.action.is_subscribe();
        let (Action::Publish { qos, .. } | Action::Subscribe { qos }) = self.action;
        match rule.verb {
            Verb::Publish if subscribes => "it is about publishing".to_owned(),
            Verb::Subscribe if !subscribes => "it is about subscribing".to_owned(),
            _ if rule.qos != QosSet::ALL && !rule.qos.contains(qos) => {
                format!("it is not about QoS {}", qos as u8)
            }
            _ => format!("it is not about {}", self.words()),
        }
    }

    fn words(&self) -> String {
        match self.action {
            Action::Publish { qos, retain: true } => {
                format!("publishing a retained message with QoS {}", qos as u8)
            }
            Action::Publish { qos, .. } => {
                format!("publishing a message with QoS {} that is not retained", qos as u8)
            }
            Action::Subscribe { qos } => format!("subscribing with QoS {}", qos as u8),
        }
    }
}
