//! Rules as EMQX has them in `acl.conf`:
//! `{allow, {username, {re, "^dash"}}, subscribe, ["$SYS/#"]}.`
//!
//! Both the names of EMQX 4 (`user`, `client`, `pubsub`, `%c`) and those of EMQX 5 are known. Rules
//! that deny are compared as EMQX does, which takes wildcards that are asked for as words; rules that
//! allow must cover all that is asked for. So nothing is allowed that EMQX would deny for the topic.

use super::terms::{Kind, Reader, Term};
use super::{Errors, Fault, SourceErrors, topic};
use crate::pattern::Mode;
use crate::rule::{NoMatch, RULES_MAX, Rule, Source, TOPICS_MAX};
use crate::subject::{Effect, QosSet, Verb};
use crate::template::Topic;
use crate::who::{Network, Text, Who};
use ringmain_mqtt::QoS;

const CONDITIONS: &[&str] = &[
    "all",
    "username",
    "user",
    "clientid",
    "client",
    "ipaddr",
    "ipaddrs",
    "client_attr",
    "listener",
    "'and'",
    "'or'",
];
const ACTIONS: &[&str] = &["publish", "subscribe", "all", "pubsub"];

/// A fault of a term: its line, and where in the rule it is.
struct At {
    line: u32,
    place: &'static str,
    fault: Fault,
}

/// Attaches the place.
fn at<T>(term: &Term, place: &'static str, result: Result<T, Fault>) -> Result<T, At> {
    result.map_err(|fault| At { line: term.line, place, fault })
}

pub(super) fn parse(name: &str, text: &str) -> Result<Source, SourceErrors> {
    let mut errors = Errors::new(name);
    let mut rules = vec![];
    let mut reader = Reader::new(text);
    for number in 1.. {
        match reader.next() {
            Ok(None) => break,
            Ok(Some(term)) if number > RULES_MAX => {
                errors.add(term.line, "", format!("more than {RULES_MAX} rules"));
                break;
            }
            Ok(Some(term)) => match rule(&term, text) {
                Ok(rule) => rules.push(rule),
                Err(At { line, place, fault }) => {
                    errors.add(line, format!("rule {number}: {place}"), fault);
                }
            },
            Err(syntax) => {
                errors.add(syntax.line, format!("rule {number}"), syntax.what);
                break;
            }
        }
    }
    errors.finish(Source { name: name.to_owned(), rules, no_match: NoMatch::Next })
}

fn rule(term: &Term, text: &str) -> Result<Rule, At> {
    let Kind::Tuple(items) = &term.kind else {
        let what = format!("{} is not a rule like {{allow, all}}", term.describe());
        return at(term, "form", Err(Fault::new(what)));
    };
    let Some(first) = items.first() else {
        return at(term, "form", Err(Fault::new("{} is not a rule like {allow, all}")));
    };
    let effect = at(first, "permission", effect(first))?;
    let base = Rule {
        line: term.line,
        text: text[term.start..term.end].to_owned(),
        effect,
        who: Who::All,
        verb: Verb::All,
        qos: QosSet::ALL,
        retain: None,
        topics: vec![Topic::any()],
        mode: Mode { loose: effect == Effect::Deny, overlap: false },
    };
    match &items[1..] {
        [all] if is_atom(all, "all") => Ok(base),
        [who, action, topics] => {
            let who = at(who, "who", condition(who))?;
            let (verb, qos, retain) = at(action, "action", actions(action))?;
            let topics = topic_list(topics)?;
            Ok(Rule { who, verb, qos, retain, topics, ..base })
        }
        _ => {
            let what = format!(
                "{} is neither {{allow|deny, all}} nor {{allow|deny, Who, Action, [Topic, …]}}",
                term.describe()
            );
            at(term, "form", Err(Fault::new(what)))
        }
    }
}

fn effect(term: &Term) -> Result<Effect, Fault> {
    match &term.kind {
        Kind::Atom(name) if name == "allow" => Ok(Effect::Allow),
        Kind::Atom(name) if name == "deny" => Ok(Effect::Deny),
        Kind::Atom(name) => Err(Fault::unknown("permission", name, &["allow", "deny"])),
        _ => Err(Fault::new(format!("{} is neither allow nor deny", term.describe()))),
    }
}

fn condition(term: &Term) -> Result<Who, Fault> {
    if is_atom(term, "all") {
        return Ok(Who::All);
    }
    let Kind::Tuple(items) = &term.kind else {
        return Err(match &term.kind {
            Kind::Atom(name) => Fault::unknown("condition", name, CONDITIONS),
            _ => Fault::new(format!("{} is not a condition on a client", term.describe())),
        });
    };
    let Some(Kind::Atom(name)) = items.first().map(|term| &term.kind) else {
        return Err(Fault::new(format!("{} is not a condition on a client", term.describe())));
    };
    match (name.as_str(), &items[1..]) {
        // As in EMQX 4: any client, with a user name or without.
        ("username" | "user" | "clientid" | "client", [value]) if is_atom(value, "all") => {
            Ok(Who::All)
        }
        ("username" | "user", [value]) => name_or_expression(value).map(Who::Username),
        ("clientid" | "client", [value]) => name_or_expression(value).map(Who::ClientId),
        ("listener", [value]) => name_or_expression(value).map(Who::Listener),
        ("client_attr", [key, value]) => {
            Ok(Who::Attribute(string(key)?.to_owned(), name_or_expression(value)?))
        }
        ("ipaddr", [value]) => Ok(Who::Address(vec![Network::parse(string(value)?)?])),
        ("ipaddrs", [value]) => {
            let parse = |term: &Term| Ok(Network::parse(string(term)?)?);
            Ok(Who::Address(list(value)?.iter().map(parse).collect::<Result<_, Fault>>()?))
        }
        ("and", [value]) => Ok(Who::And(conditions(value)?)),
        ("or", [value]) => Ok(Who::Or(conditions(value)?)),
        ("zone", _) => Err(Fault::new(
            "Ringmain has no zones: name the listeners of the zone, {listener, \"tcp:default\"}",
        )),
        (known, _) if CONDITIONS.iter().any(|name| name.trim_matches('\'') == known) => {
            Err(Fault::new(format!("wrong number of elements in {}", term.describe())))
        }
        (other, _) => Err(Fault::unknown("condition", other, CONDITIONS)),
    }
}

fn conditions(term: &Term) -> Result<Vec<Who>, Fault> {
    list(term)?.iter().map(condition).collect()
}

fn name_or_expression(term: &Term) -> Result<Text, Fault> {
    match &term.kind {
        Kind::Tuple(items) => match &items[..] {
            [re, pattern] if is_atom(re, "re") => Ok(Text::like(string(pattern)?)?),
            _ => {
                Err(Fault::new(format!("{} is neither a name nor {{re, \"…\"}}", term.describe())))
            }
        },
        _ => Ok(Text::Is(string(term)?.to_owned())),
    }
}

fn actions(term: &Term) -> Result<(Verb, QosSet, Option<bool>), Fault> {
    let (name, options) = match &term.kind {
        Kind::Atom(_) => (term, None),
        Kind::Tuple(items) if items.len() == 2 => (&items[0], Some(list(&items[1])?)),
        _ => return Err(Fault::new(format!("{} is not an action", term.describe()))),
    };
    let verb = match &name.kind {
        Kind::Atom(name) => match name.as_str() {
            "publish" => Verb::Publish,
            "subscribe" => Verb::Subscribe,
            "all" | "pubsub" => Verb::All,
            other => return Err(Fault::unknown("action", other, ACTIONS)),
        },
        _ => return Err(Fault::new(format!("{} is not an action", name.describe()))),
    };
    let (mut qos, mut retain) = (QosSet::NONE, None);
    for option in options.unwrap_or_default() {
        let Kind::Tuple(pair) = &option.kind else {
            return Err(Fault::new(format!("{} is no option of an action", option.describe())));
        };
        match &pair[..] {
            [key, value] if is_atom(key, "qos") => qos = levels(value, qos)?,
            [key, value] if is_atom(key, "retain") && verb != Verb::Subscribe => {
                retain = flag(value)?;
            }
            // EMQX reads it and makes nothing of it.
            [key, value] if is_atom(key, "retain") => drop(flag(value)?),
            [Term { kind: Kind::Atom(name), .. }, _] => {
                return Err(Fault::unknown("option", name, &["qos", "retain"]));
            }
            _ => return Err(Fault::new(format!("{} is no option", option.describe()))),
        }
    }
    Ok((verb, if qos == QosSet::NONE { QosSet::ALL } else { qos }, retain))
}

fn levels(term: &Term, set: QosSet) -> Result<QosSet, Fault> {
    match &term.kind {
        Kind::List(items) => items.iter().try_fold(set, |set, term| levels(term, set)),
        Kind::Integer(number) => match u8::try_from(*number).ok().and_then(QoS::from_bits) {
            Some(qos) => Ok(set.with(qos)),
            None => Err(Fault::new(format!("QoS {number}; it is 0, 1 or 2"))),
        },
        _ => Err(Fault::new(format!("{} is not a QoS of 0, 1 or 2", term.describe()))),
    }
}

fn flag(term: &Term) -> Result<Option<bool>, Fault> {
    match &term.kind {
        Kind::Atom(name) => match name.as_str() {
            "true" => Ok(Some(true)),
            "false" => Ok(Some(false)),
            "all" => Ok(None),
            other => Err(Fault::unknown("value of retain", other, &["true", "false", "all"])),
        },
        _ => Err(Fault::new(format!("{} is not true, false or all", term.describe()))),
    }
}

fn topic_list(term: &Term) -> Result<Vec<Topic>, At> {
    let items = at(term, "topics", list(term))?;
    if items.len() > TOPICS_MAX {
        let what = format!("{} topics; at most {TOPICS_MAX}", items.len());
        return at(term, "topics", Err(Fault::new(what)));
    }
    items.iter().map(|item| at(item, "topics", one_topic(item))).collect()
}

fn one_topic(term: &Term) -> Result<Topic, Fault> {
    match &term.kind {
        Kind::Tuple(items) => match &items[..] {
            [eq, text] if is_atom(eq, "eq") => topic(string(text)?, true),
            _ => {
                Err(Fault::new(format!("{} is neither a topic nor {{eq, \"…\"}}", term.describe())))
            }
        },
        _ => match string(term)? {
            text if text.starts_with("eq ") => topic(&text[3..], true),
            text => topic(text, false),
        },
    }
}

fn string(term: &Term) -> Result<&str, Fault> {
    match &term.kind {
        Kind::Text(text) => Ok(text),
        Kind::Atom(name) => Err(Fault::new(format!("the atom {name} is not a string: \"{name}\""))),
        _ => Err(Fault::new(format!("{} is not a string", term.describe()))),
    }
}

fn list(term: &Term) -> Result<&[Term], Fault> {
    match &term.kind {
        Kind::List(items) => Ok(items),
        Kind::Text(text) => Err(Fault::new(format!("{text:?} is not a list: [{text:?}]"))),
        _ => Err(Fault::new(format!("{} is not a list", term.describe()))),
    }
}

fn is_atom(term: &Term, wanted: &str) -> bool {
    matches!(&term.kind, Kind::Atom(name) if name == wanted)
}
