//! How many ordinary descriptors the process has and may have (L05), and how much memory it may lock.
//!
//! Connections are not among the descriptors: they are direct descriptors of the rings.

use ringmain_kernel_params::Host;

/// Open descriptors; `u64::MAX` when there is none left to look with, 0 without /proc.
pub(super) fn open() -> u64 {
    match std::fs::read_dir("/proc/self/fd") {
        Ok(fds) => fds.count() as u64,
        Err(e) => when_unseen(&e),
    }
}

fn when_unseen(e: &std::io::Error) -> u64 {
    let none_left = matches!(e.raw_os_error(), Some(libc::EMFILE | libc::ENFILE));
    if none_left { u64::MAX } else { 0 }
}

/// RLIMIT_NOFILE, the soft one; `u64::MAX` when /proc does not say.
pub(super) fn limit() -> u64 {
    soft_limit("Max open files")
}

/// RLIMIT_MEMLOCK, the soft one, bytes; `u64::MAX` when there is none or /proc does not say.
pub(super) fn locked_limit() -> u64 {
    soft_limit("Max locked memory")
}

fn soft_limit(name: &str) -> u64 {
    Host::here().limit(name).map_or(u64::MAX, |(soft, _)| soft)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_has_descriptors_below_its_limit() {
        assert!(open() > 2 && limit() >= open() && limit() < u64::MAX, "{} {}", open(), limit());
        assert_eq!(soft_limit("Max nonsense"), u64::MAX);
    }

    // L05
    #[test]
    fn when_there_is_no_descriptor_to_look_with_all_are_in_use() {
        let unseen = |errno| when_unseen(&std::io::Error::from_raw_os_error(errno));
        assert_eq!([libc::EMFILE, libc::ENFILE, libc::ENOENT].map(unseen), [u64::MAX, u64::MAX, 0]);
    }
}
