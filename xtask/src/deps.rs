//! Which crate may depend on which: the arrows point one way.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::{Command, ExitCode};

use serde_json::Value;

use crate::{report, root};

/// Each member of the workspace, and the members it may depend on. A new member is one line.
const MEMBERS: &[(&str, &[&str])] = &[
    ("ringmain-mqtt", &[]),
    ("ringmain-acl", &["ringmain-mqtt"]),
    ("ringmain-kernel-params", &[]),
    ("ringmain-auth", &["ringmain-acl", "ringmain-mqtt"]),
    ("ringmain-shards", &["ringmain-acl", "ringmain-mqtt", "ringmain-transport"]),
    ("ringmain-transport", &[]),
    ("ringmain-control", &["ringmain-kernel-params", "ringmain-shards"]),
    (
        "ringmain",
        &[
            "ringmain-acl",
            "ringmain-auth",
            "ringmain-control",
            "ringmain-kernel-params",
            "ringmain-mqtt",
            "ringmain-shards",
            "ringmain-transport",
        ],
    ),
    ("ringmain-sim", &["ringmain-mqtt", "ringmain-shards"]),
    ("ringmain-load", &["ringmain-kernel-params", "ringmain-mqtt"]),
    ("ringmain-bench", &["ringmain-mqtt", "ringmain-load"]),
    ("ringmain-limits", &["ringmain-mqtt", "ringmain-load"]),
    ("ringmain-xtask", &[]),
];

/// Crates that only these members may name; any other may not.
const RESTRICTED: &[(&str, &[&str], &str)] = &[
    ("glommio", &["ringmain-shards", "ringmain-load"], "the executor belongs to the data plane"),
    ("glommio-ng", &["ringmain-shards", "ringmain-load"], "the executor belongs to the data plane"),
    (
        "io-uring",
        &["ringmain-shards", "ringmain-load", "ringmain-bench"],
        "rings belong to the data plane; the bench measures the floor with one",
    ),
    (
        "tokio",
        &["ringmain-auth", "ringmain-control", "ringmain"],
        "tokio belongs to the control plane",
    ),
];

const REGISTRY: &str = "registry+https://github.com/rust-lang/crates.io-index";

/// `cargo xtask deps`.
pub(crate) fn run(_: &[String]) -> ExitCode {
    report("deps", check())
}

/// All that is wrong.
///
/// # Errors
/// When `cargo metadata` fails.
pub(crate) fn check() -> Result<Vec<String>, String> {
    let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".to_owned());
    let output = Command::new(cargo)
        .args(["metadata", "--format-version", "1", "--all-features"])
        .current_dir(root())
        .output()
        .map_err(|error| format!("cannot run cargo metadata: {error}"))?;
    if !output.status.success() {
        return Err(String::from_utf8_lossy(&output.stderr).into_owned());
    }
    let metadata: Value = serde_json::from_slice(&output.stdout).map_err(|e| e.to_string())?;
    let deny = std::fs::read_to_string(root().join("deny.toml"))
        .map_err(|error| format!("cannot read deny.toml: {error}"))?;
    let mut found = directions(&metadata);
    found.extend(lints(&metadata));
    found.extend(licences(&metadata, &allowed_licences(&deny)));
    Ok(found)
}

fn text<'a>(value: &'a Value, key: &str) -> &'a str {
    value.get(key).and_then(Value::as_str).unwrap_or_default()
}

fn list<'a>(value: &'a Value, key: &str) -> impl Iterator<Item = &'a Value> {
    value.get(key).and_then(Value::as_array).into_iter().flatten()
}

fn members(metadata: &Value) -> impl Iterator<Item = &Value> {
    let ids: BTreeSet<&str> =
        list(metadata, "workspace_members").filter_map(Value::as_str).collect();
    list(metadata, "packages").filter(move |package| ids.contains(text(package, "id")))
}

fn directions(metadata: &Value) -> Vec<String> {
    let names: BTreeSet<&str> = members(metadata).map(|package| text(package, "name")).collect();
    let mut found = Vec::new();
    for package in members(metadata) {
        let name = text(package, "name");
        let Some((_, allowed)) = MEMBERS.iter().find(|(member, _)| *member == name) else {
            found.push(format!("{name} is new: give it a line in xtask/src/deps.rs"));
            continue;
        };
        for dependency in list(package, "dependencies").map(|dependency| text(dependency, "name")) {
            if names.contains(dependency) && !allowed.contains(&dependency) {
                found.push(format!("{name} must not depend on {dependency}"));
            }
            let rule = RESTRICTED.iter().find(|(crate_name, ..)| *crate_name == dependency);
            if let Some((_, who, why)) = rule
                && !who.contains(&name)
            {
                found.push(format!("{name} must not depend on {dependency}: {why}"));
            }
        }
    }
    found
}

/// Every member must use the lints of the workspace.
fn lints(metadata: &Value) -> Vec<String> {
    let lacks = |package: &&Value| {
        let manifest = std::fs::read_to_string(Path::new(text(package, "manifest_path")));
        !manifest.unwrap_or_default().contains("[lints]\nworkspace = true")
    };
    let message = |package: &Value| {
        format!("{}: its Cargo.toml lacks [lints] workspace = true", text(package, "name"))
    };
    members(metadata).filter(lacks).map(message).collect()
}

fn licences(metadata: &Value, allowed: &BTreeSet<String>) -> Vec<String> {
    let mut found = Vec::new();
    for package in list(metadata, "packages") {
        let name = format!("{} {}", text(package, "name"), text(package, "version"));
        let source = package.get("source").and_then(Value::as_str);
        if source.is_some_and(|source| source != REGISTRY) {
            found.push(format!("{name} comes from {}", source.unwrap_or_default()));
        }
        let licence = text(package, "license");
        if !is_allowed(licence, allowed) {
            found.push(format!("{name}: licence \"{licence}\" is not in deny.toml"));
        }
    }
    found
}

/// Whether one alternative of an SPDX expression is made of allowed licences only.
fn is_allowed(expression: &str, allowed: &BTreeSet<String>) -> bool {
    let spaced = expression.replace('/', " OR ").replace('(', " ( ").replace(')', " ) ");
    let mut words = spaced.split_whitespace().peekable();
    let result = either(&mut words, allowed);
    result && words.next().is_none()
}

type Words<'a> = std::iter::Peekable<std::str::SplitWhitespace<'a>>;

fn either(words: &mut Words<'_>, allowed: &BTreeSet<String>) -> bool {
    let mut result = both(words, allowed);
    while words.next_if_eq(&"OR").is_some() {
        result |= both(words, allowed);
    }
    result
}

fn both(words: &mut Words<'_>, allowed: &BTreeSet<String>) -> bool {
    let mut result = licence(words, allowed);
    while words.next_if_eq(&"AND").is_some() {
        result &= licence(words, allowed);
    }
    result
}

fn licence(words: &mut Words<'_>, allowed: &BTreeSet<String>) -> bool {
    match words.next() {
        Some("(") => {
            let result = either(words, allowed);
            words.next_if_eq(&")").is_some() && result
        }
        Some(name) => {
            // An exception only adds permissions.
            if words.next_if_eq(&"WITH").is_some() {
                words.next();
            }
            // "or later": the version that is named will do.
            allowed.contains(name.strip_suffix('+').unwrap_or(name))
        }
        None => false,
    }
}

/// The strings of `allow = [...]` below `[licenses]` in deny.toml, which cargo-deny reads too.
fn allowed_licences(deny: &str) -> BTreeSet<String> {
    let section = deny.split("[licenses]").nth(1).unwrap_or_default();
    let list = section.split("allow = [").nth(1).and_then(|rest| rest.split(']').next());
    let quoted = list.unwrap_or_default().split('"').skip(1).step_by(2);
    quoted.map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn metadata(packages: &[(&str, &[&str])]) -> Value {
        let package = |(name, deps): &(&str, &[&str])| {
            let deps: Vec<Value> =
                deps.iter().map(|name| serde_json::json!({ "name": name })).collect();
            serde_json::json!({ "id": name, "name": name, "dependencies": deps })
        };
        serde_json::json!({
            "workspace_members": packages.iter().map(|(name, _)| name).collect::<Vec<_>>(),
            "packages": packages.iter().map(package).collect::<Vec<_>>(),
        })
    }

    #[test]
    fn arrows_point_one_way() {
        let good: &[(&str, &[&str])] = &[
            ("ringmain-mqtt", &["bytes"]),
            ("ringmain-shards", &["ringmain-mqtt", "glommio", "io-uring"]),
            ("ringmain", &["ringmain-shards"]),
        ];
        assert_eq!(directions(&metadata(good)), Vec::<String>::new());
        let bad: &[(&str, &[&str])] = &[
            ("ringmain-mqtt", &["ringmain-shards", "tokio"]),
            ("ringmain-shards", &[]),
            ("ringmain-sim", &["io-uring"]),
            ("ringmain-new", &[]),
        ];
        let expected = [
            "ringmain-mqtt must not depend on ringmain-shards",
            "ringmain-mqtt must not depend on tokio: tokio belongs to the control plane",
            "ringmain-sim must not depend on io-uring: rings belong to the data plane; the bench \
             measures the floor with one",
            "ringmain-new is new: give it a line in xtask/src/deps.rs",
        ];
        assert_eq!(directions(&metadata(bad)), expected);
    }

    #[test]
    fn one_alternative_of_a_licence_must_be_allowed_in_full() {
        let deny = "[bans]\n[licenses]\nallow = [\n  \"MIT\",\n  \"Apache-2.0\", \"ISC\"\n]\n";
        let allowed = allowed_licences(deny);
        assert_eq!(allowed.len(), 3);
        for good in [
            "MIT",
            "MIT OR GPL-3.0",
            "GPL-3.0/MIT",
            "(MIT OR GPL-3.0) AND ISC",
            "Apache-2.0 WITH LLVM-exception",
            "MIT+",
        ] {
            assert!(is_allowed(good, &allowed), "{good}");
        }
        for bad in ["", "GPL-3.0", "MIT AND GPL-3.0", "(MIT", "MIT ISC", "GPL-3.0 WITH x"] {
            assert!(!is_allowed(bad, &allowed), "{bad}");
        }
    }
}
