//! The layers of a connection, joined: PROXY header, then TLS, then WebSocket; each may be absent.
//! A connection of plain MQTT has no stack at all.
//!
//! ```text
//!  socket ─► PROXY ─► TLS ─► WebSocket ─► MQTT       received(): in place, at the front of the slice
//!  socket ◄────────── TLS ◄─ WebSocket ◄─ MQTT       seal():     appended
//! ```
//!
//! The handshakes have no deadline of their own: until [`Stack::is_open`], the time for CONNECT
//! runs (`mqtt.connect_timeout_ms`), and it is the caller's. So are the keep-alive's rules (S-90,
//! S-91): bytes of half a record, a ping of WebSocket or a key update are no packet, and only
//! [`Received::mqtt`] may lead to one.

use std::net::IpAddr;
use std::sync::Arc;

use crate::proxy::{self, HEADER_BYTES_MAX, Header, Parsed};
use crate::tls::{self, Identity, KEEP_BYTES_MAX, Tls, TlsContext};
use crate::ws::{self, Upgrade, Ws, WsConfig};

/// What a listener puts between the socket and MQTT.
#[derive(Clone, Debug, Default)]
pub struct Layers {
    /// The listener knows the PROXY protocol: who is in this list must use it.
    pub proxy: Option<Arc<proxy::Trusted>>,
    /// TLS.
    pub tls: Option<Arc<TlsContext>>,
    /// WebSocket.
    pub ws: Option<Arc<WsConfig>>,
}

/// The most that [`Received::keep`] asks for.
pub const STACK_KEEP_BYTES_MAX: usize = KEEP_BYTES_MAX;
const _: () = assert!(HEADER_BYTES_MAX <= STACK_KEEP_BYTES_MAX, "TLS keeps the most");

/// The layers of one connection. Lives on: the shard that has the connection, and moves with it.
pub struct Stack {
    /// Who the client is: the socket's peer, until a header or a proxy says otherwise.
    peer: IpAddr,
    proxy: Option<Proxy>,
    tls: Option<Box<Tls>>,
    ws: Option<Box<Ws>>,
    ended: bool,
}

/// The header is still to come.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Proxy {
    Expected,
    /// The sender is not trusted: its first bytes must not be a header.
    Forbidden,
}

/// What [`Stack::received`] found. Events come at most once each in the life of a connection.
#[derive(Debug, Default)]
pub struct Received {
    /// The first so many bytes of the slice are MQTT now.
    pub mqtt: usize,
    /// The last so many bytes of the slice are to be handed in again, as they are now, before what
    /// comes next; at most [`STACK_KEEP_BYTES_MAX`].
    pub keep: usize,
    /// What the PROXY header says.
    pub proxied: Option<Box<Header>>,
    /// The TLS handshake ended.
    pub secured: Option<Box<Secured>>,
    /// The WebSocket handshake ended.
    pub upgraded: Option<Box<Upgrade>>,
    /// The peer ends the connection in an orderly way: what came is whole, nothing more comes.
    pub peer_closed: bool,
}

/// A TLS handshake and who the client's certificate says it is.
#[derive(Debug)]
pub struct Secured {
    /// What was agreed on.
    pub handshake: tls::Handshake,
    /// None if the client sent no certificate.
    pub identity: Option<Identity>,
}

/// Why a connection is over. Send what was appended to the output, then close.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct End {
    /// Which layer ended it, to count by.
    pub cause: Cause,
    /// One sentence for the log.
    pub sentence: String,
}

/// Which layer ended a connection, and how.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Cause {
    /// A PROXY header that is wrong, missing, or not wanted.
    Proxy,
    /// TLS.
    Tls(tls::FailureKind),
    /// WebSocket.
    Ws(ws::FailureKind),
}

/// How we end a connection, in the words of WebSocket (RFC 6455, section 7.4.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Closing {
    /// All is done: 1000.
    Normal,
    /// The node goes down: 1001.
    GoingAway,
    /// The client broke the protocol of MQTT: 1002.
    ProtocolError,
    /// The client broke a rule of this node: 1008.
    Policy,
}

impl From<tls::Failure> for End {
    fn from(failure: tls::Failure) -> End {
        End { cause: Cause::Tls(failure.kind), sentence: failure.sentence }
    }
}

impl From<ws::Failure> for End {
    fn from(failure: ws::Failure) -> End {
        End { cause: Cause::Ws(failure.kind), sentence: failure.sentence }
    }
}

impl From<proxy::Refused> for End {
    fn from(refused: proxy::Refused) -> End {
        End { cause: Cause::Proxy, sentence: refused.sentence }
    }
}

impl Stack {
    /// The layers of a connection from `peer`; none if it is plain MQTT from the first byte on.
    ///
    /// # Errors
    /// When TLS cannot start.
    pub fn new(layers: &Layers, peer: IpAddr) -> Result<Option<Stack>, End> {
        let proxy = layers.proxy.as_ref().map(|trusted| {
            if trusted.must_send(peer) { Proxy::Expected } else { Proxy::Forbidden }
        });
        let tls = layers.tls.as_ref().map(Tls::new).transpose()?.map(Box::new);
        let ws = layers.ws.as_ref().map(|config| Box::new(Ws::new(config)));
        let stack = Stack { peer, proxy, tls, ws, ended: false };
        let is_plain = stack.proxy.is_none() && stack.tls.is_none() && stack.ws.is_none();
        Ok((!is_plain).then_some(stack))
    }

    /// Takes `bytes` (what was kept, and what came) at the time `now_s`, seconds since 1970; leaves
    /// MQTT at their front, and appends to `out` what is to be sent.
    ///
    /// # Errors
    /// When the connection is over. MQTT that came before in this call is lost.
    pub fn received(
        &mut self,
        now_s: u64,
        bytes: &mut [u8],
        out: &mut Vec<u8>,
    ) -> Result<Received, End> {
        let result = self.layers(now_s, bytes, out);
        self.ended |= result.is_err();
        result
    }

    /// Appends the form in which `plain`, as if it were one piece, goes over the socket.
    ///
    /// # Errors
    /// Before [`Stack::is_open`] and after the end.
    pub fn seal(&mut self, plain: &[&[u8]], out: &mut Vec<u8>) -> Result<(), End> {
        let Some(ws) = &self.ws else { return self.send(plain, out) };
        if !ws.is_open() {
            let sentence = "write while the WebSocket is not open".to_owned();
            return Err(End { cause: Cause::Ws(ws::FailureKind::Over), sentence });
        }
        let len: usize = plain.iter().map(|piece| piece.len()).sum();
        if len == 0 {
            return Ok(());
        }
        let (head, head_len) = ws::frame_head(len);
        let mut pieces = Vec::with_capacity(1 + plain.len());
        pieces.push(&head[..head_len]);
        pieces.extend_from_slice(plain);
        self.send(&pieces, out)
    }

    /// Appends what ends the connection in an orderly way: a close frame, close_notify. Nothing can
    /// be sealed after it.
    pub fn close(&mut self, closing: Closing, out: &mut Vec<u8>) {
        let mut frame = Vec::new();
        if let Some(ws) = &mut self.ws {
            ws.close(closing.code(), &mut frame);
        }
        if !frame.is_empty() {
            // TLS that cannot send has nothing to say goodbye with either.
            let _ = self.send(&[&frame], out);
        }
        if let Some(tls) = &mut self.tls {
            tls.close(out);
        }
    }

    /// Whether all handshakes are done: MQTT may come and go.
    pub fn is_open(&self) -> bool {
        !self.ended
            && self.proxy.is_none()
            && self.tls.as_ref().is_none_or(|tls| tls.is_open())
            && self.ws.as_ref().is_none_or(|ws| ws.is_open())
    }

    /// Whether a trusted proxy is yet to say whose connection it is.
    pub fn awaits_proxy(&self) -> bool {
        matches!(self.proxy, Some(Proxy::Expected))
    }

    /// Whether nothing is left to do: bytes are MQTT as they are, and the stack can go.
    pub fn is_spent(&self) -> bool {
        self.proxy.is_none() && self.tls.is_none() && self.ws.is_none()
    }

    /// The address of the client, as far as it is known: of the socket, of the PROXY header, of the
    /// proxy in front of the WebSocket.
    pub fn peer(&self) -> IpAddr {
        self.peer
    }

    fn layers(&mut self, now_s: u64, bytes: &mut [u8], out: &mut Vec<u8>) -> Result<Received, End> {
        let mut received = Received::default();
        let Some(header_len) = self.header(bytes, &mut received)? else {
            received.keep = bytes.len();
            return Ok(received);
        };
        // What follows moves to the front, where MQTT has to be.
        bytes.copy_within(header_len.., 0);
        let came = bytes.len() - header_len;
        let mut plain = came;
        if let Some(tls) = &mut self.tls {
            let progress = tls.read(now_s, &mut bytes[..came], out)?;
            plain = progress.plain;
            received.peer_closed = progress.peer_closed;
            if progress.opened {
                received.secured = secured(tls)?.map(Box::new);
            }
            // What is kept belongs to the end of the slice.
            received.keep = progress.keep;
            bytes.copy_within(came - progress.keep..came, bytes.len() - progress.keep);
        }
        received.mqtt = plain;
        if self.ws.is_some() {
            self.unframe(&mut bytes[..plain], &mut received, out)?;
        }
        Ok(received)
    }

    /// The PROXY header: its length, 0 where there is none, `None` while it is not whole.
    fn header(&mut self, bytes: &[u8], received: &mut Received) -> Result<Option<usize>, End> {
        match self.proxy {
            None => Ok(Some(0)),
            Some(Proxy::Forbidden) => {
                proxy::refuse_untrusted(bytes, self.peer)?;
                // The least that tells a header from what a client may say is its first six bytes;
                // no client's first packet is shorter than them.
                if proxy::may_become_proxy(bytes) {
                    return Ok(None);
                }
                self.proxy = None;
                Ok(Some(0))
            }
            Some(Proxy::Expected) => match proxy::parse(bytes)? {
                Parsed::Partial => Ok(None),
                Parsed::Whole { len, header } => {
                    self.proxy = None;
                    if let Some(source) = header.source {
                        self.peer = source.ip();
                    }
                    received.proxied = Some(header);
                    Ok(Some(len))
                }
            },
        }
    }

    fn unframe(
        &mut self,
        bytes: &mut [u8],
        received: &mut Received,
        out: &mut Vec<u8>,
    ) -> Result<(), End> {
        let Some(ws) = &mut self.ws else { return Ok(()) };
        let mut answers = Vec::new();
        let result = ws.read(self.peer, bytes, &mut answers);
        if !answers.is_empty() {
            let sent = self.send(&[&answers], out);
            // The failure of the peer is what the log should name, not that it has gone meanwhile.
            if result.is_ok() {
                sent?;
            }
        }
        let progress = match result {
            Ok(progress) => progress,
            Err(failure) => {
                if let Some(tls) = &mut self.tls {
                    tls.close(out);
                }
                return Err(failure.into());
            }
        };
        received.mqtt = progress.plain;
        received.peer_closed |= progress.peer_closed;
        if let Some(address) = progress.opened.as_ref().and_then(|opened| opened.forwarded_for) {
            self.peer = address;
        }
        received.upgraded = progress.opened;
        Ok(())
    }

    /// Below WebSocket: through TLS, if there is any.
    fn send(&mut self, plain: &[&[u8]], out: &mut Vec<u8>) -> Result<(), End> {
        match &mut self.tls {
            Some(tls) => tls.write(plain, out)?,
            None => plain.iter().for_each(|piece| out.extend_from_slice(piece)),
        }
        Ok(())
    }
}

impl Closing {
    fn code(self) -> u16 {
        match self {
            Closing::Normal => 1000,
            Closing::GoingAway => 1001,
            Closing::ProtocolError => 1002,
            Closing::Policy => 1008,
        }
    }
}

fn secured(tls: &Tls) -> Result<Option<Secured>, End> {
    let identity = tls.peer_identity().map_err(|sentence| End {
        cause: Cause::Tls(tls::FailureKind::ClientCertificate),
        sentence,
    })?;
    Ok(tls.handshake().map(|handshake| Secured { handshake, identity }))
}
