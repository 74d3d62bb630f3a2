//! Reads tables, and says which key was meant.

use serde::de::DeserializeOwned;

use super::ConfigError;

/// Reads a table. An unknown key is an error that names the nearest valid one, among its own and `also`.
pub(crate) fn read<T: DeserializeOwned>(
    table: toml::Table,
    place: &str,
    also: &[&str],
) -> Result<T, ConfigError> {
    toml::Value::Table(table).try_into::<T>().map_err(|error| explain(&error, place, also))
}

/// The keys of a configuration struct that refuses others.
pub(crate) fn keys<T: DeserializeOwned>() -> Vec<String> {
    // No struct has this one, so what serde says names all that it has.
    let table = toml::Table::from_iter([(String::from("\u{1}"), toml::Value::Boolean(true))]);
    let error = toml::Value::Table(table).try_into::<T>().err();
    let text = error.map(|error| error.message().to_owned()).unwrap_or_default();
    quoted(&text).skip(1).map(str::to_owned).collect()
}

/// The known word that is most like this one.
pub(crate) fn nearest<'a>(word: &str, known: impl Iterator<Item = &'a str>) -> &'a str {
    // Edit distance finds the slip of a finger, the common start finds the half-remembered name.
    let closeness = |known: &str| {
        strsim::normalized_damerau_levenshtein(word, known)
            + 0.5 * strsim::jaro_winkler(word, known)
    };
    known.max_by(|a, b| closeness(a).total_cmp(&closeness(b))).unwrap_or_default()
}

fn explain(error: &toml::de::Error, place: &str, also: &[&str]) -> ConfigError {
    let message = error.message();
    // Below the table, toml says which key it was: "… in `a.b`".
    let whole = error.to_string();
    let inner = whole.lines().rev().find_map(|line| line.strip_prefix("in `")?.strip_suffix('`'));
    let place = match inner {
        Some(inner) => format!("{place}.{inner}"),
        None => place.to_owned(),
    };
    let mut words = quoted(message);
    match (message.split(' ').first_two(), words.next()) {
        (Some(("unknown", "field")), Some(word)) => {
            let also = if inner.is_none() { also } else { &[] };
            let near = nearest(word, words.chain(also.iter().copied()));
            // Nothing nested ends in its own name twice.
            let place = place.strip_suffix(&format!(".{word}")).unwrap_or(&place).to_owned();
            let text = match near {
                "" => "unknown key; there are none here".to_owned(),
                near => format!("unknown key; nearest valid key: {place}.{near}"),
            };
            ConfigError::new(format!("{place}.{word}"), text)
        }
        (Some(("missing", "field")), Some(word)) => {
            ConfigError::new(format!("{place}.{word}"), "is missing")
        }
        (Some(("unknown", "variant")), Some(word)) => {
            let known: Vec<&str> = words.collect();
            let near = nearest(word, known.iter().copied());
            let text = format!("\"{word}\" is none of {}; nearest: \"{near}\"", known.join(", "));
            ConfigError::new(place, text)
        }
        _ => ConfigError::new(place, message),
    }
}

/// What stands between backticks, as serde writes names.
fn quoted(text: &str) -> impl Iterator<Item = &str> {
    text.split('`').skip(1).step_by(2)
}

trait FirstTwo<'a> {
    fn first_two(self) -> Option<(&'a str, &'a str)>;
}

impl<'a, I: Iterator<Item = &'a str>> FirstTwo<'a> for I {
    fn first_two(mut self) -> Option<(&'a str, &'a str)> {
        Some((self.next()?, self.next()?))
    }
}
