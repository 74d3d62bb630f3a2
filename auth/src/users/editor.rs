//! Changes a file of users, whole or not at all.

use std::collections::HashMap;
use std::fs::{self, File, OpenOptions};
use std::io::{BufWriter, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use base64::Engine;

use super::{By, HEAD, Line, Record, at};
use crate::password::{BASE64, random};

/// Lives on: a command. Holds a lock while it lives, so that two commands do not undo each other's work.
#[derive(Debug)]
pub struct Editor {
    path: PathBuf,
    /// Comments too; `None` is a user who was deleted.
    lines: Vec<Option<String>>,
    index: HashMap<(By, Box<str>), usize>,
    _lock: File,
}

impl Editor {
    /// Opens a file, or begins one that is written with the first [`Self::save`].
    ///
    /// # Errors
    /// A sentence for the operator, with file and line.
    pub fn open(path: &Path) -> Result<Self, String> {
        let lock = lock_beside(path)?;
        let text = match fs::read_to_string(path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => String::new(),
            Err(error) => return Err(at(path, &error)),
        };
        let mut lines = Vec::new();
        if !text.starts_with(HEAD) {
            let secret = BASE64.encode(random::<32>()?);
            lines.push(Some(format!("{HEAD}:1,\"secret\":\"{secret}\"}}")));
        }
        let mut index = HashMap::new();
        for (number, line) in text.lines().enumerate() {
            let wrong = |error| format!("{}:{}: {error}", path.display(), number + 1);
            if let Line::User(record) = Line::of(line).map_err(wrong)?
                && index.insert((record.by, record.name), lines.len()).is_some()
            {
                return Err(wrong("this user is there twice: delete one".to_owned()));
            }
            lines.push(Some(line.to_owned()));
        }
        Ok(Self { path: path.to_owned(), lines, index, _lock: lock })
    }

    /// A user.
    #[must_use]
    pub fn get(&self, by: By, name: &str) -> Option<Record> {
        let line = self.lines.get(*self.index.get(&(by, name.into()))?)?.as_deref()?;
        Record::parse(line).ok()
    }

    /// Adds a user, or puts it in the place of the one with its name.
    ///
    /// # Errors
    /// When it cannot be a line.
    pub fn put(&mut self, record: &Record) -> Result<(), String> {
        record.check().map_err(|error| format!("\"{}\": {error}", record.name))?;
        let line = Some(record.to_string());
        let key = (record.by, record.name.clone());
        match self.index.get(&key).and_then(|at| self.lines.get_mut(*at)) {
            Some(place) => *place = line,
            None => {
                self.index.insert(key, self.lines.len());
                self.lines.push(line);
            }
        }
        Ok(())
    }

    /// Deletes a user; says whether there was one.
    pub fn remove(&mut self, by: By, name: &str) -> bool {
        let at = self.index.remove(&(by, name.into()));
        at.and_then(|at| self.lines.get_mut(at)).is_some_and(|line| line.take().is_some())
    }

    /// The name that is most like this one.
    #[must_use]
    pub fn nearest(&self, by: By, name: &str) -> Option<&str> {
        let names = self.index.keys().filter(|(kind, _)| *kind == by).map(|(_, name)| &**name);
        Some(crate::config::nearest(name, names)).filter(|near| !near.is_empty())
    }

    /// Writes the file anew: who reads it, or loses power, sees the old users or the new ones.
    ///
    /// # Errors
    /// A sentence for the operator; the file is as it was.
    pub fn save(&self) -> Result<(), String> {
        replace_file(&self.path, |out| {
            self.lines.iter().flatten().try_for_each(|line| writeln!(out, "{line}"))
        })
    }
}

/// Waits until no other command changes a file, and keeps others waiting while the lock lives.
///
/// # Errors
/// A sentence for the operator.
pub fn lock_beside(path: &Path) -> Result<File, String> {
    // The file itself is replaced, so the lock is beside it.
    let beside = with_suffix(path, ".lock");
    let lock = private().truncate(false).open(&beside).map_err(|error| at(&beside, &error))?;
    lock.lock().map_err(|error| at(&beside, &error))?;
    Ok(lock)
}

/// Writes a file anew, for its owner alone: who reads it, or loses power, sees the old one or the new one.
///
/// # Errors
/// A sentence for the operator; the file is as it was.
pub fn replace_file(
    path: &Path,
    write: impl FnOnce(&mut dyn Write) -> std::io::Result<()>,
) -> Result<(), String> {
    let temporary = with_suffix(path, ".new");
    write_beside(&temporary, path, write).map_err(|error| {
        let _ = fs::remove_file(&temporary);
        at(&temporary, &error)
    })?;
    fs::rename(&temporary, path).map_err(|error| at(path, &error))?;
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    let folder = folder.unwrap_or(Path::new("."));
    File::open(folder).and_then(|folder| folder.sync_all()).map_err(|error| at(folder, &error))
}

fn write_beside(
    temporary: &Path,
    path: &Path,
    write: impl FnOnce(&mut dyn Write) -> std::io::Result<()>,
) -> std::io::Result<()> {
    let _ = fs::remove_file(temporary);
    let file = private().create_new(true).open(temporary)?;
    // Whoever runs the broker must still be able to read it when root changed it.
    if let Ok(before) = fs::metadata(path) {
        use std::os::unix::fs::MetadataExt;
        let (user, group) = (Some(before.uid()), Some(before.gid()));
        std::os::unix::fs::fchown(&file, user, group)?;
    }
    let mut out = BufWriter::new(file);
    write(&mut out)?;
    out.into_inner().map_err(std::io::IntoInnerError::into_error)?.sync_all()
}

fn private() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.write(true).create(true).mode(0o600);
    options
}

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}
