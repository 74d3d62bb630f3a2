//! Values as an operator wrote them, each with the line it stands on.

use std::borrow::Cow;
use std::ops::Range;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

/// A value before it has been checked against a key's type.
#[derive(Debug, Clone, PartialEq)]
pub struct Raw {
    /// What was written.
    pub value: RawValue,
    /// The line in the configuration file, from 1; `None` outside a file.
    pub line: Option<u32>,
}

/// The shapes a value can have.
#[derive(Debug, Clone, PartialEq)]
pub enum RawValue {
    /// A string.
    Text(String),
    /// A number without a fraction.
    Integer(i64),
    /// A number with a fraction.
    Float(f64),
    /// `true` or `false`.
    Bool(bool),
    /// A date or time, which no key takes.
    Date(String),
    /// `[a, b]`.
    List(Vec<Raw>),
    /// `{ key = value }` or `[section]`.
    Table(Vec<RawEntry>),
    /// Text from the environment or the command line: a TOML value, or a string without quotes.
    Bare(String),
    /// What TOML cannot hold, such as an integer beyond 64 bits.
    Unreadable(String),
}

/// One key of a table.
#[derive(Debug, Clone, PartialEq)]
pub struct RawEntry {
    /// The key.
    pub key: String,
    /// The line the key stands on, from 1; `None` outside a file.
    pub line: Option<u32>,
    /// Its value.
    pub value: Raw,
}

/// A syntax error in a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct SyntaxError {
    /// The line, from 1.
    pub line: u32,
    /// What the parser expected.
    pub message: String,
}

impl Raw {
    /// Text from the environment or the command line.
    pub fn bare(text: &str) -> Raw {
        Raw { value: RawValue::Bare(text.to_owned()), line: None }
    }

    /// A value that stands on no line.
    pub fn new(value: RawValue) -> Raw {
        Raw { value, line: None }
    }

    /// Gives bare text a meaning: for a key that holds text it is that text (quotes are allowed),
    /// for any other it must be a TOML value.
    pub fn settle(&self, wants_text: bool) -> Cow<'_, Raw> {
        let RawValue::Bare(text) = &self.value else { return Cow::Borrowed(self) };
        let text = text.trim();
        let parsed = DeValue::parse(text).ok().map(|value| convert(&value, &Lines::none()));
        Cow::Owned(match parsed {
            Some(raw) if !wants_text || matches!(raw.value, RawValue::Text(_)) => raw,
            _ => Raw::new(RawValue::Text(text.to_owned())),
        })
    }

    /// Says what this is, for an error message.
    pub fn describe(&self) -> String {
        match &self.value {
            RawValue::Text(text) | RawValue::Bare(text) => format!("the string {}", quote(text)),
            RawValue::Integer(number) => format!("the integer {number}"),
            RawValue::Float(number) => format!("the number {number:?}"),
            RawValue::Bool(value) => format!("the boolean {value}"),
            RawValue::Date(date) => format!("the date {date}"),
            RawValue::List(_) => "a list".to_owned(),
            RawValue::Table(_) => "a table".to_owned(),
            RawValue::Unreadable(text) => format!("{text}, which is beyond 64 bits"),
        }
    }
}

/// Parses a whole file into its top-level entries.
///
/// # Errors
/// Every syntax error found, with its line.
pub(super) fn parse_document(text: &str) -> Result<Vec<RawEntry>, Vec<SyntaxError>> {
    let lines = Lines::of(text);
    let (table, errors) = DeTable::parse_recoverable(text);
    if !errors.is_empty() {
        return Err(errors
            .iter()
            .map(|error| SyntaxError {
                line: error.span().and_then(|span| lines.at(span)).unwrap_or(1),
                message: error.message().replace('\n', ", "),
            })
            .collect());
    }
    Ok(entries(table.get_ref(), &lines))
}

/// Splits `section.key=value` at the first `=` that is not inside quotes and parses the key.
/// `None` when there is no such `=` or the key is not a dotted key.
pub(super) fn parse_assignment(text: &str) -> Option<(Vec<String>, Raw)> {
    let mut quoted = None;
    let at = text.char_indices().find_map(|(at, c)| {
        match (quoted, c) {
            (None, '"' | '\'') => quoted = Some(c),
            (Some(open), _) if open == c => quoted = None,
            (None, '=') => return Some(at),
            _ => {}
        }
        None
    })?;
    Some((parse_path(text.get(..at)?)?, Raw::bare(text.get(at + 1..)?)))
}

fn parse_path(key: &str) -> Option<Vec<String>> {
    if key.contains(['\n', '#']) && !key.contains(['"', '\'']) {
        return None;
    }
    // An index (`listeners.0.url`) is a bare key in TOML too.
    let document = format!("{} = 0", key.trim());
    let mut table = entries(DeTable::parse(&document).ok()?.get_ref(), &Lines::none());
    let mut path = Vec::new();
    loop {
        let entry = table.pop()?;
        path.push(entry.key);
        match entry.value.value {
            RawValue::Table(inner) => table = inner,
            _ => return Some(path),
        }
    }
}

/// A basic TOML string, with its quotes.
pub(crate) fn quote(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\t' => out.push_str("\\t"),
            '\r' => out.push_str("\\r"),
            c if c.is_control() => out.push_str(&format!("\\u{:04X}", u32::from(c))),
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

/// A key as TOML writes it: bare where it can be, quoted otherwise.
pub(crate) fn quote_key(key: &str) -> String {
    let bare = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
    if !key.is_empty() && key.chars().all(bare) { key.to_owned() } else { quote(key) }
}

/// Byte offsets of line starts.
struct Lines(Option<Vec<usize>>);

impl Lines {
    fn none() -> Lines {
        Lines(None)
    }

    fn of(text: &str) -> Lines {
        let starts = text.bytes().enumerate().filter(|(_, b)| *b == b'\n').map(|(at, _)| at + 1);
        Lines(Some(std::iter::once(0).chain(starts).collect()))
    }

    fn at(&self, span: Range<usize>) -> Option<u32> {
        let starts = self.0.as_ref()?;
        let line = starts.partition_point(|start| *start <= span.start);
        u32::try_from(line).ok()
    }
}

fn entries(table: &DeTable<'_>, lines: &Lines) -> Vec<RawEntry> {
    let entry = |(key, value): (&Spanned<Cow<'_, str>>, &Spanned<DeValue<'_>>)| RawEntry {
        key: key.get_ref().to_string(),
        line: lines.at(key.span()),
        value: convert(value, lines),
    };
    table.iter().map(entry).collect()
}

fn convert(value: &Spanned<DeValue<'_>>, lines: &Lines) -> Raw {
    let line = lines.at(value.span());
    let value = match value.get_ref() {
        DeValue::String(text) => RawValue::Text(text.to_string()),
        DeValue::Integer(number) => match i64::from_str_radix(number.as_str(), number.radix()) {
            Ok(number) => RawValue::Integer(number),
            Err(_) => RawValue::Unreadable(number.as_str().to_owned()),
        },
        DeValue::Float(number) => match number.as_str().parse() {
            Ok(number) => RawValue::Float(number),
            Err(_) => RawValue::Unreadable(number.as_str().to_owned()),
        },
        DeValue::Boolean(value) => RawValue::Bool(*value),
        DeValue::Datetime(date) => RawValue::Date(date.to_string()),
        DeValue::Array(items) => {
            RawValue::List(items.iter().map(|item| convert(item, lines)).collect())
        }
        DeValue::Table(table) => RawValue::Table(entries(table, lines)),
    };
    Raw { value, line }
}
