//! One io_uring: entering it, its table of direct descriptors and its receive buffers.

use std::alloc::{Layout, alloc_zeroed, dealloc};
use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, AtomicU32, Ordering};
use std::time::Duration;

use io_uring::types::{BufRingEntry, SubmitArgs, Timespec};
use io_uring::{IoUring, cqueue, squeue};

/// The group of the only provided-buffer ring of each io_uring.
pub(super) const BUFFER_GROUP: u16 = 0;
/// Submission entries. A full queue costs one more enter; above this the array no longer fits L2.
const SQ_ENTRIES: u32 = 1024;

/// After a batch of at least this many completions the kernel is asked for [`WANT_MANY`] at once:
/// deferred work otherwise hands out about 20 a pass.
const BUSY_BATCH: usize = 16;
/// See [`BUSY_BATCH`].
const WANT_MANY: u32 = 512;

/// Passes over deferred work without a completion after which there is none. Each runs 20 items.
const BLANK_ENTERS_MAX: u32 = 8;

const ENTER_GETEVENTS: u32 = 1;
const ENTER_EXT_ARG: u32 = 1 << 3;
const ENTER_REGISTERED_RING: u32 = 1 << 4;
const REGISTER_RING_FDS: libc::c_uint = 20;

/// How large to make a ring.
#[derive(Clone, Copy, Debug)]
pub(super) struct RingSize {
    /// Completion queue entries.
    pub cq_entries: u32,
    /// Direct descriptors.
    pub table: u32,
    /// Receive buffers; a power of two up to 32,768.
    pub buffers: u16,
    /// Bytes in each.
    pub buffer_bytes: u32,
}

/// What other shards know of a ring: where to send descriptors and wakes to.
#[derive(Debug)]
pub(super) struct RingAddr {
    /// A duplicate, so that the number stays valid for as long as anyone may send to it.
    pub fd: OwnedFd,
    /// Slots in use or promised, by whoever fills them.
    pub used: AtomicU32,
    /// Slots that may be used. The table is a little larger.
    pub capacity: u32,
}

impl RingAddr {
    /// Slots left.
    pub(super) fn free(&self) -> u32 {
        self.capacity.saturating_sub(self.used.load(Ordering::Relaxed))
    }

    /// Takes one slot in advance, if there is one.
    pub(super) fn reserve(&self) -> bool {
        let ok = self.used.fetch_add(1, Ordering::Relaxed) < self.capacity;
        if !ok {
            self.release();
        }
        ok
    }

    /// Gives a slot back.
    pub(super) fn release(&self) {
        let before = self.used.fetch_sub(1, Ordering::Relaxed);
        debug_assert!(before > 0, "a slot was released twice");
    }
}

/// Lives on: its shard. Single issuer: created and entered by one thread.
///
/// Invariant: with DEFER_TASKRUN the kernel touches our buffers only while this thread is inside
/// [`Ring::enter`], so memory may be freed once the ring is no longer entered.
pub(super) struct Ring {
    io: IoUring,
    buffers: Buffers,
    /// Index for ENTER_REGISTERED_RING, or the plain descriptor.
    enter_fd: RawFd,
    enter_flags: u32,
    backlog: VecDeque<squeue::Entry>,
    pub addr: Arc<RingAddr>,
    /// Completions that the last look found.
    found: usize,
    /// Receives submitted since it was last entered.
    receives: u32,
    /// Times this ring was entered.
    pub enters: u64,
}

impl Ring {
    /// Creates a ring. Call on the thread that will own it.
    pub(super) fn new(size: RingSize, capacity: u32, register_fd: bool) -> io::Result<Self> {
        let io = IoUring::builder()
            .setup_single_issuer()
            .setup_defer_taskrun()
            .setup_submit_all()
            .setup_taskrun_flag()
            .setup_cqsize(size.cq_entries)
            .setup_clamp()
            .dontfork()
            .build(SQ_ENTRIES.min(size.cq_entries))?;
        io.submitter().register_files_sparse(size.table)?;
        let buffers = Buffers::new(size.buffers, size.buffer_bytes);
        // SAFETY: the entries are page-aligned, `size.buffers` long, and live as long as the ring
        // (`buffers` is dropped after `io`, see the field order).
        unsafe {
            io.submitter().register_buf_ring_with_flags(
                buffers.entries.as_ptr() as u64,
                size.buffers,
                BUFFER_GROUP,
                0,
            )?;
        }
        let fd = dup(io.as_raw_fd())?;
        let (enter_fd, enter_flags) = match register_fd.then(|| register_ring_fd(io.as_raw_fd())) {
            Some(Ok(index)) => (index, ENTER_REGISTERED_RING),
            _ => (io.as_raw_fd(), 0),
        };
        Ok(Self {
            io,
            buffers,
            enter_fd,
            enter_flags,
            backlog: VecDeque::new(),
            addr: Arc::new(RingAddr { fd, used: AtomicU32::new(0), capacity }),
            found: 0,
            receives: 0,
            enters: 0,
        })
    }

    /// Has an eventfd signalled whenever this ring has completions or work to run.
    pub(super) fn register_eventfd(&self, eventfd: RawFd) -> io::Result<()> {
        self.io.submitter().register_eventfd(eventfd)
    }

    /// Whether the eventfd is signalled.
    pub(super) fn set_signals(&self, on: bool) {
        // SAFETY: the queue is shared with nobody but the kernel; only one view of it exists.
        let queue = unsafe { self.io.completion_shared() };
        if on { queue.enable_eventfd() } else { queue.disable_eventfd() }
    }

    /// Queues one submission; it leaves at the next [`enter`](Self::enter).
    ///
    /// # Safety
    ///
    /// What the entry points to must live until its completion was reaped.
    pub(super) unsafe fn push(&mut self, entry: squeue::Entry) {
        if self.backlog.is_empty() && self.try_push(&entry) {
            return;
        }
        self.backlog.push_back(entry);
        // Submitting without GETEVENTS runs no deferred work: nothing completes under our feet.
        self.flush_backlog();
    }

    fn try_push(&mut self, entry: &squeue::Entry) -> bool {
        // SAFETY: the caller of `push` vouches for what the entry points to.
        unsafe { self.io.submission().push(entry).is_ok() }
    }

    fn flush_backlog(&mut self) {
        while let Some(entry) = self.backlog.front().cloned() {
            if self.try_push(&entry) {
                self.backlog.pop_front();
            } else if self.raw_enter(0, 0, None).is_err() {
                return; // the completion queue is full (EBUSY): the next enter will drain it
            }
        }
    }

    /// Whether entering has a purpose: something to submit, or work that waits to be run.
    pub(super) fn wants_enter(&mut self) -> bool {
        self.has_submissions() || self.announces_work()
    }

    fn has_submissions(&mut self) -> bool {
        !self.io.submission().is_empty() || !self.backlog.is_empty()
    }

    /// What the kernel says; see [`Self::has_work_now`] for when it is not so.
    pub(super) fn announces_work(&mut self) -> bool {
        let sq = self.io.submission();
        sq.taskrun() || sq.cq_overflow()
    }

    /// Whether there are completions, or something to submit; runs the deferred work that the kernel
    /// announces.
    ///
    /// Its announcement may be old: it adds work first and then sets the flag, and if the work was run
    /// in between, the flag stays until there is more. Who took it at its word would never sleep.
    ///
    /// # Errors
    ///
    /// As of [`Self::enter`].
    pub(super) fn has_work_now(&mut self) -> io::Result<bool> {
        for _ in 0..BLANK_ENTERS_MAX {
            if self.has_submissions() || self.has_completions() {
                return Ok(true);
            }
            if !self.announces_work() {
                return Ok(false);
            }
            self.enter(0, Duration::ZERO)?;
        }
        Ok(self.has_completions())
    }

    /// Whether the completion queue overflowed and the kernel holds completions back.
    pub(super) fn overflowed(&mut self) -> bool {
        self.io.submission().cq_overflow()
    }

    /// Submits, runs the deferred work, and waits until `want` completions are there or `timeout`
    /// has passed.
    pub(super) fn enter(&mut self, want: u32, timeout: Duration) -> io::Result<()> {
        self.flush_backlog();
        self.receives = 0;
        let done = if want == 0 {
            self.raw_enter(0, ENTER_GETEVENTS, None)
        } else {
            let ts = Timespec::from(timeout);
            self.raw_enter(want, ENTER_GETEVENTS, Some(&SubmitArgs::new().timespec(&ts)))
        };
        match done.map_err(|e| (e.raw_os_error(), e)) {
            // EBUSY: reap, then come again. EAGAIN: no memory for a request just now, same cure.
            Ok(()) | Err((Some(libc::ETIME | libc::EINTR | libc::EBUSY | libc::EAGAIN), _)) => {
                Ok(())
            }
            Err((_, e)) => Err(e),
        }
    }

    /// Whether the last look found so many completions that there are likely to be more.
    pub(super) fn is_busy(&self) -> bool {
        self.found >= BUSY_BATCH
    }

    /// Submits and runs deferred work, without waiting; much of it where the last look found much.
    pub(super) fn enter_now(&mut self) -> io::Result<()> {
        let want = if self.is_busy() { WANT_MANY.min(self.receives_max()) } else { 0 };
        self.enter(want, Duration::ZERO)
    }

    /// Receives that may complete at the same time and find a buffer, if what they receive is small.
    fn receives_max(&self) -> u32 {
        (u32::from(self.buffers.count) * 3 / 4).max(1)
    }

    /// Whether one more receive may be submitted before the ring is entered; counts it.
    pub(super) fn may_receive(&mut self) -> bool {
        let may = self.receives < self.receives_max();
        self.receives += u32::from(may);
        may
    }

    /// [`Self::enter_now`], if there is a purpose.
    pub(super) fn enter_again(&mut self) -> io::Result<()> {
        if self.wants_enter() { self.enter_now() } else { Ok(()) }
    }

    fn raw_enter(
        &mut self,
        want: u32,
        flags: u32,
        args: Option<&SubmitArgs<'_, '_>>,
    ) -> io::Result<()> {
        self.enters += 1;
        let to_submit = self.io.submission().len() as u32;
        let (arg, size, ext) = match args {
            Some(a) => {
                (std::ptr::from_ref(a) as usize, size_of::<SubmitArgs<'_, '_>>(), ENTER_EXT_ARG)
            }
            None => (0, 0, 0),
        };
        // SAFETY: `enter_fd` names our ring; `arg` is null or points to an io_uring_getevents_arg
        // (SubmitArgs is a transparent wrapper of it) of `size` bytes that outlives the call.
        let n = unsafe {
            libc::syscall(
                libc::SYS_io_uring_enter,
                self.enter_fd,
                to_submit,
                want,
                flags | ext | self.enter_flags,
                arg,
                size,
            )
        };
        if n < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
    }

    /// Moves at most `max` completions to `out`; returns how many.
    pub(super) fn reap(&mut self, out: &mut Vec<cqueue::Entry>, max: usize) -> usize {
        let before = out.len();
        out.extend(self.io.completion().take(max));
        self.found = out.len() - before;
        self.found
    }

    /// Whether completions wait to be reaped.
    pub(super) fn has_completions(&mut self) -> bool {
        !self.io.completion().is_empty()
    }

    /// The first `len` bytes of a receive buffer that a completion named.
    pub(super) fn received(&self, id: u16, len: u32) -> *mut [u8] {
        self.buffers.bytes(id, len)
    }

    /// Gives a receive buffer back; the kernel sees it after [`publish_buffers`](Self::publish_buffers).
    pub(super) fn recycle(&mut self, id: u16) {
        self.buffers.give(id);
    }

    /// Bytes of its receive buffers.
    pub(super) fn buffer_bytes(&self) -> u64 {
        u64::from(self.buffers.count) * u64::from(self.buffers.bytes)
    }

    /// Lets the kernel see the recycled buffers.
    pub(super) fn publish_buffers(&mut self) {
        self.buffers.publish();
    }
}

/// Provided receive buffers and the ring that lends them to the kernel.
struct Buffers {
    entries: NonNull<BufRingEntry>,
    memory: NonNull<u8>,
    count: u16,
    bytes: u32,
    tail: u16,
}

impl Buffers {
    fn new(count: u16, bytes: u32) -> Self {
        assert!(count.is_power_of_two() && bytes > 0, "checked with the configuration");
        let mut this = Self {
            entries: alloc_pages(entries_layout(count)).cast(),
            memory: alloc_pages(memory_layout(count, bytes)),
            count,
            bytes,
            tail: 0,
        };
        (0..count).for_each(|id| this.give(id));
        this.publish();
        this
    }

    fn give(&mut self, id: u16) {
        let at = usize::from(self.tail & (self.count - 1));
        // SAFETY: `at < count`; the kernel reads an entry only after the tail has passed it, which
        // `publish` does; `id < count` because ids come from us by way of the kernel.
        unsafe {
            let entry = &mut *self.entries.as_ptr().add(at);
            entry.set_addr(self.memory.as_ptr().add(usize::from(id) * self.bytes as usize) as u64);
            entry.set_len(self.bytes);
            entry.set_bid(id);
        }
        self.tail = self.tail.wrapping_add(1);
    }

    fn publish(&self) {
        // SAFETY: the tail is a u16 inside the first entry, shared with the kernel; both sides
        // access it atomically.
        let tail = unsafe { &*BufRingEntry::tail(self.entries.as_ptr()).cast::<AtomicU16>() };
        tail.store(self.tail, Ordering::Release);
    }

    fn bytes(&self, id: u16, len: u32) -> *mut [u8] {
        debug_assert!(id < self.count && len <= self.bytes);
        // SAFETY: in bounds, see the assertion.
        let start = unsafe { self.memory.as_ptr().add(usize::from(id) * self.bytes as usize) };
        std::ptr::slice_from_raw_parts_mut(start, len as usize)
    }
}

impl Drop for Buffers {
    fn drop(&mut self) {
        // SAFETY: allocated with the same layouts. The ring is closed or never entered again (see
        // `Ring`), so the kernel writes to neither any more.
        unsafe {
            dealloc(self.entries.as_ptr().cast(), entries_layout(self.count));
            dealloc(self.memory.as_ptr(), memory_layout(self.count, self.bytes));
        }
    }
}

const PAGE: usize = 4096;

fn entries_layout(count: u16) -> Layout {
    Layout::from_size_align(usize::from(count) * size_of::<BufRingEntry>(), PAGE)
        .expect("at most 32,768 entries of 16 bytes")
}

fn memory_layout(count: u16, bytes: u32) -> Layout {
    Layout::from_size_align(usize::from(count) * bytes as usize, PAGE)
        .expect("bounded by the configuration")
}

fn alloc_pages(layout: Layout) -> NonNull<u8> {
    // SAFETY: the layout is not empty (count and size are checked to be positive).
    NonNull::new(unsafe { alloc_zeroed(layout) })
        .unwrap_or_else(|| std::alloc::handle_alloc_error(layout))
}

fn dup(fd: RawFd) -> io::Result<OwnedFd> {
    // SAFETY: `fd` is open: it belongs to the ring that the caller holds.
    unsafe { std::os::fd::BorrowedFd::borrow_raw(fd) }.try_clone_to_owned()
}

#[repr(C)]
struct RsrcUpdate {
    offset: u32,
    resv: u32,
    data: u64,
}

/// Registers the ring's own descriptor with this thread; saves a descriptor look-up at each enter.
fn register_ring_fd(fd: RawFd) -> io::Result<RawFd> {
    let mut update = RsrcUpdate { offset: u32::MAX, resv: 0, data: fd as u64 };
    // SAFETY: one io_uring_rsrc_update that the kernel reads and writes during the call.
    let n = unsafe {
        libc::syscall(libc::SYS_io_uring_register, fd, REGISTER_RING_FDS, &raw mut update, 1)
    };
    if n == 1 { Ok(update.offset as RawFd) } else { Err(io::Error::last_os_error()) }
}
