//! The control plane of the Ringmain MQTT broker. It reaches the shards only by bounded channels, and a
//! shard never waits for it.

pub mod api;
pub mod audit;
pub mod client;
pub mod slow;
#[cfg(test)]
mod fixture;
