//! The file of bans, read whenever it has changed.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ringmain_acl::BanTable;

use super::stamp::{Stamp, stamp};
use crate::bans;

/// Time between two looks at the file.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Lives on: the watcher's thread.
pub(super) struct BanFile {
    path: PathBuf,
    seen: Stamp,
    look_at: Instant,
}

impl BanFile {
    /// The file and its bans.
    ///
    /// # Errors
    /// All that is wrong with it, a sentence each.
    pub(super) fn open(path: PathBuf) -> Result<(Self, Arc<BanTable>), Vec<String>> {
        let seen = stamp(&path);
        let bans = bans::read(&path)?;
        Ok((Self { path, seen, look_at: Instant::now() }, Arc::new(bans)))
    }

    /// The bans, if the file has changed. What is wrong with it is logged, and the bans before stay.
    pub(super) fn look(&mut self, now: Instant) -> Option<Arc<BanTable>> {
        if now < self.look_at {
            return None;
        }
        self.look_at = now + LOOK_EVERY;
        let stamp = stamp(&self.path);
        if stamp == self.seen {
            return None;
        }
        self.seen = stamp;
        match bans::read(&self.path) {
            Ok(bans) => {
                tracing::info!(bans = bans.len(), file = %self.path.display(), "other bans hold");
                Some(Arc::new(bans))
            }
            Err(errors) => {
                errors.iter().for_each(|error| tracing::error!("{error}"));
                tracing::error!("the bans stay as they were: the file has errors");
                None
            }
        }
    }
}
