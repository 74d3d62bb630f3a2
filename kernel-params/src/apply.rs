//! Changes a host, and takes it back.
//!
//! Before the first change everything that will be overwritten is in the undo file, on disk. Undoing writes it
//! back byte for byte, last change first, and looks whether it is what it was.

use std::fs;
use std::io::{self, Write};
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::host::Host;
use crate::judge::Finding;
use crate::parameter::Change;
use crate::persist;

/// Version of the undo file.
const UNDO_VERSION: u32 = 1;

/// One file that is written.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Step {
    /// Relative to the host's root.
    pub path: String,
    /// What is in it now; `None`: there is no such file.
    pub before: Option<String>,
    /// What is written.
    pub after: String,
    /// Lives in the kernel, not on a disk: written in place.
    pub kernel: bool,
}

/// What a host was before it was changed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Undo {
    /// Of this format.
    pub version: u32,
    /// Release of the kernel that was changed: kernel settings of another boot are not put back.
    pub boot_id: String,
    /// In the order in which they are done.
    pub steps: Vec<Step>,
}

/// How a step ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Outcome {
    /// Its file.
    pub path: String,
    /// What was written there.
    pub wrote: String,
    /// Why it failed.
    pub error: Option<String>,
    /// What a person with the privilege would type.
    pub command: String,
}

/// The file with the boot's identity.
const BOOT_ID: &str = "proc/sys/kernel/random/boot_id";

/// What would be written: settings of the kernel, and with `persist` the files that keep them over a reboot.
///
/// # Errors
/// A file to be replaced that cannot be read.
pub fn plan(host: &Host, findings: &[Finding], persist: bool) -> io::Result<Vec<Step>> {
    let mut steps = Vec::new();
    for finding in findings.iter().filter(|f| f.wants_change()) {
        let Some(after) = &finding.proposed else { continue };
        if !matches!(finding.change, Change::Sysctl | Change::File) {
            continue;
        }
        steps.push(Step {
            before: Some(fs::read_to_string(host.path(&finding.path))?),
            path: finding.path.clone(),
            after: after.clone(),
            kernel: true,
        });
    }
    if persist {
        for (path, after) in persist::files(findings) {
            let before = match fs::read_to_string(host.path(&path)) {
                Ok(text) => Some(text),
                Err(error) if error.kind() == io::ErrorKind::NotFound => None,
                Err(error) => return Err(io::Error::new(error.kind(), format!("{path}: {error}"))),
            };
            if before.as_deref() != Some(&after) {
                steps.push(Step { path, before, after, kernel: false });
            }
        }
    }
    Ok(steps)
}

/// Does the steps. A step that fails does not keep the others from being done.
///
/// # Errors
/// The undo file cannot be written, or there is one already: then nothing was changed.
pub fn apply(host: &Host, steps: &[Step], undo_file: &Path) -> io::Result<Vec<Outcome>> {
    let undo =
        Undo { version: UNDO_VERSION, boot_id: host.text_or_empty(BOOT_ID), steps: steps.to_vec() };
    write_undo(&undo, undo_file)?;
    Ok(steps.iter().map(|step| outcome(step, write(host, step, &step.after))).collect())
}

fn outcome(step: &Step, done: io::Result<()>) -> Outcome {
    Outcome {
        path: step.path.clone(),
        wrote: step.after.clone(),
        error: done.err().map(|e| e.to_string()),
        command: command(step),
    }
}

/// What does the step by hand.
#[must_use]
pub fn command(step: &Step) -> String {
    let quoted = step.after.replace('\'', "'\\''");
    match step.path.strip_prefix("proc/sys/") {
        Some(name) if step.kernel => format!("sysctl -w {}='{quoted}'", name.replace('/', ".")),
        _ if step.kernel => format!("echo '{quoted}' > /{}", step.path),
        _ => format!("install -D /dev/stdin /{} <<'EOF'\n{}EOF", step.path, step.after),
    }
}

fn write_undo(undo: &Undo, path: &Path) -> io::Result<()> {
    let named = |e: io::Error| io::Error::new(e.kind(), format!("{}: {e}", path.display()));
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder).map_err(named)?;
    }
    let file = fs::OpenOptions::new().write(true).create_new(true).open(path);
    let mut file = file.map_err(|e| match e.kind() {
        io::ErrorKind::AlreadyExists => io::Error::new(
            e.kind(),
            format!(
                "{} is there already: what was changed then is not undone yet (--undo), or name \
                 another file (--undo-file)",
                path.display()
            ),
        ),
        _ => named(e),
    })?;
    file.write_all(serde_json::to_string_pretty(undo)?.as_bytes()).map_err(named)?;
    file.write_all(b"\n").map_err(named)?;
    file.sync_all().map_err(named)
}

fn write(host: &Host, step: &Step, text: &str) -> io::Result<()> {
    let path = host.path(&step.path);
    if step.kernel {
        // One write: the kernel takes each as a whole value.
        let mut file = fs::OpenOptions::new().write(true).truncate(true).open(path)?;
        return file.write_all(text.as_bytes());
    }
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder)?;
    }
    // Whole or not at all: a service manager may read it at any time.
    let beside = path.with_extension("ringmain-new");
    let mut file = fs::File::create(&beside)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    fs::rename(beside, path)
}

/// What is undone, and what is not.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Undone {
    /// Files that are as they were.
    pub restored: Vec<String>,
    /// Files that were changed by somebody else meanwhile, and were left alone.
    pub left: Vec<String>,
    /// Files that could not be put back, and why.
    pub failed: Vec<String>,
}

/// Takes back what [`apply`] did, and removes the undo file when everything is as it was.
///
/// # Errors
/// The undo file cannot be read or is none.
pub fn undo(host: &Host, undo_file: &Path, force: bool) -> io::Result<Undone> {
    let named = |e: io::Error| io::Error::new(e.kind(), format!("{}: {e}", undo_file.display()));
    let text = fs::read_to_string(undo_file).map_err(named)?;
    let undo: Undo = serde_json::from_str(&text).map_err(|e| named(e.into()))?;
    if undo.version != UNDO_VERSION {
        let why = format!("version {} of undo files is not known", undo.version);
        return Err(named(io::Error::new(io::ErrorKind::InvalidData, why)));
    }
    let same_boot = undo.boot_id == host.text_or_empty(BOOT_ID);
    let mut done = Undone::default();
    for step in undo.steps.iter().rev() {
        if step.kernel && !same_boot {
            // The reboot took it back.
            done.restored.push(step.path.clone());
            continue;
        }
        let now = fs::read_to_string(host.path(&step.path)).ok();
        if now == step.before {
            done.restored.push(step.path.clone());
        } else if !force && !now.as_deref().is_some_and(|now| is_value(now, &step.after)) {
            done.left.push(step.path.clone());
        } else {
            match restore(host, step) {
                Ok(()) => done.restored.push(step.path.clone()),
                Err(error) => done.failed.push(format!("{}: {error}", step.path)),
            }
        }
    }
    if done.left.is_empty() && done.failed.is_empty() {
        fs::remove_file(undo_file).map_err(named)?;
    }
    Ok(done)
}

fn restore(host: &Host, step: &Step) -> io::Result<()> {
    match &step.before {
        None => fs::remove_file(host.path(&step.path))?,
        Some(before) => write(host, step, if step.kernel { value_of(before) } else { before })?,
    }
    let now = fs::read_to_string(host.path(&step.path)).ok();
    if now == step.before {
        return Ok(());
    }
    Err(io::Error::other(format!("it is {now:?} now, and was {:?}", step.before)))
}

/// What has to be written for a file to show `text`: the chosen word, where it shows all of them.
fn value_of(text: &str) -> &str {
    let chosen = text.split_whitespace().find_map(|w| w.strip_prefix('[')?.strip_suffix(']'));
    chosen.unwrap_or(text)
}

/// Whether a file that shows `text` has the value that was written: the kernel puts tabs between
/// words, and masks into words of its own.
fn is_value(text: &str, written: &str) -> bool {
    let same = value_of(text).split_whitespace().eq(written.split_whitespace());
    let digits = |text: &str| text.trim().replace(',', "").trim_start_matches('0').to_owned();
    same || digits(text) == digits(written)
}
