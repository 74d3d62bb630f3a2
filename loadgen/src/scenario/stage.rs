//! `[[stage]]`.

use std::time::Duration;

use crate::plan::{End, Population, Stage, StagePlan};

use super::ENDS;
use super::toml::Table;

const KINDS: [&str; 8] =
    ["connect", "hold", "traffic", "drain", "offline", "storm", "churn", "close"];
/// Connections that open at once, unless the file says more: what a backlog of 128 takes twice.
const IN_FLIGHT: usize = 64;
/// The same in a storm, where everybody comes at once.
const STORM_IN_FLIGHT: usize = 1024;
const DRAIN: Duration = Duration::from_secs(3);
/// Attempts of a client in a storm.
const STORM_ATTEMPTS: u32 = 10;

/// Reads all stages; closes at the end what nobody closed.
pub(super) fn read(top: &Table<'_>, populations: &[Population]) -> Vec<StagePlan> {
    let tables = top.tables("stage");
    let names: Vec<&str> = populations.iter().map(|p| p.name.as_str()).collect();
    let mut stages: Vec<StagePlan> = Vec::new();
    for table in &tables {
        let Some(stage) = stage(table, &names, populations) else { continue };
        let name = table.text("name").unwrap_or(stage.kind());
        if name.is_empty() || name.contains(char::is_whitespace) {
            table.problem("name", format_args!("a stage's name is one word: metrics use it"));
        }
        stages.push(StagePlan { name: unique(name, &stages), stage });
    }
    if !matches!(stages.first(), Some(StagePlan { stage: Stage::Connect { .. }, .. })) {
        top.problem("stage", format_args!("the first [[stage]] is kind = \"connect\""));
    }
    if !matches!(stages.last(), Some(StagePlan { stage: Stage::Close, .. })) {
        stages.push(Stage::Close.named());
    }
    stages
}

/// The name, with a number where a stage before has it.
fn unique(name: &str, before: &[StagePlan]) -> String {
    let taken = |name: &str| before.iter().any(|stage| stage.name == name);
    let mut candidate = name.to_owned();
    let mut number = 2;
    while taken(&candidate) {
        candidate = format!("{name}-{number}");
        number += 1;
    }
    candidate
}

fn stage(table: &Table<'_>, names: &[&str], populations: &[Population]) -> Option<Stage> {
    let kinds: Vec<(&str, &str)> = KINDS.iter().map(|kind| (*kind, *kind)).collect();
    if !table.has("kind") {
        let all = KINDS.join(", ");
        table.problem("kind", format_args!("a stage needs a kind: {all}"));
    }
    let kind = table.word("kind", &kinds)?;
    // Asked for here, so that a misspelt key finds it.
    table.has("name");
    let stage = match kind {
        "connect" => Stage::Connect {
            rate: table.positive("rate"),
            in_flight: in_flight(table, IN_FLIGHT),
            attempts_max: table.integer("attempts_max", 1..=1000).unwrap_or(1),
            populations: table.names("populations", names),
        },
        "hold" => Stage::Hold { duration: needed(table, "duration_s")? },
        "traffic" => traffic(table, names, populations),
        "drain" => Stage::Drain { patience: table.seconds("patience_s").unwrap_or(DRAIN) },
        "offline" => Stage::Offline {
            population: population(table, names)?,
            end: table.word("end", &ENDS).unwrap_or(End::Disconnect),
        },
        "storm" => Stage::Storm {
            end: table.word("end", &ENDS).unwrap_or(End::Rst),
            rate: table.positive("rate"),
            in_flight: in_flight(table, STORM_IN_FLIGHT),
            attempts_max: table.integer("attempts_max", 1..=1000).unwrap_or(STORM_ATTEMPTS),
        },
        "churn" => Stage::Churn {
            population: population(table, names)?,
            rate: table.positive("rate").unwrap_or_else(|| {
                table.problem("rate", format_args!("closes a second are needed"));
                1.0
            }),
            duration: needed(table, "duration_s")?,
            end: table.word("end", &ENDS).unwrap_or(End::Disconnect),
            drain: table.seconds("drain_s").unwrap_or(DRAIN),
        },
        _ => Stage::Close,
    };
    Some(stage)
}

fn traffic(table: &Table<'_>, names: &[&str], populations: &[Population]) -> Stage {
    let duration = table.seconds("duration_s");
    let deliveries = table.integer("deliveries", 1..=i64::MAX);
    let limited = populations.iter().filter_map(|p| p.publish.as_ref()).all(|p| p.limit.is_some());
    if duration.is_none() && deliveries.is_none() && !limited {
        let what = "give duration_s or deliveries, or each publish a limit: what ends it?";
        table.problem("duration_s", format_args!("{what}"));
    }
    Stage::Traffic {
        warmup: table.seconds("warmup_s").unwrap_or_default(),
        duration,
        drain: table.seconds("drain_s").unwrap_or(DRAIN),
        deliveries,
        populations: table.names("populations", names),
    }
}

fn in_flight(table: &Table<'_>, default: usize) -> usize {
    table.integer("in_flight", 1..=1_000_000).unwrap_or(default)
}

fn needed(table: &Table<'_>, key: &'static str) -> Option<Duration> {
    if !table.has(key) {
        table.problem(key, format_args!("it is needed"));
    }
    table.seconds(key)
}

fn population(table: &Table<'_>, names: &[&str]) -> Option<u16> {
    if !table.has("population") {
        table.problem("population", format_args!("it is needed"));
    }
    table.name_of("population", names)
}
