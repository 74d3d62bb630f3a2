//! Rates as an operator writes them: `100/s`, `10/1m`, `1MiB/s burst 4MiB`.

use ringmain_shards::engine::rates::Rate;

use super::duration::duration_ms;
use super::field::{Bounds, Field, Kind, Problem};
use super::raw::{Raw, RawValue, quote};

/// Longest time that a rate can be for, ms: a day.
const PER_MS_MAX: u64 = 86_400_000;
/// Most in that time, or at once.
const COUNT_MAX: u64 = 1 << 50;

impl Field for Rate {
    const KIND: Kind = Kind::Text(
        "a rate such as \"100/s\", \"10/1m\" or \"1MiB/s burst 4MiB\", or \"0\" for no limit",
    );

    fn read(raw: &Raw, _: Option<Bounds>) -> Result<Self, Vec<Problem>> {
        let RawValue::Text(text) = &raw.value else {
            let message = format!("expected {}, found {}", Self::KIND, raw.describe());
            return Err(vec![Problem::new(raw, message)]);
        };
        parse(text)
            .map_err(|wrong| vec![Problem::new(raw, format!("{wrong}; expected {}", Self::KIND))])
    }

    fn toml(&self) -> String {
        quote(&self.to_string())
    }
}

/// # Errors
/// What is wrong with it.
fn parse(text: &str) -> Result<Rate, String> {
    let text = text.trim();
    if text == "0" {
        return Ok(Rate::default());
    }
    let (rate, burst) = match text.split_once(" burst ") {
        Some((rate, burst)) => (rate.trim(), Some(burst.trim())),
        None => (text, None),
    };
    let Some((count, per)) = rate.split_once('/') else {
        return Err(format!("the rate {} does not say in what time", quote(text)));
    };
    let (count, per_ms) = (number(count)?, per_ms(per)?);
    let burst = burst.map_or(Ok(count), number)?;
    if count == 0 || burst == 0 {
        return Err(format!("the rate {} would let nothing pass", quote(text)));
    }
    Ok(Rate { count, per_ns: per_ms * 1_000_000, burst })
}

/// A number, which may have one of the usual letters behind it.
fn number(text: &str) -> Result<u64, String> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let factor: u64 = match unit {
        "" | "B" => 1,
        "k" | "kB" => 1_000,
        "M" | "MB" => 1_000_000,
        "G" | "GB" => 1_000_000_000,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        _ => return Err(format!("{} is no number", quote(text))),
    };
    let n: u64 = number.parse().map_err(|_| format!("{} is no number", quote(text)))?;
    let n = n.checked_mul(factor).filter(|n| *n <= COUNT_MAX);
    n.ok_or_else(|| format!("{} is above {COUNT_MAX}", quote(text)))
}

/// The time that a rate is for; without a number, one of the unit.
fn per_ms(text: &str) -> Result<u64, String> {
    let is_unit = text.starts_with(|c: char| c.is_ascii_alphabetic());
    let ms = duration_ms(&format!("{}{text}", if is_unit { "1" } else { "" }))?;
    if !(1..=PER_MS_MAX).contains(&ms) {
        return Err(format!("the time {} is not between 1ms and 1d", quote(text)));
    }
    Ok(ms)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_are_read_as_they_are_written() {
        // L01
        for (text, count, per_ms, burst) in [
            ("100/s", 100, 1_000, 100),
            ("10/1m", 10, 60_000, 10),
            ("5k/10s", 5_000, 10_000, 5_000),
            ("1MiB/s burst 4MiB", 1 << 20, 1_000, 4 << 20),
            ("1/h burst 3", 1, 3_600_000, 3),
            ("7/250ms", 7, 250, 7),
        ] {
            let rate = Rate { count, per_ns: per_ms * 1_000_000, burst };
            assert_eq!(parse(text), Ok(rate), "{text}");
            assert_eq!(parse(&rate.to_string()), Ok(rate), "{rate}");
        }
        assert_eq!(parse("0"), Ok(Rate::default()));
        assert_eq!(Rate::default().to_string(), "0");
    }

    #[test]
    fn what_is_no_rate_is_told_what_is_wrong_with_it() {
        for (text, wanted) in [
            ("100", "does not say in what time"),
            ("", "does not say in what time"),
            ("/s", "is no number"),
            ("ten/s", "is no number"),
            ("-1/s", "is no number"),
            ("0/s", "would let nothing pass"),
            ("1/s burst 0", "would let nothing pass"),
            ("1/0s", "is not between 1ms and 1d"),
            ("1/2d", "is not between 1ms and 1d"),
            ("1/week", "is no time"),
            ("99999999999999999999/s", "is no number"),
            ("9999999GiB/s", "is above"),
        ] {
            let wrong = parse(text).expect_err(text);
            assert!(wrong.contains(wanted), "{text}: {wrong}");
        }
    }
}
