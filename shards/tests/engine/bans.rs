//! Clients that may not come, and those that come and go too often. (L03, L04)

use std::sync::Arc;

use ringmain_acl::BanTable;
use ringmain_mqtt::{Connect, ReasonCode};
use ringmain_shards::boundary::Control;
use ringmain_shards::engine::config::FlappingConfig;

use crate::support::*;

const BANNED: u8 = ReasonCode::BANNED.0;

/// Bans hold from now on.
fn ban(n: &mut Node, lines: &str) {
    let text = format!("kind,value,until,reason\n{lines}");
    let bans = BanTable::csv("bans.csv", &text).expect("valid");
    n.control(&Control::Bans(Arc::new(bans)));
}

// L03
#[test]
fn who_is_banned_gets_connack_0x8a_and_nobody_else_does() {
    for shards in SHARDS {
        let mut n = Node::new(shards);
        ban(
            &mut n,
            "client_id,bad,,\nusername,eve,,\naddress,10.0.0.0/8,,\nclient_id_regex,^bot-,,\n",
        );
        let eve = Connect { username: Some("eve"), ..connect(V5, "c") };
        for c in [&connect(V5, "bad"), &connect(V5, "bot-7"), &eve] {
            let c = n.dial(c);
            assert_eq!(n.recv(c).code(), BANNED);
            assert!(!n.is_open(c));
        }
        let c = n.dial_from("10.1.2.3:4", &connect(V5, "c"));
        assert_eq!(n.recv(c).code(), BANNED);
        let old = n.dial(&connect(V311, "bad"));
        assert_eq!(
            n.recv(old).code(),
            ReasonCode::NOT_AUTHORIZED.0,
            "version 3 has no word for it"
        );
        n.join(V5, "good");
        assert_eq!(n.counters().connects_banned, 5);
        ban(&mut n, "");
        n.join(V5, "bad");
    }
}

// L03
#[test]
fn live_clients_that_are_banned_go_within_a_second_and_the_others_stay() {
    for shards in SHARDS {
        let mut n = Node::new(shards);
        let clients: Vec<C> = (0..20).map(|i| n.join(V5, &format!("c{i}"))).collect();
        let named = Connect { username: Some("eve"), ..connect(V5, "x") };
        let (eve, _) = n.connected(&named);
        ban(&mut n, "client_id_regex,^c1,,\nusername,eve,,\n");
        n.pass_s(1);
        for (i, c) in clients.into_iter().enumerate() {
            if i == 1 || i >= 10 {
                assert_eq!(n.closed(c), Some(ReasonCode::ADMINISTRATIVE_ACTION.0), "c{i}");
            } else {
                assert!(n.is_open(c), "c{i}");
            }
        }
        assert_eq!(n.closed(eve), Some(ReasonCode::ADMINISTRATIVE_ACTION.0));
        assert_eq!(n.counters().clients_banned, 12);
    }
}

// L04
#[test]
fn a_client_that_comes_and_goes_too_often_stays_out_for_a_while() {
    for shards in SHARDS {
        let flapping = FlappingConfig { max_count: 5, window_s: 60, ban_s: 300 };
        let mut n = Node::with(shards, |cfg| cfg.flapping = flapping);
        for _ in 0..5 {
            let c = n.join(V5, "f");
            n.drop_conn(c);
            n.pass_s(2);
        }
        let c = n.dial(&connect(V5, "f"));
        assert_eq!(n.recv(c).code(), BANNED);
        n.join(V5, "g");
        n.pass_s(299);
        n.join(V5, "f");
        assert_eq!(n.counters().clients_flapping, 1);
    }
}

// L04
#[test]
fn whoever_takes_a_session_over_and_over_flaps_too() {
    let flapping = FlappingConfig { max_count: 3, window_s: 60, ban_s: 300 };
    let mut n = Node::with(2, |cfg| cfg.flapping = flapping);
    let last = [(); 4].map(|()| n.join(V5, "f"))[3];
    let c = n.dial(&connect(V5, "f"));
    assert_eq!(n.recv(c).code(), BANNED);
    assert!(n.is_open(last), "who is in stays in");
}
