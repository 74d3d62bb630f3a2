//! How much memory the process uses and may use.

use ringmain_kernel_params::{Host, MemoryGroup, field};
use ringmain_shards::boundary::Pressure;

/// Above these many bytes in use the shards are told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Watermarks {
    pub(super) high: u64,
    pub(super) critical: u64,
    /// The control group whose limit the marks are a share of, if they are. What it is charged for counts:
    /// the kernel's memory for sockets among it, which is most of what idle connections take.
    group: Option<MemoryGroup>,
}

/// A watermark is left again this much below it, so that the pressure does not flicker.
const HYSTERESIS_PERCENT: u64 = 5;

impl Watermarks {
    /// Configured values; 0 = a share of what the control group or the machine has.
    pub(super) fn new(high: u64, critical: u64) -> Self {
        let Available { bytes: total, group } = available(&Host::here());
        let group = group.filter(|_| high == 0 || critical == 0);
        let or = |configured: u64, percent: u64| {
            if configured == 0 { total / 100 * percent } else { configured }
        };
        let high = or(high, 80);
        Self { high, critical: or(critical, 90).max(high), group }
    }

    /// Bytes in use; `None` when /proc does not say.
    pub(super) fn used_bytes(&self) -> Option<u64> {
        let charged = self.group.as_ref().and_then(MemoryGroup::charged_bytes).unwrap_or(0);
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

/// Bytes that this process may use.
struct Available {
    bytes: u64,
    /// The control group that says so, if it is not the machine.
    group: Option<MemoryGroup>,
}

/// The least of its control groups and the machine.
fn available(host: &Host) -> Available {
    let machine = field(&host.text_or_empty("proc/meminfo"), "MemTotal:");
    let machine = machine.map_or(u64::MAX, |kib| kib * 1024);
    match host.memory_groups().into_iter().min_by_key(|group| group.max_bytes) {
        Some(group) if group.max_bytes < machine => {
            Available { bytes: group.max_bytes, group: Some(group) }
        }
        _ => Available { bytes: machine, group: None },
    }
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
        assert!(used > 0 && used < available(&Host::here()).bytes);
    }

    #[test]
    fn in_a_control_group_what_it_is_charged_for_counts() {
        let root = std::env::temp_dir().join(format!("ringmain-group-{}", std::process::id()));
        let write = |file: &str, text: &str| {
            let path = root.join(file);
            std::fs::create_dir_all(path.parent().expect("a file")).expect("a folder");
            std::fs::write(path, text).expect("writes");
        };
        write("proc/meminfo", "MemTotal:       2000000 kB\n");
        write("proc/self/cgroup", "0::/a/b\n");
        write("sys/fs/cgroup/a/b/memory.max", "max\n");
        write("sys/fs/cgroup/a/memory.max", "1000000000\n");
        write("sys/fs/cgroup/a/memory.current", "800000000000\n");
        let Available { bytes, group } = available(&Host::at(&root));
        assert_eq!(bytes, 1_000_000_000, "the group above binds");
        let marks = Watermarks { high: 1, critical: 2, group };
        assert_eq!(marks.used_bytes(), Some(800_000_000_000), "more than this process has");
        std::fs::remove_dir_all(&root).expect("it was there");
    }
}
