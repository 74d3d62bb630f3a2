//! What a rule looks at.

use std::collections::BTreeMap;

use ipnet::IpNet;
use regex::{Regex, RegexBuilder};
use serde::de::Error;
use serde::{Deserialize, Deserializer};

use crate::config::nearest;
use crate::source::Ask;
use crate::template::Field;

/// Compiled size of one expression, in bytes.
const REGEX_BYTES_MAX: usize = 1 << 20;

/// Conditions that must all hold.
#[derive(Clone, Debug, Default)]
pub(super) struct When(Vec<(Field, Test)>);

/// One condition. A field that the client lacks meets none but `present = false`.
#[derive(Clone, Debug)]
enum Test {
    Equals(Vec<String>),
    Prefix(String),
    Matches(Regex),
    Within(IpNet),
    Present(bool),
    Not(Box<Self>),
}

const TESTS: &[&str] = &["equals", "prefix", "regex", "cidr", "present", "not"];

impl When {
    pub(super) fn holds(&self, ask: Ask<'_>) -> bool {
        self.0.iter().all(|(field, test)| test.holds(field.of(ask).as_deref()))
    }
}

impl Test {
    fn holds(&self, value: Option<&str>) -> bool {
        let Some(value) = value else { return matches!(self, Self::Present(false)) };
        match self {
            Self::Equals(known) => known.iter().any(|known| known == value),
            Self::Prefix(prefix) => value.starts_with(prefix),
            Self::Matches(regex) => regex.is_match(value),
            Self::Within(net) => {
                let address = value.parse::<std::net::IpAddr>();
                address.is_ok_and(|address| net.contains(&address.to_canonical()))
            }
            Self::Present(present) => *present,
            Self::Not(test) => !test.holds(Some(value)),
        }
    }

    fn read(field: &Field, value: &toml::Value) -> Result<Self, String> {
        match value {
            toml::Value::String(text) => Ok(Self::Equals(vec![text.clone()])),
            toml::Value::Array(list) => {
                let texts = list.iter().map(|item| item.as_str().map(str::to_owned));
                let texts = texts.collect::<Option<Vec<_>>>();
                texts.map(Self::Equals).ok_or_else(|| "a list has texts only".to_owned())
            }
            toml::Value::Table(table) if table.len() == 1 => match table.iter().next() {
                Some((kind, value)) => Self::one(field, kind, value),
                None => Err("is empty".to_owned()),
            },
            _ => Err(format!(
                "must be a text, a list of texts, or a table with one of {}",
                TESTS.join(", ")
            )),
        }
    }

    fn one(field: &Field, kind: &str, value: &toml::Value) -> Result<Self, String> {
        let text = || value.as_str().ok_or_else(|| format!("{kind} must be a text"));
        match kind {
            "equals" => Self::read(field, value),
            "prefix" => Ok(Self::Prefix(text()?.to_owned())),
            "regex" => {
                let mut builder = RegexBuilder::new(text()?);
                let regex = builder.size_limit(REGEX_BYTES_MAX).build();
                regex.map(Self::Matches).map_err(|error| format!("regex: {error}"))
            }
            "cidr" if *field != Field::Peer => Err("cidr is for peer only".to_owned()),
            "cidr" => {
                let net = text()?.parse();
                net.map(Self::Within)
                    .map_err(|_| "cidr is not a network, such as 10.0.0.0/8".to_owned())
            }
            "present" => {
                let present = value.as_bool();
                present.map(Self::Present).ok_or_else(|| "present must be true or false".to_owned())
            }
            "not" => Ok(Self::Not(Box::new(Self::read(field, value)?))),
            other => {
                let near = nearest(other, TESTS.iter().copied());
                Err(format!("\"{other}\" is not a condition; nearest: \"{near}\""))
            }
        }
    }
}

impl<'de> Deserialize<'de> for When {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let table = BTreeMap::<String, toml::Value>::deserialize(deserializer)?;
        let read = |(name, value): (&String, &toml::Value)| {
            let field: Field = name.parse()?;
            let test = Test::read(&field, value).map_err(|error| format!("{name}: {error}"))?;
            Ok::<_, String>((field, test))
        };
        table.iter().map(read).collect::<Result<_, _>>().map(Self).map_err(D::Error::custom)
    }
}
