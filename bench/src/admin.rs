//! Asks Ringmain how it is, over its admin socket.

use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::thread::sleep;
use std::time::{Duration, Instant};

use serde_json::Value;

/// An answer may take this long before the benchmark gives up.
const ANSWER_MAX: Duration = Duration::from_secs(10);
/// Between two looks at something that is waited for.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// Scrapes of the metrics.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Scrapes {
    count: u32,
    sum_ms: f64,
    sum_kib: f64,
    /// The longest took so long, ms.
    pub(crate) longest_ms: f64,
}

impl Scrapes {
    /// One more.
    ///
    /// # Errors
    /// When the broker does not answer.
    pub(crate) fn scrape(&mut self, socket: &Path) -> io::Result<()> {
        let begun = Instant::now();
        let page = get(socket, "/metrics")?;
        let ms = begun.elapsed().as_secs_f64() * 1000.0;
        self.count += 1;
        self.sum_ms += ms;
        self.longest_ms = self.longest_ms.max(ms);
        self.sum_kib += page.len() as f64 / 1024.0;
        Ok(())
    }

    pub(crate) fn add(&mut self, other: Self) {
        self.count += other.count;
        self.sum_ms += other.sum_ms;
        self.sum_kib += other.sum_kib;
        self.longest_ms = self.longest_ms.max(other.longest_ms);
    }

    /// NaN without any.
    pub(crate) fn mean_ms(self) -> f64 {
        self.sum_ms / f64::from(self.count)
    }

    /// NaN without any.
    pub(crate) fn mean_kib(self) -> f64 {
        self.sum_kib / f64::from(self.count)
    }
}

/// Waits until so many are connected.
///
/// # Errors
/// When they are not in time.
pub(crate) fn wait_for(socket: &Path, connections: u32, most: Duration) -> io::Result<()> {
    let until = Instant::now() + most;
    loop {
        // It may not have begun to listen.
        if node(socket).is_ok_and(|node| connected(&node) >= u64::from(connections)) {
            return Ok(());
        }
        if Instant::now() > until {
            return Err(io::Error::other(format!(
                "{connections} were not connected in {} s",
                most.as_secs()
            )));
        }
        sleep(LOOK_EVERY);
    }
}

/// The longest turn of all shards since this was asked before, µs.
///
/// # Errors
/// When the broker does not answer.
pub(crate) fn longest_turn_us(socket: &Path) -> io::Result<f64> {
    let node = node(socket)?;
    let ns = shards(&node).filter_map(|shard| shard["times"]["longest_turn_ns"].as_u64());
    Ok(ns.max().unwrap_or(0) as f64 / 1000.0)
}

fn connected(node: &Value) -> u64 {
    shards(node).filter_map(|shard| shard["gauges"]["connections"].as_u64()).sum()
}

fn shards(node: &Value) -> impl Iterator<Item = &Value> {
    node["shards"].as_array().into_iter().flatten()
}

fn node(socket: &Path) -> io::Result<Value> {
    Ok(serde_json::from_str(&get(socket, "/v1/node")?)?)
}

/// The body of an answer.
fn get(socket: &Path, path: &str) -> io::Result<String> {
    let mut stream = UnixStream::connect(socket)?;
    stream.set_read_timeout(Some(ANSWER_MAX))?;
    write!(stream, "GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    match answer.split_once("\r\n\r\n") {
        Some((head, body)) if head.starts_with("HTTP/1.1 200 ") => Ok(body.to_owned()),
        _ => Err(io::Error::other(format!("{path}: {}", answer.lines().next().unwrap_or("")))),
    }
}
