//! The command line of the binary: exit codes, error texts, `check-config`.

use std::path::PathBuf;
use std::process::{Command, Output};

fn ringmain(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ringmain"));
    command.args(args);
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("RINGMAIN__") {
            command.env_remove(name);
        }
    }
    command
}

fn run(args: &[&str]) -> Output {
    ringmain(args).output().expect("runs")
}

fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).expect("UTF-8")
}

fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).expect("UTF-8")
}

fn file(name: &str, text: &str) -> PathBuf {
    let path = std::env::temp_dir().join(format!("ringmain-cli-{}-{name}", std::process::id()));
    std::fs::write(&path, text).expect("writes");
    path
}

#[test]
fn version_and_help_go_to_stdout_with_success() {
    let output = run(&["--version"]);
    assert_eq!(output.status.code(), Some(0));
    assert_eq!(stdout(&output), format!("ringmain {}\n", env!("CARGO_PKG_VERSION")));
    let output = run(&["--help"]);
    assert_eq!(output.status.code(), Some(0));
    for word in [
        "serve",
        "check-config",
        "--config",
        "--set",
        "--listen",
        "--shards",
        "--data-dir",
        "--log",
    ] {
        assert!(stdout(&output).contains(word), "{word}");
    }
}

#[test]
fn a_wrong_command_line_exits_with_2() {
    for args in [&["--nonsense"][..], &["nonsense"], &["--config"], &["check-config", "a", "b"]] {
        let output = run(args);
        assert_eq!(output.status.code(), Some(2), "{args:?}");
        assert!(stderr(&output).starts_with("error: "), "{args:?}");
    }
}

#[test]
fn check_config_prints_the_effective_configuration() {
    let path = file("valid.toml", "[mqtt]\nmax_inflight = 7\nmax_qos = 1\n");
    let path = path.to_str().expect("UTF-8");
    for args in [&["check-config", path][..], &["--config", path, "check-config"]] {
        let mut command = ringmain(args);
        command.args(["--set", "mqtt.max_topic_levels=9", "--shards", "3"]);
        let output = command.env("RINGMAIN__MQTT__MAX_QOS", "0").output().expect("runs");
        assert_eq!((output.status.code(), stderr(&output).as_str()), (Some(0), ""), "{args:?}");
        let table: toml::Table = stdout(&output).parse().expect("TOML");
        let key = |section: &str, key: &str| table[section][key].as_integer();
        assert_eq!(key("mqtt", "max_inflight"), Some(7), "file");
        assert_eq!(key("mqtt", "max_qos"), Some(0), "environment over file");
        assert_eq!(key("mqtt", "max_topic_levels"), Some(9), "--set");
        assert_eq!(key("node", "shards"), Some(3), "--shards");
        assert_eq!(key("mqtt", "receive_maximum"), Some(100), "default");
    }
    let _ = std::fs::remove_file(path);
}

#[test]
fn both_commands_refuse_a_wrong_configuration_with_all_errors_and_exit_2() {
    let path = file("wrong.toml", "[mqtt]\nmax_qoss = 1\nmax_inflight = 0\n");
    let path = path.to_str().expect("UTF-8");
    let serve = ["--config", path, "--set", "log.format=xml"];
    let check = ["check-config", path, "--set", "log.format=xml"];
    for args in [serve, check] {
        let output = run(&args);
        assert_eq!(output.status.code(), Some(2), "{args:?}");
        assert_eq!(stdout(&output), "", "{args:?}");
        let expected = format!(
            "error: {path}:2: mqtt.max_qoss: unknown key; nearest valid key: mqtt.max_qos\n\
             error: {path}:3: mqtt.max_inflight: 0 is out of range: 1 to 65535 is allowed\n\
             error: option --set log.format=xml: log.format: expected \"text\" or \"json\", \
             found the string \"xml\"\n"
        );
        assert_eq!(stderr(&output), expected, "{args:?}");
    }
    let _ = std::fs::remove_file(path);
}

#[test]
fn a_missing_file_is_named() {
    let output = run(&["--config", "/nowhere/ringmain.toml"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(
        stderr(&output).starts_with("error: /nowhere/ringmain.toml: cannot read"),
        "{}",
        stderr(&output)
    );
}

#[test]
fn an_unknown_environment_variable_with_our_prefix_is_refused_and_others_are_not() {
    let mut command = ringmain(&["check-config"]);
    let output = command.env("RINGMAIN_HOME", "x").output().expect("runs");
    assert_eq!(output.status.code(), Some(0));
    let output = command.env("RINGMAIN__MQTT__MAX_QUS", "1").output().expect("runs");
    assert_eq!(output.status.code(), Some(2));
    assert_eq!(
        stderr(&output),
        "error: environment variable RINGMAIN__MQTT__MAX_QUS: mqtt.max_qus: unknown key; \
         nearest valid key: mqtt.max_qos\n"
    );
}

#[test]
fn check_config_of_the_example_file_prints_the_defaults() {
    let example = concat!(env!("CARGO_MANIFEST_DIR"), "/config/ringmain.example.toml");
    let output = run(&["check-config", example]);
    assert_eq!(output.status.code(), Some(0));
    assert_eq!(stdout(&output), stdout(&run(&["check-config"])));
}
