//! Logs on stderr, as text or JSON, with a level that a reload can change. A thread of its own writes them: whoever
//! reads stderr may be slow, or stuck, and nothing of the broker waits for that.

use std::fmt;
use std::io::Write;

use tracing_appender::non_blocking::{NonBlocking, NonBlockingBuilder, WorkerGuard};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Registry, fmt as format, reload};

use crate::config::{Log, LogFilter, LogFormat};

/// Lines that wait for stderr. Beyond them lines are lost, and counted.
const LINES_MAX: usize = 8192;

/// The log of this process. Dropping it writes what waits, for about a second at most.
pub struct Logging {
    filter: Option<reload::Handle<EnvFilter, Registry>>,
    format: LogFormat,
    stderr: NonBlocking,
    _writer: WorkerGuard,
}

/// Starts logging. In a process that logs already (a test), that log stays.
pub fn init(log: &Log) -> Logging {
    let (filter, handle) = reload::Layer::new(env_filter(&log.level));
    let registry = tracing_subscriber::registry().with(filter);
    let (stderr, writer) = NonBlockingBuilder::default()
        .buffered_lines_limit(LINES_MAX)
        .lossy(true)
        .thread_name("ringmain-log")
        .finish(std::io::stderr());
    let started = match log.format {
        LogFormat::Text => {
            let layer = format::layer().with_writer(stderr.clone());
            registry.with(layer.with_ansi(is_terminal())).try_init()
        }
        LogFormat::Json => {
            let layer = format::layer().json().with_writer(stderr.clone());
            registry.with(layer.flatten_event(true).with_current_span(false)).try_init()
        }
    };
    let filter = started.ok().map(|()| handle);
    Logging { filter, format: log.format, stderr, _writer: writer }
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
        // Behind the lines that say where they can connect. Nobody may read it; clients can connect all the same.
        let _ = self.stderr.clone().write_all(line.as_bytes());
    }

    /// Lines that nobody could read, since stderr did not take them in time.
    pub fn lost(&self) -> usize {
        self.stderr.error_counter().dropped_lines()
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
