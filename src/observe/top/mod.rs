//! `ringmain top`: what the shards of a running broker do, as a screen, lines or JSON.

mod draw;
mod lines;
mod rates;
mod screen;

use std::io::IsTerminal;
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use ringmain_control::api::{Node, Slow};
use ringmain_control::client::{Client, ClientError};

use super::{fail, say, say_json};
use rates::Seen;

/// Clients and topics that are asked for.
const SLOWEST: usize = 20;

/// Options of `ringmain top`.
#[derive(Debug, Args)]
pub(crate) struct Top {
    /// Time between two looks; rates and shares are of that time
    #[arg(long, value_name = "SECONDS", default_value = "1", value_parser = interval)]
    interval: Duration,
    /// Look once (twice, that is, since rates need two looks), print that, and end
    #[arg(long)]
    once: bool,
    /// Print JSON, one document a line
    #[arg(long)]
    json: bool,
}

fn interval(text: &str) -> Result<Duration, String> {
    let seconds: f64 = text.parse().map_err(|_| "it is a number of seconds, such as 0.5")?;
    if (0.1..=3600.0).contains(&seconds) {
        Ok(Duration::from_secs_f64(seconds))
    } else {
        Err("it is 0.1 to 3600".to_owned())
    }
}

/// What one look finds.
#[derive(Debug)]
struct Look {
    node: Node,
    slow: Slow,
}

impl Look {
    fn at(client: &Client) -> Result<Self, ClientError> {
        let node = client.get("/v1/node?buckets=1")?;
        Ok(Self { node, slow: client.get(&format!("/v1/slow?n={SLOWEST}"))? })
    }

    /// Whether it is another answer: the broker gives the same again to who asks within a quarter of a second, and while
    /// it records turns.
    fn is_news_after(&self, before: &Self) -> bool {
        (self.node.pid, self.node.uptime_ms) != (before.node.pid, before.node.uptime_ms)
    }
}

/// Runs it.
pub(crate) fn run(client: &Client, options: &Top) -> ExitCode {
    let terminal = std::io::stdout().is_terminal() && std::io::stdin().is_terminal();
    let done = if terminal && !options.once && !options.json {
        screen::run(client, options.interval).map_err(|why| why.to_string())
    } else {
        print(client, options).map_err(|why| why.to_string())
    };
    done.map_or_else(|why| fail("top", why), |()| ExitCode::SUCCESS)
}

/// One document, or page of text, for each interval, until nobody reads them.
fn print(client: &Client, options: &Top) -> Result<(), ClientError> {
    let mut before = Look::at(client)?;
    loop {
        std::thread::sleep(options.interval);
        let now = Look::at(client)?;
        if !now.is_news_after(&before) {
            continue;
        }
        let seen = Seen::between(&before.node, &now.node, &now.slow);
        let read = match (options.json, options.once) {
            (true, _) => say_json(&seen),
            (false, true) => say(&lines::page(&seen)),
            (false, false) => say(&lines::line(&seen)),
        };
        if options.once || !read {
            return Ok(());
        }
        before = now;
    }
}
