//! How much memory the process uses and may use.

use std::path::{Path, PathBuf};

use ringmain_shards::boundary::Pressure;

/// Above these many bytes in use the shards are told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Watermarks {
    pub(super) high: u64,
    pub(super) critical: u64,
    /// The control group whose limit the marks are a share of, if they are. What it is charged for counts:
    /// the kernel's memory for sockets among it, which is most of what idle connections take.
    group: Option<PathBuf>,
}

/// A watermark is left again this much below it, so that the pressure does not flicker.
const HYSTERESIS_PERCENT: u64 = 5;

impl Watermarks {
    /// Configured values; 0 = a share of what the control group or the machine has.
    pub(super) fn new(high: u64, critical: u64) -> Self {
        let Available { bytes: total, group } = available();
        let group = group.filter(|_| high == 0 || critical == 0);
        let or = |configured: u64, percent: u64| {
            if configured == 0 { total / 100 * percent } else { configured }
        };
        let high = or(high, 80);
        Self { high, critical: or(critical, 90).max(high), group }
    }

    /// Bytes in use; `None` when /proc does not say.
    pub(super) fn used_bytes(&self) -> Option<u64> {
        let charged = self.group.as_deref().and_then(charged_bytes).unwrap_or(0);
        Some(resident_bytes()?.max(charged))
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

/// What a control group is charged for and cannot have back at once: file pages not used of late can.
fn charged_bytes(group: &Path) -> Option<u64> {
    let current: u64 =
        std::fs::read_to_string(group.join("memory.current")).ok()?.trim().parse().ok()?;
    let stat = std::fs::read_to_string(group.join("memory.stat")).ok()?;
    let inactive: u64 =
        stat.lines().find_map(|line| line.strip_prefix("inactive_file "))?.parse().ok()?;
    Some(current.saturating_sub(inactive))
}

/// Bytes that this process may use.
struct Available {
    bytes: u64,
    /// The control group that says so, if it is not the machine.
    group: Option<PathBuf>,
}

/// The least of its control groups and the machine.
fn available() -> Available {
    let meminfo = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let machine = meminfo.lines().find_map(|line| {
        let kib = line.strip_prefix("MemTotal:")?.trim().strip_suffix("kB")?.trim();
        Some(kib.parse::<u64>().ok()? * 1024)
    });
    let groups = std::fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let path = groups.lines().find_map(|line| line.strip_prefix("0::")).unwrap_or("/");
    let mut least = Available { bytes: machine.unwrap_or(u64::MAX), group: None };
    let mut at = PathBuf::from(format!("/sys/fs/cgroup{path}"));
    while at.starts_with("/sys/fs/cgroup") {
        let max = std::fs::read_to_string(at.join("memory.max")).unwrap_or_default();
        if let Ok(bytes) = max.trim().parse()
            && bytes < least.bytes
        {
            least = Available { bytes, group: Some(at.clone()) };
        }
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
        let marks = Watermarks { high: 1000, critical: 2000, group: None };
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
        assert!(used > 0 && used < available().bytes);
    }

    #[test]
    fn a_control_group_counts_what_it_cannot_have_back() {
        let group = std::env::temp_dir().join(format!("ringmain-group-{}", std::process::id()));
        std::fs::create_dir_all(&group).expect("a folder");
        assert_eq!(charged_bytes(&group), None, "there is no control group");
        let write =
            |file: &str, text: &str| std::fs::write(group.join(file), text).expect("writes");
        write("memory.current", "5000\n");
        write("memory.stat", "anon 1000\nsock 2500\ninactive_file 1500\nactive_file 0\n");
        assert_eq!(charged_bytes(&group), Some(3500));
        let large = (u64::MAX / 2).to_string();
        write("memory.current", &large);
        let marks = Watermarks { high: 1, critical: 2, group: Some(group.clone()) };
        assert!(marks.used_bytes() > Some(u64::MAX / 4), "more than this process has");
        std::fs::remove_dir_all(&group).expect("it was there");
    }
}
