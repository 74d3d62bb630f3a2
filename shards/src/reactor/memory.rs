//! How the process uses memory.

/// Keeps the kernel from backing the heap with pages of 2 MiB, of which idle connections touch a
/// part each: without them a broker at rest takes 4 MiB instead of 35. Whoever
/// wants them (`MIMALLOC_ALLOW_THP=1`) gets them, and a large route table has them anyway: it switches
/// them on for as long as it touches new ones ([`mem`](crate::mem)). The
/// kernel's "except where advised" (Linux 6.18) is no help: the allocator advises its whole arena, and
/// a broker at rest then takes 66 MiB.
pub(super) fn small_pages() {
    if std::env::var_os("MIMALLOC_ALLOW_THP").is_some_and(|v| v == "1") {
        return;
    }
    // SAFETY: concerns page faults to come, no memory in use. It cannot fail on kernels that have
    // such pages; on others there is nothing to do.
    unsafe { libc::prctl(libc::PR_SET_THP_DISABLE, 1, 0, 0, 0) };
}
