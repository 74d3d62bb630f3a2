//! The highest rate that holds an objective.

pub mod search;
pub mod slo;
