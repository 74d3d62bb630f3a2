//! Random policies, clients and topics: what was compiled decides as a loop over the rules does.
//!
//! `RINGMAIN_SEED` repeats a run, `RINGMAIN_ACL_POLICIES` says how many policies are tried.

use fastrand::Rng;
use ringmain_acl::{
    Action, ClientRule, ClientRules, ClientRulesOrder, Decision, Effect, Gate, NoMatch, Policy,
    QosSet, Settings, Source, Subject, Verb,
};
use ringmain_mqtt::QoS;

/// A rule, as this test understands it.
#[derive(Clone, Debug)]
struct Rule {
    allow: bool,
    who: Who,
    verb: Verb,
    qos: Vec<u8>,
    retain: Option<bool>,
    topics: Vec<(String, bool)>,
    overlapping: bool,
    /// From acl.conf: what denies is compared in words.
    words: bool,
}

#[derive(Clone, Debug)]
enum Who {
    All,
    Local,
    Username(&'static str),
    ClientId(&'static str),
    Team(&'static str),
    Both(Box<Who>, Box<Who>),
    Either(Box<Who>, Box<Who>),
}

#[derive(Debug)]
struct Client {
    id: &'static str,
    username: Option<&'static str>,
    team: Option<&'static str>,
    address: &'static str,
}

const LEVELS: [&str; 6] = ["a", "b", "c", "", "$x", "c1"];
const NAMES: [&str; 8] = ["c1", "u1", "a", "b", "#", "+", "a/b", "$x"];

fn pick<T: Copy>(rng: &mut Rng, from: &[T]) -> T {
    from[rng.usize(..from.len())]
}

/// A filter or, without wildcards, a name; with placeholders if wanted.
fn topic(rng: &mut Rng, wild: bool, holes: bool) -> String {
    loop {
        let count = rng.usize(1..=4);
        let mut levels: Vec<&str> = (0..count)
            .map(|_| match rng.u8(..12) {
                0 | 1 if wild => "+",
                2 if holes => {
                    pick(rng, &["${clientid}", "${username}", "%c", "x-${client_attrs.team}"])
                }
                _ => pick(rng, &LEVELS),
            })
            .collect();
        if wild && rng.u8(..4) == 0 {
            *levels.last_mut().unwrap() = "#";
        }
        let text = levels.join("/");
        if !text.is_empty() {
            return text;
        }
    }
}

fn who(rng: &mut Rng, depth: u8) -> Who {
    match rng.u8(..if depth == 0 { 7 } else { 9 }) {
        0..3 => Who::All,
        3 => Who::Local,
        4 => Who::Username(pick(rng, &["u1", "a", "b"])),
        5 => Who::ClientId(pick(rng, &["c1", "a"])),
        6 => Who::Team(pick(rng, &["a", "c1"])),
        7 => Who::Both(Box::new(who(rng, depth - 1)), Box::new(who(rng, depth - 1))),
        _ => Who::Either(Box::new(who(rng, depth - 1)), Box::new(who(rng, depth - 1))),
    }
}

fn rule(rng: &mut Rng, words: bool) -> Rule {
    let allow = rng.bool();
    let verb = pick(rng, &[Verb::Publish, Verb::Subscribe, Verb::All]);
    let mut qos: Vec<u8> = (0..3).filter(|_| rng.u8(..4) > 0).collect();
    if qos.is_empty() {
        qos = vec![0, 1, 2];
    }
    let retain = (verb != Verb::Subscribe && rng.u8(..5) == 0).then(|| rng.bool());
    let topics = (0..rng.usize(1..3)).map(|_| (topic(rng, true, true), rng.u8(..6) == 0)).collect();
    let overlapping = !words && !allow && verb != Verb::Publish && rng.u8(..4) == 0;
    Rule { allow, who: who(rng, 2), verb, qos, retain, topics, overlapping, words }
}

fn verb_name(verb: Verb) -> &'static str {
    match verb {
        Verb::Publish => "publish",
        Verb::Subscribe => "subscribe",
        Verb::All => "all",
    }
}

fn toml_who(who: &Who) -> String {
    match who {
        Who::All => "\"all\"".into(),
        Who::Local => "\"local\"".into(),
        Who::Username(name) => format!("{{ username = {name:?} }}"),
        Who::ClientId(name) => format!("{{ client_id = {name:?} }}"),
        Who::Team(name) => format!("{{ attributes = {{ team = {name:?} }} }}"),
        Who::Both(a, b) => format!("{{ all = [{}, {}] }}", toml_who(a), toml_who(b)),
        Who::Either(a, b) => format!("{{ any = [{}, {}] }}", toml_who(a), toml_who(b)),
    }
}

fn toml(rules: &[Rule], no_match: &str) -> String {
    let mut text = format!("no_match = {no_match:?}\n");
    for rule in rules {
        let effect = if rule.allow { "allow" } else { "deny" };
        let topic = |(text, eq): &(String, bool)| match eq {
            true => format!("{{ eq = {text:?} }}"),
            false => format!("{text:?}"),
        };
        let topics: Vec<String> = rule.topics.iter().map(topic).collect();
        text.push_str(&format!(
            "[[rule]]\neffect = {effect:?}\nwho = {}\naction = {:?}\nqos = {:?}\ntopics = [{}]\n",
            toml_who(&rule.who),
            verb_name(rule.verb),
            rule.qos,
            topics.join(", ")
        ));
        if let Some(retain) = rule.retain {
            text.push_str(&format!("retain = {retain}\n"));
        }
        if rule.overlapping {
            text.push_str("overlapping = true\n");
        }
    }
    text
}

fn emqx_who(who: &Who) -> String {
    match who {
        Who::All => "all".into(),
        Who::Local => "{ipaddr, \"127.0.0.0/8\"}".into(),
        Who::Username(name) => format!("{{username, {name:?}}}"),
        Who::ClientId(name) => format!("{{clientid, {name:?}}}"),
        Who::Team(name) => format!("{{client_attr, \"team\", {name:?}}}"),
        Who::Both(a, b) => format!("{{'and', [{}, {}]}}", emqx_who(a), emqx_who(b)),
        Who::Either(a, b) => format!("{{'or', [{}, {}]}}", emqx_who(a), emqx_who(b)),
    }
}

fn emqx(rules: &[Rule]) -> String {
    let line = |rule: &Rule| {
        let effect = if rule.allow { "allow" } else { "deny" };
        let topic = |(text, eq): &(String, bool)| match eq {
            true => format!("{{eq, {text:?}}}"),
            false => format!("{text:?}"),
        };
        let topics: Vec<String> = rule.topics.iter().map(topic).collect();
        let mut options = vec![format!("{{qos, {:?}}}", rule.qos)];
        options.extend(rule.retain.map(|retain| format!("{{retain, {retain}}}")));
        format!(
            "{{{effect}, {}, {{{}, [{}]}}, [{}]}}.\n",
            emqx_who(&rule.who),
            verb_name(rule.verb),
            options.join(", "),
            topics.join(", ")
        )
    };
    rules.iter().map(line).collect()
}

impl Client {
    fn random(rng: &mut Rng) -> Self {
        let name = |rng: &mut Rng| (rng.u8(..4) > 0).then(|| pick(rng, &NAMES));
        Self {
            id: pick(rng, &NAMES),
            username: name(rng),
            team: name(rng),
            address: pick(rng, &["127.0.0.1", "127.9.0.1", "10.0.0.1"]),
        }
    }

    fn value(&self, name: &str) -> Option<&'static str> {
        match name {
            "clientid" => Some(self.id),
            "username" => self.username,
            "client_attrs.team" => self.team,
            _ => unreachable!("{name}"),
        }
    }

    fn meets(&self, who: &Who) -> bool {
        match who {
            Who::All => true,
            Who::Local => self.address.starts_with("127."),
            Who::Username(name) => self.username == Some(name),
            Who::ClientId(name) => self.id == *name,
            Who::Team(name) => self.team == Some(name),
            Who::Both(a, b) => self.meets(a) && self.meets(b),
            Who::Either(a, b) => self.meets(a) || self.meets(b),
        }
    }
}

/// How a level compares: a rule's, and that which is asked for.
fn level_matches(rule: &str, asked: &str, filter: bool, words: bool) -> bool {
    match (rule, asked) {
        ("+", "#") => words || !filter,
        ("+", _) => true,
        (rule, asked) => rule == asked,
    }
}

/// Whether the levels of a rule take in those that are asked for.
fn takes_in(rule: &[&str], asked: &[&str], filter: bool, words: bool) -> bool {
    match (rule, asked) {
        (["#"], _) | ([], []) => true,
        ([r, rule @ ..], [a, asked @ ..]) => {
            level_matches(r, a, filter, words) && takes_in(rule, asked, filter, words)
        }
        _ => false,
    }
}

fn meet(left: &[&str], right: &[&str]) -> bool {
    match (left, right) {
        (["#"], _) | (_, ["#"]) | ([], []) => true,
        ([l, left @ ..], [r, right @ ..]) => {
            (l == r || *l == "+" || *r == "+") && meet(left, right)
        }
        _ => false,
    }
}

fn is_wild(level: &str) -> bool {
    level == "+" || level == "#"
}

/// Fills in one topic: its text, and whether something could not be put in.
fn fill(topic: &str, client: &Client, allow: bool) -> (String, bool) {
    let mut broken = false;
    let mut out = vec![];
    for (at, level) in topic.split('/').enumerate() {
        let level = match level {
            "%c" => "${clientid}",
            "%u" => "${username}",
            other => other,
        };
        let Some(start) = level.find("${") else {
            out.push(level.to_owned());
            continue;
        };
        let value = client.value(&level[start + 2..level.len() - 1]);
        let leads = at == 0 && start == 0;
        let wild = value.is_some_and(|value| value.contains(['+', '#']));
        let reaches = value.is_some_and(|v| v.contains('/') || leads && v.starts_with('$'));
        match value {
            Some(value) if !(wild || allow && reaches) => {
                out.push(format!("{}{value}", &level[..start]));
            }
            _ if wild => {
                out.push("#".to_owned());
                return (out.join("/"), true);
            }
            _ => {
                broken = true;
                out.push("+".to_owned());
            }
        }
    }
    (out.join("/"), broken)
}

fn topic_matches(
    rule: &Rule,
    topic: &(String, bool),
    client: &Client,
    subscribe: bool,
    asked: &str,
) -> bool {
    let (text, broken) = fill(&topic.0, client, rule.allow);
    if broken && rule.allow {
        return false;
    }
    if topic.1 && !broken {
        return text == asked;
    }
    let loose = broken || (rule.words && !rule.allow);
    let left: Vec<&str> = text.split('/').collect();
    let mut right: Vec<&str> = asked.split('/').collect();
    let dollar = right[0].starts_with('$') && is_wild(left[0]);
    if dollar && !loose {
        return false;
    }
    if subscribe && rule.overlapping {
        return meet(&left, &right) && !(left[0].starts_with('$') && is_wild(right[0]));
    }
    if subscribe && !loose && right == ["#"] {
        right = vec!["+", "#"];
    }
    takes_in(&left, &right, subscribe, loose)
}

fn decides(rules: &[Rule], client: &Client, action: Action, asked: &str) -> Option<bool> {
    let matches = |rule: &&Rule| {
        let (right_verb, qos, retain) = match action {
            Action::Publish { qos, retain } => (rule.verb != Verb::Subscribe, qos, Some(retain)),
            Action::Subscribe { qos } => (rule.verb != Verb::Publish, qos, None),
        };
        let about = right_verb
            && rule.qos.contains(&(qos as u8))
            && (rule.retain.is_none() || retain.is_none() || rule.retain == retain);
        let topic = |topic: &(String, bool)| {
            topic_matches(rule, topic, client, action.is_subscribe(), asked)
        };
        about && client.meets(&rule.who) && rule.topics.iter().any(topic)
    };
    rules.iter().find(matches).map(|rule| rule.allow)
}

fn client_rules(rules: &[Rule], no_match: NoMatch) -> ClientRules {
    let qos = |rule: &Rule| {
        let all = rule.qos.iter().map(|qos| QoS::from_bits(*qos).unwrap());
        Some(all.fold(QosSet::NONE, QosSet::with))
    };
    let rules: Vec<ClientRule> = rules
        .iter()
        .map(|rule| ClientRule {
            allow: rule.allow,
            action: rule.verb,
            topic: rule.topics[0].0.clone(),
            eq: rule.topics[0].1,
            qos: qos(rule),
            retain: rule.retain,
        })
        .collect();
    ClientRules::new(&rules, no_match).unwrap()
}

fn action(rng: &mut Rng) -> Action {
    let qos = QoS::from_bits(rng.u8(..3)).unwrap();
    if rng.bool() { Action::Subscribe { qos } } else { Action::Publish { qos, retain: rng.bool() } }
}

/// A source: its rules, what it says when none matches, and its compiled form.
fn source(rng: &mut Rng) -> (Vec<Rule>, Option<bool>, Source) {
    let words = rng.bool();
    let most = pick(rng, &[3, 20, 120]);
    let rules: Vec<Rule> = (0..rng.usize(..=most)).map(|_| rule(rng, words)).collect();
    let (name, no_match) = match rng.u8(..4) {
        0 if !words => ("allow", Some(true)),
        1 if !words => ("deny", Some(false)),
        _ => ("next", None),
    };
    let parsed = match words {
        true => Source::emqx("acl.conf", &emqx(&rules)),
        false => Source::toml("acl.toml", &toml(&rules, name)),
    };
    (rules, no_match, parsed.unwrap_or_else(|errors| panic!("{errors}")))
}

fn own_rules(rng: &mut Rng) -> (Vec<Rule>, Option<bool>, ClientRules) {
    let mut rules: Vec<Rule> = (0..rng.usize(..6)).map(|_| rule(rng, false)).collect();
    for rule in &mut rules {
        rule.who = Who::All;
        rule.overlapping = false;
        rule.topics.truncate(1);
    }
    let no_match = pick(rng, &[NoMatch::Next, NoMatch::Allow, NoMatch::Deny]);
    let effect = match no_match {
        NoMatch::Next => None,
        NoMatch::Allow => Some(true),
        NoMatch::Deny => Some(false),
    };
    let compiled = client_rules(&rules, no_match);
    (rules, effect, compiled)
}

/// A policy in both forms: as rules of this test, and compiled.
struct World {
    sources: Vec<(Vec<Rule>, Option<bool>, Source)>,
    settings: Settings,
    gate: Gate,
}

type Own = Option<(Vec<Rule>, Option<bool>, ClientRules)>;

impl World {
    fn random(rng: &mut Rng, epoch: u64) -> Self {
        let sources: Vec<_> = (0..rng.usize(..3)).map(|_| source(rng)).collect();
        let no_match = if rng.bool() { Effect::Allow } else { Effect::Deny };
        let client_rules = pick(rng, &[ClientRulesOrder::First, ClientRulesOrder::Last]);
        let settings = Settings { no_match, client_rules };
        let parsed = sources.iter().map(|(_, _, source)| source.clone()).collect();
        // A small cache, so that decisions push each other out.
        let gate = Gate::with_cache(Policy::compile(epoch, parsed, settings), 16);
        Self { sources, settings, gate }
    }

    /// What a loop over the rules decides.
    fn expected(&self, own: &Own, client: &Client, action: Action, asked: &str) -> bool {
        let by_sources = || {
            let mut sources = self.sources.iter();
            sources.find_map(|(rules, none, _)| decides(rules, client, action, asked).or(*none))
        };
        let by_own = || {
            let (rules, none, _) = own.as_ref()?;
            decides(rules, client, action, asked).or(*none)
        };
        let found = match self.settings.client_rules {
            ClientRulesOrder::First => by_own().or_else(by_sources),
            ClientRulesOrder::Last => by_sources().or_else(by_own),
        };
        found.unwrap_or(self.settings.no_match == Effect::Allow)
    }

    fn rules(&self) -> String {
        let lines = |rules: &[Rule]| rules.iter().map(|rule| format!("{rule:?}\n")).collect();
        self.sources.iter().map(|(rules, ..)| lines(rules)).collect::<Vec<String>>().join("---\n")
    }

    /// Asks for `count` topics; how many of them are allowed.
    fn ask(&mut self, rng: &mut Rng, client: &Client, own: &Own, count: u64) -> u64 {
        let attributes: Vec<_> = client.team.map(|team| ("team", team)).into_iter().collect();
        let subject = Subject {
            client_id: client.id,
            username: client.username,
            peer: Some(client.address.parse().unwrap()),
            attributes: &attributes,
            ..Subject::default()
        };
        let claims = own.as_ref().map(|(_, _, compiled)| compiled);
        let view = self.gate.client(&subject, claims);
        let mut allowed = 0;
        for _ in 0..count {
            let action = action(rng);
            let asked = topic(rng, action.is_subscribe(), false);
            let expected = self.expected(own, client, action, &asked);
            // Twice: decided, and found in the cache.
            let found = [0, 1].map(|_| self.gate.decide(&view, action, &asked));
            let why = self.gate.explain(&view, &subject, claims, action, &asked, true);
            let context = || {
                let rules = self.rules();
                format!("{asked:?} {action:?} {client:?} {own:?} {:?}\n{rules}", why.by)
            };
            let said = if expected { Decision::Allow } else { Decision::Deny };
            assert_eq!(found, [said; 2], "{}", context());
            assert_eq!(Decision::from(why.outcome), said, "{}", context());
            allowed += u64::from(expected);
        }
        allowed
    }
}

/// What EMQX decides with a file, by its words: the first rule whose words match.
fn emqx_decides(rules: &[Rule], client: &Client, action: Action, asked: &str) -> Option<bool> {
    let matches = |rule: &&Rule| {
        let alone = Rule { allow: false, words: true, ..(*rule).clone() };
        decides(&[alone], client, action, asked).is_some()
    };
    rules.iter().find(matches).map(|rule| rule.allow)
}

#[test]
fn a_file_of_emqx_allows_nothing_that_emqx_denies() {
    // AZ01
    let number = |name| std::env::var(name).ok().and_then(|text| text.parse().ok());
    let seed: u64 = number("RINGMAIN_SEED").unwrap_or_else(|| fastrand::u64(..));
    println!("RINGMAIN_SEED={seed}");
    let rng = &mut Rng::with_seed(seed);
    let (mut same, mut stricter) = (0, 0);
    for epoch in 1..=number("RINGMAIN_ACL_POLICIES").unwrap_or(150) {
        let mut rules: Vec<Rule> = (0..rng.usize(1..20)).map(|_| rule(rng, true)).collect();
        for rule in &mut rules {
            rule.topics.iter_mut().for_each(|topic| topic.0 = self::topic(rng, true, false));
        }
        let source = Source::emqx("acl.conf", &emqx(&rules)).unwrap();
        let mut gate =
            Gate::new(Policy::compile(epoch, vec![source], Settings::new(Effect::Allow)));
        for _ in 0..100 {
            let client = Client { team: None, ..Client::random(rng) };
            let subject = Subject {
                client_id: client.id,
                username: client.username,
                peer: Some(client.address.parse().unwrap()),
                ..Subject::default()
            };
            let view = gate.client(&subject, None);
            let action = action(rng);
            let asked = topic(rng, action.is_subscribe(), false);
            let theirs = emqx_decides(&rules, &client, action, &asked).unwrap_or(true);
            let ours = gate.decide(&view, action, &asked) == Decision::Allow;
            assert!(theirs || !ours, "{asked:?} {action:?} {client:?}\n{}", emqx(&rules));
            *(if theirs == ours { &mut same } else { &mut stricter }) += 1;
        }
    }
    println!("{same} alike, {stricter} stricter");
    assert!(same > stricter * 10 && stricter > 0);
}

#[test]
fn what_was_compiled_decides_as_a_loop_over_the_rules() {
    // AZ01 AZ03
    const TOPICS: u64 = 60;
    let number = |name| std::env::var(name).ok().and_then(|text| text.parse().ok());
    let seed: u64 = number("RINGMAIN_SEED").unwrap_or_else(|| fastrand::u64(..));
    println!("RINGMAIN_SEED={seed}");
    let rng = &mut Rng::with_seed(seed);
    let (mut allowed, mut decided) = (0, 0);
    for epoch in 1..=number("RINGMAIN_ACL_POLICIES").unwrap_or(150) {
        let mut world = World::random(rng, epoch);
        for _ in 0..12 {
            let client = Client::random(rng);
            let own = (rng.u8(..3) == 0).then(|| own_rules(rng));
            allowed += world.ask(rng, &client, &own, TOPICS);
            decided += TOPICS;
        }
    }
    println!("{allowed} of {decided} allowed");
    assert!(allowed > decided / 10 && allowed < decided / 10 * 9, "the test asks for too little");
}
