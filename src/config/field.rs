//! What a key can hold: how a value is read, checked against its bounds and written back.

use std::collections::BTreeMap;
use std::path::PathBuf;

use super::raw::{Raw, RawEntry, RawValue, quote, quote_key};

/// Lowest and highest allowed value of a number, or length of a text in bytes.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Bounds {
    /// Lowest allowed.
    pub min: f64,
    /// Highest allowed.
    pub max: f64,
}

impl std::fmt::Display for Bounds {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} to {}", self.min, self.max)
    }
}

/// The type of a key, as documentation and error messages name it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// `true` or `false`.
    Bool,
    /// A whole number.
    Integer,
    /// A number that may have a fraction.
    Number,
    /// A string of a form that the text names.
    Text(&'static str),
    /// One of the named strings.
    Choice(&'static [&'static str]),
    /// A list of these.
    List(&'static Kind),
    /// A table from free keys to these.
    Table(&'static Kind),
}

impl Kind {
    /// Whether a value is a string.
    pub const fn is_text(self) -> bool {
        matches!(self, Kind::Text(_) | Kind::Choice(_))
    }
}

impl std::fmt::Display for Kind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Kind::Bool => f.write_str("true or false"),
            Kind::Integer => f.write_str("an integer"),
            Kind::Number => f.write_str("a number"),
            Kind::Text(form) => f.write_str(form),
            Kind::Choice(names) => {
                let names: Vec<String> = names.iter().map(|name| quote(name)).collect();
                match names.split_last() {
                    Some((last, rest)) if !rest.is_empty() => {
                        write!(f, "{} or {last}", rest.join(", "))
                    }
                    _ => f.write_str(&names.join("")),
                }
            }
            Kind::List(Kind::Choice(names)) => write!(f, "a list of {}", Kind::Choice(names)),
            Kind::List(Kind::Integer) => f.write_str("a list of integers"),
            Kind::List(item) => write!(f, "a list, each item {item}"),
            Kind::Table(item) => write!(f, "a table, each value {item}"),
        }
    }
}

/// What is wrong with a value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// The entry of a table it concerns, if not the whole value.
    pub entry: Option<String>,
    /// The line it stands on, if the value's own line is not close enough.
    pub line: Option<u32>,
    /// What is wrong.
    pub message: String,
}

impl Problem {
    /// A problem with the value as a whole.
    pub fn new(raw: &Raw, message: String) -> Problem {
        Problem { entry: None, line: raw.line, message }
    }

    fn expected(kind: Kind, raw: &Raw) -> Problem {
        Problem::new(raw, format!("expected {kind}, found {}", raw.describe()))
    }
}

/// A type that a key can have.
pub trait Field: Clone + PartialEq + Sized {
    /// How it is called.
    const KIND: Kind;

    /// Reads and checks a value.
    ///
    /// # Errors
    /// All that is wrong with it.
    fn read(raw: &Raw, bounds: Option<Bounds>) -> Result<Self, Vec<Problem>>;

    /// The value as TOML.
    fn toml(&self) -> String;

    /// Sets one entry of a table that came from elsewhere; only tables have entries.
    ///
    /// # Errors
    /// When this is not a table, or the value is wrong.
    fn read_entry(
        &mut self,
        entry: &str,
        raw: &Raw,
        _bounds: Option<Bounds>,
    ) -> Result<(), Vec<Problem>> {
        let message = format!("this key holds {} and has no entry `{entry}`", Self::KIND);
        Err(vec![Problem::new(raw, message)])
    }
}

impl Field for bool {
    const KIND: Kind = Kind::Bool;

    fn read(raw: &Raw, _: Option<Bounds>) -> Result<Self, Vec<Problem>> {
        match raw.value {
            RawValue::Bool(value) => Ok(value),
            _ => Err(vec![Problem::expected(Self::KIND, raw)]),
        }
    }

    fn toml(&self) -> String {
        self.to_string()
    }
}

macro_rules! integers {
    ($($ty:ty),*) => {$(
        impl Field for $ty {
            const KIND: Kind = Kind::Integer;

            fn read(raw: &Raw, bounds: Option<Bounds>) -> Result<Self, Vec<Problem>> {
                let RawValue::Integer(number) = raw.value else {
                    return Err(vec![Problem::expected(Self::KIND, raw)]);
                };
                let bounds = bounds.unwrap_or(Bounds { min: 0.0, max: <$ty>::MAX as f64 });
                let inside = (bounds.min..=bounds.max).contains(&(number as f64));
                match <$ty>::try_from(number) {
                    Ok(value) if inside => Ok(value),
                    _ => Err(vec![out_of_range(raw, &number.to_string(), bounds)]),
                }
            }

            fn toml(&self) -> String {
                self.to_string()
            }
        }
    )*};
}

integers!(u8, u16, u32, u64);

impl Field for f64 {
    const KIND: Kind = Kind::Number;

    fn read(raw: &Raw, bounds: Option<Bounds>) -> Result<Self, Vec<Problem>> {
        let value = match raw.value {
            RawValue::Float(value) => value,
            RawValue::Integer(value) => value as f64,
            _ => return Err(vec![Problem::expected(Self::KIND, raw)]),
        };
        match bounds {
            Some(bounds) if !(bounds.min..=bounds.max).contains(&value) => {
                Err(vec![out_of_range(raw, &value.to_string(), bounds)])
            }
            _ => Ok(value),
        }
    }

    fn toml(&self) -> String {
        format!("{self:?}")
    }
}

impl Field for String {
    const KIND: Kind = Kind::Text("a string");

    fn read(raw: &Raw, bounds: Option<Bounds>) -> Result<Self, Vec<Problem>> {
        let RawValue::Text(text) = &raw.value else {
            return Err(vec![Problem::expected(Self::KIND, raw)]);
        };
        match bounds {
            Some(bounds) if !(bounds.min..=bounds.max).contains(&(text.len() as f64)) => {
                let found = format!("a length of {} bytes", text.len());
                Err(vec![out_of_range(raw, &found, bounds)])
            }
            _ => Ok(text.clone()),
        }
    }

    fn toml(&self) -> String {
        quote(self)
    }
}

impl Field for PathBuf {
    const KIND: Kind = Kind::Text("a path");

    fn read(raw: &Raw, _: Option<Bounds>) -> Result<Self, Vec<Problem>> {
        match &raw.value {
            RawValue::Text(text) if text.is_empty() => {
                Err(vec![Problem::new(raw, "the path is empty".to_owned())])
            }
            RawValue::Text(text) => Ok(PathBuf::from(text)),
            _ => Err(vec![Problem::expected(Self::KIND, raw)]),
        }
    }

    fn toml(&self) -> String {
        quote(&self.to_string_lossy())
    }
}

impl<T: Field> Field for Vec<T> {
    const KIND: Kind = Kind::List(&T::KIND);

    fn read(raw: &Raw, bounds: Option<Bounds>) -> Result<Self, Vec<Problem>> {
        let RawValue::List(items) = &raw.value else {
            return Err(vec![Problem::expected(Self::KIND, raw)]);
        };
        let mut list: Vec<T> = Vec::with_capacity(items.len());
        let mut problems = Vec::new();
        for item in items {
            match T::read(item, bounds) {
                Ok(value) if list.contains(&value) => {
                    let message = format!("{} is listed twice", value.toml());
                    problems.push(Problem::new(item, message));
                }
                Ok(value) => list.push(value),
                Err(more) => problems.extend(more),
            }
        }
        if problems.is_empty() { Ok(list) } else { Err(problems) }
    }

    fn toml(&self) -> String {
        let items: Vec<String> = self.iter().map(Field::toml).collect();
        format!("[{}]", items.join(", "))
    }
}

impl<T: Field> Field for BTreeMap<String, T> {
    const KIND: Kind = Kind::Table(&T::KIND);

    fn read(raw: &Raw, bounds: Option<Bounds>) -> Result<Self, Vec<Problem>> {
        let RawValue::Table(entries) = &raw.value else {
            return Err(vec![Problem::expected(Self::KIND, raw)]);
        };
        let mut table = BTreeMap::new();
        let mut problems = Vec::new();
        for RawEntry { key, value, line } in entries {
            let line = value.line.or(*line);
            if let Err(more) = table.read_entry(key, &Raw { line, ..value.clone() }, bounds) {
                problems.extend(more);
            }
        }
        if problems.is_empty() { Ok(table) } else { Err(problems) }
    }

    fn toml(&self) -> String {
        let entry = |(key, value): (&String, &T)| format!("{} = {}", quote_key(key), value.toml());
        let entries: Vec<String> = self.iter().map(entry).collect();
        if entries.is_empty() { "{}".to_owned() } else { format!("{{ {} }}", entries.join(", ")) }
    }

    fn read_entry(
        &mut self,
        entry: &str,
        raw: &Raw,
        bounds: Option<Bounds>,
    ) -> Result<(), Vec<Problem>> {
        match T::read(&raw.settle(T::KIND.is_text()), bounds) {
            Ok(value) => {
                self.insert(entry.to_owned(), value);
                Ok(())
            }
            Err(problems) => Err(problems
                .into_iter()
                .map(|problem| Problem { entry: Some(entry.to_owned()), ..problem })
                .collect()),
        }
    }
}

fn out_of_range(raw: &Raw, found: &str, bounds: Bounds) -> Problem {
    Problem::new(raw, format!("{found} is out of range: {bounds} is allowed"))
}

/// Declares an enumeration of named strings.
macro_rules! choice {
    (
        $(#[doc = $doc:literal])*
        pub enum $name:ident { $( $(#[doc = $vdoc:literal])* $variant:ident = $text:literal, )+ }
    ) => {
        $(#[doc = $doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum $name { $( $(#[doc = $vdoc])* $variant, )+ }

        impl $crate::config::field::Field for $name {
            const KIND: $crate::config::field::Kind =
                $crate::config::field::Kind::Choice(&[$($text),+]);

            fn read(
                raw: &$crate::config::raw::Raw,
                _: Option<$crate::config::field::Bounds>,
            ) -> Result<Self, Vec<$crate::config::field::Problem>> {
                match &raw.value {
                    $( $crate::config::raw::RawValue::Text(text) if text == $text => {
                        Ok($name::$variant)
                    } )+
                    _ => Err(vec![$crate::config::field::Problem::new(
                        raw,
                        format!("expected {}, found {}", Self::KIND, raw.describe()),
                    )]),
                }
            }

            fn toml(&self) -> String {
                match self { $( $name::$variant => $crate::config::raw::quote($text), )+ }
            }
        }
    };
}
pub(crate) use choice;
