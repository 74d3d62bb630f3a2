//! Samples taken by `perf`, which sees user code and kernel.

use std::collections::BTreeMap;
use std::fs::DirBuilder;
use std::io::{BufRead, BufReader, ErrorKind};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{SystemTime, UNIX_EPOCH};

use super::folded::Folded;
use crate::symbols::function;

/// Addresses from here on are the kernel's, on x86-64 and aarch64 alike.
const KERNEL: u64 = 1 << 63;
/// How flame graphs mark functions of the kernel.
const KERNEL_MARK: &str = "_[k]";
/// Times that perf is started.
const ATTEMPTS: u32 = 5;
/// Says how much who is not root may see.
const PARANOID: &str = "/proc/sys/kernel/perf_event_paranoid";

/// Where the threads of a process are while they are on a CPU.
///
/// # Errors
/// Why perf can not tell.
pub(super) fn on_cpu(
    pid: u32,
    seconds: u64,
    hz: u64,
    notes: &mut Vec<String>,
) -> Result<Folded, String> {
    let folder = Folder::new()?;
    let hz = hz.to_string();
    record(&["-F", &hz, "--call-graph", "fp"], pid, seconds, &folder)?;
    let mut folded = Folded::default();
    script(&folder, &["-F", "comm,tid,time,ip,sym"], notes, |event| {
        if let Event::Sample { thread, frames, .. } = event {
            folded.add(outermost_first(thread, &frames), 1);
        }
    })?;
    Ok(folded)
}

/// Where they are when they leave it, by how long they are away, µs.
///
/// # Errors
/// Why perf can not tell.
pub(super) fn off_cpu(pid: u32, seconds: u64, notes: &mut Vec<String>) -> Result<Folded, String> {
    let folder = Folder::new()?;
    record(&["-e", "sched:sched_switch", "--switch-events", "--call-graph", "fp"], pid, seconds, &folder)
        .map_err(|why| {
            format!(
                "{why}\n--off-cpu needs perf, and its tracepoint sched:sched_switch, which the kernel gives to root \
                 (or with CAP_PERFMON and readable /sys/kernel/tracing) only"
            )
        })?;
    let mut away = Away::default();
    let fields = ["--show-switch-events", "--ns", "-F", "comm,tid,time,event,ip,sym,trace"];
    script(&folder, &fields, notes, |event| away.see(event))?;
    Ok(away.folded())
}

fn outermost_first(thread: String, frames: &[String]) -> Vec<String> {
    std::iter::once(thread).chain(frames.iter().rev().cloned()).collect()
}

/// Threads that are off their CPU, and for how long they were.
#[derive(Debug, Default)]
struct Away {
    /// Since when, in ns, and where.
    left: BTreeMap<i32, (u64, Vec<String>)>,
    /// ns by stack.
    spent: BTreeMap<Vec<String>, u64>,
    last_ns: u64,
}

impl Away {
    fn see(&mut self, event: Event) {
        match event {
            Event::Sample { thread, tid, at_ns, runnable, mut frames } => {
                self.last_ns = self.last_ns.max(at_ns);
                if runnable {
                    frames.insert(0, "[runnable]".to_owned());
                }
                self.left.insert(tid, (at_ns, outermost_first(thread, &frames)));
            }
            Event::BackOn { tid, at_ns } => {
                self.last_ns = self.last_ns.max(at_ns);
                if let Some((since_ns, stack)) = self.left.remove(&tid) {
                    *self.spent.entry(stack).or_default() += at_ns.saturating_sub(since_ns);
                }
            }
        }
    }

    /// Those that did not come back were away until the end.
    fn folded(mut self) -> Folded {
        for (since_ns, stack) in std::mem::take(&mut self.left).into_values() {
            *self.spent.entry(stack).or_default() += self.last_ns.saturating_sub(since_ns);
        }
        let mut folded = Folded::default();
        self.spent.into_iter().for_each(|(stack, ns)| folded.add(stack, ns / 1000));
        folded
    }
}

/// Runs `perf record` on a process for so long. Threads that come and go while perf attaches to them can make it give up
/// before it has begun, some versions without a word: then it is tried again.
fn record(how: &[&str], pid: u32, seconds: u64, folder: &Folder) -> Result<(), String> {
    let mut attempt = 1;
    loop {
        let output = Command::new("perf")
            .arg("record")
            .args(how)
            .args(["-p", &pid.to_string(), "-o"])
            .arg(folder.data())
            .args(["--", "sleep", &seconds.to_string()])
            .stdin(Stdio::null())
            .output()
            .map_err(|e| not_started(&e))?;
        if output.status.success() {
            return Ok(());
        }
        let said = String::from_utf8_lossy(&output.stderr);
        let passing = said.trim().is_empty() || said.contains("No such process");
        if !passing || attempt == ATTEMPTS {
            return Err(refused(&said, &paranoid()));
        }
        attempt += 1;
    }
}

fn not_started(error: &std::io::Error) -> String {
    if error.kind() == ErrorKind::NotFound {
        "perf is not installed (Debian: linux-perf, Fedora: perf)".to_owned()
    } else {
        format!("perf can not be run: {error}")
    }
}

fn paranoid() -> String {
    std::fs::read_to_string(PARANOID).map_or("unknown".to_owned(), |text| text.trim().to_owned())
}

/// What perf says, in a line; what it says of rights, in ours.
fn refused(said: &str, paranoid: &str) -> String {
    if said.contains("perf_event_paranoid") || said.contains("Permission denied") {
        return format!(
            "perf may not look at the broker: run this as root, or lower kernel.perf_event_paranoid (it is {paranoid})"
        );
    }
    let line = said.lines().map(str::trim).find(|l| !l.is_empty() && *l != "Error:");
    format!("perf record failed: {}", line.unwrap_or("it does not say why"))
}

/// What `perf script` tells of.
#[derive(Debug, PartialEq, Eq)]
enum Event {
    /// A stack.
    Sample {
        /// Name of the thread.
        thread: String,
        tid: i32,
        at_ns: u64,
        /// Whether it went off its CPU though it had work left.
        runnable: bool,
        /// Innermost first.
        frames: Vec<String>,
    },
    /// A thread is on a CPU again.
    BackOn { tid: i32, at_ns: u64 },
}

fn script(
    folder: &Folder,
    how: &[&str],
    notes: &mut Vec<String>,
    mut see: impl FnMut(Event),
) -> Result<(), String> {
    // Without names of inlined functions: perf would run a program for each address.
    let mut child = Command::new("perf")
        .args(["script", "--no-inline", "-i"])
        .arg(folder.data())
        .args(how)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .map_err(|e| not_started(&e))?;
    let out = child.stdout.take().ok_or("perf script says nothing")?;
    let strange = parse(BufReader::new(out), &mut see);
    let status = child.wait().map_err(|e| e.to_string())?;
    if !status.success() {
        return Err(format!("perf script failed: {status}"));
    }
    if strange > 0 {
        notes.push(format!("{strange} lines of perf script were not understood"));
    }
    Ok(())
}

/// Reads what `perf script` writes: a head for each sample, its frames indented below, and an empty line. Returns how
/// many lines were not understood.
fn parse(lines: impl BufRead, see: &mut impl FnMut(Event)) -> u64 {
    let (mut sample, mut strange) = (None, 0);
    for line in lines.split(b'\n').map_while(Result::ok) {
        let line = String::from_utf8_lossy(&line);
        // Names of threads are padded to the right; only frames begin with a tab.
        if line.starts_with('\t') {
            match (&mut sample, frame(&line)) {
                (Some(Event::Sample { frames, .. }), Some(frame)) => frames.push(frame),
                _ => strange += 1,
            }
            continue;
        }
        sample.take().into_iter().for_each(&mut *see);
        if line.trim().is_empty() {
            continue;
        }
        match head(&line) {
            Some(Head::Sample(event)) => sample = Some(event),
            Some(Head::Switch(Some(event))) => see(event),
            Some(Head::Switch(None)) => {}
            None => strange += 1,
        }
    }
    sample.into_iter().for_each(see);
    strange
}

enum Head {
    Sample(Event),
    Switch(Option<Event>),
}

/// `name of thread  TID  SECONDS.FRACTION:  what happened`
fn head(line: &str) -> Option<Head> {
    let words: Vec<&str> = line.split_whitespace().collect();
    let time =
        words.iter().position(|w| w.strip_suffix(':').is_some_and(|t| nanoseconds(t).is_some()))?;
    let at_ns = nanoseconds(words[time].strip_suffix(':')?)?;
    // The switch events are told with the process, too: `PID/TID`.
    let tid = words.get(time.checked_sub(1)?)?.rsplit('/').next()?.parse().ok()?;
    let what = &words[time + 1..];
    if what.contains(&"PERF_RECORD_SWITCH") || what.contains(&"PERF_RECORD_SWITCH_CPU_WIDE") {
        let on = what.contains(&"IN");
        return Some(Head::Switch(on.then_some(Event::BackOn { tid, at_ns })));
    }
    let thread = words[..time - 1].join(" ");
    let runnable = what.iter().any(|w| w.starts_with("prev_state=R"));
    Some(Head::Sample(Event::Sample { thread, tid, at_ns, runnable, frames: Vec::new() }))
}

/// `12.345678` seconds.
fn nanoseconds(text: &str) -> Option<u64> {
    let (whole, fraction) = text.split_once('.')?;
    let digits = fraction.len();
    if digits == 0 || digits > 9 {
        return None;
    }
    let fraction: u64 = fraction.parse().ok()?;
    whole
        .parse::<u64>()
        .ok()?
        .checked_mul(1_000_000_000)?
        .checked_add(fraction * 10_u64.pow(9 - digits as u32))
}

/// `   ADDRESS name of function`
fn frame(line: &str) -> Option<String> {
    let (address, name) = line.trim().split_once(' ').unwrap_or((line.trim(), ""));
    let address = u64::from_str_radix(address, 16).ok()?;
    let name = if name.is_empty() { "[unknown]".to_owned() } else { function(name) };
    Some(if address >= KERNEL { name + KERNEL_MARK } else { name })
}

/// A folder that only this user can look into, with perf's data; removed at the end.
#[derive(Debug)]
struct Folder(PathBuf);

impl Folder {
    fn new() -> Result<Self, String> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos();
        let path =
            std::env::temp_dir().join(format!("ringmain-profile-{}-{now}", std::process::id()));
        DirBuilder::new()
            .mode(0o700)
            .create(&path)
            .map_err(|e| format!("cannot make {}: {e}", path.display()))?;
        Ok(Self(path))
    }

    fn data(&self) -> PathBuf {
        Path::new(&self.0).join("perf.data")
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SCRIPT: &str = "\
shard 0   24538 76947.602105123: sched:sched_switch: prev_comm=shard prev_pid=24538 prev_prio=120 prev_state=R ==> next_comm=x
\tffffffff821f8b58 __schedule
\t           f83f0 ringmain::turn::h0123456789abcdef

shard 0 24538/24538 76947.602106123: PERF_RECORD_SWITCH OUT preempt
shard 0 24538/24538 76947.602605123: PERF_RECORD_SWITCH IN
shard 0   24538 76947.610000000: sched:sched_switch: prev_comm=shard prev_pid=24538 prev_prio=120 prev_state=S ==> next_comm=x
\tffffffff821f8b58 __schedule
\t               0 [unknown]
\tdeadbeef

watcher 24539 76947.611000000: sched:sched_switch: prev_comm=w prev_state=S ==> next_comm=x
\tffffffff821f8b58 __schedule

shard 0 24538/24538 76947.613000000: PERF_RECORD_SWITCH IN
";

    fn away(script: &str) -> (String, u64) {
        let mut away = Away::default();
        let strange = parse(script.as_bytes(), &mut |event| away.see(event));
        (away.folded().to_text(), strange)
    }

    #[test]
    fn time_off_cpu_is_from_leaving_to_coming_back_and_who_had_work_left_is_runnable() {
        let expected = "\
shard 0;[unknown];[unknown];__schedule_[k] 3000
shard 0;ringmain::turn;__schedule_[k];[runnable] 500
watcher;__schedule_[k] 2000
";
        assert_eq!(away(SCRIPT), (expected.to_owned(), 0));
    }

    #[test]
    fn who_came_back_without_having_been_seen_to_leave_was_away_for_no_known_time() {
        let script = "w 7/7 1.000000000: PERF_RECORD_SWITCH IN\nnonsense\n\tfeed f\n";
        assert_eq!(away(script), (String::new(), 2));
    }

    #[test]
    fn each_sample_on_cpu_counts_once() {
        let script = "lto cgu.13 77 12.5:\n\t401000 main\n\nlto cgu.13 77 12.6:\n\t401000 main\n";
        let mut folded = Folded::default();
        let strange = parse(script.as_bytes(), &mut |event| {
            if let Event::Sample { thread, frames, .. } = event {
                folded.add(outermost_first(thread, &frames), 1);
            }
        });
        assert_eq!((folded.to_text().as_str(), strange), ("lto cgu.13;main 2\n", 0));
    }

    #[test]
    fn what_perf_refuses_is_said_with_what_to_do() {
        let rights = "Error:\nAccess to performance monitoring and observability operations is limited.\n\
                      Consider adjusting /proc/sys/kernel/perf_event_paranoid setting";
        assert!(refused(rights, "3").contains("(it is 3)"));
        let other = "Error:\nThe sys_perf_event_open() syscall returned with 22\n";
        assert_eq!(
            refused(other, "2"),
            "perf record failed: The sys_perf_event_open() syscall returned with 22"
        );
        assert!(refused("", "2").contains("does not say why"));
    }
}
