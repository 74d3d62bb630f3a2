//! The handshake and frames, byte by byte.

use super::*;
use crate::proxy::Trusted;

const PEER: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);
const REQUEST: &str = "GET /mqtt HTTP/1.1\r\nHost: broker\r\nUpgrade: websocket\r\n\
    Connection: keep-alive, Upgrade\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
    Sec-WebSocket-Version: 13\r\nSec-WebSocket-Protocol: mqtt\r\n\r\n";

/// A frame of a client.
fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let mask = [0xA1, 0xB2, 0xC3, 0xD4];
    let (head, len) = frame_head(payload.len());
    let mut bytes = head[..len].to_vec();
    bytes[0] = first;
    bytes[1] |= 0x80;
    bytes.extend_from_slice(&mask);
    bytes.extend(payload.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask));
    bytes
}

const BINARY: u8 = 0x82;
const BINARY_BEGIN: u8 = 0x02;
const CONTINUE: u8 = 0x00;
const CONTINUE_END: u8 = 0x80;
const TEXT: u8 = 0x81;
const CLOSE: u8 = 0x88;
const PING: u8 = 0x89;
const PONG: u8 = 0x8A;

struct Run {
    ws: Ws,
    mqtt: Vec<u8>,
    out: Vec<u8>,
    end: Option<Failure>,
    opened: Option<Upgrade>,
    closed: bool,
}

impl Run {
    fn new(config: WsConfig) -> Run {
        let ws = Ws::new(&Arc::new(config));
        Run { ws, mqtt: vec![], out: vec![], end: None, opened: None, closed: false }
    }

    fn open() -> Run {
        let limits = WsConfig {
            frame_bytes_max: 100_000,
            message_bytes_max: 200_000,
            ..WsConfig::default()
        };
        let mut run = Run::new(limits).read(REQUEST.as_bytes());
        assert!(run.opened.is_some(), "{:?}", run.end);
        run.out.clear();
        run
    }

    fn read(self, bytes: &[u8]) -> Run {
        self.read_from(PEER, bytes)
    }

    fn read_from(mut self, peer: IpAddr, bytes: &[u8]) -> Run {
        let mut bytes = bytes.to_vec();
        match self.ws.read(peer, &mut bytes, &mut self.out) {
            Ok(progress) => {
                self.mqtt.extend_from_slice(&bytes[..progress.plain]);
                self.opened = self.opened.or(progress.opened.map(|opened| *opened));
                self.closed |= progress.peer_closed;
            }
            Err(failure) => self.end = Some(failure),
        }
        self
    }

    fn read_in_pieces(mut self, bytes: &[u8], size: usize) -> Run {
        for piece in bytes.chunks(size) {
            self = self.read(piece);
        }
        self
    }

    fn closed_with(&self) -> Option<u16> {
        match self.end.as_ref()?.kind {
            FailureKind::Close(code) => {
                assert_eq!(
                    self.out[self.out.len() - 4..],
                    [&[0x88, 2], &code.to_be_bytes()[..]].concat()
                );
                Some(code)
            }
            _ => None,
        }
    }
}

/// The request without a header, or with another value.
fn request(header: &str, value: Option<&str>) -> String {
    let lines = REQUEST.trim_end().split("\r\n").filter(|line| !line.starts_with(header));
    let mut text = lines.collect::<Vec<_>>().join("\r\n");
    if let Some(value) = value {
        text += &format!("\r\n{header}: {value}");
    }
    text + "\r\n\r\n"
}

fn status(text: &str, config: &WsConfig) -> u16 {
    let run = Run::new(config.clone()).read(text.as_bytes());
    let Some(failure) = run.end else { return 101 };
    let FailureKind::Status(status) = failure.kind else { panic!("{failure:?}") };
    let answer = String::from_utf8(run.out).unwrap();
    assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{answer}");
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    assert!(head.contains(&format!("Content-Length: {}", body.len())), "{answer}");
    assert_eq!(head.contains("Sec-WebSocket-Version: 13"), status == 426);
    assert_eq!(head.contains("Allow: GET"), status == 405);
    status
}

// T11, RFC 6455 section 1.3
#[test]
fn the_handshake_of_the_rfc_gets_its_answer_in_any_pieces() {
    for size in [1, 2, 7, REQUEST.len()] {
        let run = Run::new(WsConfig::default()).read_in_pieces(REQUEST.as_bytes(), size);
        let answer = String::from_utf8(run.out).unwrap();
        assert!(answer.starts_with("HTTP/1.1 101 Switching Protocols\r\n"), "{answer}");
        assert!(answer.contains("Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n"));
        assert!(answer.contains("Sec-WebSocket-Protocol: mqtt\r\n"));
        assert!(!answer.contains("Extensions"));
        assert_eq!(run.opened.unwrap().subprotocol, Some("mqtt"));
    }
}

#[test]
fn frames_behind_the_handshake_are_read_with_it() {
    let bytes = [REQUEST.as_bytes(), &frame(BINARY, b"CONNECT")].concat();
    for size in [1, 3, bytes.len()] {
        let run = Run::new(WsConfig::default()).read_in_pieces(&bytes, size);
        assert_eq!(run.mqtt, b"CONNECT");
    }
}

// T11
#[test]
fn requests_that_are_wrong_get_the_status_that_says_so() {
    let config = WsConfig::default();
    let changed = |from: &str, to: &str| status(&REQUEST.replace(from, to), &config);
    assert_eq!(status(REQUEST, &config), 101);
    assert_eq!(changed("GET /mqtt ", "GET /mqtt?token=1 "), 101);
    assert_eq!(changed("websocket", "WebSocket"), 101);
    assert_eq!(changed("GET ", "POST "), 405);
    assert_eq!(changed("HTTP/1.1", "HTTP/1.0"), 400);
    assert_eq!(changed("/mqtt", "/mqtt2"), 404);
    assert_eq!(changed("/mqtt", "/"), 404);
    assert_eq!(changed("Version: 13", "Version: 8"), 426);
    let without = |header| status(&request(header, None), &config);
    assert_eq!(without("Host"), 400);
    assert_eq!(without("Upgrade"), 426);
    assert_eq!(without("Connection"), 426);
    assert_eq!(without("Sec-WebSocket-Key"), 400);
    assert_eq!(without("Sec-WebSocket-Version"), 426);
    let with = |header, value| status(&request(header, Some(value)), &config);
    assert_eq!(with("Sec-WebSocket-Key", "c2hvcnQ="), 400);
    assert_eq!(with("Sec-WebSocket-Key", "not base64 not base64 =="), 400);
    assert_eq!(with("Content-Length", "5"), 400);
    assert_eq!(with("Content-Length", "0"), 101);
    assert_eq!(with("Transfer-Encoding", "chunked"), 400);
    assert_eq!(status(&(request("X", Some("y\r\nHost: other"))), &config), 400);
    assert_eq!(status("G\u{1}T / HTTP/1.1\r\n\r\n", &config), 400);
}

// [MQTT-6.0.0-3] [MQTT-6.0.0-4]
#[test]
fn the_subprotocol_is_mqtt() {
    let mut config = WsConfig::default();
    let offers = |value: &str, config: &WsConfig| {
        let text = request("Sec-WebSocket-Protocol", Some(value));
        let run = Run::new(config.clone()).read(text.as_bytes());
        run.opened.map(|opened| opened.subprotocol)
    };
    assert_eq!(offers("mqtt", &config), Some(Some("mqtt")));
    assert_eq!(offers("chat, mqttv3.1", &config), Some(Some("mqttv3.1")));
    assert_eq!(offers("mqttv3.1,mqtt", &config), Some(Some("mqttv3.1")));
    assert_eq!(offers("chat", &config), None);
    assert_eq!(offers("MQTT", &config), None);
    assert_eq!(status(&request("Sec-WebSocket-Protocol", None), &config), 400);
    config.subprotocol_optional = true;
    assert_eq!(status(&request("Sec-WebSocket-Protocol", None), &config), 101);
    assert_eq!(offers("chat", &config), None, "the client would refuse the answer");
}

#[test]
fn only_the_pages_of_allowed_origins_connect() {
    let allowed = Some(vec!["https://app.example".to_owned()]);
    let config = WsConfig { origins: allowed, ..WsConfig::default() };
    let from = |origin| status(&request("Origin", Some(origin)), &config);
    assert_eq!(from("https://app.example"), 101);
    assert_eq!(from("http://app.example"), 403);
    assert_eq!(from("https://app.example.evil"), 403);
    assert_eq!(from("null"), 403);
    assert_eq!(status(REQUEST, &config), 101, "who sends none is no browser");
}

#[test]
fn a_forwarded_address_is_believed_from_trusted_proxies_only() {
    let networks = ["10.0.0.0/8", "2001:db8::/32"].map(|network| network.parse().unwrap());
    let trusted_proxies = Trusted::new(networks.to_vec()).unwrap();
    let config = WsConfig { trusted_proxies, ..WsConfig::default() };
    let proxy: IpAddr = "10.0.0.1".parse().unwrap();
    let seen = |peer, value: &str| {
        let text = request("X-Forwarded-For", Some(value));
        let run = Run::new(config.clone()).read_from(peer, text.as_bytes());
        run.opened.map(|opened| opened.forwarded_for.map(|address| address.to_string()))
    };
    let is = |address: &str| Some(Some(address.to_owned()));
    assert_eq!(seen(PEER, "192.0.2.1"), Some(None));
    assert_eq!(seen(proxy, "192.0.2.1"), is("192.0.2.1"));
    assert_eq!(seen(proxy, "6.6.6.6, 192.0.2.1"), is("192.0.2.1"), "the first is made up");
    assert_eq!(seen(proxy, "192.0.2.1, 10.9.9.9"), is("192.0.2.1"));
    assert_eq!(seen(proxy, "10.3.3.3, 10.9.9.9"), is("10.3.3.3"));
    assert_eq!(seen(proxy, "192.0.2.1:4711"), is("192.0.2.1"));
    assert_eq!(seen(proxy, "[2a00::1]:80"), is("2a00::1"));
    assert_eq!(seen(proxy, "unknown"), None);
    let text = request("X-Forwarded-For", None);
    assert_eq!(
        Run::new(config.clone()).read_from(proxy, text.as_bytes()).opened.unwrap().forwarded_for,
        None
    );
}

#[test]
fn a_head_has_bounds() {
    let config = WsConfig::default();
    let long = request("X-Long", Some(&"x".repeat(HEAD_BYTES_MAX)));
    assert_eq!(status(&long, &config), 431);
    let many = request("X", Some(&"y\r\nX: y".repeat(70)));
    assert_eq!(status(&many, &config), 431);
    let mut run = Run::new(config).read(b"GET /");
    for _ in 0..HEAD_BYTES_MAX {
        run = run.read(b"a");
    }
    assert_eq!(run.end.unwrap().kind, FailureKind::Over, "and stays over");
}

// W19
#[test]
fn mqtt_and_tls_on_a_websocket_port_have_their_sentences() {
    let said = |bytes: &[u8]| Run::new(WsConfig::default()).read(bytes).end.unwrap().sentence;
    assert!(said(b"\x10\x10\0\x04MQTT\x04").contains("MQTT on a WebSocket listener"));
    assert!(said(b"\x16\x03\x01\0").contains("TLS on a plain WebSocket"));
}

// [MQTT-6.0.0-2]
#[test]
fn packets_lie_across_frames_as_they_like() {
    let stream = [
        frame(BINARY, b"one"),
        frame(BINARY_BEGIN, b"tw"),
        frame(PING, b"are you there"),
        frame(CONTINUE, b""),
        frame(CONTINUE, b"o"),
        frame(PONG, b"unasked"),
        frame(CONTINUE_END, b"three"),
        frame(BINARY, &[b'x'; 300]),
        frame(BINARY, &[b'y'; 70_000]),
        frame(PING, b""),
    ]
    .concat();
    for size in [1, 2, 3, 5, 8, 13, 1000, stream.len()] {
        let run = Run::open().read_in_pieces(&stream, size);
        assert_eq!(run.end, None, "pieces of {size}");
        assert_eq!(&run.mqtt[..11], b"onetwothree");
        assert_eq!(run.mqtt.len(), 11 + 300 + 70_000);
        assert!(run.mqtt[11..311].iter().all(|byte| *byte == b'x'));
        assert!(run.mqtt[311..].iter().all(|byte| *byte == b'y'));
        assert_eq!(run.out, b"\x8a\x0dare you there\x8a\x00");
    }
}

#[test]
fn what_the_rfc_forbids_closes_with_the_code_that_says_so() {
    let unmasked = b"\x82\x03abc".to_vec();
    let table: [(&str, Vec<u8>, u16); 17] = [
        ("text [MQTT-6.0.0-1]", frame(TEXT, b"hello"), 1003),
        ("text, fragmented", frame(0x01, b"hel"), 1003),
        ("unmasked", unmasked, 1002),
        ("RSV1", frame(0xC2, b"x"), 1002),
        ("RSV3", frame(0x92, b"x"), 1002),
        ("reserved data", frame(0x83, b"x"), 1002),
        ("reserved control", frame(0x8B, b"x"), 1002),
        ("continues nothing", frame(CONTINUE_END, b"x"), 1002),
        ("begins twice", [frame(BINARY_BEGIN, b"x"), frame(BINARY, b"y")].concat(), 1002),
        ("fragmented ping", frame(0x09, b"x"), 1002),
        ("long ping", frame(PING, &[0; 126]), 1002),
        ("length not shortest", b"\x82\xfe\x00\x05\0\0\0\0hello".to_vec(), 1002),
        ("length not shortest, 64", b"\x82\xff\0\0\0\0\0\0\x01\0\0\0\0\0".to_vec(), 1002),
        ("length with sign", b"\x82\xff\x80\0\0\0\0\0\0\0\0\0\0\0".to_vec(), 1002),
        ("frame too large", frame(BINARY, &vec![0; 100_001])[..20].to_vec(), 1009),
        (
            "message too large",
            [
                frame(BINARY_BEGIN, &vec![0; 100_000]),
                frame(CONTINUE, &vec![0; 100_000]),
                frame(CONTINUE, b"x"),
            ]
            .concat(),
            1009,
        ),
        ("continues what ended", [frame(BINARY, b"x"), frame(CONTINUE, b"y")].concat(), 1002),
    ];
    for (name, bytes, code) in table {
        for size in [1, 4, bytes.len()] {
            let mut run = Run::open();
            for piece in bytes.chunks(size) {
                run = run.read(piece);
                if run.end.is_some() {
                    break;
                }
            }
            assert_eq!(run.closed_with(), Some(code), "{name} in pieces of {size}");
            assert!(!run.ws.is_open());
            assert_eq!(run.read(b"x").end.unwrap().kind, FailureKind::Over);
        }
    }
}

#[test]
fn a_close_frame_is_answered_with_its_code() {
    let closed = |payload: &[u8]| {
        let run = Run::open().read(&[frame(CLOSE, payload), frame(BINARY, b"ignored")].concat());
        assert_eq!(run.mqtt, b"");
        assert!(run.closed || run.end.is_some());
        (run.out, run.end.map(|failure| failure.kind))
    };
    assert_eq!(closed(b""), (b"\x88\0".to_vec(), None));
    assert_eq!(closed(b"\x03\xe8"), (b"\x88\x02\x03\xe8".to_vec(), None));
    assert_eq!(closed(b"\x0f\xa0bye"), (b"\x88\x02\x0f\xa0".to_vec(), None));
    let protocol = (b"\x88\x02\x03\xea".to_vec(), Some(FailureKind::Close(1002)));
    for payload in
        [&b"\x03"[..], b"\x03\xec", b"\x03\xed", b"\x03\xee", b"\x03\xf7", b"\0\0", b"\x13\x88"]
    {
        assert_eq!(closed(payload), protocol, "{payload:?}");
    }
    let invalid = (b"\x88\x02\x03\xef".to_vec(), Some(FailureKind::Close(1007)));
    assert_eq!(closed(b"\x03\xe8\xff"), invalid);
}

#[test]
fn after_our_close_frame_nothing_counts_but_the_clients() {
    let mut run = Run::open();
    run.ws.close(1001, &mut run.out);
    run.ws.close(1000, &mut run.out);
    assert_eq!(run.out, b"\x88\x02\x03\xe9");
    run.ws.write(&[b"late"], &mut run.out);
    let run = run.read(&[frame(BINARY, b"late"), frame(PING, b"")].concat());
    assert_eq!((run.mqtt.len(), run.out.len(), run.closed), (0, 4, false));
    let run = run.read(&frame(CLOSE, b"\x03\xe9"));
    assert_eq!((run.closed, run.out.len()), (true, 4));
}

// [MQTT-6.0.0-1]
#[test]
fn a_batch_is_one_binary_frame_with_the_shortest_head() {
    let run = Run::open();
    for (len, head) in [
        (1, &b"\x82\x01"[..]),
        (125, b"\x82\x7d"),
        (126, b"\x82\x7e\0\x7e"),
        (65_535, b"\x82\x7e\xff\xff"),
        (65_536, b"\x82\x7f\0\0\0\0\0\x01\0\0"),
    ] {
        let mut out = Vec::new();
        run.ws.write(&[&vec![7; len - 1], b"", b"x"], &mut out);
        assert!(out.starts_with(head) && out.len() == head.len() + len, "{len}");
    }
    let mut out = Vec::new();
    run.ws.write(&[], &mut out);
    Run::new(WsConfig::default()).ws.write(&[b"too early"], &mut out);
    assert!(out.is_empty());
}
