//! Kernel parameters of a host for Ringmain, as data: what is proposed for a goal and why
//! (`parameters/*.toml`), what a host has ([`judge`]), which limit stops its growth first ([`capacity`]), what shows
//! that it is in trouble ([`counters`]), and how it is changed and changed back ([`apply`]).
//!
//! Everything reads a [`Host`]: the one that it runs on, or a copy of another one's /proc and /sys.

pub mod apply;
pub mod capacity;
pub mod counters;
pub mod doctor;
pub mod examples;
pub mod formula;
pub mod goal;
mod host;
mod judge;
pub mod parameter;
mod persist;
mod spread;

pub use capacity::{Facts, Needs, Side, Verdict as Capacity, check, tcp_pages};
pub use goal::{Goal, Profile};
pub use host::{Hardware, Host, MemoryGroup, field};
pub use judge::{Finding, Verdict, judge};
