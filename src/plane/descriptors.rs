//! How many ordinary descriptors the process has and may have. (L05)
//!
//! Connections are not among them: they are direct descriptors of the rings.

/// Open descriptors; 0 when /proc does not say.
pub(super) fn open() -> u64 {
    std::fs::read_dir("/proc/self/fd").map_or(0, |fds| fds.count() as u64)
}

/// RLIMIT_NOFILE, the soft one; `u64::MAX` when /proc does not say.
pub(super) fn limit() -> u64 {
    let limits = std::fs::read_to_string("/proc/self/limits").unwrap_or_default();
    parse_limit(&limits).unwrap_or(u64::MAX)
}

fn parse_limit(limits: &str) -> Option<u64> {
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files"))?;
    line.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_soft_limit_is_the_first_number_of_its_line() {
        let text = "Limit      Soft Limit  Hard Limit  Units\n\
                    Max open files            1024                 524288               files\n";
        assert_eq!(parse_limit(text), Some(1024));
        assert!(open() > 2 && limit() >= open(), "this process");
    }
}
