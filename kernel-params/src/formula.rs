//! Formulas of proposals: whole numbers, variables of the goal and the host, `+ - * /`, comparisons
//! (1 or 0), `&&`, parentheses, `min(a, b)`, `max(a, b)`, `clamp(x, least, most)`, `pow2(x)` (the
//! next power of two).
//!
//! Numbers are `i128`; what would leave them stays at the end of them, so no formula overflows.

use std::collections::BTreeMap;

/// Deepest nesting of parentheses and functions; data files stay far below.
const DEPTH_MAX: u32 = 32;

/// Values of the variables by name.
pub type Variables = BTreeMap<&'static str, i128>;

/// A parsed formula.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Formula {
    text: String,
    node: Node,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Node {
    Number(i128),
    Variable(String),
    Binary(Operator, Box<Node>, Box<Node>),
    Call(Function, Vec<Node>),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Operator {
    And,
    Less,
    AtMost,
    More,
    AtLeast,
    Equal,
    Differs,
    Plus,
    Minus,
    Times,
    Divided,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Function {
    Min,
    Max,
    Clamp,
    Pow2,
}

impl Function {
    fn named(name: &str) -> Option<(Self, usize)> {
        Some(match name {
            "min" => (Self::Min, 2),
            "max" => (Self::Max, 2),
            "clamp" => (Self::Clamp, 3),
            "pow2" => (Self::Pow2, 1),
            _ => return None,
        })
    }
}

impl Formula {
    /// Parses `text`.
    ///
    /// # Errors
    /// What is wrong, and where.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut parser = Parser { text, at: 0, depth: 0 };
        let node = parser.comparison()?;
        parser.blanks();
        if parser.at < text.len() {
            return Err(parser.wrong("an operator"));
        }
        Ok(Self { text: text.to_owned(), node })
    }

    /// As it was written.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Whether it is one name and nothing else.
    #[must_use]
    pub fn is_a_name(&self) -> bool {
        matches!(self.node, Node::Variable(_))
    }

    /// Its value.
    ///
    /// # Errors
    /// A variable that is not known, or a division by zero.
    pub fn value(&self, variables: &Variables) -> Result<i128, String> {
        self.node.value(variables).map_err(|why| format!("{}: {why}", self.text))
    }
}

impl Node {
    fn value(&self, variables: &Variables) -> Result<i128, String> {
        match self {
            Self::Number(number) => Ok(*number),
            Self::Variable(name) => variables
                .get(name.as_str())
                .copied()
                .ok_or_else(|| format!("there is no variable `{name}`")),
            Self::Binary(operator, left, right) => {
                let (a, b) = (left.value(variables)?, right.value(variables)?);
                Ok(match operator {
                    Operator::And => i128::from(a != 0 && b != 0),
                    Operator::Less => i128::from(a < b),
                    Operator::AtMost => i128::from(a <= b),
                    Operator::More => i128::from(a > b),
                    Operator::AtLeast => i128::from(a >= b),
                    Operator::Equal => i128::from(a == b),
                    Operator::Differs => i128::from(a != b),
                    Operator::Plus => a.saturating_add(b),
                    Operator::Minus => a.saturating_sub(b),
                    Operator::Times => a.saturating_mul(b),
                    Operator::Divided => a.checked_div(b).ok_or("a division by zero")?,
                })
            }
            Self::Call(function, arguments) => {
                let mut values = arguments.iter().map(|a| a.value(variables));
                let mut next = || values.next().unwrap_or(Ok(0));
                Ok(match function {
                    Function::Min => next()?.min(next()?),
                    Function::Max => next()?.max(next()?),
                    Function::Clamp => {
                        let (x, least, most) = (next()?, next()?, next()?);
                        x.min(most).max(least)
                    }
                    Function::Pow2 => {
                        let x = u128::try_from(next()?).unwrap_or(0);
                        i128::try_from(x.next_power_of_two()).unwrap_or(i128::MAX)
                    }
                })
            }
        }
    }
}

struct Parser<'a> {
    text: &'a str,
    at: usize,
    depth: u32,
}

impl Parser<'_> {
    fn rest(&self) -> &str {
        &self.text[self.at..]
    }

    fn blanks(&mut self) {
        let rest = self.rest();
        self.at += rest.len() - rest.trim_start().len();
    }

    fn takes(&mut self, token: &str) -> bool {
        self.blanks();
        let found = self.rest().starts_with(token);
        self.at += if found { token.len() } else { 0 };
        found
    }

    fn wrong(&self, wanted: &str) -> String {
        let found = self.rest().chars().next().map_or("the end".to_owned(), |c| format!("`{c}`"));
        format!("{}: {wanted} wanted at position {}, found {found}", self.text, self.at + 1)
    }

    /// The first of `operators` that is next; longer ones come first.
    fn operator(&mut self, operators: &[(&str, Operator)]) -> Option<Operator> {
        operators.iter().find(|(token, _)| self.takes(token)).map(|(_, operator)| *operator)
    }

    /// A chain of `operators`, from the left, between what `side` parses.
    fn chain(
        &mut self,
        operators: &[(&str, Operator)],
        side: fn(&mut Self) -> Result<Node, String>,
    ) -> Result<Node, String> {
        let mut left = side(self)?;
        while let Some(operator) = self.operator(operators) {
            left = Node::Binary(operator, Box::new(left), Box::new(side(self)?));
        }
        Ok(left)
    }

    fn comparison(&mut self) -> Result<Node, String> {
        self.chain(&[("&&", Operator::And)], |p| {
            let operators = [
                ("<=", Operator::AtMost),
                (">=", Operator::AtLeast),
                ("==", Operator::Equal),
                ("!=", Operator::Differs),
                ("<", Operator::Less),
                (">", Operator::More),
            ];
            p.chain(&operators, Self::sum)
        })
    }

    fn sum(&mut self) -> Result<Node, String> {
        self.chain(&[("+", Operator::Plus), ("-", Operator::Minus)], Self::product)
    }

    fn product(&mut self) -> Result<Node, String> {
        self.chain(&[("*", Operator::Times), ("/", Operator::Divided)], Self::atom)
    }

    fn atom(&mut self) -> Result<Node, String> {
        self.blanks();
        if self.takes("(") {
            return self.nested(|p| {
                let node = p.comparison()?;
                if p.takes(")") { Ok(node) } else { Err(p.wrong("`)`")) }
            });
        }
        let word_of = |c: char| c.is_ascii_alphanumeric() || c == '_';
        let word: String = self.rest().chars().take_while(|&c| word_of(c)).collect();
        if word.is_empty() {
            return Err(self.wrong("a number, a variable or `(`"));
        }
        if word.starts_with(|c: char| c.is_ascii_digit()) {
            let number = word.replace('_', "").parse().map_err(|_| self.wrong("a number"))?;
            self.at += word.len();
            return Ok(Node::Number(number));
        }
        let start = self.at;
        self.at += word.len();
        if !self.takes("(") {
            return Ok(Node::Variable(word));
        }
        let Some((function, count)) = Function::named(&word) else {
            self.at = start;
            return Err(self.wrong("min, max, clamp or pow2"));
        };
        self.nested(|p| {
            let mut arguments = vec![p.comparison()?];
            while p.takes(",") {
                arguments.push(p.comparison()?);
            }
            if !p.takes(")") {
                return Err(p.wrong("`)`"));
            }
            if arguments.len() != count {
                return Err(format!("{}: {word} takes {count} arguments", p.text));
            }
            Ok(Node::Call(function, arguments))
        })
    }

    fn nested(
        &mut self,
        parse: impl FnOnce(&mut Self) -> Result<Node, String>,
    ) -> Result<Node, String> {
        self.depth += 1;
        if self.depth > DEPTH_MAX {
            return Err(format!("{}: more than {DEPTH_MAX} levels deep", self.text));
        }
        let node = parse(self);
        self.depth -= 1;
        node
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn value(text: &str) -> Result<i128, String> {
        let variables = Variables::from([("connections", 1_000_000), ("cores", 8), ("none", 0)]);
        Formula::parse(text)?.value(&variables)
    }

    #[test]
    fn operators_bind_as_in_arithmetic() {
        assert_eq!(value("1 + 2 * 3"), Ok(7));
        assert_eq!(value("(1 + 2) * 3"), Ok(9));
        assert_eq!(value("connections / cores * 5 / 4 + 1_024"), Ok(157_274));
        assert_eq!(value("10 - 3 - 2"), Ok(5));
        assert_eq!(value("cores > 4 && cores <= 8"), Ok(1));
        assert_eq!(value("cores != 8"), Ok(0));
    }

    #[test]
    fn functions_take_as_many_arguments_as_they_need() {
        assert_eq!(value("clamp(pow2(connections / 64), 4096, 65536)"), Ok(16_384));
        assert_eq!(value("pow2(0)"), Ok(1));
        assert_eq!(value("max(1, 2) - min(1, 2)"), Ok(1));
        assert!(value("clamp(1, 2)").unwrap_err().contains("clamp takes 3 arguments"));
    }

    #[test]
    fn what_is_wrong_is_said_with_its_place() {
        assert!(value("1 +").unwrap_err().contains("wanted at position 4, found the end"));
        assert!(value("1 1").unwrap_err().contains("an operator wanted at position 3, found `1`"));
        assert!(value("cube(1)").unwrap_err().contains("min, max, clamp or pow2 wanted"));
        assert!(value("sockets").unwrap_err().contains("there is no variable `sockets`"));
        assert!(value("1 / none").unwrap_err().contains("a division by zero"));
        assert!(value(&"(".repeat(40)).unwrap_err().contains("more than 32 levels deep"));
    }

    #[test]
    fn no_number_overflows() {
        let most = i128::MAX.to_string();
        assert_eq!(value(&format!("{most} * {most}")), Ok(i128::MAX));
        assert_eq!(value(&format!("pow2({most})")), Ok(i128::MAX));
    }
}
