//! Blocks of options that sub-commands share.

use std::net::{IpAddr, SocketAddr, ToSocketAddrs};
use std::path::PathBuf;
use std::time::Duration;

use clap::{ArgAction, Args};
use ringmain_mqtt::{QoS, Version};

use crate::address::automatic_sources;
use crate::assertion::Assertion;
use crate::files;
use crate::job::Job;
use crate::metric::Metrics;
use crate::plan::{
    ClientIds, ConnectPlan, End, Pace, Plan, Population, PublishPlan, Stage, StagePlan,
    SubscribePlan,
};
use crate::run::RunOptions;
use crate::size::Size;
use crate::template::Template;

/// What all loads share.
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
    /// Client identifiers; `%i` is the client's number.
    #[arg(long, default_value = "rl-%i")]
    pub client_id: Template,
    /// Number of the first client: several processes then have clients of their own.
    #[arg(short = 'n', long, default_value_t = 0)]
    pub startnumber: u32,
    /// User name; `%i` and `%c` are replaced.
    #[arg(short = 'u', long)]
    pub username: Option<Template>,
    /// Password; `%i` and `%c` are replaced.
    #[arg(short = 'P', long)]
    pub password: Option<Template>,
    /// File with user names and passwords, `name:password` a line, in turn by client number.
    #[arg(long, conflicts_with_all = ["username", "password"])]
    pub credentials: Option<PathBuf>,
    /// Keep Alive in seconds; 0 for none.
    #[arg(short = 'k', long, default_value_t = 300)]
    pub keepalive: u16,
    /// Clean Start (in MQTT 3.1 and 3.1.1 Clean Session).
    #[arg(short = 'C', long, default_value_t = true, action = ArgAction::Set)]
    pub clean: bool,
    /// Keep sessions: the same as --clean false, and in MQTT 5 a Session Expiry Interval.
    #[arg(long)]
    pub no_clean: bool,
    /// Session Expiry Interval in seconds, in MQTT 5. Without Clean Start the default is an hour.
    #[arg(short = 'x', long)]
    pub session_expiry: Option<u32>,
    /// New connections a second; without it as fast as --in-flight allows.
    #[arg(short = 'R', long)]
    pub connrate: Option<f64>,
    /// Milliseconds between new connections: another way to say --connrate.
    #[arg(short = 'i', long, conflicts_with = "connrate")]
    pub interval: Option<f64>,
    /// Connections that may be opening at once.
    #[arg(long, default_value_t = 64)]
    pub in_flight: usize,
    /// Seconds after which a connection that is not ready has failed.
    #[arg(long, default_value_t = 30.0)]
    pub connect_timeout: f64,
    /// Attempts of each client to connect.
    #[arg(long, default_value_t = 1)]
    pub attempts: u32,
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
    /// What random choices depend on.
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    /// The broker's process, to sample its CPU time, memory and descriptors.
    #[arg(long)]
    pub broker_pid: Option<u32>,
    /// Seconds to wait before memory is sampled.
    #[arg(long, default_value_t = 0.0)]
    pub settle: f64,
    /// Seconds to keep the connections before traffic, or before they close.
    #[arg(long, default_value_t = 0.0)]
    pub hold: f64,
    /// What must hold at the end, such as `delivery.p99 < 5ms`; again for more.
    #[arg(long = "assert", value_name = "CLAIM")]
    pub assertions: Vec<String>,
    /// Where results go.
    #[command(flatten)]
    pub outputs: Outputs,
    /// Other machines that take part.
    #[command(flatten)]
    pub agents: AgentOptions,
}

/// Where the results of a run go.
#[derive(Clone, Debug, Default, Args)]
pub struct Outputs {
    /// Write the report as JSON.
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
    /// Write the report as a page with plots.
    #[arg(long, value_name = "FILE")]
    pub html: Option<PathBuf>,
    /// Progress as lines, also on a terminal.
    #[arg(long)]
    pub plain: bool,
    /// No progress.
    #[arg(long)]
    pub quiet: bool,
}

/// Agents that take part in a run.
#[derive(Clone, Debug, Default, Args)]
pub struct AgentOptions {
    /// Addresses of agents, `host:port`, separated by commas: they make the run together.
    #[arg(long, value_delimiter = ',')]
    pub agents: Vec<String>,
    /// The secret that the agents were started with.
    #[arg(long, env = "RINGMAIN_LOAD_TOKEN", hide_env_values = true, default_value = "")]
    pub agent_token: String,
}

/// What publishing loads share.
#[derive(Clone, Debug, Args)]
pub struct Messages {
    /// QoS.
    #[arg(short = 'q', long, default_value_t = 0, value_parser = clap::value_parser!(u8).range(0..=2))]
    pub qos: u8,
    /// Bytes of payload; checks need 16. A range `20..1000` draws them evenly.
    #[arg(short = 's', long, default_value = "16", value_parser = parse_size)]
    pub size: Size,
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
    /// Open loop: so many messages a second over all publishers. Replaces the window.
    #[arg(long, conflicts_with = "interval_of_msg")]
    pub rate: Option<f64>,
    /// Open loop with exponential gaps instead of even ones.
    #[arg(long)]
    pub poisson: bool,
    /// Closed loop: messages outstanding for each publisher.
    #[arg(short = 'F', long, default_value_t = 1)]
    pub inflight: u32,
    /// Losses and broken order do not spoil the run.
    #[arg(long)]
    pub allow_loss: bool,
}

impl Common {
    /// A run of these populations: connect, hold, then `stages`, then close.
    pub(crate) fn job(
        &self,
        name: &str,
        mut populations: Vec<Population>,
        stages: Vec<StagePlan>,
    ) -> Result<Job, String> {
        let target = (self.host.as_str(), self.port)
            .to_socket_addrs()
            .map_err(|e| format!("{}: {e}", self.host))?
            .next()
            .ok_or_else(|| format!("{} has no address", self.host))?;
        populations.iter_mut().for_each(|p| p.first = self.startnumber);
        let mut plan = Plan::new(target);
        plan.workers = self.workers;
        plan.cpus.clone_from(&self.cpus);
        plan.connect_timeout = seconds(self.connect_timeout)?;
        plan.end = self.end;
        plan.seed = self.seed;
        plan.populations = populations;
        plan.stages = stages;
        let clients = plan.clients();
        let job = Job {
            name: name.to_owned(),
            description: String::new(),
            options: RunOptions {
                broker_pid: self.broker_pid,
                settle: seconds(self.settle)?,
                progress: !self.outputs.quiet,
                allow_loss: false,
            },
            assertions: Vec::new(),
            agents: self.agents.clone(),
            plan,
        };
        self.with_sources(job, clients)
    }

    /// The job with source addresses for so many connections.
    pub(crate) fn with_sources(&self, mut job: Job, connections: usize) -> Result<Job, String> {
        job.plan.sources = if self.ifaddr.is_empty() {
            automatic_sources(job.plan.target, connections, crate::clock::now_ns() >> 10)
        } else {
            self.ifaddr.iter().map(|&ip| SocketAddr::new(ip, 0)).collect()
        };
        // Here, since a job has all its stages by now.
        let there = Metrics::expected(&job.plan);
        job.assertions = self
            .assertions
            .iter()
            .map(|text| {
                let assertion: Assertion = text.parse()?;
                assertion.check(&there)?;
                Ok(assertion)
            })
            .collect::<Result<_, String>>()?;
        Ok(job)
    }

    /// The stage that connects these populations, all when there are none.
    pub(crate) fn connect_stage(&self, populations: Vec<u16>) -> Stage {
        let interval = self.interval.filter(|ms| *ms > 0.0).map(|ms| 1000.0 / ms);
        Stage::Connect {
            rate: self.connrate.or(interval),
            in_flight: self.in_flight,
            attempts_max: self.attempts,
            populations,
        }
    }

    /// The stages of a usual load.
    pub(crate) fn stages(&self, work: Option<Stage>) -> Result<Vec<StagePlan>, String> {
        let hold = seconds(self.hold)?;
        let mut stages = vec![self.connect_stage(Vec::new()).named()];
        if !hold.is_zero() {
            stages.push(Stage::Hold { duration: hold }.named());
        }
        stages.extend(work.map(Stage::named));
        stages.push(Stage::Close.named());
        Ok(stages)
    }

    /// CONNECT of a population whose identifiers end in `suffix`.
    pub(crate) fn connect(&self, suffix: &str) -> Result<ConnectPlan, String> {
        let version = match self.version {
            3 => Version::V31,
            4 => Version::V311,
            _ => Version::V5,
        };
        let clean = self.clean && !self.no_clean;
        let mut connect = ConnectPlan::new(version, self.client_id.with_suffix(suffix));
        connect.clean_start = clean;
        connect.session_expiry_s = self.session_expiry.or((!clean).then_some(3600));
        connect.keep_alive_s = self.keepalive;
        connect.username.clone_from(&self.username);
        connect.password.clone_from(&self.password);
        connect.credentials = self.credentials.as_deref().map(files::credentials).transpose()?;
        Ok(connect)
    }
}

impl Messages {
    /// What publishers send to `topic`; without an interval or a rate, `window` says when.
    pub(crate) fn publish(
        &self,
        topic: Template,
        publishers: u32,
        window: Pace,
    ) -> Result<PublishPlan, String> {
        let by_rate = self.rate.map(|rate| f64::from(publishers) / rate);
        let pace = match self.interval_of_msg.map(|ms| ms / 1000.0).or(by_rate) {
            Some(s) if self.poisson => Pace::Poisson { interval: seconds(s)? },
            Some(s) => Pace::Every { interval: seconds(s)? },
            None if self.poisson => {
                return Err("--poisson needs --rate or --interval-of-msg".to_owned());
            }
            None => window,
        };
        if self.limit.is_none() && self.duration.is_none() {
            return Err("give --duration or --limit: what ends the run?".into());
        }
        Ok(PublishPlan {
            topic,
            qos: self.qos(),
            retain: false,
            size: self.size.clone(),
            pace,
            limit: self.limit,
        })
    }

    /// The stage in which all publish.
    pub(crate) fn traffic(&self) -> Result<Stage, String> {
        Ok(Stage::Traffic {
            warmup: seconds(self.warmup)?,
            duration: self.duration.map(seconds).transpose()?,
            drain: seconds(self.drain)?,
            deliveries: None,
            populations: Vec::new(),
        })
    }

    pub(crate) fn qos(&self) -> QoS {
        qos(self.qos)
    }

    pub(crate) fn window(&self) -> u32 {
        self.inflight
    }

    pub(crate) fn subscribe(&self, filter: &Template) -> Vec<SubscribePlan> {
        vec![SubscribePlan::new(filter.clone(), self.qos())]
    }
}

/// Seconds as a duration.
pub(crate) fn seconds(s: f64) -> Result<Duration, String> {
    Duration::try_from_secs_f64(s).map_err(|e| format!("{s} s: {e}"))
}

pub(crate) fn qos(n: u8) -> QoS {
    QoS::from_bits(n).expect("clap checked 0..=2")
}

/// `64` or `20..1000`.
fn parse_size(text: &str) -> Result<Size, String> {
    let number = |text: &str| text.parse::<usize>().map_err(|e| format!("`{text}`: {e}"));
    let size = match text.split_once("..") {
        Some((min, max)) => Size::Uniform { min: number(min)?, max: number(max)? },
        None => Size::Fixed(number(text)?),
    };
    size.check().map(|()| size)
}

/// Client identifiers from a file, where there is one.
pub(crate) fn ids_from(population: &mut Population, path: Option<&PathBuf>) -> Result<(), String> {
    if let Some(path) = path {
        population.connect.ids = ClientIds::List(files::client_ids(path, population.count)?);
    }
    Ok(())
}
