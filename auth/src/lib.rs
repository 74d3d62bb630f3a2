//! Authentication of MQTT clients, off the shards.
//!
//! A shard that has read CONNECT hands a [`Request`] to [`Handle::try_send`], holds the connection, and goes
//! on with others; a full queue is for the shard to answer (0x88 Server unavailable or 0x89 Server busy). The
//! [`Service`] lives on a thread of its own. It asks the authenticators of the listener's chain one after the
//! other, and calls back with an [`Answer`]. Slow password hashes run on worker threads, slow servers are
//! waited for asynchronously; every wait has a time limit, every queue a bound.
//!
//! | what | where | bound |
//! |---|---|---|
//! | requests that wait for the service | [`config::Settings::queue_max`] | the shard answers |
//! | requests inside one authenticator | `max_in_flight` of its entry | [`Verdict::Busy`] |
//! | hashes that wait for a worker | [`config::Hashing::queue_max`] | [`Verdict::Busy`] |
//! | remembered results | [`config::Cache::max_entries`] | the least recently used is forgotten |
//! | remembered failures | [`config::Lockout::max_entries`] | the least recently used is forgotten |
//!
//! An authenticator is a folder below `sources/` and one line of `sources/registry.rs`.

mod bind;
mod cache;
mod chain;
pub mod commands;
pub mod config;
mod hashers;
mod lockout;
pub mod password;
mod request;
mod service;
pub mod source;
pub mod sources;
mod template;
mod text;
pub mod users;
mod verdict;

#[cfg(test)]
mod fixture;

pub use request::{Phase, Request};
pub use service::{Answers, Clock, Handle, Service, Stats, system_clock};
pub use sources::scram::Exchange;
pub use verdict::{ATTRIBUTE_BYTES_MAX, ATTRIBUTES_MAX, Answer, Denial, Identity, Verdict};
