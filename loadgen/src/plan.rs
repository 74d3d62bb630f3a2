//! What a run does: populations of clients, how they behave, and the stages that it leads them
//! through.
//!
//! A command line or a scenario becomes a [`Plan`]; workers know only plans. A plan is data: an
//! agent gets its own as JSON.

mod as_numbers;
mod check;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use ringmain_mqtt::{QoS, RetainHandling, Version};
use serde::{Deserialize, Serialize};

use crate::size::Size;
use crate::stamp::STAMP_LEN;
use crate::template::Template;

/// Clients of one plan at most: a publisher's number has 24 bits in a stamp.
pub const CLIENTS_MAX: usize = 16_000_000;
/// Populations at most: their index has 7 bits in a stamp.
pub const POPULATIONS_MAX: usize = 128;

/// Everything a run needs to know.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Plan {
    /// The broker.
    pub target: SocketAddr,
    /// Local addresses to connect from, in turn; empty leaves the choice to the kernel.
    pub sources: Vec<SocketAddr>,
    /// Threads. Clients are dealt out by their number, so that a pair shares its worker.
    pub workers: usize,
    /// CPUs for the workers, in turn; empty leaves them where the scheduler puts them.
    pub cpus: Vec<usize>,
    /// A connection that is not ready after this counts as failed.
    pub connect_timeout: Duration,
    /// When a connection that failed is tried again.
    pub backoff: Backoff,
    /// What happens to connections at the end of a cycle and in [`Stage::Close`].
    pub end: End,
    /// Connections that each client makes in [`Stage::Connect`], one after another; above 1 a
    /// client closes as soon as it is ready, and connects again.
    pub cycles: u32,
    /// Each cycle has client identifiers of its own.
    pub fresh_ids: bool,
    /// What all random choices depend on.
    pub seed: u64,
    /// The coordinator's CLOCK_MONOTONIC less this machine's, in ns: stamps hold its time, so that
    /// agents on several machines can measure each other's messages.
    pub clock_offset_ns: i64,
    /// The groups of clients. The first ones get the first slots, and so the main ring.
    pub populations: Vec<Population>,
    /// What happens, in order.
    pub stages: Vec<StagePlan>,
}

/// A stage with its name.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StagePlan {
    /// For reports.
    pub name: String,
    /// What happens.
    pub stage: Stage,
}

/// A part of a run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Stage {
    /// Opens the connections that are not open, and goes on when each is ready or failed. Brings
    /// back what an earlier stage dropped.
    Connect {
        /// New connections a second over all workers; `None` is as fast as `in_flight` allows.
        rate: Option<f64>,
        /// Connections that may be opening at the same time, over all workers.
        in_flight: usize,
        /// Attempts for each client before it failed; at least 1.
        attempts_max: u32,
        /// Which populations, by index; empty means all.
        populations: Vec<u16>,
    },
    /// Keeps the connections.
    Hold {
        /// How long.
        duration: Duration,
    },
    /// Populations with a publish plan publish.
    Traffic {
        /// Not measured.
        warmup: Duration,
        /// Measured; `None` goes on until each publisher sent its limit.
        duration: Option<Duration>,
        /// How long deliveries may stand still at the end, before what is missing counts as lost.
        drain: Duration,
        /// Deliveries after which the stage ends, where the publishers are in another process.
        deliveries: Option<u64>,
        /// Which populations publish, by index; empty means all that have a publish plan.
        populations: Vec<u16>,
    },
    /// Waits until nothing has arrived for `patience`.
    Drain {
        /// How long nothing may arrive.
        patience: Duration,
    },
    /// Ends the connections of a population. Its sessions stay where they were asked for; its
    /// clients wait for a later [`Stage::Connect`].
    Offline {
        /// Index of the population.
        population: u16,
        /// How the connections end.
        end: End,
    },
    /// Ends all connections at once, and opens all again at once. Ends when all are ready, or used
    /// up their attempts.
    Storm {
        /// How the connections end.
        end: End,
        /// New connections a second over all workers.
        rate: Option<f64>,
        /// Connections that may be opening at the same time, over all workers.
        in_flight: usize,
        /// Attempts for each client; at least 1.
        attempts_max: u32,
    },
    /// Clients of one population close and come back, one after another, while all populations
    /// publish that have a publish plan. What an open loop's client would have sent while it is
    /// away is not due.
    Churn {
        /// Index of the population.
        population: u16,
        /// Closes a second over all workers.
        rate: f64,
        /// How long.
        duration: Duration,
        /// How the connections end.
        end: End,
        /// How long deliveries may stand still at the end, before what is missing counts as lost.
        drain: Duration,
    },
    /// Ends all connections as [`Plan::end`] says.
    Close,
}

impl Stage {
    /// The kind in one word.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Connect { .. } => "connect",
            Self::Hold { .. } => "hold",
            Self::Traffic { .. } => "traffic",
            Self::Drain { .. } => "drain",
            Self::Offline { .. } => "offline",
            Self::Storm { .. } => "storm",
            Self::Churn { .. } => "churn",
            Self::Close => "close",
        }
    }

    /// The stage under the name of its kind.
    #[must_use]
    pub fn named(self) -> StagePlan {
        StagePlan { name: self.kind().to_owned(), stage: self }
    }

    /// The stage under a name of its own.
    #[must_use]
    pub fn called(self, name: &str) -> StagePlan {
        StagePlan { name: name.to_owned(), stage: self }
    }
}

/// When a failed connection is tried again: after `first`, then `factor` times as long each time,
/// at most `max`, all ± `jitter` of it.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Backoff {
    /// Before the second attempt.
    pub first: Duration,
    /// How much longer each further one waits.
    pub factor: f64,
    /// The longest wait.
    pub max: Duration,
    /// Share of the wait that is random, from 0 to 1: without it clients that failed together come
    /// back together.
    pub jitter: f64,
}

impl Default for Backoff {
    fn default() -> Self {
        Self {
            first: Duration::from_millis(500),
            factor: 2.0,
            max: Duration::from_secs(30),
            jitter: 0.5,
        }
    }
}

impl Backoff {
    /// The wait after `failed` attempts (at least 1), in ns; `unit` is from 0 to 1.
    #[must_use]
    pub fn wait_ns(&self, failed: u32, unit: f64) -> u64 {
        let steps = failed.saturating_sub(1).min(64) as i32;
        let wait = self.first.as_nanos() as f64 * self.factor.powi(steps);
        let wait = wait.min(self.max.as_nanos() as f64);
        (wait * (1.0 - self.jitter + 2.0 * self.jitter * unit)) as u64
    }
}

/// How a connection ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum End {
    /// DISCONNECT, then FIN.
    Disconnect,
    /// FIN alone: the broker publishes the will.
    Fin,
    /// RST.
    Rst,
}

/// Clients that behave alike.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Population {
    /// For reports: `"publishers"`.
    pub name: String,
    /// How many.
    pub count: u32,
    /// Number of the first one, so that several agents have numbers of their own.
    pub first: u32,
    /// CONNECT.
    pub connect: ConnectPlan,
    /// SUBSCRIBE, after CONNACK.
    pub subscriptions: Vec<SubscribePlan>,
    /// What they publish in the traffic stages.
    pub publish: Option<PublishPlan>,
    /// What a subscriber must hear.
    pub expect: Expect,
    /// How they treat their socket.
    pub behaviour: Behaviour,
}

/// How clients treat their socket once they are ready.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Behaviour {
    /// They read what comes.
    #[default]
    Normal,
    /// They read at most this many bytes a second; 0 reads nothing.
    Slow {
        /// Bytes a second.
        bytes_per_s: u32,
    },
    /// They neither read nor send; their socket stays open. Their broker should notice.
    HalfOpen,
}

/// The fields of CONNECT.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ConnectPlan {
    /// Protocol version; as its protocol level in JSON.
    #[serde(with = "as_numbers::level")]
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
    /// User names and passwords from a file, by the client's number modulo their count; go before
    /// the templates.
    pub credentials: Option<Arc<[(String, String)]>>,
    /// Receive Maximum, in MQTT 5.
    pub receive_maximum: Option<u16>,
    /// Maximum Packet Size in bytes, in MQTT 5.
    pub maximum_packet_size: Option<u32>,
    /// User Properties, in MQTT 5.
    pub user_properties: Vec<(String, String)>,
    /// Will Message.
    pub will: Option<WillPlan>,
}

impl ConnectPlan {
    /// Clean Start, no keep-alive, identifiers from a template.
    #[must_use]
    pub fn new(version: Version, ids: Template) -> Self {
        Self {
            version,
            clean_start: true,
            session_expiry_s: None,
            keep_alive_s: 0,
            ids: ClientIds::Template(ids),
            username: None,
            password: None,
            credentials: None,
            receive_maximum: None,
            maximum_packet_size: None,
            user_properties: Vec::new(),
            will: None,
        }
    }

    /// Whether the broker keeps the session while a client is away.
    #[must_use]
    pub fn keeps_session(&self) -> bool {
        !self.clean_start && (!self.version.is_v5() || self.session_expiry_s.unwrap_or(0) > 0)
    }
}

/// The Will Message.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct WillPlan {
    /// Will Topic.
    pub topic: Template,
    /// Bytes of payload; from [`STAMP_LEN`] on it carries a stamp.
    pub size: usize,
    /// Will QoS.
    #[serde(with = "as_numbers::qos")]
    pub qos: QoS,
    /// Will Retain.
    pub retain: bool,
    /// Will Delay Interval in seconds, in MQTT 5.
    pub delay_s: Option<u32>,
}

/// Where client identifiers come from.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ClientIds {
    /// From a template; `%i` is the client's number.
    Template(Template),
    /// From a list, in order.
    List(Arc<[String]>),
}

/// Subscriptions of one client, made with one SUBSCRIBE.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SubscribePlan {
    /// Topic Filter, `$share/GROUP/` included.
    pub filter: Template,
    /// How many times it is rendered, with `%n` from 0 up; at least 1.
    pub copies: u32,
    /// Maximum QoS.
    #[serde(with = "as_numbers::qos")]
    pub qos: QoS,
    /// No Local, in MQTT 5.
    pub no_local: bool,
    /// Retain As Published, in MQTT 5.
    pub retain_as_published: bool,
    /// Retain Handling, in MQTT 5; as its number in JSON.
    #[serde(with = "as_numbers::handling")]
    pub retain_handling: RetainHandling,
    /// Subscription Identifier, in MQTT 5.
    pub subscription_id: Option<u32>,
}

impl SubscribePlan {
    /// One filter with the options' defaults.
    #[must_use]
    pub fn new(filter: Template, qos: QoS) -> Self {
        Self {
            filter,
            copies: 1,
            qos,
            no_local: false,
            retain_as_published: false,
            retain_handling: RetainHandling::Send,
            subscription_id: None,
        }
    }
}

/// What a publisher sends.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PublishPlan {
    /// Topic Name.
    pub topic: Template,
    /// QoS.
    #[serde(with = "as_numbers::qos")]
    pub qos: QoS,
    /// RETAIN.
    pub retain: bool,
    /// Bytes of payload; where all have [`STAMP_LEN`] or more, they carry a stamp.
    pub size: Size,
    /// When the next message goes out.
    pub pace: Pace,
    /// Messages per publisher and stage; `None` goes on until the stage ends.
    pub limit: Option<u32>,
}

impl PublishPlan {
    /// Whether each payload has room for the stamp that subscribers check.
    #[must_use]
    pub fn stamped(&self) -> bool {
        self.size.min() >= STAMP_LEN
    }
}

/// What makes a publisher send.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
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
    /// Open loop: the messages are a Poisson process; each publisher has one due every `interval`
    /// on average.
    Poisson {
        /// Mean time between the messages of one publisher.
        interval: Duration,
    },
}

impl Pace {
    /// The mean time between a publisher's messages, where they are due at times of their own.
    #[must_use]
    pub fn interval(&self) -> Option<Duration> {
        match *self {
            Self::Every { interval } | Self::Poisson { interval } => Some(interval),
            _ => None,
        }
    }
}

/// Which messages a subscriber must have received at the end.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Expect {
    /// Nothing is checked.
    #[default]
    None,
    /// What arrives is checked for gaps, but where it ends is not known here.
    Stream,
    /// All that the publisher with the same number in the population sent.
    Peer(u16),
    /// All that each publisher of the population sent.
    All(u16),
    /// All that publishers of the population sent to topics which this subscriber's filters match.
    Matching(u16),
    /// The members of each `$share` group together: all that each publisher of the population
    /// sent, each message once in all.
    SharedGroup(u16),
    /// The retained message of each topic that the population published to, once, the last one.
    Retained(u16),
    /// Each client as many messages as any other, however addressed, of all that the population
    /// sent: with one message for each, exactly one. Costs a client four bytes.
    One(u16),
    /// The will of each client of the population, once for each connection that ended without
    /// DISCONNECT.
    Wills(u16),
}

impl Expect {
    /// The population that is heard.
    #[must_use]
    pub fn population(self) -> Option<u16> {
        match self {
            Self::None | Self::Stream => None,
            Self::Peer(p)
            | Self::All(p)
            | Self::Matching(p)
            | Self::SharedGroup(p)
            | Self::Retained(p)
            | Self::One(p)
            | Self::Wills(p) => Some(p),
        }
    }
}

impl Population {
    /// A population that connects and does nothing else.
    #[must_use]
    pub fn idle(name: &str, count: u32, connect: ConnectPlan) -> Self {
        Self {
            name: name.to_owned(),
            count,
            first: 0,
            connect,
            subscriptions: Vec::new(),
            publish: None,
            expect: Expect::None,
            behaviour: Behaviour::Normal,
        }
    }

    /// Whether its clients need more than a CONNECT and a SUBSCRIBE.
    #[must_use]
    pub fn has_traffic(&self) -> bool {
        self.publish.is_some() || !matches!(self.expect, Expect::None | Expect::One(_))
    }
}

impl Plan {
    /// A plan with one worker and no populations or stages.
    #[must_use]
    pub fn new(target: SocketAddr) -> Self {
        Self {
            target,
            sources: Vec::new(),
            workers: 1,
            cpus: Vec::new(),
            connect_timeout: Duration::from_secs(30),
            backoff: Backoff::default(),
            end: End::Disconnect,
            cycles: 1,
            fresh_ids: false,
            seed: 1,
            clock_offset_ns: 0,
            populations: Vec::new(),
            stages: Vec::new(),
        }
    }

    /// Clients of all populations.
    #[must_use]
    pub fn clients(&self) -> usize {
        self.populations.iter().map(|p| p.count as usize).sum()
    }

    /// Whether clients close as soon as they are ready.
    #[must_use]
    pub fn cycles_on(&self) -> bool {
        self.cycles > 1
    }

    /// Whether messages are due at times of their own in any stage.
    #[must_use]
    pub fn is_open_loop(&self) -> bool {
        let publish = self.populations.iter().filter_map(|p| p.publish.as_ref());
        publish.clone().any(|p| p.pace.interval().is_some())
    }
}
