//! Live messages while retained ones are being replayed. (docs/adr/0014)

use ringmain_mqtt::PacketType;
use ringmain_shards::engine::counters::Counters;

use crate::support::*;

/// A node with a window of one, and retained messages `x/0`, `x/1`, … of QoS 1.
fn node(shards: usize, retained_messages: usize) -> (Node, C) {
    let mut n = Node::mqtt(shards, |m| {
        m.max_inflight = 1;
        m.max_mqueue_len = 0;
    });
    let p = n.join(V5, "p");
    for i in 0..retained_messages {
        n.put(p, &retained(&format!("x/{i}"), 1, "stored"));
    }
    (n, p)
}

fn balanced(c: &Counters, n: &Node) {
    let g = n.gauges();
    let ends = c.delivery_completed + c.delivery_dropped + g.queued + g.inflight;
    assert_eq!(c.delivery_matched, ends, "{g:?}");
}

// S-44. A live copy that was granted less by an earlier subscription does not stand for it.
#[test]
fn a_stored_message_comes_even_if_a_copy_of_it_waits_for_an_earlier_subscription() {
    for shards in SHARDS {
        let (mut n, p) = node(shards, 100);
        let s = n.resume(V5, "s");
        n.sub(s, "x/#", 1); // fills a page behind the window
        n.msg(s);
        n.sub(s, "#", 0); // is not read while the page waits
        n.put(p, &retained("t", 1, "t"));
        n.sub(s, "t", 1);
        n.drop_conn(s); // what waits with QoS 0 may be lost now
        let s = n.resume(V5, "s");
        let got: Vec<_> = n.msgs(s).into_iter().filter(|m| m.topic == "t").collect();
        assert!(got.iter().any(|m| m.retain && m.qos == 1), "{shards}: {got:?}");
        balanced(&n.counters(), &n);
        assert_eq!(n.gauges().queued, 0);
    }
}

// S-44. A live copy that waits stands for the stored one, and is not lost as QoS 0 otherwise is.
#[test]
fn a_stored_message_that_a_live_one_replaces_comes_when_the_client_is_back() {
    for shards in SHARDS {
        let (mut n, p) = node(shards, 100);
        n.put(p, &retained("t", 0, "old"));
        let s = n.resume(V5, "s");
        n.sub(s, "x/#", 1); // fills a page behind the window
        let first = n.msg(s);
        n.sub(s, "t", 0); // is not read while the page waits
        n.put(p, &retained("t", 0, "new"));
        n.drop_conn(s);
        let s = n.resume(V5, "s");
        let got = n.msgs(s);
        assert_eq!(got[0].id, first.id, "resent");
        let of_topic: Vec<_> = got.iter().filter(|m| m.topic == "t").map(Msg::text).collect();
        assert_eq!(of_topic, ["new"], "{shards}");
        balanced(&n.counters(), &n);
    }
}

// S-23, S-83. A window without room only delays QoS 0 behind a stored message of its topic.
#[test]
fn qos_0_waits_for_the_stored_message_of_its_topic_and_for_no_other() {
    for shards in SHARDS {
        let (mut n, p) = node(shards, 2);
        let s = n.join(V5, "s");
        n.sub(s, "#", 1);
        let first = n.msg(s);
        let second = if first.topic == "x/0" { "x/1" } else { "x/0" };
        n.put(p, &publish("y", 0, "unrelated"));
        assert_eq!(n.msg(s).text(), "unrelated");
        n.put(p, &publish(&first.topic, 0, "behind what was sent"));
        assert_eq!(n.msg(s).text(), "behind what was sent");
        n.put(p, &publish(second, 0, "behind what waits"));
        n.quiet(s);
        n.ack(s, PacketType::PubAck, first.id);
        assert_eq!(texts(&n.msgs(s)), ["stored", "behind what waits"], "{shards}");
        balanced(&n.counters(), &n);
    }
}

// S-80, S-81, S-23
#[test]
fn what_waits_keeps_the_order_of_its_publisher_and_holds_up_no_other_one() {
    for shards in SHARDS {
        let (mut n, p) = node(shards, 2);
        let q = n.join(V5, "q");
        let s = n.join(V5, "s");
        n.sub(s, "#", 1);
        let first = n.msg(s);
        let second = if first.topic == "x/0" { "x/1" } else { "x/0" };
        n.put(p, &publish(second, 0, "p 1"));
        n.put(p, &publish("y", 0, "p 2"));
        n.put(p, &publish("w", 1, "p 3"));
        n.put(p, &publish("w", 0, "p 4"));
        n.quiet(s);
        n.put(q, &publish("z", 0, "q 1"));
        assert_eq!(texts(&n.msgs(s)), ["q 1"]);
        n.ack(s, PacketType::PubAck, first.id);
        // QoS 0 goes past the window of "p 3", and "p 3" past no QoS 0 before it.
        let got = n.msgs(s);
        assert_eq!(texts(&got), ["stored", "p 1", "p 2", "p 4", "p 3"], "{shards}");
    }
}

// S-44, S-83. What waits is bounded, in number and in bytes; nothing is lost for it.
#[test]
fn too_many_live_messages_overtake_a_replay_and_replace_what_is_stored() {
    for (messages, size) in [(1_010, 1), (20, 100_000)] {
        let (mut n, p) = node(2, 200);
        let s = n.resume(V5, "s");
        n.sub(s, "x/#", 1);
        let first = n.msg(s);
        // The topics read last: their stored messages are not in the queue yet.
        let topic = |i: usize| format!("x/{}", 199 - i % 10);
        let payload = "n".repeat(size);
        for i in 0..messages {
            n.put(p, &retained(&topic(i), 1, &payload));
        }
        assert_eq!(n.counters().replays_overtaken, 1);
        let pages = n.gauges().queued as usize - messages;
        assert!((64..128).contains(&pages), "{pages} stored ones wait");
        n.ack(s, PacketType::PubAck, first.id);
        let got = n.msgs(s);
        let live = got.iter().filter(|m| m.text() == payload && !m.retain).count();
        assert_eq!(live, messages);
        for i in 0..10 {
            let of_topic: Vec<_> = got.iter().filter(|m| m.topic == topic(i)).collect();
            let newest = of_topic.iter().position(|m| m.text() == payload);
            let newest = newest.expect("live messages came");
            assert!(of_topic[newest..].iter().all(|m| m.text() == payload), "older ones after it");
        }
        assert_eq!(n.counters().delivery_dropped, 0);
        balanced(&n.counters(), &n);
        assert_eq!(n.gauges().queued, 0);
    }
}

#[test]
fn what_waits_is_counted_when_its_session_ends() {
    let (mut n, p) = node(1, 2);
    let s = n.join(V5, "s");
    n.sub(s, "#", 1);
    let first = n.msg(s);
    let second = if first.topic == "x/0" { "x/1" } else { "x/0" };
    n.put(p, &publish(second, 0, "waits"));
    assert_eq!(n.gauges().queued, 2);
    n.drop_conn(s);
    assert_eq!(n.gauges().queued, 0);
    balanced(&n.counters(), &n);
    assert_eq!(n.counters().delivery_dropped_session_ended, 3);
}
