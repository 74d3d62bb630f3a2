//! docs/user/authorization.md: each example decides as the table below it says.

use ringmain_acl::topic::{publish_target, subscribe_target};
use ringmain_acl::{
    Action, CLIENT_RULES_MAX, DEFAULT_POLICY, Decision, Effect, Gate, Policy, RULES_MAX,
    SOURCE_BYTES_MAX, Settings, Source, SourceErrors, Subject, TOPICS_MAX,
};
use ringmain_mqtt::QoS;
use ringmain_mqtt::topic::TopicName;

const PAGE: &str = include_str!("../../docs/user/authorization.md");

/// A fenced block: what stands behind the fence, its text, and what follows up to the next.
struct Block<'a> {
    kind: &'a str,
    text: &'a str,
    after: &'a str,
}

fn blocks() -> Vec<Block<'static>> {
    let mut pieces = PAGE.split("```");
    pieces.next();
    let mut blocks = vec![];
    while let (Some(block), Some(after)) = (pieces.next(), pieces.next()) {
        let (kind, text) = block.split_once('\n').unwrap();
        blocks.push(Block { kind, text, after });
    }
    blocks
}

impl Block<'_> {
    /// Whether it is a file of rules.
    fn is_rules(&self) -> bool {
        matches!(self.kind, "toml" | "toml default" | "toml acl.toml" | "erlang")
    }
}

fn parse(block: &Block<'_>) -> Result<Source, SourceErrors> {
    match block.kind {
        "erlang" => Source::emqx("acl.conf", block.text),
        _ => Source::toml("acl.toml", block.text),
    }
}

/// Rows of the table that follows: client, what it wants, and whether it may.
fn rows(after: &'static str) -> impl Iterator<Item = [&'static str; 3]> {
    let table =
        after.lines().skip_while(|line| line.is_empty()).take_while(|line| line.starts_with('|'));
    table.skip(2).map(|line| {
        let cells: Vec<&str> = line.trim_matches('|').split(" | ").map(str::trim).collect();
        cells.try_into().unwrap_or_else(|_| panic!("{line}"))
    })
}

fn decide(gate: &mut Gate, client: &str, wants: &str) -> Decision {
    let mut subject = Subject { client_id: "c", ..Subject::default() };
    let mut attributes = vec![];
    for part in client.split(", ") {
        match part.split_once(' ') {
            None if part == "superuser" => subject.superuser = true,
            None => subject.client_id = part,
            Some(("username", name)) => subject.username = Some(name),
            Some(("from", address)) => subject.peer = Some(address.parse().unwrap()),
            Some(("listener", name)) => subject.listener = name,
            Some(("attribute", pair)) => attributes.push(pair.split_once('=').unwrap()),
            Some(_) => panic!("{part}"),
        }
    }
    subject.attributes = &attributes;
    let [verb, topic, options] = wants.split('`').collect::<Vec<_>>().try_into().unwrap();
    let qos = match options.split_once("with QoS ") {
        None => QoS::AtMostOnce,
        Some((_, qos)) => QoS::from_bits(qos.parse().unwrap()).unwrap(),
    };
    let view = gate.client(&subject, None);
    match verb.trim() {
        "publish" => {
            let name = TopicName::parse(topic, 0).unwrap();
            let action = Action::Publish { qos, retain: options.contains("retained") };
            gate.decide(&view, action, publish_target(&name).unwrap())
        }
        "subscribe" => {
            gate.decide(&view, Action::Subscribe { qos }, subscribe_target(topic).unwrap())
        }
        other => panic!("{other}"),
    }
}

#[test]
fn every_example_decides_as_its_table_says() {
    let (mut examples, mut decisions) = (0, 0);
    for block in blocks().iter().filter(|block| block.is_rules()) {
        let Ok(source) = parse(block) else { continue };
        examples += 1;
        let mut gate = Gate::new(Policy::compile(1, vec![source], Settings::new(Effect::Deny)));
        let mut any = false;
        for [client, wants, may] in rows(block.after) {
            let expected = match may {
                "yes" => Decision::Allow,
                "no" => Decision::Deny,
                other => panic!("{other}"),
            };
            assert_eq!(
                decide(&mut gate, client, wants),
                expected,
                "{client} {wants}\n{}",
                block.text
            );
            any = true;
            decisions += 1;
        }
        assert!(any, "no table below\n{}", block.text);
    }
    assert!(examples >= 7 && decisions >= 44, "{examples} {decisions}");
}

#[test]
fn the_wrong_example_says_what_the_page_says() {
    let blocks = blocks();
    let wrong: Vec<_> = blocks.windows(2).filter(|pair| pair[1].kind == "text").collect();
    assert_eq!(wrong.len(), 1);
    let errors = parse(&wrong[0][0]).unwrap_err().to_string();
    assert_eq!(errors, wrong[0][1].text.trim_end());
    let broken = blocks.iter().filter(|block| block.is_rules() && parse(block).is_err());
    assert_eq!(broken.count(), 1, "only that one is wrong");
}

#[test]
fn the_page_shows_the_built_in_policy_and_the_limits() {
    let shown = blocks().iter().find(|block| block.kind == "toml default").unwrap().text;
    let rules = |text: &str| text[text.find("# Whoever").unwrap()..].to_owned();
    assert_eq!(rules(shown), rules(DEFAULT_POLICY));
    assert_eq!((RULES_MAX, SOURCE_BYTES_MAX), (10_000, 4 << 20));
    assert_eq!((TOPICS_MAX, CLIENT_RULES_MAX), (1_000, 256));
    let limits =
        "10,000 rules and 4 MiB a file, 1,000 topics a rule, 128 levels a topic, 256 rules";
    assert!(PAGE.contains(limits));
}
