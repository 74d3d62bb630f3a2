//! WebSocket and PROXY headers on the reactor. (T11, T12)

mod reactor_common;

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::Arc;

use reactor_common::tls::{TlsClient, World, layered};
use reactor_common::*;
use ringmain_shards::reactor::{self, Address, Layers, ListenerConfig, StartError};
use ringmain_transport::proxy::Trusted;
use ringmain_transport::tls::Alpn;
use ringmain_transport::ws::WsConfig;

const REQUEST: &[u8] = b"GET /mqtt HTTP/1.1\r\nHost: h\r\nUpgrade: websocket\r\n\
    Connection: Upgrade\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
    Sec-WebSocket-Version: 13\r\nSec-WebSocket-Protocol: mqtt\r\n\r\n";

fn websocket() -> Layers {
    Layers { ws: Some(Arc::new(WsConfig::default())), ..Layers::default() }
}

fn trusting(networks: &[&str]) -> Option<Arc<Trusted>> {
    let networks = networks.iter().map(|text| text.parse().unwrap()).collect();
    Some(Arc::new(Trusted::new(networks).unwrap()))
}

/// A masked frame with a payload of less than 126 bytes.
fn frame(head: u8, payload: &[u8]) -> Vec<u8> {
    let mask = [1, 2, 3, 4];
    let masked = payload.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask);
    [head, 0x80 | payload.len() as u8].into_iter().chain(mask).chain(masked).collect()
}

/// The head of the answer to a handshake.
fn answer(stream: &mut impl Read) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte).expect("an answer");
        head.push(byte[0]);
    }
    String::from_utf8(head).unwrap()
}

/// The payloads of binary frames until so many bytes came.
fn payload(stream: &mut impl Read, len: usize) -> Vec<u8> {
    let mut all = Vec::new();
    while all.len() < len {
        let mut head = [0; 2];
        stream.read_exact(&mut head).expect("a frame");
        assert_eq!(head[0], 0x82, "a whole binary frame");
        let len = match head[1] {
            126 => {
                let mut len = [0; 2];
                stream.read_exact(&mut len).unwrap();
                usize::from(u16::from_be_bytes(len))
            }
            len => usize::from(len),
        };
        let mut payload = vec![0; len];
        stream.read_exact(&mut payload).unwrap();
        all.extend(payload);
    }
    all
}

fn read_to_end(stream: &mut TcpStream) -> Vec<u8> {
    let mut rest = Vec::new();
    stream.read_to_end(&mut rest).unwrap();
    rest
}

#[test]
fn bytes_come_back_over_websocket_whatever_the_frames_and_pieces() {
    // [MQTT-6.0.0-2]
    let (node, seen) = echo_node(&layered(2, websocket()));
    let fragments = [
        frame(0x02, b"one "),
        frame(0x89, b""),
        frame(0x00, b"and two "),
        frame(0x80, b"and three"),
    ];
    let wire = [REQUEST, &fragments.concat()].concat();
    for size in [1, 2, 7, 50, wire.len()] {
        let mut stream = connect(&node);
        let mut writer = stream.try_clone().unwrap();
        let pieces = wire.clone();
        let writing = std::thread::spawn(move || {
            pieces.chunks(size).for_each(|piece| writer.write_all(piece).unwrap());
        });
        assert!(answer(&mut stream).starts_with("HTTP/1.1 101 "));
        let (mut got, mut pongs) = (Vec::new(), 0);
        while got.len() < 21 || pongs == 0 {
            let mut head = [0; 2];
            stream.read_exact(&mut head).unwrap();
            let mut payload = vec![0; usize::from(head[1])];
            stream.read_exact(&mut payload).unwrap();
            match head[0] {
                0x82 => got.extend(payload),
                0x8a => pongs += 1,
                other => panic!("{other:x}"),
            }
        }
        writing.join().unwrap();
        assert_eq!((got.as_slice(), pongs), (&b"one and two and three"[..], 1), "{size}");
    }
    let stats = finish(node);
    assert_eq!((stats.websockets_opened, seen.get(|s| &s.introduced)), (5, 0));
    assert_eq!(seen.get(|s| &s.bytes), seen.get(|s| &s.sent), "frames are not the machine's");
}

#[test]
fn a_websocket_moves_in_the_middle_of_a_frame() {
    let (node, _) = echo_node(&layered(2, websocket()));
    let order = frame(0x82, b"H1");
    let next = frame(0x82, b"later");
    for cut in 0..=next.len() {
        let mut stream = connect(&node);
        let first = [REQUEST, &order, &next[..cut]].concat();
        stream.write_all(&first).unwrap();
        assert!(answer(&mut stream).starts_with("HTTP/1.1 101 "));
        // Bytes of the payload are MQTT as soon as they are there.
        stream.write_all(&next[cut..]).unwrap();
        assert_eq!(payload(&mut stream, 8), b"@1:later", "{cut}");
    }
    let arrived = finish(node).arrived;
    assert_eq!(arrived as usize, next.len() + 1);
}

#[test]
fn each_end_of_a_websocket_has_its_code() {
    // RFC 6455, section 7.4.1
    let (node, seen) = echo_node(&layered(1, websocket()));
    let open = || {
        let mut stream = connect(&node);
        stream.write_all(REQUEST).unwrap();
        answer(&mut stream);
        stream
    };
    let mut closed_by_machine = open();
    closed_by_machine.write_all(&frame(0x82, b"Q")).unwrap();
    assert_eq!(read_to_end(&mut closed_by_machine), b"\x82\x03bye\x88\x02\x03\xe8");
    let mut closed_by_client = open();
    closed_by_client.write_all(&[frame(0x82, b"x"), frame(0x88, b"\x03\xe8")].concat()).unwrap();
    // The answer to a close frame goes at once: what would follow it is nobody's.
    let rest = read_to_end(&mut closed_by_client);
    assert!(rest.ends_with(b"\x88\x02\x03\xe8"), "{rest:?}");
    let mut text = open();
    text.write_all(&frame(0x81, b"text")).unwrap();
    assert_eq!(read_to_end(&mut text)[..4], *b"\x88\x02\x03\xeb", "1003 [MQTT-6.0.0-1]");
    let mut wrong = connect(&node);
    wrong.write_all(&[b"GET /other ".as_slice(), &REQUEST[10..]].concat()).unwrap();
    assert!(String::from_utf8(read_to_end(&mut wrong)).unwrap().starts_with("HTTP/1.1 404 "));
    drop((closed_by_machine, closed_by_client, text, wrong));
    eventually("all closed", || seen.closed() == 4);
    let mut stopped = open();
    stopped.write_all(&frame(0x82, b"x")).unwrap();
    assert_eq!(payload(&mut stopped, 1), b"x");
    node.stop();
    assert_eq!(read_to_end(&mut stopped), b"\x88\x02\x03\xe9", "going away");
    drop(stopped);
    let stats = finish(node);
    assert_eq!((stats.websockets_refused, stats.websockets_failed), (1, 1));
}

#[test]
fn a_proxy_says_who_its_client_is() {
    // T12
    let v1 = b"PROXY TCP4 203.0.113.7 10.0.0.1 4711 1883\r\n".as_slice();
    let v2 = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c\xcb\0\x71\x07\x0a\0\0\x01\x12\x67\x07\x5b";
    let layers = Layers { proxy: trusting(&["127.0.0.0/8"]), ..Layers::default() };
    let (node, seen) = echo_node(&layered(2, layers));
    for header in [v1, v2.as_slice()] {
        for cut in 0..=header.len() {
            let mut stream = connect(&node);
            stream.write_all(&header[..cut]).unwrap();
            std::thread::sleep(std::time::Duration::from_micros(200));
            stream.write_all(&[&header[cut..], b"H1hello"].concat()).unwrap();
            expect(&mut stream, b"@1:hello");
            exchange(&mut stream, b"still here");
            let said = seen.introduction.lock().unwrap().take().expect("an introduction");
            assert_eq!(said.addr, Some("203.0.113.7:4711".parse().unwrap()));
        }
    }
    let mut without = connect(&node);
    without.write_all(b"no header at all").unwrap();
    assert_eq!(read_to_end(&mut without), b"");
    drop(without);
    assert_eq!(finish(node).proxy_headers_refused, 1);
}

#[test]
fn a_header_of_a_stranger_is_refused_and_without_one_he_is_plain() {
    // T12
    let layers = Layers { proxy: trusting(&["10.0.0.0/8"]), ..Layers::default() };
    let (node, seen) = echo_node(&layered(1, layers));
    let mut liar = connect(&node);
    liar.write_all(b"PROXY TCP4 203.0.113.7 10.0.0.1 4711 1883\r\nx").unwrap();
    assert_eq!(read_to_end(&mut liar), b"");
    let mut honest = connect(&node);
    for n in 0..20usize {
        exchange(&mut honest, &vec![b'x'; 1 + n * 50]);
    }
    drop((liar, honest));
    assert_eq!(finish(node).proxy_headers_refused, 1);
    assert_eq!(seen.get(|s| &s.introduced), 0);
}

#[test]
fn all_layers_together_carry_bytes() {
    let mut world = World::new();
    world.config.alpn = Alpn::Http11;
    let proxy = trusting(&["127.0.0.0/8"]);
    let layers = Layers { proxy, tls: Some(world.load()), ..websocket() };
    let (node, seen) = echo_node(&layered(2, layers));
    let config = world.client(&[&rustls::version::TLS13]);
    let mut client = TlsClient::new(&node, &config);
    client.stream.write_all(b"PROXY TCP6 2001:db8::7 2001:db8::1 4711 8084\r\n").unwrap();
    while client.tls.is_handshaking() {
        let wire = client.wire(b"");
        client.stream.write_all(&wire).unwrap();
        if client.tls.is_handshaking() {
            client.receive();
        }
    }
    client.send(REQUEST);
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        match client.tls.reader().read_exact(&mut byte) {
            Ok(()) => head.push(byte[0]),
            Err(_) => assert!(client.receive()),
        }
    }
    assert!(head.starts_with(b"HTTP/1.1 101 "));
    client.send(&frame(0x82, b"H1hello"));
    client.expect(b"\x82\x08@1:hello");
    let said = seen.introduction.lock().unwrap().take().expect("an introduction");
    assert_eq!(said.addr, Some("[2001:db8::7]:4711".parse().unwrap()));
    assert_eq!(said.tls.map(|tls| tls.version), Some("TLSv1.3".into()));
    client.send(&frame(0x82, b"Q"));
    assert_eq!(client.rest(), (b"\x82\x03bye\x88\x02\x03\xe8".to_vec(), true));
    drop(client);
    finish(node);
}

#[test]
fn a_unix_socket_serves_and_its_file_goes_with_the_node() {
    // T01
    use std::os::unix::fs::PermissionsExt;
    use std::os::unix::net::{UnixListener, UnixStream};

    let name = format!("ringmain-{}.sock", std::process::id());
    let path = std::env::temp_dir().join(name);
    // What a broker leaves behind that was killed.
    drop(UnixListener::bind(&path).unwrap());
    let mut settings = config(3);
    settings.listeners.push(ListenerConfig::new(Address::Unix(path.clone())));
    settings.listeners[1].unix_mode = Some(0o660);
    let (node, seen) = echo_node(&settings);
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o660);
    let mut streams: Vec<UnixStream> =
        (0..30).map(|_| UnixStream::connect(&path).unwrap()).collect();
    for (n, stream) in streams.iter_mut().enumerate() {
        stream.write_all(format!("H{}hello", n % 3).as_bytes()).unwrap();
    }
    for (n, stream) in streams.iter_mut().enumerate() {
        let mut got = [0; 8];
        stream.read_exact(&mut got).unwrap();
        assert_eq!(&got, format!("@{}:hello", n % 3).as_bytes());
    }
    assert_eq!(seen.get(|s| &s.arrived), 30);
    // Somebody listens: it is not taken away.
    let error = reactor::run(&settings, |me| Echo::new(me, Default::default())).err().unwrap();
    assert!(matches!(error, StartError::AddressInUse { .. }), "{error}");
    drop(streams);
    finish(node);
    assert!(!path.exists(), "the file is still there");
    std::fs::write(&path, "a file").unwrap();
    let error = reactor::run(&settings, |me| Echo::new(me, Default::default())).err().unwrap();
    assert!(error.to_string().contains("no socket"), "{error}");
    assert_eq!(std::fs::read(&path).unwrap(), b"a file", "nobody's file is removed");
    std::fs::remove_file(&path).unwrap();
}
