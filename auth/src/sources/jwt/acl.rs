//! The `acl` claim, in the two forms that EMQX reads.
//!
//! ```json
//! {"pub": ["a/${clientid}"], "sub": ["eq b/#"], "all": ["c"]}
//! [{"permission": "allow", "action": "publish", "topic": "a", "qos": [0, 1], "retain": false}]
//! ```

use ringmain_acl::{ClientRule, ClientRules, NoMatch, QosSet, Verb};
use ringmain_mqtt::QoS;
use serde::Deserialize;
use serde_json::Value;

/// Reads the claim. What cannot be read whole is not read at all: half a list of rules is another list. What it does not
/// name is for the rules of the node to decide.
pub(super) fn read(claim: &Value) -> Result<ClientRules, String> {
    ClientRules::new(&written(claim)?, NoMatch::Next).map_err(|error| error.to_string())
}

/// The rules as they were written.
pub(super) fn written(claim: &Value) -> Result<Vec<ClientRule>, String> {
    Ok(match claim {
        Value::Object(_) => {
            let lists: Lists = from(claim)?;
            let allow = |(action, topics): (Verb, Vec<String>)| {
                topics.into_iter().map(move |topic| rule(true, action, &topic, None, None))
            };
            let lists = [
                (Verb::Publish, lists.publish),
                (Verb::Subscribe, lists.subscribe),
                (Verb::All, lists.all),
            ];
            lists.into_iter().flat_map(allow).collect()
        }
        Value::Array(list) => {
            let read = |value| from::<Written>(value)?.rules();
            list.iter().map(read).collect::<Result<Vec<_>, _>>()?.concat()
        }
        _ => return Err("is neither an object nor a list".to_owned()),
    })
}

fn from<'a, T: Deserialize<'a>>(value: &'a Value) -> Result<T, String> {
    T::deserialize(value).map_err(|error| error.to_string())
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Lists {
    #[serde(rename = "pub", default)]
    publish: Vec<String>,
    #[serde(rename = "sub", default)]
    subscribe: Vec<String>,
    #[serde(default)]
    all: Vec<String>,
}

/// A rule in the long form. An unknown key may be a condition: the rule would be wider than it was meant.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    permission: Permission,
    action: WrittenAction,
    #[serde(default)]
    topic: Option<String>,
    #[serde(default)]
    topics: Vec<String>,
    #[serde(default)]
    qos: Option<OneOrMore>,
    #[serde(default)]
    retain: Option<Retain>,
}

#[derive(Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Permission {
    Allow,
    Deny,
}

#[derive(Clone, Copy, Deserialize)]
enum WrittenAction {
    #[serde(rename = "publish", alias = "pub")]
    Publish,
    #[serde(rename = "subscribe", alias = "sub")]
    Subscribe,
    #[serde(rename = "all", alias = "pubsub")]
    All,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum OneOrMore {
    One(u8),
    More(Vec<u8>),
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Retain {
    Flag(bool),
    Number(u8),
    Text(String),
}

impl Written {
    fn rules(self) -> Result<Vec<ClientRule>, String> {
        let allow = self.permission == Permission::Allow;
        let action = match self.action {
            WrittenAction::Publish => Verb::Publish,
            WrittenAction::Subscribe => Verb::Subscribe,
            WrittenAction::All => Verb::All,
        };
        let qos = match self.qos {
            None => None,
            Some(OneOrMore::One(number)) => Some(set(&[number])?),
            Some(OneOrMore::More(numbers)) if numbers.is_empty() => {
                return Err("qos is an empty list, which no packet fits".to_owned());
            }
            Some(OneOrMore::More(numbers)) => Some(set(&numbers)?),
        };
        let retain = match self.retain {
            None => None,
            Some(Retain::Flag(flag)) => Some(flag),
            Some(Retain::Number(0)) => Some(false),
            Some(Retain::Number(1)) => Some(true),
            Some(Retain::Text(text)) if text == "all" => None,
            Some(Retain::Number(_) | Retain::Text(_)) => {
                return Err("retain is not true, false or \"all\"".to_owned());
            }
        };
        let topics: Vec<String> = self.topic.into_iter().chain(self.topics).collect();
        if topics.is_empty() {
            return Err("a rule has no topic".to_owned());
        }
        Ok(topics.iter().map(|topic| rule(allow, action, topic, qos, retain)).collect())
    }
}

fn set(numbers: &[u8]) -> Result<QosSet, String> {
    numbers.iter().try_fold(QosSet::NONE, |set, number| {
        QoS::from_bits(*number).map(|qos| set.with(qos)).ok_or("qos is not 0, 1 or 2".to_owned())
    })
}

fn rule(
    allow: bool,
    action: Verb,
    topic: &str,
    qos: Option<QosSet>,
    retain: Option<bool>,
) -> ClientRule {
    let (filter, eq) = match topic.strip_prefix("eq ") {
        Some(filter) => (filter, true),
        None => (topic, false),
    };
    ClientRule { allow, action, topic: filter.to_owned(), eq, qos, retain }
}
