//! `[[population]]`.

use std::path::PathBuf;
use std::time::Duration;

use ringmain_mqtt::{QoS, RetainHandling, Version};

use crate::files;
use crate::plan::{
    Behaviour, ClientIds, ConnectPlan, Expect, Pace, Population, PublishPlan, SubscribePlan,
    WillPlan,
};
use crate::size::Size;
use crate::template::Template;

use super::toml::{Table, Value};

const VERSIONS: [(i64, Version); 3] = [(3, Version::V31), (4, Version::V311), (5, Version::V5)];
/// What the population with the window is to the one that hears it is known when all are read.
const UNKNOWN_YET: u16 = u16::MAX;
const KEEP_ALIVE_S: u16 = 300;
const PAYLOAD: usize = 16;

/// Reads all populations.
pub(super) fn read(top: &Table<'_>) -> Vec<Population> {
    let tables = top.tables("population");
    if tables.is_empty() {
        top.problem("population", format_args!("a scenario needs at least one [[population]]"));
    }
    let names: Vec<&str> = tables.iter().map(|t| t.text("name").unwrap_or("")).collect();
    let mut populations: Vec<Population> = Vec::new();
    for (n, table) in tables.iter().enumerate() {
        if names[n].is_empty() {
            table.problem("name", format_args!("a population needs a name"));
        } else if names[..n].contains(&names[n]) {
            table.problem("name", format_args!("there is another population {}", names[n]));
        }
        populations.push(population(table, names[n], &names));
    }
    settle_windows(&mut populations);
    populations
}

/// A window waits for the peers where a population hears its peers, for the group where one hears
/// all, and for acknowledgements otherwise.
fn settle_windows(populations: &mut [Population]) {
    for n in 0..populations.len() {
        let publisher = n as u16;
        let hears = |p: &Population| p.expect.population() == Some(publisher);
        let listener = populations.iter().enumerate().find(|(_, p)| hears(p));
        let listener = listener.map(|(at, p)| (at as u16, p.expect, p.count));
        let Some(publish) = &mut populations[n].publish else { continue };
        if let Pace::Peer { window, peer: UNKNOWN_YET } = publish.pace {
            publish.pace = match listener {
                Some((peer, Expect::Peer(_), _)) => Pace::Peer { window, peer },
                Some((_, Expect::All(_), fan_out)) => Pace::Group { window, fan_out },
                Some((_, Expect::SharedGroup(_), _)) => Pace::Group { window, fan_out: 1 },
                _ => Pace::Acked { window },
            };
        }
    }
}

fn population(table: &Table<'_>, name: &str, names: &[&str]) -> Population {
    let count = table.integer("count", 0..=16_000_000);
    if count.is_none() {
        table.problem("count", format_args!("a population needs a count"));
    }
    let count = count.unwrap_or(1);
    let mut population = Population::idle(name, count, connect(table, name, count));
    population.first = table.integer("first", 0..=16_000_000).unwrap_or(0);
    population.subscriptions = table.tables("subscribe").iter().filter_map(subscribe).collect();
    population.publish = table.table("publish").and_then(|t| publish(&t, count));
    population.expect = expect(table, names);
    population.behaviour = behaviour(table);
    population
}

fn connect(table: &Table<'_>, name: &str, count: u32) -> ConnectPlan {
    let version = table.integer::<i64>("version", 3..=5).unwrap_or(5);
    let version = VERSIONS.iter().find(|v| v.0 == version).map_or(Version::V5, |v| v.1);
    let ids = table.parsed::<Template>("client_id").unwrap_or_else(|| {
        let name: String = name.chars().filter(|c| !matches!(c, '%' | '{')).collect();
        format!("rl-{name}-%i").parse().expect("text and one placeholder are a template")
    });
    let mut connect = ConnectPlan::new(version, ids);
    connect.keep_alive_s = table.integer("keep_alive_s", 0..=65_535).unwrap_or(KEEP_ALIVE_S);
    connect.clean_start = table.bool("clean_start").unwrap_or(true);
    connect.session_expiry_s = table.integer("session_expiry_s", 0..=i64::from(u32::MAX));
    connect.receive_maximum = table.integer("receive_maximum", 1..=65_535);
    connect.maximum_packet_size = table.integer("maximum_packet_size", 1..=i64::from(u32::MAX));
    connect.username = table.parsed("username");
    connect.password = table.parsed("password");
    connect.user_properties = table.pairs("user_properties");
    connect.will = table.table("will").and_then(|t| will(&t));
    if let Some(path) = table.text("client_ids_file") {
        match files::client_ids(&PathBuf::from(path), count) {
            Ok(ids) => connect.ids = ClientIds::List(ids),
            Err(e) => table.problem("client_ids_file", format_args!("{e}")),
        }
    }
    if let Some(path) = table.text("credentials_file") {
        match files::credentials(&PathBuf::from(path)) {
            Ok(credentials) => connect.credentials = Some(credentials),
            Err(e) => table.problem("credentials_file", format_args!("{e}")),
        }
    }
    connect
}

fn will(table: &Table<'_>) -> Option<WillPlan> {
    let plan = WillPlan {
        topic: required(table, "topic")?,
        size: table.integer("size", 0..=65_535).unwrap_or(PAYLOAD),
        qos: qos(table),
        retain: table.bool("retain").unwrap_or(false),
        delay_s: table.integer("delay_s", 0..=i64::from(u32::MAX)),
    };
    Some(plan)
}

fn subscribe(table: &Table<'_>) -> Option<SubscribePlan> {
    let mut plan = SubscribePlan::new(required(table, "filter")?, qos(table));
    plan.copies = table.integer("copies", 1..=1_000_000).unwrap_or(1);
    plan.no_local = table.bool("no_local").unwrap_or(false);
    plan.retain_as_published = table.bool("retain_as_published").unwrap_or(false);
    let handling = [
        ("send", RetainHandling::Send),
        ("send_if_new", RetainHandling::SendIfNew),
        ("do_not_send", RetainHandling::DoNotSend),
    ];
    if let Some(handling) = table.word("retain_handling", &handling) {
        plan.retain_handling = handling;
    }
    plan.subscription_id = table.integer("subscription_id", 1..=268_435_455);
    Some(plan)
}

fn publish(table: &Table<'_>, count: u32) -> Option<PublishPlan> {
    let topic = required(table, "topic")?;
    Some(PublishPlan {
        topic,
        qos: qos(table),
        retain: table.bool("retain").unwrap_or(false),
        size: size(table),
        pace: pace(table, count),
        limit: table.integer("limit", 1..=i64::from(u32::MAX)),
    })
}

fn pace(table: &Table<'_>, count: u32) -> Pace {
    let rate = table.positive("rate").map(|rate| f64::from(count) / rate);
    let interval = table.positive("interval_s").or(rate);
    let window = table.integer("window", 1..=65_535);
    let poisson = table.bool("poisson").unwrap_or(false);
    let given = [table.has("rate"), table.has("interval_s"), table.has("window")];
    if given.iter().filter(|given| **given).count() > 1 {
        table.problem("window", format_args!("give one of rate, interval_s and window"));
    }
    if poisson && interval.is_none() {
        table.problem("poisson", format_args!("it needs a rate or an interval_s"));
    }
    match interval.and_then(|s| Duration::try_from_secs_f64(s).ok()) {
        Some(interval) if poisson => Pace::Poisson { interval },
        Some(interval) => Pace::Every { interval },
        None => Pace::Peer { window: window.unwrap_or(1), peer: UNKNOWN_YET },
    }
}

/// A number of bytes, `{ min, max }`, `{ mean, max }` or `{ bytes = [...], weights = [...] }`.
fn size(table: &Table<'_>) -> Size {
    const MOST: i64 = crate::size::PAYLOAD_MAX as i64;
    let Some(node) = table.node("size") else { return Size::Fixed(PAYLOAD) };
    if !matches!(node.value, Value::Table(_)) {
        return Size::Fixed(table.integer("size", 0..=MOST).unwrap_or(PAYLOAD));
    }
    let Some(spread) = table.table("size") else { return Size::Fixed(PAYLOAD) };
    let (min, max) = (spread.integer("min", 0..=MOST), spread.integer("max", 0..=MOST));
    let mean = spread.integer("mean", 1..=MOST);
    let bytes: Vec<usize> = spread.integers("bytes", 0..=MOST);
    let weights = spread.numbers("weights");
    let size = match (mean, min, max) {
        (Some(mean), _, max) => Size::Exponential { mean, max: max.unwrap_or(mean * 100) },
        (None, Some(min), Some(max)) => Size::Uniform { min, max },
        _ if !bytes.is_empty() && (weights.is_empty() || weights.len() == bytes.len()) => {
            let weights = weights.into_iter().chain(std::iter::repeat(1.0));
            Size::Weighted(bytes.into_iter().zip(weights).collect())
        }
        _ => {
            let what = "give bytes, or min and max, or mean and max, or bytes and as many weights";
            table.problem("size", format_args!("{what}"));
            return Size::Fixed(PAYLOAD);
        }
    };
    if let Err(e) = size.check() {
        table.problem("size", format_args!("{e}"));
    }
    size
}

/// `"stream"`, or a table with one key that names a population.
fn expect(table: &Table<'_>, names: &[&str]) -> Expect {
    let Some(node) = table.node("expect") else { return Expect::None };
    if matches!(node.value, Value::Text(_)) {
        let words = [("none", Expect::None), ("stream", Expect::Stream)];
        return table.word("expect", &words).unwrap_or_default();
    }
    let Some(inner) = table.table("expect") else { return Expect::None };
    let mut found = Expect::None;
    let mut given = 0;
    for (key, expect) in [
        ("peer", Expect::Peer as fn(u16) -> Expect),
        ("all", Expect::All),
        ("matching", Expect::Matching),
        ("shared_group", Expect::SharedGroup),
        ("retained", Expect::Retained),
        ("one", Expect::One),
        ("wills", Expect::Wills),
    ] {
        if let Some(index) = inner.name_of(key, names) {
            found = expect(index);
            given += 1;
        }
    }
    if given > 1 {
        table.problem("expect", format_args!("expect one thing, not {given}"));
    }
    found
}

fn behaviour(table: &Table<'_>) -> Behaviour {
    let words = [
        ("normal", Behaviour::Normal),
        ("slow", Behaviour::Slow { bytes_per_s: 0 }),
        ("half_open", Behaviour::HalfOpen),
    ];
    let behaviour = table.word("behaviour", &words).unwrap_or_default();
    let bytes = table.integer("read_bytes_per_s", 0..=i64::from(u32::MAX));
    match (behaviour, bytes) {
        (Behaviour::Slow { .. }, Some(bytes_per_s)) => Behaviour::Slow { bytes_per_s },
        (Behaviour::Normal | Behaviour::HalfOpen, Some(_)) => {
            table.problem("read_bytes_per_s", format_args!("it belongs to behaviour = \"slow\""));
            behaviour
        }
        _ => behaviour,
    }
}

fn qos(table: &Table<'_>) -> QoS {
    table.integer("qos", 0..=2).and_then(QoS::from_bits).unwrap_or(QoS::AtMostOnce)
}

fn required(table: &Table<'_>, key: &'static str) -> Option<Template> {
    if !table.has(key) {
        table.problem(key, format_args!("it is needed"));
    }
    table.parsed(key)
}
