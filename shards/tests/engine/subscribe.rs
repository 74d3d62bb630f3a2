//! SUBSCRIBE and UNSUBSCRIBE: codes, options, matching, barriers.

use ringmain_mqtt::{Packet, PacketType, RetainHandling, SubscribeOptions, encode};
use ringmain_shards::engine::config::Overlap;

use crate::support::*;

fn no_local(level: u8) -> SubscribeOptions {
    SubscribeOptions { no_local: true, ..sub_opts(level) }
}

// P13. [MQTT-3.8.4-1] [MQTT-3.8.4-2] [MQTT-3.8.4-5] [MQTT-3.8.4-6] [MQTT-3.8.4-7] [MQTT-3.9.3-1]
// [MQTT-2.2.1-6] [MQTT311-3.8.4-1] [MQTT311-3.8.4-2] [MQTT311-3.8.4-4] [MQTT311-3.8.4-5]
// [MQTT311-3.9.3-1] [MQTT311-3.9.3-2] [MQTT311-2.3.1-7]
#[test]
fn one_subscribe_gets_one_suback_with_a_code_for_each_filter_in_order() {
    for shards in SHARDS {
        for version in VERSIONS {
            let mut n = Node::new(shards);
            let s = n.join(version, "s");
            let filters: Vec<String> = (0..1_000)
                .map(|i| match i % 5 {
                    0 => format!("f{i}/#/x"), // invalid
                    1 => format!("$share/g{i}/t"),
                    _ => format!("f{i}"),
                })
                .collect();
            let list: Vec<_> = filters
                .iter()
                .enumerate()
                .map(|(i, f)| (f.as_str(), sub_opts((i % 3) as u8)))
                .collect();
            let mut bytes = Vec::new();
            encode::subscribe(&mut bytes, version, pid(777), None, &list);
            n.send_raw(s, &bytes);
            let got = n.recv(s);
            let Packet::SubAck(ack) = got.packet() else { panic!("{got:?}") };
            assert_eq!(ack.packet_id, pid(777));
            for (i, code) in got.codes().into_iter().enumerate() {
                let refused = match version {
                    V5 => 0x8F,
                    V311 => 0x80,
                    _ => 0, // W01: 3.1 cannot say it
                };
                assert_eq!(code, if i % 5 == 0 { refused } else { (i % 3) as u8 }, "{i}");
            }
            assert_eq!(got.codes().len(), 1_000);
            n.quiet(s);
        }
    }
}

// S-52. [MQTT-4.7.1-1] [MQTT-4.7.1-2]
#[test]
fn invalid_filters_get_0x8f() {
    let mut n = Node::mqtt(2, |m| m.max_topic_levels = 3);
    let s = n.join(V5, "s");
    for filter in [
        "a#",
        "#/a",
        "a+/b",
        "+a",
        "",
        "a/b/c/d",
        "$share/g",
        "$share//t",
        "$share/g/",
        "$share/+/t",
        "$share/#/t",
        "$queue/",
        "$exclusive/",
    ] {
        assert_eq!(n.sub(s, filter, 0), 0x8F, "{filter}");
        assert_eq!(n.unsub(s, filter), 0x8F, "{filter}");
    }
    assert_eq!(n.gauges().filters, 0);
}

// P14. [MQTT-3.10.4-1] [MQTT-3.10.4-4] [MQTT-3.10.4-5] [MQTT-3.10.4-6] [MQTT-3.11.3-1]
// [MQTT311-3.10.4-1] [MQTT311-3.10.4-4] [MQTT311-3.10.4-5] [MQTT311-3.10.4-6]
#[test]
fn unsubscribe_compares_strings_and_says_0x11_for_unknown_ones() {
    for shards in SHARDS {
        for version in VERSIONS {
            let mut n = Node::new(shards);
            let s = n.join(version, "s");
            n.sub(s, "a/+", 0);
            n.sub(s, "a/b", 0);
            let mut bytes = Vec::new();
            let list = ["a/c", "a/+", "A/b", "#", "a/+"];
            encode::unsubscribe(&mut bytes, version, pid(99), &list);
            n.send_raw(s, &bytes);
            let got = n.recv(s);
            let Packet::UnsubAck(ack) = got.packet() else { panic!("{got:?}") };
            assert_eq!(ack.packet_id, pid(99));
            if version == V5 {
                assert_eq!(got.codes(), [0x11, 0, 0x11, 0x11, 0x11]);
            }
            let p = n.join(V5, "p");
            n.put(p, &publish("a/b", 0, "x"));
            assert_eq!(n.msgs(s).len(), 1);
            n.put(p, &publish("a/c", 0, "x"));
            n.quiet(s);
        }
    }
}

// [MQTT-3.8.3-2] [MQTT-3.10.3-2] [MQTT-3.8.3-5] [MQTT-4.13.1-1] [MQTT-2.1.3-1] [MQTT-3.8.3-1]
// [MQTT-3.10.3-1] S-49, W07
// [MQTT311-3.8.3-3] [MQTT311-3.8.3-4] [MQTT311-3.10.3-2] [MQTT311-2.2.2-2] [MQTT311-2.3.1-1]
// [MQTT311-3.8.3-1] [MQTT311-3.10.3-1]
#[test]
fn malformed_requests_end_the_connection() {
    let t = raw::field(b"t");
    let null = raw::field(b"t\0");
    let cases: [(u8, Vec<u8>, bool); 9] = [
        (0x82, raw::cat(&[&[0, 1]]), true), // no filter
        (0xA2, raw::cat(&[&[0, 1]]), true),
        (0x82, raw::cat(&[&[0, 1], &t, &[3]]), true), // QoS 3
        (0x82, raw::cat(&[&[0, 1], &t, &[0xC0]]), true), // reserved bits
        (0x82, raw::cat(&[&[0, 0], &t, &[0]]), true), // id 0
        (0x80, raw::cat(&[&[0, 1], &t, &[0]]), true), // flags
        (0xA0, raw::cat(&[&[0, 1], &t]), true),
        (0x82, raw::cat(&[&[0, 1], &null, &[0]]), true),
        (0xA2, raw::cat(&[&[0, 1], &null]), true),
    ];
    for version in [V311, V5] {
        for (first, body, _) in &cases {
            let mut body = body.clone();
            if version == V5 {
                body.insert(2, 0);
            }
            let mut n = Node::new(1);
            let s = n.join(version, "s");
            n.send_raw(s, &raw::packet(*first, &body));
            let code = n.closed(s);
            assert_eq!(code.is_some(), version == V5, "{first:02x} {body:02x?}");
            assert!(code.is_none_or(|c| matches!(c, 0x81 | 0x82)), "{code:?}");
            assert_eq!(n.gauges().subscriptions, 0);
        }
    }
}

// S-49, P11. [MQTT-3.8.3-4]
#[test]
fn no_local_on_a_shared_subscription_and_identifier_0_are_protocol_errors() {
    let mut n = Node::new(1);
    let s = n.join(V5, "s");
    n.subscribe(s, &[("$share/g/t", no_local(0))], None);
    assert_eq!(n.closed(s), Some(0x82));
    let s = n.join(V5, "s");
    let body = raw::cat(&[&[0, 1, 2, 0x0B, 0], &raw::field(b"t"), &[0]]);
    n.send_raw(s, &raw::packet(0x82, &body));
    assert_eq!(n.closed(s), Some(0x82));
    let s = n.join(V5, "s");
    let body = raw::cat(&[&[0, 1, 0], &raw::field(b"t"), &[0x30]]); // Retain Handling 3
    n.send_raw(s, &raw::packet(0x82, &body));
    assert!(matches!(n.closed(s), Some(0x81 | 0x82)), "S-40");
}

// C12. [MQTT311-3.8.3-2]
#[test]
fn what_is_switched_off_is_refused_with_its_own_code() {
    let mut n = Node::mqtt(2, |m| {
        m.wildcard_available = false;
        m.shared_available = false;
        m.subscription_id_available = false;
    });
    let (s, old) = (n.join(V5, "s"), n.join(V311, "old"));
    assert_eq!(n.sub(s, "a/+", 0), 0xA2);
    assert_eq!(n.sub(s, "$share/g/t", 0), 0x9E);
    assert_eq!(n.sub(s, "$queue/t", 0), 0x9E);
    assert_eq!(n.sub(s, "a/b", 2), 2);
    assert_eq!(n.sub(old, "#", 0), 0x80);
    n.subscribe(s, &[("t", sub_opts(0))], Some(1));
    assert_eq!(n.closed(s), Some(0xA1));
}

// P15
#[test]
fn the_subscription_after_the_last_gets_0x97() {
    for shards in [1, 2] {
        let mut n = Node::mqtt(shards, |m| m.max_subscriptions = 2);
        let s = n.join(V5, "s");
        assert_eq!(n.sub(s, "a", 0), 0);
        assert_eq!(n.sub(s, "$share/g/b", 1), 1);
        for filter in ["c", "$share/g/c", "$exclusive/c"] {
            assert_eq!(n.sub(s, filter, 0), 0x97, "{filter}");
        }
        assert_eq!(n.sub(s, "a", 2), 2, "replacing is no new one");
        assert_eq!(n.sub(s, "$share/g/b", 0), 0);
        assert_eq!(n.unsub(s, "a"), 0);
        assert_eq!(n.sub(s, "c", 1), 1);
    }
}

// S-50, S-51, S-54, P12. [MQTT-4.7.2-1] [MQTT-4.7.3-4] [MQTT-3.3.2-3] [MQTT-4.7.1-1]
// [MQTT311-4.7.2-1] [MQTT311-4.7.3-4] [MQTT311-3.3.2-3]
#[test]
fn filters_match_as_the_standard_says() {
    let nfc = "\u{e9}";
    let nfd = "e\u{301}";
    let table: [(&str, &[&str], &[&str]); 13] = [
        ("sport/#", &["sport", "sport/", "sport/a/b"], &["sports", "/sport"]),
        ("sport/+", &["sport/", "sport/a"], &["sport", "sport/a/b"]),
        ("+", &["a", "sport"], &["/a", "a/b", "$x"]),
        ("+/+", &["/a", "a/", "/"], &["a", "a/b/c"]),
        ("/+", &["/a"], &["a/a"]),
        ("/a", &["/a"], &["a"]),
        ("a//b", &["a//b"], &["a/b", "a///b"]),
        ("a/+/b", &["a//b", "a/x/b"], &["a/b"]),
        ("#", &["a", "/", "a/b/c"], &["$x", "$x/y"]),
        ("+/y", &["x/y"], &["$x/y"]),
        ("$x/#", &["$x", "$x/y"], &["x"]),
        (nfc, &[nfc], &[nfd, "e"]),
        ("A/\u{FEFF}b", &["A/\u{FEFF}b"], &["a/\u{FEFF}b", "A/b"]),
    ];
    for shards in SHARDS {
        for prefix in ["", "$share/g/", "$queue/", "$exclusive/"] {
            for (filter, yes, no) in table {
                let mut n = Node::new(shards);
                let s = n.join(V5, "s");
                assert_eq!(n.sub(s, &format!("{prefix}{filter}"), 0), 0);
                let p = n.join(V5, "p");
                for topic in yes {
                    n.put(p, &publish(topic, 0, "x"));
                    let got = n.msgs(s);
                    assert_eq!(got.len(), 1, "{prefix}{filter} {topic}");
                    assert_eq!(got[0].topic.as_bytes(), topic.as_bytes());
                }
                for topic in no {
                    assert_eq!(n.put(p, &publish(topic, 1, "x")), 0x10, "{prefix}{filter} {topic}");
                }
                n.quiet(s);
            }
        }
    }
}

// W15. [MQTT-4.7.3-3]
#[test]
fn topics_and_filters_of_65_535_bytes_work() {
    for shards in SHARDS {
        let mut n = Node::new(shards);
        let s = n.resume(V5, "s");
        let long = "x".repeat(65_535);
        let wild = format!("{}/+", "y".repeat(65_533));
        let topic = format!("{}/z", "y".repeat(65_533));
        assert_eq!(n.sub(s, &long, 2), 2);
        assert_eq!(n.sub(s, &wild, 1), 1);
        let p = n.join(V311, "p");
        for level in 0..3 {
            n.put(p, &publish(&long, level, "a"));
            n.put(p, &publish(&topic, level, "b"));
            let got = n.msgs(s);
            assert!(got.len() == 2 && got[0].topic == long && got[1].topic == topic);
        }
        assert_eq!(n.unsub(s, &long), 0);
        assert_eq!(n.unsub(s, &wild), 0);
    }
}

// S-47, P11. [MQTT-3.3.4-2] [MQTT-3.3.4-3] [MQTT-3.3.4-4] [MQTT-3.3.4-5] [MQTT311-3.3.5-1]
#[test]
fn overlapping_filters_give_one_copy_at_the_highest_qos_with_all_identifiers() {
    for shards in SHARDS {
        for overlap in [Overlap::Merge, Overlap::Each] {
            let mut n = Node::mqtt(shards, |m| m.overlap = overlap);
            let s = n.join(V5, "s");
            n.sub_with(s, "a/#", sub_opts(0), Some(1));
            n.sub_with(s, "a/+", sub_opts(2), Some(268_435_455));
            n.sub_with(s, "a/b", sub_opts(1), None);
            let p = n.join(V5, "p");
            n.put(p, &publish("a/b", 2, "x"));
            let mut got = n.msgs(s);
            if overlap == Overlap::Merge {
                assert_eq!(got.len(), 1);
                assert_eq!(got[0].qos, 2);
                got[0].sub_ids.sort_unstable();
                assert_eq!(got[0].sub_ids, [1, 268_435_455]);
            } else {
                let mut seen: Vec<_> = got.iter().map(|m| (m.qos, m.sub_ids.clone())).collect();
                seen.sort();
                assert_eq!(seen, [(0, vec![1]), (1, vec![]), (2, vec![268_435_455])]);
            }
        }
    }
}

// S-48. [MQTT-3.8.4-3]
#[test]
fn subscribing_again_replaces_options_and_identifier() {
    for prefix in ["", "$share/g/", "$exclusive/"] {
        let mut n = Node::new(2);
        let s = n.resume(V5, "s");
        let filter = format!("{prefix}t");
        n.sub_with(s, &filter, sub_opts(2), Some(5));
        let p = n.join(V5, "p");
        n.put(p, &publish("t", 2, "1"));
        let mut got = n.msgs(s);
        n.sub_with(s, &filter, sub_opts(1), None);
        n.put(p, &publish("t", 2, "2"));
        got.extend(n.msgs(s));
        let seen: Vec<_> = got.iter().map(|m| (m.qos, m.sub_ids.clone())).collect();
        assert_eq!(seen, [(2, vec![5]), (1, vec![])], "{filter}");
        assert_eq!(
            n.gauges().subscriptions + n.gauges().shared_subscriptions,
            1 + u64::from(prefix == "$exclusive/")
        );
    }
}

// S-48
#[test]
fn queued_and_resent_copies_carry_the_identifier() {
    let mut n = Node::new(2);
    let s = n.resume(V5, "s");
    n.sub_with(s, "t", sub_opts(1), Some(5));
    let p = n.join(V5, "p");
    n.put(p, &publish("t", 1, "sent"));
    n.drop_conn(s);
    n.put(p, &publish("t", 1, "queued"));
    let s = n.resume(V5, "s");
    assert!(n.msgs(s).iter().all(|m| m.sub_ids == [5]));
}

// S-49, P10, P20. [MQTT-3.8.3-3]
#[test]
fn no_local_keeps_own_messages_away() {
    for shards in SHARDS {
        let mut n = Node::new(shards);
        let (a, b) = (n.join(V5, "a"), n.join(V5, "b"));
        n.sub_with(a, "t", no_local(1), None);
        n.sub_with(a, "+", no_local(1), None);
        n.put(a, &publish("t", 1, "own"));
        n.quiet(a);
        n.put(b, &publish("t", 1, "other"));
        assert_eq!(texts(&n.msgs(a)), ["other"]);
        assert!(n.counters().delivery_dropped_no_local > 0);
    }
    let mut n = Node::mqtt(2, |m| m.ignore_loop_deliver = true);
    let (a, b) = (n.join(V311, "a"), n.join(V5, "b"));
    n.sub(a, "t", 1);
    n.sub(b, "t", 1);
    n.put(a, &publish("t", 0, "own"));
    n.put(b, &publish("t", 0, "own of 5"));
    assert_eq!(texts(&n.msgs(a)), ["own of 5"]);
    assert_eq!(texts(&n.msgs(b)), ["own", "own of 5"]);
}

// S-41. [MQTT-3.3.1-12] [MQTT-3.3.1-13] [MQTT311-3.3.1-9]
#[test]
fn retain_as_published_decides_on_the_flag_of_live_and_queued_copies() {
    for shards in SHARDS {
        let mut n = Node::new(shards);
        let (keeps, clears, old) = (n.resume(V5, "k"), n.resume(V5, "c"), n.resume(V311, "o"));
        let rap = SubscribeOptions {
            retain_as_published: true,
            retain_handling: RetainHandling::DoNotSend,
            ..sub_opts(1)
        };
        n.sub_with(keeps, "t", rap, None);
        n.sub(clears, "t", 1);
        n.sub(old, "t", 1);
        let p = n.join(V5, "p");
        // An empty one is forwarded and stores nothing.
        n.put(p, &retained("t", 1, ""));
        n.put(p, &publish("t", 1, "x"));
        assert_eq!(n.msgs(keeps).iter().map(|m| m.retain).collect::<Vec<_>>(), [true, false]);
        for c in [clears, old] {
            assert!(n.msgs(c).iter().all(|m| !m.retain));
        }
        n.drop_conn(keeps);
        n.put(p, &retained("t", 1, ""));
        let keeps = n.resume(V5, "k");
        assert!(n.msgs(keeps)[0].retain);
    }
}

// S-55. [MQTT-3.10.4-2]
#[test]
fn barriers_hold_between_shards() {
    for shards in SHARDS {
        for at in 0..shards {
            let mut n = Node::new(shards);
            let id = n.id_on(at, "s");
            let s = n.join(V5, &id);
            let publishers = n.join_each(V5, "p");
            for filter in ["t", "+", "#", "$share/g/t", "$exclusive/t", "$queue/t"] {
                n.sub(s, filter, 0);
                for p in &publishers {
                    n.put(*p, &publish("t", 0, "in"));
                }
                assert_eq!(n.msgs(s).len(), shards, "{filter}");
                assert_eq!(n.unsub(s, filter), 0);
                for p in &publishers {
                    assert_eq!(n.put(*p, &publish("t", 1, "out")), 0x10, "{filter}");
                }
                n.quiet(s);
            }
        }
    }
}

// S-55. [MQTT-3.10.4-3] [MQTT311-3.10.4-2] [MQTT311-3.10.4-3]
#[test]
fn deliveries_that_have_begun_complete_after_unsubscribe() {
    let mut n = Node::new(2);
    let s = n.resume(V5, "s");
    n.sub(s, "t", 2);
    let p = n.join(V5, "p");
    n.put(p, &publish("t", 1, "1"));
    n.put(p, &publish("t", 2, "2"));
    n.put(p, &publish("t", 2, "3"));
    let ids: Vec<u16> = (0..3).map(|_| n.msg(s).id).collect();
    n.ack(s, PacketType::PubRec, ids[1]);
    n.recv(s);
    assert_eq!(n.unsub(s, "t"), 0);
    n.drop_conn(s);
    let s = n.resume(V5, "s");
    let got = n.recv_all(s);
    let names: Vec<_> = got.iter().map(Got::name).collect();
    assert_eq!(names, ["PUBLISH", "PUBREL", "PUBLISH"]);
    n.ack(s, PacketType::PubAck, ids[0]);
    n.ack(s, PacketType::PubComp, ids[1]);
    n.ack(s, PacketType::PubRec, ids[2]);
    assert_eq!(n.recv(s).name(), "PUBREL");
    n.ack(s, PacketType::PubComp, ids[2]);
    assert_eq!(n.gauges().inflight, 0);
}

// C04: an answer that can't be shortened and does not fit.
#[test]
fn a_suback_that_does_not_fit_ends_with_0x95() {
    let mut n = Node::new(1);
    let mut c = persistent(V5, "s");
    c.props.maximum_packet_size = Some(30);
    let s = n.connected(&c).0;
    let list = vec![("t", sub_opts(0)); 25];
    n.subscribe(s, &list, None);
    assert_eq!(n.recv(s).codes().len(), 25);
    n.subscribe(s, &vec![("t", sub_opts(0)); 26], None);
    assert_eq!(n.closed(s), Some(0x95));
}

// A plain and an exclusive subscription to one filter do not touch each other.
#[test]
fn an_exclusive_and_a_plain_subscription_of_one_client_are_independent() {
    for plain_first in [false, true] {
        for drop_plain in [false, true] {
            let mut n = Node::new(2);
            let s = n.join(V5, "s");
            let order = if plain_first { ["t", "$exclusive/t"] } else { ["$exclusive/t", "t"] };
            for filter in order {
                n.sub(s, filter, 0);
            }
            let p = n.join(V5, "p");
            n.put(p, &publish("t", 0, "both"));
            assert_eq!(n.msgs(s).len(), 1);
            let (gone, left) =
                if drop_plain { ("t", "$exclusive/t") } else { ("$exclusive/t", "t") };
            assert_eq!(n.unsub(s, gone), 0, "{plain_first} {drop_plain}");
            n.put(p, &publish("t", 0, "one"));
            assert_eq!(texts(&n.msgs(s)), ["one"], "{plain_first} {drop_plain}");
            assert_eq!(n.unsub(s, left), 0);
            assert_eq!(n.put(p, &publish("t", 1, "none")), 0x10);
        }
    }
}

// 10,000 subscriptions of one client, and one filter with many subscribers.
#[test]
fn many_subscriptions_and_many_subscribers_work() {
    let mut n = Node::new(5);
    let s = n.join(V5, "s");
    let filters: Vec<String> = (0..10_000).map(|i| format!("f/{i}/+")).collect();
    for chunk in filters.chunks(500) {
        let list: Vec<_> = chunk.iter().map(|f| (f.as_str(), sub_opts(0))).collect();
        n.subscribe(s, &list, None);
        assert_eq!(n.recv(s).codes().len(), 500);
    }
    let many: Vec<C> = (0..1_000).map(|i| n.join(V311, &format!("m{i}"))).collect();
    for m in &many {
        n.sub(*m, "f/#", 1);
    }
    let p = n.join(V5, "p");
    n.put(p, &publish("f/4711/x", 1, "x"));
    assert_eq!(n.msgs(s).len(), 1);
    for m in many {
        assert_eq!(n.msgs(m).len(), 1);
    }
}
