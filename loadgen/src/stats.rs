//! What workers count and measure, and what they share with the coordinator.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU8, AtomicU32, AtomicU64, Ordering};

use hdrhistogram::Histogram;

use crate::stamp::Flows;

/// Counts of one worker, or their sum.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Counters {
    /// Connections begun.
    pub attempts: u64,
    /// Connections that became ready: CONNACK, and SUBACK where there is a subscription.
    pub ready: u64,
    /// Connections that did not become ready.
    pub failed: u64,
    /// Connections that ended after they were ready, without us wanting it.
    pub broken: u64,
    /// Connections that are ready now.
    pub live: u64,
    /// Clients that will not connect again.
    pub finished: u64,
    /// Messages sent.
    pub sent: u64,
    /// Bytes of PUBLISH packets sent.
    pub sent_bytes: u64,
    /// Handshakes done, in QoS 1 and 2.
    pub acked: u64,
    /// Distinct messages received.
    pub delivered: u64,
    /// Copies beyond the first.
    pub duplicates: u64,
    /// Publishers that sent all they were to send.
    pub publishers_done: u64,
    /// PINGREQ sent.
    pub pings: u64,
    /// PINGREQ that had no answer when the next was due.
    pub pings_unanswered: u64,
    /// Packets that break the protocol or answer nothing.
    pub protocol_errors: u64,
    /// Acknowledgements with a reason code of 0x80 or above.
    pub refused_messages: u64,
}

impl Counters {
    /// Adds another worker's counts.
    pub fn add(&mut self, o: &Self) {
        self.attempts += o.attempts;
        self.ready += o.ready;
        self.failed += o.failed;
        self.broken += o.broken;
        self.live += o.live;
        self.finished += o.finished;
        self.sent += o.sent;
        self.sent_bytes += o.sent_bytes;
        self.acked += o.acked;
        self.delivered += o.delivered;
        self.duplicates += o.duplicates;
        self.publishers_done += o.publishers_done;
        self.pings += o.pings;
        self.pings_unanswered += o.pings_unanswered;
        self.protocol_errors += o.protocol_errors;
        self.refused_messages += o.refused_messages;
    }
}

/// What a worker is to do. The coordinator moves it forward, never back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Phase {
    /// Open connections.
    Connect = 0,
    /// Keep them.
    Hold = 1,
    /// Publish.
    Traffic = 2,
    /// Publish nothing new; receive what is on its way.
    Drain = 3,
    /// End all connections.
    Close = 4,
    /// Leave.
    Stop = 5,
}

impl Phase {
    fn from_u8(n: u8) -> Self {
        [Self::Connect, Self::Hold, Self::Traffic, Self::Drain, Self::Close, Self::Stop]
            [usize::from(n.min(5))]
    }
}

/// Shared by the workers and the coordinator. Written rarely: counters are copied at most every
/// 10 ms.
#[derive(Debug)]
pub struct Shared {
    phase: AtomicU8,
    /// Raised when latencies begin to count: workers forget what they measured before.
    pub measure_epoch: AtomicU32,
    /// Deliveries over all workers, for group windows.
    pub group_delivered: AtomicU64,
    /// Messages sent over all workers, for group windows.
    pub group_sent: AtomicU64,
    counters: Box<[Mutex<Counters>]>,
}

impl Shared {
    /// For `workers` workers.
    #[must_use]
    pub fn new(workers: usize) -> Self {
        Self {
            phase: AtomicU8::new(0),
            measure_epoch: AtomicU32::new(0),
            group_delivered: AtomicU64::new(0),
            group_sent: AtomicU64::new(0),
            counters: (0..workers).map(|_| Mutex::default()).collect(),
        }
    }

    /// The phase that workers are to be in.
    #[must_use]
    pub fn phase(&self) -> Phase {
        Phase::from_u8(self.phase.load(Ordering::Acquire))
    }

    /// Moves the workers on.
    pub fn set_phase(&self, phase: Phase) {
        self.phase.store(phase as u8, Ordering::Release);
    }

    /// Publishes a worker's counts.
    pub fn publish(&self, worker: usize, counters: &Counters) {
        // A worker that panicked takes the run with it, so a poisoned lock has no reader to fool.
        let mut slot = self.counters[worker].lock().unwrap_or_else(|e| e.into_inner());
        slot.clone_from(counters);
    }

    /// The sum over the workers, at most about 10 ms old.
    #[must_use]
    pub fn total(&self) -> Counters {
        let mut sum = Counters::default();
        for slot in &self.counters {
            sum.add(&slot.lock().unwrap_or_else(|e| e.into_inner()));
        }
        sum
    }
}

/// Latencies in ns.
#[derive(Clone, Debug)]
pub struct Latencies {
    /// From the first system call to CONNACK.
    pub connect: Histogram<u64>,
    /// From SUBSCRIBE to SUBACK.
    pub subscribe: Histogram<u64>,
    /// From the time when a message was due to its PUBACK or PUBCOMP.
    pub ack: Histogram<u64>,
    /// From the time when a message was due to its arrival.
    pub delivery: Histogram<u64>,
}

/// Longest latency that is told apart, in ns: two minutes.
const LATENCY_MAX_NS: u64 = 120_000_000_000;

impl Default for Latencies {
    fn default() -> Self {
        let new = || {
            Histogram::new_with_bounds(1, LATENCY_MAX_NS, 3).expect("1 and 3 digits are in range")
        };
        Self { connect: new(), subscribe: new(), ack: new(), delivery: new() }
    }
}

impl Latencies {
    /// Adds what another worker measured.
    pub fn add(&mut self, other: &Self) {
        for (into, from) in [
            (&mut self.connect, &other.connect),
            (&mut self.subscribe, &other.subscribe),
            (&mut self.ack, &other.ack),
            (&mut self.delivery, &other.delivery),
        ] {
            into.add(from).expect("all have the same bounds");
        }
    }

    /// Forgets the latencies of messages, not those of connections.
    pub fn forget_messages(&mut self) {
        self.ack.reset();
        self.delivery.reset();
    }
}

/// What a worker knows at the end.
#[derive(Debug, Default)]
pub struct WorkerResult {
    /// Counts.
    pub counters: Counters,
    /// Latencies.
    pub latencies: Latencies,
    /// What went wrong, by kind.
    pub faults: BTreeMap<String, u64>,
    /// Messages sent, by global number of the publisher.
    pub sent: Vec<(u32, u32)>,
    /// What arrived, by population and number of the subscriber.
    pub flows: Vec<(u16, u32, Flows)>,
    /// CPU time of the worker's thread, in ns.
    pub cpu_ns: u64,
}
