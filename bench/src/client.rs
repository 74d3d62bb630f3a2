//! A plain MQTT 3.1.1 client on a blocking socket: fills tables and counts what comes back, where
//! millions of packets go over few connections.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

/// Bytes that are collected before they are written.
const WRITE_BATCH: usize = 64 * 1024;
/// Silence after which an answer will not come.
const SILENCE_MAX: Duration = Duration::from_secs(60);

/// One connection.
pub(crate) struct Client {
    socket: TcpStream,
    input: Vec<u8>,
    /// Bytes of `input` that are consumed.
    taken: usize,
}

/// A packet from the broker, as far as it counts here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Got {
    /// PUBLISH: topic and payload.
    Publish(String, Vec<u8>),
    /// SUBACK with its return codes.
    SubAck(Vec<u8>),
    /// PUBACK.
    PubAck,
    /// Any other, by its type.
    Other(u8),
}

impl Client {
    /// Connects with a clean session.
    ///
    /// # Errors
    /// When the broker refuses, or does not answer.
    pub(crate) fn connect(address: SocketAddr, id: &str) -> io::Result<Self> {
        Self::connect_with(address, id, |_| Ok(()))
    }

    /// As [`Self::connect`], with a socket that `prepare` has seen before anything was said.
    ///
    /// # Errors
    /// When the broker refuses, or does not answer.
    pub(crate) fn connect_with(
        address: SocketAddr,
        id: &str,
        prepare: fn(&TcpStream) -> io::Result<()>,
    ) -> io::Result<Self> {
        let socket = TcpStream::connect(address)?;
        prepare(&socket)?;
        socket.set_nodelay(true)?;
        socket.set_read_timeout(Some(SILENCE_MAX))?;
        socket.set_write_timeout(Some(SILENCE_MAX))?;
        let mut client = Self { socket, input: Vec::new(), taken: 0 };
        let mut packet = Vec::new();
        put_packet(&mut packet, 0x10, |body| {
            // The longest keep-alive: it sends no PINGREQ, and rumqttd refuses 0.
            body.extend_from_slice(&[0, 4, b'M', b'Q', b'T', b'T', 4, 2, 0xFF, 0xFF]);
            put_text(body, id);
        });
        client.write(&packet)?;
        match client.next_raw()? {
            (0x20, body) if body.get(1) == Some(&0) => Ok(client),
            (kind, body) => Err(io::Error::other(format!("CONNECT: {kind:#x} {body:?}"))),
        }
    }

    /// From now on a read fails after so long a silence.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub(crate) fn set_patience(&self, patience: Duration) -> io::Result<()> {
        self.socket.set_read_timeout(Some(patience))
    }

    /// Writes bytes as they are.
    ///
    /// # Errors
    /// When the broker does not take them.
    pub(crate) fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.socket.write_all(bytes)
    }

    /// Subscribes to filters, `per_packet` at a time with up to `window` packets unanswered.
    ///
    /// # Errors
    /// When one is refused, or no answer comes.
    pub(crate) fn subscribe(
        &mut self,
        filters: &[String],
        per_packet: usize,
        window: usize,
    ) -> io::Result<()> {
        let chunks: Vec<&[String]> = filters.chunks(per_packet).collect();
        let (mut sent, mut answered) = (0, 0);
        while answered < chunks.len() {
            while sent < chunks.len() && sent - answered < window {
                let mut packet = Vec::new();
                put_packet(&mut packet, 0x82, |body| {
                    body.extend_from_slice(&packet_id(sent).to_be_bytes());
                    for filter in chunks[sent] {
                        put_text(body, filter);
                        body.push(0);
                    }
                });
                self.write(&packet)?;
                sent += 1;
            }
            match self.next()? {
                Got::SubAck(codes) if codes.iter().all(|&c| c < 0x80) => answered += 1,
                Got::SubAck(codes) => {
                    let refused = codes.iter().filter(|&&c| c >= 0x80).count();
                    return Err(io::Error::other(format!("{refused} subscriptions refused")));
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// Sends a SUBSCRIBE with one filter and does not wait for the answer.
    ///
    /// # Errors
    /// When the broker does not take it.
    pub(crate) fn ask(&mut self, filter: &str) -> io::Result<()> {
        let mut packet = Vec::new();
        put_packet(&mut packet, 0x82, |body| {
            body.extend_from_slice(&packet_id(0).to_be_bytes());
            put_text(body, filter);
            body.push(0);
        });
        self.write(&packet)
    }

    /// Publishes with QoS 1, with up to `window` messages unacknowledged.
    ///
    /// # Errors
    /// When no acknowledgement comes.
    pub(crate) fn publish<'a>(
        &mut self,
        messages: impl Iterator<Item = (String, &'a [u8])>,
        retain: bool,
        window: usize,
    ) -> io::Result<()> {
        let mut out = Vec::with_capacity(WRITE_BATCH * 2);
        let (mut sent, mut acked) = (0, 0);
        for (topic, payload) in messages {
            put_packet(&mut out, if retain { 0x33 } else { 0x32 }, |body| {
                put_text(body, &topic);
                body.extend_from_slice(&packet_id(sent).to_be_bytes());
                body.extend_from_slice(payload);
            });
            sent += 1;
            // Half a window at a time, so that neither side waits for each message.
            if sent - acked >= window || out.len() >= WRITE_BATCH {
                self.write(&out)?;
                out.clear();
                while sent - acked > window / 2 {
                    acked += usize::from(self.next()? == Got::PubAck);
                }
            }
        }
        self.write(&out)?;
        while acked < sent {
            acked += usize::from(self.next()? == Got::PubAck);
        }
        Ok(())
    }

    /// Reads until `done` or until nothing came for `silence`; gives the number of PUBLISH packets,
    /// with the time of the last.
    ///
    /// # Errors
    /// When the broker hangs up.
    pub(crate) fn count_publishes(
        &mut self,
        silence: Duration,
        done: u64,
    ) -> io::Result<(u64, Instant)> {
        self.set_patience(silence)?;
        let (mut count, mut last) = (0, Instant::now());
        while count < done {
            match self.next_raw() {
                Ok((kind, _)) if kind & 0xF0 == 0x30 => {
                    count += 1;
                    // A clock read for each would cost as much as the packet.
                    if count % 64 == 0 || count == done {
                        last = Instant::now();
                    }
                }
                Ok(_) => {}
                Err(e) if is_silence(&e) => break,
                Err(e) => return Err(e),
            }
        }
        self.set_patience(SILENCE_MAX)?;
        Ok((count, last))
    }

    /// The next packet.
    ///
    /// # Errors
    /// When the broker hangs up, or nothing comes.
    pub(crate) fn next(&mut self) -> io::Result<Got> {
        let (kind, body) = self.next_raw()?;
        Ok(match kind & 0xF0 {
            0x30 => {
                let len = usize::from(u16::from_be_bytes([byte(body, 0), byte(body, 1)]));
                let topic = body.get(2..2 + len).unwrap_or_default();
                let id = if kind & 0x06 == 0 { 0 } else { 2 };
                let payload = body.get(2 + len + id..).unwrap_or_default();
                Got::Publish(String::from_utf8_lossy(topic).into_owned(), payload.to_vec())
            }
            0x90 => Got::SubAck(body.get(2..).unwrap_or_default().to_vec()),
            0x40 => Got::PubAck,
            other => Got::Other(other >> 4),
        })
    }

    /// The next packet's first byte and body.
    fn next_raw(&mut self) -> io::Result<(u8, &[u8])> {
        let (kind, from, to) = loop {
            if let Some(found) = frame(&self.input[self.taken..]) {
                let (kind, from, to) = found?;
                let (from, to) = (self.taken + from, self.taken + to);
                break (kind, from, to);
            }
            self.input.drain(..self.taken);
            self.taken = 0;
            let len = self.input.len();
            self.input.resize(len + WRITE_BATCH, 0);
            let read = self.socket.read(&mut self.input[len..]);
            self.input.truncate(len + read.as_ref().map_or(0, |&n| n));
            if read? == 0 {
                return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the broker hung up"));
            }
        };
        self.taken = to;
        Ok((kind, &self.input[from..to]))
    }
}

/// Whether a read found nothing in time.
fn is_silence(e: &io::Error) -> bool {
    matches!(e.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut)
}

fn byte(body: &[u8], at: usize) -> u8 {
    body.get(at).copied().unwrap_or(0)
}

/// Identifiers go round; windows are smaller than the circle.
fn packet_id(n: usize) -> u16 {
    (n % 65_535) as u16 + 1
}

/// First byte, and where the body starts and ends, if the packet is complete.
fn frame(buf: &[u8]) -> Option<io::Result<(u8, usize, usize)>> {
    let mut len = 0usize;
    for i in 0..4 {
        let digit = *buf.get(1 + i)?;
        len |= usize::from(digit & 0x7F) << (7 * i);
        if digit & 0x80 == 0 {
            let from = 2 + i;
            return (buf.len() >= from + len).then_some(Ok((buf[0], from, from + len)));
        }
    }
    Some(Err(io::Error::other("a length of more than four bytes")))
}

fn put_packet(out: &mut Vec<u8>, first: u8, body: impl FnOnce(&mut Vec<u8>)) {
    let mut inner = Vec::new();
    body(&mut inner);
    out.push(first);
    let mut len = inner.len();
    loop {
        let digit = (len % 128) as u8;
        len /= 128;
        out.push(if len > 0 { digit | 0x80 } else { digit });
        if len == 0 {
            break;
        }
    }
    out.extend_from_slice(&inner);
}

fn put_text(out: &mut Vec<u8>, text: &str) {
    out.extend_from_slice(&(text.len() as u16).to_be_bytes());
    out.extend_from_slice(text.as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_packet_is_framed_as_it_was_put() {
        for len in [0, 127, 128, 16_383, 16_384, 70_000] {
            let mut packet = Vec::new();
            put_packet(&mut packet, 0x30, |body| body.resize(len, 7));
            let (kind, from, to) = frame(&packet).unwrap().unwrap();
            assert_eq!((kind, to - from, to), (0x30, len, packet.len()));
            assert!(frame(&packet[..packet.len() - 1]).is_none() || len == 0);
        }
        assert!(frame(&[0x30, 0x80, 0x80, 0x80, 0x80]).unwrap().is_err());
    }
}
