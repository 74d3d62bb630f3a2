//! The oracle finds hand-made violations, and nothing in what is right.

use super::*;
use crate::wire::{ConnAck, Connect, Filter, Publish};

/// Two devices with a session each: 0 subscribes, 1 publishes. There is room for a third.
struct Bench {
    oracle: Oracle,
    step: u64,
    ms: u64,
}

const RULES: Rules = Rules {
    devices: 3,
    shards: 1,
    pressure: false,
    turns_away: false,
    queue_bound: false,
    roomy: true,
    rejects: false,
    keeps_qos0: false,
};

fn connect(client: usize, clean: bool) -> Box<Connect> {
    Box::new(Connect {
        version: 5,
        client_id: format!("c{client}"),
        clean,
        keep_alive_s: 0,
        expiry_s: Some(10),
        receive_max: Some(2),
        packet_max: None,
        alias_max: None,
        will: None,
    })
}

fn message(n: u64, qos: u8, pid: u16) -> Publish {
    Publish {
        qos,
        pid,
        topic: "t".into(),
        payload: format!("m{n}").into_bytes(),
        ..Publish::default()
    }
}

impl Bench {
    fn new() -> Self {
        let mut bench = Self { oracle: Oracle::new(RULES), step: 0, ms: 1000 };
        for net in 0..2 {
            bench.open(net, net, true, false).expect("accepted");
        }
        bench
    }

    fn see(&mut self, seen: &Seen) -> Verdict {
        self.step += 1;
        let at =
            Stamp { step: self.step, ms: self.ms, real_ms: self.ms, epoch: self.step * SETTLED };
        self.oracle.see(at, seen, 0)
    }

    fn open(&mut self, net: NetId, client: usize, clean: bool, present: bool) -> Verdict {
        self.oracle.opened(net, client, Stamp::default());
        self.fed(net, ToServer::Connect(connect(client, clean)))?;
        let ack = ConnAck { session_present: present, ..ConnAck::default() };
        self.wrote(net, ToClient::ConnAck(ack))
    }

    fn fed(&mut self, net: NetId, packet: ToServer) -> Verdict {
        self.see(&Seen::Ingress { net, packet })
    }

    fn wrote(&mut self, net: NetId, packet: ToClient) -> Verdict {
        self.see(&Seen::Written { net, packet, size: 10, end: 0 })
    }

    fn gone(&mut self, net: NetId) {
        let cause = ringmain_shards::engine::input::CloseCause::PeerFin;
        self.see(&Seen::ClosedFed { net, cause }).expect("a client may go");
    }

    fn subscribe(&mut self, qos: u8) {
        self.subscribe_to(0, "t", qos);
    }

    fn subscribe_to(&mut self, net: NetId, text: &str, qos: u8) {
        let filter = Filter { text: text.into(), qos, no_local: false, rap: false, rh: 0 };
        let subscribe = ToServer::Subscribe { pid: 1, sub_id: None, filters: vec![filter] };
        self.fed(net, subscribe).expect("read");
        self.wrote(net, ToClient::SubAck { pid: 1, codes: vec![qos] }).expect("granted");
    }

    /// Devices 0 and 2 are members of `$share/a/t` with QoS 2 and of `$share/b/t` with QoS 1;
    /// message 1 went to device 0 by way of both, as packets 7 and 8.
    fn in_two_groups() -> Self {
        let mut b = Self::new();
        b.open(2, 2, true, false).expect("accepted");
        for net in [0, 2] {
            b.subscribe_to(net, "$share/a/t", 2);
            b.subscribe_to(net, "$share/b/t", 1);
        }
        b.publish(message(1, 2, 1));
        b.wrote(1, ToClient::PubRec { pid: 1, reason: 0 }).expect("due");
        b.deliver(0, message(1, 2, 7)).expect("a member of the first");
        b.deliver(0, message(1, 1, 8)).expect("a member of the second");
        b
    }

    /// Device 0 starts anew: its session is over.
    fn starts_anew(&mut self) {
        self.gone(0);
        self.open(3, 0, true, false).expect("accepted");
    }

    fn publish(&mut self, p: Publish) {
        self.fed(1, ToServer::Publish(p)).expect("read");
    }

    fn deliver(&mut self, net: NetId, p: Publish) -> Verdict {
        self.wrote(net, ToClient::Publish(p))
    }

    fn quiet(&mut self) -> Verdict {
        self.oracle.at_quiet(None)
    }
}

fn rule(verdict: Verdict) -> &'static str {
    verdict.expect_err("the oracle found nothing").rule
}

#[test]
fn right_behaviour_is_accepted() {
    let mut b = Bench::new();
    b.subscribe(1);
    b.publish(message(1, 1, 1));
    b.deliver(0, message(1, 1, 7)).expect("matches");
    b.wrote(1, ToClient::PubAck { pid: 1, reason: 0 }).expect("due");
    b.fed(0, ToServer::PubAck { pid: 7, reason: 0 }).expect("known");
    b.quiet().expect("all is done");
}

#[test]
fn lost_message_is_found_at_quiescence() {
    // [S-55]
    let mut b = Bench::new();
    b.subscribe(1);
    b.publish(message(1, 1, 1));
    b.wrote(1, ToClient::PubAck { pid: 1, reason: 0 }).expect("due");
    assert_eq!(rule(b.quiet()), "lost S-55");
}

#[test]
fn qos_0_may_only_be_lost_while_its_client_is_away() {
    // [S-55] Q06
    let mut b = Bench::new();
    b.subscribe(0);
    b.publish(message(1, 0, 0));
    assert_eq!(rule(b.quiet()), "lost S-55");
    let mut b = Bench::new();
    b.subscribe(0);
    b.publish(message(1, 0, 0));
    b.gone(0);
    b.quiet().expect("it was on its way");
}

#[test]
fn what_was_taken_before_it_was_refused_is_still_due() {
    // [S-39]
    let mut b = Bench::new();
    b.oracle.rules.pressure = true;
    b.subscribe(1);
    b.publish(message(1, 1, 1));
    b.wrote(1, ToClient::PubAck { pid: 1, reason: 0 }).expect("due");
    b.publish(Publish { dup: true, ..message(1, 1, 1) });
    b.wrote(1, ToClient::PubAck { pid: 1, reason: 0x97 }).expect("refused");
    assert_eq!(rule(b.quiet()), "lost S-55");
    let mut b = Bench::new();
    b.oracle.rules.pressure = true;
    b.subscribe(1);
    b.publish(message(1, 1, 1));
    b.wrote(1, ToClient::PubAck { pid: 1, reason: 0x97 }).expect("refused");
    assert_eq!(rule(b.deliver(0, message(1, 1, 7))), "refused-delivered");
}

#[test]
fn nobody_is_thrown_out_without_an_order_nor_stays_in_spite_of_one() {
    // Q14
    let answer = |token| Seen::Event(Event::Kicked { token, found: true });
    let close = Seen::CloseOp {
        net: 0,
        how: ringmain_shards::engine::effects::CloseHow::Flush,
        inside_packet: false,
    };
    let mut b = Bench::new();
    b.wrote(0, ToClient::Disconnect { reason: 0x98 }).expect("a packet like others");
    assert_eq!(rule(b.see(&close)), "kick Q14");
    let mut b = Bench::new();
    let token = b.oracle.kick_ordered(0, true);
    assert_eq!(rule(b.see(&answer(token))), "kick Q14");
    let mut b = Bench::new();
    let token = b.oracle.kick_ordered(0, true);
    b.wrote(0, ToClient::Disconnect { reason: 0x98 }).expect("a packet like others");
    b.see(&close).expect("ordered");
    b.see(&answer(token)).expect("done");
    b.open(2, 0, false, false).expect("its session is gone");
}

#[test]
fn message_before_subscribe_or_after_unsuback_is_unmatched() {
    // [S-55] [MQTT-3.10.4-2]
    let mut b = Bench::new();
    b.publish(message(1, 0, 0));
    b.subscribe(0);
    for _ in 0..3 {
        b.see(&Seen::TurnDone { shard: 0, deadline_ms: u64::MAX }).expect("idle");
    }
    let mut b2 = Bench::new();
    b2.subscribe(0);
    let filters = vec!["t".to_owned()];
    b2.fed(0, ToServer::Unsubscribe { pid: 2, filters }).expect("read");
    b2.wrote(0, ToClient::UnsubAck { pid: 2, codes: vec![0] }).expect("right code");
    b2.publish(message(2, 0, 0));
    assert_eq!(rule(b2.deliver(0, message(2, 0, 0))), "unmatched S-55");
}

#[test]
fn second_copy_and_wrong_qos_are_found() {
    // [S-33] P01
    let mut b = Bench::new();
    b.subscribe(2);
    b.publish(message(1, 2, 1));
    assert_eq!(rule(b.deliver(0, message(1, 1, 7))), "effective-qos P01");
    let mut b = Bench::new();
    b.subscribe(2);
    b.publish(message(1, 2, 1));
    b.deliver(0, message(1, 2, 7)).expect("matches");
    assert_eq!(rule(b.deliver(0, message(1, 2, 8))), "duplicate");
}

#[test]
fn qos2_repeat_is_one_message() {
    // [S-33]
    let mut b = Bench::new();
    b.subscribe(2);
    b.publish(message(1, 2, 1));
    b.publish(Publish { dup: true, ..message(1, 2, 1) });
    b.deliver(0, message(1, 2, 7)).expect("matches");
    assert_eq!(rule(b.deliver(0, message(1, 2, 8))), "duplicate");
}

#[test]
fn order_of_a_publisher_is_kept() {
    // [S-80]
    let mut b = Bench::new();
    b.subscribe(1);
    b.publish(message(1, 1, 1));
    b.publish(message(2, 1, 2));
    b.deliver(0, message(2, 1, 1)).expect("matches");
    assert_eq!(rule(b.deliver(0, message(1, 1, 2))), "order S-80");
}

#[test]
fn qos_0_may_overtake_and_is_not_overtaken() {
    // [S-81] [S-23]
    let publishes = |b: &mut Bench| {
        b.subscribe(1);
        b.publish(message(1, 0, 0));
        b.publish(message(2, 1, 2));
        b.publish(message(3, 0, 0));
    };
    let mut b = Bench::new();
    publishes(&mut b);
    b.deliver(0, message(1, 0, 0)).expect("first");
    b.deliver(0, message(3, 0, 0)).expect("past the window");
    b.deliver(0, message(2, 1, 1)).expect("has room again");
    let mut b = Bench::new();
    publishes(&mut b);
    b.deliver(0, message(2, 1, 1)).expect("first");
    assert_eq!(rule(b.deliver(0, message(1, 0, 0))), "order S-81");
}

#[test]
fn window_and_packet_ids_are_watched() {
    // [S-21] [S-37]
    let mut b = Bench::new();
    b.subscribe(1);
    for n in 1..=3 {
        b.publish(message(n, 1, n as u16));
    }
    b.deliver(0, message(1, 1, 1)).expect("first");
    assert_eq!(rule(b.deliver(0, message(2, 1, 1))), "packet-id-in-use S-37");
    b.deliver(0, message(2, 1, 2)).expect("second");
    assert_eq!(rule(b.deliver(0, message(3, 1, 3))), "receive-maximum S-21");
}

#[test]
fn resends_carry_dup_come_first_and_only_after_reconnecting() {
    // [S-36] [S-37] [S-38]
    let mut b = Bench::new();
    b.subscribe(1);
    b.publish(message(1, 1, 1));
    b.publish(message(2, 1, 2));
    b.deliver(0, message(1, 1, 1)).expect("first");
    let again = Publish { dup: true, ..message(1, 1, 1) };
    assert_eq!(rule(b.deliver(0, again.clone())), "resend-on-live S-38");
    b.gone(0);
    b.open(2, 0, false, true).expect("resumed");
    assert_eq!(rule(b.deliver(2, message(2, 1, 2))), "resend-first S-37");
    let mut b = Bench::new();
    b.subscribe(1);
    b.publish(message(1, 1, 1));
    b.deliver(0, message(1, 1, 1)).expect("first");
    b.gone(0);
    b.open(2, 0, false, true).expect("resumed");
    b.deliver(2, again).expect("resent");
}

#[test]
fn publish_after_pubrec_is_found() {
    // [S-36]
    let mut b = Bench::new();
    b.subscribe(2);
    b.publish(message(1, 2, 1));
    b.deliver(0, message(1, 2, 1)).expect("first");
    b.fed(0, ToServer::PubRec { pid: 1, reason: 0 }).expect("read");
    b.gone(0);
    b.open(2, 0, false, true).expect("resumed");
    let again = Publish { dup: true, ..message(1, 2, 1) };
    assert_eq!(rule(b.deliver(2, again)), "publish-after-pubrec S-36");
}

#[test]
fn session_present_tells_the_truth() {
    // C01 [S-08]
    let mut b = Bench::new();
    b.gone(0);
    assert_eq!(rule(b.open(2, 0, false, false)), "session-present C01");
    let mut b = Bench::new();
    b.gone(0);
    assert_eq!(rule(b.open(2, 0, true, true)), "session-present C01");
    let mut b = Bench::new();
    b.gone(0);
    b.ms += 12_000;
    b.see(&Seen::TurnDone { shard: 0, deadline_ms: u64::MAX }).expect("ticked");
    assert_eq!(rule(b.open(2, 0, false, true)), "session-present C01");
}

#[test]
fn two_live_connections_of_a_client_are_found() {
    // [S-01] [S-02]
    let mut b = Bench::new();
    assert_eq!(rule(b.open(2, 0, false, true)), "one-connection S-01");
}

#[test]
fn acknowledgements_come_in_order() {
    // [S-82] [MQTT-4.6.0-2]
    let mut b = Bench::new();
    b.publish(message(1, 1, 1));
    b.publish(message(2, 1, 2));
    assert_eq!(rule(b.wrote(1, ToClient::PubAck { pid: 2, reason: 0 })), "puback-order S-82");
}

#[test]
fn unreasonable_close_is_found() {
    let mut b = Bench::new();
    let close = Seen::CloseOp {
        net: 0,
        how: ringmain_shards::engine::effects::CloseHow::Flush,
        inside_packet: false,
    };
    assert_eq!(rule(b.see(&close)), "silent-close S-01");
    let mut b = Bench::new();
    b.wrote(0, ToClient::Disconnect { reason: 0x8D }).expect("a packet like others");
    assert_eq!(rule(b.see(&close)), "keep-alive-early S-90");
}

#[test]
fn retained_message_must_be_replayed() {
    // [S-44]
    let mut b = Bench::new();
    b.publish(Publish { retain: true, ..message(1, 1, 1) });
    b.wrote(1, ToClient::PubAck { pid: 1, reason: 0 }).expect("due");
    b.subscribe(1);
    assert_eq!(rule(b.quiet()), "replay-incomplete S-44");
    let mut b = Bench::new();
    b.publish(Publish { retain: true, ..message(1, 0, 0) });
    b.subscribe(1);
    b.deliver(0, Publish { retain: true, ..message(1, 0, 0) }).expect("the replay");
    b.quiet().expect("complete");
}

#[test]
fn only_the_copy_that_was_not_acknowledged_goes_back_to_its_group() {
    // [S-63] [S-64] [S-67]
    let mut b = Bench::in_two_groups();
    b.starts_anew();
    // The QoS 2 copy was begun with device 0; the other one is due to device 2.
    assert_eq!(rule(b.quiet()), "shared-lost S-67");
    let mut b = Bench::in_two_groups();
    b.starts_anew();
    b.deliver(2, message(1, 1, 9)).expect("it went back");
    b.fed(2, ToServer::PubAck { pid: 9, reason: 0 }).expect("known");
    b.quiet().expect("the first group is done, and the second");
}

#[test]
fn what_was_acknowledged_does_not_go_to_another_member() {
    // [S-61] [S-63]
    let mut b = Bench::in_two_groups();
    b.fed(0, ToServer::PubAck { pid: 8, reason: 0 }).expect("known");
    b.starts_anew();
    assert_eq!(rule(b.deliver(2, message(1, 1, 9))), "shared-once S-61");
}

#[test]
fn what_a_member_got_before_it_left_stays_with_it() {
    // [S-61]
    let mut b = Bench::in_two_groups();
    let filters = vec!["$share/b/t".to_owned()];
    b.fed(0, ToServer::Unsubscribe { pid: 2, filters }).expect("read");
    b.starts_anew();
    assert_eq!(rule(b.deliver(2, message(1, 1, 9))), "shared-once S-61");
}
