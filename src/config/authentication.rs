//! `[auth]`, `[[authentication]]`, and the same of a listener: whose keys are known to `ringmain-auth`.
//!
//! Unlike other sections these are read as a whole. What was written is kept as a tree with the places where it was
//! written, so that an error has a line.

use std::collections::BTreeMap;

use ringmain_auth::config::{self as auth, Chain};
use toml::{Table, Value};

use super::error::{ConfigError, ConfigErrors, Origin};
use super::raw::{Raw, RawEntry, RawValue};

/// Sections of the root that belong here.
pub(super) const SECTIONS: [&str; 2] = ["auth", "authentication"];
/// Keys of a listener that belong here.
pub(super) const LISTENER_KEYS: [&str; 2] = ["authentication", "allow_anonymous"];
const LISTENERS: &str = "listeners";

/// Who may connect, as the configuration says.
#[derive(Debug, Clone, Default)]
pub struct Authentication {
    settings: auth::Config,
    /// By position in the configuration: the chains of listeners that have one of their own.
    listeners: BTreeMap<usize, Chain>,
    written: Written,
}

/// What decides is what was written.
impl PartialEq for Authentication {
    fn eq(&self, other: &Self) -> bool {
        self.written.table() == other.written.table()
    }
}

impl Authentication {
    /// The configuration of the service, for listeners whose numbers are given by their position in the
    /// configuration; the others are not open.
    pub fn of(&self, number: impl Fn(usize) -> Option<u16>) -> auth::Config {
        let own = self.listeners.iter();
        let own = own.filter_map(|(at, chain)| Some((number(*at)?, chain.clone())));
        auth::Config { listeners: own.collect(), ..self.settings.clone() }
    }

    /// Whether clients of the listener at this position are asked about.
    pub fn asks(&self, at: usize) -> bool {
        let says_something = !self.written.root.is_empty();
        says_something && !self.of(|at| u16::try_from(at).ok()).admits_everybody(at as u16)
    }

    /// Reads all files that it names.
    ///
    /// # Errors
    /// All that is wrong with them.
    pub fn check_files(&self) -> Result<(), ConfigErrors> {
        if self.written.root.is_empty() {
            return Ok(());
        }
        let config = self.of(|at| u16::try_from(at).ok());
        ringmain_auth::Service::check(&config).map_err(|errors| self.explain(errors))
    }

    /// Says where what is wrong was written.
    pub fn explain(&self, errors: Vec<auth::ConfigError>) -> ConfigErrors {
        ConfigErrors(errors.into_iter().map(|error| self.written.locate(error)).collect())
    }

    /// The sections as TOML, in the form that this file has. Secrets are not shown.
    pub(super) fn toml(&self) -> String {
        let mut table = self.written.table();
        table.remove(LISTENERS);
        hide(&mut table);
        // A table that was read can be written.
        toml::to_string(&table).unwrap_or_default()
    }

    /// What `[[listeners]]` says about it at this position, as keys and values.
    pub(super) fn toml_of_listener(&self, at: usize) -> Vec<(&'static str, String)> {
        let mut table = self.written.listener(at);
        hide(&mut table);
        let value = |key: &'static str| Some((key, table.get(key)?.to_string()));
        LISTENER_KEYS.into_iter().filter_map(value).collect()
    }

    /// In a few words, for the log: whether it has changed, never what is in it.
    pub(super) fn summary(&self) -> String {
        let (global, listeners) = (self.settings.chain.entries.len(), self.listeners.len());
        format!("{global} authenticators, {listeners} listeners with their own")
    }
}

/// Values of keys that nobody may read over somebody's shoulder.
fn hide(table: &mut Table) {
    for (key, value) in table.iter_mut() {
        match value {
            Value::String(text) if key == "secret" => "(not shown)".clone_into(text),
            Value::Table(inner) if key == "passwords" => {
                for (_, value) in inner.iter_mut() {
                    *value = Value::String("(not shown)".to_owned());
                }
            }
            Value::Table(inner) => hide(inner),
            Value::Array(items) => items.iter_mut().filter_map(Value::as_table_mut).for_each(hide),
            _ => {}
        }
    }
}

/// Everything that was written, with where.
#[derive(Debug, Clone, Default)]
pub(super) struct Written {
    root: Vec<RawEntry>,
    /// Each value that was put, in order.
    origins: Vec<(Vec<String>, Origin)>,
}

impl Written {
    /// Takes a value. A number in a path counts entries of a list.
    pub(super) fn put(
        &mut self,
        path: &[String],
        raw: &Raw,
        origin: &Origin,
    ) -> Result<(), String> {
        put(&mut self.root, path, raw)?;
        self.origins.push((path.to_vec(), origin.clone()));
        Ok(())
    }

    /// Other listeners take the place of all.
    pub(super) fn forget_listeners(&mut self) {
        self.root.retain(|entry| entry.key != LISTENERS);
        self.origins.retain(|(path, _)| path.first().is_none_or(|first| first != LISTENERS));
    }

    pub(super) fn read(self) -> Result<Authentication, Vec<ConfigError>> {
        let mut errors = Vec::new();
        let mut table = self.table();
        table.remove(LISTENERS);
        let settings = auth::Config::read(&table).map_err(|wrong| errors.extend(wrong));
        let settings = settings.unwrap_or_default();
        let mut listeners = BTreeMap::new();
        for at in 0..self.listeners() {
            match chain_of(&self.listener(at), at, &settings) {
                Ok(Some(chain)) => drop(listeners.insert(at, chain)),
                Ok(None) => {}
                Err(wrong) => errors.extend(wrong),
            }
        }
        if errors.is_empty() {
            return Ok(Authentication { settings, listeners, written: self });
        }
        Err(errors.into_iter().map(|error| self.locate(error)).collect())
    }

    fn table(&self) -> Table {
        self.root.iter().map(|entry| (entry.key.clone(), value(&entry.value))).collect()
    }

    fn listeners(&self) -> usize {
        self.table().get(LISTENERS).and_then(Value::as_array).map_or(0, Vec::len)
    }

    /// What was written about one listener.
    fn listener(&self, at: usize) -> Table {
        let table = self.table();
        let all = table.get(LISTENERS).and_then(Value::as_array);
        all.and_then(|all| all.get(at)?.as_table().cloned()).unwrap_or_default()
    }

    /// The place is a path such as `authentication[0].file`, or ends in a name: `authentication[0] (users)`.
    fn locate(&self, error: auth::ConfigError) -> ConfigError {
        let auth::ConfigError { place, text: message } = error;
        let path = place.split(' ').next().unwrap_or_default().replace('[', ".").replace(']', "");
        let path: Vec<&str> = path.split('.').collect();
        let is_part = |of: &[String]| {
            of.len() <= path.len() && of.iter().zip(&path).all(|(part, other)| part == other)
        };
        let put = self.origins.iter().rev().find(|(of, _)| is_part(of));
        let origin = put.map_or(Origin::Default, |(_, origin)| origin.clone());
        let line = line_of(&self.root, &path);
        ConfigError::Value { origin: origin.at(line), key: place, message }
    }
}

/// The chain of a listener, if it says anything about it.
fn chain_of(
    written: &Table,
    at: usize,
    settings: &auth::Config,
) -> Result<Option<Chain>, Vec<auth::ConfigError>> {
    let wrong = |key: &str, text: &str| {
        let place = format!("{LISTENERS}[{at}].{key}");
        vec![auth::ConfigError { place, text: text.to_owned() }]
    };
    let anonymous = match written.get("allow_anonymous") {
        None => None,
        Some(Value::Boolean(yes)) => Some(*yes),
        Some(_) => return Err(wrong("allow_anonymous", "expected true or false")),
    };
    let allow_anonymous = anonymous.unwrap_or(settings.settings.allow_anonymous);
    match (written.get("authentication"), anonymous) {
        (Some(entries), _) => {
            let place = format!("{LISTENERS}[{at}].authentication");
            Chain::read(entries, &place, allow_anonymous).map(Some)
        }
        (None, Some(_)) => Ok(Some(Chain { allow_anonymous, ..settings.chain.clone() })),
        (None, None) => Ok(None),
    }
}

fn put(table: &mut Vec<RawEntry>, path: &[String], raw: &Raw) -> Result<(), String> {
    let [key, rest @ ..] = path else { return Ok(()) };
    let at = table.iter().position(|entry| entry.key == *key).unwrap_or_else(|| {
        let value = Raw::new(RawValue::Table(Vec::new()));
        table.push(RawEntry { key: key.clone(), line: raw.line, value });
        table.len() - 1
    });
    put_into(&mut table[at].value, rest, raw)
}

fn put_into(here: &mut Raw, path: &[String], raw: &Raw) -> Result<(), String> {
    let [key, rest @ ..] = path else {
        *here = raw.settle(false).into_owned();
        return Ok(());
    };
    if let Ok(number) = key.parse::<usize>() {
        if !matches!(here.value, RawValue::List(_)) {
            *here = Raw::new(RawValue::List(Vec::new()));
        }
        let RawValue::List(items) = &mut here.value else { return Ok(()) };
        // Listeners that say nothing have an empty place.
        const NUMBER_MAX: usize = 1024;
        if number > NUMBER_MAX {
            return Err(format!("there are {} entries, so {number} cannot be set", items.len()));
        }
        while items.len() <= number {
            items.push(Raw::new(RawValue::Table(Vec::new())));
        }
        return put_into(&mut items[number], rest, raw);
    }
    if !matches!(here.value, RawValue::Table(_)) {
        *here = Raw::new(RawValue::Table(Vec::new()));
    }
    let RawValue::Table(entries) = &mut here.value else { return Ok(()) };
    put(entries, path, raw)
}

fn value(raw: &Raw) -> Value {
    match &raw.settle(false).value {
        RawValue::Text(text) | RawValue::Bare(text) | RawValue::Unreadable(text) => {
            Value::String(text.clone())
        }
        RawValue::Integer(number) => Value::Integer(*number),
        RawValue::Float(number) => Value::Float(*number),
        RawValue::Bool(yes) => Value::Boolean(*yes),
        // No key takes one: it is refused as the text it is.
        RawValue::Date(text) => Value::String(text.clone()),
        RawValue::List(items) => Value::Array(items.iter().map(value).collect()),
        RawValue::Table(entries) => {
            Value::Table(entries.iter().map(|e| (e.key.clone(), value(&e.value))).collect())
        }
    }
}

/// The line of what is nearest to a place.
fn line_of(table: &[RawEntry], path: &[&str]) -> Option<u32> {
    let [key, rest @ ..] = path else { return None };
    let entry = table.iter().find(|entry| entry.key == *key)?;
    line_in(&entry.value, rest).or(entry.line)
}

fn line_in(raw: &Raw, path: &[&str]) -> Option<u32> {
    let [key, rest @ ..] = path else { return None };
    match &raw.value {
        RawValue::Table(entries) => line_of(entries, path),
        RawValue::List(items) => {
            let item = items.get(key.parse::<usize>().ok()?)?;
            line_in(item, rest).or(item.line)
        }
        _ => None,
    }
}
