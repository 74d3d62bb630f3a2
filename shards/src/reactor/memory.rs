//! How the process uses memory.

/// `PR_THP_DISABLE_EXCEPT_ADVISED` of Linux 6.18: large pages remain for what asks for them.
const EXCEPT_ADVISED: libc::c_ulong = 2;

/// Keeps the kernel from backing the heap with pages of 2 MiB, of which idle connections touch a
/// part each: without them a broker at rest takes 4 MiB instead of 35. Whoever
/// wants them (`MIMALLOC_ALLOW_THP=1`) gets them. The route table asks for its own; before Linux 6.18
/// it gets none.
pub(super) fn small_pages() {
    if std::env::var_os("MIMALLOC_ALLOW_THP").is_some_and(|v| v == "1") {
        return;
    }
    // SAFETY: concerns page faults to come, no memory in use. The second cannot fail on kernels that
    // have such pages; on others there is nothing to do.
    unsafe {
        if libc::prctl(libc::PR_SET_THP_DISABLE, 1, EXCEPT_ADVISED, 0, 0) != 0 {
            libc::prctl(libc::PR_SET_THP_DISABLE, 1, 0, 0, 0);
        }
    }
}
