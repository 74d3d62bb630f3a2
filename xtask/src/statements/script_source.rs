//! Which lines of a Python or JavaScript file belong to which test.

/// Lines of one test, counted from 0, from the comments and decorators above it to its end.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Test {
    pub(super) name: String,
    pub(super) first: usize,
    pub(super) last: usize,
}

/// The innermost test around a line.
pub(super) fn test_at(tests: &[Test], line: usize) -> Option<String> {
    tests
        .iter()
        .filter(|test| test.first <= line && line <= test.last)
        .min_by_key(|test| test.last - test.first)
        .map(|test| test.name.clone())
}

/// The `def test_*` functions, methods too: decorators, comments right above, and the body.
pub(super) fn python_tests(text: &str) -> Vec<Test> {
    let statements = python_statements(text);
    let mut tests = Vec::new();
    for (index, statement) in statements.iter().enumerate() {
        let Some(name) = python_test_name(&statement.text) else { continue };
        let above = statements[..index].iter().rev();
        let mut first = statement.first;
        for other in above.take_while(|other| other.text.starts_with(['@', '#'])) {
            if other.last + 1 != first {
                break;
            }
            first = other.first;
        }
        let body = statements[index + 1..].iter();
        let last = body
            .take_while(|other| other.indent > statement.indent || other.text.starts_with('#'))
            .filter(|other| other.indent > statement.indent)
            .last()
            .map_or(statement.last, |other| other.last);
        tests.push(Test { name, first, last });
    }
    tests
}

fn python_test_name(statement: &str) -> Option<String> {
    let rest = statement.strip_prefix("async ").unwrap_or(statement).trim_start();
    let rest = rest.strip_prefix("def ")?.trim_start();
    let name = rest.split(|c: char| !c.is_alphanumeric() && c != '_').next()?;
    name.starts_with("test_").then(|| name.to_owned())
}

/// A statement or a comment with all the lines that brackets and triple quotes stretch it over.
struct PythonStatement {
    first: usize,
    last: usize,
    indent: usize,
    text: String,
}

fn python_statements(text: &str) -> Vec<PythonStatement> {
    let mut statements: Vec<PythonStatement> = Vec::new();
    let mut state = PythonState::default();
    for (number, line) in text.lines().enumerate() {
        let continues = state.continues();
        if line.trim().is_empty() && !continues {
            continue;
        }
        state.read(line);
        match statements.last_mut() {
            Some(statement) if continues => statement.last = number,
            _ => statements.push(PythonStatement {
                first: number,
                last: number,
                indent: line.len() - line.trim_start().len(),
                text: line.trim().to_owned(),
            }),
        }
    }
    statements
}

/// What is open at the end of a line.
#[derive(Default)]
struct PythonState {
    brackets: usize,
    triple_quote: Option<&'static str>,
    backslash: bool,
}

impl PythonState {
    fn continues(&self) -> bool {
        self.brackets > 0 || self.triple_quote.is_some() || self.backslash
    }

    fn read(&mut self, line: &str) {
        self.backslash = false;
        let mut rest = line;
        while let Some(c) = rest.chars().next() {
            let triple = ["\"\"\"", "'''"].into_iter().find(|quote| rest.starts_with(quote));
            let mut step = c.len_utf8();
            match (self.triple_quote, triple, c) {
                (Some(open), Some(quote), _) if open == quote => {
                    self.triple_quote = None;
                    step = 3;
                }
                // An escape, in a string or at the end of the line.
                (_, _, '\\') => {
                    self.backslash = rest.len() == 1 && self.triple_quote.is_none();
                    step += rest[1..].chars().next().map_or(0, char::len_utf8);
                }
                (Some(_), _, _) => {}
                (None, Some(quote), _) => {
                    self.triple_quote = Some(quote);
                    step = 3;
                }
                (None, None, '"' | '\'') => step = python_string(rest, c),
                (None, None, '#') => return,
                (None, None, '(' | '[' | '{') => self.brackets += 1,
                (None, None, ')' | ']' | '}') => self.brackets = self.brackets.saturating_sub(1),
                _ => {}
            }
            rest = &rest[step..];
        }
    }
}

/// Length of a one-line string, quotes included.
fn python_string(text: &str, quote: char) -> usize {
    let mut escaped = false;
    for (at, c) in text.char_indices().skip(1) {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            c if c == quote => return at + 1,
            _ => {}
        }
    }
    text.len()
}

/// The `test("…", …)` and `it("…", …)` calls: comments right above, and all lines up to the next
/// call. Coarser than the Python side: enough for a handful of scripts, one call after another.
pub(super) fn javascript_tests(text: &str) -> Vec<Test> {
    let lines: Vec<&str> = text.lines().map(str::trim).collect();
    let is_comment = |line: &str| line.starts_with("//") || line.starts_with(['*', '/']);
    let mut tests: Vec<Test> = Vec::new();
    for (number, line) in lines.iter().enumerate() {
        let Some(name) = javascript_test_name(line) else { continue };
        let above = lines[..number].iter().rev();
        let first = number - above.take_while(|line| is_comment(line)).count();
        if let Some(before) = tests.last_mut() {
            before.last = first.saturating_sub(1);
        }
        tests.push(Test { name, first, last: lines.len().saturating_sub(1) });
    }
    tests
}

fn javascript_test_name(line: &str) -> Option<String> {
    let rest = line.strip_prefix("await ").unwrap_or(line);
    let call = ["test(", "it("].into_iter().find_map(|call| rest.strip_prefix(call))?;
    let quote = call.chars().next().filter(|c| matches!(c, '"' | '\'' | '`'))?;
    Some(call[1..].split(quote).next().unwrap_or_default().to_owned())
}
