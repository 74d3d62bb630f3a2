//! The data plane of the Ringmain MQTT broker.
//!
//! - [`engine`]: the sans-io shard: `Shard::handle(now, Input, &mut Effects)`. No socket, clock,
//!   thread, environment or randomness from outside.
//! - [`mesh`]: lock-free mail between the shards of a node.
//! - [`reactor`]: drives one engine per core on io_uring, inside a pinned glommio executor.
//! - [`observe`]: what a shard knows about its own work: times by stage, turns, followed messages.
//! - [`frames`]: where a thread is, for signal handlers.
//! - [`boundary`]: the plain messages that cross between shards and the control plane.

pub mod boundary;
pub mod engine;
pub mod frames;
mod mem;
pub mod mesh;
pub mod observe;
pub mod reactor;
