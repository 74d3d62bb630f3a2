//! Requests about clients and the answers to them, through the reactor: with the engine, on real sockets.

mod reactor_common;

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::{Arc, Mutex};

use reactor_common::*;
use ringmain_mqtt::{Connect, ReasonCode, Version};
use ringmain_shards::engine::Shard;
use ringmain_shards::engine::auth::{AuthRequest, AuthVerdict, Authenticator};
use ringmain_shards::engine::config::EngineConfig;
use ringmain_shards::engine::ids::{Now, ShardId};
use ringmain_shards::engine::node::NodeShared;
use ringmain_shards::reactor::{self, Node};

/// Keeps as many requests as it has room for.
#[derive(Debug)]
struct Desk {
    room: usize,
    requests: Mutex<Vec<AuthRequest>>,
}

impl Authenticator for Desk {
    fn ask(&self, request: Box<AuthRequest>) -> bool {
        let mut requests = self.requests.lock().expect("nobody panics with it");
        if requests.len() == self.room {
            return false;
        }
        requests.push(*request);
        true
    }
}

fn node(shards: usize, room: usize) -> (Node, Arc<Desk>) {
    let desk = Arc::new(Desk { room, requests: Mutex::default() });
    let mut config = config(shards);
    config.authenticator = Some(Arc::clone(&desk) as Arc<dyn Authenticator>);
    let mut engine = EngineConfig::default();
    engine.listeners[0].authenticate = true;
    let shared = Arc::new(NodeShared::new(shards, 7, 0, &engine));
    let engine = Arc::new(engine);
    let factory = move |me: ShardId| {
        Shard::new(me, Arc::clone(&engine), Arc::clone(&shared), 1, Now::default())
    };
    let node = reactor::run(&config, factory).unwrap_or_else(|e| panic!("start: {e}"));
    (node, desk)
}

fn dial(node: &Node, client_id: &str) -> TcpStream {
    let mut bytes = Vec::new();
    Connect::new(Version::V5, client_id).encode(&mut bytes);
    let mut stream = connect(node);
    stream.write_all(&bytes).expect("sends");
    stream
}

fn code(stream: &mut TcpStream) -> u8 {
    let mut head = [0; 4];
    stream.read_exact(&mut head).expect("CONNACK");
    assert_eq!(head[0], 0x20);
    head[3]
}

// AU18
#[test]
fn what_nobody_takes_is_answered_at_once_and_what_is_taken_waits() {
    let (node, desk) = node(2, 1);
    let mut waits = dial(&node, "waits");
    eventually("asked", || desk.requests.lock().is_ok_and(|r| r.len() == 1));
    for n in 0..20 {
        assert_eq!(code(&mut dial(&node, &format!("c{n}"))), ReasonCode::SERVER_BUSY.0);
    }
    waits.set_nonblocking(true).expect("a TCP socket");
    assert!(waits.read(&mut [0; 1]).is_err(), "it still waits");
    waits.set_nonblocking(false).expect("a TCP socket");
    let request = desk.requests.lock().expect("nobody panics with it").remove(0);
    let verdict = AuthVerdict::Allow(Box::default());
    node.handles()[request.shard.index()].answer(request.conn, verdict).expect("has room");
    assert_eq!(code(&mut waits), 0);
    drop(waits);
    finish(node);
}

// AU18: verdicts come in any order, also of clients who left; whoever is let in moves to its home.
#[test]
fn verdicts_in_any_order_reach_their_clients_on_every_shard() {
    const CLIENTS: usize = 200;
    let (node, desk) = node(3, usize::MAX);
    let mut clients: Vec<Option<TcpStream>> =
        (0..CLIENTS).map(|n| Some(dial(&node, &format!("c{n}")))).collect();
    eventually("asked", || desk.requests.lock().is_ok_and(|r| r.len() == CLIENTS));
    for n in (0..CLIENTS).step_by(3) {
        clients[n] = None;
    }
    eventually("gone", || total(&node).connections as usize == CLIENTS - CLIENTS.div_ceil(3));
    let mut requests = std::mem::take(&mut *desk.requests.lock().expect("nobody panics with it"));
    requests.reverse();
    for request in requests {
        let even = request.client_id.as_bytes().last().is_some_and(|last| last % 2 == 0);
        let verdict = match even {
            true => AuthVerdict::Allow(Box::default()),
            false => AuthVerdict::Deny(ReasonCode::NOT_AUTHORIZED),
        };
        node.handles()[request.shard.index()].answer(request.conn, verdict).expect("has room");
    }
    for (n, client) in clients.iter_mut().enumerate() {
        let Some(client) = client else { continue };
        let expected = if n % 2 == 0 { 0 } else { ReasonCode::NOT_AUTHORIZED.0 };
        assert_eq!(code(client), expected, "c{n}");
    }
    drop(clients);
    finish(node);
}
