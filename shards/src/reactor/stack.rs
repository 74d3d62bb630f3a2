//! Where a thread is: its calls, found by a signal handler that follows frame pointers.
//!
//! Nothing else is safe to do there: an unwinder takes locks and allocates. The workspace is built with frame
//! pointers (`.cargo/config.toml`); in a build without them the list has one or two entries.

use std::sync::atomic::{AtomicBool, AtomicI32, AtomicUsize, Ordering};
use std::sync::{Mutex, Once, PoisonError};
use std::time::{Duration, Instant};

/// Deepest call that is noted.
const DEPTH_MAX: usize = 64;
/// A frame is no further than this from its caller's: beyond it the frame pointer is something else.
const FRAME_BYTES_MAX: usize = 1 << 20;
/// How long to wait for the handler.
const PATIENCE: Duration = Duration::from_millis(100);

static ASKING: Mutex<()> = Mutex::new(());
/// The thread that is asked; the handler does nothing on any other.
static ASKED: AtomicI32 = AtomicI32::new(0);
static FRAMES: [AtomicUsize; DEPTH_MAX] = [const { AtomicUsize::new(0) }; DEPTH_MAX];
static DEPTH: AtomicUsize = AtomicUsize::new(0);
static DONE: AtomicBool = AtomicBool::new(false);

/// The return addresses on the stack of a thread of this process, innermost first.
pub(super) fn of_thread(tid: i32) -> Option<Vec<usize>> {
    let _asking = ASKING.lock().unwrap_or_else(PoisonError::into_inner);
    let signal = libc::SIGRTMIN() + 4;
    static HANDLER: Once = Once::new();
    HANDLER.call_once(|| {
        // SAFETY: zero is a valid sigaction; the handler is async-signal-safe.
        unsafe {
            let mut action: libc::sigaction = std::mem::zeroed();
            action.sa_sigaction =
                note as extern "C" fn(libc::c_int, *mut libc::siginfo_t, *mut libc::c_void)
                    as usize;
            action.sa_flags = libc::SA_SIGINFO | libc::SA_RESTART | libc::SA_ONSTACK;
            libc::sigemptyset(&raw mut action.sa_mask);
            libc::sigaction(signal, &raw const action, std::ptr::null_mut());
        }
    });
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
    let depth = DEPTH.load(Ordering::Acquire);
    DONE.load(Ordering::Acquire)
        .then(|| FRAMES[..depth.min(DEPTH_MAX)].iter().map(|f| f.load(Ordering::Relaxed)).collect())
}

extern "C" fn note(_: libc::c_int, _: *mut libc::siginfo_t, context: *mut libc::c_void) {
    // SAFETY: no memory involved.
    let me = unsafe { libc::gettid() };
    if ASKED.swap(0, Ordering::AcqRel) != me {
        return;
    }
    // SAFETY: the kernel gives a handler with SA_SIGINFO the context of what it interrupted.
    let (at, stack, frame) = unsafe { registers(&*context.cast::<libc::ucontext_t>()) };
    FRAMES[0].store(at, Ordering::Relaxed);
    let mut depth = 1;
    let mut below = stack;
    let mut frame = frame;
    // A frame pointer points up the stack, to the caller's and the return address. Code without them may
    // have anything in that register.
    while depth < DEPTH_MAX
        && frame > below
        && frame - below < FRAME_BYTES_MAX
        && frame.is_multiple_of(size_of::<usize>())
    {
        let Some([next, back]) = read(frame) else { break };
        if back < 4096 {
            break;
        }
        FRAMES[depth].store(back, Ordering::Relaxed);
        depth += 1;
        (below, frame) = (frame, next);
    }
    DEPTH.store(depth, Ordering::Release);
    DONE.store(true, Ordering::Release);
}

/// Reads two words, or nothing where no memory is.
fn read(at: usize) -> Option<[usize; 2]> {
    let mut words = [0usize; 2];
    let bytes = size_of_val(&words);
    let local = libc::iovec { iov_base: words.as_mut_ptr().cast(), iov_len: bytes };
    let remote = libc::iovec { iov_base: at as *mut libc::c_void, iov_len: bytes };
    // SAFETY: a system call (and so safe in a handler) that copies into `words`; the kernel checks where from.
    let copied = unsafe {
        libc::syscall(
            libc::SYS_process_vm_readv,
            libc::getpid(),
            &raw const local,
            1usize,
            &raw const remote,
            1usize,
            0usize,
        )
    };
    (copied == bytes as libc::c_long).then_some(words)
}

/// Instruction, stack and frame pointer.
#[cfg(target_arch = "x86_64")]
fn registers(context: &libc::ucontext_t) -> (usize, usize, usize) {
    let r = |n: i32| context.uc_mcontext.gregs[n as usize] as usize;
    (r(libc::REG_RIP), r(libc::REG_RSP), r(libc::REG_RBP))
}

/// Instruction, stack and frame pointer.
#[cfg(target_arch = "aarch64")]
fn registers(context: &libc::ucontext_t) -> (usize, usize, usize) {
    let m = &context.uc_mcontext;
    (m.pc as usize, m.sp as usize, m.regs[29] as usize)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[inline(never)]
    fn busy_in_a_named_place(stop: &AtomicBool, tid: &AtomicI32) {
        // SAFETY: no memory involved.
        tid.store(unsafe { libc::gettid() }, Ordering::Relaxed);
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
            let start = busy_in_a_named_place as fn(&AtomicBool, &AtomicI32) as usize;
            assert!(
                stack.iter().any(|at| (start..start + 4096).contains(at)),
                "{start:#x} is not in {stack:#x?}"
            );
        });
    }

    #[test]
    fn a_thread_that_is_gone_tells_nothing() {
        // SAFETY: no memory involved.
        let tid = std::thread::spawn(|| unsafe { libc::gettid() }).join().expect("it ended");
        assert_eq!(of_thread(tid), None);
    }
}
