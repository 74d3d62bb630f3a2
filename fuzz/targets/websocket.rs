//! A WebSocket from its first byte: no panic, and the same in one piece and in many.
//! Input: one byte that says how it is cut and whether the handshake is there already, then bytes.
#![no_main]

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use libfuzzer_sys::fuzz_target;
use ringmain_transport::ws::{Failure, Ws, WsConfig};

const REQUEST: &[u8] = b"GET /mqtt HTTP/1.1\r\nHost: h\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
    Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\
    Sec-WebSocket-Protocol: mqtt\r\n\r\n";

#[derive(Default, PartialEq, Debug)]
struct Seen {
    mqtt: Vec<u8>,
    out: Vec<u8>,
    end: Option<Failure>,
    closed: bool,
}

fn run(bytes: &[u8], size: usize) -> Seen {
    let mut ws = Ws::new(&Arc::new(WsConfig { frame_bytes_max: 1_000, ..WsConfig::default() }));
    let mut seen = Seen::default();
    for piece in bytes.chunks(size) {
        let mut piece = piece.to_vec();
        match ws.read(IpAddr::V4(Ipv4Addr::LOCALHOST), &mut piece, &mut seen.out) {
            Ok(progress) => {
                assert!(progress.plain <= piece.len());
                seen.mqtt.extend_from_slice(&piece[..progress.plain]);
                seen.closed |= progress.peer_closed;
            }
            Err(failure) => {
                seen.end = Some(failure);
                break;
            }
        }
        // An answer is never longer than what it answers, but for the two handshakes.
        assert!(seen.out.len() <= bytes.len() + 1_024);
    }
    seen
}

fuzz_target!(|input: &[u8]| {
    let Some((&choice, bytes)) = input.split_first() else { return };
    let bytes = if choice & 1 == 0 { bytes.to_vec() } else { [REQUEST, bytes].concat() };
    let whole = run(&bytes, bytes.len().max(1));
    let pieces = run(&bytes, usize::from(choice >> 1) + 1);
    // The sentence knows what came so far, the kind does not depend on it.
    let kind = |seen: &Seen| seen.end.as_ref().map(|end| end.kind);
    assert_eq!((kind(&whole), whole.closed), (kind(&pieces), pieces.closed));
    // A failure takes along what came before it in the same call.
    if whole.end.is_none() {
        assert_eq!(whole, pieces);
    }
});
