//! Samples that the broker takes of itself. It knows addresses; their names are found here, in its program file.

use std::time::Duration;

use ringmain_control::api::Profile;
use ringmain_control::client::Client;
use ringmain_control::profile::SECONDS_MAX;

use super::folded::Folded;
use crate::symbols::Symbols;

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
        add(&mut folded, &profile, notes);
        left -= now;
    }
    Ok(folded)
}

fn add(to: &mut Folded, profile: &Profile, notes: &mut Vec<String>) {
    let mut symbols = Symbols::new(profile.pid, profile.modules.clone());
    for stack in &profile.stacks {
        let mut frames = symbols.stack(&stack.addresses);
        frames.push(stack.thread.clone());
        frames.reverse();
        to.add(frames, stack.count);
    }
    notes.append(&mut symbols.notes);
}

#[cfg(test)]
mod tests {
    use super::*;
    use ringmain_control::api::{Module, Stack};

    fn named(profile: &Profile) -> (String, Vec<String>) {
        let (mut folded, mut notes) = (Folded::default(), Vec::new());
        add(&mut folded, profile, &mut notes);
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
