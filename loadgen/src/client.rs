//! One client: what it keeps while it idles, and what traffic adds.

use std::collections::VecDeque;

use ringmain_mqtt::PacketId;

use crate::stamp::Flows;

/// Lives on: the worker that the client's number deals it to. No buffer while it idles.
#[derive(Debug)]
pub(crate) struct Client {
    /// When this connection began to open, in ns of CLOCK_MONOTONIC; then when SUBSCRIBE went.
    pub(crate) since_ns: u64,
    /// Bytes of a packet that is not complete; `None` between packets.
    #[allow(
        clippy::box_collection,
        reason = "a Vec is 16 bytes more in each of a million clients"
    )]
    pub(crate) partial: Option<Box<Vec<u8>>>,
    /// `None` unless the population has traffic.
    pub(crate) traffic: Option<Box<Traffic>>,
    /// Handle of its send buffers in [`SendBuffers`]; `NONE` while nothing is to be sent.
    pub(crate) out: u32,
    /// When it last sent a packet, in ms since the run began.
    pub(crate) last_sent_ms: u32,
    /// Connections begun.
    pub(crate) cycle: u32,
    pub(crate) population: u16,
    pub(crate) state: State,
    pub(crate) flags: u8,
}

const _: () = assert!(size_of::<Client>() <= 48, "an idle client is small: a million must fit");

/// No handle.
pub(crate) const NONE: u32 = u32::MAX;

/// Where a client is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum State {
    /// No socket. Waits for its turn to open.
    Waiting,
    /// The chain from socket to CONNECT is on its way, or CONNACK is awaited.
    Opening,
    /// SUBACK is awaited.
    Subscribing,
    /// Ready.
    Live,
    /// We end the connection; the end of its receive is awaited.
    Closing,
    /// The receive ended; the slot is being closed.
    Freeing,
    /// All cycles done, or failed.
    Done,
}

/// A send is in flight.
pub(crate) const SENDING: u8 = 1;
/// The multishot receive is armed.
pub(crate) const RECEIVING: u8 = 2;
/// In the list of clients with something to send.
pub(crate) const DIRTY: u8 = 4;
/// In the list of clients that may publish.
pub(crate) const PUMP: u8 = 8;
/// PINGREQ went, PINGRESP did not come.
pub(crate) const PINGED: u8 = 16;
/// What ended this connection is already counted.
pub(crate) const BLAMED: u8 = 32;
/// FIN follows when everything is sent.
pub(crate) const FIN_AFTER_SEND: u8 = 64;
/// The connection was ready in this cycle.
pub(crate) const WAS_READY: u8 = 128;

impl Client {
    pub(crate) fn new(population: u16) -> Self {
        Self {
            since_ns: 0,
            partial: None,
            traffic: None,
            out: NONE,
            last_sent_ms: 0,
            cycle: 0,
            population,
            state: State::Waiting,
            flags: 0,
        }
    }

    pub(crate) fn has(&self, flag: u8) -> bool {
        self.flags & flag != 0
    }

    pub(crate) fn set(&mut self, flag: u8) {
        self.flags |= flag;
    }

    pub(crate) fn unset(&mut self, flag: u8) {
        self.flags &= !flag;
    }
}

/// What a client with traffic keeps.
#[derive(Debug)]
pub(crate) struct Traffic {
    /// Topic Name that it publishes to.
    pub(crate) topic: Box<str>,
    /// What it received, by publisher.
    pub(crate) flows: Flows,
    /// QoS 1 and 2 handshakes that it began, oldest first.
    pub(crate) inflight: VecDeque<Handshake>,
    /// QoS 2 packet identifiers received and not yet released.
    pub(crate) unreleased: Vec<PacketId>,
    /// Messages sent.
    pub(crate) sent: u32,
    /// Of these, handshakes done; for QoS 0 equal to `sent`.
    pub(crate) acked: u32,
    /// Of these, arrived at the peer.
    pub(crate) delivered: u32,
    next_id: u16,
}

/// A PUBLISH on its way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Handshake {
    pub(crate) packet_id: PacketId,
    pub(crate) stage: Stage,
    /// When the message was due.
    pub(crate) intended_ns: u64,
}

/// What a handshake waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stage {
    PubAck,
    PubRec,
    PubComp,
    Done,
}

/// Handshakes that a client may have open: identifiers in use never collide with new ones.
pub(crate) const INFLIGHT_MAX: usize = 32_768;

impl Traffic {
    pub(crate) fn new(topic: String) -> Self {
        Self {
            topic: topic.into_boxed_str(),
            flows: Flows::default(),
            inflight: VecDeque::new(),
            unreleased: Vec::new(),
            sent: 0,
            acked: 0,
            delivered: 0,
            next_id: 0,
        }
    }

    /// Opens a handshake.
    pub(crate) fn begin(&mut self, stage: Stage, intended_ns: u64) -> PacketId {
        self.next_id = self.next_id.checked_add(1).unwrap_or(1);
        let packet_id = PacketId::new(self.next_id).expect("counts from 1");
        self.inflight.push_back(Handshake { packet_id, stage, intended_ns });
        packet_id
    }

    /// Moves the handshake `packet_id` from `from` to `to`; `None` when there is none that waits
    /// for this. Gives the time when the message was due.
    pub(crate) fn advance(&mut self, packet_id: PacketId, from: Stage, to: Stage) -> Option<u64> {
        // Acknowledgements come in order from a broker that keeps [MQTT-4.6.0-2], so this is the
        // first or one near it.
        let entry =
            self.inflight.iter_mut().find(|h| h.packet_id == packet_id && h.stage == from)?;
        entry.stage = to;
        let intended_ns = entry.intended_ns;
        while self.inflight.front().is_some_and(|h| h.stage == Stage::Done) {
            self.inflight.pop_front();
        }
        if to == Stage::Done {
            self.acked += 1;
        }
        Some(intended_ns)
    }
}

/// Send buffers of the clients that have something to send; recycled, so that an idle client has
/// none.
#[derive(Debug, Default)]
pub(crate) struct SendBuffers {
    slots: Vec<SendBuffer>,
    free: Vec<u32>,
}

/// Bytes in flight, which must not move, and bytes that wait for them.
#[derive(Debug, Default)]
pub(crate) struct SendBuffer {
    pub(crate) inflight: Vec<u8>,
    pub(crate) pending: Vec<u8>,
}

/// A buffer that grew above this is given back to the allocator when it becomes idle.
const KEEP_CAPACITY: usize = 16 * 1024;

impl SendBuffers {
    /// The buffer of a client, taken from the pool if it has none.
    pub(crate) fn of(&mut self, out: &mut u32) -> &mut SendBuffer {
        if *out == NONE {
            *out = self.free.pop().unwrap_or_else(|| {
                self.slots.push(SendBuffer::default());
                (self.slots.len() - 1) as u32
            });
        }
        &mut self.slots[*out as usize]
    }

    pub(crate) fn get(&mut self, out: u32) -> Option<&mut SendBuffer> {
        self.slots.get_mut(out as usize)
    }

    /// Gives a client's buffer back to the pool.
    pub(crate) fn release(&mut self, out: &mut u32) {
        let Some(buffer) = self.slots.get_mut(*out as usize) else { return };
        for bytes in [&mut buffer.inflight, &mut buffer.pending] {
            bytes.clear();
            if bytes.capacity() > KEEP_CAPACITY {
                *bytes = Vec::new();
            }
        }
        self.free.push(*out);
        *out = NONE;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_qos_2_handshake_ends_once() {
        let mut t = Traffic::new("t".into());
        let a = t.begin(Stage::PubRec, 10);
        let b = t.begin(Stage::PubRec, 20);
        assert_eq!(t.advance(a, Stage::PubComp, Stage::Done), None, "PUBCOMP before PUBREC");
        assert_eq!(t.advance(a, Stage::PubRec, Stage::PubComp), Some(10));
        assert_eq!(t.advance(b, Stage::PubRec, Stage::PubComp), Some(20));
        assert_eq!(t.advance(b, Stage::PubComp, Stage::Done), Some(20));
        assert_eq!(t.acked, 1);
        assert_eq!(t.advance(a, Stage::PubComp, Stage::Done), Some(10));
        assert_eq!(t.advance(a, Stage::PubComp, Stage::Done), None);
        assert!(t.inflight.is_empty());
    }

    #[test]
    fn packet_identifiers_skip_zero() {
        let mut t = Traffic::new(String::new());
        t.next_id = u16::MAX;
        assert_eq!(t.begin(Stage::PubAck, 0).get(), 1);
    }

    #[test]
    fn released_send_buffers_are_used_again() {
        let mut pool = SendBuffers::default();
        let (mut a, mut b) = (NONE, NONE);
        pool.of(&mut a).pending.push(1);
        pool.release(&mut a);
        assert!(pool.of(&mut b).pending.is_empty());
        assert_eq!((a, b, pool.slots.len()), (NONE, 0, 1));
    }
}
