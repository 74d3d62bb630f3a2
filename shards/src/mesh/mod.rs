//! Lock-free mail between the shards of a node.
//!
//! ```text
//!   shard A                                     shard B
//!   Effects::mail ─► Lanes ──one batch a turn──► Mailbox (one bounded queue) ─► Input::Mail
//!                      │ outbox when full          ▲
//!                      └─ one wake, if B sleeps ───┘  MSG_RING to B's ring, or its eventfd
//! ```
//!
//! One queue per receiver, not one per pair: so what was sent after something else arrives after
//! it, whoever the senders are.

mod lanes;
mod mailbox;
mod sleep;

pub use lanes::{LaneCounts, Lanes};
pub use mailbox::{Carried, Delivery, Mailbox};
pub use sleep::{FlagAtomic, SleepFlag};
