//! What a scenario found: every run, medians, failures in words, targets held or missed.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use serde::Serialize;

use super::{Against, Case, FigureKind, Figures, Scale, Scenario, Target};
use crate::contender::{Contender, Programs};
use crate::table::{Figure, render};

/// Of results as data: changes when a reader must.
const SCHEMA: u32 = 1;

/// One measurement of one case of one contender.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Run {
    pub(crate) case: String,
    pub(crate) contender: String,
    pub(crate) round: usize,
    pub(crate) figures: Figures,
    /// What the contender did wrong.
    pub(crate) failure: Option<String>,
    /// Why the generator says that its figures are not to be trusted.
    pub(crate) void: Vec<String>,
}

impl Run {
    pub(crate) fn new(case: &str, contender: &str, round: usize) -> Self {
        let (case, contender) = (case.to_owned(), contender.to_owned());
        Self { case, contender, round, figures: Figures::new(), failure: None, void: vec![] }
    }
}

/// Who took part.
#[derive(Clone, Debug, Serialize)]
struct Entrant {
    name: String,
    version: String,
    config: String,
}

/// The rounds of one case of one contender in short.
#[derive(Clone, Debug, Serialize)]
struct Summary {
    case: String,
    contender: String,
    figures: BTreeMap<&'static str, Figure>,
    /// Rounds that failed, and how the first of them did.
    failed: usize,
    failure: Option<String>,
    /// Rounds whose figures are not to be trusted; they are in the medians all the same.
    void: usize,
}

/// A target and what became of it.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Judged {
    case: String,
    figure: &'static str,
    /// `"× floor"`, `"× better than mosquitto"`, …
    kind: &'static str,
    value: f64,
    target: f64,
    held: bool,
}

/// All of it, as it is written.
#[derive(Debug, Serialize)]
pub(crate) struct Outcome {
    schema: u32,
    scenario: &'static str,
    about: &'static str,
    scale: Scale,
    remarks: Vec<String>,
    contenders: Vec<Entrant>,
    kinds: Vec<FigureKind>,
    cases: Vec<Case>,
    targets: Vec<Judged>,
    summary: Vec<Summary>,
    runs: Vec<Run>,
}

impl Outcome {
    pub(crate) fn new(
        scenario: &dyn Scenario,
        scale: Scale,
        cases: &[Case],
        contenders: &[Contender],
        programs: &Programs,
        port: u16,
        runs: Vec<Run>,
    ) -> Self {
        let mut all = contenders.to_vec();
        if cases.iter().any(|c| c.floor) {
            all.insert(0, Contender::Floor);
        }
        let entrants = all.iter().map(|c| Entrant {
            name: c.name(),
            version: c.version(programs),
            config: c.config(port),
        });
        let mut summary = Vec::new();
        for case in cases {
            summary.extend(all.iter().filter_map(|c| summarize(&case.name, &c.name(), &runs)));
        }
        let targets = scenario.targets();
        let targets = cases.iter().flat_map(|c| judge_case(&c.name, targets, &summary, &all));
        Self {
            schema: SCHEMA,
            scenario: scenario.name(),
            about: scenario.about(),
            scale,
            remarks: scenario.remarks(&scale),
            contenders: entrants.collect(),
            kinds: scenario.figures().to_vec(),
            cases: cases.to_vec(),
            targets: targets.collect(),
            summary,
            runs,
        }
    }

    /// How Ringmain failed, if it did.
    pub(crate) fn failure_of_ringmain(&self) -> Option<String> {
        let failed = self
            .runs
            .iter()
            .find(|r| r.contender.starts_with("ringmain") && r.failure.is_some())?;
        Some(format!("{} failed: {}", failed.contender, failed.failure.as_deref()?))
    }

    /// For people: a block for each case, then targets and remarks.
    pub(crate) fn table(&self, rounds: usize) -> String {
        let mut out = format!("{}: {}\n", self.scenario, self.about);
        // A column that no case has says nothing.
        let kinds: Vec<&FigureKind> = self
            .kinds
            .iter()
            .filter(|k| self.summary.iter().any(|s| s.figures.contains_key(k.key)))
            .collect();
        let mut header = vec![format!("median of {rounds}"), "server".to_owned()];
        header.extend(kinds.iter().map(|k| k.label.to_owned()));
        let mut rows = vec![header];
        for s in &self.summary {
            let mut row = vec![s.case.clone(), s.contender.clone()];
            row.extend(kinds.iter().map(|k| {
                let figure = s.figures.get(k.key).filter(|f| !f.median.is_nan());
                figure.map_or(String::new(), |f| cell(f, k.decimals, rounds))
            }));
            rows.push(row);
        }
        out.push_str(&render(&rows));
        for s in self.summary.iter().filter(|s| s.failed > 0) {
            let why = s.failure.as_deref().unwrap_or_default();
            line(
                &mut out,
                format_args!("{} failed {} of {rounds}, {}: {why}", s.contender, s.failed, s.case),
            );
        }
        let void = self.summary.iter().map(|s| s.void).sum::<usize>();
        if void > 0 {
            let first = self.runs.iter().find_map(|r| r.void.first());
            let (of, why) = (self.runs.len(), first.map_or("", |w| w));
            line(&mut out, format_args!("VOID: {void} of {of} runs, by the generator: {why}"));
        }
        for t in &self.targets {
            let word = if t.held { "held" } else { "MISSED" };
            line(
                &mut out,
                format_args!(
                    "target {}, {}: {:.2} {}, wanted {} {}",
                    t.case, t.figure, t.value, t.kind, t.target, word
                ),
            );
        }
        for remark in &self.remarks {
            line(&mut out, format_args!("note: {remark}"));
        }
        out
    }
}

fn line(out: &mut String, text: std::fmt::Arguments<'_>) {
    writeln!(out, "{text}").expect("a String takes any text");
}

fn cell(figure: &Figure, decimals: usize, rounds: usize) -> String {
    if rounds == 1 { format!("{:.decimals$}", figure.median) } else { figure.cell(decimals) }
}

/// `None` when the contender had no part in the case.
fn summarize(case: &str, contender: &str, runs: &[Run]) -> Option<Summary> {
    let mine: Vec<&Run> =
        runs.iter().filter(|r| r.case == case && r.contender == contender).collect();
    if mine.is_empty() {
        return None;
    }
    let mut values: BTreeMap<&'static str, Vec<f64>> = BTreeMap::new();
    for (key, value) in mine.iter().flat_map(|r| &r.figures) {
        values.entry(key).or_default().push(*value);
    }
    Some(Summary {
        case: case.to_owned(),
        contender: contender.to_owned(),
        figures: values.into_iter().map(|(k, v)| (k, Figure::of(&v))).collect(),
        failed: mine.iter().filter(|r| r.failure.is_some()).count(),
        failure: mine.iter().find_map(|r| r.failure.clone()),
        void: mine.iter().filter(|r| !r.void.is_empty()).count(),
    })
}

fn judge_case(
    case: &str,
    targets: &[Target],
    summary: &[Summary],
    contenders: &[Contender],
) -> Vec<Judged> {
    let of = |contender: &str, figure: &str| {
        let mine = summary.iter().find(|s| s.case == case && s.contender == contender)?;
        mine.figures.get(figure).map(|f| f.median).filter(|m| m.is_finite())
    };
    let Some(ours) = contenders.iter().find(|c| c.is_ringmain()).map(Contender::name) else {
        return Vec::new();
    };
    let best_peer = |figure: &str| {
        let peers = contenders.iter().filter(|c| !c.is_ringmain());
        let peers = peers.filter(|c| !matches!(c, Contender::Floor));
        peers.filter_map(|c| of(&c.name(), figure)).reduce(f64::min)
    };
    let judge = |t: &Target| {
        let value = of(&ours, t.figure)?;
        let (kind, value, target, held) = match t.against {
            Against::AtMost(max) => ("at most", value, max, value <= max),
            Against::AtLeast(min) => ("at least", value, min, value >= min),
            Against::Floor(max) => {
                let ratio = value / of("floor", t.figure)?;
                ("× the floor, at most", ratio, max, ratio <= max)
            }
            Against::Mosquitto(min) => {
                let ratio = of("mosquitto", t.figure)? / value;
                ("× better than mosquitto, at least", ratio, min, ratio >= min)
            }
            Against::BestPeer(min) => {
                let ratio = best_peer(t.figure)? / value;
                ("× better than the best peer, at least", ratio, min, ratio >= min)
            }
        };
        Some(Judged { case: case.to_owned(), figure: t.figure, kind, value, target, held })
    };
    targets.iter().filter(|t| is_of(case, t.case)).filter_map(judge).collect()
}

/// Whether a target's case means this one: its name, or whole words that it starts with.
pub(crate) fn is_of(case: &str, of: &str) -> bool {
    case.strip_prefix(of)
        .is_some_and(|rest| of.is_empty() || !rest.starts_with(|c: char| c.is_ascii_alphanumeric()))
}

#[cfg(test)]
mod tests {
    use super::super::target;
    use super::*;
    use crate::peers::by_name;

    fn run(contender: &str, round: usize, value: f64) -> Run {
        Run { figures: Figures::from([("ns", value)]), ..Run::new("w1", contender, round) }
    }

    #[test]
    fn a_failed_round_is_told_and_spoils_no_median() {
        let failed = Run { failure: Some("3 messages lost".into()), ..Run::new("w1", "x", 2) };
        let runs = [run("x", 0, 10.0), run("x", 1, 20.0), failed];
        let summary = summarize("w1", "x", &runs).unwrap();
        assert_eq!(summary.figures["ns"].median, 15.0);
        assert_eq!((summary.failed, summary.failure.as_deref()), (1, Some("3 messages lost")));
        assert!(summarize("w1", "y", &runs).is_none());
    }

    #[test]
    fn targets_are_held_against_floor_mosquitto_and_the_best_peer() {
        let contenders = [
            Contender::Floor,
            Contender::Ringmain { shards: 1, set: vec![] },
            Contender::Peer(by_name("mosquitto").unwrap()),
            Contender::Peer(by_name("aedes").unwrap()),
        ];
        let runs = [
            run("floor", 0, 100.0),
            run("ringmain/1", 0, 200.0),
            run("mosquitto", 0, 600.0),
            run("aedes", 0, 500.0),
        ];
        let summary: Vec<Summary> =
            contenders.iter().filter_map(|c| summarize("w1", &c.name(), &runs)).collect();
        let targets = [
            target("", "ns", Against::Floor(1.5)),
            target("w1", "ns", Against::Mosquitto(3.0)),
            target("w1", "ns", Against::BestPeer(2.5)),
            target("w16", "ns", Against::AtMost(1.0)),
            target("w", "ns", Against::AtMost(1.0)),
        ];
        let judged = judge_case("w1", &targets, &summary, &contenders);
        let found: Vec<(f64, bool)> = judged.iter().map(|j| (j.value, j.held)).collect();
        assert_eq!(found, [(2.0, false), (3.0, true), (2.5, true)]);
    }
}
