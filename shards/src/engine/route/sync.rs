//! The atomics of the route table: the standard ones, or loom's to explore their interleavings.

#[cfg(ringmain_loom)]
pub(super) use loom::sync::atomic::{AtomicI64, AtomicU32, AtomicU64, Ordering};
#[cfg(not(ringmain_loom))]
pub(super) use std::sync::atomic::{AtomicI64, AtomicU32, AtomicU64, Ordering};
