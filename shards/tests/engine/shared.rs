//! Shared subscriptions and exclusive filters.

use std::collections::BTreeMap;

use ringmain_mqtt::{ConnectProps, PacketType, Version, encode};
use ringmain_shards::engine::config::{Redispatch, Strategy};

use crate::support::*;

fn members(n: &mut Node, version: Version, filter: &str, count: usize) -> Vec<C> {
    let mut out = Vec::new();
    for i in 0..count {
        let m = n.resume(version, &format!("m{i}"));
        assert_eq!(n.sub(m, filter, 2), 2);
        out.push(m);
    }
    out
}

fn counts(n: &mut Node, members: &[C]) -> Vec<usize> {
    members.iter().map(|m| n.msgs(*m).len()).collect()
}

// H01, H02, S-61. Each message to one member, of any version, on any shard.
#[test]
fn each_message_goes_to_exactly_one_member() {
    for shards in SHARDS {
        for filter in ["$share/g/t/#", "$queue/t/#", "$oshare/g/t/#"] {
            for level in 0..3 {
                let mut n = Node::new(shards);
                let mut all = members(&mut n, V5, filter, 3);
                let old = n.join(V311, "old");
                n.sub(old, filter, 2);
                all.push(old);
                let p = n.join(V5, "p");
                let mut got = Vec::new();
                for i in 0..40 {
                    assert_eq!(n.put(p, &publish("t/1", level, &i.to_string())), 0);
                    for m in &all {
                        got.extend(n.msgs(*m));
                    }
                }
                let mut seen: Vec<u32> = got.iter().map(|m| m.text().parse().expect("n")).collect();
                seen.sort_unstable();
                assert_eq!(seen, (0..40).collect::<Vec<_>>(), "{shards} {filter} {level}");
            }
        }
    }
}

// S-60, S-61. [MQTT-4.8.2-1] [MQTT-4.8.2-2]
#[test]
fn groups_are_apart_from_each_other_and_from_ordinary_subscriptions() {
    for shards in SHARDS {
        let mut n = Node::new(shards);
        let s = n.join(V5, "s");
        for filter in ["$share/a/t", "$share/b/t", "$share/a/+", "t", "$queue/t"] {
            assert_eq!(n.sub(s, filter, 0), 0);
        }
        let p = n.join(V5, "p");
        n.put(p, &publish("t", 0, "x"));
        assert_eq!(n.msgs(s).len(), 5);
        assert_eq!(n.unsub(s, "$share/c/t"), 0x11);
        assert_eq!(n.unsub(s, "$share/a/t"), 0);
        n.put(p, &publish("t", 0, "x"));
        assert_eq!(n.msgs(s).len(), 4);
    }
}

// S-51
#[test]
fn wildcards_of_groups_do_not_see_dollar_topics() {
    let mut n = Node::new(2);
    let s = n.join(V5, "s");
    n.sub(s, "$share/g/#", 0);
    n.sub(s, "$share/g/+/x", 0);
    let p = n.join(V5, "p");
    n.put(p, &publish("$priv/x", 0, "x"));
    n.quiet(s);
}

// S-62. [MQTT-4.8.2-3]
#[test]
fn a_member_gets_its_own_granted_qos() {
    for shards in SHARDS {
        for (sent, granted) in (0..3).flat_map(|s| (0..3).map(move |g| (s, g))) {
            let mut n = Node::new(shards);
            let s = n.join(V5, "s");
            n.sub(s, "$share/g/t", granted);
            let p = n.join(V5, "p");
            for _ in 0..50 {
                n.put(p, &publish("t", sent, "x"));
                assert_eq!(n.msgs(s)[0].qos, sent.min(granted));
            }
        }
    }
}

// H03
#[test]
fn strategies_pick_as_they_say() {
    for shards in SHARDS {
        for strategy in [
            Strategy::Random,
            Strategy::RoundRobin,
            Strategy::RoundRobinPerGroup,
            Strategy::Sticky,
            Strategy::Local,
            Strategy::HashClientId,
            Strategy::HashTopic,
            Strategy::LeastInflight,
        ] {
            let mut n = Node::with(shards, |cfg| {
                cfg.shared.group_strategies = BTreeMap::from([("g".to_owned(), strategy)]);
            });
            let all = members(&mut n, V5, "$share/g/+", 4);
            let p = n.join(V5, "p");
            for i in 0..400 {
                n.put(p, &publish(&format!("t{}", i % 40), 1, "x"));
            }
            // Nobody acknowledges before the end, but for those whose window would fill.
            let got: Vec<Vec<Msg>> = all.iter().map(|m| n.msgs(*m)).collect();
            let counts: Vec<usize> = got.iter().map(Vec::len).collect();
            assert_eq!(counts.iter().sum::<usize>(), 400, "{strategy:?} {counts:?}");
        }
    }
}

// H03
#[test]
fn each_strategy_shares_out_as_its_name_says() {
    for shards in SHARDS {
        let run = |strategy| {
            let mut n = Node::with(shards, |cfg| cfg.shared.strategy = strategy);
            let all = members(&mut n, V5, "$share/g/+", 4);
            let (p, q) = (n.join(V5, "p"), n.join(V5, "q"));
            let mut by: Vec<Vec<String>> = vec![Vec::new(); 4];
            for i in 0..400 {
                let from = if i % 2 == 0 { p } else { q };
                n.put(from, &publish(&format!("t{}", i % 40), 1, "x"));
                for (at, m) in all.iter().enumerate() {
                    by[at].extend(n.msgs(*m).into_iter().map(|m| m.topic));
                }
            }
            by
        };
        let counts = |s| run(s).iter().map(Vec::len).collect::<Vec<_>>();
        // Exactly in turn.
        assert_eq!(counts(Strategy::RoundRobinPerGroup), [100; 4]);
        assert_eq!(counts(Strategy::RoundRobin), [100; 4]);
        assert_eq!(counts(Strategy::LeastInflight), [100; 4]);
        // χ² with three degrees of freedom: 16.3 is p = 0.001.
        let random = counts(Strategy::Random);
        let chi: f64 = random.iter().map(|c| (*c as f64 - 100.0).powi(2) / 100.0).sum();
        assert!(chi < 16.3, "{random:?}");
        let mut sticky = counts(Strategy::Sticky);
        sticky.sort_unstable();
        assert_eq!(sticky, [0, 0, 0, 400]);
        assert!(counts(Strategy::HashClientId).iter().filter(|c| **c > 0).count() <= 2);
        let mut owner = BTreeMap::new();
        for (at, topics) in run(Strategy::HashTopic).iter().enumerate() {
            for t in topics {
                assert_eq!(*owner.entry(t.clone()).or_insert(at), at, "one topic, one member");
            }
        }
    }
}

// H03: stable while others come and go
#[test]
fn a_hash_moves_only_what_it_must() {
    let mut n = Node::with(2, |cfg| cfg.shared.strategy = Strategy::HashTopic);
    let all = members(&mut n, V5, "$share/g/+", 4);
    let p = n.join(V5, "p");
    let round = |n: &mut Node| {
        let mut owner = BTreeMap::new();
        for i in 0..60 {
            n.put(p, &publish(&format!("t{i}"), 0, "x"));
            for (at, m) in all.iter().enumerate() {
                if !n.msgs(*m).is_empty() {
                    owner.insert(i, at);
                }
            }
        }
        owner
    };
    let before = round(&mut n);
    n.unsub(all[3], "$share/g/+");
    let after = round(&mut n);
    assert!(before.iter().all(|(i, at)| *at == 3 || after[i] == *at));
}

// H03
#[test]
fn local_prefers_members_on_the_shard_of_the_publisher() {
    let mut n = Node::with(2, |cfg| cfg.shared.strategy = Strategy::Local);
    let (a, b) = (n.id_on(0, "a"), n.id_on(1, "b"));
    let (a, b) = (n.join(V5, &a), n.join(V5, &b));
    n.sub(a, "$share/g/t", 0);
    n.sub(b, "$share/g/t", 0);
    let publishers = n.join_each(V5, "p");
    for _ in 0..20 {
        n.put(publishers[0], &publish("t", 0, "0"));
        n.put(publishers[1], &publish("t", 0, "1"));
    }
    assert_eq!(texts(&n.msgs(a)), ["0"; 20]);
    assert_eq!(texts(&n.msgs(b)), ["1"; 20]);
}

// H04
#[test]
fn least_inflight_spares_a_member_that_does_not_acknowledge() {
    let mut n = Node::with(2, |cfg| cfg.shared.strategy = Strategy::LeastInflight);
    let all = members(&mut n, V5, "$share/g/t", 4);
    let p = n.join(V5, "p");
    let mut quick = 0;
    for _ in 0..200 {
        n.put(p, &publish("t", 1, "x"));
        quick += counts(&mut n, &all[1..]).iter().sum::<usize>();
    }
    assert!(quick >= 199, "{quick}");
}

// H05, S-84
#[test]
fn oshare_keeps_a_publisher_with_one_member() {
    for shards in SHARDS {
        let mut n = Node::new(shards);
        let all = members(&mut n, V5, "$oshare/g/t", 4);
        for i in 0..8 {
            let p = n.join(V5, &format!("p{i}"));
            for k in 0..10 {
                n.put(p, &publish("t", 1, &k.to_string()));
            }
            let got: Vec<Vec<Msg>> = all.iter().map(|m| n.msgs(*m)).collect();
            let with: Vec<&Vec<Msg>> = got.iter().filter(|g| !g.is_empty()).collect();
            assert_eq!(with.len(), 1);
            assert_eq!(texts(with[0]), (0..10).map(|k| k.to_string()).collect::<Vec<_>>());
        }
    }
}

// S-63, H06
#[test]
fn what_a_member_did_not_acknowledge_moves_when_its_session_ends() {
    for shards in SHARDS {
        for redispatch in [Redispatch::Immediate, Redispatch::OnSessionEnd] {
            let mut n = Node::with(shards, |cfg| cfg.shared.redispatch = redispatch);
            let (a, b) = (n.join(V5, "a"), n.join(V5, "b"));
            n.sub(a, "$share/g/t", 1);
            let p = n.join(V5, "p");
            for i in 0..5 {
                n.put(p, &publish("t", 1, &i.to_string()));
            }
            n.sub(b, "$share/g/t", 1);
            assert_eq!(n.recv_all(a).len(), 5);
            n.drop_conn(a); // a clean session: it ends
            let mut got: Vec<String> = n.msgs(b).iter().map(|m| m.text().to_owned()).collect();
            got.sort();
            assert_eq!(got, ["0", "1", "2", "3", "4"], "{shards} {redispatch:?}");
            n.quiet(b);
        }
    }
}

// S-63, S-68, S-03
#[test]
fn what_was_sent_stays_with_a_session_that_goes_on() {
    for shards in SHARDS {
        let mut n = Node::new(shards);
        let (a, b) = (n.resume(V5, "a"), n.resume(V5, "b"));
        n.sub(a, "$share/g/t", 1);
        let p = n.join(V5, "p");
        n.put(p, &publish("t", 1, "sent"));
        n.sub(b, "$share/g/t", 1);
        n.drop_conn(a);
        n.put(p, &publish("t", 1, "while away"));
        assert_eq!(texts(&n.msgs(b)), ["while away"], "S-66: who is offline is skipped");
        let a = n.resume(V5, "a");
        let a2 = n.resume(V5, "a"); // takeover is no end
        assert!(!n.is_open(a));
        let got = n.msgs(a2);
        assert_eq!(texts(&got), ["sent"]);
        assert!(got[0].dup);
        n.quiet(b);
    }
}

// S-64. [MQTT-4.8.2-4] [MQTT-4.8.2-5]
#[test]
fn qos_2_that_has_begun_stays_with_its_member() {
    for shards in SHARDS {
        let mut n = Node::new(shards);
        let (a, b) = (n.resume(V5, "a"), n.resume(V5, "b"));
        n.sub(a, "$share/g/t", 2);
        let p = n.join(V5, "p");
        n.put(p, &publish("t", 2, "x"));
        n.put(p, &publish("t", 2, "y"));
        let x = n.msg(a);
        n.ack(a, PacketType::PubRec, x.id);
        n.sub(b, "$share/g/t", 2);
        n.drop_conn(a);
        n.quiet(b);
        let a = n.resume(V5, "a");
        assert_eq!(n.recv(a).name(), "PUBREL");
        assert_eq!(n.msg(a).text(), "y");
        n.leave(a);
        let a = n.join(V5, "a"); // clean: the session ends
        n.quiet(a);
        n.quiet(b);
    }
}

// S-64: not yet sent may move
#[test]
fn what_was_not_sent_moves_when_its_member_goes_offline() {
    for shards in SHARDS {
        let mut n = Node::new(shards);
        let props = ConnectProps {
            session_expiry_s: Some(100),
            receive_maximum: Some(1),
            ..ConnectProps::default()
        };
        let c = ringmain_mqtt::Connect { props, ..persistent(V5, "a") };
        let a = n.connected(&c).0;
        n.sub(a, "$share/g/t", 2);
        let p = n.join(V5, "p");
        for i in 0..4 {
            n.put(p, &publish("t", 2, &i.to_string()));
        }
        assert_eq!(n.recv_all(a).len(), 1);
        let b = n.join(V5, "b");
        n.sub(b, "$share/g/t", 2);
        n.drop_conn(a);
        assert_eq!(texts(&n.msgs(b)), ["1", "2", "3"], "{shards}");
    }
}

// S-65. [MQTT-4.8.2-6]
#[test]
fn what_a_member_refuses_is_discarded() {
    for (level, kind) in [(1, PacketType::PubAck), (2, PacketType::PubRec)] {
        let mut n = Node::with(2, |cfg| cfg.shared.strategy = Strategy::Sticky);
        let all = members(&mut n, V5, "$share/g/t", 3);
        let p = n.join(V5, "p");
        n.put(p, &publish("t", level, "x"));
        let got: Vec<(C, Msg)> = all
            .iter()
            .filter_map(|m| n.poll(*m).and_then(|g| Msg::of(&g)).map(|msg| (*m, msg)))
            .collect();
        assert_eq!(got.len(), 1);
        n.ack_with(got[0].0, kind, got[0].1.id, 0x80);
        for m in all {
            n.quiet(m);
        }
        assert_eq!(n.gauges().inflight, 0);
    }
}

// S-66
#[test]
fn a_group_without_online_members_queues_once_up_to_its_limit() {
    for shards in SHARDS {
        let mut n = Node::with(shards, |cfg| cfg.shared.max_group_queue_len = 5);
        let all = members(&mut n, V5, "$share/g/t", 3);
        for m in &all {
            n.drop_conn(*m);
        }
        let p = n.join(V5, "p");
        for i in 0..8 {
            n.put(p, &publish("t", 1, &i.to_string()));
        }
        n.put(p, &publish("t", 0, "qos 0"));
        let g = n.gauges();
        assert_eq!((g.group_queued, g.queued), (5, 0));
        let b = n.resume(V5, "m1");
        assert_eq!(texts(&n.msgs(b)), ["3", "4", "5", "6", "7"]);
        assert_eq!(n.counters().delivery_dropped_group_ended, 3);
        n.drop_conn(b);
        n.put(p, &publish("t", 1, "last"));
        n.pass_s(4_000); // all sessions expire
        assert_eq!(n.gauges().group_queued, 0);
        assert_eq!(n.counters().delivery_dropped_group_ended, 4);
        assert_eq!(n.gauges().filters, 0);
    }
}

// S-67
#[test]
fn members_that_come_and_go_lose_nothing() {
    for shards in SHARDS {
        for version in [V311, V5] {
            let mut n = Node::new(shards);
            let mut all = members(&mut n, version, "$share/g/t", 4);
            let p = n.join(V5, "p");
            let mut seen = std::collections::BTreeSet::new();
            for i in 0..1_000_u32 {
                n.put(p, &publish("t", 1, &i.to_string()));
                if i % 10 == 0 {
                    let at = (i / 10) as usize % 4;
                    if i % 20 == 0 {
                        n.recv_all(all[at]); // seen by nobody who acknowledges
                    }
                    n.drop_conn(all[at]);
                    all[at] = n.resume(version, &format!("m{at}"));
                }
                if i % 7 == 0 {
                    for m in &all {
                        seen.extend(n.msgs(*m).iter().map(|m| m.text().parse::<u32>().expect("n")));
                    }
                }
            }
            for m in &all {
                seen.extend(n.msgs(*m).iter().map(|m| m.text().parse::<u32>().expect("n")));
            }
            assert_eq!(seen.len(), 1_000, "{shards} {version:?}");
        }
    }
}

// S-84
#[test]
fn what_comes_back_to_a_group_keeps_its_order() {
    for shards in SHARDS {
        let mut n = Node::new(shards);
        let b = n.resume(V5, "b");
        n.sub(b, "$share/g/t", 1);
        n.drop_conn(b);
        let a = n.join(V5, "a");
        n.sub(a, "$share/g/t", 1);
        let p = n.join(V5, "p");
        for i in 0..5 {
            n.put(p, &publish("t", 1, &i.to_string()));
        }
        assert_eq!(n.recv_all(a).len(), 5);
        n.drop_conn(a); // a clean session: it ends
        n.put(p, &publish("t", 1, "later"));
        let b = n.resume(V5, "b");
        assert_eq!(texts(&n.msgs(b)), ["0", "1", "2", "3", "4", "later"], "{shards}");
    }
}

// S-84
#[test]
fn what_comes_back_from_several_members_is_in_the_order_it_was_published() {
    for shards in SHARDS {
        let mut n = Node::with(shards, |cfg| cfg.shared.strategy = Strategy::RoundRobinPerGroup);
        let b = n.resume(V5, "b");
        n.sub(b, "$share/g/t", 1);
        n.drop_conn(b);
        let (a, c) = (n.join(V5, "a"), n.join(V5, "c"));
        n.sub(a, "$share/g/t", 1);
        n.sub(c, "$share/g/t", 1);
        let p = n.join(V5, "p");
        for i in 0..6 {
            n.put(p, &publish("t", 1, &i.to_string()));
            n.pass_ms(1);
        }
        assert_eq!((n.recv_all(a).len(), n.recv_all(c).len()), (3, 3));
        n.drop_conn(c);
        n.drop_conn(a);
        let b = n.resume(V5, "b");
        assert_eq!(n.gauges().group_queued, 0);
        assert_eq!(texts(&n.msgs(b)), ["0", "1", "2", "3", "4", "5"], "{shards}");
    }
}

/// Names of groups whose home is shard 1 of 2.
fn groups_elsewhere(n: &Node, count: usize) -> Vec<String> {
    let names = (0..).map(|i| format!("$share/g{i}/t")).filter(|name| n.home(name) == 1);
    names.take(count).collect()
}

// S-55: a SUBACK waits for the homes of its groups, and there is an end to what waits.
#[test]
fn a_client_waits_for_so_many_groups_and_no_more() {
    for version in [V311, V5] {
        let refused = if version == V5 { 0x97 } else { 0x80 };
        let mut n = Node::new(2);
        let s = n.id_on(0, "s");
        let s = n.join(version, &s);
        let names = groups_elsewhere(&n, 1_030);
        let filters: Vec<_> = names.iter().map(|f| (f.as_str(), sub_opts(1))).collect();
        n.subscribe(s, &filters, None);
        let codes = n.recv(s).codes();
        assert_eq!(codes[..1_024], [1; 1_024], "{version:?}");
        assert_eq!(codes[1_024..], [refused; 6], "{version:?}");
        assert_eq!(n.counters().subscribe_waiting_exceeded, 6);
        assert_eq!(n.gauges().shared_subscriptions, 1_024, "what was refused is not there");
        n.subscribe(s, &filters[1_024..], None);
        assert_eq!(n.recv(s).codes(), [1; 6], "the answers came: there is room again");
        // An UNSUBSCRIBE is never refused, and final. [MQTT-3.10.4-2]
        let mut bytes = Vec::new();
        let texts: Vec<&str> = names.iter().map(String::as_str).collect();
        encode::unsubscribe(&mut bytes, version, pid(9), &texts);
        n.send_raw(s, &bytes);
        let codes = n.recv(s).codes();
        assert!(codes.iter().all(|c| *c == 0), "{codes:?}");
        assert_eq!(n.gauges().shared_subscriptions, 0);
        let p = n.join(V5, "p");
        n.put(p, &publish("t", 1, "x"));
        n.quiet(s);
    }
}

#[test]
fn all_clients_of_a_shard_wait_for_so_many_groups_and_no_more() {
    let mut n = Node::new(2);
    let names = groups_elsewhere(&n, 1_024);
    let filters: Vec<_> = names.iter().map(|f| (f.as_str(), sub_opts(1))).collect();
    let mut bytes = Vec::new();
    encode::subscribe(&mut bytes, V5, pid(1), None, &filters);
    let all: Vec<C> = (0..65)
        .map(|i| {
            let id = n.id_on(0, &format!("s{i}."));
            n.join(V5, &id)
        })
        .collect();
    for s in &all {
        n.write_ahead(n.clients[*s].wire, &bytes);
    }
    let p = n.join(V5, "p"); // and the mail of before is delivered
    for s in &all[..64] {
        assert_eq!(n.recv(*s).codes(), [1; 1_024]);
    }
    assert_eq!(n.recv(all[64]).codes(), [0x97; 1_024]);
    assert_eq!(n.counters().subscribe_waiting_exceeded, 1_024);
    assert_eq!(n.sub(all[64], &names[0], 1), 1, "the answers came: there is room again");
    assert_eq!(n.put(p, &publish("t", 1, "x")), 0);
}

// S-30: a message too large for its member is done with, and its window is free again.
#[test]
fn a_message_too_large_for_its_member_frees_the_window() {
    let mut n = Node::mqtt(2, |m| m.max_inflight = 1);
    let mut c = persistent(V5, "s");
    c.props.maximum_packet_size = Some(60);
    let s = n.connected(&c).0;
    n.sub(s, "$share/g/t", 1);
    let p = n.join(V5, "p");
    n.put(p, &publish("t", 1, &"x".repeat(100)));
    n.put(p, &publish("t", 1, "1"));
    n.put(p, &publish("t", 1, "2"));
    assert_eq!(texts(&n.msgs(s)), ["1", "2"]);
}

// H08
#[test]
fn an_exclusive_filter_has_one_subscriber_at_a_time() {
    for shards in SHARDS {
        for version in [V311, V5] {
            let refused = if version == V5 { 0x97 } else { 0x80 };
            let mut n = Node::new(shards);
            let (a, b) = (n.resume(version, "a"), n.resume(version, "b"));
            assert_eq!(n.sub(a, "$exclusive/t/+", 1), 1);
            assert_eq!(n.sub(b, "$exclusive/t/+", 1), refused);
            assert_eq!(n.sub(a, "$exclusive/t/+", 2), 2, "its own may be replaced");
            assert_eq!(n.sub(b, "$exclusive/t/x", 0), 0, "another filter");
            assert_eq!(n.sub(b, "t/y", 0), 0, "ordinary ones are free");
            let p = n.join(V5, "p");
            n.put(p, &publish("t/z", 2, "x"));
            assert_eq!(n.msgs(a)[0].qos, 2);
            n.quiet(b);
            n.unsub(a, "$exclusive/t/+");
            assert_eq!(n.sub(b, "$exclusive/t/+", 1), 1);
            n.drop_conn(b);
            assert_eq!(n.sub(a, "$exclusive/t/+", 1), refused, "kept by the session");
            n.pass_s(10_000);
            n.ping(a);
            assert_eq!(n.sub(a, "$exclusive/t/+", 1), 1, "freed by its expiry");
        }
    }
}
