//! `ringmain user add | passwd | del | list | import`: changes of a file of users, for the command line.
//!
//! A broker that runs sees them within `reload_interval_s`.

use std::fs;
use std::io::Write;
use std::path::Path;

use crate::password::{Hash, Scheme};
use crate::sources::scram::{ITERATIONS, Method, StoredKeys};
use crate::users::import::{self, Format, Options};
use crate::users::{By, Database, Editor, Record};

/// A file to import is read whole.
pub const IMPORT_BYTES_MAX: u64 = 1 << 30;

/// What a user gets.
#[derive(Clone, Debug, Default)]
pub struct Secrets {
    /// How the password is hashed for CONNECT; `None`: it is not, and only enhanced authentication works.
    pub scheme: Option<Scheme>,
    /// For which methods there are keys.
    pub scram: Vec<Method>,
}

impl Secrets {
    fn apply(&self, record: &mut Record, password: &[u8]) -> Result<(), String> {
        if password.is_empty() {
            return Err("the password is empty".to_owned());
        }
        if self.scheme.is_none() && self.scram.is_empty() {
            return Err(
                "the user could not log in: choose a hash, a SCRAM method, or both".to_owned()
            );
        }
        record.hash = self.scheme.map(|scheme| Hash::make(scheme, password)).transpose()?;
        record.scram.clear();
        for method in &self.scram {
            let text =
                std::str::from_utf8(password).map_err(|_| "SCRAM needs a password in UTF-8")?;
            record.scram.push(StoredKeys::make(*method, text, ITERATIONS)?);
        }
        Ok(())
    }
}

/// Adds a user who is not there yet.
///
/// # Errors
/// A sentence for the operator; the file is as it was.
pub fn add(
    file: &Path,
    mut record: Record,
    password: &[u8],
    secrets: &Secrets,
    out: &mut dyn Write,
) -> Result<(), String> {
    let mut editor = Editor::open(file)?;
    if editor.get(record.by, &record.name).is_some() {
        let name = &record.name;
        return Err(format!(
            "\"{name}\" is there already: use `ringmain user passwd` to change the password"
        ));
    }
    secrets.apply(&mut record, password)?;
    editor.put(&record)?;
    editor.save()?;
    say(out, &format!("added \"{}\"", record.name))
}

/// Changes the password of a user, and leaves the rest.
///
/// # Errors
/// A sentence for the operator; the file is as it was.
pub fn passwd(
    file: &Path,
    (by, name): (By, &str),
    password: &[u8],
    secrets: &Secrets,
    out: &mut dyn Write,
) -> Result<(), String> {
    let mut editor = Editor::open(file)?;
    let mut record = editor.get(by, name).ok_or_else(|| unknown(&editor, by, name))?;
    secrets.apply(&mut record, password)?;
    editor.put(&record)?;
    editor.save()?;
    say(out, &format!("changed the password of \"{name}\""))
}

/// Deletes a user.
///
/// # Errors
/// A sentence for the operator; the file is as it was.
pub fn del(file: &Path, (by, name): (By, &str), out: &mut dyn Write) -> Result<(), String> {
    let mut editor = Editor::open(file)?;
    if !editor.remove(by, name) {
        return Err(unknown(&editor, by, name));
    }
    editor.save()?;
    say(out, &format!("deleted \"{name}\""))
}

/// Lists users, one a line: name, what it is known by, what it can do. Shows no hashes.
///
/// # Errors
/// A sentence for the operator.
pub fn list(file: &Path, out: &mut dyn Write) -> Result<(), String> {
    // Needs no lock, and may not be allowed to take it.
    let users = Database::open(file)?.users();
    for record in users.users() {
        let mut line = match record.by {
            By::Username => format!("username\t{}", printable(&record.name)),
            By::ClientId => format!("client_id\t{}", printable(&record.name)),
        };
        let hash = record.hash.as_ref().map(|hash| hash.to_string());
        let scheme = hash.as_deref().and_then(|hash| hash.split('$').nth(1)).map(str::to_owned);
        let methods = record.scram.iter().map(|keys| keys.method.name().to_owned());
        let ways: Vec<String> = scheme.into_iter().chain(methods).collect();
        line.push_str(&format!(
            "\t{}",
            if ways.is_empty() { "-".to_owned() } else { ways.join(",") }
        ));
        line.push_str(if record.superuser { "\tsuperuser" } else { "\t-" });
        let attributes = record.attributes.iter();
        let attributes: Vec<String> =
            attributes.map(|(name, value)| printable(&format!("{name}={value}"))).collect();
        line.push_str(&format!("\t{}", attributes.join(",")));
        say(out, line.trim_end())?;
    }
    Ok(())
}

/// Imports the users of another broker; all of them or none.
///
/// # Errors
/// What is wrong, a sentence for each user; the file is as it was.
pub fn import(
    file: &Path,
    from: &Path,
    format: Format,
    options: &Options,
    replace: bool,
    out: &mut dyn Write,
) -> Result<(), Vec<String>> {
    let one = |error: String| vec![error];
    let at = |error: std::io::Error| vec![format!("{}: {error}", from.display())];
    let bytes = fs::metadata(from).map_err(at)?.len();
    if bytes > IMPORT_BYTES_MAX {
        return Err(one(format!(
            "{}: is larger than {IMPORT_BYTES_MAX} bytes: split it",
            from.display()
        )));
    }
    let text = fs::read_to_string(from).map_err(at)?;
    let records = import::parse(format, &text, options).map_err(|errors| {
        errors.iter().map(|error| format!("{}: {error}", from.display())).collect::<Vec<_>>()
    })?;
    let mut editor = Editor::open(file).map_err(one)?;
    let (mut added, mut replaced) = (0_usize, 0_usize);
    for record in &records {
        match editor.get(record.by, &record.name) {
            Some(_) if !replace => {
                let name = &record.name;
                return Err(one(format!(
                    "\"{name}\" is there already: add --replace to overwrite users"
                )));
            }
            Some(_) => replaced += 1,
            None => added += 1,
        }
        editor.put(record).map_err(one)?;
    }
    editor.save().map_err(one)?;
    say(out, &format!("imported {} users: {added} new, {replaced} replaced", records.len()))
        .map_err(one)
}

fn unknown(editor: &Editor, by: By, name: &str) -> String {
    match editor.nearest(by, name) {
        Some(near) => format!("there is no \"{name}\"; nearest: \"{near}\""),
        None => format!("there is no \"{name}\": the file has no such users"),
    }
}

fn say(out: &mut dyn Write, line: &str) -> Result<(), String> {
    writeln!(out, "{line}").map_err(|error| format!("cannot write: {error}"))
}

/// A name with a line end must not look like two users.
fn printable(text: &str) -> String {
    text.chars()
        .flat_map(|c| if c.is_control() { c.escape_default().collect::<Vec<_>>() } else { vec![c] })
        .collect()
}

#[cfg(test)]
mod tests;
