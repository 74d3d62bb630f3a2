//! The layers together: PROXY header, TLS, WebSocket, in any pieces.

use std::io::{Read, Write};
use std::net::IpAddr;
use std::sync::Arc;

#[path = "support/mod.rs"]
mod support;

use ringmain_transport::proxy::Trusted;
use ringmain_transport::ws::WsConfig;
use ringmain_transport::{
    Cause, Closing, End, Layers, Received, STACK_KEEP_BYTES_MAX, Stack, tls, ws,
};
use rustls::ClientConnection;
use support::{NOW_S, World};

const BALANCER: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 1));
const STRANGER: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 9));
const HEADER: &[u8] = b"PROXY TCP4 203.0.113.7 10.0.0.1 4711 8883\r\n";
const REQUEST: &[u8] = b"GET /mqtt HTTP/1.1\r\nHost: h\r\nUpgrade: websocket\r\n\
    Connection: Upgrade\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
    Sec-WebSocket-Version: 13\r\nSec-WebSocket-Protocol: mqtt\r\n\r\n";
/// A masked frame with "hello" and a ping.
const FRAMES: &[u8] = b"\x82\x85\0\0\0\0hello\x89\x80\0\0\0\0";

fn trusted() -> Option<Arc<Trusted>> {
    Some(Arc::new(Trusted::new(vec!["10.0.0.0/8".parse().unwrap()]).unwrap()))
}

/// A stack as its caller drives it.
struct Driven {
    stack: Stack,
    kept: Vec<u8>,
    mqtt: Vec<u8>,
    seen: Vec<Received>,
    end: Option<End>,
}

impl Driven {
    fn new(layers: &Layers, peer: IpAddr) -> Driven {
        let stack = Stack::new(layers, peer).unwrap().expect("not plain");
        Driven { stack, kept: Vec::new(), mqtt: Vec::new(), seen: Vec::new(), end: None }
    }

    /// What it answers.
    fn receive(&mut self, bytes: &[u8], size: usize) -> Vec<u8> {
        let mut out = Vec::new();
        for piece in bytes.chunks(size) {
            self.kept.extend_from_slice(piece);
            match self.stack.received(NOW_S, &mut self.kept, &mut out) {
                Ok(received) => {
                    assert!(received.keep <= STACK_KEEP_BYTES_MAX);
                    self.mqtt.extend_from_slice(&self.kept[..received.mqtt]);
                    self.kept.drain(..self.kept.len() - received.keep);
                    self.seen.push(received);
                }
                Err(end) => {
                    self.end = Some(end);
                    return out;
                }
            }
        }
        out
    }

    fn secured(&self) -> Option<&tls::Handshake> {
        self.seen.iter().find_map(|seen| seen.secured.as_ref()).map(|secured| &secured.handshake)
    }
}

/// Until neither the client nor the server has more to say; what the client read.
fn talk(client: &mut ClientConnection, server: &mut Driven, size: usize, first: &[u8]) -> Vec<u8> {
    let (mut read, mut before) = (Vec::new(), first.to_vec());
    loop {
        let mut wire = std::mem::take(&mut before);
        while client.wants_write() {
            client.write_tls(&mut wire).unwrap();
        }
        if wire.is_empty() || server.end.is_some() {
            return read;
        }
        let out = server.receive(&wire, size);
        let mut out = &out[..];
        while !out.is_empty() {
            client.read_tls(&mut out).unwrap();
            client.process_new_packets().unwrap();
            let mut buffer = [0; 4096];
            while let Ok(len @ 1..) = client.reader().read(&mut buffer) {
                read.extend_from_slice(&buffer[..len]);
            }
        }
    }
}

#[test]
fn plain_mqtt_has_no_stack_and_a_spent_one_can_go() {
    assert!(Stack::new(&Layers::default(), STRANGER).unwrap().is_none());
    let layers = Layers { proxy: trusted(), ..Layers::default() };
    let mut driven = Driven::new(&layers, STRANGER);
    assert!(!driven.stack.is_open() && !driven.stack.is_spent());
    driven.receive(b"\x10\x0c\0\x04MQTT", 1);
    assert!(driven.stack.is_open() && driven.stack.is_spent());
    assert_eq!(driven.mqtt, b"\x10\x0c\0\x04MQTT");
}

// T12
#[test]
fn all_layers_together_work_in_any_pieces() {
    let mut world = World::new();
    world.config.alpn = tls::Alpn::Http11;
    let ws = Some(Arc::new(WsConfig::default()));
    let layers = Layers { proxy: trusted(), tls: Some(world.load()), ws };
    for size in [1, 3, 100, 100_000] {
        let mut server = Driven::new(&layers, BALANCER);
        let mut client = world.client().without_resumption().connect();
        talk(&mut client, &mut server, size, HEADER);
        assert_eq!(server.stack.peer(), "203.0.113.7".parse::<IpAddr>().unwrap());
        assert!(server.secured().is_some() && !server.stack.is_open());
        assert!(server.stack.seal(&[b"early"], &mut Vec::new()).is_err());
        client.writer().write_all(REQUEST).unwrap();
        let answer = talk(&mut client, &mut server, size, b"");
        assert!(answer.starts_with(b"HTTP/1.1 101 "), "pieces of {size}: {:?}", server.end);
        assert!(server.stack.is_open());
        client.writer().write_all(FRAMES).unwrap();
        assert_eq!(talk(&mut client, &mut server, size, b""), b"\x8a\0");
        assert_eq!(server.mqtt, b"hello");

        let mut out = Vec::new();
        server.stack.seal(&[b"wor", b"ld"], &mut out).unwrap();
        assert_eq!(out.len(), 5 + 2 + 5 + 17, "one record with one frame");
        server.stack.close(Closing::GoingAway, &mut out);
        assert!(server.stack.seal(&[b"late"], &mut out).is_err() && !server.stack.is_open());
        let mut read = [0; 64];
        client.read_tls(&mut &out[..]).unwrap();
        assert!(client.process_new_packets().unwrap().peer_has_closed());
        let len = client.reader().read(&mut read).unwrap();
        assert_eq!(read[..len], *b"\x82\x05world\x88\x02\x03\xe9");
        let proxied = server.seen.iter().filter(|seen| seen.proxied.is_some()).count();
        let upgraded = server.seen.iter().filter(|seen| seen.upgraded.is_some()).count();
        assert_eq!((proxied, upgraded), (1, 1));
    }
}

#[test]
fn everything_may_come_in_one_piece() {
    let ws = Some(Arc::new(WsConfig::default()));
    let layers = Layers { proxy: trusted(), tls: None, ws };
    let all = [HEADER, REQUEST, FRAMES].concat();
    for size in [1, 2, 50, all.len()] {
        let mut server = Driven::new(&layers, BALANCER);
        let out = server.receive(&all, size);
        assert!(out.starts_with(b"HTTP/1.1 101") && out.ends_with(b"\x8a\0"));
        assert_eq!(server.mqtt, b"hello");
        assert!(server.kept.is_empty());
    }
}

// T12
#[test]
fn who_may_not_speak_for_others_is_refused_and_who_must_is_too() {
    let layers = Layers { proxy: trusted(), ..Layers::default() };
    for size in [1, 100] {
        let mut stranger = Driven::new(&layers, STRANGER);
        stranger.receive(HEADER, size);
        let end = stranger.end.unwrap();
        assert_eq!(end.cause, Cause::Proxy);
        assert!(end.sentence.contains("192.0.2.9") && stranger.mqtt.is_empty());
        let mut balancer = Driven::new(&layers, BALANCER);
        balancer.receive(b"\x10\x0c\0\x04MQTT", size);
        assert_eq!(balancer.end.unwrap().cause, Cause::Proxy);
        assert!(balancer.mqtt.is_empty());
    }
    // A health check is from who it seems to be from.
    let mut check = Driven::new(&layers, BALANCER);
    check.receive(b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0", 5);
    assert_eq!((check.stack.peer(), check.stack.is_spent()), (BALANCER, true));
}

#[test]
fn each_layer_names_itself_when_it_ends_a_connection() {
    let world = World::new();
    let layers = Layers { tls: Some(world.load()), ..Layers::default() };
    let mut server = Driven::new(&layers, STRANGER);
    let out = server.receive(b"GET / HTTP/1.1\r\n\r\n", 100);
    assert_eq!(server.end.unwrap().cause, Cause::Tls(tls::FailureKind::NotTls));
    assert_eq!(out[0], 0x15, "an alert");

    let ws = Some(Arc::new(WsConfig::default()));
    let layers = Layers { tls: Some(world.load()), ws, ..Layers::default() };
    let mut server = Driven::new(&layers, STRANGER);
    let mut client = world.client().connect();
    client.writer().write_all(b"GET /nothing HTTP/1.1\r\nHost: h\r\n\r\n").unwrap();
    let answer = talk(&mut client, &mut server, 100, b"");
    assert!(answer.starts_with(b"HTTP/1.1 404 "), "the answer goes through TLS");
    assert_eq!(server.end.unwrap().cause, Cause::Ws(ws::FailureKind::Status(404)));
}

#[test]
fn a_stack_is_send_so_that_it_can_move() {
    fn is_send<T: Send>() {}
    is_send::<Stack>();
    is_send::<Layers>();
}
