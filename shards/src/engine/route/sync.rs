//! The atomics of the route table: the standard ones, or loom's to explore their interleavings.

#[cfg(not(ringmain_loom))]
pub(super) use crate::mem::{Line, Lines};
#[cfg(ringmain_loom)]
pub(super) use loom::sync::atomic::{AtomicI64, AtomicU32, AtomicU64, Ordering};
#[cfg(not(ringmain_loom))]
pub(super) use std::sync::atomic::{AtomicI64, AtomicU32, AtomicU64, Ordering};

/// As [`crate::mem::Line`].
#[cfg(ringmain_loom)]
#[derive(Debug)]
pub(super) struct Line(pub(super) [AtomicU64; 8]);

/// As [`crate::mem::Lines`].
#[cfg(ringmain_loom)]
#[derive(Debug)]
pub(super) struct Lines(Box<[Line]>);

#[cfg(ringmain_loom)]
impl Lines {
    pub(super) fn zeroed(count: usize) -> Self {
        Self((0..count).map(|_| Line(std::array::from_fn(|_| AtomicU64::new(0)))).collect())
    }
}

#[cfg(ringmain_loom)]
impl std::ops::Deref for Lines {
    type Target = [Line];

    fn deref(&self) -> &[Line] {
        &self.0
    }
}
