//! What is wrong with a configuration, and where it was written.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

/// Where a value was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// A line of the configuration file.
    File {
        /// The file as it was named on the command line.
        path: Arc<PathBuf>,
        /// The line, from 1.
        line: u32,
    },
    /// An environment variable.
    Environment(String),
    /// An option of the command line, as given.
    Option(String),
    /// Nowhere: it is the default.
    Default,
}

impl Origin {
    /// The same file, another line; anything else stays what it is.
    pub(super) fn at(&self, line: Option<u32>) -> Origin {
        match (self, line) {
            (Origin::File { path, .. }, Some(line)) => {
                Origin::File { path: Arc::clone(path), line }
            }
            _ => self.clone(),
        }
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Origin::File { path, line } => write!(f, "{}:{line}", path.display()),
            Origin::Environment(name) => write!(f, "environment variable {name}"),
            Origin::Option(option) => write!(f, "option {option}"),
            Origin::Default => f.write_str("default"),
        }
    }
}

/// One thing that is wrong.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("{}: cannot read the configuration file: {reason}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// The file is not TOML.
    #[error("{origin}: not valid TOML: {message}")]
    Syntax {
        /// Where.
        origin: Origin,
        /// What the parser expected.
        message: String,
    },
    /// An option is not `section.key=value`.
    #[error("{origin}: expected section.key=value")]
    NoAssignment {
        /// The option.
        origin: Origin,
    },
    /// There is no such key.
    #[error("{origin}: {key}: unknown key; nearest valid key: {nearest}")]
    UnknownKey {
        /// Where.
        origin: Origin,
        /// The key as written.
        key: String,
        /// The valid key it is closest to.
        nearest: String,
    },
    /// A file of rules that `[authorization]` names.
    #[error("{0}")]
    Rules(ringmain_acl::SourceError),
    /// The value does not suit the key, or not together with others.
    #[error("{origin}: {key}: {message}")]
    Value {
        /// Where.
        origin: Origin,
        /// The key.
        key: String,
        /// What is wrong and what is allowed.
        message: String,
    },
}

impl ConfigError {
    /// The line of the file it concerns, 0 for the whole file; beyond all lines if it is elsewhere.
    pub(super) fn line(&self) -> u32 {
        match self {
            ConfigError::Unreadable { .. } => 0,
            ConfigError::Rules(_) => u32::MAX,
            ConfigError::Syntax { origin, .. }
            | ConfigError::NoAssignment { origin }
            | ConfigError::UnknownKey { origin, .. }
            | ConfigError::Value { origin, .. } => match origin {
                Origin::File { line, .. } => *line,
                _ => u32::MAX,
            },
        }
    }
}

/// All that is wrong with a configuration; at least one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigErrors(pub Vec<ConfigError>);

impl fmt::Display for ConfigErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, error) in self.0.iter().enumerate() {
            if at > 0 {
                writeln!(f)?;
            }
            write!(f, "error: {error}")?;
        }
        Ok(())
    }
}

impl std::error::Error for ConfigErrors {}
