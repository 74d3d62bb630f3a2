//! One user, as a line.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::password::Hash;
use crate::sources::scram::{Method, StoredKeys};
use crate::{ATTRIBUTE_BYTES_MAX, ATTRIBUTES_MAX};

/// Longest line: 32 attributes of two kibibytes.
pub const LINE_BYTES_MAX: usize = 128 * 1024;
/// Longest name: the longest string of MQTT.
const NAME_BYTES_MAX: usize = 65_535;

/// What a user is known by.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum By {
    /// The user name.
    #[default]
    Username,
    /// The client identifier.
    ClientId,
}

/// A user. Its invariant: it fits on a line, and reads back as it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// What it is known by.
    pub by: By,
    /// Its name; not empty.
    pub name: Box<str>,
    /// Its password, if it has one for CONNECT.
    pub hash: Option<Hash>,
    /// Its keys for enhanced authentication.
    pub scram: Vec<StoredKeys>,
    /// Whether access rules do not bind it.
    pub superuser: bool,
    /// Attributes, at most [`ATTRIBUTES_MAX`].
    pub attributes: BTreeMap<Box<str>, Box<str>>,
}

#[derive(Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct Written<'a> {
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    username: Option<Cow<'a, str>>,
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    client_id: Option<Cow<'a, str>>,
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    hash: Option<Cow<'a, str>>,
    #[serde(borrow, default, skip_serializing_if = "Vec::is_empty")]
    scram: Vec<Cow<'a, str>>,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    superuser: bool,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    attributes: BTreeMap<Box<str>, Box<str>>,
}

/// Only what it takes to find a line.
#[derive(Deserialize)]
struct Named<'a> {
    #[serde(borrow, default)]
    username: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    client_id: Option<Cow<'a, str>>,
}

/// Whose line it is.
pub(super) fn name_of(line: &str) -> Option<(By, Cow<'_, str>)> {
    let named: Named<'_> = serde_json::from_str(line).ok()?;
    let by_id = |id| (By::ClientId, id);
    named.username.map(|name| (By::Username, name)).or(named.client_id.map(by_id))
}

impl Record {
    /// A user who cannot log in yet.
    #[must_use]
    pub fn new(by: By, name: &str) -> Self {
        let name = name.into();
        let (hash, scram, attributes) = (None, Vec::new(), BTreeMap::new());
        Self { by, name, hash, scram, superuser: false, attributes }
    }

    /// Reads a line.
    ///
    /// # Errors
    /// A sentence for the operator.
    pub fn parse(line: &str) -> Result<Self, String> {
        if line.len() > LINE_BYTES_MAX {
            return Err(format!("the line is longer than {LINE_BYTES_MAX} bytes"));
        }
        // serde would take a list for an object too.
        if !line.starts_with('{') {
            return Err("expected an object, {...}, of JSON".to_owned());
        }
        let written: Written<'_> = serde_json::from_str(line).map_err(|error| error.to_string())?;
        let (by, name) = match (written.username, written.client_id) {
            (Some(name), None) => (By::Username, name),
            (None, Some(id)) => (By::ClientId, id),
            _ => return Err("needs username or client_id, and not both".to_owned()),
        };
        let hash = written.hash.map(|hash| hash.parse()).transpose()?;
        let scram = written.scram.iter().map(|keys| keys.parse()).collect::<Result<_, _>>()?;
        let (superuser, attributes) = (written.superuser, written.attributes);
        let record = Self { by, name: name.into(), hash, scram, superuser, attributes };
        record.check()?;
        Ok(record)
    }

    /// Whether it can be a line.
    ///
    /// # Errors
    /// A sentence for the operator.
    pub fn check(&self) -> Result<(), String> {
        if self.name.is_empty() || self.name.len() > NAME_BYTES_MAX || self.name.contains('\0') {
            return Err(format!("a name has 1 to {NAME_BYTES_MAX} bytes, none of them 0"));
        }
        if self.attributes.len() > ATTRIBUTES_MAX {
            return Err(format!("there are more than {ATTRIBUTES_MAX} attributes"));
        }
        let long = |text: &str| text.len() > ATTRIBUTE_BYTES_MAX;
        if self.attributes.iter().any(|(name, value)| long(name) || long(value)) {
            return Err(format!("an attribute is longer than {ATTRIBUTE_BYTES_MAX} bytes"));
        }
        for (number, keys) in self.scram.iter().enumerate() {
            if self.scram.iter().skip(number + 1).any(|other| other.method == keys.method) {
                return Err(format!("there are two {}", keys.method.name()));
            }
        }
        Ok(())
    }

    /// The keys for a method of enhanced authentication.
    #[must_use]
    pub fn keys(&self, method: Method) -> Option<&StoredKeys> {
        self.scram.iter().find(|keys| keys.method == method)
    }
}

/// The line, without its end.
impl fmt::Display for Record {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = Some(Cow::from(&*self.name));
        let (username, client_id) = match self.by {
            By::Username => (name, None),
            By::ClientId => (None, name),
        };
        let written = Written {
            username,
            client_id,
            hash: self.hash.as_ref().map(|hash| hash.to_string().into()),
            scram: self.scram.iter().map(|keys| keys.to_string().into()).collect(),
            superuser: self.superuser,
            attributes: self.attributes.clone(),
        };
        f.write_str(&serde_json::to_string(&written).map_err(|_| fmt::Error)?)
    }
}
