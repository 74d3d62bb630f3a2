//! The control plane of the Ringmain MQTT broker. It reaches the shards only by bounded channels, and a
//! shard never waits for it.

pub mod api;
mod ask;
mod fields;
mod http;
mod metrics;
mod node;
mod process;
mod server;
mod socket;
mod text;

#[cfg(test)]
mod fake;

pub use server::{Config, Error, Opened, Place, Running, SocketPath, open, start};
