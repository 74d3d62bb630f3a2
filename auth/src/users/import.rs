//! Users of other brokers. // AU03
//!
//! | format | who writes it |
//! |---|---|
//! | `mosquitto` | `mosquitto_passwd`: `name:$7$…`, `name:$6$…`, and `name:$argon2id$…` of 2.1 |
//! | `emqx-csv` | EMQX: `user_id,password_hash,salt,is_superuser`, or `user_id,password,is_superuser` |
//! | `emqx-json` | the same as a list of objects |

use std::str::FromStr;

use serde::Deserialize;

use super::{By, Record};
use crate::password::{DigestHash, DigestKind, Hash, Mac, Pbkdf2Hash, Scheme};
use crate::text::from_hex;

/// Errors shown before the rest is only counted.
pub const ERRORS_MAX: usize = 20;

/// What a file of users looks like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// A password file of Mosquitto.
    Mosquitto,
    /// A CSV file of EMQX.
    EmqxCsv,
    /// A JSON file of EMQX.
    EmqxJson,
}

impl FromStr for Format {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        const NAMES: &[(&str, Format)] = &[
            ("mosquitto", Format::Mosquitto),
            ("emqx-csv", Format::EmqxCsv),
            ("emqx-json", Format::EmqxJson),
        ];
        NAMES.iter().find(|(known, _)| *known == name).map(|(_, format)| *format).ok_or_else(|| {
            let near = crate::config::nearest(name, NAMES.iter().map(|(name, _)| *name));
            format!("\"{name}\" is not a format; nearest: \"{near}\"")
        })
    }
}

/// How an import is to be read. EMQX does not write it into the file: it is `password_hash_algorithm` there.
#[derive(Clone, Debug)]
pub struct Options {
    /// What the users are known by.
    pub by: By,
    /// How `password_hash` of EMQX was made.
    pub algorithm: Algorithm,
    /// How passwords that are not hashed become so.
    pub scheme: Scheme,
}

/// `password_hash_algorithm` of EMQX.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Algorithm {
    /// `md5`, `sha`, `sha256`, `sha512` with `salt_position`.
    Digest {
        /// The name, as EMQX writes it.
        kind: DigestName,
        /// `prefix` (or `disable`); otherwise `suffix`.
        salt_first: bool,
    },
    /// `bcrypt`.
    Bcrypt,
    /// `pbkdf2` with `mac_fun` and `iterations`; the salt is text.
    Pbkdf2 {
        /// `sha`, `sha256` or `sha512`.
        mac: DigestName,
        /// `iterations`.
        iterations: u32,
    },
}

/// A digest as EMQX names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DigestName {
    /// `md5`.
    Md5,
    /// `sha`.
    Sha,
    /// `sha256`.
    Sha256,
    /// `sha512`.
    Sha512,
}

impl Algorithm {
    /// Reads `sha256`, `bcrypt` and the like; `salt_first` and `iterations` matter for some.
    ///
    /// # Errors
    /// When there is no such algorithm.
    pub fn named(name: &str, salt_first: bool, iterations: u32) -> Result<Self, String> {
        const NAMES: &[&str] = &[
            "md5",
            "sha",
            "sha256",
            "sha512",
            "bcrypt",
            "pbkdf2-sha",
            "pbkdf2-sha256",
            "pbkdf2-sha512",
        ];
        let digest = |name| match name {
            "md5" => Some(DigestName::Md5),
            "sha" | "sha1" => Some(DigestName::Sha),
            "sha256" => Some(DigestName::Sha256),
            "sha512" => Some(DigestName::Sha512),
            _ => None,
        };
        if name == "bcrypt" {
            return Ok(Self::Bcrypt);
        }
        if let Some(mac) = name.strip_prefix("pbkdf2-").and_then(digest)
            && mac != DigestName::Md5
        {
            return Ok(Self::Pbkdf2 { mac, iterations });
        }
        digest(name).map(|kind| Self::Digest { kind, salt_first }).ok_or_else(|| {
            let near = crate::config::nearest(name, NAMES.iter().copied());
            format!("\"{name}\" is not an algorithm of EMQX; nearest: \"{near}\"")
        })
    }

    fn hash(&self, hash: &str, salt: &str) -> Result<Hash, String> {
        let hex = || from_hex(hash).ok_or_else(|| "password_hash is not hexadecimal".to_owned());
        let made = match self {
            Self::Bcrypt => return hash.parse(),
            Self::Digest { kind, salt_first } => {
                let kind = match kind {
                    DigestName::Md5 => DigestKind::Md5,
                    DigestName::Sha => DigestKind::Sha1,
                    DigestName::Sha256 => DigestKind::Sha256,
                    DigestName::Sha512 => DigestKind::Sha512,
                };
                let (salt, output) = (salt.as_bytes().into(), hex()?.into());
                Hash::Digest(DigestHash { kind, salt_first: *salt_first, salt, output })
            }
            Self::Pbkdf2 { mac, iterations } => {
                let mac = match mac {
                    DigestName::Sha256 => Mac::Sha256,
                    DigestName::Sha512 => Mac::Sha512,
                    DigestName::Md5 | DigestName::Sha => Mac::Sha1,
                };
                let (salt, output) = (salt.as_bytes().into(), hex()?.into());
                Hash::Pbkdf2(Pbkdf2Hash { mac, iterations: *iterations, salt, output })
            }
        };
        // The same bounds as for a line of ours.
        made.to_string().parse()
    }
}

/// Reads the users of another broker.
///
/// # Errors
/// A sentence for each line that is wrong, up to [`ERRORS_MAX`]; none is imported then.
pub fn parse(format: Format, text: &str, options: &Options) -> Result<Vec<Record>, Vec<String>> {
    let text = text.trim_start_matches('\u{feff}');
    let (mut records, mut errors) = (Vec::new(), Vec::new());
    let mut take = |result: Result<Record, String>| match result {
        Ok(record) => records.push(record),
        Err(error) => errors.push(error),
    };
    match format {
        Format::Mosquitto => mosquitto(text, options.by).for_each(&mut take),
        Format::EmqxCsv => csv(text, options).for_each(&mut take),
        Format::EmqxJson => json(text, options).for_each(&mut take),
    }
    if errors.len() > ERRORS_MAX {
        let more = errors.len() - ERRORS_MAX;
        errors.truncate(ERRORS_MAX);
        errors.push(format!("and {more} more"));
    }
    if errors.is_empty() { Ok(records) } else { Err(errors) }
}

fn mosquitto(text: &str, by: By) -> impl Iterator<Item = Result<Record, String>> {
    let lines = text.lines().enumerate().map(|(number, line)| (number + 1, line.trim()));
    lines.filter(|(_, line)| !line.is_empty() && !line.starts_with('#')).map(
        move |(number, line)| {
            let record = || {
                let (name, hash) = line.split_once(':').ok_or("there is no \":\"".to_owned())?;
                let mut record = Record::new(by, name);
                record.hash = Some(mosquitto_hash(hash)?);
                record.check().map(|()| record)
            };
            record().map_err(|error| format!("line {number}: {error}"))
        },
    )
}

/// `$7$ITERATIONS$SALT$HASH` is PBKDF2 with HMAC-SHA-512; `$6$SALT$HASH` is SHA-512 of password and salt.
fn mosquitto_hash(text: &str) -> Result<Hash, String> {
    if let Some(rest) = text.strip_prefix("$7$") {
        return format!("$pbkdf2-sha512$i={rest}").parse();
    }
    if let Some(rest) = text.strip_prefix("$6$") {
        return format!("$sha512$suffix${rest}").parse();
    }
    if text.starts_with("$argon2") {
        return text.parse();
    }
    Err("the password is not hashed: run `mosquitto_passwd -U` on the file first".to_owned())
}

/// A user as EMQX writes it.
#[derive(Deserialize)]
struct Emqx {
    user_id: String,
    password_hash: Option<String>,
    password: Option<String>,
    salt: Option<String>,
    #[serde(default)]
    is_superuser: Option<Flag>,
}

/// Exports have had all of these.
#[derive(Deserialize)]
#[serde(untagged)]
enum Flag {
    Bool(bool),
    Number(u8),
    Text(String),
}

impl Emqx {
    fn record(self, options: &Options) -> Result<Record, String> {
        let mut record = Record::new(options.by, &self.user_id);
        record.hash = Some(match (self.password_hash, self.password) {
            (Some(hash), None) => {
                options.algorithm.hash(&hash, self.salt.as_deref().unwrap_or_default())?
            }
            (None, Some(password)) => Hash::make(options.scheme, password.as_bytes())?,
            _ => return Err("needs password_hash or password, and not both".to_owned()),
        });
        record.superuser = match self.is_superuser {
            None | Some(Flag::Bool(false) | Flag::Number(0)) => false,
            Some(Flag::Bool(true) | Flag::Number(1)) => true,
            Some(Flag::Text(text)) => match text.as_str() {
                "true" | "1" => true,
                "false" | "0" | "" => false,
                other => return Err(format!("is_superuser is \"{other}\", not true or false")),
            },
            Some(Flag::Number(other)) => {
                return Err(format!("is_superuser is {other}, not 0 or 1"));
            }
        };
        record.check().map(|()| record)
    }
}

fn csv<'a>(
    text: &'a str,
    options: &'a Options,
) -> impl Iterator<Item = Result<Record, String>> + 'a {
    let reader = csv::ReaderBuilder::new().trim(csv::Trim::All).from_reader(text.as_bytes());
    reader.into_deserialize::<Emqx>().map(move |user| {
        // The error of the reader says line and column.
        let user = user.map_err(|error| error.to_string())?;
        let name = user.user_id.clone();
        user.record(options).map_err(|error| format!("user \"{name}\": {error}"))
    })
}

fn json<'a>(
    text: &'a str,
    options: &'a Options,
) -> impl Iterator<Item = Result<Record, String>> + 'a {
    let list: Result<Vec<serde_json::Value>, _> = serde_json::from_str(text);
    let (list, error) = match list {
        Ok(list) => (list, None),
        Err(error) => (Vec::new(), Some(Err(format!("not a list of users in JSON: {error}")))),
    };
    let users = list.into_iter().enumerate().map(move |(number, value)| {
        let user: Result<Emqx, _> = serde_json::from_value(value);
        let user = user.map_err(|error| error.to_string()).and_then(|user| user.record(options));
        user.map_err(|error| format!("user {}: {error}", number + 1))
    });
    error.into_iter().chain(users)
}
