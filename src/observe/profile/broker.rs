//! Samples that the broker takes of itself. It knows addresses; their names are found here, in its program file.

use std::collections::HashMap;
use std::path::PathBuf;
use std::time::Duration;

use addr2line::Loader;
use ringmain_control::api::{Module, Profile};
use ringmain_control::client::Client;
use ringmain_control::profile::SECONDS_MAX;

use super::folded::{Folded, function};

/// Where the threads of the broker are while they are on a CPU.
///
/// # Errors
/// Why the broker can not tell.
pub(super) fn on_cpu(
    client: &Client,
    seconds: u64,
    hz: u64,
    notes: &mut Vec<String>,
) -> Result<Folded, String> {
    let mut folded = Folded::default();
    let mut left = seconds;
    while left > 0 {
        let now = left.min(u64::from(SECONDS_MAX));
        let profile: Profile = client
            .waiting(Duration::from_secs(now))
            .get(&format!("/v1/profile?seconds={now}&hz={hz}"))
            .map_err(|e| e.to_string())?;
        if profile.lost > 0 {
            notes.push(format!("{} samples found no room and are missing", profile.lost));
        }
        for thread in &profile.failed {
            notes.push(format!("a thread was not sampled: {thread}"));
        }
        add(&mut folded, &profile, &mut Names::of(&profile), notes);
        left -= now;
    }
    Ok(folded)
}

fn add(to: &mut Folded, profile: &Profile, names: &mut Names<'_>, notes: &mut Vec<String>) {
    for stack in &profile.stacks {
        let mut frames = Vec::new();
        for (ix, address) in stack.addresses.iter().enumerate() {
            // Below the innermost are addresses that calls return to: the call is before.
            let at = if ix == 0 { *address } else { address.saturating_sub(1) };
            frames.extend_from_slice(names.at(at));
        }
        frames.push(stack.thread.clone());
        frames.reverse();
        to.add(frames, stack.count);
    }
    notes.append(&mut names.notes);
}

/// Names of functions by address.
struct Names<'a> {
    pid: u32,
    modules: &'a [Module],
    loaders: HashMap<&'a str, Option<Loader>>,
    known: HashMap<u64, Vec<String>>,
    notes: Vec<String>,
}

impl<'a> Names<'a> {
    fn of(profile: &'a Profile) -> Self {
        Self {
            pid: profile.pid,
            modules: &profile.modules,
            loaders: HashMap::new(),
            known: HashMap::new(),
            notes: Vec::new(),
        }
    }

    /// The functions at an address, innermost first: several where calls were inlined.
    fn at(&mut self, address: u64) -> &[String] {
        if !self.known.contains_key(&address) {
            let found = self.look_up(address);
            self.known.insert(address, found);
        }
        &self.known[&address]
    }

    fn look_up(&mut self, address: u64) -> Vec<String> {
        let within = |m: &&Module| (m.start..m.end).contains(&address);
        let Some(module) = self.modules.iter().find(within) else {
            return vec!["[unknown]".to_owned()];
        };
        let (pid, notes) = (self.pid, &mut self.notes);
        let loader = self.loaders.entry(&module.path).or_insert_with(|| {
            let loaded = load(pid, &module.path);
            loaded.map_err(|why| notes.push(format!("{}: no names: {why}", module.path))).ok()
        });
        let names = loader.as_ref().map(|l| names(l, address - module.base)).unwrap_or_default();
        if names.is_empty() { vec![unnamed(&module.path)] } else { names }
    }
}

/// For an address without a name: the file that it is in.
fn unnamed(path: &str) -> String {
    format!("[{}]", path.rsplit('/').next().unwrap_or(path).trim_matches(['[', ']']))
}

/// Opens a file of the broker's as the broker sees it. Its program is found even if it was replaced or deleted since.
fn load(pid: u32, path: &str) -> Result<Loader, String> {
    if path.starts_with('[') {
        return Err("it is no file".to_owned());
    }
    let own = PathBuf::from(format!("/proc/{pid}/exe"));
    let is_own = std::fs::read_link(&own).is_ok_and(|target| target.as_os_str() == path);
    let of_broker = if is_own { own } else { PathBuf::from(format!("/proc/{pid}/root{path}")) };
    Loader::new(&of_broker).or_else(|_| Loader::new(path)).map_err(|e| e.to_string())
}

/// The functions at an address of a file, innermost first. Debug information made of lines alone names functions without
/// their modules. The symbol table knows those of the outermost; of what was inlined into it the file is told.
fn names(loader: &Loader, address: u64) -> Vec<String> {
    let mut names = Vec::new();
    if let Ok(mut frames) = loader.find_frames(address) {
        while let Ok(Some(frame)) = frames.next() {
            let Some(name) = frame.function.as_ref().and_then(|f| f.raw_name().ok()) else {
                continue;
            };
            let file = frame.location.and_then(|l| l.file).and_then(|f| f.rsplit('/').next());
            names.push(match (function(&name), file) {
                (name, Some(file)) if !name.contains("::") => format!("{name} ({file})"),
                (name, _) => name,
            });
        }
    }
    if let Some(symbol) = loader.find_symbol(address) {
        names.pop();
        names.push(function(symbol));
    }
    names
}

#[cfg(test)]
mod tests {
    use super::*;
    use ringmain_control::api::Stack;

    fn named(profile: &Profile) -> (String, Vec<String>) {
        let (mut folded, mut notes) = (Folded::default(), Vec::new());
        add(&mut folded, profile, &mut Names::of(profile), &mut notes);
        (folded.to_text(), notes)
    }

    /// Is looked up by its address.
    #[inline(never)]
    fn a_function_of_this_test(n: u64) -> u64 {
        std::hint::black_box(n).wrapping_mul(3)
    }

    #[test]
    fn addresses_of_a_running_program_get_the_names_of_its_functions() {
        let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
        let path = std::env::current_exe().unwrap().to_str().unwrap().to_owned();
        let of_program = |line: &&str| line.ends_with(&path);
        let number = |line: &str, end: bool| {
            let (from, to) = line.split_once(' ').unwrap().0.split_once('-').unwrap();
            u64::from_str_radix(if end { to } else { from }, 16).unwrap()
        };
        let lines: Vec<&str> = maps.lines().filter(of_program).collect();
        let code = lines.iter().find(|l| l.contains("r-xp")).unwrap();
        let module = Module {
            start: number(code, false),
            end: number(code, true),
            base: number(lines[0], false),
            path,
        };
        assert_eq!(a_function_of_this_test(1), 3);
        let address = a_function_of_this_test as *const () as u64 + 1;
        let profile = Profile {
            pid: std::process::id(),
            modules: vec![module],
            stacks: vec![Stack {
                thread: "shard 0".to_owned(),
                count: 5,
                addresses: vec![address, 64],
            }],
            ..Profile::default()
        };
        let (text, notes) = named(&profile);
        assert!(text.starts_with("shard 0;[unknown];"), "{text}");
        assert!(
            text.contains("a_function_of_this_test") && text.trim_end().ends_with(" 5"),
            "{text}"
        );
        assert_eq!(notes, Vec::<String>::new());
    }

    #[test]
    fn an_address_without_a_name_is_told_by_its_file_and_why_is_said_once() {
        let module = Module {
            start: 0x1000,
            end: 0x9000,
            base: 0x1000,
            path: "/no/such/libx.so".to_owned(),
        };
        let profile = Profile {
            pid: std::process::id(),
            modules: vec![module],
            stacks: vec![Stack {
                thread: "t".to_owned(),
                count: 1,
                addresses: vec![0x2000, 0x3000],
            }],
            ..Profile::default()
        };
        let (text, notes) = named(&profile);
        assert_eq!(text, "t;[libx.so];[libx.so] 1\n");
        assert_eq!(notes.len(), 1, "{notes:?}");
    }
}
