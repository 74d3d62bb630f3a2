//! From the broker to a client: windows, order, sizes, aliases, resending.

use ringmain_mqtt::{Connect, ConnectProps, Packet, PacketType, Publish};
use ringmain_shards::engine::config::{QueueDropPolicy, SlowConsumerPolicy};

use crate::support::*;

fn with_props<'a>(client_id: &'a str, change: impl FnOnce(&mut ConnectProps<'a>)) -> Connect<'a> {
    let mut c = persistent(V5, client_id);
    change(&mut c.props);
    c
}

fn flood(n: &mut Node, p: C, topic: &str, level: u8, range: std::ops::Range<u32>) {
    for i in range {
        n.put(p, &publish(topic, level, &i.to_string()));
    }
}

fn numbers(range: std::ops::Range<u32>) -> Vec<String> {
    range.map(|i| i.to_string()).collect()
}

// S-21, C03, Q07. [MQTT-3.3.4-9] [MQTT-4.9.0-1] [MQTT-4.9.0-2]
#[test]
fn never_more_unacknowledged_than_receive_maximum() {
    for shards in SHARDS {
        for (level, max) in [(1, 1), (1, 3), (2, 1), (2, 3)] {
            let mut n = Node::new(shards);
            let c = with_props("s", |p| p.receive_maximum = Some(max));
            let s = n.connected(&c).0;
            n.sub(s, "t", 2);
            let p = n.join(V5, "p");
            flood(&mut n, p, "t", level, 0..10);
            for at in 0..10 {
                let open: Vec<Msg> = (0..max.min(10 - at))
                    .map_while(|_| n.poll(s).and_then(|g| Msg::of(&g)))
                    .collect();
                let expect = if at == 0 { usize::from(max) } else { usize::from(at + max <= 10) };
                // The first round fills the window; each acknowledgement lets one more in.
                assert!(open.len() <= expect.max(1), "{level} {max} {at}");
                n.quiet(s);
                let id = at + 1;
                if level == 1 {
                    n.ack(s, PacketType::PubAck, id);
                } else {
                    n.ack(s, PacketType::PubRec, id);
                    assert_eq!(n.recv(s).name(), "PUBREL");
                    n.quiet(s); // PUBREC gives no quota back
                    n.ack(s, PacketType::PubComp, id);
                }
            }
            n.quiet(s);
            assert_eq!(n.gauges().inflight, 0);
        }
    }
}

// S-21, S-34. [MQTT-4.4.0-2]
#[test]
fn a_refusing_pubrec_returns_quota_and_settles_the_message() {
    for (level, kind) in [(1, PacketType::PubAck), (2, PacketType::PubRec)] {
        let mut n = Node::new(2);
        let c = with_props("s", |p| p.receive_maximum = Some(1));
        let s = n.connected(&c).0;
        n.sub(s, "t", 2);
        let p = n.join(V5, "p");
        flood(&mut n, p, "t", level, 0..2);
        let first = n.msg(s);
        n.ack_with(s, kind, first.id, 0x97);
        assert_eq!(n.msg(s).text(), "1");
        n.drop_conn(s);
        let s = n.connected(&c).0;
        let got = n.msgs(s);
        assert_eq!(texts(&got), ["1"], "what was refused is not sent again");
        assert!(got[0].dup);
        assert_eq!(n.counters().delivery_dropped_refused, 1);
    }
}

// S-23. [MQTT-3.3.4-10] [MQTT-4.9.0-3]
#[test]
fn a_spent_quota_holds_back_nothing_but_acknowledged_publishes() {
    let mut n = Node::new(2);
    let s = n.connected(&with_props("s", |p| p.receive_maximum = Some(1))).0;
    n.sub(s, "t", 2);
    let p = n.join(V5, "p");
    flood(&mut n, p, "t", 2, 0..3);
    let first = n.msg(s);
    n.ping(s);
    assert_eq!(n.sub(s, "u", 1), 1);
    n.put(p, &publish("u", 0, "qos 0"));
    assert_eq!(n.msg(s).text(), "qos 0");
    assert_eq!(n.unsub(s, "u"), 0);
    assert_eq!(n.put(s, &publish("v", 2, "own")), 0x10);
    n.ack(s, PacketType::PubRec, first.id);
    assert_eq!(n.recv(s).name(), "PUBREL");
    n.quiet(s);
}

// S-22
#[test]
fn quota_is_that_of_the_new_connect_also_for_what_is_resent() {
    let mut n = Node::new(2);
    let s = n.connected(&with_props("s", |p| p.receive_maximum = Some(10))).0;
    n.sub(s, "t", 2);
    let p = n.join(V5, "p");
    flood(&mut n, p, "t", 2, 0..6);
    for id in 1..=3 {
        assert_eq!(n.msg(s).id, id);
    }
    n.ack(s, PacketType::PubRec, 1);
    n.drop_conn(s);
    let s = n.connected(&with_props("s", |p| p.receive_maximum = Some(2))).0;
    let got = n.recv_all(s);
    assert_eq!(got.len(), 3, "a PUBREL, which needs no quota, and two messages: {got:?}");
    assert_eq!(got[0].name(), "PUBREL");
    n.ack(s, PacketType::PubComp, 1);
    n.quiet(s);
    n.ack(s, PacketType::PubRec, 2);
    assert_eq!(n.recv(s).name(), "PUBREL");
    n.quiet(s);
    n.ack(s, PacketType::PubComp, 2);
    assert_eq!(n.msg(s).id, 4);
}

// S-36, S-37. [MQTT-4.4.0-1] [MQTT-4.3.3-6] [MQTT-3.3.1-1] [MQTT-4.3.2-3] [MQTT-4.3.3-3]
// [MQTT-4.3.3-5] [MQTT-4.3.3-4] [MQTT-4.6.0-1] [MQTT-2.2.1-4]
// [MQTT311-3.3.1-1] [MQTT311-2.3.1-4]
#[test]
fn resuming_resends_in_order_before_anything_new() {
    for shards in SHARDS {
        for version in VERSIONS {
            let mut n = Node::new(shards);
            let s = n.resume(version, "s");
            n.sub(s, "t", 2);
            let p = n.join(V5, "p");
            for (i, level) in [1, 2, 2, 1].into_iter().enumerate() {
                n.put(p, &publish("t", level, &i.to_string()));
            }
            let first: Vec<Msg> = (0..4).map(|_| n.msg(s)).collect();
            assert!(first.iter().all(|m| !m.dup)); // [MQTT-4.3.2-2] [MQTT-4.3.3-2]
            n.ack(s, PacketType::PubRec, first[1].id);
            assert_eq!(n.recv(s).name(), "PUBREL");
            n.drop_conn(s);
            n.put(p, &publish("t", 1, "new"));
            let s = n.resume(version, "s");
            let got = n.recv_all(s);
            let shape: Vec<_> = got
                .iter()
                .map(|g| match Msg::of(g) {
                    Some(m) => (m.id, m.dup, m.text().to_owned()),
                    None => {
                        (u16::from_be_bytes([g.bytes[2], g.bytes[3]]), false, g.name().to_owned())
                    }
                })
                .collect();
            let id = |i: usize| first[i].id;
            assert_eq!(
                shape[..4],
                [
                    (id(0), true, "0".into()),
                    (id(1), false, "PUBREL".into()),
                    (id(2), true, "2".into()),
                    (id(3), true, "3".into()),
                ]
            );
            assert_eq!((shape[4].1, &shape[4].2[..]), (false, "new"));
            assert!(first.iter().all(|m| m.id != shape[4].0), "a new id");
        }
    }
}

// S-38. D7
#[test]
fn nothing_is_resent_on_a_live_connection_but_to_version_3_where_configured() {
    for (version, retry_s, again) in [(V5, 5, false), (V311, 5, true), (V311, 0, false)] {
        let mut n = Node::mqtt(2, |m| m.retry_interval_s = retry_s);
        let s = n.resume(version, "s");
        n.sub(s, "t", 1);
        let p = n.join(V5, "p");
        n.put(p, &publish("t", 1, "x"));
        let first = n.msg(s);
        n.pass_s(7);
        if again {
            let second = n.msg(s);
            assert_eq!((second.id, second.dup), (first.id, true));
        }
        n.quiet(s);
    }
}

// S-38. [MQTT-3.3.1-3] [MQTT-4.3.1-1] [MQTT311-3.3.1-3]
#[test]
fn dup_of_the_publisher_is_not_forwarded() {
    let mut n = Node::new(2);
    let (s, p) = (n.join(V5, "s"), n.join(V5, "p"));
    n.sub(s, "t", 2);
    for level in [1, 2] {
        n.publish(p, &Publish { dup: true, ..publish("t", level, "x") });
    }
    assert!(n.msgs(s).iter().all(|m| !m.dup));
}

// S-13. [MQTT-4.3.3-7] [MQTT-4.3.3-13]
#[test]
fn a_delivery_that_has_begun_does_not_expire() {
    for level in [1, 2] {
        let mut n = Node::new(2);
        let s = n.resume(V5, "s");
        n.sub(s, "t", 2);
        let p = n.join(V5, "p");
        let mut packet = publish("t", level, "x");
        packet.props.message_expiry_s = Some(2);
        n.put(p, &packet);
        n.msg(s);
        n.drop_conn(s);
        n.pass_s(10);
        let s = n.resume(V5, "s");
        let again = n.msg(s);
        assert!(again.dup);
        assert_eq!(again.text(), "x");
        let ack = if level == 1 { PacketType::PubAck } else { PacketType::PubRec };
        n.ack(s, ack, again.id);
        assert_eq!(n.recv_all(s).len(), usize::from(level == 2));
    }
}

// S-30, S-32, C04. [MQTT-3.1.2-24] [MQTT-3.1.2-25]
#[test]
fn what_is_too_large_for_the_client_is_dropped_and_the_next_goes_out() {
    for shards in SHARDS {
        for level in 0..3 {
            let mut n = Node::new(shards);
            let c = with_props("s", |p| {
                p.maximum_packet_size = Some(50);
                p.receive_maximum = Some(1);
            });
            let s = n.connected(&c).0;
            n.sub(s, "t", 2);
            let p = n.join(V5, "p");
            // Fixed header 2, topic 3, id 2, property length 1.
            let fits = "x".repeat(50 - 6 - if level == 0 { 0 } else { 2 });
            n.put(p, &publish("t", level, &fits));
            n.put(p, &publish("t", level, &format!("{fits}y")));
            n.put(p, &publish("t", level, &format!("{fits}yz")));
            n.put(p, &publish("t", level, &fits)); // by way of the queue
            n.put(p, &publish("t", level, "small"));
            assert_eq!(texts(&n.msgs(s)), [&fits, &fits, "small"], "QoS {level}");
            assert_eq!(n.counters().delivery_dropped_too_large, 2);
            assert_eq!(n.gauges().inflight, 0);
        }
    }
}

// S-32
#[test]
fn the_size_includes_what_the_broker_adds() {
    let mut n = Node::new(2);
    let c = with_props("s", |p| p.maximum_packet_size = Some(50));
    let s = n.connected(&c).0;
    n.sub_with(s, "t", sub_opts(0), Some(200)); // three bytes
    let p = n.join(V5, "p");
    n.put(p, &publish("t", 0, &"x".repeat(41)));
    n.put(p, &publish("t", 0, &"x".repeat(42)));
    assert_eq!(n.msgs(s).len(), 1);
}

// S-27, P08. [MQTT-3.1.2-26] [MQTT-3.1.2-27] [MQTT-3.3.2-11]
#[test]
fn aliases_to_the_client_stay_within_its_maximum_and_begin_with_the_topic() {
    for shards in [1, 2] {
        for max in [None, Some(0), Some(2), Some(u16::MAX)] {
            let mut n = Node::mqtt(shards, |m| m.topic_alias_out_max = 3);
            let c = with_props("s", |p| p.topic_alias_maximum = max);
            let s = n.connected(&c).0;
            n.sub(s, "#", 1);
            let p = n.join(V5, "p");
            let mut known: Vec<Option<String>> = vec![None; 4];
            for round in 0..3 {
                for t in 0..5 {
                    let topic = format!("topic/{t}");
                    n.put(p, &publish(&topic, (round % 2) as u8, "x"));
                    let got = n.msgs(s).remove(0);
                    if let Some(alias) = got.alias {
                        assert!((1..=max.unwrap_or(0).min(3)).contains(&alias), "{alias}");
                        let slot = &mut known[usize::from(alias)];
                        if !got.topic.is_empty() {
                            *slot = Some(got.topic.clone());
                        }
                        assert_eq!(slot.as_ref(), Some(&topic));
                    } else {
                        assert_eq!(got.topic, topic);
                    }
                }
            }
            assert_eq!(known.iter().flatten().count(), usize::from(max.unwrap_or(0).min(3)));
        }
    }
}

// S-26, S-27, S-28. [MQTT-3.3.2-7]
#[test]
fn a_dropped_packet_binds_no_alias_and_a_resend_has_its_topic() {
    let mut n = Node::new(2);
    let c = with_props("s", |p| {
        p.topic_alias_maximum = Some(5);
        p.maximum_packet_size = Some(40);
    });
    let s = n.connected(&c).0;
    n.sub(s, "#", 1);
    let p = n.join(V5, "p");
    n.put(p, &publish("some/topic", 1, &"x".repeat(100)));
    n.put(p, &publish("some/topic", 1, "fits"));
    let first = n.msg(s);
    assert_eq!((first.topic.as_str(), first.alias), ("some/topic", Some(1)));
    n.put(p, &publish("some/topic", 1, "known"));
    let second = n.msg(s);
    assert_eq!((second.topic.as_str(), second.alias), ("", Some(1)));
    n.drop_conn(s);
    let s = n.connected(&c).0;
    let again = n.msg(s);
    assert_eq!(again.topic, "some/topic");
}

// S-80, S-81. [MQTT-4.6.0-5] [MQTT-4.6.0-6] [MQTT-4.5.0-1]
#[test]
fn order_is_kept_through_windows_queues_and_reconnects() {
    for shards in SHARDS {
        for version in VERSIONS {
            let mut n = Node::mqtt(shards, |m| m.max_inflight = 3);
            let mut s = n.resume(version, "s");
            n.sub(s, "#", 2);
            let p = n.join(V5, "p");
            let mut got: Vec<Msg> = Vec::new();
            for round in 0..6_u32 {
                for i in round * 10..round * 10 + 10 {
                    let topic = if i % 3 == 0 { "a" } else { "b" };
                    n.put(p, &publish(topic, 1 + (i % 2) as u8, &i.to_string()));
                }
                if round % 2 == 0 {
                    n.drop_conn(s);
                    continue;
                }
                s = n.resume(version, "s");
                got.extend(n.msgs(s));
            }
            let mut seen = std::collections::HashSet::new();
            got.retain(|m| seen.insert(m.payload.clone()));
            let order: Vec<u32> = got.iter().map(|m| m.text().parse().expect("a number")).collect();
            assert_eq!(order, (0..60).collect::<Vec<_>>(), "{shards} {version:?}");
        }
    }
}

// [MQTT-4.3.2-1] [MQTT-4.3.3-1] [MQTT-2.2.1-4]
#[test]
fn packet_ids_wrap_past_those_in_flight() {
    let mut n = Node::mqtt(2, |m| m.max_inflight = 10);
    let s = n.resume(V311, "s");
    n.sub(s, "t", 1);
    let p = n.join(V5, "p");
    n.put(p, &publish("t", 1, "stays"));
    n.put(p, &publish("t", 1, "stays too"));
    assert_eq!((n.msg(s).id, n.msg(s).id), (1, 2));
    let mut last = 2;
    for _ in 0..65_533 {
        n.put(p, &publish("t", 1, "x"));
        let id = n.msg(s).id;
        assert_eq!(id, last + 1);
        last = id;
        n.ack(s, PacketType::PubAck, id);
    }
    n.put(p, &publish("t", 1, "x"));
    assert_eq!(n.msg(s).id, 3, "1 and 2 are in flight, 0 is none");
}

// Q04
#[test]
fn a_full_queue_drops_the_configured_victim() {
    for (policy, kept) in [(QueueDropPolicy::Oldest, 2..5), (QueueDropPolicy::Newest, 0..3)] {
        let mut n = Node::mqtt(2, |m| {
            m.max_mqueue_len = 3;
            m.mqueue_drop_policy = policy;
        });
        let s = n.resume(V5, "s");
        n.sub(s, "t", 1);
        n.drop_conn(s);
        let p = n.join(V5, "p");
        flood(&mut n, p, "t", 1, 0..5);
        assert_eq!(n.counters().delivery_dropped_queue_full, 2);
        let s = n.resume(V5, "s");
        assert_eq!(texts(&n.msgs(s)), numbers(kept));
    }
}

// Q04
#[test]
fn a_queue_that_rejects_tells_the_publisher_on_any_shard() {
    for shards in SHARDS {
        let mut n = Node::mqtt(shards, |m| {
            m.max_mqueue_len = 2;
            m.mqueue_drop_policy = QueueDropPolicy::Reject;
        });
        let id = n.id_on(shards - 1, "s");
        let s = n.resume(V5, &id);
        n.sub(s, "t", 2);
        n.drop_conn(s);
        let here = n.id_on(0, "p");
        let p = n.join(V5, &here);
        assert_eq!(n.put(p, &publish("t", 1, "0")), 0);
        assert_eq!(n.put(p, &publish("t", 2, "1")), 0);
        assert_eq!(n.put(p, &publish("t", 1, "2")), 0x97);
        assert_eq!(n.put(p, &publish("t", 2, "3")), 0x97);
        let other = n.join(V5, "other");
        n.sub(other, "t", 0);
        assert_eq!(n.put(p, &publish("t", 1, "4")), 0, "somebody took it");
    }
}

/// Several publishes, encoded behind each other: the broker reads them at once.
fn batch(n: &mut Node, p: C, topics: &[(&str, u8)]) -> Vec<u16> {
    let version = n.clients[p].version;
    let (mut bytes, mut ids) = (Vec::new(), Vec::new());
    for (topic, level) in topics {
        let id = n.next_id(p);
        let publish = Publish { packet_id: Some(id), ..publish(topic, *level, "x") };
        Packet::Publish(publish).encode(&mut bytes, version);
        ids.push(id.get());
    }
    n.send_raw(p, &bytes);
    ids
}

// Q04, S-82. [MQTT-4.6.0-2] [MQTT-4.6.0-3] Some answers are known at once, others come from elsewhere.
#[test]
fn acknowledgements_keep_their_order_while_some_wait_for_verdicts() {
    for version in [V311, V5] {
        let mut n = Node::mqtt(3, |m| m.mqueue_drop_policy = QueueDropPolicy::Reject);
        let ids: Vec<String> = (0..3).map(|shard| n.id_on(shard, "c")).collect();
        let p = n.join(version, &ids[0]);
        for shard in [1, 2] {
            let s = n.join(V5, &ids[shard]);
            n.sub(s, &format!("on/{shard}"), 2);
            n.sub(s, "all", 2);
        }
        n.sub(p, "here", 0);
        for level in [1, 2] {
            let topics = ["on/1", "here", "nobody", "all", "here", "on/2", "nobody"];
            let sent = batch(&mut n, p, &topics.map(|t| (t, level)));
            let got = n.recv_all(p);
            let acks: Vec<u16> = got
                .iter()
                .filter_map(|g| match g.packet() {
                    Packet::PubAck(a) | Packet::PubRec(a) => Some(a.packet_id.get()),
                    _ => None,
                })
                .collect();
            assert_eq!(acks, sent, "{version:?}");
        }
    }
}

// Q04. Version 3 knows no Receive Maximum: it is not read while that many wait.
#[test]
fn a_publisher_with_too_many_publishes_under_way_is_not_read() {
    let mut n = Node::mqtt(2, |m| {
        m.mqueue_drop_policy = QueueDropPolicy::Reject;
        m.receive_maximum = 5;
    });
    let (here, there) = (n.id_on(0, "p"), n.id_on(1, "s"));
    let (p, s) = (n.join(V311, &here), n.join(V5, &there));
    n.sub(s, "t", 1);
    batch(&mut n, p, &[("t", 1); 4]);
    assert_eq!(n.recv_all(p).len(), 4);
    assert_eq!(n.counters().overload_delay_verdict, 0);
    batch(&mut n, p, &[("t", 1); 12]);
    assert_eq!(n.recv_all(p).len(), 12);
    assert_eq!(n.counters().overload_delay_verdict, 1);
    assert!(n.is_read(n.clients[p].wire), "all verdicts are in");
    batch(&mut n, p, &[("t", 1); 3]);
    assert_eq!(n.recv_all(p).len(), 3);
}

// Q04, S-33, S-34, S-39: what was refused is not acknowledged because its packet id is known.
#[test]
fn a_refused_qos2_publish_is_not_acknowledged_as_a_repeat() {
    let mut n = Node::mqtt(2, |m| {
        m.max_mqueue_len = 1;
        m.mqueue_drop_policy = QueueDropPolicy::Reject;
    });
    let (here, there) = (n.id_on(0, "p"), n.id_on(1, "s"));
    let s = n.resume(V5, &there);
    n.sub(s, "t", 2);
    n.drop_conn(s);
    let mut p = n.resume(V5, &here);
    assert_eq!(n.put(p, &publish("t", 2, "fills the queue")), 0);
    let bytes = |id: u16, dup: bool| {
        let mut bytes = Vec::new();
        let publish = Publish { packet_id: Some(pid(id)), dup, ..publish("t", 2, "refused") };
        Packet::Publish(publish).encode(&mut bytes, V5);
        bytes
    };
    let codes = |got: Vec<Got>| -> Vec<(u16, u8)> {
        let code = |g: &Got| match g.packet() {
            Packet::PubRec(a) => Some((a.packet_id.get(), a.reason.0)),
            _ => None,
        };
        got.iter().filter_map(code).collect()
    };
    // Repeated before the verdict is in.
    n.send_raw(p, &[bytes(100, false), bytes(100, true)].concat());
    let got = n.recv_all(p);
    assert_eq!(codes(got), [(100, 0x97), (100, 0x97)]);
    // The connection goes before it is in, and the next one repeats.
    let wire = n.clients[p].wire;
    n.write_ahead(wire, &bytes(101, false));
    n.drop_conn(p);
    p = n.resume(V5, &here);
    n.send_raw(p, &bytes(101, true));
    let got = n.recv_all(p);
    assert_eq!(codes(got), [(101, 0x97)]);
}

// Q04, S-39: PUBACK of version 3 can't say that a message was refused, so there is none.
#[test]
fn a_queue_that_rejects_ends_the_connection_of_a_version_3_publisher() {
    for shards in SHARDS {
        for qos in [1, 2] {
            let mut n = Node::mqtt(shards, |m| {
                m.max_mqueue_len = 1;
                m.mqueue_drop_policy = QueueDropPolicy::Reject;
            });
            let id = n.id_on(shards - 1, "s");
            let s = n.resume(V5, &id);
            n.sub(s, "t", 2);
            n.drop_conn(s);
            let here = n.id_on(0, "p");
            let p = n.resume(V311, &here);
            assert_eq!(n.put(p, &publish("t", qos, "0")), 0);
            assert!(n.is_open(p));
            n.publish(p, &publish("t", qos, "1"));
            assert!(n.recv_all(p).is_empty(), "nobody took it");
            assert!(!n.is_open(p));
            // The repeat is a new message, once there is room. [S-34]
            let s = n.resume(V5, &id);
            assert_eq!(texts(&n.msgs(s)), ["0"]);
            let p = n.resume(V311, &here);
            assert_eq!(n.put(p, &publish("t", qos, "1")), 0);
            assert_eq!(texts(&n.msgs(s)), ["1"]);
        }
    }
}

// Q04: bytes
#[test]
fn a_queue_is_also_bounded_in_bytes() {
    let mut n = Node::mqtt(1, |m| m.max_mqueue_bytes = 4_000);
    let s = n.resume(V5, "s");
    n.sub(s, "t", 1);
    n.drop_conn(s);
    let p = n.join(V5, "p");
    for _ in 0..10 {
        n.put(p, &publish("t", 1, &"x".repeat(900)));
    }
    let queued = n.gauges().queued;
    assert!((3..=4).contains(&queued), "{queued}");
    assert_eq!(n.counters().delivery_dropped_queue_full, 10 - queued);
}

// Q05
#[test]
fn priorities_drain_first_and_starve_nobody() {
    let mut n = Node::mqtt(2, |m| {
        m.mqueue_priorities = [("high".to_owned(), 5), ("low".to_owned(), 1)].into();
        m.max_inflight = 1;
    });
    let s = n.resume(V5, "s");
    n.sub(s, "+", 1);
    n.drop_conn(s);
    let p = n.join(V5, "p");
    for i in 0..100 {
        n.put(p, &publish("low", 1, &i.to_string()));
        n.put(p, &publish("high", 1, &i.to_string()));
    }
    let s = n.resume(V5, "s");
    let got = n.msgs(s);
    assert_eq!(got.len(), 200);
    assert!(got[..50].iter().all(|m| m.topic == "high"));
    let low = got.iter().position(|m| m.topic == "low").expect("low");
    assert!(low <= 51, "after ten times its priority the lower one has a turn: {low}");
}

// Q06, D2
#[test]
fn qos_0_is_queued_for_offline_sessions_only_where_configured() {
    for store in [false, true] {
        let mut n = Node::mqtt(2, |m| m.mqueue_store_qos0 = store);
        let s = n.resume(V5, "s");
        n.sub(s, "t", 1);
        n.drop_conn(s);
        let p = n.join(V5, "p");
        n.put(p, &publish("t", 1, "first"));
        n.put(p, &publish("t", 0, "qos 0"));
        n.put(p, &publish("t", 1, "last"));
        let s = n.resume(V5, "s");
        let expect: &[&str] = if store { &["first", "qos 0", "last"] } else { &["first", "last"] };
        assert_eq!(texts(&n.msgs(s)), expect);
        assert_eq!(n.counters().delivery_dropped_qos0_msg, u64::from(!store));
    }
}

// L08
#[test]
fn a_client_that_does_not_read_delays_nobody() {
    let mut n = Node::with(2, |cfg| cfg.limits.out_buffer_bytes = 10_000);
    let (slow, fast, p) = (n.resume(V5, "slow"), n.resume(V5, "fast"), n.join(V5, "p"));
    n.sub(slow, "t", 1);
    n.sub(fast, "t", 1);
    n.stop_reading(n.clients[slow].wire);
    let body = "x".repeat(1_000);
    for _ in 0..30 {
        n.put(p, &publish("t", 0, &body));
        n.put(p, &publish("t", 1, &body));
        assert_eq!(n.msgs(fast).len(), 2);
    }
    assert!(n.counters().delivery_dropped_qos0_msg > 0);
    n.start_reading(n.clients[slow].wire);
    let got = n.msgs(slow);
    assert_eq!(got.iter().filter(|m| m.qos == 1).count(), 30, "no acknowledged one is lost");
}

// L08
#[test]
fn a_slow_consumer_can_be_closed_after_a_grace_time() {
    let mut n = Node::with(1, |cfg| {
        cfg.limits.out_buffer_bytes = 5_000;
        cfg.limits.slow_consumer_policy = SlowConsumerPolicy::Disconnect;
        cfg.limits.slow_consumer_grace_s = 10;
    });
    let (slow, p) = (n.join(V5, "slow"), n.join(V5, "p"));
    n.sub(slow, "t", 0);
    n.stop_reading(n.clients[slow].wire);
    for _ in 0..10 {
        n.put(p, &publish("t", 0, &"x".repeat(1_000)));
    }
    n.pass_ms(9_000);
    assert!(n.is_open(slow));
    n.pass_ms(2_000);
    assert!(!n.is_open(slow));
    assert_eq!(n.counters().slow_consumers_closed, 1);
}

// W15, P01: large payloads are shared between sockets, with the same bytes.
#[test]
fn large_payloads_arrive_whole() {
    for shards in SHARDS {
        let mut n = Node::mqtt(shards, |m| m.max_packet_size = 3 << 20);
        let subscribers = n.join_each(V5, "s");
        let old = n.join(V311, "old");
        for s in subscribers.iter().chain([&old]) {
            n.sub(*s, "t", 2);
        }
        let p = n.join(V5, "p");
        let body: String = (0..2_000_000_u32).map(|i| char::from(b'a' + (i % 23) as u8)).collect();
        for level in 0..3 {
            n.put(p, &publish("t", level, &body));
            for s in subscribers.iter().chain([&old]) {
                let got = n.msgs(*s);
                assert!(got.len() == 1 && got[0].text() == body);
            }
        }
    }
}

// W14
#[test]
fn segmentation_changes_nothing() {
    let mut script = Vec::new();
    connect(V5, "a").encode(&mut script);
    ringmain_mqtt::encode::subscribe(&mut script, V5, pid(1), Some(7), &[("t/#", sub_opts(2))]);
    for i in 0..40_u16 {
        let body = "x".repeat(usize::from(i) * 997);
        let packet_id = (i % 3 != 0).then(|| pid(i + 2));
        Publish { packet_id, ..publish("t/1", (i % 3) as u8, &body) }.encode(&mut script, V5);
    }
    script.extend_from_slice(&[0xC0, 0]);
    let mut outputs = Vec::new();
    for (shards, size) in [(1, usize::MAX), (1, 1), (1, 2), (2, 1_000), (5, 65_536), (5, 7)] {
        let mut n = Node::new(shards);
        let wire = n.open();
        for segment in script.chunks(size.min(script.len())) {
            n.write(wire, segment);
        }
        outputs.push(n.wires[wire].to_client.clone());
    }
    for (i, o) in outputs.iter().enumerate() {
        assert!(*o == outputs[0], "{i}: {} {}", o.len(), outputs[0].len());
    }
}

// [MQTT-3.14.4-1] [MQTT-3.14.4-2] [MQTT-3.14.2-2] S-09
#[test]
fn after_its_disconnect_the_broker_writes_nothing_and_closes() {
    let mut n = Node::new(2);
    let (a, p) = (n.resume(V5, "a"), n.join(V5, "p"));
    n.sub(a, "t", 1);
    n.send_raw(a, &[0x40, 2, 0, 0]); // PUBACK of id 0
    let got = n.recv(a);
    let Packet::Disconnect(d) = got.packet() else { panic!("{got:?}") };
    assert_eq!(d.session_expiry_s, None);
    n.put(p, &publish("t", 0, "x")); // the harness panics at a write behind a close
    n.put(p, &publish("t", 1, "x"));
    assert!(n.poll(a).is_none() && !n.is_open(a));
}
