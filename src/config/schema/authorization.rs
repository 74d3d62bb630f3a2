//! `[authorization]`: who may publish and subscribe to what.

use std::path::{Path, PathBuf};

use crate::config::authorization::RuleFiles;
use crate::config::field::{Bounds, Field, Kind, Problem, choice};
use crate::config::raw::{Raw, RawValue, quote};
use crate::config::section::section;

section! {
    /// Who may publish and subscribe to what: docs/user/authorization.md. What a refusal leads to is
    /// mqtt.deny_action.
    pub struct Authorization {
        /// Files with rules, asked in this order: those that end in .toml have Ringmain's form, those in
        /// .conf that of EMQX's acl.conf. A relative path starts at the folder of this file. A reload
        /// reads them again. At most 10 of them, with 10000 rules together. Empty: the default policy, by
        /// which only clients on this machine may subscribe to `$SYS/#` and `#`, and all else is allowed.
        files: Vec<RulesPath> = Vec::new(), Live;
        /// What holds when no rule matches. The default policy leaves nothing open.
        no_match: NoMatch = NoMatch::Deny, Live;
        /// When rules that authentication gave a client are asked: "first", or "last", after those of
        /// the files.
        client_rules: ClientRules = ClientRules::First, Live;
        /// Decisions that a shard keeps, 64 bytes each; rounded up to a power of two. 0: none.
        cache_places: u32 = 4_096, [0..=1_048_576], Restart;
    }
    and {
        /// What the files say.
        rules: RuleFiles,
    }
}

choice! {
    /// What holds when no rule matches.
    pub enum NoMatch {
        /// The client may.
        Allow = "allow",
        /// It may not.
        Deny = "deny",
    }
}

choice! {
    /// When the rules of the client itself are asked.
    pub enum ClientRules {
        /// Before those of the files.
        First = "first",
        /// After them.
        Last = "last",
    }
}

/// A file with rules, of which the name says the form.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RulesPath {
    path: PathBuf,
    form: Form,
}

/// How rules are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// Ringmain's.
    Toml,
    /// That of EMQX's acl.conf.
    Emqx,
}

impl RulesPath {
    /// As it was written.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The form of its rules.
    pub fn form(&self) -> Form {
        self.form
    }
}

impl Field for RulesPath {
    const KIND: Kind = Kind::Text("a path that ends in .toml or .conf");

    fn read(raw: &Raw, _: Option<Bounds>) -> Result<Self, Vec<Problem>> {
        let form = |path: &Path| match path.extension()?.to_str()? {
            "toml" => Some(Form::Toml),
            "conf" => Some(Form::Emqx),
            _ => None,
        };
        let path = match &raw.value {
            RawValue::Text(text) => Some(PathBuf::from(text)),
            _ => None,
        };
        let read = path.and_then(|path| form(&path).map(|form| Self { path, form }));
        read.ok_or_else(|| {
            let message = format!("expected {}, found {}", Self::KIND, raw.describe());
            vec![Problem::new(raw, message)]
        })
    }

    fn toml(&self) -> String {
        quote(&self.path.to_string_lossy())
    }
}
