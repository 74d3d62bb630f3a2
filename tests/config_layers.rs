//! Layers, errors and reloads of the configuration.

use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};

use ringmain::config::{Config, ShareStrategy, Sources};

/// Sources with this file, which goes away with it.
struct File(PathBuf);

impl File {
    fn new(text: &str) -> File {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name = format!(
            "ringmain-layers-{}-{}.toml",
            std::process::id(),
            NEXT.fetch_add(1, Ordering::Relaxed)
        );
        let path = std::env::temp_dir().join(name);
        std::fs::write(&path, text).expect("writes");
        File(path)
    }

    fn sources(&self) -> Sources {
        Sources { file: Some(self.0.clone()), ..Sources::default() }
    }

    /// The errors of this file alone, with its path replaced by `F`.
    fn errors(&self) -> Vec<String> {
        errors(&self.sources(), Some(self))
    }
}

impl Drop for File {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

fn errors(sources: &Sources, file: Option<&File>) -> Vec<String> {
    let errors = sources.load().expect_err("is wrong").0;
    errors
        .iter()
        .map(|error| match file {
            Some(file) => error.to_string().replace(&file.0.display().to_string(), "F"),
            None => error.to_string(),
        })
        .collect()
}

fn set(assignments: &[&str]) -> Sources {
    let set = assignments.iter().map(|text| (*text).to_owned()).collect();
    Sources { set, ..Sources::default() }
}

fn env(vars: &[(&str, &str)]) -> Sources {
    let env = vars.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    Sources { env, ..Sources::default() }
}

fn urls(config: &Config) -> Vec<String> {
    config.listeners.iter().map(|listener| listener.url.to_string()).collect()
}

#[test]
fn without_any_source_the_broker_listens_on_loopback_alone() {
    let config = Sources::default().load().expect("valid");
    assert_eq!(config, Config::default());
    assert_eq!(urls(&config), ["tcp://127.0.0.1:1883", "tcp://[::1]:1883"]);
    assert!(config.is_loopback_only());
    let optional: Vec<bool> = config.listeners.iter().map(|listener| listener.optional).collect();
    assert_eq!(optional, [false, true]);
}

#[test]
fn later_layers_win() {
    let file = File::new(
        "[node]\nshards = 1\nname = 'file'\ndata_dir = 'file'\n\
         [mqtt]\nmax_inflight = 1\nmax_qos = 1\nmax_mqueue_len = 1\n[log]\nlevel = 'error'",
    );
    let sources = Sources {
        env: vec![
            ("RINGMAIN__MQTT__MAX_QOS".into(), "0".into()),
            ("RINGMAIN__MQTT__MAX_MQUEUE_LEN".into(), "2".into()),
            ("RINGMAIN__NODE__SHARDS".into(), "2".into()),
            ("RINGMAIN_BLESS".into(), "x".into()),
            ("PATH".into(), "x".into()),
        ],
        set: vec!["mqtt.max_mqueue_len = 3".into(), "node.shards=3".into()],
        shards: Some("4".into()),
        data_dir: Some("option".into()),
        log: Some("debug".into()),
        ..file.sources()
    };
    let config = sources.load().expect("valid");
    assert_eq!(config.mqtt.max_inflight, 1, "file over default");
    assert_eq!(config.mqtt.max_qos, 0, "environment over file");
    assert_eq!(config.mqtt.max_mqueue_len, 3, "--set over environment");
    assert_eq!(config.node.shards, 4, "--shards over --set");
    assert_eq!(config.node.name, "file");
    assert_eq!(config.node.data_dir, PathBuf::from("option"));
    assert_eq!(config.log.level.as_str(), "debug");
}

#[test]
fn listeners_of_a_file_replace_the_default_and_listen_replaces_those() {
    let file = File::new(
        "[mqtt]\nmax_qos = 1\n\
         [[listeners]]\nurl = 'tcp://0.0.0.0:2000'\nbacklog = 9\n[listeners.mqtt]\nmax_inflight = 7\n\
         [[listeners]]\nurl = 'tcp://[::]:2000'\nname = 'six'\n",
    );
    let config = file.sources().load().expect("valid");
    assert_eq!(urls(&config), ["tcp://0.0.0.0:2000", "tcp://[::]:2000"]);
    let [first, second] = config.listeners.as_slice() else { panic!("two listeners") };
    assert_eq!((first.name.as_str(), second.name.as_str()), ("tcp:0.0.0.0:2000", "six"));
    assert_eq!((first.backlog, first.mqtt.max_inflight, first.mqtt.max_qos), (9, 7, 1));
    assert_eq!((second.mqtt.max_inflight, second.mqtt.max_qos), (32, 1));
    assert!(!first.optional && !config.is_loopback_only());

    let listen = vec!["tcp://127.0.0.1:1".to_owned(), "tcp://127.0.0.1:2".to_owned()];
    let config = Sources { listen, ..file.sources() }.load().expect("valid");
    assert_eq!(urls(&config), ["tcp://127.0.0.1:1", "tcp://127.0.0.1:2"]);
    assert_eq!(config.listeners[0].backlog, 1024);
}

#[test]
fn environment_and_set_reach_listeners_by_number_and_tables_by_entry() {
    let mut vars = vec![("RINGMAIN__LISTENERS__0__MQTT__MAX_QOS".to_owned(), "0".to_owned())];
    for at in 0..12 {
        let url = format!("tcp://127.0.0.1:{}", 3000 + at);
        vars.push((format!("RINGMAIN__LISTENERS__{at}__URL"), url));
    }
    let sources = Sources { env: vars, ..set(&["listeners.11.name=last"]) };
    let config = sources.load().expect("valid");
    assert_eq!(config.listeners.len(), 12);
    assert_eq!(config.listeners[0].mqtt.max_qos, 0);
    assert_eq!((config.listeners[11].url.port, config.listeners[11].name.as_str()), (3011, "last"));

    let config = set(&[
        "mqtt.mqueue_priorities.\"a/b\"=5",
        "mqtt.mqueue_priorities.\"a=b\"=6",
        "shared.group_strategies.g=least_inflight",
        "shared.group_strategies.h=\"local\"",
    ]);
    let config = config.load().expect("valid");
    assert_eq!(config.mqtt.mqueue_priorities.get("a/b"), Some(&5));
    assert_eq!(config.mqtt.mqueue_priorities.get("a=b"), Some(&6));
    assert_eq!(config.shared.group_strategies.get("g"), Some(&ShareStrategy::LeastInflight));
    assert_eq!(config.shared.group_strategies.get("h"), Some(&ShareStrategy::Local));
}

#[test]
fn text_keys_take_text_without_quotes_even_if_it_looks_like_something_else() {
    let config = set(&["node.name=5", "node.data_dir=/tmp/x y", "mqtt.server_reference='a'"]);
    let config = config.load().expect("valid");
    assert_eq!(config.node.name, "5");
    assert_eq!(config.node.data_dir, PathBuf::from("/tmp/x y"));
    assert_eq!(config.mqtt.server_reference, "a");
}

#[test]
fn all_errors_of_a_file_are_listed_with_line_key_and_nearest_key() {
    let file = File::new(
        "max_qos = 2\n\
         [mqtt]\n\
         max_qoss = 2\n\
         max_qos = 3\n\
         max_inflight = 'many'\n\
         overlap = 'both'\n\
         shards = 2\n\
         keep_alive_multiplier = 0.5\n\
         max_mqueue_bytes = 99999999999999999999\n\
         [mqt]\n\
         max_qos = 1\n\
         [mqtt.mqueue_priorities]\n\
         'a/b' = 5\n\
         'c/d' = 256\n\
         'e' = 'x'\n\
         [[listeners]]\n\
         url = 'tcp://127.0.0.1:1883'\n\
         max_conections = 5\n\
         max_inflight = 5\n\
         accept_protocol_versions = [4,\n  6]\n\
         [listeners.mqtt]\n\
         max_qps = 1\n\
         [[listeners]]\n\
         name = 'x'\n",
    );
    let expected = [
        "F:1: max_qos: unknown key; nearest valid key: mqtt.max_qos",
        "F:3: mqtt.max_qoss: unknown key; nearest valid key: mqtt.max_qos",
        "F:4: mqtt.max_qos: 3 is out of range: 0 to 2 is allowed",
        "F:5: mqtt.max_inflight: expected an integer, found the string \"many\"",
        "F:6: mqtt.overlap: expected \"merge\" or \"each\", found the string \"both\"",
        "F:7: mqtt.shards: unknown key; nearest valid key: node.shards",
        "F:8: mqtt.keep_alive_multiplier: 0.5 is out of range: 1 to 10 is allowed",
        "F:9: mqtt.max_mqueue_bytes: expected an integer, found 99999999999999999999, which is beyond 64 bits",
        "F:10: mqt: unknown key; nearest valid key: mqtt",
        "F:14: mqtt.mqueue_priorities.\"c/d\": 256 is out of range: 1 to 255 is allowed",
        "F:15: mqtt.mqueue_priorities.e: expected an integer, found the string \"x\"",
        "F:18: listeners.0.max_conections: unknown key; nearest valid key: listeners.0.max_connections",
        "F:19: listeners.0.max_inflight: unknown key; nearest valid key: listeners.0.mqtt.max_inflight",
        "F:21: listeners.0.accept_protocol_versions: 6 is out of range: 3 to 5 is allowed",
        "F:23: listeners.0.mqtt.max_qps: unknown key; nearest valid key: listeners.0.mqtt.max_qos",
        "F:24: listeners.1.url: a listener needs a url",
    ];
    assert_eq!(file.errors(), expected);
}

#[test]
fn a_file_that_is_not_toml_names_the_line() {
    let found = File::new("[mqtt]\nmax_qos = = 1\n").errors();
    assert!(found[0].starts_with("F:2: not valid TOML: "), "{found:?}");
    let found = File::new("[mqtt]\nmax_qos = 1\nmax_qos = 2\n").errors();
    assert!(found[0].starts_with("F:3: not valid TOML: "), "{found:?}");
    let sources = Sources { file: Some("/nowhere/x.toml".into()), ..Sources::default() };
    let found = errors(&sources, None);
    assert!(found[0].starts_with("/nowhere/x.toml: cannot read"), "{found:?}");
}

#[test]
fn errors_outside_a_file_name_the_variable_or_the_option() {
    let found = errors(&env(&[("RINGMAIN__MQTT__MAX_QOSS", "1")]), None);
    assert_eq!(
        found,
        ["environment variable RINGMAIN__MQTT__MAX_QOSS: mqtt.max_qoss: unknown key; \
          nearest valid key: mqtt.max_qos"]
    );
    let sources = Sources {
        set: [
            "mqtt.max_qos=9",
            "max_qos",
            "listeners.2.url=tcp://0.0.0.0:1",
            "listeners.x.backlog=1",
        ]
        .map(str::to_owned)
        .to_vec(),
        shards: Some("many".into()),
        log: Some("loud".into()),
        ..Sources::default()
    };
    let found = errors(&sources, None);
    let expected = [
        "option --set max_qos: expected section.key=value",
        "option --set listeners.2.url=tcp://0.0.0.0:1: listeners.2: there are 0 listeners, so 2 cannot be set",
        "option --set listeners.x.backlog=1: listeners.x.backlog: unknown key; nearest valid key: listeners.0.backlog",
        "option --set mqtt.max_qos=9: mqtt.max_qos: 9 is out of range: 0 to 2 is allowed",
        "option --shards many: node.shards: expected an integer, found the string \"many\"",
        "option --log loud: log.level: expected a log level (off, error, warn, info, debug, trace), found the string \"loud\"",
    ];
    assert_eq!(found.len(), expected.len(), "{found:#?}");
    for (found, expected) in found.iter().zip(expected) {
        assert!(found.starts_with(expected), "{found}\n{expected}");
    }
    let listen = vec!["tcp://broker.example:1883".to_owned()];
    let found = errors(&Sources { listen, ..Sources::default() }, None);
    assert!(found[0].starts_with("option --listen tcp://broker.example:1883: listeners.0.url: "));
    assert_eq!(found.len(), 1, "{found:?}");
}

#[test]
fn impossible_relations_are_errors_where_they_were_written() {
    let cases: &[(&str, &str)] = &[
        (
            "[mqtt]\nkeep_alive_max_s = 10\nkeep_alive_min_s = 20",
            "F:2: mqtt.keep_alive_max_s: keep_alive_min_s (20) must not be above keep_alive_max_s (10)",
        ),
        (
            "[mqtt]\nkeep_alive_min_s = 20\nserver_keep_alive_s = 10",
            "F:3: mqtt.server_keep_alive_s: keep_alive_min_s (20) must not be above server_keep_alive_s (10)",
        ),
        (
            "[mqtt]\nmessage_expiry_default_s = 20\nmessage_expiry_max_s = 10",
            "F:3: mqtt.message_expiry_max_s: message_expiry_default_s (20) must not be above \
             message_expiry_max_s (10)",
        ),
        (
            "[limits]\nmemory_high_bytes = 2\nmemory_critical_bytes = 1",
            "F:3: limits.memory_critical_bytes: memory_high_bytes (2) must not be above \
             memory_critical_bytes (1)",
        ),
        (
            "[overload]\nlag_pause_ms = 10",
            "F:2: overload.lag_pause_ms: lag_drop_qos0_ms (1000) must not be above lag_pause_ms (10)",
        ),
        (
            "[reactor]\ncq_entries = 5000",
            "F:2: reactor.cq_entries: 5000 is not a power of two: 4096 and 8192 are the nearest",
        ),
        (
            "[reactor]\nrings_per_shard = 2\nmax_connections_per_ring = 10\n[node]\nshards = 2\n\
             [limits]\nmax_connections = 41",
            "F:7: limits.max_connections: 41 connections do not fit: 2 shards of 2 rings of 10 \
             connections hold 40",
        ),
        (
            "[[listeners]]\nurl = 'tcp://127.0.0.1'\n[[listeners]]\nurl = 'tcp://127.0.0.1:1883'",
            "F:4: listeners.1.url: tcp://127.0.0.1:1883 is the address of listener 0 too",
        ),
        (
            "[admin]\nmetrics_listen = '[::1]:7'\n[[listeners]]\nurl = 'tcp://[::]:7'",
            "F:2: admin.metrics_listen: [::]:7 is taken for metrics: change admin.metrics_listen",
        ),
        (
            "[[listeners]]\nurl = 'tcp://127.0.0.1:9883'",
            "F:2: listeners.0.url: 127.0.0.1:9883 is taken for metrics: change \
             admin.metrics_listen",
        ),
        (
            "[[listeners]]\nurl = 'tcp://127.0.0.1:1'\nname = 'a'\n\
             [[listeners]]\nname = 'a'\nurl = 'tcp://127.0.0.1:2'",
            "F:5: listeners.1.name: \"a\" is the name of listener 0 too",
        ),
        (
            "[[listeners]]\nurl = 'tcp://127.0.0.1:1'\naccept_protocol_versions = []",
            "F:3: listeners.0.accept_protocol_versions: a listener must accept at least one of 3, 4, 5",
        ),
        (
            "[[listeners]]\nurl = 'tcp://127.0.0.1:1'\n[listeners.mqtt]\nkeep_alive_max_s = 1\n\
             [mqtt]\nkeep_alive_min_s = 5",
            "F:4: listeners.0.mqtt.keep_alive_max_s: keep_alive_min_s (5) must not be above \
             keep_alive_max_s (1)",
        ),
        (
            "[node]\nname = 'a/b'",
            "F:2: node.name: a node name holds no `/`, `+`, `#` or NUL: it is a topic level",
        ),
    ];
    for (text, expected) in cases {
        assert_eq!(File::new(text).errors(), [*expected], "{text}");
    }
}

#[test]
fn a_refused_value_does_not_lead_to_a_second_error() {
    let text = "[mqtt]\nkeep_alive_min_s = 20\nkeep_alive_max_s = 'x'\nserver_keep_alive_s = 30";
    assert_eq!(File::new(text).errors().len(), 1);
}

#[test]
fn live_keys_are_told_from_those_that_need_a_restart() {
    let text = |qos: u8, rate: u32, inflight: u16| {
        format!(
            "[mqtt]\nmax_qos = {qos}\n[[listeners]]\nname = 'a'\nurl = 'tcp://127.0.0.1:1'\n\
             max_connection_rate_per_s = {rate}\n[listeners.mqtt]\nmax_inflight = {inflight}"
        )
    };
    let load = |text: &str| File::new(text).sources().load().expect("valid");
    let old = load(&text(2, 0, 5));
    assert!(Config::diff_live(&old, &old).expect("nothing differs").is_empty());

    let changes = Config::diff_live(&old, &load(&text(1, 7, 6))).expect("all live");
    let keys: Vec<&str> = changes.keys.iter().map(|change| change.key.as_str()).collect();
    let expected =
        ["mqtt.max_qos", "listeners.a.max_connection_rate_per_s", "listeners.a.mqtt.max_inflight"];
    assert_eq!(keys, expected);
    assert_eq!((changes.keys[1].old.as_str(), changes.keys[1].new.as_str()), ("0", "7"));

    let moved = text(1, 0, 5).replace("127.0.0.1:1", "127.0.0.1:2") + "\n[node]\nshards = 2";
    let keys = Config::diff_live(&old, &load(&moved)).expect_err("needs a restart");
    let keys: Vec<String> = keys.iter().map(ToString::to_string).collect();
    let expected = [
        "node.shards needs a restart: 0 -> 2",
        "listeners.a.url needs a restart: \"tcp://127.0.0.1:1\" -> \"tcp://127.0.0.1:2\"",
    ];
    assert_eq!(keys, expected);

    let keys = Config::diff_live(&old, &Config::default()).expect_err("listeners differ");
    assert_eq!(keys.len(), 3, "one is gone, two are new");
}
