//! Files that keep settings over a reboot: for one host, and for a profile as examples.

use crate::goal::Profile;
use crate::judge::Finding;
use crate::parameter::Change;

/// Settings of /proc/sys.
pub(crate) const SYSCTL: &str = "etc/sysctl.d/90-ringmain.conf";
/// Settings below /sys, written at boot.
pub(crate) const TMPFILES: &str = "etc/tmpfiles.d/90-ringmain.conf";
/// Limits of logins of the user `ringmain`.
pub(crate) const LIMITS: &str = "etc/security/limits.d/90-ringmain.conf";
/// Limits of the service.
pub(crate) const DROP_IN: &str = "etc/systemd/system/ringmain.service.d/90-ringmain.conf";

/// The first line of each.
const HEAD: &str = "# Written by `ringmain doctor`; `ringmain doctor --undo` takes it back.";

/// The files for what `findings` propose, with their paths relative to the root. Those without content are left
/// out.
pub(crate) fn files(findings: &[Finding]) -> Vec<(String, String)> {
    let wanted = || findings.iter().filter(|f| f.wants_change());
    let lines =
        |of: &dyn Fn(&Finding) -> Option<String>| wanted().filter_map(of).collect::<String>();
    let sysctls = lines(&|f| {
        let name = f.path.strip_prefix("proc/sys/")?.replace('/', ".");
        (f.change == Change::Sysctl)
            .then(|| format!("{name} = {}\n", f.proposed.as_deref().unwrap_or("")))
    });
    let others = lines(&|f| {
        let written = f.change == Change::File;
        written.then(|| format!("w- /{} - - - - {}\n", f.path, f.proposed.as_deref().unwrap_or("")))
    });
    let limits = lines(&|f| {
        let item = match f.systemd.as_str() {
            "LimitNOFILE" => "nofile",
            "LimitMEMLOCK" => "memlock",
            _ => return None,
        };
        let value: u64 = f.proposed.as_deref()?.parse().ok()?;
        // limits.d counts locked memory in KiB.
        let value = if item == "memlock" { value.div_ceil(1024) } else { value };
        Some(format!("ringmain - {item} {value}\n"))
    });
    let service = lines(&|f| {
        let named = f.change == Change::Limit && !f.systemd.is_empty();
        let value = match f.proposed.as_deref()? {
            "max" | "max 100000" => "infinity",
            value => value.split(' ').next().unwrap_or(value),
        };
        // A quota is removed by an empty value.
        let value = if f.systemd == "CPUQuota" { "" } else { value };
        named.then(|| format!("{}={value}\n", f.systemd))
    });
    let service = if service.is_empty() { service } else { format!("[Service]\n{service}") };
    [(SYSCTL, sysctls), (TMPFILES, others), (LIMITS, limits), (DROP_IN, service)]
        .into_iter()
        .filter(|(_, text)| !text.is_empty())
        .map(|(path, text)| (path.to_owned(), format!("{HEAD}\n{text}")))
        .collect()
}

/// What stands above the example files of a profile.
pub(crate) fn example_head(profile: Profile, what: &str) -> String {
    format!(
        "# Ringmain, profile {profile}: {what}.\n# Generated from kernel-params/parameters/*.toml for the reference \
         host and goal (see README.md);\n# `ringmain doctor --profile {profile}` says what this host needs.\n"
    )
}
