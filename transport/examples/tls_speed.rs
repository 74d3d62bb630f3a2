//! `cargo run --release -p ringmain-transport --example tls_speed`: what TLS costs a core.
//!
//! The server's side alone is timed, the best of five rounds: handshakes, full and resumed, against
//! rustls with its own buffers, and records in each direction. On other hosts compare only what ran
//! together.

use std::io::Write as _;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ringmain_transport::tls::{CertificateFiles, Tls, TlsConfig, TlsContext, load};
use rustls::client::Resumption;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, ClientConnection, RootCertStore, ServerConfig, ServerConnection};

const HANDSHAKES: u32 = 500;
const RECORDS: u32 = 20_000;
const ROUNDS: u32 = 5;

struct World {
    context: Arc<TlsContext>,
    buffered: Arc<ServerConfig>,
    roots: Arc<RootCertStore>,
}

fn main() {
    let world = World::new();
    for version in [&rustls::version::TLS13, &rustls::version::TLS12] {
        for resumed in [false, true] {
            let client = world.client(version, resumed);
            let ours = best(|| world.handshakes(&client, resumed));
            let theirs = best(|| world.buffered_handshakes(&client));
            let kind = if resumed { "resumed" } else { "full" };
            println!(
                "{:?} {kind}: {:.0} handshakes/s/core ({:.1} us), rustls with buffers {:.0} ({:.1} us)",
                version.version,
                1.0 / ours,
                ours * 1e6,
                1.0 / theirs,
                theirs * 1e6
            );
        }
        for len in [64, 1024, 16 * 1024] {
            let client = world.client(version, false);
            let seal = best(|| world.seal(&client, len));
            let open = best(|| world.open(&client, len));
            let rate = |seconds: f64| len as f64 / seconds / 1e9;
            println!(
                "{:?} records of {len} B: write {:.0} ns ({:.2} GB/s), read {:.0} ns ({:.2} GB/s)",
                version.version,
                seal * 1e9,
                rate(seal),
                open * 1e9,
                rate(open)
            );
        }
    }
}

/// Seconds of one, the best of the rounds.
fn best(mut round: impl FnMut() -> f64) -> f64 {
    (0..ROUNDS).map(|_| round()).fold(f64::MAX, f64::min)
}

fn now_s() -> u64 {
    std::time::UNIX_EPOCH.elapsed().map_or(0, |since| since.as_secs())
}

impl World {
    /// An ECDSA P-256 key, and a certificate that signs itself.
    fn new() -> World {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures");
        let certificate_file = folder.join("ec_certificate.pem");
        let key_file = folder.join("ec_pkcs8.pem");
        let chain = vec![CertificateDer::from_pem_file(&certificate_file).expect("a fixture")];
        let key = PrivateKeyDer::from_pem_file(&key_file).expect("a fixture");
        let files = CertificateFiles { certificate_file, key_file, names: Vec::new() };
        let config = TlsConfig { certificates: vec![files], ..TlsConfig::default() };
        let context = load::load(&config, now_s()).expect("the fixtures are good");
        let mut roots = RootCertStore::empty();
        roots.add(chain[0].clone()).expect("a fixture");
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut buffered = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_no_client_auth()
            .with_single_cert(chain, key)
            .expect("a fixture");
        buffered.ticketer = rustls::crypto::ring::Ticketer::new().expect("random numbers");
        buffered.send_tls13_tickets = 1;
        World { context, buffered: Arc::new(buffered), roots: Arc::new(roots) }
    }

    fn client(
        &self,
        version: &'static rustls::SupportedProtocolVersion,
        resumed: bool,
    ) -> Arc<ClientConfig> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut config = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[version])
            .expect("versions")
            .with_root_certificates(Arc::clone(&self.roots))
            .with_no_client_auth();
        if !resumed {
            config.resumption = Resumption::disabled();
        }
        Arc::new(config)
    }

    fn handshakes(&self, client: &Arc<ClientConfig>, resumed: bool) -> f64 {
        let mut spent = Duration::ZERO;
        // The first one gets the ticket.
        self.open_connection(client);
        for _ in 0..HANDSHAKES {
            let (_, tls, time) = self.open_connection(client);
            assert_eq!(tls.handshake().expect("open").resumed, resumed);
            spent += time;
        }
        spent.as_secs_f64() / f64::from(HANDSHAKES)
    }

    fn open_connection(&self, client: &Arc<ClientConfig>) -> (ClientConnection, Tls, Duration) {
        let mut client = connect(client);
        let start = Instant::now();
        let mut tls = Tls::new(&self.context).expect("starts");
        let mut spent = start.elapsed();
        let (mut wire, mut out) = (Vec::new(), Vec::new());
        while client.wants_write() {
            wire.clear();
            out.clear();
            while client.wants_write() {
                client.write_tls(&mut wire).expect("into memory");
            }
            let start = Instant::now();
            tls.read(now_s(), &mut wire, &mut out).expect("a good client");
            spent += start.elapsed();
            hear(&mut client, &out);
        }
        (client, tls, spent)
    }

    fn buffered_handshakes(&self, config: &Arc<ClientConfig>) -> f64 {
        let mut spent = Duration::ZERO;
        for _ in 0..HANDSHAKES {
            let mut client = connect(config);
            let start = Instant::now();
            let mut server = ServerConnection::new(Arc::clone(&self.buffered)).expect("starts");
            spent += start.elapsed();
            let (mut wire, mut out) = (Vec::new(), Vec::new());
            while client.wants_write() {
                wire.clear();
                out.clear();
                while client.wants_write() {
                    client.write_tls(&mut wire).expect("into memory");
                }
                let start = Instant::now();
                let mut rest = &wire[..];
                while !rest.is_empty() {
                    server.read_tls(&mut rest).expect("from memory");
                    server.process_new_packets().expect("a good client");
                }
                while server.wants_write() {
                    server.write_tls(&mut out).expect("into memory");
                }
                spent += start.elapsed();
                hear(&mut client, &out);
            }
        }
        spent.as_secs_f64() / f64::from(HANDSHAKES)
    }

    fn seal(&self, client: &Arc<ClientConfig>, len: usize) -> f64 {
        let (_, mut tls, _) = self.open_connection(client);
        let (plain, mut out) = (vec![1; len], Vec::with_capacity(len + 1_000));
        let start = Instant::now();
        for _ in 0..RECORDS {
            out.clear();
            tls.write(&[&plain], &mut out).expect("open");
        }
        start.elapsed().as_secs_f64() / f64::from(RECORDS)
    }

    fn open(&self, client: &Arc<ClientConfig>, len: usize) -> f64 {
        let (mut client, mut tls, _) = self.open_connection(client);
        let (plain, mut wire, mut out) = (vec![1; len], Vec::new(), Vec::new());
        let mut spent = Duration::ZERO;
        for _ in 0..RECORDS {
            wire.clear();
            client.writer().write_all(&plain).expect("into memory");
            while client.wants_write() {
                client.write_tls(&mut wire).expect("into memory");
            }
            let start = Instant::now();
            let progress = tls.read(1, &mut wire, &mut out).expect("a good client");
            spent += start.elapsed();
            assert_eq!(progress.plain, len);
        }
        spent.as_secs_f64() / f64::from(RECORDS)
    }
}

fn connect(config: &Arc<ClientConfig>) -> ClientConnection {
    let name = "localhost".try_into().expect("a name");
    ClientConnection::new(Arc::clone(config), name).expect("starts")
}

fn hear(client: &mut ClientConnection, mut out: &[u8]) {
    while !out.is_empty() {
        client.read_tls(&mut out).expect("from memory");
        client.process_new_packets().expect("a good server");
    }
}
