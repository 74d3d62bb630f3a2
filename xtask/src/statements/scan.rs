//! Finds the citations in the repository and says for each whether it stands in a test.

use std::collections::BTreeSet;
use std::path::Path;

use super::{Edition, StatementId, rust_source, script_source};

/// Folders that hold no sources of ours, and this crate, whose tests quote made-up citations.
const SKIPPED: &[&str] =
    &["target", "docs", "xtask", "node_modules", "__pycache__", "venv", "site-packages"];

/// Families that exercise the broker: their citations outside tests implement nothing.
const SUPPORT: &[&str] = &["sim", "loadgen", "bench", "tests"];

/// Where a citation stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// The broker's own code.
    Implementation,
    /// A test, by name.
    Test(String),
    /// Code that only serves tests and measurements.
    Support,
}

/// One statement number quoted in a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Citation {
    pub(super) id: StatementId,
    /// Path from the repository's root.
    pub(super) file: String,
    /// Counted from 1.
    pub(super) line: u32,
    pub(super) place: Place,
}

/// What a scan found: citations, and tags that look like citations but are none.
#[derive(Debug, Default)]
pub(super) struct Scan {
    pub(super) citations: Vec<Citation>,
    pub(super) problems: Vec<String>,
}

/// A source file in memory: the scanners do no I/O.
#[derive(Debug)]
pub(super) struct Source {
    /// Path from the repository's root, with `/`.
    pub(super) path: String,
    pub(super) text: String,
}

pub(super) fn repository(root: &Path) -> Result<Scan, String> {
    let mut sources = Vec::new();
    read_folder(root, "", &mut sources)?;
    sources.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(scan(&sources))
}

fn read_folder(folder: &Path, prefix: &str, sources: &mut Vec<Source>) -> Result<(), String> {
    let failed = |error| format!("cannot read {}: {error}", folder.display());
    for entry in std::fs::read_dir(folder).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        let kind = entry.file_type().map_err(failed)?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if name.starts_with('.') {
            continue;
        }
        let path = format!("{prefix}{name}");
        if kind.is_dir() {
            if !SKIPPED.contains(&name.as_str()) {
                read_folder(&entry.path(), &format!("{path}/"), sources)?;
            }
        } else if kind.is_file() && Language::of(&path).is_some() {
            let text = std::fs::read_to_string(entry.path())
                .map_err(|error| format!("cannot read {path}: {error}"))?;
            sources.push(Source { path, text });
        }
    }
    Ok(())
}

#[derive(Clone, Copy)]
enum Language {
    Rust,
    Python,
    JavaScript,
}

impl Language {
    fn of(path: &str) -> Option<Self> {
        match path.rsplit_once('.')?.1 {
            "rs" => Some(Self::Rust),
            "py" => Some(Self::Python),
            "js" | "mjs" | "cjs" | "ts" => Some(Self::JavaScript),
            _ => None,
        }
    }
}

/// Scans sources; where a test module is a file of its own, its declaration is among them too.
pub(super) fn scan(sources: &[Source]) -> Scan {
    let mut outlines = Vec::with_capacity(sources.len());
    let mut test_modules = BTreeSet::new();
    for source in sources {
        let outline = matches!(Language::of(&source.path), Some(Language::Rust))
            .then(|| rust_source::Outline::of(&source.text));
        if let Some(outline) = &outline {
            for name in &outline.test_module_files {
                test_modules.insert(module_path(&source.path, name));
            }
        }
        outlines.push(outline);
    }
    let mut found = Scan::default();
    for (source, outline) in sources.iter().zip(&outlines) {
        scan_source(source, outline.as_ref(), &test_modules, &mut found);
    }
    found
}

/// The path, without `.rs`, of what `mod name;` in the file declares.
fn module_path(file: &str, name: &str) -> String {
    let stem = file.strip_suffix(".rs").unwrap_or(file);
    let (folder, own) = stem.rsplit_once('/').unwrap_or(("", stem));
    let folder = if matches!(own, "lib" | "main" | "mod") { folder } else { stem };
    format!("{folder}/{name}")
}

fn is_in_test_file(path: &str, test_modules: &BTreeSet<String>) -> bool {
    let stem = path.strip_suffix(".rs").unwrap_or(path);
    let folders = stem.match_indices('/').map(|(end, _)| &stem[..end]);
    folders
        .chain([stem])
        .any(|part| part == "tests" || part.ends_with("/tests") || test_modules.contains(part))
}

fn scan_source(
    source: &Source,
    outline: Option<&rust_source::Outline>,
    test_modules: &BTreeSet<String>,
    found: &mut Scan,
) {
    let Source { path, text } = source;
    if !text.contains("[MQTT") {
        return;
    }
    let in_tests = is_in_test_file(path, test_modules);
    let scripts = match Language::of(path) {
        Some(Language::Python) => script_source::python_tests(text),
        Some(Language::JavaScript) => script_source::javascript_tests(text),
        _ => Vec::new(),
    };
    let family = path.split('/').next().unwrap_or_default();
    for (index, line_text) in text.lines().enumerate() {
        for tag in tags(line_text) {
            let number = u32::try_from(index + 1).unwrap_or(u32::MAX);
            let id = match tag {
                Ok(id) => id,
                Err(tag) => {
                    found.problems.push(format!("{path}:{number}: {tag} is no citation"));
                    continue;
                }
            };
            let test = match outline {
                Some(outline) => outline.test_at(index, in_tests, path),
                None => script_source::test_at(&scripts, index),
            };
            let place = match test {
                Some(name) => Place::Test(name),
                None if in_tests || SUPPORT.contains(&family) => Place::Support,
                None => Place::Implementation,
            };
            found.citations.push(Citation { id, file: path.clone(), line: number, place });
        }
    }
}

/// The citations in a line: `[MQTT-3.1.2-6]`, `[MQTT311-3.1.2-2]`, several with commas between.
///
/// A bracket that begins like one and is none comes back as an error, so a typo cannot silently
/// cover nothing.
pub(super) fn tags(line: &str) -> Vec<Result<StatementId, String>> {
    let mut found = Vec::new();
    let mut rest = line;
    while let Some(start) = rest.find("[MQTT") {
        rest = &rest[start + 1..];
        let begins = |prefix: &str| {
            rest.strip_prefix(prefix).is_some_and(|n| n.starts_with(|c: char| c.is_ascii_digit()))
        };
        if !begins(Edition::V5.prefix()) && !begins(Edition::V311.prefix()) {
            continue;
        }
        let Some(end) = rest.find(']') else {
            found.push(Err(format!("[{rest}")));
            break;
        };
        for item in rest[..end].split(',').map(str::trim) {
            found.push(tag(item).ok_or_else(|| format!("[{item}]")));
        }
        rest = &rest[end + 1..];
    }
    found
}

fn tag(text: &str) -> Option<StatementId> {
    [Edition::V5, Edition::V311]
        .into_iter()
        .find_map(|edition| StatementId::parse(edition, text.strip_prefix(edition.prefix())?))
}
