//! Whether a file has changed since it was read.

use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// What tells two states of a file apart: time of change (s, ns), bytes, inode; `None`: there is no such file.
pub(super) type Stamp = Option<(i64, i64, u64, u64)>;

/// The state of a file now.
pub(super) fn stamp(path: &Path) -> Stamp {
    let found = std::fs::metadata(path).ok()?;
    Some((found.mtime(), found.mtime_nsec(), found.len(), found.ino()))
}
