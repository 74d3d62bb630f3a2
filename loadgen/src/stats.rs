//! What workers count and measure, and what they share with the coordinator.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use hdrhistogram::Histogram;

/// Clients that needed more attempts than this share a counter.
pub const ATTEMPTS_TOLD: usize = 8;

macro_rules! counters {
    ($($(#[$doc:meta])* $name:ident $(: $gauge:ident)?,)*) => {
        /// Counts of one worker, or their sum.
        #[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
        #[serde(default)]
        pub struct Counters {
            $($(#[$doc])* pub $name: u64,)*
            /// Clients that became ready, by the attempts that they needed: first those with one.
            /// The last entry has those with more attempts, too.
            pub attempts_needed: [u64; ATTEMPTS_TOLD],
        }

        impl Counters {
            /// Adds another worker's counts.
            pub fn add(&mut self, o: &Self) {
                $(self.$name += o.$name;)*
                for (into, from) in self.attempts_needed.iter_mut().zip(o.attempts_needed) {
                    *into += from;
                }
            }

            /// What was counted since `before`; what goes up and down stays as it is.
            #[must_use]
            pub fn since(&self, before: &Self) -> Self {
                let mut delta = self.clone();
                $(counters!(@since delta before $name $($gauge)?);)*
                for (into, from) in delta.attempts_needed.iter_mut().zip(before.attempts_needed) {
                    *into -= from;
                }
                delta
            }
        }
    };
    (@since $delta:ident $before:ident $name:ident gauge) => {};
    (@since $delta:ident $before:ident $name:ident) => {
        $delta.$name = $delta.$name.saturating_sub($before.$name);
    };
}

counters! {
    /// Connections begun.
    attempts,
    /// Connections that became ready: CONNACK, and SUBACK where there are subscriptions.
    ready,
    /// Clients that used up their attempts without becoming ready.
    failed,
    /// Attempts that failed and were to be tried again.
    retries,
    /// Connections that ended after they were ready, without us wanting it.
    broken,
    /// Connections that are ready now.
    live: gauge,
    /// Clients that wait for their turn to connect, or for their next attempt.
    waiting: gauge,
    /// Connections that are on their way to being ready.
    opening: gauge,
    /// Connections that we end and that have not ended.
    closing: gauge,
    /// Clients that will not connect again.
    finished: gauge,
    /// Connections that found their session again.
    resumed,
    /// Connections that did not find a session that was to be kept.
    sessions_lost,
    /// Messages sent.
    sent,
    /// Bytes of PUBLISH packets sent.
    sent_bytes,
    /// PUBLISH packets sent again after a connection was renewed.
    resent,
    /// Messages that were due in an open loop.
    due,
    /// Of these, the ones that could not be sent: their client was away or its queue full.
    unsent,
    /// Handshakes done, in QoS 1 and 2.
    acked,
    /// Distinct messages received.
    delivered,
    /// Bytes of payload received.
    delivered_bytes,
    /// Copies beyond the first.
    duplicates,
    /// Copies beyond the first that MQTT allows.
    redelivered,
    /// Messages received with RETAIN set.
    retained,
    /// Wills received.
    wills,
    /// Publishers that sent all they were to send.
    publishers_done: gauge,
    /// PINGREQ sent.
    pings,
    /// PINGREQ that had no answer when the next was due.
    pings_unanswered,
    /// Half-open peers and slow readers that the broker hung up on.
    hung_up,
    /// Packets that break the protocol or answer nothing.
    protocol_errors,
    /// Acknowledgements with a reason code of 0x80 or above.
    refused_messages,
}

/// What a worker is told to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Order {
    /// The stage of the plan with this index.
    Stage(u32),
    /// Measure from now on: hand over what was measured, and forget it.
    Measure,
    /// Publish nothing new; receive what is on its way.
    Drain,
    /// Leave.
    Stop,
}

impl Order {
    fn encode(self) -> u32 {
        match self {
            Self::Stage(index) => index,
            Self::Measure => u32::MAX - 2,
            Self::Drain => u32::MAX - 1,
            Self::Stop => u32::MAX,
        }
    }

    fn decode(code: u32) -> Self {
        match u32::MAX - code {
            0 => Self::Stop,
            1 => Self::Drain,
            2 => Self::Measure,
            _ => Self::Stage(code),
        }
    }
}

/// Shared by the workers and the coordinator. Written rarely: counters are copied at most every
/// 10 ms.
#[derive(Debug)]
pub(crate) struct Shared {
    /// Number of the order above, its code below.
    order: AtomicU64,
    /// Deliveries over all workers, for group windows.
    pub(crate) group_delivered: AtomicU64,
    /// Messages sent over all workers, for group windows.
    pub(crate) group_sent: AtomicU64,
    workers: Box<[Mutex<Desk>]>,
}

/// Where a worker leaves what the coordinator picks up.
#[derive(Debug, Default)]
struct Desk {
    counters: Counters,
    /// Number of the last order that the worker has begun.
    order: u32,
    full: Option<Box<Latencies>>,
    spare: Option<Box<Latencies>>,
    /// Time that the worker's thread waited for a CPU, and had one, in ns.
    run_queue: RunQueue,
}

/// What /proc says about a thread's wish to run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct RunQueue {
    /// Time on a CPU in ns.
    pub(crate) ran_ns: u64,
    /// Time ready to run, without a CPU, in ns.
    pub(crate) waited_ns: u64,
}

impl RunQueue {
    pub(crate) fn add(&mut self, o: Self) {
        self.ran_ns += o.ran_ns;
        self.waited_ns += o.waited_ns;
    }
}

impl Shared {
    /// For `workers` workers.
    pub(crate) fn new(workers: usize) -> Self {
        Self {
            order: AtomicU64::new(u64::from(Order::Drain.encode())),
            group_delivered: AtomicU64::new(0),
            group_sent: AtomicU64::new(0),
            workers: (0..workers).map(|_| Mutex::default()).collect(),
        }
    }

    fn desk(&self, worker: usize) -> std::sync::MutexGuard<'_, Desk> {
        // A worker that panicked takes the run with it, so a poisoned lock has no reader to fool.
        self.workers[worker].lock().unwrap_or_else(|e| e.into_inner())
    }

    /// The order of the moment with its number.
    pub(crate) fn order(&self) -> (u32, Order) {
        let order = self.order.load(Ordering::Acquire);
        ((order >> 32) as u32, Order::decode(order as u32))
    }

    /// Gives an order; only the coordinator does.
    pub(crate) fn give(&self, order: Order) -> u32 {
        let number = (self.order.load(Ordering::Relaxed) >> 32) as u32 + 1;
        self.order.store(u64::from(number) << 32 | u64::from(order.encode()), Ordering::Release);
        number
    }

    /// Publishes a worker's counts; `order` is the number of the order that they know of.
    pub(crate) fn publish(&self, worker: usize, counters: &Counters, order: u32) {
        let mut desk = self.desk(worker);
        desk.counters.clone_from(counters);
        desk.order = order;
    }

    pub(crate) fn publish_run_queue(&self, worker: usize, run_queue: RunQueue) {
        self.desk(worker).run_queue = run_queue;
    }

    /// Hands a worker's latencies over and gives it empty ones. Without `now` only when the
    /// coordinator picked up the last ones, so that the worker never adds histograms up.
    pub(crate) fn hand_over(&self, worker: usize, latencies: &mut Box<Latencies>, now: bool) {
        let mut desk = self.desk(worker);
        match &mut desk.full {
            None => {
                let empty = desk.spare.take().unwrap_or_default();
                desk.full = Some(std::mem::replace(latencies, empty));
            }
            Some(full) if now => {
                full.add(latencies);
                latencies.reset();
            }
            Some(_) => {}
        }
    }

    /// Picks up what workers measured.
    pub(crate) fn collect(&self, mut into: impl FnMut(&Latencies)) {
        for worker in 0..self.workers.len() {
            let Some(mut full) = self.desk(worker).full.take() else { continue };
            into(&full);
            full.reset();
            self.desk(worker).spare = Some(full);
        }
    }

    /// The sum over the workers, at most about 10 ms old.
    pub(crate) fn total(&self) -> Counters {
        let mut sum = Counters::default();
        (0..self.workers.len()).for_each(|w| sum.add(&self.desk(w).counters));
        sum
    }

    /// Whether all workers have begun the order and their counters know of it.
    pub(crate) fn begun(&self, order: u32) -> bool {
        (0..self.workers.len()).all(|w| self.desk(w).order >= order)
    }

    /// The sum over the workers.
    pub(crate) fn run_queue(&self) -> RunQueue {
        let mut sum = RunQueue::default();
        (0..self.workers.len()).for_each(|w| sum.add(self.desk(w).run_queue));
        sum
    }
}

/// What is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(usize)]
pub(crate) enum Metric {
    /// From the first system call to CONNACK.
    Connect,
    /// From SUBSCRIBE to SUBACK.
    Subscribe,
    /// From when a message was due to its PUBACK or PUBCOMP.
    Ack,
    /// From when it was sent to its PUBACK or PUBCOMP, in an open loop.
    AckRaw,
    /// From when a message was due to its arrival.
    Delivery,
    /// From when it was sent to its arrival, in an open loop.
    DeliveryRaw,
    /// From when a message was due to when it was sent, in an open loop.
    Lag,
    /// From SUBSCRIBE to the last retained message.
    Replay,
}

/// The metrics in order, with the name under which they are reported; those without one are the
/// raw side of the one before.
pub(crate) const METRICS: [(Metric, Option<&str>); 8] = [
    (Metric::Connect, Some("connect")),
    (Metric::Subscribe, Some("subscribe")),
    (Metric::Ack, Some("ack")),
    (Metric::AckRaw, None),
    (Metric::Delivery, Some("delivery")),
    (Metric::DeliveryRaw, None),
    (Metric::Lag, Some("lag")),
    (Metric::Replay, Some("replay")),
];

/// Latencies in ns, by metric.
#[derive(Clone, Debug)]
pub(crate) struct Latencies {
    of: [Histogram<u64>; METRICS.len()],
}

/// Longest latency that is told apart, in ns: two minutes. Longer ones count as this.
pub const LATENCY_MAX_NS: u64 = 120_000_000_000;

impl Default for Latencies {
    fn default() -> Self {
        let new = |_| {
            Histogram::new_with_bounds(1, LATENCY_MAX_NS, 3).expect("1 and 3 digits are in range")
        };
        Self { of: std::array::from_fn(new) }
    }
}

impl Latencies {
    /// Records a latency in ns.
    #[inline]
    pub(crate) fn record(&mut self, metric: Metric, ns: u64) {
        self.of[metric as usize].saturating_record(ns);
    }

    pub(crate) fn get(&self, metric: Metric) -> &Histogram<u64> {
        &self.of[metric as usize]
    }

    /// Adds what another one measured.
    pub(crate) fn add(&mut self, other: &Self) {
        for (into, from) in self.of.iter_mut().zip(&other.of) {
            if !from.is_empty() {
                into.add(from).expect("all have the same bounds");
            }
        }
    }

    /// Forgets everything.
    pub(crate) fn reset(&mut self) {
        // A reset writes to the whole histogram: leave the ones alone that nobody used.
        self.of.iter_mut().filter(|h| !h.is_empty()).for_each(Histogram::reset);
    }

    /// Forgets the latencies of messages, not those of connections.
    pub(crate) fn reset_messages(&mut self) {
        for metric in
            [Metric::Ack, Metric::AckRaw, Metric::Delivery, Metric::DeliveryRaw, Metric::Lag]
        {
            self.of[metric as usize].reset();
        }
    }
}

/// What went wrong, by kind.
pub(crate) type Faults = BTreeMap<String, u64>;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_order_survives_its_code() {
        for order in [Order::Stage(0), Order::Stage(9), Order::Measure, Order::Drain, Order::Stop] {
            assert_eq!(Order::decode(order.encode()), order);
        }
    }

    #[test]
    fn merged_histograms_have_the_values_of_both() {
        let (mut a, mut b) = (Latencies::default(), Latencies::default());
        (1..=1000).for_each(|us| a.record(Metric::Delivery, us * 1000));
        (1001..=2000).for_each(|us| b.record(Metric::Delivery, us * 1000));
        b.record(Metric::Lag, u64::MAX);
        a.add(&b);
        let h = a.get(Metric::Delivery);
        assert_eq!(h.len(), 2000);
        let p50 = h.value_at_quantile(0.5);
        assert!((999_000..=1_002_000).contains(&p50), "three digits: {p50}");
        assert!(
            a.get(Metric::Lag).max() >= LATENCY_MAX_NS,
            "what is too long counts as the longest"
        );
    }

    #[test]
    fn latencies_handed_over_arrive_once() {
        let shared = Shared::new(1);
        let mut mine = Box::<Latencies>::default();
        let mut got = Latencies::default();
        for round in 0..3 {
            mine.record(Metric::Ack, 5);
            shared.hand_over(0, &mut mine, round == 2);
            mine.record(Metric::Ack, 6);
            shared.hand_over(0, &mut mine, false);
            shared.collect(|l| got.add(l));
        }
        shared.hand_over(0, &mut mine, true);
        shared.collect(|l| got.add(l));
        assert_eq!(got.get(Metric::Ack).len(), 6);
    }

    #[test]
    fn a_difference_of_counters_keeps_what_goes_up_and_down() {
        let before = Counters { sent: 5, live: 9, ..Counters::default() };
        let after = Counters { sent: 7, live: 3, ..Counters::default() };
        let delta = after.since(&before);
        assert_eq!((delta.sent, delta.live), (2, 3));
    }
}
