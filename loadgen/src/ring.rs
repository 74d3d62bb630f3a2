//! One io_uring: direct descriptors, a provided-buffer ring, and a loop that asks for many.
//!
//! This is the only module of the crate with `unsafe` around the kernel. Everything that a
//! submission points at is owned by the [`Ring`] or by a buffer that its caller keeps until the
//! completion came (see [`Ring::push`]).

use std::alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error};
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;

use io_uring::types::{BufRingEntry, SubmitArgs, Timespec};
use io_uring::{IoUring, cqueue, opcode, squeue, types};

/// Turns without a completion after which what the kernel announced is old news. Each runs 20 items.
const BLANK_TURNS_MAX: u32 = 8;

/// Entries of a submission queue. A chain that opens a connection takes up to seven.
const SQ_ENTRIES: u32 = 4096;
/// Entries of a completion queue: a flood of receives must not overflow it.
const CQ_ENTRIES: u32 = 65_536;
/// The one buffer group of a ring.
pub const BUFFER_GROUP: u16 = 0;
/// What a pass asks for when the last one brought a batch: with DEFER_TASKRUN the kernel hands out
/// about 20 completions a pass unless it is asked for more.
const BATCH_WANT: usize = 512;
/// From here on a pass counts as a batch.
const BATCH_MIN: usize = 16;

/// How a ring is set up.
#[derive(Clone, Copy, Debug)]
pub struct RingConfig {
    /// Slots of the direct-descriptor table; at most RLIMIT_NOFILE.
    pub slots: u32,
    /// Receive buffers; a power of two, at most 32,768.
    pub buffers: u16,
    /// Bytes of one receive buffer.
    pub buffer_size: u32,
}

/// A completion, out of the queue.
#[derive(Clone, Copy, Debug)]
pub struct Completion {
    /// What the submission carried.
    pub user_data: u64,
    /// Result: bytes, or a negated errno.
    pub result: i32,
    flags: u32,
}

impl Completion {
    /// Whether a multishot operation goes on.
    #[must_use]
    pub fn more(&self) -> bool {
        cqueue::more(self.flags)
    }

    /// The receive buffer that holds the data, if any.
    #[must_use]
    pub fn buffer(&self) -> Option<u16> {
        cqueue::buffer_select(self.flags)
    }
}

/// Lives on: the thread that made it (SINGLE_ISSUER). Dropping the ring ends all its operations
/// before the buffers go, because `io` is declared first.
pub struct Ring {
    io: IoUring,
    buffers: BufferRing,
    last_batch: usize,
    /// Turns in a row that brought nothing.
    blank_turns: u32,
    eventfd: Option<OwnedFd>,
}

impl Ring {
    /// Sets a ring up with `SINGLE_ISSUER | DEFER_TASKRUN | SUBMIT_ALL`.
    ///
    /// # Errors
    /// What the kernel says: `EMFILE` when `slots` is above RLIMIT_NOFILE, `EINVAL` below Linux 6.1.
    pub fn new(config: RingConfig) -> io::Result<Self> {
        let io = IoUring::builder()
            .setup_single_issuer()
            .setup_defer_taskrun()
            .setup_submit_all()
            .setup_taskrun_flag()
            .setup_cqsize(CQ_ENTRIES)
            .build(SQ_ENTRIES)?;
        io.submitter().register_files_sparse(config.slots)?;
        let buffers = BufferRing::new(config.buffers, config.buffer_size)?;
        // SAFETY: the entries live in `buffers`, which `Ring` drops after `io`.
        unsafe {
            io.submitter().register_buf_ring_with_flags(
                buffers.entries.as_ptr() as u64,
                config.buffers,
                BUFFER_GROUP,
                0,
            )?;
        }
        // Spares each enter a look-up. A thread has 16 places for it: further rings do without.
        drop(io.submitter().register_ring_fd());
        Ok(Self { io, buffers, last_batch: 0, blank_turns: 0, eventfd: None })
    }

    /// Whether the kernel has operation `code`.
    ///
    /// # Errors
    /// When the kernel refuses to be probed.
    pub fn supports(&self, code: u8) -> io::Result<bool> {
        let mut probe = io_uring::Probe::new();
        self.io.submitter().register_probe(&mut probe)?;
        Ok(probe.is_supported(code))
    }

    /// Makes completions of this ring signal an eventfd, and returns that descriptor. A ring set up
    /// with DEFER_TASKRUN does not wake pollers of its own descriptor.
    ///
    /// # Errors
    /// When there is no descriptor left.
    pub fn eventfd(&mut self) -> io::Result<RawFd> {
        if let Some(fd) = &self.eventfd {
            return Ok(fd.as_raw_fd());
        }
        // SAFETY: a plain system call; a non-negative result is a descriptor that we own.
        let fd = unsafe {
            let fd = libc::eventfd(0, libc::EFD_CLOEXEC);
            if fd < 0 {
                return Err(io::Error::last_os_error());
            }
            OwnedFd::from_raw_fd(fd)
        };
        self.io.submitter().register_eventfd(fd.as_raw_fd())?;
        let raw = fd.as_raw_fd();
        self.eventfd = Some(fd);
        Ok(raw)
    }

    /// Puts an ordinary descriptor into slot `slot`.
    ///
    /// # Errors
    /// When the slot is outside of the table.
    pub fn install(&self, slot: u32, fd: RawFd) -> io::Result<()> {
        self.io.submitter().register_files_update(slot, &[fd]).map(drop)
    }

    /// Queues the entries, which may be linked, so that one submission takes all of them.
    ///
    /// # Errors
    /// When the queue was full and the kernel refused to take it.
    ///
    /// # Safety
    /// What the entries point at must stay where it is until their completions came, or, for
    /// addresses that the kernel copies as it takes them, until the next [`Self::submit`].
    pub unsafe fn push(&mut self, entries: &[squeue::Entry]) -> io::Result<()> {
        // SAFETY: passed on to the caller.
        while unsafe { self.io.submission().push_multiple(entries) }.is_err() {
            self.io.submit()?;
        }
        Ok(())
    }

    /// Free entries in the submission queue.
    pub fn room(&mut self) -> usize {
        let sq = self.io.submission();
        sq.capacity() - sq.len()
    }

    /// Hands the queued entries to the kernel without waiting.
    ///
    /// # Errors
    /// When the kernel is out of memory.
    pub fn submit(&mut self) -> io::Result<()> {
        if self.io.submission().is_empty() {
            return Ok(());
        }
        retry(|| self.io.submit().map(drop))
    }

    /// Hands the queued entries over and runs what completed; blocks for at most `wait` while
    /// nothing did.
    ///
    /// # Errors
    /// When the kernel is out of memory.
    pub fn turn(&mut self, wait: Duration) -> io::Result<()> {
        let batch = self.last_batch >= BATCH_MIN;
        let (want, wait) = if batch { (BATCH_WANT, Duration::ZERO) } else { (1, wait) };
        let ts = Timespec::from(wait);
        let args = SubmitArgs::new().timespec(&ts);
        let done = match self.io.submitter().submit_with_args(want, &args) {
            Ok(_) => Ok(()),
            Err(e) => match e.raw_os_error() {
                // Nothing in time, a signal, or completions to reap first.
                Some(libc::ETIME | libc::EINTR | libc::EBUSY | libc::EAGAIN) => Ok(()),
                _ => Err(e),
            },
        };
        let blank = self.io.completion().is_empty();
        self.blank_turns = if blank { self.blank_turns.saturating_add(1) } else { 0 };
        done
    }

    /// Whether a turn would find something without waiting: completions in the queue, or work that the
    /// last turn left. A pass runs about 20 items unless more are asked for; for those that it
    /// leaves nobody signals the eventfd again.
    ///
    /// The kernel's announcement of work may be old: it adds work first and then sets the flag, and if the
    /// work was run in between, the flag stays until there is more, which is signalled. So it counts only
    /// as long as looking brings something.
    pub fn has_work(&mut self) -> bool {
        let sq = self.io.submission();
        let pending = sq.taskrun() || sq.cq_overflow();
        drop(sq);
        pending && self.blank_turns < BLANK_TURNS_MAX || !self.io.completion().is_empty()
    }

    /// Moves the completions into `into`, which is cleared first.
    pub fn reap(&mut self, into: &mut Vec<Completion>) {
        into.clear();
        into.extend(self.io.completion().map(|c| Completion {
            user_data: c.user_data(),
            result: c.result(),
            flags: c.flags(),
        }));
        self.last_batch = into.len();
    }

    /// The first `len` bytes of a receive buffer.
    #[must_use]
    pub fn received(&self, buffer: u16, len: usize) -> &[u8] {
        self.buffers.bytes(buffer, len)
    }

    /// Gives a receive buffer back to the kernel.
    pub fn recycle(&mut self, buffer: u16) {
        self.buffers.recycle(buffer);
    }
}

fn retry(mut call: impl FnMut() -> io::Result<()>) -> io::Result<()> {
    match call() {
        Err(e) if matches!(e.raw_os_error(), Some(libc::EINTR | libc::EBUSY | libc::EAGAIN)) => {
            Ok(())
        }
        other => other,
    }
}

/// The multishot receive of slot `slot`.
#[must_use]
pub fn recv_multi(slot: u32, user_data: u64) -> squeue::Entry {
    opcode::RecvMulti::new(types::Fixed(slot), BUFFER_GROUP).build().user_data(user_data)
}

/// One receive of at most `len` bytes on slot `slot`.
#[must_use]
pub fn recv_once(slot: u32, len: u32, user_data: u64) -> squeue::Entry {
    opcode::Recv::new(types::Fixed(slot), std::ptr::null_mut(), len)
        .buf_group(BUFFER_GROUP)
        .build()
        .flags(squeue::Flags::BUFFER_SELECT)
        .user_data(user_data)
}

/// A send that completes when all bytes went. They must stay where they are until then.
#[must_use]
pub fn send(slot: u32, bytes: *const u8, len: usize, user_data: u64) -> squeue::Entry {
    opcode::Send::new(types::Fixed(slot), bytes, len as u32)
        .flags(libc::MSG_WAITALL | libc::MSG_NOSIGNAL)
        .build()
        .user_data(user_data)
}

/// The page size that the kernel wants buffer rings aligned to.
const PAGE: usize = 4096;

/// Receive buffers that the kernel picks from.
///
/// ```text
/// entries: [ addr len bid | tail ][ addr len bid ]...   shared with the kernel
/// arena:   [ buffer 0 ][ buffer 1 ]...                  buffer `bid` at bid * size
/// ```
struct BufferRing {
    entries: NonNull<BufRingEntry>,
    arena: NonNull<u8>,
    count: u16,
    size: u32,
    tail: u16,
}

impl BufferRing {
    fn new(count: u16, size: u32) -> io::Result<Self> {
        if !count.is_power_of_two() || count > 32_768 || size == 0 {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                "receive buffers: 2^n <= 32768",
            ));
        }
        let allocate = |layout: Layout| {
            // SAFETY: both layouts have a size above zero.
            NonNull::new(unsafe { alloc_zeroed(layout) })
                .unwrap_or_else(|| handle_alloc_error(layout))
        };
        let mut ring = Self {
            entries: allocate(Self::entries_layout(count)).cast(),
            arena: allocate(Self::arena_layout(count, size)),
            count,
            size,
            tail: 0,
        };
        for bid in 0..count {
            ring.add(bid);
        }
        ring.publish();
        Ok(ring)
    }

    fn entries_layout(count: u16) -> Layout {
        Layout::from_size_align(usize::from(count) * size_of::<BufRingEntry>(), PAGE)
            .expect("a buffer ring is at most half a megabyte")
    }

    fn arena_layout(count: u16, size: u32) -> Layout {
        Layout::from_size_align(usize::from(count) * size as usize, PAGE)
            .expect("the arena is checked at construction")
    }

    fn add(&mut self, bid: u16) {
        let index = usize::from(self.tail & (self.count - 1));
        // SAFETY: `index` is inside the entries; the kernel reads an entry only after `publish`.
        unsafe {
            let entry = &mut *self.entries.as_ptr().add(index);
            entry.set_addr(self.arena.as_ptr().add(usize::from(bid) * self.size as usize) as u64);
            entry.set_len(self.size);
            entry.set_bid(bid);
        }
        self.tail = self.tail.wrapping_add(1);
    }

    fn publish(&self) {
        // SAFETY: the tail lies in the first entry, is aligned to two bytes and lives as long as
        // `self`; the kernel reads it concurrently, hence the atomic.
        unsafe {
            let tail = BufRingEntry::tail(self.entries.as_ptr()).cast_mut();
            AtomicU16::from_ptr(tail).store(self.tail, Ordering::Release);
        }
    }

    fn recycle(&mut self, bid: u16) {
        debug_assert!(bid < self.count);
        self.add(bid);
        self.publish();
    }

    fn bytes(&self, bid: u16, len: usize) -> &[u8] {
        assert!(bid < self.count && len <= self.size as usize, "the kernel names its own buffers");
        // SAFETY: inside the arena; the kernel does not write to it until it is recycled, which
        // takes `&mut self`.
        unsafe {
            let start = self.arena.as_ptr().add(usize::from(bid) * self.size as usize);
            std::slice::from_raw_parts(start, len)
        }
    }
}

impl Drop for BufferRing {
    fn drop(&mut self) {
        // SAFETY: allocated in `new` with these layouts.
        unsafe {
            dealloc(self.entries.as_ptr().cast(), Self::entries_layout(self.count));
            dealloc(self.arena.as_ptr(), Self::arena_layout(self.count, self.size));
        }
    }
}
