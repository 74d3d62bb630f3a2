//! Deterministic simulator of Ringmain's data plane.
//!
//! N shards in one thread, under one seed, with virtual time: the same engine and the same mail
//! semantics as production, simulated clients that follow whims, faults, and oracles that know what
//! MQTT allows. A seed that fails prints the command that replays it.
//!
//! - [`world`]: shards' drivers, mail, network, clock.
//! - [`device`]: the clients.
//! - [`oracle`]: what is right.
//! - [`scenario`]: what a run is like.
//! - [`sim`]: a run; [`plant`]: known bugs, to test the oracles.

pub mod device;
pub mod oracle;
pub mod plant;
pub mod rng;
pub mod scenario;
pub mod sim;
pub mod topics;
pub mod wire;
pub mod world;
