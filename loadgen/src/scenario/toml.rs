//! TOML with the line of each key, read key by key: what nobody asked for is unknown, and the error
//! names the nearest key that was asked for.

use std::borrow::Cow;
use std::cell::RefCell;
use std::collections::BTreeSet;
use std::fmt;
use std::ops::{Range, RangeInclusive};
use std::str::FromStr;
use std::time::Duration;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use crate::metric::nearest;

/// Something that is wrong with a scenario, and where.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Problem {
    /// Line of the file from 1; `None` for an option of the command line and for the whole file.
    pub line: Option<u32>,
    /// The option of the command line that the value came from.
    pub option: Option<String>,
    /// What is wrong and what would be right.
    pub message: String,
}

/// All that is wrong with a scenario; at least one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problems {
    /// The file.
    pub file: String,
    /// Down the file.
    pub list: Vec<Problem>,
}

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, problem) in self.list.iter().enumerate() {
            if at > 0 {
                writeln!(f)?;
            }
            match (&problem.option, problem.line) {
                (Some(option), _) => write!(f, "option {option}: {}", problem.message)?,
                (None, Some(line)) => write!(f, "{}:{line}: {}", self.file, problem.message)?,
                (None, None) => write!(f, "{}: {}", self.file, problem.message)?,
            }
        }
        Ok(())
    }
}

impl std::error::Error for Problems {}

/// A value and where it was written.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Node {
    pub(super) line: Option<u32>,
    pub(super) option: Option<String>,
    pub(super) value: Value,
}

/// The shapes a value can have.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Value {
    Text(String),
    Integer(i64),
    Float(f64),
    Bool(bool),
    List(Vec<Node>),
    Table(Vec<(String, Node)>),
    /// A date, or an integer beyond 64 bits.
    Other(String),
}

impl Node {
    fn describe(&self) -> String {
        match &self.value {
            Value::Text(text) => format!("the string {text:?}"),
            Value::Integer(number) => format!("the integer {number}"),
            Value::Float(number) => format!("the number {number:?}"),
            Value::Bool(value) => format!("{value}"),
            Value::List(_) => "a list".to_owned(),
            Value::Table(_) => "a table".to_owned(),
            Value::Other(text) => text.clone(),
        }
    }
}

/// Parses a whole file.
///
/// # Errors
/// Every syntax error, with its line.
pub(super) fn parse(text: &str) -> Result<Node, Vec<Problem>> {
    let lines = Lines::of(text);
    let (table, errors) = DeTable::parse_recoverable(text);
    if errors.is_empty() {
        return Ok(Node {
            line: Some(1),
            option: None,
            value: Value::Table(entries(table.get_ref(), &lines)),
        });
    }
    let problem = |error: &toml::de::Error| Problem {
        line: error.span().and_then(|span| lines.at(span)).or(Some(1)),
        option: None,
        message: format!("not valid TOML: {}", error.message().replace('\n', ", ")),
    };
    Err(errors.iter().map(problem).collect())
}

/// Puts `key=value` of an option into the tree. An element of a list of tables is named by its
/// `name`, by its `kind` or by its index from 0.
///
/// # Errors
/// A sentence that says what is wrong with the option.
pub(super) fn set(root: &mut Node, option: &str) -> Result<(), String> {
    let (path, text) =
        option.split_once('=').ok_or_else(|| "expected path.key=value".to_owned())?;
    let origin = format!("--set {option}");
    let value = match DeValue::parse(text.trim()) {
        Ok(value) => convert(&value, &Lines::none()).value,
        // Text without quotes.
        Err(_) => Value::Text(text.trim().to_owned()),
    };
    let value = mark(Node { line: None, option: None, value }, &origin);
    let mut at = root;
    let mut parts = path.trim().split('.').peekable();
    while let Some(part) = parts.next() {
        let last = parts.peek().is_none();
        at = match &mut at.value {
            Value::Table(entries) => {
                let found = entries.iter().position(|(key, _)| key == part);
                let index = found.unwrap_or_else(|| {
                    let empty = Node {
                        line: None,
                        option: Some(origin.clone()),
                        value: Value::Table(Vec::new()),
                    };
                    entries.push((part.to_owned(), empty));
                    entries.len() - 1
                });
                &mut entries[index].1
            }
            Value::List(items) => {
                let named = |node: &Node| is_named(node, part);
                let index = part.parse().ok().filter(|&n: &usize| n < items.len());
                let index = items.iter().position(named).or(index);
                let index = index.ok_or_else(|| format!("{path}: there is no {part} to set"))?;
                &mut items[index]
            }
            _ => return Err(format!("{path}: {part} is below something that is no table")),
        };
        if last {
            *at = value;
            return Ok(());
        }
    }
    Err("expected path.key=value".to_owned())
}

fn is_named(node: &Node, name: &str) -> bool {
    let Value::Table(entries) = &node.value else { return false };
    ["name", "kind"].iter().any(|wanted| {
        let is = |(key, node): &(String, Node)| {
            key == wanted && matches!(&node.value, Value::Text(text) if text == name)
        };
        entries.iter().any(is)
    })
}

fn mark(mut node: Node, option: &str) -> Node {
    node.option = Some(option.to_owned());
    match &mut node.value {
        Value::List(items) => {
            for item in items {
                *item = mark(item.clone(), option);
            }
        }
        Value::Table(entries) => {
            for (_, item) in entries {
                *item = mark(item.clone(), option);
            }
        }
        _ => {}
    }
    node
}

/// Collects what is wrong while a tree is read.
#[derive(Debug, Default)]
pub(super) struct Reader {
    problems: RefCell<Vec<Problem>>,
}

impl Reader {
    pub(super) fn table<'a>(&'a self, path: &str, node: &'a Node) -> Option<Table<'a>> {
        let Value::Table(entries) = &node.value else {
            self.report(node, format!("{path}: expected a table, found {}", node.describe()));
            return None;
        };
        let asked = RefCell::default();
        Some(Table { reader: self, path: path.to_owned(), node, entries, asked })
    }

    pub(super) fn report(&self, node: &Node, message: String) {
        let Node { line, option, .. } = node;
        let problem = Problem { line: *line, option: option.clone(), message };
        self.problems.borrow_mut().push(problem);
    }

    pub(super) fn finish(self) -> Vec<Problem> {
        let mut problems = self.problems.into_inner();
        // As one reads; options come first, since their line is none.
        problems.sort();
        problems
    }
}

/// A table that is being read. When it goes, the keys that nobody asked for are reported.
#[derive(Debug)]
pub(super) struct Table<'a> {
    reader: &'a Reader,
    path: String,
    pub(super) node: &'a Node,
    entries: &'a [(String, Node)],
    asked: RefCell<BTreeSet<&'static str>>,
}

impl<'a> Table<'a> {
    /// The value of a key.
    pub(super) fn node(&self, key: &'static str) -> Option<&'a Node> {
        self.asked.borrow_mut().insert(key);
        self.entries.iter().find(|(name, _)| name == key).map(|(_, node)| node)
    }

    /// Whether the key was written.
    pub(super) fn has(&self, key: &'static str) -> bool {
        self.node(key).is_some()
    }

    pub(super) fn text(&self, key: &'static str) -> Option<&'a str> {
        let node = self.node(key)?;
        match &node.value {
            Value::Text(text) => Some(text),
            _ => self.wrong(key, node, "expected a string"),
        }
    }

    /// Text that becomes something else.
    pub(super) fn parsed<T: FromStr<Err: fmt::Display>>(&self, key: &'static str) -> Option<T> {
        let text = self.text(key)?;
        text.parse().map_err(|e| self.problem(key, format_args!("{e}"))).ok()
    }

    /// One of some words.
    pub(super) fn word<T: Copy>(&self, key: &'static str, words: &[(&str, T)]) -> Option<T> {
        let text = self.text(key)?;
        let found = words.iter().find(|(word, _)| *word == text).map(|(_, value)| *value);
        if found.is_none() {
            let near = nearest(text, words.iter().map(|(word, _)| *word)).unwrap_or("");
            let all: Vec<&str> = words.iter().map(|(word, _)| *word).collect();
            let all = all.join(", ");
            self.problem(key, format_args!("`{text}` is not one of {all}; nearest: {near}"));
        }
        found
    }

    pub(super) fn bool(&self, key: &'static str) -> Option<bool> {
        let node = self.node(key)?;
        match node.value {
            Value::Bool(value) => Some(value),
            _ => self.wrong(key, node, "expected true or false"),
        }
    }

    /// A whole number within bounds.
    pub(super) fn integer<T: TryFrom<i64>>(
        &self,
        key: &'static str,
        bounds: RangeInclusive<i64>,
    ) -> Option<T> {
        let node = self.node(key)?;
        match node.value {
            Value::Integer(n) if bounds.contains(&n) => T::try_from(n).ok(),
            _ => {
                let (least, most) = bounds.into_inner();
                self.wrong(key, node, &format!("expected a whole number from {least} to {most}"))
            }
        }
    }

    /// A number above 0.
    pub(super) fn positive(&self, key: &'static str) -> Option<f64> {
        let number = self.number(key)?;
        if number > 0.0 && number.is_finite() {
            return Some(number);
        }
        self.problem(key, format_args!("expected a number above 0, found {number}"));
        None
    }

    pub(super) fn number(&self, key: &'static str) -> Option<f64> {
        let node = self.node(key)?;
        match node.value {
            Value::Integer(n) => Some(n as f64),
            Value::Float(n) if n.is_finite() => Some(n),
            _ => self.wrong(key, node, "expected a number"),
        }
    }

    /// Seconds, with a fraction if need be.
    pub(super) fn seconds(&self, key: &'static str) -> Option<Duration> {
        let number = self.number(key)?;
        Duration::try_from_secs_f64(number)
            .map_err(|e| self.problem(key, format_args!("{number} s: {e}")))
            .ok()
    }

    pub(super) fn table(&self, key: &'static str) -> Option<Table<'a>> {
        let node = self.node(key)?;
        self.reader.table(&self.at(key), node)
    }

    /// The tables of a list; a single table is a list of one.
    pub(super) fn tables(&self, key: &'static str) -> Vec<Table<'a>> {
        let Some(node) = self.node(key) else { return Vec::new() };
        match &node.value {
            Value::List(items) => {
                let table = |(n, item): (usize, &'a Node)| {
                    self.reader.table(&format!("{}.{n}", self.at(key)), item)
                };
                items.iter().enumerate().filter_map(table).collect()
            }
            Value::Table(_) => self.reader.table(&self.at(key), node).into_iter().collect(),
            _ => {
                let _: Option<()> = self.wrong(key, node, "expected a list of tables");
                Vec::new()
            }
        }
    }

    /// The strings of a list; a single string is a list of one.
    pub(super) fn texts(&self, key: &'static str) -> Vec<(&'a Node, &'a str)> {
        let mut texts = Vec::new();
        for item in self.items(key) {
            match &item.value {
                Value::Text(text) => texts.push((item, text.as_str())),
                _ => {
                    let _: Option<()> = self.wrong(key, item, "expected strings");
                }
            }
        }
        texts
    }

    /// Whole numbers of a list.
    pub(super) fn integers<T: TryFrom<i64>>(
        &self,
        key: &'static str,
        bounds: RangeInclusive<i64>,
    ) -> Vec<T> {
        let mut numbers = Vec::new();
        for item in self.items(key) {
            match item.value {
                Value::Integer(n) if bounds.contains(&n) => numbers.extend(T::try_from(n).ok()),
                _ => {
                    let (least, most) = (bounds.start(), bounds.end());
                    let expected = format!("expected whole numbers from {least} to {most}");
                    let _: Option<()> = self.wrong(key, item, &expected);
                }
            }
        }
        numbers
    }

    /// Numbers of a list.
    pub(super) fn numbers(&self, key: &'static str) -> Vec<f64> {
        let mut numbers = Vec::new();
        for item in self.items(key) {
            match item.value {
                Value::Integer(n) => numbers.push(n as f64),
                Value::Float(n) if n.is_finite() => numbers.push(n),
                _ => {
                    let _: Option<()> = self.wrong(key, item, "expected numbers");
                }
            }
        }
        numbers
    }

    /// A number from 0 to 1.
    pub(super) fn share(&self, key: &'static str) -> Option<f64> {
        let number = self.number(key)?;
        if (0.0..=1.0).contains(&number) {
            return Some(number);
        }
        self.problem(key, format_args!("expected a number from 0 to 1, found {number}"));
        None
    }

    /// The strings of a table, by their keys.
    pub(super) fn pairs(&self, key: &'static str) -> Vec<(String, String)> {
        let Some(node) = self.node(key) else { return Vec::new() };
        let Value::Table(entries) = &node.value else {
            let _: Option<()> = self.wrong(key, node, "expected a table of strings");
            return Vec::new();
        };
        let mut pairs = Vec::new();
        for (name, item) in entries {
            match &item.value {
                Value::Text(text) => pairs.push((name.clone(), text.clone())),
                _ => {
                    let _: Option<()> = self.wrong(key, item, "expected strings");
                }
            }
        }
        pairs
    }

    /// The index of the name that a key holds.
    pub(super) fn name_of(&self, key: &'static str, names: &[&str]) -> Option<u16> {
        let node = self.node(key)?;
        let text = self.text(key)?;
        self.index(key, node, text, names)
    }

    /// The indices of the names that a list holds.
    pub(super) fn names(&self, key: &'static str, names: &[&str]) -> Vec<u16> {
        let texts = self.texts(key);
        texts.into_iter().filter_map(|(node, text)| self.index(key, node, text, names)).collect()
    }

    fn index(&self, key: &str, node: &Node, text: &str, names: &[&str]) -> Option<u16> {
        let found = names.iter().position(|name| *name == text);
        if found.is_none() {
            let near = nearest(text, names.iter().copied()).unwrap_or("");
            let at = self.at(key);
            let message = format!("{at}: there is no population {text}; nearest: {near}");
            self.reader.report(node, message);
        }
        found.map(|n| n as u16)
    }

    /// The items of a list; another value is a list of one.
    fn items(&self, key: &'static str) -> &'a [Node] {
        let Some(node) = self.node(key) else { return &[] };
        match &node.value {
            Value::List(items) => items,
            _ => std::slice::from_ref(node),
        }
    }

    /// The name of a key for messages.
    pub(super) fn at(&self, key: &str) -> String {
        if self.path.is_empty() { key.to_owned() } else { format!("{}.{key}", self.path) }
    }

    /// Reports what is wrong with a key's value, or with the table where it has none.
    pub(super) fn problem(&self, key: &'static str, message: fmt::Arguments<'_>) {
        let node = self.node(key).unwrap_or(self.node);
        self.reader.report(node, format!("{}: {message}", self.at(key)));
    }

    fn wrong<T>(&self, key: &str, node: &Node, expected: &str) -> Option<T> {
        let message = format!("{}: {expected}, found {}", self.at(key), node.describe());
        self.reader.report(node, message);
        None
    }
}

impl Drop for Table<'_> {
    fn drop(&mut self) {
        let asked = self.asked.borrow();
        for (key, node) in self.entries.iter().filter(|(key, _)| !asked.contains(key.as_str())) {
            let near = nearest(key, asked.iter().copied()).unwrap_or("");
            let message = format!("{}: unknown key; nearest: {near}", self.at(key));
            self.reader.report(node, message);
        }
    }
}

/// Byte offsets of line starts.
struct Lines(Option<Vec<usize>>);

impl Lines {
    fn none() -> Self {
        Self(None)
    }

    fn of(text: &str) -> Self {
        let starts = text.bytes().enumerate().filter(|(_, b)| *b == b'\n').map(|(at, _)| at + 1);
        Self(Some(std::iter::once(0).chain(starts).collect()))
    }

    fn at(&self, span: Range<usize>) -> Option<u32> {
        let starts = self.0.as_ref()?;
        u32::try_from(starts.partition_point(|start| *start <= span.start)).ok()
    }
}

fn entries(table: &DeTable<'_>, lines: &Lines) -> Vec<(String, Node)> {
    let entry = |(key, value): (&Spanned<Cow<'_, str>>, &Spanned<DeValue<'_>>)| {
        let mut node = convert(value, lines);
        // A table stands where its header does.
        node.line = lines.at(key.span()).or(node.line);
        (key.get_ref().to_string(), node)
    };
    table.iter().map(entry).collect()
}

fn convert(value: &Spanned<DeValue<'_>>, lines: &Lines) -> Node {
    let line = lines.at(value.span());
    let value = match value.get_ref() {
        DeValue::String(text) => Value::Text(text.to_string()),
        DeValue::Integer(number) => match i64::from_str_radix(number.as_str(), number.radix()) {
            Ok(number) => Value::Integer(number),
            Err(_) => Value::Other(format!("{}, which is beyond 64 bits", number.as_str())),
        },
        DeValue::Float(number) => match number.as_str().parse() {
            Ok(number) => Value::Float(number),
            Err(_) => Value::Other(number.as_str().to_owned()),
        },
        DeValue::Boolean(value) => Value::Bool(*value),
        DeValue::Datetime(date) => Value::Other(format!("the date {date}")),
        DeValue::Array(items) => {
            Value::List(items.iter().map(|item| convert(item, lines)).collect())
        }
        DeValue::Table(table) => Value::Table(entries(table, lines)),
    };
    Node { line, option: None, value }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str, sets: &[&str]) -> (u32, Vec<Problem>) {
        let mut root = parse(text).unwrap();
        sets.iter().for_each(|s| set(&mut root, s).unwrap());
        let reader = Reader::default();
        let mut sum = 0;
        if let Some(table) = reader.table("", &root) {
            for t in table.tables("population") {
                t.text("name");
                sum += t.integer::<u32>("count", 1..=100).unwrap_or(0);
            }
        }
        (sum, reader.finish())
    }

    const TWO: &str =
        "[[population]]\nname = \"a\"\ncount = 2\n[[population]]\nname = \"b\"\ncount = 3\n";

    #[test]
    fn an_unknown_key_is_reported_with_its_line_and_the_nearest_key() {
        let (_, problems) = read("[[population]]\ncuont = 2\n", &[]);
        assert_eq!(problems.len(), 1);
        assert_eq!(problems[0].line, Some(2));
        assert_eq!(problems[0].message, "population.0.cuont: unknown key; nearest: count");
    }

    #[test]
    fn a_value_out_of_bounds_is_reported_with_what_it_may_be() {
        let (_, problems) = read("[[population]]\n\ncount = 101\n", &[]);
        assert_eq!(problems[0].line, Some(3));
        assert!(problems[0].message.contains("from 1 to 100, found the integer 101"));
    }

    #[test]
    fn an_option_sets_an_element_by_its_name_or_its_index() {
        assert_eq!(read(TWO, &[]), (5, vec![]));
        assert_eq!(read(TWO, &["population.b.count=7"]), (9, vec![]));
        assert_eq!(read(TWO, &["population.0.count=7"]), (10, vec![]));
    }

    #[test]
    fn what_is_wrong_with_an_option_names_the_option() {
        let (_, problems) = read(TWO, &["population.b.count=many"]);
        assert_eq!(problems[0].option.as_deref(), Some("--set population.b.count=many"));
        let mut root = parse(TWO).unwrap();
        assert!(set(&mut root, "population.c.count=1").unwrap_err().contains("there is no c"));
        assert!(set(&mut root, "count").is_err());
    }

    #[test]
    fn text_that_is_not_toml_is_reported_with_its_line() {
        let problems = parse("a = 1\nb = = 2\n").unwrap_err();
        assert_eq!(problems[0].line, Some(2));
    }
}
