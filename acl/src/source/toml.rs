//! Rules as Ringmain has them:
//!
//! ```toml
//! no_match = "next"
//!
//! [[rule]]
//! effect = "allow"
//! who = { username = { re = "^dash" }, ip = ["10.0.0.0/8"] }
//! action = "subscribe"
//! topics = ["$SYS/#", { eq = "#" }]
//! ```

use std::ops::Range;

use ringmain_mqtt::QoS;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::{Errors, Fault, SourceErrors, topic};
use crate::pattern::Mode;
use crate::rule::{NoMatch, RULES_MAX, Rule, Source, TOPICS_MAX};
use crate::subject::{Effect, QosSet, Verb};
use crate::template::Topic;
use crate::who::{Network, Text, Who};

const TOP: &[&str] = &["no_match", "rule"];
const RULE: &[&str] = &["effect", "who", "action", "qos", "retain", "topics", "overlapping"];
const WHO: &[&str] = &[
    "username",
    "client_id",
    "ip",
    "listener",
    "cert_common_name",
    "attributes",
    "local",
    "all",
    "any",
    "not",
];
const ACTIONS: &[&str] = &["publish", "subscribe", "all"];

type Value<'a> = Spanned<DeValue<'a>>;

/// A file that is being read.
struct File<'a> {
    text: &'a str,
    errors: Errors<'a>,
    /// The rule that is being read, for messages.
    place: String,
}

pub(super) fn parse(name: &str, text: &str) -> Result<Source, SourceErrors> {
    let mut file = File { text, errors: Errors::new(name), place: String::new() };
    let mut source = Source { name: name.to_owned(), rules: vec![], no_match: NoMatch::Next };
    let (table, wrong) = DeTable::parse_recoverable(text);
    for error in &wrong {
        let line = file.line(error.span().unwrap_or(0..0));
        file.errors.add(line, "", error.message().replace('\n', ", "));
    }
    if wrong.is_empty() {
        for (key, value) in table.get_ref() {
            match &**key.get_ref() {
                "no_match" => source.no_match = file.no_match(value),
                "rule" => source.rules = file.rules(value),
                other => file.fault(key.span(), "", Fault::unknown("key", other, TOP)),
            }
        }
    }
    file.errors.finish(source)
}

impl File<'_> {
    fn line(&self, span: Range<usize>) -> u32 {
        let before = &self.text.as_bytes()[..span.start.min(self.text.len())];
        1 + memchr::memchr_iter(b'\n', before).count() as u32
    }

    fn fault(&mut self, span: Range<usize>, key: &str, fault: Fault) {
        let place = match (self.place.as_str(), key) {
            (place, "") => place.to_owned(),
            ("", key) => key.to_owned(),
            (place, key) => format!("{place}: {key}"),
        };
        let line = self.line(span);
        self.errors.add(line, place, fault);
    }

    /// The value, or notes what is wrong with it.
    fn take<T>(&mut self, key: &str, value: &Value<'_>, result: Result<T, Fault>) -> Option<T> {
        result.map_err(|fault| self.fault(value.span(), key, fault)).ok()
    }

    fn no_match(&mut self, value: &Value<'_>) -> NoMatch {
        let valid = &["next", "allow", "deny"];
        let parsed = string(value).and_then(|text| match text {
            "next" => Ok(NoMatch::Next),
            "allow" => Ok(NoMatch::Allow),
            "deny" => Ok(NoMatch::Deny),
            other => Err(Fault::unknown("value", other, valid)),
        });
        self.take("no_match", value, parsed).unwrap_or_default()
    }

    fn rules(&mut self, value: &Value<'_>) -> Vec<Rule> {
        let DeValue::Array(items) = value.get_ref() else {
            self.fault(value.span(), "rule", Fault::new("write each rule as a table: [[rule]]"));
            return vec![];
        };
        if items.len() > RULES_MAX {
            let what = format!("{} rules; at most {RULES_MAX}", items.len());
            self.fault(value.span(), "rule", Fault::new(what));
            return vec![];
        }
        let mut rules = vec![];
        for (at, item) in items.iter().enumerate() {
            self.place = format!("rule {}", at + 1);
            let end = items.get(at + 1).map_or(self.text.len(), |next| next.span().start);
            rules.extend(self.rule(item, end));
        }
        self.place.clear();
        rules
    }

    fn rule(&mut self, value: &Value<'_>, end: usize) -> Option<Rule> {
        let span = value.span();
        let DeValue::Table(table) = value.get_ref() else {
            self.fault(span, "", Fault::new("a rule is a table: [[rule]]"));
            return None;
        };
        let mut effect = None;
        let mut is_broken = false;
        let mut rule = Rule {
            line: self.line(span.clone()),
            text: as_written(self.text, span.start, end),
            effect: Effect::Deny,
            who: Who::All,
            verb: Verb::All,
            qos: QosSet::ALL,
            retain: None,
            topics: vec![Topic::any()],
            mode: Mode::default(),
        };
        for (key, value) in table {
            let name = &**key.get_ref();
            let is_good = match name {
                "effect" => {
                    effect = self.take(name, value, effect_of(value));
                    effect.is_some()
                }
                "who" => assign(&mut rule.who, self.take(name, value, who(value))),
                "action" => assign(&mut rule.verb, self.take(name, value, verb(value))),
                "qos" => assign(&mut rule.qos, self.take(name, value, qos(value))),
                "retain" => {
                    rule.retain = self.take(name, value, boolean(value));
                    rule.retain.is_some()
                }
                "overlapping" => {
                    assign(&mut rule.mode.overlap, self.take(name, value, boolean(value)))
                }
                "topics" => assign(&mut rule.topics, self.topics(value)),
                other => {
                    self.fault(key.span(), "", Fault::unknown("key", other, RULE));
                    false
                }
            };
            is_broken |= !is_good;
        }
        if is_broken {
            return None;
        }
        let Some(effect) = effect else {
            self.fault(span, "", Fault::new("effect is missing: effect = \"allow\" or \"deny\""));
            return None;
        };
        rule.effect = effect;
        if let Err(what) = consistent(&rule) {
            self.fault(span, "", Fault::new(what));
        }
        Some(rule)
    }

    fn topics(&mut self, value: &Value<'_>) -> Option<Vec<Topic>> {
        let items = self.take("topics", value, list(value))?;
        if items.is_empty() || items.len() > TOPICS_MAX {
            let what = format!("{} topics; it takes 1 to {TOPICS_MAX}", items.len());
            self.fault(value.span(), "topics", Fault::new(what));
            return None;
        }
        let mut topics = vec![];
        for item in items {
            topics.extend(self.take("topics", item, one_topic(item)));
        }
        Some(topics)
    }
}

/// Puts a value in its place, if there is one.
fn assign<T>(place: &mut T, value: Option<T>) -> bool {
    value.map(|value| *place = value).is_some()
}

/// What must hold between the keys of a rule.
fn consistent(rule: &Rule) -> Result<(), &'static str> {
    if rule.retain.is_some() && rule.verb == Verb::Subscribe {
        return Err("retain is about messages, and the action is \"subscribe\"");
    }
    if rule.mode.overlap && rule.effect == Effect::Allow {
        return Err("overlapping = true would allow more than the topics say: it is for \"deny\"");
    }
    if rule.mode.overlap && rule.verb == Verb::Publish {
        return Err("overlapping is about filters, and the action is \"publish\"");
    }
    Ok(())
}

fn effect_of(value: &Value<'_>) -> Result<Effect, Fault> {
    match string(value)? {
        "allow" => Ok(Effect::Allow),
        "deny" => Ok(Effect::Deny),
        other => Err(Fault::unknown("effect", other, &["allow", "deny"])),
    }
}

fn verb(value: &Value<'_>) -> Result<Verb, Fault> {
    match string(value)? {
        "publish" => Ok(Verb::Publish),
        "subscribe" => Ok(Verb::Subscribe),
        "all" => Ok(Verb::All),
        other => Err(Fault::unknown("action", other, ACTIONS)),
    }
}

fn qos(value: &Value<'_>) -> Result<QosSet, Fault> {
    if !matches!(value.get_ref(), DeValue::Array(_)) {
        return one_qos(value).map(|qos| QosSet::NONE.with(qos));
    }
    let items = list(value)?;
    if items.is_empty() {
        return Err(Fault::new("the list is empty: no action has none of QoS 0, 1 and 2"));
    }
    items.iter().try_fold(QosSet::NONE, |set, item| Ok(set.with(one_qos(item)?)))
}

fn one_qos(value: &Value<'_>) -> Result<QoS, Fault> {
    let number = match value.get_ref() {
        DeValue::Integer(number) if number.radix() == 10 => number.as_str().parse().ok(),
        _ => None,
    };
    let wrong = || Fault::new(format!("{} is not 0, 1 or 2", describe(value)));
    number.and_then(QoS::from_bits).ok_or_else(wrong)
}

fn one_topic(value: &Value<'_>) -> Result<Topic, Fault> {
    let DeValue::Table(table) = value.get_ref() else {
        return topic(string(value)?, false);
    };
    match table.iter().next() {
        Some((key, text)) if table.len() == 1 && &**key.get_ref() == "eq" => {
            topic(string(text)?, true)
        }
        _ => Err(Fault::new("a topic is a string or { eq = \"…\" }")),
    }
}

fn who(value: &Value<'_>) -> Result<Who, Fault> {
    match value.get_ref() {
        DeValue::String(text) => match &**text {
            "all" => Ok(Who::All),
            "local" => Ok(Who::Local),
            other => Err(Fault::unknown("condition", other, &["all", "local"])),
        },
        DeValue::Table(table) => {
            let mut all = table.iter().map(|(key, value)| condition(key.get_ref(), value));
            match table.len() {
                0 => Err(Fault::new("no condition; everybody is who = \"all\"")),
                1 => all.next().expect("there is one"),
                _ => all.collect::<Result<_, _>>().map(Who::And),
            }
        }
        _ => Err(Fault::new(format!(
            "{} is neither \"all\", \"local\" nor a table",
            describe(value)
        ))),
    }
}

fn condition(key: &str, value: &Value<'_>) -> Result<Who, Fault> {
    let named = |fault: Fault| Fault { what: format!("{key}: {}", fault.what), ..fault };
    match key {
        "username" => names(value, Who::Username).map_err(named),
        "client_id" => names(value, Who::ClientId).map_err(named),
        "listener" => names(value, Who::Listener).map_err(named),
        "cert_common_name" => names(value, Who::CommonName).map_err(named),
        "ip" => networks(value).map_err(named),
        "attributes" => attributes(value).map_err(named),
        "local" => Ok(match boolean(value).map_err(named)? {
            true => Who::Local,
            false => Who::Not(Box::new(Who::Local)),
        }),
        "all" => conditions(value).map(Who::And).map_err(named),
        "any" => conditions(value).map(Who::Or).map_err(named),
        "not" => Ok(Who::Not(Box::new(who(value).map_err(named)?))),
        other => Err(Fault::unknown("condition", other, WHO)),
    }
}

fn conditions(value: &Value<'_>) -> Result<Vec<Who>, Fault> {
    let items = list(value)?;
    if items.is_empty() {
        return Err(Fault::new("the list is empty"));
    }
    items.iter().map(who).collect()
}

/// One name or expression, or a list of which one must fit.
fn names(value: &Value<'_>, of: impl Fn(Text) -> Who) -> Result<Who, Fault> {
    if !matches!(value.get_ref(), DeValue::Array(_)) {
        return name(value).map(of);
    }
    let all = list(value)?;
    if all.is_empty() {
        return Err(Fault::new("the list is empty"));
    }
    all.iter().map(|item| name(item).map(&of)).collect::<Result<_, _>>().map(Who::Or)
}

fn name(value: &Value<'_>) -> Result<Text, Fault> {
    let DeValue::Table(table) = value.get_ref() else {
        return Ok(Text::Is(string(value)?.to_owned()));
    };
    match table.iter().next() {
        Some((key, pattern)) if table.len() == 1 && &**key.get_ref() == "re" => {
            Ok(Text::like(string(pattern)?)?)
        }
        _ => Err(Fault::new("a name is a string or { re = \"…\" }")),
    }
}

fn networks(value: &Value<'_>) -> Result<Who, Fault> {
    let one = |value: &Value<'_>| Ok(Network::parse(string(value)?)?);
    match value.get_ref() {
        DeValue::Array(items) if items.is_empty() => Err(Fault::new("the list is empty")),
        DeValue::Array(items) => {
            items.iter().map(one).collect::<Result<_, Fault>>().map(Who::Address)
        }
        _ => Ok(Who::Address(vec![one(value)?])),
    }
}

fn attributes(value: &Value<'_>) -> Result<Who, Fault> {
    let DeValue::Table(table) = value.get_ref() else {
        return Err(Fault::new(format!("{} is not a table of names and values", describe(value))));
    };
    if table.is_empty() {
        return Err(Fault::new("no attribute"));
    }
    let one = |key: &str, value| names(value, |text| Who::Attribute(key.to_owned(), text));
    let all = table.iter().map(|(key, value)| one(key.get_ref(), value));
    all.collect::<Result<_, _>>().map(Who::And)
}

fn string<'a>(value: &'a Value<'_>) -> Result<&'a str, Fault> {
    match value.get_ref() {
        DeValue::String(text) => Ok(text),
        _ => Err(Fault::new(format!("{} is not a string", describe(value)))),
    }
}

fn boolean(value: &Value<'_>) -> Result<bool, Fault> {
    match value.get_ref() {
        DeValue::Boolean(flag) => Ok(*flag),
        _ => Err(Fault::new(format!("{} is neither true nor false", describe(value)))),
    }
}

fn list<'a, 'b>(value: &'a Value<'b>) -> Result<&'a [Value<'b>], Fault> {
    match value.get_ref() {
        DeValue::Array(items) => Ok(items),
        _ => Err(Fault::new(format!("{} is not a list", describe(value)))),
    }
}

fn describe(value: &Value<'_>) -> String {
    match value.get_ref() {
        DeValue::String(text) => format!("the string {text:?}"),
        DeValue::Integer(number) => format!("the integer {number}"),
        DeValue::Float(number) => format!("the number {number}"),
        DeValue::Boolean(flag) => format!("the boolean {flag}"),
        DeValue::Datetime(date) => format!("the date {date}"),
        DeValue::Array(_) => "a list".to_owned(),
        DeValue::Table(_) => "a table".to_owned(),
    }
}

/// The lines of a rule, without what stands above the next one.
fn as_written(text: &str, start: usize, end: usize) -> String {
    let lines: Vec<&str> = text.get(start..end).unwrap_or_default().lines().collect();
    let is_rule = |line: &str| !line.trim().is_empty() && !line.trim_start().starts_with('#');
    let last = lines.iter().rposition(|line| is_rule(line)).map_or(0, |last| last + 1);
    lines[..last].join("\n")
}
