//! Loads that need no file.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;

use crate::job::Job;
use crate::plan::{End, Expect, Pace, Population, Stage, SubscribePlan};
use crate::template::Template;

use super::options::{Common, Messages, ids_from, qos, seconds};

/// `conn`
#[derive(Clone, Debug, Args)]
pub struct Conn {
    /// What all loads share.
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

/// `pub`
#[derive(Clone, Debug, Args)]
pub struct Publish {
    /// What all loads share.
    #[command(flatten)]
    pub common: Common,
    /// Publishers.
    #[arg(short = 'c', long, default_value_t = 1)]
    pub count: u32,
    /// Topic; `%i`, `%c` and `%n` are replaced, `{0..9}` goes round.
    #[arg(short = 't', long)]
    pub topic: Template,
    /// RETAIN.
    #[arg(short = 'r', long)]
    pub retain: bool,
    /// What publishing loads share.
    #[command(flatten)]
    pub messages: Messages,
}

/// `sub`
#[derive(Clone, Debug, Args)]
pub struct Subscribe {
    /// What all loads share.
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
    /// What all loads share.
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
    /// What publishing loads share.
    #[command(flatten)]
    pub messages: Messages,
}

/// `fanout`
#[derive(Clone, Debug, Args)]
pub struct Fanout {
    /// What all loads share.
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
    /// What publishing loads share.
    #[command(flatten)]
    pub messages: Messages,
}

/// `fanin`
#[derive(Clone, Debug, Args)]
pub struct Fanin {
    /// What all loads share.
    #[command(flatten)]
    pub common: Common,
    /// Publishers.
    #[arg(short = 'c', long, default_value_t = 1000)]
    pub count: u32,
    /// Subscribers.
    #[arg(long, default_value_t = 1)]
    pub subscribers: u32,
    /// Topic of the publishers.
    #[arg(short = 't', long, default_value = "fanin/%i")]
    pub topic: Template,
    /// Topic Filter of the subscribers.
    #[arg(long, default_value = "fanin/+")]
    pub filter: Template,
    /// What publishing loads share.
    #[command(flatten)]
    pub messages: Messages,
}

/// `shared`
#[derive(Clone, Debug, Args)]
pub struct Shared {
    /// What all loads share.
    #[command(flatten)]
    pub common: Common,
    /// Members of the group.
    #[arg(short = 'c', long, default_value_t = 5)]
    pub count: u32,
    /// Publishers.
    #[arg(long, default_value_t = 1000)]
    pub publishers: u32,
    /// Topic of the publishers.
    #[arg(short = 't', long, default_value = "shared/%i")]
    pub topic: Template,
    /// Topic Filter of the members, without `$share`.
    #[arg(long, default_value = "shared/+")]
    pub filter: String,
    /// ShareName.
    #[arg(long, default_value = "group")]
    pub group: String,
    /// What publishing loads share.
    #[command(flatten)]
    pub messages: Messages,
}

/// `retained`
#[derive(Clone, Debug, Args)]
pub struct Retained {
    /// What all loads share.
    #[command(flatten)]
    pub common: Common,
    /// Subscribers that come for the retained messages.
    #[arg(short = 'c', long, default_value_t = 10)]
    pub count: u32,
    /// Retained messages to set.
    #[arg(long, default_value_t = 1000)]
    pub topics: u32,
    /// Topics; `%n` is the message's number.
    #[arg(short = 't', long, default_value = "retained/%n")]
    pub topic: Template,
    /// Topic Filter of the subscribers.
    #[arg(long, default_value = "retained/+")]
    pub filter: Template,
    /// Bytes of payload.
    #[arg(short = 's', long, default_value_t = 24)]
    pub size: usize,
    /// Messages outstanding while they are set.
    #[arg(short = 'F', long, default_value_t = 64)]
    pub inflight: u32,
    /// Seconds without a delivery after which what is missing is lost.
    #[arg(long, default_value_t = 3.0)]
    pub drain: f64,
}

/// `churn`
#[derive(Clone, Debug, Args)]
pub struct Churn {
    /// What all loads share.
    #[command(flatten)]
    pub common: Common,
    /// Clients that come and go, with a subscription each.
    #[arg(short = 'c', long, default_value_t = 1000)]
    pub count: u32,
    /// Closes a second.
    #[arg(long, default_value_t = 100.0)]
    pub churn_rate: f64,
    /// Pairs beside them.
    #[arg(long, default_value_t = 10)]
    pub pairs: u32,
    /// What the pairs send.
    #[command(flatten)]
    pub messages: Messages,
}

/// `storm`
#[derive(Clone, Debug, Args)]
pub struct Storm {
    /// What all loads share.
    #[command(flatten)]
    pub common: Common,
    /// Connections.
    #[arg(short = 'c', long, default_value_t = 1000)]
    pub count: u32,
    /// One subscription each.
    #[arg(short = 't', long)]
    pub topic: Option<Template>,
    /// How they drop.
    #[arg(long, value_enum, default_value_t = End::Rst)]
    pub drop: End,
    /// Connections a second when they come back.
    #[arg(long)]
    pub storm_rate: Option<f64>,
    /// Connections that may be opening at once when they come back.
    #[arg(long, default_value_t = 1024)]
    pub storm_in_flight: usize,
    /// Attempts of each client to come back.
    #[arg(long, default_value_t = 10)]
    pub storm_attempts: u32,
}

impl Conn {
    pub(crate) fn job(&self) -> Result<Job, String> {
        let mut population = Population::idle("connections", self.count, self.common.connect("")?);
        let filters = self.topic.clone().map(|filter| SubscribePlan::new(filter, qos(self.qos)));
        population.subscriptions = filters.into_iter().collect();
        let mut job = self.common.job("conn", vec![population], self.common.stages(None)?)?;
        job.plan.cycles = self.cycles;
        job.plan.fresh_ids = self.fresh_ids;
        self.common.with_sources(job, self.count as usize * self.cycles as usize)
    }
}

impl Publish {
    pub(crate) fn job(&self) -> Result<Job, String> {
        let mut population = Population::idle("publishers", self.count, self.common.connect("-p")?);
        let window = Pace::Acked { window: self.messages.window() };
        let mut publish = self.messages.publish(self.topic.clone(), self.count, window)?;
        publish.retain = self.retain;
        population.publish = Some(publish);
        let stages = self.common.stages(Some(self.messages.traffic()?))?;
        self.common.job("pub", vec![population], stages)
    }
}

impl Subscribe {
    pub(crate) fn job(&self) -> Result<Job, String> {
        let mut population =
            Population::idle("subscribers", self.count, self.common.connect("-s")?);
        population.subscriptions = vec![SubscribePlan::new(self.topic.clone(), qos(self.qos))];
        if self.check {
            population.expect = Expect::Stream;
        }
        if self.limit.is_none() && self.duration.is_none() {
            return Err("give --duration or --limit: what ends the run?".into());
        }
        let traffic = Stage::Traffic {
            warmup: Duration::ZERO,
            duration: self.duration.map(seconds).transpose()?,
            drain: Duration::MAX,
            deliveries: self.limit,
            populations: Vec::new(),
        };
        self.common.job("sub", vec![population], self.common.stages(Some(traffic))?)
    }
}

/// Subscribers and publishers, in this order, that have topics of their own in pairs.
fn pairs(
    common: &Common,
    messages: &Messages,
    count: u32,
    topic: &Template,
) -> Result<Vec<Population>, String> {
    let mut subscribers = Population::idle("subscribers", count, common.connect("-s")?);
    subscribers.subscriptions = messages.subscribe(topic);
    subscribers.expect = Expect::Peer(1);
    let mut publishers = Population::idle("publishers", count, common.connect("-p")?);
    let window = Pace::Peer { window: messages.window(), peer: 0 };
    publishers.publish = Some(messages.publish(topic.clone(), count, window)?);
    Ok(vec![subscribers, publishers])
}

/// Subscribers and publishers, in this order, where all may hear all.
fn groups(
    common: &Common,
    messages: &Messages,
    (subscribers, filter, expect): (u32, &Template, Expect),
    (publishers, topic): (u32, &Template),
) -> Result<Vec<Population>, String> {
    let mut hear = Population::idle("subscribers", subscribers, common.connect("-s")?);
    hear.subscriptions = messages.subscribe(filter);
    hear.expect = expect;
    let mut send = Population::idle("publishers", publishers, common.connect("-p")?);
    let fan_out = if matches!(expect, Expect::SharedGroup(_)) { 1 } else { subscribers };
    let window = Pace::Group { window: messages.window(), fan_out };
    send.publish = Some(messages.publish(topic.clone(), publishers, window)?);
    Ok(vec![hear, send])
}

/// The job of populations that talk.
fn talk(
    name: &str,
    common: &Common,
    messages: &Messages,
    populations: Vec<Population>,
) -> Result<Job, String> {
    let stages = common.stages(Some(messages.traffic()?))?;
    let mut job = common.job(name, populations, stages)?;
    job.options.allow_loss = messages.allow_loss;
    Ok(job)
}

impl Pair {
    pub(crate) fn job(&self) -> Result<Job, String> {
        let mut populations = pairs(&self.common, &self.messages, self.count, &self.topic)?;
        ids_from(&mut populations[0], self.sub_ids.as_ref())?;
        ids_from(&mut populations[1], self.pub_ids.as_ref())?;
        if self.idle > 0 {
            populations.push(Population::idle("idle", self.idle, self.common.connect("-i")?));
        }
        talk("pair", &self.common, &self.messages, populations)
    }
}

impl Fanout {
    pub(crate) fn job(&self) -> Result<Job, String> {
        let hear = (self.count, &self.topic, Expect::All(1));
        let send = (self.publishers, &self.topic);
        let populations = groups(&self.common, &self.messages, hear, send)?;
        talk("fanout", &self.common, &self.messages, populations)
    }
}

impl Fanin {
    pub(crate) fn job(&self) -> Result<Job, String> {
        let hear = (self.subscribers, &self.filter, Expect::All(1));
        let populations = groups(&self.common, &self.messages, hear, (self.count, &self.topic))?;
        talk("fanin", &self.common, &self.messages, populations)
    }
}

impl Shared {
    pub(crate) fn job(&self) -> Result<Job, String> {
        let filter: Template = format!("$share/{}/{}", self.group, self.filter).parse()?;
        let hear = (self.count, &filter, Expect::SharedGroup(1));
        let send = (self.publishers, &self.topic);
        let populations = groups(&self.common, &self.messages, hear, send)?;
        talk("shared", &self.common, &self.messages, populations)
    }
}

impl Retained {
    pub(crate) fn job(&self) -> Result<Job, String> {
        use crate::plan::PublishPlan;
        use crate::size::Size;
        use ringmain_mqtt::QoS;

        let mut setter = Population::idle("setter", 1, self.common.connect("-p")?);
        setter.publish = Some(PublishPlan {
            topic: self.topic.clone(),
            qos: QoS::AtLeastOnce,
            retain: true,
            size: Size::Fixed(self.size),
            pace: Pace::Acked { window: self.inflight },
            limit: Some(self.topics),
        });
        let mut readers = Population::idle("readers", self.count, self.common.connect("-s")?);
        readers.subscriptions = vec![SubscribePlan::new(self.filter.clone(), QoS::AtLeastOnce)];
        readers.expect = Expect::Retained(0);
        let drain = seconds(self.drain)?;
        let set = Stage::Traffic {
            warmup: Duration::ZERO,
            duration: None,
            drain,
            deliveries: None,
            populations: Vec::new(),
        };
        let stages = vec![
            self.common.connect_stage(vec![0]).named(),
            set.called("set"),
            self.common.connect_stage(vec![1]).called("replay"),
            Stage::Drain { patience: drain }.named(),
            Stage::Close.named(),
        ];
        self.common.job("retained", vec![setter, readers], stages)
    }
}

impl Churn {
    pub(crate) fn job(&self) -> Result<Job, String> {
        let topic: Template = "pair/%i".parse()?;
        let mut populations = match self.pairs {
            0 => Vec::new(),
            pairs_count => pairs(&self.common, &self.messages, pairs_count, &topic)?,
        };
        let mut visitors = Population::idle("visitors", self.count, self.common.connect("-v")?);
        let filter: Template = "visitors/%c".parse()?;
        visitors.subscriptions = self.messages.subscribe(&filter);
        populations.push(visitors);
        let duration =
            self.messages.duration.ok_or("give --duration: how long do they come and go?")?;
        let churn = Stage::Churn {
            population: populations.len() as u16 - 1,
            rate: self.churn_rate,
            duration: seconds(duration)?,
            end: self.common.end,
            drain: seconds(self.messages.drain)?,
        };
        let again = (self.churn_rate * duration) as usize;
        let clients: usize = populations.iter().map(|p| p.count as usize).sum();
        let mut job = self.common.job("churn", populations, self.common.stages(Some(churn))?)?;
        job.options.allow_loss = self.messages.allow_loss;
        self.common.with_sources(job, clients + again)
    }
}

impl Storm {
    pub(crate) fn job(&self) -> Result<Job, String> {
        let mut population = Population::idle("clients", self.count, self.common.connect("")?);
        let filters = self.topic.clone().map(|filter| SubscribePlan::new(filter, qos(0)));
        population.subscriptions = filters.into_iter().collect();
        let storm = Stage::Storm {
            end: self.drop,
            rate: self.storm_rate,
            in_flight: self.storm_in_flight,
            attempts_max: self.storm_attempts,
        };
        let stages = self.common.stages(Some(storm))?;
        let job = self.common.job("storm", vec![population], stages)?;
        self.common.with_sources(job, 2 * self.count as usize)
    }
}
