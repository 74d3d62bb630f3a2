//! What a process costs, from /proc: CPU, memory, context switches, descriptors.

use std::fs;
use std::io;

use crate::clock::now_ns;

/// smaps_rollup makes the kernel walk all pages of the process under its memory lock: with
/// gigabytes that takes tens of ms in which the process cannot map memory. The next look waits this
/// many times as long as the last one took, so that at most 1 % of the time goes into it.
const MAP_LOOK_RATIO: u64 = 100;

/// One look at a process.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(default)]
pub struct Sample {
    /// When, in ns of CLOCK_MONOTONIC.
    pub at_ns: u64,
    /// CPU time of the threads that live, in ns (schedstat).
    pub cpu_ns: u64,
    /// User time of the process, in ms (10 ms steps).
    pub user_ms: u64,
    /// System time of the process, in ms (10 ms steps).
    pub system_ms: u64,
    /// Resident bytes.
    pub rss: u64,
    /// Proportional set size, bytes.
    pub pss: u64,
    /// Anonymous part of the proportional set size, bytes: heap and stacks.
    pub pss_anon: u64,
    /// Unique set size: private pages, bytes.
    pub uss: u64,
    /// Anonymous pages, bytes.
    pub anonymous: u64,
    /// Voluntary context switches of the threads that live.
    pub voluntary_switches: u64,
    /// Involuntary ones.
    pub involuntary_switches: u64,
    /// Threads.
    pub threads: u64,
    /// Open descriptors, if this user may count them.
    pub descriptors: Option<u64>,
    /// User part of `cpu_ns`, in ns: split as the ticks of the kernel say.
    pub user_ns: u64,
    /// System part of `cpu_ns`, in ns.
    pub system_ns: u64,
    /// When the memory map was looked at (`pss`, `pss_anon`, `uss`, `anonymous`), in ns of
    /// CLOCK_MONOTONIC: a [`Sampler`] does so less often than it takes samples.
    pub map_at_ns: u64,
}

/// Looks at a process again and again, and at its memory map only as often as that stays cheap.
#[derive(Debug)]
pub struct Sampler {
    pid: u32,
    last: Sample,
    next_map_ns: u64,
}

impl Sampler {
    /// For process `pid`.
    #[must_use]
    pub fn new(pid: u32) -> Self {
        Self { pid, last: Sample::default(), next_map_ns: 0 }
    }

    /// Looks now. Between two looks at the memory map its numbers stay those of the last.
    ///
    /// # Errors
    /// When the process does not exist any more, or may not be looked at.
    pub fn sample(&mut self) -> io::Result<&Sample> {
        let mut sample = Sample::without_map(self.pid)?;
        if sample.at_ns >= self.next_map_ns {
            let before = now_ns();
            sample.look_at_map(self.pid)?;
            let took = now_ns() - before;
            self.next_map_ns = now_ns() + took * MAP_LOOK_RATIO;
        } else {
            let last = &self.last;
            sample.pss = last.pss;
            sample.pss_anon = last.pss_anon;
            sample.uss = last.uss;
            sample.anonymous = last.anonymous;
            sample.map_at_ns = last.map_at_ns;
        }
        self.last = sample;
        Ok(&self.last)
    }
}

impl Sample {
    /// Looks at CPU time, resident memory and threads of process `pid` alone: the rest costs the
    /// process a walk over its page tables.
    ///
    /// # Errors
    /// When it does not exist.
    pub fn brief(pid: u32) -> io::Result<Self> {
        Self::without_map(pid)
    }

    /// Looks at process `pid`.
    ///
    /// # Errors
    /// When it does not exist, or its memory map may not be read.
    pub fn of(pid: u32) -> io::Result<Self> {
        let mut sample = Self::without_map(pid)?;
        sample.look_at_map(pid)?;
        Ok(sample)
    }

    fn without_map(pid: u32) -> io::Result<Self> {
        let mut sample = Self { at_ns: now_ns(), ..Self::default() };
        for task in fs::read_dir(format!("/proc/{pid}/task"))? {
            let path = task?.path();
            // A thread may end while we look.
            let Ok(stat) = fs::read_to_string(path.join("schedstat")) else { continue };
            sample.threads += 1;
            sample.cpu_ns += first_number(&stat);
            let status = fs::read_to_string(path.join("status")).unwrap_or_default();
            sample.voluntary_switches += field(&status, "voluntary_ctxt_switches");
            sample.involuntary_switches += field(&status, "nonvoluntary_ctxt_switches");
        }
        let (user, system) = times(&fs::read_to_string(format!("/proc/{pid}/stat"))?);
        (sample.user_ms, sample.system_ms) = (user, system);
        sample.user_ns = match user + system {
            0 => sample.cpu_ns,
            all => (u128::from(sample.cpu_ns) * u128::from(user) / u128::from(all)) as u64,
        };
        sample.system_ns = sample.cpu_ns - sample.user_ns;
        let pages = fs::read_to_string(format!("/proc/{pid}/statm"))?;
        let resident = pages.split_whitespace().nth(1).and_then(|n| n.parse::<u64>().ok());
        sample.rss = resident.unwrap_or(0) * page_size();
        let descriptors = fs::read_dir(format!("/proc/{pid}/fd")).ok();
        sample.descriptors = descriptors.map(|fds| fds.count() as u64);
        Ok(sample)
    }

    fn look_at_map(&mut self, pid: u32) -> io::Result<()> {
        let map = fs::read_to_string(format!("/proc/{pid}/smaps_rollup"))?;
        let kib = |key| field(&map, key) * 1024;
        self.map_at_ns = self.at_ns;
        self.rss = kib("Rss");
        self.pss = kib("Pss");
        self.pss_anon = kib("Pss_Anon");
        self.uss = kib("Private_Clean") + kib("Private_Dirty");
        self.anonymous = kib("Anonymous");
        Ok(())
    }
}

fn page_size() -> u64 {
    // SAFETY: a plain query.
    unsafe { libc::sysconf(libc::_SC_PAGESIZE) }.max(4096) as u64
}

fn first_number(text: &str) -> u64 {
    text.split_whitespace().next().and_then(|n| n.parse().ok()).unwrap_or(0)
}

/// The number after `key:`; 0 when there is none.
fn field(text: &str, key: &str) -> u64 {
    let value = text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(':'));
    value.map_or(0, first_number)
}

/// User and system time in ms, from /proc/PID/stat: fields 14 and 15, counted after the name, which
/// may hold spaces.
fn times(stat: &str) -> (u64, u64) {
    // SAFETY: a plain query.
    let hz = unsafe { libc::sysconf(libc::_SC_CLK_TCK) }.max(1) as u64;
    let rest = stat.rsplit_once(')').map_or("", |(_, rest)| rest);
    let ticks =
        |n: usize| rest.split_whitespace().nth(n).and_then(|t| t.parse::<u64>().ok()).unwrap_or(0);
    (ticks(11) * 1000 / hz, ticks(12) * 1000 / hz)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_times_of_a_process_with_blanks_in_its_name_are_read() {
        let stat = "7 (a b) c) S 1 7 7 0 -1 4194304 1 2 3 4 250 130 0 0 20 0 1 0 9";
        let (user, system) = times(stat);
        assert!(user > system && system > 0, "{user} {system}");
    }

    #[test]
    fn this_process_has_memory_cpu_time_and_descriptors() {
        let sample = Sample::of(std::process::id()).unwrap();
        assert!(sample.rss > 0 && sample.uss > 0 && sample.anonymous > 0);
        assert!(sample.cpu_ns > 0 && sample.threads > 0);
        assert!(sample.descriptors.unwrap() > 2);
    }

    #[test]
    fn user_and_system_time_add_up_to_the_cpu_time() {
        let sample = Sample::of(std::process::id()).unwrap();
        assert_eq!(sample.user_ns + sample.system_ns, sample.cpu_ns);
    }

    #[test]
    fn a_sampler_looks_at_the_map_less_often_than_at_the_rest() {
        let mut sampler = Sampler::new(std::process::id());
        let first = sampler.sample().unwrap().clone();
        // As if the look had taken a minute.
        sampler.next_map_ns = u64::MAX;
        let second = sampler.sample().unwrap().clone();
        assert!(second.at_ns > first.at_ns && second.map_at_ns == first.map_at_ns);
        assert_eq!(second.pss, first.pss);
        sampler.next_map_ns = 0;
        assert!(sampler.sample().unwrap().map_at_ns > first.map_at_ns);
    }

    #[test]
    fn a_process_that_is_not_there_is_an_error() {
        assert!(Sample::of(u32::MAX).is_err());
    }
}
