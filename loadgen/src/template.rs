//! Topic and identifier templates: `%i` the client's number, `%c` the client identifier, `%%` a
//! percent sign.

use std::fmt::Write as _;
use std::str::FromStr;

/// A parsed template.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Template {
    parts: Vec<Part>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Part {
    Text(String),
    Number,
    ClientId,
}

impl Template {
    /// Appends the text for a client. Its own identifier's template sees an empty `client_id`.
    pub fn render_into(&self, out: &mut String, number: u64, client_id: &str) {
        for part in &self.parts {
            match part {
                Part::Text(text) => out.push_str(text),
                Part::Number => write!(out, "{number}").expect("a String takes any text"),
                Part::ClientId => out.push_str(client_id),
            }
        }
    }

    /// This template with `suffix` after it.
    #[must_use]
    pub fn with_suffix(&self, suffix: &str) -> Self {
        let mut parts = self.parts.clone();
        if !suffix.is_empty() {
            parts.push(Part::Text(suffix.to_owned()));
        }
        Self { parts }
    }

    /// The text for a client.
    #[must_use]
    pub fn render(&self, number: u64, client_id: &str) -> String {
        let mut out = String::new();
        self.render_into(&mut out, number, client_id);
        out
    }
}

impl FromStr for Template {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut parts = Vec::new();
        let mut literal = String::new();
        let mut chars = text.chars();
        while let Some(c) = chars.next() {
            if c != '%' {
                literal.push(c);
                continue;
            }
            let part = match chars.next() {
                Some('%') => {
                    literal.push('%');
                    continue;
                }
                Some('i') => Part::Number,
                Some('c') => Part::ClientId,
                Some(other) => return Err(format!("`%{other}` is not one of %i, %c, %%")),
                None => return Err("a template ends in `%`; write `%%`".into()),
            };
            if !literal.is_empty() {
                parts.push(Part::Text(std::mem::take(&mut literal)));
            }
            parts.push(part);
        }
        if !literal.is_empty() {
            parts.push(Part::Text(literal));
        }
        Ok(Self { parts })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_template_renders_number_client_id_and_percent() {
        let t: Template = "bench/%c/%i/100%%".parse().unwrap();
        assert_eq!(t.render(17, "me"), "bench/me/17/100%");
    }

    #[test]
    fn an_unknown_placeholder_is_refused() {
        assert!("%x".parse::<Template>().is_err());
        assert!("a%".parse::<Template>().is_err());
    }
}
