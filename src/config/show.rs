//! The configuration as TOML: the one in force, and the annotated example.

use std::fmt::Write;

use super::schema::Listener;
use super::section::{KeyInfo, Reload, Section, SectionInfo};
use super::{Config, Kind};

const LISTENERS: &str = "listeners";

/// The effective configuration: every key with its value, as a file that says the same.
pub fn effective(config: &Config) -> String {
    let mut out = String::new();
    for (name, info) in Config::SECTIONS {
        let Some(section) = config.section(name) else { continue };
        keys(&mut out, &format!("[{name}]"), info, section);
        if *name == "log" {
            listeners(&mut out, config);
        }
    }
    out.push_str(&config.authentication.toml());
    out
}

fn listeners(out: &mut String, config: &Config) {
    for (at, listener) in config.listeners.iter().enumerate() {
        keys(out, &format!("[[{LISTENERS}]]"), &Listener::INFO, listener);
        for (key, value) in config.authentication.toml_of_listener(at) {
            // Behind the last key, before the empty line.
            out.pop();
            let _ = writeln!(out, "{key} = {value}\n");
        }
        if !listener.mqtt_overrides.is_empty() {
            let _ = writeln!(out, "[{LISTENERS}.mqtt]");
            for key in &listener.mqtt_overrides {
                let _ = writeln!(out, "{key} = {}", listener.mqtt.toml(key));
            }
            out.push('\n');
        }
    }
}

fn keys(out: &mut String, header: &str, info: &SectionInfo, section: &dyn Section) {
    let _ = writeln!(out, "{header}");
    for key in info.keys {
        let _ = writeln!(out, "{} = {}", key.name, section.toml(key.name));
    }
    out.push('\n');
}

/// The annotated example file: every key with its default, bounds, reload and text.
pub fn example() -> String {
    let config = Config::default();
    let mut out = String::from(HEADER);
    for (name, info) in Config::SECTIONS {
        let Some(section) = config.section(name) else { continue };
        annotated(&mut out, &format!("[{name}]"), info, section);
        if *name == "log" {
            example_listeners(&mut out, &config);
        }
    }
    out.push_str(AUTHENTICATION);
    out
}

fn example_listeners(out: &mut String, config: &Config) {
    let [first, rest @ ..] = config.listeners.as_slice() else { return };
    let header = format!("[[{LISTENERS}]]");
    // A name that follows the url when a copy of this file changes it.
    let first = Listener { name: String::new(), ..first.clone() };
    annotated(out, &header, &Listener::INFO, &first);
    out.push_str("\n# Any key of [mqtt], for the clients of the listener above alone:\n");
    out.push_str("# [listeners.mqtt]\n# max_qos = 1\n");
    out.push_str("\n# Who may connect to the listener above, if not what [auth] and [[authentication]] say:\n");
    out.push_str("# allow_anonymous = true\n# [[listeners.authentication]]\n# type = \"users\"\n");
    let default = Listener::default();
    for listener in rest {
        let _ = writeln!(out, "\n{header}");
        for key in Listener::INFO.keys {
            let value = listener.toml(key.name);
            let named = key.name == "name";
            if key.name == "url" || (!named && value != default.toml(key.name)) {
                let _ = writeln!(out, "{} = {value}", key.name);
            }
        }
    }
}

fn annotated(out: &mut String, header: &str, info: &SectionInfo, section: &dyn Section) {
    let _ = writeln!(out, "\n\n# {}", "-".repeat(96));
    for line in info.doc {
        let _ = writeln!(out, "#{line}");
    }
    let _ = writeln!(out, "{header}");
    for key in info.keys {
        out.push('\n');
        for line in key.doc {
            let _ = writeln!(out, "#{line}");
        }
        let _ = writeln!(out, "# {}", facts(key));
        let _ = writeln!(out, "{} = {}", key.name, section.toml(key.name));
    }
}

/// Type, unit, bounds and reload in one line.
fn facts(key: &KeyInfo) -> String {
    let kind = match key.kind {
        Kind::Choice(_) => format!("One of {}", key.kind).replace(" or ", ", "),
        kind => capitalised(&kind.to_string()),
    };
    let bounds = match (key.bounds, key.kind) {
        (None, _) => String::new(),
        (Some(bounds), Kind::Text(_)) => format!(", {bounds} bytes long"),
        (Some(bounds), _) => format!(", {bounds}{}", unit(key.name)),
    };
    let reload = match key.reload {
        Reload::Live => "reloads live",
        Reload::Restart => "needs a restart",
    };
    format!("({kind}{bounds}; {reload}.)")
}

fn unit(name: &str) -> &'static str {
    const UNITS: [(&str, &str); 7] = [
        ("_per_s", " a second"),
        ("_bytes_max", " bytes"),
        ("_bytes", " bytes"),
        ("_ms", " milliseconds"),
        ("_us", " microseconds"),
        ("_percent", " percent"),
        ("_s", " seconds"),
    ];
    UNITS.iter().find(|(suffix, _)| name.ends_with(suffix)).map_or("", |(_, unit)| unit)
}

fn capitalised(text: &str) -> String {
    let mut chars = text.chars();
    chars.next().map_or_else(String::new, |first| first.to_uppercase().chain(chars).collect())
}

const HEADER: &str = "\
# The configuration of Ringmain: every key with its default.
#
# Copy what you change; a key that is missing has its default. Use it with
#     ringmain --config FILE            and check it before with
#     ringmain check-config FILE        which prints the effective configuration or all errors.
#
# Later layers win: this file, then environment variables (RINGMAIN__MQTT__MAX_QOS=1), then
# --set mqtt.max_qos=1, then --listen, --shards, --data-dir and --log. Listeners are numbered from
# 0 there: RINGMAIN__LISTENERS__0__BACKLOG=64, --set listeners.0.backlog=64.
#
# SIGHUP reads all layers again. If any is wrong, or a key that needs a restart differs, nothing
# changes and the log says why.
";

const AUTHENTICATION: &str = "

# ------------------------------------------------------------------------------------------------
# Who may connect, and as whom; see docs/user/authentication.md for all keys. Without these sections
# everybody may, as an anonymous client. With them nobody may whom no authenticator knows, unless
# allow_anonymous says so. Reloads live.
#
# [auth]
# allow_anonymous = false
#
# [[authentication]]
# type = \"users\"
# file = \"/etc/ringmain/users\"
";
