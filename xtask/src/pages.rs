//! Pages do not outlive what they describe: files and functions that they name must exist.

use std::path::Path;
use std::process::ExitCode;

use crate::{report, root, sources};

/// Pages that name files, relative to the repository, and functions.
const PAGES: &[&str] = &[
    "README.md",
    "docs/ARCHITECTURE.md",
    "docs/HOUSE.md",
    "docs/user/admin-socket.md",
    "docs/user/authentication.md",
    "docs/user/authorization.md",
    "docs/user/configuration.md",
    "docs/user/doctor.md",
    "docs/user/latency.md",
    "docs/user/loadgen.md",
    "docs/user/metrics.md",
    "docs/user/million.md",
    "docs/user/operations.md",
    "tuning/README.md",
    "tuning/containers.md",
    "tuning/deployment.md",
    "tuning/host.md",
    "tuning/latency.md",
    "tuning/million.md",
    "tuning/sizing.md",
];

/// Where functions and types live.
const SOURCES: &[&str] = &[
    "src",
    "shards/src",
    "mqtt/src",
    "acl/src",
    "control/src",
    "sim/src",
    "loadgen/src",
    "xtask/src",
];

/// What a name in backticks must end in to be a file.
const ENDINGS: &[&str] = &[".rs", ".toml", ".md", ".sh", ".py", ".json", ".service", "/"];

/// `cargo xtask pages`.
pub(crate) fn run(_: &[String]) -> ExitCode {
    report("pages", check())
}

/// All that is wrong.
///
/// # Errors
/// When a page or a source cannot be read.
pub(crate) fn check() -> Result<Vec<String>, String> {
    let read = |path: &Path| {
        std::fs::read_to_string(path).map_err(|e| format!("cannot read {}: {e}", path.display()))
    };
    let mut code = String::new();
    for file in SOURCES.iter().flat_map(|folder| sources::files(folder)) {
        code.push_str(&read(&file)?);
    }
    let mut found = Vec::new();
    for page in PAGES {
        let text = read(&root().join(page))?;
        let folder = root().join(page).parent().map(Path::to_path_buf).unwrap_or_default();
        let exists = |name: &str| root().join(name).exists();
        let linked = |name: &str| folder.join(name).exists();
        found.extend(wrong(&text, exists, linked, &code).map(|what| format!("{page}: {what}")));
    }
    Ok(found)
}

/// The names on a page that stand for nothing.
fn wrong<'a>(
    page: &'a str,
    exists: impl Fn(&str) -> bool + 'a,
    linked: impl Fn(&str) -> bool + 'a,
    code: &'a str,
) -> impl Iterator<Item = String> + 'a {
    let files = quoted(page).filter(|name| is_file(name)).filter(move |name| !exists(name));
    let files = files.map(|name| format!("there is no file `{name}`"));
    let links = links(page).filter(move |link| !linked(link));
    let links = links.map(|link| format!("the link {link} leads nowhere"));
    let names = quoted(page).filter_map(item).filter(|name| !has_word(code, name));
    files.chain(links).chain(names.map(|name| format!("the sources have no `{name}`")))
}

/// What stands between single backticks, outside of blocks of code.
fn quoted(page: &str) -> impl Iterator<Item = &str> {
    page.split("```").step_by(2).flat_map(|text| text.split('`').skip(1).step_by(2))
}

/// A path below the root; names of modules such as `net.rs` are not.
fn is_file(name: &str) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-".contains(c);
    !name.starts_with(['/', '.', '$'])
        && name.chars().all(plain)
        && (name.contains('/') || name.ends_with(".md"))
        && ENDINGS.iter().any(|ending| name.ends_with(ending))
}

/// The last part of `Type::function` or `function()`.
fn item(name: &str) -> Option<&str> {
    let path = name.strip_suffix("()").or_else(|| name.contains("::").then_some(name))?;
    let last = path.rsplit("::").next()?;
    let word = !last.is_empty() && last.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
    word.then_some(last)
}

/// Where links lead that stay in the repository.
fn links(page: &str) -> impl Iterator<Item = &str> {
    let targets = page.split("](").skip(1).filter_map(|rest| Some(rest.split_once(')')?.0));
    targets.map(|link| link.split('#').next().unwrap_or_default()).filter(|link| {
        !link.is_empty() && !link.starts_with("http") && !link.contains(char::is_whitespace)
    })
}

fn has_word(code: &str, word: &str) -> bool {
    let outside = |c: Option<char>| c.is_none_or(|c| !c.is_alphanumeric() && c != '_');
    code.match_indices(word).any(|(at, _)| {
        outside(code[..at].chars().next_back()) && outside(code[at + word.len()..].chars().next())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_that_names_what_is_gone_is_wrong() {
        let exists = |name: &str| name == "src/boot.rs";
        let linked = |name: &str| name == "HOUSE.md";
        let code = "fn turn(&mut self) {}";
        let findings = |page: &str| wrong(page, exists, linked, code).collect::<Vec<_>>();
        let good = "`src/boot.rs` `net.rs` `NetTask::turn` `turn()` [h](HOUSE.md#x) [w](https://x)";
        assert_eq!(findings(good), Vec::<String>::new());
        assert_eq!(findings("```\n`src/gone.rs`\n```"), Vec::<String>::new());
        assert_eq!(findings("`src/gone.rs`").len(), 1);
        assert_eq!(findings("`NetTask::turned` and `tur()`").len(), 2);
        assert_eq!(findings("[h](gone.md)").len(), 1);
    }
}
