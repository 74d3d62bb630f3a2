//! Where a thread is, from the context of a signal that it was sent: its calls, found by following frame pointers.
//!
//! Nothing else is safe in a signal handler: an unwinder takes locks and allocates. The workspace is built with frame
//! pointers (`.cargo/config.toml`); without them a list has one or two entries.

use std::io;

/// Largest stack frame that is believed, bytes. A register that holds something else is recognised by it.
const FRAME_BYTES_MAX: u64 = 1 << 20;
/// Read at a time, within a page: whether there is something behind its end is not known.
const PAGE: u64 = 4096;

/// What handles a signal.
pub type Handler = extern "C" fn(libc::c_int, *mut libc::siginfo_t, *mut libc::c_void);

/// Has a signal handled, from now on for ever: one that is late must not end the process. System calls that it
/// interrupts begin anew. The handler is to do only what may be done between any two instructions.
///
/// It runs on the stack of the thread: the alternate one that a thread has for its overflow is 8 KiB, of which the
/// registers of a large processor take nearly half and a walk the rest.
///
/// # Errors
/// What the kernel says.
pub fn handle(signal: libc::c_int, handler: Handler) -> io::Result<()> {
    // SAFETY: plain data, for which all zeros are good; the handler has the signature that SA_SIGINFO asks for.
    let done = unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = handler as *const () as usize;
        action.sa_flags = libc::SA_SIGINFO | libc::SA_RESTART;
        libc::sigemptyset(&raw mut action.sa_mask);
        libc::sigaction(signal, &raw const action, std::ptr::null_mut())
    };
    if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Does what a handler does, and puts errno back: the code below was not called by who reads it.
pub fn keeping_errno(handle: impl FnOnce()) {
    // SAFETY: errno is of this thread.
    let errno = unsafe { *libc::__errno_location() };
    handle();
    // SAFETY: as above.
    unsafe { *libc::__errno_location() = errno };
}

/// Kernel id of the calling thread.
#[must_use]
pub fn this_thread() -> i32 {
    // SAFETY: has no arguments.
    unsafe { libc::syscall(libc::SYS_gettid) as i32 }
}

/// Whether memory can be read in a way that fails where there is none. Some sandboxes forbid it.
///
/// # Errors
/// What the kernel says.
pub fn try_reading() -> io::Result<()> {
    let probe = [7_u64, 8];
    let mut read = [0; 2];
    let address = (&raw const probe) as u64;
    if read_words(address, &mut read) == 2 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Return addresses of the interrupted thread, innermost first, as many as `out` holds at most; returns how many.
/// Takes no lock and no memory.
pub fn of(context: &libc::ucontext_t, out: &mut [u64]) -> usize {
    walk(registers(context), out)
}

/// Where a thread is.
#[derive(Clone, Copy, Debug)]
struct Registers {
    /// Next instruction.
    at: u64,
    /// Innermost frame, if the code keeps frame pointers.
    frame: u64,
    /// Top of the stack.
    stack: u64,
}

#[cfg(target_arch = "x86_64")]
fn registers(context: &libc::ucontext_t) -> Registers {
    let register = |r: libc::c_int| context.uc_mcontext.gregs[r as usize] as u64;
    let (at, frame, stack) = (libc::REG_RIP, libc::REG_RBP, libc::REG_RSP);
    Registers { at: register(at), frame: register(frame), stack: register(stack) }
}

#[cfg(target_arch = "aarch64")]
fn registers(context: &libc::ucontext_t) -> Registers {
    let m = &context.uc_mcontext;
    Registers { at: m.pc, frame: m.regs[29], stack: m.sp }
}

/// Return addresses, innermost first; returns how many. On both architectures a frame begins with the frame pointer of
/// the caller, and the return address follows.
fn walk(registers: Registers, out: &mut [u64]) -> usize {
    let Some(first) = out.first_mut() else { return 0 };
    *first = registers.at;
    let mut window = Window { start: 0, words: [0; PAGE as usize / 8], len: 0 };
    let (mut frame, mut below) = (registers.frame, registers.stack);
    for (depth, slot) in out.iter_mut().enumerate().skip(1) {
        let plausible =
            frame.is_multiple_of(8) && frame >= below && frame - below < FRAME_BYTES_MAX;
        let read = if plausible { window.pair(frame) } else { None };
        let Some((caller, back)) = read.filter(|(_, back)| *back > PAGE) else { return depth };
        *slot = back;
        below = frame + 16;
        frame = caller;
    }
    out.len()
}

/// A copy of a piece of a page: most frames are near the one before.
struct Window {
    start: u64,
    words: [u64; PAGE as usize / 8],
    len: usize,
}

impl Window {
    /// The word at this address and the one behind it.
    fn pair(&mut self, address: u64) -> Option<(u64, u64)> {
        Some((self.word(address)?, self.word(address.checked_add(8)?)?))
    }

    fn word(&mut self, address: u64) -> Option<u64> {
        let index = |start: u64| (address.wrapping_sub(start) / 8) as usize;
        if address < self.start || index(self.start) >= self.len {
            let words = ((PAGE - address % PAGE) / 8) as usize;
            self.start = address;
            self.len = read_words(address, &mut self.words[..words]);
        }
        self.words[..self.len].get(index(self.start)).copied()
    }
}

/// Copies memory of this process that may not be there; returns how many words were.
fn read_words(address: u64, into: &mut [u64]) -> usize {
    let bytes = size_of_val(into);
    let local = libc::iovec { iov_base: into.as_mut_ptr().cast(), iov_len: bytes };
    let remote = libc::iovec { iov_base: address as *mut libc::c_void, iov_len: bytes };
    // SAFETY: the kernel writes at most `bytes` to `into`; where nothing is mapped at `address` it says so instead of
    // sending a signal. It is a plain system call, which a signal handler may make.
    let n = unsafe {
        let pid = libc::syscall(libc::SYS_getpid);
        libc::syscall(
            libc::SYS_process_vm_readv,
            pid,
            &raw const local,
            1_u64,
            &raw const remote,
            1_u64,
            0_u64,
        )
    };
    usize::try_from(n).unwrap_or(0) / 8
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_are_followed_to_the_outermost_and_garbage_ends_the_walk() {
        // Three frames of two words each, the last of which has no caller.
        let mut stack = Box::new([0_u64; 16]);
        let to = (&raw const *stack) as u64;
        (stack[2], stack[3]) = (to + 6 * 8, 0x11_1111);
        (stack[6], stack[7]) = (to + 10 * 8, 0x22_2222);
        (stack[10], stack[11]) = (0, 0x33_3333);
        let stack = std::hint::black_box(stack);
        let mut out = [0; 128];
        let start = Registers { at: 0x99_9999, frame: to + 16, stack: to };
        assert_eq!(walk(start, &mut out), 4);
        assert_eq!(out[..4], [0x99_9999, 0x11_1111, 0x22_2222, 0x33_3333]);
        for frame in [0, 8, to + 17, to.wrapping_sub(64), u64::MAX - 7] {
            assert_eq!(walk(Registers { frame, ..start }, &mut out), 1, "{frame:#x}");
        }
        drop(stack);
    }

    #[test]
    fn memory_that_is_not_there_is_no_fault() {
        let mut words = [0; 2];
        assert_eq!(read_words(8, &mut words), 0);
        assert!(try_reading().is_ok());
    }
}
