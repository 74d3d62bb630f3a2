//! `ringmain-sim`: runs seeds, replays failures, plants bugs.

use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Instant;

use ringmain_sim::plant::Plant;
use ringmain_sim::scenario::NAMES;
use ringmain_sim::sim::{Options, Outcome, run};

const HELP: &str = "\
Deterministic simulator of Ringmain's data plane.

Usage: ringmain-sim [OPTIONS]

Options:
      --seeds <A..B>       Seeds to run, B not included [default: 1..1001]
      --seed <N>           One seed
      --steps <N>          Steps of chaos in each round [default: 3000]
      --scenario <THEME>   One theme instead of each seed's own; `list` lists them
      --shards <N>         Shards instead of each seed's own
      --jobs <N>           Seeds at the same time [default: one per core]
      --verbose            Trace the run (with --seed), or a line per seed
      --trace-lines <N>    Lines of trace to print for a failure [default: 60]
      --keep-going         Do not stop at the first failure
      --allow <RULE>       Only count violations of this rule (repeatable)
      --plant <NAME|all>   Plant a known bug and look for it; `list` lists them
  -h, --help               Print help
";

struct Args {
    seeds: std::ops::Range<u64>,
    steps: u64,
    theme: Option<String>,
    shards: Option<usize>,
    jobs: usize,
    verbose: bool,
    trace_lines: usize,
    keep_going: bool,
    allow: Vec<String>,
    plant: Option<String>,
}

fn main() -> ExitCode {
    let args = match parse(std::env::args().skip(1)) {
        Ok(Some(args)) => args,
        Ok(None) => {
            print!("{HELP}");
            return ExitCode::SUCCESS;
        }
        Err(error) => {
            eprintln!("error: {error}\n\nFor more information, try '--help'.");
            return ExitCode::from(2);
        }
    };
    if args.theme.as_deref() == Some("list") {
        println!("{}", NAMES.join("\n"));
        return ExitCode::SUCCESS;
    }
    match args.plant.as_deref() {
        Some("list") => {
            for plant in Plant::ALL {
                println!("{} (within {} seeds)", plant.name(), plant.within_seeds());
            }
            ExitCode::SUCCESS
        }
        Some("all") => plant_bugs(&args, Plant::ALL),
        Some(name) => match Plant::by_name(name) {
            Some(plant) => plant_bugs(&args, &[plant]),
            None => {
                eprintln!("error: no planted bug is called '{name}'; see --plant list");
                ExitCode::from(2)
            }
        },
        None => run_seeds(&args),
    }
}

fn parse(mut argv: impl Iterator<Item = String>) -> Result<Option<Args>, String> {
    let jobs = std::thread::available_parallelism().map_or(1, usize::from);
    let mut args = Args {
        seeds: 1..1001,
        steps: 3000,
        theme: None,
        shards: None,
        jobs,
        verbose: false,
        trace_lines: 60,
        keep_going: false,
        allow: Vec::new(),
        plant: None,
    };
    while let Some(arg) = argv.next() {
        let (key, inline) = match arg.split_once('=') {
            Some((key, value)) => (key.to_owned(), Some(value.to_owned())),
            None => (arg, None),
        };
        let mut value =
            || inline.clone().or_else(|| argv.next()).ok_or_else(|| format!("{key} needs a value"));
        match key.as_str() {
            "-h" | "--help" => return Ok(None),
            "--seeds" => args.seeds = seeds(&value()?)?,
            "--seed" => {
                let seed = number(&value()?)?;
                args.seeds = seed..seed + 1;
            }
            "--steps" => args.steps = number(&value()?)?,
            "--scenario" => args.theme = Some(theme(value()?)?),
            "--shards" => args.shards = Some(shards(number(&value()?)?)?),
            "--jobs" => args.jobs = number(&value()?)?.max(1) as usize,
            "--verbose" => args.verbose = true,
            "--trace-lines" => args.trace_lines = number(&value()?)? as usize,
            "--keep-going" => args.keep_going = true,
            "--allow" => args.allow.push(value()?),
            "--plant" => args.plant = Some(value()?),
            other => return Err(format!("unexpected argument '{other}' found")),
        }
    }
    Ok(Some(args))
}

fn number(text: &str) -> Result<u64, String> {
    text.parse().map_err(|_| format!("'{text}' is not a number"))
}

fn seeds(text: &str) -> Result<std::ops::Range<u64>, String> {
    let (a, b) = text.split_once("..").ok_or("--seeds wants A..B")?;
    let (a, b) = (number(a)?, number(b)?);
    if a < b { Ok(a..b) } else { Err(format!("no seed is in {text}")) }
}

fn theme(name: String) -> Result<String, String> {
    if name == "list" || NAMES.contains(&name.as_str()) {
        return Ok(name);
    }
    Err(format!("no scenario is called '{name}'; there are {}", NAMES.join(", ")))
}

fn shards(n: u64) -> Result<usize, String> {
    if (1..=64).contains(&n) { Ok(n as usize) } else { Err("--shards wants 1 to 64".to_owned()) }
}

fn options(args: &Args, seed: u64, plant: Option<Plant>, trace: bool) -> Options {
    Options {
        seed,
        steps: args.steps,
        theme: args.theme.clone(),
        shards: args.shards,
        plant,
        allow: args.allow.clone(),
        trace,
    }
}

/// The command that replays a seed.
fn replay(args: &Args, seed: u64, plant: Option<Plant>) -> String {
    let mut command =
        format!("cargo run -p ringmain-sim --release -- --seed {seed} --steps {}", args.steps);
    if let Some(theme) = &args.theme {
        command += &format!(" --scenario {theme}");
    }
    if let Some(shards) = args.shards {
        command += &format!(" --shards {shards}");
    }
    for rule in &args.allow {
        command += &format!(" --allow '{rule}'");
    }
    if let Some(plant) = plant {
        command += &format!(" --plant {}", plant.name());
    }
    command + " --verbose"
}

fn report(args: &Args, seed: u64, plant: Option<Plant>, outcome: &Outcome) {
    let Some(violation) = &outcome.violation else { return };
    println!("\nseed {seed} ({}, {} shards): {}", outcome.theme, outcome.shards, violation.rule);
    println!("  {}", violation.text);
    println!("  replay: {}", replay(args, seed, plant));
}

fn print_trace(args: &Args, seed: u64, plant: Option<Plant>) {
    let again = run(&options(args, seed, plant, true));
    let from = again.trace.len().saturating_sub(args.trace_lines);
    println!("  trace, last {} lines:", again.trace.len() - from);
    for line in &again.trace[from..] {
        println!("    {line}");
    }
}

fn run_seeds(args: &Args) -> ExitCode {
    let start = Instant::now();
    let next = AtomicU64::new(args.seeds.start);
    let stop = AtomicBool::new(false);
    let totals: [AtomicU64; 5] = [const { AtomicU64::new(0) }; 5];
    let failures = std::sync::Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..args.jobs {
            scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= args.seeds.end {
                        break;
                    }
                    let outcome = run(&options(args, seed, None, false));
                    let figures =
                        [1, outcome.steps, outcome.copies, outcome.overflows, outcome.allowed];
                    for (total, n) in totals.iter().zip(figures) {
                        total.fetch_add(n, Ordering::Relaxed);
                    }
                    progress(args, seed, &outcome, totals[0].load(Ordering::Relaxed), start);
                    if outcome.violation.is_some() {
                        report(args, seed, None, &outcome);
                        if let Ok(mut failures) = failures.lock() {
                            failures.push(seed);
                        }
                        stop.fetch_or(!args.keep_going, Ordering::Relaxed);
                    }
                }
            });
        }
    });
    let mut failures = failures.into_inner().unwrap_or_default();
    failures.sort_unstable();
    if let Some(seed) = failures.first() {
        print_trace(args, *seed, None);
    }
    let [runs, steps, copies, overflows, allowed] = totals.map(AtomicU64::into_inner);
    println!(
        "{runs} seeds, {} failed, {steps} steps, {copies} copies delivered, {overflows} full \
         mailboxes, {allowed} violations allowed, {:.1} s",
        failures.len(),
        start.elapsed().as_secs_f64()
    );
    if failures.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn progress(args: &Args, seed: u64, outcome: &Outcome, done: u64, start: Instant) {
    if args.verbose {
        println!(
            "seed {seed} ({}, {} shards): {} steps, {} copies",
            outcome.theme, outcome.shards, outcome.steps, outcome.copies
        );
    } else if done.is_multiple_of(1000) {
        println!("{done} seeds in {:.1} s", start.elapsed().as_secs_f64());
    }
}

/// Plants each bug in turn; fails when the simulator does not find one.
fn plant_bugs(args: &Args, plants: &[Plant]) -> ExitCode {
    let mut missed = 0;
    for plant in plants {
        let end = args.seeds.start + plant.within_seeds();
        let single = args.seeds.end == args.seeds.start + 1;
        let seeds = if single { args.seeds.clone() } else { args.seeds.start..end };
        let found = seeds.clone().find_map(|seed| {
            let outcome = run(&options(args, seed, Some(*plant), false));
            let violation = outcome.violation?;
            let its_own = plant.breaks().iter().any(|rule| violation.rule.contains(rule));
            if !its_own {
                return None;
            }
            // What fails without the bug too does not count.
            let clean = single || run(&options(args, seed, None, false)).violation.is_none();
            clean.then_some((seed, violation))
        });
        match found {
            Some((seed, violation)) => {
                let tried = seed - args.seeds.start + 1;
                println!("{:24} found by seed {tried}: {}", plant.name(), violation.rule);
                if args.verbose {
                    println!(
                        "  {}\n  replay: {}",
                        violation.text,
                        replay(args, seed, Some(*plant))
                    );
                    print_trace(args, seed, Some(*plant));
                }
            }
            None => {
                println!("{:24} NOT found in {} seeds", plant.name(), seeds.end - seeds.start);
                missed += 1;
            }
        }
    }
    println!("{} planted, {missed} missed", plants.len());
    if missed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
