//! Text with holes: `${clientid}`, `${username}` and others.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer};

use crate::config::nearest;
use crate::source::{Ask, Inputs};

/// Text with holes that a client fills. What it fills in is never read as a hole or a wildcard again.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Template {
    parts: Vec<Part>,
    text: Box<str>,
}

#[derive(Clone, PartialEq, Eq)]
enum Part {
    Text(Box<str>),
    Field(Field),
}

/// Something about a client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Field {
    ClientId,
    Username,
    Peer,
    CommonName,
    Subject,
    Attribute(Box<str>),
}

const ATTRIBUTE: &str = "client_attrs.";
const NAMES: &[(&str, Field)] = &[
    ("clientid", Field::ClientId),
    ("client_id", Field::ClientId),
    ("username", Field::Username),
    ("peerhost", Field::Peer),
    ("peer", Field::Peer),
    ("cert_common_name", Field::CommonName),
    ("cert_subject", Field::Subject),
];

impl Field {
    /// Its value; `None` if the client has none.
    pub(crate) fn of(&self, ask: Ask<'_>) -> Option<String> {
        let certificate = ask.request.certificate.as_deref();
        match self {
            Self::ClientId => Some(ask.client_id().to_owned()),
            Self::Username => ask.username().map(str::to_owned),
            Self::Peer => Some(ask.request.peer.to_string()),
            Self::CommonName => certificate?.common_name.as_deref().map(str::to_owned),
            Self::Subject => Some(certificate?.subject.to_string()),
            Self::Attribute(name) => ask.so_far.attribute(name).map(str::to_owned),
        }
    }

    pub(crate) fn input(&self) -> Inputs {
        match self {
            Self::ClientId => Inputs::CLIENT_ID,
            Self::Username => Inputs::USERNAME,
            Self::Peer => Inputs::PEER,
            Self::CommonName | Self::Subject => Inputs::CERTIFICATE,
            Self::Attribute(_) => Inputs::ATTRIBUTES,
        }
    }
}

impl FromStr for Field {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        if let Some(attribute) = name.strip_prefix(ATTRIBUTE).filter(|name| !name.is_empty()) {
            return Ok(Self::Attribute(attribute.into()));
        }
        let known = NAMES.iter().find(|(known, _)| *known == name);
        known.map(|(_, field)| field.clone()).ok_or_else(|| {
            let near = nearest(name, NAMES.iter().map(|(name, _)| *name));
            format!("\"{name}\" is nothing that a client has; nearest: \"{near}\"")
        })
    }
}

impl Template {
    /// The text with its holes filled; `None` if the client lacks something, or it is empty.
    pub(crate) fn fill(&self, ask: Ask<'_>) -> Option<String> {
        let mut filled = String::new();
        for part in &self.parts {
            match part {
                Part::Text(text) => filled.push_str(text),
                Part::Field(field) => {
                    filled.push_str(&field.of(ask).filter(|value| !value.is_empty())?);
                }
            }
        }
        Some(filled)
    }

    /// What it depends on.
    pub(crate) fn inputs(&self) -> Inputs {
        self.parts.iter().fold(Inputs::NONE, |inputs, part| match part {
            Part::Text(_) => inputs,
            Part::Field(field) => inputs.and(field.input()),
        })
    }
}

impl FromStr for Template {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut parts = Vec::new();
        let mut rest = text;
        while let Some((before, behind)) = rest.split_once("${") {
            let (name, after) =
                behind.split_once('}').ok_or_else(|| format!("\"{text}\": ${{ without }}"))?;
            if !before.is_empty() {
                parts.push(Part::Text(before.into()));
            }
            parts.push(Part::Field(name.parse().map_err(|error| format!("\"{text}\": {error}"))?));
            rest = after;
        }
        if !rest.is_empty() {
            parts.push(Part::Text(rest.into()));
        }
        Ok(Self { parts, text: text.into() })
    }
}

impl fmt::Debug for Template {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.text)
    }
}

impl<'de> Deserialize<'de> for Template {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture::{self, ask};

    #[test]
    fn holes_are_filled_once() {
        let template: Template = "d/${clientid}/${username}".parse().expect("a template");
        let request = fixture::client("${username}", "al*ce", "");
        assert_eq!(template.fill(ask(&request)).as_deref(), Some("d/${username}/al*ce"));
        assert_eq!(template.inputs(), Inputs::CLIENT_ID.and(Inputs::USERNAME));
    }

    #[test]
    fn what_a_client_lacks_fills_nothing() {
        let template: Template = "${cert_common_name}x".parse().expect("a template");
        assert_eq!(template.fill(ask(&fixture::client("c", "u", ""))), None);
    }

    #[test]
    fn an_unknown_hole_is_an_error_with_the_nearest_name() {
        let error = "${user_name}".parse::<Template>().expect_err("unknown");
        assert!(error.contains("nearest: \"username\""), "{error}");
        assert!("${clientid".parse::<Template>().is_err());
    }
}
