//! The files that `[authorization]` names: read with the configuration, and wrong or right with it.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use ringmain_acl::{RULES_MAX, SOURCE_BYTES_MAX, Source};

use super::error::{ConfigError, Origin};
use super::live::KeyChange;
use super::schema::{Authorization, Form, RulesPath};

/// Files of rules. What is compiled from them counts its lines in 32 bits, for so many of the largest.
const FILES_MAX: usize = 10;

/// What the files of rules say, in their order.
///
/// Two are the same if their texts are, and then a policy need not be made anew.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct RuleFiles(Vec<RuleFile>);

#[derive(Debug, Clone)]
struct RuleFile {
    /// Where it was read from.
    path: PathBuf,
    text: Arc<str>,
    source: Arc<Source>,
}

impl PartialEq for RuleFile {
    fn eq(&self, other: &Self) -> bool {
        (&self.path, &self.text) == (&other.path, &other.text)
    }
}

impl RuleFiles {
    /// The rules, a source a file.
    pub fn sources(&self) -> impl Iterator<Item = &Source> {
        self.0.iter().map(|file| &*file.source)
    }
}

/// Reads what `section` names, relative to `folder`. `origin` is where it names them.
pub(super) fn read(
    section: &mut Authorization,
    folder: &Path,
    origin: &Origin,
) -> Vec<ConfigError> {
    let mut errors = Vec::new();
    let value = |message| {
        let (origin, key) = (origin.clone(), "authorization.files".to_owned());
        ConfigError::Value { origin, key, message }
    };
    if section.files.len() > FILES_MAX {
        let message = format!("{} files; at most {FILES_MAX}", section.files.len());
        return vec![value(message)];
    }
    let mut files = Vec::new();
    for named in &section.files {
        let path = folder.join(named.path());
        match text(&path) {
            Ok(text) => match parse(&path, named, &text) {
                Ok(source) => files.push(RuleFile { path, text: text.into(), source }),
                Err(wrong) => errors.extend(wrong),
            },
            Err(why) => errors.push(value(format!("cannot read {}: {why}", path.display()))),
        }
    }
    let count: usize = files.iter().map(|file| file.source.rule_count()).sum();
    if count > RULES_MAX {
        // Each client that connects is held against each of them.
        let files = files.len();
        errors.push(value(format!("{count} rules in {files} files; at most {RULES_MAX} together")));
    }
    section.rules = RuleFiles(files);
    errors
}

fn parse(path: &Path, named: &RulesPath, text: &str) -> Result<Arc<Source>, Vec<ConfigError>> {
    let name = path.display().to_string();
    let source = match named.form() {
        Form::Toml => Source::toml(&name, text),
        Form::Emqx => Source::emqx(&name, text),
    };
    source.map(Arc::new).map_err(|wrong| wrong.0.into_iter().map(ConfigError::Rules).collect())
}

/// The text of a file. Nothing else is read: a pipe may never end. One byte more than allowed is
/// enough for whoever parses it to refuse it.
fn text(path: &Path) -> Result<String, String> {
    let io = |error: io::Error| error.to_string();
    if !std::fs::metadata(path).map_err(io)?.is_file() {
        return Err("it is not a file".to_owned());
    }
    let mut bytes = Vec::new();
    let most = SOURCE_BYTES_MAX as u64 + 1;
    File::open(path).map_err(io)?.take(most).read_to_end(&mut bytes).map_err(io)?;
    if bytes.len() > SOURCE_BYTES_MAX {
        return Err(format!("it has more than {SOURCE_BYTES_MAX} bytes: split it into several"));
    }
    String::from_utf8(bytes).map_err(|_| "it is not UTF-8".to_owned())
}

/// Files that both have and that say something else now.
pub(super) fn changes(old: &Authorization, new: &Authorization) -> Vec<KeyChange> {
    let rules = |file: &RuleFile| match file.source.rule_count() {
        1 => "1 rule".to_owned(),
        n => format!("{n} rules"),
    };
    let change = |file: &RuleFile| {
        let before = old.rules.0.iter().find(|before| before.path == file.path)?;
        (before.text != file.text).then(|| KeyChange {
            key: format!("authorization.files: {}", file.path.display()),
            old: rules(before),
            new: format!("{}, not the same", rules(file)),
        })
    };
    new.rules.0.iter().filter_map(change).collect()
}

#[cfg(test)]
mod tests;
