//! Numbers for people.

/// A time, with three digits: `12.3 ms`.
pub(super) fn ns(ns: u64) -> String {
    let units = [(1e9, "s"), (1e6, "ms"), (1e3, "µs")];
    let value = ns as f64;
    // What would be rounded to 1,000 of a unit is 1 of the next.
    let found = units.into_iter().find(|(unit, _)| value >= unit * 0.9995);
    found.map_or(format!("{ns} ns"), |(unit, name)| format!("{} {name}", three(value / unit)))
}

/// Bytes, in powers of 1024.
pub(super) fn bytes(bytes: u64) -> String {
    let units = [(30, "GiB"), (20, "MiB"), (10, "KiB")];
    let found = units.into_iter().find(|(shift, _)| bytes >> shift > 0);
    found.map_or(format!("{bytes} B"), |(shift, name)| {
        format!("{} {name}", three(bytes as f64 / (1_u64 << shift) as f64))
    })
}

/// A number of things, or a rate: `1,234,567` up to a million, `12.3M` above.
pub(super) fn count(n: f64) -> String {
    match n {
        n if n >= 999.5e9 => format!("{:.0}G", n / 1e9),
        n if n >= 999.5e6 => format!("{}G", three(n / 1e9)),
        n if n >= 999_999.5 => format!("{}M", three(n / 1e6)),
        n if n > 0.0 && n < 9.95 && n.fract() > 0.0 => format!("{n:.1}"),
        n => grouped(n.round() as u64),
    }
}

/// Three digits, or all of a larger number.
fn three(value: f64) -> String {
    match value {
        v if v >= 99.95 => format!("{v:.0}"),
        v if v >= 9.995 => format!("{v:.1}"),
        v => format!("{v:.2}"),
    }
}

/// With a comma between thousands.
pub(super) fn grouped(n: u64) -> String {
    let digits = n.to_string();
    let mut out = String::new();
    for (ix, digit) in digits.chars().enumerate() {
        if ix > 0 && (digits.len() - ix).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// A part of a whole: `94 %`, and `0.4 %` where the whole number would say nothing.
pub(super) fn percent(share: f64) -> String {
    let percent = share * 100.0;
    if percent > 0.0 && percent < 9.95 {
        format!("{percent:.1} %")
    } else {
        format!("{percent:.0} %")
    }
}

/// A time of day, UTC, with milliseconds.
pub(super) fn clock(unix_ms: u64) -> String {
    let (s, ms) = (unix_ms / 1000 % 86_400, unix_ms % 1000);
    format!("{:02}:{:02}:{:02}.{ms:03}", s / 3600, s / 60 % 60, s % 60)
}

/// How long something runs already.
pub(super) fn uptime(ms: u64) -> String {
    let s = ms / 1000;
    let (days, hours, minutes) = (s / 86_400, s / 3600 % 24, s / 60 % 60);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{s} s"),
        (0, 0, m) => format!("{m} min {} s", s % 60),
        (0, h, m) => format!("{h} h {m} min"),
        (d, h, _) => format!("{d} d {h} h"),
    }
}

/// A name for people: what would disturb a terminal is shown as an escape, and what is longer than `max`
/// characters is cut.
pub(super) fn name(text: &str, max: usize) -> String {
    let mut out: String = String::new();
    for c in text.chars() {
        if c.is_control() { out.extend(c.escape_default()) } else { out.push(c) }
    }
    if out.chars().count() > max {
        out = out.chars().take(max.saturating_sub(1)).collect::<String>() + "…";
    }
    out
}

/// Rows of cells as text, the first column to the left and the others to the right, two blanks between them.
pub(super) fn table(rows: &[Vec<String>]) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |c: usize| {
        rows.iter().filter_map(|r| r.get(c)).map(|cell| cell.chars().count()).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let mut out = String::new();
    for row in rows {
        let mut line = String::new();
        for (c, cell) in row.iter().enumerate() {
            let blanks = " ".repeat(widths[c] - cell.chars().count());
            match c {
                0 => line.extend([cell.as_str(), &blanks]),
                _ => line.extend(["  ", &blanks, cell.as_str()]),
            }
        }
        out.push_str(line.trim_end());
        out.push('\n');
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_have_three_digits_and_the_unit_that_fits() {
        for (value, shown) in [
            (0, "0 ns"),
            (999, "999 ns"),
            (1000, "1.00 µs"),
            (12_345_678, "12.3 ms"),
            (999_999, "1.00 ms"),
            (123_456_789, "123 ms"),
            (3_600_000_000_000, "3600 s"),
        ] {
            assert_eq!(ns(value), shown);
        }
    }

    #[test]
    fn bytes_counts_and_shares_are_short() {
        assert_eq!((bytes(1023), bytes(1024)), ("1023 B".to_owned(), "1.00 KiB".to_owned()));
        assert_eq!(bytes(5 << 30), "5.00 GiB");
        assert_eq!(
            (count(0.0), count(0.25), count(1234.4)),
            ("0".into(), "0.2".into(), "1,234".into())
        );
        assert_eq!((count(999_999.0), count(1_234_567.0)), ("999,999".into(), "1.23M".into()));
        assert_eq!(
            (percent(0.0), percent(0.004), percent(0.94)),
            ("0 %".into(), "0.4 %".into(), "94 %".into())
        );
        assert_eq!(clock(86_400_000 + 3_723_004), "01:02:03.004");
        assert_eq!((uptime(59_000), uptime(90_061_000)), ("59 s".into(), "1 d 1 h".into()));
    }

    #[test]
    fn a_name_cannot_move_the_cursor_and_has_an_end() {
        assert_eq!(name("a\x1b[2Jb", 99), "a\\u{1b}[2Jb");
        assert_eq!(name("ünïcödé", 4), "ünï…");
        assert_eq!(name("four", 4), "four");
    }

    #[test]
    fn columns_stand_below_each_other() {
        let rows =
            [vec!["a".to_owned(), "µs".to_owned()], vec!["long".to_owned(), "1234".to_owned()]];
        assert_eq!(table(&rows), "a       µs\nlong  1234\n");
    }
}
