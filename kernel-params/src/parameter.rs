//! The data: parameters with what is proposed for them, parsed from `parameters/*.toml`.

use std::fmt;

use serde::Deserialize;

use crate::formula::Formula;
use crate::goal::Profile;

/// The files of parameters, in the order of the report.
const FILES: &[(&str, &str)] = &[
    ("descriptors.toml", include_str!("../parameters/descriptors.toml")),
    ("accept.toml", include_str!("../parameters/accept.toml")),
    ("buffers.toml", include_str!("../parameters/buffers.toml")),
    ("endings.toml", include_str!("../parameters/endings.toml")),
    ("conntrack.toml", include_str!("../parameters/conntrack.toml")),
    ("ports.toml", include_str!("../parameters/ports.toml")),
    ("network.toml", include_str!("../parameters/network.toml")),
    ("memory.toml", include_str!("../parameters/memory.toml")),
    ("cpu.toml", include_str!("../parameters/cpu.toml")),
];

/// Where a parameter lives, and how its value reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// Below /proc/sys, by its dotted name.
    Sysctl,
    /// A file, or several by a pattern with `*`.
    File,
    /// A file that shows all choices, the chosen one in brackets.
    Choice,
    /// A resource limit of the process.
    Rlimit,
    /// A file of the process's control group (version 2).
    Cgroup,
    /// CPUs to which a receive queue hands packets on: a mask.
    Rps,
    /// CPUs that send by a transmit queue: a mask.
    Xps,
    /// CPUs that an interrupt of a network card goes to: a list.
    Irq,
    /// Sleeps of a core that take long to leave.
    Idle,
}

/// How a parameter is changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Change {
    /// By writing its file; kept over a reboot in sysctl.d.
    Sysctl,
    /// By writing its file; kept over a reboot by a unit that runs at boot.
    File,
    /// By the service manager or limits.d, for processes that start after it.
    Limit,
    /// By the kernel's command line.
    Boot,
    /// Not by us: it is told.
    None,
}

/// What a parameter should be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Wish {
    /// Each word that is not `_` at least this.
    AtLeast(Vec<Word>),
    /// Each word that is not `_` at most this.
    AtMost(Vec<Word>),
    /// Both: words at least, and words at most.
    Between(Vec<Word>, Vec<Word>),
    /// This value.
    Exactly(Word),
    /// One of these; the first is proposed.
    OneOf(Vec<String>),
    /// These ports (or words) among others.
    Contains(Vec<String>),
    /// Computed from what the host has; said in words.
    Computed(String),
}

/// One word of a value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Word {
    /// Stays as it is.
    Any,
    /// A number.
    Number(Formula),
    /// No number: `max`, `performance`.
    Text(String),
}

/// What is proposed under some profiles.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Want {
    /// For which.
    pub profiles: Vec<Profile>,
    /// What.
    pub wish: Wish,
}

/// A value that does harm, whatever the goal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hazard {
    /// Which word of the value is looked at.
    pub word: usize,
    /// When it does.
    pub when: When,
    /// What it does.
    pub why: String,
}

/// See [`Hazard`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum When {
    /// The word is this.
    Equals(String),
    /// The number is below this.
    Below(i128),
    /// The number is above this.
    Above(Formula),
}

/// A parameter of the host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Parameter {
    /// As operators know it: `net.core.somaxconn`.
    pub name: String,
    /// Where it lives.
    pub kind: Kind,
    /// Names of the words of its value, where there are several.
    pub words: Vec<String>,
    /// What a number counts.
    pub unit: String,
    /// What it is on a host where nobody changed it.
    pub default: String,
    /// Bounds that the kernel has for each number.
    pub range: Option<[i128; 2]>,
    /// The host and goal for which it matters; 0 is no.
    pub requires: Option<Formula>,
    /// Where the kernel documents it.
    pub documented: String,
    /// Why what is proposed is proposed.
    pub why: String,
    /// What it may cost.
    pub risk: String,
    /// When undoing it takes effect.
    pub undo: String,
    /// A better way than changing the value, as a command.
    pub instead: String,
    /// How it is changed.
    pub change: Change,
    /// The option of the kernel's command line.
    pub boot: String,
    /// The directive of a systemd unit.
    pub systemd: String,
    /// The line of /proc/PID/limits.
    pub limit: String,
    /// Pattern of its files, from the root.
    pub path: String,
    /// What is proposed.
    pub wants: Vec<Want>,
    /// What is dangerous.
    pub hazards: Vec<Hazard>,
    /// The file that it is from.
    pub file: &'static str,
}

impl Parameter {
    /// What is proposed for it under `profile`.
    #[must_use]
    pub fn wish(&self, profile: Profile) -> Option<&Wish> {
        self.wants.iter().find(|w| w.profiles.contains(&profile)).map(|w| &w.wish)
    }
}

/// All parameters.
///
/// # Errors
/// What is wrong with the data, with file and parameter. A test loads them, so a built program has none.
pub fn all() -> Result<Vec<Parameter>, String> {
    let mut parameters = Vec::new();
    for &(file, text) in FILES {
        parameters.extend(parse(file, text)?);
    }
    Ok(parameters)
}

/// The parameters of one file.
///
/// # Errors
/// As [`all`].
pub fn parse(file: &'static str, text: &str) -> Result<Vec<Parameter>, String> {
    let raw: RawFile = toml::from_str(text).map_err(|e| format!("{file}: {e}"))?;
    let of = |p: RawParameter| {
        let name = p.name.clone();
        p.parsed(file).map_err(|why| format!("{file}: {name}: {why}"))
    };
    raw.parameter.into_iter().map(of).collect()
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawFile {
    parameter: Vec<RawParameter>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawParameter {
    name: String,
    kind: Kind,
    #[serde(default)]
    words: Vec<String>,
    #[serde(default)]
    unit: String,
    default: String,
    range: Option<[i64; 2]>,
    requires: Option<String>,
    documented: String,
    why: String,
    risk: String,
    undo: String,
    #[serde(default)]
    instead: String,
    change: Option<Change>,
    #[serde(default)]
    boot: String,
    #[serde(default)]
    systemd: String,
    #[serde(default)]
    limit: String,
    #[serde(default)]
    path: String,
    #[serde(default)]
    want: Vec<RawWant>,
    #[serde(default)]
    hazard: Vec<RawHazard>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawWant {
    profiles: Vec<Profile>,
    at_least: Option<OneOrMore>,
    at_most: Option<OneOrMore>,
    exactly: Option<String>,
    one_of: Option<Vec<String>>,
    contains: Option<Vec<String>>,
    computed: Option<String>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum OneOrMore {
    One(String),
    More(Vec<String>),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawHazard {
    #[serde(default)]
    word: usize,
    equals: Option<String>,
    below: Option<i64>,
    above: Option<i64>,
    above_formula: Option<String>,
    why: String,
}

impl RawParameter {
    fn parsed(self, file: &'static str) -> Result<Parameter, String> {
        let change = self.change.unwrap_or(match self.kind {
            Kind::Sysctl => Change::Sysctl,
            Kind::Rlimit | Kind::Cgroup => Change::Limit,
            Kind::File | Kind::Choice | Kind::Rps | Kind::Xps | Kind::Irq | Kind::Idle => {
                Change::File
            }
        });
        let path = match self.kind {
            Kind::Sysctl => format!("proc/sys/{}", self.name.replace('.', "/")),
            _ => self.path,
        };
        let needed = [
            (self.kind == Kind::Rlimit && self.limit.is_empty(), "a rlimit needs `limit`"),
            (change == Change::Boot && self.boot.is_empty(), "a boot option needs `boot`"),
            (path.is_empty() && !matches!(self.kind, Kind::Rlimit | Kind::Cgroup), "needs `path`"),
            (self.want.is_empty() && self.hazard.is_empty(), "needs a want or a hazard"),
        ];
        if let Some((_, why)) = needed.iter().find(|(missing, _)| *missing) {
            return Err((*why).to_owned());
        }
        Ok(Parameter {
            requires: self.requires.as_deref().map(Formula::parse).transpose()?,
            wants: self.want.into_iter().map(RawWant::parsed).collect::<Result<_, _>>()?,
            hazards: self.hazard.into_iter().map(RawHazard::parsed).collect::<Result<_, _>>()?,
            name: self.name,
            kind: self.kind,
            words: self.words,
            unit: self.unit,
            default: self.default,
            range: self.range.map(|r| r.map(i128::from)),
            documented: self.documented,
            why: self.why,
            risk: self.risk,
            undo: self.undo,
            instead: self.instead,
            change,
            boot: self.boot,
            systemd: self.systemd,
            limit: self.limit,
            path,
            file,
        })
    }
}

impl RawWant {
    fn parsed(self) -> Result<Want, String> {
        let words = |given: OneOrMore| match given {
            OneOrMore::One(word) => Ok(vec![Word::parse(&word)?]),
            OneOrMore::More(words) => words.iter().map(|w| Word::parse(w)).collect(),
        };
        let least = self.at_least.map(words).transpose()?;
        let most = self.at_most.map(words).transpose()?;
        let mut wishes: Vec<Wish> = match (least, most) {
            (Some(least), Some(most)) => vec![Wish::Between(least, most)],
            (least, most) => {
                least.map(Wish::AtLeast).into_iter().chain(most.map(Wish::AtMost)).collect()
            }
        };
        wishes.extend(self.exactly.map(|w| Word::parse(&w)).transpose()?.map(Wish::Exactly));
        wishes.extend(self.one_of.map(Wish::OneOf));
        wishes.extend(self.contains.map(Wish::Contains));
        wishes.extend(self.computed.map(Wish::Computed));
        match (wishes.pop(), wishes.is_empty(), self.profiles.is_empty()) {
            (Some(wish), true, false) => Ok(Want { profiles: self.profiles, wish }),
            _ => Err(
                "a want has profiles and one of at_least and at_most, exactly, one_of, contains, \
                      computed"
                    .to_owned(),
            ),
        }
    }
}

impl RawHazard {
    fn parsed(self) -> Result<Hazard, String> {
        let above = self.above.map(|n| n.to_string()).or(self.above_formula);
        let when = match (self.equals, self.below, above) {
            (Some(equals), None, None) => When::Equals(equals),
            (None, Some(below), None) => When::Below(below.into()),
            (None, None, Some(above)) => When::Above(Formula::parse(&above)?),
            _ => return Err("a hazard has one of equals, below, above, above_formula".to_owned()),
        };
        Ok(Hazard { word: self.word, when, why: self.why })
    }
}

impl Word {
    /// `_` is any; what begins with a digit, a parenthesis or names a function or a variable of
    /// the goal is a formula; the rest is text.
    fn parse(text: &str) -> Result<Self, String> {
        if text == "_" {
            return Ok(Self::Any);
        }
        let formula = Formula::parse(text)?;
        let is_text = formula.is_a_name() && !crate::goal::VARIABLES.contains(&text);
        Ok(if is_text { Self::Text(text.to_owned()) } else { Self::Number(formula) })
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Sysctl => "sysctl",
            Self::File | Self::Choice | Self::Idle => "file",
            Self::Rlimit => "limit",
            Self::Cgroup => "control group",
            Self::Rps | Self::Xps => "queue",
            Self::Irq => "interrupt",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_data_parses_and_names_each_parameter_once() {
        let parameters = all().unwrap();
        assert!(parameters.len() > 50, "{}", parameters.len());
        let mut names: Vec<&str> = parameters.iter().map(|p| p.name.as_str()).collect();
        names.sort_unstable();
        let before = names.len();
        names.dedup();
        assert_eq!(names.len(), before);
    }

    #[test]
    fn each_parameter_says_why_where_it_is_documented_what_it_risks_and_how_it_is_undone() {
        for p in all().unwrap() {
            for (what, text) in [
                ("why", &p.why),
                ("documented", &p.documented),
                ("risk", &p.risk),
                ("undo", &p.undo),
            ] {
                assert!(
                    text.ends_with(['.', ')', ':']) || what == "documented",
                    "{}: {what}",
                    p.name
                );
                assert!(!text.is_empty(), "{}: {what}", p.name);
            }
        }
    }

    #[test]
    fn unknown_keys_and_wants_of_two_minds_are_refused() {
        let with = |extra: &str| {
            let text = format!(
                "[[parameter]]\nname = 'a.b'\nkind = 'sysctl'\ndefault = '1'\ndocumented = 'x'\n\
                 why = 'x'\nrisk = 'x'\nundo = 'x'\n{extra}"
            );
            parse("test.toml", &text).map(|p| p.len())
        };
        let want = "[[parameter.want]]\nprofiles = ['latency']\n";
        assert_eq!(with(&format!("{want}exactly = '1'")), Ok(1));
        assert!(with("colour = 'red'").unwrap_err().contains("unknown field `colour`"));
        assert!(with("").unwrap_err().contains("a.b: needs a want or a hazard"));
        let both = with(&format!("{want}exactly = '1'\none_of = ['1']"));
        assert!(both.unwrap_err().contains("a.b: a want has profiles and one of"));
        let formula = with(&format!("{want}at_least = '1 +'"));
        assert!(formula.unwrap_err().contains("found the end"));
    }
}
