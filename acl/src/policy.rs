//! All rules of a node, compiled: what is the same for every client.

use std::sync::Arc;

use crate::index::{Index, NONE};
use crate::pattern::Pattern;
use crate::rule::{Rule, Source};
use crate::subject::{ActionSet, Effect};
use crate::who::Who;

/// When the rules that authentication gave a client are asked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum ClientRulesOrder {
    /// Before all sources, as in EMQX.
    #[default]
    First,
    /// After all sources.
    Last,
}

/// What holds beside the rules.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settings {
    /// What is decided when no rule matches.
    pub no_match: Effect,
    /// When the rules of the client itself are asked.
    pub client_rules: ClientRulesOrder,
}

impl Settings {
    /// With the rules of clients first.
    #[must_use]
    pub const fn new(no_match: Effect) -> Self {
        Self { no_match, client_rules: ClientRulesOrder::First }
    }
}

/// The rules of a node. Immutable: a change is a new policy with another epoch.
///
/// Lives on: the control plane makes it, all shards share it. Its lines ascend in the order in
/// which rules are asked.
#[derive(Debug)]
pub struct Policy {
    epoch: u64,
    settings: Settings,
    pub(crate) sources: Vec<Source>,
    /// Each topic of each rule, in order.
    pub(crate) lines: Box<[Line]>,
    /// The lines of rules for everybody that have no placeholder.
    pub(crate) common: Index,
    /// The lines of rules for everybody that have one.
    pub(crate) common_templates: Box<[u32]>,
    /// Rules that some clients do not meet.
    pub(crate) conditional: Box<[Conditional]>,
    /// What is decided of each action when nothing before says otherwise.
    ends: [End; ActionSet::COUNT as usize],
}

/// The last word about an action: a line for everybody and every topic, or what holds when no rule matches.
#[derive(Clone, Copy, Debug)]
struct End {
    line: u32,
    effect: Effect,
}

/// One topic of one rule.
#[derive(Debug)]
pub(crate) struct Line {
    /// `None`: it has placeholders.
    pub(crate) pattern: Option<Pattern>,
    /// Which source it is from.
    pub(crate) source: u32,
    /// Which rule of the source; `None`: what the source says when none matches.
    pub(crate) rule: Option<u32>,
    /// Which topic of the rule.
    pub(crate) topic: u16,
    pub(crate) actions: ActionSet,
    pub(crate) effect: Effect,
}

/// A rule with a condition, and its lines.
#[derive(Debug)]
pub(crate) struct Conditional {
    pub(crate) source: u32,
    pub(crate) rule: u32,
    pub(crate) start: u32,
    pub(crate) end: u32,
}

impl Policy {
    /// Compiles `sources`, which are asked in this order. `epoch` tells this policy from those before:
    /// no two policies of a node have the same.
    #[must_use]
    pub fn compile(epoch: u64, sources: Vec<Source>, settings: Settings) -> Arc<Self> {
        let mut lines = vec![];
        let mut common = vec![];
        let mut common_templates = vec![];
        let mut conditional = vec![];
        for (source, from) in sources.iter().enumerate() {
            let source = source as u32;
            for (number, rule) in from.rules.iter().enumerate() {
                let start = lines.len() as u32;
                lines.extend(lines_of(rule, source, number as u32));
                let end = lines.len() as u32;
                if !matches!(rule.who, Who::All) {
                    conditional.push(Conditional { source, rule: number as u32, start, end });
                    continue;
                }
                for id in start..end {
                    match &lines[id as usize].pattern {
                        Some(_) => common.push(id),
                        None => common_templates.push(id),
                    }
                }
            }
            if let Some(effect) = from.no_match.effect() {
                common.push(lines.len() as u32);
                lines.push(Line {
                    pattern: Some(Pattern::any()),
                    source,
                    rule: None,
                    topic: 0,
                    actions: ActionSet::ALL,
                    effect,
                });
            }
        }
        let ends = std::array::from_fn(|action| {
            let ends = |id: &&u32| {
                let line: &Line = &lines[**id as usize];
                line.actions.has(action as u8) && line.pattern.as_ref().is_some_and(Pattern::is_any)
            };
            match common.iter().find(ends) {
                Some(&line) => End { line, effect: lines[line as usize].effect },
                None => End { line: NONE, effect: settings.no_match },
            }
        });
        let common = Index::new(&lines, common);
        let mut policy = Self {
            epoch,
            settings,
            sources,
            lines: lines.into(),
            common,
            common_templates: common_templates.into(),
            conditional: conditional.into(),
            ends,
        };
        policy.common.open = policy.open(policy.common.ids());
        Arc::new(policy)
    }

    /// What is decided of an action about which nothing says otherwise.
    #[inline]
    pub(crate) fn end(&self, action: u8) -> Effect {
        self.ends[usize::from(action)].effect
    }

    /// The actions about which some of these lines say something else than their end.
    pub(crate) fn open(&self, ids: impl Iterator<Item = u32> + Clone) -> ActionSet {
        ActionSet::of_indices((0..ActionSet::COUNT).filter(|&action| {
            let End { line: end, effect } = self.ends[usize::from(action)];
            let mut ids = ids.clone();
            ids.any(|id| {
                let line = &self.lines[id as usize];
                id < end && line.actions.has(action) && line.effect != effect
            })
        }))
    }

    /// Which policy this is.
    #[must_use]
    pub fn epoch(&self) -> u64 {
        self.epoch
    }

    /// What holds beside the rules.
    #[must_use]
    pub fn settings(&self) -> Settings {
        self.settings
    }

    /// How many rules it has, in all sources.
    #[must_use]
    pub fn rule_count(&self) -> usize {
        self.sources.iter().map(Source::rule_count).sum()
    }

    /// The rule of a line; `None` if the line is what its source says when none matches.
    pub(crate) fn rule(&self, line: &Line) -> Option<&Rule> {
        Some(&self.sources[line.source as usize].rules[line.rule? as usize])
    }
}

fn lines_of(rule: &Rule, source: u32, number: u32) -> impl Iterator<Item = Line> {
    let actions = rule.actions();
    rule.topics.iter().enumerate().map(move |(at, topic)| Line {
        pattern: (!topic.is_template()).then(|| topic.constant(rule.mode)),
        source,
        rule: Some(number),
        topic: at as u16,
        actions,
        effect: rule.effect,
    })
}

// A line names its topic in 16 bits; all lines of ten sources of the largest size in 32.
const _: () = assert!(crate::rule::TOPICS_MAX <= u16::MAX as usize);
const _: () = assert!(crate::rule::RULES_MAX * crate::rule::TOPICS_MAX * 10 < u32::MAX as usize);
