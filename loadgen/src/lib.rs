//! `ringmain-load`: a load generator for MQTT brokers.
//!
//! A [`plan::Plan`] says which populations of clients there are and how they behave; [`run::run`]
//! deals them out to worker threads, each with io_uring rings of its own, leads them through the
//! phases of a run, and returns a [`report::Report`]. Connections live in direct descriptors, so
//! that one process holds more of them than RLIMIT_NOFILE allows.
//!
//! The reading path: `main.rs` → [`cli`] → [`plan`] → [`run`] → `worker.rs` → `connection.rs` (how
//! a client opens and ends), `session.rs` (what it hears) and `publish.rs` (what it says).

mod account;
mod address;
pub mod cli;
mod client;
mod clock;
mod connection;
pub mod cost;
pub mod environment;
pub mod judge;
mod pace;
mod packets;
pub mod plan;
mod publish;
pub mod report;
pub mod ring;
pub mod run;
mod session;
pub mod size;
pub mod snapshot;
pub mod stamp;
pub mod stats;
pub mod template;
mod worker;

pub use address::automatic_sources;
pub use clock::{now_ns, process_cpu_ns, thread_cpu_ns};
