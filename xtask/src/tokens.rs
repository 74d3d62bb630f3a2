//! Rust sources as words and punctuation: enough to see which paths a file names.

/// A word or a punctuation character, and its line from 1.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Token {
    pub(crate) text: String,
    pub(crate) line: usize,
}

/// A path such as `std::time::Instant`; a glob import ends with `*`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Named {
    pub(crate) path: Vec<String>,
    pub(crate) line: usize,
}

/// All paths that production code of a source names; lone words are paths of one.
pub(crate) fn paths(source: &str) -> Vec<Named> {
    let tokens = without_tests(tokens(source));
    let mut found = Vec::new();
    let mut at = 0;
    while let Some(token) = tokens.get(at) {
        if token.text == "use" {
            at += 1;
            tree(&tokens, &mut at, &[], &mut found);
        } else if is_word(&token.text) {
            found.push(path(&tokens, &mut at));
        } else {
            at += 1;
        }
    }
    found
}

fn is_word(text: &str) -> bool {
    text.starts_with(|c: char| c.is_alphabetic() || c == '_')
}

fn is(tokens: &[Token], at: usize, text: &str) -> bool {
    tokens.get(at).is_some_and(|token| token.text == text)
}

/// Reads `a::b::c` from the word at `at`.
fn path(tokens: &[Token], at: &mut usize) -> Named {
    let mut named = Named { path: Vec::new(), line: tokens.get(*at).map_or(0, |t| t.line) };
    while let Some(token) = tokens.get(*at).filter(|token| is_word(&token.text)) {
        named.path.push(token.text.clone());
        *at += 1;
        let next = tokens.get(*at + 1);
        if !is(tokens, *at, "::") || !next.is_some_and(|next| is_word(&next.text)) {
            break;
        }
        *at += 1;
    }
    named
}

/// Reads a use tree such as `a::{b, c::*}`.
fn tree(tokens: &[Token], at: &mut usize, prefix: &[String], found: &mut Vec<Named>) {
    if is(tokens, *at, "::") {
        *at += 1;
    }
    let mut named = path(tokens, at);
    named.path.splice(0..0, prefix.iter().cloned());
    if is(tokens, *at, "::") {
        *at += 1;
    }
    if is(tokens, *at, "*") {
        named.path.push("*".to_owned());
        *at += 1;
    }
    if !is(tokens, *at, "{") {
        found.push(named);
        return;
    }
    *at += 1;
    while *at < tokens.len() && !is(tokens, *at, "}") {
        let before = *at;
        tree(tokens, at, &named.path, found);
        if is(tokens, *at, "as") {
            *at += 2;
        }
        if is(tokens, *at, ",") {
            *at += 1;
        }
        if *at == before {
            return;
        }
    }
    *at += 1;
}

/// Leaves out items below `#[cfg(test)]`.
fn without_tests(tokens: Vec<Token>) -> Vec<Token> {
    let mut kept = Vec::with_capacity(tokens.len());
    let mut at = 0;
    while at < tokens.len() {
        if is(&tokens, at, "#") && is(&tokens, at + 1, "[") && is(&tokens, at + 2, "cfg") {
            let end = closing(&tokens, at + 1);
            let words = tokens.get(at..end).unwrap_or_default();
            let names = |text: &str| words.iter().any(|token| token.text == text);
            if names("test") && !names("not") {
                at = item_end(&tokens, end);
                continue;
            }
        }
        kept.extend(tokens.get(at).cloned());
        at += 1;
    }
    kept
}

/// The index behind the bracket that closes the one at `open`.
fn closing(tokens: &[Token], open: usize) -> usize {
    let mut depth = 0_usize;
    for (at, token) in tokens.iter().enumerate().skip(open) {
        match token.text.as_str() {
            "(" | "[" | "{" => depth += 1,
            ")" | "]" | "}" => {
                depth = depth.saturating_sub(1);
                if depth == 0 {
                    return at + 1;
                }
            }
            _ => {}
        }
    }
    tokens.len()
}

/// The index behind the item that begins at `at`: behind its braces or its semicolon.
fn item_end(tokens: &[Token], mut at: usize) -> usize {
    while let Some(token) = tokens.get(at) {
        match token.text.as_str() {
            ";" => return at + 1,
            "{" => return closing(tokens, at),
            "(" | "[" => at = closing(tokens, at),
            _ => at += 1,
        }
    }
    at
}

/// Words and punctuation, without comments, strings, characters, lifetimes and numbers.
fn tokens(source: &str) -> Vec<Token> {
    let chars: Vec<char> = source.chars().collect();
    let mut found = Vec::new();
    let (mut at, mut line) = (0, 1);
    while let Some(c) = chars.get(at).copied() {
        let next = chars.get(at + 1).copied();
        let end = match (c, next) {
            ('/', Some('/')) => find(&chars, at, |rest| rest.starts_with(&['\n'])),
            ('/', Some('*')) => block_comment(&chars, at),
            ('"', _) => string(&chars, at),
            ('\'', _) => character(&chars, at),
            _ if c.is_alphabetic() || c == '_' => {
                let end = word(&chars, at);
                let text: String = chars.get(at..end).unwrap_or_default().iter().collect();
                match literal(&chars, &text, end) {
                    Some(end) => end,
                    None => {
                        // A raw identifier is the identifier.
                        if text == "r" && chars.get(end) == Some(&'#') {
                            end + 1
                        } else {
                            found.push(Token { text, line });
                            end
                        }
                    }
                }
            }
            _ if c.is_ascii_digit() => word(&chars, at),
            (':', Some(':')) => {
                found.push(Token { text: "::".to_owned(), line });
                at + 2
            }
            _ if c.is_whitespace() => at + 1,
            _ => {
                found.push(Token { text: c.to_string(), line });
                at + 1
            }
        };
        line += chars.get(at..end).unwrap_or_default().iter().filter(|c| **c == '\n').count();
        at = end.max(at + 1);
    }
    found
}

fn find(chars: &[char], from: usize, found: impl Fn(&[char]) -> bool) -> usize {
    (from..chars.len())
        .find(|at| found(chars.get(*at..).unwrap_or_default()))
        .unwrap_or(chars.len())
}

fn word(chars: &[char], from: usize) -> usize {
    find(chars, from, |rest| rest.first().is_some_and(|c| !c.is_alphanumeric() && *c != '_'))
}

fn block_comment(chars: &[char], from: usize) -> usize {
    let (mut at, mut depth) = (from, 0_usize);
    while at < chars.len() {
        match chars.get(at..at + 2) {
            Some(['/', '*']) => depth += 1,
            Some(['*', '/']) if depth == 1 => return at + 2,
            Some(['*', '/']) => depth -= 1,
            _ => {
                at += 1;
                continue;
            }
        }
        at += 2;
    }
    at
}

/// The end of the string that opens at `from`.
fn string(chars: &[char], from: usize) -> usize {
    let mut at = from + 1;
    while let Some(c) = chars.get(at) {
        match c {
            '\\' => at += 2,
            '"' => return at + 1,
            _ => at += 1,
        }
    }
    at
}

/// The end of a character, or of a lifetime.
fn character(chars: &[char], from: usize) -> usize {
    match (chars.get(from + 1), chars.get(from + 2)) {
        (Some('\\'), _) => find(chars, from + 3, |rest| rest.first() == Some(&'\'')) + 1,
        (Some(_), Some('\'')) => from + 3,
        _ => word(chars, from + 1),
    }
}

/// The end of a literal that begins with the prefix `text`, which ends at `end`.
fn literal(chars: &[char], text: &str, end: usize) -> Option<usize> {
    match (text, chars.get(end)?) {
        ("b" | "c", '"') => Some(string(chars, end)),
        ("b", '\'') => Some(character(chars, end)),
        ("r" | "br" | "cr", '"' | '#') => {
            let hashes = chars.get(end..)?.iter().take_while(|c| **c == '#').count();
            if chars.get(end + hashes) != Some(&'"') {
                return None;
            }
            let mut close = vec!['"'];
            close.extend(std::iter::repeat_n('#', hashes));
            let open = end + hashes + 1;
            Some(
                (find(chars, open, |rest| rest.starts_with(&close)) + close.len()).min(chars.len()),
            )
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(source: &str) -> Vec<String> {
        paths(source).iter().map(|named| named.path.join("::")).collect()
    }

    #[test]
    fn use_trees_are_spelled_out() {
        let source = "use std::{net, time::{self, Duration as D, Instant}, fs::*};\nuse a::b;";
        let expected = [
            "std::net",
            "std::time::self",
            "std::time::Duration",
            "std::time::Instant",
            "std::fs::*",
            "a::b",
        ];
        assert_eq!(named(source), expected);
    }

    #[test]
    fn paths_in_code_are_found_with_their_line() {
        let found = paths("fn f() {\n  let x = ::std::thread::spawn(g::<T>);\n}");
        let spawn = found.iter().find(|named| named.path.len() == 3).expect("found");
        assert_eq!((spawn.path.join("::"), spawn.line), ("std::thread::spawn".into(), 2));
    }

    #[test]
    fn comments_strings_and_tests_name_nothing() {
        let source = r####"
            // std::net /* std::net
            /* std::net /* std::net */ std::net */
            const A: &str = "std::net \" std::net"; const B: &[u8] = br##"std::net "# "##;
            const C: char = '"'; const D: char = '\''; const E: &'static str = "std::net";
            #[cfg(test)]
            mod tests { use std::net; fn f() { { std::net::x } } }
            #[cfg(test)] use std::net;
            #[cfg(not(test))] use std::fs;
            fn after() {}
        "####;
        let found = named(source);
        assert!(!found.iter().any(|path| path.starts_with("std::net")), "{found:?}");
        assert!(found.contains(&"std::fs".to_owned()), "{found:?}");
        assert!(found.contains(&"after".to_owned()), "{found:?}");
    }
}
