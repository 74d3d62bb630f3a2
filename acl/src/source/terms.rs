//! The Erlang terms that `acl.conf` is made of: atoms, integers, strings, tuples and lists.

/// Tuples and lists within each other. A condition with `and` and `or` needs five.
const DEPTH_MAX: usize = 16;

/// One term, and where it is.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Term {
    pub(super) line: u32,
    pub(super) start: usize,
    pub(super) end: usize,
    pub(super) kind: Kind,
}

#[derive(Clone, Debug, PartialEq)]
pub(super) enum Kind {
    Atom(String),
    Integer(i64),
    /// `"text"` or `<<"text">>`.
    Text(String),
    Tuple(Vec<Term>),
    List(Vec<Term>),
}

/// An error of syntax and its line.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Syntax {
    pub(super) line: u32,
    pub(super) what: String,
}

impl Term {
    /// What it is, for a message.
    pub(super) fn describe(&self) -> String {
        match &self.kind {
            Kind::Atom(name) => format!("the atom {name}"),
            Kind::Integer(number) => format!("the integer {number}"),
            Kind::Text(text) => format!("the string {text:?}"),
            Kind::Tuple(items) => match items.first().map(|term| &term.kind) {
                Some(Kind::Atom(name)) => format!("{{{name}, …}} with {} elements", items.len()),
                _ => format!("a tuple of {} elements", items.len()),
            },
            Kind::List(_) => "a list".to_owned(),
        }
    }
}

/// Reads terms one by one, each ended by a dot.
pub(super) struct Reader<'a> {
    text: &'a str,
    at: usize,
    line: u32,
}

impl<'a> Reader<'a> {
    pub(super) fn new(text: &'a str) -> Self {
        // A byte order mark is what some editors leave.
        let at = if text.starts_with('\u{feff}') { 3 } else { 0 };
        Self { text, at, line: 1 }
    }

    /// The next term, or `None` at the end.
    ///
    /// # Errors
    /// Nothing can be read after an error.
    pub(super) fn next(&mut self) -> Result<Option<Term>, Syntax> {
        self.skip();
        if self.at == self.text.len() {
            return Ok(None);
        }
        let term = self.term(0)?;
        self.skip();
        if self.peek() != Some('.') {
            return Err(self.wrong(&format!("expected \".\" after the rule of line {}", term.line)));
        }
        self.at += 1;
        Ok(Some(term))
    }

    fn term(&mut self, depth: usize) -> Result<Term, Syntax> {
        if depth == DEPTH_MAX {
            return Err(self.wrong(&format!("more than {DEPTH_MAX} brackets within each other")));
        }
        self.skip();
        let (line, start) = (self.line, self.at);
        let kind = match self.peek() {
            Some('{') => Kind::Tuple(self.items('}', depth)?),
            Some('[') => Kind::List(self.items(']', depth)?),
            Some('"') => Kind::Text(self.quoted('"')?),
            Some('\'') => Kind::Atom(self.quoted('\'')?),
            Some('<') => Kind::Text(self.binary()?),
            Some(c) if c.is_ascii_lowercase() => Kind::Atom(self.word().to_owned()),
            Some(c) if c.is_ascii_digit() || c == '-' => self.integer()?,
            _ => return Err(self.unexpected("a term")),
        };
        Ok(Term { line, start, end: self.at, kind })
    }

    fn items(&mut self, close: char, depth: usize) -> Result<Vec<Term>, Syntax> {
        let open = self.line;
        self.at += 1;
        let mut items = vec![];
        self.skip();
        if self.eat(close) {
            return Ok(items);
        }
        loop {
            items.push(self.term(depth + 1)?);
            self.skip();
            if self.eat(close) {
                return Ok(items);
            }
            if !self.eat(',') {
                let wanted = format!("\",\" or \"{close}\" of the bracket of line {open}");
                return Err(self.unexpected(&wanted));
            }
        }
    }

    fn binary(&mut self) -> Result<String, Syntax> {
        let rest = &self.text[self.at..];
        if !rest.starts_with("<<\"") {
            return Err(self.unexpected("a term"));
        }
        self.at += 2;
        let text = self.quoted('"')?;
        let rest = &self.text[self.at..];
        let rest = rest.strip_prefix("/utf8").unwrap_or(rest);
        if !rest.starts_with(">>") {
            return Err(self.unexpected("\">>\""));
        }
        self.at = self.text.len() - rest.len() + 2;
        Ok(text)
    }

    fn integer(&mut self) -> Result<Kind, Syntax> {
        let rest = &self.text[self.at..];
        let digits = rest.bytes().skip(1).take_while(u8::is_ascii_digit).count();
        let text = &rest[..1 + digits];
        let number = text.parse().map_err(|_| self.wrong(&format!("{text} is not an integer")))?;
        self.at += text.len();
        Ok(Kind::Integer(number))
    }

    fn word(&mut self) -> &'a str {
        let rest = &self.text[self.at..];
        let part = |b: &u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'@');
        let len = rest.bytes().take_while(part).count();
        self.at += len;
        &rest[..len]
    }

    fn quoted(&mut self, quote: char) -> Result<String, Syntax> {
        let open = self.line;
        let unfinished = || Syntax { line: open, what: format!("no closing {quote}") };
        self.at += 1;
        let mut text = String::new();
        loop {
            let c = self.take().ok_or_else(unfinished)?;
            match c {
                _ if c == quote => return Ok(text),
                '\\' => text.push(self.escape().ok_or_else(unfinished)??),
                _ => text.push(c),
            }
        }
    }

    /// What follows a backslash.
    fn escape(&mut self) -> Option<Result<char, Syntax>> {
        let c = self.take()?;
        Some(Ok(match c {
            'n' => '\n',
            'r' => '\r',
            't' => '\t',
            's' => ' ',
            'b' => '\u{8}',
            'f' => '\u{c}',
            'v' => '\u{b}',
            'e' => '\u{1b}',
            'd' => '\u{7f}',
            'x' => return Some(self.hexadecimal()),
            '0'..='7' => {
                let mut code = c.to_digit(8)?;
                for _ in 0..2 {
                    let Some(digit) = self.peek().and_then(|c| c.to_digit(8)) else { break };
                    code = code * 8 + digit;
                    self.at += 1;
                }
                char::from_u32(code)?
            }
            other => other,
        }))
    }

    fn hexadecimal(&mut self) -> Result<char, Syntax> {
        let rest = &self.text[self.at..];
        let (digits, len) = match rest.strip_prefix('{') {
            Some(inside) => match inside.split_once('}') {
                Some((digits, _)) => (digits, digits.len() + 2),
                None => ("", 0),
            },
            None => (rest.get(..2).unwrap_or_default(), 2),
        };
        // from_str_radix also takes a sign.
        let all = digits.bytes().all(|b| b.is_ascii_hexdigit());
        let code = u32::from_str_radix(digits, 16).ok().filter(|_| all);
        let c = code.and_then(char::from_u32).ok_or_else(|| self.wrong("\\x needs two digits"))?;
        self.at += len;
        Ok(c)
    }

    /// Goes past white space and comments.
    fn skip(&mut self) {
        while let Some(c) = self.peek() {
            if c == '%' {
                let rest = &self.text.as_bytes()[self.at..];
                self.at += memchr::memchr(b'\n', rest).unwrap_or(rest.len());
            } else if c.is_whitespace() {
                self.take();
            } else {
                return;
            }
        }
    }

    fn eat(&mut self, c: char) -> bool {
        let found = self.peek() == Some(c);
        if found {
            self.at += c.len_utf8();
        }
        found
    }

    fn peek(&self) -> Option<char> {
        self.text[self.at..].chars().next()
    }

    fn take(&mut self) -> Option<char> {
        let c = self.peek()?;
        self.at += c.len_utf8();
        self.line += u32::from(c == '\n');
        Some(c)
    }

    fn unexpected(&self, wanted: &str) -> Syntax {
        match self.peek() {
            None => self.wrong(&format!("expected {wanted}, but the file ends")),
            Some(c) if c.is_alphabetic() || c == '_' => self.wrong(&format!(
                "expected {wanted}, found {c:?}: names of variables mean nothing here"
            )),
            Some(c) => self.wrong(&format!("expected {wanted}, found {c:?}")),
        }
    }

    fn wrong(&self, what: &str) -> Syntax {
        Syntax { line: self.line, what: what.to_owned() }
    }
}
