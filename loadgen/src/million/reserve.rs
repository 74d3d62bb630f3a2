//! Memory that is there when it is needed. A virtual machine's host may hand memory out only when it is first
//! touched, and take it back when it is free: then a page costs many times what it costs on a machine of its own, and
//! a run that grows by gigabytes measures that. A [`Reserve`] touches as much before the run, and gives it back
//! as the run grows.

use std::io;
use std::time::{Duration, Instant};

/// Bytes that one system page has here; a larger one only means that some are touched twice.
const PAGE: usize = 4096;

/// Touched memory. Dropping it gives the rest back. Lives on: the thread that watches the run.
pub(super) struct Reserve {
    base: *mut libc::c_void,
    held: usize,
    /// Pages that were touched.
    pub pages: usize,
    /// How long that took, over all threads.
    pub took: Duration,
}

impl Reserve {
    /// Touches `bytes` by one thread for each CPU.
    ///
    /// # Errors
    /// When the kernel has no room for the mapping.
    pub(super) fn touch(bytes: u64) -> io::Result<Self> {
        let pages = usize::try_from(bytes).unwrap_or(usize::MAX / 2).div_ceil(PAGE).max(1);
        let len = pages * PAGE;
        let (protection, flags) =
            (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS);
        // SAFETY: a new mapping, wherever the kernel has room.
        let base = unsafe { libc::mmap(std::ptr::null_mut(), len, protection, flags, -1, 0) };
        if base == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        // Small pages, as the kernel's own tables use. A kernel without large ones refuses, rightly.
        // SAFETY: our mapping.
        unsafe { libc::madvise(base, len, libc::MADV_NOHUGEPAGE) };
        let threads = std::thread::available_parallelism().map_or(1, usize::from).min(pages);
        let part = pages.div_ceil(threads) * PAGE;
        let address = base as usize;
        let started = Instant::now();
        std::thread::scope(|scope| {
            for thread in 0..threads {
                let (from, to) = (thread * part, ((thread + 1) * part).min(len));
                scope.spawn(move || {
                    for offset in (from..to).step_by(PAGE) {
                        // SAFETY: within our mapping, in the part of this thread alone.
                        unsafe { ((address + offset) as *mut u8).write_volatile(1) };
                    }
                });
            }
        });
        let took = started.elapsed() * threads as u32;
        Ok(Self { base, held: len, pages, took })
    }

    /// Gives back all but `bytes`.
    pub(super) fn shrink_to(&mut self, bytes: u64) {
        let keep = usize::try_from(bytes).unwrap_or(usize::MAX / 2).div_ceil(PAGE) * PAGE;
        if keep < self.held {
            // SAFETY: the end of our mapping, which nobody looks at any more.
            unsafe { libc::munmap(self.base.add(keep), self.held - keep) };
            self.held = keep;
        }
    }

    /// Bytes that were touched.
    pub(super) fn bytes(&self) -> u64 {
        (self.pages * PAGE) as u64
    }

    /// What a page cost.
    pub(super) fn per_page(&self) -> Duration {
        self.took / u32::try_from(self.pages).unwrap_or(u32::MAX).max(1)
    }
}

impl Drop for Reserve {
    fn drop(&mut self) {
        self.shrink_to(0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Resident bytes of this process's mapping that begins at `base`.
    fn resident(reserve: &Reserve) -> u64 {
        let maps = std::fs::read_to_string("/proc/self/smaps").unwrap();
        let start = format!("{:x}-", reserve.base as usize);
        let after = maps.split_once(&start).map_or("", |(_, after)| after);
        let rss = after.lines().find_map(|l| l.strip_prefix("Rss:"));
        rss.and_then(|r| r.split_whitespace().next()?.parse::<u64>().ok()).unwrap_or(0) * 1024
    }

    #[test]
    fn what_was_touched_is_resident_until_it_is_given_back() {
        let mut reserve = Reserve::touch(32 << 20).unwrap();
        assert_eq!(reserve.pages, (32 << 20) / PAGE);
        assert!(resident(&reserve) >= 32 << 20, "{}", resident(&reserve));
        reserve.shrink_to(8 << 20);
        assert_eq!(resident(&reserve), 8 << 20);
        reserve.shrink_to(16 << 20);
        assert_eq!(resident(&reserve), 8 << 20, "what was given back stays so");
        reserve.shrink_to(0);
        assert!(reserve.per_page() > Duration::ZERO);
    }
}
