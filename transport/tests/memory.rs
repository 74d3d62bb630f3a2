//! What an idle connection holds, counted by the allocator. Row T09.

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

#[path = "support/mod.rs"]
mod support;

use ringmain_transport::tls::{ClientAuth, ClientVerification, TlsContext};
use ringmain_transport::ws::{Ws, WsConfig};
use support::{Ca, Client, Pair, World, client_params};

struct Counting;

static HELD: AtomicUsize = AtomicUsize::new(0);

// SAFETY: hands everything to the system's allocator, and counts.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        HELD.fetch_add(layout.size(), Ordering::Relaxed);
        // SAFETY: the caller keeps the contract of `alloc`.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        HELD.fetch_sub(layout.size(), Ordering::Relaxed);
        // SAFETY: the caller keeps the contract of `dealloc`.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

const CONNECTIONS: usize = 1_000;
/// What rustls holds: itself 1,088, two AES keys of 560, room for 16 parts of handshake messages
/// 640, two queues of 96, the state of TLS 1.3 224. Nothing of it is a buffer for data. The budget
/// of the row is 6 KiB. A client's certificate adds its own size and 192 for the list.
const TLS_BYTES_MAX: usize = 3_400;

/// Bytes that a connection holds after its handshake and a message in each direction.
fn held(context: &Arc<TlsContext>, client: &Client) -> usize {
    let mut idle = Vec::with_capacity(CONNECTIONS);
    let before = HELD.load(Ordering::Relaxed);
    for _ in 0..CONNECTIONS {
        let mut pair = Pair::new(context, client).run();
        pair.client_writes(&[1; 2_000]);
        pair.server_writes(&[&[2; 2_000]]);
        assert!(pair.is_open() && pair.read.len() == 2_000);
        idle.push(pair.server);
    }
    let held = HELD.load(Ordering::Relaxed) - before;
    drop(idle);
    held / CONNECTIONS + size_of::<ringmain_transport::tls::Tls>()
}

// T09. One test: another one beside it would be counted too.
#[test]
fn an_idle_connection_holds_less_than_its_budget() {
    let mut world = World::new();
    for version in [&rustls::version::TLS12, &rustls::version::TLS13] {
        let client = Client::with(&world.ca.pem, &[version], None).without_resumption();
        let context = world.load();
        // What is made once is not to be counted.
        held(&context, &client);
        let bytes = held(&context, &client);
        println!("{:?}: {bytes} B", version.version);
        assert!(bytes <= TLS_BYTES_MAX, "{:?}: {bytes} B", version.version);
    }
    let ca = Ca::new("Client CA");
    let ca_file = Some(world.folder.write("clients.pem", &ca.pem));
    let verification = ClientVerification::Required;
    world.config.client = ClientAuth { verification, ca_file, ..ClientAuth::default() };
    let leaf = ca.sign(&client_params("device"));
    let own = Some((&*leaf.pem, &*leaf.key_pem));
    let client = Client::with(&world.ca.pem, &[&rustls::version::TLS13], own).without_resumption();
    let context = world.load();
    let bytes = held(&context, &client);
    println!("TLS 1.3 and a client's certificate of {} B: {bytes} B", leaf.der.len());
    assert!(bytes <= TLS_BYTES_MAX + leaf.der.len() + 192, "{bytes} B");

    let config = Arc::new(WsConfig::default());
    let before = HELD.load(Ordering::Relaxed);
    let mut ws = Box::new(Ws::new(&config));
    let request = "GET /mqtt HTTP/1.1\r\nHost: h\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
        Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\
        Sec-WebSocket-Protocol: mqtt\r\n\r\n";
    // The handshake, a ping, and half a frame.
    let mut bytes = request.as_bytes().to_vec();
    bytes.extend_from_slice(b"\x89\x80aaaa\x82\x85aaaaxx");
    let peer = "127.0.0.1".parse().unwrap();
    let mut out = Vec::new();
    assert_eq!(ws.read(peer, &mut bytes, &mut out).unwrap().plain, 2);
    drop((bytes, out));
    let held = HELD.load(Ordering::Relaxed) - before;
    println!("WebSocket: {held} B");
    assert!(held <= 100, "WebSocket: {held} B");
}
