//! Handshakes in every version, key and segmentation; resumption; what is refused.

use rcgen::KeyPair;
use ringmain_transport::tls::{Alpn, FailureKind, Tls, Version};
use rustls::{AlertDescription, HandshakeKind};

use crate::support::{Client, Cut, NOW_S, Pair, World, fixture_key};

const BOTH: [&rustls::SupportedProtocolVersion; 2] =
    [&rustls::version::TLS12, &rustls::version::TLS13];

// T02
#[test]
fn both_versions_with_both_kinds_of_keys_are_spoken() {
    for key in [KeyPair::generate().unwrap(), fixture_key("rsa_pkcs8.pem")] {
        let world = World::with_key(&key);
        let context = world.load();
        for (version, told) in [(BOTH[0], Version::V12), (BOTH[1], Version::V13)] {
            let client = Client::with(&world.ca.pem, &[version], None);
            let mut pair = Pair::new(&context, &client).run();
            assert!(pair.is_open(), "{told:?} {:?} {:?}", pair.failure, pair.client_error);
            assert_eq!(pair.opened, 1);
            let handshake = pair.server.handshake().unwrap();
            assert_eq!(handshake.version, told);
            assert_eq!(handshake.server_name.as_deref(), Some("localhost"));
            assert!(!handshake.resumed && handshake.peer_certificates.is_empty());
            assert!(handshake.cipher_suite.starts_with("TLS_"), "{}", handshake.cipher_suite);
            pair.client_writes(b"ping");
            pair.server_writes(&[b"po", b"", b"ng"]);
            assert_eq!((&pair.read[..], &pair.client_read[..]), (&b"ping"[..], &b"pong"[..]));
        }
    }
}

#[test]
fn any_segmentation_gives_the_same() {
    let world = World::new();
    let context = world.load();
    for version in BOTH {
        let client = Client::with(&world.ca.pem, &[version], None).without_resumption();
        let cuts = (1..600).step_by(7).map(Cut::At).chain([1, 2, 3, 5, 100].map(Cut::Pieces));
        for cut in cuts {
            let mut pair = Pair::new(&context, &client).cut(cut).run();
            assert!(pair.is_open(), "{cut:?}: {:?}", pair.failure);
            pair.client_writes(b"one");
            pair.client_writes(&[7; 40_000]);
            assert_eq!(pair.read.len(), 40_003, "{cut:?}");
            assert!(pair.most_kept <= 16_709, "{cut:?} kept {}", pair.most_kept);
        }
    }
}

#[test]
fn the_end_of_the_handshake_and_the_first_packet_may_come_in_one_piece() {
    use std::io::Write as _;
    let world = World::new();
    let mut pair = Pair::new(&world.load(), &world.client());
    // TLS 1.3: what was written early goes out with the client's Finished.
    pair.client.writer().write_all(b"CONNECT").unwrap();
    pair.go_on();
    assert_eq!(pair.read, b"CONNECT");
    assert_eq!(pair.opened, 1);
}

// T02
#[test]
fn another_application_protocol_gets_an_alert_and_none_is_taken() {
    let mut world = World::new();
    let offers = |client: Client, names: &[&str]| {
        let names = names.iter().map(|name| name.as_bytes().to_vec()).collect();
        client.change(|config| config.alpn_protocols = names)
    };
    type Row = (Alpn, &'static [&'static str], Option<&'static [u8]>);
    let table: [Row; 6] = [
        (Alpn::Mqtt, &["mqtt"], Some(b"mqtt")),
        (Alpn::Mqtt, &["h2", "mqtt"], Some(b"mqtt")),
        (Alpn::Mqtt, &["h2"], None),
        (Alpn::Http11, &["mqtt"], None),
        (Alpn::Http11, &["http/1.1"], Some(b"http/1.1")),
        (Alpn::Mqtt, &["x-amzn-mqtt-ca"], None),
    ];
    for (alpn, offered, agreed) in table {
        world.config.alpn = alpn;
        let pair = Pair::new(&world.load(), &offers(world.client(), offered)).run();
        match agreed {
            Some(agreed) => {
                assert_eq!(pair.server.handshake().unwrap().alpn.as_deref(), Some(agreed));
            }
            None => {
                assert_eq!(pair.failure.unwrap().kind, FailureKind::Alpn);
                let alert = rustls::Error::AlertReceived(AlertDescription::NoApplicationProtocol);
                assert_eq!(pair.client_error, Some(alert));
            }
        }
    }
    world.config.alpn = Alpn::Mqtt;
    let pair = Pair::new(&world.load(), &world.client()).run();
    assert_eq!(pair.server.handshake().unwrap().alpn, None);
    world.config.alpn = Alpn::Ignore;
    assert!(Pair::new(&world.load(), &offers(world.client(), &["h2"])).run().failure.is_none());
}

#[test]
fn a_version_that_is_not_allowed_is_refused_with_a_sentence() {
    let mut world = World::new();
    for (allowed, other) in [(Version::V13, BOTH[0]), (Version::V12, BOTH[1])] {
        world.config.versions = vec![allowed];
        let client = Client::with(&world.ca.pem, &[other], None);
        let pair = Pair::new(&world.load(), &client).run();
        let failure = pair.failure.unwrap();
        assert_eq!(failure.kind, FailureKind::NothingInCommon, "{failure:?}");
        let alert = rustls::Error::AlertReceived(AlertDescription::ProtocolVersion);
        assert_eq!(pair.client_error, Some(alert));
    }
}

#[test]
fn the_cipher_suite_is_the_one_that_is_set() {
    let mut world = World::new();
    for suite in ["TLS_CHACHA20_POLY1305_SHA256", "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256"] {
        world.config.cipher_suites = vec![suite.to_owned()];
        let is_13 = !suite.contains("ECDHE");
        world.config.versions = vec![if is_13 { Version::V13 } else { Version::V12 }];
        let pair = Pair::new(&world.load(), &world.client()).run();
        assert_eq!(pair.server.handshake().unwrap().cipher_suite, suite);
    }
}

// T10
#[test]
fn a_ticket_resumes_on_another_shard_and_after_a_rotation_but_not_two() {
    let world = World::new();
    let context = world.load();
    for version in BOTH {
        let client = Client::with(&world.ca.pem, &[version], None);
        let connect = |context: &std::sync::Arc<_>| {
            let mut pair = Pair::new(context, &client).run();
            // A ticket is read with what follows the handshake.
            pair.server_writes(&[b"x"]);
            assert!(pair.is_open());
            let resumed = pair.server.handshake().unwrap().resumed;
            let kind = pair.client.handshake_kind().unwrap();
            assert_eq!(kind == HandshakeKind::Resumed, resumed);
            resumed
        };
        assert!(!connect(&context));
        let (elsewhere, client_there) = (context.clone(), client.clone());
        std::thread::spawn(move || {
            let mut pair = Pair::new(&elsewhere, &client_there).run();
            pair.server_writes(&[b"x"]);
            assert!(pair.server.handshake().unwrap().resumed);
        })
        .join()
        .unwrap();
        let rotated = context.with_new_ticket_key().unwrap();
        assert!(connect(&rotated), "{version:?}: the last key is still good");
        let again = rotated.with_new_ticket_key().unwrap().with_new_ticket_key().unwrap();
        assert!(!connect(&again), "{version:?}: no key of old opens it");
    }
}

#[test]
fn no_tickets_means_no_resumption() {
    let mut world = World::new();
    world.config.tickets = 0;
    let context = world.load();
    for version in BOTH {
        let client = Client::with(&world.ca.pem, &[version], None);
        for _ in 0..2 {
            let mut pair = Pair::new(&context, &client).run();
            pair.server_writes(&[b"x"]);
            assert!(!pair.server.handshake().unwrap().resumed);
        }
    }
}

// W19
#[test]
fn what_is_not_tls_ends_with_a_sentence_and_never_a_panic() {
    let world = World::new();
    let context = world.load();
    let read = |bytes: &[u8]| {
        let mut tls = Tls::new(&context).unwrap();
        let mut out = Vec::new();
        let failure = tls.read(NOW_S, &mut bytes.to_vec(), &mut out);
        assert!(tls.handshake().is_none());
        failure
    };
    let mqtt = read(b"\x10\x10\0\x04MQTT\x04\x02\0\x3c\0\x04abcd").unwrap_err();
    assert_eq!(mqtt.kind, FailureKind::NotTls);
    assert!(mqtt.sentence.starts_with("MQTT without TLS"), "{}", mqtt.sentence);
    let http = read(b"GET /mqtt HTTP/1.1\r\nHost: x\r\n\r\n").unwrap_err();
    assert!(http.sentence.starts_with("HTTP without TLS"), "{}", http.sentence);
    assert_eq!(read(&[0xFF; 100]).unwrap_err().kind, FailureKind::NotTls);
    assert_eq!(read(b"\x16\x03\x01\0\x04\xFF\0\0\0").unwrap_err().kind, FailureKind::Protocol);
    assert!(read(b"\x16").is_ok() && read(b"").is_ok());
    // A record that is announced and does not come waits; the deadline is the caller's.
    assert_eq!(read(b"\x16\x03\x01\x40\0abc").unwrap().keep, 8);
}

#[test]
fn every_changed_byte_of_a_hello_ends_in_an_error_or_a_wait() {
    let world = World::new();
    let (context, client) = (world.load(), world.client());
    let mut hello = Vec::new();
    client.connect().write_tls(&mut hello).unwrap();
    for at in 0..hello.len() {
        for bit in [0x01, 0x80] {
            let mut changed = hello.clone();
            changed[at] ^= bit;
            let mut tls = Tls::new(&context).unwrap();
            let _ = tls.read(NOW_S, &mut changed, &mut Vec::new());
            assert!(tls.handshake().is_none());
        }
    }
}

#[test]
fn a_connection_that_failed_stays_failed() {
    let world = World::new();
    let mut tls = Tls::new(&world.load()).unwrap();
    let mut out = Vec::new();
    assert!(tls.read(NOW_S, &mut b"GET / HTTP/1.1\r\n\r\n".to_vec(), &mut out).is_err());
    assert!(tls.read(NOW_S, &mut Vec::new(), &mut out).is_err());
    assert!(tls.write(&[b"x"], &mut out).is_err());
    assert!(tls.refresh_keys(&mut out).is_err());
}

#[test]
fn a_handshake_message_without_end_is_not_kept_for_ever() {
    let world = World::new();
    let mut tls = Tls::new(&world.load()).unwrap();
    let mut kept = Vec::new();
    // A ClientHello of 60,000 bytes in records of 10,000.
    let mut body = vec![1, 0, 0xEA, 0x60];
    body.resize(10_000, 0);
    let failure = loop {
        kept.extend_from_slice(&[0x16, 3, 1]);
        kept.extend_from_slice(&(body.len() as u16).to_be_bytes());
        kept.extend_from_slice(&body);
        body = vec![0; 10_000];
        match tls.read(NOW_S, &mut kept, &mut Vec::new()) {
            Ok(progress) => drop(kept.drain(..kept.len() - progress.keep)),
            Err(failure) => break failure,
        }
    };
    assert_eq!(failure.kind, FailureKind::Protocol);
    assert!(kept.len() < 50_000, "{}", kept.len());
}
