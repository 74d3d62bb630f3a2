//! `cargo xtask statements`: which test covers which normative statement of MQTT.
//!
//! The statements are data (`docs/statements/*.toml`), the evidence is the citations in sources
//! and tests (`[MQTT-3.1.2-6]`, `[MQTT311-3.1.2-2]`). Every statement that binds the server has a
//! test or a reason; a citation of an unknown number and a reason that a test has overtaken are
//! errors, so neither list can rot.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use serde::{Deserialize, Serialize};

mod rust_source;
mod scan;
mod script_source;

use scan::{Citation, Place, Scan};

const USAGE: &str = "\
usage: cargo xtask statements [--missing] [--json]
  --missing  list only the server's statements that have neither a test nor a reason
  --json     the whole report as JSON
exit status: 0 all covered, 1 something missing or wrong, 2 cannot run";

/// Runs the command. Exit status 1 when a statement is uncovered or a citation or reason is wrong.
pub(crate) fn run(args: &[String]) -> ExitCode {
    let (mut only_missing, mut json) = (false, false);
    for arg in args {
        match arg.as_str() {
            "--missing" => only_missing = true,
            "--json" => json = true,
            _ => {
                eprintln!("{USAGE}");
                return ExitCode::from(2);
            }
        }
    }
    match report(&repository_root()) {
        Ok(report) => {
            let text = if json { report.json() } else { report.table(only_missing) };
            print!("{text}");
            ExitCode::from(u8::from(!report.is_clean()))
        }
        Err(error) => {
            eprintln!("statements: {error}");
            ExitCode::from(2)
        }
    }
}

/// The checkout that cargo runs this command for; the one it was built in where cargo is absent.
fn repository_root() -> PathBuf {
    let manifest = std::env::var_os("CARGO_MANIFEST_DIR")
        .map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")), PathBuf::from);
    manifest.parent().map_or_else(|| manifest.clone(), Path::to_path_buf)
}

/// What is missing or wrong, for `cargo xtask ci`.
///
/// # Errors
/// When the lists or the sources cannot be read.
pub(crate) fn check() -> Result<Vec<String>, String> {
    let report = report(&repository_root())?;
    let clean = report.is_clean();
    Ok(if clean { Vec::new() } else { report.table(true).lines().map(str::to_owned).collect() })
}

fn report(root: &Path) -> Result<Report, String> {
    let catalogue = Catalogue::load(&root.join("docs/statements"))?;
    let scan = scan::repository(root)?;
    Ok(Report::new(&catalogue, scan))
}

/// An edition of the standard; its numbers are cited with [`Edition::prefix`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
enum Edition {
    #[serde(rename = "5.0")]
    V5,
    #[serde(rename = "3.1.1")]
    V311,
}

impl Edition {
    /// Both editions number their statements "MQTT-x.y.z-n" and the same number often means
    /// something else, so citations of 3.1.1 have a prefix of their own.
    fn prefix(self) -> &'static str {
        match self {
            Self::V5 => "MQTT-",
            Self::V311 => "MQTT311-",
        }
    }
}

/// One statement, by edition and number ("3.1.2-6"); ordered as the standard orders them.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct StatementId {
    edition: Edition,
    section: [u16; 3],
    n: u16,
}

impl StatementId {
    /// Parses the number after the prefix, "3.1.2-6".
    fn parse(edition: Edition, number: &str) -> Option<Self> {
        let (section, n) = number.split_once('-')?;
        let mut parts = section.split('.');
        let mut next = || parts.next().and_then(decimal);
        let section = [next()?, next()?, next()?];
        if parts.next().is_some() {
            return None;
        }
        Some(Self { edition, section, n: decimal(n)? })
    }
}

impl std::fmt::Display for StatementId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let [a, b, c] = self.section;
        write!(f, "{}{a}.{b}.{c}-{}", self.edition.prefix(), self.n)
    }
}

/// Digits only: `parse` alone would take "+6".
fn decimal(text: &str) -> Option<u16> {
    if text.bytes().all(|b| b.is_ascii_digit()) { text.parse().ok() } else { None }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
enum Who {
    /// The server complies.
    Server,
    /// Only a client can comply or fail; the server needs no test.
    Client,
    /// Both comply, or the client complies and the server answers a violation.
    Both,
}

/// A row of `docs/statements/*.toml`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Row {
    id: String,
    who: Who,
    gist: String,
    /// Why no test of ours can or need cover the statement.
    reason: Option<String>,
    /// MQTT 5.0 statements which together say the same (3.1.1 only).
    #[serde(default)]
    same_as: Vec<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct RowFile {
    statement: Vec<Row>,
}

#[derive(Debug)]
struct Statement {
    who: Who,
    gist: String,
    reason: Option<String>,
    same_as: Vec<StatementId>,
}

/// Every statement of both editions. MQTT 5.0 sorts before 3.1.1, which refers to it.
#[derive(Debug, Default)]
struct Catalogue {
    statements: BTreeMap<StatementId, Statement>,
}

impl Catalogue {
    fn load(folder: &Path) -> Result<Self, String> {
        let mut catalogue = Self::default();
        for (edition, name) in [(Edition::V5, "mqtt5.toml"), (Edition::V311, "mqtt311.toml")] {
            let path = folder.join(name);
            let text = std::fs::read_to_string(&path)
                .map_err(|error| format!("cannot read {}: {error}", path.display()))?;
            catalogue.add(edition, &text).map_err(|error| format!("{name}: {error}"))?;
        }
        Ok(catalogue)
    }

    /// Adds one edition's rows; the rows are in the standard's order, each number once.
    fn add(&mut self, edition: Edition, text: &str) -> Result<(), String> {
        let file: RowFile = toml::from_str(text).map_err(|error| error.to_string())?;
        let mut last = None;
        for row in file.statement {
            let id = published_id(edition, &row.id)?;
            if last.as_ref().is_some_and(|last| *last >= id) {
                return Err(format!("{} is repeated or out of order", row.id));
            }
            let same_as = self.same_as(&row, edition)?;
            let Row { who, gist, reason, .. } = row;
            self.statements.insert(id.clone(), Statement { who, gist, reason, same_as });
            last = Some(id);
        }
        Ok(())
    }

    fn same_as(&self, row: &Row, edition: Edition) -> Result<Vec<StatementId>, String> {
        if !row.same_as.is_empty() && edition == Edition::V5 {
            return Err(format!("{}: same_as belongs to the 3.1.1 list", row.id));
        }
        let ids = row
            .same_as
            .iter()
            .map(|text| published_id(Edition::V5, text))
            .collect::<Result<Vec<_>, _>>()?;
        for id in &ids {
            let Some(other) = self.statements.get(id) else {
                return Err(format!("{}: same_as names the unknown {id}", row.id));
            };
            // A server's statement cannot be proven by one that the server need not meet.
            if row.who != Who::Client && other.who == Who::Client {
                return Err(format!("{}: same_as names {id}, which binds clients only", row.id));
            }
        }
        Ok(ids)
    }
}

/// Both lists carry the numbers as published, with the plain prefix.
fn published_id(edition: Edition, text: &str) -> Result<StatementId, String> {
    text.strip_prefix(Edition::V5.prefix())
        .and_then(|number| StatementId::parse(edition, number))
        .ok_or_else(|| format!("{text:?} is not of the form MQTT-x.y.z-n"))
}

/// What stands behind a statement.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
enum State {
    /// A test cites it.
    Tested,
    /// Tests cite all the MQTT 5.0 statements that say the same.
    TestedAsSame,
    /// No test, but a reason.
    Excused,
    /// Binds clients only.
    ClientOnly,
    /// No test and no reason: the command fails.
    Missing,
}

#[derive(Debug, Serialize)]
struct TestName {
    name: String,
    at: String,
}

/// One line of the report.
#[derive(Debug, Serialize)]
struct Line {
    id: String,
    edition: Edition,
    who: Who,
    gist: String,
    state: State,
    implemented: Vec<String>,
    tests: Vec<TestName>,
    /// Citations in the simulator, load generator, benches and test helpers: neither the broker
    /// nor a test.
    support: Vec<String>,
    same_as: Vec<String>,
    reason: Option<String>,
}

#[derive(Debug, Default, PartialEq, Eq, Serialize)]
struct Summary {
    statements: usize,
    tested: usize,
    tested_as_same: usize,
    excused: usize,
    client_only: usize,
    missing: usize,
    citations: usize,
    problems: usize,
}

#[derive(Debug, Serialize)]
struct Report {
    summary: Summary,
    problems: Vec<String>,
    statements: Vec<Line>,
}

impl Report {
    fn new(catalogue: &Catalogue, scan: Scan) -> Self {
        let mut problems = scan.problems;
        let citations = scan.citations.len();
        let mut by_id: BTreeMap<&StatementId, Vec<&Citation>> = BTreeMap::new();
        for citation in &scan.citations {
            if catalogue.statements.contains_key(&citation.id) {
                by_id.entry(&citation.id).or_default().push(citation);
            } else {
                problems.push(unknown_number(catalogue, citation));
            }
        }
        // MQTT 5.0 comes first, so what 3.1.1 refers to is known when it is asked for.
        let mut settled: BTreeMap<&StatementId, (State, Option<&str>)> = BTreeMap::new();
        let mut lines = Vec::new();
        for (id, statement) in &catalogue.statements {
            let mut line = Line::new(id, statement, by_id.get(id).map_or(&[], Vec::as_slice));
            let others: Vec<_> = statement.same_as.iter().map(|other| settled[other]).collect();
            let (state, reason) = settle(statement, !line.tests.is_empty(), &others);
            if statement.reason.is_some() && matches!(state, State::Tested | State::TestedAsSame) {
                problems.push(format!("{id} has a reason although a test covers it: delete it"));
            }
            line.state = state;
            line.reason = reason.map(str::to_owned);
            settled.insert(id, (state, reason));
            lines.push(line);
        }
        let summary = Summary::of(&lines, citations, problems.len());
        Self { summary, problems, statements: lines }
    }

    fn is_clean(&self) -> bool {
        self.summary.missing == 0 && self.problems.is_empty()
    }

    fn json(&self) -> String {
        // JUSTIFICATION: plain structs of strings and numbers; serialising them cannot fail.
        let mut text = serde_json::to_string_pretty(self).expect("a report is plain data");
        text.push('\n');
        text
    }

    fn table(&self, only_missing: bool) -> String {
        let mut out =
            String::from("| statement | gist | implemented at | tested by |\n|---|---|---|---|\n");
        for line in &self.statements {
            if only_missing && line.state != State::Missing {
                continue;
            }
            let implemented = few(&line.implemented);
            let _ = writeln!(
                out,
                "| {:<17} | {} | {implemented} | {} |",
                line.id,
                line.gist,
                line.evidence()
            );
        }
        for problem in &self.problems {
            let _ = writeln!(out, "problem: {problem}");
        }
        let s = &self.summary;
        let _ = writeln!(
            out,
            "{} statements: {} tested, {} tested as the same in MQTT 5.0, {} with a reason, \
             {} bind clients only, {} MISSING; {} citations, {} problems",
            s.statements,
            s.tested,
            s.tested_as_same,
            s.excused,
            s.client_only,
            s.missing,
            s.citations,
            s.problems
        );
        out
    }
}

fn unknown_number(catalogue: &Catalogue, citation: &Citation) -> String {
    let Citation { id, file, line, .. } = citation;
    let sibling = StatementId { edition: Edition::V311, ..id.clone() };
    let hint = if catalogue.statements.contains_key(&sibling) {
        format!(" in MQTT 5.0; {sibling} would cite 3.1.1")
    } else {
        String::new()
    };
    format!("{file}:{line}: there is no statement {id}{hint}")
}

/// The state of a statement from its own tests and from the statements that say the same.
fn settle<'a>(
    statement: &'a Statement,
    has_tests: bool,
    same: &[(State, Option<&'a str>)],
) -> (State, Option<&'a str>) {
    let covered = |state| matches!(state, State::Tested | State::TestedAsSame);
    if has_tests {
        return (State::Tested, None);
    }
    if !same.is_empty() && same.iter().all(|(state, _)| covered(*state)) {
        return (State::TestedAsSame, None);
    }
    if let Some(reason) = &statement.reason {
        return (State::Excused, Some(reason));
    }
    if statement.who == Who::Client {
        return (State::ClientOnly, None);
    }
    let excuse = same.iter().find_map(|(_, reason)| *reason);
    let open = same.iter().any(|(state, _)| !covered(*state) && *state != State::Excused);
    match excuse {
        Some(reason) if !open => (State::Excused, Some(reason)),
        _ => (State::Missing, None),
    }
}

impl Line {
    fn new(id: &StatementId, statement: &Statement, citations: &[&Citation]) -> Self {
        let mut implemented = BTreeSet::new();
        let mut support = BTreeSet::new();
        let mut tests: BTreeMap<(&str, &str), u32> = BTreeMap::new();
        for citation in citations {
            let at = format!("{}:{}", citation.file, citation.line);
            match &citation.place {
                Place::Implementation => {
                    implemented.insert(at);
                }
                Place::Support => {
                    support.insert(at);
                }
                Place::Test(name) => {
                    let first = tests.entry((&citation.file, name)).or_insert(citation.line);
                    *first = citation.line.min(*first);
                }
            }
        }
        Self {
            id: id.to_string(),
            edition: id.edition,
            who: statement.who,
            gist: statement.gist.clone(),
            state: State::Missing,
            implemented: implemented.into_iter().collect(),
            tests: tests
                .into_iter()
                .map(|((file, name), line)| TestName {
                    name: name.to_owned(),
                    at: format!("{file}:{line}"),
                })
                .collect(),
            support: support.into_iter().collect(),
            same_as: statement.same_as.iter().map(ToString::to_string).collect(),
            reason: None,
        }
    }

    fn evidence(&self) -> String {
        match self.state {
            State::Tested => {
                let names: Vec<_> = self.tests.iter().map(|test| test.name.clone()).collect();
                few(&names)
            }
            State::TestedAsSame => format!("as {}", self.same_as.join(", ")),
            State::Excused => format!("reason: {}", self.reason.as_deref().unwrap_or_default()),
            State::ClientOnly => "binds clients only".to_owned(),
            State::Missing => "MISSING".to_owned(),
        }
    }
}

impl Summary {
    fn of(lines: &[Line], citations: usize, problems: usize) -> Self {
        let count = |state| lines.iter().filter(|line| line.state == state).count();
        Self {
            statements: lines.len(),
            tested: count(State::Tested),
            tested_as_same: count(State::TestedAsSame),
            excused: count(State::Excused),
            client_only: count(State::ClientOnly),
            missing: count(State::Missing),
            citations,
            problems,
        }
    }
}

/// The first few of a list and how many more there are: a table cell stays readable.
fn few(items: &[String]) -> String {
    const SHOWN_MAX: usize = 3;
    let mut text = items.iter().take(SHOWN_MAX).cloned().collect::<Vec<_>>().join(", ");
    if items.len() > SHOWN_MAX {
        let _ = write!(text, " and {} more", items.len() - SHOWN_MAX);
    }
    text
}

#[cfg(test)]
mod tests;
