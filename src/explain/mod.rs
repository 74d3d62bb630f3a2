//! `ringmain explain`: what would come of a CONNECT, a PUBLISH or a SUBSCRIBE by a configuration, and why.
//!
//! A dry run: no broker is asked, and nothing is changed. It holds the settings of the listener and the
//! rules against what a client would send, in the order of the engine, and stops at what the engine
//! would answer with.

mod connect;
mod text;
mod topic;
mod who;

use std::process::ExitCode;
use std::sync::Arc;

use ringmain_acl::{Action, ClientPolicy, Effect, Explanation, Gate, Keeping, Policy};
use ringmain_mqtt::ReasonCode;
use serde::Serialize;

pub(crate) use connect::Connect;
pub(crate) use topic::{Publish, Subscribe};
use who::{Client, Who};

use crate::authorization::Rules;
use crate::config::{Config, Listener};

/// A packet that can be explained.
pub(crate) trait Ask {
    /// Who sends it.
    fn who(&self) -> &Who;

    /// Goes through what it meets.
    fn run(&self, dry: &mut DryRun<'_>) -> Verdict;
}

/// Runs one of them. Ends with 0 if it would be accepted, with 1 if not.
///
/// # Errors
/// What is asked about makes no sense with this configuration.
pub(crate) fn run(config: &Config, ask: &impl Ask) -> Result<ExitCode, String> {
    let mut dry = DryRun::new(config, ask.who())?;
    let verdict = ask.run(&mut dry);
    let out = if ask.who().json { text::json(&verdict) } else { text::text(&verdict) };
    crate::observe::say(&out);
    Ok(if verdict.accepted { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// What would come of it.
#[derive(Debug, Serialize)]
pub(crate) struct Verdict {
    /// What was asked: `publish "a/b" with QoS 1`.
    asked: String,
    client: Client,
    accepted: bool,
    /// Of a refusal.
    reason: Option<Reason>,
    /// What the client and the operator see of it.
    leads_to: String,
    /// In the order in which the broker looks at them, up to the one that refuses.
    checks: Vec<Check>,
    /// The rules that were asked; none if something else refused before.
    decisions: Vec<Decided>,
}

/// A reason code.
#[derive(Debug, Serialize)]
struct Reason {
    code: u8,
    name: &'static str,
}

/// Something that is looked at before a packet is accepted.
#[derive(Debug, Serialize)]
struct Check {
    what: &'static str,
    outcome: Outcome,
    says: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
enum Outcome {
    Passed,
    Refused,
    /// This command cannot tell.
    NotAsked,
}

/// What the rules say about one topic.
#[derive(Debug, Serialize)]
struct Decided {
    /// `publish "a/b" with QoS 1`.
    asked: String,
    #[serde(flatten)]
    why: Explanation,
    view: View,
}

/// The view that a shard would have of this client.
#[derive(Debug, Serialize)]
struct View {
    /// Whether all clients that meet the same conditions have the same one.
    shared: bool,
    /// What such a decision costs.
    decision: Keeping,
}

/// Settings and rules, and the client that is held against them.
pub(crate) struct DryRun<'a> {
    listener: &'a Listener,
    client: Client,
    gate: Gate,
    view: ClientPolicy,
    verbose: bool,
    checks: Vec<Check>,
    decisions: Vec<Decided>,
}

/// What refuses.
struct Refusal {
    code: ReasonCode,
    says: String,
}

impl<'a> DryRun<'a> {
    fn new(config: &'a Config, who: &Who) -> Result<Self, String> {
        let (listener, named) = who.listener(config)?;
        let client = who.client(listener)?;
        let policy: Arc<Policy> = Arc::clone(Rules::new(&config.authorization).policy());
        let mut gate = Gate::with_cache(policy, config.authorization.cache_places as usize);
        let view = gate.client(&client.subject(&client.attributes()), None);
        let says = match named {
            true => format!("{} at {}", listener.name, listener.url),
            false => {
                format!("{} at {}, the first of the configuration", listener.name, listener.url)
            }
        };
        let check = Check { what: "listener", outcome: Outcome::Passed, says };
        let (checks, decisions) = (vec![check], Vec::new());
        let verbose = who.verbose;
        Ok(Self { listener, client, gate, view, verbose, checks, decisions })
    }

    /// Notes a check; `Err` ends the dry run.
    fn check(
        &mut self,
        what: &'static str,
        found: Result<String, Refusal>,
    ) -> Result<(), ReasonCode> {
        let (outcome, says, result) = match found {
            Ok(says) => (Outcome::Passed, says, Ok(())),
            Err(Refusal { code, says }) => (Outcome::Refused, says, Err(code)),
        };
        self.checks.push(Check { what, outcome, says });
        result
    }

    /// Asks the rules, as the engine does and one by one. (AZ10)
    fn decide(&mut self, action: Action, topic: &str) -> Effect {
        let attributes = self.client.attributes();
        let subject = self.client.subject(&attributes);
        let why = self.gate.policy().explain(&subject, None, action, topic, self.verbose);
        let decision = self.gate.keeping(&self.view, action, topic);
        let view = View { shared: self.view.is_shared(), decision };
        let outcome = why.outcome;
        debug_assert_eq!(
            ringmain_acl::Decision::from(outcome),
            self.gate.decide(&self.view, action, topic),
            "what is explained is what is decided"
        );
        self.decisions.push(Decided { asked: text::action(action, topic), why, view });
        outcome
    }

    /// The same, and a denial ends the dry run.
    fn authorise(&mut self, action: Action, topic: &str) -> Result<(), ReasonCode> {
        let outcome = self.decide(action, topic);
        let says = self.decisions.last().map(|d| text::because(&d.why)).unwrap_or_default();
        self.check(
            "authorization",
            match outcome {
                Effect::Allow => Ok(says),
                Effect::Deny => Err(Refusal { code: ReasonCode::NOT_AUTHORIZED, says }),
            },
        )
    }

    /// Puts it together. `leads_to` says what comes of the reason code, or of its absence.
    fn verdict(
        &mut self,
        asked: String,
        result: Result<(), ReasonCode>,
        leads_to: impl FnOnce(&Listener, Option<ReasonCode>) -> String,
    ) -> Verdict {
        let code = result.err();
        Verdict {
            asked,
            client: self.client.clone(),
            accepted: code.is_none(),
            reason: code.map(|code| Reason { code: code.0, name: code.name() }),
            leads_to: leads_to(self.listener, code),
            checks: std::mem::take(&mut self.checks),
            decisions: std::mem::take(&mut self.decisions),
        }
    }
}

/// A refusal with this code.
fn refuse(code: ReasonCode, says: impl Into<String>) -> Refusal {
    Refusal { code, says: says.into() }
}

#[cfg(test)]
mod tests;
