//! The clock of the reactor.

/// Monotonic time, ns since some moment before the process began. The same for all cores. Costs no system
/// call where the clock source is the core's own counter.
pub(super) fn monotonic_ns() -> u64 {
    let mut now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the kernel writes one timespec; this clock exists on every kernel that has io_uring.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &raw mut now) };
    now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64
}
