//! The signal handler: it notes where its thread is. All it does may be done between any two instructions.

use std::io;
use std::sync::atomic::{AtomicPtr, AtomicUsize, Ordering};

use ringmain_shards::frames;

use super::arena::{Arena, FRAMES_MAX};

/// What profilers use; nothing else in the broker does.
pub(super) const SIGNAL: libc::c_int = libc::SIGPROF;
/// `si_code` of a timer's signal.
const SI_TIMER: libc::c_int = -2;

/// Where samples go; null while none are taken.
static ARENA: AtomicPtr<Arena> = AtomicPtr::new(std::ptr::null_mut());
/// Handlers that may hold it.
static HANDLERS: AtomicUsize = AtomicUsize::new(0);

/// While it lives, samples are noted.
pub(super) struct Recording(());

impl Recording {
    /// Notes samples there. Only one lives at a time: its maker holds a lock.
    pub(super) fn start(arena: Box<Arena>) -> Self {
        let before = ARENA.swap(Box::into_raw(arena), Ordering::SeqCst);
        debug_assert!(before.is_null(), "two recordings at a time");
        Self(())
    }

    /// The samples. No handler holds them any more.
    pub(super) fn stop(self) -> Box<Arena> {
        take_back().expect("it was put there by `start`, and only this takes it")
    }
}

impl Drop for Recording {
    fn drop(&mut self) {
        drop(take_back());
    }
}

fn take_back() -> Option<Box<Arena>> {
    let arena = ARENA.swap(std::ptr::null_mut(), Ordering::SeqCst);
    // A handler that counted itself before it looked saw null, or is waited for here: both are in one order with the
    // swap (SeqCst). It takes microseconds.
    while HANDLERS.load(Ordering::SeqCst) > 0 {
        std::thread::yield_now();
    }
    // SAFETY: it came from a box, was swapped out once, and no handler has it any more.
    (!arena.is_null()).then(|| unsafe { Box::from_raw(arena) })
}

/// Has [`SIGNAL`] handled, from now on for ever.
pub(super) fn install() -> io::Result<()> {
    frames::handle(SIGNAL, on_signal)
}

/// The beginning of `siginfo_t` as a timer fills it, on 64 bits.
#[repr(C)]
struct TimerInfo {
    signo: libc::c_int,
    errno: libc::c_int,
    code: libc::c_int,
    _pad: libc::c_int,
    timer: libc::c_int,
    overrun: libc::c_int,
}

extern "C" fn on_signal(_: libc::c_int, info: *mut libc::siginfo_t, context: *mut libc::c_void) {
    frames::keeping_errno(|| {
        HANDLERS.fetch_add(1, Ordering::SeqCst);
        let arena = ARENA.load(Ordering::SeqCst);
        if !arena.is_null() {
            // SAFETY: `take_back` frees it only after this handler has said that it is done; the kernel passes valid
            // info and context with SA_SIGINFO, and `info` is larger than `TimerInfo`.
            unsafe {
                note(&*arena, &*info.cast::<TimerInfo>(), &*context.cast::<libc::ucontext_t>());
            }
        }
        HANDLERS.fetch_sub(1, Ordering::SeqCst);
    });
}

fn note(arena: &Arena, info: &TimerInfo, context: &libc::ucontext_t) {
    // Somebody's `kill -PROF` says nothing about time.
    if info.code != SI_TIMER {
        return;
    }
    let mut addresses = [0; FRAMES_MAX];
    let depth = frames::of(context, &mut addresses);
    // The kernel looks at these clocks at its ticks: what ran out meanwhile counts here.
    let count = u16::try_from(info.overrun.max(0)).unwrap_or(u16::MAX - 1).saturating_add(1);
    arena.add(frames::this_thread(), count, &addresses[..depth]);
}
