//! What the operating system says of this process.

use ringmain_kernel_params::Host;

/// Ticks of /proc/self/stat in a second: USER_HZ, which is 100 on every architecture of Linux but Alpha.
const TICKS_PER_S: f64 = 100.0;

/// Times and descriptors of the process.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Process {
    /// Time of all its threads on CPUs, s.
    pub(crate) cpu_s: f64,
    /// Open ordinary descriptors; those of connections live in the rings.
    pub(crate) open_fds: u64,
    /// RLIMIT_NOFILE, the soft one; `None` if there is no limit.
    pub(crate) max_fds: Option<u64>,
    /// Threads.
    pub(crate) threads: u64,
}

impl Process {
    /// Now. What /proc does not say is 0.
    pub(crate) fn now() -> Self {
        let text = |path| std::fs::read_to_string(path).unwrap_or_default();
        let (cpu_s, threads) = stat(&text("/proc/self/stat")).unwrap_or_default();
        // One of them is the descriptor that looks.
        let fds = std::fs::read_dir("/proc/self/fd").map_or(1, |fds| fds.count() as u64);
        Self { cpu_s, open_fds: fds.saturating_sub(1), max_fds: max_fds(), threads }
    }
}

/// Seconds on CPUs, and threads.
fn stat(text: &str) -> Option<(f64, u64)> {
    // The name of the program stands in parentheses and may hold anything, even `)`.
    let (_, rest) = text.rsplit_once(')')?;
    let field = |nth: usize| rest.split_whitespace().nth(nth)?.parse::<u64>().ok();
    // Fields 14, 15 and 20 of proc(5); `rest` begins with the third.
    Some(((field(11)? + field(12)?) as f64 / TICKS_PER_S, field(17)?))
}

fn max_fds() -> Option<u64> {
    let (soft, _) = Host::here().limit("Max open files")?;
    (soft != u64::MAX).then_some(soft)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_text_is_read_whatever_the_program_is_called() {
        let text = "7 (a) b) R 1 7 7 0 -1 4194560 1 2 3 4 150 25 9 9 20 0 12 0 5 6 7\n";
        assert_eq!(stat(text), Some((1.75, 12)));
        assert_eq!(stat(""), None);
        let here = Process::now();
        assert!(
            here.open_fds > 0 && here.threads > 0 && here.max_fds > Some(here.open_fds),
            "{here:?}"
        );
    }
}
