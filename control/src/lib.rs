//! The control plane of the Ringmain MQTT broker. It reaches the shards only by bounded channels, and a
//! shard never waits for it.

pub mod api;
mod ask;
pub mod audit;
pub mod client;
mod fields;
mod http;
mod metrics;
mod node;
mod process;
pub mod profile;
mod server;
pub mod slow;
mod socket;
mod text;

#[cfg(test)]
mod fake;
#[cfg(test)]
mod fixture;

pub use server::{Config, Error, Opened, Place, Running, SocketPath, open, start};
