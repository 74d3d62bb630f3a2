//! What a run does: populations of clients, and how they behave.
//!
//! A command line (later: a scenario file) becomes a [`Plan`]; workers know only plans.

use std::net::SocketAddr;
use std::time::Duration;

use ringmain_mqtt::{QoS, Version};

use crate::stamp::STAMP_LEN;
use crate::template::Template;

/// Clients of one plan at most: client numbers and slots are 32-bit, with room for marks.
pub const CLIENTS_MAX: usize = 16_000_000;

/// Everything a run needs to know.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The broker.
    pub target: SocketAddr,
    /// Local addresses to connect from, in turn; empty leaves the choice to the kernel.
    pub sources: Vec<SocketAddr>,
    /// Threads. Clients are dealt out by their number, so that a pair shares its worker.
    pub workers: usize,
    /// CPUs for the workers, in turn; empty leaves them where the scheduler puts them.
    pub cpus: Vec<usize>,
    /// New connections a second over all workers.
    pub connect_rate: Option<f64>,
    /// Connections that may be opening at the same time, over all workers.
    pub connects_in_flight: usize,
    /// A connection that is not ready after this counts as failed.
    pub connect_timeout: Duration,
    /// What happens to connections at the end of a cycle.
    pub end: End,
    /// Connections that each client makes, one after another; above 1 the run is a churn: a client
    /// closes as soon as it is ready, and connects again.
    pub cycles: u32,
    /// Each cycle has client identifiers of its own.
    pub fresh_ids: bool,
    /// The groups of clients. The first ones get the first slots, and so the main ring.
    pub populations: Vec<Population>,
}

/// How a connection ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum End {
    /// DISCONNECT, then FIN.
    Disconnect,
    /// FIN alone: the broker publishes the will.
    Fin,
    /// RST.
    Rst,
}

/// Clients that behave alike.
#[derive(Clone, Debug)]
pub struct Population {
    /// For reports: `"publishers"`.
    pub name: &'static str,
    /// How many.
    pub count: u32,
    /// CONNECT.
    pub connect: ConnectPlan,
    /// SUBSCRIBE, after CONNACK.
    pub subscribe: Option<SubscribePlan>,
    /// What they publish in the traffic phase.
    pub publish: Option<PublishPlan>,
    /// Which publishers a subscriber must hear of.
    pub expect: Expect,
}

/// The fields of CONNECT.
#[derive(Clone, Debug)]
pub struct ConnectPlan {
    /// Protocol version.
    pub version: Version,
    /// Clean Start.
    pub clean_start: bool,
    /// Session Expiry Interval in seconds, in MQTT 5.
    pub session_expiry_s: Option<u32>,
    /// Keep Alive in seconds; 0 for none.
    pub keep_alive_s: u16,
    /// Client Identifiers.
    pub ids: ClientIds,
    /// User Name.
    pub username: Option<Template>,
    /// Password.
    pub password: Option<Template>,
    /// Receive Maximum, in MQTT 5.
    pub receive_maximum: Option<u16>,
}

/// Where client identifiers come from.
#[derive(Clone, Debug)]
pub enum ClientIds {
    /// From a template; `%i` is the client's number.
    Template(Template),
    /// From a list, in order.
    List(std::sync::Arc<[String]>),
}

/// One subscription.
#[derive(Clone, Debug)]
pub struct SubscribePlan {
    /// Topic Filter.
    pub filter: Template,
    /// Maximum QoS.
    pub qos: QoS,
}

/// What a publisher sends.
#[derive(Clone, Debug)]
pub struct PublishPlan {
    /// Topic Name.
    pub topic: Template,
    /// QoS.
    pub qos: QoS,
    /// RETAIN.
    pub retain: bool,
    /// Bytes of payload; from [`STAMP_LEN`] on it carries a stamp.
    pub size: usize,
    /// When the next message goes out.
    pub pace: Pace,
    /// Messages per publisher; `None` goes on until the phase ends.
    pub limit: Option<u32>,
}

impl PublishPlan {
    /// Whether the payload has room for the stamp that subscribers check.
    #[must_use]
    pub fn stamped(&self) -> bool {
        self.size >= STAMP_LEN
    }
}

/// What makes a publisher send.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Pace {
    /// Closed loop: at most `window` messages without acknowledgement (QoS 1 and 2).
    Acked {
        /// Messages outstanding.
        window: u32,
    },
    /// Closed loop: at most `window` messages that are not delivered to the peer, which is the
    /// client with the same number in population `peer`, or not acknowledged.
    Peer {
        /// Messages outstanding.
        window: u32,
        /// Index of the subscribers' population.
        peer: u16,
    },
    /// Closed loop: over the whole group at most `window` × subscribers deliveries outstanding.
    Group {
        /// Messages outstanding per publisher.
        window: u32,
        /// Deliveries that one message makes.
        fan_out: u32,
    },
    /// Open loop: each publisher has one message due every `interval`, spread evenly.
    Every {
        /// Between the messages of one publisher.
        interval: Duration,
    },
}

/// Which messages a subscriber must have received at the end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expect {
    /// Nothing is checked.
    None,
    /// What arrives is checked for gaps, but where it ends is not known here.
    Stream,
    /// All that the publisher with the same number in the population sent.
    Peer(u16),
    /// All that each publisher of the population sent.
    All(u16),
}

impl Population {
    /// A population that connects and does nothing else.
    #[must_use]
    pub fn idle(name: &'static str, count: u32, connect: ConnectPlan) -> Self {
        Self { name, count, connect, subscribe: None, publish: None, expect: Expect::None }
    }

    /// Whether its clients need more than a CONNECT and a SUBSCRIBE.
    #[must_use]
    pub fn has_traffic(&self) -> bool {
        self.publish.is_some() || self.expect != Expect::None
    }
}

impl Plan {
    /// Clients of all populations.
    #[must_use]
    pub fn clients(&self) -> usize {
        self.populations.iter().map(|p| p.count as usize).sum()
    }

    /// Whether clients close as soon as they are ready.
    #[must_use]
    pub fn is_churn(&self) -> bool {
        self.cycles > 1
    }

    /// Checks the relations between the fields.
    ///
    /// # Errors
    /// A sentence for the user.
    pub fn check(&self) -> Result<(), String> {
        if self.clients() == 0 {
            return Err("there are no clients to run".into());
        }
        if self.clients() > CLIENTS_MAX {
            return Err(format!("at most {CLIENTS_MAX} clients a run"));
        }
        if self.workers == 0 || self.cycles == 0 || self.connects_in_flight == 0 {
            return Err("workers, cycles and connects in flight start at 1".into());
        }
        for p in &self.populations {
            let Some(publish) = &p.publish else { continue };
            if matches!(publish.pace, Pace::Peer { .. } | Pace::Group { .. }) && !publish.stamped()
            {
                return Err(format!("a checked payload has {STAMP_LEN} bytes or more"));
            }
            if matches!(publish.pace, Pace::Acked { .. }) && publish.qos == QoS::AtMostOnce {
                return Err("QoS 0 has no acknowledgements: give an interval or a rate".into());
            }
        }
        Ok(())
    }
}
