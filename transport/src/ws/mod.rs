//! WebSocket, server side: RFC 6455 and MQTT 5 section 6. Row T11.
//!
//! MQTT is a stream of bytes to it: packets lie across frames as they like [MQTT-6.0.0-2], so
//! nothing waits for the end of a message, and an idle connection holds no buffer. There are no
//! extensions: permessage-deflate is declined by saying nothing (decision record 0024).

mod frame;
#[cfg(test)]
mod tests;
mod upgrade;

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use crate::hints;
use crate::proxy::Trusted;

use frame::Frames;
pub use frame::{FRAME_HEAD_BYTES_MAX, frame_head};
pub use upgrade::Upgrade;

/// The request line and headers of a handshake. Browsers with a full set of cookies stay below.
pub const HEAD_BYTES_MAX: usize = 8 * 1024;
/// Headers of a handshake; browsers send some fifteen, balancers add ten.
pub const HEADERS_MAX: usize = 64;

/// What an operator sets for WebSocket on a listener. Shared by all of its connections.
#[derive(Clone, Debug)]
pub struct WsConfig {
    /// The path, such as `/mqtt`; a query behind it does not matter.
    pub path: String,
    /// Web pages that may connect, such as `https://app.example`, scheme and port included; `None`
    /// is any. Who sends no `Origin` is no browser, and may.
    pub origins: Option<Vec<String>>,
    /// Whose `X-Forwarded-For` is believed.
    pub trusted_proxies: Trusted,
    /// Whether a client may leave out the subprotocol `mqtt`, which the specification demands
    /// [MQTT-6.0.0-3].
    pub subprotocol_optional: bool,
    /// Payload of one frame, in bytes.
    pub frame_bytes_max: u64,
    /// Payload of all frames of a message, in bytes. It takes no memory; it bounds what a client
    /// may leave unfinished.
    pub message_bytes_max: u64,
}

impl Default for WsConfig {
    fn default() -> WsConfig {
        WsConfig {
            path: "/mqtt".to_owned(),
            origins: None,
            trusted_proxies: Trusted::default(),
            subprotocol_optional: false,
            frame_bytes_max: 16 << 20,
            message_bytes_max: 64 << 20,
        }
    }
}

/// One WebSocket of a client. Lives on: the shard that has the connection, and moves with it.
#[derive(Debug)]
pub struct Ws {
    state: State,
}

#[derive(Debug)]
enum State {
    /// Holds what came of the head.
    Upgrade(Box<(Arc<WsConfig>, Vec<u8>)>),
    Open(Frames),
    Failed,
}

/// What [`Ws::read`] did with the bytes, all of which it took.
#[derive(Debug, Default)]
pub struct Progress {
    /// The first so many bytes of the slice are MQTT now.
    pub plain: usize,
    /// The handshake ended in this call.
    pub opened: Option<Box<Upgrade>>,
    /// The client closed; the answer is in the output. Nothing more will come.
    pub peer_closed: bool,
}

/// A WebSocket that is over. The answer for the peer is in the output: send it, then close.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// What counts it.
    pub kind: FailureKind,
    /// One sentence for the log.
    pub sentence: String,
}

/// Kinds of failures, with what the peer was told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum FailureKind {
    /// The handshake was answered with this HTTP status.
    Status(u16),
    /// The connection was closed with this code, RFC 6455 section 7.4.1.
    Close(u16),
    /// It is over already.
    Over,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.sentence)
    }
}

impl std::error::Error for Failure {}

impl Ws {
    /// A connection that waits for its handshake.
    pub fn new(config: &Arc<WsConfig>) -> Ws {
        Ws { state: State::Upgrade(Box::new((Arc::clone(config), Vec::new()))) }
    }

    /// Takes `bytes`, leaves MQTT at their front, and appends to `out` what is to be sent: the
    /// answer to the handshake, pongs, the close frame. `peer` is who the socket is from, or who a
    /// PROXY header says.
    ///
    /// # Errors
    /// When the connection is over. MQTT that came before in this call is lost.
    pub fn read(
        &mut self,
        peer: IpAddr,
        bytes: &mut [u8],
        out: &mut Vec<u8>,
    ) -> Result<Progress, Failure> {
        let result = match &mut self.state {
            State::Upgrade(_) => self.handshake(peer, bytes, out),
            State::Open(frames) => frames.read(bytes, 0, out),
            State::Failed => Err(Failure {
                kind: FailureKind::Over,
                sentence: "read after the WebSocket failed".to_owned(),
            }),
        };
        if result.is_err() {
            self.state = State::Failed;
        }
        result
    }

    /// Appends `plain`, as if it were one piece, to `out` as one binary frame [MQTT-6.0.0-1].
    /// Nothing is appended for nothing, nor before the handshake ended or after the end.
    pub fn write(&self, plain: &[&[u8]], out: &mut Vec<u8>) {
        let len: usize = plain.iter().map(|piece| piece.len()).sum();
        if len == 0 || !self.is_open() {
            return;
        }
        let (head, head_len) = frame_head(len);
        out.extend_from_slice(&head[..head_len]);
        for piece in plain {
            out.extend_from_slice(piece);
        }
    }

    /// Appends a close frame with this code, RFC 6455 section 7.4.1; nothing is written after it,
    /// and what the client still sends is thrown away until it closes too.
    pub fn close(&mut self, code: u16, out: &mut Vec<u8>) {
        if let State::Open(frames) = &mut self.state {
            frames.close(code, out);
        }
    }

    /// Whether MQTT can be written.
    pub fn is_open(&self) -> bool {
        matches!(&self.state, State::Open(frames) if !frames.is_closing())
    }

    fn handshake(
        &mut self,
        peer: IpAddr,
        bytes: &mut [u8],
        out: &mut Vec<u8>,
    ) -> Result<Progress, Failure> {
        let State::Upgrade(waiting) = &mut self.state else { unreachable!("asked before") };
        let (config, head) = &mut **waiting;
        let before = head.len();
        let room = HEAD_BYTES_MAX - before;
        head.extend_from_slice(&bytes[..bytes.len().min(room)]);
        if head.first().is_some_and(|byte| !byte.is_ascii_uppercase()) {
            return Err(upgrade::refuse(400, hints::on_websocket_port(head), out));
        }
        let searched = before.saturating_sub(3);
        let Some(end) = head[searched..].windows(4).position(|four| four == b"\r\n\r\n") else {
            if head.len() == HEAD_BYTES_MAX {
                let sentence = "the head of the WebSocket handshake has more than 8 KiB";
                return Err(upgrade::refuse(431, sentence, out));
            }
            return Ok(Progress::default());
        };
        let end = searched + end + 4;
        let upgrade = upgrade::answer(&head[..end], config, peer, out)?;
        let mut frames = Frames::new(config.frame_bytes_max, config.message_bytes_max);
        // A client that did not wait for the answer.
        let progress = frames.read(bytes, end - before, out)?;
        self.state = State::Open(frames);
        Ok(Progress { opened: Some(Box::new(upgrade)), ..progress })
    }
}
