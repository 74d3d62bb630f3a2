//! What coordinator and agent say: frames of a length and JSON.

use std::io::{self, Read, Write};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::account::WorkerResult;
use crate::plan::Plan;
use crate::report::Report;
use crate::snapshot::Snapshot;

/// Version of what is said; both sides must have the same.
pub(super) const PROTOCOL: u32 = 1;
/// Bytes of a frame at most: the results of a million checked flows have about a hundred MB. A peer
/// that is not ours (HTTP, TLS) names more in its first four bytes, and is refused by it.
pub(super) const FRAME_MAX: u32 = 512 << 20;
/// Bytes of a frame before the peer has shown the secret.
pub(super) const HELLO_MAX: u32 = 4096;

/// From the coordinator.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum ToAgent {
    /// First of all.
    Hello { protocol: u32, token: String },
    /// What time is it?
    Ping { number: u32 },
    /// The agent's part of the run, and how far its clock is ahead of the coordinator's.
    Plan { plan: Box<Plan>, clock_ahead_ns: i64 },
    /// Begin this stage. The first one begins at a time of the agent's clock.
    Go { stage: usize, at_ns: u64 },
    /// End the run in good order.
    Stop,
}

/// From an agent.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum FromAgent {
    /// The secret was right.
    Welcome { version: String, kernel: String, cpu: String },
    /// It was not, or something else is wrong.
    Refused { why: String },
    /// What the agent's clock said.
    Pong { number: u32, at_ns: u64 },
    /// The plan can be run.
    Ready,
    /// A look at the run.
    Look(Box<Snapshot>),
    /// A stage has ended; the next one waits for [`ToAgent::Go`].
    Ended { stage: usize },
    /// The run is over.
    Done { report: Box<Report>, results: Vec<WorkerResult> },
}

/// Sends a message.
///
/// # Errors
/// Of the connection, or when the message is larger than a frame.
pub(super) fn send(to: &mut impl Write, message: &impl Serialize) -> io::Result<()> {
    let body = serde_json::to_vec(message)?;
    let len = u32::try_from(body.len()).ok().filter(|len| *len <= FRAME_MAX);
    let len = len.ok_or_else(|| io::Error::other(format!("a message of {} bytes", body.len())))?;
    let mut frame = Vec::with_capacity(body.len() + 4);
    frame.extend_from_slice(&len.to_be_bytes());
    frame.extend_from_slice(&body);
    to.write_all(&frame)?;
    to.flush()
}

/// Receives a message of at most `max` bytes.
///
/// # Errors
/// Of the connection, or when the peer says something else.
pub(super) fn receive<T: DeserializeOwned>(from: &mut impl Read, max: u32) -> io::Result<T> {
    let mut len = [0; 4];
    from.read_exact(&mut len)?;
    let len = u32::from_be_bytes(len);
    if len > max {
        let what = format!("a frame of {len} bytes: this is no ringmain-load");
        return Err(io::Error::new(io::ErrorKind::InvalidData, what));
    }
    // What is not there is not allocated for.
    let mut body = Vec::new();
    from.take(u64::from(len)).read_to_end(&mut body)?;
    if body.len() < len as usize {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok(serde_json::from_slice(&body)?)
}

/// Compares two secrets in a time that does not depend on where they differ.
pub(super) fn same_secret(a: &str, b: &str) -> bool {
    let (a, b) = (a.as_bytes(), b.as_bytes());
    let differ = a.iter().zip(b).fold(0, |sum, (x, y)| sum | (x ^ y));
    a.len() == b.len() && differ == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_survives_its_frame() {
        let mut bytes = Vec::new();
        send(&mut bytes, &ToAgent::Go { stage: 3, at_ns: 17 }).unwrap();
        let back: ToAgent = receive(&mut bytes.as_slice(), FRAME_MAX).unwrap();
        assert!(matches!(back, ToAgent::Go { stage: 3, at_ns: 17 }));
    }

    #[test]
    fn a_frame_beyond_its_bound_a_torn_one_and_another_protocol_are_refused() {
        let mut bytes = Vec::new();
        send(&mut bytes, &ToAgent::Stop).unwrap();
        assert!(receive::<ToAgent>(&mut bytes.as_slice(), 3).is_err());
        assert!(receive::<ToAgent>(&mut &bytes[..bytes.len() - 1], FRAME_MAX).is_err());
        let http = receive::<ToAgent>(&mut &b"GET / HTTP/1.1\r\n\r\n"[..], FRAME_MAX).unwrap_err();
        assert!(http.to_string().contains("no ringmain-load"));
    }

    #[test]
    fn secrets_are_the_same_only_when_they_are() {
        assert!(same_secret("", "") && same_secret("abc", "abc"));
        assert!(!same_secret("abc", "abd") && !same_secret("abc", "ab") && !same_secret("", "a"));
    }
}
