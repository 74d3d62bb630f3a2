//! Where rules come from: texts in two forms, and the policy that holds when there is none.

mod emqx;
mod terms;
mod toml;

use std::fmt;

use crate::rule::Source;
use crate::template::{BadTopic, Topic};

/// Bytes of one source: 10,000 rules of 400 bytes.
pub const SOURCE_BYTES_MAX: usize = 4 << 20;

/// Errors that are reported of one source; whoever wrote more has misunderstood something.
pub const ERRORS_MAX: usize = 20;

/// The policy of a fresh installation, in Ringmain's form.
pub const DEFAULT_POLICY: &str = include_str!("default.toml");

impl Source {
    /// The policy of a fresh installation: what everybody publishes, and `$SYS`, is for clients on
    /// this machine and superusers; all else is allowed (AZ09).
    ///
    /// # Panics
    /// Never: a test parses it.
    #[must_use]
    pub fn default_policy() -> Self {
        Self::toml("default policy", DEFAULT_POLICY).expect("the built-in policy is valid")
    }

    /// Rules in Ringmain's form. `name` is the file's, for messages.
    ///
    /// # Errors
    /// All that is wrong with it, up to [`ERRORS_MAX`]; then none of it is used.
    pub fn toml(name: &str, text: &str) -> Result<Self, SourceErrors> {
        limited(name, text)?;
        toml::parse(name, text)
    }

    /// Rules in the form of EMQX's `acl.conf`. `name` is the file's, for messages.
    ///
    /// # Errors
    /// As of [`Source::toml`]; after an error of syntax the rest is not looked at.
    pub fn emqx(name: &str, text: &str) -> Result<Self, SourceErrors> {
        limited(name, text)?;
        emqx::parse(name, text)
    }
}

/// One thing that is wrong with a source: a sentence for the operator.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SourceError {
    /// The name of the source.
    pub source: String,
    /// The line, from 1.
    pub line: u32,
    /// Where in the rule: `rule 3: who.ip`; empty outside of any.
    pub place: String,
    /// What is wrong.
    pub what: String,
    /// The valid name that is nearest to what was written.
    pub nearest: Option<String>,
}

impl fmt::Display for SourceError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: ", self.source, self.line)?;
        if !self.place.is_empty() {
            write!(f, "{}: ", self.place)?;
        }
        f.write_str(&self.what)?;
        match &self.nearest {
            Some(nearest) => write!(f, "; nearest valid: {nearest}"),
            None => Ok(()),
        }
    }
}

/// What is wrong with a source: one line each; at least one, at most [`ERRORS_MAX`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SourceErrors(pub Vec<SourceError>);

impl fmt::Display for SourceErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, error) in self.0.iter().enumerate() {
            if at > 0 {
                f.write_str("\n")?;
            }
            error.fmt(f)?;
        }
        Ok(())
    }
}

impl std::error::Error for SourceErrors {}

/// What is wrong, before it is known where: made by whoever looks at a value.
#[derive(Debug)]
struct Fault {
    what: String,
    nearest: Option<String>,
}

impl Fault {
    fn new(what: impl Into<String>) -> Self {
        Self { what: what.into(), nearest: None }
    }

    /// `found` is not one of `valid`.
    fn unknown(what: &str, found: &str, valid: &[&str]) -> Self {
        let nearest = nearest(found, valid).map(str::to_owned);
        Self { what: format!("unknown {what} {found:?}"), nearest }
    }

    fn topic(text: &str, bad: &BadTopic) -> Self {
        let nearest = bad.placeholder().and_then(|name| nearest(name, &BadTopic::PLACEHOLDERS));
        let nearest = nearest.map(|name| format!("${{{name}}}"));
        Self { what: format!("{text:?} is not a topic filter: {bad}"), nearest }
    }
}

impl From<String> for Fault {
    fn from(what: String) -> Self {
        Self::new(what)
    }
}

/// Collects errors of one source.
struct Errors<'a> {
    source: &'a str,
    found: Vec<SourceError>,
}

impl<'a> Errors<'a> {
    fn new(source: &'a str) -> Self {
        Self { source, found: vec![] }
    }

    fn add(&mut self, line: u32, place: impl Into<String>, fault: impl Into<Fault>) {
        let Fault { what, nearest } = fault.into();
        if self.found.len() < ERRORS_MAX {
            let (source, place) = (self.source.to_owned(), place.into());
            self.found.push(SourceError { source, line, place, what, nearest });
        }
    }

    fn finish(mut self, source: Source) -> Result<Source, SourceErrors> {
        // Keys of a table come in the order of their names.
        self.found.sort_by_key(|error| error.line);
        if self.found.is_empty() { Ok(source) } else { Err(SourceErrors(self.found)) }
    }
}

/// A topic of a rule.
fn topic(text: &str, eq: bool) -> Result<Topic, Fault> {
    Topic::parse(text, eq).map_err(|bad| Fault::topic(text, &bad))
}

fn limited(name: &str, text: &str) -> Result<(), SourceErrors> {
    if text.len() <= SOURCE_BYTES_MAX {
        return Ok(());
    }
    let mut errors = Errors::new(name);
    let what = format!("{} bytes; at most {SOURCE_BYTES_MAX}: split it into several", text.len());
    errors.add(1, "", what);
    Err(SourceErrors(errors.found))
}

fn nearest<'a>(word: &str, valid: &[&'a str]) -> Option<&'a str> {
    // Edit distance finds the slip of a finger, the common start finds the half-remembered name.
    let closeness = |name: &str| {
        strsim::normalized_damerau_levenshtein(word, name) + 0.5 * strsim::jaro_winkler(word, name)
    };
    valid.iter().copied().max_by(|a, b| closeness(a).total_cmp(&closeness(b)))
}

#[cfg(test)]
mod tests;
