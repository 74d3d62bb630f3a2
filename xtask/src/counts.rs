//! How many tests passed and failed, from what their runners print.

/// Whose output it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Format {
    /// Nobody counts here.
    None,
    /// cargo-nextest, which also shows what libtest printed for a failed test.
    Nextest,
    /// libtest.
    Libtest,
    /// pytest.
    Pytest,
}

/// Names of failed tests that are kept: a page of them says what is wrong.
const NAMES_MAX: usize = 30;

/// Tests that passed and failed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    pub(crate) passed: u64,
    pub(crate) failed: u64,
    /// The failed ones as their runner names them, [`NAMES_MAX`] at most.
    pub(crate) names: Vec<String>,
}

impl Counts {
    /// Adds what this line of output says, if it is a summary.
    pub(crate) fn read(&mut self, format: Format, line: &str) {
        let line = without_colours(line);
        let line = line.trim().trim_matches('=').trim();
        if let Some(name) = failed_test(format, line)
            && self.names.len() < NAMES_MAX
            && !self.names.iter().any(|known| known == name)
        {
            self.names.push(name.to_owned());
        }
        let summary = match format {
            Format::None => None,
            Format::Libtest => line.strip_prefix("test result:"),
            Format::Nextest => {
                line.strip_prefix("Summary [").and_then(|line| Some(line.split_once("run: ")?.1))
            }
            Format::Pytest => line
                .rsplit_once(" in ")
                .filter(|(_, took)| took.starts_with(|c: char| c.is_ascii_digit()))
                .map(|(counts, _)| counts)
                .filter(|counts| counts.starts_with(|c: char| c.is_ascii_digit())),
        };
        let Some(summary) = summary else { return };
        let words: Vec<&str> = summary.split_whitespace().collect();
        for pair in words.windows(2) {
            let [number, word] = pair else { continue };
            let Ok(number) = number.trim_start_matches('(').parse::<u64>() else { continue };
            match word.trim_end_matches([',', ';', ')', '.']) {
                "passed" => self.passed += number,
                // nextest: "2 failed", "1 timed out", "1 exec failed"; pytest: "1 error".
                "failed" | "timed" | "exec" | "error" | "errors" => self.failed += number,
                _ => {}
            }
        }
    }
}

/// The test that this line of output calls failed.
fn failed_test(format: Format, line: &str) -> Option<&str> {
    match format {
        Format::None => None,
        Format::Libtest => line.strip_prefix("test ")?.strip_suffix(" ... FAILED"),
        // FAIL [   0.004s] (12/39) crate::binary module::test
        Format::Nextest => {
            let words = ["FAIL [", "TIMEOUT [", "SIGABRT [", "SIGSEGV [", "ABORT ["];
            let rest = words.iter().find_map(|word| line.strip_prefix(word))?;
            Some(rest.split_once("] ")?.1.trim())
        }
        // FAILED test_file.py::test_name[5] - AssertionError: ...
        Format::Pytest => line.strip_prefix("FAILED ").or_else(|| line.strip_prefix("ERROR ")),
    }
}

/// The text without terminal escape sequences.
fn without_colours(line: &str) -> String {
    let mut out = String::with_capacity(line.len());
    let mut chars = line.chars();
    while let Some(c) = chars.next() {
        if c != '\u{1b}' {
            out.push(c);
        } else if chars.next() == Some('[') {
            // A control sequence ends with a letter.
            let _ = chars.by_ref().find(char::is_ascii_alphabetic);
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counted(format: Format, lines: &[&str]) -> (u64, u64) {
        let mut counts = Counts::default();
        for line in lines {
            counts.read(format, line);
        }
        (counts.passed, counts.failed)
    }

    #[test]
    fn summaries_of_all_runners_are_summed() {
        let nextest = "     Summary [   1.034s] 39 tests run: 34 passed (1 slow), 2 failed, \
                       1 timed out, 2 exec failed, 4 skipped";
        assert_eq!(counted(Format::Nextest, &[nextest]), (34, 5));
        let one = "\u{1b}[32;1m     Summary\u{1b}[0m [   0.004s] \u{1b}[1m1\u{1b}[0m test run: \
                   \u{1b}[1m1\u{1b}[0m \u{1b}[32;1mpassed\u{1b}[0m, 0 skipped";
        assert_eq!(counted(Format::Nextest, &[one]), (1, 0));
        let libtest = [
            "test result: ok. 9 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out",
            "test result: FAILED. 1 passed; 2 failed; 0 ignored; 0 measured; 0 filtered out",
        ];
        assert_eq!(counted(Format::Libtest, &libtest), (10, 2));
        let pytest = [
            "===== 3 failed, 12 passed, 2 skipped, 1 error in 12.30s =====",
            "7 passed in 0.51s",
            "== 1 passed in 61.00s (0:01:01) ==",
        ];
        assert_eq!(counted(Format::Pytest, &pytest), (20, 4));
    }

    #[test]
    fn failed_tests_are_named_once() {
        let named = |format, lines: &[&str]| {
            let mut counts = Counts::default();
            lines.iter().for_each(|line| counts.read(format, line));
            counts.names
        };
        let nextest = ["  FAIL [   0.004s] (1/3) a::b c::d", "  FAIL [   0.004s] (1/3) a::b c::d"];
        assert_eq!(named(Format::Nextest, &nextest), ["(1/3) a::b c::d"]);
        let libtest = ["test a::b ... ok", "test a::c ... FAILED"];
        assert_eq!(named(Format::Libtest, &libtest), ["a::c"]);
        let pytest = ["FAILED test_a.py::test_b[5] - assert 1 == 2", "3 passed in 0.5s"];
        assert_eq!(named(Format::Pytest, &pytest), ["test_a.py::test_b[5] - assert 1 == 2"]);
    }

    #[test]
    fn other_lines_count_nothing() {
        let lines = ["12 passed, 0 failed", "3 packets passed in order", "test a ... ok", ""];
        assert_eq!(counted(Format::Pytest, &lines), (0, 0));
        assert_eq!(counted(Format::Nextest, &lines), (0, 0));
        assert_eq!(counted(Format::Nextest, &["test result: FAILED. 0 passed; 1 failed"]), (0, 0));
        assert_eq!(counted(Format::None, &["test result: ok. 9 passed"]), (0, 0));
    }
}
