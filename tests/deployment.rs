//! The files below deploy/, and what the broker says where it is not allowed what it needs.

use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

/// An exposure above this, in tenths, is more than the unit had when it was written (1.4).
const EXPOSURE_MAX: &str = "20";

fn path(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(name)
}

fn unit() -> String {
    std::fs::read_to_string(path("deploy/systemd/ringmain.service")).expect("is there")
}

/// All values of a key of the unit, in order.
fn values<'a>(unit: &'a str, key: &str) -> Vec<&'a str> {
    unit.lines().filter_map(|line| line.strip_prefix(key)?.strip_prefix('=')).collect()
}

/// systemd-analyze on the unit with the binary of this build; `None` where there is none.
fn analyze(name: &str, arguments: &[&str]) -> Option<Output> {
    let folder = std::env::temp_dir().join(format!("ringmain-unit-{}-{name}", std::process::id()));
    std::fs::create_dir_all(&folder).expect("a folder");
    let file = folder.join("ringmain.service");
    let text = unit().replace("/usr/bin/ringmain", env!("CARGO_BIN_EXE_ringmain"));
    std::fs::write(&file, text).expect("writes");
    let output = Command::new("systemd-analyze").args(arguments).arg(&file).output();
    let _ = std::fs::remove_dir_all(&folder);
    match output {
        Ok(output) => Some(output),
        Err(error) => {
            eprintln!("skipped: systemd-analyze: {error}");
            None
        }
    }
}

#[test]
fn the_unit_has_what_the_broker_relies_on() {
    let unit = unit();
    let one = |key| match values(&unit, key).as_slice() {
        [value] => (*value).to_owned(),
        several => panic!("{key}: {several:?}"),
    };
    assert_eq!(one("Type"), "notify");
    assert_eq!(one("User"), "ringmain");
    assert_eq!(one("RestartPreventExitStatus"), "2", "a wrong configuration stays wrong");
    assert_eq!(one("ExecReload"), "/bin/kill -HUP $MAINPID");
    assert!(one("WatchdogSec").parse::<u32>().is_ok());
    assert_eq!(one("CapabilityBoundingSet"), "");
    assert_eq!(
        values(&unit, "SystemCallFilter"),
        ["@system-service", "~@privileged @resources", "sched_setaffinity"],
        "in this order: what follows changes what comes before"
    );
    // What root writes back must not be in a folder that the service's user owns.
    let state = one("StateDirectory");
    assert!(state.starts_with("ringmain/"), "{state}");
    assert!(one("ExecStart").contains(&format!("%S/{state}")), "the data is where it may write");
    let reload = std::fs::read_to_string(path("deploy/systemd/notify-reload.conf")).expect("there");
    assert_eq!(values(&reload, "Type"), ["notify-reload"]);
    assert_eq!(values(&reload, "ExecReload"), [""]);
}

#[test]
fn user_and_folders_of_the_unit_are_made() {
    let read =
        |name: &str| std::fs::read_to_string(path("deploy/systemd").join(name)).expect("there");
    assert!(read("sysusers.conf").lines().any(|line| line.starts_with("u ringmain ")));
    let folders = read("tmpfiles.conf");
    for line in folders.lines().filter(|line| !line.starts_with('#')) {
        assert_eq!(line.split_whitespace().count(), 6, "{line}");
    }
    assert!(folders.contains("/etc/ringmain/ringmain.toml 0640 root ringmain"));
}

#[test]
fn systemd_finds_nothing_wrong_with_the_unit() {
    let Some(output) = analyze("verify", &["verify"]) else { return };
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    let ours: Vec<_> = said.lines().filter(|line| line.contains("ringmain.service")).collect();
    assert!(ours.is_empty(), "{ours:#?}");
}

#[test]
fn the_unit_exposes_no_more_than_it_did() {
    let arguments = ["security", "--offline=true", "--no-pager", "--threshold", EXPOSURE_MAX];
    let Some(output) = analyze("security", &arguments) else { return };
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    if errors.contains("unrecognized option") {
        eprintln!("skipped: this systemd-analyze is older than 250");
        return;
    }
    assert!(output.status.success(), "{said}{errors}");
    eprintln!("{}", said.lines().last().unwrap_or_default());
}

/// Runs the broker with `prepare` in the child before it begins; what it said, and that it failed.
fn refused(prepare: fn() -> std::io::Result<()>, user: Option<u32>) -> String {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ringmain"));
    command.args(["--listen", "tcp://127.0.0.1:0", "--shards", "2", "--log", "error"]);
    command.args(["--set", "node.pin_cores=false"]).stdin(Stdio::null());
    command.args(["--set", "admin.socket=", "--set", "admin.metrics_listen="]);
    if let Some(user) = user {
        command.uid(user).gid(user);
    }
    // SAFETY: `prepare` only makes system calls.
    unsafe { command.pre_exec(prepare) };
    let output = command.output().expect("starts");
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// Has the calls of io_uring answered with this error, as a container runtime's filter does.
fn filter(errno: i32) -> std::io::Result<()> {
    const DENY: u32 = libc::SECCOMP_RET_ERRNO;
    let statement = |code: u32, k: u32| libc::sock_filter { code: code as u16, jt: 0, jf: 0, k };
    // io_uring_setup, io_uring_enter, io_uring_register are 425 to 427 on every architecture.
    let at_least = |k, jt, jf| libc::sock_filter {
        code: (libc::BPF_JMP | libc::BPF_JGE | libc::BPF_K) as u16,
        jt,
        jf,
        k,
    };
    let program = [
        statement(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0), // the number of the call
        at_least(425, 0, 2),
        at_least(428, 1, 0),
        statement(libc::BPF_RET | libc::BPF_K, DENY | errno as u32),
        statement(libc::BPF_RET | libc::BPF_K, libc::SECCOMP_RET_ALLOW),
    ];
    let program =
        libc::sock_fprog { len: program.len() as u16, filter: program.as_ptr().cast_mut() };
    let none: libc::c_ulong = 0;
    // SAFETY: the program outlives the calls, which copy it.
    let failed = unsafe {
        libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, none, none, none) != 0
            || libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const program) != 0
    };
    if failed { Err(std::io::Error::last_os_error()) } else { Ok(()) }
}

#[test]
fn a_seccomp_filter_that_forbids_io_uring_is_named() {
    let said = refused(|| filter(libc::EPERM), None);
    assert!(said.contains("io_uring is not allowed here"), "{said}");
    assert!(said.contains("seccomp filter (container runtime"), "{said}");
}

#[test]
fn a_seccomp_filter_that_hides_io_uring_is_not_taken_for_an_old_kernel() {
    let said = refused(|| filter(libc::ENOSYS), None);
    assert!(said.contains("so a seccomp filter (container runtime"), "{said}");
}

#[test]
fn a_limit_on_locked_memory_that_is_too_low_is_named() {
    // SAFETY: has no arguments.
    let is_root = unsafe { libc::geteuid() } == 0;
    if !is_root || !counts_rings() {
        eprintln!("skipped: needs root, and Linux 6.14");
        return;
    }
    // A user that has nothing locked: the kernel adds up what all processes of one have.
    let user = 1_000_000 + std::process::id();
    let none = || {
        let none = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
        // SAFETY: the limit outlives the call.
        let failed = unsafe { libc::setrlimit(libc::RLIMIT_MEMLOCK, &raw const none) } != 0;
        if failed { Err(std::io::Error::last_os_error()) } else { Ok(()) }
    };
    let said = refused(none, Some(user));
    assert!(said.contains("RLIMIT_MEMLOCK is 0 KiB"), "{said}");
    assert!(said.contains("LimitMEMLOCK"), "{said}");
}

/// Whether the kernel counts queues of rings as locked memory.
fn counts_rings() -> bool {
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(|n| n.parse().unwrap_or(0));
    (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0)) >= (6, 14)
}
