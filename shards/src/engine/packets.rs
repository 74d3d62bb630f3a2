//! From bytes to packets: framing, and which packet goes where.

use bytes::Bytes;
use ringmain_mqtt::{
    DecodeError, Header, Packet, PacketType, ReasonCode, Role, Rules, Version, decode,
    decode_publish, encode, header, header_v31,
};

use super::authenticate::Auth;
use super::conn::{Conn, State, flag};
use super::core::Core;
use super::effects::{CloseHow, Effects};
use super::ids::ConnId;
use super::shard::Shard;
use crate::boundary::{Event, LogLevel};
use crate::observe::Stage;

/// A packet body of at least this size is kept as it was received instead of copied.
const KEEP_BODY_MIN: usize = super::message::SHARED_PAYLOAD_MIN;

/// How one packet left the connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Flow {
    /// The next packet may be handled.
    Go,
    /// The connection is gone from here, or closing: drop what follows.
    Stop,
}

impl Shard {
    /// Takes bytes of a connection; with none, goes on with what is buffered.
    pub(crate) fn on_data(&mut self, id: ConnId, mut bytes: &[u8], fx: &mut Effects) {
        let ci = id.index;
        if !self.core.is_open(id) {
            return;
        }
        let mut partial = self.core.conns.get_mut(ci).and_then(Conn::take_partial);
        let waits = flag::PAUSED_TURN | flag::PAUSED_METER | flag::AUTH_WAITS;
        if self.core.conns.get(ci).is_some_and(|c| c.has(waits)) {
            // Came in before the pause took effect: behind what already waits.
            let mut buf = partial.unwrap_or_default();
            buf.extend_from_slice(bytes);
            if buf.is_empty() {
                return;
            }
            if let Some(conn) = self.core.conns.get_mut(ci) {
                let waits = conn.has(flag::AUTH_WAITS);
                conn.set_partial(buf);
                if waits {
                    self.core.pause(ci, flag::PAUSED_AUTH, fx);
                }
            }
            return;
        }
        if let Some(mut buf) = partial.take() {
            match self.complete(id, &mut buf, &mut bytes, fx) {
                Completed::Done => {}
                Completed::Waits => {
                    if self.core.is_open(id)
                        && let Some(conn) = self.core.conns.get_mut(ci)
                    {
                        conn.set_partial(buf);
                    }
                    return;
                }
                Completed::Stopped => return,
            }
        }
        while !bytes.is_empty() {
            let h = match self.frame(ci, bytes) {
                Ok(Some(h)) => h,
                Ok(None) => break,
                Err(e) => return self.on_malformed(id, e, bytes, fx),
            };
            if bytes.len() < h.total_len() {
                break;
            }
            if self.is_to_wait(id, h, fx) {
                self.keep(ci, bytes);
                return;
            }
            let (packet, rest) = bytes.split_at(h.total_len());
            let whole = WholePacket { header: h, packet, owned: None, rest };
            if self.on_packet(id, whole, fx) == Flow::Stop {
                return;
            }
            bytes = rest;
        }
        if !bytes.is_empty() {
            self.keep(ci, bytes);
        }
    }

    /// Whether a whole packet and what follows it is for another turn.
    #[inline]
    fn is_to_wait(&mut self, id: ConnId, h: Header, fx: &mut Effects) -> bool {
        if Core::turn_is_full(fx) {
            self.defer(id, fx);
            return true;
        }
        self.core.meters_input && self.is_held_back(id, h, fx)
    }

    fn keep(&mut self, ci: u32, bytes: &[u8]) {
        if let Some(conn) = self.core.conns.get_mut(ci)
            && conn.state != State::Closing
            && !bytes.is_empty()
        {
            conn.set_partial(Box::new(bytes.to_vec()));
        }
    }

    /// Fills up the packet that is incomplete in `buf` and handles it, and those behind it when the
    /// buffer holds several.
    fn complete(
        &mut self,
        id: ConnId,
        buf: &mut Vec<u8>,
        bytes: &mut &[u8],
        fx: &mut Effects,
    ) -> Completed {
        let mut at = 0;
        loop {
            let h = loop {
                match self.frame(id.index, &buf[at..]) {
                    Ok(Some(h)) => break h,
                    Ok(None) if bytes.is_empty() => {
                        buf.drain(..at);
                        return if buf.is_empty() { Completed::Done } else { Completed::Waits };
                    }
                    Ok(None) => {
                        buf.push(bytes[0]);
                        *bytes = &bytes[1..];
                    }
                    Err(e) => {
                        let seen = std::mem::take(buf);
                        self.on_malformed(id, e, &seen, fx);
                        return Completed::Stopped;
                    }
                }
            };
            let total = h.total_len();
            let have = buf.len() - at;
            if have < total {
                let take = bytes.len().min(total - have);
                grow(buf, at, total, take);
                buf.extend_from_slice(&bytes[..take]);
                *bytes = &bytes[take..];
                if buf.len() - at < total {
                    buf.drain(..at);
                    return Completed::Waits;
                }
            }
            if self.is_to_wait(id, h, fx) {
                buf.drain(..at);
                buf.extend_from_slice(bytes);
                *bytes = &[];
                return Completed::Waits;
            }
            let flow = if at == 0 && buf.len() == total && total >= KEEP_BODY_MIN {
                let owned = Bytes::from(std::mem::take(buf));
                let packet = owned.clone();
                let whole =
                    WholePacket { header: h, packet: &packet, owned: Some(owned), rest: bytes };
                self.on_packet(id, whole, fx)
            } else {
                let (packet, behind) = buf[at..].split_at(total);
                // Behind the packet comes the rest of the buffer, then the rest of the bytes.
                let joined;
                let rest = if behind.is_empty() {
                    *bytes
                } else if matches!(h.packet_type, PacketType::Connect | PacketType::Auth) {
                    joined = [behind, bytes].concat();
                    &joined[..]
                } else {
                    &[]
                };
                let whole = WholePacket { header: h, packet, owned: None, rest };
                self.on_packet(id, whole, fx)
            };
            if flow == Flow::Stop {
                return Completed::Stopped;
            }
            if buf.is_empty() {
                return Completed::Done;
            }
            at += total;
            if at == buf.len() {
                return Completed::Done;
            }
        }
    }

    /// Reads the fixed header and checks the size. [MQTT-3.2.2-15]
    fn frame(&self, ci: u32, bytes: &[u8]) -> Result<Option<Header>, DecodeError> {
        let Some(conn) = self.core.conns.get(ci) else { return Ok(None) };
        let cfg = self.core.mqtt(conn.listener);
        let lenient = cfg.lenient_remaining_length;
        let h = if conn.version == Version::V31 && conn.state == State::Live {
            header_v31(bytes, lenient)?
        } else {
            header(bytes, lenient)?
        };
        let Some(h) = h else { return Ok(None) };
        let challenged = || conn.auth().is_some_and(Auth::is_challenged);
        if conn.state == State::Fresh && h.packet_type != PacketType::Connect && !challenged() {
            // [MQTT-3.1.0-1]
            return Err(DecodeError {
                reason: ReasonCode::PROTOCOL_ERROR,
                statement: "MQTT-3.1.0-1",
                detail: "the first packet must be CONNECT",
            });
        }
        if h.total_len() > self.core.told(ci).max_packet_size as usize {
            return Err(DecodeError {
                reason: ReasonCode::PACKET_TOO_LARGE,
                statement: "MQTT-3.2.2-15",
                detail: "larger than Maximum Packet Size",
            });
        }
        Ok(Some(h))
    }

    fn on_packet(&mut self, id: ConnId, p: WholePacket<'_>, fx: &mut Effects) -> Flow {
        let ci = id.index;
        let now_ms = self.core.now_ms;
        self.core.counters.packets_received += 1;
        let Some(conn) = self.core.conns.get_mut(ci) else { return Flow::Stop };
        conn.last_seen_ms = now_ms as u32;
        let (state, version, listener) = (conn.state, conn.version, conn.listener);
        if state == State::Fresh {
            if conn.auth().is_some_and(Auth::is_challenged) {
                return self.on_exchange_packet(id, p.header, p.packet, p.rest, fx);
            }
            return self.on_first_packet(id, p.packet, p.header, p.rest, fx);
        }
        let rules = Rules { strict_utf8: self.core.mqtt(listener).strict_utf8 };
        let h = p.header;
        let body = &p.packet[usize::from(h.len)..];
        if h.packet_type == PacketType::Publish {
            fx.observe.begin();
            let flow = match decode_publish(h, body, version, Role::Server, &rules) {
                Ok(publish) => {
                    fx.observe.mark(Stage::Decode);
                    self.on_publish(id, &publish, p.owned, fx);
                    self.flow(id)
                }
                Err(e) => {
                    self.on_malformed(id, e, p.packet, fx);
                    Flow::Stop
                }
            };
            fx.observe.handled(self.core.id);
            return flow;
        }
        match decode(h, body, version, Role::Server, &rules) {
            Ok(packet) => {
                self.on_decoded(id, packet, fx);
                self.flow(id)
            }
            Err(e) => {
                self.on_malformed(id, e, p.packet, fx);
                Flow::Stop
            }
        }
    }

    fn flow(&mut self, id: ConnId) -> Flow {
        if self.core.is_open(id) { Flow::Go } else { Flow::Stop }
    }

    fn on_decoded(&mut self, id: ConnId, packet: Packet<'_>, fx: &mut Effects) {
        let ci = id.index;
        match packet {
            Packet::Publish(p) => self.on_publish(id, &p, None, fx),
            Packet::PubAck(a) => {
                self.core.on_puback(ci, a.packet_id.get(), a.reason, fx);
            }
            Packet::PubRec(a) => self.core.on_pubrec(ci, a.packet_id, a.reason, fx),
            Packet::PubRel(a) => self.on_pubrel(ci, a.packet_id, fx),
            Packet::PubComp(a) => self.core.on_pubcomp(ci, a.packet_id.get(), fx),
            Packet::Subscribe(s) => self.on_subscribe(id, &s, fx),
            Packet::Unsubscribe(u) => self.on_unsubscribe(id, &u, fx),
            Packet::PingReq => {
                self.core.counters.pingreq_received += 1;
                self.core.counters.pingresp_sent += 1;
                self.core.write(ci, fx, |out, _, _| {
                    encode::pingresp(out); // [MQTT-3.12.4-1]
                    true
                });
            }
            Packet::Disconnect(d) => self.on_disconnect(ci, &d, fx),
            Packet::Connect(_) => {
                // [MQTT-3.1.0-2]
                let code = ReasonCode::PROTOCOL_ERROR;
                let text = Some("a second CONNECT");
                self.core.close_with(ci, Some(code), text, CloseHow::Flush, fx);
            }
            Packet::Auth(auth) => self.on_auth(id, &auth, fx),
            // The decoder refuses what only servers send.
            Packet::ConnAck(_) | Packet::SubAck(_) | Packet::UnsubAck(_) | Packet::PingResp => {
                let code = ReasonCode::PROTOCOL_ERROR;
                self.core.close(ci, Some(code), CloseHow::Flush, fx);
            }
        }
        self.guard_output(ci, fx);
    }

    /// A client that only sends and never reads is not read any more when the answers pile up.
    fn guard_output(&mut self, ci: u32, fx: &mut Effects) {
        let max = self.core.out_max().saturating_mul(2);
        if self.core.conns.get(ci).is_some_and(|c| c.out_pending > max) {
            self.core.pause(ci, flag::PAUSED_OUT, fx);
        }
    }

    /// A packet that breaks the rules: the connection ends, with the reason where there is a way to
    /// tell it. [MQTT-4.13.1-1]
    pub(crate) fn on_malformed(
        &mut self,
        id: ConnId,
        e: DecodeError,
        bytes: &[u8],
        fx: &mut Effects,
    ) {
        let ci = id.index;
        self.core.counters.protocol_errors += 1;
        let Some(conn) = self.core.conns.get(ci) else { return };
        let (state, peer) = (conn.state, conn.peer());
        if state == State::Live {
            self.core.close_with(ci, Some(e.reason), Some(e.detail), CloseHow::Flush, fx);
            return;
        }
        // W19: a hint for who wonders why it does not work.
        let hint = match bytes {
            [0x16, 0x03, ..] => {
                self.core.counters.tls_on_plain += 1;
                "TLS on plain listener: use a TLS listener, or plain MQTT"
            }
            [b'G', b'E', b'T', b' ', ..] | [b'P', b'O', b'S', b'T', ..] => {
                self.core.counters.http_on_mqtt += 1;
                "HTTP on an MQTT listener: use a WebSocket listener, or MQTT"
            }
            _ => e.detail,
        };
        fx.events.push(Event::Log {
            shard: self.core.id,
            level: LogLevel::Info,
            text: format!("closed {} before CONNECT: {hint}", peer.addr).into(),
        });
        self.refuse_malformed_connect(id, e, bytes, fx);
    }
}

/// A packet with all its bytes.
struct WholePacket<'a> {
    header: Header,
    packet: &'a [u8],
    /// The packet in a buffer of its own.
    owned: Option<Bytes>,
    /// What came behind it.
    rest: &'a [u8],
}

enum Completed {
    /// The buffer is used up; the rest of the bytes is next.
    Done,
    /// The buffer still waits for bytes.
    Waits,
    /// The connection ended or moved.
    Stopped,
}

/// Makes room for a packet: twice what is there at most, since a length is only a promise.
fn grow(buf: &mut Vec<u8>, at: usize, total: usize, take: usize) {
    const START: usize = 4096;
    let need = buf.len() + take;
    if need > buf.capacity() {
        let want = (buf.capacity() * 2).max(START).max(need).min(at + total);
        buf.reserve_exact(want.saturating_sub(buf.len()));
    }
}
