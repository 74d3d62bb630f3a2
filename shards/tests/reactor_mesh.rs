//! Several shards: mail, wakes, handover.

mod reactor_common;

use std::io::{Read, Write};
use std::time::Duration;

use reactor_common::router::router_node;
use reactor_common::*;
use ringmain_shards::boundary::{Control, Event};
use ringmain_shards::reactor::Feature;

#[test]
fn no_wake_is_lost_between_shards_that_sleep_after_each_mail() {
    for disable in [vec![], vec![Feature::MsgRingWake]] {
        let mut config = config(3);
        config.disable = disable;
        let (node, _) = router_node(&config);
        // A lost wake shows as a bounce that takes the longest sleep, a second: the whole would
        // take minutes. It is bounded by the receive's timeout below.
        for handle in node.handles() {
            handle.send(Control::Stats { token: 20_000 }).unwrap();
        }
        for _ in 0..3 {
            let event = node.events().recv_timeout(Duration::from_secs(60)).expect("lost wake");
            assert!(matches!(event, Event::Drained { .. }));
        }
        let stats = finish(node);
        assert_eq!(stats.mails_sent, 3 * 20_001);
        assert_eq!(stats.mails_received, stats.mails_sent);
    }
}

#[test]
fn mail_crosses_the_mesh_in_order_and_complete() {
    for mailbox_batches in [1, 1024] {
        let mut config = config(4);
        config.mailbox_batches = mailbox_batches;
        let (node, seen) = router_node(&config);
        let clients: Vec<_> = (0..8u8)
            .map(|n| {
                let mut stream = connect(&node);
                std::thread::spawn(move || {
                    let bytes: Vec<u8> = (0..100_000u32).map(|i| (i % 251) as u8 ^ n).collect();
                    stream.write_all(&[b'0' + n % 4]).unwrap();
                    let mut writer = stream.try_clone().unwrap();
                    let sent = bytes.clone();
                    let writing = std::thread::spawn(move || {
                        sent.chunks(100).for_each(|chunk| writer.write_all(chunk).unwrap());
                    });
                    expect(&mut stream, &bytes);
                    writing.join().unwrap();
                })
            })
            .collect();
        clients.into_iter().for_each(|c| c.join().unwrap());
        let stats = finish(node);
        assert_eq!(stats.mails_received, stats.mails_sent);
        if mailbox_batches == 1 {
            assert!(stats.lanes_filled > 0, "the mailbox was meant to be full at times");
            assert_eq!(seen.get(|s| &s.drained), stats.lanes_filled);
        }
    }
}

#[test]
fn a_connection_is_handed_over_with_what_was_read() {
    for shards in 2..=5u8 {
        let (node, seen) = echo_node(&config(usize::from(shards)));
        let mut streams: Vec<_> = (0..100u8)
            .map(|n| {
                let mut stream = connect(&node);
                let to = b'0' + n % shards;
                stream.write_all(&[b'H', to, b'x', b'y']).unwrap();
                expect(&mut stream, format!("@{}:xy", n % shards).as_bytes());
                stream
            })
            .collect();
        for stream in &mut streams {
            exchange(stream, b"still here");
        }
        assert_eq!((seen.get(|s| &s.arrived), seen.closed()), (100, 0));
        drop(streams);
        let stats = finish(node);
        assert_eq!((stats.handed_over, stats.arrived, stats.handover_failed), (100, 100, 0));
        assert_eq!((seen.get(|s| &s.closed_fin), seen.closed()), (100, 100));
    }
}

#[test]
fn a_connection_can_move_several_times() {
    let (node, _) = echo_node(&config(3));
    let mut stream = connect(&node);
    for n in 0..300u32 {
        let to = n % 3;
        stream.write_all(format!("H{to}").as_bytes()).unwrap();
        expect(&mut stream, format!("@{to}:").as_bytes());
    }
    exchange(&mut stream, b"done");
    drop(stream);
    assert_eq!(finish(node).arrived, 300);
}

#[test]
fn a_peer_that_leaves_during_its_handover_leaks_nothing() {
    let (node, seen) = echo_node(&config(2));
    for n in 0..500u32 {
        let mut stream = connect(&node);
        stream.write_all(&[b'H', b'0' + (n % 2) as u8]).unwrap();
        if n % 3 == 0 {
            reset_on_drop(&stream);
        }
    }
    eventually("all accepted", || total(&node).accepted == 500);
    let stats = finish(node);
    assert_eq!(stats.handed_over, stats.arrived);
    assert_eq!(stats.closed, 500);
    assert_eq!(
        seen.closed(),
        seen.get(|s| &s.opened) + seen.get(|s| &s.arrived) - stats.handed_over
    );
}

#[test]
fn a_full_target_closes_the_connection_and_says_so() {
    let mut config = config(2);
    config.rings_per_shard = 1;
    config.max_connections_per_ring = Some(8);
    let (node, seen) = echo_node(&config);
    let mut streams = Vec::new();
    while total(&node).handover_failed == 0 {
        assert!(streams.len() < 64, "no shard was ever full");
        // Those that the kernel gives to the full shard wait in its backlog.
        let mut stream = connect(&node);
        stream.write_all(b"H1").unwrap();
        stream.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
        let _ = stream.read(&mut [0; 3]);
        streams.push(stream);
    }
    drop(streams);
    let stats = finish(node);
    assert_eq!(stats.handed_over, stats.arrived);
    assert_eq!(
        seen.closed(),
        stats.arrived + seen.get(|s| &s.opened) - stats.handed_over - stats.handover_failed
    );
    assert_eq!(seen.get(|s| &s.not_moved), stats.handover_failed, "its machine hears of it");
}
