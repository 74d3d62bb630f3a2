//! A sampler of the process that it is part of: where its threads spend their CPU time.
//!
//! Each thread gets a timer on its own CPU clock, whose signal reaches that thread. The signal's handler follows frame
//! pointers and notes return addresses; names are found later, by whoever asked. A thread that sleeps is not disturbed:
//! its clock stands still. System calls that are interrupted all the same begin anew (`SA_RESTART`), or their callers do
//! so: the rings of the shards take `EINTR` for "nothing yet".

mod arena;
mod handler;
mod timers;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use ringmain_shards::frames;

use crate::api::{Module, Profile, Stack};
use arena::Arena;
use timers::Timer;

/// Longest profile, seconds: a request must not take much longer. Who wants more asks again.
pub const SECONDS_MAX: u32 = 60;
/// Most samples a second. The kernel looks at these clocks at its ticks: what is above their rate counts several times.
pub const HZ_MAX: u32 = 10_000;

/// Room for samples, bytes. It is taken from the system as it fills: a shard at full load needs about 150 KiB a second
/// at 499 samples.
const ROOM_BYTES_MAX: usize = 64 << 20;

/// Only one at a time: the signal and its handler are those of the process.
static BUSY: Mutex<()> = Mutex::new(());

/// Why there is no profile, for the operator.
#[derive(Debug, thiserror::Error)]
pub enum ProfileError {
    /// What was asked for is out of bounds.
    #[error("seconds is 1 to {SECONDS_MAX} and hz is 1 to {HZ_MAX}")]
    Bounds,
    /// One is being taken.
    #[error("another profile is being taken: only one can be at a time")]
    Busy,
    /// The system does not let it.
    #[error("the broker cannot sample itself: {0}")]
    System(String),
}

/// Samples all threads of this process for so long. Blocks until then.
///
/// # Errors
/// See [`ProfileError`].
pub fn take(seconds: u32, hz: u32) -> Result<Profile, ProfileError> {
    if !(1..=SECONDS_MAX).contains(&seconds) || !(1..=HZ_MAX).contains(&hz) {
        return Err(ProfileError::Bounds);
    }
    let Ok(_one) = BUSY.try_lock() else { return Err(ProfileError::Busy) };
    frames::try_reading().map_err(system("process_vm_readv, which follows frames safely, says"))?;
    handler::install().map_err(system("its signal has no handler"))?;
    let threads = threads().map_err(system("its threads are not listed"))?;
    let arena = Box::new(Arena::new(ROOM_BYTES_MAX / size_of::<u64>()));
    let recording = handler::Recording::start(arena);
    let began = Instant::now();
    let mut failed = Vec::new();
    let timers: Vec<Timer> = threads
        .iter()
        .filter_map(|(tid, name)| match Timer::start(*tid, hz) {
            Ok(timer) => Some(timer),
            Err(why) => {
                failed.push(format!("{name} ({tid}): {why}"));
                None
            }
        })
        .collect();
    if timers.is_empty() {
        return Err(ProfileError::System(format!("no thread has a timer: {}", failed.join(", "))));
    }
    std::thread::sleep(Duration::from_secs(u64::from(seconds)));
    drop(timers);
    let ms = began.elapsed().as_millis() as u64;
    let arena = recording.stop();
    let (stacks, samples) = stacks(&arena, &threads);
    Ok(Profile {
        pid: std::process::id(),
        ms,
        hz,
        samples,
        lost: arena.lost(),
        failed,
        modules: own_modules(),
        stacks,
    })
}

fn system(what: &str) -> impl Fn(std::io::Error) -> ProfileError {
    move |error| ProfileError::System(format!("{what}: {error}"))
}

/// All threads with their names, by id.
fn threads() -> std::io::Result<BTreeMap<i32, String>> {
    let mut threads = BTreeMap::new();
    for entry in std::fs::read_dir("/proc/self/task")?.flatten() {
        let Some(tid) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else {
            continue;
        };
        // One that ends meanwhile has nothing to tell.
        if let Ok(name) = std::fs::read_to_string(Path::new(&entry.path()).join("comm")) {
            threads.insert(tid, name.trim_end().to_owned());
        }
    }
    Ok(threads)
}

/// Equal stacks together, and how many samples there are.
fn stacks(arena: &Arena, threads: &BTreeMap<i32, String>) -> (Vec<Stack>, u64) {
    let mut counts: BTreeMap<(i32, &[u64]), u64> = BTreeMap::new();
    let mut samples = 0;
    for sample in arena.samples() {
        *counts.entry((sample.tid, sample.addresses)).or_default() += u64::from(sample.count);
        samples += u64::from(sample.count);
    }
    let stack = |((tid, addresses), count): ((i32, &[u64]), u64)| Stack {
        thread: threads.get(&tid).cloned().unwrap_or_else(|| tid.to_string()),
        count,
        addresses: addresses.to_vec(),
    };
    (counts.into_iter().map(stack).collect(), samples)
}

/// The mappings of this process with code in them.
#[must_use]
pub fn own_modules() -> Vec<Module> {
    modules(&std::fs::read_to_string("/proc/self/maps").unwrap_or_default())
}

/// The mappings with code in them, from `/proc/self/maps`.
fn modules(maps: &str) -> Vec<Module> {
    let mut bases: BTreeMap<&str, u64> = BTreeMap::new();
    let mut modules = Vec::new();
    for line in maps.lines() {
        let mut words = line.split_ascii_whitespace();
        let (Some(range), Some(rights), Some(offset)) = (words.next(), words.next(), words.next())
        else {
            continue;
        };
        // Device and inode; then the path, which may have blanks in it.
        let path = line.splitn(6, ' ').nth(5).unwrap_or_default().trim();
        let hex = |text: &str| u64::from_str_radix(text, 16).ok();
        let Some((Some(start), Some(end))) = range.split_once('-').map(|(a, b)| (hex(a), hex(b)))
        else {
            continue;
        };
        if path.is_empty() {
            continue;
        }
        if hex(offset) == Some(0) {
            bases.entry(path).or_insert(start);
        }
        if rights.contains('x') {
            let base = bases.get(path).copied().unwrap_or(start);
            modules.push(Module { start, end, base, path: path.to_owned() });
        }
    }
    modules
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicBool, Ordering};

    /// Has a name that is looked for.
    #[inline(never)]
    fn spins(until: &AtomicBool) -> u64 {
        let mut n = 0_u64;
        while !until.load(Ordering::Relaxed) {
            n = std::hint::black_box(n.wrapping_mul(31).wrapping_add(1));
        }
        n
    }

    #[test]
    fn a_thread_that_works_is_found_working_one_that_sleeps_is_not_and_only_one_may_look() {
        static END: AtomicBool = AtomicBool::new(false);
        // A thread has its name when it runs, not before.
        static RUN: std::sync::Barrier = std::sync::Barrier::new(3);
        let named = |name: &str| std::thread::Builder::new().name(name.to_owned());
        let busy = named("busy-one").spawn(|| {
            RUN.wait();
            spins(&END)
        });
        let idle = named("idle-one").spawn(|| {
            RUN.wait();
            while !END.load(Ordering::Relaxed) {
                std::thread::park_timeout(Duration::from_millis(20));
            }
        });
        RUN.wait();
        let other = std::thread::spawn(|| {
            std::thread::sleep(Duration::from_millis(300));
            take(1, 99)
        });
        let profile = take(2, 250).unwrap();
        assert!(matches!(other.join().unwrap(), Err(ProfileError::Busy)));
        END.store(true, Ordering::Relaxed);
        busy.unwrap().join().unwrap();
        idle.unwrap().join().unwrap();

        let of = |name: &str| {
            profile.stacks.iter().filter(|s| s.thread == name).map(|s| s.count).sum::<u64>()
        };
        assert!(of("busy-one") >= 10 && of("busy-one") > 10 * of("idle-one"), "{profile:?}");
        let start = spins as *const () as u64;
        let within =
            |s: &&Stack| s.addresses.first().is_some_and(|a| (start..start + 4096).contains(a));
        let spinning: u64 = profile
            .stacks
            .iter()
            .filter(|s| s.thread == "busy-one")
            .filter(within)
            .map(|s| s.count)
            .sum();
        assert!(spinning * 10 > of("busy-one") * 9, "{spinning} of {}", of("busy-one"));
        let module = profile.modules.iter().find(|m| (m.start..m.end).contains(&start));
        assert!(module.is_some_and(|m| m.base <= m.start), "{:?}", profile.modules);
        assert_eq!((profile.lost, profile.failed.len()), (0, 0), "{:?}", profile.failed);
    }

    #[test]
    fn what_is_out_of_bounds_is_refused() {
        for (seconds, hz) in [(0, 99), (61, 99), (1, 0), (1, 10_001)] {
            assert!(matches!(take(seconds, hz), Err(ProfileError::Bounds)));
        }
    }

    #[test]
    fn modules_know_where_their_file_begins() {
        let maps = "\
55d0a000-55d0b000 r--p 00000000 08:01 7                  /opt/my broker
55d0b000-55d0f000 r-xp 00001000 08:01 7                  /opt/my broker
7f000000-7f001000 rw-p 00000000 00:00 0 
7f002000-7f003000 r-xp 00000000 00:00 0                  [vdso]
";
        let module =
            |start, end, base, path: &str| Module { start, end, base, path: path.to_owned() };
        let expected = [
            module(0x55d0_b000, 0x55d0_f000, 0x55d0_a000, "/opt/my broker"),
            module(0x7f00_2000, 0x7f00_3000, 0x7f00_2000, "[vdso]"),
        ];
        assert_eq!(modules(maps), expected);
    }
}
