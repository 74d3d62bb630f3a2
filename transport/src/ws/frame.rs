//! Frames: RFC 6455, section 5. Unmasked in place, in any pieces.

use super::{Failure, FailureKind, Progress};

/// A head of ours: two bytes and a length of eight.
pub const FRAME_HEAD_BYTES_MAX: usize = 10;
/// A head of a client: that, and the mask.
const CLIENT_HEAD_BYTES_MAX: usize = 14;
/// Section 5.5.
const CONTROL_BYTES_MAX: usize = 125;

const FIN: u8 = 0x80;
const MASKED: u8 = 0x80;
const CONTINUATION: u8 = 0x0;
const TEXT: u8 = 0x1;
const BINARY: u8 = 0x2;
const CLOSE: u8 = 0x8;
const PING: u8 = 0x9;
const PONG: u8 = 0xA;

/// Section 7.4.1.
const PROTOCOL_ERROR: u16 = 1002;
const UNSUPPORTED_DATA: u16 = 1003;
const INVALID_PAYLOAD: u16 = 1007;
const TOO_BIG: u16 = 1009;

/// The frames of a client, up to where they came. Invariant: `left` is 0 while a head is awaited.
#[derive(Debug)]
pub(super) struct Frames {
    /// Of the payload under way, in bytes.
    left: u64,
    /// Of the message under way, so far.
    message_bytes: u64,
    frame_bytes_max: u64,
    message_bytes_max: u64,
    /// A control frame under way, unmasked.
    control: Option<Box<Control>>,
    mask: [u8; 4],
    head: [u8; CLIENT_HEAD_BYTES_MAX],
    head_len: u8,
    /// The first byte of the head: FIN and opcode.
    first: u8,
    /// A message began and did not end.
    in_message: bool,
    /// We sent a close frame.
    closing: bool,
    /// The client did.
    closed: bool,
}

const _: () = assert!(size_of::<super::Ws>() <= 100, "idle memory of a WebSocket");

#[derive(Debug)]
struct Control {
    len: usize,
    payload: [u8; CONTROL_BYTES_MAX],
}

/// The head of a binary frame with a payload of `len` bytes: the first so many of the array.
pub fn frame_head(len: usize) -> ([u8; FRAME_HEAD_BYTES_MAX], usize) {
    head(BINARY, len)
}

fn head(opcode: u8, len: usize) -> ([u8; FRAME_HEAD_BYTES_MAX], usize) {
    let mut head = [0; FRAME_HEAD_BYTES_MAX];
    head[0] = FIN | opcode;
    if len < 126 {
        head[1] = len as u8;
        (head, 2)
    } else if let Ok(len) = u16::try_from(len) {
        head[1] = 126;
        head[2..4].copy_from_slice(&len.to_be_bytes());
        (head, 4)
    } else {
        head[1] = 127;
        head[2..].copy_from_slice(&(len as u64).to_be_bytes());
        (head, 10)
    }
}

impl Frames {
    pub(super) fn new(frame_bytes_max: u64, message_bytes_max: u64) -> Frames {
        Frames {
            left: 0,
            message_bytes: 0,
            frame_bytes_max,
            message_bytes_max,
            control: None,
            mask: [0; 4],
            head: [0; CLIENT_HEAD_BYTES_MAX],
            head_len: 0,
            first: 0,
            in_message: false,
            closing: false,
            closed: false,
        }
    }

    pub(super) fn is_closing(&self) -> bool {
        self.closing
    }

    /// Takes `bytes` from `at` on, and leaves the payloads of binary frames at the front of `bytes`.
    pub(super) fn read(
        &mut self,
        bytes: &mut [u8],
        mut at: usize,
        out: &mut Vec<u8>,
    ) -> Result<Progress, Failure> {
        let mut plain = 0;
        while at < bytes.len() && !self.closed {
            let step = if self.left > 0 {
                self.payload(bytes, &mut at, &mut plain);
                Ok(())
            } else {
                self.head(&bytes[at..]).map(|taken| at += taken)
            };
            step.and_then(|()| self.ended(out)).map_err(|failure| self.fail(failure, out))?;
        }
        Ok(Progress { plain, opened: None, peer_closed: self.closed })
    }

    pub(super) fn close(&mut self, code: u16, out: &mut Vec<u8>) {
        if !self.closing {
            self.closing = true;
            control(CLOSE, &code.to_be_bytes(), out);
        }
    }

    /// What is there of a payload: unmasked, and moved to where it belongs.
    fn payload(&mut self, bytes: &mut [u8], at: &mut usize, plain: &mut usize) {
        let len = usize::try_from(self.left).unwrap_or(usize::MAX).min(bytes.len() - *at);
        let from = *at..*at + len;
        match &mut self.control {
            Some(control) => {
                let room = &mut control.payload[control.len..control.len + len];
                room.copy_from_slice(&bytes[from]);
                unmask(room, self.mask);
                control.len += len;
            }
            None if self.closing => {}
            None => {
                bytes.copy_within(from, *plain);
                unmask(&mut bytes[*plain..*plain + len], self.mask);
                *plain += len;
            }
        }
        self.mask.rotate_left(len % 4);
        self.left -= len as u64;
        *at += len;
    }

    /// What is there of a head: how many bytes of `bytes` it took.
    fn head(&mut self, bytes: &[u8]) -> Result<usize, Failure> {
        let mut taken = 0;
        loop {
            let needed = self.head_needs()?;
            let has = usize::from(self.head_len);
            if has == needed {
                self.begin(needed)?;
                return Ok(taken);
            }
            let some = &bytes[taken..(taken + needed - has).min(bytes.len())];
            if some.is_empty() {
                return Ok(taken);
            }
            self.head[has..has + some.len()].copy_from_slice(some);
            self.head_len += some.len() as u8;
            taken += some.len();
        }
    }

    /// Bytes of the head, as far as it is known; refuses what its first two bytes show to be wrong.
    fn head_needs(&self) -> Result<usize, Failure> {
        if self.head_len < 2 {
            return Ok(2);
        }
        let [first, second, ..] = self.head;
        let (opcode, len) = (first & 0xF, second & !MASKED);
        if first & 0x70 != 0 {
            return Err(refuse(PROTOCOL_ERROR, "a frame uses an extension, and there is none"));
        }
        if second & MASKED == 0 {
            return Err(refuse(PROTOCOL_ERROR, "a frame of the client is not masked"));
        }
        match opcode {
            CONTINUATION if !self.in_message => {
                return Err(refuse(
                    PROTOCOL_ERROR,
                    "a frame goes on with a message that never began",
                ));
            }
            BINARY if self.in_message => {
                return Err(refuse(PROTOCOL_ERROR, "a message begins before the last one ended"));
            }
            CONTINUATION | BINARY => {}
            // [MQTT-6.0.0-1]
            TEXT => {
                return Err(refuse(
                    UNSUPPORTED_DATA,
                    "the client sends text frames: MQTT goes into binary ones",
                ));
            }
            CLOSE | PING | PONG if first & FIN == 0 || usize::from(len) > CONTROL_BYTES_MAX => {
                return Err(refuse(PROTOCOL_ERROR, "a control frame is fragmented or too long"));
            }
            CLOSE | PING | PONG => {}
            _ => return Err(refuse(PROTOCOL_ERROR, "a frame has an opcode that does not exist")),
        }
        Ok(self.head_len_whole())
    }

    /// The head is whole.
    fn begin(&mut self, head_len: usize) -> Result<(), Failure> {
        self.first = self.head[0];
        let opcode = self.first & 0xF;
        let (len, shortest) = match self.head[1] & !MASKED {
            126 => (u64::from(u16::from_be_bytes([self.head[2], self.head[3]])), 126),
            127 => {
                let len: [u8; 8] = self.head[2..10].try_into().expect("8 bytes");
                (u64::from_be_bytes(len), 65_536)
            }
            len => (u64::from(len), 0),
        };
        // Section 5.2: "the minimal number of bytes MUST be used"; the highest bit must be 0.
        if len < shortest || len >> 63 != 0 {
            return Err(refuse(PROTOCOL_ERROR, "a length is not in its shortest form"));
        }
        self.mask.copy_from_slice(&self.head[head_len - 4..head_len]);
        if opcode == CONTINUATION || opcode == BINARY {
            if opcode == BINARY {
                self.message_bytes = 0;
            }
            if len > self.frame_bytes_max {
                return Err(refuse(TOO_BIG, "a frame is larger than this listener allows"));
            }
            self.message_bytes = self.message_bytes.saturating_add(len);
            if self.message_bytes > self.message_bytes_max {
                return Err(refuse(TOO_BIG, "a message is larger than this listener allows"));
            }
            self.in_message = true;
        } else {
            self.control = Some(Box::new(Control { len: 0, payload: [0; CONTROL_BYTES_MAX] }));
        }
        self.left = len;
        Ok(())
    }

    /// Acts on a frame that is whole, if one is.
    fn ended(&mut self, out: &mut Vec<u8>) -> Result<(), Failure> {
        let has_head = self.head_len >= 2 && usize::from(self.head_len) == self.head_len_whole();
        if self.left > 0 || !has_head {
            return Ok(());
        }
        self.head_len = 0;
        let Some(control_frame) = self.control.take() else {
            self.in_message = self.first & FIN == 0;
            return Ok(());
        };
        let payload = &control_frame.payload[..control_frame.len];
        match self.first & 0xF {
            PING if !self.closing => control(PONG, payload, out),
            CLOSE => {
                let code = close_code(payload)?;
                self.closed = true;
                if !self.closing {
                    self.closing = true;
                    // Section 5.5.1: the answer "typically echos the status code".
                    control(
                        CLOSE,
                        code.map(u16::to_be_bytes).as_ref().map_or(&[], |c| &c[..]),
                        out,
                    );
                }
            }
            _ => {}
        }
        Ok(())
    }

    /// The length of the head whose first two bytes are here.
    fn head_len_whole(&self) -> usize {
        match self.head[1] & !MASKED {
            126 => 8,
            127 => CLIENT_HEAD_BYTES_MAX,
            _ => 6,
        }
    }

    fn fail(&mut self, failure: Failure, out: &mut Vec<u8>) -> Failure {
        if let FailureKind::Close(code) = failure.kind {
            self.close(code, out);
        }
        failure
    }
}

/// Section 5.5.1 and 7.4: the code of a close frame, none if it has none.
fn close_code(payload: &[u8]) -> Result<Option<u16>, Failure> {
    match payload {
        [] => Ok(None),
        [_] => Err(refuse(PROTOCOL_ERROR, "a close frame has half a code")),
        [high, low, reason @ ..] => {
            let code = u16::from_be_bytes([*high, *low]);
            if !matches!(code, 1000..=1003 | 1007..=1014 | 3000..=4999) {
                return Err(refuse(
                    PROTOCOL_ERROR,
                    "a close frame has a code that may not be sent",
                ));
            }
            if std::str::from_utf8(reason).is_err() {
                return Err(refuse(INVALID_PAYLOAD, "the reason of a close frame is no UTF-8"));
            }
            Ok(Some(code))
        }
    }
}

fn control(opcode: u8, payload: &[u8], out: &mut Vec<u8>) {
    let (head, len) = head(opcode, payload.len());
    out.extend_from_slice(&head[..len]);
    out.extend_from_slice(payload);
}

/// Section 5.3. Eight bytes at a time, which the compiler makes vectors of.
fn unmask(bytes: &mut [u8], mask: [u8; 4]) {
    let [a, b, c, d] = mask;
    let wide = u64::from_ne_bytes([a, b, c, d, a, b, c, d]);
    let mut chunks = bytes.chunks_exact_mut(8);
    for chunk in &mut chunks {
        let word = u64::from_ne_bytes(<[u8; 8]>::try_from(&*chunk).expect("8 bytes"));
        chunk.copy_from_slice(&(word ^ wide).to_ne_bytes());
    }
    for (byte, mask) in chunks.into_remainder().iter_mut().zip([a, b, c, d, a, b, c]) {
        *byte ^= mask;
    }
}

fn refuse(code: u16, sentence: &str) -> Failure {
    Failure {
        kind: FailureKind::Close(code),
        sentence: format!("the WebSocket is closed: {sentence}"),
    }
}
