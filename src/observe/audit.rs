//! `ringmain audit`: whether each copy of a message is accounted for.

use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::Args;
use ringmain_control::api::{Account, Audit as Ledger};
use ringmain_control::client::{Client, ClientError};
use serde::Serialize;

use super::{format, say, say_json};

/// Exit code when it cannot be told: traffic moved, a shard or the broker did not answer.
const EXIT_UNKNOWN: u8 = 3;
/// Longest `--wait`, seconds.
const WAIT_MAX_S: u64 = 86_400;
/// Between two looks while it waits for rest.
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// Options of `ringmain audit`.
#[derive(Debug, Args)]
pub(crate) struct Audit {
    /// Wait at most so long until no message moves
    #[arg(long, value_name = "SECONDS", default_value_t = 0,
          value_parser = clap::value_parser!(u64).range(0..=WAIT_MAX_S))]
    wait: u64,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// What the ledger says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
enum Verdict {
    /// Each copy is accounted for.
    Balanced,
    /// At rest, and yet it does not balance: a fault of the broker.
    Wrong,
    /// It does not balance, and messages moved or a shard was silent: look again at rest.
    Unknown,
}

impl Verdict {
    fn of(ledger: &Ledger) -> Self {
        match ledger {
            Ledger { balanced: true, .. } => Self::Balanced,
            Ledger { quiet: true, .. } => Self::Wrong,
            _ => Self::Unknown,
        }
    }

    fn code(self) -> ExitCode {
        match self {
            Self::Balanced => ExitCode::SUCCESS,
            Self::Wrong => ExitCode::FAILURE,
            Self::Unknown => ExitCode::from(EXIT_UNKNOWN),
        }
    }
}

/// The JSON: the broker's answer, and the verdict that the exit code tells.
#[derive(Debug, Serialize)]
struct Audited<'a> {
    verdict: Verdict,
    #[serde(flatten)]
    ledger: &'a Ledger,
}

/// Runs it. Ends with 0 if the ledger balances, 1 if it does not at rest, 3 if that cannot be told.
pub(crate) fn run(client: &Client, options: &Audit) -> ExitCode {
    let ledger = match at_rest(client, Duration::from_secs(options.wait)) {
        Ok(ledger) => ledger,
        Err(why) => {
            eprintln!("audit: {why}");
            return ExitCode::from(EXIT_UNKNOWN);
        }
    };
    let verdict = Verdict::of(&ledger);
    if options.json {
        say_json(&Audited { verdict, ledger: &ledger });
    } else {
        say(&text(&ledger, verdict, options.wait));
    }
    verdict.code()
}

/// The ledger at the first rest within that time, else the last one.
fn at_rest(client: &Client, wait: Duration) -> Result<Ledger, ClientError> {
    let until = Instant::now() + wait;
    loop {
        let ledger: Ledger = client.get("/v1/audit")?;
        if ledger.quiet || Instant::now() >= until {
            return Ok(ledger);
        }
        std::thread::sleep(LOOK_EVERY);
    }
}

fn text(ledger: &Ledger, verdict: Verdict, waited_s: u64) -> String {
    let head = [
        "",
        "published",
        "matched",
        "completed",
        "dropped",
        "returned",
        "queued",
        "in flight",
        "difference",
        "in groups",
    ];
    let mut rows = vec![head.map(str::to_owned).to_vec()];
    rows.extend(ledger.shards.iter().chain([&ledger.total]).map(row));
    let mut out = format::table(&rows);
    if !ledger.total.dropped.is_empty() {
        let reason = |(reason, n): (&String, &u64)| format!("{reason} {}", format::grouped(*n));
        let reasons: Vec<String> = ledger.total.dropped.iter().map(reason).collect();
        out += &format!("\ndropped: {}\n", reasons.join(", "));
    }
    ledger.wrong.iter().for_each(|what| out += &format!("\nWRONG: {what}"));
    out += if ledger.wrong.is_empty() { "\n" } else { "\n\n" };
    out + &conclusion(ledger, verdict, waited_s)
}

fn row(a: &Account) -> Vec<String> {
    let whose = a.shard.map_or("total".to_owned(), |n| format!("shard {n}"));
    let numbers = [
        a.published,
        a.matched,
        a.completed,
        a.dropped.values().sum(),
        a.returned,
        a.queued,
        a.inflight,
    ];
    let mut row = vec![whose];
    row.extend(numbers.map(format::grouped));
    row.push(a.difference.to_string());
    row.push(format::grouped(a.group_queued));
    row
}

fn conclusion(ledger: &Ledger, verdict: Verdict, waited_s: u64) -> String {
    let matched = format::grouped(ledger.total.matched);
    let balances = format!(
        "the ledger balances: each of {matched} copies is completed, dropped for a reason, returned, queued or in \
         flight"
    );
    match verdict {
        Verdict::Balanced if ledger.quiet => format!("{balances}; nothing moved meanwhile\n"),
        Verdict::Balanced => {
            format!("{balances}; messages moved meanwhile, so that each shard's account is of another moment\n")
        }
        Verdict::Wrong => "the ledger does NOT balance, and nothing moved meanwhile: this is a fault of the broker; \
                           please report it with the output of `ringmain audit --json`\n"
            .to_owned(),
        Verdict::Unknown => {
            let waited = match waited_s {
                0 => "`--wait SECONDS` waits for rest".to_owned(),
                s => format!("there was no rest within {s} s"),
            };
            format!("it cannot be told: messages moved meanwhile, or a shard did not answer; {waited}\n")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ledger(quiet: bool, difference: i64) -> Ledger {
        let account = Account {
            shard: Some(0),
            published: 9,
            matched: 1234,
            completed: 1200,
            dropped: [("queue_full".to_owned(), 30)].into(),
            queued: 4,
            difference,
            ..Account::default()
        };
        Ledger {
            quiet,
            balanced: difference == 0,
            total: Account { shard: None, ..account.clone() },
            shards: vec![account],
            wrong: (difference != 0).then(|| "shard 0: something".to_owned()).into_iter().collect(),
        }
    }

    #[test]
    fn only_an_imbalance_at_rest_is_a_fault() {
        let verdicts = [(true, 0), (false, 0), (true, 1), (false, 1)];
        let found = verdicts.map(|(quiet, difference)| Verdict::of(&ledger(quiet, difference)));
        use Verdict::{Balanced, Unknown, Wrong};
        assert_eq!(found, [Balanced, Balanced, Wrong, Unknown]);
    }

    #[test]
    fn the_text_has_all_accounts_the_reasons_and_a_conclusion() {
        let good = text(&ledger(true, 0), Verdict::Balanced, 0);
        assert!(good.contains("shard 0") && good.contains("total"), "{good}");
        assert!(good.contains("dropped: queue_full 30"), "{good}");
        assert!(good.contains("each of 1,234 copies is completed"), "{good}");
        let bad = text(&ledger(true, 1), Verdict::Wrong, 0);
        assert!(bad.contains("WRONG: shard 0: something") && bad.contains("NOT balance"), "{bad}");
        let moving = text(&ledger(false, 1), Verdict::Unknown, 0);
        assert!(moving.contains("--wait SECONDS"), "{moving}");
        assert!(text(&ledger(false, 1), Verdict::Unknown, 7).contains("no rest within 7 s"));
    }
}
