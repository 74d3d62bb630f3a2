//! TLS 1.2 and 1.3, server side, on rustls without its buffers. Rows T02 to T04, T06, T07, T09, T10, C18.
//!
//! [`TlsConfig`] names files; [`load::load`] makes a [`TlsContext`] of it, which all shards share
//! and which never changes; each connection has a [`Tls`]. A change of files or of the ticket key
//! makes another context, which new connections get.
//!
//! What there is not: early data (0-RTT; it may be replayed), renegotiation, compression, TLS 1.1
//! and older, and pre-shared keys (row T05): rustls has none of them.

mod call;
mod config;
mod context;
mod failure;
mod identity;
pub mod load;
mod names;
mod tickets;
mod verify;

use std::sync::Arc;

use rustls::pki_types::CertificateDer;
use rustls::server::UnbufferedServerConnection;
use rustls::unbuffered::{ConnectionState, EncodeError, EncryptError, UnbufferedStatus};
use rustls::{CipherSuite, HandshakeKind, ProtocolVersion};

use call::Call;

pub use config::{
    Alpn, CertificateFiles, ClientAuth, ClientVerification, CrlExpiry, CrlUnknown, TlsConfig,
    UnknownName, Version,
};
pub use context::{CertificateInfo, TlsContext};
pub use failure::{Failure, FailureKind};
pub use identity::{Identity, pem};
pub use tickets::{TICKET_KEY_ROTATION_S, TICKET_LIFETIME_S};

/// Plaintext of one record, RFC 8446 section 5.1.
const RECORD_BYTES_MAX: usize = 16 * 1024;
/// What a record adds: header 5, explicit nonce 8 (1.2), type 1 (1.3), tag 16; and room to spare
/// for a key update that rustls puts before.
const RECORD_OVERHEAD_MAX: usize = 64;
/// What [`Tls::read`] may ask its caller to keep: a record, or a flight of handshake messages that
/// are not whole yet. 32 KiB hold a dozen certificates of clients; a stranger gets no more.
pub const KEEP_BYTES_MAX: usize = 32 * 1024;
const _: () = assert!(KEEP_BYTES_MAX > RECORD_BYTES_MAX + 2048 + 5, "a record of TLS 1.2 fits");
/// Turns around rustls to say goodbye; it takes two.
const GOODBYE_TURNS_MAX: usize = 8;

/// One TLS connection of a client. Lives on: the shard that has the connection, and moves with it.
///
/// Holds no buffers: what is not a whole record yet is the caller's to keep. Idle, it takes some
/// 3.3 KB of memory, and a client's certificate (`tests/memory.rs`).
pub struct Tls {
    conn: Box<UnbufferedServerConnection>,
    context: Arc<TlsContext>,
    server_name: Option<Box<str>>,
    phase: Phase,
    peer_closed: bool,
    /// What the caller was asked to keep. rustls remembers places in it.
    kept: u32,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Phase {
    Handshake,
    Open,
    /// We said close_notify.
    Closed,
    Failed,
}

/// What [`Tls::read`] did with the bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// The first so many bytes of the slice are plaintext now.
    pub plain: usize,
    /// The last so many bytes of the slice belong before what comes next: hand them in again, as
    /// they are now (at most [`KEEP_BYTES_MAX`]).
    pub keep: usize,
    /// The handshake ended in this call: see [`Tls::handshake`].
    pub opened: bool,
    /// The peer said close_notify: nothing more will come, and what came is whole.
    pub peer_closed: bool,
}

/// What a finished handshake agreed on.
#[derive(Clone, Debug)]
pub struct Handshake {
    /// The client's certificates, its own first; empty if it sent none. Verified.
    pub peer_certificates: Vec<CertificateDer<'static>>,
    /// The server name that the client asked for (SNI), in lower case.
    pub server_name: Option<String>,
    /// The application protocol (ALPN).
    pub alpn: Option<Vec<u8>>,
    /// Whether a ticket saved the signatures.
    pub resumed: bool,
    /// 1.2 or 1.3.
    pub version: Version,
    /// The cipher suite by its IANA name.
    pub cipher_suite: &'static str,
}

impl Tls {
    /// A connection that waits for its ClientHello.
    ///
    /// # Errors
    /// When rustls cannot start; there is no known reason for it.
    pub fn new(context: &Arc<TlsContext>) -> Result<Tls, Failure> {
        let conn = UnbufferedServerConnection::new(Arc::clone(context.server()))
            .map_err(|error| Failure::of(&error, false, &[], None))?;
        Ok(Tls {
            conn: Box::new(conn),
            context: Arc::clone(context),
            server_name: None,
            phase: Phase::Handshake,
            peer_closed: false,
            kept: 0,
        })
    }

    /// Takes `incoming` (what was kept, and what came), leaves plaintext at its front, and appends
    /// to `out` what is to be sent: handshake messages, tickets, key updates, alerts.
    ///
    /// `now_s` is seconds since 1970; certificates and tickets are judged by it.
    ///
    /// # Errors
    /// When the connection is over. Plaintext that came before in this call is lost; an alert for
    /// the peer is in `out`.
    pub fn read(
        &mut self,
        now_s: u64,
        incoming: &mut [u8],
        out: &mut Vec<u8>,
    ) -> Result<Progress, Failure> {
        if self.phase == Phase::Failed {
            return Err(Failure::new(FailureKind::Internal, "read after TLS failed"));
        }
        assert!(incoming.len() >= self.kept as usize, "the caller lost bytes that it was to keep");
        let call = Call::at(now_s);
        let before = self.phase;
        let mut used = 0;
        let result = self.records(incoming, &mut used, out);
        if let Some(name) = call.take_server_name() {
            self.server_name = Some(name);
        }
        let unused = &mut incoming[used..];
        let plain = match result {
            Ok(plain) => plain,
            Err(error) => {
                self.phase = Phase::Failed;
                let no_name = self.server_name.as_deref().filter(|name| !self.context.knows(name));
                let handshaking = before == Phase::Handshake;
                let failure = Failure::of(&error.error, handshaking, &error.first, no_name);
                self.goodbye(unused, out);
                return Err(failure);
            }
        };
        let opened = before == Phase::Handshake && !self.conn.is_handshaking();
        if unused.len() > KEEP_BYTES_MAX {
            let sentence = "the client's handshake messages are larger than this listener takes: \
                            too many certificates?";
            return Err(self.fail(FailureKind::Protocol, sentence));
        }
        // rustls has seen a whole record that it does not let go: a part of a message. From here on
        // it is also called without these bytes (to write), and would look for them. Nothing that
        // a client has to say after the handshake needs two records.
        if !self.conn.is_handshaking() && is_whole_record(unused) {
            let sentence = "the client splits a message after the handshake over records";
            return Err(self.fail(FailureKind::Protocol, sentence));
        }
        if opened {
            self.phase = Phase::Open;
            self.still_valid(now_s, out)?;
        }
        let keep = unused.len();
        self.kept = keep as u32;
        Ok(Progress { plain, keep, opened, peer_closed: self.peer_closed })
    }

    /// Appends `plain`, as if it were one piece, to `out` in as few records as possible.
    ///
    /// # Errors
    /// Before the handshake ended and after the end of the connection, when nothing can be sent.
    pub fn write(&mut self, plain: &[&[u8]], out: &mut Vec<u8>) -> Result<(), Failure> {
        if self.phase != Phase::Open {
            return Err(Failure::new(FailureKind::Internal, "write while TLS is not open"));
        }
        if let [one] = plain {
            return self.seal(one, out);
        }
        // On the stack: a scratch per connection would be held by a million idle ones.
        let mut record = [0; RECORD_BYTES_MAX];
        let mut len = 0;
        for mut piece in plain.iter().copied() {
            while !piece.is_empty() {
                let (fits, rest) = piece.split_at(piece.len().min(RECORD_BYTES_MAX - len));
                record[len..len + fits.len()].copy_from_slice(fits);
                len += fits.len();
                piece = rest;
                if len == RECORD_BYTES_MAX {
                    self.seal(&record, out)?;
                    len = 0;
                }
            }
        }
        self.seal(&record[..len], out)
    }

    /// Appends close_notify to `out`; nothing can be written after it. Does nothing before the
    /// handshake ended, where closing the socket says as much.
    pub fn close(&mut self, out: &mut Vec<u8>) {
        if self.phase == Phase::Open {
            // Closing with exhausted keys: the peer sees an end without close_notify.
            let _ = self.with_traffic(out, |traffic, out| {
                append(out, RECORD_OVERHEAD_MAX, |room| traffic.queue_close_notify(room))
            });
            self.phase = Phase::Closed;
        }
    }

    /// New keys for what we send, and asks the client for new ones (TLS 1.3; RFC 8446, section
    /// 4.6.3). rustls does so itself before a key is used up.
    ///
    /// # Errors
    /// With TLS 1.2, and while the connection is not open.
    pub fn refresh_keys(&mut self, out: &mut Vec<u8>) -> Result<(), Failure> {
        if self.phase != Phase::Open {
            return Err(Failure::new(FailureKind::Internal, "new keys while TLS is not open"));
        }
        self.drain(out);
        let UnbufferedStatus { state, .. } = self.conn.process_tls_records(&mut []);
        let Ok(ConnectionState::WriteTraffic(traffic)) = state else {
            return Err(Failure::new(FailureKind::Internal, "rustls does not let us write"));
        };
        traffic
            .refresh_traffic_keys()
            .map_err(|error| Failure::new(FailureKind::Internal, error.to_string()))?;
        self.drain(out);
        Ok(())
    }

    /// What was agreed on; none while the handshake is under way.
    pub fn handshake(&self) -> Option<Handshake> {
        if self.phase == Phase::Handshake || self.conn.is_handshaking() {
            return None;
        }
        let suite = self.conn.negotiated_cipher_suite()?.suite();
        Some(Handshake {
            peer_certificates: self.conn.peer_certificates().unwrap_or_default().to_vec(),
            server_name: self.server_name.as_deref().map(str::to_owned),
            alpn: self.conn.alpn_protocol().map(<[u8]>::to_vec),
            resumed: self.conn.handshake_kind() == Some(HandshakeKind::Resumed),
            version: match self.conn.protocol_version()? {
                ProtocolVersion::TLSv1_2 => Version::V12,
                _ => Version::V13,
            },
            cipher_suite: iana_name(suite),
        })
    }

    /// Who the client's certificate says it is; none without one.
    ///
    /// # Errors
    /// A sentence, when the certificate cannot be read.
    pub fn peer_identity(&self) -> Result<Option<Identity>, String> {
        let own = self.conn.peer_certificates().and_then(|chain| chain.first());
        own.map(|certificate| Identity::of(certificate)).transpose()
    }

    /// Whether plaintext can be written.
    pub fn is_open(&self) -> bool {
        self.phase == Phase::Open
    }

    /// Goes through the records of `incoming`, of which it counts what is `used`: how much plaintext
    /// is at the front.
    fn records(
        &mut self,
        incoming: &mut [u8],
        used: &mut usize,
        out: &mut Vec<u8>,
    ) -> Result<usize, Broken> {
        let mut plain = 0;
        loop {
            let unused = &mut incoming[*used..];
            let first = Broken::first_of(unused);
            let UnbufferedStatus { discard, state, .. } = self.conn.process_tls_records(unused);
            // What comes next needs the bytes no more, but for errors that name them.
            *used += discard;
            match state.map_err(|error| Broken { error, first })? {
                ConnectionState::ReadTraffic(_) => {
                    plain += self.take_plain(&mut incoming[plain..*used])?;
                }
                ConnectionState::EncodeTlsData(mut data) => {
                    append(out, 0, |room| data.encode(room)).map_err(Broken::ours)?;
                }
                ConnectionState::TransmitTlsData(data) => data.done(),
                ConnectionState::PeerClosed => self.peer_closed = true,
                ConnectionState::ReadEarlyData(_) => unreachable!("early data is switched off"),
                _ => break,
            }
        }
        if self.peer_closed {
            // Whatever follows close_notify is none of ours.
            *used = incoming.len();
        }
        Ok(plain)
    }

    /// Moves what rustls decrypted to `room`, whose ciphertext it was. rustls 0.23 keeps a record's
    /// plaintext until it is asked for without the bytes that it came from.
    fn take_plain(&mut self, room: &mut [u8]) -> Result<usize, Broken> {
        let mut len = 0;
        let UnbufferedStatus { state, .. } = self.conn.process_tls_records(&mut []);
        if let ConnectionState::ReadTraffic(mut traffic) = state.map_err(Broken::ours)? {
            while let Some(record) = traffic.next_record() {
                let payload = record.map_err(Broken::ours)?.payload;
                room[len..len + payload.len()].copy_from_slice(payload);
                len += payload.len();
            }
        }
        Ok(len)
    }

    fn seal(&mut self, plain: &[u8], out: &mut Vec<u8>) -> Result<(), Failure> {
        if plain.is_empty() {
            return Ok(());
        }
        let records = plain.len().div_ceil(RECORD_BYTES_MAX);
        let room = plain.len() + (records + 1) * RECORD_OVERHEAD_MAX;
        self.with_traffic(out, |traffic, out| {
            append(out, room, |room| traffic.encrypt(plain, room))
        })
    }

    fn with_traffic(
        &mut self,
        out: &mut Vec<u8>,
        act: impl FnOnce(
            &mut rustls::unbuffered::WriteTraffic<'_, rustls::server::ServerConnectionData>,
            &mut Vec<u8>,
        ) -> Result<(), EncryptError>,
    ) -> Result<(), Failure> {
        self.drain(out);
        let UnbufferedStatus { state, .. } = self.conn.process_tls_records(&mut []);
        match state {
            Ok(ConnectionState::WriteTraffic(mut traffic)) => act(&mut traffic, out)
                .map_err(|error| Failure::new(FailureKind::Internal, error.to_string())),
            Ok(state) => {
                Err(Failure::new(FailureKind::Internal, format!("TLS is not open: {state:?}")))
            }
            Err(error) => Err(Failure::of(&error, false, &[], None)),
        }
    }

    /// Appends what rustls has to say of its own accord.
    fn drain(&mut self, out: &mut Vec<u8>) {
        loop {
            let UnbufferedStatus { state, .. } = self.conn.process_tls_records(&mut []);
            match state {
                Ok(ConnectionState::EncodeTlsData(mut data)) => {
                    append(out, 0, |room| data.encode(room)).expect("room was made");
                }
                Ok(ConnectionState::TransmitTlsData(data)) => data.done(),
                Ok(ConnectionState::PeerClosed) => self.peer_closed = true,
                _ => return,
            }
        }
    }

    /// Appends the alert that rustls has for the peer. `unused` is what it did not let go: messages
    /// that it has not looked at yet lie there. Once the alert is out it must not be asked again: it
    /// would look at what was wrong once more, and does not expect to have two alerts.
    fn goodbye(&mut self, unused: &mut [u8], out: &mut Vec<u8>) {
        for _ in 0..GOODBYE_TURNS_MAX {
            let UnbufferedStatus { state, .. } = self.conn.process_tls_records(unused);
            let Ok(ConnectionState::EncodeTlsData(mut data)) = state else { return };
            let start = out.len();
            append(out, 0, |room| data.encode(room)).expect("room was made");
            if is_alert(&out[start..]) {
                return;
            }
        }
    }

    fn fail(&mut self, kind: FailureKind, sentence: &str) -> Failure {
        self.phase = Phase::Failed;
        Failure::new(kind, sentence)
    }

    /// A ticket is not a certificate: what was verified when it was issued may be over by now.
    fn still_valid(&mut self, now_s: u64, out: &mut Vec<u8>) -> Result<(), Failure> {
        if self.conn.handshake_kind() != Some(HandshakeKind::Resumed) {
            return Ok(());
        }
        let refuse = |why: String| Failure::new(FailureKind::ClientCertificate, why);
        let sentence = match self.peer_identity() {
            Ok(Some(identity)) if identity.not_after_s < now_s => {
                "the client resumes a session whose certificate has expired since".to_owned()
            }
            Ok(_) => return Ok(()),
            Err(sentence) => sentence,
        };
        self.close(out);
        self.phase = Phase::Failed;
        Err(refuse(sentence))
    }
}

/// Whether bytes begin with a record that is all there. RFC 8446, section 5.1.
fn is_whole_record(bytes: &[u8]) -> bool {
    match bytes {
        [_, _, _, high, low, rest @ ..] => {
            rest.len() >= usize::from(u16::from_be_bytes([*high, *low]))
        }
        _ => false,
    }
}

/// Whether a record of ours is an alert: it says so, or it is one of TLS 1.3 that is too short for
/// anything else (2 bytes, their type, the tag; a handshake message has 4).
fn is_alert(record: &[u8]) -> bool {
    match record {
        [0x15, ..] => true,
        [0x17, ..] => record.len() == 5 + 2 + 1 + 16,
        _ => false,
    }
}

/// rustls calls the suites of TLS 1.3 differently. RFC 8446, appendix B.4.
fn iana_name(suite: CipherSuite) -> &'static str {
    match suite {
        CipherSuite::TLS13_AES_128_GCM_SHA256 => "TLS_AES_128_GCM_SHA256",
        CipherSuite::TLS13_AES_256_GCM_SHA384 => "TLS_AES_256_GCM_SHA384",
        CipherSuite::TLS13_CHACHA20_POLY1305_SHA256 => "TLS_CHACHA20_POLY1305_SHA256",
        suite => suite.as_str().unwrap_or("unknown"),
    }
}

/// An error of rustls, and the first bytes of what it did not like.
struct Broken {
    error: rustls::Error,
    first: [u8; Broken::FIRST],
}

impl Broken {
    /// Enough to tell MQTT and HTTP.
    const FIRST: usize = 16;

    fn first_of(bytes: &[u8]) -> [u8; Broken::FIRST] {
        let mut first = [0; Broken::FIRST];
        let len = bytes.len().min(Broken::FIRST);
        first[..len].copy_from_slice(&bytes[..len]);
        first
    }

    fn ours(error: impl Into<OursOr>) -> Broken {
        Broken { error: error.into().0, first: [0; Broken::FIRST] }
    }
}

/// What cannot be, as an error of rustls.
struct OursOr(rustls::Error);

impl From<rustls::Error> for OursOr {
    fn from(error: rustls::Error) -> OursOr {
        OursOr(error)
    }
}

impl From<EncodeError> for OursOr {
    fn from(error: EncodeError) -> OursOr {
        OursOr(rustls::Error::General(error.to_string()))
    }
}

/// What rustls writes into a slice, and how large it must be.
trait Needs {
    fn needs(&self) -> Option<usize>;
}

impl Needs for EncodeError {
    fn needs(&self) -> Option<usize> {
        match self {
            EncodeError::InsufficientSize(size) => Some(size.required_size),
            EncodeError::AlreadyEncoded => None,
        }
    }
}

impl Needs for EncryptError {
    fn needs(&self) -> Option<usize> {
        match self {
            EncryptError::InsufficientSize(size) => Some(size.required_size),
            EncryptError::EncryptExhausted => None,
        }
    }
}

/// Lets `write` append to `out`: first with `room` bytes, then with as many as it asks for.
fn append<E: Needs>(
    out: &mut Vec<u8>,
    room: usize,
    mut write: impl FnMut(&mut [u8]) -> Result<usize, E>,
) -> Result<(), E> {
    let start = out.len();
    out.resize(start + room, 0);
    let mut result = write(&mut out[start..]);
    if let Err(error) = &result
        && let Some(needed) = error.needs()
    {
        out.resize(start + needed, 0);
        result = write(&mut out[start..]);
    }
    out.truncate(start + result.as_ref().map_or(0, |written| *written));
    result.map(|_| ())
}
