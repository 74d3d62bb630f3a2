//! The control plane of the Ringmain MQTT broker. It reaches the shards only by bounded channels, and a
//! shard never waits for it.

pub mod api;
pub mod audit;
pub mod client;
#[cfg(test)]
mod fixture;
pub mod profile;
pub mod slow;
