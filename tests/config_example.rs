//! The annotated example file is complete: `RINGMAIN_BLESS=1 cargo test --test config_example`
//! writes it anew from the declarations in `src/config/schema`.

use std::collections::BTreeSet;
use std::path::PathBuf;

use ringmain::config::{Config, Kind, Listener, Mqtt, Sources, effective, example};

fn example_file() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("config/ringmain.example.toml")
}

fn example_text() -> String {
    std::fs::read_to_string(example_file()).expect("the example file is there")
}

#[test]
fn the_example_file_is_what_the_declarations_say() {
    if std::env::var_os("RINGMAIN_BLESS").is_some() {
        std::fs::write(example_file(), example()).expect("writes");
    }
    assert!(
        example_text() == example(),
        "config/ringmain.example.toml is not up to date: run \
         RINGMAIN_BLESS=1 cargo test --test config_example"
    );
}

#[test]
fn the_example_file_parses_to_the_defaults() {
    let sources = Sources { file: Some(example_file()), ..Sources::default() };
    assert_eq!(sources.load(), Ok(Config::default()));
}

/// Independent of how the file is written: reads it as plain TOML.
#[test]
fn the_example_file_and_the_schema_have_the_same_keys() {
    let table: toml::Table = example_text().parse().expect("valid TOML");
    let mut written = BTreeSet::new();
    for (section, value) in &table {
        let table = match value {
            toml::Value::Array(listeners) => listeners[0].as_table().expect("a table"),
            value => value.as_table().expect("a table"),
        };
        written.extend(table.keys().map(|key| format!("{section}.{key}")));
    }
    let sections = Config::SECTIONS.iter().copied();
    let declared: BTreeSet<String> = sections
        .chain([("listeners", &Listener::INFO)])
        .flat_map(|(section, info)| {
            info.keys.iter().map(move |key| format!("{section}.{}", key.name))
        })
        .collect();
    assert_eq!(written, declared);
}

#[test]
fn every_key_says_what_it_does_and_every_number_has_bounds() {
    let sections = Config::SECTIONS.iter().copied();
    for (section, info) in sections.chain([("listeners", &Listener::INFO)]) {
        assert!(!info.doc.is_empty(), "[{section}] has no text");
        for key in info.keys {
            assert!(!key.doc.is_empty(), "{section}.{} has no text", key.name);
            if matches!(key.kind, Kind::Integer | Kind::Number) {
                assert!(key.bounds.is_some(), "{section}.{} has no bounds", key.name);
            }
        }
    }
}

/// A default that its own bounds refuse would surface only where a file names it.
#[test]
fn each_default_can_be_written_by_its_own_name() {
    let config = Config::default();
    for (name, info) in Config::SECTIONS {
        let section = config.section(name).expect("is there");
        for key in info.keys {
            let set = vec![format!("{name}.{}={}", key.name, section.toml(key.name))];
            let sources = Sources { set, ..Sources::default() };
            assert_eq!(sources.load(), Ok(Config::default()), "{name}.{}", key.name);
        }
    }
}

#[test]
fn the_effective_configuration_says_the_same_when_read_back() {
    let set = [
        "node.name=\"a\\\\b\\\"c\\u0007\"",
        "mqtt.mqueue_priorities={\"a/b c\" = 5, x = 255}",
        "mqtt.keep_alive_multiplier=2",
        "shared.group_strategies.'g 1'=sticky",
        "sys.compat=[\"faq_singular\", \"v4_dots\"]",
        "listeners.0.url=tcp://[::]:0",
        "listeners.0.mqtt.max_qos=1",
        "listeners.0.mqtt.response_information=",
        "listeners.1.url=tcp://127.0.0.1:0",
        "listeners.1.name=second",
    ];
    let set = set.map(str::to_owned).to_vec();
    let config = Sources { set, ..Sources::default() }.load().expect("valid");
    assert_eq!(config.listeners[0].mqtt_overrides.len(), 2);
    let file = std::env::temp_dir().join(format!("ringmain-{}-effective.toml", std::process::id()));
    std::fs::write(&file, effective(&config)).expect("writes");
    let again = Sources { file: Some(file.clone()), ..Sources::default() }.load();
    let _ = std::fs::remove_file(&file);
    assert_eq!(again, Ok(config));
}

#[test]
fn a_listener_can_override_every_key_of_mqtt() {
    let defaults = Mqtt::default();
    for key in Mqtt::INFO.keys {
        let value = ringmain::config::Section::toml(&defaults, key.name);
        let set = vec![
            "listeners.0.url=tcp://127.0.0.1:0".to_owned(),
            format!("listeners.0.mqtt.{}={value}", key.name),
        ];
        let config = Sources { set, ..Sources::default() }.load().expect("valid");
        assert!(config.listeners[0].mqtt_overrides.contains(key.name));
        assert_eq!(config.listeners[0].mqtt, defaults);
    }
}
