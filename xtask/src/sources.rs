//! What the sources of a crate may name: the core does not know the world.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use crate::tokens::{Named, paths};
use crate::{report, root};

/// A rule about the production code below some folders.
struct Rule {
    /// Folders or files it holds for. A module is both `name/` and `name.rs`.
    within: &'static [&'static str],
    /// Folders or files below these for which it does not hold.
    except: &'static [&'static str],
    /// Paths, or keywords, that must not be named.
    forbidden: &'static [&'static [&'static str]],
    /// What to do instead.
    why: &'static str,
}

const RULES: &[Rule] = &[
    Rule {
        within: &["mqtt/src", "acl/src", "shards/src/engine"],
        except: &[],
        forbidden: &[
            &["std", "net"],
            &["std", "thread"],
            &["std", "time", "Instant"],
            &["std", "time", "SystemTime"],
            &["std", "env"],
            &["std", "fs"],
            &["async"],
        ],
        why: "the core does not know the world: pass it in (addresses are core::net)",
    },
    Rule {
        within: &["shards/src"],
        except: &["shards/src/reactor", "shards/src/mesh", "shards/src/store"],
        forbidden: &[&["glommio"], &["glommio_ng"], &["io_uring"]],
        why: "only reactor, mesh and store know how a shard is run",
    },
    Rule {
        within: &["transport/src"],
        except: &["transport/src/tls/load.rs"],
        forbidden: &[
            &["std", "net", "TcpStream"],
            &["std", "time", "Instant"],
            &["std", "time", "SystemTime"],
            &["std", "env"],
            &["std", "fs"],
            &["async"],
        ],
        why: "layers between socket and MQTT do no I/O: bytes, time and configuration are handed in",
    },
];

/// `cargo xtask sources`.
pub(crate) fn run(_: &[String]) -> ExitCode {
    report("sources", check())
}

/// All that is wrong.
///
/// # Errors
/// When a source cannot be read.
pub(crate) fn check() -> Result<Vec<String>, String> {
    let mut found = Vec::new();
    for rule in RULES {
        for file in rule.within.iter().flat_map(|path| files(path)) {
            let relative = file.strip_prefix(root()).unwrap_or(&file);
            if is_test(relative) || rule.except.iter().any(|module| is_in(relative, module)) {
                continue;
            }
            let source = std::fs::read_to_string(&file)
                .map_err(|error| format!("{}: {error}", file.display()))?;
            for Named { path, line } in violations(rule, &source) {
                let place = format!("{}:{line}", relative.display());
                found.push(format!("{place}: {}: {}", path.join("::"), rule.why));
            }
        }
    }
    Ok(found)
}

fn violations(rule: &Rule, source: &str) -> Vec<Named> {
    let forbidden = |path: &[String]| rule.forbidden.iter().any(|banned| names(path, banned));
    paths(source).into_iter().filter(|named| forbidden(&named.path)).collect()
}

/// Whether a path reaches what is banned: by its full name, by a glob above it, or as
/// `time::Instant` behind a `use std::time`.
fn names(path: &[String], banned: &[&str]) -> bool {
    let begins = |banned: &[&str]| {
        let same = path.iter().zip(banned).take_while(|(a, b)| a == b).count();
        same == banned.len() || (same > 0 && path.get(same).is_some_and(|part| part == "*"))
    };
    begins(banned) || (banned.len() > 2 && begins(banned.get(1..).unwrap_or_default()))
}

/// Whether a file belongs to a module: `module/...` or `module.rs`.
fn is_in(file: &Path, module: &str) -> bool {
    file.starts_with(module) || file == Path::new(&format!("{module}.rs"))
}

/// Tests may use the world to check the core.
fn is_test(file: &Path) -> bool {
    let stem = file.file_stem().and_then(|stem| stem.to_str()).unwrap_or_default();
    stem == "tests" || stem.ends_with("_tests") || file.iter().any(|part| part == "tests")
}

/// All sources of a module.
pub(crate) fn files(module: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut open = vec![root().join(module)];
    while let Some(folder) = open.pop() {
        let Ok(entries) = std::fs::read_dir(&folder) else { continue };
        for path in entries.flatten().map(|entry| entry.path()) {
            if path.is_dir() {
                open.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                found.push(path);
            }
        }
    }
    let file = root().join(format!("{module}.rs"));
    found.extend(file.exists().then_some(file));
    found.sort();
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(rule: usize, source: &str) -> Vec<String> {
        violations(&RULES[rule], source).iter().map(|named| named.path.join("::")).collect()
    }

    #[test]
    fn the_core_may_not_name_the_world() {
        for bad in [
            "use std::net::IpAddr;",
            "use std::{collections::HashMap, thread};",
            "use std::time::*;",
            "fn f() { let t = std::time::Instant::now(); }",
            "use std::time;\nfn f() { time::SystemTime::now(); }",
            "use std::env;",
            "fn f() { ::std::fs::read(x); }",
            "async fn f() {}",
            "fn f() { let x = async move { 1 }; }",
        ] {
            assert_eq!(found(0, bad).len(), 1, "{bad}");
        }
        let good = "use core::net::IpAddr; use std::time::Duration; use std::collections::*;\n\
                    // std::net\n#[cfg(test)] mod tests { use std::net; }\n\
                    fn net(fs: u8, env: u8, thread: u8) { let Instant = 1; }";
        assert_eq!(found(0, good), Vec::<String>::new());
    }

    #[test]
    fn only_some_modules_may_name_the_executor() {
        assert_eq!(found(1, "use glommio::Task; fn f() { io_uring::x(); }").len(), 2);
        assert!(is_in(Path::new("shards/src/reactor/ring.rs"), "shards/src/reactor"));
        assert!(is_in(Path::new("shards/src/mesh.rs"), "shards/src/mesh"));
        assert!(!is_in(Path::new("shards/src/mesher.rs"), "shards/src/mesh"));
        assert!(!is_in(Path::new("shards/src/lib.rs"), "shards/src/reactor"));
    }
}
