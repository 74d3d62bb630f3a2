//! Where a thread is that takes too long: it is interrupted, and notes its calls.

use std::sync::atomic::{AtomicBool, AtomicI32, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use crate::frames;

/// Deepest call that is noted.
const DEPTH_MAX: usize = 64;
/// How long to wait for the handler.
const PATIENCE: Duration = Duration::from_millis(100);

static ASKING: Mutex<()> = Mutex::new(());
/// The thread that is asked; the handler does nothing on any other.
static ASKED: AtomicI32 = AtomicI32::new(0);
static FRAMES: [AtomicU64; DEPTH_MAX] = [const { AtomicU64::new(0) }; DEPTH_MAX];
static DEPTH: AtomicUsize = AtomicUsize::new(0);
static DONE: AtomicBool = AtomicBool::new(false);

/// The return addresses on the stack of a thread of this process, innermost first.
pub(super) fn of_thread(tid: i32) -> Option<Vec<u64>> {
    static HANDLED: OnceLock<bool> = OnceLock::new();
    let _asking = ASKING.lock().unwrap_or_else(PoisonError::into_inner);
    let signal = libc::SIGRTMIN() + 4;
    if !HANDLED.get_or_init(|| frames::handle(signal, on_signal).is_ok()) {
        return None;
    }
    DONE.store(false, Ordering::Relaxed);
    ASKED.store(tid, Ordering::Release);
    // SAFETY: no memory involved; a thread that is gone is an error and nothing else.
    let sent = unsafe { libc::syscall(libc::SYS_tgkill, libc::getpid(), tid, signal) } == 0;
    let until = Instant::now() + PATIENCE;
    while sent && !DONE.load(Ordering::Acquire) && Instant::now() < until {
        std::thread::sleep(Duration::from_micros(100));
    }
    // A handler that runs only now finds that nobody asks.
    ASKED.store(0, Ordering::Release);
    DONE.load(Ordering::Acquire).then(|| {
        let depth = DEPTH.load(Ordering::Relaxed);
        FRAMES[..depth].iter().map(|f| f.load(Ordering::Relaxed)).collect()
    })
}

extern "C" fn on_signal(_: libc::c_int, _: *mut libc::siginfo_t, context: *mut libc::c_void) {
    frames::keeping_errno(|| {
        // A late one, on a thread that was asked before, must not take the question away.
        let me = frames::this_thread();
        if ASKED.compare_exchange(me, 0, Ordering::AcqRel, Ordering::Relaxed).is_err() {
            return;
        }
        let mut found = [0; DEPTH_MAX];
        // SAFETY: the kernel gives a handler with SA_SIGINFO the context of what it interrupted.
        let depth = frames::of(unsafe { &*context.cast::<libc::ucontext_t>() }, &mut found);
        FRAMES.iter().zip(&found[..depth]).for_each(|(f, at)| f.store(*at, Ordering::Relaxed));
        DEPTH.store(depth, Ordering::Relaxed);
        DONE.store(true, Ordering::Release);
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[inline(never)]
    fn busy_in_a_named_place(stop: &AtomicBool, tid: &AtomicI32) {
        tid.store(frames::this_thread(), Ordering::Relaxed);
        while !stop.load(Ordering::Relaxed) {
            std::hint::spin_loop();
        }
    }

    #[test]
    fn a_busy_thread_tells_where_it_is_and_goes_on() {
        let (stop, tid) = (AtomicBool::new(false), AtomicI32::new(0));
        std::thread::scope(|scope| {
            scope.spawn(|| busy_in_a_named_place(&stop, &tid));
            while tid.load(Ordering::Relaxed) == 0 {
                std::thread::yield_now();
            }
            let stack = of_thread(tid.load(Ordering::Relaxed));
            stop.store(true, Ordering::Relaxed);
            let stack = stack.expect("it can be interrupted");
            let start = busy_in_a_named_place as fn(&AtomicBool, &AtomicI32) as *const () as u64;
            assert!(
                stack.iter().any(|at| (start..start + 4096).contains(at)),
                "{start:#x} is not in {stack:#x?}"
            );
        });
    }

    #[test]
    fn a_thread_that_is_gone_tells_nothing() {
        let tid = std::thread::spawn(frames::this_thread).join().expect("it ended");
        assert_eq!(of_thread(tid), None);
    }
}
