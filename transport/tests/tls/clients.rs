//! Certificates of clients: who is let in, and with which alert others are not. Rows T03, T06, C18.

use std::sync::Arc;

use rcgen::{
    CertificateParams, DnType, ExtendedKeyUsagePurpose, SanType, SerialNumber, date_time_ymd,
};
use ringmain_transport::tls::{
    ClientAuth, ClientVerification, CrlExpiry, CrlUnknown, FailureKind, Identity, TlsContext, load,
    pem,
};
use rustls::{AlertDescription, Error};

use crate::support::{Ca, Client, Leaf, NOW_S, Pair, World, client_params};

const BOTH: [&rustls::SupportedProtocolVersion; 2] =
    [&rustls::version::TLS12, &rustls::version::TLS13];

/// A server that asks for certificates of `ca`.
struct Asking {
    world: World,
    ca: Ca,
}

impl Asking {
    fn new(verification: ClientVerification) -> Asking {
        let mut world = World::new();
        let ca = Ca::new("Client CA");
        let ca_file = Some(world.folder.write("clients.pem", &ca.pem));
        world.config.client = ClientAuth { verification, ca_file, ..ClientAuth::default() };
        Asking { world, ca }
    }

    fn context(&self) -> Arc<TlsContext> {
        self.world.load()
    }

    fn connect(&self, context: &Arc<TlsContext>, version: usize, chain: &str, key: &str) -> Pair {
        let own = Some((chain, key));
        let client = Client::with(&self.world.ca.pem, &BOTH[version..=version], own);
        Pair::new(context, &client).run()
    }
}

// T03, T06
#[test]
fn each_bad_certificate_is_refused_with_the_alert_that_belongs_to_it() {
    let asking = Asking::new(ClientVerification::Required);
    let ca = &asking.ca;
    let good = client_params("device");
    let changed = |change: &dyn Fn(&mut CertificateParams)| {
        let mut params = good.clone();
        change(&mut params);
        ca.sign(&params)
    };
    let other = Ca::new("Other CA").sign(&good);
    let own_key = rcgen::KeyPair::generate().unwrap();
    let own = good.self_signed(&own_key).unwrap();
    let self_signed =
        Leaf { pem: own.pem(), key_pem: own_key.serialize_pem(), der: own.der().clone() };
    let table: [(&str, Leaf, AlertDescription, &str); 6] = [
        (
            "expired",
            changed(&|params| params.not_after = date_time_ymd(2025, 6, 1)),
            AlertDescription::CertificateExpired,
            "has expired",
        ),
        (
            "not yet valid",
            changed(&|params| params.not_before = date_time_ymd(2027, 1, 1)),
            AlertDescription::CertificateExpired,
            "not valid yet",
        ),
        ("wrong CA", other, AlertDescription::UnknownCA, "no certificate of the CA file"),
        (
            "wrong purpose",
            changed(&|params| {
                params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
            }),
            AlertDescription::UnsupportedCertificate,
            "clientAuth",
        ),
        (
            "revoked",
            changed(&|params| params.serial_number = Some(SerialNumber::from(66_u64))),
            AlertDescription::CertificateRevoked,
            "it is revoked",
        ),
        ("self-signed", self_signed, AlertDescription::UnknownCA, "no certificate of the CA file"),
    ];
    let mut world = World::new();
    let crl = world.folder.write("crl.pem", &ca.crl(&[66], 2030));
    world.config.client = ClientAuth {
        crl_files: vec![crl],
        ca_file: Some(world.folder.write("clients.pem", &ca.pem)),
        ..asking.world.config.client.clone()
    };
    let context = world.load();
    let asking = Asking { world, ca: Ca::new("unused") };
    for version in [0, 1] {
        for (name, leaf, alert, says) in &table {
            let pair = asking.connect(&context, version, &leaf.pem, &leaf.key_pem);
            let failure = pair.failure.as_ref().unwrap_or_else(|| panic!("{name} was let in"));
            assert_eq!(failure.kind, FailureKind::ClientCertificate, "{name}: {failure:?}");
            assert!(failure.sentence.contains(says), "{name}: {}", failure.sentence);
            assert_eq!(pair.client_error, Some(Error::AlertReceived(*alert)), "{name}");
            assert!(!pair.server.is_open());
        }
        let leaf = ca.sign(&good);
        let pair = asking.connect(&context, version, &leaf.pem, &leaf.key_pem);
        assert!(pair.is_open(), "{:?}", pair.failure);
        let handshake = pair.server.handshake().unwrap();
        assert_eq!(handshake.peer_certificates, [leaf.der]);
    }
}

// T03
#[test]
fn a_chain_is_as_deep_as_allowed_and_what_it_does_not_need_does_not_count() {
    let mut asking = Asking::new(ClientVerification::Required);
    let first = asking.ca.intermediate("first");
    let second = first.intermediate("second");
    let leaf = second.sign(&client_params("deep"));
    let chain = format!("{}{}{}", leaf.pem, second.pem, first.pem);
    for (depth, opens) in [(0, false), (1, false), (2, true)] {
        asking.world.config.client.depth = depth;
        let pair = asking.connect(&asking.context(), 1, &chain, &leaf.key_pem);
        assert_eq!(pair.is_open(), opens, "depth {depth}: {:?}", pair.failure);
        if !opens {
            assert!(pair.failure.unwrap().sentence.contains("raise the depth"));
            let alert = Error::AlertReceived(AlertDescription::CertificateUnknown);
            assert_eq!(pair.client_error, Some(alert));
        }
    }
    asking.world.config.client.depth = 0;
    let short = asking.ca.sign(&client_params("short"));
    let chain = format!("{}{}{}", short.pem, second.pem, first.pem);
    let pair = asking.connect(&asking.context(), 1, &chain, &short.key_pem);
    assert!(pair.is_open(), "{:?}", pair.failure);
    // An intermediate as the one that is trusted: a partial chain.
    asking.world.config.client.ca_file = Some(asking.world.folder.write("part.pem", &second.pem));
    let pair = asking.connect(&asking.context(), 1, &leaf.pem, &leaf.key_pem);
    assert!(pair.is_open(), "{:?}", pair.failure);
}

// T03
#[test]
fn without_a_certificate_one_comes_in_only_where_it_is_optional() {
    for (verification, opens) in [
        (ClientVerification::None, true),
        (ClientVerification::Optional, true),
        (ClientVerification::Required, false),
    ] {
        let asking = Asking::new(verification);
        for version in BOTH {
            let client = Client::with(&asking.world.ca.pem, &[version], None);
            let pair = Pair::new(&asking.context(), &client).run();
            assert_eq!(pair.server.is_open(), opens, "{verification:?}");
            if let Some(failure) = pair.failure {
                assert_eq!(failure.kind, FailureKind::NoClientCertificate);
                // RFC 8446, section 4.4.2.4; for TLS 1.2 as well, where RFC 5246 has none of its own.
                let alert = Error::AlertReceived(AlertDescription::CertificateRequired);
                assert_eq!(pair.client_error, Some(alert));
            } else {
                assert_eq!(pair.server.peer_identity(), Ok(None));
            }
        }
    }
    // Optional does not mean that a bad one is taken.
    let asking = Asking::new(ClientVerification::Optional);
    let other = Ca::new("Other").sign(&client_params("x"));
    let pair = asking.connect(&asking.context(), 1, &other.pem, &other.key_pem);
    assert!(pair.failure.is_some());
}

// T06
#[test]
fn lists_out_of_date_and_issuers_without_a_list_follow_the_policy() {
    let mut asking = Asking::new(ClientVerification::Required);
    let leaf = asking.ca.sign(&client_params("device"));
    let stale = asking.world.folder.write("stale.pem", &asking.ca.crl(&[], 2025));
    let foreign = Ca::new("Foreign").crl(&[], 2030);
    let foreign = asking.world.folder.write("foreign.pem", &foreign);
    use CrlExpiry::{Refuse, Use};
    let table = [
        (&stale, Refuse, CrlUnknown::Refuse, Some("past its next update")),
        (&stale, Use, CrlUnknown::Refuse, None),
        (&foreign, Refuse, CrlUnknown::Refuse, Some("no CRL speaks of its issuer")),
        (&foreign, Refuse, CrlUnknown::Accept, None),
    ];
    for (file, expiry, unknown, refused) in table {
        let client = &mut asking.world.config.client;
        (client.crl_files, client.crl_expiry) = (vec![file.clone()], expiry);
        client.crl_unknown = unknown;
        let context = asking.context();
        assert_eq!(context.warnings().len(), usize::from(file == &stale));
        let pair = asking.connect(&context, 1, &leaf.pem, &leaf.key_pem);
        match refused {
            None => assert!(pair.is_open(), "{:?}", pair.failure),
            Some(why) => assert!(pair.failure.unwrap().sentence.contains(why)),
        }
    }
}

// T10
#[test]
fn a_ticket_vouches_for_a_client_until_its_certificate_ends_or_the_files_are_read_anew() {
    let asking = Asking::new(ClientVerification::Required);
    let mut params = client_params("device");
    params.not_after = date_time_ymd(2026, 1, 2);
    let leaf = asking.ca.sign(&params);
    let context = asking.context();
    for version in [0, 1] {
        let own = Some((&*leaf.pem, &*leaf.key_pem));
        let client = Client::with(&asking.world.ca.pem, &BOTH[version..=version], own);
        let connect = |context: &Arc<TlsContext>, now_s| {
            let mut pair = Pair::new(context, &client);
            pair.now_s = now_s;
            pair.go_on();
            if pair.is_open() {
                pair.server_writes(&[b"x"]);
            }
            pair
        };
        assert!(!connect(&context, NOW_S).server.handshake().unwrap().resumed);
        let resumed = connect(&context, NOW_S + 3_600);
        assert!(resumed.server.handshake().unwrap().resumed);
        let name = resumed.server.peer_identity().unwrap().unwrap().common_name;
        assert_eq!(name.as_deref(), Some("device"));
        // Revocation lists may have changed.
        let again = load::reload(&context, &asking.world.config, NOW_S).unwrap();
        assert!(!connect(&again, NOW_S + 3_700).server.handshake().unwrap().resumed);
        connect(&context, NOW_S + 40_000);
        let late = connect(&context, NOW_S + 40_000 + 43_000 + 10_000);
        assert!(late.failure.is_some(), "TLS 1.{}: the certificate has expired", 2 + version);
    }
}

#[test]
fn a_resumed_session_ends_with_the_certificate_that_it_was_opened_with() {
    let asking = Asking::new(ClientVerification::Required);
    let mut params = client_params("device");
    params.not_after = date_time_ymd(2026, 1, 2);
    let leaf = asking.ca.sign(&params);
    let context = asking.context();
    let own = Some((&*leaf.pem, &*leaf.key_pem));
    let client = Client::with(&asking.world.ca.pem, &[&rustls::version::TLS13], own);
    let mut first = Pair::new(&context, &client);
    first.now_s = NOW_S + 86_000;
    first.go_on();
    first.server_writes(&[b"x"]);
    let mut second = Pair::new(&context, &client);
    second.now_s = NOW_S + 86_401;
    second.go_on();
    let failure = second.failure.unwrap();
    assert_eq!(failure.kind, FailureKind::ClientCertificate);
    assert!(failure.sentence.contains("resumes"), "{}", failure.sentence);
    assert!(second.read.is_empty());
}

// C18
#[test]
fn a_certificate_says_who_its_holder_is() {
    let ca = Ca::new("Client CA");
    let mut params = client_params("device 7");
    params.distinguished_name.push(DnType::OrganizationName, "Ring, Main");
    params.serial_number = Some(SerialNumber::from(0xF00D_u64));
    let text = |text: &str| text.to_owned().try_into().unwrap();
    params.subject_alt_names = vec![
        SanType::DnsName(text("d7.example")),
        SanType::Rfc822Name(text("d7@example.org")),
        SanType::URI(text("urn:device:7")),
        SanType::IpAddress("192.0.2.7".parse().unwrap()),
        SanType::IpAddress("2001:db8::7".parse().unwrap()),
    ];
    let leaf = ca.sign(&params);
    let identity = Identity::of(&leaf.der).unwrap();
    assert_eq!(identity.common_name.as_deref(), Some("device 7"));
    // RFC 4514: the most specific part first, the comma escaped.
    assert_eq!(identity.subject, "O=Ring\\, Main,CN=device 7");
    assert_eq!(identity.dns_names, ["d7.example"]);
    assert_eq!(identity.emails, ["d7@example.org"]);
    assert_eq!(identity.uris, ["urn:device:7"]);
    let addresses: Vec<String> = identity.addresses.iter().map(ToString::to_string).collect();
    assert_eq!(addresses, ["192.0.2.7", "2001:db8::7"]);
    assert_eq!(identity.serial, "f00d");
    assert_eq!(identity.not_after_s, 1_893_456_000, "2030-01-01");
    assert_eq!(identity.sha256.len(), 64);
    let text: String = pem(&leaf.der);
    assert_eq!(text, leaf.pem.replace("\r\n", "\n"));
    assert!(Identity::of(&leaf.der[..50]).is_err());
}
