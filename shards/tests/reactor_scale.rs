//! Many connections, few descriptors, full tables, older kernels, start and stop.

mod reactor_common;

use std::collections::HashSet;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use reactor_common::*;
use ringmain_shards::engine::Machine;
use ringmain_shards::engine::effects::Effects;
use ringmain_shards::engine::ids::{ConnId, Now, ShardId};
use ringmain_shards::engine::input::Input;
use ringmain_shards::reactor::{self, Feature, NodeConfig, ShardPlacement, StartError};

#[test]
fn five_thousand_connections_are_served_at_once() {
    let (node, seen) = echo_node(&config(2));
    let mut streams: Vec<_> = (0..5000).map(|_| connect(&node)).collect();
    for stream in &mut streams {
        exchange(stream, b"one");
    }
    streams.iter_mut().for_each(|s| s.write_all(b"two").unwrap());
    streams.iter_mut().for_each(|s| expect(s, b"two"));
    assert_eq!(total(&node).connections, 5000);
    drop(streams);
    let stats = finish(node);
    assert_eq!((stats.accepted, stats.closed, seen.closed()), (5000, 5000, 5000));
}

#[test]
fn a_shard_with_many_small_rings_serves_as_one() {
    let mut config = config(2);
    config.max_connections = 800;
    config.max_connections_per_ring = Some(64);
    let (node, _) = echo_node(&config);
    for round in 0..3u8 {
        let mut streams: Vec<_> = (0..600u32)
            .map(|n| {
                let mut stream = connect(&node);
                if n % 2 == 0 {
                    let to = b'0' + (n / 2 % 2) as u8;
                    stream.write_all(&[b'H', to]).unwrap();
                    expect(&mut stream, &[b'@', to, b':']);
                }
                stream
            })
            .collect();
        for stream in &mut streams {
            exchange(stream, &[round; 100]);
        }
        streams.iter_mut().for_each(|s| s.write_all(b"again").unwrap());
        streams.iter_mut().for_each(|s| expect(s, b"again"));
        drop(streams);
        eventually("all closed", || total(&node).connections == 0);
    }
    let stats = finish(node);
    assert_eq!(stats.handover_failed + stats.accept_table_full, 0);
    assert_eq!(stats.accepted, 1800);
}

#[test]
fn connections_above_the_bound_of_the_node_wait_in_the_backlog() {
    // (features.md T15)
    let mut config = config(1);
    config.max_connections = 16;
    let (node, _) = echo_node(&config);
    let mut streams: Vec<_> = (0..16).map(|_| connect(&node)).collect();
    streams.iter_mut().for_each(|s| exchange(s, b"hello"));
    let mut waiting = connect(&node);
    waiting.write_all(b"x").unwrap();
    waiting.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
    assert!(waiting.read(&mut [0]).is_err(), "served above max_connections");
    waiting.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    streams.pop();
    expect(&mut waiting, b"x");
    drop((waiting, streams));
    finish(node);
}

/// Has room for so many connections that have sent nothing.
struct Cautious {
    echo: Echo,
    silent: HashSet<ConnId>,
    most: Arc<AtomicUsize>,
}

impl Cautious {
    const ROOM: usize = 20;
}

impl Machine for Cautious {
    fn handle(&mut self, now: Now, input: Input<'_>, fx: &mut Effects) {
        match &input {
            Input::Open { conn, .. } => {
                self.silent.insert(*conn);
                self.most.fetch_max(self.silent.len(), Ordering::Relaxed);
            }
            Input::Data { conn, .. } | Input::Closed { conn, .. } => {
                self.silent.remove(conn);
            }
            _ => {}
        }
        self.echo.handle(now, input, fx);
    }

    fn deadline_ms(&self) -> u64 {
        self.echo.deadline_ms()
    }

    fn accept_room(&self) -> u32 {
        (Self::ROOM - self.silent.len()) as u32
    }
}

#[test]
fn a_machine_gets_no_more_connections_than_it_has_room_for() {
    for disable in [vec![], vec![Feature::FixedFdInstall], vec![Feature::MultishotAccept]] {
        let config = NodeConfig { disable, ..config(1) };
        let (seen, most) = (Arc::new(Seen::default()), Arc::new(AtomicUsize::new(0)));
        let (for_shard, seen_there) = (Arc::clone(&most), Arc::clone(&seen));
        let node = reactor::run(&config, move |me| Cautious {
            echo: Echo::new(me, Arc::clone(&seen_there)),
            silent: HashSet::new(),
            most: Arc::clone(&for_shard),
        })
        .unwrap();
        let full = |opened: u64| {
            eventually("full", || seen.get(|s| &s.opened) == opened);
            assert_eq!(most.load(Ordering::Relaxed), Cautious::ROOM);
        };
        let mut streams: Vec<_> = (0..500).map(|_| connect(&node)).collect();
        full(20);
        // In the order in which they were accepted: others take the places of those that say something.
        streams.iter_mut().take(10).for_each(|s| exchange(s, b"hello"));
        full(30);
        let all_but_some = streams.len() - Cautious::ROOM;
        streams.iter_mut().take(all_but_some).for_each(|s| exchange(s, b"hello"));
        full(500);
        drop(streams);
        finish(node);
    }
}

#[test]
fn shards_together_never_serve_more_than_the_bound() {
    // (features.md T15)
    let mut config = config(4);
    config.max_connections = 100;
    let (node, seen) = echo_node(&config);
    let mut streams: Vec<_> = (0..200).map(|_| connect(&node)).collect();
    eventually("full", || total(&node).accepted >= 100);
    std::thread::sleep(Duration::from_millis(100));
    assert!(seen.get(|s| &s.opened) <= 100 && seen.closed() == 0);
    streams.clear();
    drop(streams);
    finish(node);
}

#[test]
fn peers_that_reset_midway_end_with_an_error() {
    let (node, seen) = echo_node(&config(1));
    for _ in 0..50 {
        let mut stream = connect(&node);
        exchange(&mut stream, b"hello");
        stream.write_all(&[b'x'; 100_000]).unwrap();
        reset_on_drop(&stream);
    }
    eventually("all closed", || seen.closed() == 50);
    finish(node);
    assert_eq!(seen.get(|s| &s.closed_local), 0);
}

#[test]
fn too_few_receive_buffers_only_slow_things_down() {
    let mut config = config(1);
    config.recv_buffers_per_ring = 2;
    config.recv_buffer_bytes = 64;
    let (node, _) = echo_node(&config);
    let mut streams: Vec<_> = (0..50).map(|_| connect(&node)).collect();
    streams.iter_mut().for_each(|s| exchange(s, b"hello"));
    let bytes = [7u8; 3000];
    streams.iter_mut().for_each(|s| s.write_all(&bytes).unwrap());
    streams.iter_mut().for_each(|s| expect(s, &bytes));
    drop(streams);
    assert!(finish(node).no_buffers > 0, "the shortage was meant to happen");
}

#[test]
fn a_completion_queue_that_overflows_loses_nothing() {
    let mut config = config(1);
    config.cq_entries = 64;
    let (node, _) = echo_node(&config);
    let mut streams: Vec<_> = (0..1500).map(|_| connect(&node)).collect();
    for _ in 0..5 {
        streams.iter_mut().for_each(|s| s.write_all(b"0123456789").unwrap());
        streams.iter_mut().for_each(|s| expect(s, b"0123456789"));
    }
    drop(streams);
    finish(node);
}

#[test]
fn every_substitute_for_a_newer_kernel_feature_serves() {
    let alone = Feature::ALL.into_iter().map(|f| vec![f]);
    for disable in alone.chain([Feature::ALL.to_vec()]) {
        let mut config = config(2);
        config.max_connections = 20_000; // room for multishot accepts
        config.disable = disable.clone();
        let (node, _) = echo_node(&config);
        let named: Vec<_> = node.kernel().degradations.iter().map(|d| d.feature).collect();
        assert_eq!(named, disable, "the operator is told");
        let mut streams: Vec<_> = (0..200).map(|_| connect(&node)).collect();
        for (n, stream) in streams.iter_mut().enumerate() {
            if n % 2 == 0 {
                stream.write_all(b"H1").unwrap();
                expect(stream, b"@1:");
            }
            exchange(stream, b"hello");
            exchange(stream, b"again");
        }
        let mut last = streams.pop().unwrap();
        last.write_all(b"Q").unwrap();
        let mut rest = Vec::new();
        last.read_to_end(&mut rest).unwrap();
        assert_eq!(rest, b"bye");
        drop((streams, last));
        finish(node);
    }
}

#[test]
fn stopping_flushes_and_ends_although_clients_stay() {
    let (node, seen) = echo_node(&config(2));
    let mut streams: Vec<_> = (0..20).map(|_| connect(&node)).collect();
    streams.iter_mut().for_each(|s| exchange(s, b"hello"));
    node.stop_accepting();
    eventually("refused", || std::net::TcpStream::connect(addr(&node)).is_err());
    streams.iter_mut().for_each(|s| exchange(s, b"still served"));
    node.stop();
    node.join().unwrap();
    for stream in &mut streams {
        assert_eq!(stream.read(&mut [0]).unwrap(), 0, "FIN, not RST");
    }
    assert_eq!(seen.get(|s| &s.closed_local), 20);
}

#[test]
fn an_address_in_use_is_said_so() {
    let holder = TcpListener::bind("127.0.0.1:0").unwrap();
    let config = NodeConfig::new(1, &[holder.local_addr().unwrap()]);
    let error = start_error(&config);
    assert!(matches!(error, StartError::AddressInUse { .. }), "{error}");
    // Another node too, though both use SO_REUSEPORT.
    let (node, _) = echo_node(&reactor_common::config(1));
    let config = NodeConfig::new(1, &[addr(&node)]);
    assert!(matches!(start_error(&config), StartError::AddressInUse { .. }));
}

#[test]
fn a_cpu_that_does_not_exist_is_said_so() {
    let mut config = config(2);
    config.shards[1] = ShardPlacement { cpu: Some(4000) };
    assert!(matches!(start_error(&config), StartError::Executor { shard: 1, .. }));
}

#[test]
fn pinned_shards_serve() {
    let mut config = config(3);
    config.shards = ShardPlacement::spread(3);
    let (node, _) = echo_node(&config);
    assert!(node.ready());
    let mut streams: Vec<_> = (0..30).map(|_| connect(&node)).collect();
    streams.iter_mut().for_each(|s| exchange(s, b"hello"));
    drop(streams);
    finish(node);
}

#[test]
fn a_registered_task_shares_the_executor_with_the_net_task() {
    let ticks = std::sync::Arc::new(std::sync::atomic::AtomicU64::new(0));
    let counter = std::sync::Arc::clone(&ticks);
    let node = reactor::run(&config(1), move |me| {
        let counter = std::sync::Arc::clone(&counter);
        // Registered before the net task starts, so that the task gets its first run.
        let registered = reactor::BackgroundTask::register();
        glommio::spawn_local(async move {
            let _registered = registered;
            loop {
                glommio::timer::sleep(Duration::from_millis(1)).await;
                counter.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            }
        })
        .detach();
        Echo::new(me, Default::default())
    })
    .unwrap_or_else(|e| panic!("start: {e}"));
    let mut stream = connect(&node);
    for _ in 0..200 {
        exchange(&mut stream, b"hello");
    }
    eventually("ticks", || ticks.load(std::sync::atomic::Ordering::Relaxed) > 50);
    exchange(&mut stream, b"hello");
    drop(stream);
    finish(node);
}

#[test]
fn two_listeners_on_both_families_serve() {
    let v6: SocketAddr = "[::1]:0".parse().unwrap();
    let mut config = config(1);
    config.listeners.push(reactor::ListenerConfig::new(v6));
    let (node, _) = echo_node(&config);
    for addr in node.local_addrs() {
        let mut stream = std::net::TcpStream::connect(addr.inet().unwrap()).unwrap();
        exchange(&mut stream, b"hello");
    }
    finish(node);
}

fn start_error(config: &NodeConfig) -> StartError {
    match reactor::run(config, |me: ShardId| Echo::new(me, Default::default())) {
        Ok(_) => panic!("it started"),
        Err(error) => error,
    }
}

#[test]
fn nobody_is_forgotten_when_accepting_moves_to_another_ring() {
    let mut config = config(2);
    config.max_connections = 1000;
    config.max_connections_per_ring = Some(8);
    config.recv_buffers_per_ring = 8;
    let (node, _) = echo_node(&config);
    for _ in 0..3 {
        let mut streams = Vec::new();
        for n in 0..600 {
            // Each move to the other shard frees a place in one ring and takes one in another.
            let mut stream = connect(&node);
            let to = b'0' + (n % 2) as u8;
            stream.write_all(&[b'H', to]).unwrap();
            expect(&mut stream, &[b'@', to, b':']);
            streams.push(stream);
        }
        drop(streams);
        eventually("all closed", || total(&node).connections == 0);
    }
    finish(node);
}
