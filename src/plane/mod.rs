//! The seam between the composition root and the data plane.
//!
//! The root starts a [`DataPlane`] with a [`Notifier`], then only reacts to [`Event`]s; it never
//! looks into a shard.

mod authentication;
mod bans;
mod convert;
mod descriptors;
mod memory;
mod observer;
mod owners;
mod refusal;
mod shards;
mod stamp;
mod transports;
mod watchdog;

use std::sync::Arc;
use std::sync::mpsc::Sender;
use std::time::Duration;

use ringmain_shards::observe::Question;

use crate::config::{Config, LiveChanges};
use crate::signals::Signal;

pub use shards::start;

/// What the root is told.
#[derive(Debug)]
pub enum Event {
    /// The operator asks for something.
    Signal(Signal),
    /// Clients can connect at these addresses. Once, after start.
    Ready(Vec<String>),
    /// All shards have ended, as they were told. Nothing follows.
    Stopped,
    /// A shard has failed and the broker cannot go on. Nothing follows.
    Failed(String),
}

/// The data plane's end of the channel to the root. Never blocks.
#[derive(Debug, Clone)]
pub struct Notifier(pub(crate) Sender<Event>);

impl Notifier {
    /// Tells the root.
    pub fn send(&self, event: Event) {
        // The root may have ended already: nobody is left to be told.
        let _ = self.0.send(event);
    }
}

/// A running data plane. Every call returns at once; what it leads to comes back as an [`Event`].
pub trait DataPlane {
    /// Takes over a new configuration, of which `changes` differ; all of them can change live.
    fn apply(&mut self, config: Arc<Config>, changes: &LiveChanges);

    /// Has files read again that the configuration names, if they have changed: certificates, and who may connect.
    fn refresh(&mut self);

    /// Where questions about the shards are answered, from any thread, until the data plane ends.
    fn questions(&self) -> flume::Sender<Question>;

    /// Stops accepting, sends DISCONNECT 0x8B to v5 clients, flushes, publishes wills and ends all
    /// shards within `grace`; then [`Event::Stopped`]. Called once.
    fn shut_down(&mut self, grace: Duration);
}

/// Whether the files that a configuration names can be used: those of authenticators, certificates, and bans.
///
/// # Errors
/// All that is wrong with them, a sentence each.
pub fn check_files(config: &Config) -> Result<(), Vec<String>> {
    let wrong = config.authentication.check_files().err().map(|errors| errors.0);
    let mut errors: Vec<String> = wrong.iter().flatten().map(ToString::to_string).collect();
    errors.extend(transports::check(config).err().into_iter().flatten());
    errors.extend(crate::bans::read(&crate::bans::place(config)).err().into_iter().flatten());
    if errors.is_empty() { Ok(()) } else { Err(errors) }
}

/// Starts a data plane: returns once its threads run, with [`Event::Ready`] to follow.
///
/// # Errors
/// What the operator must know and do: a kernel too old, an address in use, a limit too low.
pub type Start = fn(Arc<Config>, Notifier) -> Result<Box<dyn DataPlane>, String>;

/// The index of the shard that a client identifier lives on, for this `node.hash_seed` and
/// `node.shards`.
pub fn home(config: &Config, client_id: &str) -> u16 {
    let (seed, shards) = (config.node.hash_seed, config.node.shards as usize);
    ringmain_shards::engine::Shard::home(client_id, seed, shards).0
}
