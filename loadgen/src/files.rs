//! Files that the user names: client identifiers, user names and passwords.

use std::path::Path;
use std::sync::Arc;

/// Lines of a file that are not empty.
fn lines(path: &Path) -> Result<Vec<String>, String> {
    let text = std::fs::read_to_string(path).map_err(|e| format!("{}: {e}", path.display()))?;
    Ok(text.lines().filter(|l| !l.trim().is_empty()).map(str::to_owned).collect())
}

/// Client identifiers, one a line.
///
/// # Errors
/// When the file cannot be read, or has fewer than `count`.
pub(crate) fn client_ids(path: &Path, count: u32) -> Result<Arc<[String]>, String> {
    let ids = lines(path)?;
    if ids.len() < count as usize {
        return Err(format!("{}: {} identifiers for {count} clients", path.display(), ids.len()));
    }
    Ok(ids.into())
}

/// User names and passwords, `name:password` or `name,password` a line; the first of the two
/// separators counts, and a line without one is a name with an empty password.
///
/// # Errors
/// When the file cannot be read, or has none.
pub(crate) fn credentials(path: &Path) -> Result<Arc<[(String, String)]>, String> {
    let pair = |line: String| match line.split_once([':', ',']) {
        Some((name, password)) => (name.to_owned(), password.to_owned()),
        None => (line, String::new()),
    };
    let pairs: Vec<_> = lines(path)?.into_iter().map(pair).collect();
    if pairs.is_empty() {
        return Err(format!("{}: it names nobody", path.display()));
    }
    Ok(pairs.into())
}
