//! The scenarios of EMQ's Open MQTT Benchmark Suite, by their names there: QoS 1, 16 B, keep-alive
//! 300 s, clean sessions, one message a second of each publisher.
//!
//! The sets for large machines are scaled to what a server with a descriptor for each connection can
//! hold here; the rate of each client stays as it is.

use std::thread::sleep;
use std::time::Duration;

use ringmain_load::report::Report;

use crate::scenario::{
    Case, Cx, Failure, FigureKind, Figures, Scale, Scenario, fails, grown, less, more, traffic,
};

pub(crate) static CONN_TCP_10K_100: Mqttbs = Mqttbs {
    name: "conn-tcp-10K-100",
    about: "10,000 connections, 100 new ones a second",
    load: Load::Connect { count: 10_000, per_s: 100 },
};
pub(crate) static FANOUT_1_1K_1_1K: Mqttbs = Mqttbs {
    name: "fanout-1-1K-1-1K",
    about: "1 publisher, 1 message a second, 1,000 subscribers",
    load: Load::FanOut { publishers: 1, subscribers: 1000, interval_ms: 1000 },
};
pub(crate) static P2P_1K: Mqttbs = Mqttbs {
    name: "p2p-1K-1K-1K-1K",
    about: "1,000 pairs, 1 message a second each",
    load: Load::Pairs { count: 1000 },
};
pub(crate) static SHAREDSUB_1K_5: Mqttbs = Mqttbs {
    name: "sharedsub-1K-5-1K-1K",
    about: "1,000 publishers, 1 message a second each, to 5 members of a shared group",
    load: Load::Shared { publishers: 1000, subscribers: 5 },
};
pub(crate) static FANOUT_5_1000_5_250K: Mqttbs = Mqttbs {
    name: "fanout-5-1000-5-250K",
    about: "5 publishers, 50 messages a second each, 1,000 subscribers of all: 250,000 deliveries/s",
    load: Load::FanOut { publishers: 5, subscribers: 1000, interval_ms: 20 },
};
pub(crate) static P2P_50K: Mqttbs = Mqttbs {
    name: "p2p-50K-50K-50K-50K",
    about: "50,000 pairs, 1 message a second each",
    load: Load::Pairs { count: 50_000 },
};
pub(crate) static SHAREDSUB_50K_500: Mqttbs = Mqttbs {
    name: "sharedsub-50K-500-50K-50K",
    about: "50,000 publishers, 1 message a second each, to 500 members of a shared group",
    load: Load::Shared { publishers: 50_000, subscribers: 500 },
};

/// One of the suite.
pub(crate) struct Mqttbs {
    name: &'static str,
    about: &'static str,
    load: Load,
}

#[derive(Clone, Copy)]
enum Load {
    Connect { count: u32, per_s: u32 },
    FanOut { publishers: u32, subscribers: u32, interval_ms: u32 },
    Pairs { count: u32 },
    Shared { publishers: u32, subscribers: u32 },
}

const TRAFFIC: &[FigureKind] = &[
    less("ns_per_message", "CPU ns/message", 0),
    more("messages_per_s", "messages/s", 0),
    less("p50_us", "p50 µs", 0),
    less("p99_us", "p99 µs", 0),
    less("p999_us", "p99.9 µs", 0),
];
const CONNECT: &[FigureKind] = &[
    less("connect_us", "CPU µs/connect", 1),
    less("p50_us", "connect p50 µs", 0),
    less("p99_us", "connect p99 µs", 0),
    less("bytes", "bytes/connection", 0),
];

impl Mqttbs {
    /// The clients that this scale has room for: connections, publishers or pairs.
    fn scaled(&self, scale: &Scale) -> u32 {
        match self.load {
            Load::Connect { count, .. } => scale.pick(count, 300).min(scale.connections_max),
            Load::FanOut { publishers, .. } => publishers,
            Load::Pairs { count } => {
                count.min(scale.connections_max / 2).min(scale.pick(count, 2000))
            }
            Load::Shared { publishers, subscribers } => publishers
                .min(scale.connections_max.saturating_sub(subscribers))
                .min(scale.pick(publishers, 4000)),
        }
    }

    fn asked(&self) -> u32 {
        match self.load {
            Load::Connect { count, .. } | Load::Pairs { count } => count,
            Load::FanOut { publishers, .. } | Load::Shared { publishers, .. } => publishers,
        }
    }
}

impl Scenario for Mqttbs {
    fn name(&self) -> &'static str {
        self.name
    }

    fn about(&self) -> &'static str {
        self.about
    }

    fn figures(&self) -> &'static [FigureKind] {
        if matches!(self.load, Load::Connect { .. }) { CONNECT } else { TRAFFIC }
    }

    fn cases(&self, scale: &Scale) -> Vec<Case> {
        let count = self.scaled(scale);
        let seconds = scale.pick(10, 4);
        let args = match self.load {
            Load::Connect { per_s, .. } => format!("conn -c {count} -R {per_s}"),
            Load::FanOut { publishers, subscribers, interval_ms } => format!(
                "fanout -c {subscribers} --publishers {publishers} -q 1 -I {interval_ms} -d {seconds}"
            ),
            Load::Pairs { .. } => format!("pair -c {count} -q 1 -I 1000 -d {seconds}"),
            Load::Shared { .. } => format!("pub -c {count} -t test/%i -q 1 -I 1000 -d {seconds}"),
        };
        let name = if count == self.asked() {
            "as the suite has it".to_owned()
        } else {
            format!("scaled to {count} of {}", self.asked())
        };
        vec![Case { count, ..Case::command(name, &args) }]
    }

    fn measure(&self, cx: &Cx<'_>, case: &Case) -> Result<Figures, Failure> {
        match self.load {
            Load::Connect { .. } => connect(cx, case),
            Load::FanOut { .. } | Load::Pairs { .. } => traffic::measure(cx, case),
            Load::Shared { subscribers, .. } => {
                let publish = case.args.clone();
                let load = FanIn { subscribers, filter: "$share/perf/test/#", qos: 1, publish };
                fan_in(cx, &load).map(|(figures, _)| figures)
            }
        }
    }

    fn remarks(&self, scale: &Scale) -> Vec<String> {
        let mut remarks = Vec::new();
        let count = self.scaled(scale);
        if count < self.asked() {
            remarks.push(format!(
                "{count} instead of {}: {} connections are what a descriptor each (RLIMIT_NOFILE) or \
                 --quick leaves room for; the rate of each client is the suite's",
                self.asked(),
                scale.connections_max
            ));
        }
        if matches!(self.load, Load::FanOut { publishers: 5, .. }) {
            remarks.push(
                "the five publishers share one topic instead of one each: the deliveries are the \
                 same, the subscriptions are 1,000 instead of 5,000"
                    .to_owned(),
            );
        }
        remarks
    }
}

fn connect(cx: &Cx<'_>, case: &Case) -> Result<Figures, Failure> {
    let mut server = cx.start()?;
    let args = [&case.args[..], &["--settle".to_owned(), "1".to_owned()]].concat();
    let report = cx.load(&mut server, &args)?;
    let Some(latency) = report.latencies.get("connect") else {
        return fails("no connection was timed");
    };
    let each = |total: f64| total / f64::from(case.count);
    Ok(Figures::from([
        ("connect_us", each(grown(&report, "start", "connected", |s| s.cpu_ns)) / 1000.0),
        ("p50_us", latency.p50 as f64 / 1000.0),
        ("p99_us", latency.p99 as f64 / 1000.0),
        ("bytes", each(grown(&report, "start", "settled", |s| s.anonymous))),
    ]))
}

/// Publishers in one process, the subscribers of what they send in another.
pub(crate) struct FanIn {
    pub(crate) subscribers: u32,
    pub(crate) filter: &'static str,
    pub(crate) qos: u8,
    pub(crate) publish: Vec<String>,
}

/// What is on its way when the publishers are done gets so long.
const LINGER: Duration = Duration::from_millis(1500);
/// Longer than any run: the subscribers are told when to end.
const SUBSCRIBERS_S: u32 = 3600;

/// Runs a fan-in and compares what was sent with what arrived; the report is the publishers'.
///
/// # Errors
/// When a message is missing or came twice, and whatever else the contender did wrong.
pub(crate) fn fan_in(cx: &Cx<'_>, load: &FanIn) -> Result<(Figures, Report), Failure> {
    let mut server = cx.start()?;
    let args = format!(
        "sub -c {} -t {} -q {} -d {SUBSCRIBERS_S} --client-id s-%i --check",
        load.subscribers, load.filter, load.qos
    );
    let args: Vec<String> = args.split_whitespace().map(str::to_owned).collect();
    let subscribers = cx.begin(&server, &args)?;
    // They tell nobody that they are ready; a thousand take a tenth of a second.
    sleep(Duration::from_secs(1));
    let mut publish = traffic::timed(cx, &load.publish);
    publish.extend(["--client-id".to_owned(), "p-%i".to_owned()]);
    let published = cx.load(&mut server, &publish)?;
    sleep(LINGER);
    let mut found = subscribers.stop()?;
    // A member of a group has gaps where others got the message: what is lost is counted below.
    found.problems.retain(|p| !p.ends_with("messages lost"));
    let received = cx.clean(&mut server, found)?;
    let (sent, arrived) = (published.counters.sent, received.counters.delivered);
    if arrived < sent {
        return fails(format!("{} of {sent} messages did not arrive", sent - arrived));
    }
    if arrived > sent || received.counters.duplicates > 0 {
        let twice = (arrived - sent).max(received.counters.duplicates);
        return fails(format!("{twice} messages came twice"));
    }
    let mut figures = traffic::figures(&published, false)?;
    if traffic::is_open(&load.publish) {
        figures.extend(traffic::latencies(&received));
    }
    Ok((figures, published))
}
