//! Times as an operator writes them: `250ms`, `90s`, `30m`, `12h`, `7d`.

use super::raw::quote;

/// Reads a time, in ms: a whole number and its unit.
///
/// # Errors
/// A sentence for the operator.
pub(crate) fn duration_ms(text: &str) -> Result<u64, String> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let factor = match unit {
        "ms" => Some(1),
        "s" => Some(1_000),
        "m" | "min" => Some(60_000),
        "h" => Some(3_600_000),
        "d" => Some(86_400_000),
        _ => None,
    };
    let ms = factor.zip(number.parse::<u64>().ok()).and_then(|(f, n)| n.checked_mul(f));
    ms.ok_or_else(|| {
        format!("{} is no time: write a number and ms, s, m, h or d, such as 30m", quote(text))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_a_number_with_its_unit() {
        for (text, ms) in [
            ("250ms", 250),
            ("90s", 90_000),
            ("2min", 120_000),
            ("12h", 43_200_000),
            ("7d", 604_800_000),
        ] {
            assert_eq!(duration_ms(text), Ok(ms), "{text}");
        }
        for text in [
            "",
            "s",
            "5",
            "-1s",
            "1.5h",
            "1w",
            "1 s",
            "99999999999999999999s",
            "999999999999999999d",
        ] {
            let wrong = duration_ms(text).expect_err(text);
            assert!(wrong.contains("is no time"), "{wrong}");
        }
    }
}
