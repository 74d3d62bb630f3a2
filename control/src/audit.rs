//! The conservation ledger: where the copies of messages are.
//!
//! `matched = completed + dropped + returned + queued + inflight` holds **on each shard by itself**: a copy is
//! matched on the home shard of its session, and sessions do not move, so it ends there too. Three things look as if
//! they broke that, and do not:
//!
//! - a copy that a member gives back to its group is `returned` on the member's shard; whoever gets it next matches it
//!   anew on his own;
//! - what waits at the home of a group is not matched yet (`group_queued`). If the group drops it, it is matched and
//!   dropped there in one step;
//! - a message on its way between shards is matched where it arrives, not where it came from.
//!
//! A shard answers between two inputs, so an account is of one moment. Accounts of two shards are of different moments.

use ringmain_shards::engine::counters::{Counters, Gauges};
use ringmain_shards::observe::{NodeView, Report, ShardView};

use crate::api::{Account, Audit, Numbers};

/// Counters of drops begin so; what follows is the reason.
const REASON: &str = "delivery_dropped_";

/// The ledger of the second of two looks at the same node. The first says whether anything moved in between.
#[must_use]
pub fn of(first: &NodeView, second: &NodeView) -> Audit {
    let mut wrong = Vec::new();
    let mut shards = Vec::new();
    for shard in &second.shards {
        let Some(report) = &shard.report else {
            wrong.push(silent(shard));
            continue;
        };
        let account = account(report);
        wrong.extend(errors(&format!("shard {}", report.shard.0), &account, &report.counters));
        shards.push(account);
    }
    let total = total(&shards);
    Audit { quiet: is_quiet(first, second), balanced: wrong.is_empty(), shards, total, wrong }
}

fn silent(shard: &ShardView) -> String {
    let index = shard.shard.0;
    match shard.stalled_ms {
        Some(ms) => format!("shard {index} did not answer: its present turn lasts {ms} ms already"),
        None => format!("shard {index} did not answer in time: its account is missing"),
    }
}

fn account(report: &Report) -> Account {
    let Counters { messages_publish, delivery_matched, delivery_completed, .. } = report.counters;
    let Gauges { queued, inflight, group_queued, .. } = report.gauges;
    let mut account = Account {
        shard: Some(report.shard.0),
        published: messages_publish,
        matched: delivery_matched,
        completed: delivery_completed,
        dropped: reasons(&report.counters),
        returned: report.counters.delivery_returned,
        queued,
        inflight,
        group_queued,
        difference: 0,
    };
    account.difference = difference(&account);
    account
}

/// Copies dropped, by reason; reasons that never were are left out.
fn reasons(counters: &Counters) -> Numbers {
    let reason = |(name, n): (&'static str, u64)| Some((name.strip_prefix(REASON)?.to_owned(), n));
    counters.all().filter_map(reason).filter(|(_, n)| *n > 0).collect()
}

fn difference(a: &Account) -> i64 {
    let ends = [a.completed, a.dropped.values().sum(), a.returned, a.queued, a.inflight];
    // Counters wrap, if at all, together.
    a.matched.wrapping_sub(ends.iter().fold(0, |sum: u64, n| sum.wrapping_add(*n))) as i64
}

/// What of an account is not as it must be, in words.
fn errors(whose: &str, a: &Account, counters: &Counters) -> Vec<String> {
    let mut wrong = Vec::new();
    let by_reason: u64 = a.dropped.values().sum();
    if by_reason != counters.delivery_dropped {
        wrong.push(format!(
            "{whose}: {} copies were dropped, and {by_reason} for a reason",
            counters.delivery_dropped
        ));
    }
    if a.difference > 0 {
        wrong.push(format!("{whose}: {} copies were matched, and ended nowhere", a.difference));
    }
    if a.difference < 0 {
        let more = a.difference.unsigned_abs();
        wrong.push(format!("{whose}: {more} copies ended or wait that were never matched"));
    }
    wrong
}

fn total(accounts: &[Account]) -> Account {
    let mut total = Account::default();
    for a in accounts {
        total.published += a.published;
        total.matched += a.matched;
        total.completed += a.completed;
        for (reason, n) in &a.dropped {
            *total.dropped.entry(reason.clone()).or_default() += n;
        }
        total.returned += a.returned;
        total.queued += a.queued;
        total.inflight += a.inflight;
        total.group_queued += a.group_queued;
        total.difference = total.difference.wrapping_add(a.difference);
    }
    total
}

/// Whether all shards answered both times, and no message moved in between.
fn is_quiet(first: &NodeView, second: &NodeView) -> bool {
    first.shards.len() == second.shards.len()
        && first.shards.iter().zip(&second.shards).all(|(a, b)| match (&a.report, &b.report) {
            (Some(a), Some(b)) => moving(a) == moving(b),
            _ => false,
        })
}

/// All figures that move with messages.
fn moving(report: &Report) -> (Vec<u64>, [u64; 3]) {
    let of_messages = |(name, n): (&'static str, u64)| {
        (name.starts_with("delivery_") || name.starts_with("messages_")).then_some(n)
    };
    let Gauges { queued, inflight, group_queued, .. } = report.gauges;
    (report.counters.all().filter_map(of_messages).collect(), [queued, inflight, group_queued])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture::view;
    use ringmain_shards::engine::counters::DropReason;

    /// Two shards with some of everything, in balance.
    fn busy() -> NodeView {
        let mut view = view(2);
        for (ix, shard) in view.shards.iter_mut().enumerate() {
            let report = shard.report.as_mut().unwrap();
            let c = &mut report.counters;
            c.messages_publish = 100;
            c.delivery_completed = 50;
            c.delivery_returned = 3;
            c.drop_copy(DropReason::QueueFull, 4);
            c.drop_copy(DropReason::Expired, 5);
            c.delivery_matched = 50 + 3 + 9 + 7 + ix as u64;
            report.gauges.queued = 7;
            report.gauges.inflight = ix as u64;
            report.gauges.group_queued = 11;
        }
        view
    }

    fn report(view: &mut NodeView, shard: usize) -> &mut Report {
        view.shards[shard].report.as_mut().unwrap()
    }

    #[test]
    fn a_node_at_rest_balances_by_shard_and_in_total() {
        let audit = of(&busy(), &busy());
        assert!(audit.quiet && audit.balanced, "{audit:?}");
        assert_eq!(audit.shards[1].dropped["queue_full"], 4);
        assert_eq!(audit.shards[1].dropped.len(), 2, "reasons that never were are left out");
        let t = &audit.total;
        assert_eq!((t.shard, t.published, t.matched, t.completed), (None, 200, 139, 100));
        assert_eq!((t.returned, t.queued, t.inflight, t.group_queued), (6, 14, 1, 22));
        assert_eq!((t.dropped["expired"], t.difference), (10, 0));
    }

    #[test]
    fn a_copy_that_ended_nowhere_is_named_with_its_shard() {
        let mut second = busy();
        report(&mut second, 1).counters.delivery_matched += 1;
        let audit = of(&busy(), &second);
        assert!(!audit.balanced && !audit.quiet);
        assert_eq!(audit.wrong, ["shard 1: 1 copies were matched, and ended nowhere"]);
        assert_eq!((audit.shards[0].difference, audit.shards[1].difference), (0, 1));
        assert_eq!(audit.total.difference, 1);
    }

    #[test]
    fn a_copy_that_ended_twice_is_wrong_and_does_not_cancel_one_that_is_missing_elsewhere() {
        let mut second = busy();
        report(&mut second, 0).counters.delivery_completed += 2;
        report(&mut second, 1).counters.delivery_matched += 2;
        let audit = of(&second, &second);
        assert!(audit.quiet && !audit.balanced);
        assert_eq!(audit.total.difference, 0);
        assert_eq!(audit.wrong.len(), 2, "{:?}", audit.wrong);
    }

    #[test]
    fn a_drop_without_a_reason_is_wrong() {
        let mut second = busy();
        report(&mut second, 0).counters.delivery_dropped += 1;
        let audit = of(&second, &second);
        assert_eq!(audit.wrong, ["shard 0: 10 copies were dropped, and 9 for a reason"]);
    }

    #[test]
    fn a_shard_that_did_not_answer_is_named_and_nothing_is_at_rest() {
        let mut second = busy();
        second.shards[1].report = None;
        second.shards[1].stalled_ms = Some(4000);
        let audit = of(&busy(), &second);
        assert!(!audit.quiet && !audit.balanced);
        let stalled = "shard 1 did not answer: its present turn lasts 4000 ms already";
        assert_eq!(audit.wrong, [stalled]);
        assert_eq!(audit.shards.len(), 1);
        // Whoever was silent the first time only is no reason to doubt the accounts.
        let audit = of(&second, &busy());
        assert!(!audit.quiet && audit.balanced);
    }

    #[test]
    fn traffic_that_changed_nothing_but_bytes_and_pings_is_rest() {
        let mut second = busy();
        let c = &mut report(&mut second, 0).counters;
        c.bytes_received += 2;
        c.pingreq_received += 1;
        c.reactor_turns += 1;
        assert!(of(&busy(), &second).quiet);
        report(&mut second, 0).counters.messages_forward += 1;
        assert!(!of(&busy(), &second).quiet);
    }
}
