//! What a shard knows about its own work: times by stage, turns, followed messages.

mod recorder;
mod report;
mod sample;
mod stage;
mod view;

pub use recorder::{
    Between, Delay, DriverMemory, Followed, Journey, Observed, Recorder, Recording, TurnCounts,
};
pub use report::{LoopTimes, MemoryUse, Report, Trace};
pub use stage::{Histograms, PerTurn, Stage};
pub use view::{
    ANSWER_WITHIN_MS, CertificateView, NodeView, Question, ShardView, TURNS_MAX, TURNS_MS_MAX,
    ThreadTimes, Totals, TurnSpan,
};
