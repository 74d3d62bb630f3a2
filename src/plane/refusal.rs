//! Why the reactor did not start, with what only the limits of the process and the kernel's version show.

use ringmain_shards::reactor::StartError;

use super::descriptors;

/// Locked memory that each shard takes with one ring, bytes; each further ring takes a quarter of it. Measured as the
/// least RLIMIT_MEMLOCK of a start without warnings: 4,272 KiB with one ring, 6,464 with three.
const LOCKED_PER_SHARD: u64 = 4_272 << 10;
/// The oldest kernel that has all that is needed.
const KERNEL_LEAST: (u32, u32) = (6, 1);

/// The error, and what to do if it is not what it looks like.
pub(super) fn explained(error: &StartError, shards: usize) -> String {
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let hint = hint(error, shards, descriptors::locked_limit(), release.trim());
    hint.map_or_else(|| error.to_string(), |hint| format!("{error}; {hint}"))
}

fn hint(error: &StartError, shards: usize, locked_limit: u64, release: &str) -> Option<String> {
    let wanted = LOCKED_PER_SHARD.saturating_mul(shards as u64);
    let locked = match error {
        StartError::KernelTooOld { .. } => return hidden(release),
        StartError::Shard { source, .. } | StartError::IoUringForbidden { source } => {
            source.raw_os_error() == Some(libc::ENOMEM)
        }
        // The executor does not say why.
        StartError::Executor { .. } => locked_limit < wanted,
        _ => false,
    };
    (locked && locked_limit != u64::MAX).then(|| {
        format!(
            "RLIMIT_MEMLOCK is {} KiB, and from Linux 6.14 on the queues of rings count in it: {shards} shards want {} \
             KiB, and more where they need several rings each; raise it (`ulimit -l`, systemd LimitMEMLOCK), raise \
             RLIMIT_NOFILE so that a shard needs fewer rings, or run fewer shards",
            locked_limit >> 10,
            wanted >> 10,
        )
    })
}

/// A filter may answer as a kernel does that has no io_uring.
fn hidden(release: &str) -> Option<String> {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map_while(|n| n.parse().ok());
    let version: (u32, u32) = (numbers.next()?, numbers.next()?);
    (version >= KERNEL_LEAST).then(|| {
        format!(
            "but this is Linux {release}, so a seccomp filter (container runtime, systemd SystemCallFilter) hides it, \
             or the kernel was built without it"
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn no_memory() -> StartError {
        let source = std::io::Error::from_raw_os_error(libc::ENOMEM);
        StartError::Shard { shard: 0, what: "io_uring", source }
    }

    #[test]
    fn a_limit_on_locked_memory_is_named_where_it_may_be_the_reason() {
        let hint = |error: &StartError, limit| hint(error, 4, limit, "6.18.2");
        let text = hint(&no_memory(), 8 << 20).expect("a hint");
        assert!(text.contains("is 8192 KiB") && text.contains("want 17088 KiB"), "{text}");
        assert_eq!(hint(&no_memory(), u64::MAX), None, "memory is short, then");
        let executor = StartError::Executor { shard: 0, reason: "its thread ended".to_owned() };
        assert!(hint(&executor, 8 << 20).is_some());
        assert_eq!(hint(&executor, 64 << 20), None);
        let other = StartError::TooFewDescriptors { limit: 16 };
        assert_eq!(hint(&other, 0), None);
    }

    #[test]
    fn a_new_kernel_that_seems_old_is_a_filter() {
        let missing = StartError::KernelTooOld { missing: "io_uring" };
        let hint = |release: &str| hint(&missing, 1, u64::MAX, release);
        assert!(hint("6.18.2-arch1").is_some_and(|text| text.contains("seccomp")));
        assert!(hint("6.1.0").is_some());
        assert_eq!(hint("5.15.0-113-generic"), None);
        assert_eq!(hint(""), None);
    }
}
