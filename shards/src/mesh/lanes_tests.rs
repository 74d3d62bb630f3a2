use super::*;
use crate::engine::mail::Ticket;

fn mail(n: u32) -> Mail {
    Mail::Verdict { ticket: Ticket { index: n, generation: 0 }, taken: 0, refused: false }
}

fn number(mail: &Mail) -> u32 {
    let Mail::Verdict { ticket, .. } = mail else { panic!("other mail: {mail:?}") };
    ticket.index
}

fn drain(mailbox: &Mailbox) -> Vec<u32> {
    let mut all = Vec::new();
    while let Some(Delivery::Batch { batch, .. }) = mailbox.pop() {
        all.extend(batch.mail.iter().map(number));
    }
    all
}

fn mesh(shards: usize, batches: usize) -> Arc<[Mailbox]> {
    (0..shards).map(|_| Mailbox::new(batches)).collect()
}

const B: ShardId = ShardId(1);
const C: ShardId = ShardId(2);

#[test]
fn mail_for_a_full_mailbox_waits_in_order_and_is_never_lost() {
    let boxes = mesh(2, 2);
    let mut lanes = Lanes::new(ShardId(0), Arc::clone(&boxes));
    let mut fx = Effects::new(2);
    let mut got = Vec::new();
    for n in 0..1000 {
        fx.send(B, mail(n));
        lanes.send_turn(&mut fx);
        fx.clear();
        if n % 7 == 6 {
            got.extend(drain(&boxes[1]));
        }
    }
    assert!(lanes.counts().full > 0 && lanes.full().contains(B));
    while lanes.is_waiting() {
        lanes.send_turn(&mut fx);
        got.extend(drain(&boxes[1]));
    }
    got.extend(drain(&boxes[1]));
    assert_eq!(got, (0..1000).collect::<Vec<_>>());
}

#[test]
fn a_full_lane_is_reported_drained_once_and_only_when_open() {
    let boxes = mesh(2, 1);
    let mut lanes = Lanes::new(ShardId(0), Arc::clone(&boxes));
    let mut fx = Effects::new(2);
    for n in 0..2 {
        fx.send(B, mail(n));
        lanes.send_turn(&mut fx);
    }
    assert!(lanes.full().contains(B));
    lanes.send_turn(&mut fx);
    assert_eq!(lanes.pop_drained(), None);
    assert_eq!(drain(&boxes[1]), [0]);
    lanes.send_turn(&mut fx);
    assert_eq!(lanes.pop_drained(), Some(B));
    assert_eq!(lanes.pop_drained(), None);
    assert!(lanes.full().is_empty() && !lanes.is_waiting());
}

#[test]
fn mail_after_waits_for_older_mail_to_any_shard_but_not_for_younger() {
    let boxes = mesh(3, 1);
    let mut lanes = Lanes::new(ShardId(0), Arc::clone(&boxes));
    let mut fx = Effects::new(3);
    fx.send(B, mail(1));
    lanes.send_turn(&mut fx); // fills B
    fx.send(B, mail(2));
    fx.mail_after.push((C, mail(10)));
    lanes.send_turn(&mut fx); // 2 waits for B, so 10 must wait though C has room
    assert!(drain(&boxes[2]).is_empty());
    assert!(lanes.is_waiting());
    assert_eq!(drain(&boxes[1]), [1]);
    fx.send(B, mail(3));
    lanes.send_turn(&mut fx); // 2 goes, 3 (younger) waits, 10 goes
    assert_eq!(drain(&boxes[1]), [2]);
    assert_eq!(drain(&boxes[2]), [10]);
}

#[test]
fn mail_after_keeps_its_order_across_shards_when_its_receiver_is_full() {
    let boxes = mesh(3, 1);
    let mut lanes = Lanes::new(ShardId(0), Arc::clone(&boxes));
    let mut fx = Effects::new(3);
    fx.send(B, mail(1));
    fx.mail_after.push((B, mail(10)));
    fx.mail_after.push((C, mail(11)));
    lanes.send_turn(&mut fx);
    assert!(drain(&boxes[2]).is_empty(), "11 must not overtake 10");
    assert_eq!(drain(&boxes[1]), [1]);
    lanes.send_turn(&mut fx);
    assert_eq!(drain(&boxes[1]), [10]);
    assert_eq!(drain(&boxes[2]), [11]);
    lanes.send_turn(&mut fx);
    assert!(lanes.full().is_empty());
    assert_eq!(lanes.pop_drained(), Some(B));
}

#[test]
fn a_sleeping_peer_is_woken_once_a_turn() {
    let boxes = mesh(2, 8);
    let mut lanes = Lanes::new(ShardId(0), Arc::clone(&boxes));
    let mut fx = Effects::new(2);
    boxes[1].sleep.announce();
    fx.send(B, mail(1));
    lanes.send_turn(&mut fx);
    assert_eq!(lanes.pop_wake(), Some(B));
    assert_eq!(lanes.pop_wake(), None);
    fx.send(B, mail(2));
    lanes.send_turn(&mut fx);
    assert_eq!(lanes.pop_wake(), None, "it was told once for this sleep");
    assert_eq!(lanes.counts().wakes, 1);
}

#[test]
fn writes_to_shared_lines_are_counted_by_who_does_them_and_looking_is_free() {
    let boxes = mesh(2, 1);
    let mut a = Lanes::new(ShardId(0), Arc::clone(&boxes));
    let mut b = Lanes::new(B, Arc::clone(&boxes));
    let mut fx = Effects::new(2);
    let writes = |lanes: &Lanes| lanes.counts().line_writes;
    assert!(b.pop().is_none() && !a.mailbox().sleep.must_wake());
    assert_eq!(writes(&b), 0);

    b.announce_sleep();
    let batch = [mail(1), mail(2), mail(3)].map(|m| fx.send(B, m));
    a.send_turn(&mut fx); // tail and slot
    assert_eq!(writes(&a), PUSH_WRITES);
    let bytes = batch.len() * size_of::<Mail>();
    assert_eq!(a.counts().mail_lines, bytes.div_ceil(64) as u64);
    assert_eq!(a.pop_wake(), Some(B)); // its flag
    assert_eq!(writes(&a), PUSH_WRITES + 1);

    fx.send(B, mail(4));
    a.send_turn(&mut fx); // no room
    assert_eq!(writes(&a), PUSH_WRITES + 1);
    b.wake_up();
    assert!(b.pop().is_some() && b.pop().is_none());
    assert_eq!(writes(&b), 2 + POP_WRITES, "flag up, flag down, one pop");
    a.send_turn(&mut fx);
    assert_eq!(writes(&a), 2 * PUSH_WRITES + 1);
}

#[test]
fn what_is_sent_later_arrives_later_whoever_sends_it() {
    let boxes = mesh(3, 8);
    let mut a = Lanes::new(ShardId(0), Arc::clone(&boxes));
    let mut b = Lanes::new(B, Arc::clone(&boxes));
    let mut fx = Effects::new(3);
    for n in 0..3 {
        fx.send(C, mail(2 * n));
        fx.send(B, mail(100));
        a.send_turn(&mut fx);
        drain(&boxes[1]); // B learns of it, and so sends
        fx.send(C, mail(2 * n + 1));
        b.send_turn(&mut fx);
    }
    assert_eq!(drain(&boxes[2]), [0, 1, 2, 3, 4, 5]);
}
