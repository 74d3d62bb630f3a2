//! The reactor against std clients, driving echo machines.

mod reactor_common;

use std::io::{Read, Write};
use std::net::Shutdown;

use reactor_common::*;
use ringmain_shards::boundary::{Control, Event, Pressure};

#[test]
fn small_and_large_exchanges_come_back_unchanged() {
    let (node, seen) = echo_node(&config(1));
    let mut stream = connect(&node);
    for n in 0..100u8 {
        exchange(&mut stream, &[n % 64]);
    }
    let big: Vec<u8> = (0..1 << 20).map(|n: u32| (n % 61) as u8).collect();
    let mut writer = stream.try_clone().unwrap();
    let sent = big.clone();
    let thread = std::thread::spawn(move || writer.write_all(&sent).unwrap());
    expect(&mut stream, &big);
    thread.join().unwrap();
    drop(stream);
    let stats = finish(node);
    assert_eq!(seen.get(|s| &s.bytes), 100 + (1 << 20));
    assert_eq!(seen.get(|s| &s.sent), 100 + (1 << 20), "Sent accounts for every byte");
    assert_eq!((seen.get(|s| &s.closed_fin), seen.closed()), (1, 1));
    assert_eq!(stats.bytes_sent, stats.bytes_received);
}

#[test]
fn a_close_with_flush_delivers_what_is_pending_then_fin() {
    // [S-93]
    let (node, seen) = echo_node(&config(1));
    let mut stream = connect(&node);
    exchange(&mut stream, b"hello");
    stream.write_all(b"Q").unwrap();
    let mut rest = Vec::new();
    stream.read_to_end(&mut rest).unwrap();
    assert_eq!(rest, b"bye");
    drop(stream);
    finish(node);
    assert_eq!((seen.get(|s| &s.closed_local), seen.closed()), (1, 1));
}

#[test]
fn a_client_that_ignores_our_fin_is_closed_all_the_same() {
    // [S-93]: the socket is gone after a second, whatever the client does.
    let (node, seen) = echo_node(&config(1));
    let mut stream = connect(&node);
    stream.write_all(b"Q").unwrap();
    eventually("closed", || seen.closed() == 1);
    finish(node);
    assert_eq!(seen.get(|s| &s.closed_local), 1);
    drop(stream);
}

#[test]
fn an_abort_resets_the_connection() {
    let (node, seen) = echo_node(&config(1));
    let mut stream = connect(&node);
    exchange(&mut stream, b"hello");
    stream.write_all(b"A").unwrap();
    let error = stream.read(&mut [0; 8]).unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
    finish(node);
    assert_eq!((seen.get(|s| &s.closed_local), seen.closed()), (1, 1));
}

#[test]
fn what_was_written_before_fin_is_answered() {
    let (node, seen) = echo_node(&config(1));
    let mut stream = connect(&node);
    stream.write_all(b"last words").unwrap();
    stream.shutdown(Shutdown::Write).unwrap();
    let mut rest = Vec::new();
    stream.read_to_end(&mut rest).unwrap();
    assert_eq!(rest, b"last words");
    finish(node);
    assert_eq!((seen.get(|s| &s.closed_fin), seen.closed()), (1, 1));
}

#[test]
fn a_paused_connection_is_not_read_until_resumed() {
    let (node, seen) = echo_node(&config(1));
    for established in [false, true] {
        let mut stream = connect(&node);
        if established {
            exchange(&mut stream, b"x");
        }
        stream.write_all(b"P").unwrap();
        expect(&mut stream, b"p");
        let before = seen.get(|s| &s.bytes);
        stream.write_all(b"later").unwrap();
        std::thread::sleep(std::time::Duration::from_millis(50));
        assert_eq!(seen.get(|s| &s.bytes), before, "read while paused");
        node.handles()[0].send(Control::Drain).unwrap();
        expect(&mut stream, b"later");
        assert!(matches!(node.events().recv().unwrap(), Event::Drained { .. }));
    }
    finish(node);
}

#[test]
fn a_slow_reader_gets_everything_in_order() {
    let (node, _) = echo_node(&config(1));
    let mut stream = connect(&node);
    let mut writer = stream.try_clone().unwrap();
    let bytes: Vec<u8> = (0..8 << 20).map(|n: u32| (n / 7 % 59) as u8).collect();
    let sent = bytes.clone();
    let thread = std::thread::spawn(move || writer.write_all(&sent).unwrap());
    std::thread::sleep(std::time::Duration::from_millis(300));
    expect(&mut stream, &bytes);
    thread.join().unwrap();
    drop(stream);
    finish(node);
}

#[test]
fn a_flush_to_a_peer_that_does_not_read_ends_after_a_second() {
    // [S-93]
    let (node, seen) = echo_node(&config(1));
    let mut stream = connect(&node);
    stream.write_all(b"F").unwrap();
    eventually("closed", || seen.closed() == 1);
    let stats = finish(node);
    assert_eq!((stats.flush_timeouts, seen.get(|s| &s.closed_local)), (1, 1));
    let mut rest = Vec::new();
    let end = stream.read_to_end(&mut rest);
    assert!(end.is_err() && rest.len() < 16 << 20, "a cut stream must not look complete");
}

#[test]
fn a_large_last_message_is_flushed_whole() {
    // [S-93]
    let (node, _) = echo_node(&config(1));
    let mut stream = connect(&node);
    stream.write_all(b"F").unwrap();
    let mut rest = Vec::new();
    stream.read_to_end(&mut rest).unwrap();
    assert_eq!(rest.len(), 16 << 20);
    drop(stream);
    assert_eq!(finish(node).flush_timeouts, 0);
}

#[test]
fn a_paused_listener_leaves_connections_in_the_backlog() {
    for max_connections in [100, 100_000] {
        // Single and multishot accepts.
        let mut config = config(1);
        config.max_connections = max_connections.min(16_000);
        let (node, seen) = echo_node(&config);
        exchange(&mut connect(&node), b"x");
        node.handles()[0].send(Control::Pressure(Pressure::High)).unwrap();
        node.events().recv().unwrap();
        // Accepts until the cancel has reached the kernel; from then on none, however often one asks.
        let mut streams = Vec::new();
        eventually("left in the backlog", || {
            let opened = seen.get(|s| &s.opened);
            let mut stream = connect(&node);
            stream.write_all(b"y").unwrap();
            streams.push(stream);
            std::thread::sleep(std::time::Duration::from_millis(50));
            seen.get(|s| &s.opened) == opened
        });
        let opened = seen.get(|s| &s.opened);
        streams.push(connect(&node));
        streams.last_mut().unwrap().write_all(b"y").unwrap();
        std::thread::sleep(std::time::Duration::from_millis(50));
        assert_eq!(seen.get(|s| &s.opened), opened);
        node.handles()[0].send(Control::Pressure(Pressure::Normal)).unwrap();
        streams.iter_mut().for_each(|stream| expect(stream, b"y"));
        drop(streams);
        finish(node);
    }
}

#[test]
fn a_deferred_connection_is_accepted_with_its_first_bytes_and_a_silent_one_when_its_time_is_over() {
    let mut config = config(1);
    // Longer than the first half of the test takes: the kernel counts in doubled seconds.
    config.listeners[0].defer_accept_s = Some(60);
    let (node, seen) = echo_node(&config);
    let silent = connect(&node);
    exchange(&mut connect(&node), b"x");
    assert_eq!(seen.get(|s| &s.opened), 1);
    drop(silent);
    finish(node);

    config.listeners[0].defer_accept_s = Some(1);
    let (node, seen) = echo_node(&config);
    let mut silent = connect(&node);
    eventually("accepted without a byte", || seen.get(|s| &s.opened) == 1);
    exchange(&mut silent, b"x");
    drop(silent);
    finish(node);
}
