//! Puts the layers on top of each other.

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::authentication::{self, Written};
use super::error::{ConfigError, ConfigErrors, Origin};
use super::field::{Kind, Problem};
use super::raw::{Raw, RawEntry, RawValue, parse_assignment, parse_document};
use super::schema::{Listener, Mqtt};
use super::section::{Section, SectionInfo};
use super::{Config, authorization, relations};

const ENV_PREFIX: &str = "RINGMAIN__";
const LISTENERS: &str = "listeners";
/// Shorter names of keys in the urls of `--listen`.
const QUERY_NAMES: [(&str, &str); 7] = [
    ("cert", "tls_certificate_files"),
    ("key", "tls_key_files"),
    ("ca", "tls_client_ca_file"),
    ("client_auth", "tls_client_verification"),
    ("crl", "tls_crl_files"),
    ("proxy", "proxy_protocol_from"),
    ("mode", "unix_mode"),
];

/// Where the configuration comes from. Kept, so that a reload reads the same places.
#[derive(Debug, Clone, Default)]
pub struct Sources {
    /// The file, if any.
    pub file: Option<PathBuf>,
    /// Environment variables; those that do not begin with `RINGMAIN__` are ignored.
    pub env: Vec<(String, String)>,
    /// Values of `--set`: `section.key=value`.
    pub set: Vec<String>,
    /// Values of `--listen`; any replaces all other listeners.
    pub listen: Vec<String>,
    /// Value of `--shards`.
    pub shards: Option<String>,
    /// Value of `--data-dir`.
    pub data_dir: Option<String>,
    /// Value of `--log`.
    pub log: Option<String>,
}

impl Sources {
    /// Reads all layers.
    ///
    /// # Errors
    /// All that is wrong with them.
    pub fn load(&self) -> Result<Config, ConfigErrors> {
        let folder = self.file.as_deref().and_then(Path::parent).unwrap_or(Path::new(""));
        let mut loader = Loader { folder: folder.to_owned(), ..Loader::default() };
        if let Some(path) = &self.file {
            loader.file(path);
        }
        loader.environment(&self.env);
        for text in &self.set {
            loader.set(text);
        }
        loader.listen(&self.listen);
        let options = [
            ("--shards", "node", "shards", &self.shards),
            ("--data-dir", "node", "data_dir", &self.data_dir),
            ("--log", "log", "level", &self.log),
        ];
        for (option, section, key, text) in options {
            if let Some(text) = text {
                let origin = Origin::Option(format!("{option} {text}"));
                loader.route(&[section.to_owned(), key.to_owned()], &Raw::bare(text), &origin);
            }
        }
        loader.finish()
    }
}

/// A value for a key that exists.
#[derive(Debug, Clone)]
struct Assign {
    section: String,
    key: String,
    entry: Option<String>,
    raw: Raw,
    origin: Origin,
}

/// What was written about one listener; its own keys have an empty section.
#[derive(Debug, Clone)]
struct Draft {
    origin: Origin,
    assigns: Vec<Assign>,
}

#[derive(Debug, Default)]
struct Loader {
    /// Where relative paths of files that belong to the configuration start.
    folder: PathBuf,
    assigns: Vec<Assign>,
    drafts: Vec<Draft>,
    authentication: Written,
    errors: Vec<ConfigError>,
    places: Places,
}

/// Where the keys of a configuration were written, and which of them are not to be trusted.
#[derive(Debug, Default)]
pub(super) struct Places {
    written: HashMap<String, Origin>,
    failed: HashSet<String>,
}

impl Places {
    /// Where the last of these keys that is not a default was written; `None` if the value of one
    /// was refused already.
    pub(super) fn of(&self, keys: &[String]) -> Option<Origin> {
        if keys.iter().any(|key| self.failed.contains(key)) {
            return None;
        }
        let written = keys.iter().rev().find_map(|key| self.written.get(key));
        Some(written.cloned().unwrap_or(Origin::Default))
    }
}

impl Loader {
    fn file(&mut self, path: &Path) {
        let text = match std::fs::read(path).map(String::from_utf8) {
            Ok(Ok(text)) => text,
            Ok(Err(_)) => return self.unreadable(path, "it is not UTF-8".to_owned()),
            Err(error) => return self.unreadable(path, error.to_string()),
        };
        let path = Arc::new(path.to_owned());
        let at = |line| Origin::File { path: Arc::clone(&path), line };
        match parse_document(&text) {
            Ok(entries) => {
                for entry in entries {
                    self.route(&[entry.key], &entry.value, &at(entry.line.unwrap_or(1)));
                }
            }
            Err(errors) => self.errors.extend(
                errors
                    .into_iter()
                    .map(|e| ConfigError::Syntax { origin: at(e.line), message: e.message }),
            ),
        }
    }

    fn unreadable(&mut self, path: &Path, reason: String) {
        self.errors.push(ConfigError::Unreadable { path: path.to_owned(), reason });
    }

    fn environment(&mut self, env: &[(String, String)]) {
        let mut vars: Vec<(Vec<String>, &String, &String)> = env
            .iter()
            .filter_map(|(name, value)| {
                let path = name.strip_prefix(ENV_PREFIX)?;
                Some((path.split("__").map(str::to_ascii_lowercase).collect(), name, value))
            })
            .collect();
        // Numbers by value, so that listener 10 comes after listener 2.
        vars.sort_by_cached_key(|(path, ..)| {
            let number = |part: &String| (part.parse::<u32>().ok(), part.clone());
            path.iter().map(number).collect::<Vec<_>>()
        });
        for (path, name, value) in vars {
            self.route(&path, &Raw::bare(value), &Origin::Environment(name.clone()));
        }
    }

    fn set(&mut self, text: &str) {
        let origin = Origin::Option(format!("--set {text}"));
        match parse_assignment(text) {
            Some((path, raw)) => self.route(&path, &raw, &origin),
            None => self.errors.push(ConfigError::NoAssignment { origin }),
        }
    }

    fn listen(&mut self, urls: &[String]) {
        if urls.is_empty() {
            return;
        }
        self.drafts.clear();
        self.authentication.forget_listeners();
        for (at, url) in urls.iter().enumerate() {
            let origin = Origin::Option(format!("--listen {url}"));
            self.drafts.push(Draft { origin: origin.clone(), assigns: Vec::new() });
            let (url, query) = url.split_once('?').unwrap_or((url, ""));
            self.route_listener(at, &["url".to_owned()], &Raw::bare(url), &origin);
            self.listen_query(at, query, &origin);
        }
    }

    /// `cert=c.pem&key=k.pem`: keys of the listener, some by shorter names. What comes twice is a list.
    fn listen_query(&mut self, at: usize, query: &str, origin: &Origin) {
        let mut given: Vec<(&str, Vec<&str>)> = Vec::new();
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            match given.iter_mut().find(|(known, _)| *known == name) {
                Some((_, values)) => values.push(value),
                None => given.push((name, vec![value])),
            }
        }
        for (name, values) in given {
            let long = QUERY_NAMES.iter().find(|(short, _)| *short == name).map(|(_, long)| *long);
            let key = long.unwrap_or(name);
            let Some(info) = Listener::INFO.key(key) else {
                let short = QUERY_NAMES.iter().map(|(short, _)| *short);
                let names = short.chain(Listener::INFO.keys.iter().map(|key| key.name));
                let path = [LISTENERS.to_owned(), at.to_string(), name.to_owned()];
                self.unknown(&path, nearest_of(name, names), origin);
                continue;
            };
            let raw = match info.kind {
                Kind::List(_) => Raw::new(RawValue::List(
                    values.iter().map(|v| Raw::new(RawValue::Text((*v).to_owned()))).collect(),
                )),
                _ => Raw::bare(values.last().copied().unwrap_or_default()),
            };
            self.route_listener(at, &[key.to_owned()], &raw, origin);
        }
    }

    /// Takes a value to the key that `path` names.
    fn route(&mut self, path: &[String], raw: &Raw, origin: &Origin) {
        match path {
            [name] if name == LISTENERS => self.listener_list(raw, origin),
            [name, ..] if authentication::SECTIONS.contains(&name.as_str()) => {
                self.authentication(path, raw, origin);
            }
            [name] if section_info(name).is_some() => {
                for entry in self.table(name, raw, origin) {
                    let origin = origin.at(entry.line);
                    self.route(&[name.clone(), entry.key], &entry.value, &origin);
                }
            }
            [name, index, rest @ ..] if name == LISTENERS => match index.parse::<usize>() {
                Ok(at) if at < self.drafts.len() => self.route_listener(at, rest, raw, origin),
                Ok(at) if at == self.drafts.len() => {
                    let draft = Draft { origin: origin.clone(), assigns: Vec::new() };
                    self.drafts.push(draft);
                    self.route_listener(at, rest, raw, origin);
                }
                Ok(at) => {
                    let message =
                        format!("there are {} listeners, so {at} cannot be set", self.drafts.len());
                    self.value_error(format!("{LISTENERS}.{at}"), message, origin);
                }
                Err(_) => {
                    let mut nearest = vec![LISTENERS.to_owned(), "0".to_owned()];
                    nearest.push(nearest_in(&Listener::INFO, rest.last().unwrap_or(index)));
                    self.unknown(path, nearest.join("."), origin);
                }
            },
            [section, key, entry @ ..]
                if entry.len() <= 1
                    && section_info(section).is_some_and(|info| info.key(key).is_some()) =>
            {
                self.assigns.push(Assign {
                    section: section.clone(),
                    key: key.clone(),
                    entry: entry.first().cloned(),
                    raw: raw.clone(),
                    origin: origin.clone(),
                });
            }
            _ => self.unknown(path, nearest(path), origin),
        }
    }

    fn listener_list(&mut self, raw: &Raw, origin: &Origin) {
        let raw = raw.settle(false);
        let RawValue::List(items) = &raw.value else {
            let message =
                format!("expected a list of tables, found {}: write [[listeners]]", raw.describe());
            return self.value_error(LISTENERS.to_owned(), message, origin);
        };
        self.drafts.clear();
        self.authentication.forget_listeners();
        for (at, item) in items.iter().enumerate() {
            let origin = origin.at(item.line);
            self.drafts.push(Draft { origin: origin.clone(), assigns: Vec::new() });
            self.route_listener(at, &[], item, &origin);
        }
    }

    /// The same as `route` inside a listener that exists.
    fn route_listener(&mut self, at: usize, path: &[String], raw: &Raw, origin: &Origin) {
        let full = |path: &[String]| [&[LISTENERS.to_owned(), at.to_string()], path].concat();
        if let [key, ..] = path
            && authentication::LISTENER_KEYS.contains(&key.as_str())
        {
            return self.authentication(&full(path), raw, origin);
        }
        let (section, info, rest) = match path {
            [] => ("", &Listener::INFO, path),
            [name, rest @ ..] if name == "mqtt" => ("mqtt", &Mqtt::INFO, rest),
            _ => ("", &Listener::INFO, path),
        };
        match rest {
            [] => {
                for entry in self.table(&full(path).join("."), raw, origin) {
                    let path = [path, &[entry.key]].concat();
                    self.route_listener(at, &path, &entry.value, &origin.at(entry.line));
                }
            }
            [key, entry @ ..] if entry.len() <= 1 && info.key(key).is_some() => {
                let assign = Assign {
                    section: section.to_owned(),
                    key: key.clone(),
                    entry: entry.first().cloned(),
                    raw: raw.clone(),
                    origin: origin.clone(),
                };
                if let Some(draft) = self.drafts.get_mut(at) {
                    draft.assigns.push(assign);
                }
            }
            [key, ..] => {
                let mut nearest = full(&[]);
                match (section.is_empty(), info.key(key).is_some()) {
                    // A key of [mqtt] that belongs into [listeners.mqtt].
                    (true, _) if Mqtt::INFO.key(key).is_some() => {
                        nearest.extend(["mqtt".to_owned(), key.clone()]);
                    }
                    (true, _) => nearest.push(nearest_in(info, key)),
                    (false, _) => nearest.extend(["mqtt".to_owned(), nearest_in(info, key)]),
                }
                self.unknown(&full(path), nearest.join("."), origin);
            }
        }
    }

    /// Takes what is read as a whole, later.
    fn authentication(&mut self, path: &[String], raw: &Raw, origin: &Origin) {
        if let Err(message) = self.authentication.put(path, raw, origin) {
            self.value_error(path.join("."), message, origin);
        }
    }

    /// The entries of a value that must be a table.
    fn table(&mut self, key: &str, raw: &Raw, origin: &Origin) -> Vec<RawEntry> {
        let raw = raw.settle(false);
        if let RawValue::Table(entries) = &raw.value {
            return entries.clone();
        }
        let message = format!("expected a table, found {}", raw.describe());
        self.value_error(key.to_owned(), message, origin);
        Vec::new()
    }

    fn unknown(&mut self, path: &[String], nearest: String, origin: &Origin) {
        let (key, origin) = (path.join("."), origin.clone());
        self.errors.push(ConfigError::UnknownKey { origin, key, nearest });
    }

    fn value_error(&mut self, key: String, message: String, origin: &Origin) {
        self.errors.push(ConfigError::Value { origin: origin.clone(), key, message });
    }

    fn finish(mut self) -> Result<Config, ConfigErrors> {
        let mut config = Config::default();
        for assign in std::mem::take(&mut self.assigns) {
            let path = format!("{}.{}", assign.section, assign.key);
            if let Some(section) = config.section_mut(&assign.section) {
                self.apply(section, path, &assign);
            }
        }
        let drafts = std::mem::take(&mut self.drafts);
        if !drafts.is_empty() {
            config.listeners.clear();
        }
        for (at, draft) in drafts.into_iter().enumerate() {
            let listener = self.listener(at, &draft, &config.mqtt);
            config.listeners.push(listener);
        }
        for listener in &mut config.listeners {
            if listener.mqtt_overrides.is_empty() {
                listener.mqtt = config.mqtt.clone();
            }
        }
        if let Some(origin) = self.places.of(&["authorization.files".to_owned()]) {
            let rules = authorization::read(&mut config.authorization, &self.folder, &origin);
            self.errors.extend(rules);
        }
        match std::mem::take(&mut self.authentication).read() {
            Ok(authentication) => config.authentication = authentication,
            Err(errors) => self.errors.extend(errors),
        }
        self.errors.extend(relations::check(&config, &self.places));
        // As one reads: down the file, then the other layers.
        self.errors.sort_by_key(ConfigError::line);
        if self.errors.is_empty() { Ok(config) } else { Err(ConfigErrors(self.errors)) }
    }

    fn listener(&mut self, at: usize, draft: &Draft, mqtt: &Mqtt) -> Listener {
        let mut listener = Listener { mqtt: mqtt.clone(), ..Listener::default() };
        let prefix = format!("{LISTENERS}.{at}");
        let own = |assign: &&Assign| assign.section.is_empty();
        if !draft.assigns.iter().filter(own).any(|assign| assign.key == "url") {
            let path = format!("{prefix}.url");
            self.places.failed.insert(path.clone());
            self.value_error(path, "a listener needs a url".to_owned(), &draft.origin);
        }
        for assign in draft.assigns.iter().filter(own) {
            self.apply(&mut listener, format!("{prefix}.{}", assign.key), assign);
        }
        for assign in draft.assigns.iter().filter(|assign| !own(assign)) {
            listener.mqtt_overrides.insert(assign.key.clone());
            self.apply(&mut listener.mqtt, format!("{prefix}.mqtt.{}", assign.key), assign);
        }
        if listener.name.is_empty() {
            listener.name = listener.url.name();
        }
        listener
    }

    fn apply(&mut self, section: &mut dyn Section, path: String, assign: &Assign) {
        let Assign { key, entry, raw, origin, .. } = assign;
        match section.assign(key, entry.as_deref(), raw) {
            Ok(()) => {
                self.places.written.insert(path, origin.clone());
            }
            Err(problems) => {
                for Problem { entry, line, message } in problems {
                    let key = match entry {
                        Some(entry) => format!("{path}.{}", super::raw::quote_key(&entry)),
                        None => path.clone(),
                    };
                    self.value_error(key, message, &origin.at(line));
                }
                self.places.failed.insert(path);
            }
        }
    }
}

fn section_info(name: &str) -> Option<&'static SectionInfo> {
    Config::SECTIONS.iter().find(|(section, _)| *section == name).map(|(_, info)| *info)
}

/// The key of one section that is closest to `key`.
fn nearest_in(info: &SectionInfo, key: &str) -> String {
    best(key, info.keys.iter().map(|key| key.name.to_owned()))
}

/// The valid key, or section, that is closest to `path`.
fn nearest(path: &[String]) -> String {
    let keys = || {
        Config::SECTIONS
            .iter()
            .flat_map(|(section, info)| info.keys.iter().map(move |key| (*section, key.name)))
    };
    let leaf = path.last().map_or("", String::as_str);
    let full = |(section, key): (&str, &str)| format!("{section}.{key}");
    // The right key in the wrong section, or in none.
    if let Some(found) = keys().find(|(_, key)| *key == leaf) {
        return full(found);
    }
    match path {
        [section, key, ..] => match section_info(section) {
            Some(info) => format!("{section}.{}", nearest_in(info, key)),
            None => best(&path.join("."), keys().map(full)),
        },
        _ => {
            let sections = Config::SECTIONS.iter().map(|(section, _)| (*section).to_owned());
            let others = [&[LISTENERS][..], &authentication::SECTIONS].concat();
            let sections = sections.chain(others.into_iter().map(str::to_owned));
            let section = best(leaf, sections);
            let key = best(leaf, keys().map(|(_, key)| key.to_owned()));
            match keys().find(|(_, name)| *name == key) {
                Some(found) if closeness(leaf, &key) > closeness(leaf, &section) => full(found),
                _ => section,
            }
        }
    }
}

/// Which of these is closest to `word`.
pub(crate) fn nearest_of<'a>(word: &str, names: impl IntoIterator<Item = &'a str>) -> String {
    best(word, names.into_iter().map(str::to_owned))
}

fn best(word: &str, candidates: impl Iterator<Item = String>) -> String {
    candidates.max_by(|a, b| closeness(word, a).total_cmp(&closeness(word, b))).unwrap_or_default()
}

fn closeness(a: &str, b: &str) -> f64 {
    // Edit distance finds the slip of a finger, the common start finds the half-remembered name.
    strsim::normalized_damerau_levenshtein(a, b) + 0.5 * strsim::jaro_winkler(a, b)
}
