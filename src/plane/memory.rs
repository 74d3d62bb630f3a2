//! How much memory the process uses and may use.

use ringmain_shards::boundary::Pressure;

/// Above these many bytes of resident memory the shards are told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Watermarks {
    pub(super) high: u64,
    pub(super) critical: u64,
}

/// A watermark is left again this much below it, so that the pressure does not flicker.
const HYSTERESIS_PERCENT: u64 = 5;

impl Watermarks {
    /// Configured values; 0 = a share of what the control group or the machine has.
    pub(super) fn new(high: u64, critical: u64) -> Self {
        let total = available_bytes();
        let or = |configured: u64, percent: u64| {
            if configured == 0 { total / 100 * percent } else { configured }
        };
        let high = or(high, 80);
        Self { high, critical: or(critical, 90).max(high) }
    }

    /// The pressure at `used` bytes, when it was `before`.
    pub(super) fn pressure(&self, used: u64, before: Pressure) -> Pressure {
        let over = |mark: u64, at: Pressure| {
            let mark = if before >= at { mark / 100 * (100 - HYSTERESIS_PERCENT) } else { mark };
            used >= mark
        };
        if over(self.critical, Pressure::Critical) {
            Pressure::Critical
        } else if over(self.high, Pressure::High) {
            Pressure::High
        } else {
            Pressure::Normal
        }
    }
}

/// Resident bytes of this process; `None` when /proc does not say.
pub(super) fn resident_bytes() -> Option<u64> {
    let statm = std::fs::read_to_string("/proc/self/statm").ok()?;
    let pages: u64 = statm.split_whitespace().nth(1)?.parse().ok()?;
    Some(pages * page_bytes())
}

fn page_bytes() -> u64 {
    // Linux has no smaller pages; larger ones (arm64) are told in the auxiliary vector.
    const AT_PAGESZ: u64 = 6;
    let auxv = std::fs::read("/proc/self/auxv").unwrap_or_default();
    let (pairs, _) = auxv.as_chunks::<16>();
    let value = pairs.iter().find_map(|pair| {
        let (key, value) = pair.split_at(8);
        let key = u64::from_ne_bytes(key.try_into().ok()?);
        (key == AT_PAGESZ).then_some(u64::from_ne_bytes(value.try_into().ok()?))
    });
    value.unwrap_or(4096)
}

/// Bytes that this process may use: the least of its control groups and the machine.
fn available_bytes() -> u64 {
    let meminfo = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let machine = meminfo.lines().find_map(|line| {
        let kib = line.strip_prefix("MemTotal:")?.trim().strip_suffix("kB")?.trim();
        Some(kib.parse::<u64>().ok()? * 1024)
    });
    let groups = std::fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let path = groups.lines().find_map(|line| line.strip_prefix("0::")).unwrap_or("/");
    let mut least = machine.unwrap_or(u64::MAX);
    let mut at = std::path::PathBuf::from(format!("/sys/fs/cgroup{path}"));
    while at.starts_with("/sys/fs/cgroup") {
        let max = std::fs::read_to_string(at.join("memory.max")).unwrap_or_default();
        least = least.min(max.trim().parse().unwrap_or(u64::MAX));
        if !at.pop() {
            break;
        }
    }
    least
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pressure_rises_at_a_mark_and_falls_below_it() {
        // Q08, L05
        let marks = Watermarks { high: 1000, critical: 2000 };
        assert_eq!(marks.pressure(999, Pressure::Normal), Pressure::Normal);
        assert_eq!(marks.pressure(1000, Pressure::Normal), Pressure::High);
        assert_eq!(marks.pressure(960, Pressure::High), Pressure::High);
        assert_eq!(marks.pressure(949, Pressure::High), Pressure::Normal);
        assert_eq!(marks.pressure(2000, Pressure::High), Pressure::Critical);
        assert_eq!(marks.pressure(1899, Pressure::Critical), Pressure::High);
    }

    #[test]
    fn this_process_uses_less_than_there_is() {
        let used = resident_bytes().expect("Linux has /proc");
        assert!(used > 0 && used < available_bytes());
    }
}
