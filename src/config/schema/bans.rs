//! `[bans]`: clients that may not come.

use std::path::PathBuf;

use crate::config::section::section;

section! {
    /// Clients that may not come: those of a file, which `ringmain ban` changes, and those that come and go too
    /// often. A CONNECT gets 0x8A (in v3.1.1: 0x05), a live client DISCONNECT 0x98.
    pub struct Bans {
        /// Where the file of bans is: CSV with the columns kind, value, until and reason. Relative paths start at node.data_dir.
        /// It need not exist. The broker reads it within two seconds after it has changed.
        path: PathBuf = PathBuf::from("bans.csv"), Restart;
        /// Ends of connections of one client within flapping_window_s after which it is banned. 0: never.
        flapping_max_count: u32 = 0, [0..=1_000_000], Live;
        /// Time in which they are counted.
        flapping_window_s: u32 = 60, [1..=86_400], Live;
        /// How long such a client is banned.
        flapping_ban_s: u32 = 300, [1..=31_536_000], Live;
    }
}
