//! What TLS costs the others: round trips of an established plain connection while clients make handshakes as fast
//! as they can, and what idle TLS connections hold. Rows T08 and T09.
//!
//! `cargo run --release -p ringmain-shards --example tls_storm -- [SECONDS] [STORMING_THREADS] [CONNECTIONS_EACH]`
#![allow(clippy::print_stdout, reason = "it is what this is for")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use rcgen::{CertificateParams, KeyPair};
use ringmain_shards::engine::Machine;
use ringmain_shards::engine::effects::{Effects, Op};
use ringmain_shards::engine::ids::Now;
use ringmain_shards::engine::input::Input;
use ringmain_shards::reactor::{self, Layers, ListenerConfig, Node, NodeConfig};
use ringmain_transport::tls::{CertificateFiles, TlsConfig, load};
use rustls::client::Resumption;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, RootCertStore};

/// What threads of shards hold.
struct Counting;

static HELD: AtomicI64 = AtomicI64::new(0);

thread_local! {
    static IS_SHARD: Cell<bool> = const { Cell::new(false) };
}

fn count(bytes: i64) {
    if IS_SHARD.get() {
        HELD.fetch_add(bytes, Ordering::Relaxed);
    }
}

// SAFETY: hands everything to the system's allocator, and counts.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size() as i64);
        // SAFETY: the caller keeps the contract of `alloc`.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        count(-(layout.size() as i64));
        // SAFETY: the caller keeps the contract of `dealloc`.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Sends back what it gets.
struct Echo;

impl Machine for Echo {
    fn handle(&mut self, _: Now, input: Input<'_>, fx: &mut Effects) {
        if let Input::Data { conn, bytes } = input {
            let at = fx.arena.len() as u32;
            fx.arena.extend_from_slice(bytes);
            fx.ops.push(Op::Established { conn });
            fx.ops.push(Op::Write { conn, at, len: bytes.len() as u32 });
        }
    }

    fn deadline_ms(&self) -> u64 {
        u64::MAX
    }
}

fn main() {
    let number = |n: usize, or: u64| {
        std::env::args().nth(n).map_or(or, |text| text.parse().expect("a number"))
    };
    let (seconds, threads, batch) = (number(1, 5), number(2, 2), number(3, 256));
    let folder = std::env::temp_dir().join(format!("ringmain-storm-{}", std::process::id()));
    std::fs::create_dir_all(&folder).expect("a folder");
    let key = KeyPair::generate().expect("a key");
    let params = CertificateParams::new(vec!["localhost".to_owned()]).expect("a name");
    let certificate = params.self_signed(&key).expect("a certificate");
    let (own, own_key) = (folder.join("own.pem"), folder.join("own.key"));
    std::fs::write(&own, certificate.pem()).expect("writes");
    std::fs::write(&own_key, key.serialize_pem()).expect("writes");
    let tls = TlsConfig {
        certificates: vec![CertificateFiles {
            certificate_file: own,
            key_file: own_key,
            names: Vec::new(),
        }],
        ..TlsConfig::default()
    };
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("a clock").as_secs();
    let context = load::load(&tls, now).expect("loads");
    std::fs::remove_dir_all(&folder).expect("removes");
    let any = SocketAddr::from(([127, 0, 0, 1], 0));
    let mut config = NodeConfig::new(1, &[any]);
    config.listeners.push(ListenerConfig {
        layers: Some(Arc::new(Layers { tls: Some(context), ..Layers::default() })),
        ..ListenerConfig::new(any)
    });
    let node = reactor::run(&config, |_| {
        IS_SHARD.set(true);
        Echo
    })
    .expect("starts");
    let mut roots = RootCertStore::empty();
    roots.add(certificate.der().clone()).expect("a root");
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let client = ClientConfig::builder_with_provider(provider);
    let client = client.with_safe_default_protocol_versions().expect("versions");
    let mut client = client.with_root_certificates(roots).with_no_client_auth();
    client.resumption = Resumption::disabled();
    let client = Arc::new(client);

    probe("idle", &node, seconds);
    let stop = Arc::new(AtomicBool::new(false));
    let storm: Vec<_> = (0..threads)
        .map(|_| {
            let (address, client, stop) =
                (address(&node, 1), Arc::clone(&client), Arc::clone(&stop));
            std::thread::spawn(move || {
                while !stop.load(Ordering::Relaxed) {
                    // Many at a time, so that the shard always has some waiting.
                    let all: Vec<_> = (0..batch).map(|_| begin(address, &client)).collect();
                    all.into_iter().for_each(|begun| drop(end(begun)));
                }
            })
        })
        .collect();
    let (began, before) = (Instant::now(), node.stats()[0].tls_full);
    probe("storm", &node, seconds);
    let full = node.stats()[0].tls_full - before;
    println!("handshakes a second: {:.0}", full as f64 / began.elapsed().as_secs_f64());
    stop.store(true, Ordering::Relaxed);
    storm.into_iter().for_each(|thread| thread.join().expect("ends"));

    const IDLE: usize = 1000;
    std::thread::sleep(Duration::from_millis(1500));
    let before = HELD.load(Ordering::Relaxed);
    let idle: Vec<_> = (0..IDLE).map(|_| end(begin(address(&node, 1), &client))).collect();
    std::thread::sleep(Duration::from_millis(500));
    let held = HELD.load(Ordering::Relaxed) - before;
    println!("an idle TLS connection holds {} B", held / IDLE as i64);
    drop(idle);
}

fn address(node: &Node, listener: usize) -> SocketAddr {
    node.local_addrs()[listener].inet().expect("TCP")
}

type Begun = (TcpStream, ClientConnection);

/// A connection with its ClientHello sent.
fn begin(address: SocketAddr, config: &Arc<ClientConfig>) -> Begun {
    let mut stream = TcpStream::connect(address).expect("connects");
    stream.set_nodelay(true).expect("a TCP socket");
    let name = ServerName::try_from("localhost").expect("a name");
    let mut tls = ClientConnection::new(Arc::clone(config), name).expect("a client");
    tls.write_tls(&mut stream).expect("sends");
    (stream, tls)
}

/// The handshake done, and a byte each way.
fn end((mut stream, mut tls): Begun) -> Begun {
    let mut byte = [0];
    let mut all = rustls::Stream::new(&mut tls, &mut stream);
    all.write_all(b"x").expect("sends");
    all.read_exact(&mut byte).expect("an echo");
    (stream, tls)
}

/// Round trips, one each millisecond.
fn probe(what: &str, node: &Node, seconds: u64) {
    let mut stream = TcpStream::connect(address(node, 0)).expect("connects");
    stream.set_nodelay(true).expect("a TCP socket");
    let mut times = Vec::new();
    let until = Instant::now() + Duration::from_secs(seconds);
    while Instant::now() < until {
        let began = Instant::now();
        let mut byte = [0];
        stream.write_all(b"x").expect("sends");
        stream.read_exact(&mut byte).expect("an echo");
        times.push(began.elapsed());
        std::thread::sleep(Duration::from_millis(1));
    }
    times.sort();
    let at = |part: f64| times[((times.len() - 1) as f64 * part) as usize].as_micros();
    println!("{what}: p50 {} µs, p99 {} µs, max {} µs", at(0.5), at(0.99), at(1.0));
}
