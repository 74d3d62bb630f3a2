//! What the run is to the load generator: populations and stages.

use std::net::SocketAddr;
use std::time::Duration;

use ringmain_mqtt::{QoS, Version};

use super::options::{Options, seconds};
use crate::address::automatic_sources;
use crate::plan::{
    ConnectPlan, Expect, Pace, Plan, Population, PublishPlan, Stage, StagePlan, SubscribePlan,
};
use crate::size::Size;
use crate::stamp::STAMP_LONG_LEN;
use crate::template::Template;

/// Names of the stages, for the report.
pub(super) mod stage {
    pub(in crate::million) const CONNECT: &str = "connect";
    pub(in crate::million) const HOLD: &str = "keep alive";
    pub(in crate::million) const EACH: &str = "a message to each";
    pub(in crate::million) const PAIRS: &str = "traffic beside";
    pub(in crate::million) const STORM: &str = "storm";
    pub(in crate::million) const AGAIN: &str = "a message to each again";
}

/// Index of the population of the one client that sends a message to each; the idle ones are first.
const NOTIFIER: u16 = 1;
/// Of the pairs' publishers; their subscribers are before them.
const TALKERS: u16 = 3;
/// Attempts of a client before it counts as failed: more than anybody should need, so that the
/// report can say how many were needed.
const ATTEMPTS_MAX: u32 = 16;
/// How long deliveries may stand still before what is missing counts as lost.
const DRAIN: Duration = Duration::from_secs(10);

/// The plan for `count` idle connections.
///
/// # Errors
/// A sentence for the user.
pub(super) fn plan(o: &Options, count: u32) -> Result<Plan, String> {
    let mut plan = Plan::new(o.target());
    (plan.workers, plan.cpus) = o.threads();
    plan.connect_timeout = seconds(o.connect_timeout)?;
    // As client libraries do: a second, then two, then four.
    plan.backoff.first = Duration::from_secs(1);
    plan.populations = populations(o, count)?;
    plan.stages = stages(o)?;
    let rounds = if o.no_storm { 1 } else { 2 };
    plan.sources = if o.ifaddr.is_empty() {
        automatic_sources(plan.target, plan.clients() * rounds, crate::clock::now_ns() >> 10)
    } else {
        o.ifaddr.iter().map(|&ip| SocketAddr::new(ip, 0)).collect()
    };
    plan.check()?;
    Ok(plan)
}

fn populations(o: &Options, count: u32) -> Result<Vec<Population>, String> {
    let qos = QoS::from_bits(o.qos).ok_or("QoS is 0, 1 or 2")?;
    let clients = |name: &str, count: u32, ids: &str| -> Result<Population, String> {
        let mut connect = ConnectPlan::new(Version::V5, template(ids)?);
        connect.keep_alive_s = o.keepalive;
        Ok(Population::idle(name, count, connect))
    };
    let subscribe = |filter: &str| Ok::<_, String>(SubscribePlan::new(template(filter)?, qos));
    let every = |rate: f64| Pace::Every { interval: Duration::from_secs_f64(1.0 / rate) };

    let mut idle = clients("idle", count, "m%i")?;
    idle.subscriptions = vec![subscribe("m/%i")?];
    idle.expect = Expect::One(NOTIFIER);

    let mut notifier = clients("notifier", 1, "notifier")?;
    notifier.publish = Some(PublishPlan {
        // In turn, and round again in the second stage that does it.
        topic: template(&format!("m/{{0..{}}}", count - 1))?,
        qos,
        retain: false,
        size: Size::Fixed(STAMP_LONG_LEN),
        pace: every(o.each_rate),
        limit: Some(count),
    });
    let mut populations = vec![idle, notifier];
    if o.pairs > 0 {
        let mut listeners = clients("listeners", o.pairs, "listener%i")?;
        listeners.subscriptions = vec![subscribe("pair/%i")?];
        listeners.expect = Expect::Peer(TALKERS);
        let mut talkers = clients("talkers", o.pairs, "talker%i")?;
        talkers.publish = Some(PublishPlan {
            topic: template("pair/%i")?,
            qos,
            retain: false,
            size: Size::Fixed(64),
            pace: every(o.rate / f64::from(o.pairs)),
            limit: None,
        });
        populations.extend([listeners, talkers]);
    }
    Ok(populations)
}

fn stages(o: &Options) -> Result<Vec<StagePlan>, String> {
    let connect = Stage::Connect {
        rate: o.connrate,
        in_flight: o.in_flight,
        attempts_max: ATTEMPTS_MAX,
        populations: Vec::new(),
    };
    let each = Stage::Traffic {
        warmup: Duration::ZERO,
        duration: None,
        drain: DRAIN,
        deliveries: None,
        populations: vec![NOTIFIER],
    };
    let mut stages = vec![connect.called(stage::CONNECT)];
    let hold = seconds(o.hold)?;
    if !hold.is_zero() {
        stages.push(Stage::Hold { duration: hold }.called(stage::HOLD));
    }
    stages.push(each.clone().called(stage::EACH));
    if o.pairs > 0 {
        let pairs = Stage::Traffic {
            warmup: Duration::from_secs(1),
            duration: Some(seconds(o.duration)?),
            drain: DRAIN,
            deliveries: None,
            populations: vec![TALKERS],
        };
        stages.push(pairs.called(stage::PAIRS));
    }
    if !o.no_storm {
        let storm = Stage::Storm {
            end: o.storm,
            rate: None,
            in_flight: o.storm_in_flight,
            attempts_max: ATTEMPTS_MAX,
        };
        stages.extend([storm.called(stage::STORM), each.called(stage::AGAIN)]);
    }
    stages.push(Stage::Close.named());
    Ok(stages)
}

fn template(text: &str) -> Result<Template, String> {
    text.parse()
}
