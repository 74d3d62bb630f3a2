//! Users and groups by name, as the files of this host have them.

/// Users.
pub(super) const USERS: &str = "/etc/passwd";
/// Groups.
pub(super) const GROUPS: &str = "/etc/group";

/// The number of a user or group: a number as it is, a name by the file.
///
/// # Errors
/// When nobody is called so.
pub(super) fn id(file: &str, name: &str) -> Result<u32, String> {
    if let Ok(id) = name.parse() {
        return Ok(id);
    }
    let text = std::fs::read_to_string(file).map_err(|e| format!("cannot read {file}: {e}"))?;
    find(&text, name).ok_or_else(|| format!("nobody is called {name:?} in {file}: give the number"))
}

fn find(text: &str, name: &str) -> Option<u32> {
    text.lines().find_map(|line| {
        let mut fields = line.split(':');
        let found = fields.next() == Some(name);
        fields.nth(1).filter(|_| found)?.parse().ok()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_looked_up_and_numbers_are_taken_as_they_are() {
        assert_eq!(id(USERS, "root"), Ok(0));
        assert_eq!(id(GROUPS, "4711"), Ok(4711));
        assert!(id(USERS, "no such user").is_err_and(|why| why.contains("no such user")));
        assert_eq!(find("a:x:1:2::/:/\nab:x:3:4::/:/", "ab"), Some(3));
    }
}
