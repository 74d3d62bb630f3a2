//! The `acl` claim, in the two forms that EMQX reads.
//!
//! ```json
//! {"pub": ["a/${clientid}"], "sub": ["eq b/#"], "all": ["c"]}
//! [{"permission": "allow", "action": "publish", "topic": "a", "qos": [0, 1], "retain": false}]
//! ```

use ringmain_mqtt::QoS;
use ringmain_mqtt::topic::TopicFilter;
use serde::Deserialize;
use serde_json::Value;

use crate::{Action, ClientRule, RULES_MAX};

/// Reads the claim. What cannot be read whole is not read at all: half a list of rules is another list.
pub(super) fn read(claim: &Value) -> Result<Vec<ClientRule>, String> {
    let rules = match claim {
        Value::Object(_) => {
            let lists: Lists = from(claim)?;
            let allow = |(action, topics): (Action, Vec<String>)| {
                topics.into_iter().map(move |topic| rule(true, action, &topic, Vec::new(), None))
            };
            let lists = [
                (Action::Publish, lists.publish),
                (Action::Subscribe, lists.subscribe),
                (Action::All, lists.all),
            ];
            lists.into_iter().flat_map(allow).collect::<Result<Vec<_>, _>>()?
        }
        Value::Array(list) => {
            let read = |value| from::<Written>(value)?.rules();
            list.iter().map(read).collect::<Result<Vec<_>, _>>()?.concat()
        }
        _ => return Err("is neither an object nor a list".to_owned()),
    };
    match rules.len() > RULES_MAX {
        true => Err(format!("has more than {RULES_MAX} rules")),
        false => Ok(rules),
    }
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
            WrittenAction::Publish => Action::Publish,
            WrittenAction::Subscribe => Action::Subscribe,
            WrittenAction::All => Action::All,
        };
        let numbers = match self.qos {
            None => Vec::new(),
            Some(OneOrMore::One(number)) => vec![number],
            Some(OneOrMore::More(numbers)) if numbers.is_empty() => {
                return Err("qos is an empty list, which no packet fits".to_owned());
            }
            Some(OneOrMore::More(numbers)) => numbers,
        };
        let qos = numbers.iter().map(|number| QoS::from_bits(*number)).collect::<Option<Vec<_>>>();
        let qos = qos.ok_or("qos is not 0, 1 or 2")?;
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
        topics.iter().map(|topic| rule(allow, action, topic, qos.clone(), retain)).collect()
    }
}

fn rule(
    allow: bool,
    action: Action,
    topic: &str,
    qos: Vec<QoS>,
    retain: Option<bool>,
) -> Result<ClientRule, String> {
    let (filter, eq) = match topic.strip_prefix("eq ") {
        Some(filter) => (filter, true),
        None => (topic, false),
    };
    if TopicFilter::parse(filter, 0).is_err() {
        return Err(format!("\"{filter}\" is not a topic filter"));
    }
    Ok(ClientRule { allow, action, filter: filter.into(), eq, qos, retain })
}
