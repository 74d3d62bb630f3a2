//! What came of a dry run, for people and for programs.

use std::fmt::Write;

use ringmain_acl::{Action, By, Effect, Explanation, Keeping};

use super::{Decided, Outcome, Verdict};

/// What is asked of the rules, in words.
pub(super) fn action(action: Action, topic: &str) -> String {
    match action {
        Action::Publish { qos, retain } => {
            let retained = if retain { ", retained" } else { "" };
            format!("publish {topic:?} with QoS {}{retained}", qos as u8)
        }
        Action::Subscribe { qos } => format!("subscribe {topic:?} with QoS {}", qos as u8),
    }
}

/// What decides, in a line.
pub(super) fn because(why: &Explanation) -> String {
    let verb = match why.outcome {
        Effect::Allow => "allowed",
        Effect::Deny => "denied",
    };
    match &why.by {
        By::Superuser => format!("{verb}: a superuser may do everything"),
        By::Rule { source, rule, line, topic, .. } => {
            let place = line.map_or(source.clone(), |line| format!("{source}:{line}"));
            format!("{verb} by {place}: rule {rule}, topic {topic:?}")
        }
        By::SourceNoMatch { source } => {
            format!("{verb} by {source}: no rule of it matches, and its no_match says so")
        }
        By::NoMatch => format!("{verb}: no rule matches, and authorization.no_match says so"),
    }
}

/// One document in a line.
pub(super) fn json(verdict: &Verdict) -> String {
    // Plain data with text for keys: serde_json has no reason to fail.
    serde_json::to_string(verdict).unwrap_or_default() + "\n"
}

/// The same for people.
pub(super) fn text(verdict: &Verdict) -> String {
    let mut out = head(verdict);
    for check in &verdict.checks {
        let mark = match check.outcome {
            Outcome::Passed => "ok",
            Outcome::Refused => "no",
            Outcome::NotAsked => "?",
        };
        let _ = writeln!(out, "{mark:<3} {:<15}{}", check.what, shown(&check.says));
    }
    for decided in &verdict.decisions {
        out += &decision(decided);
    }
    out
}

fn head(verdict: &Verdict) -> String {
    let client = &verdict.client;
    let name = client.username.as_ref().map_or(String::new(), |name| format!(", user {name:?}"));
    let from = client.from.map_or("an unknown address".to_owned(), |ip| ip.to_string());
    let superuser = if client.superuser { ", superuser" } else { "" };
    let outcome = match &verdict.reason {
        None => "accepted".to_owned(),
        Some(reason) => format!("refused with 0x{:02X} {}", reason.code, reason.name),
    };
    format!(
        "{outcome}: {}\nclient {:?}{name}{superuser}, from {from}, on {}\n{}\n\n",
        shown(&verdict.asked),
        client.client_id,
        shown(&client.listener),
        verdict.leads_to,
    )
}

fn decision(decided: &Decided) -> String {
    let mut out = format!("\n{}\n    {}\n", shown(&decided.asked), shown(&because(&decided.why)));
    if let By::Rule { text, .. } = &decided.why.by {
        for line in text.lines() {
            let _ = writeln!(out, "    | {}", shown(line));
        }
    }
    let shared = match decided.view.shared {
        true => "shared with all clients that meet the same conditions",
        false => "its own, as placeholders are filled in for it",
    };
    let cost = match decided.view.decision {
        Keeping::Settled => "no topic is looked at for it",
        Keeping::Kept => "the decision is kept",
        Keeping::LookedUp => "the decision is looked up each time",
    };
    let _ = writeln!(out, "    view of the rules: {shared}; {cost}");
    for passed in &decided.why.earlier {
        let place = passed.line.map_or(String::new(), |line| format!(":{line}"));
        let _ = writeln!(
            out,
            "    passed over: {}{place}: rule {}: {}",
            shown(&passed.source),
            passed.rule,
            shown(&passed.because)
        );
    }
    out
}

/// Without what could disturb a terminal.
fn shown(text: &str) -> String {
    text.replace(|c: char| c.is_control(), "\u{FFFD}")
}
