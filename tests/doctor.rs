//! `ringmain doctor` as a process: on a copy of a host, in a network namespace, with few descriptors.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

fn doctor(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_ringmain")).arg("doctor").args(arguments).output().unwrap()
}

fn text(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn errors(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// A folder of its own, removed at the end.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let path =
            std::env::temp_dir().join(format!("ringmain-doctor-{}-{name}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    fn set(&self, path: &str, content: &str) {
        let path = self.0.join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, content).unwrap();
    }

    fn path(&self) -> &str {
        self.0.to_str().unwrap()
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

#[test]
fn this_host_is_examined_and_the_json_has_the_same_findings() {
    let people = doctor(&["--goal", "1M", "--all"]);
    let json = doctor(&["--goal", "1M", "--json"]);
    let report: serde_json::Value = serde_json::from_slice(&json.stdout).unwrap();
    assert_eq!(report["goal"]["connections"], 1_000_000);
    let findings = report["findings"].as_array().unwrap();
    assert!(findings.len() > 50, "{}", findings.len());
    for finding in findings {
        assert!(text(&people).contains(finding["name"].as_str().unwrap()), "{finding}");
    }
}

#[test]
fn another_hosts_copy_is_examined_and_not_changed() {
    let copy = Folder::new("copy");
    copy.set("proc/sys/kernel/osrelease", "6.12.1\n");
    copy.set("proc/sys/net/ipv4/tcp_tw_reuse", "1\n");
    copy.set("proc/meminfo", "MemTotal: 8000000 kB\nMemAvailable: 7000000 kB\n");
    copy.set(
        "proc/self/limits",
        "Max open files            1024                 4096                 files\n",
    );
    let output = doctor(&["--host-root", copy.path(), "--goal", "500k"]);
    assert_eq!(output.status.code(), Some(1));
    let said = text(&output);
    assert!(said.contains("growth stops at 319536 of 500000"), "{said}");
    assert!(said.contains("DANGER    net.ipv4.tcp_tw_reuse = 1"), "{said}");
    let refused = doctor(&["--host-root", copy.path(), "--apply"]);
    assert_eq!(refused.status.code(), Some(2));
    let nowhere = doctor(&["--host-root", "/nowhere"]);
    assert!(errors(&nowhere).contains("/nowhere: there is no proc in it"));
}

#[test]
fn wrong_options_are_named() {
    assert!(errors(&doctor(&["--goal", "many"])).contains("`many` is no count"));
    assert!(errors(&doctor(&["--profile", "fast"])).contains("there is no profile `fast`"));
    assert!(errors(&doctor(&["--only", "net.none"])).contains("no parameter begins with net.none"));
    let undo = doctor(&["--undo", "--undo-file", "/nowhere/undo.json"]);
    assert!(errors(&undo).contains("/nowhere/undo.json: "), "{}", errors(&undo));
}

#[test]
fn a_dry_run_shows_and_changes_nothing() {
    let name = "/proc/sys/net/ipv4/tcp_slow_start_after_idle";
    let before = std::fs::read_to_string(name).unwrap();
    let output = doctor(&["--profile", "latency", "--only", "net.ipv4", "--apply", "--dry-run"]);
    assert!(output.status.success());
    if before.trim() == "1" {
        assert!(text(&output).contains(&format!("{name}: 1 → 0")), "{}", text(&output));
    }
    assert_eq!(std::fs::read_to_string(name).unwrap(), before);
}

/// Runs a script in a network namespace of its own; `None` where that needs a privilege that we lack.
fn in_a_namespace(script: &str) -> Option<Output> {
    let may = Command::new("unshare").args(["--net", "true"]).status();
    if !may.is_ok_and(|status| status.success()) {
        eprintln!("skipped: no network namespace without root");
        return None;
    }
    let ringmain = Path::new(env!("CARGO_BIN_EXE_ringmain"));
    let mut command = Command::new("unshare");
    command.args(["--net", "sh", "-euc", script]).env("RINGMAIN", ringmain);
    Some(command.output().unwrap())
}

#[test]
fn in_a_namespace_what_is_applied_is_in_the_kernel_and_undone_byte_for_byte() {
    let folder = Folder::new("namespace");
    let script = format!(
        "cd /proc/sys/net/ipv4\n\
         cat tcp_* ip_local_port_range > {folder}/before 2>/dev/null || true\n\
         \"$RINGMAIN\" doctor --profile latency --only net.ipv4.tcp_s --only net.ipv4.tcp_notsent --apply \
         --undo-file {folder}/undo.json\n\
         cat tcp_slow_start_after_idle tcp_notsent_lowat\n\
         \"$RINGMAIN\" doctor --undo --undo-file {folder}/undo.json\n\
         cat tcp_* ip_local_port_range > {folder}/after 2>/dev/null || true",
        folder = folder.path()
    );
    let Some(output) = in_a_namespace(&script) else { return };
    let said = text(&output);
    assert!(output.status.success(), "{said}{}", errors(&output));
    assert!(said.contains("\n0\n131072\n"), "{said}");
    let read = |name: &str| std::fs::read(folder.0.join(name)).unwrap();
    assert!(!read("before").is_empty());
    assert_eq!(read("before"), read("after"));
}

#[test]
fn with_few_descriptors_the_prediction_is_verified_by_opening_connections() {
    // 200 descriptors are 20 rings of 184 slots in each of two shards.
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let allowed = status.lines().find_map(|l| l.strip_prefix("Cpus_allowed_list:")).unwrap();
    let two: Vec<&str> = allowed.trim().split([',', '-']).take(2).collect();
    let script = "ulimit -n 200; exec taskset -c \"$1\" \"$0\" doctor --goal 20k --verify --json";
    let output = Command::new("sh")
        .args(["-c", script, env!("CARGO_BIN_EXE_ringmain"), &two.join(",")])
        .output()
        .unwrap();
    let report: serde_json::Value = serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|e| panic!("{e}: {}", errors(&output)));
    let verified = &report["verified"];
    assert_eq!(verified["predicted"]["stops"][0]["limit"], "RLIMIT_NOFILE", "{verified}");
    assert_eq!(verified["as_predicted"], true, "{verified}");
    assert!(verified["stopped_by"].is_string(), "{verified}");
}
