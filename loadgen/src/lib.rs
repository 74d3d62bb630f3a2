//! `ringmain-load`: a load generator for MQTT brokers.
//!
//! A [`plan::Plan`] says which populations of clients there are, how they behave, and the stages
//! they go through; [`run::run`] deals them out to worker threads, each with io_uring rings of its
//! own, leads them through the stages, and returns a [`report::Report`]. Connections live in direct
//! descriptors, so that one process holds more of them than RLIMIT_NOFILE allows.
//!
//! The reading path: `main.rs` → [`cli`] (or [`scenario`]) → [`job`] → [`plan`] → [`run`] →
//! `worker.rs` → `connection.rs` (how a client opens and ends) and `session.rs` (what it says).
//! What people see of a run is in [`live`], [`report`] and [`plot`]; [`compare`] and [`find_max`]
//! make many runs, [`agents`] one run on many machines.

mod account;
mod address;
pub mod agents;
pub mod assertion;
pub mod cli;
mod client;
mod clock;
pub mod compare;
mod connection;
pub mod cost;
pub mod environment;
mod files;
pub mod find_max;
pub mod job;
pub mod judge;
pub mod live;
pub mod metric;
pub mod million;
mod pace;
mod packets;
pub mod plan;
pub mod plot;
pub mod preflight;
pub mod quantity;
pub mod report;
pub mod ring;
pub mod run;
pub mod scenario;
mod session;
pub mod size;
pub mod snapshot;
pub mod stamp;
pub mod stats;
pub mod template;
mod worker;

pub use address::automatic_sources;
pub use clock::{now_ns, process_cpu_ns, thread_cpu_ns};
