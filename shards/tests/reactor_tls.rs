//! TLS on the reactor, against clients of rustls. (T02, T03, T09)

mod reactor_common;

use std::io::{Read, Write};
use std::net::Shutdown;
use std::time::Duration;

use reactor_common::tls::{TlsClient, World, layered};
use reactor_common::*;
use ringmain_shards::boundary::Control;
use rustls::version::{TLS12, TLS13};

const BOTH: [&rustls::SupportedProtocolVersion; 2] = [&TLS12, &TLS13];

#[test]
fn bytes_come_back_over_tls_however_the_records_are_cut() {
    let world = World::new();
    let (node, seen) = echo_node(&layered(1, world.layers()));
    let bytes: Vec<u8> = (0..40_000u32).map(|n| (n % 61) as u8).collect();
    for version in BOTH {
        let config = world.client(&[version]);
        for size in [1, 2, 3, 5, 23, 100, 1000, 20_000] {
            let mut client = TlsClient::new(&node, &config);
            while client.tls.is_handshaking() {
                let wire = client.wire(b"");
                wire.chunks(size).for_each(|piece| client.stream.write_all(piece).unwrap());
                if client.tls.is_handshaking() {
                    client.receive();
                }
            }
            let len = if size < 100 { 300 } else { bytes.len() };
            let wire = client.wire(&bytes[..len]);
            let mut writer = client.stream.try_clone().unwrap();
            let writing = std::thread::spawn(move || {
                wire.chunks(size).for_each(|piece| writer.write_all(piece).unwrap());
            });
            client.expect(&bytes[..len]);
            writing.join().unwrap();
            client.exchange(b"still here");
        }
    }
    let stats = finish(node);
    assert_eq!((stats.tls_full, seen.get(|s| &s.introduced)), (16, 16));
    assert_eq!(seen.get(|s| &s.bytes), seen.get(|s| &s.sent), "Sent counts the machine's bytes");
}

#[test]
fn a_connection_moves_wherever_its_last_flight_is_cut() {
    let world = World::new();
    let (node, seen) = echo_node(&layered(2, world.layers()));
    let mut moves = 0;
    for version in BOTH {
        let config = world.client(&[version]);
        let mut at = 0;
        loop {
            let (mut client, mut last) = TlsClient::almost(&node, &config);
            last.extend(client.wire(b"H1x"));
            last.extend(client.wire(b"yz"));
            if at > last.len() {
                break;
            }
            // With TLS 1.3 the tickets are still to be sent when the connection is told to move.
            client.stream.write_all(&last[..at]).unwrap();
            std::thread::sleep(Duration::from_micros(300));
            client.stream.write_all(&last[at..]).unwrap();
            client.expect(b"@1:x");
            client.expect(b"yz");
            client.exchange(b"still here");
            moves += 1;
            at += 1;
        }
    }
    let stats = finish(node);
    assert_eq!((stats.arrived, seen.get(|s| &s.arrived)), (moves, moves));
    assert!(moves > 100, "{moves}");
}

#[test]
fn a_connection_moves_again_and_again_with_half_a_record() {
    let world = World::new();
    let (node, _) = echo_node(&layered(3, world.layers()));
    let config = world.client(&BOTH);
    let mut client = TlsClient::connect(&node, &config);
    for n in 0..300usize {
        let to = n % 3;
        let order = client.wire(format!("H{to}").as_bytes());
        let more = client.wire(format!("H{to}").as_bytes());
        // Not all of it: a machine that has written may not hand over.
        let cut = n % more.len();
        client.stream.write_all(&[&order, &more[..cut]].concat()).unwrap();
        client.expect(format!("@{to}:").as_bytes());
        client.stream.write_all(&more[cut..]).unwrap();
        client.expect(format!("@{to}:").as_bytes());
    }
    client.exchange(b"done");
    drop(client);
    assert_eq!(finish(node).arrived, 600);
}

#[test]
fn what_a_slow_reader_is_owed_is_whole_and_accounted_for() {
    let world = World::new();
    let (node, seen) = echo_node(&layered(1, world.layers()));
    let bytes: Vec<u8> = (0..8 << 20).map(|n: u32| (n / 7 % 59) as u8).collect();
    for version in BOTH {
        let mut client = TlsClient::connect(&node, &world.client(&[version]));
        client.exchange(b"first");
        let mut writer = client.stream.try_clone().unwrap();
        let wire = client.wire(&bytes);
        let writing = std::thread::spawn(move || writer.write_all(&wire).unwrap());
        std::thread::sleep(Duration::from_millis(300));
        client.expect(&bytes);
        writing.join().unwrap();
    }
    finish(node);
    let all = 2 * (5 + bytes.len() as u64);
    assert_eq!((seen.get(|s| &s.bytes), seen.get(|s| &s.sent)), (all, all));
}

#[test]
fn a_close_flushes_says_close_notify_and_then_fin() {
    // [S-93]
    let world = World::new();
    let (node, seen) = echo_node(&layered(1, world.layers()));
    for version in BOTH {
        let mut client = TlsClient::connect(&node, &world.client(&[version]));
        client.send(b"Q");
        assert_eq!(client.rest(), (b"bye".to_vec(), true));
        drop(client);
        let mut client = TlsClient::connect(&node, &world.client(&[version]));
        client.send(b"F");
        let (all, orderly) = client.rest();
        assert!(all.len() == 16 << 20 && orderly, "{} bytes", all.len());
    }
    finish(node);
    assert_eq!((seen.get(|s| &s.closed_local), seen.closed()), (4, 4));
}

#[test]
fn an_abort_is_a_reset() {
    let world = World::new();
    let (node, seen) = echo_node(&layered(1, world.layers()));
    let mut client = TlsClient::connect(&node, &world.client(&BOTH));
    client.exchange(b"x");
    client.send(b"A");
    let error = client.stream.read(&mut [0; 8]).unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
    finish(node);
    assert_eq!((seen.get(|s| &s.closed_local), seen.closed()), (1, 1));
}

#[test]
fn what_came_before_close_notify_or_fin_is_answered() {
    let world = World::new();
    let (node, seen) = echo_node(&layered(1, world.layers()));
    for (version, notify, fin) in [
        (&TLS13, true, true),
        (&TLS13, true, false),
        (&TLS13, false, true),
        (&TLS12, true, true),
        (&TLS12, false, true),
    ] {
        let mut client = TlsClient::connect(&node, &world.client(&[version]));
        let mut wire = client.wire(b"last words");
        if notify {
            client.tls.send_close_notify();
            wire.extend(client.wire(b""));
        }
        client.stream.write_all(&wire).unwrap();
        if fin {
            client.stream.shutdown(Shutdown::Write).unwrap();
        }
        assert_eq!(client.rest(), (b"last words".to_vec(), true), "{version:?} {notify} {fin}");
    }
    finish(node);
    assert_eq!((seen.get(|s| &s.closed_fin), seen.closed()), (5, 5));
}

#[test]
fn a_peer_that_reads_nothing_of_our_goodbye_is_gone_after_a_second() {
    // [S-93]
    let world = World::new();
    let (node, seen) = echo_node(&layered(1, world.layers()));
    let mut client = TlsClient::connect(&node, &world.client(&BOTH));
    client.send(b"F");
    eventually("closed", || seen.closed() == 1);
    assert_eq!(finish(node).flush_timeouts, 1);
}

#[test]
fn who_speaks_no_tls_is_told_so_counted_and_closed() {
    let world = World::new();
    let (node, seen) = echo_node(&layered(1, world.layers()));
    let mut stream = connect(&node);
    stream.write_all(b"\x10\x10\0\x04MQTT\x04\x02\0\x3c\0\x04abcd").unwrap();
    let mut alert = Vec::new();
    stream.read_to_end(&mut alert).unwrap();
    assert_eq!(alert[0], 0x15, "an alert: {alert:?}");
    drop(stream);
    let stats = finish(node);
    assert_eq!((stats.tls_failed_not_tls, seen.get(|s| &s.closed_error)), (1, 1));
    assert_eq!((seen.get(|s| &s.bytes), seen.get(|s| &s.introduced)), (0, 0));
}

#[test]
fn the_machine_is_told_who_a_certificate_is_for() {
    // T03
    let mut world = World::new();
    world.requires_certificates();
    let (node, seen) = echo_node(&layered(2, world.layers()));
    let mut client = TlsClient::connect(&node, &world.client_called("device 7"));
    client.exchange(b"x");
    let said = seen.introduction.lock().unwrap().take().unwrap();
    let certificate = said.certificate.unwrap();
    assert_eq!(certificate.common_name.as_deref(), Some("device 7"));
    assert!(!certificate.der.is_empty() && certificate.fingerprint.len() == 64);
    let tls = said.tls.unwrap();
    assert_eq!((&*tls.version, tls.server_name.as_deref()), ("TLSv1.3", Some("localhost")));
    // With TLS 1.3 the client learns of its refusal only when it reads.
    let mut nobody = TlsClient::connect(&node, &world.client(&[&TLS13]));
    nobody.tls.read_tls(&mut nobody.stream).unwrap();
    let refused = nobody.tls.process_new_packets();
    assert!(refused.is_err(), "{refused:?}");
    drop((client, nobody));
    assert_eq!(finish(node).tls_failed_no_client_certificate, 1);
}

#[test]
fn new_connections_get_new_layers_and_old_ones_keep_theirs() {
    // T07
    let (old, new) = (World::new(), World::new());
    let (node, _) = echo_node(&layered(1, old.layers()));
    let mut before = TlsClient::connect(&node, &old.client(&BOTH));
    before.exchange(b"x");
    let switch = node.layers_switch();
    assert!(switch.set(0, std::sync::Arc::new(new.layers())));
    let mut after = TlsClient::connect(&node, &new.client(&BOTH));
    after.exchange(b"y");
    before.exchange(b"z");
    assert!(!switch.set(1, std::sync::Arc::default()));
    drop((before, after));
    finish(node);
}

#[test]
fn a_paused_connection_is_not_read_until_resumed() {
    let world = World::new();
    let (node, seen) = echo_node(&layered(1, world.layers()));
    let mut client = TlsClient::connect(&node, &world.client(&BOTH));
    client.send(b"P");
    client.expect(b"p");
    let before = seen.get(|s| &s.bytes);
    client.send(b"later");
    std::thread::sleep(Duration::from_millis(50));
    assert_eq!(seen.get(|s| &s.bytes), before, "read while paused");
    node.handles()[0].send(Control::Drain).unwrap();
    client.expect(b"later");
    drop(client);
    finish(node);
}

#[test]
fn many_connections_on_several_shards_and_rings_keep_apart() {
    let world = World::new();
    let mut settings = layered(3, world.layers());
    settings.rings_per_shard = 2;
    let (node, seen) = echo_node(&settings);
    let config = world.client(&BOTH);
    let mut all: Vec<TlsClient> = Vec::new();
    for n in 0..200usize {
        let mut client = TlsClient::connect(&node, &config);
        client.send(format!("H{}", n % 3).as_bytes());
        all.push(client);
    }
    for (n, client) in all.iter_mut().enumerate() {
        client.expect(format!("@{}:", n % 3).as_bytes());
        client.exchange(format!("number {n}").as_bytes());
    }
    for (n, client) in all.iter_mut().enumerate() {
        client.exchange(&vec![n as u8 % 64; 1 + n * 97]);
    }
    drop(all);
    let stats = finish(node);
    assert_eq!((stats.tls_full, stats.arrived, seen.closed()), (200, 200, 200));
}
