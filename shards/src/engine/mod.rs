//! The sans-io engine: one plain struct per shard, driven by the reactor or by the simulator.

mod access;
pub mod admission;
pub mod auth;
mod authenticate;
mod bans;
pub mod config;
mod conn;
mod connect;
mod core;
pub mod counters;
mod delivery;
pub mod effects;
pub mod hash;
mod held;
pub mod ids;
pub mod input;
pub mod introduction;
pub mod mail;
pub mod message;
mod meter;
pub mod node;
mod overload;
pub mod packed;
mod packets;
mod publish;
pub mod rates;
mod recent;
mod replay;
mod report;
pub mod retained;
pub mod route;
mod session;
mod shard;
mod shared;
mod slab;
mod sublist;
pub mod subs;
mod subscribe;
mod sys;
mod timers;
mod verdict;
pub mod wheel;

pub use shard::Shard;

use effects::Effects;
use ids::Now;
use input::Input;

/// What drives a shard calls. The reactor is generic over it, so that it can be tested and measured
/// with machines much simpler than a broker.
///
/// A *turn*: the driver reads the clock once, feeds any number of inputs, then feeds
/// [`Input::TurnEnd`], then performs what [`Effects`] holds, in order, and clears it.
pub trait Machine {
    /// Takes one input; writes what is to be done to `fx`. Never blocks.
    fn handle(&mut self, now: Now, input: Input<'_>, fx: &mut Effects);

    /// When the machine next wants an [`Input::Tick`], in ms of [`Now::mono_ms`]; `u64::MAX` = never.
    /// A tick that comes late is fine, one that comes early does nothing.
    fn deadline_ms(&self) -> u64;

    /// How many more connections it takes now: [`Input::Open`]s. Further ones stay in the backlog.
    fn accept_room(&self) -> u32 {
        u32::MAX
    }
}
