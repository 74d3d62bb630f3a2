//! Certificates, and a client and a server joined in memory.
#![allow(dead_code, unreachable_pub, reason = "each test binary uses some of it")]

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, DnType,
    ExtendedKeyUsagePurpose, IsCa, Issuer, KeyIdMethod, KeyPair, KeyUsagePurpose,
    RevokedCertParams, SerialNumber, date_time_ymd,
};
use ringmain_transport::tls::{
    CertificateFiles, Failure, Progress, Tls, TlsConfig, TlsContext, load,
};
use rustls::client::Resumption;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{ClientConfig, ClientConnection, RootCertStore};

/// 2026-01-01, within what certificates of tests are valid for.
pub const NOW_S: u64 = 1_767_225_600;

/// A folder of its own, removed at the end.
pub struct Folder(PathBuf);

impl Folder {
    pub fn new() -> Folder {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("ringmain-transport-{}-{number}", std::process::id());
        let path = std::env::temp_dir().join(name);
        std::fs::create_dir_all(&path).unwrap();
        Folder(path)
    }

    pub fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.0.join(name);
        std::fs::write(&path, text).unwrap();
        path
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

pub fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(name)
}

pub fn fixture_key(name: &str) -> KeyPair {
    KeyPair::from_pem(&std::fs::read_to_string(fixture(name)).unwrap()).unwrap()
}

/// A CA or an intermediate.
pub struct Ca {
    pub issuer: Issuer<'static, KeyPair>,
    pub pem: String,
}

/// A certificate with its key.
pub struct Leaf {
    pub pem: String,
    pub key_pem: String,
    pub der: CertificateDer<'static>,
}

fn ca_params(name: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params
}

impl Ca {
    pub fn new(name: &str) -> Ca {
        let (params, key) = (ca_params(name), KeyPair::generate().unwrap());
        let pem = params.self_signed(&key).unwrap().pem();
        Ca { issuer: Issuer::new(params, key), pem }
    }

    pub fn intermediate(&self, name: &str) -> Ca {
        let (params, key) = (ca_params(name), KeyPair::generate().unwrap());
        let pem = params.signed_by(&key, &self.issuer).unwrap().pem();
        Ca { issuer: Issuer::new(params, key), pem }
    }

    pub fn sign(&self, params: &CertificateParams) -> Leaf {
        self.sign_key(params, &KeyPair::generate().unwrap())
    }

    pub fn sign_key(&self, params: &CertificateParams, key: &KeyPair) -> Leaf {
        let certificate = params.signed_by(key, &self.issuer).unwrap();
        Leaf {
            pem: certificate.pem(),
            key_pem: key.serialize_pem(),
            der: certificate.der().clone(),
        }
    }

    /// A list that revokes these serial numbers, good until 2030 or until the year given.
    pub fn crl(&self, serials: &[u64], until_year: i32) -> String {
        let revoked = |serial: &u64| RevokedCertParams {
            serial_number: SerialNumber::from(*serial),
            revocation_time: date_time_ymd(2025, 1, 1),
            reason_code: None,
            invalidity_date: None,
        };
        let params = CertificateRevocationListParams {
            this_update: date_time_ymd(2024, 1, 1),
            next_update: date_time_ymd(until_year, 1, 1),
            crl_number: SerialNumber::from(1_u64),
            issuing_distribution_point: None,
            revoked_certs: serials.iter().map(revoked).collect(),
            key_identifier_method: KeyIdMethod::Sha256,
        };
        params.signed_by(&self.issuer).unwrap().pem().unwrap()
    }
}

/// What a client's certificate has; tests change it.
pub fn client_params(name: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, name);
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    params.not_before = date_time_ymd(2025, 1, 1);
    params.not_after = date_time_ymd(2030, 1, 1);
    params
}

pub fn server_params(names: &[&str]) -> CertificateParams {
    let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
    let mut params = CertificateParams::new(names).unwrap();
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    params.not_before = date_time_ymd(2025, 1, 1);
    params.not_after = date_time_ymd(2030, 1, 1);
    params
}

/// A CA, a server's certificate for `localhost` in files, and what goes with them.
pub struct World {
    pub folder: Folder,
    pub ca: Ca,
    pub config: TlsConfig,
}

impl World {
    pub fn new() -> World {
        World::with_key(&KeyPair::generate().unwrap())
    }

    pub fn with_key(key: &KeyPair) -> World {
        let (folder, ca) = (Folder::new(), Ca::new("Server CA"));
        let leaf = ca.sign_key(&server_params(&["localhost"]), key);
        let certificates = vec![files(&folder, "server", &leaf)];
        World { folder, ca, config: TlsConfig { certificates, ..TlsConfig::default() } }
    }

    pub fn load(&self) -> Arc<TlsContext> {
        load::load(&self.config, NOW_S).expect("the configuration is good")
    }

    /// A client that trusts the CA of the server.
    pub fn client(&self) -> Client {
        Client::new(&self.ca.pem)
    }
}

pub fn files(folder: &Folder, name: &str, leaf: &Leaf) -> CertificateFiles {
    CertificateFiles {
        certificate_file: folder.write(&format!("{name}.pem"), &leaf.pem),
        key_file: folder.write(&format!("{name}.key"), &leaf.key_pem),
        names: Vec::new(),
    }
}

#[derive(Debug)]
struct Fixed;

impl rustls::time_provider::TimeProvider for Fixed {
    fn current_time(&self) -> Option<UnixTime> {
        Some(UnixTime::since_unix_epoch(std::time::Duration::from_secs(NOW_S)))
    }
}

/// A client's settings, rustls' own with buffers.
#[derive(Clone)]
pub struct Client {
    pub config: Arc<ClientConfig>,
    pub name: String,
}

impl Client {
    pub fn new(ca_pem: &str) -> Client {
        Client::with(ca_pem, &[&rustls::version::TLS12, &rustls::version::TLS13], None)
    }

    pub fn with(
        ca_pem: &str,
        versions: &[&'static rustls::SupportedProtocolVersion],
        own: Option<(&str, &str)>,
    ) -> Client {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(ca_pem.as_bytes()).unwrap()).unwrap();
        let builder = ClientConfig::builder_with_details(provider, Arc::new(Fixed))
            .with_protocol_versions(versions)
            .unwrap()
            .with_root_certificates(roots);
        let config = match own {
            None => builder.with_no_client_auth(),
            Some((chain, key)) => {
                let chain = CertificateDer::pem_slice_iter(chain.as_bytes())
                    .collect::<Result<Vec<_>, _>>()
                    .unwrap();
                let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap();
                builder.with_client_auth_cert(chain, key).unwrap()
            }
        };
        Client { config: Arc::new(config), name: "localhost".to_owned() }
    }

    pub fn change(mut self, change: impl FnOnce(&mut ClientConfig)) -> Client {
        let mut config = ClientConfig::clone(&self.config);
        change(&mut config);
        self.config = Arc::new(config);
        self
    }

    pub fn named(mut self, name: &str) -> Client {
        name.clone_into(&mut self.name);
        self
    }

    pub fn without_resumption(self) -> Client {
        self.change(|config| config.resumption = Resumption::disabled())
    }

    pub fn connect(&self) -> ClientConnection {
        let name = ServerName::try_from(self.name.clone()).unwrap();
        ClientConnection::new(Arc::clone(&self.config), name).unwrap()
    }
}

/// How the bytes of the client reach the server.
#[derive(Clone, Copy, Debug)]
pub enum Cut {
    /// All that there is at once.
    Whole,
    /// Pieces of so many bytes.
    Pieces(usize),
    /// The first piece of each flight has so many bytes.
    At(usize),
}

/// A server and a client in memory.
pub struct Pair {
    pub server: Tls,
    pub client: ClientConnection,
    pub now_s: u64,
    pub cut: Cut,
    /// Plaintext that the server read.
    pub read: Vec<u8>,
    /// Plaintext that the client read.
    pub client_read: Vec<u8>,
    pub failure: Option<Failure>,
    pub client_error: Option<rustls::Error>,
    pub peer_closed: bool,
    pub opened: u32,
    pub most_kept: usize,
    kept: Vec<u8>,
}

impl Pair {
    pub fn new(context: &Arc<TlsContext>, client: &Client) -> Pair {
        Pair {
            server: Tls::new(context).unwrap(),
            client: client.connect(),
            now_s: NOW_S,
            cut: Cut::Whole,
            read: Vec::new(),
            client_read: Vec::new(),
            failure: None,
            client_error: None,
            peer_closed: false,
            opened: 0,
            most_kept: 0,
            kept: Vec::new(),
        }
    }

    pub fn cut(mut self, cut: Cut) -> Pair {
        self.cut = cut;
        self
    }

    /// Until neither has anything to say.
    pub fn run(mut self) -> Pair {
        self.go_on();
        self
    }

    pub fn go_on(&mut self) {
        loop {
            let mut wire = Vec::new();
            while self.client.wants_write() {
                self.client.write_tls(&mut wire).unwrap();
            }
            if wire.is_empty() || self.failure.is_some() {
                return;
            }
            self.flight(&wire);
        }
    }

    fn flight(&mut self, wire: &[u8]) {
        let (first, size) = match self.cut {
            Cut::Whole => (wire.len(), wire.len()),
            Cut::Pieces(size) => (size, size),
            Cut::At(at) => (at, wire.len()),
        };
        let (first, rest) = wire.split_at(first.min(wire.len()));
        for piece in std::iter::once(first).chain(rest.chunks(size.max(1))) {
            if !piece.is_empty() && self.failure.is_none() {
                self.deliver(piece);
            }
        }
    }

    /// Bytes to the server, and its answer to the client.
    pub fn deliver(&mut self, piece: &[u8]) {
        self.kept.extend_from_slice(piece);
        let mut out = Vec::new();
        match self.server.read(self.now_s, &mut self.kept, &mut out) {
            Ok(Progress { plain, keep, opened, peer_closed }) => {
                assert!(plain + keep <= self.kept.len());
                self.read.extend_from_slice(&self.kept[..plain]);
                self.kept.drain(..self.kept.len() - keep);
                self.opened += u32::from(opened);
                self.peer_closed |= peer_closed;
                self.most_kept = self.most_kept.max(keep);
            }
            Err(failure) => self.failure = Some(failure),
        }
        self.answer(&out);
    }

    /// Bytes of the server to the client.
    pub fn answer(&mut self, mut out: &[u8]) {
        use std::io::Read as _;
        while !out.is_empty() && self.client_error.is_none() {
            self.client.read_tls(&mut out).unwrap();
            if let Err(error) = self.client.process_new_packets() {
                self.client_error = Some(error);
            }
            let mut buffer = [0; 4096];
            while let Ok(len @ 1..) = self.client.reader().read(&mut buffer) {
                self.client_read.extend_from_slice(&buffer[..len]);
            }
        }
    }

    pub fn client_writes(&mut self, bytes: &[u8]) {
        use std::io::Write as _;
        self.client.writer().write_all(bytes).unwrap();
        self.go_on();
    }

    /// Returns the bytes on the wire.
    pub fn server_writes(&mut self, pieces: &[&[u8]]) -> Vec<u8> {
        let mut out = Vec::new();
        self.server.write(pieces, &mut out).unwrap();
        self.answer(&out);
        out
    }

    pub fn is_open(&self) -> bool {
        self.server.is_open() && !self.client.is_handshaking()
    }
}
