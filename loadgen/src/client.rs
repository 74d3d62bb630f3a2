//! One client: what it keeps while it idles, and what traffic adds.

use std::collections::{HashMap, VecDeque};

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
    pub(crate) flags: u16,
    /// Connections that ended without DISCONNECT after they were ready: each is worth a will.
    pub(crate) unclean: u16,
    pub(crate) state: State,
    /// Attempts to connect that failed, since it last had to connect.
    pub(crate) failures: u8,
    /// SUBACKs awaited.
    pub(crate) awaited: u8,
}

const _: () = assert!(size_of::<Client>() <= 48, "an idle client is small: a million must fit");

/// No handle.
pub(crate) const NONE: u32 = u32::MAX;

/// Where a client is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum State {
    /// No socket, and no wish for one: waits for a stage that connects it.
    Offline,
    /// No socket. Waits for its turn to open.
    Waiting,
    /// No socket. Waits until it may try again.
    BackingOff,
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
    /// Done, failed or broken: a stage may bring it back.
    Done,
}

/// A send is in flight.
pub(crate) const SENDING: u16 = 1;
/// The multishot receive is armed.
pub(crate) const RECEIVING: u16 = 2;
/// In the list of clients with something to send.
pub(crate) const DIRTY: u16 = 4;
/// In the list of clients that may publish.
pub(crate) const PUMP: u16 = 8;
/// PINGREQ went, PINGRESP did not come.
pub(crate) const PINGED: u16 = 16;
/// What ended this connection is already counted.
pub(crate) const BLAMED: u16 = 32;
/// FIN follows when everything is sent.
pub(crate) const FIN_AFTER_SEND: u16 = 64;
/// The connection was ready in this cycle.
pub(crate) const WAS_READY: u16 = 128;
/// The broker keeps a session with all subscriptions.
pub(crate) const HAS_SESSION: u16 = 256;
/// When the connection has ended, the client is to stay offline.
pub(crate) const STAY_AWAY: u16 = 512;
/// When the connection has ended, the client is to come back.
pub(crate) const COME_BACK: u16 = 1024;
/// A poll looks for the broker's hang-up: this client does not read.
pub(crate) const WATCHED: u16 = 2048;
/// Flags that outlive a connection.
pub(crate) const LASTING: u16 = DIRTY | PUMP | HAS_SESSION;

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
            flags: 0,
            unclean: 0,
            state: State::Offline,
            failures: 0,
            awaited: 0,
        }
    }

    /// Whether there is a connection, or one on its way, that bytes can go to.
    pub(crate) fn has_socket(&self) -> bool {
        matches!(self.state, State::Opening | State::Subscribing | State::Live | State::Closing)
    }

    pub(crate) fn has(&self, flag: u16) -> bool {
        self.flags & flag != 0
    }

    pub(crate) fn set(&mut self, flag: u16) {
        self.flags |= flag;
    }

    pub(crate) fn unset(&mut self, flag: u16) {
        self.flags &= !flag;
    }
}

/// What a client with traffic keeps.
#[derive(Debug)]
pub(crate) struct Traffic {
    /// Topic Name that it publishes to; empty where messages have topics of their own.
    pub(crate) topic: Box<str>,
    /// What it received.
    pub(crate) heard: Heard,
    /// QoS 1 and 2 handshakes that it began, oldest first.
    pub(crate) inflight: VecDeque<Handshake>,
    /// QoS 2 packet identifiers received and not yet released.
    pub(crate) unreleased: Vec<PacketId>,
    /// Messages sent.
    pub(crate) sent: u32,
    /// Messages sent when the stage began.
    pub(crate) sent_before: u32,
    /// Of those sent, handshakes done; for QoS 0 equal to `sent`.
    pub(crate) acked: u32,
    /// Of those sent, arrived at the peer.
    pub(crate) delivered: u32,
    /// Messages sent, by stream, where a hash chooses it.
    pub(crate) by_stream: Box<[u32]>,
    /// Message numbers, from and to (exclusive), of which the publisher does not know whether the
    /// broker took them.
    pub(crate) unsure: Vec<(u32, u32)>,
    /// PUBLISH packets of QoS 1 sent again.
    pub(crate) resent: u32,
    /// How often it was away without a session that keeps its messages.
    pub(crate) epoch: u16,
    next_id: u16,
}

/// What a subscriber remembers of what came, by what it expects.
#[derive(Debug, serde::Serialize, serde::Deserialize)]
pub(crate) enum Heard {
    /// Streams of which it gets all.
    Flows(Flows),
    /// Streams of which it gets a part: the last number of each. The group has the rest.
    Last(HashMap<u64, u32>),
    /// Retained messages.
    Retained(Box<RetainedHeard>),
}

/// Retained messages that came since SUBSCRIBE.
#[derive(Debug, Default, serde::Serialize, serde::Deserialize)]
pub(crate) struct RetainedHeard {
    /// By publisher: the sequence number + 1 at each topic's index, 0 where none came.
    pub(crate) by_publisher: HashMap<u32, Vec<u32>>,
    pub(crate) duplicates: u64,
    /// When SUBSCRIBE went and when the last message came, in ns of CLOCK_MONOTONIC.
    pub(crate) subscribed_ns: u64,
    pub(crate) last_ns: u64,
}

impl RetainedHeard {
    /// Notes the retained message `seq` of the topic with this index; false for a second one.
    pub(crate) fn arrive(&mut self, publisher: u32, index: u32, seq: u32) -> bool {
        let topics = self.by_publisher.entry(publisher).or_default();
        if topics.len() <= index as usize {
            topics.resize(index as usize + 1, 0);
        }
        let old = std::mem::replace(&mut topics[index as usize], seq.saturating_add(1));
        self.duplicates += u64::from(old != 0);
        old == 0
    }
}

/// A PUBLISH on its way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Handshake {
    /// When the message was due.
    pub(crate) intended_ns: u64,
    /// When it was sent.
    pub(crate) sent_ns: u64,
    /// Its number among those of its publisher.
    pub(crate) message: u32,
    /// Its number in its stream.
    pub(crate) seq: u32,
    pub(crate) packet_id: PacketId,
    pub(crate) stage: Stage,
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
    pub(crate) fn new(topic: String, heard: Heard, streams: usize) -> Self {
        Self {
            topic: topic.into_boxed_str(),
            heard,
            inflight: VecDeque::new(),
            unreleased: Vec::new(),
            sent: 0,
            sent_before: 0,
            acked: 0,
            delivered: 0,
            by_stream: vec![0; streams].into_boxed_slice(),
            unsure: Vec::new(),
            resent: 0,
            epoch: 0,
            next_id: 0,
        }
    }

    /// Opens a handshake; its packet identifier is chosen here.
    pub(crate) fn begin(&mut self, handshake: Handshake) -> PacketId {
        self.next_id = self.next_id.checked_add(1).unwrap_or(1);
        let packet_id = PacketId::new(self.next_id).expect("counts from 1");
        self.inflight.push_back(Handshake { packet_id, ..handshake });
        packet_id
    }

    /// Moves the handshake `packet_id` from `from` to `to` and gives it; `None` when there is none
    /// that waits for this.
    pub(crate) fn advance(
        &mut self,
        packet_id: PacketId,
        from: Stage,
        to: Stage,
    ) -> Option<Handshake> {
        // Acknowledgements come in order from a broker that keeps [MQTT-4.6.0-2], so this is the
        // first or one near it.
        let entry =
            self.inflight.iter_mut().find(|h| h.packet_id == packet_id && h.stage == from)?;
        entry.stage = to;
        let moved = *entry;
        while self.inflight.front().is_some_and(|h| h.stage == Stage::Done) {
            self.inflight.pop_front();
        }
        if to == Stage::Done {
            self.acked += 1;
        }
        Some(moved)
    }

    /// The session is gone: nobody will ever say what became of the open handshakes.
    pub(crate) fn give_up_handshakes(&mut self) {
        for h in std::mem::take(&mut self.inflight) {
            if h.stage != Stage::Done {
                self.acked += 1;
                self.unsure.push((h.message, h.message + 1));
            }
        }
        self.unreleased.clear();
        self.delivered = self.delivered.max(self.acked);
    }

    /// Messages that no window waits for any more: those that are acknowledged and delivered, or
    /// will never be.
    pub(crate) fn write_off(&mut self) {
        self.delivered = self.delivered.max(self.sent);
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

    /// Bytes that wait behind a client's send.
    pub(crate) fn backlog(&self, out: u32) -> usize {
        self.slots.get(out as usize).map_or(0, |b| b.pending.len())
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

    fn traffic() -> Traffic {
        Traffic::new("t".into(), Heard::Flows(Flows::default()), 0)
    }

    fn handshake(stage: Stage, message: u32) -> Handshake {
        let packet_id = PacketId::new(1).unwrap();
        Handshake { intended_ns: 0, sent_ns: 0, message, seq: message, packet_id, stage }
    }

    #[test]
    fn a_qos_2_handshake_ends_once() {
        let mut t = traffic();
        let a = t.begin(handshake(Stage::PubRec, 10));
        let b = t.begin(handshake(Stage::PubRec, 20));
        let mut step = |id, from, to| t.advance(id, from, to).map(|h| h.message);
        assert_eq!(step(a, Stage::PubComp, Stage::Done), None, "PUBCOMP before PUBREC");
        assert_eq!(step(a, Stage::PubRec, Stage::PubComp), Some(10));
        assert_eq!(step(b, Stage::PubRec, Stage::PubComp), Some(20));
        assert_eq!(step(b, Stage::PubComp, Stage::Done), Some(20));
        assert_eq!(step(a, Stage::PubComp, Stage::Done), Some(10));
        assert_eq!(step(a, Stage::PubComp, Stage::Done), None);
        assert!(t.inflight.is_empty());
        assert_eq!(t.acked, 2);
    }

    #[test]
    fn packet_identifiers_skip_zero() {
        let mut t = traffic();
        t.next_id = u16::MAX;
        assert_eq!(t.begin(handshake(Stage::PubAck, 0)).get(), 1);
    }

    #[test]
    fn handshakes_of_a_lost_session_are_unsure_and_block_no_window() {
        let mut t = traffic();
        let a = t.begin(handshake(Stage::PubAck, 0));
        t.begin(handshake(Stage::PubAck, 1));
        t.sent = 2;
        t.advance(a, Stage::PubAck, Stage::Done);
        t.give_up_handshakes();
        assert_eq!((t.acked, t.unsure.as_slice()), (2, [(1, 2)].as_slice()));
    }

    #[test]
    fn a_second_retained_message_of_a_topic_is_a_duplicate() {
        let mut heard = RetainedHeard::default();
        assert!(heard.arrive(7, 3, 0));
        assert!(heard.arrive(8, 3, 0));
        assert!(!heard.arrive(7, 3, 1));
        assert_eq!((heard.duplicates, &heard.by_publisher[&7]), (1, &vec![0, 0, 0, 2]));
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
