//! What the tables ask of memory that safe code cannot: the one room for it beside reactor and mesh.

use std::alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error};
use std::ops::Deref;
use std::ptr::NonNull;
use std::sync::atomic::AtomicU64;

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

/// A cache line of words.
#[repr(align(64))]
#[derive(Debug)]
pub(crate) struct Line(pub(crate) [AtomicU64; 8]);

/// What a large page holds.
const HUGE: usize = 2 << 20;

/// Lines that are zero at first, and that the kernel hands out when they are first touched. From 2 MiB
/// up they are mapped apart from the heap, aligned, in large pages where the kernel gives them: in a
/// table that is read at random each line is on a page of its own, and finding that page out costs as
/// much as the line.
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
            return Self { at, count, mapped: true };
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

/// Zeros at a multiple of [`HUGE`], in large pages if the kernel has them.
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
}
