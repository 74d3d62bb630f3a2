//! Rules of `[authorization]`: what clients may, what a reload changes, and what `explain` says of it.

use std::process::Output;
use std::time::Instant;

use ringmain_mqtt::{Connect, Forward, Packet, QoS, ReasonCode, Will};
use serde_json::Value;

use super::admin::get;
use super::support::{
    Broker, Client, Folder, NO_METRICS, PATIENCE, V5, V311, connect, has, ringmain, set,
};

const DENIED: u8 = ReasonCode::NOT_AUTHORIZED.0;
const ALLOW_ALL: &str = "[[rule]]\neffect = 'allow'\n";

/// A broker whose rules are files beside its configuration.
struct Ruled {
    broker: Broker,
    folder: Folder,
}

impl Ruled {
    /// Starts with one file of rules.
    fn start(name: &str, file: &str, rules: &str) -> Self {
        Self::with(name, &[(file, rules)], "")
    }

    /// Starts with these files of rules, and further lines of configuration.
    fn with(name: &str, files: &[(&str, &str)], more: &str) -> Self {
        let folder = Folder::new(&format!("rules-{name}"));
        write(&folder, files, more);
        let mut command = ringmain();
        command.arg("--config").arg(folder.0.join("ringmain.toml"));
        command.args(["--shards", "2"]).args(set(&[NO_METRICS, "node.pin_cores=false"]));
        let broker = Broker::start_by(command, &folder);
        Self { broker, folder }
    }

    /// Writes other rules and has them read; returns what was said up to `said`.
    fn reload(&self, file: &str, rules: &str, said: &str) -> Vec<String> {
        std::fs::write(self.folder.0.join(file), rules).expect("writes");
        self.broker.signal(libc::SIGHUP);
        self.broker.lines_until(said)
    }

    /// `ringmain explain` with the configuration of this broker: what it said, and whether it accepts.
    fn explain(&self, words: &[&str]) -> (Value, bool) {
        let output = ringmain()
            .arg("explain")
            .args(words)
            .args(["--json", "--from", "127.0.0.1", "--config"])
            .arg(self.folder.0.join("ringmain.toml"))
            .output()
            .expect("runs");
        let json =
            serde_json::from_slice(&output.stdout).unwrap_or_else(|e| panic!("{e}: {output:?}"));
        (json, output.status.success())
    }
}

fn write(folder: &Folder, files: &[(&str, &str)], more: &str) {
    for (name, rules) in files {
        std::fs::write(folder.0.join(name), rules).expect("writes");
    }
    let names: Vec<String> = files.iter().map(|(name, _)| format!("'{name}'")).collect();
    let listener = "[[listeners]]\nurl = 'tcp://127.0.0.1:0'\n";
    let text = format!("[authorization]\nfiles = [{}]\n{more}\n{listener}", names.join(", "));
    std::fs::write(folder.0.join("ringmain.toml"), text).expect("writes");
}

/// One of mosquitto's clients; `-W` bounds it.
fn mosquitto(broker: &Broker, program: &str, arguments: &[&str]) -> Output {
    let address = broker.address();
    let (ip, port) = (address.ip().to_string(), address.port().to_string());
    let mut command = std::process::Command::new(program);
    command.args(["-h", &ip, "-p", &port]).args(arguments);
    command.output().unwrap_or_else(|e| panic!("{program}: {e}: cargo xtask needs"))
}

fn said(output: &Output) -> String {
    let text = [&*output.stdout, &*output.stderr].concat();
    String::from_utf8_lossy(&text).into_owned()
}

/// Publishes with QoS 1; the code of PUBACK.
fn put(client: &mut Client, topic: &str) -> u8 {
    client.try_publish(topic, QoS::AtLeastOnce, 9).expect("PUBACK").0
}

/// Publishes until the answer is `code`: the shards take other rules in one of their next turns.
fn put_until(client: &mut Client, topic: &str, code: u8) {
    let until = Instant::now() + PATIENCE;
    loop {
        let got = put(client, topic);
        if got == code {
            return;
        }
        assert!(Instant::now() < until, "{topic}: {got:#x} instead of {code:#x}");
    }
}

#[test]
fn a_file_of_rules_denies_and_mosquitto_hears_it() {
    // AZ01 AZ04 P04
    let rules = format!("[[rule]]\neffect = 'deny'\ntopics = ['secret/#']\n{ALLOW_ALL}");
    let ruled = Ruled::start("deny", "acl.toml", &rules);
    let broker = &ruled.broker;
    let to = |topic| ["-V", "5", "-q", "1", "-t", topic, "-m", "x", "-r"];
    let denied = mosquitto(broker, "mosquitto_pub", &to("secret/a"));
    assert!(said(&denied).contains("Not authorized"), "{denied:?}");
    let allowed = mosquitto(broker, "mosquitto_pub", &to("open/a"));
    assert_eq!(said(&allowed), "", "{allowed:?}");
    let from = |topic| ["-V", "5", "-v", "-C", "1", "-W", "60", "-t", topic];
    let denied = mosquitto(broker, "mosquitto_sub", &from("secret/a"));
    assert!(said(&denied).contains("All subscription requests were denied"), "{denied:?}");
    let allowed = mosquitto(broker, "mosquitto_sub", &from("open/+"));
    assert_eq!(said(&allowed), "open/a x\n", "the retained one");
    // A filter that covers more than is denied does not cover it.
    let all = mosquitto(broker, "mosquitto_sub", &from("+/a"));
    assert_eq!(said(&all), "open/a x\n", "the other was never stored");
}

#[test]
fn an_acl_conf_of_emqx_is_used_as_it_is() {
    // AZ01
    let conf = "%% As EMQX comes with it, and a user of ours\n\
                {allow, {username, {re, \"^dashboard$\"}}, subscribe, [\"$SYS/#\"]}.\n\
                {deny, {ipaddr, \"127.0.0.1\"}, publish, [\"plant/%c/set\"]}.\n\
                {deny, all, subscribe, [\"$SYS/#\", {eq, \"#\"}]}.\n\
                {allow, all}.\n";
    let ruled = Ruled::start("emqx", "acl.conf", conf);
    let mut client = ruled.broker.client(V5, "c1");
    assert_eq!(client.subscribe(&["#", "$SYS/#", "+/#", "plant/#"]), [DENIED, DENIED, 1, 1]);
    assert_eq!(put(&mut client, "plant/c1/set"), DENIED);
    assert_eq!(put(&mut client, "plant/c2/set"), 0);
    let dashboard = Connect { username: Some("dashboard"), ..connect(V5, "d") };
    let (mut dashboard, _) = ruled.broker.connect(&dashboard);
    assert_eq!(dashboard.subscribe(&["#", "$SYS/#"]), [DENIED, 1]);
}

#[test]
fn files_are_asked_in_their_order_and_no_match_has_the_last_word() {
    // AZ02
    let first = "[[rule]]\neffect = 'allow'\ntopics = ['a/b']\n";
    let second = "{deny, all, all, [\"a/#\"]}.\n{allow, all, all, [\"b/#\"]}.\n";
    let files = [("1.toml", first), ("2.conf", second)];
    for (no_match, other) in [("deny", DENIED), ("allow", ReasonCode::NO_MATCHING_SUBSCRIBERS.0)] {
        let more = format!("no_match = '{no_match}'");
        let ruled = Ruled::with(&format!("order-{no_match}"), &files, &more);
        let mut client = ruled.broker.client(V5, "c");
        let codes = ["a/b", "a/c", "b/c", "c"].map(|topic| put(&mut client, topic));
        let none = ReasonCode::NO_MATCHING_SUBSCRIBERS.0;
        assert_eq!(codes, [none, DENIED, none, other], "{no_match}");
    }
}

#[test]
fn a_reload_takes_away_a_live_subscription_and_stops_a_live_publisher() {
    // AZ06
    // The subscriber acknowledges nothing, and gets some before its shard has got to it.
    let more = "[mqtt]\nmax_inflight = 65535";
    let ruled = Ruled::with("revoke", &[("acl.toml", ALLOW_ALL)], more);
    let mut subscriber = ruled.broker.client(V5, "subscriber");
    let mut publisher = ruled.broker.client(V5, "publisher");
    assert_eq!(subscriber.subscribe(&["gone/#", "stays/#"]), [1, 1]);
    assert_eq!(put(&mut publisher, "gone/1"), 0);
    assert_eq!(put(&mut publisher, "stop/1"), ReasonCode::NO_MATCHING_SUBSCRIBERS.0);
    let rules = "[[rule]]\neffect = 'deny'\naction = 'subscribe'\ntopics = ['gone/#']\n\
                 [[rule]]\neffect = 'deny'\naction = 'publish'\ntopics = ['stop/#']\n";
    let rules = format!("{rules}{ALLOW_ALL}");
    let lines = ruled.reload("acl.toml", &rules, "other rules hold");
    assert!(has(&lines, "acl.toml") && has(&lines, "3 rules, not the same"), "{lines:#?}");
    put_until(&mut publisher, "stop/1", DENIED);
    // Nobody has it any more, though its client has not gone.
    put_until(&mut publisher, "gone/2", ReasonCode::NO_MATCHING_SUBSCRIBERS.0);
    assert_eq!(put(&mut publisher, "stays/1"), 0);
    let mut last = String::new();
    while last != "stays/1" {
        last = subscriber.next(|p| match p {
            Packet::Publish(publish) => Some(publish.topic.to_owned()),
            _ => None,
        });
    }
    assert_eq!(subscriber.subscribe(&["gone/#"]), [DENIED]);
    ruled.reload("acl.toml", ALLOW_ALL, "other rules hold");
    put_until(&mut publisher, "stop/1", ReasonCode::NO_MATCHING_SUBSCRIBERS.0);
    assert_eq!(subscriber.subscribe(&["gone/#"]), [1], "what was denied is allowed again");
}

#[test]
fn a_session_that_comes_back_gets_no_subscription_that_was_denied_meanwhile() {
    // AZ06 S-06
    let ruled = Ruled::start("resume", "acl.toml", ALLOW_ALL);
    let mut absent = ruled.broker.lasting("absent");
    assert_eq!(absent.subscribe(&["gone/#", "stays/#"]), [1, 1]);
    drop(absent);
    let rules = format!("[[rule]]\neffect = 'deny'\ntopics = ['gone/#', 'probe']\n{ALLOW_ALL}");
    ruled.reload("acl.toml", &rules, "other rules hold");
    // Each shard hears of it by itself; a message to `gone` before that would wait for its subscriber.
    let mut probes =
        [0, 1, 2, 3, 4, 5, 6, 7].map(|n| ruled.broker.client(V5, &format!("probe-{n}")));
    probes.iter_mut().for_each(|probe| put_until(probe, "probe", DENIED));
    let [probe, ..] = &mut probes;
    assert_eq!(put(probe, "gone/1"), DENIED);
    let mut back = ruled.broker.lasting("absent");
    ruled.reload("acl.toml", ALLOW_ALL, "other rules hold");
    let none = ReasonCode::NO_MATCHING_SUBSCRIBERS.0;
    put_until(probe, "gone/2", none);
    assert_eq!(put(probe, "stays/1"), 0);
    let topic = back.next(|p| match p {
        Packet::Publish(publish) => Some(publish.topic.to_owned()),
        _ => None,
    });
    assert_eq!(topic, "stays/1");
}

#[test]
fn a_wrong_file_at_a_reload_changes_nothing_and_says_where() {
    // AZ06
    let rules = format!("[[rule]]\neffect = 'deny'\ntopics = ['no']\n{ALLOW_ALL}");
    let ruled = Ruled::start("wrong", "acl.toml", &rules);
    let mut client = ruled.broker.client(V5, "c");
    assert_eq!(client.subscribe(&["yes"]), [1]);
    let wrong = "[[rule]]\neffect = 'deny'\ntopic = ['yes']\n";
    let lines = ruled.reload("acl.toml", wrong, "nothing was changed");
    let place = ruled.folder.0.join("acl.toml").display().to_string();
    let expected = format!("{place}:3: rule 1: unknown key \"topic\"; nearest valid: topics");
    assert!(has(&lines, &expected), "{lines:#?}");
    assert!(!has(&lines, "other rules hold"), "{lines:#?}");
    assert_eq!(put(&mut client, "no"), DENIED);
    assert_eq!(put(&mut client, "yes"), 0);
    // One that is gone is as wrong.
    std::fs::remove_file(ruled.folder.0.join("acl.toml")).expect("is there");
    ruled.broker.signal(libc::SIGHUP);
    let lines = ruled.broker.lines_until("nothing was changed");
    assert!(has(&lines, "authorization.files: cannot read"), "{lines:#?}");
    assert_eq!(put(&mut client, "no"), DENIED);
    // The same as before is none of it a change, and makes no new policy.
    let lines = ruled.reload("acl.toml", &rules, "the same as before");
    assert!(!has(&lines, "other rules hold"), "{lines:#?}");
}

#[test]
fn a_wrong_file_is_an_error_of_the_check_and_of_the_start() {
    // AZ01
    let folder = Folder::new("rules-start");
    write(&folder, &[("acl.conf", "{allow, all}.\n{deny, al}.\n")], "");
    let file = folder.0.join("ringmain.toml");
    for command in ["check-config", "serve"] {
        let output = ringmain().arg(command).arg("--config").arg(&file).output().expect("runs");
        assert_eq!(output.status.code(), Some(2), "{output:?}");
        let expected = format!("error: {}:2: ", folder.0.join("acl.conf").display());
        assert!(said(&output).starts_with(&expected), "{output:?}");
    }
}

#[test]
fn a_fresh_installation_lets_this_machine_see_everything() {
    // AZ09: the other half, with clients from elsewhere, is in shards/tests/engine/access.rs.
    let folder = Folder::new("rules-fresh");
    let broker = Broker::start(&folder, 1, &["sys.interval_s=1"]);
    let arguments = ["-V", "5", "-C", "1", "-W", "60", "-v", "-t", "$SYS/brokers/+/stats/#"];
    let sys = mosquitto(&broker, "mosquitto_sub", &arguments);
    assert!(said(&sys).starts_with("$SYS/brokers/"), "{sys:?}");
    let mut client = broker.client(V5, "c");
    assert_eq!(client.subscribe(&["#", "$share/g/#", "$SYS/#"]), [1, 1, 1]);
    assert_eq!(put(&mut client, "a"), 0);
}

#[test]
fn what_explain_says_is_what_happens() {
    // AZ10 AZ07 AZ03
    let rules = "[[rule]]\neffect = 'deny'\nwho = { username = 'guest' }\ntopics = ['plant/#']\n\
                 [[rule]]\neffect = 'allow'\ntopics = ['plant/${clientid}/#']\n\
                 [[rule]]\neffect = 'allow'\naction = 'publish'\nqos = 1\nretain = false\ntopics = ['once']\n";
    let more = "[mqtt]\nshared_subscription_available = false";
    let ruled = Ruled::with("explain", &[("acl.toml", rules)], more);
    let topics =
        ["plant/c/1", "plant/d/1", "plant/#", "once", "$SYS/x", "$share/g/plant/c/1", "a//+"];
    let mut seen = [0; 2];
    for user in [None, Some("guest"), Some("ann")] {
        let who = Connect { username: user, ..connect(V5, "c") };
        let as_user = |words: &[&str]| {
            let user: Vec<&str> = user.iter().flat_map(|name| ["--user", name]).collect();
            ruled.explain(&[words, &["--as", "c"], &user].concat())
        };
        for topic in topics {
            let (mut client, _) = ruled.broker.connect(&who);
            let [code] = client.subscribe(&[topic])[..] else { panic!("one filter") };
            let (json, accepted) = as_user(&["subscribe", "--qos", "1", "--topic", topic]);
            same(&json, accepted, code);
            seen[usize::from(accepted)] += 1;
            if topic.contains(['#', '+']) {
                continue;
            }
            let code = put(&mut client, topic);
            let (json, accepted) = as_user(&["publish", "--qos", "1", "--topic", topic]);
            same(&json, accepted, code);
            seen[usize::from(accepted)] += 1;
            let will = Will {
                topic,
                payload: b"",
                qos: QoS::AtLeastOnce,
                retain: false,
                delay_s: None,
                payload_format: None,
                message_expiry_s: None,
                forward: Forward::EMPTY,
            };
            let (_, code) = ruled.broker.connect(&Connect { will: Some(will), ..who });
            let (json, accepted) = as_user(&["connect", "--will-qos", "1", "--will-topic", topic]);
            same(&json, accepted, code.0);
            seen[usize::from(accepted)] += 1;
        }
    }
    assert!(seen.iter().all(|n| *n > 5), "both are tried: {seen:?}");
}

/// The code of a real answer is the one that was explained, and a rule is named with its place.
fn same(json: &Value, accepted: bool, code: u8) {
    assert_eq!(accepted, code < 0x80, "{code:#x}: {json:#}");
    assert_eq!(json["accepted"], accepted, "{json:#}");
    if !accepted {
        assert_eq!(json["reason"]["code"], code, "{json:#}");
    }
    let by = &json["decisions"][0]["by"];
    if by["kind"] == "rule" {
        let text = by["source"].as_str().expect("a name");
        assert!(text.ends_with("/acl.toml"), "{json:#}");
        assert!(by["line"].as_u64().is_some_and(|line| line > 0), "{json:#}");
    }
}

#[test]
fn kept_decisions_are_counted() {
    // AZ05
    let many: String =
        (0..20).map(|n| format!("{{deny, all, publish, [\"no/{n}\"]}}.\n")).collect();
    let ruled = Ruled::start("cache", "acl.conf", &format!("{many}{{allow, all}}.\n"));
    let mut client = ruled.broker.client(V311, "c");
    for n in 0..10 {
        client.publish("yes", n + 1);
    }
    let (_, metrics) = get(&ruled.folder.data().join("admin.sock"), "/metrics");
    let sum = |name: &str| {
        let start = format!("ringmain_authorization_cache_{name}_total{{");
        let lines = metrics.lines().filter(|line| line.starts_with(&start));
        let numbers = lines.filter_map(|line| line.rsplit(' ').next()?.parse::<u64>().ok());
        numbers.sum::<u64>()
    };
    assert_eq!((sum("miss"), sum("hit")), (1, 9), "{metrics}");
}

const PAGE: &str = include_str!("../../docs/user/authorization.md");

/// The fenced blocks of the page: what stands behind the fence, and the text.
fn blocks() -> impl Iterator<Item = (&'static str, &'static str)> {
    PAGE.split("```").skip(1).step_by(2).filter_map(|block| block.split_once('\n'))
}

/// `RINGMAIN_BLESS=1 cargo test --test broker page` writes what it says into the page.
#[test]
fn the_page_shows_what_explain_says() {
    // AZ10
    let folder = Folder::new("rules-page");
    for (kind, text) in blocks() {
        if let Some(file) = kind.strip_prefix("toml ").filter(|file| file.ends_with(".toml")) {
            std::fs::write(folder.0.join(file), text).expect("writes");
        }
    }
    let mut page = PAGE.to_owned();
    let mut examples = 0;
    for (_, text) in blocks().filter(|(kind, _)| *kind == "console") {
        let (line, _) = text.split_once('\n').expect("a command");
        let words: Vec<String> =
            line.split(' ').skip(2).map(|word| word.trim_matches('\'').to_owned()).collect();
        let mut command = ringmain();
        let output = command.args(words).current_dir(&folder.0).output().expect("runs");
        let shown = format!("{line}\n{}", said(&output));
        page = page.replace(&format!("```console\n{text}```"), &format!("```console\n{shown}```"));
        examples += 1;
    }
    assert_eq!(examples, 3);
    if std::env::var_os("RINGMAIN_BLESS").is_some() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/user/authorization.md");
        std::fs::write(path, page).expect("writes");
        return;
    }
    assert!(
        page == PAGE,
        "the page is not up to date: RINGMAIN_BLESS=1 cargo test --test broker page"
    );
}
