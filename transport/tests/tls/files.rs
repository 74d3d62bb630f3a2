//! From files to a context: what is refused, and how; what a reload changes. Row T07.

use ringmain_transport::tls::{
    CertificateFiles, ClientVerification, TlsConfig, UnknownName, Version, load,
};

use crate::support::{Ca, Folder, NOW_S, Pair, World, files, fixture, fixture_key, server_params};

fn error(config: &TlsConfig) -> String {
    load::load(config, NOW_S).expect_err("the configuration is bad").to_string()
}

#[test]
fn keys_in_each_format_are_read() {
    let ca = Ca::new("CA");
    for (made_with, formats) in [
        ("rsa_pkcs8.pem", ["rsa_pkcs8.pem", "rsa_pkcs1.pem"]),
        ("ec_pkcs8.pem", ["ec_pkcs8.pem", "ec_sec1.pem"]),
    ] {
        let folder = Folder::new();
        let leaf = ca.sign_key(&server_params(&["localhost"]), &fixture_key(made_with));
        let mut files = files(&folder, "server", &leaf);
        for format in formats {
            files.key_file = fixture(format);
            let config = TlsConfig { certificates: vec![files.clone()], ..TlsConfig::default() };
            load::load(&config, NOW_S).unwrap_or_else(|error| panic!("{format}: {error}"));
        }
    }
}

#[test]
fn a_key_of_another_certificate_is_refused_by_the_names_of_both_files() {
    let mut world = World::new();
    world.config.certificates[0].key_file = fixture("rsa_pkcs8.pem");
    let said = error(&world.config);
    assert!(said.contains("server.pem") && said.contains("rsa_pkcs8.pem"), "{said}");
    assert!(said.contains("does not belong"), "{said}");
}

#[test]
fn what_cannot_be_used_is_refused_with_file_and_reason() {
    let world = World::new();
    let with = |change: &dyn Fn(&mut TlsConfig)| {
        let mut config = world.config.clone();
        change(&mut config);
        error(&config)
    };
    let empty = world.folder.write("empty.pem", "nothing here");
    let broken = world
        .folder
        .write("broken.pem", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n");
    let own = |change: &dyn Fn(&mut CertificateFiles)| {
        with(&|config: &mut TlsConfig| change(&mut config.certificates[0]))
    };
    let said = own(&|files| files.certificate_file = "/nowhere/x.pem".into());
    assert!(said.contains("cannot read /nowhere/x.pem"), "{said}");
    let said = own(&|files| files.certificate_file = empty.clone());
    assert!(said.contains("empty.pem holds no certificate"), "{said}");
    let said = own(&|files| files.certificate_file = broken.clone());
    assert!(said.contains("broken.pem: the certificate cannot be read"), "{said}");
    let said = own(&|files| files.key_file = empty.clone());
    assert!(said.contains("empty.pem holds no private key"), "{said}");
    let said = own(&|files| files.key_file = fixture("ec_encrypted.pem"));
    assert!(said.contains("is encrypted"), "{said}");
    let said = own(&|files| files.names = vec!["a.*.example".to_owned()]);
    assert!(said.contains("is no server name"), "{said}");
    let said = with(&|config| config.certificates.clear());
    assert!(said.contains("none is set"), "{said}");
    let said = with(&|config| config.cipher_suites = vec!["TLS_AES_129_GCM_SHA256".to_owned()]);
    assert!(said.contains("TLS_AES_128_GCM_SHA256"), "{said}");
    let said = with(&|config| {
        config.cipher_suites = vec!["TLS_AES_128_GCM_SHA256".to_owned()];
        config.versions = vec![Version::V12];
    });
    assert!(said.contains("do not fit"), "{said}");
    assert!(with(&|config| config.versions.clear()).contains("do not fit"));
    assert!(with(&|config| config.tickets = 3).contains("more than 2"));
}

#[test]
fn what_verifies_clients_is_read_as_strictly() {
    let world = World::new();
    let mut config = world.config.clone();
    config.client.verification = ClientVerification::Required;
    assert!(error(&config).contains("needs the file with the CAs"));
    let ca = world.folder.write("ca.pem", &world.ca.pem);
    config.client.ca_file = Some(ca.clone());
    assert!(load::load(&config, NOW_S).is_ok());
    config.client.crl_files = vec![ca];
    assert!(error(&config).contains("holds no revocation list"));
    let bad = "-----BEGIN X509 CRL-----\nAAAA\n-----END X509 CRL-----\n";
    config.client.crl_files = vec![world.folder.write("bad.crl", bad)];
    let said = error(&config);
    assert!(said.contains("bad.crl: the list cannot be used"), "{said}");
    config.client.crl_files.clear();
    config.client.depth = 7;
    assert!(error(&config).contains("more than 6"));
}

#[test]
fn a_certificate_out_of_date_is_a_warning() {
    let world = World::new();
    assert!(world.load().warnings().is_empty());
    for (now_s, says) in [(1_900_000_000, "has expired"), (1_700_000_000, "not valid yet")] {
        let context = load::load(&world.config, now_s).unwrap();
        assert!(context.warnings()[0].contains(says), "{:?}", context.warnings());
    }
}

// T07
#[test]
fn a_reload_shows_the_new_certificate_to_new_connections_and_leaves_the_old_ones() {
    let world = World::new();
    let old = world.load();
    let mut before = Pair::new(&old, &world.client()).run();
    before.server_writes(&[b"x"]);

    let leaf = world.ca.sign(&server_params(&["localhost", "new.example"]));
    world.folder.write("server.pem", &leaf.pem);
    world.folder.write("server.key", &leaf.key_pem);
    let new = load::reload(&old, &world.config, NOW_S).unwrap();
    let after = Pair::new(&new, &world.client()).run();
    assert_eq!(after.client.peer_certificates().unwrap()[0], leaf.der);
    before.client_writes(b"still here");
    assert_eq!(before.read, b"still here");

    world.folder.write("server.key", "no key");
    assert!(load::reload(&new, &world.config, NOW_S).is_err());
    assert!(Pair::new(&new, &world.client()).run().is_open());
}

// T10
#[test]
fn tickets_outlive_a_reload_where_no_client_shows_a_certificate() {
    let mut world = World::new();
    let old = world.load();
    let client = world.client();
    Pair::new(&old, &client).run().server_writes(&[b"x"]);
    world.config.unknown_name = UnknownName::Refuse;
    let new = load::reload(&old, &world.config, NOW_S).unwrap();
    let pair = Pair::new(&new, &client).run();
    assert!(pair.server.handshake().unwrap().resumed);
}
