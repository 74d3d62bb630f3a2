//! Clients that are let in only after a verdict: at CONNECT, with AUTH, and again while they are live.

use std::sync::Arc;

use ringmain_acl::{
    ClientCertificate, ClientRule, ClientRules, Effect, NoMatch, Policy, Settings, Source, Verb,
};
use ringmain_mqtt::{Auth, Connect, ConnectProps, Packet, ReasonCode, UserProps};
use ringmain_shards::boundary::Control;
use ringmain_shards::engine::auth::{
    AUTH_OPEN_MAX, AuthPhase, AuthRequest, AuthVerdict, Exchange, Identity,
};
use ringmain_shards::engine::config::EngineConfig;
use ringmain_shards::engine::effects::CloseHow;
use ringmain_shards::engine::input::CloseCause;
use ringmain_shards::engine::introduction::Introduction;

use crate::support::*;

const METHOD: &str = "SCRAM-SHA-256";
const NOT_AUTHORIZED: u8 = ReasonCode::NOT_AUTHORIZED.0;
const BUSY: u8 = ReasonCode::SERVER_BUSY.0;
const PROTOCOL_ERROR: u8 = ReasonCode::PROTOCOL_ERROR.0;

fn asking(shards: usize) -> Node {
    with(shards, |_| {})
}

fn with(shards: usize, change: impl FnOnce(&mut EngineConfig)) -> Node {
    Node::with(shards, |cfg| {
        cfg.listeners[0].authenticate = true;
        change(cfg);
    })
}

fn named(name: &str) -> Identity {
    Identity { username: Some(name.into()), ..Identity::default() }
}

fn allow(identity: Identity) -> AuthVerdict {
    AuthVerdict::Allow(Box::new(identity))
}

fn exchange(state: u32) -> Exchange {
    Exchange(Arc::new(state))
}

fn challenge(data: &[u8], state: u32) -> AuthVerdict {
    AuthVerdict::Challenge { data: data.into(), exchange: exchange(state) }
}

fn state_of(request: &AuthRequest) -> Option<u32> {
    let AuthPhase::Continue(Exchange(state)) = &request.phase else { return None };
    state.downcast_ref().copied()
}

fn with_method<'a>(id: &'a str, method: &'a str, data: &'a [u8]) -> Connect<'a> {
    let (auth_method, auth_data) = (Some(method), Some(data));
    let props = ConnectProps { auth_method, auth_data, ..ConnectProps::default() };
    Connect { props, ..connect(V5, id) }
}

fn auth(reason: u8, method: &'static str, data: &'static [u8]) -> Packet<'static> {
    Packet::Auth(Auth {
        reason: ReasonCode(reason),
        method: Some(method),
        data: Some(data),
        reason_string: None,
        user: UserProps::EMPTY,
    })
}

/// Lets a client in.
fn admit(n: &mut Node, c: &Connect<'_>, identity: Identity) -> C {
    let client = n.dial(c);
    let request = n.request();
    n.verdict(&request, &allow(identity));
    assert_eq!(n.recv(client).code(), 0);
    client
}

/// A client of SCRAM that is in.
fn admit_by_method(n: &mut Node, id: &str) -> C {
    let client = n.dial(&with_method(id, METHOD, b"first"));
    let request = n.request();
    n.verdict(&request, &challenge(b"salt", 1));
    assert_eq!(n.recv(client).name(), "AUTH");
    n.send(client, &auth(0x18, METHOD, b"proof"));
    let request = n.request();
    n.verdict(&request, &allow(named("ann")));
    assert_eq!(n.recv(client).code(), 0);
    client
}

/// AUTH: reason, method and data.
fn auth_of(got: &Got) -> (u8, Option<&str>, Option<&[u8]>) {
    let Packet::Auth(a) = got.packet() else { panic!("no AUTH: {got:?}") };
    (a.reason.0, a.method, a.data)
}

// AU01, AU18. [MQTT-3.1.4-2]
#[test]
fn a_client_is_let_in_when_somebody_says_so_wherever_it_lives() {
    for shards in SHARDS {
        for version in VERSIONS {
            let mut n = asking(shards);
            for home in 0..shards {
                let id = n.id_on(home, "c");
                let password = Some(&b"secret"[..]);
                let c = Connect { username: Some("ann"), password, ..connect(version, &id) };
                let client = n.dial(&c);
                n.quiet(client);
                let request = n.request();
                assert_eq!((&*request.client_id, request.version), (&*id, version));
                assert_eq!(request.username.as_deref(), Some("ann"));
                assert_eq!(request.password.as_deref(), Some(&b"secret"[..]));
                assert_eq!((request.method.as_deref(), request.data.as_deref()), (None, None));
                assert!(!format!("{request:?}").contains("secret"));
                n.verdict(&request, &allow(named("ann")));
                assert_eq!(n.recv(client).code(), 0);
                assert!(n.requests.is_empty(), "its home does not ask again");
                assert_eq!(n.sub(client, "t", 0), 0);
                n.publish(client, &publish("t", 0, "x"));
                assert_eq!(n.msg(client).text(), "x");
            }
            let counters = n.counters();
            assert_eq!(counters.auth_success, shards as u64);
            assert_eq!(counters.connect_received, shards as u64, "each is counted once");
            let packets = 3 * shards as u64;
            assert_eq!(counters.packets_received, packets, "CONNECT, SUBSCRIBE, PUBLISH");
        }
    }
}

// AU01
#[test]
fn a_listener_that_asks_nobody_lets_everybody_in() {
    let mut n = Node::new(2);
    n.join(V5, "a");
    n.join(V311, "b");
    assert!(n.requests.is_empty());
}

// AU02. [MQTT-3.1.4-2] [MQTT-3.1.4-6]
#[test]
fn who_is_refused_hears_why_in_its_version_and_nothing_else_happens() {
    for shards in SHARDS {
        for (reason, v3) in [(0x86, 4), (0x87, 5), (0x88, 3), (0x8A, 5)] {
            for version in VERSIONS {
                let mut n = asking(shards);
                let mut bytes = Vec::new();
                let will = Some(will("will", "gone", 0));
                Connect { will, ..connect(version, "c") }.encode(&mut bytes);
                Packet::Publish(publish("t", 0, "x")).encode(&mut bytes, version);
                let client = n.dial_raw(version, &bytes);
                n.quiet(client);
                let request = n.request();
                n.verdict(&request, &AuthVerdict::Deny(ReasonCode(reason)));
                let got = n.recv(client);
                let Packet::ConnAck(ack) = got.packet() else { panic!("no CONNACK: {got:?}") };
                let expected = ReasonCode::from_v3_connack(v3).filter(|_| version != V5);
                assert_eq!(ack.code, expected.unwrap_or(ReasonCode(reason)));
                assert!(!ack.session_present);
                assert_eq!(n.closed(client), None);
                let counters = n.counters();
                assert_eq!((counters.auth_failure, counters.messages_publish), (1, 0));
                assert_eq!((counters.connect_received, counters.connack_error), (1, 1));
                assert_eq!((n.gauges().sessions, n.admitted()), (0, 0));
            }
        }
    }
}

// AU18: 0x89, and version 3 has only "unavailable" for it.
#[test]
fn who_comes_while_there_is_too_much_to_do_hears_that_the_broker_is_busy() {
    for (version, code) in [(V5, BUSY), (V311, ReasonCode::SERVER_UNAVAILABLE.0)] {
        let mut n = asking(2);
        let client = n.dial(&connect(version, "c"));
        let request = n.request();
        n.verdict(&request, &AuthVerdict::Busy);
        assert_eq!(n.recv(client).code(), code);
        assert_eq!(n.closed(client), None);
        assert_eq!(n.counters().auth_busy, 1);
    }
}

// AU18
#[test]
fn a_shard_has_a_bound_for_requests_that_are_not_answered_also_of_those_who_left() {
    let mut n = asking(1);
    for _ in 0..AUTH_OPEN_MAX {
        let client = n.dial(&connect(V5, "c"));
        n.drop_conn(client);
        n.wires.clear();
        n.clients.clear();
    }
    let late = n.dial(&connect(V5, "late"));
    assert_eq!(n.recv(late).code(), BUSY);
    assert_eq!(n.requests.len(), AUTH_OPEN_MAX);
    let request = n.request();
    n.verdict(&request, &AuthVerdict::Busy);
    let next = n.dial(&connect(V5, "next"));
    n.quiet(next);
}

// AU18
#[test]
fn a_slow_verdict_holds_up_its_own_client_only() {
    for shards in SHARDS {
        let mut n = asking(shards);
        let slow = n.dial(&connect(V5, "slow"));
        let waits = n.request();
        let others: Vec<C> =
            (0..8).map(|i| admit(&mut n, &connect(V5, &format!("c{i}")), named("ann"))).collect();
        assert_eq!(n.sub(others[0], "t", 1), 1);
        assert_eq!(n.put(others[7], &publish("t", 1, "x")), 0);
        assert_eq!(texts(&n.msgs(others[0])), ["x"]);
        n.quiet(slow);
        n.verdict(&waits, &allow(named("slow")));
        assert_eq!(n.recv(slow).code(), 0);
    }
}

// [MQTT-3.1.4-2]. MQTT lets a client go on before it has CONNACK.
#[test]
fn what_a_client_sends_behind_its_connect_waits_unread_and_in_order() {
    for shards in SHARDS {
        let mut n = asking(shards);
        let s = admit(&mut n, &connect(V5, "s"), named("s"));
        n.sub(s, "t", 1);
        for home in 0..shards {
            let id = n.id_on(home, "p");
            let (mut bytes, mut more) = (Vec::new(), Vec::new());
            connect(V5, &id).encode(&mut bytes);
            Packet::Publish(publish("t", 0, "1")).encode(&mut bytes, V5);
            Packet::Publish(publish("t", 0, "2")).encode(&mut more, V5);
            // Cut within a packet.
            bytes.extend(more.drain(..3));
            let c = n.dial_raw(V5, &bytes);
            let wire = n.clients[c].wire;
            assert!(!n.is_read(wire), "more is not read");
            n.write(wire, &more);
            n.quiet(s);
            let request = n.request();
            n.verdict(&request, &allow(named("p")));
            assert_eq!(texts(&n.msgs(s)), ["1", "2"]);
            assert_eq!(n.recv(c).code(), 0);
            assert!(n.is_read(wire));
            n.ping(c);
        }
    }
}

// W12
#[test]
fn a_verdict_that_does_not_come_in_time_refuses_the_client_and_comes_too_late() {
    for shards in SHARDS {
        let mut n = Node::with(shards, |cfg| {
            cfg.listeners[0].authenticate = true;
            cfg.mqtt.connect_timeout_ms = 10_000;
        });
        for (version, code) in [(V5, 0x88), (V311, ReasonCode::SERVER_UNAVAILABLE.0)] {
            let client = n.dial(&connect(version, "c"));
            let request = n.request();
            n.pass_ms(9_999);
            n.quiet(client);
            n.pass_ms(2);
            assert_eq!(n.recv(client).code(), code);
            assert_eq!(n.closed(client), None);
            // Its place is taken by another connection, which the verdict is not about.
            let other = n.dial(&connect(version, "other"));
            n.verdict(&request, &allow(named("ann")));
            n.quiet(other);
            let request = n.request();
            n.verdict(&request, &AuthVerdict::Deny(ReasonCode::NOT_AUTHORIZED));
            assert_eq!(n.recv(other).code(), NOT_AUTHORIZED);
        }
        assert_eq!(n.counters().auth_timeout, 2);
        assert_eq!(n.gauges().sessions, 0);
    }
}

#[test]
fn a_client_that_leaves_before_the_verdict_is_forgotten() {
    for shards in SHARDS {
        for cause in [CloseCause::PeerFin, CloseCause::Error(104)] {
            let mut n = asking(shards);
            let client = n.dial(&connect(V5, "c"));
            let request = n.request();
            n.hang_up(n.clients[client].wire, cause);
            n.verdict(&request, &allow(named("ann")));
            assert_eq!((n.gauges().sessions, n.gauges().sockets), (0, 0));
            assert_eq!((n.admitted(), n.counters().client_connected), (0, 0));
        }
    }
}

// C14, S-20
#[test]
fn a_broker_that_shuts_down_answers_those_who_wait() {
    for (reference, code) in [("", 0x88), ("other.example:1883", 0x9C)] {
        let mut n = with(2, |cfg| cfg.mqtt.server_reference = reference.into());
        let c = n.dial(&connect(V5, "c"));
        let old = n.dial(&connect(V311, "old"));
        n.control(&Control::Drain);
        assert_eq!(n.recv(c).code(), code);
        assert_eq!(n.recv(old).code(), ReasonCode::SERVER_UNAVAILABLE.0);
        assert_eq!((n.closed(c), n.closed(old)), (None, None));
        for _ in 0..2 {
            let request = n.request();
            n.verdict(&request, &allow(named("ann")));
        }
        assert_eq!(n.gauges().sessions, 0);
    }
}

// W05, S-98
#[test]
fn nobody_is_asked_about_a_client_that_is_refused_anyway() {
    let mut n = with(2, |cfg| {
        cfg.listeners[0].accept_protocol_versions = vec![5];
        cfg.mqtt.max_client_id_len = 4;
    });
    let old = n.dial(&connect(V311, "c"));
    assert_eq!(n.recv(old).code(), ReasonCode::UNSUPPORTED_PROTOCOL_VERSION.0);
    let long = n.dial(&connect(V5, "c2345"));
    assert_eq!(n.recv(long).code(), ReasonCode::CLIENT_IDENTIFIER_NOT_VALID.0);
    assert!(n.requests.is_empty());
    assert_eq!(n.counters().connect_received, 2);
}

// AU10: the client id of the certificate, say. [MQTT-3.1.3-6] [MQTT-3.2.2-16]
#[test]
fn an_identity_may_give_another_client_id_and_the_client_lives_where_that_does() {
    for shards in SHARDS {
        for sent in ["sent", ""] {
            let mut n = asking(shards);
            for home in 0..shards {
                let given = n.id_on(home, "given");
                let first = n.join_given(&given, sent);
                let second = n.join_given(&given, sent);
                assert_eq!(n.closed(first), Some(ReasonCode::SESSION_TAKEN_OVER.0));
                n.ping(second);
                assert_eq!(n.gauges().sessions, home as u64 + 1);
            }
        }
    }
}

impl Node {
    fn join_given(&mut self, given: &str, sent: &str) -> C {
        let client = self.dial(&persistent(V5, sent));
        let request = self.request();
        assert_eq!(&*request.client_id, sent);
        let identity = Identity { client_id: Some(given.into()), ..named("ann") };
        self.verdict(&request, &allow(identity));
        let got = self.recv(client);
        let Packet::ConnAck(ack) = got.packet() else { panic!("no CONNACK: {got:?}") };
        assert_eq!(ack.code.0, 0);
        assert_eq!(ack.assigned_client_id, sent.is_empty().then_some(given));
        client
    }
}

// AU10, T12
#[test]
fn certificate_and_real_address_are_part_of_the_question() {
    let mut n = asking(2);
    let certificate =
        ClientCertificate { common_name: Some("gw".into()), ..ClientCertificate::default() };
    let introduction = Introduction {
        addr: Some("198.51.100.7:99".parse().expect("an address")),
        certificate: Some(Arc::new(certificate)),
        ..Introduction::default()
    };
    n.dial_as(&introduction, &connect(V5, "c"));
    let request = n.request();
    assert_eq!(request.peer.to_string(), "198.51.100.7");
    let name = request.certificate.as_ref().and_then(|c| c.common_name.as_deref());
    assert_eq!(name, Some("gw"));
}

fn rules(epoch: u64, text: &str) -> Arc<Policy> {
    let source = Source::toml("test.toml", text).expect("valid rules");
    Policy::compile(epoch, vec![source], Settings::new(Effect::Deny))
}

const BY_NAME: &str = r#"
[[rule]]
effect = "allow"
topics = ["user/${username}/#", "tenant/${client_attrs.tenant}/#"]
"#;

// AU17, AZ02
#[test]
fn rules_see_user_name_attributes_superuser_and_the_rules_of_a_token_also_when_they_change() {
    for shards in SHARDS {
        let mut n = with(shards, |cfg| cfg.policy = rules(1, BY_NAME));
        let mut ids = (0..shards).map(|home| n.id_on(home, "c"));
        let id = ids.next().expect("a shard");
        let tenant = Identity { attributes: vec![("tenant".into(), "a".into())], ..named("ann") };
        let own = ClientRule {
            allow: true,
            action: Verb::Publish,
            topic: "own/${username}".into(),
            eq: false,
            qos: None,
            retain: None,
        };
        let own = ClientRules::new(&[own], NoMatch::Next).expect("valid");
        let rules_of_token = Identity { rules: Some(own), ..named("ann") };
        let superuser = Identity { superuser: true, ..named("root") };
        let claims = Connect { username: Some("ann"), ..connect(V5, &id) };
        for (who, identity, allowed) in [
            ("named", named("ann"), [true, false, false, false]),
            ("tenant", tenant, [true, true, false, false]),
            ("token", rules_of_token, [true, false, true, false]),
            ("superuser", superuser, [true; 4]),
            ("anonymous, whatever it claimed", Identity::default(), [false; 4]),
        ] {
            let c = admit(&mut n, &claims, identity);
            for epoch in 0..2 {
                for (topic, allowed) in
                    ["user/ann/x", "tenant/a/x", "own/ann", "other"].into_iter().zip(allowed)
                {
                    let code = n.put(c, &publish(topic, 1, "x"));
                    assert_eq!(code != NOT_AUTHORIZED, allowed, "{who} {topic} {epoch}");
                }
                let mut cfg = quiet_config();
                cfg.listeners[0].authenticate = true;
                static EPOCH: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(2);
                let next = EPOCH.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                cfg.policy = rules(next, BY_NAME);
                n.control(&Control::Reload(Arc::new(cfg)));
            }
        }
    }
}

// AU09: `exp` reached → 0x87.
#[test]
fn a_connection_ends_in_the_second_in_which_what_admitted_it_expires() {
    for shards in SHARDS {
        for version in [V5, V311] {
            let mut n = asking(shards);
            let now_s = 1_700_000_001;
            let identity = Identity { expires_at_s: Some(now_s + 30), ..named("ann") };
            let id = n.id_on(shards - 1, "c");
            let c = admit(&mut n, &connect(version, &id), identity);
            n.pass_ms(29_998);
            n.ping(c);
            n.pass_ms(3);
            assert_eq!(n.closed(c), (version == V5).then_some(NOT_AUTHORIZED));
            assert_eq!(n.counters().auth_expired, 1);
        }
    }
}

// AU11, C09. [MQTT-4.12.0-2] [MQTT-4.12.0-3] [MQTT-4.12.0-5] [MQTT-3.1.2-30]
#[test]
fn enhanced_authentication_goes_by_auth_and_ends_in_a_connack_with_method_and_data() {
    for shards in SHARDS {
        let mut n = asking(shards);
        for home in 0..shards {
            let id = n.id_on(home, "c");
            let client = n.dial(&with_method(&id, METHOD, b"first"));
            let request = n.request();
            assert_eq!(request.method.as_deref(), Some(METHOD));
            assert_eq!(request.data.as_deref(), Some(&b"first"[..]));
            for (round, said) in [(1, b"one"), (2, b"two")] {
                let request = if round == 1 { request.clone() } else { n.request() };
                n.verdict(&request, &challenge(said, round));
                assert_eq!(auth_of(&n.recv(client)), (0x18, Some(METHOD), Some(&said[..])));
                n.send(client, &auth(0x18, METHOD, b"proof"));
            }
            let request = n.request();
            assert_eq!(state_of(&request), Some(2), "the state of the last challenge");
            assert_eq!(request.data.as_deref(), Some(&b"proof"[..]));
            assert_eq!(&*request.client_id, id);
            assert_eq!(request.method.as_deref(), Some(METHOD));
            let identity = Identity { data: Some((*b"v=1").into()), ..named("ann") };
            n.verdict(&request, &allow(identity));
            let got = n.recv(client);
            let Packet::ConnAck(ack) = got.packet() else { panic!("no CONNACK: {got:?}") };
            assert_eq!(ack.code.0, 0);
            assert_eq!((ack.auth_method, ack.auth_data), (Some(METHOD), Some(&b"v=1"[..])));
            n.ping(client);
        }
    }
}

// [MQTT-4.12.0-4]
#[test]
fn enhanced_authentication_that_fails_midway_ends_in_a_connack() {
    for shards in SHARDS {
        let mut n = asking(shards);
        let client = n.dial(&with_method("c", METHOD, b"first"));
        let request = n.request();
        n.verdict(&request, &challenge(b"salt", 1));
        n.recv(client);
        n.send(client, &auth(0x18, METHOD, b"wrong"));
        let request = n.request();
        n.verdict(&request, &AuthVerdict::Deny(ReasonCode::NOT_AUTHORIZED));
        assert_eq!(n.recv(client).code(), NOT_AUTHORIZED);
        assert_eq!(n.closed(client), None);
        assert_eq!(n.gauges().sessions, 0);
    }
}

// C09. [MQTT-4.12.0-1]
#[test]
fn an_unknown_method_is_refused_by_who_is_asked_and_without_anybody_at_once() {
    let bad = ReasonCode::BAD_AUTHENTICATION_METHOD;
    let mut n = asking(2);
    let client = n.dial(&with_method("c", "GS2-KRB5", b""));
    let request = n.request();
    n.verdict(&request, &AuthVerdict::Deny(bad));
    assert_eq!(n.recv(client).code(), bad.0);
    assert_eq!(n.closed(client), None);
    let mut n = Node::new(2);
    let client = n.dial(&with_method("c", METHOD, b""));
    assert_eq!(n.recv(client).code(), bad.0);
    assert_eq!(n.closed(client), None);
}

// S-95. [MQTT-3.1.2-30] [MQTT-4.12.0-3] [MQTT-4.12.0-5] [MQTT-3.15.2-1]
#[test]
fn between_challenge_and_connack_only_an_auth_that_answers_is_right() {
    let ping = vec![0xC0, 0];
    let encoded = |packet: &Packet<'_>| {
        let mut out = Vec::new();
        packet.encode(&mut out, V5);
        out
    };
    let mut again = Vec::new();
    with_method("c", METHOD, b"first").encode(&mut again);
    for (what, bytes) in [
        ("PINGREQ", ping),
        ("PUBLISH", encoded(&Packet::Publish(publish("t", 0, "x")))),
        ("a second CONNECT", again),
        ("re-authentication", encoded(&auth(0x19, METHOD, b""))),
        ("another method", encoded(&auth(0x18, "OTHER", b""))),
        ("a reason that only the broker uses", raw::packet(0xF0, b"\x00\x04\x15\0\x01m")),
    ] {
        for shards in SHARDS {
            let mut n = asking(shards);
            let client = n.dial(&with_method("c", METHOD, b"first"));
            let request = n.request();
            n.verdict(&request, &challenge(b"salt", 1));
            n.recv(client);
            n.send_raw(client, &bytes);
            assert_eq!(n.recv(client).code(), PROTOCOL_ERROR, "{what}");
            assert_eq!(n.closed(client), None, "{what}");
            assert!(n.requests.is_empty(), "{what}");
            assert_eq!(n.counters().connect_received, 1, "{what}");
        }
    }
    let mut n = asking(2);
    let client = n.dial(&with_method("c", METHOD, b"first"));
    let request = n.request();
    n.verdict(&request, &challenge(b"salt", 1));
    n.recv(client);
    n.leave(client);
    assert_eq!(n.closed(client), None, "DISCONNECT is its right");
}

// W12
#[test]
fn a_client_that_does_not_answer_a_challenge_is_closed_in_time() {
    let mut n = with(2, |cfg| cfg.mqtt.connect_timeout_ms = 10_000);
    let client = n.dial(&with_method("c", METHOD, b"first"));
    let request = n.request();
    n.verdict(&request, &challenge(b"salt", 1));
    n.recv(client);
    n.pass_ms(10_001);
    assert_eq!(n.closed(client), None);
    assert_eq!(n.wires[n.clients[client].wire].closed, Some(CloseHow::Abort));
    assert_eq!((n.counters().connect_timeout, n.counters().auth_timeout), (1, 0));
}

// A connection moves only when all that was written to it was sent.
#[test]
fn a_client_that_is_let_in_before_the_challenge_was_sent_moves_when_it_was() {
    for shards in SHARDS {
        let mut n = asking(shards);
        for home in 0..shards {
            let id = n.id_on(home, "c");
            let client = n.dial(&with_method(&id, METHOD, b"first"));
            let wire = n.clients[client].wire;
            n.stop_reading(wire);
            let request = n.request();
            n.verdict(&request, &challenge(b"salt", 1));
            n.recv(client);
            n.send(client, &auth(0x18, METHOD, b"proof"));
            let request = n.request();
            n.verdict(&request, &allow(named("ann")));
            assert!(n.poll(client).is_none());
            n.start_reading(wire);
            assert_eq!(n.recv(client).code(), 0);
            n.ping(client);
        }
    }
}

// AU11, S-95. [MQTT-4.12.1-1]
#[test]
fn a_live_client_authenticates_again_while_its_traffic_goes_on() {
    for shards in SHARDS {
        let mut n = with(shards, |cfg| cfg.policy = rules(1, BY_NAME));
        let id = n.id_on(shards - 1, "c");
        let c = admit_by_method(&mut n, &id);
        assert_eq!(n.sub(c, "user/ann/#", 1), 1);
        assert_eq!(n.put(c, &publish("tenant/a/1", 1, "x")), NOT_AUTHORIZED);
        n.send(c, &auth(0x19, METHOD, b"again"));
        let request = n.request();
        assert!(matches!(request.phase, AuthPhase::Reauthenticate));
        assert_eq!((&*request.client_id, request.username.as_deref()), (&*id, Some("ann")));
        let flows = |n: &mut Node, text: &str| {
            n.publish(c, &publish("user/ann/1", 0, text));
            assert_eq!(n.msg(c).text(), text);
        };
        flows(&mut n, "while asked");
        n.verdict(&request, &challenge(b"salt", 7));
        assert_eq!(auth_of(&n.recv(c)), (0x18, Some(METHOD), Some(&b"salt"[..])));
        flows(&mut n, "while challenged");
        n.send(c, &auth(0x18, METHOD, b"proof"));
        let request = n.request();
        assert_eq!(state_of(&request), Some(7));
        let now_s = 1_700_000_001;
        let identity = Identity {
            attributes: vec![("tenant".into(), "a".into())],
            data: Some((*b"v=2").into()),
            expires_at_s: Some(now_s + 60),
            ..named("ann")
        };
        n.verdict(&request, &allow(identity));
        assert_eq!(auth_of(&n.recv(c)), (0x00, Some(METHOD), Some(&b"v=2"[..])));
        flows(&mut n, "after it");
        assert_ne!(n.put(c, &publish("tenant/a/1", 1, "x")), NOT_AUTHORIZED);
        // And once more, to stay.
        n.pass_s(50);
        n.send(c, &auth(0x19, METHOD, b"again"));
        let request = n.request();
        n.verdict(&request, &allow(named("ann")));
        assert_eq!(auth_of(&n.recv(c)).0, 0x00);
        n.pass_s(50);
        n.ping(c);
        assert_eq!(n.put(c, &publish("tenant/a/1", 1, "x")), NOT_AUTHORIZED);
    }
}

// AZ06
#[test]
fn subscriptions_that_a_new_identity_may_not_have_end() {
    let mut n = with(2, |cfg| cfg.policy = rules(1, BY_NAME));
    let client = n.dial(&with_method("c", METHOD, b"first"));
    let request = n.request();
    let tenant =
        |name: &str| Identity { attributes: vec![("tenant".into(), name.into())], ..named("ann") };
    n.verdict(&request, &allow(tenant("a")));
    n.recv(client);
    assert_eq!(n.subscribe_all(client, &["tenant/a/#", "user/ann/#"]), [1, 1]);
    n.send(client, &auth(0x19, METHOD, b""));
    let request = n.request();
    n.verdict(&request, &allow(tenant("b")));
    assert_eq!(auth_of(&n.recv(client)).0, 0x00);
    assert_eq!((n.counters().subscriptions_revoked, n.gauges().subscriptions), (1, 1));
}

// AU11, S-95. [MQTT-4.12.1-2]
#[test]
fn a_re_authentication_that_fails_ends_the_connection() {
    for shards in SHARDS {
        for (verdict, code) in [
            (AuthVerdict::Deny(ReasonCode::NOT_AUTHORIZED), NOT_AUTHORIZED),
            (AuthVerdict::Busy, BUSY),
        ] {
            let mut n = asking(shards);
            let id = n.id_on(shards - 1, "c");
            let c = admit_by_method(&mut n, &id);
            n.send(c, &auth(0x19, METHOD, b""));
            let request = n.request();
            n.verdict(&request, &verdict);
            assert_eq!(n.closed(c), Some(code));
        }
    }
}

// S-95. [MQTT-4.12.0-7] [MQTT-4.12.1-1] [MQTT-4.12.0-6]
#[test]
fn auth_that_breaks_the_rules_ends_a_live_connection() {
    for shards in SHARDS {
        for (what, packet) in [
            ("another method", auth(0x19, "OTHER", b"")),
            ("an answer without a challenge", auth(0x18, METHOD, b"")),
        ] {
            let mut n = asking(shards);
            let c = admit_by_method(&mut n, "c");
            n.send(c, &packet);
            assert_eq!(n.closed(c), Some(PROTOCOL_ERROR), "{what}");
        }
        let mut n = asking(shards);
        let c = admit_by_method(&mut n, "c");
        n.send(c, &auth(0x19, METHOD, b""));
        n.send(c, &auth(0x19, METHOD, b""));
        assert_eq!(n.closed(c), Some(PROTOCOL_ERROR), "two at once");
        // Without a method in CONNECT there is none in CONNACK, and no AUTH.
        let mut n = asking(shards);
        let c = n.dial(&connect(V5, "c"));
        let request = n.request();
        n.verdict(&request, &allow(named("ann")));
        let got = n.recv(c);
        assert!(matches!(got.packet(), Packet::ConnAck(a) if a.auth_method.is_none()));
        n.send(c, &auth(0x19, METHOD, b""));
        assert_eq!(n.closed(c), Some(PROTOCOL_ERROR), "no method in CONNECT");
        let mut n = asking(shards);
        let c = admit(&mut n, &connect(V311, "old"), named("ann"));
        n.send_raw(c, &raw::packet(0xF0, b"\x19\x04\x15\0\x01m"));
        assert_eq!(n.closed(c), None, "version 3 has no AUTH, and no words for that");
    }
}

// S-06, S-16: a will is asked for with what is known of its owner.
#[test]
fn a_will_goes_out_with_the_rights_of_its_owner() {
    for shards in SHARDS {
        let mut n = with(shards, |cfg| cfg.policy = rules(1, BY_NAME));
        let s = admit(&mut n, &connect(V5, "s"), Identity { superuser: true, ..named("root") });
        n.sub(s, "#", 1);
        let id = n.id_on(shards - 1, "c");
        let will = Some(will("user/ann/will", "gone", 1));
        let c = admit(&mut n, &Connect { will, ..connect(V5, &id) }, named("ann"));
        n.drop_conn(c);
        assert_eq!(texts(&n.msgs(s)), ["gone"]);
        // Of one that waits, its owner is still known when other rules hold.
        let props = ConnectProps { session_expiry_s: Some(100), ..ConnectProps::default() };
        let delayed = will.map(|will| ringmain_mqtt::Will { delay_s: Some(10), ..will });
        let c = admit(&mut n, &Connect { will: delayed, props, ..connect(V5, &id) }, named("ann"));
        n.drop_conn(c);
        let mut cfg = quiet_config();
        cfg.listeners[0].authenticate = true;
        cfg.policy = rules(2, BY_NAME);
        n.control(&Control::Reload(Arc::new(cfg)));
        n.pass_s(11);
        assert_eq!(texts(&n.msgs(s)), ["gone"]);
        let c = n.dial(&Connect { will, ..connect(V5, &id) });
        let request = n.request();
        n.verdict(&request, &allow(named("bob")));
        assert_eq!(n.recv(c).code(), NOT_AUTHORIZED, "it is not bob's topic");
    }
}

// L10
#[test]
fn who_may_not_listen_to_everything_names_levels_first_and_a_superuser_need_not() {
    for shards in SHARDS {
        let mut n = with(shards, |cfg| cfg.mqtt.min_wildcard_depth = 2);
        let too_wide = ReasonCode::TOPIC_FILTER_INVALID.0;
        let filters =
            ["#", "+/a", "a/#", "$share/g/a/+/b", "a/b/#", "a/b/+", "a", "$share/g/a/b/#"];
        let ann = admit(&mut n, &connect(V5, "ann"), named("ann"));
        let codes = n.subscribe_all(ann, &filters);
        assert_eq!(codes, [[too_wide; 4], [1; 4]].concat());
        let root = Identity { superuser: true, ..named("root") };
        let root = admit(&mut n, &connect(V5, "root"), root);
        assert_eq!(n.subscribe_all(root, &filters), [1; 8]);
    }
}
