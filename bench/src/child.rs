//! Child processes that do not outlive the benchmark.
//!
//! A benchmark that is killed runs no destructor. So each child asks the kernel to be killed with
//! its parent, and folders that a dead benchmark left are swept by the next one.

use std::io;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::thread::sleep;
use std::time::{Duration, Instant};

/// Spawns `command`; the kernel kills it when this thread ends, however it ends.
///
/// A process that changes its user loses this wish: peers that would do so are told to stay root.
///
/// # Errors
/// When the program cannot be started; the error names it.
pub(crate) fn spawn(command: &mut Command) -> io::Result<Child> {
    let parent = std::process::id();
    // SAFETY: between fork and exec only two system calls are made, and nothing is allocated.
    unsafe {
        command.pre_exec(move || {
            if libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) != 0 {
                return Err(io::Error::last_os_error());
            }
            // The parent may have gone before the wish was made.
            if libc::getppid() as u32 != parent {
                return Err(io::Error::from_raw_os_error(libc::ESRCH));
            }
            Ok(())
        });
    }
    let program = command.get_program().to_string_lossy().into_owned();
    command.spawn().map_err(|e| io::Error::new(e.kind(), format!("{program}: {e}")))
}

/// Sends a signal to our own child.
pub(crate) fn signal(child: &Child, signal: libc::c_int) {
    // SAFETY: the child is not reaped yet, so the pid is its.
    unsafe { libc::kill(child.id() as libc::pid_t, signal) };
}

/// Waits until the child ended, for at most `limit`.
pub(crate) fn ended_within(child: &mut Child, limit: Duration) -> bool {
    let until = Instant::now() + limit;
    loop {
        if !matches!(child.try_wait(), Ok(None)) {
            return true;
        }
        if Instant::now() >= until {
            return false;
        }
        sleep(Duration::from_millis(5));
    }
}

/// SIGTERM, and SIGKILL when the child takes longer than `patience`.
pub(crate) fn end(child: &mut Child, patience: Duration) {
    signal(child, libc::SIGTERM);
    if !ended_within(child, patience) {
        let _ = child.kill();
        let _ = child.wait();
    }
}

/// A folder that goes with its owner.
#[derive(Debug)]
pub(crate) struct Scratch(pub(crate) PathBuf);

const SCRATCH: &str = "ringmain-bench-";

impl Scratch {
    pub(crate) fn new(name: &str) -> io::Result<Self> {
        let path = std::env::temp_dir().join(format!("{SCRATCH}{}-{name}", std::process::id()));
        std::fs::create_dir_all(&path)?;
        Ok(Self(path))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// Removes the folders of benchmarks that were killed.
pub(crate) fn sweep() {
    let Ok(entries) = std::fs::read_dir(std::env::temp_dir()) else { return };
    for entry in entries.flatten() {
        let name = entry.file_name();
        let owner = name.to_str().and_then(owner_of);
        if owner.is_some_and(|pid| !Path::new(&format!("/proc/{pid}")).exists()) {
            let _ = std::fs::remove_dir_all(entry.path());
        }
    }
}

fn owner_of(name: &str) -> Option<u32> {
    name.strip_prefix(SCRATCH)?.split('-').next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scratch_folder_names_its_owner() {
        assert_eq!(owner_of("ringmain-bench-4711-mosquitto-1883"), Some(4711));
        assert_eq!(owner_of("ringmain-bench-x"), None);
        assert_eq!(owner_of("somebody-4711"), None);
    }

    #[test]
    fn a_child_ends_with_the_thread_that_started_it() {
        let pid = std::thread::spawn(|| {
            let child = spawn(Command::new("sleep").arg("60")).unwrap();
            let pid = child.id();
            drop(child); // Does not end it.
            pid
        })
        .join()
        .unwrap();
        // It stays a zombie of this process until it is reaped.
        let mut status = 0;
        // SAFETY: `status` is valid; the pid is our child's.
        let reaped = unsafe { libc::waitpid(pid as libc::pid_t, &raw mut status, 0) };
        assert_eq!(reaped, pid as libc::pid_t);
        assert_eq!(libc::WTERMSIG(status), libc::SIGKILL);
    }

    #[test]
    fn a_child_that_ignores_sigterm_is_killed() {
        let mut command = Command::new("sh");
        command.args(["-c", "trap '' TERM; while :; do sleep 1; done"]);
        let mut child = spawn(&mut command).unwrap();
        sleep(Duration::from_millis(100));
        end(&mut child, Duration::from_millis(50));
        assert!(child.try_wait().unwrap().is_some());
    }
}
