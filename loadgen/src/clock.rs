//! Clocks, in ns.

use std::sync::atomic::{AtomicI64, Ordering};

/// How far this process's [`now_ns`] is to be behind its machine's clock: with several agents all
/// say the coordinator's time.
static AHEAD_NS: AtomicI64 = AtomicI64::new(0);

/// Sets how far this machine's clock is ahead of the one that [`now_ns`] is to show, in ns.
pub(crate) fn set_ahead_ns(ahead: i64) {
    AHEAD_NS.store(ahead, Ordering::Relaxed);
}

fn read(clock: libc::clockid_t) -> u64 {
    let mut ts = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `ts` is valid; the clocks asked for exist on every kernel.
    unsafe { libc::clock_gettime(clock, &raw mut ts) };
    ts.tv_sec as u64 * 1_000_000_000 + ts.tv_nsec as u64
}

/// CLOCK_MONOTONIC: the same for all processes of a machine. In an agent, the coordinator's.
#[must_use]
pub fn now_ns() -> u64 {
    read(libc::CLOCK_MONOTONIC)
        .saturating_add_signed(AHEAD_NS.load(Ordering::Relaxed).wrapping_neg())
}

/// CPU time of this thread.
#[must_use]
pub fn thread_cpu_ns() -> u64 {
    read(libc::CLOCK_THREAD_CPUTIME_ID)
}

/// CPU time of this process.
#[must_use]
pub fn process_cpu_ns() -> u64 {
    read(libc::CLOCK_PROCESS_CPUTIME_ID)
}

/// How far the machine's clocks are apart.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ClockOffsets {
    /// CLOCK_REALTIME less CLOCK_MONOTONIC.
    wall: i64,
    /// CLOCK_BOOTTIME less CLOCK_MONOTONIC: the time that the machine was asleep.
    asleep: i64,
    /// How long reading them took: an interruption makes the differences wrong by that much.
    took: u64,
}

impl ClockOffsets {
    pub(crate) fn read() -> Self {
        let before = now_ns();
        let (wall, boot) = (read(libc::CLOCK_REALTIME), read(libc::CLOCK_BOOTTIME));
        let took = now_ns() - before;
        Self { wall: wall as i64 - before as i64, asleep: boot as i64 - before as i64, took }
    }

    /// Says which clock moved by more than `max_ns`.
    pub(crate) fn step_since(&self, before: &Self, max_ns: u64) -> Option<String> {
        let moved = |now: i64, then: i64| {
            let by = now - then;
            (by.unsigned_abs() > max_ns + self.took + before.took).then_some(by as f64 / 1e6)
        };
        if let Some(ms) = moved(self.asleep, before.asleep) {
            return Some(format!("the machine was asleep for {ms:.1} ms"));
        }
        let ms = moved(self.wall, before.wall)?;
        Some(format!("the wall clock was stepped by {ms:.1} ms"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step_of_the_wall_clock_is_seen_and_an_interruption_is_not() {
        let before = ClockOffsets { wall: 1_000_000, asleep: 0, took: 100 };
        let stepped = ClockOffsets { wall: -9_000_000, ..before };
        assert!(stepped.step_since(&before, 5_000_000).unwrap().contains("wall clock"));
        let interrupted = ClockOffsets { took: 10_000_000, ..stepped };
        assert_eq!(interrupted.step_since(&before, 5_000_000), None);
        let slept = ClockOffsets { asleep: 1_000_000_000, ..before };
        assert!(slept.step_since(&before, 5_000_000).unwrap().contains("asleep"));
    }
}
