//! Two brokers in turn, and what their difference is worth.

pub mod statistics;
