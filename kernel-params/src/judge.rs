//! What a host has, beside what is proposed for it.

use serde::Serialize;

use crate::formula::Variables;
use crate::goal::Goal;
use crate::host::{Hardware, Host};
use crate::parameter::{Change, Hazard, Kind, Parameter, When, Wish, Word};
use crate::spread;

/// What came out for a parameter, or for one file of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    /// It does harm.
    Hazard,
    /// Another value is proposed.
    Change,
    /// It is as proposed, or nothing is proposed under this profile.
    Good,
    /// It cannot be read.
    Unknown,
    /// This host or this kernel does not have it, or it does not matter here.
    NotHere,
}

impl Verdict {
    /// A word for people.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Hazard => "DANGER",
            Self::Change => "change",
            Self::Good => "good",
            Self::Unknown => "unknown",
            Self::NotHere => "not here",
        }
    }
}

/// A parameter on a host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// The parameter's name, with its place where it has several.
    pub name: String,
    /// Where it lives: sysctl, file, limit …
    pub kind: String,
    /// Its file relative to the host's root; empty for a limit.
    pub path: String,
    /// Its value, words separated by one blank.
    pub actual: Option<String>,
    /// The proposed value.
    pub proposed: Option<String>,
    /// What a number counts.
    pub unit: String,
    /// What came out.
    pub verdict: Verdict,
    /// Why it is proposed, or why it is not known.
    pub why: String,
    /// What each hazard does that the value has.
    pub hazards: Vec<String>,
    /// What the proposal may cost.
    pub risk: String,
    /// When undoing it takes effect.
    pub undo: String,
    /// Where the kernel documents it.
    pub documented: String,
    /// How it is changed.
    pub change: Change,
    /// The option of the kernel's command line.
    pub boot: String,
    /// The directive of a systemd unit.
    pub systemd: String,
    /// A better way than changing the value, as a command.
    pub instead: String,
}

impl Finding {
    /// Whether something else than the present value is proposed.
    #[must_use]
    pub fn wants_change(&self) -> bool {
        self.proposed.is_some() && matches!(self.verdict, Verdict::Change | Verdict::Hazard)
    }
}

impl Finding {
    /// A proposal for a host of which nothing is known.
    pub(crate) fn example(p: &Parameter, proposed: String) -> Self {
        let mut found = finding(p, &p.name, &p.path, Verdict::Change, p.why.clone());
        found.proposed = Some(proposed);
        found
    }
}

/// What is proposed for a host where nobody changed anything; `None` where the default will do, or where it
/// depends on what is there.
pub(crate) fn proposed_for_a_fresh_host(
    p: &Parameter,
    goal: &Goal,
    variables: &Variables,
) -> Result<Option<String>, String> {
    let Some(wish) = p.wish(goal.profile) else { return Ok(None) };
    let default = p.default.split([';', '(', ',']).next().unwrap_or("");
    let mut words: Vec<&str> = default.split_whitespace().collect();
    let some_stay = match wish {
        Wish::Computed(_) => return Ok(None),
        Wish::AtLeast(bounds) | Wish::AtMost(bounds) | Wish::Between(bounds, _) => {
            bounds.contains(&Word::Any)
        }
        _ => false,
    };
    // What is sized by the memory is not a number here.
    let counts = matches!(wish, Wish::AtLeast(_) | Wish::AtMost(_) | Wish::Between(..));
    if counts && !words.iter().all(|w| number(w).is_some()) {
        if some_stay {
            return Ok(None);
        }
        words.clear();
    }
    let proposed = propose(wish, &words, p, variables)?;
    Ok(Some(proposed).filter(|p| *p != words.join(" ")))
}

/// Every parameter on `host`, in the order of the data.
///
/// # Errors
/// A formula that has no value: a fault of the data.
pub fn judge(
    host: &Host,
    hardware: &Hardware,
    goal: &Goal,
    parameters: &[Parameter],
) -> Result<Vec<Finding>, String> {
    let variables = goal.variables(hardware);
    let mut findings = Vec::new();
    for parameter in parameters {
        let wrong = |why: String| format!("{}: {}: {why}", parameter.file, parameter.name);
        if let Some(requires) = &parameter.requires
            && requires.value(&variables).map_err(wrong)? == 0
        {
            let why = format!("it matters only where {}", requires.text());
            findings.push(finding(parameter, &parameter.name, "", Verdict::NotHere, why));
            continue;
        }
        findings.extend(instances(host, goal, parameter, &variables).map_err(wrong)?);
    }
    Ok(findings)
}

fn finding(p: &Parameter, name: &str, path: &str, verdict: Verdict, why: String) -> Finding {
    Finding {
        name: name.to_owned(),
        kind: p.kind.to_string(),
        path: path.to_owned(),
        actual: None,
        proposed: None,
        unit: p.unit.clone(),
        verdict,
        why,
        hazards: Vec::new(),
        risk: p.risk.clone(),
        undo: p.undo.clone(),
        documented: p.documented.clone(),
        change: p.change,
        boot: p.boot.clone(),
        systemd: p.systemd.clone(),
        instead: p.instead.clone(),
    }
}

fn instances(
    host: &Host,
    goal: &Goal,
    p: &Parameter,
    variables: &Variables,
) -> Result<Vec<Finding>, String> {
    let absent = |why: &str| vec![finding(p, &p.name, &p.path, Verdict::NotHere, why.to_owned())];
    match p.kind {
        Kind::Rlimit => match host.limit(&p.limit) {
            Some((soft, _)) => {
                let actual =
                    if soft == u64::MAX { "unlimited".to_owned() } else { soft.to_string() };
                Ok(vec![judged(p, goal, variables, &p.name, "", &actual)?])
            }
            None => Ok(absent("the process has no such limit")),
        },
        Kind::Cgroup => match host.cgroup_file(&p.name) {
            Some(path) => Ok(vec![read(host, goal, p, variables, &p.name, &path)?]),
            None => Ok(absent("no control group bounds it")),
        },
        Kind::Rps | Kind::Xps | Kind::Irq | Kind::Idle => {
            let found = spread::of(host, p, goal.profile);
            if found.is_empty() { Ok(absent("this host has none")) } else { Ok(found) }
        }
        Kind::Sysctl | Kind::File | Kind::Choice => {
            let paths = host.matching(&p.path);
            let several = p.path.contains('*');
            let named = |path: &str| if several { path.to_owned() } else { p.name.clone() };
            let all = paths.iter().map(|path| read(host, goal, p, variables, &named(path), path));
            let all: Vec<Finding> = all.collect::<Result<_, _>>()?;
            if all.is_empty() { Ok(absent("this kernel does not have it")) } else { Ok(all) }
        }
    }
}

fn read(
    host: &Host,
    goal: &Goal,
    p: &Parameter,
    variables: &Variables,
    name: &str,
    path: &str,
) -> Result<Finding, String> {
    match host.text(path) {
        Ok(text) if p.kind == Kind::Choice => {
            let chosen =
                text.split_whitespace().find_map(|w| w.strip_prefix('[')?.strip_suffix(']'));
            judged(p, goal, variables, name, path, chosen.unwrap_or(&text))
        }
        // Negative where a namespace shares the host's table.
        Ok(text) if p.change == Change::Boot => {
            judged(p, goal, variables, name, path, text.trim_start_matches('-'))
        }
        Ok(text) => judged(p, goal, variables, name, path, &text),
        Err(error) => Ok(finding(p, name, path, Verdict::Unknown, format!("{path}: {error}"))),
    }
}

fn judged(
    p: &Parameter,
    goal: &Goal,
    variables: &Variables,
    name: &str,
    path: &str,
    actual: &str,
) -> Result<Finding, String> {
    let words: Vec<&str> = actual.split_whitespace().collect();
    let mut found = finding(p, name, path, Verdict::Good, p.why.clone());
    found.actual = Some(words.join(" "));
    for hazard in &p.hazards {
        if bites(hazard, &words, variables)? {
            found.hazards.push(hazard.why.clone());
        }
    }
    if let Some(wish) = p.wish(goal.profile) {
        let proposed = propose(wish, &words, p, variables)?;
        if proposed != words.join(" ") {
            found.proposed = Some(proposed);
            found.verdict = Verdict::Change;
        }
    } else if !found.hazards.is_empty() {
        // Dangerous and nothing proposed: back to what it is where nobody changed it.
        let first = p.default.split([' ', ';']).next().unwrap_or("");
        found.proposed = Some(first.to_owned()).filter(|w| p.words.is_empty() && is_number(w));
    }
    if !found.hazards.is_empty() {
        found.verdict = Verdict::Hazard;
    }
    Ok(found)
}

fn is_number(word: &str) -> bool {
    !word.is_empty() && word.chars().all(|c| c.is_ascii_digit())
}

/// A number; without a bound where the word says so.
fn number(word: &str) -> Option<i128> {
    match word {
        "max" | "unlimited" | "infinity" => Some(i128::MAX),
        word => word.parse().ok(),
    }
}

fn bites(hazard: &Hazard, words: &[&str], variables: &Variables) -> Result<bool, String> {
    let Some(word) = words.get(hazard.word) else { return Ok(false) };
    Ok(match &hazard.when {
        When::Equals(value) => word == value,
        When::Below(bound) => number(word).is_some_and(|n| n < *bound),
        When::Above(bound) => {
            let bound = bound.value(variables)?;
            number(word).is_some_and(|n| n > bound)
        }
    })
}

/// The value that fulfils the wish and changes the least; the present one where it does.
fn propose(
    wish: &Wish,
    words: &[&str],
    p: &Parameter,
    variables: &Variables,
) -> Result<String, String> {
    let bounded = |value: i128| p.range.map_or(value, |[least, most]| value.clamp(least, most));
    let each = |bounds: &[Word], words: &[String], take: fn(i128, i128) -> bool| {
        let mut out = Vec::new();
        for (i, bound) in bounds.iter().enumerate() {
            let present = words.get(i).map_or("", String::as_str);
            out.push(match bound {
                Word::Any => present.to_owned(),
                Word::Text(text) => text.clone(),
                Word::Number(formula) => {
                    let bound = bounded(formula.value(variables)?);
                    let is_fine = number(present).is_some_and(|n| take(n, bound));
                    if is_fine { present.to_owned() } else { bound.to_string() }
                }
            });
        }
        out.extend(words.iter().skip(bounds.len()).cloned());
        Ok::<_, String>(out)
    };
    let present: Vec<String> = words.iter().map(|&w| w.to_owned()).collect();
    let at_least = |n, bound| n >= bound;
    let at_most = |n, bound| n <= bound;
    Ok(match wish {
        Wish::AtLeast(bounds) => each(bounds, &present, at_least)?.join(" "),
        Wish::AtMost(bounds) => each(bounds, &present, at_most)?.join(" "),
        Wish::Between(least, most) => {
            let raised = each(least, &present, at_least)?;
            each(most, &raised, at_most)?.join(" ")
        }
        Wish::Exactly(Word::Number(formula)) => bounded(formula.value(variables)?).to_string(),
        Wish::Exactly(Word::Text(text)) => text.clone(),
        Wish::Exactly(Word::Any) | Wish::Computed(_) => present.join(" "),
        Wish::OneOf(values) => {
            let present = present.join(" ");
            if values.contains(&present) { present } else { values[0].clone() }
        }
        Wish::Contains(wanted) => {
            let have: Vec<&str> = present.iter().flat_map(|w| w.split(',')).collect();
            let mut all: Vec<&str> = have.iter().copied().filter(|w| !w.is_empty()).collect();
            for port in wanted.iter().map(String::as_str) {
                if !within(&have, port) {
                    all.push(port);
                }
            }
            if all.len() == have.len() { present.join(" ") } else { all.join(",") }
        }
    })
}

/// Whether a port is in a list of ports and ranges.
fn within(list: &[&str], port: &str) -> bool {
    let number = |text: &str| text.parse::<u32>().ok();
    list.iter().any(|entry| match entry.split_once('-') {
        Some((first, last)) => {
            let (first, last, port) = (number(first), number(last), number(port));
            port.is_some() && first <= port && port <= last
        }
        None => *entry == port,
    })
}

#[cfg(test)]
mod tests;
