//! The user database: one file, one user a line, in memory as it is on disk. // AU03
//!
//! ```text
//! {"ringmain_users":1,"secret":"…"}
//! {"username":"alice","hash":"$argon2id$…","superuser":true,"attributes":{"tenant":"a"}}
//! {"client_id":"sensor-7","hash":"$sha256$prefix$…$…"}
//! {"username":"bob","scram":["SCRAM-SHA-256$600000:…$…:…"]}
//! ```
//!
//! The first line has a secret, from which salts for unknown users are made; a file without it gets a new one
//! at each start. `hash` is explained in [`crate::password`], `scram` is RFC 5803. Empty lines and lines that
//! begin with `#` are skipped.

mod editor;
pub mod import;
mod record;

use std::fmt;
use std::fs::{self, File, Metadata};
use std::hash::BuildHasher;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::ArcSwap;
use base64::Engine;
use hashbrown::{DefaultHashBuilder, HashTable};
use serde::Deserialize;

use crate::password::{BASE64, Hash, random};

pub use editor::{Editor, lock_beside, replace_file};
pub use record::{By, LINE_BYTES_MAX, Record};

/// Offsets have 32 bits: room for some 20 million users.
pub const FILE_BYTES_MAX: u64 = u32::MAX as u64;

/// Lives on: the service, shared by the sources that use the same file. Readers never wait for a reload.
pub struct Database {
    path: PathBuf,
    current: ArcSwap<Snapshot>,
    seen: Mutex<Stamp>,
    generation: AtomicU64,
}

/// The users of a file at some time. Its invariant: every offset of the index begins a valid line.
pub struct Snapshot {
    text: Box<str>,
    index: HashTable<u32>,
    hasher: DefaultHashBuilder,
    secret: [u8; 32],
    dummy: Option<Hash>,
}

/// What tells one content of a file from another without reading it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stamp {
    inode: u64,
    bytes: u64,
    modified: (i64, i64),
}

impl Stamp {
    fn of(metadata: &Metadata) -> Self {
        let modified = (metadata.mtime(), metadata.mtime_nsec());
        Self { inode: metadata.ino(), bytes: metadata.len(), modified }
    }
}

impl Database {
    /// Reads a file of users.
    ///
    /// # Errors
    /// A sentence for the operator, with file and line.
    pub fn open(path: &Path) -> Result<Self, String> {
        let (snapshot, stamp) = load(path)?;
        Ok(Self {
            path: path.to_owned(),
            current: ArcSwap::from_pointee(snapshot),
            seen: Mutex::new(stamp),
            generation: AtomicU64::new(1),
        })
    }

    /// The users as they are now.
    #[must_use]
    pub fn users(&self) -> Arc<Snapshot> {
        self.current.load_full()
    }

    /// Counts the contents that were read.
    #[must_use]
    pub fn generation(&self) -> u64 {
        self.generation.load(Relaxed)
    }

    /// Reads the file again if it has changed, and says whether it has. Blocks: seconds for millions of users.
    ///
    /// # Errors
    /// A sentence for the operator; the users stay as they were.
    pub fn refresh(&self) -> Result<bool, String> {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let metadata = fs::metadata(&self.path).map_err(|error| at(&self.path, &error))?;
        if Stamp::of(&metadata) == *seen {
            return Ok(false);
        }
        let (mut snapshot, stamp) = load(&self.path)?;
        if !has_secret(&snapshot.text) {
            snapshot.secret = self.current.load().secret;
        }
        self.current.store(Arc::new(snapshot));
        self.generation.fetch_add(1, Relaxed);
        *seen = stamp;
        Ok(true)
    }
}

impl Snapshot {
    /// Reads lines. `name` is for errors.
    ///
    /// # Errors
    /// The first line that is wrong, and what to do about it.
    pub fn parse(text: Box<str>, name: &str) -> Result<Self, String> {
        if text.len() as u64 > FILE_BYTES_MAX {
            return Err(format!("{name}: is larger than {FILE_BYTES_MAX} bytes: split it"));
        }
        let hasher = DefaultHashBuilder::default();
        let (mut index, mut dummy, mut secret) = (HashTable::new(), None, None);
        let mut offset = 0_usize;
        for (number, line) in text.split('\n').enumerate() {
            let here = offset;
            offset += line.len() + 1;
            let wrong = |error: String| format!("{name}:{}: {error}", number + 1);
            match Line::of(line).map_err(wrong)? {
                Line::Empty => {}
                Line::Head(found) if number == 0 => secret = Some(found),
                Line::Head(_) => {
                    return Err(wrong("only the first line can be the head".to_owned()));
                }
                Line::User(record) => {
                    let hash = hasher.hash_one((record.by, &*record.name));
                    let same = |other: &u32| is(&text, *other, record.by, &record.name);
                    if let Some(other) = index.find(hash, same) {
                        let before = text.get(..*other as usize).unwrap_or_default();
                        let first = before.matches('\n').count() + 1;
                        let who = &record.name;
                        return Err(wrong(format!(
                            "\"{who}\" is on line {first} already: delete one"
                        )));
                    }
                    let again = |other: &u32| key(&text, *other, &hasher);
                    index.insert_unique(hash, here as u32, again);
                    dummy = dummy.or(record.hash);
                }
            }
        }
        index.shrink_to_fit(|other| key(&text, *other, &hasher));
        let secret = match secret {
            Some(secret) => secret,
            None => random()?,
        };
        Ok(Self { text, index, hasher, secret, dummy })
    }

    /// A user by name, in about a microsecond.
    #[must_use]
    pub fn get(&self, by: By, name: &str) -> Option<Record> {
        let hash = self.hasher.hash_one((by, name));
        let offset = self.index.find(hash, |offset| is(&self.text, *offset, by, name))?;
        Record::parse(line_at(&self.text, *offset)).ok()
    }

    /// All users, in the order of the file.
    pub fn users(&self) -> impl Iterator<Item = Record> {
        self.text.split('\n').filter_map(|line| match Line::of(line) {
            Ok(Line::User(record)) => Some(record),
            _ => None,
        })
    }

    /// How many users there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.index.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.index.is_empty()
    }

    /// The hash of some user: who checks it against an unknown user's password does the same work. // AU16
    #[must_use]
    pub fn dummy(&self) -> Option<&Hash> {
        self.dummy.as_ref()
    }

    /// What salts of unknown users are made from.
    pub(crate) fn secret(&self) -> &[u8; 32] {
        &self.secret
    }
}

/// What stands on a line.
enum Line {
    Empty,
    Head([u8; 32]),
    User(Record),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Head {
    ringmain_users: u32,
    secret: String,
}

const HEAD: &str = "{\"ringmain_users\"";

impl Line {
    fn of(line: &str) -> Result<Self, String> {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            return Ok(Self::Empty);
        }
        if !line.starts_with(HEAD) {
            return Record::parse(line).map(Self::User);
        }
        let head: Head = serde_json::from_str(line).map_err(|error| error.to_string())?;
        if head.ringmain_users != 1 {
            return Err(format!("version {} is newer than this program", head.ringmain_users));
        }
        let secret = BASE64.decode(&head.secret).ok().and_then(|secret| secret.try_into().ok());
        secret.map(Self::Head).ok_or_else(|| "the secret is not base64 of 32 bytes".to_owned())
    }
}

fn has_secret(text: &str) -> bool {
    text.starts_with(HEAD)
}

fn line_at(text: &str, offset: u32) -> &str {
    let rest = text.get(offset as usize..).unwrap_or_default();
    // As when it was read first.
    rest.split('\n').next().unwrap_or_default().trim()
}

fn is(text: &str, offset: u32, by: By, name: &str) -> bool {
    record::name_of(line_at(text, offset)).is_some_and(|(kind, known)| kind == by && known == name)
}

fn key(text: &str, offset: u32, hasher: &DefaultHashBuilder) -> u64 {
    let (by, name) = record::name_of(line_at(text, offset)).unwrap_or_default();
    hasher.hash_one((by, &*name))
}

fn load(path: &Path) -> Result<(Snapshot, Stamp), String> {
    let mut file = File::open(path).map_err(|error| match error.kind() {
        std::io::ErrorKind::NotFound => {
            let path = path.display();
            format!(
                "{path}: there is no such file: make it with `ringmain user add --file {path} NAME`"
            )
        }
        _ => at(path, &error),
    })?;
    let metadata = file.metadata().map_err(|error| at(path, &error))?;
    if metadata.mode() & 0o007 != 0 {
        tracing::warn!(file = %path.display(), "others can read or write this file of passwords: chmod o= it");
    }
    let mut text = String::with_capacity(metadata.len() as usize);
    std::io::Read::read_to_string(&mut file, &mut text).map_err(|error| at(path, &error))?;
    // The stamp from before reading: a file that is written in place meanwhile is read again.
    let stamp = Stamp::of(&metadata);
    Ok((Snapshot::parse(text.into(), &path.display().to_string())?, stamp))
}

fn at(path: &Path, error: &dyn fmt::Display) -> String {
    format!("{}: {error}", path.display())
}

impl fmt::Debug for Database {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Database").field("path", &self.path).finish_non_exhaustive()
    }
}

impl fmt::Debug for Snapshot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Snapshot").field("users", &self.len()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
