//! Nodes with something between socket and machine, and clients of them.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use rcgen::{BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair};
use ringmain_shards::reactor::{Layers, Node, NodeConfig};
use ringmain_transport::tls::{
    CertificateFiles, ClientAuth, ClientVerification, TlsConfig, TlsContext, load,
};
use rustls::client::Resumption;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, SupportedProtocolVersion};

/// A CA, a certificate of the server and one of a client.
pub struct World {
    folder: PathBuf,
    issuer: Issuer<'static, KeyPair>,
    ca_pem: String,
    pub config: TlsConfig,
}

impl World {
    pub fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("ringmain-shards-{}-{number}", std::process::id());
        let folder = std::env::temp_dir().join(name);
        std::fs::create_dir_all(&folder).unwrap();
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        let ca_pem = params.self_signed(&key).unwrap().pem();
        std::fs::write(folder.join("ca.pem"), &ca_pem).unwrap();
        let issuer = Issuer::new(params, key);
        let mut world = Self { folder, issuer, ca_pem, config: TlsConfig::default() };
        let params = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
        let (pem, key_pem) = world.sign(&params);
        std::fs::write(world.folder.join("own.pem"), pem).unwrap();
        std::fs::write(world.folder.join("own.key"), key_pem).unwrap();
        world.config.certificates = vec![CertificateFiles {
            certificate_file: world.folder.join("own.pem"),
            key_file: world.folder.join("own.key"),
            names: Vec::new(),
        }];
        world
    }

    /// Clients have to have certificates.
    pub fn requires_certificates(&mut self) {
        self.config.client = ClientAuth {
            verification: ClientVerification::Required,
            ca_file: Some(self.folder.join("ca.pem")),
            ..ClientAuth::default()
        };
    }

    fn sign(&self, params: &CertificateParams) -> (String, String) {
        let key = KeyPair::generate().unwrap();
        (params.signed_by(&key, &self.issuer).unwrap().pem(), key.serialize_pem())
    }

    pub fn load(&self) -> Arc<TlsContext> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
        load::load(&self.config, now.as_secs()).unwrap()
    }

    pub fn layers(&self) -> Layers {
        Layers { tls: Some(self.load()), ..Layers::default() }
    }

    fn roots(&self) -> RootCertStore {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(self.ca_pem.as_bytes()).unwrap()).unwrap();
        roots
    }

    /// A client without resumption.
    pub fn client(&self, versions: &[&'static SupportedProtocolVersion]) -> Arc<ClientConfig> {
        let config = ClientConfig::builder_with_provider(provider());
        let config = config.with_protocol_versions(versions).unwrap();
        let mut config = config.with_root_certificates(self.roots()).with_no_client_auth();
        config.resumption = Resumption::disabled();
        Arc::new(config)
    }

    /// A client with a certificate of this common name.
    pub fn client_called(&self, name: &str) -> Arc<ClientConfig> {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(rcgen::DnType::CommonName, name);
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        let (pem, key_pem) = self.sign(&params);
        let chain = vec![CertificateDer::from_pem_slice(pem.as_bytes()).unwrap()];
        let key = PrivateKeyDer::from_pem_slice(key_pem.as_bytes()).unwrap();
        let config = ClientConfig::builder_with_provider(provider());
        let config = config.with_safe_default_protocol_versions().unwrap();
        let config = config.with_root_certificates(self.roots());
        Arc::new(config.with_client_auth_cert(chain, key).unwrap())
    }
}

/// Named, since a build with others of our crates has two.
fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

impl Drop for World {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

/// Settings of a node whose first listener has layers.
pub fn layered(shards: usize, layers: Layers) -> NodeConfig {
    let mut config = super::config(shards);
    config.listeners[0].layers = Some(Arc::new(layers));
    config
}

/// A client whose bytes the test sends as it likes.
pub struct TlsClient {
    pub stream: TcpStream,
    pub tls: ClientConnection,
}

impl TlsClient {
    pub fn new(node: &Node, config: &Arc<ClientConfig>) -> Self {
        let name = ServerName::try_from("localhost").unwrap();
        let tls = ClientConnection::new(Arc::clone(config), name).unwrap();
        Self { stream: super::connect(node), tls }
    }

    /// After the handshake, of which the last flight is returned: it is not sent yet.
    pub fn almost(node: &Node, config: &Arc<ClientConfig>) -> (Self, Vec<u8>) {
        let mut client = Self::new(node, config);
        while client.tls.is_handshaking() {
            let wire = client.wire(b"");
            client.stream.write_all(&wire).unwrap();
            if client.tls.is_handshaking() {
                client.receive();
            }
        }
        let last = client.wire(b"");
        (client, last)
    }

    /// After the handshake.
    pub fn connect(node: &Node, config: &Arc<ClientConfig>) -> Self {
        let (mut client, last) = Self::almost(node, config);
        client.stream.write_all(&last).unwrap();
        client
    }

    /// What goes over the wire for this, and what else is to be sent.
    pub fn wire(&mut self, plain: &[u8]) -> Vec<u8> {
        let mut wire = Vec::new();
        let mut rest = plain;
        loop {
            let n = self.tls.writer().write(rest).unwrap();
            rest = &rest[n..];
            while self.tls.wants_write() {
                self.tls.write_tls(&mut wire).unwrap();
            }
            if rest.is_empty() {
                return wire;
            }
        }
    }

    pub fn send(&mut self, plain: &[u8]) {
        let wire = self.wire(plain);
        self.stream.write_all(&wire).unwrap();
    }

    /// Takes what comes; false at the end of the stream.
    pub fn receive(&mut self) -> bool {
        let n = loop {
            match self.tls.read_tls(&mut self.stream) {
                // A read with a timeout is not taken up again.
                Err(e) if e.kind() == std::io::ErrorKind::Interrupted => {}
                result => break result.expect("reads"),
            }
        };
        self.tls.process_new_packets().unwrap_or_else(|e| panic!("{e}"));
        n > 0
    }

    pub fn expect(&mut self, bytes: &[u8]) {
        let mut got = vec![0; bytes.len()];
        let mut at = 0;
        while at < got.len() {
            match self.tls.reader().read(&mut got[at..]) {
                Ok(0) => panic!("ended after {at} bytes of {}", got.len()),
                Ok(n) => at += n,
                Err(_) => assert!(self.receive(), "cut off after {at} bytes of {}", got.len()),
            }
        }
        assert!(got == bytes, "other bytes came back");
    }

    pub fn exchange(&mut self, bytes: &[u8]) {
        self.send(bytes);
        self.expect(bytes);
    }

    /// All that still comes; whether close_notify was the end of it.
    pub fn rest(&mut self) -> (Vec<u8>, bool) {
        let mut all = Vec::new();
        let mut chunk = vec![0; 1 << 16];
        loop {
            match self.tls.reader().read(&mut chunk) {
                Ok(0) => return (all, true),
                Ok(n) => all.extend_from_slice(&chunk[..n]),
                Err(e) if e.kind() == std::io::ErrorKind::UnexpectedEof => return (all, false),
                Err(_) => {
                    self.receive();
                }
            }
        }
    }
}
