//! `$SYS`: what the broker tells of itself.

use std::collections::BTreeMap;

use ringmain_mqtt::{Connect, Publish};
use ringmain_shards::boundary::{Control, Event, Pressure};
use ringmain_shards::engine::config::EngineConfig;
use ringmain_shards::engine::counters::DriverCounts;

use crate::support::*;

fn sys(cfg: &mut EngineConfig) {
    cfg.node = "n1".into();
    cfg.sys.interval_s = 60;
    cfg.sys.heartbeat_s = 30;
    cfg.version = "9.9".into();
    cfg.sysdescr = "Test".into();
}

fn by_topic(msgs: Vec<Msg>) -> BTreeMap<String, String> {
    msgs.into_iter().map(|m| (m.topic.clone(), m.text().to_owned())).collect()
}

// Y01
#[test]
fn version_and_description_are_retained_and_uptime_beats() {
    for shards in SHARDS {
        let mut n = Node::with(shards, sys);
        n.pass_s(1);
        let s = n.join(V5, "s");
        n.sub(s, "$SYS/#", 0);
        let got = n.msgs(s);
        assert!(got.iter().filter(|m| !m.topic.contains("/clients/")).all(|m| m.retain));
        let got = by_topic(got);
        assert_eq!(got["$SYS/brokers"], "n1");
        assert_eq!(got["$SYS/brokers/n1/version"], "9.9");
        assert_eq!(got["$SYS/brokers/n1/sysdescr"], "Test");
        n.pass_s(30);
        let got = by_topic(n.msgs(s));
        assert_eq!(got["$SYS/brokers/n1/uptime"], "0 days,0 hours, 0 minutes, 31 seconds");
        assert!(got["$SYS/brokers/n1/datetime"].starts_with("2023-11-14T22:13:"));
    }
}

// Y03, D3
#[test]
fn statistics_are_the_sums_over_all_shards() {
    for shards in SHARDS {
        let mut n = Node::with(shards, |cfg| {
            sys(cfg);
            cfg.sys.v4_dots = true;
            cfg.sys.faq_singular = true;
        });
        let s = n.join(V5, "s");
        for filter in ["$SYS/brokers/+/stats/#", "$SYS/broker/#", "$share/g/x"] {
            n.sub(s, filter, 0);
        }
        for i in 0..6 {
            let c = n.resume(V311, &format!("c{i}"));
            n.sub(c, "t", 0);
            if i % 2 == 0 {
                n.drop_conn(c);
            }
        }
        n.pass_s(60);
        n.msgs(s);
        n.pass_s(60);
        let got = by_topic(n.msgs(s));
        let stat = |name: &str| got[&format!("$SYS/brokers/n1/stats/{name}")].as_str();
        assert_eq!(stat("connections/count"), "4");
        assert_eq!(stat("connections/max"), "4");
        assert_eq!(stat("connections.count"), "4");
        assert_eq!(stat("sessions/count"), "7");
        assert_eq!(stat("subscriptions/shared/count"), "1");
        assert_eq!(stat("subscriptions/count"), "9");
        assert_eq!(stat("retained/count"), "3");
        assert_eq!(got["$SYS/broker/n1/stats/connections/count"], "4");
        assert_eq!(got["$SYS/broker/n1/stats/sessions/count"], "7");
    }
}

// Y04, Y05, Y06, Y07: a scripted session gives exactly these.
#[test]
fn metrics_count_exactly_what_happened() {
    for shards in SHARDS {
        let mut n = Node::new(shards);
        let (s, p) = (n.resume(V5, "s"), n.join(V5, "p"));
        n.sub(s, "t", 2);
        assert_eq!(n.sub(s, "t/#/x", 2), 0x8F);
        for level in 0..3 {
            n.put(p, &publish("t", level, "x"));
        }
        n.msgs(s);
        n.put(p, &publish("nobody", 1, "x"));
        n.put(p, &publish("$SYS/x", 1, "x"));
        n.ping(p);
        n.unsub(s, "t");
        n.publish(p, &Publish { packet_id: Some(pid(900)), ..publish("nobody", 2, "x") });
        n.leave(s);
        n.drop_conn(p);
        let s2 = n.resume(V5, "s");
        let c = Connect { client_id: "", ..persistent(V311, "") };
        let refused = n.dial(&c);
        assert!(!n.is_open(refused));
        n.recv_all(refused);
        n.ping(s2);
        let m: BTreeMap<&str, u64> = n.counters().metrics().collect();
        for (name, value) in [
            ("packets/connect/received", 4),
            ("packets/connack/sent", 4),
            ("packets/connack/error", 1),
            ("packets/publish/received", 6),
            ("packets/publish/sent", 3),
            ("packets/publish/error", 1),
            ("packets/publish/auth_error", 1),
            ("packets/puback/sent", 3),
            ("packets/puback/received", 1),
            ("packets/pubrec/sent", 2),
            ("packets/pubrec/received", 1),
            ("packets/pubrel/sent", 1),
            ("packets/pubrel/received", 1),
            ("packets/pubcomp/sent", 1),
            ("packets/pubcomp/received", 1),
            ("packets/subscribe/received", 2),
            ("packets/subscribe/error", 1),
            ("packets/suback/sent", 2),
            ("packets/unsubscribe/received", 1),
            ("packets/unsuback/sent", 1),
            ("packets/pingreq/received", 2),
            ("packets/pingresp/sent", 2),
            ("packets/disconnect/received", 1),
            ("packets/disconnect/sent", 0),
            ("messages/received", 6),
            ("messages/qos0/received", 1),
            ("messages/qos1/received", 3),
            ("messages/qos2/received", 2),
            ("messages/sent", 3),
            ("messages/qos0/sent", 1),
            ("messages/qos1/sent", 1),
            ("messages/qos2/sent", 1),
            ("messages/delivered", 3),
            ("messages/acked", 2),
            ("messages/dropped/no_subscribers", 2),
            ("session/created", 2),
            ("session/resumed", 1),
        ] {
            assert_eq!(m[name], value, "{name} with {shards} shards");
        }
        // Y04: bytes as the sockets saw them, and packets as the sum of their kinds.
        let (mut received, mut sent) = (0, 0);
        for (name, value) in &m {
            if name.starts_with("packets/") && name.matches('/').count() == 2 {
                received += if name.ends_with("/received") { *value } else { 0 };
                sent += if name.ends_with("/sent") { *value } else { 0 };
            }
        }
        assert_eq!((m["packets/received"], m["packets/sent"]), (received, sent));
    }
}

// Y02, H15
#[test]
fn clients_coming_and_going_are_announced_in_json() {
    for shards in SHARDS {
        let mut n = Node::with(shards, sys);
        let s = n.join(V5, "s");
        n.sub(s, "$SYS/brokers/+/clients/+/#", 0);
        n.msgs(s);
        let a = n.connected(&Connect { keep_alive_s: 33, ..persistent(V311, "a\"b") }).0;
        n.leave(a);
        let got = n.msgs(s);
        assert_eq!(got[0].topic, "$SYS/brokers/n1/clients/a\"b/connected");
        for part in [
            "\"clientid\":\"a\\\"b\"",
            "\"username\":",
            "\"ts\":",
            "\"sockport\":4711",
            "\"proto_ver\":4",
            "\"proto_name\":\"MQTT\"",
            "\"keepalive\":33",
            "\"ipaddress\":\"192.0.2.1\"",
            "\"expiry_interval\":7200",
            "\"connected_at\":",
            "\"connack\":0",
            "\"clean_start\":false",
        ] {
            assert!(got[0].text().contains(part), "{part}: {}", got[0].text());
        }
        assert_eq!(got[1].topic, "$SYS/brokers/n1/clients/a\"b/disconnected");
        for part in ["\"reason\":", "\"disconnected_at\":", "\"clientid\":"] {
            assert!(got[1].text().contains(part), "{}", got[1].text());
        }
    }
}

// Y08
#[test]
fn watermarks_raise_and_clear_an_alarm() {
    for shards in SHARDS {
        let mut n = Node::with(shards, sys);
        let s = n.join(V5, "s");
        n.sub(s, "$SYS/brokers/n1/alarms/+", 0);
        n.control(&Control::Pressure(Pressure::High));
        n.control(&Control::Pressure(Pressure::Normal));
        let topics: Vec<String> = n.msgs(s).into_iter().map(|m| m.topic).collect();
        assert_eq!(
            topics,
            ["$SYS/brokers/n1/alarms/activate", "$SYS/brokers/n1/alarms/deactivate"]
        );
    }
}

// Y04: what a shard's driver counts is summed like the rest, as it was last told.
#[test]
fn what_drivers_count_is_in_sys_as_the_sum_over_shards() {
    for shards in SHARDS {
        let mut n = Node::with(shards, sys);
        let s = n.join(V5, "s");
        n.sub(s, "$SYS/brokers/n1/metrics/#", 0);
        for wakes in [5, 7] {
            for shard in 0..shards {
                let counts = DriverCounts { wakes, line_writes: 10, ..DriverCounts::default() };
                n.driver_counts(shard, counts);
            }
            n.pass_s(60);
            let got = by_topic(n.msgs(s));
            let sum = |each: u64| (each * shards as u64).to_string();
            assert_eq!(got["$SYS/brokers/n1/metrics/mesh/wakes"], sum(wakes));
            assert_eq!(got["$SYS/brokers/n1/metrics/mesh/line_writes"], sum(10));
        }
    }
}

// Q14
#[test]
fn counters_go_to_the_control_plane() {
    let mut n = Node::new(2);
    n.join(V5, "a");
    n.control(&Control::Stats { token: 3 });
    let connects: u64 = n
        .events
        .iter()
        .filter_map(|e| match e {
            Event::Stats { token: 3, counters, .. } => Some(counters.connect_received),
            _ => None,
        })
        .sum();
    assert_eq!(connects, 1);
}
