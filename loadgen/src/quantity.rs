//! Numbers with a unit, as people write them: `5ms`, `0.4 GB`, `2%`, `20k/s`.

use std::fmt;

/// What a number counts. Numbers of different dimensions do not compare.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Dimension {
    /// A time; its value is in ns, and whoever writes one gives a unit.
    Time,
    /// A time whose name says seconds; a plain number is one.
    Seconds,
    /// Bytes; a plain number is one.
    Bytes,
    /// A number of things.
    Count,
    /// Things a second.
    Rate,
    /// A part of a whole, from 0 to 1; `2%` is 0.02.
    Share,
}

/// A number as written: its value in the base unit (ns, bytes, 1), and what its unit says.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Quantity {
    value: f64,
    unit: Unit,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Unit {
    None,
    /// `k`, `M`, `G` alone: a number of anything that is not a time.
    Multiple,
    Time,
    Bytes,
    Rate,
    Percent,
}

/// Suffixes, each with its factor. The longest that fits counts.
const UNITS: &[(&str, Unit, f64)] = &[
    ("ns", Unit::Time, 1.0),
    ("us", Unit::Time, 1e3),
    ("µs", Unit::Time, 1e3),
    ("μs", Unit::Time, 1e3),
    ("ms", Unit::Time, 1e6),
    ("s", Unit::Time, 1e9),
    ("min", Unit::Time, 60e9),
    ("B", Unit::Bytes, 1.0),
    ("kB", Unit::Bytes, 1e3),
    ("MB", Unit::Bytes, 1e6),
    ("GB", Unit::Bytes, 1e9),
    ("KiB", Unit::Bytes, 1024.0),
    ("MiB", Unit::Bytes, 1_048_576.0),
    ("GiB", Unit::Bytes, 1_073_741_824.0),
    ("k", Unit::Multiple, 1e3),
    ("K", Unit::Multiple, 1e3),
    ("M", Unit::Multiple, 1e6),
    ("G", Unit::Multiple, 1e9),
    ("/s", Unit::Rate, 1.0),
    ("k/s", Unit::Rate, 1e3),
    ("K/s", Unit::Rate, 1e3),
    ("M/s", Unit::Rate, 1e6),
    ("%", Unit::Percent, 0.01),
    ("", Unit::None, 1.0),
];

impl Quantity {
    /// Reads a number with or without a unit; blanks between them are allowed.
    ///
    /// # Errors
    /// A sentence that names the units there are.
    pub fn parse(text: &str) -> Result<Self, String> {
        let text = text.trim();
        let is_number = |c: char| c.is_ascii_digit() || matches!(c, '.' | '-' | '+' | '_');
        let mut end = text.find(|c| !is_number(c)).unwrap_or(text.len());
        // `1e6` and `2.5e-3`: an exponent when digits follow.
        if let Some(rest) = text[end..].strip_prefix(['e', 'E']) {
            let digits = rest.strip_prefix(['-', '+']).unwrap_or(rest);
            if digits.starts_with(|c: char| c.is_ascii_digit()) {
                let tail = digits.find(|c: char| !c.is_ascii_digit()).unwrap_or(digits.len());
                end = text.len() - digits.len() + tail;
            }
        }
        let (number, unit) = (text[..end].replace('_', ""), text[end..].trim());
        let number: f64 =
            number.parse().map_err(|_| format!("`{text}` does not begin with a number"))?;
        let &(_, unit, factor) =
            UNITS.iter().find(|(name, ..)| *name == unit).ok_or_else(|| {
                let names: Vec<&str> =
                    UNITS.iter().map(|u| u.0).filter(|n| !n.is_empty() && n.is_ascii()).collect();
                format!("`{unit}` is not a unit: there are {}", names.join(", "))
            })?;
        Ok(Self { value: number * factor, unit })
    }

    /// The value that compares with a number of this dimension.
    ///
    /// # Errors
    /// A sentence that says which unit would do.
    pub fn of(self, dimension: Dimension) -> Result<f64, String> {
        let Self { value, unit } = self;
        match (dimension, unit) {
            (Dimension::Time, Unit::Time) => Ok(value),
            (Dimension::Time, _) => Err("it is a time: give ns, us, ms or s".to_owned()),
            (Dimension::Seconds, Unit::Time) => Ok(value / 1e9),
            (Dimension::Bytes, Unit::None | Unit::Multiple | Unit::Bytes)
            | (Dimension::Rate, Unit::None | Unit::Multiple | Unit::Rate)
            | (Dimension::Count, Unit::None | Unit::Multiple)
            | (Dimension::Share, Unit::None | Unit::Percent)
            | (Dimension::Seconds, Unit::None) => Ok(value),
            (Dimension::Seconds, _) => Err("it is a time: give ms or s".to_owned()),
            (Dimension::Bytes, _) => Err("it counts bytes: give B, kB, KiB, MiB …".to_owned()),
            (Dimension::Rate, _) => Err("it is a rate: give /s, k/s or no unit".to_owned()),
            (Dimension::Count, _) => Err("it is a number of things: give no unit".to_owned()),
            (Dimension::Share, _) => Err("it is a share: give % or 0 to 1".to_owned()),
        }
    }
}

/// Shows a value in the unit that suits its size.
#[must_use]
pub fn show(value: f64, dimension: Dimension) -> String {
    match dimension {
        Dimension::Time => show_ns(value),
        Dimension::Seconds => format!("{} s", Short(value)),
        Dimension::Bytes => show_bytes(value),
        Dimension::Count => Short(value).to_string(),
        Dimension::Rate => format!("{}/s", Short(value)),
        Dimension::Share => format!("{} %", Short(value * 100.0)),
    }
}

/// A time in ns with its unit.
#[must_use]
pub fn show_ns(ns: f64) -> String {
    let size = ns.abs();
    if size < 1e3 {
        format!("{} ns", Short(ns))
    } else if size < 1e6 {
        format!("{} µs", Short(ns / 1e3))
    } else if size < 1e9 {
        format!("{} ms", Short(ns / 1e6))
    } else {
        format!("{} s", Short(ns / 1e9))
    }
}

/// Bytes with their unit.
#[must_use]
pub fn show_bytes(bytes: f64) -> String {
    let size = bytes.abs();
    if size < 10_240.0 {
        format!("{} B", Short(bytes))
    } else if size < 1_048_576.0 {
        format!("{} KiB", Short(bytes / 1024.0))
    } else if size < 1_073_741_824.0 {
        format!("{} MiB", Short(bytes / 1_048_576.0))
    } else {
        format!("{} GiB", Short(bytes / 1_073_741_824.0))
    }
}

/// A number with at most four significant digits behind the point, whole numbers with separators.
struct Short(f64);

impl fmt::Display for Short {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let n = self.0;
        if !n.is_finite() {
            return f.write_str("–");
        }
        let size = n.abs();
        if size >= 1000.0 || n.fract() == 0.0 {
            return f.write_str(&grouped(n));
        }
        match size {
            s if s >= 100.0 => write!(f, "{n:.1}"),
            s if s >= 1.0 => write!(f, "{n:.2}"),
            s if s >= 0.001 => write!(f, "{n:.4}"),
            _ => write!(f, "{n:.2e}"),
        }
    }
}

/// A whole number with a comma between thousands.
#[must_use]
pub fn grouped(n: f64) -> String {
    let digits = format!("{:.0}", n.abs());
    let mut out = String::with_capacity(digits.len() + digits.len() / 3 + 1);
    if n <= -0.5 {
        out.push('-');
    }
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(text: &str, dimension: Dimension) -> Result<f64, String> {
        Quantity::parse(text)?.of(dimension)
    }

    #[test]
    fn units_scale_to_the_base_of_their_dimension() {
        assert_eq!(of("5ms", Dimension::Time), Ok(5e6));
        assert_eq!(of("2 µs", Dimension::Time), Ok(2e3));
        assert_eq!(of("1500ms", Dimension::Seconds), Ok(1.5));
        assert_eq!(of("120", Dimension::Seconds), Ok(120.0));
        assert_eq!(of("0.4 GB", Dimension::Bytes), Ok(4e8));
        assert_eq!(of("500", Dimension::Bytes), Ok(500.0));
        assert_eq!(of("20k/s", Dimension::Rate), Ok(20_000.0));
        assert_eq!(of("1_000_000", Dimension::Count), Ok(1e6));
        assert_eq!(of("1e6", Dimension::Count), Ok(1e6));
        assert_eq!(of("2%", Dimension::Share), Ok(0.02));
        assert_eq!(of("2.5e-3s", Dimension::Time), Ok(2.5e6));
    }

    #[test]
    fn a_number_of_another_dimension_is_refused_with_the_unit_that_would_do() {
        assert!(of("5", Dimension::Time).unwrap_err().contains("ms"));
        assert!(of("5ms", Dimension::Bytes).unwrap_err().contains("bytes"));
        assert!(of("5%", Dimension::Count).unwrap_err().contains("no unit"));
        assert!(Quantity::parse("5 parsecs").unwrap_err().contains("there are ns"));
        assert!(Quantity::parse("fast").unwrap_err().contains("number"));
    }

    #[test]
    fn values_are_shown_in_the_unit_of_their_size() {
        assert_eq!(show(1_234_567.0, Dimension::Time), "1.23 ms");
        assert_eq!(show(340.0, Dimension::Bytes), "340 B");
        assert_eq!(show(12_345_678.0, Dimension::Rate), "12,345,678/s");
        assert_eq!(show(0.021, Dimension::Share), "2.10 %");
        assert_eq!(grouped(-1234.0), "-1,234");
        assert_eq!(grouped(0.0), "0");
    }
}
