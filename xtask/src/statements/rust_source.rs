//! Which lines of a Rust file belong to which function, and to which test.
//!
//! A brace counter over the text with comments and literals blanked out: not a parser, but it
//! reads also what a parser hides, comments and the insides of macros (`proptest! { #[test] .. }`).

/// The functions, modules and test blocks of one file.
#[derive(Debug, Default)]
pub(super) struct Outline {
    regions: Vec<Region>,
    /// `#![cfg(test)]` at the top.
    whole_file_is_test: bool,
    /// Names in `#[cfg(test)] mod name;`.
    pub(super) test_module_files: Vec<String>,
}

/// Lines of one item, counted from 0, from the comments above it to its closing brace.
#[derive(Debug)]
struct Region {
    first: usize,
    last: usize,
    name: String,
    kind: Kind,
    /// Under `#[cfg(test)]` or, for a function, `#[test]`.
    test: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Function,
    Other,
}

impl Outline {
    pub(super) fn of(text: &str) -> Self {
        let code = blank_out(text);
        let mut reader = Reader::new(text, &code);
        reader.read();
        reader.outline
    }

    /// The test that the line belongs to: the `#[test]` function around it; else, inside test code,
    /// the function (a helper or a macro's body), the module or the file.
    pub(super) fn test_at(&self, line: usize, in_test_file: bool, path: &str) -> Option<String> {
        let mut around: Vec<&Region> =
            self.regions.iter().filter(|r| r.first <= line && line <= r.last).collect();
        around.sort_by_key(|region| region.last - region.first);
        let is_function = |r: &&&Region| r.kind == Kind::Function;
        if let Some(test) = around.iter().filter(is_function).find(|r| r.test) {
            return Some(test.name.clone());
        }
        if !in_test_file && !self.whole_file_is_test && !around.iter().any(|r| r.test) {
            return None;
        }
        let nearest = around.iter().find(is_function).or(around.first());
        let stem = path.rsplit('/').next().unwrap_or(path);
        Some(nearest.map_or_else(|| stem.to_owned(), |region| region.name.clone()))
    }
}

/// What has been read of an item before its body.
#[derive(Default)]
struct Head {
    first: Option<usize>,
    attributes: Vec<String>,
    item: Option<(Kind, String)>,
    /// Open `(` and `[` in a signature: a `;` in there ends nothing.
    nested: usize,
}

impl Head {
    fn is_test(&self) -> bool {
        self.attributes.iter().any(|attribute| is_test_attribute(attribute))
    }
}

/// `test`, `tokio::test`, `rstest`, `cfg(test)`, `cfg(all(test, unix))`; not `cfg(not(test))`.
fn is_test_attribute(attribute: &str) -> bool {
    let path = attribute.split('(').next().unwrap_or_default().trim();
    if path == "cfg" {
        let words: Vec<&str> = attribute.split(|c: char| !is_word(c)).collect();
        return words.contains(&"test") && !attribute.replace(' ', "").contains("not(test");
    }
    matches!(path.rsplit("::").next(), Some("test" | "rstest" | "test_case"))
}

fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

struct Reader<'a> {
    lines: Vec<&'a str>,
    code_lines: Vec<&'a str>,
    code: &'a str,
    at: usize,
    line: usize,
    head: Head,
    /// One entry an open brace: the item it belongs to and the signature it interrupted.
    open: Vec<Option<Region>>,
    outline: Outline,
}

impl<'a> Reader<'a> {
    fn new(text: &'a str, code: &'a str) -> Self {
        Self {
            lines: text.lines().collect(),
            code_lines: code.lines().collect(),
            code,
            at: 0,
            line: 0,
            head: Head::default(),
            open: Vec::new(),
            outline: Outline::default(),
        }
    }

    fn read(&mut self) {
        while let Some(c) = self.code[self.at..].chars().next() {
            match c {
                '\n' => self.line += 1,
                c if c.is_whitespace() => {}
                '#' if self.attribute() => continue,
                '{' => self.open_brace(),
                '}' => self.close_brace(),
                ';' if self.head.nested == 0 => self.semicolon(),
                c if is_word(c) => {
                    self.word();
                    continue;
                }
                _ => self.other(c),
            }
            self.at += c.len_utf8();
        }
    }

    fn other(&mut self, c: char) {
        self.head.first.get_or_insert(self.line);
        match c {
            '(' | '[' => self.head.nested += 1,
            ')' | ']' => self.head.nested = self.head.nested.saturating_sub(1),
            _ => {}
        }
    }

    /// Reads `#[..]` or `#![..]`; false where the `#` begins something else.
    fn attribute(&mut self) -> bool {
        let rest = &self.code[self.at + 1..];
        let inner = rest.starts_with('!');
        let Some(body) = rest.trim_start_matches('!').strip_prefix('[') else { return false };
        let mut depth = 1;
        let end = body.find(|c: char| {
            depth += i32::from(c == '[') - i32::from(c == ']');
            depth == 0
        });
        let Some(end) = end else { return false };
        let text = &body[..end];
        if inner {
            self.outline.whole_file_is_test |= self.open.is_empty() && is_test_attribute(text);
        } else {
            self.head.first.get_or_insert(self.line);
            self.head.attributes.push(text.to_owned());
        }
        self.line += text.matches('\n').count();
        self.at += 1 + usize::from(inner) + 1 + end + 1;
        true
    }

    fn word(&mut self) {
        let rest = &self.code[self.at..];
        let end = rest.find(|c| !is_word(c)).unwrap_or(rest.len());
        self.head.first.get_or_insert(self.line);
        let kind = match &rest[..end] {
            "fn" => Some(Kind::Function),
            "mod" => Some(Kind::Other),
            _ => None,
        };
        if let Some(kind) = kind {
            let after = rest[end..].trim_start();
            let name_end = after.find(|c| !is_word(c)).unwrap_or(after.len());
            // `fn(u8)` is a type and `fn $name` a macro's pattern: neither has a name.
            if name_end > 0 {
                self.head.item = Some((kind, after[..name_end].to_owned()));
            }
        }
        self.at += end;
    }

    fn open_brace(&mut self) {
        let head = std::mem::take(&mut self.head);
        let test = head.is_test();
        let first = self.first_comment_line(head.first.unwrap_or(self.line));
        let (kind, name) = match head.item {
            Some(item) => item,
            None if test => (Kind::Other, "cfg(test)".to_owned()),
            None => return self.open.push(None),
        };
        self.open.push(Some(Region { first, last: first, name, kind, test }));
    }

    fn close_brace(&mut self) {
        if let Some(Some(mut region)) = self.open.pop() {
            region.last = self.line;
            self.outline.regions.push(region);
        }
        self.head = Head::default();
    }

    fn semicolon(&mut self) {
        let head = std::mem::take(&mut self.head);
        let test = head.is_test();
        if let Some((Kind::Other, name)) = head.item
            && test
        {
            self.outline.test_module_files.push(name);
        }
    }

    /// Comments directly above an item speak of it.
    fn first_comment_line(&self, first: usize) -> usize {
        let mut first = first;
        while let Some(above) = first.checked_sub(1) {
            let is_blank = |lines: &[&str]| lines.get(above).is_none_or(|l| l.trim().is_empty());
            if is_blank(&self.lines) || !is_blank(&self.code_lines) {
                break;
            }
            first = above;
        }
        first
    }
}

/// The text with comments, strings and characters replaced by spaces; lines stay where they are.
fn blank_out(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    let mut last = ' ';
    while let Some(c) = rest.chars().next() {
        let hidden = match c {
            '/' if rest.starts_with("//") => rest.find('\n').unwrap_or(rest.len()),
            '/' if rest.starts_with("/*") => block_comment(rest),
            '"' => quoted(rest),
            '\'' => character(rest),
            'r' | 'b' | 'c' if !is_word(last) => raw_string(rest),
            _ => 0,
        };
        if hidden == 0 {
            out.push(c);
            last = c;
            rest = &rest[c.len_utf8()..];
        } else {
            out.extend(rest[..hidden].chars().map(|c| if c == '\n' { c } else { ' ' }));
            last = ' ';
            rest = &rest[hidden..];
        }
    }
    out
}

fn block_comment(text: &str) -> usize {
    let bytes = text.as_bytes();
    let (mut at, mut depth) = (0, 0);
    while at < bytes.len() {
        match &bytes[at..] {
            [b'/', b'*', ..] => (depth, at) = (depth + 1, at + 2),
            [b'*', b'/', ..] => (depth, at) = (depth - 1, at + 2),
            _ => at += 1,
        }
        if depth == 0 {
            break;
        }
    }
    at
}

/// Length of a string literal with escapes, quotes included.
fn quoted(text: &str) -> usize {
    let mut escaped = false;
    for (at, c) in text.char_indices().skip(1) {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '"' => return at + 1,
            _ => {}
        }
    }
    text.len()
}

/// Length of a character literal; 0 for a lifetime.
fn character(text: &str) -> usize {
    let mut chars = text.char_indices().skip(1);
    match (chars.next(), chars.next()) {
        (Some((_, '\\')), Some((escaped, _))) => {
            let from = escaped + text[escaped..].chars().next().map_or(0, char::len_utf8);
            text[from..].find('\'').map_or(0, |end| from + end + 1)
        }
        (Some(_), Some((end, '\''))) => end + 1,
        _ => 0,
    }
}

/// Length of a raw string, `r"..."` or `br##"..."##`; 0 where the letter begins something else.
fn raw_string(text: &str) -> usize {
    let letters = text.find(|c| !matches!(c, 'r' | 'b' | 'c')).unwrap_or(text.len());
    let body = &text[letters..];
    if letters > 2 || !text[..letters].ends_with('r') {
        return 0;
    }
    let hashes = body.bytes().take_while(|b| *b == b'#').count();
    if !body[hashes..].starts_with('"') {
        return 0;
    }
    let start = letters + hashes + 1;
    let close = format!("\"{}", "#".repeat(hashes));
    text[start..].find(&close).map_or(text.len(), |end| start + end + close.len())
}
