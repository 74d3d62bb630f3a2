//! Logs on stderr, as text or JSON, with a level that a reload can change.

use std::fmt;
use std::io::Write;

use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Registry, fmt as format, reload};

use crate::config::{Log, LogFilter, LogFormat};

/// The log of this process.
pub struct Logging {
    filter: Option<reload::Handle<EnvFilter, Registry>>,
    format: LogFormat,
}

/// Starts logging. In a process that logs already (a test), that log stays.
pub fn init(log: &Log) -> Logging {
    let (filter, handle) = reload::Layer::new(env_filter(&log.level));
    let registry = tracing_subscriber::registry().with(filter);
    let started = match log.format {
        LogFormat::Text => {
            let layer = format::layer().with_writer(std::io::stderr);
            registry.with(layer.with_ansi(is_terminal())).try_init()
        }
        LogFormat::Json => {
            let layer = format::layer().json().with_writer(std::io::stderr);
            registry.with(layer.flatten_event(true).with_current_span(false)).try_init()
        }
    };
    Logging { filter: started.ok().map(|()| handle), format: log.format }
}

impl Logging {
    /// Changes what is logged.
    pub fn set_level(&self, level: &LogFilter) {
        let result = self.filter.as_ref().map(|handle| handle.reload(env_filter(level)));
        if let Some(Err(error)) = result {
            tracing::error!(%error, "the log level stays as it was");
        }
    }

    /// Says, whatever the level, that clients can connect: a line that is just `ready`, or in JSON
    /// an object with that message. Whoever started the process waits for it.
    pub fn ready(&self) {
        let line = match self.format {
            LogFormat::Text => "ready\n",
            LogFormat::Json => {
                "{\"level\":\"INFO\",\"message\":\"ready\",\"target\":\"ringmain\"}\n"
            }
        };
        // Nobody may read stderr; clients can connect all the same.
        let _ = std::io::stderr().write_all(line.as_bytes());
    }
}

impl fmt::Debug for Logging {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Logging").field("format", &self.format).finish_non_exhaustive()
    }
}

fn env_filter(level: &LogFilter) -> EnvFilter {
    EnvFilter::new(level.as_str())
}

fn is_terminal() -> bool {
    std::io::IsTerminal::is_terminal(&std::io::stderr())
}
