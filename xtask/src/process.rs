//! Runs a command line, shows what it prints, and ends it with all its children when it is late.

use std::collections::HashMap;
use std::io::{BufRead, BufReader};
use std::process::{Command, ExitStatus, Stdio};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use crate::root;

/// How often a silent command is looked at.
const LOOK: Duration = Duration::from_millis(200);
/// How long output is awaited from children that outlive the command.
const DRAIN: Duration = Duration::from_secs(2);

/// A command line to run in the root of the repository, without standard input.
pub(crate) struct Job(Command);

impl Job {
    /// For `bash -c`.
    pub(crate) fn shell(line: &str) -> Job {
        let mut command = Command::new("bash");
        command.args(["-c", line]).current_dir(root()).stdin(Stdio::null());
        // What cargo sets for this program is not meant for the programs that it runs.
        for (name, _) in std::env::vars_os() {
            let text = name.to_string_lossy();
            if text.starts_with("CARGO_PKG_") || text.starts_with("CARGO_MANIFEST_") {
                command.env_remove(&name);
            }
        }
        Job(command)
    }

    /// Sets variables.
    pub(crate) fn vars(&mut self, vars: &[(&str, &str)]) {
        self.0.envs(vars.iter().copied());
    }

    /// Whether it succeeds; shows nothing.
    pub(crate) fn succeeds(mut self) -> bool {
        let status = self.0.stdout(Stdio::null()).stderr(Stdio::null()).status();
        status.is_ok_and(|status| status.success())
    }

    /// Runs it, shows its output and gives each line of it to `line`.
    ///
    /// # Errors
    /// When it cannot start, fails, or is not done within `limit`.
    pub(crate) fn run(mut self, limit: Duration, line: &mut dyn FnMut(&str)) -> Result<(), String> {
        let failed = |error: std::io::Error| format!("cannot run it: {error}");
        let (reader, writer) = std::io::pipe().map_err(failed)?;
        self.0.stdout(writer.try_clone().map_err(failed)?).stderr(writer);
        let mut child = self.0.spawn().map_err(failed)?;
        // The command holds the writing end, and the output would never end.
        drop(self);
        let (sender, lines) = channel();
        std::thread::spawn(move || {
            let mut reader = BufReader::new(reader);
            let mut bytes = Vec::new();
            while reader.read_until(b'\n', &mut bytes).is_ok_and(|length| length > 0) {
                let text = String::from_utf8_lossy(&bytes).trim_end().to_owned();
                if sender.send(text).is_err() {
                    break;
                }
                bytes.clear();
            }
        });
        let deadline = Instant::now() + limit;
        let mut ended: Option<(ExitStatus, Instant)> = None;
        loop {
            match lines.recv_timeout(LOOK) {
                Ok(text) => {
                    println!("{text}");
                    line(&text);
                }
                Err(RecvTimeoutError::Disconnected) => break,
                Err(RecvTimeoutError::Timeout) => {}
            }
            if ended.is_none() {
                ended = child.try_wait().map_err(failed)?.map(|status| (status, Instant::now()));
            }
            match ended {
                Some((_, at)) if at.elapsed() > DRAIN => break,
                None if Instant::now() > deadline => {
                    kill_tree(child.id());
                    let _ = child.wait();
                    return Err(format!("not done after {} s", limit.as_secs()));
                }
                _ => {}
            }
        }
        let status = match ended {
            Some((status, _)) => status,
            None => child.wait().map_err(failed)?,
        };
        if status.success() { Ok(()) } else { Err(status.to_string()) }
    }
}

/// Ends a process and everything it has started, by id.
fn kill_tree(root: u32) {
    let mut children: HashMap<u32, Vec<u32>> = HashMap::new();
    let processes = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    for pid in processes.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok()) {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        // pid (name) state parent: the name may hold anything, so look behind it.
        let parent = stat.rsplit(')').next().and_then(|rest| rest.split_whitespace().nth(1));
        if let Some(parent) = parent.and_then(|parent| parent.parse().ok()) {
            children.entry(parent).or_default().push(pid);
        }
    }
    let mut tree = vec![root];
    let mut at = 0;
    while let Some(pid) = tree.get(at).copied() {
        tree.extend(children.remove(&pid).unwrap_or_default());
        at += 1;
    }
    let pids = tree.iter().map(u32::to_string);
    let _ = Command::new("kill").arg("-KILL").args(pids).status();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn output_of_both_streams_arrives_and_the_status_counts() {
        let mut seen = Vec::new();
        let job = Job::shell("echo out; echo err >&2; exit 3");
        let result = job.run(Duration::from_secs(60), &mut |line| seen.push(line.to_owned()));
        assert_eq!(seen, ["out", "err"]);
        assert_eq!(result, Err("exit status: 3".to_owned()));
    }

    #[test]
    fn a_late_command_is_ended_with_its_children() {
        let mut child = String::new();
        let job = Job::shell("bash -c 'echo $$; sleep 600; true'; true");
        let result = job.run(Duration::from_secs(1), &mut |line| line.clone_into(&mut child));
        assert_eq!(result, Err("not done after 1 s".to_owned()));
        // The signal is sent; the kernel delivers it when the child next runs.
        let lives = || {
            let stat = std::fs::read_to_string(format!("/proc/{child}/stat")).unwrap_or_default();
            !stat.is_empty() && !stat.contains(") Z ")
        };
        for _ in 0..1_000 {
            if !lives() {
                return;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        panic!("{child} lives on");
    }

    #[test]
    fn standard_input_is_empty() {
        assert!(Job::shell("! read line").succeeds());
    }
}
