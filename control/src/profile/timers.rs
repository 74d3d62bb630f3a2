//! A timer on the CPU clock of a thread.

use std::io;

use super::handler::SIGNAL;

/// The clock that counts the CPU time of a thread: how the kernel encodes it (`MAKE_THREAD_CPUCLOCK`).
const CPUCLOCK_SCHED: i32 = 2;
/// See [`CPUCLOCK_SCHED`].
const CPUCLOCK_PERTHREAD: i32 = 4;

/// Ends with it.
#[derive(Debug)]
pub(super) struct Timer(libc::c_int);

impl Timer {
    /// Signals thread `tid` of this process `hz` times in a second of its CPU time.
    ///
    /// # Errors
    /// When the kernel has none to give.
    pub(super) fn start(tid: i32, hz: u32) -> io::Result<Self> {
        let clock = (!tid) << 3 | CPUCLOCK_PERTHREAD | CPUCLOCK_SCHED;
        // SAFETY: plain data, for which all zeros are good.
        let mut event: libc::sigevent = unsafe { std::mem::zeroed() };
        event.sigev_notify = libc::SIGEV_THREAD_ID;
        event.sigev_signo = SIGNAL;
        event.sigev_notify_thread_id = tid;
        let mut id: libc::c_int = 0;
        // SAFETY: both point to what the kernel reads and writes during the call. By hand, since the C library knows no
        // clocks of other threads by id.
        let made =
            unsafe { libc::syscall(libc::SYS_timer_create, clock, &raw mut event, &raw mut id) };
        if made != 0 {
            return Err(io::Error::last_os_error());
        }
        let timer = Self(id);
        let ns = i64::from(1_000_000_000 / hz.max(1));
        let every = libc::timespec { tv_sec: ns / 1_000_000_000, tv_nsec: ns % 1_000_000_000 };
        let spec = libc::itimerspec { it_interval: every, it_value: every };
        // SAFETY: as above; the timer was made just now.
        let set = unsafe {
            let none = std::ptr::null_mut::<libc::itimerspec>();
            libc::syscall(libc::SYS_timer_settime, timer.0, 0, &raw const spec, none)
        };
        if set != 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(timer)
    }
}

impl Drop for Timer {
    fn drop(&mut self) {
        // SAFETY: it is ours, and deleted only here.
        unsafe { libc::syscall(libc::SYS_timer_delete, self.0) };
    }
}
