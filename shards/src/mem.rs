//! What the tables ask of memory that safe code cannot: the one room for it beside reactor and mesh.

use std::alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error};
use std::ops::Deref;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, PoisonError};

/// Asks for the cache line of `at`, so that its miss overlaps with what is done until it is read. A
/// load would do so too, but nothing behind it retires meanwhile.
#[inline]
pub(crate) fn prefetch<T>(at: &T) {
    #[cfg(all(target_arch = "x86_64", not(miri)))]
    {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        // SAFETY: a hint that reads and writes nothing, and the address is of a live reference.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(std::ptr::from_ref(at).cast()) };
    }
    #[cfg(not(all(target_arch = "x86_64", not(miri))))]
    let _ = at;
}

/// A bit for each of sixteen bytes, eight in each word, that equals `byte`.
#[inline]
pub(crate) fn bytes_equal(first: u64, second: u64, byte: u8) -> u64 {
    #[cfg(target_arch = "x86_64")]
    {
        use std::arch::x86_64::{_mm_cmpeq_epi8, _mm_movemask_epi8, _mm_set_epi64x, _mm_set1_epi8};
        // SAFETY: every x86_64 has SSE2; these touch no memory.
        let bits = unsafe {
            let bytes = _mm_set_epi64x(second as i64, first as i64);
            _mm_movemask_epi8(_mm_cmpeq_epi8(bytes, _mm_set1_epi8(byte as i8)))
        };
        u64::from(bits as u16)
    }
    #[cfg(not(target_arch = "x86_64"))]
    {
        let all = first.to_le_bytes().into_iter().chain(second.to_le_bytes());
        all.rev().fold(0, |bits, b| bits << 1 | u64::from(b == byte))
    }
}

/// A cache line of words.
#[repr(align(64))]
#[derive(Debug)]
pub(crate) struct Line(pub(crate) [AtomicU64; 8]);

/// What a large page holds.
const HUGE: usize = 2 << 20;

/// Lines that are zero at first. From 2 MiB up they are mapped apart from the heap, aligned, in large pages
/// where the kernel gives them: in a table that is read at random each line is on a page of its own, and
/// finding that page out costs as much as the line. What is not in large pages the kernel hands out when it
/// is first touched.
#[derive(Debug)]
pub(crate) struct Lines {
    at: NonNull<Line>,
    count: usize,
    /// Whether `at` was mapped, not allocated.
    mapped: bool,
}

// SAFETY: it owns its lines, and `Line` may be sent and shared.
unsafe impl Send for Lines {}
// SAFETY: as above.
unsafe impl Sync for Lines {}

impl Lines {
    /// So many lines, at least one. Aborts as any allocation when there is no memory.
    pub(crate) fn zeroed(count: usize) -> Self {
        let layout = Layout::array::<Line>(count.max(1)).expect("less than the address space");
        if cfg!(not(miri)) && layout.size() >= HUGE {
            let at = map_aligned(layout.size()).unwrap_or_else(|| handle_alloc_error(layout));
            let lines = Self { at, count, mapped: true };
            with_large_pages(|| {
                let large = lines.chunks_exact(HUGE / size_of::<Line>());
                large.for_each(|page| page[0].0[0].store(0, Relaxed));
            });
            return lines;
        }
        // SAFETY: the layout is not empty; all bytes zero are a valid `Line`.
        let at = NonNull::new(unsafe { alloc_zeroed(layout) }.cast())
            .unwrap_or_else(|| handle_alloc_error(layout));
        Self { at, count, mapped: false }
    }
}

impl Deref for Lines {
    type Target = [Line];

    #[inline]
    fn deref(&self) -> &[Line] {
        // SAFETY: `count` lines from `at` are owned and were made valid by zeroing.
        unsafe { std::slice::from_raw_parts(self.at.as_ptr(), self.count) }
    }
}

impl Drop for Lines {
    fn drop(&mut self) {
        let layout = Layout::array::<Line>(self.count.max(1)).expect("as when it was made");
        // SAFETY: what `zeroed` made, in the same way and of the same size; `Line` needs no drop.
        unsafe {
            if self.mapped {
                libc::munmap(self.at.as_ptr().cast(), layout.size());
            } else {
                dealloc(self.at.as_ptr().cast(), layout);
            }
        }
    }
}

/// Whoever switches large pages on for the process is the one to switch them off.
static SWITCH: Mutex<()> = Mutex::new(());

/// Has `touch` get large pages for what was advised to be in them, also in a process that has them switched
/// off. They are on again for all threads meanwhile: so what it touches is to be little, a page each.
fn with_large_pages(touch: impl FnOnce()) {
    let _switch = SWITCH.lock().unwrap_or_else(PoisonError::into_inner);
    // SAFETY: asks and sets a flag about page faults to come, no memory in use. It cannot fail on kernels
    // that have such pages, and does nothing on others.
    let set = |off: libc::c_ulong| unsafe { libc::prctl(libc::PR_SET_THP_DISABLE, off, 0, 0, 0) };
    // SAFETY: as above.
    let off = unsafe { libc::prctl(libc::PR_GET_THP_DISABLE, 0, 0, 0, 0) } == 1;
    if off {
        set(0);
    }
    touch();
    if off {
        set(1);
    }
}

/// Zeros at a multiple of [`HUGE`], to be in large pages if the kernel has them.
fn map_aligned(bytes: usize) -> Option<NonNull<Line>> {
    let (prot, flags) =
        (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS);
    let all = bytes.checked_add(HUGE)?;
    // SAFETY: a new mapping, anywhere.
    let start = unsafe { libc::mmap(std::ptr::null_mut(), all, prot, flags, -1, 0) };
    if start == libc::MAP_FAILED {
        return None;
    }
    let page = 4096;
    let before = start.align_offset(HUGE);
    let used = bytes.next_multiple_of(page);
    // SAFETY: the parts before and behind the aligned one, of the mapping just made, which nobody has
    // seen; the advice concerns the part that stays. Failing, it leaves small pages.
    unsafe {
        let at = start.byte_add(before);
        if before > 0 {
            libc::munmap(start, before);
        }
        if all > before + used {
            libc::munmap(at.byte_add(used), all - before - used);
        }
        libc::madvise(at, bytes / HUGE * HUGE, libc::MADV_HUGEPAGE);
        NonNull::new(at.cast())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::Ordering::Relaxed;

    #[test]
    fn equal_bytes_are_told_by_their_places() {
        let [first, second] = [*b"/a//bcd/", *b"efgh///\xaf"].map(u64::from_le_bytes);
        assert_eq!(bytes_equal(first, second, b'/'), 0b0111_0000_1000_1101);
        assert_eq!(bytes_equal(0, u64::MAX, 0), 0xff);
    }

    #[test]
    fn lines_are_zero_aligned_and_as_many_as_asked_for() {
        for count in [1, 3, 2048, HUGE / 64 - 1, HUGE / 64, HUGE / 64 + 4097] {
            let lines = Lines::zeroed(count);
            assert_eq!(lines.len(), count);
            assert_eq!(lines.as_ptr().align_offset(64), 0);
            let all = || lines.iter().flat_map(|l| &l.0);
            assert!(all().all(|w| w.load(Relaxed) == 0));
            all().for_each(|w| w.store(u64::MAX, Relaxed));
            if count >= HUGE / 64 {
                assert_eq!(lines.as_ptr().align_offset(HUGE), 0);
            }
        }
    }

    /// What of these lines is in large pages, in bytes; `None` if the kernel does not say.
    #[cfg(not(miri))]
    fn in_large_pages(lines: &Lines) -> Option<usize> {
        let from = format!("{:x}-", lines.as_ptr().addr());
        let maps = std::fs::read_to_string("/proc/self/smaps").ok()?;
        let kib = maps
            .lines()
            .skip_while(|line| !line.starts_with(&from))
            .find_map(|line| line.strip_prefix("AnonHugePages:"))?;
        Some(kib.trim().strip_suffix(" kB")?.parse::<usize>().ok()? << 10)
    }

    #[cfg(not(miri))]
    #[test]
    fn a_process_without_large_pages_has_them_for_its_lines_alone() {
        let several = || Lines::zeroed(3 * HUGE / 64 + 64);
        // What a kernel that has no large page to spare gives to anybody.
        let to_anybody = in_large_pages(&several());
        // SAFETY: flags about page faults to come.
        unsafe {
            assert_eq!(libc::prctl(libc::PR_SET_THP_DISABLE, 1, 0, 0, 0), 0);
            let lines = several();
            // Not while a test beside this one has them on.
            let switch = SWITCH.lock();
            assert_eq!(libc::prctl(libc::PR_GET_THP_DISABLE, 0, 0, 0, 0), 1, "off as before");
            drop(switch);
            assert_eq!(in_large_pages(&lines), to_anybody);
            libc::prctl(libc::PR_SET_THP_DISABLE, 0, 0, 0, 0);
        }
    }
}
