//! `[node]`, `[log]` and `[sys]`: the process and what it says about itself.

use std::path::PathBuf;

use tracing_subscriber::EnvFilter;

use crate::config::field::{Bounds, Field, Kind, Problem, choice};
use crate::config::raw::{Raw, RawValue, quote};
use crate::config::section::section;

section! {
    /// The process: its name, where its data lives, the cores it uses.
    pub struct Node {
        /// Name of this node, as `$SYS/brokers/<name>/...` shows it. Without `/`, `+` or `#`.
        name: String = "ringmain@127.0.0.1".to_owned(), [1..=255], Restart;
        /// Directory for everything the broker keeps. Relative paths start at the working
        /// directory. Created when it is not there, for the broker's user alone.
        data_dir: PathBuf = PathBuf::from("ringmain-data"), Restart;
        /// Number of shards. Each takes one core. 0: one for each core that the process may use.
        shards: u32 = 0, [0..=256], Restart;
        /// Seed of the hash that picks the home shard of a client identifier. 0: a random one at
        /// each start. Whoever knows it can choose identifiers that all fall on one shard.
        hash_seed: u64 = 0, [0..=9_223_372_036_854_775_807], Restart;
        /// Whether each shard stays on its own core. Off helps where cores are shared with other
        /// busy processes and costs latency elsewhere.
        pin_cores: bool = true, Restart;
        /// Time from SIGTERM or SIGINT until the process ends even if clients have not taken
        /// what is queued for them.
        shutdown_grace_ms: u64 = 10_000, [0..=600_000], Live;
    }
}

section! {
    /// Logs, written to stderr.
    pub struct Log {
        /// What is logged: error, warn, info, debug, trace or off; or a list of
        /// target=level such as "info,ringmain_shards=debug".
        level: LogFilter = LogFilter::default(), Live;
        /// "text" for people, "json" for machines: one object a line.
        format: LogFormat = LogFormat::Text, Restart;
    }
}

section! {
    /// Topics below `$SYS`.
    pub struct Sys {
        /// Time between publications of metrics and statistics. 0: none.
        interval_s: u32 = 60, [0..=86_400], Live;
        /// Time between publications of uptime and date. 0: none.
        heartbeat_s: u32 = 30, [0..=86_400], Live;
        /// Whether `clients/<id>/connected`, `disconnected` and their kin are published.
        client_events: bool = true, Live;
        /// Additional forms of the same topics. "v4_dots": `stats/connections.count`.
        /// "faq_singular": `$SYS/broker/<node>/`, for the numbers of connections and sessions.
        compat: Vec<SysCompat> = Vec::new(), Live;
    }
}

choice! {
    /// Form of a log line.
    pub enum LogFormat {
        /// For people.
        Text = "text",
        /// One JSON object a line.
        Json = "json",
    }
}

choice! {
    /// Additional `$SYS` topics.
    pub enum SysCompat {
        /// `stats/connections.count` beside `stats/connections/count`.
        V4Dots = "v4_dots",
        /// `$SYS/broker/<node>/` beside `$SYS/brokers/<node>/`.
        FaqSingular = "faq_singular",
    }
}

/// Which log lines are written. Always a filter that `tracing-subscriber` can parse.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogFilter(String);

impl LogFilter {
    /// The directives as written.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    fn parse(text: &str) -> Option<LogFilter> {
        // A lone word that is no level would be taken for the name of a target.
        const LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];
        let known = |part: &str| {
            let level = part.rsplit('=').next().unwrap_or(part).trim();
            LEVELS.contains(&level.to_ascii_lowercase().as_str())
        };
        let valid = text.split(',').all(known) && EnvFilter::try_new(text).is_ok();
        valid.then(|| LogFilter(text.to_owned()))
    }
}

impl Default for LogFilter {
    fn default() -> Self {
        LogFilter("info".to_owned())
    }
}

impl Field for LogFilter {
    const KIND: Kind = Kind::Text("a log level (off, error, warn, info, debug, trace)");

    fn read(raw: &Raw, _: Option<Bounds>) -> Result<Self, Vec<Problem>> {
        let RawValue::Text(text) = &raw.value else {
            let message = format!("expected {}, found {}", Self::KIND, raw.describe());
            return Err(vec![Problem::new(raw, message)]);
        };
        LogFilter::parse(text).ok_or_else(|| {
            let message = format!("expected {}, found {}", Self::KIND, raw.describe());
            vec![Problem::new(raw, message)]
        })
    }

    fn toml(&self) -> String {
        quote(&self.0)
    }
}
