//! `[observe]`: the notes that shards take about their own work.

use crate::config::field::choice;
use crate::config::section::section;

section! {
    /// What the broker notes about its own work: times by stage, slow messages, stalls.
    pub struct Observe {
        /// Whether shards take notes. They cost about one percent of a busy core; without them
        /// `ringmain top`, `explain-slow` and the histograms of the metrics say nothing.
        enabled: bool = true, Restart;
        /// A shard whose turn takes longer is reported as stalled, with what it is doing: once
        /// in ten seconds. 0: never.
        stall_ms: u32 = 200, [0..=60_000], Restart;
        /// For testing the tools: messages take longer in this stage. Never set it otherwise.
        delay_stage: DelayStage = DelayStage::None, Restart;
        /// By how much.
        delay_us: u32 = 0, [0..=1_000_000], Restart;
    }
}

choice! {
    /// A stage that can be made slow.
    pub enum DelayStage {
        /// None.
        None = "none",
        /// Before the next look at sockets.
        Arrival = "arrival",
        /// Before a message's turn.
        Turn = "turn",
        /// Decoding.
        Decode = "decode",
        /// Checks.
        Authorise = "authorise",
        /// Route lookup and matching.
        Route = "route",
        /// On the way to another shard.
        Crossing = "crossing",
        /// Before the send.
        Coalesce = "coalesce",
        /// During the send.
        Send = "send",
    }
}
