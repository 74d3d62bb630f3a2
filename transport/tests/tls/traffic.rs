//! Records after the handshake.

use ringmain_transport::tls::Tls;

use crate::support::{Client, Pair, World};

fn open(version: &'static rustls::SupportedProtocolVersion) -> Pair {
    let world = World::new();
    let client = Client::with(&world.ca.pem, &[version], None);
    Pair::new(&world.load(), &client).run()
}

/// Lengths of the records on the wire.
fn records(mut wire: &[u8]) -> Vec<usize> {
    let mut lens = Vec::new();
    while let [0x17, 3, 3, high, low, rest @ ..] = wire {
        lens.push(usize::from(u16::from_be_bytes([*high, *low])));
        wire = &rest[lens[lens.len() - 1]..];
    }
    assert!(wire.is_empty(), "not only application data");
    lens
}

#[test]
fn many_packets_go_into_as_few_records_as_possible() {
    for (version, more) in [(&rustls::version::TLS13, 17), (&rustls::version::TLS12, 24)] {
        let mut pair = open(version);
        let small = [[1_u8; 100]; 50];
        let pieces: Vec<&[u8]> = small.iter().map(|piece| &piece[..]).collect();
        assert_eq!(records(&pair.server_writes(&pieces)), [5_000 + more]);
        let big = vec![2; 40_000];
        let wire = pair.server_writes(&[&big]);
        assert_eq!(records(&wire), [16_384 + more, 16_384 + more, 7_232 + more]);
        let wire = pair.server_writes(&[&big[..10_000], &big[..10_000]]);
        assert_eq!(records(&wire), [16_384 + more, 3_616 + more]);
        assert_eq!(pair.server_writes(&[]), []);
        assert_eq!(pair.server_writes(&[b"", b""]), []);
        assert_eq!(pair.client_read.len(), 5_000 + 40_000 + 20_000);
    }
}

#[test]
fn keys_change_from_both_sides_and_traffic_goes_on() {
    let mut pair = open(&rustls::version::TLS13);
    for round in 0..3 {
        pair.client.refresh_traffic_keys().unwrap();
        pair.client_writes(b"up");
        let mut out = Vec::new();
        pair.server.refresh_keys(&mut out).unwrap();
        assert!(!out.is_empty());
        pair.answer(&out);
        pair.server_writes(&[b"down"]);
        assert!(pair.failure.is_none() && pair.client_error.is_none(), "round {round}");
    }
    assert_eq!((pair.read.len(), pair.client_read.len()), (6, 12));
    assert!(open(&rustls::version::TLS12).server.refresh_keys(&mut Vec::new()).is_err());
}

#[test]
fn close_notify_is_told_apart_from_an_end() {
    for version in [&rustls::version::TLS12, &rustls::version::TLS13] {
        let mut pair = open(version);
        pair.client_writes(b"last");
        assert!(!pair.peer_closed);
        pair.client.send_close_notify();
        pair.go_on();
        assert!(pair.peer_closed && pair.read == b"last");
        // Half closed: what is ours still goes.
        pair.server_writes(&[b"answer"]);
        let mut out = Vec::new();
        pair.server.close(&mut out);
        pair.answer(&out);
        assert_eq!(pair.client_read, b"answer");
        assert!(pair.server.write(&[b"more"], &mut out).is_err());
        let state = pair.client.process_new_packets().unwrap();
        assert!(state.peer_has_closed());
    }
}

#[test]
fn a_changed_record_ends_the_connection_with_an_alert() {
    use std::io::Write as _;
    for version in [&rustls::version::TLS12, &rustls::version::TLS13] {
        let mut pair = open(version);
        let mut wire = Vec::new();
        pair.client.writer().write_all(b"secret").unwrap();
        pair.client.write_tls(&mut wire).unwrap();
        *wire.last_mut().unwrap() ^= 1;
        pair.deliver(&wire);
        assert!(pair.failure.is_some() && pair.read.is_empty());
        let alert = rustls::Error::AlertReceived(rustls::AlertDescription::BadRecordMac);
        assert_eq!(pair.client_error, Some(alert));
    }
}

#[test]
fn a_connection_moves_between_threads_in_the_middle_of_a_record() {
    fn is_send<T: Send>() {}
    is_send::<Tls>();
    let mut pair = open(&rustls::version::TLS13);
    use std::io::Write as _;
    let mut wire = Vec::new();
    pair.client.writer().write_all(b"across").unwrap();
    pair.client.write_tls(&mut wire).unwrap();
    let (here, there) = wire.split_at(10);
    pair.deliver(here);
    let there = there.to_vec();
    let pair = std::thread::spawn(move || {
        pair.deliver(&there);
        pair
    });
    assert_eq!(pair.join().unwrap().read, b"across");
}

/// A record of TLS 1.3 as the client would send it next: RFC 8446, section 5.2.
fn record(pair: Pair, content: &[u8], kind: u8) -> (Tls, Vec<u8>) {
    use ring::aead::{AES_128_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
    let (sequence, secrets) = pair.client.dangerous_extract_secrets().unwrap().tx;
    let rustls::ConnectionTrafficSecrets::Aes128Gcm { key, iv } = secrets else {
        panic!("another cipher");
    };
    let mut nonce: [u8; 12] = iv.as_ref().try_into().unwrap();
    for (byte, number) in nonce[4..].iter_mut().zip(sequence.to_be_bytes()) {
        *byte ^= number;
    }
    let mut inner = [content, &[kind]].concat();
    let mut record = vec![0x17, 3, 3, 0, inner.len() as u8 + 16];
    let key = LessSafeKey::new(UnboundKey::new(&AES_128_GCM, key.as_ref()).unwrap());
    let nonce = Nonce::assume_unique_for_key(nonce);
    key.seal_in_place_append_tag(nonce, Aad::from(&record[..]), &mut inner).unwrap();
    record.extend_from_slice(&inner);
    (pair.server, record)
}

// rustls panics when it is asked to write without the bytes of a message that it has a part of.
#[test]
fn half_a_message_after_the_handshake_ends_the_connection_and_not_the_broker() {
    use ringmain_transport::tls::FailureKind;
    let key_update = [24, 0, 0, 1, 0];
    for len in 0..=5 {
        let mut world = World::new();
        world.config.cipher_suites = vec!["TLS_AES_128_GCM_SHA256".to_owned()];
        world.config.versions = vec![ringmain_transport::tls::Version::V13];
        let client = world.client().change(|config| config.enable_secret_extraction = true);
        let pair = Pair::new(&world.load(), &client).run();
        assert!(pair.is_open());
        let (mut server, mut wire) = record(pair, &key_update[..len], 0x16);
        let mut out = Vec::new();
        let result = server.read(crate::support::NOW_S, &mut wire, &mut out);
        match len {
            5 => assert_eq!(result.unwrap().keep, 0),
            0 => drop(result),
            _ => assert_eq!(result.unwrap_err().kind, FailureKind::Protocol, "{len} bytes"),
        }
        let _ = server.write(&[b"does not panic"], &mut out);
        server.close(&mut out);
    }
}
