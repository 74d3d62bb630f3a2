//! The command line. Option letters are those of emqtt-bench where the meaning is the same.

use std::net::{IpAddr, SocketAddr, ToSocketAddrs};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};
use ringmain_mqtt::{QoS, Version};

use crate::address::automatic_sources;
use crate::plan::{
    ClientIds, ConnectPlan, End, Expect, Pace, Plan, Population, PublishPlan, Stage, SubscribePlan,
};
use crate::run::RunOptions;
use crate::size::Size;
use crate::template::Template;

/// Load generator for MQTT brokers: many connections from few descriptors, exact checks of what
/// arrived.
#[derive(Debug, Parser)]
#[command(name = "ringmain-load", version, about, disable_help_flag = true)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
    /// Print help.
    #[arg(long, global = true, action = clap::ArgAction::Help)]
    help: Option<bool>,
}

/// The sub-commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Open connections, keep them, close them.
    Conn(Conn),
    /// Publish.
    Pub(Publish),
    /// Subscribe and receive.
    Sub(Subscribe),
    /// Point to point: publisher i sends to subscriber i, with a window of messages outstanding.
    Pair(Pair),
    /// Each publisher's messages go to all subscribers.
    Fanout(Fanout),
    /// Hold a million connections with a subscription each in one broker, and show that it serves
    /// them.
    Million(Box<crate::million::options::Options>),
}

/// What all sub-commands share.
#[derive(Clone, Debug, Args)]
pub struct Common {
    /// Broker host.
    #[arg(short = 'h', long, default_value = "127.0.0.1")]
    pub host: String,
    /// Broker port.
    #[arg(short = 'p', long, default_value_t = 1883)]
    pub port: u16,
    /// Protocol version: 3 (3.1), 4 (3.1.1) or 5.
    #[arg(short = 'V', long = "proto-version", default_value_t = 5,
          value_parser = clap::value_parser!(u8).range(3..=5))]
    pub version: u8,
    /// Prefix of client identifiers; `%i` is the client's number.
    #[arg(long, default_value = "rl-%i")]
    pub client_id: Template,
    /// User name; `%i` and `%c` are replaced.
    #[arg(short = 'u', long)]
    pub username: Option<Template>,
    /// Password; `%i` and `%c` are replaced.
    #[arg(short = 'P', long)]
    pub password: Option<Template>,
    /// Keep Alive in seconds; 0 for none.
    #[arg(short = 'k', long, default_value_t = 300)]
    pub keepalive: u16,
    /// Keep sessions: Clean Start 0 (and, in MQTT 5, a Session Expiry Interval).
    #[arg(long)]
    pub no_clean: bool,
    /// Session Expiry Interval in seconds, in MQTT 5. With --no-clean the default is an hour.
    #[arg(short = 'x', long)]
    pub session_expiry: Option<u32>,
    /// New connections a second; without it as fast as --in-flight allows.
    #[arg(short = 'R', long)]
    pub connrate: Option<f64>,
    /// Connections that may be opening at once.
    #[arg(long, default_value_t = 64)]
    pub in_flight: usize,
    /// Seconds after which a connection that is not ready has failed.
    #[arg(long, default_value_t = 30.0)]
    pub connect_timeout: f64,
    /// Local addresses to connect from, separated by commas. Without it, as many of 127.0.0.0/8
    /// as the connections need when the broker is there, else what the kernel chooses.
    #[arg(long, value_delimiter = ',')]
    pub ifaddr: Vec<IpAddr>,
    /// How connections end.
    #[arg(long, value_enum, default_value_t = End::Disconnect)]
    pub end: End,
    /// Threads.
    #[arg(long, default_value_t = 1)]
    pub workers: usize,
    /// CPUs for the threads, separated by commas.
    #[arg(long, value_delimiter = ',')]
    pub cpus: Vec<usize>,
    /// The broker's process, to sample its CPU time, memory and descriptors.
    #[arg(long)]
    pub broker_pid: Option<u32>,
    /// Seconds to wait before memory is sampled.
    #[arg(long, default_value_t = 0.0)]
    pub settle: f64,
    /// Seconds to keep the connections before traffic, or before they close.
    #[arg(long, default_value_t = 0.0)]
    pub hold: f64,
    /// Write the report as JSON.
    #[arg(long)]
    pub json: Option<PathBuf>,
    /// No progress lines.
    #[arg(long)]
    pub quiet: bool,
}

/// `conn`
#[derive(Clone, Debug, Args)]
pub struct Conn {
    /// What all sub-commands share.
    #[command(flatten)]
    pub common: Common,
    /// Connections.
    #[arg(short = 'c', long, default_value_t = 200)]
    pub count: u32,
    /// One subscription each; `%i` and `%c` are replaced.
    #[arg(short = 't', long)]
    pub topic: Option<Template>,
    /// Maximum QoS of the subscription.
    #[arg(short = 'q', long, default_value_t = 0, value_parser = clap::value_parser!(u8).range(0..=2))]
    pub qos: u8,
    /// Connections that each client makes, one after another. Above 1, clients close as soon as
    /// they are ready.
    #[arg(long, default_value_t = 1)]
    pub cycles: u32,
    /// `%i` goes on from cycle to cycle, so that each makes new sessions.
    #[arg(long)]
    pub fresh_ids: bool,
}

/// What publishing sub-commands share.
#[derive(Clone, Debug, Args)]
pub struct Messages {
    /// QoS.
    #[arg(short = 'q', long, default_value_t = 0, value_parser = clap::value_parser!(u8).range(0..=2))]
    pub qos: u8,
    /// Bytes of payload; checks need 16.
    #[arg(short = 's', long, default_value_t = 16)]
    pub size: usize,
    /// Messages of each publisher; without it the run lasts --duration.
    #[arg(short = 'L', long)]
    pub limit: Option<u32>,
    /// Seconds of measured traffic.
    #[arg(short = 'd', long)]
    pub duration: Option<f64>,
    /// Seconds of traffic before anything is measured.
    #[arg(long, default_value_t = 0.0)]
    pub warmup: f64,
    /// Seconds without a delivery after which what is missing is lost.
    #[arg(long, default_value_t = 3.0)]
    pub drain: f64,
    /// Open loop: one message of each publisher every so many ms. Replaces the window.
    #[arg(short = 'I', long)]
    pub interval_of_msg: Option<f64>,
    /// Closed loop: messages outstanding for each publisher.
    #[arg(short = 'F', long, default_value_t = 1)]
    pub inflight: u32,
    /// Losses and broken order do not spoil the run.
    #[arg(long)]
    pub allow_loss: bool,
}

/// `pub`
#[derive(Clone, Debug, Args)]
pub struct Publish {
    /// What all sub-commands share.
    #[command(flatten)]
    pub common: Common,
    /// Publishers.
    #[arg(short = 'c', long, default_value_t = 1)]
    pub count: u32,
    /// Topic; `%i` and `%c` are replaced.
    #[arg(short = 't', long)]
    pub topic: Template,
    /// RETAIN.
    #[arg(short = 'r', long)]
    pub retain: bool,
    /// What publishing sub-commands share.
    #[command(flatten)]
    pub messages: Messages,
}

/// `sub`
#[derive(Clone, Debug, Args)]
pub struct Subscribe {
    /// What all sub-commands share.
    #[command(flatten)]
    pub common: Common,
    /// Subscribers.
    #[arg(short = 'c', long, default_value_t = 1)]
    pub count: u32,
    /// Topic Filter; `%i` and `%c` are replaced.
    #[arg(short = 't', long)]
    pub topic: Template,
    /// Maximum QoS.
    #[arg(short = 'q', long, default_value_t = 0, value_parser = clap::value_parser!(u8).range(0..=2))]
    pub qos: u8,
    /// Check stamps: gaps, duplicates, order. The payloads must be ours.
    #[arg(long)]
    pub check: bool,
    /// Seconds to receive.
    #[arg(short = 'd', long)]
    pub duration: Option<f64>,
    /// Messages to receive, over all subscribers; then the run ends.
    #[arg(short = 'L', long)]
    pub limit: Option<u64>,
}

/// `pair`
#[derive(Clone, Debug, Args)]
pub struct Pair {
    /// What all sub-commands share.
    #[command(flatten)]
    pub common: Common,
    /// Pairs.
    #[arg(short = 'c', long, default_value_t = 1)]
    pub count: u32,
    /// Topic; `%i` is the pair's number.
    #[arg(short = 't', long, default_value = "pair/%i")]
    pub topic: Template,
    /// Further connections that only idle; they come last.
    #[arg(long, default_value_t = 0)]
    pub idle: u32,
    /// File with the publishers' client identifiers, one a line.
    #[arg(long)]
    pub pub_ids: Option<PathBuf>,
    /// File with the subscribers' client identifiers, one a line.
    #[arg(long)]
    pub sub_ids: Option<PathBuf>,
    /// What publishing sub-commands share.
    #[command(flatten)]
    pub messages: Messages,
}

/// `fanout`
#[derive(Clone, Debug, Args)]
pub struct Fanout {
    /// What all sub-commands share.
    #[command(flatten)]
    pub common: Common,
    /// Subscribers.
    #[arg(short = 'c', long, default_value_t = 1000)]
    pub count: u32,
    /// Publishers.
    #[arg(long, default_value_t = 1)]
    pub publishers: u32,
    /// Topic.
    #[arg(short = 't', long, default_value = "fanout")]
    pub topic: Template,
    /// What publishing sub-commands share.
    #[command(flatten)]
    pub messages: Messages,
}

impl Command {
    /// The options that all sub-commands share.
    ///
    /// # Panics
    /// With `million`, which has options of its own.
    #[must_use]
    pub fn common(&self) -> &Common {
        match self {
            Self::Conn(c) => &c.common,
            Self::Pub(c) => &c.common,
            Self::Sub(c) => &c.common,
            Self::Pair(c) => &c.common,
            Self::Fanout(c) => &c.common,
            Self::Million(_) => unreachable!("it plans for itself, see `crate::million`"),
        }
    }

    /// What the command line means.
    ///
    /// # Errors
    /// A sentence for the user.
    pub fn plan(&self) -> Result<(Plan, RunOptions), String> {
        match self {
            Self::Conn(c) => c.plan(),
            Self::Pub(c) => c.plan(),
            Self::Sub(c) => c.plan(),
            Self::Pair(c) => c.plan(),
            Self::Fanout(c) => c.plan(),
            Self::Million(_) => Err("`million` plans for itself".to_owned()),
        }
    }
}

impl Common {
    /// The plan of these populations: connect, hold, traffic if there is any, close.
    fn plan(
        &self,
        populations: Vec<Population>,
        cycles: u32,
        traffic: Option<Stage>,
    ) -> Result<Plan, String> {
        let target = (self.host.as_str(), self.port)
            .to_socket_addrs()
            .map_err(|e| format!("{}: {e}", self.host))?
            .next()
            .ok_or_else(|| format!("{} has no address", self.host))?;
        let clients: usize = populations.iter().map(|p| p.count as usize).sum();
        let sources = if self.ifaddr.is_empty() {
            automatic_sources(target, clients * cycles as usize, crate::clock::now_ns() >> 10)
        } else {
            self.ifaddr.iter().map(|&ip| SocketAddr::new(ip, 0)).collect()
        };
        let connect = Stage::Connect {
            rate: self.connrate,
            in_flight: self.in_flight,
            attempts_max: 1,
            populations: Vec::new(),
        };
        let hold = seconds(self.hold)?;
        let hold = (!hold.is_zero()).then_some(Stage::Hold { duration: hold });
        let stages = [Some(connect), hold, traffic, Some(Stage::Close)];
        Ok(Plan {
            sources,
            workers: self.workers,
            cpus: self.cpus.clone(),
            connect_timeout: seconds(self.connect_timeout)?,
            end: self.end,
            cycles,
            populations,
            stages: stages.into_iter().flatten().map(Stage::named).collect(),
            ..Plan::new(target)
        })
    }

    fn options(&self) -> Result<RunOptions, String> {
        Ok(RunOptions {
            broker_pid: self.broker_pid,
            settle: seconds(self.settle)?,
            progress: !self.quiet,
            allow_loss: false,
        })
    }

    fn connect(&self, suffix: &str) -> Result<ConnectPlan, String> {
        let version = match self.version {
            3 => Version::V31,
            4 => Version::V311,
            _ => Version::V5,
        };
        let expiry =
            if self.no_clean { self.session_expiry.or(Some(3600)) } else { self.session_expiry };
        Ok(ConnectPlan {
            clean_start: !self.no_clean,
            session_expiry_s: expiry,
            keep_alive_s: self.keepalive,
            username: self.username.clone(),
            password: self.password.clone(),
            ..ConnectPlan::new(version, self.client_id.with_suffix(suffix))
        })
    }
}

impl Conn {
    fn plan(&self) -> Result<(Plan, RunOptions), String> {
        let connect = self.common.connect("")?;
        let mut population = Population::idle("connections", self.count, connect);
        let filter = self.topic.clone();
        population.subscriptions =
            filter.map(|filter| SubscribePlan::new(filter, qos(self.qos))).into_iter().collect();
        let mut plan = self.common.plan(vec![population], self.cycles, None)?;
        plan.fresh_ids = self.fresh_ids;
        Ok((plan, self.common.options()?))
    }
}

impl Publish {
    fn plan(&self) -> Result<(Plan, RunOptions), String> {
        let connect = self.common.connect("-p")?;
        let mut population = Population::idle("publishers", self.count, connect);
        let window = Pace::Acked { window: self.messages.inflight };
        population.publish = Some(PublishPlan {
            retain: self.retain,
            ..self.messages.publish(self.topic.clone(), window)?
        });
        let traffic = Some(self.messages.traffic()?);
        Ok((self.common.plan(vec![population], 1, traffic)?, self.common.options()?))
    }
}

impl Subscribe {
    fn plan(&self) -> Result<(Plan, RunOptions), String> {
        let connect = self.common.connect("-s")?;
        let mut population = Population::idle("subscribers", self.count, connect);
        population.subscriptions = vec![SubscribePlan::new(self.topic.clone(), qos(self.qos))];
        population.expect = if self.check { Expect::Stream } else { Expect::None };
        if self.duration.is_none() && self.limit.is_none() {
            return Err("give --duration or --limit: what ends the run?".into());
        }
        let traffic = Stage::Traffic {
            warmup: Duration::ZERO,
            duration: self.duration.map(seconds).transpose()?,
            drain: Duration::MAX,
            deliveries: self.limit,
            populations: Vec::new(),
        };
        Ok((self.common.plan(vec![population], 1, Some(traffic))?, self.common.options()?))
    }
}

impl Pair {
    fn plan(&self) -> Result<(Plan, RunOptions), String> {
        let filter = self.topic.clone();
        let mut subscribers =
            Population::idle("subscribers", self.count, self.common.connect("-s")?);
        subscribers.subscriptions = vec![SubscribePlan::new(filter, qos(self.messages.qos))];
        subscribers.expect = Expect::Peer(1);
        let mut publishers = Population::idle("publishers", self.count, self.common.connect("-p")?);
        let window = Pace::Peer { window: self.messages.inflight, peer: 0 };
        publishers.publish = Some(self.messages.publish(self.topic.clone(), window)?);
        for (ids, population) in
            [(&self.sub_ids, &mut subscribers), (&self.pub_ids, &mut publishers)]
        {
            if let Some(path) = ids {
                population.connect.ids = ClientIds::List(ids_from(path, self.count)?);
            }
        }
        let mut populations = vec![subscribers, publishers];
        if self.idle > 0 {
            populations.push(Population::idle("idle", self.idle, self.common.connect("-i")?));
        }
        let mut options = self.common.options()?;
        options.allow_loss = self.messages.allow_loss;
        let traffic = Some(self.messages.traffic()?);
        Ok((self.common.plan(populations, 1, traffic)?, options))
    }
}

impl Fanout {
    fn plan(&self) -> Result<(Plan, RunOptions), String> {
        let filter = self.topic.clone();
        let mut subscribers =
            Population::idle("subscribers", self.count, self.common.connect("-s")?);
        subscribers.subscriptions = vec![SubscribePlan::new(filter, qos(self.messages.qos))];
        subscribers.expect = Expect::All(1);
        let mut publishers =
            Population::idle("publishers", self.publishers, self.common.connect("-p")?);
        let window = Pace::Group { window: self.messages.inflight, fan_out: self.count };
        publishers.publish = Some(self.messages.publish(self.topic.clone(), window)?);
        let mut options = self.common.options()?;
        options.allow_loss = self.messages.allow_loss;
        let traffic = Some(self.messages.traffic()?);
        Ok((self.common.plan(vec![subscribers, publishers], 1, traffic)?, options))
    }
}

impl Messages {
    fn publish(&self, topic: Template, window: Pace) -> Result<PublishPlan, String> {
        let pace = match self.interval_of_msg {
            Some(ms) => Pace::Every { interval: seconds(ms / 1000.0)? },
            None => window,
        };
        if self.limit.is_none() && self.duration.is_none() {
            return Err("give --duration or --limit: what ends the run?".into());
        }
        Ok(PublishPlan {
            topic,
            qos: qos(self.qos),
            retain: false,
            size: Size::Fixed(self.size),
            pace,
            limit: self.limit,
        })
    }

    fn traffic(&self) -> Result<Stage, String> {
        Ok(Stage::Traffic {
            warmup: seconds(self.warmup)?,
            duration: self.duration.map(seconds).transpose()?,
            drain: seconds(self.drain)?,
            deliveries: None,
            populations: Vec::new(),
        })
    }
}

fn seconds(s: f64) -> Result<Duration, String> {
    Duration::try_from_secs_f64(s).map_err(|e| format!("{s} s: {e}"))
}

fn qos(n: u8) -> QoS {
    QoS::from_bits(n).expect("clap checked 0..=2")
}

fn ids_from(path: &PathBuf, count: u32) -> Result<Arc<[String]>, String> {
    let text = std::fs::read_to_string(path).map_err(|e| format!("{}: {e}", path.display()))?;
    let ids: Vec<String> = text.lines().filter(|l| !l.is_empty()).map(str::to_owned).collect();
    if ids.len() < count as usize {
        return Err(format!("{}: {} identifiers for {count} clients", path.display(), ids.len()));
    }
    Ok(ids.into())
}
