//! Certificates of the server: by name and by kind of key. Row T04.

use ringmain_transport::tls::{FailureKind, UnknownName, Version};
use rustls::{AlertDescription, SignatureScheme};

use crate::support::{Client, Pair, World, files, fixture_key, server_params};

/// The names in the certificate that the client saw.
fn seen(pair: &Pair) -> Vec<String> {
    let certificates = pair.client.peer_certificates().expect("the server showed a certificate");
    ringmain_transport::tls::Identity::of(&certificates[0]).unwrap().dns_names
}

/// A client that takes what it is shown, whatever its name: as a misconfigured one would.
fn careless(client: Client) -> Client {
    #[derive(Debug)]
    struct Any;
    use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
    impl ServerCertVerifier for Any {
        fn verify_server_cert(
            &self,
            _: &rustls::pki_types::CertificateDer<'_>,
            _: &[rustls::pki_types::CertificateDer<'_>],
            _: &rustls::pki_types::ServerName<'_>,
            _: &[u8],
            _: rustls::pki_types::UnixTime,
        ) -> Result<ServerCertVerified, rustls::Error> {
            Ok(ServerCertVerified::assertion())
        }
        fn verify_tls12_signature(
            &self,
            _: &[u8],
            _: &rustls::pki_types::CertificateDer<'_>,
            _: &rustls::DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, rustls::Error> {
            Ok(HandshakeSignatureValid::assertion())
        }
        fn verify_tls13_signature(
            &self,
            _: &[u8],
            _: &rustls::pki_types::CertificateDer<'_>,
            _: &rustls::DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, rustls::Error> {
            Ok(HandshakeSignatureValid::assertion())
        }
        fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
            vec![SignatureScheme::RSA_PSS_SHA256]
        }
    }
    client.change(|config| config.dangerous().set_certificate_verifier(std::sync::Arc::new(Any)))
}

// T04
#[test]
fn each_name_gets_its_certificate() {
    let mut world = World::new();
    for (name, names) in [("a", &["a.example"][..]), ("wild", &["*.w.example", "w.example"])] {
        let leaf = world.ca.sign(&server_params(names));
        let files = files(&world.folder, name, &leaf);
        world.config.certificates.push(files);
    }
    let context = world.load();
    let table = [
        ("localhost", "localhost"),
        ("a.example", "a.example"),
        ("A.EXAMPLE", "a.example"),
        ("x.w.example", "*.w.example"),
        ("w.example", "*.w.example"),
        ("192.0.2.1", "localhost"),
    ];
    for (asked, shown) in table {
        let client = world.client().named(asked);
        let pair = Pair::new(&context, &client).run();
        if asked == "192.0.2.1" {
            // No name is sent for an address; the client then complains about the default.
            assert!(pair.client_error.is_some());
            continue;
        }
        assert!(pair.is_open(), "{asked}: {:?}", pair.client_error);
        assert_eq!(seen(&pair)[0], shown, "{asked}");
        let name = pair.server.handshake().unwrap().server_name.unwrap();
        assert_eq!(name, asked.to_ascii_lowercase());
    }
    assert_eq!(context.certificates().len(), 3);
    assert_eq!(context.certificates()[2].names, ["*.w.example", "w.example"]);
    assert_eq!(context.certificates()[0].not_after_s, 1_893_456_000);
}

// T04
#[test]
fn an_unknown_name_gets_the_default_or_an_alert() {
    let mut world = World::new();
    world.config.certificates[0].names = vec!["only.example".to_owned(), "*.w.example".to_owned()];
    for version in [Version::V12, Version::V13] {
        world.config.versions = vec![version];
        for name in ["other.example", "x.y.w.example", "w.example"] {
            world.config.unknown_name = UnknownName::Default;
            let pair = Pair::new(&world.load(), &world.client().named(name)).run();
            assert_eq!(pair.failure.map(|failure| failure.kind), Some(FailureKind::PeerAlert));
            assert!(matches!(pair.client_error, Some(rustls::Error::InvalidCertificate(_))));

            world.config.unknown_name = UnknownName::Refuse;
            let pair = Pair::new(&world.load(), &world.client().named(name)).run();
            let failure = pair.failure.unwrap();
            assert_eq!(failure.kind, FailureKind::ServerName, "{failure:?}");
            assert!(failure.sentence.contains(name), "{failure:?}");
            let alert = rustls::Error::AlertReceived(AlertDescription::AccessDenied);
            assert_eq!(pair.client_error, Some(alert));
        }
    }
}

// T02
#[test]
fn a_client_that_checks_only_rsa_gets_the_rsa_certificate_of_the_same_name() {
    let mut world = World::new();
    let rsa = fixture_key("rsa_pkcs8.pem");
    let leaf = world.ca.sign_key(&server_params(&["localhost"]), &rsa);
    let files = files(&world.folder, "rsa", &leaf);
    world.config.certificates.push(files);
    let context = world.load();
    let rsa_seen = |client: &Client| {
        let pair = Pair::new(&context, client).run();
        assert!(pair.is_open(), "{:?} {:?}", pair.failure, pair.client_error);
        let shown = pair.client.peer_certificates().unwrap()[0].clone();
        shown == leaf.der
    };
    assert!(!rsa_seen(&world.client()));
    assert!(rsa_seen(&careless(world.client())));
    assert!(rsa_seen(&careless(world.client()).change(|config| config.enable_sni = false)));
}
